//! The sender thread: waits for departures that are due, patches packets, sends them.
//!
//! Packets are sent together only as far as the schedule makes them due together; trains are what the
//! user asked for, or what it takes to keep the rate. One that is
//! further behind than the timeout is not sent and takes no sequence number (RFC 4656 §4.1.1), nor
//! does one that the kernel refuses: such a packet is no loss of the path's.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender as ChannelSender};
use mio::{Token, Waker};
use zerocopy::IntoBytes;

use super::cores::merged;
use super::error_estimate::error_estimate;
use super::flight::{SenderEnd, Wish};
use super::icmp::{self, IcmpErrors};
use super::live::Copier;
use super::schedule::{Departure, Schedule};
use super::trains::refuses_trains;
use super::waits::Waits;
use crate::config::Pacing;
use crate::io::{Icmp, Refusals, RefusedCall, SendHalf, refused_call};
use crate::os::{self, EventLoop};
use crate::wire::protected::{self, Protection};
use crate::wire::{ErrorEstimate, Format, SENDER_LEN, SenderPacket, TestFormat, Timestamp};

/// Gaps below this are waited out spinning: going to sleep would take longer.
const SPIN_GAP_NS: i64 = 200_000;
/// How long before a departure a sleeping sender wakes up, to spin for the rest.
const WAKE_AHEAD_NS: i64 = 150_000;
/// From the start of the session to its first departure.
pub(crate) const LEAD_NS: i64 = 1_000_000;
/// A socket that has no room is looked at again after this.
const RETRY_NS: i64 = 1_000_000;
/// So many errors in a row may be of former packets: then the one at hand is what is refused.
const MOST_FORMER: u32 = 1000;
/// A session of which nothing could be sent ends after this.
const GIVE_UP_NS: i64 = 2_000_000_000;
/// A sender that is this far behind, and further than this long ago, sends longer trains.
const BEHIND_NS: i64 = 20_000_000;
/// How often the clock's quality is asked for.
const QUALITY_NS: i64 = 1_000_000_000;
/// A sender whose peer may not be there yet looks for that this often.
const GRACE_LOOK_NS: i64 = 5_000_000;

/// What the sender thread needs to know.
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    /// UDP payload of each size class, in octets.
    pub(crate) payloads: Vec<usize>,
    /// How the packets look.
    pub(crate) test: TestFormat,
    /// What protects them, where `test` has them protected.
    pub(crate) protection: Option<Protection>,
    /// What stands in every place of the batch to begin with.
    pub(crate) padding: Vec<u8>,
    pub(crate) timeout_ns: i64,
    /// Longest train that may be made where singles do not keep the rate; 1: none.
    pub(crate) most_burst: u32,
    pub(crate) mean_gap_ns: i64,
    /// The number of the first packet on the wire.
    pub(crate) first_seq: u32,
    /// Packets, where the session has so many.
    pub(crate) count: Option<u64>,
    pub(crate) format: Format,
    pub(crate) pacing: Pacing,
    /// Whether spinning starves nobody: there is another CPU for the receiver.
    pub(crate) may_spin: bool,
    /// Transmit stamps that the system keeps until they are fetched; 0: none are to be asked for.
    pub(crate) stamps_kept: u64,
    pub(crate) cpu: Option<usize>,
    pub(crate) realtime: bool,
    /// Packets of an attempt before stand in the places of the batch.
    pub(crate) again: bool,
    pub(crate) start: Start,
}

/// Lets all senders of a session begin together.
#[derive(Debug)]
pub(crate) struct Start {
    /// Told when this one is ready; hung up where it failed.
    pub(crate) ready: ChannelSender<()>,
    /// When to begin, by the monotonic clock; hung up where another one failed.
    pub(crate) at: Receiver<i64>,
    /// How long after that this one begins.
    pub(crate) offset_ns: i64,
}

impl Start {
    fn wait(&self) -> Option<i64> {
        self.ready.send(()).ok()?;
        Some(self.at.recv().ok()?.saturating_add(self.offset_ns))
    }
}

/// What the sender thread did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) sent: u64,
    /// Too far behind schedule.
    pub(crate) overdue: u64,
    /// Refused by the kernel, and its last reason where that was neither of the next two.
    pub(crate) refused: u64,
    pub(crate) refusal: Option<i32>,
    /// Threads that stopped before their time, since all their packets were refused.
    pub(crate) gave_up: u64,
    /// Of the refused ones, dropped by this host's own queue in front of the interface.
    pub(crate) no_room: u64,
    /// Of the refused ones, larger than the path is known to carry: that is not this host's doing.
    pub(crate) too_large: u64,
    /// Probes that left, which are none of `sent`.
    pub(crate) probes: u64,
    /// Why trains of some size were refused: packets of that size left one by one.
    pub(crate) unfolded: Option<i32>,
    /// The call for many packets that this system refuses, so that each took one of its own.
    pub(crate) refused_call: Option<RefusedCall>,
    /// The call that was refused until the end.
    pub(crate) failure: Option<RefusedCall>,
    /// ICMP errors that the sending socket was told of.
    pub(crate) icmp: IcmpErrors,
    pub(crate) by_class: Vec<u64>,
    pub(crate) late_departures: u64,
    /// Packets of the longest and of the last train.
    pub(crate) longest_burst: u32,
    pub(crate) last_burst: u32,
    pub(crate) max_slip_ns: i64,
    /// First and last departure, by the monotonic clock.
    pub(crate) first_ns: i64,
    pub(crate) last_ns: i64,
    /// First departure, since the Unix epoch.
    pub(crate) started_ns: i64,
    pub(crate) stamps_requested: u64,
    /// Two consecutive packets in so many asked for a stamp: at least, and at most.
    pub(crate) stamp_one_in: (u32, u32),
    pub(crate) interrupted: bool,
    /// Times that all began anew, since the peer was not there yet.
    pub(crate) began_anew: u64,
    pub(crate) cpus: Option<Vec<usize>>,
    pub(crate) realtime_refused: Option<String>,
    /// Of several threads each that sent something.
    pub(crate) paces: Vec<Pace>,
}

