/* SPDX-License-Identifier: GPL-2.0-only */
/* Responses: packets that dpd builds itself, most of which go back by the interface that their cause arrived at. */
#ifndef DPD_RESPOND_H
#define DPD_RESPOND_H

#include "../mechanism/csum.h"
#include "endpoint.h"

enum {
	RESPONSE_TTL = 64, /* IANA, IP Parameters: the recommended default */
};

/* Back to where the packet came from; the MACs are set. The result is an action. */
static __always_inline int response_send(struct __sk_buff *skb, const struct packet *packet)
{
	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);

	if (!endpoint && packet->hook.role == ROLE_ENDPOINT)
		return ACTION_DROP; /* the interface left the configuration between two lookups */
	if (skb->pkt_type)
		bpf_skb_change_type(skb, PACKET_HOST);
	if (endpoint && endpoint->delivery == DELIVERY_PEER) {
		bpf_redirect_peer(packet->ifindex, 0);
	} else {
		skb->mark = generation_mark();
		bpf_redirect(packet->ifindex, 0);
	}
	return ACTION_REDIRECT;
}

/* The Ethernet header of a response to the frame that is there. */
static __always_inline __must_check int response_ethernet(struct __sk_buff *skb, struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, eth, sizeof(*eth)))
		return -1;
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return 0;
}

static __always_inline struct iphdr response_ipv4(const struct address *source,
						  const struct address *destination, __u32 total,
						  __u8 protocol, __u8 tos)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = tos,
		.tot_len = bpf_htons(total),
		.frag_off = protocol == IPPROTO_TCP ? bpf_htons(IP4_DF) : 0,
		.ttl = RESPONSE_TTL,
		.protocol = protocol,
		.saddr = address_to_ipv4(source),
		.daddr = address_to_ipv4(destination),
	};

	ip.check = ~csum_fold(bpf_csum_diff(0, 0, (__be32 *)&ip, sizeof(ip), 0));
	return ip;
}

static __always_inline struct ipv6hdr response_ipv6(const struct address *source,
						    const struct address *destination, __u32 payload,
						    __u8 protocol, __u8 hop_limit)
{
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(payload),
		.nexthdr = protocol,
		.hop_limit = hop_limit,
	};

	__builtin_memcpy(&ip.saddr, source, 16);
	__builtin_memcpy(&ip.daddr, destination, 16);
	return ip;
}

#endif
