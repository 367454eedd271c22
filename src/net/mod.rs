//! What the host looks like.

use crate::config::Config;
use crate::model::world::World;

/// The host's interfaces and addresses now.
pub fn snapshot() -> anyhow::Result<World> {
    Ok(World::default())
}

/// What the host lacks for the file, each with the command that mends it.
pub fn checks(_config: &Config, _world: &World) -> Vec<String> {
    Vec::new()
}
