// SPDX-License-Identifier: GPL-2.0-only
/*
 * What comes from the network: tc ingress of an uplink. The host's own traffic arrives here too: all that is not a
 * workload's passes, and only its addresses are read.
 *
 *	NIC -> XDP -> dpd_from_netdev -+- fast path: NAT, straight to the workload's veth
 *				       +- not to a workload: pass
 *				       +- asks for an address that is announced: tail_announce
 *				       +- tail_handle_ipv4, _ipv6
 */
#include "lib/feature/from_network.h"
#include "lib/mechanism/vlan.h"

/*
 * IP that was sent to this interface. What was sent to another host (a switch floods, a sniffer is at work) or to the whole
 * link is not forwarded, and a VLAN's packets belong to the VLAN's own interface.
 */
static __always_inline int is_ip_to_us(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST)
		return 0;
	if (unlikely(vlan_is_tagged(skb)))
		vlan_untag_priority(skb);
	if (skb->vlan_present)
		return 0;
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
}

SEC("tc")
int dpd_from_netdev(struct __sk_buff *skb)
{
	__u64 epoch = generation_live_epoch();

	if (!is_ip_to_us(skb)) {
		announce_on_link(skb, HOOK_FROM_NETDEV, epoch);
		return HOOK_NEXT;
	}
	return from_network(skb, HOOK_FROM_NETDEV, epoch);
}
