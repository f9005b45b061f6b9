//! A session as its receiver has it: a value. What a reply, a transmit timestamp or an error means, and when
//! the session is over.
//!
//! There is no thread, no socket and no clock in it. A driver takes what comes and hands it over with the
//! time ([`ReceiverSide::on_event`], [`ReceiverSide::on_datagram`]), says when the clock was set, and asks what is
//! next ([`ReceiverSide::tick`]). What is found goes out by an [`Out`] of the driver's. The side alone owns the
//! sequence accounting, so that counts are exact whatever becomes of that.

use std::net::SocketAddr;

use super::answer::Answer;
use super::door::{Now, Out};
use super::ending::{Ending, Seen};
use super::facts::{Facts, Received};
use super::looks::{Looks, Stage};
use super::own_time::OwnTime;
use super::presence::Presence;
use super::readings::{Readings, Told};
use super::stamps::TransmitStamps;
use super::tap::Tap;
use super::time_format::tells_no_time;
use super::under_way::UnderWay;
use super::waiting::{self, Waiting};
use crate::config::Fraction;
use crate::engine::flight::ReceiverEnd;
use crate::engine::intervals::Counts;
use crate::engine::live::{Kind as What, Record};
use crate::io::{Datagram, Event, Icmp};
use crate::report::ignored::Kind;
use crate::sample::Sample;
use crate::stats::clock::OwnStep;
use crate::stats::sequence::{Arrival, Tracker, extend};
use crate::wire::protected::Protection;
use crate::wire::{Format, Reading, Reply, ReplyHead, TestFormat};

/// An interval whose end has not been told is looked after this often.
const MARK_NS: i64 = 1_000_000;
/// Most samples that wait for transmit stamps.
const WAITING: u64 = 4096;
/// Replies that wait for the format of T2 and T3: there is room for so many, since evidence may take some.
const HELD: (u64, u64) = (16, 1024);

/// What is to be received.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) timeout_ns: i64,
    /// See [`SessionConfig::loss_bound`](crate::config::SessionConfig::loss_bound).
    pub(crate) loss_bound: Option<Fraction>,
    /// Probes may be sent.
    pub(crate) probes: bool,
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
    /// When the first attempt began, since the Unix epoch, where this is another one.
    pub(crate) first_begun_ns: Option<i64>,
    pub(crate) buffers: Buffers,
}

/// Replies that are kept for a while; beyond that they go on with what is known then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffers {
    /// For their transmit stamps.
    pub(crate) waiting: usize,
    /// For the format of T2 and T3 to be known.
    pub(crate) held: usize,
}

impl Buffers {
    /// For as many packets under way as a fast session has.
    pub(crate) fn of_window(window: u64, stamps: bool) -> Self {
        let room = |room: u64| usize::try_from(room).unwrap_or(0);
        Self {
            waiting: room(if stamps { window.min(WAITING) } else { 0 }),
            held: room(window.clamp(HELD.0, HELD.1)),
        }
    }
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// To look again at this moment of the monotonic clock.
    At(i64),
    /// Nothing: the session is over.
    Over,
    /// To give this attempt up: the peer is not there yet.
    Absent,
}

/// A reply as it came: what is left of its datagram, and how many octets that had. It is the first one of
/// `run` that differ in their numbers alone.
#[derive(Clone, Copy)]
struct Came<'a> {
    datagram: Datagram<'a>,
    len: usize,
    run: usize,
    now: Now,
}

/// Matches replies and stamps with what was sent.
#[derive(Debug)]
pub(crate) struct ReceiverSide<'a> {
    pub(super) under_way: UnderWay<'a>,
    looks: Looks,
    /// Where replies are protected.
    stage: Option<Box<Stage>>,
    pub(super) tracker: Tracker,
    pub(super) stamps: TransmitStamps<'a>,
    pub(super) own_time: OwnTime,
    readings: Readings,
    waiting: Waiting,
    /// Where the session is watched.
    tap: Option<Tap>,
    pub(super) facts: Facts,
    pub(super) ending: Ending,
    pub(super) presence: Presence,
    errors_queued: bool,
}

