//! How a service picks the backend of a new connection: what `random` and `maglev` cost, by the number of backends and with affinity;
//! and what their tables take, in memory and in time to write them. All of them in turn, so that the ratios hold.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../generate/mod.rs"]
mod generate;
#[path = "../lab/mod.rs"]
mod lab;
mod pick;
mod tables;

/// The middle one.
fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures have an order"));
    values[values.len() / 2]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Random,
    Maglev,
}

impl Algorithm {
    const ALL: [Algorithm; 2] = [Algorithm::Random, Algorithm::Maglev];

    /// As the file has it.
    fn name(self) -> &'static str {
        match self {
            Algorithm::Random => "random",
            Algorithm::Maglev => "maglev",
        }
    }
}

fn main() {
    lab::need_root();
    let _cgroup = lab::own_bpffs();
    lab::warn_if_busy();
    pick::measure();
    tables::measure();
}
