/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Conntrack. A connection is two entries, one for each direction's tuple as its packets arrive at a hook:
 *
 *	client -> frontend	translated to	client -> backend
 *	backend -> client	translated to	frontend -> client
 *
 * The reverse entry's key is the translated tuple, reversed. A pair starts in the table of unreplied connections and moves to
 * its protocol's once it works, with the first reply, in TCP once the opener has acknowledged that: so a flood, of refused
 * packets too, can't evict connections that work.
 *
 * An entry that has not been renewed for its lifetime is expired once its reverse entry is, too. The datapath replaces
 * expired pairs and never revives them.
 */
#ifndef DPD_CONNTRACK_H
#define DPD_CONNTRACK_H

#include "../mechanism/address.h"
#include "../mechanism/counters.h"
#include "../mechanism/hook.h"
#include "../mechanism/packet.h"
#include "../mechanism/settings.h"
#include "affinity.h"

/* The daemon sizes all three from conntrack.size before it loads them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct flow_tuple);
	__type(value, struct ct_entry);
} dpd_ct_tcp __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow_tuple);
	__type(value, struct ct_entry);
} dpd_ct_other __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_tuple);
	__type(value, struct ct_entry);
} dpd_ct_unreplied __weak SEC(".maps");

/* Open connections of each workload; the daemon corrects it at each sweep. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct conn_usage_key);
	__type(value, struct conn_usage);
} dpd_endpoint_conns __weak SEC(".maps");

enum { TCP_NOTED = TCP_SYN | TCP_FIN | TCP_RST };

/* -- Tables --------------------------------------------------------------------------------------------------------- */

/* The table of a protocol's replied connections. Not for the fast path: a map that is no constant costs an indirect call. */
static __always_inline void *ct_replied_table(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? (void *)&dpd_ct_tcp : (void *)&dpd_ct_other;
}

static __always_inline void *ct_table(__u8 protocol, int is_unreplied)
{
	return is_unreplied ? (void *)&dpd_ct_unreplied : ct_replied_table(protocol);
}

static __always_inline struct ct_entry *ct_find_replied(const struct flow_tuple *tuple)
{
	if (tuple->protocol == IPPROTO_TCP)
		return bpf_map_lookup_elem(&dpd_ct_tcp, tuple);
	return bpf_map_lookup_elem(&dpd_ct_other, tuple);
}

/* The entry of a tuple, in whichever table it is. */
static __noinline struct ct_entry *ct_find(const struct flow_tuple *tuple)
{
	struct ct_entry *entry = ct_find_replied(tuple);

	return entry ? entry : bpf_map_lookup_elem(&dpd_ct_unreplied, tuple);
}

/* The index of the same table. */
static __always_inline __u32 ct_replied_index(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? CT_TABLE_TCP : CT_TABLE_OTHER;
}

/* Which tables an entry was deleted from; bits. */
enum ct_deleted {
	CT_DELETED_REPLIED = 1, /* its protocol's table */
	CT_DELETED_UNREPLIED = 2,
};

static __noinline int ct_delete(const struct flow_tuple *tuple)
{
	int deleted = 0;

	if (!bpf_map_delete_elem(ct_replied_table(tuple->protocol), tuple)) {
		deleted |= CT_DELETED_REPLIED;
		counter_add(COUNTER_CT_DELETED, 1);
	}
	if (!bpf_map_delete_elem(&dpd_ct_unreplied, tuple)) {
		deleted |= CT_DELETED_UNREPLIED;
		counter_add(COUNTER_CT_DELETED, 1);
	}
	return deleted;
}

/* -- Open connections of each workload ------------------------------------------------------------------------------ */

/*
 * The kernel evicts entries without notice and expired ones stay until they are swept, so without a daemon the count only
 * grows. A count that was not corrected for this long limits nothing: otherwise it would lock the workload out for good.
 */
#define CONN_USAGE_TRUSTED_NS (60ULL * NSEC_PER_SEC)

/*
 * For whom a connection counts: the workload that opened it, else the one that it was opened to. Those of the network to backends on
 * other hosts have the interface 0 together, and so the room of one workload.
 */
