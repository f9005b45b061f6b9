//! Count, extremes, mean, standard deviation and jitter.

use super::ranks::of_count;
use crate::stats::float;
use crate::stats::packets::Packets;

/// Count, extremes, mean and standard deviation.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    pub(super) count: u64,
    pub(super) min: i64,
    pub(super) max: i64,
    /// Cannot overflow: fewer than 2^64 values of at most 2^63.
    pub(super) sum: i128,
    /// Of differences from the first value, so that a clock offset does not use up the precision of
    /// a float.
    pub(super) first: i64,
    pub(super) mean_of_differences: f64,
    pub(super) sum_of_squares: f64,
}

impl Moments {
    /// Adds values: those of a block in two passes, and then as one to the others.
    pub(super) fn record(&mut self, packets: &[Packets], values: &[i64]) {
        let Some(&value) = values.first() else {
            return;
        };
        let first = if self.count == 0 { value } else { self.first };
        let difference = |value: i64| match value.checked_sub(first) {
            Some(near) => near as f64,
            None => float(i128::from(value) - i128::from(first)),
        };
        let mut block = Self {
            count: 0,
            min: value,
            max: value,
            first,
            ..Self::default()
        };
        let mut sum_of_differences = 0.0;
        for (packets, &value) in packets.iter().zip(values) {
            block.count += packets.weight;
            block.min = block.min.min(value);
            block.max = block.max.max(value);
            block.sum += i128::from(value) * i128::from(packets.weight);
            sum_of_differences += difference(value) * of_count(packets.weight);
        }
        block.mean_of_differences = sum_of_differences / of_count(block.count);
        for (packets, &value) in packets.iter().zip(values) {
            let distance = difference(value) - block.mean_of_differences;
            block.sum_of_squares += distance * distance * of_count(packets.weight);
        }
        self.merge(&block);
    }

    /// Adds the values of another one; the squares by the formula of Chan, Golub and LeVeque.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        let (ours, theirs) = (of_count(self.count), of_count(other.count));
        let both = ours + theirs;
        let between = float(i128::from(other.first) - i128::from(self.first))
            + (other.mean_of_differences - self.mean_of_differences);
        self.mean_of_differences += between * theirs / both;
        self.sum_of_squares += other.sum_of_squares + between * between * (ours / both) * theirs;
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }

    /// Rounded once, from the exact sum.
    pub(super) fn mean(&self) -> f64 {
        let n = i128::from(self.count);
        float(self.sum / n) + float(self.sum % n) / float(n)
    }

    /// Of the sample (n - 1).
    pub(super) fn stddev(&self) -> Option<f64> {
        let n = i128::from(self.count);
        (n > 1).then(|| (self.sum_of_squares / float(n - 1)).sqrt())
    }
}

/// Smoothed interarrival jitter (RFC 3550 §6.4.1, appendix A.8), of consecutive packets in order of
/// arrival. Replies whose delay is not known are no gap to be jumped over: of a stream of which only some
/// packets have T1 it takes the pairs.
#[derive(Clone, Debug, Default)]
pub(super) struct Jitter {
    pub(super) smoothed: f64,
    pub(super) previous: Option<i64>,
    pub(super) measured: bool,
    /// Values of several flows, or of packets that share their timestamps, between which nothing was
    /// measured: no jitter of any.
    pub(super) none: bool,
}

impl Jitter {
    pub(super) fn record(&mut self, value: i64, packets: &Packets) {
        if packets.count == 0 {
            return;
        }
        self.none |= packets.count > 1 || packets.joined;
        let previous = self.previous.replace(value);
        if let Some(previous) = previous.filter(|_| !packets.apart) {
            self.smoothed += (of_count(value.abs_diff(previous)) - self.smoothed) / 16.0;
            self.measured = true;
        }
    }

    pub(super) fn merge(&mut self, other: &Self, mixed: bool) {
        *self = Self {
            none: mixed || self.none || other.none,
            ..other.clone()
        };
    }

    pub(super) fn report(&self) -> Option<f64> {
        (self.measured && !self.none).then_some(self.smoothed)
    }
}
