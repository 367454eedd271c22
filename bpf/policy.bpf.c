// SPDX-License-Identifier: GPL-2.0-only
/* The policy step: may these two communicate? A connection that may not any more is refused in both directions. */
#include "lib/feature/ct_commit.h"
#include "lib/feature/policy_verdict.h"
#include "lib/mechanism/chain.h"

/*
 * Of a connection that was taken up in the middle nobody knows who opened it: it may go on if policy allows it in either
 * orientation.
 */
static __always_inline __must_check int verdict_reversed(struct packet *packet,
							 const struct settings *settings)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	struct flow_tuple *original = &packet->ct.original;
	struct ct_entry *entry = &packet->ct.entry;
	struct address source = original->source;
	int result;

	original->source = original->destination;
	original->destination = source;
	original->destination_port = entry->flags & CT_REPLY ? tuple->destination_port : tuple->source_port;
	result = policy_verdict(packet, settings);
	if (!result)
		entry->flags ^= CT_REPLY;
	return result;
}

static __always_inline __must_check int verdict(struct packet *packet, const struct settings *settings)
{
	const struct ct_entry *entry = &packet->ct.entry;
	int result = policy_verdict(packet, settings);

	if (result && packet->ct.found && entry->flags & CT_MIDSTREAM && !(entry->flags & CT_TRANSLATE))
		result = verdict_reversed(packet, settings);
	if (result && packet->ct.found)
		ct_refuse(packet, -result);
	return result;
}

SEC("tc")
int tail_policy(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int result = settings ? verdict(packet, settings) : -REASON_NO_CONFIGURATION;

	return step_finish(skb, packet, result, STEP_DELIVER);
}