static __always_inline struct conn_usage_key ct_counts_for(const struct ct_entry *entry)
{
	int reply = entry->flags & CT_REPLY;
	__u32 opener = reply ? entry->target_ifindex : entry->origin_ifindex;
	__u32 other = reply ? entry->origin_ifindex : entry->target_ifindex;

	if (opener)
		return (struct conn_usage_key){ .ifindex = opener, .opener = OPENER_WORKLOAD };
	return (struct conn_usage_key){ .ifindex = other, .opener = OPENER_OTHERS };
}

static __noinline void conn_usage_open(const struct conn_usage_key *key, __u32 table, __u64 now_ns)
{
	struct conn_usage *usage = bpf_map_lookup_elem(&dpd_endpoint_conns, key);

	if (table >= CT_TABLE_COUNT)
		return;
	if (usage) {
		__sync_fetch_and_add(&usage->opened[table], 1);
		return;
	}

	struct conn_usage first = { .verified_ns = now_ns };

	first.opened[table] = 1;
	bpf_map_update_elem(&dpd_endpoint_conns, key, &first, BPF_NOEXIST);
}

static __noinline void conn_usage_close(const struct conn_usage_key *key, __u32 table)
{
	struct conn_usage *usage = bpf_map_lookup_elem(&dpd_endpoint_conns, key);

	if (usage && table < CT_TABLE_COUNT)
		__sync_fetch_and_add(&usage->closed[table], 1);
}

/* Below zero for moments, when another CPU closes what this one is about to count. */
static __always_inline __s64 conn_usage_open_in(const struct conn_usage *usage, __u32 table)
{
	return usage->opened[table] - usage->closed[table];
}

static __always_inline int conn_usage_is_trusted(const struct conn_usage *usage, __u64 now_ns)
{
	return (__s64)(now_ns - usage->verified_ns) < (__s64)CONN_USAGE_TRUSTED_NS;
}

/* Whether a workload has as many open connections as it may have; `replied` is the table that a new one will move to. */
static __noinline int conn_usage_is_exhausted(const struct conn_usage_key *key, __u32 replied,
					      const struct settings *settings, __u64 now_ns)
{
	const struct conn_usage *usage = bpf_map_lookup_elem(&dpd_endpoint_conns, key);
	__s64 most = settings->connections_per_endpoint;

	if (!usage || replied >= CT_TABLE_UNREPLIED || !conn_usage_is_trusted(usage, now_ns))
		return 0;

	__s64 unreplied = conn_usage_open_in(usage, CT_TABLE_UNREPLIED);
	__s64 working = conn_usage_open_in(usage, CT_TABLE_TCP) + conn_usage_open_in(usage, CT_TABLE_OTHER);
	__u32 share = settings->endpoint_share[CT_TABLE_UNREPLIED];

	if ((most && unreplied + working >= most) || (share && unreplied >= share))
		return 1;
	share = settings->endpoint_share[replied];
	return share && conn_usage_open_in(usage, replied) >= share;
}

/* Whether one that works has no room in its protocol's table: then it stays among the unreplied, the first to be evicted. */
static __always_inline int conn_usage_is_full(const struct conn_usage *usage, __u32 replied,
					      const struct settings *settings, __u64 now_ns)
{
	__s64 most = settings->connections_per_endpoint;
	__u32 share = settings->endpoint_share[replied];

	if (!conn_usage_is_trusted(usage, now_ns))
		return 0;

	if (share && conn_usage_open_in(usage, replied) >= share)
		return 1;
	return most &&
	       conn_usage_open_in(usage, CT_TABLE_TCP) + conn_usage_open_in(usage, CT_TABLE_OTHER) >= most;
}

/* -- Pairs ---------------------------------------------------------------------------------------------------------- */

/* The key of the reverse entry. */
static __always_inline struct flow_tuple ct_reverse_key(const struct ct_entry *entry)
{
	return flow_tuple_reverse(&entry->translated);
}

