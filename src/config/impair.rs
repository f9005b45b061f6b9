//! What a reflector in test mode does to packets on purpose: shares, delays, direction.

use std::fmt;

use super::quantity::Fraction;
use super::rate::Rate;

/// Which way of the round trip an impairment stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the reflector back to the sender: after the reply has its number and before it leaves.
    #[default]
    Inbound,
    /// From the sender to the reflector: before the request counts as received.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// What is done to packets on purpose.
///
/// One draw a packet decides which one thing, if any, happens to it, so that each share is exact
/// and no packet counts twice. The shares sum to at most 100 %.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairment {
    /// Where.
    pub direction: Direction,
    /// Share that vanishes.
    pub drop: Fraction,
    /// Share of which a copy follows at once.
    pub duplicate: Fraction,
    /// Share that is held until a later packet of its session has overtaken it.
    pub reorder: Fraction,
    /// Share that is held for a time drawn evenly from `delay_ns`.
    pub delay: Fraction,
    /// Share whose Sender Timestamp is changed.
    pub corrupt: Fraction,
    /// The shortest and the longest delay, in nanoseconds.
    pub delay_ns: (u64, u64),
    /// Packets that get through in each second; what is above vanishes. `None`: no limit.
    pub rate_limit: Option<Rate>,
    /// Seed of all draws.
    pub seed: u64,
}

impl Impairment {
    /// The sum of all shares, in millionths.
    #[must_use]
    pub fn total_ppm(&self) -> u32 {
        let shares = [
            self.drop,
            self.duplicate,
            self.reorder,
            self.delay,
            self.corrupt,
        ];
        shares.iter().map(|share| share.ppm()).sum()
    }
}
