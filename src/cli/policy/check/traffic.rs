//! PORT/PROTO of a command: the destination port and protocol of a connection.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::model::protocol::Protocol;
use crate::model::service::Frontend;

/// The destination port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub protocol: Protocol,
    /// 0 for protocols without ports.
    pub port: u16,
}

impl Traffic {
    /// The frontend that it is for at an address.
    pub fn at(self, address: IpAddr) -> Frontend {
        Frontend {
            address,
            port: self.port,
            protocol: self.protocol,
        }
    }
}

impl FromStr for Traffic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = match text.split_once('/') {
            Some((port, protocol)) => (Some(port), protocol),
            None => (None, text),
        };
        let protocol: Protocol = protocol.to_ascii_lowercase().parse()?;
        let port = match (port, protocol.has_ports()) {
            (Some(port), true) => port
                .parse::<u16>()
                .map_err(|_| format!("{port:?} is not a port: give one number"))?,
            (None, false) => 0,
            (None, true) => return Err(format!("the port is missing: 53/{protocol}")),
            (Some(_), false) => return Err(format!("{protocol} has no ports")),
        };
        Ok(Traffic { protocol, port })
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol.has_ports() {
            true => write!(f, "{}/{}", self.port, self.protocol),
            false => write!(f, "{}", self.protocol),
        }
    }
}
