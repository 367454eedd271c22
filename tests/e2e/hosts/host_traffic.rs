//! The host's own traffic over an uplink, during changes and failures of dpd.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::lab::{DEADLINE, NetnsLab, eventually, text};

/// Echoes one TCP connection in the world until it ends.
fn echo(listener: TcpListener) {
    let (mut stream, _) = listener.accept().expect("accept a connection");
    let mut copy = stream.try_clone().expect("the same connection");
    std::io::copy(&mut stream, &mut copy).expect("echo");
}

/// A round trip over an open connection: a lost segment is counted as a retransmission.
fn round_trip(stream: &mut TcpStream, lost: &mut Vec<String>) {
    let mut reply = [0; 512];
    let outcome = stream
        .write_all(&[7; 512])
        .and_then(|()| stream.read_exact(&mut reply));
    if let Err(error) = outcome {
        lost.push(format!("TCP: {error}"));
    }
}

/// The programs' tail call maps.
fn chains(lab: &NetnsLab) -> Vec<PathBuf> {
    let loads = fs::read_dir(lab.bpf_root()).expect("the pins").flatten();
    loads
        .filter_map(|layout| fs::read_dir(layout.path().join("load")).ok())
        .flat_map(|loads| loads.flatten())
        .map(|load| load.path().join("dpd_calls"))
        .collect()
}

#[test]
fn no_packet_of_the_host_is_lost() {
    let (a, _b) = NetnsLab::hosts_laid(1500);
    let listeners = ["203.0.113.9:22", "[2001:db8:3::9]:22"]
        .map(|address| a.within("world", || TcpListener::bind(address).expect("listen")));
    let servers = listeners.map(|listener| thread::spawn(move || echo(listener)));
    let mut streams = ["203.0.113.9:22", "[2001:db8:3::9]:22"]
        .map(|to| a.connect("node-a", to).expect("a connection"));
    for stream in &streams {
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
    }

    let (rounds, end) = (AtomicU32::new(0), AtomicBool::new(false));
    let lines = [
        ("world", "ping -n -q -c 1 -W 5 192.0.2.1"),
        ("world", "ping -n -q -c 1 -W 5 2001:db8:1::1"),
        ("node-a", "ping -n -q -c 1 -W 5 203.0.113.9"),
        ("node-a", "ping -n -q -c 1 -W 5 -s 4000 2001:db8:3::9"),
        // Without neighbour entries, ARP and neighbour discovery come first.
        (
            "node-a",
            "ip neigh flush dev uplink0; ping -n -q -c 1 -W 5 192.0.2.254",
        ),
        (
            "node-a",
            "ip neigh flush dev uplink0; ping -n -q -c 1 -W 5 2001:db8:1::254",
        ),
        ("router", "ping -n -q -c 1 -W 5 ff02::1%to-node-a"),
    ];
    thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let mut lost = Vec::new();
            while !end.load(Ordering::Relaxed) {
                for (place, line) in lines {
                    let output = a.run(place, line);
                    if !output.status.success() {
                        lost.push(format!("{place}: {line}: {}", text(&output)));
                    }
                    for stream in &mut streams {
                        round_trip(stream, &mut lost);
                    }
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            lost
        });
        let more = |what: &str| {
            let enough = rounds.load(Ordering::Relaxed) + 2;
            eventually(what, || {
                let now = rounds.load(Ordering::Relaxed);
                if now >= enough { Ok(()) } else { Err(now) }
            });
        };
        // A panic here must end the traffic too, or the test would hang.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more("without dpd");
            a.start();
            more("with dpd");
            a.apply(
                "prefilter",
                "[prefilter.abusers]\ndeny = [\"198.51.100.66\"]\n",
            );
            more("with a prefilter");
            a.apply("prefilter", "# empty\n");
            more("without one again");
            a.stop();
            more("with its daemon stopped");
            a.start();
            a.kill();
            more("with its daemon killed");
            let chains = chains(&a);
            assert_eq!(chains.len(), 1, "one load of the programs: {chains:?}");
            for slot in 0..8 {
                let chain = chains[0].display();
                a.run(
                    "node-a",
                    &format!("bpftool map delete pinned {chain} key {slot} 0 0 0"),
                );
            }
            a.dig("client", "10.32.0.10")
                .expect_err("the chain is broken");
            more("with the chain emptied");
            let observed = a.drops().join(", ");
            assert!(observed.contains("missed tail call"), "{observed}");
            a.start();
            eventually("a new daemon repairs it", || a.dig("client", "10.32.0.10"));
            more("with the chain repaired");
            a.stop();
            a.dpd("cleanup");
            more("after a cleanup");
        }));
        end.store(true, Ordering::Relaxed);
        let lost = talking.join().expect("the traffic's thread");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert_eq!(lost, Vec::<String>::new(), "of {rounds:?} rounds");
    });
    let observed = a.ok("node-a", "ss -Htin 'dport = :22'");
    assert!(
        !observed.contains("retrans:"),
        "no segment was retransmitted: {observed}"
    );
    drop(streams);
    for server in servers {
        server.join().expect("the echo");
    }
}
