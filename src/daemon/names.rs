//! The catalogs of the latest generations: an event is read with the names of the configuration that made it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::catalog::Catalog;

/// Events wait in the ring for a moment at most; more reloads than this don't fit into it.
const KEPT: usize = 16;

/// Catalogs by epoch, the latest last.
#[derive(Debug, Default)]
pub struct Names {
    catalogs: Mutex<VecDeque<(u64, Arc<Catalog>)>>,
}

impl Names {
    pub fn add(&self, epoch: u64, catalog: Arc<Catalog>) {
        let mut catalogs = self.lock();
        catalogs.retain(|(known, _)| *known != epoch);
        catalogs.push_back((epoch, catalog));
        while catalogs.len() > KEPT {
            catalogs.pop_front();
        }
    }

    /// The catalog of an epoch, or the nearest that is still known.
    pub fn of(&self, epoch: u64) -> Arc<Catalog> {
        self.lock()
            .iter()
            .min_by_key(|(known, _)| known.abs_diff(epoch))
            .map(|(_, catalog)| catalog.clone())
            .unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Arc<Catalog>)>> {
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
    fn an_epoch_that_is_prepared_twice_has_the_later_names() {
        let names = Names::default();
        names.add(7, catalog("refused"));
        names.add(7, catalog("applied"));
        assert_eq!(names.of(7).node, "applied");
    }
}
