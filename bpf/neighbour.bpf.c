// SPDX-License-Identifier: GPL-2.0-only
/*
 * ARP and neighbour discovery of a workload: a request for any address but its own gets the host side's MAC in response, so
 * that any gateway address works. What the kernel's own neighbour table needs (replies, announcements, probes for duplicate
 * addresses) goes up to it.
 */
#include "lib/feature/admission.h"
#include "lib/feature/neighbour_response.h"
#include "lib/mechanism/chain.h"

static __always_inline __must_check int read_arp(struct __sk_buff *skb, struct packet *packet,
						 struct arp_packet *arp)
{
	if (arp_read(skb, arp))
		return -REASON_INVALID_PACKET;
	packet->headers.family = 4;
	packet->headers.tuple.source = address_from_bytes(arp->sender);
	packet->headers.tuple.destination = address_from_bytes(arp->target);
	return 0;
}

static __always_inline __must_check int handle_arp(struct __sk_buff *skb, struct packet *packet,
						   const struct endpoint *endpoint)
{
	struct arp_packet arp;
	int result = read_arp(skb, packet, &arp);

	if (result)
		return result;

	int probe = address_is_unspecified(&packet->headers.tuple.source);

	if (!probe && !packet_is_own(packet, &packet->headers.tuple.source))
		return -REASON_INVALID_SOURCE;
	if (packet_is_own(packet, &packet->headers.tuple.destination))
		return ACTION_PASS; /* an announcement, or a probe for duplicates */
	if (arp.operation == bpf_htons(ARPOP_REPLY))
		return probe ? -REASON_INVALID_SOURCE : ACTION_PASS;
	if (arp.operation != bpf_htons(ARPOP_REQUEST))
		return -REASON_INVALID_PACKET;
	return neighbour_reply(skb, packet, &arp, endpoint->src_mac);
}

/* Whether the bridge that the workload is on finds the neighbour: a link-local one, that is not the host. */
static __always_inline int is_on_bridge(const struct packet *packet, const struct address *target)
{
	if (packet->link_ifindex == packet->ifindex || !address_is_link_local(target))
		return 0;

	const struct ipcache_entry *owner = packet_owner(packet, target);

	return owner && owner->scope != SCOPE_HOST;
}

static __always_inline __must_check int handle_solicitation(struct __sk_buff *skb, struct packet *packet,
							    const struct endpoint *endpoint)
{
	const struct address *source = &packet->headers.tuple.source;
	struct address target;

	if (packet->headers.icmp_code || nd_read_target(skb, packet->headers.transport, &target))
		return -REASON_INVALID_PACKET;
	if (address_is_unspecified(source)) {
		if (address_is_link_local(&target))
			link_local_learn(packet, &target, 0);
		return ACTION_PASS; /* a probe for duplicates: the host decides */
	}
	if (!packet_is_own(packet, source) && !packet_may_claim(packet, source))
		return -REASON_INVALID_SOURCE;
	if (address_is_link_local(source))
		link_local_learn(packet, source, packet->now_ns);
	if (packet_is_own(packet, &target))
		return packet_stays_on_link(packet) ? ACTION_PASS : -REASON_INVALID_PACKET;
	if (is_on_bridge(packet, &target) && packet_stays_on_link(packet))
		return ACTION_PASS; /* its neighbour answers, or nobody */

	struct address asker = address_unscope(source);

	return neighbour_advertise(skb, packet, &asker, &target, endpoint->src_mac);
}

SEC("tc")
int tail_neighbour(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);
	int result = -REASON_NO_CONFIGURATION;

	if (endpoint)
		result = link_admit_message(packet);
	if (endpoint && !result && packet->headers.family == 6)
		result = handle_solicitation(skb, packet, endpoint);
	else if (endpoint && !result)
		result = handle_arp(skb, packet, endpoint);
	if (result == ACTION_PASS) {
		/* The host may learn from announcements, too (arp_accept). */
		int refused = link_admit_source(packet);

		if (refused)
			result = refused;
	}
	if (result == ACTION_PASS)
		packet_count_exempt(packet);
	else if (result == ACTION_REDIRECT)
		endpoint_count_answered(packet->endpoint_counters, packet->headers.length);
	else if (result == ACTION_DROP)
		result = -REASON_INVALID_PACKET; /* an answer that could not be built */
	return step_finish(skb, packet, result, STEP_COUNT);
}
