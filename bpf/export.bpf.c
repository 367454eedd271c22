// SPDX-License-Identifier: GPL-2.0-only
/*
 * Names every type of the ABI in a global, so that the object's BTF holds it: a record that is only ever in the ring
 * buffer or in an inner map would be missing there, and with it its Rust type. And the hook table, for the Rust side.
 */
#include "lib/mechanism/hook.h"

struct abi_records {
	struct settings settings;
	struct service_key service_key;
	struct service service;
	struct backend_lut_entry backend_lut_entry;
	struct maglev_row maglev_row;
	struct backend backend;
	struct endpoint endpoint;
	struct uplink uplink;
	struct address_prefix_key address_prefix_key;
	struct ipcache_entry ipcache_entry;
	struct snat_port snat_port;
	struct service_source_key service_source_key;
	struct service_source service_source;
	struct announced announced;
	struct policy_key policy_key;
	struct policy policy;
	struct prefilter prefilter;
	struct ct_entry ct_entry;
	struct drop_count_key drop_count_key;
	struct packet_count packet_count;
	struct endpoint_counters endpoint_counters;
	struct conn_usage_key conn_usage_key;
	struct conn_usage conn_usage;
	struct link_usage link_usage;
	struct link_address link_address;
	struct link_local link_local;
	struct rate_window rate_window;
	struct affinity_key affinity_key;
	struct affinity affinity;
	struct socket_peer socket_peer;
	struct socket_flow_key socket_flow_key;
	struct event event;
	struct hook_row hook_row;
};

struct abi_numbers {
	enum hook hook;
	enum attach_point attach_point;
	enum interface_role interface_role;
	enum party party;
	enum point point;
	enum verdict verdict;
	enum direction direction;
	enum reason reason;
	enum step step;
	enum ct_table ct_table;
	enum aggregation aggregation;
	enum lifetime lifetime;
	enum maglev_row_size maglev_row_size;
	enum backend_state backend_state;
	enum delivery delivery;
	enum enforcement enforcement;
	enum endpoint_flags endpoint_flags;
	enum forwarding forwarding;
	enum mark mark;
	enum masquerade_family masquerade_family;
	enum reverse_path reverse_path;
	enum address_scope address_scope;
	enum snat_role snat_role;
	enum service_flags service_flags;
	enum external_frontend external_frontend;
	enum service_source_key_bits service_source_key_bits;
	enum reserved_identity reserved_identity;
	enum policy_class policy_class;
	enum ct_state ct_state;
	enum ct_flags ct_flags;
	enum socket_side socket_side;
	enum counter counter;
	enum abi abi;
	enum live live;
	enum conn_opener conn_opener;
	enum prefix_key_bits prefix_key_bits;
	enum policy_key_bits policy_key_bits;
	enum event_state event_state;
	enum endpoint_counters_size endpoint_counters_size;
	enum hook_flags hook_flags;
};

const struct abi_records *dpd_abi_records;
const struct abi_numbers *dpd_abi_numbers;
/* No constant: libbpf would bind its section to every program, though none reads it. */
struct hook_row dpd_hooks[HOOK_COUNT] SEC(".data.hooks") = HOOK_TABLE;
