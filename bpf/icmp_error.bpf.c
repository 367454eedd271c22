// SPDX-License-Identifier: GPL-2.0-only
/*
 * ICMP errors: they belong to the connection of the packet that they quote, pass policy with it, and are translated
 * outside and inside, so that the sender of the quoted packet recognises it.
 *
 *	quoted, as its receiver saw it		client -> backend
 *	reversed: a key of the tables		backend -> client, translated to frontend -> client
 *	so it was sent as			client -> frontend
 *
 * An error that quotes no connection, or one whose packets its sender can't have seen, drops.
 */
#include "lib/feature/ct_commit.h"
#include "lib/feature/delivery.h"
#include "lib/feature/icmp_inner.h"
#include "lib/feature/nat.h"
#include "lib/feature/policy_verdict.h"
#include "lib/feature/takeover.h"
#include "lib/mechanism/chain.h"

/* Whether packets of this direction leave with an address of the host. */
static __always_inline int is_behind_snat(const struct ct_entry *of)
{
	return (of->flags & (CT_SNAT | CT_REPLY)) == CT_SNAT;
}

/*
 * What the error itself becomes: its sender's address stays, unless it is the backend, or a host behind SNAT. `of` is the entry
 * of packets from the error's sender, or from what lies behind it, to the sender of the quoted packet; `key` is its key.
 */
static __always_inline void set_outer(struct packet *packet, const struct ct_entry *of,
				      const struct flow_tuple *key)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	struct ct_entry *entry = &packet->ct.entry;

	*entry = *of;
	packet->ct.found = 1; /* so it takes the way of the connection, whatever that of new ones is */
	entry->translated = *tuple;
	entry->flags &= ~CT_TRANSLATE;
	entry->address_csum_delta = 0;
	entry->port_csum_delta = 0;
	entry->translated.destination = of->translated.destination;
	if (address_equals(&tuple->source, &key->source) || is_behind_snat(of))
		entry->translated.source = of->translated.source;
	else if (entry->flags & CT_REPLY)
		entry->destination_identity =
			0; /* a router's or the host's: by its address, and no party of the connection */
	else
		entry->source_identity = 0;
	if (flow_tuple_equals(tuple, &entry->translated))
		return;
	entry->flags |= CT_TRANSLATE;
	entry->address_csum_delta = csum_address_delta(tuple, &entry->translated);
}

/* Whether the host itself says so, from an address of its own: it sees all that passes. Global: it is verified once. */
__weak __noinline int is_from_host(void)
{
	const struct packet *packet = packet_record();

	if (!packet || !packet_is_hosts_own(packet))
		return 0;

	const struct ipcache_entry *owner = packet_owner(packet, &packet->headers.tuple.source);

	return owner && owner->scope == SCOPE_HOST;
}

/*
 * Whether the error's sender can have seen the quoted packet, and sends the error to that packet's sender: the host, the workload
 * itself, or from beyond the host, where nobody sees what passes between workloads.
 */
static __always_inline int is_credible(const struct packet *packet, const struct ct_entry *of,
				       const struct flow_tuple *key)
{
	if (!address_equals(&packet->headers.tuple.destination, &key->destination))
		return 0;
	return ct_arrives_as_expected(of, &packet->hook, packet->ifindex) || is_from_host();
}

/* Whether the host's stack says that nobody has answered for the next hop's address (RFC 792; RFC 4443, 3.1). */
static __always_inline int says_neighbour_failed(const struct packet *packet)
{
	const struct packet_headers *headers = &packet->headers;

	if (!is_from_host())
		return 0;
	if (headers->family == 4)
		return headers->icmp_type == ICMP_DEST_UNREACH && headers->icmp_code == ICMP_HOST_UNREACH;
	return headers->icmp_type == ICMPV6_DEST_UNREACH && headers->icmp_code == ICMPV6_ADDR_UNREACH;
}

/*
 * If the quoted packet has waited for its next hop's MAC in vain, it drops now: it was neither counted nor reported before.
 * Global: it is verified once; so the tuple is copied, for an argument of a global function is no map key before Linux 6.2.
 */
__weak __noinline int report_neighbour_failed(const struct flow_tuple *sent, __u32 length)
{
	const struct packet *packet = packet_record();

	if (!packet || !sent)
		return 0;

	struct drop_key key = {
		.tuple = *sent,
		.ifindex = packet->ifindex,
		.reason = REASON_NEIGHBOUR_FAILED,
	};
	const struct ct_entry *entry = ct_find(&key.tuple);

	if (!entry || (entry->delivery != DELIVERY_ROUTE && entry->delivery != DELIVERY_NEIGHBOUR))
		return 0;

	struct event_subject subject = {
		.now_ns = packet->now_ns,
		.epoch = packet->epoch,
		.tuple = &key.tuple,
		.entry = entry,
		.length = length,
	};
	struct report report = {
		.ifindex = packet->ifindex,
		.verdict = VERDICT_DROPPED,
		.point = POINT_FROM_ENDPOINT,
		.reason = REASON_NEIGHBOUR_FAILED,
		.direction = DIRECTION_EGRESS,
	};

	drop_count_add(packet->ifindex, REASON_NEIGHBOUR_FAILED, DIRECTION_EGRESS, length);
	if (entry->origin_counters)
		endpoint_count_dropped(entry->origin_counters, DIRECTION_EGRESS);
	drop_report(&subject, &key, &report);
	return 0;
}

