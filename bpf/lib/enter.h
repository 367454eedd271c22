/* SPDX-License-Identifier: GPL-2.0-only */
/* Entering connections in the tables: new pairs, their move at the first answer, a verdict made anew. */
#ifndef DPD_ENTER_H
#define DPD_ENTER_H

#include "conntrack.h"

/* Where packets that leave by this hook for this end go. */
static __always_inline void connection_set_way(struct connection *connection, const struct end *to)
{
	connection->delivery = to->identity.place == PLACE_REMOTE ? DELIVERY_ROUTE : DELIVERY_PASS;
	connection->to_ifindex = 0;
	if (to->identity.place != PLACE_ENDPOINT)
		return;
	connection->to_ifindex = to->identity.ifindex;
	connection->to_row = to->endpoint.row;
	connection->delivery = to->endpoint.delivery;
	__builtin_memcpy(connection->mac, to->endpoint.mac, sizeof(connection->mac));
	__builtin_memcpy(connection->host_mac, to->endpoint.host_mac, sizeof(connection->host_mac));
}

/* Where packets of this end come from: its interface, or the host. */
static __always_inline __u32 end_ifindex(const struct end *end)
{
	return end->identity.place == PLACE_ENDPOINT ? end->identity.ifindex : 0;
}

/* The reply's half of a new pair, complete: its first packet need not be judged again. */
static __always_inline void enter_make_twin(struct packet *packet)
{
	struct connection *twin = &packet->twin;

	connection_mirror(twin, &packet->connection, &packet->tuple);
	twin->epoch = packet->epoch;
	twin->from_ifindex = end_ifindex(&packet->destination);
	twin->from_row = packet->destination.endpoint.row;
	connection_set_way(twin, &packet->source);
}

enum { ENTRY_EXISTS = -17 }; /* -EEXIST */

/*
 * Another CPU entered this very connection first: its word counts. `key` is where our own reply's half would be; what
 * stands there and is not the winner's goes. But a winner of the configuration before has no say in what this one has
 * decided otherwise: its entry goes, and the next packet enters the connection.
 */
static __noinline __must_check int enter_follow(struct packet *packet, const struct tuple *key)
{
	const struct connection *winner = conntrack_find(&packet->tuple);

	if (!winner)
		return -REASON_TUPLE_COLLISION;

	if (winner->epoch < packet->epoch &&
	    !tuple_equals(&winner->rewritten, &packet->connection.rewritten)) {
		conntrack_delete_pair(&packet->tuple, winner);
		return 0;
	}

	struct tuple twin = tuple_reverse(&winner->rewritten);
	const struct connection *reply = bpf_map_lookup_elem(&dpd_ct_unanswered, key);

	packet->connection = *winner;
	packet->counted_egress_rule = winner->egress_rule;
	packet->counted_ingress_rule = winner->ingress_rule;
	if (reply && connection_is_twin(reply, &packet->tuple) && !tuple_equals(&twin, key))
		conntrack_delete(key);
	return 0;
}

/*
 * The reply's entry first, then the packet's own, both only if absent: whoever finds one half taken knows that another
 * was first, and whose it is.
 */
static __noinline __must_check int enter_pair(struct packet *packet)
{
	struct tuple key = tuple_reverse(&packet->connection.rewritten);
	const struct connection *taken;
	long err;

	enter_make_twin(packet);
	err = bpf_map_update_elem(&dpd_ct_unanswered, &key, &packet->twin, BPF_NOEXIST);
	if (err && err != ENTRY_EXISTS)
		return -REASON_CONNTRACK_FULL;
	if (!err) {
		counter_add(COUNTER_CT_INSERTED, 1);
		/* Whoever was first may have been answered while we looked elsewhere: then ours is one too many. */
		taken = conntrack_find_answered(&key);
		if (taken && !bpf_map_delete_elem(&dpd_ct_unanswered, &key))
			counter_add(COUNTER_CT_DELETED, 1);
	} else {
		taken = conntrack_find(&key);
		if (taken && connection_is_twin(taken, &packet->tuple))
			taken = 0; /* another CPU decided just the same, and may not have come further yet */
	}
	if (taken)
		return enter_follow(packet, &key);
	err = bpf_map_update_elem(&dpd_ct_unanswered, &packet->tuple, &packet->connection, BPF_NOEXIST);
	if (err == ENTRY_EXISTS)
		return enter_follow(packet, &key);
	if (err) {
		conntrack_delete(&key);
		return -REASON_CONNTRACK_FULL;
	}
	counter_add(COUNTER_CT_INSERTED, 1);
	if (packet->hook == HOOK_FROM_CONTAINER)
		usage_open(packet->ifindex, packet->now_ns);
	return 0;
}

static __always_inline long enter_answered(const struct tuple *tuple, const struct connection *connection)
{
	if (tuple->protocol == IPPROTO_TCP)
		return bpf_map_update_elem(&dpd_ct_tcp, tuple, connection, BPF_NOEXIST);
	return bpf_map_update_elem(&dpd_ct_other, tuple, connection, BPF_NOEXIST);
}

static __always_inline void leave_answered(const struct tuple *tuple)
{
	if (tuple->protocol == IPPROTO_TCP)
		bpf_map_delete_elem(&dpd_ct_tcp, tuple);
	else
		bpf_map_delete_elem(&dpd_ct_other, tuple);
}

/* What a connection is after its first answer. */
static __always_inline __u8 answered_state(__u8 protocol, const struct connection *reply, __u64 questions)
{
	if (reply->state == CONNECTION_CLOSING)
		return CONNECTION_CLOSING;
	return protocol == IPPROTO_UDP && questions <= 1 ? CONNECTION_ONCE : CONNECTION_ESTABLISHED;
}

/* The first answer: the pair moves to its protocol's table, the reply's half first. `reply` is in the old one. */
static __noinline void enter_promote(struct packet *packet, struct connection *reply)
{
	struct tuple key = tuple_reverse(&reply->rewritten);
	struct connection *forward = bpf_map_lookup_elem(&dpd_ct_unanswered, &key);

	if (!forward)
		return; /* pushed out; the renewal has made it again or will */
	reply->state = answered_state(key.protocol, reply, forward->packets);
	forward->state = reply->state;
	packet->twin = *forward;
	packet->connection = *reply;
	if (enter_answered(&packet->tuple, &packet->connection))
		return; /* no room now: the next answer tries again */
	if (enter_answered(&key, &packet->twin)) {
		leave_answered(&packet->tuple);
		return;
	}
	/* Two in, two out: the counters of entries stay as they are. */
	bpf_map_delete_elem(&dpd_ct_unanswered, &packet->tuple);
	bpf_map_delete_elem(&dpd_ct_unanswered, &key);
}

/*
 * A verdict made anew takes the entry's place as a whole: written into it field by field it could end up in another
 * connection's, to whom the kernel has given the memory meanwhile. Not zero if the entry is gone.
 */
static __always_inline __must_check long enter_verdict(const struct packet *packet)
{
	if (packet->unanswered)
		return bpf_map_update_elem(&dpd_ct_unanswered, &packet->tuple, &packet->connection,
					   BPF_EXIST);
	if (packet->tuple.protocol == IPPROTO_TCP)
		return bpf_map_update_elem(&dpd_ct_tcp, &packet->tuple, &packet->connection, BPF_EXIST);
	return bpf_map_update_elem(&dpd_ct_other, &packet->tuple, &packet->connection, BPF_EXIST);
}

#endif
