//! From texts to a checked configuration, with every problem on the way.

use super::checked::Config;
use super::host_name::host_name;
use super::problem::{Problem, Problems};
use super::report::Report;
use super::source::{Files, Source};
use super::{check, read, shape};

/// Checks the texts of a configuration, the main file first.
///
/// The error has every problem of all texts. If a text is no valid TOML, these are the syntax errors.
pub fn parse(sources: Vec<Source>) -> Result<Config, Problems> {
    check_sources(&sources, &host_name()).map(|(config, _)| config)
}

/// The configuration and its warnings. `host_name` is the default of `node.name`.
pub(super) fn check_sources(
    sources: &[Source],
    host_name: &str,
) -> Result<(Config, Vec<Problem>), Problems> {
    let files = Files::new(sources);
    let mut report = Report::default();
    let config = read::read(sources, &mut report).map(|root| {
        shape::check(&root, &mut report);
        check::config(&root, &files, host_name, &mut report)
    });
    let has_errors = report.has_errors();
    let problems = report.into_problems(&files);
    match config.filter(|_| !has_errors) {
        Some(config) => Ok((config, problems)),
        None => Err(Problems(problems)),
    }
}
