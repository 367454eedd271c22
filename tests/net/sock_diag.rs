//! The sockets of a network namespace by sock_diag: which are listed, and what ends with one that is ended.

use std::ffi::CString;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use dpd::net::sock_diag::{SockDiag, SockDiagError, Socket};
use libbpf_rs::libbpf_sys;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::{Netns, drop_capabilities};

/// Bytes of a value: not a power of two, as of a struct.
const VALUE: usize = 48;

/// A map whose values go with their sockets. The kernel wants its types.
fn storage_map() -> MapHandle {
    let name = |text: &str| CString::new(text).expect("a name");
    // SAFETY: the pointers are of strings that outlive the calls, and of a BTF that is freed once the map has its own reference.
    unsafe {
        let btf = libbpf_sys::btf__new_empty();
        assert!(!btf.is_null(), "make a BTF");
        let signed = libbpf_sys::BTF_INT_SIGNED as i32;
        let key = libbpf_sys::btf__add_int(btf, name("int").as_ptr(), 4, signed);
        let value = libbpf_sys::btf__add_array(btf, key, key, VALUE as u32 / 4);
        assert_eq!(libbpf_sys::btf__load_into_kernel(btf), 0, "load the BTF");
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            btf_fd: libbpf_sys::btf__fd(btf) as u32,
            btf_key_type_id: key as u32,
            btf_value_type_id: value as u32,
            map_flags: libbpf_sys::BPF_F_NO_PREALLOC,
            ..Default::default()
        };
        let kind = MapType::SkStorage;
        let map = MapHandle::create(kind, Some("peers"), 4, VALUE as u32, 0, &options);
        libbpf_sys::btf__free(btf);
        map.expect("make a map of socket storage: this test needs root")
    }
}

/// Stores bytes of this number with a socket.
fn store(map: &MapHandle, socket: impl AsFd, number: u8) {
    let key = socket.as_fd().as_raw_fd().to_ne_bytes();
    let value = [number; VALUE];
    map.update(&key, &value, MapFlags::ANY).expect("store");
}

/// The sockets in the order of their numbers; then those of UDP, whose storage the kernel does not send, by their ports.
fn list(map: &MapHandle, peer: Option<SocketAddr>) -> Vec<Socket> {
    let mut found = Vec::new();
    let mut sockets = SockDiag::open().expect("open");
    sockets
        .list(map, peer, |socket| found.push(socket))
        .expect("list");
    found.sort_by_key(|socket| (number(socket), socket.local.port()));
    found
}

/// What is stored with it; 255: nothing.
fn number(socket: &Socket) -> u8 {
    let Some(storage) = &socket.storage else {
        return u8::MAX;
    };
    assert_eq!(*storage, [storage[0]; VALUE], "{socket:?}");
    storage[0]
}

fn destroy(socket: &Socket) -> bool {
    let ended = SockDiag::open().expect("open").destroy(socket);
    ended.expect("end a socket")
}

fn cookie(socket: BorrowedFd<'_>) -> u64 {
    rustix::net::sockopt::socket_cookie(socket).expect("a cookie")
}

fn tcp(to: &str, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().expect("its address").port();
    let client = TcpStream::connect(format!("{to}:{port}")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    let patience = Some(Duration::from_secs(10));
    client.set_read_timeout(patience).expect("set a timeout");
    server.set_read_timeout(patience).expect("set a timeout");
    (client, server)
}

fn udp(from: &str, to: &str) -> UdpSocket {
    let socket = UdpSocket::bind(from).expect("bind");
    socket.connect(to).expect("connect");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set a timeout");
    socket
}

/// A namespace for sockets, with IPv6 on its loopback.
fn with_sockets<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let netns = Netns::new();
    netns.enter(body)
}

