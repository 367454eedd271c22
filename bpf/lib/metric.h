/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters: what workloads send and get, drops by reason, direction and interface, and the few of no interface. */
#ifndef DPD_METRIC_H
#define DPD_METRIC_H

#include "../abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct metric_key);
	__type(value, struct metric);
} dpd_metrics __weak SEC(".maps");

/* An array, for it is counted for every packet: a row of it is found without a hash. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRAFFIC_ROWS);
	__type(key, __u32);
	__type(value, struct traffic);
} dpd_traffic __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} dpd_counters __weak SEC(".maps");

static __always_inline void traffic_count(__u32 row, __u8 direction, __u32 bytes)
{
	struct traffic *traffic = bpf_map_lookup_elem(&dpd_traffic, &row);

	if (traffic) {
		traffic->direction[direction].packets++;
		traffic->direction[direction].bytes += bytes;
	}
}

static __always_inline void metric_count(__u32 ifindex, __u8 reason, __u8 direction, __u32 bytes)
{
	struct metric_key key = { .ifindex = ifindex, .reason = reason, .direction = direction };
	struct metric *metric = bpf_map_lookup_elem(&dpd_metrics, &key);

	if (likely(metric)) {
		metric->packets++;
		metric->bytes += bytes;
		return;
	}

	struct metric first = { .packets = 1, .bytes = bytes };

	/*
	 * Whether or not another CPU has made the row meanwhile, this one's value is still zero. Full only with
	 * thousands of interfaces; then the row is missing and no packet is harmed.
	 */
	bpf_map_update_elem(&dpd_metrics, &key, &first, BPF_ANY);
}

static __always_inline void counter_add(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(&dpd_counters, &counter);

	if (value)
		*value += amount;
}

/* Spends one of so many a second; not zero if the budget of this second is used up. */
static __always_inline int budget_is_spent(struct budget *budget, __u64 now_ns, __u64 a_second)
{
	if (now_ns - budget->window_ns >= NSEC_PER_SEC) {
		budget->window_ns = now_ns;
		budget->spent = 0;
	}
	return budget->spent++ >= a_second;
}

#endif
