//! Other tools' programs on our hooks. They are left alone and reported.

use super::hooks::xdp_modes;
use super::{Reconciler, interface_name};
use crate::bpf::attach::hook::Role;
use crate::bpf::attach::{self, xdp};
use crate::model::state::State;
use crate::model::xdp::XdpMode;

impl Reconciler {
    /// A sentence for each program of another tool that sees packets before ours, or is in the place of ours.
    pub fn foreign(&self) -> Vec<String> {
        let Some(live) = &self.live else {
            return Vec::new();
        };
        let mut sentences = self.foreign_ahead(live);
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

    /// Programs that see packets before ours: they could bypass policy.
    fn foreign_ahead(&self, live: &State) -> Vec<String> {
        let mut sentences = Vec::new();
        let own = self.programs.program_ids();
        for (&ifindex, &role) in &self.attached {
            let is_first =
                |hook| own[&hook].is_some() && attach::first_program(ifindex, hook) == own[&hook];
            let [from, to] = role.hooks();
            if is_first(from) && (role == Role::Uplink || is_first(to)) {
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
