// SPDX-License-Identifier: GPL-2.0-only
/* The policy step: may these two speak? A connection that may not any more is forgotten in both directions. */
#include "lib/chain.h"
#include "lib/judge.h"

SEC("tc")
int tail_policy(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int answer = settings ? judge(packet, settings) : -REASON_POLICY;

	if (answer && packet->found)
		conntrack_delete_pair(&packet->tuple, &packet->connection);
	return finish(skb, packet, answer, CALL_DELIVER);
}
