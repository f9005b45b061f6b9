//! One session's report: what was asked, what was sent, and what became of it.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::delay::{Delay, DelaySet, Histograms};
use super::host::{Cpu, Host, Io, Verdict};
use super::icmp::Icmp;
use super::ignored::Ignored;
use super::not_sent::NotSent;
use super::note::{self, Note};
use super::timestamps::Timestamps;

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
    /// Remarks on how the figures are to be read: `notes` in JSON, a sentence each, and `notes_detail`.
    #[serde(flatten, serialize_with = "note::twice")]
    pub notes: Vec<Note>,
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
            notes: vec![note::Peer::SenderElsewhere.into()],
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

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::call::FailedCall;
    use crate::report::delay::{Bin, Ipdv, OutOfRange, Pdv, SamplesNeeded};
    use crate::report::icmp::{self, Icmp, IcmpKind};
    use crate::report::ignored::Kind;
    use crate::report::not_sent::Cause;
    use crate::report::reason::{self, Reason};
    use crate::report::timestamps::{Clock, ClockStep, Granularity, Spread, StampKind, Whose};

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
                reasons: vec![Reason::SocketDrops {
                    datagrams: 3,
                    bundles: false,
                }],
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
            notes: vec![note::Replies::SharedStamps.into()],
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
    fn every_note_and_reason_is_the_schemas_and_every_code_of_it_is_one() {
        let mut report = full();
        report.notes = note::tests::each();
        report.host.reasons = reason::tests::each();
        assert_eq!(violations(&report), Vec::<String>::new());
        let value = serde_json::to_value(&report).unwrap();
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let codes = |list: &Value, at: &str| -> Vec<Value> {
            let list = list.as_array().unwrap().iter();
            list.map(|one| one.pointer(at).unwrap().clone()).collect()
        };
        for (kind, shown, name) in [
            ("note", &value, "notes"),
            ("reason", &value["host"], "reasons"),
        ] {
            let known = codes(&schema["$defs"][kind]["oneOf"], "/properties/code/const");
            let details = &shown[format!("{name}_detail")];
            assert_eq!(codes(details, "/code"), known);
            assert_eq!(shown[name].as_array().unwrap().len(), known.len());
        }
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
