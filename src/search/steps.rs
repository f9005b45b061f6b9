//! Which rate to try next: the search as a pure state machine, without clock, socket or thread.
//!
//! Throughput is the fastest rate without loss (RFC 2544 §26.1), here: without loss beyond a bound.
//! The rate doubles until it fails; then the gap between the fastest rate that held and the slowest
//! that failed is halved until it is small; then the rate must hold again, [`CONFIRMING`] times in a
//! row, or it steps down, each time further.
//!
//! One trial bounds nothing: it may have met an outage, or a busy moment of this host. A rate fails
//! once it failed twice in a row, and between the two the path must have answered a few slow packets.
//! The rate above the found one fails once more in the end, some trials later; where it holds then,
//! the search goes on from there. Rates are whole packets a second.

use crate::report::find_rate::{Bound, LimitedBy, Outcome};

/// The gap that is left between found and failed rate: this part of the found one, 1.6 %.
pub const RESOLUTION: u64 = 64;
/// Trials in which the rate must hold once more.
pub const CONFIRMING: u32 = 2;
/// A rate that failed so often is not tried again.
pub const ENOUGH: u32 = 3;
/// Most trials of one search.
pub const MOST_TRIALS: u32 = 60;
/// The rate of the first trial, in packets a second.
pub const FIRST_PPS: u64 = 1_000;
/// The fastest rate there is, in packets a second: that of [`Rate`](crate::config::Rate).
const MOST_PPS: u64 = 100_000_000_000;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a few packets slowly, and tell [`warmed`](Search::warmed) whether any came back.
    WarmUp,
    /// Try this rate, in packets a second, 1 or more, and [`record`](Search::record) how it went.
    Try(u64),
    /// The search is over.
    Done(Found),
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The fastest rate that held; `None` where not even one packet a second did.
    pub lower: Option<Bound>,
    /// The slowest rate that failed.
    pub upper: Option<Bound>,
    /// The rate held in [`CONFIRMING`] further trials.
    pub confirmed: bool,
    /// Why it is not more; `None` where that was not found out.
    pub limited_by: Option<LimitedBy>,
    /// The search ended because nothing came back any more, however slow.
    pub silent: bool,
}

impl Found {
    /// The fastest rate that held, in packets a second.
    #[must_use]
    pub fn pps(&self) -> Option<u64> {
        self.lower.map(|bound| bound.rate_pps)
    }
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    most: u64,
    /// Fastest rate that held and is below all that failed; 0: none.
    held: u64,
    /// Trials in a row in which `held` held again.
    confirmed: u32,
    /// Times that a rate was given up which had held once.
    stepped: u32,
    /// The last trial failed, perhaps by something else than its rate: it gets a second one.
    again: Option<u64>,
    trials: u32,
    tallies: Vec<Tally>,
    /// The path must show that it answers before the next trial.
    cold: bool,
    /// For how long it has not, in nanoseconds, and for how long it may not.
    silence_ns: u64,
    patience_ns: u64,
    silent: bool,
}

/// What came of the trials at one rate.
#[derive(Clone, Copy, Debug)]
struct Tally {
    bound: Bound,
    /// The path failed at least once, and not this host alone.
    path: bool,
    /// Why the rate is too fast, as long as it is held to be.
    too_fast: Option<LimitedBy>,
}

