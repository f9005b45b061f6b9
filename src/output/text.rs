//! The summary that a sender prints when it ends: twampy's table, then what it takes to believe it.
//!
//! Plain ASCII without colour, at most 79 columns. Three rules hold for every figure: what was not
//! measured is `-`, never 0; what is not zero never reads as zero (`<0.1%`, `430ns`), and what is
//! not everything never as 100 %; a one-way delay that contains the offset of two clocks is marked.

pub(crate) use super::figures::dscp;
use super::figures::{
    SECOND_NS, WIDTH, cell, dropped, flow, group, known, loss, magnitude, ns, percent, seconds,
};
pub use super::figures::{count, delay, dp, megabits, rate, wrap};
use super::ignored;
use crate::report::{
    Cause, Delay, Figure, Granularity, IcmpKind, Io, Load, Packets, Profile, Reason, Report,
    Schedule, SizeEntry, Spread, StampKind, Timestamps, Verdict,
};
use directions::{both_synchronised, dash, directions, label, not_told, out_of_range, own_time};
pub(super) use directions::{one_way_doubt, row};

mod directions;
mod full;
mod sessions;

pub use sessions::{comparison, session_heading};

/// How much of a report is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The table, the packets and the verdict.
    Brief,
    /// With percentiles, variation, load and conditions.
    Normal,
    /// Every figure, and the counts by bin.
    Full,
}

/// The whole summary: what it is of, then twampy's table and all else; each line with its line break.
///
/// No line is longer than 79 columns, unless a single word of a note is.
#[must_use]
pub fn summary(report: &Report, detail: Detail) -> String {
    let heading = super::heading::of(report);
    if detail == Detail::Brief {
        return heading + &paragraphs(&[table(report), packets(report), verdict(report)]);
    }
    let mut facts = packets(report);
    if detail == Detail::Full {
        facts.extend(full::timeout(report));
    }
    facts.extend(load(report));
    facts.push(listing("Timestamps", &timestamps(report), ", "));
    facts.push(listing("Clock", &clock(report), "; "));
    facts.push(listing("Path", &path(report), "; "));
    facts.push(listing("Host", &host(report), "; "));
    let notes = report.notes.iter();
    let notes = notes
        .map(|note| wrap(&format!("note: {note}"), 6))
        .collect();
    let (figures, bins) = match detail {
        Detail::Full => (full::figures(report), full::bins(report)),
        _ => (details(report), Vec::new()),
    };
    let table = table(report);
    heading + &paragraphs(&[table, figures, bins, facts, notes, verdict(report)])
}

/// Blocks of lines, with an empty line between two that are not empty.
fn paragraphs(blocks: &[Vec<String>]) -> String {
    let blocks = blocks.iter().filter(|lines| !lines.is_empty());
    let blocks: Vec<String> = blocks.map(|lines| lines.join("\n") + "\n").collect();
    blocks.join("\n")
}

/// twampy's table, and directly below it what its marks mean.
fn table(report: &Report) -> Vec<String> {
    let (packets, delays) = (&report.packets, &report.delay_ns);
    let doubt = one_way_doubt(report);
    let answered = packets.received != Some(0);
    let (late, unattributed) = late_and_unknown(packets);
    let one_way = |name, delay: &Option<Delay>, lost: Option<u64>| {
        // Without one reply, nothing tells a direction.
        let loss = loss(lost.filter(|_| answered), packets.settled());
        let at_least = if unattributed.is_some() && loss.contains('%') {
            "+"
        } else {
            ""
        };
        let mark = doubt.is_some() && delay.is_some();
        row(name, mark, delay.as_ref()) + &loss + at_least
    };
    let mut lines = vec![
        "=".repeat(WIDTH),
        "Direction         Min         Max         Avg          Jitter     Loss".to_owned(),
        "-".repeat(WIDTH),
        one_way("Outbound", &delays.outbound, packets.lost_outbound),
        one_way("Inbound", &delays.inbound, packets.lost_inbound),
        row("Roundtrip", false, delays.roundtrip.as_ref()) + &loss(packets.lost, packets.settled()),
        "-".repeat(WIDTH),
        format!("{:>78}", "Jitter Algorithm [RFC3550]"),
        "=".repeat(WIDTH),
    ];
    lines.extend(doubt.map(|doubt| wrap(&format!("* {doubt}"), 2)));
    lines.extend(unattributed.map(|lost| {
        let of = packets.lost.map_or("-".to_owned(), count);
        let text = if answered {
            format!(
                "+ At least: the direction of {} of {of} lost packets is not known. They count in \
                 Roundtrip only.",
                count(lost)
            )
        } else {
            format!(
                "The direction of {} of {of} lost packets is not known.",
                count(lost)
            )
        };
        wrap(&text, 2)
    }));
    lines.extend(late.filter(|_| answered).map(|late| {
        let of = packets.lost.map_or("-".to_owned(), count);
        let text = format!(
            "Of {of} lost packets {} came back after the timeout: lost on neither way, and counted in \
             Roundtrip only.",
            count(late)
        );
        wrap(&text, 2)
    }));
    lines
}

/// Of the lost packets without a direction those whose reply came late, and the others, where there are
/// any.
fn late_and_unknown(packets: &Packets) -> (Option<u64>, Option<u64>) {
    let all = packets.lost_unattributed.unwrap_or(0);
    let late = packets.late.unwrap_or(0).min(all);
    let some = |n: u64| Some(n).filter(|n| *n > 0);
    (some(late), some(all - late))
}

