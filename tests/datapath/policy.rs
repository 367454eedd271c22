//! Policy: who may speak to whom, what a change of the file does to those who already do, and audit.

use crate::common::packet::{self, Packet, echo_request, gre};
use dpd::model::conntrack::{Connection, ConntrackState};

use crate::lab::*;
use crate::walk::{Expect::*, Walk};

const POLICY: &str = r#"[policies.dns-clients]
subject = "kube-dns"
ingress = [{ from = ["client"], ports = ["53/udp", "53/tcp"] }]
"#;

/// The lab with other policies.
fn with(policies: &str) -> String {
    changed(CONFIG, POLICY, policies)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Intruder,
    Host,
}

/// Policies, and what becomes of packets to the DNS server under them; 0 is delivered.
struct Table {
    says: &'static str,
    policies: String,
    rows: Vec<(&'static str, Sender, Packet, u8)>,
}

impl Table {
    fn walk(self, family: &Family) {
        let mut walk = Walk::new(
            format!("{}, {}", family.name, self.says),
            &with(&self.policies),
        );
        for (says, sender, packet, reason) in self.rows {
            let expect = match (reason, sender) {
                (0, Sender::Host) => Passed,
                (0, _) => Delivered(DNS, packet.clone()),
                (reason, _) => Dropped(reason),
            };
            match sender {
                Sender::Client => walk.from(says, CLIENT, &packet, expect),
                Sender::Intruder => walk.from(says, INTRUDER, &packet, expect),
                Sender::Host => walk.to(says, DNS, &packet, expect),
            };
        }
        walk.end();
    }
}

/// One rule, or several, for what comes to the DNS server.
fn ingress(rules: &str) -> String {
    format!("[policies.p]\nsubject = \"kube-dns\"\ningress = [{rules}]\n")
}

#[test]
fn the_verdict_is_that_of_the_rules() {
    for family in families() {
        for table in tables(&family) {
            table.walk(&family);
        }
    }
}

fn tables(family: &Family) -> Vec<Table> {
    use Sender::*;
    let family = *family;
    let of = move |sender| match sender {
        Client => family.client,
        Intruder => family.intruder,
        Host => family.host,
    };
    let udp = move |sender, port| packet::udp(at(of(sender), 1000), at(family.dns, port));
    let syn = move |sender, port| packet::tcp(at(of(sender), 1000), at(family.dns, port)).syn();
    let sctp = move |sender, port| packet::sctp(at(of(sender), 1000), at(family.dns, port));
    let ping = move |sender| echo_request(of(sender), family.dns, 1, 1);
    let gre = move |sender| gre(of(sender), family.dns);
    let length = if family.is_v4() { 32 } else { 128 };

    vec![
        Table {
            says: "no policy at all",
            policies: String::new(),
            rows: vec![
                ("anybody", Intruder, udp(Intruder, 53), 0),
                ("any protocol", Intruder, gre(Intruder), 0),
                ("the host", Host, udp(Host, 9), 0),
            ],
        },
        Table {
            says: "one identity and two ports",
            policies: POLICY.to_owned(),
            rows: vec![
                ("the port", Client, udp(Client, 53), 0),
                ("the port by TCP", Client, syn(Client, 53), 0),
                ("the port by SCTP", Client, sctp(Client, 53), 133),
                ("the next port", Client, udp(Client, 54), 133),
                ("the port before", Client, udp(Client, 52), 133),
                ("ping", Client, ping(Client), 133),
                ("another identity", Intruder, udp(Intruder, 53), 133),
                ("the host always may", Host, udp(Host, 9), 0),
            ],
        },
        Table {
            says: "an empty list",
            policies: ingress(""),
            rows: vec![
                ("the client", Client, udp(Client, 53), 133),
                ("the host", Host, udp(Host, 53), 0),
            ],
        },
        Table {
            says: "a range of ports",
            policies: ingress(r#"{ from = ["client"], ports = ["1000-1999/udp"] }"#),
            rows: vec![
                ("below", Client, udp(Client, 999), 133),
                ("the first", Client, udp(Client, 1000), 0),
                ("between", Client, udp(Client, 1536), 0),
                ("the last", Client, udp(Client, 1999), 0),
                ("above", Client, udp(Client, 2000), 133),
                ("the other protocol", Client, syn(Client, 1500), 133),
            ],
        },
        Table {
            says: "all ports of a protocol",
            policies: ingress(&format!(r#"{{ from = ["any"], ports = ["tcp", "{}"] }}"#, family.icmp)),
            rows: vec![
                ("TCP", Client, syn(Client, 1), 0),
                ("TCP from anybody", Intruder, syn(Intruder, 65535), 0),
                ("ping", Client, ping(Client), 0),
                ("UDP", Client, udp(Client, 1), 133),
                ("GRE", Client, gre(Client), 133),
            ],
        },
        Table {
            says: "all traffic of a label",
            policies: ingress(r#"{ from = ["label:app=client"] }"#),
            rows: vec![
                ("UDP", Client, udp(Client, 9), 0),
                ("SCTP", Client, sctp(Client, 9), 0),
                ("GRE", Client, gre(Client), 0),
                ("another", Intruder, udp(Intruder, 9), 133),
            ],
        },
        Table {
            says: "deny beats allow, whatever their order",
            policies: ingress(
                r#"{ from = ["any"] }, { from = ["client"], ports = ["53/udp"], action = "deny" }"#,
            ),
            rows: vec![
                ("the denied port", Client, udp(Client, 53), 181),
                ("another port", Client, udp(Client, 54), 0),
                ("the other protocol", Client, syn(Client, 53), 0),
                ("another identity", Intruder, udp(Intruder, 53), 0),
            ],
        },
        Table {
            says: "a deny for all beats an allow for one",
            policies: ingress(
                r#"{ from = ["client"] }, { from = ["any"], ports = ["53/udp"], action = "deny" }"#,
            ),
            rows: vec![
                ("the denied port", Client, udp(Client, 53), 181),
                ("another port", Client, udp(Client, 54), 0),
                ("who is not allowed anyway", Intruder, udp(Intruder, 54), 133),
                ("the denied port, by who is not allowed", Intruder, udp(Intruder, 53), 181),
                ("the host is denied as well", Host, udp(Host, 53), 181),
                ("and else it may", Host, udp(Host, 54), 0),
            ],
        },
        Table {
            says: "denies alone leave the rest as it was",
            policies: ingress(r#"{ from = ["intruder"], action = "deny" }"#),
            rows: vec![
                ("the denied", Intruder, udp(Intruder, 53), 181),
                ("everybody else", Client, udp(Client, 53), 0),
                ("the host", Host, udp(Host, 53), 0),
            ],
        },
        Table {
            says: "a prefix",
            policies: ingress(&format!(r#"{{ from = ["cidr:{}/{length}"] }}"#, family.client)),
            rows: vec![
                ("an address in it", Client, udp(Client, 53), 0),
                ("the port next to it", Intruder, udp(Intruder, 53), 133),
            ],
        },
        Table {
            says: "a hole in a prefix",
            policies: ingress(&format!(
                r#"{{ from = ["cidr:{}"] }}, {{ from = ["cidr:{}/{length}"], action = "deny" }}"#,
                if family.is_v4() { "10.200.0.0/24" } else { "fd00:200::/64" },
                family.intruder
            )),
            rows: vec![
                ("the prefix", Client, udp(Client, 53), 0),
                ("the hole", Intruder, udp(Intruder, 53), 181),
            ],
        },
        Table {
            says: "the other family's prefix says nothing of this one",
            policies: ingress(&format!(
                r#"{{ from = ["cidr:{}"] }}"#,
                if family.is_v4() { "::/0" } else { "0.0.0.0/0" }
            )),
            rows: vec![("anybody", Client, udp(Client, 53), 133)],
        },
        Table {
            says: "what the sender may say",
            policies: "[policies.p]\nsubject = \"client\"\n\
                       egress = [{ to = [\"kube-dns\"], ports = [\"53/udp\"] }]\n"
                .to_owned(),
            rows: vec![
                ("allowed", Client, udp(Client, 53), 0),
                ("not allowed", Client, udp(Client, 54), 133),
                ("another sender", Intruder, udp(Intruder, 54), 0),
            ],
        },
        Table {
            says: "both sides are asked",
            policies: "[policies.p]\nsubject = \"client\"\negress = [{ to = [\"any\"] }]\n\
                       [policies.q]\nsubject = \"kube-dns\"\ningress = [{ from = [\"intruder\"] }]\n"
                .to_owned(),
            rows: vec![
                ("one side is not enough", Client, udp(Client, 53), 133),
                ("the other sender", Intruder, udp(Intruder, 53), 0),
            ],
        },
        Table {
            says: "rules for the host when it has no privilege",
            policies: format!("{}\n[policy]\nallow_host = false\n", ingress(r#"{ from = ["client"] }"#)),
            rows: vec![
                ("the host", Host, udp(Host, 53), 133),
                ("the client", Client, udp(Client, 53), 0),
            ],
        },
        Table {
            says: "always",
            policies: "[policy]\nenforcement = \"always\"\n".to_owned(),
            rows: vec![("nobody is allowed", Client, udp(Client, 53), 133)],
        },
        Table {
            says: "never",
            policies: format!("{}\n[policy]\nenforcement = \"never\"\n", ingress("")),
            rows: vec![("everybody is", Intruder, udp(Intruder, 53), 0)],
        },
    ]
}

#[test]
fn a_drop_names_what_decided() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.intruder, 1), at(family.dns_service, 53));
        let answer = walk.from("no rule allows it", INTRUDER, &asked, Dropped(133));
        let line =
            "dropped 133 intruder -> kube-dns (service kube-dns) no rule of ingress kube-dns";
        walk.reported("no rule", &answer, &[line]);
        let answer = walk.from("the same again", INTRUDER, &asked, Dropped(133));
        walk.reported("is counted, not reported", &answer, &[]);

        walk.end();

        let denied = with(&ingress(
            r#"{ from = ["client"] }, { from = ["intruder"], action = "deny" }"#,
        ));
        let mut walk = Walk::new(family.name, &denied);
        let answer = walk.from("a rule denies it", INTRUDER, &asked, Dropped(181));
        walk.reported(
            "the rule",
            &answer,
            &["dropped 181 intruder -> kube-dns (service kube-dns) by p/ingress/1"],
        );
        walk.end();
    }
}

#[test]
fn audit_lets_pass_and_says_so() {
    let audit = format!("{CONFIG}\n[policy]\naudit = true\n");
    for family in families() {
        let mut walk = Walk::new(family.name, &audit);
        let asked = packet::udp(at(family.intruder, 1), at(family.dns, 53));
        let answer = walk.from(
            "no rule allows it",
            INTRUDER,
            &asked,
            Delivered(DNS, asked.clone()),
        );
        walk.reported(
            "it is reported",
            &answer,
            &["to-endpoint audit intruder -> kube-dns no rule of ingress kube-dns"],
        );
        let reply = packet::udp(at(family.dns, 53), at(family.intruder, 1));
        walk.from("its reply", DNS, &reply, Delivered(INTRUDER, reply.clone()));
        walk.end();
    }
}

/// Replies of an allowed connection pass, whatever the replier's own rules say of opening one.
#[test]
fn replies_always_pass() {
    let silent = with(&format!("{POLICY}egress = []\n"));
    for family in families() {
        let mut walk = Walk::new(family.name, &silent);
        let (asked, reply) = (family.question(1), family.reply(1));
        let opened = packet::udp(at(family.dns, 53), at(family.client, 2));
        walk.from("the server opens nothing", DNS, &opened, Dropped(133));
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        walk.from(
            "the reply",
            DNS,
            &reply,
            Delivered(CLIENT, reply.clone().src(family.dns_service)),
        );
        walk.end();
    }
}

#[test]
fn a_removed_rule_cuts_what_runs_in_both_directions() {
    let closed = with("[policies.dns-clients]\nsubject = \"kube-dns\"\ningress = []\n");
    for family in families() {
        for reply_first in [false, true] {
            let place = format!(
                "{}, {}",
                family.name,
                if reply_first {
                    "reply first"
                } else {
                    "question first"
                }
            );
            let mut walk = Walk::new(place, CONFIG);
            let service = at(family.dns_service, 53);
            let syn = family.syn(3000, service);
            let syn_ack = packet::tcp(at(family.dns, 53), at(family.client, 3000))
                .syn()
                .ack();
            let out = packet::tcp(at(family.client, 3000), service)
                .ack()
                .payload(b"?");
            let back = packet::tcp(at(family.dns, 53), at(family.client, 3000))
                .ack()
                .payload(b"!");
            walk.from(
                "SYN",
                CLIENT,
                &syn,
                Delivered(DNS, syn.clone().dst(family.dns)),
            );
            walk.from(
                "SYN, ACK",
                DNS,
                &syn_ack,
                Delivered(CLIENT, syn_ack.clone().src(service)),
            );
            walk.from(
                "data",
                CLIENT,
                &out,
                Delivered(DNS, out.clone().dst(family.dns)),
            );

            walk.reload(&closed);

            if reply_first {
                walk.from("the reply is cut", DNS, &back, Dropped(133));
            }
            walk.from("the question is cut", CLIENT, &out, Dropped(133));
            walk.from("so is the reply then", DNS, &back, Dropped(133));
            let states = || {
                let connections = walk.node().connections();
                let of = |connection: &Connection| (connection.src.port(), connection.state);
                connections.iter().map(of).collect::<Vec<_>>()
            };
            let refused = vec![(3000, ConntrackState::Refused)];
            walk.check("the pair stays", states() == refused, states());

            walk.reload(CONFIG);
            walk.from(
                "with the rule new ones come in",
                CLIENT,
                &syn,
                Delivered(DNS, syn.clone().dst(family.dns)),
            );
            walk.end();
        }
    }
}

/// It is the client's egress that is closed, though the packet that meets it is a reply.
#[test]
fn a_dropped_reply_names_who_may_not_ask_any_more() {
    let closed = with("[policies.closed]\nsubject = \"client\"\negress = []\n");
    for family in families() {
        let mut walk = Walk::new(family.name, &with(""));
        let asked = |port, to| packet::udp(at(family.client, port), at(to, 53));
        let reply_packet = |port, from| packet::udp(at(from, 53), at(family.client, port));
        let there = asked(1, family.web);
        walk.from("a workload", CLIENT, &there, Delivered(WEB, there.clone()));
        walk.from("the world", CLIENT, &asked(2, family.world), Passed);
        walk.reload(&closed);
        let reply = reply_packet(1, family.web);
        let answer = walk.from("the workload's reply", WEB, &reply, Dropped(133));
        let line = "dropped 133 web -> client reply no rule of egress client";
        walk.reported("the workload's reply", &answer, &[line]);
        let reply = reply_packet(2, family.world);
        let answer = walk.to("the world's reply", CLIENT, &reply, Dropped(133));
        let line = "dropped 133 world -> client reply no rule of egress client";
        walk.reported("the world's reply", &answer, &[line]);
        walk.end();
    }
}

#[test]
fn a_reload_that_changes_nothing_for_a_connection_leaves_it_alone() {
    let elsewhere = format!(
        "{CONFIG}\n[policies.other]\nsubject = \"web\"\ningress = [{{ from = [\"client\"] }}]\n"
    );
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let (asked, reply) = (family.question(3100), family.reply(3100));
        let at_backend = asked.clone().dst(family.dns);
        let from_service = reply.clone().src(family.dns_service);
        walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, at_backend.clone()),
        );
        for config in [&elsewhere, CONFIG, &elsewhere] {
            walk.reload(config);
            walk.from(
                "the reply",
                DNS,
                &reply,
                Delivered(CLIENT, from_service.clone()),
            );
            walk.from(
                "the question",
                CLIENT,
                &asked,
                Delivered(DNS, at_backend.clone()),
            );
        }
        let connections = walk.node().connections();
        walk.check(
            "it is still the one connection",
            connections.len() == 1,
            &connections,
        );
        walk.end();
    }
}

#[test]
fn the_host_and_its_endpoints_speak() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.host, 999), at(family.web, 80));
        let reply = packet::udp(at(family.web, 80), at(family.host, 999));
        let answer = walk.to("the host asks", WEB, &asked, Passed);
        walk.reported(
            "to the endpoint",
            &answer,
            &["to-endpoint forwarded host -> web"],
        );
        let answer = walk.from("the endpoint answers", WEB, &reply, Passed);
        walk.reported(
            "to the host",
            &answer,
            &["to-host forwarded web -> host reply"],
        );
        walk.to("the host goes on", WEB, &asked, Passed);

