//! `[services.*]`

use super::{brief, check, problems_of};

#[test]
fn services() {
    check(&[
        (
            "no frontend",
            r#"
[services.s]
frontends = []
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:13..15 `services.s.frontends` is empty (name at least one address, as "192.0.2.1:53/udp")"#,
            ],
        ),
        (
            "neither frontends nor backends",
            "
[services.s]
",
            &[
                "1:1..13 `services.s` lacks the key `frontends` (add `frontends = [ … ]`)",
                "1:1..13 `services.s` lacks the key `backends` (add `backends = [ … ]`)",
            ],
        ),
        (
            "a frontend without a protocol",
            r#"
[services.s]
frontends = ["10.0.0.1:53"]
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:14..27 the frontend "10.0.0.1:53" lacks its protocol (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a frontend without a port",
            r#"
[services.s]
frontends = ["10.0.0.1/tcp"]
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:14..28 "10.0.0.1" lacks its port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a protocol that is nearly right",
            r#"
[services.s]
frontends = ["10.0.0.1:53/upd"]
backends = ["10.0.0.2:1"]
"#,
            &[r#"2:14..31 "upd" is not one of tcp, udp, sctp, icmp, icmpv6 (did you mean `udp`?)"#],
        ),
        (
            "icmp has no ports to translate",
            r#"
[services.s]
frontends = ["10.0.0.1:53/icmp"]
backends = ["10.0.0.2:1"]
"#,
            &[
                "2:14..32 a frontend can't be icmp (a frontend is tcp, udp or sctp; dpd itself responds to pings of a service address)",
            ],
        ),
        (
            "port 0",
            r#"
[services.s]
frontends = ["10.0.0.1:0/tcp"]
backends = ["10.0.0.2:0"]
"#,
            &[
                r#"2:14..30 "10.0.0.1:0" has port 0, which is not valid (ports are 1 to 65535)"#,
                r#"3:13..25 "10.0.0.2:0" has port 0, which is not valid (ports are 1 to 65535)"#,
            ],
        ),
        (
            "a port that is too large",
            r#"
[services.s]
frontends = ["10.0.0.1:65536/tcp"]
backends = ["10.0.0.2:1"]
"#,
            &[
                r#"2:14..34 "10.0.0.1:65536" is no address with a port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "IPv6 without brackets",
            r#"
[services.s]
frontends = ["2001:db8::1:53/udp"]
backends = ["[2001:db8::2]:53"]
"#,
            &[
                r#"2:14..34 "2001:db8::1:53" lacks its port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a zone",
            r#"
[services.s]
frontends = ["[2001:db8::1%2]:53/udp"]
backends = ["[2001:db8::2]:53"]
"#,
            &[
                r#"2:14..38 "[2001:db8::1%2]:53" is no address with a port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a v4-mapped frontend",
            r#"
[services.s]
frontends = ["[::ffff:10.0.0.1]:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &["2:14..40 ::ffff:10.0.0.1 is an IPv4 address written as IPv6 (write 10.0.0.1)"],
        ),
        (
            "a host's name",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["dns.example:53"]
"#,
            &[
                r#"3:13..29 "dns.example:53" is no address with a port (write it as 192.0.2.1:53 or [2001:db8::1]:53)"#,
            ],
        ),
        (
            "a backend with a protocol",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53/udp"]
"#,
            &[
                r#"3:13..30 the backend "10.0.0.2:53/udp" can't have a protocol (the frontends name the protocol: remove "/udp")"#,
            ],
        ),
        (
            "a frontend twice in a service",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp", "10.0.0.1:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &[
                "2:33..50 the frontend 10.0.0.1:53/udp already belongs to `s` [2:14 first given here] (a frontend belongs to one service: remove one of the two)",
            ],
        ),
        (
            "a frontend of two services",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53"]
[services.t]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &[
                "5:14..31 the frontend 10.0.0.1:53/udp already belongs to `s` [2:14 first given here] (a frontend belongs to one service: remove one of the two)",
            ],
        ),
        (
            "a backend twice",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = ["10.0.0.2:53", { address = "10.0.0.2:53", weight = 2 }]
"#,
            &[
                "3:40..53 the backend 10.0.0.2:53 is given twice [3:13 first given here] (to give a backend more connections, raise its `weight`)",
            ],
        ),
        (
            "a backend without its address",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ weight = 2 }]
"#,
            &[
                r#"3:13..27 `services.s.backends[0]` lacks the key `address` or `identity` (add `address = "ADDRESS:PORT"`, or `identity = "NAME"` and `port = …`)"#,
            ],
        ),
        (
            "a weight that is too large",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ address = "10.0.0.2:53", weight = 65536 }]
"#,
            &["3:49..54 `services.s.backends[0].weight` must be 0 to 65535, not 65536"],
        ),
        (
            "a state that is nearly right",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ address = "10.0.0.2:53", state = "drainig" }]
"#,
            &[
                r#"3:48..57 "drainig" is not one of active, draining, maintenance (did you mean `draining`?)"#,
            ],
        ),
        (
            "an unknown key of a backend",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ address = "10.0.0.2:53", wieght = 1 }]
"#,
            &["3:40..46 `services.s.backends[0]` has no key `wieght` (did you mean `weight`?)"],
        ),
        (
            "a backend that is a number",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [53]
"#,
            &[
                "3:13..15 `services.s.backends[0]` is a whole number here, but takes a string or a table",
            ],
        ),
        (
            "a frontend whose family has no backend",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp", "[2001:db8::1]:53/udp"]
backends = ["10.0.0.2:53"]
"#,
            &[
                "2:33..55 no backend of this service is IPv6, but this frontend is (add an IPv6 backend, or remove the frontend)",
            ],
        ),
        (
            "sctp keeps its ports",
            r#"
[services.s]
frontends = ["10.0.0.1:80/sctp"]
backends = ["10.0.0.2:8080"]
"#,
            &[
                "3:13..28 the backend of an sctp frontend must have the frontend's port, 80 [2:14 the frontend] (dpd does not translate ports of sctp)",
            ],
        ),
        (
            "a service at an endpoint's address",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.0/24"]
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.1.0.2:80"]
"#,
            &[
                "9:14..31 the service address 10.0.0.1 belongs to the endpoint `e0` [7:14 the endpoint's] (give the service an address that no workload has)",
            ],
        ),
        (
            "a service behind a service",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
[services.t]
frontends = ["10.0.0.9:81/tcp"]
backends = [{ address = "10.0.0.1:80" }]
"#,
            &[
                "3:13..26 the backend's address 10.0.0.9 belongs to a service [5:14 the service's] (name the workload's own address)",
                "6:25..38 the backend's address 10.0.0.1 belongs to a service [2:14 the service's] (name the workload's own address)",
            ],
        ),
        (
            "an unknown algorithm",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
algorithm = "round-robin"
"#,
            &[r#"4:13..26 "round-robin" is not one of random, maglev"#],
        ),
        (
            "a size that no table has",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
algorithm = "maglev"
table_size = 1000
"#,
            &[
                "5:14..18 `services.s.table_size` must be 0 or one of 251, 509, 1021, 2039, 4093, 8191, 16381, 65521, not \
                 1000 (omit the key for a size by the number of backends)",
            ],
        ),
        (
            "a negative size",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
algorithm = "maglev"
table_size = -251
"#,
            &[
                "5:14..18 `services.s.table_size` must be 0 or one of 251, 509, 1021, 2039, 4093, 8191, 16381, 65521, not \
                 -251 (omit the key for a size by the number of backends)",
            ],
        ),
        (
            "a size that is no number",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
algorithm = "maglev"
table_size = "large"
"#,
            &["5:14..21 `services.s.table_size` is a string here, but takes a whole number"],
        ),
        (
            "a size of a service that picks at random",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
table_size = 1021
[services.t]
frontends = ["10.0.0.2:80/tcp"]
backends = ["10.0.0.9:80"]
algorithm = "random"
table_size = 1021
[services.u]
frontends = ["10.0.0.3:80/tcp"]
backends = ["10.0.0.9:80"]
table_size = 0
"#,
            &[
                r#"4:14..18 `services.s.table_size` needs `algorithm = "maglev"` (add the key, or remove this one: a random pick needs no such table)"#,
                r#"9:14..18 `services.t.table_size` needs `algorithm = "maglev"` (add the key, or remove this one: a random pick needs no such table)"#,
            ],
        ),
        (
            "an unknown algorithm with a size",
            r#"
[services.s]
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.9:80"]
algorithm = "maglov"
table_size = 1021
"#,
            &[r#"4:13..21 "maglov" is not one of random, maglev (did you mean `maglev`?)"#],
        ),
        (
            "a name with a quote",
            r#"
[services.'a"b']
frontends = ["10.0.0.1:80/tcp"]
backends = ["10.0.0.2:80"]
"#,
            &[
                r#"1:11..16 the name "a\"b" has '"' in it (spaces, quotes, backslashes and control characters are not allowed here)"#,
            ],
        ),
    ]);
}

