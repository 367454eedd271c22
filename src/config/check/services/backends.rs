//! The backends of a service, by address and by identity.

use crate::config::check::fields::{Fields, for_each_repeat, parsed};
use crate::config::check::identities;
use crate::config::checked::{Backend, IdentityBackends};
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::source::{Located, Span};
use crate::config::tree::{Data, NamedTable, Table, Value};
use crate::config::value;
use crate::model::families::Families;
use crate::model::service::BackendState;

/// The backends of one service.
#[derive(Default)]
pub struct Backends {
    pub addresses: Vec<Located<Backend>>,
    pub identities: Vec<Located<IdentityBackends>>,
}

impl Backends {
    pub fn read(root: &Table, path: Path, service: &Table, report: &mut Report) -> Backends {
        let list = service.list("backends").map_or(&[][..], |list| list.value);
        let path = path.key("backends");
        let mut backends = Backends::default();
        for (index, item) in list.iter().enumerate() {
            let path = path.item(index);
            match &item.data {
                Data::Text(text) => {
                    let address = parsed(text, item.span, value::backend, report);
                    let default = (1, BackendState::Active);
                    backends
                        .addresses
                        .extend(address.map(|address| by_address(address, default)));
                }
                Data::Table(table) => backends.add(root, (path, item, table), report),
                _ => {}
            }
        }
        backends.refuse_repeats(report);
        backends
    }

    /// Adds the backends of a table.
    fn add(
        &mut self,
        root: &Table,
        (path, item, table): (Path, &Value, &Table),
        report: &mut Report,
    ) {
        let states = [
            BackendState::Active,
            BackendState::Draining,
            BackendState::Maintenance,
        ];
        let words = states.map(|state| (state.to_string(), state));
        let words = words
            .each_ref()
            .map(|(word, state)| (word.as_str(), *state));
        let mut fields = Fields::new(path, table, report);
        let address = fields.parsed("address", value::backend);
        let port = fields.optional_number("port", 1..=u16::MAX.into());
        let weight = fields.number("weight", 0..=u16::MAX.into(), 1);
        let weight = u16::try_from(weight).unwrap_or(1);
        let state = fields.word("state", &words, BackendState::Active);
        let identity = table.text("identity");
        if let Some(identity) = identity {
            identities::check_name(root, identity, &[], report);
        }
        if !refuse_keys((path, item.span, table), report) {
            return;
        }
        let address = address.map(|address| by_address(address, (weight, state)));
        self.addresses.extend(address);
        if let Some((identity, port)) = identity.zip(port) {
            let value = IdentityBackends {
                identity: identity.value.to_owned(),
                port: u16::try_from(port).unwrap_or_default(),
                weight,
                state,
            };
            let span = identity.span;
            self.identities.push(Located { value, span });
        }
    }

    fn refuse_repeats(&self, report: &mut Report) {
        let help = "to give a backend more connections, raise its `weight`";
        for_each_repeat(
            &self.addresses,
            |backend| backend.address,
            |first, again| {
                let message = format!("the backend {} is given twice", again.value.address);
                report
                    .error(again.span, message)
                    .note(first, "first given here")
                    .help(help);
            },
        );
        for_each_repeat(
            &self.identities,
            |backends| (backends.identity.clone(), backends.port),
            |first, again| {
                let IdentityBackends { identity, port, .. } = &again.value;
                let message = format!("the identity `{identity}` with port {port} is given twice");
                report
                    .error(again.span, message)
                    .note(first, "first given here")
                    .help(help);
            },
        );
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.identities.is_empty()
    }

    fn len(&self) -> usize {
        self.addresses.len() + self.identities.len()
    }

    /// How many of a family are there by address.
    pub fn count(&self, is_ipv6: bool) -> usize {
        let addresses = self.addresses.iter();
        let of_family = addresses.filter(|backend| backend.value.address.is_ipv6() == is_ipv6);
        of_family.count()
    }

    /// Whether it may have one of a family: an identity's workloads come and go, and may have addresses of both.
    pub fn may_have(&self, is_ipv6: bool) -> bool {
        let mut addresses = self.addresses.iter();
        !self.identities.is_empty()
            || addresses.any(|backend| backend.value.address.is_ipv6() == is_ipv6)
    }

    /// The ports to which they lead, with the family of each that is known.
    pub fn ports(&self) -> impl Iterator<Item = (Families, Located<u16>)> {
        let addresses = self.addresses.iter().map(|backend| {
            let address = backend.value.address;
            let (value, span) = (address.port(), backend.span);
            (Families::of(address.ip()), Located { value, span })
        });
        let identities = self.identities.iter().map(|backends| {
            let (value, span) = (backends.value.port, backends.span);
            (Families::BOTH, Located { value, span })
        });
        addresses.chain(identities)
    }

    pub fn warn_of_none(&self, service: &NamedTable, report: &mut Report) {
        let is_usable =
            |weight: u16, state: BackendState| weight > 0 && state != BackendState::Maintenance;
        let mut addresses = self.addresses.iter().map(|backend| &backend.value);
        let mut identities = self.identities.iter().map(|backends| &backends.value);
        let has_usable = addresses.any(|backend| is_usable(backend.weight, backend.state))
            || identities.any(|backends| is_usable(backends.weight, backends.state));
        // An invalid backend has been reported, and might have been usable.
        let list = service.table.list("backends");
        let list = list.filter(|list| list.value.len() == self.len());
        if let Some(list) = list.filter(|_| !has_usable) {
            report
                .warning(
                    list.span,
                    format!(
                        "`services.{}` has no backend for new connections",
                        service.name
                    ),
                )
                .help("new connections are rejected at once");
        }
    }
}

fn by_address(
    address: Located<std::net::SocketAddr>,
    (weight, state): (u16, BackendState),
) -> Located<Backend> {
    Located {
        value: Backend {
            address: address.value,
            weight,
            state,
        },
        span: address.span,
    }
}

/// Reports a table that is neither a backend by address nor one by identity, or both; returns whether it is one of the two.
fn refuse_keys((path, span, table): (Path, Span, &Table), report: &mut Report) -> bool {
    let [address, identity, port] = ["address", "identity", "port"].map(|key| table.get(key));
    let (span, message, help) = match (address, identity, port) {
        (Some(_), None, None) | (None, Some(_), Some(_)) => return true,
        (Some(_), Some(identity), _) => (
            identity.key,
            format!("`{path}` has an address and an identity"),
            "an address is one backend, an identity stands for all its workloads: remove one of the two",
        ),
        (Some(_), None, Some(port)) => (
            port.key,
            format!("`{path}` has an address, which has its port, and can't have the key `port`"),
            "remove it: `port` is for backends by `identity`",
        ),
        (None, Some(_), None) => (
            span,
            format!("`{path}` lacks the key `port`"),
            "add `port = …`: the workloads' port",
        ),
        (None, None, _) => (
            span,
            format!("`{path}` lacks the key `address` or `identity`"),
            "add `address = \"ADDRESS:PORT\"`, or `identity = \"NAME\"` and `port = …`",
        ),
    };
    report.error(span, message).help(help);
    false
}
