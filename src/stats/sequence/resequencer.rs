//! The order in which packets came to the reflector.

/// Replies held back to be put in the reflector's order.
pub(super) const RESEQUENCE: usize = 1024;

/// Puts replies in the order of the reflector's numbers, and counts those whose `s` is reordered in
/// it: they overtook one another before the reflector. What is further apart than the buffer is not
/// put in order.
#[derive(Debug)]
pub(super) struct Resequencer {
    pub(super) held: Box<[Option<u64>]>,
    pub(super) holding: usize,
    /// Next number of the reflector to be let go.
    pub(super) next: u64,
    pub(super) next_expected: u64,
}

impl Resequencer {
    pub(super) fn new() -> Self {
        Self {
            held: vec![None; RESEQUENCE].into_boxed_slice(),
            holding: 0,
            next: 0,
            next_expected: 0,
        }
    }

    /// One that holds nothing and may hold nothing.
    pub(super) fn empty() -> Self {
        Self {
            held: Box::default(),
            holding: 0,
            next: 0,
            next_expected: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.held.fill(None);
        (self.holding, self.next, self.next_expected) = (0, 0, 0);
    }

    /// Numbers before the first may still come: they were overtaken on the way back.
    pub(super) fn start(&mut self, r: u64) {
        self.next = r.saturating_sub(RESEQUENCE as u64 / 2);
    }

    pub(super) fn slot(r: u64) -> usize {
        usize::try_from(r % RESEQUENCE as u64).expect("within the buffer")
    }

    /// Takes a reply; returns how many of those let go by it were reordered.
    pub(super) fn push(&mut self, r: u64, s: u64) -> u64 {
        if r < self.next {
            // It comes too late to be put in its place.
            return 0;
        }
        let mut reordered = 0;
        let room_for = r.saturating_sub(RESEQUENCE as u64 - 1);
        while self.next < room_for {
            if self.holding == 0 {
                self.next = room_for;
                break;
            }
            reordered += self.let_go();
        }
        let held = &mut self.held[Self::slot(r)];
        self.holding += usize::from(held.is_none());
        *held = Some(s);
        while self.holding > 0 && self.held[Self::slot(self.next)].is_some() {
            reordered += self.let_go();
        }
        reordered
    }

    /// As [`push`](Self::push) of `count` replies with consecutive numbers; of these replies too as many
    /// as were reordered.
    pub(super) fn push_run(&mut self, r: u64, s: u64, count: u64) -> u64 {
        if self.holding > 0 || self.next != r {
            return (0..count).map(|n| self.push(r + n, s + n)).sum();
        }
        // Nothing is held, and this is what is waited for.
        self.next = r + count;
        let reordered = self.next_expected.saturating_sub(s).min(count);
        self.next_expected = self.next_expected.max(s + count);
        reordered
    }

    pub(super) fn let_go(&mut self) -> u64 {
        let held = self.held[Self::slot(self.next)].take();
        self.next += 1;
        let Some(s) = held else {
            return 0;
        };
        self.holding -= 1;
        if s >= self.next_expected {
            self.next_expected = s + 1;
            0
        } else {
            1
        }
    }

    pub(super) fn flush(&mut self) -> u64 {
        let mut reordered = 0;
        while self.holding > 0 {
            reordered += self.let_go();
        }
        reordered
    }
}
