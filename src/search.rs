//! `--find-rate`: the fastest rate without loss beyond a bound, for one size after the other.
//!
//! Each trial is a session of its own, which the caller runs: [`light`] does so with TWAMP Light, on
//! sockets of its own and with a reflector of its own where that runs in this process. [`steps`] decides which rate
//! is next; here trials are run, and judged: whose fault a loss was. RFC 2544 §26.1 in method, not in
//! the length of its trials (§24: 60 s), which is the user's to choose.

pub mod steps;

use std::net::SocketAddr;

use crate::config::{End, Fraction, Rate, ReflectorConfig, SessionConfig, SizeProfile, Sizes};
use crate::engine::{self, Failure, Progress, Reflecting, Stop};
use crate::report::Report;
use crate::report::find_rate::{
    FindRate, Frame, LimitedBy, LoadPoint, Outcome, Roundtrip, Schema, Trial,
};

use steps::{Search, Step};

/// What is searched.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The session that each trial is, but for its rate, its end and its sizes.
    pub session: SessionConfig,
    /// Sizes, one search each.
    pub sizes: Vec<Sizes>,
    /// Share of packets that may be lost.
    pub loss: Fraction,
    /// The fastest rate wanted, in packets a second.
    pub max_pps: Option<u64>,
    /// For how long a trial sends, in nanoseconds.
    pub trial_ns: u64,
    /// Whether the reflector is inside this process, and loses nothing but by this host's fault.
    pub inside: bool,
}

/// Runs the session of a trial to its end, and tells its progress.
pub type Run<'a, E> = dyn FnMut(&SessionConfig, &mut dyn FnMut(Progress)) -> Result<Report, E> + 'a;

/// What is told while a search runs.
#[derive(Debug)]
pub enum Update<'a> {
    /// A trial is under way.
    Progress(Progress),
    /// A trial is over: of which size, and as which of its trials, from 1 on.
    Trial(&'a str, usize, &'a Trial),
    /// The search of a size is over.
    Found(&'a FindRate),
}

