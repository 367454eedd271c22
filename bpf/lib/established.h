/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The established path, which most packets take: one lookup, rewrite, deliver. No service, policy, identity or endpoint
 * is looked up: the entry holds what they said, for as long as its epoch is the live one and its packets arrive where
 * it says. That comparison of the interface is the source check.
 *
 * What is not plain here (options, extension headers, fragments, ICMP errors, a SYN, a packet about to die, headers
 * that are not in the linear part) takes the chain.
 */
#ifndef DPD_ESTABLISHED_H
#define DPD_ESTABLISHED_H

#include "deliver.h"
#include "event.h"

/* What the established path reads of a packet. */
struct plain {
	struct tuple tuple;
	__u32 transport;
	__u32 length;
	__u32 headers; /* bytes from the network header to the payload */
	__u32 out_ifindex; /* where the kernel's routes lead, if it goes by them */
	__u8 family;
	__u8 tcp_flags;
};

/* `left` bytes are the packet's by its network header: below nothing if that contradicts itself. */
static __always_inline int plain_parse_transport(struct plain *plain, const __u8 *transport, const __u8 *end,
						 __s32 left)
{
	if (plain->tuple.protocol == IPPROTO_TCP) {
		if (transport + sizeof(struct tcphdr) > end || (transport[12] >> 4) < 5 ||
		    left < (transport[12] >> 4) * 4)
			return 0;
		plain->tcp_flags = transport[13];
		plain->headers = plain->transport - ETH_HLEN + (transport[12] >> 4) * 4;
	} else if (plain->tuple.protocol == IPPROTO_ICMP || plain->tuple.protocol == IPPROTO_ICMPV6) {
		if (transport + sizeof(struct icmphdr) > end || left < (__s32)sizeof(struct icmphdr) ||
		    !icmp_is_echo(plain->family, transport[0]))
			return 0;
		tuple_set_echo(&plain->tuple, transport[0], *(__be16 *)(transport + 4));
		return 1;
	} else if (plain->tuple.protocol != IPPROTO_UDP && plain->tuple.protocol != IPPROTO_SCTP) {
		return 0;
	} else if (transport + sizeof(struct udphdr) > end || left < (__s32)sizeof(struct udphdr)) {
		return 0;
	} else {
		plain->headers = plain->transport - ETH_HLEN + sizeof(struct udphdr);
	}
	plain->tuple.source_port = *(__be16 *)transport;
	plain->tuple.destination_port = *(__be16 *)(transport + 2);
	return 1;
}

static __always_inline int plain_parse_ipv4(struct plain *plain, const __u8 *data, const __u8 *end,
					    __u32 frame)
{
	const struct iphdr *ip = (void *)(data + ETH_HLEN);

	if ((void *)(ip + 1) > (void *)end)
		return 0;
	if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(IP4_MF | IP4_OFFSET) || ip->ttl <= 1)
		return 0;
	plain->length = bpf_ntohs(ip->tot_len);
	if (plain->length > frame)
		return 0;
	plain->family = 4;
	plain->tuple.source = address_from_ipv4(ip->saddr);
	plain->tuple.destination = address_from_ipv4(ip->daddr);
	plain->tuple.protocol = ip->protocol;
	plain->transport = ETH_HLEN + sizeof(*ip);
	return ip->protocol != IPPROTO_ICMPV6 &&
	       plain_parse_transport(plain, data + ETH_HLEN + sizeof(*ip), end,
				     (__s32)plain->length - (__s32)sizeof(*ip));
}

static __always_inline int plain_parse_ipv6(struct plain *plain, const __u8 *data, const __u8 *end,
					    __u32 frame)
{
	const struct ipv6hdr *ip = (void *)(data + ETH_HLEN);

	if ((void *)(ip + 1) > (void *)end)
		return 0;
	if (*(__u8 *)ip >> 4 != 6 || ip->hop_limit <= 1)
		return 0;
	plain->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (plain->length > frame)
		return 0;
	plain->family = 6;
	plain->tuple.source = address_from_ipv6(&ip->saddr);
	plain->tuple.destination = address_from_ipv6(&ip->daddr);
	plain->tuple.protocol = ip->nexthdr;
	plain->transport = ETH_HLEN + sizeof(*ip);
	if (address_is_mapped(&plain->tuple.source) || address_is_mapped(&plain->tuple.destination))
		return 0;
	return ip->nexthdr != IPPROTO_ICMP &&
	       plain_parse_transport(plain, data + ETH_HLEN + sizeof(*ip), end,
				     (__s32)plain->length - (__s32)sizeof(*ip));
}

/* Not zero: everything that the established path needs was there. */
static __always_inline int plain_parse(struct __sk_buff *skb, struct plain *plain)
{
	const __u8 *data = (void *)(long)skb->data;
	const __u8 *end = (void *)(long)skb->data_end;
	__u32 frame = skb->len - ETH_HLEN;

	if (skb->vlan_present)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return plain_parse_ipv4(plain, data, end, frame);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return plain_parse_ipv6(plain, data, end, frame);
	return 0;
}

