//! The reflector: one pure function from request to reply, and the thread around it.
//!
//! Replies are written into the memory that their requests came in. T2 is the kernel's, T3 is
//! written last, right before the call that sends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Token, Waker};
use zerocopy::{FromBytes, IntoBytes};

use super::admission::{LoopGuard, Sessions, allowed};
use super::sender::error_estimate;
use crate::config::{Dscp, Prefix, ReflectorConfig};
use crate::io::{Mirror, Request};
use crate::os::{self, EventLoop};
use crate::wire::{
    ErrorEstimate, Format, REFLECTOR_LEN, ReflectorPacket, ReplyHead, ReplyTail, SENDER_LEN,
    Timestamp, echoed_sender_timestamp, parse_request, reply_len,
};

/// Replies that share one T3 and one call.
const CHUNK: usize = 4;
/// How often the clock's quality is asked for.
const QUALITY_NS: i64 = 1_000_000_000;
/// How long a batch of replies waits for room in a full socket.
const ROOM_NS: i64 = 500_000;
/// Batches of one socket taken without a look at the other.
const BUDGET: usize = 16;

/// Why a datagram was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Shorter than a request, cut short on arrival, or with a corrupt Error Estimate.
    Malformed,
    /// From an address that is not on the list.
    NotAllowed,
    /// A reply of ours that came back, or one sent from port 0.
    Loop,
    /// Sent to a broadcast or multicast address.
    ToMany,
}

/// What a reflector counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload that arrived.
    pub received_octets: u64,
    /// Replies that were sent.
    pub reflected: u64,
    /// Datagrams that are no request.
    pub malformed: u64,
    /// Requests from addresses that are not on the list.
    pub not_allowed: u64,
    /// Replies of ours that came back as requests.
    pub loops: u64,
    /// Requests to a broadcast or multicast address.
    pub to_many: u64,
    /// Requests of which the kernel cut control messages off: T2 or the TTL may be missing.
    pub cut: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// Sessions that were begun.
    pub sessions: u64,
    /// Sessions that made room for others before their time.
    pub evicted: u64,
    /// Datagrams that the system dropped for want of room; `None`: it does not tell.
    pub kernel_drops: Option<u64>,
    /// CPUs that the thread was pinned to.
    pub cpus: Option<Vec<usize>>,
}

impl Reflected {
    fn refuse(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Malformed => self.malformed += 1,
            Refusal::NotAllowed => self.not_allowed += 1,
            Refusal::Loop => self.loops += 1,
            Refusal::ToMany => self.to_many += 1,
        }
    }

    /// Adds the counts of another thread.
    pub(crate) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.received_octets += other.received_octets;
        self.reflected += other.reflected;
        self.malformed += other.malformed;
        self.not_allowed += other.not_allowed;
        self.loops += other.loops;
        self.to_many += other.to_many;
        self.cut += other.cut;
        self.unsent += other.unsent;
        self.sessions += other.sessions;
        self.evicted += other.evicted;
        self.kernel_drops = match (self.kernel_drops, other.kernel_drops) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
    }
}

/// What decides about a request: configuration, sessions and loop guard of one thread.
#[derive(Debug)]
pub(crate) struct Reflector {
    allow: Vec<Prefix>,
    dscp: Option<Dscp>,
    format: Format,
    /// `None`: stateless, the sender's number is copied.
    sessions: Option<Sessions>,
    pub(crate) guard: LoopGuard,
    estimate: ErrorEstimate,
    quality_until: i64,
}

/// A reply that is ready but for T3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) len: usize,
    pub(crate) tos: u8,
}

impl Reflector {
    pub(crate) fn new(config: &ReflectorConfig) -> Self {
        Self {
            allow: config.allow.clone(),
            dscp: config.dscp,
            format: config.format,
            sessions: (!config.stateless).then(|| Sessions::new(config.session_timeout_ns)),
            guard: LoopGuard::default(),
            estimate: error_estimate(config.format),
            quality_until: i64::MIN,
        }
    }

    fn refresh_quality(&mut self, now: i64) {
        if now >= self.quality_until {
            self.estimate = error_estimate(self.format);
            self.quality_until = now + QUALITY_NS;
        }
    }

