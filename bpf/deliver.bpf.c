// SPDX-License-Identifier: GPL-2.0-only
/*
 * The last step: the connection is inserted or renewed, the packet translated, counted, reported, and sent: straight to a
 * local workload's interface, or on by the kernel's own routes.
 */
#include "lib/feature/asked.h"
#include "lib/feature/ct_commit.h"
#include "lib/feature/delivery.h"
#include "lib/feature/link.h"
#include "lib/feature/nat.h"
#include "lib/feature/policy_verdict.h"
#include "lib/mechanism/chain.h"

/* For an entry without a verdict of this configuration: where this direction's packets come from and go to. */
static __always_inline __must_check int set_origin_and_target(struct packet *packet)
{
	struct ct_entry *entry = &packet->ct.entry;
	int reply = entry->flags & CT_REPLY;
	const struct peer *from = reply ? &packet->policy.destination : &packet->policy.source;
	const struct peer *to = reply ? &packet->policy.source : &packet->policy.destination;

	entry->epoch = packet->epoch;
	ct_set_origin(entry, from);
	ct_set_egress(entry, to);
	if (packet->hook.sender != PARTY_HOST)
		return 0;
	/* The kernel has chosen this interface: it is the target's, or a route is wrong. */
	return entry->target_ifindex == packet->ifindex ? 0 : -REASON_NO_ROUTE;
}

static __always_inline __must_check int insert(struct packet *packet, const struct settings *settings)
{
	struct ct_entry *entry = &packet->ct.entry;

	entry->last_seen_ns = packet->now_ns;
	entry->created_ns = packet->now_ns;
	entry->report_ns = event_next_report_ns(settings, packet->now_ns);
	ct_schedule_update(entry, settings, packet->now_ns, packet->now_jiffies);
	entry->packets = 1;
	entry->bytes = packet->headers.length;
	entry->state = CT_UNREPLIED;
	if (ct_is_always_slow(entry))
		entry->flags |= CT_SLOW;
	if (packet->headers.tuple.protocol == IPPROTO_TCP) {
		__u8 tcp_flags = packet->headers.tcp.flags;

		if (!(tcp_flags & TCP_SYN))
			entry->flags |= CT_MIDSTREAM;
		else if (tcp_flags & TCP_ACK)
			entry->flags |= CT_SYN_ACK_FIRST;
		(void)ct_update_tcp(entry, 0, &packet->headers.tcp);
	}
	if (!packet->lb.service.affinity_ns)
		return ct_insert_pair(packet);
	entry->flags |= CT_AFFINITY;
	affinity_note(&packet->lb.service, &packet->headers.tuple.source, entry->backend, packet->now_ns);
	return ct_insert_pair(packet);
}

/* Whether the reverse entry's verdict is of this configuration: then its rules have counted the connection. */
static __always_inline int reverse_is_current(const struct packet *packet)
{
	struct flow_tuple key = ct_reverse_key(&packet->ct.entry);
	const struct ct_entry *reverse = ct_find(&key);

	return reverse && reverse->epoch == packet->epoch;
}

/*
 * The connection or its new verdict is in the tables: rules that have not counted it do. Global: it is verified once, not
 * once for each way to it.
 */
__weak __noinline int count_rules(void)
{
	const struct packet *packet = packet_record();

	if (packet && !(packet->ct.found && reverse_is_current(packet)))
		policy_count_connection(packet);
	return 0;
}

/*
 * An entry that exists: it gets its new verdict if one was due, is renewed and counted, and moves if this is the first
 * reply. Not zero if the packet is reported.
 */
static __always_inline int renew(struct packet *packet, const struct settings *settings)
{
	if (!packet->ct.is_current) {
		if (packet->ct.entry.state == CT_REFUSED)
			ct_revive(&packet->ct.entry);
		if (ct_store_verdict(packet))
			return 1; /* evicted a moment ago; the next packet opens the connection again */
		count_rules();
	}

	struct ct_entry *entry = ct_find(&packet->headers.tuple);

	if (!entry)
		return 1; /* the same */

	int update = ct_update_pair(entry, &packet->headers.tuple, &packet->headers.tcp, packet->now_ns);

	if (update & CT_UPDATE_EXPIRED)
		return 1; /* its reverse was, and another connection has the key */

	int is_due = event_is_due(entry, settings, packet->now_ns,
				  update & CT_UPDATE_FRESH || packet->policy.audit_reason);

	ct_schedule_update(entry, settings, packet->now_ns, packet->now_jiffies);
	packet->ct.entry.state = entry->state;
	entry->link_ifindex = packet->ct.entry.link_ifindex;
	__sync_fetch_and_add(&entry->packets, 1);
	__sync_fetch_and_add(&entry->bytes, packet->headers.length);
	if (packet->ct.unreplied)
		ct_promote(packet, entry, settings);
	return is_due;
}

static __always_inline __must_check int deliver(struct __sk_buff *skb, struct packet *packet,
						const struct settings *settings, struct route *route,
						int *delivery)
{
	const struct ct_entry *entry = &packet->ct.entry;
	int result = packet->ct.is_current ? 0 : set_origin_and_target(packet);
	int is_due = 1;

	if (!result)
		result = delivery_select(skb, route, delivery);
	if (!result && !packet->ct.found && packet->hook.sender == PARTY_ENDPOINT &&
	    entry->target == PARTY_HOST)
		result = link_admit_source(packet);
	if (!result && !packet->ct.found)
		result = insert(packet, settings);
	if (result)
		return result;
	if (packet->ct.found)
		is_due = renew(packet, settings);
	else
		count_rules();
	if (delivery_waits(route, *delivery))
		route->mark = asked_note(skb, is_due); /* counted and reported where it leaves */
	else if (is_due)
		packet_report_delivery(*delivery, route->ifindex);
	if (entry->flags & CT_TRANSLATE && packet->headers.fragment != FRAGMENT_LATER)
		result = nat_transport(skb, entry, packet->headers.transport);
	if (!result)
		result = nat_network(skb, entry, packet->headers.family, *delivery);
	return result;
}

SEC("tc")
int tail_deliver(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int result = -REASON_NO_CONFIGURATION, delivery = DELIVERY_PASS;
	struct route route = {};

	/* The network header must be in the linear part: NAT writes it in place. */
	if (bpf_skb_pull_data(skb, ETH_HLEN + network_header_length(packet->headers.family)))
		result = -REASON_INVALID_PACKET;
	else if (settings)
		result = deliver(skb, packet, settings, &route, &delivery);
	if (!result) {
		if (!delivery_waits(&route, delivery))
			delivery_count(&packet->ct.entry, packet_sender_counters(packet),
				       packet->headers.length, delivery);
		result = delivery_execute(skb, &packet->ct.entry, &route, delivery);
	}
	return step_finish(skb, packet, result, STEP_COUNT);
}
