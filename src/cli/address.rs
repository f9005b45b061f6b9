//! Names and addresses of the command line: every address of a name, in the order in which they are tried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs, UdpSocket};

use clap::Args;

use super::error::{Error, usage};
use crate::config::{Endpoint, Family, Host};
use crate::engine::{self, Failure, plain};
use crate::report::note::{Passed, Peer};

/// Which addresses of a name are used.
/// The reflector's port, and the one a sender asks, unless another is given.
pub(super) const DEFAULT_PORT: u16 = 20_001;

#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "IP header")]
pub(super) struct FamilyArgs {
    /// Use IPv4 only: of a name, no address of IPv6
    #[arg(short = '4', long = "ipv4", conflicts_with = "v6")]
    v4: bool,
    /// Use IPv6 only: of a name, no address of IPv4
    #[arg(short = '6', long = "ipv6")]
    v6: bool,
}

impl FamilyArgs {
    fn family(self) -> Option<Family> {
        match self {
            Self { v4: true, .. } => Some(Family::V4),
            Self { v6: true, .. } => Some(Family::V6),
            _ => None,
        }
    }
}

/// What narrows the addresses of an endpoint down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Narrow<'a> {
    /// The only family.
    pub(super) family: Option<Family>,
    /// The interface that is bound to: a link-local address without a zone is of its link.
    pub(super) interface: Option<&'a str>,
}

impl<'a> Narrow<'a> {
    /// By the flags, and by a local address, which is of one family; no address that is typed is of another
    /// family than a flag.
    pub(super) fn by(
        flags: FamilyArgs,
        remote: Option<&Endpoint>,
        local: Option<&Endpoint>,
        interface: Option<&'a str>,
    ) -> Result<Self, Error> {
        let typed = |endpoint: &Endpoint| match endpoint.host {
            Some(Host::V4(_)) => Some(Family::V4),
            Some(Host::V6 { .. }) => Some(Family::V6),
            _ => None,
        };
        for endpoint in [remote, local].into_iter().flatten() {
            if let (Some(flag), Some(typed)) = (flags.family(), typed(endpoint))
                && flag != typed
            {
                return Err(wrong_family(endpoint, flag));
            }
        }
        Ok(Self {
            family: flags.family().or(local.and_then(typed)),
            interface,
        })
    }

    /// By an interface alone.
    pub(super) fn of(interface: Option<&'a str>) -> Self {
        Self {
            family: None,
            interface,
        }
    }

    /// To the family of an address.
    pub(super) fn like(addr: SocketAddr, interface: Option<&'a str>) -> Self {
        Self {
            family: Some(Family::of(addr.ip())),
            interface,
        }
    }
}

fn wrong_family(endpoint: &Endpoint, family: Family) -> Error {
    let (flag, other) = match family {
        Family::V4 => ("-4", "-6"),
        Family::V6 => ("-6", "-4"),
    };
    usage(format!(
        "{endpoint} is not of the family that {flag} asks for; use {other}, or neither"
    ))
}

/// The wildcard of each family that this host has.
pub(super) fn every_address(port: u16) -> Vec<SocketAddr> {
    let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let usable = families.iter().filter(|addr| {
        // A family that is switched off is no error.
        UdpSocket::bind((**addr, 0)).is_ok()
    });
    usable.map(|addr| SocketAddr::new(*addr, port)).collect()
}

/// The addresses of a reflector, of which the first one that answers is measured; at least one.
pub(super) fn remotes(endpoint: &Endpoint, narrow: Narrow<'_>) -> Result<Vec<SocketAddr>, Error> {
    let remotes = match &endpoint.host {
        Some(_) => resolve_all(endpoint, DEFAULT_PORT, narrow)?,
        // As twampy: a port alone is one of this host.
        None => {
            let port = endpoint.port.unwrap_or(DEFAULT_PORT);
            vec![match narrow.family {
                Some(Family::V6) => SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
                _ => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            }]
        }
    };
    for remote in &remotes {
        if remote.port() == 0 {
            return Err(usage(format!("{endpoint}: a remote port is 1 to 65535")));
        }
        if remote.ip().is_unspecified() || to_many(remote.ip()) {
            return Err(usage(format!(
                "{endpoint}: not the address of one host; name the reflector's own"
            )));
        }
    }
    Ok(remotes)
}

