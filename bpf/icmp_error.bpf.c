// SPDX-License-Identifier: GPL-2.0-only
/*
 * ICMP errors: they belong to the connection of the packet that they quote, pass policy with it, and are translated
 * outside and inside, so that the host that sent the quoted packet knows it again.
 *
 *	quoted, as its receiver saw it		client -> backend
 *	turned round: a key of the tables	backend -> client, rewritten to frontend -> client
 *	so it was sent as			client -> frontend
 *
 * An error that quotes no connection of ours is an ICMP packet like any other.
 */
#include "lib/chain.h"
#include "lib/enter.h"
#include "lib/ipv6.h"
#include "lib/judge.h"
#include "lib/service.h"

enum { QUOTED_PORTS_AND_CHECKSUM = 8 };

/* The packet inside the error. */
struct quoted {
	struct tuple tuple;
	__u32 network;
	__u32 transport;
	__u8 fragment;
};

static __always_inline int quoted_read_ipv4(struct __sk_buff *skb, struct quoted *quoted)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, quoted->network, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return 0;
	quoted->tuple.source = address_from_ipv4(ip.saddr);
	quoted->tuple.destination = address_from_ipv4(ip.daddr);
	quoted->tuple.protocol = ip.protocol;
	quoted->transport = quoted->network + ip.ihl * 4;
	return !(ip.frag_off & bpf_htons(IP4_OFFSET)); /* a later fragment tells no ports */
}

static __always_inline int quoted_read_ipv6(struct __sk_buff *skb, struct quoted *quoted)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, quoted->network, &ip, sizeof(ip)) || ip.version != 6)
		return 0;

	struct ipv6_walk walk = { .offset = quoted->network + sizeof(ip), .protocol = ip.nexthdr };

	if (ipv6_walk(skb, &walk) || walk.fragment == FRAGMENT_LATER)
		return 0;
	quoted->tuple.source = address_from_ipv6(&ip.saddr);
	quoted->tuple.destination = address_from_ipv6(&ip.daddr);
	quoted->tuple.protocol = walk.protocol;
	quoted->transport = walk.offset;
	return 1;
}

/* Zero if it is cut too short to tell whose it was. */
static __noinline int quoted_read(struct __sk_buff *skb, const struct packet *packet, struct quoted *quoted)
{
	__u8 header[8] __attribute__((aligned(8)));

	quoted->network = packet->transport + sizeof(struct icmphdr);
	if (packet->family == 4 ? !quoted_read_ipv4(skb, quoted) : !quoted_read_ipv6(skb, quoted))
		return 0;
	if (quoted->tuple.protocol != IPPROTO_ICMP && quoted->tuple.protocol != IPPROTO_ICMPV6 &&
	    !protocol_has_ports(quoted->tuple.protocol))
		return 1;
	if (bpf_skb_load_bytes(skb, quoted->transport, header, sizeof(header)))
		return 0;
	if (protocol_has_ports(quoted->tuple.protocol)) {
		quoted->tuple.source_port = *(__be16 *)header;
		quoted->tuple.destination_port = *(__be16 *)(header + 2);
	} else if (icmp_is_echo(packet->family, header[0])) {
		tuple_set_echo(&quoted->tuple, header[0], *(__be16 *)(header + 4));
	}
	return 1;
}

/* Replaces bytes of the quote; the difference it makes to the ICMP checksum is added to *sum. */
static __always_inline __must_check int quoted_store(struct __sk_buff *skb, __u32 offset, void *from,
						     void *to, __u32 size, __u32 *sum)
{
	*sum = bpf_csum_diff(from, size, to, size, *sum);
	return bpf_skb_store_bytes(skb, offset, to, size, 0) ? -REASON_INVALID_PACKET : 0;
}

/* The quoted network header, with its own checksum. */
static __always_inline __must_check int quoted_rewrite_network(struct __sk_buff *skb,
							       const struct packet *packet,
							       const struct quoted *quoted,
							       const struct tuple *sent, __u32 *sum)
{
	if (packet->family == 4) {
		struct iphdr from, to;
		__u32 difference;

		if (bpf_skb_load_bytes(skb, quoted->network, &from, sizeof(from)))
			return -REASON_INVALID_PACKET;
		to = from;
		to.saddr = address_to_ipv4(&sent->source);
		to.daddr = address_to_ipv4(&sent->destination);
		difference = bpf_csum_diff((__be32 *)&from.saddr, 8, (__be32 *)&to.saddr, 8, 0);
		to.check = csum_adjust(from.check, difference);
		return quoted_store(skb, quoted->network, &from, &to, sizeof(to), sum);
	}

	struct address from[2] = { quoted->tuple.source, quoted->tuple.destination };
	struct address to[2] = { sent->source, sent->destination };

	return quoted_store(skb, quoted->network + offsetof(struct ipv6hdr, saddr), from, to, sizeof(to),
			    sum);
}

