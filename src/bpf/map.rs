//! Maps in terms of the ABI's types, with sentences for errors.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::abi::Plain;
use super::gate;

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
    gate::pass(
        format_args!("make map {} for {entries} entries", kind.name),
        || {
            MapHandle::create(
                kind.map_type,
                Some(kind.name),
                kind.key_size,
                kind.value_size,
                entries.max(1),
                &options,
            )
        },
    )
}

/// Writes rows, in as few system calls as there are batches.
pub fn write(map: &MapHandle, name: &str, rows: &Rows) -> Result<()> {
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let mut written = 0;
    while written < rows.count {
        let batch = (rows.count - written).min(BATCH);
        let (from, to) = (written as usize, (written + batch) as usize);
        gate::pass(
            format_args!("table {name}: write rows {from} to {to} of {}", rows.count),
            || {
                map.update_batch(
                    &rows.keys[from * key_size..to * key_size],
                    &rows.values[from * value_size..to * value_size],
                    batch,
                    MapFlags::ANY,
                    MapFlags::ANY,
                )
            },
        )?;
        written += batch;
    }
    Ok(())
}

/// From here on user space, we too, can't write the map: the kernel refuses it. One that is frozen already is left so.
pub fn freeze(map: &impl MapCore, name: &str) -> Result<()> {
    // SAFETY: the descriptor is open for the whole call.
    let done = unsafe { libbpf_sys::bpf_map_freeze(map.as_fd().as_raw_fd()) };
    // Kernels differ in how they refuse to freeze twice.
    let is_frozen = || {
        map.query_fdinfo()
            .is_ok_and(|info| info.frozen == Some(true))
    };
    if done < 0 && !is_frozen() {
        return Err(std::io::Error::from_raw_os_error(-done))
            .with_context(|| format!("freeze map {name}"));
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
    for_each(map, |key, value| rows.push((key, value)))?;
    Ok(rows)
}

/// Calls `take` with each row of a hash or array, many read at a time: memory for one batch, however many rows there are.
pub fn for_each<K: Plain, V: Plain>(map: &impl MapCore, mut take: impl FnMut(K, V)) -> Result<()> {
    read_batches(map, map.value_size() as usize, |key, value| {
        if let Some((key, value)) = K::from_bytes(key).zip(V::from_bytes(value)) {
            take(key, value);
        }
    })
}

/// How many rows a hash, per-CPU hash or trie has.
pub fn count(map: &impl MapCore) -> Result<u64> {
    let value_size = match map.map_type() {
        MapType::LpmTrie => return Ok(map.keys().count() as u64),
        MapType::PercpuHash | MapType::LruPercpuHash => percpu_size(map)?,
        _ => map.value_size() as usize,
    };
    let mut rows = 0;
    read_batches(map, value_size, |_, _| rows += 1)?;
    Ok(rows)
}

/// Calls `take` with each key and value, read many at a time.
///
/// A batch of a hash ends with a whole bucket: one that is not full need not be the last. The kernel says which is, so
/// it is asked here and not through libbpf_rs, whose walk ends with the first that is not full.
fn read_batches(
    map: &impl MapCore,
    value_size: usize,
    mut take: impl FnMut(&[u8], &[u8]),
) -> Result<()> {
    let key_size = map.key_size() as usize;
    // Where the next batch begins: a key of the map, or the number of a bucket.
    let mut next = vec![0u8; key_size.max(size_of::<u32>())];
    let mut begun = false;
    let mut room = map.max_entries().clamp(1, BATCH);
    loop {
        let mut keys = vec![0; key_size * room as usize];
        let mut values = vec![0; value_size * room as usize];
        let mut count = room;
        let from = match begun {
            true => next.as_ptr().cast_mut().cast(),
            false => std::ptr::null_mut(),
        };
        // SAFETY: all pointers lead to buffers that hold what the kernel reads or writes there, for the whole call; it
        // reads where to begin before it writes where to go on.
        let done = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_fd().as_raw_fd(),
                from,
                next.as_mut_ptr().cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &mut count,
                std::ptr::null(),
            )
        };
        let error = std::io::Error::from_raw_os_error(-done);
        let errno = rustix::io::Errno::from_io_error(&error);
        if done < 0 && errno == Some(rustix::io::Errno::NOSPC) {
            room *= 2; // one bucket holds more than that
            continue;
        }
        let is_last = done < 0 && errno == Some(rustix::io::Errno::NOENT);
        if done < 0 && !is_last {
            return Err(error).context("read a batch of rows");
        }
        let rows = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size));
        rows.take(count as usize)
            .for_each(|(key, value)| take(key, value));
        if is_last {
            return Ok(());
        }
        begun = true;
    }
}

