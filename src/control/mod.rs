//! TWAMP-Control: how a Control-Client and a Server agree on test sessions (RFC 5357 §3).
//!
//! No socket, clock or thread is in here. [`crypto`] has keys and the protection of the stream,
//! [`codec`] turns octets into messages and back; what octets mean is in [`wire`](crate::wire).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used))]

pub mod codec;
pub mod crypto;
