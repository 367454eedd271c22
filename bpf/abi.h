/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What programs and daemon share: every struct that lies in a map or in the ring buffer, and every number that
 * has a meaning on both sides. The Rust types are generated from this file; nothing here is written twice.
 *
 * Addresses, ports and MACs are in network byte order, everything else in host byte order. All integers have a
 * fixed width and all padding a name.
 */
#ifndef DPD_ABI_H
#define DPD_ABI_H

#include "kernel.h"

#pragma clang diagnostic push
#pragma clang diagnostic error "-Wpadded"

/* Of the layout below; it stands in the pin path, so that an other version never takes these maps for its own. */
enum abi { DPD_ABI_VERSION = 3 };

/* The packet was judged and delivered by a hook of ours: dpd_to_container passes it unread and takes it off. */
enum mark { DPD_MARK = 0x0d9d0001 };

/* 128 bit as they stand in a packet; IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct address {
	__u64 word[2];
};

/*
 * A direction of a connection as its packets arrive at a hook. ICMP echo has its identifier as the port of the side
 * that asks; protocols without ports have none.
 */
struct tuple {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3]; /* zero: part of the key */
};

/* -- Hooks, points, verdicts ------------------------------------------------------------------------------------ */

enum hook {
	HOOK_FROM_CONTAINER = 1,
	HOOK_TO_CONTAINER = 2,
	HOOK_FROM_NETDEV = 3,
	HOOK_TO_NETDEV = 4,
};

/* Where an event was made. Cilium's numbers (pkg/monitor/api/types.go). */
enum point {
	POINT_TO_ENDPOINT = 0,
	POINT_TO_HOST = 2,
	POINT_TO_STACK = 3,
	POINT_FROM_ENDPOINT = 5,
	POINT_FROM_NETWORK = 10,
	POINT_TO_NETWORK = 11,
	POINT_XDP = 20, /* our own */
};

enum verdict {
	VERDICT_FORWARDED = 1,
	VERDICT_DROPPED = 2,
	VERDICT_AUDIT = 3,
};

/* Seen from the workload. */
enum direction {
	DIRECTION_INGRESS = 0,
	DIRECTION_EGRESS = 1,
};

/* Why a packet was dropped. Cilium's numbers (pkg/monitor/api/drop.go), our own from 220. */
enum reason {
	REASON_FORWARDED = 0, /* not a drop */
	REASON_INVALID_SOURCE = 132,
	REASON_POLICY = 133, /* no rule allows it */
	REASON_INVALID_PACKET = 134,
	REASON_UNKNOWN_L4 = 137,
	REASON_UNSUPPORTED_L3 = 139,
	REASON_MISSED_TAIL_CALL = 140,
	REASON_CONNTRACK_FULL = 155,
	REASON_NO_BACKEND = 158,
	REASON_UNSUPPORTED_L2 = 166,
	REASON_NO_ROUTE = 169,
	REASON_FRAGMENT_WITHOUT_FIRST = 175,
	REASON_POLICY_DENY = 181, /* a rule denies it */
	REASON_TTL_EXCEEDED = 196,
	REASON_RATE_LIMITED = 198, /* an answer that was not sent */
	REASON_NO_SERVICE = 220,
	REASON_PREFILTER = 221,
	REASON_NOT_STARTED = 222,
	REASON_ENCAPSULATION = 223,
	REASON_TUPLE_COLLISION = 224,
	REASON_ENDPOINT_CONNECTIONS = 225,
	REASON_MULTICAST = 226,
	REASON_TOO_BIG = 227,
};

/* The steps of the chain: their places in dpd_calls. */
enum call {
	CALL_HANDLE_IPV4 = 0,
	CALL_HANDLE_IPV6 = 1,
	CALL_NEIGHBOUR = 2,
	CALL_LB = 3,
	CALL_CT = 4,
	CALL_POLICY = 5,
	CALL_DELIVER = 6,
	CALL_ICMP_ERROR = 7,
	CALL_ANSWER = 8,
	CALL_COUNT = 9,
};

/* The tables of connections of the load before, while they are carried over: their places in dpd_former_connections. */
enum former {
	FORMER_TCP = 0,
	FORMER_OTHER = 1,
	FORMER_UNANSWERED = 2,
	FORMER_COUNT = 3,
};

/* -- Tables of a generation: the daemon writes them, programs only read ------------------------------------------- */

enum aggregation {
	AGGREGATION_NONE = 0,
	AGGREGATION_LOW = 1,
	AGGREGATION_MEDIUM = 2,
};

