//! What a search for the fastest rate found, as plain data: the twin of `find-rate.schema.json`.

use std::net::SocketAddr;

use serde::Serialize;

use super::icmp::Icmp;
use super::note;
use super::reason::Reason;

/// What was found for one size or mix: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FindRate {
    /// Name and version of this layout.
    pub schema: Schema,
    /// Version of the program.
    pub version: String,
    /// Arguments of a command line that searches this size with the same parameters, all as they were
    /// in force.
    pub command: Vec<String>,
    /// The Session-Reflector; `None` for the one inside this process, on another port each trial.
    pub remote: Option<SocketAddr>,
    /// The size as it is typed: octets of the frame, `imix`, or sizes with weights.
    pub size: String,
    /// The frames.
    pub frames: Vec<Frame>,
    /// Share of packets that may be lost, 0..1.
    pub loss_bound: f64,
    /// The fastest rate that was wanted, in packets a second; `None`: no bound.
    pub max_rate_pps: Option<u64>,
    /// For how long a trial sends, in nanoseconds.
    pub trial_ns: u64,
    /// How long a reply may take, in nanoseconds.
    pub timeout_ns: u64,
    /// Seed of order of sizes, random gaps and padding.
    pub seed: u64,
    /// Throughput (RFC 2544 §26.1): the fastest rate in packets a second at which no more than the
    /// bound was lost; `None` where no rate was found.
    pub rate_pps: Option<u64>,
    /// That rate on the wire, in bits a second: frames with FCS, preamble and gap (IEEE 802.3:
    /// 4 + 8 + 12 octets), short ones filled up to 60 octets.
    pub bps_l1: Option<f64>,
    /// The same in frames with FCS (4 octets), short ones filled up likewise: RFC 2544 counts so.
    pub bps_l2: Option<f64>,
    /// The same in frames without FCS, none filled up: what L2 means in a session's report.
    pub bps_l2_without_fcs: Option<f64>,
    /// The same in IP packets: frames less 14 octets of Ethernet header.
    pub bps_l3: Option<f64>,
    /// The trials at that rate, the first and those that confirm it; `None` without a rate.
    pub lower: Option<Bound>,
    /// The trials at the slowest rate that failed; `None` where none did.
    pub upper: Option<Bound>,
    /// What the rate rests on; `None` without a rate.
    pub standing: Option<Standing>,
    /// No trial at the rate or at a slower one failed, two further ones held, and so did those at 50 and
    /// 90 % of it.
    pub stable: bool,
    /// Why it is not more; `None` where that was not found out.
    pub limited_by: Option<LimitedBy>,
    /// What came back in trials that were too fast, where that was always the same.
    pub ceiling: Option<Ceiling>,
    /// Slow packets ahead of the trials.
    pub warm_up: WarmUp,
    /// The answer of a host where nobody listens at the port, which ended the search; `None`: none came.
    pub refused: Option<Icmp>,
    /// Ended by a signal: the rate is what had held until then.
    pub interrupted: bool,
    /// Delay at 50, 90 and 100 % of the rate; fewer where the search was interrupted.
    pub loads: Vec<LoadPoint>,
    /// Every trial in its order.
    pub trials: Vec<Trial>,
    /// Remarks on how the figures are to be read: `notes` in JSON, a sentence each, and `notes_detail`.
    #[serde(flatten, serialize_with = "note::twice")]
    pub notes: Vec<Note>,
}

impl FindRate {
    /// As one line of JSON, without the line break.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        // Only a map with keys that are not strings, or a failing `Serialize`, is an error: none here.
        serde_json::to_string(self).expect("plain data always serialises")
    }

    /// Fills in the rates in bits, from the rate in packets and the frames.
    pub fn set_rate(&mut self, pps: Option<u64>) {
        self.rate_pps = pps;
        let frames = &self.frames;
        let weights: f64 = frames.iter().map(|frame| f64::from(frame.weight)).sum();
        let bps = |octets: fn(usize) -> usize| {
            let of = |frame: &Frame| octets(frame.frame_bytes_l2) as f64 * f64::from(frame.weight);
            let mean = frames.iter().map(of).sum::<f64>() / weights;
            pps.map(|pps| pps as f64 * mean * 8.0)
        };
        self.bps_l1 = bps(|frame| frame.max(LEAST_FRAME) + FCS + PREAMBLE + GAP);
        self.bps_l2 = bps(|frame| frame.max(LEAST_FRAME) + FCS);
        self.bps_l2_without_fcs = bps(|frame| frame);
        self.bps_l3 = bps(|frame| frame - ETHERNET);
    }
}

