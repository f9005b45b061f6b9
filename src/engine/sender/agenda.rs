//! What is due, and when: the departures of the schedule, and before them those that were put back.

use std::collections::VecDeque;

use crate::engine::schedule::{Departure, Schedule};

/// A sender that is this far behind, and further than this long ago, sends longer trains.
const BEHIND_NS: i64 = 20_000_000;

/// A packet or train that is to leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    /// By the monotonic clock.
    pub(crate) at_ns: i64,
    pub(crate) class: u8,
    pub(crate) count: u32,
}

/// The departures of a session that begins at some moment of the monotonic clock.
#[derive(Debug)]
pub(super) struct Agenda {
    start: i64,
    /// When the session ends whatever has left; `None`: with its last departure.
    end: Option<i64>,
    schedule: Schedule,
    next: Option<Departure>,
    /// What was due before, and leaves first: trains that are taken apart.
    held: VecDeque<Due>,
    /// Size classes whose trains the kernel refuses: their packets leave one by one.
    unfolded: Vec<bool>,
    /// Longest train that may be made where singles do not keep the rate; 1: none.
    most_burst: u32,
    lag: Lag,
}

impl Agenda {
    /// `room`: departures that are put back at most.
    pub(super) fn new(
        mut schedule: Schedule,
        classes: usize,
        most_burst: u32,
        room: usize,
    ) -> Self {
        Self {
            start: 0,
            end: None,
            next: schedule.next(),
            schedule,
            held: VecDeque::with_capacity(2 * room),
            unfolded: vec![false; classes],
            most_burst,
            lag: Lag::default(),
        }
    }

    pub(super) fn begin(&mut self, start: i64) {
        let lasts = self.schedule.duration_ns();
        self.start = start;
        self.end = lasts.and_then(|ns| start.checked_add_unsigned(ns));
    }

    pub(super) fn lasted_ns(&self, now: i64) -> i64 {
        now - self.start
    }

    /// When the next packet or train is due; `None`: there is none any more.
    pub(super) fn next_ns(&self, now: i64) -> Option<i64> {
        if let Some(held) = self.held.front() {
            return Some(held.at_ns);
        }
        match self.due(self.next?) {
            None if self.end.is_some_and(|end| now >= end) => None,
            due => Some(due.unwrap_or(now)),
        }
    }

    fn due(&self, departure: Departure) -> Option<i64> {
        let due = departure.due_ns?;
        Some(self.start.saturating_add_unsigned(due))
    }

    /// The next packet or train, if it is due.
    pub(super) fn take(&mut self, now: i64) -> Option<Due> {
        let due = self.held.pop_front().or_else(|| self.take_next(now))?;
        if due.count == 1 || !self.unfolded[usize::from(due.class)] {
            return Some(due);
        }
        let count = due.count - 1;
        self.held.push_front(Due { count, ..due });
        Some(Due { count: 1, ..due })
    }

    fn take_next(&mut self, now: i64) -> Option<Due> {
        let next = self.next?;
        let at_ns = self.due(next).unwrap_or(now);
        if at_ns > now {
            return None;
        }
        self.next = self.schedule.next();
        Some(Due {
            at_ns,
            class: next.class,
            count: next.count,
        })
    }

    /// These did not leave, and are taken again; the last one is told first.
    pub(super) fn put_back(&mut self, last_first: impl Iterator<Item = Due>) {
        for due in last_first {
            self.held.push_front(due);
        }
    }

    /// Makes longer trains where the rate is not kept: twice as long, and only as far as needed; none
    /// where there can be none. `first` leaves now; returns how long they become.
    pub(super) fn lengthen(&mut self, first: Due, now: i64) -> Option<u32> {
        let burst = self.schedule.burst();
        let behind = now - first.at_ns;
        if burst < self.most_burst && behind > 0 && self.lag.grows(now, behind) {
            let longer = (burst * 2).min(self.most_burst);
            self.schedule.set_burst(longer);
            return Some(longer);
        }
        if burst > self.most_burst {
            self.schedule.set_burst(self.most_burst);
        }
        None
    }

    /// Packets of this class leave one by one from now on.
    pub(super) fn unfold(&mut self, class: u8) {
        self.unfolded[usize::from(class)] = true;
        if self.unfolded.iter().all(|unfolded| *unfolded) {
            self.most_burst = 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_grows_is_told_from_one_that_does_not() {
        const LOOK: i64 = BEHIND_NS;
        // How far behind it is at looks in a row, and what is said of each.
        for (behind, grows) in [
            // Nearer to the schedule than that, whatever becomes of it.
            ([0, BEHIND_NS / 2, BEHIND_NS], [false, false, false]),
            // A single stall, after which it catches up.
            ([0, 9 * BEHIND_NS, 8 * BEHIND_NS], [false, false, false]),
            (
                [2 * BEHIND_NS, 2 * BEHIND_NS, 2 * BEHIND_NS],
                [false, false, false],
            ),
            // Further from one look to the next.
            (
                [BEHIND_NS / 2, 2 * BEHIND_NS, 3 * BEHIND_NS],
                [false, true, true],
            ),
            (
                [BEHIND_NS / 4, 2 * BEHIND_NS, 3 * BEHIND_NS],
                [false, false, true],
            ),
        ] {
            let mut lag = Lag::default();
            let found = [0, LOOK, 2 * LOOK].map(|now| {
                let place = usize::try_from(now / LOOK).unwrap();
                let found = lag.grows(1000 + now, behind[place]);
                // Between two looks nothing is said, and nothing noted.
                assert!(!lag.grows(1000 + now + 1, 90 * BEHIND_NS));
                assert!(!lag.grows(1000 + now + LOOK - 1, 1));
                found
            });
            assert_eq!(found, grows, "{behind:?}");
        }
    }
}
