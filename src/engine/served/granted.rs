//! A session as it is granted, what is told of it, and what it counts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::allowance::Allowance;
use crate::config::Dscp;
use crate::engine::reflector::RequestCounts;
use crate::wire::protected::TestKeys;
use crate::wire::{Format, TestFormat};

/// A session as a Server grants it.
#[derive(Debug)]
pub struct Served {
    /// Where the Session-Sender sends from: from nowhere else packets are taken. A link-local address
    /// has the interface as its scope.
    pub sender: SocketAddr,
    /// The address that it sends to, without a port. One that is link-local is of the interface of
    /// `sender`.
    pub receiver: IpAddr,
    /// How its packets look.
    pub format: TestFormat,
    /// The keys of its packets, where `format` has them protected.
    pub keys: Option<TestKeys>,
    /// DSCP of the replies, whatever arrives (RFC 5357 §3.5).
    pub dscp: Dscp,
    /// Format of T2 and T3.
    pub timestamps: Format,
    /// REFWAIT: a session that runs is told to be [`Silent`](ServedEvent::Silent) after so many
    /// nanoseconds without a packet, and ends (RFC 5357 §4.2).
    pub refwait_ns: i64,
    /// What its client may have answered, together with its other sessions.
    pub allowance: Arc<Allowance>,
    /// A session that only goes on for its Timeout: if it has this one's source on the port that this
    /// one gets, it ends, and its packets are this one's.
    pub replaces: Option<ServedId>,
}

/// A session of [`Reflectors`](super::reflectors::Reflectors); no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServedId(pub(crate) u64);

/// Why a session was not added.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// All ports that were tried have another user, or a session from the same address and port.
    #[error("no free port")]
    NoPort,
    /// The system refuses the address or the socket.
    #[error("cannot open {at}: {source}")]
    Open {
        /// Address and port.
        at: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedEvent {
    /// REFWAIT ended it. [`Ended`](Self::Ended) follows.
    Silent(ServedId),
    /// It has ended, and its port is free: told once of each session that was added.
    Ended(ServedId, RequestCounts),
}
