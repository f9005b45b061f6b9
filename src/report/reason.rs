//! What this host did not manage, as data: `output::reasons` has the words.

#![expect(
    missing_docs,
    reason = "a field is named for what it counts; what its name does not say is documented"
)]

use serde::{Serialize, Serializer};

use super::call::FailedCall;

/// A cause of [`Verdict::ToolLimited`](super::Verdict::ToolLimited). It is written as a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    /// Receiving failed for good.
    ReceivingFailed(FailedCall),
    /// Sending failed for good.
    SendingFailed(FailedCall),
    /// The reflector in this process failed for good.
    ReflectorFailed(FailedCall),
    /// Its sockets dropped datagrams, which count as lost.
    SocketDrops {
        datagrams: u64,
        /// Whether they may be bundles of several packets each.
        bundles: bool,
    },
    /// Packets were further behind schedule than the timeout, and were not sent.
    BehindSchedule { packets: u64 },
    /// The system refused packets.
    Refused { packets: u64 },
    /// Threads stopped, since all of their packets were refused.
    GaveUp { threads: u64 },
    /// The queue in front of the interface dropped packets before they left.
    QueueFull { packets: u64 },
    /// Packets never left this host, although the system took them.
    NeverLeft { packets: u64 },
    /// Packets waited in this host after they were handed over.
    WaitedInHost {
        longest_ns: u64,
        /// Transmit timestamps that tell of more than an interval.
        waits: u64,
        requested: u64,
    },
    /// Replies were late that may not have been, but for that.
    LateForWaiting { replies: u64 },
    /// The rate was not kept.
    RateNotKept { offered_pps: f64, achieved_pps: f64 },
    /// Departures fell behind.
    LateDepartures { late: u64, sent: u64 },
    /// Packets without a transmit timestamp may not have left this host, as others that asked for none.
    MayNotHaveLeft {
        /// Packets or trains that asked for one, and have neither that nor an answer.
        unstamped: u64,
        unanswered: u64,
    },
    /// Transmit timestamps did not come back.
    TransmitStampsMissing { missing: u64, requested: u64 },
    /// The statistics could not keep up.
    SamplesNotRecorded { replies: u64 },
}

/// Kinds of figures of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// How many packets left, and when.
    Load,
    /// How many packets were lost on the path, and where.
    Loss,
    /// Outbound delays.
    Outbound,
    /// Inbound delays.
    Inbound,
    /// Roundtrip delays.
    Roundtrip,
}

impl Reason {
    /// Figures that it spoils, at least one: all others are the path's own.
    #[must_use]
    pub const fn spoils(&self) -> &'static [Figure] {
        match self {
            Self::SocketDrops { .. }
            | Self::ReceivingFailed(_)
            | Self::ReflectorFailed(_)
            | Self::LateForWaiting { .. }
            | Self::MayNotHaveLeft { .. } => &[Figure::Loss],
            Self::SendingFailed(_)
            | Self::BehindSchedule { .. }
            | Self::Refused { .. }
            | Self::GaveUp { .. }
            | Self::QueueFull { .. }
            | Self::NeverLeft { .. }
            | Self::RateNotKept { .. }
            | Self::LateDepartures { .. }
            | Self::WaitedInHost { .. } => &[Figure::Load],
            Self::TransmitStampsMissing { .. } => &[Figure::Outbound, Figure::Roundtrip],
            Self::SamplesNotRecorded { .. } => {
                &[Figure::Outbound, Figure::Inbound, Figure::Roundtrip]
            }
        }
    }
}

/// Writes reasons as sentences, and again with their codes, their figures and what they spoil.
pub(super) fn twice<S: Serializer>(reasons: &[Reason], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Detail<'a> {
        #[serde(flatten)]
        reason: &'a Reason,
        spoils: &'static [Figure],
    }
    #[derive(Serialize)]
    struct Twice<'a> {
        reasons: Vec<String>,
        reasons_detail: Vec<Detail<'a>>,
    }

    let detail = |reason| Detail {
        reason,
        spoils: Reason::spoils(reason),
    };
    Twice {
        reasons: reasons.iter().map(ToString::to_string).collect(),
        reasons_detail: reasons.iter().map(detail).collect(),
    }
    .serialize(serializer)
}

#[cfg(test)]
pub(in crate::report) mod tests {
    use super::*;

    /// One of each code.
    pub(in crate::report) fn each() -> Vec<Reason> {
        let call = |name| FailedCall::new(name, libc::EPERM);
        let (packets, replies, requested) = (3, 5, 9);
        vec![
            Reason::ReceivingFailed(call("recvmmsg")),
            Reason::SendingFailed(call("sendmmsg")),
            Reason::ReflectorFailed(call("recvmmsg")),
            Reason::SocketDrops {
                datagrams: 3,
                bundles: true,
            },
            Reason::BehindSchedule { packets },
            Reason::Refused { packets },
            Reason::GaveUp { threads: 1 },
            Reason::QueueFull { packets },
            Reason::NeverLeft { packets },
            Reason::WaitedInHost {
                longest_ns: 7,
                waits: 2,
                requested,
            },
            Reason::LateForWaiting { replies },
            Reason::RateNotKept {
                offered_pps: 1000.0,
                achieved_pps: 900.5,
            },
            Reason::LateDepartures { late: 3, sent: 10 },
            Reason::MayNotHaveLeft {
                unstamped: 1,
                unanswered: 2,
            },
            Reason::TransmitStampsMissing {
                missing: 1,
                requested,
            },
            Reason::SamplesNotRecorded { replies },
        ]
    }
}
