//! How the Session-Reflector writes T2 and T3: found out from its first replies, and then a property of
//! the session, so that no column of figures ever holds two readings.
//!
//! The Z bit of its Error Estimate should say it (RFC 8186 §2.1), and often does not:
//!
//! - reflectors that were written when that bit was still reserved (RFC 4656 §4.1.2) send our Error
//!   Estimate back as theirs, and with it our Z bit, while they write NTP timestamps as ever;
//! - some write the seconds of a Unix clock as if they were those of NTP, 2,208,988,800 too few;
//! - some write nanoseconds where the fraction of a second belongs.
//!
//! So two things are asked. Since when seconds are counted is plain from any reply, unless the other
//! clock was never set. What is below the second is plain as soon as it is 10^9 or more; else some
//! replies that are ms apart tell it, since T2, read rightly, goes on as T1 does.

use crate::wire::{Format, Reading, ReplyHead, Timestamp};

/// No clock is further from ours than a year unless it was never set.
const ABSURD_NS: u64 = 366 * 24 * 3_600 * 1_000_000_000;
/// Replies are compared whose packets left so long apart.
const APART_NS: i64 = 2_000_000;
/// So many comparisons more must speak for a reading than for the other one.
const LEAD: i32 = 3;
/// A reading by which the two clocks are so many times nearer to each other is likely.
const NEARER: u64 = 32;
/// After so many replies no more of them are worth a wait.
const LOOKS: u32 = 8;

/// What is known of the format of T2 and T3.
#[derive(Clone, Debug, Default)]
pub(super) enum TimeFormat {
    /// Nothing: no reply has told a time.
    #[default]
    Unknown,
    /// What the replies so far leave open.
    Open(Evidence),
    /// It is taken to be this one, for want of evidence, which is still looked for.
    Assumed(Reading, Evidence),
    /// It is this one, whatever comes.
    Settled(Reading),
    /// It was taken to be the first, and is the other one.
    Mistaken(Reading, Reading),
}

/// How far the reading of T2 and T3 can be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Belief {
    /// Replies show it, or there is none.
    #[default]
    Shown,
    /// No reply shows it, and none denies it.
    Assumed,
    /// Replies deny it: all that rests on T2 or T3 alone is wrong.
    Denied,
}

impl TimeFormat {
    /// How T2 and T3 are read, once that is settled.
    #[inline]
    pub(super) fn settled(&self) -> Option<Reading> {
        match self {
            Self::Settled(reading) | Self::Assumed(reading, _) | Self::Mistaken(reading, _) => {
                Some(*reading)
            }
            Self::Unknown | Self::Open(_) => None,
        }
    }

    /// Looks at a reply that tells a time, to a packet that left at `t1_ns` and came about `near_ns`.
    pub(super) fn look(&mut self, head: &ReplyHead, t1_ns: i64, near_ns: i64) -> Option<Reading> {
        if let Self::Unknown = self {
            *self = Self::Open(Evidence::new(head, t1_ns, near_ns));
        }
        if let Self::Open(evidence) | Self::Assumed(_, evidence) = self
            && let Some(shown) = evidence.look(head, t1_ns, near_ns)
        {
            *self = match self.settled() {
                Some(assumed) if assumed != shown => Self::Mistaken(assumed, shown),
                _ => Self::Settled(shown),
            };
        }
        self.settled()
    }

    /// Which one it is, as far as is known in the end.
    pub(super) fn known(&self) -> Option<Reading> {
        match self {
            Self::Mistaken(_, shown) => Some(*shown),
            _ => self.settled(),
        }
    }

    /// Nothing speaks for one reading yet, and some replies more may.
    pub(super) fn is_worth_a_wait(&self) -> bool {
        matches!(self, Self::Open(evidence) if !evidence.is_near && evidence.looks < LOOKS)
    }

    /// How far what is settled can be believed.
    pub(super) fn belief(&self) -> Belief {
        match self {
            Self::Unknown | Self::Open(_) | Self::Settled(_) => Belief::Shown,
            Self::Assumed(..) => Belief::Assumed,
            Self::Mistaken(..) => Belief::Denied,
        }
    }

    /// Replies wait for evidence no longer: what is most likely is assumed. `None` where no reply told
    /// anything.
    pub(super) fn settle(&mut self) -> Option<Reading> {
        if let Self::Open(evidence) = self {
            *self = Self::Assumed(evidence.likely(), evidence.clone());
        }
        self.settled()
    }
}

