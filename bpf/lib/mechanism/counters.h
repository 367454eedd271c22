/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters: what workloads send and receive; drops by reason, direction and interface; the few of no interface; and rates. */
#ifndef DPD_COUNTERS_H
#define DPD_COUNTERS_H

#include "../../abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct drop_count_key);
	__type(value, struct packet_count);
} dpd_drop_counts __weak SEC(".maps");

/* An array, since every packet counts here: its rows are found without a hash. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ENDPOINT_COUNTERS_SIZE);
	__type(key, __u32);
	__type(value, struct endpoint_counters);
} dpd_endpoint_counters __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} dpd_counters __weak SEC(".maps");

static __always_inline void endpoint_counters_add(__u32 index, __u8 direction, __u32 bytes)
{
	struct endpoint_counters *counters = bpf_map_lookup_elem(&dpd_endpoint_counters, &index);

	if (counters) {
		counters->direction[direction].packets++;
		counters->direction[direction].bytes += bytes;
	}
}

/* What a workload has sent and its hook has not dropped; `to_stack`: the host's stack carries on with it. */
static __always_inline void endpoint_count_sent(__u32 index, __u32 bytes, int to_stack)
{
	struct endpoint_counters *counters = bpf_map_lookup_elem(&dpd_endpoint_counters, &index);

	if (counters) {
		counters->direction[DIRECTION_EGRESS].packets++;
		counters->direction[DIRECTION_EGRESS].bytes += bytes;
		counters->to_stack += to_stack;
	}
}

/* The same of what dpd answers itself. */
static __always_inline void endpoint_count_answered(__u32 index, __u32 bytes)
{
	struct endpoint_counters *counters = bpf_map_lookup_elem(&dpd_endpoint_counters, &index);

	if (counters) {
		counters->direction[DIRECTION_EGRESS].packets++;
		counters->direction[DIRECTION_EGRESS].bytes += bytes;
		counters->answered++;
	}
}

/* A drop at an endpoint's own hook; `direction` is the hook's. */
static __always_inline void endpoint_count_dropped(__u32 index, __u8 direction)
{
	struct endpoint_counters *counters = bpf_map_lookup_elem(&dpd_endpoint_counters, &index);

	if (counters)
		counters->dropped[direction & 1]++;
}

static __always_inline void drop_count_add(__u32 ifindex, __u8 reason, __u8 direction, __u32 bytes)
{
	struct drop_count_key key = { .ifindex = ifindex, .reason = reason, .direction = direction };
	struct packet_count *count = bpf_map_lookup_elem(&dpd_drop_counts, &key);

	if (likely(count)) {
		count->packets++;
		count->bytes += bytes;
		return;
	}

	struct packet_count first = { .packets = 1, .bytes = bytes };

	/*
	 * Whether or not another CPU has made the row meanwhile, this one's value is still zero. The table is full only
	 * with thousands of interfaces; then the count is lost and the packet's verdict stays.
	 */
	bpf_map_update_elem(&dpd_drop_counts, &key, &first, BPF_ANY);
}

static __always_inline void counter_add(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(&dpd_counters, &counter);

	if (value)
		*value += amount;
}

/* Uses one of a limit per period; not zero if the limit of this period is used up. */
static __always_inline int rate_limit_exceeded(struct rate_window *window, __u64 now_ns, __u64 period_ns,
					       __u64 limit)
{
	if (now_ns - window->started_ns >= period_ns) {
		window->started_ns = now_ns;
		window->used = 0;
	}
	return window->used++ >= limit;
}

#endif
