//! Timestamps and Error Estimates as they stand in test packets, to and from nanoseconds.
//!
//! Inside the program time is `i64` nanoseconds since the Unix epoch. On the wire it is 32 bits of
//! seconds, which wrap, and 32 bits below the second in one of two formats ([`Format`]). Neither
//! carries its era, so reading needs a time nearby.
//!
//! Invariant: every nanosecond survives the way out and back in both formats. For NTP that holds
//! because writing rounds up and reading rounds down: 2^-32 s is shorter than a nanosecond.

use core::fmt;

use zerocopy::network_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How the 64 bits of a [`Timestamp`] are meant; the Z bit of the Error Estimate next to it says
/// which (RFC 8186 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Z = 0: seconds since 1900-01-01 UTC modulo 2^32, then units of 2^-32 s (RFC 4656 §4.1.2).
    Ntp,
    /// Z = 1: seconds modulo 2^32, then nanoseconds, PTPv2 truncated (RFC 8186 §2.1).
    ///
    /// The seconds count from 1970-01-01 as a system clock does. A clock disciplined by real PTP
    /// runs on TAI, 37 s ahead since 2017; round trips do not see it, one-way delays do.
    Ptp,
}

/// How a peer's 64 bits can be read: the two formats, and two ways in which peers mix them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// [`Format::Ntp`].
    Ntp,
    /// [`Format::Ptp`].
    Ptp,
    /// A quirk of peers that write the seconds of a Unix clock as they are, and the fraction of NTP.
    UnixFraction,
    /// A quirk of peers that write the seconds of NTP, and nanoseconds where the fraction belongs.
    NtpNanoseconds,
}

impl Reading {
    const fn of(format: Format) -> Self {
        match format {
            Format::Ntp => Self::Ntp,
            Format::Ptp => Self::Ptp,
        }
    }

    /// What to add to Unix seconds to get the seconds of this reading.
    const fn epoch_offset_seconds(self) -> u64 {
        match self {
            Self::Ntp | Self::NtpNanoseconds => NTP_SECONDS_AT_UNIX_EPOCH,
            Self::Ptp | Self::UnixFraction => 0,
        }
    }

    /// Below the second are units of 2^-32 s, not nanoseconds.
    const fn has_fraction(self) -> bool {
        matches!(self, Self::Ntp | Self::UnixFraction)
    }
}

impl From<Format> for Reading {
    fn from(format: Format) -> Self {
        Self::of(format)
    }
}

/// A point in time as a packet carries it: 8 octets whose [`Format`] stands elsewhere.
///
/// Equality is equality of the bits: what a sender compares with what it sent.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq, Hash,
)]
#[repr(transparent)]
pub struct Timestamp(U64);
const _: () = assert!(size_of::<Timestamp>() == 8);

impl Timestamp {
    /// Writes `ns` nanoseconds since the Unix epoch, before or after it, in any era.
    ///
    /// An NTP fraction is rounded up to the next 2^-32 s. No carry can reach the seconds: the
    /// largest fraction, of 999,999,999 ns, is 2^32 - 4.
    #[inline]
    #[must_use]
    pub const fn from_unix_ns(ns: i64, format: Format) -> Self {
        let seconds = ns.div_euclid(NS_PER_SECOND_SIGNED).cast_unsigned();
        let below_second = ns.rem_euclid(NS_PER_SECOND_SIGNED).cast_unsigned();
        let low = match format {
            // Below 10^9 * 2^32, which is below 2^62.
            Format::Ntp => (below_second << 32).div_ceil(NS_PER_SECOND),
            Format::Ptp => below_second,
        };
        // The shift drops the era; two's complement makes that right before the epoch too.
        let high = seconds.wrapping_add(Reading::of(format).epoch_offset_seconds()) << 32;
        Self::from_raw(high | low)
    }

    /// Nanoseconds since the Unix epoch, in the era that lies nearest to `near_ns` (for example
    /// the local clock): right as long as the two are less than 2^31 s, 68 years, apart.
    ///
    /// An NTP fraction is rounded down to the nanosecond. `None` where the bits are no time (PTP
    /// nanoseconds of 10^9 and more) or the result is beyond `i64`, which takes a `near_ns` in the
    /// years 1677 or 2262 or within 68 years of them. Never panics, whatever the bits.
    #[inline]
    #[must_use]
    pub fn unix_ns(self, format: Format, near_ns: i64) -> Option<i64> {
        self.read(format.into(), near_ns)
    }

