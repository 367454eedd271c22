//! `dpd plan`: a dry run: what applying a file would change on this host, and its impact on open connections.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use super::check;
use super::node::Node;
use super::output::{self, Format, Listing};
use crate::bpf::reader::Reader;
use crate::bpf::state::conntrack::now_ns;
use crate::bpf::state::ct_table::Sizes;
use crate::config::Config;
use crate::model::host::HostState;
use crate::model::state::State;
use crate::net;
use crate::plan::{self, Change, Inputs};

/// The exit status of `dpd plan` if there are changes.
const HAS_CHANGES: u8 = 3;

/// `file` is to be applied, `config` names the node.
pub fn run(config: &Path, file: &Path, listing: Listing) -> Result<ExitCode> {
    let node = Node::find(config)?;
    let Some(loaded) = check::load(file, &node.drop_ins_in_effect()) else {
        return Ok(ExitCode::FAILURE);
    };
    let changes = changes(&node, &loaded.config)?;
    let text = match listing.output {
        Format::Json => output::json(&changes.iter().map(row).collect::<Vec<_>>())?,
        Format::Table if changes.is_empty() => {
            format!("no changes: the datapath matches {}\n", file.display())
        }
        Format::Table => changes.iter().map(|change| format!("{change}\n")).collect(),
    };
    output::print(&text)?;
    Ok(match changes.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(HAS_CHANGES),
    })
}

/// The difference between what the kernel holds of a node and what it would hold.
fn changes(node: &Node, config: &Config) -> Result<Vec<Change>> {
    let reader = Reader::find(&node.bpf_root)?;
    let live = reader.as_ref().map(Reader::find_state).transpose()?;
    let (host, _) = net::snapshot()?.named_by(config.interfaces.keys());
    let host = HostState {
        stack: net::host_stack()?,
        announced: live
            .iter()
            .flatten()
            .flat_map(|live| live.catalog.announced())
            .collect(),
        ..host
    };
    if let Some(refused) = plan::links::unusable(config, &host).first() {
        bail!(
            "interface {} is refused: {}: {}",
            refused.interface,
            refused.reason,
            refused.help
        );
    }
    let now_ns = now_ns();
    let compile = |previous: &State| {
        plan::compile(Inputs {
            config,
            host: &host,
            previous: &previous.catalog,
            previous_maglev: &previous.maglev,
            now_ns,
        })
    };
    let (Some(reader), Some(live)) = (reader, live.flatten()) else {
        let nothing = State::default();
        let wanted = compile(&nothing)?;
        return Ok(plan::diff(&nothing, &wanted));
    };
    let wanted = compile(&live)?;
    let mut changes = plan::diff(&live, &wanted);
    let size = reader.conntrack_sizes()?.connections;
    let sizes = Sizes {
        connections: config.conntrack.size,
    };
    if changes.is_empty() && size == sizes.connections {
        return Ok(changes);
    }
    let open = reader.open_connections(&live.settings)?;
    let excess = sizes.excess(&open.by_table);
    plan::change::add_effects(&live, &wanted, &mut changes, open.groups);
    changes.extend(plan::resized(size, sizes.connections, excess));
    Ok(changes)
}

/// A line of the plan.
#[derive(Debug, Serialize)]
struct ChangeRow<'a> {
    /// `add`, `change` or `remove`.
    change: &'static str,
    kind: &'static str,
    name: &'a str,
    /// The line, without its sign and its effect.
    text: String,
    /// The impact on connections, in words.
    effect: Option<String>,
    /// All affected connections, and those of each outcome.
    connections: u64,
    ended: u64,
    moved: u64,
    released: u64,
    forgotten: u64,
    /// Of a hundred new connections of the service, those that go to another backend; `None`: none, or there is no hash that
    /// picks them.
    new_moved_percent: Option<f64>,
}

fn row(change: &Change) -> ChangeRow<'_> {
    let effect = &change.effect;
    ChangeRow {
        change: match change.sign {
            '+' => "add",
            '-' => "remove",
            _ => "change",
        },
        kind: change.object.kind,
        name: &change.object.name,
        text: change.text(),
        effect: (!effect.is_empty()).then(|| effect.to_string()),
        connections: effect.connections(),
        ended: effect.ended,
        moved: effect.moved,
        released: effect.released,
        forgotten: effect.forgotten,
        new_moved_percent: effect
            .moved_share
            .map(|share| f64::from(share.per_million) / 10_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::documented;
    use crate::plan::{Effect, Object};

    #[test]
    fn every_key_is_documented() {
        let change = Change {
            sign: '-',
            object: Object {
                kind: "backend",
                name: "10.200.0.45:53 of service kube-dns".to_owned(),
            },
            detail: String::new(),
            effect: Effect {
                ended: 14,
                ..Effect::default()
            },
        };
        documented::check("plan", &row(&change));
    }
}