/* The quoted ports, and the checksum if so much was quoted. */
static __always_inline __must_check int quoted_rewrite_transport(struct __sk_buff *skb,
								 const struct quoted *quoted,
								 const struct tuple *sent, __u32 difference,
								 __u32 *sum)
{
	__u8 protocol = quoted->tuple.protocol;
	__u32 from[1], to[1];
	int answer;

	if (!protocol_has_ports(protocol))
		return 0;
	__builtin_memcpy(from, &quoted->tuple.source_port, 4);
	__builtin_memcpy(to, &sent->source_port, 4);
	difference = bpf_csum_diff(from, 4, to, 4, difference);
	answer = quoted_store(skb, quoted->transport, from, to, 4, sum);
	if (answer || protocol == IPPROTO_SCTP)
		return answer;

	/* The four bytes that hold the checksum: UDP's length beside it, TCP's urgent pointer after it. */
	__u32 at = quoted->transport + (protocol == IPPROTO_UDP ? 4 : 16);
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
	return quoted_store(skb, at, words, renewed, sizeof(words), sum);
}

/* The inside of the error, as the sender of the quoted packet sent it; and the ICMP checksum over it all. */
static __noinline __must_check int rewrite_inside(struct __sk_buff *skb, struct packet *packet,
						  const struct quoted *quoted, const struct tuple *sent)
{
	__u32 addresses, sum = 0;
	int answer;

	addresses = bpf_csum_diff((__be32 *)&quoted->tuple.source, 32, (__be32 *)&sent->source, 32, 0);
	answer = quoted_rewrite_network(skb, packet, quoted, sent, &sum);
	if (!answer)
		answer = quoted_rewrite_transport(skb, quoted, sent, addresses, &sum);
	if (answer)
		return answer;
	if (bpf_l4_csum_replace(skb, packet->transport + offsetof(struct icmphdr, checksum), 0, sum, 0))
		return -REASON_INVALID_PACKET;
	return 0;
}

/* What the error itself becomes: its sender stays who it is, unless it is the backend itself. */
static __always_inline void set_outside(struct packet *packet, const struct connection *of,
					const struct tuple *key)
{
	struct connection *connection = &packet->connection;
	struct tuple *rewritten = &connection->rewritten;

	*connection = *of;
	*rewritten = packet->tuple;
	connection->flags &= ~CONNECTION_REWRITE;
	connection->address_sum = 0;
	connection->port_sum = 0;
	rewritten->destination = of->rewritten.destination;
	if (address_equals(&packet->tuple.source, &key->source))
		rewritten->source = of->rewritten.source;
	if (tuple_equals(&packet->tuple, rewritten))
		return;
	connection->flags |= CONNECTION_REWRITE;
	connection->address_sum =
		bpf_csum_diff((__be32 *)&packet->tuple.source, 32, (__be32 *)&rewritten->source, 32, 0);
}

/*
 * Whether who sent the error can have seen the quoted packet, and sends it to who sent that. `of` is the way of packets
 * from the one to the other: from this workload, or out of the host, where nobody sees what passes between workloads.
 */
static __always_inline int is_credible(const struct packet *packet, const struct connection *of,
				       const struct tuple *key)
{
	return address_equals(&packet->tuple.destination, &key->destination) &&
	       connection_fits(of, packet->hook, packet->ifindex);
}

/* An error of a connection that was judged under an older configuration: policy is asked about the connection. */
static __noinline __must_check int judge_connection(struct packet *packet, const struct connection *of,
						    const struct tuple *key, const struct settings *settings)
{
	int reply = of->flags & CONNECTION_REPLY;
	struct tuple *beginning = &packet->beginning;

	*beginning = reply ? tuple_reverse(key) : *key;
	if (reply)
		beginning->source = of->rewritten.destination;
	else
		beginning->destination = of->rewritten.destination;
	beginning->destination_port = reply ? key->source_port : of->rewritten.destination_port;
	if (!protocol_has_ports(beginning->protocol))
		beginning->destination_port = 0;
	if (of->epoch == packet->epoch)
		return 0;
	return judge(packet, settings);
}

