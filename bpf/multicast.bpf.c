// SPDX-License-Identifier: GPL-2.0-only
/*
 * Multicast and broadcast of an endpoint that may have it. It has many receivers and no replies of its own, so there is no
 * connection: policy is looked up for each packet, at each hook, and a unicast response is a connection of its responder's.
 *
 *	from the workload	its egress policy, to the group's address -> the host's stack, or its bridge
 *	to the workload		its ingress policy, from the sender -> the workload
 */
#include "lib/feature/admission.h"
#include "lib/feature/link.h"
#include "lib/feature/policy_verdict.h"
#include "lib/mechanism/chain.h"

/* The workload itself, as a side of the question. */
static __always_inline __must_check int set_workload(const struct packet *packet, struct peer *peer)
{
	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);

	if (!endpoint)
		return -REASON_NO_CONFIGURATION;
	peer->endpoint = *endpoint;
	peer->address = endpoint->link_local;
	return 0;
}

static __always_inline __must_check int set_sender(const struct packet *packet, struct peer *peer)
{
	int result = peer_resolve(packet, peer, &packet->headers.tuple.source);

	if (!result && peer->address.scope == SCOPE_HOST && !packet_is_hosts_own(packet))
		result = peer_resolve_world(packet, peer);
	return result;
}

static __always_inline __must_check int resolve(struct packet *packet)
{
	struct packet_policy *policy = &packet->policy;
	int result;

	if (packet->hook.sender == PARTY_ENDPOINT) {
		result = set_workload(packet, &policy->source);
		return result ? result
			      : peer_resolve(packet, &policy->destination,
					     &packet->headers.tuple.destination);
	}
	result = set_workload(packet, &policy->destination);
	return result ? result : set_sender(packet, &policy->source);
}

static __always_inline __must_check int ask(struct packet *packet, const struct settings *settings)
{
	struct ct_entry *entry = &packet->ct.entry;
	int result;

	packet->ct.original = packet->headers.tuple;
	if (!protocol_has_ports(packet->headers.tuple.protocol))
		packet->ct.original.destination_port = 0;
	result = resolve(packet);
	entry->source_identity = packet->policy.source.address.id;
	entry->destination_identity = packet->policy.destination.address.id;
	if (result)
		return result;
	result = packet->hook.sender == PARTY_ENDPOINT ? policy_verdict_egress(packet)
						       : policy_verdict_ingress(packet, settings);
	if (result && settings->audit) {
		packet->policy.audit_reason = -result;
		return 0;
	}
	if (result)
		policy_count_denied(packet);
	return result;
}

/* One that policy would have dropped is reported as drops are: once in an interval. */
static __always_inline void report(const struct packet *packet)
{
	struct event_subject subject = packet_event_subject(packet);
	struct drop_key key = {
		.tuple = packet->headers.tuple,
		.ifindex = packet->ifindex,
		.reason = packet->policy.audit_reason,
	};
	struct report report = {
		.ifindex = packet->ifindex,
		.verdict = VERDICT_AUDIT,
		.point = packet->hook.point,
		.reason = packet->policy.audit_reason,
		.direction = packet->direction,
	};

	if (packet->policy.audit_reason)
		drop_report(&subject, &key, &report);
	else
		event_report_single(packet, packet->hook.sender == PARTY_ENDPOINT ? POINT_TO_STACK
										  : POINT_TO_ENDPOINT);
}

static __always_inline __must_check int pass(struct packet *packet)
{
	const struct settings *settings = settings_find(packet->epoch);
	int result;

	if (!settings)
		return -REASON_NO_CONFIGURATION;
	if (packet_is_icmp(packet) && packet->headers.fragment != FRAGMENT_LATER &&
	    !icmp_is_echo(packet->headers.family, packet->headers.icmp_type))
		return -REASON_ICMP_UNRELATED;
	result = ask(packet, settings);
	if (!result && packet->hook.sender == PARTY_ENDPOINT)
		result = link_admit_source(packet);
	if (result)
		return result;
	policy_count_connection(packet);
	packet_count_exempt(packet);
	report(packet);
	return ACTION_PASS;
}

SEC("tc")
int tail_multicast(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;
	return step_finish(skb, packet, pass(packet), STEP_COUNT);
}