#[test]
fn backends_by_identity() {
    check(&[
        (
            "a name that is nearly right, a reserved one, and one of nobody",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ identity = "wbe", port = 1 }, { identity = "world", port = 1 }, { identity = "other", port = 1 }]
[identities.web]
id = 300
"#,
            &[
                r#"3:26..31 there is no identity "wbe" (did you mean `web`?)"#,
                "3:58..65 `world` can only be a peer of a rule (name one of the file's own identities here)",
                r#"3:92..99 there is no identity "other" (add a table [identities.other])"#,
            ],
        ),
        (
            "keys that do not fit together",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ identity = "web" }, { port = 1 }, { address = "10.0.0.2:1", port = 1 }, { address = "10.0.0.2:1", identity = "web" }, { identity = "web", port = 0 }]
[identities.web]
id = 300
"#,
            &[
                "3:13..33 `services.s.backends[0]` lacks the key `port` (add `port = …`: the workloads' port)",
                r#"3:35..47 `services.s.backends[1]` lacks the key `address` or `identity` (add `address = "ADDRESS:PORT"`, or `identity = "NAME"` and `port = …`)"#,
                "3:75..79 `services.s.backends[2]` has an address, which has its port, and can't have the key `port` (remove it: `port` is for backends by `identity`)",
                "3:113..121 `services.s.backends[3]` has an address and an identity (an address is one backend, an identity stands for all its workloads: remove one of the two)",
                "3:160..161 `services.s.backends[4].port` must be 1 to 65535, not 0",
            ],
        ),
        (
            "an identity twice with one port",
            r#"
[services.s]
frontends = ["10.0.0.1:53/udp"]
backends = [{ identity = "web", port = 1 }, { identity = "web", port = 2 }, { identity = "web", port = 1, weight = 3 }]
[identities.web]
id = 300
"#,
            &[
                "3:90..95 the identity `web` with port 1 is given twice [3:26 first given here] (to give a backend more connections, raise its `weight`)",
            ],
        ),
        (
            "sctp keeps its ports",
            r#"
[services.s]
frontends = ["10.0.0.1:80/sctp"]
backends = [{ identity = "web", port = 8080 }, { identity = "web", port = 80 }]
[identities.web]
id = 300
"#,
            &[
                "3:26..31 the backend of an sctp frontend must have the frontend's port, 80 [2:14 the frontend] (dpd does not translate ports of sctp)",
            ],
        ),
        (
            "a node port at an address of this node: it answers in both families",
            r#"
[services.s]
frontends = ["node:8443/tcp"]
backends = [{ identity = "web", port = 1 }]
external = true
[services.t]
frontends = ["[2001:db8::1]:8443/tcp"]
backends = ["[fd00::2]:1"]
[node]
addresses = ["2001:db8::1"]
[identities.web]
id = 300
[interfaces.e]
role = "uplink"
"#,
            &[
                "6:14..38 the frontend [2001:db8::1]:8443/tcp already belongs to `s`: it is node:8443/tcp at an address of this node [2:14 the node port] (a frontend belongs to one service: remove one of the two)",
            ],
        ),
    ]);
}

