//! The metrics page. The thread of the scrape reads what the kernel holds, and copies the daemon's own numbers out of
//! [`DaemonState`]: it waits neither for packets nor for the daemon's work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::catalog_history::CatalogHistory;
use super::state::DaemonState;
use crate::bpf::reader::Reader;
use crate::http::{Limits, Port, Response, Server, Status};
use crate::metrics::{self, Facts};
use crate::model::catalog::Catalog;
use crate::model::status::{Attachment, MapStatus};

const PATH: &str = "/metrics";

/// The server of the metrics page, at the address that the file gives, if any.
pub struct MetricsServer {
    scraper: Arc<Scraper>,
    server: Option<Server>,
}

impl MetricsServer {
    pub fn new(
        root: &Path,
        catalogs: Arc<CatalogHistory>,
        state: Arc<DaemonState>,
    ) -> MetricsServer {
        let scraper = Scraper {
            root: root.to_owned(),
            catalogs,
            state,
            tables: Mutex::default(),
        };
        MetricsServer {
            scraper: Arc::new(scraper),
            server: None,
        }
    }

    /// Opens the port at `address`; `None` if there is no address, or it is served already. The port before stays open.
    ///
    /// # Errors
    /// If the port can't be opened.
    pub fn open_port(&self, address: Option<SocketAddr>) -> Result<Option<Port>> {
        match (&self.server, address) {
            (_, None) => Ok(None),
            (None, Some(address)) => Port::open(address).map(Some),
            (Some(server), Some(address)) if server.address() == address => Ok(None),
            (Some(server), Some(address)) => server.open_port(address).map(Some),
        }
    }

    /// Serves `port` instead of the port before; without a port the server stays, unless the file has no address.
    pub fn serve(&mut self, address: Option<SocketAddr>, port: Option<Port>) {
        if address.is_none() {
            self.server = None;
        }
        let Some(port) = port else { return };
        let scraper = self.scraper.clone();
        match Server::start(port, Limits::default(), move |path| scraper.respond(path)) {
            Ok(server) => self.server = Some(server),
            Err(error) => log::error!("daemon.metrics: {error:#}"),
        }
    }
}

/// Makes the page.
struct Scraper {
    root: PathBuf,
    catalogs: Arc<CatalogHistory>,
    state: Arc<DaemonState>,
    tables: Mutex<Tables>,
}

/// The numbers of entries of a generation's tables, which never change: each table is counted once.
#[derive(Default)]
struct Tables {
    epoch: u64,
    entries: BTreeMap<String, u64>,
}

impl Scraper {
    fn respond(&self, path: &str) -> Response {
        if path != PATH {
            let hint = format!("dpd: the metrics are at {PATH}");
            return Response::text(Status::NotFound, &hint);
        }
        match self.facts().and_then(|facts| metrics::page(&facts)) {
            Ok(page) => Response {
                status: Status::Ok,
                content_type: metrics::CONTENT_TYPE,
                body: page.into_bytes(),
            },
            Err(error) => {
                log::warn!("the metrics can't be read: {error:#}");
                Response::text(Status::Failed, &format!("{error:#}"))
            }
        }
    }

    fn facts(&self) -> Result<Facts> {
        let reader = Reader::open(&self.root)?;
        let revision = reader.epoch()?;
        let catalog = self.catalogs.of(revision);
        let work = self.state.work();
        let tally = work.sweep.as_ref().map(|sweep| sweep.tally.clone());
        let tally = tally.unwrap_or_default();
        let known = |name: &str| tally.entries.get(name).copied();
        Ok(Facts {
            version: env!("CARGO_PKG_VERSION"),
            revision,
            counters: readable("counters", reader.metrics()),
            rule_hits: readable("rule hits", reader.rule_hits()),
            prefilter_hits: readable("prefilter hits", reader.prefilter_hits()),
            malformed: readable("malformed frames", reader.xdp_malformed()),
            responses_limited: readable("responses", reader.responses_limited()),
            event_loss: readable("event loss", reader.event_loss()),
            maps: readable("maps", self.maps(&reader, revision, known)),
            programs: readable("programs", reader.programs()),
            xdp: xdp(&reader, &catalog),
            usage: readable("process", crate::process::usage()),
            catalog,
            work,
        })
    }

    fn maps(
        &self,
        reader: &Reader,
        epoch: u64,
        known: impl Fn(&str) -> Option<u64>,
    ) -> Result<Vec<MapStatus>> {
        let counted = {
            let mut tables = self.tables();
            if tables.epoch != epoch {
                *tables = Tables::default();
            }
            tables.entries.clone()
        };
        let maps = reader.maps_with(|name| known(name).or_else(|| counted.get(name).copied()))?;
        // If another generation was committed meanwhile, the counts may be of either, and are not kept.
        if reader.epoch()? == epoch {
            let tables = maps.iter().filter(|map| !map.name.starts_with("dpd_"));
            let entries = tables.filter_map(|map| Some((map.name.clone(), map.entries?)));
            *self.tables() = Tables {
                epoch,
                entries: entries.collect(),
            };
        }
        Ok(maps)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part that can't be read is missing from the page, and the others are not.
fn readable<T>(what: &str, read: Result<T>) -> Option<T> {
    read.map_err(|error| log::debug!("metrics: {what}: {error:#}"))
        .ok()
}

fn xdp(reader: &Reader, catalog: &Catalog) -> Vec<Attachment> {
    let uplinks = catalog.uplinks.iter();
    uplinks
        .filter_map(|(name, uplink)| reader.xdp(name, uplink.ifindex?))
        .collect()
}
