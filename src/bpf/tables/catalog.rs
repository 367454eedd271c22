//! The catalog, which gives the numbers in the tables their meaning: a map pinned with each generation. It has no outer map,
//! since programs don't read it.

use std::path::Path;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys::BPF_F_RDONLY_PROG;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use crate::bpf::sys::map::{self, Kind, Rows};
use crate::bpf::sys::pins::Pins;
use crate::model::catalog::Catalog;

/// The name of its pin.
pub const NAME: &str = "catalog";
const CHUNK: usize = 4096;
/// The first bytes of the map: the length of the text.
const HEAD: usize = 8;

const KIND: Kind = Kind {
    name: NAME,
    map_type: MapType::Array,
    key_size: 4,
    value_size: CHUNK as u32,
    flags: BPF_F_RDONLY_PROG,
};

/// What its map is made of, and its number of entries.
pub fn size(catalog: &Catalog) -> Result<(Kind, u32)> {
    let rows = rows(catalog)?;
    Ok((KIND, rows.count))
}

/// The catalog of a generation.
pub fn read(pins: &Pins, epoch: u64) -> Result<Catalog> {
    read_map(&map::open(&pins.generation(epoch).join(NAME))?)
}

/// Writes the catalog as text in the chunks of an array map.
pub fn write(catalog: &Catalog, path: &Path) -> Result<()> {
    let rows = rows(catalog)?;
    let map = map::create(&KIND, rows.count)?;
    map::write(&map, NAME, &rows)?;
    map::freeze(&map, NAME)?;
    map::pin(&map, path)
}

fn rows(catalog: &Catalog) -> Result<Rows> {
    let text = serde_json::to_vec(catalog).context("write the catalog as text")?;
    let mut bytes = (text.len() as u64).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&text);
    bytes.resize(bytes.len().next_multiple_of(CHUNK), 0);
    let chunks = (bytes.len() / CHUNK) as u32;
    Ok(Rows {
        keys: (0..chunks).flat_map(u32::to_ne_bytes).collect(),
        values: bytes,
        count: chunks,
    })
}

fn read_map(map: &MapHandle) -> Result<Catalog> {
    let mut bytes = Vec::new();
    for chunk in 0..map.max_entries() {
        let value = map.lookup(&chunk.to_ne_bytes(), MapFlags::ANY)?;
        bytes.extend_from_slice(&value.context("the catalog lacks a chunk")?);
    }
    let head = bytes.first_chunk::<HEAD>();
    let length = u64::from_ne_bytes(*head.context("the catalog is cut short")?) as usize;
    let text = bytes
        .get(HEAD..HEAD + length)
        .context("the catalog is cut short")?;
    serde_json::from_slice(text).context("read the catalog")
}
