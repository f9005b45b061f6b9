//! Whether this host kept up, and what its figures are spoilt by where it did not.

use serde::Serialize;

use super::call::FailedCall;
use super::reason::{self, Reason};

/// Whether this host kept up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Host {
    /// Whether the figures are the path's own.
    pub verdict: Verdict,
    /// The causes of [`Verdict::ToolLimited`]: `reasons` in JSON, a sentence each, and `reasons_detail`.
    #[serde(flatten, serialize_with = "reason::twice")]
    pub reasons: Vec<Reason>,
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
