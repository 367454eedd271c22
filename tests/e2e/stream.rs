//! Continuous round trips over TCP and UDP while a test changes the path: losses are counted.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::lab::{DEADLINE, NetnsLab, eventually};

/// After this time without a reply a datagram, or its reply, counts as lost.
const LOST: Duration = Duration::from_secs(2);
/// How often a server checks whether the test has ended.
const LOOK: Duration = Duration::from_millis(100);
/// Between two round trips, to leave CPU time for the tested programs.
const PACE: Duration = Duration::from_millis(2);
/// Round trips of each stream that count as progress.
const ENOUGH: u64 = 30;

/// Echo servers, and clients that send continuously; all end when dropped.
pub struct Streams {
    end: Arc<AtomicBool>,
    clients: Vec<Client>,
    threads: Vec<JoinHandle<()>>,
}

struct Client {
    name: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    rounds: AtomicU64,
    lost: AtomicU64,
    /// Why the connection has ended.
    broken: std::sync::Mutex<Option<String>>,
}

impl Streams {
    /// From `client` to each of the frontends of the echo servers at `backends` in `server`.
    pub fn start(
        lab: &NetnsLab,
        client: &str,
        frontends: &[&str],
        server: &str,
        backends: &[&str],
    ) -> Streams {
        let mut streams = Streams {
            end: Arc::default(),
            clients: Vec::new(),
            threads: Vec::new(),
        };
        for backend in backends {
            streams.serve(lab, server, backend);
        }
        for frontend in frontends {
            let tcp = lab.connect(client, frontend).expect("a connection");
            tcp.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            tcp.set_nodelay(true).expect("no delay");
            streams.start_client(format!("TCP to {frontend}"), tcp, tcp_round);

            let to: SocketAddr = frontend.parse().expect("an address and port");
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let udp = lab.within(client, || UdpSocket::bind(any).expect("a socket"));
            udp.connect(to).expect("a socket's receiver");
            udp.set_read_timeout(Some(LOST)).expect("a deadline");
            streams.start_client(format!("UDP to {frontend}"), udp, udp_round);
        }
        streams.more("at first");
        streams
    }

    fn serve(&mut self, lab: &NetnsLab, place: &str, address: &str) {
        let (tcp, udp) = lab.within(place, || {
            let tcp = TcpListener::bind(address).expect("listen");
            (tcp, UdpSocket::bind(address).expect("a socket"))
        });
        let end = self.end.clone();
        self.threads
            .push(thread::spawn(move || echo_stream(&tcp, &end)));
        let end = self.end.clone();
        udp.set_read_timeout(Some(LOOK)).expect("a deadline");
        self.threads.push(thread::spawn(move || {
            let mut datagram = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut datagram) {
                    let _ = udp.send_to(&datagram[..length], from);
                }
            }
        }));
    }

    fn start_client<S: Send + 'static>(
        &mut self,
        name: String,
        mut socket: S,
        round: fn(&mut S, u64, &Counts),
    ) {
        let counts = Arc::new(Counts::default());
        let client = Client {
            name,
            counts: counts.clone(),
        };
        self.clients.push(client);
        let end = self.end.clone();
        self.threads.push(thread::spawn(move || {
            let mut number = 0;
            while !end.load(Ordering::Relaxed) && counts.broken.lock().expect("a word").is_none() {
                number += 1;
                round(&mut socket, number, &counts);
                thread::sleep(PACE);
            }
        }));
    }

    /// Waits until every stream has made progress.
    pub fn more(&self, what: &str) {
        for client in &self.clients {
            let counts = &client.counts;
            let enough = counts.rounds.load(Ordering::Relaxed) + ENOUGH;
            eventually(&format!("{what}: {} makes progress", client.name), || {
                let broken = counts.broken.lock().expect("a word").clone();
                assert_eq!(broken, None, "{what}: {}", client.name);
                let now = counts.rounds.load(Ordering::Relaxed);
                if now >= enough { Ok(()) } else { Err(now) }
            });
        }
    }

    /// Waits until every stream has made progress, with no losses beyond `before`.
    pub fn more_without_loss(&self, what: &str, before: u64) {
        self.more(what);
        assert_eq!(self.lost(), before, "{what}: datagrams were lost");
    }

    /// Datagrams lost so far.
    pub fn lost(&self) -> u64 {
        let lost = |client: &Client| client.counts.lost.load(Ordering::Relaxed);
        self.clients.iter().map(lost).sum()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Echoes one connection. With the path cut its end is never received: so it checks whether the test has ended.
fn echo_stream(listener: &TcpListener, end: &AtomicBool) {
    listener.set_nonblocking(true).expect("not to block");
    let mut accepted = None;
    let mut bytes = [0; 512];
    while !end.load(Ordering::Relaxed) {
        let Some(stream) = &mut accepted else {
            accepted = listener.accept().ok().map(|(stream, _)| stream);
            match &accepted {
                Some(stream) => {
                    stream.set_nonblocking(false).expect("to block");
                    stream.set_read_timeout(Some(LOOK)).expect("a deadline");
                }
                None => thread::sleep(LOOK / 10),
            }
            continue;
        };
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => drop(stream.write_all(&bytes[..length])),
            Err(_) => {}
        }
    }
}

fn tcp_round(stream: &mut TcpStream, number: u64, counts: &Counts) {
    let mut reply = [0; 512];
    let sent = [number as u8; 512];
    let outcome = stream
        .write_all(&sent)
        .and_then(|()| stream.read_exact(&mut reply));
    match outcome {
        Ok(()) if reply == sent => drop(counts.rounds.fetch_add(1, Ordering::Relaxed)),
        outcome => {
            let why = format!("round {number}: {outcome:?}");
            *counts.broken.lock().expect("a word") = Some(why);
        }
    }
}

fn udp_round(socket: &mut UdpSocket, number: u64, counts: &Counts) {
    let mut reply = [0; 512];
    let mut sent = [0; 512];
    sent[..8].copy_from_slice(&number.to_be_bytes());
    let mut outcome = socket.send(&sent);
    while outcome.is_ok() {
        outcome = socket.recv(&mut reply);
        if outcome.is_ok() && reply == sent {
            counts.rounds.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Otherwise it is the late reply to one that counts as lost.
    }
    counts.lost.fetch_add(1, Ordering::Relaxed);
    // An ICMP error returns at once: the next datagram need not.
    if outcome.is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
        thread::sleep(Duration::from_millis(20));
    }
}
