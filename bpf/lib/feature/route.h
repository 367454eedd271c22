/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Routes to what is no local workload: the kernel's own, looked up for each packet, so that a route, a next hop or its MAC
 * may change while traffic runs.
 */
#ifndef DPD_ROUTE_H
#define DPD_ROUTE_H

#include "../mechanism/address.h"

/* What the kernel's routes say of a packet. */
enum route_result {
	ROUTE_FORWARD = 0, /* to route.ifindex and its next hop */
	ROUTE_STACK = 1, /* for the host itself, or the kernel must do what we can't */
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

/* Looks up the route from this interface; `length` as route_length() says. */
static __noinline int route_find(struct __sk_buff *skb, const struct flow_tuple *tuple, __u32 length,
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
	long result;

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
	result = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	switch (result) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* bpf_redirect_neigh resolves it */
		break;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		route->mtu = fib.mtu_result;
		return ROUTE_TOO_BIG;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return ROUTE_NONE;
	default:
		return ROUTE_STACK; /* the host's own address, no forwarding, a tunnel */
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
