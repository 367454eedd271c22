//! Maps in terms of the ABI's types.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys::{self, BPF_F_RDONLY};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType};

use super::call::call;
use super::op::Op;
use super::{parse, pins};
use crate::bpf::abi::Plain;

/// The mode of a pinned map. The kernel makes each pin with 0600 (kernel/bpf/inode.c, `S_IFREG | S_IRUSR | S_IWUSR`), and
/// opens programs and links only for those that may write them.
const MAP_MODE: u32 = 0o640;

/// Rows that one system call reads or writes.
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

/// Keys and values, concatenated, as a batch takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub keys: Vec<u8>,
    pub values: Vec<u8>,
    pub count: u32,
}

impl Rows {
    /// None yet, with room for so many: a large table is not copied as it grows.
    pub fn with_room<K: Plain, V: Plain>(rows: usize) -> Rows {
        Rows {
            keys: Vec::with_capacity(rows * size_of::<K>()),
            values: Vec::with_capacity(rows * size_of::<V>()),
            count: 0,
        }
    }

    pub fn push(&mut self, key: &impl Plain, value: &impl Plain) {
        self.keys.extend_from_slice(key.as_bytes());
        self.values.extend_from_slice(value.as_bytes());
        self.count += 1;
    }
}

/// Creates a map for so many entries, at least one.
pub fn create(kind: &Kind, entries: u32) -> Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: kind.flags,
        ..Default::default()
    };
    let op = Op::CreateMap {
        map: kind.name,
        entries,
    };
    call(op, || {
        MapHandle::create(
            kind.map_type,
            Some(kind.name),
            kind.key_size,
            kind.value_size,
            entries.max(1),
            &options,
        )
    })
}

/// Writes rows, a batch with each system call.
pub fn write(map: &MapHandle, name: &str, rows: &Rows) -> Result<()> {
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let mut written = 0;
    while written < rows.count {
        let batch = (rows.count - written).min(BATCH);
        let (from, to) = (written as usize, (written + batch) as usize);
        let op = Op::WriteRows {
            table: name,
            rows: (from, to),
            count: rows.count,
        };
        call(op, || {
            map.update_batch(
                &rows.keys[from * key_size..to * key_size],
                &rows.values[from * value_size..to * value_size],
                batch,
                MapFlags::ANY,
                MapFlags::ANY,
            )
        })?;
        written += batch;
    }
    Ok(())
}

/// Makes the map read-only for user space, this process included. Freezing twice is no error.
pub fn freeze(map: &impl MapCore, name: &str) -> Result<()> {
    // SAFETY: the descriptor is open for the whole call.
    let done = unsafe { libbpf_sys::bpf_map_freeze(map.as_fd().as_raw_fd()) };
    // Kernels differ in the errno for a map that is frozen already.
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

/// All rows of a map, in the order of the kernel.
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

/// Calls `take` with each row of a hash or array, in memory for one batch, however many rows there are.
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
/// A batch of a hash ends at the end of a bucket, so one that is not full need not be the last: only ENOENT marks that.
/// libbpf_rs ends its walk with the first batch that is not full, hence the system call here.
fn read_batches(
    map: &impl MapCore,
    value_size: usize,
    mut take: impl FnMut(&[u8], &[u8]),
) -> Result<()> {
    let key_size = map.key_size() as usize;
    // Where the next batch begins: a key of the map, or the index of a bucket.
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
        // SAFETY: all pointers are to buffers of the size that the kernel reads or writes, for the whole call; it reads
        // where to begin before it writes where to continue.
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
    let cpus = libbpf_rs::num_possible_cpus().context("count the possible CPUs")?;
    Ok(percpu_stride(map) * cpus)
}

/// Pins a map, which the group of the file may read.
pub fn pin_map(map: impl AsFd, path: &Path) -> Result<()> {
    pin(map, path)?;
    pins::set_mode(path, MAP_MODE)
}

/// Pins an object that has a file descriptor.
pub fn pin(object: impl AsFd, path: &Path) -> Result<()> {
    let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
        .with_context(|| format!("pin at {}", path.display()))?;
    call(Op::Pin { path }, || {
        // SAFETY: the descriptor is open and the path ends in a zero byte, both for the whole call.
        let done = unsafe { libbpf_sys::bpf_obj_pin(object.as_fd().as_raw_fd(), text.as_ptr()) };
        parse(done).map(drop)
    })
}

/// Properties of a map, as the kernel reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub id: u32,
    pub flags: u32,
    /// The id of its BTF, and of the types of its key and value there; 0: none.
    pub btf: u32,
    pub key_type: u32,
    pub value_type: u32,
}

pub fn facts(map: &MapHandle) -> Result<Facts> {
    let info = map.info().context("query a map")?.info;
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

/// Opens a pinned map: to read alone where this process may not write it.
pub fn open(path: &Path) -> Result<MapHandle> {
    call(Op::OpenMap { path }, || {
        MapHandle::from_pinned_path(path).or_else(|refused| match refused.kind() {
            ErrorKind::PermissionDenied => {
                MapHandle::from_pinned_path_with_file_flags(path, BPF_F_RDONLY)
            }
            _ => Err(refused),
        })
    })
}

/// Deletes the rows whose key is due.
pub fn delete_rows<K: Plain>(
    map: &MapHandle,
    name: &str,
    is_due: impl Fn(K) -> bool,
) -> Result<()> {
    // Collected first: deleting the key at which a walk is would start the walk again.
    let keys: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        if K::from_bytes(&key).is_some_and(&is_due) {
            call(Op::DeleteRow { map: name }, || map.delete(&key))?;
        }
    }
    Ok(())
}

/// Puts a program or map into a map of such.
pub fn put(map: &MapHandle, index: u32, object: impl AsFd) -> libbpf_rs::Result<()> {
    let fd = object.as_fd().as_raw_fd() as u32;
    map.update(&index.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
}

/// Deletes an entry of a map of programs or maps; a missing one is no error.
pub fn clear(map: &MapHandle, index: u32) -> libbpf_rs::Result<()> {
    match map.delete(&index.to_ne_bytes()) {
        Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
