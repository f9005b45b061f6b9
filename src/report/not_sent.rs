//! Why packets that were due did not leave this host.

use std::fmt;

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

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count;
        match self.cause {
            Cause::BehindSchedule => write!(
                f,
                "{count} packets were further behind schedule than the timeout"
            ),
            Cause::TooLarge => write!(
                f,
                "{count} packets were larger than the MTU and must not be fragmented"
            ),
            Cause::QueueFull => write!(
                f,
                "this host's queue in front of the interface dropped {count} packets"
            ),
            Cause::Refused => {
                let error = self.error.as_deref().unwrap_or("no reason was given");
                write!(f, "this system refused {count} packets: {error}")
            }
            Cause::NeverLeft => write!(
                f,
                "{count} packets never left this host: a link without carrier or a next hop that does not \
                 answer dropped them"
            ),
        }
    }
}
