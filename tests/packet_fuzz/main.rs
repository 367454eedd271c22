//! The fuzzer's oracle of packets has nothing against its corpus (`make fuzz`), which begins with what the builder makes.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../fuzz/packet/mod.rs"]
mod packet;

mod seeds;

use std::fs;
use std::path::Path;

const CORPUS: &str = "fuzz/corpus/packet";

#[test]
fn the_oracle_has_nothing_against_the_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = packet::Fuzzed::new();
    let mut checked = 0;
    for entry in fs::read_dir(root.join(CORPUS)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // after a failure the last one is the culprit
        node.check(&fs::read(&path).unwrap(), |_| ());
        checked += 1;
    }
    assert!(checked >= seeds::all().len(), "only {checked} inputs");
}

#[test]
fn the_corpus_has_the_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packet-seeds");
    fs::create_dir_all(&place).unwrap();
    let mut missing = Vec::new();
    for (name, steps) in seeds::all() {
        let bytes = packet::input::encode(&steps);
        assert_eq!(packet::input::decode(&bytes), steps, "{name}");
        if fs::read(root.join(CORPUS).join(&name)).ok() != Some(bytes.clone()) {
            fs::write(place.join(&name), &bytes).unwrap();
            missing.push(name);
        }
    }
    assert!(
        missing.is_empty(),
        "not in the corpus as they are built: {missing:?}\n  cp {}/* {CORPUS}/",
        place.display()
    );
}
