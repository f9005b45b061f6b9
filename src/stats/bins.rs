//! Counts of delays between fixed bounds: exact, and the same in every run, so that they add up.

use crate::report::Bin;

/// Counts by bin, in constant memory.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    counts: [u64; BOUNDS.len() + 1],
    /// The bin of the last delay: the next one is most often near.
    last: usize,
}

impl Bins {
    pub(super) fn new() -> Self {
        Self {
            counts: [0; BOUNDS.len() + 1],
            last: 0,
        }
    }

    /// Adds a delay in nanoseconds of so many packets.
    pub(super) fn record(&mut self, value_ns: i64, times: u64) {
        let above = self.last == 0 || BOUNDS[self.last - 1] <= value_ns;
        let below = self.last == BOUNDS.len() || value_ns < BOUNDS[self.last];
        if !(above && below) {
            self.last = BOUNDS.partition_point(|bound| *bound <= value_ns);
        }
        self.counts[self.last] += times;
    }

    /// The bins that hold something, ascending.
    pub(super) fn report(&self) -> Vec<Bin> {
        let bins = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        bins.map(|(at, &count)| Bin {
            from: at.checked_sub(1).map(|below| BOUNDS[below]),
            to: BOUNDS.get(at).copied(),
            count,
        })
        .collect()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

/// Bounds from 1 us to 10 s.
const POSITIVE: usize = 22;

/// 1, 2, 5, 10 .. us to 10 s, in nanoseconds, with 0 and the same below zero; ascending.
const BOUNDS: [i64; 2 * POSITIVE + 1] = {
    let mut bounds = [0; 2 * POSITIVE + 1];
    let (mut decade, mut n) = (1000, 0);
    while n < POSITIVE {
        let bound = match n % 3 {
            0 => decade,
            1 => 2 * decade,
            _ => 5 * decade,
        };
        bounds[POSITIVE + 1 + n] = bound;
        bounds[POSITIVE - 1 - n] = -bound;
        if n % 3 == 2 {
            decade *= 10;
        }
        n += 1;
    }
    bounds
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_are_1_2_5_from_1_us_to_10_s() {
        let positive = &BOUNDS[POSITIVE + 1..];
        assert_eq!(positive[..4], [1000, 2000, 5000, 10_000]);
        assert_eq!(positive[POSITIVE - 1], 10_000_000_000);
        assert_eq!(BOUNDS[POSITIVE], 0);
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(BOUNDS.iter().eq(BOUNDS.map(|b| -b).iter().rev()));
    }

    #[test]
    fn a_bound_belongs_to_the_bin_above_it() {
        let mut bins = Bins::new();
        for value in [-1, 0, 999, 1000, 1000, i64::MIN, i64::MAX] {
            bins.record(value, 1);
        }
        let bin = |from, to, count| Bin { from, to, count };
        let expected = [
            bin(None, Some(-10_000_000_000), 1),
            bin(Some(-1000), Some(0), 1),
            bin(Some(0), Some(1000), 2),
            bin(Some(1000), Some(2000), 2),
            bin(Some(10_000_000_000), None, 1),
        ];
        assert_eq!(bins.report(), expected);
        bins.clear();
        assert_eq!(bins.report(), []);
    }

    proptest! {
        #[test]
        fn every_value_is_in_the_bin_that_names_it(value: i64, shift in 0_u32..63) {
            let value = value >> shift;
            let mut bins = Bins::new();
            bins.record(value, 1);
            let report = bins.report();
            prop_assert_eq!(report.len(), 1);
            prop_assert!(report[0].from.is_none_or(|from| from <= value));
            prop_assert!(report[0].to.is_none_or(|to| value < to));
        }
    }
}
