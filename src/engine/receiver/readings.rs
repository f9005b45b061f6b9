//! How the T2 and T3 of replies are read, and the replies that wait until that is known.

use super::answer::Answer;
use super::facts::Times;
use super::time_format::{Belief, TimeFormat, claims_other, is_of_another};
use crate::wire::{Format, Reading, ReplyHead, Timestamp};

/// How long replies wait at most.
const MOST_NS: i64 = 1_000_000_000;

/// A reply that tells its times, before they are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) answer: Answer,
    pub(super) class: u8,
    pub(super) stamped: bool,
    pub(super) t1_ns: i64,
    pub(super) t2: Timestamp,
    pub(super) t3: Timestamp,
    /// What the Z bit beside them says.
    pub(super) claimed: Format,
    pub(super) t4_ns: Option<i64>,
}

impl Told {
    /// T2, T3 and T4, or why there are none.
    #[inline]
    pub(super) fn read(&self, reading: Reading, times: &mut Times) -> Option<(i64, i64, i64)> {
        let (near, packets) = (self.answer.near, u64::from(self.answer.count));
        let read = self.t2.read(reading, near).zip(self.t3.read(reading, near));
        let Some((t2_ns, t3_ns)) = read else {
            times.rejected += packets;
            return None;
        };
        if is_of_another(self.t2, self.t3, (t2_ns, t3_ns), near) {
            times.misread += packets;
            return None;
        }
        let other = claims_other(reading, self.claimed);
        times.other_format += if other { packets } else { 0 };
        times.unstamped += if self.t4_ns.is_none() { packets } else { 0 };
        Some((t2_ns, t3_ns, self.t4_ns?))
    }
}

/// How T2 and T3 are read, as far as is known, and the replies that wait for that, in the order in which they
/// came.
#[derive(Debug)]
pub(super) struct Readings {
    format: TimeFormat,
    /// It never grows.
    held: Vec<Told>,
}

impl Readings {
    /// Room for so many replies, or runs of them.
    pub(super) fn new(room: usize) -> Self {
        Self {
            format: TimeFormat::default(),
            held: Vec::with_capacity(room),
        }
    }

    /// Looks at a reply: see [`TimeFormat::look`].
    #[inline]
    pub(super) fn look(&mut self, head: &ReplyHead, t1_ns: i64, near: i64) -> Option<Reading> {
        self.format.look(head, t1_ns, near)
    }

    /// Has a reply wait; false where it was the last one for which there is room.
    pub(super) fn hold(&mut self, told: Told) -> bool {
        self.held.push(told);
        self.held.len() < self.held.capacity()
    }

    #[inline]
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether replies have waited long enough, and no more of them are worth a wait.
    #[inline]
    pub(super) fn overdue(&self, now_ns: i64) -> bool {
        let since = self.held.first().map(|told| told.answer.near);
        since.is_some_and(|since| now_ns.saturating_sub(since) >= MOST_NS)
            && !self.format.is_worth_a_wait()
    }

    /// All replies that wait, which wait no longer.
    pub(super) fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.held)
    }

    /// Nothing more is waited for: see [`TimeFormat::settle`].
    pub(super) fn settle(&mut self) -> Option<Reading> {
        self.format.settle()
    }

    /// Which reading it is, as far as is known in the end.
    pub(super) fn known(&self) -> Option<Reading> {
        self.format.known()
    }

    pub(super) fn belief(&self) -> Belief {
        self.format.belief()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(near: i64) -> Told {
        let answer = Answer {
            seq: 0,
            reflector_seq: 0,
            count: 1,
            t1_ns: Some(near),
            near,
            stepped: false,
        };
        Told {
            answer,
            class: 0,
            stamped: false,
            t1_ns: near,
            t2: Timestamp::from_raw(1),
            t3: Timestamp::from_raw(2),
            claimed: Format::Ntp,
            t4_ns: None,
        }
    }

    #[test]
    fn replies_wait_until_there_is_no_room_or_a_second_is_over() {
        let mut held = Readings::new(16);
        assert!(!held.overdue(i64::MAX));
        for near in [100, 200, 300] {
            assert!(held.hold(told(near)));
        }
        assert!(!held.overdue(100 + MOST_NS - 1));
        assert!(held.overdue(100 + MOST_NS));
        for near in 4..=15 {
            assert!(held.hold(told(near * 100)));
        }
        assert!(!held.hold(told(1600)));
        let came: Vec<_> = held.take().iter().map(|told| told.answer.near).collect();
        let all: Vec<_> = (1..=16).map(|n| n * 100).collect();
        assert_eq!((came, !held.holds_any()), (all, true));
    }
}
