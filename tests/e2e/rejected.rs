//! Connections to what is not served are rejected at once.

use std::time::{Duration, Instant};

use crate::lab::{NetnsLab, eventually, text};

/// Longer than a rejection takes on a busy machine; less than the client's timeout of 10 s.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn what_is_not_served_is_rejected_at_once() {
    let lab = NetnsLab::started();
    let rows = [
        (
            "an unknown port",
            "dig +tries=1 +time=10 -p 54 @10.32.0.10 x.",
            "connection refused",
        ),
        (
            "and over IPv6",
            "dig +tries=1 +time=10 -p 54 @fd00:32::10 x.",
            "connection refused",
        ),
        (
            "an unknown port of TCP",
            "curl -sS -m 10 http://10.32.0.10:81/",
            "Couldn't connect",
        ),
        (
            "and over IPv6",
            "curl -sS -m 10 'http://[fd00:32::10]:81/'",
            "Couldn't connect",
        ),
        (
            "another protocol of a known port",
            "dig +tries=1 +time=10 -p 80 @10.32.0.80 x.",
            "connection refused",
        ),
        (
            "a service without backends",
            "dig +tries=1 +time=10 @10.32.0.99 x.",
            "connection refused",
        ),
        (
            "and over IPv6",
            "dig +tries=1 +time=10 @fd00:32::99 x.",
            "connection refused",
        ),
        (
            "and over TCP",
            "curl -sS -m 10 http://10.32.0.99/",
            "Couldn't connect",
        ),
        (
            "and over both",
            "curl -sS -m 10 'http://[fd00:32::99]/'",
            "Couldn't connect",
        ),
        (
            "a backend on which nothing listens",
            "curl -sS -m 10 http://10.32.0.80/",
            "Couldn't connect",
        ),
        (
            "and over IPv6",
            "curl -sS -m 10 'http://[fd00:32::80]/'",
            "Couldn't connect",
        ),
    ];
    for (sentence, line, words) in rows {
        let start = Instant::now();
        let printed = text(&lab.run("client", line));
        let took = start.elapsed();
        assert!(printed.contains(words), "{sentence}: {line}: {printed}");
        assert!(took < AT_ONCE, "{sentence}: {line}: only after {took:?}");
    }
    let reasons = ["no service on this address", "no backend"];
    eventually("each reason is observed", || {
        let observed = lab.dpd("observe --last 50 --verdict dropped");
        let all = reasons
            .iter()
            .all(|reason| observed.contains(&format!("DROPPED ({reason})")));
        if all { Ok(()) } else { Err(observed) }
    });
    let drops = lab.drops().join(", ");
    for reason in reasons {
        assert!(drops.contains(reason), "counted: {drops}");
    }
}
