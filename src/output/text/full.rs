//! The long form: every figure of every direction, and the counts by bin.

use super::directions::{dash, directions, not_told, out_of_range, own_time};
use crate::output::figures::{WIDTH, cell, count, delay, magnitude, ns, wrap};
use crate::report::{Delay, Report};

/// Every figure, a row each, with the directions side by side; nothing where none was measured.
pub(super) fn figures(report: &Report) -> Vec<String> {
    let columns = Columns::of(report);
    if columns.none() {
        return Vec::new();
    }
    let mut lines = columns.heading("Figures");
    lines.push(columns.line("Samples", |d| Some(count(d.samples))));
    type Figure = fn(&Delay) -> Option<f64>;
    let rows: [(&str, Figure); 19] = [
        ("Min", |d| Some(ns(d.min))),
        ("P50 (median)", |d| Some(ns(d.median))),
        ("P90", |d| d.p90.map(ns)),
        ("P95", |d| d.p95.map(ns)),
        ("P99", |d| d.p99.map(ns)),
        ("P99.9", |d| d.p99_9.map(ns)),
        ("P99.99", |d| d.p99_99.map(ns)),
        ("P99.999", |d| d.p99_999.map(ns)),
        ("Max", |d| Some(ns(d.max))),
        ("Mean", |d| Some(d.mean)),
        ("StdDev", |d| d.stddev),
        ("Jitter", |d| d.jitter),
        ("IPDV min", |d| d.ipdv.map(|i| ns(i.min))),
        ("IPDV mean, abs.", |d| d.ipdv.map(|i| i.mean_abs)),
        ("IPDV P99, abs.", |d| {
            d.ipdv.and_then(|i| i.p99_abs).map(magnitude)
        }),
        ("IPDV max", |d| d.ipdv.map(|i| ns(i.max))),
        ("PDV P50", |d| Some(magnitude(d.pdv.median))),
        ("PDV P99", |d| d.pdv.p99.map(magnitude)),
        ("PDV max", |d| Some(magnitude(d.pdv.max))),
    ];
    lines.extend(rows.map(|(name, figure)| columns.line(name, |d| figure(d).map(in_row))));
    lines.push("-".repeat(WIDTH));
    let legend = "Jitter: smoothed (RFC 3550). IPDV: difference of consecutive packets (RFC 3393). \
                  PDV: delay above the smallest (RFC 5481).";
    let dash = dash(columns.0.iter().filter_map(|column| column.delay), true);
    lines.push(wrap(&format!("{} {legend} {dash}", own_time(report)), 2));
    lines.extend(out_of_range(report));
    lines
}

/// Exact counts of delays between fixed bounds; nothing where no delay was measured.
pub(super) fn bins(report: &Report) -> Vec<String> {
    let columns = Columns::of(report);
    let delays = columns.0.iter().filter_map(|column| column.delay);
    let all = delays.flat_map(|delay| &delay.bins);
    // A bin without lower bound is below all others, and `None` is less than any bound.
    let mut bounds: Vec<_> = all.map(|bin| (bin.from, bin.to)).collect();
    bounds.sort_unstable();
    bounds.dedup();
    if bounds.is_empty() {
        return Vec::new();
    }
    let mut lines = columns.heading("Delays");
    for (from, to) in bounds {
        let name = match (from, to) {
            (Some(from), Some(to)) => format!("{} to {}", bound(from), bound(to)),
            (None, Some(to)) => format!("below {}", bound(to)),
            (Some(from), None) => format!("{} and more", bound(from)),
            (None, None) => "any".to_owned(),
        };
        lines.push(columns.line(&name, |delay| {
            let bin = delay.bins.iter().find(|bin| bin.from == from);
            Some(count(bin.map_or(0, |bin| bin.count)))
        }));
    }
    lines.push("-".repeat(WIDTH));
    lines.push("Counts are exact; a bin holds its lower bound, not its upper one.".to_owned());
    lines
}

/// The time that a reply has.
pub(super) fn timeout(report: &Report) -> Option<String> {
    let timeout = delay(magnitude(report.packets.timeout_ns?));
    Some(format!(
        "Timeout    {timeout} a packet: a later reply is late, its packet counts as lost"
    ))
}

/// The directions, side by side.
struct Columns<'a>([Column<'a>; 4]);

struct Column<'a> {
    name: String,
    delay: Option<&'a Delay>,
    /// What stands where there is no delay.
    missing: &'static str,
}

impl<'a> Columns<'a> {
    fn of(report: &'a Report) -> Self {
        let told = directions(report).map(|(name, mark, delay)| Column {
            name: format!("{name}{}", if mark { "*" } else { "" }),
            delay,
            missing: "-",
        });
        let [outbound, inbound, roundtrip, mut reflector] = told;
        if not_told(report) {
            reflector.missing = "not told";
        }
        Self([outbound, inbound, roundtrip, reflector])
    }

    fn none(&self) -> bool {
        self.0.iter().all(|column| column.delay.is_none())
    }

    fn heading(&self, title: &str) -> Vec<String> {
        let names = self.0.each_ref().map(|column| column.name.clone());
        vec![row(title, &names), "-".repeat(WIDTH)]
    }

    fn line(&self, name: &str, figure: impl Fn(&Delay) -> Option<String>) -> String {
        let cells = self.0.each_ref().map(|column| {
            let text = column.delay.map(|d| figure(d).unwrap_or("-".to_owned()));
            text.unwrap_or_else(|| column.missing.to_owned())
        });
        row(&format!("  {name}"), &cells)
    }
}

fn row(name: &str, cells: &[String; 4]) -> String {
    let cells = cells.each_ref().map(|cell| {
        // Counts that would run into their neighbours, first without separators.
        let plain = cell.replace(',', "");
        match cell {
            _ if plain.len() > 14 => format!("{:>15}", "over 10^14"),
            _ if cell.len() > 14 => format!("{plain:>15}"),
            _ => format!("{cell:>15}"),
        }
    });
    format!("{name:19}{}", cells.concat())
}

fn in_row(ns: f64) -> String {
    cell(Some(ns)).trim_start().to_owned()
}

/// A bound of a bin in its largest whole unit: `500us`, `-1ms`, `10s`.
fn bound(ns: i64) -> String {
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1000, "us")];
    let unit = units.iter().find(|(size, _)| ns != 0 && ns % size == 0);
    match unit {
        Some((size, name)) => format!("{}{name}", ns / size),
        None if ns == 0 => "0".to_owned(),
        None => format!("{ns}ns"),
    }
}
