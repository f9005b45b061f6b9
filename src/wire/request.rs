//! Request-TW-Session: its layout, what it asks for, and whether that can be asked for at all.
//!
//! [`RequestTwSession`] is the octets, [`SessionRequest`] their meaning in the Modes that were
//! chosen. [`RequestTwSession::read`] is the only way from one to the other, so that what a Server's
//! policy gets to see is something that a Session-Reflector could do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::accept::Accept;
use super::format::TestFormat;
use super::modes::{ModeRefused, Modes};
use super::packet::MAX_UDP_PAYLOAD;
use super::sid::Sid;
use super::time::Timestamp;

/// Request-TW-Session before its HMAC: 96 octets (RFC 5357 §3.5, RFC 6038 §4.2).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct RequestTwSession {
    /// 5.
    pub command: u8,
    /// Must be zero (4 bits), IPVN (4 bits): 4 or 6.
    pub ipvn: u8,
    /// Must be 0: the Session-Sender is configured by the client.
    pub conf_sender: u8,
    /// Must be 0: the Session-Reflector always belongs to the Server.
    pub conf_receiver: u8,
    /// Number of Schedule Slots; must be 0.
    pub schedule_slots: U32,
    /// Number of Packets; must be 0.
    pub packets: U32,
    /// UDP port that the Session-Sender sends from and receives on.
    pub sender_port: U16,
    /// UDP port that is asked of the Session-Reflector.
    pub receiver_port: U16,
    /// IPv4 in the first four octets, the others zero; or IPv6. All zero: the client's address.
    pub sender_address: [u8; 16],
    /// Likewise; all zero: the Server's address of the control connection.
    pub receiver_address: [u8; 16],
    /// Zero: the Server assigns it.
    pub sid: Sid,
    /// Octets that the Session-Sender appends to each test packet.
    pub padding_len: U32,
    /// Start Time: not before it; zero or past, at once.
    pub start_time: Timestamp,
    /// How long the Session-Reflector goes on after a stop.
    pub timeout: Interval,
    /// Type-P Descriptor: top bits 00, then a DSCP.
    pub type_p: U32,
    /// Octets to be reflected, in mode [`Modes::REFLECT_OCTETS`]; else must be zero.
    pub octets_to_reflect: [u8; 2],
    /// Length of padding to reflect, in the same mode; else must be zero.
    pub padding_to_reflect: U16,
    /// Must be zero; ignored when read.
    pub mbz: [u8; 4],
}
const _: () = assert!(size_of::<RequestTwSession>() == 96);

impl RequestTwSession {
    /// What it asks for, in a connection that works in `modes`.
    ///
    /// # Errors
    /// [`Unacceptable`]: the Server answers with its Accept value and stays connected.
    pub fn read(&self, modes: Modes) -> Result<SessionRequest, Unacceptable> {
        match *self {
            Self { conf_sender, .. } if conf_sender != 0 => {
                return Err(Unacceptable::ConfSender(conf_sender));
            }
            Self { conf_receiver, .. } if conf_receiver != 0 => {
                return Err(Unacceptable::ConfReceiver(conf_receiver));
            }
            Self { schedule_slots, .. } if schedule_slots.get() != 0 => {
                return Err(Unacceptable::ScheduleSlots(schedule_slots.get()));
            }
            Self { packets, .. } if packets.get() != 0 => {
                return Err(Unacceptable::Packets(packets.get()));
            }
            _ => {}
        }
        let request = SessionRequest {
            ends: self.ends()?,
            padding_len: self.padding_len.get(),
            start_time: self.start_time,
            timeout: self.timeout,
            dscp: dscp_of(self.type_p.get())?,
            reflect: modes
                .contains(Modes::REFLECT_OCTETS)
                .then(|| ReflectOctets {
                    octets: self.octets_to_reflect,
                    padding_len: self.padding_to_reflect.get(),
                }),
        };
        request.check_padding(modes)?;
        Ok(request)
    }

    fn ends(&self) -> Result<Ends, Unacceptable> {
        let address: fn([u8; 16]) -> IpAddr = match self.ipvn & IPVN_MASK {
            4 => |[a, b, c, d, ..]| Ipv4Addr::new(a, b, c, d).into(),
            6 => |octets| Ipv6Addr::from(octets).into(),
            other => return Err(Unacceptable::IpVersion(other)),
        };
        let end = |octets, port: U16| SocketAddr::new(address(octets), port.get());
        Ok(Ends {
            sender: end(self.sender_address, self.sender_port),
            receiver: end(self.receiver_address, self.receiver_port),
        })
    }
}

