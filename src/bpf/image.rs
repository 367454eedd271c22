//! The programs that a daemon loads, and the layout of their maps.

use super::abi;

/// The oldest layout that this version can take over. In those before it members of connections and counters had other names:
/// migrated by name, they would become zero.
const OLDEST_PREDECESSOR: u32 = 4;

/// A linked object, with the version of its layout.
#[derive(Clone, Copy, Debug)]
pub struct ProgramImage<'a> {
    /// `DPD_ABI_VERSION`
    pub version: u32,
    /// The oldest version whose datapath it can take over.
    pub oldest_predecessor: u32,
    pub object: &'a [u8],
}

impl ProgramImage<'static> {
    /// This build's own.
    pub fn own() -> ProgramImage<'static> {
        ProgramImage {
            version: abi::abi::DPD_ABI_VERSION.0,
            oldest_predecessor: OLDEST_PREDECESSOR,
            object: abi::OBJECT,
        }
    }
}
