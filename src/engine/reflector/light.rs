//! A Session-Reflector of TWAMP Light (RFC 5357 appendix I): whom it answers, and what it writes.

use mio::Token;
use zerocopy::IntoBytes;

use super::desk::{Answer, Decides, Queued};
use super::totals::Reflected;
use super::train::{Admitted, MOST_SEGMENTS, stamp_train};
use crate::config::{Dscp, Prefix, ReflectorConfig};
use crate::engine::admission::{LoopGuard, Record, Sessions, Visit, allowed};
use crate::engine::error_estimate::error_estimate;
use crate::io::Request;
use crate::os;
use crate::report::ignored::Kind;
use crate::wire::{
    ErrorEstimate, Format, ReflectorPacket, ReplyHead, ReplyTail, SenderPacket, TestFormat,
    Timestamp, TooShort, echoed_sender_timestamp, parse_request, reply_len,
};

/// How often the clock's quality is asked for.
pub(in crate::engine) const QUALITY_NS: i64 = 1_000_000_000;

/// What decides about a request: configuration, sessions and loop guard of one thread.
#[derive(Debug)]
pub(crate) struct Reflector {
    pub(super) allow: Vec<Prefix>,
    pub(super) dscp: Option<Dscp>,
    pub(super) format: Format,
    /// The sender's number is copied.
    pub(super) stateless: bool,
    /// `None`: sessions are not told apart.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) guard: LoopGuard,
    pub(super) estimate: ErrorEstimate,
    pub(super) quality_until: i64,
    pub(super) totals: Reflected,
    /// The requests of the bundle at hand.
    pub(super) admitted: Vec<Admitted>,
}

impl Reflector {
    pub(crate) fn new(config: &ReflectorConfig) -> Self {
        Self {
            allow: config.allow.clone(),
            dscp: config.dscp,
            format: config.format,
            stateless: config.stateless,
            sessions: (!config.stateless || config.impairment.is_some())
                .then(|| Sessions::new(config.session_timeout_ns)),
            guard: LoopGuard::default(),
            estimate: error_estimate(config.format),
            quality_until: i64::MIN,
            totals: Reflected::default(),
            admitted: Vec::with_capacity(MOST_SEGMENTS),
        }
    }

    pub(in crate::engine) fn refresh_quality(&mut self, now: i64) {
        if now >= self.quality_until {
            self.estimate = error_estimate(self.format);
            self.quality_until = now + QUALITY_NS;
        }
    }

    /// Writes the reply over the request in its slot (RFC 5357 §4.2.1), all but T3.
    pub(crate) fn reflect(&mut self, request: &mut Request<'_>, now: i64) -> Result<Answer, Kind> {
        let sender = self.admit(request)?;
        let visit = self.visit(request, &sender, now);
        let number = self.number(&sender, visit).unwrap_or(0);
        Ok(self.write(request, &sender, number, visit))
    }

    /// Whether a datagram is a request that may be answered.
    pub(in crate::engine) fn admit(&self, request: &Request<'_>) -> Result<SenderPacket, Kind> {
        let Some(from) = request.from else {
            return Err(Kind::NoSource);
        };
        if !allowed(&self.allow, from.ip()) {
            return Err(Kind::NotAllowed);
        }
        if request.to_many {
            return Err(Kind::ToMany);
        }
        let datagram = &request.slot[..request.len];
        let sender = match parse_request(datagram) {
            Ok(_) if request.truncated => return Err(Kind::Truncated),
            Ok(sender) => *sender,
            Err(TooShort { .. }) => return Err(Kind::TooShort),
        };
        // Port 0 belongs to nobody: what is sent there is answered by nothing but an error.
        let ours = echoed_sender_timestamp(datagram).is_some_and(|t| self.guard.knows(t));
        if ours {
            return Err(Kind::Loop);
        }
        if from.port() == 0 {
            return Err(Kind::NoSource);
        }
        Ok(sender)
    }

    /// Finds or begins the session of a request, which is counted there.
    pub(in crate::engine) fn visit(
        &mut self,
        request: &Request<'_>,
        sender: &SenderPacket,
        now: i64,
    ) -> Visit {
        self.note_estimate(sender, 1);
        let (Some(sessions), Some(from)) = (&mut self.sessions, request.from) else {
            return Visit::default();
        };
        let seq = sender.seq.get();
        sessions.visit(from, request.to, request.len, seq, sender.timestamp, now)
    }

    /// Counts `count` requests that have the Error Estimate of `sender`.
    #[inline]
    pub(in crate::engine) fn note_estimate(&mut self, sender: &SenderPacket, count: u64) {
        let usable = sender.error_estimate.is_usable();
        self.totals.estimates_unusable += if usable { 0 } else { count };
    }

