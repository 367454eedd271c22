/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Connections. Each is two entries, one for each direction's tuple as it arrives at a hook:
 *
 *	client -> frontend	rewritten to	client -> backend
 *	backend -> client	rewritten to	frontend -> client
 *
 * so the key of an entry's twin is what it rewrites to, turned round. A pair begins in the table of those that nobody
 * has answered, and moves to its protocol's at the first answer: a flood can't push out connections that work.
 *
 * An entry that has not been renewed for its lifetime is expired once its twin says so too. The datapath replaces
 * expired pairs and never revives them.
 */
#ifndef DPD_CONNTRACK_H
#define DPD_CONNTRACK_H

#include "endpoint.h"
#include "metric.h"
#include "settings.h"

/* The daemon gives all three their size before it loads them, from conntrack.size. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct tuple);
	__type(value, struct connection);
} dpd_ct_tcp __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct tuple);
	__type(value, struct connection);
} dpd_ct_other __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct connection);
} dpd_ct_unanswered __weak SEC(".maps");

/* Open connections of each workload, by its ifindex; the daemon sets it right at each sweep. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct usage);
} dpd_usage __weak SEC(".maps");

enum { TCP_NOTED = TCP_SYN | TCP_FIN | TCP_RST };

/* -- Tables -------------------------------------------------------------------------------------------------------- */

/* An answered connection's entry. */
static __always_inline struct connection *conntrack_find_answered(const struct tuple *tuple)
{
	if (tuple->protocol == IPPROTO_TCP)
		return bpf_map_lookup_elem(&dpd_ct_tcp, tuple);
	return bpf_map_lookup_elem(&dpd_ct_other, tuple);
}

/* The entry of a tuple, wherever it is. */
static __noinline struct connection *conntrack_find(const struct tuple *tuple)
{
	struct connection *connection = conntrack_find_answered(tuple);

	return connection ? connection : bpf_map_lookup_elem(&dpd_ct_unanswered, tuple);
}

/* Not zero if there was an entry. */
static __noinline int conntrack_delete(const struct tuple *tuple)
{
	int deleted;

	if (tuple->protocol == IPPROTO_TCP)
		deleted = !bpf_map_delete_elem(&dpd_ct_tcp, tuple);
	else
		deleted = !bpf_map_delete_elem(&dpd_ct_other, tuple);
	deleted += !bpf_map_delete_elem(&dpd_ct_unanswered, tuple);
	counter_add(COUNTER_CT_DELETED, deleted);
	return deleted;
}

/*
 * The kernel pushes entries out without a word and expired ones stay until they are swept, so the count only ever grows
 * while no daemon runs. Without one for so long it bounds nothing: otherwise it would lock the workload out for good.
 */
#define USAGE_GOOD_FOR_NS (60ULL * NSEC_PER_SEC)

static __always_inline void usage_open(__u32 ifindex, __u64 now_ns)
{
	struct usage *usage = bpf_map_lookup_elem(&dpd_usage, &ifindex);

	if (usage) {
		__sync_fetch_and_add(&usage->opened, 1);
		return;
	}

	struct usage first = { .opened = 1, .right_ns = now_ns };

	bpf_map_update_elem(&dpd_usage, &ifindex, &first, BPF_NOEXIST);
}

static __always_inline void usage_close(__u32 ifindex)
{
	struct usage *usage = bpf_map_lookup_elem(&dpd_usage, &ifindex);

	if (usage)
		__sync_fetch_and_add(&usage->closed, 1);
}

/* Whether the workload has as many open connections as it may have. */
static __always_inline int usage_is_spent(__u32 ifindex, __u32 bound, __u64 now_ns)
{
	const struct usage *usage = bpf_map_lookup_elem(&dpd_usage, &ifindex);

	return usage && (__s64)(usage->opened - usage->closed) >= bound &&
	       (__s64)(now_ns - usage->right_ns) < (__s64)USAGE_GOOD_FOR_NS;
}

/* Whether an entry, found where the twin of this tuple's should be, is that twin: another may have taken its place. */
static __always_inline int connection_is_twin(const struct connection *twin, const struct tuple *tuple)
{
	struct tuple key = tuple_reverse(&twin->rewritten);

	return tuple_equals(&key, tuple);
}