/// Percentiles and variation; nothing where no delay was measured.
fn details(report: &Report) -> Vec<String> {
    let rows = directions(report);
    if rows.iter().all(|(_, _, delay)| delay.is_none()) {
        return Vec::new();
    }
    let heading = ["Median", "P95", "P99", "P99.9", "StdDev"].map(|name| format!("{name:>10}"));
    let mut lines = vec![
        format!("{:15}{}", "Percentiles", heading.join("  ")),
        "-".repeat(WIDTH),
    ];
    lines.extend(rows.iter().map(|(name, mark, delay)| {
        let cells = [
            delay.map(|d| ns(d.median)),
            delay.and_then(|d| d.p95).map(ns),
            delay.and_then(|d| d.p99).map(ns),
            delay.and_then(|d| d.p99_9).map(ns),
            delay.and_then(|d| d.stddev),
        ];
        if *name == "Reflector" && not_told(report) {
            return format!("{}{:>10}", label(name, false), "not told");
        }
        label(name, *mark) + &cells.map(cell).join("  ")
    }));
    lines.push("-".repeat(WIDTH));
    lines.push(format!(
        "{:15}{:>10}  {:>10}  {:>10}  {:>10}{:>18}",
        "Variation", "IPDV mean", "IPDV P99", "PDV P99", "PDV max", "[RFC3393, 5481]"
    ));
    lines.push("-".repeat(WIDTH));
    lines.extend(rows.iter().take(3).map(|(name, _, delay)| {
        let ipdv = delay.and_then(|d| d.ipdv);
        let cells = [
            ipdv.map(|i| i.mean_abs),
            ipdv.and_then(|i| i.p99_abs).map(magnitude),
            delay.and_then(|d| d.pdv.p99).map(magnitude),
            delay
                .filter(|d| d.samples > 1)
                .map(|d| magnitude(d.pdv.max)),
        ];
        label(name, false) + &cells.map(cell).join("  ")
    }));
    lines.push("-".repeat(WIDTH));
    let gaps = lines
        .iter()
        .any(|line| line.contains(" - ") || line.ends_with(" -"));
    let legend = "IPDV: absolute difference of consecutive packets. PDV: delay above the smallest.";
    lines.push(wrap(&format!("{} {legend}", own_time(report)), 2));
    if gaps {
        let delays = rows.iter().filter_map(|(_, _, delay)| *delay);
        lines.push(wrap(&dash(delays, false), 2));
    }
    lines.extend(out_of_range(report));
    lines
}

fn packets(report: &Report) -> Vec<String> {
    let packets = &report.packets;
    let mut first = vec![
        format!("sent {}", known(packets.sent)),
        format!("received {}", known(packets.received)),
        lost(packets),
    ];
    let unresolved = packets.unresolved.filter(|n| *n > 0);
    first.extend(unresolved.map(|n| format!("still awaited when interrupted {}", count(n))));
    let bursts = packets.loss_bursts.filter(|_| packets.lost > Some(0));
    first.extend(bursts.map(|bursts| {
        let mean = bursts
            .mean
            .map_or(String::new(), |mean| format!(", mean {mean:.1}"));
        let lasted = bursts
            .longest_ns
            .map(|ns| seconds(magnitude(ns) / SECOND_NS));
        let lasted = lasted.map_or(String::new(), |lasted| format!(", about {lasted}"));
        format!(
            "loss bursts {} (longest {}{lasted}{mean})",
            count(bursts.count),
            count(bursts.longest)
        )
    }));
    let directed = |name, all: Option<u64>, outbound: Option<u64>, inbound: Option<u64>| {
        let parts = outbound.zip(inbound).filter(|_| all > Some(0));
        let parts = parts.map_or(String::new(), |(outbound, inbound)| {
            format!(
                " ({} outbound, {} inbound)",
                count(outbound),
                count(inbound)
            )
        });
        format!("{name} {}{parts}", known(all))
    };
    let mut second = vec![
        directed(
            "duplicates",
            packets.duplicates,
            packets.duplicates_outbound,
            packets.duplicates_inbound,
        ),
        directed(
            "reordered",
            packets.reordered,
            packets.reordered_outbound,
            packets.reordered_inbound,
        ),
        match packets.late {
            Some(late) if late > 0 => format!("late {} (counted as lost)", count(late)),
            late => format!("late {}", known(late)),
        },
        format!("not sent {}", known(packets.not_sent)),
        invalid(packets),
    ];
    let probes = packets.probes.filter(|n| *n > 0);
    second.extend(probes.map(|n| format!("probes {} (not in sent)", count(n))));
    let rare = [
        ("ICMP errors", packets.icmp_unreachable),
        ("without a usable timestamp", packets.rejected_samples),
        ("missing from the delays", report.host.samples_not_recorded),
    ];
    let rare = rare.into_iter().filter(|(_, n)| *n > Some(0));
    second.extend(rare.map(|(name, n)| format!("{name} {}", known(n))));
    vec![listing("Packets", &first, "  "), listing("", &second, "  ")]
}

/// `invalid 12 (8 too short, 4 other T1)`.
fn invalid(packets: &Packets) -> String {
    let kinds = packets.ignored.filter(|ignored| ignored.total() > 0);
    let kinds = kinds.map_or(String::new(), |kinds| format!(" ({kinds})"));
    format!("invalid {}{kinds}", known(packets.invalid))
}