/// What replies showed of the format.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// Below the second are units of 2^-32 s, or nanoseconds.
    fraction: Reading,
    nanoseconds: Reading,
    /// What the first reply leaves to believe where nothing else is known.
    likely: Reading,
    /// With that the two clocks are near each other, and with the other one far apart.
    is_near: bool,
    /// T1 of the reply to compare the next one with, and its T2 in either reading.
    last: Option<(i64, [i64; 2])>,
    /// How many comparisons more speak for the fraction (above 0) or for nanoseconds.
    lead: i32,
    /// Replies so far.
    looks: u32,
}

impl Evidence {
    fn new(head: &ReplyHead, t1_ns: i64, near_ns: i64) -> Self {
        let near = |reading| {
            let near = |stamp: Timestamp| {
                let ns = stamp.read(reading, near_ns);
                ns.is_some_and(|ns| ns.abs_diff(near_ns) <= ABSURD_NS)
            };
            near(head.receive_timestamp) && near(head.timestamp)
        };
        let (fraction, nanoseconds, likely) =
            match (near(Reading::Ntp), near(Reading::UnixFraction)) {
                (true, _) => (Reading::Ntp, Reading::NtpNanoseconds, Reading::Ntp),
                // With the Z bit of PTP or, repeated from our request, without.
                (false, true) => (Reading::UnixFraction, Reading::Ptp, Reading::Ptp),
                // That clock was never set: its word for it.
                (false, false) => {
                    let claimed = head.error_estimate.format().into();
                    (Reading::Ntp, Reading::Ptp, claimed)
                }
            };
        // Of two years that are absurd neither is.
        let off = |reading| {
            let t2_ns = head.receive_timestamp.read(reading, near_ns);
            let off = t2_ns.map_or(u64::MAX, |t2_ns| t2_ns.abs_diff(t1_ns));
            off.max(if off > ABSURD_NS { u64::MAX } else { 0 })
        };
        let (by_fraction, by_ns) = (off(fraction), off(nanoseconds));
        let nearer = if by_fraction < by_ns / NEARER {
            Some(fraction)
        } else {
            (by_ns < by_fraction / NEARER).then_some(nanoseconds)
        };
        Self {
            fraction,
            nanoseconds,
            likely: nearer.unwrap_or(likely),
            is_near: nearer.is_some(),
            last: None,
            lead: 0,
            looks: 0,
        }
    }

    fn likely(&self) -> Reading {
        match self.lead {
            0 => self.likely,
            1.. => self.fraction,
            _ => self.nanoseconds,
        }
    }

    fn look(&mut self, head: &ReplyHead, t1_ns: i64, near_ns: i64) -> Option<Reading> {
        self.looks += 1;
        let (t2, t3) = (head.receive_timestamp, head.timestamp);
        let (Some(_), Some(by_ns)) = (
            t3.read(self.nanoseconds, near_ns),
            t2.read(self.nanoseconds, near_ns),
        ) else {
            // So many nanoseconds would be a second.
            return Some(self.fraction);
        };
        let by_fraction = t2.read(self.fraction, near_ns)?;
        let (t1_before, before) = *self.last.get_or_insert((t1_ns, [by_fraction, by_ns]));
        let apart = t1_ns.saturating_sub(t1_before);
        if apart < APART_NS {
            return None;
        }
        self.last = Some((t1_ns, [by_fraction, by_ns]));
        let off = |now: i64, before: i64| {
            now.saturating_sub(before)
                .saturating_sub(apart)
                .unsigned_abs()
        };
        let (fraction, nanoseconds) = (off(by_fraction, before[0]), off(by_ns, before[1]));
        if fraction < nanoseconds / 2 {
            self.lead += 1;
        } else if nanoseconds < fraction / 2 {
            self.lead -= 1;
        }
        if self.lead >= LEAD {
            return Some(self.fraction);
        }
        (self.lead <= -LEAD).then_some(self.nanoseconds)
    }
}

/// Whether a reply with T2 and T3 of this reading claims, by its Z bit, the other format.
#[inline]
pub(super) fn claims_other(reading: Reading, claimed: Format) -> bool {
    matches!(
        (reading, claimed),
        (Reading::Ntp, Format::Ptp) | (Reading::Ptp, Format::Ntp)
    )
}

