// SPDX-License-Identifier: GPL-2.0-only
/* A UDP socket of the host sends to an IPv4 address without being connected, an IPv6 socket too. */
#include "lib/feature/socket_lb.h"

SEC("cgroup/sendmsg4")
int dpd_sock_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct socket_call call = socket_call(ctx, socket_address4(ctx));

	if (socket_send(ctx, &call) == SOCKET_REFUSE)
		return SOCKET_REFUSE;
	if (call.is_translated)
		socket_set4(ctx, &call.tuple.destination, call.tuple.destination_port);
	return SOCKET_PROCEED;
}