/* Whether the quoted TCP segment is one that its sender still waits for, as the kernel will ask (tcp_v4_err). */
static __always_inline int is_in_window(const struct ct_entry *of, const struct inner_packet *inner,
					const struct flow_tuple *sent)
{
	const struct ct_entry *sender;
	__u32 first;

	if (sent->protocol != IPPROTO_TCP)
		return 1;
	sender = ct_find(sent);
	if (!sender || !(sender->flags & CT_TCP_NUMBERS))
		return 1; /* nothing to compare with */
	first = of->tcp_flags & TCP_ACK ? of->tcp_ack : sender->tcp_start;
	return inner->tcp_seq - first <= sender->tcp_end - first;
}

/* The verdict on packet->ct.original. Global: it is verified once, not once for each way to it. */
__weak __noinline int original_verdict(void)
{
	struct packet *packet = packet_record();
	const struct settings *settings = packet ? settings_find(packet->epoch) : 0;

	return settings ? policy_verdict(packet, settings) : -REASON_NO_CONFIGURATION;
}

/* The verdict on the connection, where its own is of an older configuration. */
static __noinline __must_check int connection_verdict(struct packet *packet, const struct ct_entry *of,
						      const struct flow_tuple *key)
{
	int reply = of->flags & CT_REPLY;
	struct flow_tuple *original = &packet->ct.original;

	*original = reply ? flow_tuple_reverse(key) : *key;
	if (reply)
		original->source = of->translated.destination;
	else
		original->destination = of->translated.destination;
	original->destination_port = reply ? key->source_port : of->translated.destination_port;
	if (!protocol_has_ports(original->protocol))
		original->destination_port = 0;
	if (of->epoch == packet->epoch)
		return 0;
	return original_verdict();
}

/* The error goes to the sender of the quoted packet. */
static __always_inline __must_check int set_target(struct packet *packet)
{
	struct ct_entry *entry = &packet->ct.entry;
	struct peer *to = &packet->policy.destination;
	int result = peer_resolve(packet, to, &entry->translated.destination);

	if (result)
		return result;
	ct_set_egress(entry, to);
	if (packet->hook.sender == PARTY_HOST && entry->target_ifindex != packet->ifindex)
		return -REASON_NO_ROUTE;
	return 0;
}

static __always_inline __must_check int deliver(struct __sk_buff *skb, struct packet *packet,
						const struct inner_packet *inner,
						const struct flow_tuple *sent)
{
	const struct ct_entry *entry = &packet->ct.entry;
	struct route route = {};
	int delivery = DELIVERY_PASS;
	int result = set_target(packet);

	if (!result)
		result = delivery_select(skb, &route, &delivery);
	if (!result && !flow_tuple_equals(&inner->tuple, sent))
		result = rewrite_inner(skb, packet, inner, sent);
	if (!result && entry->flags & CT_TRANSLATE)
		result = nat_transport(skb, entry, packet->headers.transport);
	if (!result && bpf_skb_pull_data(skb, ETH_HLEN + sizeof(struct ipv6hdr)))
		result = -REASON_INVALID_PACKET;
	if (!result)
		result = nat_network(skb, entry, packet->headers.family, delivery);
	if (result)
		return result;
	if (packet->report_due)
		packet_report_delivery(delivery, route.ifindex);
	delivery_count(entry, packet_sender_counters(packet), packet->headers.length, delivery);
	return delivery_execute(skb, entry, &route, delivery);
}

static __always_inline __must_check int translate(struct __sk_buff *skb, struct packet *packet)
{
	const struct settings *settings = settings_find(packet->epoch);
	struct inner_packet inner = {};

	if (!settings)
		return -REASON_NO_CONFIGURATION;
	if (!inner_read(skb, packet, &inner))
		return -REASON_ICMP_UNRELATED;

	struct flow_tuple key = flow_tuple_reverse(&inner.tuple);
	struct ct_entry *of = ct_find(&key);

	if (!of)
		takeover_flow(skb, packet, &key);
	if (!of || !is_credible(packet, of, &key) || ct_pair_is_expired(of, &key, packet->now_ns, settings))
		return -REASON_ICMP_UNRELATED;
	packet->is_stray = 0;
	if (packet->hook.sender == PARTY_UPLINK && of->flags & CT_VIA_STACK)
		return ACTION_PASS; /* as the connection's own packets do */

	struct flow_tuple sent = ct_reverse_key(of);

	if (!is_in_window(of, &inner, &sent))
		return -REASON_ICMP_UNRELATED;
	if (says_neighbour_failed(packet))
		report_neighbour_failed(&sent, inner.length);
	packet->report_due = event_is_due(of, settings, packet->now_ns, 0);

	int result = connection_verdict(packet, of, &key);

	if (result)
		return result;
	set_outer(packet, of, &key);
	return deliver(skb, packet, &inner, &sent);
}

SEC("tc")
int tail_icmp_error(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int result = translate(skb, packet);

	return step_finish(skb, packet, result, STEP_COUNT);
}