        let asked = packet::udp(at(family.web, 1), at(family.host, 22));
        let answer = walk.from("an endpoint asks the host", WEB, &asked, Passed);
        walk.reported("to the host", &answer, &["to-host forwarded web -> host"]);
        let asked = packet::udp(at(family.web, 1), at(family.world, 22)).ttl(1);
        let answer = walk.from(
            "and the world; the stack counts the hop",
            WEB,
            &asked,
            Passed,
        );
        walk.reported(
            "to the stack",
            &answer,
            &["to-stack forwarded web -> world"],
        );
        walk.end();
    }
}

#[test]
fn what_may_go_to_the_host_is_the_senders_policy() {
    let closed = with(
        "[policies.p]\nsubject = \"client\"\negress = [{ to = [\"host\"], ports = [\"22/tcp\"] }]\n",
    );
    for family in families() {
        let mut walk = Walk::new(family.name, &closed);
        let to = |address, port| packet::tcp(at(family.client, 1), at(address, port)).syn();
        walk.from("allowed", CLIENT, &to(family.host, 22), Passed);
        walk.from("another port", CLIENT, &to(family.host, 23), Dropped(133));
        walk.from("the world", CLIENT, &to(family.world, 22), Dropped(133));
        walk.end();
    }
}

/// Rules for `world` are looked up as well as the peer's own and those of `any`: a deny of either wins.
#[test]
fn what_may_go_to_the_world_is_what_either_of_its_rules_says() {
    let named =
        "\n[identities.resolver]\nid = 20007\ncidrs = [\"203.0.113.7\", \"2001:db8:eeee::7\"]\n";
    type Row = (&'static str, u16, u8);
    let tables: [(&str, &[Row]); 6] = [
        (
            r#"{ to = ["world"], ports = ["443/tcp"] }"#,
            &[
                ("world", 443, 0),
                ("world", 80, 133),
                ("resolver", 443, 0),
                ("resolver", 80, 133),
                ("host", 443, 133),
            ],
        ),
        (
            r#"{ to = ["world"] }, { to = ["resolver"], action = "deny" }"#,
            &[("world", 80, 0), ("resolver", 80, 181), ("host", 80, 133)],
        ),
        (
            r#"{ to = ["any"] }, { to = ["world"], ports = ["80/tcp"], action = "deny" }"#,
            &[
                ("world", 80, 181),
                ("world", 443, 0),
                ("resolver", 80, 181),
                ("host", 80, 0),
            ],
        ),
        (
            r#"{ to = ["resolver"] }, { to = ["world"], ports = ["80/tcp"], action = "deny" }"#,
            &[
                ("resolver", 80, 181),
                ("resolver", 443, 0),
                ("world", 443, 133),
            ],
        ),
        (
            r#"{ to = ["world"] }, { to = ["any"], ports = ["80/tcp"], action = "deny" }"#,
            &[("world", 80, 181), ("world", 443, 0), ("resolver", 443, 0)],
        ),
        (
            r#"{ to = ["world"], action = "deny" }"#,
            &[("world", 80, 181), ("resolver", 80, 181), ("host", 80, 0)],
        ),
    ];
    for family in families() {
        for (rules, rows) in tables {
            let policy = format!("[policies.p]\nsubject = \"client\"\negress = [{rules}]\n");
            let place = format!("{}, {rules}", family.name);
            let mut walk = Walk::new(place, &(with(&policy) + named));
            for (nth, (peer, port, reason)) in (1..).zip(rows) {
                let to = match *peer {
                    "world" => family.world,
                    "host" => family.host,
                    _ if family.is_v4() => ip("203.0.113.7"),
                    _ => ip("2001:db8:eeee::7"),
                };
                let syn = packet::tcp(at(family.client, nth), at(to, *port)).syn();
                let expect = match reason {
                    0 => Passed,
                    reason => Dropped(*reason),
                };
                walk.from(&format!("{peer} port {port}"), CLIENT, &syn, expect);
            }
            walk.end();
        }
    }
}