/* Whether an entry, found at a reverse key, is the reverse of this tuple's: another connection's may be there. */
static __always_inline int ct_is_reverse(const struct ct_entry *reverse, const struct flow_tuple *tuple)
{
	struct flow_tuple key = ct_reverse_key(reverse);

	return flow_tuple_equals(&key, tuple);
}

/*
 * The translated tuple as routes and their rules see it: with the sender's own source and port, as in the kernel, which routes
 * before it masquerades (of several next hops the port may choose one); a reply has its translated ones, as from the frontend.
 * `tuple` is that of the entry.
 */
static __always_inline struct flow_tuple ct_routed_tuple(const struct ct_entry *entry,
							 const struct flow_tuple *tuple)
{
	struct flow_tuple routed = entry->translated;

	if ((entry->flags & (CT_SNAT | CT_REPLY)) != CT_SNAT)
		return routed;
	routed.source = tuple->source;
	routed.source_port = tuple->source_port;
	return routed;
}

/*
 * Whether all packets of the connection take the slow path: the fast path reads addresses without their link, so that none of a
 * packet's is the key of a flow that has one; and it rewrites no echo's identifier.
 */
static __always_inline int ct_is_always_slow(const struct ct_entry *entry)
{
	__u8 protocol = entry->translated.protocol;

	if (entry->flags & CT_SNAT && (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6))
		return 1;
	return flow_tuple_is_scoped(&entry->translated);
}

/* Whether packets of the connection may be sent to an address of the host: to a frontend, or to what SNAT has taken. */
static __always_inline int ct_is_at_host(const struct ct_entry *entry)
{
	return entry->service || entry->flags & CT_SNAT;
}

/* Whether the network has opened the connection. */
static __always_inline int ct_is_of_network(const struct ct_entry *entry)
{
	return (entry->flags & CT_REPLY ? entry->target : entry->origin) == PARTY_UPLINK;
}

/* Deletes both entries. */
static __noinline void ct_delete_pair(const struct flow_tuple *tuple, const struct ct_entry *entry)
{
	struct flow_tuple key = ct_reverse_key(entry);
	struct conn_usage_key counted = ct_counts_for(entry);
	const struct ct_entry *reverse = ct_find(&key);
	int deleted = reverse && ct_is_reverse(reverse, tuple) ? ct_delete(&key) : 0;

	deleted |= ct_delete(tuple);
	if (deleted)
		conn_usage_close(&counted, deleted & CT_DELETED_REPLIED ? ct_replied_index(tuple->protocol)
									: CT_TABLE_UNREPLIED);
}

/*
 * Whether a packet at this hook of this interface arrives where the entry expects it. This is the fast path's source
 * check: only its own endpoint sends from its addresses, and nobody sends as the host from the network. What comes out of
 * the host's stack must leave by the target's interface, too.
 */
static __always_inline int ct_arrives_as_expected(const struct ct_entry *entry, const struct hook_row *hook,
						  __u32 ifindex)
{
	if (hook->sender == PARTY_ENDPOINT)
		return entry->origin_ifindex == ifindex;
	if (hook->sender == PARTY_UPLINK)
		return entry->origin == PARTY_UPLINK && entry->target != PARTY_HOST;
	return entry->origin != PARTY_ENDPOINT && entry->target_ifindex == ifindex;
}

/* -- Age and state -------------------------------------------------------------------------------------------------- */

static __always_inline __u32 ct_lifetime(__u8 protocol, __u8 state, __u16 flags)
{
	if (protocol == IPPROTO_TCP) {
		if (state == CT_CLOSING)
			return LIFETIME_TCP_CLOSE;
		return flags & CT_ASSURED ? LIFETIME_TCP : LIFETIME_TCP_SYN;
	}
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return LIFETIME_ICMP;
	return state == CT_REPLIED ? LIFETIME_UDP_ONCE : LIFETIME_UDP;
}

static __always_inline int ct_entry_is_expired(const struct ct_entry *entry, __u8 protocol, __u64 now_ns,
					       const struct settings *settings)
{
	__u32 lifetime = ct_lifetime(protocol, entry->state, entry->flags);

	if (lifetime >= LIFETIME_COUNT)
		return 0;
	/* Another CPU may have renewed it after we read the clock. */
	return (__s64)(now_ns - entry->last_seen_ns) > (__s64)settings->lifetime_ns[lifetime];
}