impl From<&SessionRequest> for RequestTwSession {
    fn from(request: &SessionRequest) -> Self {
        let Ends { sender, receiver } = request.ends;
        let octets = |end: SocketAddr| match end.ip() {
            IpAddr::V4(address) => {
                let mut field = [0; 16];
                let (first_four, _) = field.split_at_mut(4);
                first_four.copy_from_slice(&address.octets());
                field
            }
            IpAddr::V6(address) => address.octets(),
        };
        let reflect = request.reflect.unwrap_or_default();
        Self {
            command: REQUEST_TW_SESSION,
            ipvn: if sender.is_ipv4() { 4 } else { 6 },
            sender_port: sender.port().into(),
            receiver_port: receiver.port().into(),
            sender_address: octets(sender),
            receiver_address: octets(receiver),
            padding_len: request.padding_len.into(),
            start_time: request.start_time,
            timeout: request.timeout,
            type_p: (u32::from(request.dscp & DSCP_MASK) << DSCP_SHIFT).into(),
            octets_to_reflect: reflect.octets,
            padding_to_reflect: reflect.padding_len.into(),
            ..Self::new_zeroed()
        }
    }
}

/// A session as a Control-Client wants it (RFC 5357 §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRequest {
    /// Between whom.
    pub ends: Ends,
    /// Octets of Packet Padding in each packet of the Session-Sender.
    pub padding_len: u32,
    /// When the Session-Sender may begin, in NTP format; zero or past: at once.
    pub start_time: Timestamp,
    /// How long the Session-Reflector goes on after a stop.
    pub timeout: Interval,
    /// Differentiated Services codepoint of test packets in both directions, 0 to 63.
    pub dscp: u8,
    /// Octets that shall come back (RFC 6038); `None` where the mode was not chosen.
    pub reflect: Option<ReflectOctets>,
}

impl SessionRequest {
    /// Whether test packets with this padding can exist in `modes`, and hold what they must.
    ///
    /// # Errors
    /// [`Unacceptable::PaddingTooShort`], [`Unacceptable::PaddingTooLong`], and
    /// [`Unacceptable::Mode`] where `modes` is no choice of a mode.
    pub fn check_padding(&self, modes: Modes) -> Result<(), Unacceptable> {
        let reflected = self.reflect.map_or(0, |reflect| reflect.padding_len);
        let format = TestFormat::new(modes, reflected, [0; 2]).map_err(Unacceptable::Mode)?;
        let (least, most) = (
            format.least_padding(),
            MAX_UDP_PAYLOAD - format.padding_at(),
        );
        let got = self.padding_len;
        match usize::try_from(got) {
            Ok(padding) if padding < least => Err(Unacceptable::PaddingTooShort { got, least }),
            Ok(padding) if padding <= most => Ok(()),
            _ => Err(Unacceptable::PaddingTooLong { got, most }),
        }
    }
}

/// What RFC 6038 §4.2 adds to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReflectOctets {
    /// Come back in Accept-Session.
    pub octets: [u8; 2],
    /// How many octets of padding come back in each reply.
    pub padding_len: u16,
}

/// Both ends of a session, of one family; an unspecified address stands for that of the control
/// connection. The wire carries neither scope nor flow of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    sender: SocketAddr,
    receiver: SocketAddr,
}

impl Ends {
    /// `None` when the families differ.
    #[must_use]
    pub fn new(sender: SocketAddr, receiver: SocketAddr) -> Option<Self> {
        (sender.is_ipv4() == receiver.is_ipv4()).then_some(Self { sender, receiver })
    }

    /// The Session-Sender's.
    #[must_use]
    pub const fn sender(self) -> SocketAddr {
        self.sender
    }

    /// The Session-Reflector's.
    #[must_use]
    pub const fn receiver(self) -> SocketAddr {
        self.receiver
    }

