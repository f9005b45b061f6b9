//! A distribution for the terminal: HdrHistogram's percentile ladder, and a bar for each of a few
//! ranges of delay. Plain ASCII, at most 79 columns.

use super::figures::{WIDTH, count, wrap};
use super::text::one_way_doubt;
use crate::report::{Cell, Delay, Histogram, Report};

/// Ladder and bars of round trip, outbound and inbound delay, each line with its line break.
#[must_use]
pub fn show(report: &Report) -> String {
    let (delays, cells) = (&report.delay_ns, &report.histograms);
    let doubt = one_way_doubt(report).map_or("", |_| ", with the offset of the two clocks");
    let parts = [
        ("Roundtrip", "", &delays.roundtrip, &cells.roundtrip),
        ("Outbound", doubt, &delays.outbound, &cells.outbound),
        ("Inbound", doubt, &delays.inbound, &cells.inbound),
    ];
    let parts = parts.map(|(name, doubt, delay, cells)| match delay {
        None => format!("{name} histogram: no samples\n"),
        Some(delay) if delay.samples < 2 * BEYOND => format!(
            "{name} histogram: {} are too few samples, {} are the least\n",
            delay.samples,
            2 * BEYOND
        ),
        Some(delay) => {
            let title = format!("{name} histogram: {} samples", count(delay.samples));
            let mut lines = vec![title + doubt, "=".repeat(WIDTH)];
            lines.extend(ladder(delay, cells));
            lines.push("-".repeat(WIDTH));
            lines.extend(bars(delay, cells));
            lines.push("=".repeat(WIDTH));
            lines.join("\n") + "\n"
        }
    });
    parts.join("\n")
}

/// Half as many samples beyond each step as beyond the last, as long as ten are.
fn ladder(delay: &Delay, histogram: &Histogram) -> Vec<String> {
    let n = delay.samples;
    let line = |value: &str, percentile: &str, total: &str, inverse: &str| {
        format!("{value:>24}{percentile:>16}{total:>20}{inverse:>19}")
    };
    let mut lines = vec![line(
        "Value (us)",
        "Percentile",
        "TotalCount",
        "1/(1-Percentile)",
    )];
    lines.push("-".repeat(WIDTH));
    for step in 0..u64::BITS {
        let beyond = n >> step;
        if step > 0 && beyond < BEYOND {
            break;
        }
        let inverse = 2.0_f64.powf(f64::from(step));
        // At least one sample is at or below the lowest step.
        let (value, total) = upto(delay, histogram, (n - beyond).max(1));
        lines.push(line(
            &microseconds(value, 3),
            &format!("{:.8}", 100.0 - 100.0 / inverse),
            &count(total),
            &format!("{inverse:.2}"),
        ));
    }
    let most = microseconds(delay.max, 3);
    lines.push(line(&most, "100.00000000", &count(n), "-"));
    lines.push(wrap(
        "Value: this many samples (TotalCount) are at or below it. The ladder ends where fewer than \
         ten samples lie beyond.",
        2,
    ));
    lines
}

/// The value at a rank, and how many samples are at or below it.
fn upto(delay: &Delay, histogram: &Histogram, rank: u64) -> (i64, u64) {
    let mut total = histogram.outside.below;
    if rank <= total {
        return (delay.min, total);
    }
    for cell in &histogram.cells {
        total += cell.count;
        if rank <= total {
            return (cell.highest, total);
        }
    }
    (delay.max, delay.samples)
}

/// Equal ranges from the minimum to the 99th percentile, or where ten samples lie beyond, and one
/// for the rest.
fn bars(delay: &Delay, histogram: &Histogram) -> Vec<String> {
    let n = delay.samples;
    let most = (n / 100).max(BEYOND);
    let (high, _) = upto(delay, histogram, n - most);
    let low = histogram.cells.first().map_or(delay.min, |c| c.lowest);
    let shown = histogram.cells.iter().filter(|cell| cell.highest <= high);
    let widest = shown.map(|cell| cell.highest.abs_diff(cell.lowest)).max();
    // Ranges much wider than a cell, which belongs to one of them as a whole.
    let least = widest.unwrap_or(0).saturating_mul(4);
    let step = round_step((high.abs_diff(low) / ROWS).max(least));
    let start = i128::from(low).div_euclid(step) * step;
    let rows = usize::try_from((i128::from(high) - start) / step + 1).unwrap_or(1);
    let mut counts = vec![0; rows];
    let mut beyond = histogram.outside.above;
    for cell in &histogram.cells {
        let row = usize::try_from((middle(cell) - start) / step).unwrap_or(0);
        match counts.get_mut(row) {
            Some(count) => *count += cell.count,
            None => beyond += cell.count,
        }
    }
    let decimals = if step % 1000 == 0 { 0 } else { 3 };
    let largest = counts.iter().copied().max().unwrap_or(0).max(beyond);
    let line = |from: &str, samples: u64| {
        let bar = bar(samples, largest);
        format!("{from:>24}{:>16}  {bar}", count(samples))
            .trim_end()
            .to_owned()
    };
    let mut lines = vec![format!("{:>24}{:>16}", "From (us)", "Count")];
    if histogram.outside.below > 0 {
        lines.push(line("below", histogram.outside.below));
    }
    let mut from = start;
    for samples in counts {
        lines.push(line(&microseconds_of(from, decimals), samples));
        from += step;
    }
    if beyond > 0 {
        lines.push(line(&microseconds_of(from, decimals), beyond));
        lines.push(format!(
            "The last row has no upper bound: the largest is {} us.",
            microseconds(delay.max, 3)
        ));
    }
    lines
}

