//! What a trial says: whether its rate held, whose fault it was where not, and what many of them show.

use crate::config::Fraction;
use crate::report::Report;
use crate::report::find_rate::{Ceiling, CeilingKind, Outcome, Trial};

/// Whether a rate held, and if not, whose fault that was.
///
/// What this host's sockets dropped is the host's, as is what it did not send or sent too late, and
/// what may be lost because it made up for a delay by a burst; the rest of the loss is the path's,
/// which the reflector is part of. Where that is `inside` this process,
/// all of the path is this host.
pub(super) fn judge(report: &Report, bound: Fraction, trial_ns: u64, inside: bool) -> Outcome {
    let packets = &report.packets;
    let [sent, not_sent, lost] =
        [packets.sent, packets.not_sent, packets.lost].map(|count| count.unwrap_or(0));
    let beyond = |part, whole| bound.exceeded_by(part, whole);
    if packets.received == Some(0) {
        return Outcome::Nothing;
    }
    // A drop that the kernel counts may be of a whole train.
    let burst = u64::try_from(report.load.burst).unwrap_or(u64::MAX);
    let drops = report.host.kernel_drops.unwrap_or(0).saturating_mul(burst);
    if !inside && beyond(lost.saturating_sub(drops), sent) {
        return match lost <= sent_at_once(report) {
            true => Outcome::Host,
            false => Outcome::Path,
        };
    }
    if beyond(lost, sent) || beyond(not_sent, sent + not_sent) || fell_short(report, trial_ns) {
        return Outcome::Host;
    }
    Outcome::Held
}

/// Packets that may have left in one burst, after a delay of this host that was more than a moment.
fn sent_at_once(report: &Report) -> u64 {
    let slip = report.load.max_slip_ns.filter(|slip| *slip > MOMENT_NS);
    let offered = report.load.offered_pps;
    // Whole packets, and fewer than were sent: the cast saturates at worst.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a product of two quantities above 0"
    )]
    let packets = |(slip, pps): (u64, f64)| (slip as f64 / 1e9 * pps) as u64;
    slip.zip(offered).map_or(0, packets)
}

/// Whether the sender fell behind and did not make up for it. Either alone says nothing: random gaps
/// sum up to more or less than asked for, and a moment's delay is made up for.
fn fell_short(report: &Report, trial_ns: u64) -> bool {
    let load = &report.load;
    let slow = load
        .achieved_pps
        .zip(load.offered_pps)
        .is_some_and(|(achieved, offered)| achieved < offered * KEPT);
    slow && load
        .max_slip_ns
        .is_some_and(|slip| slip > (trial_ns / 100).max(MOMENT_NS))
}

/// What came back in the trials that were too fast, where it was the same whatever was offered.
///
/// Loss by chance takes its share of any load; what a limit lets through does not depend on it.
pub(super) fn ceiling(found: Option<u64>, trials: &[Trial]) -> Option<Ceiling> {
    let found = found? as f64;
    let beyond: Vec<&Trial> = trials
        .iter()
        .filter(|trial| trial.outcome == Outcome::Path)
        .filter(|trial| trial.offered_pps as f64 >= found * CLEARLY_BEYOND)
        .collect();
    let mut received: Vec<f64> = beyond.iter().filter_map(|trial| received(trial)).collect();
    if received.len() < 2 {
        return None;
    }
    received.sort_by(f64::total_cmp);
    let middle = received[received.len() / 2];
    let near = |pps: f64, part: f64| (pps - middle).abs() <= middle * part;
    // One that was disturbed is repeated, and does not hide what the others show.
    let same = received.iter().filter(|pps| near(**pps, SAME)).count();
    let flat = same >= 2 && same * 4 >= received.len() * 3 && near(found, SAME_AS_FOUND);
    flat.then(|| Ceiling {
        received_pps: middle,
        trials: same,
        kind: match waits(trials, &beyond) {
            true => CeilingKind::Queue,
            false => CeilingKind::RateLimit,
        },
    })
}

