/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one switch between configurations. Each table of a generation is an outer map of two slots; the live epoch's
 * lowest bit says which one programs read. A hook reads the epoch once, and every later step uses what it read.
 */
#ifndef DPD_GENERATION_H
#define DPD_GENERATION_H

#include "../../abi.h"

/*
 * Written by the daemon alone, the epoch with one store, the mark once. The kernel refuses to map what is BPF_F_RDONLY_PROG for
 * writing, so here the verifier does not keep programs from it: nothing but the two functions below names it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LIVE_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} dpd_live __weak SEC(".maps");

static __always_inline __u64 generation_live_epoch(void)
{
	__u32 index = LIVE_EPOCH;
	const volatile __u64 *epoch = bpf_map_lookup_elem(&dpd_live, &index);

	return epoch ? *epoch : 0;
}

/* The mark of packets that a hook of ours has judged and delivered; 0: there is none. */
static __always_inline __u32 generation_mark(void)
{
	__u32 index = LIVE_MARK;
	const __u64 *mark = bpf_map_lookup_elem(&dpd_live, &index);

	return mark ? *mark : 0;
}

/* A packet with this mark was judged by a hook of ours, if it has arrived at an interface of this host. */
static __always_inline int mark_is_ours(__u32 mark)
{
	return mark && mark >> MARK_ROW_BITS << MARK_ROW_BITS == generation_mark();
}

/* The row of dpd_asked of a packet with our mark; 0: it has not waited. */
static __always_inline __u32 mark_row(__u32 mark)
{
	return mark & (ASKED_SIZE - 1);
}

/* The slot of an epoch's tables in every outer map. */
static __always_inline __u32 generation_slot(__u64 epoch)
{
	return epoch & 1;
}

#endif
