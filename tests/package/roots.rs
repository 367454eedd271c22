//! The Debian roots that packages are installed in, made once by debootstrap.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

const MIRROR: &str = "http://deb.debian.org/debian";

/// The releases that the package is for, with the name that each has for the library of libelf1.
pub const SUITES: [(&str, &str); 2] = [("bookworm", "libelf1"), ("trixie", "libelf1t64")];

/// What a host has, and the DNS server and client of the README's first steps.
const PACKAGES: &str = "systemd,iproute2,iputils-ping,dnsmasq-base,bind9-dnsutils";

/// The root of a release.
pub fn root((suite, libelf): (&str, &str)) -> PathBuf {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/roots");
    fs::create_dir_all(&roots).expect("make the folder of the roots");
    let lock = File::create(roots.join(format!("{suite}.lock"))).expect("create the lock");
    flock(&lock, FlockOperation::LockExclusive).expect("wait for another that makes the root");

    let packages = format!("{PACKAGES},{libelf}");
    let root = roots.join(suite);
    let stamp = roots.join(format!("{suite}.packages"));
    if root.is_dir() && fs::read_to_string(&stamp).is_ok_and(|made| made == packages) {
        return root;
    }
    for folder in [&root, &roots.join(format!("{suite}.new"))] {
        if folder.exists() {
            fs::remove_dir_all(folder).expect("remove the root of before");
        }
    }
    let new = roots.join(format!("{suite}.new"));
    let output = Command::new("debootstrap")
        .arg("--variant=minbase")
        .arg(format!("--include={packages}"))
        .args([suite, &new.display().to_string(), MIRROR])
        .output()
        .expect("run debootstrap (see tools/install-packages)");
    assert!(
        output.status.success(),
        "no root of Debian {suite}: it needs root and {MIRROR}:\n{}",
        crate::machine::text(&output)
    );
    fs::rename(&new, &root).expect("put the root in its place");
    fs::write(&stamp, packages).expect("record what is in it");
    root
}
