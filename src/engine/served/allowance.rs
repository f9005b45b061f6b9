//! How much of its test traffic a client has answered, whatever sessions and threads it is on.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::config::Rate;

/// How much of its test traffic a client has answered; shared by all its sessions, on all threads.
///
/// A short burst goes beyond the rates: what they allow in [`BURST_NS`], and at least
/// [`BURST_PACKETS`] packets and [`BURST_OCTETS`] octets.
#[derive(Debug)]
pub struct Allowance {
    packets: Option<Limit>,
    octets: Option<Limit>,
}

impl Allowance {
    /// `packets` a second, and `bits` of UDP payload a second; `None`: as many as come.
    #[must_use]
    pub fn new(packets: Option<Rate>, bits: Option<u64>) -> Self {
        // So many packets take as many nanoseconds as one takes fractions of a nanosecond.
        let packet = |rate: Rate| Limit::new(rate.due_ns(1 << FRACTION), BURST_PACKETS);
        let octet =
            |bits: u64| Limit::new((SECOND_NS << FRACTION) / (bits / 8).max(1), BURST_OCTETS);
        Self {
            packets: packets.map(packet),
            octets: bits.map(octet),
        }
    }

    /// How many of `wanted` replies of `octets` each may leave at `now_ns` of the monotonic clock;
    /// they count as sent.
    pub(super) fn take(&self, now_ns: i64, wanted: usize, octets: usize) -> usize {
        let mut granted = wanted;
        if let Some(limit) = &self.packets {
            granted = limit.take(now_ns, granted, 1);
        }
        if let Some(limit) = &self.octets {
            let fewer = limit.take(now_ns, granted, octets);
            if let Some(packets) = &self.packets {
                packets.give_back(granted - fewer);
            }
            granted = fewer;
        }
        granted
    }
}

/// A rate, kept by one number that threads share without a lock: the moment until which what was
/// granted has used it up (the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug)]
struct Limit {
    /// What a packet or an octet takes, in nanoseconds and 2^-16 of them.
    unit: u64,
    /// How far ahead of now that moment may be.
    burst_ns: i64,
    used_until_ns: AtomicI64,
}

impl Limit {
    fn new(unit: u64, burst: u64) -> Self {
        let mut limit = Self {
            unit: unit.max(1),
            burst_ns: BURST_NS,
            used_until_ns: AtomicI64::new(i64::MIN / 2),
        };
        limit.burst_ns = limit.burst_ns.max(limit.cost(burst));
        limit
    }

    fn take(&self, now_ns: i64, wanted: usize, each: usize) -> usize {
        let (wanted, each) = (wanted as u64, each.max(1) as u64);
        let mut granted = 0;
        let _ = self
            .used_until_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                let from = until.max(now_ns);
                let left = self.burst_ns - (from - now_ns);
                granted = if self.cost(wanted * each) <= left {
                    wanted
                } else {
                    self.within(left) / each
                };
                (granted > 0).then(|| from.saturating_add(self.cost(granted * each)))
            });
        usize::try_from(granted).unwrap_or(0)
    }

    fn give_back(&self, packets: usize) {
        let cost = self.cost(packets as u64);
        self.used_until_ns.fetch_sub(cost, Ordering::Relaxed);
    }

    /// Nanoseconds that so many packets or octets take.
    fn cost(&self, units: u64) -> i64 {
        let fractions = u128::from(units) * u128::from(self.unit);
        i64::try_from(fractions.div_ceil(1 << FRACTION)).unwrap_or(i64::MAX / 4)
    }

    /// How many packets or octets take no more than so many nanoseconds.
    fn within(&self, ns: i64) -> u64 {
        let fractions = u128::try_from(ns).unwrap_or(0) << FRACTION;
        u64::try_from(fractions / u128::from(self.unit)).unwrap_or(u64::MAX)
    }
}

/// Bits of a nanosecond's fraction.
const FRACTION: u32 = 16;
const SECOND_NS: u64 = 1_000_000_000;
/// What the rates allow in this time may come at once, in nanoseconds.
pub const BURST_NS: i64 = 10_000_000;
/// So many packets may, however low the rate: those of a train.
pub const BURST_PACKETS: u64 = 64;
/// So many octets may, however low the rate: those of a train.
pub const BURST_OCTETS: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn rate(packets: u64) -> Option<Rate> {
        Rate::from_per_second(packets)
    }

    #[test]
    fn without_limits_all_may_leave() {
        let allowance = Allowance::new(None, None);
        for _ in 0..1000 {
            assert_eq!(allowance.take(0, 4000, 65_507), 4000);
        }
    }

    #[test]
    fn packets_beyond_the_burst_wait_for_their_time() {
        // 10 ms of it are 100 packets.
        let allowance = Allowance::new(rate(10_000), None);
        assert_eq!(allowance.take(5 * MS, 60, 100), 60);
        assert_eq!(allowance.take(5 * MS, 60, 100), 40);
        assert_eq!(allowance.take(5 * MS, 1, 100), 0);
        // One every 100 µs.
        assert_eq!(allowance.take(5 * MS + 99_999, 1, 100), 0);
        assert_eq!(allowance.take(5 * MS + 100_000, 3, 100), 1);
        assert_eq!(allowance.take(6 * MS, 50, 100), 9);
        // What was not used is kept for a burst, no more.
        assert_eq!(allowance.take(1000 * MS, 500, 100), 100);
    }

    #[test]
    fn a_low_rate_lets_a_train_through() {
        let allowance = Allowance::new(rate(1), Some(8));
        assert_eq!(allowance.take(0, 64, 1024), 64);
        assert_eq!(allowance.take(999 * MS, 1, 1), 0);
        assert_eq!(allowance.take(1000 * MS, 1, 1), 1);
    }

    #[test]
    fn the_smaller_of_both_limits_counts() {
        // 10 ms of it: 1,250,000 octets, 10,000 packets.
        let allowance = Allowance::new(rate(1_000_000), Some(1_000_000_000));
        assert_eq!(allowance.take(0, 5000, 1000), 1250);
        assert_eq!(allowance.take(0, 5000, 1000), 0);
        // The packets that found no room are not taken off the other limit.
        assert_eq!(allowance.take(8 * MS, 10_000, 1000), 1000);
        let allowance = Allowance::new(rate(10_000), Some(1_000_000_000));
        assert_eq!(allowance.take(0, 5000, 1000), 100);
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        for (packets, bits, octets, expected) in [
            (rate(333), None, 41, 333),
            (None, Some(10_000_000), 1000, 1250),
            (None, Some(10_000_000_000), 65_507, 19_081),
        ] {
            let allowance = Allowance::new(packets, bits);
            let mut all = 0;
            for us in 0..1_000_000 {
                all += allowance.take(us * 1000, 100, octets);
            }
            let burst = (expected / 100).max(64);
            assert!((expected..=expected + burst + 1).contains(&all), "{all}");
        }
    }

    #[test]
    fn threads_share_it() {
        let allowance = Allowance::new(rate(100_000), None);
        let take = || (0..10_000).map(|_| allowance.take(0, 1, 41)).sum::<usize>();
        let all: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(all, 1000);
    }
}
