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
pub use family::{Family, Kind, SERIES_MAX};

use anyhow::Result;
use family::Page;

/// The page's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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
