//! Where nothing is served, whoever asks is told at once.

use std::time::{Duration, Instant};

use crate::lab::{Lab, eventually, text};

/// More than a refusal takes, also on a busy machine; less than a client's own patience, which is given as 10 s.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn nobody_there_is_said_at_once() {
    let lab = Lab::started();
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
        let said = text(&lab.run("client", line));
        let took = start.elapsed();
        assert!(said.contains(words), "{sentence}: {line}: {said}");
        assert!(took < AT_ONCE, "{sentence}: {line}: only after {took:?}");
    }
    let reasons = ["no service on this address", "no backend"];
    eventually("each reason is told", || {
        let told = lab.dpd("observe --last 50 --verdict dropped");
        let all = reasons
            .iter()
            .all(|reason| told.contains(&format!("DROPPED ({reason})")));
        if all { Ok(()) } else { Err(told) }
    });
    let drops = lab.drops().join(", ");
    for reason in reasons {
        assert!(drops.contains(reason), "and counted: {drops}");
    }
}
