/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the host's own sockets were translated to: written by the programs of its cgroup hooks, which see no packets, and read
 * where a packet of such a socket opens a connection.
 */
#ifndef DPD_SOCKET_PEER_H
#define DPD_SOCKET_PEER_H

#include "../mechanism/address.h"
#include "../mechanism/packet.h"

/*
 * Of a connected socket. It lies in the socket itself, and goes with it. An unconnected one has an empty row, as a sign that it
 * has rows of dpd_socket_flows.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_peer);
} dpd_socket_peers __weak SEC(".maps");

/*
 * Of UDP sockets. An unconnected one has two rows for each frontend: by it the backend is found, which stays, and by that the
 * frontend; a connected one has the second alone.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct socket_flow_key);
	__type(value, struct socket_peer);
} dpd_socket_flows __weak SEC(".maps");

static __always_inline int socket_peer_is_backend(const struct socket_peer *peer,
						  const struct address *address, __be16 port)
{
	return peer->backend_port == port && address_equals(&peer->backend, address);
}

/* Whether a socket still has the peer that it has connected to. No program sees a UDP socket disconnect. */
static __always_inline int socket_is_connected(const struct bpf_sock *socket)
{
	return socket->protocol != IPPROTO_UDP || socket->state == BPF_TCP_ESTABLISHED;
}

/* The peer of a socket that has this backend; null: it was not translated to it. */
static __always_inline const struct socket_peer *socket_peer_find(const struct bpf_sock *socket,
								  const struct socket_peer *stored,
								  __u64 cookie, const struct address *backend,
								  __be16 port)
{
	struct socket_flow_key key = {
		.cookie = cookie,
		.address = *backend,
		.port = port,
		.side = SOCKET_SIDE_BACKEND,
	};

	if (socket_is_connected(socket) && socket_peer_is_backend(stored, backend, port))
		return stored;
	return bpf_map_lookup_elem(&dpd_socket_flows, &key);
}

/*
 * Notes the service of a connection whose first packet the host itself sends, if its socket was translated to the packet's
 * destination. Global: it is verified once.
 */
__weak __noinline int socket_note_service(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();
	struct bpf_sock *socket = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;
	const struct socket_peer *peer = socket ? bpf_sk_storage_get(&dpd_socket_peers, socket, 0, 0) : 0;

	if (!packet || !peer)
		return 0;

	const struct flow_tuple *tuple = &packet->headers.tuple;

	peer = socket_peer_find(socket, peer, bpf_get_socket_cookie(skb), &tuple->destination,
				tuple->destination_port);
	if (!peer)
		return 0;
	packet->ct.entry.service = peer->service;
	packet->ct.entry.backend = peer->backend_number;
	packet->ct.entry.flags |= CT_SOCKET;
	return 0;
}

#endif