/// Packets a second that came back.
fn received(trial: &Trial) -> Option<f64> {
    let part = trial.sent.saturating_sub(trial.lost) as f64 / trial.sent as f64;
    trial.achieved_pps.map(|pps| pps * part)
}

/// Whether packets take longer in trials that were too fast than in those that held.
fn waits(trials: &[Trial], beyond: &[&Trial]) -> bool {
    let middle = |mut delays: Vec<i64>| {
        delays.sort_unstable();
        delays.get(delays.len() / 2).copied()
    };
    let held = trials.iter().filter(|trial| trial.outcome == Outcome::Held);
    let held = middle(held.filter_map(|trial| trial.roundtrip_median_ns).collect());
    let beyond = middle(
        beyond
            .iter()
            .filter_map(|t| t.roundtrip_median_ns)
            .collect(),
    );
    held.zip(beyond)
        .is_some_and(|(held, beyond)| beyond > held + (held / 2).max(LEAST_WAIT_NS))
}

/// A shorter delay may be of the last departure alone, in nanoseconds.
const MOMENT_NS: u64 = 20_000_000;
/// The part of the rate that must be sent.
const KEPT: f64 = 0.99;

/// A trial so much faster than what held lost by its rate.
const CLEARLY_BEYOND: f64 = 1.2;
/// What came back is the same where it differs by less than this part,
const SAME: f64 = 0.03;
/// and is what was found where it differs by less than this.
const SAME_AS_FOUND: f64 = 0.1;
/// A shorter wait may be this host's, in nanoseconds.
const LEAST_WAIT_NS: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    const SECOND: u64 = 1_000_000_000;

    /// A trial of 10,000 packets due in a second.
    fn report(not_sent: u64, lost: u64, drops: Option<u64>) -> Report {
        let mut report = full();
        report.packets.sent = Some(10_000 - not_sent);
        report.packets.not_sent = Some(not_sent);
        report.packets.lost = Some(lost);
        report.packets.received = Some(10_000 - not_sent - lost);
        report.host.kernel_drops = drops;
        report.load.burst = 1;
        report.load.offered_pps = Some(10_000.0);
        report.load.achieved_pps = Some(10_000.0);
        report.load.max_slip_ns = Some(1_000);
        report
    }

    #[test]
    fn loss_is_told_by_whose_it_is() {
        let judged = |not_sent, lost, drops, bound: &str| {
            let report = report(not_sent, lost, drops);
            judge(&report, bound.parse().unwrap(), SECOND, false)
        };
        assert_eq!(judged(0, 0, Some(0), "0"), Outcome::Held);
        assert_eq!(judged(0, 1, Some(0), "0"), Outcome::Path);
        assert_eq!(judged(0, 1, None, "0"), Outcome::Path);
        assert_eq!(judged(0, 1, Some(0), "0.01%"), Outcome::Held);
        assert_eq!(judged(0, 2, Some(0), "0.01%"), Outcome::Path);
        assert_eq!(judged(0, 2, Some(2), "0"), Outcome::Host);
        assert_eq!(judged(0, 3, Some(2), "0"), Outcome::Path);
        assert_eq!(judged(0, 3, Some(2), "0.01%"), Outcome::Host);
        assert_eq!(judged(1, 0, Some(0), "0"), Outcome::Host);
        assert_eq!(judged(1, 0, Some(0), "0.01%"), Outcome::Held);
        assert_eq!(judged(5, 5, Some(0), "0"), Outcome::Path);
        let lost = report(0, 3, Some(2));
        let inside = judge(&lost, Fraction::default(), SECOND, true);
        assert_eq!(inside, Outcome::Host, "there is no path");
        assert_eq!(judged(0, 10_000, Some(0), "0"), Outcome::Nothing);
        assert_eq!(judged(10_000, 0, Some(0), "0"), Outcome::Nothing);
    }

    #[test]
    fn a_dropped_datagram_may_be_a_whole_train() {
        let mut report = report(0, 64, Some(2));
        report.load.burst = 32;
        let judged = judge(&report, Fraction::default(), SECOND, false);
        assert_eq!(judged, Outcome::Host);
    }

    #[test]
    fn what_a_burst_of_this_host_may_have_cost_is_not_the_paths() {
        // 30 ms late: 300 packets at once.
        for (lost, slip, outcome) in [
            (300, 30_000_000, Outcome::Host),
            (301, 30_000_000, Outcome::Path),
            (300, 20_000_000, Outcome::Path),
        ] {
            let mut report = report(0, lost, Some(0));
            report.load.max_slip_ns = Some(slip);
            let judged = judge(&report, Fraction::default(), SECOND, false);
            assert_eq!(judged, outcome, "{lost}");
        }
    }

    #[test]
    fn a_sender_that_falls_behind_for_good_is_the_hosts_limit() {
        for (achieved, slip, outcome) in [
            (9_800.0, 20_000_001, Outcome::Host),
            (9_800.0, 1_000, Outcome::Held),
            (9_990.0, 20_000_000, Outcome::Held),
        ] {
            let mut report = report(0, 0, Some(0));
            report.load.achieved_pps = Some(achieved);
            report.load.max_slip_ns = Some(slip);
            let judged = judge(&report, Fraction::default(), SECOND, false);
            assert_eq!(judged, outcome);
        }
    }

    /// A trial of a second on a path that lets so much through.
    fn trial(offered_pps: u64, through: u64, median: i64) -> Trial {
        let received = offered_pps.min(through);
        Trial {
            offered_pps,
            sent: offered_pps,
            achieved_pps: Some(offered_pps as f64),
            lost: offered_pps - received,
            roundtrip_median_ns: Some(median),
            outcome: match received < offered_pps {
                true => Outcome::Path,
                false => Outcome::Held,
            },
            ..crate::report::find_rate::tests::full().trials.remove(0)
        }
    }

    #[test]
    fn what_comes_back_at_any_load_is_a_limit() {
        let tried = [1000, 2000, 4000, 8000, 8000, 6000, 6000, 5000, 5500];
        let searched = |through: fn(u64) -> u64, slow: i64| {
            let mut trials: Vec<Trial> = tried.map(|pps| trial(pps, through(pps), 100_000)).into();
            for trial in trials.iter_mut().filter(|t| t.outcome == Outcome::Path) {
                trial.roundtrip_median_ns = Some(slow);
            }
            trials
        };
        let limited = searched(|_| 5_010, 110_000);
        let found = ceiling(Some(5_000), &limited).unwrap();
        assert_eq!(found.received_pps, 5_010.0);
        assert_eq!((found.trials, found.kind), (4, CeilingKind::RateLimit));
        let queued = ceiling(Some(5_000), &searched(|_| 5_010, 5_000_000)).unwrap();
        assert_eq!(queued.kind, CeilingKind::Queue);
        // A disturbed trial.
        let mut disturbed = limited.clone();
        disturbed[3].lost += 2_000;
        let found = ceiling(Some(5_000), &disturbed).unwrap();
        assert_eq!((found.received_pps, found.trials), (5_010.0, 3));
        // Chance, and what breaks down under load.
        let chance = searched(|pps| pps - pps / 50, 100_000);
        assert_eq!(ceiling(Some(2_000), &chance), None);
        let breaks = searched(|pps| if pps > 5_000 { 20_000_000 / pps } else { pps }, 1);
        assert_eq!(ceiling(Some(5_000), &breaks), None);
        // One trial says nothing, and without a rate there is nothing to compare it with.
        assert_eq!(ceiling(Some(5_000), &limited[..4]), None);
        assert_eq!(ceiling(None, &limited), None);
    }
}
