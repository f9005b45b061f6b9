//! What a run found, as plain data: the twin of `report.schema.json`, field for field.
//!
//! Delays are nanoseconds, rates are packets per second, fractions are 0..1. `None` means not
//! measured and is written as `null`; 0 never means that. Every sink shows one [`Report`], so all
//! of them show the same numbers. Filled in by `stats` and the engine, read by the outputs.

pub mod find_rate;
pub mod icmp;
pub mod ignored;
pub mod not_sent;
pub mod reflector;
pub mod server;
pub mod unsent;

use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

pub use icmp::{Icmp, IcmpKind};
pub use ignored::Ignored;
pub use not_sent::{Cause, NotSent};

/// One session's result: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name and version of this layout.
    pub schema: Schema,
    /// Version of the program.
    pub version: String,
    /// Every parameter as it was in force; never a key.
    pub command: Vec<String>,
    /// What the figures are of.
    pub scope: Scope,
    /// Protocol of the test packets.
    pub protocol: Protocol,
    /// What this process did.
    pub role: Role,
    /// Security mode of the session.
    pub security: Security,
    /// TWAMP session identifier, 32 lower-case hexadecimal digits; `None` without a control session.
    pub sid: Option<String>,
    /// Name of the key that protects the session, never the key; `None` without one.
    pub key_id: Option<String>,
    /// STAMP session identifier (RFC 8972 §3).
    pub ssid: Option<u16>,
    /// This end; `None` in a combined report over several.
    pub local: Option<SocketAddr>,
    /// The other end; `None` in a combined report over several.
    pub remote: Option<SocketAddr>,
    /// First departure, UTC, as RFC 3339 writes it; `None` where nothing was sent.
    pub started: Option<String>,
    /// First departure to last departure, in nanoseconds.
    pub duration_ns: Option<u64>,
    /// Ended by a signal, before its count or duration.
    pub interrupted: bool,
    /// What was sent, and how punctually.
    pub load: Load,
    /// What became of the packets.
    pub packets: Packets,
    /// Delays, in nanoseconds.
    pub delay_ns: DelaySet,
    /// Where the timestamps come from and what they are worth.
    pub timestamps: Timestamps,
    /// What the packets' headers told about the path.
    pub path: PathFacts,
    /// Whether this host kept up.
    pub host: Host,
    /// Remarks on how the figures are to be read, one sentence each.
    pub notes: Vec<String>,
    /// The delays behind `delay_ns`, cell by cell; too many for a line of JSON.
    #[serde(skip)]
    pub histograms: Histograms,
}

impl Report {
    /// Of a Control-Client that held a session for a sender elsewhere: it measured nothing.
    #[must_use]
    pub fn of_control_client(started: std::time::SystemTime) -> Self {
        Self {
            schema: Schema::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: Vec::new(),
            scope: Scope::Session,
            protocol: Protocol::Twamp,
            role: Role::ControlClient,
            security: Security::Unauthenticated,
            sid: None,
            key_id: None,
            ssid: None,
            local: None,
            remote: None,
            started: Some(humantime::format_rfc3339_nanos(started).to_string()),
            duration_ns: None,
            interrupted: false,
            load: Load {
                offered_pps: None,
                achieved_pps: None,
                achieved_bps_l2: None,
                profile: Profile::Fixed,
                schedule: Schedule::Periodic,
                seed: None,
                burst: 1,
                sizes: Vec::new(),
                paced_by: None,
                late_departures: None,
                max_slip_ns: None,
            },
            packets: Packets::default(),
            delay_ns: DelaySet::default(),
            timestamps: Timestamps::default(),
            path: PathFacts::default(),
            host: Host {
                verdict: Verdict::Ok,
                reasons: Vec::new(),
                reasons_detail: Vec::new(),
                kernel_drops: None,
                tx_stamps_requested: None,
                tx_stamps_received: None,
                samples_not_recorded: None,
                io: Io::Portable,
                refused_calls: Vec::new(),
                failure: None,
                receive_buffer_bytes: None,
                cpu: Cpu::default(),
                peak_memory_bytes: None,
            },
            notes: vec!["The sender runs elsewhere: nothing was measured here.".to_owned()],
            histograms: Histograms::default(),
        }
    }

    /// The report as one line of JSON, without the line break.
    ///
    /// A number that is not finite is written as `null`; see [`finite`].
    #[must_use]
    pub fn to_json_line(&self) -> String {
        // Only a map with keys that are not strings, or a failing `Serialize`, is an error: none here.
        serde_json::to_string(self).expect("plain data always serialises")
    }
}

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

/// `value` where it is a number, `None` for NaN and the infinities: for quotients such as 0 / 0.
#[must_use]
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Name and version of the layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Schema {
    /// Version 1: fields may be added; none is renamed, removed or given another meaning.
    #[default]
    #[serde(rename = "twamp-blast/report/1")]
    Version1,
}

/// What a report's figures are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One session.
    Session,
    /// One of several threads.
    Thread,
    /// All sessions or threads together.
    Combined,
}

/// Protocol of the test packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TWAMP-Test without TWAMP-Control (RFC 5357 appendix I).
    TwampLight,
    /// TWAMP-Test, agreed by TWAMP-Control (RFC 5357).
    Twamp,
    /// STAMP (RFC 8762).
    Stamp,
}

/// What this process did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Session-Sender alone.
    Sender,
    /// Control-Client and Session-Sender in one.
    Controller,
    /// Control-Client whose Session-Sender runs elsewhere.
    ControlClient,
}