/// `lost 37 (0.037 %: 12 outbound, 20 inbound, 5 not known)`.
fn lost(packets: &Packets) -> String {
    let Some(lost) = packets.lost else {
        return "lost -".to_owned();
    };
    let (late, unknown) = late_and_unknown(packets);
    let directions = [
        (packets.lost_outbound, "outbound"),
        (packets.lost_inbound, "inbound"),
        (late, "late"),
        (unknown, "direction not known"),
    ];
    let directions = directions.map(|(n, name)| n.map(|n| format!("{} {name}", count(n))));
    let directions: Vec<String> = directions.into_iter().flatten().collect();
    let directions = match directions.as_slice() {
        _ if lost == 0 => String::new(),
        // Without one reply, nothing tells a direction.
        _ if packets.received == Some(0) => ": direction not known".to_owned(),
        [] => ": direction not known".to_owned(),
        _ => format!(": {}", directions.join(", ")),
    };
    let percent = packets.settled().and_then(|of| percent(lost, of, 3));
    let percent = percent.map_or("-".to_owned(), |percent| percent + " %");
    format!("lost {} ({percent}{directions})", count(lost))
}

fn load(report: &Report) -> Vec<String> {
    let load = &report.load;
    let mut rates = Vec::new();
    rates.push(match (load.offered_pps, load.schedule) {
        (Some(pps), _) => format!("offered {}", rate(pps)),
        (None, Schedule::Flood) => "offered as many as this host can".to_owned(),
        (None, _) => "offered -".to_owned(),
    });
    let share = load
        .achieved_pps
        .zip(load.offered_pps)
        .filter(|(_, offered)| *offered > 0.0);
    let share = share.map_or(String::new(), |(achieved, offered)| {
        format!(" ({:.2} % of offered)", achieved / offered * 100.0)
    });
    rates.push(format!(
        "achieved {}{share}",
        load.achieved_pps.map_or("-".to_owned(), rate)
    ));
    rates.extend(
        load.achieved_bps_l2
            .map(|bps| format!("{} L2", megabits(bps))),
    );
    let mut lines = vec![
        listing("Load", &rates, ", "),
        listing("Schedule", &schedule(report, load), ", "),
    ];
    match load.sizes.as_slice() {
        [] => {}
        [size] => lines.push(format!(
            "{:LABEL$}{} bytes Ethernet frame without FCS ({} bytes UDP payload)",
            "Size", size.frame_bytes_l2, size.payload_bytes
        )),
        sizes => lines.extend(mix(load.profile, sizes)),
    }
    lines.extend(mtu(report).map(|line| format!("{:LABEL$}{line}", "")));
    lines
}

/// What the path's MTU makes of the packets, where it matters.
fn mtu(report: &Report) -> Option<String> {
    let (packets, mtu) = (&report.packets, report.path.mtu?);
    let fragments: Vec<String> = (report.load.sizes.iter())
        .filter_map(|size| {
            let fragments = size.fragments.filter(|fragments| *fragments > 1)?;
            Some(format!(
                "{} bytes leave in {fragments} fragments",
                size.frame_bytes_l2
            ))
        })
        .collect();
    let refused = packets.not_sent_causes.iter();
    let told = packets.icmp.iter().flatten();
    let too_large = refused
        .map(|not_sent| not_sent.cause == Cause::TooLarge)
        .chain(told.map(|icmp| icmp.kind == IcmpKind::PacketTooBig))
        .any(|too_large| too_large);
    match fragments.as_slice() {
        [] if too_large => Some(format!("the MTU of the path is {mtu}")),
        [] => None,
        fragments => Some(format!(
            "{}: the MTU of the path is {mtu}",
            fragments.join(", ")
        )),
    }
}

fn schedule(report: &Report, load: &Load) -> Vec<String> {
    let mut parts = vec![
        match load.schedule {
            Schedule::Periodic => "periodic (RFC 3432)",
            Schedule::Poisson => "Poisson (RFC 2330)",
            Schedule::Uniform => "uniformly distributed gaps",
            Schedule::Flood => "flood, no gaps",
        }
        .to_owned(),
    ];
    let random = matches!(load.schedule, Schedule::Poisson | Schedule::Uniform)
        || load.profile != Profile::Fixed;
    parts.extend(
        load.seed
            .filter(|_| random)
            .map(|seed| format!("seed {seed}")),
    );
    if load.burst > 1 {
        parts.push(format!("trains of up to {} packets", load.burst));
    }
    parts.extend(report.duration_ns.map(|ns| {
        format!(
            "{} from first to last departure",
            seconds(magnitude(ns) / SECOND_NS)
        )
    }));
    if report.interrupted {
        parts.push("interrupted by a signal".to_owned());
    }
    parts.extend(load.late_departures.map(|late| {
        let many = report
            .packets
            .sent
            .is_some_and(|sent| late * BURSTY_ONE_IN > sent);
        let bursty = if many && late > 2 {
            ": burstier than asked for"
        } else {
            ""
        };
        format!(
            "{} packets left more than one interval late{bursty}",
            count(late)
        )
    }));
    let slip = load.max_slip_ns;
    parts.extend(slip.map(|slip| format!("largest slip {}", delay(magnitude(slip)))));
    parts
}

