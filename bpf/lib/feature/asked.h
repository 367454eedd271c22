/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packets whose next hop's MAC is not known yet or has to be confirmed: the kernel asks for it and keeps them meanwhile. And
 * those that it cuts for their receiver. Whether they ever leave is decided then. So they are counted and reported where they
 * leave, which our hook there finds by their mark; and as dropped if the kernel tells the sender that nobody answered
 * (tail_icmp_error).
 */
#ifndef DPD_ASKED_H
#define DPD_ASKED_H

#include "conntrack.h"
#include "delivery.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ASKED_SIZE);
	__type(key, __u32);
	__type(value, struct asked);
} dpd_asked __weak SEC(".maps");

/*
 * Takes a row, the one that was taken longest ago; 0: there is none. Two CPUs may get the same one if both are here within
 * nanoseconds, since programs for old kernels have no atomic operation that returns a value; then one packet stands for both.
 */
static __always_inline __u32 asked_take_row(void)
{
	__u32 row = 0;
	struct asked *taken = bpf_map_lookup_elem(&dpd_asked, &row);

	if (!taken)
		return 0;
	__sync_fetch_and_add(&taken->length, 1);
	return taken->length % (ASKED_SIZE - 1) + 1;
}

/*
 * Notes the packet of the chain; the mark of what waits, or that of any other judged packet. `is_due`: it is reported.
 * Global: it is verified once.
 */
__weak __noinline __u32 asked_note(struct __sk_buff *skb, int is_due)
{
	const struct packet *packet = packet_record();
	__u32 number = asked_take_row();
	struct asked *row = bpf_map_lookup_elem(&dpd_asked, &number);

	if (!packet || !number || !row)
		return generation_mark();

	const struct ct_entry *entry = &packet->ct.entry;

	row->tuple = packet->headers.tuple;
	row->length = packet->headers.length;
	row->ifindex = packet->ifindex;
	row->link_ifindex = entry->target == PARTY_ENDPOINT ? entry->target_ifindex : entry->link_ifindex;
	row->sender_counters = packet_sender_counters(packet);
	row->receiver_counters = entry->target_counters;
	row->hash = bpf_get_hash_recalc(skb);
	row->hook = packet->hook.hook;
	row->tcp_flags = packet->headers.tcp.flags;
	row->delivery = entry->delivery;
	row->is_due = is_due;
	row->audit_reason = packet->policy.audit_reason;
	row->audit_direction = packet->direction;
	return generation_mark() | number;
}

static __always_inline void asked_report(const struct asked *row, __u64 now_ns)
{
	const struct ct_entry *entry = ct_find(&row->tuple);
	struct hook_row hook =
		row->hook == HOOK_FROM_CONTAINER ? HOOKS[HOOK_FROM_CONTAINER] : HOOKS[HOOK_FROM_NETDEV];
	struct delivered delivered = {
		.ifindex = row->ifindex,
		.route_ifindex = row->delivery == DELIVERY_ROUTE ? row->link_ifindex : 0,
		.delivery = row->delivery,
		.audit_reason = row->audit_reason,
		.audit_direction = row->audit_direction,
	};

	if (!entry)
		return; /* evicted meanwhile: who its sides are is not known any more */

	struct event_subject subject = {
		.now_ns = now_ns,
		.epoch = entry->epoch,
		.tuple = &row->tuple,
		.entry = entry,
		.length = row->length,
		.tcp_flags = row->tcp_flags,
	};

	delivery_report(&subject, &hook, &delivered);
}

/* What leaves by an interface with the mark of what waits. */
enum asked_result {
	ASKED_UNKNOWN = 0, /* nothing has waited under this number: the mark is not ours */
	ASKED_COPY =
		1, /* for another interface: a bridge sends a packet to all of its ports if it does not know which has the MAC */
	ASKED_LEAVES = 2,
	ASKED_LOST = 3, /* there were too many others: the row is not the packet's any more */
};

/* The packet of this row: it is counted and reported now, once if the kernel has cut it. Global: it is verified once. */
__weak __noinline int asked_leave(__u32 number, __u32 ifindex, __u32 hash, __u64 now_ns)
{
	struct asked *row = bpf_map_lookup_elem(&dpd_asked, &number);

	if (!row || !row->link_ifindex)
		return ASKED_UNKNOWN;
	if (row->hash != hash)
		return ASKED_LOST;
	if (row->link_ifindex != ifindex)
		return ASKED_COPY;
	if (row->sender_counters)
		endpoint_count_sent(row->sender_counters, row->length, 0);
	if (row->receiver_counters)
		endpoint_counters_add(row->receiver_counters, DIRECTION_INGRESS, row->length);
	if (row->is_due)
		asked_report(row, now_ns);
	row->sender_counters = 0;
	row->receiver_counters = 0;
	row->is_due = 0;
	return ASKED_LEAVES;
}

#endif
