//! The load generator: small clients and servers of UDP and TCP, each on a thread of its own that is pinned to a core,
//! in the network namespace that the caller entered.
//!
//! | load | what one turn is |
//! |---|---|
//! | [`udp_ping_pong`], [`tcp_ping_pong`] | 64 bytes there and back |
//! | [`tcp_connect`] | connect, 64 bytes there and back, close |
//! | [`udp_stream`] | packets of 64 bytes in one direction, without replies |

#![allow(dead_code, reason = "every bench compiles all of it and uses some")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Bytes of a request, and of a reply.
pub const SIZE: usize = 64;
/// The first byte of a request for a stream of replies instead of one.
pub const STREAM: u8 = 0xff;
/// The timeout after which the load fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// The result of a load.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Turns a second.
    pub rate: f64,
    /// Median time of a turn.
    pub p50: Duration,
    /// 99 of 100 turns took less.
    pub p99: Duration,
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).expect("read the CPU affinity");
    (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect()
}

/// Pins this thread to the n-th available core, modulo their number.
pub fn pin(number: usize) {
    let cores = cores();
    let mut set = CpuSet::new();
    set.set(cores[number % cores.len()]);
    sched_setaffinity(None, &set).expect("stay on one core");
}

/// Echo servers of UDP and TCP, ended when dropped.
pub struct Servers {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Servers {
    /// Starts them on threads that stay on `core` and inherit this thread's namespace.
    pub fn start(address: SocketAddr, core: usize) -> Servers {
        let stop = Arc::new(AtomicBool::new(false));
        let udp = UdpSocket::bind(address).expect("bind the UDP server");
        let tcp = TcpListener::bind(address).expect("bind the TCP server");
        let stopped = stop.clone();
        thread::spawn(move || {
            pin(core);
            serve_udp(&udp, &stopped);
        });
        let stopped = stop.clone();
        thread::spawn(move || {
            pin(core);
            serve_tcp(&tcp, core, &stopped);
        });
        Servers { stop, address }
    }
}

impl Drop for Servers {
    /// A last packet and a last connection wake the threads that block on one.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let address = self.address;
        let _ = UdpSocket::bind((unspecified(address), 0))
            .and_then(|socket| socket.send_to(&[0; SIZE], address));
        let _ = TcpStream::connect_timeout(&address, PATIENCE);
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut bytes = [0; 2048];
    while let Ok((length, client)) = socket.recv_from(&mut bytes) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if bytes[0] == STREAM {
            let time = Duration::from_millis(u64::from(u16::from_be_bytes([bytes[1], bytes[2]])));
            send_for(time, || socket.send_to(&[0; SIZE], client));
        } else {
            // The client reports a missing reply.
            let _ = socket.send_to(&bytes[..length], client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, core: usize, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        // A thread for each would dominate the cost of a short connection: only a long one gets its own.
        if let Some(stream) = echo_once(stream) {
            thread::spawn(move || {
                pin(core);
                echo(stream);
            });
        }
    }
}

/// One request and its reply; returns the connection if it continues.
fn echo_once(mut stream: TcpStream) -> Option<TcpStream> {
    let mut bytes = [0; SIZE];
    stream.set_nodelay(true).ok()?;
    stream.read_exact(&mut bytes).ok()?;
    stream.write_all(&bytes).ok()?;
    (bytes[0] == STREAM).then_some(stream)
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; SIZE];
    while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
}

/// UDP requests and replies over one flow.
pub fn udp_ping_pong(to: SocketAddr, time: Duration) -> Turns {
    udp_ping_pong_after(to, time, || {}).0
}

/// The same, with a job once the flow is established.
pub fn udp_ping_pong_after<T>(
    to: SocketAddr,
    time: Duration,
    then: impl FnOnce() -> T,
) -> (Turns, T) {
    let socket = udp_client(to);
    let mut bytes = [0; SIZE];
    let mut turn = || {
        socket.send(&[0; SIZE]).expect("send");
        socket.recv(&mut bytes).expect("no reply to a UDP request");
    };
    turn();
    turn();
    let done = then();
    (turns(time, turn), done)
}

/// TCP requests and replies over one connection.
pub fn tcp_ping_pong(to: SocketAddr, time: Duration) -> Turns {
    let mut stream = tcp_client(to);
    let mut request = [0; SIZE];
    request[0] = STREAM;
    turns(time, || exchange(&mut stream, &request))
}

/// A new connection for each request. The server closes first: a port of the client in TIME_WAIT
/// would slow down its search for a free one, which is not to be measured.
pub fn tcp_connect(to: SocketAddr, time: Duration) -> Turns {
    turns(time, || {
        let mut stream = tcp_client(to);
        exchange(&mut stream, &[0; SIZE]);
        let mut end = [0; 1];
        let read = stream.read(&mut end).expect("the server does not close");
        assert_eq!(read, 0, "the server sends too much");
    })
}

/// Bytes to the server over one connection, in small segments; its replies are read and discarded.
pub fn tcp_send(to: SocketAddr, time: Duration) {
    let mut stream = tcp_client(to);
    let mut request = [0; SIZE];
    request[0] = STREAM;
    exchange(&mut stream, &request);
    let mut reader = stream.try_clone().expect("a second handle");
    let answers = thread::spawn(move || {
        let mut bytes = [0; 4096];
        while reader.read(&mut bytes).is_ok_and(|read| read > 0) {}
    });
    send_for(time, || stream.write(&request));
    // An error means that the server has closed the connection.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = answers.join();
}

/// Packets to the server over one flow at full speed; returns the rate. The server must not reply: it is one of
/// [`sink`].
pub fn udp_stream(to: SocketAddr, time: Duration) -> f64 {
    let socket = udp_client(to);
    send_for(time, || socket.send(&[0; SIZE]))
}

/// Packets from the server to the client over one flow that the client opened, at full speed.
pub fn udp_replies(to: SocketAddr, time: Duration) {
    let socket = udp_client(to);
    let milliseconds = time.as_millis().min(u128::from(u16::MAX)) as u16;
    let [high, low] = milliseconds.to_be_bytes();
    let mut request = [0; SIZE];
    // The first reply establishes the flow.
    for _ in 0..2 {
        socket.send(&request).expect("send");
        socket.recv(&mut request).expect("no UDP reply");
    }
    request[..3].copy_from_slice(&[STREAM, high, low]);
    socket.send(&request).expect("send");
    thread::sleep(time);
}

/// A UDP server without replies, until the returned socket is closed.
pub fn sink(address: SocketAddr) -> UdpSocket {
    UdpSocket::bind(address).expect("bind the UDP server")
}

fn udp_client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((unspecified(to), 0)).expect("create a UDP socket");
    socket.connect(to).expect("connect to the server");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("set a timeout");
    socket
}

