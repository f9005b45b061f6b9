//! The layouts of protected packets.

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::packet::{self, ReplyHead, ReplyTail, TooShort};
use crate::wire::time::{ErrorEstimate, Timestamp};

/// How much of a test packet is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The Sequence Number is encrypted and authenticated, nothing else.
    Authenticated,
    /// All before the HMAC is encrypted and authenticated.
    Encrypted,
}

/// The first 32 octets of every protected packet, which speak of its own departure.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct Head {
    /// Sequence Number, of the Session-Sender or of the Session-Reflector.
    pub seq: U32,
    /// Must be zero; ignored when read. It fills the one block that authenticated mode covers.
    pub mbz: [u8; 12],
    /// T1 or T3, in the format that `error_estimate` names.
    pub timestamp: Timestamp,
    /// Error Estimate of whoever sends the packet.
    pub error_estimate: ErrorEstimate,
    /// Must be zero; ignored when read.
    pub mbz_2: [u8; 6],
}
const _: () = assert!(size_of::<Head>() == 32);

impl Head {
    /// A head whose MBZ octets are zero.
    #[inline]
    #[must_use]
    pub const fn new(seq: U32, timestamp: Timestamp, error_estimate: ErrorEstimate) -> Self {
        Self {
            seq,
            mbz: [0; 12],
            timestamp,
            error_estimate,
            mbz_2: [0; 6],
        }
    }
}

/// Session-Sender test packet: 48 octets, then Packet Padding (RFC 4656 §4.1.2).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct SenderPacket {
    /// Number, T1 and Error Estimate.
    pub head: Head,
    /// HMAC-SHA1 of the covered octets in clear, cut to 16; never encrypted.
    pub hmac: [u8; HMAC_LEN],
}
const _: () = assert!(size_of::<SenderPacket>() == SENDER_LEN);

/// Session-Reflector test packet: 112 octets, then Packet Padding (RFC 5357 §4.2.1, whose 104 are
/// put right by erratum 5045).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ReflectorPacket {
    /// Number, T3 and Error Estimate of the Session-Reflector.
    pub head: Head,
    /// T2, the arrival of the request, in the format of the Session-Reflector.
    pub receive_timestamp: Timestamp,
    /// Must be zero; ignored when read.
    pub mbz: [u8; 8],
    /// Number, T1 and Error Estimate, copied from the request.
    pub sender: Head,
    /// TTL or Hop Limit of the request's IP header on arrival; 255 where it could not be read.
    pub sender_ttl: u8,
    /// S-DSCP-ECN: TOS or Traffic Class of the request on arrival, in the mode for monitoring
    /// (RFC 7750 §2.2.1); must be zero in the others.
    pub sender_tos: u8,
    /// Must be zero; ignored when read.
    pub mbz_2: [u8; 14],
    /// HMAC-SHA1 of the covered octets in clear, cut to 16; never encrypted.
    pub hmac: [u8; HMAC_LEN],
}
const _: () = assert!(size_of::<ReflectorPacket>() == REFLECTOR_LEN);

/// A layout that [`Protection`](super::Protection) can work on: it begins with a [`Head`] and ends
/// with its HMAC.
pub trait Packet: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Sealed {}

impl Packet for SenderPacket {}
impl Packet for ReflectorPacket {}

pub(super) use sealed::Sealed;

mod sealed {
    use super::{BLOCK_LEN, HMAC_LEN, Head, ReflectorPacket, SenderPacket};

    pub trait Sealed: Sized {
        /// Blocks before the HMAC.
        const BLOCKS: usize = (size_of::<Self>() - HMAC_LEN) / BLOCK_LEN;

        fn head(&self) -> &Head;

        fn head_mut(&mut self) -> &mut Head;

        fn hmac(&self) -> &[u8; HMAC_LEN];

        fn hmac_mut(&mut self) -> &mut [u8; HMAC_LEN];
    }

    macro_rules! seal {
        ($packet:ty) => {
            impl Sealed for $packet {
                fn head(&self) -> &Head {
                    &self.head
                }

                fn head_mut(&mut self) -> &mut Head {
                    &mut self.head
                }

                fn hmac(&self) -> &[u8; HMAC_LEN] {
                    &self.hmac
                }

                fn hmac_mut(&mut self) -> &mut [u8; HMAC_LEN] {
                    &mut self.hmac
                }
            }
        };
    }
    seal!(SenderPacket);
    seal!(ReflectorPacket);
}

impl From<packet::SenderPacket> for SenderPacket {
    /// In clear, without an HMAC.
    #[inline]
    fn from(plain: packet::SenderPacket) -> Self {
        Self {
            head: Head::new(plain.seq, plain.timestamp, plain.error_estimate),
            hmac: [0; HMAC_LEN],
        }
    }
}

impl SenderPacket {
    /// The same fields as an unauthenticated packet carries them.
    #[inline]
    #[must_use]
    pub const fn plain(&self) -> packet::SenderPacket {
        packet::SenderPacket {
            seq: self.head.seq,
            timestamp: self.head.timestamp,
            error_estimate: self.head.error_estimate,
        }
    }
}

impl From<packet::ReflectorPacket> for ReflectorPacket {
    /// In clear, without an HMAC and without the TOS of the request.
    #[inline]
    fn from(plain: packet::ReflectorPacket) -> Self {
        let packet::ReflectorPacket { head, tail } = plain;
        Self {
            head: Head::new(head.seq, head.timestamp, head.error_estimate),
            receive_timestamp: head.receive_timestamp,
            mbz: [0; 8],
            sender: Head::new(
                head.sender_seq,
                head.sender_timestamp,
                head.sender_error_estimate,
            ),
            sender_ttl: tail.sender_ttl,
            sender_tos: 0,
            mbz_2: [0; 14],
            hmac: [0; HMAC_LEN],
        }
    }
}

impl ReflectorPacket {
    /// The same fields as an unauthenticated packet carries them.
    #[inline]
    #[must_use]
    pub const fn plain(&self) -> packet::ReflectorPacket {
        packet::ReflectorPacket {
            head: ReplyHead {
                seq: self.head.seq,
                timestamp: self.head.timestamp,
                error_estimate: self.head.error_estimate,
                mbz: [0; 2],
                receive_timestamp: self.receive_timestamp,
                sender_seq: self.sender.seq,
                sender_timestamp: self.sender.timestamp,
                sender_error_estimate: self.sender.error_estimate,
            },
            tail: ReplyTail {
                mbz: [0; 2],
                sender_ttl: self.sender_ttl,
            },
        }
    }
}

/// Why a protected packet is not taken. Counted and dropped, never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No packet at all, whoever sent it.
    #[error(transparent)]
    TooShort(#[from] TooShort),
    /// Not made with the keys of the session, or changed on the way.
    #[error("the HMAC is not that of the packet")]
    Forged,
}

/// Octets of a request without padding (RFC 4656 §4.1.2).
pub const SENDER_LEN: usize = 48;
/// Octets of a reply without padding (RFC 5357 §4.2.1, erratum 5045).
pub const REFLECTOR_LEN: usize = 112;
/// Octets that Symmetrical Size puts in front of the padding of a request (RFC 6038 §5.1.5).
///
/// With them a request is as long as a reply of RFC 5357, 8 octets shorter than a real one (erratum
/// 5045): 8 octets of padding are needed besides those to be reflected.
pub const SYMMETRICAL_MBZ_LEN: usize = 56;
/// Octets of an HMAC field (RFC 4656 §3.2).
pub const HMAC_LEN: usize = 16;
/// Octets of an AES block.
pub(super) const BLOCK_LEN: usize = 16;