impl<'a> ReceiverSide<'a> {
    pub(crate) fn new(plan: &Plan, flight: ReceiverEnd<'a>, tap: Option<Tap>, now: Now) -> Self {
        Self {
            under_way: UnderWay {
                flight,
                first_seq: plan.first_seq,
                format: plan.format,
                timeout_ns: plan.timeout_ns,
            },
            looks: Looks::new(plan.test, &plan.payloads),
            stage: plan.protection.clone().map(|p| Box::new(Stage::new(p))),
            tracker: Tracker::counting_from(flight.window(), plan.first_seq),
            stamps: TransmitStamps::new(flight, plan.stamps),
            own_time: OwnTime::new(plan.hardware, plan.interval_ns),
            readings: Readings::new(plan.buffers.held),
            waiting: Waiting::new(plan.buffers.waiting),
            tap,
            facts: Facts::new(plan.payloads.len()),
            ending: Ending::new(plan.timeout_ns, plan.loss_bound, plan.probes),
            presence: Presence::new(plan.first_begun_ns, now),
            errors_queued: plan.errors_queued,
        }
    }

    /// Distinct replies in time.
    pub(crate) fn received(&self) -> u64 {
        self.tracker.received()
    }

    /// What was found so far.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the peer was found not to be there yet.
    pub(crate) fn is_absent(&self) -> bool {
        self.presence.is_absent
    }

    /// The system's clock was set: then the delays of all packets under way are wrong.
    #[cold]
    pub(crate) fn on_clock_set(&mut self, step: OwnStep) {
        let attempted = self.under_way.flight.attempted();
        let waits = &mut self.facts.stamps.waits;
        self.own_time.on_set(&step, attempted, waits);
        self.facts.note_own_step(step);
    }

    pub(crate) fn on_event(&mut self, event: Event<'_>, now: Now, out: &mut impl Out) {
        if self.under_way.flight.attempted() == 0 {
            // It is of an attempt before.
            return;
        }
        match event {
            Event::Departed { seq, ns } => self.on_stamp(seq, ns, now),
            Event::Icmp(icmp) if !self.ending.is_probing() => self.on_icmp(&icmp, now, out),
            Event::Stray { octets, from } => self.on_stray(octets, from),
            Event::Icmp(_) => {}
        }
    }

    /// The call that takes replies told of an error that the network may have told.
    pub(crate) fn on_error(&mut self, errno: i32, now: Now, out: &mut impl Out) {
        // Where there is an error queue its entry has been, or will be, counted by `on_event`.
        if !self.errors_queued && !self.ending.is_probing() {
            self.on_icmp(&Icmp::of_errno(errno), now, out);
        }
    }

    /// Counts an ICMP error, unless it says that the peer is not there yet.
    fn on_icmp(&mut self, icmp: &Icmp, now: Now, out: &mut impl Out) {
        let answered = self.tracker.answered();
        let refused = answered == 0 && self.presence.is_refused(icmp, &self.under_way, now);
        if refused {
            return;
        }
        self.facts.icmp.note(icmp);
        self.tell(What::Icmp(*icmp), 0, out);
    }

    /// Counts a datagram from somebody else than the peer.
    ///
    /// A quirk of servers with several addresses: their replies leave from the address that their
    /// routes choose, not from the one that was asked. RFC 5357 §4.2 wants the addresses swapped, and a
    /// reply from elsewhere proves nothing about the path to the peer, so it is not counted as one; but
    /// it is told apart from what strangers send.
    fn on_stray(&mut self, octets: &[u8], from: Option<SocketAddr>) {
        let answers = match &self.stage {
            Some(stage) => {
                let head = stage.open_one(octets);
                head.is_some_and(|head| self.under_way.is_answer(&head))
            }
            None => Reply::parse(octets).is_ok_and(|reply| self.under_way.is_answer(reply.head)),
        };
        if answers {
            self.ignore(Kind::Elsewhere);
            self.facts.elsewhere_from = self.facts.elsewhere_from.or(from);
        } else {
            self.ignore(Kind::Stranger);
        }
    }

