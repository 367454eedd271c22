// SPDX-License-Identifier: GPL-2.0-only
/* The chain's first step for IPv6: the headers are read, and what is no business of services is settled. */
#include "lib/chain.h"
#include "lib/entrance.h"
#include "lib/ipv6.h"

static __always_inline __must_check int parse(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -REASON_INVALID_PACKET;

	__u32 total = sizeof(ip) + bpf_ntohs(ip.payload_len);

	if (!ip.payload_len && skb->gso_segs)
		total = packet->length; /* more than 64 KiB before segmentation: RFC 2675, BIG TCP */
	if (ip.version != 6 || total > packet->length)
		return -REASON_INVALID_PACKET;
	packet->family = 6;
	packet->length = total;
	packet->hop_limit = ip.hop_limit;
	packet->tuple.source = address_from_ipv6(&ip.saddr);
	packet->tuple.destination = address_from_ipv6(&ip.daddr);
	if (address_is_mapped(&packet->tuple.source) || address_is_mapped(&packet->tuple.destination))
		return -REASON_INVALID_PACKET; /* our tables would take it for IPv4 */

	struct ipv6_walk walk = { .offset = ETH_HLEN + sizeof(ip), .protocol = ip.nexthdr };
	int answer = ipv6_walk(skb, &walk);

	if (answer)
		return answer;
	if (walk.offset > ETH_HLEN + total)
		return -REASON_INVALID_PACKET;
	packet->transport = walk.offset;
	packet->fragment = walk.fragment;
	packet->fragment_id = walk.fragment_id;
	packet->tuple.protocol = walk.protocol;
	if (packet->fragment == FRAGMENT_LATER)
		return 0;
	return packet_parse_transport(skb, packet);
}

/* A workload asks for a neighbour: that is answered, not forwarded. */
static __always_inline int is_solicitation(const struct packet *packet)
{
	return packet->hook == HOOK_FROM_CONTAINER && packet->tuple.protocol == IPPROTO_ICMPV6 &&
	       packet->fragment == FRAGMENT_NONE && packet->icmp_type == ND_NEIGHBOUR_SOLICITATION &&
	       packet->hop_limit == ND_HOP_LIMIT;
}

SEC("tc")
int tail_handle_ipv6(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int answer = parse(skb, packet);

	if (!answer && is_solicitation(packet))
		return finish(skb, packet, ACTION_CONTINUE, CALL_NEIGHBOUR);
	if (!answer)
		answer = entrance_check(skb, packet);
	if (!answer)
		former_serve(skb, packet, &packet->tuple);
	return finish(skb, packet, answer, entrance_next(packet));
}
