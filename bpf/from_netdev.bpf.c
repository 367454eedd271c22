// SPDX-License-Identifier: GPL-2.0-only
/*
 * What comes from the network: tc ingress of an uplink. The host's own traffic comes here too; all that is not a
 * workload's passes, unread beyond its addresses.
 *
 *	NIC -> XDP -> dpd_from_netdev -+- established: rewrite, straight to the workload's veth
 *				       +- not to a workload: pass
 *				       +- tail_handle_ipv4, _ipv6
 */
#include "lib/chain.h"

/* Whether the packet is for a workload of this host, as far as its fixed header tells. */
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
			return 0; /* no workload's, whatever the tables say of its IPv4 namesake */
	}

	const struct identity *identity = identity_find(slot, &destination);

	return identity && (identity->place == PLACE_ENDPOINT || identity->place == PLACE_WAITING);
}

/*
 * IP that was sent to this interface. What was sent to another host (a switch floods, somebody listens) or to all of
 * the link is not forwarded, and a VLAN's packets belong to the VLAN's own interface.
 */
static __always_inline int is_ours_to_read(const struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return 0;
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
}

SEC("tc")
int dpd_from_netdev(struct __sk_buff *skb)
{
	if (!is_ours_to_read(skb))
		return HOOK_NEXT;

	__u64 epoch = live_epoch();
	int answer = established(skb, HOOK_FROM_NETDEV, epoch);

	if (likely(answer == ACTION_REDIRECT))
		return TC_ACT_REDIRECT;
	former_lead(skb, HOOK_FROM_NETDEV, epoch);
	if (answer == ACTION_PASS || (!answer && !is_to_workload(skb, live_slot(epoch))))
		return HOOK_NEXT;

	struct packet *packet = chain_open(skb, HOOK_FROM_NETDEV, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* the kernel has no per-CPU row 0: it can't be */
	return finish(skb, packet, answer,
		      skb->protocol == bpf_htons(ETH_P_IP) ? CALL_HANDLE_IPV4 : CALL_HANDLE_IPV6);
}
