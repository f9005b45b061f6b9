//! Test mode: what happens to packets on purpose, and what that makes of their order.
//!
//! The stage is pure: it gets time as an argument, draws from a seed, and keeps what is held in
//! memory of its own, which is allocated once. The reflector's thread asks it for the fate of each
//! packet, gives it what is to be held, and sends what it says is due.
//!
//! One draw decides for one thing at most, in shares as configured. `reordered` is not what was
//! drawn: it is RFC 4737 §3.3 applied to the order in which packets really go on.

use std::net::IpAddr;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::admission::{Record, Visit};
use super::flow::Flow;
use super::wheel::{NONE, Wheel};
use crate::config::{Direction, Impairment, Rate};
use crate::io::Route;
use crate::report::reflector::Injected;

/// Packets that are held at a time at most: more than 100,000 a second for two seconds.
const HELD: usize = 1 << 18;
/// Memory for what is held: pieces of so many octets each. Untouched ones cost nothing.
const PIECE: usize = 256;
const PIECES: usize = 1 << 19;
/// A packet to be reordered waits for a later one during so many gaps of its session, within bounds:
/// the last packet of a session must not be stuck.
const GAPS: i64 = 4;
const OVERTAKE_NS: (i64, i64) = (20_000_000, 2_000_000_000);
/// And this long where no gap is known yet.
const FIRST_OVERTAKE_NS: i64 = 500_000_000;
/// How far packets may bunch under a rate limit, in nanoseconds of it.
const BURST_NS: u64 = 10_000_000;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Pass,
    /// It vanishes, by the draw or by the rate limit.
    Vanish,
    /// It goes on with these bits of its Sender Timestamp changed.
    Corrupt(u64),
    /// It goes on, and a copy of it.
    Duplicate,
    /// It is held until this moment, or until a later one has gone on.
    Reorder(i64),
    /// It is held until this moment.
    Delay(i64),
}

/// A packet that is held, but for its octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel {
    /// Index of the socket it came in by.
    pub(crate) socket: usize,
    pub(crate) route: Route,
    /// The address it was sent to, where known.
    pub(crate) to: Option<IpAddr>,
    /// TOS or Traffic Class octet: of the reply where that is what is held, else of the request.
    pub(crate) tos: Option<u8>,
    pub(crate) ttl: Option<u8>,
    /// Arrival, in nanoseconds since the Unix epoch.
    pub(crate) arrived_ns: i64,
    pub(crate) visit: Visit,
    /// Where it came among the packets of its session.
    pub(crate) ordinal: u64,
    /// The number by which order is judged.
    pub(crate) number: u64,
    /// When it came to the stage, in nanoseconds of the monotonic clock.
    pub(crate) offered_ns: i64,
}

#[derive(Debug)]
struct Entry {
    parcel: Parcel,
    len: usize,
    first_piece: u32,
    /// The next one that waits to be overtaken; of a free entry, the next free one.
    next: u32,
    waits: bool,
}

/// The impairment stage of one thread.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) direction: Direction,
    /// Upper ends of the shares, in millionths: drop, corrupt, duplicate, reorder, delay.
    shares: [u32; 5],
    delay_ns: (i64, i64),
    rng: Pcg64Mcg,
    limit: Option<Limit>,
    wheel: Wheel,
    entries: Vec<Entry>,
    free: u32,
    pieces: Pieces,
    capacity: usize,
    /// What was done, over all sessions.
    pub(crate) injected: Injected,
}

impl Stage {
    /// The stage of thread `index`.
    pub(crate) fn new(plan: &Impairment, index: usize) -> Self {
        Self::with_room(plan, index, HELD, PIECES)
    }

    fn with_room(plan: &Impairment, index: usize, capacity: usize, pieces: usize) -> Self {
        let mut end = 0;
        let shares = [
            plan.drop,
            plan.corrupt,
            plan.duplicate,
            plan.reorder,
            plan.delay,
        ];
        let (least, most) = plan.delay_ns;
        let longest = most.max(OVERTAKE_NS.1.unsigned_abs());
        let nanoseconds = |ns| i64::try_from(ns).unwrap_or(i64::MAX);
        Self {
            direction: plan.direction,
            shares: shares.map(|share| {
                end += share.ppm();
                end
            }),
            delay_ns: (nanoseconds(least), nanoseconds(most.max(least))),
            rng: Pcg64Mcg::seed_from_u64(plan.seed.wrapping_add(index as u64)),
            limit: plan.rate_limit.map(Limit::new),
            wheel: Wheel::new(capacity, longest),
            entries: Vec::with_capacity(capacity),
            free: NONE,
            pieces: Pieces::new(pieces),
            capacity,
            injected: Injected::default(),
        }
    }