/// Octets of an Ethernet header (IEEE 802.3 §3.1.1), likewise the others.
const ETHERNET: usize = 14;
/// Frame check sequence.
const FCS: usize = 4;
/// Preamble and start of frame delimiter.
const PREAMBLE: usize = 8;
/// The time between two frames, in octets (IEEE 802.3 §4.4.2).
const GAP: usize = 12;
/// The shortest frame, without FCS.
const LEAST_FRAME: usize = 60;

/// Name and version of the layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Schema {
    /// Version 1: fields may be added; none is renamed, removed or given another meaning.
    #[default]
    #[serde(rename = "twamp-blast/find-rate/1")]
    Version1,
}

/// One size of those that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// UDP payload, in octets.
    pub payload_bytes: usize,
    /// Ethernet frame without FCS, in octets.
    pub frame_bytes_l2: usize,
    /// How often in a cycle.
    pub weight: u32,
}

/// What kept a rate from being more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitedBy {
    /// Packets were lost in the network or at the reflector.
    Path,
    /// This host dropped them, or did not send them in time.
    Host,
    /// Nothing: no faster rate was wanted.
    MaxRate,
}

/// The trials at one rate: how many bear it as a bound, and how many speak against that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Packets a second.
    pub rate_pps: u64,
    /// Trials that held.
    pub held: u32,
    /// Trials that did not.
    pub failed: u32,
}

/// What a rate rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It held three times, and no trial disagrees.
    Stable,
    /// The search ended before the rate had held three times, and at 50 and 90 % too.
    NotConfirmed,
    /// The rate held, and a slower one did not, in two trials and never.
    NotStable,
    /// Two trials at the same rate ended differently, at this one or any other.
    NotRepeatable,
}

/// What came back in trials that were too fast: the same rate, whatever was offered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceiling {
    /// Packets a second that came back, at the median of these trials.
    pub received_pps: f64,
    /// How many trials show it.
    pub trials: usize,
    /// What that is a sign of.
    pub kind: CeilingKind,
}

/// What keeps the rate of replies the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CeilingKind {
    /// What is beyond a rate is dropped at once: a policer, or the limit of a server's policy.
    RateLimit,
    /// It waits first: the delay grew, as with a queue in front of a link, or a busy reflector.
    Queue,
}

/// Slow packets that show whether the path answers: before the first trial, and after each that
/// failed. Their loss counts nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WarmUp {
    /// Sessions of such packets.
    pub runs: u32,
    /// Packets sent.
    pub sent: u64,
    /// Packets that came back.
    pub received: u64,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The rate was sent, with no more loss than the bound.
    Held,
    /// The path lost more.
    Path,
    /// This host lost more, or could not send at that rate.
    Host,
    /// Not one reply came.
    Nothing,
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Packets a second asked for.
    pub offered_pps: u64,
    /// Packets a second sent.
    pub achieved_pps: Option<f64>,
    /// Largest number of packets that left as one segmentation train.
    pub burst: usize,
    /// Packets sent.
    pub sent: u64,
    /// Packets that were due but could not be sent.
    pub not_sent: u64,
    /// Packets that did not come back in time.
    pub lost: u64,
    /// Datagrams that this host's sockets dropped; `None` where the system does not tell.
    pub kernel_drops: Option<u64>,
    /// Largest delay of a departure behind its schedule, in nanoseconds.
    pub max_slip_ns: Option<u64>,
    /// Median of the roundtrip delay, in nanoseconds; `None` where nothing came back.
    pub roundtrip_median_ns: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Delay at a part of the found rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadPoint {
    /// Of the found rate: 50, 90 or 100.
    pub percent: u64,
    /// The trial; of two, the second one.
    pub trial: Trial,
    /// Trials at this load that held.
    pub held: u32,
    /// Trials at this load that did not.
    pub failed: u32,
    /// Round-trip delay, in nanoseconds; `None` where nothing came back.
    pub roundtrip_ns: Option<Roundtrip>,
}

