//! Programs of other versions of dpd: the tree's own, with another layout in abi.h.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use dpd::bpf::image::ProgramImage;

/// How the tree compiles its own.
#[path = "../../build.rs"]
pub mod build;

/// In another order, which changes their offsets in connections and in counters.
const COUNTS: &str = "\t__u64 packets;\n\t__u64 bytes;\n";
const COUNTS_SWAPPED: &str = "\t__u64 bytes;\n\t__u64 packets;\n";
const CONNECTION: &str = "struct ct_entry {\n";
const CONNECTION_LONGER: &str = "struct ct_entry {\n\t__u64 only_here;\n";

/// The tree's own programs as another version, which takes over whatever version is there.
pub fn own(version: u32) -> ProgramImage<'static> {
    of(version, ProgramImage::own().object)
}

fn of(version: u32, object: &'static [u8]) -> ProgramImage<'static> {
    ProgramImage {
        version,
        oldest_predecessor: 0,
        object,
    }
}

/// A version with connections and counters of another layout.
pub fn other(version: u32) -> ProgramImage<'static> {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    let edits = [(COUNTS, COUNTS_SWAPPED), (CONNECTION, CONNECTION_LONGER)];
    let object = OBJECT.get_or_init(|| compile(&edits));
    of(version, object)
}

/// A version whose connections can't be migrated: a member has another size.
pub fn narrow(version: u32) -> ProgramImage<'static> {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    let edits = [(
        "\t__u64 created_ns;\n",
        "\t__u32 created_ns;\n\t__u32 pad_created;\n",
    )];
    let object = OBJECT.get_or_init(|| compile(&edits));
    of(version, object)
}

/// Compiles a copy of the programs with something in abi.h replaced.
fn compile(edits: &[(&str, &str)]) -> Vec<u8> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let folder = tempfile::tempdir().expect("make a folder for the programs");
    let copy = folder.path().join("bpf");
    copy_tree(&tree, &copy);
    let mut text = fs::read_to_string(copy.join("abi.h")).expect("read abi.h");
    for (from, to) in edits {
        assert!(text.contains(from), "abi.h has no {from:?}");
        text = text.replace(from, to);
    }
    fs::write(copy.join("abi.h"), text).expect("write abi.h");
    let object = folder.path().join("dpd.o");
    build::make_object(&copy, folder.path(), &object, &build::host_headers())
        .unwrap_or_else(|error| panic!("compile the other programs: {error:#}"));
    fs::read(&object).expect("read the object")
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder").flatten() {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("copy a file");
        }
    }
}
