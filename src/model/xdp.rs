//! XDP on the uplinks.

use serde::{Deserialize, Serialize};

/// How XDP is attached to an uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver if that supports XDP, else generic; only while the prefilter has prefixes.
    #[default]
    Auto,
    /// In the driver; if that does not support XDP, the change is refused.
    Native,
    /// In the kernel's own receive path, for any driver.
    Generic,
    Off,
}

impl XdpMode {
    pub const ALL: [XdpMode; 4] = [
        XdpMode::Auto,
        XdpMode::Native,
        XdpMode::Generic,
        XdpMode::Off,
    ];

    /// The file's word for it.
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Auto => "auto",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Off => "off",
        }
    }
}
