//! Departures as a pure iterator: when each packet or train is due, and of what size.
//!
//! A train takes the place of as many packets in a row: it is due with its first one, and the next
//! one follows after as many gaps.
//!
//! Due times are counted from the start of the session and never depend on when a packet really
//! left: a late departure shifts none of the later ones.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use rand_pcg::Pcg64Mcg;

use crate::config::{Departures, End, Rate, SizeClass};

/// A packet or a train to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Nanoseconds from the start of the session; `None`: at once.
    pub due_ns: Option<u64>,
    /// Index of its size.
    pub class: u8,
    /// Packets: 1, or those of the train.
    pub count: u32,
}

/// The departures of a session, in order.
#[derive(Clone, Debug)]
pub struct Schedule {
    gaps: Gaps,
    sizes: Cycle,
    end: End,
    /// Packets so far.
    index: u64,
    /// Packets of a train, now and from the next cycle of sizes on.
    burst: u32,
    next_burst: u32,
}

#[derive(Clone, Debug)]
enum Gaps {
    Periodic(Rate),
    Random {
        /// The first packet comes after a gap, too.
        later: bool,
        mean_ns: f64,
        /// `None`: exponential.
        spread: Option<f64>,
        at_ns: f64,
        /// Packets of the train before.
        before: u32,
        rng: Pcg64Mcg,
    },
    Flood,
}

impl Gaps {
    /// Due time of packet `index`, with which a train of `count` begins; called in order.
    fn due_ns(&mut self, index: u64, count: u32) -> Option<u64> {
        match self {
            Self::Periodic(rate) => Some(rate.due_ns(index)),
            Self::Random {
                later,
                mean_ns,
                spread,
                at_ns,
                before,
                rng,
            } => {
                if index > 0 || *later {
                    let factor = match spread {
                        None => Exp1.sample(rng),
                        Some(spread) => 1.0 + *spread * (2.0 * rng.random::<f64>() - 1.0),
                    };
                    *at_ns += *mean_ns * factor * f64::from(*before);
                }
                *before = count;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "never negative, and exact to the nanosecond for 104 days"
                )]
                let due = *at_ns as u64;
                Some(due)
            }
            Self::Flood => None,
        }
    }
}

/// The sizes of a mix in random order, with their exact ratio in every whole cycle.
#[derive(Clone, Debug)]
struct Cycle {
    classes: Vec<u8>,
    at: usize,
    rng: Pcg64Mcg,
}

impl Cycle {
    /// Whether the next size begins a cycle.
    fn is_whole(&self) -> bool {
        self.at == 0 || self.at == self.classes.len()
    }

    fn next(&mut self) -> u8 {
        if self.at == self.classes.len() {
            self.at = 0;
        }
        if self.at == 0 && self.classes.len() > 1 {
            self.classes.shuffle(&mut self.rng);
        }
        self.at += 1;
        self.classes[self.at - 1]
    }
}

impl Schedule {
    /// The same arguments give the same schedule, on every machine.
    #[must_use]
    pub fn new(
        departures: Departures,
        mut end: End,
        sizes: &[SizeClass],
        seed: u64,
        burst: u32,
    ) -> Self {
        if let (Departures::Periodic(rate), Some(duration)) = (departures, end.duration_ns) {
            // So that the last train is no longer than the session.
            let count = rate.count_in(duration);
            end.count = Some(end.count.unwrap_or(u64::MAX).min(count));
        }
        let random = |rate: Rate, spread| Gaps::Random {
            later: false,
            mean_ns: 1e9 / rate.per_second(),
            spread,
            at_ns: 0.0,
            before: 1,
            rng: Pcg64Mcg::seed_from_u64(seed),
        };
        let gaps = match departures {
            Departures::Periodic(rate) => Gaps::Periodic(rate),
            Departures::Poisson(rate) => random(rate, None),
            Departures::Uniform { rate, spread } => random(rate, Some(spread)),
            Departures::Flood => Gaps::Flood,
        };
        let mut classes = Vec::new();
        for (class, size) in (0_u8..).zip(sizes) {
            classes.extend((0..size.weight).map(|_| class));
        }
        Self {
            gaps,
            sizes: Cycle {
                classes,
                at: 0,
                rng: Pcg64Mcg::seed_from_u64(!seed),
            },
            end,
            index: 0,
            burst: burst.max(1),
            next_burst: burst.max(1),
        }
    }

