//! Packets as the figures of delays take them.

/// Packets with consecutive sequence numbers that have a delay in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packets {
    pub(super) first: u64,
    /// 0: they were recorded before, and stand for further ones.
    pub(super) count: u64,
    /// How many packets they stand for, themselves among them.
    pub(super) weight: u64,
    /// They share their timestamps with the packet before the first of them.
    pub(super) joined: bool,
    /// Replies came between the last delay and this one whose delay is not known.
    pub(super) apart: bool,
}

impl Packets {
    /// Packets that stand for themselves.
    pub(super) fn of(first: u64, count: u64) -> Self {
        Self {
            first,
            count,
            weight: count,
            joined: false,
            apart: false,
        }
    }
}
