//! The invariants of the fuzzer hold for its corpus and for the examples (`make fuzz`).

#[path = "../fuzz/invariants.rs"]
mod invariants;

use std::fs;
use std::path::Path;

#[test]
fn the_invariants_hold_for_the_corpus_and_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for folder in ["fuzz/corpus/config", "examples", "examples/two-hosts"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_example = path.extension().is_some_and(|ending| ending == "toml");
            if path.is_file() && (is_example || folder.starts_with("fuzz")) {
                println!("{}", path.display()); // after a failure the last one is the culprit
                invariants::check(&fs::read(&path).unwrap());
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} texts");
}
