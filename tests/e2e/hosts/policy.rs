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
    let by_rule = Some("policy denied: rule table/ingress/1");
    let rows: [(&str, &str, &str, Option<&str>); 16] = [
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
