//! The host by netlink: interfaces, addresses, what it receives and what it lacks, and what its stack does with forwarded
//! packets. Nothing here changes the host, except that `sock_diag` can end a socket; only `neighbour` sends anything to the
//! network.

mod cgroup;
mod checks;
mod filter;
mod local;
pub mod neighbour;
mod netlink;
mod netns_cookie;
mod route;
mod snapshot;
pub mod sock_diag;
mod socket_owner;
mod socket_ports;
mod sockets;
mod sockopt;
mod stack;
mod sysctl;
mod watcher;

pub use cgroup::{Cgroup, CgroupError, find_cgroup};
pub use checks::{absent, checks, same_interfaces};
pub use filter::has_filters;
pub use netns_cookie::{is_initial_netns, netns_cookie};
pub use route::world_routes;
pub use snapshot::{ifindex, is_there, snapshot};
pub use stack::host_stack;
pub use watcher::Watcher;
