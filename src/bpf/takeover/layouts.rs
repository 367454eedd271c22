//! The layouts of the records in maps that are there already. The kernel has them as BTF, which only CAP_SYS_ADMIN may open
//! by its id: so each load pins them as text too, for a daemon without that capability.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::bpf::sys::btf::Btf;
use crate::bpf::sys::call::errno;
use crate::bpf::sys::map::Facts;
use crate::bpf::sys::pins::Pins;
use crate::bpf::sys::record_layout::Layout;
use crate::bpf::sys::text_map;

/// The name of the pin, in the directory of a load.
pub const NAME: &str = "layouts";

/// The layouts of a map's keys and values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    pub key: Layout,
    pub value: Layout,
}

/// Of the maps that a load shares with others, by their names.
pub type SharedMaps = BTreeMap<String, Records>;

/// Pins the layouts of the shared maps in the directory of a load, which has adopted or created them.
pub fn pin(maps: &SharedMaps, load: &Path) -> Result<()> {
    let text = serde_json::to_vec(maps).context("write the layouts of the maps as text")?;
    text_map::write(NAME, &text, &load.join(NAME))
}

/// The layouts in a directory's latest load; none if it has not pinned them.
fn read(pins: &Pins) -> Result<SharedMaps> {
    let loads = Pins::numbers(&pins.loads()).into_iter().rev();
    let paths = loads.map(|number| pins.load(number).join(NAME));
    let Some(path) = paths.into_iter().find(|path| path.exists()) else {
        return Ok(SharedMaps::new());
    };
    let text = text_map::read(&path)?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

/// Finds the layouts of pinned maps. What was read is kept: most maps share it.
#[derive(Debug, Default)]
pub struct KnownLayouts {
    /// BTF by its id; `None` if this process may not open it.
    kernel: BTreeMap<u32, Option<Btf>>,
    /// By the directory's name.
    pinned: BTreeMap<String, SharedMaps>,
}

impl KnownLayouts {
    /// The records of a map that is pinned in a directory; `None` if they are unknown.
    pub fn records(&mut self, name: &str, facts: &Facts, of: &Pins) -> Result<Option<Records>> {
        if facts.btf == 0 || facts.value_type == 0 {
            return Ok(None);
        }
        let types = match self.kernel.entry(facts.btf) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(of_kernel(facts.btf)?),
        };
        if let Some(types) = types {
            return Ok(Some(Records {
                key: types.layout(facts.key_type)?,
                value: types.layout(facts.value_type)?,
            }));
        }
        let pinned = match self.pinned.entry(of.name()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(read(of)?),
        };
        Ok(pinned.get(name).cloned())
    }
}

fn of_kernel(id: u32) -> Result<Option<Btf>> {
    match Btf::of_kernel(id) {
        Ok(types) => Ok(Some(types)),
        Err(error) if errno(&error) == Some(Errno::PERM) => Ok(None),
        Err(error) => Err(error),
    }
}
