/* SPDX-License-Identifier: GPL-2.0-only */
/* Delivery: how a packet leaves, the last act of a hook that sends it there, and what is counted and reported of it. */
#ifndef DPD_DELIVERY_H
#define DPD_DELIVERY_H

#include "../mechanism/event.h"
#include "conntrack.h"
#include "neighbour.h"
#include "uplink.h"

/* -- Choosing ------------------------------------------------------------------------------------------------------- */

/* A packet that would die on its next hop is not forwarded. */
static __always_inline __must_check int delivery_check_hop_limit(struct packet *packet)
{
	if (packet->headers.hop_limit > 1)
		return 0;
	packet->response.kind = RESPONSE_TIME_EXCEEDED;
	return -REASON_TTL_EXCEEDED;
}

/*
 * Whether the packet leaves by this interface past the host's stack: it is an uplink of the file, and a new connection's way by
 * it is direct. A connection that has begun keeps its way, whatever the way of new ones is now. Global: it is verified once.
 */
__weak __noinline int delivery_is_direct(__u32 ifindex)
{
	struct packet *packet = packet_record();
	const struct uplink *uplink = packet ? uplink_find(packet->generation_slot, ifindex) : 0;

	if (!packet || !uplink)
		return 0;
	if (!packet->ct.found && uplink->forwarding == FORWARDING_STACK) {
		packet->ct.entry.flags |= CT_VIA_STACK;
		packet->ct.entry.delivery = DELIVERY_PASS;
		return 0;
	}
	packet->ct.entry.link_ifindex = ifindex;
	return 1;
}

/* The host's routes lead elsewhere or nowhere: the receiver is on the link itself. */
static __always_inline void route_set_on_link(struct route *route, const struct ct_entry *entry)
{
	const struct address *to = &entry->translated.destination;

	__builtin_memset(route, 0, sizeof(*route));
	route->ifindex = entry->link_ifindex;
	if (address_is_mapped(to)) {
		route->next.nh_family = AF_INET;
		route->next.ipv4_nh = address_to_ipv4(to);
	} else {
		route->next.nh_family = AF_INET6;
		__builtin_memcpy(route->next.ipv6_nh, to, sizeof(route->next.ipv6_nh));
	}
}

/* Whether the packet leaves with the address that SNAT has given to its connection. */
static __always_inline int delivery_is_snat(const struct ct_entry *entry)
{
	return (entry->flags & (CT_SNAT | CT_REPLY)) == CT_SNAT && entry->delivery == DELIVERY_ROUTE;
}

/*
 * Whether the packet leaves with an address of the host for its source, by SNAT or from a frontend: the host's stack would drop it.
 * Global: it is verified once.
 */
__weak __noinline int delivery_is_as_host(void)
{
	const struct packet *packet = packet_record();

	if (!packet || packet->ct.entry.delivery != DELIVERY_ROUTE || !ct_is_at_host(&packet->ct.entry))
		return 0;

	struct address source = packet->ct.entry.translated.source;
	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, &source);

	return owner && owner->scope == SCOPE_HOST;
}

/*
 * Whether the route of a connection that a workload has opened with its own address has come to lead out of an uplink that
 * masquerades: there was no route before, or another interface. What left by this one already goes on.
 */
static __noinline int delivery_lacks_snat(const struct packet *packet, __u32 ifindex)
{
	const struct ct_entry *entry = &packet->ct.entry;

	if (!packet->ct.found || packet->hook.sender != PARTY_ENDPOINT || entry->link_ifindex == ifindex ||
	    entry->flags & (CT_REPLY | CT_SNAT | CT_SYN_ACK_FIRST))
		return 0;
	return !!uplink_masquerades(packet->generation_slot, ifindex, &entry->translated.destination);
}

/*
 * A connection whose route has changed so that its source is wrong there. It ends, as with the kernel's own masquerade, and opens
 * again with the next packet.
 */
static __noinline __must_check int delivery_lost_uplink(struct packet *packet)
{
	if (packet->ct.found)
		ct_delete_pair(&packet->headers.tuple, &packet->ct.entry);
	return -REASON_NO_ROUTE;
}

/*
 * A packet that is longer than this: its sender hears of it, unless it may be cut, which the host's stack does. Its pieces
 * keep the mark on their way to a receiver of this host.
 */
static __always_inline __must_check int delivery_too_long(struct packet *packet, struct route *route,
							  __u32 mtu, int *delivery)
{
	/* The stack would drop what has an address of its own for a source. */
	if (packet->headers.may_fragment && !delivery_is_as_host()) {
		route->mark = packet->ct.entry.target == PARTY_ENDPOINT ? generation_mark() : 0;
		*delivery = DELIVERY_PASS;
		return 0;
	}
	packet->response.mtu = mtu;
	packet->response.kind = RESPONSE_TOO_BIG;
	return -REASON_TOO_BIG;
}

