// SPDX-License-Identifier: GPL-2.0-only
/*
 * The service step: is the packet sent to a service's frontend? For a new connection a backend is picked here. Whether the
 * packet belongs to an existing connection, whose backend stays, is the next step's to say: an error is only noted here.
 */
#include "lib/feature/affinity.h"
#include "lib/feature/host_socket.h"
#include "lib/feature/service.h"
#include "lib/mechanism/chain.h"

/* Whether the service answers those who send by this hook. */
static __always_inline int answers(const struct packet *packet, const struct service *service)
{
	return service->id && (packet->hook.sender != PARTY_UPLINK || service->flags & SERVICE_EXTERNAL);
}

/* Picks a backend for a new connection, if its client may have one; an error is for the next step. */
static __always_inline void pick_backend(struct packet *packet, const struct service *service)
{
	const struct address *client = &packet->headers.tuple.source;
	struct backend_pick pick = {};
	__u32 numbers[2];

	packet->lb.service = *service;
	if (packet->hook.sender == PARTY_UPLINK &&
	    !service_admits(packet->generation_slot, service, client)) {
		packet->lb.error = -REASON_SOURCE_RANGE;
		return;
	}
	service_draw(service, &packet->headers.tuple, numbers);
	packet->lb.error = service_pick_backend(packet->generation_slot, service, numbers, &pick);
	packet->lb.column = pick.column;
	packet->lb.backend = pick.backend;
	if (!service->affinity_ns || packet->lb.error)
		return;

	__u32 kept = affinity_find(packet->generation_slot, service, client, packet->now_ns);

	if (kept)
		packet->lb.backend = kept;
}

static __always_inline __must_check int find_service(struct __sk_buff *skb, struct packet *packet)
{
	const struct service *service = service_find(packet->generation_slot, &packet->headers.tuple);

	if (!service)
		return ACTION_CONTINUE;
	if (address_is_link_local(&packet->headers.tuple.source))
		return -REASON_INVALID_SOURCE; /* a backend, or the reply, would be beyond its link */
	if (!answers(packet, service)) {
		if (packet_is_echo_request(packet))
			packet->response.kind = RESPONSE_ECHO;
		packet->lb.error = -REASON_NO_SERVICE;
		return ACTION_CONTINUE;
	}

	/* What the host had before the service came, and what it has opened by a frontend's port, continues. */
	if (packet->hook.sender == PARTY_UPLINK && host_is_connected(skb, packet))
		return ACTION_PASS;
	packet->is_stray = 0;
	pick_backend(packet, service);
	return ACTION_CONTINUE;
}

SEC("tc")
int tail_lb(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	int result = find_service(skb, packet);

	return step_finish(skb, packet, result,
			   packet->response.kind == RESPONSE_ECHO ? STEP_RESPOND : STEP_CT);
}