    /// The same with random gaps that begin before the first packet: one of several that are sent at
    /// once. Those of exponential gaps are together what one of their summed rate would be.
    #[must_use]
    pub fn beside_another(mut self) -> Self {
        if let Gaps::Random { later, .. } = &mut self.gaps {
            *later = true;
        }
        self
    }

    /// Makes trains of `burst` packets from the next whole cycle of sizes on.
    pub fn set_burst(&mut self, burst: u32) {
        self.next_burst = burst.max(1);
    }

    /// Packets of a train at this moment.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How long the session may last, for those departures that are due at once.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        self.end.duration_ns
    }
}

impl Iterator for Schedule {
    type Item = Departure;

    fn next(&mut self) -> Option<Departure> {
        let left = self.end.count.unwrap_or(u64::MAX) - self.index;
        if left == 0 {
            return None;
        }
        if self.sizes.is_whole() {
            self.burst = self.next_burst;
        }
        let count = u32::try_from(left).map_or(self.burst, |left| left.min(self.burst));
        let due_ns = self.gaps.due_ns(self.index, count);
        if let (Some(due), Some(duration)) = (due_ns, self.end.duration_ns)
            && due >= duration
        {
            return None;
        }
        self.index += u64::from(count);
        Some(Departure {
            due_ns,
            class: self.sizes.next(),
            count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMIX: [SizeClass; 3] = [
        SizeClass {
            payload: 22,
            frame: 64,
            weight: 7,
        },
        SizeClass {
            payload: 548,
            frame: 590,
            weight: 4,
        },
        SizeClass {
            payload: 1472,
            frame: 1514,
            weight: 1,
        },
    ];

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    fn until(count: Option<u64>, duration_ns: Option<u64>) -> End {
        End { count, duration_ns }
    }

    fn dues(departures: Departures, end: End, seed: u64) -> Vec<u64> {
        Schedule::new(departures, end, &IMIX[..1], seed, 1)
            .map(|d| d.due_ns.unwrap())
            .collect()
    }

    #[test]
    fn random_flows_beside_another_begin_apart() {
        let rate = "1k".parse().unwrap();
        let end = until(Some(50), None);
        for departures in [
            Departures::Poisson(rate),
            Departures::Uniform { rate, spread: 0.5 },
        ] {
            let plain = Schedule::new(departures, end, &IMIX[..1], 3, 1);
            let beside = plain.clone().beside_another();
            assert_eq!(plain.clone().next().unwrap().due_ns, Some(0));
            assert!(beside.clone().next().unwrap().due_ns > Some(0));
            assert_eq!(beside.count(), 50);
        }
        let periodic = Schedule::new(Departures::Periodic(rate), end, &IMIX[..1], 3, 1);
        assert!(periodic.clone().eq(periodic.beside_another()));
    }

    #[test]
    fn a_periodic_schedule_does_not_drift() {
        let end = until(None, Some(1_000_000_000));
        let due = dues(Departures::Periodic(rate("3")), end, 0);
        assert_eq!(due, [0, 333_333_333, 666_666_666]);
        let due = dues(Departures::Periodic(rate("100k")), end, 0);
        assert_eq!(due.len(), 100_000);
        assert_eq!(due[99_999], 999_990_000);
    }

    #[test]
    fn every_whole_dozen_has_the_exact_ratio_in_changing_order() {
        let end = until(Some(12 * 1000), None);
        let departures = Departures::Periodic(rate("1k"));
        let schedule = Schedule::new(departures, end, &IMIX, 7, 1);
        let classes: Vec<u8> = schedule.map(|d| d.class).collect();
        let mut orders = std::collections::HashSet::new();
        for dozen in classes.chunks(12) {
            let of = |class| dozen.iter().filter(|c| **c == class).count();
            assert_eq!([of(0), of(1), of(2)], [7, 4, 1]);
            orders.insert(dozen.to_vec());
        }
        assert!(orders.len() > 500);
    }

    #[test]
    fn random_gaps_have_their_mean_and_depend_on_the_seed_alone() {
        let end = until(Some(100_001), None);
        for departures in [
            Departures::Poisson(rate("10k")),
            Departures::Uniform {
                rate: rate("10k"),
                spread: 0.5,
            },
        ] {
            let due = dues(departures, end, 42);
            assert_eq!(due, dues(departures, end, 42));
            assert_ne!(due, dues(departures, end, 43));
            assert_eq!(due[0], 0);
            assert!(due.is_sorted());
            // The mean of 100,000 gaps of 100 µs; five standard deviations are 1.6 %.
            let total = due.last().unwrap();
            assert!((9_840_000_000..10_160_000_000).contains(total), "{total}");
        }
    }

    /// The rate of the packets before the last train, and the packets of each of 42,000 trains: they
    /// have `burst` packets, and from the middle on, where a cycle of sizes ends, `later`.
    fn rate_of_trains(departures: Departures, burst: u32, later: u32) -> (f64, Vec<u32>) {
        let end = until(None, None);
        let mut schedule = Schedule::new(departures, end, &IMIX[..1], 42, burst);
        let first = schedule.by_ref().take(21_000);
        let mut trains: Vec<_> = first.collect();
        schedule.set_burst(later);
        trains.extend(schedule.take(21_000));
        let (last, before) = trains.split_last().unwrap();
        let packets: u32 = before.iter().map(|train| train.count).sum();
        let ns = u32::try_from(last.due_ns.unwrap() / 1000).unwrap();
        let counts = trains.iter().map(|train| train.count).collect();
        (f64::from(packets) / f64::from(ns) * 1e6, counts)
    }

    #[test]
    fn random_gaps_between_trains_keep_the_rate() {
        let rate = rate("100k");
        for departures in [
            Departures::Poisson(rate),
            Departures::Uniform { rate, spread: 0.5 },
        ] {
            for (burst, later) in [(1, 1), (16, 16), (4, 64), (64, 4)] {
                let (pps, counts) = rate_of_trains(departures, burst, later);
                // Of 21,000 gaps that decide; five standard deviations are 3.5 %.
                assert!(
                    (96_500.0..103_500.0).contains(&pps),
                    "{burst} {later}: {pps}"
                );
                let (first, rest) = counts.split_at(21_000);
                assert!(first.iter().all(|count| *count == burst));
                assert!(rest.iter().all(|count| *count == later));
            }
        }
    }

    #[test]
    fn trains_become_longer_with_a_whole_cycle_of_sizes() {
        let departures = Departures::Periodic(rate("1k"));
        let mut schedule = Schedule::new(departures, until(None, None), &IMIX, 7, 2);
        let counts = |schedule: &mut Schedule, trains| {
            let trains = schedule.take(trains);
            trains.map(|train| train.count).collect::<Vec<_>>()
        };
        assert_eq!(counts(&mut schedule, 5), [2; 5]);
        schedule.set_burst(8);
        assert_eq!(counts(&mut schedule, 7), [2; 7]);
        assert_eq!(schedule.burst(), 2);
        assert_eq!(counts(&mut schedule, 12), [8; 12]);
        assert_eq!(schedule.burst(), 8);
    }

    #[test]
    fn gaps_have_the_right_spread() {
        let end = until(Some(100_001), None);
        let gaps = |departures| {
            let due = dues(departures, end, 1);
            let gaps: Vec<u64> = due.windows(2).map(|w| w[1] - w[0]).collect();
            gaps
        };
        let uniform = gaps(Departures::Uniform {
            rate: rate("10k"),
            spread: 0.25,
        });
        assert!(uniform.iter().all(|gap| (74_999..=125_001).contains(gap)));
        let poisson = gaps(Departures::Poisson(rate("10k")));
        // Of exponential gaps 1/e are longer than the mean.
        let longer = poisson.iter().filter(|gap| **gap > 100_000).count();
        assert!((36_000..37_600).contains(&longer), "{longer}");
    }

    #[test]
    fn a_flood_is_due_at_once_and_ends_by_count() {
        let schedule = Schedule::new(Departures::Flood, until(Some(3), None), &IMIX, 0, 1);
        let dues: Vec<_> = schedule.map(|d| d.due_ns).collect();
        assert_eq!(dues, [None, None, None]);
    }

    #[test]
    fn a_flood_tells_when_it_ends() {
        for duration in [None, Some(300_000_000)] {
            let mut schedule = Schedule::new(Departures::Flood, until(None, duration), &IMIX, 0, 1);
            assert_eq!(schedule.duration_ns(), duration);
            // It is over by the clock alone.
            assert_eq!(schedule.nth(1000).map(|d| d.due_ns), Some(None));
        }
    }
}
