/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events: what the daemon is told of a packet. An event may be lost, to a full ring or to the rate's bound, and that
 * is counted; the packet never waits for it.
 */
#ifndef DPD_EVENT_H
#define DPD_EVENT_H

#include "identity.h"
#include "metric.h"
#include "packet.h"
#include "settings.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} dpd_events __weak SEC(".maps");

/* Not zero: the reader is awake and looks again soon, so that nobody need wake it. Written by the reader alone. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dpd_reader __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} dpd_event_budget __weak SEC(".maps");

/* Drops that were reported not long ago; the daemon tells of those that were held back and don't come again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct drop_key);
	__type(value, struct drop_log);
} dpd_drops __weak SEC(".maps");

/* Nobody writes it: what a new row of dpd_drops is, for which there is no room on the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drop_log);
} dpd_drop_blank __weak SEC(".maps");

/* The point at which a hook meets packets. */
static __always_inline __u8 hook_point(__u8 hook)
{
	if (hook == HOOK_FROM_NETDEV)
		return POINT_FROM_NETWORK;
	return hook == HOOK_FROM_CONTAINER ? POINT_FROM_ENDPOINT : POINT_TO_ENDPOINT;
}

/* Where in a packet's way an event is made, and what was decided there. */
struct report {
	__u32 ifindex;
	__u32 repeats;
	__u8 verdict;
	__u8 point;
	__u8 reason;
	__u8 direction;
};

/* Not zero if the rate leaves no room for another event. */
static __always_inline int event_is_limited(const struct settings *settings, __u64 now_ns)
{
	__u32 zero = 0;
	struct budget *budget = bpf_map_lookup_elem(&dpd_event_budget, &zero);

	if (budget && !budget_is_spent(budget, now_ns, settings->event_rate))
		return 0;
	counter_add(COUNTER_EVENTS_RATE_LIMITED, 1);
	return 1;
}

static __always_inline struct event *event_reserve(const struct settings *settings, __u64 now_ns)
{
	if (event_is_limited(settings, now_ns))
		return 0;

	struct event *event = bpf_ringbuf_reserve(&dpd_events, sizeof(*event), 0);

	if (!event)
		counter_add(COUNTER_EVENTS_RING_FULL, 1);
	return event;
}

/*
 * Waking the reader costs more than all the rest of an event (an interrupt to its own CPU, and a switch), and short
 * connections have several events each: it is left alone while it is awake.
 */
static __always_inline __u64 event_wakeup(void)
{
	__u32 zero = 0;
	const volatile __u64 *is_awake = bpf_map_lookup_elem(&dpd_reader, &zero);

	return is_awake && *is_awake ? BPF_RB_NO_WAKEUP : 0;
}

static __always_inline void event_submit(struct event *event)
{
	bpf_ringbuf_submit(event, event_wakeup());
}

/* Fills in what a connection's entry knows; its identities are those of the side that began, the event's the packet's. */
static __always_inline void event_set_connection(struct event *event, const struct connection *connection)
{
	int reply = !!(connection->flags & CONNECTION_REPLY);

	event->rewritten = connection->rewritten;
	event->source_identity = reply ? connection->destination_identity : connection->source_identity;
	event->destination_identity = reply ? connection->source_identity : connection->destination_identity;
	event->service = connection->service;
	event->backend = connection->backend;
	event->egress_rule = connection->egress_rule;
	event->ingress_rule = connection->ingress_rule;
	event->reply = reply;
	event->state = connection->state;
}

static __always_inline void event_set_report(struct event *event, const struct report *report)
{
	event->ifindex = report->ifindex;
	event->repeats = report->repeats;
	event->verdict = report->verdict;
	event->point = report->point;
	event->reason = report->reason;
	event->direction = report->direction;
	__builtin_memset(event->pad, 0, sizeof(event->pad));
}

static __always_inline void event_set_packet(struct event *event, const struct packet *packet)
{
	event->time_ns = packet->now_ns;
	event->epoch = packet->epoch;
	event->tuple = packet->tuple;
	event->length = packet->length;
	event->tcp_flags = packet->tcp_flags;
	event_set_connection(event, &packet->connection);
	if (!packet->connection.rewritten.protocol) {
		event->rewritten = packet->tuple; /* it ended before anything was decided of it */
		event->state = EVENT_NO_CONNECTION;
	}
}

/* Reports a packet of the chain. */
static __noinline void event_report(struct packet *packet, const struct report *report)
{
	const struct settings *settings = settings_find(packet->epoch);

	if (!settings)
		return;

	struct event *event = event_reserve(settings, packet->now_ns);

	if (!event)
		return; /* user space is behind: losing a report beats losing a packet */
	event_set_packet(event, packet);
	event_set_report(event, report);
	event_submit(event);
}