/// Security mode of a session (RFC 5357 §3.1, RFC 5618).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// No integrity protection.
    Unauthenticated,
    /// HMAC, and an encrypted sequence number in TWAMP-Test.
    Authenticated,
    /// Timestamps encrypted too.
    Encrypted,
    /// Control encrypted, test packets unauthenticated.
    Mixed,
}

/// What was sent, and how punctually.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// Packets per second asked for; `None` where the sender ran as fast as it could.
    pub offered_pps: Option<f64>,
    /// Packets per second sent.
    pub achieved_pps: Option<f64>,
    /// Bits per second sent, in Ethernet frames without FCS.
    pub achieved_bps_l2: Option<f64>,
    /// Packet size mix.
    pub profile: Profile,
    /// Law of the departures.
    pub schedule: Schedule,
    /// Seed of the random schedule and sizes.
    pub seed: Option<u64>,
    /// Largest number of packets that left as one segmentation train; 1: each packet on its own.
    pub burst: usize,
    /// One entry for each size sent.
    pub sizes: Vec<SizeEntry>,
    /// Who kept the schedule; `None` where there was none.
    pub paced_by: Option<PacedBy>,
    /// Packets that left more than one interval after their scheduled time; `None` where
    /// there was no schedule.
    pub late_departures: Option<u64>,
    /// Largest delay of a departure behind its schedule, in nanoseconds.
    pub max_slip_ns: Option<u64>,
}

/// Who made packets leave at their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PacedBy {
    /// The sender, which handed each over when it was due.
    Sender,
}

/// Packet size mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One size.
    Fixed,
    /// Simple IMIX, 7:4:1.
    Imix,
    /// A mix that the user gave.
    Custom,
}

/// Law of the departures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Equal gaps (RFC 3432).
    Periodic,
    /// Exponential gaps (RFC 2330 §11.1.1).
    Poisson,
    /// Uniformly distributed gaps.
    Uniform,
    /// No gaps: as fast as the sender can.
    Flood,
}

/// One of the sizes sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SizeEntry {
    /// UDP payload, in octets.
    pub payload_bytes: usize,
    /// Ethernet frame without FCS, in octets.
    pub frame_bytes_l2: usize,
    /// Packets of this size sent.
    pub packets: u64,
    /// Distinct sequence numbers of this size that came back before the timeout.
    pub received: Option<u64>,
    /// Round-trip delay of this size, in nanoseconds.
    pub roundtrip: Option<Delay>,
    /// IP packets that this host made of each: more than 1, fragments; `None` where the MTU is not known.
    pub fragments: Option<u64>,
}

/// What became of the packets; counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Packets {
    /// Handed to the kernel with success; `None` for a Control-Client whose sender runs elsewhere.
    pub sent: Option<u64>,
    /// Further packets after the last one, which are none of `sent`: its sequence number again, to learn
    /// the reflector's count of replies where something was lost and nothing else tells on which way.
    pub probes: Option<u64>,
    /// Scheduled, but not handed to the network: too far behind schedule (RFC 4656 §4.1.1), or
    /// refused by the kernel. Takes no sequence number and never counts as lost.
    pub not_sent: Option<u64>,
    /// Why packets were not sent, the most frequent cause first.
    pub not_sent_causes: Vec<NotSent>,
    /// Distinct sequence numbers that came back before the timeout.
    pub received: Option<u64>,
    /// `sent` - `received` - `unresolved`; the sum of the next three where the directions are known.
    pub lost: Option<u64>,
    /// Neither answered nor timed out when the wait for the last replies was ended by a signal: whether
    /// they are lost is not known. 0 in a session that was not.
    pub unresolved: Option<u64>,
    /// Lost before the reflector; `None` where the reflector keeps no sequence of its own, or that
    /// could not be proved.
    pub lost_outbound: Option<u64>,
    /// Lost after the reflector; `None` likewise.
    pub lost_inbound: Option<u64>,
    /// Lost where nothing tells the direction (after the last packet that was answered, or while the
    /// reflector's counter began anew), or answered after the timeout.
    pub lost_unattributed: Option<u64>,
    /// Runs of consecutive lost sequence numbers (RFC 3357).
    pub loss_bursts: Option<LossBursts>,
    /// Replies beyond the first of a sequence number (RFC 5560).
    pub duplicates: Option<u64>,
    /// Of these, duplicated before the reflector.
    pub duplicates_outbound: Option<u64>,
    /// Of these, duplicated after the reflector.
    pub duplicates_inbound: Option<u64>,
    /// Replies whose sequence number was below the next expected (RFC 4737 §3.3).
    pub reordered: Option<u64>,
    /// Reordered on the way to the reflector.
    pub reordered_outbound: Option<u64>,
    /// Reordered on the way back.
    pub reordered_inbound: Option<u64>,
    /// Replies after the per-packet timeout: counted as lost, and here.
    pub late: Option<u64>,
    /// The per-packet timeout, in nanoseconds: a reply that takes longer is late.
    pub timeout_ns: Option<u64>,
    /// Datagrams on the session's sockets that were not a reply of it: short, foreign, forged.
    pub invalid: Option<u64>,
    /// The same by kind.
    pub ignored: Option<Ignored>,
    /// Replies counted as received whose timestamps contradict each other (a clock step): kept out
    /// of the delay statistics.
    pub rejected_samples: Option<u64>,
    /// ICMP errors of all kinds; `None` where the system does not tell of all.
    pub icmp_unreachable: Option<u64>,
    /// The same by kind, the most frequent first. Without `icmp_unreachable`: those that the system told of
    /// all the same, and `None` where it told of none.
    pub icmp: Option<Vec<Icmp>>,
}

