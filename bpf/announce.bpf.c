// SPDX-License-Identifier: GPL-2.0-only
/*
 * ARP and neighbour discovery of an uplink's link, for addresses of services that no interface of the host has:
 * requests, and probes of those who would take such an address, get the uplink's MAC in response. All else passes to
 * the host.
 */
#include "lib/feature/announce.h"
#include "lib/feature/link.h"
#include "lib/feature/neighbour_response.h"

/* Too many requests this second: the host gets what is not answered, and has no answer either. */
static __always_inline __must_check int is_limited(const struct packet *packet)
{
	if (!link_admit_message(packet))
		return 0;
	counter_add(COUNTER_RESPONSES_LIMITED, 1);
	return 1;
}

/* Whose sender names itself as the target claims the address: that is for the daemon to hear (RFC 5227, 2.4). */
static __always_inline __must_check int handle_arp(struct __sk_buff *skb, struct packet *packet)
{
	struct arp_packet arp;

	if (arp_read(skb, &arp) || arp.operation != bpf_htons(ARPOP_REQUEST))
		return ACTION_PASS;

	struct address sender = address_from_bytes(arp.sender);
	struct address target = address_from_bytes(arp.target);
	const struct announced *announced = announced_find(packet->generation_slot, packet->ifindex, &target);

	if (!announced || address_equals(&sender, &target) || address_is_multicast(&sender) ||
	    is_limited(packet))
		return ACTION_PASS;
	return neighbour_reply(skb, packet, &arp, announced->mac);
}

/* RFC 4861, 7.1.1, but for the checksum: the frame's own covers the link that the message can't have left. */
static __always_inline int is_valid_solicitation(const struct ipv6hdr *ip, const struct icmp6hdr *icmp)
{
	struct address source = address_from_ipv6(&ip->saddr);
	struct address destination = address_from_ipv6(&ip->daddr);

	if (ip->version != 6 || ip->hop_limit != ND_HOP_LIMIT || icmp->icmp6_code ||
	    bpf_ntohs(ip->payload_len) < sizeof(*icmp) + sizeof(struct address))
		return 0;
	if (address_is_unspecified(&source))
		return address_is_multicast(&destination);
	return !address_is_mapped(&source) && !address_is_multicast(&source) && !address_is_loopback(&source);
}

static __always_inline __must_check int handle_solicitation(struct __sk_buff *skb, struct packet *packet)
{
	struct address target;
	struct icmp6hdr icmp;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &icmp, sizeof(icmp)) ||
	    nd_read_target(skb, ETH_HLEN + sizeof(ip), &target) || !is_valid_solicitation(&ip, &icmp))
		return ACTION_PASS;

	struct address asker = address_from_ipv6(&ip.saddr);
	const struct announced *announced = announced_find(packet->generation_slot, packet->ifindex, &target);

	if (!announced || address_equals(&asker, &target) || is_limited(packet))
		return ACTION_PASS;
	return neighbour_advertise(skb, packet, &asker, &target, announced->mac);
}

SEC("tc")
int tail_announce(struct __sk_buff *skb)
{
	struct packet *packet = packet_record();
	int result;

	if (!packet)
		return HOOK_NEXT;
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		result = handle_arp(skb, packet);
	else
		result = handle_solicitation(skb, packet);
	if (result == ACTION_DROP)
		result = -REASON_INVALID_PACKET; /* a response that could not be built */
	return step_finish(skb, packet, result, STEP_COUNT);
}
