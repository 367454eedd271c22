/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Masquerade: what a workload sends to the world by an uplink that masquerades, and opens from here, takes an address of the
 * host. tail_snat chooses that.
 */
#ifndef DPD_MASQUERADE_H
#define DPD_MASQUERADE_H

#include "../mechanism/parse.h"
#include "route.h"
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
	struct route *route = &packet->way_out.route;

	if (!owner || owner->snat != SNAT_MASQUERADED)
		return 0;
	/* What has no route past the stack, or leads to no uplink, is not ours to translate. */
	if (route_find_with_source(skb, &tuple, route, &packet->way_out.source) != ROUTE_FORWARD)
		return 0;

	const struct uplink *uplink = uplink_masquerades(slot, route->ifindex, &tuple.destination);

	if (!uplink || packet_opens_nothing(packet))
		return 0;

	packet->ct.entry.snat_ifindex = route->ifindex;
	packet->ct.entry.flags |= CT_SNAT;
	return 1;
}

#endif
