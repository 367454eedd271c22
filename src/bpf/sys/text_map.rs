//! A text that is pinned: in the chunks of an array map, since a bpffs holds nothing but maps, programs and links.

use std::path::Path;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys::BPF_F_RDONLY_PROG;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::map::{self, Kind, Rows};

const CHUNK: usize = 4096;
/// The first bytes of the map: the length of the text.
const HEAD: usize = 8;

/// What the map of a text is made of, and its number of entries.
pub fn size(name: &'static str, text: &[u8]) -> (Kind, u32) {
    (kind(name), rows(text).count)
}

/// Writes the text to a map that is pinned at a path.
pub fn write(name: &'static str, text: &[u8], path: &Path) -> Result<()> {
    let rows = rows(text);
    let map = map::create(&kind(name), rows.count)?;
    map::write(&map, name, &rows)?;
    map::freeze(&map, name)?;
    map::pin_map(&map, path)
}

/// The text that is pinned at a path.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = chunks(&map::open(path)?)?;
    text(&bytes).with_context(|| format!("{} is cut short", path.display()))
}

fn kind(name: &'static str) -> Kind {
    Kind {
        name,
        map_type: MapType::Array,
        key_size: 4,
        value_size: CHUNK as u32,
        flags: BPF_F_RDONLY_PROG,
    }
}

fn rows(text: &[u8]) -> Rows {
    let mut bytes = (text.len() as u64).to_ne_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes.resize(bytes.len().next_multiple_of(CHUNK), 0);
    let chunks = (bytes.len() / CHUNK) as u32;
    Rows {
        keys: (0..chunks).flat_map(u32::to_ne_bytes).collect(),
        values: bytes,
        count: chunks,
    }
}

fn chunks(map: &MapHandle) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in 0..map.max_entries() {
        let value = map.lookup(&chunk.to_ne_bytes(), MapFlags::ANY)?;
        bytes.extend_from_slice(&value.context("a chunk of the text is missing")?);
    }
    Ok(bytes)
}

/// `None` if there is less of it than its head says.
fn text(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u64::from_ne_bytes(*bytes.first_chunk::<HEAD>()?);
    let end = HEAD.checked_add(usize::try_from(length).ok()?)?;
    bytes.get(HEAD..end).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fills_whole_chunks_and_is_read_from_them() {
        for length in [0, 1, CHUNK - HEAD, CHUNK - HEAD + 1, 3 * CHUNK] {
            let bytes = vec![b'x'; length];
            let rows = rows(&bytes);
            assert_eq!(rows.values.len(), rows.count as usize * CHUNK);
            assert_eq!(text(&rows.values), Some(bytes), "{length}");
        }
        assert_eq!(text(&[]), None);
        assert_eq!(text(&9u64.to_ne_bytes()), None, "its end is missing");
        assert_eq!(text(&u64::MAX.to_ne_bytes()), None);
    }
}
