/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Policy by identity: a pure lookup. The trie is keyed by subject, the peer's class, direction, protocol and port; its longest
 * prefix decides among the rules of one peer. Rules for `any` peer, and for `world` if the peer is of it, are looked up
 * as well: a deny of either wins.
 */
#ifndef DPD_POLICY_H
#define DPD_POLICY_H

#include "../../abi.h"

struct policy_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct policy_key));
	__uint(value_size, sizeof(struct policy));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct policy_table);
} dpd_policy __weak SEC(".maps");

/*
 * Hits of each rule, by its number: connections that it allowed, each once however often it gets a new verdict, and packets
 * that it denied.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, __u64);
} dpd_rule_hits __weak SEC(".maps");

static __always_inline void policy_count_hit(__u32 rule)
{
	__u64 *hits = bpf_map_lookup_elem(&dpd_rule_hits, &rule);

	if (hits) {
		*hits += 1;
		return;
	}

	__u64 first = 1;

	bpf_map_update_elem(&dpd_rule_hits, &rule, &first, BPF_ANY);
}

/* One direction of one subject. */
struct policy_query {
	__u32 slot; /* of the generation */
	__u32 subject;
	__u32 class; /* the peer's */
	__u8 enforcement;
	__u8 direction;
	__u8 protocol;
	__u8 is_host_allowed; /* the peer is the host, and the configuration lets it reach its endpoints */
	__be16 port;
	__u8 is_world; /* the peer is of the world */
	__u8 pad;
};

/* Which of two rows decides: a deny before an allow, else the first. Either may be null. */
static __always_inline const struct policy *policy_stricter(const struct policy *first,
							    const struct policy *second)
{
	if (!first || (second && second->deny && !first->deny))
		return second;
	return first;
}

/* 0, or minus a reason; the rule that decided, or 0, goes to *rule. */
static __noinline __must_check int policy_lookup(const struct policy_query *query, __u32 *rule)
{
	struct policy_key key = {
		.prefix_length = POLICY_KEY_PORT_BITS,
		.subject = query->subject,
		.class = query->class,
		.direction = query->direction,
		.protocol = query->protocol,
		.port = query->port,
	};
	__u32 slot = query->slot;
	void *table = bpf_map_lookup_elem(&dpd_policy, &slot);

	*rule = 0;
	if (query->enforcement == ENFORCEMENT_OFF)
		return 0;
	if (!table)
		return -REASON_NO_CONFIGURATION;

	const struct policy *decides = bpf_map_lookup_elem(table, &key);

	if (query->is_world) {
		key.class = POLICY_CLASS_WORLD;
		decides = policy_stricter(decides, bpf_map_lookup_elem(table, &key));
	}
	key.class = POLICY_CLASS_ANY;
	decides = policy_stricter(decides, bpf_map_lookup_elem(table, &key));
	if (decides) {
		*rule = decides->rule;
		return decides->deny ? -REASON_POLICY_DENY : 0;
	}
	if (query->enforcement == ENFORCEMENT_DENY_ONLY || query->is_host_allowed)
		return 0;
	return -REASON_POLICY;
}

#endif
