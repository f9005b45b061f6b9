//! What a reflector asks about sessions: of TWAMP Light, where the first packet makes one
//! ([`Light`](super::light::Light)), or granted by a Server
//! ([`Serving`](crate::engine::served)).

use zerocopy::IntoBytes;

use super::train::Admitted;
use crate::io::Request;
use crate::report::ignored::Kind;
use crate::wire::protected::{self, Protection};
use crate::wire::{Format, REFLECTOR_LEN, ReflectorPacket, SenderPacket, TestFormat};

/// The sessions of a thread: whose a request is, which numbers the replies have, and what is counted.
///
/// A session has a number by which its replies know it until they have left.
pub(in crate::engine) trait Book {
    /// A session as a datagram finds it.
    type Visit: Copy;

    /// Whose a datagram or bundle of `packets` is that came by a port.
    fn admit(
        &mut self,
        port: usize,
        request: &Request<'_>,
        packets: u64,
    ) -> Result<Self::Visit, Kind>;

    /// The number of a session.
    fn session(visit: &Self::Visit) -> u64;

    /// How its packets look.
    fn looks(&self, session: u64) -> Option<&Looks>;

    /// Takes `count` requests that have so many octets together; all but the first, which is `sender`,
    /// have the numbers that follow, and its T1. Returns the Sequence Number of the first reply; those
    /// of the others follow it.
    fn take(
        &mut self,
        visit: &mut Self::Visit,
        sender: &SenderPacket,
        count: u32,
        octets: usize,
        now: i64,
    ) -> u32;

    /// How many of `wanted` replies of `octets` each may leave. The numbers of the others, which are
    /// the last ones, are given back.
    fn limit(&mut self, _visit: &Self::Visit, wanted: usize, _octets: usize, _now: i64) -> usize {
        wanted
    }

    /// Counts packets that are not answered.
    fn ignored(&mut self, visit: &Self::Visit, kind: Kind, count: u64, octets: usize);

    /// So many replies of a session wait to be sent.
    fn queued(&mut self, session: u64, replies: u64);

    /// So many of them could not be sent.
    fn unsent(&mut self, session: u64, replies: u64);
}

/// How the packets of a session look.
#[derive(Debug)]
pub(in crate::engine) struct Looks {
    pub(in crate::engine) format: TestFormat,
    /// Format of T2 and T3.
    pub(in crate::engine) timestamps: Format,
    /// TOS of the replies; `None`: the DSCP of the request.
    pub(in crate::engine) tos: Option<u8>,
    pub(in crate::engine) protection: Option<Protection>,
}

impl Looks {
    pub(super) fn reply_tos(&self, received: Option<u8>) -> u8 {
        // The DSCP comes back, ECN does not: it speaks of the way here.
        self.tos.unwrap_or(received.unwrap_or(0) & !0b11)
    }

    /// Writes a reply over its request, to this place, all but what comes with T3; returns its octets.
    pub(super) fn write(
        &self,
        slot: &mut [u8],
        one: &Admitted,
        to: usize,
        reply: ReflectorPacket,
        received_tos: Option<u8>,
    ) -> Option<usize> {
        let format = &self.format;
        // Not read, where it is not known (RFC 7750 has no sign for that).
        let tos = received_tos.filter(|_| format.monitored()).unwrap_or(0);
        let mut put = |fields: &[u8]| format.write_reply(slot, one.at, one.len, to, fields);
        if format.protection().is_some() {
            let mut reply = protected::ReflectorPacket::from(reply);
            reply.sender_tos = tos;
            put(reply.as_bytes())
        } else if format.monitored() {
            let mut fields = [0; REFLECTOR_LEN + 1];
            fields[..REFLECTOR_LEN].copy_from_slice(reply.as_bytes());
            fields[REFLECTOR_LEN] = tos;
            put(&fields)
        } else {
            put(reply.as_bytes())
        }
    }
}
