//! The host by rtnetlink: interfaces, addresses, and what it lacks. Nothing here changes the host.

mod checks;
mod filter;
mod route;
mod rtnetlink;
mod snapshot;
mod watcher;

pub use checks::checks;
pub use filter::has_filters;
pub use snapshot::{is_there, snapshot};
pub use watcher::Watcher;
