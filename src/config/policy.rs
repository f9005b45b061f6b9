//! What clients of a Server may do, by the network that they are in: the policy file.
//!
//! The file is TOML. What it leaves out is as in [`DEFAULT_POLICY`], which is the default with a
//! comment at every key. Each key that a `[[network]]` names holds for clients in it; the longest
//! prefix that names it wins, and `[default]` has what none of them names.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thiserror::Error;
use toml::Spanned;

use super::address::Prefix;
use super::error::shown;
use super::quantity::{Seconds, Span};
use super::rate::{Bandwidth, Rate};
use super::values::Dscp;
use crate::wire::{Modes, SecurityMode};

/// The policy that is in force without a file, as a file that says the same.
pub const DEFAULT_POLICY: &str = include_str!("policy.toml");

/// What clients of a Server may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Of the Server as a whole.
    pub limits: Limits,
    default: Rules,
    /// Shortest prefixes first.
    networks: Vec<(Prefix, Changes)>,
}

/// Limits of a Server as a whole, whoever the clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Control connections at a time.
    pub connections: usize,
    /// The same from one IPv4 address, or from one IPv6 network of 64 bits.
    pub connections_per_address: usize,
    /// Control connections whose set-up is not over; the oldest one makes room.
    pub half_open: usize,
    /// Set-Up-Responses that wait for the check of their Token.
    pub token_checks: usize,
    /// Sessions at a time, of all clients.
    pub sessions: usize,
    /// How long a set-up may take.
    pub set_up_timeout: Seconds,
    /// How long a command may take from its first octet to its last.
    pub message_timeout: Seconds,
    /// SERVWAIT: how long a connection without a running session may be silent (RFC 5357 §3.1).
    pub servwait: Seconds,
    /// REFWAIT: how long a running session may be without a packet (RFC 5357 §4.2).
    pub refwait: Seconds,
}

/// What one client may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Security modes that are offered to it; `None`: the policy does not say, see
    /// [`security`](Self::security).
    pub modes: Option<Modes>,
    /// Features that are offered to it.
    pub features: Modes,
    /// DSCPs of its sessions.
    pub dscps: Dscps,
    /// UDP ports of its Session-Reflectors.
    pub test_ports: Ports,
    /// Test packets a second that are answered, all its sessions together; `None`: all.
    pub packet_rate: Option<Rate>,
    /// Bits of UDP payload a second that are answered, likewise.
    pub bit_rate: Option<u64>,
    /// Sessions at a time.
    pub sessions: usize,
    /// Octets of Packet Padding.
    pub padding: u32,
    /// Senders beside the client itself.
    pub third_party_senders: Vec<Prefix>,
    /// The longest Timeout after a stop.
    pub timeout: Seconds,
}

impl Rules {
    /// Security modes that are offered: those that are named, else all, but none without a key where the
    /// Server has keys: whoever gives it keys does not expect it to serve others too.
    #[must_use]
    pub fn security(&self, has_keys: bool) -> Modes {
        self.modes.unwrap_or(if has_keys {
            Modes::SECURITY.without(Modes::UNAUTHENTICATED)
        } else {
            Modes::SECURITY
        })
    }
}

impl Default for Policy {
    /// Safe on the open Internet: everybody may measure towards itself, and nobody towards others.
    fn default() -> Self {
        let seconds = |s: u64| Seconds::from(Span::from_ns(s * 1_000_000_000));
        let unlimited = Changes {
            packet_rate: Some(Bounded(None)),
            bit_rate: Some(Bounded(None)),
            ..Changes::default()
        };
        let loopback = ["127.0.0.0/8", "::1"].map(|text| text.parse::<Prefix>());
        Self {
            limits: Limits {
                connections: 16_000,
                connections_per_address: 12_000,
                half_open: 12_000,
                token_checks: 1024,
                sessions: 20_000,
                set_up_timeout: seconds(60),
                message_timeout: seconds(10),
                servwait: seconds(900),
                refwait: seconds(900),
            },
            default: Rules {
                modes: None,
                features: Modes::FEATURES,
                dscps: Dscps(u64::MAX),
                test_ports: Ports(vec![862..=862, 1024..=u16::MAX]),
                packet_rate: Rate::from_per_second(250_000),
                bit_rate: Some(1_000_000_000),
                sessions: 1000,
                padding: 65_493,
                third_party_senders: Vec::new(),
                timeout: seconds(60),
            },
            networks: loopback
                .into_iter()
                .flatten()
                .map(|prefix| (prefix, unlimited.clone()))
                .collect(),
        }
    }
}

