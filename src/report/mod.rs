//! What a run found, as plain data: the twin of `report.schema.json`, field for field.
//!
//! Delays are nanoseconds, rates are packets per second, fractions are 0..1. `None` means not
//! measured and is written as `null`; 0 never means that. Every sink shows one [`Report`], so all
//! of them show the same numbers. Filled in by `stats` and the engine, read by the outputs.

mod call;
mod delay;
pub mod find_rate;
mod host;
pub mod icmp;
pub mod ignored;
mod interval;
pub(crate) mod moment;
pub mod not_sent;
pub mod note;
mod reason;
pub mod reflector;
pub mod server;
mod session;
mod timestamps;
pub mod unsent;

pub use call::FailedCall;
pub use delay::{
    Bin, Cell, Delay, DelaySet, Histogram, Histograms, Ipdv, OutOfRange, Pdv, SamplesNeeded,
};
pub use host::{Cpu, Host, Io, Verdict};
pub use icmp::{Icmp, IcmpKind};
pub use ignored::Ignored;
pub use interval::{Happening, Interval, IntervalFigures, IntervalPackets, IntervalSchema};
pub use not_sent::{Cause, NotSent};
pub use note::Note;
pub use reason::{Figure, Reason};
pub use session::{
    Load, LossBursts, NextHop, PacedBy, Packets, PathFacts, Profile, Protocol, Report, Role,
    Schedule, Schema, Scope, Security, SizeEntry, finite,
};
pub use timestamps::{
    Clock, ClockStep, Granularity, Spread, StampKind, TimeFormat, Timestamps, Whose,
};

#[cfg(test)]
pub(crate) use session::tests;
