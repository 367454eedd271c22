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

/* Of the layout below; it stands in the pin path, so that another version never mistakes these maps for its own. */
enum abi { DPD_ABI_VERSION = 9 };

/* 128 bit as they stand in a packet; IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct address {
	__u64 word[2];
};

/*
 * One direction of a flow as its packets arrive at a hook. ICMP echo has its identifier as the port of the side that
 * sends requests; protocols without ports have none.
 */
struct flow_tuple {
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
	HOOK_XDP_ENTRY = 5,
	HOOK_FROM_L3DEV = 6,
	HOOK_COUNT = 7, /* with 0, which is no hook */
};

/* Where in the kernel a hook's program is attached. */
enum attach_point {
	ATTACH_TC_INGRESS = 1,
	ATTACH_TC_EGRESS = 2,
	ATTACH_XDP = 3,
};

/* The role, in the file, of the interfaces that have the hook. */
enum interface_role {
	ROLE_ENDPOINT = 1,
	ROLE_UPLINK = 2,
};

/* Who sends or receives one direction of a flow. */
enum party {
	PARTY_HOST = 0, /* the host itself */
	PARTY_ENDPOINT = 1, /* the workload behind one interface */
	PARTY_UPLINK = 2, /* the network: by any uplink, or by the host's stack */
};