impl Policy {
    /// What the client at this address may do.
    #[must_use]
    pub fn rules(&self, client: IpAddr) -> Rules {
        let mut rules = self.default.clone();
        for (prefix, changes) in &self.networks {
            if prefix.contains(client) {
                changes.apply(&mut rules);
            }
        }
        rules
    }

    /// What everybody may, and after that what clients in each network with rules of its own may.
    pub fn each(&self) -> impl Iterator<Item = (Option<Prefix>, Rules)> {
        let networks = self.networks.iter().map(|(prefix, _)| {
            let mut rules = self.default.clone();
            let wider = |other: &Prefix| other.covers(prefix);
            for (_, changes) in self.networks.iter().filter(|(other, _)| wider(other)) {
                changes.apply(&mut rules);
            }
            (Some(*prefix), rules)
        });
        std::iter::once((None, self.default.clone())).chain(networks)
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let what = error.message().trim().replace('\n', "; ");
            PolicyError::at(text, error.span().map(|span| span.start), what)
        })?;
        let mut policy = Self::default();
        file.server.apply(&mut policy.limits);
        file.default.changes().apply(&mut policy.default);
        if let Some(networks) = file.network {
            let mut seen = BTreeSet::new();
            policy.networks.clear();
            for network in networks {
                let prefix = network.prefix.get_ref().0;
                if !seen.insert(prefix) {
                    let what = format!("{prefix} is there already; use each prefix once");
                    let at = network.prefix.span().start;
                    return Err(PolicyError::at(text, Some(at), what));
                }
                policy.networks.push((prefix, network.changes()));
            }
            policy
                .networks
                .sort_by_key(|(prefix, _)| prefix.shared_bits());
        }
        Ok(policy)
    }
}

/// Why a policy file is none. One line; whoever shows it adds the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{}{what}", .line.map_or(String::new(), |line| format!("line {line}: ")), .key.as_ref().map_or(String::new(), |key| format!("{key}: ")))]
pub struct PolicyError {
    /// Counted from 1.
    pub line: Option<usize>,
    /// What stands left of the `=`.
    pub key: Option<String>,
    /// What is wrong with it.
    pub what: String,
}

impl PolicyError {
    fn at(text: &str, offset: Option<usize>, what: String) -> Self {
        let before = offset.and_then(|at| text.get(..at.min(text.len())));
        let line = before.map(|before| before.matches('\n').count() + 1);
        // A value may have several lines; its key is on the first one.
        let mut lines = text.lines().take(line.unwrap_or(0)).collect::<Vec<_>>();
        lines.reverse();
        let key = lines.iter().find_map(|line| {
            let (key, _) = line.split_once('=')?;
            let key = key.trim();
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.\"".contains(c);
            (!key.is_empty() && key.chars().all(plain)).then(|| shown(key))
        });
        // The parser's own words name the key where it is not known.
        let key = key.filter(|key| !what.contains(&format!("`{key}`")));
        Self { line, key, what }
    }
}

/// A set of DSCPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscps(u64);

impl Dscps {
    /// Whether it is one of them.
    #[must_use]
    pub fn contains(self, dscp: Dscp) -> bool {
        self.0 & (1 << dscp.value()) != 0
    }
}

/// A set of UDP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// How many there are from `least` on; those that were named twice count twice.
    #[must_use]
    pub fn count_from(&self, least: u16) -> usize {
        self.from(least).map(|range| range.len()).sum()
    }

    /// One of these, by its index.
    #[must_use]
    pub fn nth_from(&self, least: u16, mut index: usize) -> Option<u16> {
        for mut range in self.from(least) {
            if index < range.len() {
                return range.nth(index);
            }
            index -= range.len();
        }
        None
    }

    fn from(&self, least: u16) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.0
            .iter()
            .map(move |range| (*range.start()).max(least)..=*range.end())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    server: LimitsTable,
    #[serde(default)]
    default: Table<Option<Misplaced>>,
    network: Option<Vec<Table<Spanned<Text<Prefix>>>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsTable {
    connections: Option<NonZeroU32>,
    connections_per_address: Option<NonZeroU32>,
    half_open: Option<NonZeroU32>,
    token_checks: Option<NonZeroU32>,
    sessions: Option<NonZeroU32>,
    set_up_timeout: Option<Text<Wait>>,
    message_timeout: Option<Text<Wait>>,
    servwait: Option<Text<Wait>>,
    refwait: Option<Text<Wait>>,
}

