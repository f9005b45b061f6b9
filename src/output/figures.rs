//! How a figure is written, and how text is broken into lines: one way for all that a person reads.
//!
//! What was not measured is `-`, never 0; what is not zero never reads as zero (`<0.1%`, `430ns`), and
//! what is not everything never as 100 %.

use crate::report::FailedCall;
use crate::report::unsent::{Unsent, UnsentBy};

/// A duration in nanoseconds in twampy's form, right-aligned in ten columns: `     147us`.
///
/// As there, by absolute value: above one minute `min`, above 10 s and 1 s `sec`, above 1 ms `ms`,
/// else microseconds, of which the fraction is cut off. Unlike there, negative values follow the
/// same rule, what lies below 1 us is shown in `ns`, and what does not fit in minutes in `day`.
#[must_use]
pub fn dp(ns: f64) -> String {
    let size = ns.abs();
    if !ns.is_finite() {
        format!("{:>10}", "-")
    } else if size > MINUTE_NS {
        let forms = [
            format!("{:7.1}min", ns / MINUTE_NS),
            format!("{:7.1}day", ns / DAY_NS),
        ];
        let fitting = forms.into_iter().find(|text| text.len() <= 10);
        fitting.unwrap_or_else(|| format!("{:7.0}day", ns / DAY_NS))
    } else if size > 10.0 * SECOND_NS {
        format!("{:7.1}sec", ns / SECOND_NS)
    } else if size > SECOND_NS {
        format!("{:7.2}sec", ns / SECOND_NS)
    } else if size > 1e6 {
        format!("{:8.2}ms", ns / 1e6)
    } else if size >= 1e3 {
        format!("{:8.0}us", (ns / 1e3).trunc())
    } else if size >= 1.0 {
        format!("{:8.0}ns", ns.trunc())
    } else if size >= 0.1 {
        format!("{ns:8.1}ns")
    } else if size > 0.0 {
        format!("{:>10}", if ns > 0.0 { "<0.1ns" } else { ">-0.1ns" })
    } else {
        format!("{:>10}", "0us")
    }
}

/// A duration in nanoseconds as in the table, without the padding: `1.05ms`.
#[must_use]
pub fn delay(ns: f64) -> String {
    dp(ns).trim_start().to_owned()
}

/// A count with thousands separators: `1,000,000`.
#[must_use]
pub fn count(n: u64) -> String {
    group(&n.to_string())
}

