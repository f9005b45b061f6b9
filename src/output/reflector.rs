//! A reflector's account for a person: a few lines when it stops.

use super::figures::{count, dropped, not_sent, refused_calls};
use super::ignored;
use crate::report::reflector::{Account, Injected, TestMode};

/// Said of Session-Senders that do not fill their Error Estimate in.
pub(super) const UNUSABLE: &str =
    "requests had an Error Estimate with Multiplier 0 (RFC 4656 forbids it)";

/// What a reflector did, for a terminal of 79 columns.
#[must_use]
pub fn summary(account: &Account) -> String {
    let totals = &account.totals;
    let mut lines = format!(
        "received {}  reflected {}  sessions {}  bytes {} (UDP payload)\n",
        count(totals.received),
        count(totals.reflected),
        count(totals.sessions),
        count(totals.received_octets),
    );
    lines += &format!(
        "invalid {}  not allowed {}  loops {}  to broadcast or multicast {}\n",
        count(totals.invalid),
        count(totals.not_allowed),
        count(totals.loops),
        count(totals.to_many),
    );
    lines += &ignored::by_kind(&totals.ignored);
    let drops = dropped(totals.kernel_drops, totals.bundled > 0);
    lines += &format!(
        "replies that could not be sent {}  dropped by this host's sockets {drops}\n",
        count(totals.unsent),
    );
    lines += &not_sent(&totals.unsent_by);
    if totals.bundled > 0 {
        lines += &format!(
            "{} requests came in bundles, which share T2\n",
            count(totals.bundled)
        );
    }
    if totals.estimates_unusable > 0 {
        lines += &format!("{} {UNUSABLE}\n", count(totals.estimates_unusable));
    }
    if totals.evicted > 0 {
        lines += &format!(
            "{} sessions were forgotten early: more were active than are kept\n",
            count(totals.evicted)
        );
    }
    if totals.control_cut > 0 {
        lines += &format!(
            "{} requests came with control messages cut off\n",
            count(totals.control_cut)
        );
    }
    lines += &refused_calls(&account.refused_calls);
    if let (Some(mode), Some(injected)) = (&account.test_mode, &totals.injected) {
        lines += &test_mode(mode);
        lines += &injections(injected);
    }
    lines
}

/// What test mode is going to do, loudly.
#[must_use]
pub fn test_mode(mode: &TestMode) -> String {
    let mut parts = Vec::new();
    for (what, rate) in [
        ("drop", mode.drop_rate),
        ("corrupt", mode.corrupt_rate),
        ("duplicate", mode.duplicate_rate),
        ("reorder", mode.reorder_rate),
        ("delay", mode.delay_rate),
    ] {
        if rate > 0.0 {
            parts.push(format!("{what} {} %", percent(rate)));
        }
    }
    if mode.delay_rate > 0.0 {
        let (least, most) = (mode.delay_min_ns, mode.delay_max_ns);
        parts.push(match least {
            0 | 1 => format!("by up to {}", milliseconds(most)),
            _ => format!("by {} to {}", milliseconds(least), milliseconds(most)),
        });
    }
    if let Some(limit) = mode.rate_limit_pps {
        parts.push(format!("at most {limit} packets/s"));
    }
    if parts.is_empty() {
        parts.push("nothing is asked for".to_owned());
    }
    let opening = format!(
        "TEST MODE: packets are impaired on purpose, {}, seed {}\n",
        mode.direction, mode.seed
    );
    opening + &wrapped(&parts)
}

fn injections(injected: &Injected) -> String {
    let mut parts = Vec::new();
    for (what, number) in [
        ("dropped", injected.dropped),
        ("corrupted", injected.corrupted),
        ("duplicated", injected.duplicated),
        ("reordered", injected.reordered),
        ("delayed", injected.delayed),
        ("above the rate limit", injected.rate_limited),
    ] {
        parts.push(format!("{what} {}", count(number)));
    }
    for (what, number) in [
        ("not held for want of room", injected.not_held),
        ("still held at the end", injected.unreleased),
    ] {
        if number > 0 {
            parts.push(format!("{what} {}", count(number)));
        }
    }
    format!("injected:\n{}", wrapped(&parts))
}

/// Items two blanks apart, on lines of at most 79 columns.
fn wrapped(parts: &[String]) -> String {
    let mut text = String::new();
    let mut column = 0;
    for part in parts {
        if column > 0 && column + 2 + part.len() > 79 {
            text.push('\n');
            column = 0;
        }
        text += "  ";
        text += part;
        column += 2 + part.len();
    }
    text.push('\n');
    text
}

/// Up to four decimals, without zeros at the end.
fn percent(fraction: f64) -> String {
    let text = format!("{:.4}", fraction * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn milliseconds(ns: u64) -> String {
    let text = format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
    format!("{} ms", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_mode_says_what_it_does() {
        let mode = TestMode {
            direction: "inbound".to_owned(),
            seed: 7,
            drop_rate: 0.05,
            duplicate_rate: 0.0,
            reorder_rate: 0.02,
            delay_rate: 0.03,
            corrupt_rate: 0.000_001,
            delay_min_ns: 1,
            delay_max_ns: 2_000_000_000,
            rate_limit_pps: Some(500.0),
        };
        assert_eq!(
            test_mode(&mode),
            "TEST MODE: packets are impaired on purpose, inbound, seed 7\n  \
             drop 5 %  corrupt 0.0001 %  reorder 2 %  delay 3 %  by up to 2000 ms\n  \
             at most 500 packets/s\n"
        );
        let other = TestMode {
            delay_min_ns: 500_000,
            ..mode
        };
        assert!(test_mode(&other).contains("by 0.5 ms to 2000 ms"));
    }
}