/* Where an event was made. Cilium's numbers (pkg/monitor/api/types.go). */
enum point {
	POINT_TO_ENDPOINT = 0,
	POINT_TO_HOST = 2,
	POINT_TO_STACK = 3,
	POINT_FROM_ENDPOINT = 5,
	POINT_FROM_HOST = 7,
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

/*
 * Why a packet was dropped: Cilium's number where it has one (pkg/monitor/api/drop.go), our own from 220. Every number
 * is one that a program makes.
 */
enum reason {
	REASON_FORWARDED = 0, /* not a drop */
	REASON_INVALID_SOURCE = 132,
	REASON_POLICY = 133, /* no rule allows it */
	REASON_INVALID_PACKET = 134,
	REASON_TOO_BIG = 136, /* for the route, and may not be fragmented */
	REASON_UNSUPPORTED_L3 = 139,
	REASON_MISSED_TAIL_CALL = 140,
	REASON_CT_INSERTION_FAILED = 155,
	REASON_IPV6_EXTENSION = 156,
	REASON_NO_BACKEND = 158,
	REASON_NO_CONFIGURATION = 165,
	REASON_UNSUPPORTED_L2 = 166,
	REASON_SNAT_NO_PORT = 167, /* nor identifier, or the host has no address of the family */
	REASON_SNAT_PROTOCOL = 168, /* nothing in it tells one workload's replies from another's */
	REASON_NO_ROUTE = 169,
	REASON_ENCAPSULATION = 170,
	REASON_FRAGMENT_NOT_FOUND = 175,
	REASON_SOURCE_RANGE = 177,
	REASON_POLICY_DENY = 181, /* a rule denies it */
	REASON_VLAN = 182,
	REASON_TTL_EXCEEDED = 196,
	REASON_RATE_LIMITED = 198, /* too much of what a workload's link needs */
	REASON_NO_SERVICE = 220,
	REASON_PREFILTER = 221,
	REASON_TCP_WITHOUT_SYN = 222, /* strict conntrack */
	REASON_NO_SOURCE_PORT = 224,
	REASON_CONNECTION_LIMIT = 225,
	REASON_MULTICAST = 226,
	REASON_MARTIAN = 228, /* a source that no host of the network has */
	REASON_SOURCE_ROUTE = 229,
	REASON_NEIGHBOUR_FAILED = 230, /* nobody there answered for the next hop's address */
	REASON_ICMP_UNRELATED = 231, /* neither echo nor about a connection that its sender can have seen */
	REASON_SNAT_GONE =
		232, /* the host has lost the address that the connection has, or no longer masquerades with it */
};

/* The steps of the chain: their indices in dpd_calls. */
enum step {
	STEP_HANDLE_IPV4 = 0,
	STEP_HANDLE_IPV6 = 1,
	STEP_NEIGHBOUR = 2,
	STEP_LB = 3,
	STEP_CT = 4,
	STEP_POLICY = 5,
	STEP_DELIVER = 6,
	STEP_ICMP_ERROR = 7,
	STEP_RESPOND = 8,
	STEP_MULTICAST = 9,
	STEP_SNAT = 10,
	STEP_ANNOUNCE = 11,
	STEP_COUNT = 12,
};

/* The conntrack tables: indices of struct settings, of struct conn_usage, and of dpd_prev_ct. */
enum ct_table {
	CT_TABLE_TCP = 0,
	CT_TABLE_OTHER = 1,
	CT_TABLE_UNREPLIED = 2,
	CT_TABLE_COUNT = 3,
};

/* An index into dpd_live. */
enum live {
	LIVE_EPOCH = 0,
	LIVE_MARK = 1, /* of packets that a hook of ours has judged and delivered; random, 0: there is none */
	LIVE_COUNT = 2,
};

/* A packet's mark: the part that is LIVE_MARK's, and its row of dpd_asked, if it waits for a neighbour; else 0. */
enum mark {
	MARK_ROW_BITS = 12,
	ASKED_SIZE = 4096, /* rows; row 0 counts those that were taken */
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
	__u32 connections_per_endpoint; /* in all tables; 0: no bound */
	__u32 endpoint_share
		[CT_TABLE_COUNT]; /* the connections that one endpoint may have in each; 0: no bound */
	__u8 aggregation;
	__u8 strict;
	__u8 audit;
	__u8 allow_host;
	__u32 jiffy_ns; /* the length of the kernel's jiffy */
	__u32 snat_port_count; /* rows of the table of source ports; 0: nothing is masqueraded */
	struct address node_ipv4; /* source of the errors that the node itself sends */
	struct address node_ipv6;
	__u64 netns_cookie; /* of the host's network namespace, whose own sockets reach services; 0: none do */
};

/* port 0 and protocol 0: the address is a frontend of some service. */
struct service_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

enum service_flags {
	SERVICE_EXTERNAL = 1, /* the network reaches it by the uplinks */
	SERVICE_HAS_SOURCES = 2, /* of the network, only those in the table of sources */
};

struct service {
	__u32 id; /* 0 in the row of an address alone */
	__u32 lut_first; /* its rows of the backend table */
	__u32 lut_count; /* 0: no usable backend */
	__u32 flags; /* enum service_flags */
	__u32 maglev_first; /* its first row of the Maglev tables */
	__u32 maglev_size; /* the columns of its Maglev table, a prime; 0: it has none */
	__u64 affinity_ns; /* how long a client keeps its backend after its last packet; 0: it does not */
};

/* Who of the network may reach a service: prefixes of the service's own. prefix_length counts the service, too. */
struct service_source_key {
	__u32 prefix_length;
	__u32 service;
	__u8 family; /* 4 or 6 */
	__u8 pad[7];
	struct address address;
};

enum service_source_key_bits { SERVICE_SOURCE_KEY_BITS = 96 }; /* before the address */

struct service_source {
	__u32 service; /* that of the key: a row needs a value */
};

/* One column of the alias table by which a backend is picked (Walker 1977, Vose 1991). */
struct backend_lut_entry {
	__u32 backend; /* if a random number is at most the threshold */
	__u32 alias; /* else */
	__u32 threshold;
};

enum maglev_row_size { MAGLEV_ROW_SIZE = 256 };

/* Columns of a Maglev table. Each table starts a row of its own; what the last row has beyond it is zero. */
struct maglev_row {
	__u16 column[MAGLEV_ROW_SIZE]; /* a column of the service's backend table: its `backend` is the one */
};

enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_DRAINING = 1,
	BACKEND_MAINTENANCE = 2, /* keeps its TCP connections */
	BACKEND_DRAINED = 3, /* keeps no connection */
	BACKEND_REMOVED = 4, /* keeps its connections */
};

struct backend {
	struct address address;
	__u32 service;
	__be16 port;
	__u16 weight;
	__u8 state;
	__u8 is_picked; /* it has a column of its service's backend table */
	__u8 pad[6];
};

