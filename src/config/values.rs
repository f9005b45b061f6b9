//! What a packet looks like and where its thread runs: DSCP, TOS octet, sizes, CPUs.
//!
//! Every type reads the text it prints. Sizes that a user names are Ethernet frames without FCS;
//! a packet is built from octets of UDP payload; [`payload_of_frame`] is the only way across.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::error::{ValueError, shown};

/// Differentiated Services codepoint, 0 to 63 (RFC 2474 §3).
///
/// Text, in any case: the names of [`dscp_table`], `cp0` to `cp63`, `cs0` to `cs7`, `df`, `le`
/// (RFC 8622), `va` or `voice-admit` (RFC 5865), or a number, decimal or `0x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dscp(u8);

impl Dscp {
    /// `None` above 63.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value <= DSCP_MAX {
            Some(Self(value))
        } else {
            None
        }
    }

    /// 0 to 63.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }

    /// The whole TOS or Traffic Class octet: the codepoint in its upper six bits, ECN 0.
    #[must_use]
    pub const fn tos(self) -> u8 {
        self.0 << 2
    }

    /// Its name in twampy's table, which prefers `cp` and `nc` to younger names.
    fn table_name(self) -> String {
        match self.0 {
            1 | 44 => format!("cp{}", self.0),
            48 => "nc1".to_owned(),
            56 => "nc2".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl FromStr for Dscp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let name = text.trim().to_ascii_lowercase();
        if let Some(number) = decimal_or_hex::<u64>(&name) {
            return u8::try_from(number)
                .ok()
                .and_then(Self::new)
                .ok_or_else(|| ValueError::HighDscp(shown(text)));
        }
        let in_class = |prefix, range: std::ops::RangeInclusive<u8>, step: u8| {
            let number: u8 = digits(name.strip_prefix(prefix)?)?;
            range.contains(&number).then(|| number * step)
        };
        let value = match name.as_str() {
            "be" | "df" => Some(0),
            "le" => Some(1),
            "va" | "voice-admit" => Some(44),
            "ef" => Some(46),
            "nc1" => Some(48),
            "nc2" => Some(56),
            _ => in_class("cs", 0..=7, 8)
                .or_else(|| in_class("cp", 0..=DSCP_MAX, 1))
                .or_else(|| assured_forwarding(&name)),
        };
        value
            .map(Self)
            .ok_or_else(|| ValueError::NotADscp(shown(text)))
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        f.pad(&match value {
            0 => "be".to_owned(),
            1 => "le".to_owned(),
            44 => "va".to_owned(),
            46 => "ef".to_owned(),
            _ if value.is_multiple_of(8) => format!("cs{}", value / 8),
            // AF: class 1 to 4, drop precedence 1 to 3 (RFC 2597 §6).
            10..=38 if value.is_multiple_of(2) => format!("af{}{}", value / 8, value % 8 / 2),
            _ => format!("cp{value}"),
        })
    }
}

/// The TOS octet of IPv4 or Traffic Class of IPv6, ECN bits included; decimal or `0x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tos(u8);

impl Tos {
    /// Any octet.
    #[must_use]
    pub const fn new(octet: u8) -> Self {
        Self(octet)
    }

    /// 0 to 255.
    #[must_use]
    pub const fn octet(self) -> u8 {
        self.0
    }

    /// Its upper six bits.
    #[must_use]
    pub const fn dscp(self) -> Dscp {
        Dscp(self.0 >> 2)
    }
}

impl From<Dscp> for Tos {
    fn from(dscp: Dscp) -> Self {
        Self(dscp.tos())
    }
}

impl FromStr for Tos {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        decimal_or_hex(text.trim())
            .map(Self)
            .ok_or_else(|| ValueError::NotATos(shown(text)))
    }
}

impl fmt::Display for Tos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#04x}", self.0))
    }
}

/// The table that `dscptable` prints, twampy's octet for octet: names, codepoints, TOS octets.
/// Ends in a newline.
#[must_use]
pub fn dscp_table() -> String {
    let rule = "=".repeat(60);
    let thin = "-".repeat(60);
    let mut out = format!(
        "{rule}\nDSCP Mapping\n{rule}\n\
         DSCP Name      DSCP Value     TOS (bin)      TOS (hex)\n{thin}\n"
    );
    for dscp in (0..=DSCP_MAX).map(Dscp) {
        let (name, tos) = (dscp.table_name(), dscp.tos());
        let (high, low) = (tos >> 4, tos & 0xf);
        out.push_str(&format!(
            "{name:<15}{:<15}{high:04b} {low:04b}      {tos:02X}\n",
            dscp.value()
        ));
    }
    out.push_str(&rule);
    out.push('\n');
    out
}

