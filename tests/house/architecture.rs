//! The programs are the same for every architecture: no header of the kernel's gives them another layout.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::image::build;

/// Where Debian's package `linux-libc-dev-ARCH-cross` has the headers of another architecture.
fn other_headers() -> String {
    let other = if ARCH == "aarch64" {
        "x86_64"
    } else {
        "aarch64"
    };
    format!("/usr/{other}-linux-gnu/include")
}

/// The sections of an object by their names (elf.h: `Elf64_Ehdr`, `Elf64_Shdr`).
fn sections(object: &[u8]) -> BTreeMap<String, &[u8]> {
    let word = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| usize::from(u16::from_le_bytes([object[at], object[at + 1]]));
    // e_shoff, e_shnum and e_shstrndx; of each section sh_offset and sh_size.
    let header = |number: usize| word(0x28) as usize + 64 * number;
    let contents = |at: usize| {
        let (from, size) = (word(at + 24) as usize, word(at + 32) as usize);
        &object[from..from + size]
    };
    let names = contents(header(half(0x3e)));
    let name = |at: usize| {
        let from = &names[word(at) as u32 as usize..];
        let end = from.iter().position(|byte| *byte == 0).expect("its end");
        String::from_utf8_lossy(&from[..end]).into_owned()
    };
    let all = (1..half(0x3c)).map(header);
    all.map(|at| (name(at), contents(at))).collect()
}

/// Programs that between them include every header: all would take long.
const PROGRAMS: [&str; 3] = ["from_netdev.bpf.c", "deliver.bpf.c", "sock_sendmsg6.bpf.c"];

/// Links to the tree's headers and to those programs.
fn link_tree(folder: &Path) {
    fs::create_dir(folder).expect("make a folder for the programs");
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    for entry in fs::read_dir(tree).expect("read bpf").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".bpf.c") || PROGRAMS.contains(&name.as_str()) {
            symlink(entry.path(), folder.join(name)).expect("make a link");
        }
    }
}

fn compile(folder: &Path, headers: &Path) -> Vec<u8> {
    let (link, object) = (folder.join("headers"), folder.join("dpd.o"));
    let _ = fs::remove_file(&link);
    symlink(headers, &link).expect("make a link to the headers");
    build::make_object(&folder.join("bpf"), folder, &object, &link)
        .unwrap_or_else(|error| panic!("compile with {}: {error:#}", headers.display()));
    fs::read(&object).expect("read the object")
}

#[test]
fn the_object_is_the_same_with_the_headers_of_another_architecture() {
    let other = other_headers();
    let other = Path::new(&other);
    assert!(
        other.join("asm/types.h").exists(),
        "{} has no headers: run tools/install-packages test",
        other.display()
    );
    let folder = tempfile::tempdir().expect("make a folder");
    link_tree(&folder.path().join("bpf"));
    let own = compile(folder.path(), &build::host_headers());
    let others = compile(folder.path(), other);
    let (own, others) = (sections(&own), sections(&others));
    assert!(own.contains_key("tc"), "{:?}", own.keys());
    for ((name, bytes), (other, others)) in own.iter().zip(&others) {
        assert_eq!((name, bytes.len()), (other, others.len()));
        // clang gives types that are only declared another order from one run to the next.
        assert!(
            name == ".BTF" || bytes == others,
            "section {name} is another"
        );
    }
    assert_eq!(own.len(), others.len(), "sections");
}
