/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SNAT to an address of the host: a source port for a connection whose replies come to the host. The ports are those that the
 * host's own sockets do not get by themselves (net.ipv4.ip_local_port_range), and a socket that has one anyway keeps it:
 *
 *	own	the row of the client's address and port
 *	random	SNAT_TRIES rows of the table
 *	search	all, in a random order, as long as this CPU has tried less than SNAT_SEARCH_MAX in this second
 *	replace	SNAT_TRIES again, of which one may be that of a connection that does not work and has been silent
 *
 * The last is for floods: what nobody acknowledges would keep all ports of a destination for as long as its entries last.
 *
 * The two entries of conntrack hold the translation: there is no other table that could disagree.
 */
#ifndef DPD_SNAT_H
#define DPD_SNAT_H

#include "host_socket.h"
#include "reply_tuple.h"
#include "service.h"

struct snat_ports_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct snat_port));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct snat_ports_table);
} dpd_snat_ports __weak SEC(".maps");

/* The ports that this CPU has searched in the current second. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rate_window);
} dpd_snat_searched __weak SEC(".maps");

enum {
	SNAT_TRIES = 32,
	SNAT_SILENT_SECONDS = 2, /* longer than a SYN waits for the next (RFC 6298, 2.1) */
	/* Some 0.3 µs each, where all are taken: a flood to one crowded destination takes no more than a sixth of a CPU. */
	SNAT_SEARCH_MAX = 1 << 19,
	/* A prime that is no less than the number of ports from 1024 on, and no more than 64 blocks: products fit 32 bit. */
	SNAT_RING = 65521,
	SNAT_CHUNK = 32,
	SNAT_BLOCK = 32 * SNAT_CHUNK,
};

/*
 * Whether a socket of the host has got the tuple of a connection's replies after the connection has begun: the host's own wins.
 * `tuple` is that of the entry. Global: it is verified once.
 */
__weak __noinline int snat_is_lost(struct __sk_buff *skb, const struct ct_entry *entry,
				   const struct flow_tuple *tuple)
{
	if (!entry || !tuple)
		return 0; /* never: the verifier can't know */

	struct flow_tuple reply = entry->flags & CT_REPLY ? *tuple : ct_reverse_key(entry);

	return host_has_socket(skb, &reply);
}

/* -- Ports ------------------------------------------------------------------------------------------------------------ */

/* Gives the new connection the port of a row. Zero: there is no such row. */
static __always_inline int snat_set_port(struct packet *packet, __u32 index)
{
	void *table = bpf_map_lookup_elem(&dpd_snat_ports, &packet->generation_slot);
	const struct snat_port *row = table ? bpf_map_lookup_elem(table, &index) : 0;

	if (!row || !row->port)
		return 0;
	packet->ct.entry.translated.source_port = row->port;
	return 1;
}

/*
 * Gives the new connection of the record the port of a row. Zero if that is taken, by a connection or by a socket. Global: it is
 * verified once, not once for each try.
 */
__weak __noinline int snat_try_port(struct __sk_buff *skb, __u32 index)
{
	struct packet *packet = packet_record();

	if (!packet || !snat_set_port(packet, index) || !reply_tuple_is_free())
		return 0;

	struct flow_tuple reply = ct_reverse_key(&packet->ct.entry);

	return !host_has_socket(skb, &reply);
}

/*
 * Gives it the port of a row whose connection does not work and has been silent, which ends: its table, too, is one in which
 * the oldest make room. Zero if the row has no such connection. Global: as above.
 */
__weak __noinline int snat_replace(struct __sk_buff *skb, __u32 index)
{
	struct packet *packet = packet_record();

	if (!packet || !snat_set_port(packet, index))
		return 0;

	struct flow_tuple reply = ct_reverse_key(&packet->ct.entry);
	const struct ct_entry *taken = ct_find(&reply);

	if (!taken || taken->flags & CT_ASSURED || taken->state == CT_REFUSED ||
	    (__s64)(packet->now_ns - taken->last_seen_ns) < SNAT_SILENT_SECONDS * (__s64)NSEC_PER_SEC ||
	    host_has_socket(skb, &reply))
		return 0;
	ct_delete_pair(&reply, taken);
	return 1;
}

/* Whether this CPU may search in this second. */
static __always_inline int snat_may_search(__u64 now_ns)
{
	__u32 zero = 0;
	struct rate_window *searched = bpf_map_lookup_elem(&dpd_snat_searched, &zero);

	return searched && !rate_limit_exceeded(searched, now_ns, NSEC_PER_SEC, SNAT_SEARCH_MAX);
}

