/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Link-local addresses of workloads. The file may name them; else one for each interface is learnt, from neighbour discovery and
 * the like. Two tables, since it is looked up both ways, and an address counts only while both agree:
 *
 *	address, with its link -> interface	whose address is it
 *	interface -> address			the one that the interface has
 */
#ifndef DPD_LINK_LOCAL_H
#define DPD_LINK_LOCAL_H

#include "../mechanism/packet.h"

/* Hairpin: a workload that reaches itself sees these as its peer (RFC 3927, RFC 4291). */
#define HAIRPIN_IPV4 bpf_htonl(0xa9fe2a01) /* 169.254.42.1 */
#define HAIRPIN_IPV6 ((struct address){ .word = { bpf_cpu_to_be64(0xfe80000000000000), bpf_cpu_to_be64(1) } })

/* A workload that has not used its address for so long may announce another. */
#define LINK_LOCAL_IDLE_NS (10ULL * NSEC_PER_SEC)

/* LRU: interfaces that are gone leave their rows behind. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct address);
	__type(value, __u32);
} dpd_link_local_owners __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct link_local);
} dpd_link_locals __weak SEC(".maps");

/*
 * The interface from which an address, with its link, was learnt; 0: none. Global: it is verified once, not once for each way to
 * it; so the address is copied, for an argument of a global function is no map key before Linux 6.2.
 */
__weak __noinline __u32 link_local_owner(const struct address *scoped)
{
	if (!scoped)
		return 0; /* never: the verifier can't know */

	struct address address = *scoped;
	const __u32 *ifindex = bpf_map_lookup_elem(&dpd_link_local_owners, &address);

	if (!ifindex)
		return 0;

	__u32 owner = *ifindex;
	const struct link_local *known = bpf_map_lookup_elem(&dpd_link_locals, &owner);

	return known && address_equals(&known->address, &address) ? owner : 0;
}

/* A packet of the interface has the address as its source. */
static __always_inline void link_local_note_use(__u32 ifindex, __u64 now_ns)
{
	struct link_local *known = bpf_map_lookup_elem(&dpd_link_locals, &ifindex);

	if (known)
		known->used_ns = now_ns;
}

/*
 * Gives the link-local addresses of a tuple their link. `own` is the workload's side. What a workload with another address sends
 * to fe80::1, and gets from there, stays as it is: it may be its own, by a hairpin, which the fast path serves, and the workload's
 * address makes the tuple unique.
 */
static __always_inline void flow_tuple_scope(struct flow_tuple *tuple, const struct address *own, __u32 link)
{
	const struct address peer = HAIRPIN_IPV6;
	int is_scoped = address_is_link_local(own);

	if (is_scoped || !address_equals(&tuple->source, &peer))
		tuple->source = address_scope(&tuple->source, link);
	if (is_scoped || !address_equals(&tuple->destination, &peer))
		tuple->destination = address_scope(&tuple->destination, link);
}

#endif
