//! Figures of delays: tests.

use super::cells::BOUND_NS;
use super::distribution::EARLY;
use super::ranks::{
    BEYOND, MEDIAN, P90, P95, P99, P99_9, P99_99, P99_999, WHOLE, nearest_rank, needed, of_count,
    supported_rank,
};
use super::*;
use crate::stats::float;

#[test]
fn a_percentile_that_is_missing_comes_with_the_samples_it_takes() {
    for part in [P90, P95, P99, P99_9, P99_99, P99_999] {
        let needed = needed(|p| p == part).unwrap();
        let all = [
            needed.p90,
            needed.p95,
            needed.p99,
            needed.p99_9,
            needed.p99_99,
        ];
        let mut told = all.into_iter().chain([needed.p99_999]).flatten();
        let (n, more) = (told.next().unwrap(), told.next());
        assert_eq!(more, None, "{part}");
        assert!(supported_rank(n, part).is_some(), "{part}");
        assert!(supported_rank(n - 1, part).is_none(), "{part}");
    }
    assert_eq!(needed(|_| false), None);
    let delay = filled(Distribution::from_zero(), &[1; 999]);
    let needed = delay.samples_needed.unwrap();
    assert_eq!((delay.p95, needed.p95), (Some(1), None));
    assert_eq!((delay.p99, needed.p99), (None, Some(1000)));
}

#[test]
fn the_clock_of_an_interface_is_never_compared_with_another() {
    // T4 is of an interface whose clock runs since it was switched on.
    let sample = |t1_stamp_ns| Sample {
        seq: 0,
        t1_ns: 1_790_000_000_000_000_000,
        t1_stamp_ns,
        t2_ns: 1_790_000_000_000_005_000,
        t3_ns: 1_790_000_000_000_006_000,
        t4_ns: 1_000_010_000,
        size_class: 0,
        count: 1,
    };
    let mut delays = Delays::new(1, true);
    delays.record(&[sample(None), sample(Some(1_000_000_000)), sample(None)]);
    assert_eq!((delays.recorded(), delays.rejected()), (3, 0));
    let roundtrip = delays.report().roundtrip.unwrap();
    assert_eq!((roundtrip.samples, roundtrip.max), (1, 9000));
    assert_eq!(delays.report().inbound.unwrap().samples, 3);
}
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde_json::Value;

const VECTORS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/vectors/metrics.json"
));
const YEAR_NS: i64 = 365 * 86_400 * 1_000_000_000;

fn vectors(name: &str) -> Value {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    all[name].clone()
}

fn numbers(value: &Value) -> Vec<i64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|n| n.as_i64().unwrap()).collect()
}

