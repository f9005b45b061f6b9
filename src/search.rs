//! `--find-rate`: the fastest rate without loss beyond a bound, for one size after the other.
//!
//! Each trial is a session of its own, which the caller runs: [`light`] does so with TWAMP Light, on
//! sockets of its own and with a reflector of its own where that runs in this process. [`steps`] decides which rate
//! is next, `judge` whose fault a loss was; here trials are run. RFC 2544 §26.1 in method, not in the
//! length of its trials (§24: 60 s), which is the user's to choose.

mod judge;
pub mod steps;

use std::net::SocketAddr;

use crate::config::{
    CommandLine, Departures, End, Fraction, Rate, ReflectorConfig, SessionConfig, SizeClass,
    SizeProfile, Sizes,
};
use crate::engine::{self, Failure, Progress, Reflecting, Stop};
use crate::report::find_rate::{
    Bound, FindRate, Frame, LimitedBy, LoadPoint, Note, Outcome, Roundtrip, Schema,
    Search as Remark, Standing, Trial, WarmUp,
};
use crate::report::{IcmpKind, Reason, Report};

use judge::{ceiling, judge};
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
    /// What the command line has of another subcommand than `sender`; `None`: it is that one.
    pub own: Option<CommandLine>,
}

/// How long a search takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Sizes that are searched.
    pub sizes: usize,
    /// Trials for each of them, where the path carries some 100,000 packets a second or the bound.
    pub trials: u32,
    /// What these take, in nanoseconds.
    pub usual_ns: u64,
    /// What it takes at most, in nanoseconds; only a path that falls silent is waited for beyond that.
    pub most_ns: u64,
}

impl Plan {
    /// How long the search takes: about, and at most.
    #[must_use]
    pub fn length(&self) -> Length {
        let loads = 2;
        let trials = steps::trials_until(USUAL_PPS, self.max_pps) + loads;
        // A load that did not hold is tried twice, and so is each of these.
        let most = u64::from(steps::MOST_TRIALS + 2 * loads);
        let longest_ns = self.trial_ns.saturating_add(self.session.timeout_ns);
        let longest_ns = longest_ns.saturating_add(WARM_UP_NS + AROUND_NS);
        let sizes = self.sizes.len() as u64;
        Length {
            sizes: self.sizes.len(),
            trials,
            usual_ns: sizes * u64::from(trials) * (self.trial_ns + AROUND_NS),
            most_ns: sizes.saturating_mul(most.saturating_mul(longest_ns)),
        }
    }
}

/// Runs the session of a trial to its end, and tells its progress.
pub type Run<'a, E> = dyn FnMut(&SessionConfig, &mut dyn FnMut(Progress)) -> Result<Report, E> + 'a;