impl Packets {
    /// Packets of which it is known whether they were lost: what loss is a share of.
    #[must_use]
    pub fn settled(&self) -> Option<u64> {
        let sent = self.sent?;
        Some(sent.saturating_sub(self.unresolved.unwrap_or(0)))
    }
}

/// Runs of consecutive lost sequence numbers (RFC 3357).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LossBursts {
    /// Number of runs.
    pub count: u64,
    /// Packets in the longest run.
    pub longest: u64,
    /// About how long that was, in nanoseconds: its packets at the mean rate of its flow; `None` where
    /// there is no rate.
    pub longest_ns: Option<u64>,
    /// Mean number of packets in a run; `None` without one.
    pub mean: Option<f64>,
}

/// Delays by direction, in nanoseconds; `None` where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DelaySet {
    /// (T4 - T1) - (T3 - T2) (RFC 2681; the reflector's own time taken out).
    pub roundtrip: Option<Delay>,
    /// T2 - T1 (RFC 7679), the clocks' offset included.
    pub outbound: Option<Delay>,
    /// T4 - T3 (RFC 7679), the clocks' offset included.
    pub inbound: Option<Delay>,
    /// T3 - T2, the reflector's own time; `None` also where it is 0 in every reply, which is how
    /// reflectors that take one timestamp for both say nothing.
    pub reflector: Option<Delay>,
}

impl DelaySet {
    pub(crate) fn each_mut(&mut self) -> impl Iterator<Item = &mut Delay> {
        let all = [
            &mut self.roundtrip,
            &mut self.outbound,
            &mut self.inbound,
            &mut self.reflector,
        ];
        all.into_iter().flatten()
    }
}

/// One delay quantity, in nanoseconds.
///
/// Percentiles are nearest-rank: at least p % of the samples are at or below the value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Delay {
    /// How many delays the figures rest on.
    pub samples: u64,
    /// How many replies these samples stand for: each is weighed by those without a transmit timestamp
    /// that came just before it. As many as `samples` where every packet has one.
    pub packets: u64,
    /// Smallest, exact, in nanoseconds.
    pub min: i64,
    /// Mean, in nanoseconds.
    pub mean: f64,
    /// 50th percentile, in nanoseconds.
    pub median: i64,
    /// 90th percentile, in nanoseconds; `None`, as for all that follow, where fewer than ten samples
    /// lie beyond it.
    pub p90: Option<i64>,
    /// 95th percentile, in nanoseconds.
    pub p95: Option<i64>,
    /// 99th percentile, in nanoseconds.
    pub p99: Option<i64>,
    /// 99.9th percentile, in nanoseconds.
    pub p99_9: Option<i64>,
    /// 99.99th percentile, in nanoseconds.
    pub p99_99: Option<i64>,
    /// 99.999th percentile, in nanoseconds.
    pub p99_999: Option<i64>,
    /// How many samples it takes for the percentiles that are `None`; `None` where all are told.
    pub samples_needed: Option<SamplesNeeded>,
    /// Largest, exact, in nanoseconds.
    pub max: i64,
    /// Sample standard deviation (n - 1), in nanoseconds; `None` for one sample.
    pub stddev: Option<f64>,
    /// Smoothed interarrival jitter (RFC 3550 §6.4.1), in nanoseconds; `None` for one sample.
    pub jitter: Option<f64>,
    /// Differences of consecutive sequence numbers; `None` where there is no such pair.
    pub ipdv: Option<Ipdv>,
    /// Delay minus the session's minimum.
    pub pdv: Pdv,
    /// Samples outside the histogram's bounds.
    pub out_of_range: OutOfRange,
    /// Exact counts between fixed bounds, ascending; bins without a sample are left out.
    pub bins: Vec<Bin>,
}

/// How many samples a percentile takes that was not told, by percentile: for
/// [`Ipdv::p99_abs`] and [`Pdv::p99`] as many as for `p99`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SamplesNeeded {
    /// For the 90th percentile; `None`, as for all that follow, where it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90: Option<u64>,
    /// For the 95th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95: Option<u64>,
    /// For the 99th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<u64>,
    /// For the 99.9th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_9: Option<u64>,
    /// For the 99.99th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_99: Option<u64>,
    /// For the 99.999th.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_999: Option<u64>,
}

/// Delay difference of consecutive sequence numbers, both measured (RFC 3393), in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ipdv {
    /// Smallest difference, signed, exact, in nanoseconds.
    pub min: i64,
    /// Mean of the absolute differences, in nanoseconds.
    pub mean_abs: f64,
    /// 99th percentile of the absolute differences, in nanoseconds; `None` where fewer than ten
    /// lie beyond it.
    pub p99_abs: Option<u64>,
    /// Largest difference, signed, exact, in nanoseconds.
    pub max: i64,
}

/// Delay minus the session's minimum (RFC 5481 §4.2), in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pdv {
    /// 50th percentile, in nanoseconds.
    pub median: u64,
    /// 99th percentile, in nanoseconds; `None` where fewer than ten samples lie beyond it.
    pub p99: Option<u64>,
    /// Largest, exact, in nanoseconds.
    pub max: u64,
}

/// Samples outside the histogram's bounds: percentiles know them only as below or above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutOfRange {
    /// Samples below the bounds.
    pub below: u64,
    /// Samples above the bounds.
    pub above: u64,
}

/// How many delays lie between two bounds of the series 1, 2, 5, 10 .. from 1 us to 10 s, with 0 and
/// the same below zero, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Smallest delay of the bin; `None`: below -10 s there is no bound.
    pub from: Option<i64>,
    /// The bound that its delays stay below; `None`: from 10 s on there is none.
    pub to: Option<i64>,
    /// Delays in the bin.
    pub count: u64,
}

