//! Remarks on how a report's figures are to be read, as data: `output::notes` has the words.
//!
//! In JSON each is there twice, in the same order: as a sentence in `notes`, and in `notes_detail` as an object
//! with a `code` that stays, and its figures.

#![expect(
    missing_docs,
    reason = "a field is named for what it counts or tells; what its name does not say is documented"
)]

use std::net::{IpAddr, SocketAddr};

use serde::{Serialize, Serializer};

use super::call::FailedCall;
use super::icmp::Icmp;
use super::not_sent::NotSent;
use super::timestamps::{StampKind, TimeFormat};

/// A remark on how the figures are to be read. It is written as a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Note {
    /// What the system refused or does not have, and what follows from that.
    System(System),
    /// How this host sent.
    Sender(Sender),
    /// What became of packets, and what is not known of it.
    Counts(Counts),
    /// What replies have, or have not.
    Replies(Replies),
    /// Who was measured, and what became of the control connection.
    Peer(Peer),
}

/// What the system refused or does not have, and what follows from that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum System {
    /// A socket option was refused.
    OptionRefused {
        option: &'static str,
        error: String,
        without: Without,
    },
    /// The kernel does not stamp arrivals: this program does.
    NoReceiveStamps {
        /// The error in words; `None`: it was asked and does not do it.
        error: Option<String>,
    },
    /// The interface does not stamp packets: the kernel does.
    NoHardwareStamps {
        /// Its name; `None`: nobody named it.
        interface: Option<String>,
        error: Option<String>,
    },
    /// A reflector has no timestamps of the interface: T3 is of the system's clock.
    NoReflectorHardwareStamps,
    /// The portable reflector does not see the headers of requests.
    HeadersUnseen,
    /// The portable reflector answers from the addresses that this host has now.
    AddressesOfNow,
    /// The portable reflector has one socket for all addresses.
    OneSocket { error: String },
    /// Fewer files than are wanted can be open at a time.
    FewFiles {
        room: usize,
        wanted: usize,
        limit: u64,
    },
}

/// What there is not, where a socket option was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Without {
    /// A TTL of our choice.
    Ttl,
    /// Packets without Don't Fragment.
    Fragments,
    /// A buffer of the size that was asked for.
    Buffer,
    /// The TTL of replies.
    TtlOfReplies,
    /// TOS or Traffic Class of replies.
    TosOfReplies,
    /// The TTL of requests, for the replies.
    TtlOfRequests,
    /// TOS or Traffic Class of requests, for the replies.
    TosOfRequests,
    /// The address that a request was sent to.
    Destination,
    /// ICMP errors.
    Icmp,
    /// Receive timestamps of the interface.
    HardwareStamps,
    /// Transmit timestamps of the kernel.
    TransmitStamps,
    /// Busy polling.
    BusyPolling,
    /// Bundles of packets.
    Bundles,
}

/// How this host sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Sender {
    /// The router or host that packets are handed to did not answer (ARP, neighbour discovery).
    NextHopSilent { next_hop: IpAddr },
    /// The reflector is in this process.
    ReflectorInside,
    /// There were several flows.
    Flows { kind: Flow, ports: Vec<u16> },
    /// Nothing came back to some ports, and to others something did.
    SilentPorts { ports: Vec<u16> },
    /// The smallest frames of `imix` are larger over IPv6.
    ImixOverIpv6,
    /// The Session-Reflector's port was closed at first: only the last attempt counts.
    BegunAnew { times: u64 },
    /// Real-time scheduling was refused.
    RealTimeRefused { error: String },
    /// The receive buffer does not hold what may come while the receiver does not run.
    ReceiveBufferSmall {
        /// What it holds, in octets.
        buffer_bytes: u64,
        /// The limit that the administrator can set, in octets; `None`: no buffer can be large enough.
        allow_bytes: Option<u64>,
    },
    /// Packets that were due did not leave.
    NotSent(NotSent),
    /// A call for many packets is refused: each took one of its own.
    CallRefused(FailedCall),
    /// Trains of some sizes are refused: their packets left one by one.
    TrainsRefused { errno: String, error: String },
    /// Packets left with another TTL than 255, of which alone hops outbound can be told.
    OtherTtl { ttl: u8 },
    /// Packets that are told apart at once are fewer than are sent within the timeout.
    WindowSmall { packets: u64 },
}

/// What several flows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Threads, without a control session.
    Thread,
    /// Sessions that a Server granted.
    Session,
}

