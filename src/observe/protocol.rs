//! The protocol of the daemon's socket: one request, then replies, each a JSON object on a line of its own.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::record::Record;
use crate::model::status::DaemonStatus;

/// The first and only line of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to a socket"
)]
pub enum Request {
    Observe(Observe),
    Status,
}

/// Which flows a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observe {
    /// How many flows of the history.
    pub last: usize,
    /// Whether to go on with new flows.
    pub follow: bool,
    pub filter: Filter,
}

/// A line from the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<'a> {
    Flow(Record<'a>),
    /// Number of flows that were not sent, as the client was too slow.
    Lost(u64),
    Status(DaemonStatus),
    /// Why the request is refused.
    Error(Cow<'a, str>),
}
