/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a workload may ask of its link: ARP, neighbour discovery, DHCP, multicast membership. These pass without a connection
 * and without policy, so they are bounded: by a rate for each interface, and by the neighbour entries that the host makes of
 * their sources, for one table holds the neighbours of all.
 */
#ifndef DPD_LINK_H
#define DPD_LINK_H

#include "../mechanism/counters.h"
#include "../mechanism/packet.h"
#include "endpoint.h"

enum {
	LINK_MESSAGES_PER_SECOND = 256,
	/* The kernel forgets idle neighbours after a minute (gc_stale_time), and refuses new ones beyond 1024 (gc_thresh3). */
	LINK_SOURCES_PER_MINUTE = 256,
};

#define LINK_MINUTE_NS (60ULL * NSEC_PER_SEC)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct link_usage);
} dpd_link_ratelimit __weak SEC(".maps");

/* Sources that went up to the host, and when they were last counted: each takes one of its interface's minute. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct link_address);
	__type(value, __u64);
} dpd_link_sources __weak SEC(".maps");

static __always_inline struct link_usage *link_usage_of(__u32 ifindex)
{
	struct link_usage *usage = bpf_map_lookup_elem(&dpd_link_ratelimit, &ifindex);
	struct link_usage first = {};

	if (usage)
		return usage;
	bpf_map_update_elem(&dpd_link_ratelimit, &ifindex, &first, BPF_NOEXIST);
	return bpf_map_lookup_elem(&dpd_link_ratelimit, &ifindex);
}

/* One more message of the workload's link; minus a reason if there were too many this second. */
static __noinline __must_check int link_admit_message(const struct packet *packet)
{
	struct link_usage *usage = link_usage_of(packet->ifindex);

	if (!usage ||
	    rate_limit_exceeded(&usage->messages, packet->now_ns, NSEC_PER_SEC, LINK_MESSAGES_PER_SECOND))
		return -REASON_RATE_LIMITED;
	return 0;
}

/*
 * A packet for the host itself, which makes a neighbour entry for a source that it has not heard of. Minus a reason if the
 * workload has shown it too many this minute.
 */
static __noinline __must_check int link_admit_source(const struct packet *packet)
{
	struct link_address key = { .address = packet->headers.tuple.source, .ifindex = packet->ifindex };
	struct link_usage *usage;

	if (address_is_unspecified(&key.address))
		return 0;

	const __u64 *counted_ns = bpf_map_lookup_elem(&dpd_link_sources, &key);

	if (counted_ns && packet->now_ns - *counted_ns < LINK_MINUTE_NS)
		return 0;
	usage = link_usage_of(packet->ifindex);
	if (!usage ||
	    rate_limit_exceeded(&usage->sources, packet->now_ns, LINK_MINUTE_NS, LINK_SOURCES_PER_MINUTE))
		return -REASON_RATE_LIMITED;
	bpf_map_update_elem(&dpd_link_sources, &key, &packet->now_ns, BPF_ANY);
	return 0;
}

/* Deletes the row of the address that the interface had. Else each announcement would leave one, in place of others' addresses. */
static __always_inline void link_local_forget(const struct link_local *known, __u32 ifindex)
{
	struct address address = known->address;
	const __u32 *owner = bpf_map_lookup_elem(&dpd_link_local_owners, &address);

	if (owner && *owner == ifindex)
		bpf_map_delete_elem(&dpd_link_local_owners, &address);
}

/*
 * The workload has announced a link-local address, or used it for its link's own messages. It is learnt if the file names none,
 * the workload has no other that it uses, and nobody else is known to have it. `used_ns`: when it was used, 0 if it only may be
 * (duplicate address detection).
 */
static __noinline void link_local_learn(const struct packet *packet, const struct address *address,
					__u64 used_ns)
{
	const struct link_local *known;
	struct link_local learnt = {
		.address = address_scope(address, packet->link_ifindex),
		.used_ns = used_ns,
	};
	__u32 ifindex = packet->ifindex;

	if (packet->endpoint_flags & ENDPOINT_NAMES_LINK_LOCAL || !packet_may_claim(packet, address))
		return;
	known = bpf_map_lookup_elem(&dpd_link_locals, &ifindex);
	if (known && address_equals(&known->address, &learnt.address)) {
		if (known->used_ns > used_ns)
			learnt.used_ns = known->used_ns;
	} else if (known && known->used_ns && packet->now_ns - known->used_ns < LINK_LOCAL_IDLE_NS) {
		return;
	} else if (known) {
		link_local_forget(known, ifindex);
	}
	bpf_map_update_elem(&dpd_link_local_owners, &learnt.address, &ifindex, BPF_ANY);
	bpf_map_update_elem(&dpd_link_locals, &ifindex, &learnt, BPF_ANY);
}

#endif
