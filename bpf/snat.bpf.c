// SPDX-License-Identifier: GPL-2.0-only
/*
 * The step of SNAT to an address of the host: a new connection that policy has allowed gets one, and a source port that no other
 * connection and no socket of the host has. tail_ct has chosen the uplink.
 */
#include "lib/feature/ct_create.h"
#include "lib/feature/snat.h"
#include "lib/feature/snat_source.h"
#include "lib/mechanism/chain.h"

SEC("tc")
int tail_snat(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	snat_choose_source(packet);

	int result = snat_choose(skb, packet);

	if (!result)
		nat_csum_deltas(packet);
	return step_finish(skb, packet, result, STEP_DELIVER);
}
