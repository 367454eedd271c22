/* SPDX-License-Identifier: GPL-2.0-only */
/* A connection's beginning: which backend, and a tuple by which nobody else's replies come back. */
#ifndef DPD_BEGIN_H
#define DPD_BEGIN_H

#include "conntrack.h"
#include "service.h"

enum {
	BACKEND_TRIES = 16,
	PORT_TRIES = 32,
	FIRST_FREE_PORT = 1024,
};

/* A workload that reaches itself sees these as its peer: nothing else has them on a link (RFC 3927, RFC 4291). */
#define HAIRPIN_IPV4 bpf_htonl(0xa9fe2a01) /* 169.254.42.1 */
#define HAIRPIN_IPV6 ((struct address){ .word = { bpf_cpu_to_be64(0xfe80000000000000), bpf_cpu_to_be64(1) } })

/*
 * Whether replies to what the packet would become belong to nobody else. Takes away what only stands in the way: an
 * expired pair, or a half of this very connection that has lost its twin. Global: it is verified once, not once for
 * each try; so it finds packet and settings itself, for what a global function is handed is no key of a map before
 * Linux 6.2.
 */
__weak __noinline int begin_is_free(void)
{
	const struct packet *packet = packet_record();
	const struct settings *settings = packet ? settings_find(packet->epoch) : 0;

	if (!settings)
		return 0;

	struct tuple key = tuple_reverse(&packet->connection.rewritten);
	const struct connection *taken = conntrack_find(&key);

	if (!taken)
		return 1;

	if (connection_is_twin(taken, &packet->tuple)) {
		conntrack_delete(&key);
		return 1;
	}
	if (connection_is_expired(taken, &key, packet->now_ns, settings)) {
		conntrack_delete_pair(&key, taken);
		return 1;
	}
	return 0;
}

/* What the packet becomes if it goes to this backend; zero if there is none of this number. */
static __always_inline int begin_aim(struct packet *packet, __u32 id)
{
	const struct backend *backend = backend_find(packet->slot, id);
	struct tuple *rewritten = &packet->connection.rewritten;

	if (!backend)
		return 0;
	packet->connection.backend = id;
	rewritten->destination = backend->address;
	rewritten->destination_port = backend->port;
	rewritten->source = packet->tuple.source;
	if (packet_is_own(packet, &backend->address))
		rewritten->source = packet->family == 4 ? address_from_ipv4(HAIRPIN_IPV4) : HAIRPIN_IPV6;
	return 1;
}

/* The drawn backend, or the next one of the service at which the tuple is free. */
static __noinline int begin_try_backends(struct packet *packet)
{
	if (begin_aim(packet, packet->drawn_backend) && begin_is_free())
		return 1;
	for (__u32 i = 1; i < BACKEND_TRIES; i++) {
		__u32 column = packet->drawn_slot + i;

		if (i >= packet->slot_count)
			return 0;
		if (column >= packet->slot_count)
			column -= packet->slot_count;

		const struct service_slot *slot =
			service_slot_find(packet->slot, packet->first_slot + column);

		if (slot && begin_aim(packet, slot->backend) && begin_is_free())
			return 1;
	}
	return 0;
}

/* Another source port, which the reply's rewrite undoes. Zero if none was free in so many tries. */
static __noinline int begin_try_ports(struct packet *packet)
{
	struct tuple *rewritten = &packet->connection.rewritten;

	if (rewritten->protocol != IPPROTO_TCP && rewritten->protocol != IPPROTO_UDP)
		return 0;
	for (int i = 0; i < PORT_TRIES; i++) {
		__u32 port = FIRST_FREE_PORT + random_below(bpf_get_prandom_u32(), 65536 - FIRST_FREE_PORT);

		rewritten->source_port = bpf_htons(port);
		if (begin_is_free())
			return 1;
	}
	return 0;
}

/* The one's complement differences that the rewrite makes, once for all packets of the connection. */
static __always_inline void begin_sum(struct packet *packet)
{
	struct connection *connection = &packet->connection;
	struct tuple *from = &packet->tuple, *to = &connection->rewritten;

	if (tuple_equals(from, to))
		return;
	connection->flags |= CONNECTION_REWRITE;
	connection->address_sum = bpf_csum_diff((__be32 *)&from->source, 32, (__be32 *)&to->source, 32, 0);
	if (from->source_port != to->source_port || from->destination_port != to->destination_port)
		connection->port_sum =
			bpf_csum_diff((__be32 *)&from->source_port, 4, (__be32 *)&to->source_port, 4, 0);
}

/* Decides what the packet becomes, in packet->connection; nothing is entered in any table yet. */
static __always_inline __must_check int begin_decide(struct packet *packet)
{
	int free;

	packet->connection.rewritten = packet->tuple;
	packet->connection.service = packet->service;
	if (packet->service) {
		free = begin_try_backends(packet);
		if (!free && !begin_aim(packet, packet->drawn_backend))
			return -REASON_NO_BACKEND;
	} else {
		free = begin_is_free();
	}
	if (!free && !begin_try_ports(packet))
		return -REASON_TUPLE_COLLISION;
	begin_sum(packet);
	return 0;
}

#endif
