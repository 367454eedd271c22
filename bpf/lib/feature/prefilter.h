/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The prefilter: senders whose packets are dropped first of all. By XDP, before the kernel builds an skb; on an uplink without
 * Ethernet headers at its tc ingress.
 */
#ifndef DPD_PREFILTER_H
#define DPD_PREFILTER_H

#include "../mechanism/event.h"
#include "../mechanism/parse.h"

struct prefilter_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct address_prefix_key));
	__uint(value_size, sizeof(struct prefilter));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct prefilter_table);
} dpd_prefilter __weak SEC(".maps");

/* Packets dropped for each prefix, by its number. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, __u64);
} dpd_prefilter_hits __weak SEC(".maps");

static __always_inline const struct prefilter *prefilter_find(__u32 slot, const struct address *source)
{
	struct address_prefix_key key = {
		.prefix_length = PREFIX_KEY_FAMILY_BITS + 128,
		.family = address_is_mapped(source) ? 4 : 6,
		.address = *source,
	};
	void *table = bpf_map_lookup_elem(&dpd_prefilter, &slot);

	return table ? bpf_map_lookup_elem(table, &key) : 0;
}

static __always_inline void prefilter_count(__u32 number)
{
	__u64 *hits = bpf_map_lookup_elem(&dpd_prefilter_hits, &number);
	__u64 first = 1;

	if (hits)
		*hits += 1;
	else
		bpf_map_update_elem(&dpd_prefilter_hits, &number, &first, BPF_ANY);
}

/* Counts a dropped packet, for its prefix and for its interface. */
static __always_inline void prefilter_drop(const struct prefilter *denied,
					   const struct linear_headers *headers, __u32 ifindex)
{
	prefilter_count(denied->number);
	drop_count_add(ifindex, REASON_PREFILTER, DIRECTION_INGRESS, headers->length);
}

/* One report for each sender in an interval stands for the rest. `hook` is a constant. */
static __noinline void prefilter_report(const struct linear_headers *headers, __u8 hook, __u32 ifindex,
					__u64 epoch, __u64 now_ns)
{
	struct event_subject subject = {
		.now_ns = now_ns,
		.epoch = epoch,
		.tuple = &headers->tuple,
		.length = headers->length,
		.tcp_flags = headers->tcp.flags,
	};
	struct drop_key key = {
		.tuple.source = headers->tuple.source,
		.ifindex = ifindex,
		.reason = REASON_PREFILTER,
	};
	struct report report = {
		.ifindex = ifindex,
		.verdict = VERDICT_DROPPED,
		.point = hook == HOOK_XDP_ENTRY ? POINT_XDP : POINT_FROM_NETWORK,
		.reason = REASON_PREFILTER,
		.direction = DIRECTION_INGRESS,
	};

	drop_report(&subject, &key, &report);
}

#endif
