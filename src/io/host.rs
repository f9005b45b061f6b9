//! What this host tells of itself: its addresses, its interfaces, and its way to a peer.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::socket::{bind_interface, new_socket};

/// The address that packets to `remote` leave from.
///
/// # Errors
/// The system's, such as no route.
pub(crate) fn source_address(remote: SocketAddr, interface: Option<&str>) -> io::Result<IpAddr> {
    let socket = new_socket(remote)?;
    bind_interface(&socket, interface)?;
    socket.connect(&remote.into())?;
    let local = UdpSocket::from(socket).local_addr()?;
    Ok(local.ip())
}

/// The router or host that packets are handed to on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    pub(crate) addr: IpAddr,
    /// Its link address is known.
    pub(crate) resolved: bool,
    /// How long it was waited for; 0: it was known.
    pub(crate) waited_ns: i64,
}

/// Octets of the largest IP packet that goes to `remote` unfragmented; `None` where the system does
/// not tell.
pub(crate) fn path_mtu(remote: SocketAddr, interface: Option<&str>) -> Option<usize> {
    let socket = new_socket(remote).ok()?;
    bind_interface(&socket, interface).ok()?;
    socket.connect(&remote.into()).ok()?;
    #[cfg(target_os = "linux")]
    return crate::sys::path_mtu(&socket, remote.is_ipv6());
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether an address is one of this host's own.
pub(crate) fn is_local(addr: IpAddr) -> bool {
    // Not a trial bind: that may succeed for any address (net.ipv4.ip_nonlocal_bind).
    addr.is_loopback() || interface_of(addr).is_some()
}

/// Each address of this host's own, of one family, with its scope (0: it needs none).
///
/// # Errors
/// The system's.
pub(super) fn local_addresses(v6: bool) -> io::Result<Vec<(IpAddr, u32)>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let own = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| (IpAddr::V4(a.ip()), 0));
        v4.or_else(|| {
            let address = address.as_sockaddr_in6()?;
            Some((IpAddr::V6(address.ip()), address.scope_id()))
        })
    });
    let mut own: Vec<_> = own.filter(|(ip, _)| ip.is_ipv6() == v6).collect();
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// Name of the interface that has an address.
pub(crate) fn interface_of(addr: IpAddr) -> Option<String> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    for interface in interfaces {
        let found = interface.address.as_ref().is_some_and(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
            v4.or(v6) == Some(addr)
        });
        if found {
            return Some(interface.interface_name);
        }
    }
    None
}

/// Bits a second of an interface; `None` where the system does not tell, as of loopback.
pub(crate) fn speed_of(interface: &str) -> Option<u64> {
    let told = |name: &str| {
        let path = format!("/sys/class/net/{interface}/{name}");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse::<u64>().ok()
    };
    // In a network namespace that folder may still be the host's, with interfaces of the same name.
    let index = nix::net::if_::if_nametoindex(interface).ok()?;
    let mbit = told("ifindex").filter(|told| *told == u64::from(index));
    // -1 where there is no carrier, or where the interface is virtual.
    let mbit = mbit
        .and_then(|_| told("speed"))
        .filter(|mbit| *mbit > 0 && *mbit < u64::from(u32::MAX))?;
    mbit.checked_mul(1_000_000)
}
