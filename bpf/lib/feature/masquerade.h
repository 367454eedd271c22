/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Masquerade: what a workload sends to the world by an uplink that masquerades, and that begins here, takes an address of the
 * host: the one that the kernel would take for that route, else one of the uplink's.
 */
#ifndef DPD_MASQUERADE_H
#define DPD_MASQUERADE_H

#include "route.h"
#include "snat.h"
#include "uplink.h"

/*
 * Whether the packet opens no connection: a reply, or an end. What it belongs to has begun elsewhere, with the workload's own
 * address.
 */
static __always_inline int packet_opens_nothing(const struct packet *packet)
{
	const struct packet_headers *headers = &packet->headers;

	if (headers->tuple.protocol == IPPROTO_TCP)
		return headers->tcp.flags & TCP_RST ||
		       (headers->tcp.flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
	return packet_is_icmp(packet) && !headers->tuple.source_port;
}

/* The source that the kernel would take for the route of `tuple`. Not zero if it names one that new connections may take. */
static __noinline int masquerade_kernel_source(struct __sk_buff *skb, __u32 slot,
					       const struct flow_tuple *tuple, struct address *source)
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

/*
 * Gives the new connection of the record an address of the host, if it is to have one; tail_snat finds its port. Zero: it keeps
 * its source. Global: it is verified once.
 */
__weak __noinline int masquerade(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet || packet->hook.sender != PARTY_ENDPOINT)
		return 0;

	__u32 slot = packet->generation_slot;
	struct flow_tuple tuple = packet->ct.entry.translated;
	int is_ipv4 = address_is_mapped(&tuple.destination);
	const struct ipcache_entry *owner = ipcache_find(slot, &tuple.destination);
	struct route route = {};

	if (!owner || owner->snat != SNAT_MASQUERADED)
		return 0;
	/* What has no route past the stack, or leads to no uplink, is not ours to translate. */
	if (route_find(skb, &tuple, ROUTE_ANY_LENGTH, &route) != ROUTE_FORWARD)
		return 0;

	const struct uplink *uplink = uplink_find(slot, route.ifindex);

	if (!uplink || !(uplink->masquerade & (is_ipv4 ? MASQUERADE_IPV4 : MASQUERADE_IPV6)) ||
	    packet_opens_nothing(packet))
		return 0;

	struct ct_entry *entry = &packet->ct.entry;
	struct address source;

	if (!masquerade_kernel_source(skb, slot, &tuple, &source))
		source = is_ipv4 ? uplink->snat_ipv4 : uplink->snat_ipv6;
	entry->translated.source = source;
	entry->snat_ifindex = route.ifindex;
	entry->flags |= CT_SNAT;
	return 1;
}

/*
 * Whether the translated source of the packet's entry may still be used: the host has the address, and the uplink masquerades.
 * True of a connection without SNAT. Global: it is verified once.
 */
__weak __noinline int masquerade_is_valid(void)
{
	const struct packet *packet = packet_record();

	if (!packet || !(packet->ct.entry.flags & CT_SNAT))
		return 1;

	const struct ct_entry *entry = &packet->ct.entry;
	const struct address *source =
		entry->flags & CT_REPLY ? &packet->headers.tuple.destination : &entry->translated.source;
	const struct uplink *uplink = uplink_find(packet->generation_slot, entry->snat_ifindex);
	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, source);
	__u8 family = address_is_mapped(source) ? MASQUERADE_IPV4 : MASQUERADE_IPV6;

	return uplink && uplink->masquerade & family && owner && owner->snat >= SNAT_HOST;
}

#endif
