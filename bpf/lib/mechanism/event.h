/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events: what the daemon learns of a packet. An event may be lost, to a full ring or to the rate limit, and each loss is
 * counted by its cause; the packet never waits for its event.
 */
#ifndef DPD_EVENT_H
#define DPD_EVENT_H

#include "counters.h"
#include "ipcache.h"
#include "packet.h"
#include "settings.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} dpd_events __weak SEC(".maps");

/* Not zero: the reader is awake and reads on soon, so that nobody need wake it. Written by the reader alone. */
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
	__type(value, struct rate_window);
} dpd_event_ratelimit __weak SEC(".maps");

/* Drops that were reported not long ago; the daemon reports those suppressed ones that no later drop stands for. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct drop_key);
	__type(value, struct drop_throttle);
} dpd_drop_throttle __weak SEC(".maps");

/* Always zero: what a new row of dpd_drop_throttle starts as, for which there is no room on the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drop_throttle);
} dpd_drop_throttle_init __weak SEC(".maps");

/* What an event says of its packet. */
struct event_subject {
	__u64 now_ns;
	__u64 epoch;
	const struct flow_tuple *tuple;
	const struct ct_entry *entry; /* null: of no connection */
	__u32 length;
	__u32 sender_identity; /* 0: unknown, by the source address */
	__u32 receiver_identity; /* 0: unknown, by the destination address */
	__u32 service; /* where there is no entry; 0: none */
	__u8 tcp_flags;
};

/* Where on a packet's way an event is made, and what was decided there. */
struct report {
	__u32 ifindex;
	__u32 repeats;
	__u8 verdict; /* enum verdict */
	__u8 point; /* enum point */
	__u8 reason; /* enum reason */
	__u8 direction; /* enum direction */
};

/* -- Sending -------------------------------------------------------------------------------------------------------- */

/* Not zero if the rate limit leaves no room for another event. */
static __always_inline int event_is_limited(const struct settings *settings, __u64 now_ns)
{
	__u32 zero = 0;
	struct rate_window *window = bpf_map_lookup_elem(&dpd_event_ratelimit, &zero);

	if (window && !rate_limit_exceeded(window, now_ns, NSEC_PER_SEC, settings->event_rate))
		return 0;
	counter_add(COUNTER_EVENTS_RATE_LIMITED, 1);
	return 1;
}

/*
 * Waking the reader costs more than all the rest of an event (an interrupt to its own CPU, and a switch), and short
 * connections have several events each: it is not woken while it is awake.
 */
static __always_inline __u64 event_wakeup(void)
{
	__u32 zero = 0;
	const volatile __u64 *is_awake = bpf_map_lookup_elem(&dpd_reader, &zero);

	return is_awake && *is_awake ? BPF_RB_NO_WAKEUP : 0;
}

/* -- Contents ------------------------------------------------------------------------------------------------------- */

/* What the connection's entry knows; identities there are those of the side that opened it, in the event the packet's. */
static __always_inline void event_set_connection(struct event *event, const struct ct_entry *entry)
{
	int reply = !!(entry->flags & CT_REPLY);

	event->translated = entry->translated;
	event->source_identity = reply ? entry->destination_identity : entry->source_identity;
	event->destination_identity = reply ? entry->source_identity : entry->destination_identity;
	event->service = entry->service;
	event->backend = entry->backend;
	event->egress_rule = entry->egress_rule;
	event->ingress_rule = entry->ingress_rule;
	event->reply = reply;
	event->state = entry->state;
}

static __always_inline __u32 event_identity(__u64 epoch, const struct address *address)
{
	const struct ipcache_entry *owner = ipcache_find(generation_slot(epoch), address);

	return owner ? owner->id : 0;
}

/* A packet that is dropped early has no connection yet, nor have its identities been looked up. */
static __always_inline void event_complete(struct event *event, const struct event_subject *subject)
{
	if (!event->translated.protocol) {
		event->translated = *subject->tuple;
		event->state = EVENT_NO_CONNECTION;
	}
	if (!event->source_identity)
		event->source_identity = subject->sender_identity;
	if (!event->source_identity)
		event->source_identity = event_identity(subject->epoch, &subject->tuple->source);
	if (!event->destination_identity)
		event->destination_identity = subject->receiver_identity;
	if (!event->destination_identity)
		event->destination_identity = event_identity(subject->epoch, &subject->tuple->destination);
}

