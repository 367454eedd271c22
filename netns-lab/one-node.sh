# shellcheck shell=bash disable=SC2034,SC2154 # read by 'lab', whose variables and functions it uses
# The topology of one host: a node, two workloads that are allowed to communicate, and one that is not.
#
#   client 10.200.0.64 ──eth0│lxc-client───┐
#                                          │
#   intruder 10.200.0.65 eth0│lxc-intruder─┤ node 10.200.0.1
#                                          │ (dpd runs here)
#   coredns 10.200.0.44 ─eth0│lxc-coredns──┘
#
# IPv6 has the same suffixes: fd00:200::64, ::65, ::44, and ::1.

nodes=(node)
workloads=(client coredns intruder)
namespaces=("${nodes[@]}" "${workloads[@]}")
declare -A example=([node]=examples/config.toml)

declare -A address4=([node]=10.200.0.1 [client]=10.200.0.64 [intruder]=10.200.0.65 [coredns]=10.200.0.44)
declare -A address6=([node]=fd00:200::1 [client]=fd00:200::64 [intruder]=fd00:200::65 [coredns]=fd00:200::44)

topology_up() {
	local name
	node_add node
	ip -n "$(netns node)" address add "${address4[node]}/32" dev lo
	ip -n "$(netns node)" address add "${address6[node]}/128" dev lo nodad
	for name in "${workloads[@]}"; do
		workload node "$name"
	done
	resolver_is_the_service
	dns_server_start coredns
}

topology_is_up() {
	links_are_up node "${workloads[@]/#/lxc-}" && dns_server_is_running coredns
}
