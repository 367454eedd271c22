//! Other tools' programs on our hooks. They are left alone and reported.

use super::hooks::xdp_modes;
use super::{Reconciler, interface_name};
use crate::bpf::attach::hook::{Hook, Role};
use crate::bpf::attach::{self, xdp};
use crate::model::state::{Delivery, State};
use crate::model::xdp::XdpMode;
use crate::plan::forwarding::list_names;

impl Reconciler {
    /// A sentence for each program of another tool that sees packets before ours, or is in the place of ours.
    pub fn foreign(&self) -> Vec<String> {
        let Some(live) = &self.live else {
            return Vec::new();
        };
        let mut sentences = self.foreign_ahead(live);
        sentences.extend(self.foreign_bypassed(live));
        for (ifindex, mode) in xdp_modes(live) {
            if mode != XdpMode::Auto {
                continue; // in other modes it is an error
            }
            if let Some(foreign) = xdp::find_foreign(self.programs.pins(), ifindex) {
                let interface = interface_name(&live.catalog, ifindex);
                sentences.push(format!(
                    "interface {interface}: another tool's XDP program {foreign} is attached, and the prefilter drops \
                     nothing there: find it with `bpftool net show dev {interface}` and detach it, or set xdp = \"off\" for \
                     this interface"
                ));
            }
        }
        sentences
    }

    /// Programs at the egress of endpoints, which a packet that is redirected to the veth's peer does not pass.
    fn foreign_bypassed(&self, live: &State) -> Option<String> {
        let own = (*self.programs.program_ids().get(&Hook::ToContainer)?)?;
        let is_peer = |ifindex: &u32| {
            let endpoint = live.endpoints.get(ifindex);
            endpoint.is_some_and(|endpoint| endpoint.delivery == Delivery::Peer)
        };
        // Elsewhere the programs are still those of the load before.
        let ours = self.attached.keys().copied().filter(is_peer);
        let with = ours.filter_map(|ifindex| {
            let others = attach::other_programs(ifindex, Hook::ToContainer, own);
            let interface = interface_name(&live.catalog, ifindex);
            (!others.is_empty()).then(|| format!("{interface} ({})", others.join(", ")))
        });
        let with = list_names(&with.collect());
        (!with.is_empty()).then(|| {
            format!(
                "packets that dpd delivers bypass other tools' programs at egress of {with}: attach them inside the \
                 workload's namespace"
            )
        })
    }

    /// Programs that see packets before ours: they could bypass policy.
    fn foreign_ahead(&self, live: &State) -> Vec<String> {
        let mut sentences = Vec::new();
        let own = self.programs.program_ids();
        for (&ifindex, &role) in &self.attached {
            let is_first =
                |hook| own[&hook].is_some() && attach::first_program(ifindex, hook) == own[&hook];
            let [from, to] = role.hooks();
            if is_first(from) && (role != Role::Endpoint || is_first(to)) {
                continue; // the cheap check, for a thousand interfaces
            }
            for found in attach::find(self.programs.pins(), ifindex, role) {
                let interface = interface_name(&live.catalog, ifindex);
                let ours = found.program.name();
                sentences.extend(found.other_programs_first.iter().map(|foreign| {
                    format!(
                        "interface {interface}: another tool's program {foreign} sees packets before {ours}, and could bypass \
                         policy: find it with `bpftool prog show name {foreign}`"
                    )
                }));
            }
        }
        sentences
    }
}
