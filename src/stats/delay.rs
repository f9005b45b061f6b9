//! Delays and their variation, in constant memory: samples in, the report's figures out.
//!
//! Minimum, maximum and mean are exact; percentiles come from histograms of differences from a base
//! near the delays, so that neither a negative one-way delay nor a clock offset of years costs
//! detail. With fewer than 1,024 samples the percentiles are exact too.
//! Called by the stats thread; nothing here allocates after construction but a report, unless it is
//! to be frugal.

mod cells;
mod columns;
mod distribution;
mod moments;
mod one_way;
mod pairs;
mod ranks;
mod weigher;

use std::sync::Arc;

use super::clock::{Clocks, Course, OwnStep, Seen};
use super::packets::Packets;
use super::spread::Spread;
use crate::report;
use crate::sample::Sample;
use cells::Memory;
use columns::{COLUMN, Columns, SampleDelays};
use distribution::Base;
pub use distribution::Distribution;
use one_way::OneWay;
use weigher::{Measured, Weigher};

/// All delays of one session.
///
/// Kinds of T1 are never mixed in one figure: round-trip and outbound delays rest on user-space T1
/// until the first sample with a transmit stamp is accepted, and from then on on stamped samples
/// alone; what had been collected from user space is dropped. Inbound and reflector delays need no
/// T1 and take every accepted sample.
///
/// Where not every packet asks for a stamp, or some stamps are lost, a stamped sample stands for the
/// replies without one that came just before it as well, and is weighed by their number: so round-trip
/// and outbound delays are of the same stretches of the session, in the same proportion, as inbound
/// delays.
///
/// A sample whose timestamps contradict each other (T3 before T2, a negative round-trip delay, or a
/// difference beyond 64 bits) is kept out of everything and counted.
#[derive(Clone, Debug)]
pub struct Delays {
    roundtrip: Distribution,
    outbound: Distribution,
    inbound: Distribution,
    reflector: Distribution,
    /// Round-trip delays of each size class; empty for a session of one size.
    sizes: Vec<Distribution>,
    /// Whether `roundtrip`, `outbound`, `sizes` and `best` rest on stamped T1.
    t1_stamped: bool,
    stamps_only: bool,
    memory: Memory,
    columns: Columns,
    /// The smallest round-trip delay and the offset estimate of its sample.
    best: Option<(i64, i64)>,
    recorded: u64,
    rejected: u64,
    weigher: Weigher,
    /// What the packets after those of the last sample are compared with.
    last: Option<Sample>,
    spread: Spread,
    clocks: Clocks,
    /// When our own clock is known to have been set.
    own_steps: Vec<OwnStep>,
    /// Both ends are on one host.
    one_host: bool,
}

impl Delays {
    /// No samples yet, of a session that sends packets of `size_classes` sizes.
    ///
    /// With `stamps_only` the T1 of user space is of another clock than T4, and is never used.
    #[must_use]
    pub fn new(size_classes: usize, stamps_only: bool) -> Self {
        Self::with_memory(size_classes, stamps_only, Memory::AtOnce)
    }

    /// The same in a tenth of the memory or less, which grows while samples come: for one of many
    /// sessions with few samples each.
    #[must_use]
    pub fn frugal(size_classes: usize, stamps_only: bool) -> Self {
        Self::with_memory(size_classes, stamps_only, Memory::Growing)
    }

    fn with_memory(size_classes: usize, stamps_only: bool, memory: Memory) -> Self {
        // With one size, its round-trip delays are the session's.
        let separate = if size_classes > 1 { size_classes } else { 0 };
        Self {
            roundtrip: Distribution::new(Base::Zero, memory),
            outbound: Distribution::new(Base::unknown(), memory),
            inbound: Distribution::new(Base::unknown(), memory),
            reflector: Distribution::new(Base::Zero, memory),
            sizes: (0..separate)
                .map(|_| Distribution::new(Base::Zero, memory))
                .collect(),
            t1_stamped: stamps_only,
            stamps_only,
            memory,
            columns: Columns::new(separate),
            best: None,
            recorded: 0,
            rejected: 0,
            weigher: Weigher::default(),
            last: None,
            spread: Spread::default(),
            clocks: Clocks::new(memory == Memory::AtOnce),
            own_steps: Vec::new(),
            one_host: false,
        }
    }

