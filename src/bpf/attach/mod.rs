//! Programs at hooks: tc by tcx links or clsact filters, XDP, and the hooks of the host's sockets.

mod clsact;
pub mod hook;
mod link;
mod mechanism;
pub mod other_dpd;
pub mod socket;
mod tc;
mod tcx;
pub mod unmanaged;
pub mod xdp;

pub use mechanism::{Found, Mechanism};
pub use tc::{attach, detach, find, first_program, forget_qdisc, held, probe, program_on};
pub use tcx::other_programs;
