//! Which rate to try next: the search as a pure state machine, without clock, socket or thread.
//!
//! Throughput is the fastest rate without loss (RFC 2544 §26.1), here: without loss beyond a bound.
//! The rate doubles until a trial fails; then the gap between the fastest rate that held and the
//! slowest that failed is halved until it is small; then the rate must hold again, [`CONFIRMING`]
//! times in a row, or it steps down, each time further. Until then a failure that may be of a moment
//! needs a second one. Rates are whole packets a second.

use crate::report::find_rate::{LimitedBy, Outcome};

/// The gap that is left between found and failed rate: this part of the found one, 1.6 %.
pub const RESOLUTION: u64 = 64;
/// Trials in which the rate must hold once more.
pub const CONFIRMING: u32 = 2;
/// Most trials of one search.
pub const MOST_TRIALS: u32 = 60;
/// The rate of the first trial, in packets a second.
pub const FIRST_PPS: u64 = 1_000;
/// The fastest rate there is, in packets a second: that of [`Rate`](crate::config::Rate).
const MOST_PPS: u64 = 100_000_000_000;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try this rate, in packets a second, 1 or more, and say how it went.
    Try(u64),
    /// The search is over.
    Done(Found),
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Fastest rate that held, in packets a second; `None` where not even one packet a second did.
    pub pps: Option<u64>,
    /// It held in [`CONFIRMING`] further trials.
    pub stable: bool,
    /// Why it is not more; `None` where that was not found out.
    pub limited_by: Option<LimitedBy>,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    most: u64,
    /// Fastest rate that held and is below all that failed; 0: none.
    held: u64,
    /// Slowest rate that failed, and why.
    failed: Option<(u64, LimitedBy)>,
    /// Trials in a row in which `held` held again.
    confirmed: u32,
    /// Times that a rate was given up which had held once.
    stepped: u32,
    /// The last trial failed, perhaps by a busy moment of this host or by a few packets lost to
    /// something else than the rate: it gets a second one.
    again: Option<u64>,
    trials: u32,
    nothing: bool,
}

