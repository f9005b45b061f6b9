//! The sessions of one thread: whose a datagram is, whether it is answered, and with what.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use mio::Token;
use zerocopy::IntoBytes;

use super::allowance::Allowance;
use super::granted::{Served, ServedCounts, ServedEvent, ServedId};
use crate::config::Dscp;
use crate::engine::admission::LoopGuard;
use crate::engine::error_estimate::error_estimate;
use crate::engine::reflector::{
    Admitted, Answer, Blank, CHUNK, Decides, Desk, MOST_SEGMENTS, QUALITY_NS, Queued, stamp_train,
    write_train,
};
use crate::io::{Mirror, Request};
use crate::os;
use crate::report::ignored::{Ignored, Kind};
use crate::wire::protected::{self, Mode, Protection, Refused};
use crate::wire::{
    ErrorEstimate, Format, REFLECTOR_LEN, SenderPacket, TestFormat, Timestamp,
    echoed_sender_timestamp, parse_request,
};

/// A session on its thread. When it is dropped its end is told.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ServedId,
    /// The port it is on, by the number that it has for this program.
    pub(super) port: usize,
    source: SocketAddr,
    format: TestFormat,
    protection: Option<Protection>,
    tos: u8,
    timestamps: Format,
    refwait_ns: i64,
    allowance: Arc<Allowance>,
    /// Sequence Number of the next reply.
    next: u32,
    running: bool,
    /// When it is to end; `None`: nobody has said so.
    ends_ns: Option<i64>,
    /// When its last request came.
    heard_ns: i64,
    /// When its time may be over, as it is noted in [`Serving::looks`].
    look_ns: Option<i64>,
    counts: ServedCounts,
    /// Set before its end is told: then another session may have its source and port.
    over: Arc<AtomicBool>,
    /// `None`: nobody knows of it yet.
    events: Option<Sender<ServedEvent>>,
}

impl Session {
    pub(super) fn new(
        id: ServedId,
        port: usize,
        served: Served,
        over: Arc<AtomicBool>,
        events: Sender<ServedEvent>,
    ) -> Self {
        let protection = served.format.protection().zip(served.keys.as_ref());
        Self {
            id,
            port,
            source: source(served.sender),
            format: served.format,
            protection: protection.map(|(mode, keys)| Protection::new(mode, keys)),
            tos: Dscp::tos(served.dscp),
            timestamps: served.timestamps,
            refwait_ns: served.refwait_ns,
            allowance: served.allowance,
            next: 0,
            running: false,
            ends_ns: None,
            heard_ns: 0,
            look_ns: None,
            counts: ServedCounts::default(),
            over,
            events: Some(events),
        }
    }

    /// Has it end without a word.
    pub(super) fn forget(&mut self) {
        self.events = None;
    }

    /// When it is over if nothing happens until then.
    fn over_ns(&self) -> Option<i64> {
        let silent = || self.heard_ns.saturating_add(self.refwait_ns);
        self.ends_ns.or_else(|| self.running.then(silent))
    }

    /// Finds the requests in what its sender sent, and counts what is none.
    fn admit(
        &mut self,
        octets: &mut [u8],
        segment: usize,
        guard: &LoopGuard,
        admitted: &mut Vec<Admitted>,
        all: &mut Ignored,
    ) {
        let len = octets.len();
        let counts = &mut self.counts;
        let mut take = |place: usize, request: Result<SenderPacket, Refused>| match request {
            Ok(sender) => {
                counts.estimates_unusable += u64::from(!sender.error_estimate.is_usable());
                let at = place * segment;
                admitted.push(Admitted {
                    at,
                    len: segment.min(len - at),
                    sender,
                    number: 0,
                });
            }
            Err(Refused::TooShort(_)) => counts.ignore(all, Kind::TooShort, 1),
            Err(Refused::Forged) => counts.ignore(all, Kind::Forged, 1),
        };
        if let Some(protection) = &self.protection {
            protection.open(octets, segment, |place, packet| {
                take(place, packet.map(protected::SenderPacket::plain));
            });
            return;
        }
        let mut ours = 0;
        for (place, octets) in octets.chunks(segment).enumerate() {
            if echoed_sender_timestamp(octets).is_some_and(|t| guard.knows(t)) {
                // A reply of ours that came back reads as a request, and is none.
                ours += 1;
            } else {
                take(place, parse_request(octets).copied().map_err(Refused::from));
            }
        }
        self.counts.ignore(all, Kind::Loop, ours);
    }
}

