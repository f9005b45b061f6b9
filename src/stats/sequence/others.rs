//! Numbers that the reflector gave to packets that are not of this session.

use super::bits::Bits;

/// So near to the highest number of the reflector that a reply of ours had, others may have been given
/// numbers.
pub(super) const NEAR: u64 = 1 << 16;

/// The reflector's numbers that it gave to packets of others, of this epoch.
#[derive(Debug)]
pub(super) struct Others {
    pub(super) numbers: Bits,
    /// The first one that was noted, and the lowest and highest.
    pub(super) first: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    /// How many are not above the highest one that a reply of ours had.
    pub(super) passed: u64,
    /// Of all epochs.
    pub(super) total: u64,
}

impl Others {
    pub(super) fn new(window: u64) -> Self {
        Self {
            numbers: Bits::new(window),
            first: 0,
            from: u64::MAX,
            to: 0,
            passed: 0,
            total: 0,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.from <= self.to
    }

    /// Notes a number, which is `passed` where replies of ours had higher ones; false where it is known.
    pub(super) fn note(&mut self, r: u64, passed: bool) -> bool {
        if self.numbers.has(r) {
            return false;
        }
        if !self.any() {
            self.first = r;
        }
        self.numbers.set(r);
        (self.from, self.to) = (self.from.min(r), self.to.max(r));
        self.passed += u64::from(passed);
        self.total += 1;
        true
    }

    /// The first reply of ours has number `r`.
    pub(super) fn begin(&mut self, r: u64) {
        if !self.any() {
        } else if self.first.abs_diff(r) > NEAR {
            // They are of another time, or never were: no reply of ours bears them out.
            self.forget();
            self.total = 0;
        } else {
            self.passed = self.numbers.count(self.from, r.min(self.to));
            self.give_back(r, 1);
        }
    }

    /// The highest number of a reply of ours rises to `to`.
    pub(super) fn rise(&mut self, to: u64, before: u64) {
        if !self.any() || to <= before {
            return;
        }
        self.passed += self.numbers.count(before + 1, to.min(self.to));
        // The places of the numbers that may be noted next have those of long ago.
        if to - before < self.numbers.len() / 2 {
            self.numbers.clear_range(before + NEAR + 1, to + NEAR);
        } else {
            self.clear();
        }
    }

    /// Replies of ours have `count` numbers from `r` on, which are not above the highest one.
    pub(super) fn give_back(&mut self, r: u64, count: u64) {
        if self.any() {
            let taken = self.numbers.count(r, r + count - 1);
            self.numbers.clear_range(r, r + count - 1);
            self.passed = self.passed.saturating_sub(taken);
            self.total = self.total.saturating_sub(taken);
        }
    }

    /// How many lie below `r`, when the highest number of a reply of ours is `highest`.
    pub(super) fn below(&self, r: u64, highest: u64) -> u64 {
        if !self.any() {
            self.passed
        } else if r > highest {
            self.passed + self.numbers.count(highest + 1, (r - 1).min(self.to))
        } else if highest - r < self.numbers.len() / 2 {
            let not = self.numbers.count(r, highest);
            self.passed.saturating_sub(not)
        } else {
            self.passed
        }
    }

    /// Which ones they were is no longer known.
    pub(super) fn clear(&mut self) {
        if self.any() && self.to - self.from < self.numbers.len() {
            self.numbers.clear_range(self.from, self.to);
        } else if self.any() {
            self.numbers.clear();
        }
        (self.from, self.to) = (u64::MAX, 0);
    }

    pub(super) fn forget(&mut self) {
        self.clear();
        self.passed = 0;
    }
}
