// SPDX-License-Identifier: GPL-2.0-only
/*
 * The earliest look at what comes from the network: XDP of an uplink, attached while a prefilter has prefixes.
 *
 *	NIC -> dpd_xdp_entry -+- from a denied prefix: drop, before an skb exists
 *			      +- malformed: counted, and on to tc, which names what is wrong with it
 *			      +- else: on to tc
 */
#include "lib/feature/prefilter.h"
#include "lib/mechanism/vlan.h"

/* What a frame turns out to be. */
enum xdp_packet_kind {
	XDP_PACKET_IP = 0,
	XDP_PACKET_OTHER = 1, /* no IP, or no sender that a prefix could name */
	XDP_PACKET_MALFORMED = 2, /* a header that is cut short, or contradicts itself or its frame */
};

/* Ports are for the event alone: where they can't be read, they stay zero. */
static __always_inline void xdp_packet_parse_ports(struct linear_headers *packet, const void *network,
						   const void *end)
{
	__u32 length = packet->transport - ETH_HLEN;

	(void)linear_parse_ports(packet, network + (length & 0x3f), end,
				 (__s32)packet->length - (__s32)length);
}

static __always_inline enum xdp_packet_kind
xdp_packet_parse_ipv4(const struct iphdr *ip, const void *end, __u64 available, struct linear_headers *packet)
{
	if ((void *)(ip + 1) > end || !linear_parse_ipv4(packet, ip, available))
		return XDP_PACKET_MALFORMED;
	if (!(ip->frag_off & bpf_htons(IP4_OFFSET)))
		xdp_packet_parse_ports(packet, ip, end);
	return XDP_PACKET_IP;
}

static __always_inline enum xdp_packet_kind xdp_packet_parse_ipv6(const struct ipv6hdr *ip, const void *end,
								  __u64 available,
								  struct linear_headers *packet)
{
	if ((void *)(ip + 1) > end || !linear_parse_ipv6(packet, ip, available))
		return XDP_PACKET_MALFORMED;
	xdp_packet_parse_ports(packet, ip, end);
	return address_is_mapped(&packet->tuple.source) ? XDP_PACKET_OTHER : XDP_PACKET_IP;
}

static __always_inline enum xdp_packet_kind xdp_packet_parse(struct xdp_md *xdp,
							     struct linear_headers *packet)
{
	const __u8 *data = (void *)(long)xdp->data;
	const __u8 *end = (void *)(long)xdp->data_end;
	const struct ethhdr *eth = (void *)data;
	__u64 available = bpf_xdp_get_buff_len(xdp) - sizeof(*eth);

	const void *network = eth + 1;
	__be16 ethertype;

	if (network > (void *)end)
		return XDP_PACKET_MALFORMED;
	ethertype = eth->h_proto;
	for (int i = 0; i < VLAN_TAGS_MAX && is_vlan_ethertype(ethertype); i++) {
		const struct vlan_tag *tag = network;

		if ((void *)(tag + 1) > (void *)end)
			return XDP_PACKET_MALFORMED;
		if (bpf_ntohs(tag->tci) & VLAN_ID_MASK)
			return XDP_PACKET_OTHER; /* of the VLAN's own interface */
		ethertype = tag->ethertype;
		network = tag + 1;
		available -= sizeof(*tag);
	}
	if (ethertype == bpf_htons(ETH_P_IP))
		return xdp_packet_parse_ipv4(network, end, available, packet);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return xdp_packet_parse_ipv6(network, end, available, packet);
	return XDP_PACKET_OTHER;
}

/* Frames in several buffers are accepted: an uplink with an MTU of 9000 may have them. */
SEC("xdp.frags")
int dpd_xdp_entry(struct xdp_md *xdp)
{
	struct linear_headers packet = {};
	__u64 epoch = generation_live_epoch();
	__u32 ifindex = xdp->ingress_ifindex;
	enum xdp_packet_kind kind = xdp_packet_parse(xdp, &packet);

	if (kind == XDP_PACKET_MALFORMED)
		counter_add(COUNTER_XDP_MALFORMED, 1);
	if (kind != XDP_PACKET_IP)
		return XDP_PASS;

	const struct prefilter *denied = prefilter_find(generation_slot(epoch), &packet.tuple.source);

	if (!denied)
		return XDP_PASS;
	prefilter_drop(denied, &packet, ifindex);
	prefilter_report(&packet, HOOK_XDP_ENTRY, ifindex, epoch, bpf_ktime_get_ns());
	return XDP_DROP;
}