    /// Packets that are held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.wheel.len()
    }

    /// The earliest moment at which something is due; `i64::MAX` where nothing is held.
    pub(crate) fn due_ns(&mut self) -> i64 {
        self.wheel.first().map_or(i64::MAX, |(_, due)| due)
    }

    fn count(&mut self, record: Option<&mut Record>, add: impl Fn(&mut Injected)) {
        add(&mut self.injected);
        if let Some(record) = record {
            add(&mut record.injected);
        }
    }

    /// What becomes of a packet, and its ordinal in its session.
    ///
    /// A `repeat` asks for the reflector's counter: it is no packet of the measurement, and passes.
    pub(crate) fn fate(
        &mut self,
        record: Option<&mut Record>,
        repeat: bool,
        now_ns: i64,
    ) -> (Fate, u64) {
        let Some(record) = record else {
            let fate = if repeat {
                Fate::Pass
            } else {
                self.draw(now_ns)
            };
            // Without a record nothing can tell what overtakes it.
            let fate = match fate {
                Fate::Reorder(_) => Fate::Pass,
                other => other,
            };
            return (self.counted(fate, None), 0);
        };
        if repeat {
            return (Fate::Pass, record.flow.offered);
        }
        let flow = &mut record.flow;
        let ordinal = flow.offered;
        if ordinal > 0 {
            flow.gap_ns = Some(now_ns - flow.offered_ns);
        }
        flow.offered += 1;
        flow.offered_ns = now_ns;
        let gap_ns = flow.gap_ns;
        let mut fate = self.draw(now_ns);
        if let Fate::Reorder(_) = fate {
            let (least, most) = OVERTAKE_NS;
            let hold = gap_ns.map_or(FIRST_OVERTAKE_NS, |gap| {
                gap.saturating_mul(GAPS).clamp(least, most)
            });
            fate = Fate::Reorder(now_ns + hold);
        }
        (self.counted(fate, Some(record)), ordinal)
    }

    fn counted(&mut self, fate: Fate, record: Option<&mut Record>) -> Fate {
        match fate {
            Fate::Corrupt(_) => self.count(record, |of| of.corrupted += 1),
            Fate::Duplicate => self.count(record, |of| of.duplicated += 1),
            Fate::Vanish if self.limit.as_ref().is_some_and(|limit| limit.refused) => {
                self.count(record, |of| of.rate_limited += 1);
            }
            Fate::Vanish => self.count(record, |of| of.dropped += 1),
            // Counted when it is held.
            Fate::Pass | Fate::Reorder(_) | Fate::Delay(_) => {}
        }
        fate
    }

    fn draw(&mut self, now_ns: i64) -> Fate {
        if let Some(limit) = &mut self.limit
            && !limit.lets(now_ns)
        {
            return Fate::Vanish;
        }
        let drawn = self.rng.random_range(0..1_000_000_u32);
        match self.shares.iter().position(|end| drawn < *end) {
            Some(0) => Fate::Vanish,
            // The fraction only: within a second of the truth, so that no session seems to begin
            // anew by it.
            Some(1) => Fate::Corrupt(u64::from(self.rng.random_range(1..=u32::MAX))),
            Some(2) => Fate::Duplicate,
            Some(3) => Fate::Reorder(now_ns),
            Some(_) => {
                let (least, most) = self.delay_ns;
                Fate::Delay(now_ns.saturating_add(self.rng.random_range(least..=most)))
            }
            None => Fate::Pass,
        }
    }

    /// Holds a packet until its moment; false where there is no room, and it must go on at once.
    pub(crate) fn hold(
        &mut self,
        fate: Fate,
        parcel: Parcel,
        octets: &[u8],
        record: Option<&mut Record>,
    ) -> bool {
        let (due_ns, waits) = match fate {
            Fate::Delay(due) => (due, false),
            Fate::Reorder(due) => (due, true),
            _ => return false,
        };
        let full = self.free == NONE && self.entries.len() == self.capacity;
        let stored = if full {
            None
        } else {
            self.pieces.store(octets)
        };
        let Some(first_piece) = stored else {
            self.count(record, |of| of.not_held += 1);
            return false;
        };
        let entry = Entry {
            parcel,
            len: octets.len(),
            first_piece,
            next: NONE,
            waits,
        };
        let at = self.free;
        let at = if at == NONE {
            // Within the capacity: no allocation.
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
        } else {
            self.free = self.entries[index(at)].next;
            self.entries[index(at)] = entry;
            at
        };
        self.wheel.insert(at, due_ns, parcel.offered_ns);
        if !waits {
            self.count(record, |of| of.delayed += 1);
        } else if let Some(record) = record {
            let (first, last) = &mut record.flow.waiting;
            match *last {
                NONE => *first = at,
                before => self.entries[index(before)].next = at,
            }
            *last = at;
        }
        true
    }

    /// Notes that a packet goes on, uncorrupted and for the first time.
    pub(crate) fn goes_on(&mut self, number: u64, record: Option<&mut Record>) {
        if let Some(record) = record
            && record.flow.goes_on(number)
        {
            self.count(Some(record), |of| of.reordered += 1);
        }
    }

    /// One that waited for the packet `ordinal` of its session to go on.
    pub(crate) fn overtaken(&mut self, ordinal: u64, record: Option<&mut Record>) -> Option<u32> {
        let first = record?.flow.waiting.0;
        let entry = self.entries.get(index(first))?;
        (entry.parcel.ordinal < ordinal).then_some(first)
    }

    /// One whose moment has come.
    pub(crate) fn due(&mut self, now_ns: i64) -> Option<u32> {
        let (at, due_ns) = self.wheel.first()?;
        (due_ns <= now_ns).then_some(at)
    }

    /// The session of a held packet.
    pub(crate) fn serial_of(&self, at: u32) -> u64 {
        self.entries[index(at)].parcel.visit.serial
    }

    /// Index of the socket that a held packet leaves by.
    pub(crate) fn socket_of(&self, at: u32) -> usize {
        self.entries[index(at)].parcel.socket
    }

    /// Takes a held packet out: its octets are copied to the start of `to`; returns how many.
    pub(crate) fn release(
        &mut self,
        at: u32,
        to: &mut [u8],
        record: Option<&mut Record>,
    ) -> (Parcel, usize) {
        self.wheel.remove(at);
        let entry = &self.entries[index(at)];
        let (parcel, len, next) = (entry.parcel, entry.len, entry.next);
        self.pieces.take(entry.first_piece, &mut to[..len]);
        if entry.waits
            && let Some(record) = record
        {
            self.stop_waiting(at, next, &mut record.flow);
        }
        self.entries[index(at)].next = self.free;
        self.free = at;
        (parcel, len)
    }

    /// Almost always the first one.
    fn stop_waiting(&mut self, at: u32, next: u32, flow: &mut Flow) {
        let (first, last) = &mut flow.waiting;
        let mut before = NONE;
        let mut here = *first;
        while here != at && here != NONE {
            before = here;
            here = self.entries[index(here)].next;
        }
        if here == NONE {
            return;
        }
        match before {
            NONE => *first = next,
            before => self.entries[index(before)].next = next,
        }
        if *last == at {
            *last = before;
        }
    }

    /// Notes that a held packet, taken out at the end, is never sent.
    pub(crate) fn never_sent(&mut self, record: Option<&mut Record>) {
        self.count(record, |of| of.unreleased += 1);
    }
}

