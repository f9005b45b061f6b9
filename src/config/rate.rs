//! The rate of a schedule, in packets or in bits: decimal text in, an exact ratio of integers inside.
//!
//! No float on the way in and none between two departures: packet `i` is due at a time computed
//! from `i` alone, so rounding never adds up. The sender's schedule calls [`Rate::due_ns`].

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::error::{ValueError, shown};
use super::quantity::{DAY, Decimal, Interval, NoDecimal, SECOND, Span, decimal, narrow};

/// Packets a second, kept exactly; one packet a day to 100,000,000,000 a second.
///
/// Text: `1000`, `0.5`, `100k`, `1.5M`, `2G` (decimal), with or without `pps` or `/s`, or packets
/// by time as in `1/20ms` and `3/7s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// This many packets every `per_ns`; the two have no common divisor.
    packets: u64,
    /// In nanoseconds, 1 to 10^18.
    per_ns: u64,
}

impl Rate {
    /// What is sent where nothing else is asked for.
    pub const TEN_A_SECOND: Self = Self {
        packets: 1,
        per_ns: 100_000_000,
    };

    /// One packet every `ns` nanoseconds; `None` for 0 and for more than 24 hours.
    #[must_use]
    pub fn from_interval(ns: u64) -> Option<Self> {
        Self::ratio(1, u128::from(ns), "").ok()
    }

    /// `packets` a second; `None` for 0 and above 100,000,000,000.
    #[must_use]
    pub fn from_per_second(packets: u64) -> Option<Self> {
        Self::ratio(u128::from(packets), u128::from(SECOND), "").ok()
    }

    /// The rate at which packets of `octets` each on average, as `packets` of them together have, make
    /// up `bandwidth`.
    ///
    /// # Errors
    /// Where that is under one packet a day or above 100,000,000,000 a second.
    pub fn of_bandwidth(
        bandwidth: Bandwidth,
        octets: u64,
        packets: u64,
    ) -> Result<Self, ValueError> {
        Self::ratio(
            u128::from(bandwidth.0) * u128::from(packets),
            u128::from(octets) * 8 * u128::from(SECOND),
            &bandwidth.to_string(),
        )
    }

    /// When packet `i` is due, in nanoseconds after packet 0: the floor of `i` / rate, exact for
    /// every `i`, and `u64::MAX` where that is later than 584 years.
    #[must_use]
    pub fn due_ns(self, i: u64) -> u64 {
        // Whole periods and the rest apart: 64 bits then hold all but the oddest rates.
        let (periods, rest) = (i / self.packets, i % self.packets);
        let within = match rest.checked_mul(self.per_ns) {
            Some(product) => product / self.packets,
            None => narrow(u128::from(rest) * u128::from(self.per_ns) / u128::from(self.packets)),
        };
        periods
            .checked_mul(self.per_ns)
            .and_then(|ns| ns.checked_add(within))
            .unwrap_or(u64::MAX)
    }

    /// How many packets are due before `duration_ns`, the one at 0 included.
    #[must_use]
    pub fn count_in(self, duration_ns: u64) -> u64 {
        let packets = u128::from(duration_ns) * u128::from(self.packets);
        narrow(packets.div_ceil(u128::from(self.per_ns)))
    }

