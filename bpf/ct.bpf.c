// SPDX-License-Identifier: GPL-2.0-only
/*
 * The conntrack step: does the packet belong to a connection?
 *
 *	of the live epoch, arriving as expected -> tail_deliver
 *	its verdict is of an older configuration -> tail_policy again, if its backend still exists
 *	none -> a backend, a free reply tuple, and tail_policy
 */
#include "lib/feature/ct_commit.h"
#include "lib/feature/ct_create.h"
#include "lib/feature/policy_verdict.h"
#include "lib/feature/reverse_path.h"
#include "lib/feature/snat.h"
#include "lib/feature/snat_source.h"
#include "lib/feature/socket_peer.h"
#include "lib/mechanism/chain.h"

/* What policy looks at: client and backend, whichever of them sent this packet. */
static __always_inline void set_original(struct packet *packet)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	const struct flow_tuple *translated = &packet->ct.entry.translated;
	struct flow_tuple *original = &packet->ct.original;

	original->protocol = tuple->protocol;
	if (packet->ct.entry.flags & CT_REPLY) {
		original->source = translated->destination;
		original->destination = tuple->source;
		original->destination_port = tuple->source_port;
	} else {
		original->source = tuple->source;
		original->destination = translated->destination;
		original->destination_port = translated->destination_port;
	}
	if (!protocol_has_ports(original->protocol))
		original->destination_port = 0;
}

/*
 * Sources that no new connection has. Replies to a frontend's address would be taken for the service's: so it is no source,
 * except for what the host itself sends from an address of its own, by a port that is no frontend's. Who sends to itself
 * through no service has forged a source, unless it came by a port that the host publishes; never from and to one port, for then
 * one key would stand for both directions.
 */
static __always_inline __must_check int check_source(const struct packet *packet)
{
	const struct flow_tuple *tuple = &packet->headers.tuple;
	struct flow_tuple replies = flow_tuple_reverse(tuple);

	if (flow_tuple_equals(tuple, &replies))
		return -REASON_INVALID_SOURCE;
	if (packet->hook.sender != PARTY_HOST && !packet->lb.service.id &&
	    address_equals(&tuple->source, &tuple->destination))
		return -REASON_INVALID_SOURCE;
	if (packet->hook.sender == PARTY_ENDPOINT)
		return 0; /* admission has seen that the address is its own */

	const struct service *service = service_find(packet->generation_slot, &replies);

	if (!service)
		return 0;

	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, &tuple->source);
	int is_hosts_own = packet_is_hosts_own(packet) && owner && owner->scope == SCOPE_HOST;

	return is_hosts_own && !service->id ? 0 : -REASON_INVALID_SOURCE;
}

/* ICMP but for echo belongs to connections; errors have their own step. */
static __always_inline int is_icmp_unrelated(const struct packet *packet)
{
	return packet_is_icmp(packet) && packet->headers.fragment != FRAGMENT_LATER &&
	       !icmp_is_echo(packet->headers.family, packet->headers.icmp_type);
}

/*
 * What the network opens to a workload goes up the host's stack first, where that is the uplink's way, and where the kernel has to
 * check the route back; dpd_to_container sees it then. To a frontend the stack knows no way: so its check is made here alone.
 */
static __always_inline __must_check int check_way(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->hook.sender != PARTY_UPLINK)
		return 0;

	const struct uplink *uplink = uplink_find(packet->generation_slot, packet->ifindex);
	int is_confirmed = reverse_path_is_confirmed(skb);

	if (packet->lb.service.id || packet->lb.error)
		return is_confirmed ? 0 : -REASON_MARTIAN;
	return is_confirmed && !(uplink && uplink->forwarding == FORWARDING_STACK) ? 0 : ACTION_PASS;
}