fn index(at: u32) -> usize {
    usize::try_from(at).expect("32 bits fit the address space")
}

/// Lets so many packets through in a second, in bunches of 10 ms' worth at most.
#[derive(Debug)]
struct Limit {
    /// What a packet costs and what may be saved up, in millionths of a nanosecond.
    cost: u64,
    most: u64,
    credit: u64,
    looked_ns: i64,
    /// The last packet was above the limit.
    refused: bool,
}

impl Limit {
    fn new(rate: Rate) -> Self {
        let cost = rate.due_ns(1_000_000);
        let most = cost.max(BURST_NS * 1_000_000);
        Self {
            cost,
            most,
            credit: most,
            looked_ns: i64::MIN,
            refused: false,
        }
    }

    fn lets(&mut self, now_ns: i64) -> bool {
        let passed = now_ns.saturating_sub(self.looked_ns).max(0).unsigned_abs();
        self.credit = self
            .credit
            .saturating_add(passed.saturating_mul(1_000_000))
            .min(self.most);
        self.looked_ns = now_ns;
        self.refused = self.credit < self.cost;
        if !self.refused {
            self.credit -= self.cost;
        }
        !self.refused
    }
}

/// Octets of what is held, in chains of pieces.
#[derive(Debug)]
struct Pieces {
    octets: Box<[u8]>,
    /// The piece that follows in a chain; of the free ones, in that of the free.
    next: Vec<u32>,
    capacity: usize,
    free: u32,
    left: usize,
}

