//! The thread that drives one fast session: it has the socket, the clock and a CPU, waits for what is due,
//! and sends it.
//!
//! Packets are sent together only as far as the schedule makes them due together; trains are what the
//! user asked for, or what it takes to keep the rate.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender as ChannelSender};
use mio::{Token, Waker};

use super::agenda::Due;
use super::batch::Batch;
use super::refusals::{Errors, Trouble};
use super::side::{Plan, SenderSide};
use super::totals::{Sent, ThreadFacts};
use super::writer::{ReadT1, low_half};
use crate::config::Pacing;
use crate::engine::error_estimate::error_estimate;
use crate::engine::flight::{SenderEnd, Wish};
use crate::engine::live::Copier;
use crate::io::SendHalf;
use crate::os::{self, EventLoop};
use crate::wire::Timestamp;

/// Gaps below this are waited out spinning: going to sleep would take longer.
const SPIN_GAP_NS: i64 = 200_000;
/// How long before a departure a sleeping sender wakes up, to spin for the rest.
const WAKE_AHEAD_NS: i64 = 150_000;
/// A socket that has no room is looked at again after this.
const RETRY_NS: i64 = 1_000_000;
/// How often the clock's quality is asked for.
const QUALITY_NS: i64 = 1_000_000_000;
/// A sender whose peer may not be there yet looks for that this often.
const GRACE_LOOK_NS: i64 = 5_000_000;

/// What the thread needs to know.
#[derive(Debug)]
pub(crate) struct ThreadPlan {
    pub(crate) session: Plan,
    /// What stands in every place of the batch to begin with.
    pub(crate) padding: Vec<u8>,
    /// Packets of an attempt before stand in the places of the batch.
    pub(crate) again: bool,
    pub(crate) pacing: Pacing,
    /// Whether spinning starves nobody: there is another CPU for the receiver.
    pub(crate) may_spin: bool,
    pub(crate) cpu: Option<usize>,
    pub(crate) realtime: bool,
}

impl ThreadPlan {
    /// For how long before a departure the thread spins.
    fn spin_ns(&self) -> i64 {
        let spin = self.may_spin;
        match self.pacing {
            Pacing::Spin => i64::MAX,
            Pacing::Auto if spin && self.session.mean_gap_ns < SPIN_GAP_NS => i64::MAX,
            Pacing::Auto if spin => WAKE_AHEAD_NS,
            Pacing::Auto | Pacing::Sleep => 0,
        }
    }
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

/// Whom the thread hears, and whom it tells.
#[derive(Debug)]
pub(crate) struct Links<'a> {
    pub(crate) start: Start,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) receiver: &'a Waker,
    pub(crate) wishes: &'a Receiver<Wish>,
    pub(crate) copier: &'a mut Option<Copier>,
}

/// Runs a session's departures, then answers the receiver's wishes until it hangs up.
///
/// # Errors
/// The system's, from setting up the event loop.
pub(crate) fn run<S: SendHalf>(
    half: &mut S,
    plan: ThreadPlan,
    flight: SenderEnd<'_>,
    links: Links<'_>,
    ready: impl FnOnce(Waker),
) -> io::Result<Sent> {
    let Links {
        start,
        stop,
        receiver,
        wishes,
        copier,
    } = links;
    let over = Over { flight, receiver };
    let events = EventLoop::new()?;
    ready(Waker::new(events.registry(), Token(0))?);
    let facts = settle_in(&plan);
    let mut thread = SenderThread::new(half, plan, flight, events, stop, copier);
    thread.facts = facts;
    if let Some(start) = start.wait() {
        thread.depart(start);
    }
    thread.side.end();
    let totals = &thread.side.totals;
    over.tell(totals.sent, totals.times.last_ns);
    for probe in wishes {
        thread.probe(probe);
    }
    Ok(thread.finish())
}

