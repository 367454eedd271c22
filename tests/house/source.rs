//! The tree's texts, as the rules read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// A file of the tree.
pub struct Text {
    /// From the root of the tree on.
    pub path: String,
    pub text: String,
}

/// Not ours to word, or not words at all.
const LEFT_OUT: [&str; 4] = [".git", "target", "LICENSES", "Cargo.lock"];

/// Every text of the tree.
pub fn all() -> &'static [Text] {
    static ALL: OnceLock<Vec<Text>> = OnceLock::new();
    ALL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut texts = Vec::new();
        gather(root, root, &mut texts);
        texts.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(texts.len() > 100, "the tree is there");
        texts
    })
}

fn gather(root: &Path, folder: &Path, texts: &mut Vec<Text>) {
    for entry in fs::read_dir(folder).expect("read a folder of the tree") {
        let path = entry.expect("read a folder of the tree").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if LEFT_OUT.contains(&name.as_ref()) {
            continue;
        }
        if path.is_dir() {
            gather(root, &path, texts);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("it lies below the root");
            let path = path.to_string_lossy().into_owned();
            texts.push(Text { path, text });
        }
    }
}

/// The files below a folder whose names end so.
pub fn below(folder: &str, ending: &str) -> impl Iterator<Item = &'static Text> {
    let found = all()
        .iter()
        .filter(move |text| text.path.starts_with(folder) && text.path.ends_with(ending));
    let found: Vec<_> = found.collect();
    assert!(!found.is_empty(), "{folder} has files in {ending}");
    found.into_iter()
}

/// The Rust files that are compiled into the product.
pub fn product() -> impl Iterator<Item = &'static Text> {
    let tests = test_modules();
    below("src/", ".rs").filter(move |text| !tests.iter().any(|module| text.is_of(module)))
}

/// The modules that only tests compile, as paths without ending: `#[cfg(test)]` stands above their `mod`.
fn test_modules() -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for text in below("src/", ".rs") {
        let folder = match text.path.strip_suffix("/mod.rs") {
            Some(folder) => folder,
            None => text.path.trim_end_matches(".rs"),
        };
        let mut is_test = false;
        for line in text.text.lines() {
            let name = line.trim().rsplit("mod ").next().unwrap_or_default();
            if let (true, Some(name)) = (is_test, name.strip_suffix(';')) {
                modules.insert(format!("{folder}/{name}"));
            }
            is_test = line.trim() == "#[cfg(test)]";
        }
    }
    modules
}

impl Text {
    /// The lines of code with their numbers: without comments, and without the tests at the end of a Rust file.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .take_while(|(_, line)| *line != "#[cfg(test)]" || !self.tests_follow())
            .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Whether the file ends with its tests, rather than naming a file of them.
    fn tests_follow(&self) -> bool {
        self.text.contains("#[cfg(test)]\nmod tests {")
    }

    /// Whether this is the file of a module, or lies in its folder.
    fn is_of(&self, module: &str) -> bool {
        let rest = self.path.strip_prefix(module);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// The file's name without folders.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Fails with every breach of a rule, if there are any.
pub fn keep(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}