impl Pieces {
    fn new(capacity: usize) -> Self {
        Self {
            octets: vec![0; capacity * PIECE].into_boxed_slice(),
            next: Vec::with_capacity(capacity),
            capacity,
            free: NONE,
            left: capacity,
        }
    }

    fn free_piece(&mut self) -> u32 {
        let at = self.free;
        if at == NONE {
            // Within the capacity: no allocation.
            self.next.push(NONE);
            return u32::try_from(self.next.len() - 1).unwrap_or(NONE);
        }
        self.free = std::mem::replace(&mut self.next[index(at)], NONE);
        at
    }

    /// Stores octets; `None` where there is no room for all of them.
    fn store(&mut self, octets: &[u8]) -> Option<u32> {
        let need = octets.len().div_ceil(PIECE).max(1);
        if need > self.left {
            return None;
        }
        debug_assert!(self.next.len() <= self.capacity);
        self.left -= need;
        let first = self.free_piece();
        let mut here = first;
        for (n, part) in octets.chunks(PIECE).enumerate() {
            if n > 0 {
                let next = self.free_piece();
                self.next[index(here)] = next;
                here = next;
            }
            let start = index(here) * PIECE;
            self.octets[start..start + part.len()].copy_from_slice(part);
        }
        Some(first)
    }

