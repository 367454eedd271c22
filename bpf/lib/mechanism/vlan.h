/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VLAN tags with the id 0 (IEEE 802.1Q priority tags): the kernel takes such a frame for an untagged one, one tag or two, in
 * the frame or in the packet's metadata. So do we.
 */
#ifndef DPD_VLAN_H
#define DPD_VLAN_H

#include "../../kernel.h"

enum {
	VLAN_ID_MASK = 0x0fff, /* include/linux/if_vlan.h */
	VLAN_TAGS_MAX = 2, /* that are looked at */
};

/* Behind the MACs of a tagged frame's header. */
struct vlan_tag {
	__be16 tci;
	__be16 ethertype; /* of what follows */
};

static __always_inline int is_vlan_ethertype(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

static __always_inline int vlan_is_tagged(const struct __sk_buff *skb)
{
	return skb->vlan_present || is_vlan_ethertype(skb->protocol);
}

/* Removes the outer tag if its id is 0; not zero if it did. In a function of its own, so that skb is read by its fields. */
static __noinline int vlan_pop_priority(struct __sk_buff *skb)
{
	__be16 tag = 0;
	__u16 id = skb->vlan_tci;

	if (!skb->vlan_present) {
		if (!is_vlan_ethertype(skb->protocol) || bpf_skb_load_bytes(skb, ETH_HLEN, &tag, sizeof(tag)))
			return 0;
		id = bpf_ntohs(tag);
	}
	return !(id & VLAN_ID_MASK) && !bpf_skb_vlan_pop(skb);
}

/* Removes leading tags with the id 0. */
static __always_inline void vlan_untag_priority(struct __sk_buff *skb)
{
	if (vlan_pop_priority(skb))
		vlan_pop_priority(skb);
}

#endif