/* Lifetimes of connections, an index into settings.lifetime_ns. */
enum lifetime {
	LIFETIME_TCP = 0,
	LIFETIME_TCP_SYN = 1,
	LIFETIME_TCP_CLOSE = 2,
	LIFETIME_UDP = 3,
	LIFETIME_UDP_ONCE = 4,
	LIFETIME_ICMP = 5,
	LIFETIME_COUNT = 6,
};

struct settings {
	__u64 lifetime_ns[LIFETIME_COUNT];
	__u64 report_interval_ns;
	__u32 event_rate; /* a second, on each CPU */
	__u32 connections_per_endpoint; /* 0: no bound */
	__u8 aggregation;
	__u8 strict;
	__u8 audit;
	__u8 allow_host;
	__u32 tick_ns; /* how long one of the kernel's jiffies is */
	struct address node_ipv4; /* in whose name the node itself speaks */
	struct address node_ipv6;
};

/* port 0 and protocol 0: the address is some service's. */
struct service_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

struct service {
	__u32 id; /* 0 in the row of an address alone */
	__u32 first_slot;
	__u32 slot_count; /* 0: no usable backend */
};

/* One column of the alias table by which a backend is drawn. */
struct service_slot {
	__u32 backend; /* if a random number is at most the threshold */
	__u32 alias; /* else */
	__u32 threshold;
};

enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_DRAINING = 1,
	BACKEND_MAINTENANCE = 2,
};

struct backend {
	struct address address;
	__u32 service;
	__be16 port;
	__u16 weight;
	__u8 state;
	__u8 pad[7];
};

enum delivery {
	DELIVERY_PASS = 0, /* the kernel goes on with it: up the stack, or on to the workload */
	DELIVERY_PEER = 1, /* bpf_redirect_peer */
	DELIVERY_DIRECT = 2, /* bpf_redirect, the MACs are known */
	DELIVERY_NEIGHBOUR = 3, /* bpf_redirect_neigh: the neighbour table knows the MAC */
	DELIVERY_ROUTE = 4, /* bpf_redirect_neigh to the next hop that the kernel's routes name now */
};

enum enforcement {
	ENFORCEMENT_OFF = 0, /* nothing is asked */
	ENFORCEMENT_DENY_ONLY = 1, /* what no rule matches passes */
	ENFORCEMENT_ON = 2, /* what no rule matches is dropped */
};

/* The workload behind an interface, by its ifindex. */
struct endpoint {
	__u32 identity;
	__u8 mac[6];
	__u8 host_mac[6];
	__u8 delivery;
	__u8 ingress; /* enum enforcement */
	__u8 egress;
	__u8 pad;
	__u32 row; /* of dpd_traffic */
};

/* The family is part of every prefix: ::/0 must not answer for IPv4. prefix_length counts it and its padding. */
struct identity_key {
	__u32 prefix_length;
	__u8 family; /* 4 or 6 */
	__u8 pad[3];
	struct address address;
};

enum identity_key_bits { IDENTITY_KEY_FAMILY_BITS = 32 };

enum place {
	PLACE_REMOTE = 0,
	PLACE_ENDPOINT = 1,
	PLACE_HOST = 2,
	PLACE_WAITING = 3, /* an endpoint whose interface is not there */
};

struct identity {
	__u32 id;
	__u32 class; /* what policy is keyed by */
	__u32 ifindex; /* of the endpoint; 0: none */
	__u8 place;
	__u8 world; /* it is no endpoint, host or node: the rules for `world` concern it */
	__u8 pad[2];
};

/* Peers that have rows of their own, asked beside those of the peer's class; other classes are the catalog's. */
enum policy_class {
	POLICY_CLASS_ANY = 0,
	POLICY_CLASS_WORLD = 0xffffffff,
};

/* prefix_length: POLICY_KEY_* bits, and as many of the port as its prefix has. */
struct policy_key {
	__u32 prefix_length;
	__u32 subject; /* identity */
	__u32 class; /* of the peer, or enum policy_class */
	__u8 direction;
	__u8 protocol;
	__be16 port;
};

enum policy_key_bits {
	POLICY_KEY_ALL_BITS = 72, /* subject, class, direction */
	POLICY_KEY_PROTOCOL_BITS = 80,
	POLICY_KEY_PORT_BITS = 96,
};

/* A denied prefix; its key is an identity_key. */
struct prefilter {
	__u32 number; /* that the catalog knows it by */
};

struct policy {
	__u32 rule;
	__u8 deny;
	__u8 pad[3];
};

/* -- Tables of the programs: the daemon reads and sweeps ----------------------------------------------------------- */

enum connection_state {
	CONNECTION_UNANSWERED = 0,
	CONNECTION_ONCE = 1, /* one question, one answer */
	CONNECTION_ESTABLISHED = 2,
	CONNECTION_CLOSING = 3,
};

