//! What test mode knows of a session.

use super::wheel::NONE;
use crate::stats::sequence::extend;

/// What the stage knows of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Packets that came to the stage.
    pub(super) offered: u64,
    pub(super) offered_ns: i64,
    pub(super) gap_ns: Option<i64>,
    /// RFC 4737 §3.3.
    pub(super) next_expected: u64,
    /// First and last of those that wait to be overtaken.
    pub(super) waiting: (u32, u32),
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            offered: 0,
            offered_ns: 0,
            gap_ns: None,
            next_expected: 0,
            waiting: (NONE, NONE),
        }
    }
}

impl Flow {
    /// The 64-bit number of a packet.
    pub(crate) fn number(&self, low: u32) -> u64 {
        extend(low, self.next_expected)
    }

    /// A packet goes on; whether it is reordered.
    pub(super) fn goes_on(&mut self, number: u64) -> bool {
        if number >= self.next_expected {
            self.next_expected = number + 1;
            return false;
        }
        true
    }
}
