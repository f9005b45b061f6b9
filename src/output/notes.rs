//! The words of notes: a sentence each, the same in every output.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::figures::class;
use crate::report::note::{
    Counts, DscpChanged, Flow, Note, Passed, Peer, Replies, Sender, System, Undirected, Unproved,
    Without,
};
use crate::report::{StampKind, TimeFormat};

/// Most ports that are listed one by one.
const LISTED: usize = 64;

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(note) => note.fmt(f),
            Self::Sender(note) => note.fmt(f),
            Self::Counts(note) => note.fmt(f),
            Self::Replies(note) => note.fmt(f),
            Self::Peer(note) => note.fmt(f),
        }
    }
}

impl Display for System {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OptionRefused {
                option,
                error,
                without,
            } => write!(f, "this system refuses {option} ({error}): {without}"),
            Self::NoReceiveStamps { error } => {
                f.write_str("no receive timestamps of the kernel (")?;
                match error {
                    None => f.write_str("it was asked for them (SO_TIMESTAMPING) and gives none")?,
                    Some(error) => write!(f, "SO_TIMESTAMPING: {error}")?,
                }
                f.write_str("): they are read by this program, after the call that receives")
            }
            Self::NoHardwareStamps { interface, error } => {
                f.write_str("no hardware timestamps")?;
                match interface {
                    None => f.write_str(": name the interface with --interface")?,
                    Some(interface) => write!(f, " on {interface}")?,
                }
                error.iter().try_for_each(|error| write!(f, ": {error}"))?;
                f.write_str("; timestamps of the kernel are used")
            }
            Self::NoReflectorHardwareStamps => f.write_str(
                "no hardware timestamps of a reflector: T3 is of the system's clock, and T2 must be of the \
                 same",
            ),
            Self::HeadersUnseen => f.write_str(
                "--io portable does not see TTL and DSCP of requests: replies tell no TTL (255) and have a \
                 DSCP of their own",
            ),
            Self::AddressesOfNow => f.write_str(
                "--io portable answers from the address that was asked where this host has it now; to listen \
                 on one that it gets later, name it",
            ),
            Self::OneSocket { error } => write!(
                f,
                "no socket for each address of this host ({error}): replies leave from the one that routes \
                 choose, which need not be the one asked; name one to listen on"
            ),
            Self::FewFiles {
                room,
                wanted,
                limit,
            } => write!(
                f,
                "room for {room} control connections, not {wanted}: this process may have {limit} files \
                 open; raise that with ulimit -n, or LimitNOFILE= of systemd"
            ),
        }
    }
}

impl Display for Without {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttl => {
                "packets leave with the system's TTL, and hops on their way are not known"
            }
            Self::Fragments => "packets may leave with Don't Fragment, as this system has it",
            Self::Buffer => {
                "the buffer has the system's own size, and more may be dropped where packets come in bursts"
            }
            Self::TtlOfReplies => "the TTL of replies, and so hops inbound, are not known",
            Self::TosOfReplies => "the DSCP and ECN of replies are not known",
            Self::TtlOfRequests => "replies tell no TTL (255)",
            Self::TosOfRequests => "replies do not have the DSCP of their requests",
            Self::Destination => {
                "replies leave from the address that routes choose, which need not be the one asked, \
                 and requests to a broadcast or multicast address are answered like all others; name \
                 an address to listen on"
            }
            Self::Icmp => {
                "ICMP errors are not counted, and what this host's own queue drops counts as lost"
            }
            Self::HardwareStamps => "there are no receive timestamps of the interface",
            Self::TransmitStamps => "there are no transmit timestamps of the kernel",
            Self::BusyPolling => {
                "there is no busy polling, which takes CAP_NET_ADMIN and Linux 5.11"
            }
            Self::Bundles => "packets are taken one by one",
        })
    }
}

impl Display for Sender {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NextHopSilent { next_hop } => write!(
                f,
                "the next hop {next_hop} did not answer (ARP, neighbour discovery): until it does, this \
                 host keeps few packets for it and drops the others"
            ),
            Self::ReflectorInside => {
                f.write_str("the reflector runs in this process, over loopback")
            }
            Self::Flows { kind, ports } => flows(f, *kind, ports),
            Self::SilentPorts { ports } => {
                write!(f, "nothing came back to the ports {}", list(ports))
            }
            Self::ImixOverIpv6 => f.write_str(
                "the smallest frames are of 76 bytes: over IPv6 a test packet fits no frame of 64",
            ),
            Self::BegunAnew { times: n } => write!(
                f,
                "the Session-Reflector's port was closed at first (ICMP port unreachable): the session \
                 was begun anew {}, and packets before that are not counted",
                times(*n)
            ),
            Self::RealTimeRefused { error } => write!(f, "no real-time scheduling: {error}"),
            Self::ReceiveBufferSmall {
                buffer_bytes,
                allow_bytes,
            } => {
                write!(
                    f,
                    "the receive buffer of {buffer_bytes} bytes is small for this rate"
                )?;
                match allow_bytes {
                    None => f.write_str(", and none can be large enough"),
                    Some(bytes) => {
                        write!(f, "; allow more with: sysctl -w net.core.rmem_max={bytes}")
                    }
                }
            }
            Self::NotSent(not_sent) => not_sent.fmt(f),
            Self::CallRefused(call) => write!(
                f,
                "this system refuses calls for many packets ({call}): each packet took a call of its own, \
                 with the same timestamps"
            ),
            Self::TrainsRefused { error, .. } => write!(
                f,
                "this system refuses trains of some or all of these sizes ({error}): their packets left \
                 one by one"
            ),
            Self::OtherTtl { ttl } => write!(
                f,
                "packets left with TTL {ttl}: hops outbound can be told of 255 alone"
            ),
            Self::WindowSmall { packets } => write!(
                f,
                "at this rate {packets} packets are told apart: a reply that is further behind counts as \
                 late"
            ),
        }
    }
}

