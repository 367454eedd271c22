/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packets of a device without Ethernet headers (tun, WireGuard, ipip, gre, PPP): at its tc ingress they start at the network
 * header. Two kinds of devices start earlier: XFRM interfaces keep the Ethernet header that the outer packet came with, and a
 * GRE tunnel without a remote address has the outer headers there (ipgre_rcv). So they are read from the network header on,
 * which bpf_skb_load_bytes_relative knows, in the linear part alone.
 */
#ifndef DPD_L3_H
#define DPD_L3_H

#include "parse.h"

enum l3_packet_kind {
	L3_PACKET_IP = 0,
	L3_PACKET_OTHER = 1, /* no sender that a prefix could name */
	L3_PACKET_MALFORMED = 2, /* a header that contradicts itself or its packet */
	L3_PACKET_UNREADABLE = 3, /* its fixed header is cut short, or not in the linear part */
};

/* Ports are for an event alone: where they can't be read, they stay zero. */
static __always_inline void l3_parse_ports(struct __sk_buff *skb, struct linear_headers *headers)
{
	__u8 transport[sizeof(struct tcphdr)] __attribute__((aligned(8))) = {};
	__u32 offset = headers->transport - ETH_HLEN;
	__u32 length = headers->tuple.protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);

	if (bpf_skb_load_bytes_relative(skb, offset, transport, length, BPF_HDR_START_NET))
		return;
	(void)linear_parse_ports(headers, transport, transport + sizeof(transport),
				 (__s32)headers->length - (__s32)offset);
}

static __always_inline enum l3_packet_kind l3_parse_ipv4(struct __sk_buff *skb,
							 struct linear_headers *headers)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return L3_PACKET_UNREADABLE;
	if (!linear_parse_ipv4(headers, &ip, skb->len))
		return L3_PACKET_MALFORMED;
	if (!(ip.frag_off & bpf_htons(IP4_OFFSET)))
		l3_parse_ports(skb, headers);
	return L3_PACKET_IP;
}

static __always_inline enum l3_packet_kind l3_parse_ipv6(struct __sk_buff *skb,
							 struct linear_headers *headers)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return L3_PACKET_UNREADABLE;
	if (!linear_parse_ipv6(headers, &ip, skb->len))
		return L3_PACKET_MALFORMED;
	l3_parse_ports(skb, headers);
	return address_is_mapped(&headers->tuple.source) ? L3_PACKET_OTHER : L3_PACKET_IP;
}

/* Reads the headers of an IP packet; addresses are there unless it is unreadable. */
static __noinline enum l3_packet_kind l3_parse(struct __sk_buff *skb, struct linear_headers *headers)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return l3_parse_ipv4(skb, headers);
	return l3_parse_ipv6(skb, headers);
}

/* The longest IPv4 header, and GRE's with checksum, key and sequence number (RFC 2784, RFC 2890): what may precede the packet. */
enum { L3_OUTER_MAX = 60 + 16 };

/* Makes headers linear that are not, wherever they start. */
static __always_inline int l3_pull(struct __sk_buff *skb)
{
	__u32 most = L3_OUTER_MAX + sizeof(struct ipv6hdr) + sizeof(struct tcphdr);

	return bpf_skb_pull_data(skb, skb->len < most ? skb->len : most);
}

/* Whether the packet has exactly `length` bytes before its network header: the linear part ends where it is counted from. */
static __always_inline int l3_starts_before_network(struct __sk_buff *skb, __u32 length)
{
	__u64 linear = (void *)(long)skb->data_end - (void *)(long)skb->data;
	__u8 byte;

	/* The compiler would calculate with the pointers themselves, which the verifier does not allow. */
	asm volatile("" : "+r"(linear));
	if (linear <= length ||
	    bpf_skb_load_bytes_relative(skb, linear - length - 1, &byte, 1, BPF_HDR_START_NET))
		return 0;
	return !length || bpf_skb_load_bytes_relative(skb, linear - length, &byte, 1, BPF_HDR_START_NET) != 0;
}

/*
 * Makes an Ethernet header without addresses, so that the packet is like one of any other uplink: whatever receives it by a veth
 * gets one with its MACs, and a device without such headers gets none (__bpf_redirect_no_mac). The kernel removes it from what
 * passes up the stack, as it does with any frame. Not zero: it can't be made.
 */
static __always_inline __must_check int l3_push_ethernet(struct __sk_buff *skb)
{
	struct ethhdr eth = { .h_proto = skb->protocol };

	if (l3_starts_before_network(skb, ETH_HLEN))
		return 0;
	if (!l3_starts_before_network(skb, 0))
		return -1;
	return bpf_skb_change_head(skb, ETH_HLEN, 0) || bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
}

#endif
