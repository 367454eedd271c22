//! What is left out of the configuration and of the host where the kernel refuses an interface its programs, so that nothing
//! else waits for that one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Error;

use crate::config::{Config, Interface};
use crate::model::host::HostState;
use crate::model::xdp::XdpMode;
use crate::reconcile::{AttachError, HookKind};

/// So many interfaces may be left out whole, and never all of those that are there. If more can't have programs, it is not
/// the interfaces.
const LEFT_OUT_MAX: usize = 8;

/// Programs that the kernel refuses to put on an interface, each with the error.
#[derive(Debug, Default)]
pub struct SkippedInterfaces(BTreeMap<AttachError, String>);

impl SkippedInterfaces {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves one more out of those that are there; answers whether that is worth another try.
    pub fn add(&mut self, refused: &AttachError, error: &Error, there: usize) -> bool {
        let whole = self.0.keys().filter(|refused| refused.kind == HookKind::Tc);
        let has_room = match refused.kind {
            HookKind::Tc => whole.count() < LEFT_OUT_MAX.min(there.saturating_sub(1)),
            HookKind::Xdp => true,
        };
        let is_new = has_room && !self.0.contains_key(refused);
        if is_new {
            self.0.insert(refused.clone(), format!("{error:#}"));
        }
        is_new
    }

    /// What is left of the host.
    pub fn world<'a>(&self, world: &'a HostState) -> Cow<'a, HostState> {
        let mut left = Cow::Borrowed(world);
        for refused in self.0.keys().filter(|refused| refused.kind == HookKind::Tc) {
            if left.links.contains_key(&refused.interface) {
                left.to_mut().links.remove(&refused.interface);
            }
        }
        left
    }

    /// What is left of the configuration: an uplink that can't have XDP still has the rest.
    pub fn config(&self, config: &Arc<Config>) -> Arc<Config> {
        let mut left = config.clone();
        for refused in self
            .0
            .keys()
            .filter(|refused| refused.kind == HookKind::Xdp)
        {
            let interfaces = &mut Arc::make_mut(&mut left).interfaces;
            if let Some(Interface::Uplink { xdp }) = interfaces.get_mut(&refused.interface) {
                *xdp = XdpMode::Off;
            }
        }
        left
    }

    /// What is to be said of them; `None`: nothing.
    pub fn error(&self) -> Option<String> {
        let errors: Vec<&str> = self.0.values().map(String::as_str).collect();
        (!errors.is_empty()).then(|| {
            format!(
                "left out until the kernel takes it, while everything else is followed: {}",
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
    fn what_is_left_out_is_gone_for_the_datapath_and_nothing_else_is() {
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
            addresses: std::collections::BTreeSet::new(),
            peer: None,
        };
        let mut world = HostState::default();
        world.links.insert("up0".to_owned(), link(2));
        world.links.insert("up1".to_owned(), link(3));

        let mut out = SkippedInterfaces::default();
        assert!(matches!(out.world(&world), Cow::Borrowed(_)));
        assert!(Arc::ptr_eq(&out.config(&config), &config));
        assert_eq!(out.error(), None);

        assert!(out.add(&refused("up0", HookKind::Xdp), &anyhow!("no driver"), 1));
        assert!(!out.add(&refused("up0", HookKind::Xdp), &anyhow!("once more"), 3));
        assert!(out.add(&refused("up1", HookKind::Tc), &anyhow!("no room"), 3));
        let left: Vec<String> = out.world(&world).links.keys().cloned().collect();
        assert_eq!(left, ["up0"]);
        let interfaces = &out.config(&config).interfaces;
        assert_eq!(
            interfaces["up0"],
            Interface::Uplink { xdp: XdpMode::Off },
            "the rest of its programs stay"
        );
        let error = out.error().unwrap();
        assert!(error.contains("no driver; no room"), "{error}");
    }

    #[test]
    fn a_kernel_that_refuses_all_is_no_fault_of_interfaces() {
        let mut out = SkippedInterfaces::default();
        for number in 0..LEFT_OUT_MAX {
            let refused = refused(&number.to_string(), HookKind::Tc);
            assert!(out.add(&refused, &anyhow!("no"), 1000));
        }
        assert!(!out.add(&refused("one more", HookKind::Tc), &anyhow!("no"), 1000));
        let mut out = SkippedInterfaces::default();
        assert!(!out.add(&refused("the only one", HookKind::Tc), &anyhow!("no"), 1));
    }
}
