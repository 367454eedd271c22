//! Maps in terms of the ABI's types, with sentences for errors.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use rustix::io::Errno;

use super::abi::Plain;

/// Entries that one system call reads or writes.
const BATCH: u32 = 4096;

/// What a map is made of.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    pub map_type: MapType,
    pub key_size: u32,
    pub value_size: u32,
    /// `BPF_F_*`
    pub flags: u32,
}

/// Keys and values, one after the other, as a batch takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub keys: Vec<u8>,
    pub values: Vec<u8>,
    pub count: u32,
}

impl Rows {
    pub fn push(&mut self, key: &impl Plain, value: &impl Plain) {
        self.keys.extend_from_slice(key.as_bytes());
        self.values.extend_from_slice(value.as_bytes());
        self.count += 1;
    }
}

/// A map of this kind with room for so many entries, at least one.
pub fn create(kind: &Kind, entries: u32) -> Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: kind.flags,
        ..Default::default()
    };
    MapHandle::create(
        kind.map_type,
        Some(kind.name),
        kind.key_size,
        kind.value_size,
        entries.max(1),
        &options,
    )
    .with_context(|| format!("make map {} for {entries} entries", kind.name))
}

/// Writes rows, in as few system calls as there are batches.
pub fn write(map: &MapHandle, name: &str, rows: &Rows) -> Result<()> {
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let mut written = 0;
    while written < rows.count {
        let batch = (rows.count - written).min(BATCH);
        let (from, to) = (written as usize, (written + batch) as usize);
        map.update_batch(
            &rows.keys[from * key_size..to * key_size],
            &rows.values[from * value_size..to * value_size],
            batch,
            MapFlags::ANY,
            MapFlags::ANY,
        )
        .with_context(|| format!("table {name}: write rows {from} to {to} of {}", rows.count))?;
        written += batch;
    }
    Ok(())
}

/// All rows of a map, in the kernel's order.
pub fn read<K: Plain, V: Plain>(map: &impl MapCore) -> Result<Vec<(K, V)>> {
    let mut rows = Vec::new();
    if map.map_type() == MapType::LpmTrie {
        // Batches of a trie walk from the start for each key on kernels before 6.12.
        for key in map.keys() {
            if let Some(value) = map.lookup(&key, MapFlags::ANY)?
                && let Some(row) = K::from_bytes(&key).zip(V::from_bytes(&value))
            {
                rows.push(row);
            }
        }
        return Ok(rows);
    }
    let mut batches = Batches::new(map);
    while let Some(batch) = batches.next().context("read a batch of a map")? {
        let keys = batch.keys.chunks_exact(size_of::<K>());
        let values = batch.values.chunks_exact(size_of::<V>());
        rows.extend(
            keys.zip(values)
                .filter_map(|(key, value)| K::from_bytes(key).zip(V::from_bytes(value))),
        );
    }
    Ok(rows)
}

/// A walk over a map, many rows to a system call. libbpf-rs has one too, which takes a batch that is not full for the
/// last; but the kernel gives only whole buckets of a hash, so that hardly any is full.
struct Batches<'a, M> {
    map: &'a M,
    /// Where the next batch begins, in the kernel's terms; `None` before the first.
    place: Option<Vec<u8>>,
    room: u32,
    is_done: bool,
}

impl<'a, M: MapCore> Batches<'a, M> {
    fn new(map: &'a M) -> Self {
        Batches {
            map,
            place: None,
            room: BATCH,
            is_done: false,
        }
    }

