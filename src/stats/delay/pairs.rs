//! IPDV: differences between neighbours.

use super::cells::{Cells, Memory};
use super::ranks::{P99, nearest_rank, of_count, supported_rank};
use crate::report;
use crate::stats::float;
use crate::stats::packets::Packets;

/// Sequence numbers whose delays are remembered for IPDV.
pub(super) const RECENT: usize = 4096;

/// IPDV (RFC 3393): differences of consecutive sequence numbers, in whatever order they arrive.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    /// The newest (sequence number, value) of each residue.
    pub(super) recent: Box<[Option<(u64, i64)>]>,
    /// Differences, and how many of all they stand for.
    pub(super) count: u64,
    pub(super) weight: u64,
    /// What the next difference stands for beside itself, and the size of the last one.
    pub(super) carried: u64,
    pub(super) last: Option<u64>,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) sum_of_absolutes: i128,
    pub(super) absolutes: Cells,
}

impl Pairs {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            recent: vec![None; RECENT].into_boxed_slice(),
            count: 0,
            weight: 0,
            carried: 0,
            last: None,
            min: 0,
            max: 0,
            sum_of_absolutes: 0,
            absolutes: Cells::new(memory),
        }
    }

    /// Adds a value of packets that share their timestamps: only the first one differs from the packet
    /// before, and only the last one from the packet after. Between the others nothing was measured.
    pub(super) fn record(&mut self, packets: Packets, value: i64) {
        let last = packets.count.checked_sub(1);
        let Some(last) = last.and_then(|n| n.checked_add(packets.first)) else {
            if let Some(size) = self.last {
                self.weigh(size, packets.weight);
            }
            return;
        };
        // The first of two neighbours has none before it: the difference between them stands for what it
        // stands for, too.
        self.carried += packets.weight.saturating_sub(packets.count);
        let first = packets.first;
        let stored = self.store(first, value);
        if stored
            && !packets.joined
            && let Some(before) = first.checked_sub(1).and_then(|seq| self.value_of(seq))
        {
            self.add(before, value);
        }
        for seq in (first..last).skip(1) {
            self.store(seq, value);
        }
        if (last == first && stored || last != first && self.store(last, value))
            && let Some(after) = last.checked_add(1).and_then(|seq| self.value_of(seq))
        {
            self.add(value, after);
        }
    }

    /// Remembers a value; false for a repetition, or one so late that its neighbours are forgotten.
    pub(super) fn store(&mut self, seq: u64, value: i64) -> bool {
        let slot = &mut self.recent[slot(seq)];
        let newest = slot.is_none_or(|(newest, _)| newest < seq);
        if newest {
            *slot = Some((seq, value));
        }
        newest
    }

    pub(super) fn value_of(&self, seq: u64) -> Option<i64> {
        self.recent[slot(seq)].and_then(|(of, value)| (of == seq).then_some(value))
    }

    pub(super) fn add(&mut self, before: i64, after: i64) {
        // Exact but for differences of more than 292 years.
        let difference = after.saturating_sub(before);
        if self.count == 0 {
            (self.min, self.max) = (difference, difference);
        }
        self.count += 1;
        self.min = self.min.min(difference);
        self.max = self.max.max(difference);
        let size = difference.unsigned_abs();
        self.last = Some(size);
        let weight = 1 + std::mem::take(&mut self.carried);
        self.weigh(size, weight);
    }

    /// A difference of this size stands for so many.
    pub(super) fn weigh(&mut self, size: u64, weight: u64) {
        self.weight += weight;
        self.sum_of_absolutes += i128::from(size) * i128::from(weight);
        self.absolutes.record(size, weight);
    }

    /// Adds the differences of another flow.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            (self.min, self.max) = (other.min, other.max);
        }
        self.count += other.count;
        self.weight += other.weight;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum_of_absolutes += other.sum_of_absolutes;
        self.absolutes.merge(&other.absolutes);
    }

    pub(super) fn report(&self) -> Option<report::Ipdv> {
        if self.count == 0 {
            return None;
        }
        let largest = self.min.unsigned_abs().max(self.max.unsigned_abs());
        let at_rank = |rank| match self.absolutes.at_rank(rank) {
            Some(cell) => self.absolutes.highest_of(cell).min(largest),
            None => largest,
        };
        Some(report::Ipdv {
            min: self.min,
            mean_abs: float(self.sum_of_absolutes) / of_count(self.weight),
            p99_abs: supported_rank(self.count, P99)
                .map(|_| at_rank(nearest_rank(self.weight, P99))),
            max: self.max,
        })
    }

    pub(super) fn clear(&mut self) {
        self.recent.fill(None);
        (self.count, self.weight) = (0, 0);
        (self.carried, self.last) = (0, None);
        self.sum_of_absolutes = 0;
        self.absolutes.clear();
    }
}

pub(super) fn slot(seq: u64) -> usize {
    usize::try_from(seq % RECENT as u64).expect("less than RECENT")
}
