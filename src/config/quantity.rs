//! Durations and fractions, and the decimal text that they and [`Rate`](super::Rate) share.
//!
//! Nothing here passes through a float on its way in: `0.1` is one tenth, so a schedule does not
//! drift and what is displayed parses back to the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::error::{ValueError, shown};

/// A duration in whole nanoseconds, 0 to 36,500 days.
///
/// Text: `10ms`, `1.5ms`, `10us`, `10µs`, `500ns`, `1m30s`, `2h`, `1d`. A number without unit is
/// refused, unless it is 0: [`Interval`] and [`Seconds`] are the types with a unit by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// 36,500 days: together with today's date it still fits in 63 bits of nanoseconds.
    pub const MAX: Self = Self(36_500 * DAY);

    /// From nanoseconds; what is longer than [`Span::MAX`] becomes that.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        if ns > Self::MAX.0 {
            Self::MAX
        } else {
            Self(ns)
        }
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// In nanoseconds, for sums with the engine's signed times.
    #[must_use]
    pub const fn signed_ns(self) -> i64 {
        self.0.cast_signed() // at most Span::MAX, below 2^63
    }

    /// In seconds, rounded to a float; for reports.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        Duration::from(self).as_secs_f64()
    }

    /// Reads text in which a number without unit has the unit `default`.
    fn parse(text: &str, default: Option<&str>) -> Result<Self, ValueError> {
        let mut ns = 0_u128;
        let mut rest = text.trim();
        let mut bare = true;
        loop {
            let (number, after) = Decimal::split(rest).map_err(|refused| match refused {
                NoDecimal::Digits => ValueError::TooManyDigits(shown(text)),
                NoDecimal::NotANumber => ValueError::NotASpan(shown(text)),
            })?;
            let after = after.trim_start();
            let end = after.find(|c: char| !c.is_alphabetic());
            let (unit, after) = after.split_at(end.unwrap_or(after.len()));
            let unit_ns = match (unit, default) {
                ("", Some(default)) if bare && after.is_empty() => unit_ns(default),
                ("", None) if bare && after.is_empty() && number.digits == 0 => Some(1),
                ("", None) if bare && after.is_empty() => {
                    return Err(ValueError::NoUnit(shown(text.trim())));
                }
                ("", _) => return Err(ValueError::NotASpan(shown(text))),
                (unit, _) => unit_ns(unit),
            };
            let unit_ns = unit_ns.ok_or_else(|| ValueError::UnknownUnit(shown(text)))?;
            let long = || ValueError::LongSpan(shown(text));
            let scaled = number
                .digits
                .checked_mul(u128::from(unit_ns))
                .ok_or_else(long)?;
            if scaled % number.one() != 0 {
                return Err(ValueError::FineSpan(shown(text)));
            }
            ns = ns.saturating_add(scaled / number.one());
            if ns > u128::from(Self::MAX.0) {
                return Err(long());
            }
            bare = false;
            rest = after.trim_start();
            if rest.is_empty() {
                return Ok(Self(narrow(ns)));
            }
        }
    }
}

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut left = self.0;
        if left >= MINUTE {
            for (unit_ns, unit) in [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')] {
                if left >= unit_ns {
                    text.push_str(&format!("{}{unit}", left / unit_ns));
                    left %= unit_ns;
                }
            }
        }
        if left > 0 || text.is_empty() {
            let (unit_ns, unit) = [(SECOND, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")]
                .into_iter()
                .find(|(unit_ns, _)| left >= *unit_ns)
                .unwrap_or((SECOND, "s"));
            if let Some(number) = decimal(u128::from(left), u128::from(unit_ns)) {
                text.push_str(&number);
                text.push_str(unit);
            }
        }
        f.pad(&text)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_nanos(span.0)
    }
}

/// The time between two departures, 1 ns to 24 h; a number without unit is milliseconds (`0.5`
/// is 500 µs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(Span);