/// A table with one line a size.
fn mix(profile: Profile, sizes: &[SizeEntry]) -> Vec<String> {
    let name = match profile {
        Profile::Fixed => "one size",
        Profile::Imix => "simple IMIX 7:4:1",
        Profile::Custom => "custom mix",
    };
    let line = |cells: [&str; 5]| {
        let [frame, payload, sent, received, median] = cells;
        format!("{frame:>22}{payload:>13}{sent:>14}{received:>14}{median:>15}")
    };
    let mut lines = vec![
        format!(
            "{:LABEL$}{name}; frame: Ethernet without FCS; payload: UDP",
            "Sizes"
        ),
        line(["frame", "payload", "sent", "received", "Roundtrip P50"]),
    ];
    lines.extend(sizes.iter().map(|size| {
        line([
            &format!("{} bytes", size.frame_bytes_l2),
            &format!("{} bytes", size.payload_bytes),
            &count(size.packets),
            &known(size.received),
            &cell(size.roundtrip.as_ref().map(|d| ns(d.median))),
        ])
    }));
    lines
}

fn timestamps(report: &Report) -> Vec<String> {
    let stamps = &report.timestamps;
    if stamps.t1.or(stamps.t2).or(stamps.t4).is_none() {
        return vec!["none: no delay was measured".to_owned()];
    }
    let kind = |name, kind: Option<StampKind>, missing| match kind {
        Some(StampKind::Hardware) => format!("{name} hardware"),
        Some(StampKind::Kernel) => format!("{name} kernel"),
        Some(StampKind::Userspace) => format!("{name} userspace"),
        None => format!("{name} {missing}"),
    };
    let mut parts = vec![
        kind("T1", stamps.t1, "not taken") + &transmit_stamps(report, stamps),
        kind("T2", stamps.t2, "not told by the reflector"),
        kind("T4", stamps.t4, "not taken"),
    ];
    if stamps.granularity == Some(Granularity::Train) {
        parts.push("one stamp for all packets of a train or bundle".to_owned());
    }
    let stamps = report
        .host
        .tx_stamps_received
        .zip(report.host.tx_stamps_requested);
    parts.extend(
        stamps.map(|(came, asked)| {
            format!("{} of {} transmit stamps came", count(came), count(asked))
        }),
    );
    parts
}

/// ` (2 packets in 16: 125,000 of 1,000,000 replies carry one)`, which is what T1 is known of.
fn transmit_stamps(report: &Report, stamps: &Timestamps) -> String {
    let Some(one_in) = stamps.tx_stamp_one_in else {
        return String::new();
    };
    let what = if report.load.burst > 1 {
        "train"
    } else {
        "packet"
    };
    let most = stamps.tx_stamp_one_in_most.unwrap_or(one_in);
    let every = match (one_in, most) {
        (1, 1) => format!("every {what}"),
        (1, most) => format!("every {what}, at times 2 in {}", count(most.into())),
        (n, most) if n == most => format!("2 {what}s in {}", count(n.into())),
        (n, most) => format!("2 {what}s in {} to {}", count(n.into()), count(most.into())),
    };
    // T1 is in the round trip, but not in the inbound delay, which every reply has.
    let delays = &report.delay_ns;
    let samples = delays.roundtrip.as_ref().zip(delays.inbound.as_ref());
    let samples = samples.map(|(roundtrip, inbound)| {
        // Where a clock was set, Inbound is of a part of the session.
        let spread = stamps.t1_spread.as_ref();
        let all = spread.map_or(inbound.samples, |spread| spread.replies.iter().sum());
        (roundtrip.samples, all)
    });
    match samples {
        None => format!(" ({every})"),
        Some((with, all)) if with == all => {
            format!(" ({every}: all {} replies carry one)", count(all))
        }
        Some((with, all)) => format!(
            " ({every}: {} of {} replies carry one; Outbound and Roundtrip rest on these, weighed by \
             the replies that they stand for{})",
            count(with),
            count(all),
            uneven(stamps.t1_spread.as_ref())
        ),
    }
}

/// `, 0.2 to 12.5 % of those in 268 ms`, where that differs much over the session.
fn uneven(spread: Option<&Spread>) -> String {
    let Some(spread) = spread else {
        return String::new();
    };
    let most = spread.replies.iter().max().copied().unwrap_or(0);
    // In a short stretch there is little to be told.
    let shares = spread.replies.iter().zip(&spread.samples);
    let mut shares: Vec<(u64, u64)> = shares
        .filter(|(replies, _)| **replies * 8 >= most.max(8))
        .map(|(replies, samples)| (*samples, *replies))
        .collect();
    shares.sort_by(|(a, of_a), (b, of_b)| (a * of_b).cmp(&(b * of_a)));
    let (Some((low, of_low)), Some((high, of_high))) = (shares.first(), shares.last()) else {
        return String::new();
    };
    if 2 * low * of_high >= high * of_low {
        return String::new();
    }
    let length = u32::try_from(spread.stretch_ns / 1_000_000).unwrap_or(u32::MAX);
    format!(
        "; unevenly: in stretches of {} {low} of {of_low} to {high} of {of_high} replies",
        delay(f64::from(length) * 1e6)
    )
}

