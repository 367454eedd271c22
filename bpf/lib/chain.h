/* SPDX-License-Identifier: GPL-2.0-only */
/* The way from a hook into the chain, for the packets that need it. */
#ifndef DPD_CHAIN_H
#define DPD_CHAIN_H

#include "established.h"
#include "former.h"
#include "verdict.h"

/* Opens the record of a packet: what is known before its network header is read. */
static __always_inline struct packet *chain_open(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	struct packet *packet = packet_record();

	if (!packet)
		return 0;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->now_ns = bpf_ktime_get_ns();
	packet->now_ticks = bpf_jiffies64();
	packet->epoch = epoch;
	packet->slot = live_slot(epoch);
	packet->ifindex = skb->ifindex;
	packet->length = skb->len - ETH_HLEN;
	packet->network = ETH_HLEN;
	packet->hook = hook;
	packet->direction = hook == HOOK_FROM_CONTAINER ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	return packet;
}

#endif
