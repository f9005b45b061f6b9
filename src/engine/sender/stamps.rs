//! Which packets ask for a transmit stamp.

use super::totals::Asked;

/// Which packets ask for a transmit stamp: two consecutive ones in every N, so that IPDV exists.
///
/// N is 1 up to 18,750 packets a second, and grows with the rate from there: a stamp costs about as
/// much as a quarter of a packet, on the CPU that also takes the replies. It is larger where the system
/// keeps few stamps until they are fetched. Where stamps of packets that were answered do not come, the
/// system had no room for them: N grows, and shrinks again as soon as they come. A stamp of a packet that
/// was not answered says nothing of that: the packet may wait in a queue, or have been dropped there.
#[derive(Debug)]
pub(super) struct Stamps {
    /// None are asked for.
    off: bool,
    one_in: u32,
    /// `one_in` where none are lost.
    least_apart: u32,
    /// Packets or trains that left.
    trains: u64,
    asked: Asked,
    window_ends: i64,
    /// Requested and lost at the end of the last window.
    before: (u64, u64),
}

impl Stamps {
    const MOST_APART: u32 = 1024;
    const LEAST_PAIRS: u64 = 128;
    /// Two stamps in this time are what every host keeps up with: 12,500 a second.
    const EASY_GAP_NS: i64 = 160_000;
    /// The system has room for what is asked for in twice this time, during which nobody may come by to
    /// fetch it.
    const UNFETCHED_NS: i64 = 50_000_000;
    const WINDOW_NS: i64 = 100_000_000;
    /// Where more than one in so many is lost there are too many.
    const LOST_ONE_IN: u64 = 32;

    pub(super) fn new(kept: u64, mean_gap_ns: i64, count: Option<u64>) -> Self {
        let kept = i64::try_from(kept).unwrap_or(i64::MAX);
        let gap_ns = Self::EASY_GAP_NS.max(4 * Self::UNFETCHED_NS / kept.max(1));
        let per_gap = gap_ns / mean_gap_ns.max(1);
        // However short a session is, some of its packets are stamped.
        let most = count.map_or(u32::MAX, |count| {
            u32::try_from(count / Self::LEAST_PAIRS).unwrap_or(u32::MAX)
        });
        let one_in = match u32::try_from(per_gap)
            .unwrap_or(u32::MAX)
            .min(Self::MOST_APART)
            .min(most)
        {
            0..=2 => 1,
            apart => apart.next_power_of_two(),
        };
        Self {
            off: kept == 0,
            one_in,
            least_apart: one_in,
            trains: 0,
            asked: Asked {
                count: 0,
                one_in: (one_in, one_in),
            },
            window_ends: i64::MIN,
            before: (0, 0),
        }
    }

    /// Packets or trains that left: the number of the next one.
    #[inline]
    pub(super) fn trains(&self) -> u64 {
        self.trains
    }

    /// Whether packet or train number `train` asks for one.
    #[inline]
    pub(super) fn wanted(&self, train: u64) -> bool {
        !self.off && train % u64::from(self.one_in) < 2
    }

    /// The next packet or train left.
    #[inline]
    pub(super) fn note(&mut self, asked: bool) {
        self.trains += 1;
        self.asked.count += u64::from(asked);
    }

    pub(super) fn asked(&self) -> Asked {
        self.asked
    }

    /// Looks at how many were lost in all.
    pub(super) fn adapt(&mut self, now: i64, lost: u64) {
        if now < self.window_ends {
            return;
        }
        self.window_ends = now.saturating_add(Self::WINDOW_NS);
        let (requested_before, lost_before) =
            std::mem::replace(&mut self.before, (self.asked.count, lost));
        let requested = self.asked.count - requested_before;
        let lost = lost.saturating_sub(lost_before);
        if lost * Self::LOST_ONE_IN > requested {
            self.one_in = (self.one_in * 4).min(Self::MOST_APART);
        } else if lost == 0 {
            self.one_in = (self.one_in / 2).max(self.least_apart);
        }
        let (least, most) = self.asked.one_in;
        self.asked.one_in = (least.min(self.one_in), most.max(self.one_in));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_asked_for_in_pairs() {
        let stamps = Stamps::new(1000, 100_000, None);
        assert!((0..100).all(|seq| stamps.wanted(seq)));
        // 100,000 packets a second.
        let stamps = Stamps::new(1 << 16, 10_000, None);
        let wanted: Vec<u64> = (0..40).filter(|seq| stamps.wanted(*seq)).collect();
        assert_eq!(wanted, [0, 1, 16, 17, 32, 33]);
        assert!(!Stamps::new(0, 100_000, None).wanted(0));
    }

    #[test]
    fn no_more_stamps_are_asked_for_than_the_system_keeps_while_nobody_fetches_them() {
        // An ordinary user's socket buffer keeps 208 of them: 100 in 50 ms.
        for (kept, gap_ns, one_in) in [
            (208, 1_000_000, 1),
            (208, 10_000, 128),
            (8192, 10_000, 16),
            (1 << 16, 10_000, 16),
            (1, 1_000_000, 256),
        ] {
            assert_eq!(
                Stamps::new(kept, gap_ns, None).one_in,
                one_in,
                "{kept} {gap_ns}"
            );
        }
        // Few packets are stamped all the same.
        assert_eq!(Stamps::new(208, 10_000, Some(256)).one_in, 1);
    }

    #[test]
    fn stamps_that_are_lost_thin_them_out_and_a_second_later_they_are_as_before() {
        let mut stamps = Stamps::new(1 << 16, 10_000, None);
        let (mut at, mut lost) = (0, 0);
        let mut windows = |stamps: &mut Stamps, count: u32, share: u64| {
            for _ in 0..count {
                let asked = 1_000_000 * 2 / u64::from(stamps.one_in);
                stamps.asked.count += asked;
                lost += asked / 100 * share;
                at += Stamps::WINDOW_NS;
                stamps.adapt(at, lost);
            }
        };
        windows(&mut stamps, 5, 0);
        assert_eq!(stamps.one_in, 16);
        windows(&mut stamps, 5, 2);
        assert_eq!(stamps.one_in, 16, "few may be lost");
        windows(&mut stamps, 10, 50);
        assert_eq!(stamps.one_in, Stamps::MOST_APART);
        windows(&mut stamps, 9, 0);
        assert_eq!(stamps.one_in, 16, "less than a second");
        assert_eq!(stamps.asked.one_in, (16, Stamps::MOST_APART));
    }
}
