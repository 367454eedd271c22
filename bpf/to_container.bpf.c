// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the host's own stack sends to a workload: tc egress of the host's side of its veth. What our other hooks have
 * judged and sent here carries our mark and passes.
 *
 *	host -> veth -> dpd_to_container -+- marked, or no IP: pass
 *					  +- established: rewrite, pass
 *					  +- no endpoint yet, or any more: pass
 *					  +- tail_handle_ipv4, _ipv6
 */
#include "lib/chain.h"
#include "lib/outside.h"

SEC("tc")
int dpd_to_container(struct __sk_buff *skb)
{
	if (skb->mark == DPD_MARK) {
		skb->mark = 0;
		return HOOK_NEXT;
	}
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return HOOK_NEXT;

	__u64 epoch = live_epoch();
	int answer = established(skb, HOOK_TO_CONTAINER, epoch);

	if (likely(answer == ACTION_PASS))
		return HOOK_NEXT;

	former_lead(skb, HOOK_TO_CONTAINER, epoch);

	struct packet *packet = chain_open(skb, HOOK_TO_CONTAINER, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* the kernel has no per-CPU row 0: it can't be */
	if (!endpoint_find(packet->slot, packet->ifindex) && is_outside(packet->ifindex, epoch))
		return HOOK_NEXT;
	return finish(skb, packet, answer,
		      skb->protocol == bpf_htons(ETH_P_IP) ? CALL_HANDLE_IPV4 : CALL_HANDLE_IPV6);
}
