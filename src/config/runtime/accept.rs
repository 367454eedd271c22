//! Which drop-ins come into effect: checks them together with the operator's files, and skips what has errors until none is left.
//!
//! 1. Each drop-in is parsed. One that is no TOML, or has a table that only the operator may give, is wrong.
//! 2. `graph` decides which of the others can be in effect together, by what is known.
//! 3. These are checked with the operator's files. Each error either concerns one drop-in, which is wrong then, or two, which
//!    contradict each other; both are new to `graph`, and the next round starts at 2.
//!
//! Mostly two rounds are enough, as one check finds all errors. What is in effect comes first in the order of precedence, then
//! the names decide.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::graph::Graph;
use super::references::{Thing, defined, referred};
use crate::config::checked::Config;
use crate::config::drop_in::{DropIn, Found, digest, name};
use crate::config::file_problem::problem;
use crate::config::problem::{Problem, Severity};
use crate::config::report::{Finding, Report};
use crate::config::source::{Files, Source, Span};
use crate::config::tree::Table;
use crate::config::{check, read, schema, shape};
use crate::model::catalog::InEffect;
use crate::parallel::each;

/// The tables that a drop-in may have: what belongs to workloads. The settings of the host are the operator's.
const TABLES: [&str; 6] = [
    "interfaces",
    "identities",
    "nodes",
    "services",
    "policies",
    "prefilter",
];

/// The most findings of one check: more of them take memory, and are found in the next round.
const FINDINGS_MAX: usize = 65_536;
/// The most problems that are shown of one drop-in.
const PROBLEMS_MAX: usize = 8;
/// Rounds before the drop-ins after the first wrong one are skipped without a look at each.
const ROUNDS_MAX: usize = 64;

/// The operator's part of the configuration, which is valid.
#[derive(Clone, Copy)]
pub struct Operator<'o> {
    pub sources: &'o [Source],
    pub host_name: &'o str,
}

/// The configuration with its warnings, and each drop-in.
pub struct Accepted {
    /// `None`: no drop-in is in effect.
    pub config: Option<(Config, Vec<Problem>)>,
    pub drop_ins: Vec<DropIn>,
}

/// Checks the drop-ins with the operator's files. `before` are those in effect.
pub fn accept(operator: Operator, found: &[Found], before: &InEffect) -> Accepted {
    let mut drop_ins: Vec<DropIn> = found
        .iter()
        .map(|found| DropIn {
            path: found.path.clone(),
            problems: found
                .source
                .as_ref()
                .err()
                .map(|p| Problem::clone(p))
                .into_iter()
                .collect(),
        })
        .collect();
    let mut order: Vec<(usize, &Source)> = (0..)
        .zip(found)
        .filter_map(|(nth, found)| Some((nth, found.source.as_ref().ok()?)))
        .collect();
    order.sort_by_key(|(nth, source)| (!is_in_effect(source, before), *nth));
    if order.is_empty() {
        return Accepted {
            config: None,
            drop_ins,
        };
    }
    let mut sources = operator.sources.to_vec();
    sources.extend(order.iter().map(|(_, source)| Source::clone(source)));
    let mut candidates = Candidates::new(operator, &sources);
    let config = candidates.settle();
    for (number, (nth, _)) in order.iter().enumerate() {
        drop_ins[*nth].problems = candidates.problems_of(number);
    }
    let in_effect = order
        .iter()
        .enumerate()
        .filter(|(number, _)| candidates.present[*number]);
    let in_effect: InEffect = in_effect
        .map(|(_, (_, source))| (name(&source.path), digest(&source.text)))
        .collect();
    Accepted {
        config: config.map(|(config, warnings)| {
            (
                Config {
                    drop_ins: in_effect,
                    ..config
                },
                warnings,
            )
        }),
        drop_ins,
    }
}

/// A drop-in that has changed is not in effect as it is now.
fn is_in_effect(source: &Source, before: &InEffect) -> bool {
    before.get(&name(&source.path)) == Some(&digest(&source.text))
}

