// SPDX-License-Identifier: GPL-2.0-only
/*
 * The service step: is the packet sent to a service's frontend? For a new connection a backend is picked here. Whether the
 * packet belongs to an existing connection, whose backend stays, is the next step's to say: an error is only noted here.
 */
#include "lib/feature/service.h"
#include "lib/mechanism/chain.h"

static __always_inline __must_check int find_service(struct packet *packet)
{
	const struct service *service = service_find(packet->generation_slot, &packet->headers.tuple);

	if (!service)
		return ACTION_CONTINUE;
	if (address_is_link_local(&packet->headers.tuple.source))
		return -REASON_INVALID_SOURCE; /* a backend, or the reply, would be beyond its link */
	if (!service->id) {
		if (packet_is_echo_request(packet))
			packet->response.kind = RESPONSE_ECHO;
		packet->lb.error = -REASON_NO_SERVICE;
		return ACTION_CONTINUE;
	}

	const __u32 random[2] = { bpf_get_prandom_u32(), bpf_get_prandom_u32() };
	struct backend_pick pick = {};

	packet->lb.service = *service;
	packet->lb.error = service_pick_backend(packet->generation_slot, service, random, &pick);
	packet->lb.column = pick.column;
	packet->lb.backend = pick.backend;
	return ACTION_CONTINUE;
}

SEC("tc")
int tail_lb(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int result = find_service(packet);

	return step_finish(skb, packet, result,
			   packet->response.kind == RESPONSE_ECHO ? STEP_RESPOND : STEP_CT);
}
