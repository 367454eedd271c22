//! `dpd service wait`: until a backend has no connection left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::bpf::reader::{Part, Reader};
use crate::cli::node::Node;
use crate::cli::output::{self, span};
use crate::cli::poll::poll;
use crate::config::parse_duration;
use crate::host_sockets;
use crate::model::catalog::{BackendInfo, Catalog};
use crate::model::service::BackendState;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The service's name or number.
    name: String,
    /// The backend: its address and port, or its number.
    backend: String,
    /// Fail if it has connections then: 250ms, 5s, 10m, 3h. Default: wait without end.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// # Errors
/// If the service has no such backend, the time is over, or the datapath can't be read.
pub fn run(node: &Node, arguments: &Arguments) -> Result<()> {
    let state = node.reader()?.parts(&[Part::Services])?;
    let (number, info) = find(&state.catalog, &arguments.name, &arguments.backend)?;
    let (name, address) = (&arguments.name, info.address);
    if let Some(row) = state.backends.get(&number).filter(|row| row.is_picked) {
        let why = match row.state {
            BackendState::Draining => "no other backend is active",
            _ => "set its state to \"draining\" in the file",
        };
        eprintln!("note: backend {address} gets new connections meanwhile: {why}");
    }
    let mut backend = WaitedBackend {
        service: info.service,
        number,
        state: None,
    };
    match poll(arguments.timeout, || backend.look(node))? {
        Ok(()) => output::print(&format!(
            "backend {address} of service {name} has no connection left\n"
        )),
        Err(left) => {
            let plural = if left == 1 { "" } else { "s" };
            let timeout = span(arguments.timeout.unwrap_or_default());
            bail!(
                "backend {address} of service {name} has {left} connection{plural} left after {timeout}: \
                 `dpd ct list` shows them"
            );
        }
    }
}

struct WaitedBackend {
    service: u32,
    number: u32,
    /// Its state in the generation of this epoch, if it is in it: reading one takes long with a large file.
    state: Option<(u64, Option<BackendState>)>,
}

impl WaitedBackend {
    /// How many open connections are left.
    fn look(&mut self, node: &Node) -> Result<Result<(), u64>> {
        // The datapath may have been replaced since the last look.
        let Some(reader) = Reader::find(&node.bpf_root)? else {
            return Ok(Ok(()));
        };
        let epoch = reader.epoch()?;
        let state = match self.state {
            Some((known, state)) if known == epoch => state,
            _ => self.state_in(&reader, epoch)?,
        };
        self.state = Some((epoch, state));
        let Some(state) = state else {
            return Ok(Ok(()));
        };
        let (mut open, _) = reader.conntrack()?;
        host_sockets::count_untracked(reader.pins(), &mut open.by_backend)?;
        let open = open.by_backend.get(&(self.service, self.number));
        Ok(match open.copied().unwrap_or_default().kept(state) {
            0 => Ok(()),
            left => Err(left),
        })
    }

    fn state_in(&self, reader: &Reader, epoch: u64) -> Result<Option<BackendState>> {
        if epoch == 0 {
            return Ok(None);
        }
        let state = reader.parts(&[Part::Services])?;
        Ok(state.backends.get(&self.number).map(|row| row.state))
    }
}

/// The backend by its address, or its number.
///
/// # Errors
/// If there is no such service or backend, with those that there are.
fn find<'a>(catalog: &'a Catalog, service: &str, backend: &str) -> Result<(u32, &'a BackendInfo)> {
    let services = catalog.services.iter();
    let mut services =
        services.filter(|(number, info)| info.name == service || number.to_string() == service);
    let Some((service_number, _)) = services.next() else {
        bail!("the datapath has no service {service:?}: see `dpd service list`");
    };
    let of_service: BTreeMap<SocketAddr, (u32, &BackendInfo)> = catalog
        .backends
        .iter()
        .filter(|(_, info)| info.service == *service_number)
        .map(|(number, info)| (info.address, (*number, info)))
        .collect();
    let address: Option<SocketAddr> = backend.parse().ok();
    let found = of_service
        .values()
        .find(|(number, info)| address == Some(info.address) || number.to_string() == backend);
    let Some(found) = found else {
        let all: Vec<String> = of_service.keys().map(SocketAddr::to_string).collect();
        match all.is_empty() {
            true => bail!("service {service} has no backend"),
            false => bail!(
                "service {service} has no backend {backend:?}: it has {}",
                all.join(", ")
            ),
        }
    };
    Ok(*found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::ServiceInfo;

    #[test]
    fn a_backend_is_found_by_its_address_or_number() {
        let service = |name: &str| ServiceInfo {
            name: name.to_owned(),
            ..ServiceInfo::default()
        };
        let backend = |service, address: &str| BackendInfo {
            service,
            address: address.parse().unwrap(),
            identity: None,
            drains_since_ns: None,
        };
        let catalog = Catalog {
            services: [
                (1, service("web")),
                (2, service("dns")),
                (3, service("none")),
            ]
            .into(),
            backends: [
                (4, backend(1, "10.0.0.1:80")),
                (5, backend(1, "[fd00::1]:80")),
                (6, backend(2, "10.0.0.1:80")),
            ]
            .into(),
            ..Catalog::default()
        };
        let rows = [
            ("web", "10.0.0.1:80", Ok(4)),
            ("dns", "10.0.0.1:80", Ok(6)),
            ("1", "[fd00::1]:80", Ok(5)),
            ("web", "5", Ok(5)),
            (
                "web",
                "10.0.0.1:81",
                Err("service web has no backend \"10.0.0.1:81\": it has 10.0.0.1:80, [fd00::1]:80"),
            ),
            (
                "web",
                "6",
                Err("service web has no backend \"6\": it has 10.0.0.1:80, [fd00::1]:80"),
            ),
            ("none", "10.0.0.1:80", Err("service none has no backend")),
            (
                "wep",
                "10.0.0.1:80",
                Err("the datapath has no service \"wep\": see `dpd service list`"),
            ),
        ];
        for (service, text, expected) in rows {
            let found = find(&catalog, service, text);
            let found = found
                .map(|(number, _)| number)
                .map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{service} {text}");
        }
    }
}
