//! The Session-Reflectors of a Server: sessions come and go while the threads run.
//!
//! Whoever negotiates sessions (see [`control`](crate::control)) adds them here, each with the port
//! that it got, and hears of their ends by [`events`](Reflectors::events). Packets of no session are
//! dropped and counted. A thread never waits for whoever negotiates.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use mio::Waker;

use super::{Failure, Stop};
use crate::config::{Dscp, Rate, ServedConfig};
use crate::wire::protected::TestKeys;
use crate::wire::{Format, TestFormat};

/// A session as a Server grants it.
#[derive(Debug)]
pub struct Served {
    /// Where the Session-Sender sends from: from nowhere else packets are taken.
    pub sender: SocketAddr,
    /// The address that it sends to, without a port.
    pub receiver: std::net::IpAddr,
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
}

/// How much of its test traffic a client has answered; shared by all its sessions, on all threads.
#[derive(Debug)]
pub struct Allowance {
    packets: Option<Rate>,
    octets_per_second: Option<u64>,
}

impl Allowance {
    /// `packets` a second, and `bits` of UDP payload a second; `None`: as many as come.
    #[must_use]
    pub fn new(packets: Option<Rate>, bits: Option<u64>) -> Self {
        Self {
            packets,
            octets_per_second: bits.map(|bits| bits / 8),
        }
    }
}

/// A session of [`Reflectors`]; no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServedId(u64);

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

/// Counts of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedCounts {
    /// Datagrams from its sender.
    pub received: u64,
    /// Octets of UDP payload in them.
    pub received_octets: u64,
    /// Replies that were sent.
    pub reflected: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// Datagrams that are no request.
    pub malformed: u64,
    /// Requests whose HMAC is not theirs.
    pub forged: u64,
    /// Requests beyond the [`Allowance`].
    pub over_allowance: u64,
    /// Requests before the session was started.
    pub early: u64,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedEvent {
    /// REFWAIT ended it. [`Ended`](Self::Ended) follows.
    Silent(ServedId),
    /// It has ended, and its port is free: told once of each session that was added.
    Ended(ServedId, ServedCounts),
}

/// Threads that reflect.
#[derive(Debug)]
pub struct Reflectors {
    events: Receiver<ServedEvent>,
}

impl Reflectors {
    /// Starts the threads, without any session. `waker` is woken when there are
    /// [`events`](Self::events).
    ///
    /// # Errors
    /// [`Failure`] of a thread.
    pub fn start(config: &ServedConfig, stop: &Stop, waker: &Arc<Waker>) -> Result<Self, Failure> {
        let _ = (config, stop, waker);
        todo!()
    }

    /// Adds a session, not started yet, on the first of `ports` that is free (0: any that the system
    /// chooses); returns that port. A port is free if nobody else has it, or sessions here have, but
    /// none from the same address and port.
    ///
    /// # Errors
    /// [`NotServed`].
    pub fn add(
        &mut self,
        session: Served,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<(ServedId, u16), NotServed> {
        let _ = (session, ports.into_iter().next());
        todo!()
    }

    /// Starts a session: no packet that is sent after this returned is dropped.
    pub fn run(&mut self, id: ServedId) {
        let _ = id;
        todo!()
    }

    /// Has a session that runs end after `after_ns` more, and one that does not at once.
    pub fn end(&mut self, id: ServedId, after_ns: i64) {
        let _ = (id, after_ns);
        todo!()
    }

    /// What happened to sessions.
    #[must_use]
    pub fn events(&self) -> &Receiver<ServedEvent> {
        &self.events
    }

    /// Datagrams of no session so far, and datagrams that the system dropped for want of room
    /// (`None`: it does not tell).
    #[must_use]
    pub fn strays_and_drops(&self) -> (u64, Option<u64>) {
        todo!()
    }

    /// Waits until the threads have been stopped; sessions that are left end.
    ///
    /// # Errors
    /// [`Failure`] of a thread.
    pub fn wait(self) -> Result<(), Failure> {
        todo!()
    }
}
