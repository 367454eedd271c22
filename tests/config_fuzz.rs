//! What the fuzzer keeps of its texts, and the examples, hold what it asks of every text (`make fuzz`).

#[path = "../fuzz/judge.rs"]
mod judge;

use std::fs;
use std::path::Path;

#[test]
fn every_kept_text_is_judged_as_it_must_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut judged = 0;
    for folder in ["fuzz/corpus/config", "examples", "examples/two-hosts"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_example = path.extension().is_some_and(|ending| ending == "toml");
            if path.is_file() && (is_example || folder.starts_with("fuzz")) {
                println!("{}", path.display()); // the last one is whose fault it is
                judge::judge(&fs::read(&path).unwrap());
                judged += 1;
            }
        }
    }
    assert!(judged > 20, "only {judged} texts are kept");
}