pub(super) fn local(
    endpoint: Option<&Endpoint>,
    remote: SocketAddr,
    interface: Option<&str>,
) -> Result<SocketAddr, Error> {
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.host.is_some()) else {
        let port = endpoint.and_then(|endpoint| endpoint.port);
        let addr = engine::source_address(remote, interface)?;
        let mut local = SocketAddr::new(addr, port.unwrap_or(0));
        if let (SocketAddr::V6(local), SocketAddr::V6(remote)) = (&mut local, remote) {
            local.set_scope_id(remote.scope_id());
        }
        return Ok(local);
    };
    let local = resolve(endpoint, 0, Narrow::like(remote, interface))?;
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(usage(format!(
            "{endpoint}: {} and {remote} are of two families; use two IPv4 or two IPv6 addresses",
            local.ip()
        )));
    }
    Ok(local)
}

/// The address that packets to `remote` leave from.
pub(super) fn source_of(remote: SocketAddr) -> Result<IpAddr, Error> {
    Ok(engine::source_address(remote, None)?)
}

pub(super) fn to_many(addr: IpAddr) -> bool {
    addr.is_multicast() || addr == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// The first address of an endpoint.
pub(super) fn resolve(
    endpoint: &Endpoint,
    port: u16,
    narrow: Narrow<'_>,
) -> Result<SocketAddr, Error> {
    // A name without addresses is an error.
    resolve_all(endpoint, port, narrow).map(|addrs| addrs[0])
}

/// The addresses of an endpoint, in the order in which they are to be tried; at least one.
pub(super) fn resolve_all(
    endpoint: &Endpoint,
    port: u16,
    narrow: Narrow<'_>,
) -> Result<Vec<SocketAddr>, Error> {
    let port = endpoint.port.unwrap_or(port);
    let one = match &endpoint.host {
        None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        Some(Host::V4(addr)) => SocketAddr::from((*addr, port)),
        Some(Host::V6 { addr, .. }) if addr.to_ipv4_mapped().is_some() => {
            let v4 = addr
                .to_ipv4_mapped()
                .map_or(String::new(), |v4| v4.to_string());
            return Err(usage(format!(
                "{endpoint}: an IPv4 address in an IPv6 one; use {v4}"
            )));
        }
        Some(Host::V6 { addr, scope }) => {
            let scope = scope.as_deref().map_or(Ok(0), scope_id)?;
            let scope = zoned(*addr, scope, narrow)?;
            if addr.is_unicast_link_local() && scope == 0 {
                return Err(usage(format!(
                    "{endpoint}: a link-local address needs its interface; use --interface eth0, or \
                     [{addr}%eth0]:{port}"
                )));
            }
            SocketAddrV6::new(*addr, port, 0, scope).into()
        }
        Some(Host::Name(name)) => {
            let found = (name.as_str(), port).to_socket_addrs().map_err(|error| {
                Error::Runtime(format!("cannot find the address of {name}: {error}"))
            })?;
            return of_name(name, found, narrow);
        }
    };
    Ok(vec![one])
}

/// What a name stands for, one family after the other in turn (RFC 8305 §4).
fn of_name(
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
    narrow: Narrow<'_>,
) -> Result<Vec<SocketAddr>, Error> {
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for mut addr in found {
        if let SocketAddr::V6(addr) = &mut addr {
            addr.set_scope_id(zoned(*addr.ip(), addr.scope_id(), narrow)?);
        }
        let fits = narrow.family.is_none_or(|f| f == Family::of(addr.ip()));
        if fits && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addrs
        .into_iter()
        .partition(|addr| addr.is_ipv6() == first_is_v6);
    let most = first.len().max(second.len());
    let turns = (0..most).flat_map(|turn| [first.get(turn), second.get(turn)]);
    let addrs: Vec<SocketAddr> = turns.flatten().copied().collect();
    if addrs.is_empty() {
        let family = match narrow.family {
            Some(Family::V4) => "IPv4 ",
            Some(Family::V6) => "IPv6 ",
            None => "",
        };
        return Err(Error::Runtime(format!("{name} has no {family}address")));
    }
    Ok(addrs)
}

/// What can be made for each of several addresses, and why nothing can be for the others, such as that this
/// host has no route; one at least. What is wrong with the command line ends it all.
pub(super) fn possible<A: Target, T>(
    addrs: Vec<A>,
    make: impl Fn(&A) -> Result<T, Error>,
) -> Result<(Vec<T>, Vec<Passed>), Error> {
    let (mut made, mut passed, mut first) = (Vec::new(), Vec::new(), None);
    for addr in addrs {
        match make(&addr) {
            Ok(one) => made.push(one),
            Err(Error::Failure(error)) => {
                passed.push(not_this(addr.host(), reason(&error)));
                first.get_or_insert(Error::Failure(error));
            }
            Err(error) => return Err(error),
        }
    }
    match first {
        Some(error) if made.is_empty() => Err(error),
        _ => Ok((made, passed)),
    }
}

/// Something with the address of a host.
pub(super) trait Target {
    /// The address.
    fn host(&self) -> IpAddr;
}

impl Target for SocketAddr {
    fn host(&self) -> IpAddr {
        self.ip()
    }
}

impl Target for crate::controller::Path {
    fn host(&self) -> IpAddr {
        self.server.ip()
    }
}

/// Why a session did not come about, without what the user can do.
pub(super) fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Open { source, .. } => plain(source),
        other => other.to_string(),
    }
}

