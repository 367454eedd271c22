/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The address of the host that SNAT gives to a new connection: the kernel's for its route, else one of the uplink's; and whether a
 * connection may keep it.
 */
#ifndef DPD_SNAT_SOURCE_H
#define DPD_SNAT_SOURCE_H

#include "../mechanism/ipcache.h"
#include "../mechanism/packet.h"
#include "conntrack.h"
#include "route.h"
#include "uplink.h"

/* Whether the kernel names a source for the connection's route that new connections may take. */
static __always_inline int kernel_source_is_usable(const struct packet *packet)
{
	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, &packet->way_out.source);

	return owner && owner->snat == SNAT_SOURCE;
}

/* Chooses for the packet's connection, which leaves by entry.snat_ifindex. */
static __noinline void snat_choose_source(struct packet *packet)
{
	const struct uplink *uplink = uplink_find(packet->generation_slot, packet->ct.entry.snat_ifindex);
	struct flow_tuple *translated = &packet->ct.entry.translated;

	if (kernel_source_is_usable(packet))
		translated->source = packet->way_out.source;
	else if (!uplink)
		translated->source = (struct address){};
	else
		translated->source =
			address_is_mapped(&translated->destination) ? uplink->snat_ipv4 : uplink->snat_ipv6;
}

/*
 * Whether the translated source of the packet's entry may still be used: the host has the address, the uplink masquerades or the
 * client is a service's, and the peer is not the host itself, which accepts no packet from an address of its own. True of a
 * connection without SNAT. Global: it is verified once.
 */
__weak __noinline int snat_source_is_valid(void)
{
	const struct packet *packet = packet_record();

	if (!packet || !(packet->ct.entry.flags & CT_SNAT))
		return 1;

	const struct ct_entry *entry = &packet->ct.entry;
	const struct flow_tuple *tuple = &packet->headers.tuple;
	int reply = entry->flags & CT_REPLY;
	const struct address *source = reply ? &tuple->destination : &entry->translated.source;
	const struct address *peer = reply ? &tuple->source : &entry->translated.destination;
	const struct uplink *uplink = uplink_find(packet->generation_slot, entry->snat_ifindex);
	__u8 family = address_is_mapped(source) ? MASQUERADE_IPV4 : MASQUERADE_IPV6;
	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, source);

	if (!uplink || !owner || owner->snat < SNAT_HOST)
		return 0;
	if (!ct_is_of_network(entry) && !(uplink->masquerade & family))
		return 0;
	owner = ipcache_find(packet->generation_slot, peer);
	return owner && owner->scope != SCOPE_HOST;
}

#endif
