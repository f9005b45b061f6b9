//! What will happen: every default resolved, every name looked up, nothing left to check.

use std::net::SocketAddr;

use super::address::Prefix;
use super::command_line::CommandLine;
use super::error::ValueError;
use super::impair::Impairment;
use super::quantity::Fraction;
use super::rate::{Bandwidth, Rate};
use super::values::{CpuList, Dscp, Family, SizeMix, frame_of_payload};
use crate::wire::{Format, REFLECTOR_LEN};

/// A Session-Sender's session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// Where the Session-Reflector listens.
    pub remote: SocketAddr,
    /// Address and port to send from; port 0 takes any free one.
    pub local: SocketAddr,
    /// When packets leave.
    pub departures: Departures,
    /// When the session ends: whichever comes first.
    pub end: End,
    /// Sizes and their mix.
    pub sizes: Sizes,
    /// Seed of the random gaps, of the order of sizes and of the padding.
    pub seed: u64,
    /// How long a reply may take, in nanoseconds; one that takes longer is late, and its packet
    /// counts as lost.
    pub timeout_ns: u64,
    /// Share of packets that may be lost, where all that matters is whether more are: then the session
    /// does not wait until the timeout for replies of which nobody believes that they will come, such as
    /// those of a host where nobody listens at the port.
    /// `None`: it waits.
    pub loss_bound: Option<Fraction>,
    /// Where the direction of what was lost is not known otherwise, ask for the reflector's counter by
    /// the last sequence number once more.
    pub probes: bool,
    /// Format of T1.
    pub format: Format,
    /// How the packets look and leave.
    pub socket: SocketOptions,
    /// How the sender waits for a departure.
    pub pacing: Pacing,
    /// Ask for SCHED_FIFO for the packet threads.
    pub realtime: bool,
    /// CPUs for sender and receiver of each pair, then the reflector, in this order; `None`: a sensible choice.
    pub cpus: Option<CpuList>,
    /// Pairs of a sending and a receiving thread that share the load, each with sockets, a source port
    /// and cycles of sizes of its own.
    pub threads: usize,
    /// Packets that leave as one train.
    pub burst: Burst,
    /// Sequence number of the first packet: 0 (RFC 4656 §4.1.2), or another one to see it wrap.
    pub first_seq: u32,
    /// Fill Packet Padding with zeros, in place of pseudo-random octets (RFC 4656 §4.1.2).
    pub zero_padding: bool,
    /// For so many nanoseconds after the first packet left, an ICMP port unreachable says that the
    /// Session-Reflector is not there yet: as long as nothing was answered, the session begins anew.
    /// `None`: it counts from the first packet on.
    pub grace_ns: Option<u64>,
    /// What is told while the session runs.
    pub watch: WatchConfig,
}

/// How many packets leave as one segmentation train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burst {
    /// One, or as many as it takes to keep the rate.
    Auto,
    /// So many, 1 to 64; 1: each on its own, with timestamps of its own.
    Fixed(u32),
}

/// What is told while a session runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchConfig {
    /// Replies, gaps, timeouts and so on, as they happen.
    pub happenings: bool,
    /// Figures of every so many nanoseconds.
    pub interval_ns: Option<u64>,
    /// The packets themselves.
    pub packets: bool,
}

impl WatchConfig {
    /// Whether anything is told beside progress.
    #[must_use]
    pub fn any(self) -> bool {
        self.happenings || self.interval_ns.is_some()
    }
}