    /// Packets a second, rounded to a float; for reports, not for schedules.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.packets as f64 * SECOND as f64 / self.per_ns as f64
    }

    /// The rate of each of `parts` that together have this one; at least one part.
    ///
    /// Exact but for rates whose nanoseconds do not fit 64 bits then, which no one types.
    #[must_use]
    pub fn shared_by(self, parts: usize) -> Self {
        let parts = parts.max(1) as u128;
        let common = common_divisor(u128::from(self.packets), parts);
        let mut packets = u128::from(self.packets) / common;
        let mut per_ns = u128::from(self.per_ns) * (parts / common);
        while per_ns > u128::from(u64::MAX) {
            (packets, per_ns) = (packets / 2, per_ns / 2);
        }
        Self {
            packets: narrow(packets.max(1)),
            per_ns: narrow(per_ns),
        }
    }

    /// Both rates together, exactly; `None` beyond the range of the type.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let cross = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let packets =
            cross(self.packets, other.per_ns).checked_add(cross(other.packets, self.per_ns))?;
        Self::ratio(packets, cross(self.per_ns, other.per_ns), "").ok()
    }

    /// `packets` every `per_ns`, within the range of the type; `text` is for the error.
    fn ratio(packets: u128, per_ns: u128, text: &str) -> Result<Self, ValueError> {
        const PER_NS_MAX: u64 = 1_000_000_000_000_000_000;
        if packets == 0 {
            return Err(ValueError::ZeroRate);
        }
        // 100G a second is 100 a nanosecond.
        if packets > per_ns.saturating_mul(100) {
            return Err(ValueError::HighRate(shown(text)));
        }
        if packets.saturating_mul(u128::from(DAY)) < per_ns {
            return Err(ValueError::LowRate(shown(text)));
        }
        let common = common_divisor(packets, per_ns);
        match (
            u64::try_from(packets / common),
            u64::try_from(per_ns / common),
        ) {
            (Ok(packets), Ok(per_ns)) if per_ns <= PER_NS_MAX => Ok(Self { packets, per_ns }),
            _ => Err(ValueError::TooManyDigits(shown(text))),
        }
    }
}

impl From<Interval> for Rate {
    fn from(interval: Interval) -> Self {
        Self {
            packets: 1,
            per_ns: interval.ns(),
        }
    }
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let no_rate = || ValueError::NotARate(shown(text));
        let (number, rest) = Decimal::split(text.trim()).map_err(|refused| match refused {
            NoDecimal::Digits => ValueError::TooManyDigits(shown(text)),
            NoDecimal::NotANumber => no_rate(),
        })?;
        let rest = rest.trim_start();
        let (factor, rest) = match rest.chars().next() {
            Some('k' | 'K') => (1_000, rest.get(1..)),
            Some('M') => (1_000_000, rest.get(1..)),
            Some('G') => (1_000_000_000, rest.get(1..)),
            Some('m') => return Err(ValueError::MilliRate(shown(text))),
            _ => (1, Some(rest)),
        };
        let per_ns = match rest.unwrap_or_default() {
            "" | "pps" | "p/s" | "/s" => SECOND,
            bits if bits.starts_with('b') => return Err(ValueError::BitsForPackets(shown(text))),
            other => {
                let per = other.strip_prefix('/').ok_or_else(no_rate)?;
                per.parse::<Span>().map_err(|_| no_rate())?.ns()
            }
        };
        if per_ns == 0 {
            return Err(no_rate());
        }
        Self::ratio(
            number.digits * factor,
            u128::from(per_ns) * number.one(),
            text,
        )
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a_second = u128::from(self.packets) * u128::from(SECOND);
        let per_ns = u128::from(self.per_ns);
        let (factor, suffix) = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")]
            .into_iter()
            .find(|(factor, _)| a_second >= per_ns * factor)
            .unwrap_or((1, ""));
        match decimal(a_second, per_ns * factor) {
            Some(number) => f.pad(&format!("{number}{suffix}")),
            None => f.pad(&format!("{}/{}", self.packets, Span::from_ns(self.per_ns))),
        }
    }
}

impl Ord for Rate {
    fn cmp(&self, other: &Self) -> Ordering {
        let cross = |a: u64, b: u64| u128::from(a) * u128::from(b);
        cross(self.packets, other.per_ns).cmp(&cross(other.packets, self.per_ns))
    }
}

impl PartialOrd for Rate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Bits a second, 1 to 100,000,000,000,000, of Ethernet frames without FCS: as sizes are given, and
/// as the report's bit rate is.
///
/// Text: `10Mbit`, `1.5Gbit/s`, `500kbps`, `10M` (decimal); a number without unit is bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bandwidth(u64);