/// How fast a thread sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Packets of all, of the longest train, and from the first departure to the last one, which is not
    /// within that time itself.
    sent: f64,
    longest: f64,
    packets: f64,
    ns: f64,
}

impl Pace {
    /// The time that a packet stands for; 0 where all left at once.
    fn each_ns(&self) -> f64 {
        if self.packets > 0.0 {
            self.ns / self.packets
        } else {
            0.0
        }
    }

    /// Packets a second of all threads; `None` where all that each of them sent left at once.
    fn together(threads: &[Self]) -> Option<f64> {
        let most = |of: &dyn Fn(&Self) -> f64| threads.iter().map(of).fold(0.0, f64::max);
        let each_ns = most(&Self::each_ns);
        let whole = most(&|pace| pace.each_ns() * pace.sent);
        let (mut packets, mut ns, mut count) = (0.0, 0.0, 0.0);
        for pace in threads {
            let (of, time) = match pace.each_ns() {
                // All left at once, and stands for as much time as it does for others.
                0.0 => (pace.sent, pace.sent * each_ns),
                _ => (pace.packets, pace.ns),
            };
            let train = time / of * pace.longest;
            // One that ended long before the others, and had not just one train fewer, was idle then.
            let idle = time / of * pace.sent + 2.0 * train < whole;
            packets += of;
            ns += if idle { whole - train } else { time };
            count += 1.0;
        }
        (ns > 0.0).then(|| packets / ns * count * 1e9)
    }
}

impl Sent {
    /// Packets a second between the first departure and the last one; `None` where that is no time.
    pub(crate) fn pps(&self) -> Option<f64> {
        if self.paces.is_empty() {
            return Pace::together(&[self.pace()?]);
        }
        Pace::together(&self.paces)
    }

    /// Packets left later than they were handed over.
    pub(crate) fn left_later(&mut self, waits: &Waits) {
        let each = self.sent.div_ceil(self.stamps_requested.max(1));
        let late = waits.count.saturating_mul(each).min(self.sent);
        self.late_departures = self.late_departures.max(late);
        self.max_slip_ns = self.max_slip_ns.max(waits.longest_ns);
        self.last_ns = self.last_ns.saturating_add(waits.last_ns);
    }

    /// How fast this thread sent; `None`: nothing.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and nanoseconds of a rate: 53 bits are more than its precision"
    )]
    fn pace(&self) -> Option<Pace> {
        if self.sent == 0 {
            return None;
        }
        let ns = (self.last_ns - self.first_ns).max(0) as f64;
        let sent = self.sent as f64;
        let packets = (sent - f64::from(self.last_burst)).max(0.0);
        Some(Pace {
            sent,
            longest: self.longest_burst.into(),
            packets,
            ns,
        })
    }

    /// What several sender threads of one session did.
    pub(crate) fn together<'a>(threads: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        let mut cpus: Option<Vec<usize>> = Some(Vec::new());
        for thread in threads {
            // The first and the last departure are of threads that sent something.
            if thread.sent > 0 && (all.sent == 0 || thread.first_ns < all.first_ns) {
                (all.first_ns, all.started_ns) = (thread.first_ns, thread.started_ns);
            }
            if thread.sent > 0 && (all.sent == 0 || thread.last_ns > all.last_ns) {
                all.last_ns = thread.last_ns;
            }
            all.paces.extend(thread.pace());
            all.sent += thread.sent;
            all.overdue += thread.overdue;
            all.refused += thread.refused;
            all.refusal = all.refusal.or(thread.refusal);
            all.gave_up += thread.gave_up;
            all.no_room += thread.no_room;
            all.too_large += thread.too_large;
            all.probes += thread.probes;
            all.unfolded = all.unfolded.or(thread.unfolded);
            all.refused_call = all.refused_call.or(thread.refused_call);
            all.failure = all.failure.or(thread.failure);
            all.icmp.add(&thread.icmp);
            all.by_class.resize(thread.by_class.len(), 0);
            for (count, more) in all.by_class.iter_mut().zip(&thread.by_class) {
                *count += more;
            }
            all.late_departures += thread.late_departures;
            all.longest_burst = all.longest_burst.max(thread.longest_burst);
            all.max_slip_ns = all.max_slip_ns.max(thread.max_slip_ns);
            let ((least, most), (from, to)) = (all.stamp_one_in, thread.stamp_one_in);
            all.stamp_one_in = match all.stamps_requested {
                0 => (from, to),
                _ => (least.min(from), most.max(to)),
            };
            all.stamps_requested += thread.stamps_requested;
            all.interrupted |= thread.interrupted;
            all.began_anew += thread.began_anew;
            cpus = cpus
                .zip(thread.cpus.as_ref())
                .map(|(cpus, more)| merged(cpus, more));
            if all.realtime_refused.is_none() {
                all.realtime_refused.clone_from(&thread.realtime_refused);
            }
        }
        all.cpus = cpus;
        all
    }
}

