//! The Modes field: what a Server offers, what a Control-Client chooses, and whether that is allowed.

use core::fmt;
use core::ops::{BitAnd, BitOr};
use core::str::FromStr;

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::accept::Accept;

/// Modes of a Server-Greeting, or Mode of a Set-Up-Response: one bit for each way to work
/// (RFC 4656 §3.1, RFC 5357 §3.1; the registry is IANA's "TWAMP-Modes").
///
/// Bits 0 to 3 are the [`SecurityMode`]s, the others features. Unknown bits survive.
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
pub struct Modes(U32);
const _: () = assert!(size_of::<Modes>() == 4);

impl Modes {
    /// No bit. As an offer: the Server does not want to talk; as a choice: the client does not.
    pub const NONE: Self = Self::from_bits(0);
    /// Nothing is protected (RFC 4656 §3.1).
    pub const UNAUTHENTICATED: Self = Self::from_bits(1);
    /// Control encrypted, test packets authenticated (RFC 4656 §3.1).
    pub const AUTHENTICATED: Self = Self::from_bits(1 << 1);
    /// Control and test packets encrypted (RFC 4656 §3.1).
    pub const ENCRYPTED: Self = Self::from_bits(1 << 2);
    /// Control encrypted, test packets not protected (RFC 5618 §3).
    pub const MIXED: Self = Self::from_bits(1 << 3);
    /// Sessions start and stop one by one (RFC 5938 §3.1).
    pub const INDIVIDUAL_SESSION_CONTROL: Self = Self::from_bits(1 << 4);
    /// Octets of requests and of padding come back (RFC 6038 §4).
    pub const REFLECT_OCTETS: Self = Self::from_bits(1 << 5);
    /// Test packets of senders are as long as replies (RFC 6038 §5.1.4).
    pub const SYMMETRICAL_SIZE: Self = Self::from_bits(1 << 6);
    /// The shared secret comes from an IKEv2 security association (RFC 7717 §5.2). Known here so
    /// that it can be named; it is never offered and never chosen.
    pub const IKEV2_DERIVED: Self = Self::from_bits(1 << 7);
    /// Replies tell the DSCP and ECN that arrived (RFC 7750 §2.1).
    pub const DSCP_ECN_MONITORING: Self = Self::from_bits(1 << 8);
    /// The Session-Reflector can write PTPv2 timestamps (RFC 8186 §2.1).
    pub const PTP_TIMESTAMP: Self = Self::from_bits(1 << 9);

    /// All four [`SecurityMode`]s.
    pub const SECURITY: Self = Self::from_bits(0b1111);
    /// All features that can be chosen here; without [`IKEV2_DERIVED`](Self::IKEV2_DERIVED).
    pub const FEATURES: Self = Self::from_bits(0b11_0111_0000);