impl Search {
    /// A search up to a rate in packets a second; `None`: without end.
    #[must_use]
    pub fn new(max_pps: Option<u64>) -> Self {
        Self {
            most: max_pps.unwrap_or(MOST_PPS).clamp(1, MOST_PPS),
            held: 0,
            failed: None,
            confirmed: 0,
            stepped: 0,
            again: None,
            trials: 0,
            nothing: false,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Step {
        if self.nothing || self.trials >= MOST_TRIALS {
            return Step::Done(self.found());
        }
        if let Some(pps) = self.again {
            return Step::Try(pps);
        }
        let Some((failed, _)) = self.failed else {
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

    /// Takes the outcome of the trial that [`next`](Self::next) asked for, and whether a loss of the
    /// path's was a slight one.
    pub fn record(&mut self, pps: u64, outcome: Outcome, slight: bool) {
        self.trials += 1;
        let second = self.again.take().is_some();
        match outcome {
            Outcome::Held if pps == self.held => self.confirmed += 1,
            Outcome::Held => {
                self.held = pps;
                self.confirmed = 0;
            }
            Outcome::Nothing if self.trials == 1 => self.nothing = true,
            Outcome::Host if !second => self.again = Some(pps),
            // Without it one packet that is lost early on would keep the search far below the path's
            // rate. A rate that has held before has had its chance.
            Outcome::Path if slight && !second && pps > self.held => self.again = Some(pps),
            Outcome::Host => self.fail(pps, LimitedBy::Host),
            Outcome::Path | Outcome::Nothing => self.fail(pps, LimitedBy::Path),
        }
    }

    fn fail(&mut self, pps: u64, by: LimitedBy) {
        self.failed = Some((pps, by));
        if pps <= self.held {
            self.stepped += 1;
            self.held = 0;
        } else if self.stepped > 0 {
            self.stepped += 1;
        }
        self.confirmed = 0;
    }

    /// The rate to step down to: 1.6 % below at first, then twice as far each time, up to a quarter.
    fn below(&self, failed: u64) -> u64 {
        let part = RESOLUTION >> (self.stepped - 1).min(4);
        (failed - (failed / part).max(1)).max(1)
    }

    fn confirm(&self, held: u64) -> Step {
        if self.confirmed < CONFIRMING {
            Step::Try(held)
        } else {
            Step::Done(self.found())
        }
    }

    /// What is known so far, also where the search was not ended.
    #[must_use]
    pub fn found(&self) -> Found {
        let limited_by = match self.failed {
            Some((_, by)) => Some(by),
            None if self.held == self.most => Some(LimitedBy::MaxRate),
            None => None,
        };
        Found {
            pps: (self.held > 0).then_some(self.held),
            stable: self.held > 0 && self.confirmed >= CONFIRMING,
            limited_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};

    /// Runs a search against a path; returns what it found and the rates it tried.
    fn run(max: Option<u64>, mut path: impl FnMut(u64) -> Outcome) -> (Found, Vec<u64>) {
        let mut search = Search::new(max);
        let mut tried = Vec::new();
        loop {
            match search.next() {
                Step::Done(found) => return (found, tried),
                Step::Try(pps) => {
                    assert!(tried.len() < 1000, "{tried:?}");
                    tried.push(pps);
                    search.record(pps, path(pps), false);
                }
            }
        }
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

    #[test]
    fn it_doubles_then_halves_then_confirms() {
        let (found, tried) = run(None, up_to(5_000, u64::MAX));
        assert_eq!(
            tried,
            [
                1000, 2000, 4000, 8000, 6000, 5000, 5500, 5250, 5125, 5062, 5000, 5000
            ]
        );
        assert_eq!(
            found,
            Found {
                pps: Some(5_000),
                stable: true,
                limited_by: Some(LimitedBy::Path)
            }
        );
    }

    #[test]
    fn no_faster_rate_than_wanted_is_tried() {
        let (found, tried) = run(Some(3_000), up_to(u64::MAX, u64::MAX));
        assert_eq!(tried, [1000, 2000, 3000, 3000, 3000]);
        assert_eq!(found.limited_by, Some(LimitedBy::MaxRate));
        let (found, tried) = run(Some(10), up_to(u64::MAX, u64::MAX));
        assert_eq!(tried, [10, 10, 10]);
        assert_eq!(found.pps, Some(10));
    }

    #[test]
    fn silence_ends_the_search_at_once() {
        let (found, tried) = run(None, |_| Outcome::Nothing);
        assert_eq!(tried, [1000]);
        assert_eq!((found.pps, found.limited_by), (None, None));
    }

    #[test]
    fn a_path_that_loses_at_every_rate_has_none() {
        let (found, tried) = run(None, |_| Outcome::Path);
        assert_eq!(tried.last(), Some(&1));
        assert_eq!(
            (found.pps, found.limited_by),
            (None, Some(LimitedBy::Path)),
            "{tried:?}"
        );
    }

    #[test]
    fn a_busy_moment_of_this_host_is_given_a_second_trial() {
        let mut trials = 0;
        let mut path = up_to(4_000, u64::MAX);
        let (found, tried) = run(None, |pps| {
            trials += 1;
            match trials {
                2 | 10 => Outcome::Host,
                _ => path(pps),
            }
        });
        assert_eq!(tried[1..3], [2000, 2000]);
        let (pps, by) = (found.pps.unwrap(), found.limited_by);
        assert!((3_938..=4_000).contains(&pps), "{found:?}");
        assert_eq!(by, Some(LimitedBy::Path));
    }

    #[test]
    fn a_slight_loss_is_given_a_second_trial_until_a_rate_has_held() {
        let mut search = Search::new(Some(4_000));
        let mut tried = Vec::new();
        while let Step::Try(pps) = search.next() {
            tried.push(pps);
            // One packet of the first trial, and one of the second at the rate that is confirmed.
            let lost = tried.len() == 1 || tried.len() == 5;
            let outcome = if lost { Outcome::Path } else { Outcome::Held };
            search.record(pps, outcome, true);
        }
        assert_eq!(tried, [1000, 1000, 2000, 4000, 4000, 3938, 3938, 3938]);
        assert_eq!(search.found().limited_by, Some(LimitedBy::Path));
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
        assert_eq!(tried, [1000, 1000, 985, 955, 896, 896, 896]);
        assert_eq!(found.pps, Some(896));
        assert!(found.stable);
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
            let pps = found.pps.unwrap();
            prop_assert!(found.stable);
            prop_assert!(pps <= least);
            prop_assert!(pps + (pps / RESOLUTION).max(1) >= least, "{pps} of {least}");
            let by = match least {
                _ if max == Some(pps) => LimitedBy::MaxRate,
                _ if path <= host => LimitedBy::Path,
                _ => LimitedBy::Host,
            };
            prop_assert_eq!(found.limited_by, Some(by));
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
            if let Some(pps) = found.pps {
                prop_assert!(pps <= path);
                prop_assert!(!found.stable || held[&pps] > CONFIRMING);
            }
        }

        #[test]
        fn any_outcomes_end(outcomes in proptest::collection::vec(0_u8..4, 60)) {
            let mut outcomes = outcomes.into_iter().map(|outcome| match outcome {
                0 => Outcome::Held,
                1 => Outcome::Path,
                2 => Outcome::Host,
                _ => Outcome::Nothing,
            });
            let (_, tried) = run(None, |_| outcomes.next().unwrap());
            prop_assert!(tried.iter().all(|pps| *pps > 0));
        }
    }
}
