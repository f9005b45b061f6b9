//! How the samples of a session lie over its length.

/// Stretches that are told apart.
const STRETCHES: usize = 32;
/// Length of a stretch to begin with, as a power of two in nanoseconds: 33.6 ms.
const FIRST_SHIFT: u32 = 25;

/// Replies with delays, and those of them whose T1 is known, by stretch of the session: in constant memory,
/// with stretches that become twice as long each time that they do not reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// T4 of the first sample.
    from_ns: Option<i64>,
    shift: u32,
    stretches: [Stretch; STRETCHES],
}

/// A stretch of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Replies with delays.
    pub replies: u64,
    /// Those of them whose T1 is known: round-trip and outbound delays rest on these.
    pub samples: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            from_ns: None,
            shift: FIRST_SHIFT,
            stretches: [Stretch::default(); STRETCHES],
        }
    }
}

impl Spread {
    /// Notes replies that came at `at_ns`, in about ascending order, and whether their T1 is known.
    pub(super) fn note(&mut self, at_ns: i64, count: u64, with_t1: bool) {
        let from_ns = *self.from_ns.get_or_insert(at_ns);
        // Before the first one only where a clock was set.
        let since = u64::try_from(at_ns.saturating_sub(from_ns)).unwrap_or(0);
        let mut place = usize::try_from(since >> self.shift).unwrap_or(usize::MAX);
        while place >= STRETCHES {
            self.lengthen();
            place = usize::try_from(since >> self.shift).unwrap_or(usize::MAX);
        }
        let stretch = &mut self.stretches[place];
        stretch.replies += count;
        stretch.samples += if with_t1 { count } else { 0 };
    }

    /// T4 of the first reply.
    pub(super) fn began_ns(&self) -> Option<i64> {
        self.from_ns
    }

    /// T1 of the replies so far is of no use.
    pub(super) fn forget_samples(&mut self) {
        self.stretches
            .iter_mut()
            .for_each(|stretch| stretch.samples = 0);
    }

    fn lengthen(&mut self) {
        self.shift += 1;
        for place in 0..STRETCHES {
            let pair = self.stretches.get(2 * place..2 * place + 2);
            self.stretches[place] = pair.map_or(Stretch::default(), |pair| Stretch {
                replies: pair[0].replies + pair[1].replies,
                samples: pair[0].samples + pair[1].samples,
            });
        }
    }

    /// Adds the replies of another flow of the same session, whose T1 may be of no use.
    pub(super) fn merge(&mut self, other: &Self, with_t1: bool) {
        let Some(other_from) = other.from_ns else {
            return;
        };
        let mut other = other.clone();
        if !with_t1 {
            other.forget_samples();
        }
        let from = *self.from_ns.get_or_insert(other_from);
        while self.shift < other.shift {
            self.lengthen();
        }
        while other.shift < self.shift {
            other.lengthen();
        }
        for (place, stretch) in (0_i64..).zip(&other.stretches) {
            let at = other_from.saturating_add(place << other.shift).max(from);
            self.note(at, stretch.samples, true);
            self.note(at, stretch.replies - stretch.samples, false);
        }
    }

    /// Length of a stretch in nanoseconds, and the stretches up to the last one with a reply.
    #[must_use]
    pub fn stretches(&self) -> (u64, &[Stretch]) {
        let used = self.stretches.iter().rposition(|s| s.replies > 0);
        (
            1 << self.shift,
            &self.stretches[..used.map_or(0, |at| at + 1)],
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_reply_is_in_its_stretch(
            gaps in prop::collection::vec((0..400_000_000_i64, 1..50_u64, any::<bool>()), 1..300),
            from in -1_000_000_000_000_000_000..1_000_000_000_000_000_000_i64,
        ) {
            let (mut all, mut one, mut other) =
                (Spread::default(), Spread::default(), Spread::default());
            let mut at = from;
            let mut came = Vec::new();
            for (index, (gap, count, with_t1)) in gaps.iter().enumerate() {
                at += gap;
                all.note(at, *count, *with_t1);
                if index % 3 == 0 { &mut one } else { &mut other }.note(at, *count, *with_t1);
                came.push((at, *count, *with_t1));
            }
            let (length, stretches) = all.stretches();
            let first = came[0].0;
            for (place, stretch) in (0..).zip(stretches) {
                let here = came.iter().filter(|(at, _, _)| (at - first).unsigned_abs() / length == place);
                let (mut replies, mut samples) = (0, 0);
                for (_, count, with_t1) in here {
                    replies += count;
                    samples += if *with_t1 { *count } else { 0 };
                }
                prop_assert_eq!(*stretch, Stretch { replies, samples });
            }
            one.merge(&other, true);
            let sum = |spread: &Spread| {
                let (_, stretches) = spread.stretches();
                stretches.iter().fold((0, 0), |(r, s), one| (r + one.replies, s + one.samples))
            };
            prop_assert_eq!(sum(&one), sum(&all));
        }
    }
}
