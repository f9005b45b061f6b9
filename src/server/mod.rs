//! A Server on real sockets: control connections, and the Session-Reflectors that they ask for.
//!
//! One thread has all control connections, each with its state machine of
//! [`control`](crate::control::server). It never waits for one of them: what a peer does not send or
//! does not read stops that peer alone. Keys are derived on threads of their own, and test packets are
//! reflected on others (see [`engine::served`](crate::engine::served)).
//!
//! Invariant: what a peer can make this process hold is bounded by the [`Policy`](crate::config::Policy).

mod caller;
mod clients;
mod connection;
pub mod keys;
mod net;
mod offer;
mod reload;
mod serving;
mod sessions;
mod shared;
mod table;
mod tokens;

pub use self::reload::Reload;
pub use self::serving::{Failure, Progress, Serving};
