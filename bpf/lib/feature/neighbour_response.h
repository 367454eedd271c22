/* SPDX-License-Identifier: GPL-2.0-only */
/* ARP replies and neighbour advertisements: that an address has this MAC. The results are actions. */
#ifndef DPD_NEIGHBOUR_RESPONSE_H
#define DPD_NEIGHBOUR_RESPONSE_H

#include "../mechanism/neighbour_message.h"
#include "respond.h"

/* The response to the request that was read. */
static __always_inline __must_check int neighbour_reply(struct __sk_buff *skb, const struct packet *packet,
							struct arp_packet *arp, const __u8 *mac)
{
	struct ethhdr eth;
	__u8 asked[4];

	__builtin_memcpy(asked, arp->target, 4);
	arp->operation = bpf_htons(ARPOP_REPLY);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->target, arp->sender, 4);
	__builtin_memcpy(arp->sender_mac, mac, ETH_ALEN);
	__builtin_memcpy(arp->sender, asked, 4);
	if (response_ethernet(skb, &eth))
		return ACTION_DROP;
	__builtin_memcpy(eth.h_source, mac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, arp, sizeof(*arp), 0))
		return ACTION_DROP;
	return response_send(skb, packet);
}

/* Sets who gets the advertisement: the asker, or all nodes if that has no address yet (RFC 4861, 7.2.4). */
static __always_inline void advertise_to(const struct address *asker, struct address *to,
					 struct neighbour_advertisement *advertisement, struct ethhdr *eth)
{
	__u8 *flags = (__u8 *)&advertisement->icmp.icmp6_dataun;

	*to = *asker;
	*flags = ND_FLAG_SOLICITED | ND_FLAG_OVERRIDE;
	if (!address_is_unspecified(asker))
		return;
	*to = address_all_nodes();
	*flags = ND_FLAG_OVERRIDE;
	/* RFC 2464, 7 */
	__builtin_memset(eth->h_dest, 0, ETH_ALEN);
	eth->h_dest[0] = 0x33;
	eth->h_dest[1] = 0x33;
	eth->h_dest[5] = 1;
}

/* The response to a solicitation of `asker` for `target`. */
static __always_inline __must_check int neighbour_advertise(struct __sk_buff *skb,
							    const struct packet *packet,
							    const struct address *asker,
							    const struct address *target, const __u8 *mac)
{
	struct neighbour_advertisement advertisement = {
		.icmp.icmp6_type = ND_NEIGHBOUR_ADVERTISEMENT,
		.target = *target,
		.option = ND_OPTION_TARGET,
		.option_length = 1,
	};
	struct address to;
	struct ethhdr eth;

	if (response_ethernet(skb, &eth))
		return ACTION_DROP;
	__builtin_memcpy(eth.h_source, mac, ETH_ALEN);
	__builtin_memcpy(advertisement.mac, mac, ETH_ALEN);
	advertise_to(asker, &to, &advertisement, &eth);

	__u32 sum = csum_pseudo_header(target, &to, sizeof(advertisement), IPPROTO_ICMPV6);

	advertisement.icmp.icmp6_cksum =
		~csum_fold(bpf_csum_diff(0, 0, (__be32 *)&advertisement, sizeof(advertisement), sum));

	struct ipv6hdr ip = response_ipv6(target, &to, sizeof(advertisement), IPPROTO_ICMPV6, ND_HOP_LIMIT);

	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(ip) + sizeof(advertisement), 0) ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &advertisement, sizeof(advertisement), 0))
		return ACTION_DROP;
	return response_send(skb, packet);
}

#endif
