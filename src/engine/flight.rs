//! What the sender and the receiver thread of a session share: the packets under way.
//!
//! For each sequence number of a window the exact T1 that was sent, so that only a true reply
//! counts (RFC 5357 leaves forged and stale ones to the receiver), and the size. Where packets leave
//! in trains these are kept once for as many packets as begin and end together (a granule), unless the
//! system turns out to refuse trains.
//! Everything is an atomic of its own: neither thread ever waits for the other.

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

/// What the receiver wants of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The probe of this number.
    Probe(usize),
    /// That it looks whether all begins anew, in case it has nothing more to send.
    Anew,
}

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
    grace: Grace,
}

/// The time after the first packet in which a refusal only says that the peer is not there yet.
#[derive(Debug, Default)]
struct Grace {
    /// How long it is; 0: there is none.
    ns: i64,
    /// When the first packet of all left, by the monotonic clock; 0: none has.
    first_ns: AtomicI64,
    /// The peer is there.
    over: AtomicBool,
    /// An [`Anew`].
    anew: AtomicU8,
}

/// How far a new beginning is; each step is made by one thread, and the other one waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Anew {
    /// There is none under way.
    No,
    /// Sender: a packet was refused.
    Asked,
    /// Receiver: so it is, and none was answered; nothing that left counts.
    Granted,
    /// Sender: nothing leaves any more.
    Withdrawn,
    /// Receiver: all that is known of those packets is forgotten.
    Forgotten,
    /// Sender: the thread has ended, there will be none.
    Never,
}

impl Anew {
    const ALL: [Self; 6] = [
        Self::No,
        Self::Asked,
        Self::Granted,
        Self::Withdrawn,
        Self::Forgotten,
        Self::Never,
    ];

