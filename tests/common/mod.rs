//! What the test programs share: each uses the part that it needs.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test program compiles all of it and uses some"
)]

pub mod cgroup;
pub mod foreign;
pub mod frames;
pub mod image;
pub mod namespace;
pub mod netns;
pub mod packet;
pub mod page;
pub mod programs;
pub mod runner;
pub mod tun;
