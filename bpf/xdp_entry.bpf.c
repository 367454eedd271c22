// SPDX-License-Identifier: GPL-2.0-only
/*
 * The earliest look at what comes from the network: XDP of an uplink, attached while a prefilter has prefixes.
 *
 *	NIC -> dpd_xdp_entry -+- from a denied prefix: drop, before an skb exists
 *			      +- malformed: counted, and on to tc, which names what is wrong with it
 *			      +- else: on to tc
 */
#include "lib/event.h"
#include "lib/prefilter.h"

/* What is read of a packet: its ends. */
struct arrival {
	struct tuple tuple;
	__u32 length;
	__u8 tcp_flags;
};

/* Ports are there for whoever reads the report: nothing is decided by them. */
static __always_inline void arrival_read_transport(struct arrival *arrival, const __u8 *transport,
						   const __u8 *end)
{
	if (!protocol_has_ports(arrival->tuple.protocol) || transport + sizeof(struct udphdr) > end)
		return;
	arrival->tuple.source_port = *(__be16 *)transport;
	arrival->tuple.destination_port = *(__be16 *)(transport + 2);
	if (arrival->tuple.protocol == IPPROTO_TCP && transport + sizeof(struct tcphdr) <= end)
		arrival->tcp_flags = transport[13];
}

/* What a frame turns out to be. */
enum arrival_kind {
	ARRIVAL_IP = 0,
	ARRIVAL_OTHER = 1, /* no IP, or no sender that a prefix could name */
	ARRIVAL_MALFORMED = 2, /* a header that is cut short, or contradicts itself or its frame */
};

static __always_inline enum arrival_kind arrival_read_ipv4(const struct iphdr *ip, const void *end,
							   __u64 left, struct arrival *arrival)
{
	if ((void *)(ip + 1) > end)
		return ARRIVAL_MALFORMED;
	arrival->tuple.source = address_from_ipv4(ip->saddr);
	arrival->tuple.destination = address_from_ipv4(ip->daddr);
	arrival->tuple.protocol = ip->protocol;
	arrival->length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip->ihl < 5 || arrival->length < ip->ihl * 4 || arrival->length > left)
		return ARRIVAL_MALFORMED;
	if (!(ip->frag_off & bpf_htons(IP4_OFFSET)))
		arrival_read_transport(arrival, (__u8 *)ip + ip->ihl * 4, end);
	return ARRIVAL_IP;
}

static __always_inline enum arrival_kind arrival_read_ipv6(const struct ipv6hdr *ip, const void *end,
							   __u64 left, struct arrival *arrival)
{
	if ((void *)(ip + 1) > end)
		return ARRIVAL_MALFORMED;
	arrival->tuple.source = address_from_ipv6(&ip->saddr);
	arrival->tuple.destination = address_from_ipv6(&ip->daddr);
	arrival->tuple.protocol = ip->nexthdr;
	arrival->length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || arrival->length > left)
		return ARRIVAL_MALFORMED;
	arrival_read_transport(arrival, (__u8 *)(ip + 1), end);
	return address_is_mapped(&arrival->tuple.source) ? ARRIVAL_OTHER : ARRIVAL_IP;
}

static __always_inline enum arrival_kind arrival_read(struct xdp_md *xdp, struct arrival *arrival)
{
	const __u8 *data = (void *)(long)xdp->data;
	const __u8 *end = (void *)(long)xdp->data_end;
	const struct ethhdr *eth = (void *)data;
	__u64 left = bpf_xdp_get_buff_len(xdp) - sizeof(*eth);

	if ((void *)(eth + 1) > (void *)end)
		return ARRIVAL_MALFORMED;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return arrival_read_ipv4((void *)(eth + 1), end, left, arrival);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return arrival_read_ipv6((void *)(eth + 1), end, left, arrival);
	return ARRIVAL_OTHER;
}

/* One report for each sender in an interval stands for the rest. */
static __noinline void report(const struct arrival *arrival, __u32 ifindex, __u64 epoch)
{
	const struct settings *settings = settings_find(epoch);
	__u64 now_ns = bpf_ktime_get_ns();
	struct drop_key key = {
		.tuple.source = arrival->tuple.source,
		.ifindex = ifindex,
		.reason = REASON_PREFILTER,
	};

	if (!settings)
		return;

	struct drop_log *log = drop_find(&key);

	if (!log) {
		counter_add(COUNTER_EVENTS_RING_FULL, 1);
		return;
	}

	struct report at = {
		.ifindex = ifindex,
		.repeats = drop_repeats(log, now_ns, settings->report_interval_ns),
		.verdict = VERDICT_DROPPED,
		.point = POINT_XDP,
		.reason = REASON_PREFILTER,
		.direction = DIRECTION_INGRESS,
	};

	if (!at.repeats)
		return;

	const struct identity *source = identity_find(live_slot(epoch), &arrival->tuple.source);
	const struct identity *destination = identity_find(live_slot(epoch), &arrival->tuple.destination);
	struct event *event = &log->event;

	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = now_ns;
	event->epoch = epoch;
	event->tuple = arrival->tuple;
	event->rewritten = arrival->tuple;
	event->length = arrival->length;
	event->tcp_flags = arrival->tcp_flags;
	event->source_identity = source ? source->id : 0;
	event->destination_identity = destination ? destination->id : 0;
	event->state = EVENT_NO_CONNECTION;
	event_set_report(event, &at);
	drop_report(log, settings, now_ns);
}

/* Several buffers are welcome: an uplink with an MTU of 9000 may have them. */
SEC("xdp.frags")
int dpd_xdp_entry(struct xdp_md *xdp)
{
	struct arrival arrival = {};
	__u64 epoch = live_epoch();
	__u32 ifindex = xdp->ingress_ifindex;
	enum arrival_kind kind = arrival_read(xdp, &arrival);

	if (kind == ARRIVAL_MALFORMED)
		counter_add(COUNTER_XDP_MALFORMED, 1);
	if (kind != ARRIVAL_IP)
		return XDP_PASS;

	const struct prefilter *denied = prefilter_find(live_slot(epoch), &arrival.tuple.source);

	if (!denied)
		return XDP_PASS;
	prefilter_count(denied->number);
	metric_count(ifindex, REASON_PREFILTER, DIRECTION_INGRESS, arrival.length);
	report(&arrival, ifindex, epoch);
	return XDP_DROP;
}
