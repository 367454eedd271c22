//! Metrics of the daemon and its datapath, as a page in Prometheus' text format.
//!
//! Pure: `daemon` collects the facts, and serves the page.

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

/// The most series of a family with one for each object of the file: services, backends, rules, prefixes. A family that
/// would have more is not written, and `dpd_metric_series_truncated` has their number.
pub const SERIES_MAX: usize = 10_000;

/// All families, in the page's order.
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
/// If a family is invalid in the text format, which no data makes it.
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
