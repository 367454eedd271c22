/* SPDX-License-Identifier: GPL-2.0-only */
/* The ipcache: whose address is it? Prefixes to identities, policy classes and scopes. */
#ifndef DPD_IPCACHE_H
#define DPD_IPCACHE_H

#include "address.h"
#include "generation.h"

struct ipcache_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct address_prefix_key));
	__uint(value_size, sizeof(struct ipcache_entry));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct ipcache_table);
} dpd_ipcache __weak SEC(".maps");

/* Null only before the first configuration: the daemon always writes a default for each family. */
static __always_inline const struct ipcache_entry *ipcache_find(__u32 slot, const struct address *address)
{
	struct address_prefix_key key = {
		.prefix_length = PREFIX_KEY_FAMILY_BITS + 128,
		.family = address_is_mapped(address) ? 4 : 6,
		.address = *address,
	};
	void *table = bpf_map_lookup_elem(&dpd_ipcache, &slot);

	return table ? bpf_map_lookup_elem(table, &key) : 0;
}

#endif