enum delivery {
	DELIVERY_PASS = 0, /* the kernel carries on: up the stack, or on to the workload */
	DELIVERY_PEER = 1, /* bpf_redirect_peer */
	DELIVERY_DIRECT = 2, /* bpf_redirect, the MACs are known */
	DELIVERY_NEIGHBOUR = 3, /* bpf_redirect, to the MAC that the host's neighbour table has */
	DELIVERY_ROUTE = 4, /* bpf_redirect_neigh to the next hop of the kernel's route at that moment */
	DELIVERY_LINK = 5, /* bpf_redirect of the frame as it is, to a workload on the sender's link */
};

enum enforcement {
	ENFORCEMENT_OFF = 0, /* policy is not looked up */
	ENFORCEMENT_DENY_ONLY = 1, /* what no rule matches passes */
	ENFORCEMENT_ON = 2, /* what no rule matches is dropped */
};

enum address_scope {
	SCOPE_REMOTE = 0,
	SCOPE_ENDPOINT = 1,
	SCOPE_HOST = 2,
	SCOPE_PENDING = 3, /* an endpoint whose interface does not exist yet */
};

/* What SNAT to the host's addresses has to do with an address. */
enum snat_role {
	SNAT_NONE = 0,
	SNAT_MASQUERADED = 1, /* what workloads send there by an uplink that masquerades */
	SNAT_HOST = 2, /* the host's: replies to translated packets may come to it. This and higher ones */
	SNAT_SOURCE = 3, /* the same, and new connections may take it */
};

/* What an address is to services that the network reaches. */
enum external_frontend {
	EXTERNAL_FRONTEND_NONE = 0,
	EXTERNAL_FRONTEND_ROUTED =
		1, /* an address of frontends that the host does not have: all of it is theirs */
	EXTERNAL_FRONTEND_HOST = 2, /* the host's own: what no frontend has is the host's */
};

struct ipcache_entry {
	__u32 id; /* identity */
	__u32 class; /* what policy is keyed by */
	__u32 ifindex; /* of the endpoint; 0: none */
	__u8 scope; /* enum address_scope */
	__u8 is_world; /* no endpoint, host or node: rules for `world` apply */
	__u8 snat; /* enum snat_role */
	__u8 external_frontend; /* enum external_frontend */
};

/* A source port that SNAT may give to a connection. */
struct snat_port {
	__be16 port;
	__u8 pad[2];
};

enum endpoint_flags {
	ENDPOINT_MULTICAST = 1, /* its multicast and broadcast pass, both ways, as policy says */
	ENDPOINT_NAMES_LINK_LOCAL = 2, /* the file names its link-local addresses: none is learnt */
};

/* A workload's interface, by its ifindex. */
struct endpoint {
	__u32 identity;
	__u8 dst_mac[6]; /* the workload's */
	__u8 src_mac[6]; /* of the host's side */
	__u8 delivery; /* enum delivery */
	__u8 ingress; /* enum enforcement */
	__u8 egress;
	__u8 flags; /* enum endpoint_flags */
	__u32 counters_index; /* of dpd_endpoint_counters */
	__u32 link_ifindex; /* where its neighbours are: the bridge that it is a port of, else the interface itself */
	__u32 mtu; /* the longest packet that both ends of its link take; 0: not known */
	struct address host_ipv4; /* the host's on that link: source of the workload's errors */
	struct address host_ipv6;
	struct ipcache_entry link_local; /* of the link-local address that is learnt from it */
};

/* Which way packets of new connections leave by an uplink. */
enum forwarding {
	FORWARDING_DIRECT = 0, /* past the host's stack, by the kernel's routes */
	FORWARDING_STACK = 1, /* by the host's stack, through its netfilter and XFRM */
};

/* What the kernel asks of the route back to an IPv4 source (ip-sysctl.rst, rp_filter). */
enum reverse_path {
	REVERSE_PATH_OFF = 0,
	REVERSE_PATH_STRICT = 1, /* by the interface that the packet came by */
	REVERSE_PATH_LOOSE = 2, /* by any */
};

/* The families in which what workloads send to the world by an uplink takes the host's address. */
enum masquerade_family {
	MASQUERADE_IPV4 = 1,
	MASQUERADE_IPV6 = 2,
};

