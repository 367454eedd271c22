/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What comes from the network, once it has an Ethernet header: the same for every kind of uplink. The host's own traffic arrives
 * here too: all that is not a workload's passes, and only its addresses are read.
 */
#ifndef DPD_FROM_NETWORK_H
#define DPD_FROM_NETWORK_H

#include "../mechanism/chain.h"
#include "fastpath.h"
#include "takeover.h"

/* Whether an address is a workload's of this host, be its interface there or not. */
static __always_inline int is_of_workload(__u32 slot, const struct address *address)
{
	const struct ipcache_entry *owner = ipcache_find(slot, address);

	return owner && (owner->scope == SCOPE_ENDPOINT || owner->scope == SCOPE_PENDING);
}

/* Whether the packet is for a workload of this host, by its fixed header. */
static __always_inline int is_to_workload(struct __sk_buff *skb, __u32 slot)
{
	struct address destination;
	__be32 ipv4;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &ipv4, sizeof(ipv4)))
			return 0;
		destination = address_from_ipv4(ipv4);
	} else {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &destination,
				       sizeof(destination)))
			return 0;
		if (address_is_mapped(&destination))
			return 0; /* no workload has it: the tables would take it for IPv4 */
	}
	return is_of_workload(slot, &destination);
}

/* The way of an IP packet that was sent to this host, behind an Ethernet header. `hook` is a constant. */
static __always_inline int from_network(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	int result = fastpath(skb, hook, epoch);

	if (likely(result == ACTION_REDIRECT))
		return TC_ACT_REDIRECT;
	takeover_all(skb, hook, epoch);
	if (result == ACTION_PASS || (!result && !is_to_workload(skb, generation_slot(epoch))))
		return HOOK_NEXT;

	struct packet *packet = packet_init(skb, hook, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* a per-CPU array always has its row 0 */
	return step_finish(skb, packet, result,
			   skb->protocol == bpf_htons(ETH_P_IP) ? STEP_HANDLE_IPV4 : STEP_HANDLE_IPV6);
}

#endif
