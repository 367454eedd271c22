/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way to what is no local workload: the kernel's own routes, asked for each packet, so that a route, a next hop or
 * its MAC may change while traffic runs.
 */
#ifndef DPD_ROUTE_H
#define DPD_ROUTE_H

#include "conntrack.h"

/* What the kernel's routes say of a packet. */
enum route_answer {
	ROUTE_FORWARD = 0, /* to route.ifindex and its next hop */
	ROUTE_STACK = 1, /* the kernel wants it itself, or must do what we can't */
	ROUTE_TOO_BIG = 2, /* for route.mtu */
	ROUTE_NONE = 3,
};

struct route {
	struct bpf_redir_neigh next;
	__u32 ifindex;
	__u32 mtu;
};

enum {
	GSO_BY_FRAGS = 0xffff
}; /* the length of each segment is its own: SCTP has cut them to the path already */

/*
 * The longest packet that this one becomes on the wire: what segmentation leaves, if it is to be segmented. `headers`
 * counts from the network header to the payload. 0: there is nothing to ask.
 */
static __always_inline __u32 route_length(const struct __sk_buff *skb, __u32 length, __u32 headers)
{
	__u32 segment = skb->gso_size;

	if (segment == GSO_BY_FRAGS)
		return 0;
	return segment ? headers + segment : length;
}

/* Asks for the way from this interface; `length` as route_length() says. */
static __noinline int route_find(struct __sk_buff *skb, const struct tuple *tuple, __u32 length,
				 struct route *route)
{
	struct bpf_fib_lookup fib = {
		.ifindex = skb->ifindex,
		.l4_protocol = tuple->protocol,
		.sport = tuple->source_port,
		.dport = tuple->destination_port,
		.tot_len = length,
	};
	int ipv4 = address_is_mapped(&tuple->destination);
	long answer;

	if (address_is_link_local(&tuple->destination))
		return ROUTE_STACK; /* of this link; the routes would name any */
	if (ipv4) {
		fib.family = AF_INET;
		fib.ipv4_src = address_to_ipv4(&tuple->source);
		fib.ipv4_dst = address_to_ipv4(&tuple->destination);
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, &tuple->source, 16);
		__builtin_memcpy(fib.ipv6_dst, &tuple->destination, 16);
	}
	answer = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	switch (answer) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* bpf_redirect_neigh asks for it */
		break;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		route->mtu = fib.mtu_result;
		return ROUTE_TOO_BIG;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return ROUTE_NONE;
	default:
		return ROUTE_STACK; /* its own address, no forwarding, a tunnel */
	}
	route->ifindex = fib.ifindex;
	/* An IPv4 packet's next hop may be an IPv6 address (RFC 9229): then the lookup has changed the family. */
	route->next.nh_family = fib.family;
	if (fib.family == AF_INET)
		route->next.ipv4_nh = fib.ipv4_dst;
	else
		__builtin_memcpy(route->next.ipv6_nh, fib.ipv6_dst, 16);
	return ROUTE_FORWARD;
}

#endif