    /// Counts a datagram that is no reply to a packet of the session.
    fn ignore(&mut self, kind: Kind) {
        let counts = !self.ending.is_probing();
        self.facts.ignored.note(kind, u64::from(counts));
    }

    fn on_stamp(&mut self, seq: u32, ns: i64, now: Now) {
        self.facts.stamps.back += 1;
        let seq = extend(seq, self.under_way.flight.attempted());
        let t1_ns = self.under_way.packet_left_ns(seq, ns);
        if let Some(t1_ns) = t1_ns.filter(|_| self.own_time.is_of_stamps()) {
            let waits = &mut self.facts.stamps.waits;
            self.own_time.note_wait(waits, seq, (t1_ns, ns), now);
        }
        self.stamps.note(seq, ns);
    }

    /// Takes a datagram: a reply, or a bundle of them.
    pub(crate) fn on_datagram(&mut self, datagram: &Datagram<'_>, now: Now, out: &mut impl Out) {
        let whole = datagram.octets;
        let step = datagram.segment.filter(|step| *step > 0);
        if self.stage.is_some() {
            return match step {
                Some(step) => whole
                    .chunks(step)
                    .for_each(|octets| self.on_protected(octets, datagram, now, out)),
                None => self.on_protected(whole, datagram, now, out),
            };
        }
        let came = |octets, len, run| Came {
            datagram: Datagram {
                octets,
                ..*datagram
            },
            len,
            run,
            now,
        };
        let Some(step) = step else {
            self.on_reply(&came(whole, whole.len(), 1), out);
            return;
        };
        let mut rest = whole;
        // How many of the first ones of the rest are known to be one run.
        let mut run = 0;
        // The run is not the usual: its replies are taken one by one.
        let mut singly = false;
        while !rest.is_empty() {
            let octets = &rest[..step.min(rest.len())];
            if run == 0 {
                (run, singly) = (1, false);
                if rest.len() > step && !out.shows_packets() {
                    run = self.looks.run_of(rest, step);
                }
            }
            let one = came(octets, octets.len(), if singly { 1 } else { run });
            let taken = self.on_reply(&one, out);
            singly |= taken < run && taken == 1;
            run -= taken;
            rest = &rest[octets.len() * taken..];
        }
    }

    fn on_protected(
        &mut self,
        octets: &[u8],
        datagram: &Datagram<'_>,
        now: Now,
        out: &mut impl Out,
    ) {
        let Some(stage) = &mut self.stage else {
            return;
        };
        let taken = stage.take(&Datagram {
            octets,
            ..*datagram
        });
        let is_full = stage.is_full();
        if let Err(kind) = taken {
            self.ignore(kind);
        }
        if is_full {
            self.open_staged(now, out);
        }
    }

    /// Takes the protected replies that wait; to be called before anything else is waited for.
    #[inline]
    pub(crate) fn open_staged(&mut self, now: Now, out: &mut impl Out) {
        let Some(mut stage) = self.stage.take() else {
            return;
        };
        stage.open(|(datagram, len), opened| match opened {
            Ok(octets) => {
                let came = Came {
                    datagram: Datagram {
                        octets: &octets,
                        ..*datagram
                    },
                    len: *len,
                    run: 1,
                    now,
                };
                self.on_reply(&came, out);
            }
            Err(kind) => self.ignore(kind),
        });
        self.stage = Some(stage);
    }