    /// From the bits as they stand on the wire; every value is allowed.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(U32::new(bits))
    }

    /// The bits as they stand on the wire.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0.get()
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.bits() & other.bits() == other.bits()
    }

    /// As a choice: the one security mode that it names.
    ///
    /// # Errors
    /// [`ModeRefused`] when there is none, or more than one.
    pub fn security(self) -> Result<SecurityMode, ModeRefused> {
        if self == Self::NONE {
            return Err(ModeRefused::Declined);
        }
        let mut named = SecurityMode::STRONGEST_FIRST
            .into_iter()
            .filter(|mode| self.contains(mode.bit()));
        match (named.next(), named.next()) {
            (Some(mode), None) => Ok(mode),
            (None, _) => Err(ModeRefused::NoSecurityMode(self)),
            (Some(_), Some(_)) => Err(ModeRefused::SeveralSecurityModes(self)),
        }
    }

    /// The bits that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self::from_bits(self.bits() & !other.bits())
    }

    /// As an offer, what a Control-Client answers: the strongest mode that was offered and that it
    /// has a key for, or exactly `wanted`; and of `features` those that were offered.
    ///
    /// Bits that this program does not know are left alone.
    ///
    /// # Errors
    /// [`NoMode`] when nothing fits; then the client answers [`NONE`](Self::NONE) and closes
    /// (RFC 4656 §3.1).
    pub fn choose(
        self,
        wanted: Option<SecurityMode>,
        has_key: bool,
        features: Self,
    ) -> Result<Self, NoMode> {
        if self == Self::NONE {
            return Err(NoMode::ServerRefuses);
        }
        let usable = |mode: SecurityMode| has_key || !mode.protects_control();
        let security = match wanted {
            Some(mode) if !self.contains(mode.bit()) => {
                return Err(NoMode::NotOffered {
                    wanted: mode,
                    offered: self,
                });
            }
            Some(mode) if !usable(mode) => return Err(NoMode::NoKey(mode)),
            Some(mode) => mode,
            None => SecurityMode::STRONGEST_FIRST
                .into_iter()
                .find(|&mode| self.contains(mode.bit()) && usable(mode))
                .ok_or(NoMode::NothingInCommon {
                    offered: self,
                    has_key,
                })?,
        };
        Ok(security.bit() | (self & features & Self::FEATURES))
    }

    /// As an offer, what a Server says to the Mode of a Set-Up-Response.
    ///
    /// # Errors
    /// [`ModeRefused`] unless it is exactly one security mode, and no bit that was not offered:
    /// a client would act on it. (RFC 4656 §3.1 lets a Server ignore high bits, before any had a
    /// meaning.)
    pub fn admit(self, chosen: Self) -> Result<SecurityMode, ModeRefused> {
        let security = chosen.security()?;
        if self.contains(chosen) {
            Ok(security)
        } else {
            Err(ModeRefused::NotOffered {
                chosen,
                offered: self,
            })
        }
    }
}

impl BitOr for Modes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self::from_bits(self.bits() | other.bits())
    }
}

impl BitAnd for Modes {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self::from_bits(self.bits() & other.bits())
    }
}

/// Names of the bits, `none` for none; unknown bits in hexadecimal: `unauthenticated+mixed+0x400`.
impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let mut left = self.bits();
        let mut separator = "";
        for (bit, name) in NAMES {
            if self.contains(*bit) {
                write!(f, "{separator}{name}")?;
                separator = "+";
                left &= !bit.bits();
            }
        }
        if left != 0 {
            write!(f, "{separator}{left:#x}")?;
        }
        Ok(())
    }
}

/// How a control connection and its test packets are protected: one of bits 0 to 3 of [`Modes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityMode {
    /// Neither is.
    Unauthenticated,
    /// Control encrypted; of test packets the sequence number only.
    Authenticated,
    /// Control and test packets encrypted.
    Encrypted,
    /// Control encrypted, test packets as in unauthenticated mode (RFC 5618).
    Mixed,
}

impl SecurityMode {
    /// All of them; a client without a wish takes the first that it can.
    pub const STRONGEST_FIRST: [Self; 4] = [
        Self::Encrypted,
        Self::Authenticated,
        Self::Mixed,
        Self::Unauthenticated,
    ];

    /// Its bit in [`Modes`].
    #[must_use]
    pub const fn bit(self) -> Modes {
        match self {
            Self::Unauthenticated => Modes::UNAUTHENTICATED,
            Self::Authenticated => Modes::AUTHENTICATED,
            Self::Encrypted => Modes::ENCRYPTED,
            Self::Mixed => Modes::MIXED,
        }
    }

    /// Whether the control connection is encrypted and authenticated: it needs a key.
    #[must_use]
    pub const fn protects_control(self) -> bool {
        !matches!(self, Self::Unauthenticated)
    }

    /// Whether test packets have the layout of the protected modes.
    #[must_use]
    pub const fn protects_test(self) -> bool {
        matches!(self, Self::Authenticated | Self::Encrypted)
    }
}

/// One lower-case word, which parses back.
impl fmt::Display for SecurityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bit().fmt(f)
    }
}

impl FromStr for SecurityMode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, NotAMode> {
        let name = text.trim().to_ascii_lowercase();
        Self::STRONGEST_FIRST
            .into_iter()
            .find(|mode| mode.to_string() == name)
            .ok_or(NotAMode)
    }
}

