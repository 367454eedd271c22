//! Extension headers of IPv6 (RFC 8200 4).

use super::protocol;

/// One extension header, without its next-header byte, which the builder fills in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Options for every hop: one PadN.
    HopByHop,
    /// The router alert that MLD carries (RFC 2711).
    RouterAlert,
    /// Options for the destination: one PadN of this many 8-byte units in all.
    Destination(u8),
    /// A routing header of this type with no segment left.
    Routing(u8),
    /// A routing header of this type that still names a segment.
    SourceRoute(u8),
    /// Offset in bytes, more fragments, identification.
    Fragment { offset: u16, more: bool, id: u32 },
}

impl Extension {
    /// Its number in the next-header field before it.
    pub fn number(&self) -> u8 {
        match self {
            Extension::HopByHop | Extension::RouterAlert => protocol::HOP_BY_HOP,
            Extension::Destination(_) => protocol::DESTINATION,
            Extension::Routing(_) | Extension::SourceRoute(_) => protocol::ROUTING,
            Extension::Fragment { .. } => protocol::FRAGMENT,
        }
    }

    pub(super) fn build(&self, next: u8) -> Vec<u8> {
        match self {
            Extension::HopByHop => vec![next, 0, 1, 4, 0, 0, 0, 0],
            Extension::RouterAlert => vec![next, 0, 5, 2, 0, 0, 1, 0],
            Extension::Destination(units) => {
                let length = usize::from(*units) * 8;
                let mut bytes = vec![next, units - 1];
                let mut left = length - 2;
                while left > 0 {
                    let option = left.min(257);
                    match option {
                        1 => bytes.push(0),
                        _ => {
                            bytes.extend([1, (option - 2) as u8]);
                            bytes.resize(bytes.len() + option - 2, 0);
                        }
                    }
                    left -= option;
                }
                bytes
            }
            Extension::Routing(kind) => vec![next, 0, *kind, 0, 0, 0, 0, 0],
            // With one address.
            Extension::SourceRoute(kind) => {
                let mut bytes = vec![next, 2, *kind, 1, 0, 0, 0, 0, 0xfd, 0];
                bytes.resize(24, 0x02);
                bytes
            }
            Extension::Fragment { offset, more, id } => {
                let mut bytes = vec![next, 0];
                bytes.extend(((offset & !7) | u16::from(*more)).to_be_bytes());
                bytes.extend(id.to_be_bytes());
                bytes
            }
        }
    }
}
