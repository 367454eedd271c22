//! The page of metrics: what the kernel holds is read when it is asked for, by the thread that answers; what the daemon
//! knows is copied out of what it shares. Neither waits for packets or for the daemon's own work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::names::Names;
use super::shared::Shared;
use crate::bpf::reader::Reader;
use crate::http::{Limits, Port, Response, Server, Status};
use crate::metrics::{self, Facts};
use crate::model::catalog::Catalog;
use crate::model::status::{Attachment, MapStatus};

/// Where the page is.
const PATH: &str = "/metrics";

/// What scrapes read, and what they remember from one to the next.
pub struct Scraper {
    root: PathBuf,
    names: Arc<Names>,
    shared: Arc<Shared>,
    tables: Mutex<Tables>,
}

/// The fill of a generation's tables, which never changes: each is counted once.
#[derive(Default)]
struct Tables {
    epoch: u64,
    entries: BTreeMap<String, u64>,
}

impl Scraper {
    pub fn new(root: &Path, names: Arc<Names>, shared: Arc<Shared>) -> Arc<Scraper> {
        Arc::new(Scraper {
            root: root.to_owned(),
            names,
            shared,
            tables: Mutex::default(),
        })
    }

    /// Answers at a port.
    pub fn serve(self: &Arc<Scraper>, port: Port) -> Result<Server> {
        let scraper = self.clone();
        Server::start(port, Limits::default(), move |path| scraper.respond(path))
    }

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
        let catalog = self.names.of(revision);
        let work = self.shared.work();
        let tally = work.sweep.as_ref().map(|sweep| sweep.tally.clone());
        let tally = tally.unwrap_or_default();
        let known = |name: &str| tally.entries.get(name).copied();
        Ok(Facts {
            version: env!("CARGO_PKG_VERSION"),
            revision,
            counters: told("counters", reader.metrics()),
            rule_hits: told("hits of rules", reader.rule_hits()),
            prefilter_hits: told("hits of the prefilter", reader.prefilter_hits()),
            malformed: told("malformed frames", reader.xdp_malformed()),
            event_loss: told("event loss", reader.event_loss()),
            maps: told("maps", self.maps(&reader, revision, known)),
            programs: told("programs", reader.programs()),
            xdp: xdp(&reader, &catalog),
            usage: told("process", crate::process::usage()),
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
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            if tables.epoch != epoch {
                *tables = Tables::default();
            }
            tables.entries.clone()
        };
        let maps = reader.maps_with(|name| known(name).or_else(|| counted.get(name).copied()))?;
        // Others of this epoch find them counted; a scrape that was overtaken by the next epoch keeps its own to itself.
        if reader.epoch()? == epoch {
            let tables = maps.iter().filter(|map| !map.name.starts_with("dpd_"));
            let entries = tables.filter_map(|map| Some((map.name.clone(), map.entries?)));
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            *tables = Tables {
                epoch,
                entries: entries.collect(),
            };
        }
        Ok(maps)
    }
}

/// One thing that can't be read must not hide the others.
fn told<T>(what: &str, answer: Result<T>) -> Option<T> {
    answer
        .map_err(|error| log::debug!("metrics: {what}: {error:#}"))
        .ok()
}

fn xdp(reader: &Reader, catalog: &Catalog) -> Vec<Attachment> {
    let uplinks = catalog.uplinks.iter();
    uplinks
        .filter_map(|(name, uplink)| reader.xdp(name, uplink.ifindex?))
        .collect()
}

/// The port that the file names, if it names another than this server's.
///
/// # Errors
/// If it can't be had.
pub fn open_new(server: Option<&Server>, wanted: Option<SocketAddr>) -> Result<Option<Port>> {
    match (server, wanted) {
        (Some(server), Some(address)) if server.address() == address => Ok(None),
        (Some(server), Some(address)) => server.open_beside(address).map(Some),
        (None, Some(address)) => Port::open(address).map(Some),
        (_, None) => Ok(None),
    }
}
