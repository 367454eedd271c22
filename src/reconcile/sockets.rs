//! The host's own sockets: programs at their hooks while services are for them, and the end of sockets that use a backend which
//! has left. Nothing here holds up a change: a host without such hooks has all else.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::Reconciler;
use crate::bpf::attach::socket::{self, SOCKET_HOOKS};
use crate::bpf::state::socket_peers::SocketPeers;
use crate::bpf::sys::pins::Pins;
use crate::host_sockets::{self, HostSocket};
use crate::model::service::Frontend;
use crate::model::state::State;
use crate::net::sock_diag::SockDiag;
use crate::net::{self, Cgroup, CgroupError};

/// The programs for sockets, as they are attached.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// This process may attach them to the cgroup of all processes that it sees.
    may_attach: bool,
    /// The number of the cgroup that has the programs of this load.
    pub(super) attached: Option<u64>,
    /// Why they are not attached though they are wanted.
    error: Option<String>,
    /// Sockets can't be ended; it was logged.
    has_logged_ending: bool,
}

impl Reconciler {
    /// From the next change on the host's own sockets are served, too.
    pub fn serve_host_sockets(&mut self) {
        self.sockets.may_attach = true;
    }

    /// Why the programs are not attached though they are wanted, in a sentence. What the host lacks of cgroup2 is checked elsewhere.
    pub fn socket_warning(&self) -> Option<String> {
        let error = self.sockets.error.as_ref()?;
        Some(format!(
            "the host's own sockets do not reach services: {error}"
        ))
    }

    /// Attaches the programs where they are wanted and lacking, and detaches them where they are not wanted. Returns whether
    /// none is left that should not be there.
    pub(super) fn follow_sockets(&mut self) -> bool {
        if !self.sockets.may_attach {
            return true;
        }
        let pins = self.programs.pins().clone();
        if !self.live.as_ref().is_some_and(serves_sockets) {
            self.sockets.attached = None;
            self.sockets.error = None;
            return detach_all(&pins)
                .inspect_err(|error| log::warn!("programs for sockets are not detached: {error:#}"))
                .is_ok();
        }
        if self.sockets.attached.is_some() {
            return true;
        }
        match self.attach_sockets(&pins) {
            Ok(cgroup) => {
                self.sockets.attached = Some(cgroup);
                self.sockets.error = None;
            }
            Err(error) if error.is::<CgroupError>() => self.sockets.error = None,
            Err(error) => self.sockets.error = Some(format!("{error:#}")),
        }
        true
    }

    fn attach_sockets(&self, pins: &Pins) -> Result<u64> {
        anyhow::ensure!(
            socket::is_supported(),
            "this kernel is built without CONFIG_CGROUP_BPF"
        );
        let Cgroup { path, folder, .. } = net::find_cgroup()?;
        let cgroup = folder.as_fd();
        for hook in &SOCKET_HOOKS {
            let program = self.programs.socket_program(hook)?;
            let done = socket::attach(pins, cgroup, hook, program.as_fd());
            let done = done.with_context(|| {
                format!("attach {} to the cgroup {}", hook.program, path.display())
            });
            if let Err(error) = done {
                // All or none: half of them would translate and not undo it.
                if let Err(left) = detach_all(pins) {
                    log::warn!("programs for sockets are not detached: {left:#}");
                }
                return Err(error);
            }
        }
        socket::cgroup_id(cgroup)
    }

    /// Whether something else detached or replaced one of the programs.
    pub(super) fn has_lost_socket_programs(&self) -> bool {
        let Some(cgroup) = self.sockets.attached else {
            return false;
        };
        let pins = self.programs.pins();
        SOCKET_HOOKS.iter().any(|hook| {
            let wanted = self.programs.socket_program_id(hook);
            let wanted = wanted.map(|program| (cgroup, program));
            socket::attached(pins, hook) != wanted
        })
    }

    /// The change that follows attaches them; returns whether some were lost.
    pub(super) fn forget_lost_socket_programs(&mut self) -> bool {
        let is_lost = self.has_lost_socket_programs();
        if is_lost {
            self.sockets.attached = None;
        }
        is_lost
    }

    /// After a commit: ends the sockets whose backend or frontend has left, so that their clients connect again.
    pub(super) fn end_sockets(&mut self, previous: &State) {
        let Some(live) = &self.live else { return };
        let is_same = previous.services == live.services && previous.backends == live.backends;
        // With the last service the programs are gone already, not what they have translated.
        if is_same || !self.sockets.may_attach || !serves_sockets(previous) {
            return;
        }
        match end_stale(self.programs.pins(), live) {
            Ok(0) => {}
            Ok(ended) => log::info!(
                "ended {ended} of the host's sockets: what they were connected to has left its service"
            ),
            Err(error) if !self.sockets.has_logged_ending => {
                self.sockets.has_logged_ending = true;
                log::warn!(
                    "sockets of the host that use a backend which has left its service are not ended, and find out when it \
                     does not answer: {error:#}"
                );
            }
            Err(error) => log::debug!("sockets are not ended: {error:#}"),
        }
    }
}

/// Whether the tables of a state have services for the host's own sockets.
fn serves_sockets(state: &State) -> bool {
    state.settings.netns_cookie != 0 && !state.services.is_empty()
}

/// Detaches the programs; returns whether there were some.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn detach_all(pins: &Pins) -> Result<bool> {
    if !socket::is_held(pins) {
        return Ok(false);
    }
    // What translates first: what undoes it is needed until then.
    for hook in SOCKET_HOOKS.iter().rev() {
        socket::detach(pins, hook).with_context(|| format!("detach {}", hook.program))?;
    }
    Ok(true)
}

/// Ends the sockets whose translation the state does not have any more; returns how many.
fn end_stale(pins: &Pins, live: &State) -> Result<usize> {
    let mut diag = SockDiag::open()?;
    let sockets = host_sockets::list(&mut diag, &SocketPeers::open(pins)?)?;
    let mut ended = 0;
    for found in sockets.iter().filter(|found| !is_valid(live, found)) {
        ended += usize::from(diag.destroy(&found.socket)?);
    }
    Ok(ended)
}

/// Whether what the socket is connected to is still what its frontend stands for.
fn is_valid(live: &State, found: &HostSocket) -> bool {
    let (peer, protocol) = (&found.translated, found.socket.protocol);
    let frontend = Frontend {
        address: peer.frontend.ip(),
        port: peer.frontend.port(),
        protocol,
    };
    let service = live.services.get(&frontend).map(|entry| entry.service);
    let row = live.backends.get(&peer.backend_number);
    service == Some(peer.service)
        && row.is_some_and(|row| {
            (row.service, row.address) == (peer.service, peer.backend) && row.state.keeps(protocol)
        })
}