fn settle_in(plan: &ThreadPlan) -> ThreadFacts {
    let cpus = plan.cpu.and_then(os::pin);
    os::sharpen_timers();
    let refused = plan.realtime.then(os::set_realtime).and_then(Result::err);
    ThreadFacts {
        cpus,
        realtime_refused: refused.map(|error| error.to_string()),
        ..ThreadFacts::default()
    }
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

pub(crate) struct SenderThread<'a, S> {
    half: &'a mut S,
    pub(crate) side: SenderSide<'a>,
    batch: Batch,
    errors: Errors,
    facts: ThreadFacts,
    /// For how long before a departure it spins.
    spin_ns: i64,
    quality_until: i64,
    events: EventLoop,
    stop: &'a AtomicBool,
    copier: &'a mut Option<Copier>,
}

impl<'a, S: SendHalf> SenderThread<'a, S> {
    pub(crate) fn new(
        half: &'a mut S,
        plan: ThreadPlan,
        flight: SenderEnd<'a>,
        events: EventLoop,
        stop: &'a AtomicBool,
        copier: &'a mut Option<Copier>,
    ) -> Self {
        let (places, spin_ns) = (half.places(), plan.spin_ns());
        let most_burst = plan.session.most_burst;
        let side = SenderSide::new(plan.session, flight, places);
        let batch = Batch::new(places, plan.padding);
        if plan.again {
            batch.wipe(half, side.writer.largest(), most_burst);
        }
        Self {
            half,
            side,
            batch,
            errors: Errors::default(),
            facts: ThreadFacts::default(),
            spin_ns,
            quality_until: i64::MIN,
            events,
            stop,
            copier,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn depart(&mut self, start: i64) {
        self.side.begin(start);
        let mut now = os::monotonic_ns();
        while let Some(due) = self.side.next_ns(now) {
            if self.is_stopped() {
                return self.side.interrupt();
            }
            if self.side.is_called_off() {
                return;
            }
            if due > now {
                now = self.wait_for(due);
                continue;
            }
            if now >= self.quality_until {
                let estimate = error_estimate(self.side.writer.format());
                self.side.writer.set_error_estimate(estimate);
                self.quality_until = now + QUALITY_NS;
            }
            self.gather(now);
            now = self.send_batch(now);
            if self.facts.failure.is_some() || self.side.gives_up(now) {
                return;
            }
        }
    }

    /// Waits until a moment, or until something else wakes the thread; returns the time.
    fn wait_for(&mut self, due: i64) -> i64 {
        let mut now = os::monotonic_ns();
        let due = if self.side.flight.in_grace(now) {
            due.min(now + GRACE_LOOK_NS)
        } else {
            due
        };
        let sleep_until = due.saturating_sub(self.spin_ns);
        if now < sleep_until {
            self.events.wait_until(sleep_until);
            return os::monotonic_ns();
        }
        while now < due && !self.is_stopped() {
            std::hint::spin_loop();
            now = os::monotonic_ns();
        }
        now
    }

    /// Collects what is due, at most one batch.
    fn gather(&mut self, now: i64) {
        self.batch.due.clear();
        while !self.batch.is_full() {
            let Some(due) = self.side.take(now) else {
                break;
            };
            self.batch.due.push(due);
        }
        if let Some(first) = self.batch.due.first() {
            self.side.lengthen(*first, now);
        }
    }

    /// Sends the batch; returns the time when the last packet had left.
    fn send_batch(&mut self, mut now: i64) -> i64 {
        let mut from = 0;
        self.errors.begin();
        while from < self.batch.due.len() {
            self.fill(from);
            match self.half.send(from, self.batch.due.len()) {
                Ok(count) => {
                    let after = os::monotonic_ns();
                    if let Some(errno) = self.errors.sent() {
                        self.side.told(errno);
                    }
                    self.account(from, count, now, after);
                    from += count;
                    now = after;
                }
                Err(error) => match self.errors.judge(&error) {
                    Trouble::NoRoom => {
                        self.events.wait_until(now + RETRY_NS);
                        now = os::monotonic_ns();
                        from += self.drop_overdue(from, now);
                        if self.is_stopped() {
                            return now;
                        }
                    }
                    Trouble::PortClosed => self.side.port_closed(os::monotonic_ns()),
                    Trouble::Former => {}
                    Trouble::NoCall(call) => {
                        self.facts.failure = Some(call);
                        return os::monotonic_ns();
                    }
                    // These and those behind are gathered anew.
                    Trouble::This if self.side.unfold(self.batch.due[from], &error) => {
                        self.side.put_back(self.batch.due.drain(from..).rev());
                    }
                    Trouble::This => {
                        self.side.refused(self.batch.due[from], &error);
                        self.errors.refused(self.half.send_call(), &error, now);
                        from += 1;
                        now = os::monotonic_ns();
                    }
                },
            }
        }
        now
    }

    /// So many from place `from` on are too late by now.
    fn drop_overdue(&mut self, from: usize, now: i64) -> usize {
        let behind = self.batch.due[from..].iter();
        behind
            .take_while(|due| self.side.drop_overdue(**due, now))
            .count()
    }

    /// Writes the batch from place `from` on.
    fn fill(&mut self, from: usize) {
        let writer = &self.side.writer;
        let at_batch = match writer.reads_t1() {
            ReadT1::AtBatch => Some(writer.t1(os::realtime_ns())),
            ReadT1::AtPacket => None,
        };
        let mut numbers = self.side.numbers();
        for place in from..self.batch.due.len() {
            let due = self.batch.due[place];
            let asks = self.side.asks(numbers);
            let t1 = self.write(place, due, numbers.seq, asks, at_batch);
            numbers = self.side.note(numbers, due, t1, asks);
        }
        self.side.announce(numbers);
    }

    /// Writes the packets of one place, from number `seq` on; returns their T1, which is read here unless it is
    /// that of the batch.
    #[inline]
    pub(crate) fn write(
        &mut self,
        place: usize,
        due: Due,
        seq: u64,
        asks: bool,
        at_batch: Option<Timestamp>,
    ) -> Timestamp {
        let writer = &self.side.writer;
        let stamp = asks.then_some(low_half(seq));
        let octets = self.batch.lend(self.half, writer, place, due, stamp);
        let mut packets = writer.packets(due, seq, octets);
        writer.prepare(&mut packets);
        let t1 = at_batch.unwrap_or_else(|| writer.t1(os::realtime_ns()));
        writer.stamp(&mut packets, t1);
        if let Some(copier) = self.copier.as_mut() {
            writer.show(&packets, t1, |head, payload| {
                copier.copy(head, payload, os::monotonic_ns());
            });
        }
        t1
    }

    /// The places `from..from + count` of the batch left between two moments.
    fn account(&mut self, from: usize, count: usize, before: i64, after: i64) {
        let first = self.side.totals.sent == 0;
        let left = &self.batch.due[from..from + count];
        self.side.departed(left, before, after);
        if first {
            let started_ns = os::realtime_ns() - (os::monotonic_ns() - before);
            self.side.totals.times.started_ns = started_ns;
        }
    }

    /// Sends the last sequence number once more, outside all counts.
    fn probe(&mut self, index: usize) {
        let Some(last) = self.side.totals.sent.checked_sub(1) else {
            return;
        };
        let due = Due {
            at_ns: os::monotonic_ns(),
            class: 0,
            count: 1,
        };
        let t1 = self.write(0, due, last, false, None);
        self.side.flight.note_probe(index, t1.raw());
        for _ in 0..3 {
            match self.half.send(0, 1) {
                // It tells of a packet before.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // An unanswered probe is what a refused one is, too.
                result => {
                    let left = result.is_ok_and(|left| left > 0);
                    self.side.totals.probes += u64::from(left);
                    return;
                }
            }
        }
    }

    fn finish(self) -> Sent {
        let mut facts = self.facts;
        if self.side.totals.sent > 0 {
            facts.failure = facts.failure.or(self.errors.for_good());
        }
        facts.refused_call = self.half.refused_call();
        Sent {
            thread: facts,
            ..self.side.into_totals()
        }
    }
}

#[cfg(test)]
mod tests;
