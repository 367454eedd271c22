// SPDX-License-Identifier: GPL-2.0-only
/* The chain's first step for IPv4: parse, then admission. */
#include "lib/feature/admission.h"
#include "lib/feature/takeover.h"
#include "lib/mechanism/chain.h"

static __always_inline __must_check int parse(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -REASON_INVALID_PACKET;

	__u32 header = ip.ihl * 4, total = bpf_ntohs(ip.tot_len);
	__u16 fragment = bpf_ntohs(ip.frag_off);

	if (!total && skb->gso_segs)
		total = packet->frame_length; /* more than 64 KiB before segmentation: IPv4 BIG TCP */
	if (ip.version != 4 || header < sizeof(ip) || total < header || total > packet->frame_length)
		return -REASON_INVALID_PACKET;
	packet->headers.family = 4;
	packet->headers.length = total;
	packet->headers.transport = ETH_HLEN + header;
	packet->headers.hop_limit = ip.ttl;
	packet->headers.fragment_id = ip.id;
	packet->headers.may_fragment = !(fragment & IP4_DF);
	if (fragment & IP4_OFFSET)
		packet->headers.fragment = FRAGMENT_LATER;
	else if (fragment & IP4_MF)
		packet->headers.fragment = FRAGMENT_FIRST;
	packet->headers.tuple.source = address_from_ipv4(ip.saddr);
	packet->headers.tuple.destination = address_from_ipv4(ip.daddr);
	packet->headers.tuple.protocol = ip.protocol;
	if (packet->headers.fragment == FRAGMENT_LATER)
		return 0;
	return packet_parse_transport(skb, packet);
}

SEC("tc")
int tail_handle_ipv4(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int result = parse(skb, packet);

	if (!result)
		result = admit_check(skb, packet);
	if (!result)
		takeover_flow(skb, packet, &packet->headers.tuple);
	return step_finish(skb, packet, result, admit_next_step(packet));
}
