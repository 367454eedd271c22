/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets of our own making, sent back to the workload on the interface that it spoke on. */
#ifndef DPD_ANSWER_H
#define DPD_ANSWER_H

#include "deliver.h"

enum {
	ANSWER_TTL = 64, /* IANA, IP Parameters: the recommended default */
	CSUM_CHUNK = 64,
};

/* Back to where it came from; the MACs are set. Not zero is an action. */
static __always_inline int answer_send(struct __sk_buff *skb, const struct packet *packet)
{
	const struct endpoint *endpoint = endpoint_find(packet->slot, packet->ifindex);

	if (!endpoint && packet->hook == HOOK_FROM_CONTAINER)
		return ACTION_DROP; /* the interface left the configuration between two reads */
	if (skb->pkt_type)
		bpf_skb_change_type(skb, 0);
	if (endpoint && endpoint->delivery == DELIVERY_PEER) {
		bpf_redirect_peer(packet->ifindex, 0);
	} else {
		skb->mark = DPD_MARK;
		bpf_redirect(packet->ifindex, 0);
	}
	return ACTION_REDIRECT;
}

/* The Ethernet header of an answer to the one that is there. */
static __always_inline __must_check int answer_turn_ethernet(struct __sk_buff *skb, struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, eth, sizeof(*eth)))
		return -1;
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return 0;
}

/* Adds up to CSUM_CHUNK bytes of the packet to a sum. Global: it is verified once, not once for each turn of a loop. */
__weak __noinline __u32 answer_sum_chunk(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 sum)
{
	__u8 chunk[CSUM_CHUNK] __attribute__((aligned(8))) = {};

	if (!length)
		return sum;
	if (length > CSUM_CHUNK)
		length = CSUM_CHUNK;
	/* The verifier of 6.1 does not learn from the comparison with zero that there is at least one byte. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & (CSUM_CHUNK - 1)) + 1;
	if (bpf_skb_load_bytes(skb, offset, chunk, length))
		return sum;
	return bpf_csum_diff(0, 0, (__be32 *)chunk, CSUM_CHUNK, sum);
}

/* Adds `length` bytes of the packet from `offset` on to a sum. */
static __always_inline __u32 answer_sum(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 sum)
{
	for (__u32 done = 0; done < 1280; done += CSUM_CHUNK) {
		if (done >= length)
			break;
		sum = answer_sum_chunk(skb, offset + done, length - done, sum);
	}
	return sum;
}

/*
 * The sum of a pseudo header. IPv4's has no mapped prefix, but 0x0000ffff adds zero in one's complement (RFC 1071), so
 * one sum serves both families.
 */
static __always_inline __u32 answer_pseudo_sum(const struct address *source,
					       const struct address *destination, __u32 length, __u8 protocol)
{
	struct {
		struct address source, destination;
		__be32 length, protocol;
	} pseudo = { *source, *destination, bpf_htonl(length), bpf_htonl(protocol) };

	return bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
}

static __always_inline struct iphdr answer_ipv4(const struct address *source,
						const struct address *destination, __u32 total, __u8 protocol,
						__u8 tos)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = tos,
		.tot_len = bpf_htons(total),
		.frag_off = protocol == IPPROTO_TCP ? bpf_htons(IP4_DF) : 0,
		.ttl = ANSWER_TTL,
		.protocol = protocol,
		.saddr = address_to_ipv4(source),
		.daddr = address_to_ipv4(destination),
	};

	ip.check = ~csum_fold(bpf_csum_diff(0, 0, (__be32 *)&ip, sizeof(ip), 0));
	return ip;
}

static __always_inline struct ipv6hdr answer_ipv6(const struct address *source,
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