    /// No samples, of a session to the same reflector: the two can be merged.
    #[must_use]
    pub fn alike(&self) -> Self {
        let mut other = self.emptied();
        other.t1_stamped = self.stamps_only;
        if let Base::EarlyMinimum(_, at) = &mut other.outbound.base {
            *at = 0;
        }
        other
    }

    /// The same without samples: a clone that is cleared, without a copy of the cells.
    #[must_use]
    pub(crate) fn emptied(&self) -> Self {
        Self {
            roundtrip: self.roundtrip.emptied(),
            outbound: self.outbound.emptied(),
            inbound: self.inbound.emptied(),
            reflector: self.reflector.emptied(),
            sizes: self.sizes.iter().map(Distribution::emptied).collect(),
            t1_stamped: self.t1_stamped,
            stamps_only: self.stamps_only,
            memory: self.memory,
            columns: Columns::new(self.sizes.len()),
            best: None,
            recorded: 0,
            rejected: 0,
            weigher: Weigher::default(),
            last: None,
            spread: Spread::default(),
            clocks: Clocks::new(self.memory == Memory::AtOnce),
            own_steps: Vec::new(),
            one_host: self.one_host,
        }
    }

    /// Has nothing in common with others any more: each [`clear`](Self::clear) finds a better base.
    pub(crate) fn count_from_anew(&mut self) {
        for distribution in [&mut self.outbound, &mut self.inbound] {
            if let Base::EarlyMinimum(bases, _) = &mut distribution.base {
                *bases = Arc::default();
            }
        }
    }

