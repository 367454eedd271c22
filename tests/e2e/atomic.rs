//! Datagrams while the file changes and is reloaded as fast as possible: each one arrives.

use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lab::{DEADLINE, NetnsLab, eventually};

const SERVICE: &str = "10.32.0.70:70";
const SWITCHES: u32 = 10;
/// The most datagrams in flight: fewer than a socket's buffer holds.
const WINDOW: u64 = 128;
/// Datagrams from one port before the next port: so a change meets new connections and established ones.
const FROM_ONE_PORT: u32 = 20;

/// The service's backend is one workload or the other; the allowed peers and the numbers of both identities change
/// with it.
fn configuration(example: &str, is_second: bool) -> String {
    let rest = r#"
[services.swing]
frontends = ["10.32.0.70:70/udp"]
backends  = ["BACKEND"]

[policies.swing]
subject = "SUBJECT"
ingress = [{ from = ["client"], ports = ["PORT/udp"] }]

[policies.still]
subject = "intruder"
ingress = []
"#;
    if is_second {
        let swapped = example
            .replace("= 18203", "= 0")
            .replace("= 20002", "= 18203");
        let rest = rest.replace("BACKEND", "10.200.0.65:7001");
        swapped.replace("= 0\n", "= 20002\n")
            + &rest.replace("SUBJECT", "intruder").replace("PORT", "7001")
    } else {
        let rest = rest.replace("BACKEND", "10.200.0.44:7000");
        example.to_owned() + &rest.replace("SUBJECT", "kube-dns").replace("PORT", "7000")
    }
}

/// A server's socket, bound before the first datagram.
fn server(lab: &NetnsLab, place: &str, address: &str) -> UdpSocket {
    let socket = lab.within(place, || UdpSocket::bind(address));
    socket.expect("bind the server's socket")
}

/// Counts what arrives until `is_over`.
fn receive(socket: &UdpSocket, count: &AtomicU64, is_over: &AtomicBool) {
    let patience = Some(Duration::from_millis(50));
    socket.set_read_timeout(patience).expect("set a timeout");
    let mut bytes = [0; 16];
    while !is_over.load(Ordering::Relaxed) {
        if socket.recv(&mut bytes).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends until `is_over`; the error is a socket's, or a timeout.
fn send(
    lab: &NetnsLab,
    sent: &AtomicU64,
    arrived: &(dyn Fn() -> u64 + Sync),
    is_over: &AtomicBool,
) -> Result<(), String> {
    lab.within("client", || {
        while !is_over.load(Ordering::Relaxed) {
            let socket = UdpSocket::bind("10.200.0.64:0").map_err(|error| error.to_string())?;
            socket.connect(SERVICE).map_err(|error| error.to_string())?;
            for _ in 0..FROM_ONE_PORT {
                socket
                    .send(b"datagram")
                    .map_err(|error| format!("send: {error}"))?;
                sent.fetch_add(1, Ordering::Relaxed);
                let begun = Instant::now();
                while sent.load(Ordering::Relaxed) > arrived() + WINDOW {
                    if begun.elapsed() > DEADLINE {
                        return Err("no more datagrams arrive".to_owned());
                    }
                    std::thread::yield_now();
                }
            }
        }
        Ok(())
    })
}

#[test]
fn every_datagram_arrives_while_its_service_moves_with_policy_and_identities() {
    let lab = NetnsLab::started();
    let example = fs::read_to_string(lab.config()).expect("read the configuration");
    lab.save(&configuration(&example, false));
    lab.signal("HUP");
    eventually("the service works", || {
        let services = lab.dpd("service list");
        services
            .contains("10.200.0.44:7000")
            .then_some(())
            .ok_or(services)
    });
    let [sent, first, second] = [const { AtomicU64::new(0) }; 3];
    let [is_sent, is_received] = [const { AtomicBool::new(false) }; 2];
    let arrived = || first.load(Ordering::Relaxed) + second.load(Ordering::Relaxed);
    let one = server(&lab, "coredns", "10.200.0.44:7000");
    let other = server(&lab, "intruder", "10.200.0.65:7001");
    let cpus = std::thread::available_parallelism().expect("count the CPUs");
    let printed: Vec<Result<(), String>> = std::thread::scope(|scope| {
        scope.spawn(|| receive(&one, &first, &is_received));
        scope.spawn(|| receive(&other, &second, &is_received));
        let senders: Vec<_> = (0..cpus.get())
            .map(|_| scope.spawn(|| send(&lab, &sent, &arrived, &is_sent)))
            .collect();
        // A panic here must end the others too, or the test would hang.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 1..=SWITCHES {
                let there = [&first, &second][number as usize % 2];
                let before = there.load(Ordering::Relaxed);
                lab.save(&configuration(&example, number % 2 == 1));
                lab.signal("HUP");
                eventually("datagrams reach the other backend", || {
                    let now = there.load(Ordering::Relaxed);
                    // Not those that were in flight at the previous change.
                    (now > before + 2 * WINDOW).then_some(()).ok_or(now)
                });
                lab.dig("client", "10.32.0.10")
                    .expect("the service that stays");
            }
        }));
        is_sent.store(true, Ordering::Relaxed);
        let printed = senders
            .into_iter()
            .map(|sender| sender.join().expect("a sender"))
            .collect();
        let begun = Instant::now();
        while arrived() < sent.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
        is_received.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        printed
    });
    assert!(
        printed.iter().all(Result::is_ok),
        "{printed:?}; {:?}",
        lab.drops()
    );
    let sent = sent.into_inner();
    println!("{sent} datagrams, {first:?} to the one and {second:?} to the other");
    assert_eq!(arrived(), sent, "datagrams were lost: {:?}", lab.drops());
    let least = u64::from(SWITCHES);
    for (count, which) in [
        (first.into_inner(), "the one"),
        (second.into_inner(), "the other"),
    ] {
        assert!(count > least, "{count} to {which} of {sent}");
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}

#[test]
fn many_reloads_in_a_row_end_with_the_last_file_and_the_daemon_can_be_stopped() {
    let lab = NetnsLab::started();
    let example = fs::read_to_string(lab.config()).expect("read the configuration");
    for number in 0..60 {
        lab.save(&configuration(&example, number % 2 == 1));
        lab.signal("HUP");
    }
    eventually("the last file is live", || {
        let services = lab.dpd("service list");
        services
            .contains("10.200.0.65:7001")
            .then_some(())
            .ok_or(services)
    });
    lab.dig("client", "10.32.0.10").expect("it serves");
    let log = lab.log();
    assert!(
        !log.contains("not applied") && !log.contains("apply "),
        "{log}"
    );
    for _ in 0..60 {
        lab.signal("HUP");
    }
    lab.stop();
    assert!(lab.log().contains("stopping"), "{}", lab.log());
    lab.dig("client", "10.32.0.10")
        .expect("the datapath still works");
}
