# shellcheck shell=bash disable=SC2034,SC2154 # read by 'lab', whose variables and functions it uses
# The topology of one host: a node, two workloads that may talk, and one that may not.
#
#   client 10.200.0.64 ──eth0│lxc-client───┐
#                                          │
#   intruder 10.200.0.65 eth0│lxc-intruder─┤ node 10.200.0.1
#                                          │ (dpd runs here)
#   coredns 10.200.0.44 ─eth0│lxc-coredns──┘
#
# IPv6 has the same endings: fd00:200::64, ::65, ::44, and ::1. There is no bridge and no subnet:
# each workload has its own address alone and sends everything to a gateway, as behind Cilium. The
# kernel routes between them until dpd is attached, so that the lab can be tried without it.

namespaces=(node client coredns intruder)

gateway4=169.254.1.1
gateway6=fe80::1:1

topology_up() {
	netns_add node
	inside node sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	ip -n "$(netns node)" address add 10.200.0.1/32 dev lo
	ip -n "$(netns node)" address add fd00:200::1/128 dev lo nodad

	workload client 64
	workload coredns 44
	workload intruder 65

	# What a workload asks by itself is the service's address.
	printf 'nameserver 10.32.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n' \
		>"$dir/resolv.conf"
	dns_server_start coredns 10.200.0.44 fd00:200::44
}

# workload NAME ENDING: its namespace, its veth pair, and the node's routes to it.
workload() {
	local name=$1 ending=$2 node host
	node=$(netns node)
	host=lxc-$name
	netns_add "$name"
	# Made inside the node with its peer in the workload: no end ever shows in the machine's own namespace.
	ip -n "$node" link add "$host" type veth peer name eth0 netns "$(netns "$name")"

	ip -n "$node" address add "$gateway4/32" dev "$host"
	ip -n "$node" address add "$gateway6/64" dev "$host" nodad
	ip -n "$node" link set "$host" up
	ip -n "$node" route add "10.200.0.$ending/32" dev "$host" src 10.200.0.1
	ip -n "$node" route add "fd00:200::$ending/128" dev "$host" src fd00:200::1

	ip -n "$(netns "$name")" address add "10.200.0.$ending/32" dev eth0
	ip -n "$(netns "$name")" address add "fd00:200::$ending/128" dev eth0 nodad
	ip -n "$(netns "$name")" link set eth0 up
	ip -n "$(netns "$name")" route add default via "$gateway4" dev eth0 onlink src "10.200.0.$ending"
	ip -n "$(netns "$name")" route add default via "$gateway6" dev eth0 src "fd00:200::$ending"
}

topology_is_up() {
	local name
	for name in client coredns intruder; do
		ip -n "$(netns node)" -brief link show "lxc-$name" up 2>/dev/null | grep -q . || return 1
	done
	is_running knotd coredns
}

# dns_server_start NAMESPACE IPV4 IPV6: a DNS server for cluster.local; returns when it answers.
dns_server_start() {
	local name=$1 ip4=$2 ip6=$3
	cat >"$dir/knot.conf" <<-END
		server:
		    rundir: "$dir"
		    pidfile: "$dir/knot/pid"
		    listen: [ "$ip4@53", "$ip6@53" ]
		    udp-workers: 1
		    tcp-workers: 1
		    background-workers: 1
		log:
		  - target: stderr
		    any: info
		database:
		    storage: "$dir/knot"
		    journal-db-max-size: 1M
		    timer-db-max-size: 1M
		zone:
		  - domain: cluster.local
		    file: "$here/cluster.local.zone"
		    zonefile-sync: -1
		    journal-content: none
	END
	mkdir -p "$dir/knot"
	background knotd "$name" knotd -c "$dir/knot.conf"
	wait_for 20 knotd "$name" dns_server_answers "$name" "$ip4"
	wait_for 20 knotd "$name" dns_server_answers "$name" "$ip6"
}

dns_server_answers() {
	inside "$1" dig +short +time=1 +tries=1 "@$2" kubernetes.default.svc.cluster.local | grep -qx 10.32.0.1
}
