# shellcheck shell=bash disable=SC2154 # uses the variables and functions of 'lab' and of the topology
# The parts of every topology: workloads behind veth pairs, and servers inside them.
#
# There is no bridge and no subnet: each workload has one address only and sends everything to a
# gateway, as with Cilium. The kernel routes between them until dpd is attached, so that a lab can
# be used without it.

gateway4=169.254.1.1
gateway6=fe80::1:1

# node_add NODE: a namespace that forwards.
node_add() {
	netns_add "$1"
	inside "$1" sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# workload NODE NAME: its namespace, and its link.
workload() {
	netns_add "$2"
	link_add "$1" "$2"
}

# link_add NODE NAME: the workload's veth pair, and the node's routes to it.
link_add() {
	local node name=$2 host=lxc-$2 own4=${address4[$1]} own6=${address6[$1]}
	node=$(netns "$1")
	# Created inside the node with its peer in the workload: no end is ever in the machine's own namespace.
	ip -n "$node" link add "$host" type veth peer name eth0 netns "$(netns "$name")"

	ip -n "$node" address add "$gateway4/32" dev "$host"
	ip -n "$node" address add "$gateway6/64" dev "$host" nodad
	# Where dpd runs, it serves the link before that is up: no packet passes unjudged.
	if is_running "$(daemon_of "$1")" "$1"; then
		on_node "$1" "$dpd" endpoint wait "$host" --timeout 20s
	fi
	ip -n "$node" link set "$host" up
	ip -n "$node" route add "${address4[$name]}/32" dev "$host" src "$own4"
	ip -n "$node" route add "${address6[$name]}/128" dev "$host" src "$own6"

	ip -n "$(netns "$name")" address add "${address4[$name]}/32" dev eth0
	ip -n "$(netns "$name")" address add "${address6[$name]}/128" dev eth0 nodad
	ip -n "$(netns "$name")" link set eth0 up
	ip -n "$(netns "$name")" route add default via "$gateway4" dev eth0 onlink src "${address4[$name]}"
	ip -n "$(netns "$name")" route add default via "$gateway6" dev eth0 src "${address6[$name]}"
}

# links_are_up NAMESPACE LINK…
links_are_up() {
	local name=$1 link
	shift
	for link in "$@"; do
		ip -n "$(netns "$name")" -brief link show "$link" up 2>/dev/null | grep -q . || return 1
	done
}

# A workload's resolver is the service's address.
resolver_is_the_service() {
	printf 'nameserver 10.32.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n' \
		>"$dir/resolv.conf"
}

# A server's program has its workload's suffix: knotd runs in `coredns`, knotd-a in `coredns-a`.
dns_server_of() { echo "knotd${1#coredns}"; }

# dns_server_start NAME: a DNS server for cluster.local in the workload; returns when it replies.
# To a query for id.server, class CH, it returns the workload's name.
dns_server_start() {
	local name=$1 program
	program=$(dns_server_of "$name")
	cat >"$dir/$program.conf" <<-END
		server:
		    identity: "$name"
		    rundir: "$dir"
		    pidfile: "$dir/$program/pid"
		    listen: [ "${address4[$name]}@53", "${address6[$name]}@53" ]
		    udp-workers: 1
		    tcp-workers: 1
		    background-workers: 1
		log:
		  - target: stderr
		    any: info
		database:
		    storage: "$dir/$program"
		    journal-db-max-size: 1M
		    timer-db-max-size: 1M
		zone:
		  - domain: cluster.local
		    file: "$here/cluster.local.zone"
		    zonefile-sync: -1
		    journal-content: none
	END
	mkdir -p "$dir/$program"
	background "$program" "$name" knotd -c "$dir/$program.conf"
	wait_for 20 "$program" "$name" dns_server_answers "$name" "${address4[$name]}"
	wait_for 20 "$program" "$name" dns_server_answers "$name" "${address6[$name]}"
}

dns_server_answers() {
	inside "$1" dig +short +time=1 +tries=1 "@$2" kubernetes.default.svc.cluster.local | grep -qx 10.32.0.1
}

dns_server_is_running() { is_running "$(dns_server_of "$1")" "$1"; }

# web_server_start NAME: a web server at port 80; returns when it replies. Its page has its name, and the client's address.
web_server_start() {
	local name=$1 folder=$dir/nginx-$1
	mkdir -p "$folder"
	cat >"$folder/nginx.conf" <<-END
		daemon off;
		user root;
		worker_processes 1;
		pid $folder/pid;
		error_log stderr;
		events { worker_connections 64; }
		http {
		    access_log off;
		    server {
		        listen ${address4[$name]}:80;
		        listen [${address6[$name]}]:80;
		        return 200 "$name answers \$remote_addr\\n";
		    }
		}
	END
	background "nginx-$name" "$name" nginx -p "$folder" -e stderr -c "$folder/nginx.conf"
	wait_for 20 "nginx-$name" "$name" inside "$name" curl -sS --max-time 1 "http://${address4[$name]}/"
}
