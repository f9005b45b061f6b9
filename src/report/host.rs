//! Whether this host kept up, and what its figures are spoilt by where it did not.

use std::fmt;

use serde::Serialize;

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

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