    /// Writes the reply over the request in its slot (RFC 5357 §4.2.1), all but T3.
    pub(crate) fn reflect(
        &mut self,
        request: &mut Request<'_>,
        now: i64,
    ) -> Result<Answer, Refusal> {
        let Some(from) = request.from else {
            return Err(Refusal::Malformed);
        };
        if !allowed(&self.allow, from.ip()) {
            return Err(Refusal::NotAllowed);
        }
        if request.to_many {
            return Err(Refusal::ToMany);
        }
        let datagram = &request.slot[..request.len];
        let sender = match parse_request(datagram) {
            Ok(sender) if !request.truncated => *sender,
            _ => return Err(Refusal::Malformed),
        };
        // Port 0 belongs to nobody: what is sent there is answered by nothing but an error.
        let ours = echoed_sender_timestamp(datagram).is_some_and(|t| self.guard.knows(t));
        if ours || from.port() == 0 {
            return Err(Refusal::Loop);
        }
        let seq = sender.seq.get();
        let number = match &mut self.sessions {
            None => seq,
            Some(sessions) => sessions.number(from, request.to, seq, sender.timestamp, now),
        };
        let arrived = request.arrived_ns.unwrap_or_else(os::realtime_ns);
        let reply = ReflectorPacket {
            head: ReplyHead {
                seq: number.into(),
                timestamp: Timestamp::from_raw(0),
                error_estimate: self.estimate,
                mbz: [0; 2],
                receive_timestamp: Timestamp::from_unix_ns(arrived, self.format),
                sender_seq: sender.seq,
                sender_timestamp: sender.timestamp,
                sender_error_estimate: sender.error_estimate,
            },
            tail: ReplyTail {
                mbz: [0; 2],
                sender_ttl: request.ttl.unwrap_or(255),
            },
        };
        let len = reply_len(request.len);
        // The first octets of the padding come back; the last ones are cut off.
        let padding = SENDER_LEN..SENDER_LEN + (len - REFLECTOR_LEN);
        request.slot.copy_within(padding, REFLECTOR_LEN);
        request.slot[..REFLECTOR_LEN].copy_from_slice(reply.as_bytes());
        let tos = match self.dscp {
            Some(dscp) => dscp.tos(),
            // The DSCP comes back, ECN does not: it speaks of the way here.
            None => request.tos.unwrap_or(0) & !0b11,
        };
        Ok(Answer { len, tos })
    }
}

/// Writes T3 into a reply.
pub(crate) fn stamp(slot: &mut [u8], t3: Timestamp) {
    if let Ok((head, _)) = ReplyHead::mut_from_prefix(slot) {
        head.timestamp = t3;
    }
}

/// Answers requests on the sockets of one thread until it is told to stop.
///
/// # Errors
/// The system's, from setting up the event loop.
pub(crate) fn run<M: Mirror>(
    mut sockets: Vec<M>,
    mut reflector: Reflector,
    cpu: Option<usize>,
    stop: &AtomicBool,
    ready: impl FnOnce(Waker),
) -> io::Result<Reflected> {
    let mut events = EventLoop::new()?;
    for (index, socket) in sockets.iter_mut().enumerate() {
        socket.register(events.registry(), Token(index))?;
    }
    ready(Waker::new(events.registry(), Token(sockets.len()))?);
    let mut totals = Reflected {
        cpus: cpu.and_then(os::pin),
        ..Reflected::default()
    };
    os::sharpen_timers();
    while !stop.load(Ordering::Relaxed) {
        let mut busy = false;
        for socket in &mut sockets {
            for _ in 0..BUDGET {
                match socket.recv() {
                    Ok(count) => {
                        // A wait took what woke it, perhaps for another socket or to stop.
                        busy |= answer(socket, &mut reflector, count, &mut totals, &mut events);
                        if count < socket.batch() {
                            // Empty; what came meanwhile wakes the next wait at once.
                            break;
                        }
                        busy = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error that a former reply met: taken by this call.
                    Err(_) => busy = true,
                }
            }
        }
        if !busy {
            events.wait_until(i64::MAX);
        }
    }
    if let Some(sessions) = &reflector.sessions {
        totals.sessions = sessions.begun;
        totals.evicted = sessions.evicted;
    }
    for socket in &sockets {
        if let Some(drops) = socket.kernel_drops() {
            totals.kernel_drops = Some(totals.kernel_drops.unwrap_or(0) + drops);
        }
    }
    Ok(totals)
}

/// Answers a batch; true if it had to wait for room.
fn answer<M: Mirror>(
    socket: &mut M,
    reflector: &mut Reflector,
    count: usize,
    totals: &mut Reflected,
    events: &mut EventLoop,
) -> bool {
    let now = os::monotonic_ns();
    reflector.refresh_quality(now);
    totals.received += u64::try_from(count).unwrap_or(0);
    for index in 0..count {
        let mut request = socket.request(index);
        totals.cut += u64::from(request.facts_cut);
        totals.received_octets += u64::try_from(request.len).unwrap_or(0);
        match reflector.reflect(&mut request, now) {
            Ok(Answer { len, tos }) => socket.queue(index, len, tos),
            Err(refusal) => totals.refuse(refusal),
        }
    }
    let mut waited = false;
    while socket.queued() > 0 {
        let chunk = socket.queued().min(CHUNK);
        let t3 = Timestamp::from_unix_ns(os::realtime_ns(), reflector.format);
        for offset in 0..chunk {
            stamp(socket.reply_mut(offset), t3);
        }
        let result = socket.send(chunk);
        // After the call: nothing that can wait stands between T3 and the departure.
        reflector.guard.note(t3);
        match result {
            Ok(sent) => totals.reflected += u64::try_from(sent).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !waited => {
                // Once a batch: others must not wait for a socket that stays full.
                events.wait_until(os::monotonic_ns() + ROOM_NS);
                waited = true;
            }
            Err(_) => {
                totals.unsent += 1;
                socket.skip();
            }
        }
    }
    waited
}
