//! A session as its sender has it: a value. What is due, what numbers it has, what left, and what was refused.
//!
//! There is no thread, no socket and no clock in it. A driver asks when the next packet is due
//! ([`SenderSide::next_ns`]), takes what is ([`SenderSide::take`]), has it written
//! ([`SenderSide::writer`]) and announced ([`SenderSide::announce`]), sends it, and tells what became of it.
//!
//! What is further behind than the timeout is not sent and takes no sequence number (RFC 4656 §4.1.1), nor
//! does a packet that the kernel refuses: such a packet is no loss of the path's.

use std::io;

use super::agenda::{Agenda, Due};
use super::stamps::Stamps;
use super::totals::Sent;
use super::writer::{Looks, PacketWriter};
use crate::engine::flight::SenderEnd;
use crate::engine::schedule::Schedule;
use crate::engine::trains::refuses_trains;
use crate::io::Icmp;
use crate::wire::Timestamp;

/// A session of which nothing could be sent ends after this.
pub(super) const GIVE_UP_NS: i64 = 2_000_000_000;

/// What is to be sent.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    pub(crate) looks: Looks,
    pub(crate) timeout_ns: i64,
    /// Longest train that may be made where singles do not keep the rate; 1: none.
    pub(crate) most_burst: u32,
    pub(crate) mean_gap_ns: i64,
    /// Packets, where the session has so many.
    pub(crate) count: Option<u64>,
    /// Transmit stamps that the system keeps until they are fetched; 0: none are to be asked for.
    pub(crate) stamps_kept: u64,
}

/// What the next packet or train is numbered with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    /// Sequence number of its first packet, extended to 64 bits.
    pub(crate) seq: u64,
    train: u64,
}

#[derive(Debug)]
pub(crate) struct SenderSide<'a> {
    pub(super) flight: SenderEnd<'a>,
    pub(super) writer: PacketWriter,
    agenda: Agenda,
    stamps: Stamps,
    pub(super) totals: Sent,
    timeout_ns: i64,
    mean_gap_ns: i64,
}

impl<'a> SenderSide<'a> {
    /// `room`: packets or trains that are put back at most.
    pub(crate) fn new(plan: Plan, flight: SenderEnd<'a>, room: usize) -> Self {
        let classes = plan.looks.payloads.len();
        Self {
            flight,
            writer: PacketWriter::new(plan.looks),
            agenda: Agenda::new(plan.schedule, classes, plan.most_burst, room),
            stamps: Stamps::new(plan.stamps_kept, plan.mean_gap_ns, plan.count),
            totals: Sent {
                by_class: vec![0; classes],
                ..Sent::default()
            },
            timeout_ns: plan.timeout_ns,
            mean_gap_ns: plan.mean_gap_ns,
        }
    }

    /// The session begins at this moment. All moments are of the monotonic clock.
    pub(crate) fn begin(&mut self, start: i64) {
        self.agenda.begin(start);
    }

    /// When the next packet or train is due; `None`: all is done.
    #[inline]
    pub(crate) fn next_ns(&self, now: i64) -> Option<i64> {
        self.agenda.next_ns(now)
    }

    /// The next packet or train, if it is due and not too late.
    #[inline]
    pub(crate) fn take(&mut self, now: i64) -> Option<Due> {
        loop {
            let due = self.agenda.take(now)?;
            if !self.drop_overdue(due, now) {
                return Some(due);
            }
        }
    }

    /// Whether it is too late for a packet or train, which is counted then.
    #[inline]
    pub(crate) fn drop_overdue(&mut self, due: Due, now: i64) -> bool {
        let overdue = now - due.at_ns > self.timeout_ns;
        self.totals.withheld.overdue += if overdue { due.count.into() } else { 0 };
        overdue
    }

    /// What leaves now begins with `first`: trains become longer where the rate is not kept.
    #[inline]
    pub(crate) fn lengthen(&mut self, first: Due, now: i64) {
        if let Some(burst) = self.agenda.lengthen(first, now) {
            self.flight.set_burst(burst);
        }
    }

