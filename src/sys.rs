//! All `unsafe` of the crate: message batches, control messages, and the few calls that no library
//! offers safely. Everything here is small and decides nothing; the decisions are in `io` and `os`.
//!
//! The memory that the kernel is pointed at (`Fixed`) is reached through pointers only, so that
//! the pointers stored in message headers stay valid for as long as their owner lives. Batches are
//! not `Send`: each thread allocates its own.

mod address;
mod call;
mod cmsg;
mod memory;
mod mirror;
mod option;
mod receive;
mod send;
#[cfg(test)]
mod tests;

pub(crate) use self::call::{Call, Queue, refuses};
pub(crate) use self::cmsg::{Destination, Facts, QueuedError, ReplyFacts};
pub(crate) use self::mirror::{Mirror, send_reply};
pub(crate) use self::option::{
    clock_quality, enable_hardware_stamps, path_mtu, saved_syn, set_nice, set_option, set_realtime,
    socket_drops,
};
pub(crate) use self::receive::ReceiveBatch;
pub(crate) use self::send::{SendBatch, SendFacts};
