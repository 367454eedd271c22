/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets of the host itself: their ports are not SNAT's, and their connections are not a service's. */
#ifndef DPD_HOST_SOCKET_H
#define DPD_HOST_SOCKET_H

#include "../mechanism/packet.h"

/* Two functions: the verifier refuses one instruction that reads from either kind of socket. */
static __noinline int tcp_socket_state(struct __sk_buff *skb, struct bpf_sock_tuple *key, __u32 size)
{
	struct bpf_sock *socket = bpf_skc_lookup_tcp(skb, key, size, BPF_F_CURRENT_NETNS, 0);
	int state;

	if (!socket)
		return 0;
	state = socket->state;
	bpf_sk_release(socket);
	return state;
}

static __noinline int udp_socket_state(struct __sk_buff *skb, struct bpf_sock_tuple *key, __u32 size)
{
	struct bpf_sock *socket = bpf_sk_lookup_udp(skb, key, size, BPF_F_CURRENT_NETNS, 0);
	int state;

	if (!socket)
		return 0;
	state = socket->state;
	bpf_sk_release(socket);
	return state;
}

/*
 * The state (BPF_TCP_ESTABLISHED and so on) of the host's socket that would receive packets of this tuple: one with this peer, else
 * one that listens. 0: there is none, or it is bound to another interface than the packet's. Global: inlined in a loop it is
 * verified once for each turn.
 */
__weak __noinline int host_socket_state(struct __sk_buff *skb, const struct flow_tuple *tuple)
{
	struct bpf_sock_tuple key = {};
	__u32 size = sizeof(key.ipv6);

	if (!tuple)
		return 0; /* never: the verifier can't know */
	if (address_is_mapped(&tuple->source)) {
		size = sizeof(key.ipv4);
		key.ipv4.saddr = address_to_ipv4(&tuple->source);
		key.ipv4.daddr = address_to_ipv4(&tuple->destination);
		key.ipv4.sport = tuple->source_port;
		key.ipv4.dport = tuple->destination_port;
	} else {
		__builtin_memcpy(key.ipv6.saddr, &tuple->source, sizeof(key.ipv6.saddr));
		__builtin_memcpy(key.ipv6.daddr, &tuple->destination, sizeof(key.ipv6.daddr));
		key.ipv6.sport = tuple->source_port;
		key.ipv6.dport = tuple->destination_port;
	}
	if (tuple->protocol == IPPROTO_TCP)
		return tcp_socket_state(skb, &key, size);
	return tuple->protocol == IPPROTO_UDP ? udp_socket_state(skb, &key, size)
					      : 0; /* the kernel does not reveal others */
}

static __always_inline int host_has_socket(struct __sk_buff *skb, const struct flow_tuple *tuple)
{
	return host_socket_state(skb, tuple) != 0;
}

/* Whether the packet continues what the host's own socket has with its sender. */
static __always_inline int host_is_connected(struct __sk_buff *skb, const struct packet *packet)
{
	int state;

	if (packet_opens_tcp(packet))
		return 0;
	state = host_socket_state(skb, &packet->headers.tuple);
	return state && state != BPF_TCP_LISTEN && state != BPF_TCP_CLOSE;
}

#endif
