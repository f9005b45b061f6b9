//! The reflector: one pure function from request to reply, and the thread around it.
//!
//! Replies are written into the memory that their requests came in. T2 is the kernel's, T3 is
//! written last, right before the call that sends.

mod bundle;
mod desk;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mio::{Token, Waker};
use zerocopy::{FromBytes, IntoBytes};

use super::admission::{LoopGuard, Record, Sessions, Visit, allowed};
use super::impair::Stage;
use super::impaired::Testing;
use super::pace::Pace;
use super::sender::error_estimate;
use super::tally::{Tally, UnsentTally};
use crate::config::{Dscp, Prefix, ReflectorConfig};
use crate::io::{Advice, Mirror, Patience, RefusedCall, Request, Route, failed_call};
use crate::os;
use crate::report::FailedCall;
use crate::report::ignored::{Ignored, Kind};
use crate::report::reflector::Injected;
use crate::report::unsent::Unsent;
use crate::wire::{
    ErrorEstimate, Format, ReflectorPacket, ReplyHead, ReplyTail, SENDER_LEN, SenderPacket,
    TestFormat, Timestamp, TooShort, echoed_sender_timestamp, parse_request, reply_len,
};
pub(super) use bundle::{Admitted, stamp_train, write_train};
pub(super) use desk::{Answer, CHUNK, Decides, Desk, Queued};

/// How often the clock's quality is asked for.
pub(super) const QUALITY_NS: i64 = 1_000_000_000;
/// Most requests of a bundle.
pub(super) const MOST_SEGMENTS: usize = 65_536 / SENDER_LEN;
/// While very many requests come they are looked for this often.
const LOOK_NS: i64 = 20_000;
/// Batches of one socket taken without a look at the other.
const BUDGET: usize = 16;
/// How often sessions that have been silent too long are looked for, while somebody is told of them.
const SWEEP_NS: i64 = 1_000_000_000;

/// What a reflector counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload that arrived.
    pub received_octets: u64,
    /// Replies that were sent.
    pub reflected: u64,
    /// Datagrams that were not answered.
    pub ignored: Ignored,
    /// Requests of which the kernel cut control messages off: T2 or the TTL may be missing.
    pub cut: u64,
    /// Requests that came in bundles.
    pub bundled: u64,
    /// Requests whose Error Estimate has Multiplier 0: they are answered all the same.
    pub estimates_unusable: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// The same by the error.
    pub unsent_by: Unsent,
    /// Sessions that were begun.
    pub sessions: u64,
    /// Sessions that made room for others before their time.
    pub evicted: u64,
    /// Datagrams that the system dropped for want of room, a bundle being one; `None`: it does not tell.
    pub kernel_drops: Option<u64>,
    /// CPUs that the thread was pinned to.
    pub cpus: Option<Vec<usize>>,
    /// Calls for many packets that this system refuses, so that each took one of its own.
    pub refused_calls: Vec<FailedCall>,
    /// The call that failed for good, which ended the reflector before its time.
    pub failure: Option<FailedCall>,
    /// What test mode did; `None` without.
    pub injected: Option<Injected>,
    /// The sessions begun last, their times in nanoseconds since the Unix epoch; `None` where none
    /// are told apart.
    pub records: Option<Vec<Record>>,
}

impl Reflected {
    /// Adds the counts of another thread.
    pub(crate) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.received_octets += other.received_octets;
        self.reflected += other.reflected;
        self.ignored.add(&other.ignored);
        self.cut += other.cut;
        self.bundled += other.bundled;
        self.estimates_unusable += other.estimates_unusable;
        self.unsent += other.unsent;
        self.unsent_by.add(&other.unsent_by);
        self.sessions += other.sessions;
        self.evicted += other.evicted;
        self.kernel_drops = match (self.kernel_drops, other.kernel_drops) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        for call in &other.refused_calls {
            if !self.refused_calls.contains(call) {
                self.refused_calls.push(call.clone());
            }
        }
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        if let Some(injected) = &other.injected {
            self.injected.get_or_insert_default().add(injected);
        }
        if let Some(records) = &other.records {
            self.records.get_or_insert_default().extend(records);
        }
    }
}