    /// The numbers of the next packet or train that leaves.
    #[inline]
    pub(crate) fn numbers(&self) -> Numbers {
        Numbers {
            seq: self.totals.sent,
            train: self.stamps.trains(),
        }
    }

    /// Whether the packet or train with these numbers asks for a transmit stamp.
    #[inline]
    pub(crate) fn asks(&self, numbers: Numbers) -> bool {
        self.stamps.wanted(numbers.train)
    }

    /// Notes what is about to leave with these numbers; returns those of the next one.
    #[inline]
    pub(crate) fn note(&self, numbers: Numbers, due: Due, t1: Timestamp, asks: bool) -> Numbers {
        let (Numbers { seq, train }, count) = (numbers, u64::from(due.count));
        self.flight.note(seq, count, t1.raw(), due.class, asks);
        Numbers {
            seq: seq + count,
            train: train + 1,
        }
    }

    /// All below these numbers was noted, and may leave.
    #[inline]
    pub(crate) fn announce(&self, end: Numbers) {
        self.flight.attempt(end.seq);
    }

    /// The packets and trains that were taken first, which are these, left between two moments.
    pub(crate) fn departed(&mut self, left: &[Due], before: i64, after: i64) {
        let step = (after - before) / i64::try_from(left.len().max(1)).unwrap_or(1);
        let mut at = before;
        for due in left {
            let (_, asked) = self.flight.class(self.totals.sent);
            self.stamps.note(asked);
            self.departed_one(*due, at);
            at += step;
        }
        self.stamps.adapt(after, self.flight.stamps_lost());
    }

    fn departed_one(&mut self, due: Due, left: i64) {
        let totals = &mut self.totals;
        if totals.sent == 0 {
            totals.times.first_ns = left;
            self.flight.first_left(left);
        }
        let gap_ns = self.mean_gap_ns.saturating_mul(due.count.into());
        totals.times.note(due.count, left, left - due.at_ns, gap_ns);
        totals.by_class[usize::from(due.class)] += u64::from(due.count);
        totals.sent += u64::from(due.count);
        self.flight.depart(totals.sent);
    }

    /// The system refused a train. Returns whether it refuses all trains of this size: then their packets leave one
    /// by one from now on, and all that has not left is to be put back.
    pub(crate) fn unfold(&mut self, due: Due, error: &io::Error) -> bool {
        if due.count == 1 || !refuses_trains(error) {
            return false;
        }
        self.flight.take_apart(self.totals.sent);
        self.agenda.unfold(due.class);
        self.totals.unfolded = error.raw_os_error();
        true
    }

    /// What did not leave is taken again. The last of it comes first here.
    pub(crate) fn put_back(&mut self, last_first: impl Iterator<Item = Due>) {
        self.agenda.put_back(last_first);
    }

    /// The system refused a packet or train.
    pub(crate) fn refused(&mut self, due: Due, error: &io::Error) {
        self.totals.withheld.refuse(due.count, error);
    }

    /// The network told that the peer's port is closed.
    pub(crate) fn port_closed(&mut self, now: i64) {
        if self.flight.in_grace(now) {
            self.flight.ask_whether_absent();
        } else {
            self.told(libc::ECONNREFUSED);
        }
    }

    /// The network told something of a packet that had left.
    pub(crate) fn told(&mut self, errno: i32) {
        self.totals.icmp.note(&Icmp::of_errno(errno));
    }

    /// The session ends before its time, as somebody asked for.
    pub(crate) fn interrupt(&mut self) {
        self.totals.interrupted = true;
        self.flight.set_interrupted();
    }

    /// Whether nothing more is to leave, since the peer is not there yet, or nobody takes replies any more.
    #[inline]
    pub(crate) fn is_called_off(&self) -> bool {
        self.flight.is_absent() || self.flight.is_abandoned()
    }