/// The same table as one line of JSON without the line break: an array of 64 objects with `name`,
/// `dscp` (0 to 63) and `tos` (the octet, 0 to 252).
#[must_use]
pub fn dscp_table_json() -> String {
    let rows = (0..=DSCP_MAX).map(Dscp).map(|dscp| {
        let name = dscp.table_name();
        serde_json::json!({ "name": name, "dscp": dscp.value(), "tos": dscp.tos() })
    });
    serde_json::Value::from_iter(rows).to_string()
}

/// Which IP a session runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address; `::ffff:192.0.2.1` counts as IPv6.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Octets of an Ethernet frame without FCS around a UDP payload: 42 with IPv4, 62 with IPv6 (no
/// VLAN tag, IP options or extension headers).
#[must_use]
pub const fn frame_overhead(family: Family) -> usize {
    const ETHERNET: usize = 14;
    const UDP: usize = 8;
    match family {
        Family::V4 => ETHERNET + 20 + UDP,
        Family::V6 => ETHERNET + 40 + UDP,
    }
}

/// Octets of UDP payload in a frame; `None` below 14, TWAMP's smallest request (RFC 4656 §4.1.2),
/// and above 65,507, the largest UDP payload of IPv4.
#[must_use]
pub const fn payload_of_frame(frame: usize, family: Family) -> Option<usize> {
    match frame.checked_sub(frame_overhead(family)) {
        Some(payload) if payload >= PAYLOAD_MIN && payload <= PAYLOAD_MAX => Some(payload),
        _ => None,
    }
}

/// Octets of the frame around a UDP payload, without FCS; short frames are not padded to 60.
#[must_use]
pub const fn frame_of_payload(payload: usize, family: Family) -> usize {
    payload.saturating_add(frame_overhead(family))
}

/// Frame sizes and how often each is sent: 1 to 16 sizes, weights of 1 or more with a sum of at
/// most 1024, no size twice.
///
/// Text: `64:7,590:4,1514:1`; a size without weight has weight 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SizeMix(Vec<WeightedSize>);

/// One size of a [`SizeMix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightedSize {
    /// Octets of the Ethernet frame without FCS, 56 to 65,569: what one family or the other can
    /// send; [`payload_of_frame`] knows which.
    pub frame: usize,
    /// Packets of this size in each round, 1 to 1024.
    pub weight: u32,
}

impl SizeMix {
    /// Checks a mix.
    ///
    /// # Errors
    /// Where it is outside what the type allows.
    pub fn new(sizes: Vec<WeightedSize>) -> Result<Self, ValueError> {
        if sizes.is_empty() {
            return Err(ValueError::NotAMix(shown("")));
        }
        if sizes.len() > SIZES_MAX {
            return Err(ValueError::ManySizes(sizes.len()));
        }
        for (n, size) in sizes.iter().enumerate() {
            if !(FRAME_MIN..=FRAME_MAX).contains(&size.frame) {
                return Err(ValueError::FrameSize(size.frame));
            }
            if size.weight == 0 {
                return Err(ValueError::ZeroWeight(size.frame));
            }
            if sizes.iter().take(n).any(|s| s.frame == size.frame) {
                return Err(ValueError::RepeatedSize(size.frame));
            }
        }
        let sum: u64 = sizes.iter().map(|size| u64::from(size.weight)).sum();
        if sum > WEIGHTS_MAX {
            return Err(ValueError::HighWeights(sum));
        }
        Ok(Self(sizes))
    }

    /// The usual Internet mix, 64:7,590:4,1514:1. Its 64 octets hold no request over IPv6, where
    /// 76 is the smallest frame.
    #[must_use]
    pub fn imix() -> Self {
        let sizes = [(64, 7), (590, 4), (1514, 1)];
        Self(
            sizes
                .map(|(frame, weight)| WeightedSize { frame, weight })
                .to_vec(),
        )
    }

    /// The sizes in the order in which they were typed.
    #[must_use]
    pub fn sizes(&self) -> &[WeightedSize] {
        &self.0
    }

