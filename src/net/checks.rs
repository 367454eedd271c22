//! What the host lacks for the file.
use crate::{config::Config, model::world::World};
pub fn checks(_config: &Config, _world: &World) -> Vec<String> {
    Vec::new()
}
