//! What the network may reach of a service.

use ipnet::IpNet;

use super::backends::Backends;
use super::frontends::{Frontends, family};
use crate::config::check::fields::{Fields, refuse_repeats, values};
use crate::config::source::Located;
use crate::config::tree::NamedTable;
use crate::config::{shape, value};
use crate::model::prefix;

/// How clients of the network reach a backend on another host.
#[derive(Clone, Copy)]
enum Remote {
    Snat,
    Dsr,
}

/// Whether the network reaches the service, which node ports are for.
pub fn read(service: &NamedTable, frontends: &Frontends, fields: &mut Fields) -> bool {
    let is_internal = is_internal(service);
    for node_port in frontends.node_ports.iter().filter(|_| is_internal) {
        let message = format!("{} needs `external = true`", node_port.value);
        fields
            .report
            .error(node_port.span, message)
            .help("add the key, or name an address that workloads reach the service at");
    }
    check_remote(fields);
    fields.switch("external", false)
}

/// Whether the file says so; not if its value is wrong, which has been reported.
fn is_internal(service: &NamedTable) -> bool {
    match service.table.switch("external") {
        Some(external) => !external.value,
        None => !service.table.has("external"),
    }
}

fn check_remote(fields: &mut Fields) {
    let words = [("snat", Remote::Snat), ("dsr", Remote::Dsr)];
    let remote = fields.parsed("remote", |text| value::word(text, &words));
    if let Some(Located {
        value: Remote::Dsr,
        span,
    }) = remote
    {
        let message = shape::not_supported("remote = \"dsr\"");
        fields
            .report
            .error(span, message)
            .help("use \"snat\", or omit the key");
    }
}

/// Who of the network may reach an external service.
pub fn sources(
    service: &NamedTable,
    (frontends, backends): (&Frontends, &Backends),
    fields: &mut Fields,
) -> Vec<IpNet> {
    let sources = fields.parsed_list("sources", value::prefix);
    let sources = sources.unwrap_or_default();
    fields.refuse_empty("sources", "without the key everybody may reach the service");
    refuse_repeats(&sources, |source| prefix::text(*source), fields.report);
    if let Some(key) = service.table.get("sources")
        && is_internal(service)
    {
        let message = format!(
            "`services.{}.sources` needs `external = true`",
            service.name
        );
        fields
            .report
            .error(key.key, message)
            .help("it concerns the network alone: for workloads, write a policy of the backends");
    }
    for source in sources.iter().filter(|_| !frontends.is_empty()) {
        let is_ipv6 = source.value.addr().is_ipv6();
        if !frontends.have(is_ipv6, backends) {
            let message = format!(
                "no frontend of this service is {}, but this source is",
                family(is_ipv6)
            );
            let help = format!("remove it, or add an {} frontend", family(is_ipv6));
            fields.report.error(source.span, message).help(help);
        }
    }
    values(sources)
}
