//! TWAMP-Test packets in authenticated and encrypted mode (RFC 4656 §4.1.2, RFC 5357 §4.2.1).
//!
//! Both modes have the same layouts, two [`Head`]s with something between and behind them. They
//! differ in how much is encrypted and covered by the HMAC: the block of the Sequence Number, or all
//! before the HMAC. Padding is never covered. In authenticated mode neither are timestamps nor what a
//! reply copies: whoever is on the path can change them unseen.
//!
//! A [`Protection`] holds the keys of one session and works on many packets in one call, in the
//! memory where they are. What was built as an unauthenticated packet is turned into a protected one
//! by `From`, and back by `plain`, so that only one form has to be filled in and judged.

mod keys;
mod packet;

pub use keys::{Protection, TestKeys};
pub use packet::{
    HMAC_LEN, Head, Mode, Packet, REFLECTOR_LEN, ReflectorPacket, Refused, SENDER_LEN,
    SYMMETRICAL_MBZ_LEN, SenderPacket,
};

#[cfg(test)]
mod tests;
