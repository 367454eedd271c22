//! Compiles each `bpf/*.bpf.c`, links them into one object, and makes the skeleton that the Rust side loads.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::Linker;

/// Newest first: what is known to compile and verify here.
const COMPILERS: [&str; 4] = ["clang-19", "clang-18", "clang-16", "clang"];

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let object = out.join("dpd.o");
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");

    make_object(Path::new("bpf"), &out, &object, &host_headers())?;
    SkeletonBuilder::new()
        .obj(&object)
        .generate(out.join("skeleton.rs"))
        .context("make the skeleton of the eBPF object")
}

/// Compiles the programs of a folder into one object; `out` is where the parts may lie, and `headers` the folder that holds
/// `asm/types.h`, which clang does not look for when it compiles for bpf.
pub fn make_object(folder: &Path, out: &Path, object: &Path, headers: &Path) -> Result<()> {
    let compiler = find_compiler()?;
    let arguments = compiler_arguments(headers);
    let mut linker = Linker::new(object).context("start the link of the eBPF objects")?;
    for source in sources(folder)? {
        let part = compile(&source, out, &compiler, &arguments)?;
        linker
            .add_file(&part)
            .with_context(|| format!("link {}", part.display()))?;
    }
    linker.link().context("link the eBPF objects")
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder).context("read the folder bpf")? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".bpf.c") {
            sources.push(path);
        }
    }
    sources.sort();
    Ok(sources)
}

fn compile(source: &Path, out: &Path, compiler: &str, arguments: &[String]) -> Result<PathBuf> {
    let name = source.file_name().context("a source has a name")?;
    let part = out.join(name).with_extension("o");
    SkeletonBuilder::new()
        .source(source)
        .obj(&part)
        .clang(compiler)
        .clang_args(arguments)
        .build()
        .with_context(|| format!("compile {} with {compiler}", source.display()))?;
    Ok(part)
}

fn find_compiler() -> Result<String> {
    if let Ok(named) = env::var("CLANG") {
        return Ok(named);
    }
    for name in COMPILERS {
        if Command::new(name).arg("--version").output().is_ok() {
            return Ok(name.to_owned());
        }
    }
    bail!(
        "clang is missing: install it with `apt-get install clang-19`, or run `make`, which does"
    );
}

/// The instruction set: LLVM 20 has another default, with which the verifier of some kernels refuses what it accepts so.
const CPU: &str = "-mcpu=v1";

fn compiler_arguments(headers: &Path) -> Vec<String> {
    ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", CPU]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("-I{}", headers.display())])
        .collect()
}

/// Those of the machine that compiles. The programs are for the eBPF machine, whatever the target: with the headers of another
/// architecture the object has the same bytes (`tests/house/architecture.rs`).
pub fn host_headers() -> PathBuf {
    PathBuf::from(format!("/usr/include/{}-linux-gnu", env::consts::ARCH))
}
