/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hooks, a row each: all that a step needs to know of the hook that its packet arrived at. A new hook is a row here,
 * the same row in src/bpf/attach/hook.rs (a test holds the two equal), and a program of its name.
 */
#ifndef DPD_HOOK_H
#define DPD_HOOK_H

#include "../../abi.h"

/*
 * What a program of a tc hook returns to let the kernel carry on: TC_ACT_UNSPEC, which is TCX_NEXT. TC_ACT_OK would end the
 * list of programs on the hook, and what stands behind ours would not see the packet.
 */
enum { HOOK_NEXT = -1 };

enum hook_flags {
	HOOK_PASSES_ON = 1, /* a delivered packet continues to the interface that it is at */
	HOOK_FAILS_OPEN = 2, /* a packet whose next step is missing passes; else it is dropped */
};

/* Eight bytes, which the compiler folds into constants where the hook is one. */
struct hook_row {
	__u8 hook; /* enum hook */
	__u8 attach_point; /* enum attach_point */
	__u8 role; /* enum interface_role: of the interfaces that have it */
	__u8 point; /* enum point: in events about packets that arrive */
	__u8 direction; /* enum direction: whose policy a packet meets first, seen from the workload */
	__u8 sender; /* enum party: who sends what arrives, by the hook alone */
	__u8 first_step; /* enum step, after parsing: STEP_LB where services answer, else STEP_CT */
	__u8 flags; /* enum hook_flags */
};

/* A macro, since the table has two homes: here, where the compiler folds it, and in export.bpf.c, where a test reads it. */
/* clang-format off */
#define HOOK_TABLE {												\
	[HOOK_FROM_CONTAINER] = { HOOK_FROM_CONTAINER, ATTACH_TC_INGRESS, ROLE_ENDPOINT, POINT_FROM_ENDPOINT,	\
				  DIRECTION_EGRESS, PARTY_ENDPOINT, STEP_LB, 0 },				\
	[HOOK_TO_CONTAINER] = { HOOK_TO_CONTAINER, ATTACH_TC_EGRESS, ROLE_ENDPOINT, POINT_TO_ENDPOINT,		\
				DIRECTION_INGRESS, PARTY_HOST, STEP_CT, HOOK_PASSES_ON },			\
	[HOOK_FROM_NETDEV] = { HOOK_FROM_NETDEV, ATTACH_TC_INGRESS, ROLE_UPLINK, POINT_FROM_NETWORK,		\
			       DIRECTION_INGRESS, PARTY_UPLINK, STEP_CT, 0 },					\
	[HOOK_TO_NETDEV] = { HOOK_TO_NETDEV, ATTACH_TC_EGRESS, ROLE_UPLINK, POINT_TO_NETWORK,			\
			     DIRECTION_EGRESS, PARTY_HOST, STEP_CT, HOOK_PASSES_ON | HOOK_FAILS_OPEN },		\
	[HOOK_XDP_ENTRY] = { HOOK_XDP_ENTRY, ATTACH_XDP, ROLE_UPLINK, POINT_XDP,				\
			     DIRECTION_INGRESS, PARTY_UPLINK, STEP_CT, HOOK_FAILS_OPEN },			\
	[HOOK_FROM_L3DEV] = { HOOK_FROM_L3DEV, ATTACH_TC_INGRESS, ROLE_UPLINK, POINT_FROM_NETWORK,		\
			      DIRECTION_INGRESS, PARTY_UPLINK, STEP_CT, 0 },					\
}
/* clang-format on */

static const struct hook_row HOOKS[HOOK_COUNT] = HOOK_TABLE;

#endif