fn clock(report: &Report) -> Vec<String> {
    let clock = &report.timestamps.clock;
    if clock.same_clock {
        return vec!["both ends share one clock: one-way delays contain no offset".to_owned()];
    }
    let synchronised = match (clock.local_synchronised, clock.remote_synchronised) {
        (Some(true), Some(true)) => "both ends synchronised",
        (Some(true), Some(false)) => "only this end synchronised",
        (Some(false), Some(true)) => "only the other end synchronised",
        (Some(false), Some(false)) => "neither end synchronised",
        (Some(true), None) => "this end synchronised, the other end not known",
        (Some(false), None) => "this end not synchronised, the other end not known",
        (None, Some(true)) => "the other end synchronised, this end not known",
        (None, Some(false)) => "the other end not synchronised, this end not known",
        (None, None) => "not known whether either end is synchronised",
    };
    let errors = [
        (clock.local_synchronised, clock.local_error_ns, "here"),
        (clock.remote_synchronised, clock.remote_error_ns, "there"),
    ];
    let errors = errors
        .into_iter()
        .filter(|(synchronised, ..)| *synchronised == Some(true));
    let errors = errors.filter_map(|(_, error, end)| Some((magnitude(error?), end)));
    let errors: Vec<String> = errors
        .map(|(error, end)| format!("up to {} {end}", delay(error)))
        .collect();
    let errors = match errors.as_slice() {
        [] => String::new(),
        errors => format!(" (error {})", errors.join(", ")),
    };
    let mut parts = vec![format!("{synchronised}{errors}")];
    let one_way = report.delay_ns.outbound.is_some() || report.delay_ns.inbound.is_some();
    if one_way {
        parts.extend(offset_and_drift(report));
    }
    parts.extend(clock.offset_estimate_ns.map(|offset| {
        let size = delay(magnitude(offset.unsigned_abs()));
        let side = if offset < 0 { "behind" } else { "ahead of" };
        format!("the reflector's clock is {size} {side} ours if the path is symmetric")
    }));
    parts
}

/// What of the two clocks is in the one-way delays; `None` where that is nothing.
fn offset_and_drift(report: &Report) -> Option<String> {
    let clock = &report.timestamps.clock;
    let known = clock.drift_ppm.zip(clock.drift_error_ppm);
    let taken_out = known.filter(|_| clock.drift_taken_out == Some(true));
    let drift = taken_out.map(|(ppm, error)| {
        let speed = if ppm < 0.0 { "slow" } else { "fast" };
        let average = match clock.drift_changed {
            Some(true) => " on the average, not evenly",
            _ => "",
        };
        format!(
            "the reflector's clock is {:.1} ppm {speed}{average} (error {error:.1} ppm), which is \
             taken out of one-way delays",
            ppm.abs()
        )
    });
    let offset = "one-way delays contain the clocks' offset";
    if let Some(tick) = clock.remote_tick_ns {
        let tick = delay(magnitude(tick));
        let read = format!(
            "the reflector's clock is read in steps of up to {tick}, which are in one-way delays"
        );
        let offset = (!both_synchronised(clock)).then(|| offset.to_owned());
        let parts: Vec<String> = offset.into_iter().chain(drift).chain([read]).collect();
        return Some(parts.join("; "));
    }
    if both_synchronised(clock) {
        return drift;
    }
    Some(match (drift, known) {
        (Some(drift), _) => format!("{offset}; {drift}: only their variation is the path's"),
        (None, None) => format!("{offset}, and their variation what the clocks drift apart"),
        (None, Some((ppm, error))) => {
            let most = (ppm.abs() + error) / 1e6 * magnitude(report.duration_ns.unwrap_or(0));
            let one_way = [&report.delay_ns.outbound, &report.delay_ns.inbound];
            let variation = one_way
                .into_iter()
                .flatten()
                .map(|delay| delay.pdv.p99.unwrap_or(delay.pdv.max));
            // A tenth of the variation is not to be seen in it.
            if variation
                .min()
                .is_some_and(|least| most <= magnitude(least) / 10.0)
            {
                format!("{offset}: only their variation is the path's")
            } else {
                format!(
                    "{offset}, and their variation may contain {} of the clocks' drift",
                    delay(most)
                )
            }
        }
    })
}

fn path(report: &Report) -> Vec<String> {
    let path = &report.path;
    let told = |n: Option<u8>| n.map_or("-".to_owned(), |n| n.to_string());
    let answered = report.packets.received > Some(0);
    let hops = |n: Option<u8>| match n {
        None if answered => "not told".to_owned(),
        n => told(n),
    };
    let mut parts = vec![format!(
        "hops {} outbound, {} inbound{}",
        hops(path.hops_outbound),
        hops(path.hops_inbound),
        match path.hops_changed {
            Some(true) => " (changed during the session)",
            _ => "",
        }
    )];
    let class = |n: Option<u8>| n.map_or("-".to_owned(), dscp);
    let at_reflector =
        |n: Option<u8>| n.map_or(String::new(), |n| format!(", {n} at the reflector"));
    parts.push(format!(
        "DSCP {} sent{}, {} received",
        class(path.dscp_sent),
        path.dscp_at_reflector
            .map_or(String::new(), |n| format!(", {} at the reflector", dscp(n))),
        class(path.dscp_received)
    ));
    if path.ecn_at_reflector > Some(0) || path.ecn_received > Some(0) {
        parts.push(format!(
            "ECN {} received{}",
            told(path.ecn_received),
            at_reflector(path.ecn_at_reflector)
        ));
    }
    parts.extend(path.reply_bytes.as_ref().map(|sizes| {
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        format!("replies of {} bytes UDP payload", sizes.join(", "))
    }));
    parts
}

