//! Values of any kind for tests: encoded, they are decoded to what they were.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bpf::abi::Plain;
use crate::model::state::HostAddresses;

/// Random numbers, the same in every run (xorshift, Marsaglia 2003).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Of every magnitude, with both ends of the range.
    pub fn u32(&mut self) -> u32 {
        match self.next() % 4 {
            0 => 0,
            1 => u32::MAX,
            _ => (self.next() >> (self.next() % 48)) as u32,
        }
    }

    pub fn u16(&mut self) -> u16 {
        self.u32() as u16
    }

    pub fn mac(&mut self) -> [u8; 6] {
        std::array::from_fn(|_| self.next() as u8)
    }

    pub fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.next() as usize % values.len()]
    }

    pub fn ip(&mut self) -> IpAddr {
        if self.next().is_multiple_of(2) {
            return Ipv4Addr::from(self.u32()).into();
        }
        let v6 = Ipv6Addr::from(u128::from(self.next()) << 64 | u128::from(self.next()));
        assert!(
            v6.to_ipv4_mapped().is_none(),
            "a mapped address is an IPv4 one"
        );
        v6.into()
    }

    pub fn host_addresses(&mut self) -> HostAddresses {
        HostAddresses {
            ipv4: self.of(&[None, Some(Ipv4Addr::new(192, 0, 2, 1))]),
            ipv6: self.of(&[None, Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))]),
        }
    }

    pub fn socket(&mut self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.u16())
    }
}

pub const ROUNDS: usize = 2000;

/// A value is the same after it was encoded, copied as bytes and decoded.
pub fn assert_round_trip<T: PartialEq + Debug, B: Plain>(
    mut make: impl FnMut(&mut Rng) -> T,
    encode: impl Fn(&T) -> B,
    decode: impl Fn(&B) -> T,
) {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    for _ in 0..ROUNDS {
        let value = make(&mut rng);
        let bytes = encode(&value).as_bytes().to_vec();
        let read = B::from_bytes(&bytes).unwrap();
        assert_eq!(decode(&read), value);
        assert!(
            B::from_bytes(&bytes[1..]).is_none(),
            "a row that is too short"
        );
    }
}
