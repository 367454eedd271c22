/* SPDX-License-Identifier: GPL-2.0-only */
/* Whose address is it? The ipcache: prefixes to identities, policy classes and places. */
#ifndef DPD_IDENTITY_H
#define DPD_IDENTITY_H

#include "address.h"
#include "live.h"

struct identities_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct identity_key));
	__uint(value_size, sizeof(struct identity));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct identities_table);
} dpd_identities __weak SEC(".maps");

/* Null only before the first configuration: the daemon always writes a default for each family. */
static __always_inline const struct identity *identity_find(__u32 slot, const struct address *address)
{
	struct identity_key key = {
		.prefix_length = IDENTITY_KEY_FAMILY_BITS + 128,
		.family = address_is_mapped(address) ? 4 : 6,
		.address = *address,
	};
	void *table = bpf_map_lookup_elem(&dpd_identities, &slot);

	return table ? bpf_map_lookup_elem(table, &key) : 0;
}

#endif
