//! Rust: the files of a room of src/ depend on each other in one direction.
//!
//! A file depends on another one that it names by `use` or by a path. A `mod` and a `pub use` are no dependency: a name that a
//! `mod.rs` re-exports is looked up where it is defined.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Text, keep, product};

/// Rooms that still have a circle. None is added.
const KNOWN: [&str; 1] = ["reconcile"];

/// `["plan", "policy", "table"]` of src/plan/policy/table.rs.
type Module = Vec<String>;

/// A file, and the names in it that lead elsewhere.
struct File {
    path: &'static str,
    /// What it names, segment by segment as it is written.
    paths: Vec<Vec<String>>,
    /// Re-exported names with the paths that they stand for.
    exports: BTreeMap<String, Vec<String>>,
}

struct Crate {
    files: BTreeMap<Module, File>,
}

#[test]
fn files_of_a_room_depend_on_each_other_in_one_direction() {
    let circles = Crate::read().circles();
    let room = |files: &Vec<&'static str>| module(files[0]).swap_remove(0);
    let is_new = |files: &&Vec<&'static str>| !KNOWN.contains(&room(files).as_str());
    let new = circles.iter().filter(is_new);
    keep(
        "no circle of files: move what both need to a file below them",
        new.map(|files| files.join(" ↔ ")).collect(),
    );
    let has_none = |known: &&&str| circles.iter().all(|files| room(files) != **known);
    let gone = KNOWN.iter().filter(has_none);
    keep(
        "a room without a circle leaves the list",
        gone.map(ToString::to_string).collect(),
    );
}

#[test]
fn a_circle_is_found() {
    let file = |path, text: &str| (module(path), File::of(path, text));
    let files = [
        file(
            "src/room/mod.rs",
            "mod a;\nmod b;\nmod c;\npub use b::{self, Item};\nfn f() { a::g() }\n",
        ),
        file("src/room/a.rs", "use super::Item;\nuse std::fmt;\n"),
        file("src/room/b.rs", "fn f() -> crate::room::c::Thing {}\n"),
        file(
            "src/room/c.rs",
            "use {\n    super::a::{x, y::Z},\n    crate::other::b,\n};\n",
        ),
        file("src/other/b.rs", "use crate::room::a;\n"),
    ];
    let circles = Crate {
        files: files.into(),
    }
    .circles();
    let expected = vec!["src/room/a.rs", "src/room/b.rs", "src/room/c.rs"];
    assert_eq!(circles, [expected].into(), "other/b is no file of the room");
}

impl Crate {
    fn read() -> Crate {
        let code = |text: &Text| {
            let lines = text.code().map(|(_, line)| line);
            lines.collect::<Vec<_>>().join("\n")
        };
        let files = product().filter(|text| text.path != "src/main.rs");
        let files = files.map(|text| (module(&text.path), File::of(&text.path, &code(text))));
        Crate {
            files: files.collect(),
        }
    }

    /// The sets of files that depend on each other, each within a room.
    fn circles(&self) -> BTreeSet<Vec<&'static str>> {
        let direct: BTreeMap<&Module, BTreeSet<Module>> = self
            .files
            .keys()
            .map(|from| (from, self.uses(from)))
            .collect();
        let reach = |from: &Module| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&Module> = direct[from].iter().collect();
            while let Some(module) = next.pop() {
                if seen.insert(module) {
                    next.extend(&direct[module]);
                }
            }
            seen
        };
        let reachable: BTreeMap<&Module, BTreeSet<&Module>> =
            self.files.keys().map(|from| (from, reach(from))).collect();
        let in_circle = self
            .files
            .keys()
            .filter(|file| reachable[file].contains(file));
        let circle = |file: &Module| {
            let back = |other: &&&Module| reachable[**other].contains(file);
            let others = reachable[file].iter().filter(back);
            others.map(|other| self.files[*other].path).collect()
        };
        in_circle.map(circle).collect()
    }

    /// The files of the same room that a file depends on.
    fn uses(&self, from: &Module) -> BTreeSet<Module> {
        let paths = self.files[from].paths.iter();
        let uses = paths.filter_map(|path| self.resolve(from, path));
        uses.filter(|to| to != from && to.first() == from.first())
            .collect()
    }

    /// The module that defines what a path in `from` names; `None`: it lies in another crate.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        let is_relative = |name: &String| ["crate", "self", "super"].contains(&name.as_str());
        let starts_here = is_relative(path.first()?) || self.child(from, path.first()?).is_some();
        if !starts_here {
            return None;
        }
        while let Some(name) = rest.first().filter(|name| is_relative(name)) {
            match name.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                _ => {}
            }
            rest = &rest[1..];
        }
        for (nth, name) in rest.iter().enumerate() {
            if let Some(child) = self.child(&at, name) {
                at = child;
                continue;
            }
            if let Some(export) = self.files.get(&at).and_then(|file| file.exports.get(name)) {
                let whole: Vec<String> = export.iter().chain(&rest[nth + 1..]).cloned().collect();
                return self.resolve(&at, &whole);
            }
            break;
        }
        self.files.contains_key(&at).then_some(at)
    }

    fn child(&self, module: &Module, name: &str) -> Option<Module> {
        let child: Module = module.iter().cloned().chain([name.to_owned()]).collect();
        self.files.contains_key(&child).then_some(child)
    }
}

