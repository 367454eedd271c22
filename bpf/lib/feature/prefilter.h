/* SPDX-License-Identifier: GPL-2.0-only */
/* The prefilter: senders that are dropped before the kernel builds an skb for their packet. */
#ifndef DPD_PREFILTER_H
#define DPD_PREFILTER_H

#include "../mechanism/address.h"
#include "../mechanism/generation.h"

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

#endif