enum connection_flags {
	CONNECTION_REPLY = 1, /* the direction of the side that did not begin */
	CONNECTION_REWRITE = 2, /* addresses or ports change */
	CONNECTION_FIN_HERE = 4, /* a FIN was seen in this direction */
	CONNECTION_FIN_THERE = 8, /* and in the other */
	CONNECTION_WITH_HOST = 32, /* one end is the host: no packet of it comes from the network */
};

/*
 * One direction of a connection. The first part is what the established path reads. Identities, service, backend
 * and rules are the connection's, seen from the side that began: the same in both entries.
 */
struct connection {
	__u64 epoch; /* of the configuration that its verdict was made under; 0: due for another look */
	__u64 attend_ticks; /* when a packet is not just one more: it renews the entry, or is reported; in jiffies */
	__u64 packets;
	__u64 bytes;
	__u32 from_ifindex; /* where its packets come from; 0: the host */
	__u32 to_ifindex; /* where they go; 0: the host's stack */
	__u32 from_row; /* of dpd_traffic, where from_ifindex is a workload's */
	__u32 to_row; /* the same for to_ifindex */
	__u8 mac[6];
	__u8 host_mac[6];
	__u8 delivery;
	__u8 state;
	__u8 flags;
	__u8 tcp_flags; /* all that were seen in this direction */
	__u32 address_sum; /* one's complement difference that the rewrite makes in addresses */
	__u32 port_sum; /* and in ports */
	struct tuple rewritten; /* what the tuple becomes */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 service; /* 0: none */
	__u32 backend;
	__u32 egress_rule; /* 0: none was needed */
	__u32 ingress_rule;
	__u64 seen_ns; /* last packet, renewed at most once a second; CLOCK_MONOTONIC */
	__u64 report_ns; /* when the next packet is reported */
	__u64 created_ns;
};

struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
};

struct metric {
	__u64 packets;
	__u64 bytes;
};

/* What a workload sent and was given, on each CPU: one row for each, by the number that its endpoint has. */
struct traffic {
	struct metric direction[2]; /* enum direction */
};

enum traffic_rows { TRAFFIC_ROWS = 16384 }; /* row 0 is nobody's */

/* Drops, counted by reason, direction and interface, on each CPU. */
struct metric_key {
	__u32 ifindex;
	__u8 reason;
	__u8 direction;
	__u16 pad;
};

/* An index into dpd_counters. */
enum counter {
	COUNTER_EVENTS_RING_FULL = 0,
	COUNTER_EVENTS_RATE_LIMITED = 1,
	COUNTER_CT_INSERTED = 2, /* entries, two for each connection */
	COUNTER_CT_DELETED = 3,
	COUNTER_CT_SWEPT = 4, /* deleted by the daemon, who alone writes it */
	COUNTER_XDP_MALFORMED = 5, /* frames that XDP could not read, and passed */
	COUNTER_EVENTS_HELD_BACK = 6, /* drops that a later report stands for */
	COUNTER_COUNT = 7,
};

/* Connections of an endpoint that are open: opened − closed. */
struct usage {
	__u64 opened;
	__u64 closed;
	__u64 right_ns; /* when it was last known to be right; CLOCK_MONOTONIC */
};

/* A budget of so many a second: what has been spent since the window began. */
struct budget {
	__u64 window_ns;
	__u64 spent;
};

/* -- Events --------------------------------------------------------------------------------------------------------- */

struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 epoch;
	struct tuple tuple; /* as the packet came */
	struct tuple rewritten; /* as it went; the same where nothing was translated */
	__u32 ifindex; /* of the interface that the point is at */
	__u32 length; /* from the network header on */
	__u32 source_identity; /* of the packet's own source */
	__u32 destination_identity;
	__u32 service;
	__u32 backend;
	__u32 egress_rule;
	__u32 ingress_rule;
	__u32 repeats; /* how many packets it stands for */
	__u8 verdict;
	__u8 point;
	__u8 reason;
	__u8 direction;
	__u8 reply;
	__u8 tcp_flags;
	__u8 state; /* enum connection_state, EVENT_NO_CONNECTION: none */
	__u8 pad[5];
};

enum event_state { EVENT_NO_CONNECTION = 255 }; /* where event.state has no connection_state */

/* The same drop is reported once in an interval. */
struct drop_key {
	struct tuple tuple;
	__u32 ifindex;
	__u8 reason;
	__u8 pad[3];
};

/* What is held back is told by the next report, or by the daemon if none comes. */
struct drop_log {
	__u64 report_ns; /* when the next one is reported; CLOCK_MONOTONIC */
	__u64 held_back; /* since the last report */
	__u64 seen_ns; /* the last that was held back */
	struct event event; /* the last report */
};

#pragma clang diagnostic pop

#endif
