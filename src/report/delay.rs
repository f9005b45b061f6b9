//! Delays by direction: their figures, and the cells that these are of.

use serde::Serialize;

/// Delays by direction, in nanoseconds; `None` where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DelaySet {
    /// (T4 - T1) - (T3 - T2) (RFC 2681; the reflector's own time taken out).
    pub roundtrip: Option<Delay>,
    /// T2 - T1 (RFC 7679), the clocks' offset included.
    pub outbound: Option<Delay>,
    /// T4 - T3 (RFC 7679), the clocks' offset included.
    pub inbound: Option<Delay>,
    /// T3 - T2, the reflector's own time; `None` also where it is 0 in every reply, which is how
    /// reflectors that take one timestamp for both say nothing.
    pub reflector: Option<Delay>,
}

impl DelaySet {
    pub(crate) fn each_mut(&mut self) -> impl Iterator<Item = &mut Delay> {
        let all = [
            &mut self.roundtrip,
            &mut self.outbound,
            &mut self.inbound,
            &mut self.reflector,
        ];
        all.into_iter().flatten()
    }
}

/// One delay quantity, in nanoseconds.
///
/// Percentiles are nearest-rank: at least p % of the samples are at or below the value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Delay {
    /// How many delays the figures rest on.
    pub samples: u64,
    /// How many replies these samples stand for: each is weighed by those without a transmit timestamp
    /// that came just before it. As many as `samples` where every packet has one.
    pub packets: u64,
    /// Smallest, exact, in nanoseconds.
    pub min: i64,
    /// Mean, in nanoseconds.
    pub mean: f64,
    /// 50th percentile, in nanoseconds.
    pub median: i64,
    /// 90th percentile, in nanoseconds; `None`, as for all that follow, where fewer than ten samples
    /// lie beyond it.
    pub p90: Option<i64>,
    /// 95th percentile, in nanoseconds.
    pub p95: Option<i64>,
    /// 99th percentile, in nanoseconds.
    pub p99: Option<i64>,
    /// 99.9th percentile, in nanoseconds.
    pub p99_9: Option<i64>,
    /// 99.99th percentile, in nanoseconds.
    pub p99_99: Option<i64>,
    /// 99.999th percentile, in nanoseconds.
    pub p99_999: Option<i64>,
    /// How many samples it takes for the percentiles that are `None`; `None` where all are told.
    pub samples_needed: Option<SamplesNeeded>,
    /// Largest, exact, in nanoseconds.
    pub max: i64,
    /// Sample standard deviation (n - 1), in nanoseconds; `None` for one sample.
    pub stddev: Option<f64>,
    /// Smoothed interarrival jitter (RFC 3550 §6.4.1), in nanoseconds; `None` for one sample.
    pub jitter: Option<f64>,
    /// Differences of consecutive sequence numbers; `None` where there is no such pair.
    pub ipdv: Option<Ipdv>,
    /// Delay minus the session's minimum.
    pub pdv: Pdv,
    /// Samples outside the histogram's bounds.
    pub out_of_range: OutOfRange,
    /// Exact counts between fixed bounds, ascending; bins without a sample are left out.
    pub bins: Vec<Bin>,
}

/// How many samples a percentile takes that was not told, by percentile: for
/// [`Ipdv::p99_abs`] and [`Pdv::p99`] as many as for `p99`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SamplesNeeded {
    /// For the 90th percentile; `None`, as for all that follow, where it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90: Option<u64>,
    /// For the 95th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95: Option<u64>,
    /// For the 99th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<u64>,
    /// For the 99.9th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_9: Option<u64>,
    /// For the 99.99th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_99: Option<u64>,
    /// For the 99.999th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_999: Option<u64>,
}

/// Delay difference of consecutive sequence numbers, both measured (RFC 3393), in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ipdv {
    /// Smallest difference, signed, exact, in nanoseconds.
    pub min: i64,
    /// Mean of the absolute differences, in nanoseconds.
    pub mean_abs: f64,
    /// 99th percentile of the absolute differences, in nanoseconds; `None` where fewer than ten
    /// lie beyond it.
    pub p99_abs: Option<u64>,
    /// Largest difference, signed, exact, in nanoseconds.
    pub max: i64,
}

/// Delay minus the session's minimum (RFC 5481 §4.2), in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pdv {
    /// 50th percentile, in nanoseconds.
    pub median: u64,
    /// 99th percentile, in nanoseconds; `None` where fewer than ten samples lie beyond it.
    pub p99: Option<u64>,
    /// Largest, exact, in nanoseconds.
    pub max: u64,
}

/// Samples outside the histogram's bounds: percentiles know them only as below or above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutOfRange {
    /// Samples below the bounds.
    pub below: u64,
    /// Samples above the bounds.
    pub above: u64,
}

/// How many delays lie between two bounds of the series 1, 2, 5, 10 .. from 1 us to 10 s, with 0 and
/// the same below zero, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Smallest delay of the bin; `None`: below -10 s there is no bound.
    pub from: Option<i64>,
    /// The bound that its delays stay below; `None`: from 10 s on there is none.
    pub to: Option<i64>,
    /// Delays in the bin.
    pub count: u64,
}

/// Delays by direction, as histograms; without a sample where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histograms {
    /// (T4 - T1) - (T3 - T2).
    pub roundtrip: Histogram,
    /// T2 - T1, the clocks' offset included.
    pub outbound: Histogram,
    /// T4 - T3, the clocks' offset included.
    pub inbound: Histogram,
}

/// The delays of one direction: non-empty cells in ascending order, and what lies outside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Cells with at least one sample, ascending, none overlapping.
    pub cells: Vec<Cell>,
    /// Samples that no cell holds: they are below, or above, all cells.
    pub outside: OutOfRange,
}

impl Histogram {
    /// All samples, those outside the cells included.
    #[must_use]
    pub fn samples(&self) -> u64 {
        let inside: u64 = self.cells.iter().map(|cell| cell.count).sum();
        inside + self.outside.below + self.outside.above
    }
}

/// Delays that are not told apart, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Smallest delay of the cell.
    pub lowest: i64,
    /// Largest delay of the cell; percentiles are told by it.
    pub highest: i64,
    /// Samples, 1 or more.
    pub count: u64,
}