/// A rate in packets a second: `100,000/s`, below 1000 with at most three decimals: `0.5/s`.
#[must_use]
pub fn rate(pps: f64) -> String {
    let exact = format!("{pps:.3}");
    let whole = exact.split('.').next().unwrap_or_default();
    if !pps.is_finite() {
        "-".to_owned()
    } else if whole.len() > 3 {
        group(&format!("{pps:.0}")) + "/s"
    } else if pps > 0.0 && exact == "0.000" {
        "<0.001/s".to_owned()
    } else {
        format!("{}/s", exact.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// `text` broken at blanks into lines of at most 79 columns, all but the first indented by
/// `indent`; no line break at the end. A word that is longer than a line stays whole.
#[must_use]
pub fn wrap(text: &str, indent: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    flow("", indent, &words, " ")
}

/// A DSCP with its name, where it has one and that is not the usual: `34 (af41)`, `0`.
pub(crate) fn dscp(value: u8) -> String {
    let name = class_name(value).filter(|_| value != 0);
    name.map_or(value.to_string(), |name| format!("{value} ({name})"))
}

/// A DSCP by its name, as it can be typed: `af41`, `cp7`.
pub(super) fn class(value: u8) -> String {
    class_name(value).unwrap_or_else(|| format!("cp{value}"))
}

fn class_name(value: u8) -> Option<String> {
    Some(match value {
        0 => "be".to_owned(),
        1 => "le".to_owned(),
        44 => "va".to_owned(),
        46 => "ef".to_owned(),
        _ if value.is_multiple_of(8) => format!("cs{}", value / 8),
        // Class 1 to 4, drop precedence 1 to 3 (RFC 2597 §6).
        10..=38 if value.is_multiple_of(2) => format!("af{}{}", value / 8, value % 8 / 2),
        _ => return None,
    })
}

pub(super) fn cell(ns: Option<f64>) -> String {
    dp(ns.unwrap_or(f64::NAN))
}

/// The loss column, six columns wide.
pub(super) fn loss(lost: Option<u64>, sent: Option<u64>) -> String {
    let percent = lost
        .zip(sent)
        .and_then(|(lost, sent)| percent(lost, sent, 1));
    format!(
        "{:>6}",
        percent.map_or("-".to_owned(), |percent| percent + "%")
    )
}

/// `part` of `whole` in percent; `None` of nothing. Neither a part that is not 0 nor a rest that is
/// not 0 is rounded away.
pub(super) fn percent(part: u64, whole: u64, decimals: usize) -> Option<String> {
    if whole == 0 {
        return None;
    }
    let text = |percent: f64| format!("{percent:.decimals$}");
    let rounded = text(magnitude(part) / magnitude(whole) * 100.0);
    let unit = (0..decimals).fold(1.0, |unit, _| unit / 10.0);
    Some(if part > 0 && rounded == text(0.0) {
        format!("<{}", text(unit))
    } else if part < whole && rounded == text(100.0) {
        format!(">{}", text(100.0 - unit))
    } else {
        rounded
    })
}

pub(super) fn known(n: Option<u64>) -> String {
    n.map_or("-".to_owned(), count)
}

/// A line for each call for many packets that was refused.
pub(super) fn refused_calls(calls: &[FailedCall]) -> String {
    let line =
        |call| format!("refused by this system: {call}; each packet took a call of its own\n");
    calls.iter().map(line).collect()
}

/// Why replies could not be sent.
pub(super) fn not_sent(unsent: &Unsent) -> String {
    let line = |by: UnsentBy| {
        let replies = if by.count == 1 { "reply" } else { "replies" };
        format!("not sent: {} {replies}: {by}\n", count(by.count))
    };
    unsent.each().map(line).collect()
}

/// Datagrams that sockets dropped, each bundle counted as one.
pub(super) fn dropped(drops: Option<u64>, bundles: bool) -> String {
    match drops {
        None => "not told".to_owned(),
        Some(drops) if drops > 0 && bundles => format!("{} or more", count(drops)),
        Some(drops) => count(drops),
    }
}

/// A bit rate: `8,560.00 Mbit/s`.
#[must_use]
pub fn megabits(bps: f64) -> String {
    let megabits = bps / 1e6;
    let decimals = match megabits {
        m if m < 0.1 => 6,
        m if m < 10.0 => 3,
        _ => 2,
    };
    group(&format!("{megabits:.decimals$}")) + " Mbit/s"
}

pub(super) fn seconds(seconds: f64) -> String {
    match group(&format!("{seconds:.3}")) {
        text if text == "0.000" && seconds > 0.0 => "<0.001 s".to_owned(),
        text => text + " s",
    }
}

/// Thousands separators into the digits before the decimal point.
pub(super) fn group(number: &str) -> String {
    let point = number.find('.').unwrap_or(number.len());
    let mut text = String::new();
    for (at, digit) in number.chars().enumerate() {
        let left = point.saturating_sub(at);
        if at > 0 && left > 0 && left % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Signed nanoseconds for [`dp`], whose few digits need no more than the 53 bits that are left.
pub(super) fn ns(ns: i64) -> f64 {
    ns as f64
}

/// As [`ns`], for counts and what is never negative.
pub(super) fn magnitude(n: u64) -> f64 {
    n as f64
}

/// `first`, then `pieces` with `gap` between, in lines of at most [`WIDTH`]; a piece that is longer
/// than a line is broken at its blanks.
pub(super) fn flow(first: &str, indent: usize, pieces: &[&str], gap: &str) -> String {
    let mut text = first.to_owned();
    let mut column = first.chars().count();
    let mut gap_before = "";
    for piece in pieces {
        let parts: Vec<&str> = if indent + piece.chars().count() > WIDTH {
            piece.split_whitespace().collect()
        } else {
            vec![piece]
        };
        for part in parts {
            let length = part.chars().count();
            if !gap_before.is_empty() && column + gap_before.len() + length > WIDTH {
                text += "\n";
                text += &" ".repeat(indent);
                column = indent;
            } else {
                text += gap_before;
                column += gap_before.len();
            }
            text += part;
            column += length;
            gap_before = " ";
        }
        gap_before = gap;
    }
    text
}

/// Columns of a line.
pub(super) const WIDTH: usize = 79;
pub(super) const SECOND_NS: f64 = 1e9;
pub(super) const MINUTE_NS: f64 = 60e9;
pub(super) const DAY_NS: f64 = 86_400e9;