impl LimitsTable {
    fn apply(&self, limits: &mut Limits) {
        for (given, value) in [
            (self.connections, &mut limits.connections),
            (
                self.connections_per_address,
                &mut limits.connections_per_address,
            ),
            (self.half_open, &mut limits.half_open),
            (self.token_checks, &mut limits.token_checks),
            (self.sessions, &mut limits.sessions),
        ] {
            if let Some(given) = given {
                *value = usize::try_from(given.get()).unwrap_or(usize::MAX);
            }
        }
        for (given, value) in [
            (&self.set_up_timeout, &mut limits.set_up_timeout),
            (&self.message_timeout, &mut limits.message_timeout),
            (&self.servwait, &mut limits.servwait),
            (&self.refwait, &mut limits.refwait),
        ] {
            if let Some(Text(Wait(given))) = given {
                *value = *given;
            }
        }
    }
}

/// `[default]`, or a `[[network]]` with its prefix.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table<P> {
    prefix: P,
    modes: Option<Vec<Text<SecurityMode>>>,
    features: Option<Vec<Text<Feature>>>,
    dscps: Option<Vec<Text<DscpName>>>,
    test_ports: Option<Vec<Text<PortRange>>>,
    packet_rate: Option<Text<Bounded<Rate>>>,
    bit_rate: Option<Text<Bounded<Bandwidth>>>,
    sessions: Option<u32>,
    padding: Option<u32>,
    third_party_senders: Option<Vec<Text<Prefix>>>,
    timeout: Option<Text<Seconds>>,
}

impl Default for Table<Option<Misplaced>> {
    fn default() -> Self {
        Self {
            prefix: None,
            modes: None,
            features: None,
            dscps: None,
            test_ports: None,
            packet_rate: None,
            bit_rate: None,
            sessions: None,
            padding: None,
            third_party_senders: None,
            timeout: None,
        }
    }
}

impl<P> Table<P> {
    fn changes(self) -> Changes {
        let sum = |bits: Vec<Modes>| bits.into_iter().fold(Modes::NONE, |sum, bit| sum | bit);
        Changes {
            modes: self
                .modes
                .map(|names| sum(names.iter().map(|Text(mode)| mode.bit()).collect())),
            features: self
                .features
                .map(|names| sum(names.iter().map(|Text(Feature(bit))| *bit).collect())),
            dscps: self
                .dscps
                .map(|names| Dscps(names.iter().fold(0, |sum, Text(DscpName(bits))| sum | bits))),
            test_ports: self.test_ports.map(|ranges| {
                let ranges = ranges.into_iter().map(|Text(PortRange(range))| range);
                Ports(ranges.collect())
            }),
            packet_rate: self.packet_rate.map(|Text(rate)| rate),
            bit_rate: self
                .bit_rate
                .map(|Text(Bounded(rate))| Bounded(rate.map(Bandwidth::bits))),
            sessions: self.sessions,
            padding: self.padding,
            third_party_senders: self
                .third_party_senders
                .map(|list| list.into_iter().map(|Text(prefix)| prefix).collect()),
            timeout: self.timeout.map(|Text(timeout)| timeout),
        }
    }
}

/// What a network has otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
struct Changes {
    modes: Option<Modes>,
    features: Option<Modes>,
    dscps: Option<Dscps>,
    test_ports: Option<Ports>,
    packet_rate: Option<Bounded<Rate>>,
    bit_rate: Option<Bounded<u64>>,
    sessions: Option<u32>,
    padding: Option<u32>,
    third_party_senders: Option<Vec<Prefix>>,
    timeout: Option<Seconds>,
}

impl Changes {
    fn apply(&self, rules: &mut Rules) {
        fn set<T: Clone>(value: &mut T, given: Option<&T>) {
            if let Some(given) = given {
                *value = given.clone();
            }
        }
        rules.modes = self.modes.or(rules.modes);
        set(&mut rules.features, self.features.as_ref());
        set(&mut rules.dscps, self.dscps.as_ref());
        set(&mut rules.test_ports, self.test_ports.as_ref());
        set(
            &mut rules.packet_rate,
            self.packet_rate.as_ref().map(|Bounded(rate)| rate),
        );
        set(
            &mut rules.bit_rate,
            self.bit_rate.as_ref().map(|Bounded(bits)| bits),
        );
        if let Some(sessions) = self.sessions {
            rules.sessions = usize::try_from(sessions).unwrap_or(usize::MAX);
        }
        set(&mut rules.padding, self.padding.as_ref());
        set(
            &mut rules.third_party_senders,
            self.third_party_senders.as_ref(),
        );
        set(&mut rules.timeout, self.timeout.as_ref());
    }
}

