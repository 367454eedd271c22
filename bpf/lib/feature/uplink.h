/* SPDX-License-Identifier: GPL-2.0-only */
/* Uplinks: the host's NICs of the file, and which way packets leave by them. No other interface is one. */
#ifndef DPD_UPLINK_H
#define DPD_UPLINK_H

#include "../mechanism/ipcache.h"

struct uplinks_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32)); /* ifindex */
	__uint(value_size, sizeof(struct uplink));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct uplinks_table);
} dpd_uplinks __weak SEC(".maps");

/* Null: the interface is no uplink of the file. */
static __always_inline const struct uplink *uplink_find(__u32 slot, __u32 ifindex)
{
	void *table = bpf_map_lookup_elem(&dpd_uplinks, &slot);

	return table ? bpf_map_lookup_elem(table, &ifindex) : 0;
}

/* The uplink, if it masquerades what workloads send by it to this address. */
static __noinline const struct uplink *uplink_masquerades(__u32 slot, __u32 ifindex,
							  const struct address *destination)
{
	__u8 family = address_is_mapped(destination) ? MASQUERADE_IPV4 : MASQUERADE_IPV6;
	const struct uplink *uplink = uplink_find(slot, ifindex);

	if (!uplink || !(uplink->masquerade & family))
		return 0;

	const struct ipcache_entry *owner = ipcache_find(slot, destination);

	return owner && owner->snat == SNAT_MASQUERADED ? uplink : 0;
}

#endif
