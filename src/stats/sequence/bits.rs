//! Numbers in a window: their bits, and which ones 32 bits of a packet mean.

pub(super) fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// The 64-bit number nearest to `near` whose low half is `low` (RFC 1982 arithmetic); never below 0.
#[must_use]
pub fn extend(low: u32, near: u64) -> u64 {
    let ahead = low.wrapping_sub(low_half(near));
    let behind = low_half(near).wrapping_sub(low);
    if ahead <= behind || near < u64::from(behind) {
        near + u64::from(ahead)
    } else {
        near - u64::from(behind)
    }
}

/// Bits for a window of consecutive numbers, each in the place of its remainder.
#[derive(Debug)]
pub(super) struct Bits {
    pub(super) words: Box<[u64]>,
    pub(super) mask: u64,
    /// Times that all of them were cleared, which takes long.
    #[cfg(test)]
    pub(super) clears: u32,
}

impl Bits {
    pub(super) fn new(window: u64) -> Self {
        let bits = window.max(64).next_power_of_two();
        let words = usize::try_from(bits / 64).expect("a window of bits fits the address space");
        Self {
            words: vec![0; words].into_boxed_slice(),
            mask: bits - 1,
            #[cfg(test)]
            clears: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.mask + 1
    }

    pub(super) fn place(&self, number: u64) -> (usize, u64) {
        let bit = number & self.mask;
        let word = usize::try_from(bit / 64).expect("within the window");
        (word, 1 << (bit % 64))
    }

    pub(super) fn has(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        self.words[word] & bit != 0
    }

    pub(super) fn set(&mut self, number: u64) {
        let (word, bit) = self.place(number);
        self.words[word] |= bit;
    }

    /// Shows `f` the words of the bits from `from` on, `count` of them, which are no more than the window,
    /// and in each the bits that are meant.
    pub(super) fn in_words(&mut self, from: u64, count: u64, mut f: impl FnMut(&mut u64, u64)) {
        let (mut next, mut left) = (from, count);
        while left > 0 {
            let (word, bit) = self.place(next);
            let here = left.min(64 - u64::from(bit.trailing_zeros()));
            // All ones from the bit on, as many as are meant.
            let meant = (u64::MAX >> (64 - here)) << bit.trailing_zeros();
            f(&mut self.words[word], meant);
            next += here;
            left -= here;
        }
    }

    pub(super) fn put(&mut self, number: u64, value: bool) {
        let (word, bit) = self.place(number);
        self.words[word] = self.words[word] & !bit | if value { bit } else { 0 };
    }

    /// Sets the bits from `from` on, no more than the window.
    pub(super) fn set_run(&mut self, from: u64, count: u64) {
        self.in_words(from, count, |word, meant| *word |= meant);
    }

    /// Whether any of the bits from `from` on is set.
    pub(super) fn any(&mut self, from: u64, count: u64) -> bool {
        let mut any = false;
        self.in_words(from, count, |word, meant| any |= *word & meant != 0);
        any
    }

    /// Clears the bits from `from` on that are set, up to the first one that is not and to the end of
    /// the word, at most `most` of them; returns how many.
    pub(super) fn take_run(&mut self, from: u64, most: u64) -> u64 {
        let (word, bit) = self.place(from);
        let ones = (self.words[word] >> bit.trailing_zeros()).trailing_ones();
        let count = u64::from(ones).min(most);
        self.in_words(from, count, |word, meant| *word &= !meant);
        count
    }

    /// Clears a bit and returns what it was.
    pub(super) fn take(&mut self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        let was = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        was
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        #[cfg(test)]
        {
            self.clears += 1;
        }
    }

    /// How many of the bits `from..=to`, fewer than the window, are set.
    pub(super) fn count(&self, from: u64, to: u64) -> u64 {
        let mut next = from;
        let mut found = 0;
        while next <= to {
            let (word, bit) = self.place(next);
            if bit == 1 && to - next >= 63 {
                found += u64::from(self.words[word].count_ones());
                next += 64;
            } else {
                found += u64::from(self.words[word] & bit != 0);
                next += 1;
            }
        }
        found
    }

    /// Clears the bits `from..=to`, which are fewer than the window.
    pub(super) fn clear_range(&mut self, from: u64, to: u64) {
        self.in_words(from, to + 1 - from, |word, meant| *word &= !meant);
    }
}