impl Interval {
    /// From a duration.
    ///
    /// # Errors
    /// For 0 and for more than 24 hours.
    pub fn new(span: Span) -> Result<Self, ValueError> {
        match span.0 {
            0 => Err(ValueError::ZeroInterval),
            1..=DAY => Ok(Self(span)),
            _ => Err(ValueError::LongInterval(span.to_string())),
        }
    }

    /// As a duration.
    #[must_use]
    pub const fn span(self) -> Span {
        self.0
    }

    /// In nanoseconds, never 0.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0.0
    }
}

impl FromStr for Interval {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::new(Span::parse(text, Some("ms"))?)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A duration, 0 to 36,500 days; a number without unit is seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(Span);

impl Seconds {
    /// As a duration.
    #[must_use]
    pub const fn span(self) -> Span {
        self.0
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0.0
    }
}

impl From<Span> for Seconds {
    fn from(span: Span) -> Self {
        Self(span)
    }
}

impl FromStr for Seconds {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Span::parse(text, Some("s")).map(Self)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A share of 0 to 1 in steps of a millionth. Text: a number of percent, with or without the sign:
/// `5`, `0.5`, `2.25%`; no flag reads a bare number as anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fraction(u32);

impl Fraction {
    /// From millionths; `None` above 1,000,000.
    #[must_use]
    pub const fn from_ppm(ppm: u32) -> Option<Self> {
        if ppm <= MILLION {
            Some(Self(ppm))
        } else {
            None
        }
    }

    /// In millionths, 0 to 1,000,000.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// As a float, 0 to 1.
    #[must_use]
    pub fn value(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }

    /// Whether `part` is a larger share of `whole` than this.
    #[must_use]
    pub fn exceeded_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(MILLION) > u128::from(whole) * u128::from(self.0)
    }
}

impl FromStr for Fraction {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (number, rest) = Decimal::split(text.trim()).map_err(|refused| match refused {
            NoDecimal::Digits => ValueError::FinePercentage(shown(text)),
            NoDecimal::NotANumber => ValueError::NotAPercentage(shown(text)),
        })?;
        if !matches!(rest.trim_start(), "" | "%") {
            return Err(ValueError::NotAPercentage(shown(text)));
        }
        let scaled = number.digits * u128::from(MILLION / 100);
        if scaled > number.one() * u128::from(MILLION) {
            return Err(ValueError::HighPercentage(shown(text)));
        }
        if scaled % number.one() != 0 {
            return Err(ValueError::FinePercentage(shown(text)));
        }
        u32::try_from(scaled / number.one())
            .map(Self)
            .map_err(|_| ValueError::HighPercentage(shown(text)))
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = decimal(u128::from(self.0), u128::from(MILLION / 100)).unwrap_or_default();
        f.pad(&format!("{percent}%"))
    }
}

/// A number as typed: `digits` / 10^`scale`.
pub(super) struct Decimal {
    /// Below 10^28, so that a factor of 10^9 still fits.
    pub(super) digits: u128,
    /// At most 18.
    scale: u32,
}

/// Why there is no [`Decimal`] at the start of a text.
pub(super) enum NoDecimal {
    NotANumber,
    Digits,
}

impl Decimal {
    /// The number at the start of `text`, without sign or exponent, and what follows it.
    pub(super) fn split(text: &str) -> Result<(Self, &str), NoDecimal> {
        const DIGITS_MAX: usize = 28;
        const SCALE_MAX: u32 = 18;
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, rest) = text.split_at(end.unwrap_or(text.len()));
        let (whole, part) = match number.split_once('.') {
            Some((_, "")) => return Err(NoDecimal::NotANumber),
            Some((_, part)) if part.contains('.') => return Err(NoDecimal::NotANumber),
            Some(both) => both,
            None if number.is_empty() => return Err(NoDecimal::NotANumber),
            None => (number, ""),
        };
        let whole = whole.trim_start_matches('0');
        let part = part.trim_end_matches('0');
        let scale = u32::try_from(part.len()).unwrap_or(u32::MAX);
        if whole.len() + part.len() > DIGITS_MAX || scale > SCALE_MAX {
            return Err(NoDecimal::Digits);
        }
        let digits = whole
            .bytes()
            .chain(part.bytes())
            .fold(0, |n, digit| n * 10 + u128::from(digit - b'0'));
        Ok((Self { digits, scale }, rest))
    }

    /// What 1 is in units of the last digit.
    pub(super) fn one(&self) -> u128 {
        10_u128.pow(self.scale)
    }
}

