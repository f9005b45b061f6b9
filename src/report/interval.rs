//! What a running session tells: figures of an interval, and what happened to a packet.

use serde::Serialize;

use super::delay::DelaySet;
use super::icmp::Icmp;

/// Figures of one interval of a running session, and of the session so far: one line of JSON.
///
/// A packet counts as lost when its timeout expires, in the interval in which that happens; one that
/// has neither been answered nor timed out is in flight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Name and version of this layout.
    pub schema: IntervalSchema,
    /// 1 for the first one.
    pub number: u64,
    /// End of the interval, UTC, as RFC 3339 writes it.
    pub at: String,
    /// The same in nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// Length of the interval, in nanoseconds.
    pub length_ns: u64,
    /// Packets that were neither answered nor have timed out at its end.
    pub in_flight: u64,
    /// Replies since the session began that are missing from these delays, since whoever reads them
    /// was too slow; the report's own delays do not depend on that.
    pub samples_not_recorded: u64,
    /// Both ends are known to run on one clock or to be synchronised: else one-way delays contain the offset of
    /// their clocks.
    pub clocks_agree: bool,
    /// What happened in the interval.
    pub interval: IntervalFigures,
    /// What happened since the session began.
    pub session: IntervalFigures,
}

impl Interval {
    /// As one line of JSON, without the line break.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        serde_json::to_string(self).expect("plain data always serialises")
    }
}

/// Name and version of the layout of an [`Interval`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum IntervalSchema {
    /// Version 1: fields may be added; none is renamed, removed or given another meaning.
    #[default]
    #[serde(rename = "twamp-blast/interval/1")]
    Version1,
}

/// Figures of a part of a session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IntervalFigures {
    /// What became of packets.
    pub packets: IntervalPackets,
    /// Delays of the replies that came, in nanoseconds.
    pub delay_ns: DelaySet,
}

/// Counts of a part of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IntervalPackets {
    /// Packets that left.
    pub sent: u64,
    /// Distinct replies in time.
    pub received: u64,
    /// Packets whose timeout expired.
    pub lost: u64,
    /// Of these, lost before the reflector; `None` where the direction cannot be told.
    pub lost_outbound: Option<u64>,
    /// Of these, lost after the reflector.
    pub lost_inbound: Option<u64>,
    /// Of these, lost where nothing tells the direction yet.
    pub lost_unattributed: Option<u64>,
    /// Replies beyond the first of a sequence number.
    pub duplicates: u64,
    /// Replies reordered on the whole way (RFC 4737 §3.3).
    pub reordered: u64,
    /// Replies after the timeout.
    pub late: u64,
}

/// Something that happened to a packet; sequence numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A reply in time; delays are nanoseconds. `None` where its timestamps tell none.
    Reply {
        /// Of the request.
        seq: u32,
        /// The Session-Reflector's own number.
        reflector_seq: u32,
        /// (T4 - T1) - (T3 - T2)
        roundtrip_ns: Option<i64>,
        /// T2 - T1
        outbound_ns: Option<i64>,
        /// T4 - T3
        inbound_ns: Option<i64>,
        /// Both ends are known to run on one clock or to be synchronised: else `outbound_ns` and `inbound_ns`
        /// contain the offset of their clocks.
        clocks_agree: bool,
    },
    /// Packets `first..=last` have no reply yet, but `received` has.
    Gap {
        /// The first one missing.
        first: u32,
        /// The last one missing.
        last: u32,
        /// The one that was answered.
        received: u32,
        /// From the departure of the last answered packet before the gap to that of the one after it, in
        /// nanoseconds; `None` where there is none before.
        outage_ns: Option<i64>,
    },
    /// A reply in time, after one to a later packet (RFC 4737 §3.3).
    OutOfOrder {
        /// Of the request.
        seq: u32,
    },
    /// No reply within the timeout: the packet counts as lost.
    Timeout {
        /// Of the request.
        seq: u32,
    },
    /// A reply after the timeout.
    Late {
        /// Of the request.
        seq: u32,
    },
    /// A further reply.
    Duplicate {
        /// Of the request.
        seq: u32,
    },
    /// The network said that a packet did not arrive.
    Icmp(Icmp),
}
