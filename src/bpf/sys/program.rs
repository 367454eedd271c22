//! What the kernel reports of a program.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::ProgInfoIter;

/// What listings show of `bpf_prog_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub id: u32,
    /// Instructions that the verifier processed at load.
    pub verified_instructions: u32,
    /// Bytes of machine code; 0: not compiled.
    pub jited_bytes: u32,
}

pub fn info(program: impl AsFd) -> Result<Info> {
    let (info, _) = query(program)?;
    Ok(Info {
        id: info.id,
        verified_instructions: info.verified_insns,
        jited_bytes: info.jited_prog_len,
    })
}

/// The ids of the maps that a program uses.
pub fn map_ids(program: impl AsFd) -> Result<Vec<u32>> {
    let (_, maps) = query(program)?;
    Ok(maps)
}

/// `bpf_prog_info`, and the ids of the program's maps.
fn query(program: impl AsFd) -> Result<(libbpf_sys::bpf_prog_info, Vec<u32>)> {
    const ROOM: usize = 64; // MAX_USED_MAPS, include/linux/bpf_verifier.h
    let mut maps = [0u32; ROOM];
    let mut info = libbpf_sys::bpf_prog_info {
        nr_map_ids: ROOM as u32,
        map_ids: maps.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut length = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes into `info`, and at most `nr_map_ids` ids
    // into the one array that is asked for.
    let done = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            program.as_fd().as_raw_fd(),
            std::ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    if done < 0 {
        return Err(std::io::Error::from_raw_os_error(-done)).context("query a program");
    }
    let count = ROOM.min(info.nr_map_ids as usize);
    Ok((info, maps[..count].to_vec()))
}

/// The name of any program by its id, as `bpftool prog` shows it; the id if it has none.
pub fn name(id: u32) -> String {
    find_name(id).unwrap_or_else(|| format!("program {id}"))
}

/// `None`: it has none, or this process may not search by ids, which needs CAP_SYS_ADMIN.
pub fn find_name(id: u32) -> Option<String> {
    ProgInfoIter::default()
        .find(|info| info.id == id && !info.name.is_empty())
        .map(|info| info.name.to_string_lossy().into_owned())
}
