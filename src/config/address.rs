//! Who is measured and who may measure: endpoints and address prefixes, as text only.
//!
//! Nothing is resolved here: a name stays a name, a scope stays the text after its `%`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::error::{ValueError, shown};
use super::values::digits;

/// A host, a port, both or neither, as typed.
///
/// Text: `HOST`, `HOST:PORT`, `:PORT`, nothing, `192.0.2.1`, `::1`, `[::1]`, `[::1]:20001`,
/// `fe80::1%eth0`, `[fe80::1%eth0]:20001`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `None` where the text has none.
    pub host: Option<Host>,
    /// 0 to 65535; `None` where the text has none. Only a local endpoint can use port 0.
    pub port: Option<u16>,
}

/// An address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address (RFC 4291), with its scope where one was typed (RFC 4007 §11).
    V6 {
        /// The address.
        addr: Ipv6Addr,
        /// Name or index of an interface, without the `%`.
        scope: Option<String>,
    },
    /// A name that is still to be resolved (RFC 1123 §2.1, and `_`).
    Name(String),
}

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix('[') {
            let (inner, after) = inner
                .split_once(']')
                .ok_or_else(|| ValueError::OpenBracket(shown(text)))?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(read_port(port, text)?),
                None if after.is_empty() => None,
                None => return Err(ValueError::AfterBracket(shown(text))),
            };
            let host = Some(read_v6(inner)?);
            return Ok(Self { host, port });
        }
        if text.matches(':').count() > 1 {
            let host = Some(read_v6(text)?);
            return Ok(Self { host, port: None });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(read_port(port, text)?)),
            None => (text, None),
        };
        let host = match host {
            "" => None,
            host => Some(read_v4_or_name(host)?),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match (&self.host, self.port) {
            (None, None) => String::new(),
            (None, Some(port)) => format!(":{port}"),
            (Some(host), None) => host.to_string(),
            (Some(host @ Host::V6 { .. }), Some(port)) => format!("[{host}]:{port}"),
            (Some(host), Some(port)) => format!("{host}:{port}"),
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(addr) => addr.fmt(f),
            Self::V6 { addr, scope: None } => addr.fmt(f),
            Self::V6 {
                addr,
                scope: Some(scope),
            } => f.pad(&format!("{addr}%{scope}")),
            Self::Name(name) => f.pad(name),
        }
    }
}

/// The addresses that share their leading bits; `192.0.2.0/24`, or one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpNet);

impl Prefix {
    /// How many leading bits the addresses share.
    pub(super) fn shared_bits(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether all addresses of `other` are among them.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether the address is one of them. An IPv4 address counts as itself also where a socket of
    /// both families shows it as `::ffff:192.0.2.1` (RFC 4291 §2.5.5.2).
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(&addr) || self.0.contains(&addr.to_canonical())
    }
}

impl FromStr for Prefix {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let (addr, length) = match text.split_once('/') {
            Some((addr, length)) => (addr, Some(length)),
            None => (text, None),
        };
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| ValueError::NotAPrefix(shown(text)))?;
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        let net = length
            .map_or(Some(longest), digits)
            .and_then(|length| IpNet::new(addr, length).ok())
            .ok_or_else(|| ValueError::PrefixLength(shown(text), longest))?;
        if net.trunc() != net {
            return Err(ValueError::HostBits(shown(text), net.trunc().to_string()));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

fn read_port(port: &str, text: &str) -> Result<u16, ValueError> {
    if port.is_empty() {
        return Err(ValueError::NoPort(shown(text)));
    }
    digits(port).ok_or_else(|| ValueError::NotAPort(shown(port)))
}

/// An IPv6 address and its scope, without brackets.
fn read_v6(text: &str) -> Result<Host, ValueError> {
    let (addr, scope) = match text.split_once('%') {
        Some((addr, scope)) => (addr, Some(scope)),
        None => (text, None),
    };
    let addr = addr.parse().map_err(|_| ValueError::NotV6(shown(text)))?;
    if scope.is_some_and(|scope| !is_interface(scope)) {
        return Err(ValueError::NotAScope(shown(text)));
    }
    let scope = scope.map(str::to_owned);
    Ok(Host::V6 { addr, scope })
}

fn read_v4_or_name(text: &str) -> Result<Host, ValueError> {
    if let Ok(addr) = text.parse() {
        return Ok(Host::V4(addr));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::BareNumber(shown(text)));
    }
    // The resolver would read 10.1 as 10.0.0.1 (inet_aton(3)); nobody means that.
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(ValueError::NotV4(shown(text)));
    }
    if is_name(text) {
        Ok(Host::Name(text.to_owned()))
    } else {
        Err(ValueError::NotAName(shown(text)))
    }
}

