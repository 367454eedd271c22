// SPDX-License-Identifier: GPL-2.0-only
/* A socket of the host asks who its peer is: the frontend that it has connected to. */
#include "lib/feature/socket_lb.h"

SEC("cgroup/getpeername4")
int dpd_sock_getpeername4(struct bpf_sock_addr *ctx)
{
	struct address address = socket_address4(ctx);
	__be16 port = ctx->user_port;

	if (socket_restore(ctx, &address, &port))
		socket_set4(ctx, &address, port);
	return SOCKET_PROCEED;
}
