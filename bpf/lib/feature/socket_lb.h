/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Services for the host's own sockets: what they connect or send to is translated from a frontend to a backend before there is a
 * packet, and back in what they receive. So no packet of theirs is rewritten.
 *
 * The programs run for all sockets of the cgroup. Those of other network namespaces are left alone: their packets meet the hooks
 * of their own interfaces. They may be preempted, and use no packet record; a counter of the CPU may miss one of theirs.
 */
#ifndef DPD_SOCKET_LB_H
#define DPD_SOCKET_LB_H

#include "../mechanism/event.h"
#include "affinity.h"
#include "socket_peer.h"

/* What a program of these hooks returns. */
enum {
	SOCKET_REFUSE = 0,
	SOCKET_PROCEED = 1,
};

/* So many backends are tried for one whose replies the socket can tell from those of another service. */
enum { SOCKET_BACKEND_TRIES = 8 };

/* A call of a socket, to whatever address. */
struct socket_call {
	struct flow_tuple tuple; /* the source as far as it is bound */
	__u64 epoch;
	__u64 now_ns;
	__u32 slot;
	__u32 is_translated; /* the destination is a backend's now */
};

/* -- Addresses of calls --------------------------------------------------------------------------------------------- */

static __always_inline struct address socket_address4(const struct bpf_sock_addr *ctx)
{
	return address_from_ipv4(ctx->user_ip4);
}

static __always_inline struct address socket_address6(const struct bpf_sock_addr *ctx)
{
	return (struct address){ .word = {
					 ctx->user_ip6[0] | (__u64)ctx->user_ip6[1] << 32,
					 ctx->user_ip6[2] | (__u64)ctx->user_ip6[3] << 32,
				 } };
}

static __always_inline void socket_set4(struct bpf_sock_addr *ctx, const struct address *address, __be16 port)
{
	ctx->user_ip4 = address_to_ipv4(address);
	ctx->user_port = port;
}

static __always_inline void socket_set6(struct bpf_sock_addr *ctx, const struct address *address, __be16 port)
{
	ctx->user_ip6[0] = address->word[0];
	ctx->user_ip6[1] = address->word[0] >> 32;
	ctx->user_ip6[2] = address->word[1];
	ctx->user_ip6[3] = address->word[1] >> 32;
	ctx->user_port = port;
}

/* The protocol of a service that a socket can reach; 0: none. MPTCP is TCP to its peer. */
static __always_inline __u8 socket_protocol(const struct bpf_sock_addr *ctx)
{
	__u32 protocol = ctx->protocol;

	if (protocol == IPPROTO_MPTCP)
		return IPPROTO_TCP;
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP ? protocol : 0;
}

static __always_inline struct socket_call socket_call(const struct bpf_sock_addr *ctx,
						      struct address destination)
{
	__u64 epoch = generation_live_epoch();

	return (struct socket_call){
		.tuple = {
			.destination = destination,
			.destination_port = ctx->user_port,
			.protocol = socket_protocol(ctx),
		},
		.epoch = epoch,
		.slot = generation_slot(epoch),
	};
}

static __always_inline void socket_call_translate(struct socket_call *call, const struct socket_peer *peer)
{
	call->tuple.destination = peer->backend;
	call->tuple.destination_port = peer->backend_port;
	call->is_translated = 1;
}

/* The source of a call: unspecified, and port 0, until the socket is bound. */
static __always_inline void socket_set_source(const struct bpf_sock_addr *ctx, struct flow_tuple *tuple)
{
	/* Volatile, and all of it: else one load gets its pointer by arithmetic, which the verifier refuses. */
	const volatile struct bpf_sock *socket = ctx->sk;
	struct address ipv4 = address_from_ipv4(socket->src_ip4);
	struct address ipv6 = { .word = {
					socket->src_ip6[0] | (__u64)socket->src_ip6[1] << 32,
					socket->src_ip6[2] | (__u64)socket->src_ip6[3] << 32,
				} };

	tuple->source_port = bpf_htons(socket->src_port);
	tuple->source = address_is_mapped(&tuple->destination) ? ipv4 : ipv6;
}

/* -- Reports -------------------------------------------------------------------------------------------------------- */

static __always_inline struct event_subject socket_event_subject(const struct socket_call *call,
								 __u32 service)
{
	return (struct event_subject){
		.now_ns = call->now_ns,
		.epoch = call->epoch,
		.tuple = &call->tuple,
		.sender_identity = IDENTITY_HOST,
		.service = service,
	};
}