/// The rows of a per-CPU hash, each CPU's value apart.
pub fn read_percpu<K: Plain, V: Plain>(map: &impl MapCore) -> Result<Vec<(K, Vec<V>)>> {
    let mut rows = Vec::new();
    read_batches(map, percpu_size(map)?, |key, values| {
        let values = values.chunks_exact(percpu_stride(map));
        let values = values.filter_map(|value| V::from_bytes(value.get(..size_of::<V>())?));
        if let Some(key) = K::from_bytes(key) {
            rows.push((key, values.collect()));
        }
    })?;
    Ok(rows)
}

/// The values of one row of a per-CPU map, one for each CPU; none if the row is not there.
pub fn lookup_percpu<V: Plain>(map: &impl MapCore, key: &impl Plain) -> Result<Vec<V>> {
    let values = map.lookup_percpu(key.as_bytes(), MapFlags::ANY)?;
    let values = values.iter().flatten();
    Ok(values
        .filter_map(|value| V::from_bytes(value.get(..size_of::<V>())?))
        .collect())
}

/// The kernel rounds each CPU's value up to whole words.
fn percpu_stride(map: &impl MapCore) -> usize {
    (map.value_size() as usize).next_multiple_of(size_of::<u64>())
}

/// What all CPUs' values of one row take.
fn percpu_size(map: &impl MapCore) -> Result<usize> {
    let cpus = libbpf_rs::num_possible_cpus().context("ask how many CPUs there can be")?;
    Ok(percpu_stride(map) * cpus)
}

/// Pins an object that has a file descriptor.
pub fn pin(object: impl AsFd, path: &Path) -> Result<()> {
    let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
        .with_context(|| format!("pin at {}", path.display()))?;
    gate::pass(format_args!("pin at {}", path.display()), || {
        // SAFETY: the descriptor is open and the path ends in a zero byte, both for the whole call.
        let done = unsafe { libbpf_sys::bpf_obj_pin(object.as_fd().as_raw_fd(), text.as_ptr()) };
        match done {
            0.. => Ok(()),
            errno => Err(std::io::Error::from_raw_os_error(-errno)),
        }
    })
}

/// What a map is, as the kernel tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub id: u32,
    pub flags: u32,
    /// The number of the types that it came with, and of its key and value among them; 0: none.
    pub btf: u32,
    pub key_type: u32,
    pub value_type: u32,
}

pub fn facts(map: &MapHandle) -> Result<Facts> {
    let info = map.info().context("ask about a map")?.info;
    Ok(Facts {
        id: info.id,
        flags: info.map_flags,
        btf: info.btf_id,
        key_type: info.btf_key_type_id,
        value_type: info.btf_value_type_id,
    })
}

/// The keys of a map that has batches, in the kernel's order.
pub fn keys(map: &impl MapCore) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    let value_size = map.value_size() as usize;
    read_batches(map, value_size, |key, _| keys.push(key.to_vec()))?;
    Ok(keys)
}

/// Opens a pinned map.
pub fn open(path: &Path) -> Result<MapHandle> {
    gate::pass(format_args!("open map {}", path.display()), || {
        MapHandle::from_pinned_path(path)
    })
}
