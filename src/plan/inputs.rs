//! All that the plan depends on.

use crate::config::Config;
use crate::model::catalog::Catalog;
use crate::model::host::HostState;
use crate::model::maglev::MaglevTables;

/// All that a state is computed from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub config: &'a Config,
    /// The interfaces and addresses of the host.
    pub host: &'a HostState,
    /// The catalog of the live generation; empty before the first. Objects that are in it keep their numbers.
    pub previous: &'a Catalog,
    /// The Maglev tables of the live generation: those whose backends have not changed are not computed again. The state is the
    /// same without them.
    pub previous_maglev: &'a MaglevTables,
    /// CLOCK_MONOTONIC, in nanoseconds: drain timeouts run by it.
    pub now_ns: u64,
}
