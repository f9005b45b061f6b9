//! What the sender and the receiver thread of a session share: the packets under way.
//!
//! For each sequence number of a window the exact T1 that was sent, so that only a true reply
//! counts (RFC 5357 leaves forged and stale ones to the receiver), and the size. Where packets leave
//! in trains these are kept once for as many packets as begin and end together (a granule), unless the
//! system turns out to refuse trains.
//! Everything is an atomic of its own: neither thread ever waits for the other.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A place that no other thread's place shares a cache line with.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Marks a packet that asked for a transmit stamp.
const STAMPED: u8 = 0x80;
/// Marks a granule that is not the first one of its train.
const CONTINUED: u8 = 0x40;
/// The other bits are the size class, of which there are 16 at most.
const CLASS: u8 = 0x0f;
/// Most packets under way that are told apart, where each one is kept on its own.
pub(crate) const MAX_SINGLES: u64 = 1 << 22;
/// Most probes after a session.
pub(crate) const PROBES: usize = 3;

/// What the receiver wants of the sender: the probe of this number.
pub(crate) type Wish = usize;

/// Room for the packets of a window.
#[derive(Debug)]
struct Places {
    t1: Box<[AtomicU64]>,
    class: Box<[AtomicU8]>,
    mask: u64,
    /// Packets of a granule, as a power of two.
    shift: u32,
}

impl Places {
    fn new(window: u64, shift: u32) -> Self {
        let size = (window >> shift).max(64).next_power_of_two();
        let places = usize::try_from(size).expect("a window fits the address space");
        Self {
            t1: (0..places).map(|_| AtomicU64::new(0)).collect(),
            class: (0..places).map(|_| AtomicU8::new(0)).collect(),
            mask: size - 1,
            shift,
        }
    }

    fn window(&self) -> u64 {
        (self.mask + 1) << self.shift
    }

    fn place(&self, seq: u64) -> usize {
        usize::try_from((seq >> self.shift) & self.mask).expect("within the window")
    }

    #[inline]
    fn class(&self, seq: u64) -> u8 {
        self.class[self.place(seq)].load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct Flight {
    granules: Places,
    /// From this sequence number on each packet has a place of its own.
    singles: OnceLock<(AtomicU64, Places)>,
    /// Packets of the longest train so far.
    burst: AtomicU32,
    /// Sequence numbers below may be under way.
    attempted: Apart<AtomicU64>,
    /// Packets that left.
    departed: Apart<AtomicU64>,
    /// Transmit stamps of packets that were answered that did not come.
    stamps_lost: Apart<AtomicU64>,
    /// The sender was asked to end before its time.
    interrupted: AtomicBool,
    /// How many packets were sent, once that is known.
    sent: AtomicU64,
    done: AtomicBool,
    /// When the last packet left, by the monotonic clock.
    last_ns: AtomicI64,
    probes: [AtomicU64; PROBES],
    /// Nobody takes replies any more.
    abandoned: AtomicBool,
    grace_ns: i64,
    /// When the first packet of all left, by the monotonic clock; 0: none has.
    first_ns: AtomicI64,
    /// The sender met a refusal, and the receiver may know better.
    refused: AtomicBool,
    /// The peer is not there yet: this attempt has ended.
    absent: AtomicBool,
}

/// The time in which a refusal only says that the peer is not there yet: after the first packet of all that left,
/// and as long as nothing was answered. Then the attempt ends, and another one begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grace {
    /// How long it is; 0: there is none.
    pub(crate) ns: i64,
    /// When the first packet of the attempts before left, by the monotonic clock; 0: none has.
    pub(crate) first_ns: i64,
}

impl Flight {
    /// Room for at least `window` packets under way, in granules of `1 << shift` packets.
    pub(crate) fn new(window: u64, shift: u32) -> Self {
        Self {
            granules: Places::new(window, shift),
            singles: OnceLock::new(),
            burst: AtomicU32::new(1),
            attempted: Apart::default(),
            departed: Apart::default(),
            stamps_lost: Apart::default(),
            interrupted: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            done: AtomicBool::new(false),
            last_ns: AtomicI64::new(0),
            probes: Default::default(),
            abandoned: AtomicBool::new(false),
            grace_ns: 0,
            first_ns: AtomicI64::new(0),
            refused: AtomicBool::new(false),
            absent: AtomicBool::new(false),
        }
    }

    /// The same in a time of grace.
    pub(crate) fn with_grace(mut self, grace: Grace) -> Self {
        self.grace_ns = grace.ns;
        self.first_ns = AtomicI64::new(grace.first_ns);
        self
    }

    /// What only the sender may do.
    pub(crate) fn sender(&self) -> SenderEnd<'_> {
        SenderEnd(self)
    }

