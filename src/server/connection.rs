//! One control connection: octets between its socket and its state machine.
//!
//! Every call does a bounded piece of work, never waits, and holds bounded memory: what the machine
//! does not take stays here, and nothing more is read until it has.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::caller::Caller;
use super::shared::Shared;
use crate::control::crypto::Passphrase;
use crate::control::crypto::{SessionKeys, TokenCheck};
use crate::control::server::{Asked, End, Ending, Grant, Host, Remark, Server};
use crate::wire::control::KeyId;
use crate::wire::{Accept, Modes, Sid};

/// A control connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) caller: Caller,
    stream: TcpStream,
    machine: Server,
    /// What the machine did not take.
    kept: Vec<u8>,
    /// The socket may have more: edges come once.
    readable: bool,
    /// Told of room to write too.
    watches_writes: bool,
    /// All is said; the client has until then to close.
    leaves_by_ns: Option<i64>,
    half_open: bool,
    told_end: bool,
    token: Token,
    /// By when the loop will look after it; see `deadline`.
    pub(super) due_ns: Option<i64>,
    /// On the list of those that have more to do.
    pub(super) queued: bool,
}

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, until something happens.
    Wait,
    /// More; but others first.
    Again,
    /// It is over.
    Close,
}

impl Connection {
    pub(super) fn new(caller: Caller, stream: TcpStream, machine: Server, token: Token) -> Self {
        Self {
            caller,
            stream,
            machine,
            kept: Vec::new(),
            readable: true,
            watches_writes: false,
            leaves_by_ns: None,
            half_open: true,
            told_end: false,
            token,
            due_ns: None,
            queued: false,
        }
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.stream, self.token, Interest::READABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // Closing it does the same.
        let _ = registry.deregister(&mut self.stream);
    }

    /// There is something to read, or the client closed.
    pub(super) fn became_readable(&mut self) {
        self.readable = true;
    }

    /// Whether the set-up is over since the last call that said so.
    pub(super) fn was_set_up(&mut self) -> bool {
        self.half_open && self.machine.modes().is_some() && {
            self.half_open = false;
            true
        }
    }

    /// What the set-up agreed on.
    pub(super) fn modes(&self) -> Modes {
        self.machine.modes().unwrap_or(Modes::NONE)
    }

    /// Before Server-Start.
    pub(super) fn is_half_open(&self) -> bool {
        self.half_open
    }

    /// By when [`due`](Self::due) is to be called.
    pub(super) fn deadline(&self) -> Option<i64> {
        self.leaves_by_ns.or_else(|| self.machine.deadline())
    }

    /// The deadline has come.
    pub(super) fn due(&mut self, now_ns: i64, shared: &mut Shared) -> Next {
        if self.leaves_by_ns.is_some_and(|by_ns| by_ns <= now_ns) {
            return Next::Close;
        }
        let mut host = Surroundings::new(shared, &self.caller);
        self.machine.handle_deadline(now_ns, &mut host);
        Next::Again
    }

    /// A Token was checked; `None`: nobody had the time to.
    pub(super) fn token_checked(&mut self, now_ns: i64, checked: Option<Option<SessionKeys>>) {
        match checked {
            Some(keys) => self.machine.token_checked(now_ns, keys),
            None => self.machine.token_not_checked(now_ns),
        }
    }

    /// REFWAIT ended a session.
    pub(super) fn expired(&mut self, now_ns: i64, sid: &Sid) {
        self.machine.expired(now_ns, sid);
    }

    /// Ends it from this side, without a word.
    pub(super) fn abandon(&mut self, shared: &mut Shared) {
        let mut host = Surroundings::new(shared, &self.caller);
        self.machine.disconnected(&mut host);
        self.told_end = true;
    }

    /// Writes and reads as far as that goes at once, but not more than one buffer.
    pub(super) fn attend(
        &mut self,
        now_ns: i64,
        buffer: &mut [u8],
        shared: &mut Shared,
        registry: &Registry,
    ) -> Next {
        if self.leaves_by_ns.is_some() {
            return self.drain(buffer);
        }
        let moved = self.exchange(now_ns, buffer, shared);
        let Ok(moved) = moved else {
            let mut host = Surroundings::new(shared, &self.caller);
            self.machine.disconnected(&mut host);
            self.tell_end(shared);
            return Next::Close;
        };
        if self.machine.ended().is_some() && self.machine.output().is_empty() {
            self.tell_end(shared);
            return self.leave(now_ns);
        }
        let waits = !self.machine.output().is_empty();
        if waits != self.watches_writes {
            let interest = if waits {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let watched = registry.reregister(&mut self.stream, self.token, interest);
            if watched.is_err() {
                self.abandon(shared);
                return Next::Close;
            }
            self.watches_writes = waits;
        }
        let more = if self.kept.is_empty() {
            self.readable
        } else {
            moved
        };
        if more { Next::Again } else { Next::Wait }
    }

    /// Whether anything moved.
    fn exchange(
        &mut self,
        now_ns: i64,
        buffer: &mut [u8],
        shared: &mut Shared,
    ) -> Result<bool, Gone> {
        let mut moved = self.write()?;
        let mut host = Surroundings::new(shared, &self.caller);
        if !self.kept.is_empty() {
            let taken = self.machine.receive(now_ns, &self.kept, &mut host);
            self.kept.drain(..taken);
            moved |= taken > 0;
        }
        if self.kept.is_empty() && self.readable {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Gone),
                Ok(len) => {
                    let octets = buffer.get(..len).unwrap_or(&[]);
                    let taken = self.machine.receive(now_ns, octets, &mut host);
                    self.kept
                        .extend_from_slice(octets.get(taken..).unwrap_or(&[]));
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => return Err(Gone),
            }
        }
        Ok(self.write()? | moved)
    }

