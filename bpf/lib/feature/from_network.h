/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What comes from the network, once it has an Ethernet header: the same for every kind of uplink. The host's own traffic arrives
 * here too: all that is not a workload's or a service's passes, and only its addresses are read, at addresses of frontends the port,
 * too; of what is sent to an address of the host's that SNAT takes, or that has frontends, the chain reads what the fast path
 * can't (fragments, errors, options).
 */
#ifndef DPD_FROM_NETWORK_H
#define DPD_FROM_NETWORK_H

#include "../mechanism/chain.h"
#include "announce.h"
#include "fastpath.h"
#include "service.h"
#include "takeover.h"

/* For whom a packet from the network is. */
enum receiver {
	RECEIVER_OTHER = 0, /* the host, or somebody behind it that dpd does not serve */
	RECEIVER_WORKLOAD = 1, /* of this host, be its interface there or not */
	RECEIVER_SERVICE = 2, /* a frontend that the network reaches */
	RECEIVER_BY_PORT = 3, /* such a one, or the host */
	RECEIVER_STRAY = 4, /* one of these at an address of the host's, or the host: the chain knows */
};

/* By an address and what the fast path has seen. During a takeover a packet's entry may be in the previous tables alone. */
static __always_inline enum receiver receiver_of_address(__u32 slot, const struct address *address, int seen)
{
	const struct ipcache_entry *owner = ipcache_find(slot, address);

	if (owner && (owner->scope == SCOPE_ENDPOINT || owner->scope == SCOPE_PENDING))
		return RECEIVER_WORKLOAD;
	if (owner && owner->external_frontend == EXTERNAL_FRONTEND_ROUTED)
		return RECEIVER_SERVICE;
	if (seen == SEEN_TRANSLATED)
		return RECEIVER_STRAY; /* also at an address that the host has had */
	if (!owner)
		return RECEIVER_OTHER;
	if (seen == SEEN_NOTHING || takeover_is_active())
		return owner->snat >= SNAT_HOST || owner->external_frontend ? RECEIVER_STRAY : RECEIVER_OTHER;
	return owner->external_frontend ? RECEIVER_BY_PORT : RECEIVER_OTHER;
}

/* Whether connections of ours have a protocol; of IPv6's extension headers, whether such a one may come behind it. */
static __always_inline int stray_has_protocol(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
	case IPPROTO_SCTP:
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
		return 1;
	}
	return 0;
}

/* Where a packet is sent, by its fixed header. Zero: to nobody of ours. */
static __always_inline int read_destination(struct __sk_buff *skb, struct address *destination)
{
	__be32 ipv4;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &ipv4, sizeof(ipv4)))
			return 0;
		*destination = address_from_ipv4(ipv4);
		return 1;
	}
	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), destination,
			       sizeof(*destination)))
		return 0;
	return !address_is_mapped(destination); /* the tables would take it for IPv4 */
}

/* The protocol in a packet's fixed header. */
static __always_inline int read_protocol(struct __sk_buff *skb, struct flow_tuple *tuple)
{
	__u32 at = skb->protocol == bpf_htons(ETH_P_IP) ? offsetof(struct iphdr, protocol)
							: offsetof(struct ipv6hdr, nexthdr);

	return !bpf_skb_load_bytes(skb, ETH_HLEN + at, &tuple->protocol, 1);
}

/* The port of a packet that the fast path could read: it has no options, extension headers or fragments. */
static __always_inline int read_port(struct __sk_buff *skb, struct flow_tuple *tuple)
{
	__u32 transport =
		skb->protocol == bpf_htons(ETH_P_IP) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	return !bpf_skb_load_bytes(skb, ETH_HLEN + transport + offsetof(struct udphdr, dest),
				   &tuple->destination_port, sizeof(tuple->destination_port));
}

/* For whom a packet is whose address alone does not say so. */
static __noinline enum receiver receiver_by_transport(struct __sk_buff *skb, __u32 slot,
						      const struct address *destination,
						      enum receiver by_address)
{
	struct flow_tuple tuple = { .destination = *destination };

	if (!read_protocol(skb, &tuple))
		return RECEIVER_OTHER;
	if (by_address == RECEIVER_STRAY)
		return stray_has_protocol(tuple.protocol) ? RECEIVER_STRAY : RECEIVER_OTHER;
	return read_port(skb, &tuple) && service_is_external(slot, &tuple) ? RECEIVER_SERVICE
									   : RECEIVER_OTHER;
}

/* In the hook itself, up to where the address says it: a call would cost each packet that the host receives. */
static __always_inline enum receiver receiver_of_packet(struct __sk_buff *skb, __u32 slot, int seen)
{
	struct address destination;

	if (!read_destination(skb, &destination))
		return RECEIVER_OTHER;

	enum receiver receiver = receiver_of_address(slot, &destination, seen);

	if (likely(receiver < RECEIVER_BY_PORT) || seen == SEEN_TRANSLATED)
		return receiver;
	return receiver_by_transport(skb, slot, &destination, receiver);
}

/* The way of an IP packet that was sent to this host, behind an Ethernet header. `hook` is a constant. */
static __always_inline int from_network(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	int seen = SEEN_NOTHING;
	enum receiver receiver = RECEIVER_WORKLOAD;
	int result = fastpath(skb, hook, epoch, &seen);

	if (likely(result == ACTION_REDIRECT))
		return TC_ACT_REDIRECT;
	takeover_all(skb, hook, epoch);
	/* A solicitation that is sent to the host alone: a neighbour looks whether the address is still there. */
	if (hook == HOOK_FROM_NETDEV && !result && seen == SEEN_NOTHING)
		announce(skb, hook, epoch);
	if (result == ACTION_PASS)
		return HOOK_NEXT;
	if (result == ACTION_CONTINUE) {
		receiver = receiver_of_packet(skb, generation_slot(epoch), seen);
		if (likely(receiver == RECEIVER_OTHER))
			return HOOK_NEXT;
	}

	struct packet *packet = packet_init(skb, hook, epoch);

	if (!packet)
		return TC_ACT_SHOT; /* a per-CPU array always has its row 0 */
	packet->is_stray = receiver == RECEIVER_STRAY;
	if (receiver != RECEIVER_WORKLOAD)
		packet->hook.first_step = STEP_LB;
	return step_finish(skb, packet, result,
			   skb->protocol == bpf_htons(ETH_P_IP) ? STEP_HANDLE_IPV4 : STEP_HANDLE_IPV6);
}

#endif
