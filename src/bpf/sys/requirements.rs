//! What the programs need of the kernel and kernels before 6.1 lack, to explain a refused load.
//!
//! Helpers are probed, since distributions take them into older kernels. What can't be probed is taken from the kernel's version.

use std::fmt::{self, Display};
use std::path::Path;

use libbpf_rs::{ProgramType, libbpf_sys};

/// The oldest kernel that dpd is tested on.
const OLDEST: Version = (6, 1);

/// Major and minor number of a kernel.
type Version = (u32, u32);

/// Where the kernel shows its types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's release, as `uname -r` prints it.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// A helper that programs of a type call.
struct Helper {
    number: libbpf_sys::bpf_func_id,
    name: &'static str,
    program_type: ProgramType,
    /// The first kernel that has it for this type.
    since: Version,
}

const fn helper(
    number: libbpf_sys::bpf_func_id,
    name: &'static str,
    program_type: ProgramType,
    since: Version,
) -> Helper {
    Helper {
        number,
        name,
        program_type,
        since,
    }
}

/// The last helper of Linux 5.2. Those up to it are taken as given: 5.2 is the first kernel that shows its types.
#[cfg(test)]
const GIVEN: libbpf_sys::bpf_func_id = libbpf_sys::BPF_FUNC_sk_storage_delete;

/// The other helpers of the programs, oldest first (include/uapi/linux/bpf.h has them in the order of their numbers).
const HELPERS: [Helper; 10] = [
    helper(
        libbpf_sys::BPF_FUNC_jiffies64,
        "bpf_jiffies64",
        ProgramType::SchedCls,
        (5, 6),
    ),
    helper(
        libbpf_sys::BPF_FUNC_get_netns_cookie,
        "bpf_get_netns_cookie",
        ProgramType::CgroupSockAddr,
        (5, 7),
    ),
    helper(
        libbpf_sys::BPF_FUNC_ringbuf_output,
        "bpf_ringbuf_output",
        ProgramType::SchedCls,
        (5, 8),
    ),
    helper(
        libbpf_sys::BPF_FUNC_ringbuf_reserve,
        "bpf_ringbuf_reserve",
        ProgramType::SchedCls,
        (5, 8),
    ),
    helper(
        libbpf_sys::BPF_FUNC_ringbuf_submit,
        "bpf_ringbuf_submit",
        ProgramType::SchedCls,
        (5, 8),
    ),
    helper(
        libbpf_sys::BPF_FUNC_redirect_neigh,
        "bpf_redirect_neigh",
        ProgramType::SchedCls,
        (5, 10),
    ),
    helper(
        libbpf_sys::BPF_FUNC_redirect_peer,
        "bpf_redirect_peer",
        ProgramType::SchedCls,
        (5, 10),
    ),
    helper(
        libbpf_sys::BPF_FUNC_ktime_get_coarse_ns,
        "bpf_ktime_get_coarse_ns",
        ProgramType::SchedCls,
        (5, 11),
    ),
    helper(
        libbpf_sys::BPF_FUNC_set_retval,
        "bpf_set_retval",
        ProgramType::CgroupSockAddr,
        (5, 18),
    ),
    helper(
        libbpf_sys::BPF_FUNC_xdp_get_buff_len,
        "bpf_xdp_get_buff_len",
        ProgramType::Xdp,
        (5, 18),
    ),
];

/// Abilities of the verifier.
const ABILITIES: [(&str, Version); 1] = [("pointers as arguments of global functions", (5, 12))];

/// What a kernel lacks.
#[derive(Debug, PartialEq, Eq)]
pub struct Lacks {
    release: String,
    parts: Vec<String>,
}

impl Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST;
        write!(
            f,
            "this kernel, {}, lacks what dpd needs; use Linux {major}.{minor} or later. Missing: {}",
            self.release,
            self.parts.join(", ")
        )
    }
}

/// What this kernel lacks; `None`: nothing that is known. Without CAP_BPF helpers can't be probed, and count as present.
pub fn lacks() -> Option<Lacks> {
    let release = std::fs::read_to_string(RELEASE).unwrap_or_default();
    let release = release.trim().to_owned();
    let has_types = Path::new(BTF).exists();
    let parts = missing(version(&release), has_types, |helper| {
        !matches!(
            helper.program_type.is_helper_supported(helper.number),
            Ok(false)
        )
    });
    (!parts.is_empty()).then_some(Lacks { release, parts })
}

