//! The catalogs of the latest generations: an event is read with the names of the configuration that made it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::catalog::Catalog;

/// Events wait in the ring for a moment at most; more reloads than this don't fit into it.
const KEPT: usize = 16;
/// Nor do they wait for so long, those of drops that are held back for an interval neither. A catalog of ten thousand services
/// takes some 30 MB.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Catalogs by epoch, the latest last.
#[derive(Debug, Default)]
pub struct Names {
    catalogs: Mutex<VecDeque<Known>>,
}

#[derive(Debug)]
struct Known {
    epoch: u64,
    catalog: Arc<Catalog>,
    added: Instant,
}

impl Names {
    pub fn add(&self, epoch: u64, catalog: Arc<Catalog>) {
        let mut catalogs = self.lock();
        catalogs.retain(|known| known.epoch != epoch);
        catalogs.push_back(Known {
            epoch,
            catalog,
            added: Instant::now(),
        });
        while catalogs.len() > KEPT {
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

    /// Lets go of those that were replaced some time before `now`; answers whether there were any.
    pub fn forget_old(&self, now: Instant) -> bool {
        let mut catalogs = self.lock();
        let known = catalogs.len();
        let is_old = |next: &Known| now.saturating_duration_since(next.added) > KEPT_FOR;
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
    fn an_event_gets_the_names_of_its_own_epoch() {
        let names = Names::default();
        assert_eq!(names.of(1), Arc::default(), "nothing is known yet");
        for epoch in 1..=20 {
            names.add(epoch, catalog(&epoch.to_string()));
        }
        let rows = [
            ("the latest", 20, "20"),
            ("one before", 19, "19"),
            ("one that was forgotten gets the nearest", 1, "5"),
            ("one that is not announced yet", 21, "20"),
        ];
        for (what, epoch, expected) in rows {
            assert_eq!(names.of(epoch).node, expected, "{what}");
        }
    }

    #[test]
    fn only_the_latest_is_kept_for_long() {
        let names = Names::default();
        for epoch in 1..=3 {
            names.add(epoch, catalog(&epoch.to_string()));
        }
        let now = Instant::now();
        names.forget_old(now);
        assert_eq!(names.of(1).node, "1", "an event may still wait for it");
        names.forget_old(now + KEPT_FOR + Duration::from_secs(1));
        assert_eq!(names.of(1).node, "3", "those that were replaced are gone");
        names.forget_old(now + 100 * KEPT_FOR);
        assert_eq!(names.of(3).node, "3", "the live one never goes");
    }

    #[test]
    fn an_epoch_that_is_prepared_twice_has_the_later_names() {
        let names = Names::default();
        names.add(7, catalog("refused"));
        names.add(7, catalog("applied"));
        assert_eq!(names.of(7).node, "applied");
    }
}