/// Text that names no [`SecurityMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mode; use unauthenticated, authenticated, encrypted or mixed")]
pub struct NotAMode;

/// Why a Control-Client finds no mode in a Server-Greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMode {
    /// Modes is 0: the Server does not want to talk to this client (RFC 4656 §3.1).
    #[error("the server offers no mode: it refuses this client")]
    ServerRefuses,
    /// The mode that was asked for is not there.
    #[error("the server does not offer mode {wanted}; it offers {offered}")]
    NotOffered {
        /// What was asked for.
        wanted: SecurityMode,
        /// What there is.
        offered: Modes,
    },
    /// The mode that was asked for needs a key.
    #[error("mode {0} needs a key id and a passphrase")]
    NoKey(SecurityMode),
    /// No mode that was offered can be used.
    #[error("the server offers {offered}; {}", if *.has_key { "none of these is supported" } else { "the protected modes need a key id and a passphrase" })]
    NothingInCommon {
        /// What there is.
        offered: Modes,
        /// Whether the client has a key.
        has_key: bool,
    },
}

/// Why a Server does not work in the Mode of a Set-Up-Response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeRefused {
    /// Mode 0: the client found nothing to its taste. Both sides close (RFC 4656 §3.1).
    #[error("the client declines all modes")]
    Declined,
    /// Features, but none of bits 0 to 3.
    #[error("mode {0} names no security mode")]
    NoSecurityMode(Modes),
    /// More than one of bits 0 to 3.
    #[error("mode {0} names several security modes")]
    SeveralSecurityModes(Modes),
    /// A bit that was not in the Server-Greeting.
    #[error("mode {chosen} was not offered; {offered} was")]
    NotOffered {
        /// Mode of the Set-Up-Response.
        chosen: Modes,
        /// Modes of the Server-Greeting.
        offered: Modes,
    },
}

impl ModeRefused {
    /// What Server-Start says before the Server closes; `None` where the client has left.
    #[must_use]
    pub const fn accept(self) -> Option<Accept> {
        match self {
            Self::Declined => None,
            Self::NoSecurityMode(_) | Self::SeveralSecurityModes(_) | Self::NotOffered { .. } => {
                Some(Accept::NotSupported)
            }
        }
    }
}