    /// Whether it ends since all was refused for so long.
    #[inline]
    pub(crate) fn gives_up(&mut self, now: i64) -> bool {
        let nothing = self.totals.sent == 0 && self.totals.withheld.refused > 0;
        let gives_up = nothing && self.agenda.lasted_ns(now) > GIVE_UP_NS;
        self.totals.gave_up += u64::from(gives_up);
        gives_up
    }

    /// Nothing more leaves. Refused packets may have been announced: they are not under way.
    pub(crate) fn end(&self) {
        self.announce(self.numbers());
    }

    pub(crate) fn into_totals(self) -> Sent {
        Sent {
            stamps: self.stamps.asked(),
            ..self.totals
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{Departures, End, SizeClass};
    use crate::engine::flight::Flight;
    use crate::wire::{Format, TestFormat};

    const SECOND: i64 = 1_000_000_000;
    pub(in crate::engine::sender) const SMALL: usize = 64;
    pub(in crate::engine::sender) const LARGE: usize = 3000;
    pub(in crate::engine::sender) const BURST: u32 = 4;

    pub(in crate::engine::sender) fn schedule(
        rate: &str,
        sizes: &[usize],
        count: u64,
        burst: u32,
    ) -> Schedule {
        let end = End {
            count: Some(count),
            duration_ns: None,
        };
        let class = |&payload: &usize| SizeClass {
            payload,
            frame: payload + 42,
            weight: 1,
        };
        let classes: Vec<SizeClass> = sizes.iter().map(class).collect();
        let departures = Departures::Periodic(rate.parse().unwrap());
        Schedule::new(departures, end, &classes, 1, burst)
    }

    /// One packet a microsecond, in trains.
    pub(in crate::engine::sender) fn plan(sizes: &[usize], count: u64) -> Plan {
        Plan {
            schedule: schedule("1M", sizes, count, BURST),
            looks: Looks {
                payloads: sizes.to_vec(),
                test: TestFormat::LIGHT,
                protection: None,
                first_seq: 0,
                format: Format::Ntp,
            },
            timeout_ns: 5 * SECOND,
            most_burst: BURST,
            mean_gap_ns: 1_000,
            count: Some(count),
            stamps_kept: 1 << 20,
        }
    }

    /// The lengths of trains where the sender looks at its lag so often, and is so far behind each time.
    fn trains(most_burst: u32, behind: &[i64]) -> Vec<u32> {
        let flight = Flight::new(4096, 2);
        let plan = Plan {
            most_burst,
            ..plan(&[SMALL], u64::MAX)
        };
        let mut side = SenderSide::new(plan, flight.sender(), 8);
        side.begin(-100 * SECOND);
        // It is drawn before anything is known.
        side.agenda.take(0);
        let lengths = behind.iter().zip(1..).map(|(behind, look)| {
            let now = look * SECOND;
            let first = Due {
                at_ns: now - behind,
                class: 0,
                count: 1,
            };
            side.lengthen(first, now);
            side.agenda.take(now);
            side.agenda.take(now).unwrap().count
        });
        let lengths: Vec<u32> = lengths.collect();
        let longest = lengths.iter().max().copied().unwrap().max(BURST);
        // So that the receiver takes what comes of them together.
        let told = flight.burst();
        assert!(
            told == longest || told == 1 && longest == BURST,
            "{told} {longest}"
        );
        lengths
    }

    #[test]
    fn trains_grow_only_where_the_sender_falls_further_and_further_behind() {
        const MS: i64 = 1_000_000;
        // On time, ahead of it, a little behind, or behind and catching up.
        for behind in [
            [0; 4],
            [-SECOND, -2 * SECOND, -3 * SECOND, -4 * SECOND],
            [MS, 2 * MS, 3 * MS, 4 * MS],
            [400 * MS, 300 * MS, 200 * MS, 100 * MS],
        ] {
            assert_eq!(trains(64, &behind), [BURST; 4], "{behind:?}");
        }
        let more = |looks: i64| (1..=looks).map(|n| n * 100 * MS).collect::<Vec<_>>();
        // Twice as long each time, as far as permitted, from the second look on.
        assert_eq!(trains(64, &more(6)), [4, 8, 16, 32, 64, 64]);
        assert_eq!(trains(20, &more(5)), [4, 8, 16, 20, 20]);
        // As far as needed.
        let kept = [100, 200, 300, 300, 200, 100].map(|ms| ms * MS);
        assert_eq!(trains(64, &kept), [4, 8, 16, 16, 16, 16]);
        assert_eq!(trains(BURST, &more(3)), [BURST; 3]);
        // The kernel refuses trains: there are none any more.
        assert_eq!(trains(1, &[0; 3]), [1; 3]);
        assert_eq!(trains(1, &more(3)), [1; 3]);
    }

    #[test]
    fn what_is_overdue_when_there_is_room_again_is_not_sent() {
        let flight = Flight::new(64, 2);
        let mut side = SenderSide::new(plan(&[SMALL], 100), flight.sender(), 8);
        let due = |at_ns, count| Due {
            at_ns,
            class: 0,
            count,
        };
        for (due, now, overdue) in [
            (due(0, 4), 5 * SECOND, 0),
            (due(0, 4), 6 * SECOND + 1, 4),
            (due(SECOND, 3), 6 * SECOND + 1, 7),
            (due(2 * SECOND, 2), 6 * SECOND + 1, 7),
            (due(2 * SECOND, 2), 8 * SECOND, 9),
        ] {
            let before = side.totals.withheld.overdue;
            assert_eq!(side.drop_overdue(due, now), before < overdue);
            assert_eq!(side.totals.withheld.overdue, overdue);
        }
        // Nor does it leave the agenda.
        side.begin(0);
        assert!(side.take(100 * SECOND).is_none());
        assert_eq!(side.totals.withheld.overdue, 109);
    }

    /// One thread, one socket and one clock, which jumps from one departure to the next.
    #[test]
    fn many_sessions_share_a_driver() {
        let flights: Vec<Flight> = (0..100).map(|_| Flight::new(64, 0)).collect();
        let mut sides: Vec<SenderSide<'_>> = Vec::new();
        for (flight, index) in flights.iter().zip(0..) {
            let plan = Plan {
                schedule: schedule("10", &[SMALL], 5, 1),
                most_burst: 1,
                ..plan(&[SMALL], 5)
            };
            let mut side = SenderSide::new(plan, flight.sender(), 1);
            side.begin(SECOND + index * 1_000_000);
            sides.push(side);
        }
        let (mut now, mut sent, mut octets) = (0, 0, [0; SMALL]);
        let next = |sides: &[SenderSide<'_>], now| {
            let due = sides.iter().zip(0..).filter_map(|(side, index)| {
                let at = side.next_ns(now)?;
                Some((at, index))
            });
            due.min()
        };
        while let Some((at, index)) = next(&sides, now) {
            now = now.max(at);
            let side: &mut SenderSide<'_> = &mut sides[index];
            let due = side.take(now).unwrap();
            let numbers = side.numbers();
            let t1 = side.writer.t1(now);
            let mut packets = side.writer.packets(due, numbers.seq, &mut octets);
            side.writer.prepare(&mut packets);
            side.writer.stamp(&mut packets, t1);
            let end = side.note(numbers, due, t1, side.asks(numbers));
            side.announce(end);
            side.departed(&[due], now, now);
            assert_eq!(octets[4..12], t1.raw().to_be_bytes());
            sent += 1;
        }
        assert_eq!((sent, now), (500, SECOND + 499_000_000));
        for side in sides {
            let totals = side.into_totals();
            assert_eq!((totals.sent, totals.times.max_slip_ns), (5, 0));
        }
    }
}
