# shellcheck shell=bash disable=SC2015,SC2034,SC2154 # read by 'lab', whose variables and functions it uses
# The topology of two hosts with a router between them, and one more host behind it.
#
#   client    10.200.0.64 ─┐
#   intruder  10.200.0.65 ─┤ node-a
#   coredns-a 10.200.0.44 ─┘ 192.0.2.1 uplink0 ────── to-node-a ┐
#                                                               │
#                                          world 203.0.113.9 ── ┤ router (.254 of each network)
#                                                               │
#   client-b  10.200.1.64 ─┐                                    │
#   coredns   10.200.1.44 ─┤ node-b                             │
#                          └ 198.51.100.2 uplink0 ─── to-node-b ┘
#
# IPv6 has the same suffixes: fd00:200::64, ::65, ::44 on node-a, fd00:201::64 and ::44 on node-b; the
# networks of the router are 2001:db8:1::/64, 2001:db8:2::/64 and 2001:db8:3::/64. The router has routes
# to the workloads of each node; a dpd runs on each node. It has no routes to service addresses.
#
# LAB_MTU is the MTU of the router's routes to both nodes, not of the links: only the router finds a packet too
# large, and sends an ICMP error. Above 1500 it is the MTU of every link.

nodes=(node-a node-b)
workloads=(client intruder coredns-a client-b coredns)
namespaces=("${nodes[@]}" router world "${workloads[@]}")
declare -A example=([node-a]=examples/two-hosts/node-a.toml [node-b]=examples/two-hosts/node-b.toml)

declare -A address4=(
	[node-a]=192.0.2.1 [node-b]=198.51.100.2 [world]=203.0.113.9
	[client]=10.200.0.64 [intruder]=10.200.0.65 [coredns-a]=10.200.0.44
	[client-b]=10.200.1.64 [coredns]=10.200.1.44
)
declare -A address6=(
	[node-a]=2001:db8:1::1 [node-b]=2001:db8:2::2 [world]=2001:db8:3::9
	[client]=fd00:200::64 [intruder]=fd00:200::65 [coredns-a]=fd00:200::44
	[client-b]=fd00:201::64 [coredns]=fd00:201::44
)

mtu=${LAB_MTU:-1500}

# hosts_up: both hosts, the router and the world, without workloads.
hosts_up() {
	[[ $mtu =~ ^[1-9][0-9]{3}$ ]] && ((mtu >= 1280 && mtu <= 9000)) || # IPv6 needs 1280
		die "LAB_MTU='$mtu': the router's MTU is 1280 to 9000 bytes"

	node_add router
	node_add node-a
	node_add node-b
	netns_add world

	router_link node-a uplink0 "$mtu"
	router_link node-b uplink0 "$mtu"
	router_link world eth0 1500
	workload_prefixes node-a node-b 10.200.1.0/24 fd00:201::/64
	workload_prefixes node-b node-a 10.200.0.0/24 fd00:200::/64
}

topology_up() {
	hosts_up
	workload node-a client
	workload node-a intruder
	workload node-a coredns-a
	workload node-b client-b
	workload node-b coredns
	((mtu <= 1500)) || widen_links

	resolver_is_the_service
	dns_server_start coredns
	dns_server_start coredns-a
}

topology_is_up() {
	hosts_are_up && links_are_up node-a lxc-client lxc-intruder lxc-coredns-a &&
		links_are_up node-b lxc-client-b lxc-coredns &&
		dns_server_is_running coredns && dns_server_is_running coredns-a
}

hosts_are_up() {
	links_are_up node-a uplink0 && links_are_up node-b uplink0 &&
		links_are_up router to-node-a to-node-b to-world
}

# router_link HOST INTERFACE MTU: a host's link to the router, and its default route.
router_link() {
	local name=$1 interface=$2 mtu=$3 host router
	local own4=${address4[$1]} own6=${address6[$1]}
	local net4=${own4%.*} net6=${own6%::*}
	host=$(netns "$name") router=$(netns router)
	ip -n "$router" link add "to-$name" type veth peer name "$interface" netns "$host"

	ip -n "$host" address add "$own4/24" dev "$interface"
	ip -n "$host" address add "$own6/64" dev "$interface" nodad
	ip -n "$host" link set "$interface" up
	ip -n "$host" route add default via "$net4.254"

	# The router's own routes to the link have the MTU, instead of the kernel's routes of an address.
	ip -n "$router" address add "$net4.254/24" dev "to-$name" noprefixroute
	ip -n "$router" address add "$net6::254/64" dev "to-$name" noprefixroute nodad
	ip -n "$router" link set "to-$name" up
	ip -n "$router" route add "$net4.0/24" dev "to-$name" src "$net4.254" mtu lock "$mtu"
	ip -n "$router" route add "$net6::/64" dev "to-$name" mtu lock "$mtu"

	ip -n "$host" route add default via "$net6::254" dev "$interface"
}

# widen_links: every link but the loopback ones, on both of its sides, gets the MTU.
widen_links() {
	local name link
	for name in "${namespaces[@]}"; do
		for link in $(ip -n "$(netns "$name")" -brief link show type veth | sed 's/[@ ].*//'); do
			ip -n "$(netns "$name")" link set "$link" mtu "$mtu"
		done
	done
}

# workload_prefixes NODE OTHER IPV4 IPV6: how NODE and the router reach the workloads behind OTHER.
workload_prefixes() {
	local node=$1 other=$2 prefix via
	for prefix in "$3" "$4"; do
		via=${address4[$node]%.*}.254
		[[ $prefix != *:* ]] || via=${address6[$node]%::*}::254
		ip -n "$(netns "$node")" route add "$prefix" via "$via" dev uplink0

		via=${address4[$other]}
		[[ $prefix != *:* ]] || via=${address6[$other]}
		ip -n "$(netns router)" route add "$prefix" via "$via" dev "to-$other" mtu lock "$mtu"
	done
}