/*
 * Both entries are. One whose reverse was evicted decides alone, unless another connection's entry is at that key. `reverse`: what
 * is there, or null.
 */
static __always_inline int ct_is_expired_with(const struct ct_entry *entry, const struct ct_entry *reverse,
					      const struct flow_tuple *tuple, __u64 now_ns,
					      const struct settings *settings)
{
	if (reverse && !ct_is_reverse(reverse, tuple))
		return 1;
	return ct_entry_is_expired(entry, tuple->protocol, now_ns, settings) &&
	       (!reverse || ct_entry_is_expired(reverse, tuple->protocol, now_ns, settings));
}

static __noinline int ct_pair_is_expired(const struct ct_entry *entry, const struct flow_tuple *tuple,
					 __u64 now_ns, const struct settings *settings)
{
	struct flow_tuple key = ct_reverse_key(entry);

	return ct_is_expired_with(entry, ct_find(&key), tuple, now_ns, settings);
}

/*
 * Notes a segment's flags in one entry; `is_own`: it went this entry's direction. Not zero if it is the first with such a
 * flag in its direction.
 */
static __always_inline int ct_note_tcp_flags(struct ct_entry *entry, __u8 tcp_flags, int is_own)
{
	__u8 noted = tcp_flags & TCP_NOTED;
	int is_fresh = is_own && (noted & ~entry->tcp_flags);

	if (is_own)
		entry->tcp_flags |= noted;
	if (tcp_flags & TCP_FIN)
		entry->flags |= is_own ? CT_FIN_OWN : CT_FIN_REVERSE;
	if (tcp_flags & TCP_RST || (entry->flags & CT_FIN_OWN && entry->flags & CT_FIN_REVERSE))
		entry->state = CT_CLOSING;
	else if (entry->state == CT_CLOSING && !(tcp_flags & TCP_SYN))
		entry->state = entry->flags & CT_ASSURED ? CT_ESTABLISHED : CT_UNREPLIED;
	return is_fresh;
}

/* Whether a packet of this direction may be the first with which the connection works: a reply, or any TCP segment. */
static __always_inline int ct_may_assure(const struct ct_entry *entry)
{
	return !(entry->flags & CT_ASSURED) &&
	       (entry->flags & CT_REPLY || entry->translated.protocol == IPPROTO_TCP);
}

/*
 * Until when packets neither renew this entry nor are reported: a second, or until the next report is due; 0 where any packet may
 * change the connection. In jiffies, since those are read without a call.
 */
static __always_inline void ct_schedule_update(struct ct_entry *entry, const struct settings *settings,
					       __u64 now_ns, __u64 now_jiffies)
{
	__s64 wait_ns = entry->report_ns - now_ns;

	if (wait_ns > (__s64)NSEC_PER_SEC)
		wait_ns = NSEC_PER_SEC;
	entry->next_update_jiffies = 0;
	if (wait_ns > 0 && settings->jiffy_ns && !ct_may_assure(entry))
		entry->next_update_jiffies = now_jiffies + (__u64)wait_ns / settings->jiffy_ns;
}

/* The end of what a side has sent advances by less with each segment: a forged number far ahead moves nothing. */
#define TCP_END_STEP (1U << 20)

/* Notes the numbers of a segment of a direction whose numbers are known; not of a RST. */
static __always_inline void ct_note_tcp_numbers(struct ct_entry *entry, const struct tcp_segment *tcp)
{
	if (tcp->end - entry->tcp_end < TCP_END_STEP)
		entry->tcp_end = tcp->end;
	entry->tcp_ack = tcp->ack;
}

/* The same for any segment, a RST aside. */
static __always_inline void ct_take_tcp_numbers(struct ct_entry *entry, const struct tcp_segment *tcp)
{
	/* Until the connection is established, a SYN may try again with numbers of its own. */
	int is_new = tcp->flags & TCP_SYN && !(entry->flags & CT_ASSURED);

	if (!(entry->flags & CT_TCP_NUMBERS) || is_new) {
		entry->flags |= CT_TCP_NUMBERS;
		entry->tcp_start = tcp->seq;
		entry->tcp_end = tcp->end;
	}
	if (tcp->flags & TCP_ACK) {
		entry->tcp_flags |= TCP_ACK;
		ct_note_tcp_numbers(entry, tcp);
	}
}

