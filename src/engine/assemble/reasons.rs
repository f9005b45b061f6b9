//! In which ways this host, not the path, made the figures what they are.

use std::time::Duration;

use super::super::run::failed;
use super::super::sender::Sent;
use super::parts::{Parts, shares_stamps};
use crate::config::Departures;
use crate::report::{self, Reason};

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

/// Each way in which this host, not the path, made the figures what they are.
pub(super) fn reasons(
    parts: &Parts<'_>,
    kernel_drops: Option<u64>,
    load: &report::Load,
) -> Vec<Reason> {
    let failed_for_good = [
        (parts.received.failure.map(failed)).map(Reason::ReceivingFailed),
        (parts.sent.thread.failure.map(failed)).map(Reason::SendingFailed),
        (parts
            .reflected
            .and_then(|(totals, _)| totals.failure.clone()))
        .map(Reason::ReflectorFailed),
    ];
    // The kernel counts a bundle that it drops as one.
    let bundles = shares_stamps(parts);
    let drops = counted(kernel_drops.unwrap_or(0), |datagrams| Reason::SocketDrops {
        datagrams,
        bundles,
    });
    let replies = counted(parts.received.unrecorded, |replies| {
        Reason::SamplesNotRecorded { replies }
    });
    failed_for_good
        .into_iter()
        .chain([drops])
        .chain(not_sent(parts))
        .chain(waited(parts))
        .chain(departures(parts, load))
        .chain([unstamped(parts), replies])
        .flatten()
        .collect()
}

/// A reason where there is something to count.
fn counted(count: u64, reason: impl FnOnce(u64) -> Reason) -> Option<Reason> {
    (count > 0).then(|| reason(count))
}

/// Packets that did not leave.
fn not_sent(parts: &Parts<'_>) -> [Option<Reason>; 5] {
    let sent = parts.sent;
    [
        counted(sent.withheld.overdue, |packets| Reason::BehindSchedule {
            packets,
        }),
        counted(sent.withheld.turned_away(), |packets| Reason::Refused {
            packets,
        }),
        counted(sent.gave_up, |threads| Reason::GaveUp { threads }),
        counted(sent.withheld.no_room, |packets| Reason::QueueFull {
            packets,
        }),
        counted(parts.never_left, |packets| Reason::NeverLeft { packets }),
    ]
}

/// Packets that waited in this host, and what came of it.
fn waited(parts: &Parts<'_>) -> [Option<Reason>; 2] {
    let (waits, requested) = (&parts.received.facts.stamps.waits, parts.sent.stamps.count);
    let many = waits.count > FEW_LATE && waits.count * MISSED_ONE_IN > requested;
    let late = parts.received.counts.late * u64::from(waits.count > 0);
    [
        (many || late > 0).then(|| Reason::WaitedInHost {
            longest_ns: waits.longest_ns.unsigned_abs(),
            waits: waits.count,
            requested,
        }),
        counted(late, |replies| Reason::LateForWaiting { replies }),
    ]
}

/// Packets that left, but not as they should.
fn departures(parts: &Parts<'_>, load: &report::Load) -> [Option<Reason>; 2] {
    let (sent, late) = (parts.sent, parts.sent.times.late);
    let rates = load.offered_pps.zip(load.achieved_pps);
    let slow =
        rates.filter(|(offered, achieved)| late > FEW_LATE && !kept(parts, *offered, *achieved));
    let random = matches!(
        parts.config.departures,
        Departures::Poisson(_) | Departures::Uniform { .. }
    );
    // Departures that were late and made up for it leave a burstier load, which is told with the load:
    // loss and delays are those of the packets as they left.
    let behind = random && late * MISSED_ONE_IN > sent.sent && fell_behind(sent);
    [
        slow.map(|(offered_pps, achieved_pps)| Reason::RateNotKept {
            offered_pps,
            achieved_pps,
        }),
        behind.then_some(Reason::LateDepartures {
            late,
            sent: sent.sent,
        }),
    ]
}

/// Transmit timestamps that are missing: their packets can have stayed in this host where none of those that
/// were answered is without.
fn unstamped(parts: &Parts<'_>) -> Option<Reason> {
    let (sent, facts) = (parts.sent, &parts.received.facts);
    let requested = sent.stamps.count;
    let missing = requested.saturating_sub(facts.stamps.back + parts.never_left);
    if missing == 0 || facts.stamps.back == 0 {
        return None;
    }
    let answered = parts.received.counts.received + parts.never_left;
    let unanswered = sent.sent.saturating_sub(answered);
    Some(match facts.stamps.lost == 0 && unanswered > 0 {
        true => Reason::MayNotHaveLeft {
            unstamped: missing.min(unanswered),
            unanswered,
        },
        false => Reason::TransmitStampsMissing { missing, requested },
    })
}

/// Whether the load had its rate. Random gaps do not add up to it: what they make of it is not this
/// host's doing.
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
    sent.times.last_ns.saturating_sub(sent.times.first_ns)
}

/// Whether departures were later than a moment, and than a hundredth of the time that they took.
fn fell_behind(sent: &Sent) -> bool {
    sent.times.max_slip_ns > MOMENT_NS.max(took_ns(sent) / 100)
}
