// SPDX-License-Identifier: GPL-2.0-only
/*
 * What leaves for the network: tc egress of an uplink. A workload's packets got their verdict and NAT at the workload's own
 * hook and carry our mark, which is cleared here; the host's own traffic passes untouched.
 */
#include "lib/feature/asked.h"

SEC("tc")
int dpd_to_netdev(struct __sk_buff *skb)
{
	if (!skb->mark || !mark_is_ours(skb->mark))
		return HOOK_NEXT;

	__u32 row = mark_row(skb->mark);

	/* What waited for a workload behind a bridge that is an uplink keeps its mark, for the workload's own hook. */
	if (!row || asked_leave(row, skb->ifindex, skb->hash, bpf_ktime_get_ns()) == ASKED_LEAVES)
		skb->mark = 0;
	return HOOK_NEXT;
}
