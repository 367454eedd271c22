// SPDX-License-Identifier: GPL-2.0-only
/*
 * The connection step: does the packet belong to one?
 *
 *	of the live epoch, from where it should come -> tail_deliver
 *	judged under an older configuration	     -> tail_policy once more, if its backend still exists
 *	none					     -> a backend, a free tuple, and tail_policy
 */
#include "lib/begin.h"
#include "lib/chain.h"

/* What policy is asked about: the client and the backend, whichever of them sent this packet. */
static __always_inline void set_beginning(struct packet *packet)
{
	const struct connection *connection = &packet->connection;
	struct tuple *beginning = &packet->beginning;

	beginning->protocol = packet->tuple.protocol;
	if (connection->flags & CONNECTION_REPLY) {
		beginning->source = connection->rewritten.destination;
		beginning->destination = packet->tuple.source;
		beginning->destination_port = packet->tuple.source_port;
	} else {
		beginning->source = packet->tuple.source;
		beginning->destination = connection->rewritten.destination;
		beginning->destination_port = connection->rewritten.destination_port;
	}
	if (!protocol_has_ports(beginning->protocol))
		beginning->destination_port = 0;
}

/* A new connection; nothing is entered before policy has allowed it. */
static __noinline __must_check int begin(struct packet *packet, const struct settings *settings)
{
	if (packet->service_answer) {
		packet->answer = ANSWER_PORT_UNREACHABLE;
		packet->connection.service = packet->service;
		return packet->service_answer;
	}
	if (settings->strict && packet->tuple.protocol == IPPROTO_TCP &&
	    (packet->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return -REASON_NOT_STARTED;
	if (settings->connections_per_endpoint && packet->hook == HOOK_FROM_CONTAINER &&
	    usage_is_spent(packet->ifindex, settings->connections_per_endpoint, packet->now_ns))
		return -REASON_ENDPOINT_CONNECTIONS;

	int answer = begin_decide(packet);

	set_beginning(packet);
	return answer;
}

/* Whether the service that the connection was begun through still sends to its backend. */
static __always_inline int service_holds(const struct packet *packet)
{
	const struct connection *connection = &packet->connection;
	int reply = connection->flags & CONNECTION_REPLY;
	struct tuple forward = reply ? tuple_reverse(&connection->rewritten) : packet->tuple;
	const struct address *address = reply ? &packet->tuple.source : &connection->rewritten.destination;
	__be16 port = reply ? packet->tuple.source_port : connection->rewritten.destination_port;
	const struct service *service = service_find(packet->slot, &forward);

	if (!connection->service)
		return !service;
	if (!service || service->id != connection->service)
		return 0;

	const struct backend *backend = backend_find(packet->slot, connection->backend);

	if (!backend || backend->service != connection->service || backend->port != port ||
	    !address_equals(&backend->address, address))
		return 0;
	return backend->state != BACKEND_MAINTENANCE || packet->tuple.protocol == IPPROTO_TCP;
}

/* Whether the entry is not this packet's: it has run out, or a SYN begins a new connection in its place. */
static __always_inline int is_over(const struct packet *packet, const struct connection *connection,
				   const struct settings *settings)
{
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && connection->state == CONNECTION_CLOSING)
		return 1;
	return connection_is_expired(connection, &packet->tuple, packet->now_ns, settings);
}

static __always_inline int is_current(const struct packet *packet)
{
	return packet->connection.epoch == packet->epoch &&
	       connection_fits(&packet->connection, packet->hook, packet->ifindex);
}

/* A packet whose backend is gone: who speaks UDP begins anew, who speaks TCP is told at once. */
static __noinline __must_check int orphan(struct packet *packet, const struct settings *settings)
{
	int reply = packet->connection.flags & CONNECTION_REPLY;

	conntrack_delete_pair(&packet->tuple, &packet->connection);
	if (packet->tuple.protocol == IPPROTO_TCP)
		packet->answer = ANSWER_RESET;
	if (packet->tuple.protocol == IPPROTO_TCP || reply)
		return -REASON_NO_BACKEND;

	__u32 source_identity = packet->connection.source_identity;

	packet->found = 0;
	packet->counted_egress_rule = 0;
	packet->counted_ingress_rule = 0;
	__builtin_memset(&packet->connection, 0, sizeof(packet->connection));
	packet->connection.source_identity = source_identity;
	return begin(packet, settings);
}

static __always_inline __must_check int find_connection(struct packet *packet,
							const struct settings *settings)
{
	struct connection *connection = conntrack_find_answered(&packet->tuple);

	if (!connection) {
		connection = bpf_map_lookup_elem(&dpd_ct_unanswered, &packet->tuple);
		packet->unanswered = !!connection;
	}
	if (connection && is_over(packet, connection, settings)) {
		conntrack_delete_pair(&packet->tuple, connection);
		connection = 0;
	}
	if (!connection)
		return begin(packet, settings);
	packet->found = 1;
	packet->connection = *connection;
	packet->counted_egress_rule = connection->egress_rule;
	packet->counted_ingress_rule = connection->ingress_rule;
	packet->current = is_current(packet);
	if (packet->current)
		return 0;
	if (!service_holds(packet))
		return orphan(packet, settings);
	set_beginning(packet);
	return 0;
}

SEC("tc")
int tail_ct(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct settings *settings = settings_find(packet->epoch);
	int answer = settings ? find_connection(packet, settings) : -REASON_CONNTRACK_FULL;

	return finish(skb, packet, answer, packet->current ? CALL_DELIVER : CALL_POLICY);
}