#[test]
fn connected_sockets_are_listed_with_their_storage() {
    let listed = with_sockets(|| {
        let map = storage_map();
        let listener = TcpListener::bind("[::]:0").expect("listen");
        let port = listener.local_addr().expect("its address").port();
        let targets = ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"];
        let pairs = targets.map(|to| tcp(to, &listener));
        for ((client, _), number) in pairs.iter().zip(1..) {
            store(&map, client, number);
        }
        let datagrams = [
            udp("127.0.0.1:4004", "127.0.0.1:53"),
            udp("[::]:4005", "[::ffff:127.0.0.1]:53"),
            udp("[::1]:4006", "[::1]:53"),
        ];
        for (socket, number) in datagrams.iter().zip(4..) {
            store(&map, socket, number);
        }
        // Neither is connected; and one that is has no value.
        store(&map, &listener, 7);
        store(&map, UdpSocket::bind("127.0.0.1:0").expect("bind"), 8);
        let _other = tcp("127.0.0.1", &listener);
        let listed = list(&map, None);
        let clients = pairs.iter().map(|(client, _)| {
            (
                cookie(client.as_fd()),
                client.local_addr().expect("its address"),
            )
        });
        let sockets = datagrams.iter().map(|socket| {
            (
                cookie(socket.as_fd()),
                socket.local_addr().expect("its address"),
            )
        });
        for ((cookie, local), socket) in clients.chain(sockets).zip(&listed) {
            assert_eq!(socket.cookie, cookie, "{socket:?}");
            assert_eq!(socket.local.port(), local.port(), "{socket:?}");
            assert_eq!(socket.local.ip(), local.ip().to_canonical(), "{socket:?}");
        }
        let row = |socket: &Socket| {
            assert!(socket.inode != 0 && socket.uid == 0, "{socket:?}");
            let peer = socket.peer.to_string().replace(&port.to_string(), "PORT");
            let (protocol, state) = (socket.protocol, socket.state);
            format!("{} {protocol} {peer} {state}", number(socket))
        };
        listed.iter().map(row).collect::<Vec<_>>()
    });
    let expected = [
        "1 tcp 127.0.0.1:PORT 1",
        "2 tcp 127.0.0.1:PORT 1",
        "3 tcp [::1]:PORT 1",
        "255 udp 127.0.0.1:53 1",
        "255 udp 127.0.0.1:53 1",
        "255 udp [::1]:53 1",
    ];
    assert_eq!(listed, expected);
}

#[test]
fn sockets_are_listed_by_their_peer_and_their_namespace() {
    with_sockets(|| {
        let map = storage_map();
        let listener = TcpListener::bind("[::]:0").expect("listen");
        let port = listener.local_addr().expect("its address").port();
        let (ipv4, _ipv4) = tcp("127.0.0.1", &listener);
        let (mapped, _mapped) = tcp("[::ffff:127.0.0.1]", &listener);
        let (ipv6, _ipv6) = tcp("[::1]", &listener);
        let (other, _other) = tcp("127.0.0.2", &listener);
        let datagrams = udp("127.0.0.1:0", &format!("127.0.0.1:{port}"));
        let sockets = [
            ipv4.as_fd(),
            mapped.as_fd(),
            ipv6.as_fd(),
            other.as_fd(),
            datagrams.as_fd(),
        ];
        for (socket, number) in sockets.into_iter().zip(1..) {
            store(&map, socket, number);
        }
        for (peer, expected) in [
            (format!("127.0.0.1:{port}"), &[1, 2, 255][..]),
            (format!("127.0.0.2:{port}"), &[4]),
            (format!("[::1]:{port}"), &[3]),
            ("127.0.0.1:1".to_owned(), &[]),
            (format!("127.0.0.3:{port}"), &[]),
            (format!("[::2]:{port}"), &[]),
        ] {
            let found = list(&map, Some(peer.parse().expect("an address")));
            let found: Vec<u8> = found.iter().map(number).collect();
            assert_eq!(found, expected, "{peer}");
        }
        assert_eq!(list(&map, None).len(), 5);
        assert_eq!(with_sockets(|| list(&map, None)), [], "another namespace");
        let of_another_map = list(&storage_map(), None);
        let numbers: Vec<u8> = of_another_map.iter().map(number).collect();
        assert_eq!(numbers, [u8::MAX], "no TCP socket");
    });
}

