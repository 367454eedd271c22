/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Addresses of services that no interface of the host has. Nobody on an uplink's link would find them: the kernel
 * answers ARP and neighbour discovery for its own addresses alone. Those of this table the uplink answers for; the
 * daemon puts an address there once nobody else on the link has it.
 */
#ifndef DPD_ANNOUNCE_H
#define DPD_ANNOUNCE_H

#include "../mechanism/chain.h"
#include "../mechanism/neighbour_message.h"
#include "../mechanism/vlan.h"
#include "takeover.h"

struct announced_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct link_address));
	__uint(value_size, sizeof(struct announced));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct announced_table);
} dpd_announced __weak SEC(".maps");

/* Null: the host does not answer for the address on this link. */
static __always_inline const struct announced *announced_find(__u32 slot, __u32 ifindex,
							      const struct address *address)
{
	struct link_address key = { .address = *address, .ifindex = ifindex };
	void *table = bpf_map_lookup_elem(&dpd_announced, &slot);

	return table ? bpf_map_lookup_elem(table, &key) : 0;
}

/* The address that a frame requests. Zero: it is neither an ARP packet nor a neighbour solicitation. */
static __always_inline int requested_address(struct __sk_buff *skb, struct address *target)
{
	__u8 protocol = 0, type = 0;
	__be32 ipv4;

	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct arp_packet, target), &ipv4,
				       sizeof(ipv4)))
			return 0;
		*target = address_from_ipv4(ipv4);
		return 1;
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &protocol, 1) ||
	    protocol != IPPROTO_ICMPV6 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &type, 1) ||
	    type != ND_NEIGHBOUR_SOLICITATION)
		return 0;
	return !nd_read_target(skb, ETH_HLEN + sizeof(struct ipv6hdr), target);
}

/* Whether a frame requests an address that the uplink answers for. Global: it is verified once. */
__weak __noinline int announce_is_requested(struct __sk_buff *skb, __u64 epoch)
{
	struct address target;

	return requested_address(skb, &target) &&
	       announced_find(generation_slot(epoch), skb->ifindex, &target) != 0;
}

/* A frame that requests such an address goes to tail_announce. Else, and if the step is missing, this returns. */
static __always_inline void announce(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	if (likely(!announce_is_requested(skb, epoch)))
		return;
	if (packet_init(skb, hook, epoch))
		chain_tail_call(skb, STEP_ANNOUNCE);
}

/* The same for what is no IP packet for the host: broadcast and multicast, and ARP that is sent to it alone. */
static __always_inline void announce_on_link(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	if (skb->pkt_type == PACKET_OTHERHOST)
		return;
	if (unlikely(vlan_is_tagged(skb)))
		vlan_untag_priority(skb);
	if (skb->vlan_present ||
	    (skb->protocol != bpf_htons(ETH_P_ARP) && skb->protocol != bpf_htons(ETH_P_IPV6)))
		return;
	takeover_all(skb, hook, epoch);
	announce(skb, hook, epoch);
}

#endif
