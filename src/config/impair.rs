//! What a reflector in test mode does to packets on purpose: shares, delays, direction.

use std::fmt;
use std::str::FromStr;

use super::Rate;
use super::error::{ValueError, shown};
use super::quantity::{Decimal, NoDecimal, decimal};

/// Millionths that make up the whole.
const WHOLE: u32 = 1_000_000;

/// A share of packets, 0 to 100 %, in whole millionths.
///
/// Text: a number of percent, with or without the sign: `5`, `0.5`, `2.25%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// In millionths, 0 to 1,000,000.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// As a fraction, 0 to 1; for reports.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }
}

impl FromStr for Percent {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (number, rest) = Decimal::split(text.trim()).map_err(|refused| match refused {
            NoDecimal::Digits => ValueError::FinePercentage(shown(text)),
            NoDecimal::NotANumber => ValueError::NotAPercentage(shown(text)),
        })?;
        if !matches!(rest.trim_start(), "" | "%") {
            return Err(ValueError::NotAPercentage(shown(text)));
        }
        let scaled = number.digits * u128::from(WHOLE / 100);
        if scaled > number.one() * u128::from(WHOLE) {
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

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = decimal(u128::from(self.0), u128::from(WHOLE / 100)).unwrap_or_default();
        f.pad(&format!("{percent}%"))
    }
}

/// Which way of the round trip an impairment stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the reflector back to the sender: after the reply has its number and before it leaves.
    #[default]
    Inbound,
    /// From the sender to the reflector: before the request counts as received.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// What is done to packets on purpose.
///
/// One draw a packet decides which one thing, if any, happens to it, so that each share is exact
/// and no packet counts twice. The shares sum to at most 100 %.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairment {
    /// Where.
    pub direction: Direction,
    /// Share that vanishes.
    pub drop: Percent,
    /// Share of which a copy follows at once.
    pub duplicate: Percent,
    /// Share that is held until a later packet of its session has overtaken it.
    pub reorder: Percent,
    /// Share that is held for a time drawn evenly from `delay_ns`.
    pub delay: Percent,
    /// Share whose Sender Timestamp is changed.
    pub corrupt: Percent,
    /// The shortest and the longest delay, in nanoseconds.
    pub delay_ns: (u64, u64),
    /// Packets that get through in each second; what is above vanishes. `None`: no limit.
    pub rate_limit: Option<Rate>,
    /// Seed of all draws.
    pub seed: u64,
}

impl Impairment {
    /// The sum of all shares, in millionths.
    #[must_use]
    pub fn total_ppm(&self) -> u32 {
        let shares = [
            self.drop,
            self.duplicate,
            self.reorder,
            self.delay,
            self.corrupt,
        ];
        shares.iter().map(|share| share.ppm()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_read_and_print() {
        for (text, ppm, printed) in [
            ("5", 50_000, "5%"),
            ("5%", 50_000, "5%"),
            ("0.5 %", 5_000, "0.5%"),
            ("0", 0, "0%"),
            ("100", WHOLE, "100%"),
            ("0.0001", 1, "0.0001%"),
        ] {
            let percent: Percent = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((percent.ppm(), &*percent.to_string()), (ppm, printed));
            assert_eq!(printed.parse(), Ok(percent));
        }
        for (text, error) in [
            ("101", ValueError::HighPercentage("101".into())),
            ("0.00001", ValueError::FinePercentage("0.00001".into())),
            ("-1", ValueError::NotAPercentage("-1".into())),
            ("half", ValueError::NotAPercentage("half".into())),
            ("5%%", ValueError::NotAPercentage("5%%".into())),
        ] {
            assert_eq!(text.parse::<Percent>(), Err(error), "{text}");
        }
    }
}
