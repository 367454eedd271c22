/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Routes to what is no local workload: the kernel's own, looked up for each packet, so that a route, a next hop or its MAC
 * may change while traffic runs.
 */
#ifndef DPD_ROUTE_H
#define DPD_ROUTE_H

#include "../mechanism/packet.h"

/* The length of no packet in particular: it is too big for no route. The kernel would take the packet's own for 0. */
enum { ROUTE_ANY_LENGTH = 1 };

/* What the kernel's routes say of a packet: struct route, and one of these. */
enum route_result {
	ROUTE_FORWARD = 0, /* to route.ifindex and its next hop */
	ROUTE_STACK = 1, /* for the host itself, or the kernel must do what we can't */
	ROUTE_TOO_BIG = 2, /* for route.mtu */
	ROUTE_UNREACHABLE = 3, /* an `unreachable` route */
	ROUTE_PROHIBITED = 4, /* `prohibit` */
	ROUTE_BLACKHOLE = 5,
};

enum {
	GSO_BY_FRAGS = 0xffff
}; /* segments have lengths of their own: SCTP has fitted them to the path already */

/*
 * The longest packet that this one becomes on the wire: a segment, if it is to be segmented. `to_payload` is the length from
 * the network header to the payload. 0: the MTU needs no check.
 */
static __always_inline __u32 route_length(const struct __sk_buff *skb, __u32 length, __u32 to_payload)
{
	__u32 segment = skb->gso_size;

	if (segment == GSO_BY_FRAGS)
		return 0;
	return segment ? to_payload + segment : length;
}

/* The question for a packet of this tuple, from or, with BPF_FIB_LOOKUP_OUTPUT, by an interface. */
static __always_inline struct bpf_fib_lookup route_question(const struct flow_tuple *tuple, __u32 ifindex,
							    __u32 length)
{
	struct bpf_fib_lookup fib = {
		.ifindex = ifindex,
		.l4_protocol = tuple->protocol,
		.sport = tuple->source_port,
		.dport = tuple->destination_port,
		.tot_len = length,
	};

	if (address_is_mapped(&tuple->destination)) {
		fib.family = AF_INET;
		fib.ipv4_src = address_to_ipv4(&tuple->source);
		fib.ipv4_dst = address_to_ipv4(&tuple->destination);
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, &tuple->source, 16);
		__builtin_memcpy(fib.ipv6_dst, &tuple->destination, 16);
	}
	return fib;
}

/* An IPv4 packet's next hop may be an IPv6 address (RFC 9229): then the lookup has changed the family. */
static __always_inline struct bpf_redir_neigh route_next_hop(const struct bpf_fib_lookup *fib)
{
	struct bpf_redir_neigh next = { .nh_family = fib->family };

	if (fib->family == AF_INET)
		next.ipv4_nh = fib->ipv4_dst;
	else
		__builtin_memcpy(next.ipv6_nh, fib->ipv6_dst, 16);
	return next;
}

static __always_inline int next_hop_equals(const struct bpf_redir_neigh *a, const struct bpf_redir_neigh *b)
{
	return a->nh_family == b->nh_family && a->ipv6_nh[0] == b->ipv6_nh[0] &&
	       a->ipv6_nh[1] == b->ipv6_nh[1] && a->ipv6_nh[2] == b->ipv6_nh[2] &&
	       a->ipv6_nh[3] == b->ipv6_nh[3];
}

/*
 * Whether the kernel comes to the same next hop when it knows the interface alone: then it has the route with the packet, and
 * tells the sender if nobody answers. Rules that look at where a packet came from may lead elsewhere.
 */
static __noinline int route_is_kernels(struct __sk_buff *skb, const struct flow_tuple *tuple,
				       const struct route *route)
{
	struct bpf_fib_lookup fib = route_question(tuple, route->ifindex, 0);
	long result = bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT);
	struct bpf_redir_neigh next = route_next_hop(&fib);

	return (result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	       fib.ifindex == route->ifindex && next_hop_equals(&next, &route->next);
}

/* What a lookup has found. */
static __always_inline int route_take(struct route *route, const struct bpf_fib_lookup *fib, long result)
{
	switch (result) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		__builtin_memcpy(route->mac, fib->dmac, ETH_ALEN);
		route->is_resolved = 1;
		route->mtu = fib->mtu_result;
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* bpf_redirect_neigh resolves it */
		break;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		route->mtu = fib->mtu_result;
		return ROUTE_TOO_BIG;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
		return ROUTE_BLACKHOLE;
	case BPF_FIB_LKUP_RET_UNREACHABLE:
		return ROUTE_UNREACHABLE;
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return ROUTE_PROHIBITED;
	default:
		return ROUTE_STACK; /* the host's own address, no forwarding, a tunnel */
	}
	route->ifindex = fib->ifindex;
	route->next = route_next_hop(fib);
	return ROUTE_FORWARD;
}

/* Looks up the route from this interface; `length` as route_length() says. */
static __noinline int route_find(struct __sk_buff *skb, const struct flow_tuple *tuple, __u32 length,
				 struct route *route)
{
	struct bpf_fib_lookup fib = route_question(tuple, skb->ifindex, length);

	if (address_is_link_local(&tuple->destination))
		return ROUTE_STACK; /* of this link; the routes would name any */
	return route_take(route, &fib, bpf_fib_lookup(skb, &fib, sizeof(fib), 0));
}

/*
 * The same of a packet of any length, and the source that the kernel takes for this route; unspecified where it names none, as before
 * Linux 6.7.
 */
static __noinline int route_find_with_source(struct __sk_buff *skb, const struct flow_tuple *tuple,
					     struct route *route, struct address *source)
{
	struct bpf_fib_lookup fib = route_question(tuple, skb->ifindex, ROUTE_ANY_LENGTH);
	long result;

	if (address_is_link_local(&tuple->destination))
		return ROUTE_STACK;
	result = bpf_fib_lookup(skb, &fib, sizeof(fib), FIB_LOOKUP_SRC);
	if (result < 0)
		result = bpf_fib_lookup(skb, &fib, sizeof(fib), 0); /* a refused flag has changed nothing */
	else if (result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH)
		*source = address_is_mapped(&tuple->destination) ? address_from_ipv4(fib.ipv4_src)
								 : address_from_ipv6(fib.ipv6_src);
	return route_take(route, &fib, result);
}

#endif
