//! Maglev tables: what they hold, and where they stand.

mod allotment;
mod table;
#[cfg(test)]
mod tests;
mod turns;

pub use allotment::Allotment;
