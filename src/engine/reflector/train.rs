//! Trains of replies: several in one slot, one behind the other.

use zerocopy::FromBytes;

use crate::report::ignored::Kind;
use crate::wire::{ReplyHead, SENDER_LEN, SenderPacket, Timestamp};

/// Most requests of a bundle.
pub(super) const MOST_SEGMENTS: usize = 65_536 / SENDER_LEN;

/// A request of a bundle: where it stands, how long it is, what it says or why it is not answered, and
/// the number of its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub(super) at: usize,
    pub(super) len: usize,
    pub(super) read: Result<SenderPacket, Kind>,
    pub(super) number: u32,
}

/// A reply, or a train of them, that is ready but for T3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Answer {
    /// Octets of all.
    pub(in crate::engine) len: usize,
    /// Octets of each reply but the last, which may be shorter.
    pub(in crate::engine) step: usize,
    pub(in crate::engine) tos: u8,
    /// The number of its session.
    pub(in crate::engine) session: u64,
}

impl Answer {
    pub(in crate::engine) fn replies(&self) -> u64 {
        u64::try_from(self.len.div_ceil(self.step)).unwrap_or(1)
    }
}

/// Writes replies one behind the other, each but the last of `step` octets; returns the octets of all.
///
/// The requests are those of a bundle of `segment` octets each, all of it or what is left of it.
/// `write` writes the reply to one of them, to the place that it is told, and returns its octets.
pub(super) fn write_train(
    slot: &mut [u8],
    admitted: &mut [Admitted],
    segment: usize,
    step: usize,
    write: impl Fn(&mut [u8], &Admitted, usize) -> Option<usize>,
) -> usize {
    let mut end = 0;
    let mut place_one = |slot: &mut [u8], place: usize, one: &Admitted| {
        let to = place * step;
        let written = write(slot, one, to);
        debug_assert!(written.is_some(), "there was room for all of them");
        end = end.max(to + written.unwrap_or(0));
    };
    if step > segment {
        // Replies are longer than requests: from the last one on nothing is overwritten that is
        // still to be read, unless a refused one has left a gap.
        for (place, one) in admitted.iter_mut().enumerate() {
            let to = place * segment;
            if one.at != to {
                slot.copy_within(one.at..one.at + one.len, to);
                one.at = to;
            }
        }
        for (place, one) in admitted.iter().enumerate().rev() {
            place_one(slot, place, one);
        }
    } else {
        for (place, one) in admitted.iter().enumerate() {
            place_one(slot, place, one);
        }
    }
    end
}

/// Writes T3 into each reply of a train.
pub(super) fn stamp_train(slot: &mut [u8], step: usize, t3: Timestamp) {
    for reply in slot.chunks_mut(step) {
        stamp(reply, t3);
    }
}

/// Writes T3 into a reply.
pub(crate) fn stamp(slot: &mut [u8], t3: Timestamp) {
    if let Ok((head, _)) = ReplyHead::mut_from_prefix(slot) {
        head.timestamp = t3;
    }
}
