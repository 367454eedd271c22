// SPDX-License-Identifier: GPL-2.0-only
/*
 * The conntrack step: does the packet belong to a connection?
 *
 *	of the live epoch, arriving as expected -> tail_deliver
 *	its verdict is of an older configuration -> tail_policy again, if its backend still exists
 *	none -> a backend, a free reply tuple, and tail_policy
 */
#include "lib/feature/ct_create.h"
#include "lib/mechanism/chain.h"

/* What policy looks at: client and backend, whichever of them sent this packet. */
static __always_inline void set_original(struct packet *packet)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	const struct flow_tuple *translated = &packet->ct.entry.translated;
	struct flow_tuple *original = &packet->ct.original;

	original->protocol = tuple->protocol;
	if (packet->ct.entry.flags & CT_REPLY) {
		original->source = translated->destination;
		original->destination = tuple->source;
		original->destination_port = tuple->source_port;
	} else {
		original->source = tuple->source;
		original->destination = translated->destination;
		original->destination_port = translated->destination_port;
	}
	if (!protocol_has_ports(original->protocol))
		original->destination_port = 0;
}

/* A new connection; nothing is inserted before policy has allowed it. */
static __noinline __must_check int ct_new(struct packet *packet, const struct settings *settings)
{
	if (packet->lb.error) {
		packet->response.kind = RESPONSE_PORT_UNREACHABLE;
		packet->ct.entry.service = packet->lb.service.id;
		return packet->lb.error;
	}
	if (settings->strict && packet->headers.tuple.protocol == IPPROTO_TCP &&
	    (packet->headers.tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return -REASON_TCP_WITHOUT_SYN;
	if (settings->connections_per_endpoint && packet->hook.sender == PARTY_ENDPOINT &&
	    conn_usage_is_exhausted(packet->ifindex, settings->connections_per_endpoint, packet->now_ns))
		return -REASON_CONNECTION_LIMIT;

	int result = ct_choose_translation(packet);

	set_original(packet);
	return result;
}

/* Whether the service that the connection was opened through still has its backend. */
static __always_inline int ct_backend_is_valid(const struct packet *packet)
{
	const struct ct_entry *entry = &packet->ct.entry;
	const struct flow_tuple *tuple = &packet->headers.tuple;
	int reply = entry->flags & CT_REPLY;
	struct flow_tuple forward = reply ? ct_reverse_key(entry) : *tuple;
	const struct address *address = reply ? &tuple->source : &entry->translated.destination;
	__be16 port = reply ? tuple->source_port : entry->translated.destination_port;
	const struct service *service = service_find(packet->generation_slot, &forward);

	if (!entry->service)
		return !service;
	if (!service || service->id != entry->service)
		return 0;

	const struct backend *backend = backend_find(packet->generation_slot, entry->backend);

	if (!backend || backend->service != entry->service || backend->port != port ||
	    !address_equals(&backend->address, address))
		return 0;
	return backend->state != BACKEND_MAINTENANCE || tuple->protocol == IPPROTO_TCP;
}

/* Whether the entry is not this packet's: it has expired, or a SYN opens a new connection in its place. */
static __always_inline int ct_is_over(const struct packet *packet, const struct ct_entry *entry,
				      const struct settings *settings)
{
	if ((packet->headers.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && entry->state == CT_CLOSING)
		return 1;
	return ct_pair_is_expired(entry, &packet->headers.tuple, packet->now_ns, settings);
}

/* The connection's backend is gone: a UDP client gets another one, a TCP peer a reset at once. */
static __noinline __must_check int backend_gone(struct packet *packet, const struct settings *settings)
{
	int reply = packet->ct.entry.flags & CT_REPLY;

	ct_delete_pair(&packet->headers.tuple, &packet->ct.entry);
	if (packet->headers.tuple.protocol == IPPROTO_TCP)
		packet->response.kind = RESPONSE_RESET;
	if (packet->headers.tuple.protocol == IPPROTO_TCP || reply)
		return -REASON_NO_BACKEND;
	__builtin_memset(&packet->ct, 0, sizeof(packet->ct));
	return ct_new(packet, settings);
}

static __always_inline __must_check int ct_lookup(struct packet *packet, const struct settings *settings)
{
	struct ct_entry *entry = ct_find_replied(&packet->headers.tuple);

	if (!entry) {
		entry = bpf_map_lookup_elem(&dpd_ct_unreplied, &packet->headers.tuple);
		packet->ct.unreplied = !!entry;
	}
	if (entry && ct_is_over(packet, entry, settings)) {
		ct_delete_pair(&packet->headers.tuple, entry);
		entry = 0;
	}
	if (!entry)
		return ct_new(packet, settings);
	packet->ct.found = 1;
	packet->ct.entry = *entry;
	packet->ct.counted_egress_rule = entry->egress_rule;
	packet->ct.counted_ingress_rule = entry->ingress_rule;
	packet->ct.is_current = packet->ct.entry.epoch == packet->epoch &&
				ct_arrives_as_expected(&packet->ct.entry, &packet->hook, packet->ifindex);
	if (packet->ct.is_current)
		return 0;
	if (!ct_backend_is_valid(packet))
		return backend_gone(packet, settings);
	set_original(packet);
	return 0;
}

SEC("tc")
int tail_ct(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int result = settings ? ct_lookup(packet, settings) : -REASON_NO_CONFIGURATION;

	return step_finish(skb, packet, result, packet->ct.is_current ? STEP_DELIVER : STEP_POLICY);
}
