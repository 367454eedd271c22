//! Offsets of the members of a record, and the conversion of a record to another layout, by the members' names.
//!
//! A member that both have is copied, a new one is zero, a removed one is dropped. A member whose type has changed can't be
//! converted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A record of integers, in structs and arrays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// In bytes.
    pub size: usize,
    /// By their paths: `translated.source.word`. A record that is an integer is one member without a name.
    pub members: BTreeMap<String, Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// From the record's start, in bytes.
    pub offset: usize,
    /// In bytes.
    pub size: usize,
    /// The C type: `__u8[6]`.
    pub kind: String,
}

/// Converts records of one layout to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    size: usize,
    /// Source offset, target offset, size.
    copies: Vec<(usize, usize, usize)>,
}

impl Layout {
    /// Padding has no value: zero in every record.
    fn is_padding(path: &str) -> bool {
        path.rsplit('.').next() == Some("pad")
    }

    pub fn add(&mut self, path: String, member: Member) {
        if !Layout::is_padding(&path) {
            self.members.insert(path, member);
        }
    }

    /// The conversion from this layout to `new`.
    ///
    /// # Errors
    /// The members that have another type there, a phrase each.
    pub fn convert_to(&self, new: &Layout) -> Result<Conversion, Vec<String>> {
        let both = self.members.iter().filter_map(|(path, member)| {
            let now = new.members.get(path)?;
            Some((path, member, now))
        });
        let (kept, changed): (Vec<_>, Vec<_>) =
            both.partition(|(_, was, is)| (was.size, &was.kind) == (is.size, &is.kind));
        if changed.is_empty() {
            let copies = kept.iter();
            return Ok(Conversion {
                size: new.size,
                copies: copies
                    .map(|(_, was, is)| (was.offset, is.offset, was.size))
                    .collect(),
            });
        }
        let phrases = changed.iter();
        Err(phrases
            .map(|(path, was, is)| format!("{path} was {} and is {}", was.kind, is.kind))
            .collect())
    }

    /// A record of `new` from members of this one: `source` maps the path of a member to that of its source. `None` if one
    /// is missing or has another type.
    pub fn pick(&self, new: &Layout, source: impl Fn(&str) -> String) -> Option<Conversion> {
        let copies = new.members.iter().map(|(path, is)| {
            let was = self.members.get(&source(path))?;
            ((was.size, &was.kind) == (is.size, &is.kind))
                .then_some((was.offset, is.offset, is.size))
        });
        Some(Conversion {
            size: new.size,
            copies: copies.collect::<Option<_>>()?,
        })
    }
}

impl Conversion {
    /// The record in the new layout.
    pub fn convert(&self, record: &[u8]) -> Vec<u8> {
        let mut new = vec![0; self.size];
        for &(from, to, length) in &self.copies {
            if let (Some(old), Some(new)) = (
                record.get(from..from + length),
                new.get_mut(to..to + length),
            ) {
                new.copy_from_slice(old);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members one after the other: path, kind, bytes.
    fn layout(members: &[(&str, &str, usize)]) -> Layout {
        let mut layout = Layout::default();
        for (path, kind, size) in members {
            let (offset, kind) = (layout.size, (*kind).to_owned());
            let member = Member {
                offset,
                size: *size,
                kind,
            };
            layout.add((*path).to_owned(), member);
            layout.size += size;
        }
        layout
    }

    #[test]
    fn a_record_keeps_what_both_layouts_have() {
        let old = layout(&[
            ("epoch", "__u64", 2),
            ("gone", "__u8", 1),
            ("pad", "__u8", 1),
            ("key.port", "__be16", 2),
        ]);
        let rows: [(&str, Layout, &[u8]); 5] = [
            ("the same layout", old.clone(), &[1, 2, 3, 0, 5, 6]),
            (
                "another order",
                layout(&[
                    ("key.port", "__be16", 2),
                    ("gone", "__u8", 1),
                    ("epoch", "__u64", 2),
                ]),
                &[5, 6, 3, 1, 2],
            ),
            (
                "a new member is zero",
                layout(&[
                    ("new", "__u32", 3),
                    ("key.port", "__be16", 2),
                    ("epoch", "__u64", 2),
                ]),
                &[0, 0, 0, 5, 6, 1, 2],
            ),
            (
                "a removed member is dropped",
                layout(&[("epoch", "__u64", 2)]),
                &[1, 2],
            ),
            (
                "padding is zero, however much there is",
                layout(&[("pad", "__u8[3]", 3), ("gone", "__u8", 1)]),
                &[0, 0, 0, 3],
            ),
        ];
        for (sentence, new, expected) in rows {
            let conversion = old.convert_to(&new).expect(sentence);
            assert_eq!(
                conversion.convert(&[1, 2, 3, 4, 5, 6]),
                expected,
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_member_of_another_type_is_refused_by_its_name() {
        let old = layout(&[("epoch", "__u64", 8), ("port", "__be16", 2)]);
        let rows = [
            (
                "another size",
                layout(&[("epoch", "__u32", 4)]),
                "epoch was __u64 and is __u32",
            ),
            (
                "another byte order",
                layout(&[("port", "__u16", 2)]),
                "port was __be16 and is __u16",
            ),
        ];
        for (sentence, new, phrase) in rows {
            assert_eq!(
                old.convert_to(&new),
                Err(vec![phrase.to_owned()]),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_record_is_picked_out_of_another() {
        let value = layout(&[("in.a", "__u8", 1), ("x", "__u8", 1), ("in.b", "__u8", 1)]);
        let key = layout(&[("a", "__u8", 1), ("b", "__u8", 1), ("pad", "__u8[2]", 2)]);
        let swapped = |path: &str| format!("in.{}", if path == "a" { "b" } else { "a" });
        let picked = value.pick(&key, swapped).expect("both are there");
        assert_eq!(picked.convert(&[1, 2, 3]), [3, 1, 0, 0]);
        assert_eq!(value.pick(&key, |path| path.to_owned()), None, "no such");
    }

    #[test]
    fn a_record_that_is_cut_short_is_read_as_far_as_it_goes() {
        let old = layout(&[("a", "__u8", 1), ("b", "__u16", 2)]);
        let conversion = old.convert_to(&old).unwrap();
        assert_eq!(conversion.convert(&[7, 8]), [7, 0, 0]);
    }
}