/* Whether an acknowledgement number is of what a direction has sent since it began. */
static __always_inline int ct_tcp_is_acked(const struct ct_entry *sender, __u32 ack)
{
	__u32 sent = sender->tcp_end - sender->tcp_start, acked = ack - sender->tcp_start;

	if (!(sender->flags & CT_TCP_NUMBERS) || acked > sent)
		return 0;
	/* Taken up in the middle, the first segment may have been an acknowledgement alone. */
	return acked || (sender->flags & CT_MIDSTREAM && !sent);
}

/*
 * Whether a RST is believed: its number lies between the other side's last acknowledgement and the end of what its own side
 * has sent (RFC 5961, 3.2, as far as a third party can tell), or it acknowledges the SYN that it refuses.
 */
static __always_inline int ct_rst_is_believed(const struct ct_entry *entry, const struct ct_entry *reverse,
					      const struct tcp_segment *tcp)
{
	int is_end_known = entry->flags & CT_TCP_NUMBERS;
	__u32 first = entry->tcp_end - TCP_END_STEP, last = entry->tcp_end;

	if (reverse && !(entry->flags & CT_ASSURED) && tcp->flags & TCP_ACK &&
	    ct_tcp_is_acked(reverse, tcp->ack))
		return 1;
	if (reverse && reverse->tcp_flags & TCP_ACK) {
		first = reverse->tcp_ack;
		if (!is_end_known || (__s32)(last - first) < 0)
			last = first;
	} else if (!is_end_known) {
		return 0;
	}
	return tcp->seq - first <= last - first;
}

/* What a packet of one direction does to its connection; bits. */
enum ct_update {
	CT_UPDATE_FRESH = 1, /* it is the first with its TCP flags */
	CT_UPDATE_EXPIRED = 2, /* nothing: the connection has expired, and the packet is not its */
};

/*
 * Whether this direction's side has opened the connection. A SYN-ACK without an entry replies to a SYN whose entry was evicted:
 * what the other side sends next is no reply to it.
 */
static __always_inline int ct_tcp_is_opener(const struct ct_entry *entry)
{
	return !(entry->flags & CT_REPLY) == !(entry->flags & CT_SYN_ACK_FIRST);
}

/* A segment's effect on both entries. */
static __always_inline int ct_update_tcp(struct ct_entry *entry, struct ct_entry *reverse,
					 const struct tcp_segment *tcp)
{
	int update = ct_note_tcp_flags(entry, tcp->flags, 1) ? CT_UPDATE_FRESH : 0;

	if (reverse)
		ct_note_tcp_flags(reverse, tcp->flags, 0);
	if (tcp->flags & TCP_RST)
		return update;
	ct_take_tcp_numbers(entry, tcp);
	if (entry->flags & CT_ASSURED || !reverse || entry->state == CT_CLOSING)
		return update;
	if (!ct_tcp_is_opener(entry)) {
		entry->state = CT_REPLIED;
		reverse->state = CT_REPLIED;
	}
	return update;
}

/* The same of other protocols: UDP is established with the second question. */
static __always_inline void ct_update_other(struct ct_entry *entry, struct ct_entry *reverse)
{
	if (entry->state == CT_REPLIED) {
		entry->state = CT_ESTABLISHED;
		if (reverse)
			reverse->state = CT_ESTABLISHED;
	}
}

/*
 * Whether a connection works with this packet, which has updated its entries: TCP when the opener acknowledges what the other side
 * has sent (also on a SYN: simultaneous open), never by a RST, and never by what only one side has sent; other protocols with the
 * first reply.
 */
