// SPDX-License-Identifier: GPL-2.0-only
/*
 * ARP and neighbour discovery of a workload: a request for any address but its own gets the host side's MAC in response, so
 * that any gateway address works. What the kernel's own neighbour table needs (replies, announcements, probes for duplicate
 * addresses) goes up to it.
 */
#include "lib/feature/admission.h"
#include "lib/feature/respond.h"
#include "lib/mechanism/chain.h"

/* RFC 826, for Ethernet and IPv4 */
struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
} __attribute__((packed));

static __always_inline struct address address_from_bytes(const __u8 *bytes)
{
	__be32 ipv4;

	__builtin_memcpy(&ipv4, bytes, sizeof(ipv4));
	return address_from_ipv4(ipv4);
}

static __always_inline __must_check int read_arp(struct __sk_buff *skb, struct packet *packet,
						 struct arp_packet *arp)
{
	if (bpf_skb_load_bytes(skb, ETH_HLEN, arp, sizeof(*arp)) ||
	    arp->hardware != bpf_htons(ARPHRD_ETHER) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_length != ETH_ALEN || arp->protocol_length != 4)
		return -REASON_INVALID_PACKET;
	packet->headers.family = 4;
	packet->headers.tuple.source = address_from_bytes(arp->sender);
	packet->headers.tuple.destination = address_from_bytes(arp->target);
	return 0;
}

static __always_inline __must_check int respond_arp(struct __sk_buff *skb, struct packet *packet,
						    struct arp_packet *arp, const struct endpoint *endpoint)
{
	struct ethhdr eth;
	__u8 asked[4];

	__builtin_memcpy(asked, arp->target, 4);
	arp->operation = bpf_htons(ARPOP_REPLY);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->target, arp->sender, 4);
	__builtin_memcpy(arp->sender_mac, endpoint->src_mac, ETH_ALEN);
	__builtin_memcpy(arp->sender, asked, 4);
	if (response_ethernet(skb, &eth))
		return ACTION_DROP;
	__builtin_memcpy(eth.h_source, endpoint->src_mac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, arp, sizeof(*arp), 0))
		return ACTION_DROP;
	return response_send(skb, packet);
}

static __always_inline __must_check int handle_arp(struct __sk_buff *skb, struct packet *packet,
						   const struct endpoint *endpoint)
{
	struct arp_packet arp;
	int result = read_arp(skb, packet, &arp);

	if (result)
		return result;

	int probe = address_is_unspecified(&packet->headers.tuple.source);

	if (!probe && !packet_is_own(packet, &packet->headers.tuple.source))
		return -REASON_INVALID_SOURCE;
	if (packet_is_own(packet, &packet->headers.tuple.destination))
		return ACTION_PASS; /* an announcement, or a probe for duplicates */
	if (arp.operation == bpf_htons(ARPOP_REPLY))
		return probe ? -REASON_INVALID_SOURCE : ACTION_PASS;
	if (arp.operation != bpf_htons(ARPOP_REQUEST))
		return -REASON_INVALID_PACKET;
	return respond_arp(skb, packet, &arp, endpoint);
}

struct neighbour_advertisement {
	struct icmp6hdr icmp;
	struct address target;
	__u8 option; /* target link-layer address, RFC 4861, 4.6.1 */
	__u8 option_length; /* in eights */
	__u8 mac[ETH_ALEN];
};

enum {
	ND_OPTION_TARGET = 2,
	ND_SOLICITED_OVERRIDE = 0x60,
};

