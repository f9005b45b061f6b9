//! What a reflector did.

use std::sync::atomic::AtomicU64;

use crate::engine::admission::Record;
use crate::engine::tally::{Tally, UnsentTally};
use crate::report::FailedCall;
use crate::report::ignored::{Ignored, Kind};
use crate::report::reflector::Injected;
use crate::report::unsent::Unsent;
use crate::wire::SenderPacket;

/// Counts of requests and of their replies: of a session, or of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload in them.
    pub received_octets: u64,
    /// Replies that were sent.
    pub reflected: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// Datagrams that were not answered; over the limit are those beyond the allowance of a client.
    pub ignored: Ignored,
    /// Requests that came in bundles.
    pub bundled: u64,
    /// Requests whose Error Estimate has Multiplier 0: they are answered all the same.
    pub estimates_unusable: u64,
}

impl RequestCounts {
    #[inline]
    pub(in crate::engine) fn arrived(&mut self, packets: u64, octets: usize) {
        self.received += packets;
        self.received_octets += u64::try_from(octets).unwrap_or(0);
        self.bundled += if packets > 1 { packets } else { 0 };
    }

    /// Counts `count` requests that have the Error Estimate of `sender`.
    #[inline]
    pub(in crate::engine) fn note_estimate(&mut self, sender: &SenderPacket, count: u32) {
        let usable = sender.error_estimate.is_usable();
        self.estimates_unusable += if usable { 0 } else { count.into() };
    }

    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.received_octets += other.received_octets;
        self.reflected += other.reflected;
        self.unsent += other.unsent;
        self.ignored.add(&other.ignored);
        self.bundled += other.bundled;
        self.estimates_unusable += other.estimates_unusable;
    }

    /// Datagrams that are no request that can be answered: too short or long, to many, or replies that
    /// came back.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.ignored.total() - self.forged() - self.over_allowance() - self.early()
    }

    /// Requests whose HMAC is not theirs.
    #[must_use]
    pub fn forged(&self) -> u64 {
        self.ignored.of(Kind::Forged)
    }

    /// Requests beyond the allowance of a client.
    #[must_use]
    pub fn over_allowance(&self) -> u64 {
        self.ignored.of(Kind::OverLimit)
    }

    /// Requests before the session was started.
    #[must_use]
    pub fn early(&self) -> u64 {
        self.ignored.of(Kind::Early)
    }
}

/// What a reflector counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    /// Of requests and replies.
    pub counts: RequestCounts,
    /// Requests of which the kernel cut control messages off: T2 or the TTL may be missing.
    pub cut: u64,
    /// Replies that could not be sent, by the error.
    pub unsent_by: Unsent,
    /// Sessions that were begun.
    pub sessions: u64,
    /// Sessions that made room for others before their time.
    pub evicted: u64,
    /// Datagrams that the system dropped for want of room, a bundle being one; `None`: it does not tell.
    pub kernel_drops: Option<u64>,
    /// CPUs that the thread was pinned to.
    pub cpus: Option<Vec<usize>>,
    /// Calls for many packets that this system refuses, so that each took one of its own.
    pub refused_calls: Vec<FailedCall>,
    /// The call that failed for good, which ended the reflector before its time.
    pub failure: Option<FailedCall>,
    /// What test mode did; `None` without.
    pub injected: Option<Injected>,
    /// The sessions begun last, their times in nanoseconds since the Unix epoch; `None` where none
    /// are told apart.
    pub records: Option<Vec<Record>>,
}

impl Reflected {
    /// Adds the counts of another thread.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.cut += other.cut;
        self.unsent_by.add(&other.unsent_by);
        self.sessions += other.sessions;
        self.evicted += other.evicted;
        self.kernel_drops = match (self.kernel_drops, other.kernel_drops) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        for call in &other.refused_calls {
            self.note_refused(call.clone());
        }
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        if let Some(injected) = &other.injected {
            self.injected.get_or_insert_default().add(injected);
        }
        if let Some(records) = &other.records {
            self.records.get_or_insert_default().extend(records);
        }
    }

    /// Notes a call that this system refuses, once.
    pub(super) fn note_refused(&mut self, call: FailedCall) {
        if !self.refused_calls.contains(&call) {
            self.refused_calls.push(call);
        }
    }
}

/// What a reflector has done so far, for whoever shows it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    pub(crate) received: AtomicU64,
    pub(crate) reflected: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) ignored: Tally,
    pub(crate) unsent: UnsentTally,
}
