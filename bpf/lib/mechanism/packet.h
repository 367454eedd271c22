/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The packet as the chain knows it: a per-CPU record that one step hands to the next. Its members stand in groups, one for
 * each step that writes it, with a line on who writes and who reads them. Each member has one meaning.
 */
#ifndef DPD_PACKET_H
#define DPD_PACKET_H

#include "address.h"
#include "generation.h"
#include "hook.h"

/* What a hook or a step returns once it has decided; minus an enum reason is a drop. */
enum action {
	ACTION_CONTINUE = 0, /* the next step of the chain decides */
	ACTION_PASS = 1, /* the kernel carries on, and other programs on the hook see the packet */
	ACTION_REDIRECT = 2, /* bpf_redirect* has been called */
	ACTION_DROP = 3, /* counted and reported already */
};

enum fragment_kind {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2, /* has no transport header */
};

/* What is sent back to the packet's sender instead of forwarding the packet. */
enum response_kind {
	RESPONSE_NONE = 0,
	RESPONSE_PORT_UNREACHABLE = 1,
	RESPONSE_TIME_EXCEEDED = 2,
	RESPONSE_RESET = 3,
	RESPONSE_ECHO = 4,
	RESPONSE_TOO_BIG = 5,
	RESPONSE_NO_ROUTE = 6,
	RESPONSE_PROHIBITED = 7,
	RESPONSE_RESET_RECEIVER = 8, /* to the packet's receiver, whose connection ends with it */
};

/* What conntrack needs of a TCP header; numbers in host byte order. */
struct tcp_segment {
	__u32 seq;
	__u32 end; /* seq and the length in sequence space: payload, SYN, FIN */
	__u32 ack;
	__u8 flags;
	__u8 pad[3];
};

/* What the headers say. Written by tail_handle_ipv4 and _ipv6 (ports of a later fragment: by fragment_track). */
struct packet_headers {
	struct flow_tuple tuple; /* as it arrived */
	__u32 length; /* from the network header on, by that header */
	__u32 fragment_id;
	__u16 transport; /* offset of the transport header in the frame */
	__u16 to_payload; /* bytes from the network header to the payload */
	__u8 family; /* 4 or 6 */
	__u8 hop_limit;
	__u8 fragment; /* enum fragment_kind */
	__u8 may_fragment; /* IPv4 without DF: the kernel may fragment it */
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 pad[2];
	struct tcp_segment tcp; /* zero for other protocols */
};

/* The service that the packet is sent to, and the backend that a new connection gets. Written by tail_lb; read by tail_ct. */
struct packet_lb {
	struct service service; /* id 0: none */
	__s32 error; /* minus the reason why no backend can be picked; 0: one was, or there is no service */
	__u32 column; /* of the service's backend table: the picked one */
	__u32 backend; /* that it gave */
};

/* The connection. Written by tail_ct (the verdict in the entry: tail_policy; its insertion: tail_deliver). */
struct packet_ct {
	struct ct_entry entry; /* a copy of this direction's entry, or the entry to be made */
	struct ct_entry
		reverse; /* scratch of ct_commit.h: the other direction's, while a pair is inserted or moves */
	struct flow_tuple
		original; /* client to backend, as policy sees it: whichever side sent this packet */
	__u32 counted_egress_rule; /* rules whose hits include this connection already */
	__u32 counted_ingress_rule;
	__u8 found; /* entry is a copy */
	__u8 unreplied; /* of the table of unreplied connections */
	__u8 is_current; /* its verdict is of the live configuration, and the packet arrives where it says */
	__u8 is_source_refused; /* the service's sources don't name its client any more */
	__u8 pad[4];
};

/* One side of a connection as the tables know it. */
struct peer {
	struct ipcache_entry address;
	struct endpoint endpoint; /* if address.scope is SCOPE_ENDPOINT */
};

/* Where the kernel's routes lead. */
struct route {
	struct bpf_redir_neigh next;
	__u32 ifindex;
	__u32 mtu; /* 0: not known */
	__u32 mark; /* of a packet that waits for the MAC */
	__u8 mac[ETH_ALEN]; /* of the next hop, if is_resolved */
	__u8 is_resolved; /* the neighbour table knows the next hop's MAC */
	__u8 asks_kernel; /* if it does not: bpf_redirect_neigh() finds the same next hop by itself */
};

