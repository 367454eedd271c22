//! Policy: from rules to the rows of the policy trie, and the verdict of the compiled tables.

mod cidr_classes;
mod enforcement;
#[cfg(test)]
mod oracle;
mod peers;
mod ports;
mod rules;
mod table;
mod trie;
mod verdict;

pub(super) use cidr_classes::CidrClasses;
pub(super) use enforcement::Enforcements;
pub(super) use rules::RuleNumbers;
pub use table::TooManyRows;
pub(super) use table::compile;
pub use verdict::{Decision, Verdict, verdict, verdict_of_entries};
