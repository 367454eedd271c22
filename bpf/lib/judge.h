/* SPDX-License-Identifier: GPL-2.0-only */
/* Both sides are asked: the sender's egress, then the receiver's ingress. */
#ifndef DPD_JUDGE_H
#define DPD_JUDGE_H

#include "policy.h"

/* A workload and itself: policy does not come between. */
static __always_inline int judge_is_self(const struct packet *packet)
{
	return packet->source.identity.place == PLACE_ENDPOINT &&
	       packet->destination.identity.place == PLACE_ENDPOINT &&
	       packet->source.identity.ifindex == packet->destination.identity.ifindex;
}

static __always_inline __must_check int judge_policy(struct packet *packet, const struct settings *settings)
{
	int answer = policy_ask_egress(packet);

	if (answer) {
		packet->direction = DIRECTION_EGRESS; /* of the side that began, whoever sent this packet */
		return answer;
	}
	answer = policy_ask_ingress(packet, settings);
	if (answer)
		packet->direction = DIRECTION_INGRESS;
	return answer;
}

/* The rule that refuses the packet counts it; what is let through counts once it is a connection. */
static __always_inline void judge_count_refusal(const struct packet *packet)
{
	__u32 rule = packet->direction == DIRECTION_EGRESS ? packet->connection.egress_rule
							   : packet->connection.ingress_rule;

	if (rule)
		policy_count_hit(rule);
}

/* Judges packet->beginning and notes both identities, rules and places; 0, or minus a reason. */
static __noinline __must_check int judge(struct packet *packet, const struct settings *settings)
{
	int answer = end_resolve(packet, &packet->source, &packet->beginning.source);

	if (!answer)
		answer = end_resolve(packet, &packet->destination, &packet->beginning.destination);
	packet->connection.source_identity = packet->source.identity.id;
	packet->connection.destination_identity = packet->destination.identity.id;
	packet->connection.egress_rule = 0;
	packet->connection.ingress_rule = 0;
	if (answer || judge_is_self(packet))
		return answer;
	answer = judge_policy(packet, settings);
	if (answer && settings->audit) {
		packet->audit = -answer;
		return 0;
	}
	if (answer)
		judge_count_refusal(packet);
	return answer;
}

#endif