fn tcp_client(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("connect to the server");
    stream.set_nodelay(true).expect("send at once");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("set a timeout");
    stream
}

fn exchange(stream: &mut TcpStream, request: &[u8; SIZE]) {
    let mut reply = [0; SIZE];
    stream.write_all(request).expect("send a TCP request");
    stream.read_exact(&mut reply).expect("no TCP reply");
}

fn turns(time: Duration, mut turn: impl FnMut()) -> Turns {
    turn();
    let mut times = Vec::with_capacity(1 << 20);
    let begun = Instant::now();
    let mut last = begun;
    while last - begun < time {
        turn();
        let now = Instant::now();
        times.push(now - last);
        last = now;
    }
    let rate = times.len() as f64 / (last - begun).as_secs_f64();
    times.sort_unstable();
    Turns {
        rate,
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
    }
}

/// Sends until the time is over; returns the rate.
fn send_for<T>(time: Duration, mut send: impl FnMut() -> std::io::Result<T>) -> f64 {
    let begun = Instant::now();
    let mut sent = 0u64;
    while begun.elapsed() < time {
        for _ in 0..64 {
            sent += u64::from(send().is_ok());
        }
    }
    sent as f64 / begun.elapsed().as_secs_f64()
}

/// The machine's busy time: the CPU time of this process's threads does not include the kernel's work in
/// softirqs.
pub fn busy_time() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").expect("read /proc/stat");
    let line = text.lines().next().expect("/proc/stat has lines");
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|word| word.parse().expect("a number"))
        .collect();
    // user, nice, system, idle, iowait, irq, softirq (proc(5)), in hundredths of a second
    let busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6];
    Duration::from_millis(busy * 10)
}
