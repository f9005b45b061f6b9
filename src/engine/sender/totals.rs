//! What a sender did, and what those of several threads did together.

use std::io;

use super::times::{DepartureTimes, ThreadRate};
use crate::engine::cores::merged;
use crate::engine::icmp::IcmpErrors;
use crate::engine::waits::Waits;
use crate::io::RefusedCall;

/// What a session sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) sent: u64,
    pub(crate) by_class: Vec<u64>,
    /// Probes that left, which are none of `sent`.
    pub(crate) probes: u64,
    pub(crate) times: DepartureTimes,
    pub(crate) withheld: Withheld,
    pub(crate) stamps: Asked,
    /// Why trains of some size were refused: packets of that size left one by one.
    pub(crate) unfolded: Option<i32>,
    /// ICMP errors that the sending socket was told of.
    pub(crate) icmp: IcmpErrors,
    pub(crate) interrupted: bool,
    /// Threads that stopped before their time, since all their packets were refused.
    pub(crate) gave_up: u64,
    /// DepartureTimes that all began anew, since the peer was not there yet.
    pub(crate) began_anew: u64,
    pub(crate) thread: ThreadFacts,
    /// Of several threads each that sent something.
    pub(crate) rates: Vec<ThreadRate>,
}

/// Packets that were due and did not leave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Withheld {
    /// Too far behind schedule.
    pub(crate) overdue: u64,
    /// Refused by the kernel, and its last reason where that was neither of the next two.
    pub(crate) refused: u64,
    pub(crate) refusal: Option<i32>,
    /// Of the refused ones, dropped by this host's own queue in front of the interface.
    pub(crate) no_room: u64,
    /// Of the refused ones, larger than the path is known to carry: that is not this host's doing.
    pub(crate) too_large: u64,
}

impl Withheld {
    #[cold]
    pub(super) fn refuse(&mut self, count: u32, error: &io::Error) {
        let count = u64::from(count);
        self.refused += count;
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => self.no_room += count,
            Some(libc::EMSGSIZE) => self.too_large += count,
            errno => self.refusal = errno,
        }
    }

    /// Packets that the system refused for what was no full queue and no size.
    pub(crate) fn turned_away(&self) -> u64 {
        let others = self.no_room + self.too_large;
        self.refused.saturating_sub(others)
    }

    fn add(&mut self, other: &Self) {
        self.overdue += other.overdue;
        self.refused += other.refused;
        self.refusal = self.refusal.or(other.refusal);
        self.no_room += other.no_room;
        self.too_large += other.too_large;
    }
}

/// Transmit stamps that were asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) count: u64,
    /// Two consecutive packets in so many asked for one: at least, and at most.
    pub(crate) one_in: (u32, u32),
}

impl Asked {
    fn add(&mut self, other: &Self) {
        let ((least, most), (from, to)) = (self.one_in, other.one_in);
        self.one_in = match self.count {
            0 => (from, to),
            _ => (least.min(from), most.max(to)),
        };
        self.count += other.count;
    }
}

/// What the system let a thread do.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadFacts {
    pub(crate) cpus: Option<Vec<usize>>,
    pub(crate) realtime_refused: Option<String>,
    /// The call for many packets that this system refuses, so that each took one of its own.
    pub(crate) refused_call: Option<RefusedCall>,
    /// The call that was refused until the end.
    pub(crate) failure: Option<RefusedCall>,
}

impl ThreadFacts {
    fn add(&mut self, other: &Self) {
        let cpus = self.cpus.take().zip(other.cpus.as_ref());
        self.cpus = cpus.map(|(cpus, more)| merged(cpus, more));
        if self.realtime_refused.is_none() {
            self.realtime_refused.clone_from(&other.realtime_refused);
        }
        self.refused_call = self.refused_call.or(other.refused_call);
        self.failure = self.failure.or(other.failure);
    }
}

