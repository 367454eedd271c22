/* SPDX-License-Identifier: GPL-2.0-only */
/* A new connection: which translation NAT makes, so that nobody else's replies have the same tuple. */
#ifndef DPD_CT_CREATE_H
#define DPD_CT_CREATE_H

#include "../mechanism/csum.h"
#include "../mechanism/packet.h"
#include "conntrack.h"
#include "endpoint.h"
#include "external.h"
#include "masquerade.h"
#include "reply_tuple.h"
#include "service.h"

enum {
	BACKEND_TRIES = 16,
	PORT_TRIES = 32,
	FIRST_FREE_PORT = 1024,
};

/* Translates the packet to this backend (DNAT; SNAT for a hairpin); zero if there is no backend of this number. */
static __always_inline int nat_to_backend(struct packet *packet, __u32 id)
{
	const struct backend *backend = backend_find(packet->generation_slot, id);
	struct flow_tuple *translated = &packet->ct.entry.translated;

	if (!backend)
		return 0;
	packet->ct.entry.backend = id;
	translated->destination = backend->address;
	translated->destination_port = backend->port;
	translated->source = packet->headers.tuple.source;

	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, &backend->address);

	if (owner && owner->scope == SCOPE_ENDPOINT && owner->ifindex == packet->ifindex)
		translated->source =
			packet->headers.family == 4 ? address_from_ipv4(HAIRPIN_IPV4) : HAIRPIN_IPV6;
	return 1;
}

/* The picked backend, or the next one of the service at which the reply tuple is free. Zero if there is none. */
static __noinline int nat_try_backends(struct packet *packet)
{
	if (nat_to_backend(packet, packet->lb.backend) && reply_tuple_is_free())
		return 1;
	for (__u32 i = 1; i < BACKEND_TRIES; i++) {
		__u32 backend = service_next_backend(packet->generation_slot, &packet->lb.service,
						     packet->lb.column, i);

		if (!backend)
			return 0;
		if (nat_to_backend(packet, backend) && reply_tuple_is_free())
			return 1;
	}
	return 0;
}

/* Another source port, which the reply's translation undoes. Zero if none was free in this many tries. */
static __noinline int nat_try_ports(struct packet *packet)
{
	struct flow_tuple *translated = &packet->ct.entry.translated;

	if (translated->protocol != IPPROTO_TCP && translated->protocol != IPPROTO_UDP)
		return 0;
	for (int i = 0; i < PORT_TRIES; i++) {
		__u32 port = FIRST_FREE_PORT + random_below(bpf_get_prandom_u32(), 65536 - FIRST_FREE_PORT);

		translated->source_port = bpf_htons(port);
		if (reply_tuple_is_free())
			return 1;
	}
	return 0;
}

/* The differences that translation makes in checksums, computed once for all packets of the connection. */
static __always_inline void nat_csum_deltas(struct packet *packet)
{
	const struct flow_tuple *from = &packet->headers.tuple;
	struct ct_entry *entry = &packet->ct.entry;

	if (flow_tuple_equals(from, &entry->translated))
		return;
	entry->flags |= CT_TRANSLATE;
	entry->address_csum_delta = csum_address_delta(from, &entry->translated);
	entry->port_csum_delta = csum_port_delta(from, &entry->translated);
}

/* Decides the translated tuple of packet->ct.entry; nothing is inserted in any table yet. */
static __always_inline __must_check int ct_choose_translation(struct __sk_buff *skb, struct packet *packet)
{
	int is_free;

	packet->ct.entry.translated = packet->headers.tuple;
	packet->ct.entry.service = packet->lb.service.id;
	if (packet->lb.service.id) {
		is_free = nat_try_backends(packet);
		if (!is_free && !nat_to_backend(packet, packet->lb.backend))
			return -REASON_NO_BACKEND;
	} else {
		is_free = reply_tuple_is_free();
	}

	int is_relayed = external_relay(skb);

	if (is_relayed < 0)
		return is_relayed;
	if (is_relayed || masquerade(skb))
		return 0;
	/* A link's own flows are not translated: their addresses here are not those of the packet. */
	if (!is_free && (flow_tuple_is_scoped(&packet->headers.tuple) || !nat_try_ports(packet)))
		return -REASON_NO_SOURCE_PORT;
	nat_csum_deltas(packet);
	return 0;
}

#endif
