// SPDX-License-Identifier: GPL-2.0-only
/*
 * What dpd itself sends to the sender of a packet that goes nowhere: port unreachable, time exceeded, packet too big, a TCP
 * reset; the reset that its receiver gets instead; and the echo reply of a service's address. The drop behind an error has been
 * counted and reported already.
 */
#include "lib/feature/ct_commit.h"
#include "lib/feature/respond.h"
#include "lib/feature/uplink.h"
#include "lib/mechanism/chain.h"

/* As much of the packet as an error may quote: 576 bytes in all (RFC 1812, 4.3.2.3), 1280 (RFC 4443, 2.4). */
enum {
	QUOTE_IPV4 = 576 - sizeof(struct iphdr) - sizeof(struct icmphdr),
	QUOTE_IPV6 = 1280 - sizeof(struct ipv6hdr) - sizeof(struct icmp6hdr),
	TOS_INTERNETWORK_CONTROL = 0xc0, /* RFC 1812, 4.3.2.5 */
};

/* ICMP and ICMPv6 errors have the same shape: 8 bytes in front of the quote. */
static __always_inline struct icmphdr error_header(const struct packet *packet)
{
	struct icmphdr icmp = {};

	const int is_ipv4 = packet->headers.family == 4;

	icmp.type = is_ipv4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH;
	switch (packet->response.kind) {
	case RESPONSE_TOO_BIG:
		if (!is_ipv4)
			icmp.type = ICMPV6_PKT_TOOBIG;
		icmp.code = is_ipv4 ? ICMP_FRAG_NEEDED : 0;
		icmp.rest = bpf_htonl(packet->response.mtu); /* RFC 1191, 4; RFC 4443, 3.2 */
		break;
	case RESPONSE_TIME_EXCEEDED:
		icmp.type = is_ipv4 ? ICMP_TIME_EXCEEDED : ICMPV6_TIME_EXCEED;
		icmp.code = is_ipv4 ? ICMP_EXC_TTL : ICMPV6_EXC_HOPLIMIT;
		break;
	case RESPONSE_NO_ROUTE: /* the kernel's kinds of errors (ip_error(), ip6_pkt_drop()) */
		icmp.code = is_ipv4 ? ICMP_HOST_UNREACH : ICMPV6_NOROUTE;
		break;
	case RESPONSE_PROHIBITED:
		icmp.code = is_ipv4 ? ICMP_PKT_FILTERED : ICMPV6_ADM_PROHIBITED;
		break;
	default:
		icmp.code = is_ipv4 ? ICMP_PORT_UNREACH : ICMPV6_PORT_UNREACH;
	}
	return icmp;
}

/*
 * Port unreachable comes from the frontend itself, everything else from the host: by its address on the link that the sender
 * reached, where it has one.
 */
static __always_inline struct address error_source(const struct packet *packet,
						   const struct settings *settings)
{
	const int is_ipv4 = packet->headers.family == 4;

	if (packet->response.kind == RESPONSE_PORT_UNREACHABLE)
		return packet->headers.tuple.destination;

	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);
	const struct uplink *uplink = uplink_find(packet->generation_slot, packet->ifindex);

	if (endpoint)
		return is_ipv4 ? endpoint->host_ipv4 : endpoint->host_ipv6;
	if (uplink)
		return is_ipv4 ? uplink->host_ipv4 : uplink->host_ipv6;
	return is_ipv4 ? settings->node_ipv4 : settings->node_ipv6;
}

/* New Ethernet, IP and ICMP headers in front of the packet, cut to what may be quoted. */
static __always_inline __must_check int respond_error(struct __sk_buff *skb, struct packet *packet,
						      const struct settings *settings)
{
	struct icmphdr icmp = error_header(packet);
	struct address source = error_source(packet, settings);
	struct address sender = address_unscope(&packet->headers.tuple.source);
	struct ethhdr eth;
	__u32 most = packet->headers.family == 4 ? QUOTE_IPV4 : QUOTE_IPV6;
	__u32 quote = packet->headers.length < most ? packet->headers.length : most;
	__u32 header = packet->headers.family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u32 network = ETH_HLEN;
	__u32 transport = network + header;
	__u32 sum = 0;

	/* Not bpf_skb_change_head: newer kernels then take all before the old IP header for Ethernet's. */
	if (response_ethernet(skb, &eth) || bpf_skb_change_tail(skb, ETH_HLEN + quote, 0) ||
	    bpf_skb_adjust_room(skb, header + sizeof(icmp), BPF_ADJ_ROOM_MAC, 0))
		return ACTION_DROP;
	if (packet->headers.family == 6)
		sum = csum_pseudo_header(&source, &sender, quote + sizeof(icmp), IPPROTO_ICMPV6);
	sum = csum_packet(skb, transport + sizeof(icmp), quote, sum);
	sum = bpf_csum_diff(0, 0, (__be32 *)&icmp, sizeof(icmp), sum);
	icmp.checksum = ~csum_fold(sum);

	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, transport, &icmp, sizeof(icmp), 0))
		return ACTION_DROP;
	if (packet->headers.family == 4) {
		struct iphdr ip = response_ipv4(&source, &sender, header + sizeof(icmp) + quote, IPPROTO_ICMP,
						TOS_INTERNETWORK_CONTROL);

		if (bpf_skb_store_bytes(skb, network, &ip, sizeof(ip), 0))
			return ACTION_DROP;
	} else {
		struct ipv6hdr ip =
			response_ipv6(&source, &sender, sizeof(icmp) + quote, IPPROTO_ICMPV6, RESPONSE_TTL);

		if (bpf_skb_store_bytes(skb, network, &ip, sizeof(ip), 0))
			return ACTION_DROP;
	}
	return response_send(skb, packet);
}

