# shellcheck shell=bash disable=SC1091,SC2034,SC2154 # read by 'lab', whose variables and functions it uses
# The topology of two hosts that publish a web server on each, and of one in the world. The hosts, the router and the world are
# those of two-hosts.sh.
#
#   client 10.200.0.64 ─┐
#   web-a  10.200.0.80 ─┤ node-a
#                       └ 192.0.2.1 uplink0 ───────── to-node-a ┐
#                                                               │
#                              world 203.0.113.9, a web server ─┤ router
#                                                               │
#   web-b  10.200.1.80 ─┐ node-b                                │
#                       └ 198.51.100.2 uplink0 ────── to-node-b ┘
#
# IPv6 has the same suffixes: fd00:200::64 and ::80 on node-a, fd00:201::80 on node-b. The router has routes of the published
# service's addresses, 192.0.2.80 and 2001:db8:1::80, to node-a. A web server's page has its name and the client's address.

. "$here/two-hosts.sh"

workloads=(client web-a web-b)
namespaces=("${nodes[@]}" router world "${workloads[@]}")
example=([node-a]=netns-lab/north-south/node-a.toml [node-b]=netns-lab/north-south/node-b.toml)
address4+=([web-a]=10.200.0.80 [web-b]=10.200.1.80)
address6+=([web-a]=fd00:200::80 [web-b]=fd00:201::80)

web_servers=(web-a web-b world)

topology_up() {
	local name
	hosts_up
	workload node-a client
	workload node-a web-a
	workload node-b web-b
	((mtu <= 1500)) || widen_links

	ip -n "$(netns router)" route add 192.0.2.80 via "${address4[node-a]}"
	ip -n "$(netns router)" route add 2001:db8:1::80 via "${address6[node-a]}"
	: >"$dir/resolv.conf" # no workload resolves names here
	for name in "${web_servers[@]}"; do
		web_server_start "$name"
	done
}

topology_is_up() {
	local name
	for name in "${web_servers[@]}"; do
		is_running "nginx-$name" "$name" || return 1
	done
	hosts_are_up && links_are_up node-a lxc-client lxc-web-a && links_are_up node-b lxc-web-b
}
