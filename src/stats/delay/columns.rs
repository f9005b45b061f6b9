//! The differences of samples, quantity by quantity.

use super::weigher::Measured;
use crate::sample::Sample;
use crate::stats::packets::Packets;

/// Samples that are recorded together.
pub(super) const COLUMN: usize = 256;

/// The differences of a part of a block, quantity by quantity: recorded one after the other, each has
/// its cells in the cache and its recurrences once a part.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) packets: Vec<Packets>,
    pub(super) inbound: Vec<i64>,
    pub(super) reflector: Vec<i64>,
    /// Of the samples with the T1 in use.
    pub(super) sent: Vec<Packets>,
    pub(super) roundtrip: Vec<i64>,
    pub(super) outbound: Vec<i64>,
    /// Packets and round-trip delays of each size class.
    pub(super) sizes: Vec<(Vec<Packets>, Vec<i64>)>,
}

impl Columns {
    pub(super) fn new(sizes: usize) -> Self {
        let packets = Vec::with_capacity;
        let delay = Vec::with_capacity;
        Self {
            packets: packets(COLUMN),
            inbound: delay(COLUMN),
            reflector: delay(COLUMN),
            // One more for what a sample stands for that came after it.
            sent: packets(2 * COLUMN),
            roundtrip: delay(2 * COLUMN),
            outbound: delay(2 * COLUMN),
            sizes: (0..sizes)
                .map(|_| (packets(2 * COLUMN), delay(2 * COLUMN)))
                .collect(),
        }
    }

    pub(super) fn push(&mut self, measured: &Measured) {
        self.sent.push(measured.packets);
        self.roundtrip.push(measured.roundtrip);
        self.outbound.push(measured.outbound);
        if let Some((packets, roundtrip)) = self.sizes.get_mut(measured.class) {
            packets.push(measured.packets);
            roundtrip.push(measured.roundtrip);
        }
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.inbound.clear();
        self.reflector.clear();
        self.clear_sent();
    }

    pub(super) fn clear_sent(&mut self) {
        self.sent.clear();
        self.roundtrip.clear();
        self.outbound.clear();
        for (packets, roundtrip) in &mut self.sizes {
            packets.clear();
            roundtrip.clear();
        }
    }
}

/// The differences of one sample's timestamps, in nanoseconds.
pub(super) struct SampleDelays {
    pub(super) inbound: i64,
    pub(super) reflector: i64,
    /// `None` where T1 is not known.
    pub(super) sent: Option<SinceT1>,
}

impl SampleDelays {
    /// `None` where the timestamps contradict each other.
    pub(super) fn of(sample: &Sample, t1_ns: Option<i64>) -> Option<Self> {
        let reflector = sample.t3_ns.checked_sub(sample.t2_ns)?;
        let inbound = sample.t4_ns.checked_sub(sample.t3_ns)?;
        let sent = match t1_ns {
            None => None,
            Some(t1_ns) => Some(SinceT1 {
                roundtrip: sample.t4_ns.checked_sub(t1_ns)?.checked_sub(reflector)?,
                outbound: sample.t2_ns.checked_sub(t1_ns)?,
            }),
        };
        let roundtrip = sent.as_ref().map_or(0, |sent| sent.roundtrip);
        (reflector >= 0 && roundtrip >= 0).then_some(Self {
            inbound,
            reflector,
            sent,
        })
    }
}

pub(super) struct SinceT1 {
    pub(super) roundtrip: i64,
    pub(super) outbound: i64,
}

impl SinceT1 {
    /// ((T2 - T1) - (T4 - T3)) / 2 (RFC 5905 §8).
    pub(super) fn offset(&self, inbound: i64) -> i64 {
        let twice = i128::from(self.outbound) - i128::from(inbound);
        i64::try_from(twice / 2).expect("half the difference of two 64-bit numbers has 64 bits")
    }
}
