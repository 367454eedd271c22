/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checksums (RFC 1071, RFC 1624): of what changes, of what dpd builds, and where a protocol keeps its own.
 *
 * A packet whose checksum its sender left to the hardware (CHECKSUM_PARTIAL) holds only the sum of the pseudo header.
 * bpf_l4_csum_replace knows that; where the kernel reveals it (since 6.2) the fast path changes the checksum in place, which
 * is faster. The IPv4 header's checksum is always complete.
 */
#ifndef DPD_CSUM_H
#define DPD_CSUM_H

#include "address.h"

enum { CSUM_CHUNK = 64 };

static __always_inline __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum after its data changed by `difference` (RFC 1624). */
static __always_inline __u16 csum_adjust(__u16 checksum, __u32 difference)
{
	return ~csum_fold((__u16)~checksum + csum_fold(difference));
}

/* The one's complement difference between two tuples' addresses. */
static __always_inline __u32 csum_address_delta(const struct flow_tuple *from, const struct flow_tuple *to)
{
	return bpf_csum_diff((__be32 *)&from->source, 32, (__be32 *)&to->source, 32, 0);
}

/* The same of their ports; 0: they are the same. */
static __always_inline __u32 csum_port_delta(const struct flow_tuple *from, const struct flow_tuple *to)
{
	if (from->source_port == to->source_port && from->destination_port == to->destination_port)
		return 0;
	return bpf_csum_diff((__be32 *)&from->source_port, 4, (__be32 *)&to->source_port, 4, 0);
}

/* Where a protocol keeps its checksum, from the transport header on; -1: it has none that depends on what we change. */
static __always_inline int csum_transport_offset(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return offsetof(struct tcphdr, check);
	if (protocol == IPPROTO_UDP)
		return offsetof(struct udphdr, check);
	if (protocol == IPPROTO_ICMPV6)
		return offsetof(struct icmp6hdr, icmp6_cksum);
	return -1;
}

/* CHECKSUM_* of the packet; -1: this kernel does not reveal it. */
static __always_inline int csum_state(struct __sk_buff *skb)
{
	if (!bpf_ksym_exists(bpf_cast_to_kern_ctx))
		return -1;

	const struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);

	return BPF_CORE_READ_BITFIELD(kernel, ip_summed);
}

/*
 * Whether a transport checksum may be changed in place, without the helper. Where the kernel holds a sum over all of the
 * packet (CHECKSUM_COMPLETE), IPv4 needs the helper to update it. In IPv6 translation does not change that sum: the
 * differences of addresses and checksum cancel each other.
 */
static __always_inline int csum_is_in_place(int state, int family)
{
	return state >= 0 && (state != CHECKSUM_COMPLETE || family == 6);
}

/*
 * Whether the checksum at this offset is partial. Where the kernel does not reveal that, the helper does: it changes a complete one
 * alone, which the caller overwrites.
 */
static __always_inline int csum_is_partial(struct __sk_buff *skb, __u32 offset)
{
	int state = csum_state(skb);
	__be16 before = 0;
	__be16 after = 0;

	if (state >= 0)
		return state == CHECKSUM_PARTIAL;
	bpf_skb_load_bytes(skb, offset, &before, sizeof(before));
	bpf_l4_csum_replace(skb, offset, 0, 1, sizeof(__be32));
	bpf_skb_load_bytes(skb, offset, &after, sizeof(after));
	return before == after;
}

/* A transport checksum after translation, as the helper would leave it. A partial one does not cover the ports yet. */
static __always_inline __u16 csum_translated(__u16 checksum, const struct ct_entry *entry, int state)
{
	__u32 addresses = csum_fold(entry->address_csum_delta);

	if (state == CHECKSUM_PARTIAL)
		return csum_fold(checksum + addresses);
	return csum_adjust(checksum, addresses + csum_fold(entry->port_csum_delta));
}

/*
 * The sum of a pseudo header. IPv4's has no mapped prefix, but 0x0000ffff adds zero in one's complement (RFC 1071), so
 * one sum serves both families.
 */
static __always_inline __u32 csum_pseudo_header(const struct address *source,
						const struct address *destination, __u32 length,
						__u8 protocol)
{
	struct {
		struct address source, destination;
		__be32 length, protocol;
	} pseudo = { *source, *destination, bpf_htonl(length), bpf_htonl(protocol) };

	return bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
}

/* Adds up to CSUM_CHUNK bytes of the packet to a sum. Global: it is verified once, not once for each turn of a loop. */
__weak __noinline __u32 csum_packet_chunk(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 sum)
{
	__u8 chunk[CSUM_CHUNK] __attribute__((aligned(8))) = {};

	if (!length)
		return sum;
	if (length > CSUM_CHUNK)
		length = CSUM_CHUNK;
	/* The verifier of 6.1 does not learn from the comparison with zero that there is at least one byte. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & (CSUM_CHUNK - 1)) + 1;
	if (bpf_skb_load_bytes(skb, offset, chunk, length))
		return sum;
	return bpf_csum_diff(0, 0, (__be32 *)chunk, CSUM_CHUNK, sum);
}

/* Adds `length` bytes of the packet from `offset` on to a sum, 1280 at most. */
static __always_inline __u32 csum_packet(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 sum)
{
	for (__u32 done = 0; done < 1280; done += CSUM_CHUNK) {
		if (done >= length)
			break;
		sum = csum_packet_chunk(skb, offset + done, length - done, sum);
	}
	return sum;
}

#endif
