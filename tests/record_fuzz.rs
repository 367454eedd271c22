//! The fuzzer's invariants of ring records hold for its corpus (`make fuzz`).

#[path = "../fuzz/record.rs"]
mod record;

use std::fs;
use std::path::Path;

#[test]
fn the_invariants_hold_for_the_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for entry in fs::read_dir(root.join("fuzz/corpus/record")).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // after a failure the last one is the culprit
        record::check(&fs::read(&path).unwrap());
        checked += 1;
    }
    assert!(checked > 10, "only {checked} records");
}
