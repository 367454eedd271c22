// SPDX-License-Identifier: GPL-2.0-only
/* A UDP socket of the host has received: the sender that it is given is the frontend that it has sent to. */
#include "lib/feature/socket_lb.h"

SEC("cgroup/recvmsg4")
int dpd_sock_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct address address = socket_address4(ctx);
	__be16 port = ctx->user_port;

	if (socket_restore(ctx, &address, &port))
		socket_set4(ctx, &address, port);
	return SOCKET_PROCEED;
}