/* A host's NIC, by its ifindex. */
struct uplink {
	__u8 forwarding; /* enum forwarding */
	__u8 reverse_path; /* enum reverse_path */
	__u8 prefilters; /* its tc ingress has the prefilter, in the place of XDP */
	__u8 masquerade; /* enum masquerade_family: bits */
	__u8 pad[4];
	struct address host_ipv4; /* the host's on it: source of the errors that are sent there */
	struct address host_ipv6;
	struct address
		snat_ipv4; /* what SNAT takes where the kernel names none; unspecified: there is none */
	struct address snat_ipv6;
};

/* An address that the host answers for on a link though no interface has it. Its key is a link_address. */
struct announced {
	__u8 mac[6]; /* the link's */
	__u8 pad[2];
};

/* The family is part of every prefix: ::/0 must not match IPv4. prefix_length counts it and its padding. */
struct address_prefix_key {
	__u32 prefix_length;
	__u8 family; /* 4 or 6 */
	__u8 pad[3];
	struct address address;
};

enum prefix_key_bits { PREFIX_KEY_FAMILY_BITS = 32 };

/* Identities that programs name. Cilium's numbers (pkg/identity/numericidentity.go). */
enum reserved_identity { IDENTITY_HOST = 1 };

/* Classes that are looked up in addition to the peer's own; all others are numbered by the catalog. */
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

/* A denied prefix; its key is an address_prefix_key. */
struct prefilter {
	__u32 number; /* its key in the catalog and in dpd_prefilter_hits */
};

struct policy {
	__u32 rule;
	__u8 deny;
	__u8 pad[3];
};

/* -- Tables of the programs: the daemon reads and sweeps ----------------------------------------------------------- */

enum ct_state {
	CT_UNREPLIED = 0,
	CT_REPLIED = 1, /* UDP: one question, one answer */
	CT_ESTABLISHED = 2,
	CT_CLOSING = 3,
	CT_REFUSED =
		4, /* policy allows it no more: its packets drop until a new verdict allows it, or a SYN ends it */
};

enum ct_flags {
	CT_REPLY = 1, /* the direction of the side that did not open the flow */
	CT_TRANSLATE = 2, /* addresses or ports change */
	CT_FIN_OWN = 4, /* a FIN was seen in this direction */
	CT_FIN_REVERSE = 8, /* and in the other */
	CT_SLOW = 16, /* its packets take the slow path */
	CT_ASSURED = 32, /* it was established once, and lies in its protocol's table */
	CT_MIDSTREAM = 64, /* TCP taken up in the middle: who opened it is a guess */
	CT_TCP_NUMBERS = 128, /* tcp_start, tcp_end and tcp_ack are known */
	CT_REFUSED_EGRESS =
		256, /* refused by the egress policy of its sender; else by the receiver's ingress */
	CT_VIA_STACK =
		512, /* it began by way of the host's stack, and its packets go on that way, both ways */
	CT_FORWARDED =
		1024, /* and came to its workload from there, not begun by the host: a host's address is no proof */
	CT_SYN_ACK_FIRST =
		2048, /* its first segment was a SYN-ACK: the other side has opened the connection */
	CT_SNAT =
		4096, /* its client has an address of the host beyond snat_ifindex: what the network sends comes to that */
	CT_SOCKET = 8192, /* the host's own socket was translated to its backend: no packet of it is */
	CT_AFFINITY = 16384, /* its packets prolong its client's affinity */
};

/*
 * A conntrack entry: one direction of a connection. The first part is what the fast path reads. Identities, service,
 * backend and rules are the connection's, seen from the side that opened it: the same in both entries.
 */