/* Reports a translation: a socket connects, or an unconnected one sends. */
static __noinline void socket_report(const struct socket_call *call, const struct socket_peer *peer,
				     const struct settings *settings)
{
	struct event_subject subject = socket_event_subject(call, peer->service);
	struct report report = {
		.repeats = 1,
		.verdict = VERDICT_FORWARDED,
		.point = POINT_FROM_HOST,
		.direction = DIRECTION_EGRESS,
	};
	struct event *event = event_reserve(settings, call->now_ns);

	if (!event)
		return;
	subject.receiver_identity = event_identity(call->epoch, &peer->backend);
	event_fill(event, &subject, &report);
	event->translated.destination = peer->backend;
	event->translated.destination_port = peer->backend_port;
	event->backend = peer->backend_number;
	bpf_ringbuf_submit(event, event_wakeup());
}

/* Refuses a call as a closed port would: the host sends no packet to a frontend that nobody answers. */
static __always_inline int socket_refuse(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return SOCKET_REFUSE;
}

/* The same, as a drop. */
static __noinline int socket_drop(const struct socket_call *call, __u32 service, __u8 reason)
{
	struct event_subject subject = socket_event_subject(call, service);
	struct drop_key key = { .tuple = call->tuple, .reason = reason };
	struct report report = {
		.verdict = VERDICT_DROPPED,
		.point = POINT_FROM_HOST,
		.reason = reason,
		.direction = DIRECTION_EGRESS,
	};

	drop_count_add(0, reason, DIRECTION_EGRESS, 0);
	drop_report(&subject, &key, &report);
	return socket_refuse();
}

/* -- Backends ------------------------------------------------------------------------------------------------------- */

/*
 * The service of what a socket of the host calls; null: of none. At an address of the host, what is no frontend's port is the
 * host's own. Port 0 is no call: resolvers connect to it to learn which source the host would take.
 */
static __always_inline const struct service *socket_service(struct bpf_sock_addr *ctx,
							    const struct socket_call *call)
{
	int is_call = call->tuple.destination_port && call->tuple.protocol;
	const struct service *service = is_call ? service_find(call->slot, &call->tuple) : 0;
	const struct settings *settings = service ? settings_find(call->epoch) : 0;

	if (!service || !settings || !settings->netns_cookie ||
	    bpf_get_netns_cookie(ctx) != settings->netns_cookie)
		return 0;
	if (service->id)
		return service;

	const struct ipcache_entry *owner = ipcache_find(call->slot, &call->tuple.destination);

	return owner && owner->scope == SCOPE_HOST ? 0 : service;
}

/* What a socket becomes connected to with a backend of this number. Zero if there is none. */
static __always_inline int socket_peer_make(const struct socket_call *call, const struct service *service,
					    __u32 number, struct socket_peer *peer)
{
	const struct backend *backend = backend_find(call->slot, number);

	if (!backend)
		return 0;
	peer->frontend = call->tuple.destination;
	peer->frontend_port = call->tuple.destination_port;
	peer->backend = backend->address;
	peer->backend_port = backend->port;
	peer->service = service->id;
	peer->backend_number = number;
	return 1;
}

/* The host's own sockets are one client, of either family. */
static __always_inline struct address socket_client(const struct socket_call *call)
{
	return address_is_mapped(&call->tuple.destination) ? address_from_ipv4(0) : (struct address){};
}

/*
 * A backend for a new connection. 0, or minus a reason. Mostly the socket has no source yet that could be hashed, and no other host
 * gets its packets: a Maglev table gives the shares, and chance the column.
 */
static __noinline __must_check int socket_pick(const struct socket_call *call, const struct service *service,
					       struct backend_pick *pick, struct socket_peer *peer)
{
	const __u32 random[2] = { bpf_get_prandom_u32(), bpf_get_prandom_u32() };
	int result =
		service->id ? service_pick_backend(call->slot, service, random, pick) : -REASON_NO_SERVICE;

	if (result)
		return result;
	if (service->affinity_ns) {
		struct address client = socket_client(call);
		__u32 kept = affinity_find(call->slot, service, &client, call->now_ns);

		pick->backend = kept ? kept : pick->backend;
	}
	return socket_peer_make(call, service, pick->backend, peer) ? 0 : -REASON_NO_BACKEND;
}

/* With affinity the backend is that of later connections, too. */
static __always_inline void socket_note_affinity(const struct socket_call *call,
						 const struct service *service, __u32 backend)
{
	struct address client = socket_client(call);

	if (service->affinity_ns)
		affinity_note(service, &client, backend, call->now_ns);
}

/* The same of a flow that keeps its backend, which need not be the one that later ones get. */
static __always_inline void socket_prolong_affinity(const struct socket_call *call,
						    const struct service *service, __u32 backend)
{
	struct address client = socket_client(call);

	if (service->affinity_ns)
		affinity_refresh(service->id, &client, backend, call->now_ns);
}

