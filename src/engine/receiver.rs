//! A session's receiver: [`ReceiverSide`] is what it is, a value without a thread, a socket or a clock, and
//! `thread` drives it at full speed.

mod answer;
mod door;
mod ending;
mod estimates;
pub(super) mod facts;
mod looks;
mod own_time;
mod presence;
mod readings;
mod side;
mod stamps;
mod tap;
#[cfg(test)]
mod tests;
mod thread;
mod time_format;
mod under_way;
mod waiting;

pub(crate) use self::door::Now;
#[cfg(test)]
pub(crate) use self::estimates::Estimates;
pub(crate) use self::facts::{Facts, Received};
pub(crate) use self::side::{Buffers, Plan, ReceiverSide};
pub(crate) use self::tap::Tap;
pub(crate) use self::thread::{Attempt, Links, Live, Outlet, Pipes, ThreadPlan, run};
pub(crate) use self::time_format::Belief;