/// A remark on how the figures are to be read. It is written as a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Note {
    /// Of the search.
    Search(Search),
    /// Of the last session of slow packets, where none came back, or of the peer.
    Session(note::Note),
    /// Why this host did not keep up.
    Host(Reason),
}

/// What a search has to remark.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Search {
    /// No packet was sent: nobody answers packets of the size before.
    NobodyAnswers,
    /// Nothing came back any more, and the search ended.
    FellSilent {
        /// For how long, in nanoseconds.
        for_ns: u64,
    },
    /// Packets go in fragments.
    Fragments {
        /// The MTU, in octets.
        mtu: usize,
        /// The largest frame, in octets.
        frame_bytes_l2: usize,
    },
    /// Packets left in trains.
    Trains {
        /// Of so many, the longest.
        burst: usize,
    },
    /// A rate below the one that was found did not hold in each trial.
    SlowerFailed(Bound),
    /// A part of the rate did not hold, in two trials.
    LoadFailed {
        /// The part.
        percent: u64,
        /// Packets lost in the second trial.
        lost: u64,
        /// Packets sent.
        sent: u64,
        /// Packets not sent.
        not_sent: u64,
        /// Packets a second sent.
        achieved_pps: Option<f64>,
    },
}

impl From<Search> for Note {
    fn from(note: Search) -> Self {
        Self::Search(note)
    }
}

impl From<note::Note> for Note {
    fn from(note: note::Note) -> Self {
        Self::Session(note)
    }
}

