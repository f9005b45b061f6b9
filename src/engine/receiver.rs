//! The receiver thread: takes replies and transmit stamps, counts, and passes samples on.
//!
//! It alone owns the sequence accounting, so that counts are exact whatever the stats thread does.
//! It ends the session: when every packet is answered or has timed out, and then returns its totals.
//! Where packets are missing and their direction is not known, it asks the sender before that for a few
//! probes that tell the reflector's counter.

mod answer;
mod estimates;
pub(super) mod facts;
mod held;
mod time_format;
mod waiting;

use std::io;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::{Token, Waker};
use zerocopy::{FromZeros, IntoBytes};

use self::answer::Answer;
use self::waiting::Waiting;
use super::flight::{PROBES, ReceiverEnd, Wish};
use super::intervals;
use super::live::{Copier, Tap};
use super::pace::Pace;
use super::run::Stop;
use super::tally::Tally;
use crate::config::Fraction;
use crate::io::{Advice, Datagram, Event, Icmp, Patience, ReceiveHalf, RefusedCall, failed_call};
use crate::os::{self, EventLoop};
use crate::report::ignored::Kind;
use crate::sample::{Pipe, Sample};
use crate::stats::clock::OwnClock;
use crate::stats::sequence::{Arrival, Tracker, extend};
use crate::wire::protected::{self, Protection, Refused};
use crate::wire::{
    Format, REFLECTOR_LEN, Reading, Reply, ReplyHead, TestFormat, Timestamp, TooShort,
};
#[cfg(test)]
pub(crate) use estimates::Estimates;
pub(crate) use facts::{Facts, Received};
use held::{Held, Told};
pub(crate) use time_format::Belief;
use time_format::{TimeFormat, claims_other, is_of_another, tells_no_time};

/// An interval whose end has not been told is looked after this often.
const MARK_NS: i64 = 1_000_000;
/// Started blocks are handed over this often.
const FLUSH_NS: i64 = 50_000_000;
/// Batches taken without a look at anything else.
const BUDGET: usize = 16;
/// Batches taken between two looks at what else there is: each look is three calls.
const EVENTS_EVERY: usize = 8;
/// After a look that found so much the next one is not put off.
const MANY_EVENTS: usize = 32;
/// How long after the last missing reply a duplicate is still waited for, at least and at most.
const LINGER_NS: (i64, i64) = (20_000_000, 200_000_000);
/// Where all that matters is a bound of loss, and it is passed: after so long without a reply a probe
/// finds out whether any is still to come; after more where one has taken more than a quarter of it.
const QUIET_NS: i64 = 200_000_000;
/// How long the answer to a probe is waited for, at least.
const PROBE_NS: i64 = 100_000_000;
/// Replies that are taken together, at most.
const MOST_RUN: usize = 1024;
/// Where the two numbers stand in a reply.
const SEQ_AT: usize = offset_of!(ReplyHead, seq);
const SENDER_SEQ_AT: usize = offset_of!(ReplyHead, sender_seq);
/// Protected replies that are opened together.
const STAGED: usize = 16;
/// Of zeros, so that a table of them costs nothing before it is used.
const NO_STAMP: (u64, i64) = (0, 0);

/// What the receiver thread needs to know.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) timeout_ns: i64,
    /// See [`SessionConfig::loss_bound`](crate::config::SessionConfig::loss_bound).
    pub(crate) loss_bound: Option<Fraction>,
    /// Probes may be sent.
    pub(crate) probes: bool,
    /// Ends the wait for the last replies.
    pub(crate) stop: Stop,
    /// The number of the first packet on the wire.
    pub(crate) first_seq: u32,
    /// Of T1.
    pub(crate) format: Format,
    /// How the packets look.
    pub(crate) test: TestFormat,
    /// What opens them, where `test` has them protected.
    pub(crate) protection: Option<Protection>,
    /// Octets of the requests of each class.
    pub(crate) payloads: Vec<usize>,
    /// Transmit stamps are asked for.
    pub(crate) stamps: bool,
    /// T4 and the transmit stamps are of the interface's clock.
    pub(crate) hardware: bool,
    /// From one packet or train to the next.
    pub(crate) interval_ns: i64,
    /// ICMP errors come as events.
    pub(crate) errors_queued: bool,
    /// Let packets gather between two looks: they carry the kernel's timestamps.
    pub(crate) gather_ns: i64,
    pub(crate) cpu: Option<usize>,
    pub(crate) realtime: bool,
    /// When the first attempt began, since the Unix epoch, where this is another one.
    pub(crate) first_begun_ns: Option<i64>,
}

/// Where a receiver puts what it finds.
pub(crate) struct Pipes {
    pub(crate) samples: Pipe<Sample, intervals::Counts>,
    /// Where the session is watched.
    pub(crate) tap: Option<Tap>,
    pub(crate) copier: Option<Copier>,
}

/// How an attempt ended.
pub(crate) enum Attempt {
    Over(Box<Received>),
    /// The peer was not there yet, and nothing was answered.
    Absent(Box<Absent>),
}

/// What is left of an attempt that was given up.
pub(crate) struct Absent {
    /// When the first one began, since the Unix epoch.
    pub(crate) begun_ns: i64,
    /// An answer came: the peer is there now.
    pub(crate) last: bool,
    pub(crate) pipes: Pipes,
}

/// Live figures for whoever shows progress.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    pub(crate) received: std::sync::atomic::AtomicU64,
    pub(crate) ignored: Tally,
}

/// Takes replies until the session is over, or the peer is found not to be there yet.
///
/// # Errors
/// The system's, from setting up the event loop; `flight` is then left to the sender.
pub(crate) fn run<R: ReceiveHalf>(
    half: &mut R,
    plan: &Plan,
    flight: ReceiverEnd<'_>,
    live: &Live,
    pipes: Pipes,
    ready: impl FnOnce(Arc<Waker>),
    wishes: &Sender<Wish>,
) -> io::Result<Attempt> {
    let mut events = EventLoop::new()?;
    half.register(events.registry(), Token(0))?;
    let waker = Arc::new(Waker::new(events.registry(), Token(1))?);
    let cpus = plan.cpu.and_then(os::pin);
    os::sharpen_timers();
    if plan.realtime {
        // The sender thread asks for the same and reports a refusal.
        let _ = os::set_realtime();
    }
    // Its memory takes milliseconds to come by: nothing is sent before.
    let mut matcher = Matcher::new(plan, flight, pipes.samples);
    (matcher.tap, matcher.copier) = (pipes.tap, pipes.copier);
    ready(waker);
    let mut ending = Ending::new(plan, wishes);
    let mut bundles = false;
    let mut flush_at = os::monotonic_ns() + FLUSH_NS;
    let mut pace = Pace::default();
    let mut patience = Patience::default();
    let mut failure = None;
    loop {
        let looked_ns = matcher.tap.as_ref().map_or(0, |_| os::realtime_ns());
        let (drained, taken) = drain(half, &mut matcher, &mut patience);
        if let Drained::Failed(call) = drained {
            failure = Some(call);
            flight.abandon();
            break;
        }
        let now = os::monotonic_ns();
        if plan.gather_ns > 0 && pace.note(taken, now) {
            half.deregister(events.registry());
            if !pace.looks() && half.register(events.registry(), Token(0)).is_err() {
                pace.go_on_looking();
            }
        }
        if now >= flush_at {
            matcher.flush();
            flush_at = now + FLUSH_NS;
            if !bundles && flight.burst() > 1 {
                half.take_bundles();
                bundles = true;
            }
        }
        let tick_at = match &drained {
            // What waits may still be in time.
            Drained::More | Drained::Again(_) | Drained::Failed(_) => i64::MAX,
            Drained::Some | Drained::Idle => matcher.tick(now, looked_ns),
        };
        let received = matcher.tracker.received();
        live.received
            .store(received, std::sync::atomic::Ordering::Relaxed);
        live.ignored.show(&matcher.facts.ignored);
        if flight.has_grace() && matcher.is_absent() {
            flight.set_absent();
            half.deregister(events.registry());
            return Ok(matcher.absent());
        }
        let Some(until) = ending.next(&mut matcher, now) else {
            break;
        };
        match drained {
            Drained::Idle if !pace.looks() => {
                events.wait_until(until.min(flush_at).min(tick_at));
            }
            Drained::Idle | Drained::Some if plan.gather_ns > 0 => {
                os::sleep_until(now + plan.gather_ns);
            }
            Drained::Again(at) => os::sleep_until(at),
            Drained::Idle | Drained::Some | Drained::More | Drained::Failed(_) => {}
        }
    }
    // What came since the call began to fail waits there still.
    let failure = failure.or(patience.failing(half.receive_call()));
    let kernel_drops = half.kernel_drops();
    let sent = flight.finished().map_or(0, |(sent, _)| sent);
    Ok(Attempt::Over(Box::new(Received {
        refused_call: half.refused_call(),
        failure,
        ..matcher.finish(sent, kernel_drops, cpus)
    })))
}

enum Drained {
    Idle,
    Some,
    More,
    /// The call that takes replies failed; it is to be made again at this moment.
    Again(i64),
    /// It fails for good.
    Failed(RefusedCall),
}

impl Drained {
    /// Nothing waits any more.
    fn after(taken: usize) -> Self {
        if taken == 0 { Self::Idle } else { Self::Some }
    }
}

