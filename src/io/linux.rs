//! The Linux make: `recvmmsg` and `sendmmsg`, kernel timestamps both ways, control messages.

mod calls;
mod mirror;
mod open;
mod options;
mod receive;
mod send;

pub(crate) use self::mirror::MirrorSocket;
pub(crate) use self::open::{OpenSession, open_session};
pub(crate) use self::receive::{ReceiveHalf, ReceiveSocket};
pub(crate) use self::send::SendHalf;