    /// With the addresses of the control connection where there were none (RFC 5357 §3.5):
    /// twampy asks for all sessions like that.
    ///
    /// `None` when the control connection is of another family and one address is missing. IPv4
    /// addresses written as IPv6 (`::ffff:0:0/96`), which a listener for both families gets, are
    /// IPv4 here.
    #[must_use]
    pub fn at_control_addresses(self, client: IpAddr, server: IpAddr) -> Option<Self> {
        let filled = |end: SocketAddr, control: IpAddr| {
            let address = if end.ip().is_unspecified() {
                control.to_canonical()
            } else {
                end.ip()
            };
            SocketAddr::new(address, end.port())
        };
        // Both missing: the family is that of the connection, whatever IPVN says. It is 4 from
        // twampy 1.3.1 over IPv6 too (its source).
        Self::new(filled(self.sender, client), filled(self.receiver, server))
    }
}

/// A length of time in the form of an NTP timestamp: units of 2^-32 s, up to 136 years.
#[derive(
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
)]
#[repr(transparent)]
pub struct Interval(U64);
const _: () = assert!(size_of::<Interval>() == 8);

impl Interval {
    /// Rounded up to the next 2^-32 s, so that every nanosecond survives; the longest that the
    /// field can hold where `ns` is longer.
    #[must_use]
    pub fn from_ns(ns: u64) -> Self {
        let units = (u128::from(ns) << 32).div_ceil(u128::from(NS_PER_SECOND));
        Self::from_raw(u64::try_from(units).unwrap_or(u64::MAX))
    }

    /// Nanoseconds, rounded down; below 2^62.
    #[must_use]
    pub fn ns(self) -> u64 {
        let ns = (u128::from(self.raw()) * u128::from(NS_PER_SECOND)) >> 32;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// The bits, seconds in the upper half.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// From the bits, seconds in the upper half; every value is allowed.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(U64::new(raw))
    }
}

/// Why a request cannot be granted by anybody; before any policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Neither 4 nor 6.
    #[error("IP version {0} is neither 4 nor 6")]
    IpVersion(u8),
    /// Only for OWAMP.
    #[error("Conf-Sender is {0}, not 0")]
    ConfSender(u8),
    /// Only for OWAMP.
    #[error("Conf-Receiver is {0}, not 0")]
    ConfReceiver(u8),
    /// Only for OWAMP.
    #[error("{0} schedule slots where TWAMP has none")]
    ScheduleSlots(u32),
    /// Only for OWAMP.
    #[error("a number of packets ({0}) where TWAMP has none")]
    Packets(u32),
    /// A Type-P Descriptor that is no DSCP: a PHB identification code (RFC 2836), or nothing known.
    #[error("Type-P descriptor {0:#010x} is no DSCP")]
    TypeP(u32),
    /// No room for what must be reflected.
    #[error("{got} octets of padding, at least {least} are needed")]
    PaddingTooShort {
        /// Padding Length.
        got: u32,
        /// What would do.
        least: usize,
    },
    /// No datagram is that long.
    #[error("{got} octets of padding, at most {most} fit")]
    PaddingTooLong {
        /// Padding Length.
        got: u32,
        /// What would fit.
        most: usize,
    },
    /// Not in a connection that was set up.
    #[error(transparent)]
    Mode(ModeRefused),
}

impl Unacceptable {
    /// What Accept-Session says.
    #[must_use]
    pub const fn accept(self) -> Accept {
        Accept::NotSupported
    }
}

/// RFC 4656 §3.5: the top two bits tell what follows; for 00 that is a DSCP. Bits below it are not
/// defined, and ignored.
const fn dscp_of(type_p: u32) -> Result<u8, Unacceptable> {
    let [top, ..] = type_p.to_be_bytes();
    if top > DSCP_MASK {
        return Err(Unacceptable::TypeP(type_p));
    }
    Ok(top)
}

const NS_PER_SECOND: u64 = 1_000_000_000;
const IPVN_MASK: u8 = 0x0f;
const DSCP_MASK: u8 = 0x3f;
/// From the lowest octet to the highest.
const DSCP_SHIFT: u32 = 24;