    /// An unauthenticated reply, or the fields of a protected one as it would have them: returns how many of
    /// its run were taken with it.
    fn on_reply(&mut self, came: &Came<'_>, out: &mut impl Out) -> usize {
        let Came { datagram, now, .. } = came;
        if out.shows_packets() {
            out.packet(datagram.octets, came.len, *now);
        }
        let attempted = self.under_way.flight.attempted();
        let reply = match self.looks.parse(datagram) {
            Ok(reply) => reply,
            Err(kind) => {
                self.ignore(kind);
                return 1;
            }
        };
        let Some(seq) = self.under_way.named(reply.head, attempted) else {
            self.no_answer(reply.head, Kind::UnknownNumber);
            return 1;
        };
        let window = self.under_way.flight.window();
        if let Some(tap) = &mut self.tap {
            let low = attempted.saturating_sub(window);
            let low = low.min(self.under_way.flight.departed());
            tap.sweep_below(low, &self.tracker, out);
        }
        self.tracker.make_room(attempted);
        if attempted - seq > window {
            self.on_forgotten(seq, attempted, reply.head, *now, out);
            return 1;
        }
        let has_t1 = self.under_way.is_t1(seq, reply.head.sender_timestamp);
        let exchanged = !has_t1 && self.under_way.exchanged(seq, reply.head);
        let head = exchanged.then(|| reply.head.exchanged());
        let reply = Reply {
            head: head.as_ref().unwrap_or(reply.head),
            ..reply
        };
        if !has_t1 && !self.under_way.is_t1(seq, reply.head.sender_timestamp) {
            self.on_other_t1(seq, reply.head);
            return 1;
        }
        // Nothing was answered before.
        if self.tracker.received() == 0
            && self
                .presence
                .is_answered_too_soon(seq, &self.under_way, *now)
        {
            return 1;
        }
        let Some(answer) = self.first_in_time(seq, attempted, reply.head, came, out) else {
            return 1;
        };
        let packets = u64::from(answer.count);
        self.facts.times.exchanged += if exchanged { packets } else { 0 };
        self.on_answer(came, &reply, &answer, out);
        answer.count.into()
    }

    /// Counts a reply to packet `seq`. `Some`: it is the first one in time; so may be others of its run, which
    /// are taken with it.
    #[inline]
    fn first_in_time(
        &mut self,
        seq: u64,
        attempted: u64,
        head: &ReplyHead,
        came: &Came<'_>,
        out: &mut impl Out,
    ) -> Option<Answer> {
        let UnderWay {
            flight, timeout_ns, ..
        } = self.under_way;
        let near = self.own_time.came_ns(came.datagram.arrived_ns, came.now);
        let t1_ns = self.under_way.left_ns(head.sender_timestamp, near);
        let took = t1_ns.map_or(0, |t1| near.saturating_sub(t1));
        let stepped = self.own_time.was_set_after(seq);
        let long = !stepped && took > timeout_ns;
        let reflector_seq = head.seq.get();
        let taken = if came.run == 1 || long || stepped {
            1
        } else {
            let most = u64::try_from(came.run).unwrap_or(1);
            flight.together(seq, most.min(attempted - seq))
        };
        let taken = if taken > 1 && self.tracker.on_run(seq, reflector_seq, taken) {
            taken
        } else {
            let late = long && self.took_too_long(seq, near);
            let arrival = self.tracker.on_reply(seq, reflector_seq, late);
            if arrival != Arrival::First {
                self.further(seq, arrival, out);
                return None;
            }
            if long && let Some(tap) = &mut self.tap {
                tap.came_after_all(seq);
            }
            1
        };
        if !stepped {
            self.ending.note_took(took);
        }
        Some(Answer {
            seq,
            reflector_seq,
            count: u16::try_from(taken).unwrap_or(1),
            t1_ns,
            near,
            stepped,
        })
    }

    /// Whether a reply to a packet that was handed over longer ago than the timeout comes too late: not, if
    /// the packet is known to have left later.
    #[cold]
    fn took_too_long(&self, seq: u64, near: i64) -> bool {
        let (_, stamped) = self.under_way.flight.class(seq);
        let known = stamped && self.own_time.is_of_stamps();
        let left = self.stamps.of(seq).filter(|_| known);
        left.is_none_or(|left| near.saturating_sub(left) > self.under_way.timeout_ns)
    }

