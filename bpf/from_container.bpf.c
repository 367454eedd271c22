// SPDX-License-Identifier: GPL-2.0-only
/*
 * All that a workload sends: tc ingress of the host's side of its veth.
 *
 *	workload -> veth -> dpd_from_container -+- established: rewrite, straight to the other workload's veth
 *						+- no endpoint yet, or any more: pass
 *						+- tail_neighbour		(ARP)
 *						+- tail_handle_ipv4, _ipv6	(everything else)
 */
#include "lib/chain.h"
#include "lib/outside.h"

/* From a workload only IPv4, IPv6 and ARP, and none of them in a VLAN. */
static __always_inline __must_check int check_ethertype(struct __sk_buff *skb)
{
	__u16 ethertype = bpf_ntohs(skb->protocol);

	if (skb->vlan_present || ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD)
		return -REASON_ENCAPSULATION;
	if (ethertype == ETH_P_IP || ethertype == ETH_P_IPV6 || ethertype == ETH_P_ARP)
		return 0;
	return ethertype < ETH_P_802_3_MIN ? -REASON_UNSUPPORTED_L2 : -REASON_UNSUPPORTED_L3;
}

static __always_inline __u32 first_call(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return CALL_HANDLE_IPV4;
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return CALL_HANDLE_IPV6;
	return CALL_NEIGHBOUR;
}

SEC("tc")
int dpd_from_container(struct __sk_buff *skb)
{
	__u64 epoch = live_epoch();
	int answer = established(skb, HOOK_FROM_CONTAINER, epoch);

	if (likely(answer == ACTION_REDIRECT))
		return TC_ACT_REDIRECT;
	if (answer == ACTION_PASS)
		return HOOK_NEXT;

	former_lead(skb, HOOK_FROM_CONTAINER, epoch);

	struct packet *packet = chain_open(skb, HOOK_FROM_CONTAINER, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* the kernel has no per-CPU row 0: it can't be */

	const struct endpoint *endpoint = endpoint_find(packet->slot, packet->ifindex);

	if (endpoint) {
		packet->connection.source_identity = endpoint->identity;
		packet->row = endpoint->row;
	} else if (is_outside(packet->ifindex, epoch)) {
		return HOOK_NEXT;
	}
	if (!answer)
		answer = check_ethertype(skb);
	return finish(skb, packet, answer, first_call(skb));
}

char LICENSE[] SEC("license") = "GPL";
