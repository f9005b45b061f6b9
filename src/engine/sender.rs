//! The sender thread: waits for departures that are due, patches packets, sends them.
//!
//! Packets are sent together only as far as the schedule makes them due together; trains are what the
//! user asked for, or what it takes to keep the rate. One that is
//! further behind than the timeout is not sent and takes no sequence number (RFC 4656 §4.1.1), nor
//! does one that the kernel refuses: such a packet is no loss of the path's.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender as ChannelSender};
use mio::{Token, Waker};
use zerocopy::IntoBytes;

use super::flight::Flight;
use super::live::Copier;
use super::schedule::{Departure, Schedule};
use crate::config::Pacing;
use crate::io::SendHalf;
use crate::os::{self, EventLoop};
use crate::wire::{ErrorEstimate, Format, SENDER_LEN, SenderPacket, Timestamp};

/// Gaps below this are waited out spinning: going to sleep would take longer.
const SPIN_GAP_NS: i64 = 200_000;
/// How long before a departure a sleeping sender wakes up, to spin for the rest.
const WAKE_AHEAD_NS: i64 = 150_000;
/// From the start of the session to its first departure.
pub(crate) const LEAD_NS: i64 = 1_000_000;
/// A socket that has no room is looked at again after this.
const RETRY_NS: i64 = 1_000_000;
/// A session of which nothing could be sent ends after this.
const GIVE_UP_NS: i64 = 2_000_000_000;
/// A sender that is this far behind, and further than this long ago, sends longer trains.
const BEHIND_NS: i64 = 20_000_000;
/// Most packets of a train (`UDP_MAX_SEGMENTS` of older kernels).
pub(crate) const MOST_BURST: u32 = 64;
/// How often the clock's quality is asked for.
const QUALITY_NS: i64 = 1_000_000_000;

/// What the sender thread needs to know.
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    /// UDP payload of each size class, in octets.
    pub(crate) payloads: Vec<usize>,
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
    /// Transmit stamps that may be under way at once; 0: none are to be asked for.
    pub(crate) stamps_under_way: u64,
    pub(crate) cpu: Option<usize>,
    pub(crate) realtime: bool,
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
    /// Refused by the kernel, and its last reason.
    pub(crate) refused: u64,
    pub(crate) refusal: Option<i32>,
    /// Of these, dropped by this host's own queue in front of the interface.
    pub(crate) no_room: u64,
    /// ICMP errors that the sending socket was told of.
    pub(crate) icmp: u64,
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
    /// One packet in so many asked for a stamp, at the end of the session.
    pub(crate) stamp_one_in: u32,
    pub(crate) interrupted: bool,
    pub(crate) cpus: Option<Vec<usize>>,
    pub(crate) realtime_refused: Option<String>,
}

impl Sent {
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
                (all.last_ns, all.last_burst) = (thread.last_ns, thread.last_burst);
            }
            all.sent += thread.sent;
            all.overdue += thread.overdue;
            all.refused += thread.refused;
            all.refusal = all.refusal.or(thread.refusal);
            all.no_room += thread.no_room;
            all.icmp += thread.icmp;
            all.by_class.resize(thread.by_class.len(), 0);
            for (count, more) in all.by_class.iter_mut().zip(&thread.by_class) {
                *count += more;
            }
            all.late_departures += thread.late_departures;
            all.longest_burst = all.longest_burst.max(thread.longest_burst);
            all.max_slip_ns = all.max_slip_ns.max(thread.max_slip_ns);
            all.stamps_requested += thread.stamps_requested;
            all.stamp_one_in = all.stamp_one_in.max(thread.stamp_one_in);
            all.interrupted |= thread.interrupted;
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

/// Both lists, ascending, each number once.
pub(crate) fn merged(mut list: Vec<usize>, more: &[usize]) -> Vec<usize> {
    list.extend_from_slice(more);
    list.sort_unstable();
    list.dedup();
    list
}