/// The number of Request-TW-Session among the commands (RFC 5357 §3.5).
pub(super) const REQUEST_TW_SESSION: u8 = 5;

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use proptest::prelude::*;

    use super::*;

    fn request() -> SessionRequest {
        SessionRequest {
            ends: Ends::new(
                "192.0.2.1:20000".parse().unwrap(),
                "192.0.2.2:20001".parse().unwrap(),
            )
            .unwrap(),
            padding_len: 64,
            start_time: Timestamp::from_raw(0),
            timeout: Interval::from_ns(2_000_000_000),
            dscp: 46,
            reflect: None,
        }
    }

    #[test]
    fn what_only_owamp_has_is_refused() {
        let good = RequestTwSession::from(&request());
        assert_eq!(good.read(Modes::UNAUTHENTICATED), Ok(request()));
        for (bad, why) in [
            (
                RequestTwSession { ipvn: 5, ..good },
                Unacceptable::IpVersion(5),
            ),
            (
                RequestTwSession { ipvn: 0, ..good },
                Unacceptable::IpVersion(0),
            ),
            (
                RequestTwSession {
                    conf_sender: 1,
                    ..good
                },
                Unacceptable::ConfSender(1),
            ),
            (
                RequestTwSession {
                    conf_receiver: 9,
                    ..good
                },
                Unacceptable::ConfReceiver(9),
            ),
            (
                RequestTwSession {
                    schedule_slots: 1.into(),
                    ..good
                },
                Unacceptable::ScheduleSlots(1),
            ),
            (
                RequestTwSession {
                    packets: u32::MAX.into(),
                    ..good
                },
                Unacceptable::Packets(u32::MAX),
            ),
            // A PHB identification code, and the forms that RFC 4656 leaves open.
            (
                RequestTwSession {
                    type_p: 0x5234_0000.into(),
                    ..good
                },
                Unacceptable::TypeP(0x5234_0000),
            ),
            (
                RequestTwSession {
                    type_p: u32::MAX.into(),
                    ..good
                },
                Unacceptable::TypeP(u32::MAX),
            ),
        ] {
            assert_eq!(bad.read(Modes::UNAUTHENTICATED), Err(why));
            assert_eq!(why.accept(), Accept::NotSupported);
        }
    }

    #[test]
    fn what_must_be_zero_is_not_looked_at() {
        let good = RequestTwSession::from(&request());
        let odd = RequestTwSession {
            ipvn: 0xf4,
            sid: Sid([7; 16]),
            mbz: [7; 4],
            octets_to_reflect: [7; 2],
            padding_to_reflect: 60_000.into(),
            type_p: (good.type_p.get() | 0xff).into(),
            ..good
        };
        assert_eq!(odd.read(Modes::UNAUTHENTICATED), Ok(request()));
    }

    #[test]
    fn padding_holds_what_is_reflected_and_fits_a_datagram() {
        let (open, protected) = (Modes::UNAUTHENTICATED, Modes::ENCRYPTED);
        let reflect = Modes::REFLECT_OCTETS;
        let (same_size, dscp) = (Modes::SYMMETRICAL_SIZE, Modes::DSCP_ECN_MONITORING);
        for (modes, reflected, least, most) in [
            (open, 0, 0, 65_493),
            (Modes::MIXED, 0, 0, 65_493),
            (protected, 0, 0, 65_459),
            (open | reflect, 0, 0, 65_493),
            (open | reflect, 8, 35, 65_493),
            (open | reflect | dscp, 8, 36, 65_493),
            (protected | reflect, 8, 64, 65_459),
            (open | same_size, 0, 0, 65_466),
            (open | same_size | dscp, 0, 0, 65_465),
            (open | same_size | reflect, 8, 9, 65_466),
            (protected | same_size, 0, 8, 65_403),
            (protected | same_size | reflect, 8, 16, 65_403),
        ] {
            let with = |padding_len| {
                let request = SessionRequest {
                    padding_len,
                    reflect: modes.contains(reflect).then_some(ReflectOctets {
                        octets: [1, 2],
                        padding_len: reflected,
                    }),
                    ..request()
                };
                let read = RequestTwSession::from(&request).read(modes);
                assert_eq!(read, request.check_padding(modes).map(|()| request));
                read.map(|_| ())
            };
            let label = modes.to_string();
            assert_eq!(with(least), Ok(()), "{label}");
            assert_eq!(with(most), Ok(()), "{label}");
            if let Some(got) = least.checked_sub(1) {
                let least = least as usize;
                assert_eq!(
                    with(got),
                    Err(Unacceptable::PaddingTooShort { got, least }),
                    "{label}"
                );
            }
            for got in [most + 1, u32::MAX] {
                let most = most as usize;
                assert_eq!(
                    with(got),
                    Err(Unacceptable::PaddingTooLong { got, most }),
                    "{label}"
                );
            }
        }
    }

    #[test]
    fn missing_addresses_are_those_of_the_control_connection() {
        let ends = |sender: &str, receiver: &str| {
            Ends::new(sender.parse().unwrap(), receiver.parse().unwrap()).unwrap()
        };
        let (client, server) = (
            "192.0.2.1".parse().unwrap(),
            "::ffff:192.0.2.2".parse().unwrap(),
        );
        let full = ends("192.0.2.1:1", "192.0.2.2:2");
        for given in [
            ends("0.0.0.0:1", "0.0.0.0:2"),
            ends("192.0.2.1:1", "0.0.0.0:2"),
            full,
        ] {
            assert_eq!(given.at_control_addresses(client, server), Some(full));
        }
        let other = ends("198.51.100.1:1", "0.0.0.0:2").at_control_addresses(client, server);
        assert_eq!(other, Some(ends("198.51.100.1:1", "192.0.2.2:2")));
        assert_eq!(
            ends("[::]:1", "[2001:db8::2]:2").at_control_addresses(client, server),
            None
        );
        // Without any address, the family is that of the connection.
        let (client, server) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        );
        let found = ends("0.0.0.0:1", "0.0.0.0:2").at_control_addresses(client, server);
        assert_eq!(found, Some(ends("[2001:db8::1]:1", "[2001:db8::2]:2")));
        let v6 = ends("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!(v6.at_control_addresses(client, server), Some(v6));
    }

    #[test]
    fn intervals_are_seconds_and_a_fraction() {
        assert_eq!(Interval::from_ns(2_000_000_000).raw(), 2 << 32);
        assert_eq!(Interval::from_ns(u64::MAX).raw(), u64::MAX);
        assert_eq!(
            Interval::from_raw(u64::MAX).ns(),
            (1 << 32) * NS_PER_SECOND - 1
        );
        assert_eq!(Interval::default().ns(), 0);
    }

    fn any_ends() -> impl Strategy<Value = Ends> {
        let v4 = any::<(SocketAddrV4, SocketAddrV4)>();
        let v6 = any::<(Ipv6Addr, u16, Ipv6Addr, u16)>();
        let ends = |sender, receiver| Ends::new(sender, receiver).unwrap();
        prop_oneof![
            v4.prop_map(move |(sender, receiver)| ends(sender.into(), receiver.into())),
            v6.prop_map(move |(from, from_port, to, to_port)| {
                ends((from, from_port).into(), (to, to_port).into())
            }),
        ]
    }

    proptest! {
        #[test]
        fn any_request_is_written_and_read_back(
            ends in any_ends(),
            padding_len in 0..2_000_u32,
            (start, timeout) in any::<(u64, u64)>(),
            dscp in 0..64_u8,
            octets in any::<[u8; 2]>(),
            reflected in 0..100_u16,
            modes in 0..1024_u32,
        ) {
            let modes = Modes::from_bits(modes);
            let request = SessionRequest {
                ends,
                padding_len,
                start_time: Timestamp::from_raw(start),
                timeout: Interval::from_raw(timeout),
                dscp,
                reflect: modes.contains(Modes::REFLECT_OCTETS).then_some(ReflectOctets {
                    octets,
                    padding_len: reflected,
                }),
            };
            let read = RequestTwSession::from(&request).read(modes);
            prop_assert_eq!(read, request.check_padding(modes).map(|()| request));
        }

        #[test]
        fn any_octets_are_a_request_or_are_refused(octets in any::<([u8; 32], [u8; 32], [u8; 32])>(), modes in 0..1024_u32) {
            let octets = [octets.0, octets.1, octets.2].concat();
            let wire = RequestTwSession::read_from_bytes(&octets).unwrap();
            let modes = Modes::from_bits(modes);
            for wire in [wire, RequestTwSession { ipvn: 6, conf_sender: 0, conf_receiver: 0, schedule_slots: 0.into(), packets: 0.into(), ..wire }] {
                if let Ok(request) = wire.read(modes) {
                    prop_assert_eq!(RequestTwSession::from(&request).read(modes), Ok(request));
                }
            }
        }

        #[test]
        fn every_nanosecond_of_an_interval_survives(ns in 0..(1_u64 << 62)) {
            let most = (1_u64 << 32) * NS_PER_SECOND - 1;
            prop_assert_eq!(Interval::from_ns(ns).ns(), ns.min(most));
        }
    }
}