/// Why it is not this address of several.
pub(super) fn not_this(address: IpAddr, why: String) -> Passed {
    Passed { address, why }
}

/// Why it is this one, where it is not the first.
pub(super) fn why_this(measured: IpAddr, passed: Vec<Passed>) -> Option<Peer> {
    (!passed.is_empty()).then_some(Peer::AddressChosen { measured, passed })
}

/// The zone of an address (RFC 4007 §11): a link-local one is of the interface that is bound to.
fn zoned(addr: Ipv6Addr, scope: u32, narrow: Narrow<'_>) -> Result<u32, Error> {
    match narrow.interface {
        Some(name) if addr.is_unicast_link_local() => {
            let index = scope_id(name)?;
            if scope != 0 && scope != index {
                return Err(usage(format!(
                    "{addr}%{scope} is of another link than --interface {name}; use one of them"
                )));
            }
            Ok(index)
        }
        _ => Ok(scope),
    }
}

fn scope_id(scope: &str) -> Result<u32, Error> {
    if let Ok(index) = scope.parse() {
        return Ok(index);
    }
    nix::net::if_::if_nametoindex(scope)
        .map_err(|_| usage(format!("there is no interface {scope}; see `ip link`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_name_to(found: &[&str], family: Option<Family>) -> Vec<String> {
        let found = found.iter().map(|addr| addr.parse().unwrap());
        let narrow = Narrow {
            family,
            interface: None,
        };
        let addrs = of_name("r", found, narrow).unwrap_or_default();
        addrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_a_name_are_tried_family_by_family_in_turn() {
        let found = [
            "[2001:db8::1]:1",
            "[2001:db8::2]:1",
            "[2001:db8::1]:1",
            "192.0.2.1:1",
            "192.0.2.2:1",
            "192.0.2.3:1",
        ];
        assert_eq!(
            of_name_to(&found, None),
            [
                "[2001:db8::1]:1",
                "192.0.2.1:1",
                "[2001:db8::2]:1",
                "192.0.2.2:1",
                "192.0.2.3:1"
            ]
        );
        assert_eq!(
            of_name_to(&found, Some(Family::V6)),
            ["[2001:db8::1]:1", "[2001:db8::2]:1"]
        );
        assert!(of_name_to(&found[3..], Some(Family::V6)).is_empty());
    }

    #[test]
    fn a_flag_rules_out_each_typed_address_of_the_other_family() {
        let only = |v4, v6| FamilyArgs { v4, v6 };
        let fits = |flags, remote: &str, local: Option<&str>| {
            let (remote, local) = (remote.parse().unwrap(), local.map(|l| l.parse().unwrap()));
            Narrow::by(flags, Some(&remote), local.as_ref(), None).is_ok()
        };
        assert!(!fits(only(true, false), "2001:db8::1", None));
        assert!(!fits(only(false, true), "192.0.2.1", None));
        assert!(!fits(only(false, true), "name", Some("192.0.2.7")));
        assert!(fits(only(false, true), "name", Some(":20000")));
        assert!(fits(only(true, false), "192.0.2.1", Some("192.0.2.7")));
        assert!(fits(FamilyArgs::default(), "2001:db8::1", None));
    }

    #[test]
    fn a_link_local_address_is_of_the_link_of_the_interface() {
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let zone = |text: &str, interface| {
            let narrow = Narrow {
                family: None,
                interface,
            };
            let endpoint: Endpoint = text.parse().unwrap();
            match resolve(&endpoint, 1, narrow) {
                Ok(SocketAddr::V6(addr)) => Some(addr.scope_id()),
                _ => None,
            }
        };
        assert_eq!(zone("fe80::1", Some("lo")), Some(lo));
        assert_eq!(zone("fe80::1%lo", Some("lo")), Some(lo));
        assert_eq!(zone("fe80::1%lo", None), Some(lo));
        assert_eq!(zone("fe80::1", None), None);
        assert_eq!(zone("fe80::1%4000000", Some("lo")), None);
        assert_eq!(zone("2001:db8::1", Some("lo")), Some(0));
    }
}