impl Bandwidth {
    /// In bits a second, never 0.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl FromStr for Bandwidth {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let none = || ValueError::NotABandwidth(shown(text));
        let (number, rest) = Decimal::split(text.trim()).map_err(|_| none())?;
        let rest = rest.trim_start();
        let (factor, rest) = match rest.chars().next() {
            Some('k' | 'K') => (1_000, rest.get(1..)),
            Some('M') => (1_000_000, rest.get(1..)),
            Some('G') => (1_000_000_000, rest.get(1..)),
            Some('T') => (1_000_000_000_000, rest.get(1..)),
            _ => (1, Some(rest)),
        };
        match rest.unwrap_or_default() {
            "" | "bit" | "bits" | "b" | "bit/s" | "bits/s" | "b/s" | "bps" => {}
            rest if rest.starts_with('B') => return Err(ValueError::Bytes(shown(text))),
            rest if rest.starts_with("pps") || rest.starts_with("p/s") => {
                return Err(ValueError::PacketsForBits(shown(text)));
            }
            _ => return Err(none()),
        }
        let bits = number.digits * factor;
        if bits < number.one() || bits > number.one() * u128::from(BITS_MAX) {
            return Err(none());
        }
        if bits % number.one() != 0 {
            return Err(ValueError::TooManyDigits(shown(text)));
        }
        Ok(Self(narrow(bits / number.one())))
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
        let unit = units.into_iter().find(|(factor, _)| self.0 >= *factor);
        let (factor, suffix) = unit.unwrap_or((1, ""));
        let number = decimal(u128::from(self.0), factor.into()).unwrap_or_default();
        f.pad(&format!("{number}{suffix}bit"))
    }
}

/// The largest bandwidth.
const BITS_MAX: u64 = 100_000_000_000_000;

