/* SPDX-License-Identifier: GPL-2.0-only */
/* The local workloads, and what each of them may send. */
#ifndef DPD_ENDPOINT_H
#define DPD_ENDPOINT_H

#include "identity.h"
#include "packet.h"

struct endpoints_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32)); /* ifindex of the host's side */
	__uint(value_size, sizeof(struct endpoint));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct endpoints_table);
} dpd_endpoints __weak SEC(".maps");

static __always_inline const struct endpoint *endpoint_find(__u32 slot, __u32 ifindex)
{
	void *table = bpf_map_lookup_elem(&dpd_endpoints, &slot);

	return table ? bpf_map_lookup_elem(table, &ifindex) : 0;
}

/* Whether the address is of the workload behind the interface. */
static __always_inline int endpoint_has_address(__u32 slot, __u32 ifindex, const struct address *address)
{
	const struct identity *identity = identity_find(slot, address);

	return identity && identity->place == PLACE_ENDPOINT && identity->ifindex == ifindex;
}

/* Whether the address is of the workload that the packet's hook belongs to. */
static __always_inline int packet_is_own(const struct packet *packet, const struct address *address)
{
	return endpoint_has_address(packet->slot, packet->ifindex, address);
}

/* Whether packets from this address may cross a router: a single sender's, beyond its host and its link. */
static __always_inline int address_may_be_forwarded(const struct address *source)
{
	return !address_is_unspecified(source) && !address_is_multicast(source) &&
	       !address_is_loopback(source) && !address_is_link_local(source);
}

/*
 * A workload sends from its own addresses, whatever it says it is; from the host's side nothing that claims to be a
 * workload is believed, since what workloads send never comes that way; from the network nothing that claims to be the
 * host either.
 */
static __noinline __must_check int endpoint_check_source(const struct packet *packet)
{
	const struct identity *identity = identity_find(packet->slot, &packet->tuple.source);

	if (!identity)
		return -REASON_INVALID_SOURCE;
	if (packet->hook == HOOK_FROM_CONTAINER) {
		if (identity->place != PLACE_ENDPOINT || identity->ifindex != packet->ifindex)
			return -REASON_INVALID_SOURCE;
		return 0;
	}
	if (identity->place == PLACE_ENDPOINT || identity->place == PLACE_WAITING)
		return -REASON_INVALID_SOURCE;
	if (packet->hook == HOOK_FROM_NETDEV &&
	    (identity->place == PLACE_HOST || !address_may_be_forwarded(&packet->tuple.source)))
		return -REASON_INVALID_SOURCE;
	return 0;
}

/* What an address is, with the workload's row where it is a local one; minus a reason if it can't be reached now. */
static __noinline __must_check int end_resolve(struct packet *packet, struct end *end,
					       const struct address *address)
{
	const struct identity *identity = identity_find(packet->slot, address);

	if (!identity)
		return -REASON_NO_ROUTE;
	end->identity = *identity;
	if (identity->place != PLACE_ENDPOINT)
		return identity->place == PLACE_WAITING ? -REASON_NO_ROUTE : 0;

	const struct endpoint *endpoint = endpoint_find(packet->slot, identity->ifindex);

	if (!endpoint)
		return -REASON_NO_ROUTE;
	end->endpoint = *endpoint;
	return 0;
}

#endif