    fn next(&mut self) -> std::io::Result<Option<Rows>> {
        while !self.is_done {
            let (key_size, value_size) = (self.map.key_size(), self.map.value_size());
            let mut rows = Rows {
                keys: vec![0; (self.room * key_size) as usize],
                values: vec![0; (self.room * value_size) as usize],
                count: self.room,
            };
            // The number of a bucket for a hash, a key for an array.
            let mut next = vec![0u8; (key_size as usize).max(size_of::<u32>())];
            let place = self.place.as_mut();
            // SAFETY: the buffers have room for as many keys and values as `count` says, and the places for a key or
            // the number of a bucket; null options are the defaults.
            let done = unsafe {
                libbpf_sys::bpf_map_lookup_batch(
                    self.map.as_fd().as_raw_fd(),
                    place.map_or(std::ptr::null_mut(), |place| place.as_mut_ptr().cast()),
                    next.as_mut_ptr().cast(),
                    rows.keys.as_mut_ptr().cast(),
                    rows.values.as_mut_ptr().cast(),
                    &mut rows.count,
                    std::ptr::null(),
                )
            };
            if done >= 0 {
                self.place = Some(next);
            } else {
                match Errno::from_raw_os_error(-done) {
                    Errno::NOENT => self.is_done = true,
                    Errno::INTR => continue,
                    Errno::NOSPC => {
                        self.room *= 2; // one bucket alone holds more
                        continue;
                    }
                    error => return Err(error.into()),
                }
            }
            rows.keys.truncate((rows.count * key_size) as usize);
            rows.values.truncate((rows.count * value_size) as usize);
            return Ok(Some(rows));
        }
        Ok(None)
    }
}

/// The rows of a per-CPU map, each CPU's value apart.
pub fn read_percpu<K: Plain, V: Plain>(map: &impl MapCore) -> Result<Vec<(K, Vec<V>)>> {
    let mut rows = Vec::new();
    for key in map.keys() {
        let Some(values) = map.lookup_percpu(&key, MapFlags::ANY)? else {
            continue; // deleted while we walked
        };
        let values = values
            .iter()
            .filter_map(|value| V::from_bytes(&value[..size_of::<V>().min(value.len())]))
            .collect();
        if let Some(key) = K::from_bytes(&key) {
            rows.push((key, values));
        }
    }
    Ok(rows)
}

/// Pins an object that has a file descriptor.
pub fn pin(object: impl AsFd, path: &Path) -> Result<()> {
    let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
        .with_context(|| format!("pin at {}", path.display()))?;
    // SAFETY: the descriptor is open and the path ends in a zero byte, both for the whole call.
    let done = unsafe { libbpf_sys::bpf_obj_pin(object.as_fd().as_raw_fd(), text.as_ptr()) };
    if done < 0 {
        return Err(std::io::Error::from_raw_os_error(-done))
            .with_context(|| format!("pin at {}", path.display()));
    }
    Ok(())
}

/// Opens a pinned map.
pub fn open(path: &Path) -> Result<MapHandle> {
    MapHandle::from_pinned_path(path).with_context(|| format!("open map {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_to_its_end() {
        let kinds = [
            ("a hash", MapType::Hash),
            ("connections", MapType::LruHash),
            ("an array", MapType::Array),
        ];
        for (what, map_type) in kinds {
            for count in [1, BATCH - 1, BATCH, 5 * BATCH + 7] {
                let kind = Kind {
                    name: "test",
                    map_type,
                    key_size: 4,
                    value_size: 8,
                    flags: 0,
                };
                // A table of connections that is nearly full pushes some out.
                let room = match map_type {
                    MapType::LruHash => 4 * count + BATCH,
                    _ => count,
                };
                let map = create(&kind, room).expect("make a map: this test needs root");
                let mut rows = Rows::default();
                for key in 0..count {
                    rows.push(&key, &(u64::from(key) * 3));
                }
                write(&map, "test", &rows).expect("write the rows");
                let mut read = read::<u32, u64>(&map).expect("read the rows");
                read.sort_unstable();
                let wanted: Vec<(u32, u64)> = (0..count).map(|k| (k, u64::from(k) * 3)).collect();
                assert!(read == wanted, "{what} of {count}: {} rows", read.len());
            }
        }
    }
}
