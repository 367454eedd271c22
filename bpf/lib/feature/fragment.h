/* SPDX-License-Identifier: GPL-2.0-only */
/* Fragments: the first of a datagram stores its ports for the later ones, which have none. */
#ifndef DPD_FRAGMENT_H
#define DPD_FRAGMENT_H

#include "../mechanism/packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} dpd_fragments __weak SEC(".maps");

static __noinline __must_check int fragment_track(struct packet *packet)
{
	struct flow_tuple *tuple = &packet->headers.tuple;
	struct fragment_key key = {
		.source = tuple->source,
		.destination = tuple->destination,
		.id = packet->headers.fragment_id,
		.protocol = tuple->protocol,
	};

	if (packet->headers.fragment == FRAGMENT_FIRST) {
		struct fragment ports = { tuple->source_port, tuple->destination_port };

		bpf_map_update_elem(&dpd_fragments, &key, &ports, BPF_ANY);
		return 0;
	}
	if (packet->headers.fragment == FRAGMENT_NONE)
		return 0;

	const struct fragment *ports = bpf_map_lookup_elem(&dpd_fragments, &key);

	if (!ports)
		return -REASON_FRAGMENT_NOT_FOUND;
	tuple->source_port = ports->source_port;
	tuple->destination_port = ports->destination_port;
	return 0;
}

#endif
