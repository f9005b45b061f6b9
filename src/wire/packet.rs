//! TWAMP-Test packets in unauthenticated mode: their layouts, and the rules for their sizes.

use core::fmt;
use core::mem::offset_of;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::time::{ErrorEstimate, Timestamp};

/// Session-Sender test packet: 14 octets, then Packet Padding (RFC 4656 §4.1.2).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct SenderPacket {
    /// Sequence Number: starts at 0, one up a packet, wraps after 2^32.
    pub seq: U32,
    /// T1, the departure of this packet, in the format that `error_estimate` names.
    pub timestamp: Timestamp,
    /// Error Estimate of the Session-Sender, for T1.
    pub error_estimate: ErrorEstimate,
}
const _: () = assert!(size_of::<SenderPacket>() == SENDER_LEN);

/// Session-Reflector test packet: 41 octets, then Packet Padding (RFC 5357 §4.2.1).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ReflectorPacket {
    /// The part that every Session-Reflector sends.
    pub head: ReplyHead,
    /// The part that some leave out, see [`SHORT_REPLY_LEN`].
    pub tail: ReplyTail,
}
const _: () = assert!(size_of::<ReflectorPacket>() == REFLECTOR_LEN);

/// The first 38 octets of a [`ReflectorPacket`]: all that is measured except the Sender TTL.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ReplyHead {
    /// Sequence Number of the reply: counts the replies of the session from 0, or repeats
    /// `sender_seq` where the reflector keeps no state (RFC 5357 appendix I).
    pub seq: U32,
    /// T3, the departure of this reply, in the format that `error_estimate` names.
    pub timestamp: Timestamp,
    /// Error Estimate of the Session-Reflector, for T2 and T3.
    pub error_estimate: ErrorEstimate,
    /// Must be zero; ignored when read.
    pub mbz: [u8; 2],
    /// T2, the arrival of the request, in the format that `error_estimate` names.
    pub receive_timestamp: Timestamp,
    /// Sender Sequence Number, copied from the request.
    pub sender_seq: U32,
    /// T1, copied from the request, in the format that `sender_error_estimate` names.
    pub sender_timestamp: Timestamp,
    /// Error Estimate of the Session-Sender, copied from the request.
    pub sender_error_estimate: ErrorEstimate,
}
const _: () = assert!(size_of::<ReplyHead>() == SHORT_REPLY_LEN);

impl ReplyHead {
    /// The same with T1 and T3 in each other's place, as a quirk of some reflectors has them.
    #[must_use]
    pub const fn exchanged(self) -> Self {
        Self {
            timestamp: self.sender_timestamp,
            sender_timestamp: self.timestamp,
            ..self
        }
    }
}

/// The last 3 octets of a [`ReflectorPacket`].
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ReplyTail {
    /// Must be zero; ignored when read.
    pub mbz: [u8; 2],
    /// TTL or Hop Limit of the request's IP header on arrival; 255 where the reflector could not
    /// read it (RFC 5357 §4.2.1).
    pub sender_ttl: u8,
}

/// Reads a request; the padding behind it is not looked at.
///
/// # Errors
/// [`TooShort`] below [`SENDER_LEN`] octets: discarded without a reply.
pub fn parse_request(datagram: &[u8]) -> Result<&SenderPacket, TooShort> {
    let (packet, _padding) =
        SenderPacket::ref_from_prefix(datagram).map_err(|_| too_short::<SenderPacket>(datagram))?;
    Ok(packet)
}

/// A reply as it came from the network: borrowed, and perhaps without its last three octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Everything but the Sender TTL.
    pub head: &'a ReplyHead,
    /// Sender TTL; `None` when the reply ends before it. 255 may also mean that the reflector
    /// could not read it.
    pub sender_ttl: Option<u8>,
    /// TOS or Traffic Class of the request on arrival; `None` unless the session is one for monitoring
    /// (RFC 7750), and where the reply ends before it.
    pub sender_tos: Option<u8>,
}

impl<'a> Reply<'a> {
    /// Reads a reply of any length from [`SHORT_REPLY_LEN`] up; padding is not looked at.
    ///
    /// # Errors
    /// [`TooShort`] below [`SHORT_REPLY_LEN`] octets.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, TooShort> {
        let (head, rest) =
            ReplyHead::ref_from_prefix(datagram).map_err(|_| too_short::<ReplyHead>(datagram))?;
        let tail = ReplyTail::ref_from_prefix(rest).ok();
        Ok(Self {
            head,
            sender_ttl: tail.map(|(tail, _padding)| tail.sender_ttl),
            sender_tos: None,
        })
    }

    /// The same of a session for monitoring: S-DSCP-ECN follows the Sender TTL (RFC 7750 §2.2.1).
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_monitored(datagram: &'a [u8]) -> Result<Self, TooShort> {
        let reply = Self::parse(datagram)?;
        let sender_tos = datagram.get(REFLECTOR_LEN).copied();
        Ok(Self {
            sender_tos,
            ..reply
        })
    }
}

