// SPDX-License-Identifier: GPL-2.0-only
/*
 * What comes from the network: tc ingress of an uplink. The host's own traffic arrives here too: all that is not a
 * workload's passes, and only its addresses are read.
 *
 *	NIC -> XDP -> dpd_from_netdev -+- fast path: NAT, straight to the workload's veth
 *				       +- not to a workload: pass
 *				       +- tail_handle_ipv4, _ipv6
 */
#include "lib/feature/fastpath.h"
#include "lib/feature/takeover.h"
#include "lib/mechanism/chain.h"
#include "lib/mechanism/vlan.h"

/* Whether the packet is for a workload of this host, by its fixed header. */
static __always_inline int is_to_workload(struct __sk_buff *skb, __u32 slot)
{
	struct address destination;
	__be32 ipv4;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &ipv4, sizeof(ipv4)))
			return 0;
		destination = address_from_ipv4(ipv4);
	} else {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &destination,
				       sizeof(destination)))
			return 0;
		if (address_is_mapped(&destination))
			return 0; /* no workload has it: the tables would take it for IPv4 */
	}

	const struct ipcache_entry *owner = ipcache_find(slot, &destination);

	return owner && (owner->scope == SCOPE_ENDPOINT || owner->scope == SCOPE_PENDING);
}

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
	if (!is_ip_to_us(skb))
		return HOOK_NEXT;

	__u64 epoch = generation_live_epoch();
	int result = fastpath(skb, HOOK_FROM_NETDEV, epoch);

	if (likely(result == ACTION_REDIRECT))
		return TC_ACT_REDIRECT;
	takeover_all(skb, HOOK_FROM_NETDEV, epoch);
	if (result == ACTION_PASS || (!result && !is_to_workload(skb, generation_slot(epoch))))
		return HOOK_NEXT;

	struct packet *packet = packet_init(skb, HOOK_FROM_NETDEV, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* a per-CPU array always has its row 0 */
	return step_finish(skb, packet, result,
			   skb->protocol == bpf_htons(ETH_P_IP) ? STEP_HANDLE_IPV4 : STEP_HANDLE_IPV6);
}