fn flows(f: &mut Formatter<'_>, kind: Flow, ports: &[u16]) -> fmt::Result {
    let (flows, flow) = match kind {
        Flow::Thread => ("threads", "thread"),
        Flow::Session => ("sessions", "session"),
    };
    write!(
        f,
        "{} {flows} sent from the ports {}; IPDV and loss periods are those within each flow, and jitter \
         is told of each {flow} alone",
        ports.len(),
        list(ports)
    )
}

impl Display for Counts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Icmp { icmp } => write!(f, "ICMP {icmp}"),
            Self::DuplicatedOutbound { packets } => write!(
                f,
                "{packets} packets were duplicated before the reflector: where copies were lost too, loss \
                 by direction is an estimate"
            ),
            Self::NoDirection { what, why } => no_direction(f, *what, *why),
            Self::CounterBegan { at } => write!(
                f,
                "the reflector's counter began at {at}: loss by direction is told from there on"
            ),
            Self::OthersAnswered { packets, left_out } => {
                let left_out = match left_out {
                    true => ", and loss by direction leaves out what they took of its count",
                    false => "",
                };
                write!(
                    f,
                    "the reflector answered {packets} packets that are not of this session but came from \
                     its address and port (sent by somebody else there, or forged): their replies are \
                     among the invalid ones{left_out}"
                )
            }
            Self::Forged { datagrams } => write!(
                f,
                "{datagrams} datagrams were not made with the keys of the session, or were changed on the \
                 way: they are among the invalid ones"
            ),
            Self::Elsewhere { replies, from } => write!(
                f,
                "{replies} replies came from {from}, not from the Session-Reflector's address: they are \
                 among the invalid ones, and answer no packet"
            ),
            Self::CounterBeganAnew { times: n } => {
                write!(f, "the reflector's counter began anew {}", times(*n))
            }
            Self::LostForSize {
                packets,
                frame_bytes_l2,
                smaller_packets,
                smaller_received,
                fragments,
            } => {
                let fragments = match fragments {
                    true => ", or a firewall that takes no fragments,",
                    false => "",
                };
                write!(
                    f,
                    "none of {packets} packets of {frame_bytes_l2} bytes or more came back, of smaller ones \
                     {smaller_received} of {smaller_packets}: a hop that takes no packets of this \
                     size{fragments} may drop them without a word (ICMP may be filtered)"
                )
            }
        }
    }
}

fn no_direction(f: &mut Formatter<'_>, what: Undirected, why: Unproved) -> fmt::Result {
    f.write_str(match why {
        Unproved::NoCount => "the reflector's numbers are no count of its replies to this session",
        Unproved::Interrupted => {
            "packets that were still awaited when interrupted may be lost on either way"
        }
        Unproved::Stateless => "the reflector copies our sequence numbers (stateless)",
        Unproved::NoProbes => {
            "without probes (--no-probe) nothing proved that the reflector counts its replies"
        }
        Unproved::Unknown => "whether the reflector counts its replies could not be proved",
    })?;
    f.write_str(match what {
        Undirected::Loss => ": loss by direction is not told",
        Undirected::Order => ": duplicates and reordering by direction are not told",
    })
}

