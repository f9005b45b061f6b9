//! Delays of one way, without what the clocks drifted apart.

use super::cells::Memory;
use super::distribution::{Base, Distribution};
use super::ranks::of_count;
use crate::report;
use crate::stats::clock::{Course, Timed};
use crate::stats::kept::{Kept, KeptDelay};

/// Drift that adds less is no figure's.
pub(super) const SHOWS_NS: u64 = 1_000;

/// The delays of one way, which two clocks measured.
pub(super) struct OneWay<'a> {
    pub(super) whole: &'a Distribution,
    pub(super) kept: &'a Kept,
    pub(super) extremes: Vec<&'a Timed>,
    pub(super) course: &'a Course,
    /// What the reflector's clock gains adds to outbound delays, and takes from inbound ones.
    pub(super) sign: i64,
    /// The clocks drift, and that shows in these delays.
    pub(super) drifts: bool,
}

impl<'a> OneWay<'a> {
    pub(super) fn new(
        whole: &'a Distribution,
        kept: &'a Kept,
        extremes: Vec<&'a Timed>,
        course: &'a Course,
        sign: i64,
    ) -> Self {
        let mut one_way = Self {
            whole,
            kept,
            extremes,
            course,
            sign,
            drifts: false,
        };
        one_way.drifts = one_way.drift_shows();
        one_way
    }

    /// What drift adds to the delays is more than a twentieth of their own variation, or can be.
    pub(super) fn drift_shows(&self) -> bool {
        let stretch = || self.stretch().map(|(timed, _)| timed.left_ns());
        let Some((first, last)) = stretch().min().zip(stretch().max()) else {
            return false;
        };
        let added = self.course.spread_ns(first, last);
        added.is_some_and(|added| {
            let pdv = self.whole.report().map_or(0, |delay| delay.pdv.median);
            added >= SHOWS_NS && added > pdv / 20
        })
    }

    pub(super) fn stretch(&self) -> impl Iterator<Item = &'a KeptDelay> {
        let (kept, course) = (self.kept, self.course);
        let delays = kept.delays().iter();
        delays.filter(move |(timed, _)| course.covers(timed))
    }

    /// A delay without drift.
    pub(super) fn still(&self, timed: &Timed) -> i64 {
        if !self.drifts {
            return timed.delay_ns;
        }
        let moved = self.course.moved_ns(timed.left_ns());
        timed
            .delay_ns
            .saturating_add(self.sign.saturating_mul(moved))
    }

    /// The delays of the stretch, without drift, where they are not those that were measured.
    pub(super) fn told(&self) -> Option<Distribution> {
        if !self.drifts && !self.course.is_part() {
            return None;
        }
        let mut told = Distribution::new(Base::unknown(), Memory::Growing);
        for (timed, packets) in self.stretch() {
            told.record_all(&[*packets], &[self.still(timed)]);
        }
        Some(told)
    }

    pub(super) fn histogram(&self) -> report::Histogram {
        match self.told() {
            Some(told) => told.histogram(),
            None => self.whole.histogram(),
        }
    }

    pub(super) fn report(&self) -> Option<report::Delay> {
        let Some(told) = self.told() else {
            return self.whole.report();
        };
        let mut delay = told.report()?;
        if self.kept.is_whole() {
            return Some(delay);
        }
        // Of a part of the packets, but for the extremes.
        delay.packets = delay.packets.saturating_mul(self.kept.one_in());
        let (min, median) = (delay.min, delay.median);
        for timed in self
            .extremes
            .iter()
            .filter(|timed| self.course.covers(timed))
        {
            let value = self.still(timed);
            (delay.min, delay.max) = (delay.min.min(value), delay.max.max(value));
        }
        let lower = min.abs_diff(delay.min);
        delay.pdv = report::Pdv {
            median: median.abs_diff(delay.min),
            p99: delay.pdv.p99.map(|p99| p99.saturating_add(lower)),
            max: delay.max.abs_diff(delay.min),
        };
        // Neighbours are not kept. What drift adds between two of them may be next to nothing.
        (delay.jitter, delay.ipdv) = (None, None);
        if !self.course.is_part()
            && let Some(whole) = self.whole.report()
            && let Some(ipdv) = whole.ipdv
            && self.between_neighbours_ns() <= ipdv.mean_abs / 20.0
        {
            (delay.jitter, delay.ipdv) = (whole.jitter, Some(ipdv));
        }
        Some(delay)
    }

    /// What drift adds, at its fastest, between one packet and the next on the average.
    pub(super) fn between_neighbours_ns(&self) -> f64 {
        let left = || self.stretch().map(|(timed, _)| timed.left_ns());
        let length = left().max().zip(left().min());
        let length = length.map_or(0, |(last, first)| last.abs_diff(first));
        self.course.fastest() * of_count(length) / of_count(self.whole.moments.count.max(1))
    }
}
