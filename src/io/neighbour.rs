//! Who packets are handed to on the link, and that its link address is known before the first of them
//! leaves.
//!
//! While a next hop is not resolved (ARP, neighbour discovery), the kernel keeps some packets for it and
//! drops the others without a word, which would read as loss of the path. Resolution is begun by a packet
//! only, unless one is privileged: an empty datagram to the peer's discard port (RFC 863), with a TTL of
//! 1, so that it ends at the next hop. It is sent where the kernel does not know the next hop, and
//! nowhere else.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};

use super::host::NextHop;
use super::socket::{bind_interface, new_socket};
use crate::os;

/// How long a next hop is waited for: the kernel asks once a second.
const PATIENCE_NS: i64 = 1_500_000_000;
/// How often it is looked whether it has answered.
const LOOK_NS: i64 = 500_000;
const DISCARD: u16 = 9;

/// Has the next hop on the way to `remote` resolved. `None` where there is nothing to resolve (loopback,
/// links without addresses), or the system does not tell.
pub(crate) fn resolve(
    remote: SocketAddr,
    local: IpAddr,
    interface: Option<&str>,
    stop: impl Fn() -> bool,
) -> Option<NextHop> {
    if remote.ip().is_loopback() {
        return None;
    }
    let mut kernel = Kernel::open().ok()?;
    let index = interface.and_then(|name| nix::net::if_::if_nametoindex(name).ok());
    let hop = kernel.hop(remote, local, index)?;
    let begun = os::monotonic_ns();
    let found = |resolved| NextHop {
        addr: hop.addr,
        resolved,
        waited_ns: os::monotonic_ns() - begun,
    };
    if kernel.state(&hop)?.is_resolved() {
        return Some(NextHop {
            waited_ns: 0,
            ..found(true)
        });
    }
    // It stays open, so that what is answered is not refused in turn.
    let _socket = knock(remote, local, interface).ok()?;
    while os::monotonic_ns() - begun < PATIENCE_NS && !stop() {
        match kernel.state(&hop)? {
            state if state.is_resolved() => return Some(found(true)),
            State::RESOLVING => os::sleep_until(os::monotonic_ns() + LOOK_NS),
            // Nobody asks: the datagram did not get so far, or the kernel has given up.
            State::NONE => return None,
            _ => break,
        }
    }
    Some(found(false))
}

/// Sends the datagram that has the next hop resolved.
fn knock(remote: SocketAddr, local: IpAddr, interface: Option<&str>) -> io::Result<Socket> {
    let socket = new_socket(remote)?;
    bind_interface(&socket, interface)?;
    let from = match (local, remote) {
        // A link-local address is one of the link that the peer is on.
        (IpAddr::V6(ip), SocketAddr::V6(remote)) => {
            SocketAddrV6::new(ip, 0, 0, remote.scope_id()).into()
        }
        _ => SocketAddr::new(local, 0),
    };
    socket.bind(&from.into())?;
    if remote.is_ipv4() {
        socket.set_ttl_v4(1)?;
    } else {
        socket.set_unicast_hops_v6(1)?;
    }
    let mut to = remote;
    to.set_port(DISCARD);
    socket.send_to(&[], &to.into())?;
    Ok(socket)
}

/// A next hop, and the interface that it is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    addr: IpAddr,
    interface: u32,
}

/// `NUD_` states of linux/neighbour.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State(u16);

impl State {
    const NONE: Self = Self(0);
    const RESOLVING: Self = Self(0x01);
    /// Reachable, stale, delay, probe, noarp, permanent: packets leave at once.
    const RESOLVED: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;

    fn is_resolved(self) -> bool {
        self.0 & Self::RESOLVED != 0
    }
}

/// Asks the kernel by rtnetlink(7).
struct Kernel {
    socket: Socket,
    answer: Vec<u8>,
}

