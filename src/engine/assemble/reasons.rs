//! In which ways this host, not the path, made the figures what they are.

use std::time::Duration;

use super::super::run::failed;
use super::super::sender::Sent;
use super::parts::{Parts, shares_stamps, turned_away};
use crate::config::Departures;
use crate::report::{self, ReasonCode};

/// Share of departures later than one interval from which the host is said to have missed them:
/// one in this many.
const MISSED_ONE_IN: u64 = 20;
/// The share of the rate that must be achieved.
const KEPT: f64 = 0.999;
/// The same where the last departure was late by no more than [`END`].
const KEPT_BUT_FOR_THE_END: f64 = 0.99;
/// Intervals by which the last departure of a short run may be late.
const A_FEW: f64 = 3.0;
/// So long a thread may not run at all where others want its core.
const END: Duration = Duration::from_millis(100);
/// Any host is late by so much now and then, in nanoseconds.
const MOMENT_NS: i64 = 20_000_000;
/// So many late departures say nothing yet.
const FEW_LATE: u64 = 2;

/// One sentence for each way in which this host, not the path, made the figures what they are.
pub(super) fn reasons(
    parts: &Parts<'_>,
    kernel_drops: Option<u64>,
    load: &report::Load,
) -> Vec<(ReasonCode, String)> {
    let (sent, received) = (parts.sent, parts.received);
    let mut reasons = Vec::new();
    if let Some(call) = received.failure.map(failed) {
        reasons.push((ReasonCode::ReceivingFailed, format!(
            "receiving failed until the end ({call}): replies that came then were not seen, and loss is \
             not known"
        )));
    }
    if let Some(call) = sent.failure.map(failed) {
        reasons.push((
            ReasonCode::SendingFailed,
            format!("sending failed until the end ({call}): what was due then did not leave"),
        ));
    }
    if let Some((totals, _)) = parts.reflected
        && let Some(call) = &totals.failure
    {
        reasons.push((
            ReasonCode::ReflectorFailed,
            format!("the reflector in this process failed for good ({call}): loss is its doing"),
        ));
    }
    if let Some(drops) = kernel_drops.filter(|drops| *drops > 0) {
        // The kernel counts a bundle that it drops as one.
        let what = if shares_stamps(parts) {
            format!("at least {drops} datagrams, bundles of several counted as one,")
        } else {
            format!("{drops} datagrams")
        };
        reasons.push((ReasonCode::SocketDrops, format!(
            "this host's own sockets dropped {what} for want of room; they count as lost, and are \
             not the path's loss"
        )));
    }
    if sent.overdue > 0 {
        reasons.push((
            ReasonCode::BehindSchedule,
            format!(
                "{} packets were further behind schedule than the timeout and were not sent",
                sent.overdue
            ),
        ));
    }
    let turned_away = turned_away(sent);
    if turned_away > 0 {
        reasons.push((
            ReasonCode::Refused,
            format!("this system refused {turned_away} packets: the load was less than asked for"),
        ));
    }
    if sent.gave_up > 0 {
        reasons.push((
            ReasonCode::GaveUp,
            format!(
                "{} threads stopped after 2 s: this system refused all of their packets",
                sent.gave_up
            ),
        ));
    }
    if sent.no_room > 0 {
        reasons.push((ReasonCode::QueueFull, format!(
            "this host's queue in front of the interface dropped {} packets; they were not sent",
            sent.no_room
        )));
    }
    if parts.never_left > 0 {
        reasons.push((
            ReasonCode::NeverLeft,
            format!(
                "{} packets never left this host (they have no transmit timestamp, and those that were \
                 answered do): a link without carrier or a next hop that does not answer dropped them; \
                 they were not sent",
                parts.never_left
            ),
        ));
    }
    reasons.extend(waited(parts));
    if let Some((offered, achieved)) = load.offered_pps.zip(load.achieved_pps)
        && !kept(parts, offered, achieved)
        && sent.late_departures > FEW_LATE
    {
        reasons.push((
            ReasonCode::RateNotKept,
            format!(
                "this host could not keep the rate: {:.2} % of it",
                achieved / offered * 100.0
            ),
        ));
    }
    // Departures that were late and made up for it leave a burstier load, which is told with the load:
    // loss and delays are those of the packets as they left.
    if sent.late_departures * MISSED_ONE_IN > sent.sent
        && matches!(
            parts.config.departures,
            Departures::Poisson(_) | Departures::Uniform { .. }
        )
        && fell_behind(sent)
    {
        reasons.push((
            ReasonCode::LateDepartures,
            format!(
                "{} of {} packets left more than one interval late: this host fell behind",
                sent.late_departures, sent.sent
            ),
        ));
    }
    let missing = sent
        .stamps_requested
        .saturating_sub(received.facts.stamps_back + parts.never_left);
    let unanswered = sent
        .sent
        .saturating_sub(received.counts.received + parts.never_left);
    if missing > 0 && may_not_have_left(parts) {
        let (missing, lost) = (missing.min(unanswered), unanswered);
        reasons.push((
            ReasonCode::MayNotHaveLeft,
            format!(
                "{missing} packets or trains of those that asked for a transmit timestamp have none and were not \
                 answered, while all that were answered have theirs: they may never have left this host, and \
                 others that asked for none neither; they are among the {lost} that are missing"
            ),
        ));
    } else if missing > 0 && received.facts.stamps_back > 0 {
        reasons.push((
            ReasonCode::TransmitStampsMissing,
            format!(
                "{missing} of {} transmit timestamps did not come back",
                sent.stamps_requested
            ),
        ));
    }
    if received.unrecorded > 0 {
        reasons.push((
            ReasonCode::SamplesNotRecorded,
            format!(
                "{} replies are missing from the delay figures: the statistics could not keep up \
             (packet counts are exact)",
                received.unrecorded
            ),
        ));
    }
    reasons
}

