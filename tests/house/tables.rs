//! The tables of a generation, through the kernel: what was written is what is read.
//!
//! Needs root.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dpd::bpf::load::load;
use dpd::bpf::state::ct_table::Sizes;
use dpd::bpf::sys::pins::Pins;
use dpd::bpf::tables::generation::Generations;
use dpd::model::forwarding::Forwarding;
use dpd::model::host::LinkAddress;
use dpd::model::maglev::{MaglevKey, MaglevTable};
use dpd::model::policy::{Action, Direction};
use dpd::model::protocol::Protocol;
use dpd::model::service::{BackendState, Frontend};
use dpd::model::state::{
    AddressScope, Backend, Delivery, Endpoint, Enforcement, IpcacheEntry, LutEntry, PolicyEntry,
    PolicyKey, PrefilterEntry, ServiceEntry, Settings, State, Uplink,
};
use ipnet::IpNet;

use super::common::programs::own_bpffs;

/// A state with so many rows in each table, in both families.
fn state(rows: u32) -> State {
    let ip = |number: u32| -> IpAddr {
        match number % 2 {
            0 => Ipv4Addr::from(0x0a00_0000 + number).into(),
            _ => Ipv6Addr::from((0xfd00_0200_u128 << 96) + u128::from(number)).into(),
        }
    };
    let numbers = || 1..=rows;
    let port = |number: u32| (number % 65535) as u16 + 1;
    let frontend = |number| Frontend {
        address: ip(number),
        port: port(number),
        protocol: Protocol::ALL[number as usize % 3],
    };
    let policy_key = |number: u32| {
        let has_port = !number.is_multiple_of(5);
        PolicyKey {
            subject: number,
            class: number / 2,
            direction: match number % 3 {
                0 => Direction::Egress,
                _ => Direction::Ingress,
            },
            protocol: has_port.then_some(17),
            port: if has_port { port(number) } else { 0 },
            port_bits: if has_port { 16 } else { 0 },
        }
    };
    State {
        settings: Settings {
            tcp_ns: 8000,
            rate: rows,
            snat_port_count: rows,
            ..Settings::default()
        },
        services: numbers()
            .map(|n| {
                (
                    frontend(n),
                    ServiceEntry {
                        service: n,
                        lut_first: n - 1,
                        lut_count: n % 2,
                        is_external: n % 3 == 0,
                        has_sources: n % 2 == 0,
                        maglev_first: if n % 4 == 1 { n / 4 * 2 } else { 0 },
                        maglev_size: if n % 4 == 1 { 509 } else { 0 },
                        affinity_ns: 1000 * u64::from(n),
                    },
                )
            })
            .collect(),
        service_sources: defaults()
            .chain(numbers().map(|n| (IpNet::from(ip(n)), n)))
            .map(|(prefix, number)| (number, prefix))
            .collect(),
        backend_lut: numbers()
            .map(|n| LutEntry {
                backend: n,
                alias: n + 1,
                threshold: u32::MAX - n,
            })
            .collect(),
        maglev: numbers()
            .filter(|n| n % 4 == 1)
            .map(|n| {
                let key = MaglevKey {
                    service: n,
                    is_ipv4: ip(n).is_ipv4(),
                    protocol: frontend(n).protocol,
                };
                let table = MaglevTable {
                    first_row: n / 4 * 2,
                    columns: (n as u16..).take(509).collect(),
                    backends: None,
                };
                (key, table)
            })
            .collect(),
        backends: numbers()
            .map(|n| {
                let address = SocketAddr::new(ip(n), port(n));
                let state = BackendState::Draining;
                (
                    n,
                    Backend {
                        service: n,
                        address,
                        state,
                        weight: n as u16,
                        is_picked: n % 2 == 0,
                    },
                )
            })
            .collect(),
        endpoints: numbers()
            .map(|n| {
                let mac = [2, 0, 0, 0, (n >> 8) as u8, n as u8];
                let (ingress, egress) = (Enforcement::On, Enforcement::DenyOnly);
                (
                    n,
                    Endpoint {
                        identity: n,
                        delivery: Delivery::Direct,
                        src_mac: mac,
                        dst_mac: mac,
                        ingress,
                        egress,
                        counters_index: n,
                        link_ifindex: n,
                        mtu: 1500,
                        host: Default::default(),
                        multicast: false,
                        names_link_local: false,
                        link_local: IpcacheEntry {
                            identity: n,
                            class: 1,
                            is_world: false,
                            snat: Default::default(),
                            external_frontend: Default::default(),
                            scope: AddressScope::Remote,
                        },
                    },
                )
            })
            .collect(),
        uplinks: numbers()
            .map(|n| {
                let forwarding = match n % 2 {
                    0 => Forwarding::Direct,
                    _ => Forwarding::Stack,
                };
                let uplink = Uplink {
                    forwarding,
                    reverse_path: Default::default(),
                    prefilters: false,
                    host: Default::default(),
                    masquerade: Default::default(),
                    snat: Default::default(),
                };
                (n, uplink)
            })
            .collect(),
        snat_ports: (1024..).take(rows as usize).collect(),
        announced: numbers()
            .map(|n| {
                let (ifindex, address) = (n % 7 + 1, ip(n));
                (LinkAddress { ifindex, address }, [2, 0, 0, 0, 0, n as u8])
            })
            .collect(),
        ipcache: defaults()
            .chain(numbers().map(|n| (IpNet::from(ip(n)), n)))
            .map(address_row)
            .collect(),
        policy: numbers()
            .map(|n| {
                (
                    policy_key(n),
                    PolicyEntry {
                        action: Action::Deny,
                        rule: n,
                    },
                )
            })
            .collect(),
        prefilter: defaults()
            .chain(numbers().map(|n| (IpNet::from(ip(n)), n)))
            .map(|(prefix, number)| (prefix, PrefilterEntry { number }))
            .collect(),
        ..State::default()
    }
}