    /// What only the receiver may do.
    pub(crate) fn receiver(&self) -> ReceiverEnd<'_> {
        ReceiverEnd(self)
    }

    /// Whether there is a time of grace, which may be over.
    pub(crate) fn has_grace(&self) -> bool {
        self.grace_ns > 0
    }

    /// What is left of it for another attempt.
    pub(crate) fn grace(&self) -> Grace {
        Grace {
            ns: self.grace_ns,
            first_ns: self.first_ns.load(Ordering::Relaxed),
        }
    }

    /// Whether a packet that is refused at `now`, since the peer's port is closed, says only that the peer is
    /// not there yet, if nothing was answered.
    pub(crate) fn in_grace(&self, now: i64) -> bool {
        let waited = match self.first_ns.load(Ordering::Relaxed) {
            // A near peer's refusal is there before the call that sends the first packet returns.
            0 if self.attempted() > 0 => 0,
            0 => return false,
            first => now.saturating_sub(first),
        };
        waited <= self.grace_ns && self.has_grace()
    }

    /// The peer is not there yet: nothing that left counts, and nothing more is to leave.
    pub(crate) fn is_absent(&self) -> bool {
        self.absent.load(Ordering::Acquire)
    }

    /// Sequence numbers that are told apart.
    pub(crate) fn window(&self) -> u64 {
        let all = self.granules.window();
        let singles = self.singles.get();
        singles.map_or(all, |(_, places)| places.window().min(all))
    }

    /// Granules of the window: more of them once packets have places of their own.
    pub(crate) fn granules(&self) -> u64 {
        let singles = self.singles.get();
        singles.map_or(&self.granules, |(_, places)| places).mask + 1
    }

    /// The granule of a packet; no two have the same number.
    pub(crate) fn granule(&self, seq: u64) -> u64 {
        seq >> self.places(seq).shift
    }

    /// Packets of the granule that begins with a packet.
    pub(crate) fn granule_len(&self, seq: u64) -> u64 {
        1 << self.places(seq).shift
    }

    fn places(&self, seq: u64) -> &Places {
        match self.singles.get() {
            Some((from, singles)) if seq >= from.load(Ordering::Relaxed) => singles,
            _ => &self.granules,
        }
    }

    /// Packets of the longest train so far.
    pub(crate) fn burst(&self) -> u32 {
        self.burst.load(Ordering::Relaxed)
    }

    /// Packets that left: sequence numbers below are not used again.
    pub(crate) fn departed(&self) -> u64 {
        self.departed.0.load(Ordering::Acquire)
    }

    /// Sequence numbers below may be under way.
    pub(crate) fn attempted(&self) -> u64 {
        self.attempted.0.load(Ordering::Acquire)
    }

    /// Size class of a packet of the window, and whether it asked for a stamp.
    #[inline]
    pub(crate) fn class(&self, seq: u64) -> (u8, bool) {
        let value = self.places(seq).class(seq);
        (value & CLASS, value & STAMPED != 0)
    }

    /// How many packets left and when the last one did, once that is known.
    pub(crate) fn finished(&self) -> Option<(u64, i64)> {
        self.done.load(Ordering::Acquire).then(|| {
            let sent = self.sent.load(Ordering::Relaxed);
            (sent, self.last_ns.load(Ordering::Relaxed))
        })
    }
}

/// The sender's end of a [`Flight`]: it tells what leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderEnd<'a>(&'a Flight);

impl Deref for SenderEnd<'_> {
    type Target = Flight;

    #[inline]
    fn deref(&self) -> &Flight {
        self.0
    }
}

impl SenderEnd<'_> {
    /// A packet was refused in the time of grace. Whether that says something of the peer is the receiver's to know.
    pub(crate) fn ask_whether_absent(&self) {
        self.0.refused.store(true, Ordering::Release);
    }

    /// Nobody takes replies any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.abandoned.load(Ordering::Relaxed)
    }

    /// From `seq` on, which is the first one of a granule, packets may leave one by one.
    pub(crate) fn take_apart(&self, seq: u64) {
        if self.0.granules.shift > 0 {
            let window = self.0.granules.window().min(MAX_SINGLES);
            self.0
                .singles
                .get_or_init(|| (AtomicU64::new(seq), Places::new(window, 0)));
        }
    }

    /// So many packets leave as one train from now on.
    pub(crate) fn set_burst(&self, burst: u32) {
        self.0.burst.fetch_max(burst, Ordering::Relaxed);
    }

    /// Notes `count` packets from `seq` on that are about to leave together; `t1` is what
    /// stands in them. `seq` is the first one of a granule.
    pub(crate) fn note(&self, seq: u64, count: u64, t1: u64, class: u8, stamped: bool) {
        let places = self.places(seq);
        debug_assert_eq!(seq % (1 << places.shift), 0);
        let mut class = class | if stamped { STAMPED } else { 0 };
        for first in (seq..seq + count).step_by(1 << places.shift) {
            let place = places.place(first);
            places.t1[place].store(t1, Ordering::Relaxed);
            places.class[place].store(class, Ordering::Relaxed);
            class |= CONTINUED;
        }
    }

    /// The packets below `seq` are noted and may leave.
    pub(crate) fn attempt(&self, seq: u64) {
        self.0.attempted.0.store(seq, Ordering::Release);
    }

    /// When the first packet left, by the monotonic clock; only the first call counts.
    pub(crate) fn first_left(&self, ns: i64) {
        let first = &self.0.first_ns;
        // No other thread writes it.
        if self.has_grace() && first.load(Ordering::Relaxed) == 0 {
            first.store(ns, Ordering::Relaxed);
        }
    }

    /// The packets below `seq` have left.
    pub(crate) fn depart(&self, seq: u64) {
        self.0.departed.0.store(seq, Ordering::Release);
    }

    /// Transmit stamps of packets that were answered that did not come.
    pub(crate) fn stamps_lost(&self) -> u64 {
        self.0.stamps_lost.0.load(Ordering::Relaxed)
    }

    /// It was asked to end before its time, and does.
    pub(crate) fn set_interrupted(&self) {
        self.0.interrupted.store(true, Ordering::Relaxed);
    }

    /// No more packets will leave.
    pub(crate) fn finish(&self, sent: u64, last_ns: i64) {
        self.0.sent.store(sent, Ordering::Relaxed);
        self.0.last_ns.store(last_ns, Ordering::Relaxed);
        self.0.done.store(true, Ordering::Release);
    }

    /// Notes a probe that is about to leave.
    pub(crate) fn note_probe(&self, index: usize, t1: u64) {
        self.0.probes[index].store(t1, Ordering::Release);
    }
}