/* What the kernel's routes forbid, with the error that the kernel would send. */
static __always_inline __must_check int delivery_refuse(struct packet *packet, int found)
{
	if (found == ROUTE_UNREACHABLE)
		packet->response.kind = RESPONSE_NO_ROUTE;
	else if (found == ROUTE_PROHIBITED)
		packet->response.kind = RESPONSE_PROHIBITED;
	return -REASON_NO_ROUTE;
}

/* The route of a packet of this length. tail_ct has looked up that of a new connection with SNAT, by the same tuple. */
static __noinline int delivery_find_route(struct __sk_buff *skb, const struct packet *packet,
					  const struct flow_tuple *routed, __u32 length, struct route *route)
{
	const struct route *known = &packet->way_out.route;

	if (packet->ct.found || !(packet->ct.entry.flags & CT_SNAT) || !known->is_resolved ||
	    length > known->mtu)
		return route_find(skb, routed, length, route);
	*route = *known;
	return ROUTE_FORWARD;
}

/*
 * How this packet leaves: as its entry says, except for what the kernel's routes and neighbours decide packet by packet. Not
 * const: a receiver among several gets the MAC of its next hop here. Global: it is verified once.
 */
__weak __noinline __must_check int delivery_select(struct __sk_buff *skb, struct route *route, int *delivery)
{
	struct packet *packet = packet_record();

	if (!packet || !route || !delivery)
		return -REASON_NO_CONFIGURATION; /* never: the verifier can't know */

	struct ct_entry *entry = &packet->ct.entry;
	__u32 length = route_length(skb, packet->headers.length, packet->headers.to_payload);
	int found;

	*delivery = packet->hook.flags & HOOK_PASSES_ON ? DELIVERY_PASS : entry->delivery;
	if (*delivery == DELIVERY_PASS)
		return 0;
	if (entry->mtu && length > entry->mtu)
		return delivery_too_long(packet, route, entry->mtu, delivery);
	if (*delivery == DELIVERY_LINK)
		return 0;
	if (*delivery != DELIVERY_ROUTE && *delivery != DELIVERY_NEIGHBOUR)
		return delivery_check_hop_limit(packet);

	struct flow_tuple routed = ct_routed_tuple(entry, &packet->headers.tuple);

	found = delivery_find_route(skb, packet, &routed, length, route);
	if (found == ROUTE_TOO_BIG)
		return delivery_too_long(packet, route, route->mtu, delivery);
	if (*delivery == DELIVERY_NEIGHBOUR) {
		if (found != ROUTE_FORWARD || route->ifindex != entry->link_ifindex)
			route_set_on_link(route, entry);
		else if (route->is_resolved && neighbour_is_due(route, packet->now_ns))
			route->is_resolved = 0;
		if (!route->is_resolved)
			neighbour_use(route, packet->now_ns);
		route->mark = generation_mark();
		__builtin_memcpy(entry->dst_mac, route->mac, sizeof(entry->dst_mac));
	} else if (found >= ROUTE_UNREACHABLE) {
		return delivery_refuse(packet, found);
	} else if (delivery_is_snat(entry)) {
		if (found != ROUTE_FORWARD || route->ifindex != entry->snat_ifindex)
			return delivery_lost_uplink(packet);
		entry->link_ifindex = route->ifindex;
		return delivery_check_hop_limit(packet);
	} else if (found == ROUTE_FORWARD && delivery_lacks_snat(packet, route->ifindex)) {
		return delivery_lost_uplink(packet);
	} else if (found != ROUTE_FORWARD || !delivery_is_direct(route->ifindex)) {
		if (delivery_is_as_host())
			return -REASON_NO_ROUTE;
		*delivery = DELIVERY_PASS;
		return 0;
	}
	if (!route->is_resolved)
		route->asks_kernel = route_is_kernels(skb, &entry->translated, route);
	return delivery_check_hop_limit(packet);
}

/* -- Counting and reporting ----------------------------------------------------------------------------------------- */

/* The counters of the workload that has sent the packet; 0: none has. */
static __always_inline __u32 packet_sender_counters(const struct packet *packet)
{
	return packet->hook.sender == PARTY_ENDPOINT ? packet->endpoint_counters : 0;
}

/* Counts a delivered packet: at the endpoint that sent it, if one did, and at the one that receives it. */
static __always_inline void delivery_count(const struct ct_entry *entry, __u32 sender_counters, __u32 length,
					   int delivery)
{
	if (sender_counters)
		endpoint_count_sent(sender_counters, length, delivery == DELIVERY_PASS);
	if (entry->target == PARTY_ENDPOINT)
		endpoint_counters_add(entry->target_counters, DIRECTION_INGRESS, length);
}

static __always_inline __u8 delivery_point(const struct ct_entry *entry, int delivery)
{
	if (entry->target == PARTY_ENDPOINT)
		return POINT_TO_ENDPOINT;
	if (delivery == DELIVERY_ROUTE)
		return POINT_TO_NETWORK;
	return entry->target == PARTY_HOST ? POINT_TO_HOST : POINT_TO_STACK;
}

