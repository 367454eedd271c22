// SPDX-License-Identifier: GPL-2.0-only
/*
 * The earliest look at what comes from the network: XDP of an uplink, attached while a prefilter has prefixes.
 *
 *	NIC -> dpd_xdp_entry -+- from a denied prefix: drop, before an skb exists
 *			      +- else, whatever it is: on to tc, which names what is wrong with it
 */
#include "lib/event.h"
#include "lib/prefilter.h"

/* What is read of a packet: its ends. */
struct arrival {
	struct tuple tuple;
	__u32 length;
};

/* Zero if it has no sender to ask about: no IP, or a header that contradicts itself or its frame. */
static __always_inline int arrival_read(struct xdp_md *xdp, struct arrival *arrival)
{
	const __u8 *data = (void *)(long)xdp->data;
	const __u8 *end = (void *)(long)xdp->data_end;
	const struct ethhdr *eth = (void *)data;
	const struct iphdr *ipv4 = (void *)(eth + 1);
	const struct ipv6hdr *ipv6 = (void *)(eth + 1);
	__u64 left = bpf_xdp_get_buff_len(xdp) - sizeof(*eth);

	if ((void *)(eth + 1) > (void *)end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if ((void *)(ipv4 + 1) > (void *)end)
			return 0;
		arrival->tuple.source = address_from_ipv4(ipv4->saddr);
		arrival->tuple.destination = address_from_ipv4(ipv4->daddr);
		arrival->tuple.protocol = ipv4->protocol;
		arrival->length = bpf_ntohs(ipv4->tot_len);
		return ipv4->version == 4 && ipv4->ihl >= 5 && arrival->length >= ipv4->ihl * 4 &&
		       arrival->length <= left;
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if ((void *)(ipv6 + 1) > (void *)end)
			return 0;
		arrival->tuple.source = address_from_ipv6(&ipv6->saddr);
		arrival->tuple.destination = address_from_ipv6(&ipv6->daddr);
		arrival->tuple.protocol = ipv6->nexthdr;
		arrival->length = sizeof(*ipv6) + bpf_ntohs(ipv6->payload_len);
		return ipv6->version == 6 && arrival->length <= left &&
		       !address_is_mapped(&arrival->tuple.source);
	}
	return 0;
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

	__u32 repeats = drop_repeats(&key, now_ns, settings->report_interval_ns);

	if (!repeats)
		return;

	struct event *event = event_reserve(settings, now_ns);

	if (!event)
		return; /* user space is behind: losing a report beats losing time here */

	struct report at = {
		.ifindex = ifindex,
		.repeats = repeats,
		.verdict = VERDICT_DROPPED,
		.point = POINT_XDP,
		.reason = REASON_PREFILTER,
		.direction = DIRECTION_INGRESS,
	};
	const struct identity *source = identity_find(live_slot(epoch), &arrival->tuple.source);
	const struct identity *destination = identity_find(live_slot(epoch), &arrival->tuple.destination);

	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = now_ns;
	event->epoch = epoch;
	event->tuple = arrival->tuple;
	event->rewritten = arrival->tuple;
	event->length = arrival->length;
	event->source_identity = source ? source->id : 0;
	event->destination_identity = destination ? destination->id : 0;
	event->state = EVENT_NO_CONNECTION;
	event_set_report(event, &at);
	event_submit(event);
}

/* Several buffers are welcome: an uplink with an MTU of 9000 may have them. */
SEC("xdp.frags")
int dpd_xdp_entry(struct xdp_md *xdp)
{
	struct arrival arrival = {};
	__u64 epoch = live_epoch();
	__u32 ifindex = xdp->ingress_ifindex;

	if (!arrival_read(xdp, &arrival))
		return XDP_PASS;

	const struct prefilter *denied = prefilter_find(live_slot(epoch), &arrival.tuple.source);

	if (!denied)
		return XDP_PASS;
	prefilter_count(denied->number);
	metric_count(ifindex, REASON_PREFILTER, DIRECTION_INGRESS, arrival.length);
	report(&arrival, ifindex, epoch);
	return XDP_DROP;
}
