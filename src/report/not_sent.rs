//! Why packets that were due did not leave this host.

use serde::Serialize;

/// Packets that were due and not sent, of one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotSent {
    /// Why.
    pub cause: Cause,
    /// How many.
    pub count: u64,
    /// What the system said of the last one; `None` where it was not asked.
    pub error: Option<String>,
}

/// Why packets that were due were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// This host was further behind schedule than the timeout (RFC 4656 §4.1.1).
    BehindSchedule,
    /// Larger than the MTU, and not to be fragmented.
    TooLarge,
    /// This host's queue in front of the interface was full.
    QueueFull,
    /// Refused by this system for another reason.
    Refused,
    /// This system took it, and dropped it before the wire: a link without carrier, a next hop that does not
    /// answer.
    NeverLeft,
}
