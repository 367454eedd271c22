// SPDX-License-Identifier: GPL-2.0-only
/* The chain's first step for IPv4: parse, then admission. */
#include "lib/feature/admission.h"
#include "lib/feature/takeover.h"
#include "lib/mechanism/chain.h"

/* RFC 791, 3.1 */
enum {
	IP_OPTION_END = 0,
	IP_OPTION_NOP = 1,
	IP_OPTION_LSRR = 131,
	IP_OPTION_SSRR = 137,
	IP_OPTIONS_MAX = 40,
};

/* What an option is: its length, or one of these. */
enum {
	IP_OPTION_NONE = 0, /* there are no more that the kernel would read */
	IP_OPTION_ROUTE = 256,
};

/* Reads the option at an offset. Global: it is verified once, not once for each option before it. */
__weak __noinline int ip_option_read(struct __sk_buff *skb, __u32 offset)
{
	__u8 option[2] = {};

	if (bpf_skb_load_bytes(skb, offset, option, sizeof(option)))
		return IP_OPTION_NONE;
	if (option[0] == IP_OPTION_LSRR || option[0] == IP_OPTION_SSRR)
		return IP_OPTION_ROUTE;
	if (option[0] == IP_OPTION_NOP)
		return 1;
	return option[0] == IP_OPTION_END || option[1] < 2 ? IP_OPTION_NONE : option[1];
}

/* Whether the header has a source route; `length` is that of its options. */
static __noinline int has_source_route(struct __sk_buff *skb, __u32 length)
{
	__u32 at = 0;

	for (int i = 0; i < IP_OPTIONS_MAX; i++) {
		if (at >= length)
			return 0;

		int option = ip_option_read(skb, ETH_HLEN + sizeof(struct iphdr) + at);

		if (option == IP_OPTION_ROUTE)
			return 1;
		if (option == IP_OPTION_NONE)
			return 0;
		at += option;
	}
	return 0;
}

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
	if (header > sizeof(ip) && packet->hook.sender == PARTY_ENDPOINT &&
	    has_source_route(skb, header - sizeof(ip)))
		return -REASON_SOURCE_ROUTE;
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