    /// Whether anything was written.
    fn write(&mut self) -> Result<bool, Gone> {
        let mut written = false;
        while !self.machine.output().is_empty() {
            match self.stream.write(self.machine.output()) {
                Ok(0) => return Err(Gone),
                Ok(len) => {
                    self.machine.sent(len);
                    written = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(written)
    }

    /// All is said. What the client has still to say is read and forgotten, for a moment: closing
    /// with octets unread would reset the connection, and the client might lose the last answer.
    fn leave(&mut self, now_ns: i64) -> Next {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return Next::Close;
        }
        self.kept = Vec::new();
        self.readable = true;
        self.leaves_by_ns = Some(now_ns.saturating_add(LINGER_NS));
        Next::Again
    }

    fn drain(&mut self, buffer: &mut [u8]) -> Next {
        match self.stream.read(buffer) {
            Ok(1..) => Next::Again,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Next::Again,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Wait,
            Ok(0) | Err(_) => Next::Close,
        }
    }

    /// Counts how it ended, and logs it.
    fn tell_end(&mut self, shared: &mut Shared) {
        let Some(end) = self.machine.ended().filter(|_| !self.told_end) else {
            return;
        };
        self.told_end = true;
        let totals = &mut shared.totals;
        let counter = match end {
            End::Closed => None,
            End::TurnedAway => Some(&mut totals.turned_away),
            End::Mode(_) => Some(&mut totals.wrong_mode),
            End::Token(_) => Some(&mut totals.wrong_key),
            End::Busy => Some(&mut totals.unchecked),
            End::Broken(_) | End::OutOfTurn(_) => Some(&mut totals.broken),
            End::StopCount { .. } => Some(&mut totals.stop_miscounted),
            End::TimedOut(_) => Some(&mut totals.timed_out),
        };
        if let Some(counter) = counter {
            *counter += 1;
        }
        let peer = self.caller.peer;
        match end {
            End::Closed | End::TimedOut(_) | End::StopCount { .. } => {
                log::info!("{peer}: connection ended: {end}")
            }
            _ => shared.warn(format_args!("{peer}: connection ended: {end}")),
        }
    }
}

/// The client closed, or the connection broke.
struct Gone;

/// What the machine of one connection sees of the rest.
struct Surroundings<'a> {
    shared: &'a mut Shared,
    caller: &'a Caller,
}

impl<'a> Surroundings<'a> {
    fn new(shared: &'a mut Shared, caller: &'a Caller) -> Self {
        Self { shared, caller }
    }
}

impl Host for Surroundings<'_> {
    fn passphrase(&mut self, key_id: &KeyId) -> Option<Passphrase> {
        self.shared.keys.passphrase(key_id)
    }

    fn check_token(&mut self, check: TokenCheck) {
        let caller = self.caller;
        let dropped = self.shared.checks.add(caller.client, caller.whose, check);
        // Its machine may be the one that is asking: it gets to know afterwards.
        self.shared.unchecked.extend(dropped);
    }

    fn grant(&mut self, asked: &Asked<'_>) -> Result<Grant, Accept> {
        let Shared {
            sessions,
            reflectors,
            clients,
            ..
        } = &mut *self.shared;
        let granted = sessions.grant(self.caller, asked, clients, |served, ports| {
            reflectors.add(served, ports.iter().copied())
        });
        let shared = &mut *self.shared;
        match granted {
            Ok(grant) => {
                shared.totals.sessions += 1;
                Ok(grant)
            }
            Err(refusal) => {
                let (peer, accept) = (self.caller.peer, refusal.accept());
                shared.warn(format_args!(
                    "{peer}: session refused ({accept}): {refusal}"
                ));
                Err(accept)
            }
        }
    }

    fn start(&mut self, sid: &Sid) -> Result<(), Accept> {
        let id = self.shared.sessions.start(sid)?;
        self.shared.reflectors.run(id);
        self.shared.totals.sessions_started += 1;
        Ok(())
    }

    fn stop(&mut self, sid: &Sid, ending: Ending) {
        if let Some((id, after_ns)) = self.shared.sessions.stop(sid, ending) {
            self.shared.reflectors.end(id, after_ns);
        }
    }

    fn remark(&mut self, remark: &Remark) {
        let peer = self.caller.peer;
        match remark {
            // It has been said, with its reason.
            Remark::Host(_) => {}
            Remark::StopCountZero(_) => log::info!("{peer}: {remark}"),
            _ => self.shared.warn(format_args!("{peer}: {remark}")),
        }
        if let Remark::Host(_) | Remark::Unacceptable(_) | Remark::TooManySessions(_) = remark {
            self.shared.totals.sessions_refused += 1;
        }
    }
}

/// How long a client may take to close after all is said.
const LINGER_NS: i64 = 1_000_000_000;
