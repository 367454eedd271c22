/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Takeover from a load of the programs with other tables: another version's, or of another size. Links move one by one, and
 * conntrack entries are migrated while packets pass; no packet may notice either.
 *
 *	links move		our dpd_live is still 0: every packet goes to the previous program of the hook
 *	commit			one store: from here on new connections are ours
 *	entries migrate		a flow that only the previous tables hold goes to the previous programs
 *	done			both maps are empty, and the previous load is removed
 *
 * Without a takeover both maps are always empty.
 */
#ifndef DPD_TAKEOVER_H
#define DPD_TAKEOVER_H

#include "../mechanism/packet.h"
#include "conntrack.h"

/* The previous load's programs, by hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, HOOK_COUNT);
	__type(key, __u32);
	__type(value, __u32);
} dpd_prev_progs __weak SEC(".maps");

/* The daemon sets the previous layout before it loads: programs only look whether there is an entry. */
struct prev_ct_layout {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct flow_tuple));
	__uint(value_size, sizeof(struct ct_entry));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, CT_TABLE_COUNT);
	__type(key, __u32);
	__array(values, struct prev_ct_layout);
} dpd_prev_ct __weak SEC(".maps");

/* At a hook, before the commit: every packet goes to the previous program. Returns if there is none. */
static __always_inline void takeover_all(struct __sk_buff *skb, __u32 hook, __u64 epoch)
{
	if (unlikely(!epoch))
		bpf_tail_call(skb, &dpd_prev_progs, hook);
}

static __always_inline int takeover_has(__u32 index, const struct flow_tuple *tuple)
{
	void *table = bpf_map_lookup_elem(&dpd_prev_ct, &index);

	return table && bpf_map_lookup_elem(table, tuple);
}

/* Whether flows are migrating. All previous tables are there then, and this one in any case: its size is conntrack.size itself. */
static __always_inline int takeover_is_active(void)
{
	__u32 index = CT_TABLE_TCP;

	return !!bpf_map_lookup_elem(&dpd_prev_ct, &index);
}

/* A flow that has migrated stays ours, though its entry is deleted from the previous tables only later. */
static __noinline int takeover_knows(const struct flow_tuple *tuple)
{
	__u32 index = ct_replied_index(tuple->protocol);

	if (!takeover_has(index, tuple) && !takeover_has(CT_TABLE_UNREPLIED, tuple))
		return 0;
	return !ct_find(tuple);
}

/* A flow that has not migrated yet: the packet, still as it arrived, goes to the previous program. Else returns. */
static __always_inline void takeover_flow(struct __sk_buff *skb, const struct packet *packet,
					  const struct flow_tuple *tuple)
{
	if (unlikely(takeover_knows(tuple)))
		bpf_tail_call(skb, &dpd_prev_progs, packet->hook.hook);
}

#endif
