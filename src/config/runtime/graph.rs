//! Which drop-ins can be in effect together: a pure decision on numbers.
//!
//! The drop-ins are numbered in order of precedence. Of two that contradict each other the first stays. One that refers to
//! what no other drop-in in effect defines is removed, and so are those that refer to it in turn. References in a circle are
//! fine: all of them are in effect, or none.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of the drop-ins.
#[derive(Debug, Default)]
pub struct Graph {
    /// The things that each drop-in needs, of those that the operator's files do not define.
    needs: Vec<Vec<usize>>,
    /// The things that each drop-in defines.
    defined_by: Vec<Vec<usize>>,
    /// The drop-ins that define each thing, and those that need it.
    definers: Vec<Vec<usize>>,
    needers: Vec<Vec<usize>>,
    /// Drop-ins that can't be in effect in any company.
    wrong: BTreeSet<usize>,
    /// Both ways.
    conflicts: BTreeMap<usize, BTreeSet<usize>>,
}

impl Graph {
    /// `defines` and `needs` list the things of each drop-in; there are `things` of them.
    pub fn new(things: usize, defines: Vec<Vec<usize>>, needs: Vec<Vec<usize>>) -> Graph {
        let by_thing = |of: &[Vec<usize>]| {
            let mut by_thing = vec![Vec::new(); things];
            for (drop_in, list) in of.iter().enumerate() {
                list.iter().for_each(|thing| by_thing[*thing].push(drop_in));
            }
            by_thing
        };
        Graph {
            definers: by_thing(&defines),
            defined_by: defines,
            needers: by_thing(&needs),
            needs,
            wrong: BTreeSet::new(),
            conflicts: BTreeMap::new(),
        }
    }

    /// Returns whether this is new.
    pub fn add_wrong(&mut self, drop_in: usize) -> bool {
        self.wrong.insert(drop_in)
    }

    pub fn is_wrong(&self, drop_in: usize) -> bool {
        self.wrong.contains(&drop_in)
    }

    /// Two drop-ins contradict each other; returns whether this is new.
    pub fn add_conflict(&mut self, one: usize, other: usize) -> bool {
        self.conflicts.entry(one).or_default().insert(other);
        self.conflicts.entry(other).or_default().insert(one)
    }

    /// The drop-ins that this one contradicts, in order of precedence.
    pub fn conflicts_of(&self, drop_in: usize) -> impl Iterator<Item = usize> {
        self.conflicts.get(&drop_in).into_iter().flatten().copied()
    }

    /// Whether each drop-in is in effect, if none from `end` on may be.
    pub fn solve(&self, end: usize) -> Vec<bool> {
        let mut excluded = self.wrong.clone();
        excluded.extend(end..self.needs.len());
        let mut set = loop {
            match self.pass(&excluded) {
                Ok(set) => break set,
                // It builds on a drop-in that lost. What lost against it may have lost for nothing: once more without it.
                Err(undone) => excluded.extend(undone),
            }
        };
        self.add_back(end, &mut set);
        set.present
    }

    /// One decision in order of precedence. The error are drop-ins that won first and were removed later.
    fn pass(&self, excluded: &BTreeSet<usize>) -> Result<Set<'_>, Vec<usize>> {
        let mut set = Set::without(self, excluded);
        for drop_in in 0..self.needs.len() {
            let is_earlier = |other: &usize| *other < drop_in;
            let mut before = self.conflicts_of(drop_in).take_while(is_earlier);
            if set.present[drop_in] && before.any(|other| set.present[other]) {
                let mut removed = set.remove(drop_in);
                removed.retain(|removed| *removed < drop_in);
                if !removed.is_empty() {
                    return Err(removed);
                }
            }
        }
        Ok(set)
    }

    /// Adds what has lost against a drop-in that is not in the set after all.
    fn add_back(&self, end: usize, set: &mut Set<'_>) {
        let mut has_added = true;
        while has_added {
            has_added = false;
            for drop_in in 0..end.min(self.needs.len()) {
                let is_free = !self.conflicts_of(drop_in).any(|other| set.present[other]);
                let is_met = self.needs[drop_in]
                    .iter()
                    .all(|thing| set.is_defined(*thing));
                if !set.present[drop_in] && !self.is_wrong(drop_in) && is_free && is_met {
                    set.present[drop_in] = true;
                    has_added = true;
                }
            }
        }
    }
}

/// Drop-ins that define all that they need.
struct Set<'g> {
    graph: &'g Graph,
    present: Vec<bool>,
}