#[test]
fn a_socket_is_ended_and_both_sides_get_an_error() {
    with_sockets(|| {
        let map = storage_map();
        let listener = TcpListener::bind("[::]:0").expect("listen");
        for to in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"] {
            let (mut client, mut server) = tcp(to, &listener);
            let (_bystander, mut untouched) = tcp(to, &listener);
            store(&map, &client, 1);
            let [socket] = list(&map, None).try_into().expect("one socket");
            assert!(destroy(&socket), "{to}");
            let error = client.read(&mut [0; 8]).expect_err(to).kind();
            assert_eq!(error, ErrorKind::ConnectionAborted, "{to}");
            let error = server.read(&mut [0; 8]).expect_err(to).kind();
            assert_eq!(error, ErrorKind::ConnectionReset, "{to}");
            assert!(!destroy(&socket), "{to}: it has ended");
            assert_eq!(list(&map, None), [], "{to}");
            untouched.set_nonblocking(true).expect("do not wait");
            let error = untouched.read(&mut [0; 8]).expect_err(to).kind();
            assert_eq!(error, ErrorKind::WouldBlock, "{to}: another connection");
        }
        for (from, to) in [("127.0.0.1:0", "127.0.0.1:9"), ("[::1]:0", "[::1]:9")] {
            let client = udp(from, to);
            store(&map, &client, 1);
            let [socket] = list(&map, None).try_into().expect("one socket");
            assert!(destroy(&socket), "{to}");
            let error = client.recv(&mut [0; 8]).expect_err(to).kind();
            assert_eq!(error, ErrorKind::ConnectionAborted, "{to}");
        }
    });
}

/// Its addresses are no socket's identity.
#[test]
fn a_later_socket_with_the_same_addresses_is_left_alone() {
    with_sockets(|| {
        let map = storage_map();
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let to = server.local_addr().expect("its address").to_string();
        let first = udp("127.0.0.1:0", &to);
        let from = first.local_addr().expect("its address").to_string();
        store(&map, &first, 1);
        let [old] = list(&map, None).try_into().expect("one socket");
        drop(first);
        let second = udp(&from, &to);
        store(&map, &second, 2);
        let [new] = list(&map, None).try_into().expect("one socket");
        assert_eq!((new.local, new.peer), (old.local, old.peer));
        assert_ne!(new.cookie, old.cookie);
        assert!(!destroy(&old), "it is gone");
        server
            .send_to(b"still", second.local_addr().expect("its address"))
            .expect("send");
        assert_eq!(second.recv(&mut [0; 8]).expect("it is served"), 5);
        assert!(destroy(&new));
    });
}

#[test]
fn what_the_kernel_refuses_is_named() {
    with_sockets(|| {
        let map = storage_map();
        let client = udp("127.0.0.1:0", "127.0.0.1:9");
        store(&map, &client, 1);
        let [socket] = list(&map, None).try_into().expect("one socket");
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let other = MapHandle::create(MapType::Hash, Some("other"), 4, 4, 1, &options);
        let refused = |error: SockDiagError| error.to_string();
        let mut sockets = SockDiag::open().expect("open");
        let error = sockets.list(other.expect("make a map"), None, |_| {});
        assert_eq!(
            error.map_err(refused),
            Err("list the host's sockets of tcp: Invalid argument (os error 22)".to_owned())
        );
        drop_capabilities();
        let error = sockets.list(&map, None, |_| {}).map_err(refused);
        let expected = "list the host's sockets of tcp: Operation not permitted (os error 1)";
        assert_eq!(error, Err(expected.to_owned()));
        let error = SockDiag::open()
            .expect("open")
            .destroy(&socket)
            .map_err(refused);
        let (local, peer) = (socket.local, socket.peer);
        let expected =
            format!("end the socket {local} → {peer}: Operation not permitted (os error 1)");
        assert_eq!(error, Err(expected));
        client.set_nonblocking(true).expect("do not wait");
        let error = client
            .recv(&mut [0; 8])
            .expect_err("nothing is sent")
            .kind();
        assert_eq!(error, ErrorKind::WouldBlock, "it has not ended");
    });
}
