//! What a run came to: its exit code, and a line where it did not measure.

use super::messages::complain;
use crate::engine;
use crate::output::ignored;
use crate::report::{FailedCall, Report};

/// Frames that every path should carry: an IP packet of 1280 octets (RFC 8200 §5).
const SMALL_FRAME: usize = 1294;

/// Why a run failed.
pub(super) fn failed_by(call: &FailedCall) -> String {
    let hint = match (call.call.starts_with("send"), call.errno.as_str()) {
        (true, "EPERM") => "; does a firewall or a sandbox of this host forbid that?",
        (true, "ENETUNREACH" | "EHOSTUNREACH" | "ENETDOWN" | "EINVAL" | "EACCES") => {
            "; is the interface up, and is there a route? See `ip route get`"
        }
        _ => "; does a sandbox forbid that call?",
    };
    format!("this system refuses {call}: the run has failed{hint}")
}

/// The exit code of a reflector or server, with a line on standard error where a call failed.
pub(super) fn service_ended(failure: Option<&FailedCall>) -> u8 {
    failure.map_or(0, |call| {
        complain(failed_by(call));
        1
    })
}

/// The exit code, with a line on standard error where nothing was measured.
pub(super) fn verdict(report: &Report) -> u8 {
    let packets = &report.packets;
    if let Some(call) = &report.host.failure {
        complain(failed_by(call));
        return 1;
    }
    if report.interrupted {
        return 130;
    }
    if packets.sent == Some(0) {
        complain(format!("nothing was sent: {}", why_nothing(report)));
        return 1;
    }
    if packets.received == Some(0) {
        let hop = report.path.next_hop.filter(|hop| !hop.resolved);
        let hop = hop.map(|hop| {
            format!(
                "the next hop {} does not answer (ARP, neighbour discovery): is the address right, and is \
                 the link up?",
                hop.address
            )
        });
        // Of all that came the most frequent. ICMP of a next hop that does not answer is this host's own.
        let late = packets.late.filter(|late| *late > 0).map(|late| {
            let came = match late {
                1 => "1 reply came after its timeout".to_owned(),
                late => format!("{late} replies came after their timeout"),
            };
            (late, format!("{came}; use a longer --packet-timeout"))
        });
        let ignored = packets.ignored.and_then(|ignored| ignored.most());
        let ignored = ignored.map(|(kind, most)| (most, ignored::sentence(kind, most)));
        let icmp = packets
            .icmp
            .iter()
            .flatten()
            .next()
            .filter(|_| hop.is_none());
        let icmp = icmp.map(|icmp| (icmp.count, format!("ICMP {icmp}")));
        let came = [late, icmp, ignored].into_iter().flatten();
        // Of as many of two kinds the first one.
        let most = came.reduce(|a, b| if b.0 > a.0 { b } else { a });
        let why = most.map(|(_, why)| why).or(hop);
        let why = why.unwrap_or_else(|| format!("no reply and no ICMP error: {}", silence(report)));
        // Several sessions have several ports.
        let from = report
            .remote
            .map_or(String::new(), |addr| format!(" from {addr}"));
        complain(format!("nothing came back{from}: {why}"));
        return 5;
    }
    0
}

/// Why nothing was sent: never that nothing was due beside a verdict that says otherwise.
fn why_nothing(report: &Report) -> String {
    let cause = report.packets.not_sent_causes.first();
    let cause = cause.map(ToString::to_string);
    let reason = || report.host.reasons.first().map(ToString::to_string);
    cause
        .or_else(reason)
        .unwrap_or("nothing was due".to_owned())
}

/// What may be wrong where nothing came back and nobody said why.
fn silence(report: &Report) -> String {
    if let Some(why) = report
        .remote
        .and_then(|remote| engine::unreachable(remote.ip()))
    {
        return why;
    }
    let sizes = report.load.sizes.iter().filter(|size| size.packets > 0);
    let largest = sizes.max_by_key(|size| size.frame_bytes_l2);
    let size = match largest {
        Some(size) if size.fragments > Some(1) => {
            format!(
                ", or one that drops fragments ({} bytes leave in several: try a smaller size)",
                size.frame_bytes_l2
            )
        }
        Some(size) if size.frame_bytes_l2 > SMALL_FRAME => {
            format!(
                ", or a hop with a smaller MTU (try a smaller size than {} bytes)",
                size.frame_bytes_l2
            )
        }
        _ => String::new(),
    };
    let link = match (
        report.host.tx_stamps_requested,
        report.host.tx_stamps_received,
    ) {
        (Some(1..), Some(0)) => "no packet is known to have left this host: is its link up? Is a",
        _ => "is a",
    };
    format!("{link} reflector there, and is a firewall between{size}?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_said_to_have_been_due_where_this_host_was_behind() {
        let mut report = crate::report::tests::full();
        report.packets.not_sent_causes = Vec::new();
        report.host.reasons = Vec::new();
        assert_eq!(why_nothing(&report), "nothing was due");
        report.host.reasons = vec![crate::report::Reason::GaveUp { threads: 1 }];
        assert!(why_nothing(&report).starts_with("1 threads stopped after 2 s"));
        report.packets.not_sent_causes = vec![crate::report::NotSent {
            cause: crate::report::Cause::BehindSchedule,
            count: 7,
            error: None,
        }];
        assert!(why_nothing(&report).starts_with("7 packets were further behind"));
    }
}
