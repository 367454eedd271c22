//! The catalogs of the latest generations: an event is translated with the catalog of its own generation.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::catalog::Catalog;

/// Generations: no more are committed while an event is in the ring.
const MAX: usize = 16;
/// How long a replaced catalog is kept: longer than events are in the ring, and than drops are suppressed. A catalog of
/// ten thousand services takes some 30 MB.
const KEEP_TIME: Duration = Duration::from_secs(10);

/// Catalogs by epoch, the latest last.
#[derive(Debug, Default)]
pub struct CatalogHistory {
    catalogs: Mutex<VecDeque<Known>>,
}

#[derive(Debug)]
struct Known {
    epoch: u64,
    catalog: Arc<Catalog>,
    added: Instant,
}

impl CatalogHistory {
    pub fn add(&self, epoch: u64, catalog: Arc<Catalog>) {
        let mut catalogs = self.lock();
        catalogs.retain(|known| known.epoch != epoch);
        catalogs.push_back(Known {
            epoch,
            catalog,
            added: Instant::now(),
        });
        while catalogs.len() > MAX {
            catalogs.pop_front();
        }
    }

    /// The catalog of an epoch, or the nearest that is still known.
    pub fn of(&self, epoch: u64) -> Arc<Catalog> {
        self.lock()
            .iter()
            .min_by_key(|known| known.epoch.abs_diff(epoch))
            .map(|known| known.catalog.clone())
            .unwrap_or_default()
    }

    /// Drops those that were replaced [`KEEP_TIME`] before `now`; returns whether there were any.
    pub fn forget_old(&self, now: Instant) -> bool {
        let mut catalogs = self.lock();
        let known = catalogs.len();
        let is_old = |next: &Known| now.saturating_duration_since(next.added) > KEEP_TIME;
        while catalogs.get(1).is_some_and(is_old) {
            catalogs.pop_front();
        }
        catalogs.len() < known
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Known>> {
        self.catalogs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(node: &str) -> Arc<Catalog> {
        Arc::new(Catalog {
            node: node.to_owned(),
            ..Catalog::default()
        })
    }

    #[test]
    fn an_event_gets_the_catalog_of_its_own_epoch() {
        let catalogs = CatalogHistory::default();
        assert_eq!(catalogs.of(1), Arc::default(), "there is none yet");
        for epoch in 1..=20 {
            catalogs.add(epoch, catalog(&epoch.to_string()));
        }
        let rows = [
            ("the latest", 20, "20"),
            ("one before", 19, "19"),
            ("a dropped one gets the nearest", 1, "5"),
            ("one that is not added yet", 21, "20"),
        ];
        for (what, epoch, expected) in rows {
            assert_eq!(catalogs.of(epoch).node, expected, "{what}");
        }
    }

    #[test]
    fn only_the_latest_is_kept_for_long() {
        let catalogs = CatalogHistory::default();
        for epoch in 1..=3 {
            catalogs.add(epoch, catalog(&epoch.to_string()));
        }
        let now = Instant::now();
        catalogs.forget_old(now);
        assert_eq!(catalogs.of(1).node, "1", "an event in the ring may need it");
        catalogs.forget_old(now + KEEP_TIME + Duration::from_secs(1));
        assert_eq!(catalogs.of(1).node, "3", "replaced ones are dropped");
        catalogs.forget_old(now + 100 * KEEP_TIME);
        assert_eq!(catalogs.of(3).node, "3", "the live one is kept");
    }

    #[test]
    fn an_epoch_that_is_staged_twice_has_the_later_catalog() {
        let catalogs = CatalogHistory::default();
        catalogs.add(7, catalog("refused"));
        catalogs.add(7, catalog("applied"));
        assert_eq!(catalogs.of(7).node, "applied");
    }
}
