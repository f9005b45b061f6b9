//! The code by which a Server or a Session-Reflector says whether it will do what it was asked.

use core::fmt;

/// Accept value of Server-Start, Accept-Session, Start-Ack and Stop-Sessions (RFC 4656 §3.3; used by
/// TWAMP without change, RFC 5357 §3.3).
///
/// One octet on the wire; `u8::from` and `Accept::from` lose nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accept {
    /// 0.
    Ok,
    /// 1: reason unspecified, a catch-all.
    Failure,
    /// 2.
    InternalError,
    /// 3: some aspect of the request.
    NotSupported,
    /// 4: the request cannot be performed, now or later.
    PermanentLimit,
    /// 5: the request cannot be performed now.
    TemporaryLimit,
    /// A value that the RFC leaves open, as it came: never 0 to 5 when made by `Accept::from`.
    Reserved(u8),
}

impl Accept {
    /// Whether the request was granted; a reserved value is a refusal (RFC 4656 §3.1: any non-zero
    /// value).
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Ok | Self::Reserved(0))
    }
}

impl From<u8> for Accept {
    fn from(octet: u8) -> Self {
        match octet {
            0 => Self::Ok,
            1 => Self::Failure,
            2 => Self::InternalError,
            3 => Self::NotSupported,
            4 => Self::PermanentLimit,
            5 => Self::TemporaryLimit,
            other => Self::Reserved(other),
        }
    }
}

impl From<Accept> for u8 {
    fn from(accept: Accept) -> Self {
        match accept {
            Accept::Ok => 0,
            Accept::Failure => 1,
            Accept::InternalError => 2,
            Accept::NotSupported => 3,
            Accept::PermanentLimit => 4,
            Accept::TemporaryLimit => 5,
            Accept::Reserved(octet) => octet,
        }
    }
}

/// The RFC's meaning, then the number: `internal error (2)`, `reserved (17)`.
impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self {
            Self::Ok => "OK",
            Self::Failure => "failure, reason unspecified",
            Self::InternalError => "internal error",
            Self::NotSupported => "some aspect of the request is not supported",
            Self::PermanentLimit => "cannot perform the request: permanent resource limitations",
            Self::TemporaryLimit => "cannot perform the request: temporary resource limitations",
            Self::Reserved(_) => "reserved",
        };
        write!(f, "{meaning} ({})", u8::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_survives() {
        for octet in 0..=u8::MAX {
            let accept = Accept::from(octet);
            assert_eq!(u8::from(accept), octet);
            assert_eq!(accept.is_ok(), octet == 0);
            assert_eq!(matches!(accept, Accept::Reserved(_)), octet > 5);
        }
    }

    #[test]
    fn values_and_meanings_are_those_of_rfc_4656() {
        for (octet, accept, text) in [
            (0, Accept::Ok, "OK (0)"),
            (1, Accept::Failure, "failure, reason unspecified (1)"),
            (2, Accept::InternalError, "internal error (2)"),
            (
                3,
                Accept::NotSupported,
                "some aspect of the request is not supported (3)",
            ),
            (
                4,
                Accept::PermanentLimit,
                "cannot perform the request: permanent resource limitations (4)",
            ),
            (
                5,
                Accept::TemporaryLimit,
                "cannot perform the request: temporary resource limitations (5)",
            ),
            (6, Accept::Reserved(6), "reserved (6)"),
            (255, Accept::Reserved(255), "reserved (255)"),
        ] {
            assert_eq!(Accept::from(octet), accept);
            assert_eq!(accept.to_string(), text);
        }
    }
}