/// `number` / `unit` in decimals; `None` where that takes more than 18 of them.
pub(super) fn decimal(number: u128, unit: u128) -> Option<String> {
    let mut text = (number / unit).to_string();
    let mut rest = number % unit;
    for n in 0..18 {
        if rest == 0 {
            break;
        }
        if n == 0 {
            text.push('.');
        }
        rest *= 10;
        text.push_str(&(rest / unit).to_string());
        rest %= unit;
    }
    (rest == 0).then_some(text)
}

/// A unit of time in nanoseconds.
fn unit_ns(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" | "nsec" => 1,
        // The micro sign and the Greek letter look the same on screen.
        "us" | "usec" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" | "msec" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        _ => return None,
    })
}

pub(super) fn narrow(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

pub(super) const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
const MILLION: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused<T: FromStr<Err = ValueError> + fmt::Debug>(text: &str) -> ValueError {
        text.parse::<T>().expect_err(text)
    }

    #[test]
    fn spans_read_and_print() {
        for (text, ns, printed) in [
            ("10ms", 10_000_000, "10ms"),
            ("1.5ms", 1_500_000, "1.5ms"),
            ("10us", 10_000, "10us"),
            ("10µs", 10_000, "10us"),
            ("10μs", 10_000, "10us"),
            ("500ns", 500, "500ns"),
            ("1500ns", 1_500, "1.5us"),
            ("1m30s", 90 * SECOND, "1m30s"),
            ("1m 30.5 s", 90 * SECOND + 500_000_000, "1m30.5s"),
            ("90s", 90 * SECOND, "1m30s"),
            ("2h", 2 * HOUR, "2h"),
            ("1.5h", HOUR + 30 * MINUTE, "1h30m"),
            ("1h1ns", HOUR + 1, "1h1ns"),
            ("24h", DAY, "1d"),
            ("0", 0, "0s"),
            ("0ms", 0, "0s"),
            ("36500d", Span::MAX.0, "36500d"),
        ] {
            let span: Span = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((span.ns(), span.to_string().as_str()), (ns, printed));
        }
        assert_eq!(
            i128::from(Span::MAX.signed_ns()),
            i128::from(Span::MAX.ns())
        );
        assert_eq!(Span::from_ns(u64::MAX), Span::MAX);
        assert_eq!(format!("{:>6}|", Span(1_000_000)), "   1ms|");
    }

    #[test]
    fn spans_refused() {
        use ValueError as E;
        for (text, error) in [
            ("10", E::NoUnit("10".into())),
            ("0.5", E::NoUnit("0.5".into())),
            ("", E::NotASpan(shown(""))),
            ("ms", E::NotASpan("ms".into())),
            ("-1s", E::NotASpan("-1s".into())),
            ("1m30", E::NotASpan("1m30".into())),
            ("1s,", E::NotASpan("1s,".into())),
            ("1..5s", E::NotASpan("1..5s".into())),
            ("5 parsecs", E::UnknownUnit("5 parsecs".into())),
            ("1MS", E::UnknownUnit("1MS".into())),
            ("0.5ns", E::FineSpan("0.5ns".into())),
            ("36501d", E::LongSpan("36501d".into())),
            // humantime 2.4.0 panics at this one.
            (
                "18446744073709551615s 1000000000ns",
                E::LongSpan("18446744073709551615s 1000000000ns".into()),
            ),
            (
                "9999999999999999999999999999d",
                E::LongSpan("9999999999999999999999999999d".into()),
            ),
        ] {
            assert_eq!(refused::<Span>(text), error, "{text}");
        }
        assert_eq!(
            E::NoUnit("10".into()).to_string(),
            "10: which unit? use 10ms or 10s"
        );
    }

    #[test]
    fn a_number_without_unit_has_the_unit_of_its_type() {
        for (text, ns) in [
            ("10", 10_000_000),
            ("0.5", 500_000),
            (".5", 500_000),
            ("10s", 10 * SECOND),
            ("24h", DAY),
        ] {
            assert_eq!(text.parse::<Interval>().map(Interval::ns), Ok(ns));
        }
        for (text, ns) in [
            ("10", 10 * SECOND),
            ("5.0", 5 * SECOND),
            ("2h", 2 * HOUR),
            ("0", 0),
        ] {
            assert_eq!(text.parse::<Seconds>().map(Seconds::ns), Ok(ns));
        }
        assert_eq!(refused::<Interval>("0"), ValueError::ZeroInterval);
        assert_eq!(
            refused::<Interval>("25h"),
            ValueError::LongInterval("1d1h".into())
        );
        assert_eq!(
            refused::<Seconds>("1m30"),
            ValueError::NotASpan("1m30".into())
        );
    }

    #[test]
    fn fractions_read_and_print() {
        for (text, ppm, printed) in [
            ("5", 50_000, "5%"),
            ("5%", 50_000, "5%"),
            ("0.5 %", 5_000, "0.5%"),
            ("12.5 %", 125_000, "12.5%"),
            ("0", 0, "0%"),
            ("1", 10_000, "1%"),
            ("100", MILLION, "100%"),
            ("0.0001", 1, "0.0001%"),
        ] {
            let fraction: Fraction = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (fraction.ppm(), fraction.to_string().as_str()),
                (ppm, printed)
            );
        }
        assert!((Fraction(250_000).value() - 0.25).abs() < 1e-12);
        for (text, error) in [
            ("101", ValueError::HighPercentage("101".into())),
            ("100.1%", ValueError::HighPercentage("100.1%".into())),
            ("0.00001", ValueError::FinePercentage("0.00001".into())),
            ("-1", ValueError::NotAPercentage("-1".into())),
            ("half", ValueError::NotAPercentage("half".into())),
            ("5%%", ValueError::NotAPercentage("5%%".into())),
        ] {
            assert_eq!(refused::<Fraction>(text), error);
        }
    }

    proptest! {
        #[test]
        fn a_printed_span_reads_as_itself(ns in 0..=Span::MAX.0, shift in 0..62_u32) {
            let span = Span::from_ns(ns >> shift);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            prop_assert_eq!(span.to_string().parse(), Ok(Seconds(span)));
            if let Ok(interval) = Interval::new(span) {
                prop_assert_eq!(interval.to_string().parse(), Ok(interval));
            }
        }

        #[test]
        fn a_printed_fraction_reads_as_itself(ppm in 0..=MILLION) {
            let fraction = Fraction(ppm);
            prop_assert_eq!(fraction.to_string().parse(), Ok(fraction));
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in prop_oneof![any::<String>(), "[0-9.]{0,40}[ kMGmunsµ/%hdp]{0,4}[0-9]{0,20}[a-zµ]{0,2}"]
        ) {
            if let Ok(span) = text.parse::<Span>() {
                prop_assert_eq!(span.to_string().parse(), Ok(span));
            }
            let _ = (text.parse::<Interval>(), text.parse::<Seconds>());
            if let Ok(fraction) = text.parse::<Fraction>() {
                prop_assert_eq!(fraction.to_string().parse(), Ok(fraction));
            }
        }
    }
}