    /// Adds the samples of a session [alike](Self::alike). Every figure is what it would be had one
    /// session had all samples, but for the smoothed jitter, which is of one flow and then `None`.
    ///
    /// Where only one of the two rests on stamped T1, the other adds nothing to what rests on T1.
    pub fn merge(&mut self, other: &Self) {
        self.recorded += other.recorded;
        self.rejected += other.rejected;
        self.inbound.merge(&other.inbound);
        self.reflector.merge(&other.reflector);
        if other.t1_stamped && !self.t1_stamped {
            self.start_over_with_stamps(0);
        }
        let comparable = other.t1_stamped == self.t1_stamped;
        self.spread.merge(&other.spread, comparable);
        self.own_steps.extend_from_slice(&other.own_steps);
        self.one_host &= other.one_host;
        self.clocks.merge(&other.clocks, comparable);
        if !comparable {
            return;
        }
        self.roundtrip.merge(&other.roundtrip);
        self.outbound.merge(&other.outbound);
        for (size, other) in self.sizes.iter_mut().zip(&other.sizes) {
            size.merge(other);
        }
        self.best = match (self.best, other.best) {
            (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
            (a, b) => a.or(b),
        };
    }

    /// Adds samples, in order of arrival, each sequence number once.
    pub fn record(&mut self, block: &[Sample]) {
        for part in block.chunks(COLUMN) {
            self.sort_into_columns(part);
            self.record_columns();
        }
    }

    /// The differences of each sample, quantity by quantity.
    fn sort_into_columns(&mut self, block: &[Sample]) {
        // Packets of a train may also come one by one.
        for alike in block.chunk_by(|a, b| a.continues_in(b)) {
            let count = alike.iter().map(|sample| u64::from(sample.count)).sum();
            self.sort_run(&alike[0], count);
        }
    }

    /// The differences of `count` packets that share the timestamps of the first one, `sample`.
    fn sort_run(&mut self, sample: &Sample, count: u64) {
        let t1_ns = match sample.t1_stamp_ns {
            None if self.stamps_only => None,
            stamp => Some(stamp.unwrap_or(sample.t1_ns)),
        };
        let Some(delay) = SampleDelays::of(sample, t1_ns) else {
            self.rejected += count;
            return;
        };
        if count == 0 {
            return;
        }
        let joined = self.last.is_some_and(|last| last.continues_in(sample));
        self.last = Some(Sample {
            seq: sample.seq.wrapping_add(count - 1),
            count: 1,
            ..*sample
        });
        self.recorded += count;
        let packets = Packets {
            joined,
            ..Packets::of(sample.seq, count)
        };
        self.columns.packets.push(packets);
        self.columns.inbound.push(delay.inbound);
        self.columns.reflector.push(delay.reflector);
        let stamped = sample.t1_stamp_ns.is_some();
        if stamped && !self.t1_stamped {
            self.start_over_with_stamps(self.recorded - count);
        }
        let sent = delay.sent.filter(|_| stamped == self.t1_stamped);
        // By a clock that is never set: ours may be.
        let at_ns = self.clocks.at(sample.t4_ns);
        self.spread.note(at_ns, count, sent.is_some());
        let mut seen = Seen {
            packets,
            t3_ns: sample.t3_ns,
            t4_ns: sample.t4_ns,
            at_ns,
            inbound_ns: delay.inbound,
            outbound: None,
            more: None,
            took_ns: t1_ns.map_or(0, |t1_ns| sample.t4_ns.saturating_sub(t1_ns)),
        };
        let Some(sent) = sent else {
            self.clocks.record(&seen);
            self.weigher.pass(count, at_ns);
            return;
        };
        let measured = Measured {
            packets,
            class: usize::from(sample.size_class),
            roundtrip: sent.roundtrip,
            outbound: sent.outbound,
        };
        let (before, measured) = self.weigher.weigh(measured, at_ns);
        seen.more = before.map(|before| before.packets);
        seen.outbound = Some((sent.outbound, measured.packets));
        self.clocks.record(&seen);
        if let Some(before) = before {
            self.columns.push(&before);
        }
        self.columns.push(&measured);
        if self
            .best
            .is_none_or(|(smallest, _)| sent.roundtrip < smallest)
        {
            self.best = Some((sent.roundtrip, sent.offset(delay.inbound)));
        }
    }

    fn record_columns(&mut self) {
        let columns = &mut self.columns;
        self.inbound.record_all(&columns.packets, &columns.inbound);
        self.reflector
            .record_all(&columns.packets, &columns.reflector);
        self.roundtrip.record_all(&columns.sent, &columns.roundtrip);
        self.outbound.record_all(&columns.sent, &columns.outbound);
        for (size, (packets, roundtrip)) in self.sizes.iter_mut().zip(&columns.sizes) {
            size.record_all(packets, roundtrip);
        }
        columns.clear();
    }

    /// Forgets all samples, but not which kind of T1 is in use; allocates nothing.
    pub fn clear(&mut self) {
        self.inbound.clear();
        self.reflector.clear();
        self.roundtrip.clear();
        self.outbound.clear();
        for size in &mut self.sizes {
            size.clear();
        }
        self.best = None;
        (self.recorded, self.rejected) = (0, 0);
        self.weigher = Weigher::default();
        self.last = None;
        self.spread = Spread::default();
        self.clocks.clear();
        self.own_steps.clear();
    }

    /// The figures so far. Those of one way are of the longest stretch in which no clock was set, and
    /// without what the clocks drifted apart in it, as far as that is known.
    #[must_use]
    pub fn report(&self) -> report::DelaySet {
        let course = self.course();
        report::DelaySet {
            roundtrip: self.roundtrip.report(),
            outbound: self.outbound(&course).report(),
            inbound: self.inbound(&course).report(),
            // A reflector that takes one timestamp for T2 and T3 does not tell its own time.
            reflector: self.reflector.report().filter(|delay| delay.max > 0),
        }
    }

    /// The delays behind the figures so far. Allocates: for the end of a run.
    #[must_use]
    pub fn histograms(&self) -> report::Histograms {
        let course = self.course();
        report::Histograms {
            roundtrip: self.roundtrip.histogram(),
            outbound: self.outbound(&course).histogram(),
            inbound: self.inbound(&course).histogram(),
        }
    }

    /// Both ends are on one host, whose clocks are most likely one.
    pub fn know_one_host(&mut self) {
        self.one_host = true;
    }

    /// Both ends have one clock: they are on one host, and no delay is negative.
    #[must_use]
    pub fn one_clock(&self) -> bool {
        let one_way = [&self.outbound, &self.inbound];
        self.one_host && one_way.iter().all(|delay| delay.moments.min >= 0)
    }

    /// What the two clocks did, as far as the delays so far tell; nothing where they are one.
    #[must_use]
    pub fn course(&self) -> Course {
        if self.one_clock() {
            return Course::default();
        }
        self.clocks.course(&self.own_steps)
    }

    /// Whether drift was taken out of one-way delays.
    #[must_use]
    pub fn drift_taken_out(&self) -> bool {
        let course = self.course();
        self.outbound(&course).drifts || self.inbound(&course).drifts
    }

    /// Our own clock is known to have been set.
    pub fn know_own_steps(&mut self, steps: &[OwnStep]) {
        self.own_steps.extend_from_slice(steps);
    }

    fn outbound<'a>(&'a self, course: &'a Course) -> OneWay<'a> {
        let extremes = self.clocks.outbound_extremes().collect();
        OneWay::new(&self.outbound, self.clocks.outbound(), extremes, course, -1)
    }

    fn inbound<'a>(&'a self, course: &'a Course) -> OneWay<'a> {
        let extremes = self.clocks.inbound_extremes().collect();
        OneWay::new(&self.inbound, self.clocks.inbound(), extremes, course, 1)
    }

    /// Round-trip delays of one size so far; `None` where there are none.
    #[must_use]
    pub fn size_roundtrip(&self, class: usize) -> Option<report::Delay> {
        if self.sizes.is_empty() && class == 0 {
            return self.roundtrip.report();
        }
        self.sizes.get(class)?.report()
    }

    /// Whether round-trip and outbound delays rest on T1 as kernel or interface stamped it.
    #[must_use]
    pub fn t1_stamped(&self) -> bool {
        self.t1_stamped
    }

    /// Reflector's clock minus ours, in nanoseconds, if the path is symmetric: from the sample with
    /// the smallest round-trip delay, since the truth lies within half of that delay (RFC 5905 §8).
    #[must_use]
    pub fn offset_estimate_ns(&self) -> Option<i64> {
        let course = self.course();
        if course.is_part() {
            return self.clocks.offset_ns(&course);
        }
        self.best.map(|(_, offset)| offset)
    }

    /// How the samples lie over the session.
    #[must_use]
    pub fn spread(&self) -> &Spread {
        &self.spread
    }

    /// Samples accepted: each is in the inbound and reflector delays, and in the other two where
    /// its kind of T1 is the one in use.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Samples kept out because their timestamps contradict each other.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The first of the stamped samples has come, and stands for those before as well.
    fn start_over_with_stamps(&mut self, before: u64) {
        self.t1_stamped = true;
        self.best = None;
        self.weigher = Weigher::default();
        self.weigher
            .pass(before, self.spread.began_ns().unwrap_or(0));
        self.spread.forget_samples();
        self.clocks.start_over();
        self.columns.clear_sent();
        self.roundtrip.clear();
        self.outbound.start_over();
        for size in &mut self.sizes {
            size.clear();
        }
    }
}

#[cfg(test)]
mod tests;
