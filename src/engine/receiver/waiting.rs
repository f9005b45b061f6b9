//! Samples on their way to the stats thread, in order of arrival.
//!
//! A reply may be here before the transmit stamp of its request is: the two come by two queues. Such a
//! sample waits, and those behind it wait with it, so that the order in which they are recorded is that
//! of arrival.

use std::collections::VecDeque;

use crate::engine::intervals::Counts;
use crate::sample::Sample;

/// A packet that was answered has left, and its stamp was made then: one that has not come so long after
/// the reply, although the queue of stamps was looked at, was lost.
const STAMP_NS: i64 = 10_000_000;

/// A reply that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) sample: Sample,
    /// The reflector's number, of the first one of several packets.
    pub(super) reflector_seq: u32,
    /// It asked for a stamp that has not come yet.
    pub(super) wants_stamp: bool,
}

/// The samples that wait, the first to come at the front.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: VecDeque<(Reply, i64)>,
    /// Replies that have left it.
    passed: u64,
    /// Stamps of packets that were answered that did not come.
    lost: u64,
    /// The packet after those of the last stamp that was lost, and their T1.
    lost_with: (u64, i64),
    /// The counts of an interval that ends once so many replies have been recorded.
    mark: Option<(u64, Counts)>,
}

impl Waiting {
    /// Room for so many.
    pub(super) fn new(room: usize) -> Self {
        Self {
            queue: VecDeque::with_capacity(room),
            passed: 0,
            lost: 0,
            lost_with: (0, 0),
            mark: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// An interval ends behind the replies that came so far.
    pub(super) fn end_interval(&mut self, counts: Counts) {
        let behind = self.passed + u64::try_from(self.queue.len()).unwrap_or(0);
        self.mark = Some((behind, counts));
    }

    /// Whether the end of an interval has not been told yet.
    #[inline]
    pub(super) fn has_mark(&self) -> bool {
        self.mark.is_some()
    }

    /// Has the end of an interval told if all its replies have gone; where that fails it is told later.
    #[inline]
    pub(super) fn tell_mark(&mut self, tell: impl FnOnce(Counts) -> bool) {
        if let Some((behind, counts)) = self.mark
            && self.passed >= behind
            && tell(counts)
        {
            self.mark = None;
        }
    }

    /// Stamps that were lost, of packets that were answered.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes a reply that came at `now`, by any one clock.
    pub(super) fn push(&mut self, reply: Reply, now: i64) {
        debug_assert!(self.has_room());
        self.queue.push_back((reply, now));
    }

    /// Whether there is room for another one.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < self.queue.capacity()
    }

    /// The first reply, if it need not wait any longer at `now`: its stamp is there by `stamp_of`, it wants
    /// none, or it has waited too long. At [`i64::MAX`] all have.
    pub(super) fn next(
        &mut self,
        now: i64,
        stamp_of: impl FnOnce(&Sample) -> Option<i64>,
    ) -> Option<Reply> {
        let (reply, since) = self.queue.front_mut()?;
        if reply.wants_stamp {
            reply.sample.t1_stamp_ns = stamp_of(&reply.sample);
            let waits = reply.sample.t1_stamp_ns.is_none();
            if waits && now.saturating_sub(*since) < STAMP_NS {
                return None;
            }
        }
        let (reply, _) = self.queue.pop_front()?;
        self.passed += 1;
        Some(self.gone(reply))
    }

    fn gone(&mut self, reply: Reply) -> Reply {
        let sample = &reply.sample;
        if reply.wants_stamp && sample.t1_stamp_ns.is_none() {
            // Packets of one train have one stamp.
            let same = self.lost_with == (sample.seq, sample.t1_ns);
            self.lost += u64::from(!same);
            self.lost_with = (sample.seq + u64::from(sample.count), sample.t1_ns);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(seq: u64, t1_ns: i64, count: u16, wants_stamp: bool) -> Reply {
        Reply {
            sample: Sample {
                seq,
                t1_ns,
                t1_stamp_ns: None,
                t2_ns: 0,
                t3_ns: 0,
                t4_ns: 0,
                size_class: 0,
                count,
            },
            reflector_seq: 0,
            wants_stamp,
        }
    }

    fn went(waiting: &mut Waiting, now: i64, stamps: &[u64]) -> Vec<(u64, Option<i64>)> {
        let stamp = |sample: &Sample| stamps.contains(&sample.seq).then_some(sample.t1_ns + 1);
        let next = || waiting.next(now, stamp);
        std::iter::from_fn(next)
            .map(|reply| (reply.sample.seq, reply.sample.t1_stamp_ns))
            .collect()
    }

    #[test]
    fn those_behind_one_that_waits_wait_too_and_all_go_in_order_of_arrival() {
        let mut waiting = Waiting::new(64);
        for (seq, wants) in [(0, false), (1, true), (2, false), (4, true), (3, false)] {
            waiting.push(reply(seq, 100, 1, wants), 0);
        }
        assert_eq!(went(&mut waiting, 0, &[4]), [(0, None)]);
        let rest = [(1, Some(101)), (2, None), (4, Some(101)), (3, None)];
        assert_eq!(went(&mut waiting, 0, &[1, 4]), rest);
        assert_eq!((waiting.lost(), waiting.is_empty()), (0, true));
    }

    #[test]
    fn a_stamp_that_does_not_come_in_time_is_lost_once_for_a_train() {
        let mut waiting = Waiting::new(64);
        waiting.push(reply(0, 100, 8, true), 5);
        waiting.push(reply(8, 100, 8, true), 6);
        waiting.push(reply(16, 200, 8, true), 7);
        assert_eq!(went(&mut waiting, STAMP_NS + 4, &[]), []);
        assert_eq!(
            went(&mut waiting, STAMP_NS + 6, &[]),
            [(0, None), (8, None)]
        );
        assert_eq!(waiting.lost(), 1);
        assert_eq!(went(&mut waiting, STAMP_NS + 7, &[]), [(16, None)]);
        assert_eq!(waiting.lost(), 2);
    }

    #[test]
    fn without_room_the_first_one_goes_as_it_is() {
        let mut waiting = Waiting::new(2);
        let room = (0..).take_while(|seq| {
            let room = waiting.has_room();
            if room {
                waiting.push(reply(*seq, 100, 1, true), 0);
            }
            room
        });
        let room = room.count();
        assert!(room >= 2);
        assert_eq!(waiting.next(i64::MAX, |_| None).unwrap().sample.seq, 0);
        assert_eq!((waiting.has_room(), waiting.lost()), (true, 1));
    }
}