static __always_inline void event_fill(struct event *event, const struct event_subject *subject,
				       const struct report *report)
{
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = subject->now_ns;
	event->epoch = subject->epoch;
	event->tuple = *subject->tuple;
	event->length = subject->length;
	event->tcp_flags = subject->tcp_flags;
	event->service = subject->service;
	if (subject->entry)
		event_set_connection(event, subject->entry);
	event_complete(event, subject);
	event->ifindex = report->ifindex;
	event->repeats = report->repeats;
	event->verdict = report->verdict;
	event->point = report->point;
	event->reason = report->reason;
	event->direction = report->direction;
}

/* -- Packets that pass ---------------------------------------------------------------------------------------------- */

/* Room for an event; null: a limit, or a full ring, leaves none, and the loss is counted. */
static __always_inline struct event *event_reserve(const struct settings *settings, __u64 now_ns)
{
	if (event_is_limited(settings, now_ns))
		return 0;

	struct event *event = bpf_ringbuf_reserve(&dpd_events, sizeof(*event), 0);

	if (!event)
		counter_add(COUNTER_EVENTS_RING_FULL,
			    1); /* the reader is behind: losing a report beats losing a packet */
	return event;
}

static __noinline void event_report(const struct event_subject *subject, const struct report *report)
{
	const struct settings *settings = settings_find(subject->epoch);
	struct event *event = settings ? event_reserve(settings, subject->now_ns) : 0;

	if (!event)
		return;
	event_fill(event, subject, report);
	bpf_ringbuf_submit(event, event_wakeup());
}

/* When the next packet of an entry is reported, after one that is reported now. */
static __always_inline __u64 event_next_report_ns(const struct settings *settings, __u64 now_ns)
{
	return settings->aggregation == AGGREGATION_MEDIUM ? now_ns + settings->report_interval_ns : 0;
}

/* Whether a packet of an entry is reported; `is_fresh`: it has a TCP flag that none before it had. */
static __always_inline int event_is_due(struct ct_entry *entry, const struct settings *settings, __u64 now_ns,
					int is_fresh)
{
	if (!is_fresh && now_ns < entry->report_ns && settings->aggregation == AGGREGATION_MEDIUM)
		return 0;
	entry->report_ns = event_next_report_ns(settings, now_ns);
	return 1;
}

/* Whether packets are reported where they arrive, too; what continues to its own interface has one point only. */
static __always_inline int event_has_arrival(const struct settings *settings, const struct hook_row *hook)
{
	return settings->aggregation == AGGREGATION_NONE && !(hook->flags & HOOK_PASSES_ON);
}

static __always_inline struct event_subject packet_event_subject(const struct packet *packet)
{
	return (struct event_subject){
		.now_ns = packet->now_ns,
		.epoch = packet->epoch,
		.tuple = &packet->headers.tuple,
		.entry = &packet->ct.entry,
		.length = packet->headers.length,
		.sender_identity = packet->sender_identity,
		.receiver_identity = packet->receiver_identity,
		.tcp_flags = packet->headers.tcp.flags,
	};
}

/*
 * Reports a packet that belongs to no connection and is not dropped: what a workload's link needs, multicast, and what dpd
 * responds to itself. No two of them belong together, so `medium` reports none.
 */
static __noinline void event_report_single(const struct packet *packet, __u8 point)
{
	const struct settings *settings = settings_find(packet->epoch);
	struct event_subject subject = packet_event_subject(packet);
	struct report report = {
		.ifindex = packet->ifindex,
		.repeats = 1,
		.verdict = VERDICT_FORWARDED,
		.point = packet->hook.point,
		.direction = packet->direction,
	};

	if (!settings || settings->aggregation == AGGREGATION_MEDIUM)
		return;
	if (event_has_arrival(settings, &packet->hook))
		event_report(&subject, &report);
	report.point = point;
	event_report(&subject, &report);
}

