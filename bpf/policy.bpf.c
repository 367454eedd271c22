// SPDX-License-Identifier: GPL-2.0-only
/* The policy step: may these two communicate? A connection that may not any more is refused in both directions. */
#include "lib/feature/ct_commit.h"
#include "lib/feature/policy_verdict.h"
#include "lib/mechanism/chain.h"

/* The packet's entry has changed its orientation, and so does the other: a pair of two replies would be nobody's connection. */
static __noinline void orient_reverse(const struct packet *packet)
{
	const struct ct_entry *entry = &packet->ct.entry;
	struct flow_tuple key = ct_reverse_key(entry);
	struct ct_entry *reverse = ct_find(&key);

	if (!reverse || !ct_is_reverse(reverse, &packet->headers.tuple))
		return;
	reverse->flags = (reverse->flags & ~CT_REPLY) | (entry->flags & CT_REPLY ? 0 : CT_REPLY);
}

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
	if (result)
		return result;
	entry->flags ^= CT_REPLY;
	orient_reverse(packet);
	return 0;
}

static __always_inline __must_check int verdict(struct packet *packet, const struct settings *settings)
{
	const struct ct_entry *entry = &packet->ct.entry;
	int result = packet->ct.is_source_refused ? -REASON_SOURCE_RANGE : policy_verdict(packet, settings);

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

	int needs_port = !packet->ct.found && packet->ct.entry.flags & CT_SNAT;

	return step_finish(skb, packet, result, needs_port ? STEP_SNAT : STEP_DELIVER);
}
