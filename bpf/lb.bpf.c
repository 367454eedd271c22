// SPDX-License-Identifier: GPL-2.0-only
/*
 * The service step: is the destination a service's, and which backend would a new connection get? What a connection
 * that exists has chosen is the next step's to say, so a refusal is only noted here.
 */
#include "lib/chain.h"
#include "lib/service.h"

/* Draws a backend by the alias table: a column at random, then one of its two backends. */
static __always_inline __must_check int draw_backend(struct packet *packet)
{
	__u32 column = random_below(bpf_get_prandom_u32(), packet->slot_count);
	const struct service_slot *slot = service_slot_find(packet->slot, packet->first_slot + column);

	if (!slot)
		return -REASON_NO_BACKEND;
	packet->drawn_slot = column;
	packet->drawn_backend = bpf_get_prandom_u32() <= slot->threshold ? slot->backend : slot->alias;
	return 0;
}

static __always_inline __must_check int find_service(struct packet *packet)
{
	const struct service *service = service_find(packet->slot, &packet->tuple);

	if (!service)
		return 0;
	if (!service->id && packet_is_echo_request(packet)) {
		packet->answer = ANSWER_ECHO;
		return ACTION_CONTINUE;
	}
	packet->service = service->id;
	packet->first_slot = service->first_slot;
	packet->slot_count = service->slot_count;
	if (!service->id)
		packet->service_answer = -REASON_NO_SERVICE;
	else if (!service->slot_count)
		packet->service_answer = -REASON_NO_BACKEND;
	else
		packet->service_answer = draw_backend(packet);
	return 0;
}

SEC("tc")
int tail_lb(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int answer = find_service(packet);

	return finish(skb, packet, answer, packet->answer == ANSWER_ECHO ? CALL_ANSWER : CALL_CT);
}