/*
 * Tries SNAT_CHUNK rows of a search's order, from one on. Three loops one in the other, each verified once, where one over
 * all rows would be as many turns for the verifier; not bpf_loop(), since the stack of its callback is not seen in the
 * object.
 */
__weak __noinline int snat_try_chunk(struct __sk_buff *skb, __u32 row, __u32 step, __u32 count)
{
	__u32 zero = 0;
	struct rate_window *searched = bpf_map_lookup_elem(&dpd_snat_searched, &zero);

	if (!searched)
		return 0;
	searched->used++; /* rows beyond the table are not free of charge either */
	for (__u32 i = 0; i < SNAT_CHUNK; i++) {
		if (row < count) {
			searched->used++;
			if (snat_try_port(skb, row))
				return 1;
		}
		row += step;
		if (row >= SNAT_RING)
			row -= SNAT_RING;
	}
	return 0;
}

/* Tries SNAT_BLOCK rows of the order. */
__weak __noinline int snat_try_block(struct __sk_buff *skb, __u32 first, __u32 step, __u32 done, __u32 count)
{
	for (__u32 i = 0; i < SNAT_BLOCK; i += SNAT_CHUNK) {
		__u32 row = (first + (done + i) * step) % SNAT_RING;

		if (snat_try_chunk(skb, row, step, count))
			return 1;
	}
	return 0;
}

/*
 * Tries all rows, in an order of this search alone: from a random one on, by a random step in a ring of prime length. In the
 * order of the table the taken ones would gather, and searches would take ever longer (Knuth, TAOCP 6.4: linear probing).
 */
static __always_inline int snat_search(struct __sk_buff *skb, __u32 count)
{
	__u32 first = random_below(bpf_get_prandom_u32(), SNAT_RING);
	__u32 step = 1 + random_below(bpf_get_prandom_u32(), SNAT_RING - 1);

	for (__u32 done = 0; done < SNAT_RING; done += SNAT_BLOCK)
		if (snat_try_block(skb, first, step, done, count))
			return 1;
	return 0;
}

/*
 * The row of a client's port: its next connection from there gets the same source port. A server that closes first keeps a tuple in
 * TIME-WAIT, and takes a SYN only if its sequence number or timestamp has advanced (RFC 6191), which a client sees to for its own
 * tuples alone: by a random port a SYN in some waits a second for the next. As hard to guess as the client's own port.
 */
static __always_inline __u32 snat_own_index(const struct flow_tuple *tuple, __u32 count)
{
	__u64 mixed = (tuple->source.word[0] ^ tuple->source.word[1]) * 0x9e3779b97f4a7c15ULL;

	return ((__u32)(mixed >> 40) + bpf_ntohs(tuple->source_port)) % count;
}

/* A free port for the new connection of the record, whose source is translated already. 0, or minus a reason. */
static __always_inline __must_check int snat_choose_port(struct __sk_buff *skb)
{
	const struct packet *packet = packet_record();
	const struct settings *settings = packet ? settings_find(packet->epoch) : 0;
	__u32 count = settings ? settings->snat_port_count : 0;

	if (!packet || !count || count > SNAT_RING)
		return -REASON_SNAT_NO_PORT;
	if (snat_try_port(skb, snat_own_index(&packet->headers.tuple, count)))
		return 0;
	for (int i = 0; i < SNAT_TRIES; i++)
		if (snat_try_port(skb, random_below(bpf_get_prandom_u32(), count)))
			return 0;

	if (snat_may_search(packet->now_ns) && snat_search(skb, count))
		return 0;
	for (int i = 0; i < SNAT_TRIES; i++)
		if (snat_replace(skb, random_below(bpf_get_prandom_u32(), count)))
			return 0;
	return -REASON_SNAT_NO_PORT;
}

/*
 * The port or identifier that sets replies to a new connection apart from others to the same address. SCTP keeps its ports; other
 * protocols have nothing that would set the workload's packets apart from the host's own. 0, or minus a reason.
 */
static __always_inline __must_check int snat_choose(struct __sk_buff *skb, const struct packet *packet)
{
	const struct flow_tuple *translated = &packet->ct.entry.translated;

	if (address_is_unspecified(&translated->source))
		return -REASON_SNAT_NO_PORT; /* the host has none of the family */
	switch (translated->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return snat_choose_port(skb);
	case IPPROTO_SCTP:
		return reply_tuple_is_free() ? 0 : -REASON_SNAT_NO_PORT;
	}
	return -REASON_SNAT_PROTOCOL;
}

#endif