/// A value that parses itself, as a string in the file.
struct Text<T>(T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Stands where a prefix must not.
struct Misplaced;

impl<'de> Deserialize<'de> for Misplaced {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "[default] is for everybody; use [[network]] for a prefix",
        ))
    }
}

/// More than nothing, so that everybody has a chance.
struct Wait(Seconds);

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<Seconds>() {
            Ok(time) if time.ns() > 0 => Ok(Self(time)),
            Ok(_) => Err("0 leaves nobody any time; use 1s or more".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A limit, or `unlimited`.
#[derive(Clone, Debug, PartialEq)]
struct Bounded<T>(Option<T>);

impl<T: FromStr> FromStr for Bounded<T>
where
    T::Err: Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "unlimited" {
            return Ok(Self(None));
        }
        let read = text.parse().map(|value| Self(Some(value)));
        read.map_err(|error| format!("{error}, or unlimited"))
    }
}

/// One bit of [`Modes::FEATURES`], by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature(Modes);

impl Feature {
    /// Its bit.
    #[must_use]
    pub const fn bit(self) -> Modes {
        self.0
    }

    fn all() -> impl Iterator<Item = Modes> {
        let bits = (0..u32::BITS).map(|bit| Modes::from_bits(1 << bit));
        bits.filter(|bit| Modes::FEATURES.contains(*bit))
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim().to_ascii_lowercase();
        let found = Self::all().find(|bit| bit.to_string() == name);
        found.map(Self).ok_or_else(|| {
            let names: Vec<String> = Self::all().map(|bit| bit.to_string()).collect();
            format!("{} is no feature; use {}", shown(text), names.join(", "))
        })
    }
}

/// Bits of a DSCP, or of all.
struct DscpName(u64);

impl FromStr for DscpName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "all" {
            return Ok(Self(u64::MAX));
        }
        match text.parse::<Dscp>() {
            Ok(dscp) => Ok(Self(1 << dscp.value())),
            Err(error) => Err(format!("{error}, or all")),
        }
    }
}

