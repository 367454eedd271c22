// SPDX-License-Identifier: GPL-2.0-only
/*
 * All that a workload sends: tc ingress of the host's side of its veth.
 *
 *	workload -> veth -> dpd_from_container -+- fast path: NAT, straight to the other workload's veth
 *						+- no endpoint: pass if unmanaged, else drop below
 *						+- tail_neighbour		(ARP)
 *						+- tail_handle_ipv4, _ipv6	(everything else)
 */
#include "lib/feature/endpoint.h"
#include "lib/feature/fastpath.h"
#include "lib/feature/takeover.h"
#include "lib/feature/unmanaged.h"
#include "lib/mechanism/chain.h"
#include "lib/mechanism/vlan.h"

/* From a workload only IPv4, IPv6 and ARP, and none of them in a VLAN. */
static __always_inline __must_check int check_ethertype(struct __sk_buff *skb)
{
	__u16 ethertype = bpf_ntohs(skb->protocol);

	if (vlan_is_tagged(skb))
		return -REASON_VLAN;
	if (ethertype == ETH_P_IP || ethertype == ETH_P_IPV6 || ethertype == ETH_P_ARP)
		return 0;
	return ethertype < ETH_P_802_3_MIN ? -REASON_UNSUPPORTED_L2 : -REASON_UNSUPPORTED_L3;
}

static __always_inline __u32 first_step(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return STEP_HANDLE_IPV4;
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return STEP_HANDLE_IPV6;
	return STEP_NEIGHBOUR;
}

SEC("tc")
int dpd_from_container(struct __sk_buff *skb)
{
	__u64 epoch = generation_live_epoch();
	int seen, result = fastpath(skb, HOOK_FROM_CONTAINER, epoch, &seen);

	if (likely(result == ACTION_REDIRECT))
		return TC_ACT_REDIRECT;
	/* The host's own multicast comes back here (dev_loopback_xmit), as if from the workload. */
	if (result == ACTION_PASS || skb->pkt_type == PACKET_LOOPBACK)
		return HOOK_NEXT;

	takeover_all(skb, HOOK_FROM_CONTAINER, epoch);

	struct packet *packet = packet_init(skb, HOOK_FROM_CONTAINER, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* a per-CPU array always has its row 0 */

	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);

	if (endpoint) {
		packet->sender_identity = endpoint->identity;
		packet_set_endpoint(packet, endpoint);
	} else if (is_unmanaged(packet->ifindex, epoch)) {
		return HOOK_NEXT;
	}
	if (unlikely(vlan_is_tagged(skb))) {
		vlan_untag_priority(skb);
		packet->frame_length = skb->len - ETH_HLEN;
		packet->headers.length = packet->frame_length;
	}
	if (!result)
		result = check_ethertype(skb);
	if (result && !endpoint)
		result = -REASON_NO_CONFIGURATION;
	return step_finish(skb, packet, result, first_step(skb));
}

char LICENSE[] SEC("license") = "GPL";
