//! The package, and what it would be as another version.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// A folder with packages of several versions.
pub struct Packages {
    pub folder: TempDir,
}

fn ok(command: &mut Command) {
    let output = command.output().expect("run a command");
    let text = crate::machine::text(&output);
    assert!(output.status.success(), "{command:?}:\n{text}");
}

impl Packages {
    /// `dpd.deb` of this version.
    pub fn build() -> Packages {
        static DEB: LazyLock<Vec<u8>> = LazyLock::new(build);
        let folder = tempfile::tempdir().expect("make a folder");
        fs::write(folder.path().join("dpd.deb"), &*DEB).expect("write the package");
        Packages { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `NAME.deb`: the same with another version, and with scripts that are changed by a `sed` expression.
    pub fn repack(&self, name: &str, version: &str, scripts: &str) {
        let tree = self.path(name);
        ok(Command::new("dpkg-deb")
            .arg("-R")
            .args([self.path("dpd.deb"), tree.clone()]));
        let version = format!("s/^Version: .*/Version: {version}/");
        ok(Command::new("sed")
            .args(["-i", &version])
            .arg(tree.join("DEBIAN/control")));
        ok(Command::new("sed")
            .args(["-i", scripts])
            .arg(tree.join("DEBIAN/preinst")));
        ok(Command::new("dpkg-deb")
            .args(["-Zgzip", "-z1", "--root-owner-group", "-b"])
            .args([&tree, &self.path(&format!("{name}.deb"))]));
    }
}

/// By `make`, as users do, with the tests' own binary.
fn build() -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lock = File::create(source.join("target/package.lock")).expect("create the lock");
    flock(&lock, FlockOperation::LockExclusive).expect("wait for another that builds it");
    let folder = tempfile::tempdir().expect("make a folder");
    let deb = folder.path().join("dpd.deb");
    ok(Command::new("make")
        .current_dir(source)
        .args(["deb-only", "DEB_OPTIONS=--fast"])
        .arg(format!("BINARY={}", env!("CARGO_BIN_EXE_dpd")))
        .arg(format!("DEB={}", deb.display())));
    fs::read(&deb).expect("read the package")
}