/* Where a delivered packet is reported: the interface by which it leaves, else that by which it arrived. */
static __always_inline __u32 delivery_ifindex(const struct ct_entry *entry, __u32 route_ifindex,
					      __u32 ifindex)
{
	if (entry->target == PARTY_ENDPOINT)
		return entry->target_ifindex;
	return route_ifindex ? route_ifindex : ifindex;
}

/* How a packet is delivered, for its report. */
struct delivered {
	__u32 ifindex; /* where it arrived */
	__u32 route_ifindex; /* where the kernel's routes lead, if they decide; else 0 */
	__u8 delivery; /* enum delivery */
	__u8 audit_reason; /* why policy would have dropped it; 0: it would not */
	__u8 audit_direction; /* whose policy */
};

/* Reports a delivered packet of a connection: where it leaves, and at `none` where it arrived as well. */
static __noinline void delivery_report(const struct event_subject *subject, const struct hook_row *hook,
				       const struct delivered *delivered)
{
	const struct settings *settings = settings_find(subject->epoch);
	const struct ct_entry *entry = subject->entry;
	struct report report = {
		.ifindex = delivered->ifindex,
		.repeats = 1,
		.verdict = delivered->audit_reason ? VERDICT_AUDIT : VERDICT_FORWARDED,
		.reason = delivered->audit_reason,
		.point = hook->point,
		.direction = hook->direction,
	};

	if (!settings || !entry)
		return;
	if (event_has_arrival(settings, hook))
		event_report(subject, &report);
	report.ifindex = delivery_ifindex(entry, delivered->route_ifindex, delivered->ifindex);
	report.point = delivery_point(entry, delivered->delivery);
	report.direction = entry->target == PARTY_ENDPOINT ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	if (delivered->audit_reason)
		report.direction = delivered->audit_direction;
	event_report(subject, &report);
}

/* The same for a packet of the chain. Global: it is verified once, not once for each way to it. */
__weak __noinline int packet_report_delivery(int delivery, __u32 route_ifindex)
{
	const struct packet *packet = packet_record();

	if (!packet)
		return 0;

	struct event_subject subject = packet_event_subject(packet);
	struct delivered delivered = {
		.ifindex = packet->ifindex,
		.route_ifindex = delivery == DELIVERY_ROUTE ? route_ifindex : 0,
		.delivery = delivery,
		.audit_reason = packet->policy.audit_reason,
		.audit_direction = packet->direction,
	};

	delivery_report(&subject, &packet->hook, &delivered);
	return 0;
}

/* -- Sending -------------------------------------------------------------------------------------------------------- */

/*
 * Whether the kernel sends the packet on later: it may have to ask for the MAC of the next hop first, or cuts what is too long
 * for the receiver's link.
 */
static __always_inline int delivery_waits(const struct route *route, int delivery)
{
	if (delivery == DELIVERY_PASS)
		return route->mark != 0;
	return (delivery == DELIVERY_ROUTE || delivery == DELIVERY_NEIGHBOUR) && !route->is_resolved;
}

/* The kernel asks, and keeps the packet meanwhile. */
static __always_inline int delivery_ask(struct __sk_buff *skb, const struct route *route, int delivery)
{
	if (route->mark)
		skb->mark = route->mark;
	if (delivery == DELIVERY_PASS)
		return ACTION_PASS;
	if (route->asks_kernel)
		bpf_redirect_neigh(route->ifindex, 0, 0, 0);
	else
		bpf_redirect_neigh(route->ifindex, (void *)&route->next, sizeof(route->next), 0);
	return ACTION_REDIRECT;
}

/* Last act of a hook: the packet goes where the entry says; `route` is that of delivery_select(). */
static __always_inline int delivery_execute(struct __sk_buff *skb, const struct ct_entry *entry,
					    struct route *route, int delivery)
{
	/* A packet that was not sent to the host's MAC is marked PACKET_OTHERHOST, and would be dropped by its receiver. */
	if (unlikely(skb->pkt_type) && delivery != DELIVERY_PASS)
		bpf_skb_change_type(skb, PACKET_HOST);
	if (delivery_waits(route, delivery))
		return delivery_ask(skb, route, delivery);
	switch (delivery) {
	case DELIVERY_PEER:
		bpf_redirect_peer(entry->target_ifindex, 0);
		return ACTION_REDIRECT;
	case DELIVERY_NEIGHBOUR: /* nat_network() has written the MAC */
	case DELIVERY_DIRECT:
	case DELIVERY_LINK:
		skb->mark = generation_mark();
		bpf_redirect(entry->target_ifindex, 0);
		return ACTION_REDIRECT;
	case DELIVERY_ROUTE: /* unmarked: a route that leads to a workload does not bypass its policy */
		bpf_redirect_neigh(route->ifindex, &route->next, sizeof(route->next), 0);
		return ACTION_REDIRECT;
	default:
		return ACTION_PASS;
	}
}

#endif
