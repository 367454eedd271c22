/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * NAT: makes a packet what its conntrack entry says. The network header is in the linear part and written in place; a
 * transport header by helpers wherever it is (nat_transport), or in place on the fast path (nat_linear_transport).
 */
#ifndef DPD_NAT_H
#define DPD_NAT_H

#include "../mechanism/csum.h"

/* Destination and source MAC, network header with its checksum, and TTL, of a packet that is delivered so. */
static __always_inline __must_check int nat_network(struct __sk_buff *skb, const struct ct_entry *entry,
						    int family, int delivery)
{
	int is_forwarded = delivery != DELIVERY_PASS && delivery != DELIVERY_LINK;
	__u8 *data = (void *)(long)skb->data;
	__u8 *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)data;

	if (family == 4) {
		struct iphdr *ip = (void *)(data + ETH_HLEN);

		if ((void *)(ip + 1) > (void *)end)
			return -REASON_INVALID_PACKET;

		__u32 difference = 0;

		if (entry->flags & CT_TRANSLATE) {
			ip->saddr = address_to_ipv4(&entry->translated.source);
			ip->daddr = address_to_ipv4(&entry->translated.destination);
			difference = entry->address_csum_delta;
		}
		if (is_forwarded) {
			ip->ttl--;
			difference = (__u32)csum_fold(difference) + (__u16)~bpf_htons(0x0100);
		}
		ip->check = csum_adjust(ip->check, difference);
	} else {
		struct ipv6hdr *ip = (void *)(data + ETH_HLEN);

		if ((void *)(ip + 1) > (void *)end)
			return -REASON_INVALID_PACKET;
		if (entry->flags & CT_TRANSLATE) {
			__builtin_memcpy(&ip->saddr, &entry->translated.source, 16);
			__builtin_memcpy(&ip->daddr, &entry->translated.destination, 16);
		}
		if (is_forwarded)
			ip->hop_limit--;
	}
	if (is_forwarded) {
		__builtin_memcpy(eth->h_dest, entry->dst_mac, ETH_ALEN);
		__builtin_memcpy(eth->h_source, entry->src_mac, ETH_ALEN);
	}
	return 0;
}

/* -- By helpers ----------------------------------------------------------------------------------------------------- */

static __always_inline __must_check int nat_checksum(struct __sk_buff *skb, const struct ct_entry *entry,
						     __u32 transport)
{
	__u8 protocol = entry->translated.protocol;
	int offset = csum_transport_offset(protocol);
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	if (offset < 0)
		return 0;
	if (bpf_l4_csum_replace(skb, transport + offset, 0, entry->address_csum_delta,
				flags | BPF_F_PSEUDO_HDR))
		return -REASON_INVALID_PACKET;
	if (entry->port_csum_delta &&
	    bpf_l4_csum_replace(skb, transport + offset, 0, entry->port_csum_delta, flags))
		return -REASON_INVALID_PACKET;
	return 0;
}

static __always_inline int is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* The identifier of an echo, which has another in SNAT. ICMP's checksum covers that and no addresses; ICMPv6's is done. */
static __always_inline __must_check int nat_echo(struct __sk_buff *skb, const struct ct_entry *entry,
						 __u32 transport)
{
	const struct flow_tuple *translated = &entry->translated;
	__be16 id = translated->source_port | translated->destination_port; /* one of them is zero */

	if (translated->protocol == IPPROTO_ICMP &&
	    bpf_l4_csum_replace(skb, transport + offsetof(struct icmphdr, checksum), 0,
				entry->port_csum_delta, 0))
		return -REASON_INVALID_PACKET;
	return bpf_skb_store_bytes(skb, transport + offsetof(struct icmphdr, rest), &id, sizeof(id), 0)
		       ? -REASON_INVALID_PACKET
		       : 0;
}

/* The transport header, wherever it is: checksum first, since the helper may move the packet, then the ports. */
static __always_inline __must_check int nat_transport(struct __sk_buff *skb, const struct ct_entry *entry,
						      __u32 transport)
{
	int result = nat_checksum(skb, entry, transport);

	if (!result && entry->port_csum_delta && is_icmp(entry->translated.protocol))
		return nat_echo(skb, entry, transport);
	if (!result && entry->port_csum_delta &&
	    bpf_skb_store_bytes(skb, transport, &entry->translated.source_port, 4, 0))
		result = -REASON_INVALID_PACKET;
	return result;
}

/* -- In place, behind a network header of fixed length -------------------------------------------------------------- */

static __always_inline int network_header_length(int family)
{
	return family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

static __always_inline __must_check int
nat_linear_checksum(struct __sk_buff *skb, const struct ct_entry *entry, int state, int family)
{
	int is_udp = entry->translated.protocol == IPPROTO_UDP;
	int offset = csum_transport_offset(entry->translated.protocol);
	__u16 *checksum = (void *)(long)skb->data + ETH_HLEN + network_header_length(family) + offset;

	if (offset < 0)
		return 0;
	if ((void *)(checksum + 1) > (void *)(long)skb->data_end)
		return -REASON_INVALID_PACKET;
	if (is_udp && !*checksum)
		return 0; /* its sender made none (RFC 768) */
	*checksum = csum_translated(*checksum, entry, state);
	if (is_udp && !*checksum)
		*checksum = 0xffff;
	return 0;
}

static __always_inline __must_check int nat_linear_ports(struct __sk_buff *skb, const struct ct_entry *entry,
							 int family)
{
	__u8 *ports = (void *)(long)skb->data + ETH_HLEN + network_header_length(family);

	if (ports + 4 > (__u8 *)(long)skb->data_end)
		return -REASON_INVALID_PACKET;
	*(__be16 *)ports = entry->translated.source_port;
	*(__be16 *)(ports + 2) = entry->translated.destination_port;
	return 0;
}

/* The transport header of the fast path: in place as far as the kernel reveals how the checksum stands. */
static __always_inline __must_check int
nat_linear_transport(struct __sk_buff *skb, const struct ct_entry *entry, __u32 transport, int family)
{
	int state = csum_state(skb);
	int result;

	if (csum_is_in_place(state, family))
		result = nat_linear_checksum(skb, entry, state, family);
	else
		result = nat_checksum(skb, entry, transport);
	if (!result && entry->port_csum_delta)
		result = nat_linear_ports(skb, entry, family);
	return result;
}

#endif
