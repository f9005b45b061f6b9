//! Why a typed value was refused, and what to write instead.
//!
//! One enum for all value types, so that the command line, a configuration file and the tests name
//! a refusal alike. The text leaves out which flag or key held the value: the caller adds that.
//! Text that the user typed is made printable by [`shown`] first.

use thiserror::Error;

/// Why a typed value was refused. Its text is one line: what is wrong, and what to use instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Neither a number of packets a second nor packets by time.
    #[error("{0} is no rate; use packets a second, such as 100k, 1.5M or 0.5, or 1/20ms")]
    NotARate(String),
    /// Bits a second where packets are meant.
    #[error("{0} is a bit rate; use packets a second, such as 100k (a sender has --bandwidth)")]
    BitsForPackets(String),
    /// A lower-case m, which could be read as a thousandth.
    #[error("{0} reads as thousandths; use M for a million packets a second")]
    MilliRate(String),
    /// A rate of 0.
    #[error("a rate of 0 sends nothing; use 1 or more")]
    ZeroRate,
    /// A rate under one packet in 24 hours.
    #[error("{0} is under one packet a day; use 1/24h or more")]
    LowRate(String),
    /// A rate above 100,000,000,000 packets a second.
    #[error("{0} is above 100G packets a second; use 100G or less")]
    HighRate(String),
    /// No bits a second.
    #[error("{0} is no bit rate; use 1 to 100T bits a second, such as 10Mbit or 1.5Gbit")]
    NotABandwidth(String),
    /// A bit rate in octets.
    #[error("{0} reads as bytes; use bits, such as 80Mbit for ten million bytes a second")]
    Bytes(String),
    /// A rate of packets where bits are meant.
    #[error("{0} is a rate of packets; use bits, such as 10Mbit, or --rate")]
    PacketsForBits(String),
    /// A number with more digits than are kept exactly.
    #[error("{0} has too many digits; use at most 9 decimals")]
    TooManyDigits(String),

    /// No duration.
    #[error("{0} is no duration; use a number and a unit, such as 10ms, 1.5s or 1m30s")]
    NotASpan(String),
    /// A number without unit, where either reading is plausible.
    #[error("{0}: which unit? use {0}ms or {0}s")]
    NoUnit(String),
    /// A unit of time that is not known here.
    #[error("{0}: unknown unit; use ns, us, ms, s, m, h or d")]
    UnknownUnit(String),
    /// A duration that is no whole number of nanoseconds.
    #[error("{0} is finer than a nanosecond; use a whole number of ns")]
    FineSpan(String),
    /// A duration of more than a hundred years.
    #[error("{0} is too long; use 36500d or less")]
    LongSpan(String),
    /// An interval of 0.
    #[error("an interval of 0 has no rate; use 1ns or more")]
    ZeroInterval,
    /// An interval of more than a day.
    #[error("an interval of {0} is above a day; use 24h or less")]
    LongInterval(String),

    /// No percentage.
    #[error("{0} is no percentage; use 0 to 100, such as 5 or 0.5%")]
    NotAPercentage(String),
    /// A percentage above 100.
    #[error("{0} is above 100 percent; use 0 to 100")]
    HighPercentage(String),
    /// A percentage that is no whole number of millionths.
    #[error("{0} is finer than one in a million; use at most 4 decimals")]
    FinePercentage(String),

    /// An unknown DSCP name.
    #[error(
        "{0} is no DSCP; use be, le, cs1 to cs7, af11 to af43, ef, va, nc1, nc2, cp1 to cp63, or 0 to 63"
    )]
    NotADscp(String),
    /// A DSCP number above 63.
    #[error("{0} is no DSCP; use 0 to 63 (a TOS octet is four times that: see --tos)")]
    HighDscp(String),
    /// No TOS octet.
    #[error("{0} is no TOS octet; use 0 to 255 or 0x00 to 0xff")]
    NotATos(String),

    /// No list of sizes and weights.
    #[error("{0} is no mix of sizes; use SIZE:WEIGHT, such as 64:7,590:4,1514:1")]
    NotAMix(String),
    /// A frame that can hold no TWAMP request in either address family, or no UDP datagram.
    #[error("a frame of {0} bytes: use 56 to 65569 (Ethernet without FCS)")]
    FrameSize(usize),
    /// A weight of 0.
    #[error("size {0} has weight 0; use 1 or more, or leave it out")]
    ZeroWeight(usize),
    /// The same size twice.
    #[error("size {0} is there twice; use it once, with the sum of its weights")]
    RepeatedSize(usize),
    /// More than 16 sizes.
    #[error("{0} sizes: use at most 16")]
    ManySizes(usize),
    /// No list of sizes.
    #[error("{0} is no list of frame sizes; use such as 83,512,1514,imix")]
    NotFrameSizes(String),
    /// The same entry of a list twice.
    #[error("size {0} is there twice; use it once")]
    SizeTwice(String),
    /// Weights whose sum is above 1024.
    #[error("the weights sum to {0}; use smaller ones with a sum of at most 1024")]
    HighWeights(u64),

    /// No list of CPUs.
    #[error("{0} is no list of CPUs; use numbers and ranges, such as 0,2 or 0-3,8")]
    NotCpus(String),
    /// A CPU number above 1023.
    #[error("CPU {0}: use 0 to 1023")]
    HighCpu(usize),
    /// The same CPU twice.
    #[error("CPU {0} is there twice; use it once")]
    RepeatedCpu(usize),
    /// A range that runs downwards.
    #[error("{0}-{1} runs downwards; use {1}-{0}")]
    ReversedCpus(usize, usize),

    /// A port that is no number up to 65535.
    #[error("port {0}: use 1 to 65535")]
    NotAPort(String),
    /// A colon without a port.
    #[error("{0}: no port after the colon; use one, such as :20001, or leave the colon out")]
    NoPort(String),
    /// A bracket that is not closed.
    #[error("{0}: missing ]; use [ADDRESS] or [ADDRESS]:PORT")]
    OpenBracket(String),
    /// Text after the bracket that is no port.
    #[error("{0}: only :PORT may follow the ]")]
    AfterBracket(String),
    /// No IPv6 address where there must be one.
    #[error("{0} is no IPv6 address; use such as 2001:db8::1, and [2001:db8::1]:20001 with a port")]
    NotV6(String),
    /// A scope that can't be the name or index of an interface.
    #[error("{0}: no interface after the %; use its name or index, such as fe80::1%eth0")]
    NotAScope(String),
    /// Numbers and dots that are no IPv4 address.
    #[error("{0} is no IPv4 address; use four numbers of 0 to 255, such as 192.0.2.1")]
    NotV4(String),
    /// A number where a host was expected.
    #[error("{0} is no host; for a port use :{0}")]
    BareNumber(String),
    /// A host name with illegal characters or lengths.
    #[error("{0} is no host name; use letters, digits, - and _ in labels of 1 to 63, and dots")]
    NotAName(String),

    /// No address prefix.
    #[error("{0} is no address prefix; use such as 192.0.2.0/24, 2001:db8::/32 or one address")]
    NotAPrefix(String),
    /// A prefix length outside the address.
    #[error("{0}: use a prefix length of 0 to {1}")]
    PrefixLength(String, u8),
    /// A prefix with address bits beyond its length.
    #[error("{0} has bits set beyond its length; use {1}")]
    HostBits(String, String),
}

/// Typed text for a message: at most 60 characters, one line, nothing that moves a cursor.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == LONGEST {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_text_stays_on_one_line_and_is_cut() {
        assert_eq!(shown("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(shown("10µs"), "10µs");
        assert_eq!(shown(""), "an empty text");
        assert_eq!(shown(&"x".repeat(61)), format!("{}…", "x".repeat(60)));
    }
}
