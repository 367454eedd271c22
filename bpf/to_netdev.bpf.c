// SPDX-License-Identifier: GPL-2.0-only
/*
 * What leaves for the network: tc egress of an uplink. What a workload sends has been judged and rewritten at its own
 * hook and carries our mark, which ends here; the host's own traffic passes unread.
 */
#include "lib/chain.h"

SEC("tc")
int dpd_to_netdev(struct __sk_buff *skb)
{
	if (skb->mark == DPD_MARK)
		skb->mark = 0;
	return HOOK_NEXT;
}