/// Runs a session's departures, then answers the receiver's wishes until it hangs up.
///
/// # Errors
/// The system's, from setting up the event loop.
pub(crate) fn run<S: SendHalf>(
    half: &mut S,
    plan: Plan,
    flight: SenderEnd<'_>,
    stop: &AtomicBool,
    ready: impl FnOnce(Waker),
    receiver: &Waker,
    (wishes, copier): (&Receiver<Wish>, &mut Option<Copier>),
) -> io::Result<Sent> {
    let over = Over { flight, receiver };
    let events = EventLoop::new()?;
    ready(Waker::new(events.registry(), Token(0))?);
    let mut thread = Sender::new(half, plan, flight, stop, events, copier);
    thread.settle_in();
    if let Some(start) = thread.plan.start.wait() {
        thread.depart(start);
    }
    // Refused packets may have been announced: they are not under way.
    flight.attempt(thread.seq);
    over.tell(thread.seq, thread.totals.last_ns);
    for probe in wishes {
        thread.probe(probe);
    }
    if thread.totals.sent > 0 {
        let failure = thread.totals.failure;
        thread.totals.failure = failure.or(thread.refusals.for_good(false));
    }
    thread.totals.refused_call = thread.half.refused_call();
    thread.totals.stamps_requested = thread.stamps.requested;
    thread.totals.stamp_one_in = thread.stamps.apart;
    Ok(thread.totals)
}

/// Tells the receiver that no more packets will leave, also where this thread ends by an error or a
/// bug: nobody waits for ever.
struct Over<'a> {
    flight: SenderEnd<'a>,
    receiver: &'a Waker,
}

impl Over<'_> {
    fn tell(&self, sent: u64, last_ns: i64) {
        self.flight.finish(sent, last_ns);
        // The receiver wakes up by itself as well; this only spares it the wait.
        let _ = self.receiver.wake();
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if self.flight.finished().is_none() {
            self.tell(0, os::monotonic_ns());
        }
    }
}

/// A packet or train of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// By the monotonic clock.
    pub(super) at_ns: i64,
    pub(super) class: u8,
    pub(super) count: u32,
}

/// The schedule with its next departure.
struct Agenda {
    schedule: Schedule,
    next: Option<Departure>,
}

impl Agenda {
    /// The next departure, if it is due.
    fn take_due(&mut self, start: i64, now: i64) -> Option<Due> {
        let next = self.next?;
        let at_ns = due(next, start).unwrap_or(now);
        if at_ns > now {
            return None;
        }
        self.next = self.schedule.next();
        Some(Due {
            at_ns,
            class: next.class,
            count: next.count,
        })
    }
}

/// Notices that the rate is not kept.
#[derive(Debug, Default)]
struct Lag {
    look_at: i64,
    before: i64,
}

impl Lag {
    /// True if the sender is far behind and falls further behind.
    fn grows(&mut self, now: i64, behind: i64) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + BEHIND_NS;
        let before = std::mem::replace(&mut self.before, behind);
        behind > BEHIND_NS && behind > before && before > BEHIND_NS / 4
    }
}

pub(super) struct Sender<'a, S> {
    half: &'a mut S,
    plan: Plan,
    flight: SenderEnd<'a>,
    stop: &'a AtomicBool,
    events: EventLoop,
    /// Sequence number of the next packet, extended to 64 bits.
    pub(super) seq: u64,
    /// The departures that leave together.
    pub(super) batch: Vec<Due>,
    /// What was due before, and leaves first: trains that are taken apart.
    held: VecDeque<Due>,
    /// An error that the network may have told of a former packet: this one is tried again.
    told: Option<i32>,
    refusals: Refusals,
    /// Octets and number of the packets that were written into each place last.
    written: Vec<(usize, usize)>,
    /// With what each packet begins, its fields blank.
    fixed: Vec<u8>,
    /// Size classes whose trains the kernel refuses: their packets leave one by one.
    unfolded: Vec<bool>,
    /// Trains so far.
    trains: u64,
    lag: Lag,
    head: SenderPacket,
    quality_until: i64,
    stamps: Stamps,
    totals: Sent,
    copier: &'a mut Option<Copier>,
}

