//! An input: packets one after the other, each with the hook that it arrives at. Any bytes are an input.
//!
//! ```text
//! hook, interface and origin | flags | length (2) | size of segments (2) | segments | padding | the frame
//! ```

use super::world::{ENDPOINTS, UPLINK};

/// More would only make an input slow.
const STEPS_MAX: usize = 8;
const HEADER: usize = 8;
/// The unit of `padding`: a frame may be larger than the input that it is in.
const PADDING_UNIT: usize = 64;
/// What a test run takes.
const GSO_SEGMENTS_MAX: u16 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    FromContainer,
    ToContainer,
    FromNetdev,
    ToNetdev,
    Xdp,
}

const HOOKS: [At; 5] = [
    At::FromContainer,
    At::ToContainer,
    At::FromNetdev,
    At::ToNetdev,
    At::Xdp,
];

/// Its bits in the second byte.
mod flag {
    /// The frame's MACs are those of the link; else as they stand.
    pub const LINK_MACS: u8 = 1;
    pub const MERGED: u8 = 4;
    /// With the mark of what a hook has judged.
    pub const MARKED: u8 = 8;
    /// Only the Ethernet and IP headers are in the linear part.
    pub const SCATTERED: u8 = 16;
    /// The last packet as its hook left it, with its ends swapped; the bytes are pairs of an offset and a change.
    pub const REVERSED: u8 = 32;
}

/// Where the host's stack has a packet from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Itself,
    Uplink,
    /// An index into `ENDPOINTS`.
    Endpoint(usize),
}

impl Via {
    fn encode(self) -> usize {
        match self {
            Via::Itself => 0,
            Via::Uplink => 1,
            Via::Endpoint(endpoint) => 2 + endpoint,
        }
    }

    fn decode(number: usize) -> Via {
        match number % (2 + ENDPOINTS.len()) {
            0 => Via::Itself,
            1 => Via::Uplink,
            number => Via::Endpoint(number - 2),
        }
    }

    pub fn interface(self) -> Option<&'static str> {
        match self {
            Via::Itself => None,
            Via::Uplink => Some(UPLINK),
            Via::Endpoint(endpoint) => Some(ENDPOINTS[endpoint].interface),
        }
    }
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: At,
    /// An index into `ENDPOINTS`.
    pub endpoint: usize,
    pub has_link_macs: bool,
    /// Means something where the host's stack sends.
    pub via: Via,
    /// Segments, and bytes in each.
    pub merged: Option<(u16, u16)>,
    pub is_marked: bool,
    pub is_scattered: bool,
    pub is_reversed: bool,
    /// Zeros behind the bytes.
    pub padding: usize,
    pub bytes: Vec<u8>,
}

impl Step {
    /// A frame at a hook, with the MACs of the link.
    pub fn new(at: At, endpoint: usize, bytes: Vec<u8>) -> Step {
        Step {
            at,
            endpoint,
            has_link_macs: true,
            via: Via::Itself,
            merged: None,
            is_marked: false,
            is_scattered: false,
            is_reversed: false,
            padding: 0,
            bytes,
        }
    }

    pub fn interface(&self) -> &'static str {
        match self.at {
            At::FromContainer | At::ToContainer => ENDPOINTS[self.endpoint].interface,
            At::FromNetdev | At::ToNetdev => UPLINK,
            At::Xdp => "lo", // the kernel wants an interface with XDP memory
        }
    }

    /// Whether a hook has judged it already: then it passes.
    pub fn is_judged(&self) -> bool {
        self.is_marked && self.via != Via::Itself && self.at == At::ToContainer
    }

    fn encode(&self) -> Vec<u8> {
        let hook = HOOKS.iter().position(|at| *at == self.at).unwrap_or(0);
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let flags = bit(self.has_link_macs, flag::LINK_MACS)
            | bit(self.merged.is_some(), flag::MERGED)
            | bit(self.is_marked, flag::MARKED)
            | bit(self.is_scattered, flag::SCATTERED)
            | bit(self.is_reversed, flag::REVERSED);
        let place = hook + (self.endpoint + self.via.encode() * ENDPOINTS.len()) * HOOKS.len();
        let (segments, size) = self.merged.unwrap_or_default();
        let mut bytes = vec![place as u8, flags];
        bytes.extend((self.bytes.len() as u16).to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend([segments as u8, (self.padding / PADDING_UNIT) as u8]);
        bytes.extend(&self.bytes);
        bytes
    }

    /// The first step of these bytes, and the rest of them.
    fn decode(bytes: &[u8]) -> Option<(Step, &[u8])> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let place = usize::from(header[0]);
        let has = |bit| header[1] & bit != 0;
        let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let (bytes, rest) = rest.split_at(length.min(rest.len()));
        let size = u16::from_le_bytes([header[4], header[5]]);
        let segments = u16::from(header[6]).min(GSO_SEGMENTS_MAX);
        let step = Step {
            at: HOOKS[place % HOOKS.len()],
            endpoint: place / HOOKS.len() % ENDPOINTS.len(),
            has_link_macs: has(flag::LINK_MACS),
            via: Via::decode(place / HOOKS.len() / ENDPOINTS.len()),
            merged: has(flag::MERGED).then_some((segments, size)),
            is_marked: has(flag::MARKED),
            is_scattered: has(flag::SCATTERED),
            is_reversed: has(flag::REVERSED),
            padding: usize::from(header[7]) * PADDING_UNIT,
            bytes: bytes.to_vec(),
        };
        Some((step, rest))
    }
}

pub fn encode(steps: &[Step]) -> Vec<u8> {
    steps.iter().flat_map(Step::encode).collect()
}

pub fn decode(mut bytes: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (Some((step, rest)), true) = (Step::decode(bytes), steps.len() < STEPS_MAX) {
        steps.push(step);
        bytes = rest;
    }
    steps
}
