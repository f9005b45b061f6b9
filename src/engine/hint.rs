//! Why a socket could not be opened, and what to do: by the error, and by what this host says of its
//! addresses, interfaces and switches.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use nix::net::if_::InterfaceFlags;

/// What was to be done with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// To listen on, or to send from.
    Here(IpAddr),
    /// To send to.
    There(IpAddr),
}

impl End {
    fn ip(self) -> IpAddr {
        match self {
            Self::Here(ip) | Self::There(ip) => ip,
        }
    }
}

/// What this host says of itself.
struct Host {
    ipv6_is_off: fn(IpAddr) -> bool,
    is_broadcast: fn(IpAddr) -> bool,
    interface_that_is_down: fn(IpAddr) -> Option<String>,
}

const THIS_HOST: Host = Host {
    ipv6_is_off,
    is_broadcast,
    interface_that_is_down,
};

/// What follows the words of an error; empty where nothing is known.
pub(crate) fn hint(end: End, error: &io::Error) -> String {
    error.raw_os_error().map_or(String::new(), |errno| {
        hint_by(end, Errno::from_raw(errno), &THIS_HOST)
    })
}

/// Why no packet can reach an address, where this host knows; empty where it does not.
#[must_use]
pub fn unreachable(ip: IpAddr) -> Option<String> {
    interface_that_is_down(ip).map(|interface| down(&interface))
}

fn down(interface: &str) -> String {
    format!("the interface {interface} is down: ip link set {interface} up")
}

fn hint_by(end: End, errno: Errno, host: &Host) -> String {
    let ip = end.ip();
    let there = matches!(end, End::There(_));
    let text = match errno {
        Errno::ENODEV => "there is no interface of that name: see `ip link`",
        Errno::EADDRINUSE => "another program has this port: use another one, or end it",
        Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT | Errno::ENETUNREACH
            if ip.is_ipv6() && (host.ipv6_is_off)(ip) =>
        {
            "IPv6 is switched off on this host: see `sysctl net.ipv6.conf.all.disable_ipv6`"
        }
        Errno::EAFNOSUPPORT if ip.is_ipv6() => "this kernel has no IPv6",
        Errno::EADDRNOTAVAIL => "this host has no such address: see `ip address`",
        Errno::ENETUNREACH => match (host.interface_that_is_down)(ip) {
            Some(interface) => return format!("; {}", down(&interface)),
            None => "there is no route: check the address and `ip route get`",
        },
        Errno::EINVAL if there && is_link_local(ip) => {
            "a link-local address needs its interface, such as fe80::1%eth0"
        }
        Errno::EINVAL if there => {
            "a `blackhole` route has this address (see `ip route show`), or it cannot be sent to from the \
             source address"
        }
        Errno::EHOSTUNREACH if there => {
            "an `unreachable` route has this address, or there is none: see `ip route show`"
        }
        Errno::EACCES if there && (host.is_broadcast)(ip) => "this is a broadcast address",
        Errno::EACCES if there => {
            "a `prohibit` route has this address, or it is a broadcast address: see `ip route show`"
        }
        Errno::EPERM if there => "does a firewall or a control group of this host forbid it?",
        Errno::EACCES | Errno::EPERM => {
            "use a port above 1023, or grant CAP_NET_BIND_SERVICE (CAP_NET_RAW for an interface)"
        }
        Errno::EMFILE => "raise the limit of open files: ulimit -n",
        _ => return String::new(),
    };
    format!("; {text}")
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn ipv6_is_off(ip: IpAddr) -> bool {
    let off = |interface: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
    };
    // The switch of all may have been set, and that of an interface set back since.
    off(if ip.is_loopback() { "lo" } else { "all" }) && !any_ipv6_address(ip)
}

/// Whether an interface, loopback or not as the address is, has an address of IPv6.
fn any_ipv6_address(ip: IpAddr) -> bool {
    nix::ifaddrs::getifaddrs().is_ok_and(|mut interfaces| {
        interfaces.any(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) == ip.is_loopback()
                && (interface.address).is_some_and(|address| address.as_sockaddr_in6().is_some())
        })
    })
}

fn is_broadcast(ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip else {
        return false;
    };
    ip.is_broadcast()
        || nix::ifaddrs::getifaddrs().is_ok_and(|mut interfaces| {
            interfaces.any(|interface| {
                interface.flags.contains(InterfaceFlags::IFF_BROADCAST)
                    && interface
                        .broadcast
                        .and_then(|address| address.as_sockaddr_in().map(|a| a.ip()))
                        == Some(ip)
            })
        })
}

/// The interface in whose network an address is, where it is down.
fn interface_that_is_down(ip: IpAddr) -> Option<String> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let mut down = None;
    for interface in interfaces {
        let has = match ip {
            _ if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) => ip.is_loopback(),
            IpAddr::V4(ip) => {
                let bits = |storage: Option<nix::sys::socket::SockaddrStorage>| {
                    storage.and_then(|address| address.as_sockaddr_in().map(|a| a.ip().to_bits()))
                };
                let own = bits(interface.address).zip(bits(interface.netmask));
                own.is_some_and(|(own, mask)| mask != 0 && own & mask == ip.to_bits() & mask)
            }
            // Addresses of IPv6 go when their interface goes down.
            IpAddr::V6(_) => false,
        };
        if has && interface.flags.contains(InterfaceFlags::IFF_UP) {
            return None;
        }
        if has {
            down = Some(interface.interface_name);
        }
    }
    down
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_named_by_the_error_and_by_what_the_host_says() {
        let quiet = Host {
            ipv6_is_off: |_| false,
            is_broadcast: |_| false,
            interface_that_is_down: |_| None,
        };
        let telling = Host {
            ipv6_is_off: |_| true,
            is_broadcast: |_| true,
            interface_that_is_down: |_| Some("eth7".to_owned()),
        };
        let (v4, v6): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let local: IpAddr = "fe80::1".parse().unwrap();
        for (end, errno, host, part) in [
            (
                End::There(v6),
                Errno::EADDRNOTAVAIL,
                &telling,
                "IPv6 is switched off",
            ),
            (
                End::Here(v6),
                Errno::EADDRNOTAVAIL,
                &telling,
                "IPv6 is switched off",
            ),
            (
                End::There(v6),
                Errno::EADDRNOTAVAIL,
                &quiet,
                "no such address",
            ),
            (
                End::Here(v4),
                Errno::EADDRNOTAVAIL,
                &telling,
                "no such address",
            ),
            (End::Here(v6), Errno::EAFNOSUPPORT, &quiet, "no IPv6"),
            (End::There(v4), Errno::EINVAL, &quiet, "`blackhole` route"),
            (
                End::There(local),
                Errno::EINVAL,
                &quiet,
                "needs its interface",
            ),
            (
                End::There(v6),
                Errno::EHOSTUNREACH,
                &quiet,
                "`unreachable` route",
            ),
            (End::There(v4), Errno::EACCES, &quiet, "`prohibit` route"),
            (
                End::There(v4),
                Errno::EACCES,
                &telling,
                "this is a broadcast",
            ),
            (End::Here(v4), Errno::EACCES, &telling, "port above 1023"),
            (End::There(v4), Errno::EPERM, &quiet, "control group"),
            (End::There(v4), Errno::ENETUNREACH, &quiet, "no route"),
            (End::There(v4), Errno::ENETUNREACH, &telling, "eth7 is down"),
        ] {
            let hint = hint_by(end, errno, host);
            assert!(hint.contains(part), "{end:?} {errno}: {hint}");
        }
        assert_eq!(hint_by(End::Here(v4), Errno::EINVAL, &telling), "");
    }
}
