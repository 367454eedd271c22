// SPDX-License-Identifier: GPL-2.0-only
/* The policy step: may these two communicate? A connection that may not any more loses both its entries. */
#include "lib/feature/conntrack.h"
#include "lib/feature/policy_verdict.h"
#include "lib/mechanism/chain.h"

SEC("tc")
int tail_policy(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int result = settings ? policy_verdict(packet, settings) : -REASON_NO_CONFIGURATION;

	if (result && packet->ct.found)
		ct_delete_pair(&packet->headers.tuple, &packet->ct.entry);
	return step_finish(skb, packet, result, STEP_DELIVER);
}
