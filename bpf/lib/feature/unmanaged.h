/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unmanaged interfaces: those that have the programs and are no endpoints: they become some with the next commit, or were
 * some before the last. Programs are attached and detached one after the other, with a grace period for each, so this takes
 * a while; meanwhile their packets pass untouched.
 *
 * Any other interface without an endpoint entry is closed: all its packets drop. So is one that appears after it was declared,
 * from its programs on until the commit.
 */
#ifndef DPD_UNMANAGED_H
#define DPD_UNMANAGED_H

#include "../../abi.h"

/* By ifindex, the first epoch from which on an interface without an endpoint entry drops. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} dpd_unmanaged __weak SEC(".maps");

/* For an interface without an endpoint entry. */
static __always_inline int is_unmanaged(__u32 ifindex, __u64 epoch)
{
	const __u64 *until = bpf_map_lookup_elem(&dpd_unmanaged, &ifindex);

	return until && epoch < *until;
}

#endif