fn middle(cell: &Cell) -> i128 {
    (i128::from(cell.lowest) + i128::from(cell.highest)).div_euclid(2)
}

/// The next of 1, 2, 5, 10, 20 .. ns that is not less.
fn round_step(ns: u64) -> i128 {
    let mut decade = 1;
    loop {
        for step in [decade, 2 * decade, 5 * decade] {
            if step >= i128::from(ns) {
                return step;
            }
        }
        decade *= 10;
    }
}

/// `#` in proportion; a dot for what is there and less than half of one.
fn bar(samples: u64, largest: u64) -> String {
    let whole = u128::from(largest.max(1));
    let length = (u128::from(samples) * u128::from(BAR) * 2 / whole).div_ceil(2);
    let half = u128::from(samples) * u128::from(BAR) * 2 < whole;
    match usize::try_from(length) {
        _ if samples == 0 => String::new(),
        _ if half => ".".to_owned(),
        Ok(length) => "#".repeat(length),
        Err(_) => String::new(),
    }
}

fn microseconds(ns: i64, decimals: usize) -> String {
    microseconds_of(ns.into(), decimals)
}

/// Nanoseconds in microseconds, exactly.
fn microseconds_of(ns: i128, decimals: usize) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let (whole, rest) = (ns.unsigned_abs() / 1000, ns.unsigned_abs() % 1000);
    match decimals {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{rest:03}"),
    }
}

/// Samples that must lie beyond a step of the ladder.
const BEYOND: u64 = 10;
/// Ranges between the minimum and the 99th percentile, about.
const ROWS: u64 = 16;
/// Columns of the longest bar.
const BAR: u32 = 36;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::tests::full;
    use crate::report::{DelaySet, Histograms, OutOfRange};

    /// A report whose round trip delays are these.
    fn of(values: &[i64]) -> Report {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let mut report = full();
        let mut delay = report.delay_ns.roundtrip.take().unwrap();
        delay.samples = sorted.len() as u64;
        (delay.min, delay.max) = (sorted[0], *sorted.last().unwrap());
        report.delay_ns = DelaySet {
            roundtrip: Some(delay),
            ..DelaySet::default()
        };
        let cells = sorted.chunk_by(|a, b| a == b).map(|equal| Cell {
            lowest: equal[0],
            highest: equal[0],
            count: equal.len() as u64,
        });
        report.histograms = Histograms {
            roundtrip: Histogram {
                cells: cells.collect(),
                outside: OutOfRange::default(),
            },
            ..Histograms::default()
        };
        report
    }

    #[test]
    fn ladder_and_bars_are_these() {
        let values: Vec<i64> = (1..=100).map(|n| n * 1000).chain([1_000_000]).collect();
        let text = show(&of(&values));
        assert_eq!(text, include_str!("histogram.txt"), "\n{text}");
    }

    #[test]
    fn too_few_samples_are_said_to_be_too_few() {
        let text = show(&of(&[5; 19]));
        assert!(text.contains("Roundtrip histogram: 19 are too few samples"));
        assert!(text.contains("Outbound histogram: no samples"));
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(show(&of(&[5; 20])).contains("50.00000000"));
    }

    #[test]
    fn what_lies_outside_the_cells_is_counted() {
        let mut report = of(&[1000; 100]);
        let delay = report.delay_ns.roundtrip.as_mut().unwrap();
        (delay.samples, delay.min, delay.max) = (180, i64::MIN, i64::MAX);
        report.histograms.roundtrip.outside = OutOfRange {
            below: 60,
            above: 20,
        };
        let text = show(&report);
        for part in ["-9223372036854775.808", "9223372036854775.807", "below"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    proptest! {
        #[test]
        fn any_distribution_fits_the_page_and_adds_up(
            values in prop::collection::vec((0_u32..63, any::<i64>()), 20..300)
        ) {
            let values: Vec<i64> = values.iter().map(|(shift, bits)| bits >> shift).collect();
            let report = of(&values);
            let text = show(&report);
            for line in text.lines() {
                prop_assert!(line.len() <= WIDTH && line.is_ascii(), "{}", line);
            }
            prop_assert!(text.lines().count() < 80, "{}", text);
            let bars = text.lines().skip_while(|line| !line.contains("From (us)")).skip(1);
            let counts = bars.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            prop_assert_eq!(counts.sum::<u64>(), values.len() as u64, "{}", text);
        }
    }
}
