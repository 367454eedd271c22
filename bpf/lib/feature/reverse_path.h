/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's check of the route back (rp_filter), for connections that open past its stack. Where one lookup can't confirm
 * the way (several routes of equal cost, several tables), the packet goes up the stack, and the kernel's own check decides.
 */
#ifndef DPD_REVERSE_PATH_H
#define DPD_REVERSE_PATH_H

#include "../mechanism/packet.h"
#include "route.h"
#include "uplink.h"

/* Whether the source of the chain's packet may come by this uplink. Global: it is verified once, not once for each way to it. */
__weak __noinline int reverse_path_is_confirmed(struct __sk_buff *skb)
{
	const struct packet *packet = packet_record();
	const struct uplink *uplink = packet ? uplink_find(packet->generation_slot, packet->ifindex) : 0;

	if (!packet || !uplink || !uplink->reverse_path || packet->headers.family != 4)
		return 1;

	struct flow_tuple back = flow_tuple_reverse(&packet->headers.tuple);
	struct route route = {};

	if (route_find(skb, &back, 0, &route) != ROUTE_FORWARD)
		return 0;
	return uplink->reverse_path == REVERSE_PATH_LOOSE || route.ifindex == packet->ifindex;
}

#endif