/* RFC 9293, 3.5.2: at the acknowledged sequence if there is one, else acknowledging the segment. */
static __always_inline struct tcphdr reset_header(const struct packet *packet, const struct tcphdr *tcp)
{
	struct tcphdr reset = {
		.source = tcp->dest,
		.dest = tcp->source,
		.doff = sizeof(reset) / 4,
		.rst = 1,
	};

	if (tcp->ack) {
		reset.seq = tcp->ack_seq;
	} else {
		__u32 payload =
			packet->headers.length - (packet->headers.transport - ETH_HLEN) - tcp->doff * 4;

		reset.ack = 1;
		reset.ack_seq = bpf_htonl(bpf_ntohl(tcp->seq) + payload + tcp->syn + tcp->fin);
	}
	return reset;
}

/* The packet becomes these headers; not zero: it can't. */
static __noinline __must_check int reset_write(struct __sk_buff *skb, const struct packet *packet,
					       struct tcphdr *tcp, const struct address *source,
					       const struct address *destination)
{
	__u32 header = packet->headers.family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u32 sum = csum_pseudo_header(source, destination, sizeof(*tcp), IPPROTO_TCP);

	if (csum_is_partial(skb, packet->headers.transport + offsetof(struct tcphdr, check)))
		tcp->check = csum_fold(sum); /* what follows is the hardware's */
	else
		tcp->check = ~csum_fold(bpf_csum_diff(0, 0, (__be32 *)tcp, sizeof(*tcp), sum));
	if (bpf_skb_change_tail(skb, ETH_HLEN + header + sizeof(*tcp), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + header, tcp, sizeof(*tcp), 0))
		return -1;
	if (packet->headers.family == 4) {
		struct iphdr ip = response_ipv4(source, destination, header + sizeof(*tcp), IPPROTO_TCP, 0);

		return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
	}

	struct ipv6hdr ip = response_ipv6(source, destination, sizeof(*tcp), IPPROTO_TCP, RESPONSE_TTL);

	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

static __always_inline __must_check int respond_reset(struct __sk_buff *skb, struct packet *packet)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	struct ethhdr eth;
	struct tcphdr tcp;

	if (response_ethernet(skb, &eth) ||
	    bpf_skb_load_bytes(skb, packet->headers.transport, &tcp, sizeof(tcp)))
		return ACTION_DROP;
	tcp = reset_header(packet, &tcp);
	if (reset_write(skb, packet, &tcp, &tuple->destination, &tuple->source) ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return ACTION_DROP;
	return response_send(skb, packet);
}

/*
 * What a reply becomes, for its receiver: a reset at the next byte that the receiver expects, which is the segment's first, or what
 * it has acknowledged since.
 */
static __always_inline struct tcphdr receiver_reset_header(const struct ct_entry *entry,
							   const struct tcphdr *tcp)
{
	struct flow_tuple key = ct_reverse_key(entry);
	const struct ct_entry *receiver = ct_find(&key);
	struct tcphdr reset = {
		.source = entry->translated.source_port,
		.dest = entry->translated.destination_port,
		.seq = tcp->seq,
		.ack_seq = tcp->ack_seq,
		.doff = sizeof(reset) / 4,
		.rst = 1,
		.ack = tcp->ack,
	};

	if (receiver && receiver->flags & CT_TCP_NUMBERS &&
	    (__s32)(receiver->tcp_ack - bpf_ntohl(tcp->seq)) > 0)
		reset.seq = bpf_htonl(receiver->tcp_ack);
	return reset;
}

/* Sends what has become of a reply where replies of the connection go. The result is an action. */
static __always_inline int receiver_send(struct __sk_buff *skb, struct packet *packet)
{
	const struct ct_entry *entry = &packet->ct.entry;
	const struct ipcache_entry *owner =
		ipcache_find(packet->generation_slot, &entry->translated.destination);

	if (packet->hook.flags & HOOK_PASSES_ON)
		return ACTION_PASS; /* it is on its way already */
	if (skb->pkt_type)
		bpf_skb_change_type(skb, PACKET_HOST);
	if (!owner || owner->scope != SCOPE_ENDPOINT) {
		if (entry->delivery != DELIVERY_ROUTE)
			return ACTION_PASS;
		bpf_redirect_neigh(entry->link_ifindex, 0, 0, 0);
		return ACTION_REDIRECT;
	}

	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, owner->ifindex);

	if (!endpoint)
		return ACTION_DROP;
	if (endpoint->delivery == DELIVERY_NEIGHBOUR) {
		skb->mark = generation_mark();
		bpf_redirect_neigh(endpoint->link_ifindex, 0, 0, 0);
		return ACTION_REDIRECT;
	}
	if (bpf_skb_store_bytes(skb, 0, endpoint->dst_mac, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, ETH_ALEN, endpoint->src_mac, ETH_ALEN, 0))
		return ACTION_DROP;
	if (endpoint->delivery == DELIVERY_PEER) {
		bpf_redirect_peer(owner->ifindex, 0);
	} else {
		skb->mark = generation_mark();
		bpf_redirect(owner->ifindex, 0);
	}
	return ACTION_REDIRECT;
}

