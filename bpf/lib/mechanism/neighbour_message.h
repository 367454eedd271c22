/* SPDX-License-Identifier: GPL-2.0-only */
/* ARP and neighbour discovery on the wire. */
#ifndef DPD_NEIGHBOUR_MESSAGE_H
#define DPD_NEIGHBOUR_MESSAGE_H

#include "address.h"

/* RFC 826, for Ethernet and IPv4. */
struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
} __attribute__((packed));

/* Types of ICMPv6, and the hop limit that shows that no router has forwarded the message (RFC 4861). */
enum {
	ND_ROUTER_SOLICITATION = 133,
	ND_NEIGHBOUR_SOLICITATION = 135,
	ND_NEIGHBOUR_ADVERTISEMENT = 136,
	ND_REDIRECT = 137,
	ND_HOP_LIMIT = 255,
};

/* RFC 4861, 4.4, with the option of the target's link-layer address (4.6.1). */
struct neighbour_advertisement {
	struct icmp6hdr icmp;
	struct address target;
	__u8 option;
	__u8 option_length; /* in eights */
	__u8 mac[ETH_ALEN];
};

enum {
	ND_OPTION_TARGET = 2,
	ND_FLAG_OVERRIDE = 0x20,
	ND_FLAG_SOLICITED = 0x40,
};

static __always_inline struct address address_from_bytes(const __u8 *bytes)
{
	__be32 ipv4;

	__builtin_memcpy(&ipv4, bytes, sizeof(ipv4));
	return address_from_ipv4(ipv4);
}

/* Reads an ARP packet behind an Ethernet header; not zero if it is of another kind of network, or cut short. */
static __always_inline __must_check int arp_read(struct __sk_buff *skb, struct arp_packet *arp)
{
	return bpf_skb_load_bytes(skb, ETH_HLEN, arp, sizeof(*arp)) ||
	       arp->hardware != bpf_htons(ARPHRD_ETHER) || arp->protocol != bpf_htons(ETH_P_IP) ||
	       arp->hardware_length != ETH_ALEN || arp->protocol_length != 4;
}

/* Reads the target of a neighbour solicitation, whose ICMPv6 header stands at `transport`. Not zero: it has none. */
static __always_inline __must_check int nd_read_target(struct __sk_buff *skb, __u32 transport,
						       struct address *target)
{
	return bpf_skb_load_bytes(skb, transport + sizeof(struct icmp6hdr), target, sizeof(*target)) ||
	       address_is_multicast(target) || address_is_scoped(target);
}

#endif
