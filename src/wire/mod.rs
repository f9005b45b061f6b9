//! TWAMP-Test packets in unauthenticated mode, their layouts and the rules for their sizes; those of
//! the other modes ([`protected`]), and the messages of TWAMP-Control ([`control`]).
//!
//! Each layout is one struct of big-endian fields without alignment; it is read and written through
//! `zerocopy`, so no offset is typed anywhere. `parse_request` and `Reply::parse` say whether octets
//! from the network are a packet at all; they cannot panic, allocate nothing and copy nothing.
//! Whether a packet belongs to a session is for the engine, which calls them, to decide.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used))]

mod accept;
pub mod control;
mod format;
mod modes;
mod packet;
pub mod protected;
mod request;
mod sid;
pub mod time;

pub use accept::Accept;
pub use format::TestFormat;
pub use modes::{ModeRefused, Modes, NoMode, NotAMode, SecurityMode};
pub use packet::{
    MAX_UDP_PAYLOAD, REFLECTOR_LEN, ReflectorPacket, Reply, ReplyHead, ReplyTail, SENDER_LEN,
    SHORT_REPLY_LEN, SenderPacket, TooShort, echoed_sender_timestamp, fill_padding, parse_request,
};
pub use request::{Ends, Interval, ReflectOctets, RequestTwSession, SessionRequest, Unacceptable};
pub use sid::Sid;
pub use time::{ErrorEstimate, Format, Reading, Timestamp};