fn module(path: &str) -> Module {
    let inside = path
        .strip_prefix("src/")
        .unwrap_or(path)
        .trim_end_matches(".rs");
    let names = inside
        .split('/')
        .filter(|name| *name != "mod" && *name != "lib");
    names.map(str::to_owned).collect()
}

impl File {
    fn of(path: &'static str, code: &str) -> File {
        let mut file = File {
            path,
            paths: Vec::new(),
            exports: BTreeMap::new(),
        };
        let mut rest = String::new();
        for statement in code
            .split_inclusive([';', '{', '}'])
            .collect::<Statements>()
            .0
        {
            match use_tree(&statement) {
                Some((true, tree)) => {
                    for path in expand(&tree) {
                        let name = path.last().cloned().unwrap_or_default();
                        file.exports.insert(name, path);
                    }
                }
                Some((false, tree)) => file.paths.extend(expand(&tree)),
                None => rest.push_str(&statement),
            }
        }
        file.paths.extend(inline_paths(&rest));
        file
    }
}

/// Code cut at the ends of statements, with a `use` and its braces in one piece.
struct Statements(Vec<String>);

impl<'a> FromIterator<&'a str> for Statements {
    fn from_iter<I: IntoIterator<Item = &'a str>>(pieces: I) -> Statements {
        let mut statements: Vec<String> = Vec::new();
        for piece in pieces {
            match statements.last_mut() {
                Some(last) if use_tree(last).is_some() && !last.ends_with(';') => {
                    last.push_str(piece)
                }
                _ => statements.push(piece.to_owned()),
            }
        }
        Statements(statements)
    }
}

/// Whether a statement is a re-export, and what stands behind its `use`.
fn use_tree(statement: &str) -> Option<(bool, String)> {
    let statement = statement.trim_start();
    let (visibility, tree) = match statement.strip_prefix("use ") {
        Some(tree) => ("", tree),
        None => statement.split_once(" use ")?,
    };
    let is_use =
        visibility.is_empty() || visibility.starts_with("pub") && !visibility.contains(' ');
    let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    is_use.then(|| {
        (
            !visibility.is_empty(),
            tree.trim_end_matches(';').to_owned(),
        )
    })
}

/// The paths of `a::{b, c::{self, d}}`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let names = |path: &str| -> Vec<String> {
        let path = path.split(" as ").next().unwrap_or_default();
        let names = path
            .split("::")
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    };
    let Some((prefix, list)) = tree.split_once('{') else {
        return vec![names(tree)];
    };
    let prefix = names(prefix);
    let list = list.strip_suffix('}').unwrap_or(list);
    let mut depth = 0;
    let items = list.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let items: Vec<&str> = items.filter(|item| !item.trim().is_empty()).collect();
    let paths = items.into_iter().flat_map(expand);
    let is_self = |name: &String| name == "self";
    paths
        .map(|path| {
            let rest = path.into_iter();
            let path: Vec<String> = prefix.iter().cloned().chain(rest).collect();
            match path.len() > 1 && path.last().is_some_and(is_self) {
                true => path[..path.len() - 1].to_vec(),
                false => path,
            }
        })
        .collect()
}

/// Every path of two names or more.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code
        .split(|c| !is_inside(c))
        .filter(|word| word.contains("::"));
    let paths = words.map(|word| {
        word.trim_matches(':')
            .split("::")
            .map(str::to_owned)
            .collect()
    });
    paths.filter(|path: &Vec<String>| path.len() > 1).collect()
}
