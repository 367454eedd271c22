/* SPDX-License-Identifier: GPL-2.0-only */
/* The walk over IPv6 extension headers (RFC 8200, 4). */
#ifndef DPD_IPV6_H
#define DPD_IPV6_H

#include "packet.h"

enum { IPV6_HEADERS_MAX = 8 };

/* How far the walk has come, and what it saw. */
struct ipv6_walk {
	__u32 offset; /* of the header that `protocol` names */
	__u32 fragment_id;
	__u8 protocol;
	__u8 fragment; /* enum fragment_kind */
	__u8 is_source_routed; /* a routing header has segments left */
	__u8 pad;
};

static __always_inline int ipv6_is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_AH;
}

static __always_inline void ipv6_take_fragment(struct ipv6_walk *walk, const __u8 *header)
{
	__u16 field = bpf_ntohs(*(__be16 *)(header + 2));

	walk->fragment_id = *(__u32 *)(header + 4);
	if (field & IP6_OFFSET)
		walk->fragment = FRAGMENT_LATER;
	else if (field & IP6_MF)
		walk->fragment = FRAGMENT_FIRST; /* else it is whole: an atomic fragment, RFC 6946 */
}

/* From the header after the fixed one to the transport header, or to the payload of a later fragment. */
static __noinline __must_check int ipv6_walk(struct __sk_buff *skb, struct ipv6_walk *walk)
{
	for (int i = 0; i < IPV6_HEADERS_MAX; i++) {
		__u8 header[8] __attribute__((aligned(8)));

		if (!ipv6_is_extension(walk->protocol) || walk->fragment == FRAGMENT_LATER)
			return 0;
		if (bpf_skb_load_bytes(skb, walk->offset, header, sizeof(header)))
			return -REASON_INVALID_PACKET;
		if (walk->protocol == IPPROTO_FRAGMENT) {
			ipv6_take_fragment(walk, header);
			walk->offset += 8;
		} else if (walk->protocol == IPPROTO_AH) {
			walk->offset += (header[1] + 2) * 4;
		} else {
			walk->offset += (header[1] + 1) * 8;
		}
		if (walk->protocol == IPPROTO_ROUTING && header[3])
			walk->is_source_routed = 1;
		walk->protocol = header[0];
	}
	return ipv6_is_extension(walk->protocol) ? -REASON_IPV6_EXTENSION : 0;
}

#endif