struct ct_entry {
	__u64 epoch; /* of the configuration of its verdict; 0: a new verdict is due */
	__u64 next_update_jiffies; /* from then on a packet renews the entry, or is reported */
	__u64 packets;
	__u64 bytes;
	__u32 origin_ifindex; /* of PARTY_ENDPOINT; else 0 */
	__u32 target_ifindex; /* the same */
	__u32 origin_counters; /* index of dpd_endpoint_counters, of PARTY_ENDPOINT */
	__u32 target_counters; /* the same */
	__u8 dst_mac[6];
	__u8 src_mac[6];
	__u8 delivery; /* enum delivery */
	__u8 state; /* enum ct_state */
	__u8 tcp_flags; /* all that were seen in this direction */
	__u8 origin; /* enum party: who sends its packets */
	__u8 target; /* enum party: who receives them */
	__u8 refused_reason; /* enum reason, where state is CT_REFUSED */
	__u16 flags; /* enum ct_flags */
	__u32 tcp_start; /* sequence number of this direction's first segment */
	__u32 tcp_end; /* the end of what it has sent: highest sequence number and length */
	__u32 tcp_ack; /* its last acknowledgement number */
	__u32 address_csum_delta; /* one's complement difference that translation makes in addresses */
	__u32 port_csum_delta; /* and in ports */
	__u32 link_ifindex; /* of DELIVERY_NEIGHBOUR: where the receiver is a neighbour; of DELIVERY_ROUTE: the uplink */
	__u32 mtu; /* of the receiver's link, if it is a workload; 0: not known */
	struct flow_tuple translated; /* what NAT makes of the tuple */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 service; /* 0: none */
	__u32 backend;
	__u32 egress_rule; /* 0: none applied */
	__u32 ingress_rule;
	__u32 snat_ifindex; /* of CT_SNAT: the uplink by which the connection leaves */
	__u32 pad;
	__u64 last_seen_ns; /* last packet, renewed at most once a second; CLOCK_MONOTONIC */
	__u64 report_ns; /* when the next packet is reported */
	__u64 created_ns;
};

/*
 * A packet that waits for the MAC of its next hop, in the kernel's queue: what is counted and reported of it when it leaves.
 * Row 0: `length` is the number of rows taken.
 */
struct asked {
	struct flow_tuple tuple; /* as it arrived: the key of its entry */
	__u32 length;
	__u32 ifindex; /* where it arrived */
	__u32 link_ifindex; /* where it leaves: the receiver's interface, or the uplink */
	__u32 sender_counters; /* indices of dpd_endpoint_counters; 0: none */
	__u32 receiver_counters;
	__u32 hash; /* of the packet: another may have taken its row meanwhile */
	__u8 hook; /* enum hook */
	__u8 tcp_flags;
	__u8 delivery; /* enum delivery */
	__u8 is_due; /* it is reported */
	__u8 audit_reason; /* why policy would have dropped it; 0: it would not */
	__u8 audit_direction;
	__u8 pad[2];
};

/* A client of a service. */
struct affinity_key {
	struct address client; /* unspecified: the host's own sockets */
	__u32 service;
	__u32 pad;
};

/* The backend that a client keeps. */
struct affinity {
	__u64 last_seen_ns; /* its last packet, renewed at most once a second; CLOCK_MONOTONIC */
	__u64 lifetime_ns; /* of the service when it was written: for the sweep */
	__u32 backend;
	__u32 pad;
};

/* The translation of a socket of the host: the frontend that it has called, and the backend that it got. */
struct socket_peer {
	struct address frontend;
	struct address backend;
	__be16 frontend_port;
	__be16 backend_port;
	__u32 service;
	__u32 backend_number;
	__u32 pad;
	__u64 report_ns; /* of an unconnected socket: when the next message is reported; CLOCK_MONOTONIC */
};

/* What the address and port of a socket_flow_key are. */
enum socket_side {
	SOCKET_SIDE_FRONTEND = 0,
	SOCKET_SIDE_BACKEND = 1,
};

/* A UDP socket, and whom it sends to. */
struct socket_flow_key {
	__u64 cookie; /* the kernel's number of the socket (bpf_get_socket_cookie) */
	struct address address;
	__be16 port;
	__u8 side; /* enum socket_side */
	__u8 pad[5];
};

struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol; /* IPv4; 0 for IPv6, where addresses and id suffice (RFC 8200, 4.5) */
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol; /* of the first fragment: later ones may claim another (RFC 8200, 4.5) */
	__u8 pad[3];
};

struct packet_count {
	__u64 packets;
	__u64 bytes;
};

/*
 * What a workload sent and received, on each CPU: a row for each endpoint, by its counters_index. All that it sends is in
 * direction[DIRECTION_EGRESS] or in dropped[DIRECTION_EGRESS], and so is what the host's stack sends to it with INGRESS.
 */
