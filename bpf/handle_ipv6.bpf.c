// SPDX-License-Identifier: GPL-2.0-only
/* The chain's first step for IPv6: parse, then admission. */
#include "lib/feature/admission.h"
#include "lib/feature/takeover.h"
#include "lib/mechanism/chain.h"
#include "lib/mechanism/ipv6.h"

static __always_inline __u32 link_local_identity(const struct packet *packet, const struct address *address)
{
	const struct ipcache_entry *owner =
		address_is_link_local(address) ? packet_owner(packet, address) : 0;

	return owner ? owner->id : 0;
}

/* Events find identities by the ipcache alone, which does not have what was learnt of this link. */
static __always_inline void note_link_owners(struct packet *packet)
{
	if (!packet->sender_identity)
		packet->sender_identity = link_local_identity(packet, &packet->headers.tuple.source);
	packet->receiver_identity = link_local_identity(packet, &packet->headers.tuple.destination);
}

static __always_inline __must_check int parse(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -REASON_INVALID_PACKET;

	__u32 total = sizeof(ip) + bpf_ntohs(ip.payload_len);

	if (!ip.payload_len && skb->gso_segs)
		total = packet->frame_length; /* more than 64 KiB before segmentation: RFC 2675, BIG TCP */
	if (ip.version != 6 || total > packet->frame_length)
		return -REASON_INVALID_PACKET;
	packet->headers.family = 6;
	packet->headers.length = total;
	packet->headers.hop_limit = ip.hop_limit;
	packet->headers.tuple.source = address_from_ipv6(&ip.saddr);
	packet->headers.tuple.destination = address_from_ipv6(&ip.daddr);
	if (address_is_mapped(&packet->headers.tuple.source) ||
	    address_is_mapped(&packet->headers.tuple.destination))
		return -REASON_INVALID_PACKET; /* our tables would take it for IPv4 */
	if (flow_tuple_is_scoped(&packet->headers.tuple))
		return -REASON_INVALID_PACKET; /* and this for one of another link */
	flow_tuple_scope(&packet->headers.tuple,
			 packet->hook.sender == PARTY_ENDPOINT ? &packet->headers.tuple.source
							       : &packet->headers.tuple.destination,
			 packet->link_ifindex);
	note_link_owners(packet);

	struct ipv6_walk walk = { .offset = ETH_HLEN + sizeof(ip), .protocol = ip.nexthdr };
	int result = ipv6_walk(skb, &walk);

	if (result)
		return result;
	if (walk.is_source_routed && packet->hook.sender == PARTY_ENDPOINT)
		return -REASON_SOURCE_ROUTE;
	if (walk.offset > ETH_HLEN + total)
		return -REASON_INVALID_PACKET;
	packet->headers.transport = walk.offset;
	packet->headers.fragment = walk.fragment;
	packet->headers.fragment_id = walk.fragment_id;
	packet->headers.tuple.protocol = walk.protocol;
	if (packet->headers.fragment == FRAGMENT_LATER)
		return 0;
	return packet_parse_transport(skb, packet);
}

/* A workload's neighbour solicitation gets a response, and is not forwarded. */
static __always_inline int is_solicitation(const struct packet *packet)
{
	return packet->hook.sender == PARTY_ENDPOINT && packet->headers.tuple.protocol == IPPROTO_ICMPV6 &&
	       packet->headers.fragment == FRAGMENT_NONE &&
	       packet->headers.icmp_type == ND_NEIGHBOUR_SOLICITATION &&
	       packet->headers.hop_limit == ND_HOP_LIMIT;
}

SEC("tc")
int tail_handle_ipv6(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int result = parse(skb, packet);

	if (!result && is_solicitation(packet))
		return step_finish(skb, packet, ACTION_CONTINUE, STEP_NEIGHBOUR);
	if (!result)
		result = admit_check(skb, packet);
	if (!result)
		takeover_flow(skb, packet, &packet->headers.tuple);
	return step_finish(skb, packet, result, admit_next_step(packet));
}
