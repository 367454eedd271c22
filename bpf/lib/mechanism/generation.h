/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one switch between configurations. Each table of a generation is an outer map of two slots; the live epoch's
 * lowest bit says which one programs read. A hook reads the epoch once, and every later step uses what it read.
 */
#ifndef DPD_GENERATION_H
#define DPD_GENERATION_H

#include "../../abi.h"

/*
 * Written by the daemon alone, with one store. The kernel refuses to map what is BPF_F_RDONLY_PROG for writing, so here
 * the verifier does not keep programs from it: nothing but generation_live_epoch() names it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dpd_live __weak SEC(".maps");

static __always_inline __u64 generation_live_epoch(void)
{
	__u32 zero = 0;
	const volatile __u64 *epoch = bpf_map_lookup_elem(&dpd_live, &zero);

	return epoch ? *epoch : 0;
}

/* The slot of an epoch's tables in every outer map. */
static __always_inline __u32 generation_slot(__u64 epoch)
{
	return epoch & 1;
}

#endif