/// Delays by direction, as histograms; without a sample where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histograms {
    /// (T4 - T1) - (T3 - T2).
    pub roundtrip: Histogram,
    /// T2 - T1, the clocks' offset included.
    pub outbound: Histogram,
    /// T4 - T3, the clocks' offset included.
    pub inbound: Histogram,
}

/// The delays of one direction: non-empty cells in ascending order, and what lies outside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Cells with at least one sample, ascending, none overlapping.
    pub cells: Vec<Cell>,
    /// Samples that no cell holds: they are below, or above, all cells.
    pub outside: OutOfRange,
}

impl Histogram {
    /// All samples, those outside the cells included.
    #[must_use]
    pub fn samples(&self) -> u64 {
        let inside: u64 = self.cells.iter().map(|cell| cell.count).sum();
        inside + self.outside.below + self.outside.above
    }
}

/// Delays that are not told apart, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Smallest delay of the cell.
    pub lowest: i64,
    /// Largest delay of the cell; percentiles are told by it.
    pub highest: i64,
    /// Samples, 1 or more.
    pub count: u64,
}

/// Where the timestamps come from and what they are worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timestamps {
    /// T1 that the delay statistics rest on; kinds are never mixed in one figure.
    pub t1: Option<StampKind>,
    /// T2; `None` where the peer does not tell (a foreign reflector).
    pub t2: Option<StampKind>,
    /// T4.
    pub t4: Option<StampKind>,
    /// How the peer writes T2 and T3, as found out from its first replies and kept for the session; `None`
    /// where no reply told a time, or threads found different ones.
    pub reflector_format: Option<TimeFormat>,
    /// Whether replies showed it; else it was taken for the most likely one, and no reply denied it. `None`
    /// where there is none.
    pub reflector_format_shown: Option<bool>,
    /// Replies that had T1 and T3 in each other's place, and were read so; `None` where there was none.
    pub exchanged: Option<u64>,
    /// What one receive timestamp stands for.
    pub granularity: Option<Granularity>,
    /// Two consecutive packets, or trains, of this many ask for a transmit stamp, 1: all; `None`
    /// without stamps. Of several threads the smallest.
    pub tx_stamp_one_in: Option<u32>,
    /// The largest that this became, where the system had no room for the stamps.
    pub tx_stamp_one_in_most: Option<u32>,
    /// How the replies whose T1 is known lie over the session; `None` where nothing was measured.
    pub t1_spread: Option<Spread>,
    /// The two ends' clocks.
    pub clock: Clock,
}

/// Replies, and those of them whose T1 is known, in stretches of the session from the first reply on.
/// `roundtrip` and `outbound` rest on the latter, each weighed by the replies that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Length of a stretch, in nanoseconds.
    pub stretch_ns: u64,
    /// Replies with delays that came in each.
    pub replies: Vec<u64>,
    /// Those of them whose T1 is known.
    pub samples: Vec<u64>,
}

/// Who took a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StampKind {
    /// The network interface.
    Hardware,
    /// The kernel.
    Kernel,
    /// The program.
    Userspace,
}

/// How a peer writes its timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// NTP's 64 bits (RFC 4656 §4.1.2).
    Ntp,
    /// Truncated PTPv2 (RFC 8186 §2.1).
    Ptp,
    /// A mix: seconds since 1970, and the fraction of NTP.
    UnixFraction,
    /// A mix: seconds of NTP, and nanoseconds.
    NtpNanoseconds,
}

/// What one receive timestamp stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// One packet.
    Packet,
    /// All packets of one train or one coalesced bundle.
    Train,
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// The Session-Sender.
    Local,
    /// The Session-Reflector.
    Remote,
}

/// A clock that was set during the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClockStep {
    /// When, UTC by our clock, as RFC 3339 writes it: the first reply for which it had been set.
    pub at: String,
    /// The same in nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// How far it was set forward, in nanoseconds; negative: back.
    pub by_ns: i64,
    /// Whose clock.
    pub whose: Whose,
}

/// The two ends' clocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Clock {
    /// Both ends run on this host's clock: one-way delays are exact whatever the Error Estimates say.
    pub same_clock: bool,
    /// S bit of our own Error Estimate.
    pub local_synchronised: Option<bool>,
    /// S bit of the reflector's Error Estimate; `None` also where that cannot be used.
    pub remote_synchronised: Option<bool>,
    /// Our own Error Estimate, in nanoseconds.
    pub local_error_ns: Option<u64>,
    /// The reflector's Error Estimate, in nanoseconds.
    pub remote_error_ns: Option<u64>,
    /// Replies whose Error Estimate has Multiplier 0, which RFC 4656 §4.1.2 forbids: it tells nothing.
    /// `None` where there was no reply.
    pub remote_estimates_unusable: Option<u64>,
    /// Reflector's clock minus ours, if the path is symmetric, in nanoseconds.
    pub offset_estimate_ns: Option<i64>,
    /// Clocks that were set, as far as that was found.
    pub steps: Vec<ClockStep>,
    /// They were set too often to tell a stretch between: there are no one-way delays.
    pub set_too_often: bool,
    /// The reflector's clock is read in steps of so many nanoseconds, or shows a multiple of them where packets
    /// came at even gaps. `None` where they are no coarser than a
    /// microsecond, or it is not known.
    pub remote_tick_ns: Option<u64>,
    /// Begin of the stretch between two of these that the one-way delays are of, UTC by our clock, as RFC
    /// 3339 writes it; `None` where they go back to the session's begin.
    pub one_way_from: Option<String>,
    /// End of that stretch; `None` where they go on to the session's end.
    pub one_way_until: Option<String>,
    /// How much faster the reflector's clock is than ours, on the average over that stretch, in parts per
    /// million. `None` where that is not known.
    pub drift_ppm: Option<f64>,
    /// The largest error of that.
    pub drift_error_ppm: Option<f64>,
    /// Whether it changed: one of the clocks was slewed for a part of the stretch.
    pub drift_changed: Option<bool>,
    /// Whether it was taken out of the one-way delays: it shows in them, and is known.
    pub drift_taken_out: Option<bool>,
}