impl Search {
    /// A search up to a rate in packets a second; `None`: without end. A path that answers nothing for
    /// `patience_ns` ends it.
    #[must_use]
    pub fn new(max_pps: Option<u64>, patience_ns: u64) -> Self {
        Self {
            most: max_pps.unwrap_or(MOST_PPS).clamp(1, MOST_PPS),
            held: 0,
            confirmed: 0,
            stepped: 0,
            again: None,
            trials: 0,
            tallies: Vec::new(),
            cold: true,
            silence_ns: 0,
            patience_ns,
            silent: false,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Step {
        if self.silent || self.trials >= MOST_TRIALS {
            return Step::Done(self.found());
        }
        if self.cold {
            return Step::WarmUp;
        }
        if let Some(pps) = self.again {
            return Step::Try(pps);
        }
        let Some(failed) = self.failed().map(|tally| tally.bound.rate_pps) else {
            return match self.held {
                0 => Step::Try(FIRST_PPS.min(self.most)),
                held if held < self.most => Step::Try(held.saturating_mul(2).min(self.most)),
                held => self.confirm(held),
            };
        };
        if self.held == 0 {
            return match failed {
                1 => Step::Done(self.found()),
                failed if self.stepped == 0 => Step::Try(failed / 2),
                failed => Step::Try(self.below(failed)),
            };
        }
        let gap = failed.saturating_sub(self.held);
        // A rate that once failed after it had held: those between are not worth a trial.
        if self.stepped > 0 || gap <= (self.held / RESOLUTION).max(1) {
            self.confirm(self.held)
        } else {
            Step::Try(self.held + gap / 2)
        }
    }

    /// Takes whether the path answered to slow packets, and for how long it was waited for.
    pub fn warmed(&mut self, answered: bool, waited_ns: u64) {
        if answered {
            self.cold = false;
            self.silence_ns = 0;
        } else {
            self.silence_ns = self.silence_ns.saturating_add(waited_ns);
            self.silent = self.silence_ns >= self.patience_ns;
        }
    }

    /// Takes the outcome of the trial that [`next`](Self::next) asked for.
    pub fn record(&mut self, pps: u64, outcome: Outcome) {
        self.trials += 1;
        let second = self.again.take().is_some();
        let tally = self.tally(pps);
        match outcome {
            Outcome::Held => {
                tally.bound.held += 1;
                return self.hold(pps);
            }
            Outcome::Host => {}
            Outcome::Path | Outcome::Nothing => tally.path = true,
        }
        let by = match tally.path {
            true => LimitedBy::Path,
            false => LimitedBy::Host,
        };
        tally.bound.failed += 1;
        let enough = second || tally.bound.failed >= ENOUGH;
        self.cold = true;
        if pps == self.held {
            self.confirmed = 0;
        }
        if enough {
            self.fail(pps, by);
        } else {
            self.again = Some(pps);
        }
    }

    fn hold(&mut self, pps: u64) {
        if pps == self.held {
            self.confirmed += 1;
            return;
        }
        (self.held, self.confirmed) = (pps, 0);
        if self.tally(pps).too_fast.take().is_some() {
            // It was not the rate: the search goes on from here.
            self.stepped = 0;
        }
    }

    fn fail(&mut self, pps: u64, by: LimitedBy) {
        let known = self.tally(pps).too_fast.replace(by).is_some();
        if pps <= self.held {
            self.stepped += 1;
            self.held = 0;
        } else if self.stepped > 0 && !known {
            self.stepped += 1;
        }
    }

    /// The slowest rate that failed.
    fn failed(&self) -> Option<&Tally> {
        let failed = self.tallies.iter().filter(|t| t.too_fast.is_some());
        failed.min_by_key(|tally| tally.bound.rate_pps)
    }

    fn tally(&mut self, pps: u64) -> &mut Tally {
        let known = self.tallies.iter().position(|t| t.bound.rate_pps == pps);
        let at = known.unwrap_or_else(|| {
            self.tallies.push(Tally {
                bound: Bound {
                    rate_pps: pps,
                    held: 0,
                    failed: 0,
                },
                path: false,
                too_fast: None,
            });
            self.tallies.len() - 1
        });
        &mut self.tallies[at]
    }

    /// The rate to step down to: 1.6 % below at first, then twice as far each time, up to a quarter.
    fn below(&self, failed: u64) -> u64 {
        let part = RESOLUTION >> (self.stepped - 1).min(4);
        (failed - (failed / part).max(1)).max(1)
    }

    fn confirm(&self, held: u64) -> Step {
        if self.confirmed < CONFIRMING {
            return Step::Try(held);
        }
        match self.failed() {
            Some(Tally { bound, .. }) if bound.failed < ENOUGH => Step::Try(bound.rate_pps),
            _ => Step::Done(self.found()),
        }
    }

    /// What is known so far, also where the search was not ended.
    #[must_use]
    pub fn found(&self) -> Found {
        let failed = self.failed();
        let limited_by = match failed.and_then(|tally| tally.too_fast) {
            None if self.held == self.most => Some(LimitedBy::MaxRate),
            by => by,
        };
        let held = self
            .tallies
            .iter()
            .find(|t| t.bound.rate_pps == self.held && self.held > 0);
        Found {
            lower: held.map(|tally| tally.bound),
            upper: failed.map(|tally| tally.bound),
            confirmed: self.held > 0 && self.confirmed >= CONFIRMING,
            limited_by,
            silent: self.silent,
        }
    }
}

/// How many trials a search takes on a path that carries `path_pps`.
#[must_use]
pub fn trials_until(path_pps: u64, max_pps: Option<u64>) -> u32 {
    let mut search = Search::new(max_pps, 1);
    loop {
        match search.next() {
            Step::Done(_) => return search.trials,
            Step::WarmUp => search.warmed(true, 0),
            Step::Try(pps) if pps > path_pps => search.record(pps, Outcome::Path),
            Step::Try(pps) => search.record(pps, Outcome::Held),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};

    const PATIENCE_NS: u64 = 6_000_000_000;

    /// Runs a search against a path; returns what it found and the rates it tried.
    fn run(max: Option<u64>, mut path: impl FnMut(u64) -> Outcome) -> (Found, Vec<u64>) {
        let mut search = Search::new(max, PATIENCE_NS);
        let mut tried = Vec::new();
        loop {
            match search.next() {
                Step::Done(found) => return (found, tried),
                Step::WarmUp => search.warmed(true, 0),
                Step::Try(pps) => {
                    assert!(tried.len() < 1000, "{tried:?}");
                    tried.push(pps);
                    search.record(pps, path(pps));
                }
            }
        }
    }

    fn bound(rate_pps: u64, held: u32, failed: u32) -> Option<Bound> {
        Some(Bound {
            rate_pps,
            held,
            failed,
        })
    }

    /// A path that carries so much, and a host that sends so much.
    fn up_to(path: u64, host: u64) -> impl FnMut(u64) -> Outcome {
        move |pps| match pps {
            pps if pps > host.min(path) => {
                if path <= host {
                    Outcome::Path
                } else {
                    Outcome::Host
                }
            }
            _ => Outcome::Held,
        }
    }

    /// The same, but for some trials, by their numbers from 1 on.
    fn but_for<'a>(
        mut steady: impl FnMut(u64) -> Outcome + 'a,
        trials: &'a [u32],
        outcome: Outcome,
    ) -> impl FnMut(u64) -> Outcome + 'a {
        let mut number = 0;
        move |pps| {
            number += 1;
            let usual = steady(pps);
            if trials.contains(&number) {
                outcome
            } else {
                usual
            }
        }
    }

    #[test]
    fn it_doubles_then_halves_then_confirms() {
        let (found, tried) = run(None, up_to(5_000, u64::MAX));
        assert_eq!(
            tried,
            [
                1000, 2000, 4000, 8000, 8000, 6000, 6000, 5000, 5500, 5500, 5250, 5250, 5125, 5125,
                5062, 5062, 5000, 5000, 5062
            ]
        );
        assert_eq!(
            found,
            Found {
                lower: bound(5_000, 3, 0),
                upper: bound(5_062, 0, 3),
                confirmed: true,
                limited_by: Some(LimitedBy::Path),
                silent: false,
            }
        );
        assert_eq!(trials_until(5_000, None), 19);
        assert_eq!(trials_until(5_000, Some(1_000)), 3);
    }

    #[test]
    fn no_faster_rate_than_wanted_is_tried() {
        let (found, tried) = run(Some(3_000), up_to(u64::MAX, u64::MAX));
        assert_eq!(tried, [1000, 2000, 3000, 3000, 3000]);
        assert_eq!(found.limited_by, Some(LimitedBy::MaxRate));
        assert_eq!(found.upper, None);
        let (found, tried) = run(Some(10), up_to(u64::MAX, u64::MAX));
        assert_eq!(tried, [10, 10, 10]);
        assert_eq!(found.pps(), Some(10));
    }

    #[test]
    fn nothing_is_tried_on_a_path_that_never_answers() {
        let mut search = Search::new(None, PATIENCE_NS);
        for _ in 0..3 {
            assert_eq!(search.next(), Step::WarmUp);
            search.warmed(false, 2_200_000_000);
        }
        let found = search.found();
        assert_eq!(search.next(), Step::Done(found));
        assert_eq!((found.pps(), found.limited_by), (None, None));
        assert!(found.silent);
    }

    #[test]
    fn a_failed_trial_is_repeated_once_the_path_answers_again() {
        let mut search = Search::new(None, PATIENCE_NS);
        search.warmed(true, 0);
        assert_eq!(search.next(), Step::Try(1_000));
        search.record(1_000, Outcome::Nothing);
        assert_eq!(search.next(), Step::WarmUp);
        search.warmed(false, PATIENCE_NS - 1);
        assert_eq!(search.next(), Step::WarmUp);
        search.warmed(true, 0);
        assert_eq!(search.next(), Step::Try(1_000));
        search.record(1_000, Outcome::Held);
        assert_eq!(search.next(), Step::Try(2_000));
        // The silence of before does not count.
        search.record(2_000, Outcome::Path);
        search.warmed(false, 1);
        assert_eq!(search.next(), Step::WarmUp);
        assert_eq!(search.found().lower, bound(1_000, 1, 1));
    }

    #[test]
    fn a_path_that_loses_at_every_rate_has_none() {
        let (found, tried) = run(None, |_| Outcome::Path);
        assert_eq!(tried.last(), Some(&1));
        assert_eq!(
            (found.pps(), found.limited_by),
            (None, Some(LimitedBy::Path)),
            "{tried:?}"
        );
    }

    #[test]
    fn a_disturbance_of_one_trial_costs_one_trial() {
        let (_, calm) = run(None, up_to(5_000, u64::MAX));
        for outcome in [Outcome::Path, Outcome::Host, Outcome::Nothing] {
            for trial in 1..=3 {
                let (found, tried) = run(None, but_for(up_to(5_000, u64::MAX), &[trial], outcome));
                assert_eq!(found.lower, bound(5_000, 3, 0), "{trial}");
                assert_eq!(found.upper, bound(5_062, 0, 3), "{trial}");
                assert_eq!(tried.len(), calm.len() + 1);
            }
        }
    }

    #[test]
    fn a_rate_that_the_path_failed_once_is_its_limit() {
        let (found, tried) = run(
            Some(8_000),
            but_for(up_to(5_000, u64::MAX), &[5, 19], Outcome::Host),
        );
        assert_eq!(tried[4], 8_000);
        assert_eq!(found.upper, bound(5_062, 0, 3));
        assert_eq!(found.limited_by, Some(LimitedBy::Path));
    }

    #[test]
    fn a_bound_of_two_disturbed_trials_falls_in_the_end() {
        let (found, tried) = run(
            None,
            but_for(up_to(5_000, u64::MAX), &[2, 3], Outcome::Path),
        );
        assert_eq!(tried[1..4], [2000, 2000, 1500]);
        assert_eq!(found.lower, bound(5_000, 3, 0), "{tried:?}");
        assert_eq!(found.upper, bound(5_062, 0, 3), "{tried:?}");
    }

    #[test]
    fn trials_that_disagree_are_told() {
        // One of those that confirm.
        let (found, _) = run(None, but_for(up_to(5_000, u64::MAX), &[17], Outcome::Path));
        assert_eq!(found.lower, bound(5_000, 3, 1));
        assert!(found.confirmed);
        // Both, so that it steps down, and up again.
        let (found, _) = run(
            None,
            but_for(up_to(5_000, u64::MAX), &[17, 18], Outcome::Path),
        );
        assert_eq!(found.lower, bound(5_000, 4, 2));
        assert_eq!(found.upper, bound(5_062, 0, 3));
        assert!(found.confirmed);
    }

    #[test]
    fn a_rate_that_does_not_hold_again_steps_down() {
        let mut at_once = 0;
        let (found, tried) = run(Some(1_000), |pps| {
            at_once += 1;
            if pps > 900 && at_once > 1 {
                Outcome::Path
            } else {
                Outcome::Held
            }
        });
        // 1/64, then 1/32, 1/16 below.
        assert_eq!(
            tried,
            [1000, 1000, 1000, 985, 985, 955, 955, 896, 896, 896, 955]
        );
        assert_eq!(found.lower, bound(896, 3, 0));
        assert_eq!(found.upper, bound(955, 0, 3));
        assert!(found.confirmed);
    }

    /// Runs a search whose trials take 2.2 s, on a path that is disturbed from one moment to another.
    /// While it is gone, only what lies outside of that time comes back; while it is busy, slow packets
    /// do.
    fn disturbed(path: u64, from_ms: u64, for_ms: u64, gone: bool) -> Found {
        let mut search = Search::new(None, 20_000_000_000);
        let mut now = 0;
        let mut trials = 0;
        loop {
            let took = match search.next() {
                Step::Done(found) => return found,
                Step::WarmUp => 200,
                Step::Try(_) => 2_200,
            };
            let until = from_ms + for_ms;
            let met = now < until && now + took > from_ms;
            let whole = from_ms <= now && until >= now + took;
            match search.next() {
                Step::Try(pps) => {
                    trials += 1;
                    assert!(trials < 1000);
                    let outcome = match met {
                        true if gone && whole => Outcome::Nothing,
                        true => Outcome::Path,
                        false if pps > path => Outcome::Path,
                        false => Outcome::Held,
                    };
                    search.record(pps, outcome);
                }
                _ => search.warmed(!(gone && whole), took * 1_000_000),
            }
            now += took;
        }
    }

    proptest! {
        #[test]
        fn the_capacity_is_found_from_below(
            path in 1_u64..3_000_000_000,
            host in 1_u64..3_000_000_000,
            max in proptest::option::of(1_u64..3_000_000_000),
        ) {
            let (found, tried) = run(max, up_to(path, host));
            prop_assert!(tried.len() < MOST_TRIALS as usize, "{} trials", tried.len());
            let least = path.min(host).min(max.unwrap_or(u64::MAX));
            let pps = found.pps().unwrap();
            prop_assert!(found.confirmed);
            prop_assert!(pps <= least);
            prop_assert!(pps + (pps / RESOLUTION).max(1) >= least, "{pps} of {least}");
            let by = match least {
                _ if max == Some(pps) => LimitedBy::MaxRate,
                _ if path <= host => LimitedBy::Path,
                _ => LimitedBy::Host,
            };
            prop_assert_eq!(found.limited_by, Some(by));
            prop_assert_eq!(found.lower.unwrap().failed, 0);
            let upper = found.upper.map_or((0, ENOUGH), |upper| (upper.held, upper.failed));
            prop_assert_eq!(upper, (0, ENOUGH));
        }

        #[test]
        fn one_disturbance_does_not_change_the_rate(
            path in 30_u64..1_000_000,
            from_ms in 0_u64..60_000,
            for_ms in 1_u64..6_000,
            gone: bool,
        ) {
            let found = disturbed(path, from_ms, for_ms, gone);
            let pps = found.pps().unwrap();
            prop_assert!(pps <= path);
            prop_assert!(pps + (pps / RESOLUTION).max(1) >= path, "{found:?} of {path}");
            prop_assert!(found.confirmed);
            prop_assert_eq!(found.limited_by, Some(LimitedBy::Path));
            prop_assert!(found.upper.unwrap().failed >= 2);
        }

        #[test]
        fn random_loss_ends_the_search_too(
            path in 1_u64..10_000_000,
            chance in 0.0_f64..1.0,
            seed: u64,
        ) {
            let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
            let mut steady = up_to(path, u64::MAX);
            let (mut held, mut wrong) = (std::collections::HashMap::new(), 0);
            let (found, tried) = run(None, |pps| {
                let outcome = match random.random_bool(chance) {
                    true => [Outcome::Path, Outcome::Host][wrong % 2],
                    false => steady(pps),
                };
                wrong += 1;
                *held.entry(pps).or_insert(0) += u32::from(outcome == Outcome::Held);
                outcome
            });
            prop_assert!(tried.len() <= MOST_TRIALS as usize);
            if let Some(pps) = found.pps() {
                prop_assert!(pps <= path);
                prop_assert_eq!(found.lower.unwrap().held, held[&pps]);
                prop_assert!(!found.confirmed || held[&pps] > CONFIRMING);
            }
        }

        #[test]
        fn any_outcomes_end(
            outcomes in proptest::collection::vec((0_u8..4, any::<bool>()), 61),
        ) {
            let mut outcomes = outcomes.into_iter();
            let mut search = Search::new(None, PATIENCE_NS);
            loop {
                let (outcome, answered) = outcomes.next().unwrap_or((0, false));
                match search.next() {
                    Step::Done(_) => break,
                    Step::WarmUp => search.warmed(answered, PATIENCE_NS / 3),
                    Step::Try(pps) => {
                        prop_assert!(pps > 0);
                        search.record(pps, match outcome {
                            0 => Outcome::Held,
                            1 => Outcome::Path,
                            2 => Outcome::Host,
                            _ => Outcome::Nothing,
                        });
                    }
                }
            }
        }
    }
}
