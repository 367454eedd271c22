//! Backends by identity: those that are there now.

use crate::config::{Config, Members};
use crate::model::host::HostState;

/// The workloads of identities that are backends now: a pending endpoint is none.
pub fn ready_members<'c>(config: &'c Config, host: &HostState) -> Members<'c> {
    Members::new(config, |interface| host.links.contains_key(interface))
}

#[cfg(test)]
mod tests {
    use crate::config::XdpMode;
    use crate::model::service::{Algorithm, Locality};
    use crate::model::state::State;
    use crate::plan::testing::{TestConfig, frontend, ip};

    const FRONTENDS: &str = "10.32.0.1:80/tcp [fd00:32::1]:80/tcp";

    /// Workloads of `web` here and behind node-b, and others.
    fn test() -> TestConfig {
        let mut test = TestConfig::new()
            .identity("web", 300, "")
            .identity("db", 301, "")
            .identity("nobody", 302, "")
            .identity("prefixes", 303, "")
            .cidrs("prefixes", "10.5.0.1 10.6.0.0/16")
            .endpoint("two", "web", "10.1.1.2 fd00:1::2")
            .endpoint("one", "web", "10.1.1.1 10.1.4.0/24 fe80::1")
            .endpoint("db", "db", "10.1.3.1")
            .endpoint("gone", "web", "10.1.1.9")
            .endpoint("net", "prefixes", "10.1.5.0/24")
            .node("node-b", "192.0.2.2", "10.2.0.0/16 fd00:2::/64")
            .node_endpoints("node-b", "10.2.0.1=web fd00:2::1=web 10.2.0.3=db");
        test.host.links.remove("lxc-gone");
        test
    }

    /// The backends, as `10.1.1.1:80*2!draining` and the identity that they came by.
    fn backends(state: &State) -> Vec<String> {
        let mut texts: Vec<String> = state
            .backends
            .iter()
            .map(|(number, row)| {
                let info = &state.catalog.backends[number];
                assert_eq!(info.address, row.address);
                let origin = info.identity.as_deref().unwrap_or("file");
                format!("{}*{}!{} {origin}", row.address, row.weight, row.state)
            })
            .collect();
        texts.sort();
        texts
    }

    #[test]
    fn an_identity_stands_for_the_single_addresses_of_its_workloads() {
        let web = [
            "10.1.1.1:80*1!active web",
            "10.1.1.2:80*1!active web",
            "10.2.0.1:80*1!active web",
            "[fd00:1::2]:80*1!active web",
            "[fd00:2::1]:80*1!active web",
        ];
        let rows: [(&str, &str, &[&str]); 7] = [
            ("its workloads here and there", "@web:80", &web),
            ("nobody has it", "@nobody:80", &[]),
            ("prefixes alone have it", "@prefixes:80", &[]),
            (
                "weight and state are each backend's",
                "@db:5432*7!draining",
                &["10.1.3.1:5432*7!draining db", "10.2.0.3:5432*7!draining db"],
            ),
            (
                "with others by address",
                "@db:80 10.9.0.1:80*3",
                &[
                    "10.1.3.1:80*1!active db",
                    "10.2.0.3:80*1!active db",
                    "10.9.0.1:80*3!active file",
                ],
            ),
            (
                "what the file says of an address takes precedence",
                "@db:80 10.1.3.1:80*1!draining 10.2.0.3:81",
                &[
                    "10.1.3.1:80*1!draining file",
                    "10.2.0.3:80*1!active db",
                    "10.2.0.3:81*1!active file",
                ],
            ),
            (
                "two ports of an identity",
                "@db:80 @db:81*0",
                &[
                    "10.1.3.1:80*1!active db",
                    "10.1.3.1:81*0!active db",
                    "10.2.0.3:80*1!active db",
                    "10.2.0.3:81*0!active db",
                ],
            ),
        ];
        for (what, by, expected) in rows {
            let state = test().service("s", FRONTENDS, by).compile();
            assert_eq!(backends(&state), expected, "{what}");
        }
    }