/* Takes both halves away. */
static __noinline void conntrack_delete_pair(const struct tuple *tuple, const struct connection *connection)
{
	struct tuple key = tuple_reverse(&connection->rewritten);
	__u32 opener =
		connection->flags & CONNECTION_REPLY ? connection->to_ifindex : connection->from_ifindex;
	const struct connection *twin = conntrack_find(&key);
	int deleted = twin && connection_is_twin(twin, tuple) ? conntrack_delete(&key) : 0;

	deleted += conntrack_delete(tuple);
	if (opener && deleted)
		usage_close(opener);
}

/*
 * Whether a packet at this hook of this interface comes from where the entry says, which is the established path's
 * source check, and is where the entry sends it if it comes from the host. Who sends in the host's name from the network
 * fits nowhere.
 */
static __always_inline int connection_fits(const struct connection *connection, __u8 hook, __u32 ifindex)
{
	if (hook == HOOK_FROM_CONTAINER)
		return connection->from_ifindex == ifindex;
	if (hook == HOOK_FROM_NETDEV)
		return !connection->from_ifindex && connection->to_ifindex &&
		       !(connection->flags & CONNECTION_WITH_HOST);
	return !connection->from_ifindex && connection->to_ifindex == ifindex;
}

/* -- Age and state --------------------------------------------------------------------------------------------------- */

static __always_inline __u32 connection_lifetime(__u8 protocol, __u8 state)
{
	if (protocol == IPPROTO_TCP) {
		if (state == CONNECTION_CLOSING)
			return LIFETIME_TCP_CLOSE;
		return state == CONNECTION_UNANSWERED ? LIFETIME_TCP_SYN : LIFETIME_TCP;
	}
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return LIFETIME_ICMP;
	return state == CONNECTION_ONCE ? LIFETIME_UDP_ONCE : LIFETIME_UDP;
}

static __always_inline int connection_is_old(const struct connection *connection, __u8 protocol, __u64 now_ns,
					     const struct settings *settings)
{
	__u32 lifetime = connection_lifetime(protocol, connection->state);

	if (lifetime >= LIFETIME_COUNT)
		return 0;
	/* Another CPU may have renewed it after we read the clock. */
	return (__s64)(now_ns - connection->seen_ns) > (__s64)settings->lifetime_ns[lifetime];
}

/* Both halves say so. A half whose twin was pushed out speaks for both, unless another has taken the twin's place. */
static __noinline int connection_is_expired(const struct connection *connection, const struct tuple *tuple,
					    __u64 now_ns, const struct settings *settings)
{
	struct tuple key = tuple_reverse(&connection->rewritten);
	const struct connection *twin = conntrack_find(&key);

	if (twin && !connection_is_twin(twin, tuple))
		return 1;
	return connection_is_old(connection, tuple->protocol, now_ns, settings) &&
	       (!twin || connection_is_old(twin, tuple->protocol, now_ns, settings));
}

/*
 * Notes a packet's flags in one half; `here`: the packet went this half's way. Not zero if it is the first with such a
 * flag in its direction.
 */
static __always_inline int connection_note_flags(struct connection *connection, __u8 tcp_flags, int here)
{
	__u8 noted = tcp_flags & TCP_NOTED;
	int fresh = here && (noted & ~connection->tcp_flags);

	if (here)
		connection->tcp_flags |= noted;
	if (tcp_flags & TCP_FIN)
		connection->flags |= here ? CONNECTION_FIN_HERE : CONNECTION_FIN_THERE;
	if (tcp_flags & TCP_RST ||
	    (connection->flags & CONNECTION_FIN_HERE && connection->flags & CONNECTION_FIN_THERE))
		connection->state = CONNECTION_CLOSING;
	else if (connection->state == CONNECTION_CLOSING && !(tcp_flags & TCP_SYN))
		connection->state = CONNECTION_ESTABLISHED; /* whoever forged the RST has closed nothing */
	return fresh;
}