impl SessionConfig {
    /// A hundred small packets, ten a second, from `local` (port 0: any free one) to `remote`, with all else as
    /// the program has it without flags.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            remote,
            local,
            departures: Departures::Periodic(Rate::TEN_A_SECOND),
            end: End {
                count: Some(100),
                duration_ns: None,
            },
            sizes: Sizes::one(REFLECTOR_LEN, Family::of(remote.ip())),
            seed: 1,
            timeout_ns: 5_000_000_000,
            loss_bound: None,
            probes: true,
            format: Format::Ntp,
            socket: SocketOptions::default(),
            pacing: Pacing::Auto,
            realtime: false,
            cpus: None,
            threads: 1,
            burst: Burst::Auto,
            first_seq: 0,
            zero_padding: false,
            grace_ns: None,
            watch: WatchConfig::default(),
        }
    }

    /// The sessions of the threads: together they send what this one would.
    ///
    /// There are fewer than [`threads`](Self::threads) where there are fewer packets. Where a source
    /// port is given, the threads have it and the ones that follow.
    #[must_use]
    pub fn shares(&self) -> Vec<Self> {
        let count = match (self.departures, self.end.duration_ns) {
            // So that the packets are those of one sender, however many share them.
            (Departures::Periodic(rate), Some(ns)) => {
                let within = rate.count_in(ns);
                Some(self.end.count.map_or(within, |count| count.min(within)))
            }
            _ => self.end.count,
        };
        let most = count.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let threads = self.threads.clamp(1, most.max(1));
        if threads == 1 {
            return vec![Self {
                threads: 1,
                ..self.clone()
            }];
        }
        let share = |index: u16| {
            let mut local = self.local;
            if local.port() > 0 {
                local.set_port(local.port().saturating_add(index));
            }
            let rate = self.departures.rate().map(|rate| rate.shared_by(threads));
            let (index, threads) = (u64::from(index), threads as u64);
            Self {
                local,
                departures: rate.map_or(self.departures, |rate| self.departures.at(rate)),
                end: End {
                    count: count.map(|count| (count - index).div_ceil(threads)),
                    ..self.end
                },
                seed: self.seed.wrapping_add(index),
                threads: 1,
                ..self.clone()
            }
        };
        (0..).take(threads).map(share).collect()
    }

    /// Every parameter as it is in force: a command line that asks for the same.
    #[must_use]
    pub fn command(&self) -> CommandLine {
        let mut line = CommandLine::new("sender", [self.remote, self.local]);
        self.load_flags(&mut line);
        line.set_if("stats-interval", self.watch.interval_ns.map(nanoseconds));
        line.set("packet-timeout", nanoseconds(self.timeout_ns));
        line.switch("no-probe", !self.probes);
        line.set("tos", self.socket.tos);
        line.set("ttl", self.socket.ttl);
        line.switch("do-not-fragment", self.socket.do_not_fragment);
        line.set_if("interface", self.socket.interface.as_ref());
        self.host_flags(&mut line);
        line
    }

    fn load_flags(&self, line: &mut CommandLine) {
        line.set_if("rate", self.departures.rate());
        let schedule = match self.departures {
            Departures::Periodic(_) => "periodic",
            Departures::Poisson(_) => "poisson",
            Departures::Uniform { .. } => "uniform",
            Departures::Flood => "flood",
        };
        line.set("schedule", schedule);
        if let Departures::Uniform { spread, .. } = self.departures {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 1, of whole millionths"
            )]
            let ppm = (spread * 1e6).round() as u32;
            line.set_if("spread", Fraction::from_ppm(ppm));
        }
        line.set_if("count", self.end.count);
        line.set_if("duration", self.end.duration_ns.map(nanoseconds));
        line.set("seed", self.seed);
        match &self.sizes.profile {
            SizeProfile::Imix => line.switch("imix", true),
            SizeProfile::Custom(mix) => line.set("size-mix", mix),
            SizeProfile::Fixed => {
                let payload = self.sizes.classes.first().map_or(0, |class| class.payload);
                line.set("payload-size", payload);
            }
        }
        line.switch("zero-padding", self.zero_padding);
        match self.burst {
            Burst::Auto => line.set("burst", "auto"),
            Burst::Fixed(packets) => line.set("burst", packets),
        }
        line.set_if("threads", Some(self.threads).filter(|n| *n > 1));
        line.set_if("first-seq", Some(self.first_seq).filter(|seq| *seq > 0));
    }

    fn host_flags(&self, line: &mut CommandLine) {
        let pacing = match self.pacing {
            Pacing::Auto => "auto",
            Pacing::Spin => "spin",
            Pacing::Sleep => "sleep",
        };
        line.set("pacing", pacing);
        line.set_if("cpu", self.cpus.as_ref());
        let io = match self.socket.io {
            IoKind::Batched => "batched",
            IoKind::Portable => "portable",
        };
        line.set("io", io);
        line.set_if(
            "busy-poll",
            self.socket.busy_poll_us.map(|us| format!("{us}us")),
        );
        line.switch("hw-timestamps", self.socket.hardware);
        let format = match self.format {
            Format::Ntp => "ntp",
            Format::Ptp => "ptp",
        };
        line.set("timestamp-format", format);
        line.switch("realtime", self.realtime);
    }
}

fn nanoseconds(ns: u64) -> String {
    format!("{ns}ns")
}

/// Options of a socket that sender and reflector have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// TOS or Traffic Class octet.
    pub tos: u8,
    /// TTL or Hop Limit.
    pub ttl: u8,
    /// Never fragment, here or on the way.
    pub do_not_fragment: bool,
    /// Interface to bind to.
    pub interface: Option<String>,
    /// Ask for timestamps of the interface's own clock.
    pub hardware: bool,
    /// Let the kernel look for packets at the interface itself for so many microseconds before it
    /// waits for an interrupt (`SO_BUSY_POLL`).
    pub busy_poll_us: Option<u32>,
    /// Which calls move the packets.
    pub io: IoKind,
}

impl Default for SocketOptions {
    /// As many hops as there may be, and nothing that asks for rights or for certain hardware.
    fn default() -> Self {
        Self {
            tos: 0,
            ttl: 255,
            do_not_fragment: false,
            interface: None,
            hardware: false,
            busy_poll_us: None,
            io: IoKind::Batched,
        }
    }
}

/// Which calls move the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// Batches, kernel timestamps and control messages, where this system has them.
    Batched,
    /// One datagram a call and timestamps of user space, as every system has them.
    Portable,
}

