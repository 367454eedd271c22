//! Events: which packets are reported, and where.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::packet::{self, echo_request, unreachable};
use crate::lab::*;
use crate::walk::{Expect::*, Walk, line_of};

#[test]
fn aggregation_decides_which_packets_are_told() {
    const FROM: &str = "from-endpoint forwarded client -> web";
    const TO: &str = "to-endpoint forwarded client -> web";
    let rows: [(&str, &[&str], &[&str]); 3] = [
        ("none", &[FROM, TO], &[FROM, TO]),
        ("low", &[TO], &[TO]),
        ("medium", &[TO], &[]),
    ];
    for family in families() {
        for (level, first, later) in rows {
            let config = changed(CONFIG, "\"medium\"", &format!("\"{level}\""));
            let mut walk = Walk::new(format!("{}, {level}", family.name), &config);
            let asked = packet::udp(at(family.client, 1), at(family.web, 2));
            let reply = packet::udp(at(family.web, 2), at(family.client, 1));
            let answer = walk.from(
                "the first packet",
                CLIENT,
                &asked,
                Delivered(WEB, asked.clone()),
            );
            walk.reported("the first packet", &answer, first);
            walk.from("its reply", WEB, &reply, Delivered(CLIENT, reply.clone()));
            for _ in 0..3 {
                let answer = walk.from(
                    "a later packet",
                    CLIENT,
                    &asked,
                    Delivered(WEB, asked.clone()),
                );
                walk.reported("a later packet", &answer, later);
            }
            walk.end();
        }
    }
}

#[test]
fn an_event_tells_the_addresses_before_and_after() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = family.question(54764);
        let answer = walk.from(
            "the question",
            CLIENT,
            &asked,
            Delivered(DNS, asked.clone().dst(family.dns)),
        );
        for flow in &answer.events {
            let src = (flow.src.ip, flow.src.port, flow.src.identity);
            walk.check("its source", src == (family.client, 54764, 20001), src);
            let dst = (flow.dst.ip, flow.dst.port, flow.dst.identity);
            walk.check("its destination", dst == (family.dns, 53, 18203), dst);
            let before = flow.orig_dst;
            walk.check(
                "what was asked",
                before == Some((family.dns_service, 53)),
                before,
            );
            let bytes = usize::try_from(flow.bytes).ok();
            walk.check(
                "its length",
                bytes == Some(asked.ip_bytes().len()),
                flow.bytes,
            );
            walk.check("its interface", flow.interface == DNS, &flow.interface);
        }
        walk.check(
            "there is one",
            answer.events.len() == 1,
            answer.events.len(),
        );
        walk.end();
    }
}

#[test]
fn a_drop_is_told_once_for_each_tuple() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = |port| packet::udp(at(family.intruder, port), at(family.dns, 53));
        let line = "dropped 133 intruder -> kube-dns no rule of ingress kube-dns";
        for port in [1, 2] {
            let answer = walk.from("the first", INTRUDER, &asked(port), Dropped(133));
            walk.reported(&format!("from port {port}"), &answer, &[line]);
        }
        let answer = walk.from("again", INTRUDER, &asked(1), Dropped(133));
        walk.reported("the same again", &answer, &[]);
        walk.end();
    }
}

const INTERVAL: Duration = Duration::from_secs(5);

#[test]
fn a_burst_that_ends_keeps_its_count() {
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.intruder, 1), at(family.dns, 53));
        for _ in 0..5 {
            walk.from("one of a burst", INTRUDER, &asked, Dropped(133));
        }
        let other = packet::udp(at(family.intruder, 2), at(family.dns, 53));
        walk.from("alone", INTRUDER, &other, Dropped(133));

        let early = walk.node().suppressed_drops(Duration::ZERO);
        walk.check("its interval is not over", early.is_empty(), &early);
        let reply = walk.node().suppressed_drops(INTERVAL);
        let line = "dropped 133 intruder -> kube-dns no rule of ingress kube-dns";
        let lines: Vec<String> = reply.iter().map(line_of).collect();
        walk.check("the rest of the burst is reported", lines == [line], &lines);
        let repeats: Vec<u32> = reply.iter().map(|flow| flow.repeats).collect();
        walk.check("with its count", repeats == [4], repeats);
        let again = walk.node().suppressed_drops(INTERVAL);
        walk.check("and only once", again.is_empty(), &again);
        let answer = walk.from("the next burst", INTRUDER, &asked, Dropped(133));
        walk.reported("is reported at once", &answer, &[line]);
        let suppressed = walk.node().event_loss().suppressed;
        walk.check("suppressed drops are counted", suppressed == 4, suppressed);
        walk.end();
    }
}