/// Whether the load had its rate. Random gaps do not add up to it: what they make of it is not this
/// host's doing.
/// Whether packets whose transmit timestamp is missing can have stayed in this host: none of those that were
/// answered is without.
fn may_not_have_left(parts: &Parts<'_>) -> bool {
    let (sent, received) = (parts.sent, parts.received);
    let unanswered = received.counts.received + parts.never_left < sent.sent;
    received.facts.stamps_back > 0 && received.facts.stamps_lost == 0 && unanswered
}

/// What is said of packets that waited in this host.
fn waited(parts: &Parts<'_>) -> Vec<(ReasonCode, String)> {
    let (sent, received) = (parts.sent, parts.received);
    let (waits, late) = (&received.facts.waits, received.counts.late);
    let mut reasons = Vec::new();
    let many = waits.count > FEW_LATE && waits.count * MISSED_ONE_IN > sent.stamps_requested;
    let of_late = late > 0 && waits.count > 0;
    if many || of_late {
        let longest = Duration::from_nanos(waits.longest_ns.unsigned_abs());
        reasons.push((
            ReasonCode::WaitedInHost,
            format!(
                "packets waited in this host for up to {longest:.1?} before they left ({} of {} transmit \
                 timestamps tell of more than an interval): for room in the queue in front of the interface, \
                 or for the next hop",
                waits.count, sent.stamps_requested
            ),
        ));
    }
    if of_late {
        reasons.push((
            ReasonCode::LateForWaiting,
            format!(
                "{late} replies came after their timeout, which began before their packets left this host: \
                 these count as lost, and may not be the path's loss"
            ),
        ));
    }
    reasons
}

fn kept(parts: &Parts<'_>, offered: f64, achieved: f64) -> bool {
    let even = matches!(parts.config.departures, Departures::Periodic(_));
    let share = achieved / offered;
    let took = Duration::from_nanos(took_ns(parts.sent).unsigned_abs());
    // By so much the last departure was late. The others may have been in time.
    let late = took.mul_f64((1.0 - share).clamp(0.0, 1.0));
    let alone = late <= END && late.as_secs_f64() <= A_FEW / offered;
    !even || share >= KEPT || share >= KEPT_BUT_FOR_THE_END && late <= END || alone
}

fn took_ns(sent: &Sent) -> i64 {
    sent.last_ns.saturating_sub(sent.first_ns)
}

/// Whether departures were later than a moment, and than a hundredth of the time that they took.
fn fell_behind(sent: &Sent) -> bool {
    sent.max_slip_ns > MOMENT_NS.max(took_ns(sent) / 100)
}
