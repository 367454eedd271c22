/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What comes from the network, once it has an Ethernet header: the same for every kind of uplink. The host's own traffic arrives
 * here too: all that is not a workload's passes, and only its addresses are read; of what is sent to an address that workloads
 * masquerade behind, the chain reads what the fast path can't (fragments, errors, options).
 */
#ifndef DPD_FROM_NETWORK_H
#define DPD_FROM_NETWORK_H

#include "../mechanism/chain.h"
#include "fastpath.h"
#include "takeover.h"

/* For whom a packet from the network is. */
enum receiver {
	RECEIVER_OTHER = 0, /* the host, or somebody behind it that dpd does not serve */
	RECEIVER_WORKLOAD = 1, /* of this host, be its interface there or not */
	RECEIVER_STRAY = 2, /* the host, or a workload behind an address of the host's: the chain knows */
};

/* By an address and what the fast path has seen. */
static __always_inline enum receiver receiver_of_address(__u32 slot, const struct address *address, int seen)
{
	const struct ipcache_entry *owner = ipcache_find(slot, address);

	if (owner && (owner->scope == SCOPE_ENDPOINT || owner->scope == SCOPE_PENDING))
		return RECEIVER_WORKLOAD;
	if (seen == SEEN_SNAT)
		return RECEIVER_STRAY; /* also at an address that the host has had */
	return owner && owner->snat >= SNAT_HOST && seen == SEEN_NOTHING ? RECEIVER_STRAY : RECEIVER_OTHER;
}

/* Whether SNAT has connections of a protocol; of IPv6's extension headers, whether such a one may come behind it. */
static __always_inline int snat_has_protocol(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
	case IPPROTO_SCTP:
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
		return 1;
	}
	return 0;
}

/* By the packet's fixed header. */
static __noinline enum receiver receiver_of_packet(struct __sk_buff *skb, __u32 slot, int seen)
{
	struct address destination;
	enum receiver receiver;
	__be32 ipv4;
	__u32 at = ETH_HLEN + offsetof(struct ipv6hdr, nexthdr);
	__u8 protocol = 0;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &ipv4, sizeof(ipv4)))
			return RECEIVER_OTHER;
		destination = address_from_ipv4(ipv4);
		at = ETH_HLEN + offsetof(struct iphdr, protocol);
	} else {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &destination,
				       sizeof(destination)))
			return RECEIVER_OTHER;
		if (address_is_mapped(&destination))
			return RECEIVER_OTHER; /* the tables would take it for IPv4 */
	}
	receiver = receiver_of_address(slot, &destination, seen);
	if (receiver != RECEIVER_STRAY || seen == SEEN_SNAT)
		return receiver;
	if (bpf_skb_load_bytes(skb, at, &protocol, 1) || !snat_has_protocol(protocol))
		return RECEIVER_OTHER;
	return RECEIVER_STRAY;
}

/* The way of an IP packet that was sent to this host, behind an Ethernet header. `hook` is a constant. */
static __always_inline int from_network(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	int seen = SEEN_NOTHING;
	enum receiver receiver = RECEIVER_WORKLOAD;
	int result = fastpath(skb, hook, epoch, &seen);

	if (likely(result == ACTION_REDIRECT))
		return TC_ACT_REDIRECT;
	takeover_all(skb, hook, epoch);
	if (!result)
		receiver = receiver_of_packet(skb, generation_slot(epoch), seen);
	if (result == ACTION_PASS || receiver == RECEIVER_OTHER)
		return HOOK_NEXT;

	struct packet *packet = packet_init(skb, hook, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* a per-CPU array always has its row 0 */
	packet->is_stray = receiver == RECEIVER_STRAY;
	return step_finish(skb, packet, result,
			   skb->protocol == bpf_htons(ETH_P_IP) ? STEP_HANDLE_IPV4 : STEP_HANDLE_IPV6);
}

#endif