#[test]
fn services_for_the_network() {
    check(&[
        (
            "node without a port",
            r#"
[services.s]
frontends = ["node", "node/tcp", "node:/tcp", "node:8443", "node:0/tcp", "node:70000/tcp", "node:1-2/tcp", "node:8/icmp", "nodes:1/tcp", "node-a:1/tcp"]
backends = ["10.0.0.2:1"]
external = true
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"2:14..20 the frontend "node" lacks its protocol (write it as node:8443/tcp)"#,
                r#"2:22..32 the frontend "node/tcp" lacks its port (write it as node:8443/tcp)"#,
                r#"2:34..45 "" in "node:/tcp" is no port (ports are 1 to 65535, as in 53/udp or 8000-8080/tcp)"#,
                r#"2:47..58 the frontend "node:8443" lacks its protocol (write it as node:8443/tcp)"#,
                r#"2:60..72 "0" in "node:0/tcp" is no port (ports are 1 to 65535, as in 53/udp or 8000-8080/tcp)"#,
                r#"2:74..90 "70000" in "node:70000/tcp" is no port (ports are 1 to 65535, as in 53/udp or 8000-8080/tcp)"#,
                r#"2:92..106 "1-2" in "node:1-2/tcp" is no port (ports are 1 to 65535, as in 53/udp or 8000-8080/tcp)"#,
                r#"2:108..121 a frontend can't be icmp (a frontend is tcp, udp or sctp; dpd itself responds to pings of a service address)"#,
                r#"2:123..136 "nodes:1" is no address with a port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
                r#"2:138..152 "node-a:1" is no address with a port (write it as 192.0.2.1:53/udp or [2001:db8::1]:53/udp)"#,
            ],
        ),
        (
            "a node port of a service for workloads alone",
            r#"
[services.s]
frontends = ["node:8443/tcp"]
backends = ["10.0.0.2:1"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"2:14..29 node:8443/tcp needs `external = true` (add the key, or name an address that workloads reach the service at)"#,
            ],
        ),
        (
            "a node port without a backend",
            r#"
[services.s]
frontends = ["node:8443/tcp"]
backends = []
external = true
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"2:14..29 node:8443/tcp needs a backend: it answers in the backends' families (add a backend, or remove the frontend)"#,
            ],
        ),
        (
            "a node port twice",
            r#"
[services.s]
frontends = ["node:8443/tcp"]
backends = ["10.0.0.2:1"]
external = true
[services.t]
frontends = ["node:8443/udp", "node:8443/tcp"]
backends = ["10.0.0.2:1"]
external = true
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"6:31..46 the frontend node:8443/tcp already belongs to `s` [2:14 first given here] (a frontend belongs to one service: remove one of the two)"#,
            ],
        ),
        (
            "a node port at an address of this node",
            r#"
[services.s]
frontends = ["node:8443/tcp"]
backends = ["10.0.0.2:1"]
external = true
[services.t]
frontends = ["192.0.2.1:8443/udp", "192.0.2.1:8443/tcp", "192.0.2.9:8443/tcp"]
backends = ["10.0.0.2:1"]
[node]
addresses = ["192.0.2.1"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"6:36..56 the frontend 192.0.2.1:8443/tcp already belongs to `s`: it is node:8443/tcp at an address of this node [2:14 the node port] (a frontend belongs to one service: remove one of the two)"#,
            ],
        ),
        (
            "a node port at an address of this node, of a family that it does not answer in",
            r#"
[services.s]
frontends = ["node:8443/tcp"]
backends = ["10.0.0.2:1"]
external = true
[services.t]
frontends = ["[2001:db8::1]:8443/tcp", "192.0.2.1:8443/tcp"]
backends = ["[fd00::2]:1", "10.0.0.2:1"]
[node]
addresses = ["192.0.2.1", "2001:db8::1"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"6:40..60 the frontend 192.0.2.1:8443/tcp already belongs to `s`: it is node:8443/tcp at an address of this node [2:14 the node port] (a frontend belongs to one service: remove one of the two)"#,
            ],
        ),
        (
            "what needs `external` is not reported if that is wrong",
            r#"
[services.s]
frontends = ["node:8443/tcp"]
backends = ["10.0.0.2:1"]
external = "yes"
sources = ["192.0.2.0/24"]
[interfaces.e]
role = "uplink"
"#,
            &[r#"4:12..17 `services.s.external` is a string here, but takes true or false"#],
        ),
        (
            "sctp keeps a node port",
            r#"
[services.s]
frontends = ["node:80/sctp"]
backends = ["10.0.0.2:80", "[fd00::2]:8080"]
external = true
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"3:28..44 the backend of an sctp frontend must have the frontend's port, 80 [2:14 the frontend] (dpd does not translate ports of sctp)"#,
            ],
        ),
        (
            "sources of a service for workloads alone",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
sources = ["192.0.2.0/24"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"4:1..8 `services.s.sources` needs `external = true` (it concerns the network alone: for workloads, write a policy of the backends)"#,
            ],
        ),
        (
            "no source",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
external = true
sources = []
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"5:11..13 `services.s.sources` is empty (without the key everybody may reach the service)"#,
            ],
        ),
        (
            "sources that are no prefixes, or given twice",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
external = true
sources = ["192.0.2.1/24", "office", "192.0.2.0/24", "192.0.2.0/24"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"5:12..26 "192.0.2.1/24" has host bits set (the prefix is 192.0.2.0/24)"#,
                r#"5:28..36 "office" is no prefix (write it as 192.0.2.0/24 or 2001:db8::/64)"#,
                r#"5:54..68 192.0.2.0/24 is given twice [5:38 first given here]"#,
            ],
        ),
        (
            "a source of a family that no frontend has",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
external = true
sources = ["192.0.2.0/24", "2001:db8::/32"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"5:28..43 no frontend of this service is IPv6, but this source is (remove it, or add an IPv6 frontend)"#,
            ],
        ),
        (
            "a source of a family in which a node port does not answer",
            r#"
[services.s]
frontends = ["node:1/tcp"]
backends = ["[fd00::2]:1"]
external = true
sources = ["192.0.2.0/24", "2001:db8::/32"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"5:12..26 no frontend of this service is IPv4, but this source is (remove it, or add an IPv4 frontend)"#,
            ],
        ),
        (
            "an unknown locality, and a way back",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
external = true
locality = "zone"
remote = "tunnel"
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"5:12..18 "zone" is not one of any, prefer, only"#,
                r#"6:10..18 "tunnel" is not one of snat, dsr"#,
            ],
        ),
        (
            "a frontend at another node's address",
            r#"
[services.s]
frontends = ["192.0.2.2:1/tcp"]
backends = ["10.0.0.2:1"]
external = true
[nodes.b]
addresses = ["192.0.2.2"]
[interfaces.e]
role = "uplink"
"#,
            &[
                r#"6:14..25 192.0.2.2 of the node `b` belongs to the service `s` [2:14 the service's] (name addresses that the other host alone has)"#,
            ],
        ),
    ]);
}

