//! What the host lacks for the file, and what packets bypass there: sentences for `check`, `status` and the log.

use super::{announce, external, forwarding, services, snat, translators};
use crate::config::Config;
use crate::model::host::HostState;

pub fn warnings(config: &Config, host: &HostState) -> Vec<String> {
    let parts = [
        forwarding::bypassed,
        snat::warnings,
        translators::warnings,
        external::warnings,
        services::warnings,
        announce::warnings,
    ];
    parts.iter().flat_map(|part| part(config, host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ForwardingMode, Interface, XdpMode};
    use crate::model::families::Families;
    use crate::model::forwarding::{StackFilter, StackHook};
    use crate::model::service::Locality;
    use crate::plan::testing::{TestConfig, ip};

    #[test]
    fn the_warnings_of_all_parts_are_collected() {
        let mut test = TestConfig::new()
            .uplink("ens5", XdpMode::Auto)
            .service("s", "203.0.113.1:80/tcp", "10.9.0.1:80 192.0.2.1:80")
            .external("s", "");
        assert_eq!(
            warnings(&test.config, &test.host).len(),
            1,
            "a backend of the host"
        );
        test.config.services.get_mut("s").unwrap().locality = Locality::Only;
        let uplink = Interface::Uplink {
            xdp: XdpMode::Auto,
            l2_announce: false,
            forwarding: ForwardingMode::Auto,
            masquerade: Families::BOTH,
        };
        test.config.interfaces.insert("ens5".to_owned(), uplink);
        test.host.addresses.remove(&ip("2001:db8::1"));
        test.host.stack.filters.insert(StackFilter {
            hook: StackHook::Routing,
            name: "nat/post".to_owned(),
            why: "has rules",
            translates: Families::IPV4,
        });
        let found = warnings(&test.config, &test.host);
        for part in [
            "masquerade = \"both\" bypasses nat/post",
            "ens5 masquerades IPv6, of which the host has no address",
            "both masquerade = \"both\" and nat/post may translate",
            "the backend 192.0.2.1:80, an address of the host",
            "service s has locality = \"only\"",
        ] {
            let with = found.iter().filter(|warning| warning.contains(part));
            assert_eq!(with.count(), 1, "{part}: {found:?}");
        }
    }
}