/// Whether T2 or T3, as they were read, is a year or more away, and another reading is not: this reply has
/// another format than those by which that was settled.
#[inline]
pub(super) fn is_of_another(t2: Timestamp, t3: Timestamp, read: (i64, i64), near_ns: i64) -> bool {
    let is_near = |ns: i64| ns.abs_diff(near_ns) <= ABSURD_NS;
    if is_near(read.0) && is_near(read.1) {
        return false;
    }
    [Reading::Ntp, Reading::UnixFraction]
        .into_iter()
        .any(|reading| {
            let near = |stamp: Timestamp| stamp.read(reading, near_ns).is_some_and(is_near);
            near(t2) && near(t3)
        })
}

/// Zero is no time but the want of one (RFC 5905 §6); read as one it would be years away.
#[inline]
pub(super) fn tells_no_time(head: &ReplyHead) -> bool {
    head.timestamp.raw() == 0 || head.receive_timestamp.raw() == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;
    use crate::wire::ErrorEstimate;

    const SECOND: i64 = 1_000_000_000;
    const NOW: i64 = 1_790_000_000 * SECOND;
    const ALL: [Reading; 4] = [
        Reading::Ntp,
        Reading::Ptp,
        Reading::UnixFraction,
        Reading::NtpNanoseconds,
    ];

    /// Writes a time as a peer does that has it like this.
    fn written(ns: i64, reading: Reading) -> Timestamp {
        let seconds = match reading {
            Reading::Ntp | Reading::NtpNanoseconds => Format::Ntp,
            Reading::Ptp | Reading::UnixFraction => Format::Ptp,
        };
        let below = match reading {
            Reading::Ntp | Reading::UnixFraction => Format::Ntp,
            Reading::Ptp | Reading::NtpNanoseconds => Format::Ptp,
        };
        let half = |format| Timestamp::from_unix_ns(ns, format).raw();
        Timestamp::from_raw(half(seconds) >> 32 << 32 | half(below) & 0xffff_ffff)
    }

    fn reply(t2_ns: i64, reading: Reading, claimed: Format) -> ReplyHead {
        ReplyHead {
            timestamp: written(t2_ns + 500, reading),
            receive_timestamp: written(t2_ns, reading),
            error_estimate: ErrorEstimate::new(true, claimed, 1000),
            ..ReplyHead::new_zeroed()
        }
    }

    #[test]
    fn a_fraction_that_is_no_nanoseconds_settles_it_at_once() {
        for (reading, claimed, expected) in [
            (Reading::Ntp, Format::Ntp, Reading::Ntp),
            (Reading::Ntp, Format::Ptp, Reading::Ntp),
            (Reading::UnixFraction, Format::Ntp, Reading::UnixFraction),
            (Reading::UnixFraction, Format::Ptp, Reading::UnixFraction),
        ] {
            let head = reply(NOW + SECOND / 2, reading, claimed);
            let mut format = TimeFormat::default();
            assert_eq!(format.look(&head, NOW, NOW), Some(expected));
            // What contradicts it later changes nothing.
            let other = reply(NOW + SECOND, Reading::Ptp, Format::Ptp);
            assert_eq!(format.look(&other, NOW, NOW), Some(expected));
        }
    }

    #[test]
    fn one_reply_that_leaves_it_open_is_read_as_most_peers_write() {
        for (reading, claimed, expected) in [
            (Reading::Ntp, Format::Ntp, Reading::Ntp),
            (Reading::NtpNanoseconds, Format::Ntp, Reading::Ntp),
            (Reading::Ntp, Format::Ptp, Reading::Ntp),
            (Reading::Ptp, Format::Ptp, Reading::Ptp),
            (Reading::UnixFraction, Format::Ntp, Reading::Ptp),
        ] {
            let mut format = TimeFormat::default();
            let head = reply(NOW + SECOND / 10, reading, claimed);
            assert_eq!(format.look(&head, NOW, NOW), None, "{reading:?}");
            assert_eq!(format.settle(), Some(expected), "{reading:?} {claimed:?}");
        }
        assert_eq!(TimeFormat::default().settle(), None, "no reply");
    }

    /// A reply a second, and no time to wait for more of them: what is assumed from the first is denied by
    /// those that come later, or shown.
    #[test]
    fn what_is_assumed_for_want_of_evidence_is_still_looked_at() {
        for (reading, belief) in [
            (Reading::Ntp, Belief::Shown),
            (Reading::NtpNanoseconds, Belief::Denied),
        ] {
            let mut format = TimeFormat::default();
            let first = NOW + SECOND / 10;
            let ahead = SECOND * 3 / 10;
            format.look(
                &reply(first, reading, Format::Ntp),
                first - ahead,
                first - ahead,
            );
            assert!(format.is_worth_a_wait());
            assert_eq!(format.settle(), Some(Reading::Ntp));
            assert_eq!(format.belief(), Belief::Assumed);
            // The gaps are random: what is below the second moves.
            for (n, below) in (1..).zip([3, 17, 9, 22, 5, 14]) {
                let at = NOW + n * SECOND + below * SECOND / 100;
                let t1 = at - ahead;
                let read = format.look(&reply(at, reading, Format::Ntp), t1, t1);
                assert_eq!(read, Some(Reading::Ntp), "one column has one reading");
            }
            let at = NOW + 9 * SECOND + SECOND / 2;
            format.look(&reply(at, reading, Format::Ntp), at - ahead, at - ahead);
            assert_eq!(format.belief(), belief, "{reading:?}");
            assert_eq!(format.known(), Some(reading));
        }
        // Where it does not move nothing is shown.
        let mut format = TimeFormat::default();
        for n in 0..20 {
            let at = NOW + n * SECOND + SECOND / 10;
            format.look(&reply(at, Reading::NtpNanoseconds, Format::Ntp), at, at);
            format.settle();
        }
        assert_eq!(format.belief(), Belief::Assumed);
    }

    #[test]
    fn what_makes_the_clocks_agree_is_likely() {
        for reading in ALL {
            let mut format = TimeFormat::default();
            let at = NOW + SECOND / 10;
            format.look(&reply(at + 1_000_000, reading, Format::Ntp), at, at);
            assert!(!format.is_worth_a_wait());
            assert_eq!(format.settle(), Some(reading));
        }
    }

    #[test]
    fn a_reply_that_is_years_away_is_of_another_format_where_that_is_near() {
        let of_another = |at: i64, written_as: Reading, read_as: Reading| {
            let head = reply(at, written_as, Format::Ntp);
            let (t2, t3) = (head.receive_timestamp, head.timestamp);
            let read = t2.read(read_as, NOW).zip(t3.read(read_as, NOW)).unwrap();
            is_of_another(t2, t3, read, NOW)
        };
        let at = NOW + SECOND / 10;
        assert!(of_another(at, Reading::UnixFraction, Reading::Ntp));
        assert!(of_another(at, Reading::Ntp, Reading::Ptp));
        assert!(!of_another(at, Reading::Ntp, Reading::Ntp));
        // A clock that was set by ten years is one all the same.
        let set = at - 10 * 366 * 86_400 * SECOND;
        assert!(!of_another(set, Reading::Ntp, Reading::Ntp));
    }

    /// A clock of 1970 or 2031 is read as its packets claim, unless they cannot mean that.
    #[test]
    fn a_clock_that_was_never_set_is_believed() {
        for at in [5 * SECOND, 1_930_000_000 * SECOND] {
            for (reading, claimed) in [(Reading::Ntp, Format::Ntp), (Reading::Ptp, Format::Ptp)] {
                let mut format = TimeFormat::default();
                format.look(&reply(at, reading, claimed), NOW, NOW);
                assert_eq!(format.settle(), Some(reading));
            }
            let mut format = TimeFormat::default();
            let head = reply(at + SECOND / 2, Reading::Ntp, Format::Ptp);
            assert_eq!(format.look(&head, NOW, NOW), Some(Reading::Ntp));
        }
    }

    proptest! {
        /// Whatever the peer writes and claims, and whenever the session begins: some replies that are ms
        /// apart find it out, and never find it wrong. A few of them may be delayed by anything.
        #[test]
        fn the_format_is_found(
            way in 0..4_usize,
            ptp: bool,
            below in 0..SECOND,
            offset in -100 * SECOND..100 * SECOND,
            gap in 10_000..120_000_000_i64,
            stall in 0..300_000_000_i64,
            jitter in 0..100_000_i64,
        ) {
            let reading = ALL[way];
            let claimed = if ptp { Format::Ptp } else { Format::Ntp };
            let mut format = TimeFormat::default();
            let mut found = None;
            for n in 0..100_000 {
                let t1 = NOW + below + n * gap;
                let late = match n {
                    1 => stall,
                    n => (n % 2) * jitter,
                };
                let head = reply(t1 + offset + late, reading, claimed);
                found = format.look(&head, t1, t1 + late);
                if found.is_some() || (n > 10 && n * gap > SECOND / 10) {
                    break;
                }
            }
            prop_assert_eq!(found, Some(reading));
        }
    }
}