impl<'a, S: SendHalf> Sender<'a, S> {
    pub(super) fn new(
        half: &'a mut S,
        plan: Plan,
        flight: SenderEnd<'a>,
        stop: &'a AtomicBool,
        events: EventLoop,
        copier: &'a mut Option<Copier>,
    ) -> Self {
        let places = half.places();
        let mut fixed = vec![0; plan.test.fixed_len()];
        plan.test.fill(&mut fixed, None);
        if plan.again {
            wipe(half, &plan);
        }
        Self {
            half,
            flight,
            stop,
            events,
            seq: 0,
            batch: Vec::with_capacity(places),
            held: VecDeque::with_capacity(2 * places),
            told: None,
            refusals: Refusals::default(),
            written: vec![(0, 0); places],
            fixed,
            unfolded: vec![false; plan.payloads.len()],
            trains: 0,
            lag: Lag::default(),
            head: SenderPacket {
                seq: 0.into(),
                timestamp: Timestamp::from_raw(0),
                error_estimate: ErrorEstimate::UNKNOWN,
            },
            quality_until: i64::MIN,
            stamps: Stamps::new(plan.stamps_kept, plan.mean_gap_ns, plan.count),
            totals: Sent {
                by_class: vec![0; plan.payloads.len()],
                ..Sent::default()
            },
            copier,
            plan,
        }
    }

    fn settle_in(&mut self) {
        self.totals.cpus = self.plan.cpu.and_then(os::pin);
        os::sharpen_timers();
        if self.plan.realtime
            && let Err(error) = os::set_realtime()
        {
            self.totals.realtime_refused = Some(error.to_string());
        }
    }

    fn depart(&mut self, start: i64) {
        let end = self.plan.schedule.duration_ns();
        let end = end.and_then(|ns| start.checked_add_unsigned(ns));
        let mut schedule = self.plan.schedule.clone();
        let next = schedule.next();
        let mut agenda = Agenda { schedule, next };
        let mut now = os::monotonic_ns();
        while agenda.next.is_some() || !self.held.is_empty() {
            if self.stop.load(Ordering::Relaxed) {
                self.totals.interrupted = true;
                self.flight.set_interrupted();
                return;
            }
            if self.flight.is_absent() || self.flight.is_abandoned() {
                return;
            }
            // What is held is due.
            let held = self.held.front().map(|held| Some(held.at_ns));
            match held.or_else(|| agenda.next.map(|next| due(next, start))) {
                Some(Some(due)) if due > now => {
                    now = self.wait_for(due);
                    continue;
                }
                Some(None) if end.is_some_and(|end| now >= end) => return,
                _ => {}
            }
            self.refresh_quality(now);
            self.gather(&mut agenda, start, now);
            self.lengthen(&mut agenda, now);
            now = self.send_batch(now);
            if self.totals.failure.is_some() {
                return;
            }
            if self.seq == 0 && now - start > GIVE_UP_NS && self.totals.refused > 0 {
                self.totals.gave_up = 1;
                return;
            }
        }
    }

