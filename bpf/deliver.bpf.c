// SPDX-License-Identifier: GPL-2.0-only
/*
 * The last step: the connection is entered or renewed, the packet rewritten, counted, reported, and sent on its way:
 * straight to a local workload's interface, or on by the kernel's own routing.
 */
#include "lib/chain.h"
#include "lib/enter.h"
#include "lib/policy.h"

/* Settles where this direction's packets come from and go, for an entry that does not say it of this configuration. */
static __always_inline __must_check int set_way(struct packet *packet)
{
	struct connection *connection = &packet->connection;
	int reply = connection->flags & CONNECTION_REPLY;
	const struct end *to = reply ? &packet->source : &packet->destination;

	connection->epoch = packet->epoch;
	connection->flags &= ~CONNECTION_WITH_HOST;
	if (packet->source.identity.place == PLACE_HOST || packet->destination.identity.place == PLACE_HOST)
		connection->flags |= CONNECTION_WITH_HOST;
	connection->from_ifindex = packet->hook == HOOK_FROM_CONTAINER ? packet->ifindex : 0;
	connection->from_row = packet->row;
	connection_set_way(connection, to);
	if (packet->hook != HOOK_TO_CONTAINER)
		return 0;
	/* The kernel has chosen this interface: it is the right one, or a route leads the wrong way. */
	if (to->identity.place != PLACE_ENDPOINT || to->identity.ifindex != packet->ifindex)
		return -REASON_NO_ROUTE;
	return 0;
}

static __always_inline __u64 next_report(const struct packet *packet, const struct settings *settings)
{
	if (settings->aggregation != AGGREGATION_MEDIUM)
		return 0;
	return packet->now_ns + settings->report_interval_ns;
}

/* A new pair. Not zero if it can't be entered. */
static __always_inline __must_check int enter_new(struct packet *packet, const struct settings *settings)
{
	struct connection *connection = &packet->connection;

	connection->seen_ns = packet->now_ns;
	connection->created_ns = packet->now_ns;
	connection->report_ns = next_report(packet, settings);
	connection_set_attention(connection, settings, packet->now_ns, packet->now_ticks);
	connection->packets = 1;
	connection->bytes = packet->length;
	connection->state = CONNECTION_UNANSWERED;
	(void)connection_note_flags(connection, packet->tcp_flags, 1);
	return enter_pair(packet);
}

/* Whether the other half has been judged under this configuration: then that has counted for both. */
static __always_inline int is_twin_current(const struct packet *packet)
{
	struct tuple key = tuple_reverse(&packet->connection.rewritten);
	const struct connection *twin = conntrack_find(&key);

	return twin && twin->epoch == packet->epoch;
}

/*
 * The packet's connection has been entered, or its new verdict: the rules count it that have not. Global: it is verified
 * once, not once for each way to it.
 */
__weak __noinline int count_rules(void)
{
	const struct packet *packet = packet_record();

	if (packet && !(packet->found && is_twin_current(packet)))
		policy_count_connection(packet);
	return 0;
}

/*
 * An entry that exists: judged anew if it had to be, renewed, counted, and moved if this is the first answer. Not zero
 * if the packet is to be reported.
 */
static __always_inline int renew(struct packet *packet, const struct settings *settings)
{
	if (!packet->current) {
		if (enter_verdict(packet))
			return 1; /* pushed out a moment ago; the next packet begins anew */
		count_rules();
	}

	struct connection *entry = conntrack_find(&packet->tuple);

	if (!entry)
		return 1; /* the same */

	int due = packet->now_ns >= entry->report_ns || packet->audit ||
		  settings->aggregation != AGGREGATION_MEDIUM;

	if (connection_advance(entry, &packet->tuple, packet->tcp_flags, packet->now_ns))
		due = 1;
	if (due)
		entry->report_ns = next_report(packet, settings);
	connection_set_attention(entry, settings, packet->now_ns, packet->now_ticks);
	packet->connection.state = entry->state;
	__sync_fetch_and_add(&entry->packets, 1);
	__sync_fetch_and_add(&entry->bytes, packet->length);
	if (packet->unanswered && entry->flags & CONNECTION_REPLY)
		enter_promote(packet, entry);
	return due;
}

/* `out_ifindex` is where the kernel's routes lead. */
static __always_inline void report(struct packet *packet, const struct settings *settings, int delivery,
				   __u32 out_ifindex)
{
	const struct connection *connection = &packet->connection;
	struct report at = {
		.ifindex = packet->ifindex,
		.repeats = 1,
		.verdict = packet->audit ? VERDICT_AUDIT : VERDICT_FORWARDED,
		.reason = packet->audit,
		.point = hook_point(packet->hook),
		.direction = packet->hook == HOOK_FROM_CONTAINER ? DIRECTION_EGRESS : DIRECTION_INGRESS,
	};

	if (settings->aggregation == AGGREGATION_NONE && packet->hook != HOOK_TO_CONTAINER)
		event_report(packet, &at);
	at.point = delivery_point(connection, delivery);
	at.direction = packet->audit ? packet->direction : established_direction(connection);
	at.ifindex =
		delivery_ifindex(connection, delivery == DELIVERY_ROUTE ? out_ifindex : 0, packet->ifindex);
	event_report(packet, &at);
}

static __always_inline __must_check int deliver(struct __sk_buff *skb, struct packet *packet,
						const struct settings *settings, struct route *route,
						int *delivery)
{
	int answer = packet->current ? 0 : set_way(packet);
	int due = 1;

	if (!answer)
		answer = deliver_choose(skb, packet, route, delivery);
	if (!answer && !packet->found)
		answer = enter_new(packet, settings);
	if (answer)
		return answer;
	if (packet->found)
		due = renew(packet, settings);
	else
		count_rules();
	if (due)
		report(packet, settings, *delivery, route->ifindex);
	if (packet->connection.flags & CONNECTION_REWRITE && packet->fragment != FRAGMENT_LATER)
		answer = rewrite_transport(skb, &packet->connection, packet->transport);
	if (!answer)
		answer = rewrite_network(skb, &packet->connection, packet->family, *delivery);
	return answer;
}

SEC("tc")
int tail_deliver(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int answer = -REASON_CONNTRACK_FULL, delivery = DELIVERY_PASS;
	struct route route = {};

	/* The network header must be in the linear part: rewriting it needs no copy then. */
	if (bpf_skb_pull_data(skb, packet->family == 4 ? ETH_HLEN + sizeof(struct iphdr)
						       : ETH_HLEN + sizeof(struct ipv6hdr)))
		answer = -REASON_INVALID_PACKET;
	else if (settings)
		answer = deliver(skb, packet, settings, &route, &delivery);
	if (!answer) {
		delivery_count(&packet->connection, packet->row, packet->length);
		answer = deliver_send(skb, &packet->connection, &route, delivery);
	}
	return finish(skb, packet, answer, CALL_COUNT);
}
