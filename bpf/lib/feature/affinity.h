/* SPDX-License-Identifier: GPL-2.0-only */
/* Affinity: new connections of a client to a service go to the backend that it had last, for some time after its last packet. */
#ifndef DPD_AFFINITY_H
#define DPD_AFFINITY_H

#include "../mechanism/counters.h"
#include "service.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} dpd_affinity __weak SEC(".maps");

static __always_inline struct affinity_key affinity_key_of(__u32 service, const struct address *client)
{
	return (struct affinity_key){ .client = *client, .service = service };
}

/* The backend that a client keeps; 0: it has none, or none that new connections may get. */
static __noinline __u32 affinity_find(__u32 slot, const struct service *service, const struct address *client,
				      __u64 now_ns)
{
	struct affinity_key key = affinity_key_of(service->id, client);
	const struct affinity *kept = bpf_map_lookup_elem(&dpd_affinity, &key);

	/* Another CPU may have seen the client after we read the clock. */
	if (!kept || (__s64)(now_ns - kept->last_seen_ns) > (__s64)service->affinity_ns)
		return 0;

	const struct backend *backend = backend_find(slot, kept->backend);

	return backend && backend->service == service->id && backend->is_picked &&
			       backend->state == BACKEND_ACTIVE
		       ? kept->backend
		       : 0;
}

/* A client has got a backend. */
static __noinline void affinity_note(const struct service *service, const struct address *client,
				     __u32 backend, __u64 now_ns)
{
	struct affinity_key key = affinity_key_of(service->id, client);
	struct affinity *kept = bpf_map_lookup_elem(&dpd_affinity, &key);
	struct affinity row = {
		.last_seen_ns = now_ns,
		.lifetime_ns = service->affinity_ns,
		.backend = backend,
	};

	if (kept)
		*kept = row;
	else if (!bpf_map_update_elem(&dpd_affinity, &key, &row, BPF_NOEXIST))
		counter_add(COUNTER_AFFINITY_INSERTED, 1);
}

/* A packet of a client's connection to a backend: it counts while that is the one that the client keeps. */
static __noinline void affinity_refresh(__u32 service, const struct address *client, __u32 backend,
					__u64 now_ns)
{
	struct affinity_key key = affinity_key_of(service, client);
	struct affinity *kept = bpf_map_lookup_elem(&dpd_affinity, &key);

	if (kept && kept->backend == backend)
		kept->last_seen_ns = now_ns;
}

#endif