    /// Waits until a moment, or until something else wakes the thread; returns the time.
    fn wait_for(&mut self, due: i64) -> i64 {
        let spin = self.plan.may_spin || self.plan.pacing == Pacing::Spin;
        let ahead = match self.plan.pacing {
            Pacing::Spin => i64::MAX,
            Pacing::Auto if spin && self.plan.mean_gap_ns < SPIN_GAP_NS => i64::MAX,
            Pacing::Auto if spin => WAKE_AHEAD_NS,
            Pacing::Auto | Pacing::Sleep => 0,
        };
        let mut now = os::monotonic_ns();
        let due = if self.flight.in_grace(now) {
            due.min(now + GRACE_LOOK_NS)
        } else {
            due
        };
        let sleep_until = due.saturating_sub(ahead);
        if now < sleep_until {
            self.events.wait_until(sleep_until);
            return os::monotonic_ns();
        }
        while now < due && !self.stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
            now = os::monotonic_ns();
        }
        now
    }

    fn refresh_quality(&mut self, now: i64) {
        if now >= self.quality_until {
            self.head.error_estimate = error_estimate(self.plan.format);
            self.quality_until = now + QUALITY_NS;
        }
    }

    /// Collects what is due, at most one batch.
    fn gather(&mut self, agenda: &mut Agenda, start: i64, now: i64) {
        self.batch.clear();
        while self.batch.len() < self.batch.capacity() {
            let held = self.held.pop_front();
            let Some(due) = held.or_else(|| agenda.take_due(start, now)) else {
                return;
            };
            if now - due.at_ns > self.plan.timeout_ns {
                self.totals.overdue += u64::from(due.count);
            } else if due.count > 1 && self.unfolded[usize::from(due.class)] {
                let count = due.count - 1;
                self.held.push_front(Due { count, ..due });
                self.batch.push(Due { count: 1, ..due });
            } else {
                self.batch.push(due);
            }
        }
    }

    /// Makes longer trains where the rate is not kept: twice as long, and only as far as needed; none
    /// where there can be none.
    fn lengthen(&mut self, agenda: &mut Agenda, now: i64) {
        let Some(first) = self.batch.first() else {
            return;
        };
        let burst = agenda.schedule.burst();
        if burst < self.plan.most_burst
            && now - first.at_ns > 0
            && self.lag.grows(now, now - first.at_ns)
        {
            let longer = (burst * 2).min(self.plan.most_burst);
            agenda.schedule.set_burst(longer);
            self.flight.set_burst(longer);
        } else if burst > self.plan.most_burst {
            agenda.schedule.set_burst(self.plan.most_burst);
        }
    }

    /// Sends the batch; returns the time when the last packet had left.
    fn send_batch(&mut self, mut now: i64) -> i64 {
        let mut from = 0;
        // Errors in a row that were of former packets.
        let mut former = 0;
        while from < self.batch.len() {
            self.fill(from);
            match self.half.send(from, self.batch.len()) {
                Ok(count) => {
                    let after = os::monotonic_ns();
                    former = 0;
                    self.refusals.end();
                    if let Some(errno) = self.told.take() {
                        self.totals.icmp.note(&Icmp::of_errno(errno));
                    }
                    self.account(from, count, now, after);
                    from += count;
                    now = after;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.events.wait_until(now + RETRY_NS);
                        now = os::monotonic_ns();
                        from = self.drop_overdue(from, now);
                        if self.stop.load(Ordering::Relaxed) {
                            return now;
                        }
                    }
                    // It tells of a former packet; this one has not been tried.
                    io::ErrorKind::ConnectionRefused if former < MOST_FORMER => {
                        former += 1;
                        if self.flight.in_grace(os::monotonic_ns()) {
                            self.flight.ask_whether_absent();
                        } else {
                            self.totals.icmp.note(&Icmp::of_errno(libc::ECONNREFUSED));
                        }
                    }
                    _ if self.told.is_none() && icmp::may_be_told(&error) => {
                        self.told = error.raw_os_error();
                    }
                    _ if refused_call(&error).is_some() => {
                        self.totals.failure = refused_call(&error);
                        return os::monotonic_ns();
                    }
                    _ if self.unfold(from, &error) => {
                        // These and those behind are gathered anew.
                        for due in self.batch.drain(from..).rev() {
                            self.held.push_front(due);
                        }
                    }
                    _ => {
                        let count = u64::from(self.batch[from].count);
                        self.totals.refused += count;
                        self.refusals.note(self.half.send_call(), &error, now);
                        if no_room(&error) {
                            self.totals.no_room += count;
                        } else if error.raw_os_error() == Some(libc::EMSGSIZE) {
                            self.totals.too_large += count;
                        } else {
                            self.totals.refusal = error.raw_os_error();
                        }
                        // It came again at once: it was of this packet.
                        self.told = None;
                        from += 1;
                        now = os::monotonic_ns();
                    }
                },
            }
        }
        now
    }

    fn drop_overdue(&mut self, mut from: usize, now: i64) -> usize {
        while let Some(due) = self.batch.get(from)
            && now - due.at_ns > self.plan.timeout_ns
        {
            self.totals.overdue += u64::from(due.count);
            from += 1;
        }
        from
    }

    /// Whether the train of this place is refused for what it is: then the packets of its class go one
    /// by one from now on.
    fn unfold(&mut self, from: usize, error: &io::Error) -> bool {
        let due = self.batch[from];
        if due.count == 1 || !refuses_trains(error) {
            return false;
        }
        self.flight.take_apart(self.seq);
        self.unfolded[usize::from(due.class)] = true;
        self.totals.unfolded = error.raw_os_error();
        if self.unfolded.iter().all(|unfolded| *unfolded) {
            self.plan.most_burst = 1;
        }
        true
    }

    /// Writes the batch from place `from` on, with T1 of this moment.
    fn fill(&mut self, from: usize) {
        if self.plan.protection.is_some() {
            return self.fill_protected(from);
        }
        let t1 = self.new_t1();
        let mut seq = self.seq;
        for place in from..self.batch.len() {
            let Due { class, count, .. } = self.batch[place];
            let stamp = self.note(place, from, seq, t1);
            self.write(place, seq, class, count, stamp);
            seq += u64::from(count);
        }
        self.flight.attempt(seq);
    }

    /// The same of protected packets: each packet or train has T1 of the moment in which the rest of it
    /// is done, since that takes longer than all else.
    fn fill_protected(&mut self, from: usize) {
        let mut seq = self.seq;
        for place in from..self.batch.len() {
            let Due { class, count, .. } = self.batch[place];
            let train = self.trains + u64::try_from(place - from).unwrap_or(0);
            let stamp = self.stamps.wanted(train);
            let t1 = self.write_protected(place, seq, stamp);
            self.flight.note(seq, u64::from(count), t1, class, stamp);
            seq += u64::from(count);
        }
        self.flight.attempt(seq);
    }

    /// Notes the packets of one place, of which `seq` is the first, in the batch from place `from`
    /// on; returns whether they ask for a stamp.
    pub(super) fn note(&self, place: usize, from: usize, seq: u64, t1: u64) -> bool {
        let Due { class, count, .. } = self.batch[place];
        let train = self.trains + u64::try_from(place - from).unwrap_or(0);
        let stamp = self.stamps.wanted(train);
        self.flight.note(seq, u64::from(count), t1, class, stamp);
        stamp
    }

    pub(super) fn new_t1(&mut self) -> u64 {
        let t1 = Timestamp::from_unix_ns(os::realtime_ns(), self.plan.format);
        self.head.timestamp = t1;
        t1.raw()
    }

    /// Writes one place: `count` packets from `seq` on.
    pub(super) fn write(&mut self, place: usize, seq: u64, class: u8, count: u32, stamp: bool) {
        let payload = self.plan.payloads[usize::from(class)];
        let packets = usize::try_from(count).unwrap_or(1);
        let id = stamp.then_some(low_half(seq));
        self.clean(place, payload, packets);
        let octets = self.half.set(place, payload, packets, id);
        let mut number = low_half(seq).wrapping_add(self.plan.first_seq);
        for packet in octets.chunks_exact_mut(payload) {
            self.head.seq = number.into();
            packet[..SENDER_LEN].copy_from_slice(self.head.as_bytes());
            if let Some(copier) = self.copier.as_mut() {
                copier.copy(&packet[..SENDER_LEN], payload, os::monotonic_ns());
            }
            number = number.wrapping_add(1);
        }
    }

    /// The same of protected packets, for a place of the batch. T1 is the moment in which all is done that
    /// can be done without it; returns it.
    fn write_protected(&mut self, place: usize, seq: u64, stamp: bool) -> u64 {
        let Due { class, count, .. } = self.batch[place];
        let payload = self.plan.payloads[usize::from(class)];
        let packets = usize::try_from(count).unwrap_or(1);
        let id = stamp.then_some(low_half(seq));
        self.clean(place, payload, packets);
        let Some(protection) = &self.plan.protection else {
            return self.head.timestamp.raw();
        };
        let octets = self.half.set(place, payload, packets, id);
        let mut packet = protected::SenderPacket::from(self.head);
        let first = low_half(seq).wrapping_add(self.plan.first_seq);
        for (number, octets) in (0..).zip(octets.chunks_exact_mut(payload)) {
            packet.head.seq = first.wrapping_add(number).into();
            octets[..protected::SENDER_LEN].copy_from_slice(packet.as_bytes());
        }
        protection.prepare::<protected::SenderPacket>(octets, payload);
        let t1 = Timestamp::from_unix_ns(os::realtime_ns(), self.plan.format);
        protection.stamp::<protected::SenderPacket>(octets, payload, t1);
        self.head.timestamp = t1;
        if let Some(copier) = self.copier.as_mut() {
            for number in 0..count {
                // In clear, as whoever watches can read it.
                self.head.seq = first.wrapping_add(number).into();
                copier.copy(self.head.as_bytes(), payload, os::monotonic_ns());
            }
        }
        t1.raw()
    }

    /// Restores the padding where packets of another size begin in a place, and writes what is fixed
    /// where packets begin that did not before. Timestamps in the padding could read as what a
    /// reflector's guard against loops looks for.
    fn clean(&mut self, place: usize, payload: usize, packets: usize) {
        let (octets, count) = self.written[place];
        if octets == payload && packets <= count {
            return;
        }
        self.written[place] = (payload, packets);
        if octets != payload && octets > 0 {
            let slot = self.half.set(place, octets, count, None);
            let fixed = self.fixed.len().min(octets);
            for at in (0..slot.len()).step_by(octets) {
                let head = at..at + fixed;
                slot[head.clone()].copy_from_slice(&self.plan.padding[head]);
            }
        }
        let fields = self.plan.test.sender_len();
        if self.fixed.len() > fields {
            let fixed = fields..self.fixed.len().min(payload);
            let slot = self.half.set(place, payload, packets, None);
            for packet in slot.chunks_exact_mut(payload) {
                packet[fixed.clone()].copy_from_slice(&self.fixed[fixed.clone()]);
            }
        }
    }

    /// Counts the places `from..from + count` of the batch, which left between two moments.
    pub(super) fn account(&mut self, from: usize, count: usize, before: i64, after: i64) {
        let step = (after - before) / i64::try_from(count.max(1)).unwrap_or(1);
        let mut left = before;
        for place in from..from + count {
            let due = self.batch[place];
            self.stamps.requested += u64::from(self.flight.class(self.seq).1);
            self.trains += 1;
            self.account_one(due, left);
            left += step;
        }
        self.stamps.adapt(after, self.flight.stamps_lost());
    }

    /// Counts the packets of a place, which left.
    fn account_one(&mut self, due: Due, left: i64) {
        if self.totals.sent == 0 {
            self.totals.first_ns = left;
            self.totals.started_ns = os::realtime_ns() - (os::monotonic_ns() - left);
            self.flight.first_left(left);
        }
        let count = u64::from(due.count);
        self.totals.by_class[usize::from(due.class)] += count;
        let slip = left - due.at_ns;
        self.totals.max_slip_ns = self.totals.max_slip_ns.max(slip);
        let gap = self.plan.mean_gap_ns.saturating_mul(i64::from(due.count));
        self.totals.late_departures += if slip > gap { count } else { 0 };
        self.totals.longest_burst = self.totals.longest_burst.max(due.count);
        self.totals.last_burst = due.count;
        self.totals.last_ns = left;
        self.seq += count;
        self.totals.sent = self.seq;
        self.flight.depart(self.seq);
    }

    /// Sends the last sequence number once more, outside all counts.
    fn probe(&mut self, index: usize) {
        let Some(last) = self.seq.checked_sub(1) else {
            return;
        };
        self.batch.clear();
        self.batch.push(Due {
            at_ns: os::monotonic_ns(),
            class: 0,
            count: 1,
        });
        let t1 = if self.plan.protection.is_some() {
            self.write_protected(0, last, false)
        } else {
            let t1 = self.new_t1();
            self.write(0, last, 0, 1, false);
            t1
        };
        self.flight.note_probe(index, t1);
        for _ in 0..3 {
            match self.half.send(0, 1) {
                // It tells of a packet before.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // An unanswered probe is what a refused one is, too.
                result => {
                    self.totals.probes += u64::from(result.is_ok_and(|left| left > 0));
                    return;
                }
            }
        }
    }
}

