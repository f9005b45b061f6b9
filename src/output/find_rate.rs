//! What a search for the fastest rate found, for a terminal of 79 columns.

use std::fmt::{self, Display, Formatter};

use super::figures::{count, delay, rate, wrap};
use crate::report::find_rate::{
    Bound, Ceiling, CeilingKind, FindRate, LimitedBy, Note, Outcome, Roundtrip, Search, Standing,
    Trial,
};

/// A line about a trial: the size, the trial's number, what it tried and what came of it.
#[must_use]
pub fn progress(size: &str, number: usize, trial: &Trial) -> String {
    let what = match trial.outcome {
        Outcome::Held if trial.lost == 0 => "no loss".to_owned(),
        Outcome::Held => format!("lost {} of {}", count(trial.lost), count(trial.sent)),
        Outcome::Path => format!(
            "not held by the path: lost {} of {}",
            count(trial.lost),
            count(trial.sent)
        ),
        Outcome::Host => format!(
            "not held by this host: sent {}, up to {} late, {} lost, {} not sent, {} dropped by its \
             sockets",
            trial.achieved_pps.map_or("-".to_owned(), rate),
            trial
                .max_slip_ns
                .map_or("-".to_owned(), |ns| delay(ns as f64)),
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
                 trials of {} (RFC 2544 section 26.1{})",
                // To the millionth, as it was typed.
                (first.loss_bound * 1e6).round() / 1e4,
                length(first.trial_ns),
                match first.trial_ns < RFC_TRIAL_NS {
                    true => ", whose section 24 wants 60 s at least",
                    false => "",
                }
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
    lines.extend([
        line.clone(),
        format!(
            "{:<8}{:>13}{:>12}{:>16}{:>12}  Verdict",
            "Frame", "Held at", "trials", "Too fast at", "trials"
        ),
        line.clone(),
    ]);
    lines.extend(results.iter().map(bounds));
    lines.push(line);
    lines.push(wrap(
        "L2: frames without FCS; L1: with FCS, preamble and gap; L3: IP packets. -: not measured, or \
         fewer than ten samples lie beyond the percentile. Trials: how many of those at this rate \
         ended so.",
        2,
    ));
    lines.extend(remarks(results));
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

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Search(note) => note.fmt(f),
            Self::Session(note) => note.fmt(f),
            Self::Host(reason) => reason.fmt(f),
        }
    }
}

impl Display for Search {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyAnswers => {
                f.write_str("no packet was sent: nobody answers packets of the size before")
            }
            Self::FellSilent { for_ns } => write!(
                f,
                "nothing came back any more, for {} and from slow packets too: the search ended there",
                length(*for_ns)
            ),
            Self::Fragments {
                mtu,
                frame_bytes_l2,
            } => write!(
                f,
                "packets larger than the MTU of {mtu} go in fragments: the bit rates are those of whole \
                 frames of {frame_bytes_l2} bytes, and on the wire there is more"
            ),
            Self::Trains { burst } => write!(
                f,
                "packets left in trains of up to {burst}, which share their timestamps; --burst 1 sends \
                 each by itself"
            ),
            Self::SlowerFailed(Bound {
                rate_pps,
                held,
                failed,
            }) => write!(
                f,
                "{rate_pps}/s, which is slower, did not hold in {failed} of {} trials",
                held + failed
            ),
            Self::LoadFailed {
                percent,
                lost,
                sent,
                not_sent,
                achieved_pps,
            } => write!(
                f,
                "at {percent} % of the rate two trials did not hold, so that the rate is not stable: {lost} \
                 of {sent} packets lost in the second one, {not_sent} not sent, {} a second sent",
                achieved_pps.map_or("-".to_owned(), |pps| format!("{pps:.0}"))
            ),
        }
    }
}

