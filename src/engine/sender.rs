//! A session's sender: [`SenderSide`] is what it is, a value without a thread, a socket or a clock, and `thread`
//! drives it at full speed.

mod agenda;
mod batch;
mod refusals;
mod side;
mod stamps;
mod thread;
mod times;
mod totals;
mod writer;

pub(crate) use self::agenda::Due;
pub(crate) use self::side::Plan;
pub(crate) use self::thread::{Links, SenderThread, Start, ThreadPlan, run};
pub(crate) use self::totals::Sent;
pub(crate) use self::writer::Looks;
#[cfg(test)]
pub(crate) use self::{
    times::DepartureTimes,
    totals::{Asked, ThreadFacts, Withheld},
};

/// From the start of the session to its first departure.
pub(crate) const LEAD_NS: i64 = 1_000_000;
