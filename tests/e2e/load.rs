//! Load on a lab while something else happens: the clients report their losses at the end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::lab::{DEADLINE, NetnsLab, eventually};

/// What the load needs besides the lab's services: an echo over TCP.
pub const ECHO: &str = r#"
[services.echo]
frontends = ["10.32.0.7:7/tcp"]
backends  = ["10.200.0.44:7007"]

[policies.echo]
subject = "kube-dns"
ingress = [{ from = ["client"], ports = ["7007/tcp"] }]
"#;

/// Clients that repeat one request, and how often they have.
struct Client {
    what: &'static str,
    done: AtomicU64,
}

/// The clients, for a job.
pub struct Load<'a> {
    clients: &'a [Client],
    /// The source port of the long TCP connection.
    pub stream: u16,
}

impl Load<'_> {
    /// Waits until each client has repeated its request some more times.
    pub fn goes_on(&self, when: &str) {
        const MORE: u64 = 5;
        let counts = || {
            self.clients
                .iter()
                .map(|client| client.done.load(Ordering::Relaxed))
        };
        let enough: Vec<u64> = counts().map(|count| count + MORE).collect();
        for (client, enough) in self.clients.iter().zip(enough) {
            eventually(&format!("{} {when}", client.what), || {
                let now = client.done.load(Ordering::Relaxed);
                if now >= enough { Ok(()) } else { Err(now) }
            });
        }
    }
}

/// Runs a job while clients query DNS over UDP, open connections with curl, send bytes through a long connection,
/// and iperf3 fills another. The lab needs `ECHO`, a web server, and iperf3's server. Returns all errors.
pub fn under_load(lab: &NetnsLab, job: impl FnOnce(&Load<'_>)) -> Vec<String> {
    let clients = ["dig", "curl", "the long connection"].map(|what| Client {
        what,
        done: AtomicU64::new(0),
    });
    let [dig, curl, stream] = &clients;
    let end = AtomicBool::new(false);
    let is_on = || !end.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let mut lasting = open_echo(lab);
        let port = lasting.local_addr().expect("its address").port();
        let mut iperf = iperf(lab);
        let running = [
            scope.spawn(|| over_and_over(dig, is_on, |turn| ask(lab, turn))),
            scope.spawn(|| over_and_over(curl, is_on, |_| fetch(lab))),
            scope.spawn(move || over_and_over(stream, is_on, |turn| echo(&mut lasting, turn))),
        ];
        let load = Load {
            clients: &clients,
            stream: port,
        };
        let done = catch_unwind(AssertUnwindSafe(|| {
            load.goes_on("at first");
            job(&load);
        }));
        end.store(true, Ordering::Relaxed);
        let mut wrong: Vec<String> = Vec::new();
        for client in running {
            wrong.extend(client.join().expect("a client's thread"));
        }
        if let Some(status) = iperf.try_wait().expect("look at iperf3") {
            wrong.push(format!("iperf3 has ended: {status}"));
        }
        let _ = iperf.kill();
        let _ = iperf.wait();
        done.unwrap_or_else(|panic| resume_unwind(panic));
        wrong
    })
}

/// Until the end, or the first error.
fn over_and_over(
    client: &Client,
    is_on: impl Fn() -> bool,
    mut act: impl FnMut(u64) -> Result<(), String>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    while is_on() && wrong.len() < 10 {
        let turn = client.done.load(Ordering::Relaxed);
        if let Err(error) = act(turn) {
            wrong.push(format!("{} number {turn}: {error}", client.what));
        }
        client.done.fetch_add(1, Ordering::Relaxed);
    }
    wrong
}

fn ask(lab: &NetnsLab, turn: u64) -> Result<(), String> {
    lab.dig("client", ["10.32.0.10", "fd00:32::10"][turn as usize % 2])
}

fn fetch(lab: &NetnsLab) -> Result<(), String> {
    // Without a retransmitted SYN, which would hide a lost packet.
    let line = "curl -sS --connect-timeout 0.9 --max-time 5 http://10.32.0.80/hello";
    let output = lab.run("client", line);
    let printed = crate::lab::text(&output);
    printed.starts_with("hello ").then_some(()).ok_or(printed)
}

/// Writes bytes of this turn, and reads the same.
fn echo(stream: &mut TcpStream, turn: u64) -> Result<(), String> {
    let sent: Vec<u8> = (0..512)
        .flat_map(|word| (turn * 512 + word).to_le_bytes())
        .collect();
    let mut got = vec![0; sent.len()];
    let done = stream
        .write_all(&sent)
        .and_then(|()| stream.read_exact(&mut got));
    match done {
        Ok(()) if got == sent => Ok(()),
        Ok(()) => Err("other bytes came back".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn open_echo(lab: &NetnsLab) -> TcpStream {
    let listener = lab.within("coredns", || TcpListener::bind("10.200.0.44:7007"));
    let listener = listener.expect("listen for the long connection");
    // The thread ends with the connection.
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept the long connection");
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..length]).is_err() {
                return;
            }
        }
    });
    let stream = lab
        .connect("client", "10.32.0.7:7")
        .expect("a long connection");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("set a timeout");
    stream
}

/// At a low rate, as other tests run too.
fn iperf(lab: &NetnsLab) -> Child {
    let mut command = lab.command("client", "iperf3");
    command.args(["-c", "10.32.0.52", "-p", "52", "-t", "600", "-b", "50M"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("start iperf3")
}