/// Searches all sizes, until `stop` is requested; results come by `show`.
///
/// # Errors
/// That of a trial that did not come about; what was found until then has been shown.
pub fn find<E>(
    plan: &Plan,
    stop: &Stop,
    run: &mut Run<'_, E>,
    mut show: impl FnMut(Update<'_>),
) -> Result<(), E> {
    for sizes in &plan.sizes {
        if stop.requested() {
            break;
        }
        let mut found = nothing_yet(plan, sizes);
        let result = find_one(plan, sizes, stop, run, &mut found, &mut show);
        found.interrupted = stop.requested();
        let mtu = engine::path_mtu(
            plan.session.remote,
            plan.session.socket.interface.as_deref(),
        );
        found.notes.extend(readings(&found, mtu));
        show(Update::Found(&found));
        result?;
    }
    Ok(())
}

fn nothing_yet(plan: &Plan, sizes: &Sizes) -> FindRate {
    let frames = sizes.classes.iter().map(|class| Frame {
        payload_bytes: class.payload,
        frame_bytes_l2: class.frame,
        weight: class.weight,
    });
    FindRate {
        schema: Schema::Version1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: command(plan, sizes),
        remote: remote(plan),
        size: match &sizes.profile {
            SizeProfile::Imix => "imix".to_owned(),
            SizeProfile::Custom(mix) => mix.to_string(),
            SizeProfile::Fixed => sizes
                .classes
                .first()
                .map_or(String::new(), |c| c.frame.to_string()),
        },
        frames: frames.collect(),
        loss_bound: plan.loss.value(),
        max_rate_pps: plan.max_pps,
        trial_ns: plan.trial_ns,
        timeout_ns: plan.session.timeout_ns,
        seed: plan.session.seed,
        rate_pps: None,
        bps_l1: None,
        bps_l2: None,
        bps_l3: None,
        stable: false,
        limited_by: None,
        interrupted: false,
        loads: Vec::new(),
        trials: Vec::new(),
        notes: Vec::new(),
    }
}

/// Every parameter of the search of one size as it is in force.
fn command(plan: &Plan, sizes: &Sizes) -> Vec<String> {
    let session = SessionConfig {
        sizes: sizes.clone(),
        end: End {
            count: None,
            duration_ns: Some(plan.trial_ns),
        },
        ..plan.session.clone()
    };
    let mut words = session.command();
    // Each trial has a rate of its own.
    if let Some(at) = words.iter().position(|word| word == "--rate") {
        words.drain(at..at + 2);
    }
    // The reflector inside this process is named by nobody.
    let addresses = if plan.inside { 1..3 } else { 3..3 };
    let mut find = vec![
        "--find-rate".to_owned(),
        "--loss".to_owned(),
        plan.loss.to_string(),
    ];
    if let Some(pps) = plan.max_pps {
        find.extend(["--max-rate".to_owned(), pps.to_string()]);
    }
    words.splice(addresses, find);
    words
}

fn remote(plan: &Plan) -> Option<SocketAddr> {
    (!plan.inside).then_some(plan.session.remote)
}

/// Searches one size; `found` is filled in as far as it goes.
fn find_one<E>(
    plan: &Plan,
    sizes: &Sizes,
    stop: &Stop,
    measure: &mut Run<'_, E>,
    found: &mut FindRate,
    show: &mut impl FnMut(Update<'_>),
) -> Result<(), E> {
    let mut search = Search::new(plan.max_pps);
    let mut last_held: Option<LoadPoint> = None;
    // What was last said about why this host did not keep up.
    let mut why_host = Vec::new();
    let mut number = 0;
    let mut run = |pps: u64, size: &str| -> Result<Option<(Report, Trial)>, E> {
        let report = measure(&session(plan, sizes, pps), &mut |progress| {
            show(Update::Progress(progress));
        })?;
        if stop.requested() {
            // Cut short, so that it says nothing of the rate.
            return Ok(None);
        }
        let trial = trial(plan, pps, &report);
        number += 1;
        show(Update::Trial(size, number, &trial));
        Ok(Some((report, trial)))
    };
    let ended = loop {
        let pps = match search.next() {
            Step::Done(_) => break Ok(true),
            Step::Try(pps) => pps,
        };
        match run(pps, &found.size) {
            Err(failure) => break Err(failure),
            Ok(None) => break Ok(false),
            Ok(Some((report, trial))) => {
                search.record(pps, trial.outcome, trial.lost <= trial.sent / SLIGHT);
                match trial.outcome {
                    Outcome::Held => last_held = Some(load_point(100, &report, trial.clone())),
                    Outcome::Path => {}
                    Outcome::Host => why_host.clone_from(&report.host.reasons),
                    Outcome::Nothing => found.notes.clone_from(&report.notes),
                }
                found.trials.push(trial);
            }
        }
    };
    let result = search.found();
    found.set_rate(result.pps);
    found.stable = result.stable;
    found.limited_by = result.limited_by;
    if result.limited_by == Some(LimitedBy::Host) {
        found.notes = why_host;
    }
    let Some(pps) = result.pps else {
        return ended.map(drop);
    };
    if ended? {
        for percent in [50, 90] {
            let part = (pps * percent / 100).max(1);
            let Some((report, trial)) = run(part, &found.size)? else {
                break;
            };
            found.loads.push(load_point(percent, &report, trial));
        }
    }
    let whole = last_held.filter(|point| point.trial.offered_pps == pps);
    found.loads.extend(whole);
    Ok(())
}

/// How the figures are to be read, where that is not plain.
fn readings(found: &FindRate, mtu: Option<usize>) -> Vec<String> {
    let mut notes = Vec::new();
    let largest = found.frames.iter().map(|frame| frame.frame_bytes_l2).max();
    if let Some((largest, mtu)) = largest.zip(mtu)
        && largest > mtu + ETHERNET
    {
        notes.push(format!(
            "packets larger than the MTU of {mtu} go in fragments: the bit rates are those of whole \
             frames of {largest} bytes, and on the wire there is more"
        ));
    }
    let bursts = found.loads.iter().map(|point| point.trial.burst);
    if let Some(burst) = bursts.max().filter(|burst| *burst > 1) {
        notes.push(format!(
            "packets left in trains of up to {burst}, which share their timestamps; --burst 1 sends \
             each by itself"
        ));
    }
    for point in &found.loads {
        let LoadPoint { percent, trial, .. } = point;
        if trial.outcome != Outcome::Held {
            notes.push(format!(
                "the trial at {percent} % of the rate did not hold: {} of {} packets lost, {} not sent, \
                 {} a second sent",
                trial.lost,
                trial.sent,
                trial.not_sent,
                trial.achieved_pps.map_or("-".to_owned(), |pps| format!("{pps:.0}"))
            ));
        }
    }
    notes
}

/// Octets of an Ethernet header.
const ETHERNET: usize = 14;

/// The session of one trial.
fn session(plan: &Plan, sizes: &Sizes, pps: u64) -> SessionConfig {
    let mut session = plan.session.clone();
    let rate = Rate::from_per_second(pps).expect("the search stays within what a rate can be");
    session.departures = session.departures.at(rate);
    session.sizes = sizes.clone();
    session.loss_bound = Some(plan.loss);
    session.end = End {
        count: None,
        duration_ns: Some(plan.trial_ns),
    };
    session
}

/// Runs a trial as a session of TWAMP Light; `inside`: with a reflector in this process.
///
/// # Errors
/// [`Failure`] where it did not come about.
pub fn light(
    session: &SessionConfig,
    inside: Option<&ReflectorConfig>,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Failure> {
    let inside = inside.map(|config| Reflecting::start(config, &Stop::default()));
    let inside = inside.transpose()?;
    let mut session = session.clone();
    if let Some(reflector) = &inside {
        session.remote = reflector.local()[0];
    }
    let measured = engine::measure(&session, inside, stop, |update| {
        if let engine::Update::Progress(now) = update {
            progress(now);
        }
    });
    measured.map(|measured| measured.report)
}

fn trial(plan: &Plan, pps: u64, report: &Report) -> Trial {
    let (packets, load) = (&report.packets, &report.load);
    Trial {
        offered_pps: pps,
        achieved_pps: load.achieved_pps,
        burst: load.burst,
        sent: packets.sent.unwrap_or(0),
        not_sent: packets.not_sent.unwrap_or(0),
        lost: packets.lost.unwrap_or(0),
        kernel_drops: report.host.kernel_drops,
        max_slip_ns: load.max_slip_ns,
        outcome: judge(report, plan.loss, plan.trial_ns, plan.inside),
    }
}

fn load_point(percent: u64, report: &Report, trial: Trial) -> LoadPoint {
    let delay = report.delay_ns.roundtrip.as_ref();
    LoadPoint {
        percent,
        trial,
        roundtrip_ns: delay.map(|delay| Roundtrip {
            samples: delay.samples,
            median: delay.median,
            p99: delay.p99,
            p99_9: delay.p99_9,
        }),
    }
}

/// Whether a rate held, and if not, whose fault that was.
///
/// What this host's sockets dropped is the host's, as is what it did not send or sent too late; the
/// rest of the loss is the path's, which the reflector is part of. Where that is `inside` this process,
/// all of the path is this host.
fn judge(report: &Report, bound: Fraction, trial_ns: u64, inside: bool) -> Outcome {
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
        return Outcome::Path;
    }
    if beyond(lost, sent) || beyond(not_sent, sent + not_sent) || fell_short(report, trial_ns) {
        return Outcome::Host;
    }
    Outcome::Held
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

/// One packet lost in so many is a slight loss, which need not be the rate's doing.
const SLIGHT: u64 = 100;
/// A shorter delay may be of the last departure alone, in nanoseconds.
const MOMENT_NS: u64 = 20_000_000;
/// The part of the rate that must be sent.
const KEPT: f64 = 0.99;

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
    fn what_the_figures_do_not_show_is_said() {
        let mut found = crate::report::find_rate::tests::full();
        assert_eq!(readings(&found, Some(1500)), Vec::<String>::new());
        assert_eq!(readings(&found, None), Vec::<String>::new());
        let [notes] = readings(&found, Some(1499)).try_into().unwrap();
        assert!(notes.contains("in fragments"), "{notes}");
        found.loads[2].trial.burst = 32;
        found.loads[1].trial.outcome = Outcome::Path;
        found.loads[1].trial.lost = 12;
        let [trains, lost] = readings(&found, Some(1500)).try_into().unwrap();
        assert!(trains.contains("trains of up to 32"), "{trains}");
        assert!(
            lost.contains("at 90 % of the rate did not hold: 12 of"),
            "{lost}"
        );
    }

    #[test]
    fn a_dropped_datagram_may_be_a_whole_train() {
        let mut report = report(0, 64, Some(2));
        report.load.burst = 32;
        let judged = judge(&report, Fraction::default(), SECOND, false);
        assert_eq!(judged, Outcome::Host);
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
}
