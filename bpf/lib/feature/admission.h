/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Admission: what is settled about a packet before services and conntrack are looked up. What a workload's link needs goes up
 * to the host, spoofed sources are refused, and noise is dropped.
 */
#ifndef DPD_ADMISSION_H
#define DPD_ADMISSION_H

#include "../mechanism/event.h"
#include "../mechanism/neighbour_message.h"
#include "../mechanism/parse.h"
#include "endpoint.h"
#include "fragment.h"
#include "link.h"

/* RFC 2131, 4.1; RFC 8415, 7.2 */
enum {
	DHCP_SERVER_PORT = 67,
	DHCP_CLIENT_PORT = 68,
	DHCPV6_CLIENT_PORT = 546,
	DHCPV6_SERVER_PORT = 547,
};

/* RFC 2710, RFC 3810 */
enum {
	MLD_QUERY = 130,
	MLD_DONE = 132,
	MLD2_REPORT = 143,
};

static __always_inline int packet_has_udp_ports(const struct packet *packet, __u16 source, __u16 destination)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;

	return tuple->protocol == IPPROTO_UDP && packet->headers.fragment == FRAGMENT_NONE &&
	       tuple->source_port == bpf_htons(source) && tuple->destination_port == bpf_htons(destination);
}

static __always_inline int workload_needs_ipv4(const struct packet *packet)
{
	const struct address *source = &packet->headers.tuple.source;

	if (packet->headers.tuple.protocol != IPPROTO_IGMP &&
	    !packet_has_udp_ports(packet, DHCP_CLIENT_PORT, DHCP_SERVER_PORT))
		return 0;
	return address_is_unspecified(source) || packet_is_own(packet, source);
}

/*
 * Whether neighbour discovery may pass to this destination: a neighbour on the workload's bridge that dpd does not know. It does
 * not get any further: its receivers refuse what a router has forwarded (RFC 4861, 7.1.1, 7.1.2).
 */
static __always_inline int packet_is_for_bridge(const struct packet *packet)
{
	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);

	return endpoint && endpoint->link_ifindex != packet->ifindex &&
	       packet->headers.tuple.protocol == IPPROTO_ICMPV6 &&
	       packet->headers.icmp_type == ND_NEIGHBOUR_ADVERTISEMENT;
}

/* A neighbour advertisement may name an address of the workload's own, or a link-local one that is nobody else's. */
static __always_inline int advertises_own(struct __sk_buff *skb, const struct packet *packet)
{
	struct address target;

	if (bpf_skb_load_bytes(skb, packet->headers.transport + 8, &target, sizeof(target)) ||
	    address_is_scoped(&target))
		return 0;
	if (!address_is_link_local(&target))
		return packet_is_own(packet, &target);
	if (!packet_may_claim(packet, &target))
		return 0;
	link_local_learn(packet, &target, packet->now_ns);
	return 1;
}

static __always_inline int is_mld(const struct packet_headers *headers)
{
	if (headers->tuple.protocol != IPPROTO_ICMPV6 || headers->fragment != FRAGMENT_NONE)
		return 0;
	return (headers->icmp_type >= MLD_QUERY && headers->icmp_type <= MLD_DONE) ||
	       headers->icmp_type == MLD2_REPORT;
}

static __always_inline int workload_needs_ipv6(struct __sk_buff *skb, const struct packet *packet)
{
	const struct packet_headers *headers = &packet->headers;
	const struct address *source = &headers->tuple.source;

	if (!address_is_unspecified(source) && !packet_is_own(packet, source) &&
	    !packet_may_claim(packet, source))
		return 0;
	if (packet_has_udp_ports(packet, DHCPV6_CLIENT_PORT, DHCPV6_SERVER_PORT))
		return address_is_link_local(source);
	if (headers->tuple.protocol != IPPROTO_ICMPV6 || headers->fragment != FRAGMENT_NONE)
		return 0;
	if (is_mld(headers))
		return headers->hop_limit == 1;
	switch (headers->icmp_type) {
	case ND_ROUTER_SOLICITATION:
		return headers->hop_limit == ND_HOP_LIMIT;
	case ND_NEIGHBOUR_ADVERTISEMENT:
		return headers->hop_limit == ND_HOP_LIMIT && advertises_own(skb, packet);
	}
	return 0;
}

/* An address lease, from a server on the host or behind the workload's bridge: to the workload's own address, or on the link. */
static __always_inline int is_lease(const struct packet *packet)
{
	const struct address *destination = &packet->headers.tuple.destination;

	if (packet->headers.family == 6)
		return packet_has_udp_ports(packet, DHCPV6_SERVER_PORT, DHCPV6_CLIENT_PORT) &&
		       address_is_link_local(destination);
	return packet_has_udp_ports(packet, DHCP_SERVER_PORT, DHCP_CLIENT_PORT) &&
	       (address_is_multicast(destination) || packet_is_own(packet, destination));
}

/* A lease that needs no permission: of another workload of the file policy is asked, lest it serve leases to its neighbours. */
static __always_inline int is_needed_lease(const struct packet *packet)
{
	const struct ipcache_entry *owner = packet_owner(packet, &packet->headers.tuple.source);

	return is_lease(packet) && owner && owner->scope != SCOPE_ENDPOINT;
}

/*
 * What a workload's link needs of the host: neighbour discovery, leases, and what the host itself sends to all on the link:
 * multicast from its own addresses, and broadcast. What it sends out here to an address of its own is that.
 */
