//! Several sessions side by side: what each class, or each path, gets.

use crate::output::figures::{WIDTH, cell, count, dscp, loss, ns};
use crate::report::Report;

/// The line above the figures of one of several sessions.
#[must_use]
pub fn session_heading(number: usize, of: usize, report: &Report) -> String {
    let mut facts = Vec::new();
    facts.extend(
        report
            .path
            .dscp_sent
            .map(|value| format!("DSCP {}", dscp(value))),
    );
    facts.extend(report.local.map(|local| format!("from {local}")));
    facts.extend(report.remote.map(|remote| format!("to {remote}")));
    format!("--- session {number} of {of}: {} ---", facts.join(", "))
}

/// A row for each session; ports are those of the Session-Reflector.
#[must_use]
pub fn comparison(sessions: &[Report]) -> String {
    let mut lines = vec![
        "=".repeat(WIDTH),
        format!(
            "Session DSCP {:>5} {:>10} {:>8} {:>7} {:>10} {:>10} {:>10}",
            "Port", "Sent", "Loss out", "Loss in", "RTT p50", "RTT p99", "Jitter"
        ),
        "-".repeat(WIDTH),
    ];
    for (number, report) in (1..).zip(sessions) {
        let (packets, delay) = (&report.packets, report.delay_ns.roundtrip.as_ref());
        let text = |known: Option<String>| known.unwrap_or_else(|| "-".to_owned());
        let answered = packets.received != Some(0);
        let way = |lost: Option<u64>| loss(lost.filter(|_| answered), packets.settled());
        lines.push(format!(
            "{number:>7} {:>4} {:>5} {:>10} {:>8} {:>7} {} {} {}",
            text(report.path.dscp_sent.map(|dscp| dscp.to_string())),
            text(report.remote.map(|remote| remote.port().to_string())),
            text(packets.sent.map(count)),
            way(packets.lost_outbound).trim(),
            way(packets.lost_inbound).trim(),
            cell(delay.map(|delay| ns(delay.median))),
            cell(delay.and_then(|delay| delay.p99.map(ns))),
            cell(delay.and_then(|delay| delay.jitter)),
        ));
    }
    lines.push("=".repeat(WIDTH));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    #[test]
    fn sessions_stand_side_by_side_and_what_is_not_known_is_a_dash() {
        let mut silent = full();
        silent.path.dscp_sent = Some(46);
        silent.packets.received = Some(0);
        silent.delay_ns.roundtrip = None;
        let shown = comparison(&[full(), silent]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{shown}");
        let silent = lines[4];
        assert!(silent.starts_with("      2   46"), "{silent}");
        let dashes = silent.split_whitespace().filter(|word| *word == "-");
        assert_eq!(dashes.count(), 5, "{silent}");
    }
}
