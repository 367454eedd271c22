/* SPDX-License-Identifier: GPL-2.0-only */
/* Fragments: the first of a datagram stores its ports and protocol for the later ones. */
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
		.protocol = packet->headers.family == 4 ? tuple->protocol : 0,
	};

	if (packet->headers.fragment == FRAGMENT_FIRST) {
		struct fragment first = {
			.source_port = tuple->source_port,
			.destination_port = tuple->destination_port,
			.protocol = tuple->protocol,
		};

		bpf_map_update_elem(&dpd_fragments, &key, &first, BPF_ANY);
		return 0;
	}
	if (packet->headers.fragment == FRAGMENT_NONE)
		return 0;

	const struct fragment *first = bpf_map_lookup_elem(&dpd_fragments, &key);

	if (!first)
		return -REASON_FRAGMENT_NOT_FOUND;
	tuple->source_port = first->source_port;
	tuple->destination_port = first->destination_port;
	tuple->protocol = first->protocol;
	return 0;
}

#endif