/// Octets from the network that are no packet: shorter than its fixed part. Counted and dropped, never
/// answered.
///
/// A Multiplier of 0 in the Error Estimate is not among the reasons, although RFC 4656 §4.1.2 says that
/// such a packet SHOULD be discarded: several programs always write it, others do on hosts that are not
/// synchronised, and everything else in their packets can be measured. Only the estimate is no use
/// ([`ErrorEstimate::is_usable`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got} octets, at least {need} are needed")]
pub struct TooShort {
    /// The fewest octets that would do.
    pub need: usize,
    /// The octets that came.
    pub got: usize,
}

/// What stands where a reply carries the Sender Timestamp; `None` in a datagram that ends before.
///
/// For the loop guard: a reply also reads as a request. If this is a timestamp that the reflector
/// itself wrote, a second reflector sent its reply back.
#[inline]
#[must_use]
pub fn echoed_sender_timestamp(datagram: &[u8]) -> Option<Timestamp> {
    let octets = datagram.get(offset_of!(ReplyHead, sender_timestamp)..)?;
    let (timestamp, _rest) = Timestamp::read_from_prefix(octets).ok()?;
    Some(timestamp)
}

/// Fills `buf` with Packet Padding: pseudo-random as it SHOULD be (RFC 4656 §4.1.2), and the same
/// octets on every machine for one `seed`. For the start of a run, not per packet.
pub fn fill_padding(buf: &mut [u8], seed: u64) {
    Pcg64Mcg::seed_from_u64(seed).fill_bytes(buf);
}

/// All fields by name on one line.
impl fmt::Display for SenderPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seq={} timestamp={} error_estimate=({})",
            self.seq, self.timestamp, self.error_estimate
        )
    }
}

/// All fields by name on one line; `sender_ttl=-` where there is none, and `sender_tos` only where
/// there is one.
impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head;
        write!(
            f,
            "seq={} timestamp={} error_estimate=({}) receive_timestamp={} sender_seq={} \
             sender_timestamp={} sender_error_estimate=({}) sender_ttl=",
            head.seq,
            head.timestamp,
            head.error_estimate,
            head.receive_timestamp,
            head.sender_seq,
            head.sender_timestamp,
            head.sender_error_estimate,
        )?;
        match self.sender_ttl {
            Some(ttl) => write!(f, "{ttl}")?,
            None => f.write_str("-")?,
        }
        match self.sender_tos {
            Some(tos) => write!(f, " sender_tos={tos}"),
            None => Ok(()),
        }
    }
}

/// All fields by name on one line.
impl fmt::Display for ReflectorPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reply = Reply {
            head: &self.head,
            sender_ttl: Some(self.tail.sender_ttl),
            sender_tos: None,
        };
        reply.fmt(f)
    }
}

fn too_short<Needed>(datagram: &[u8]) -> TooShort {
    TooShort {
        need: size_of::<Needed>(),
        got: datagram.len(),
    }
}

