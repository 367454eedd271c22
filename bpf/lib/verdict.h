/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one door by which a packet leaves a hook or a step of the chain. A stage answers 0 (carry on), an action, or minus
 * a drop reason; here that becomes the return code, a count, an event, and where it is due an answer to the sender.
 */
#ifndef DPD_VERDICT_H
#define DPD_VERDICT_H

#include "deliver.h"
#include "event.h"

/* The chain. Each load of the programs has an array of its own, filled before any packet can reach it. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, CALL_COUNT);
	__type(key, __u32);
	__type(value, __u32);
} dpd_calls __weak SEC(".maps");

/* Answers that a workload was sent within this second. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct budget);
} dpd_answer_budget __weak SEC(".maps");

enum { ANSWERS_A_SECOND = 100 };

/*
 * TC_ACT_UNSPEC, which is TCX_NEXT: what stands behind us on the hook sees the packet too (TC_ACT_OK would end the list
 * for it).
 */
enum { HOOK_NEXT = -1 };

/* Whether this second's budget of ICMP errors and resets to the interface is spent. */
static __noinline int answer_is_limited(__u32 ifindex, __u64 now_ns)
{
	struct budget *budget = bpf_map_lookup_elem(&dpd_answer_budget, &ifindex);

	if (budget)
		return budget_is_spent(budget, now_ns, ANSWERS_A_SECOND);

	struct budget first = { .window_ns = now_ns, .spent = 1 };

	bpf_map_update_elem(&dpd_answer_budget, &ifindex, &first, BPF_ANY);
	return 0;
}

/* No error answers an error, a later fragment or a reset (RFC 1122, 3.2.2; RFC 4443, 2.4; RFC 9293, 3.5.2). */
static __always_inline int packet_may_be_answered(const struct packet *packet)
{
	if (packet->hook == HOOK_TO_CONTAINER || packet->fragment == FRAGMENT_LATER)
		return 0;
	if (packet->answer == ANSWER_RESET && packet->tcp_flags & TCP_RST)
		return 0;
	return !packet_is_icmp_error(packet);
}

/* Counts and reports a drop. Not zero if the sender is to be told. */
static __noinline int finish_drop(struct packet *packet, __u8 reason)
{
	metric_count(packet->ifindex, reason, packet->direction, packet->length);
	event_report_drop(packet, reason);
	if (!packet->answer || !packet_may_be_answered(packet))
		return 0;
	if (!answer_is_limited(packet->ifindex, packet->now_ns))
		return 1;
	metric_count(packet->ifindex, REASON_RATE_LIMITED, packet->direction, packet->length);
	return 0;
}

/*
 * Calls a step; comes back if it is not there. Each call names its place as a constant, for which the kernel's compiler jumps
 * straight to the program.
 */
static __always_inline void chain_call(struct __sk_buff *skb, __u32 next)
{
	switch (next) {
	case CALL_HANDLE_IPV4:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_HANDLE_IPV4);
	case CALL_HANDLE_IPV6:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_HANDLE_IPV6);
	case CALL_NEIGHBOUR:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_NEIGHBOUR);
	case CALL_LB:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_LB);
	case CALL_CT:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_CT);
	case CALL_POLICY:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_POLICY);
	case CALL_DELIVER:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_DELIVER);
	case CALL_ICMP_ERROR:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_ICMP_ERROR);
	case CALL_ANSWER:
		return bpf_tail_call_static(skb, &dpd_calls, CALL_ANSWER);
	}
}

/* `next` is the step that carries on if the answer is ACTION_CONTINUE. */
static __always_inline int finish(struct __sk_buff *skb, struct packet *packet, int answer, __u32 next)
{
	if (answer == ACTION_CONTINUE) {
		chain_call(skb, next);
		answer = -REASON_MISSED_TAIL_CALL; /* a hole in the chain of a workload fails closed */
	}
	if (answer == ACTION_PASS)
		return HOOK_NEXT;
	if (answer == ACTION_REDIRECT)
		return TC_ACT_REDIRECT;
	if (answer != ACTION_DROP && finish_drop(packet, -answer)) {
		chain_call(skb, CALL_ANSWER);
		metric_count(packet->ifindex, REASON_MISSED_TAIL_CALL, packet->direction, packet->length);
	}
	return TC_ACT_SHOT;
}

#endif
