//! A run is one call: [`measure`] for a session, [`Reflecting`] for a reflector,
//! [`Reflectors`](served::Reflectors) for the sessions that a Server grants.
//!
//! Threads of a session: sender and receiver, each pinned and with sockets, batches and an event loop
//! of its own, and the stats thread, which gets the samples; as many of these as the load is shared by.
//! Packet counts come back when a thread ends; no channel that is full can lose them.

mod account;
pub mod admission;
mod assemble;
mod cores;
mod error_estimate;
mod flight;
mod flow;
pub(crate) mod hint;
mod icmp;
mod impair;
mod impaired;
mod intervals;
mod lane;
mod live;
mod pace;
mod receiver;
mod reflecting;
mod reflector;
mod run;
pub mod schedule;
mod sender;
pub mod served;
mod session;
mod sockets;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod stages;
mod tally;
mod trains;
mod tuning;
mod waits;
mod wheel;

pub use self::flow::Flow;
pub use self::hint::{End, unreachable};
pub use self::lane::Agreed;
pub use self::live::{PacketCopy, Progress, Update};
pub use self::reflecting::{Reflecting, ReflectorUpdate};
pub use self::reflector::Reflected;
pub(crate) use self::run::plain;
pub use self::run::{Failure, Stop};
pub use self::session::{Measured, Opened, measure, open};
pub use self::sockets::{any_address, link_of, path_mtu, source_address};
#[cfg(target_os = "linux")]
pub(crate) use crate::io::bind_device;
pub(crate) use crate::io::needed;
pub use crate::os::allowed_cpus as cpus;

#[cfg(test)]
mod sums;
