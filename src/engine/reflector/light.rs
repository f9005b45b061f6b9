//! The sessions of TWAMP Light (RFC 5357 appendix I): whoever may ask begins one by asking.

use super::book::{Book, Looks};
use crate::config::{Dscp, Prefix, ReflectorConfig};
use crate::engine::admission::{Record, Sessions, Visit, allowed};
use crate::io::Request;
use crate::report::ignored::Kind;
use crate::wire::{SenderPacket, TestFormat};

/// The sessions of one thread.
pub(crate) struct Light {
    allow: Vec<Prefix>,
    /// The sender's number is copied.
    stateless: bool,
    looks: Looks,
    /// `None`: sessions are not told apart.
    pub(in crate::engine) sessions: Option<Sessions>,
}

impl Light {
    pub(super) fn new(config: &ReflectorConfig) -> Self {
        let apart = !config.stateless || config.impairment.is_some();
        Self {
            allow: config.allow.clone(),
            stateless: config.stateless,
            looks: Looks {
                format: TestFormat::LIGHT,
                timestamps: config.format,
                tos: config.dscp.map(Dscp::tos),
                protection: None,
            },
            sessions: apart.then(|| Sessions::new(config.session_timeout_ns)),
        }
    }

    /// Finds or begins the session of requests, which are counted there.
    pub(in crate::engine) fn visit(
        &mut self,
        visit: &mut Option<Visit>,
        sender: &SenderPacket,
        count: u32,
        octets: usize,
        now: i64,
    ) {
        if let (Some(sessions), Some(visit)) = (&mut self.sessions, visit) {
            let first = (sender.seq.get(), sender.timestamp);
            sessions.visit(visit, first, count, octets, now);
        }
    }

    /// The Sequence Number of the first of so many replies; `None` where the session has ended while
    /// the request was held.
    pub(in crate::engine) fn number(
        &mut self,
        visit: Option<Visit>,
        sender: &SenderPacket,
        count: u32,
    ) -> Option<u32> {
        match (&mut self.sessions, visit) {
            (Some(sessions), Some(visit)) if !self.stateless => {
                sessions.take_numbers(&visit, count)
            }
            _ => Some(sender.seq.get()),
        }
    }

    pub(in crate::engine) fn record(&mut self, serial: u64) -> Option<&mut Record> {
        self.sessions.as_mut()?.record(serial)
    }
}

impl Book for Light {
    type Visit = Option<Visit>;

    fn admit(&mut self, _: usize, request: &Request<'_>, _: u64) -> Result<Option<Visit>, Kind> {
        let from = request.from.ok_or(Kind::NoSource)?;
        if !allowed(&self.allow, from.ip()) {
            return Err(Kind::NotAllowed);
        }
        // Port 0 belongs to nobody: what is sent there is answered by nothing but an error.
        if from.port() == 0 {
            return Err(Kind::NoSource);
        }
        let sessions = self.sessions.as_ref();
        Ok(sessions.map(|sessions| sessions.find(from, request.to)))
    }

    fn session(visit: &Option<Visit>) -> u64 {
        visit.map_or(0, |visit| visit.serial)
    }

    fn looks(&self, _: u64) -> Option<&Looks> {
        Some(&self.looks)
    }

    fn take(
        &mut self,
        visit: &mut Option<Visit>,
        sender: &SenderPacket,
        count: u32,
        octets: usize,
        now: i64,
    ) -> u32 {
        self.visit(visit, sender, count, octets, now);
        self.number(*visit, sender, count).unwrap_or(0)
    }

    fn ignored(&mut self, visit: &Option<Visit>, kind: Kind, count: u64, octets: usize) {
        if let Some(record) = self.record(Self::session(visit)) {
            record.received += count;
            record.octets += u64::try_from(octets).unwrap_or(0);
            if no_request(kind) {
                record.invalid += count;
            } else {
                record.refused += count;
            }
        }
    }

    fn queued(&mut self, session: u64, replies: u64) {
        if let Some(record) = self.record(session) {
            record.reflected += replies;
        }
    }

    fn unsent(&mut self, session: u64, replies: u64) {
        if let Some(record) = self.record(session) {
            record.reflected -= replies;
            record.unsent += replies;
        }
    }
}

/// Whether a datagram that was not answered is no request at all, rather than one that is refused.
pub(in crate::engine) const fn no_request(kind: Kind) -> bool {
    matches!(kind, Kind::TooShort | Kind::Truncated)
}
