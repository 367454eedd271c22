// SPDX-License-Identifier: GPL-2.0-only
/* As dpd_sock_sendmsg4, for an IPv6 address. */
#include "lib/feature/socket_lb.h"

SEC("cgroup/sendmsg6")
int dpd_sock_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct socket_call call = socket_call(ctx, socket_address6(ctx));

	if (socket_send(ctx, &call) == SOCKET_REFUSE)
		return SOCKET_REFUSE;
	if (call.is_translated)
		socket_set6(ctx, &call.tuple.destination, call.tuple.destination_port);
	return SOCKET_PROCEED;
}