static __always_inline int host_needs(const struct packet *packet)
{
	const struct packet_headers *headers = &packet->headers;

	if (headers->tuple.protocol == IPPROTO_ICMPV6 && headers->fragment == FRAGMENT_NONE &&
	    headers->icmp_type >= ND_ROUTER_SOLICITATION && headers->icmp_type <= ND_REDIRECT)
		return headers->hop_limit == ND_HOP_LIMIT;
	if (is_needed_lease(packet))
		return 1;

	int is_multicast = address_is_multicast(&headers->tuple.destination);
	const struct ipcache_entry *to = packet_owner(packet, &headers->tuple.destination);
	int is_broadcast = to && to->scope == SCOPE_HOST && packet_is_hosts_own(packet);

	if (!is_multicast && !is_broadcast)
		return 0;

	const struct ipcache_entry *owner = packet_owner(packet, &headers->tuple.source);

	if (address_is_link_local(&headers->tuple.source) && packet->forwarded_from)
		return is_mld(headers); /* of a neighbour on the bridge */
	return address_is_unspecified(&headers->tuple.source) ||
	       address_is_link_local(&headers->tuple.source) || (owner && owner->scope == SCOPE_HOST);
}

/* Counts a packet that passes without a connection. */
static __always_inline void packet_count_exempt(const struct packet *packet)
{
	if (packet->hook.sender == PARTY_ENDPOINT)
		endpoint_count_sent(packet->endpoint_counters, packet->headers.length, 1);
	else
		endpoint_counters_add(packet->endpoint_counters, DIRECTION_INGRESS, packet->headers.length);
}

/* What the link between host and workload needs passes without a connection. */
static __noinline __must_check int admit_needed(struct __sk_buff *skb, const struct packet *packet)
{
	int is_from_host = packet->hook.sender == PARTY_HOST;
	int is_needed;

	if (packet->hook.role != ROLE_ENDPOINT)
		is_needed = 0;
	else if (is_from_host)
		is_needed = host_needs(packet);
	else if (packet->headers.family == 4)
		is_needed = workload_needs_ipv4(packet) && packet_stays_on_link(packet);
	else
		is_needed = workload_needs_ipv6(skb, packet) &&
			    (packet_stays_on_link(packet) || packet_is_for_bridge(packet));
	if (!is_needed)
		return 0;

	int result = is_from_host ? 0 : link_admit_message(packet);

	if (!result && !is_from_host)
		result = link_admit_source(packet);
	if (result)
		return result;
	/* A workload that ran before dpd has probed for duplicates already. */
	if (!is_from_host && address_is_link_local(&packet->headers.tuple.source))
		link_local_learn(packet, &packet->headers.tuple.source, 0);
	packet_count_exempt(packet);
	event_report_single(packet, is_from_host ? POINT_TO_ENDPOINT : POINT_TO_STACK);
	return ACTION_PASS;
}

/*
 * Whether the packet is for all on the link: multicast, and where the endpoint has multicast the broadcast of a subnet, too, whose
 * address is the host's.
 */
static __always_inline int is_for_all(struct __sk_buff *skb, const struct packet *packet)
{
	const struct address *destination = &packet->headers.tuple.destination;
	__u8 mac = 0;

	if (address_is_multicast(destination))
		return 1;
	if (!(packet->endpoint_flags & ENDPOINT_MULTICAST) || packet->headers.family != 4)
		return 0;

	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, destination);

	return owner && owner->scope == SCOPE_HOST && !bpf_skb_load_bytes(skb, 0, &mac, 1) && mac & 1;
}

static __always_inline __must_check int admit_check_destination(struct __sk_buff *skb, struct packet *packet)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;

	if (is_for_all(skb, packet)) {
		int is_asked_lease = packet->hook.sender == PARTY_HOST && is_lease(packet);

		if (!(packet->endpoint_flags & ENDPOINT_MULTICAST) && !is_asked_lease)
			return -REASON_MULTICAST;
		packet->is_multicast = 1;
	}
	if (address_is_unspecified(&tuple->destination))
		return -REASON_INVALID_PACKET;
	if (packet->hook.sender == PARTY_ENDPOINT && tuple->protocol == IPPROTO_UDP &&
	    tuple->destination_port == bpf_htons(ETH_VXLAN_PORT))
		return -REASON_ENCAPSULATION;
	return 0;
}

/* The step after a packet of either family has been parsed. */
static __always_inline __u32 admit_next_step(const struct packet *packet)
{
	if (packet->is_multicast)
		return STEP_MULTICAST;
	if (packet_is_icmp_error(packet) && icmp_quotes(packet->headers.family, packet->headers.icmp_type))
		return STEP_ICMP_ERROR;
	return packet->hook.first_step;
}

static __always_inline __must_check int admit_check(struct __sk_buff *skb, struct packet *packet)
{
	/* A closed interface (unmanaged.h); its packets have been read for the report. */
	if (packet->hook.role == ROLE_ENDPOINT && !packet->endpoint_counters)
		return -REASON_NO_CONFIGURATION;

	int result = admit_needed(skb, packet);

	if (!result)
		result = endpoint_check_source(packet);
	if (!result)
		result = fragment_track(packet);
	if (!result)
		result = admit_check_destination(skb, packet);
	return result;
}

#endif
