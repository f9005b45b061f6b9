//! A bounded, even sample of one-way delays with their times: what figures of a part of a session,
//! or figures without the clocks' drift, are made of once that part or that drift is known.
//!
//! Until room runs out every delay is kept. Then every second one goes, by chance, and of those that
//! come later one in two is kept, and so on: at any time each packet had the same chance.

use super::packets::Packets;

/// Delays that were kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    delays: Vec<KeptDelay>,
    room: usize,
    /// One packet in so many is kept.
    one_in: u64,
    /// Packets so far.
    seen: u64,
    /// The packet, counted from 0, that is kept next.
    next: u64,
    /// Packets of several flows.
    mixed: bool,
    draws: u64,
}

/// A delay and when it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timed {
    /// When the reply came, by the time of [`super::clock::Clocks`].
    pub(super) at_ns: i64,
    /// From the request's departure.
    pub(super) took_ns: i64,
    pub(super) delay_ns: i64,
}

impl Timed {
    /// When the request left.
    pub(super) fn left_ns(&self) -> i64 {
        self.at_ns.saturating_sub(self.took_ns)
    }
}

/// A delay that was kept, of so many packets.
pub(super) type KeptDelay = (Timed, Packets);

impl Kept {
    /// Room for so many delays, taken at once or as they come.
    pub(super) fn new(room: usize, at_once: bool) -> Self {
        Self {
            delays: Vec::with_capacity(if at_once { room } else { 0 }),
            room,
            one_in: 1,
            seen: 0,
            next: 0,
            mixed: false,
            draws: 0,
        }
    }

    /// Adds a delay, in order of arrival.
    pub(super) fn record(&mut self, timed: Timed, packets: Packets) {
        let end = self.seen + packets.weight;
        let mut picked = 0;
        while self.next < end {
            picked += 1;
            // One of each group of so many.
            let group = self.next / self.one_in + 1;
            self.next = group * self.one_in + self.draw(self.one_in);
        }
        self.seen = end;
        if picked > 0 && self.delays.len() == self.room {
            self.thin();
            picked = self.share(picked, 2);
        }
        if picked > 0 {
            self.delays.push((timed, part(packets, picked)));
        }
    }

    /// All delays are kept, and are of one flow.
    pub(super) fn is_whole(&self) -> bool {
        self.one_in == 1 && !self.mixed
    }

    /// One packet in so many is kept.
    pub(super) fn one_in(&self) -> u64 {
        self.one_in
    }

    /// In order of arrival.
    pub(super) fn delays(&self) -> &[KeptDelay] {
        &self.delays
    }

    /// Adds what was kept of other packets.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        self.mixed |= other.mixed || (self.seen > 0 && other.seen > 0);
        while self.one_in < other.one_in {
            self.thin();
        }
        while other.one_in < self.one_in
            || (other.delays.len() + self.delays.len() > self.room && !other.delays.is_empty())
        {
            other.thin();
            if other.one_in > self.one_in {
                self.thin();
            }
        }
        self.seen += other.seen;
        self.next = self.seen + self.draw(self.one_in);
        self.delays.extend_from_slice(&other.delays);
    }

    /// Forgets all; allocates nothing.
    pub(super) fn clear(&mut self) {
        self.delays.clear();
        (self.one_in, self.seen, self.next) = (1, 0, 0);
        self.mixed = false;
    }

    /// Keeps one packet of two.
    fn thin(&mut self) {
        let (mut read, mut write) = (0, 0);
        while read < self.delays.len() {
            let first = self.delays[read];
            let second = self.delays.get(read + 1).copied();
            read += 2;
            let weight = |one: &KeptDelay| one.1.weight;
            let both = weight(&first) + second.as_ref().map_or(0, weight);
            let picked = self.share(both, 2);
            if picked > 0 {
                let chosen = self.draw(both);
                let one = second.filter(|_| chosen >= weight(&first)).unwrap_or(first);
                let count = first.1.count + second.map_or(0, |second| second.1.count);
                self.delays[write] = (one.0, part(Packets { count, ..one.1 }, picked));
                write += 1;
            }
        }
        self.delays.truncate(write);
        self.one_in *= 2;
        let group = self.seen.div_ceil(self.one_in);
        self.next = group * self.one_in + self.draw(self.one_in);
    }

    /// `n` divided by `by`, rounded up or down by chance.
    fn share(&mut self, n: u64, by: u64) -> u64 {
        n / by + u64::from(self.draw(by) < n % by)
    }

    /// A number below `bound`, as good as random (splitmix64): the same in every run.
    fn draw(&mut self, bound: u64) -> u64 {
        self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.draws;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// So many of the packets that some stand for.
fn part(packets: Packets, weight: u64) -> Packets {
    Packets {
        count: packets.count.min(weight),
        weight,
        ..packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(first: u64, count: u64) -> KeptDelay {
        let at_ns = i64::try_from(first).unwrap();
        let timed = Timed {
            at_ns,
            took_ns: 0,
            delay_ns: at_ns * 3,
        };
        (timed, Packets::of(first, count))
    }

    fn record(kept: &mut Kept, (timed, packets): KeptDelay) {
        kept.record(timed, packets);
    }

    #[test]
    fn all_are_kept_while_there_is_room() {
        let mut kept = Kept::new(100, true);
        let all: Vec<_> = (0..100).map(|seq| one(seq * 3, 3)).collect();
        all.iter().for_each(|delay| record(&mut kept, *delay));
        assert!(kept.is_whole());
        assert_eq!(kept.delays(), all);
        record(&mut kept, one(300, 3));
        assert!(!kept.is_whole());
        assert!(kept.delays().len() <= 51);
    }

    proptest! {
        #[test]
        fn each_part_of_a_session_is_kept_by_its_share(
            parts in prop::collection::vec((1_u64..5000, 1_u64..70), 1..5),
            split in any::<bool>(),
        ) {
            let room = 1024;
            let (mut kept, mut other) = (Kept::new(room, true), Kept::new(room, false));
            let mut seq = 0;
            let mut bounds = Vec::new();
            for (records, count) in &parts {
                for at in 0..*records {
                    let to = if split && at % 2 == 0 { &mut other } else { &mut kept };
                    record(to, one(seq, *count));
                    seq += count;
                }
                bounds.push((seq, records * count, *count));
            }
            kept.merge(&other);
            prop_assert!(kept.delays().len() <= room);
            prop_assert!(kept.delays().is_sorted_by_key(|(_, packets)| packets.first) || split);
            let total: u64 = kept.delays().iter().map(|(_, packets)| packets.weight).sum();
            let mut from = 0;
            for (until, packets, largest) in bounds {
                let in_part = kept.delays().iter().filter(|(_, packets)| (from..until).contains(&packets.first));
                let got: u64 = in_part.map(|(_, packets)| packets.weight).sum();
                let (got, whole) = (got as f64, total as f64);
                let expected = whole * packets as f64 / seq as f64;
                // Six deviations, of trains that may be kept as one.
                let bound = 6.0 * (expected * largest as f64).sqrt() + 6.0 * largest as f64;
                prop_assert!((got - expected).abs() <= bound, "{got} for {expected} of {whole}");
                from = until;
            }
        }
    }
}
