//! The rules of the house: what a reviewer would have to remember. Each breach is reported with its place and its rule.

#[path = "../common/mod.rs"]
mod common;

mod source;

mod architecture;
mod blocks;
mod c;
mod circles;
mod layout;
mod length;
mod limits;
mod metrics;
mod pages;
mod papers;
mod parity;
mod programs;
mod rust;
mod stack;
mod tables;