    /// The Sequence Number of the reply; `None` where the session has ended while the request was
    /// held.
    pub(in crate::engine) fn number(&mut self, sender: &SenderPacket, visit: Visit) -> Option<u32> {
        match &mut self.sessions {
            Some(sessions) if !self.stateless => sessions.next_number(visit),
            _ => Some(sender.seq.get()),
        }
    }

    pub(in crate::engine) fn write(
        &self,
        request: &mut Request<'_>,
        sender: &SenderPacket,
        number: u32,
        visit: Visit,
    ) -> Answer {
        let reply = self.blank(request).answering(sender, number);
        let format = TestFormat::LIGHT;
        let written = format.write_reply(request.slot, 0, request.len, 0, reply.as_bytes());
        debug_assert!(written.is_some(), "slots have room for any reply");
        Answer {
            len: reply_len(request.len),
            tos: self.reply_tos(request.tos),
            session: visit.serial,
        }
    }

    /// What the replies to all requests of a bundle have in common.
    pub(in crate::engine) fn blank(&self, request: &Request<'_>) -> Blank {
        Blank::new(request, self.estimate, self.format)
    }

    pub(in crate::engine) fn reply_tos(&self, received: Option<u8>) -> u8 {
        match self.dscp {
            Some(dscp) => dscp.tos(),
            // The DSCP comes back, ECN does not: it speaks of the way here.
            None => received.unwrap_or(0) & !0b11,
        }
    }

    pub(in crate::engine) fn record(&mut self, serial: u64) -> Option<&mut Record> {
        self.sessions.as_mut()?.record(serial)
    }

    /// Counts a datagram that is not answered, in its session too where it has one.
    pub(in crate::engine) fn refused(&mut self, kind: Kind, request: &Request<'_>) {
        let (Some(sessions), Some(from)) = (&mut self.sessions, request.from) else {
            return;
        };
        if let Some(record) = sessions.record_of(from, request.to) {
            record.received += 1;
            record.octets += u64::try_from(request.len).unwrap_or(0);
            if no_request(kind) {
                record.invalid += 1;
            } else {
                record.refused += 1;
            }
        }
    }
}

/// Whether a datagram that was not answered is no request at all, rather than one that is refused.
pub(in crate::engine) const fn no_request(kind: Kind) -> bool {
    matches!(kind, Kind::TooShort | Kind::Truncated)
}

/// A reply in which nothing is missing but whose it is, and T3.
pub(in crate::engine) struct Blank(ReflectorPacket);

impl Blank {
    pub(in crate::engine) fn new(
        request: &Request<'_>,
        estimate: ErrorEstimate,
        format: Format,
    ) -> Self {
        let arrived = request.arrived_ns.unwrap_or_else(os::realtime_ns);
        Self(ReflectorPacket {
            head: ReplyHead {
                seq: 0.into(),
                timestamp: Timestamp::from_raw(0),
                error_estimate: estimate,
                mbz: [0; 2],
                receive_timestamp: Timestamp::from_unix_ns(arrived, format),
                sender_seq: 0.into(),
                sender_timestamp: Timestamp::from_raw(0),
                sender_error_estimate: ErrorEstimate::UNKNOWN,
            },
            tail: ReplyTail {
                mbz: [0; 2],
                sender_ttl: request.ttl.unwrap_or(255),
            },
        })
    }

    /// The reply to a request, with this Sequence Number.
    #[inline]
    pub(in crate::engine) fn answering(
        &self,
        sender: &SenderPacket,
        number: u32,
    ) -> ReflectorPacket {
        ReflectorPacket {
            head: ReplyHead {
                seq: number.into(),
                sender_seq: sender.seq,
                sender_timestamp: sender.timestamp,
                sender_error_estimate: sender.error_estimate,
                ..self.0.head
            },
            tail: self.0.tail,
        }
    }
}

impl Decides for Reflector {
    type Time = Timestamp;

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ns(os::realtime_ns(), self.format)
    }

    fn stamp(&mut self, queued: &Queued, octets: &mut [u8], t3: Timestamp, _again: bool) {
        stamp_train(octets, queued.step, t3);
    }

    fn tried(&mut self, t3: Timestamp) {
        self.guard.note(t3);
    }

    fn queued(&mut self, session: u64, replies: u64) {
        if let Some(record) = self.record(session) {
            record.reflected += replies;
        }
    }

    fn sent(&mut self, replies: u64) {
        self.totals.reflected += replies;
    }

    fn unsent(&mut self, session: u64, replies: u64) {
        self.totals.unsent += replies;
        if let Some(record) = self.record(session) {
            record.reflected -= replies;
            record.unsent += replies;
        }
    }

    fn woken(&mut self, _: impl Iterator<Item = Token>) {
        // All sockets are looked at after any wake-up.
    }
}
