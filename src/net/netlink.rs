//! Requests to the kernel by netlink, one at a time: rtnetlink, and other protocols by their bytes.
//!
//! Replies are kept as bytes, and only the needed attributes are parsed: a name that is not UTF-8, which a workload may
//! give its interface, or an attribute of a newer kernel is no error then.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The kernel sends at most 32 KiB of a dump at once, and more only where one message is larger.
const BUFFER: usize = 64 * 1024;

/// How often a dump is repeated during which the kernel's table changed.
const DUMP_TRIES: usize = 32;

/// A socket for requests.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of a reply: the fixed header of its kind, then attributes.
#[derive(Clone, Debug)]
pub struct Reply {
    pub body: Vec<u8>,
}

/// A request of another protocol than rtnetlink: its kind, and what follows the header.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Reply {
    type Error = io::Error;

    fn deserialize(_: &NetlinkHeader, body: &[u8]) -> Result<Reply, io::Error> {
        Ok(Reply {
            body: body.to_vec(),
        })
    }
}

impl Reply {
    /// The attributes after a fixed header of `header` bytes, as (kind, value), up to the first malformed one.
    pub fn attributes(&self, header: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.body.get(header..).unwrap_or_default())
    }
}

/// The attributes in `bytes`, as (kind, value), up to the first malformed one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .filter_map(|attribute| {
            let end = NLA_HEADER_SIZE + attribute.value_length();
            let kind = attribute.kind();
            let value = attribute.into_inner().get(NLA_HEADER_SIZE..end)?;
            Some((kind, value))
        })
}

/// An address of either family from its bytes.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

/// A string of the kernel, up to its zero byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// The result of one dump.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dump {
    Complete,
    /// The table changed meanwhile: entries may be missing or duplicate.
    Interrupted,
}

impl Netlink {
    /// Opens a socket for rtnetlink in the network namespace of the calling thread.
    pub fn route() -> io::Result<Netlink> {
        Netlink::open(NETLINK_ROUTE)
    }

    /// The same, where a dump's request selects objects by its members, and a member that can't select is an error.
    pub fn strict_route() -> io::Result<Netlink> {
        let rtnetlink = Netlink::route()?;
        rtnetlink.socket.set_netlink_get_strict_chk(true)?;
        Ok(rtnetlink)
    }

    /// The same for another protocol.
    pub fn open(protocol: isize) -> io::Result<Netlink> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // A connected socket receives from the kernel only, not from other processes.
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Requests one object.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn get(&mut self, request: RouteNetlinkMessage) -> io::Result<Reply> {
        self.send(request, NLM_F_REQUEST)?;
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::InnerMessage(reply) => return Ok(reply),
                    payload => refusal(payload)?,
                }
            }
        }
    }

    /// Requests all objects of a kind, and again while they change during the dump.
    ///
    /// # Errors
    /// The kernel's error, or if they changed during every dump.
    pub fn dump(&mut self, request: impl NetlinkSerializable + Clone) -> io::Result<Vec<Reply>> {
        for _ in 0..DUMP_TRIES {
            let mut replies = Vec::new();
            let dump = self.dump_once(request.clone(), |reply| replies.push(reply))?;
            if dump == Dump::Complete {
                return Ok(replies);
            }
        }
        Err(io::Error::other(format!(
            "the kernel's table changed during each of {DUMP_TRIES} tries to read it"
        )))
    }

    /// Requests all objects of a kind, and passes each to `visit` as it comes: nothing is kept. Of a table that changes
    /// meanwhile, objects may be missing or come twice.
    ///
    /// # Errors
    /// The kernel's error; some may have been visited.
    pub fn visit(
        &mut self,
        request: impl NetlinkSerializable,
        visit: impl FnMut(Reply),
    ) -> io::Result<()> {
        self.dump_once(request, visit)?;
        Ok(())
    }

    /// Requests a change, and waits until it is made.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn act(&mut self, request: impl NetlinkSerializable) -> io::Result<()> {
        self.send(request, NLM_F_REQUEST | NLM_F_ACK)?;
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    payload => refusal(payload)?,
                }
            }
        }
    }

    fn dump_once(
        &mut self,
        request: impl NetlinkSerializable,
        mut visit: impl FnMut(Reply),
    ) -> io::Result<Dump> {
        self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut interrupted = false;
        loop {
            for message in self.receive()? {
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(reply) => visit(reply),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) if interrupted => return Ok(Dump::Interrupted),
                    NetlinkPayload::Done(_) => return Ok(Dump::Complete),
                    payload => refusal(payload)?,
                }
            }
        }
    }

    fn send(&mut self, request: impl NetlinkSerializable, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// The next datagram's messages that reply to the last request.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<Reply>>> {
        let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            length => length?,
        };
        let mut rest = &self.buffer[..length];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<Reply>::deserialize(rest).map_err(io::Error::other)?;
            // Messages begin at multiples of four bytes.
            let end = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(end..).unwrap_or_default();
            if message.header.sequence_number == self.sequence {
                messages.push(message);
            }
        }
        Ok(messages)
    }
}

/// The error in a message that is neither an object nor the end of a dump.
fn refusal(payload: NetlinkPayload<Reply>) -> io::Result<()> {
    match payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        NetlinkPayload::Overrun(_) => Err(io::Error::other("the kernel lost a part of its reply")),
        _ => Ok(()),
    }
}
