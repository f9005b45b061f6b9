//! The reflector: from requests to replies, whoever's sessions they are of, and the thread around it.
//!
//! Replies are written into the memory that their requests came in. T2 is the kernel's, T3 is
//! written last, right before the call that sends.

mod book;
pub(super) mod desk;
pub(super) mod light;
pub(super) mod open_port;
mod ready;
pub(super) mod reflect;
mod run;
#[cfg(test)]
mod test_link;
#[cfg(test)]
mod tests;
mod thread;
mod totals;
pub(super) mod train;

pub(super) use self::book::{Book, Looks};
pub(super) use self::desk::Desk;
pub(super) use self::light::no_request;
pub(super) use self::open_port::{NoBatch, OpenPort};
pub(super) use self::reflect::Reflector;
#[cfg(test)]
pub(super) use self::test_link::OneBundle;
pub(super) use self::thread::run;
pub(super) use self::totals::Live;
pub use self::totals::{Reflected, RequestCounts};
#[cfg(test)]
pub(super) use self::train::Answer;