/* -- connect() ------------------------------------------------------------------------------------------------------ */

/* The key of the row by which the frontend of a reply is found. */
static __always_inline struct socket_flow_key socket_reply_key(__u64 cookie, const struct socket_peer *peer)
{
	return (struct socket_flow_key){
		.cookie = cookie,
		.address = peer->backend,
		.port = peer->backend_port,
		.side = SOCKET_SIDE_BACKEND,
	};
}

/*
 * Notes what a connected socket was translated to; of UDP in a row of flows, too, since the kernel does not list what lies in those
 * sockets. Zero if there is no memory.
 */
static __always_inline int socket_store(struct bpf_sock_addr *ctx, const struct socket_call *call,
					struct socket_peer *peer)
{
	struct socket_peer *stored =
		bpf_sk_storage_get(&dpd_socket_peers, ctx->sk, peer, BPF_SK_STORAGE_GET_F_CREATE);

	if (!stored)
		return 0;
	*stored = *peer; /* it may be of an earlier connection */
	if (call->tuple.protocol != IPPROTO_UDP)
		return 1;

	struct socket_flow_key key = socket_reply_key(bpf_get_socket_cookie(ctx), peer);

	return !bpf_map_update_elem(&dpd_socket_flows, &key, peer, BPF_ANY);
}

/*
 * A socket with rows of flows connects or sends to no frontend: what comes from there is the reply to that. Zero if the socket
 * has nothing of a translation.
 */
static __always_inline int socket_forget_reply(struct bpf_sock_addr *ctx, const struct socket_call *call)
{
	struct socket_flow_key key = {
		.address = call->tuple.destination,
		.port = call->tuple.destination_port,
		.side = SOCKET_SIDE_BACKEND,
	};

	if (!bpf_sk_storage_get(&dpd_socket_peers, ctx->sk, 0, 0))
		return 0;
	key.cookie = bpf_get_socket_cookie(ctx);
	bpf_map_delete_elem(&dpd_socket_flows, &key);
	return 1;
}

/*
 * A socket connects to the call's destination, which is its backend's then. SOCKET_REFUSE, or SOCKET_PROCEED: then what the
 * socket had of an earlier connection is gone.
 */
static __always_inline int socket_connect(struct bpf_sock_addr *ctx, struct socket_call *call)
{
	const struct service *service = socket_service(ctx, call);
	struct socket_peer peer = {};
	struct backend_pick pick;

	if (!service) {
		if (socket_forget_reply(ctx, call))
			bpf_sk_storage_delete(&dpd_socket_peers, ctx->sk);
		return SOCKET_PROCEED;
	}
	socket_set_source(ctx, &call->tuple);
	call->now_ns = bpf_ktime_get_ns();

	int result = socket_pick(call, service, &pick, &peer);

	/* UDP that connects sends nothing: resolvers do so, to whatever port, to sort the addresses of a name. */
	if (result == -REASON_NO_SERVICE && call->tuple.protocol == IPPROTO_UDP)
		return socket_refuse();
	if (result)
		return socket_drop(call, service->id, -result);
	if (!socket_store(ctx, call, &peer)) {
		bpf_set_retval(-ENOMEM);
		return SOCKET_REFUSE;
	}
	socket_note_affinity(call, service, peer.backend_number);

	const struct settings *settings = settings_find(call->epoch);

	if (settings)
		socket_report(call, &peer, settings);
	socket_call_translate(call, &peer);
	return SOCKET_PROCEED;
}

/* -- sendto(), sendmsg() -------------------------------------------------------------------------------------------- */

/* Whether an unconnected socket keeps the backend that it has for a frontend. */
static __always_inline int socket_flow_is_usable(const struct socket_call *call,
						 const struct service *service,
						 const struct socket_peer *flow)
{
	const struct backend *backend = backend_find(call->slot, flow->backend_number);

	return backend && flow->service == service->id && backend->service == service->id &&
	       backend_keeps(backend, IPPROTO_UDP) &&
	       socket_peer_is_backend(flow, &backend->address, backend->port);
}

/* Whose replies those of the peer's backend are now; null: nobody's but its own. */
static __always_inline const struct socket_peer *socket_reply_find(__u64 cookie,
								   const struct socket_peer *peer)
{
	struct socket_flow_key key = socket_reply_key(cookie, peer);

	return bpf_map_lookup_elem(&dpd_socket_flows, &key);
}

static __always_inline int socket_peer_has_frontend(const struct socket_peer *a, const struct socket_peer *b)
{
	return a->frontend_port == b->frontend_port && address_equals(&a->frontend, &b->frontend);
}

