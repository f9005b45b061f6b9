//! Which replies a sample with T1 stands for.

use crate::stats::packets::Packets;

/// Gives the replies whose T1 is not known to the samples that stand for them: half to the one before, half
/// to the one after, so that neither end of a slope counts for more than the other.
///
/// A sample stands for no reply that came more than a second away from it, where stamps were lost for so
/// long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weigher {
    /// Replies since the last sample, and when the first of them came.
    pub(super) between: u64,
    pub(super) since_ns: i64,
    /// The last sample.
    pub(super) before: Option<Measured>,
}

impl Weigher {
    pub(super) const LONGEST_NS: u64 = 1_000_000_000;

    /// Replies without T1 that came at `at_ns`.
    pub(super) fn pass(&mut self, count: u64, at_ns: i64) {
        if self.between == 0 {
            self.since_ns = at_ns;
        }
        self.between += count;
    }

    /// A sample with T1 that came at `at_ns`: returns what it adds, and before that what is added to the one
    /// before it.
    pub(super) fn weigh(&mut self, sample: Measured, at_ns: i64) -> (Option<Measured>, Measured) {
        let between = std::mem::take(&mut self.between);
        let before = self.before.replace(sample);
        if between == 0 {
            return (None, sample);
        }
        let lasted = at_ns.saturating_sub(self.since_ns).unsigned_abs();
        let sides = if before.is_some() { 2 } else { 1 };
        let reach = Self::LONGEST_NS * sides;
        let near = if lasted > reach {
            let near = u128::from(between) * u128::from(reach) / u128::from(lasted);
            u64::try_from(near).unwrap_or(between)
        } else {
            between
        };
        let to_before = near / sides * (sides - 1);
        let before = before.filter(|_| to_before > 0).map(|before| Measured {
            packets: Packets {
                count: 0,
                weight: to_before,
                ..before.packets
            },
            ..before
        });
        let packets = Packets {
            weight: sample.packets.count + near - to_before,
            apart: true,
            ..sample.packets
        };
        (before, Measured { packets, ..sample })
    }
}

/// What a sample adds to the figures that rest on T1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) packets: Packets,
    pub(super) class: usize,
    pub(super) roundtrip: i64,
    pub(super) outbound: i64,
}