/// Message types.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NLM_F_REQUEST: u16 = 1;
/// Attributes of routes, and of neighbours.
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_VIA: u16 = 18;
const NDA_DST: u16 = 1;
const RTN_UNICAST: u8 = 1;
/// Octets of the headers.
const MESSAGE: usize = 16;
const ROUTE: usize = 12;
const NEIGHBOUR: usize = 12;
const ATTRIBUTE: usize = 4;

impl Kernel {
    fn open() -> io::Result<Self> {
        let route = Protocol::from(libc::NETLINK_ROUTE);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(route))?;
        // Answers are there when the call that asks returns.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            answer: vec![0; 1 << 13],
        })
    }

    /// The next hop towards a peer; `None` where none has to be resolved.
    fn hop(&mut self, remote: SocketAddr, local: IpAddr, index: Option<u32>) -> Option<Hop> {
        let index = match remote {
            SocketAddr::V6(remote) if remote.scope_id() > 0 => Some(remote.scope_id()),
            _ => index,
        };
        let bits = if remote.is_ipv4() { 32 } else { 128 };
        let mut body = vec![0; ROUTE];
        (body[0], body[1]) = (family(remote.ip()), bits);
        push(&mut body, RTA_DST, &octets(remote.ip()));
        if !local.is_unspecified() {
            body[2] = bits;
            push(&mut body, RTA_SRC, &octets(local));
        }
        if let Some(index) = index {
            push(&mut body, RTA_OIF, &index.to_ne_bytes());
        }
        let route = self.ask(RTM_GETROUTE, &body, RTM_NEWROUTE).ok()?;
        let (addr, interface) = read_route(route)?;
        let hop = Hop {
            addr: addr.unwrap_or(remote.ip()),
            interface,
        };
        self.has_addresses(interface).filter(|has| *has)?;
        Some(hop)
    }

    /// Whether the hosts on an interface's link have addresses.
    fn has_addresses(&mut self, interface: u32) -> Option<bool> {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        let link = self.ask(RTM_GETLINK, &body, RTM_NEWLINK).ok()?;
        let flags = i32::from_ne_bytes(link.get(8..12)?.try_into().ok()?);
        let without = libc::IFF_NOARP | libc::IFF_LOOPBACK | libc::IFF_POINTOPOINT;
        Some(flags & without == 0)
    }

    /// What the kernel knows of a next hop.
    fn state(&mut self, hop: &Hop) -> Option<State> {
        let mut body = vec![0; NEIGHBOUR];
        body[0] = family(hop.addr);
        body[4..8].copy_from_slice(&hop.interface.to_ne_bytes());
        push(&mut body, NDA_DST, &octets(hop.addr));
        match self.ask(RTM_GETNEIGH, &body, RTM_NEWNEIGH) {
            Ok(neighbour) => read_neighbour(neighbour),
            // Nobody asked for it yet.
            Err(libc::ENOENT) => Some(State::NONE),
            // Before Linux 5.0 there are no such questions.
            Err(_) => None,
        }
    }

    /// Sends a request; returns what follows the header of the answer, or its error.
    fn ask(&mut self, kind: u16, body: &[u8], answer: u16) -> Result<&[u8], c_int> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let mut message = Vec::with_capacity(MESSAGE + body.len());
        let len = u32::try_from(MESSAGE + body.len()).map_err(|_| libc::EMSGSIZE)?;
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        self.socket.send(&message).map_err(errno)?;
        let len = (&self.socket).read(&mut self.answer).map_err(errno)?;
        read_message(&self.answer[..len], answer)
    }
}

/// What follows the header of a message of this kind, or the error that it tells.
fn read_message(octets: &[u8], kind: u16) -> Result<&[u8], c_int> {
    let header = octets.get(..MESSAGE).ok_or(libc::EPROTO)?;
    let len = usize::try_from(u32_at(header, 0)).unwrap_or(usize::MAX);
    let body = octets.get(MESSAGE..len).ok_or(libc::EPROTO)?;
    match u16_at(header, 4) {
        told if told == kind => Ok(body),
        NLMSG_ERROR if body.len() >= 4 => Err(u32_at(body, 0).wrapping_neg().cast_signed()),
        _ => Err(libc::EPROTO),
    }
}