/// How long a trial is: `2 s`, `250 ms`.
#[must_use]
pub fn length(ns: u64) -> String {
    match ns % 1_000_000_000 {
        0 => format!("{} s", ns / 1_000_000_000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

/// What the words of the tables mean, where they are there.
fn remarks(results: &[FindRate]) -> Vec<String> {
    let stands = |standing| results.iter().any(|r| r.standing == Some(standing));
    let mut lines = Vec::new();
    if results.iter().any(|r| r.rate_pps.is_some() && !r.stable) {
        lines.push("* not stable, or not known to be: see the verdict.".to_owned());
    }
    for (standing, meaning) in [
        (
            Standing::NotConfirmed,
            "not confirmed: the search ended before the rate had held three times, and at 50 and 90 % \
             too.",
        ),
        (
            Standing::NotStable,
            "not stable: the rate held, and a slower one did not: what is lost is not lost by the rate \
             alone.",
        ),
        (
            Standing::NotRepeatable,
            "not repeatable: trials at the same rate ended differently.",
        ),
    ] {
        if stands(standing) {
            lines.push(wrap(meaning, 2));
        }
    }
    for result in results {
        if let Some(ceiling) = &result.ceiling {
            lines.push(wrap(&limit(&result.size, ceiling), 2));
        }
    }
    lines
}

/// What a ceiling is a sign of.
fn limit(size: &str, ceiling: &Ceiling) -> String {
    let flat = format!(
        "size {size}: {} came back in {} trials, whatever was offered",
        rate(ceiling.received_pps),
        ceiling.trials
    );
    match ceiling.kind {
        CeilingKind::RateLimit => format!(
            "{flat}, and without more delay: that is the limit of a policer, or packet_rate or bit_rate \
             of a server's policy. Longer trials find its rate more exactly: each begins with its burst."
        ),
        CeilingKind::Queue => format!(
            "{flat}, and with more delay: packets queue in front of what is the limit, such as a slow \
             link, a shaper, or a busy reflector."
        ),
    }
}

/// How many trials bear each bound.
fn bounds(result: &FindRate) -> String {
    let cells = |bound: Option<Bound>, these: fn(Bound) -> u32| {
        let pps = bound.map_or("-".to_owned(), |bound| count(bound.rate_pps));
        let trials = bound.map_or("-".to_owned(), |bound| {
            format!("{} of {}", these(bound), bound.held + bound.failed)
        });
        (pps, trials)
    };
    let (held, held_in) = cells(result.lower, |bound| bound.held);
    let (failed, failed_in) = cells(result.upper, |bound| bound.failed);
    let verdict = match result.standing {
        _ if result.interrupted => "interrupted",
        None => "-",
        Some(Standing::Stable) => "stable",
        Some(Standing::NotConfirmed) => "not confirmed",
        Some(Standing::NotStable) => "not stable",
        Some(Standing::NotRepeatable) => "not repeatable",
    };
    format!(
        "{:<8}{held:>13}{held_in:>12}{failed:>16}{failed_in:>12}  {verdict}",
        name(result, 8)
    )
}

/// RFC 2544 section 24.
const RFC_TRIAL_NS: u64 = 60_000_000_000;

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
        Some(LimitedBy::Path) if limited_by_rate(result) => "rate limit",
        Some(LimitedBy::Path) => "path",
        Some(LimitedBy::Host) => "host",
        Some(LimitedBy::MaxRate) => "max-rate",
        None => "-",
    };
    format!(
        "{:<8}{pps:>16}{:>15}{:>14}{:>14}  {why}",
        name(result, 8),
        mbps(result.bps_l1),
        mbps(result.bps_l2_without_fcs),
        mbps(result.bps_l3)
    )
}

fn limited_by_rate(result: &FindRate) -> bool {
    let limit = |ceiling: Ceiling| ceiling.kind == CeilingKind::RateLimit;
    result.ceiling.is_some_and(limit)
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
        (none.lower, none.upper, none.standing) = (None, None, None);
        none.limited_by = None;
        none.notes.clear();
        let mut unsure = full();
        unsure.size = "imix".into();
        unsure.stable = false;
        unsure.standing = Some(Standing::NotStable);
        unsure.limited_by = Some(LimitedBy::Host);
        let text = summary(&[full(), none, unsure]);
        assert!(text.lines().all(|line| line.len() <= 79), "{text}");
        for line in [
            "1514              81,274        1000.00        984.39        975.29  path",
            "mix                    -              -             -             -  -",
            "imix             81,274*        1000.00        984.39        975.29  host",
            "1514       31us  1.05ms       -    31us  1.05ms       -    31us  1.05ms       -",
            "mix           -       -       -       -       -       -       -       -       -",
            "1514           81,274      3 of 3          82,543      3 of 3  stable",
            "mix                 -           -               -           -  -",
            "imix           81,274      3 of 3          82,543      3 of 3  not stable",
            "* not stable, or not known to be: see the verdict.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(summary(&[]), "");
        assert!(
            text.contains("section 26.1, whose section 24 wants 60 s"),
            "{text}"
        );
        let mut long = full();
        long.trial_ns = RFC_TRIAL_NS;
        assert!(summary(&[long]).contains("(RFC 2544 section 26.1)"));
        let mut some = full();
        some.loss_bound = 0.07;
        assert!(summary(&[some]).contains(" 7 % loss"));
    }

    #[test]
    fn a_limit_is_named_where_what_comes_back_shows_it() {
        let mut found = full();
        for (kind, cell, words) in [
            (
                CeilingKind::RateLimit,
                "rate limit",
                "a policer, or packet_rate",
            ),
            (CeilingKind::Queue, "path", "packets queue in front of"),
        ] {
            found.ceiling = Some(Ceiling {
                received_pps: 81_300.0,
                trials: 4,
                kind,
            });
            let text = summary(&[found.clone()]);
            assert!(text.lines().all(|line| line.len() <= 79), "{text}");
            assert!(text.contains(&format!("975.29  {cell}\n")), "{text}");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains("81,300/s came back in 4 trials"), "{text}");
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_verdict_is_explained_where_it_is_not_plain() {
        for (standing, verdict) in [
            (Standing::NotConfirmed, "not confirmed"),
            (Standing::NotStable, "not stable"),
            (Standing::NotRepeatable, "not repeatable"),
        ] {
            let mut found = full();
            found.standing = Some(standing);
            let text = summary(&[found]);
            assert!(text.contains(&format!("3 of 3  {verdict}\n")), "{text}");
            assert!(text.contains(&format!("\n{verdict}: ")), "{text}");
        }
    }

    #[test]
    fn a_trial_is_told_in_one_line() {
        let mut trial = full().trials.remove(0);
        let told = |trial: &Trial| progress("83", 3, trial);
        assert_eq!(told(&trial), "size 83, trial 3, 5,000/s: no loss");
        (trial.outcome, trial.lost) = (Outcome::Path, 12);
        assert_eq!(
            told(&trial),
            "size 83, trial 3, 5,000/s: not held by the path: lost 12 of 10,000"
        );
        trial.outcome = Outcome::Host;
        assert!(told(&trial).contains("not held by this host: sent 5,000/s, up to 12us late"));
        trial.outcome = Outcome::Nothing;
        assert!(told(&trial).ends_with("nothing came back"));
    }
}
