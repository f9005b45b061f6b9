//! The name of a session.

use core::fmt;
use std::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::time::{Format, Timestamp};

/// Session identifier: 16 octets that a Server chooses, and from which the keys of test packets
/// are made (RFC 4656 §3.5).
#[derive(
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
#[repr(transparent)]
pub struct Sid(pub [u8; 16]);

impl Sid {
    /// As it stands in requests and refusals.
    pub const ZERO: Self = Self([0; 16]);

    /// As RFC 4656 §3.5 makes them: the Server's IPv4 address, or the last four octets of its IPv6
    /// address; the time as an NTP timestamp; four random octets.
    #[must_use]
    pub fn new(server: IpAddr, unix_ns: i64, random: [u8; 4]) -> Self {
        let address = match server {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                [a, b, c, d]
            }
        };
        let time = Timestamp::from_unix_ns(unix_ns, Format::Ntp).raw();
        let mut octets = [0; 16];
        let (head, tail) = octets.split_at_mut(4);
        head.copy_from_slice(&address);
        let (middle, end) = tail.split_at_mut(8);
        middle.copy_from_slice(&time.to_be_bytes());
        end.copy_from_slice(&random);
        Self(octets)
    }
}

/// 32 hexadecimal digits, as twping prints them.
impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sids_are_made_as_the_rfc_has_them() {
        let time = 1_750_000_000_123_456_789;
        let sid = Sid::new("192.0.2.2".parse().unwrap(), time, [0xde, 0xc2, 0xa5, 0x2f]);
        // The fraction is rounded up.
        assert_eq!(sid.to_string(), "c0000202ebf960001f9add38dec2a52f");
        let sid = Sid::new("2001:db8::a0b:c0d".parse().unwrap(), time, [0; 4]);
        assert_eq!(sid.to_string(), "0a0b0c0debf960001f9add3800000000");
    }
}