/// Major and minor number of a release such as `6.1.0-50-cloud-amd64`.
fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

fn missing(
    version: Option<Version>,
    has_types: bool,
    is_present: impl Fn(&Helper) -> bool,
) -> Vec<String> {
    let since = |(major, minor): Version| format!("Linux {major}.{minor}");
    let types =
        (!has_types).then(|| format!("the kernel's types in {BTF} (CONFIG_DEBUG_INFO_BTF)"));
    let helpers = HELPERS.iter().filter(|helper| !is_present(helper));
    let helpers = helpers.map(|helper| {
        let Helper {
            name, since: first, ..
        } = helper;
        let programs = programs(helper.program_type);
        format!("helper {name} for {programs} ({})", since(*first))
    });
    let abilities = ABILITIES
        .iter()
        .filter(|(_, first)| version.is_some_and(|this| this < *first));
    let abilities = abilities.map(|(name, first)| format!("{name} ({})", since(*first)));
    types.into_iter().chain(helpers).chain(abilities).collect()
}

fn programs(program_type: ProgramType) -> &'static str {
    match program_type {
        ProgramType::Xdp => "XDP programs",
        ProgramType::CgroupSockAddr => "programs of sockets",
        _ => "tc programs",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bpf::image::ProgramImage;

    #[test]
    fn what_a_kernel_lacks() {
        let until = |version: Version| move |helper: &Helper| helper.since <= version;
        let socket = "helper bpf_set_retval for programs of sockets (Linux 5.18)";
        let xdp = "helper bpf_xdp_get_buff_len for XDP programs (Linux 5.18)";
        let coarse = "helper bpf_ktime_get_coarse_ns for tc programs (Linux 5.11)";
        let pointers = "pointers as arguments of global functions (Linux 5.12)";
        let rows: [(&str, bool, Version, &[&str]); 4] = [
            ("6.1.0-50-cloud-amd64", true, (6, 1), &[]),
            ("5.15.0-101-generic", true, (5, 15), &[socket, xdp]),
            (
                "5.10.0-32-cloud-amd64",
                true,
                (5, 10),
                &[coarse, socket, xdp, pointers],
            ),
            (
                "6.1.0",
                false,
                (6, 1),
                &["the kernel's types in /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)"],
            ),
        ];
        for (release, has_types, of, expected) in rows {
            let found = missing(version(release), has_types, until(of));
            assert_eq!(found, expected, "{release}");
        }
    }

    #[test]
    fn versions_of_releases() {
        for (release, expected) in [
            ("6.12.117+deb13-cloud-amd64", Some((6, 12))),
            ("7.3.4", Some((7, 3))),
            ("6", None),
            ("next-20261101", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    /// The numbers of the helpers that the object calls: `call` with no source register (Documentation/bpf/standardization).
    fn helpers_of(object: &[u8]) -> BTreeSet<libbpf_sys::bpf_func_id> {
        const CALL: u8 = 0x85;
        /// SHF_EXECINSTR (elf.h)
        const EXECUTABLE: u64 = 4;
        let word = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().expect("8 bytes"));
        // Of the 64-bit header: e_shoff, e_shnum; of a section: sh_flags, sh_offset, sh_size.
        let (sections, count) = (word(0x28) as usize, word(0x38) >> 32 & 0xffff);
        let mut helpers = BTreeSet::new();
        for section in (0..count as usize).map(|number| sections + 64 * number) {
            if word(section + 8) & EXECUTABLE == 0 {
                continue;
            }
            let (from, size) = (word(section + 24) as usize, word(section + 32) as usize);
            for instruction in object[from..from + size].chunks_exact(8) {
                if instruction[..2] == [CALL, 0] {
                    let number = instruction[4..].try_into().expect("4 bytes");
                    helpers.insert(u32::from_le_bytes(number));
                }
            }
        }
        helpers
    }

    #[test]
    fn every_newer_helper_of_the_programs_has_its_row() {
        let called = helpers_of(ProgramImage::own().object);
        assert!(called.contains(&libbpf_sys::BPF_FUNC_map_lookup_elem));
        let newer: BTreeSet<_> = called
            .into_iter()
            .filter(|helper| *helper > GIVEN)
            .collect();
        let rows: BTreeSet<_> = HELPERS.iter().map(|helper| helper.number).collect();
        assert_eq!(
            rows, newer,
            "the helpers of the table and those of the object"
        );
    }
}