/// The drop-ins that can be read, numbered in order of precedence.
struct Candidates<'s> {
    files: Files<'s>,
    host_name: &'s str,
    /// The number of the operator's sources, which come before the drop-ins.
    own: usize,
    operator: Table<'s>,
    /// An empty one for a drop-in that can't be parsed.
    tables: Vec<Table<'s>>,
    /// What each refers to, and the operator's files do not define.
    missing: Vec<Vec<(Thing, Span)>>,
    /// Those that define a thing.
    definers: HashMap<Thing, Vec<usize>>,
    graph: Graph,
    problems: Vec<Vec<Problem>>,
    /// The first problem of two that contradict each other.
    contradictions: BTreeMap<(usize, usize), Problem>,
    /// The result: those in effect.
    present: Vec<bool>,
}

impl<'s> Candidates<'s> {
    fn new(operator: Operator<'s>, sources: &'s [Source]) -> Candidates<'s> {
        let own = operator.sources.len();
        let files = Files::new(sources);
        // It is valid, so nothing is reported.
        let table = read::read(&sources[..own], &mut Report::default()).unwrap_or_default();
        let numbers: Vec<usize> = (own..sources.len()).collect();
        let parsed = each(&numbers, |file| parse(*file, &sources[*file]));
        let mut candidates = Candidates {
            host_name: operator.host_name,
            own,
            operator: table,
            tables: Vec::new(),
            missing: Vec::new(),
            definers: HashMap::new(),
            graph: Graph::default(),
            problems: Vec::new(),
            contradictions: BTreeMap::new(),
            present: vec![false; numbers.len()],
            files,
        };
        let mut wrong = Vec::new();
        for (number, (table, report)) in parsed.into_iter().enumerate() {
            if report.has_errors() {
                wrong.push(number);
            }
            let mut problems = report.into_problems(&candidates.files);
            problems.truncate(PROBLEMS_MAX);
            candidates.problems.push(problems);
            candidates.tables.push(table);
        }
        candidates.relate();
        for number in wrong {
            candidates.graph.add_wrong(number);
        }
        candidates
    }

    /// Finds what each of them builds on.
    fn relate(&mut self) {
        let of_operator: HashSet<Thing> = defined(&self.operator).into_iter().collect();
        let mut things: HashMap<Thing, usize> = HashMap::new();
        let mut number = |thing: Thing| {
            let next = things.len();
            *things.entry(thing).or_insert(next)
        };
        let mut defines = Vec::new();
        let mut needs = Vec::new();
        for (nth, table) in self.tables.iter().enumerate() {
            for thing in defined(table) {
                self.definers.entry(thing).or_default().push(nth);
            }
            let mut missing = referred(table);
            missing.retain(|(thing, _)| !of_operator.contains(thing));
            defines.push(defined(table).into_iter().map(&mut number).collect());
            needs.push(
                missing
                    .iter()
                    .map(|(thing, _)| number(thing.clone()))
                    .collect(),
            );
            self.missing.push(missing);
        }
        self.graph = Graph::new(things.len(), defines, needs);
    }

    /// The configuration with as many drop-ins as can be in effect; `None`: none can.
    fn settle(&mut self) -> Option<(Config, Vec<Problem>)> {
        for _ in 0..ROUNDS_MAX {
            self.present = self.graph.solve(self.tables.len());
            if !self.present.contains(&true) {
                return None;
            }
            let (config, report) = self.check();
            if !report.has_errors() {
                return Some((config, report.into_problems(&self.files)));
            }
            if !self.learn(report) {
                break;
            }
        }
        self.settle_first()
    }

    /// As many of the first drop-ins as can be in effect, if what is wrong can't be determined from the errors: for example too many
    /// endpoints in all.
    fn settle_first(&mut self) -> Option<(Config, Vec<Problem>)> {
        let (mut valid, mut wrong) = (0, self.tables.len());
        let mut best = None;
        let mut error = None;
        while valid < wrong {
            let end = (valid + wrong).div_ceil(2);
            self.present = self.graph.solve(end);
            let (config, report) = self.check();
            if report.has_errors() {
                wrong = end - 1;
                error = report
                    .into_problems(&self.files)
                    .into_iter()
                    .find(|p| p.severity == Severity::Error);
            } else {
                valid = end;
                best = Some((config, report.into_problems(&self.files)));
            }
        }
        self.present = self.graph.solve(valid);
        for number in valid..self.tables.len() {
            if self.graph.add_wrong(number) {
                self.problems[number].extend(error.clone());
            }
        }
        best
    }

    /// Checks those present with the operator's files.
    fn check(&self) -> (Config, Report) {
        let mut report = Report::with_max(FINDINGS_MAX);
        let present = (0..self.tables.len()).filter(|number| self.present[*number]);
        let tables = present.map(|number| self.tables[number].clone()).collect();
        let mut root = self.operator.clone();
        read::join_all(&mut root, tables, &mut report);
        shape::check(&root, &mut report);
        let config = check::config(&root, &self.files, self.host_name, &mut report);
        (config, report)
    }

    /// Takes the errors of a check; returns whether one of them is new.
    fn learn(&mut self, report: Report) -> bool {
        let mut has_learnt = false;
        for finding in report.into_errors() {
            let concerned: BTreeSet<usize> = finding
                .spans()
                .filter_map(|span| span.file().checked_sub(self.own))
                .collect();
            let concerned: Vec<usize> = concerned.into_iter().collect();
            has_learnt |= match concerned[..] {
                [] => false,
                [one] => self.blame(one, finding),
                [one, other, ..] => self.contrast(one, other, finding),
            };
        }
        has_learnt
    }

    fn blame(&mut self, number: usize, finding: Finding) -> bool {
        if self.problems[number].len() < PROBLEMS_MAX {
            self.problems[number].push(finding.resolve(&self.files));
        }
        self.graph.add_wrong(number)
    }

    fn contrast(&mut self, one: usize, other: usize, finding: Finding) -> bool {
        let files = &self.files;
        let first = self.contradictions.entry((one, other));
        first.or_insert_with(|| finding.resolve(files));
        self.graph.add_conflict(one, other)
    }

    /// Why a drop-in is skipped; empty: it is in effect.
    fn problems_of(&self, number: usize) -> Vec<Problem> {
        let mut problems = self.known_problems_of(number);
        if problems.is_empty() && !self.present[number] {
            let message = "it contradicts another drop-in, or builds on one that does";
            problems.push(*problem(
                self.files.path(self.own + number),
                message.to_owned(),
                None,
            ));
        }
        problems
    }

    fn known_problems_of(&self, number: usize) -> Vec<Problem> {
        if self.present[number] {
            return Vec::new();
        }
        if self.graph.is_wrong(number) {
            return self.problems[number].clone();
        }
        let winners = self
            .graph
            .conflicts_of(number)
            .filter(|other| self.present[*other]);
        let pairs = winners.map(|other| (number.min(other), number.max(other)));
        let contradictions = pairs.filter_map(|pair| self.contradictions.get(&pair).cloned());
        let dangling = self.missing[number]
            .iter()
            .filter_map(|missing| self.dangling(number, missing));
        contradictions.chain(dangling).take(PROBLEMS_MAX).collect()
    }

    /// The problem of a reference to what nothing in effect defines.
    fn dangling(&self, number: usize, (thing, span): &(Thing, Span)) -> Option<Problem> {
        let definers = self.definers.get(thing).map_or(&[][..], Vec::as_slice);
        if definers
            .iter()
            .any(|definer| *definer == number || self.present[*definer])
        {
            return None;
        }
        let message = match thing {
            Thing::Identity(name) => format!("there is no identity {name:?}"),
            Thing::Label(label) => format!("no identity carries the label {label:?}"),
        };
        let mut report = Report::default();
        let finding = report.error(*span, message);
        match definers.first() {
            Some(definer) => finding.help(format!(
                "{} defines it, and is skipped",
                self.files.path(self.own + definer).display()
            )),
            None => finding
                .help("it takes effect once another drop-in, or the operator's files, define it"),
        };
        report.into_problems(&self.files).pop()
    }
}

/// The table of a drop-in, and what is wrong with it in itself.
fn parse(file: usize, source: &Source) -> (Table<'_>, Report) {
    let mut report = Report::default();
    let table = read::parse_drop_in(file, source, &mut report).unwrap_or_default();
    for (key, entry) in &table.0 {
        let is_operators =
            schema::ROOT.iter().any(|known| known.name == key) && !TABLES.contains(&&**key);
        if is_operators {
            report
                .error(
                    entry.key,
                    format!("a runtime drop-in can't have `{key}`: it is the operator's"),
                )
                .help(format!("it can have: {}", TABLES.join(", ")));
        }
    }
    (table, report)
}