/* The log of a drop, made if there is none. Null if the kernel has no room for it. */
static __noinline struct drop_log *drop_find(const struct drop_key *key)
{
	struct drop_log *log = bpf_map_lookup_elem(&dpd_drops, key);
	__u32 zero = 0;

	if (log)
		return log;

	const struct drop_log *blank = bpf_map_lookup_elem(&dpd_drop_blank, &zero);

	if (!blank)
		return 0;
	bpf_map_update_elem(&dpd_drops, key, blank, BPF_NOEXIST);
	return bpf_map_lookup_elem(&dpd_drops, key);
}

/*
 * How many drops a report made now stands for: those that were held back since the last one, and this. 0: hold this
 * one back too.
 */
static __always_inline __u32 drop_repeats(struct drop_log *log, __u64 now_ns, __u64 interval_ns)
{
	if (now_ns < log->report_ns) {
		__sync_fetch_and_add(&log->held_back, 1);
		log->seen_ns = now_ns;
		counter_add(COUNTER_EVENTS_HELD_BACK, 1);
		return 0;
	}

	__u64 held_back = log->held_back;

	log->report_ns = now_ns + interval_ns;
	__sync_fetch_and_add(&log->held_back, -held_back); /* another CPU may add to it this very moment */
	return held_back + 1;
}

/* Sends a copy of the log's event. One that does not get out is told later, with those that it stood for. */
static __always_inline void drop_report(struct drop_log *log, const struct settings *settings, __u64 now_ns)
{
	if (!event_is_limited(settings, now_ns)) {
		if (!bpf_ringbuf_output(&dpd_events, &log->event, sizeof(log->event), event_wakeup()))
			return;
		counter_add(COUNTER_EVENTS_RING_FULL, 1);
	}
	log->seen_ns = now_ns;
	__sync_fetch_and_add(&log->held_back, log->event.repeats);
}

/* A drop may come before anybody asked who it is about. */
static __always_inline void event_name_ends(struct packet *packet)
{
	const struct identity *identity;

	if (!packet->connection.source_identity) {
		identity = identity_find(packet->slot, &packet->tuple.source);
		packet->connection.source_identity = identity ? identity->id : 0;
	}
	if (!packet->connection.destination_identity) {
		identity = identity_find(packet->slot, &packet->tuple.destination);
		packet->connection.destination_identity = identity ? identity->id : 0;
	}
}

/* Reports a drop, unless the same one was reported within the interval. */
static __noinline void event_report_drop(struct packet *packet, __u8 reason)
{
	const struct settings *settings = settings_find(packet->epoch);

	if (!settings) {
		counter_add(COUNTER_EVENTS_RING_FULL, 1); /* nobody says how much may be told */
		return;
	}
	/* Broadcast is noise that every workload makes: its count is enough. */
	if (reason == REASON_MULTICAST && settings->aggregation == AGGREGATION_MEDIUM)
		return;

	struct drop_key key = { .tuple = packet->tuple, .ifindex = packet->ifindex, .reason = reason };
	struct drop_log *log = drop_find(&key);

	if (!log) {
		counter_add(COUNTER_EVENTS_RING_FULL, 1);
		return;
	}

	struct report report = {
		.ifindex = packet->ifindex,
		.repeats = drop_repeats(log, packet->now_ns, settings->report_interval_ns),
		.verdict = VERDICT_DROPPED,
		.point = hook_point(packet->hook),
		.reason = reason,
		.direction = packet->direction,
	};

	if (!report.repeats)
		return;
	event_name_ends(packet);
	event_set_packet(&log->event, packet);
	event_set_report(&log->event, &report);
	drop_report(log, settings, packet->now_ns);
}

/*
 * Reports a packet that belongs to no connection and is not dropped: what a workload needs to live, and what dpd
 * answers itself. No two of them belong together, so at `medium` there is nothing to tell.
 */
static __noinline void event_report_single(struct packet *packet, __u8 point)
{
	const struct settings *settings = settings_find(packet->epoch);
	struct report report = {
		.ifindex = packet->ifindex,
		.repeats = 1,
		.verdict = VERDICT_FORWARDED,
		.point = hook_point(packet->hook),
		.direction = packet->direction,
	};

	if (!settings || settings->aggregation == AGGREGATION_MEDIUM)
		return;
	event_name_ends(packet);
	if (settings->aggregation == AGGREGATION_NONE && packet->hook != HOOK_TO_CONTAINER)
		event_report(packet, &report);
	report.point = point;
	event_report(packet, &report);
}

#endif
