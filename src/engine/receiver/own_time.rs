//! This host's clock, which tells T1, T4 and transmit timestamps. Which packets were under way when it was set,
//! so that their delays are not known, and how long packets waited here before they left.

use super::door::Now;
use crate::engine::waits::Waits;
use crate::stats::clock::OwnStep;

#[derive(Debug)]
pub(super) struct OwnTime {
    /// T4 and the transmit stamps are of the interface's clock.
    hardware: bool,
    /// From one packet or train to the next.
    interval_ns: i64,
    /// Packets below were under way when the clock was set: their delays are not known.
    set_below: u64,
    /// When the newest of the packets that waited in this host left, by the monotonic clock.
    left_ns: i64,
    /// What was known before the first wait that was noted at the last moment.
    before: Option<(Now, Waits, i64)>,
}

impl OwnTime {
    pub(super) fn new(hardware: bool, interval_ns: i64) -> Self {
        Self {
            hardware,
            interval_ns,
            set_below: 0,
            left_ns: i64::MIN,
            before: None,
        }
    }

    /// About when a reply came, by the system's clock.
    #[inline]
    pub(super) fn came_ns(&self, arrived_ns: Option<i64>, now: Now) -> i64 {
        arrived_ns.filter(|_| !self.hardware).unwrap_or(now.wall_ns)
    }

    /// Whether a packet was under way when the clock was set.
    #[inline]
    pub(super) fn was_set_after(&self, seq: u64) -> bool {
        seq < self.set_below
    }

    /// Whether transmit stamps can be compared with T1.
    #[inline]
    pub(super) fn is_of_stamps(&self) -> bool {
        !self.hardware
    }

    pub(super) fn left_ns(&self) -> i64 {
        self.left_ns
    }

    /// Notes how long packet `seq`, or a train that begins with it, waited in this host.
    pub(super) fn note_wait(
        &mut self,
        waits: &mut Waits,
        seq: u64,
        (t1_ns, left_ns): (i64, i64),
        now: Now,
    ) {
        let before = *waits;
        if !waits.note(t1_ns, left_ns, self.interval_ns) {
            return;
        }
        if self.was_set_after(seq) {
            *waits = before;
            return;
        }
        if self.before.is_none_or(|(at, ..)| at.at_ns != now.at_ns) {
            self.before = Some((now, before, self.left_ns));
        }
        self.left_ns = now.at_ns;
    }

    /// The clock was set: then the delays of all `attempted` packets are wrong, and so are waits that were
    /// noted since it was last looked at.
    #[cold]
    pub(super) fn on_set(&mut self, step: &OwnStep, attempted: u64, waits: &mut Waits) {
        self.set_below = attempted;
        if let Some((at, before, left_ns)) = self.before.take()
            && at.wall_ns >= step.after_ns
        {
            (*waits, self.left_ns) = (before, left_ns);
        }
    }
}
