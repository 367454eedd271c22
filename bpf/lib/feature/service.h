/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Services: which one a frontend belongs to, and a pure choice of its backend: by the service's tables and two numbers alone,
 * random or of the flow, so that any hook can make it.
 */
#ifndef DPD_SERVICE_H
#define DPD_SERVICE_H

#include "../mechanism/address.h"
#include "../mechanism/generation.h"
#include "maglev.h"

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

struct backend_lut_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct backend_lut_entry));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct backend_lut_table);
} dpd_backend_lut __weak SEC(".maps");

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

struct service_sources_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct service_source_key));
	__uint(value_size, sizeof(struct service_source));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct service_sources_table);
} dpd_service_sources __weak SEC(".maps");

static __always_inline struct service_key service_key_of(const struct flow_tuple *tuple)
{
	return (struct service_key){
		.address = tuple->destination,
		.port = tuple->destination_port,
		.protocol = tuple->protocol,
	};
}

/*
 * The service of a frontend. A row with the id 0 says that the address is a frontend of some service, but none has this
 * port and protocol.
 */
static __noinline const struct service *service_find(__u32 slot, const struct flow_tuple *tuple)
{
	struct service_key key = service_key_of(tuple);
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

/* Whether the network reaches a service of exactly this frontend. */
static __always_inline int service_is_external(__u32 slot, const struct flow_tuple *tuple)
{
	struct service_key key = service_key_of(tuple);
	void *table = bpf_map_lookup_elem(&dpd_services, &slot);
	const struct service *service = table ? bpf_map_lookup_elem(table, &key) : 0;

	return service && service->flags & SERVICE_EXTERNAL;
}

/* Whether a client of the network may reach an external service. */
static __always_inline int service_admits(__u32 slot, const struct service *service,
					  const struct address *client)
{
	if (!(service->flags & SERVICE_HAS_SOURCES))
		return 1;

	struct service_source_key key = {
		.prefix_length = SERVICE_SOURCE_KEY_BITS + 128,
		.service = service->id,
		.family = address_is_mapped(client) ? 4 : 6,
		.address = *client,
	};
	void *table = bpf_map_lookup_elem(&dpd_service_sources, &slot);

	return table && bpf_map_lookup_elem(table, &key);
}

static __always_inline const struct backend_lut_entry *backend_lut_find(__u32 slot, __u32 index)
{
	void *table = bpf_map_lookup_elem(&dpd_backend_lut, &slot);

	return table ? bpf_map_lookup_elem(table, &index) : 0;
}

static __always_inline const struct backend *backend_find(__u32 slot, __u32 id)
{
	void *table = bpf_map_lookup_elem(&dpd_backends, &slot);

	return table ? bpf_map_lookup_elem(table, &id) : 0;
}

/* Whether a backend keeps the connections that it has. */
static __always_inline int backend_keeps(const struct backend *backend, __u8 protocol)
{
	if (backend->state == BACKEND_DRAINED)
		return 0;
	return backend->state != BACKEND_MAINTENANCE || protocol == IPPROTO_TCP;
}

/* A number below n, from 32 random bits (Lemire 2019, without the rejection: n is small compared to 2^32). */
static __always_inline __u32 random_below(__u32 random, __u32 n)
{
	return (__u64)random * n >> 32;
}

/* A backend of a service, and the column of the service's backend table that gave it. */
struct backend_pick {
	__u32 column;
	__u32 backend;
};

/* What a new connection's backend is picked by: the hash of its flow if the service has a Maglev table, else random numbers. */
static __always_inline void service_draw(const struct service *service, const struct flow_tuple *tuple,
					 __u32 numbers[2])
{
	if (service->maglev_size) {
		numbers[0] = service->affinity_ns ? maglev_hash_client(&tuple->source) : maglev_hash(tuple);
		numbers[1] = 0;
		return;
	}
	numbers[0] = bpf_get_prandom_u32();
	numbers[1] = bpf_get_prandom_u32();
}

/* The column of the backend table that a number gives; the Maglev table names one, if the service has it. */
static __always_inline __u32 service_pick_column(__u32 slot, const struct service *service, __u32 number)
{
	if (service->maglev_size)
		return maglev_find(slot, service->maglev_first, random_below(number, service->maglev_size));
	return random_below(number, service->lut_count);
}

/* Picks a backend: the first number gives a column, the second one of its two backends. 0, or minus a reason. */
static __always_inline __must_check int service_pick_backend(__u32 slot, const struct service *service,
							     const __u32 numbers[2],
							     struct backend_pick *pick)
{
	__u32 column = service_pick_column(slot, service, numbers[0]);

	if (column >= service->lut_count)
		return -REASON_NO_BACKEND; /* there is none, or the table is missing */

	const struct backend_lut_entry *entry = backend_lut_find(slot, service->lut_first + column);

	if (!entry)
		return -REASON_NO_BACKEND;
	pick->column = column;
	pick->backend = numbers[1] <= entry->threshold ? entry->backend : entry->alias;
	return 0;
}

/* The backend `steps` columns after a picked one, for who can't use that; 0: there are no more columns. */
static __always_inline __u32 service_next_backend(__u32 slot, const struct service *service, __u32 column,
						  __u32 steps)
{
	if (steps >= service->lut_count)
		return 0;
	column += steps;
	if (column >= service->lut_count)
		column -= service->lut_count;

	const struct backend_lut_entry *entry = backend_lut_find(slot, service->lut_first + column);

	return entry ? entry->backend : 0;
}

#endif