/// A port, or the first and the last of several.
struct PortRange(RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(format!(
                "{} is no port; use such as 862, or 20000-29999",
                shown(text)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(policy: &str, client: &str) -> Rules {
        let policy: Policy = policy.parse().unwrap_or_else(|e| panic!("{e}: {policy}"));
        policy.rules(client.parse().unwrap())
    }

    #[test]
    fn the_default_is_what_it_says_of_itself() {
        assert_eq!(DEFAULT_POLICY.parse(), Ok(Policy::default()));
        assert_eq!("".parse(), Ok(Policy::default()));
    }

    #[test]
    fn with_keys_nobody_is_served_without_one_unless_that_is_named() {
        let keyed = Modes::AUTHENTICATED | Modes::ENCRYPTED | Modes::MIXED;
        let silent = rules("", "192.0.2.1");
        assert_eq!(silent.security(true), keyed);
        assert_eq!(silent.security(false), Modes::SECURITY);
        let policy = r#"
            [[network]]
            prefix = "192.0.2.0/24"
            modes = ["unauthenticated"]
            [[network]]
            prefix = "192.0.2.0/28"
            sessions = 1
        "#;
        let policy: Policy = policy.parse().unwrap();
        let each: Vec<_> = policy
            .each()
            .map(|(prefix, rules)| {
                (
                    prefix.map(|prefix| prefix.to_string()),
                    rules.security(true),
                    rules.sessions,
                )
            })
            .collect();
        let network = |prefix: &str| Some(prefix.to_owned());
        assert_eq!(
            each,
            [
                (None, keyed, 1000),
                (network("192.0.2.0/24"), Modes::UNAUTHENTICATED, 1000),
                (network("192.0.2.0/28"), Modes::UNAUTHENTICATED, 1),
            ]
        );
    }

    #[test]
    fn the_documented_policy_means_what_is_said() {
        let page = include_str!("../../docs/server.md");
        let (_, rest) = page.split_once("```toml\n").unwrap();
        let (policy, _) = rest.split_once("```").unwrap();
        let station = rules(policy, "198.51.100.7");
        assert_eq!(station.third_party_senders.len(), 1);
        assert_eq!(station.modes, Some(Modes::ENCRYPTED | Modes::MIXED));
        let near = rules(policy, "192.0.2.9");
        assert_eq!(near.modes, Some(Modes::UNAUTHENTICATED));
        assert_eq!(near.packet_rate, Rate::from_per_second(10_000));
    }

    #[test]
    fn defaults_are_safe_and_loopback_is_not_limited() {
        let everybody = rules("", "192.0.2.1");
        assert_eq!(everybody.bit_rate, Some(1_000_000_000));
        assert_eq!(everybody.packet_rate, Rate::from_per_second(250_000));
        assert!(everybody.third_party_senders.is_empty());
        for port in [1, 861, 863, 1023] {
            assert!(!everybody.test_ports.contains(port), "{port}");
        }
        for port in [862, 1024, 65_535] {
            assert!(everybody.test_ports.contains(port), "{port}");
        }
        for client in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let own = rules("", client);
            assert_eq!((own.bit_rate, own.packet_rate), (None, None), "{client}");
            let unlimited = Rules {
                bit_rate: None,
                packet_rate: None,
                ..everybody.clone()
            };
            assert_eq!(own, unlimited);
        }
    }

    #[test]
    fn the_longest_prefix_that_names_a_key_decides_it() {
        let policy = r#"
            [default]
            sessions = 1
            [[network]]
            prefix = "192.0.2.128/25"
            sessions = 3
            [[network]]
            prefix = "192.0.2.0/24"
            sessions = 2
            padding = 20
            modes = ["encrypted", "mixed"]
            dscps = ["be", "ef"]
            test_ports = ["5000-5001", "7000"]
            timeout = "2s"
            bit_rate = "1.5M"
        "#;
        let far = rules(policy, "198.51.100.1");
        assert_eq!((far.sessions, far.padding), (1, 65_493));
        let near = rules(policy, "192.0.2.1");
        assert_eq!((near.sessions, near.padding), (2, 20));
        assert_eq!(near.modes, Some(Modes::ENCRYPTED | Modes::MIXED));
        assert_eq!(near.bit_rate, Some(1_500_000));
        assert_eq!(near.timeout.ns(), 2_000_000_000);
        let dscp = |name: &str| near.dscps.contains(name.parse().unwrap());
        assert!(dscp("be") && dscp("ef") && !dscp("af41"));
        let nearest = rules(policy, "192.0.2.200");
        let like_near = Rules {
            sessions: 3,
            ..near
        };
        assert_eq!(nearest, like_near);
        // Networks of a file replace those of the default.
        assert_eq!(rules(policy, "127.0.0.1").bit_rate, Some(1_000_000_000));
    }

    #[test]
    fn ports_are_counted_and_found() {
        let ports = rules("default.test_ports = [\"10-12\", \"20\"]", "::1").test_ports;
        let all = |least| {
            let count = ports.count_from(least);
            assert_eq!(ports.nth_from(least, count), None);
            let found = (0..count).filter_map(|index| ports.nth_from(least, index));
            found.collect::<Vec<u16>>()
        };
        assert_eq!(all(0), [10, 11, 12, 20]);
        assert_eq!(all(12), [12, 20]);
        assert_eq!(all(21), [0_u16; 0]);
    }

    #[test]
    fn errors_name_line_and_key() {
        for (policy, line, parts) in [
            ("x = 1", 1, &["`x`"][..]),
            (
                "\n[server]\nconnections = 0",
                3,
                &["connections", "nonzero"],
            ),
            ("[server]\nservwait = \"0\"", 2, &["servwait", "use 1s"]),
            ("[server]\nrefwait = 5", 2, &["refwait", "string"]),
            ("[default]\nsessions = -1", 2, &["sessions", "-1"]),
            ("[default]\nsession = 1", 2, &["`session`", "`sessions`"]),
            ("[default]\nmodes = [\n \"open\"\n]", 2, &["modes"]),
            (
                "[default]\nfeatures = [\"x\"]",
                2,
                &["features", "reflect-octets"],
            ),
            (
                "[default]\ntest_ports = [\"0-5\"]",
                2,
                &["test_ports", "20000-29999"],
            ),
            (
                "[default]\nbit_rate = \"fast\"",
                2,
                &["bit_rate", "unlimited"],
            ),
            (
                "[default]\nprefix = \"::/0\"",
                2,
                &["prefix", "[[network]]"],
            ),
            ("[[network]]\nsessions = 1", 1, &["prefix"]),
            (
                "[[network]]\nprefix = \"::/0\"\n[[network]]\nprefix = \"::/0\"",
                4,
                &["prefix", "use each prefix once"],
            ),
            ("[default", 1, &[]),
        ] {
            let error = policy.parse::<Policy>().expect_err(policy);
            let text = error.to_string();
            assert_eq!(error.line, Some(line), "{policy}: {text}");
            assert!(!text.contains('\n'), "{text}");
            for part in parts {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}
