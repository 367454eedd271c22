//! The walk over the connections: what it counts, and what it takes away.

use std::net::UdpSocket;

use dpd::bpf::attach::Mechanism;
use dpd::bpf::state::conntrack::{Tables, now_ns};
use dpd::model::conntrack::{BackendConnections, ConntrackState};
use dpd::model::protocol::Protocol;

use crate::host::on_host;

const HOUR_NS: u64 = 3_600_000_000_000;

#[test]
fn connections_are_counted_and_the_expired_swept() {
    on_host(|host| {
        let reconciler = host.start(Mechanism::Tcx);
        let settings = &reconciler.live().expect("a configuration").settings;
        let tables = Tables::open(&host.pins()).expect("open the tables");
        assert!(host.asks(), "a question through the service");
        assert!(host.client_pings("10.200.0.44"), "a ping");
        let lonely = UdpSocket::bind("10.200.0.1:0").expect("bind on the host");
        lonely
            .send_to(b"nobody listens", "10.200.0.44:9")
            .expect("send from the host");

        let (tally, counts) = host.reader().conntrack().expect("walk");
        let udp = Protocol::Udp.number();
        let icmp = Protocol::Icmp.number();
        assert_eq!(
            tally.by_state[&(udp, ConntrackState::Replied)],
            1,
            "{tally:?}"
        );
        assert_eq!(tally.by_state[&(icmp, ConntrackState::Established)], 1);
        let catalog = host.reader().catalog().expect("read the catalog");
        let backend = catalog.backends.keys().next().expect("a backend");
        let service = catalog.services.keys().next().expect("a service");
        assert_eq!(
            tally.by_backend,
            [(
                (*service, *backend),
                BackendConnections { tcp: 0, other: 1 }
            )]
            .into(),
            "only the question went through a service"
        );
        let entries: u64 = tally.entries.values().sum();
        assert_eq!((counts.present, counts.evicted), (entries, 0), "{counts:?}");
        assert_eq!(counts.inserted - counts.deleted, entries, "{counts:?}");

        let now = tables.sweep(settings, now_ns()).expect("sweep");
        assert_eq!((now.deleted, now.tally.entries), (0, tally.entries));
        assert_eq!(host.entries(), entries, "nothing is expired");

        // A TCP connection that nobody closes lives for hours; all that is here is over in one.
        let later = tables.sweep(settings, now_ns() + HOUR_NS).expect("sweep");
        assert_eq!(later.deleted, entries, "{later:?}");
        assert!(later.tally.by_state.is_empty(), "expired is not open");
        assert_eq!(host.entries(), 0);
        let (_, counts) = host.reader().conntrack().expect("walk");
        assert_eq!((counts.inserted, counts.deleted), (entries, entries));
        assert_eq!(counts.evicted, 0, "what is swept is not evicted");
        assert!(host.asks(), "and a new one is created");
    });
}
