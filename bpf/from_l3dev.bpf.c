// SPDX-License-Identifier: GPL-2.0-only
/*
 * What comes from the network by an uplink without Ethernet headers (lib/mechanism/l3.h): its tc ingress. The prefilter is here,
 * since generic XDP runs no earlier on such a device, and native XDP there is none.
 *
 *	tunnel -> dpd_from_l3dev -+- from a denied prefix: drop
 *				  +- not to a workload: pass, untouched
 *				  +- gets an Ethernet header -+- fast path: NAT, straight to the workload's veth
 *							      +- tail_handle_ipv4, _ipv6
 */
#include "lib/feature/from_network.h"
#include "lib/feature/prefilter.h"
#include "lib/feature/uplink.h"
#include "lib/mechanism/l3.h"

static __always_inline int is_denied(const struct linear_headers *headers, enum l3_packet_kind kind,
				     __u32 ifindex, __u64 epoch)
{
	__u32 slot = generation_slot(epoch);
	const struct uplink *uplink = uplink_find(slot, ifindex);

	if (!uplink || !uplink->prefilters)
		return 0;
	if (kind >= L3_PACKET_MALFORMED)
		counter_add(COUNTER_XDP_MALFORMED, 1);
	if (kind != L3_PACKET_IP)
		return 0;

	const struct prefilter *denied = prefilter_find(slot, &headers->tuple.source);

	if (!denied)
		return 0;
	prefilter_drop(denied, headers, ifindex);
	prefilter_report(headers, HOOK_FROM_L3DEV, ifindex, epoch, bpf_ktime_get_ns());
	return 1;
}

/* What a connection's entry says of the packet, if it has ports; an echo's or a fragment's is for the chain to find. */
static __always_inline int seen_of(const struct linear_headers *headers)
{
	if (!headers->to_payload)
		return SEEN_NOTHING;

	const struct ct_entry *entry = ct_find(&headers->tuple);

	return entry && ct_is_at_host(entry) ? SEEN_TRANSLATED : SEEN_NO_ENTRY;
}

/* Whether the packet is, or may be, for a workload or a service: the host's own stay as they are. */
static __noinline int is_ours(const struct linear_headers *headers, __u64 epoch)
{
	__u32 slot = generation_slot(epoch);
	const struct flow_tuple *tuple = &headers->tuple;
	enum receiver receiver = receiver_of_address(slot, &tuple->destination, seen_of(headers));

	return receiver == RECEIVER_BY_PORT ? service_is_external(slot, tuple) : receiver != RECEIVER_OTHER;
}

SEC("tc")
int dpd_from_l3dev(struct __sk_buff *skb)
{
	struct linear_headers headers = {};
	__u64 epoch = generation_live_epoch();

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return HOOK_NEXT;

	enum l3_packet_kind kind = l3_parse(skb, &headers);

	if (kind == L3_PACKET_UNREADABLE && !l3_pull(skb))
		kind = l3_parse(skb, &headers);
	if (is_denied(&headers, kind, skb->ifindex, epoch))
		return TC_ACT_SHOT;
	if (kind == L3_PACKET_UNREADABLE || skb->pkt_type != PACKET_HOST || !is_ours(&headers, epoch))
		return HOOK_NEXT;
	/* By the stack, whose packets for workloads meet dpd_to_container. */
	if (l3_push_ethernet(skb))
		return HOOK_NEXT;
	return from_network(skb, HOOK_FROM_L3DEV, epoch);
}
