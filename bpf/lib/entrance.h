/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is settled about a packet before services and connections are asked: what a workload needs to live goes up to
 * the host, whoever sends in another's name is refused, and noise is dropped.
 */
#ifndef DPD_ENTRANCE_H
#define DPD_ENTRANCE_H

#include "deliver.h"
#include "event.h"
#include "fragment.h"

/* RFC 2131, 4.1; RFC 8415, 7.2 */
enum {
	DHCP_SERVER_PORT = 67,
	DHCP_CLIENT_PORT = 68,
	DHCPV6_CLIENT_PORT = 546,
	DHCPV6_SERVER_PORT = 547,
};

/* RFC 2710, RFC 3810, RFC 4861 */
enum {
	MLD_QUERY = 130,
	MLD_DONE = 132,
	MLD2_REPORT = 143,
	ND_ROUTER_SOLICITATION = 133,
	ND_NEIGHBOUR_SOLICITATION = 135,
	ND_NEIGHBOUR_ADVERTISEMENT = 136,
	ND_REDIRECT = 137,
	ND_HOP_LIMIT = 255,
};

static __always_inline int packet_has_ports(const struct packet *packet, __u16 source, __u16 destination)
{
	return packet->tuple.protocol == IPPROTO_UDP && packet->fragment == FRAGMENT_NONE &&
	       packet->tuple.source_port == bpf_htons(source) &&
	       packet->tuple.destination_port == bpf_htons(destination);
}

/*
 * Whether the packet ends at the host or on its link. What policy is not asked about must: the host would route the
 * rest on, and any protocol is good enough to carry something out.
 */
static __always_inline int packet_stays_on_link(const struct packet *packet)
{
	const struct address *destination = &packet->tuple.destination;

	if (address_is_multicast(destination) || address_is_link_local(destination))
		return 1;

	const struct identity *identity = identity_find(packet->slot, destination);

	return identity && identity->place == PLACE_HOST;
}

static __always_inline int workload_needs_ipv4(const struct packet *packet)
{
	const struct address *source = &packet->tuple.source;

	if (packet->tuple.protocol != IPPROTO_IGMP &&
	    !packet_has_ports(packet, DHCP_CLIENT_PORT, DHCP_SERVER_PORT))
		return 0;
	return address_is_unspecified(source) || packet_is_own(packet, source);
}

/* A neighbour advertisement may name an address of the workload's own, or one that means nothing beyond the link. */
static __always_inline int advertises_own(struct __sk_buff *skb, const struct packet *packet)
{
	struct address target;

	if (bpf_skb_load_bytes(skb, packet->transport + 8, &target, sizeof(target)))
		return 0;
	return address_is_link_local(&target) || packet_is_own(packet, &target);
}

static __always_inline int workload_needs_ipv6(struct __sk_buff *skb, const struct packet *packet)
{
	const struct address *source = &packet->tuple.source;

	if (!address_is_unspecified(source) && !address_is_link_local(source) &&
	    !packet_is_own(packet, source))
		return 0;
	if (packet_has_ports(packet, DHCPV6_CLIENT_PORT, DHCPV6_SERVER_PORT))
		return address_is_link_local(source);
	if (packet->tuple.protocol != IPPROTO_ICMPV6 || packet->fragment != FRAGMENT_NONE)
		return 0;
	switch (packet->icmp_type) {
	case MLD_QUERY ... MLD_DONE:
	case MLD2_REPORT:
		return packet->hop_limit == 1;
	case ND_ROUTER_SOLICITATION:
		return packet->hop_limit == ND_HOP_LIMIT;
	case ND_NEIGHBOUR_ADVERTISEMENT:
		return packet->hop_limit == ND_HOP_LIMIT && advertises_own(skb, packet);
	}
	return 0;
}

/* What the host itself says on the link: neighbour discovery, and multicast in its own name. */
static __always_inline int host_needs(const struct packet *packet)
{
	if (packet->tuple.protocol == IPPROTO_ICMPV6 && packet->fragment == FRAGMENT_NONE &&
	    packet->icmp_type >= ND_ROUTER_SOLICITATION && packet->icmp_type <= ND_REDIRECT)
		return packet->hop_limit == ND_HOP_LIMIT;
	if (!address_is_multicast(&packet->tuple.destination))
		return 0;

	const struct identity *source = identity_find(packet->slot, &packet->tuple.source);

	return address_is_unspecified(&packet->tuple.source) ||
	       address_is_link_local(&packet->tuple.source) || (source && source->place == PLACE_HOST);
}

static __noinline __must_check int entrance_needs(struct __sk_buff *skb, struct packet *packet)
{
	int needed;

	if (packet->hook == HOOK_FROM_NETDEV)
		needed = 0;
	else if (packet->hook == HOOK_TO_CONTAINER)
		needed = host_needs(packet);
	else if (packet->family == 4)
		needed = workload_needs_ipv4(packet) && packet_stays_on_link(packet);
	else
		needed = workload_needs_ipv6(skb, packet) && packet_stays_on_link(packet);
	if (!needed)
		return 0;
	event_report_single(packet, packet->hook == HOOK_TO_CONTAINER ? POINT_TO_ENDPOINT : POINT_TO_STACK);
	return ACTION_PASS;
}

static __always_inline __must_check int entrance_check_destination(const struct packet *packet)
{
	if (address_is_multicast(&packet->tuple.destination))
		return -REASON_MULTICAST;
	if (address_is_unspecified(&packet->tuple.destination))
		return -REASON_INVALID_PACKET;
	if (packet->hook == HOOK_FROM_CONTAINER && packet->tuple.protocol == IPPROTO_UDP &&
	    packet->tuple.destination_port == bpf_htons(ETH_VXLAN_PORT))
		return -REASON_ENCAPSULATION;
	return 0;
}

/* The step after a packet of either family has been read. */
static __always_inline __u32 entrance_next(const struct packet *packet)
{
	if (packet_is_icmp_error(packet) && icmp_quotes(packet->family, packet->icmp_type))
		return CALL_ICMP_ERROR;
	return packet->hook == HOOK_FROM_CONTAINER ? CALL_LB : CALL_CT;
}

static __always_inline __must_check int entrance_check(struct __sk_buff *skb, struct packet *packet)
{
	int answer = entrance_needs(skb, packet);

	if (!answer)
		answer = endpoint_check_source(packet);
	if (!answer)
		answer = fragment_track(packet);
	if (!answer)
		answer = entrance_check_destination(packet);
	return answer;
}

#endif