/// Runs a session's departures, then answers the receiver's wishes for probes until it hangs up.
///
/// # Errors
/// The system's, from setting up the event loop.
pub(crate) fn run<S: SendHalf>(
    half: &mut S,
    plan: Plan,
    flight: &Flight,
    stop: &AtomicBool,
    ready: impl FnOnce(Waker),
    receiver: &Waker,
    (probes, copier): (&Receiver<usize>, Option<Copier>),
) -> io::Result<Sent> {
    let over = Over { flight, receiver };
    let events = EventLoop::new()?;
    ready(Waker::new(events.registry(), Token(0))?);
    let mut thread = Sender::new(half, plan, flight, stop, events, copier);
    thread.settle_in();
    thread.depart();
    // Refused packets may have been announced: they are not under way.
    thread.flight.attempt(thread.seq);
    over.tell(thread.seq, thread.totals.last_ns);
    for index in probes {
        thread.probe(index);
    }
    thread.totals.stamps_requested = thread.stamps.requested;
    thread.totals.stamp_one_in = thread.stamps.one_in;
    Ok(thread.totals)
}

/// Tells the receiver that no more packets will leave, also where this thread ends by an error or a
/// bug: nobody waits for ever.
struct Over<'a> {
    flight: &'a Flight,
    receiver: &'a Waker,
}

