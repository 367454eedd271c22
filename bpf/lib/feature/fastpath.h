/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fast path, which most packets take, in the hook itself: one lookup, NAT, delivery. No service, policy, ipcache or
 * endpoint lookup: the entry holds their results for as long as its epoch is the live one and its packets arrive where it
 * says, which is the source check.
 *
 * What needs more (options, extension headers, fragments, ICMP errors, a SYN that opens a connection, an expiring TTL, headers
 * outside the linear part) takes the slow path: the chain.
 */
#ifndef DPD_FASTPATH_H
#define DPD_FASTPATH_H

#include "../mechanism/parse.h"
#include "conntrack.h"
#include "ct_commit.h"
#include "delivery.h"
#include "nat.h"
#include "snat.h"

static __always_inline int fast_parse_ipv4(struct linear_headers *headers, const __u8 *data, const __u8 *end,
					   __u32 available)
{
	const struct iphdr *ip = (void *)(data + ETH_HLEN);

	if ((void *)(ip + 1) > (void *)end)
		return 0;
	if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(IP4_MF | IP4_OFFSET) || ip->ttl <= 1)
		return 0;
	return linear_parse_ipv4(headers, ip, available);
}

static __always_inline int fast_parse_ipv6(struct linear_headers *headers, const __u8 *data, const __u8 *end,
					   __u32 available)
{
	const struct ipv6hdr *ip = (void *)(data + ETH_HLEN);

	if ((void *)(ip + 1) > (void *)end || ip->hop_limit <= 1)
		return 0;
	if (!linear_parse_ipv6(headers, ip, available))
		return 0;
	return !address_is_mapped(&headers->tuple.source) && !address_is_mapped(&headers->tuple.destination);
}

/* Not zero: all that the fast path needs was there. */
static __always_inline int fast_parse(struct __sk_buff *skb, struct linear_headers *headers)
{
	const __u8 *data = (void *)(long)skb->data;
	const __u8 *end = (void *)(long)skb->data_end;
	__u32 available = skb->len - ETH_HLEN;
	const __u8 *transport;
	__s32 left;

	if (skb->vlan_present)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!fast_parse_ipv4(headers, data, end, available))
			return 0;
		transport = data + ETH_HLEN + sizeof(struct iphdr);
		left = (__s32)headers->length - (__s32)sizeof(struct iphdr);
		headers->transport = ETH_HLEN + sizeof(struct iphdr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!fast_parse_ipv6(headers, data, end, available))
			return 0;
		transport = data + ETH_HLEN + sizeof(struct ipv6hdr);
		left = (__s32)headers->length - (__s32)sizeof(struct ipv6hdr);
	} else {
		return 0;
	}
	return linear_parse_ports(headers, transport, end, left) ||
	       linear_parse_echo(headers, transport, end, left);
}

/* Reports a packet of the fast path. Global: it is verified once, not once for each way to it. */
__weak __noinline int fastpath_report(const struct linear_headers *headers, const struct ct_entry *entry,
				      const struct hook_row *hook, const struct delivered *delivered)
{
	if (!headers || !entry || !hook || !delivered)
		return 0; /* never: the verifier can't know */

	struct event_subject subject = {
		.now_ns = bpf_ktime_get_ns(),
		.epoch = entry->epoch,
		.tuple = &headers->tuple,
		.entry = entry,
		.length = headers->length,
		.tcp_flags = headers->tcp.flags,
	};

	delivery_report(&subject, hook, delivered);
	return 0;
}

/*
 * A packet that renews its entry or is reported: the first in a second, one that changes the connection, one whose report is
 * due. Zero if the connection has expired, or has lost its port: then the packet is not its. Global: it is verified once, not
 * once for each table that the entry may be from.
 */
__weak __noinline int fastpath_update(struct __sk_buff *skb, const struct linear_headers *headers,
				      struct ct_entry *entry, const struct hook_row *hook,
				      __u32 route_ifindex)
{
	if (!headers || !entry || !hook)
		return 0; /* never: the verifier can't know */
	if (entry->flags & CT_SNAT && snat_is_lost(skb, entry, &headers->tuple))
		return 0;

	const struct settings *settings = settings_find(entry->epoch);
	__u64 now_ns = bpf_ktime_get_coarse_ns();

	if (!settings)
		return 0;

	int update = ct_update_pair(entry, &headers->tuple, &headers->tcp, now_ns);

	if (update & CT_UPDATE_EXPIRED)
		return 0;

	int is_due = event_is_due(entry, settings, now_ns, update & CT_UPDATE_FRESH);

	ct_schedule_update(entry, settings, now_ns, bpf_jiffies64());
	if (!is_due)
		return 1;

	struct delivered delivered = {
		.ifindex = skb->ifindex,
		.route_ifindex = route_ifindex,
		.delivery = entry->delivery,
	};

	fastpath_report(headers, entry, hook, &delivered);
	return 1;
}

/*
 * The last act of the hook for a packet whose connection did not work before: if it does now, the connection moves to its protocol's
 * table, and `entry` is deleted. Global: it is verified once.
 */
__weak __noinline int fastpath_promote(const struct linear_headers *headers, const struct ct_entry *entry)
{
	struct packet *packet = packet_record(); /* for its room: the stack has none */

	if (!headers || !entry || !packet)
		return 0; /* never: the verifier can't know */

	const struct settings *settings = settings_find(entry->epoch);

	if (!settings || entry->flags & CT_ASSURED)
		return 0;
	packet->headers.tuple = headers->tuple;
	packet->headers.tcp = headers->tcp;
	packet->now_ns = bpf_ktime_get_coarse_ns();
	packet->now_jiffies = bpf_jiffies64();
	ct_promote(packet, entry, settings);
	return 0;
}