    /// A reply of the peer that is none to a packet under way: forged, to one that somebody else sent from
    /// our address, or to one that was withdrawn. With T1 of a packet of ours it is the reply to that one,
    /// whose number was spoiled.
    #[cold]
    fn no_answer(&mut self, head: &ReplyHead, kind: Kind) {
        let t1 = head.sender_timestamp;
        if self.presence.has_withdrawn(t1, &self.under_way) {
            return;
        }
        self.ignore(kind);
        if t1.raw() != 0 && !self.under_way.is_ours(t1) {
            self.tracker.on_other(head.seq.get());
        }
    }

    /// A reply with the number of a packet under way, which had another T1: to a probe, or to none. Where
    /// that packet is unanswered and the two are of one second, it is the reply to that packet, spoiled on
    /// the way.
    #[cold]
    fn on_other_t1(&mut self, seq: u64, head: &ReplyHead) {
        let t1 = head.sender_timestamp;
        if let Some(index) = self.under_way.probe(seq, t1) {
            self.ending.note_probe(index);
            let index = u64::try_from(index).unwrap_or(0);
            return self.tracker.on_probe(index, head.seq.get());
        }
        let second = |raw: u64| raw >> 32;
        let near = second(self.under_way.flight.t1(seq)) == second(t1.raw());
        if !near || self.tracker.in_time(seq) {
            self.no_answer(head, Kind::OtherT1);
        } else if !self.presence.has_withdrawn(t1, &self.under_way) {
            self.ignore(Kind::OtherT1);
        }
    }

    /// A reply to a packet whose T1 is no longer known: one, if it can be of this session at all, that
    /// came too late, or not alone.
    #[cold]
    fn on_forgotten(
        &mut self,
        seq: u64,
        attempted: u64,
        head: &ReplyHead,
        now: Now,
        out: &mut impl Out,
    ) {
        let now = now.wall_ns;
        // It left before all those whose T1 is known.
        let oldest = attempted - self.under_way.flight.window();
        let until = self.under_way.packet_left_ns(oldest, now).unwrap_or(now);
        let left = self.under_way.left_ns(head.sender_timestamp, now);
        if left.is_some_and(|left| (self.presence.begun_ns..=until).contains(&left)) {
            let arrival = self.tracker.on_reply(seq, head.seq.get(), true);
            self.further(seq, arrival, out);
        } else {
            self.no_answer(head, Kind::OtherT1);
        }
    }

    /// A reply that is not the first one in time to its packet.
    #[cold]
    fn further(&mut self, seq: u64, arrival: Arrival, out: &mut impl Out) {
        match arrival {
            Arrival::Late => self.tell(What::Late, seq, out),
            Arrival::Duplicate => self.tell(What::Duplicate, seq, out),
            Arrival::First => {}
        }
    }

    /// Tells watchers what happened to a packet.
    #[cold]
    fn tell(&self, what: What, seq: u64, out: &mut impl Out) {
        if self.tap.is_some() {
            out.happened(Record::of(what, seq));
        }
    }

    /// The first reply in time to a packet, or those to several that left and came together.
    #[inline]
    fn on_answer(
        &mut self,
        came: &Came<'_>,
        reply: &Reply<'_>,
        answer: &Answer,
        out: &mut impl Out,
    ) {
        let packets = u64::from(answer.count);
        let (class, stamped) = self.under_way.flight.class(answer.seq);
        self.facts.note(&came.datagram, reply, packets);
        let due = self.looks.due_octets(class);
        self.facts.sizes.note(class, (came.len, due), packets);
        let untold = !answer.stepped && tells_no_time(reply.head);
        let t1_ns = answer.t1_ns.filter(|_| !answer.stepped && !untold);
        let Some(t1_ns) = t1_ns else {
            let times = &mut self.facts.times;
            let without = if untold {
                &mut times.untold
            } else {
                &mut times.rejected
            };
            *without += packets;
            return self.unusable(answer, out);
        };
        let told = Told {
            answer: *answer,
            class,
            stamped,
            t1_ns,
            t2: reply.head.receive_timestamp,
            t3: reply.head.timestamp,
            claimed: reply.head.error_estimate.format(),
            t4_ns: came.datagram.arrived_ns,
        };
        match self.readings.look(reply.head, t1_ns, answer.near) {
            Some(reading) => {
                self.release_held(reading, came.now, out);
                self.on_told(&told, reading, came.now, out);
            }
            None => {
                if !self.readings.hold(told) {
                    self.settle_format(came.now, out);
                }
            }
        }
    }

