//! The delays by direction, as tables show them, and what is to be said of them.

use crate::output::figures::{cell, count, delay, magnitude, ns, wrap};
use crate::report::{Clock, Delay, Report, Whose};

/// A direction's name and its figures as far as the loss column.
pub(in crate::output) fn row(name: &str, mark: bool, delay: Option<&Delay>) -> String {
    let cells = [
        delay.map(|d| ns(d.min)),
        delay.map(|d| ns(d.max)),
        delay.map(|d| d.mean),
        delay.and_then(|d| d.jitter),
    ];
    label(name, mark) + &cells.map(cell).join("  ") + "    "
}

/// Why the one-way delays are not those of the path alone; `None` where they are, or none is shown.
pub(in crate::output) fn one_way_doubt(report: &Report) -> Option<String> {
    let clock = &report.timestamps.clock;
    let one_way = [&report.delay_ns.outbound, &report.delay_ns.inbound];
    let smallest = one_way.into_iter().flatten().map(|delay| delay.min).min()?;
    if clock.same_clock {
        return None;
    }
    if let Some(steps) = clock_steps(clock) {
        return Some(steps);
    }
    if !both_synchronised(clock) {
        return Some(
            "The clocks of the two ends are not known to agree: these delays contain their offset."
                .to_owned(),
        );
    }
    if smallest < 0 {
        return Some(format!(
            "The clocks of the two ends disagree by at least {}, although both call themselves \
             synchronised: these delays contain their offset.",
            delay(-ns(smallest))
        ));
    }
    let errors = clock.local_error_ns.zip(clock.remote_error_ns);
    let error = errors.map(|(local, remote)| local.saturating_add(remote))?;
    (error >= smallest.unsigned_abs()).then(|| {
        format!(
            "The clocks of the two ends may be {} apart by their own account: not less than the \
             smallest of these delays.",
            delay(magnitude(error))
        )
    })
}

/// Which clocks were set, and what the one-way delays are then of.
fn clock_steps(clock: &Clock) -> Option<String> {
    let (first, more) = clock.steps.split_first()?;
    let whose = match first.whose {
        Whose::Local => "This host's clock",
        Whose::Remote => "The reflector's clock",
    };
    let way = if first.by_ns < 0 { "back" } else { "forward" };
    let by = delay(magnitude(first.by_ns.unsigned_abs()));
    let more = match more {
        [] => String::new(),
        [_] => ", and one was set once more".to_owned(),
        more => format!(", and one was set {} more times", more.len()),
    };
    let stretch = match (&clock.one_way_from, &clock.one_way_until) {
        (None, None) => "these delays".to_owned(),
        (None, Some(until)) => format!("these delays are of the time until {}", second(until)),
        (Some(from), None) => format!("these delays are of the time from {} on", second(from)),
        (Some(from), Some(until)) => format!(
            "these delays are of the time from {} to {}",
            second(from),
            second(until)
        ),
    };
    Some(format!(
        "{whose} was set {way} by {by} at {}{more}: {stretch}, and contain the clocks' offset.",
        second(&first.at)
    ))
}

/// The time of day of a date as RFC 3339 writes it, to the millisecond.
fn second(at: &str) -> String {
    let time = at.split_once('T').map_or(at, |(_, time)| time);
    let time = time.trim_end_matches('Z');
    format!("{} UTC", time.get(..12).unwrap_or(time))
}

pub(super) fn both_synchronised(clock: &Clock) -> bool {
    clock.local_synchronised == Some(true) && clock.remote_synchronised == Some(true)
}

/// Each direction's name, whether it is marked, and its delays; last the reflector's own time.
pub(super) fn directions(report: &Report) -> [(&'static str, bool, Option<&Delay>); 4] {
    let set = &report.delay_ns;
    let doubt = one_way_doubt(report).is_some();
    let marked = |delay: &Option<Delay>| doubt && delay.is_some();
    [
        ("Outbound", marked(&set.outbound), set.outbound.as_ref()),
        ("Inbound", marked(&set.inbound), set.inbound.as_ref()),
        ("Roundtrip", false, set.roundtrip.as_ref()),
        ("Reflector", false, set.reflector.as_ref()),
    ]
}

/// Whether delays were measured, and the reflector kept its own time to itself.
pub(super) fn not_told(report: &Report) -> bool {
    report.delay_ns.inbound.is_some() && report.delay_ns.reflector.is_none()
}

/// What the figures of the reflector are.
pub(super) fn own_time(report: &Report) -> &'static str {
    if not_told(report) {
        "Reflector: its own time is not told (T2 = T3); it is part of Inbound and Roundtrip."
    } else {
        "Reflector: its own time, T3 - T2; not part of Roundtrip."
    }
}

/// A line for each direction with samples that the histogram cannot hold.
pub(super) fn out_of_range(report: &Report) -> Vec<String> {
    let lines = directions(report).into_iter();
    let lines = lines.filter_map(|(name, _, delay)| {
        let beyond = delay.map(|d| d.out_of_range)?;
        (beyond.below > 0 || beyond.above > 0).then(|| {
            let text = format!(
                "{name}: {} samples below and {} above the histogram's bounds; percentiles know \
                 them only as such.",
                count(beyond.below),
                count(beyond.above)
            );
            wrap(&text, 2)
        })
    });
    lines.collect()
}

/// What a dash says: how many samples it takes for a percentile that is not told, in `all` of the
/// percentiles or the usual ones.
pub(super) fn dash<'a>(delays: impl Iterator<Item = &'a Delay>, all: bool) -> String {
    let mut takes: Vec<(&str, u64)> = Vec::new();
    for needed in delays.filter_map(|delay| delay.samples_needed) {
        let usual = [
            ("P90", needed.p90.filter(|_| all)),
            ("P95", needed.p95),
            ("P99", needed.p99),
            ("P99.9", needed.p99_9),
            ("P99.99", needed.p99_99.filter(|_| all)),
            ("P99.999", needed.p99_999.filter(|_| all)),
        ];
        takes.extend(usual.iter().filter_map(|(name, n)| Some((*name, (*n)?))));
    }
    takes.sort_by_key(|(_, samples)| *samples);
    takes.dedup();
    let takes: Vec<String> = takes
        .iter()
        .map(|(name, samples)| format!("{name} takes {}", count(*samples)))
        .collect();
    match takes.as_slice() {
        [] => "-: not measured.".to_owned(),
        takes => format!("-: not measured, or too few samples: {}.", takes.join(", ")),
    }
}

/// `  Outbound:    `, with a mark `  Outbound*:   `.
pub(super) fn label(name: &str, mark: bool) -> String {
    let mark = if mark { "*" } else { "" };
    format!("  {:13}", format!("{name}{mark}:"))
}
