//! ARP and neighbour discovery on a link: who has an address, and that this host has it.

mod groups;
mod link_socket;
mod message;

pub use groups::Groups;
pub use link_socket::LinkSocket;
pub use message::{Heard, HeardKind, announcement, probe};