/* Whose side of policy a delivered packet met last here. */
static __always_inline __u8 established_direction(const struct connection *connection)
{
	return connection->to_ifindex ? DIRECTION_INGRESS : DIRECTION_EGRESS;
}

static __always_inline __u8 delivery_point(const struct connection *connection, int delivery)
{
	const __u32 host = 1; /* identity of the host, as Cilium numbers it */
	__u32 receiver = connection->flags & CONNECTION_REPLY ? connection->source_identity
							      : connection->destination_identity;

	if (connection->to_ifindex)
		return POINT_TO_ENDPOINT;
	if (delivery == DELIVERY_ROUTE)
		return POINT_TO_NETWORK;
	return receiver == host ? POINT_TO_HOST : POINT_TO_STACK;
}

/* The interface at which a delivered packet is reported: that by which it leaves, else that by which it came. */
static __always_inline __u32 delivery_ifindex(const struct connection *connection, __u32 out_ifindex,
					      __u32 ifindex)
{
	if (connection->to_ifindex)
		return connection->to_ifindex;
	return out_ifindex ? out_ifindex : ifindex;
}

/* Reports a packet of the established path at a point. */
static __noinline void established_report(const struct plain *plain, struct connection *connection,
					  __u64 epoch, __u32 ifindex, __u8 point)
{
	const struct settings *settings = settings_find(epoch);
	__u64 now_ns = bpf_ktime_get_ns();

	if (!settings)
		return;

	struct event *event = event_reserve(settings, now_ns);

	if (!event)
		return;

	struct report report = {
		.ifindex = ifindex,
		.repeats = 1,
		.verdict = VERDICT_FORWARDED,
		.point = point,
		.direction =
			point == POINT_FROM_ENDPOINT ? DIRECTION_EGRESS : established_direction(connection),
	};

	event->time_ns = now_ns;
	event->epoch = epoch;
	event->tuple = plain->tuple;
	event->length = plain->length;
	event->tcp_flags = plain->tcp_flags;
	event_set_connection(event, connection);
	event_set_report(event, &report);
	event_submit(event);
}

/*
 * The packets that are not just one more: the first in a second, one with a flag that changes its connection, one that
 * is to be reported. Zero if the connection has expired: then it is not this one's.
 */
static __noinline int established_attend(const struct plain *plain, struct connection *connection,
					 __u32 ifindex, __u8 hook, __u64 now_ticks)
{
	__u64 epoch = connection->epoch;
	const struct settings *settings = settings_find(epoch);
	__u64 now_ns = bpf_ktime_get_coarse_ns();

	if (!settings || connection_is_expired(connection, &plain->tuple, now_ns, settings))
		return 0;

	int fresh = connection_advance(connection, &plain->tuple, plain->tcp_flags, now_ns);

	int is_due = fresh || now_ns >= connection->report_ns;

	if (is_due) {
		connection->report_ns = 0;
		if (settings->aggregation == AGGREGATION_MEDIUM)
			connection->report_ns = now_ns + settings->report_interval_ns;
	}
	connection_set_attention(connection, settings, now_ns, now_ticks);
	if (!is_due)
		return 1;
	if (settings->aggregation == AGGREGATION_NONE && hook != HOOK_TO_CONTAINER)
		established_report(plain, connection, epoch, ifindex, hook_point(hook));
	established_report(plain, connection, epoch,
			   delivery_ifindex(connection, plain->out_ifindex, ifindex),
			   delivery_point(connection, connection->delivery));
	return 1;
}

/* Counts a delivered packet: at the workload that sent it, if that is one of ours, and the one that gets it. */
static __always_inline void delivery_count(const struct connection *connection, __u32 from_row, __u32 length)
{
	if (from_row)
		traffic_count(from_row, DIRECTION_EGRESS, length);
	if (connection->to_ifindex)
		traffic_count(connection->to_row, DIRECTION_INGRESS, length);
}

/*
 * Whether a plain packet's transport checksum may be changed in place, without the helper that knows how it stands: the
 * kernel tells since 6.2. Where the kernel holds a sum over all of the packet, that is the helper's affair in IPv4. In IPv6
 * a rewrite does not change it: the addresses' change and the checksum's are each other's opposite.
 */
static __always_inline int checksum_is_open(int summed, int family)
{
	return summed >= 0 && (summed != CHECKSUM_COMPLETE || family == 6);
}

/* minus 1: this kernel does not tell. */
static __always_inline int checksum_state(struct __sk_buff *skb)
{
	if (!bpf_ksym_exists(bpf_cast_to_kern_ctx))
		return -1;

	const struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);

	return BPF_CORE_READ_BITFIELD(kernel, ip_summed);
}

/* A checksum after the rewrite, as the helper would leave it. What is left to the hardware has no ports in it yet. */
static __always_inline __u16 checksum_rewritten(__u16 checksum, const struct connection *connection,
						int summed)
{
	__u32 addresses = csum_fold(connection->address_sum);

	if (summed == CHECKSUM_PARTIAL)
		return csum_fold(checksum + addresses);
	return csum_adjust(checksum, addresses + csum_fold(connection->port_sum));
}

