//! What a search for the fastest rate found, for a terminal of 79 columns.

use super::text::{count, delay, rate, wrap};
use crate::report::find_rate::{FindRate, LimitedBy, Outcome, Roundtrip, Trial};

/// A line about a trial: the size, the trial's number, what it tried and what came of it.
#[must_use]
pub fn progress(size: &str, number: usize, trial: &Trial) -> String {
    let what = match trial.outcome {
        Outcome::Held if trial.lost == 0 => "no loss".to_owned(),
        Outcome::Held => format!("lost {} of {}", count(trial.lost), count(trial.sent)),
        Outcome::Path => format!(
            "too fast for the path: lost {} of {}",
            count(trial.lost),
            count(trial.sent)
        ),
        Outcome::Host => format!(
            "too fast for this host: sent {}, {} lost, {} not sent, {} dropped by its sockets",
            trial.achieved_pps.map_or("-".to_owned(), rate),
            count(trial.lost),
            count(trial.not_sent),
            trial.kernel_drops.map_or("-".to_owned(), count)
        ),
        Outcome::Nothing if trial.sent == 0 => "nothing could be sent".to_owned(),
        Outcome::Nothing => "nothing came back".to_owned(),
    };
    let offered = rate(trial.offered_pps as f64);
    format!("size {size}, trial {number}, {offered}: {what}")
}

/// The tables of all sizes; empty without one.
#[must_use]
pub fn summary(results: &[FindRate]) -> String {
    let Some(first) = results.first() else {
        return String::new();
    };
    let line = "-".repeat(79);
    let mut lines = vec![
        wrap(
            &format!(
                "Fastest rate with at most {} % loss, by frame size (Ethernet without FCS), in \
                 trials of {} (RFC 2544 section 26.1)",
                // To the millionth, as it was typed.
                (first.loss_bound * 1e6).round() / 1e4,
                delay(first.trial_ns as f64)
            ),
            0,
        ),
        line.clone(),
        format!(
            "{:<8}{:>16}{:>15}{:>14}{:>14}  {}",
            "Frame", "Packets/s", "L1 Mbit/s", "L2 Mbit/s", "L3 Mbit/s", "Limited by"
        ),
        line.clone(),
    ];
    lines.extend(results.iter().map(rates));
    lines.extend([
        line.clone(),
        format!(
            "{:<7}{:>24}{:>24}{:>24}",
            "RTT", "at 50 % of the rate", "at 90 %", "at 100 %"
        ),
        format!(
            "{:<7}{}",
            "Frame",
            format!("{:>8}{:>8}{:>8}", "P50", "P99", "P99.9").repeat(3)
        ),
        line.clone(),
    ]);
    lines.extend(results.iter().map(delays));
    lines.push(line);
    lines.push(wrap(
        "L2: frames with FCS; L1: with preamble and gap too; L3: IP packets. -: not measured, or \
         fewer than ten samples lie beyond the percentile.",
        2,
    ));
    if results.iter().any(|r| r.rate_pps.is_some() && !r.stable) {
        lines.push(wrap("* not confirmed by two further trials.", 2));
    }
    if results
        .iter()
        .any(|r| r.limited_by == Some(LimitedBy::Host))
    {
        lines.push(wrap(
            "host: this host's own limit; the path may carry more.",
            2,
        ));
    }
    for result in results {
        for note in &result.notes {
            lines.push(wrap(&format!("note: size {}: {note}", result.size), 6));
        }
    }
    lines.join("\n") + "\n"
}

fn rates(result: &FindRate) -> String {
    let mark = if result.rate_pps.is_some() && !result.stable {
        "*"
    } else {
        ""
    };
    let pps = result.rate_pps.map_or("-".to_owned(), count) + mark;
    let mbps = |bps: Option<f64>| bps.map_or("-".to_owned(), |bps| format!("{:.2}", bps / 1e6));
    let why = match result.limited_by {
        _ if result.interrupted => "interrupted",
        Some(LimitedBy::Path) => "path",
        Some(LimitedBy::Host) => "host",
        Some(LimitedBy::MaxRate) => "max-rate",
        None => "-",
    };
    format!(
        "{:<8}{pps:>16}{:>15}{:>14}{:>14}  {why}",
        name(result, 8),
        mbps(result.bps_l1),
        mbps(result.bps_l2),
        mbps(result.bps_l3)
    )
}

fn delays(result: &FindRate) -> String {
    let mut line = format!("{:<7}", name(result, 7));
    for percent in [50, 90, 100] {
        let point = result.loads.iter().find(|point| point.percent == percent);
        let roundtrip = point.and_then(|point| point.roundtrip_ns);
        let cell = |of: fn(Roundtrip) -> Option<i64>| {
            let ns = roundtrip.and_then(of);
            ns.map_or("-".to_owned(), |ns| delay(ns as f64))
        };
        line += &format!("{:>8}", cell(|r| Some(r.median)));
        line += &format!("{:>8}", cell(|r| r.p99));
        line += &format!("{:>8}", cell(|r| r.p99_9));
    }
    line
}

/// The size, where it fits in its column.
fn name(result: &FindRate, width: usize) -> &str {
    match result.size.as_str() {
        size if size.len() < width => size,
        _ => "mix",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::find_rate::tests::full;

    #[test]
    fn the_tables_show_every_size() {
        let mut none = full();
        none.size = "64:7,590:4".into();
        none.set_rate(None);
        none.loads.clear();
        none.stable = false;
        none.limited_by = None;
        none.notes.clear();
        let mut unsure = full();
        unsure.size = "imix".into();
        unsure.stable = false;
        unsure.limited_by = Some(LimitedBy::Host);
        let text = summary(&[full(), none, unsure]);
        assert!(text.lines().all(|line| line.len() <= 79), "{text}");
        for line in [
            "1514              81,274        1000.00        986.99        975.29  path",
            "mix                    -              -             -             -  -",
            "imix             81,274*        1000.00        986.99        975.29  host",
            "1514       31us  1.05ms       -    31us  1.05ms       -    31us  1.05ms       -",
            "mix           -       -       -       -       -       -       -       -       -",
            "* not confirmed by two further trials.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(summary(&[]), "");
        let mut some = full();
        some.loss_bound = 0.07;
        assert!(summary(&[some]).contains(" 7 % loss"));
    }

    #[test]
    fn a_trial_is_told_in_one_line() {
        let mut trial = full().trials.remove(0);
        let told = |trial: &Trial| progress("83", 3, trial);
        assert_eq!(told(&trial), "size 83, trial 3, 5,000/s: no loss");
        (trial.outcome, trial.lost) = (Outcome::Path, 12);
        assert_eq!(
            told(&trial),
            "size 83, trial 3, 5,000/s: too fast for the path: lost 12 of 10,000"
        );
        trial.outcome = Outcome::Host;
        assert!(told(&trial).contains("too fast for this host: sent 5,000/s"));
        trial.outcome = Outcome::Nothing;
        assert!(told(&trial).ends_with("nothing came back"));
    }
}
