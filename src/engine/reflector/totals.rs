//! What a reflector did.

use std::sync::atomic::AtomicU64;

use crate::engine::admission::Record;
use crate::engine::tally::{Tally, UnsentTally};
use crate::report::FailedCall;
use crate::report::ignored::Ignored;
use crate::report::reflector::Injected;
use crate::report::unsent::Unsent;

/// What a reflector counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload that arrived.
    pub received_octets: u64,
    /// Replies that were sent.
    pub reflected: u64,
    /// Datagrams that were not answered.
    pub ignored: Ignored,
    /// Requests of which the kernel cut control messages off: T2 or the TTL may be missing.
    pub cut: u64,
    /// Requests that came in bundles.
    pub bundled: u64,
    /// Requests whose Error Estimate has Multiplier 0: they are answered all the same.
    pub estimates_unusable: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// The same by the error.
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
        self.received += other.received;
        self.received_octets += other.received_octets;
        self.reflected += other.reflected;
        self.ignored.add(&other.ignored);
        self.cut += other.cut;
        self.bundled += other.bundled;
        self.estimates_unusable += other.estimates_unusable;
        self.unsent += other.unsent;
        self.unsent_by.add(&other.unsent_by);
        self.sessions += other.sessions;
        self.evicted += other.evicted;
        self.kernel_drops = match (self.kernel_drops, other.kernel_drops) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        for call in &other.refused_calls {
            if !self.refused_calls.contains(call) {
                self.refused_calls.push(call.clone());
            }
        }
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        if let Some(injected) = &other.injected {
            self.injected.get_or_insert_default().add(injected);
        }
        if let Some(records) = &other.records {
            self.records.get_or_insert_default().extend(records);
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