fn host(report: &Report) -> Vec<String> {
    let (host, cpu) = (&report.host, &report.host.cpu);
    let mut parts = Vec::new();
    let time = |value: Option<f64>| value.map_or("-".to_owned(), seconds);
    parts.push(format!(
        "CPU {} user, {} system",
        time(cpu.user_seconds),
        time(cpu.system_seconds)
    ));
    let pinned = |thread, cpus: &Option<Vec<usize>>| match cpus.as_deref() {
        None => format!("{thread} not pinned"),
        Some([cpu]) => format!("{thread} on CPU {cpu}"),
        Some(cpus) => {
            let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
            format!("{thread} on CPUs {}", cpus.join(", "))
        }
    };
    parts.push(pinned("sender", &cpu.sender));
    parts.push(pinned("receiver", &cpu.receiver));
    let drops = dropped(host.kernel_drops, host.io == Io::Offload);
    parts.push(format!("kernel drops {drops}"));
    let buffer = host
        .receive_buffer_bytes
        .map(|bytes| group(&bytes.to_string()));
    parts.extend(buffer.map(|bytes| format!("receive buffer {bytes} bytes")));
    let memory = host.peak_memory_bytes.map(magnitude);
    parts.extend(memory.map(|bytes| format!("peak memory {:.1} MiB", bytes / MIB)));
    parts.push(
        match host.io {
            Io::Batched => "batched system calls",
            Io::Offload => "segmentation offload",
            Io::Portable | Io::Single => "one datagram a system call",
        }
        .to_owned(),
    );
    parts
}

fn verdict(report: &Report) -> Vec<String> {
    let (packets, host) = (&report.packets, &report.host);
    let mut lines = Vec::new();
    match (packets.sent, packets.received) {
        (Some(0), _) => lines.push("NOTHING WAS SENT".to_owned()),
        (Some(sent), Some(0)) if packets.unresolved > Some(0) => lines.push(wrap(
            &format!(
                "NOTHING CAME BACK until the interruption: {} of {} packets lost, {} still awaited",
                known(packets.lost),
                count(sent),
                known(packets.unresolved)
            ),
            2,
        )),
        (Some(sent), Some(0)) if packets.lost.is_some() => {
            let mut text = format!(
                "NOTHING CAME BACK: 100 % loss ({} sent, no reply before the timeout",
                count(sent)
            );
            let more = [
                ("late replies", packets.late),
                ("ICMP errors", packets.icmp_unreachable),
            ];
            for (name, n) in more.into_iter().filter(|(_, n)| *n > Some(0)) {
                text += &format!(", {name} {}", known(n));
            }
            if let Some((kind, n)) = packets.ignored.and_then(|ignored| ignored.most()) {
                text += &format!("; {}", ignored::sentence(kind, n));
            }
            lines.push(wrap(&(text + ")"), 2));
        }
        _ => {}
    }
    let ruling = match host.verdict {
        Verdict::Ok => "host verdict: ok".to_owned(),
        Verdict::NothingMeasured => "host verdict: none, since nothing was measured".to_owned(),
        // Where there are no figures none is spared.
        Verdict::ToolLimited if packets.received == Some(0) => {
            "host verdict: tool-limited; nothing was measured".to_owned()
        }
        Verdict::ToolLimited => {
            format!("host verdict: tool-limited{}", spoiled(&host.reasons))
        }
    };
    lines.push(wrap(&ruling, 2));
    lines.extend(
        host.reasons
            .iter()
            .map(|reason| wrap(&format!("- {reason}"), 2)),
    );
    lines
}

/// `: the load; loss and delays are the path's own`.
fn spoiled(reasons: &[Reason]) -> String {
    let spoiled: Vec<Figure> = reasons
        .iter()
        .flat_map(|reason| reason.spoils().iter().copied())
        .collect();
    if spoiled.is_empty() {
        return String::new();
    }
    let delays = [
        (Figure::Outbound, "outbound"),
        (Figure::Inbound, "inbound"),
        (Figure::Roundtrip, "roundtrip"),
    ];
    // Delays are named one by one only where some are spoiled and some are not.
    let told = |which: bool| {
        let mut names = Vec::new();
        for (figure, name) in [(Figure::Load, "the load"), (Figure::Loss, "loss")] {
            names.extend((spoiled.contains(&figure) == which).then(|| name.to_owned()));
        }
        let some = delays
            .iter()
            .filter(|(figure, _)| spoiled.contains(figure) == which);
        let some: Vec<&str> = some.map(|(_, name)| *name).collect();
        match some.as_slice() {
            [] => {}
            all if all.len() == delays.len() => names.push("delays".to_owned()),
            some => names.push(format!("{} delays", some.join(" and "))),
        }
        and(&names)
    };
    match told(false).as_str() {
        "" => format!(": {}", told(true)),
        sound => format!(": {}; {sound} are not touched", told(true)),
    }
}