#[test]
fn a_maglev_table_has_room_for_all_backends() {
    let problems = |addresses: &[String], key: &str| {
        let addresses = addresses.join("\", \"");
        let text = format!(
            "[services.s]\nalgorithm = \"maglev\"\nfrontends = [\"10.0.0.1:80/tcp\", \"[fd00::1]:80/tcp\"]\n{key}\n\
             backends = [\"{addresses}\"]\n"
        );
        problems_of(&text).0.iter().map(brief).collect::<Vec<_>>()
    };
    let v4 = |count: u32| (1..=count).map(|n| format!("10.1.{}.{}:80", n / 256, n % 256));
    let v6 = |count: u32| (1..=count).map(|n| format!("[fd00:1::{n:x}]:80"));
    let mixed: Vec<String> = v4(251).chain(v6(510)).collect();
    assert_eq!(
        problems(&mixed, "table_size = 509"),
        [
            "4:14..17 `services.s` has 510 IPv6 backends, more than a Maglev table of 509 columns has room for (use 1021 or \
             more, or omit the key)"
        ]
    );
    let of_workload: Vec<String> = (1..=252).map(|n| format!("10.1.0.{n}")).collect();
    let of_workload = of_workload.join("\", \"");
    let text = format!(
        "[services.s]\nalgorithm = \"maglev\"\nfrontends = [\"10.0.0.1:80/tcp\"]\ntable_size = 251\n\
         backends = [{{ identity = \"web\", port = 80 }}]\n[identities.web]\nid = 300\n\
         [interfaces.e]\nrole = \"endpoint\"\nidentity = \"web\"\naddresses = [\"{of_workload}\"]\n"
    );
    let by_identity: Vec<_> = problems_of(&text).0.iter().map(brief).collect();
    assert_eq!(
        by_identity,
        [
            "4:14..17 `services.s` has 252 IPv4 backends, more than a Maglev table of 251 columns has room for (use 509 or \
             more, or omit the key)"
        ]
    );
    let many: Vec<String> = v4(65_522).chain(v6(1)).collect();
    for (key, place) in [("", "1:11..12"), ("table_size = 65521", "4:14..19")] {
        let expected = format!(
            "{place} `services.s` has 65522 IPv4 backends, more than a Maglev table of 65521 columns has room for (use \
             `algorithm = \"random\"`, or several services)"
        );
        assert_eq!(problems(&many, key), [expected], "{key}");
    }
}