    /// Nothing more is waited for to find out the format of T2 and T3.
    #[cold]
    fn settle_format(&mut self, now: Now, out: &mut impl Out) {
        if let Some(reading) = self.readings.settle() {
            self.release_held(reading, now, out);
        }
    }

    /// Takes the replies that waited for the format of T2 and T3.
    #[inline]
    fn release_held(&mut self, reading: Reading, now: Now, out: &mut impl Out) {
        if self.readings.holds_any() {
            for told in self.readings.take() {
                self.on_told(&told, reading, now, out);
            }
        }
    }

    /// A reply whose T2 and T3 can be read.
    fn on_told(&mut self, told: &Told, reading: Reading, now: Now, out: &mut impl Out) {
        let answer = &told.answer;
        let read = told.read(reading, &mut self.facts.times);
        let Some((t2_ns, t3_ns, t4_ns)) = read else {
            return self.unusable(answer, out);
        };
        let t1_stamp_ns = if told.stamped {
            self.stamps.of(answer.seq)
        } else {
            None
        };
        let reply = waiting::Reply {
            sample: Sample {
                seq: answer.seq,
                t1_ns: told.t1_ns,
                t1_stamp_ns,
                t2_ns,
                t3_ns,
                t4_ns,
                size_class: told.class,
                count: answer.count,
            },
            reflector_seq: answer.reflector_seq,
            wants_stamp: told.stamped && self.stamps.are_asked_for() && t1_stamp_ns.is_none(),
        };
        // It is recorded in its turn.
        if self.waiting.is_empty() && !reply.wants_stamp {
            return self.record(&reply, out);
        }
        if !self.waiting.has_room() {
            self.release(i64::MAX, out);
        }
        self.waiting.push(reply, now.at_ns);
    }

    fn unusable(&mut self, answer: &Answer, out: &mut impl Out) {
        if let Some(tap) = &mut self.tap {
            tap.unusable(answer, out);
        }
    }

    fn record(&mut self, reply: &waiting::Reply, out: &mut impl Out) {
        out.sample(reply.sample);
        if let Some(tap) = &mut self.tap {
            let synchronised = self.facts.estimates.synchronised() == Some(true);
            tap.replies(&reply.sample, reply.reflector_seq, synchronised, out);
        }
    }

    /// Records the replies that need not wait for their stamps any longer at `at_ns`, by the monotonic clock.
    #[inline]
    pub(crate) fn release(&mut self, at_ns: i64, out: &mut impl Out) {
        loop {
            let stamps = &self.stamps;
            let Some(reply) = self.waiting.next(at_ns, |sample| stamps.of(sample.seq)) else {
                break;
            };
            self.record(&reply, out);
            self.tell_mark(out);
        }
        self.under_way.flight.set_stamps_lost(self.waiting.lost());
    }

    /// Ends an interval of which all replies have been recorded; without room it is tried again.
    fn tell_mark(&mut self, out: &mut impl Out) {
        let synchronised = || self.facts.estimates.synchronised() == Some(true);
        self.waiting.tell_mark(|counts| {
            out.mark(Counts {
                unrecorded: out.unrecorded(),
                synchronised: synchronised(),
                ..counts
            })
        });
    }

