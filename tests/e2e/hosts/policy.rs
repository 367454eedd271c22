//! What the receiver's host lets in from the other host, the world and itself.

use crate::lab::{Lab, eventually, text};

/// One echo to the server on node-b, over either family; answers whether both, or neither, came back.
fn echo(lab: &Lab, place: &str, answers: bool) -> Result<(), String> {
    let wait = if answers { 5 } else { 1 };
    for to in ["10.200.1.44", "fd00:201::44"] {
        let output = lab.run(place, &format!("ping -n -c 1 -W {wait} {to}"));
        if output.status.success() != answers {
            return Err(format!("{to}: {}", text(&output)));
        }
    }
    Ok(())
}

#[test]
fn the_receivers_host_decides() {
    let (_a, b) = Lab::hosts(1500);
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
            "somebody else is named",
            "intruder",
            r#"{ from = ["client"] }"#,
            no_rule,
        ),
        ("nobody is let in", "client", "", no_rule),
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
            "the world is denied, and with it who is not of this host",
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
            "a denied prefix beside it",
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
            .unwrap_or_else(|said| panic!("{sentence}: {place}: [{rules}]: {said}"));
        if let Some(words) = refusal {
            eventually(&format!("{sentence}: the drop is told"), || {
                let told = b.dpd("observe --last 2 --verdict dropped");
                let both = told.lines().filter(|line| line.contains(words)).count() == 2;
                if both { Ok(()) } else { Err(told) }
            });
        }
    }
}

#[test]
fn a_deny_rule_keeps_the_host_out_and_audit_lets_pass() {
    let (_a, b) = Lab::hosts(1500);
    b.apply("table", "[policies.table]\nsubject = \"kube-dns\"\ningress = [{ from = [\"host\"], action = \"deny\" }]\n");
    echo(&b, "node-b", false).expect("a rule denies it");
    echo(&b, "intruder", false).expect("no rule lets it in");
    b.apply("audit", "[policy]\naudit = true\n");
    echo(&b, "intruder", true).expect("audit lets it pass");
    eventually("and says so", || {
        let told = b.dpd("observe --last 20 --verdict audit");
        if told.contains("(intruder)") {
            Ok(())
        } else {
            Err(told)
        }
    });
    b.apply("audit", "[policy]\naudit = false\n");
    echo(&b, "intruder", false).expect("established, and refused all the same");
}

#[test]
fn an_address_of_the_host_on_any_interface_is_the_hosts() {
    let (_a, b) = Lab::hosts(1500);
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
        eventually("it is known", || {
            let rows = b.json("identity list");
            let host = rows.as_array().expect("an array").iter();
            let found = host
                .filter(|row| row["name"] == "host")
                .any(|row| row["addresses"].to_string().contains(source));
            if found { Ok(()) } else { Err(rows) }
        });
    }
    for (action, answers) in [("allow", true), ("deny", false)] {
        b.apply("table", &format!("[policies.table]\nsubject = \"kube-dns\"\ningress = [{{ from = [\"host\"], action = \"{action}\" }}]\n"));
        for (source, to) in pairs {
            let wait = if answers { 5 } else { 1 };
            let output = b.run(
                "node-b",
                &format!("ping -n -c 1 -W {wait} -I {source} {to}"),
            );
            let said = text(&output);
            assert_eq!(
                output.status.success(),
                answers,
                "{action}: {source}: {said}"
            );
        }
    }
}

#[test]
fn a_nodes_workload_that_no_identity_names_is_of_the_world() {
    let (a, b) = Lab::hosts_laid(1500);
    // node-a's file no longer names the client behind node-b, whose prefix `nodes` still holds it.
    a.edit(
        "cidrs  = [\"10.200.1.64\", \"fd00:201::64\"]",
        "cidrs  = []",
    );
    a.start();
    b.start();
    for (from, answers) in [("world", true), ("client", false), ("remote-node", false)] {
        a.apply(
            "table",
            &format!(
                "[policies.table]\nsubject = \"kube-dns\"\ningress = [{{ from = [\"{from}\"] }}]\n"
            ),
        );
        for to in ["10.200.0.44", "fd00:200::44"] {
            let wait = if answers { 5 } else { 1 };
            let output = a.run("client-b", &format!("ping -n -c 1 -W {wait} {to}"));
            let said = text(&output);
            assert_eq!(output.status.success(), answers, "{from}: {to}: {said}");
        }
    }
    let flows = a.flows();
    let dropped = flows.iter().filter(|flow| flow["verdict"] == "dropped");
    let names: Vec<_> = dropped.map(|flow| flow["src_name"].clone()).collect();
    assert!(names.len() >= 2, "{flows:?}");
    assert!(names.iter().all(|name| name == "world"), "{names:?}");
}
