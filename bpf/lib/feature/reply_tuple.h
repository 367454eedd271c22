/* SPDX-License-Identifier: GPL-2.0-only */
/* The tuple that replies to a new connection will have: nobody else's may have the same. */
#ifndef DPD_REPLY_TUPLE_H
#define DPD_REPLY_TUPLE_H

#include "../mechanism/packet.h"
#include "../mechanism/settings.h"
#include "conntrack.h"

/*
 * Whether replies to the translated packet can't be another connection's. Deletes what only stands in the way: an expired
 * pair, or an entry of this very connection that has lost its reverse. Global: it is verified once, not once for each try;
 * so it finds packet and settings itself, for an argument of a global function is no map key before Linux 6.2.
 */
__weak __noinline int reply_tuple_is_free(void)
{
	const struct packet *packet = packet_record();
	const struct settings *settings = packet ? settings_find(packet->epoch) : 0;

	if (!settings)
		return 0;

	struct flow_tuple key = ct_reverse_key(&packet->ct.entry);
	const struct ct_entry *taken = ct_find(&key);

	if (!taken)
		return 1;
	if (ct_is_reverse(taken, &packet->headers.tuple)) {
		ct_delete(&key);
		return 1;
	}
	if (ct_pair_is_expired(taken, &key, packet->now_ns, settings)) {
		ct_delete_pair(&key, taken);
		return 1;
	}
	return 0;
}

#endif
