/* SPDX-License-Identifier: GPL-2.0-only */
/* Writing connections to the tables: new pairs, their move with the first reply, a new verdict. */
#ifndef DPD_CT_COMMIT_H
#define DPD_CT_COMMIT_H

#include "conntrack.h"
#include "endpoint.h"
#include "uplink.h"

/* The party of one side of a connection. An opener whose packets the host forwards is behind the host's stack, a workload too. */
static __always_inline __u8 ct_party(const struct ct_entry *entry, const struct peer *peer, int is_opener)
{
	__u8 party = peer_party(peer);

	return is_opener && party == PARTY_ENDPOINT && entry->flags & CT_FORWARDED ? PARTY_UPLINK : party;
}

/* Who sends the packets of this direction. */
static __always_inline void ct_set_origin(struct ct_entry *entry, const struct peer *from)
{
	entry->origin = ct_party(entry, from, !(entry->flags & CT_REPLY));

	int is_endpoint = entry->origin == PARTY_ENDPOINT;

	entry->origin_ifindex = is_endpoint ? from->address.ifindex : 0;
	entry->origin_counters = is_endpoint ? from->endpoint.counters_index : 0;
}

/* Who receives them, and how they are delivered. */
static __always_inline void ct_set_egress(struct ct_entry *entry, const struct peer *to)
{
	/* What is of a link is not routed, and keeps its hop limit. Not by the bridge: it would send it where the frame's MAC leads. */
	int is_on_link = flow_tuple_is_scoped(&entry->translated);
	int is_routed = !(entry->flags & CT_VIA_STACK) && !is_on_link;

	entry->target = ct_party(entry, to, entry->flags & CT_REPLY);
	entry->target_ifindex = 0;
	entry->target_counters = 0;
	entry->mtu = 0;
	entry->delivery = entry->target == PARTY_UPLINK && is_routed ? DELIVERY_ROUTE : DELIVERY_PASS;
	if (entry->target != PARTY_ENDPOINT)
		return;
	entry->target_ifindex = to->address.ifindex;
	entry->target_counters = to->endpoint.counters_index;
	entry->delivery = is_on_link ? DELIVERY_LINK : to->endpoint.delivery;
	entry->link_ifindex = to->endpoint.link_ifindex;
	entry->mtu = to->endpoint.mtu;
	__builtin_memcpy(entry->dst_mac, to->endpoint.dst_mac, sizeof(entry->dst_mac));
	__builtin_memcpy(entry->src_mac, to->endpoint.src_mac, sizeof(entry->src_mac));
}

/* The reverse entry of a new pair, complete: its first packet needs no verdict of its own. */
static __always_inline void ct_fill_reverse(struct packet *packet)
{
	struct ct_entry *reverse = &packet->ct.reverse;

	ct_make_reverse(reverse, &packet->ct.entry, &packet->headers.tuple);
	reverse->epoch = packet->epoch;
	ct_set_origin(reverse, &packet->policy.destination);
	ct_set_egress(reverse, &packet->policy.source);
	/* Most replies leave by the uplink that the connection came by; the fast path leaves others to the slow path. */
	if (packet->hook.sender == PARTY_UPLINK && uplink_find(packet->generation_slot, packet->ifindex))
		reverse->link_ifindex = packet->ifindex;
}

enum { ENTRY_EXISTS = -17 }; /* -EEXIST */

/*
 * Another CPU inserted this very connection first: its decision holds. `key` is where our own reverse entry would be; an entry
 * of ours there that is not the winner's is deleted. But a winner of an older configuration does not overrule this one's
 * decision: its pair is deleted, and the next packet inserts the connection.
 */
static __noinline __must_check int ct_adopt_winner(struct packet *packet, const struct flow_tuple *key)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	const struct ct_entry *winner = ct_find(tuple);

	if (!winner)
		return -REASON_NO_SOURCE_PORT;
	if (winner->epoch < packet->epoch &&
	    !flow_tuple_equals(&winner->translated, &packet->ct.entry.translated)) {
		ct_delete_pair(tuple, winner);
		return 0;
	}

	struct flow_tuple winner_key = ct_reverse_key(winner);
	const struct ct_entry *reverse = bpf_map_lookup_elem(&dpd_ct_unreplied, key);

	packet->ct.entry = *winner;
	packet->ct.counted_egress_rule = winner->egress_rule;
	packet->ct.counted_ingress_rule = winner->ingress_rule;
	if (reverse && ct_is_reverse(reverse, tuple) && !flow_tuple_equals(&winner_key, key))
		ct_delete(key);
	return 0;
}

