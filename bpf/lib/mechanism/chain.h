/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The chain of steps, and the one exit of a hook or a step. A stage returns 0 (carry on), an action, or minus a drop reason;
 * here that becomes the return code, a count, an event, and where one is due a response to the sender.
 */
#ifndef DPD_CHAIN_H
#define DPD_CHAIN_H

#include "event.h"
#include "parse.h"

/* Each load of the programs has an array of its own, filled before any packet can reach it. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STEP_COUNT);
	__type(key, __u32);
	__type(value, __u32);
} dpd_calls __weak SEC(".maps");

/* Responses that an interface was sent in the current second. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct rate_window);
} dpd_response_ratelimit __weak SEC(".maps");

enum { RESPONSES_PER_SECOND = 100 };

/* Whether the interface has got this second's ICMP errors and resets already. */
static __noinline int response_is_limited(__u32 ifindex, __u64 now_ns)
{
	struct rate_window *window = bpf_map_lookup_elem(&dpd_response_ratelimit, &ifindex);

	if (window)
		return rate_limit_exceeded(window, now_ns, NSEC_PER_SEC, RESPONSES_PER_SECOND);

	struct rate_window first = { .started_ns = now_ns, .used = 1 };

	bpf_map_update_elem(&dpd_response_ratelimit, &ifindex, &first, BPF_ANY);
	return 0;
}

/* No error in response to an error, a later fragment or a reset (RFC 1122, 3.2.2; RFC 4443, 2.4; RFC 9293, 3.5.2). */
static __always_inline int packet_may_get_response(const struct packet *packet)
{
	if (packet->headers.fragment == FRAGMENT_LATER)
		return 0;
	if (packet->response.kind == RESPONSE_RESET_RECEIVER)
		return 1; /* a reset or not, and at the receiver's own hook too: it is on its way there */
	if (packet->hook.flags & HOOK_PASSES_ON)
		return 0;
	if (packet->response.kind == RESPONSE_RESET && packet->headers.tcp.flags & TCP_RST)
		return 0;
	return !packet_is_icmp_error(packet);
}

/* Counts a drop. */
static __always_inline void count_drop(const struct packet *packet, __u8 reason)
{
	drop_count_add(packet->ifindex, reason, packet->direction, packet->headers.length);
	if (packet->endpoint_counters)
		endpoint_count_dropped(packet->endpoint_counters, packet->hook.direction);
}

/* Counts and reports a drop. Not zero if the sender gets a response. */
static __noinline int step_finish_drop(struct packet *packet, __u8 reason)
{
	count_drop(packet, reason);
	event_report_drop(packet, reason);
	if (!packet->response.kind || !packet_may_get_response(packet))
		return 0;
	if (!response_is_limited(packet->ifindex, packet->now_ns))
		return 1;
	counter_add(COUNTER_RESPONSES_LIMITED, 1);
	return 0;
}

/*
 * Calls a step; returns if it is missing. Each call has its index as a constant, for which the kernel's JIT compiler jumps
 * straight to the program.
 */
static __always_inline void chain_tail_call(struct __sk_buff *skb, __u32 step)
{
	switch (step) {
	case STEP_HANDLE_IPV4:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_HANDLE_IPV4);
	case STEP_HANDLE_IPV6:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_HANDLE_IPV6);
	case STEP_NEIGHBOUR:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_NEIGHBOUR);
	case STEP_LB:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_LB);
	case STEP_CT:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_CT);
	case STEP_POLICY:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_POLICY);
	case STEP_DELIVER:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_DELIVER);
	case STEP_ICMP_ERROR:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_ICMP_ERROR);
	case STEP_MULTICAST:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_MULTICAST);
	case STEP_SNAT:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_SNAT);
	case STEP_ANNOUNCE:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_ANNOUNCE);
	case STEP_RESPOND:
		return bpf_tail_call_static(skb, &dpd_calls, STEP_RESPOND);
	}
}

/* `next` is the step that carries on if the result is ACTION_CONTINUE. */
static __always_inline int step_finish(struct __sk_buff *skb, struct packet *packet, int result, __u32 next)
{
	if (result == ACTION_CONTINUE) {
		chain_tail_call(skb, next);
		if (packet->hook.flags & HOOK_FAILS_OPEN)
			return HOOK_NEXT;
		result = -REASON_MISSED_TAIL_CALL;
	}
	if (result == ACTION_PASS || (result < 0 && packet->is_stray))
		return HOOK_NEXT;
	if (result == ACTION_REDIRECT)
		return TC_ACT_REDIRECT;
	if (result != ACTION_DROP && step_finish_drop(packet, -result)) {
		/* Returns if the step is missing: then there is no response, and the drop has its reason already. */
		chain_tail_call(skb, STEP_RESPOND);
	}
	return TC_ACT_SHOT;
}

#endif