static __always_inline int ct_works_with(const struct ct_entry *entry, const struct ct_entry *reverse,
					 const struct tcp_segment *tcp)
{
	if (entry->translated.protocol != IPPROTO_TCP)
		return entry->flags & CT_REPLY;
	if (entry->state == CT_CLOSING || (tcp->flags & (TCP_ACK | TCP_RST)) != TCP_ACK)
		return 0;
	return ct_tcp_is_opener(entry) && ct_tcp_is_acked(reverse, tcp->ack);
}

/* The other direction's entry: it translates to this direction's tuple, reversed. */
static __always_inline void ct_make_reverse(struct ct_entry *reverse, const struct ct_entry *entry,
					    const struct flow_tuple *tuple)
{
	*reverse = *entry;
	reverse->epoch = 0;
	reverse->report_ns = 0;
	reverse->next_update_jiffies = 0;
	reverse->packets = 0;
	reverse->bytes = 0;
	reverse->origin = entry->target;
	reverse->target = entry->origin;
	reverse->origin_ifindex = entry->target_ifindex;
	reverse->target_ifindex = entry->origin_ifindex;
	reverse->origin_counters = entry->target_counters;
	reverse->target_counters = entry->origin_counters;
	reverse->delivery = DELIVERY_PASS;
	reverse->flags = (entry->flags ^ CT_REPLY) & ~(CT_FIN_OWN | CT_FIN_REVERSE);
	if (entry->flags & CT_FIN_OWN)
		reverse->flags |= CT_FIN_REVERSE;
	if (entry->flags & CT_FIN_REVERSE)
		reverse->flags |= CT_FIN_OWN;
	reverse->flags &= ~CT_TCP_NUMBERS;
	reverse->tcp_flags = 0;
	reverse->translated = flow_tuple_reverse(tuple);
	reverse->address_csum_delta = ~entry->address_csum_delta; /* minus, in one's complement */
	reverse->port_csum_delta =
		entry->port_csum_delta ? ~entry->port_csum_delta : 0; /* zero: ports stay as they are */
}

/* Inserts an evicted reverse entry again, with a verdict due: only its own next packet knows where it is delivered. */
static __noinline void ct_recreate_reverse(const struct ct_entry *entry, const struct flow_tuple *tuple,
					   const struct flow_tuple *key)
{
	struct packet *packet = packet_record(); /* for its room: the stack has none */

	if (!packet)
		return;
	ct_make_reverse(&packet->ct.reverse, entry, tuple);
	if (!bpf_map_update_elem(ct_table(tuple->protocol, !(entry->flags & CT_ASSURED)), key,
				 &packet->ct.reverse, BPF_NOEXIST))
		counter_add(COUNTER_CT_INSERTED, 1);
}

/*
 * Renews both entries with a packet of this direction, unless the connection has expired; the result is enum ct_update. A RST that
 * is not believed changes nothing. Global: it is verified once, not once for each way to it.
 */
__weak __noinline int ct_update_pair(struct ct_entry *entry, const struct flow_tuple *tuple,
				     const struct tcp_segment *tcp, __u64 now_ns)
{
	if (!entry || !tuple || !tcp)
		return CT_UPDATE_EXPIRED; /* never: the verifier can't know */

	const struct settings *settings = settings_find(entry->epoch);
	struct flow_tuple key = ct_reverse_key(entry);
	struct ct_entry *reverse = ct_find(&key);
	int update = 0;

	if (!settings || ct_is_expired_with(entry, reverse, tuple, now_ns, settings))
		return CT_UPDATE_EXPIRED;
	if (tcp->flags & TCP_RST && !ct_rst_is_believed(entry, reverse, tcp))
		return 0;
	entry->last_seen_ns = now_ns;
	if (reverse)
		reverse->last_seen_ns = now_ns;
	if (tuple->protocol == IPPROTO_TCP)
		update = ct_update_tcp(entry, reverse, tcp);
	else
		ct_update_other(entry, reverse);
	if (entry->flags & CT_AFFINITY)
		affinity_refresh(entry->service,
				 entry->flags & CT_REPLY ? &entry->translated.destination : &tuple->source,
				 entry->backend, now_ns);
	if (unlikely(!reverse))
		ct_recreate_reverse(entry, tuple, &key);
	return update;
}

#endif