/// What the packets' headers told about the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PathFacts {
    /// 255 minus the TTL that the reflector saw most often, where it tells and we sent 255.
    pub hops_outbound: Option<u8>,
    /// 255 minus the replies' TTL seen most often.
    pub hops_inbound: Option<u8>,
    /// Whether either changed during the session.
    pub hops_changed: Option<bool>,
    /// DSCP of the requests, 0..63.
    pub dscp_sent: Option<u8>,
    /// DSCP of the requests as the reflector saw it most often, 0..63.
    pub dscp_at_reflector: Option<u8>,
    /// DSCP of the replies seen most often, 0..63.
    pub dscp_received: Option<u8>,
    /// ECN of the requests as the reflector saw it most often, 0..3.
    pub ecn_at_reflector: Option<u8>,
    /// ECN of the replies seen most often, 0..3.
    pub ecn_received: Option<u8>,
    /// Distinct UDP payload sizes of replies, in octets.
    pub reply_bytes: Option<Vec<usize>>,
    /// Octets of UDP payload of all replies by those that they should have (RFC 5357 §4.2.1: as many as
    /// the request, but no fewer than the fields take); `None` without replies.
    pub reply_size_ratio: Option<f64>,
    /// Replies that came with another DSCP than packets left with; `None` where it is not known.
    pub replies_of_other_dscp: Option<u64>,
    /// Octets of the largest IP packet that this host knows to get to the reflector whole, at the end of
    /// the session: the interface's MTU, or what a router told.
    pub mtu: Option<usize>,
    /// The router or host that packets are handed to; `None` where there is none, as on loopback, or the
    /// system does not tell.
    pub next_hop: Option<NextHop>,
}

/// The router or host that packets are handed to on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NextHop {
    /// Its address.
    pub address: IpAddr,
    /// Whether its link address was known when the first packet left (ARP, neighbour discovery).
    pub resolved: bool,
    /// How long that was waited for before the first packet, in nanoseconds; 0: it was known.
    pub waited_ns: u64,
}

/// Whether this host kept up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Host {
    /// Whether the figures are the path's own.
    pub verdict: Verdict,
    /// One readable sentence for each cause of [`Verdict::ToolLimited`].
    pub reasons: Vec<String>,
    /// The same causes in the same order, for programs, with the figures that each spoils.
    pub reasons_detail: Vec<Reason>,
    /// Datagrams that this host's sockets dropped; a lower bound under offload, where the kernel
    /// counts bundles; `None` where the system does not tell.
    pub kernel_drops: Option<u64>,
    /// Transmit stamps asked for.
    pub tx_stamps_requested: Option<u64>,
    /// Transmit stamps that came.
    pub tx_stamps_received: Option<u64>,
    /// Replies counted but missing from the delay statistics, because the stats thread could not
    /// keep up.
    pub samples_not_recorded: Option<u64>,
    /// How packets passed between program and kernel.
    pub io: Io,
    /// System calls for many packets that this system refused, so that each took one of its own.
    pub refused_calls: Vec<FailedCall>,
    /// The system call that failed for good, which ended the run before its time: what it was to tell
    /// is `None`.
    pub failure: Option<FailedCall>,
    /// Receive buffer granted, in octets.
    pub receive_buffer_bytes: Option<usize>,
    /// Processor use.
    pub cpu: Cpu,
    /// Largest resident memory, in octets.
    pub peak_memory_bytes: Option<u64>,
}

/// Whether the figures are the path's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// They are.
    Ok,
    /// There is none: no reply came.
    #[serde(rename = "none")]
    NothingMeasured,
    /// Kernel drops, late departures, lost stamps or a full sample channel made them less.
    ToolLimited,
}

/// A cause of [`Verdict::ToolLimited`], and what it spoils: all other figures are the path's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The cause.
    pub code: ReasonCode,
    /// Figures that it spoils, at least one.
    pub spoils: Vec<Figure>,
}

impl From<ReasonCode> for Reason {
    fn from(code: ReasonCode) -> Self {
        use ReasonCode as C;

        let spoils: &[Figure] = match code {
            C::SocketDrops
            | C::ReceivingFailed
            | C::ReflectorFailed
            | C::LateForWaiting
            | C::MayNotHaveLeft => &[Figure::Loss],
            C::SendingFailed
            | C::BehindSchedule
            | C::Refused
            | C::GaveUp
            | C::QueueFull
            | C::NeverLeft
            | C::RateNotKept
            | C::LateDepartures
            | C::WaitedInHost => &[Figure::Load],
            C::TransmitStampsMissing => &[Figure::Outbound, Figure::Roundtrip],
            C::SamplesNotRecorded => &[Figure::Outbound, Figure::Inbound, Figure::Roundtrip],
        };
        Self {
            code,
            spoils: spoils.to_vec(),
        }
    }
}

