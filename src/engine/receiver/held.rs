//! Replies that wait until it is known how their T2 and T3 are to be read.

use super::answer::Answer;
use crate::wire::{Format, Timestamp};

/// Replies, or runs of them, that wait at most.
const MOST: usize = 1024;
/// There is room for so many: evidence may take some replies.
const LEAST: usize = 16;
/// How long they wait at most.
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

/// The replies that wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Held {
    /// It never grows.
    told: Vec<Told>,
}

impl Held {
    /// For a session that has so many packets under way.
    pub(super) fn new(window: u64) -> Self {
        let most = usize::try_from(window).map_or(MOST, |window| window.clamp(LEAST, MOST));
        Self {
            told: Vec::with_capacity(most),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Has a reply wait; false where it was the last one for which there is room.
    pub(super) fn hold(&mut self, told: Told) -> bool {
        self.told.push(told);
        self.told.len() < self.told.capacity()
    }

    /// Whether they have waited long enough.
    pub(super) fn overdue(&self, now_ns: i64) -> bool {
        let since = self.told.first().map(|told| told.answer.near);
        since.is_some_and(|since| now_ns.saturating_sub(since) >= MOST_NS)
    }

    /// All of them, which wait no longer.
    pub(super) fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
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
        let mut held = Held::new(4);
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
        assert_eq!((came, held.is_empty()), (all, true));
    }
}
