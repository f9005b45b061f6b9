//! Sockets of a run, and which way their packets go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::hint::End;
use super::run::Failure;
use crate::config::SocketOptions;
use crate::io::{self as packets, SocketPlan};

/// Socket buffers are raised as far as the system allows, up to this.
const SOCKET_BUFFER: usize = 64 << 20;
/// A socket buffer should hold what arrives in this time.
pub(super) const BUFFER_NS: u64 = 50_000_000;
/// What the kernel takes for a datagram beside its octets.
pub(super) const BUFFER_OVERHEAD: u64 = 768;

pub(super) fn socket_plan(
    local: SocketAddr,
    options: &SocketOptions,
    tos: u8,
    bundles: bool,
) -> SocketPlan {
    SocketPlan {
        local,
        tos,
        ttl: options.ttl,
        do_not_fragment: options.do_not_fragment,
        interface: options.interface.clone(),
        buffer: SOCKET_BUFFER,
        hardware: options.hardware,
        busy_poll_us: options.busy_poll_us,
        bundles,
    }
}

/// The address that packets to `remote` leave from.
///
/// # Errors
/// [`Failure::Open`], such as no route.
pub fn source_address(remote: SocketAddr, interface: Option<&str>) -> Result<IpAddr, Failure> {
    packets::source_address(remote, interface).map_err(|source| Failure::Open {
        what: format!("a socket towards {remote}"),
        end: End::There(remote.ip()),
        source,
    })
}

/// The interface that packets from an address leave by, unless one is given, and its bits a second
/// where the system tells them.
#[must_use]
pub fn link_of(local: IpAddr, interface: Option<&str>) -> (Option<String>, Option<u64>) {
    let name = interface.map(str::to_owned);
    let name = name.or_else(|| packets::interface_of(local));
    let speed = name.as_deref().and_then(packets::speed_of);
    (name, speed)
}

/// Octets of the largest IP packet that goes to `remote` unfragmented, as far as this system knows;
/// `None` where it does not.
#[must_use]
pub fn path_mtu(remote: SocketAddr, interface: Option<&str>) -> Option<usize> {
    packets::path_mtu(remote, interface)
}

/// The wildcard address of the family of `addr`.
#[must_use]
pub fn any_address(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
