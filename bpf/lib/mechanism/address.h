/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses of both families as 128 bits, and flow tuples of them. */
#ifndef DPD_ADDRESS_H
#define DPD_ADDRESS_H

#include "../../abi.h"

/* Bytes 8 to 11 of an IPv4-mapped address are 00 00 ff ff, in memory order. */
#define ADDRESS_MAPPED ((__u64)bpf_htonl(0x0000ffff))

static __always_inline struct address address_from_ipv4(__be32 ipv4)
{
	return (struct address){ .word = { 0, ADDRESS_MAPPED | (__u64)ipv4 << 32 } };
}

static __always_inline __be32 address_to_ipv4(const struct address *address)
{
	return address->word[1] >> 32;
}

/* Reads 16 bytes of a packet, wherever they are aligned. */
static __always_inline struct address address_from_ipv6(const void *bytes)
{
	struct address address;

	__builtin_memcpy(&address, bytes, sizeof(address));
	return address;
}

static __always_inline int address_is_mapped(const struct address *address)
{
	return !address->word[0] && (__u32)address->word[1] == (__u32)ADDRESS_MAPPED;
}

static __always_inline int address_equals(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

static __always_inline int address_is_unspecified(const struct address *address)
{
	return !address->word[0] && (!address->word[1] || address->word[1] == ADDRESS_MAPPED);
}

/* 0.0.0.0/8 (RFC 6890), :: */
static __always_inline int address_is_of_no_host(const struct address *address)
{
	if (address_is_mapped(address))
		return !(bpf_ntohl(address_to_ipv4(address)) >> 24);
	return address_is_unspecified(address);
}

/* 224.0.0.0/4, 255.255.255.255, ff00::/8 */
static __always_inline int address_is_multicast(const struct address *address)
{
	if (address_is_mapped(address)) {
		__u32 ipv4 = bpf_ntohl(address_to_ipv4(address));

		return ipv4 >> 28 == 0xe || ipv4 == 0xffffffff;
	}
	return bpf_be64_to_cpu(address->word[0]) >> 56 == 0xff;
}

/* ff02::1 */
static __always_inline struct address address_all_nodes(void)
{
	return (struct address){ .word = { bpf_cpu_to_be64(0xff02ULL << 48), bpf_cpu_to_be64(1) } };
}

/* fe80::/10 */
static __always_inline int address_is_link_local(const struct address *address)
{
	return bpf_be64_to_cpu(address->word[0]) >> 54 == 0xfe80 >> 6;
}

/*
 * A link-local address is unique on its link alone. In our tables, never in a packet, it has the ifindex of the link in bytes 4 to
 * 7, which are zero on the wire (RFC 4291, 2.5.6), as the stacks of the KAME project have it.
 */
static __always_inline int address_is_scoped(const struct address *address)
{
	return address_is_link_local(address) && address->word[0] >> 32;
}

static __always_inline struct address address_scope(const struct address *address, __u32 link)
{
	struct address scoped = *address;

	if (address_is_link_local(address))
		scoped.word[0] |= (__u64)bpf_htonl(link) << 32;
	return scoped;
}

/* As it is in a packet. */
static __always_inline struct address address_unscope(const struct address *address)
{
	struct address wire = *address;

	if (address_is_link_local(address))
		wire.word[0] = (__u32)wire.word[0];
	return wire;
}

/* 127.0.0.0/8, ::1 */
static __always_inline int address_is_loopback(const struct address *address)
{
	if (address_is_mapped(address))
		return bpf_ntohl(address_to_ipv4(address)) >> 24 == 127;
	return !address->word[0] && address->word[1] == bpf_cpu_to_be64(1);
}

static __always_inline struct flow_tuple flow_tuple_reverse(const struct flow_tuple *tuple)
{
	return (struct flow_tuple){
		.source = tuple->destination,
		.destination = tuple->source,
		.source_port = tuple->destination_port,
		.destination_port = tuple->source_port,
		.protocol = tuple->protocol,
	};
}

static __always_inline int flow_tuple_equals(const struct flow_tuple *a, const struct flow_tuple *b)
{
	return address_equals(&a->source, &b->source) && address_equals(&a->destination, &b->destination) &&
	       a->source_port == b->source_port && a->destination_port == b->destination_port &&
	       a->protocol == b->protocol;
}

/* Whether one of its addresses means nothing beyond its link. */
static __always_inline int flow_tuple_is_scoped(const struct flow_tuple *tuple)
{
	return address_is_scoped(&tuple->source) || address_is_scoped(&tuple->destination);
}

#endif