/// The most octets that a UDP payload can have over IPv4: 65,535 less 20 of IP and 8 of UDP
/// (RFC 768, RFC 791).
pub const MAX_UDP_PAYLOAD: usize = 65_507;
/// Octets of a request without padding (RFC 4656 §4.1.2).
pub const SENDER_LEN: usize = 14;
/// Octets of a reply without padding (RFC 5357 §4.2.1).
pub const REFLECTOR_LEN: usize = 41;
/// Octets of the shortest reply that is accepted: twampy ends it before the last MBZ and the
/// Sender TTL.
pub const SHORT_REPLY_LEN: usize = 38;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::wire::time::Format;

    fn packet_vectors() -> Vec<Value> {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/vectors/test_packets.json"
        )))
        .unwrap()
    }

    fn negative_vectors() -> Vec<Value> {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/vectors/negative.json"
        )))
        .unwrap()
    }

    fn octets(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn seq(value: &Value) -> U32 {
        u32::try_from(value.as_u64().unwrap()).unwrap().into()
    }

    fn estimate(hex: &Value) -> ErrorEstimate {
        ErrorEstimate::from_raw(u16::from_str_radix(hex.as_str().unwrap(), 16).unwrap())
    }

    /// The vectors round to nearest, we round up: `found` if it is what we write, or one less.
    fn timestamp(unix_ns: &Value, found: Timestamp) -> Timestamp {
        let ours = Timestamp::from_unix_ns(unix_ns.as_i64().unwrap(), Format::Ntp);
        let more = ours.raw().wrapping_sub(found.raw());
        assert!(more <= 1, "{unix_ns} {found} {ours}");
        found
    }

    /// Writes packet and padding into a buffer of 0xa5 and compares all of it, the end included.
    #[track_caller]
    fn assert_writes(packet: &(impl IntoBytes + Immutable), padding: &[u8], wire: &[u8]) {
        let mut buffer = vec![0xa5; wire.len() + 8];
        let mut expected = buffer.clone();
        expected[..wire.len()].copy_from_slice(wire);
        packet.write_to_prefix(&mut buffer).unwrap();
        padding
            .write_to_prefix(&mut buffer[size_of_val(packet)..])
            .unwrap();
        assert_eq!(buffer, expected);
    }

    #[test]
    fn packets_match_the_vectors_both_ways() {
        let mut seen = 0;
        for row in packet_vectors().iter().filter(|row| row["mode"] == 1) {
            let wire = octets(&row["wire"]);
            assert_eq!(wire.len(), row["length"]);
            let fields = &row["fields"];
            if fields.is_null() {
                continue;
            }
            let padding = octets(&fields["padding"]);
            if row["direction"] == "sender" {
                let read = parse_request(&wire).unwrap();
                let built = SenderPacket {
                    seq: seq(&fields["sequence"]),
                    timestamp: timestamp(&fields["timestamp_unix_ns"], read.timestamp),
                    error_estimate: estimate(&fields["error_estimate"]),
                };
                assert_eq!(*read, built, "{row}");
                assert_writes(&built, &padding, &wire);
            } else {
                let read = Reply::parse(&wire).unwrap();
                let head = ReplyHead {
                    seq: seq(&fields["sequence"]),
                    timestamp: timestamp(&fields["timestamp_unix_ns"], read.head.timestamp),
                    error_estimate: estimate(&fields["error_estimate"]),
                    mbz: [0; 2],
                    receive_timestamp: timestamp(
                        &fields["receive_timestamp_unix_ns"],
                        read.head.receive_timestamp,
                    ),
                    sender_seq: seq(&fields["sender_sequence"]),
                    sender_timestamp: timestamp(
                        &fields["sender_timestamp_unix_ns"],
                        read.head.sender_timestamp,
                    ),
                    sender_error_estimate: estimate(&fields["sender_error_estimate"]),
                };
                let sender_ttl = u8::try_from(fields["sender_ttl"].as_u64().unwrap()).unwrap();
                assert_eq!(*read.head, head, "{row}");
                assert_eq!(read.sender_ttl, Some(sender_ttl), "{row}");
                let tail = ReplyTail {
                    mbz: [0; 2],
                    sender_ttl,
                };
                assert_writes(&ReflectorPacket { head, tail }, &padding, &wire);
            }
            seen += 1;
        }
        assert_eq!(seen, 8);
    }

    /// All open modes, whatever their feature bits: the fixed part is the same.
    #[test]
    fn packets_of_all_open_modes_are_read_and_written_back() {
        let mut seen = 0;
        for row in packet_vectors() {
            let mode = row["mode"].as_u64().unwrap();
            if mode & 1 == 0 {
                continue;
            }
            let wire = octets(&row["wire"]);
            if row["direction"] == "sender" {
                let packet = parse_request(&wire).unwrap();
                assert_writes(packet, &wire[SENDER_LEN..], &wire);
            } else {
                let packet = ReflectorPacket::ref_from_prefix(&wire).unwrap().0;
                let reply = Reply::parse(&wire).unwrap();
                assert_eq!(*reply.head, packet.head);
                assert_eq!(reply.sender_ttl, Some(packet.tail.sender_ttl));
                assert_writes(packet, &wire[REFLECTOR_LEN..], &wire);
            }
            seen += 1;
        }
        assert_eq!(seen, 19);
    }

    /// The vectors want what RFC 4656 §4.1.2 says of a Multiplier of 0, and we do not do it: see
    /// [`TooShort`].
    #[test]
    fn of_the_corrupt_requests_of_the_vectors_only_the_short_one_is_refused() {
        let found: Vec<_> = negative_vectors()
            .iter()
            .filter(|row| row["what"].as_str().unwrap().starts_with("unauthenticated"))
            .map(|row| {
                let read = parse_request(&octets(&row["wire"])).copied();
                read.map(|packet| packet.error_estimate.is_usable())
            })
            .collect();
        let expected = [Ok(false), Err(TooShort { need: 14, got: 13 })];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_monitored_reply_tells_the_tos_of_the_request() {
        let wire: Vec<u8> = (0..60).map(|octet| octet | 1).collect();
        let reply = |len: usize| Reply::parse_monitored(&wire[..len]).map(|r| r.sender_tos);
        assert_eq!(reply(42), Ok(Some(41)));
        assert_eq!(reply(60), Ok(Some(41)));
        assert_eq!(reply(41), Ok(None), "it ends before");
        assert!(reply(37).is_err());
        assert_eq!(Reply::parse(&wire).map(|r| r.sender_tos), Ok(None));
    }

    #[test]
    fn a_reply_may_end_before_the_sender_ttl() {
        let rows = packet_vectors();
        let wire = octets(&rows[1]["wire"]);
        let head = *Reply::parse(&wire).unwrap().head;
        for (len, sender_ttl) in [(38, None), (39, None), (40, None), (41, Some(250))] {
            let reply = Reply::parse(&wire[..len]).unwrap();
            assert_eq!((*reply.head, reply.sender_ttl), (head, sender_ttl));
        }
        assert_eq!(
            Reply::parse(&wire[..37]),
            Err(TooShort { need: 38, got: 37 })
        );
    }

    #[test]
    fn a_reply_is_one_whatever_its_error_estimates() {
        let rows = packet_vectors();
        let wire = octets(&rows[1]["wire"]);
        let (mut packet, _) = ReflectorPacket::read_from_prefix(&wire).unwrap();
        packet.head.sender_error_estimate = ErrorEstimate::from_raw(0);
        packet.head.error_estimate = ErrorEstimate::from_raw(0xff00);
        let reply = Reply::parse(packet.as_bytes()).map(|reply| *reply.head);
        assert_eq!(reply, Ok(packet.head));
    }

    #[test]
    fn the_echoed_timestamp_is_the_sender_timestamp_of_a_reply() {
        let rows = packet_vectors();
        let wire = octets(&rows[1]["wire"]);
        let expected = Timestamp::from_raw(0xebf9_6000_1f9a_dd37);
        assert_eq!(echoed_sender_timestamp(&wire), Some(expected));
        assert_eq!(echoed_sender_timestamp(&wire[..36]), Some(expected));
        for len in [0, 14, 28, 35] {
            assert_eq!(echoed_sender_timestamp(&wire[..len]), None, "{len}");
        }
    }

    #[test]
    fn padding_depends_on_the_seed_alone() {
        let mut first = [0; 37];
        let mut again = [0xa5; 37];
        let mut other = [0; 37];
        fill_padding(&mut first, 7);
        fill_padding(&mut again, 7);
        fill_padding(&mut other, 8);
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(first[..8], PADDING_OF_SEED_7);
        assert!(first.chunks(8).all(|chunk| chunk.iter().any(|&b| b != 0)));
        fill_padding(&mut [], 7);
    }
    /// As first seen: a change of generator or seeding shows here.
    const PADDING_OF_SEED_7: [u8; 8] = [142, 12, 89, 148, 222, 29, 157, 176];

    #[test]
    fn packets_print_on_one_line() {
        let rows = packet_vectors();
        assert_eq!(
            parse_request(&octets(&rows[0]["wire"]))
                .unwrap()
                .to_string(),
            "seq=7 timestamp=ebf96000.1f9add37 error_estimate=(S=1 Z=0 2.4 µs)"
        );
        let wire = octets(&rows[1]["wire"]);
        let text = "seq=5 timestamp=ebf96000.1fec20fb error_estimate=(S=0 Z=0 48.8 ms) \
                    receive_timestamp=ebf96000.1febc5d0 sender_seq=7 \
                    sender_timestamp=ebf96000.1f9add37 \
                    sender_error_estimate=(S=1 Z=0 2.4 µs) sender_ttl=";
        let (packet, _) = ReflectorPacket::read_from_prefix(&wire).unwrap();
        assert_eq!(packet.to_string(), format!("{text}250"));
        let short = Reply::parse(&wire[..38]).unwrap();
        assert_eq!(short.to_string(), format!("{text}-"));
        assert_eq!(
            TooShort { need: 14, got: 13 }.to_string(),
            "13 octets, at least 14 are needed"
        );
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused_and_written_back(
            datagram in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let got = datagram.len();
            match parse_request(&datagram) {
                Ok(packet) => {
                    prop_assert_eq!(packet.as_bytes(), &datagram[..SENDER_LEN]);
                    let _ = packet.to_string();
                }
                Err(TooShort { need, got: said }) => {
                    prop_assert!(got < need && need == SENDER_LEN && said == got);
                }
            }
            match Reply::parse(&datagram) {
                Ok(reply) => {
                    prop_assert_eq!(reply.head.as_bytes(), &datagram[..SHORT_REPLY_LEN]);
                    prop_assert_eq!(reply.sender_ttl, datagram.get(40).copied());
                    let _ = reply.to_string();
                }
                Err(TooShort { need, got: said }) => {
                    prop_assert!(got < need && need == SHORT_REPLY_LEN && said == got);
                }
            }
            let echoed = echoed_sender_timestamp(&datagram);
            prop_assert_eq!(
                echoed.as_ref().map(IntoBytes::as_bytes),
                datagram.get(28..36)
            );
        }
    }
}
