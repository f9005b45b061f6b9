//! The packets under way, as replies name them.

use crate::engine::flight::ReceiverEnd;
use crate::stats::sequence::extend;
use crate::wire::{Format, ReplyHead, Timestamp};

/// The packets under way: what left, and how it is known again.
#[derive(Debug)]
pub(super) struct UnderWay<'a> {
    pub(super) flight: ReceiverEnd<'a>,
    /// The number of the first packet on the wire.
    pub(super) first_seq: u32,
    /// Of T1.
    pub(super) format: Format,
    pub(super) timeout_ns: i64,
}

impl UnderWay<'_> {
    /// The packet that a reply names, of the `attempted` ones that may have left.
    #[inline]
    pub(super) fn named(&self, head: &ReplyHead, attempted: u64) -> Option<u64> {
        let number = head.sender_seq.get().wrapping_sub(self.first_seq);
        let seq = extend(number, attempted.checked_sub(1)?);
        (seq < attempted).then_some(seq)
    }

    /// Whether T1 of a packet is this, to the last bit.
    #[inline]
    pub(super) fn is_t1(&self, seq: u64, t1: Timestamp) -> bool {
        self.flight.t1(seq) == t1.raw()
    }

    /// When a packet with this T1 left, if that was about `near_ns`. It is in our own format, whatever
    /// became of the Z bit of our Error Estimate on its way.
    #[inline]
    pub(super) fn left_ns(&self, t1: Timestamp, near_ns: i64) -> Option<i64> {
        t1.unix_ns(self.format, near_ns)
    }

    /// When a packet left, by its T1.
    pub(super) fn packet_left_ns(&self, seq: u64, near_ns: i64) -> Option<i64> {
        self.left_ns(Timestamp::from_raw(self.flight.t1(seq)), near_ns)
    }

    /// Whether a reply is one to a packet that may be under way.
    pub(super) fn is_answer(&self, head: &ReplyHead) -> bool {
        let attempted = self.flight.attempted();
        self.named(head, attempted).is_some_and(|seq| {
            attempted - seq <= self.flight.window()
                && (self.is_t1(seq, head.sender_timestamp) || self.is_t1(seq, head.timestamp))
        })
    }

    /// Whether a reply to a packet has T1 and T3 in each other's place: a quirk of some reflectors,
    /// which prove it by a T3 that is our T1 to the last bit.
    #[cold]
    pub(super) fn exchanged(&self, seq: u64, head: &ReplyHead) -> bool {
        self.is_t1(seq, head.timestamp) || self.flight.probe(head.timestamp.raw()).is_some()
    }

    /// The probe that a reply to packet `seq` answers by its T1.
    pub(super) fn probe(&self, seq: u64, t1: Timestamp) -> Option<usize> {
        let (sent, _) = self.flight.finished()?;
        let probe = self.flight.probe(t1.raw());
        probe.filter(|_| seq + 1 == sent)
    }

    /// Whether a packet of the window, or a probe, has this T1, as far as our clock was not set back meanwhile.
    pub(super) fn is_ours(&self, t1: Timestamp) -> bool {
        let attempted = self.flight.attempted();
        let mut from = attempted.saturating_sub(self.flight.window());
        let mut to = attempted;
        while from < to {
            let middle = from.midpoint(to);
            if self.flight.t1(middle) < t1.raw() {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from < attempted && self.is_t1(from, t1) || self.flight.probe(t1.raw()).is_some()
    }

    /// The first of the packets whose timeout has not passed, when `sent` packets were sent.
    pub(super) fn first_in_time(&self, sent: u64, wall_ns: i64) -> u64 {
        let low = sent.saturating_sub(self.flight.window());
        let in_time = |seq: &u64| {
            let left = self.packet_left_ns(*seq, wall_ns);
            left.is_some_and(|left| wall_ns.saturating_sub(left) <= self.timeout_ns)
        };
        (low..sent).rev().take_while(in_time).last().unwrap_or(sent)
    }
}
