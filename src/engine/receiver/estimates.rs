//! What the Session-Reflector's Error Estimates say, of all replies together.

use crate::wire::ErrorEstimate;

/// The quality of the other clock, as replies tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Estimates {
    /// Replies whose estimate can be used.
    usable: u64,
    /// Of these, those of a clock that is not synchronised.
    unsynchronised: u64,
    /// Of these, those whose error is of any size.
    boundless: u64,
    /// The largest error of the others.
    largest_ns: u64,
    /// Replies whose Multiplier is 0: nothing is told.
    pub(crate) unusable: u64,
}

impl Estimates {
    /// Notes the estimate of `count` replies.
    #[inline]
    pub(crate) fn note(&mut self, estimate: ErrorEstimate, count: u64) {
        if !estimate.is_usable() {
            self.unusable += count;
            return;
        }
        self.usable += count;
        self.unsynchronised += if estimate.synchronised() { 0 } else { count };
        match estimate.error_ns() {
            Some(error_ns) => self.largest_ns = self.largest_ns.max(error_ns),
            None => self.boundless += count,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.usable += other.usable;
        self.unsynchronised += other.unsynchronised;
        self.boundless += other.boundless;
        self.largest_ns = self.largest_ns.max(other.largest_ns);
        self.unusable += other.unusable;
    }

    /// Whether the other clock is synchronised in every reply. `None`: not known, since there was no
    /// reply, or some do not tell and the others say yes.
    pub(crate) fn synchronised(&self) -> Option<bool> {
        if self.unsynchronised > 0 {
            return Some(false);
        }
        (self.usable > 0 && self.unusable == 0).then_some(true)
    }

    /// The largest error; `None` where any reply does not bound it.
    pub(crate) fn error_ns(&self) -> Option<u64> {
        let told = self.usable > 0 && self.unusable == 0 && self.boundless == 0;
        told.then_some(self.largest_ns)
    }

    /// Replies whose estimate cannot be used; `None` where there was no reply.
    pub(crate) fn unusable(&self) -> Option<u64> {
        (self.usable + self.unusable > 0).then_some(self.unusable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Format;

    fn of(estimates: &[ErrorEstimate]) -> (Option<bool>, Option<u64>, Option<u64>) {
        // One thread has the first one, another one the rest.
        let (mut all, mut rest) = (Estimates::default(), Estimates::default());
        for (n, estimate) in estimates.iter().enumerate() {
            let place = if n == 0 { &mut all } else { &mut rest };
            place.note(*estimate, 1);
        }
        all.add(&rest);
        (all.synchronised(), all.error_ns(), all.unusable())
    }

    #[test]
    fn the_worst_that_is_told_counts_and_what_is_not_told_is_not_known() {
        let estimate = |synchronised, ns| ErrorEstimate::new(synchronised, Format::Ntp, ns);
        let (good, bad) = (estimate(true, 1000), estimate(false, 5000));
        let (good_ns, bad_ns) = (good.error_ns(), bad.error_ns());
        // S is set, and says nothing beside a Multiplier of 0.
        let unusable = ErrorEstimate::from_raw(0x8000);
        let unknown = ErrorEstimate::UNKNOWN;
        assert_eq!(of(&[]), (None, None, None));
        assert_eq!(of(&[good]), (Some(true), good_ns, Some(0)));
        assert_eq!(of(&[bad, good]), (Some(false), bad_ns, Some(0)));
        assert_eq!(of(&[good, unknown]), (Some(false), None, Some(0)));
        assert_eq!(of(&[unusable, unusable]), (None, None, Some(2)));
        assert_eq!(of(&[good, unusable]), (None, None, Some(1)));
        assert_eq!(of(&[unusable, bad]), (Some(false), None, Some(1)));
    }
}