    /// What is next at `now`, which is from before the last look at the socket. `emptied`: that look found
    /// nothing, so that what has not come by then has not come in time. `asked_to_end`: how often it was asked
    /// for that the session end.
    pub(crate) fn tick(
        &mut self,
        now: Now,
        emptied: bool,
        asked_to_end: u32,
        out: &mut impl Out,
    ) -> Next {
        if self.readings.overdue(now.wall_ns) {
            self.settle_format(now, out);
        }
        let look = if emptied {
            self.tick_tap(now, out)
        } else {
            i64::MAX
        };
        if self.under_way.flight.has_grace() && self.finds_absent(now, out) {
            return Next::Absent;
        }
        let seen = Seen {
            under_way: &self.under_way,
            tracker: &self.tracker,
            icmp: &self.facts.icmp,
            left_ns: self.own_time.left_ns(),
            asked_to_end,
        };
        let step = self.ending.next(&seen, now, out);
        step.map_or(Next::Over, |at| Next::At(at.min(look)))
    }

    /// Whether the peer is found not to be there yet. The sender may ask: an answer may have been under way.
    fn finds_absent(&mut self, now: Now, out: &mut impl Out) -> bool {
        if self.under_way.flight.is_asked() {
            if self.tracker.answered() == 0 {
                self.presence.is_absent = true;
            } else if !self.errors_queued {
                self.on_icmp(&Icmp::of_errno(libc::ECONNREFUSED), now, out);
            }
        }
        self.presence.is_absent
    }

    /// Looks at timeouts and intervals; returns when to look again.
    fn tick_tap(&mut self, now: Now, out: &mut impl Out) -> i64 {
        let Some(tap) = &mut self.tap else {
            return i64::MAX;
        };
        let ended = tap.tick(now, self.under_way.flight, &mut self.tracker, out);
        if let (false, Some(counts)) = (self.waiting.has_mark(), ended) {
            tap.ended(&counts);
            self.waiting.end_interval(counts);
        }
        let due = tap.due(now.at_ns);
        self.tell_mark(out);
        if self.waiting.has_mark() {
            // It waits for replies or for room, and is looked for again soon.
            return due.max(now.at_ns + MARK_NS);
        }
        due
    }

    /// Gives up this attempt: when the first one began, whether an answer came, and what watches.
    pub(crate) fn give_up(self) -> (i64, bool, Option<Tap>) {
        let mut tap = self.tap;
        if let Some(tap) = &mut tap {
            tap.begin_anew();
        }
        (self.presence.first_begun_ns, self.presence.any_answer, tap)
    }

    /// What was found of `sent` packets, and the counts with which the last interval ends.
    pub(crate) fn finish(
        mut self,
        sent: u64,
        now: Now,
        out: &mut impl Out,
    ) -> (Received, Option<Counts>) {
        self.settle_format(now, out);
        let times = &mut self.facts.times;
        times.belief = self.readings.belief();
        times.readings.extend(self.readings.known());
        self.release(i64::MAX, out);
        self.facts.stamps.lost = self.waiting.lost();
        self.facts.sizes.of_replies.sort_unstable();
        let cut_short = self.ending.is_cut_short();
        let due = if cut_short {
            self.under_way.first_in_time(sent, now.wall_ns)
        } else {
            sent
        };
        if let Some(tap) = &mut self.tap {
            tap.sweep_below(due, &self.tracker, out);
        }
        let counts = self.tracker.cut_short(sent, due);
        let last = self.tap.and_then(|tap| tap.finish(sent, &counts, now));
        let last = last.map(|last| Counts {
            unrecorded: out.unrecorded(),
            synchronised: self.facts.estimates.synchronised() == Some(true),
            ..last
        });
        let received = Received {
            counts,
            facts: self.facts,
            kernel_drops: None,
            unrecorded: 0,
            cpus: None,
            refused_call: None,
            failure: None,
            cut_short,
        };
        (received, last)
    }
}