/// What this host did not manage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Receiving failed for good.
    ReceivingFailed,
    /// Sending failed for good.
    SendingFailed,
    /// The reflector in this process failed for good.
    ReflectorFailed,
    /// Its sockets dropped datagrams, which count as lost.
    SocketDrops,
    /// Packets were further behind schedule than the timeout, and were not sent.
    BehindSchedule,
    /// The system refused packets.
    Refused,
    /// Threads stopped, since all of their packets were refused.
    GaveUp,
    /// The queue in front of the interface dropped packets before they left.
    QueueFull,
    /// Packets never left this host, although the system took them.
    NeverLeft,
    /// Packets without a transmit timestamp may not have left this host, as others that asked for none.
    MayNotHaveLeft,
    /// Packets waited in this host after they were handed over.
    WaitedInHost,
    /// Replies were late that may not have been, but for that.
    LateForWaiting,
    /// The rate was not kept.
    RateNotKept,
    /// Departures fell behind.
    LateDepartures,
    /// Transmit timestamps did not come back.
    TransmitStampsMissing,
    /// The statistics could not keep up.
    SamplesNotRecorded,
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

/// How packets passed between program and kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// Many datagrams a system call.
    Batched,
    /// Segmentation and coalescing by the kernel.
    Offload,
    /// One datagram a system call, on any system.
    Portable,
    /// As `Batched`, but one datagram a system call: calls for many are refused.
    Single,
}

/// A system call that failed whatever it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedCall {
    /// Its name.
    pub call: String,
    /// The error's name, such as `EPERM`.
    pub errno: String,
    /// The error in words.
    pub error: String,
}

impl FailedCall {
    /// A call that failed with an error of this number.
    #[must_use]
    pub fn new(call: &str, errno: i32) -> Self {
        let errno = nix::errno::Errno::from_raw(errno);
        Self {
            call: call.to_owned(),
            errno: format!("{errno:?}"),
            error: errno.desc().to_owned(),
        }
    }
}

impl std::fmt::Display for FailedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.call, self.error, self.errno)
    }
}

