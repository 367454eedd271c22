// SPDX-License-Identifier: GPL-2.0-only
/*
 * A socket of the host connects to an IPv4 address: TCP, or UDP with one peer. To a frontend it becomes connected to
 * a backend.
 */
#include "lib/feature/socket_lb.h"

SEC("cgroup/connect4")
int dpd_sock_connect4(struct bpf_sock_addr *ctx)
{
	struct socket_call call = socket_call(ctx, socket_address4(ctx));

	if (socket_connect(ctx, &call) == SOCKET_REFUSE)
		return SOCKET_REFUSE;
	if (call.is_translated)
		socket_set4(ctx, &call.tuple.destination, call.tuple.destination_port);
	return SOCKET_PROCEED;
}
