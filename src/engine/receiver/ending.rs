//! How a session ends, step by step: replies that are missing are waited for, then duplicates for a moment, and
//! where directions are not known a few probes ask the reflector's counter.

use super::door::{Now, Out};
use super::under_way::UnderWay;
use crate::config::Fraction;
use crate::engine::flight::PROBES;
use crate::engine::icmp::IcmpErrors;
use crate::stats::sequence::Tracker;

/// How long after the last missing reply a duplicate is still waited for, at least and at most.
pub(super) const LINGER_NS: (i64, i64) = (20_000_000, 200_000_000);
/// Where all that matters is a bound of loss, and it is passed: after so long without a reply a probe
/// finds out whether any is still to come; after more where one has taken more than a quarter of it.
pub(super) const QUIET_NS: i64 = 200_000_000;
/// How long the answer to a probe is waited for, at least.
pub(super) const PROBE_NS: i64 = 100_000_000;

/// What an end depends on.
pub(super) struct Seen<'a> {
    pub(super) under_way: &'a UnderWay<'a>,
    pub(super) tracker: &'a Tracker,
    pub(super) icmp: &'a IcmpErrors,
    /// When the newest of the packets that waited in this host left, by the monotonic clock.
    pub(super) left_ns: i64,
    /// How often it was asked for that the session end.
    pub(super) asked_to_end: u32,
}

#[derive(Debug)]
pub(super) struct Ending {
    timeout_ns: i64,
    loss_bound: Option<Fraction>,
    /// How many packets were answered when the last one was, and when that was seen.
    quiet: (u64, i64),
    probes: Probes,
    step: Step,
    /// The longest time that a reply took.
    longest_ns: i64,
    /// The wait for the last replies was ended before its time.
    cut_short: bool,
}

#[derive(Debug)]
struct Probes {
    asked: usize,
    most: usize,
    answered: [bool; PROBES],
}

impl Probes {
    /// Asks for the next one; `None`: there is none.
    fn ask(&mut self, out: &mut impl Out) -> Option<usize> {
        let index = Some(self.asked).filter(|asked| *asked < self.most)?;
        self.asked += 1;
        out.wish(index).then_some(index)
    }
}

#[derive(Debug)]
enum Step {
    Sending,
    Missing { until: i64 },
    Lingering { until: i64 },
    Probing { index: usize, until: i64 },
}

impl Ending {
    pub(super) fn new(timeout_ns: i64, loss_bound: Option<Fraction>, probes: bool) -> Self {
        Self {
            timeout_ns,
            loss_bound,
            quiet: (u64::MAX, 0),
            probes: Probes {
                asked: 0,
                most: if probes { PROBES } else { 0 },
                answered: [false; PROBES],
            },
            step: Step::Sending,
            longest_ns: 0,
            cut_short: false,
        }
    }

    /// Whether what comes may be an answer to a probe, and is outside all counts.
    #[inline]
    pub(super) fn is_probing(&self) -> bool {
        self.probes.asked > 0
    }

    pub(super) fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    /// A reply took so long.
    #[inline]
    pub(super) fn note_took(&mut self, took_ns: i64) {
        self.longest_ns = self.longest_ns.max(took_ns);
    }

    pub(super) fn note_probe(&mut self, index: usize) {
        self.probes.answered[index] = true;
    }

    /// The moment of the next step; `None`: the session is over.
    pub(super) fn next(&mut self, seen: &Seen<'_>, now: Now, out: &mut impl Out) -> Option<i64> {
        let flight = seen.under_way.flight;
        let Some((sent, last)) = flight.finished() else {
            return Some(i64::MAX);
        };
        let now = now.at_ns;
        if let Step::Sending = self.step {
            let until = last.saturating_add(self.timeout_ns);
            self.step = Step::Missing { until };
        }
        // Asked for once more than what ended the departures. A trial that was interrupted says nothing,
        // whatever comes.
        if seen.asked_to_end > u32::from(flight.interrupted() && self.loss_bound.is_none()) {
            self.cut_short = true;
            return None;
        }
        if let Step::Missing { until } = self.step {
            // Those that were handed over left later, some time: their replies have as long.
            let left = seen.left_ns.min(last.saturating_add(self.timeout_ns));
            let until = until.max(left.saturating_add(self.timeout_ns));
            if let Some(until) = self.missing(seen, (sent, until), now, out) {
                return Some(until);
            }
            let (least, most) = LINGER_NS;
            let wait = self.longest_ns.saturating_mul(2).clamp(least, most);
            let until = if sent == 0 { now } else { now + wait };
            self.step = Step::Lingering { until };
        }
        match self.step {
            Step::Lingering { until } if now < until => return Some(until),
            // Where a bound of loss is all that matters, directions do not.
            Step::Lingering { .. } if self.loss_bound.is_some() => return None,
            Step::Lingering { .. } if seen.tracker.answered() == 0 => return None,
            _ if seen.tracker.settled(sent) => return None,
            Step::Probing { index, until } if now < until && !self.probes.answered[index] => {
                return Some(until);
            }
            _ => {}
        }
        let index = self.probes.ask(out)?;
        let wait = self.longest_ns.saturating_mul(2);
        let until = now + wait.clamp(PROBE_NS, self.timeout_ns.max(PROBE_NS));
        self.step = Step::Probing { index, until };
        Some(until)
    }

    /// When to look again for replies that are missing, of `sent` packets; `None`: they are not waited for
    /// any longer.
    fn missing(
        &mut self,
        seen: &Seen<'_>,
        (sent, until): (u64, i64),
        now: i64,
        out: &mut impl Out,
    ) -> Option<i64> {
        let answered = seen.tracker.answered();
        if answered >= sent || now >= until {
            return None;
        }
        // Whoever runs a trial hears that nobody is there, and decides.
        if answered == 0 && self.loss_bound.is_some() && seen.icmp.port_unreachable() {
            return None;
        }
        let passed = |bound: Fraction| bound.exceeded_by(sent - answered, sent);
        if answered == 0 || !self.loss_bound.is_some_and(passed) {
            return Some(until);
        }
        // A reflector that only rested answers a probe after everything before.
        if self.probes.answered.contains(&true) {
            return None;
        }
        if self.quiet.0 != answered {
            self.quiet = (answered, now);
        }
        let quiet = self.longest_ns.saturating_mul(4).max(QUIET_NS);
        if now >= self.quiet.1.saturating_add(quiet) {
            if self.probes.asked == self.probes.most {
                return Some(until);
            }
            self.probes.ask(out)?;
            self.quiet.1 = now;
        }
        Some(self.quiet.1.saturating_add(quiet).min(until))
    }
}