/* A new connection; nothing is inserted before policy has allowed it. */
static __noinline __must_check int ct_new(struct __sk_buff *skb, struct packet *packet,
					  const struct settings *settings)
{
	int result = packet->is_stray ? ACTION_PASS : check_source(packet);

	if (!result)
		result = check_way(skb, packet);
	if (result)
		return result;
	if (packet->lb.error) {
		if (packet->lb.error != -REASON_SOURCE_RANGE)
			packet->response.kind = RESPONSE_PORT_UNREACHABLE;
		packet->ct.entry.service = packet->lb.service.id;
		return packet->lb.error;
	}
	if (is_icmp_unrelated(packet))
		return -REASON_ICMP_UNRELATED;
	if (settings->strict && packet->headers.tuple.protocol == IPPROTO_TCP &&
	    (packet->headers.tcp.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return -REASON_TCP_WITHOUT_SYN;

	struct conn_usage_key opener = { .ifindex = packet->ifindex, .opener = OPENER_WORKLOAD };

	if (packet->hook.sender == PARTY_ENDPOINT &&
	    conn_usage_is_exhausted(&opener, ct_replied_index(packet->headers.tuple.protocol), settings,
				    packet->now_ns))
		return -REASON_CONNECTION_LIMIT;

	if (packet->hook.sender == PARTY_HOST)
		packet->ct.entry.flags |=
			packet_is_hosts_own(packet) ? CT_VIA_STACK : CT_VIA_STACK | CT_FORWARDED;
	result = ct_choose_translation(skb, packet);
	set_original(packet);
	return result;
}

/*
 * Whether the service that the connection was opened through still has its backend, and still answers its client's side. Notes a
 * client that its sources don't name any more, whom tail_policy refuses.
 */
static __always_inline int ct_backend_is_valid(struct packet *packet)
{
	const struct ct_entry *entry = &packet->ct.entry;
	const struct flow_tuple *tuple = &packet->headers.tuple;
	int reply = entry->flags & CT_REPLY;
	struct flow_tuple forward = reply ? ct_reverse_key(entry) : *tuple;
	const struct address *address = reply ? &tuple->source : &entry->translated.destination;
	__be16 port = reply ? tuple->source_port : entry->translated.destination_port;
	const struct service *service = service_find(packet->generation_slot, &forward);

	if (!entry->service)
		return !service;
	if (!service || service->id != entry->service)
		return 0;
	if (ct_is_of_network(entry)) {
		if (!(service->flags & SERVICE_EXTERNAL))
			return 0;
		packet->ct.is_source_refused =
			!service_admits(packet->generation_slot, service,
					reply ? &entry->translated.destination : &tuple->source);
	}

	const struct backend *backend = backend_find(packet->generation_slot, entry->backend);

	if (!backend || backend->service != entry->service || backend->port != port ||
	    !address_equals(&backend->address, address))
		return 0;
	return backend_keeps(backend, tuple->protocol);
}

/* Whether the entry is not this packet's: it has expired, a SYN opens a connection in its place, or a socket has its port. */
static __always_inline int ct_is_over(struct __sk_buff *skb, const struct packet *packet,
				      const struct ct_entry *entry, const struct settings *settings)
{
	if (entry->flags & CT_SNAT && snat_is_lost(skb, entry, &packet->headers.tuple))
		return 1;
	if (packet_opens_tcp(packet) && (entry->state == CT_CLOSING || entry->state == CT_REFUSED))
		return 1;
	return ct_pair_is_expired(entry, &packet->headers.tuple, packet->now_ns, settings);
}

/*
 * The connection's backend is gone, or the address that it was masqueraded with. A UDP client's next question and a SYN get
 * another one; a UDP answer that was under way arrives if policy allows it. Any other TCP segment of the client gets a reset at
 * once, and one of the backend becomes a reset for the client, which may wait for it and send nothing. The pair stays, refused:
 * every further segment of either side gets a reset. `is_stray`: where there is no service any more, what comes next is the
 * host's.
 */
static __noinline __must_check int translation_gone(struct __sk_buff *skb, struct packet *packet,
						    const struct settings *settings, __u8 reason,
						    __u8 is_stray)
{
	int is_tcp = packet->headers.tuple.protocol == IPPROTO_TCP;
	int reply = packet->ct.entry.flags & CT_REPLY;

	if (reply && !is_tcp) {
		set_original(packet);
		return 0;
	}
	/* Whose connection is closed waits for nothing, and a client that opens one sends its SYN again. */
	if (reply && packet->ct.entry.state != CT_CLOSING && !(packet->headers.tcp.flags & TCP_SYN)) {
		packet->response.kind = RESPONSE_RESET_RECEIVER;
		packet->response.reason = reason;
		return -(int)reason;
	}
	if (is_tcp && !reply && !packet_opens_tcp(packet)) {
		packet->response.kind = RESPONSE_RESET;
		/* Nothing comes back to an address that is gone. */
		if (reason == REASON_SNAT_GONE)
			ct_delete_pair(&packet->headers.tuple, &packet->ct.entry);
		else
			ct_end(reason);
		return -(int)reason;
	}
	ct_delete_pair(&packet->headers.tuple, &packet->ct.entry);
	if (reply) {
		packet->response.kind = RESPONSE_RESET;
		return -(int)reason;
	}
	__builtin_memset(&packet->ct, 0, sizeof(packet->ct));
	packet->is_stray = is_stray;
	return ct_new(skb, packet, settings);
}

/* A packet of a refused connection: it keeps both entries for their lifetime. One that was ended gets a reset each time. */
static __noinline __must_check int drop_refused(struct packet *packet, struct ct_entry *entry)
{
	struct flow_tuple key = ct_reverse_key(entry);
	struct ct_entry *reverse = ct_find(&key);
	__u8 reason = entry->refused_reason;

	entry->last_seen_ns = packet->now_ns;
	if (reverse && ct_is_reverse(reverse, &packet->headers.tuple))
		reverse->last_seen_ns = packet->now_ns;
	if (reason == REASON_NO_BACKEND || reason == REASON_SNAT_GONE) {
		packet->response.kind = RESPONSE_RESET;
		return -(int)reason;
	}
	packet->direction = entry->flags & CT_REFUSED_EGRESS ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	policy_count_denied(packet);
	return -(int)reason;
}

static __always_inline __must_check int ct_lookup(struct __sk_buff *skb, struct packet *packet,
						  const struct settings *settings)
{
	struct ct_entry *entry = ct_find_replied(&packet->headers.tuple);
	__u8 is_stray = packet->is_stray;

	if (!entry) {
		entry = bpf_map_lookup_elem(&dpd_ct_unreplied, &packet->headers.tuple);
		packet->ct.unreplied = !!entry;
	}
	if (entry && ct_is_over(skb, packet, entry, settings)) {
		ct_delete_pair(&packet->headers.tuple, entry);
		entry = 0;
	}
	if (!entry)
		return ct_new(skb, packet, settings);
	if (packet->hook.sender == PARTY_UPLINK && entry->flags & CT_VIA_STACK)
		return ACTION_PASS; /* the same of what has begun that way */
	if (is_stray && !ct_is_at_host(entry))
		return ACTION_PASS;
	packet->is_stray = 0;
	packet->ct.found = 1;
	packet->ct.entry = *entry;
	packet->ct.counted_egress_rule = entry->egress_rule;
	packet->ct.counted_ingress_rule = entry->ingress_rule;
	packet->ct.is_current = packet->ct.entry.epoch == packet->epoch &&
				ct_arrives_as_expected(&packet->ct.entry, &packet->hook, packet->ifindex);
	if (packet->ct.is_current && entry->state != CT_REFUSED)
		return 0;
	/* An answer may be refused whose backend is gone: the next question is for another backend, and judged with that. */
	if (packet->ct.is_current && packet->ct.entry.flags & CT_REPLY)
		return drop_refused(packet, entry);
	/* A socket that was translated is ended with its backend. */
	if (!(packet->ct.entry.flags & CT_SOCKET) && !ct_backend_is_valid(packet))
		return translation_gone(skb, packet, settings, REASON_NO_BACKEND, is_stray);
	if (!snat_source_is_valid())
		return translation_gone(skb, packet, settings, REASON_SNAT_GONE, is_stray);
	if (packet->ct.is_current)
		return drop_refused(packet, entry);
	set_original(packet);
	return 0;
}

SEC("tc")
int tail_ct(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int result = settings ? ct_lookup(skb, packet, settings) : -REASON_NO_CONFIGURATION;

	if (!result && !packet->ct.found && packet_is_hosts_own(packet))
		socket_note_service(skb);
	return step_finish(skb, packet, result, packet->ct.is_current ? STEP_DELIVER : STEP_POLICY);
}
