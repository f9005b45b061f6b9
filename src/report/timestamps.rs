//! Where the timestamps come from, and what the clocks behind them are worth.

use serde::Serialize;

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