/* -- Drops ---------------------------------------------------------------------------------------------------------- */

/*
 * The throttle of a drop, made if there is none. Null if the table has no room for it. Inlined: the verifier of 7.x tells calls
 * apart by the caller and the depth alone. A function that two callers of its caller give a key of their own stack gets the
 * stack use of one of them, and reads what counts as dead for the other.
 */
static __always_inline struct drop_throttle *drop_throttle_find(const struct drop_key *key)
{
	struct drop_throttle *throttle = bpf_map_lookup_elem(&dpd_drop_throttle, key);
	__u32 zero = 0;

	if (throttle)
		return throttle;

	const struct drop_throttle *init = bpf_map_lookup_elem(&dpd_drop_throttle_init, &zero);

	if (!init)
		return 0;
	bpf_map_update_elem(&dpd_drop_throttle, key, init, BPF_NOEXIST);
	return bpf_map_lookup_elem(&dpd_drop_throttle, key);
}

/* The number of drops that a report made now stands for: this one and those suppressed since the last. 0: suppress it too. */
static __always_inline __u32 drop_throttle_repeats(struct drop_throttle *throttle, __u64 now_ns,
						   __u64 interval_ns)
{
	if (now_ns < throttle->report_ns) {
		__sync_fetch_and_add(&throttle->suppressed, 1);
		throttle->last_seen_ns = now_ns;
		counter_add(COUNTER_EVENTS_SUPPRESSED, 1);
		return 0;
	}

	__u64 suppressed = throttle->suppressed;

	throttle->report_ns = now_ns + interval_ns;
	__sync_fetch_and_add(&throttle->suppressed, -suppressed); /* another CPU may add at this moment */
	return suppressed + 1;
}

/* Sends a copy of the throttle's event. If it is lost, a later one stands for its drops. */
static __always_inline void drop_throttle_send(struct drop_throttle *throttle,
					       const struct settings *settings, __u64 now_ns)
{
	if (!event_is_limited(settings, now_ns)) {
		if (!bpf_ringbuf_output(&dpd_events, &throttle->event, sizeof(throttle->event),
					event_wakeup()))
			return;
		counter_add(COUNTER_EVENTS_RING_FULL, 1);
	}
	throttle->last_seen_ns = now_ns;
	__sync_fetch_and_add(&throttle->suppressed, throttle->event.repeats);
}

/* Reports a drop, unless the same one, by `key`, was reported within the interval. */
static __noinline void drop_report(const struct event_subject *subject, const struct drop_key *key,
				   struct report *report)
{
	const struct settings *settings = settings_find(subject->epoch);

	if (!settings) {
		counter_add(COUNTER_EVENTS_NO_SETTINGS, 1);
		return;
	}
	/* Broadcast is noise that every workload makes: its count is enough. */
	if (report->reason == REASON_MULTICAST && settings->aggregation == AGGREGATION_MEDIUM)
		return;

	struct drop_throttle *throttle = drop_throttle_find(key);

	if (!throttle) {
		counter_add(COUNTER_EVENTS_THROTTLE_FULL, 1);
		return;
	}
	report->repeats = drop_throttle_repeats(throttle, subject->now_ns, settings->report_interval_ns);
	if (!report->repeats)
		return;
	event_fill(&throttle->event, subject, report);
	drop_throttle_send(throttle, settings, subject->now_ns);
}

/* Reports a drop of the chain. */
static __noinline void event_report_drop(const struct packet *packet, __u8 reason)
{
	struct event_subject subject = packet_event_subject(packet);
	struct drop_key key = {
		.tuple = packet->headers.tuple,
		.ifindex = packet->ifindex,
		.reason = reason,
	};
	struct report report = {
		.ifindex = packet->ifindex,
		.verdict = VERDICT_DROPPED,
		.point = packet->hook.point,
		.reason = reason,
		.direction = packet->direction,
	};

	drop_report(&subject, &key, &report);
}

#endif
