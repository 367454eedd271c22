/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Taking over from a load of the programs whose tables are not ours: another version's, or of another size. The links
 * move one by one, and the entries of connections are carried over while packets pass; no packet may notice either.
 *
 *	links move		dpd_live is ours and still 0: all goes to the former program of the hook
 *	the switch		one store: from here on what is new is ours
 *	entries are carried	a connection that only the former tables hold is the former programs'
 *	done			both maps are empty, and the former load goes
 *
 * With no load to take over from, both maps are empty all the time.
 */
#ifndef DPD_FORMER_H
#define DPD_FORMER_H

#include "conntrack.h"

/* The former load's programs, by hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, HOOK_TO_NETDEV + 1);
	__type(key, __u32);
	__type(value, __u32);
} dpd_former __weak SEC(".maps");

/* The daemon gives it the former layout before it loads: nothing is read here but whether there is an entry. */
struct former_connections {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct tuple));
	__uint(value_size, sizeof(struct connection));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, FORMER_COUNT);
	__type(key, __u32);
	__array(values, struct former_connections);
} dpd_former_connections __weak SEC(".maps");

/* At a hook, before anything is read: before the switch it is the former program's packet. Comes back if there is none. */
static __always_inline void former_lead(struct __sk_buff *skb, __u32 hook, __u64 epoch)
{
	if (unlikely(!epoch))
		bpf_tail_call(skb, &dpd_former, hook);
}

static __always_inline int former_has(__u32 place, const struct tuple *tuple)
{
	void *table = bpf_map_lookup_elem(&dpd_former_connections, &place);

	return table && bpf_map_lookup_elem(table, tuple);
}

/* What is ours already stays so, for its row goes from the former tables only later. */
static __noinline int former_knows(const struct tuple *tuple)
{
	__u32 place = tuple->protocol == IPPROTO_TCP ? FORMER_TCP : FORMER_OTHER;

	if (!former_has(place, tuple) && !former_has(FORMER_UNANSWERED, tuple))
		return 0;
	return !conntrack_find(tuple);
}

/* Of a connection that has not been carried over yet: the packet is as it came, and the former program's. */
static __always_inline void former_serve(struct __sk_buff *skb, const struct packet *packet,
					 const struct tuple *tuple)
{
	if (unlikely(former_knows(tuple)))
		bpf_tail_call(skb, &dpd_former, packet->hook);
}

#endif