    fn of(step: u8) -> Self {
        let known = Self::ALL.get(usize::from(step));
        known.copied().unwrap_or(Self::Never)
    }
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
            grace: Grace::default(),
        }
    }

    /// The same where a packet that is refused within `ns` after the first one has all begin anew, as
    /// long as none is answered.
    pub(crate) fn with_grace(mut self, ns: i64) -> Self {
        self.grace.ns = ns;
        self
    }

    /// Whether a packet that is refused may still have all begin anew.
    pub(crate) fn in_grace(&self) -> bool {
        self.grace.ns > 0 && !self.grace.over.load(Ordering::Relaxed)
    }

    /// Receiver: the peer is there. From now on what is refused counts.
    pub(crate) fn end_grace(&self) {
        self.grace.over.store(true, Ordering::Relaxed);
    }

    /// A packet was refused since the peer's port is closed. `None`: that counts. Else all begins anew,
    /// with `step` as the first one; returned is how far that is now.
    pub(crate) fn refused(&self, now: i64, step: Anew) -> Option<Anew> {
        let waited = match self.grace.first_ns.load(Ordering::Relaxed) {
            // A near peer's refusal is there before the call that sends the first packet returns.
            0 if self.attempted() > 0 => 0,
            0 => return None,
            first => now.saturating_sub(first),
        };
        if !self.in_grace() || waited > self.grace.ns {
            return None;
        }
        let (no, first) = (Anew::No as u8, step as u8);
        let anew = &self.grace.anew;
        // Those that are refused while it is under way are withdrawn as well.
        match anew.compare_exchange(no, first, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(step),
            Err(found) => Some(Anew::of(found)).filter(|found| *found != Anew::Never),
        }
    }

    /// Receiver: no reply is taken any more, so that nothing more needs to leave.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Sender: nobody takes replies any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Sender: nothing that left counts, and nothing more is to leave until all begins anew.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.grace.ns > 0 && self.anew() == Anew::Granted
    }

    /// How far a new beginning is.
    pub(crate) fn anew(&self) -> Anew {
        Anew::of(self.grace.anew.load(Ordering::Acquire))
    }

    /// Receiver: what becomes of it that the sender asked, if it is still there to hear it.
    pub(crate) fn answer_anew(&self, answer: Anew) {
        let (asked, answer) = (Anew::Asked as u8, answer as u8);
        let (done, failed) = (Ordering::AcqRel, Ordering::Acquire);
        let anew = &self.grace.anew;
        // Only that the thread has ended can have come in between, and that stands.
        let _ = anew.compare_exchange(asked, answer, done, failed);
    }

    /// Makes the next step of a new beginning, or ends it.
    pub(crate) fn set_anew(&self, step: Anew) {
        self.grace.anew.store(step as u8, Ordering::Release);
    }

    /// Sender: no packet has left, and nothing is known of any; what the system refuses is kept.
    pub(crate) fn withdraw(&self) {
        self.attempted.0.store(0, Ordering::Release);
        self.departed.0.store(0, Ordering::Release);
        self.done.store(false, Ordering::Release);
        if let Some((from, _)) = self.singles.get() {
            from.store(0, Ordering::Release);
        }
    }

    /// Receiver: nothing came back of what was withdrawn.
    pub(crate) fn forget(&self) {
        self.stamps_lost.0.store(0, Ordering::Relaxed);
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

    /// Sender: from `seq` on, which is the first one of a granule, packets may leave one by one.
    pub(crate) fn take_apart(&self, seq: u64) {
        if self.granules.shift > 0 {
            let window = self.granules.window().min(MAX_SINGLES);
            self.singles
                .get_or_init(|| (AtomicU64::new(seq), Places::new(window, 0)));
        }
    }

    /// Sender: so many packets leave as one train from now on.
    pub(crate) fn set_burst(&self, burst: u32) {
        self.burst.fetch_max(burst, Ordering::Relaxed);
    }

    /// Packets of the longest train so far.
    pub(crate) fn burst(&self) -> u32 {
        self.burst.load(Ordering::Relaxed)
    }

    /// Sender: notes `count` packets from `seq` on that are about to leave together; `t1` is what
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

    /// Sender: the packets below `seq` are noted and may leave.
    pub(crate) fn attempt(&self, seq: u64) {
        self.attempted.0.store(seq, Ordering::Release);
    }

    /// Sender: when the first packet left, by the monotonic clock; only the first call counts.
    pub(crate) fn first_left(&self, ns: i64) {
        let first = &self.grace.first_ns;
        // No other thread writes it.
        if self.grace.ns > 0 && first.load(Ordering::Relaxed) == 0 {
            first.store(ns, Ordering::Relaxed);
        }
    }

    /// Sender: the packets below `seq` have left.
    pub(crate) fn depart(&self, seq: u64) {
        self.departed.0.store(seq, Ordering::Release);
    }

    /// Packets that left: sequence numbers below are not used again.
    pub(crate) fn departed(&self) -> u64 {
        self.departed.0.load(Ordering::Acquire)
    }

    /// Receiver: sequence numbers below may be under way.
    pub(crate) fn attempted(&self) -> u64 {
        self.attempted.0.load(Ordering::Acquire)
    }

    /// Receiver: T1 of a packet of the window.
    #[inline]
    pub(crate) fn t1(&self, seq: u64) -> u64 {
        let places = self.places(seq);
        places.t1[places.place(seq)].load(Ordering::Relaxed)
    }

    /// Receiver: size class of a packet of the window, and whether it asked for a stamp.
    #[inline]
    pub(crate) fn class(&self, seq: u64) -> (u8, bool) {
        let value = self.places(seq).class(seq);
        (value & CLASS, value & STAMPED != 0)
    }

    /// Receiver: whether a packet, the first one of its granule, left in one train with those before.
    pub(crate) fn continues(&self, seq: u64) -> bool {
        self.places(seq).class(seq) & CONTINUED != 0
    }

    /// Receiver: how many of `count` packets from `seq` on left as parts of one train, and so share T1,
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

    /// Receiver: so many transmit stamps of packets that were answered did not come.
    pub(crate) fn set_stamps_lost(&self, count: u64) {
        self.stamps_lost.0.store(count, Ordering::Relaxed);
    }

    /// Sender: transmit stamps of packets that were answered that did not come.
    pub(crate) fn stamps_lost(&self) -> u64 {
        self.stamps_lost.0.load(Ordering::Relaxed)
    }

    /// Sender: it was asked to end before its time, and does.
    pub(crate) fn set_interrupted(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Receiver: whether the sender was asked to end before its time; known once it is
    /// [`finished`](Self::finished).
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Sender: no more packets will leave.
    pub(crate) fn finish(&self, sent: u64, last_ns: i64) {
        self.sent.store(sent, Ordering::Relaxed);
        self.last_ns.store(last_ns, Ordering::Relaxed);
        self.done.store(true, Ordering::Release);
    }

    /// Receiver: how many packets left and when the last one did, once that is known.
    pub(crate) fn finished(&self) -> Option<(u64, i64)> {
        self.done.load(Ordering::Acquire).then(|| {
            let sent = self.sent.load(Ordering::Relaxed);
            (sent, self.last_ns.load(Ordering::Relaxed))
        })
    }

    /// Sender: notes a probe that is about to leave.
    pub(crate) fn note_probe(&self, index: usize, t1: u64) {
        self.probes[index].store(t1, Ordering::Release);
    }

    /// Receiver: the probe that left with this T1.
    pub(crate) fn probe(&self, t1: u64) -> Option<usize> {
        let mut probes = self.probes.iter();
        probes.position(|probe| t1 != 0 && probe.load(Ordering::Acquire) == t1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_within_the_grace_has_all_begin_anew() {
        let flight = Flight::new(64, 0).with_grace(1000);
        assert_eq!(flight.refused(5, Anew::Asked), None, "nothing has left");
        flight.attempt(1);
        let granted = Some(Anew::Granted);
        assert_eq!(
            flight.refused(5, Anew::Granted),
            granted,
            "it is just leaving"
        );
        flight.set_anew(Anew::No);
        flight.first_left(100);
        flight.first_left(5000);
        assert_eq!(flight.refused(1100, Anew::Granted), granted);
        assert!(flight.is_withdrawn());
        assert_eq!(
            flight.refused(1100, Anew::Asked),
            granted,
            "it is withdrawn as well"
        );
        for step in Anew::ALL {
            flight.set_anew(step);
            assert_eq!(flight.anew(), step);
        }
        assert_eq!(
            flight.refused(1100, Anew::Granted),
            None,
            "the sender has ended"
        );
        flight.answer_anew(Anew::Granted);
        assert_eq!(flight.anew(), Anew::Never);
        flight.set_anew(Anew::No);
        let late = flight.refused(1101, Anew::Granted);
        assert_eq!(late, None, "so long it is not waited for");
        flight.end_grace();
        assert_eq!(
            flight.refused(200, Anew::Granted),
            None,
            "the peer was there"
        );
        let flight = Flight::new(64, 0);
        flight.first_left(100);
        assert_eq!(
            flight.refused(100, Anew::Granted),
            None,
            "nobody asked for it"
        );
    }

    #[test]
    fn trains_that_were_refused_leave_one_by_one_after_a_new_beginning() {
        let flight = Flight::new(1024, 2);
        flight.note(0, 4, 7, 0, false);
        assert_eq!(flight.granule_len(0), 4);
        flight.take_apart(8);
        flight.attempt(8);
        flight.depart(8);
        flight.finish(8, 1);
        flight.withdraw();
        assert_eq!((flight.attempted(), flight.departed()), (0, 0));
        assert_eq!(flight.finished(), None);
        assert_eq!(flight.granule_len(0), 1);
        flight.note(1, 1, 9, 0, false);
        assert_eq!(flight.t1(1), 9);
    }
}