/* The way of a new connection with SNAT. Written by tail_ct; read by tail_snat and tail_deliver, which look up nothing again. */
struct packet_way_out {
	struct route route;
	struct address source; /* that the kernel takes for the route; unspecified: not known */
};

/* Who the connection's sides are. Written by policy_verdict (tail_policy, tail_icmp_error); read by tail_deliver. */
struct packet_policy {
	struct peer source; /* of ct.original */
	struct peer destination;
	__u8 audit_reason; /* why policy would have dropped the packet, if audit lets it pass */
	__u8 pad[7];
};

/* What is sent instead. Written by the step that drops the packet, or answers an echo; read by tail_respond. */
struct packet_response {
	__u8 kind; /* enum response_kind */
	__u8 reason; /* of RESPONSE_RESET_RECEIVER: why the connection ends */
	__u16 mtu; /* of the route that the packet is too big for */
};

struct packet {
	/* The arrival: written by packet_init at the hook (its first step also by from_network), read by all. */
	struct hook_row hook;
	__u64 now_ns; /* CLOCK_MONOTONIC */
	__u64 now_jiffies;
	__u64 epoch;
	__u32 generation_slot;
	__u32 ifindex;
	__u32 frame_length; /* without the Ethernet header */

	/* The hook's endpoint, if it has one: written at the hook; read by what counts, and by events. */
	__u32 endpoint_counters; /* index of dpd_endpoint_counters; 0: the hook is no endpoint's */
	__u32 link_ifindex; /* of its link, by which link-local addresses are known; 0: the hook is no endpoint's */

	/* Whom an event names where no entry does: written at the hook and by tail_handle_ipv6. 0: by the address. */
	__u32 sender_identity;
	__u32 receiver_identity;

	/* Where the host's stack got what it sends to a workload; 0: it is the host's own. Written by packet_init. */
	__u32 forwarded_from;

	/* Whose policy refused the packet: the hook's, until tail_policy looks at both sides. Read by counters and events. */
	__u8 direction;

	/* Whether an ICMP error is reported: written and read by tail_icmp_error. */
	__u8 report_due;

	/* enum endpoint_flags of the hook's endpoint. */
	__u8 endpoint_flags;

	/* Whether it is multicast or broadcast that may pass: written by admission, read by what picks the next step. */
	__u8 is_multicast;

	/*
	 * Whether the network has sent it to an address of the host, and no connection of ours has claimed it: then it is the
	 * host's, whatever a step finds wrong with it. Set at the hook; cleared by tail_lb, tail_ct and tail_icmp_error.
	 */
	__u8 is_stray;

	struct packet_response response;
	struct packet_headers headers;
	struct packet_lb lb;
	struct packet_ct ct;
	struct packet_way_out way_out;
	struct packet_policy policy;
};

/* Each load of the programs has its own, so that steps of two loads never read each other's record. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} dpd_scratch __weak SEC(".maps");

static __always_inline struct packet *packet_record(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&dpd_scratch, &zero);
}

/* A SYN that opens a connection. */
static __always_inline int packet_opens_tcp(const struct packet *packet)
{
	return (packet->headers.tcp.flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/* Starts the record of a packet: what is known before its network header is read. `hook` is a constant. */
static __always_inline struct packet *packet_init(struct __sk_buff *skb, __u8 hook, __u64 epoch)
{
	struct packet *packet = packet_record();

	if (!packet)
		return 0;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->hook = HOOKS[hook];
	packet->now_ns = bpf_ktime_get_ns();
	packet->now_jiffies = bpf_jiffies64();
	packet->epoch = epoch;
	packet->generation_slot = generation_slot(epoch);
	packet->ifindex = skb->ifindex;
	if (HOOKS[hook].sender == PARTY_HOST)
		packet->forwarded_from = skb->ingress_ifindex;
	packet->frame_length = skb->len - ETH_HLEN;
	packet->headers.length = packet->frame_length;
	packet->direction = HOOKS[hook].direction;
	return packet;
}

#endif