/// Percentiles of a round-trip delay, in nanoseconds, as in [`Delay`](super::Delay).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Roundtrip {
    /// How many delays the figures rest on.
    pub samples: u64,
    /// 50th percentile.
    pub median: i64,
    /// 99th percentile; `None`, as the next, where fewer than ten samples lie beyond it.
    pub p99: Option<i64>,
    /// 99.9th percentile.
    pub p99_9: Option<i64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A result in which everything was found.
    pub(crate) fn full() -> FindRate {
        let trial = Trial {
            offered_pps: 5_000,
            achieved_pps: Some(5_000.1),
            burst: 1,
            sent: 10_000,
            not_sent: 0,
            lost: 0,
            kernel_drops: Some(0),
            max_slip_ns: Some(12_345),
            roundtrip_median_ns: Some(31_000),
            outcome: Outcome::Held,
        };
        let point = |percent| LoadPoint {
            percent,
            trial: trial.clone(),
            held: 1,
            failed: 0,
            roundtrip_ns: Some(Roundtrip {
                samples: 10_000,
                median: 31_000,
                p99: Some(1_050_000),
                p99_9: None,
            }),
        };
        let mut found = FindRate {
            schema: Schema::Version1,
            version: "0.1.0".into(),
            command: vec!["sender".into(), "--find-rate".into()],
            remote: Some("192.0.2.1:862".parse().unwrap()),
            size: "1514".into(),
            frames: vec![Frame {
                payload_bytes: 1472,
                frame_bytes_l2: 1514,
                weight: 1,
            }],
            loss_bound: 0.0,
            max_rate_pps: None,
            trial_ns: 2_000_000_000,
            timeout_ns: 2_000_000_000,
            seed: 7,
            rate_pps: None,
            bps_l1: None,
            bps_l2: None,
            bps_l2_without_fcs: None,
            bps_l3: None,
            lower: Some(Bound {
                rate_pps: 81_274,
                held: 3,
                failed: 0,
            }),
            upper: Some(Bound {
                rate_pps: 82_543,
                held: 0,
                failed: 3,
            }),
            standing: Some(Standing::Stable),
            stable: true,
            limited_by: Some(LimitedBy::Path),
            ceiling: None,
            warm_up: WarmUp {
                runs: 2,
                sent: 20,
                received: 20,
            },
            refused: None,
            interrupted: false,
            loads: vec![point(50), point(90), point(100)],
            trials: vec![trial.clone()],
            notes: vec![Search::Trains { burst: 32 }.into()],
        };
        found.set_rate(Some(81_274));
        found
    }

    fn errors(found: &FindRate) -> Vec<String> {
        let schema = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/find-rate.schema.json"
        ));
        let schema = serde_json::from_str(schema).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let value = serde_json::from_str(&found.to_json_line()).unwrap();
        let errors = validator.iter_errors(&value);
        errors
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect()
    }

    #[test]
    fn a_gigabit_is_81274_frames_of_1518_octets_a_second() {
        let found = full();
        let bps = [found.bps_l1, found.bps_l2, found.bps_l3].map(|bps| bps.unwrap().round());
        // RFC 2544 appendix B: 81,274 frames/s of 1518 octets with FCS fill 1 Gbit/s.
        assert_eq!(bps, [999_995_296.0, 986_991_456.0, 975_288_000.0]);
    }

    #[test]
    fn short_frames_are_filled_up_and_mixes_weighed() {
        let mut found = full();
        let frame = |frame_bytes_l2, weight| Frame {
            payload_bytes: frame_bytes_l2 - 42,
            frame_bytes_l2,
            weight,
        };
        found.frames = vec![frame(56, 1)];
        found.set_rate(Some(1));
        assert_eq!(found.bps_l1, Some(84.0 * 8.0));
        assert_eq!(found.bps_l2, Some(64.0 * 8.0));
        assert_eq!(found.bps_l2_without_fcs, Some(56.0 * 8.0));
        assert_eq!(found.bps_l3, Some(42.0 * 8.0));
        found.frames = vec![frame(100, 3), frame(200, 1)];
        found.set_rate(Some(1));
        assert_eq!(found.bps_l1, Some(149.0 * 8.0));
    }

    #[test]
    fn what_is_written_is_what_the_schema_says() {
        assert_eq!(errors(&full()), Vec::<String>::new());
        let mut found = full();
        found.set_rate(None);
        (found.remote, found.limited_by) = (None, None);
        found.trials[0].achieved_pps = None;
        found.trials[0].kernel_drops = None;
        found.trials[0].roundtrip_median_ns = None;
        found.loads[0].roundtrip_ns = None;
        (found.lower, found.upper, found.standing) = (None, None, None);
        for by in [LimitedBy::Path, LimitedBy::Host, LimitedBy::MaxRate] {
            found.limited_by = Some(by);
            assert_eq!(errors(&found), Vec::<String>::new());
        }
        for standing in [
            Standing::Stable,
            Standing::NotConfirmed,
            Standing::NotStable,
            Standing::NotRepeatable,
        ] {
            found.standing = Some(standing);
            assert_eq!(errors(&found), Vec::<String>::new());
        }
        for kind in [CeilingKind::RateLimit, CeilingKind::Queue] {
            found.ceiling = Some(Ceiling {
                received_pps: 2_000.5,
                trials: 4,
                kind,
            });
            assert_eq!(errors(&found), Vec::<String>::new());
        }
        found.notes = vec![
            Search::NobodyAnswers.into(),
            Search::FellSilent { for_ns: 6 }.into(),
            Search::Fragments {
                mtu: 1500,
                frame_bytes_l2: 9014,
            }
            .into(),
            Search::SlowerFailed(Bound {
                rate_pps: 1,
                held: 1,
                failed: 2,
            })
            .into(),
            Search::LoadFailed {
                percent: 50,
                lost: 1,
                sent: 2,
                not_sent: 3,
                achieved_pps: None,
            }
            .into(),
            note::Note::from(note::Sender::ReflectorInside).into(),
            Note::Host(Reason::GaveUp { threads: 1 }),
        ];
        found.refused = Some(crate::report::icmp::tests::some());
        assert_eq!(errors(&found), Vec::<String>::new());
        for outcome in [
            Outcome::Held,
            Outcome::Path,
            Outcome::Host,
            Outcome::Nothing,
        ] {
            found.trials[0].outcome = outcome;
            assert_eq!(errors(&found), Vec::<String>::new());
        }
    }
}
