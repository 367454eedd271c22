/* SPDX-License-Identifier: GPL-2.0-only */
/* The packet that an ICMP error quotes: reading it, and reverse NAT of it, so that its sender recognises it. */
#ifndef DPD_ICMP_INNER_H
#define DPD_ICMP_INNER_H

#include "../mechanism/csum.h"
#include "../mechanism/ipv6.h"
#include "../mechanism/parse.h"
#include "link_local.h"

/* The packet inside the error. */
struct inner_packet {
	struct flow_tuple tuple;
	__u32 network;
	__u32 transport;
	__u32 tcp_seq; /* host byte order */
	__u32 length; /* from the network header on, by that header */
};

static __always_inline int inner_read_ipv4(struct __sk_buff *skb, struct inner_packet *inner)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, inner->network, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return 0;
	inner->tuple.source = address_from_ipv4(ip.saddr);
	inner->tuple.destination = address_from_ipv4(ip.daddr);
	inner->tuple.protocol = ip.protocol;
	inner->length = bpf_ntohs(ip.tot_len);
	inner->transport = inner->network + ip.ihl * 4;
	return !(ip.frag_off & bpf_htons(IP4_OFFSET)); /* a later fragment has no ports */
}

static __always_inline int inner_read_ipv6(struct __sk_buff *skb, const struct packet *packet,
					   struct inner_packet *inner)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, inner->network, &ip, sizeof(ip)) || ip.version != 6)
		return 0;

	struct ipv6_walk walk = { .offset = inner->network + sizeof(ip), .protocol = ip.nexthdr };

	if (ipv6_walk(skb, &walk) || walk.fragment == FRAGMENT_LATER)
		return 0;
	inner->tuple.source = address_from_ipv6(&ip.saddr);
	inner->tuple.destination = address_from_ipv6(&ip.daddr);
	if (flow_tuple_is_scoped(&inner->tuple))
		return 0; /* on the wire it is nobody's */
	flow_tuple_scope(&inner->tuple,
			 packet->hook.sender == PARTY_ENDPOINT ? &inner->tuple.destination
							       : &inner->tuple.source,
			 packet->link_ifindex);
	inner->length = sizeof(ip) + bpf_ntohs(ip.payload_len);
	inner->tuple.protocol = walk.protocol;
	inner->transport = walk.offset;
	return 1;
}

/* Zero if it is cut too short to identify its flow. */
static __noinline int inner_read(struct __sk_buff *skb, const struct packet *packet,
				 struct inner_packet *inner)
{
	__u8 header[8] __attribute__((aligned(8)));

	inner->network = packet->headers.transport + sizeof(struct icmphdr);
	if (packet->headers.family == 4 ? !inner_read_ipv4(skb, inner) : !inner_read_ipv6(skb, packet, inner))
		return 0;
	if (inner->tuple.protocol != IPPROTO_ICMP && inner->tuple.protocol != IPPROTO_ICMPV6 &&
	    !protocol_has_ports(inner->tuple.protocol))
		return 1;
	if (bpf_skb_load_bytes(skb, inner->transport, header, sizeof(header)))
		return 0;
	if (protocol_has_ports(inner->tuple.protocol)) {
		inner->tuple.source_port = *(__be16 *)header;
		inner->tuple.destination_port = *(__be16 *)(header + 2);
		inner->tcp_seq = bpf_ntohl(*(__be32 *)(header + 4));
	} else if (icmp_is_echo(packet->headers.family, header[0])) {
		flow_tuple_set_echo(&inner->tuple, header[0], *(__be16 *)(header + 4));
	}
	return 1;
}

/* Replaces bytes of the inner packet; the difference it makes to the ICMP checksum is added to *sum. */
static __always_inline __must_check int inner_store(struct __sk_buff *skb, __u32 offset, void *from, void *to,
						    __u32 size, __u32 *sum)
{
	*sum = bpf_csum_diff(from, size, to, size, *sum);
	return bpf_skb_store_bytes(skb, offset, to, size, 0) ? -REASON_INVALID_PACKET : 0;
}