const NAMES: &[(Modes, &str)] = &[
    (Modes::UNAUTHENTICATED, "unauthenticated"),
    (Modes::AUTHENTICATED, "authenticated"),
    (Modes::ENCRYPTED, "encrypted"),
    (Modes::MIXED, "mixed"),
    (
        Modes::INDIVIDUAL_SESSION_CONTROL,
        "individual-session-control",
    ),
    (Modes::REFLECT_OCTETS, "reflect-octets"),
    (Modes::SYMMETRICAL_SIZE, "symmetrical-size"),
    (Modes::IKEV2_DERIVED, "ikev2-derived"),
    (Modes::DSCP_ECN_MONITORING, "dscp-ecn-monitoring"),
    (Modes::PTP_TIMESTAMP, "ptp-timestamp"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn modes(bits: u32) -> Modes {
        Modes::from_bits(bits)
    }

    #[test]
    fn bits_are_those_of_the_registry() {
        for (at, (bit, _)) in NAMES.iter().enumerate() {
            assert_eq!(bit.bits(), 1 << at);
        }
        assert_eq!(modes(9).as_bytes(), [0, 0, 0, 9]);
        assert_eq!(
            modes(0x0200_0181).to_string(),
            "unauthenticated+ikev2-derived+dscp-ecn-monitoring+0x2000000"
        );
        assert_eq!(Modes::NONE.to_string(), "none");
        for mode in SecurityMode::STRONGEST_FIRST {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(mode.bit().security(), Ok(mode));
        }
        assert_eq!("open".parse::<SecurityMode>(), Err(NotAMode));
    }

    #[test]
    fn a_client_takes_the_strongest_that_it_has_a_key_for() {
        use SecurityMode::{Authenticated, Encrypted, Mixed, Unauthenticated};
        for (offered, has_key, chosen) in [
            (15, true, Encrypted),
            (15, false, Unauthenticated),
            (11, true, Authenticated),
            (9, true, Mixed),
            (9, false, Unauthenticated),
            (1, true, Unauthenticated),
            // IKEv2 and bits of the future are passed over.
            (0x8000_0082, true, Authenticated),
        ] {
            let found = modes(offered).choose(None, has_key, Modes::NONE);
            assert_eq!(found, Ok(chosen.bit()), "{offered}");
        }
        let offer = modes(15);
        assert_eq!(offer.choose(Some(Mixed), true, Modes::NONE), Ok(modes(8)));
        assert_eq!(
            offer.choose(Some(Mixed), false, Modes::NONE),
            Err(NoMode::NoKey(Mixed))
        );
        assert_eq!(
            Modes::NONE.choose(None, true, Modes::NONE),
            Err(NoMode::ServerRefuses)
        );
        assert_eq!(
            modes(3).choose(Some(Encrypted), true, Modes::NONE),
            Err(NoMode::NotOffered {
                wanted: Encrypted,
                offered: modes(3)
            })
        );
        for (offered, has_key) in [(14, false), (0x80, true), (0x30, true)] {
            let offered = modes(offered);
            assert_eq!(
                offered.choose(None, has_key, Modes::NONE),
                Err(NoMode::NothingInCommon { offered, has_key })
            );
        }
    }

    #[test]
    fn features_are_chosen_where_wanted_and_offered() {
        let all = modes(0x3ff);
        let wanted = Modes::REFLECT_OCTETS | Modes::SYMMETRICAL_SIZE;
        assert_eq!(all.choose(None, false, wanted), Ok(modes(1 + 32 + 64)));
        assert_eq!(modes(1 + 64).choose(None, false, wanted), Ok(modes(1 + 64)));
        assert_eq!(modes(1).choose(None, false, wanted), Ok(modes(1)));
        // Neither the IKEv2 bit nor a second security mode comes in this way.
        assert_eq!(
            all.choose(None, false, all),
            Ok(Modes::UNAUTHENTICATED | Modes::FEATURES)
        );
    }

    #[test]
    fn a_server_takes_one_mode_that_it_offered() {
        let offered = modes(1 + 4 + 16);
        assert_eq!(offered.admit(modes(1)), Ok(SecurityMode::Unauthenticated));
        assert_eq!(offered.admit(modes(4 + 16)), Ok(SecurityMode::Encrypted));
        assert_eq!(offered.admit(modes(0)), Err(ModeRefused::Declined));
        assert_eq!(
            offered.admit(modes(5)),
            Err(ModeRefused::SeveralSecurityModes(modes(5)))
        );
        assert_eq!(
            offered.admit(modes(16)),
            Err(ModeRefused::NoSecurityMode(modes(16)))
        );
        for chosen in [2, 8, 1 + 32, 4 + 128, 1 + (1 << 31)].map(modes) {
            assert_eq!(
                offered.admit(chosen),
                Err(ModeRefused::NotOffered { chosen, offered })
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_client_chooses_a_server_admits(
            offered in prop_oneof![0..1024_u32, any::<u32>()],
            features in any::<u32>(),
            has_key in any::<bool>(),
            wanted in proptest::option::of(proptest::sample::select(&SecurityMode::STRONGEST_FIRST[..])),
        ) {
            let Ok(chosen) = modes(offered).choose(wanted, has_key, modes(features)) else {
                return Ok(());
            };
            let security = modes(offered).admit(chosen).unwrap();
            prop_assert!(has_key || !security.protects_control());
            prop_assert!(wanted.is_none_or(|mode| mode == security));
            prop_assert!(!chosen.contains(Modes::IKEV2_DERIVED));
        }

        #[test]
        fn a_server_admits_nothing_that_it_did_not_offer(offered in any::<u32>(), chosen in any::<u32>()) {
            let admitted = modes(offered).admit(modes(chosen));
            let fair = chosen & 15 != 0 && (chosen & 15).is_power_of_two() && chosen & !offered == 0;
            prop_assert_eq!(admitted.is_ok(), fair);
            prop_assert_eq!(admitted == Err(ModeRefused::Declined), chosen == 0);
        }
    }
}
