//! The door to the kernel's maps, programs and links.

pub mod reader;
