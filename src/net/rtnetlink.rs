//! Questions to the kernel's rtnetlink and their answers, one at a time.
//!
//! Answers are kept as bytes and read attribute by attribute, only those that are needed: a name that is not
//! UTF-8, which a workload may give its own interface, or an attribute of a newer kernel then spoils nothing.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The kernel sends at most 32 KiB of a dump at once, and more only where one message is larger.
const BUFFER: usize = 64 * 1024;

/// A dump during which the tables changed is asked for again, so many times.
const DUMP_TRIES: usize = 32;

/// A socket for questions.
pub struct Rtnetlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of an answer: the fixed header of its kind, then attributes.
#[derive(Clone, Debug)]
pub struct Answer {
    pub body: Vec<u8>,
}

impl NetlinkDeserializable for Answer {
    type Error = io::Error;

    fn deserialize(_: &NetlinkHeader, body: &[u8]) -> Result<Answer, io::Error> {
        Ok(Answer {
            body: body.to_vec(),
        })
    }
}

impl Answer {
    /// The attributes behind a fixed header of `header` bytes, as (kind, value). Broken ones end the list.
    pub fn attributes(&self, header: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.body.get(header..).unwrap_or_default())
    }
}

/// The attributes that lie in `bytes`, as (kind, value). Broken ones end the list.
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

/// An address by its bytes, of either family.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

/// What one pass over a dump ended with.
enum Dump {
    Complete(Vec<Answer>),
    /// Something changed meanwhile: entries may be missing or stand there twice.
    Interrupted,
}

impl Rtnetlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> io::Result<Rtnetlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // A connected socket takes messages from the kernel alone, not from other processes.
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Rtnetlink {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Asks for one object; the error is the kernel's refusal.
    pub fn get(&mut self, question: RouteNetlinkMessage) -> io::Result<Answer> {
        self.ask(question, NLM_F_REQUEST)?;
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => return Ok(answer),
                    payload => refusal(payload)?,
                }
            }
        }
    }

    /// Asks for all objects of a kind, and again while they change under the question.
    pub fn dump(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<Answer>> {
        for _ in 0..DUMP_TRIES {
            if let Dump::Complete(answers) = self.dump_once(question.clone())? {
                return Ok(answers);
            }
        }
        Err(io::Error::other(format!(
            "the kernel's table changed during each of {DUMP_TRIES} tries to read it"
        )))
    }

    fn dump_once(&mut self, question: RouteNetlinkMessage) -> io::Result<Dump> {
        self.ask(question, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive()? {
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) if interrupted => return Ok(Dump::Interrupted),
                    NetlinkPayload::Done(_) => return Ok(Dump::Complete(answers)),
                    payload => refusal(payload)?,
                }
            }
        }
    }

    fn ask(&mut self, question: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, question.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// The next datagram's messages, as far as they answer the last question.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<Answer>>> {
        let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            length => length?,
        };
        let mut rest = &self.buffer[..length];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<Answer>::deserialize(rest).map_err(io::Error::other)?;
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

/// The error in a message that is neither an answer nor the end of one.
fn refusal(payload: NetlinkPayload<Answer>) -> io::Result<()> {
    match payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        NetlinkPayload::Overrun(_) => Err(io::Error::other("the kernel lost a part of its answer")),
        _ => Ok(()),
    }
}