/// When packets leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Departures {
    /// Equal gaps (RFC 3432).
    Periodic(Rate),
    /// Exponentially distributed gaps (RFC 2330 §11.1.1).
    Poisson(Rate),
    /// Gaps drawn evenly from the mean plus or minus this fraction of it.
    Uniform {
        /// Mean rate.
        rate: Rate,
        /// From 0 to 1.
        spread: f64,
    },
    /// As fast as the host can.
    Flood,
}

impl Departures {
    /// The mean rate; `None` for a flood.
    #[must_use]
    pub fn rate(self) -> Option<Rate> {
        match self {
            Self::Periodic(rate) | Self::Poisson(rate) | Self::Uniform { rate, .. } => Some(rate),
            Self::Flood => None,
        }
    }

    /// The same law at another rate; a flood has none, and stays one.
    #[must_use]
    pub fn at(self, rate: Rate) -> Self {
        match self {
            Self::Periodic(_) => Self::Periodic(rate),
            Self::Poisson(_) => Self::Poisson(rate),
            Self::Uniform { spread, .. } => Self::Uniform { rate, spread },
            Self::Flood => Self::Flood,
        }
    }
}

/// When a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// After so many packets.
    pub count: Option<u64>,
    /// With the last packet due before so many nanoseconds.
    pub duration_ns: Option<u64>,
}

/// The packet sizes of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// What the user asked for.
    pub profile: SizeProfile,
    /// UDP payload in octets and weight of each size; 1 to 16 entries.
    pub classes: Vec<SizeClass>,
}

impl Sizes {
    /// Packets of one size: so many octets of UDP payload.
    #[must_use]
    pub fn one(payload: usize, family: Family) -> Self {
        Self {
            profile: SizeProfile::Fixed,
            classes: vec![SizeClass {
                payload,
                frame: frame_of_payload(payload, family),
                weight: 1,
            }],
        }
    }

    /// The rate of packets of these sizes that together make up so many bits a second of Ethernet
    /// frames without FCS.
    ///
    /// # Errors
    /// Where there is no such rate.
    pub fn rate_of(&self, bandwidth: Bandwidth) -> Result<Rate, ValueError> {
        let (octets, packets) = self.cycle();
        Rate::of_bandwidth(bandwidth, octets, packets)
    }

    /// Octets of Ethernet frames without FCS, and packets, in a cycle of the sizes.
    #[must_use]
    pub fn cycle(&self) -> (u64, u64) {
        let of = |class: &SizeClass| {
            let weight = u64::from(class.weight);
            (u64::try_from(class.frame).unwrap_or(0) * weight, weight)
        };
        let sum = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
        self.classes.iter().map(of).fold((0, 0), sum)
    }
}

/// A size and how often it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass {
    /// UDP payload in octets, 14 to 65,507.
    pub payload: usize,
    /// Ethernet frame in octets, without FCS.
    pub frame: usize,
    /// How often in a cycle.
    pub weight: u32,
}

/// Kinds of size mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeProfile {
    /// One size.
    Fixed,
    /// 7:4:1 of 64, 590 and 1514 octets of Ethernet frame without FCS.
    Imix,
    /// A mix of the user's.
    Custom(SizeMix),
}

/// How a sender waits for a departure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacing {
    /// Sleep, and spin for the last moment; spin throughout where packets are close together.
    Auto,
    /// Spin throughout: precise, and takes a whole CPU.
    Spin,
    /// Sleep only: cheap, and late by what the system takes to wake up.
    Sleep,
}

/// A Session-Reflector.
#[derive(Clone, Debug, PartialEq)]
pub struct ReflectorConfig {
    /// Addresses and ports to listen on.
    pub listen: Vec<SocketAddr>,
    /// Who is answered; empty: everyone.
    pub allow: Vec<Prefix>,
    /// Copy the sender's sequence number instead of counting replies.
    pub stateless: bool,
    /// A session silent for so long is forgotten, in nanoseconds; 0: never.
    pub session_timeout_ns: u64,
    /// DSCP of the replies; `None`: that of the request.
    pub dscp: Option<Dscp>,
    /// Format of T2 and T3.
    pub format: Format,
    /// How the replies look and leave; its TOS is not used.
    pub socket: SocketOptions,
    /// Threads.
    pub threads: usize,
    /// CPUs for the threads, in this order; `None`: a sensible choice.
    pub cpus: Option<CpuList>,
    /// Test mode: what is done to packets on purpose.
    pub impairment: Option<Impairment>,
    /// Tell of sessions that begin and end.
    pub watch: bool,
}

impl ReflectorConfig {
    /// One thread that listens here and answers everyone, as the program does without flags.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen: vec![listen],
            allow: Vec::new(),
            stateless: false,
            session_timeout_ns: 900_000_000_000,
            dscp: None,
            format: Format::Ntp,
            socket: SocketOptions::default(),
            threads: 1,
            cpus: None,
            impairment: None,
            watch: false,
        }
    }
}

/// What the Session-Reflectors of a Server have in common; sessions come while they run.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedConfig {
    /// How the replies look and leave; its TOS is not used.
    pub socket: SocketOptions,
    /// Threads; each port is one thread's.
    pub threads: usize,
    /// CPUs for the threads, in this order; `None`: a sensible choice.
    pub cpus: Option<CpuList>,
}