/* Whether replies of the peer's backend are those of another frontend, that the socket has sent to before. */
static __always_inline int socket_reply_is_taken(__u64 cookie, const struct socket_peer *peer)
{
	const struct socket_peer *other = socket_reply_find(cookie, peer);

	return other && !socket_peer_has_frontend(other, peer);
}

/* The same, or replies are the backend's own: the socket has sent to that itself since. */
static __always_inline int socket_reply_is_lost(__u64 cookie, const struct socket_peer *peer)
{
	const struct socket_peer *other = socket_reply_find(cookie, peer);

	return !other || !socket_peer_has_frontend(other, peer);
}

/*
 * A backend for a frontend that the socket has not sent to before: one whose replies are not those of another frontend, if
 * there is one. 0, or minus a reason.
 */
static __noinline __must_check int socket_pick_apart(const struct socket_call *call,
						     const struct service *service, __u64 cookie,
						     struct socket_peer *peer)
{
	struct backend_pick pick = {};
	int result = socket_pick(call, service, &pick, peer);

	if (result || !socket_reply_is_taken(cookie, peer))
		return result;
	for (__u32 i = 1; i < SOCKET_BACKEND_TRIES; i++) {
		__u32 number = service_next_backend(call->slot, service, pick.column, i);

		if (!number || !socket_peer_make(call, service, number, peer))
			break;
		if (!socket_reply_is_taken(cookie, peer))
			return 0;
	}
	return socket_peer_make(call, service, pick.backend, peer) ? 0 : -REASON_NO_BACKEND;
}

/* Notes both rows of a flow, and in the socket that it has some. Zero if there is no memory. */
static __always_inline int socket_store_flow(struct bpf_sock_addr *ctx, struct socket_flow_key *key,
					     const struct socket_peer *peer)
{
	if (!bpf_sk_storage_get(&dpd_socket_peers, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE) ||
	    bpf_map_update_elem(&dpd_socket_flows, key, peer, BPF_ANY))
		return 0;
	*key = socket_reply_key(key->cookie, peer);
	return !bpf_map_update_elem(&dpd_socket_flows, key, peer, BPF_ANY);
}

/*
 * A socket sends to the call's destination; as socket_connect(). Each message is looked up: the backend stays while it is usable.
 * Of frontends that have one backend, replies are those of the one that was sent to last.
 */
static __always_inline int socket_send(struct bpf_sock_addr *ctx, struct socket_call *call)
{
	const struct service *service = socket_service(ctx, call);

	if (!service) {
		socket_forget_reply(ctx, call);
		return SOCKET_PROCEED;
	}

	const struct settings *settings = settings_find(call->epoch);
	struct socket_flow_key key = {
		.cookie = bpf_get_socket_cookie(ctx),
		.address = call->tuple.destination,
		.port = call->tuple.destination_port,
		.side = SOCKET_SIDE_FRONTEND,
	};
	const struct socket_peer *flow = bpf_map_lookup_elem(&dpd_socket_flows, &key);
	struct socket_peer peer = {};
	int result = 0, is_stored = 0;

	socket_set_source(ctx, &call->tuple);
	call->now_ns = bpf_ktime_get_ns();
	if (flow && socket_flow_is_usable(call, service, flow)) {
		peer = *flow;
		is_stored = !socket_reply_is_lost(key.cookie, &peer);
		socket_prolong_affinity(call, service, peer.backend_number);
	} else {
		result = socket_pick_apart(call, service, key.cookie, &peer);
		if (!result)
			socket_note_affinity(call, service, peer.backend_number);
	}
	if (result)
		return socket_drop(call, service->id, -result);
	if (settings && call->now_ns >= peer.report_ns) {
		socket_report(call, &peer, settings);
		peer.report_ns = event_next_report_ns(settings, call->now_ns);
		is_stored = 0;
	}
	if (!is_stored && !socket_store_flow(ctx, &key, &peer)) {
		bpf_set_retval(-ENOMEM);
		return SOCKET_REFUSE;
	}
	socket_call_translate(call, &peer);
	return SOCKET_PROCEED;
}

/* -- recvmsg(), getpeername() --------------------------------------------------------------------------------------- */

/* Whether what a socket names as its peer is a backend that it was translated to: then it becomes the frontend. */
static __always_inline int socket_restore(struct bpf_sock_addr *ctx, struct address *address, __be16 *port)
{
	const struct socket_peer *peer = bpf_sk_storage_get(&dpd_socket_peers, ctx->sk, 0, 0);

	if (!peer)
		return 0;
	peer = socket_peer_find(ctx->sk, peer, bpf_get_socket_cookie(ctx), address, *port);
	if (!peer)
		return 0;
	*address = peer->frontend;
	*port = peer->frontend_port;
	return 1;
}

#endif