/// What became of packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Counts {
    /// ICMP messages came.
    Icmp { icmp: Icmp },
    /// Packets were duplicated before the reflector, and others lost: loss by direction is an estimate.
    DuplicatedOutbound { packets: u64 },
    /// Something that happened has no direction.
    NoDirection { what: Undirected, why: Unproved },
    /// The reflector's counter began late: loss by direction is told from there on.
    CounterBegan {
        /// The number on the wire.
        at: u64,
    },
    /// The reflector answered packets that are not of this session.
    OthersAnswered {
        packets: u64,
        /// Whether there is loss by direction, which leaves out what they took of the reflector's count.
        left_out: bool,
    },
    /// Datagrams were not made with the keys of the session.
    Forged { datagrams: u64 },
    /// Replies came from another address than the Session-Reflector's.
    Elsewhere { replies: u64, from: SocketAddr },
    /// The reflector's counter began anew in mid-session.
    CounterBeganAnew { times: u64 },
    /// Large packets were all lost and small ones were not, and nobody said why.
    LostForSize {
        packets: u64,
        /// The smallest frame of those, in octets.
        frame_bytes_l2: usize,
        smaller_packets: u64,
        smaller_received: u64,
        fragments: bool,
    },
}

/// What has no direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undirected {
    /// Loss.
    Loss,
    /// Duplicates and reordering.
    Order,
}

/// Why something has no direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unproved {
    /// The reflector's numbers are no count of its replies.
    NoCount,
    /// The run was interrupted, and packets were still awaited.
    Interrupted,
    /// The reflector copies our sequence numbers.
    Stateless,
    /// No probes were allowed.
    NoProbes,
    /// Not proved, with probes.
    Unknown,
}

/// What replies have, or have not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Replies {
    /// Replies claim a format that T2 and T3 are not in.
    OtherFormatClaimed { replies: u64 },
    /// T2 and T3 are in a mix of formats.
    MixedFormats { format: TimeFormat, read_so: bool },
    /// T2 and T3 changed their format: delays of later replies are left out.
    FormatChanged { replies: u64, received: u64 },
    /// The format of T2 and T3 was assumed, and denied later.
    FormatDenied { replies: u64 },
    /// T1 and T3 were in each other's place.
    Exchanged { replies: u64 },
    /// They are larger than they should be for their requests.
    Oversize {
        /// Octets by octets due.
        size_ratio: f64,
        /// The one size of all replies, in octets; `None` where there are several.
        reply_bytes: Option<usize>,
    },
    /// They came with another DSCP than packets left with.
    OtherDscp {
        replies: u64,
        /// Replies in all whose DSCP is known.
        of_replies: u64,
        sent: u8,
        /// The DSCP that came most often.
        received: u8,
        changed_by: DscpChanged,
    },
    /// Their Error Estimates are not to be used.
    EstimatesUnusable { replies: u64 },
    /// T2 or T3 is 0.
    NoTime { replies: u64 },
    /// A clock was set too often: one-way delays are not known.
    ClockSetTooOften,
    /// Their timestamps contradict each other, or a clock was set on their way.
    Contradictory { replies: u64, received: u64 },
    /// They have no receive timestamp.
    Unstamped {
        replies: u64,
        received: u64,
        stamps: StampKind,
    },
    /// They are too short for a TTL field.
    NoTtlField { replies: u64 },
    /// T2 and T3 are the same in each: the reflector's own time is in the delays.
    NoOwnTime,
    /// Packets of a train or bundle share their timestamps.
    SharedStamps,
    /// The system cut what it tells of them.
    Cut { replies: u64 },
    /// There are more sizes of them than are listed.
    MoreSizes,
}

/// Who changed the DSCP, as far as replies tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DscpChanged {
    /// The way to the reflector.
    Outbound,
    /// The Session-Reflector or the way back.
    ReflectorOrInbound,
    /// The Session-Reflector, or the path in either direction.
    ReflectorOrPath,
}

/// Who was measured, and what became of the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Peer {
    /// Nothing was measured here: the sender runs elsewhere.
    SenderElsewhere,
    /// A name has several addresses, and the first ones were passed over.
    AddressChosen {
        measured: IpAddr,
        passed: Vec<Passed>,
    },
    /// The control connection ended in mid-session.
    ControlEnded { after_ns: u64, why: String },
    /// The Server could not be told that the sessions have stopped.
    StopNotTold { why: String },
}

/// An address of a name that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// The address.
    pub address: IpAddr,
    /// Why, in words.
    pub why: String,
}

impl From<System> for Note {
    fn from(note: System) -> Self {
        Self::System(note)
    }
}

impl From<Sender> for Note {
    fn from(note: Sender) -> Self {
        Self::Sender(note)
    }
}

impl From<Counts> for Note {
    fn from(note: Counts) -> Self {
        Self::Counts(note)
    }
}

impl From<Replies> for Note {
    fn from(note: Replies) -> Self {
        Self::Replies(note)
    }
}

impl From<Peer> for Note {
    fn from(note: Peer) -> Self {
        Self::Peer(note)
    }
}

/// Writes notes as sentences, and again with their codes and figures.
pub(super) fn twice<N, S>(notes: &[N], serializer: S) -> Result<S::Ok, S::Error>
where
    N: Serialize + ToString,
    S: Serializer,
{
    #[derive(Serialize)]
    struct Twice<'a, N> {
        notes: Vec<String>,
        notes_detail: &'a [N],
    }

    Twice {
        notes: notes.iter().map(N::to_string).collect(),
        notes_detail: notes,
    }
    .serialize(serializer)
}