/// What is told while a search runs.
#[derive(Debug)]
pub enum Update<'a> {
    /// A trial is under way.
    Progress(Progress),
    /// Slow packets ahead of a trial of this size did not come back.
    Silent(&'a str),
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
    let mut patience_ns = PATIENCE_NS;
    // Nobody answers any size.
    let mut gone = false;
    for (index, sizes) in plan.sizes.iter().enumerate() {
        if stop.requested() {
            break;
        }
        let mut hunt = Hunt {
            plan,
            sizes,
            stop,
            run,
            show: &mut show,
            found: nothing_yet(plan, sizes),
            number: 0,
        };
        let rest = &plan.sizes[index + 1..];
        let mut result = if gone {
            Ok(())
        } else {
            hunt.search(patience_ns)
        };
        let silent = hunt.found.warm_up.received == 0;
        if gone {
            hunt.found.notes.push(Remark::NobodyAnswers.into());
        } else if result.is_ok() && silent && !rest.is_empty() {
            // What goes to a closed port is refused whatever its size.
            let answered = match hunt.found.refused {
                Some(_) => Ok(Some(false)),
                None if patience_ns < PATIENCE_NS => Ok(Some(true)),
                None => hunt.answers_any(rest),
            };
            gone = matches!(answered, Ok(Some(false)));
            result = answered.map(drop);
        }
        let mut found = hunt.found;
        // Where nobody answers one size, the next one is asked once.
        patience_ns = if silent { 1 } else { PATIENCE_NS };
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
        bps_l2_without_fcs: None,
        bps_l3: None,
        lower: None,
        upper: None,
        standing: None,
        stable: false,
        limited_by: None,
        ceiling: None,
        warm_up: WarmUp::default(),
        refused: None,
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
    let mut line = session.command();
    if let Some(own) = &plan.own {
        line.become_like(own);
    }
    // Each trial has a rate of its own.
    line.remove("rate");
    if plan.inside {
        // The reflector inside this process is named by nobody.
        line.remove_words();
    }
    let mut find = CommandLine::default();
    find.switch("find-rate", true);
    find.set("loss", plan.loss);
    find.set_if("max-rate", plan.max_pps);
    line.begin_with(find);
    line.arguments()
}

fn remote(plan: &Plan) -> Option<SocketAddr> {
    (!plan.inside).then_some(plan.session.remote)
}

/// The search of one size.
struct Hunt<'a, 'r, E, S> {
    plan: &'a Plan,
    sizes: &'a Sizes,
    stop: &'a Stop,
    run: &'a mut Run<'r, E>,
    show: &'a mut S,
    /// Filled in as far as it goes.
    found: FindRate,
    /// Trials so far.
    number: usize,
}

impl<E, S: FnMut(Update<'_>)> Hunt<'_, '_, E, S> {
    /// Searches, and measures the delay below the rate that was found.
    fn search(&mut self, patience_ns: u64) -> Result<(), E> {
        let mut search = Search::new(self.plan.max_pps, patience_ns);
        let mut last_held: Option<LoadPoint> = None;
        // What was last said about why this host did not keep up.
        let mut why_host = Vec::new();
        let ended = self.try_rates(&mut search, &mut last_held, &mut why_host);

        let result = search.found();
        self.found.set_rate(result.pps());
        (self.found.lower, self.found.upper) = (result.lower, result.upper);
        self.found.limited_by = result.limited_by;
        self.found.ceiling = ceiling(result.pps(), &self.found.trials);
        if result.limited_by == Some(LimitedBy::Host) {
            self.found.notes = why_host.into_iter().map(Note::Host).collect();
        }
        if result.silent && !self.found.trials.is_empty() {
            let for_ns = PATIENCE_NS;
            self.found.notes.push(Remark::FellSilent { for_ns }.into());
        }
        let Some(pps) = result.pps() else {
            return ended.map(drop);
        };
        self.found.standing = Some(Standing::NotConfirmed);
        if ended? && !result.silent {
            for percent in [50, 90] {
                if !self.load(percent, (pps * percent / 100).max(1))? {
                    break;
                }
            }
        }
        let whole = last_held.filter(|point| point.trial.offered_pps == pps);
        self.found.loads.extend(whole.map(|point| LoadPoint {
            held: result.lower.map_or(0, |bound| bound.held),
            failed: result.lower.map_or(0, |bound| bound.failed),
            ..point
        }));
        let standing = standing(&self.found, result.confirmed);
        self.found.standing = Some(standing);
        let slower = rates_tried(&self.found).into_iter();
        let mut slower = slower.filter(|bound| bound.rate_pps <= pps);
        self.found.stable = matches!(standing, Standing::Stable | Standing::NotRepeatable)
            && slower.all(|bound| bound.failed == 0);
        Ok(())
    }

    /// Runs trials until the search is over; `false`: it was interrupted.
    fn try_rates(
        &mut self,
        search: &mut Search,
        last_held: &mut Option<LoadPoint>,
        why_host: &mut Vec<Reason>,
    ) -> Result<bool, E> {
        loop {
            let pps = match search.next() {
                Step::Done(_) => return Ok(true),
                Step::WarmUp => {
                    let Some((answered, waited_ns)) = self.warm_up()? else {
                        return Ok(false);
                    };
                    search.warmed(answered, waited_ns);
                    continue;
                }
                Step::Try(pps) => pps,
            };
            let Some((report, trial)) = self.trial(pps)? else {
                return Ok(false);
            };
            search.record(pps, trial.outcome);
            match trial.outcome {
                Outcome::Held => *last_held = Some(load_point(100, &report, trial.clone())),
                Outcome::Path | Outcome::Nothing => {}
                Outcome::Host => why_host.clone_from(&report.host.reasons),
            }
            self.found.trials.push(trial);
        }
    }

    /// Measures the delay at a part of the found rate, twice where it does not hold; `false`:
    /// interrupted.
    fn load(&mut self, percent: u64, pps: u64) -> Result<bool, E> {
        let (mut held, mut failed) = (0, 0);
        let point = loop {
            let Some((report, trial)) = self.trial(pps)? else {
                return Ok(false);
            };
            match trial.outcome {
                Outcome::Held => held += 1,
                Outcome::Path | Outcome::Host | Outcome::Nothing => failed += 1,
            }
            let point = load_point(percent, &report, trial);
            if held > 0 || failed == 2 {
                break point;
            }
            let mut silence_ns = 0;
            while silence_ns < PATIENCE_NS {
                match self.warm_up()? {
                    None => return Ok(false),
                    Some((true, _)) => break,
                    Some((false, waited_ns)) => silence_ns += waited_ns,
                }
            }
        };
        self.found.loads.push(LoadPoint {
            held,
            failed,
            ..point
        });
        Ok(true)
    }

    /// One trial; `None`: it was interrupted, so that it says nothing of the rate.
    fn trial(&mut self, pps: u64) -> Result<Option<(Report, Trial)>, E> {
        let session = session(self.plan, self.sizes, pps);
        let Some(report) = self.measure(&session)? else {
            return Ok(None);
        };
        let trial = trial(self.plan, pps, &report);
        self.number += 1;
        (self.show)(Update::Trial(&self.found.size, self.number, &trial));
        Ok(Some((report, trial)))
    }

    /// Sends a few packets slowly: whether any came back, and how long that was waited for; `None`:
    /// interrupted.
    ///
    /// The first packets of a path may wait for an address to be resolved, or for a route.
    fn warm_up(&mut self) -> Result<Option<(bool, u64)>, E> {
        let Some(report) = self.measure(&warm_up(self.plan, self.sizes, WARM_UP_PACKETS))? else {
            return Ok(None);
        };
        let packets = &report.packets;
        let [sent, received] = [packets.sent, packets.received].map(|n| n.unwrap_or(0));
        let warm_up = &mut self.found.warm_up;
        warm_up.runs += 1;
        warm_up.sent += sent;
        warm_up.received += received;
        if received > 0 {
            self.found.notes.clear();
            return Ok(Some((true, 0)));
        }
        // Why nothing was sent, or what the network said.
        self.found.notes = report.notes.iter().cloned().map(Note::from).collect();
        let mut icmp = report.packets.icmp.iter().flatten();
        let refused = icmp.find(|icmp| icmp.kind == IcmpKind::PortUnreachable);
        if let (Some(refused), 0) = (refused, warm_up.received) {
            // One that answered before may be started again.
            self.found.refused = Some(*refused);
            return Ok(Some((false, u64::MAX)));
        }
        (self.show)(Update::Silent(&self.found.size));
        let waited_ns = match sent {
            // What this host refuses it refuses at once.
            0 => PATIENCE_NS / 10,
            _ => WARM_UP_NS.saturating_add(self.plan.session.timeout_ns),
        };
        Ok(Some((false, waited_ns)))
    }

    /// Whether any of these sizes is answered, by one session of all of them; `None`: interrupted.
    fn answers_any(&mut self, rest: &[Sizes]) -> Result<Option<bool>, E> {
        let classes: Vec<SizeClass> = rest
            .iter()
            .flat_map(|sizes| &sizes.classes)
            .map(|class| SizeClass {
                weight: 1,
                ..*class
            })
            .collect();
        let packets = WARM_UP_PACKETS.max(classes.len() as u64);
        let all = Sizes {
            // Nobody is told of this session.
            profile: SizeProfile::Imix,
            classes,
        };
        let report = self.measure(&warm_up(self.plan, &all, packets))?;
        Ok(report.map(|report| report.packets.received > Some(0)))
    }

    fn measure(&mut self, session: &SessionConfig) -> Result<Option<Report>, E> {
        let show = &mut self.show;
        let report = (self.run)(session, &mut |progress| show(Update::Progress(progress)))?;
        Ok((!self.stop.requested()).then_some(report))
    }
}

/// What the rate that was found rests on.
fn standing(found: &FindRate, confirmed: bool) -> Standing {
    if !confirmed || found.loads.len() < 3 {
        return Standing::NotConfirmed;
    }
    let tried = rates_tried(found);
    let slower = |bound: &&Bound| Some(bound.rate_pps) < found.rate_pps;
    if tried.iter().filter(slower).any(|bound| bound.held == 0) {
        return Standing::NotStable;
    }
    let disagree = |bound: &Bound| bound.held > 0 && bound.failed > 0;
    if tried.iter().any(disagree) {
        return Standing::NotRepeatable;
    }
    Standing::Stable
}

/// What came of the trials at each rate, those at a part of the found one among them.
fn rates_tried(found: &FindRate) -> Vec<Bound> {
    let searched = found.trials.iter().map(|trial| {
        let held = u32::from(trial.outcome == Outcome::Held);
        (trial.offered_pps, held, 1 - held)
    });
    // The trials at the whole rate are of the search.
    let loads = found.loads.iter().filter(|point| point.percent < 100);
    let loads = loads.map(|point| (point.trial.offered_pps, point.held, point.failed));
    let mut tried: Vec<Bound> = Vec::new();
    for (rate_pps, held, failed) in searched.chain(loads) {
        match tried.iter_mut().find(|bound| bound.rate_pps == rate_pps) {
            Some(bound) => {
                bound.held += held;
                bound.failed += failed;
            }
            None => tried.push(Bound {
                rate_pps,
                held,
                failed,
            }),
        }
    }
    tried
}

/// How the figures are to be read, where that is not plain.
fn readings(found: &FindRate, mtu: Option<usize>) -> Vec<Note> {
    let mut notes = Vec::new();
    let largest = found.frames.iter().map(|frame| frame.frame_bytes_l2).max();
    if let Some((frame_bytes_l2, mtu)) = largest.zip(mtu)
        && frame_bytes_l2 > mtu + ETHERNET
    {
        let fragments = Remark::Fragments {
            mtu,
            frame_bytes_l2,
        };
        notes.push(fragments);
    }
    let bursts = found.loads.iter().map(|point| point.trial.burst);
    if let Some(burst) = bursts.max().filter(|burst| *burst > 1) {
        notes.push(Remark::Trains { burst });
    }
    // Of these more is said below.
    let lost = |point: &&LoadPoint| point.trial.outcome != Outcome::Held;
    let loads = found.loads.iter().filter(lost);
    let loads: Vec<u64> = loads.map(|point| point.trial.offered_pps).collect();
    let slower_failed = |bound: &Bound| {
        Some(bound.rate_pps) < found.rate_pps
            && bound.failed > 0
            && !loads.contains(&bound.rate_pps)
    };
    let slower = rates_tried(found).into_iter().filter(slower_failed);
    notes.extend(slower.map(Remark::SlowerFailed));
    let failed = found.loads.iter().filter(lost);
    notes.extend(
        failed.map(|LoadPoint { percent, trial, .. }| Remark::LoadFailed {
            percent: *percent,
            lost: trial.lost,
            sent: trial.sent,
            not_sent: trial.not_sent,
            achieved_pps: trial.achieved_pps,
        }),
    );
    notes.into_iter().map(Note::from).collect()
}

/// Octets of an Ethernet header.
const ETHERNET: usize = 14;
/// For how long a path may answer nothing, in nanoseconds: some tries to resolve an address, and what
/// an outage may last.
const PATIENCE_NS: u64 = 6 * SECOND_NS;
/// How long it takes to send slow packets,
const WARM_UP_NS: u64 = 200_000_000;
/// how many they are, and how fast, in packets a second, for each thread.
const WARM_UP_PACKETS: u64 = 10;
const WARM_UP_PPS: u64 = 50;
const SECOND_NS: u64 = 1_000_000_000;
/// What is taken for a usual path's rate where the length of a search is told beforehand.
const USUAL_PPS: u64 = 100_000;
/// What a trial takes beside sending, at least: sockets, threads, the last replies, in nanoseconds.
const AROUND_NS: u64 = 300_000_000;

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

/// A session that shows whether anybody answers.
#[must_use]
pub fn question(session: &SessionConfig) -> SessionConfig {
    slow(session.clone(), WARM_UP_PPS, WARM_UP_PACKETS)
}

/// A session of a few slow packets, whose loss tells nothing.
fn warm_up(plan: &Plan, sizes: &Sizes, packets: u64) -> SessionConfig {
    let threads = u64::try_from(plan.session.threads).unwrap_or(1);
    let pps = (WARM_UP_PPS * threads).min(plan.max_pps.unwrap_or(u64::MAX));
    slow(session(plan, sizes, pps), pps, packets * threads)
}

fn slow(mut session: SessionConfig, pps: u64, packets: u64) -> SessionConfig {
    session.departures = Departures::Periodic(
        Rate::from_per_second(pps).expect("a rate below any bound, and at least one"),
    );
    // What comes at all comes soon after; the rest is not waited for.
    session.loss_bound = Some(Fraction::default());
    session.end = End {
        count: Some(packets),
        duration_ns: Some(WARM_UP_NS.max(packets * SECOND_NS / pps.max(WARM_UP_PPS))),
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
        roundtrip_median_ns: report.delay_ns.roundtrip.as_ref().map(|delay| delay.median),
        outcome: judge(report, plan.loss, plan.trial_ns, plan.inside),
    }
}

fn load_point(percent: u64, report: &Report, trial: Trial) -> LoadPoint {
    let delay = report.delay_ns.roundtrip.as_ref();
    LoadPoint {
        percent,
        held: u32::from(trial.outcome == Outcome::Held),
        failed: u32::from(trial.outcome != Outcome::Held),
        trial,
        roundtrip_ns: delay.map(|delay| Roundtrip {
            samples: delay.samples,
            median: delay.median,
            p99: delay.p99,
            p99_9: delay.p99_9,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_figures_do_not_show_is_said() {
        let mut found = crate::report::find_rate::tests::full();
        assert_eq!(readings(&found, Some(1500)), []);
        assert_eq!(readings(&found, None), []);
        let fragments = Remark::Fragments {
            mtu: 1499,
            frame_bytes_l2: 1514,
        };
        assert_eq!(readings(&found, Some(1499)), [fragments.into()]);
        found.loads[2].trial.burst = 32;
        found.loads[1].trial.outcome = Outcome::Path;
        found.loads[1].trial.lost = 12;
        let lost = Remark::LoadFailed {
            percent: 90,
            lost: 12,
            sent: 10_000,
            not_sent: 0,
            achieved_pps: Some(5_000.1),
        };
        let expected = [Remark::Trains { burst: 32 }, lost].map(Note::from);
        assert_eq!(readings(&found, Some(1500)), expected);
    }

    #[test]
    fn a_rate_above_a_slower_one_that_failed_is_not_stable() {
        use crate::report::find_rate::tests::full;

        let standing_of = |others: &[(u64, Outcome)]| {
            let mut found = full();
            let like = found.trials[0].clone();
            let trial = |&(offered_pps, outcome)| Trial {
                offered_pps,
                outcome,
                ..like.clone()
            };
            found.trials = others.iter().map(trial).collect();
            for (point, pps) in found.loads.iter_mut().zip([40_637, 73_146, 81_274]) {
                point.trial.offered_pps = pps;
            }
            (standing(&found, true), readings(&found, None))
        };
        let (held, path) = (Outcome::Held, Outcome::Path);
        let calm = [(4_000, held), (81_274, held), (82_543, path)];
        assert_eq!(standing_of(&calm), (Standing::Stable, vec![]));
        for (rate_pps, outcomes, standing, held) in [
            (1_000, [path, path], Standing::NotStable, 0),
            (1_000, [path, held], Standing::NotRepeatable, 1),
            (
                2_000,
                [Outcome::Nothing, Outcome::Host],
                Standing::NotStable,
                0,
            ),
        ] {
            let others = outcomes.map(|outcome| (rate_pps, outcome));
            let all = [&others[..], &calm[..]].concat();
            let (found, notes) = standing_of(&all[..]);
            let slower = Bound {
                rate_pps,
                held,
                failed: 2 - held,
            };
            assert_eq!(notes, [Remark::SlowerFailed(slower).into()], "{all:?}");
            assert_eq!(found, standing, "{all:?}");
        }
        let (above, _) = standing_of(&[(90_000, held), (90_000, path)]);
        assert_eq!(above, Standing::NotRepeatable);
    }
}
