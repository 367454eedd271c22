//! Metrics: what is known of the daemon and its datapath becomes a page of Prometheus' text format.
//!
//! Pure: `daemon` gathers the facts, and serves the page.

mod connections;
mod datapath;
mod facts;
mod family;
mod kernel;
mod policy;
mod process;
mod work;

pub use facts::{Facts, Sweep, Times, Work};
pub use family::{Family, Kind};

use anyhow::Result;
use family::Page;

/// The page's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Series of one family that tells things apart of which the file may have any number: services, backends, rules,
/// prefixes. A family that would have more is left out, and `dpd_metric_series_truncated` says of how many.
pub const SERIES_MAX: usize = 10_000;

/// Everything that a page may have, in its order.
pub fn families() -> impl Iterator<Item = &'static Family> {
    [
        datapath::FAMILIES,
        connections::FAMILIES,
        policy::FAMILIES,
        kernel::FAMILIES,
        work::FAMILIES,
        process::FAMILIES,
        family::FAMILIES,
    ]
    .into_iter()
    .flatten()
}

/// The page.
///
/// # Errors
/// If a family breaks the format's rules, which no fact makes it do.
pub fn page(facts: &Facts) -> Result<String> {
    let mut page = Page::default();
    datapath::write(&mut page, facts)?;
    connections::write(&mut page, facts)?;
    policy::write(&mut page, facts)?;
    kernel::write(&mut page, facts)?;
    work::write(&mut page, facts)?;
    process::write(&mut page, facts)?;
    page.finish()
}

#[cfg(test)]
mod tests;