/// Restores the padding in all places.
fn wipe<S: SendHalf>(half: &mut S, plan: &Plan) {
    let payload = plan.payloads.iter().copied().max().unwrap_or(0);
    let packets = usize::try_from(plan.most_burst).unwrap_or(1);
    for place in 0..half.places() {
        let octets = half.set(place, payload, packets, None);
        octets.copy_from_slice(&plan.padding[..octets.len()]);
    }
}

fn no_room(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32)
}

fn due(departure: Departure, start: i64) -> Option<i64> {
    departure
        .due_ns
        .map(|due| start.saturating_add_unsigned(due))
}

fn low_half(seq: u64) -> u32 {
    u32::try_from(seq & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// Which packets ask for a transmit stamp: two consecutive ones in every N, so that IPDV exists.
///
/// N is 1 up to 18,750 packets a second, and grows with the rate from there: a stamp costs about as
/// much as a quarter of a packet, on the CPU that also takes the replies. It is larger where the system
/// keeps few stamps until they are fetched. Where stamps of packets that were answered do not come, the
/// system had no room for them: N grows, and shrinks again as soon as they come. A stamp of a packet that
/// was not answered says nothing of that: the packet may wait in a queue, or have been dropped there.
#[derive(Debug)]
struct Stamps {
    /// None are asked for.
    off: bool,
    one_in: u32,
    /// `one_in` where none are lost.
    least_apart: u32,
    /// The smallest and the largest `one_in` so far.
    apart: (u32, u32),
    requested: u64,
    window_ends: i64,
    /// Requested and lost at the end of the last window.
    before: (u64, u64),
}

impl Stamps {
    const MOST_APART: u32 = 1024;
    const LEAST_PAIRS: u64 = 128;
    /// Two stamps in this time are what every host keeps up with: 12,500 a second.
    const EASY_GAP_NS: i64 = 160_000;
    /// The system has room for what is asked for in twice this time, during which nobody may come by to
    /// fetch it.
    const UNFETCHED_NS: i64 = 50_000_000;
    const WINDOW_NS: i64 = 100_000_000;
    /// Where more than one in so many is lost there are too many.
    const LOST_ONE_IN: u64 = 32;

    fn new(kept: u64, mean_gap_ns: i64, count: Option<u64>) -> Self {
        let kept = i64::try_from(kept).unwrap_or(i64::MAX);
        let gap_ns = Self::EASY_GAP_NS.max(4 * Self::UNFETCHED_NS / kept.max(1));
        let per_gap = gap_ns / mean_gap_ns.max(1);
        // However short a session is, some of its packets are stamped.
        let most = count.map_or(u32::MAX, |count| {
            u32::try_from(count / Self::LEAST_PAIRS).unwrap_or(u32::MAX)
        });
        let one_in = match u32::try_from(per_gap)
            .unwrap_or(u32::MAX)
            .min(Self::MOST_APART)
            .min(most)
        {
            0..=2 => 1,
            apart => apart.next_power_of_two(),
        };
        Self {
            off: kept == 0,
            one_in,
            least_apart: one_in,
            apart: (one_in, one_in),
            requested: 0,
            window_ends: i64::MIN,
            before: (0, 0),
        }
    }

    /// Whether packet or train number `train` asks for one.
    fn wanted(&self, train: u64) -> bool {
        !self.off && train % u64::from(self.one_in) < 2
    }

    /// Looks at how many were lost in all.
    fn adapt(&mut self, now: i64, lost: u64) {
        if now < self.window_ends {
            return;
        }
        self.window_ends = now.saturating_add(Self::WINDOW_NS);
        let (requested_before, lost_before) =
            std::mem::replace(&mut self.before, (self.requested, lost));
        let requested = self.requested - requested_before;
        let lost = lost.saturating_sub(lost_before);
        if lost * Self::LOST_ONE_IN > requested {
            self.one_in = (self.one_in * 4).min(Self::MOST_APART);
        } else if lost == 0 {
            self.one_in = (self.one_in / 2).max(self.least_apart);
        }
        let (least, most) = self.apart;
        self.apart = (least.min(self.one_in), most.max(self.one_in));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate of threads that sent so many packets, the last ones as a train of so many, in so many
    /// microseconds, with trains of `longest`.
    fn pps(longest: u32, threads: &[(u64, u32, i64)]) -> Option<f64> {
        let threads = threads.iter().map(|(sent, last_burst, us)| Sent {
            sent: *sent,
            longest_burst: longest,
            last_burst: *last_burst,
            first_ns: 7,
            last_ns: 7 + us * 1000,
            ..Sent::default()
        });
        let threads: Vec<_> = threads.collect();
        let together = Sent::together(threads.iter()).pps();
        if let [one] = threads.as_slice() {
            assert_eq!(one.pps(), together);
        }
        together
    }

    #[test]
    fn threads_have_the_rate_at_which_they_sent_together() {
        // Each of two sends 64 of its 100 packets and after 1280 ms the rest.
        let halves = [(100, 36, 1_280_000); 2];
        // At 250 a second each, two and one packet behind the first.
        let few = [(3, 1, 8000), (3, 1, 8001), (2, 1, 4000), (2, 1, 4000)];
        for (longest, threads, rate) in [
            (64, &halves[..1], Some(50.0)),
            (64, &halves, Some(100.0)),
            (1, &few, Some(1000.0)),
            // One stopped after 2 of 10 seconds.
            (
                1,
                &[(1001, 1, 10_000_000), (201, 1, 2_000_000)],
                Some(120.0),
            ),
            (1, &[(1001, 1, 10_000_000), (0, 0, 0)], Some(100.0)),
            // One with a single train had its time as well.
            (2, &[(3, 1, 8000), (2, 2, 0)], Some(500.0)),
            (
                1,
                &[(2, 1, 200_000), (2, 1, 200_000), (1, 1, 0)],
                Some(15.0),
            ),
            // Of what left at once nobody knows how long it would have taken.
            (1, &[(1, 1, 0)], None),
            (8, &[(8, 8, 0), (8, 8, 0)], None),
            (1, &[(0, 0, 0)], None),
        ] {
            let found = pps(longest, threads);
            let near = found.zip(rate).map(|(a, b)| (a / b - 1.0).abs() < 0.001);
            assert_eq!(
                (found.is_some(), near),
                (rate.is_some(), rate.map(|_| true)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_lag_that_grows_is_told_from_one_that_does_not() {
        const LOOK: i64 = BEHIND_NS;
        // How far behind it is at looks in a row, and what is said of each.
        for (behind, grows) in [
            // Nearer to the schedule than that, whatever becomes of it.
            ([0, BEHIND_NS / 2, BEHIND_NS], [false, false, false]),
            // A single stall, after which it catches up.
            ([0, 9 * BEHIND_NS, 8 * BEHIND_NS], [false, false, false]),
            (
                [2 * BEHIND_NS, 2 * BEHIND_NS, 2 * BEHIND_NS],
                [false, false, false],
            ),
            // Further from one look to the next.
            (
                [BEHIND_NS / 2, 2 * BEHIND_NS, 3 * BEHIND_NS],
                [false, true, true],
            ),
            (
                [BEHIND_NS / 4, 2 * BEHIND_NS, 3 * BEHIND_NS],
                [false, false, true],
            ),
        ] {
            let mut lag = Lag::default();
            let found = [0, LOOK, 2 * LOOK].map(|now| {
                let place = usize::try_from(now / LOOK).unwrap();
                let found = lag.grows(1000 + now, behind[place]);
                // Between two looks nothing is said, and nothing noted.
                assert!(!lag.grows(1000 + now + 1, 90 * BEHIND_NS));
                assert!(!lag.grows(1000 + now + LOOK - 1, 1));
                found
            });
            assert_eq!(found, grows, "{behind:?}");
        }
    }

    #[test]
    fn stamps_are_asked_for_in_pairs() {
        let stamps = Stamps::new(1000, 100_000, None);
        assert!((0..100).all(|seq| stamps.wanted(seq)));
        // 100,000 packets a second.
        let stamps = Stamps::new(1 << 16, 10_000, None);
        let wanted: Vec<u64> = (0..40).filter(|seq| stamps.wanted(*seq)).collect();
        assert_eq!(wanted, [0, 1, 16, 17, 32, 33]);
        assert!(!Stamps::new(0, 100_000, None).wanted(0));
    }

    #[test]
    fn no_more_stamps_are_asked_for_than_the_system_keeps_while_nobody_fetches_them() {
        // An ordinary user's socket buffer keeps 208 of them: 100 in 50 ms.
        for (kept, gap_ns, one_in) in [
            (208, 1_000_000, 1),
            (208, 10_000, 128),
            (8192, 10_000, 16),
            (1 << 16, 10_000, 16),
            (1, 1_000_000, 256),
        ] {
            assert_eq!(
                Stamps::new(kept, gap_ns, None).one_in,
                one_in,
                "{kept} {gap_ns}"
            );
        }
        // Few packets are stamped all the same.
        assert_eq!(Stamps::new(208, 10_000, Some(256)).one_in, 1);
    }

    #[test]
    fn stamps_that_are_lost_thin_them_out_and_a_second_later_they_are_as_before() {
        let mut stamps = Stamps::new(1 << 16, 10_000, None);
        let (mut at, mut lost) = (0, 0);
        let mut windows = |stamps: &mut Stamps, count: u32, share: u64| {
            for _ in 0..count {
                let asked = 1_000_000 * 2 / u64::from(stamps.one_in);
                stamps.requested += asked;
                lost += asked / 100 * share;
                at += Stamps::WINDOW_NS;
                stamps.adapt(at, lost);
            }
        };
        windows(&mut stamps, 5, 0);
        assert_eq!(stamps.one_in, 16);
        windows(&mut stamps, 5, 2);
        assert_eq!(stamps.one_in, 16, "few may be lost");
        windows(&mut stamps, 10, 50);
        assert_eq!(stamps.one_in, Stamps::MOST_APART);
        windows(&mut stamps, 9, 0);
        assert_eq!(stamps.one_in, 16, "less than a second");
        assert_eq!(stamps.apart, (16, Stamps::MOST_APART));
    }
}

#[cfg(test)]
mod behind;
#[cfg(test)]
mod refusals;
