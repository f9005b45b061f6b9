//! The sender thread: waits for departures that are due, patches packets, sends them.
//!
//! Packets are sent together only as far as the schedule makes them due together. One that is
//! further behind than the timeout is not sent and takes no sequence number (RFC 4656 §4.1.1), nor
//! does one that the kernel refuses: such a packet is no loss of the path's.

use std::io;
use std::iter::Peekable;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;
use mio::{Token, Waker};
use zerocopy::IntoBytes;

use super::flight::Flight;
use super::live::Copier;
use super::schedule::{Departure, Schedule};
use crate::config::Pacing;
use crate::io::{BATCH, SendHalf};
use crate::os::{self, EventLoop};
use crate::wire::{ErrorEstimate, Format, SenderPacket, Timestamp};

/// Gaps below this are waited out spinning: going to sleep would take longer.
const SPIN_GAP_NS: i64 = 200_000;
/// How long before a departure a sleeping sender wakes up, to spin for the rest.
const WAKE_AHEAD_NS: i64 = 150_000;
/// From the start of the session to its first departure.
const LEAD_NS: i64 = 1_000_000;
/// A socket that has no room is looked at again after this.
const RETRY_NS: i64 = 1_000_000;
/// A session of which nothing could be sent ends after this.
const GIVE_UP_NS: i64 = 2_000_000_000;
/// How often the clock's quality is asked for.
const QUALITY_NS: i64 = 1_000_000_000;

/// What the sender thread needs to know.
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    /// UDP payload of each size class, in octets.
    pub(crate) payloads: Vec<usize>,
    pub(crate) timeout_ns: i64,
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
    let mut thread = Sender {
        half,
        flight,
        stop,
        events,
        seq: 0,
        batch: Vec::with_capacity(BATCH),
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
    };
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

struct Sender<'a, S> {
    half: &'a mut S,
    plan: Plan,
    flight: &'a Flight,
    stop: &'a AtomicBool,
    events: EventLoop,
    /// Sequence number of the next packet, extended to 64 bits.
    seq: u64,
    /// The departures that leave together: when due, by the monotonic clock, and the size class.
    batch: Vec<(i64, u8)>,
    head: SenderPacket,
    quality_until: i64,
    stamps: Stamps,
    totals: Sent,
    copier: Option<Copier>,
}

