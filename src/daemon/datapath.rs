//! The datapath as the daemon follows it: makes it match the configuration and the host, and reports what changed.
//!
//! ```text
//!   apply_config        a new configuration, restored if it is refused
//!   follow_host         the same configuration on a changed host
//!     └─► apply_skipping_refused   again for a host that changes meanwhile, and without refused interfaces
//!           └─► reconcile_and_report   one attempt, with its log lines and state
//!                 └─► Reconciler::apply
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use crossbeam_channel::Sender;

use super::announcer::Announcer;
use super::catalog_history::CatalogHistory;
use super::held_host::HeldHost;
use super::held_stack::HeldStack;
use super::interface_names::InterfaceNames;
use super::on_change::OnChange;
use super::skipped::SkippedInterfaces;
use super::state::DaemonState;
use crate::bpf::sys::clock::now_ns;
use crate::bpf::sys::write_access;
use crate::config::Config;
use crate::model::forwarding::HostStack;
use crate::model::host::HostState;
use crate::model::state::State;
use crate::model::status::Drift;
use crate::net;
use crate::plan::{self, Change};
use crate::process::memory;
use crate::reconcile::{AttachError, HookKind, Reconciler};

/// How often one change is tried again because the host changes meanwhile.
const HOST_RETRIES: usize = 5;
/// What the kernel has refused is not tried again at once on an unchanged host: undoing it wakes the netlink watcher, too.
const RETRY_INTERVAL: Duration = Duration::from_secs(25);
/// Lines of one change at level info; a first start with thousands of services has as many.
const CHANGES_LOGGED: usize = 200;
/// Drift that is named in one log line; all of it is counted.
const DRIFT_LOGGED: usize = 8;

pub struct Datapath {
    reconciler: Reconciler,
    config: Arc<Config>,
    catalogs: Arc<CatalogHistory>,
    state: Arc<DaemonState>,
    names: Arc<InterfaceNames>,
    /// The host that the datapath was made to match last; `None` after a failure.
    followed: Option<HostState>,
    /// What the kernel refused on it.
    skipped: SkippedInterfaces,
    /// A host on which not everything is done, and the earliest time of the next attempt on it.
    retry: Option<(HostState, Instant)>,
    /// When a drain timeout is over next.
    drain_end: Option<Instant>,
    /// What is due waits until then, after a failure.
    next_try: Instant,
    host_error: OnChange,
    host: HeldHost,
    stack: HeldStack,
    stack_error: OnChange,
    announcer: Announcer,
    /// Interfaces that were logged as missing.
    pending: Vec<String>,
    warnings: Vec<String>,
    hints: Vec<String>,
}