/// Processor use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// CPUs that the sender is pinned to, read back; `None` where not pinned.
    pub sender: Option<Vec<usize>>,
    /// CPUs that the receiver is pinned to, read back; `None` where not pinned.
    pub receiver: Option<Vec<usize>>,
    /// Time in the program, in seconds.
    pub user_seconds: Option<f64>,
    /// Time in the kernel on its behalf, in seconds.
    pub system_seconds: Option<f64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::ignored::Kind;
    use super::*;
    use serde_json::Value;

    const SCHEMA: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/report.schema.json"
    ));

    /// A report in which everything was measured.
    pub(crate) fn full() -> Report {
        let delay = Delay {
            samples: 1_000_000,
            packets: 1_000_000,
            min: -7,
            mean: 1234.5,
            median: 1200,
            p90: Some(1500),
            p95: Some(1600),
            p99: Some(2000),
            p99_9: Some(3000),
            p99_99: Some(4000),
            p99_999: Some(5000),
            samples_needed: Some(SamplesNeeded {
                p90: Some(100),
                p95: Some(200),
                p99: Some(1_000),
                p99_9: Some(10_000),
                p99_99: Some(100_000),
                p99_999: Some(1_000_000),
            }),
            max: 6000,
            stddev: Some(100.25),
            jitter: Some(20.5),
            ipdv: Some(Ipdv {
                min: -400,
                mean_abs: 30.5,
                p99_abs: Some(200),
                max: 500,
            }),
            pdv: Pdv {
                median: 1207,
                p99: Some(2007),
                max: 6007,
            },
            out_of_range: OutOfRange { below: 1, above: 2 },
            bins: vec![
                Bin {
                    from: Some(-1000),
                    to: Some(0),
                    count: 1,
                },
                Bin {
                    from: Some(1000),
                    to: Some(2000),
                    count: 999_999,
                },
            ],
        };
        Report {
            schema: Schema::Version1,
            version: "0.1.0".into(),
            command: vec!["sender".into(), "--rate".into(), "1000".into()],
            scope: Scope::Session,
            protocol: Protocol::TwampLight,
            role: Role::ControlClient,
            security: Security::Unauthenticated,
            sid: Some("00112233445566778899aabbccddeeff".into()),
            key_id: Some("ops".into()),
            ssid: Some(7),
            local: Some("127.0.0.1:40000".parse().unwrap()),
            remote: Some("[2001:db8::1]:862".parse().unwrap()),
            started: Some("2026-01-02T03:04:05.678901Z".into()),
            duration_ns: Some(1_000_000_000),
            interrupted: false,
            load: Load {
                offered_pps: Some(1000.0),
                achieved_pps: Some(999.9),
                achieved_bps_l2: Some(1e6),
                profile: Profile::Imix,
                schedule: Schedule::Poisson,
                seed: Some(u64::MAX),
                burst: 16,
                sizes: vec![SizeEntry {
                    payload_bytes: 41,
                    frame_bytes_l2: 83,
                    packets: 10,
                    received: Some(9),
                    roundtrip: Some(delay.clone()),
                    fragments: Some(1),
                }],
                paced_by: Some(PacedBy::Sender),
                late_departures: Some(0),
                max_slip_ns: Some(12),
            },
            packets: Packets {
                sent: Some(10),
                probes: Some(1),
                not_sent: Some(2),
                not_sent_causes: vec![NotSent {
                    cause: Cause::Refused,
                    count: 2,
                    error: Some("Operation not permitted".to_owned()),
                }],
                received: Some(7),
                lost: Some(3),
                unresolved: Some(0),
                lost_outbound: Some(1),
                lost_inbound: Some(1),
                lost_unattributed: Some(1),
                loss_bursts: Some(LossBursts {
                    count: 2,
                    longest: 2,
                    longest_ns: Some(2_000_000),
                    mean: Some(1.5),
                }),
                duplicates: Some(2),
                duplicates_outbound: Some(1),
                duplicates_inbound: Some(1),
                reordered: Some(2),
                reordered_outbound: Some(1),
                reordered_inbound: Some(1),
                late: Some(1),
                timeout_ns: Some(5_000_000_000),
                invalid: Some(1),
                ignored: Some(every_kind()),
                rejected_samples: Some(1),
                icmp_unreachable: Some(1),
                icmp: Some(vec![icmp::tests::some()]),
            },
            delay_ns: DelaySet {
                roundtrip: Some(delay.clone()),
                outbound: Some(delay.clone()),
                inbound: Some(delay.clone()),
                reflector: Some(delay),
            },
            timestamps: Timestamps {
                t1: Some(StampKind::Hardware),
                t2: Some(StampKind::Userspace),
                t4: Some(StampKind::Kernel),
                reflector_format: None,
                reflector_format_shown: None,
                exchanged: None,
                granularity: Some(Granularity::Train),
                tx_stamp_one_in: Some(16),
                tx_stamp_one_in_most: Some(64),
                t1_spread: Some(Spread {
                    stretch_ns: 268_435_456,
                    replies: vec![10, 20],
                    samples: vec![2, 3],
                }),
                clock: Clock {
                    same_clock: true,
                    local_synchronised: Some(true),
                    remote_synchronised: Some(false),
                    local_error_ns: Some(1000),
                    remote_error_ns: Some(2000),
                    remote_estimates_unusable: Some(0),
                    offset_estimate_ns: Some(-37_000_000_000),
                    steps: vec![ClockStep {
                        at: "2026-07-26T12:00:01Z".to_owned(),
                        at_ns: 1_785_067_201_000_000_000,
                        by_ns: -5_000_000_000,
                        whose: Whose::Remote,
                    }],
                    set_too_often: false,
                    remote_tick_ns: Some(15_625_000),
                    one_way_from: Some("2026-07-26T12:00:01Z".to_owned()),
                    one_way_until: Some("2026-07-26T12:00:09Z".to_owned()),
                    drift_ppm: Some(-12.5),
                    drift_error_ppm: Some(0.75),
                    drift_changed: Some(false),
                    drift_taken_out: Some(true),
                },
            },
            path: PathFacts {
                hops_outbound: Some(3),
                hops_inbound: Some(4),
                hops_changed: Some(true),
                dscp_sent: Some(46),
                dscp_at_reflector: Some(0),
                dscp_received: Some(46),
                ecn_at_reflector: Some(1),
                ecn_received: Some(3),
                reply_bytes: Some(vec![41, 1472]),
                reply_size_ratio: None,
                replies_of_other_dscp: None,
                mtu: Some(1500),
                next_hop: Some(NextHop {
                    address: IpAddr::from([192, 0, 2, 254]),
                    resolved: true,
                    waited_ns: 700_000,
                }),
            },
            host: Host {
                verdict: Verdict::ToolLimited,
                reasons: vec!["3 datagrams were dropped by this host's socket".into()],
                reasons_detail: vec![ReasonCode::SocketDrops.into()],
                kernel_drops: Some(3),
                tx_stamps_requested: Some(10),
                tx_stamps_received: Some(9),
                samples_not_recorded: Some(1),
                io: Io::Offload,
                refused_calls: vec![FailedCall::new("sendmmsg", libc::ENOSYS)],
                failure: Some(FailedCall::new("recvmsg", libc::EPERM)),
                receive_buffer_bytes: Some(8 << 20),
                cpu: Cpu {
                    sender: Some(vec![0]),
                    receiver: Some(vec![1]),
                    user_seconds: Some(0.5),
                    system_seconds: Some(1.5),
                },
                peak_memory_bytes: Some(12 << 20),
            },
            notes: vec!["one-way delays contain the clocks' offset".into()],
            histograms: Histograms::default(),
        }
    }

    /// What a sender can meet, each kind once.
    fn every_kind() -> Ignored {
        let mut ignored = Ignored::default();
        for kind in [
            Kind::TooShort,
            Kind::Truncated,
            Kind::UnknownNumber,
            Kind::OtherT1,
            Kind::Elsewhere,
            Kind::Stranger,
            Kind::Forged,
        ] {
            ignored.note(kind, 1);
        }
        ignored
    }

    /// A report in which nothing could be measured.
    pub(crate) fn minimal() -> Report {
        let full = full();
        Report {
            command: Vec::new(),
            sid: None,
            key_id: None,
            ssid: None,
            local: None,
            remote: None,
            started: None,
            duration_ns: None,
            load: Load {
                offered_pps: None,
                achieved_pps: finite(0.0 / f64::from(0_u8)),
                achieved_bps_l2: None,
                seed: None,
                burst: 1,
                sizes: Vec::new(),
                paced_by: None,
                late_departures: None,
                max_slip_ns: None,
                ..full.load
            },
            packets: Packets::default(),
            delay_ns: DelaySet::default(),
            timestamps: Timestamps {
                t1: None,
                t2: None,
                t4: None,
                reflector_format: None,
                reflector_format_shown: None,
                exchanged: None,
                granularity: None,
                tx_stamp_one_in: None,
                tx_stamp_one_in_most: None,
                t1_spread: None,
                clock: Clock::default(),
            },
            path: PathFacts::default(),
            host: Host {
                verdict: Verdict::Ok,
                reasons: Vec::new(),
                reasons_detail: Vec::new(),
                kernel_drops: None,
                tx_stamps_requested: None,
                tx_stamps_received: None,
                samples_not_recorded: None,
                io: Io::Portable,
                refused_calls: Vec::new(),
                failure: None,
                receive_buffer_bytes: None,
                cpu: Cpu::default(),
                peak_memory_bytes: None,
            },
            notes: Vec::new(),
            ..full
        }
    }

    fn violations(report: &Report) -> Vec<String> {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let line = report.to_json_line();
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect()
    }

    #[test]
    fn full_and_minimal_reports_obey_the_schema() {
        assert_eq!(violations(&full()), Vec::<String>::new());
        assert_eq!(violations(&minimal()), Vec::<String>::new());
    }

    #[test]
    fn a_report_that_breaks_the_schema_is_noticed() {
        let mut report = full();
        report.load.burst = 0;
        report.sid = Some("not hexadecimal".into());
        assert_eq!(violations(&report).len(), 2);
    }

    /// Collects the paths of properties that only one of schema and report has.
    fn compare(
        schema: &Value,
        root: &Value,
        value: &Value,
        path: &str,
        differences: &mut Vec<String>,
    ) {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = root.pointer(reference.trim_start_matches('#')).unwrap();
            return compare(target, root, value, path, differences);
        }
        if let (Some(items), Some(first)) = (schema.get("items"), value.get(0)) {
            compare(items, root, first, &format!("{path}[]"), differences);
        }
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        for name in properties.keys().filter(|name| value.get(name).is_none()) {
            differences.push(format!("{path}.{name} is in the schema only"));
        }
        for (name, inner) in value.as_object().unwrap() {
            let path = format!("{path}.{name}");
            match properties.get(name) {
                Some(property) => compare(property, root, inner, &path, differences),
                None => differences.push(format!("{path} is in the report only")),
            }
        }
    }

    #[test]
    fn schema_and_structs_have_the_same_fields() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let mut differences = Vec::new();
        let value = serde_json::to_value(full()).unwrap();
        compare(&schema, &schema, &value, "", &mut differences);
        assert_eq!(differences, [".asserts is in the schema only"]);
    }

    #[test]
    fn every_name_of_every_enum_is_the_schemas() {
        let mut report = full();
        let mut check = |change: &dyn Fn(&mut Report)| {
            change(&mut report);
            assert_eq!(violations(&report), Vec::<String>::new());
        };
        for scope in [Scope::Session, Scope::Thread, Scope::Combined] {
            check(&|r| r.scope = scope);
        }
        for protocol in [Protocol::TwampLight, Protocol::Twamp, Protocol::Stamp] {
            check(&|r| r.protocol = protocol);
        }
        for role in [Role::Sender, Role::Controller, Role::ControlClient] {
            check(&|r| r.role = role);
        }
        for security in [
            Security::Unauthenticated,
            Security::Authenticated,
            Security::Encrypted,
            Security::Mixed,
        ] {
            check(&|r| r.security = security);
        }
        for profile in [Profile::Fixed, Profile::Imix, Profile::Custom] {
            check(&|r| r.load.profile = profile);
        }
        for schedule in [
            Schedule::Periodic,
            Schedule::Poisson,
            Schedule::Uniform,
            Schedule::Flood,
        ] {
            check(&|r| r.load.schedule = schedule);
        }
        for kind in [StampKind::Hardware, StampKind::Kernel, StampKind::Userspace] {
            check(&|r| r.timestamps.t1 = Some(kind));
        }
        for granularity in [Granularity::Packet, Granularity::Train] {
            check(&|r| r.timestamps.granularity = Some(granularity));
        }
        for code in [
            ReasonCode::ReceivingFailed,
            ReasonCode::SendingFailed,
            ReasonCode::ReflectorFailed,
            ReasonCode::SocketDrops,
            ReasonCode::BehindSchedule,
            ReasonCode::Refused,
            ReasonCode::GaveUp,
            ReasonCode::QueueFull,
            ReasonCode::MayNotHaveLeft,
            ReasonCode::WaitedInHost,
            ReasonCode::LateForWaiting,
            ReasonCode::RateNotKept,
            ReasonCode::LateDepartures,
            ReasonCode::NeverLeft,
            ReasonCode::TransmitStampsMissing,
            ReasonCode::SamplesNotRecorded,
        ] {
            check(&|r| r.host.reasons_detail = vec![code.into()]);
        }
        for verdict in [Verdict::Ok, Verdict::NothingMeasured, Verdict::ToolLimited] {
            check(&|r| r.host.verdict = verdict);
        }
        for io in [Io::Batched, Io::Offload, Io::Portable] {
            check(&|r| r.host.io = io);
        }
        for kind in [
            IcmpKind::TimeExceeded,
            IcmpKind::ReassemblyTimeExceeded,
            IcmpKind::PortUnreachable,
            IcmpKind::HostUnreachable,
            IcmpKind::NetUnreachable,
            IcmpKind::ProtocolUnreachable,
            IcmpKind::Prohibited,
            IcmpKind::PacketTooBig,
            IcmpKind::ParameterProblem,
            IcmpKind::Unreachable,
            IcmpKind::Other,
        ] {
            check(&|r| {
                r.packets.icmp = Some(vec![Icmp {
                    kind,
                    ..icmp::tests::some()
                }]);
            });
        }
        for cause in [
            Cause::BehindSchedule,
            Cause::TooLarge,
            Cause::QueueFull,
            Cause::Refused,
            Cause::NeverLeft,
        ] {
            check(&|r| r.packets.not_sent_causes[0].cause = cause);
        }
    }
}
