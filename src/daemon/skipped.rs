//! Interfaces that are skipped because the kernel refuses their programs, so that the rest of a change is applied.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Error;

use crate::config::{Config, Interface};
use crate::model::host::HostState;
use crate::model::xdp::XdpMode;
use crate::reconcile::{AttachError, HookKind};

/// Interfaces that may be skipped as a whole, and never all of those present. If more are refused, the interfaces are
/// not the cause.
const SKIPPED_MAX: usize = 8;

/// Programs that the kernel refuses to attach to an interface, each with the error.
#[derive(Debug, Default)]
pub struct SkippedInterfaces(BTreeMap<AttachError, String>);

impl SkippedInterfaces {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Skips one more of the `present` interfaces; returns whether the change may be tried again without it.
    pub fn add(&mut self, refused: &AttachError, error: &Error, present: usize) -> bool {
        let whole = self.0.keys().filter(|refused| refused.kind == HookKind::Tc);
        let has_room = match refused.kind {
            HookKind::Tc => whole.count() < SKIPPED_MAX.min(present.saturating_sub(1)),
            HookKind::Xdp | HookKind::Link => true,
        };
        let is_new = has_room && !self.0.contains_key(refused);
        if is_new {
            self.0.insert(refused.clone(), format!("{error:#}"));
        }
        is_new
    }

    /// The host without the interfaces that are skipped as a whole.
    pub fn host<'a>(&self, host: &'a HostState) -> Cow<'a, HostState> {
        let mut left = Cow::Borrowed(host);
        for refused in self
            .0
            .keys()
            .filter(|refused| refused.kind != HookKind::Xdp)
        {
            if left.links.contains_key(&refused.interface) {
                left.to_mut().links.remove(&refused.interface);
            }
        }
        left
    }

    /// The configuration without the skipped XDP programs: such an uplink keeps its tc programs.
    pub fn config(&self, config: &Arc<Config>) -> Arc<Config> {
        let mut left = config.clone();
        for refused in self
            .0
            .keys()
            .filter(|refused| refused.kind == HookKind::Xdp)
        {
            let interfaces = &mut Arc::make_mut(&mut left).interfaces;
            if let Some(Interface::Uplink { xdp, .. }) = interfaces.get_mut(&refused.interface) {
                *xdp = XdpMode::Off;
            }
        }
        left
    }

    /// The error to report; `None` if nothing is skipped.
    pub fn error(&self) -> Option<String> {
        let errors: Vec<&str> = self.0.values().map(String::as_str).collect();
        (!errors.is_empty()).then(|| {
            format!(
                "skipped until the kernel accepts it, everything else is applied: {}",
                errors.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::config::Source;
    use crate::model::host::Link;

    fn refused(interface: &str, kind: HookKind) -> AttachError {
        AttachError {
            interface: interface.to_owned(),
            kind,
        }
    }

    #[test]
    fn only_what_is_skipped_is_removed_from_host_and_configuration() {
        let source = Source {
            path: "config.toml".into(),
            text: "[interfaces.up0]\nrole = \"uplink\"\nxdp = \"native\"\n[interfaces.up1]\nrole = \"uplink\"\n".into(),
        };
        let config = Arc::new(crate::config::parse(vec![source]).unwrap());
        let link = |ifindex| Link {
            ifindex,
            mac: [2; 6],
            mtu: 1500,
            up: true,
            ..Link::default()
        };
        let mut host = HostState::default();
        host.links.insert("up0".to_owned(), link(2));
        host.links.insert("up1".to_owned(), link(3));

        let mut skipped = SkippedInterfaces::default();
        assert!(matches!(skipped.host(&host), Cow::Borrowed(_)));
        assert!(Arc::ptr_eq(&skipped.config(&config), &config));
        assert_eq!(skipped.error(), None);

        assert!(skipped.add(&refused("up0", HookKind::Xdp), &anyhow!("no driver"), 1));
        assert!(!skipped.add(&refused("up0", HookKind::Xdp), &anyhow!("once more"), 3));
        assert!(skipped.add(&refused("up1", HookKind::Tc), &anyhow!("no room"), 3));
        let left: Vec<String> = skipped.host(&host).links.keys().cloned().collect();
        assert_eq!(left, ["up0"]);
        let interfaces = &skipped.config(&config).interfaces;
        assert_eq!(
            interfaces["up0"],
            Interface::Uplink {
                xdp: XdpMode::Off,
                forwarding: crate::config::ForwardingMode::Auto,
                masquerade: Default::default(),
                l2_announce: false,
            },
            "its tc programs stay"
        );
        let error = skipped.error().unwrap();
        assert!(error.contains("no driver; no room"), "{error}");
    }

    #[test]
    fn neither_many_interfaces_nor_all_are_skipped() {
        let mut skipped = SkippedInterfaces::default();
        for number in 0..SKIPPED_MAX {
            let refused = refused(&number.to_string(), HookKind::Tc);
            assert!(skipped.add(&refused, &anyhow!("no"), 1000));
        }
        assert!(!skipped.add(&refused("one more", HookKind::Tc), &anyhow!("no"), 1000));
        let mut skipped = SkippedInterfaces::default();
        assert!(!skipped.add(&refused("the only one", HookKind::Tc), &anyhow!("no"), 1));
    }
}