impl Datapath {
    /// `announced` is sent to when the uplinks are to announce something else: then `follow_host` is due.
    pub fn new(
        config: Arc<Config>,
        reconciler: Reconciler,
        state: Arc<DaemonState>,
        announced: Sender<()>,
    ) -> Datapath {
        let catalogs = Arc::new(CatalogHistory::default());
        let mut adopted = BTreeSet::new();
        if let Some(live) = reconciler.live() {
            catalogs.add(reconciler.epoch(), live.catalog.clone());
            adopted = live.catalog.announced();
        }
        let announcer = Announcer::new(adopted, state.clone(), announced);
        Datapath {
            reconciler,
            config,
            catalogs,
            state,
            names: Arc::default(),
            followed: None,
            skipped: SkippedInterfaces::default(),
            retry: None,
            drain_end: None,
            next_try: Instant::now(),
            host_error: OnChange::default(),
            host: HeldHost::default(),
            stack: HeldStack::new(HostStack::default(), Instant::now()),
            stack_error: OnChange::default(),
            announcer,
            pending: Vec::new(),
            warnings: Vec::new(),
            hints: Vec::new(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn catalogs(&self) -> Arc<CatalogHistory> {
        self.catalogs.clone()
    }

    /// The names of all interfaces of the host.
    pub fn interface_names(&self) -> Arc<InterfaceNames> {
        self.names.clone()
    }

    pub fn revision(&self) -> u64 {
        self.reconciler.epoch()
    }

    pub fn live(&self) -> Option<&State> {
        self.reconciler.live()
    }

    pub fn has_drifted(&mut self) -> bool {
        self.reconciler.has_drifted()
    }

    pub fn forget_old_catalogs(&self) {
        if self.catalogs.forget_old(Instant::now()) {
            memory::release_free();
        }
    }

    /// Writes the tables of a configuration that may be applied soon; they are not live.
    pub fn stage(&mut self, config: Arc<Config>, host: HostState) {
        let host = self.view(host);
        self.reconciler.stage_ahead(config, host);
    }

    pub fn forget_staged(&mut self) {
        self.reconciler.discard_ahead();
    }

    /// The file is not applied; `headline` is the reason in one line.
    pub fn reject(&mut self, error: &str, headline: &str) {
        log::error!("{error}");
        self.forget_staged();
        self.state.file_failed(error, headline);
    }

    /// Makes the datapath match the configuration of the start.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn start(&mut self, config: Arc<Config>, host: HostState) -> Result<()> {
        self.config = config;
        check_names(&self.config, &host)?;
        if let Some(stack) = self.read_stack() {
            self.stack = HeldStack::new(stack, Instant::now());
        }
        let host = self.view(host);
        self.apply_skipping_refused(host, |_| true)?;
        self.state.follows(&self.config);
        self.report_skipped();
        Ok(())
    }

    /// Makes the datapath match a new configuration.
    ///
    /// # Errors
    /// If the kernel refuses it; then the configuration before stays.
    pub fn apply_config(&mut self, config: Arc<Config>, host: HostState) -> Result<()> {
        check_names(&config, &host)?;
        let previous = std::mem::replace(&mut self.config, config);
        let (before, wanted) = (previous.clone(), self.config.clone());
        // A refused change is rejected as a whole: only interfaces that it does not concern may be skipped.
        let may_skip = |refused: &AttachError| {
            let of = |config: &Config| config.interfaces.get(&refused.interface).cloned();
            let is_same = of(&before) == of(&wanted);
            is_same && (refused.kind != HookKind::Xdp || !before.prefilter.is_empty())
        };
        let host = self.view(host);
        if let Err(error) = self.apply_skipping_refused(host, may_skip) {
            self.config = previous;
            return Err(error);
        }
        self.state.follows(&self.config);
        self.report_skipped();
        Ok(())
    }

    /// Looks at the host, and applies what the configuration means on it now.
    pub fn follow_host(&mut self) {
        match self.sync_with_host() {
            Ok(true) => self.report_skipped(),
            Ok(false) => {}
            Err(error) => {
                self.next_try = Instant::now() + RETRY_INTERVAL;
                self.report_host_error(Some(format!("follow the host's interfaces: {error:#}")));
            }
        }
    }

    /// When to call `follow_host` for a change that is held back or the end of a drain timeout; `None`: there is neither.
    pub fn next_look_at_host(&self) -> Option<Instant> {
        let times = self.host.next_look().into_iter().chain(self.drain_end);
        times.min().map(|next| next.max(self.next_try))
    }

    /// The host's stack may have changed.
    pub fn stir_stack(&mut self) {
        self.stack.stir();
    }

    /// When to call `follow_stack`; `None`: not before the stack is stirred.
    pub fn next_look_at_stack(&self) -> Option<Instant> {
        self.stack.next_look()
    }

    /// Looks at the host's stack, and applies what that means for the uplinks.
    pub fn follow_stack(&mut self) {
        let seen = self.read_stack();
        let now = Instant::now();
        match seen {
            Some(seen) => {
                if self.stack.look(seen, now) {
                    self.follow_host();
                }
            }
            None => self.stack.look_failed(now),
        }
    }

    /// `None`: it can't be read, which is logged once.
    fn read_stack(&mut self) -> Option<HostStack> {
        let read = net::host_stack();
        let error = read.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(error) = self.stack_error.update(error) {
            log::warn!("{error}: uplinks with forwarding = \"auto\" keep their way");
        }
        read.ok()
    }

    /// The host as plans are made for it.
    fn view(&mut self, seen: HostState) -> HostState {
        self.names.set(&seen);
        let (named, _) = seen.named_by(self.config.interfaces.keys());
        HostState {
            stack: self.stack.held().clone(),
            announced: self.announcer.announced(),
            ..self.host.look(named, Instant::now())
        }
    }

    /// An unchanged host costs no more than the look. `false`: it is too early to try again what was refused.
    fn sync_with_host(&mut self) -> Result<bool> {
        let seen = net::snapshot()?;
        let host = self.view(seen);
        let is_followed = self.followed.as_ref() == Some(&host) && self.is_complete();
        let is_too_early = self
            .retry
            .as_ref()
            .is_some_and(|(tried, from)| *tried == host && Instant::now() < *from);
        let is_due = self.drain_end.is_some_and(|end| end <= Instant::now());
        if (is_followed || is_too_early) && !is_due && !self.reconciler.has_drifted() {
            if is_followed {
                self.report_host(&host);
            }
            return Ok(is_followed);
        }
        let done = self.apply_skipping_refused(host.clone(), |_| true);
        let is_complete = done.is_ok() && self.is_complete();
        self.retry = (!is_complete).then(|| (host, Instant::now() + RETRY_INTERVAL));
        done.map(|()| true)
    }

    fn is_complete(&self) -> bool {
        self.skipped.is_empty() && !self.reconciler.is_unfinished()
    }

    /// Makes the datapath match the configuration. Tries again if the host changes meanwhile, as the kernel refuses an
    /// interface that has just gone. An interface that is there and is refused is skipped if it may be, and if it is not
    /// still served by programs of its own.
    fn apply_skipping_refused(
        &mut self,
        host: HostState,
        may_skip: impl Fn(&AttachError) -> bool,
    ) -> Result<()> {
        self.followed = None;
        let (mut host, mut skipped) = (host, SkippedInterfaces::default());
        let mut retries = HOST_RETRIES;
        while let Err(error) = self.reconcile_and_report(&host, &skipped) {
            let now = net::snapshot().map_or_else(|_| host.clone(), |now| self.view(now));
            if now != host && retries > 0 {
                log::debug!("the host has changed meanwhile: {error:#}");
                (host, retries) = (now, retries - 1);
                continue;
            }
            let names = self.config.interfaces.keys();
            let present = names.filter(|name| host.links.contains_key(*name)).count();
            let refused = error.downcast_ref::<AttachError>();
            let refused = refused.filter(|refused| {
                let is_served =
                    refused.kind == HookKind::Tc && self.reconciler.serves(&refused.interface);
                !is_served && may_skip(refused)
            });
            if !refused.is_some_and(|refused| skipped.add(refused, &error, present)) {
                return Err(error);
            }
        }
        self.followed = Some(host);
        self.skipped = skipped;
        Ok(())
    }

    fn reconcile_and_report(
        &mut self,
        host: &HostState,
        skipped: &SkippedInterfaces,
    ) -> Result<()> {
        let catalogs = &self.catalogs;
        let started = Instant::now();
        let applied = self.reconciler.apply(
            &skipped.config(&self.config),
            &skipped.host(host),
            |epoch, catalog| catalogs.add(epoch, catalog),
        );
        let repaired = self.reconciler.take_repaired();
        self.state.repaired(&repaired);
        log_drift(&repaired);
        let applied = applied?;
        self.drain_end = self.reconciler.live().and_then(drain_end);
        self.state
            .compared(started.elapsed(), self.reconciler.live());
        if !applied.changes.is_empty() {
            self.state.applied();
        }
        log_changes(self.revision(), &applied.changes);
        let announcing = plan::announce::links(&self.config, &skipped.host(host));
        let live = self.reconciler.live().map(|live| live.catalog.announced());
        self.announcer.follow(announcing, live.unwrap_or_default());
        self.report_host(host);
        drop(applied);
        memory::release_free();
        Ok(())
    }

    fn report_skipped(&mut self) {
        self.report_host_error(self.skipped.error());
    }

    fn report_host_error(&mut self, error: Option<String>) {
        if let Some(error) = self.host_error.update(error.clone()) {
            log::error!("{error}");
        }
        self.state.host_failed(error);
    }

    /// What the host lacks is logged when it changes.
    fn report_host(&mut self, host: &HostState) {
        let pending: Vec<String> = self
            .reconciler
            .live()
            .into_iter()
            .flat_map(|live| live.catalog.interfaces())
            .filter(|(_, ifindex)| ifindex.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut warnings = net::checks(&self.config, host);
        warnings.extend(plan::warnings(&self.config, host));
        warnings.extend(self.announcer.warnings());
        warnings.extend(self.reconciler.foreign());
        warnings.extend(self.reconciler.socket_warning());
        warnings.extend(write_access::warning(&self.config.daemon.bpf_root));
        // A skipped interface is pending for the datapath, though it is there.
        let missing = pending
            .iter()
            .filter(|name| !host.links.contains_key(*name));
        for name in missing.filter(|name| !self.pending.contains(name)) {
            log::info!("interface {name} does not exist yet: pending");
        }
        for warning in warnings
            .iter()
            .filter(|warning| !self.warnings.contains(warning))
        {
            log::warn!("{warning}");
        }
        let hints = self.hints(host);
        for hint in hints.iter().filter(|hint| !self.hints.contains(hint)) {
            log::info!("{hint}");
        }
        self.state.host(&pending, &warnings, &hints);
        self.pending = pending;
        self.warnings = warnings;
        self.hints = hints;
    }

    /// What may be intended.
    fn hints(&self, host: &HostState) -> Vec<String> {
        match net::world_routes() {
            Ok(world) => plan::translators::hints(&self.config, host, world),
            Err(error) => {
                log::debug!("look up the route to the world: {error}");
                self.hints.clone()
            }
        }
    }
}

/// When a drain timeout of this state is over next.
fn drain_end(live: &State) -> Option<Instant> {
    let left = live.next_drain_end_ns()?.saturating_sub(now_ns());
    Some(Instant::now() + Duration::from_nanos(left))
}

/// # Errors
/// If two names of the file are one interface.
fn check_names(config: &Config, host: &HostState) -> Result<()> {
    match net::same_interfaces(config, host).first() {
        Some(sentence) => bail!("{sentence}"),
        None => Ok(()),
    }
}

fn log_drift(repaired: &[Drift]) {
    if repaired.is_empty() {
        return;
    }
    let (named, rest) = repaired.split_at(repaired.len().min(DRIFT_LOGGED));
    let named: Vec<&str> = named.iter().map(|drift| drift.what.as_str()).collect();
    let rest = match rest.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    log::warn!("drift repaired: {}{rest}", named.join(", "));
}

fn log_changes(revision: u64, changes: &[Change]) {
    if changes.is_empty() {
        return;
    }
    log::info!("revision {revision}:");
    let (first, rest) = changes.split_at(changes.len().min(CHANGES_LOGGED));
    for change in first {
        log::info!("{change}");
    }
    if !rest.is_empty() {
        log::info!("and {} more changes (logged at level debug)", rest.len());
    }
    for change in rest {
        log::debug!("{change}");
    }
}
