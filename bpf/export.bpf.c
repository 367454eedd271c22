// SPDX-License-Identifier: GPL-2.0-only
/*
 * Names every type of the ABI in a global, so that the object's BTF holds it: a record that is only ever in the ring
 * buffer or in an inner map would be missing there, and with it its Rust type.
 */
#include "abi.h"

struct abi_records {
	struct settings settings;
	struct service_key service_key;
	struct service service;
	struct service_slot service_slot;
	struct backend backend;
	struct endpoint endpoint;
	struct identity_key identity_key;
	struct identity identity;
	struct policy_key policy_key;
	struct policy policy;
	struct prefilter prefilter;
	struct connection connection;
	struct metric_key metric_key;
	struct metric metric;
	struct traffic traffic;
	struct usage usage;
	struct budget budget;
	struct event event;
};

struct abi_numbers {
	enum hook hook;
	enum point point;
	enum verdict verdict;
	enum direction direction;
	enum reason reason;
	enum call call;
	enum former former;
	enum aggregation aggregation;
	enum lifetime lifetime;
	enum backend_state backend_state;
	enum delivery delivery;
	enum enforcement enforcement;
	enum place place;
	enum policy_class policy_class;
	enum connection_state connection_state;
	enum connection_flags connection_flags;
	enum counter counter;
	enum abi abi;
	enum mark mark;
	enum identity_key_bits identity_key_bits;
	enum policy_key_bits policy_key_bits;
	enum event_state event_state;
	enum traffic_rows traffic_rows;
};

const struct abi_records *dpd_abi_records;
const struct abi_numbers *dpd_abi_numbers;