/* The connection ends: whichever side sends next gets a reset. */
static __always_inline __must_check int respond_reset_receiver(struct __sk_buff *skb, struct packet *packet)
{
	const struct flow_tuple *translated = &packet->ct.entry.translated;
	struct tcphdr tcp;

	if (bpf_skb_load_bytes(skb, packet->headers.transport, &tcp, sizeof(tcp)))
		return ACTION_DROP;
	tcp = receiver_reset_header(&packet->ct.entry, &tcp);
	if (reset_write(skb, packet, &tcp, &translated->source, &translated->destination))
		return ACTION_DROP;
	ct_end(packet->response.reason);
	return receiver_send(skb, packet);
}

/* The echo with its type and addresses changed; sums over swapped addresses stay. */
static __always_inline __must_check int respond_echo(struct __sk_buff *skb, struct packet *packet)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	struct ethhdr eth;
	__be16 request = bpf_htons((__u16)packet->headers.icmp_type << 8 | packet->headers.icmp_code);
	__be16 reply = packet->headers.family == 4 ? 0 : bpf_htons(ICMPV6_ECHO_REPLY << 8);

	if (response_ethernet(skb, &eth) || bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_l4_csum_replace(skb, packet->headers.transport + 2, request, reply, 2) ||
	    bpf_skb_store_bytes(skb, packet->headers.transport, &reply, sizeof(reply), 0))
		return ACTION_DROP;
	if (packet->headers.family == 4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return ACTION_DROP;

		__be16 *life = (__be16 *)&ip.ttl; /* the 16 bits that the TTL is half of */
		__u32 difference = (__u16) ~*life;

		ip.ttl = RESPONSE_TTL;
		difference += *life;
		ip.check = csum_adjust(ip.check, difference);
		ip.saddr = address_to_ipv4(&tuple->destination);
		ip.daddr = address_to_ipv4(&tuple->source);
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0))
			return ACTION_DROP;
	} else {
		__u8 hop_limit = RESPONSE_TTL;
		struct address addresses[2] = { tuple->destination, tuple->source };

		if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1,
					0) ||
		    bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), addresses, 32, 0))
			return ACTION_DROP;
	}
	return response_send(skb, packet);
}

/* An echo request has been answered, or could not be, which is a drop without a response. */
static __always_inline int finish_echo(struct packet *packet, int result)
{
	if (result == ACTION_REDIRECT) {
		endpoint_count_answered(packet->endpoint_counters, packet->headers.length);
		event_report_single(packet, POINT_TO_HOST);
		return result;
	}
	packet->response.kind = RESPONSE_NONE;
	return -REASON_INVALID_PACKET;
}

SEC("tc")
int tail_respond(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int result = ACTION_DROP;

	if (packet->response.kind == RESPONSE_ECHO)
		result = finish_echo(packet, respond_echo(skb, packet));
	else if (packet->response.kind == RESPONSE_RESET)
		result = respond_reset(skb, packet);
	else if (packet->response.kind == RESPONSE_RESET_RECEIVER)
		result = respond_reset_receiver(skb, packet);
	else if (settings)
		result = respond_error(skb, packet, settings);
	return step_finish(skb, packet, result, STEP_COUNT);
}
