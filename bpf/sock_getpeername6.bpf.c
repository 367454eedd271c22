// SPDX-License-Identifier: GPL-2.0-only
/* As dpd_sock_getpeername4, of an IPv6 socket, whose peer may have an IPv4 address. */
#include "lib/feature/socket_lb.h"

SEC("cgroup/getpeername6")
int dpd_sock_getpeername6(struct bpf_sock_addr *ctx)
{
	struct address address = socket_address6(ctx);
	__be16 port = ctx->user_port;

	if (socket_restore(ctx, &address, &port))
		socket_set6(ctx, &address, port);
	return SOCKET_PROCEED;
}