/// Takes what waits: stamps first, since they are of packets sent before the replies came. Those that
/// come meanwhile are fetched once it has taken a while. Also says how much it took.
fn drain<R: ReceiveHalf>(
    half: &mut R,
    matcher: &mut Matcher<'_>,
    patience: &mut Patience,
) -> (Drained, usize) {
    let mut total = 0;
    // There is more than one look takes, or a packet was refused.
    let mut look = false;
    for round in 0..BUDGET {
        let mut taken = 0;
        if look || round % EVENTS_EVERY == 0 {
            let told = matcher.told;
            taken += half.events(|event| matcher.on_event(event));
            look = taken >= MANY_EVENTS;
            if matcher.told > told {
                // So the errors of the socket are the network's.
                patience.renew();
            }
            // While more stamps are to be fetched nobody waits in vain.
            matcher.release(if look { i64::MIN } else { matcher.now_ns });
        }
        matcher.look_at_clocks();
        if matcher.absent {
            return (Drained::after(taken), 0);
        }
        let came = half.recv(|datagram| matcher.on_datagram(&datagram));
        matcher.open_staged();
        match came {
            Ok(count) => {
                patience.renew();
                taken += count;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => patience.renew(),
            Err(error) => match patience.after(&error, os::monotonic_ns()) {
                // A pending error of the socket: taken by this call, and told of by an event where
                // the system has a queue for it.
                Advice::Again => {
                    matcher.on_error(&error);
                    taken += 1;
                    look = true;
                }
                Advice::At(at) => return (Drained::Again(at), total + taken),
                Advice::GiveUp => {
                    let call = failed_call(half.receive_call(), &error);
                    return (Drained::Failed(call), total + taken);
                }
            },
        }
        total += taken;
        if taken == 0 {
            return (Drained::after(total), total);
        }
    }
    (Drained::More, total)
}

/// How a session ends, step by step.
struct Ending {
    timeout_ns: i64,
    loss_bound: Option<Fraction>,
    /// How many packets were answered when the last one was, and when that was seen.
    quiet: (u64, i64),
    /// Probes so far, and at most.
    asked: usize,
    most: usize,
    stop: Stop,
    /// Where probes are wished for, until no more are wanted.
    wishes: Option<Sender<Wish>>,
    step: Step,
}

enum Step {
    Sending,
    Missing { until: i64 },
    Lingering { until: i64 },
    Probing { index: usize, until: i64 },
}

impl Ending {
    fn new(plan: &Plan, wishes: &Sender<Wish>) -> Self {
        Self {
            timeout_ns: plan.timeout_ns,
            loss_bound: plan.loss_bound,
            quiet: (u64::MAX, 0),
            asked: 0,
            most: if plan.probes { PROBES } else { 0 },
            stop: plan.stop.clone(),
            wishes: Some(wishes.clone()),
            step: Step::Sending,
        }
    }

    /// The moment of the next step; `None`: the session is over.
    fn next(&mut self, matcher: &mut Matcher<'_>, now: i64) -> Option<i64> {
        let Some((sent, last)) = matcher.flight.finished() else {
            return Some(i64::MAX);
        };
        if let Step::Sending = self.step {
            let until = last.saturating_add(self.timeout_ns);
            self.step = Step::Missing { until };
        }
        if self.stopped(matcher.flight.interrupted()) {
            matcher.cut_short = true;
            return None;
        }
        if let Step::Missing { until } = self.step {
            // Those that were handed over left later, some time: their replies have as long.
            let left = matcher.left_ns.min(last.saturating_add(self.timeout_ns));
            let until = until.max(left.saturating_add(self.timeout_ns));
            if let Some(until) = self.missing(matcher, sent, until, now) {
                return Some(until);
            }
            let (least, most) = LINGER_NS;
            let wait = matcher.longest_ns.saturating_mul(2).clamp(least, most);
            let until = if sent == 0 { now } else { now + wait };
            self.step = Step::Lingering { until };
        }
        if let Step::Lingering { until } = self.step {
            if now < until {
                return Some(until);
            }
            // Where a bound of loss is all that matters, directions do not.
            let bounded = self.loss_bound.is_some();
            if matcher.answered() == 0 || bounded || matcher.tracker.settled(sent) {
                return None;
            }
            return self.ask(matcher, now);
        }
        if let Step::Probing { index, until } = self.step {
            if matcher.tracker.settled(sent) {
                return None;
            }
            if now < until && !matcher.probed[index] {
                return Some(until);
            }
            return self.ask(matcher, now);
        }
        None
    }

    /// Whether the wait is to end: asked for once more than what ended the departures. A trial that was
    /// interrupted says nothing, whatever comes.
    fn stopped(&self, interrupted: bool) -> bool {
        let before = u32::from(interrupted && self.loss_bound.is_none());
        self.stop.requests() > before
    }

    /// When to look again for replies that are missing; `None`: they are not waited for any longer.
    fn missing(
        &mut self,
        matcher: &mut Matcher<'_>,
        sent: u64,
        until: i64,
        now: i64,
    ) -> Option<i64> {
        let answered = matcher.answered();
        if answered >= sent || now >= until {
            return None;
        }
        // Whoever runs a trial hears that nobody is there, and decides.
        if answered == 0 && self.loss_bound.is_some() && matcher.facts.icmp.port_unreachable() {
            return None;
        }
        let passed = |bound: Fraction| bound.exceeded_by(sent - answered, sent);
        if answered == 0 || !self.loss_bound.is_some_and(passed) {
            return Some(until);
        }
        // A reflector that only rested answers a probe after everything before.
        if matcher.probed.contains(&true) {
            return None;
        }
        if self.quiet.0 != answered {
            self.quiet = (answered, now);
        }
        let quiet = matcher.longest_ns.saturating_mul(4).max(QUIET_NS);
        if now >= self.quiet.1.saturating_add(quiet) {
            if self.asked == self.most {
                return Some(until);
            }
            self.send_probe(matcher)?;
            self.quiet.1 = now;
        }
        Some(self.quiet.1.saturating_add(quiet).min(until))
    }

    fn send_probe(&mut self, matcher: &mut Matcher<'_>) -> Option<usize> {
        let index = self.asked;
        matcher.probing = true;
        self.wishes.as_ref()?.send(index).ok()?;
        self.asked += 1;
        Some(index)
    }

    fn ask(&mut self, matcher: &mut Matcher<'_>, now: i64) -> Option<i64> {
        if self.asked == self.most {
            self.wishes = None;
            return None;
        }
        let index = self.send_probe(matcher)?;
        let wait = matcher.longest_ns.saturating_mul(2);
        let until = now + wait.clamp(PROBE_NS, self.timeout_ns.max(PROBE_NS));
        self.step = Step::Probing { index, until };
        Some(until)
    }
}

/// Protected replies that wait to be opened, which costs less where it is done to several at once.
#[derive(Debug)]
struct Stage {
    protection: Protection,
    /// Replies without padding.
    replies: Vec<protected::ReflectorPacket>,
    /// For each the datagram without its octets, and how many it had.
    came: Vec<(Datagram<'static>, usize)>,
}

impl Stage {
    fn new(protection: Protection) -> Self {
        Self {
            protection,
            replies: Vec::with_capacity(STAGED),
            came: Vec::with_capacity(STAGED),
        }
    }

    /// Takes a reply; false where it is none.
    fn take(&mut self, datagram: &Datagram<'_>) -> bool {
        let mut reply = protected::ReflectorPacket::new_zeroed();
        let Some(fields) = datagram.octets.get(..protected::REFLECTOR_LEN) else {
            return false;
        };
        reply.as_mut_bytes().copy_from_slice(fields);
        self.replies.push(reply);
        let came = Datagram {
            octets: &[],
            segment: datagram.segment,
            truncated: datagram.truncated,
            facts_cut: datagram.facts_cut,
            arrived_ns: datagram.arrived_ns,
            ttl: datagram.ttl,
            tos: datagram.tos,
        };
        self.came.push((came, datagram.octets.len()));
        true
    }

    fn is_full(&self) -> bool {
        self.replies.len() == STAGED
    }
}

/// Matches replies and stamps with what was sent.
pub(super) struct Matcher<'a> {
    flight: ReceiverEnd<'a>,
    tracker: Tracker,
    pipe: Pipe<Sample, intervals::Counts>,
    tap: Option<Tap>,
    /// The counts of an interval that ends once so many replies have been recorded.
    mark: Option<(u64, intervals::Counts)>,
    copier: Option<Copier>,
    facts: Facts,
    timeout_ns: i64,
    first_seq: u32,
    format: Format,
    /// Of T2 and T3, and the replies that came before it was settled.
    time_format: TimeFormat,
    held: Held,
    monitored: bool,
    /// Octets that replies should have, by class.
    due: Vec<u64>,
    /// Where replies are protected.
    stage: Option<Box<Stage>>,
    begun_ns: i64,
    /// What left between then and `begun_ns` is of attempts before, and does not count.
    first_begun_ns: i64,
    /// The peer is not there yet, and what left does not count.
    absent: bool,
    /// The first answer came.
    any_answer: bool,
    hardware: bool,
    errors_queued: bool,
    /// For each granule of the window one more than its number, and the time of its transmit stamp; each
    /// stands in the place of the number of its first packet, without so many of its lowest bits.
    stamps: Vec<(u64, i64)>,
    stamp_shift: u32,
    /// ICMP errors that came by the queue for them.
    told: u64,
    waiting: Waiting,
    interval_ns: i64,
    /// When the newest of the packets that waited in this host left, by the monotonic clock.
    left_ns: i64,
    /// The longest time that a reply took.
    longest_ns: i64,
    probed: [bool; PROBES],
    /// The wait for the last replies was ended before its time.
    cut_short: bool,
    /// What comes from now on may be an answer to a probe, and is outside all counts.
    probing: bool,
    /// By the monotonic clock, as of the last look.
    now_ns: i64,
    own_clock: OwnClock,
    /// Packets below were under way when a clock was set: their delays are not known.
    step_below: u64,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(
        plan: &Plan,
        flight: ReceiverEnd<'a>,
        pipe: Pipe<Sample, intervals::Counts>,
    ) -> Self {
        let places = if plan.stamps { flight.granules() } else { 0 };
        let places = usize::try_from(places).expect("a window fits the address space");
        let begun_ns = os::realtime_ns();
        Self {
            flight,
            tracker: Tracker::counting_from(flight.window(), plan.first_seq),
            pipe,
            tap: None,
            mark: None,
            copier: None,
            facts: Facts::new(plan.payloads.len()),
            timeout_ns: plan.timeout_ns,
            first_seq: plan.first_seq,
            format: plan.format,
            time_format: TimeFormat::default(),
            held: Held::new(flight.window()),
            monitored: plan.test.monitored(),
            due: plan
                .payloads
                .iter()
                .map(|len| u64::try_from(plan.test.reply_len(*len)).unwrap_or(0))
                .collect(),
            stage: plan.protection.clone().map(|p| Box::new(Stage::new(p))),
            begun_ns,
            first_begun_ns: plan.first_begun_ns.unwrap_or(begun_ns),
            absent: false,
            any_answer: false,
            hardware: plan.hardware,
            errors_queued: plan.errors_queued,
            stamps: vec![NO_STAMP; places],
            stamp_shift: flight.granule_len(0).trailing_zeros(),
            told: 0,
            waiting: Waiting::new(if plan.stamps { flight.window() } else { 0 }),
            interval_ns: plan.interval_ns,
            left_ns: i64::MIN,
            longest_ns: 0,
            probed: [false; PROBES],
            cut_short: false,
            probing: false,
            now_ns: 0,
            own_clock: OwnClock::default(),
            step_below: 0,
        }
    }

    /// Whether the peer is found not to be there yet. The sender may ask: an answer may have been under way.
    fn is_absent(&mut self) -> bool {
        if self.flight.is_asked() {
            if self.answered() == 0 {
                self.absent = true;
            } else if !self.errors_queued {
                self.on_icmp(&Icmp::of_errno(libc::ECONNREFUSED));
            }
        }
        self.absent
    }

    /// Gives up this attempt.
    fn absent(mut self) -> Attempt {
        if let Some(tap) = &mut self.tap {
            tap.begin_anew();
        }
        Attempt::Absent(Box::new(Absent {
            begun_ns: self.first_begun_ns,
            last: self.any_answer,
            pipes: Pipes {
                samples: self.pipe,
                tap: self.tap,
                copier: self.copier,
            },
        }))
    }

    /// Packets that need not be waited for.
    pub(super) fn answered(&self) -> u64 {
        self.tracker.answered()
    }

    pub(super) fn on_event(&mut self, event: Event<'_>) {
        self.told += u64::from(matches!(event, Event::Icmp(_)));
        if self.flight.attempted() == 0 {
            // It is of an attempt before.
            return;
        }
        match event {
            Event::Departed { seq, ns } => self.on_stamp(seq, ns),
            Event::Icmp(icmp) if !self.probing => self.on_icmp(&icmp),
            Event::Stray { octets, from } => self.on_stray(octets, from),
            Event::Icmp(_) => {}
        }
    }

    /// Counts an ICMP error, unless it says that the peer is not there yet.
    ///
    /// A quirk of servers that open a session's test port only after they have answered
    /// Start-Sessions: the first packets meet a closed port.
    fn on_icmp(&mut self, icmp: &Icmp) {
        let early = icmp.message.is_port_unreachable() && self.flight.in_grace(os::monotonic_ns());
        if early && self.answered() == 0 {
            self.absent = true;
            return;
        }
        self.facts.icmp.note(icmp);
        if let Some(tap) = &mut self.tap {
            tap.icmp(icmp);
        }
    }

    /// Counts a datagram from somebody else than the peer.
    ///
    /// A quirk of servers with several addresses: their replies leave from the address that their
    /// routes choose, not from the one that was asked. RFC 5357 §4.2 wants the addresses swapped, and a
    /// reply from elsewhere proves nothing about the path to the peer, so it is not counted as one; but
    /// it is told apart from what strangers send.
    fn on_stray(&mut self, octets: &[u8], from: Option<SocketAddr>) {
        if self.answers_ours(octets) {
            self.ignore(Kind::Elsewhere);
            self.facts.elsewhere_from = self.facts.elsewhere_from.or(from);
        } else {
            self.ignore(Kind::Stranger);
        }
    }

    /// Whether octets are a reply to a packet that may be under way.
    fn answers_ours(&self, octets: &[u8]) -> bool {
        let ours = |head: &ReplyHead| {
            let attempted = self.flight.attempted();
            let number = head.sender_seq.get().wrapping_sub(self.first_seq);
            let seq = extend(number, attempted.saturating_sub(1));
            seq < attempted
                && attempted - seq <= self.flight.window()
                && [head.sender_timestamp, head.timestamp]
                    .map(Timestamp::raw)
                    .contains(&self.flight.t1(seq))
        };
        let Some(stage) = &self.stage else {
            return Reply::parse(octets).is_ok_and(|reply| ours(reply.head));
        };
        let mut packet = protected::ReflectorPacket::new_zeroed();
        let Some(fields) = octets.get(..protected::REFLECTOR_LEN) else {
            return false;
        };
        packet.as_mut_bytes().copy_from_slice(fields);
        let mut found = false;
        let octets = packet.as_mut_bytes();
        let step = octets.len();
        stage
            .protection
            .open::<protected::ReflectorPacket>(octets, step, |_, opened| {
                found = opened.is_ok_and(|packet| ours(&packet.plain().head));
            });
        found
    }

    fn on_error(&mut self, error: &io::Error) {
        // Where there is an error queue its entry has been, or will be, counted by `on_event`.
        if !self.errors_queued && !self.probing {
            self.on_icmp(&Icmp::of_errno(error.raw_os_error().unwrap_or(0)));
        }
    }

    /// Counts a datagram that is no reply to a packet of the session.
    fn ignore(&mut self, kind: Kind) {
        self.facts.ignored.note(kind, u64::from(!self.probing));
    }

    fn on_stamp(&mut self, seq: u32, ns: i64) {
        self.facts.stamps.back += 1;
        let attempted = self.flight.attempted();
        let mut first = extend(seq, attempted);
        let granules = usize::try_from(self.flight.granules()).unwrap_or(0);
        if self.stamps.len() < granules {
            self.make_room_for_stamps(granules);
        }
        self.note_wait(first, ns);
        // A train may have several granules; the stamp is of all of them, and of no other train.
        loop {
            let granule = self.flight.granule(first);
            let places = self.stamps.len();
            let len = self.flight.granule_len(first);
            self.stamps[place((first / len * len) >> self.stamp_shift, places)] = (granule + 1, ns);
            first += len;
            if first >= attempted || !self.flight.continues(first) {
                return;
            }
        }
    }

    /// Notes how long a packet or train waited in this host.
    fn note_wait(&mut self, seq: u64, left_ns: i64) {
        let t1 = Timestamp::from_raw(self.flight.t1(seq));
        let Some(t1_ns) = t1.unix_ns(self.format, left_ns).filter(|_| !self.hardware) else {
            return;
        };
        let before = self.facts.stamps.waits;
        if !self
            .facts
            .stamps
            .waits
            .note(t1_ns, left_ns, self.interval_ns)
        {
            return;
        }
        // It may be that our clock was set meanwhile.
        self.look_at_clocks();
        if seq < self.step_below {
            self.facts.stamps.waits = before;
        } else {
            self.left_ns = self.now_ns;
        }
    }

    /// Trains were refused: from now on packets have stamps of their own. It allocates, once a session,
    /// when the sender does so for what it notes.
    #[cold]
    fn make_room_for_stamps(&mut self, places: usize) {
        let before = std::mem::replace(&mut self.stamps, vec![NO_STAMP; places]);
        for (number, ns) in before.into_iter().filter(|stamp| *stamp != NO_STAMP) {
            // By its first packet: what comes next may have the same number as a granule of before.
            self.stamps[place((number - 1) << self.stamp_shift, places)] = (number, ns);
        }
        self.stamp_shift = 0;
    }

    /// Notices that the system's clock was set: then the delays of all packets under way are wrong.
    fn look_at_clocks(&mut self) {
        let (before, wall) = (os::monotonic_ns(), os::realtime_ns());
        self.now_ns = before;
        if let Some(step) = self.own_clock.read(before, wall, os::monotonic_ns()) {
            self.step_below = self.flight.attempted();
            self.facts.note_own_step(step);
        }
    }

    pub(super) fn on_datagram(&mut self, datagram: &Datagram<'_>) {
        let step = match datagram.segment {
            Some(step) if step > 0 => step,
            _ if self.stage.is_some() => return self.on_protected(datagram),
            _ => {
                self.on_plain(datagram, datagram.octets.len(), 1);
                return;
            }
        };
        if self.stage.is_some() {
            for octets in datagram.octets.chunks(step) {
                self.on_protected(&Datagram {
                    octets,
                    ..*datagram
                });
            }
            return;
        }
        let mut rest = datagram.octets;
        // How many of the first ones of the rest are known to be one run.
        let mut run = 0;
        // The run is not the usual: its replies are taken one by one.
        let mut singly = false;
        while !rest.is_empty() {
            let octets = &rest[..step.min(rest.len())];
            if run == 0 {
                (run, singly) = (1, false);
                if rest.len() > step && self.copier.is_none() {
                    run = run_of_replies(rest, step, self.monitored);
                }
            }
            let one = Datagram {
                octets,
                ..*datagram
            };
            let taken = self.on_plain(&one, octets.len(), if singly { 1 } else { run });
            singly |= taken < run && taken == 1;
            run -= taken;
            rest = &rest[octets.len() * taken..];
        }
    }

    fn on_protected(&mut self, datagram: &Datagram<'_>) {
        let stage = self.stage.as_mut();
        let taken = !datagram.truncated && stage.is_some_and(|stage| stage.take(datagram));
        if !taken {
            self.ignore(if datagram.truncated {
                Kind::Truncated
            } else {
                Kind::TooShort
            });
        }
        if self.stage.as_ref().is_some_and(|stage| stage.is_full()) {
            self.open_staged();
        }
    }

    /// Takes the protected replies that wait; to be called before anything else is waited for.
    pub(super) fn open_staged(&mut self) {
        let Some(mut stage) = self.stage.take() else {
            return;
        };
        let Stage {
            protection,
            replies,
            came,
        } = &mut *stage;
        if !replies.is_empty() {
            let step = protected::REFLECTOR_LEN;
            protection.open::<protected::ReflectorPacket>(
                replies.as_mut_bytes(),
                step,
                |place, opened| self.on_opened(&came[place], opened),
            );
            replies.clear();
            came.clear();
        }
        self.stage = Some(stage);
    }

    fn on_opened(
        &mut self,
        (datagram, len): &(Datagram<'_>, usize),
        opened: Result<&protected::ReflectorPacket, Refused>,
    ) {
        match opened {
            Ok(packet) => {
                let mut octets = [0; REFLECTOR_LEN + 1];
                octets[..REFLECTOR_LEN].copy_from_slice(packet.plain().as_bytes());
                octets[REFLECTOR_LEN] = packet.sender_tos;
                let octets = &octets;
                let datagram = Datagram {
                    octets,
                    ..*datagram
                };
                self.on_plain(&datagram, *len, 1);
            }
            Err(Refused::Forged) => self.ignore(Kind::Forged),
            Err(Refused::TooShort(_)) => self.ignore(Kind::TooShort),
        }
    }

    /// Whether the first answer of all, to packet `seq`, only says that the peer is there now: where
    /// it was not before, the packets in front of this one met a closed port, although not each of
    /// them was refused (systems send few ICMP errors a second). Another attempt begins, the last one.
    #[cold]
    fn comes_too_soon(&mut self, seq: u64) -> bool {
        let was_refused = self.first_begun_ns < self.begun_ns;
        let early = self.flight.in_grace(os::monotonic_ns());
        self.absent |= was_refused && seq > 0 && early;
        self.any_answer = true;
        self.absent
    }

    /// A reply of the peer that is none to a packet under way: forged, to one that somebody else sent from
    /// our address, or to one that was withdrawn. With T1 of a packet of ours it is the reply to that one,
    /// whose number was spoiled.
    #[cold]
    fn no_answer(&mut self, head: &ReplyHead, kind: Kind) {
        let t1 = head.sender_timestamp;
        if self.was_withdrawn(t1) {
            return;
        }
        self.ignore(kind);
        if t1.raw() != 0 && !self.is_our_t1(t1.raw()) {
            self.tracker.on_other(head.seq.get());
        }
    }

    /// Whether a packet of the window, or a probe, has this T1, as far as our clock was not set back meanwhile.
    fn is_our_t1(&self, t1: u64) -> bool {
        let attempted = self.flight.attempted();
        let mut from = attempted.saturating_sub(self.flight.window());
        let mut to = attempted;
        while from < to {
            let middle = from.midpoint(to);
            if self.flight.t1(middle) < t1 {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from < attempted && self.flight.t1(from) == t1 || self.flight.probe(t1).is_some()
    }

    /// A reply with the number of a packet under way, which had another T1. Where that packet is
    /// unanswered and the two are of one second, it is the reply to that packet, spoiled on the way.
    #[cold]
    fn wrong_t1(&mut self, seq: u64, head: &ReplyHead) {
        let second = |raw: u64| raw >> 32;
        let t1 = head.sender_timestamp;
        let near = second(self.flight.t1(seq)) == second(t1.raw());
        if !near || self.tracker.in_time(seq) {
            self.no_answer(head, Kind::OtherT1);
        } else if !self.was_withdrawn(t1) {
            self.ignore(Kind::OtherT1);
        }
    }

    fn was_withdrawn(&self, t1: Timestamp) -> bool {
        self.first_begun_ns < self.begun_ns
            && t1
                .unix_ns(self.format, self.begun_ns)
                .is_some_and(|t1| (self.first_begun_ns..self.begun_ns).contains(&t1))
    }

    /// Whether a reply to packet `seq` has T1 and T3 in each other's place: a quirk of some reflectors,
    /// which prove it by a T3 that is our T1 to the last bit.
    #[cold]
    fn exchanged(&self, seq: u64, head: &ReplyHead) -> bool {
        let t3 = head.timestamp.raw();
        self.flight.t1(seq) == t3 || self.flight.probe(t3).is_some()
    }

    /// An unauthenticated reply, or the fields of a protected one as it would have them; the datagram
    /// had `len` octets. It is the first one of a run of `run` (see [`run_of_replies`]): returns how many
    /// of them were taken with it.
    fn on_plain(&mut self, datagram: &Datagram<'_>, len: usize, run: usize) -> usize {
        if let Some(copier) = &mut self.copier {
            copier.copy(datagram.octets, len, os::monotonic_ns());
        }
        let attempted = self.flight.attempted();
        let parsed = if self.monitored {
            Reply::parse_monitored(datagram.octets)
        } else {
            Reply::parse(datagram.octets)
        };
        let reply = match parsed {
            Ok(reply) if !datagram.truncated => reply,
            Ok(_) => {
                self.ignore(Kind::Truncated);
                return 1;
            }
            Err(TooShort { .. }) => {
                self.ignore(Kind::TooShort);
                return 1;
            }
        };
        let t1 = reply.head.sender_timestamp;
        if attempted == 0 {
            self.no_answer(reply.head, Kind::UnknownNumber);
            return 1;
        }
        let number = reply.head.sender_seq.get().wrapping_sub(self.first_seq);
        let seq = extend(number, attempted - 1);
        if seq >= attempted {
            self.no_answer(reply.head, Kind::UnknownNumber);
            return 1;
        }
        if let Some(tap) = &mut self.tap {
            tap.sweep_below(
                attempted
                    .saturating_sub(self.flight.window())
                    .min(self.flight.departed()),
                &self.tracker,
            );
        }
        self.tracker.make_room(attempted);
        if attempted - seq > self.flight.window() {
            self.on_forgotten(seq, &reply, attempted);
            return 1;
        }
        let exchanged = self.flight.t1(seq) != t1.raw() && self.exchanged(seq, reply.head);
        let head = exchanged.then(|| reply.head.exchanged());
        let reply = Reply {
            head: head.as_ref().unwrap_or(reply.head),
            ..reply
        };
        let t1 = reply.head.sender_timestamp;
        if self.flight.t1(seq) != t1.raw() {
            match self.flight.probe(t1.raw()) {
                Some(index)
                    if self
                        .flight
                        .finished()
                        .is_some_and(|(sent, _)| seq + 1 == sent) =>
                {
                    self.probed[index] = true;
                    let index = u64::try_from(index).unwrap_or(0);
                    self.tracker.on_probe(index, reply.head.seq.get());
                }
                _ => self.wrong_t1(seq, reply.head),
            }
            return 1;
        }
        // Nothing was answered before.
        if self.tracker.received() == 0 && self.comes_too_soon(seq) {
            return 1;
        }
        let arrived = datagram.arrived_ns;
        let near = arrived.filter(|_| !self.hardware);
        let near = near.unwrap_or_else(os::realtime_ns);
        // In our own format, whatever became of the Z bit of our Error Estimate on its way.
        let t1_ns = t1.unix_ns(self.format, near);
        let took = t1_ns.map_or(0, |t1| near.saturating_sub(t1));
        let stepped = seq < self.step_below;
        let long = !stepped && took > self.timeout_ns;
        let late = long && self.took_too_long(seq, near);
        let reflector_seq = reply.head.seq.get();
        let taken = if run == 1 || long || stepped {
            1
        } else {
            let most = u64::try_from(run).unwrap_or(1).min(attempted - seq);
            self.flight.together(seq, most)
        };
        let taken = if taken > 1 && self.tracker.on_run(seq, reflector_seq, taken) {
            taken
        } else {
            let arrival = self.tracker.on_reply(seq, reflector_seq, late);
            if arrival != Arrival::First {
                self.further(seq, arrival);
                return 1;
            }
            if long && let Some(tap) = &mut self.tap {
                tap.came_after_all(seq);
            }
            1
        };
        let answer = Answer {
            seq,
            reflector_seq,
            count: u16::try_from(taken).unwrap_or(1),
            t1_ns,
            near,
            stepped,
        };
        self.facts.times.exchanged += if exchanged { taken } else { 0 };
        self.longest_ns = if stepped {
            self.longest_ns
        } else {
            self.longest_ns.max(took)
        };
        self.on_answer(datagram, len, &reply, &answer);
        answer.count.into()
    }

    /// Whether a reply to a packet that was handed over longer ago than the timeout comes too late: not, if
    /// the packet is known to have left later.
    #[cold]
    fn took_too_long(&self, seq: u64, near: i64) -> bool {
        let (_, stamped) = self.flight.class(seq);
        let left = || stamp_of(self.flight, &self.stamps, self.stamp_shift, seq);
        let left = Some(())
            .filter(|()| stamped && !self.hardware)
            .and_then(|()| left());
        left.is_none_or(|left| near.saturating_sub(left) > self.timeout_ns)
    }

    /// A reply to a packet whose T1 is no longer known: one, if it can be of this session at all, that
    /// came too late, or not alone.
    #[cold]
    fn on_forgotten(&mut self, seq: u64, reply: &Reply<'_>, attempted: u64) {
        let now = os::realtime_ns();
        let t1 = reply.head.sender_timestamp;
        let left = |t1: Timestamp| t1.unix_ns(self.format, now);
        // It left before all those whose T1 is known.
        let oldest = self.flight.t1(attempted - self.flight.window());
        let until = left(Timestamp::from_raw(oldest)).unwrap_or(now);
        if left(t1).is_some_and(|t1| (self.begun_ns..=until).contains(&t1)) {
            let arrival = self.tracker.on_reply(seq, reply.head.seq.get(), true);
            self.further(seq, arrival);
        } else {
            self.no_answer(reply.head, Kind::OtherT1);
        }
    }

    /// A reply that is not the first one in time to its packet.
    #[cold]
    fn further(&mut self, seq: u64, arrival: Arrival) {
        match (arrival, &mut self.tap) {
            (Arrival::Late, Some(tap)) => tap.late(seq),
            (Arrival::Duplicate, Some(tap)) => tap.duplicate(seq),
            (_, _) => {}
        }
    }

    /// The first reply in time to a packet, or those to several that left and came together.
    fn on_answer(
        &mut self,
        datagram: &Datagram<'_>,
        len: usize,
        reply: &Reply<'_>,
        answer: &Answer,
    ) {
        let Answer {
            seq, count, near, ..
        } = *answer;
        let packets = u64::from(count);
        let (class, stamped) = self.flight.class(seq);
        self.facts.sizes.by_class[usize::from(class)] += packets;
        self.facts.note(datagram, len, reply, packets);
        let due = self.due.get(usize::from(class)).copied().unwrap_or(0);
        self.facts.sizes.octets += u64::try_from(len).unwrap_or(0) * packets;
        self.facts.sizes.due_octets += due * packets;
        if answer.stepped {
            self.facts.times.rejected += packets;
            return self.unusable(answer);
        }
        if tells_no_time(reply.head) {
            self.facts.times.untold += packets;
            return self.unusable(answer);
        }
        let Some(t1_ns) = answer.t1_ns else {
            self.facts.times.rejected += packets;
            return self.unusable(answer);
        };
        let told = Told {
            answer: *answer,
            class,
            stamped,
            t1_ns,
            t2: reply.head.receive_timestamp,
            t3: reply.head.timestamp,
            claimed: reply.head.error_estimate.format(),
            t4_ns: datagram.arrived_ns,
        };
        match self.time_format.look(reply.head, t1_ns, near) {
            Some(reading) => {
                self.release_held(reading);
                self.on_told(&told, reading);
            }
            None => {
                if !self.held.hold(told) {
                    self.settle_format();
                }
            }
        }
    }

    /// Nothing more is waited for to find out the format of T2 and T3.
    #[cold]
    fn settle_format(&mut self) {
        if let Some(reading) = self.time_format.settle() {
            self.release_held(reading);
        }
    }

    /// Takes the replies that waited for the format of T2 and T3.
    #[inline]
    fn release_held(&mut self, reading: Reading) {
        if self.held.is_empty() {
            return;
        }
        for told in self.held.take() {
            self.on_told(&told, reading);
        }
    }

    /// A reply whose T2 and T3 can be read.
    fn on_told(&mut self, told: &Told, reading: Reading) {
        let Told {
            ref answer,
            class,
            stamped,
            t1_ns,
            ..
        } = *told;
        let Answer {
            seq, count, near, ..
        } = *answer;
        let packets = u64::from(count);
        let times = told.t2.read(reading, near).zip(told.t3.read(reading, near));
        let Some((t2_ns, t3_ns)) = times else {
            self.facts.times.rejected += packets;
            return self.unusable(answer);
        };
        if is_of_another(told.t2, told.t3, (t2_ns, t3_ns), near) {
            self.facts.times.misread += packets;
            return self.unusable(answer);
        }
        self.facts.times.other_format += if claims_other(reading, told.claimed) {
            packets
        } else {
            0
        };
        let Some(t4_ns) = told.t4_ns else {
            self.facts.times.unstamped += packets;
            return self.unusable(answer);
        };
        let mut sample = Sample {
            seq,
            t1_ns,
            t1_stamp_ns: None,
            t2_ns,
            t3_ns,
            t4_ns,
            size_class: class,
            count,
        };
        if stamped {
            sample.t1_stamp_ns = stamp_of(self.flight, &self.stamps, self.stamp_shift, seq);
        }
        self.pass_on(waiting::Reply {
            sample,
            reflector_seq: answer.reflector_seq,
            wants_stamp: stamped && !self.stamps.is_empty() && sample.t1_stamp_ns.is_none(),
        });
    }

    fn unusable(&mut self, answer: &Answer) {
        if let Some(tap) = &mut self.tap {
            for (seq, reflector_seq) in answer.numbers() {
                tap.unusable(seq, reflector_seq);
            }
        }
    }

    /// Has a reply recorded in its turn.
    fn pass_on(&mut self, reply: waiting::Reply) {
        if self.waiting.is_empty() && !reply.wants_stamp {
            return self.record(&reply);
        }
        if !self.waiting.has_room() {
            self.release(i64::MAX);
        }
        self.waiting.push(reply, self.now_ns);
    }

    /// Records the replies that need not wait any longer at `now`, by the monotonic clock.
    fn release(&mut self, now: i64) {
        loop {
            let (flight, stamps, shift) = (self.flight, &self.stamps, self.stamp_shift);
            let stamp = |sample: &Sample| stamp_of(flight, stamps, shift, sample.seq);
            let Some(reply) = self.waiting.next(now, stamp) else {
                break;
            };
            self.record(&reply);
            self.end_interval();
        }
        self.flight.set_stamps_lost(self.waiting.lost());
    }

    /// Ends an interval of which all replies have been recorded; without room it is tried again.
    fn end_interval(&mut self) {
        if let Some((behind, counts)) = self.mark
            && self.waiting.passed() >= behind
        {
            let unrecorded = self.pipe.unrecorded();
            let told = self.pipe.try_mark(intervals::Counts {
                unrecorded,
                synchronised: self.facts.estimates.synchronised() == Some(true),
                ..counts
            });
            if told {
                self.mark = None;
            }
        }
    }

    fn record(&mut self, reply: &waiting::Reply) {
        self.pipe.push(reply.sample);
        let synchronised = self.facts.estimates.synchronised() == Some(true);
        let Some(tap) = &mut self.tap else {
            return;
        };
        for n in 0..reply.sample.count {
            let one = Sample {
                seq: reply.sample.seq + u64::from(n),
                count: 1,
                ..reply.sample
            };
            tap.reply(
                one,
                reply.reflector_seq.wrapping_add(n.into()),
                synchronised,
            );
        }
    }

    pub(super) fn flush(&mut self) {
        if self.held.overdue(os::realtime_ns()) && !self.time_format.is_worth_a_wait() {
            self.settle_format();
        }
        self.pipe.flush();
        if let Some(tap) = &mut self.tap {
            tap.flush();
        }
    }

    /// Lets the tap look at timeouts; returns when it wants to look again.
    fn tick(&mut self, now: i64, looked_ns: i64) -> i64 {
        let Some(tap) = &mut self.tap else {
            return i64::MAX;
        };
        let ended = tap.tick(now, looked_ns, self.flight, &mut self.tracker);
        if let (None, Some(counts)) = (&self.mark, ended) {
            tap.ended(&counts);
            self.mark = Some((self.waiting.pushed(), counts));
        }
        let due = tap.due(now);
        self.end_interval();
        if self.mark.is_some() {
            // It waits for replies or for room, and is looked for again soon.
            return due.max(now + MARK_NS);
        }
        due
    }

    fn finish(
        mut self,
        sent: u64,
        kernel_drops: Option<u64>,
        cpus: Option<Vec<usize>>,
    ) -> Received {
        self.settle_format();
        self.facts.times.belief = self.time_format.belief();
        self.facts.times.readings.extend(self.time_format.known());
        self.release(i64::MAX);
        self.facts.stamps.lost = self.waiting.lost();
        self.facts.sizes.of_replies.sort_unstable();
        let due = if self.cut_short { self.due(sent) } else { sent };
        if let Some(tap) = &mut self.tap {
            tap.sweep_below(due, &self.tracker);
        }
        let counts = self.tracker.cut_short(sent, due);
        let last = self.tap.and_then(|tap| tap.finish(sent, &counts));
        let unrecorded = self.pipe.unrecorded();
        let last = last.map(|last| intervals::Counts {
            unrecorded,
            synchronised: self.facts.estimates.synchronised() == Some(true),
            ..last
        });
        Received {
            counts,
            facts: self.facts,
            kernel_drops,
            unrecorded: self.pipe.finish(last),
            cpus,
            refused_call: None,
            failure: None,
            cut_short: self.cut_short,
        }
    }

    /// The first of the packets whose timeout has not passed, when `sent` packets were sent.
    fn due(&self, sent: u64) -> u64 {
        let now = os::realtime_ns();
        let low = sent.saturating_sub(self.flight.window());
        let under_way = |seq: &u64| {
            let t1 = Timestamp::from_raw(self.flight.t1(*seq));
            let t1 = t1.unix_ns(self.format, now);
            t1.is_some_and(|t1| now.saturating_sub(t1) <= self.timeout_ns)
        };
        (low..sent)
            .rev()
            .take_while(under_way)
            .last()
            .unwrap_or(sent)
    }
}

/// The transmit stamp of a packet, as far as it is known.
#[inline]
fn stamp_of(flight: ReceiverEnd<'_>, stamps: &[(u64, i64)], shift: u32, seq: u64) -> Option<i64> {
    let (granule, len) = (flight.granule(seq), flight.granule_len(seq));
    let (of, ns) = *stamps.get(place((seq / len * len) >> shift, stamps.len()))?;
    (of == granule + 1).then_some(ns)
}

/// How many of the first replies of a bundle, of `step` octets each, differ in their numbers alone, and
/// these go on from one to the next: all that is told of the first one is then true of all. At least 1.
#[inline]
fn run_of_replies(bundle: &[u8], step: usize, monitored: bool) -> usize {
    let told = REFLECTOR_LEN + usize::from(monitored);
    let Some(first) = bundle.get(..told.min(step)) else {
        return 1;
    };
    let Some(head) = first.first_chunk::<REFLECTOR_LEN>() else {
        return 1;
    };
    let (numbers, rest) = (number_at(head, SEQ_AT), number_at(head, SENDER_SEQ_AT));
    let mut expected = (numbers, rest);
    let mut run = 0;
    for octets in bundle.chunks_exact(step) {
        let Some(one) = octets.first_chunk::<REFLECTOR_LEN>() else {
            break;
        };
        let alike = one[SEQ_AT + 4..SENDER_SEQ_AT] == head[SEQ_AT + 4..SENDER_SEQ_AT]
            && one[SENDER_SEQ_AT + 4..] == head[SENDER_SEQ_AT + 4..]
            && octets.get(REFLECTOR_LEN..told) == first.get(REFLECTOR_LEN..told)
            && (number_at(one, SEQ_AT), number_at(one, SENDER_SEQ_AT)) == expected;
        if !alike || run == MOST_RUN {
            break;
        }
        run += 1;
        expected = (expected.0.wrapping_add(1), expected.1.wrapping_add(1));
    }
    run.max(1)
}

#[inline]
fn number_at(reply: &[u8; REFLECTOR_LEN], at: usize) -> u32 {
    let octets = reply[at..].first_chunk();
    octets.map_or(0, |octets| u32::from_be_bytes(*octets))
}

/// Of a power of two places.
fn place(seq: u64, places: usize) -> usize {
    let mask = u64::try_from(places).unwrap_or(0).saturating_sub(1);
    debug_assert_eq!(mask.wrapping_add(1) & mask, 0);
    usize::try_from(seq & mask).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::config::{IoKind, ReflectorConfig, SocketOptions, WatchConfig};
    use crate::engine::flight::Flight;
    use crate::engine::flight::Grace;
    use crate::engine::intervals::Begun;
    use crate::engine::live::{self, tap};
    use crate::engine::reflector::train::stamp;
    use crate::engine::reflector::{Answer, Reflector};
    use crate::io::Request;
    use crate::sample::pipe;
    use crate::stats::delay::Delays;
    use crate::wire::{ErrorEstimate, SenderPacket};

    /// When the pretended session begins; one packet a microsecond.
    const BEGIN_NS: i64 = 1_790_000_000_500_000_000;
    const TIMEOUT_NS: i64 = 1_000_000_000;

    fn plan(stamps: bool) -> Plan {
        Plan {
            timeout_ns: TIMEOUT_NS,
            loss_bound: None,
            probes: true,
            stop: Stop::default(),
            first_seq: 0,
            format: Format::Ntp,
            test: TestFormat::LIGHT,
            protection: None,
            payloads: vec![41],
            stamps,
            hardware: false,
            interval_ns: 0,
            errors_queued: true,
            gather_ns: 0,
            cpu: None,
            realtime: false,
            first_begun_ns: None,
        }
    }

    fn reflector(stateless: bool, format: Format) -> Reflector {
        Reflector::new(&ReflectorConfig {
            listen: Vec::new(),
            allow: Vec::new(),
            stateless,
            session_timeout_ns: 0,
            dscp: None,
            format,
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
        })
    }

    fn request(flight: &Flight, seq: u64, t1_ns: i64, stamped: bool) -> Vec<u8> {
        let t1 = Timestamp::from_unix_ns(t1_ns, Format::Ntp);
        flight.sender().note(seq, 1, t1.raw(), 0, stamped);
        flight.sender().attempt(seq + 1);
        let packet = SenderPacket {
            seq: u32::try_from(seq & u64::from(u32::MAX)).unwrap().into(),
            timestamp: t1,
            error_estimate: ErrorEstimate::UNKNOWN,
        };
        let mut octets = packet.as_bytes().to_vec();
        octets.resize(41, 0x5a);
        octets
    }

    /// What a reflector makes of a request that arrives at `t2_ns`, and answers 500 ns later.
    fn reply(reflector: &mut Reflector, octets: &[u8], t2_ns: i64, format: Format) -> Vec<u8> {
        let mut slot = octets.to_vec();
        slot.resize(2048, 0xa5);
        let mut request = Request {
            slot: &mut slot,
            len: octets.len(),
            segment: None,
            truncated: false,
            facts_cut: false,
            from: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 5000))),
            to: Some(Ipv4Addr::LOCALHOST.into()),
            to_many: false,
            arrived_ns: Some(t2_ns),
            ttl: Some(250),
            tos: Some(0xb9),
        };
        let Answer { len, tos, .. } = reflector.reflect(&mut request, 1).unwrap();
        assert_eq!(tos, 0xb8, "DSCP comes back, ECN does not");
        stamp(&mut slot, Timestamp::from_unix_ns(t2_ns + 500, format));
        slot.truncate(len);
        slot
    }

    fn arrive(matcher: &mut Matcher<'_>, octets: &[u8], t4_ns: i64) {
        matcher.on_datagram(&Datagram {
            octets,
            segment: None,
            truncated: false,
            facts_cut: false,
            arrived_ns: Some(t4_ns),
            ttl: Some(64),
            tos: Some(0),
        });
    }

    /// A session over a path in memory: seeded loss, copies and reordering, and a clock of its own.
    fn session(seed: u64, packets: u64, out_loss: f64, in_loss: f64, format: Format) {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let flight = Flight::new(packets, 0);
        let (samples, blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        let mut mirror = reflector(false, format);
        let mut replies = Vec::new();
        let (mut lost_out, mut lost_in, mut copies) = (0, 0, 0);
        for seq in 0..packets {
            let t1 = BEGIN_NS + i64::try_from(seq).unwrap() * 1000;
            let octets = request(&flight, seq, t1, false);
            if rng.random_bool(out_loss) {
                lost_out += 1;
                continue;
            }
            let octets = reply(&mut mirror, &octets, t1 + 10_000, format);
            if rng.random_bool(in_loss) {
                lost_in += 1;
                continue;
            }
            let t4 = t1 + 30_000 + rng.random_range(0..3000);
            if rng.random_bool(0.05) {
                copies += 1;
                replies.push((t4 + 100, octets.clone()));
            }
            replies.push((t4, octets));
        }
        replies.sort();
        for (t4, octets) in &replies {
            arrive(&mut matcher, octets, *t4);
        }
        flight.sender().finish(packets, 0);
        // The probes that follow a session: one answer alone may repeat the last number by chance, where
        // that packet was the only one lost outbound.
        for index in 0..2_usize {
            let t1 = BEGIN_NS + 2_000_000_000 + i64::try_from(index).unwrap() * 1000;
            let raw = Timestamp::from_unix_ns(t1, Format::Ntp).raw();
            let last = request(&Flight::new(packets, 0), packets - 1, t1, false);
            flight.sender().note_probe(index, raw);
            let last = reply(&mut mirror, &last, t1 + 10, format);
            arrive(&mut matcher, &last, t1 + 20);
        }

        let received = matcher.finish(packets, None, None);
        let counts = &received.counts;
        let found = counts.directions.unwrap();
        assert_eq!(counts.received, packets - lost_out - lost_in);
        assert_eq!(
            (found.lost_outbound, found.lost_inbound),
            (lost_out, lost_in)
        );
        assert_eq!(
            (counts.duplicates, found.duplicates_inbound),
            (copies, copies)
        );
        assert_eq!(found.reordered_outbound, 0);
        assert_eq!(received.facts.ignored.total(), 0);
        let mut delays = Delays::new(1, false);
        while blocks.next(|block, _| delays.record(block)) {}
        let report = delays.report();
        assert_eq!(delays.recorded(), counts.received);
        let outbound = report.outbound.unwrap();
        assert_eq!((outbound.min, outbound.max), (10_000, 10_000));
        let roundtrip = report.roundtrip.unwrap();
        assert!(
            (29_500..33_500).contains(&roundtrip.min),
            "{}",
            roundtrip.min
        );
    }

    /// A receiving half of which nothing is known but what its calls say.
    struct Faulty<F> {
        calls: u32,
        say: F,
    }

    impl<F: FnMut(u32) -> io::Result<usize>> ReceiveHalf for Faulty<F> {
        fn recv(&mut self, _: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
            self.calls += 1;
            (self.say)(self.calls)
        }

        fn events(&mut self, _: impl FnMut(Event<'_>)) -> usize {
            0
        }

        fn take_bundles(&mut self) {}

        fn register(&mut self, _: &mio::Registry, _: Token) -> io::Result<()> {
            Ok(())
        }

        fn deregister(&mut self, _: &mio::Registry) {}

        fn kernel_drops(&self) -> Option<u64> {
            None
        }
    }

    /// Runs a receiver whose calls say this, for a session of one packet; also says how many calls it
    /// made, and whether it then told the sender to stop.
    fn run_with(say: impl FnMut(u32) -> io::Result<usize>) -> (Received, u32, bool) {
        run_for(3_000_000_000, say)
    }

    fn run_for(
        timeout_ns: i64,
        say: impl FnMut(u32) -> io::Result<usize>,
    ) -> (Received, u32, bool) {
        let flight = Flight::new(64, 0);
        flight.sender().attempt(1);
        let mut half = Faulty { calls: 0, say };
        let (samples, _blocks) = pipe();
        let (wishes, _wanted) = crossbeam_channel::bounded(8);
        let short = Plan {
            timeout_ns,
            ..plan(false)
        };
        let live = Live::default();
        flight.sender().finish(1, os::monotonic_ns());
        let pipes = Pipes {
            samples,
            tap: None,
            copier: None,
        };
        let attempt = run(
            &mut half,
            &short,
            flight.receiver(),
            &live,
            pipes,
            drop,
            &wishes,
        );
        let Attempt::Over(received) = attempt.unwrap() else {
            panic!("there is no grace");
        };
        (*received, half.calls, flight.sender().is_abandoned())
    }

    #[test]
    fn a_call_that_fails_for_good_ends_the_receiver_and_not_a_core() {
        use nix::errno::Errno;

        let at_once = RefusedCall {
            call: "recvmsg",
            errno: libc::ENOSYS,
        };
        for (from_call, error, told_by) in [
            (1, None, at_once),
            (
                50,
                Some(Errno::EIO),
                RefusedCall {
                    call: "recv",
                    errno: libc::EIO,
                },
            ),
            (
                50,
                Some(Errno::EHOSTUNREACH),
                RefusedCall {
                    call: "recv",
                    errno: libc::EHOSTUNREACH,
                },
            ),
        ] {
            let (received, calls, abandoned) = run_with(|call| match error {
                _ if call < from_call => Ok(1),
                Some(errno) => Err(errno.into()),
                None => Err(at_once.into()),
            });
            assert_eq!(received.failure, Some(told_by));
            assert!(abandoned);
            // One a millisecond for a second, and some at once.
            assert!(calls < 3000, "{calls} calls for {told_by}");
        }
    }

    #[test]
    fn a_session_that_ends_while_its_call_fails_has_failed() {
        use nix::errno::Errno;

        // Between two calls that find nothing it waits.
        for from_call in [1, 2] {
            let (received, _, abandoned) = run_for(100_000_000, |call| match call {
                _ if call < from_call => Err(Errno::EAGAIN.into()),
                _ => Err(Errno::EIO.into()),
            });
            let failure = received.failure.map(|call| call.errno);
            assert_eq!((failure, abandoned), (Some(libc::EIO), false));
        }
    }

    #[test]
    fn a_call_that_fails_for_a_moment_ends_nothing() {
        use nix::errno::Errno;

        let (received, calls, abandoned) = run_with(|call| match call {
            1..20 => Ok(1),
            20..25 => Err(Errno::ENOMEM.into()),
            _ => Err(Errno::EAGAIN.into()),
        });
        assert_eq!((received.failure, abandoned), (None, false));
        assert!((25..3000).contains(&calls), "{calls}");
        assert_eq!(received.facts.icmp.total(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn counts_and_delays_are_what_the_path_did(
            seed: u64, packets in 100_u64..2000, out_loss in 0.0..0.2, in_loss in 0.0..0.2, ptp: bool,
        ) {
            session(seed, packets, out_loss, in_loss, if ptp { Format::Ptp } else { Format::Ntp });
        }

        #[test]
        fn any_octets_are_counted_and_change_no_figure(
            noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..20),
        ) {
            let flight = Flight::new(64, 0);
            let (samples, _blocks) = pipe();
            let mut matcher = Matcher::new(&plan(true), flight.receiver(), samples);
            request(&flight, 0, BEGIN_NS, false);
            for octets in &noise {
                arrive(&mut matcher, octets, BEGIN_NS + 5);
            }
            let received = matcher.finish(1, None, None);
            prop_assert_eq!(received.facts.ignored.total(), noise.len() as u64);
            prop_assert_eq!(received.counts.received, 0);
        }

        #[test]
        fn a_reflector_takes_any_octets(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut slot = octets.clone();
            slot.resize(512, 0);
            let mut request = Request {
                slot: &mut slot,
                len: octets.len(),
                segment: None,
                truncated: false,
                facts_cut: false,
                from: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 5000))),
                to: None,
                to_many: false,
                arrived_ns: None,
                ttl: None,
                tos: None,
            };
            let mut mirror = reflector(true, Format::Ntp);
            match mirror.reflect(&mut request, 1) {
                Ok(answer) => {
                    prop_assert!(octets.len() >= 14);
                    prop_assert_eq!(answer.len, octets.len().max(41));
                    prop_assert_eq!(&slot[..4], &octets[..4], "stateless");
                    prop_assert_eq!(&slot[24..38], &octets[..14]);
                    prop_assert_eq!(&slot[41..answer.len], &octets[14..answer.len - 27]);
                }
                Err(_) => prop_assert!(octets.len() < 14),
            }
        }
    }

    #[test]
    fn a_stamp_finds_its_sample_whether_it_comes_before_or_after() {
        let flight = Flight::new(64, 0);
        let (samples, blocks) = pipe();
        let mut matcher = Matcher::new(&plan(true), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        for (seq, stamp_first) in [(0, true), (1, false), (2, true)] {
            let t1 = BEGIN_NS + i64::try_from(seq).unwrap() * 1000;
            let octets = request(&flight, seq, t1, true);
            let octets = reply(&mut mirror, &octets, t1 + 10, Format::Ntp);
            let event = Event::Departed {
                seq: u32::try_from(seq).unwrap(),
                ns: t1 + 3,
            };
            if stamp_first {
                matcher.on_event(event);
            }
            arrive(&mut matcher, &octets, t1 + 1000);
            if !stamp_first {
                matcher.on_event(event);
            }
        }
        let received = matcher.finish(3, None, None);
        assert_eq!(received.facts.stamps.back, 3);
        let mut seen = 0;
        while blocks.next(|block, _| {
            for sample in block {
                assert_eq!(sample.t1_stamp_ns, Some(sample.t1_ns + 3));
                seen += 1;
            }
        }) {}
        assert_eq!(seen, 3);
    }

    /// An ending after 10 packets of which some were answered, each after the same time; with what it
    /// says at 5,000 ns, and when a probe is asked for and after one was answered.
    fn ends(bound: Option<&str>, answered: u64, took_ns: i64) -> (Vec<Option<i64>>, usize) {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        for seq in 0..10 {
            let octets = request(&flight, seq, BEGIN_NS, false);
            if seq < answered {
                let octets = reply(&mut mirror, &octets, BEGIN_NS + 10, Format::Ntp);
                arrive(&mut matcher, &octets, BEGIN_NS + took_ns);
            }
        }
        flight.sender().finish(10, 1000);
        let bound = bound.map(|text| text.parse().unwrap());
        let (wishes, wanted) = crossbeam_channel::bounded(8);
        let plan = Plan {
            loss_bound: bound,
            ..plan(false)
        };
        let mut ending = Ending::new(&plan, &wishes);
        let mut said = vec![ending.next(&mut matcher, 5000)];
        said.push(ending.next(&mut matcher, 5000 + QUIET_NS));
        let asked = wanted.len();
        matcher.probed[0] = asked > 0;
        said.push(ending.next(&mut matcher, 6000 + QUIET_NS));
        (said, asked)
    }

    #[test]
    fn where_a_bound_of_loss_is_passed_an_answered_probe_ends_the_session() {
        let timeout = Some(TIMEOUT_NS + 1000);
        let quiet = |times| Some(5000 + times * QUIET_NS);
        let lingering = Some(6000 + QUIET_NS + LINGER_NS.0);
        for (bound, answered, said, asked) in [
            (None, 8, [timeout, timeout, timeout], 0),
            (Some("20%"), 8, [timeout, timeout, timeout], 0),
            // The first one is still to come.
            (Some("0"), 0, [timeout, timeout, timeout], 0),
            (Some("19%"), 8, [quiet(1), quiet(2), lingering], 1),
        ] {
            let expected = (said.to_vec(), asked);
            assert_eq!(
                ends(bound, answered, 1000),
                expected,
                "{bound:?} {answered}"
            );
        }
        // Where replies take long, silence means little.
        let long = QUIET_NS / 4 + 1000;
        assert_eq!(ends(Some("0"), 8, long).0[0], Some(5000 + 4 * long));
        assert_eq!(ends(Some("0"), 8, TIMEOUT_NS / 2).0[0], timeout);
    }

    /// How many probes are asked for after 10 packets, when none of them is answered. What happens to
    /// each packet: `o` lost outbound, `i` lost inbound, `c` its reply comes twice, `x` it is overtaken on
    /// the way back.
    fn probes_after(happens: &[(u64, char)], stateless: bool, allowed: bool) -> usize {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let plan = Plan {
            probes: allowed,
            ..plan(false)
        };
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        let mut mirror = reflector(stateless, Format::Ntp);
        let mut overtaken = None;
        for seq in 0..10 {
            let octets = request(&flight, seq, BEGIN_NS, false);
            let what = happens.iter().find(|(at, _)| *at == seq).map(|(_, c)| *c);
            if what == Some('o') {
                continue;
            }
            let octets = reply(&mut mirror, &octets, BEGIN_NS + 10, Format::Ntp);
            match what {
                Some('i') => continue,
                Some('x') => {
                    overtaken = Some(octets);
                    continue;
                }
                Some(_) => arrive(&mut matcher, &octets, BEGIN_NS + 1000),
                None => {}
            }
            arrive(&mut matcher, &octets, BEGIN_NS + 1000);
            if let Some(octets) = overtaken.take() {
                arrive(&mut matcher, &octets, BEGIN_NS + 1000);
            }
        }
        flight.sender().finish(10, 1000);
        let (wishes, wanted) = crossbeam_channel::bounded(8);
        let mut ending = Ending::new(&plan, &wishes);
        let mut now = 5000;
        for _ in 0..10 {
            match ending.next(&mut matcher, now) {
                Some(until) => now = until,
                None => return wanted.len(),
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn probes_are_sent_only_where_a_direction_is_not_known_otherwise() {
        for (happens, stateless, probes) in [
            // Nothing is missing, whatever the reflector does.
            (&[][..], false, 0),
            (&[], true, 0),
            // Its counter told all: it lags behind ours, and the last packet was answered.
            (&[(3, 'o')], false, 0),
            (&[(3, 'o'), (5, 'i')], false, 0),
            // It has counted what is missing, or copies our numbers.
            (&[(3, 'i')], false, PROBES),
            (&[(3, 'o')], true, PROBES),
            // The last ones are missing.
            (&[(9, 'o')], false, PROBES),
            (&[(2, 'o'), (9, 'i')], false, PROBES),
            // One that is missing may have come there last.
            (&[(3, 'o'), (5, 'i'), (7, 'x')], false, PROBES),
            // Nothing is missing, and which way the copy was made is not known.
            (&[(3, 'c')], false, PROBES),
            (&[(3, 'x')], true, PROBES),
        ] {
            let asked = probes_after(happens, stateless, true);
            assert_eq!(asked, probes, "{happens:?} {stateless}");
            assert_eq!(probes_after(happens, stateless, false), 0, "{happens:?}");
        }
    }

    #[test]
    fn the_answer_to_a_probe_is_waited_for() {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let plan = plan(false);
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        for seq in 0..10 {
            let octets = request(&flight, seq, BEGIN_NS, false);
            // Of the last one nothing comes back.
            if seq < 9 {
                let octets = reply(&mut mirror, &octets, BEGIN_NS + 10, Format::Ntp);
                arrive(&mut matcher, &octets, BEGIN_NS + 30_000_000);
            }
        }
        flight.sender().finish(10, 1000);
        let (wishes, wanted) = crossbeam_channel::bounded(8);
        let mut ending = Ending::new(&plan, &wishes);
        let timeout = 1000 + TIMEOUT_NS;
        assert_eq!(ending.next(&mut matcher, 5000), Some(timeout));
        let lingered = ending.next(&mut matcher, timeout).unwrap();
        assert_eq!((lingered > timeout, wanted.len()), (true, 0));
        // Twice as long as a reply took, but no less than this.
        let until = lingered + PROBE_NS;
        assert_eq!(ending.next(&mut matcher, lingered), Some(until));
        for now in [lingered, lingered + 30_000_000, until - 1] {
            assert_eq!(ending.next(&mut matcher, now), Some(until));
            assert_eq!(wanted.len(), 1, "its answer is under way");
        }
        // It was lost; the next one is answered, which leaves a direction open.
        assert_eq!(ending.next(&mut matcher, until), Some(until + PROBE_NS));
        assert_eq!(wanted.len(), 2);
        matcher.probed[1] = true;
        matcher.tracker.on_probe(1, 9);
        let now = until + 1000;
        assert_eq!(ending.next(&mut matcher, now), Some(now + PROBE_NS));
        assert_eq!(wanted.len(), 3);
        // Another answer tells all.
        matcher.tracker.on_probe(2, 10);
        assert_eq!(ending.next(&mut matcher, now + 1), None);
        let asked: Vec<Wish> = wanted.try_iter().collect();
        assert_eq!(asked, [0, 1, 2]);
    }

    /// A receiving half of which every call takes as much, that counts the looks at the error queue.
    struct Steady {
        datagrams: usize,
        looks: usize,
    }

    impl ReceiveHalf for Steady {
        fn recv(&mut self, _: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
            match self.datagrams {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        }

        fn events(&mut self, _: impl FnMut(Event<'_>)) -> usize {
            self.looks += 1;
            0
        }

        fn take_bundles(&mut self) {}

        fn register(&mut self, _: &mio::Registry, _: Token) -> io::Result<()> {
            Ok(())
        }

        fn deregister(&mut self, _: &mio::Registry) {}

        fn kernel_drops(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn stamps_and_errors_are_looked_for_whether_replies_come_or_not() {
        for (datagrams, looks) in [(0, 1), (1, BUDGET / EVENTS_EVERY), (64, 2)] {
            let flight = Flight::new(64, 0);
            let (samples, _blocks) = pipe();
            let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
            let mut half = Steady {
                datagrams,
                looks: 0,
            };
            let (_, taken) = drain(&mut half, &mut matcher, &mut Patience::default());
            assert_eq!(half.looks, looks, "{datagrams} a call");
            assert_eq!(taken, datagrams * BUDGET);
        }
    }

    #[test]
    fn a_wait_ends_when_that_is_asked_for_once_more_than_what_ended_the_departures() {
        for (interrupted, bound, enough) in [
            (false, None, 1),
            (true, None, 2),
            // Whatever comes, it says nothing of a rate.
            (true, Some(Fraction::default()), 1),
        ] {
            let flight = Flight::new(64, 0);
            let (samples, _blocks) = pipe();
            let plan = Plan {
                loss_bound: bound,
                ..plan(false)
            };
            let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
            let mut mirror = reflector(false, Format::Ntp);
            let now = os::realtime_ns();
            for seq in 0..10 {
                // Two of them have had their time.
                let t1 = if seq < 4 { now - 2 * TIMEOUT_NS } else { now };
                let octets = request(&flight, seq, t1, false);
                if seq != 3 && seq < 6 {
                    let octets = reply(&mut mirror, &octets, t1 + 10, Format::Ntp);
                    arrive(&mut matcher, &octets, t1 + 1000);
                }
            }
            if interrupted {
                flight.sender().set_interrupted();
            }
            flight.sender().finish(10, 1000);
            let (wishes, _wanted) = crossbeam_channel::bounded(8);
            let mut ending = Ending::new(&plan, &wishes);
            for asked in 0..enough {
                if asked > 0 || !interrupted {
                    assert!(
                        ending.next(&mut matcher, 5000).is_some(),
                        "{interrupted} {asked}"
                    );
                }
                plan.stop.request();
            }
            assert_eq!(ending.next(&mut matcher, 5000), None);
            let received = matcher.finish(10, None, None);
            assert!(received.cut_short);
            let counts = &received.counts;
            assert_eq!((counts.received, counts.unresolved), (5, 4));
        }
    }

    /// The timeout is the path's: what waited in this host has it from then on.
    #[test]
    fn the_timeout_begins_when_a_packet_left() {
        for (stamped, stamp_comes, waited, took, in_time) in [
            (true, true, 0, TIMEOUT_NS - 1, true),
            (true, true, 0, TIMEOUT_NS + 1, false),
            (true, true, 2 * TIMEOUT_NS, TIMEOUT_NS - 1, true),
            (true, true, 2 * TIMEOUT_NS, TIMEOUT_NS + 1, false),
            // Nobody knows.
            (true, false, 2 * TIMEOUT_NS, 1000, false),
            (false, false, 2 * TIMEOUT_NS, 1000, false),
        ] {
            let flight = Flight::new(64, 0);
            let (samples, blocks) = pipe();
            let mut matcher = Matcher::new(&plan(true), flight.receiver(), samples);
            let mut mirror = reflector(false, Format::Ntp);
            let octets = request(&flight, 0, BEGIN_NS, stamped);
            let left = BEGIN_NS + waited;
            if stamp_comes {
                matcher.on_event(Event::Departed { seq: 0, ns: left });
            }
            let octets = reply(&mut mirror, &octets, left + 10, Format::Ntp);
            arrive(&mut matcher, &octets, left + took);
            let received = matcher.finish(1, None, None);
            let counts = (received.counts.received, received.counts.late);
            let late = u64::from(!in_time);
            assert_eq!(counts, (1 - late, late), "{stamped} {waited} {took}");
            let waits = u64::from(stamp_comes && waited > 0);
            assert_eq!(received.facts.stamps.waits.count, waits);
            let mut delays = Delays::new(1, false);
            while blocks.next(|block, _| delays.record(block)) {}
            let roundtrip = delays.report().roundtrip.map(|delay| delay.max);
            assert_eq!(roundtrip, in_time.then_some(took - 500));
        }
    }

    #[test]
    fn replies_are_waited_for_from_when_their_packets_left() {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let plan = plan(true);
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        request(&flight, 0, os::realtime_ns(), true);
        let last = os::monotonic_ns();
        flight.sender().finish(1, last);
        let (wishes, _wanted) = crossbeam_channel::bounded(8);
        let mut ending = Ending::new(&plan, &wishes);
        assert_eq!(ending.next(&mut matcher, last), Some(last + TIMEOUT_NS));
        let ns = os::realtime_ns() + TIMEOUT_NS / 2;
        matcher.on_event(Event::Departed { seq: 0, ns });
        let left = matcher.left_ns;
        assert!(left >= last);
        assert_eq!(ending.next(&mut matcher, last), Some(left + TIMEOUT_NS));
        // It does not go on for ever.
        matcher.left_ns = last + 7 * TIMEOUT_NS;
        assert_eq!(ending.next(&mut matcher, last), Some(last + 2 * TIMEOUT_NS));
    }

    #[test]
    fn packets_that_were_written_together_have_a_stamp_each() {
        // Two trains of two granules, filled at one moment: they carry one T1.
        let flight = Flight::new(64, 1);
        let t1 = Timestamp::from_unix_ns(BEGIN_NS, Format::Ntp);
        flight.sender().note(0, 4, t1.raw(), 0, true);
        flight.sender().note(4, 4, t1.raw(), 0, true);
        flight.sender().attempt(8);
        let (samples, blocks) = pipe();
        let mut matcher = Matcher::new(&plan(true), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        for seq in 0..8_u32 {
            let packet = SenderPacket {
                seq: seq.into(),
                timestamp: t1,
                error_estimate: ErrorEstimate::UNKNOWN,
            };
            let octets = reply(&mut mirror, packet.as_bytes(), BEGIN_NS + 9, Format::Ntp);
            arrive(&mut matcher, &octets, BEGIN_NS + 1000);
        }
        // Of the second train none comes back.
        let ns = BEGIN_NS + 3;
        matcher.on_event(Event::Departed { seq: 0, ns });
        matcher.finish(8, None, None);
        let mut stamps = Vec::new();
        while blocks.next(|block, _| {
            stamps.extend(block.iter().map(|sample| (sample.seq, sample.t1_stamp_ns)));
        }) {}
        stamps.sort_unstable();
        let own = |seq| (seq, (seq < 4).then_some(ns));
        assert_eq!(stamps, (0..8).map(own).collect::<Vec<_>>());
    }

    #[test]
    fn packets_of_refused_trains_have_room_for_a_stamp_each() {
        let flight = Flight::new(1024, 3);
        let (samples, blocks) = pipe();
        let mut matcher = Matcher::new(&plan(true), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        flight.sender().note(0, 8, 0, 0, true);
        flight.sender().attempt(8);
        matcher.on_event(Event::Departed { seq: 0, ns: 7 });
        flight.sender().take_apart(8);
        let mut leave = |seq: u64| {
            let t1 = BEGIN_NS + i64::try_from(seq).unwrap();
            let octets = request(&flight, seq, t1, true);
            matcher.on_event(Event::Departed {
                seq: u32::try_from(seq).unwrap(),
                ns: t1 + 3,
            });
            (reply(&mut mirror, &octets, t1 + 10, Format::Ntp), t1 + 1000)
        };
        // The stamps of all come before the first reply does.
        let replies: Vec<_> = (8..1000).map(&mut leave).collect();
        for (octets, t4) in &replies {
            arrive(&mut matcher, octets, *t4);
        }
        assert_eq!(matcher.stamps[0], (1, 7), "what was known stays known");
        matcher.finish(1000, None, None);
        let mut stamped = 0;
        while blocks.next(|block, _| {
            let own = |sample: &&Sample| sample.t1_stamp_ns == Some(sample.t1_ns + 3);
            stamped += block.iter().filter(own).count();
        }) {}
        assert_eq!(stamped, 992);
    }

    /// All that was told while a session ran; the counts without the moments at which their intervals ended.
    type Told = (Vec<live::Record>, Vec<intervals::Counts>);

    /// What a matcher makes of a session of trains whose replies come in bundles; `split`: one by one.
    /// Received, samples, and what was told while it ran.
    fn of_bundles(seed: u64, shift: u32, burst: u64, split: bool) -> (String, Vec<Sample>, Told) {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let flight = Flight::new(1024, shift);
        flight.sender().set_burst(u32::try_from(burst).unwrap());
        let (samples, blocks) = pipe();
        let plan = Plan {
            payloads: vec![41; 2],
            // Some come too late, or none.
            timeout_ns: if rng.random_bool(0.5) {
                TIMEOUT_NS
            } else {
                150_000
            },
            // The numbers on the wire begin anew on the way, or not.
            first_seq: if rng.random_bool(0.5) {
                0
            } else {
                u32::MAX - 300
            },
            ..plan(true)
        };
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        matcher.begun_ns = BEGIN_NS;
        // Of ten trains.
        let watch = WatchConfig {
            happenings: true,
            interval_ns: Some(1_000_000),
            ..WatchConfig::default()
        };
        let begun = Begun {
            at_ns: 0,
            wall_ns: BEGIN_NS,
        };
        let (records, happened) = pipe();
        let records = Some(records);
        let tap = tap(watch, plan.timeout_ns, plan.format, false, begun, records);
        matcher.tap = rng.random_bool(0.5).then_some(tap);
        // A clock was set meanwhile.
        matcher.step_below = if rng.random_bool(0.2) { 70 } else { 0 };
        let mut mirror = reflector(rng.random_bool(0.2), Format::Ntp);
        // From this train on they are refused, those of one class.
        let refused_from = rng.random_range(0..120);
        let mut seq = 0;
        // The first packet of all that left together.
        let mut firsts = Vec::new();
        let mut waiting: Vec<(Vec<u8>, i64)> = Vec::new();
        // Packets that came since all that waited was recorded.
        let mut came = 0;
        for train in 0..60_i64 {
            let t1_ns = BEGIN_NS + train * 100_000;
            let class = u8::from(rng.random_bool(0.1));
            let payload = if class == 0 { 64 } else { 48 };
            let stamped = rng.random_bool(0.5);
            let t1 = Timestamp::from_unix_ns(t1_ns, Format::Ntp);
            if train == refused_from {
                flight.sender().take_apart(seq);
            }
            let refused = train >= refused_from;
            let together = if refused && class == 0 { 1 } else { burst };
            let parts = (seq..seq + burst).step_by(usize::try_from(together).unwrap());
            for first in parts {
                flight
                    .sender()
                    .note(first, together, t1.raw(), class, stamped);
                firsts.push(first);
            }
            flight.sender().attempt(seq + burst);
            flight.sender().depart(seq + burst);
            let tells_time = rng.random_bool(0.95);
            let mut bundle = Vec::new();
            for number in seq..seq + burst {
                let packet = SenderPacket {
                    seq: plan
                        .first_seq
                        .wrapping_add(u32::try_from(number).unwrap())
                        .into(),
                    timestamp: t1,
                    error_estimate: ErrorEstimate::UNKNOWN,
                };
                let mut octets = packet.as_bytes().to_vec();
                octets.resize(payload, rng.random());
                // Some come back twice, some not at all, some not as they left.
                let copies = [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][rng.random_range(0..10)];
                let copies = if rng.random_bool(0.5) { 1 } else { copies };
                for _ in 0..copies {
                    let mut octets = reply(&mut mirror, &octets, t1_ns + 5000, Format::Ntp);
                    if !tells_time {
                        stamp(&mut octets, Timestamp::from_raw(0));
                    }
                    if rng.random_bool(0.02) {
                        let at = rng.random_range(0..octets.len());
                        octets[at] ^= 1 << rng.random_range(0..8);
                    }
                    bundle.extend(octets);
                }
            }
            if !bundle.is_empty() {
                if rng.random_bool(0.1) {
                    bundle.truncate(bundle.len() - payload / 2);
                }
                waiting.push((bundle, t1_ns + rng.random_range(20_000..200_000)));
            }
            let granule = if refused { 1 } else { 1 << shift };
            seq += burst.next_multiple_of(granule);
            if rng.random_bool(0.3) {
                continue;
            }
            if rng.random_bool(0.2) {
                waiting.reverse();
            }
            // Stamps of what is still under way.
            let events = firsts.iter().filter(|first| seq - **first <= 512);
            for first in events.filter(|_| rng.random_bool(0.2)) {
                let seq = u32::try_from(*first).unwrap();
                let ns = t1_ns + 300;
                matcher.on_event(Event::Departed { seq, ns });
            }
            for (bundle, arrived_ns) in waiting.drain(..) {
                let step = payload.min(bundle.len());
                came += bundle.len() / step;
                let one = |octets, ttl| Datagram {
                    octets,
                    segment: Some(step),
                    truncated: false,
                    facts_cut: false,
                    arrived_ns: Some(arrived_ns),
                    ttl: Some(ttl),
                    tos: Some(0),
                };
                let ttl = rng.random_range(63..65);
                if split {
                    for packet in bundle.chunks(step) {
                        matcher.on_datagram(&one(packet, ttl));
                    }
                } else {
                    matcher.on_datagram(&one(&bundle, ttl));
                }
            }
            let now = (train + 1) * 100_000;
            // Before there is no room for more of them, which are more where they come one by one.
            let give_up = came > 300;
            matcher.release(if give_up { i64::MAX } else { now });
            came = if give_up { 0 } else { came };
            matcher.tick(now, BEGIN_NS + now);
        }
        let received = matcher.finish(seq, None, None);
        let mut shown = Vec::new();
        let mut told: Told = (Vec::new(), Vec::new());
        while blocks.next(|block, mark| {
            told.1.extend(mark.map(|counts| intervals::Counts {
                at_ns: 0,
                wall_ns: 0,
                ..*counts
            }));
            for sample in block {
                for (n, seq) in (0..sample.count).zip(sample.seq..) {
                    assert!(n == 0 || !split);
                    shown.push(Sample {
                        seq,
                        count: 1,
                        ..*sample
                    });
                }
            }
        }) {}
        shown.sort_by_key(|sample| sample.seq);
        while happened.next(|block, _| told.0.extend(block)) {}
        (format!("{received:?}"), shown, told)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_bundle_is_taken_as_its_packets_are(seed: u64, shift in 0_u32..4, burst in 1_u64..40) {
            let together = of_bundles(seed, shift, burst, false);
            let each = of_bundles(seed, shift, burst, true);
            prop_assert_eq!(together.0, each.0);
            prop_assert_eq!(together.1, each.1);
            prop_assert_eq!(together.2, each.2);
        }
    }

    fn refusal(matcher: &mut Matcher<'_>) {
        matcher.on_event(Event::Icmp(Icmp::of_errno(libc::ECONNREFUSED)));
    }

    #[test]
    fn an_attempt_ends_where_a_packet_is_refused_before_any_answer() {
        let grace = Grace {
            ns: i64::MAX,
            first_ns: 1,
        };
        let attempt = |first_begun_ns| {
            let flight = Flight::new(64, 0).with_grace(grace);
            let plan = Plan {
                first_begun_ns,
                ..plan(false)
            };
            (flight, plan)
        };
        let mut mirror = reflector(false, Format::Ntp);
        let (flight, plan) = attempt(None);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        let t1_ns = matcher.begun_ns + 1;
        let former = request(&flight, 0, t1_ns, false);
        matcher.on_event(Event::Icmp(Icmp::of_errno(libc::EHOSTUNREACH)));
        assert!(!matcher.is_absent(), "only a closed port may open");
        refusal(&mut matcher);
        assert!(matcher.is_absent());
        assert_eq!(matcher.facts.icmp.total(), 1);
        let Attempt::Absent(before) = matcher.absent() else {
            panic!("it was given up");
        };
        assert!(!before.last);

        while os::realtime_ns() <= t1_ns {}
        let (flight, plan) = attempt(Some(before.begun_ns));
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        refusal(&mut matcher);
        assert!(
            !matcher.is_absent(),
            "nothing has left: it is of the attempt before"
        );
        assert_eq!(matcher.facts.icmp.total(), 0);
        // An answer to a packet of that one is none, before the first packet leaves and after it.
        let stale = reply(&mut mirror, &former, t1_ns + 5, Format::Ntp);
        arrive(&mut matcher, &stale, t1_ns + 10);
        let t1_ns = matcher.begun_ns + 1;
        let packets = [0, 1].map(|seq| request(&flight, seq, t1_ns, false));
        arrive(&mut matcher, &stale, t1_ns + 10);
        assert_eq!((matcher.answered(), matcher.facts.ignored.total()), (0, 0));
        // One to another packet than the first says that the port has just been opened.
        let second = reply(&mut mirror, &packets[1], t1_ns + 5, Format::Ntp);
        arrive(&mut matcher, &second, t1_ns + 10);
        arrive(&mut matcher, &second, t1_ns + 10);
        assert_eq!(matcher.answered(), 0);
        assert!(matcher.is_absent());
        let Attempt::Absent(before) = matcher.absent() else {
            panic!("it was given up");
        };
        assert!(before.last);

        // Then there is no grace any more.
        let (_, plan) = attempt(Some(before.begun_ns));
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        let t1_ns = matcher.begun_ns + 1;
        let packets = [0, 1].map(|seq| request(&flight, seq, t1_ns, false));
        let second = reply(&mut mirror, &packets[1], t1_ns + 5, Format::Ntp);
        arrive(&mut matcher, &second, t1_ns + 10);
        assert_eq!(matcher.answered(), 1, "the first packet is lost");
        refusal(&mut matcher);
        assert!(!matcher.is_absent());
        assert_eq!(matcher.facts.icmp.total(), 1);
    }

    /// The sender may be told of a refusal while an answer is under way.
    #[test]
    fn a_refusal_that_the_sender_met_ends_no_attempt_that_has_an_answer() {
        for answered in [false, true] {
            let grace = Grace {
                ns: i64::MAX,
                first_ns: 1,
            };
            let flight = Flight::new(64, 0).with_grace(grace);
            let (samples, _blocks) = pipe();
            let plan = plan(false);
            let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
            let mut mirror = reflector(false, Format::Ntp);
            let t1_ns = matcher.begun_ns + 1;
            let octets = request(&flight, 0, t1_ns, false);
            if answered {
                let octets = reply(&mut mirror, &octets, t1_ns + 5, Format::Ntp);
                arrive(&mut matcher, &octets, t1_ns + 10);
            }
            flight.sender().ask_whether_absent();
            assert_eq!(matcher.is_absent(), !answered);
            assert!(!flight.receiver().is_asked());
        }
    }

    /// T2 and T3 as a quirk of some peers has them: the seconds of a Unix clock, the fraction of NTP.
    fn unix_seconds(ns: i64) -> Timestamp {
        let ntp = Timestamp::from_unix_ns(ns, Format::Ntp).raw();
        Timestamp::from_raw(ntp.wrapping_sub(2_208_988_800 << 32))
    }

    /// Of 200 replies 46 have fractions that could be nanoseconds as well, the first ones among them: read
    /// one by one, they were in another format than the rest, and the outbound delay was 29 ms in some
    /// and 24,143 days in others.
    #[test]
    fn a_session_has_one_format_of_t2_and_t3() {
        const OUTBOUND_NS: i64 = 29_000_000;
        // Some 10 packets a second, not in step with the seconds; the first fractions are low.
        let t1_of = |seq: i64| BEGIN_NS - 500_000_000 + seq * 99_000_000;
        let flight = Flight::new(1024, 0);
        let (samples, blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        let mut could_be_ns = 0;
        for seq in 0..200 {
            let t1 = t1_of(i64::try_from(seq).unwrap());
            let t2 = unix_seconds(t1 + OUTBOUND_NS);
            let octets = request(&flight, seq, t1, false);
            let mut octets = reply(&mut mirror, &octets, 0, Format::Ntp);
            octets[16..24].copy_from_slice(t2.as_bytes());
            stamp(&mut octets, t2);
            could_be_ns += u32::from(t2.raw() & 0xffff_ffff < 1_000_000_000);
            arrive(&mut matcher, &octets, t1 + 2 * OUTBOUND_NS);
        }
        assert_eq!(could_be_ns, 46);
        let received = matcher.finish(200, None, None);
        assert_eq!(
            received.facts.times.rejected + received.facts.times.untold,
            0
        );
        assert_eq!(received.facts.times.readings, [Reading::UnixFraction]);
        let mut delays = Delays::new(1, false);
        while blocks.next(|block, _| delays.record(block)) {}
        let outbound = delays.report().outbound.unwrap();
        assert_eq!(outbound.samples, 200);
        assert_eq!((outbound.min, outbound.max), (OUTBOUND_NS, OUTBOUND_NS));
    }

    #[test]
    fn a_reply_with_another_t1_or_number_is_not_counted() {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        let other = Flight::new(64, 0);
        let sent = request(&flight, 0, BEGIN_NS, false);
        let stale = request(&other, 0, BEGIN_NS - 1, false);
        let ahead = request(&other, 1, BEGIN_NS, false);
        for octets in [&stale, &ahead] {
            let octets = reply(&mut mirror, octets, BEGIN_NS + 5, Format::Ntp);
            arrive(&mut matcher, &octets, BEGIN_NS + 10);
        }
        assert_eq!((matcher.answered(), matcher.facts.ignored.total()), (0, 2));
        let octets = reply(&mut mirror, &sent, BEGIN_NS + 5, Format::Ntp);
        arrive(&mut matcher, &octets, BEGIN_NS + 10);
        assert_eq!((matcher.answered(), matcher.facts.ignored.total()), (1, 2));
    }

    #[test]
    fn replies_to_others_take_their_numbers_out_of_the_count_and_spoiled_ones_do_not() {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        let elsewhere = Flight::new(64, 0);
        for seq in 0..20 {
            let octets = request(&flight, seq, BEGIN_NS, false);
            if seq == 5 {
                // Lost outbound, and another sender has the same number a while later.
                let other = request(&elsewhere, 5, BEGIN_NS + 3_000_000_000, false);
                let octets = reply(&mut mirror, &other, BEGIN_NS + 5, Format::Ntp);
                arrive(&mut matcher, &octets, BEGIN_NS + 10);
                continue;
            }
            let mut octets = reply(&mut mirror, &octets, BEGIN_NS + 5, Format::Ntp);
            if seq == 9 {
                // Spoiled on the way back: the packet came there all the same.
                octets[35] ^= 1;
            }
            arrive(&mut matcher, &octets, BEGIN_NS + 10);
            if seq == 12 {
                // Of one that was answered, and of none that was sent.
                for seq in [12, 40] {
                    let other = request(&elsewhere, seq, BEGIN_NS + 1, false);
                    let octets = reply(&mut mirror, &other, BEGIN_NS + 5, Format::Ntp);
                    arrive(&mut matcher, &octets, BEGIN_NS + 10);
                }
            }
        }
        let received = matcher.finish(20, None, None);
        let counts = &received.counts;
        let directions = counts.directions.unwrap();
        assert_eq!((counts.received, received.facts.ignored.total()), (18, 4));
        assert_eq!((directions.lost_outbound, directions.lost_inbound), (1, 1));
        assert_eq!(counts.given_to_others, 3);
    }

    #[test]
    fn a_packet_out_of_the_window_is_not_answered_by_just_anything() {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        for seq in 0..1000 {
            let t1 = BEGIN_NS + i64::try_from(seq).unwrap();
            request(&flight, seq, t1, false);
        }
        let forged = request(&Flight::new(64, 0), 5, 12_345, false);
        for _ in 0..10 {
            let octets = reply(&mut mirror, &forged, BEGIN_NS + 5, Format::Ntp);
            arrive(&mut matcher, &octets, BEGIN_NS + 10);
        }
        assert_eq!((matcher.answered(), matcher.facts.ignored.total()), (0, 10));
        assert!(!matcher.tracker.own_counter_proved());
    }

    #[test]
    fn t1_is_ours_whatever_the_echoed_error_estimate_says() {
        let flight = Flight::new(64, 0);
        let (samples, blocks) = pipe();
        let plan = Plan {
            format: Format::Ptp,
            ..plan(false)
        };
        let mut matcher = Matcher::new(&plan, flight.receiver(), samples);
        for seq in 0..20_u32 {
            let t1_ns = BEGIN_NS + i64::from(seq) * 50_000_000;
            let t1 = Timestamp::from_unix_ns(t1_ns, Format::Ptp);
            flight.sender().note(seq.into(), 1, t1.raw(), 0, false);
            flight.sender().attempt(u64::from(seq) + 1);
            // Older reflectors clear the Z bit, which was once reserved.
            let head = ReplyHead {
                seq: seq.into(),
                timestamp: Timestamp::from_unix_ns(t1_ns + 600, Format::Ntp),
                error_estimate: ErrorEstimate::UNKNOWN,
                mbz: [0; 2],
                receive_timestamp: Timestamp::from_unix_ns(t1_ns + 500, Format::Ntp),
                sender_seq: seq.into(),
                sender_timestamp: t1,
                sender_error_estimate: ErrorEstimate::from_raw(1),
            };
            let octets = [head.as_bytes(), &[0, 0, 255]].concat();
            arrive(&mut matcher, &octets, t1_ns + 1000);
        }
        let received = matcher.finish(20, None, None);
        assert_eq!(
            (received.counts.received, received.facts.times.rejected),
            (20, 0)
        );
        let mut delays = Delays::new(1, false);
        while blocks.next(|block, _| delays.record(block)) {}
        assert_eq!(delays.report().roundtrip.unwrap().max, 900);
    }

    #[test]
    fn a_reply_after_the_timeout_is_late() {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        let mut mirror = reflector(false, Format::Ntp);
        let octets = request(&flight, 0, BEGIN_NS, false);
        let octets = reply(&mut mirror, &octets, BEGIN_NS + 5, Format::Ntp);
        arrive(&mut matcher, &octets, BEGIN_NS + TIMEOUT_NS + 1000);
        let counts = matcher.finish(1, None, None).counts;
        assert_eq!((counts.received, counts.late), (0, 1));
    }

    #[test]
    fn a_reply_whose_packet_left_the_window_is_late_or_a_duplicate() {
        let flight = Flight::new(64, 0);
        let (samples, _blocks) = pipe();
        let mut matcher = Matcher::new(&plan(false), flight.receiver(), samples);
        matcher.begun_ns = BEGIN_NS;
        let mut mirror = reflector(false, Format::Ntp);
        let mut behind = Vec::new();
        for seq in 0..500 {
            let t1 = BEGIN_NS + i64::try_from(seq).unwrap();
            let octets = request(&flight, seq, t1, false);
            if seq == 5 {
                continue;
            }
            let octets = reply(&mut mirror, &octets, t1 + 5, Format::Ntp);
            // Of ten packets one is answered late, and one again.
            if seq % 10 != 0 {
                arrive(&mut matcher, &octets, t1 + 10);
            }
            if seq % 10 < 2 && seq < 400 {
                behind.push(octets);
            }
        }
        for octets in &behind {
            arrive(&mut matcher, octets, BEGIN_NS + TIMEOUT_NS + 1000);
        }
        // No such packet left when this one says.
        for t1 in [BEGIN_NS - 1, BEGIN_NS + 490] {
            let mut forged = behind[0].clone();
            let t1 = Timestamp::from_unix_ns(t1, Format::Ntp);
            forged[28..36].copy_from_slice(t1.as_bytes());
            arrive(&mut matcher, &forged, BEGIN_NS + TIMEOUT_NS + 1000);
        }
        let received = matcher.finish(500, None, None);
        let counts = &received.counts;
        assert_eq!((counts.received, counts.late), (449, 40));
        assert_eq!((counts.duplicates, received.facts.ignored.total()), (40, 2));
        let directions = counts.directions.unwrap();
        let lost = (directions.lost_outbound, directions.lost_inbound);
        assert_eq!((lost, directions.lost_unattributed), ((1, 10), 40));
        assert_eq!(directions.duplicates_inbound, 40);
    }

    #[test]
    fn a_reply_of_ours_that_comes_back_is_not_answered() {
        let mut mirror = reflector(false, Format::Ntp);
        let octets = request(&Flight::new(64, 0), 0, BEGIN_NS, false);
        let first = reply(&mut mirror, &octets, BEGIN_NS + 5, Format::Ntp);
        mirror
            .guard
            .note(Timestamp::from_unix_ns(BEGIN_NS + 505, Format::Ntp));
        // Another reflector answers our reply as if it were a request.
        let mut other = reflector(false, Format::Ntp);
        let mut back = reply(&mut other, &first, BEGIN_NS + 900, Format::Ntp);
        let len = back.len();
        back.resize(512, 0);
        let mut request = Request {
            slot: &mut back,
            len,
            segment: None,
            truncated: false,
            facts_cut: false,
            from: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 5000))),
            to: None,
            to_many: false,
            arrived_ns: None,
            ttl: None,
            tos: None,
        };
        let refusal = mirror.reflect(&mut request, 1).unwrap_err();
        assert_eq!(refusal, Kind::Loop);
    }
}
