/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interfaces that have the programs and are no endpoints: those that become some with the next switch, and those that
 * were some before the last. Programs are put on and taken off one after the other, with a grace period for each, so this
 * may take a while; meanwhile all is as without them.
 */
#ifndef DPD_OUTSIDE_H
#define DPD_OUTSIDE_H

#include "endpoint.h"

/* By ifindex, the first epoch in which it is an endpoint if it has a row then. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} dpd_outside __weak SEC(".maps");

/* Of an interface that has no row. */
static __always_inline int is_outside(__u32 ifindex, __u64 epoch)
{
	const __u64 *until = bpf_map_lookup_elem(&dpd_outside, &ifindex);

	return until && epoch < *until;
}

#endif