fn common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn shares_of_a_rate_add_up_to_it() {
        for (text, parts) in [("1k", 3), ("1", 7), ("100k", 100), ("3/7s", 11)] {
            let share = rate(text).shared_by(parts);
            let sum = (1..parts).try_fold(share, |sum, _| sum.plus(share));
            assert_eq!(sum, Some(rate(text)), "{parts} parts of {text}");
        }
        assert_eq!(rate("10").plus(rate("0.5")), Some(rate("10.5")));
        assert_eq!(rate("100G").plus(rate("1")), None);
    }

    #[test]
    fn a_shared_rate_is_exact() {
        for (text, parts, each) in [
            ("100k", 4, "25k"),
            ("100k", 3, "100k/3s"),
            ("1", 7, "1/7s"),
            ("2M", 1, "2M"),
            ("0.5", 2, "0.25"),
        ] {
            assert_eq!(rate(text).shared_by(parts), rate(each), "{text} by {parts}");
        }
        // Beyond 64 bits: as near as they allow.
        let odd = rate("1/86399999999999ns").shared_by(256);
        assert_eq!(odd.due_ns(1), 86_399_999_999_999 * 256);
        let odd = rate("99.999999999").shared_by(255);
        assert!((odd.per_second() * 255.0 - 100.0).abs() < 1e-6);
    }

    #[test]
    fn rates_read_and_print() {
        for (text, packets, per_ns, printed) in [
            ("100k", 1, 10_000, "100k"),
            ("100K", 1, 10_000, "100k"),
            ("100kpps", 1, 10_000, "100k"),
            ("100k/s", 1, 10_000, "100k"),
            ("100 kpps", 1, 10_000, "100k"),
            (" 1000 ", 1, 1_000_000, "1k"),
            ("1.5M", 3, 2_000, "1.5M"),
            ("2G", 2, 1, "2G"),
            ("100G", 100, 1, "100G"),
            ("0.5", 1, 2 * SECOND, "0.5"),
            (".5pps", 1, 2 * SECOND, "0.5"),
            ("0.10", 1, 10 * SECOND, "0.1"),
            ("1", 1, SECOND, "1"),
            ("999", 999, SECOND, "999"),
            ("1234567", 1_234_567, SECOND, "1.234567M"),
            ("1/20ms", 1, 20_000_000, "50"),
            ("1/3ns", 1, 3, "1/3ns"),
            ("7/11s", 7, 11 * SECOND, "7/11s"),
            ("1/24h", 1, DAY, "1/1d"),
        ] {
            let rate = rate(text);
            assert_eq!((rate.packets, rate.per_ns), (packets, per_ns), "{text}");
            assert_eq!(rate.to_string(), printed);
        }
    }

    #[test]
    fn rates_refused() {
        use ValueError as E;
        for (text, error) in [
            ("0", E::ZeroRate),
            ("0.0k", E::ZeroRate),
            ("101G", E::HighRate("101G".into())),
            ("100.000000001G", E::HighRate("100.000000001G".into())),
            ("0.00001", E::LowRate("0.00001".into())),
            ("1/25h", E::LowRate("1/25h".into())),
            ("1m", E::MilliRate("1m".into())),
            ("5Mbps", E::BitsForPackets("5Mbps".into())),
            ("10Mbit/s", E::BitsForPackets("10Mbit/s".into())),
            ("1.0000000001", E::TooManyDigits("1.0000000001".into())),
        ] {
            assert_eq!(text.parse::<Rate>().expect_err(text), error, "{text}");
        }
        for text in [
            "", "-1", "+1", "k", ".", "1.", "1.2.3", "inf", "nan", "1e6", "1kk", "1/", "1/0s",
            "1/2", "1k pps x", "١",
        ] {
            let error = text.parse::<Rate>().expect_err(text);
            assert_eq!(error, E::NotARate(shown(text)), "{text}");
        }
        assert_eq!(
            E::ZeroRate.to_string(),
            "a rate of 0 sends nothing; use 1 or more"
        );
    }

    #[test]
    fn bandwidths_read_and_print() {
        for (text, bits, printed) in [
            ("10Mbit", 10_000_000, "10Mbit"),
            ("10M", 10_000_000, "10Mbit"),
            ("10 Mbit/s", 10_000_000, "10Mbit"),
            ("10Mbps", 10_000_000, "10Mbit"),
            ("1.5Gbit", 1_500_000_000, "1.5Gbit"),
            ("100Tb/s", 100_000_000_000_000, "100000Gbit"),
            ("64000", 64_000, "64kbit"),
            ("9.6k", 9_600, "9.6kbit"),
            ("1bit", 1, "1bit"),
        ] {
            let read: Bandwidth = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((read.bits(), &*read.to_string()), (bits, printed), "{text}");
            assert_eq!(printed.parse(), Ok(read));
        }
        use ValueError as E;
        for (text, error) in [
            ("10MB", E::Bytes("10MB".into())),
            ("10MByte/s", E::Bytes("10MByte/s".into())),
            ("10kpps", E::PacketsForBits("10kpps".into())),
            ("0.0001k", E::NotABandwidth("0.0001k".into())),
            ("1.5bit", E::TooManyDigits("1.5bit".into())),
            ("0", E::NotABandwidth("0".into())),
            ("101T", E::NotABandwidth("101T".into())),
            ("10Mibit", E::NotABandwidth("10Mibit".into())),
            ("fast", E::NotABandwidth("fast".into())),
            ("10mbit", E::NotABandwidth("10mbit".into())),
        ] {
            assert_eq!(text.parse::<Bandwidth>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_bandwidth_is_a_rate_of_frames() {
        let rate_of = |text: &str, octets, packets| {
            Rate::of_bandwidth(text.parse().unwrap(), octets, packets).unwrap()
        };
        // 100 Mbit/s of frames of 1,250 octets, and of the dozen of IMIX, 4,322 octets.
        assert_eq!(rate_of("100Mbit", 1250, 1), rate("10k"));
        assert_eq!(rate_of("34576", 4322, 12), rate("12"));
        let third = rate_of("8Mbit", 3, 1);
        assert_eq!(third.due_ns(1_000_000), 3 * SECOND);
        // One frame in six days.
        let slow = Rate::of_bandwidth("1bit".parse().unwrap(), 65_569, 1);
        assert_eq!(slow, Err(ValueError::LowRate("1bit".into())));
    }

    #[test]
    fn an_interval_is_a_rate() {
        assert_eq!(Rate::from_interval(0), None);
        assert_eq!(Rate::from_interval(DAY + 1), None);
        assert_eq!(Rate::from_interval(10_000), Some(rate("100k")));
        assert_eq!(Rate::from_per_second(100_000), Some(rate("100k")));
        assert_eq!(Rate::from_per_second(0), None);
        let interval: Interval = "10".parse().expect("10 ms");
        assert_eq!(Rate::from(interval), rate("100"));
    }

    #[test]
    fn a_schedule_neither_drifts_nor_overflows() {
        let third = rate("3");
        assert_eq!(third.due_ns(0), 0);
        assert_eq!(third.due_ns(1), 333_333_333);
        assert_eq!(third.due_ns(2), 666_666_666);
        assert_eq!(third.due_ns(3_000_000_000), 1_000_000_000 * SECOND);
        assert_eq!(rate("100G").due_ns(1 << 63), (1 << 63) / 100);
        assert_eq!(rate("1/24h").due_ns(u64::MAX), u64::MAX);
        assert_eq!(third.count_in(0), 0);
        assert_eq!(third.count_in(1), 1);
        assert_eq!(third.count_in(333_333_333), 1);
        assert_eq!(third.count_in(333_333_334), 2);
        assert_eq!(third.count_in(SECOND), 3);
        assert_eq!(rate("100k").count_in(10 * SECOND), 1_000_000);
        assert_eq!(rate("100G").count_in(u64::MAX), u64::MAX);
        assert!((rate("1.5M").per_second() - 1.5e6).abs() < 1e-6);
        assert!(rate("1/3ns") > rate("333333333"));
    }

    /// Every rate that text can give: by interval, by decimal text, by packets and time.
    fn rates() -> impl Strategy<Value = Rate> {
        let found = |text: String| text.parse::<Rate>().ok();
        prop_oneof![
            (1..=DAY).prop_filter_map("range", Rate::from_interval),
            (1..=100_000_000_000_u64).prop_filter_map("range", Rate::from_per_second),
            "[0-9]{1,4}(\\.[0-9]{1,9})?[kMG]?".prop_filter_map("range", found),
            (1..=u64::MAX, 1..=1_000_000_000_000_000_000_u64)
                .prop_map(|(packets, ns)| format!("{packets}/{ns}ns"))
                .prop_filter_map("range", found),
        ]
    }

    proptest! {
        #[test]
        fn a_printed_rate_reads_as_itself(rate in rates()) {
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn due_times_are_exact_and_in_order(rate in rates(), i in 0..=1_u64 << 63) {
            let exact = u128::from(i) * u128::from(rate.per_ns) / u128::from(rate.packets);
            prop_assert_eq!(rate.due_ns(i), narrow(exact));
            prop_assert!(rate.due_ns(i) <= rate.due_ns(i + 1));
        }

        #[test]
        fn a_count_is_the_first_packet_not_due_before(rate in rates(), ns in 1..=Span::MAX.ns()) {
            let count = rate.count_in(ns);
            prop_assert!(count > 0);
            prop_assert!(rate.due_ns(count - 1) < ns);
            prop_assert!(count == u64::MAX || rate.due_ns(count) >= ns);
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in prop_oneof![any::<String>(), "[0-9.]{0,40} ?[kMGm]?[p/s]{0,3}[0-9]{0,20}[a-zµ]{0,2}"]
        ) {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }
    }
}
