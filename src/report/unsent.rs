//! Replies that could not be sent, by the error that the system gave.

use serde::{Serialize, Serializer};

/// Errors that are told apart, at most.
const MOST: usize = 8;

/// Counts of replies by errno: of the first few errors that there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent([(i32, u64); MOST]);

/// Replies that could not be sent by one error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnsentBy {
    /// The error's name, such as `EPERM`.
    pub errno: String,
    /// The error in words.
    pub error: String,
    /// How many.
    pub count: u64,
}

impl Unsent {
    /// So many more by this errno.
    pub fn note(&mut self, errno: i32, replies: u64) {
        let mut places = self.0.iter_mut();
        let place = places.find(|(known, count)| *known == errno || *count == 0);
        if let Some((known, count)) = place.filter(|_| replies > 0) {
            *known = errno;
            *count += replies;
        }
    }

    /// Adds the counts of another thread.
    pub fn add(&mut self, other: &Self) {
        for (errno, count) in other.0 {
            self.note(errno, count);
        }
    }

    /// Each error that there was.
    pub fn each(&self) -> impl Iterator<Item = UnsentBy> {
        let some = self.0.into_iter().filter(|(_, count)| *count > 0);
        some.map(|(errno, count)| {
            let errno = nix::errno::Errno::from_raw(errno);
            UnsentBy {
                errno: format!("{errno:?}"),
                error: errno.desc().to_owned(),
                count,
            }
        })
    }

    /// The errors that `before` had none of.
    pub fn new_since(&self, before: &Self) -> impl Iterator<Item = UnsentBy> {
        let known: Vec<String> = before.each().map(|by| by.errno).collect();
        self.each().filter(move |by| !known.contains(&by.errno))
    }

    /// As plain numbers, for threads that share them: an errno and its count in each.
    pub(crate) fn packed(&self) -> [u64; MOST] {
        self.0.map(|(errno, count)| {
            let errno = u64::try_from(errno).unwrap_or(0);
            errno << COUNT_BITS | count.min((1 << COUNT_BITS) - 1)
        })
    }

    /// What [`packed`](Self::packed) made.
    pub(crate) fn unpacked(packed: [u64; MOST]) -> Self {
        Self(packed.map(|packed| {
            let errno = i32::try_from(packed >> COUNT_BITS).unwrap_or(0);
            (errno, packed & ((1 << COUNT_BITS) - 1))
        }))
    }
}

/// An errno has 12 bits at most.
const COUNT_BITS: u32 = 48;

impl Serialize for Unsent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.each())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_by_errno() {
        let (mut one, mut all) = (Unsent::default(), Unsent::default());
        one.note(libc::EPERM, 3);
        one.note(libc::ENOBUFS, 1);
        one.note(libc::EPERM, 2);
        one.note(libc::EIO, 0);
        all.note(libc::ENOBUFS, 10);
        all.add(&one);
        let counts: Vec<_> = all.each().map(|by| (by.errno, by.count)).collect();
        let expected = [("ENOBUFS".to_owned(), 11), ("EPERM".to_owned(), 5)];
        assert_eq!(counts, expected);
        assert_eq!(Unsent::unpacked(all.packed()), all);
        let mut before = Unsent::default();
        before.note(libc::EPERM, 1);
        let new: Vec<_> = all.new_since(&before).map(|by| by.errno).collect();
        assert_eq!(new, ["ENOBUFS"]);
        // More errors than there is room for are in the sum alone.
        for errno in 100..120 {
            all.note(errno, 1);
        }
        assert_eq!(all.each().count(), MOST);
    }
}
