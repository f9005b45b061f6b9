//! What the network said of packets that did not arrive: ICMP errors, by the errno that the system makes
//! of them.

use std::io;

/// Where an errno is none that the table has room for.
const OTHER: usize = 0;

/// How often each error was told.
#[derive(Clone, Debug)]
pub(crate) struct IcmpErrors(Box<[u64; 256]>);

impl Default for IcmpErrors {
    fn default() -> Self {
        Self(Box::new([0; 256]))
    }
}

impl IcmpErrors {
    pub(crate) fn note(&mut self, errno: i32) {
        let place = usize::try_from(errno).unwrap_or(OTHER);
        self.0[if place < self.0.len() { place } else { OTHER }] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0.iter()) {
            *count += more;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each errno that came, and how often.
    pub(crate) fn each(&self) -> impl Iterator<Item = (i32, u64)> {
        let all = (0_i32..).zip(self.0.iter());
        all.filter(|(_, count)| **count > 0)
            .map(|(errno, count)| (errno, *count))
    }
}

/// Whether an error of a connected socket's next call may be what the network told of a former packet,
/// other than that its port is closed, which is never anything else. The system itself has the same
/// errors, and then has them again when the call is made again.
pub(crate) fn may_be_told(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENOPROTOOPT
                | libc::EACCES
                | libc::EPROTO
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_what_they_are() {
        let mut some = IcmpErrors::default();
        for errno in [libc::ECONNREFUSED, libc::EHOSTUNREACH, -1, 100_000] {
            some.note(errno);
        }
        let mut all = IcmpErrors::default();
        all.note(libc::ECONNREFUSED);
        all.add(&some);
        assert_eq!(all.total(), 5);
        let mut each: Vec<_> = all.each().collect();
        let mut expected = vec![(0, 2), (libc::ECONNREFUSED, 2), (libc::EHOSTUNREACH, 1)];
        each.sort_unstable();
        expected.sort_unstable();
        assert_eq!(each, expected);
    }
}