/// What a reflector has done so far, for whoever shows it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    pub(crate) received: AtomicU64,
    pub(crate) reflected: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) ignored: Tally,
    pub(crate) unsent: UnsentTally,
}

/// What decides about a request: configuration, sessions and loop guard of one thread.
#[derive(Debug)]
pub(crate) struct Reflector {
    allow: Vec<Prefix>,
    dscp: Option<Dscp>,
    format: Format,
    /// The sender's number is copied.
    stateless: bool,
    /// `None`: sessions are not told apart.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) guard: LoopGuard,
    estimate: ErrorEstimate,
    quality_until: i64,
    totals: Reflected,
    /// The requests of the bundle at hand.
    admitted: Vec<Admitted>,
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

    fn refresh_quality(&mut self, now: i64) {
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
    pub(super) fn admit(&self, request: &Request<'_>) -> Result<SenderPacket, Kind> {
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
    pub(super) fn visit(
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
    fn note_estimate(&mut self, sender: &SenderPacket, count: u64) {
        let usable = sender.error_estimate.is_usable();
        self.totals.estimates_unusable += if usable { 0 } else { count };
    }

    /// The Sequence Number of the reply; `None` where the session has ended while the request was
    /// held.
    pub(super) fn number(&mut self, sender: &SenderPacket, visit: Visit) -> Option<u32> {
        match &mut self.sessions {
            Some(sessions) if !self.stateless => sessions.next_number(visit),
            _ => Some(sender.seq.get()),
        }
    }

    pub(super) fn write(
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
    fn blank(&self, request: &Request<'_>) -> Blank {
        Blank::new(request, self.estimate, self.format)
    }

    fn reply_tos(&self, received: Option<u8>) -> u8 {
        match self.dscp {
            Some(dscp) => dscp.tos(),
            // The DSCP comes back, ECN does not: it speaks of the way here.
            None => received.unwrap_or(0) & !0b11,
        }
    }

    pub(super) fn record(&mut self, serial: u64) -> Option<&mut Record> {
        self.sessions.as_mut()?.record(serial)
    }

    /// Counts a datagram that is not answered, in its session too where it has one.
    fn refused(&mut self, kind: Kind, request: &Request<'_>) {
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
pub(super) const fn no_request(kind: Kind) -> bool {
    matches!(kind, Kind::TooShort | Kind::Truncated)
}

/// A reply in which nothing is missing but whose it is, and T3.
pub(super) struct Blank(ReflectorPacket);

impl Blank {
    pub(super) fn new(request: &Request<'_>, estimate: ErrorEstimate, format: Format) -> Self {
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
    pub(super) fn answering(&self, sender: &SenderPacket, number: u32) -> ReflectorPacket {
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

/// Writes T3 into a reply.
pub(crate) fn stamp(slot: &mut [u8], t3: Timestamp) {
    if let Ok((head, _)) = ReplyHead::mut_from_prefix(slot) {
        head.timestamp = t3;
    }
}

/// A call that failed, as reports have it.
pub(super) fn failed(call: RefusedCall) -> FailedCall {
    FailedCall::new(call.call, call.errno)
}

/// Answers requests on the sockets of one thread until it is told to stop, or no call serves any more.
///
/// # Errors
/// The system's, from setting up the event loop.
pub(crate) fn run<M: Mirror>(
    mut sockets: Vec<M>,
    reflector: Reflector,
    stage: Option<Stage>,
    cpu: Option<usize>,
    stop: &AtomicBool,
    live: &Live,
    ready: impl FnOnce(Waker),
) -> io::Result<Reflected> {
    let mut desk = Desk::new(reflector)?;
    for (index, socket) in sockets.iter_mut().enumerate() {
        socket.register(desk.events.registry(), Token(index))?;
    }
    ready(Waker::new(desk.events.registry(), Token(sockets.len()))?);
    desk.reflector.totals.cpus = cpu.and_then(os::pin);
    let mut testing = stage.map(Testing::new);
    os::sharpen_timers();
    let mut sweep_at = os::monotonic_ns();
    let mut pace = Pace::default();
    let may_look = sockets.iter().all(M::kernel_stamps);
    let mut patience = vec![Patience::default(); sockets.len()];
    while !stop.load(Ordering::Relaxed) {
        let (mut busy, mut taken) = (false, 0);
        // When a socket that failed is to be tried again.
        let mut again = i64::MAX;
        for index in 0..sockets.len() {
            for _ in 0..BUDGET {
                match sockets[index].recv() {
                    Ok(count) => {
                        patience[index].renew();
                        taken += count;
                        match &mut testing {
                            None => desk.answer(&mut sockets[index], count),
                            Some(testing) => testing.answer(&mut desk, &mut sockets, index, count),
                        }
                        if count < sockets[index].batch() {
                            // Empty; what came meanwhile wakes the next wait at once.
                            break;
                        }
                        busy = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        patience[index].renew();
                        break;
                    }
                    Err(error) => match patience[index].after(&error, os::monotonic_ns()) {
                        // An ICMP error that a former reply met: taken by this call.
                        Advice::Again => busy = true,
                        Advice::At(moment) => {
                            again = again.min(moment);
                            break;
                        }
                        Advice::GiveUp => {
                            desk.failure = Some(failed_call(sockets[index].receive_call(), &error));
                            break;
                        }
                    },
                }
            }
        }
        desk.show(live);
        if desk.failure.is_some() {
            break;
        }
        let mut until = again;
        if let Some(testing) = &mut testing {
            until = until.min(testing.release_due(&mut desk, &mut sockets));
        }
        if let Some(sessions) = desk.reflector.sessions.as_mut().filter(|s| s.tells()) {
            let now = os::monotonic_ns();
            if now >= sweep_at {
                sessions.sweep(now);
                sweep_at = now + SWEEP_NS;
            }
            until = until.min(sweep_at);
        }
        let now = os::monotonic_ns();
        if may_look && pace.note(taken, now) {
            for (index, socket) in sockets.iter_mut().enumerate() {
                let registry = desk.events.registry();
                socket.deregister(registry);
                if !pace.looks() && socket.register(registry, Token(index)).is_err() {
                    pace.go_on_looking();
                }
            }
        }
        if !busy && !std::mem::take(&mut desk.woken) {
            if pace.looks() {
                os::sleep_until(until.min(now + LOOK_NS));
            } else {
                desk.events.wait_until(until);
            }
        }
    }
    if let Some(testing) = &mut testing {
        testing.give_up(&mut desk);
    }
    // Requests that came since a call began to fail wait there still.
    let mut failing = sockets.iter().zip(&patience);
    let failing = failing.find_map(|(socket, patience)| patience.failing(socket.receive_call()));
    let failure = desk.cannot_send().or(failing);
    let mut totals = desk.finish();
    totals.failure = failure.map(failed);
    let refused = sockets.iter().flat_map(M::refused_calls).flatten();
    for call in refused.map(failed) {
        if !totals.refused_calls.contains(&call) {
            totals.refused_calls.push(call);
        }
    }
    totals.injected = testing.map(|testing| testing.stage.injected);
    for socket in &sockets {
        if let Some(drops) = socket.kernel_drops() {
            totals.kernel_drops = Some(totals.kernel_drops.unwrap_or(0) + drops);
        }
    }
    Ok(totals)
}

impl Desk {
    pub(super) fn begin_batch(&mut self, count: usize) -> i64 {
        let now = os::monotonic_ns();
        self.reflector.refresh_quality(now);
        self.reflector.totals.received += u64::try_from(count).unwrap_or(0);
        self.waited = false;
        now
    }

    pub(super) fn count(&mut self, request: &Request<'_>) {
        self.reflector.totals.cut += u64::from(request.facts_cut);
        self.reflector.totals.received_octets += u64::try_from(request.len).unwrap_or(0);
    }

    pub(super) fn refuse(&mut self, kind: Kind, request: &Request<'_>) {
        self.reflector.totals.ignored.note(kind, 1);
        self.reflector.refused(kind, request);
    }

    fn answer<M: Mirror>(&mut self, socket: &mut M, count: usize) {
        let now = self.begin_batch(count);
        for index in 0..count {
            let mut request = socket.request(index);
            if let Some(segment) = request.segment {
                self.answer_bundle(socket, index, segment, now);
                continue;
            }
            self.count(&request);
            match self.reflector.reflect(&mut request, now) {
                Ok(answer) => self.queue(socket, index, answer),
                Err(kind) => self.refuse(kind, &request),
            }
        }
        self.flush(socket);
    }

    /// Sends a reply that is kept elsewhere, after what is queued. One that would have left before
    /// has its T3.
    pub(super) fn send_alone<M: Mirror>(
        &mut self,
        socket: &mut M,
        slot: &mut [u8],
        route: &Route,
        answer: Answer,
        has_t3: bool,
    ) {
        self.flush(socket);
        self.reflector.queued(answer.session, 1);
        loop {
            let t3 = self.reflector.now();
            if !has_t3 {
                stamp(slot, t3);
            }
            let result = socket.send_alone(&slot[..answer.len], route, answer.tos);
            if !has_t3 {
                self.reflector.tried(t3);
            }
            match result {
                Ok(()) => {
                    self.left();
                    self.reflector.sent(1);
                }
                Err(error) if self.wait_for_room(&error) => continue,
                Err(error) => self.refused(socket.send_call(), &error, answer.session, 1),
            }
            break;
        }
    }

    fn show(&self, live: &Live) {
        let sessions = self.reflector.sessions.as_ref().map_or(0, |s| s.begun);
        for (place, value) in [
            (&live.received, self.reflector.totals.received),
            (&live.reflected, self.reflector.totals.reflected),
            (&live.sessions, sessions),
        ] {
            place.store(value, Ordering::Relaxed);
        }
        live.ignored.show(&self.reflector.totals.ignored);
        live.unsent.show(&self.unsent);
    }

    fn finish(mut self) -> Reflected {
        if let Some(sessions) = &self.reflector.sessions {
            self.reflector.totals.sessions = sessions.begun;
            self.reflector.totals.evicted = sessions.evicted;
            let offset = os::realtime_ns() - os::monotonic_ns();
            let mut records = sessions.records();
            for record in &mut records {
                record.first_ns += offset;
                record.last_ns += offset;
            }
            self.reflector.totals.records = Some(records);
        }
        self.reflector.totals.unsent_by = self.unsent;
        self.reflector.totals
    }
}

#[cfg(test)]
pub(super) use test_link::OneBundle;
#[cfg(test)]
use test_link::tests_config;

#[cfg(test)]
mod test_link {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use mio::{Registry, Token};
    use nix::errno::Errno;

    use super::*;
    use crate::config::{IoKind, SocketOptions};
    use crate::io::Route;

    pub(super) fn tests_config() -> ReflectorConfig {
        ReflectorConfig {
            listen: Vec::new(),
            allow: Vec::new(),
            stateless: false,
            session_timeout_ns: 0,
            dscp: None,
            format: Format::Ntp,
            socket: SocketOptions {
                tos: 0,
                ttl: 255,
                do_not_fragment: false,
                interface: None,
                hardware: false,
                busy_poll_us: None,
                io: IoKind::Batched,
            },
            threads: 1,
            cpus: None,
            impairment: None,
            watch: false,
        }
    }

    /// A socket whose calls that receive fail.
    pub(super) struct Failing<F> {
        fail: F,
        calls: Arc<AtomicU64>,
    }

    impl<F: FnMut() -> io::Result<usize>> Failing<F> {
        pub(super) fn new(fail: F) -> Self {
            let calls = Arc::default();
            Self { fail, calls }
        }

        pub(super) fn calls(&self) -> Arc<AtomicU64> {
            Arc::clone(&self.calls)
        }
    }

    impl<F: FnMut() -> io::Result<usize>> Mirror for Failing<F> {
        fn batch(&self) -> usize {
            1
        }

        fn recv(&mut self) -> io::Result<usize> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            (self.fail)()
        }

        fn request(&mut self, _: usize) -> Request<'_> {
            unreachable!("there is none")
        }

        fn queue(&mut self, _: usize, _: usize, _: u8, _: Option<usize>) {}

        fn queued(&self) -> usize {
            0
        }

        fn reply_mut(&mut self, _: usize) -> &mut [u8] {
            &mut []
        }

        fn send(&mut self, _: usize) -> io::Result<usize> {
            Ok(0)
        }

        fn skip(&mut self) {}

        fn route(&self, _: usize) -> Option<Route> {
            None
        }

        fn send_alone(&mut self, _: &[u8], _: &Route, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn send_part(&mut self, _: usize, _: usize, _: usize, _: &Route, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
            Ok(())
        }

        fn deregister(&mut self, _: &Registry) {}

        fn kernel_drops(&self) -> Option<u64> {
            None
        }
    }

    /// A socket on which one bundle has arrived.
    pub(in crate::engine) struct OneBundle {
        pub(in crate::engine) slot: Vec<u8>,
        /// Where the bundle, and then its answer, begins in there.
        pub(in crate::engine) begin: usize,
        pub(in crate::engine) len: usize,
        pub(in crate::engine) segment: usize,
        pub(in crate::engine) from: SocketAddr,
        pub(in crate::engine) queued: Vec<(usize, Option<usize>)>,
        /// Why a train is not taken.
        pub(in crate::engine) refusal: Errno,
        /// Replies that left by themselves.
        pub(in crate::engine) parts: usize,
    }

    impl Mirror for OneBundle {
        fn batch(&self) -> usize {
            1
        }

        fn recv(&mut self) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn request(&mut self, _: usize) -> Request<'_> {
            Request {
                slot: &mut self.slot[self.begin..],
                len: self.len,
                segment: Some(self.segment),
                truncated: false,
                facts_cut: true,
                from: Some(self.from),
                to: None,
                to_many: false,
                arrived_ns: Some(1_790_000_000_000_000_000),
                ttl: Some(64),
                tos: Some(0),
            }
        }

        fn move_ahead(&mut self, _: usize, octets: usize) -> Option<&mut [u8]> {
            self.begin = self.begin.checked_sub(octets)?;
            Some(&mut self.slot[self.begin..])
        }

        fn queue(&mut self, _: usize, len: usize, _: u8, segment: Option<usize>) {
            self.queued.push((len, segment));
        }

        fn queued(&self) -> usize {
            self.queued.len()
        }

        fn reply_mut(&mut self, _: usize) -> &mut [u8] {
            &mut self.slot[self.begin..]
        }

        fn send(&mut self, _: usize) -> io::Result<usize> {
            Err(self.refusal.into())
        }

        fn skip(&mut self) {
            self.queued.clear();
        }

        fn route(&self, _: usize) -> Option<Route> {
            Some(Route {
                to: self.from,
                source: None,
            })
        }

        fn send_alone(&mut self, _: &[u8], _: &Route, _: u8) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send_part(&mut self, _: usize, _: usize, _: usize, _: &Route, _: u8) -> io::Result<()> {
            self.parts += 1;
            Ok(())
        }

        fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
            Ok(())
        }

        fn deregister(&mut self, _: &Registry) {}

        fn kernel_drops(&self) -> Option<u64> {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nix::errno::Errno;

    use super::test_link::{Failing, tests_config};
    use super::*;

    #[test]
    fn a_call_that_fails_for_good_ends_the_reflector_and_not_a_core() {
        let refused = RefusedCall {
            call: "recvmsg",
            errno: libc::EPERM,
        };
        for (error, call) in [(None, "recvmsg"), (Some(Errno::EIO), "recvfrom")] {
            let socket = Failing::new(move || match error {
                Some(errno) => Err(errno.into()),
                None => Err(refused.into()),
            });
            let calls = socket.calls();
            let reflector = Reflector::new(&tests_config());
            let (stop, live) = (AtomicBool::new(false), Live::default());
            let did = run(vec![socket], reflector, None, None, &stop, &live, drop).unwrap();
            assert_eq!(
                did.failure.map(|failure| failure.call).as_deref(),
                Some(call)
            );
            let calls = calls.load(Ordering::Relaxed);
            assert!(calls < 3000, "{calls}");
        }
    }

    /// A socket on which a request waits at any time, and whose calls that send fail from one on.
    struct Mute {
        slot: [u8; 128],
        queued: usize,
        sends: u32,
    }

    impl Mirror for Mute {
        fn batch(&self) -> usize {
            1
        }

        fn recv(&mut self) -> io::Result<usize> {
            Ok(1)
        }

        fn request(&mut self, _: usize) -> Request<'_> {
            self.slot.fill(0);
            Request {
                slot: &mut self.slot,
                len: 41,
                segment: None,
                truncated: false,
                facts_cut: false,
                from: Some(([127, 0, 0, 1], 5000).into()),
                to: None,
                to_many: false,
                arrived_ns: Some(1_790_000_000_000_000_000),
                ttl: Some(64),
                tos: Some(0),
            }
        }

        fn queue(&mut self, _: usize, _: usize, _: u8, _: Option<usize>) {
            self.queued += 1;
        }

        fn queued(&self) -> usize {
            self.queued
        }

        fn reply_mut(&mut self, _: usize) -> &mut [u8] {
            &mut self.slot
        }

        fn send(&mut self, limit: usize) -> io::Result<usize> {
            self.sends += 1;
            if self.sends >= 50 {
                return Err(NO_SEND.into());
            }
            self.queued -= limit;
            Ok(limit)
        }

        fn skip(&mut self) {
            self.queued -= 1;
        }

        fn route(&self, _: usize) -> Option<Route> {
            None
        }

        fn send_alone(&mut self, _: &[u8], _: &Route, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn send_part(&mut self, _: usize, _: usize, _: usize, _: &Route, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn register(&mut self, _: &mio::Registry, _: Token) -> io::Result<()> {
            Ok(())
        }

        fn deregister(&mut self, _: &mio::Registry) {}

        fn kernel_drops(&self) -> Option<u64> {
            None
        }
    }

    const NO_SEND: RefusedCall = RefusedCall {
        call: "sendmsg",
        errno: libc::EPERM,
    };

    #[test]
    fn a_call_that_sends_and_fails_from_one_on_ends_the_reflector() {
        let socket = Mute {
            slot: [0; 128],
            queued: 0,
            sends: 0,
        };
        let reflector = Reflector::new(&tests_config());
        let (stop, live) = (AtomicBool::new(false), Live::default());
        let did = run(vec![socket], reflector, None, None, &stop, &live, drop).unwrap();
        let failure = did.failure.expect("it cannot send");
        assert_eq!(
            (failure.call.as_str(), failure.errno.as_str()),
            ("sendmsg", "EPERM")
        );
    }

    #[test]
    fn a_reflector_that_is_stopped_while_its_call_fails_has_failed() {
        let stop = AtomicBool::new(false);
        let calls = Cell::new(0);
        let socket = Failing::new(|| {
            calls.set(calls.get() + 1);
            stop.store(calls.get() == 20, Ordering::Relaxed);
            Err(Errno::EIO.into())
        });
        let live = Live::default();
        let reflector = Reflector::new(&tests_config());
        let did = run(vec![socket], reflector, None, None, &stop, &live, drop).unwrap();
        assert_eq!(
            did.failure.map(|failure| failure.errno).as_deref(),
            Some("EIO")
        );
    }
}
