/* SPDX-License-Identifier: GPL-2.0-only */
/* Endpoints: the interfaces of local workloads, what each may send, and who a connection's peers are. */
#ifndef DPD_ENDPOINT_H
#define DPD_ENDPOINT_H

#include "../mechanism/ipcache.h"
#include "../mechanism/packet.h"
#include "link_local.h"

struct endpoints_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32)); /* ifindex of the host's side */
	__uint(value_size, sizeof(struct endpoint));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct endpoints_table);
} dpd_endpoints __weak SEC(".maps");

static __always_inline const struct endpoint *endpoint_find(__u32 slot, __u32 ifindex)
{
	void *table = bpf_map_lookup_elem(&dpd_endpoints, &slot);

	return table ? bpf_map_lookup_elem(table, &ifindex) : 0;
}

/*
 * Whose address it is: by the ipcache, and a link-local one of this link that no other has, by what its workload has announced.
 * Null only before the first configuration.
 */
static __noinline const struct ipcache_entry *owner_find(__u32 slot, __u32 link,
							 const struct address *address)
{
	if (!link || !address_is_link_local(address))
		return ipcache_find(slot, address);

	struct address scoped = address_scope(address, link);
	const struct ipcache_entry *owner = ipcache_find(slot, &scoped);

	if (!owner || owner->scope != SCOPE_REMOTE)
		return owner;

	__u32 ifindex = link_local_owner(&scoped);
	const struct endpoint *endpoint = ifindex ? endpoint_find(slot, ifindex) : 0;

	if (!endpoint || endpoint->flags & ENDPOINT_NAMES_LINK_LOCAL || endpoint->link_ifindex != link)
		return owner;
	return &endpoint->link_local;
}

/* The same on the link that the packet's hook is at. */
static __always_inline const struct ipcache_entry *packet_owner(const struct packet *packet,
								const struct address *address)
{
	return owner_find(packet->generation_slot, packet->link_ifindex, address);
}

/* Whether the address belongs to the interface's endpoint. */
static __always_inline int endpoint_has_address(__u32 slot, __u32 ifindex, const struct address *address)
{
	const struct endpoint *endpoint = endpoint_find(slot, ifindex);
	const struct ipcache_entry *owner = owner_find(slot, endpoint ? endpoint->link_ifindex : 0, address);

	return owner && owner->scope == SCOPE_ENDPOINT && owner->ifindex == ifindex;
}

/* Whether the address belongs to the endpoint that the packet's hook is at. */
static __always_inline int packet_is_own(const struct packet *packet, const struct address *address)
{
	const struct ipcache_entry *owner = packet_owner(packet, address);

	return owner && owner->scope == SCOPE_ENDPOINT && owner->ifindex == packet->ifindex;
}

/*
 * Whether the workload may claim a link-local address: its own, or one that nobody is known to have on the link, if the file does
 * not name those that it has.
 */
static __always_inline int packet_may_claim(const struct packet *packet, const struct address *address)
{
	const struct ipcache_entry *owner = packet_owner(packet, address);

	if (!owner || !address_is_link_local(address))
		return 0;
	if (owner->scope == SCOPE_REMOTE)
		return !(packet->endpoint_flags & ENDPOINT_NAMES_LINK_LOCAL);
	return owner->scope == SCOPE_ENDPOINT && owner->ifindex == packet->ifindex;
}

/* What a hook's endpoint says of its packets. */
static __always_inline void packet_set_endpoint(struct packet *packet, const struct endpoint *endpoint)
{
	packet->endpoint_counters = endpoint->counters_index;
	packet->link_ifindex = endpoint->link_ifindex;
	packet->endpoint_flags = endpoint->flags;
}

/*
 * Whether the host itself began what its stack sends. Not known of an IPv6 fragment: the host puts forwarded ones together and
 * cuts them again, as its own.
 */
static __always_inline int packet_is_hosts_own(const struct packet *packet)
{
	return packet->hook.sender == PARTY_HOST && !packet->forwarded_from &&
	       !(packet->headers.family == 6 && packet->headers.fragment != FRAGMENT_NONE);
}