/* The route of a connection with SNAT. Global: it is verified once, and the hook has no room for another tuple. */
__weak __noinline int fastpath_snat_route(struct __sk_buff *skb, const struct linear_headers *headers,
					  const struct ct_entry *entry, __u32 length, struct route *route)
{
	if (!headers || !entry || !route)
		return ROUTE_STACK; /* never: the verifier can't know */

	struct flow_tuple routed = ct_routed_tuple(entry, &headers->tuple);

	return route_find(skb, &routed, length, route);
}

static __always_inline int fastpath_route(struct __sk_buff *skb, const struct linear_headers *headers,
					  const struct ct_entry *entry, __u32 length, struct route *route)
{
	if (likely(!(entry->flags & CT_SNAT)))
		return route_find(skb, &entry->translated, length, route);
	return fastpath_snat_route(skb, headers, entry, length, route);
}

/* A state that any packet ends. */
static __always_inline int ct_is_transient(const struct ct_entry *entry)
{
	return entry->state == CT_REPLIED || entry->state == CT_CLOSING;
}

/*
 * Sends a packet where its entry says; the result is that of fastpath(). In the hook itself: a call costs a packet twenty
 * nanoseconds, and the verifier has room for each table that the connection may lie in.
 */
static __always_inline int fastpath_send(struct __sk_buff *skb, struct linear_headers *headers,
					 struct ct_entry *entry, __u8 hook)
{
	struct route route = {};
	struct hook_row row = HOOKS[hook]; /* on the stack: the table itself is no map of ours */
	int delivery = HOOKS[hook].flags & HOOK_PASSES_ON ? DELIVERY_PASS : entry->delivery;
	__u32 length = route_length(skb, headers->length, headers->to_payload);
	int result = 0;

	if (unlikely(delivery != DELIVERY_PASS && entry->mtu && length > entry->mtu))
		return ACTION_CONTINUE; /* the slow path does whatever else has to be done, and reports it */
	if (delivery == DELIVERY_ROUTE || delivery == DELIVERY_NEIGHBOUR) {
		if (fastpath_route(skb, headers, entry, length, &route) || !route.is_resolved ||
		    route.ifindex != entry->link_ifindex)
			return ACTION_CONTINUE;
		if (delivery == DELIVERY_NEIGHBOUR) {
			if (unlikely(bpf_jiffies64() >= entry->next_update_jiffies) &&
			    neighbour_is_due(&route, bpf_ktime_get_coarse_ns()))
				return ACTION_CONTINUE;
			__builtin_memcpy(entry->dst_mac, route.mac, sizeof(entry->dst_mac));
		}
	}
	if (unlikely(headers->tcp.flags & TCP_NOTED || ct_is_transient(entry) ||
		     bpf_jiffies64() >= entry->next_update_jiffies) &&
	    !fastpath_update(skb, headers, entry, &row, route.ifindex))
		return ACTION_CONTINUE;
	if (entry->flags & CT_TRANSLATE)
		result = nat_linear_transport(skb, entry, headers->transport, headers->family);
	if (!result)
		result = nat_network(skb, entry, headers->family, delivery);
	if (result)
		return result;
	if ((headers->tcp.flags & (TCP_ACK | TCP_RST)) == TCP_ACK)
		ct_note_tcp_numbers(entry, &headers->tcp);
	__sync_fetch_and_add(&entry->packets, 1);
	__sync_fetch_and_add(&entry->bytes, headers->length);
	delivery_count(entry, entry->origin_counters, headers->length, delivery);
	return delivery_execute(skb, entry, &route, delivery);
}

/* Whose connection a packet is that is for the slow path, as far as the fast path has seen. */
enum fastpath_seen {
	SEEN_NOTHING = 0, /* it could not be read */
	SEEN_NO_ENTRY = 1,
	SEEN_ENTRY = 2,
	SEEN_TRANSLATED = 3, /* the same, and where it is sent may be an address of the host */
};

/*
 * An action, minus a reason, or ACTION_CONTINUE: the packet is for the slow path, and untouched. `hook` is a constant; `seen` is
 * enum fastpath_seen.
 */
static __always_inline __must_check int fastpath(struct __sk_buff *skb, __u8 hook, __u64 epoch, int *seen)
{
	struct linear_headers headers = {};

	if (!fast_parse(skb, &headers))
		return ACTION_CONTINUE;

	struct ct_entry *entry = ct_find_replied(&headers.tuple);
	int result;

	if (!entry)
		entry = bpf_map_lookup_elem(&dpd_ct_unreplied, &headers.tuple);
	*seen = SEEN_NO_ENTRY;
	if (!entry)
		return ACTION_CONTINUE;
	*seen = ct_is_at_host(entry) ? SEEN_TRANSLATED : SEEN_ENTRY;
	if (!epoch || entry->epoch != epoch || !ct_arrives_as_expected(entry, &HOOKS[hook], skb->ifindex) ||
	    entry->flags & CT_SLOW || (headers.tcp.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return ACTION_CONTINUE;
	if (HOOKS[hook].sender == PARTY_UPLINK && entry->flags & CT_VIA_STACK)
		return ACTION_PASS; /* dpd_to_container sees it, once the stack has */
	result = fastpath_send(skb, &headers, entry, hook);
	if (result && !entry->next_update_jiffies)
		fastpath_promote(&headers, entry);
	return result;
}

#endif