/* The inner network header, with its own checksum. */
static __always_inline __must_check int inner_rewrite_network(struct __sk_buff *skb,
							      const struct packet *packet,
							      const struct inner_packet *inner,
							      const struct flow_tuple *sent, __u32 *sum)
{
	if (packet->headers.family == 4) {
		struct iphdr from, to;
		__u32 difference;

		if (bpf_skb_load_bytes(skb, inner->network, &from, sizeof(from)))
			return -REASON_INVALID_PACKET;
		to = from;
		to.saddr = address_to_ipv4(&sent->source);
		to.daddr = address_to_ipv4(&sent->destination);
		difference = bpf_csum_diff((__be32 *)&from.saddr, 8, (__be32 *)&to.saddr, 8, 0);
		to.check = csum_adjust(from.check, difference);
		return inner_store(skb, inner->network, &from, &to, sizeof(to), sum);
	}

	struct address from[2] = { inner->tuple.source, inner->tuple.destination };
	struct address to[2] = { sent->source, sent->destination };

	return inner_store(skb, inner->network + offsetof(struct ipv6hdr, saddr), from, to, sizeof(to), sum);
}

/* The identifier of an inner echo, and the checksum before it, which `difference` of the addresses changes in ICMPv6. */
static __always_inline __must_check int inner_rewrite_echo(struct __sk_buff *skb,
							   const struct inner_packet *inner,
							   const struct flow_tuple *sent, __u32 difference,
							   __u32 *sum)
{
	__u32 at = inner->transport + offsetof(struct icmphdr, checksum);
	__u16 words[2], renewed[2]; /* checksum, identifier */
	__be16 id = sent->source_port | sent->destination_port; /* one of them is zero */
	__be16 old = inner->tuple.source_port | inner->tuple.destination_port;

	if (bpf_skb_load_bytes(skb, at, words, sizeof(words)))
		return 0; /* not quoted */
	renewed[1] = words[1];
	if (id != old) {
		renewed[1] = id;
		difference = csum_fold(difference) + (__u16)~old + id;
	}
	renewed[0] = csum_adjust(words[0], difference);
	return inner_store(skb, at, words, renewed, sizeof(words), sum);
}

/* The inner ports, and the checksum if so much was quoted. */
static __always_inline __must_check int inner_rewrite_transport(struct __sk_buff *skb,
								const struct inner_packet *inner,
								const struct flow_tuple *sent,
								__u32 difference, __u32 *sum)
{
	__u8 protocol = inner->tuple.protocol;
	__u32 from[1], to[1];
	int result;

	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return inner_rewrite_echo(skb, inner, sent, protocol == IPPROTO_ICMPV6 ? difference : 0, sum);
	if (!protocol_has_ports(protocol))
		return 0;
	__builtin_memcpy(from, &inner->tuple.source_port, 4);
	__builtin_memcpy(to, &sent->source_port, 4);
	difference = bpf_csum_diff(from, 4, to, 4, difference);
	result = inner_store(skb, inner->transport, from, to, 4, sum);
	if (result || protocol == IPPROTO_SCTP)
		return result;

	/* The four bytes that hold the checksum: UDP's length before it, TCP's urgent pointer after it. */
	__u32 at = inner->transport + (protocol == IPPROTO_UDP ? 4 : 16);
	__u16 words[2], renewed[2];
	__u32 which = protocol == IPPROTO_UDP ? 1 : 0;

	if (bpf_skb_load_bytes(skb, at, words, sizeof(words)))
		return 0; /* not quoted: 8 bytes of TCP are enough for an error */
	renewed[0] = words[0];
	renewed[1] = words[1];
	if (protocol == IPPROTO_UDP && !words[1])
		return 0;
	if (which) {
		renewed[1] = csum_adjust(words[1], difference);
		if (!renewed[1])
			renewed[1] = 0xffff;
	} else {
		renewed[0] = csum_adjust(words[0], difference);
	}
	return inner_store(skb, at, words, renewed, sizeof(words), sum);
}

/* Makes the inner packet what its sender sent, and updates the ICMP checksum over it all. */
static __noinline __must_check int rewrite_inner(struct __sk_buff *skb, struct packet *packet,
						 const struct inner_packet *inner,
						 const struct flow_tuple *sent)
{
	__u32 addresses = csum_address_delta(&inner->tuple, sent), sum = 0;
	int result;

	result = inner_rewrite_network(skb, packet, inner, sent, &sum);
	if (!result)
		result = inner_rewrite_transport(skb, inner, sent, addresses, &sum);
	if (result)
		return result;
	if (bpf_l4_csum_replace(skb, packet->headers.transport + offsetof(struct icmphdr, checksum), 0, sum,
				0))
		return -REASON_INVALID_PACKET;
	return 0;
}

#endif