    /// The same of a peer that may mix the formats up.
    #[inline]
    #[must_use]
    pub fn read(self, reading: Reading, near_ns: i64) -> Option<i64> {
        let raw = self.raw();
        let low = raw & LOW_32_BITS;
        let below_second = if reading.has_fraction() {
            // Below 2^32 * 10^9, which is below 2^62.
            (low * NS_PER_SECOND) >> 32
        } else if low < NS_PER_SECOND {
            low
        } else {
            return None;
        };
        let near_seconds = near_ns.div_euclid(NS_PER_SECOND_SIGNED);
        let near_field = near_seconds
            .cast_unsigned()
            .wrapping_add(reading.epoch_offset_seconds());
        // Difference modulo 2^32, read as signed: to the top of the word and back down.
        let ahead = ((raw >> 32).wrapping_sub(near_field) << 32).cast_signed() >> 32;
        // 128 bits: in the last second before the end of `i64` the product alone does not fit it.
        let ns =
            i128::from(near_seconds + ahead) * i128::from(NS_PER_SECOND) + i128::from(below_second);
        i64::try_from(ns).ok()
    }

    /// The bits, seconds in the upper half.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// From the bits, seconds in the upper half; every value is allowed.
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(U64::new(raw))
    }
}

/// Both halves in hexadecimal, as `ntpq` prints them: `ebf96000.1f9add38`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.raw();
        write!(f, "{:08x}.{:08x}", raw >> 32, raw & LOW_32_BITS)
    }
}

/// How far the timestamps next to it may be off, and their [`Format`] (RFC 4656 §4.1.2).
///
/// Bit 15 S (the clock is synchronised to UTC from outside), bit 14 Z (RFC 8186 §2.1), bits 13..8
/// Scale, bits 7..0 Multiplier: the error is Multiplier * 2^Scale * 2^-32 seconds.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq, Hash,
)]
#[repr(transparent)]
pub struct ErrorEstimate(U16);
const _: () = assert!(size_of::<ErrorEstimate>() == 2);

impl ErrorEstimate {
    /// Not synchronised, NTP format, the largest error that can be written: nothing is known.
    pub const UNKNOWN: Self = Self::from_raw(LARGEST_ERROR);

    /// The closest estimate that is not below `error_ns`; above it by at most 1/128 and the unit of
    /// 2^-32 s.
    ///
    /// The Multiplier is never 0. The largest error on the wire is some 17,000 years, so no `u64`
    /// reaches it; it is the limit all the same.
    #[must_use]
    pub fn new(synchronised: bool, format: Format, error_ns: u64) -> Self {
        let units = (u128::from(error_ns) << 32)
            .div_ceil(u128::from(NS_PER_SECOND))
            .max(1);
        // Drop what exceeds eight bits; rounding up may need one bit more (255.5 → 256 = 128 * 2).
        let mut scale = (u128::BITS - units.leading_zeros()).saturating_sub(8);
        if units.div_ceil(1 << scale) > u128::from(u8::MAX) {
            scale += 1;
        }
        let multiplier = units.div_ceil(1 << scale);
        let error = u16::try_from((u128::from(scale) << 8) | multiplier)
            .unwrap_or(LARGEST_ERROR)
            .min(LARGEST_ERROR);
        let s = if synchronised { S_BIT } else { 0 };
        let z = match format {
            Format::Ntp => 0,
            Format::Ptp => Z_BIT,
        };
        Self::from_raw(s | z | error)
    }

    /// S: the clock is synchronised to UTC by an external source.
    #[inline]
    #[must_use]
    pub const fn synchronised(self) -> bool {
        self.raw() & S_BIT != 0
    }

    /// Z: the format of the timestamps that this estimate belongs to.
    #[inline]
    #[must_use]
    pub const fn format(self) -> Format {
        if self.raw() & Z_BIT == 0 {
            Format::Ntp
        } else {
            Format::Ptp
        }
    }

    /// Scale, 0..=63.
    #[inline]
    #[must_use]
    pub const fn scale(self) -> u8 {
        let [high, _] = self.raw().to_be_bytes();
        high & SCALE_MASK
    }

    /// Multiplier; 0 is forbidden, see [`is_usable`](Self::is_usable).
    #[inline]
    #[must_use]
    pub const fn multiplier(self) -> u8 {
        let [_, low] = self.raw().to_be_bytes();
        low
    }

    /// False when the Multiplier is 0, which is forbidden (RFC 4656 §4.1.2): whoever writes that does
    /// not fill the field in, and neither its error nor its S bit says anything.
    #[inline]
    #[must_use]
    pub const fn is_usable(self) -> bool {
        self.multiplier() != 0
    }

