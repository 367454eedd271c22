//! Paths of keys, as in `services.web.backends[2].weight`.

use std::fmt;

/// The path of a table, key or item. It becomes text only if a problem is reported.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Root,
    Key(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    pub const ROOT: &'static Path<'static> = &Path {
        parent: None,
        part: Part::Root,
    };

    pub fn key(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            part: Part::Key(name),
        }
    }

    pub fn item(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            part: Part::Item(index),
        }
    }

    pub fn is_root(&self) -> bool {
        matches!(self.part, Part::Root)
    }
}

impl fmt::Display for Path<'_> {
    /// `services.web.backends[2].weight`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.parent.filter(|parent| !parent.is_root());
        if let Some(parent) = parent {
            write!(f, "{parent}")?;
        }
        match self.part {
            Part::Root => Ok(()),
            Part::Key(name) if parent.is_some() => write!(f, ".{}", name.escape_debug()),
            Part::Key(name) => write!(f, "{}", name.escape_debug()),
            Part::Item(index) => write!(f, "[{index}]"),
        }
    }
}
