// SPDX-License-Identifier: GPL-2.0-only
/*
 * What leaves for the network: tc egress of an uplink. A workload's packets got their verdict and NAT at the workload's own
 * hook and carry our mark, which is cleared here; the host's own traffic passes untouched.
 */
#include "lib/mechanism/generation.h"
#include "lib/mechanism/hook.h"

SEC("tc")
int dpd_to_netdev(struct __sk_buff *skb)
{
	if (skb->mark && skb->mark == generation_mark())
		skb->mark = 0;
	return HOOK_NEXT;
}
