//! What a driver gives a receiver's side: the time, and where to put what it finds.

use crate::engine::flight::Wish;
use crate::engine::intervals::Counts;
use crate::engine::live::Record;
use crate::sample::Sample;

/// A moment by both clocks of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// By the monotonic clock.
    pub(crate) at_ns: i64,
    /// Since the Unix epoch.
    pub(crate) wall_ns: i64,
}

/// Where a receiver's side puts what it finds. Nothing of it waits.
pub(crate) trait Out {
    /// A measured reply, or several that share their times. It may find no room.
    fn sample(&mut self, sample: Sample);

    /// An interval ends behind the samples so far; false where there is no room now.
    fn mark(&mut self, counts: Counts) -> bool;

    /// Samples that found no room so far.
    fn unrecorded(&self) -> u64;

    /// Something that a watcher may be told.
    fn happened(&mut self, record: Record);

    /// Whether somebody wants to see the packets that come, one by one.
    fn shows_packets(&self) -> bool;

    /// The first octets of a packet that came, which had `len`.
    fn packet(&mut self, octets: &[u8], len: usize, now: Now);

    /// Asks the sender for a probe; false where nobody sends any.
    fn wish(&mut self, probe: Wish) -> bool;
}