static __always_inline __must_check int respond_solicitation(struct __sk_buff *skb, struct packet *packet,
							     const struct address *target,
							     const struct endpoint *endpoint)
{
	struct address asker = address_unscope(&packet->headers.tuple.source);
	struct neighbour_advertisement advertisement = {
		.icmp.icmp6_type = ND_NEIGHBOUR_ADVERTISEMENT,
		.target = *target,
		.option = ND_OPTION_TARGET,
		.option_length = 1,
	};
	struct ethhdr eth;

	*(__u8 *)&advertisement.icmp.icmp6_dataun = ND_SOLICITED_OVERRIDE;
	__builtin_memcpy(advertisement.mac, endpoint->src_mac, ETH_ALEN);

	__u32 sum = csum_pseudo_header(target, &asker, sizeof(advertisement), IPPROTO_ICMPV6);

	advertisement.icmp.icmp6_cksum =
		~csum_fold(bpf_csum_diff(0, 0, (__be32 *)&advertisement, sizeof(advertisement), sum));

	struct ipv6hdr ip =
		response_ipv6(target, &asker, sizeof(advertisement), IPPROTO_ICMPV6, ND_HOP_LIMIT);

	if (response_ethernet(skb, &eth))
		return ACTION_DROP;
	__builtin_memcpy(eth.h_source, endpoint->src_mac, ETH_ALEN);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(ip) + sizeof(advertisement), 0) ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &advertisement, sizeof(advertisement), 0))
		return ACTION_DROP;
	return response_send(skb, packet);
}

/* Whether the bridge that the workload is on finds the neighbour: a link-local one, that is not the host. */
static __always_inline int is_on_bridge(const struct packet *packet, const struct address *target)
{
	if (packet->link_ifindex == packet->ifindex || !address_is_link_local(target))
		return 0;

	const struct ipcache_entry *owner = packet_owner(packet, target);

	return owner && owner->scope != SCOPE_HOST;
}

static __always_inline __must_check int handle_solicitation(struct __sk_buff *skb, struct packet *packet,
							    const struct endpoint *endpoint)
{
	const struct address *source = &packet->headers.tuple.source;
	struct address target;

	if (packet->headers.icmp_code ||
	    bpf_skb_load_bytes(skb, packet->headers.transport + 8, &target, sizeof(target)) ||
	    address_is_multicast(&target) || address_is_scoped(&target))
		return -REASON_INVALID_PACKET;
	if (address_is_unspecified(source)) {
		if (address_is_link_local(&target))
			link_local_learn(packet, &target, 0);
		return ACTION_PASS; /* a probe for duplicates: the host decides */
	}
	if (!packet_is_own(packet, source) && !packet_may_claim(packet, source))
		return -REASON_INVALID_SOURCE;
	if (address_is_link_local(source))
		link_local_learn(packet, source, packet->now_ns);
	if (packet_is_own(packet, &target))
		return packet_stays_on_link(packet) ? ACTION_PASS : -REASON_INVALID_PACKET;
	if (is_on_bridge(packet, &target) && packet_stays_on_link(packet))
		return ACTION_PASS; /* its neighbour answers, or nobody */
	return respond_solicitation(skb, packet, &target, endpoint);
}

SEC("tc")
int tail_neighbour(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();

	if (!packet)
		return TC_ACT_SHOT;

	const struct endpoint *endpoint = endpoint_find(packet->generation_slot, packet->ifindex);
	int result = -REASON_NO_CONFIGURATION;

	if (endpoint)
		result = link_admit_message(packet);
	if (endpoint && !result && packet->headers.family == 6)
		result = handle_solicitation(skb, packet, endpoint);
	else if (endpoint && !result)
		result = handle_arp(skb, packet, endpoint);
	if (result == ACTION_PASS) {
		/* The host may learn from announcements, too (arp_accept). */
		int refused = link_admit_source(packet);

		if (refused)
			result = refused;
	}
	if (result == ACTION_PASS)
		packet_count_exempt(packet);
	else if (result == ACTION_REDIRECT)
		endpoint_count_answered(packet->endpoint_counters, packet->headers.length);
	else if (result == ACTION_DROP)
		result = -REASON_INVALID_PACKET; /* an answer that could not be built */
	return step_finish(skb, packet, result, STEP_COUNT);
}