/// All addresses of a family, and prefixes within: the longest one counts.
fn defaults() -> impl Iterator<Item = (IpNet, u32)> {
    let texts = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00:200::/32"];
    let nets = texts.map(|text| text.parse().expect("a prefix"));
    nets.into_iter().zip(900_000..)
}

fn address_row((prefix, number): (IpNet, u32)) -> (IpNet, IpcacheEntry) {
    let place = match number % 3 {
        0 => AddressScope::Endpoint { ifindex: number },
        1 => AddressScope::Host,
        _ => AddressScope::Pending,
    };
    (
        prefix,
        IpcacheEntry {
            identity: number,
            class: number + 7,
            is_world: number.is_multiple_of(2),
            snat: Default::default(),
            external_frontend: Default::default(),
            scope: place,
        },
    )
}

#[test]
fn what_was_written_is_read() {
    let thread = std::thread::spawn(|| {
        let pins = Pins::new(&own_bpffs());
        pins.make_dirs().expect("make the folders for pins");
        let _load = load(&pins, &Sizes { connections: 1024 }).expect("load the programs");
        let mut generations = Generations::open(&pins).expect("open the tables");
        assert_eq!(
            generations.read().expect("read"),
            None,
            "before the first generation"
        );
        let mut live = None;
        // Full, one row less than full, next to nothing, nothing, and full again.
        for rows in [3000, 2999, 1, 0, 3000] {
            let wanted = state(rows);
            let prepared = generations
                .stage(&wanted, live.as_ref())
                .expect("write the tables");
            generations.commit(prepared);
            let read = generations
                .read()
                .expect("read")
                .expect("there is a generation");
            assert_eq!(counts(&read), counts(&wanted), "{rows} rows");
            assert!(read == wanted, "{rows} rows: a row differs");
            live = Some(wanted);
        }
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn counts(state: &State) -> BTreeMap<&'static str, usize> {
    BTreeMap::from([
        ("services", state.services.len()),
        ("service_sources", state.service_sources.len()),
        ("backend_lut", state.backend_lut.len()),
        ("maglev", state.maglev.len()),
        ("backends", state.backends.len()),
        ("endpoints", state.endpoints.len()),
        ("uplinks", state.uplinks.len()),
        ("snat_ports", state.snat_ports.len()),
        ("announced", state.announced.len()),
        ("addresses", state.ipcache.len()),
        ("policy", state.policy.len()),
        ("prefilter", state.prefilter.len()),
    ])
}