    /// Copies a chain out and frees it.
    fn take(&mut self, first: u32, to: &mut [u8]) {
        let need = to.len().div_ceil(PIECE).max(1);
        let mut here = first;
        let mut parts = to.chunks_mut(PIECE);
        for n in 0..need {
            if let Some(part) = parts.next() {
                let start = index(here) * PIECE;
                part.copy_from_slice(&self.octets[start..start + part.len()]);
            }
            let next = self.next[index(here)];
            if n + 1 == need {
                self.next[index(here)] = self.free;
            } else {
                here = next;
            }
        }
        self.free = first;
        self.left += need;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::admission::Sessions;
    use crate::stats::sequence::{Counts, Tracker};
    use crate::wire::{Format, Timestamp};

    const MS: i64 = 1_000_000;

    fn plan(shares: [u32; 5], delay_ns: (u64, u64), seed: u64) -> Impairment {
        let [drop, corrupt, duplicate, reorder, delay] =
            shares.map(|tenths| format!("{}.{}", tenths / 10, tenths % 10).parse().unwrap());
        Impairment {
            direction: Direction::Inbound,
            drop,
            duplicate,
            reorder,
            delay,
            corrupt,
            delay_ns,
            rate_limit: None,
            seed,
        }
    }

    /// One session through a stage, as the reflector's thread takes it through.
    struct Session {
        stage: Stage,
        sessions: Sessions,
        visit: Visit,
        tracker: Tracker,
        offered: u64,
        sent: u64,
        invalid: u64,
        /// How late packets that were only delayed left, and the order of all.
        late_ns: Vec<i64>,
        order: Vec<u64>,
        room: [u8; 4096],
    }

    fn peer() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 862))
    }

    impl Session {
        fn new(stage: Stage) -> Self {
            let mut sessions = Sessions::new(0);
            let t1 = Timestamp::from_unix_ns(1, Format::Ntp);
            let mut visit = sessions.find(peer(), None);
            sessions.visit(&mut visit, (0, t1), 1, 41, 1);
            Self {
                stage,
                visit,
                sessions,
                tracker: Tracker::new(1 << 16),
                offered: 0,
                sent: 0,
                invalid: 0,
                late_ns: Vec::new(),
                order: Vec::new(),
                room: [0; 4096],
            }
        }

        fn offer(&mut self, len: usize, now: i64) {
            self.release_due(now);
            let number = self.offered;
            self.offered += 1;
            let record = self.sessions.record(self.visit.serial);
            let (fate, ordinal) = self.stage.fate(record, false, now);
            assert_eq!(ordinal, number);
            let parcel = Parcel {
                socket: 0,
                route: Route {
                    to: peer(),
                    source: None,
                },
                to: None,
                tos: None,
                ttl: None,
                arrived_ns: now,
                visit: self.visit,
                ordinal,
                number,
                offered_ns: now,
            };
            let octets = vec![number.to_be_bytes()[7]; len];
            let record = self.sessions.record(self.visit.serial);
            match fate {
                Fate::Vanish => return,
                Fate::Corrupt(bits) => {
                    assert!(bits != 0 && u32::try_from(bits).is_ok());
                    self.invalid += 1;
                    return;
                }
                Fate::Delay(_) | Fate::Reorder(_) => {
                    if self.stage.hold(fate, parcel, &octets, record) {
                        return;
                    }
                }
                Fate::Duplicate => self.send(number),
                Fate::Pass => {}
            }
            self.send(number);
            self.goes_on(number, ordinal, now);
        }

        fn send(&mut self, number: u64) {
            let low = u32::try_from(number).unwrap();
            self.sent += 1;
            self.tracker.on_reply(number, low, false);
            self.order.push(number);
        }

        fn goes_on(&mut self, number: u64, ordinal: u64, now: i64) {
            let serial = self.visit.serial;
            self.stage.goes_on(number, self.sessions.record(serial));
            while let Some(at) = self.stage.overtaken(ordinal, self.sessions.record(serial)) {
                self.release(at, now);
            }
        }

        fn release(&mut self, at: u32, now: i64) {
            let record = self.sessions.record(self.visit.serial);
            let (parcel, len) = self.stage.release(at, &mut self.room, record);
            let octet = parcel.number.to_be_bytes()[7];
            assert!(self.room[..len].iter().all(|o| *o == octet));
            self.late_ns.push(now - parcel.offered_ns);
            self.send(parcel.number);
            self.goes_on(parcel.number, parcel.ordinal, now);
        }

        fn release_due(&mut self, now: i64) {
            while let Some(at) = self.stage.due(now) {
                self.release(at, now);
            }
        }

        fn finish(mut self) -> (Injected, Counts, u64) {
            let record = self.sessions.record(self.visit.serial).unwrap();
            assert_eq!(record.injected, self.stage.injected);
            assert_eq!(self.stage.held(), 0);
            (
                self.stage.injected,
                self.tracker.finish(self.offered),
                self.sent,
            )
        }
    }

    fn run(plan: &Impairment, room: (usize, usize), packets: &[(i64, usize)]) -> Session {
        let mut session = Session::new(Stage::with_room(plan, 0, room.0, room.1));
        let mut now = 1_000 * MS;
        for (gap, len) in packets {
            now += gap;
            session.offer(*len, now);
        }
        session
    }

    proptest! {
        #[test]
        fn totals_add_up_and_the_order_is_what_a_sender_finds(
            weights in prop::array::uniform5(0..200_u32),
            longest in 1..100_000_000_u64,
            seed in any::<u64>(),
            room in (1..64_usize, 1..64_usize),
            packets in prop::collection::vec((0..3_000_000_i64, 0..3_000_usize), 1..400),
        ) {
            let plan = plan(weights, (1, longest), seed);
            let mut session = run(&plan, room, &packets);
            let held = u64::try_from(session.stage.held()).unwrap();
            let injected = session.stage.injected;
            prop_assert_eq!(
                session.offered,
                session.sent + injected.dropped + session.invalid + held - injected.duplicated
            );
            session.release_due(i64::MAX);
            let offered = session.offered;
            let invalid = session.invalid;
            let (injected, counts, sent) = session.finish();
            prop_assert_eq!(sent + injected.dropped + invalid, offered + injected.duplicated);
            prop_assert_eq!(injected.corrupted, invalid);
            prop_assert_eq!(injected.reordered, counts.reordered);
            prop_assert_eq!(injected.duplicated, counts.duplicates);
            prop_assert_eq!(counts.received + injected.dropped + invalid, offered);
        }
    }

    #[test]
    fn each_share_is_what_was_asked_for() {
        let plan = plan([50, 10, 20, 0, 30], (1, 5_000_000), 7);
        let packets = vec![(MS, 41); 100_000];
        let mut session = run(&plan, (1 << 12, 1 << 12), &packets);
        session.release_due(i64::MAX);
        let (injected, ..) = session.finish();
        for (number, share) in [
            (injected.dropped, 0.05_f64),
            (injected.corrupted, 0.01),
            (injected.duplicated, 0.02),
            (injected.delayed, 0.03),
        ] {
            let mean = share * 100_000.0;
            let deviation = (mean * (1.0 - share)).sqrt();
            let off = (f64::from(u32::try_from(number).unwrap()) - mean).abs();
            assert!(off < 5.0 * deviation, "{share}: {number}");
        }
    }

    #[test]
    fn one_that_is_to_be_reordered_leaves_behind_the_next_one_that_leaves() {
        let all = plan([0, 0, 0, 1000, 0], (1, 2), 1);
        let none = plan([0; 5], (1, 2), 1);
        let mut session = Session::new(Stage::with_room(&all, 0, 8, 8));
        session.offer(41, 10 * MS);
        session.offer(41, 11 * MS);
        assert!(session.order.is_empty());
        session.stage.shares = Stage::with_room(&none, 0, 1, 1).shares;
        session.offer(41, 12 * MS);
        assert_eq!(session.order, [2, 0, 1]);
        // The last one has nobody to overtake it, and is let go all the same.
        session.stage.shares = Stage::with_room(&all, 0, 1, 1).shares;
        session.offer(41, 13 * MS);
        assert_eq!(session.stage.due_ns(), 33 * MS);
        session.release_due(33 * MS);
        assert_eq!(session.order, [2, 0, 1, 3]);
        assert_eq!(session.finish().0.reordered, 2);
    }

    #[test]
    fn what_finds_no_room_goes_on_at_once_and_is_counted() {
        let plan = plan([0, 0, 0, 0, 1000], (5_000_000, 5_000_000), 1);
        // Two pieces of 256 octets: the second packet needs three, the third finds one.
        let session = run(&plan, (8, 2), &[(MS, 41), (MS, 700), (MS, 41), (MS, 41)]);
        assert_eq!(session.order, [1, 3]);
        assert_eq!(session.stage.injected.not_held, 2);
        assert_eq!(session.stage.injected.delayed, 2);
        let session = run(&plan, (1, 8), &[(MS, 41), (MS, 41)]);
        assert_eq!(session.order, [1]);
    }

    #[test]
    fn delays_are_drawn_within_their_bounds() {
        let plan = plan([0, 0, 0, 0, 1000], (15_000_000, 25_000_000), 1);
        let mut session = run(&plan, (1 << 12, 1 << 12), &vec![(MS / 100, 41); 2_000]);
        for now in 1_000_000..1_060_000 {
            session.release_due(now * 1000);
        }
        let (least, most) = (session.late_ns.iter().min(), session.late_ns.iter().max());
        assert!(*least.unwrap() >= 15 * MS, "{least:?}");
        // Looked at every 10 µs at least.
        assert!(*most.unwrap() <= 25 * MS + MS / 100, "{most:?}");
        assert_eq!(session.finish().0.delayed, 2_000);
    }

    #[test]
    fn a_question_for_the_counter_passes() {
        let plan = plan([1000, 0, 0, 0, 0], (1, 2), 1);
        let mut session = Session::new(Stage::with_room(&plan, 0, 8, 8));
        session.offer(41, 10 * MS);
        let record = session.sessions.record(session.visit.serial);
        assert_eq!(session.stage.fate(record, true, 11 * MS), (Fate::Pass, 1));
        assert_eq!(session.stage.injected.dropped, 1);
    }

    #[test]
    fn a_rate_limit_lets_its_rate_through_and_counts_the_rest_apart() {
        let mut plan = plan([0; 5], (1, 2), 1);
        plan.rate_limit = Some("500".parse().unwrap());
        let session = run(&plan, (8, 8), &vec![(MS, 41); 2_000]);
        // Two seconds' worth, and the 10 ms' worth saved up before.
        assert!((1_000..=1_006).contains(&session.sent), "{}", session.sent);
        assert_eq!(session.stage.injected.rate_limited, 2_000 - session.sent);
        assert_eq!(session.stage.injected.dropped, 0);
        plan.rate_limit = Some("0.5".parse().unwrap());
        assert_eq!(run(&plan, (8, 8), &vec![(MS, 41); 3_000]).sent, 2);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let plan = plan([100, 100, 100, 100, 100], (1, 9_000_000), 42);
        let packets = vec![(MS, 41); 500];
        let order = run(&plan, (512, 512), &packets).order;
        assert_eq!(order, run(&plan, (512, 512), &packets).order);
        let other = Impairment { seed: 43, ..plan };
        assert_ne!(order, run(&other, (512, 512), &packets).order);
    }
}
