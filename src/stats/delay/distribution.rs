//! One delay quantity: its extremes, moments, percentiles and variation.

use std::sync::{Arc, OnceLock};

use super::cells::{BOUND_NS, Memory, Ranked, SignedCells};
use super::moments::{Jitter, Moments};
use super::pairs::Pairs;
use super::ranks::{
    MEDIAN, P90, P95, P99, P99_9, P99_99, P99_999, nearest_rank, needed, supported_rank,
};
use crate::report;
use crate::stats::bins::Bins;
use crate::stats::packets::Packets;

/// Samples held until the base is settled.
pub(super) const EARLY: usize = 1024;

/// One delay quantity: its extremes, moments, percentiles and variation, in nanoseconds.
///
/// A histogram cell is at most 0.1 % of its distance from the base wide, over one hour to either
/// side. Samples beyond that are counted as out of range; a percentile that falls among them is
/// shown as the minimum or the maximum.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Packets that were measured; the moments, cells and bins have those for which they stand.
    pub(super) samples: u64,
    pub(super) moments: Moments,
    pub(super) jitter: Jitter,
    pub(super) pairs: Pairs,
    /// The samples until the base is settled: fewer than [`EARLY`].
    pub(super) early: Vec<i64>,
    /// All samples are in `cells`.
    pub(super) settled: bool,
    pub(super) base: Base,
    pub(super) cells: SignedCells,
    pub(super) memory: Memory,
    pub(super) bins: Bins,
}

impl Distribution {
    /// For intervals on one clock, which are small and hardly ever negative: counted from zero.
    #[must_use]
    pub fn from_zero() -> Self {
        Self::new(Base::Zero, Memory::AtOnce)
    }

    /// For differences between two clocks: counted from the smallest of the first 1,024
    /// samples, so that neither the clocks' offset nor one slow first sample costs detail.
    #[must_use]
    pub fn with_unknown_offset() -> Self {
        Self::new(Base::unknown(), Memory::AtOnce)
    }

    pub(super) fn new(base: Base, memory: Memory) -> Self {
        Self {
            samples: 0,
            moments: Moments::default(),
            jitter: Jitter::default(),
            pairs: Pairs::new(memory),
            early: Vec::with_capacity(EARLY),
            settled: false,
            base,
            cells: SignedCells::new(memory),
            memory,
            bins: Bins::new(),
        }
    }

    pub(super) fn emptied(&self) -> Self {
        Self::new(self.base.clone(), self.memory)
    }

    /// Adds the delay of packet `seq`. Call in order of arrival, once for each sequence number.
    pub fn record(&mut self, seq: u64, value_ns: i64) {
        self.record_all(&[Packets::of(seq, 1)], &[value_ns]);
    }

    /// Adds delays, in order of arrival, each of one packet or of several; both slices have one length.
    pub(super) fn record_all(&mut self, packets: &[Packets], values_ns: &[i64]) {
        self.moments.record(packets, values_ns);
        let each = || packets.iter().zip(values_ns);
        for (packets, &value_ns) in each() {
            self.samples += packets.count;
            self.jitter.record(value_ns, packets);
            self.bins.record(value_ns, packets.weight);
        }
        for (packets, &value_ns) in each() {
            self.pairs.record(*packets, value_ns);
        }
        for (packets, &value_ns) in each() {
            let mut count = packets.weight;
            while count > 0 && !self.settled {
                count -= 1;
                self.early.push(value_ns);
                if self.early.len() == EARLY {
                    self.settle();
                }
            }
            if count > 0 {
                self.cells.record(value_ns, count);
            }
        }
    }

