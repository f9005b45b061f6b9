//! TWAMP-Control: how a Control-Client and a Server agree on test sessions (RFC 5357 §3).
//!
//! No socket, clock or thread is in here. [`client`] and [`server`] are the two sides of a control
//! connection, given octets and the time. Below them, [`codec`] turns octets into messages and back,
//! and [`crypto`] has keys and the protection of the stream; what messages look like is in
//! [`wire`](crate::wire).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used))]

pub mod client;
pub mod codec;
pub mod crypto;
pub mod server;
