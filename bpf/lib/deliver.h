/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a connection's entry says is done to the packet, and the packet is sent where the entry says.
 *
 * A packet whose checksum its sender left to the hardware holds only the pseudo header's sum. bpf_l4_csum_replace knows
 * that, and here every transport checksum changes through it; the established path asks the kernel itself where it can,
 * which is faster. The IPv4 header's is always whole.
 */
#ifndef DPD_DELIVER_H
#define DPD_DELIVER_H

#include "route.h"

/* What a hook returns once it has decided. */
enum action {
	ACTION_CONTINUE = 0, /* the next step of the chain decides */
	ACTION_PASS = 1, /* the kernel goes on with it, and other programs on the hook see it */
	ACTION_REDIRECT = 2, /* bpf_redirect* has been called */
	ACTION_DROP = 3, /* counted and reported already */
};

static __always_inline __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum after its data changed by `difference` (RFC 1624). */
static __always_inline __u16 csum_adjust(__u16 checksum, __u32 difference)
{
	return ~csum_fold((__u16)~checksum + csum_fold(difference));
}

/* Where a protocol keeps its checksum, from the transport header on; minus 1: nothing in it depends on what we change. */
static __always_inline int transport_checksum_offset(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return offsetof(struct tcphdr, check);
	if (protocol == IPPROTO_UDP)
		return offsetof(struct udphdr, check);
	if (protocol == IPPROTO_ICMPV6)
		return offsetof(struct icmp6hdr, icmp6_cksum);
	return -1;
}

static __always_inline __must_check int rewrite_checksum(struct __sk_buff *skb,
							 const struct connection *connection, __u32 transport)
{
	__u8 protocol = connection->rewritten.protocol;
	int checksum = transport_checksum_offset(protocol);
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	if (checksum >= 0) {
		if (bpf_l4_csum_replace(skb, transport + checksum, 0, connection->address_sum,
					flags | BPF_F_PSEUDO_HDR))
			return -REASON_INVALID_PACKET;
		if (connection->port_sum &&
		    bpf_l4_csum_replace(skb, transport + checksum, 0, connection->port_sum, flags))
			return -REASON_INVALID_PACKET;
	}
	return 0;
}

/* The transport header, wherever it is: checksum first, since the helper may move the packet, then the ports. */
static __always_inline __must_check int
rewrite_transport(struct __sk_buff *skb, const struct connection *connection, __u32 transport)
{
	int answer = rewrite_checksum(skb, connection, transport);

	if (!answer && connection->port_sum &&
	    bpf_skb_store_bytes(skb, transport, &connection->rewritten.source_port, 4, 0))
		answer = -REASON_INVALID_PACKET;
	return answer;
}

/* Ethernet and network header of a packet of either family, at `network` = ETH_HLEN. */
static __always_inline __must_check int
rewrite_network(struct __sk_buff *skb, const struct connection *connection, int family, int delivery)
{
	int decrement = delivery != DELIVERY_PASS;
	__u8 *data = (void *)(long)skb->data;
	__u8 *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)data;

	if (family == 4) {
		struct iphdr *ip = (void *)(data + ETH_HLEN);

		if ((void *)(ip + 1) > (void *)end)
			return -REASON_INVALID_PACKET;

		__u32 difference = 0;

		if (connection->flags & CONNECTION_REWRITE) {
			ip->saddr = address_to_ipv4(&connection->rewritten.source);
			ip->daddr = address_to_ipv4(&connection->rewritten.destination);
			difference = connection->address_sum;
		}
		if (decrement) {
			ip->ttl--;
			difference = (__u32)csum_fold(difference) + (__u16)~bpf_htons(0x0100);
		}
		ip->check = csum_adjust(ip->check, difference);
	} else {
		struct ipv6hdr *ip = (void *)(data + ETH_HLEN);

		if ((void *)(ip + 1) > (void *)end)
			return -REASON_INVALID_PACKET;
		if (connection->flags & CONNECTION_REWRITE) {
			__builtin_memcpy(&ip->saddr, &connection->rewritten.source, 16);
			__builtin_memcpy(&ip->daddr, &connection->rewritten.destination, 16);
		}
		if (decrement)
			ip->hop_limit--;
	}
	if (decrement) {
		__builtin_memcpy(eth->h_dest, connection->mac, ETH_ALEN);
		__builtin_memcpy(eth->h_source, connection->host_mac, ETH_ALEN);
	}
	return 0;
}

/* A packet is not sent on to die. */
static __always_inline __must_check int deliver_check_hop_limit(struct packet *packet, int delivery)
{
	if (delivery == DELIVERY_PASS || packet->hop_limit > 1)
		return 0;
	packet->answer = ANSWER_TIME_EXCEEDED;
	return -REASON_TTL_EXCEEDED;
}

/* How this packet leaves: as its entry says, but for what the kernel's routes decide packet by packet. */
static __noinline __must_check int deliver_choose(struct __sk_buff *skb, struct packet *packet,
						  struct route *route, int *delivery)
{
	*delivery = packet->hook == HOOK_TO_CONTAINER ? DELIVERY_PASS : packet->connection.delivery;
	if (*delivery != DELIVERY_ROUTE)
		return deliver_check_hop_limit(packet, *delivery);
	switch (route_find(skb, &packet->connection.rewritten,
			   route_length(skb, packet->length, packet->segment), route)) {
	case ROUTE_FORWARD:
		return deliver_check_hop_limit(packet, *delivery);
	case ROUTE_TOO_BIG:
		if (packet->may_fragment)
			break; /* the kernel's stack cuts it */
		packet->mtu = route->mtu;
		packet->answer = ANSWER_TOO_BIG;
		return -REASON_TOO_BIG;
	case ROUTE_NONE:
		return -REASON_NO_ROUTE;
	}
	*delivery = DELIVERY_PASS;
	return 0;
}

/* Last act of a hook: the packet goes where the entry says; `route` counts if that is the kernel's way. */
static __always_inline int deliver_send(struct __sk_buff *skb, const struct connection *connection,
					struct route *route, int delivery)
{
	/* A packet that was not sent to the host's MAC came marked as somebody else's, and would be lost there. */
	if (unlikely(skb->pkt_type) && delivery != DELIVERY_PASS)
		bpf_skb_change_type(skb, 0);
	switch (delivery) {
	case DELIVERY_PEER:
		bpf_redirect_peer(connection->to_ifindex, 0);
		return ACTION_REDIRECT;
	case DELIVERY_DIRECT:
		skb->mark = DPD_MARK;
		bpf_redirect(connection->to_ifindex, 0);
		return ACTION_REDIRECT;
	case DELIVERY_NEIGHBOUR: {
		const struct address *to = &connection->rewritten.destination;
		struct bpf_redir_neigh next = {};

		if (address_is_mapped(to)) {
			next.nh_family = AF_INET;
			next.ipv4_nh = address_to_ipv4(to);
		} else {
			next.nh_family = AF_INET6;
			__builtin_memcpy(next.ipv6_nh, to, sizeof(next.ipv6_nh));
		}
		skb->mark = DPD_MARK;
		bpf_redirect_neigh(connection->to_ifindex, &next, sizeof(next), 0);
		return ACTION_REDIRECT;
	}
	case DELIVERY_ROUTE: /* unmarked: a route that leads to a workload is no way past its policy */
		bpf_redirect_neigh(route->ifindex, &route->next, sizeof(route->next), 0);
		return ACTION_REDIRECT;
	default:
		return ACTION_PASS;
	}
}

#endif