/* Where the error goes: to the side that sent what it quotes. */
static __always_inline __must_check int set_way(struct packet *packet)
{
	struct end *to = &packet->destination;
	int answer = end_resolve(packet, to, &packet->connection.rewritten.destination);

	if (answer)
		return answer;
	if (packet->hook == HOOK_TO_CONTAINER &&
	    (to->identity.place != PLACE_ENDPOINT || to->identity.ifindex != packet->ifindex))
		return -REASON_NO_ROUTE;
	connection_set_way(&packet->connection, to);
	return 0;
}

/* Whether the error is to be reported: at `medium` it is its connection's packet of this interval, or held back. */
static __always_inline void set_due(struct packet *packet, struct connection *of,
				    const struct settings *settings)
{
	if (settings->aggregation != AGGREGATION_MEDIUM) {
		packet->due = 1;
	} else if (packet->now_ns >= of->report_ns) {
		of->report_ns = packet->now_ns + settings->report_interval_ns;
		packet->due = 1;
	}
}

/* Global: it is verified once, not once for each way to it. */
__weak __noinline int report_error(int delivery, __u32 out_ifindex)
{
	struct packet *packet = packet_record();
	const struct settings *settings = packet ? settings_find(packet->epoch) : 0;

	if (!settings || !packet->due)
		return 0;

	struct report at = {
		.ifindex = packet->ifindex,
		.repeats = 1,
		.verdict = VERDICT_FORWARDED,
		.point = hook_point(packet->hook),
		.direction = packet->hook == HOOK_FROM_CONTAINER ? DIRECTION_EGRESS : DIRECTION_INGRESS,
	};

	if (settings->aggregation == AGGREGATION_NONE && packet->hook != HOOK_TO_CONTAINER)
		event_report(packet, &at);
	at.point = delivery_point(&packet->connection, delivery);
	at.direction = established_direction(&packet->connection);
	at.ifindex = delivery_ifindex(&packet->connection, delivery == DELIVERY_ROUTE ? out_ifindex : 0,
				      packet->ifindex);
	event_report(packet, &at);
	return 0;
}

static __always_inline __must_check int translate(struct __sk_buff *skb, struct packet *packet)
{
	const struct settings *settings = settings_find(packet->epoch);
	struct quoted quoted = {};
	struct route route = {};
	int delivery = DELIVERY_PASS;

	if (!settings || !quoted_read(skb, packet, &quoted))
		return ACTION_CONTINUE;

	struct tuple key = tuple_reverse(&quoted.tuple);
	struct connection *of = conntrack_find(&key);

	if (!of)
		former_serve(skb, packet, &key);
	if (!of || !is_credible(packet, of, &key) ||
	    connection_is_expired(of, &key, packet->now_ns, settings))
		return ACTION_CONTINUE;

	set_due(packet, of, settings);

	int rewrites = of->flags & CONNECTION_REWRITE;
	int answer = judge_connection(packet, of, &key, settings);

	if (answer)
		return answer;

	struct tuple sent = tuple_reverse(&of->rewritten);

	set_outside(packet, of, &key);
	answer = set_way(packet);
	if (!answer)
		answer = deliver_choose(skb, packet, &route, &delivery);
	if (!answer && rewrites)
		answer = rewrite_inside(skb, packet, &quoted, &sent);
	if (!answer && packet->connection.flags & CONNECTION_REWRITE)
		answer = rewrite_transport(skb, &packet->connection, packet->transport);
	if (!answer && bpf_skb_pull_data(skb, ETH_HLEN + sizeof(struct ipv6hdr)))
		answer = -REASON_INVALID_PACKET;
	if (!answer)
		answer = rewrite_network(skb, &packet->connection, packet->family, delivery);
	if (answer)
		return answer;
	report_error(delivery, route.ifindex);
	delivery_count(&packet->connection, packet->row, packet->length);
	return deliver_send(skb, &packet->connection, &route, delivery);
}

SEC("tc")
int tail_icmp_error(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int answer = translate(skb, packet);

	return finish(skb, packet, answer, packet->hook == HOOK_FROM_CONTAINER ? CALL_LB : CALL_CT);
}
