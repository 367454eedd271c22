//! The types that programs and daemon share, generated from `bpf/abi.h`, and their bytes.

#[allow(clippy::all, dead_code, unused_imports)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/skeleton.rs"));
}

pub use skeleton::types::*;

/// The linked object that the daemon loads.
pub const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dpd.o"));

/// A struct of the ABI: integers and arrays of them, without holes, so that every bit pattern is a value.
///
/// # Safety
/// Only for `repr(C)` types of `abi.h`, whose compilation refuses padding.
pub unsafe trait Plain: Copy + Default + 'static {
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the type has no padding, so all its bytes are initialised; they live as long as `self`.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// The value that these bytes are, if there are as many as it takes.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length is right, any bit pattern is a value, and the read does not need alignment.
        Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

macro_rules! plain {
    ($($name:ident),*) => { $(
        // SAFETY: a type of abi.h.
        unsafe impl Plain for $name {}
    )* };
}

plain!(
    service_source_key,
    service_source,
    settings,
    service_key,
    service,
    backend_lut_entry,
    maglev_row,
    backend,
    endpoint,
    uplink,
    address_prefix_key,
    ipcache_entry,
    snat_port,
    announced,
    link_address,
    policy_key,
    policy,
    prefilter,
    address,
    flow_tuple,
    ct_entry,
    drop_count_key,
    packet_count,
    endpoint_counters,
    conn_usage_key,
    conn_usage,
    affinity_key,
    affinity,
    socket_peer,
    socket_flow_key,
    event,
    hook_row,
    drop_key,
    drop_throttle
);
/// Each endpoint has a row of its own.
const _: () = assert!(
    endpoint_counters_size::ENDPOINT_COUNTERS_SIZE.0 == crate::model::catalog::MAX_ENDPOINTS + 1
);

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