    #[test]
    fn a_backend_comes_and_leaves_with_its_endpoint() {
        let with = test().service("s", FRONTENDS, "@web:80");
        let first = with.compile();
        let mut joined = with.clone();
        let link = joined.host.links["lxc-one"].clone();
        joined.host.links.insert("lxc-gone".to_owned(), link);
        let second = joined.compile_after(&first);
        assert_eq!(second.backends.len(), first.backends.len() + 1);
        for (number, row) in &first.backends {
            assert_eq!(second.backends.get(number), Some(row), "the rest stays");
        }
        joined.config.interfaces.remove("lxc-two");
        let third = joined.compile_after(&second);
        let columns = |state: &State, text: &str| {
            let entry = &state.services[&frontend(text)];
            let first = entry.lut_first as usize;
            let columns = state.backend_lut[first..][..entry.lut_count as usize].iter();
            let picked = columns.map(|row| state.backends[&row.backend].address.ip());
            let mut picked: Vec<_> = picked.collect();
            picked.sort();
            picked
        };
        assert_eq!(
            columns(&third, "10.32.0.1:80/tcp"),
            ["10.1.1.1", "10.1.1.9", "10.2.0.1"].map(ip)
        );
        assert_eq!(columns(&third, "[fd00:32::1]:80/tcp"), [ip("fd00:2::1")]);
    }

    #[test]
    fn the_order_of_the_file_is_ignored() {
        let test = |by: &str| test().service("s", FRONTENDS, by);
        let first = test("@web:80 @db:80 10.9.0.1:80").compile();
        let second = test("10.9.0.1:80 @db:80 @web:80").compile_after(&first);
        assert_eq!(first, second);
    }

    #[test]
    fn locality_concerns_them() {
        let only = |by: &str, locality| {
            let mut test = test().service("s", "10.32.0.1:80/tcp", by);
            test.config.services.get_mut("s").unwrap().locality = locality;
            let state = test.compile();
            let picked = state.backend_lut.iter();
            let mut picked: Vec<_> = picked
                .map(|row| state.backends[&row.backend].address.ip())
                .collect();
            picked.sort();
            (
                picked,
                super::super::warnings(&test.config, &test.host).len(),
            )
        };
        let here = ["10.1.1.1", "10.1.1.2"].map(ip).to_vec();
        assert_eq!(only("@web:80", Locality::Prefer), (here.clone(), 0));
        // The warning: no workload here has an address of IPv6 that the service leads to.
        assert_eq!(only("@web:80", Locality::Only), (here, 0));
        assert_eq!(only("10.2.0.1:80", Locality::Only), (vec![], 1));
    }

    #[test]
    fn a_maglev_table_has_room_for_all_of_them() {
        for (by, expected) in [("@nobody:80", 251), ("@db:80", 251), ("@web:80", 509)] {
            let mut test = test().service("s", "10.32.0.1:80/tcp", by);
            test.config.services.get_mut("s").unwrap().algorithm = Algorithm::Maglev;
            let state = test.compile();
            let entry = &state.services[&frontend("10.32.0.1:80/tcp")];
            assert_eq!(entry.maglev_size, expected, "{by}");
        }
    }

    #[test]
    fn node_ports_answer_in_both_families_with_any_members() {
        for (by, expected) in [("@nobody:80", 2), ("@db:80", 2), ("10.9.0.1:80", 1)] {
            let test = test()
                .uplink("ens5", XdpMode::Auto)
                .service("s", "", by)
                .external("s", "8443/tcp");
            assert_eq!(test.compile().services.len(), expected, "{by}");
        }
    }

    #[test]
    fn the_endpoints_of_nodes_replace_the_cidrs_of_identities() {
        let plain = TestConfig::new()
            .identity("web", 300, "")
            .uplink("ens5", XdpMode::Auto)
            .node("node-b", "192.0.2.2", "10.2.0.0/16")
            .policy("p", "web", Some("allow world;deny cidr:10.2.0.0/24"), None);
        let cidrs = plain.clone().cidrs("web", "10.2.0.1 10.2.1.1");
        let endpoints = plain.node_endpoints("node-b", "10.2.0.1=web 10.2.1.1=web");
        assert_eq!(cidrs.compile(), endpoints.compile());
    }
}
