//! The time from one start of the reflector's counter to the next.

use super::bits::extend;
use super::others::Others;
use super::resequencer::Resequencer;

/// Replies from whose lead the value is taken at which the reflector's counter began.
pub(super) const FIRST_REPLIES: u32 = 32;
/// So few replies may all be to packets that others overtook.
const FEW_REPLIES: u32 = 8;

/// The time from one (re)start of the reflector's counter to the next.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) started: bool,
    /// The first sequence number whose fate this counter tells.
    pub(super) first: u64,
    /// Highest sequence number answered.
    pub(super) highest: u64,
    /// Highest number of the reflector.
    pub(super) highest_reply: u64,
    /// Replies in time with distinct numbers of the reflector.
    pub(super) replies: u64,
    /// Replies after the timeout with distinct numbers of the reflector.
    pub(super) late: u64,
    /// Of `replies`, further ones to a sequence number that has a reply, in time or not.
    pub(super) repeated: u64,
    /// The first replies, at most [`FIRST_REPLIES`]: how many, the lowest number of the reflector's, without
    /// those that others were given, and the lowest packet that was answered.
    pub(super) looked_at: u32,
    pub(super) lowest_reply: u64,
    pub(super) lowest_answered: u64,
    /// One of them had no higher number than its packet.
    pub(super) maybe_fresh: bool,
    /// The number of the first reply that came.
    pub(super) first_reply: u64,
    pub(super) next_expected: u64,
    pub(super) order: Resequencer,
}

impl Epoch {
    pub(super) fn new(first: u64) -> Self {
        Self::with(first, Resequencer::new())
    }

    pub(super) fn with(first: u64, order: Resequencer) -> Self {
        Self {
            started: false,
            first,
            highest: first,
            highest_reply: 0,
            replies: 0,
            late: 0,
            repeated: 0,
            looked_at: 0,
            lowest_reply: u64::MAX,
            lowest_answered: u64::MAX,
            maybe_fresh: false,
            first_reply: 0,
            next_expected: 0,
            order,
        }
    }

    /// Begins anew, in the same memory.
    pub(super) fn begin(&mut self, first: u64) {
        let mut order = std::mem::replace(&mut self.order, Resequencer::empty());
        order.clear();
        *self = Self::with(first, order);
    }

    /// The value at which the counter began, as the lowest numbers of the first replies tell: what is lost,
    /// doubled or reordered behind them does not change it.
    pub(super) fn base(&self) -> u64 {
        match self.looked_at {
            0 => 0,
            _ => self.lowest_reply.saturating_sub(self.before_first()),
        }
    }

    /// Packets before the first one that was answered.
    pub(super) fn before_first(&self) -> u64 {
        self.lowest_answered.saturating_sub(self.first)
    }

    /// Packets that were lost before the first one that was answered, where the counter had begun before:
    /// whether it counted them nobody knows.
    pub(super) fn uncounted(&self) -> u64 {
        if self.base() > 0 {
            self.before_first()
        } else {
            0
        }
    }

    /// So much lower the value at which the counter began may be: one that began with the session looks the
    /// same where the first packets overtook one another, and a reply to one of them was lost.
    pub(super) fn doubt(&self) -> u64 {
        let base = self.base();
        let maybe_fresh = self.maybe_fresh || self.looked_at < FEW_REPLIES;
        if maybe_fresh && base <= FIRST_REPLIES.into() {
            base
        } else {
            0
        }
    }

    /// Looks at so many replies from that to packet `s` with the number `r` on, for the value at which the
    /// counter began.
    pub(super) fn look_at(&mut self, s: u64, r: u64, count: u64, others: &Others) {
        if self.looked_at >= FIRST_REPLIES {
            return;
        }
        let r = r.saturating_sub(others.below(r, self.highest_reply));
        self.looked_at = self
            .looked_at
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.lowest_reply = self.lowest_reply.min(r);
        self.lowest_answered = self.lowest_answered.min(s);
        self.maybe_fresh |= r <= s.saturating_sub(self.first);
    }

    /// The 64-bit number whose low half is `r`, near the highest so far.
    pub(super) fn extend(&self, r: u32) -> u64 {
        if self.started {
            extend(r, self.highest_reply)
        } else {
            u64::from(r)
        }
    }

    /// Loss outbound and inbound among the packets up to `last` when the reflector has made
    /// `arrivals` replies to them.
    pub(super) fn losses(&self, last: u64, arrivals: u64) -> (u64, u64) {
        let sent = last + 1 - self.first;
        // A few more would mean duplicates whose replies were lost: no packet is lost by that.
        let arrivals = arrivals.clamp(self.replies, (sent + self.repeated).max(self.replies));
        let outbound = (sent + self.repeated).saturating_sub(arrivals);
        (outbound, arrivals - self.replies)
    }

    /// Whether so many replies up to packet `last` can have been made to this session alone.
    pub(super) fn plausible(&self, last: u64, arrivals: u64) -> bool {
        let sent = last + 1 - self.first + self.repeated;
        arrivals <= sent + sent / 50 + 8
    }
}