    /// Packets in one round, 1 to 1024.
    #[must_use]
    pub fn total_weight(&self) -> u32 {
        self.0.iter().map(|size| size.weight).sum()
    }
}

impl FromStr for SizeMix {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let read = |item: &str| {
            let (frame, weight) = item.split_once(':').unwrap_or((item, "1"));
            Some(WeightedSize {
                frame: digits(frame.trim())?,
                weight: digits(weight.trim())?,
            })
        };
        let sizes: Option<Vec<_>> = text.split(',').map(read).collect();
        Self::new(sizes.ok_or_else(|| ValueError::NotAMix(shown(text)))?)
    }
}

impl fmt::Display for SizeMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self.0.iter().map(|s| format!("{}:{}", s.frame, s.weight));
        f.pad(&items.collect::<Vec<_>>().join(","))
    }
}

/// CPUs for packet threads, in the order in which they are given out: at least one, each 0 to
/// 1023, none twice. Text: `0`, `0,2`, `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// Checks a list.
    ///
    /// # Errors
    /// Where it is empty, names a CPU above 1023, or one twice.
    pub fn new(cpus: Vec<usize>) -> Result<Self, ValueError> {
        if cpus.is_empty() {
            return Err(ValueError::NotCpus(shown("")));
        }
        for (n, cpu) in cpus.iter().enumerate() {
            if *cpu > CPU_MAX {
                return Err(ValueError::HighCpu(*cpu));
            }
            if cpus.iter().take(n).any(|c| c == cpu) {
                return Err(ValueError::RepeatedCpu(*cpu));
            }
        }
        Ok(Self(cpus))
    }

    /// The CPUs, never empty.
    #[must_use]
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = |item: &str| {
            digits::<usize>(item.trim()).ok_or_else(|| ValueError::NotCpus(shown(text)))
        };
        let mut cpus = Vec::new();
        for item in text.split(',') {
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(item)?, number(item)?),
            };
            if first > last {
                return Err(ValueError::ReversedCpus(first, last));
            }
            if last > CPU_MAX {
                return Err(ValueError::HighCpu(last));
            }
            cpus.extend(first..=last);
            // A longer list holds one twice; stop before endless text makes it large.
            if cpus.len() > CPU_MAX + 1 {
                break;
            }
        }
        Self::new(cpus)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b);
        let items = runs.filter_map(|run| match run {
            [first, .., last] => Some(format!("{first}-{last}")),
            [one] => Some(one.to_string()),
            [] => None,
        });
        f.pad(&items.collect::<Vec<_>>().join(","))
    }
}

/// A number in ASCII digits only: no sign, no space.
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A number in decimal or, after 0x, in hexadecimal digits.
fn decimal_or_hex<T: FromStr + TryFrom<u64>>(text: &str) -> Option<T> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            T::try_from(u64::from_str_radix(hex, 16).ok()?).ok()
        }
        Some(_) => None,
        None => digits(text),
    }
}

/// `afXY`: class X 1 to 4, drop precedence Y 1 to 3 (RFC 2597 §6).
fn assured_forwarding(name: &str) -> Option<u8> {
    match name.strip_prefix("af")?.as_bytes() {
        [class @ b'1'..=b'4', drop @ b'1'..=b'3'] => Some((class - b'0') * 8 + (drop - b'0') * 2),
        _ => None,
    }
}