#[cfg(test)]
pub(in crate::report) mod tests {
    use super::*;
    use crate::report::icmp;
    use crate::report::not_sent::Cause;

    /// One of each code.
    pub(in crate::report) fn each() -> Vec<Note> {
        let address: IpAddr = [192, 0, 2, 9].into();
        let (errno, error) = ("EINVAL".to_owned(), "Invalid argument".to_owned());
        let (n, why) = (7, "broken pipe".to_owned());
        let mut notes: Vec<Note> = system().into_iter().map(Note::from).collect();
        let more: [Note; 22] = [
            Sender::NextHopSilent { next_hop: address }.into(),
            Sender::ReflectorInside.into(),
            Sender::Flows {
                kind: Flow::Thread,
                ports: vec![1, 2],
            }
            .into(),
            Sender::SilentPorts { ports: vec![2] }.into(),
            Sender::ImixOverIpv6.into(),
            Sender::BegunAnew { times: 1 }.into(),
            Sender::RealTimeRefused {
                error: error.clone(),
            }
            .into(),
            Sender::ReceiveBufferSmall {
                buffer_bytes: n,
                allow_bytes: None,
            }
            .into(),
            Sender::NotSent(NotSent {
                cause: Cause::Refused,
                count: n,
                error: Some(error.clone()),
            })
            .into(),
            Sender::CallRefused(FailedCall::new("sendmmsg", 1)).into(),
            Sender::TrainsRefused { errno, error }.into(),
            Sender::OtherTtl { ttl: 64 }.into(),
            Sender::WindowSmall { packets: n }.into(),
            Counts::Icmp {
                icmp: icmp::tests::some(),
            }
            .into(),
            Counts::DuplicatedOutbound { packets: n }.into(),
            Counts::NoDirection {
                what: Undirected::Loss,
                why: Unproved::Stateless,
            }
            .into(),
            Counts::CounterBegan { at: n }.into(),
            Counts::OthersAnswered {
                packets: n,
                left_out: true,
            }
            .into(),
            Counts::Forged { datagrams: n }.into(),
            Counts::Elsewhere {
                replies: n,
                from: (address, 862).into(),
            }
            .into(),
            Counts::CounterBeganAnew { times: n }.into(),
            Counts::LostForSize {
                packets: n,
                frame_bytes_l2: 1514,
                smaller_packets: 9,
                smaller_received: 9,
                fragments: false,
            }
            .into(),
        ];
        notes.extend(more);
        notes.extend(replies().into_iter().map(Note::from));
        let passed = vec![Passed {
            address,
            why: why.clone(),
        }];
        notes.extend([
            Note::from(Peer::SenderElsewhere),
            Peer::AddressChosen {
                measured: address,
                passed,
            }
            .into(),
            Peer::ControlEnded {
                after_ns: n,
                why: why.clone(),
            }
            .into(),
            Peer::StopNotTold { why }.into(),
        ]);
        notes
    }

    fn system() -> [System; 8] {
        let (error, interface) = ("Operation not permitted".to_owned(), "eth0".to_owned());
        [
            System::OptionRefused {
                option: "IP_TTL",
                error: error.clone(),
                without: Without::Ttl,
            },
            System::NoReceiveStamps { error: None },
            System::NoHardwareStamps {
                interface: Some(interface),
                error: Some(error.clone()),
            },
            System::NoReflectorHardwareStamps,
            System::HeadersUnseen,
            System::AddressesOfNow,
            System::OneSocket { error },
            System::FewFiles {
                room: 1,
                wanted: 2,
                limit: 1024,
            },
        ]
    }

    fn replies() -> Vec<Replies> {
        let (replies, received) = (7, 9);
        vec![
            Replies::OtherFormatClaimed { replies },
            Replies::MixedFormats {
                format: TimeFormat::UnixFraction,
                read_so: true,
            },
            Replies::FormatChanged { replies, received },
            Replies::FormatDenied { replies },
            Replies::Exchanged { replies },
            Replies::Oversize {
                size_ratio: 2.5,
                reply_bytes: Some(1472),
            },
            Replies::OtherDscp {
                replies,
                of_replies: received,
                sent: 46,
                received: 0,
                changed_by: DscpChanged::Outbound,
            },
            Replies::EstimatesUnusable { replies },
            Replies::NoTime { replies },
            Replies::ClockSetTooOften,
            Replies::Contradictory { replies, received },
            Replies::Unstamped {
                replies,
                received,
                stamps: StampKind::Kernel,
            },
            Replies::NoTtlField { replies },
            Replies::NoOwnTime,
            Replies::SharedStamps,
            Replies::Cut { replies },
            Replies::MoreSizes,
        ]
    }
}