impl Over<'_> {
    fn tell(self, sent: u64, last_ns: i64) {
        self.flight.finish(sent, last_ns);
        drop(self);
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if self.flight.finished().is_none() {
            self.flight.finish(0, os::monotonic_ns());
        }
        // The receiver wakes up by itself as well; this only spares it the wait.
        let _ = self.receiver.wake();
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
    fn take(&mut self) -> Option<Departure> {
        std::mem::replace(&mut self.next, self.schedule.next())
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
    flight: &'a Flight,
    stop: &'a AtomicBool,
    events: EventLoop,
    /// Sequence number of the next packet, extended to 64 bits.
    pub(super) seq: u64,
    /// The departures that leave together.
    pub(super) batch: Vec<Due>,
    /// Octets and number of the packets that were written into each place last.
    written: Vec<(usize, usize)>,
    /// Size classes whose trains the kernel refuses: their packets leave one by one.
    unfolded: Vec<bool>,
    /// Trains so far.
    trains: u64,
    lag: Lag,
    head: SenderPacket,
    quality_until: i64,
    stamps: Stamps,
    totals: Sent,
    copier: Option<Copier>,
}

impl<'a, S: SendHalf> Sender<'a, S> {
    pub(super) fn new(
        half: &'a mut S,
        plan: Plan,
        flight: &'a Flight,
        stop: &'a AtomicBool,
        events: EventLoop,
        copier: Option<Copier>,
    ) -> Self {
        let places = half.places();
        Self {
            half,
            flight,
            stop,
            events,
            seq: 0,
            batch: Vec::with_capacity(places),
            written: vec![(0, 0); places],
            unfolded: vec![false; plan.payloads.len()],
            trains: 0,
            lag: Lag::default(),
            head: SenderPacket {
                seq: 0.into(),
                timestamp: Timestamp::from_raw(0),
                error_estimate: ErrorEstimate::UNKNOWN,
            },
            quality_until: i64::MIN,
            stamps: Stamps::new(plan.stamps_under_way, plan.mean_gap_ns, plan.count),
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

    fn depart(&mut self) {
        let Some(start) = self.plan.start.wait() else {
            return;
        };
        let end = self.plan.schedule.duration_ns();
        let end = end.and_then(|ns| start.checked_add_unsigned(ns));
        let mut schedule = self.plan.schedule.clone();
        let next = schedule.next();
        let mut agenda = Agenda { schedule, next };
        let mut now = os::monotonic_ns();
        while let Some(next) = agenda.next {
            if self.stop.load(Ordering::Relaxed) {
                self.totals.interrupted = true;
                return;
            }
            match due(next, start) {
                Some(due) if due > now => {
                    now = self.wait_for(due);
                    continue;
                }
                None if end.is_some_and(|end| now >= end) => return,
                _ => {}
            }
            self.refresh_quality(now);
            self.gather(&mut agenda, start, now);
            self.lengthen(&mut agenda, now);
            now = self.send_batch(now);
            if self.seq == 0 && now - start > GIVE_UP_NS && self.totals.refused > 0 {
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
        let sleep_until = due.saturating_sub(ahead);
        let mut now = os::monotonic_ns();
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
            let Some(Departure { class, count, .. }) = agenda.next else {
                return;
            };
            let due = agenda.next.and_then(|next| due(next, start));
            if due.is_some_and(|due| due > now) {
                return;
            }
            agenda.take();
            if due.is_some_and(|due| now - due > self.plan.timeout_ns) {
                self.totals.overdue += u64::from(count);
            } else {
                let at_ns = due.unwrap_or(now);
                self.batch.push(Due {
                    at_ns,
                    class,
                    count,
                });
            }
        }
    }

    /// Makes longer trains where the rate is not kept: twice as long, and only as far as needed.
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
        }
    }

    /// Sends the batch; returns the time when the last packet had left.
    fn send_batch(&mut self, mut now: i64) -> i64 {
        let mut from = 0;
        while from < self.batch.len() {
            if let Some(until) = self.send_unfolded(from, &mut now) {
                from = until;
                continue;
            }
            self.fill(from);
            match self.half.send(from, self.batch.len()) {
                Ok(count) => {
                    let after = os::monotonic_ns();
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
                    io::ErrorKind::ConnectionRefused => self.totals.icmp += 1,
                    _ if self.unfold(from, &error) => {}
                    _ => {
                        let count = u64::from(self.batch[from].count);
                        self.totals.refused += count;
                        self.totals.refusal = error.raw_os_error();
                        self.totals.no_room += if no_room(&error) { count } else { 0 };
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

    /// Whether the trains of this place's class are refused for what they are, and go one by one from
    /// now on.
    fn unfold(&mut self, from: usize, error: &io::Error) -> bool {
        use nix::errno::Errno;

        let due = self.batch[from];
        // No such option; a device that cannot; packets larger than the path takes whole.
        let refused = [
            Errno::EINVAL,
            Errno::EIO,
            Errno::EMSGSIZE,
            Errno::EOPNOTSUPP,
        ];
        let errno = error.raw_os_error().map(Errno::from_raw);
        if due.count == 1 || !errno.is_some_and(|errno| refused.contains(&errno)) {
            return false;
        }
        self.unfolded[usize::from(due.class)] = true;
        true
    }

    /// Writes the batch from place `from` on, with T1 of this moment.
    fn fill(&mut self, from: usize) {
        let t1 = self.new_t1();
        let mut seq = self.seq;
        for place in from..self.batch.len() {
            let Due { class, count, .. } = self.batch[place];
            if count > 1 && self.unfolded[usize::from(class)] {
                // These leave by themselves.
                break;
            }
            let stamp = self.note(place, from, seq, t1);
            self.write(place, seq, class, count, stamp);
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
            if let Some(copier) = &mut self.copier {
                copier.copy(&packet[..SENDER_LEN], payload, os::monotonic_ns());
            }
            number = number.wrapping_add(1);
        }
    }

    /// Restores the padding where heads of another size stand in a place. Timestamps there could read
    /// as what a reflector's guard against loops looks for.
    fn clean(&mut self, place: usize, payload: usize, packets: usize) {
        let (octets, count) = self.written[place];
        if octets == payload {
            self.written[place].1 = count.max(packets);
            return;
        }
        self.written[place] = (payload, packets);
        if octets == 0 {
            return;
        }
        let slot = self.half.set(place, octets, count, None);
        for at in (0..slot.len()).step_by(octets) {
            let head = at..at + SENDER_LEN;
            slot[head.clone()].copy_from_slice(&self.plan.padding[head]);
        }
    }

    /// Where the train at `from` has to go packet by packet: sends it, and returns the next place.
    /// All of its packets carry one T1, as those of a train do.
    fn send_unfolded(&mut self, from: usize, now: &mut i64) -> Option<usize> {
        let due = self.batch[from];
        if due.count == 1 || !self.unfolded[usize::from(due.class)] {
            return None;
        }
        let t1 = self.new_t1();
        let count = u64::from(due.count);
        self.flight.note(self.seq, count, t1, due.class, false);
        self.flight.attempt(self.seq + count);
        let mut left = due.count;
        while left > 0 && !self.stop.load(Ordering::Relaxed) {
            let places = left.min(u32::try_from(self.half.places()).unwrap_or(1));
            for place in 0..places {
                let seq = self.seq + u64::from(place);
                self.write(
                    usize::try_from(place).unwrap_or(0),
                    seq,
                    due.class,
                    1,
                    false,
                );
            }
            match self.half.send(0, usize::try_from(places).unwrap_or(1)) {
                Ok(sent) => {
                    let after = os::monotonic_ns();
                    let sent = u32::try_from(sent).unwrap_or(places);
                    self.account_one(due, sent, *now);
                    left -= sent;
                    *now = after;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.events.wait_until(*now + RETRY_NS);
                    *now = os::monotonic_ns();
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.totals.icmp += 1;
                }
                Err(error) => {
                    // The sequence numbers of a granule stay together: its rest is given up.
                    self.totals.refused += u64::from(left);
                    self.totals.refusal = error.raw_os_error();
                    if no_room(&error) {
                        self.totals.no_room += u64::from(left);
                    }
                    break;
                }
            }
        }
        Some(from + 1)
    }

    /// Counts the places `from..from + count` of the batch, which left between two moments.
    pub(super) fn account(&mut self, from: usize, count: usize, before: i64, after: i64) {
        let step = (after - before) / i64::try_from(count.max(1)).unwrap_or(1);
        let mut left = before;
        for place in from..from + count {
            let due = self.batch[place];
            self.stamps.requested += u64::from(self.flight.class(self.seq).1);
            self.trains += 1;
            self.account_one(due, due.count, left);
            left += step;
        }
        let back = self.flight.stamps_back();
        self.stamps
            .adapt(after, back, count * 2 >= self.batch.capacity());
    }

    /// Counts `count` packets that left together.
    fn account_one(&mut self, due: Due, count: u32, left: i64) {
        if self.totals.sent == 0 {
            self.totals.first_ns = left;
            self.totals.started_ns = os::realtime_ns() - (os::monotonic_ns() - left);
        }
        let count = u64::from(count);
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
        self.head.seq = low_half(last).wrapping_add(self.plan.first_seq).into();
        let t1 = Timestamp::from_unix_ns(os::realtime_ns(), self.plan.format);
        self.head.timestamp = t1;
        self.flight.note_probe(index, t1.raw());
        let payload = self.plan.payloads[0];
        self.clean(0, payload, 1);
        let packet = self.half.set(0, payload, 1, None);
        packet[..SENDER_LEN].copy_from_slice(self.head.as_bytes());
        if let Some(copier) = &mut self.copier {
            copier.copy(self.head.as_bytes(), payload, os::monotonic_ns());
        }
        for _ in 0..3 {
            match self.half.send(0, 1) {
                // It tells of a packet before.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // An unanswered probe is what a refused one is, too.
                _ => return,
            }
        }
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

/// This host's Error Estimate at this moment (RFC 4656 §4.1.2).
pub(crate) fn error_estimate(format: Format) -> ErrorEstimate {
    match os::clock_quality() {
        Some((synchronised, error_ns)) => ErrorEstimate::new(synchronised, format, error_ns),
        None => {
            let unknown = ErrorEstimate::UNKNOWN.error_ns().unwrap_or(u64::MAX);
            ErrorEstimate::new(false, format, unknown)
        }
    }
}

/// Which packets ask for a transmit stamp: two consecutive ones in every N, so that IPDV exists.
///
/// N is 1 up to 18,750 packets a second, and grows with the rate from there: a stamp costs about as
/// much as a quarter of a packet, on the CPU that also takes the replies. It grows further where
/// stamps do not come back as fast as they are asked for, and shrinks again when they do. A stamp
/// that has not come back for a second is lost (its packet was dropped without a word), not late.
#[derive(Debug)]
struct Stamps {
    /// Stamps that may be under way at once; 0: none are asked for.
    limit: u64,
    one_in: u32,
    /// `one_in` at this rate without any pressure.
    least_apart: u32,
    requested: u64,
    /// Requests may go on until here without a look at what came back.
    room_until: u64,
    window_ends: i64,
    strikes: u32,
    /// Windows without pressure in a row, and how many it takes to ask for more stamps again.
    calm: u32,
    patience: u32,
    /// Requested and back, as of one to two seconds ago, and as of less than a second ago.
    before: (u64, u64),
    lately: (u64, u64),
    remember_at: i64,
}

impl Stamps {
    const MOST_APART: u32 = 1024;
    const LEAST_PAIRS: u64 = 128;
    /// Two stamps in this time are what every host keeps up with: 12,500 a second.
    const EASY_GAP_NS: i64 = 160_000;
    const WINDOW_NS: i64 = 5_000_000;
    /// Windows under pressure until fewer are asked for.
    const STRIKES: u32 = 4;
    /// Stamps under way at the end of a window that mean pressure.
    const PRESSURE: u64 = 256;
    /// Windows without pressure until more are asked for: at first, and at most.
    const PATIENCE: (u32, u32) = (400, 400 << 6);
    const LOST_AFTER_NS: i64 = 1_000_000_000;

    fn new(limit: u64, mean_gap_ns: i64, count: Option<u64>) -> Self {
        let per_gap = Self::EASY_GAP_NS / mean_gap_ns.max(1);
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
            limit,
            one_in,
            least_apart: one_in,
            requested: 0,
            room_until: limit,
            window_ends: 0,
            strikes: 0,
            calm: 0,
            patience: Self::PATIENCE.0,
            before: (0, 0),
            lately: (0, 0),
            remember_at: i64::MIN,
        }
    }

    fn fewer(&mut self) {
        self.one_in *= 4;
        self.strikes = 0;
        self.calm = 0;
        self.patience = (self.patience * 2).min(Self::PATIENCE.1);
    }

    /// Whether packet or train number `train` asks for one.
    fn wanted(&self, train: u64) -> bool {
        self.requested < self.room_until && train % u64::from(self.one_in) < 2
    }

    /// Looks at how many came back, and at whether many packets were due together.
    fn adapt(&mut self, now: i64, back: u64, crowded: bool) {
        if now >= self.remember_at {
            self.before = self.lately;
            self.lately = (self.requested, back);
            self.remember_at = now.saturating_add(Self::LOST_AFTER_NS);
        }
        let (asked, came) = (self.requested - self.before.0, back - self.before.1);
        let under_way = asked.saturating_sub(came);
        self.room_until = self.requested + self.limit.saturating_sub(under_way);
        if under_way * 2 > self.limit && self.limit > 0 && self.one_in < Self::MOST_APART {
            // So close to what the buffer holds there is no time for a second look.
            self.fewer();
            self.window_ends = now + 4 * Self::WINDOW_NS;
        }
        if now < self.window_ends {
            return;
        }
        self.window_ends = now + Self::WINDOW_NS;
        let pressed = under_way > Self::PRESSURE || crowded;
        self.strikes = if pressed {
            self.strikes + 1
        } else {
            self.strikes.saturating_sub(1)
        };
        self.calm = if pressed { 0 } else { self.calm + 1 };
        if self.strikes >= Self::STRIKES && self.one_in < Self::MOST_APART {
            self.fewer();
        } else if self.calm >= self.patience && self.one_in > self.least_apart {
            self.one_in = (self.one_in / 4).max(self.least_apart);
            self.calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_asked_for_in_pairs() {
        let mut stamps = Stamps::new(1000, 100_000, None);
        assert!((0..10).all(|seq| stamps.wanted(seq)));
        stamps.one_in = 4;
        let wanted: Vec<u64> = (0..9).filter(|seq| stamps.wanted(*seq)).collect();
        assert_eq!(wanted, [0, 1, 4, 5, 8]);
    }

    #[test]
    fn no_more_stamps_are_under_way_than_the_buffer_holds() {
        let mut stamps = Stamps::new(10, 100_000, None);
        let ask = |stamps: &mut Stamps, seqs: std::ops::Range<u64>| {
            for seq in seqs {
                stamps.requested += u64::from(stamps.wanted(seq));
            }
        };
        ask(&mut stamps, 0..100);
        assert_eq!(stamps.requested, 10);
        stamps.adapt(0, 5, false);
        ask(&mut stamps, 100..300);
        assert_eq!(stamps.requested, 15);
        assert!(!Stamps::new(0, 100_000, None).wanted(0));
    }

    #[test]
    fn lasting_pressure_thins_the_stamps_and_a_single_stall_does_not() {
        let mut stamps = Stamps::new(1_000_000, 100_000, None);
        stamps.requested = 1000;
        stamps.adapt(Stamps::WINDOW_NS, 0, false);
        for i in 2..20 {
            stamps.adapt(i * Stamps::WINDOW_NS, 1000, false);
        }
        assert_eq!(stamps.one_in, 1);
        for i in 20..25 {
            stamps.adapt(i * Stamps::WINDOW_NS, 0, false);
        }
        assert_eq!(stamps.one_in, 4);
    }

    /// A session at 1,000 packets a second for `seconds`, in which one stamp in `lost` never comes.
    fn with_lost_stamps(stamps: &mut Stamps, seconds: i64, lost: u64) -> u64 {
        let mut back = 0;
        for seq in 0..seconds.unsigned_abs() * 1000 {
            let wanted = stamps.wanted(seq);
            stamps.requested += u64::from(wanted);
            back += u64::from(wanted && seq % lost != 0);
            stamps.adapt(i64::try_from(seq).unwrap() * 1_000_000, back, false);
        }
        back
    }

    #[test]
    fn lost_stamps_are_forgiven() {
        let mut stamps = Stamps::new(8192, 1_000_000, None);
        assert_eq!(with_lost_stamps(&mut stamps, 600, 100), 600 * 990);
        assert_eq!(stamps.one_in, 1);
        let mut stamps = Stamps::new(1024, 1_000_000, None);
        with_lost_stamps(&mut stamps, 600, 10);
        assert_eq!(stamps.one_in, 1);
    }

    #[test]
    fn after_a_calm_time_more_stamps_are_asked_for_again() {
        let mut stamps = Stamps::new(1_000_000, 100_000, None);
        stamps.requested = 1000;
        let mut at = 0;
        let mut windows = |stamps: &mut Stamps, count: u32, back| {
            for _ in 0..count {
                at += Stamps::WINDOW_NS;
                stamps.adapt(at, back, false);
            }
        };
        windows(&mut stamps, 8, 0);
        assert_eq!(stamps.one_in, 16);
        windows(&mut stamps, 10, 1000);
        assert_eq!(stamps.one_in, 16);
        let patience = stamps.patience;
        windows(&mut stamps, 4 * patience, 1000);
        assert_eq!(stamps.one_in, 1);
    }
}
