//! What is shown while a session runs: a line for each happening, a block for each interval.

use std::net::IpAddr;

use chrono::{Local, TimeZone};

use super::text::{self, count};
use crate::report::{Delay, Happening, Interval, IntervalFigures, IntervalPackets};

/// A happening as `--print-responses` shows it, without the line break.
#[must_use]
pub fn line(happening: &Happening, peer: IpAddr) -> String {
    match *happening {
        Happening::Reply {
            seq,
            roundtrip_ns,
            outbound_ns,
            inbound_ns,
            ..
        } => format!(
            "Reply from {peer} [seq={seq}] RTT={} Outbound={} Inbound={}",
            time(roundtrip_ns),
            time(outbound_ns),
            time(inbound_ns)
        ),
        Happening::Gap {
            first,
            last,
            received,
        } if first == last => {
            format!("Gap detected: packet [{first}] missing (received seq={received})")
        }
        Happening::Gap {
            first,
            last,
            received,
        } => format!("Gap detected: packets [{first}-{last}] missing (received seq={received})"),
        Happening::OutOfOrder { seq } => {
            format!("Out-of-order: packet [seq={seq}] arrived late")
        }
        Happening::Timeout { seq } => format!("Timeout: packet [{seq}] had no reply in time"),
        Happening::Late { seq } => {
            format!("Late: packet [seq={seq}] had its reply after the timeout")
        }
        Happening::Duplicate { seq } => {
            format!("Duplicate: packet [seq={seq}] already received")
        }
    }
}

/// A happening as `-v` logs it: replies in twampy's words, with both sequence numbers.
#[must_use]
pub fn logged(happening: &Happening, peer: IpAddr) -> String {
    match *happening {
        Happening::Reply {
            seq,
            reflector_seq,
            roundtrip_ns,
            outbound_ns,
            inbound_ns,
        } => format!(
            "Reply from {peer} [rseq={reflector_seq} sseq={seq} rtt={} outbound={} inbound={}]",
            time(roundtrip_ns),
            time(outbound_ns),
            time(inbound_ns)
        ),
        _ => line(happening, peer),
    }
}

fn time(ns: Option<i64>) -> String {
    ns.map_or("-".to_owned(), |ns| text::delay(text::ns(ns)))
}

/// The figures of an interval and of the session so far, each line with its line break.
#[must_use]
pub fn block(interval: &Interval) -> String {
    let session = &interval.session.packets;
    let mut lines = vec![format!(
        "--- Current Statistics at {} (received: {}, sent: {}) ---",
        clock(interval.at_ns),
        count(session.received),
        count(session.sent),
    )];
    let length = text::delay(text::magnitude(interval.length_ns));
    lines.extend(figures(&format!("Last {length}"), &interval.interval, None));
    let in_flight = Some(interval.in_flight);
    lines.extend(figures("Session", &interval.session, in_flight));
    lines.join("\n") + "\n"
}

/// Local time, to the second.
fn clock(unix_ns: i64) -> String {
    let time = Local.timestamp_nanos(unix_ns);
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn figures(what: &str, figures: &IntervalFigures, in_flight: Option<u64>) -> Vec<String> {
    let packets = &figures.packets;
    let mut lines = vec![format!(
        "{what:15}{:>10}  {:>10}  {:>10}  {:>10}    {:>6}",
        "Min", "Max", "Avg", "Jitter", "Loss"
    )];
    let rows = [
        (
            "Outbound",
            &figures.delay_ns.outbound,
            packets.lost_outbound,
        ),
        ("Inbound", &figures.delay_ns.inbound, packets.lost_inbound),
        ("Roundtrip", &figures.delay_ns.roundtrip, Some(packets.lost)),
    ];
    for (name, delay, lost) in rows {
        lines.push(row(name, delay.as_ref(), lost, packets));
    }
    let mut more = vec![
        format!("  sent {}", count(packets.sent)),
        format!("received {}", count(packets.received)),
        format!("lost {}", count(packets.lost)),
    ];
    more.extend(in_flight.map(|n| format!("in flight {}", count(n))));
    let rare = [
        ("duplicates", packets.duplicates),
        ("reordered", packets.reordered),
        ("late", packets.late),
    ];
    let seen = rare.iter().filter(|(_, n)| *n > 0);
    more.extend(seen.map(|(name, n)| format!("{name} {}", count(*n))));
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    lines.push(text::flow("", 2, &more, "  "));
    lines
}

/// Loss is a share of the packets whose fate is known.
fn row(name: &str, delay: Option<&Delay>, lost: Option<u64>, packets: &IntervalPackets) -> String {
    let decided = packets.received + packets.lost;
    let lost = lost.filter(|_| decided > 0);
    text::row(name, false, delay) + &text::loss(lost, Some(decided))
}