impl ServedCounts {
    /// Counts datagrams that are not answered, here and among `all` of the thread.
    #[inline]
    fn ignore(&mut self, all: &mut Ignored, kind: Kind, count: u64) {
        self.ignored.note(kind, count);
        all.note(kind, count);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(events) = &self.events {
            // Whoever no longer listens needs not know.
            let _ = events.send(ServedEvent::Ended(self.id, self.counts));
        }
    }
}

/// A source address as the system tells it: with an interface only where it needs one.
pub(super) fn source(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(addr) => {
            let link_local = addr.ip().is_unicast_link_local();
            let scope = if link_local { addr.scope_id() } else { 0 };
            SocketAddrV6::new(*addr.ip(), addr.port(), 0, scope).into()
        }
    }
}

/// A moment in both formats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    ntp: Timestamp,
    ptp: Timestamp,
}

impl Now {
    fn by(self, format: Format) -> Timestamp {
        match format {
            Format::Ntp => self.ntp,
            Format::Ptp => self.ptp,
        }
    }
}

/// What this host thinks of its clock, as replies carry it.
#[derive(Debug)]
struct Quality {
    ntp: ErrorEstimate,
    ptp: ErrorEstimate,
    until_ns: i64,
}

/// Sources that may have something to receive, each once, in the order in which they turned up.
#[derive(Debug, Default)]
pub(super) struct Ready {
    order: VecDeque<usize>,
    known: HashSet<usize>,
}

impl Ready {
    pub(super) fn push(&mut self, port: usize) {
        if self.known.insert(port) {
            self.order.push_back(port);
        }
    }

