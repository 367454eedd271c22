// SPDX-License-Identifier: GPL-2.0-only
/* The chain's first step for IPv4: the header is read, and what is no business of services is settled. */
#include "lib/chain.h"
#include "lib/entrance.h"

static __always_inline __must_check int parse(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -REASON_INVALID_PACKET;

	__u32 header = ip.ihl * 4, total = bpf_ntohs(ip.tot_len);
	__u16 fragment = bpf_ntohs(ip.frag_off);

	if (!total && skb->gso_segs)
		total = packet->length; /* more than 64 KiB before segmentation: IPv4 BIG TCP */
	if (ip.version != 4 || header < sizeof(ip) || total < header || total > packet->length)
		return -REASON_INVALID_PACKET;
	packet->family = 4;
	packet->length = total;
	packet->transport = ETH_HLEN + header;
	packet->hop_limit = ip.ttl;
	packet->fragment_id = ip.id;
	packet->may_fragment = !(fragment & IP4_DF);
	if (fragment & IP4_OFFSET)
		packet->fragment = FRAGMENT_LATER;
	else if (fragment & IP4_MF)
		packet->fragment = FRAGMENT_FIRST;
	packet->tuple.source = address_from_ipv4(ip.saddr);
	packet->tuple.destination = address_from_ipv4(ip.daddr);
	packet->tuple.protocol = ip.protocol;
	if (packet->fragment == FRAGMENT_LATER)
		return 0;
	return packet_parse_transport(skb, packet);
}

SEC("tc")
int tail_handle_ipv4(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int answer = parse(skb, packet);

	if (!answer)
		answer = entrance_check(skb, packet);
	if (!answer)
		former_serve(skb, packet, &packet->tuple);
	return finish(skb, packet, answer, entrance_next(packet));
}