/* Inserts the reverse entry. 0, minus a reason, or 1: another CPU was first, or another connection has this tuple. */
static __always_inline __must_check int ct_insert_reverse(struct packet *packet, const struct flow_tuple *key)
{
	long err = bpf_map_update_elem(&dpd_ct_unreplied, key, &packet->ct.reverse, BPF_NOEXIST);

	if (err && err != ENTRY_EXISTS)
		return -REASON_CT_INSERTION_FAILED;
	if (err) {
		const struct ct_entry *taken = ct_find(key);

		/* Another CPU that decided the same may not have inserted the packet's own entry yet. */
		return taken && !ct_is_reverse(taken, &packet->headers.tuple);
	}
	counter_add(COUNTER_CT_INSERTED, 1);
	/* A connection that was first may have got its reply while we looked elsewhere: then ours is one too many. */
	if (!ct_find_replied(key))
		return 0;
	if (!bpf_map_delete_elem(&dpd_ct_unreplied, key))
		counter_add(COUNTER_CT_DELETED, 1);
	return 1;
}

/*
 * The reverse entry first, then the packet's own, both with BPF_NOEXIST: a CPU that gets EEXIST adopts the winner's entry.
 */
static __noinline __must_check int ct_insert_pair(struct packet *packet)
{
	struct flow_tuple key = ct_reverse_key(&packet->ct.entry);

	ct_fill_reverse(packet);

	int result = ct_insert_reverse(packet, &key);

	if (result < 0)
		return result;
	if (result)
		return ct_adopt_winner(packet, &key);

	long err = bpf_map_update_elem(&dpd_ct_unreplied, &packet->headers.tuple, &packet->ct.entry,
				       BPF_NOEXIST);

	if (err == ENTRY_EXISTS)
		return ct_adopt_winner(packet, &key);
	if (err) {
		ct_delete(&key);
		return -REASON_CT_INSERTION_FAILED;
	}
	counter_add(COUNTER_CT_INSERTED, 1);

	struct conn_usage_key counted = ct_counts_for(&packet->ct.entry);

	conn_usage_open(&counted, CT_TABLE_UNREPLIED, packet->now_ns);
	return 0;
}

/* The state of a connection that works from now on. */
static __always_inline __u8 ct_assured_state(const struct ct_entry *entry, __u8 protocol, __u64 questions)
{
	if (entry->state == CT_CLOSING)
		return CT_CLOSING;
	return protocol == IPPROTO_UDP && questions <= 1 ? CT_REPLIED : CT_ESTABLISHED;
}

/* A copy of an entry for its protocol's table. */
static __always_inline void ct_assure(struct ct_entry *to, const struct ct_entry *from, __u8 state)
{
	*to = *from;
	to->state = state;
	to->flags = from->flags | CT_ASSURED;
}

/*
 * If the connection works with this packet, the pair moves to its protocol's table, the packet's entry first, unless its workload
 * has as many there as it may have. `entry` is in the old table, and the packet has updated it.
 */
static __noinline void ct_promote(struct packet *packet, const struct ct_entry *entry,
				  const struct settings *settings)
{
	struct conn_usage_key counted = ct_counts_for(entry);
	__u32 replied = ct_replied_index(packet->headers.tuple.protocol);
	const struct flow_tuple *tuple = &packet->headers.tuple;
	struct flow_tuple key = ct_reverse_key(entry);
	const struct ct_entry *reverse = bpf_map_lookup_elem(&dpd_ct_unreplied, &key);
	void *table = ct_replied_table(tuple->protocol);
	struct conn_usage *usage = bpf_map_lookup_elem(&dpd_endpoint_conns, &counted);

	if (!reverse)
		return; /* evicted; its renewal has inserted it again, or will */
	if (!(entry->flags & CT_ASSURED) && !ct_works_with(entry, reverse, &packet->headers.tcp))
		return;
	if (usage && conn_usage_is_full(usage, replied, settings, packet->now_ns))
		return;

	__u64 questions = entry->flags & CT_REPLY ? reverse->packets : entry->packets;
	__u8 state = ct_assured_state(entry, tuple->protocol, questions);

	ct_assure(&packet->ct.reverse, reverse, state);
	ct_assure(&packet->ct.entry, entry, state);
	ct_schedule_update(&packet->ct.reverse, settings, packet->now_ns, packet->now_jiffies);
	ct_schedule_update(&packet->ct.entry, settings, packet->now_ns, packet->now_jiffies);
	if (bpf_map_update_elem(table, tuple, &packet->ct.entry, BPF_NOEXIST))
		return; /* no room now: the next packet tries again */
	if (bpf_map_update_elem(table, &key, &packet->ct.reverse, BPF_NOEXIST)) {
		bpf_map_delete_elem(table, tuple);
		return;
	}
	/* Two in, two out: the counters of entries stay as they are. */
	bpf_map_delete_elem(&dpd_ct_unreplied, tuple);
	bpf_map_delete_elem(&dpd_ct_unreplied, &key);
	if (usage) {
		__sync_fetch_and_add(&usage->closed[CT_TABLE_UNREPLIED], 1);
		__sync_fetch_and_add(&usage->opened[replied], 1);
	}
}