impl<S: SendHalf> Sender<'_, S> {
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
        let start = os::monotonic_ns() + LEAD_NS;
        let end = self.plan.schedule.duration_ns();
        let end = end.and_then(|ns| start.checked_add_unsigned(ns));
        let mut schedule = self.plan.schedule.clone().peekable();
        let mut now = os::monotonic_ns();
        while let Some(next) = schedule.peek() {
            if self.stop.load(Ordering::Relaxed) {
                self.totals.interrupted = true;
                return;
            }
            match due(*next, start) {
                Some(due) if due > now => {
                    now = self.wait_for(due);
                    continue;
                }
                None if end.is_some_and(|end| now >= end) => return,
                _ => {}
            }
            self.refresh_quality(now);
            self.gather(&mut schedule, start, now);
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
    fn gather(
        &mut self,
        schedule: &mut Peekable<impl Iterator<Item = Departure>>,
        start: i64,
        now: i64,
    ) {
        self.batch.clear();
        while self.batch.len() < BATCH {
            let Some(departure) = schedule.next_if(|d| due(*d, start).is_none_or(|due| due <= now))
            else {
                return;
            };
            let due = due(departure, start);
            if due.is_some_and(|due| now - due > self.plan.timeout_ns) {
                self.totals.overdue += 1;
            } else {
                self.batch.push((due.unwrap_or(now), departure.class));
            }
        }
    }

    /// Sends the batch; returns the time when the last packet had left.
    fn send_batch(&mut self, mut now: i64) -> i64 {
        let mut from = 0;
        while from < self.batch.len() {
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
                    _ => {
                        self.totals.refused += 1;
                        self.totals.refusal = error.raw_os_error();
                        self.totals.no_room += u64::from(no_room(&error));
                        from += 1;
                        now = os::monotonic_ns();
                    }
                },
            }
        }
        now
    }

    fn drop_overdue(&mut self, mut from: usize, now: i64) -> usize {
        while let Some((due, _)) = self.batch.get(from)
            && now - due > self.plan.timeout_ns
        {
            self.totals.overdue += 1;
            from += 1;
        }
        from
    }

    /// Writes the packets of the batch from place `from` on, with T1 of this moment.
    fn fill(&mut self, from: usize) {
        let t1 = Timestamp::from_unix_ns(os::realtime_ns(), self.plan.format);
        self.head.timestamp = t1;
        let mut seq = self.seq;
        for (place, (_, class)) in self.batch.iter().enumerate().skip(from) {
            let stamp = self.stamps.wanted(seq);
            self.flight.note(seq, t1.raw(), *class, stamp);
            let number = low_half(seq);
            self.head.seq = number.wrapping_add(self.plan.first_seq).into();
            let head = self.head.as_bytes();
            let padding = self.plan.payloads[usize::from(*class)] - head.len();
            if let Some(copier) = &mut self.copier {
                copier.copy(head, head.len() + padding, os::monotonic_ns());
            }
            self.half.set(place, head, padding, stamp.then_some(number));
            seq += 1;
        }
        self.flight.attempt(seq);
    }

    /// Counts `count` packets of the batch, from place `from` on, that left between two moments.
    fn account(&mut self, from: usize, count: usize, before: i64, after: i64) {
        if self.totals.sent == 0 {
            self.totals.first_ns = before;
            self.totals.started_ns = os::realtime_ns() - (os::monotonic_ns() - before);
        }
        let step = (after - before) / i64::try_from(count.max(1)).unwrap_or(1);
        let mut left = before;
        for (due, class) in &self.batch[from..from + count] {
            self.totals.by_class[usize::from(*class)] += 1;
            let slip = left - due;
            self.totals.max_slip_ns = self.totals.max_slip_ns.max(slip);
            self.totals.late_departures += u64::from(slip > self.plan.mean_gap_ns);
            self.stamps.requested += u64::from(self.flight.class(self.seq).1);
            self.totals.last_ns = left;
            self.seq += 1;
            left += step;
        }
        self.totals.sent = self.seq;
        let back = self.flight.stamps_back();
        self.stamps.adapt(after, back, count);
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
        let head = self.head.as_bytes();
        let padding = self.plan.payloads[0] - head.len();
        self.half.set(0, head, padding, None);
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

    fn wanted(&self, seq: u64) -> bool {
        self.requested < self.room_until && seq % u64::from(self.one_in) < 2
    }

    /// Looks at how many came back, and at how many packets were due together.
    fn adapt(&mut self, now: i64, back: u64, together: usize) {
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
        let pressed = under_way > Self::PRESSURE || together >= BATCH / 2;
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
        stamps.adapt(0, 5, 1);
        ask(&mut stamps, 100..300);
        assert_eq!(stamps.requested, 15);
        assert!(!Stamps::new(0, 100_000, None).wanted(0));
    }

    #[test]
    fn lasting_pressure_thins_the_stamps_and_a_single_stall_does_not() {
        let mut stamps = Stamps::new(1_000_000, 100_000, None);
        stamps.requested = 1000;
        stamps.adapt(Stamps::WINDOW_NS, 0, 1);
        for i in 2..20 {
            stamps.adapt(i * Stamps::WINDOW_NS, 1000, 1);
        }
        assert_eq!(stamps.one_in, 1);
        for i in 20..25 {
            stamps.adapt(i * Stamps::WINDOW_NS, 0, 1);
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
            stamps.adapt(i64::try_from(seq).unwrap() * 1_000_000, back, 1);
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
                stamps.adapt(at, back, 1);
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