/// What Linux takes as the name of an interface (`dev_valid_name`), bar what would end the text.
fn is_interface(scope: &str) -> bool {
    let legal = |b: u8| b.is_ascii_graphic() && !b"/:[]%".contains(&b);
    (1..=15).contains(&scope.len()) && scope.bytes().all(legal)
}

fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(addr: [u8; 4]) -> Option<Host> {
        Some(Host::V4(addr.into()))
    }

    fn v6(addr: &str, scope: Option<&str>) -> Option<Host> {
        Some(Host::V6 {
            addr: addr.parse().expect(addr),
            scope: scope.map(str::to_owned),
        })
    }

    fn name(name: &str) -> Option<Host> {
        Some(Host::Name(name.to_owned()))
    }

    #[test]
    fn endpoints_read_and_print() {
        for (text, host, port, printed) in [
            ("", None, None, ""),
            (":20001", None, Some(20001), ":20001"),
            (":0", None, Some(0), ":0"),
            ("1.2.3.4", v4([1, 2, 3, 4]), None, "1.2.3.4"),
            ("1.2.3.4:862", v4([1, 2, 3, 4]), Some(862), "1.2.3.4:862"),
            ("::1", v6("::1", None), None, "::1"),
            ("::", v6("::", None), None, "::"),
            ("[::1]", v6("::1", None), None, "::1"),
            ("[::1]:20001", v6("::1", None), Some(20001), "[::1]:20001"),
            (
                "fe80::1%eth0",
                v6("fe80::1", Some("eth0")),
                None,
                "fe80::1%eth0",
            ),
            (
                "[fe80::1%eth0.100]:20001",
                v6("fe80::1", Some("eth0.100")),
                Some(20001),
                "[fe80::1%eth0.100]:20001",
            ),
            ("[fe80::1%2]", v6("fe80::1", Some("2")), None, "fe80::1%2"),
            ("localhost", name("localhost"), None, "localhost"),
            (
                " r1.example.net.:20001 ",
                name("r1.example.net."),
                Some(20001),
                "r1.example.net.:20001",
            ),
            ("my_host-2:1", name("my_host-2"), Some(1), "my_host-2:1"),
            ("1and1.com", name("1and1.com"), None, "1and1.com"),
        ] {
            let read: Endpoint = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(read, Endpoint { host, port }, "{text}");
            assert_eq!(read.to_string(), printed);
        }
    }

    #[test]
    fn endpoints_refused() {
        for (text, message) in [
            ("1.2.3.4:70000", "port 70000: use 1 to 65535"),
            ("host:http", "port http: use 1 to 65535"),
            ("host:+5", "port +5: use 1 to 65535"),
            (
                "host:",
                "host:: no port after the colon; use one, such as :20001, or leave the colon out",
            ),
            ("[::1", "[::1: missing ]; use [ADDRESS] or [ADDRESS]:PORT"),
            ("[::1]20001", "[::1]20001: only :PORT may follow the ]"),
            (
                "[1.2.3.4]:5",
                "1.2.3.4 is no IPv6 address; use such as 2001:db8::1, and [2001:db8::1]:20001 with a port",
            ),
            (
                "1.2.3.4.5",
                "1.2.3.4.5 is no IPv4 address; use four numbers of 0 to 255, such as 192.0.2.1",
            ),
            (
                "10.1",
                "10.1 is no IPv4 address; use four numbers of 0 to 255, such as 192.0.2.1",
            ),
            ("20001", "20001 is no host; for a port use :20001"),
            (
                "fe80::1%",
                "fe80::1%: no interface after the %; use its name or index, such as fe80::1%eth0",
            ),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text);
            assert_eq!(error.to_string(), message);
        }
        for text in [
            "a b",
            "a..b",
            "-a",
            "a-",
            "http://a",
            "ü.de",
            "1.2.3.4%eth0",
            &"x".repeat(64),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text);
            assert!(
                matches!(error, ValueError::NotAName(_) | ValueError::NotAPort(_)),
                "{text}: {error}"
            );
        }
        for text in ["::1:20001", ":::5", "1:2:3", "a:b:c", "[]", "[localhost]:5"] {
            let error = text.parse::<Endpoint>().expect_err(text);
            assert!(matches!(error, ValueError::NotV6(_)), "{text}: {error}");
        }
    }

    #[test]
    fn prefixes_read_print_and_match() {
        for (text, printed, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.1", "192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
            (
                "192.0.2.1",
                "192.0.2.1/32",
                "::ffff:192.0.2.1",
                "::ffff:192.0.2.2",
            ),
            ("0.0.0.0/0", "0.0.0.0/0", "255.255.255.255", "::1"),
            (
                "2001:db8::/32",
                "2001:db8::/32",
                "2001:db8::1",
                "2001:db9::",
            ),
            ("::1", "::1/128", "::1", "127.0.0.1"),
        ] {
            let prefix: Prefix = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(prefix.to_string(), printed);
            assert!(
                prefix.contains(inside.parse().expect(inside)),
                "{text} {inside}"
            );
            assert!(
                !prefix.contains(outside.parse().expect(outside)),
                "{text} {outside}"
            );
        }
    }

    #[test]
    fn prefixes_refused() {
        use ValueError as E;
        for (text, error) in [
            (
                "10.0.0.1/8",
                E::HostBits("10.0.0.1/8".into(), "10.0.0.0/8".into()),
            ),
            ("10.0.0.0/33", E::PrefixLength("10.0.0.0/33".into(), 32)),
            ("::/129", E::PrefixLength("::/129".into(), 128)),
            ("10.0.0.0/", E::PrefixLength("10.0.0.0/".into(), 32)),
            ("10.0.0.0/+8", E::PrefixLength("10.0.0.0/+8".into(), 32)),
            ("10/8", E::NotAPrefix("10/8".into())),
            ("", E::NotAPrefix(shown(""))),
            ("host", E::NotAPrefix("host".into())),
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(error));
        }
    }

    fn endpoints() -> impl Strategy<Value = Endpoint> {
        let host = prop_oneof![
            any::<[u8; 4]>().prop_map(|addr| Host::V4(addr.into())),
            (any::<[u16; 8]>(), proptest::option::of("[a-z0-9.@-]{1,15}")).prop_map(
                |(addr, scope)| Host::V6 {
                    addr: addr.into(),
                    scope
                }
            ),
            "[a-z][a-z0-9_]{0,9}(\\.[a-z0-9]{1,9}){0,3}\\.?".prop_map(Host::Name),
        ];
        (proptest::option::of(host), any::<Option<u16>>())
            .prop_map(|(host, port)| Endpoint { host, port })
    }

    proptest! {
        #[test]
        fn a_printed_endpoint_reads_as_itself(endpoint in endpoints()) {
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }

        #[test]
        fn a_printed_prefix_reads_as_itself(addr in any::<IpAddr>(), length in 0..=128_u8) {
            if let Ok(net) = IpNet::new(addr, length) {
                let prefix = Prefix(net.trunc());
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
                prop_assert!(prefix.contains(addr));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof![any::<String>(), "[]\\[:%./a-f0-9-]{0,24}"]) {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
            if let Ok(prefix) = text.parse::<Prefix>() {
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            }
        }
    }
}
