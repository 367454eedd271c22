/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The packet as the chain knows it: read from the wire once, handed from step to step in a per-CPU record. Above this
 * file nobody reads headers of the network and transport layers.
 */
#ifndef DPD_PACKET_H
#define DPD_PACKET_H

#include "address.h"

enum fragment_kind {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2, /* has no transport header */
};

/* What is to be sent back to the workload instead of the packet. */
enum answer_kind {
	ANSWER_NONE = 0,
	ANSWER_PORT_UNREACHABLE = 1,
	ANSWER_TIME_EXCEEDED = 2,
	ANSWER_RESET = 3,
	ANSWER_ECHO = 4,
	ANSWER_TOO_BIG = 5,
};

/* One end of a connection as the tables know it. */
struct end {
	struct identity identity;
	struct endpoint endpoint; /* if identity.place is PLACE_ENDPOINT */
};

struct packet {
	__u64 now_ns;
	__u64 now_ticks;
	__u64 epoch;
	__u32 slot;
	__u32 ifindex;
	__u32 row; /* of the workload that sent it, in dpd_traffic; 0: it came from elsewhere */
	__u32 length; /* from the network header on */
	__u16 network; /* offset of the network header */
	__u16 transport; /* and of what it carries */
	__u32 fragment_id;
	__u8 hook;
	__u8 family; /* 4 or 6 */
	__u8 hop_limit;
	__u8 fragment;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 answer;
	__u8 found; /* connection holds an entry of the table */
	__u8 unanswered; /* of the table of those that nobody has answered */
	__u8 current; /* and its verdict is of the live configuration */
	__u8 audit; /* the reason for which policy would have dropped it */
	__u8 direction; /* the side of policy that it meets; the hook's, until the receiver's is asked */
	__u8 may_fragment; /* IPv4 without DF: the kernel may cut it */
	__u8 due; /* it is to be reported */
	__u8 pad;
	__u16 mtu; /* of the route that it is too big for */
	__u16 segment; /* bytes from the network header to the payload, and of one segment's payload */
	__s32 service_answer; /* why no backend can be chosen; 0: one was, or there is no service */
	__u32 service; /* that it was sent to; 0: none */
	__u32 first_slot; /* of the service */
	__u32 slot_count;
	__u32 drawn_slot;
	__u32 drawn_backend;
	__u32 counted_egress_rule; /* the connection is one of their hits already */
	__u32 counted_ingress_rule;
	struct tuple tuple; /* as it came */
	struct tuple beginning; /* client to backend, as policy sees it: whichever side sent this packet */
	struct connection connection; /* a copy of this direction's entry, or the entry to be made */
	struct connection twin;
	struct end source; /* of `beginning` */
	struct end destination;
};

/* Each load of the programs has its own, so that old and new steps never read each other's record. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} dpd_scratch __weak SEC(".maps");

static __always_inline struct packet *packet_record(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&dpd_scratch, &zero);
}

/* Every transport protocol whose first four bytes are its ports. */
static __always_inline int protocol_has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline int packet_is_icmp(const struct packet *packet)
{
	return packet->tuple.protocol == (packet->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline int packet_is_echo_request(const struct packet *packet)
{
	return packet_is_icmp(packet) && packet->fragment != FRAGMENT_LATER &&
	       packet->icmp_type == (packet->family == 4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST);
}

/* Unreachable, too big, time exceeded, parameter problem: they are about a packet of a connection, which they quote. */
static __always_inline int icmp_quotes(__u8 family, __u8 type)
{
	if (family == 6)
		return type >= 1 && type <= 4;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

/* What no error may answer (RFC 1122, 3.2.2). */
static __always_inline int icmp_is_error(__u8 family, __u8 type)
{
	return icmp_quotes(family, type) ||
	       (family == 4 && (type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT));
}

static __always_inline int packet_is_icmp_error(const struct packet *packet)
{
	return packet_is_icmp(packet) && packet->fragment != FRAGMENT_LATER &&
	       icmp_is_error(packet->family, packet->icmp_type);
}

/* The identifier of an echo is the port of the side that asks. */
static __always_inline void tuple_set_echo(struct tuple *tuple, __u8 type, __be16 id)
{
	if (type == ICMP_ECHO || type == ICMPV6_ECHO_REQUEST)
		tuple->source_port = id;
	else if (type == ICMP_ECHOREPLY || type == ICMPV6_ECHO_REPLY)
		tuple->destination_port = id;
}

static __always_inline int icmp_is_echo(__u8 family, __u8 type)
{
	if (family == 6)
		return type == ICMPV6_ECHO_REQUEST || type == ICMPV6_ECHO_REPLY;
	return type == ICMP_ECHO || type == ICMP_ECHOREPLY;
}

/* Takes ports, flags and types from the transport header; minus a reason if it is cut short or contradicts itself. */
static __noinline __must_check int packet_parse_transport(struct __sk_buff *skb, struct packet *packet)
{
	__u32 left = packet->length - (packet->transport - packet->network);
	struct tuple *tuple = &packet->tuple;
	__u8 header[16] __attribute__((aligned(8)));

	switch (tuple->protocol) {
	case IPPROTO_TCP:
		if (left < sizeof(struct tcphdr) || bpf_skb_load_bytes(skb, packet->transport, header, 14))
			return -REASON_INVALID_PACKET;
		if ((header[12] >> 4) < 5 || (header[12] >> 4) * 4 > left)
			return -REASON_INVALID_PACKET;
		packet->tcp_flags = header[13];
		packet->segment = packet->transport - packet->network + (header[12] >> 4) * 4;
		break;
	case IPPROTO_UDP:
		if (left < sizeof(struct udphdr) || bpf_skb_load_bytes(skb, packet->transport, header, 8))
			return -REASON_INVALID_PACKET;
		break;
	case IPPROTO_SCTP:
		if (left < 12 || bpf_skb_load_bytes(skb, packet->transport, header, 12))
			return -REASON_INVALID_PACKET;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!packet_is_icmp(packet))
			return -REASON_INVALID_PACKET; /* the other family's */
		if (left < 8 || bpf_skb_load_bytes(skb, packet->transport, header, 8))
			return -REASON_INVALID_PACKET;
		packet->icmp_type = header[0];
		packet->icmp_code = header[1];
		if (icmp_is_echo(packet->family, header[0]))
			tuple_set_echo(tuple, header[0], *(__be16 *)(header + 4));
		return 0;
	default:
		return 0;
	}
	if (!packet->segment)
		packet->segment = packet->transport - packet->network + sizeof(struct udphdr);
	tuple->source_port = *(__be16 *)header;
	tuple->destination_port = *(__be16 *)(header + 2);
	return 0;
}

#endif
