//! Follows the host: interfaces come, go and change, and what the configuration means for them is applied.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Daemon;
use super::left_out::SkippedInterfaces;
use crate::model::host::HostState;
use crate::net;
use crate::process::memory;
use crate::reconcile::{AttachError, HookKind};

/// How often a change is tried again on a host that changes meanwhile.
const LOOKS_AGAIN: usize = 5;
/// What the kernel has refused is not tried again at once on a host that is as it was: what is undone stirs the host, too.
const REST: Duration = Duration::from_secs(25);

impl Daemon {
    /// The host may not be as it was: the same configuration may mean something else now.
    pub(super) fn follow_host(&mut self) {
        match self.look_at_host() {
            Ok(true) => self.note_left_out(),
            Ok(false) => {}
            Err(error) => {
                self.note_host_error(Some(format!("follow the host's interfaces: {error:#}")));
            }
        }
    }

    pub(super) fn note_left_out(&mut self) {
        self.note_host_error(self.left_out.error());
    }

    fn note_host_error(&mut self, error: Option<String>) {
        if let Some(error) = self.host_said.news(error.clone()) {
            log::error!("{error}");
        }
        self.shared.host_failed(error);
    }

    /// A host that is as it was costs no more than the look. `false`: what was refused is not to be tried again yet.
    fn look_at_host(&mut self) -> Result<bool> {
        let world = net::snapshot()?;
        let is_followed = self.followed.as_ref() == Some(&world) && self.is_all_done();
        let again = self.again.as_ref();
        let rests = again.is_some_and(|(tried, from)| *tried == world && Instant::now() < *from);
        if (is_followed || rests) && !self.reconciler.has_drifted() {
            if is_followed {
                self.note_host(&world);
            }
            return Ok(is_followed);
        }
        let done = self.apply_in(world.clone(), |_| true);
        let is_all_done = done.is_ok() && self.is_all_done();
        self.again = (!is_all_done).then(|| (world, Instant::now() + REST));
        done.map(|()| true)
    }

    fn is_all_done(&self) -> bool {
        self.left_out.is_empty() && !self.reconciler.is_unfinished()
    }

    /// Makes the datapath match the configuration that was read last. Looks again if the host changes meanwhile: an interface
    /// that has just gone is refused by the kernel. One that stays and is refused is left out, if it may be; not one that goes
    /// on being served by the programs that it has.
    pub(super) fn apply_in(
        &mut self,
        world: HostState,
        may_leave_out: impl Fn(&AttachError) -> bool,
    ) -> Result<()> {
        self.followed = None;
        let (mut world, mut left_out) = (world, SkippedInterfaces::default());
        let mut looks = LOOKS_AGAIN;
        while let Err(error) = self.apply_once(&world, &left_out) {
            let now = net::snapshot().unwrap_or_else(|_| world.clone());
            if now != world && looks > 0 {
                log::debug!("the host has changed meanwhile: {error:#}");
                (world, looks) = (now, looks - 1);
                continue;
            }
            let names = self.config.interfaces.keys();
            let there = names.filter(|name| world.links.contains_key(*name)).count();
            let refused = error.downcast_ref::<AttachError>();
            let refused = refused.filter(|refused| {
                let is_served =
                    refused.kind == HookKind::Tc && self.reconciler.serves(&refused.interface);
                !is_served && may_leave_out(refused)
            });
            if !refused.is_some_and(|refused| left_out.add(refused, &error, there)) {
                return Err(error);
            }
        }
        self.followed = Some(world);
        self.left_out = left_out;
        Ok(())
    }

    fn apply_once(&mut self, world: &HostState, left_out: &SkippedInterfaces) -> Result<()> {
        let names = &self.names;
        let started = Instant::now();
        let applied = self.reconciler.apply(
            &left_out.config(&self.config),
            &left_out.world(world),
            |epoch, catalog| names.add(epoch, catalog),
        );
        self.say_undone();
        let applied = applied?;
        self.shared
            .compared(started.elapsed(), self.reconciler.live());
        if !applied.changes.is_empty() {
            self.shared.applied();
        }
        self.say(&applied.changes);
        self.note_host(world);
        drop(applied);
        memory::release_free();
        Ok(())
    }

    /// What the host lacks is said when it changes.
    fn note_host(&mut self, world: &HostState) {
        let waiting: Vec<String> = self
            .reconciler
            .live()
            .into_iter()
            .flat_map(|live| live.catalog.interfaces())
            .filter(|(_, ifindex)| ifindex.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut warnings = net::checks(&self.config, world);
        warnings.extend(self.reconciler.foreign());
        let is_new = |name: &&String| !self.waiting.contains(name);
        let missing = waiting
            .iter()
            .filter(|name| !world.links.contains_key(*name));
        for name in missing.filter(is_new) {
            log::info!("interface {name} is not there: waiting for it");
        }
        for warning in warnings
            .iter()
            .filter(|warning| !self.warnings.contains(warning))
        {
            log::warn!("{warning}");
        }
        self.shared.host(&waiting, &warnings);
        self.waiting = waiting;
        self.warnings = warnings;
    }
}
