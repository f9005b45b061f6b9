//! A timer wheel in fixed memory: which of what is held is due next, and when.
//!
//! Places hold lists in order of time, so that the earliest moment is known to the nanosecond
//! whatever the width of a place. One turn covers the longest time that anything is held, so that
//! no entry has to wait for a second turn.

/// No place.
pub(super) const NONE: u32 = u32::MAX;
/// Places of a turn: a few entries each when all that may be held is, since a place is a list.
const PLACES: usize = 65_536;
const WORDS: usize = PLACES / 64;
/// The last place of a turn, and the bits of a tick that say which place it is.
const LAST: i64 = 65_535;
const _: () = assert!(PLACES == 65_536 && PLACES.is_power_of_two());

#[derive(Clone, Copy, Debug)]
struct Link {
    due_ns: i64,
    before: u32,
    after: u32,
    place: u32,
}

const UNLINKED: Link = Link {
    due_ns: 0,
    before: NONE,
    after: NONE,
    place: NONE,
};

/// Entries are numbers from 0 up to the capacity, each in the wheel at most once.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Width of a place: 2 to this power, in nanoseconds.
    shift: u32,
    /// First and last entry of each place.
    ends: Box<[(u32, u32)]>,
    occupied: Box<[u64]>,
    links: Vec<Link>,
    capacity: usize,
    /// No entry is in an earlier tick.
    tick: i64,
    len: usize,
}

impl Wheel {
    /// For `capacity` entries that are due at most `longest_ns` after their insertion.
    pub(crate) fn new(capacity: usize, longest_ns: u64) -> Self {
        // Half a turn covers the longest: what is left over absorbs delays of the thread.
        let width = longest_ns / (PLACES as u64 / 2) + 1;
        Self {
            shift: width.next_power_of_two().trailing_zeros(),
            ends: vec![(NONE, NONE); PLACES].into_boxed_slice(),
            occupied: vec![0; WORDS].into_boxed_slice(),
            links: Vec::with_capacity(capacity),
            capacity,
            tick: 0,
            len: 0,
        }
    }

    /// Entries that are in.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn link(&mut self, entry: u32) -> &mut Link {
        &mut self.links[index(entry)]
    }

    /// Inserts an entry that is not in the wheel.
    pub(crate) fn insert(&mut self, entry: u32, due_ns: i64, now_ns: i64) {
        let last = index(entry);
        assert!(last < self.capacity, "entry {entry} of {}", self.capacity);
        if self.links.len() <= last {
            // Within the capacity: no allocation.
            self.links.resize(last + 1, UNLINKED);
        }
        if self.len == 0 {
            self.tick = now_ns >> self.shift;
        }
        let latest = self.tick + LAST;
        let tick = (due_ns >> self.shift).clamp(self.tick, latest);
        let at = usize::try_from(tick & LAST).unwrap_or(0);
        // From the end: what comes in is mostly due after what is there.
        let (mut after, mut before) = (NONE, self.ends[at].1);
        while before != NONE && self.link(before).due_ns > due_ns {
            after = before;
            before = self.link(before).before;
        }
        *self.link(entry) = Link {
            due_ns,
            before,
            after,
            place: u32::try_from(at).unwrap_or(0),
        };
        match before {
            NONE => self.ends[at].0 = entry,
            before => self.link(before).after = entry,
        }
        match after {
            NONE => self.ends[at].1 = entry,
            after => self.link(after).before = entry,
        }
        self.occupied[at / 64] |= 1 << (at % 64);
        self.len += 1;
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, entry: u32) {
        let link = std::mem::replace(self.link(entry), UNLINKED);
        let at = index(link.place);
        match link.before {
            NONE => self.ends[at].0 = link.after,
            before => self.link(before).after = link.after,
        }
        match link.after {
            NONE => self.ends[at].1 = link.before,
            after => self.link(after).before = link.before,
        }
        if self.ends[at].0 == NONE {
            self.occupied[at / 64] &= !(1 << (at % 64));
        }
        self.len -= 1;
    }

    /// The entry that is due first, and when; it stays in.
    pub(crate) fn first(&mut self) -> Option<(u32, i64)> {
        if self.len == 0 {
            return None;
        }
        let start = usize::try_from(self.tick & LAST).unwrap_or(0);
        let mut word = start / 64;
        let mut bits = self.occupied[word] & (u64::MAX << (start % 64));
        // Once around, and the part of the first word before the start.
        for _ in 0..=WORDS {
            if bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (at + PLACES - start) % PLACES;
                self.tick += i64::try_from(ahead).unwrap_or(0);
                let entry = self.ends[at].0;
                return Some((entry, self.link(entry).due_ns));
            }
            word = (word + 1) % WORDS;
            bits = self.occupied[word];
        }
        None
    }
}

fn index(entry: u32) -> usize {
    usize::try_from(entry).expect("32 bits fit the address space")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes out all that is due.
    fn due(wheel: &mut Wheel, now: i64) -> Vec<i64> {
        let mut found = Vec::new();
        while let Some((entry, moment)) = wheel.first().filter(|(_, moment)| *moment <= now) {
            wheel.remove(entry);
            found.push(moment);
        }
        found
    }

    #[test]
    fn entries_come_out_in_order_of_time() {
        let mut wheel = Wheel::new(8, 1_000_000);
        for (entry, moment) in (0..).zip([500, 100, 999_999, 100, 250_000]) {
            wheel.insert(entry, moment, 50);
        }
        assert!(due(&mut wheel, 99).is_empty());
        assert_eq!(due(&mut wheel, 500), [100, 100, 500]);
        assert_eq!(due(&mut wheel, i64::MAX), [250_000, 999_999]);
        assert_eq!((wheel.len(), wheel.first()), (0, None));
    }

    proptest! {
        #[test]
        fn the_first_is_always_the_earliest(
            longest in 1..5_000_000_000_u64,
            steps in prop::collection::vec((0..100_000_000_u64, any::<u64>(), any::<bool>()), 1..300),
        ) {
            let mut wheel = Wheel::new(300, longest);
            let mut model: Vec<(i64, u32)> = Vec::new();
            let mut now = 1_000_000_000_000_000_i64;
            for (entry, (pause, delay, takes_one)) in (0..).zip(steps) {
                now += i64::try_from(pause % (longest + 1)).unwrap();
                model.sort();
                let gone = model.iter().filter(|(moment, _)| *moment <= now).count();
                let expected: Vec<i64> = model.drain(..gone).map(|(moment, _)| moment).collect();
                prop_assert_eq!(due(&mut wheel, now), expected);
                if takes_one && let Some((_, entry)) = model.pop() {
                    wheel.remove(entry);
                }
                let moment = now + i64::try_from(delay % (longest + 1)).unwrap();
                wheel.insert(entry, moment, now);
                model.push((moment, entry));
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.iter().map(|(moment, _)| *moment).min();
                prop_assert_eq!(wheel.first().map(|(_, moment)| moment), earliest);
            }
        }
    }
}
