//! The reflector: one pure function from request to reply, and the thread around it.
//!
//! Replies are written into the memory that their requests came in. T2 is the kernel's, T3 is
//! written last, right before the call that sends.

mod bundle;
pub(super) mod desk;
pub(super) mod light;
#[cfg(test)]
mod test_link;
mod thread;
mod totals;
pub(super) mod train;

pub(super) use self::desk::{Answer, CHUNK, Decides, Desk, Queued};
pub(super) use self::light::{Blank, QUALITY_NS, Reflector, no_request};
#[cfg(test)]
pub(super) use self::test_link::OneBundle;
pub(super) use self::thread::run;
pub(super) use self::totals::Live;
pub use self::totals::Reflected;
pub(super) use self::train::{Admitted, MOST_SEGMENTS, stamp_train, write_train};
