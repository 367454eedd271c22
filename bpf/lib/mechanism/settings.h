/* SPDX-License-Identifier: GPL-2.0-only */
/* Switches, limits and durations of a generation. */
#ifndef DPD_SETTINGS_H
#define DPD_SETTINGS_H

#include "generation.h"

struct settings_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct settings));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct settings_table);
} dpd_settings __weak SEC(".maps");

/* Null before the first configuration. */
static __always_inline const struct settings *settings_find(__u64 epoch)
{
	__u32 slot = generation_slot(epoch), zero = 0;
	void *table = bpf_map_lookup_elem(&dpd_settings, &slot);

	return table ? bpf_map_lookup_elem(table, &zero) : 0;
}

#endif