impl Sent {
    /// Packets a second between the first departure and the last one; `None` where that is no time.
    pub(crate) fn pps(&self) -> Option<f64> {
        if self.rates.is_empty() {
            return ThreadRate::together(&[self.times.pace(self.sent)?]);
        }
        ThreadRate::together(&self.rates)
    }

    /// Packets left later than they were handed over.
    pub(crate) fn left_later(&mut self, waits: &Waits) {
        let each = self.sent.div_ceil(self.stamps.count.max(1));
        let late = waits.count.saturating_mul(each).min(self.sent);
        self.times.late = self.times.late.max(late);
        self.times.max_slip_ns = self.times.max_slip_ns.max(waits.longest_ns);
        self.times.last_ns = self.times.last_ns.saturating_add(waits.last_ns);
    }

    /// What several sender threads of one session did.
    pub(crate) fn together<'a>(threads: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        all.thread.cpus = Some(Vec::new());
        for thread in threads {
            all.add(thread);
        }
        all
    }

    fn add(&mut self, thread: &Self) {
        self.times.add(self.sent, &thread.times, thread.sent);
        self.rates.extend(thread.times.pace(thread.sent));
        self.sent += thread.sent;
        self.by_class.resize(thread.by_class.len(), 0);
        for (count, more) in self.by_class.iter_mut().zip(&thread.by_class) {
            *count += more;
        }
        self.probes += thread.probes;
        self.withheld.add(&thread.withheld);
        self.stamps.add(&thread.stamps);
        self.unfolded = self.unfolded.or(thread.unfolded);
        self.icmp.add(&thread.icmp);
        self.interrupted |= thread.interrupted;
        self.gave_up += thread.gave_up;
        self.began_anew += thread.began_anew;
        self.thread.add(&thread.thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate of threads that sent so many packets, the last ones as a train of so many, in so many
    /// microseconds, with trains of `longest`.
    fn pps(longest: u32, threads: &[(u64, u32, i64)]) -> Option<f64> {
        let threads = threads.iter().map(|(sent, last_burst, us)| Sent {
            sent: *sent,
            times: DepartureTimes {
                longest_burst: longest,
                last_burst: *last_burst,
                first_ns: 7,
                last_ns: 7 + us * 1000,
                ..DepartureTimes::default()
            },
            ..Sent::default()
        });
        let threads: Vec<_> = threads.collect();
        let together = Sent::together(threads.iter()).pps();
        if let [one] = threads.as_slice() {
            assert_eq!(one.pps(), together);
        }
        together
    }

    #[test]
    fn threads_have_the_rate_at_which_they_sent_together() {
        // Each of two sends 64 of its 100 packets and after 1280 ms the rest.
        let halves = [(100, 36, 1_280_000); 2];
        // At 250 a second each, two and one packet behind the first.
        let few = [(3, 1, 8000), (3, 1, 8001), (2, 1, 4000), (2, 1, 4000)];
        for (longest, threads, rate) in [
            (64, &halves[..1], Some(50.0)),
            (64, &halves, Some(100.0)),
            (1, &few, Some(1000.0)),
            // One stopped after 2 of 10 seconds.
            (
                1,
                &[(1001, 1, 10_000_000), (201, 1, 2_000_000)],
                Some(120.0),
            ),
            (1, &[(1001, 1, 10_000_000), (0, 0, 0)], Some(100.0)),
            // One with a single train had its time as well.
            (2, &[(3, 1, 8000), (2, 2, 0)], Some(500.0)),
            (
                1,
                &[(2, 1, 200_000), (2, 1, 200_000), (1, 1, 0)],
                Some(15.0),
            ),
            // Of what left at once nobody knows how long it would have taken.
            (1, &[(1, 1, 0)], None),
            (8, &[(8, 8, 0), (8, 8, 0)], None),
            (1, &[(0, 0, 0)], None),
        ] {
            let found = pps(longest, threads);
            let near = found.zip(rate).map(|(a, b)| (a / b - 1.0).abs() < 0.001);
            assert_eq!(
                (found.is_some(), near),
                (rate.is_some(), rate.map(|_| true)),
                "{found:?}"
            );
        }
    }
}