struct endpoint_counters {
	struct packet_count direction[2]; /* enum direction: what passed */
	__u64 dropped[2]; /* the same: packets that its own hook dropped */
	__u64 to_stack; /* packets of direction[DIRECTION_EGRESS] that went up the host's stack */
	__u64 answered; /* and those that dpd answered itself */
};

enum endpoint_counters_size { ENDPOINT_COUNTERS_SIZE = 16384 }; /* row 0 is unused */

/* Drops, counted by reason, direction and interface, on each CPU. */
struct drop_count_key {
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
	COUNTER_CT_SWEPT = 4, /* deleted by the daemon, its only writer */
	COUNTER_XDP_MALFORMED = 5, /* frames that the prefilter could not parse, and passed */
	COUNTER_EVENTS_SUPPRESSED = 6, /* drops that a later report stands for */
	COUNTER_EVENTS_THROTTLE_FULL = 7, /* drops not reported: dpd_drop_throttle had no room */
	COUNTER_EVENTS_NO_SETTINGS = 8, /* drops not reported: there was no settings table */
	COUNTER_RESPONSES_LIMITED = 9, /* errors and resets that were not sent: too many a second */
	COUNTER_AFFINITY_INSERTED = 10, /* rows of dpd_affinity */
	COUNTER_AFFINITY_SWEPT = 11, /* deleted by the daemon, its only writer */
	COUNTER_COUNT = 12,
};

/* Who opened the connections that are counted for an endpoint. */
enum conn_opener {
	OPENER_WORKLOAD = 0, /* itself */
	OPENER_OTHERS = 1, /* the network, or the host: connections to it */
};

struct conn_usage_key {
	__u32 ifindex; /* the endpoint's */
	__u32 opener; /* enum conn_opener */
};

/* Connections that are open in each table: opened − closed. */
struct conn_usage {
	__u64 opened[CT_TABLE_COUNT];
	__u64 closed[CT_TABLE_COUNT];
	__u64 verified_ns; /* when it was last known to be right; CLOCK_MONOTONIC */
};

/* An address, and the link that it is on. */
struct link_address {
	struct address address;
	__u32 ifindex;
	__u32 pad;
};

/* The link-local address that an interface's workload has announced. */
struct link_local {
	struct address address; /* with its link (address_scope) */
	__u64 used_ns; /* when it was last a source; CLOCK_MONOTONIC; 0: announced and not used yet */
};

/* A limit per second, or another period: how much of it the current window has used. */
struct rate_window {
	__u64 started_ns;
	__u64 used;
};

/* What the link of an endpoint has used of its limits. */
struct link_usage {
	struct rate_window messages; /* per second */
	struct rate_window sources; /* per minute: that the host may have made neighbour entries for */
};

/* -- Events --------------------------------------------------------------------------------------------------------- */

struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 epoch;
	struct flow_tuple tuple; /* as the packet arrived */
	struct flow_tuple translated; /* as it left; the same where nothing was translated */
	__u32 ifindex; /* of the interface that the point is at */
	__u32 length; /* from the network header on, in bytes */
	__u32 source_identity; /* of the packet's own source, not of the side that opened the flow */
	__u32 destination_identity;
	__u32 service;
	__u32 backend;
	__u32 egress_rule;
	__u32 ingress_rule;
	__u32 repeats; /* the number of packets that it stands for */
	__u8 verdict;
	__u8 point;
	__u8 reason;
	__u8 direction;
	__u8 reply;
	__u8 tcp_flags;
	__u8 state; /* enum ct_state, EVENT_NO_CONNECTION: none */
	__u8 pad[5];
};

enum event_state { EVENT_NO_CONNECTION = 255 }; /* where event.state is no ct_state */

/* The same drop is reported once in an interval. */
struct drop_key {
	struct flow_tuple tuple;
	__u32 ifindex;
	__u8 reason;
	__u8 pad[3];
};

/* Suppressed drops are counted by the next report, or reported by the daemon if none follows. */
struct drop_throttle {
	__u64 report_ns; /* when the next one is reported; CLOCK_MONOTONIC */
	__u64 suppressed; /* since the last report */
	__u64 last_seen_ns; /* the last suppressed one */
	struct event event; /* the last report */
};

#pragma clang diagnostic pop

#endif