#[test]
fn a_drop_over_the_rate_is_told_later() {
    let config = changed(
        CONFIG,
        "aggregation = \"medium\"",
        "aggregation = \"medium\"\nrate = 1",
    );
    let walk = Walk::new("IPv4", &config);
    let family = &families()[0];
    let (mut reply, mut dropped) = (0, 0);
    for port in 1..=20 {
        let asked = packet::udp(at(family.intruder, port), at(family.dns, 53)).build();
        let answer = walk.node().from_container(INTRUDER, &asked);
        reply += answer.events.len() as u64;
        dropped += answer.drops.len();
    }
    let loss = walk.node().event_loss();
    assert_eq!(dropped, 20, "each is counted");
    assert!(loss.rate_limited > 0, "{loss:?}");
    assert_eq!(
        reply + loss.rate_limited,
        20,
        "reported or over the rate: {loss:?}"
    );
    let later = walk.node().suppressed_drops(INTERVAL);
    let later: u64 = later.iter().map(|flow| u64::from(flow.repeats)).sum();
    assert_eq!(
        reply + later,
        20,
        "and in the end all are reported: {loss:?}"
    );
}

/// What belongs to no connection, and errors, which belong to another packet's.
#[test]
fn every_kind_of_packet_is_told_at_every_point() {
    const ERROR_FROM: &str = "from-endpoint forwarded web -> client reply";
    const ERROR_TO: &str = "to-endpoint forwarded web -> client reply";
    const ECHO: [&str; 2] = [
        "from-endpoint forwarded client -> world",
        "to-host forwarded client -> world",
    ];
    const DHCP: [&str; 2] = [
        "from-endpoint forwarded client -> world",
        "to-stack forwarded client -> world",
    ];
    type Lines<'a> = &'a [&'a str];
    let rows: [(&str, [Lines; 3]); 3] = [
        ("none", [&[ERROR_FROM, ERROR_TO], &ECHO, &DHCP]),
        ("low", [&[ERROR_TO], &ECHO[1..], &DHCP[1..]]),
        ("medium", [&[ERROR_TO], &[], &[]]),
    ];
    for family in families() {
        for (level, [error, echo, dhcp]) in rows {
            let config = changed(CONFIG, "\"medium\"", &format!("\"{level}\""));
            let mut walk = Walk::new(format!("{}, {level}", family.name), &config);
            let asked = packet::udp(at(family.client, 1), at(family.web, 2));
            let there = Delivered(WEB, asked.clone());
            walk.from("a question", CLIENT, &asked, there);
            let heard = asked.clone().ttl(63);
            let refused = unreachable(family.web, family.client, family.port_unreachable, &heard);
            let answer = walk.from(
                "an error",
                WEB,
                &refused,
                Delivered(CLIENT, refused.clone()),
            );
            walk.reported("an error", &answer, error);
            let answer = walk.from(
                "an error",
                WEB,
                &refused,
                Delivered(CLIENT, refused.clone()),
            );
            let again = if level == "medium" { &[] } else { error };
            walk.reported("the same error again", &answer, again);

            let ping = echo_request(family.client, family.dns_service, 7, 1);
            let pong = packet::echo_reply(family.dns_service, family.client, 7, 1);
            let answer = walk.from("ping", CLIENT, &ping, Answered(pong.ttl(64)));
            walk.reported("a ping of a service", &answer, echo);

            if family.is_v4() {
                let asked = packet::udp("0.0.0.0:68", "255.255.255.255:67").payload(&[1; 240]);
                let answer = walk.from("DHCP", CLIENT, &asked, Passed);
                walk.reported("DHCP", &answer, dhcp);
            }
            walk.end();
        }
    }
}

#[test]
fn a_change_of_the_file_is_no_reason_to_tell_of_everybody() {
    let aggregated = |level: &str| changed(CONFIG, "\"medium\"", &format!("\"{level}\""));
    let line = "to-endpoint forwarded client -> web";
    for family in families() {
        let mut walk = Walk::new(family.name, CONFIG);
        let asked = packet::udp(at(family.client, 1), at(family.web, 2));
        let reply = packet::udp(at(family.web, 2), at(family.client, 1));
        let rows: [(&str, &str, &[&str]); 5] = [
            ("it begins", "medium", &[line]),
            ("a change", "medium", &[]),
            ("now each is reported", "low", &[line]),
            ("and still", "low", &[line]),
            ("one of each interval again", "medium", &[line]),
        ];
        for (says, level, expected) in rows {
            walk.reload(&aggregated(level));
            let there = Delivered(WEB, asked.clone());
            let answer = walk.from(says, CLIENT, &asked, there);
            walk.reported(says, &answer, expected);
            let back = Delivered(CLIENT, reply.clone());
            walk.from("its reply", WEB, &reply, back);
        }
        walk.end();
    }
}

/// Hits of `dns-clients`, by the rule's place in the list.
fn hits(walk: &Walk) -> BTreeMap<String, u64> {
    walk.node().rule_hits()
}

#[test]
fn a_rules_hits_are_connections_and_refused_packets() {
    let rules = |list: &str| {
        let old = "ingress = [{ from = [\"client\"], ports = [\"53/udp\", \"53/tcp\"] }]";
        changed(CONFIG, old, &format!("ingress = [{list}]"))
    };
    let allow = r#"{ from = ["client"], ports = ["53/udp", "53/tcp"] }"#;
    let wider = r#"{ from = ["client"], ports = ["53/udp", "53/tcp", "54/udp"] }"#;
    let deny = r#"{ from = ["intruder"], action = "deny" }"#;
    for family in families() {
        let mut walk = Walk::new(family.name, &rules(allow));
        let expect = |walk: &mut Walk, says: &str, expected: &[u64]| {
            let found: Vec<u64> = hits(walk).into_values().collect();
            walk.check(says, found == expected, &found);
        };
        let direct = |port| packet::udp(at(family.client, port), at(family.dns, 53));
        let back = |port| packet::udp(at(family.dns, 53), at(family.client, port));
        let talk = |walk: &mut Walk, port| {
            let asked = direct(port);
            walk.from("asks", CLIENT, &asked, Delivered(DNS, asked.clone()));
            let reply = back(port);
            walk.from("answers", DNS, &reply, Delivered(CLIENT, reply.clone()));
        };
        expect(&mut walk, "at first", &[0]);
        talk(&mut walk, 1);
        talk(&mut walk, 1);
        expect(&mut walk, "a connection counts once", &[1]);
        talk(&mut walk, 2);
        expect(&mut walk, "each of them", &[2]);
        walk.reload(&format!(
            "{}\n[prefilter.x]\ndeny = [\"203.0.113.1\"]\n",
            rules(allow)
        ));
        talk(&mut walk, 1);
        expect(&mut walk, "a new verdict counts no more", &[2]);

        walk.reload(&rules(&format!("{deny}, {allow}")));
        expect(
            &mut walk,
            "hits follow what a rule says, not its place",
            &[0, 2],
        );
        talk(&mut walk, 1);
        expect(&mut walk, "a new verdict by another rule", &[0, 2]);
        let asked = packet::udp(at(family.intruder, 1), at(family.dns, 53));
        walk.from("no", INTRUDER, &asked, Dropped(181));
        walk.from("no", INTRUDER, &asked, Dropped(181));
        expect(
            &mut walk,
            "a deny counts the packets that it refuses",
            &[2, 2],
        );
        let dying = direct(3).ttl(1);
        walk.node().from_container(CLIENT, &dying.build());
        expect(
            &mut walk,
            "what is dropped for another reason is no connection",
            &[2, 2],
        );

        walk.reload(&rules(&format!("{wider}, {deny}")));
        expect(
            &mut walk,
            "a rule that says something else starts at zero",
            &[0, 2],
        );
        talk(&mut walk, 1);
        talk(&mut walk, 1);
        expect(
            &mut walk,
            "a connection that comes under it counts once, both ways together",
            &[1, 2],
        );
        walk.from("answers first", DNS, &back(2), Delivered(CLIENT, back(2)));
        walk.from("asks then", CLIENT, &direct(2), Delivered(DNS, direct(2)));
        expect(&mut walk, "whichever side speaks first", &[2, 2]);
        walk.end();
    }
}

#[test]
fn a_default_drop_names_the_policies_that_enforce() {
    let more = format!(
        "{CONFIG}\n[policies.lock-down]\nsubject = \"kube-dns\"\ningress = []\n\
         [policies.no-web]\nsubject = \"kube-dns\"\ningress = [{{ from = [\"web\"], action = \"deny\" }}]\n"
    );
    let always = format!("{CONFIG}\n[policy]\nenforcement = \"always\"\n");
    for family in families() {
        let mut walk = Walk::new(family.name, &more);
        let asked = packet::udp(at(family.intruder, 1), at(family.dns, 53));
        let answer = walk.from("no rule", INTRUDER, &asked, Dropped(133));
        let by: Vec<&[String]> = answer
            .events
            .iter()
            .map(|flow| &*flow.enforced_by)
            .collect();
        walk.check(
            "those with an allow, or with nothing",
            by == [["dns-clients", "lock-down"]],
            &by,
        );
        let places: Vec<_> = answer.events.iter().map(|flow| &flow.rule_place).collect();
        walk.check("no rule has a place", places == [&None], &places);

        let asked = packet::udp(at(family.client, 1), at(family.dns, 53));
        let answer = walk.from("a rule", CLIENT, &asked, Delivered(DNS, asked.clone()));
        let lines: Vec<_> = answer
            .events
            .iter()
            .filter_map(|flow| flow.rule_place.as_ref())
            .map(|(file, line)| (file.ends_with("/config.toml"), *line))
            .collect();
        let text = "ingress = [{ from";
        let line = 1 + more
            .lines()
            .position(|line| line.starts_with(text))
            .expect("a rule");
        walk.check("its file and line", lines == [(true, line)], &lines);

        walk.reload(&always);
        let asked = packet::udp(at(family.client, 2), at(family.web, 53));
        let answer = walk.from("no policy at all", CLIENT, &asked, Dropped(133));
        let by: Vec<&[String]> = answer
            .events
            .iter()
            .map(|flow| &*flow.enforced_by)
            .collect();
        walk.check("policy.enforcement alone", by == [[""; 0]], &by);
        walk.end();
    }
}
