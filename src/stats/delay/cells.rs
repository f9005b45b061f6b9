//! Histograms of delays.

use hdrhistogram::Histogram;

use crate::report;
use crate::stats::float;

/// Largest distance from the base that the histograms tell apart: one hour.
pub(super) const BOUND_NS: u64 = 3_600_000_000_000;

/// When cells get their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    AtOnce,
    /// When a value needs it.
    Growing,
}

/// Histogram of signed values around a base: one of the differences upwards, one of those downwards.
#[derive(Clone, Debug)]
pub(super) struct SignedCells {
    pub(super) base_ns: i64,
    /// Of `value - base_ns`, where that is not negative.
    pub(super) above: Cells,
    /// Of `base_ns - value`, for the other values.
    pub(super) below: Cells,
}

impl SignedCells {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            base_ns: 0,
            above: Cells::new(memory),
            below: Cells::new(memory),
        }
    }

    pub(super) fn record(&mut self, value_ns: i64, times: u64) {
        let distance = value_ns.abs_diff(self.base_ns);
        if value_ns >= self.base_ns {
            self.above.record(distance, times);
        } else {
            self.below.record(distance, times);
        }
    }

    /// Adds the values of one that counts from the same base.
    pub(super) fn merge(&mut self, other: &Self) {
        assert_eq!(
            self.base_ns, other.base_ns,
            "cells that count from one base"
        );
        self.above.merge(&other.above);
        self.below.merge(&other.below);
    }

    /// The highest value of the cell in which the `rank`-th smallest value is: as many values as
    /// `rank` at least are at or below it.
    pub(super) fn at_rank(&self, rank: u64) -> Ranked {
        let below = self.below.len();
        if rank > below {
            return match self.above.at_rank(rank - below) {
                Some(cell) => {
                    let distance = self.above.highest_of(cell);
                    Ranked::Value(self.base_ns.saturating_add_unsigned(distance))
                }
                None => Ranked::Above,
            };
        }
        // Ascending values are descending distances.
        match self.below.at_rank(below - rank + 1) {
            Some(cell) => {
                let distance = self.below.lowest_of(cell);
                Ranked::Value(self.base_ns.saturating_sub_unsigned(distance))
            }
            None => Ranked::Below,
        }
    }

    /// All cells that hold something, ascending, none wider than the extremes allow.
    pub(super) fn report(&self, min: i64, max: i64) -> report::Histogram {
        let cell = |lowest: i64, highest: i64, count| report::Cell {
            lowest: lowest.max(min),
            highest: highest.min(max),
            count,
        };
        let base_ns = self.base_ns;
        let below = self.below.recorded().map(|(nearest, farthest, count)| {
            let at = |distance| base_ns.saturating_sub_unsigned(distance);
            cell(at(farthest), at(nearest), count)
        });
        let mut cells: Vec<report::Cell> = below.collect();
        // Ascending distances are descending values.
        cells.reverse();
        cells.extend(self.above.recorded().map(|(nearest, farthest, count)| {
            let at = |distance| base_ns.saturating_add_unsigned(distance);
            cell(at(nearest), at(farthest), count)
        }));
        report::Histogram {
            cells,
            outside: report::OutOfRange {
                below: self.below.beyond,
                above: self.above.beyond,
            },
        }
    }

    pub(super) fn clear(&mut self) {
        self.above.clear();
        self.below.clear();
    }
}

/// What is known of the value at a rank.
pub(super) enum Ranked {
    /// Farther below the base than the bounds.
    Below,
    Value(i64),
    /// Farther above the base than the bounds.
    Above,
}

/// Histogram of distances within the bounds, and the number of those beyond.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    pub(super) histogram: Histogram<u64>,
    pub(super) beyond: u64,
}

impl Cells {
    pub(super) fn new(memory: Memory) -> Self {
        let bound = match memory {
            Memory::AtOnce => BOUND_NS,
            Memory::Growing => 2,
        };
        let mut histogram =
            Histogram::new_with_bounds(1, bound, 3).expect("constant, valid bounds");
        histogram.auto(memory == Memory::Growing);
        Self {
            histogram,
            beyond: 0,
        }
    }

    pub(super) fn record(&mut self, distance: u64, times: u64) {
        // The histogram's last cells reach beyond the bound.
        if distance > BOUND_NS || self.histogram.record_n(distance, times).is_err() {
            self.beyond += times;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let added = self.histogram.add(&other.histogram);
        added.expect("histograms of the same bounds");
        self.beyond += other.beyond;
    }

    pub(super) fn len(&self) -> u64 {
        self.histogram.len() + self.beyond
    }

    /// A value of the cell in which the `rank`-th smallest distance is, counted from 1; `None`
    /// where that is beyond the bounds.
    pub(super) fn at_rank(&self, rank: u64) -> Option<u64> {
        let n = self.histogram.len();
        if rank > n {
            return None;
        }
        // The histogram rounds quantile * n up: half a rank less survives rounding errors.
        let quantile = (float(rank.into()) - 0.5) / float(n.into());
        Some(self.histogram.value_at_quantile(quantile))
    }

    /// Lowest and highest distance and the count of each cell that holds something, ascending.
    pub(super) fn recorded(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.histogram.iter_recorded().map(|cell| {
            let value = cell.value_iterated_to();
            let (lowest, highest) = (self.lowest_of(value), self.highest_of(value));
            (lowest, highest, cell.count_at_value())
        })
    }

    pub(super) fn highest_of(&self, cell: u64) -> u64 {
        // What is beyond the bound is in none.
        self.histogram.highest_equivalent(cell).min(BOUND_NS)
    }

    pub(super) fn lowest_of(&self, cell: u64) -> u64 {
        self.histogram.lowest_equivalent(cell)
    }

    pub(super) fn clear(&mut self) {
        self.histogram.reset();
        self.beyond = 0;
    }
}
