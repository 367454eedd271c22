/* SPDX-License-Identifier: GPL-2.0-only */
/* External services: what the network opens through one to a backend on another host takes an address of this host. */
#ifndef DPD_EXTERNAL_H
#define DPD_EXTERNAL_H

#include "../mechanism/ipcache.h"
#include "../mechanism/packet.h"
#include "route.h"
#include "uplink.h"

/*
 * Gives the new connection of the record an address of the host, if it is such a one, so that its replies come back here; tail_snat
 * chooses that. Zero: it keeps its source; or minus a reason. Global: it is verified once.
 */
__weak __noinline int external_relay(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet || packet->hook.sender != PARTY_UPLINK || !packet->ct.entry.service)
		return 0;

	struct flow_tuple tuple = packet->ct.entry.translated;
	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, &tuple.destination);
	struct route *route = &packet->way_out.route;

	if (owner && (owner->scope == SCOPE_ENDPOINT || owner->scope == SCOPE_PENDING))
		return 0;
	/* What would leave by no uplink, or for the host itself, would not come back through here. */
	if (!owner || owner->scope == SCOPE_HOST ||
	    route_find_with_source(skb, &tuple, route, &packet->way_out.source) != ROUTE_FORWARD)
		return -REASON_NO_ROUTE;

	if (!uplink_find(packet->generation_slot, route->ifindex))
		return -REASON_NO_ROUTE;
	packet->ct.entry.snat_ifindex = route->ifindex;
	packet->ct.entry.flags |= CT_SNAT;
	return 1;
}

#endif