/// The receiver's end of a [`Flight`]: it asks what left, and tells how the session goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiverEnd<'a>(&'a Flight);

impl Deref for ReceiverEnd<'_> {
    type Target = Flight;

    #[inline]
    fn deref(&self) -> &Flight {
        self.0
    }
}

impl ReceiverEnd<'_> {
    /// Whether the sender asks.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed) && self.0.refused.swap(false, Ordering::AcqRel)
    }

    /// The peer is not there yet.
    pub(crate) fn set_absent(&self) {
        self.0.absent.store(true, Ordering::Release);
    }

    /// No reply is taken any more, so that nothing more needs to leave.
    pub(crate) fn abandon(&self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }

    /// T1 of a packet of the window.
    #[inline]
    pub(crate) fn t1(&self, seq: u64) -> u64 {
        let places = self.places(seq);
        places.t1[places.place(seq)].load(Ordering::Relaxed)
    }

    /// Whether a packet, the first one of its granule, left in one train with those before.
    pub(crate) fn continues(&self, seq: u64) -> bool {
        self.places(seq).class(seq) & CONTINUED != 0
    }

    /// How many of `count` packets from `seq` on left as parts of one train, and so share T1,
    /// class and stamp; all of them are of the window. At least the first one.
    #[inline]
    pub(crate) fn together(&self, seq: u64, count: u64) -> u64 {
        let places = self.places(seq);
        let (first, step) = (places.place(seq), 1 << places.shift);
        let load = |place: usize| {
            let class = places.class[place].load(Ordering::Relaxed);
            (places.t1[place].load(Ordering::Relaxed), class)
        };
        let (t1, class) = load(first);
        let mut next = (seq | (step - 1)) + 1;
        while next < seq + count
            && std::ptr::eq(self.places(next), places)
            && load(places.place(next)) == (t1, class | CONTINUED)
        {
            next += step;
        }
        count.min(next - seq)
    }

    /// So many transmit stamps of packets that were answered did not come.
    pub(crate) fn set_stamps_lost(&self, count: u64) {
        self.0.stamps_lost.0.store(count, Ordering::Relaxed);
    }

    /// Whether the sender was asked to end before its time; known once it is
    /// [`finished`](Self::finished).
    pub(crate) fn interrupted(&self) -> bool {
        self.0.interrupted.load(Ordering::Relaxed)
    }

    /// The probe that left with this T1.
    pub(crate) fn probe(&self, t1: u64) -> Option<usize> {
        let mut probes = self.0.probes.iter();
        probes.position(|probe| t1 != 0 && probe.load(Ordering::Acquire) == t1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_within_the_grace_says_that_the_peer_is_not_there_yet() {
        let grace = Grace {
            ns: 1000,
            first_ns: 0,
        };
        let flight = Flight::new(64, 0).with_grace(grace);
        assert!(!flight.in_grace(5), "nothing has left");
        flight.sender().attempt(1);
        assert!(flight.in_grace(5));
        flight.sender().first_left(100);
        flight.sender().first_left(600);
        assert!(flight.in_grace(1100) && !flight.in_grace(1101));
        // The sender asks once, and the receiver decides.
        assert!(!flight.receiver().is_asked());
        flight.sender().ask_whether_absent();
        assert!(flight.receiver().is_asked() && !flight.receiver().is_asked());
        assert!(!flight.is_absent());
        flight.receiver().set_absent();
        assert!(flight.is_absent());
        // Another attempt has what is left of the time.
        let next = Flight::new(64, 0).with_grace(flight.grace());
        assert!(next.in_grace(1100) && !next.in_grace(1101) && !next.is_absent());
        assert!(!Flight::new(64, 0).in_grace(1));
    }
}