/*
 * Until when packets of this half are just one more: a second, or until one is to be reported. Counted in ticks, since
 * those are read without a call.
 */
static __always_inline void connection_set_attention(struct connection *connection,
						     const struct settings *settings, __u64 now_ns,
						     __u64 now_ticks)
{
	__s64 wait_ns = connection->report_ns - now_ns;

	if (wait_ns > (__s64)NSEC_PER_SEC)
		wait_ns = NSEC_PER_SEC;
	connection->attend_ticks = 0;
	if (wait_ns > 0 && settings->tick_ns)
		connection->attend_ticks = now_ticks + (__u64)wait_ns / settings->tick_ns;
}

/* What one half is to become with this packet: its time, its flags, the second question of a UDP flow. */
static __always_inline int connection_advance_half(struct connection *connection, const struct tuple *tuple,
						   __u8 tcp_flags, __u64 now_ns, int here)
{
	connection->seen_ns = now_ns;
	if (tuple->protocol == IPPROTO_TCP)
		return connection_note_flags(connection, tcp_flags, here);
	if (connection->state == CONNECTION_ONCE)
		connection->state = CONNECTION_ESTABLISHED;
	return 0;
}

/* The other direction's entry, from this one's: what it rewrites is this one's tuple turned round. */
static __always_inline void connection_mirror(struct connection *mirror, const struct connection *connection,
					      const struct tuple *tuple)
{
	*mirror = *connection;
	mirror->epoch = 0;
	mirror->report_ns = 0;
	mirror->attend_ticks = 0;
	mirror->packets = 0;
	mirror->bytes = 0;
	mirror->from_ifindex = connection->to_ifindex;
	mirror->to_ifindex = connection->from_ifindex;
	mirror->from_row = connection->to_row;
	mirror->to_row = connection->from_row;
	mirror->delivery = DELIVERY_PASS;
	mirror->flags =
		(connection->flags ^ CONNECTION_REPLY) & ~(CONNECTION_FIN_HERE | CONNECTION_FIN_THERE);
	if (connection->flags & CONNECTION_FIN_HERE)
		mirror->flags |= CONNECTION_FIN_THERE;
	if (connection->flags & CONNECTION_FIN_THERE)
		mirror->flags |= CONNECTION_FIN_HERE;
	mirror->tcp_flags = 0;
	mirror->rewritten = tuple_reverse(tuple);
	mirror->address_sum = ~connection->address_sum; /* minus, in one's complement */
	mirror->port_sum =
		connection->port_sum ? ~connection->port_sum : 0; /* zero: ports stay as they are */
}

/* A twin that was pushed out, made again; due for another look, since only the packet that takes it knows its way. */
static __noinline void connection_remake_twin(const struct connection *connection, const struct tuple *tuple,
					      const struct tuple *key)
{
	struct connection twin;
	long err;

	connection_mirror(&twin, connection, tuple);
	if (connection->state == CONNECTION_UNANSWERED)
		err = bpf_map_update_elem(&dpd_ct_unanswered, key, &twin, BPF_NOEXIST);
	else if (tuple->protocol == IPPROTO_TCP)
		err = bpf_map_update_elem(&dpd_ct_tcp, key, &twin, BPF_NOEXIST);
	else
		err = bpf_map_update_elem(&dpd_ct_other, key, &twin, BPF_NOEXIST);
	if (!err)
		counter_add(COUNTER_CT_INSERTED, 1);
}

/*
 * A packet that changes its connection: it renews both halves and notes its flags in both. A twin that was pushed out
 * is made again, due for another look. Not zero if the packet is the first with its flags.
 */
static __noinline int connection_advance(struct connection *connection, const struct tuple *tuple,
					 __u8 tcp_flags, __u64 now_ns)
{
	struct tuple key = tuple_reverse(&connection->rewritten);
	int fresh = connection_advance_half(connection, tuple, tcp_flags, now_ns, 1);
	struct connection *twin = conntrack_find(&key);

	if (likely(twin))
		connection_advance_half(twin, tuple, tcp_flags, now_ns, 0);
	else
		connection_remake_twin(connection, tuple, &key);
	return fresh;
}

#endif
