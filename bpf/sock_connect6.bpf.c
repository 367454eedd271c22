// SPDX-License-Identifier: GPL-2.0-only
/* As dpd_sock_connect4, for an IPv6 address, and for an IPv4 address that an IPv6 socket connects to. */
#include "lib/feature/socket_lb.h"

SEC("cgroup/connect6")
int dpd_sock_connect6(struct bpf_sock_addr *ctx)
{
	struct socket_call call = socket_call(ctx, socket_address6(ctx));

	if (socket_connect(ctx, &call) == SOCKET_REFUSE)
		return SOCKET_REFUSE;
	if (call.is_translated)
		socket_set6(ctx, &call.tuple.destination, call.tuple.destination_port);
	return SOCKET_PROCEED;
}
