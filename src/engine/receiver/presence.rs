//! Whether the peer is there yet: an attempt that finds it is not is given up.

use super::door::Now;
use super::under_way::UnderWay;
use crate::io::Icmp;
use crate::wire::Timestamp;

#[derive(Debug)]
pub(super) struct Presence {
    /// When it began, since the Unix epoch.
    pub(super) begun_ns: i64,
    /// What left between then and `begun_ns` is of attempts before, and does not count.
    pub(super) first_begun_ns: i64,
    /// The peer is not there yet, and what left does not count.
    pub(super) is_absent: bool,
    /// The first answer came.
    pub(super) any_answer: bool,
}

impl Presence {
    pub(super) fn new(first_begun_ns: Option<i64>, now: Now) -> Self {
        Self {
            begun_ns: now.wall_ns,
            first_begun_ns: first_begun_ns.unwrap_or(now.wall_ns),
            is_absent: false,
            any_answer: false,
        }
    }

    fn is_another(&self) -> bool {
        self.first_begun_ns < self.begun_ns
    }

    /// Whether an ICMP error says that the peer is not there yet, as nothing was answered.
    ///
    /// A quirk of servers that open a session's test port only after they have answered
    /// Start-Sessions: the first packets meet a closed port.
    pub(super) fn is_refused(&mut self, icmp: &Icmp, under_way: &UnderWay<'_>, now: Now) -> bool {
        let closed = icmp.message.is_port_unreachable();
        let early = closed && under_way.flight.in_grace(now.at_ns);
        self.is_absent |= early;
        early
    }

    /// Whether the first answer of all, to packet `seq`, only says that the peer is there now: where
    /// it was not before, the packets in front of this one met a closed port, although not each of
    /// them was refused (systems send few ICMP errors a second). Another attempt begins, the last one.
    #[cold]
    pub(super) fn is_answered_too_soon(
        &mut self,
        seq: u64,
        under_way: &UnderWay<'_>,
        now: Now,
    ) -> bool {
        let early = under_way.flight.in_grace(now.at_ns);
        self.is_absent |= self.is_another() && seq > 0 && early;
        self.any_answer = true;
        self.is_absent
    }

    /// Whether a packet with this T1 was one of the attempts before.
    pub(super) fn has_withdrawn(&self, t1: Timestamp, under_way: &UnderWay<'_>) -> bool {
        let left = || under_way.left_ns(t1, self.begun_ns);
        self.is_another()
            && left().is_some_and(|left| (self.first_begun_ns..self.begun_ns).contains(&left))
    }
}
