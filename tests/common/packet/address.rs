//! Addresses as a row writes them: text, or values at hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub type Mac = [u8; 6];

/// A MAC from its text, as `02:00:00:00:00:01`.
pub fn mac(text: &str) -> Mac {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts
            .next()
            .unwrap_or_else(|| panic!("{text:?} is too short for a MAC"));
        *octet = u8::from_str_radix(part, 16).unwrap_or_else(|_| panic!("{text:?} is no MAC"));
    }
    assert!(parts.next().is_none(), "{text:?} is too long for a MAC");
    octets
}

/// What stands for an address and a port; without a port it is 0.
pub trait SocketText {
    fn socket(self) -> SocketAddr;
}

impl SocketText for &str {
    fn socket(self) -> SocketAddr {
        if let Ok(socket) = self.parse() {
            return socket;
        }
        match self.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, 0),
            Err(_) => panic!("{self:?} is neither ADDRESS:PORT nor an address"),
        }
    }
}

impl SocketText for SocketAddr {
    fn socket(self) -> SocketAddr {
        self
    }
}

impl SocketText for IpAddr {
    fn socket(self) -> SocketAddr {
        SocketAddr::new(self, 0)
    }
}

impl SocketText for Ipv4Addr {
    fn socket(self) -> SocketAddr {
        SocketAddr::new(self.into(), 0)
    }
}

impl SocketText for Ipv6Addr {
    fn socket(self) -> SocketAddr {
        SocketAddr::new(self.into(), 0)
    }
}

impl SocketText for (IpAddr, u16) {
    fn socket(self) -> SocketAddr {
        self.into()
    }
}