    /// The error in nanoseconds, rounded up. `None` when the Multiplier is 0 or the error is beyond
    /// `u64` (584 years), as that of [`UNKNOWN`](Self::UNKNOWN) is.
    #[must_use]
    pub fn error_ns(self) -> Option<u64> {
        if !self.is_usable() {
            return None;
        }
        // Below 2^8 * 2^63 * 2^30.
        let units = u128::from(self.multiplier()) << self.scale();
        u64::try_from((units * u128::from(NS_PER_SECOND)).div_ceil(1 << 32)).ok()
    }

    /// The bits as they stand on the wire.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0.get()
    }

    /// From the bits as they stand on the wire; every value is allowed, also a Multiplier of 0.
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(U16::new(raw))
    }
}

/// For people: `S=1 Z=0 2.4 µs`.
impl fmt::Display for ErrorEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = u8::from(self.synchronised());
        let z = u8::from(self.format() == Format::Ptp);
        write!(f, "S={s} Z={z} ")?;
        if !self.is_usable() {
            return f.write_str("not usable");
        }
        if self.error_ns().is_none() {
            return f.write_str("unknown");
        }
        let seconds =
            f64::from(self.multiplier()) * 2_f64.powi(i32::from(self.scale()) - UNIT_BITS);
        match seconds {
            ..1e-6 => write!(f, "{:.1} ns", seconds * 1e9),
            ..1e-3 => write!(f, "{:.1} µs", seconds * 1e6),
            ..1.0 => write!(f, "{:.1} ms", seconds * 1e3),
            _ => write!(f, "{seconds:.1} s"),
        }
    }
}

const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_SECOND_SIGNED: i64 = NS_PER_SECOND.cast_signed();
/// 70 years with 17 leap days (RFC 868 has the number, RFC 5905 §6 the scale).
const NTP_SECONDS_AT_UNIX_EPOCH: u64 = 2_208_988_800;
const LOW_32_BITS: u64 = 0xffff_ffff;