impl Display for Replies {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherFormatClaimed { replies } => write!(
                f,
                "{replies} replies claim a timestamp format that T2 and T3 are not in (they repeat our Z \
                 bit): these were read in the other one"
            ),
            Self::MixedFormats { format, read_so } => mixed_formats(f, *format, *read_so),
            Self::FormatChanged { replies, received } => write!(
                f,
                "{replies} of {received} replies have T2 and T3 in another format than the first ones: their \
                 delays are left out"
            ),
            Self::FormatDenied { replies } => write!(
                f,
                "the first replies left open whether T2 and T3 have a fraction of 2^32 or nanoseconds, and \
                 later ones denied what was taken: the delays of {replies} replies are not known"
            ),
            Self::Exchanged { replies } => write!(
                f,
                "{replies} replies had T1 and T3 in each other's place: they were read so"
            ),
            Self::Oversize {
                size_ratio,
                reply_bytes,
            } => oversize(f, *size_ratio, *reply_bytes),
            Self::OtherDscp {
                replies,
                of_replies,
                sent,
                received,
                changed_by,
            } => {
                write!(f, "{replies} of {of_replies} replies came with ")?;
                other_dscp(f, *sent, *received, *changed_by)
            }
            Self::EstimatesUnusable { replies } => write!(
                f,
                "{replies} replies have an Error Estimate with Multiplier 0, which RFC 4656 forbids: the \
                 Session-Reflector does not say how good its clock is, or whether it is synchronised"
            ),
            Self::NoTime { replies } => write!(
                f,
                "{replies} replies tell no time at the reflector (T2 or T3 is 0): their delays are not known"
            ),
            Self::ClockSetTooOften => f.write_str(
                "a clock was set too often to tell a stretch between: one-way delays are not known",
            ),
            Self::Contradictory { replies, received } => write!(
                f,
                "{replies} of {received} replies have timestamps that contradict each other (T3 before T2, a \
                 reply before its request) or were under way when a clock was set: their delays are left out"
            ),
            Self::Unstamped {
                replies,
                received,
                stamps,
            } => unstamped(f, *replies, *received, *stamps),
            Self::NoTtlField { replies } => write!(
                f,
                "{replies} replies carried no TTL field (fewer than 41 octets)"
            ),
            Self::NoOwnTime => f.write_str(
                "T2 and T3 are the same in every reply: the reflector does not tell its own time, which is \
                 in the inbound and the roundtrip delay",
            ),
            Self::SharedStamps => f.write_str(
                "packets of a train or bundle share their timestamps: between them IPDV and jitter find no \
                 variation, whatever there was",
            ),
            Self::Cut { replies } => write!(
                f,
                "the system cut control messages off {replies} replies: some timestamps or TTLs are missing"
            ),
            Self::MoreSizes => f.write_str("there were more sizes of replies than are listed"),
        }
    }
}

fn mixed_formats(f: &mut Formatter<'_>, format: TimeFormat, read_so: bool) -> fmt::Result {
    f.write_str("the Session-Reflector writes T2 and T3 in a mix of formats")?;
    f.write_str(match format {
        TimeFormat::Ntp | TimeFormat::Ptp => "",
        TimeFormat::UnixFraction => ", seconds since 1970 where NTP counts from 1900",
        TimeFormat::NtpNanoseconds => ", nanoseconds where NTP has a fraction of 2^32",
    })?;
    f.write_str(if read_so { ": they were read so" } else { "" })
}

fn oversize(f: &mut Formatter<'_>, ratio: f64, reply_bytes: Option<usize>) -> fmt::Result {
    write!(
        f,
        "replies are {ratio:.1} times as large as they should be for their requests (RFC 5357 §4.2.1)"
    )?;
    if let Some(bytes) = reply_bytes {
        write!(f, ", all of {bytes} octets")?;
    }
    f.write_str(": the way back carries that much more load")
}

fn other_dscp(f: &mut Formatter<'_>, sent: u8, received: u8, by: DscpChanged) -> fmt::Result {
    if received == sent {
        f.write_str("another DSCP")?;
    } else {
        write!(f, "DSCP {}", class(received))?;
    }
    let who = match by {
        DscpChanged::Outbound => "the way there changed it",
        DscpChanged::ReflectorOrInbound => "the Session-Reflector or the way back changed it",
        DscpChanged::ReflectorOrPath => "the Session-Reflector or the path changed it",
    };
    write!(f, " where packets left with {}: {who}", class(sent))
}

fn unstamped(f: &mut Formatter<'_>, replies: u64, received: u64, stamps: StampKind) -> fmt::Result {
    let (of, remedy) = match stamps {
        StampKind::Hardware => ("of the interface", ": measure without --hw-timestamps"),
        StampKind::Kernel | StampKind::Userspace => ("of the kernel", ""),
    };
    write!(
        f,
        "{replies} of {received} replies came without the receive timestamp {of} that was asked for: their \
         delays are not known{remedy}"
    )
}

impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::SenderElsewhere => {
                f.write_str("The sender runs elsewhere: nothing was measured here.")
            }
            Self::AddressChosen { measured, passed } => {
                write!(
                    f,
                    "of the addresses of this name {measured} is measured, not "
                )?;
                let passed: Vec<String> = passed.iter().map(ToString::to_string).collect();
                f.write_str(&passed.join(", "))
            }
            Self::ControlEnded { after_ns, why } => write!(
                f,
                "the control connection ended {} s after the start ({why}): the server may have stopped \
                 answering then",
                seconds(*after_ns)
            ),
            Self::StopNotTold { why } => write!(
                f,
                "the server may not know that the sessions have stopped: {why}"
            ),
        }
    }
}

impl Display for Passed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.why)
    }
}

/// The first ports, and how many more there are.
fn list(ports: &[u16]) -> String {
    let (shown, rest) = ports.split_at(ports.len().min(LISTED));
    let ports: Vec<String> = shown.iter().map(ToString::to_string).collect();
    let more = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    ports.join(", ") + &more
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// Seconds with a decimal.
fn seconds(ns: u64) -> String {
    format!("{:.1}", Duration::from_nanos(ns).as_secs_f64())
}
