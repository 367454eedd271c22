/* SPDX-License-Identifier: GPL-2.0-only */
/* The verdict on a connection: the sender's egress policy, then the receiver's ingress policy. */
#ifndef DPD_POLICY_VERDICT_H
#define DPD_POLICY_VERDICT_H

#include "../mechanism/settings.h"
#include "endpoint.h"
#include "policy.h"

/* The sender's egress, if it is a workload of this host. */
static __noinline __must_check int policy_verdict_egress(struct packet *packet)
{
	const struct packet_policy *policy = &packet->policy;
	struct policy_query query = {
		.slot = packet->generation_slot,
		.subject = policy->source.address.id,
		.class = policy->destination.address.class,
		.enforcement = policy->source.endpoint.egress,
		.direction = DIRECTION_EGRESS,
		.protocol = packet->ct.original.protocol,
		.port = packet->ct.original.destination_port,
		.is_world = policy->destination.address.is_world,
	};

	if (policy->source.address.scope != SCOPE_ENDPOINT)
		return 0;
	return policy_lookup(&query, &packet->ct.entry.egress_rule);
}

/* The receiver's ingress, if it is a workload of this host. */
static __noinline __must_check int policy_verdict_ingress(struct packet *packet,
							  const struct settings *settings)
{
	const struct packet_policy *policy = &packet->policy;
	struct policy_query query = {
		.slot = packet->generation_slot,
		.subject = policy->destination.address.id,
		.class = policy->source.address.class,
		.enforcement = policy->destination.endpoint.ingress,
		.direction = DIRECTION_INGRESS,
		.protocol = packet->ct.original.protocol,
		.is_host_allowed = settings->allow_host && policy->source.address.scope == SCOPE_HOST,
		.port = packet->ct.original.destination_port,
		.is_world = policy->source.address.is_world,
	};

	if (policy->destination.address.scope != SCOPE_ENDPOINT)
		return 0;
	return policy_lookup(&query, &packet->ct.entry.ingress_rule);
}

/* Policy does not apply between a workload and itself. */
static __always_inline int is_same_workload(const struct packet_policy *policy)
{
	return policy->source.address.scope == SCOPE_ENDPOINT &&
	       policy->destination.address.scope == SCOPE_ENDPOINT &&
	       policy->source.address.ifindex == policy->destination.address.ifindex;
}

/* Asks both sides; the direction of the side that refuses is noted, which may not be that of the packet. */
static __always_inline __must_check int policy_verdict_both(struct packet *packet,
							    const struct settings *settings)
{
	int result = policy_verdict_egress(packet);

	if (result) {
		packet->direction = DIRECTION_EGRESS;
		return result;
	}
	result = policy_verdict_ingress(packet, settings);
	if (result)
		packet->direction = DIRECTION_INGRESS;
	return result;
}

/* The rule that denies a packet counts it as a hit; an allowed connection counts once it is in the tables. */
static __always_inline void policy_count_denied(const struct packet *packet)
{
	__u32 rule = packet->direction == DIRECTION_EGRESS ? packet->ct.entry.egress_rule
							   : packet->ct.entry.ingress_rule;

	if (rule)
		policy_count_hit(rule);
}

/* The connection is in the tables under these rules: those that it had before have counted it. */
static __always_inline void policy_count_connection(const struct packet *packet)
{
	const struct ct_entry *entry = &packet->ct.entry;

	if (entry->egress_rule && entry->egress_rule != packet->ct.counted_egress_rule)
		policy_count_hit(entry->egress_rule);
	if (entry->ingress_rule && entry->ingress_rule != packet->ct.counted_ingress_rule)
		policy_count_hit(entry->ingress_rule);
}

/* The verdict on packet->ct.original, with both peers and rules; 0, or minus a reason. */
static __noinline __must_check int policy_verdict(struct packet *packet, const struct settings *settings)
{
	struct packet_policy *policy = &packet->policy;
	struct ct_entry *entry = &packet->ct.entry;
	int result = peer_resolve(packet, &policy->source, &packet->ct.original.source);

	if (!result && entry->flags & CT_FORWARDED && policy->source.address.scope == SCOPE_HOST)
		result = peer_resolve_world(packet, &policy->source);
	if (!result)
		result = peer_resolve(packet, &policy->destination, &packet->ct.original.destination);
	entry->source_identity = policy->source.address.id;
	entry->destination_identity = policy->destination.address.id;
	entry->egress_rule = 0;
	entry->ingress_rule = 0;
	if (result || is_same_workload(policy))
		return result;
	result = policy_verdict_both(packet, settings);
	if (result && settings->audit) {
		policy->audit_reason = -result;
		return 0;
	}
	if (result)
		policy_count_denied(packet);
	return result;
}

#endif
