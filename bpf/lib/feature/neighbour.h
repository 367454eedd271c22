/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Neighbours that packets reach past the kernel's neighbour code. That code asks a neighbour that is in use whether it is still
 * there (RFC 4861, 7.3.3), and would believe a MAC for ever that it never sees in use. So it gets a packet now and then.
 */
#ifndef DPD_NEIGHBOUR_H
#define DPD_NEIGHBOUR_H

#include "route.h"

#define NEIGHBOUR_USE_NS NSEC_PER_SEC

/* When the kernel's neighbour code last got a packet for a next hop; CLOCK_MONOTONIC. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct link_address);
	__type(value, __u64);
} dpd_neighbour_uses __weak SEC(".maps");

static __always_inline struct link_address neighbour_of(const struct route *route)
{
	struct link_address neighbour = { .ifindex = route->ifindex };

	if (route->next.nh_family == AF_INET)
		neighbour.address = address_from_ipv4(route->next.ipv4_nh);
	else
		__builtin_memcpy(&neighbour.address, route->next.ipv6_nh, sizeof(neighbour.address));
	return neighbour;
}

/* Whether the next packet to the route's next hop is one for the kernel's neighbour code. Global: it is verified once. */
__weak __noinline int neighbour_is_due(const struct route *route, __u64 now_ns)
{
	if (!route)
		return 0; /* never: the verifier can't know */

	struct link_address neighbour = neighbour_of(route);
	const __u64 *used_ns = bpf_map_lookup_elem(&dpd_neighbour_uses, &neighbour);

	return !used_ns || (__s64)(now_ns - *used_ns) >= (__s64)NEIGHBOUR_USE_NS;
}

/* The kernel's neighbour code gets this packet. Global, as neighbour_is_due(). */
__weak __noinline int neighbour_use(const struct route *route, __u64 now_ns)
{
	if (!route)
		return 0; /* never, the same */

	struct link_address neighbour = neighbour_of(route);

	bpf_map_update_elem(&dpd_neighbour_uses, &neighbour, &now_ns, BPF_ANY);
	return 0;
}

#endif