/// `a, b and c`.
fn and(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A label and items with `separator` between; lines break between items where they can.
fn listing(label: &str, items: &[String], separator: &str) -> String {
    let (mark, gap) = separator.split_at(separator.find(' ').unwrap_or(0));
    let last = items.len().saturating_sub(1);
    let items = items.iter().enumerate();
    let items = items.map(|(at, item)| format!("{item}{}", if at < last { mark } else { "" }));
    let items: Vec<String> = items.collect();
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    flow(&format!("{label:LABEL$}"), LABEL, &items, gap)
}

/// Late departures from which a load is called burstier than asked for: one in this many.
const BURSTY_ONE_IN: u64 = 20;
/// Columns of a label before running text.
const LABEL: usize = 11;
const MIB: f64 = 1_048_576.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::tests::{full, minimal};
    use crate::report::{DelaySet, LossBursts};

    fn fits(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert!(line.is_ascii(), "{line}");
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn durations_read_as_twampys() {
        for (ns, text) in [
            (147_000.0, "     147us"),
            (147_999.0, "     147us"),
            (1_050_000.0, "    1.05ms"),
            (999_999.0, "     999us"),
            (430.0, "     430ns"),
            (-250.0, "    -250ns"),
            (-1_050_000.0, "   -1.05ms"),
            (1.5e9, "   1.50sec"),
            (12.34e9, "   12.3sec"),
            (60_001e6, "    1.0min"),
            (0.0, "       0us"),
            (f64::NAN, "         -"),
        ] {
            assert_eq!(dp(ns), text, "{ns}");
        }
    }

    #[test]
    fn the_table_is_twampys_column_by_column() {
        let mut report = full();
        report.timestamps.clock.same_clock = true;
        report.packets.sent = Some(1000);
        report.packets.lost = Some(15);
        report.packets.lost_outbound = Some(10);
        report.packets.lost_inbound = Some(5);
        report.packets.lost_unattributed = Some(0);
        for delay in [
            &mut report.delay_ns.outbound,
            &mut report.delay_ns.inbound,
            &mut report.delay_ns.roundtrip,
        ] {
            let delay = delay.as_mut().unwrap();
            (delay.min, delay.max, delay.mean) = (147_000, 229_000, 185_000.0);
            delay.jitter = Some(23_000.0);
        }
        let expected = super::super::heading::of(&report)
            + "\
===============================================================================
Direction         Min         Max         Avg          Jitter     Loss
-------------------------------------------------------------------------------
  Outbound:         147us       229us       185us        23us      1.0%
  Inbound:          147us       229us       185us        23us      0.5%
  Roundtrip:        147us       229us       185us        23us      1.5%
-------------------------------------------------------------------------------
                                                    Jitter Algorithm [RFC3550]
===============================================================================
";
        let text = summary(&report, Detail::Normal);
        assert!(text.starts_with(&expected), "{text}");
        fits(&text);
    }

    #[test]
    fn what_was_not_measured_is_a_dash_and_never_zero() {
        let mut report = minimal();
        report.packets.sent = Some(10);
        report.packets.received = Some(0);
        report.packets.lost = Some(10);
        let text = summary(&report, Detail::Normal);
        fits(&text);
        assert!(text.contains("NOTHING CAME BACK: 100 % loss"), "{text}");
        for name in ["Outbound", "Inbound", "Roundtrip"] {
            let row = text.lines().find(|l| l.contains(&format!("{name}:")));
            let row = row.unwrap();
            assert!(!row.contains("us") && !row.contains(" 0.0%"), "{row}");
        }
        assert!(text.contains("100.0%"));
    }

    #[test]
    fn of_trains_it_is_trains_that_are_stamped() {
        let mut report = full();
        for (burst, what) in [(1, "2 packets in 16"), (32, "2 trains in 16")] {
            report.load.burst = burst;
            let text = summary(&report, Detail::Normal);
            assert!(text.contains(what), "{text}");
        }
    }

    #[test]
    fn samples_that_lie_unevenly_over_the_session_are_said_to() {
        let mut report = full();
        report.load.burst = 1;
        if let Some(roundtrip) = &mut report.delay_ns.roundtrip {
            roundtrip.samples /= 8;
        }
        let text = summary(&report, Detail::Normal).replace("\n           ", " ");
        assert!(text.contains("2 packets in 16 to 64"), "{text}");
        report.timestamps.t1_spread = Some(Spread {
            stretch_ns: 1 << 28,
            replies: vec![report.delay_ns.roundtrip.as_ref().unwrap().samples],
            samples: vec![1],
        });
        let inbound = report.delay_ns.inbound.as_mut().unwrap();
        inbound.samples = 1;
        let text = summary(&report, Detail::Normal).replace("\n           ", " ");
        assert!(text.contains("all 125,000 replies carry one"), "{text}");
        for (samples, said) in [(vec![12, 13, 1], false), (vec![12, 3, 1], true)] {
            report.timestamps.t1_spread = Some(Spread {
                stretch_ns: 1 << 28,
                // The last one is short.
                replies: vec![100, 100, 10],
                samples,
            });
            let text = summary(&report, Detail::Normal);
            fits(&text);
            let text = text.replace("\n           ", " ");
            assert_eq!(text.contains("3 of 100 to 12 of 100"), said, "{text}");
        }
    }

    #[test]
    fn a_stateless_reflector_leaves_the_directions_open() {
        let mut report = full();
        report.packets.lost_outbound = None;
        report.packets.lost_inbound = None;
        report.packets.lost_unattributed = None;
        let text = summary(&report, Detail::Normal);
        let row = text.lines().find(|l| l.contains("  Outbound")).unwrap();
        assert!(row.ends_with('-'), "{row}");
        fits(&text);
    }

    #[test]
    fn late_replies_are_not_said_to_have_left_last() {
        let mut report = full();
        let packets = &mut report.packets;
        (packets.lost, packets.lost_outbound, packets.lost_inbound) = (Some(36), Some(4), Some(3));
        (packets.lost_unattributed, packets.late) = (Some(29), Some(29));
        let words = |report: &Report| {
            let text = summary(report, Detail::Normal);
            fits(&text);
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let text = words(&report);
        let unknown = ["+ At least", "direction not known"];
        assert!(!unknown.iter().any(|part| text.contains(part)), "{text}");
        for part in [
            "Of 36 lost packets 29 came back after the timeout",
            "4 outbound, 3 inbound, 29 late)",
        ] {
            assert!(text.contains(part), "{text}");
        }
        report.packets.late = Some(20);
        let text = words(&report);
        for part in [
            "+ At least: the direction of 9 of 36 lost packets is",
            "20 late, 9 direction not known",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_dscp_is_shown_with_the_name_by_which_it_can_be_typed() {
        let mut report = full();
        report.path.dscp_sent = Some(34);
        report.path.dscp_received = Some(0);
        let text = summary(&report, Detail::Normal);
        assert!(text.contains("DSCP 34 (af41) sent"), "{text}");
        assert!(text.contains(" 0 received"), "{text}");
    }

    #[test]
    fn unsynchronised_clocks_are_marked_at_the_figures() {
        let mut report = full();
        let clock = &mut report.timestamps.clock;
        clock.steps.clear();
        clock.same_clock = false;
        clock.local_synchronised = Some(false);
        clock.remote_synchronised = Some(true);
        let text = summary(&report, Detail::Normal);
        assert!(text.contains("Outbound*:") && text.contains("Inbound*:"));
        assert!(!text.contains("Roundtrip*"));
        assert!(text.contains("* The clocks of the two ends are not known to agree"));
        fits(&text);
    }

    #[test]
    fn a_tool_limited_run_says_why_in_its_last_lines() {
        let mut report = full();
        report.host.verdict = Verdict::ToolLimited;
        report.host.reasons = vec![Reason::SocketDrops {
            datagrams: 5,
            bundles: false,
        }];
        report.packets.loss_bursts = Some(LossBursts {
            count: 1,
            longest: 5,
            longest_ns: Some(5_000_000),
            mean: Some(5.0),
        });
        let text = summary(&report, Detail::Normal);
        let end = "host verdict: tool-limited: loss; the load and delays are not touched\n- this host's own sockets dropped 5 datagrams for want of room; they count as\n  lost, and are not the path's loss\n";
        assert!(text.ends_with(end), "{text}");
        fits(&text);
    }

    #[test]
    fn a_verdict_says_which_figures_are_spoiled_and_which_are_not() {
        let slow = Reason::RateNotKept {
            offered_pps: 1000.0,
            achieved_pps: 900.0,
        };
        let unstamped = Reason::TransmitStampsMissing {
            missing: 1,
            requested: 2,
        };
        let unrecorded = Reason::SamplesNotRecorded { replies: 1 };
        let dropped = Reason::SocketDrops {
            datagrams: 1,
            bundles: false,
        };
        for (reasons, expected) in [
            (vec![slow], "the load; loss and delays are not touched"),
            (
                vec![unstamped.clone()],
                "outbound and roundtrip delays; the load, loss and inbound delays are not touched",
            ),
            (
                vec![unrecorded.clone(), unstamped],
                "delays; the load and loss are not touched",
            ),
            (
                vec![dropped, Reason::QueueFull { packets: 1 }, unrecorded],
                "the load, loss and delays",
            ),
        ] {
            assert_eq!(spoiled(&reasons), format!(": {expected}"));
        }
    }

    #[test]
    fn where_nothing_came_back_nothing_is_ok() {
        let mut report = full();
        report.host.verdict = Verdict::NothingMeasured;
        report.packets.received = Some(0);
        let text = summary(&report, Detail::Brief);
        assert!(text.contains("NOTHING CAME BACK"), "{text}");
        assert!(!text.contains("verdict: ok"), "{text}");
        assert!(text.contains("nothing was measured"), "{text}");
        report.host.verdict = Verdict::ToolLimited;
        let text = summary(&report, Detail::Brief);
        assert!(
            text.contains("tool-limited; nothing was measured"),
            "{text}"
        );
    }

    #[test]
    fn little_loss_does_not_read_as_none() {
        assert_eq!(loss(Some(1), Some(1_000_000)).trim(), "<0.1%");
        assert_eq!(loss(Some(0), Some(1_000_000)).trim(), "0.0%");
        assert_eq!(loss(None, Some(5)).trim(), "-");
        assert!(!loss(Some(999_999), Some(1_000_000)).contains("100.0%"));
    }

    #[test]
    fn drops_of_bundles_are_a_lower_bound() {
        for (drops, bundles, text) in [
            (None, true, "not told"),
            (Some(0), true, "0"),
            (Some(6490), false, "6,490"),
            (Some(6490), true, "6,490 or more"),
        ] {
            assert_eq!(dropped(drops, bundles), text);
        }
    }

    proptest! {
        #[test]
        fn no_duration_that_is_not_zero_reads_as_zero(value: i64) {
            let text = dp(ns(value));
            prop_assert!(text.len() >= 10);
            let number = text.trim().trim_end_matches(|c: char| c.is_alphabetic());
            if value != 0 {
                prop_assert!(number.parse::<f64>().unwrap() != 0.0, "{}", text);
            }
        }

        #[test]
        fn any_delays_fit_the_page(min: i64, max: i64, mean in -1e18..1e18) {
            let mut report = full();
            let set: &mut DelaySet = &mut report.delay_ns;
            for delay in [&mut set.roundtrip, &mut set.outbound, &mut set.reflector] {
                let delay = delay.as_mut().unwrap();
                (delay.min, delay.max, delay.mean) = (min, max, mean);
            }
            fits(&summary(&report, Detail::Normal));
        }
    }
}

#[cfg(test)]
mod snapshots;