/* Whether packets from this address may cross a router: a single sender's, beyond its host and its link. */
static __always_inline int address_may_be_forwarded(const struct address *source)
{
	return !address_is_of_no_host(source) && !address_is_multicast(source) &&
	       !address_is_loopback(source) && !address_is_link_local(source);
}

/* Whether the host has forwarded the packet from a workload's own interface, or from the bridge that this is a port of. */
static __always_inline int is_forwarded_from(const struct packet *packet, __u32 ifindex)
{
	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, ifindex);

	return packet->forwarded_from && (packet->forwarded_from == ifindex ||
					  (endpoint && packet->forwarded_from == endpoint->link_ifindex));
}

/*
 * Whether the packet ends at the host or on its link. What bypasses policy must: the host would route the rest on, and any
 * protocol is good enough to carry something out.
 */
static __always_inline int packet_stays_on_link(const struct packet *packet)
{
	const struct address *destination = &packet->headers.tuple.destination;

	if (address_is_multicast(destination) || address_is_link_local(destination))
		return 1;

	const struct ipcache_entry *owner = ipcache_find(packet->generation_slot, destination);

	return owner && owner->scope == SCOPE_HOST;
}

/*
 * Spoofing. A workload sends from its own addresses only, and from a link-local one only on its link. Nothing from the network
 * has a workload's source, and of what the host's stack sends only what it has forwarded from that workload: to a port that the
 * host publishes. From the network nothing has the host's source either, nor one that the kernel would call a martian.
 */
static __noinline __must_check int endpoint_check_source(const struct packet *packet)
{
	const struct address *source = &packet->headers.tuple.source;
	const struct ipcache_entry *owner = packet_owner(packet, source);

	if (!owner)
		return -REASON_NO_CONFIGURATION;
	if (packet->hook.sender == PARTY_ENDPOINT) {
		int is_own = owner->scope == SCOPE_ENDPOINT && owner->ifindex == packet->ifindex;

		if (!is_own || (address_is_link_local(source) && !packet_stays_on_link(packet)))
			return -REASON_INVALID_SOURCE;
		if (address_is_link_local(source))
			link_local_note_use(packet->ifindex, packet->now_ns);
		return 0;
	}
	if (owner->scope == SCOPE_ENDPOINT && is_forwarded_from(packet, owner->ifindex))
		return 0;
	if (owner->scope == SCOPE_ENDPOINT || owner->scope == SCOPE_PENDING)
		return -REASON_INVALID_SOURCE;
	if (packet->hook.sender != PARTY_UPLINK)
		return 0;
	if (!address_may_be_forwarded(source))
		return -REASON_MARTIAN;
	return owner->scope == SCOPE_HOST ? -REASON_INVALID_SOURCE : 0;
}

/* Who has an address, with the endpoint if it is a local workload; minus a reason if it can't be reached now. */
static __noinline __must_check int peer_resolve(const struct packet *packet, struct peer *peer,
						const struct address *address)
{
	const struct ipcache_entry *owner = packet_owner(packet, address);

	if (!owner)
		return -REASON_NO_CONFIGURATION;
	peer->address = *owner;
	if (owner->scope != SCOPE_ENDPOINT)
		return owner->scope == SCOPE_PENDING ? -REASON_NO_ROUTE : 0;

	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, owner->ifindex);

	if (!endpoint)
		return -REASON_NO_ROUTE;
	peer->endpoint = *endpoint;
	return 0;
}

/* Who began what the host has forwarded from an address of its own: somebody of the world, whom the host translates. */
static __noinline __must_check int peer_resolve_world(const struct packet *packet, struct peer *peer)
{
	struct address any = packet->headers.family == 4 ? address_from_ipv4(0) : (struct address){};
	const struct ipcache_entry *world = ipcache_find(packet->generation_slot, &any);

	if (!world)
		return -REASON_NO_CONFIGURATION;
	peer->address = *world;
	return 0;
}

static __always_inline __u8 peer_party(const struct peer *peer)
{
	if (peer->address.scope == SCOPE_ENDPOINT)
		return PARTY_ENDPOINT;
	return peer->address.scope == SCOPE_HOST ? PARTY_HOST : PARTY_UPLINK;
}

#endif