static __always_inline __must_check int
rewrite_checksum_in_place(struct __sk_buff *skb, const struct connection *connection, int summed, int family)
{
	int is_udp = connection->rewritten.protocol == IPPROTO_UDP;
	int offset = transport_checksum_offset(connection->rewritten.protocol);
	int header = family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u16 *checksum = (void *)(long)skb->data + ETH_HLEN + header + offset;

	if (offset < 0)
		return 0;
	if ((void *)(checksum + 1) > (void *)(long)skb->data_end)
		return -REASON_INVALID_PACKET;
	if (is_udp && !*checksum)
		return 0; /* its sender made none (RFC 768) */
	*checksum = checksum_rewritten(*checksum, connection, summed);
	if (is_udp && !*checksum)
		*checksum = 0xffff;
	return 0;
}

/* The ports of a plain packet: behind a header of known length, and in the linear part, so that no helper is needed. */
static __always_inline __must_check int rewrite_ports(struct __sk_buff *skb,
						      const struct connection *connection, int family)
{
	__u8 *data = (void *)(long)skb->data;
	__u8 *ports = data + ETH_HLEN + (family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));

	if (ports + 4 > (__u8 *)(long)skb->data_end)
		return -REASON_INVALID_PACKET;
	*(__be16 *)ports = connection->rewritten.source_port;
	*(__be16 *)(ports + 2) = connection->rewritten.destination_port;
	return 0;
}

static __always_inline __must_check int rewrite(struct __sk_buff *skb, const struct connection *connection,
						__u32 transport, int family, int delivery)
{
	int answer = 0;

	if (connection->flags & CONNECTION_REWRITE) {
		int summed = checksum_state(skb);

		if (checksum_is_open(summed, family))
			answer = rewrite_checksum_in_place(skb, connection, summed, family);
		else
			answer = rewrite_checksum(skb, connection, transport);
	}
	if (!answer && connection->flags & CONNECTION_REWRITE && connection->port_sum)
		answer = rewrite_ports(skb, connection, family);
	if (!answer)
		answer = rewrite_network(skb, connection, family, delivery);
	return answer;
}

/* The packet moves its connection to the answered ones, which the chain does. */
static __always_inline int connection_is_first_answer(const struct connection *connection)
{
	return connection->state == CONNECTION_UNANSWERED && connection->flags & CONNECTION_REPLY;
}

/* Any packet takes the connection out of such a state. */
static __always_inline int connection_is_passing(const struct connection *connection)
{
	return connection->state == CONNECTION_ONCE || connection->state == CONNECTION_CLOSING;
}

/*
 * Sends a packet on its connection's way; the answer is as that of established(). In the hook itself: a call costs
 * a packet twenty nanoseconds, and the verifier has room for each table that the connection may lie in.
 */
static __always_inline int established_send(struct __sk_buff *skb, struct plain *plain,
					    struct connection *connection, __u8 hook)
{
	__u64 now_ticks = bpf_jiffies64();
	struct route route = {};

	int delivery = hook == HOOK_TO_CONTAINER ? DELIVERY_PASS : connection->delivery;

	if (delivery == DELIVERY_ROUTE &&
	    route_find(skb, &connection->rewritten, route_length(skb, plain->length, plain->headers), &route))
		return ACTION_CONTINUE; /* whatever else is to be done with it, the chain can, and reports it */
	plain->out_ifindex = route.ifindex;
	if (unlikely(plain->tcp_flags & TCP_NOTED || connection_is_passing(connection) ||
		     now_ticks >= connection->attend_ticks) &&
	    !established_attend(plain, connection, skb->ifindex, hook, now_ticks))
		return ACTION_CONTINUE;

	int answer = rewrite(skb, connection, plain->transport, plain->family, delivery);

	if (answer)
		return answer;
	__sync_fetch_and_add(&connection->packets, 1);
	__sync_fetch_and_add(&connection->bytes, plain->length);
	delivery_count(connection, connection->from_row, plain->length);
	return deliver_send(skb, connection, &route, delivery);
}

/* An action, minus a reason, or ACTION_CONTINUE: the packet is none of this path's, and untouched. */
static __always_inline __must_check int established(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	struct plain plain = {};

	if (!plain_parse(skb, &plain))
		return ACTION_CONTINUE;

	struct connection *connection = conntrack_find_answered(&plain.tuple);

	if (!connection)
		connection = bpf_map_lookup_elem(&dpd_ct_unanswered, &plain.tuple);
	if (!connection || !epoch || connection->epoch != epoch ||
	    !connection_fits(connection, hook, skb->ifindex) || connection_is_first_answer(connection) ||
	    plain.tcp_flags & TCP_SYN)
		return ACTION_CONTINUE;
	return established_send(skb, &plain, connection, hook);
}

#endif