const DSCP_MAX: u8 = 63;
const PAYLOAD_MIN: usize = 14;
const PAYLOAD_MAX: usize = 65_507;
const FRAME_MIN: usize = frame_of_payload(PAYLOAD_MIN, Family::V4);
const FRAME_MAX: usize = frame_of_payload(PAYLOAD_MAX, Family::V6);
const SIZES_MAX: usize = 16;
const WEIGHTS_MAX: u64 = 1024;
const CPU_MAX: usize = 1023;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dscp_names_and_numbers() {
        for (text, value, printed) in [
            ("be", 0, "be"),
            ("df", 0, "be"),
            ("cs0", 0, "be"),
            ("cp0", 0, "be"),
            ("le", 1, "le"),
            ("cp1", 1, "le"),
            ("CS1", 8, "cs1"),
            ("cp8", 8, "cs1"),
            ("af11", 10, "af11"),
            ("AF43", 38, "af43"),
            ("af41", 34, "af41"),
            ("cp37", 37, "cp37"),
            ("cs5", 40, "cs5"),
            ("cp42", 42, "cp42"),
            ("va", 44, "va"),
            ("Voice-Admit", 44, "va"),
            ("EF", 46, "ef"),
            ("46", 46, "ef"),
            ("0x2e", 46, "ef"),
            ("0X2E", 46, "ef"),
            ("nc1", 48, "cs6"),
            ("cs6", 48, "cs6"),
            ("nc2", 56, "cs7"),
            ("cp63", 63, "cp63"),
        ] {
            let dscp: Dscp = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((dscp.value(), dscp.to_string().as_str()), (value, printed));
            assert_eq!(dscp.tos(), value * 4);
        }
        for text in ["64", "184", "0x40", "99999999999"] {
            assert_eq!(
                text.parse::<Dscp>(),
                Err(ValueError::HighDscp(text.to_owned()))
            );
        }
        for text in [
            "", "af44", "af51", "af1", "cs8", "cp64", "nc3", "-1", "+1", "0x", "0xzz", "cs",
        ] {
            assert_eq!(text.parse::<Dscp>(), Err(ValueError::NotADscp(shown(text))));
        }
    }

    #[test]
    fn the_dscp_table_is_twampys() {
        let table = dscp_table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5 + 64 + 1);
        let row = |name: &str| {
            let is_row = |line: &&&str| line.split(' ').next() == Some(name);
            lines.iter().find(is_row).copied().unwrap_or_default()
        };
        assert_eq!(
            lines[3],
            "DSCP Name      DSCP Value     TOS (bin)      TOS (hex)"
        );
        for expected in [
            "be             0              0000 0000      00",
            "cp1            1              0000 0100      04",
            "cs1            8              0010 0000      20",
            "af41           34             1000 1000      88",
            "cp44           44             1011 0000      B0",
            "ef             46             1011 1000      B8",
            "nc1            48             1100 0000      C0",
            "nc2            56             1110 0000      E0",
            "cp63           63             1111 1100      FC",
        ] {
            let name = expected.split(' ').next().unwrap_or_default();
            assert_eq!(row(name), expected);
        }
        for (line, value) in lines[5..69].iter().zip(0..) {
            let name = line.split(' ').next().unwrap_or_default();
            assert_eq!(name.parse(), Ok(Dscp(value)));
        }
        for line in [0, 2, 69] {
            assert_eq!(lines[line], "=".repeat(60));
        }
        assert_eq!(lines[4], "-".repeat(60));
    }

    #[test]
    fn tos_octets() {
        for (text, octet, printed) in [
            ("184", 184, "0xb8"),
            ("0xB8", 184, "0xb8"),
            ("0", 0, "0x00"),
            ("255", 255, "0xff"),
        ] {
            let tos: Tos = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((tos.octet(), tos.to_string().as_str()), (octet, printed));
        }
        assert_eq!(Tos(0x88).dscp().to_string(), "af41");
        assert_eq!(Dscp::new(46).map(Tos::from), Some(Tos(0xb8)));
        for text in ["256", "-1", "ef", "0x100", ""] {
            assert_eq!(text.parse::<Tos>(), Err(ValueError::NotATos(shown(text))));
        }
    }

    #[test]
    fn frames_and_payloads() {
        for (frame, family, payload) in [
            (64, Family::V4, Some(22)),
            (590, Family::V4, Some(548)),
            (1514, Family::V4, Some(1472)),
            (56, Family::V4, Some(14)),
            (55, Family::V4, None),
            (0, Family::V4, None),
            (65_549, Family::V4, Some(65_507)),
            (65_550, Family::V4, None),
            (64, Family::V6, None),
            (76, Family::V6, Some(14)),
            (1514, Family::V6, Some(1452)),
            (65_569, Family::V6, Some(65_507)),
            (65_570, Family::V6, None),
        ] {
            assert_eq!(payload_of_frame(frame, family), payload, "{frame} {family}");
            if let Some(payload) = payload {
                assert_eq!(frame_of_payload(payload, family), frame);
            }
        }
    }

    #[test]
    fn size_mixes() {
        let imix = SizeMix::imix();
        assert_eq!("64:7,590:4,1514:1".parse(), Ok(imix.clone()));
        assert_eq!(imix.to_string(), "64:7,590:4,1514:1");
        assert_eq!(imix.total_weight(), 12);
        let equal: SizeMix = "64, 1514".parse().expect("without weights");
        assert_eq!(equal.to_string(), "64:1,1514:1");
        let seventeen: Vec<String> = (100..117).map(|frame| frame.to_string()).collect();
        for (text, error) in [
            ("55:1", ValueError::FrameSize(55)),
            ("65570:1", ValueError::FrameSize(65_570)),
            ("64:0", ValueError::ZeroWeight(64)),
            ("64:1,64:2", ValueError::RepeatedSize(64)),
            ("64:1000,65:25", ValueError::HighWeights(1025)),
            ("64:4294967295,65:1", ValueError::HighWeights(1 << 32)),
            (seventeen.join(",").as_str(), ValueError::ManySizes(17)),
            ("", ValueError::NotAMix(shown(""))),
            ("64:7,", ValueError::NotAMix("64:7,".into())),
            ("64:7:1", ValueError::NotAMix("64:7:1".into())),
            ("64:-7", ValueError::NotAMix("64:-7".into())),
        ] {
            assert_eq!(text.parse::<SizeMix>(), Err(error), "{text}");
        }
    }

    #[test]
    fn cpu_lists() {
        for (text, cpus, printed) in [
            ("0", vec![0], "0"),
            ("0,2", vec![0, 2], "0,2"),
            ("0-3,8", vec![0, 1, 2, 3, 8], "0-3,8"),
            ("8,0-1", vec![8, 0, 1], "8,0-1"),
            ("3,2", vec![3, 2], "3,2"),
            ("5-5", vec![5], "5"),
            ("1023", vec![1023], "1023"),
        ] {
            let list: CpuList = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(list.cpus(), cpus);
            assert_eq!(list.to_string(), printed);
        }
        for (text, error) in [
            ("1024", ValueError::HighCpu(1024)),
            ("0-99999999999", ValueError::HighCpu(99_999_999_999)),
            ("0,0", ValueError::RepeatedCpu(0)),
            ("0-1023,0-1023", ValueError::RepeatedCpu(0)),
            ("3-0", ValueError::ReversedCpus(3, 0)),
            ("", ValueError::NotCpus(shown(""))),
            ("0,", ValueError::NotCpus("0,".into())),
            ("-1", ValueError::NotCpus("-1".into())),
            ("all", ValueError::NotCpus("all".into())),
        ] {
            assert_eq!(text.parse::<CpuList>(), Err(error), "{text}");
        }
        assert_eq!(
            ValueError::ReversedCpus(3, 0).to_string(),
            "3-0 runs downwards; use 0-3"
        );
    }

    proptest! {
        #[test]
        fn printed_octets_read_as_themselves(octet: u8) {
            prop_assert_eq!(Tos(octet).to_string().parse(), Ok(Tos(octet)));
            let dscp = Dscp(octet >> 2);
            prop_assert_eq!(dscp.to_string().parse(), Ok(dscp));
            prop_assert_eq!(dscp.table_name().parse(), Ok(dscp));
        }

        #[test]
        fn a_printed_mix_reads_as_itself(
            sizes in proptest::collection::btree_map(FRAME_MIN..=FRAME_MAX, 1..=64_u32, 1..=16)
        ) {
            let sizes = sizes.into_iter().map(|(frame, weight)| WeightedSize { frame, weight });
            let mix = SizeMix::new(sizes.collect()).expect("within the limits");
            prop_assert_eq!(mix.to_string().parse(), Ok(mix));
        }

        #[test]
        fn a_printed_cpu_list_reads_as_itself(
            cpus in proptest::collection::hash_set(0..64_usize, 1..40)
        ) {
            let list = CpuList::new(cpus.into_iter().collect()).expect("within the limits");
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in prop_oneof![any::<String>(), "[0-9a-fA-Fxcsp]{0,6}", "[0-9:,-]{0,24}"]
        ) {
            if let Ok(dscp) = text.parse::<Dscp>() {
                prop_assert_eq!(dscp.to_string().parse(), Ok(dscp));
            }
            if let Ok(tos) = text.parse::<Tos>() {
                prop_assert_eq!(tos.to_string().parse(), Ok(tos));
            }
            if let Ok(mix) = text.parse::<SizeMix>() {
                prop_assert_eq!(mix.to_string().parse(), Ok(mix));
            }
            if let Ok(list) = text.parse::<CpuList>() {
                prop_assert_eq!(list.to_string().parse(), Ok(list));
            }
        }
    }
}