/// The router, if there is one, and the interface of a route that leads to another host.
fn read_route(octets: &[u8]) -> Option<(Option<IpAddr>, u32)> {
    let header = octets.get(..ROUTE)?;
    if header[7] != RTN_UNICAST {
        return None;
    }
    let (mut router, mut interface) = (None, None);
    for (kind, value) in attributes(&octets[ROUTE..]) {
        match kind {
            RTA_OIF if value.len() == 4 => interface = Some(u32_at(value, 0)),
            RTA_GATEWAY => router = Some(address(value)?),
            // The family of the address, and the address.
            RTA_VIA => router = Some(address(value.get(2..)?)?),
            _ => {}
        }
    }
    Some((router, interface?))
}

fn read_neighbour(octets: &[u8]) -> Option<State> {
    octets
        .get(..NEIGHBOUR)
        .map(|header| State(u16_at(header, 8)))
}

/// Kind and value of each attribute.
fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = octets.get(..ATTRIBUTE)?;
        let len = usize::from(u16_at(header, 0));
        let value = octets.get(ATTRIBUTE..len)?;
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16_at(header, 2), value))
    })
}

fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(ATTRIBUTE + value.len()).expect("an address or a number");
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn family(addr: IpAddr) -> u8 {
    let family = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    u8::try_from(family).expect("families of rtnetlink have one octet")
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([octets[at], octets[at + 1]])
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = vec![0; MESSAGE];
        let len = u32::try_from(MESSAGE + body.len()).unwrap();
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend(body);
        message
    }

    fn route(kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; ROUTE];
        body[7] = kind;
        for (kind, value) in attributes {
            push(&mut body, *kind, value);
        }
        body
    }

    #[test]
    fn answers_of_the_kernel_are_read_or_refused() {
        let two = 2_u32.to_ne_bytes();
        let oif = (RTA_OIF, &two[..]);
        let gateway = [10, 9, 1, 9];
        let via: Vec<u8> = [0, 10].into_iter().chain([0xfe; 16]).collect();
        let read = |attributes: &[(u16, &[u8])]| read_route(&route(RTN_UNICAST, attributes));
        assert_eq!(read(&[oif]), Some((None, 2)));
        assert_eq!(
            read(&[(RTA_GATEWAY, &gateway), (77, b"odd"), oif]),
            Some((Some(IpAddr::from(gateway)), 2))
        );
        assert_eq!(
            read(&[oif, (RTA_VIA, &via)]),
            Some((Some(IpAddr::from([0xfe; 16])), 2))
        );
        // A local or a black route, none of one interface, a wrong address, half an attribute.
        assert_eq!(read_route(&route(2, &[oif])), None);
        assert_eq!(read(&[(RTA_GATEWAY, &gateway)]), None);
        assert_eq!(read(&[(RTA_GATEWAY, &gateway[..3]), oif]), None);
        let whole = route(RTN_UNICAST, &[oif]);
        for len in 0..whole.len() {
            assert_eq!(read_route(&whole[..len]), None, "{len}");
        }

        let answer = message(RTM_NEWNEIGH, &[0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0]);
        let body = read_message(&answer, RTM_NEWNEIGH).unwrap();
        assert_eq!(read_neighbour(body), Some(State(0x0202)));
        assert!(read_message(&answer, RTM_NEWROUTE).is_err());
        assert!(read_message(&answer[..answer.len() - 1], RTM_NEWNEIGH).is_err());
        let refused = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(read_message(&refused, RTM_NEWNEIGH), Err(libc::ENOENT));
    }

    #[test]
    fn loopback_has_no_next_hop() {
        for host in ["127.0.0.1:862", "[::1]:862"] {
            let remote: SocketAddr = host.parse().unwrap();
            let mut kernel = Kernel::open().unwrap();
            assert_eq!(kernel.hop(remote, remote.ip(), None), None);
            assert_eq!(resolve(remote, remote.ip(), None, || false), None);
        }
    }
}
