//! What is shown while a session runs: a line for each happening, a block for each interval.

use std::net::IpAddr;

use super::figures::{self, count};
use super::heading;
use super::text;
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
            clocks_agree,
            ..
        } => format!(
            "Reply from {peer} [seq={seq}] RTT={} Outbound={} Inbound={}",
            time(roundtrip_ns),
            one_way(outbound_ns, clocks_agree),
            one_way(inbound_ns, clocks_agree)
        ),
        Happening::Gap {
            first,
            last,
            received,
            outage_ns,
        } => {
            let packets = if first == last {
                format!("packet [{first}]")
            } else {
                format!("packets [{first}-{last}]")
            };
            let lasted = outage_ns.map_or(String::new(), |ns| {
                format!(" in {}", text::delay(figures::ns(ns)))
            });
            format!("Gap detected: {packets} missing{lasted} (received seq={received})")
        }
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
        Happening::Icmp(icmp) => format!("ICMP: {icmp}"),
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
            clocks_agree,
        } => format!(
            "Reply from {peer} [rseq={reflector_seq} sseq={seq} rtt={} outbound={} inbound={}]",
            time(roundtrip_ns),
            one_way(outbound_ns, clocks_agree),
            one_way(inbound_ns, clocks_agree)
        ),
        _ => line(happening, peer),
    }
}

fn time(ns: Option<i64>) -> String {
    ns.map_or("-".to_owned(), |ns| text::delay(figures::ns(ns)))
}

/// Marked where it contains the offset of two clocks.
fn one_way(ns: Option<i64>, clocks_agree: bool) -> String {
    let mark = if clocks_agree || ns.is_none() {
        ""
    } else {
        "*"
    };
    time(ns) + mark
}

/// The figures of an interval and of the session so far, each line with its line break.
#[must_use]
pub fn block(interval: &Interval) -> String {
    let session = &interval.session.packets;
    let when = format!("--- Current Statistics at {}", clock(interval.at_ns));
    let counts = format!(
        "(received: {}, sent: {}) ---",
        session.received, session.sent
    );
    let gap = if when.len() + counts.len() < 79 {
        " "
    } else {
        "\n    "
    };
    let mut lines = vec![format!("{when}{gap}{counts}")];
    let length = text::delay(figures::magnitude(interval.length_ns));
    let marked = !interval.clocks_agree;
    let last = format!("Last {length}");
    lines.extend(figures(&last, &interval.interval, None, marked));
    let in_flight = Some(interval.in_flight);
    lines.extend(figures("Session", &interval.session, in_flight, marked));
    let delays = &interval.session.delay_ns;
    if marked
        && delays
            .outbound
            .as_ref()
            .or(delays.inbound.as_ref())
            .is_some()
    {
        lines.push(
            "  * contains the offset of the two clocks, which are not known to agree".to_owned(),
        );
    }
    if interval.samples_not_recorded > 0 {
        lines.push(text::wrap(
            &format!(
                "  {} replies are missing from these delays: these lines are read too slowly.",
                count(interval.samples_not_recorded)
            ),
            2,
        ));
    }
    lines.join("\n") + "\n"
}

/// To the second, with its zone.
fn clock(unix_ns: i64) -> String {
    heading::seconds(&heading::moment(unix_ns))
}

fn figures(
    what: &str,
    figures: &IntervalFigures,
    in_flight: Option<u64>,
    marked: bool,
) -> Vec<String> {
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
            marked,
        ),
        (
            "Inbound",
            &figures.delay_ns.inbound,
            packets.lost_inbound,
            marked,
        ),
        (
            "Roundtrip",
            &figures.delay_ns.roundtrip,
            Some(packets.lost),
            false,
        ),
    ];
    for (name, delay, lost, marked) in rows {
        let marked = marked && delay.is_some();
        lines.push(row(name, delay.as_ref(), lost, packets, marked));
    }
    let mut more = vec![
        format!("  sent {}", count(packets.sent)),
        format!("received {}", count(packets.received)),
        format!("lost {}", count(packets.lost)),
    ];
    let settled = packets.received + packets.lost;
    if settled != packets.sent {
        more.push(format!("Loss: of the {} settled", count(settled)));
    }
    more.extend(in_flight.map(|n| format!("in flight {}", count(n))));
    let rare = [
        ("duplicates", packets.duplicates),
        ("reordered", packets.reordered),
        ("late", packets.late),
    ];
    let seen = rare.iter().filter(|(_, n)| *n > 0);
    more.extend(seen.map(|(name, n)| format!("{name} {}", count(*n))));
    let samples = |delay: &Option<Delay>| delay.as_ref().map_or(0, |delay| delay.samples);
    let (some, all) = (
        samples(&figures.delay_ns.roundtrip),
        samples(&figures.delay_ns.inbound),
    );
    if some < all {
        more.push(format!(
            "Roundtrip of {} of {} replies",
            count(some),
            count(all)
        ));
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    lines.push(figures::flow("", 2, &more, "  "));
    lines
}

/// Loss is a share of the packets whose fate is known.
fn row(
    name: &str,
    delay: Option<&Delay>,
    lost: Option<u64>,
    packets: &IntervalPackets,
    marked: bool,
) -> String {
    let decided = packets.received + packets.lost;
    let lost = lost.filter(|_| decided > 0);
    text::row(name, marked, delay) + &figures::loss(lost, Some(decided))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{DelaySet, IntervalSchema};

    #[test]
    fn one_way_delays_between_clocks_that_may_differ_are_marked() {
        let peer = "192.0.2.1".parse().unwrap();
        let reply = |clocks_agree| Happening::Reply {
            seq: 1,
            reflector_seq: 1,
            roundtrip_ns: Some(5000),
            outbound_ns: Some(2000),
            inbound_ns: None,
            clocks_agree,
        };
        let shown = "RTT=5us Outbound=2us Inbound=-";
        assert!(line(&reply(true), peer).ends_with(shown));
        let marked = "RTT=5us Outbound=2us* Inbound=-";
        assert!(line(&reply(false), peer).ends_with(marked));
        let marked = "rtt=5us outbound=2us* inbound=-]";
        assert!(logged(&reply(false), peer).ends_with(marked));
    }

    #[test]
    fn a_block_of_the_largest_counts_fits_a_terminal() {
        let packets = IntervalPackets {
            sent: 4_294_967_295,
            received: 4_294_967_295,
            lost: 4_294_967_295,
            lost_outbound: Some(4_294_967_295),
            lost_inbound: None,
            lost_unattributed: None,
            duplicates: 4_294_967_295,
            reordered: 4_294_967_295,
            late: 4_294_967_295,
        };
        let figures = IntervalFigures {
            packets,
            delay_ns: DelaySet {
                roundtrip: None,
                outbound: None,
                inbound: None,
                reflector: None,
            },
        };
        let text = block(&Interval {
            schema: IntervalSchema::default(),
            number: 1,
            at: String::new(),
            at_ns: 1_790_000_000_000_000_000,
            length_ns: 3_600_000_000_000,
            in_flight: 4_294_967_295,
            samples_not_recorded: 4_294_967_295,
            clocks_agree: false,
            interval: figures.clone(),
            session: figures,
        });
        assert!(text.lines().all(|line| line.len() <= 79), "{text}");
        assert!(text.contains("(received: 4294967295, sent: 4294967295) ---"));
    }
}
