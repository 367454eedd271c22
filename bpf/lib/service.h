/* SPDX-License-Identifier: GPL-2.0-only */
/* Services: the frontend that a packet is sent to, and the backend that it gets. */
#ifndef DPD_SERVICE_H
#define DPD_SERVICE_H

#include "address.h"
#include "live.h"

struct services_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct service_key));
	__uint(value_size, sizeof(struct service));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct services_table);
} dpd_services __weak SEC(".maps");

struct slots_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct service_slot));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct slots_table);
} dpd_slots __weak SEC(".maps");

struct backends_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32)); /* the backend's number */
	__uint(value_size, sizeof(struct backend));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct backends_table);
} dpd_backends __weak SEC(".maps");

/*
 * The service of a frontend. A row with the id 0 says that the address is some service's, but nothing is served at
 * this port and protocol.
 */
static __noinline const struct service *service_find(__u32 slot, const struct tuple *tuple)
{
	struct service_key key = {
		.address = tuple->destination,
		.port = tuple->destination_port,
		.protocol = tuple->protocol,
	};
	void *table = bpf_map_lookup_elem(&dpd_services, &slot);

	if (!table)
		return 0;

	const struct service *service = bpf_map_lookup_elem(table, &key);

	if (service)
		return service;
	key.port = 0;
	key.protocol = 0;
	return bpf_map_lookup_elem(table, &key);
}

static __always_inline const struct service_slot *service_slot_find(__u32 slot, __u32 index)
{
	void *table = bpf_map_lookup_elem(&dpd_slots, &slot);

	return table ? bpf_map_lookup_elem(table, &index) : 0;
}

static __always_inline const struct backend *backend_find(__u32 slot, __u32 id)
{
	void *table = bpf_map_lookup_elem(&dpd_backends, &slot);

	return table ? bpf_map_lookup_elem(table, &id) : 0;
}

/* A number below n, from 32 random bits (Lemire 2019, without the rejection: n is small against 2^32). */
static __always_inline __u32 random_below(__u32 random, __u32 n)
{
	return (__u64)random * n >> 32;
}

#endif