    /// Adds the samples of one that counts from the same base.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.moments.count == 0 {
            return;
        }
        self.samples += other.samples;
        self.jitter.merge(&other.jitter, self.moments.count > 0);
        self.moments.merge(&other.moments);
        self.pairs.merge(&other.pairs);
        self.bins.merge(&other.bins);
        if !self.settled && !other.settled && self.early.len() + other.early.len() < EARLY {
            self.early.extend_from_slice(&other.early);
            return;
        }
        if !self.settled {
            self.settle();
        }
        if other.settled {
            self.cells.merge(&other.cells);
        } else {
            for &value_ns in &other.early {
                self.cells.record(value_ns, 1);
            }
        }
    }

    /// Moves the early samples to the cells.
    pub(super) fn settle(&mut self) {
        self.cells.base_ns = match &self.base {
            Base::Zero => 0,
            Base::EarlyMinimum(bases, at) => *bases[*at].get_or_init(|| self.moments.min),
        };
        for &value_ns in &self.early {
            self.cells.record(value_ns, 1);
        }
        self.early.clear();
        self.settled = true;
    }

    /// The figures so far; `None` where there is no sample.
    #[must_use]
    pub fn report(&self) -> Option<report::Delay> {
        let (n, packets) = (self.samples, self.moments.count);
        if n == 0 {
            return None;
        }
        let (min, max) = (self.moments.min, self.moments.max);
        let mut sorted = Vec::new();
        sorted.extend_from_slice(&self.early);
        sorted.sort_unstable();
        let at_rank = |rank: u64| {
            let early = usize::try_from(rank - 1)
                .ok()
                .and_then(|index| sorted.get(index).copied());
            match early.map_or_else(|| self.cells.at_rank(rank), Ranked::Value) {
                Ranked::Below => min,
                Ranked::Value(value) => value.clamp(min, max),
                Ranked::Above => max,
            }
        };
        let percentile = |part| {
            supported_rank(n, part)?;
            Some(at_rank(nearest_rank(packets, part)))
        };
        let median = at_rank(nearest_rank(packets, MEDIAN));
        let p99 = percentile(P99);
        Some(report::Delay {
            samples: n,
            packets,
            min,
            mean: self.moments.mean(),
            median,
            p90: percentile(P90),
            p95: percentile(P95),
            p99,
            p99_9: percentile(P99_9),
            p99_99: percentile(P99_99),
            p99_999: percentile(P99_999),
            samples_needed: needed(|part| percentile(part).is_none()),
            max,
            stddev: self.moments.stddev(),
            jitter: self.jitter.report(),
            ipdv: self.pairs.report(),
            pdv: report::Pdv {
                // None is negative: all values are clamped to the minimum.
                median: median.abs_diff(min),
                p99: p99.map(|p99| p99.abs_diff(min)),
                max: max.abs_diff(min),
            },
            out_of_range: self.out_of_range(),
            bins: self.bins.report(),
        })
    }

    /// All samples, in ascending cells: those whose highest values the percentiles are.
    #[must_use]
    pub fn histogram(&self) -> report::Histogram {
        if self.settled {
            return self.cells.report(self.moments.min, self.moments.max);
        }
        let mut sorted = self.early.clone();
        sorted.sort_unstable();
        let equal = sorted.chunk_by(|a, b| a == b);
        let cells = equal.map(|values| report::Cell {
            lowest: values[0],
            highest: values[0],
            count: values.len() as u64,
        });
        report::Histogram {
            cells: cells.collect(),
            outside: report::OutOfRange::default(),
        }
    }

    /// Forgets all samples, and counts the next ones from a base of their own.
    pub(super) fn start_over(&mut self) {
        self.clear();
        if let Base::EarlyMinimum(_, at) = &mut self.base {
            *at = 1;
        }
    }

    /// Forgets all samples; allocates nothing.
    pub(super) fn clear(&mut self) {
        self.samples = 0;
        self.moments = Moments::default();
        self.jitter = Jitter::default();
        self.pairs.clear();
        self.early.clear();
        self.settled = false;
        if let Base::EarlyMinimum(bases, at) = &mut self.base
            && let Some(bases) = Arc::get_mut(bases)
        {
            // Nobody else counts from it: the next samples may have a better one.
            bases[*at].take();
        }
        self.cells.clear();
        self.bins.clear();
    }

    /// The base, as it would be if it had to be settled with the samples so far.
    pub(super) fn base_ns(&self) -> i64 {
        match &self.base {
            Base::Zero => 0,
            Base::EarlyMinimum(bases, at) => bases[*at].get().copied().unwrap_or(self.moments.min),
        }
    }

    pub(super) fn out_of_range(&self) -> report::OutOfRange {
        if self.settled {
            return report::OutOfRange {
                below: self.cells.below.beyond,
                above: self.cells.above.beyond,
            };
        }
        let base_ns = self.base_ns();
        let mut out = report::OutOfRange::default();
        for &value_ns in &self.early {
            if value_ns.abs_diff(base_ns) > BOUND_NS {
                if value_ns < base_ns {
                    out.below += 1;
                } else {
                    out.above += 1;
                }
            }
        }
        out
    }
}

/// What the cells count from.
#[derive(Clone, Debug)]
pub(super) enum Base {
    Zero,
    /// Settled once, for all that may be merged: cells that count from one value add up. A second
    /// one is for the samples after a new start.
    EarlyMinimum(Arc<[OnceLock<i64>; 2]>, usize),
}

impl Base {
    pub(super) fn unknown() -> Self {
        Self::EarlyMinimum(Arc::default(), 0)
    }
}
