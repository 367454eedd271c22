//! Taking over a datapath that is there: an earlier daemon's, one of another layout, one of another size.

pub mod adopt;
pub mod datapath_dir;
pub mod layouts;
pub mod migration;
pub mod policy;
mod recover;