const S_BIT: u16 = 1 << 15;
const Z_BIT: u16 = 1 << 14;
/// Scale within the upper octet, below S and Z.
const SCALE_MASK: u8 = 0x3f;
/// Scale 63, Multiplier 255.
const LARGEST_ERROR: u16 = 0x3fff;
/// The unit of the error is 2^-32 s.
const UNIT_BITS: i32 = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const SECOND: i64 = NS_PER_SECOND_SIGNED;
    /// 2036-02-07 06:28:16 UTC: NTP era 1 begins.
    const ERA_1: i64 = 2_085_978_496 * SECOND;
    const YEAR: i64 = 31_556_952 * SECOND;

    fn vectors() -> Value {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/vectors/timestamps.json"
        )))
        .unwrap()
    }

    fn hex_u64(value: &Value) -> u64 {
        u64::from_str_radix(value.as_str().unwrap(), 16).unwrap()
    }

    #[test]
    fn timestamps_match_the_vectors_both_ways() {
        let vectors = vectors();
        let rows = vectors["timestamps"].as_array().unwrap();
        assert_eq!(rows.len(), 7);
        for row in rows {
            let ns = row["unix_ns"].as_i64().unwrap();

            // The vectors round to nearest, we round up: at most one unit more.
            let theirs = hex_u64(&row["ntp"]);
            let ours = Timestamp::from_unix_ns(ns, Format::Ntp);
            assert!(ours.raw().wrapping_sub(theirs) <= 1, "{row} {ours}");
            assert_eq!(ours.unix_ns(Format::Ntp, ns), Some(ns), "{row}");
            let read = Timestamp::from_raw(theirs)
                .unix_ns(Format::Ntp, ns)
                .unwrap();
            assert!((ns - 1..=ns).contains(&read), "{row} {read}");

            let ptp = Timestamp::from_raw(hex_u64(&row["ptp_unix_epoch"]));
            assert_eq!(Timestamp::from_unix_ns(ns, Format::Ptp), ptp, "{row}");
            assert_eq!(ptp.unix_ns(Format::Ptp, ns), Some(ns), "{row}");
        }
    }

    #[test]
    fn octets_are_big_endian() {
        let timestamp = Timestamp::from_raw(0x0102_0304_0506_0708);
        assert_eq!(timestamp.as_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(timestamp.to_string(), "01020304.05060708");
        assert_eq!(ErrorEstimate::from_raw(0x8b05).as_bytes(), [0x8b, 0x05]);
    }

    #[test]
    fn no_fraction_carries_into_the_seconds() {
        let last = Timestamp::from_unix_ns(999_999_999, Format::Ntp);
        assert_eq!(last.raw(), (NTP_SECONDS_AT_UNIX_EPOCH << 32) + 0xffff_fffc);
        let before_epoch = Timestamp::from_unix_ns(-1, Format::Ntp);
        assert_eq!(
            before_epoch.raw(),
            last.raw().wrapping_sub(1 << 32),
            "one ns before 1970 is the last ns of a second"
        );
    }

    #[test]
    fn the_nearest_era_is_taken_around_2036() {
        let zero = Timestamp::from_raw(0);
        let last = Timestamp::from_raw(0xffff_ffff_ffff_fffc);
        for near in [-1, 0, 1, -10 * YEAR, 10 * YEAR].map(|offset| ERA_1 + offset) {
            assert_eq!(zero.unix_ns(Format::Ntp, near), Some(ERA_1), "{near}");
            assert_eq!(last.unix_ns(Format::Ntp, near), Some(ERA_1 - 1), "{near}");
        }
        assert_eq!(Timestamp::from_unix_ns(ERA_1, Format::Ntp), zero);
        assert_eq!(Timestamp::from_unix_ns(ERA_1 - 1, Format::Ntp), last);
        // Near 1900 the same bits are 1900.
        let year_1900 = -2_208_988_800 * SECOND;
        assert_eq!(zero.unix_ns(Format::Ntp, year_1900), Some(year_1900));
        // PTP seconds begin at the Unix epoch and wrap in 2106.
        let year_2106 = (1 << 32) * SECOND;
        assert_eq!(zero.unix_ns(Format::Ptp, year_2106 - 1), Some(year_2106));
        assert_eq!(zero.unix_ns(Format::Ptp, SECOND), Some(0));
    }

    #[test]
    fn ptp_nanoseconds_of_a_second_and_more_are_no_time() {
        for (low, expected) in [
            (999_999_999, Some(999_999_999)),
            (1_000_000_000, None),
            (u64::from(u32::MAX), None),
        ] {
            assert_eq!(Timestamp::from_raw(low).unix_ns(Format::Ptp, 0), expected);
        }
    }

    #[test]
    fn the_ends_of_i64_survive_and_beyond_them_is_none() {
        for format in [Format::Ntp, Format::Ptp] {
            for ns in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
                let timestamp = Timestamp::from_unix_ns(ns, format);
                assert_eq!(timestamp.unix_ns(format, ns), Some(ns));
            }
            let second = 1 << 32;
            let after = Timestamp::from_unix_ns(i64::MAX, format).raw() + second;
            assert_eq!(Timestamp::from_raw(after).unix_ns(format, i64::MAX), None);
            let before = Timestamp::from_unix_ns(i64::MIN, format).raw() - second;
            assert_eq!(Timestamp::from_raw(before).unix_ns(format, i64::MIN), None);
        }
    }

    #[test]
    fn error_estimates_match_the_vectors() {
        let vectors = vectors();
        let rows = vectors["error_estimates"].as_array().unwrap();
        assert_eq!(rows.len(), 7);
        for row in rows {
            let raw = u16::try_from(hex_u64(&row["raw"])).unwrap();
            let estimate = ErrorEstimate::from_raw(raw);
            assert_eq!(estimate.raw(), raw);
            if row["invalid"].is_string() {
                assert!(!estimate.is_usable(), "{row}");
                assert_eq!(estimate.error_ns(), None, "{row}");
                continue;
            }
            assert!(estimate.is_usable(), "{row}");
            assert_eq!(u8::from(estimate.synchronised()), row["S"], "{row}");
            assert_eq!(u8::from(estimate.format() == Format::Ptp), row["Z"]);
            assert_eq!(estimate.scale(), row["scale"], "{row}");
            assert_eq!(estimate.multiplier(), row["multiplier"], "{row}");
            let Some(error_ns) = estimate.error_ns() else {
                assert_eq!(estimate, ErrorEstimate::UNKNOWN);
                continue;
            };
            let seconds = row["seconds"].as_f64().unwrap();
            // At most a second in the vectors, so 32 bits hold it and `f64` is exact.
            let rounded = u32::try_from(error_ns).map(f64::from).unwrap();
            assert!((0.0..1.0).contains(&(rounded - seconds * 1e9)), "{row}");
        }
    }

    #[test]
    fn error_estimates_are_written_normalised() {
        for (error_ns, scale, multiplier) in [
            (0, 0, 1),
            (1, 0, 5),
            (59, 0, 254),             // 253.4 units
            (60, 1, 129),             // 257.7 units
            (238, 3, 128),            // 1022.2 units are 255.6 * 4, rounded up 256 * 4
            (1_000, 5, 135),          // 4295 units
            (1_000_000_000, 25, 128), // 2^32 units
            (u64::MAX, 59, 138),
        ] {
            let estimate = ErrorEstimate::new(true, Format::Ptp, error_ns);
            let found = (estimate.scale(), estimate.multiplier());
            assert_eq!(found, (scale, multiplier), "{error_ns}");
        }
    }

    #[test]
    fn error_estimates_read_well() {
        for (raw, text) in [
            (0x8b05, "S=1 Z=0 2.4 µs"),
            (0xc903, "S=1 Z=1 357.6 ns"),
            (0x14c8, "S=0 Z=0 48.8 ms"),
            (0xa001, "S=1 Z=0 1.0 s"),
            (0x8500, "S=1 Z=0 not usable"),
            (0x3fff, "S=0 Z=0 unknown"),
        ] {
            assert_eq!(ErrorEstimate::from_raw(raw).to_string(), text);
        }
    }

    fn any_format() -> impl Strategy<Value = Format> {
        prop_oneof![Just(Format::Ntp), Just(Format::Ptp)]
    }

    /// Around the present, across the era of 2036, and everything else.
    fn any_ns() -> impl Strategy<Value = i64> {
        prop_oneof![
            -63 * YEAR..126 * YEAR,
            ERA_1 - 2 * SECOND..ERA_1 + 2 * SECOND,
            -2 * SECOND..2 * SECOND,
            any::<i64>(),
        ]
    }

    proptest! {
        #[test]
        fn every_nanosecond_survives(
            ns in any_ns(),
            apart in -60 * YEAR..60 * YEAR,
            format in any_format(),
        ) {
            let timestamp = Timestamp::from_unix_ns(ns, format);
            prop_assert_eq!(timestamp.unix_ns(format, ns.saturating_add(apart)), Some(ns));
        }

        #[test]
        fn any_bits_are_a_time_near_or_none(
            raw in any::<u64>(),
            near in any_ns(),
            format in any_format(),
        ) {
            let Some(ns) = Timestamp::from_raw(raw).unix_ns(format, near) else {
                let invalid = format == Format::Ptp && raw & LOW_32_BITS >= NS_PER_SECOND;
                let at_an_end = near.checked_add(69 * YEAR).is_none()
                    || near.checked_sub(69 * YEAR).is_none();
                prop_assert!(invalid || at_an_end);
                return Ok(());
            };
            let half_era = ((1 << 31) + 1) * NS_PER_SECOND;
            prop_assert!(ns.abs_diff(near) <= half_era);
            // A nanosecond is 4.3 units: reading loses less than one nanosecond.
            let lost = raw.wrapping_sub(Timestamp::from_unix_ns(ns, format).raw());
            let allowed = match format {
                Format::Ntp => 4,
                Format::Ptp => 0,
            };
            prop_assert!(lost <= allowed);
        }

        #[test]
        fn an_error_estimate_is_never_below_the_error_and_hardly_above(
            error_ns in prop_oneof![0..2_000_u64, 0..2_000_000_000_u64, any::<u64>()],
            synchronised in any::<bool>(),
            format in any_format(),
        ) {
            let estimate = ErrorEstimate::new(synchronised, format, error_ns);
            prop_assert!(estimate.is_usable());
            prop_assert_eq!(estimate.synchronised(), synchronised);
            prop_assert_eq!(estimate.format(), format);
            prop_assert!(estimate.scale() == 0 || estimate.multiplier() >= 128);
            let units = u128::from(estimate.multiplier()) << estimate.scale();
            let found = (units * u128::from(NS_PER_SECOND)).div_ceil(1 << 32);
            prop_assert!(found >= u128::from(error_ns));
            prop_assert!(found * 128 <= u128::from(error_ns) * 129 + 128);
            prop_assert_eq!(estimate.error_ns(), u64::try_from(found).ok());
        }

        #[test]
        fn any_error_estimate_is_read_and_written_back(raw in any::<u16>()) {
            let estimate = ErrorEstimate::from_raw(raw);
            let s = u16::from(estimate.synchronised()) << 15;
            let z = u16::from(estimate.format() == Format::Ptp) << 14;
            let error = u16::from_be_bytes([estimate.scale(), estimate.multiplier()]);
            prop_assert_eq!(s | z | error, raw);
            prop_assert_eq!(estimate.is_usable(), raw & 0xff != 0);
            let _ = (estimate.error_ns(), estimate.to_string());
        }
    }
}
