//! How long packets waited in this host after they were handed over: for room in the queue in front of the
//! interface, or for the next hop. Their transmit timestamps tell.

/// Shorter than this may be the way through the system, on a busy host.
const LEAST_NS: i64 = 10_000_000;

/// Waits of packets that have a transmit timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// Timestamps that tell of more than a moment, and than one interval.
    pub(crate) count: u64,
    pub(crate) longest_ns: i64,
    /// The wait behind the newest timestamp, where it was more than a moment; else 0.
    pub(crate) last_ns: i64,
}

impl Waits {
    /// Of packets that are `interval_ns` apart. True where the packet waited for more than a moment.
    #[inline]
    pub(crate) fn note(&mut self, handed_over_ns: i64, left_ns: i64, interval_ns: i64) -> bool {
        let waited_ns = left_ns.saturating_sub(handed_over_ns);
        if waited_ns <= LEAST_NS {
            self.last_ns = 0;
            return false;
        }
        self.count += u64::from(waited_ns > interval_ns);
        self.longest_ns = self.longest_ns.max(waited_ns);
        self.last_ns = waited_ns;
        true
    }

    /// Those of another thread of the session.
    pub(crate) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn only_what_is_longer_than_a_moment_and_an_interval_is_counted() {
        let mut waits = Waits::default();
        for (at, wait) in (0..).zip([0, 9, 11, 30, 700, 40].map(|ms| ms * MS)) {
            let long = waits.note(at * MS, at * MS + wait, 20 * MS);
            assert_eq!(long, wait > 10 * MS);
        }
        let found = Waits {
            count: 3,
            longest_ns: 700 * MS,
            last_ns: 40 * MS,
        };
        assert_eq!(waits, found);
        // The queue is empty again.
        waits.note(100 * MS, 101 * MS, 20 * MS);
        assert_eq!(
            waits,
            Waits {
                last_ns: 0,
                ..found
            }
        );
        let mut both = Waits::default();
        both.add(&found);
        both.add(&waits);
        assert_eq!(both, Waits { count: 6, ..found });
    }
}
