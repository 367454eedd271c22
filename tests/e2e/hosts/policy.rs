//! Ingress policy on the receiver's host for the other host, the world and the host itself.

use crate::lab::{NetnsLab, eventually, text};

/// One echo to the server on node-b over each family; an error unless both, or none, got a reply as expected.
fn echo(lab: &NetnsLab, place: &str, replies: bool) -> Result<(), String> {
    let wait = if replies { 5 } else { 1 };
    for to in ["10.200.1.44", "fd00:201::44"] {
        let output = lab.run(place, &format!("ping -n -c 1 -W {wait} {to}"));
        if output.status.success() != replies {
            return Err(format!("{to}: {}", text(&output)));
        }
    }
    Ok(())
}

#[test]
fn ingress_policy_applies_on_the_receivers_host() {
    let (_a, b) = NetnsLab::hosts(1500);
    let everybody = r#"{ from = ["any"] }"#;
    let allowed = None;
    let no_rule = Some("policy denied: no rule of ingress kube-dns");
    let by_rule = Some("policy denied: deny rule table/ingress/1");
    let rows: [(&str, &str, &str, Option<&str>); 19] = [
        (
            "a client, by its identity's prefix",
            "client",
            r#"{ from = ["client"] }"#,
            allowed,
        ),
        (
            "by a label",
            "client",
            r#"{ from = ["label:app=client"] }"#,
            allowed,
        ),
        (
            "by its address",
            "client",
            r#"{ from = ["cidr:10.200.0.64/32", "cidr:fd00:200::64/128"] }"#,
            allowed,
        ),
        (
            "by a prefix around it",
            "client",
            r#"{ from = ["cidr:10.200.0.0/16", "cidr:fd00:200::/32"] }"#,
            allowed,
        ),
        (
            "an identity of prefixes is of the world, too",
            "client",
            r#"{ from = ["world"] }"#,
            allowed,
        ),
        (
            "another identity is allowed",
            "intruder",
            r#"{ from = ["client"] }"#,
            no_rule,
        ),
        ("no rule", "client", "", no_rule),
        (
            "its identity is denied",
            "client",
            &format!(r#"{everybody}, {{ from = ["client"], action = "deny" }}"#),
            by_rule,
        ),
        (
            "its label is denied",
            "client",
            &format!(r#"{everybody}, {{ from = ["label:app=client"], action = "deny" }}"#),
            by_rule,
        ),
        (
            "the world is denied, other hosts' workloads included",
            "client",
            &format!(r#"{everybody}, {{ from = ["world"], action = "deny" }}"#),
            by_rule,
        ),
        (
            "the other host is denied",
            "node-a",
            &format!(r#"{everybody}, {{ from = ["remote-node"], action = "deny" }}"#),
            by_rule,
        ),
        (
            "its prefix is denied",
            "intruder",
            &format!(
                r#"{everybody}, {{ from = ["cidr:10.200.0.64/31", "cidr:fd00:200::64/127"], action = "deny" }}"#
            ),
            by_rule,
        ),
        (
            "the other host, as remote-node",
            "node-a",
            r#"{ from = ["remote-node"] }"#,
            allowed,
        ),
        (
            "the other host is not the world",
            "node-a",
            r#"{ from = ["world"] }"#,
            no_rule,
        ),
        (
            "the other host is not this one",
            "node-a",
            r#"{ from = ["host"] }"#,
            no_rule,
        ),
        ("the world", "world", r#"{ from = ["world"] }"#, allowed),
        (
            "the world is no node",
            "world",
            r#"{ from = ["remote-node", "client"] }"#,
            no_rule,
        ),
        (
            "another prefix is denied",
            "coredns-a",
            &format!(
                r#"{everybody}, {{ from = ["cidr:10.200.0.64/31", "cidr:fd00:200::64/127"], action = "deny" }}"#
            ),
            allowed,
        ),
        ("this host needs no rule", "node-b", "", allowed),
    ];
    for (sentence, place, rules, refusal) in rows {
        b.apply(
            "table",
            &format!("[policies.table]\nsubject = \"kube-dns\"\ningress = [{rules}]\n"),
        );
        echo(&b, place, refusal.is_none())
            .unwrap_or_else(|printed| panic!("{sentence}: {place}: [{rules}]: {printed}"));
        if let Some(words) = refusal {
            eventually(&format!("{sentence}: the drop is observed"), || {
                let observed = b.dpd("observe --last 2 --verdict dropped");
                let both = observed.lines().filter(|line| line.contains(words)).count() == 2;
                if both { Ok(()) } else { Err(observed) }
            });
        }
    }
}

#[test]
fn a_deny_rule_denies_the_host_and_audit_allows() {
    let (_a, b) = NetnsLab::hosts(1500);
    b.apply("table", "[policies.table]\nsubject = \"kube-dns\"\ningress = [{ from = [\"host\"], action = \"deny\" }]\n");
    echo(&b, "node-b", false).expect("a rule denies it");
    echo(&b, "intruder", false).expect("no rule allows it");
    b.apply("audit", "[policy]\naudit = true\n");
    echo(&b, "intruder", true).expect("audit allows it");
    eventually("the audit verdict is observed", || {
        let observed = b.dpd("observe --last 20 --verdict audit");
        if observed.contains("(intruder)") {
            Ok(())
        } else {
            Err(observed)
        }
    });
    b.apply("audit", "[policy]\naudit = false\n");
    echo(&b, "intruder", false).expect("established, and denied all the same");
}

#[test]
fn addresses_on_any_interface_are_the_hosts() {
    let (_a, b) = NetnsLab::hosts(1500);
    let pairs = [
        ("192.0.2.77", "10.200.1.44"),
        ("2001:db8:77::77", "fd00:201::44"),
    ];
    b.ok(
        "node-b",
        "ip link add inner type bridge && ip link set inner up
        ip address add 192.0.2.77/32 dev inner && ip address add 2001:db8:77::77/128 dev inner nodad",
    );
    for (source, _) in pairs {
        eventually("the address is known", || {
            let rows = b.json("identity list");
            let host = rows.as_array().expect("an array").iter();
            let found = host
                .filter(|row| row["name"] == "host")
                .any(|row| row["addresses"].to_string().contains(source));
            if found { Ok(()) } else { Err(rows) }
        });
    }
    for (action, replies) in [("allow", true), ("deny", false)] {
        b.apply("table", &format!("[policies.table]\nsubject = \"kube-dns\"\ningress = [{{ from = [\"host\"], action = \"{action}\" }}]\n"));
        for (source, to) in pairs {
            let wait = if replies { 5 } else { 1 };
            let output = b.run(
                "node-b",
                &format!("ping -n -c 1 -W {wait} -I {source} {to}"),
            );
            let printed = text(&output);
            assert_eq!(
                output.status.success(),
                replies,
                "{action}: {source}: {printed}"
            );
        }
    }
}

#[test]
fn a_remote_workload_without_an_identity_is_of_the_world() {
    let (a, b) = NetnsLab::hosts_laid(1500);
    // node-a's file no longer names the client behind node-b, whose prefix `nodes` still holds it.
    a.edit(
        "\"10.200.1.64\"  = \"client\"\n\"fd00:201::64\" = \"client\"\n",
        "",
    );
    a.start();
    b.start();
    for (from, replies) in [("world", true), ("client", false), ("remote-node", false)] {
        a.apply(
            "table",
            &format!(
                "[policies.table]\nsubject = \"kube-dns\"\ningress = [{{ from = [\"{from}\"] }}]\n"
            ),
        );
        for to in ["10.200.0.44", "fd00:200::44"] {
            let wait = if replies { 5 } else { 1 };
            let output = a.run("client-b", &format!("ping -n -c 1 -W {wait} {to}"));
            let printed = text(&output);
            assert_eq!(output.status.success(), replies, "{from}: {to}: {printed}");
        }
    }
    let flows = a.flows();
    let dropped = flows.iter().filter(|flow| flow["verdict"] == "dropped");
    let names: Vec<_> = dropped.map(|flow| flow["src_name"].clone()).collect();
    assert!(names.len() >= 2, "{flows:?}");
    assert!(names.iter().all(|name| name == "world"), "{names:?}");
}
