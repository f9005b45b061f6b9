//! The Session-Reflectors of a Server: sessions come and go while the threads run.
//!
//! Whoever negotiates sessions (see [`control`](crate::control)) adds them here, each with the port
//! that it got, and hears of their ends by [`events`](Reflectors::events). Packets of no session are
//! dropped and counted. A thread never waits for whoever negotiates.

mod allowance;
mod granted;
mod reflectors;
mod serving;
mod thread;
mod worker;

pub use self::allowance::{Allowance, BURST_NS, BURST_OCTETS, BURST_PACKETS};
pub use self::granted::{NotServed, Served, ServedEvent, ServedId};
pub use self::reflectors::{Calls, Reflectors};
pub use super::reflector::RequestCounts;

#[cfg(all(test, target_os = "linux"))]
mod tests;
