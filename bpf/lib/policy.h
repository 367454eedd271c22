/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Policy by identity. The trie is keyed by subject, the peer's class, direction, protocol and port; its longest prefix
 * decides among the rules of one peer, and the rules for `any` peer, and for `world` if the peer is of it, are asked
 * beside them: a deny of either wins.
 */
#ifndef DPD_POLICY_H
#define DPD_POLICY_H

#include "endpoint.h"
#include "settings.h"

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
 * Hits of each rule, by its number: connections that it let through, each once however often it is judged again, and
 * packets that it refused.
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

/* A connection has been entered under these rules: those that it had before have counted it. */
static __always_inline void policy_count_connection(const struct packet *packet)
{
	const struct connection *connection = &packet->connection;

	if (connection->egress_rule && connection->egress_rule != packet->counted_egress_rule)
		policy_count_hit(connection->egress_rule);
	if (connection->ingress_rule && connection->ingress_rule != packet->counted_ingress_rule)
		policy_count_hit(connection->ingress_rule);
}

/* One direction of one subject. */
struct policy_question {
	__u32 slot;
	__u32 subject;
	__u32 class;
	__u8 enforcement;
	__u8 direction;
	__u8 protocol;
	__u8 from_host; /* and the configuration lets the host reach its endpoints */
	__be16 port;
	__u8 world; /* the peer is of the world */
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
static __noinline __must_check int policy_ask(const struct policy_question *question, __u32 *rule)
{
	struct policy_key key = {
		.prefix_length = POLICY_KEY_PORT_BITS,
		.subject = question->subject,
		.class = question->class,
		.direction = question->direction,
		.protocol = question->protocol,
		.port = question->port,
	};
	__u32 slot = question->slot;
	void *table = bpf_map_lookup_elem(&dpd_policy, &slot);

	*rule = 0;
	if (question->enforcement == ENFORCEMENT_OFF)
		return 0;
	if (!table)
		return -REASON_POLICY;

	const struct policy *decides = bpf_map_lookup_elem(table, &key);

	if (question->world) {
		key.class = POLICY_CLASS_WORLD;
		decides = policy_stricter(decides, bpf_map_lookup_elem(table, &key));
	}
	key.class = POLICY_CLASS_ANY;
	decides = policy_stricter(decides, bpf_map_lookup_elem(table, &key));
	if (decides) {
		*rule = decides->rule;
		return decides->deny ? -REASON_POLICY_DENY : 0;
	}
	if (question->enforcement == ENFORCEMENT_DENY_ONLY || question->from_host)
		return 0;
	return -REASON_POLICY;
}

/* The sender's egress, if it is a workload of this host. */
static __noinline __must_check int policy_ask_egress(struct packet *packet)
{
	struct policy_question question = {
		.slot = packet->slot,
		.subject = packet->source.identity.id,
		.class = packet->destination.identity.class,
		.enforcement = packet->source.endpoint.egress,
		.direction = DIRECTION_EGRESS,
		.protocol = packet->beginning.protocol,
		.port = packet->beginning.destination_port,
		.world = packet->destination.identity.world,
	};

	if (packet->source.identity.place != PLACE_ENDPOINT)
		return 0;
	return policy_ask(&question, &packet->connection.egress_rule);
}

/* The receiver's ingress, if it is a workload of this host. */
static __noinline __must_check int policy_ask_ingress(struct packet *packet, const struct settings *settings)
{
	struct policy_question question = {
		.slot = packet->slot,
		.subject = packet->destination.identity.id,
		.class = packet->source.identity.class,
		.enforcement = packet->destination.endpoint.ingress,
		.direction = DIRECTION_INGRESS,
		.protocol = packet->beginning.protocol,
		.from_host = settings->allow_host && packet->source.identity.place == PLACE_HOST,
		.port = packet->beginning.destination_port,
		.world = packet->source.identity.world,
	};

	if (packet->destination.identity.place != PLACE_ENDPOINT)
		return 0;
	return policy_ask(&question, &packet->connection.ingress_rule);
}

#endif