impl Set<'_> {
    fn without<'g>(graph: &'g Graph, excluded: &BTreeSet<usize>) -> Set<'g> {
        let mut set = Set {
            graph,
            present: vec![true; graph.needs.len()],
        };
        for thing in 0..graph.definers.len() {
            if graph.definers[thing].is_empty() {
                set.remove_needers(thing);
            }
        }
        for drop_in in excluded {
            set.remove(*drop_in);
        }
        set
    }

    fn is_defined(&self, thing: usize) -> bool {
        let mut definers = self.graph.definers[thing].iter();
        definers.any(|definer| self.present[*definer])
    }

    fn remove_needers(&mut self, thing: usize) {
        for needer in &self.graph.needers[thing] {
            self.remove(*needer);
        }
    }

    /// Removes a drop-in and those that build on it; returns all of them.
    fn remove(&mut self, drop_in: usize) -> Vec<usize> {
        let mut removed = Vec::new();
        let mut due = vec![drop_in];
        while let Some(drop_in) = due.pop() {
            if !std::mem::take(&mut self.present[drop_in]) {
                continue;
            }
            removed.push(drop_in);
            for thing in &self.graph.defined_by[drop_in] {
                if !self.is_defined(*thing) {
                    due.extend(&self.graph.needers[*thing]);
                }
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `links` say of `count` drop-ins: `2>0` needs, `1-2` contradicts, `!0` is wrong, `1>` needs what nothing defines.
    fn graph(count: usize, links: &str) -> Graph {
        let number = |text: &str| text.parse::<usize>().unwrap();
        let defines = (0..count).map(|drop_in| vec![drop_in]).collect();
        let mut needs = vec![Vec::new(); count];
        for link in links.split(' ') {
            if let Some((needer, definer)) = link.split_once('>') {
                let thing = definer.parse().unwrap_or(count);
                needs[number(needer)].push(thing);
            }
        }
        let mut graph = Graph::new(count + 1, defines, needs);
        for link in links.split(' ') {
            if let Some(wrong) = link.strip_prefix('!') {
                graph.add_wrong(number(wrong));
            } else if let Some((one, other)) = link.split_once('-') {
                graph.add_conflict(number(one), number(other));
            }
        }
        graph
    }

    #[test]
    fn the_largest_set_by_precedence() {
        let rows = [
            ("nothing is known of them", 3, "", "012"),
            ("a wrong one", 3, "!1", "02"),
            ("of two that contradict, the first stays", 3, "0-2", "01"),
            ("of three too", 3, "0-1 0-2 1-2", "0"),
            ("a loser's other enemies stay", 3, "0-1 1-2", "02"),
            ("a chain that is whole", 3, "0>1 1>2", "012"),
            ("a chain whose end is wrong", 3, "0>1 1>2 !2", ""),
            ("a chain whose start is wrong", 3, "0>1 1>2 !0", "12"),
            ("what nothing defines", 3, "1> 2>1", "0"),
            ("a circle", 3, "0>1 1>2 2>0", "012"),
            ("a circle with a wrong one", 3, "0>1 1>0 !1", "2"),
            ("a circle that contradicts itself", 3, "1>2 2>1 1-2", "0"),
            ("it contradicts what it builds on", 2, "0>1 0-1", "1"),
            ("a wrong one wins against nobody", 3, "!0 0-1 0-2", "12"),
            (
                "nor does one that builds on a wrong one",
                3,
                "0>2 !2 0-1",
                "1",
            ),
            (
                "one that builds on a loser does not win: what lost against it is back",
                4,
                "0-2 1>2 1-3",
                "03",
            ),
            (
                "what builds on both is lost with one",
                3,
                "0-1 2>0 2>1",
                "0",
            ),
        ];
        for (what, count, links, expected) in rows {
            let present = graph(count, links).solve(count);
            let found = (0..count).filter(|drop_in| present[*drop_in]);
            let found: String = found.map(|drop_in| drop_in.to_string()).collect();
            assert_eq!(found, expected, "{what}: {links}");
        }
    }

    #[test]
    fn none_from_the_end_on() {
        assert_eq!(graph(3, "0>2").solve(2), [false, true, false]);
        assert_eq!(graph(3, "").solve(0), [false; 3]);
    }

    #[test]
    fn a_long_chain_that_breaks_is_decided_at_once() {
        let links: Vec<String> = (0..9999).map(|nth| format!("{nth}>{}", nth + 1)).collect();
        let mut graph = graph(10_000, &links.join(" "));
        assert!(graph.solve(10_000).iter().all(|present| *present));
        graph.add_wrong(9999);
        assert!(!graph.solve(10_000).iter().any(|present| *present));
    }
}