/* Puts a refused entry where it evicts nothing that works. */
static __always_inline void ct_insert_refused(const struct flow_tuple *tuple, const struct ct_entry *entry)
{
	if (!bpf_map_update_elem(&dpd_ct_unreplied, tuple, entry, BPF_ANY))
		counter_add(COUNTER_CT_INSERTED, 1);
}

/*
 * A connection that is allowed no more: the pair stays for its lifetime, and its packets drop either way. Were it deleted,
 * the other side's next packet would open a new flow, in its own direction, which policy may well allow.
 */
static __noinline void ct_refuse(struct packet *packet, __u8 reason)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	struct ct_entry *entry = &packet->ct.entry;
	struct ct_entry *reverse = &packet->ct.reverse;
	struct flow_tuple key = ct_reverse_key(entry);
	struct conn_usage_key counted = ct_counts_for(entry);
	const struct ct_entry *found = ct_find(&key);

	entry->state = CT_REFUSED;
	entry->refused_reason = reason;
	entry->epoch = packet->epoch;
	entry->last_seen_ns = packet->now_ns;
	entry->flags = (entry->flags & ~CT_REFUSED_EGRESS) | CT_SLOW;
	if (packet->direction == DIRECTION_EGRESS)
		entry->flags |= CT_REFUSED_EGRESS;
	ct_make_reverse(reverse, entry, tuple);
	reverse->epoch = packet->epoch;
	reverse->flags |= CT_SLOW;

	int is_taken = found && !ct_is_reverse(found, tuple);

	if (found && !is_taken) {
		reverse->packets = found->packets;
		reverse->bytes = found->bytes;
		reverse->tcp_flags = found->tcp_flags;
	}
	ct_delete_pair(tuple, entry);
	if (!is_taken)
		ct_insert_refused(&key, reverse);
	ct_insert_refused(tuple, entry);
	conn_usage_open(&counted, CT_TABLE_UNREPLIED, packet->now_ns);
}

/*
 * The packet's TCP connection, whose backend or address is gone, ends, unless a reset of its own has ended it. Its pair stays for as
 * long as that of one that nobody has replied to, so that what is under way gets a reset, too, and opens no new flow. Global: it is
 * verified once, not once for each way to it.
 */
__weak __noinline int ct_end(__u8 reason)
{
	struct packet *packet = packet_record();

	if (!packet)
		return 0; /* never: the verifier can't know */
	if (packet->headers.tcp.flags & TCP_RST) {
		ct_delete_pair(&packet->headers.tuple, &packet->ct.entry);
		return 0;
	}
	packet->ct.entry.flags &= ~CT_ASSURED;
	ct_refuse(packet, reason);
	return 0;
}

/* A refused connection that policy allows again. */
static __always_inline void ct_revive(struct ct_entry *entry)
{
	entry->state = entry->flags & CT_ASSURED ? CT_ESTABLISHED : CT_UNREPLIED;
	entry->flags &= ~(CT_REFUSED_EGRESS | CT_SLOW);
	if (ct_is_always_slow(entry))
		entry->flags |= CT_SLOW;
	entry->refused_reason = 0;
}

/*
 * A new verdict replaces the entry as a whole: written member by member it could end up in another connection's entry, to
 * which the kernel has given the memory meanwhile. Not zero if the entry is gone.
 */
static __always_inline __must_check long ct_store_verdict(const struct packet *packet)
{
	void *table = ct_table(packet->headers.tuple.protocol, packet->ct.unreplied);

	return bpf_map_update_elem(table, &packet->headers.tuple, &packet->ct.entry, BPF_EXIST);
}

#endif
