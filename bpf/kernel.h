/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel's own types and numbers, and the few that the headers of an older kernel do not have. */
#ifndef DPD_KERNEL_H
#define DPD_KERNEL_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/icmpv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* include/net/ip.h, include/net/ipv6.h */
enum {
	IP4_DF = 0x4000,
	IP4_MF = 0x2000,
	IP4_OFFSET = 0x1fff,
	IP6_MF = 0x0001,
	IP6_OFFSET = 0xfff8,
};

/* linux/bpf.h since Linux 6.7: the lookup names the source address that the kernel would take. Before that it is EINVAL. */
enum { FIB_LOOKUP_SRC = 1 << 4 };

/* include/linux/socket.h: UAPI headers don't have them. */
enum {
	AF_INET = 2,
	AF_INET6 = 10,
};

/* asm-generic/errno.h, asm-generic/errno-base.h */
enum {
	ENOMEM = 12,
	ECONNREFUSED = 111,
};

/* <linux/icmp.h> and <linux/if_arp.h> want a C library: RFC 792, RFC 826. */
enum {
	ICMP_ECHOREPLY = 0,
	ICMP_DEST_UNREACH = 3,
	ICMP_SOURCE_QUENCH = 4,
	ICMP_REDIRECT = 5,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETERPROB = 12,
	ICMP_HOST_UNREACH = 1, /* code */
	ICMP_PORT_UNREACH = 3, /* code */
	ICMP_FRAG_NEEDED = 4, /* code */
	ICMP_PKT_FILTERED = 13, /* code */
	ICMP_EXC_TTL = 0, /* code */
	ARPHRD_ETHER = 1,
	ARPOP_REQUEST = 1,
	ARPOP_REPLY = 2,
};

struct icmphdr {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 rest;
};

/* TCP flags: byte 13 of the header (RFC 9293, 3.1). */
enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

enum {
	NSEC_PER_SEC = 1000000000,
	ETH_VXLAN_PORT = 8472,
};

/* include/linux/skbuff.h: how a packet's transport checksum stands. */
enum {
	CHECKSUM_COMPLETE = 2, /* the kernel holds a sum over all of it */
	CHECKSUM_PARTIAL = 3, /* the field holds the pseudo header's sum; the rest is left to the hardware */
};

/* The kernel's own record of a packet, as far as it is read; libbpf finds the place of the field. */
struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *) __ksym __weak; /* since Linux 6.2 */

/* A stage's answer is for its caller to act on; to lose one is a mistake. */
#define __must_check __attribute__((warn_unused_result))

#endif