fn filled(mut distribution: Distribution, values: &[i64]) -> report::Delay {
    for (seq, &value) in (0..).zip(values) {
        distribution.record(seq, value);
    }
    distribution.report().unwrap()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// Delays of 4 to 6 µs, evenly spread.
fn five_microseconds(n: usize) -> Vec<i64> {
    let mut random = Pcg64Mcg::seed_from_u64(5);
    (0..n)
        .map(|_| 4000 + i64::from(random.next_u32() % 2001))
        .collect()
}

#[test]
fn shared_vectors_of_delay_variation() {
    let vector = vectors("delay_variation");
    let ns: Vec<i64> = numbers(&vector["delays_us"])
        .iter()
        .map(|us| us * 1000)
        .collect();
    let ipdv = numbers(&vector["ipdv_us"]);
    let pdv = numbers(&vector["pdv_us"]);
    let us = |name: &str| vector[name].as_f64().unwrap();
    for offset in [0, -37_000_000_000, 10 * YEAR_NS] {
        let shifted: Vec<i64> = ns.iter().map(|ns| ns + offset).collect();
        let got = filled(Distribution::with_unknown_offset(), &shifted);
        let got_ipdv = got.ipdv.unwrap();
        assert_eq!(got_ipdv.min, ipdv.iter().min().unwrap() * 1000);
        assert_eq!(got_ipdv.max, ipdv.iter().max().unwrap() * 1000);
        assert!(near(got_ipdv.mean_abs, us("mean_abs_ipdv_us") * 1000.0));
        assert_eq!(got_ipdv.p99_abs, None);
        assert!(near(got.jitter.unwrap(), us("rfc3550_jitter_us") * 1000.0));
        let mut sorted = pdv.clone();
        sorted.sort_unstable();
        assert_eq!(i64::try_from(got.pdv.median).unwrap(), sorted[3] * 1000);
        assert_eq!(i64::try_from(got.pdv.max).unwrap(), sorted[6] * 1000);
        assert_eq!(got.pdv.p99, None);
    }
}

#[test]
fn shared_vectors_of_round_trip() {
    for vector in vectors("round_trip").as_array().unwrap() {
        let ns = |name: &str| vector[name].as_i64().unwrap() * 1000;
        let mut delays = Delays::new(1, false);
        delays.record(&[Sample {
            seq: 0,
            t1_ns: ns("t1"),
            t1_stamp_ns: None,
            t2_ns: ns("t2"),
            t3_ns: ns("t3"),
            t4_ns: ns("t4"),
            size_class: 0,
            count: 1,
        }]);
        let got = delays.report();
        assert_eq!(got.roundtrip.unwrap().min, ns("rtt"));
        assert_eq!(got.outbound.unwrap().min, ns("forward_raw"));
        assert_eq!(got.inbound.unwrap().min, ns("backward_raw"));
        assert_eq!(got.reflector.unwrap().min, ns("t3") - ns("t2"));
        assert_eq!(delays.offset_estimate_ns(), Some(49_250_000));
    }
}

#[test]
fn no_sample_is_no_report_and_one_sample_has_no_spread() {
    assert_eq!(Distribution::from_zero().report(), None);
    let got = filled(Distribution::from_zero(), &[0]);
    let expected = report::Delay {
        samples: 1,
        packets: 1,
        min: 0,
        mean: 0.0,
        median: 0,
        p90: None,
        p95: None,
        p99: None,
        p99_9: None,
        p99_99: None,
        p99_999: None,
        samples_needed: needed(|_| true),
        max: 0,
        stddev: None,
        jitter: None,
        ipdv: None,
        pdv: report::Pdv {
            median: 0,
            p99: None,
            max: 0,
        },
        out_of_range: report::OutOfRange::default(),
        bins: vec![report::Bin {
            from: Some(0),
            to: Some(1000),
            count: 1,
        }],
    };
    assert_eq!(got, expected);
}

#[test]
fn moments_are_exact() {
    // Of 2, 4, 4, 4, 5, 5, 7, 9: mean 5, sum of squared differences 32.
    for offset in [0, -3, 10 * YEAR_NS] {
        let values: Vec<i64> = [2, 4, 4, 4, 5, 5, 7, 9].map(|v| v + offset).into();
        let got = filled(Distribution::with_unknown_offset(), &values);
        assert!(near(got.mean, float((5 + offset).into())));
        assert!(near(got.stddev.unwrap(), (32.0_f64 / 7.0).sqrt()));
        assert_eq!((got.min, got.max), (2 + offset, 9 + offset));
    }
}

#[test]
fn a_clock_offset_costs_no_detail() {
    for offset in [0, 37_000_000_000, -37_000_000_000, 10 * YEAR_NS] {
        for first in [5000, 5_000_000] {
            for n in [500, 20_000] {
                let mut values = five_microseconds(n);
                values[0] = first;
                let shifted: Vec<i64> = values.iter().map(|v| v + offset).collect();
                let got = filled(Distribution::with_unknown_offset(), &shifted);
                values.sort_unstable();
                let median = values[n / 2 - 1];
                assert!(
                    (got.median - offset).abs_diff(median) <= 5,
                    "offset {offset}, first {first}: {} for {median}",
                    got.median - offset
                );
                assert_eq!(got.max - offset, values[n - 1]);
                assert_eq!(got.pdv.max, values[n - 1].abs_diff(values[0]));
            }
        }
    }
}

#[test]
fn percentiles_need_ten_samples_beyond() {
    let shown = |n: i64| {
        let values: Vec<i64> = (1..=n).collect();
        let got = filled(Distribution::from_zero(), &values);
        [
            got.p90,
            got.p95,
            got.p99,
            got.p99_9,
            got.p99_99,
            got.p99_999,
        ]
    };
    assert_eq!(shown(99), [None; 6]);
    assert_eq!(shown(100)[..2], [Some(90), None]);
    assert_eq!(shown(999)[1..3], [Some(950), None]);
    assert_eq!(shown(1000)[2..4], [Some(990), None]);
    assert_eq!(shown(9_999)[3], None);
    assert!(shown(10_000)[3].unwrap().abs_diff(9_990) <= 9);
    assert_eq!(shown(99_999)[4..], [None; 2]);
    assert!(shown(100_000)[4].unwrap().abs_diff(99_990) <= 99);
    assert!(shown(1_000_000)[5].unwrap().abs_diff(999_990) <= 999);
}

#[test]
fn nearest_rank_is_exact_for_any_count() {
    for n in [1, 7, 1000, 123_457, u64::MAX] {
        for part in [1, MEDIAN, P99_999, WHOLE] {
            let exact = (u128::from(n) * u128::from(part)).div_ceil(WHOLE.into());
            assert_eq!(u128::from(nearest_rank(n, part)), exact);
        }
    }
}

#[test]
fn values_beyond_the_bounds_are_counted_and_the_extremes_stay_exact() {
    const HOUR: i64 = 3_600_000_000_000;
    for small in [10, 2000] {
        let mut values = vec![HOUR, -HOUR, HOUR + 1, -HOUR - 1, i64::MAX, i64::MIN];
        values.extend(vec![7; small]);
        let got = filled(Distribution::from_zero(), &values);
        assert_eq!((got.min, got.median, got.max), (i64::MIN, 7, i64::MAX));
        assert_eq!(got.out_of_range, report::OutOfRange { below: 2, above: 2 });
        assert_eq!(got.pdv.max, u64::MAX);
    }
    // Most samples out of range: the percentiles are the extremes, in order.
    let got = filled(Distribution::from_zero(), &[2 * HOUR; 3000]);
    assert_eq!((got.median, got.p99), (2 * HOUR, Some(2 * HOUR)));
    let got = filled(Distribution::from_zero(), &[-2 * HOUR; 3000]);
    assert_eq!((got.median, got.p99), (-2 * HOUR, Some(-2 * HOUR)));
}

#[test]
fn a_cell_ends_at_the_bound() {
    const HOUR: i64 = 3_600_000_000_000;
    for sign in [1, -1] {
        let mut distribution = Distribution::from_zero();
        let few = [HOUR - 5, HOUR + 5].into_iter();
        for (seq, value) in (0..).zip(few.chain([7; 2000])) {
            distribution.record(seq, sign * value);
        }
        let beyond = sign * (HOUR + 5);
        let cells = distribution.histogram().cells;
        assert_eq!(cells.iter().map(|cell| cell.count).sum::<u64>(), 2001);
        let inside = |cell: &report::Cell| (cell.lowest..=cell.highest).contains(&beyond);
        assert!(!cells.iter().any(inside), "{cells:?}");
    }
}

#[test]
fn zero_is_a_value() {
    let mut values = vec![0; 3000];
    values.extend([1; 1000]);
    let got = filled(Distribution::from_zero(), &values);
    assert_eq!((got.median, got.p90), (0, Some(1)));
    assert_eq!(got.out_of_range, report::OutOfRange::default());
}

#[test]
fn ranks_pass_from_below_the_base_to_above_it_without_a_gap() {
    for (lowest, median, p90) in [(-1000, -1, 799), (-999, 0, 800), (-1001, -2, 798)] {
        let values: Vec<i64> = (lowest..lowest + 2000).collect();
        let got = filled(Distribution::from_zero(), &values);
        assert_eq!((got.median, got.p90), (median, Some(p90)));
    }
    assert_eq!(
        filled(Distribution::from_zero(), &[-1000; 2000]).median,
        -1000
    );
}

proptest! {
    /// Packets that have a delay in common come to the same as one by one.
    #[test]
    fn trains_are_recorded_as_their_packets_are(
        trains in proptest::collection::vec((0..40_usize, -3..1000_i64, 0..5_u64), 1..80),
        swaps in proptest::collection::vec((any::<usize>(), 1..50_usize), 0..30),
        far: bool,
    ) {
        let mut seq = 0;
        let mut samples = Vec::new();
        for (count, value, gap) in trains {
            seq += gap;
            let value = if far { value - YEAR_NS } else { value };
            for _ in 0..count {
                samples.push((seq, value));
                seq += 1;
            }
        }
        // Order of arrival.
        for (at, by) in swaps {
            if !samples.is_empty() {
                let at = at % samples.len();
                let to = (at + by) % samples.len();
                samples.swap(at, to);
            }
        }
        let kind = if far { Distribution::with_unknown_offset() } else { Distribution::from_zero() };
        let (mut one, mut together) = (kind.clone(), kind);
        for block in samples.chunks(COLUMN) {
            let runs = block.chunk_by(|(seq, value), next| (seq + 1, *value) == *next);
            let (packets, values): (Vec<Packets>, Vec<i64>) = runs
                .map(|run| {
                    let (first, value) = run[0];
                    (Packets::of(first, run.len() as u64), value)
                })
                .unzip();
            together.record_all(&packets, &values);
            for (packets, value) in packets.iter().zip(values) {
                for n in 0..packets.count {
                    let packet = Packets { joined: n > 0, ..Packets::of(packets.first + n, 1) };
                    one.record_all(&[packet], &[value]);
                }
            }
        }
        prop_assert_eq!(together.histogram(), one.histogram());
        let (Some(got), Some(expected)) = (together.report(), one.report()) else {
            prop_assert!(samples.is_empty());
            return Ok(());
        };
        prop_assert!(near(got.jitter.unwrap_or(0.0), expected.jitter.unwrap_or(0.0)));
        prop_assert!(near(got.stddev.unwrap_or(0.0), expected.stddev.unwrap_or(0.0)));
        let comparable = |delay: report::Delay| report::Delay {
            jitter: None,
            stddev: None,
            ..delay
        };
        prop_assert_eq!(comparable(got), comparable(expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frugal_figures_are_the_same(
        delays in proptest::collection::vec(-5_000_000_000..4_000_000_000_000_i64, 1..3000),
    ) {
        let samples: Vec<Sample> = (0..).zip(&delays).map(|(seq, delay)| Sample {
            seq,
            t1_ns: 0,
            t1_stamp_ns: None,
            t2_ns: 10_000 + delay / 2,
            t3_ns: 20_000 + delay / 2,
            t4_ns: 30_000 + delay,
            size_class: u8::from(seq % 3 == 0),
            count: 1,
        }).collect();
        let figures = |all: &Delays| {
            let sizes = (all.size_roundtrip(0), all.size_roundtrip(1));
            (all.report(), sizes, all.histograms())
        };
        let (mut plain, frugal) = (Delays::new(2, false), Delays::frugal(2, false));
        let (mut frugal, mut other) = (frugal.alike(), frugal.alike());
        plain.record(&samples);
        frugal.record(&samples);
        prop_assert_eq!(figures(&plain), figures(&frugal));
        // Small ones and large ones add up, whichever is first.
        let mut plain_other = plain.alike();
        let mut plain = plain.alike();
        let (most, few) = samples.split_at(samples.len() * 9 / 10);
        plain.record(most);
        plain_other.record(few);
        plain_other.merge(&plain);
        let mut frugal = frugal.alike();
        frugal.record(most);
        other.record(few);
        other.merge(&frugal);
        prop_assert_eq!(figures(&plain_other), figures(&other));
    }

    #[test]
    fn merged_samples_are_as_those_of_one(
        seed: u64, n in 1_usize..6000, flows in 1_usize..5, far: bool,
    ) {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let offset = if far { -YEAR_NS } else { 0 };
        let values: Vec<i64> =
            (0..n).map(|_| offset + i64::from(random.next_u32() % 3_000_000)).collect();
        let kind = if far { Distribution::with_unknown_offset() } else { Distribution::from_zero() };
        // The shares are uneven, and some may be empty.
        let mut parts = vec![kind.clone(); flows];
        let mut one = kind.clone();
        for (seq, &value) in (0..).step_by(2).zip(&values) {
            let part = (random.next_u32() % 8) as usize;
            parts[part.min(flows - 1)].record(seq, value);
            one.record(seq, value);
        }
        let mut merged = kind.clone();
        for part in &parts {
            merged.merge(part);
        }
        let (got, expected) = (merged.report().unwrap(), one.report().unwrap());
        let filled = parts.iter().filter(|part| part.moments.count > 0).count();
        prop_assert_eq!(got.jitter.is_some(), filled == 1 && n > 1);
        prop_assert!(near(got.stddev.unwrap_or(0.0), expected.stddev.unwrap_or(0.0)));
        let comparable = |delay: report::Delay| report::Delay {
            jitter: None,
            stddev: None,
            ..delay
        };
        prop_assert_eq!(comparable(got), comparable(expected));
        prop_assert_eq!(merged.histogram().cells.iter().map(|cell| cell.count).sum::<u64>(), n as u64);
    }
}

#[test]
fn pairs_of_several_flows_are_those_of_each() {
    let mut flows = [Distribution::from_zero(), Distribution::from_zero()];
    for seq in 0..2000 {
        flows[0].record(seq, 10 * i64::try_from(seq % 2).unwrap());
        flows[1].record(seq, 1_000_000 + 30 * i64::try_from(seq % 2).unwrap());
    }
    let [first, second] = flows;
    for (first, second) in [(&first, &second), (&second, &first)] {
        let mut merged = first.clone();
        merged.merge(second);
        let ipdv = merged.report().unwrap().ipdv.unwrap();
        assert_eq!(
            (ipdv.min, ipdv.max, merged.pairs.count),
            (-30, 30, 2 * 1999)
        );
        assert!(near(ipdv.mean_abs, 20.0));
    }
}

#[test]
fn the_samples_and_the_rejected_ones_of_two_flows_add_up() {
    let good = |seq: u64| sample(seq, 1_000_000, None, 0);
    let bad = |seq| Sample {
        t3_ns: good(seq).t2_ns - 1,
        ..good(seq)
    };
    let none = Delays::new(1, false);
    let flow = |recorded: u64, rejected: u64| {
        let mut flow = none.alike();
        flow.record(&(0..recorded).map(good).collect::<Vec<_>>());
        flow.record(&(0..rejected).map(bad).collect::<Vec<_>>());
        flow
    };
    let (first, second) = (flow(5, 2), flow(4, 3));
    for (first, second) in [(&first, &second), (&second, &first)] {
        let mut both = first.clone();
        both.merge(second);
        assert_eq!((both.recorded(), both.rejected()), (9, 5));
        let report = both.report();
        let samples = [report.roundtrip, report.outbound, report.inbound];
        assert_eq!(samples.map(|delay| delay.unwrap().samples), [9; 3]);
    }
}

#[test]
fn two_parts_that_fill_the_first_memory_together_leave_it() {
    for other in [1, EARLY / 2, EARLY - 1] {
        let part = |count: usize| {
            let mut part = Distribution::from_zero();
            (0..count).for_each(|n| part.record(n as u64, i64::try_from(n).unwrap()));
            part
        };
        let (mut both, other) = (part(EARLY - other), part(other));
        both.merge(&other);
        assert!(both.settled && both.early.is_empty());
        both.record(EARLY as u64, 7);
        assert!(both.early.is_empty(), "what comes next takes no memory");
    }
}

#[test]
fn sessions_of_two_kinds_of_t1_do_not_mix() {
    let sample = |seq, stamp| Sample {
        seq,
        t1_ns: 0,
        t1_stamp_ns: stamp,
        t2_ns: 500,
        t3_ns: 600,
        t4_ns: 1100,
        size_class: 0,
        count: 1,
    };
    let mut plain = Delays::new(2, false);
    let mut stamped = plain.alike();
    plain.record(&[sample(0, None), sample(1, None)]);
    stamped.record(&[sample(0, Some(100))]);
    for (first, second) in [(&plain, &stamped), (&stamped, &plain)] {
        let mut both = first.alike();
        both.merge(first);
        both.merge(second);
        let report = both.report();
        assert_eq!((both.recorded(), both.t1_stamped()), (3, true));
        assert_eq!(report.inbound.unwrap().samples, 3);
        let roundtrip = report.roundtrip.unwrap();
        assert_eq!((roundtrip.samples, roundtrip.max), (1, 900));
        assert_eq!(both.size_roundtrip(0).unwrap().samples, 1);
    }
}

/// IPDV by its definition: every pair of consecutive sequence numbers, in order.
fn naive_ipdv(arrivals: &[(u64, i64)]) -> (u64, i64, i64, i64) {
    let by_seq: std::collections::BTreeMap<u64, i64> = arrivals.iter().copied().collect();
    let differences: Vec<i64> = by_seq
        .iter()
        .filter_map(|(seq, value)| Some(by_seq.get(&(seq + 1))? - value))
        .collect();
    (
        differences.len() as u64,
        *differences.iter().min().unwrap(),
        *differences.iter().max().unwrap(),
        differences.iter().map(|d| d.abs()).sum(),
    )
}

#[test]
fn ipdv_survives_reordering_and_loss() {
    let mut random = Pcg64Mcg::seed_from_u64(3);
    let mut arrivals = Vec::new();
    for seq in 0..20_000_u64 {
        if random.next_u32() % 10 > 0 {
            let displaced = seq + u64::from(random.next_u32() % 50);
            arrivals.push((displaced, seq, i64::from(random.next_u32() % 100_000)));
        }
    }
    arrivals.sort_unstable();
    let arrivals: Vec<(u64, i64)> = arrivals.iter().map(|&(_, seq, v)| (seq, v)).collect();
    let mut distribution = Distribution::with_unknown_offset();
    for &(seq, value) in &arrivals {
        distribution.record(seq, value);
    }
    let (count, min, max, sum) = naive_ipdv(&arrivals);
    let got = distribution.report().unwrap().ipdv.unwrap();
    assert_eq!(distribution.pairs.count, count);
    assert_eq!((got.min, got.max), (min, max));
    assert!(near(got.mean_abs, float(sum.into()) / float(count.into())));
    assert!(got.p99_abs.unwrap() <= 100_000);
}

#[test]
fn ipdv_needs_neighbours_that_are_still_remembered() {
    let ipdv = |seqs: &[u64]| {
        let mut distribution = Distribution::from_zero();
        for (&seq, value) in seqs.iter().zip([100, 103, 110, 200]) {
            distribution.record(seq, value);
        }
        let got = distribution.report().unwrap().ipdv;
        got.map(|got| (distribution.pairs.count, got.min, got.max))
    };
    assert_eq!(ipdv(&[0, 2, 4]), None);
    assert_eq!(ipdv(&[0, 1]), Some((1, 3, 3)));
    assert_eq!(ipdv(&[1, 0]), Some((1, -3, -3)));
    assert_eq!(ipdv(&[0, 2, 1]), Some((2, -7, 10)));
    // 1 shares its slot with 4097: too late, and it must not displace the newer one.
    assert_eq!(ipdv(&[0, 4097, 1, 4098]), Some((1, 97, 97)));
    assert_eq!(ipdv(&[u64::MAX, 0]), None);
    assert_eq!(ipdv(&[7, 7]), None);
}

#[test]
fn p99_of_absolute_ipdv_is_the_nearest_rank() {
    // Differences of 1, 2, 3, .. 2000, with alternating sign.
    let mut value = 0;
    let mut values = vec![0];
    for step in 1..=2000 {
        value += if step % 2 == 0 { step } else { -step };
        values.push(value);
    }
    let got = filled(Distribution::with_unknown_offset(), &values);
    let ipdv = got.ipdv.unwrap();
    assert_eq!(
        (ipdv.min, ipdv.p99_abs, ipdv.max),
        (-1999, Some(1980), 2000)
    );
}

/// A sample with the given T1s and delays of 10 each way, on clocks 1000 apart.
fn sample(seq: u64, t1_ns: i64, t1_stamp_ns: Option<i64>, size_class: u8) -> Sample {
    Sample {
        seq,
        t1_ns,
        t1_stamp_ns,
        t2_ns: 1_000_000 + 1010,
        t3_ns: 1_000_000 + 1015,
        t4_ns: 1_000_000 + 25,
        size_class,
        count: 1,
    }
}

#[test]
fn kinds_of_t1_are_never_mixed() {
    let mut delays = Delays::new(2, false);
    let user = |seq| sample(seq, 1_000_000 - 100, None, 0);
    let stamped = |seq, class| sample(seq, 1_000_000 - 100, Some(1_000_000), class);
    delays.record(&[user(0), user(1)]);
    assert!(!delays.t1_stamped());
    let got = delays.report();
    let roundtrip = got.roundtrip.unwrap();
    assert_eq!(
        (roundtrip.samples, roundtrip.min, roundtrip.max),
        (2, 120, 120)
    );
    assert_eq!(got.outbound.unwrap().max, 1110);
    assert_eq!(delays.size_roundtrip(0).unwrap().samples, 2);
    assert_eq!(delays.size_roundtrip(1), None);
    assert_eq!(delays.offset_estimate_ns(), Some(1050));

    delays.record(&[stamped(2, 1), user(3), stamped(4, 1)]);
    assert!(delays.t1_stamped());
    let got = delays.report();
    let roundtrip = got.roundtrip.unwrap();
    assert_eq!(
        (roundtrip.samples, roundtrip.min, roundtrip.max),
        (2, 20, 20)
    );
    assert_eq!(roundtrip.ipdv, None);
    assert_eq!(got.outbound.unwrap().max, 1010);
    assert_eq!(got.inbound.unwrap().samples, 5);
    assert_eq!(got.reflector.unwrap().samples, 5);
    assert_eq!(delays.size_roundtrip(0), None);
    assert_eq!(delays.size_roundtrip(1).unwrap().max, 20);
    assert_eq!(delays.size_roundtrip(2), None);
    assert_eq!(delays.offset_estimate_ns(), Some(1000));
    assert_eq!((delays.recorded(), delays.rejected()), (5, 0));
}

#[test]
fn starting_over_with_stamps_forgets_everything() {
    let mut used = Distribution::with_unknown_offset();
    for (seq, value) in (0..).zip(five_microseconds(3000)) {
        used.record(seq, value - 3 * YEAR_NS);
    }
    used.clear();
    let mut fresh = Distribution::with_unknown_offset();
    for (seq, value) in (0..).zip(five_microseconds(5000)) {
        used.record(seq, value);
        fresh.record(seq, value);
    }
    assert_eq!(used.report(), fresh.report());
}

#[test]
fn contradictory_samples_are_rejected() {
    let good = sample(0, 1_000_000, None, 0);
    let bad = [
        Sample {
            t3_ns: good.t2_ns - 1,
            ..good
        },
        Sample {
            t4_ns: good.t1_ns + 4,
            ..good
        },
        Sample {
            t1_ns: i64::MIN,
            ..good
        },
        Sample {
            t2_ns: i64::MIN,
            ..good
        },
        Sample {
            t3_ns: i64::MIN,
            ..good
        },
        Sample {
            t4_ns: i64::MIN,
            ..good
        },
        Sample {
            t1_stamp_ns: Some(i64::MAX),
            ..good
        },
    ];
    let mut delays = Delays::new(1, false);
    delays.record(&bad);
    assert_eq!(delays.rejected(), 7);
    assert_eq!(delays.recorded(), 0);
    assert!(!delays.t1_stamped());
    assert_eq!(delays.report(), report::DelaySet::default());
    assert_eq!(delays.offset_estimate_ns(), None);
    // A round trip of nothing but reflector time is 0, and legal.
    delays.record(&[Sample {
        t4_ns: good.t1_ns + 5,
        ..good
    }]);
    assert_eq!(delays.report().roundtrip.unwrap().max, 0);
    assert_eq!(delays.size_roundtrip(0), delays.report().roundtrip);
}

#[test]
fn the_offset_estimate_is_of_the_fastest_round_trip() {
    let mut delays = Delays::new(1, false);
    let queued_outbound = Sample {
        t1_ns: 1_000_000 - 500,
        ..sample(0, 0, None, 0)
    };
    let fast = sample(1, 1_000_000, None, 0);
    let queued_inbound = Sample {
        t4_ns: fast.t4_ns + 700,
        ..sample(2, 1_000_000, None, 0)
    };
    delays.record(&[queued_outbound]);
    assert_eq!(delays.offset_estimate_ns(), Some(1250));
    delays.record(&[fast, queued_inbound]);
    assert_eq!(delays.offset_estimate_ns(), Some(1000));
}

#[test]
fn a_reflector_with_one_timestamp_does_not_tell_its_own_time() {
    let good = sample(0, 1_000_000, None, 0);
    let same = |seq| Sample {
        seq,
        t3_ns: good.t2_ns,
        ..good
    };
    let mut delays = Delays::new(1, false);
    delays.record(&[same(0), same(1)]);
    assert_eq!(delays.report().reflector, None);
    assert_eq!(delays.report().roundtrip.unwrap().samples, 2);
    // One reply in which they differ shows that the others were measured.
    delays.record(&[Sample { seq: 2, ..good }]);
    let got = delays.report().reflector.unwrap();
    assert_eq!((got.samples, got.min, got.max), (3, 0, 5));
}

/// A session whose path and whose share of stamped packets change at random, with what is known of
/// all its replies: samples with 2 in N stamped, in order of arrival, and the true round trips.
fn changing_session(parts: &[(u64, u32, u32, bool)], seed: u64) -> (Vec<Sample>, Vec<i64>) {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let (mut samples, mut truth) = (Vec::new(), Vec::new());
    let mut seq = 0;
    for &(packets, apart_log, level_us, outage) in parts {
        for _ in 0..packets {
            seq += 1;
            if outage {
                continue;
            }
            // A level of the path, and queueing on top of it.
            let queue = i64::from(random.next_u32() % 50_000);
            let outbound = i64::from(level_us) * 1000 + queue;
            let inbound = 40_000;
            let t1_ns = i64::try_from(seq).unwrap() * 1_000_000;
            let stamped = seq % (1 << apart_log) < 2;
            truth.push(outbound + inbound);
            samples.push(Sample {
                seq,
                // That of user space is much too early.
                t1_ns: t1_ns - 5_000_000,
                t1_stamp_ns: stamped.then_some(t1_ns),
                t2_ns: t1_ns + outbound,
                t3_ns: t1_ns + outbound + 1000,
                t4_ns: t1_ns + outbound + 1000 + inbound,
                size_class: 0,
                count: 1,
            });
        }
    }
    (samples, truth)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However few packets are stamped at a time, roundtrip and outbound delay are those of the whole
    /// session, in proportion, as inbound delay is.
    #[test]
    fn a_thinned_stream_has_the_figures_of_the_whole(
        parts in prop::collection::vec(
            (2000..20_000_u64, 0..7_u32, 10..20_000_u32, prop::bool::weighted(0.15)),
            2..8,
        ),
        seed: u64,
    ) {
        let (samples, mut truth) = changing_session(&parts, seed);
        prop_assume!(truth.len() > 4000);
        let mut delays = Delays::new(1, false);
        for block in samples.chunks(256) {
            delays.record(block);
        }
        let got = delays.report();
        let (roundtrip, inbound) = (got.roundtrip.unwrap(), got.inbound.unwrap());
        let n = truth.len() as u64;
        prop_assert_eq!(inbound.samples, n);
        // The last replies may stand for nothing yet.
        prop_assert!(roundtrip.packets <= n && n - roundtrip.packets <= 256, "{} of {n}", roundtrip.packets);
        let stamped = samples.iter().filter(|s| s.t1_stamp_ns.is_some()).count() as u64;
        prop_assert_eq!(roundtrip.samples, stamped);
        truth.sort_unstable();
        let mean = float(truth.iter().map(|v| i128::from(*v)).sum::<i128>()) / of_count(n);
        let range = float(i128::from(truth[truth.len() - 1] - truth[0]));
        // Each boundary of parts may be off by what is between two pairs, 64 packets at most; within a
        // part queueing is 50 us at most.
        let slack = 200 * parts.len();
        let share = of_count(slack as u64) / of_count(n);
        let bound = range * share + 3000.0;
        prop_assert!((roundtrip.mean - mean).abs() < bound, "{} for {mean} ({bound})", roundtrip.mean);
        let (middle, slack) = (truth.len() / 2, slack + truth.len() / 50);
        let low = truth[middle.saturating_sub(slack)];
        let high = truth[(middle + slack).min(truth.len() - 1)];
        prop_assert!(roundtrip.median >= low - low / 500 && roundtrip.median <= high + high / 500);
        let (_, stretches) = delays.spread().stretches();
        prop_assert_eq!(stretches.iter().map(|s| s.samples).sum::<u64>(), stamped);
    }
}

#[test]
fn samples_lie_over_the_session_as_they_came_though_our_clock_was_set_back() {
    let mut delays = Delays::new(1, false);
    for n in 0..40_u64 {
        let at = i64::try_from(n).unwrap() * 100_000_000;
        // Five seconds back in the middle.
        let t1_ns = if n < 20 { at } else { at - 5_000_000_000 };
        delays.record(&[Sample {
            t1_ns,
            t1_stamp_ns: Some(t1_ns),
            t2_ns: at + 5,
            t3_ns: at + 6,
            t4_ns: t1_ns + 1000,
            ..sample(n, 0, None, 0)
        }]);
    }
    let (length, stretches) = delays.spread().stretches();
    let replies = stretches.iter().map(|stretch| stretch.replies);
    assert_eq!(replies.clone().sum::<u64>(), 40);
    // None has more than come in its time, but for the one that came at the step: how long before it
    // is not known.
    assert!(
        replies.max().unwrap() <= length / 100_000_000 + 2,
        "{stretches:?}"
    );
}

#[test]
fn jitter_of_a_thinned_stream_is_of_its_pairs() {
    let mut delays = Delays::new(1, false);
    let (mut samples, _) = changing_session(&[(4096, 4, 100, false)], 1);
    // A slow change: between the two of a pair it is small.
    for (sample, n) in samples.iter_mut().zip(0_i32..) {
        let slow = 10 * i64::from(n);
        sample.t2_ns = sample.t1_ns + 5_000_000 + slow;
        sample.t3_ns = sample.t2_ns + 1;
        sample.t4_ns = sample.t3_ns + 40_000;
    }
    delays.record(&samples);
    let got = delays.report();
    let outbound = got.outbound.unwrap();
    assert!(near(outbound.jitter.unwrap().round(), 10.0), "{outbound:?}");
    assert_eq!(outbound.ipdv.unwrap().max, 10);
}

/// Packets without variation that are all stamped, and then ten times as many with variation, of which
/// two in sixteen are: what the figures are of is told by the packets, not by the stamps.
#[test]
fn differences_of_a_thinned_stream_stand_for_those_of_the_whole() {
    let mut delays = Delays::new(1, false);
    let calm = 1600;
    for seq in 0..11 * calm {
        let t1_ns = i64::try_from(seq).unwrap() * 10_000;
        let delay = if seq >= calm && seq % 2 == 1 { 1000 } else { 0 };
        let stamped = seq < calm || seq % 16 < 2;
        delays.record(&[Sample {
            t1_ns,
            t1_stamp_ns: stamped.then_some(t1_ns),
            t2_ns: t1_ns + 5000,
            t3_ns: t1_ns + 5001,
            t4_ns: t1_ns + 6000 + delay,
            ..sample(seq, 0, None, 0)
        }]);
    }
    let got = delays.report();
    let mean = |delay: Option<report::Delay>| delay.unwrap().ipdv.unwrap().mean_abs;
    let (roundtrip, inbound) = (mean(got.roundtrip), mean(got.inbound));
    // The last replies stand for nothing yet.
    assert!((roundtrip - inbound).abs() < 10.0, "{roundtrip} {inbound}");
}

#[test]
fn packets_of_one_train_have_no_jitter_and_no_difference() {
    let train = |seq, count, delay: i64| Sample {
        t4_ns: 2_000_000 + delay,
        count,
        ..sample(seq, 1_000_000, Some(1_000_001), 0)
    };
    let mut delays = Delays::new(1, false);
    delays.record(&[train(0, 4, 0), train(4, 4, 70), train(16, 4, 0)]);
    // The rest of the last one comes later.
    delays.record(&[train(20, 4, 0)]);
    let got = delays.report().roundtrip.unwrap();
    assert_eq!((got.samples, got.jitter), (16, None));
    let ipdv = got.ipdv.unwrap();
    assert_eq!(
        (ipdv.min, ipdv.max, delays.roundtrip.pairs.count),
        (70, 70, 1)
    );
    assert!(near(ipdv.mean_abs, 70.0));
}

#[test]
fn a_sample_stands_for_what_came_near_it_but_not_for_everything() {
    const SECOND: i64 = 1_000_000_000;
    let sample = Measured {
        packets: Packets::of(0, 1),
        class: 0,
        roundtrip: 0,
        outbound: 0,
    };
    let weigh = |weigher: &mut Weigher, at| {
        let (before, now) = weigher.weigh(sample, at);
        let before = before.map(|m| (m.packets.count, m.packets.weight));
        (before, now.packets.weight, now.packets.apart)
    };
    let mut weigher = Weigher::default();
    weigher.pass(13, 0);
    assert_eq!(
        weigh(&mut weigher, 5),
        (None, 14, true),
        "nothing is before"
    );
    assert_eq!(weigh(&mut weigher, 6), (None, 1, false));
    weigher.pass(1, 7);
    assert_eq!(weigh(&mut weigher, 8), (None, 2, true));
    weigher.pass(13, 9);
    assert_eq!(weigh(&mut weigher, 10), (Some((0, 6)), 8, true));
    // Ten seconds without any: most of these replies are represented by nothing.
    weigher.pass(500, SECOND);
    weigher.pass(500, 10 * SECOND);
    assert_eq!(
        weigh(&mut weigher, 11 * SECOND),
        (Some((0, 100)), 101, true)
    );
}

/// A queue that empties: each delay is smaller than the one before, by much between two samples.
#[test]
fn a_slope_has_its_mean() {
    let mut delays = Delays::new(1, false);
    let n = 16 * 500_i64 + 2;
    let samples = (0..n).map(|seq| {
        let t1_ns = seq * 10_000;
        let delay = 1_000_000 + (n - seq) * 9_000;
        Sample {
            t1_ns,
            t1_stamp_ns: (seq % 16 < 2).then_some(t1_ns),
            t2_ns: t1_ns + 5,
            t3_ns: t1_ns + 6,
            t4_ns: t1_ns + delay,
            ..sample(u64::try_from(seq).unwrap(), 0, None, 0)
        }
    });
    delays.record(&samples.collect::<Vec<_>>());
    let got = delays.report();
    let (roundtrip, inbound) = (got.roundtrip.unwrap(), got.inbound.unwrap());
    // Of the step between two neighbours; weighed by what is before alone it would be eight of them.
    assert!(
        (roundtrip.mean - inbound.mean).abs() < 9_000.0,
        "{} {}",
        roundtrip.mean,
        inbound.mean
    );
    assert_eq!(i64::try_from(roundtrip.packets).unwrap(), n);
}

/// A session of so many packets in ten seconds, over a path with a queue now and then, whose reflector's
/// clock is ahead by what `ahead` makes of the time since its begin.
fn between_clocks(packets: i64, ahead: impl Fn(i64) -> i64) -> Delays {
    let mut random = Pcg64Mcg::seed_from_u64(7);
    let mut queue = || i64::from(random.next_u32() % 100).pow(3);
    let mut delays = Delays::new(1, false);
    for n in 0..packets {
        let now = n * (10_000_000_000 / packets);
        let t1_ns = 1_000_000_000_000 + now;
        let t2_ns = t1_ns + 50_000 + queue();
        let t4_ns = t2_ns + 1000 + 50_000 + queue();
        delays.record(&[Sample {
            seq: u64::try_from(n).unwrap(),
            t1_ns,
            t1_stamp_ns: None,
            t2_ns: t2_ns + ahead(now),
            t3_ns: t2_ns + 1000 + ahead(now),
            t4_ns,
            size_class: 0,
            count: 1,
        }]);
    }
    delays
}

#[test]
fn one_way_delays_are_of_the_longest_stretch_between_steps() {
    const SECOND: i64 = 1_000_000_000;
    for packets in [1000, 3000, 100_000] {
        let steady = between_clocks(packets, |_| 7 * SECOND).report();
        let steps = |now| match now {
            0..2_000_000_000 => 0,
            2_000_000_000..9_000_000_000 => 7 * SECOND,
            _ => 8 * SECOND,
        };
        let delays = between_clocks(packets, steps);
        assert_eq!(delays.course().steps.len(), 2);
        let told = delays.report();
        let (outbound, inbound) = (told.outbound.unwrap(), told.inbound.unwrap());
        let all = (steady.outbound.unwrap(), steady.inbound.unwrap());
        for (delay, all) in [(&outbound, &all.0), (&inbound, &all.1)] {
            let packets = packets.unsigned_abs();
            assert!(
                (packets * 65 / 100..=packets * 72 / 100).contains(&delay.packets),
                "{delay:?}"
            );
            assert!(delay.min >= all.min && delay.max <= all.max, "{delay:?}");
            assert!(delay.min - all.min < 1000 && all.max - delay.max < 100_000);
            assert!(
                (delay.mean - all.mean).abs() < 30_000.0,
                "{delay:?} {all:?}"
            );
            let p90 = delay.p90.unwrap().abs_diff(all.p90.unwrap());
            assert!(p90 < 80_000, "{delay:?} {all:?}");
            // Neighbours are known as long as all delays are kept.
            assert_eq!(delay.ipdv.is_some(), packets < 5000);
            assert_eq!(delay.jitter.is_some(), packets < 5000);
        }
        assert_eq!(told.roundtrip, steady.roundtrip);
        let offset = delays.offset_estimate_ns().unwrap();
        assert!((offset - 7 * SECOND).abs() < 10_000, "{offset}");
        let cells = delays.histograms().outbound.cells;
        assert_eq!(
            cells.iter().map(|cell| cell.count).sum::<u64>(),
            outbound.samples
        );
    }
}

/// Several flows, one of which has the largest delays: they are in the figures of all.
#[test]
fn extremes_of_a_stretch_are_of_all_flows() {
    const SECOND: i64 = 1_000_000_000;
    let steps = |now| if now < 2 * SECOND { 0 } else { 7 * SECOND };
    let quiet = between_clocks(100_000, steps);
    let (most, least) = (50_000_000, 1_500_000);
    let mut queued = quiet.alike();
    for n in 0..20_i64 {
        let t1_ns = 1006 * SECOND + n * 1_000_000;
        let delay = if n == 9 { most } else { least };
        queued.record(&[Sample {
            seq: n.unsigned_abs(),
            t1_ns,
            t1_stamp_ns: None,
            t2_ns: t1_ns + delay + 7 * SECOND,
            t3_ns: t1_ns + delay + 7 * SECOND + 1000,
            t4_ns: t1_ns + 2 * delay + 1000,
            size_class: 0,
            count: 1,
        }]);
    }
    for (mut all, other) in [(quiet.clone(), &queued), (queued.clone(), &quiet)] {
        all.merge(other);
        let told = all.report();
        assert_eq!(told.outbound.unwrap().max, 7 * SECOND + most);
        assert_eq!(told.inbound.unwrap().max, most - 7 * SECOND);
    }
}

#[test]
fn drift_that_shows_is_not_in_the_variation() {
    for packets in [1000, 100_000] {
        let steady = between_clocks(packets, |_| 0).report();
        let drifting = between_clocks(packets, |now| now / 2000);
        assert!(drifting.drift_taken_out());
        let told = drifting.report();
        let pairs = [
            (told.outbound, steady.outbound),
            (told.inbound, steady.inbound),
        ];
        for (told, steady) in pairs {
            let (told, steady) = (told.unwrap(), steady.unwrap());
            // Without it 5 ms are in them.
            assert!(
                told.pdv.max.abs_diff(steady.pdv.max) < 20_000,
                "{told:?} {steady:?}"
            );
            let p99 = told.pdv.p99.unwrap().abs_diff(steady.pdv.p99.unwrap());
            assert!(p99 < 30_000, "{told:?} {steady:?}");
            assert!((told.stddev.unwrap() - steady.stddev.unwrap()).abs() < 20_000.0);
            let ipdv = told.ipdv.unwrap().mean_abs / steady.ipdv.unwrap().mean_abs;
            assert!((0.97..1.03).contains(&ipdv), "{ipdv}");
        }
    }
}

#[test]
fn on_one_host_one_clock_neither_drifts_nor_is_set() {
    let mut delays = between_clocks(100_000, |now| now / 250_000);
    let course = delays.course();
    assert!(course.drift.unwrap().is_certain());
    delays.know_one_host();
    assert_eq!(delays.course(), Course::default());
    // A negative delay shows two clocks.
    let mut delays = between_clocks(1000, |now| now / 1_000);
    delays.know_one_host();
    assert!(!delays.one_clock() && delays.course().drift.is_some());
}

/// Values of every magnitude up to about the bounds, on any offset.
fn values() -> impl Strategy<Value = Vec<i64>> {
    let value = (22_u32..63, any::<i64>()).prop_map(|(shift, bits)| bits >> shift);
    let offset = prop_oneof![Just(0), -40 * YEAR_NS..40 * YEAR_NS];
    (prop::collection::vec(value, 1..2600), offset)
        .prop_map(|(values, offset)| values.iter().map(|v| v + offset).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn percentiles_are_those_of_the_sorted_values(values in values(), zero: bool) {
        let (distribution, base) = if zero {
            (Distribution::from_zero(), 0)
        } else {
            let early = &values[..values.len().min(EARLY)];
            (Distribution::with_unknown_offset(), *early.iter().min().unwrap())
        };
        let got = filled(distribution, &values);
        let mut sorted = values.clone();
        sorted.sort_unstable();
        let n = sorted.len() as u64;
        prop_assert_eq!(got.samples, n);
        prop_assert_eq!((got.min, got.max), (sorted[0], *sorted.last().unwrap()));
        let mut previous = got.min;
        for (part, value) in [
            (MEDIAN, Some(got.median)),
            (P90, got.p90),
            (P95, got.p95),
            (P99, got.p99),
            (P99_9, got.p99_9),
        ] {
            let rank = (n * part).div_ceil(WHOLE);
            let Some(value) = value else {
                prop_assert!(n - rank < BEYOND);
                continue;
            };
            let exact = sorted[usize::try_from(rank).unwrap() - 1];
            let distance = exact.abs_diff(base);
            if distance <= BOUND_NS {
                // Never below the definition, and above it by 0.1 % of the distance at most.
                prop_assert!(value >= exact, "{value} for {exact}");
                prop_assert!(value.abs_diff(exact) <= distance / 1000, "{value} for {exact}");
            }
            prop_assert!(value >= previous);
            previous = value;
        }
        prop_assert!(i128::from(got.pdv.median) == i128::from(got.median) - i128::from(got.min));
    }

    #[test]
    fn cells_hold_every_sample_and_tell_the_percentiles(values in values()) {
        let mut distribution = Distribution::with_unknown_offset();
        for (seq, &value) in (0..).zip(&values) {
            distribution.record(seq, value);
        }
        let report = distribution.report().unwrap();
        let histogram = distribution.histogram();
        let n = values.len() as u64;
        prop_assert_eq!(histogram.samples(), n);
        let bins: u64 = report.bins.iter().map(|bin| bin.count).sum();
        prop_assert_eq!(bins, n);
        for pair in histogram.cells.windows(2) {
            prop_assert!(pair[0].highest < pair[1].lowest);
        }
        for cell in &histogram.cells {
            prop_assert!(report.min <= cell.lowest && cell.lowest <= cell.highest);
            prop_assert!(cell.highest <= report.max && cell.count > 0);
            let inside = values.iter().filter(|v| (cell.lowest..=cell.highest).contains(v));
            prop_assert_eq!(inside.count() as u64, cell.count);
        }
        let mut upto = histogram.outside.below;
        let rank = n.div_ceil(2);
        let at_median = histogram.cells.iter().find(|cell| {
            upto += cell.count;
            upto >= rank
        });
        if histogram.outside.below < rank {
            let median = at_median.map_or(report.max, |cell| cell.highest);
            prop_assert_eq!(median, report.median);
        }
    }

    #[test]
    fn any_timestamps_are_recorded_or_rejected(
        stamps in prop::collection::vec((any::<[i64; 4]>(), any::<Option<i64>>()), 1..50)
    ) {
        let mut delays = Delays::new(3, false);
        let samples: Vec<Sample> = (0..)
            .zip(&stamps)
            .map(|(seq, &([t1_ns, t2_ns, t3_ns, t4_ns], t1_stamp_ns))| Sample {
                seq, t1_ns, t1_stamp_ns, t2_ns, t3_ns, t4_ns, size_class: 200, count: 1,
            })
            .collect();
        delays.record(&samples);
        prop_assert_eq!(delays.recorded() + delays.rejected(), samples.len() as u64);
        let _ = delays.report();
    }

    #[test]
    fn a_sample_of_several_packets_is_as_many_samples(
        trains in prop::collection::vec(
            (0..4_u64, 0..20_u16, prop::array::uniform4(-20..1000_i64), any::<Option<u8>>(), 0..3_u8),
            1..60,
        ),
    ) {
        let (mut together, mut each) = (Delays::new(2, false), Delays::new(2, false));
        let mut seq = 0;
        for (gap, count, [t1_ns, t2_ns, t3_ns, t4_ns], stamp, size_class) in trains {
            seq += gap;
            let t1_stamp_ns = stamp.map(i64::from);
            let train = Sample { seq, t1_ns, t1_stamp_ns, t2_ns, t3_ns, t4_ns, size_class, count };
            together.record(&[train]);
            for _ in 0..count {
                each.record(&[Sample { seq, count: 1, ..train }]);
                seq += 1;
            }
        }
        let figures = |all: &Delays| {
            let mut report = all.report();
            let all_four = [
                &mut report.roundtrip,
                &mut report.outbound,
                &mut report.inbound,
                &mut report.reflector,
            ];
            let floats: Vec<_> = all_four
                .into_iter()
                .flatten()
                .flat_map(|delay| [delay.jitter.take(), delay.stddev.take()])
                .map(|figure| figure.unwrap_or(0.0))
                .collect();
            let counts = (all.recorded(), all.rejected(), all.offset_estimate_ns());
            ((report, all.histograms(), counts), floats)
        };
        let ((got, got_floats), (expected, expected_floats)) = (figures(&together), figures(&each));
        prop_assert_eq!(got, expected);
        for (got, expected) in got_floats.into_iter().zip(expected_floats) {
            prop_assert!(near(got, expected), "{got} for {expected}");
        }
    }
}