    pub(super) fn pop(&mut self) -> Option<usize> {
        let port = self.order.pop_front()?;
        self.known.remove(&port);
        Some(port)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

/// What decides about the requests of one thread.
pub(super) struct Serving {
    sessions: Vec<Option<Box<Session>>>,
    /// Places of `sessions` that are free.
    free: Vec<usize>,
    by_id: HashMap<ServedId, usize>,
    /// By port and source. The hash is keyed, so that nobody can choose addresses that collide.
    by_source: HashMap<(usize, SocketAddr), usize>,
    /// When a session may be over.
    looks: BTreeSet<(i64, usize)>,
    guard: LoopGuard,
    quality: Quality,
    /// The requests of the datagram or bundle at hand.
    admitted: Vec<Admitted>,
    /// Replies of unauthenticated sessions with such a T3 are about to leave.
    leaving: [bool; 2],
    /// Datagrams that were not answered.
    pub(super) ignored: Ignored,
    /// Ports with datagrams.
    pub(super) ready: Ready,
}

impl Serving {
    pub(super) fn new() -> Self {
        Self {
            sessions: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_source: HashMap::new(),
            looks: BTreeSet::new(),
            guard: LoopGuard::default(),
            quality: Quality {
                ntp: ErrorEstimate::UNKNOWN,
                ptp: ErrorEstimate::UNKNOWN,
                until_ns: i64::MIN,
            },
            admitted: Vec::with_capacity(MOST_SEGMENTS),
            leaving: [false; 2],
            ignored: Ignored::default(),
            ready: Ready::default(),
        }
    }

    pub(super) fn add(&mut self, session: Box<Session>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.by_id.insert(session.id, place);
        self.by_source.insert((session.port, session.source), place);
        self.sessions[place] = Some(session);
    }

    pub(super) fn run(&mut self, id: ServedId, now: i64) {
        let Some((place, session)) = self.find(id) else {
            return;
        };
        if !session.running {
            session.running = true;
            session.heard_ns = now;
            self.look(place);
        }
    }

    pub(super) fn end(&mut self, id: ServedId, at_ns: i64, now: i64) {
        let Some((place, session)) = self.find(id) else {
            return;
        };
        let at = if session.running { at_ns } else { now };
        session.ends_ns = Some(session.ends_ns.map_or(at, |before| before.min(at)));
        self.look(place);
    }

    fn find(&mut self, id: ServedId) -> Option<(usize, &mut Session)> {
        let place = *self.by_id.get(&id)?;
        Some((place, self.sessions.get_mut(place)?.as_mut()?))
    }

    /// Notes when a session may be over.
    fn look(&mut self, place: usize) {
        let Some(session) = self.sessions.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let at = session.over_ns();
        if let Some(before) = std::mem::replace(&mut session.look_ns, at) {
            self.looks.remove(&(before, place));
        }
        if let Some(at) = at {
            self.looks.insert((at, place));
        }
    }

    /// When a session may be over next; `i64::MAX`: none is expected to be.
    pub(super) fn next_look(&self) -> i64 {
        self.looks.first().map_or(i64::MAX, |(at, _)| *at)
    }

    /// Takes out a session that is over.
    pub(super) fn take_over(&mut self, now: i64) -> Option<Box<Session>> {
        loop {
            let (_, place) = *self.looks.first().filter(|(at, _)| *at <= now)?;
            // Requests may have come since that was noted.
            self.look(place);
            let session = self.sessions.get(place)?.as_ref()?;
            if session.over_ns().is_some_and(|at| at <= now) {
                if let (None, Some(events)) = (session.ends_ns, &session.events) {
                    let _ = events.send(ServedEvent::Silent(session.id));
                }
                return self.take(place);
            }
        }
    }

    /// Takes out any session.
    pub(super) fn take_any(&mut self) -> Option<Box<Session>> {
        let place = *self.by_id.values().next()?;
        self.take(place)
    }

    fn take(&mut self, place: usize) -> Option<Box<Session>> {
        let session = self.sessions.get_mut(place)?.take()?;
        self.free.push(place);
        self.by_id.remove(&session.id);
        let source = (session.port, session.source);
        if self.by_source.get(&source) == Some(&place) {
            // Otherwise another session has replaced this one.
            self.by_source.remove(&source);
        }
        if let Some(at) = session.look_ns {
            self.looks.remove(&(at, place));
        }
        Some(session)
    }

    /// The session of replies.
    fn session(&mut self, number: u64) -> Option<&mut Session> {
        let place = usize::try_from(number).ok()?;
        self.sessions.get_mut(place)?.as_deref_mut()
    }

    fn refresh_quality(&mut self, now: i64) {
        if now >= self.quality.until_ns {
            self.quality = Quality {
                ntp: error_estimate(Format::Ntp),
                ptp: error_estimate(Format::Ptp),
                until_ns: now + QUALITY_NS,
            };
        }
    }

    /// Writes the replies to a datagram, or to all of a bundle, over it, all but T3 (RFC 5357 §4.2.1);
    /// returns them and the octets of each but the last. `None`: it is not answered.
    pub(super) fn reflect(
        &mut self,
        port: usize,
        request: &mut Request<'_>,
        now: i64,
    ) -> Option<(Answer, usize)> {
        let len = request.len;
        let segment = request.segment.unwrap_or(len).max(1);
        // An empty datagram is one, too.
        let packets = count(len.div_ceil(segment).max(1));
        let known = request.from.and_then(|from| {
            let place = *self.by_source.get(&(port, from))?;
            Some((place, self.sessions.get_mut(place)?.as_deref_mut()?))
        });
        let Some((place, session)) = known else {
            self.ignored.note(Kind::NoSession, packets);
            return None;
        };
        session.counts.received += packets;
        session.counts.received_octets += count(len);
        session.counts.bundled += if packets > 1 { packets } else { 0 };
        if !session.running {
            session
                .counts
                .ignore(&mut self.ignored, Kind::Early, packets);
            return None;
        }
        let unfit = match (request.truncated, request.to_many, len) {
            (true, _, _) => Some(Kind::Truncated),
            (_, true, _) => Some(Kind::ToMany),
            (_, _, 0) => Some(Kind::TooShort),
            _ => None,
        };
        if let Some(kind) = unfit {
            session.counts.ignore(&mut self.ignored, kind, packets);
            return None;
        }
        let admitted = &mut self.admitted;
        admitted.clear();
        let all = &mut self.ignored;
        session.admit(
            &mut request.slot[..len],
            segment,
            &self.guard,
            admitted,
            all,
        );
        if admitted.is_empty() {
            return None;
        }
        session.heard_ns = now;
        let step = session.format.reply_len(segment);
        // Replies may be longer than requests. No sender makes trains so long that theirs do not fit.
        let room = (request.slot.len() / step).min(admitted.len());
        session.counts.unsent += count(admitted.len() - room);
        let granted = session.allowance.take(now, room, step);
        let over = count(room - granted);
        session
            .counts
            .ignore(&mut self.ignored, Kind::OverLimit, over);
        admitted.truncate(granted);
        if admitted.is_empty() {
            return None;
        }
        for one in admitted.iter_mut() {
            one.number = session.next;
            session.next = session.next.wrapping_add(1);
        }
        let estimate = match session.timestamps {
            Format::Ntp => self.quality.ntp,
            Format::Ptp => self.quality.ptp,
        };
        let blank = Blank::new(request, estimate, session.timestamps);
        let format = session.format;
        // Not read, where it is not known (RFC 7750 has no sign for that).
        let tos = request.tos.filter(|_| format.monitored()).unwrap_or(0);
        let write = |slot: &mut [u8], one: &Admitted, to| {
            let reply = blank.answering(&one.sender, one.number);
            let mut put = |fields: &[u8]| format.write_reply(slot, one.at, one.len, to, fields);
            if format.protection().is_some() {
                let mut reply = protected::ReflectorPacket::from(reply);
                reply.sender_tos = tos;
                put(reply.as_bytes())
            } else if format.monitored() {
                let mut fields = [0; REFLECTOR_LEN + 1];
                fields[..REFLECTOR_LEN].copy_from_slice(reply.as_bytes());
                fields[REFLECTOR_LEN] = tos;
                put(&fields)
            } else {
                put(reply.as_bytes())
            }
        };
        let end = write_train(request.slot, admitted, segment, step, write);
        if let Some(protection) = &session.protection {
            protection.prepare::<protected::ReflectorPacket>(&mut request.slot[..end], step);
        }
        let answer = Answer {
            len: end,
            tos: session.tos,
            session: count(place),
        };
        Some((answer, step))
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl Decides for Serving {
    type Time = Now;

    /// Encrypted replies are worked on after T3 was read: few of them leave together.
    fn chunk(&self, queued: &[Queued]) -> usize {
        let mut encrypted = 0;
        let together = queued.iter().take(CHUNK).enumerate();
        let together = together.take_while(|(place, queued)| {
            let session = usize::try_from(queued.answer.session).ok();
            let session = session.and_then(|place| self.sessions.get(place)?.as_ref());
            if session.is_some_and(|s| s.format.protection() == Some(Mode::Encrypted)) {
                encrypted += queued.replies();
            }
            *place == 0 || encrypted <= count(CHUNK)
        });
        together.count()
    }

    fn now(&self) -> Now {
        let ns = os::realtime_ns();
        Now {
            ntp: Timestamp::from_unix_ns(ns, Format::Ntp),
            ptp: Timestamp::from_unix_ns(ns, Format::Ptp),
        }
    }

    fn stamp(&mut self, queued: &Queued, octets: &mut [u8], t3: Now, again: bool) {
        let Some(session) = self.session(queued.answer.session) else {
            return;
        };
        let timestamps = session.timestamps;
        let t3 = t3.by(timestamps);
        match &session.protection {
            Some(protection) if again => {
                protection.stamp_again::<protected::ReflectorPacket>(octets, queued.step, t3);
            }
            Some(protection) => {
                protection.stamp::<protected::ReflectorPacket>(octets, queued.step, t3);
            }
            None => {
                stamp_train(octets, queued.step, t3);
                self.leaving[usize::from(timestamps == Format::Ptp)] = true;
            }
        }
    }

    fn tried(&mut self, t3: Now) {
        // Nobody makes a request of a protected reply.
        for (left, t3) in self.leaving.iter_mut().zip([t3.ntp, t3.ptp]) {
            if std::mem::take(left) {
                self.guard.note(t3);
            }
        }
    }

    fn queued(&mut self, session: u64, replies: u64) {
        if let Some(session) = self.session(session) {
            session.counts.reflected += replies;
        }
    }

    fn sent(&mut self, _: u64) {
        // Counted when it was queued.
    }

    fn unsent(&mut self, session: u64, replies: u64) {
        if let Some(session) = self.session(session) {
            session.counts.reflected -= replies;
            session.counts.unsent += replies;
        }
    }

    fn woken(&mut self, tokens: impl Iterator<Item = Token>) {
        for Token(port) in tokens {
            self.ready.push(port);
        }
    }
}

impl Desk<Serving> {
    /// Answers a batch of datagrams on a port.
    pub(super) fn answer<M: Mirror>(
        &mut self,
        port: usize,
        socket: &mut M,
        batch: usize,
        now: i64,
    ) {
        self.waited = false;
        self.reflector.refresh_quality(now);
        for index in 0..batch {
            let mut request = socket.request(index);
            if let Some((answer, step)) = self.reflector.reflect(port, &mut request, now) {
                self.queue_train(socket, index, answer, step);
            }
        }
        self.flush(socket);
    }
}
