// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the host's own stack sends to a workload: tc egress of the host's side of its veth. What our other hooks have
 * delivered here carries our mark and passes.
 *
 *	host -> veth -> dpd_to_container -+- marked: pass
 *					  +- fast path: NAT, pass
 *					  +- no endpoint: pass if unmanaged, else drop below
 *					  +- no IP: pass
 *					  +- tail_handle_ipv4, _ipv6
 */
#include "lib/feature/asked.h"
#include "lib/feature/endpoint.h"
#include "lib/feature/fastpath.h"
#include "lib/feature/takeover.h"
#include "lib/feature/unmanaged.h"
#include "lib/mechanism/chain.h"
#include "lib/mechanism/vlan.h"

/*
 * Whether a hook of ours has judged the packet and sent it here: our mark, on what arrived at an interface of this host. What
 * the host's own sockets send has arrived nowhere, whatever mark they give it.
 */
static __always_inline int is_judged(const struct __sk_buff *skb)
{
	return skb->mark && skb->ingress_ifindex && mark_is_ours(skb->mark);
}

/* ARP, and whatever else the host sends that is no IP. */
static __noinline int pass_other(const struct __sk_buff *skb, __u64 epoch)
{
	const struct endpoint *endpoint = endpoint_find(generation_slot(epoch), skb->ifindex);

	if (!endpoint)
		return ACTION_CONTINUE;
	endpoint_counters_add(endpoint->counters_index, DIRECTION_INGRESS, skb->len - ETH_HLEN);
	return ACTION_PASS;
}

/* A judged packet of which nothing is known any more but where it goes: it may be a copy for another interface. */
static __noinline int leave_uncounted(struct __sk_buff *skb)
{
	__u32 slot = generation_slot(generation_live_epoch());
	struct address to = {};
	__be32 ipv4;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &ipv4, sizeof(ipv4)))
			return ASKED_COPY;
		to = address_from_ipv4(ipv4);
	} else if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &to, sizeof(to))) {
		return ASKED_COPY;
	}
	return endpoint_has_address(slot, skb->ifindex, &to) ? ASKED_LEAVES : ASKED_COPY;
}

SEC("tc")
int dpd_to_container(struct __sk_buff *skb)
{
	if (is_judged(skb)) {
		__u32 row = mark_row(skb->mark);
		int result =
			row ? asked_leave(row, skb->ifindex, skb->hash, bpf_ktime_get_ns()) : ASKED_LEAVES;

		skb->mark = 0;
		if (result == ASKED_LOST)
			result = leave_uncounted(skb);
		if (result != ASKED_UNKNOWN)
			return result == ASKED_LEAVES ? HOOK_NEXT : TC_ACT_SHOT;
	}
	/* A bridge or a packet socket may send one: the workload takes such a frame for an untagged one. */
	if (unlikely(vlan_is_tagged(skb)))
		vlan_untag_priority(skb);

	__u64 epoch = generation_live_epoch();

	int is_ip = skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
	int seen, result = is_ip ? fastpath(skb, HOOK_TO_CONTAINER, epoch, &seen) : pass_other(skb, epoch);

	if (likely(result == ACTION_PASS))
		return HOOK_NEXT;

	takeover_all(skb, HOOK_TO_CONTAINER, epoch);

	struct packet *packet = packet_init(skb, HOOK_TO_CONTAINER, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* a per-CPU array always has its row 0 */

	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);

	if (endpoint)
		packet_set_endpoint(packet, endpoint);
	else if (is_unmanaged(packet->ifindex, epoch))
		return HOOK_NEXT;
	else if (!is_ip)
		result = -REASON_NO_CONFIGURATION;
	return step_finish(skb, packet, result,
			   skb->protocol == bpf_htons(ETH_P_IP) ? STEP_HANDLE_IPV4 : STEP_HANDLE_IPV6);
}
