/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Masquerade: what a workload sends to the world by an uplink that masquerades, and that begins here, takes an address of the
 * host: the one that the kernel would take for that route, else one of the uplink's.
 */
#ifndef DPD_MASQUERADE_H
#define DPD_MASQUERADE_H

#include "../mechanism/parse.h"
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
	if (!packet_is_icmp(packet))
		return 0;
	if (headers->fragment == FRAGMENT_LATER)
		return !headers->tuple.source_port; /* the identifier of a request's first fragment */
	return !packet_is_echo_request(packet);
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
	const struct ipcache_entry *owner = ipcache_find(slot, &tuple.destination);
	struct route route = {};

	if (!owner || owner->snat != SNAT_MASQUERADED)
		return 0;
	/* What has no route past the stack, or leads to no uplink, is not ours to translate. */
	if (route_find(skb, &tuple, ROUTE_ANY_LENGTH, &route) != ROUTE_FORWARD)
		return 0;

	const struct uplink *uplink = uplink_masquerades(slot, route.ifindex, &tuple.destination);

	if (!uplink || packet_opens_nothing(packet))
		return 0;

	packet->ct.entry.snat_ifindex = route.ifindex;
	packet->ct.entry.flags |= CT_SNAT;
	return 1;
}

/*
 * Gives what the network opens through a service to a backend on another host an address of this one, so that its replies come back
 * here. Not zero if it has got one, or minus a reason. Global: it is verified once.
 */
__weak __noinline int snat_external(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet || packet->hook.sender != PARTY_UPLINK || !packet->ct.entry.service)
		return 0;

	struct flow_tuple tuple = packet->ct.entry.translated;
	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, &tuple.destination);
	struct route route = {};

	if (owner && (owner->scope == SCOPE_ENDPOINT || owner->scope == SCOPE_PENDING))
		return 0;
	/* What would leave by no uplink, or for the host itself, would not come back through here. */
	if (!owner || owner->scope == SCOPE_HOST ||
	    route_find(skb, &tuple, ROUTE_ANY_LENGTH, &route) != ROUTE_FORWARD)
		return -REASON_NO_ROUTE;

	if (!uplink_find(packet->generation_slot, route.ifindex))
		return -REASON_NO_ROUTE;
	packet->ct.entry.snat_ifindex = route.ifindex;
	packet->ct.entry.flags |= CT_SNAT;
	return 1;
}

/*
 * Whether the translated source of the packet's entry may still be used: the host has the address, the uplink masquerades or the
 * client is a service's, and the peer is not the host itself, which accepts no packet from an address of its own. True of a
 * connection without SNAT. Global: it is verified once.
 */
__weak __noinline int masquerade_is_valid(void)
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
