//! The catalog, which gives the numbers in the tables their meaning: a map pinned with each generation. It has no outer map,
//! since programs don't read it.

use std::path::Path;

use anyhow::{Context, Result};

use crate::bpf::sys::map::Kind;
use crate::bpf::sys::pins::Pins;
use crate::bpf::sys::text_map;
use crate::model::catalog::Catalog;

/// The name of its pin.
pub const NAME: &str = "catalog";

/// What its map is made of, and its number of entries.
pub fn size(catalog: &Catalog) -> Result<(Kind, u32)> {
    Ok(text_map::size(NAME, &text(catalog)?))
}

/// The catalog of a generation.
pub fn read(pins: &Pins, epoch: u64) -> Result<Catalog> {
    let text = text_map::read(&pins.generation(epoch).join(NAME))?;
    serde_json::from_slice(&text).context("read the catalog")
}

/// Writes the catalog to a map that is pinned at a path.
pub fn write(catalog: &Catalog, path: &Path) -> Result<()> {
    text_map::write(NAME, &text(catalog)?, path)
}

fn text(catalog: &Catalog) -> Result<Vec<u8>> {
    serde_json::to_vec(catalog).context("write the catalog as text")
}
