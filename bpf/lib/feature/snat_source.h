/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The address of the host that SNAT gives to a new connection: the kernel's for its route, else one of the uplink's; and whether a
 * connection may keep it.
 */
#ifndef DPD_SNAT_SOURCE_H
#define DPD_SNAT_SOURCE_H

#include "../mechanism/ipcache.h"
#include "../mechanism/packet.h"
#include "conntrack.h"
#include "route.h"
#include "uplink.h"

/* The source that the kernel would take for the route of `tuple`. Not zero if it names one that new connections may take. */
static __noinline int kernel_source(struct __sk_buff *skb, __u32 slot, const struct flow_tuple *tuple,
				    struct address *source)
{
	struct bpf_fib_lookup fib = route_question(tuple, skb->ifindex, ROUTE_ANY_LENGTH);
	long result = bpf_fib_lookup(skb, &fib, sizeof(fib), FIB_LOOKUP_SRC);

	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return 0; /* before Linux 6.7: EINVAL */
	*source = address_is_mapped(&tuple->destination) ? address_from_ipv4(fib.ipv4_src)
							 : address_from_ipv6(fib.ipv6_src);

	const struct ipcache_entry *owner = ipcache_find(slot, source);

	return owner && owner->snat == SNAT_SOURCE;
}

/* Chooses for the packet's connection, which leaves by entry.snat_ifindex. Global: it is verified once. */
__weak __noinline int snat_choose_source(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return 0;

	struct flow_tuple tuple = packet->ct.entry.translated;
	const struct uplink *uplink = uplink_find(packet->generation_slot, packet->ct.entry.snat_ifindex);
	struct address source = {};

	if (!kernel_source(skb, packet->generation_slot, &tuple, &source) && uplink)
		source = address_is_mapped(&tuple.destination) ? uplink->snat_ipv4 : uplink->snat_ipv6;
	packet->ct.entry.translated.source = source;
	return 0;
}

/*
 * Whether the translated source of the packet's entry may still be used: the host has the address, the uplink masquerades or the
 * client is a service's, and the peer is not the host itself, which accepts no packet from an address of its own. True of a
 * connection without SNAT. Global: it is verified once.
 */
__weak __noinline int snat_source_is_valid(void)
{
	const struct packet *packet = packet_record();

	if (!packet || !(packet->ct.entry.flags & CT_SNAT))
		return 1;

	const struct ct_entry *entry = &packet->ct.entry;
	const struct flow_tuple *tuple = &packet->headers.tuple;
	int reply = entry->flags & CT_REPLY;
	const struct address *source = reply ? &tuple->destination : &entry->translated.source;
	const struct address *peer = reply ? &tuple->source : &entry->translated.destination;
	const struct uplink *uplink = uplink_find(packet->generation_slot, entry->snat_ifindex);
	__u8 family = address_is_mapped(source) ? MASQUERADE_IPV4 : MASQUERADE_IPV6;
	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, source);

	if (!uplink || !owner || owner->snat < SNAT_HOST)
		return 0;
	if (!ct_is_of_network(entry) && !(uplink->masquerade & family))
		return 0;
	owner = ipcache_find(packet->generation_slot, peer);
	return owner && owner->scope != SCOPE_HOST;
}

#endif
