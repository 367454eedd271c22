/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading headers. Above this file (and ipv6.h) nobody reads network and transport headers. Two readers, since packets come in
 * two forms:
 *
 *	linear_*	through pointers, where the headers are in the linear part: fast path and XDP
 *	packet_parse_*	through helpers, wherever the bytes are: the chain
 */
#ifndef DPD_PARSE_H
#define DPD_PARSE_H

#include "packet.h"

/* -- Protocols ------------------------------------------------------------------------------------------------------ */

/* Every transport protocol whose first four bytes are its ports. */
static __always_inline int protocol_has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline int icmp_is_echo(__u8 family, __u8 type)
{
	if (family == 6)
		return type == ICMPV6_ECHO_REQUEST || type == ICMPV6_ECHO_REPLY;
	return type == ICMP_ECHO || type == ICMP_ECHOREPLY;
}

/* Unreachable, too big, time exceeded, parameter problem: they quote a packet of the connection that they belong to. */
static __always_inline int icmp_quotes(__u8 family, __u8 type)
{
	if (family == 6)
		return type >= 1 && type <= 4;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

/* No error is sent in response to these (RFC 1122, 3.2.2). */
static __always_inline int icmp_is_error(__u8 family, __u8 type)
{
	return icmp_quotes(family, type) ||
	       (family == 4 && (type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT));
}

/* The identifier of an echo is the port of the side that sends requests. */
static __always_inline void flow_tuple_set_echo(struct flow_tuple *tuple, __u8 type, __be16 id)
{
	if (type == ICMP_ECHO || type == ICMPV6_ECHO_REQUEST)
		tuple->source_port = id;
	else if (type == ICMP_ECHOREPLY || type == ICMPV6_ECHO_REPLY)
		tuple->destination_port = id;
}

/* -- The linear part ------------------------------------------------------------------------------------------------ */

struct linear_headers {
	struct flow_tuple tuple;
	__u32 length; /* from the network header on, by that header */
	__u32 transport; /* offset of the transport header in the frame */
	__u32 to_payload; /* bytes from the network header to the payload, if there are ports */
	struct tcp_segment tcp; /* zero for other protocols */
	__u8 family;
};

/* Reads a whole TCP header; `payload` is the number of bytes behind it. */
static __always_inline void tcp_segment_parse(struct tcp_segment *tcp, const __u8 *header, __u32 payload)
{
	tcp->flags = header[13];
	tcp->seq = bpf_ntohl(*(__be32 *)(header + 4));
	tcp->ack = bpf_ntohl(*(__be32 *)(header + 8));
	tcp->end = tcp->seq + payload + (tcp->flags & TCP_FIN) + ((tcp->flags & TCP_SYN) >> 1);
}

/* Reads a fixed header that is all there; not zero if it is consistent with itself and the `available` bytes. */
static __always_inline int linear_parse_ipv4(struct linear_headers *headers, const struct iphdr *ip,
					     __u64 available)
{
	headers->family = 4;
	headers->length = bpf_ntohs(ip->tot_len);
	headers->transport = ETH_HLEN + ip->ihl * 4;
	headers->tuple.source = address_from_ipv4(ip->saddr);
	headers->tuple.destination = address_from_ipv4(ip->daddr);
	headers->tuple.protocol = ip->protocol;
	return ip->version == 4 && ip->ihl >= 5 && headers->length >= ip->ihl * 4 &&
	       headers->length <= available;
}

/* The same for IPv6; extension headers count as an unknown transport. */
static __always_inline int linear_parse_ipv6(struct linear_headers *headers, const struct ipv6hdr *ip,
					     __u64 available)
{
	headers->family = 6;
	headers->length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	headers->transport = ETH_HLEN + sizeof(*ip);
	headers->tuple.source = address_from_ipv6(&ip->saddr);
	headers->tuple.destination = address_from_ipv6(&ip->daddr);
	headers->tuple.protocol = ip->nexthdr;
	return ip->version == 6 && headers->length <= available;
}

/*
 * Ports, TCP flags and the offset of the payload. Zero if the header is cut short, contradicts itself, or has no ports.
 * `left` is what the network header says that there is from `transport` on.
 */
static __always_inline int linear_parse_ports(struct linear_headers *headers, const __u8 *transport,
					      const __u8 *end, __s32 left)
{
	__u32 length = sizeof(struct udphdr); /* SCTP's is longer; nothing beyond its ports is read */

	if (!protocol_has_ports(headers->tuple.protocol))
		return 0;
	if (headers->tuple.protocol == IPPROTO_TCP) {
		if (transport + sizeof(struct tcphdr) > end || (transport[12] >> 4) < 5)
			return 0;
		length = (transport[12] >> 4) * 4;
		tcp_segment_parse(&headers->tcp, transport, left - length);
	} else if (transport + sizeof(struct udphdr) > end) {
		return 0;
	}
	if (left < (__s32)length)
		return 0;
	headers->to_payload = headers->transport - ETH_HLEN + length;
	headers->tuple.source_port = *(__be16 *)transport;
	headers->tuple.destination_port = *(__be16 *)(transport + 2);
	return 1;
}

/* The identifier of an echo. Zero if it is cut short or another ICMP type. */
static __always_inline int linear_parse_echo(struct linear_headers *headers, const __u8 *transport,
					     const __u8 *end, __s32 left)
{
	if (headers->tuple.protocol != (headers->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return 0;
	if (transport + sizeof(struct icmphdr) > end || left < (__s32)sizeof(struct icmphdr) ||
	    !icmp_is_echo(headers->family, transport[0]))
		return 0;
	flow_tuple_set_echo(&headers->tuple, transport[0], *(__be16 *)(transport + 4));
	return 1;
}

/* -- The chain's packet --------------------------------------------------------------------------------------------- */

static __always_inline int packet_is_icmp(const struct packet *packet)
{
	return packet->headers.tuple.protocol ==
	       (packet->headers.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline int packet_is_echo_request(const struct packet *packet)
{
	return packet_is_icmp(packet) && packet->headers.fragment != FRAGMENT_LATER &&
	       packet->headers.icmp_type == (packet->headers.family == 4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST);
}

static __always_inline int packet_is_icmp_error(const struct packet *packet)
{
	return packet_is_icmp(packet) && packet->headers.fragment != FRAGMENT_LATER &&
	       icmp_is_error(packet->headers.family, packet->headers.icmp_type);
}

/* Reads ports, flags and types of the transport header; minus a reason if it is cut short or contradicts itself. */
static __noinline __must_check int packet_parse_transport(struct __sk_buff *skb, struct packet *packet)
{
	struct packet_headers *headers = &packet->headers;
	struct flow_tuple *tuple = &headers->tuple;
	__u32 left = headers->length - (headers->transport - ETH_HLEN);
	__u32 to_payload = headers->transport - ETH_HLEN + sizeof(struct udphdr);
	__u8 header[16] __attribute__((aligned(8)));

	switch (tuple->protocol) {
	case IPPROTO_TCP:
		if (left < sizeof(struct tcphdr) || bpf_skb_load_bytes(skb, headers->transport, header, 14))
			return -REASON_INVALID_PACKET;
		if ((header[12] >> 4) < 5 || (header[12] >> 4) * 4 > left)
			return -REASON_INVALID_PACKET;
		tcp_segment_parse(&headers->tcp, header, left - (header[12] >> 4) * 4);
		to_payload = headers->transport - ETH_HLEN + (header[12] >> 4) * 4;
		break;
	case IPPROTO_UDP:
		if (left < sizeof(struct udphdr) || bpf_skb_load_bytes(skb, headers->transport, header, 8))
			return -REASON_INVALID_PACKET;
		break;
	case IPPROTO_SCTP:
		if (left < 12 || bpf_skb_load_bytes(skb, headers->transport, header, 12))
			return -REASON_INVALID_PACKET;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!packet_is_icmp(packet))
			return -REASON_INVALID_PACKET; /* the other family's */
		if (left < 8 || bpf_skb_load_bytes(skb, headers->transport, header, 8))
			return -REASON_INVALID_PACKET;
		headers->icmp_type = header[0];
		headers->icmp_code = header[1];
		if (icmp_is_echo(headers->family, header[0]))
			flow_tuple_set_echo(tuple, header[0], *(__be16 *)(header + 4));
		return 0;
	default:
		return 0;
	}
	headers->to_payload = to_payload;
	tuple->source_port = *(__be16 *)header;
	tuple->destination_port = *(__be16 *)(header + 2);
	return 0;
}

#endif
