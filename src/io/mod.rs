//! Moves datagrams and their timestamps; knows no protocol.
//!
//! A Session-Sender uses a [`SendHalf`] and a [`ReceiveHalf`] on two threads, a Session-Reflector a
//! [`Mirror`]. Each has two makes: `linux` (batches, kernel timestamps, control messages) and
//! `portable` (one datagram a call, timestamps of user space). What the system grants is found out
//! when a socket is opened and kept in [`Granted`]; a missing feature never ends a run.
//!
//! The engine is written against the traits, so that both makes run the same code.

#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(target_os = "linux")]
mod neighbour;
pub(crate) mod portable;
mod trouble;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use mio::{Registry, Token};

pub(crate) use self::trouble::{
    Advice, Patience, Refusals, RefusedCall, failed_call, is_of_destination, refused_call,
};

/// Largest number of datagrams that one call moves.
pub(crate) const BATCH: usize = 32;
/// Datagrams from before a session that are dropped at most: as many as a large socket buffer holds.
const MOST_BEFORE: usize = 1 << 17;

/// Who took a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StampKind {
    /// The network interface, by its own clock.
    Hardware,
    /// The kernel, by the system's clock.
    Kernel,
    /// This program, by the system's clock.
    Userspace,
}

impl std::fmt::Display for StampKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hardware => "the interface",
            Self::Kernel => "the kernel",
            Self::Userspace => "this program",
        })
    }
}

/// What a socket should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPlan {
    /// Address and port to bind; port 0 takes any.
    pub(crate) local: SocketAddr,
    /// TOS or Traffic Class octet of what is sent.
    pub(crate) tos: u8,
    /// TTL or Hop Limit of what is sent.
    pub(crate) ttl: u8,
    /// Never fragment, here or on the way.
    pub(crate) do_not_fragment: bool,
    /// Interface to bind to.
    pub(crate) interface: Option<String>,
    /// Socket buffer to ask for, in octets as the kernel counts them.
    pub(crate) buffer: usize,
    /// Ask for timestamps of the interface's own clock.
    pub(crate) hardware: bool,
    pub(crate) busy_poll_us: Option<u32>,
    /// Packets may leave as trains and be taken as bundles, which share their timestamps.
    pub(crate) bundles: bool,
}

/// What the system granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Address and port that were bound.
    pub(crate) local: SocketAddr,
    /// Who stamps arrivals.
    pub(crate) receive: StampKind,
    /// Who stamps departures afterwards; `None`: nobody.
    pub(crate) transmit: Option<StampKind>,
    /// Packets leave with the TTL or Hop Limit of the plan.
    pub(crate) ttl: bool,
    /// Sockets are told of ICMP errors, as far as this make of them can be.
    pub(crate) icmp: bool,
    /// Receive buffer, in octets as the kernel counts them; `None` where the system does not tell.
    pub(crate) receive_buffer: Option<usize>,
    /// Remarks for the user, such as a feature that was asked for and refused.
    pub(crate) remarks: Vec<String>,
    /// Who the packets of a session are handed to, once that was looked for.
    pub(crate) next_hop: Option<NextHop>,
}

/// A received datagram, or a bundle of them that share what is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) octets: &'a [u8],
    /// Octets of each datagram of the bundle but the last, which may be shorter.
    pub(crate) segment: Option<usize>,
    /// The datagram was longer than `octets` shows.
    pub(crate) truncated: bool,
    /// Some of what follows was cut off by the kernel for want of room.
    pub(crate) facts_cut: bool,
    /// When it arrived, by the clock that [`Granted::receive`] names; `None`: it has no such stamp.
    pub(crate) arrived_ns: Option<i64>,
    /// TTL or Hop Limit on arrival, where the system tells.
    pub(crate) ttl: Option<u8>,
    /// TOS or Traffic Class octet on arrival, where the system tells.
    pub(crate) tos: Option<u8>,
}

/// An ICMP message about a packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Icmp {
    pub(crate) message: IcmpMessage,
    /// The router or host that sent it, where the system tells.
    pub(crate) from: Option<IpAddr>,
    /// The MTU of the hop that the packet was too large for, in octets.
    pub(crate) mtu: Option<u32>,
}

/// What an ICMP message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpMessage {
    /// Type and code of ICMP for IPv4 (RFC 792).
    V4 { kind: u8, code: u8 },
    /// Type and code of ICMP for IPv6 (RFC 4443).
    V6 { kind: u8, code: u8 },
    /// Only the errno that the system makes of it.
    Errno(i32),
}

impl IcmpMessage {
    /// Whether nobody listens at the port.
    pub(crate) fn is_port_unreachable(self) -> bool {
        matches!(
            self,
            Self::V4 { kind: 3, code: 3 }
                | Self::V6 { kind: 1, code: 4 }
                | Self::Errno(libc::ECONNREFUSED)
        )
    }
}

impl Icmp {
    /// A message of which only the errno is known.
    pub(crate) fn of_errno(errno: i32) -> Self {
        Self {
            message: IcmpMessage::Errno(errno),
            from: None,
            mtu: None,
        }
    }
}

/// What came in beside the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The departure of the packet with this sequence number, by the clock that
    /// [`Granted::transmit`] names.
    Departed { seq: u32, ns: i64 },
    /// An ICMP message about a packet of the session.
    Icmp(Icmp),
    /// A datagram from somebody else than the peer, or its first octets, as many as the fields of a
    /// test packet have at least; and where it came from, as far as the system tells.
    Stray {
        octets: &'a [u8],
        from: Option<SocketAddr>,
    },
}

/// Sends the packets of one session.
pub(crate) trait SendHalf {
    /// Places of a batch: packets or trains.
    fn places(&self) -> usize;

    /// Fills a place of the batch: a train of `count` packets of `payload` octets (1: a packet of its
    /// own), and, where a transmit stamp is wanted, the sequence number that it shall name. Lends out
    /// the octets, in which the padding stands already. Places are filled in order, from 0.
    fn set(&mut self, index: usize, payload: usize, count: usize, stamp: Option<u32>) -> &mut [u8];

    /// Sends the places `from..to`; returns how many left. Never blocks.
    ///
    /// # Errors
    /// Of the packet or train at `from`; it was not sent. A [`RefusedCall`]: none can be.
    fn send(&mut self, from: usize, to: usize) -> io::Result<usize>;

    /// The system call that [`send`](Self::send) makes now.
    fn send_call(&self) -> &'static str {
        "send"
    }

    /// The call for many packets that this system refuses, so that each takes one of its own.
    fn refused_call(&self) -> Option<RefusedCall> {
        None
    }
}

/// Receives the replies of one session.
pub(crate) trait ReceiveHalf {
    /// Shows every waiting datagram or bundle of the peer, at most one batch, to `f`; returns how many
    /// there were.
    ///
    /// # Errors
    /// `WouldBlock` where none waits; a pending error of the socket, such as an ICMP unreachable.
    fn recv(&mut self, f: impl FnMut(Datagram<'_>)) -> io::Result<usize>;

    /// The system call that [`recv`](Self::recv) makes now.
    fn receive_call(&self) -> &'static str {
        "recv"
    }

    /// Shows what else waits, at most one batch of each kind, to `f`; returns how many there were.
    fn events(&mut self, f: impl FnMut(Event<'_>)) -> usize;

    /// Lets the system hand over datagrams that came together as one, where it can.
    fn take_bundles(&mut self);

    /// Wakes `token` when a reply or an ICMP error arrives; transmit stamps are to be looked for
    /// from time to time.
    ///
    /// # Errors
    /// The system's.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;

    /// Ends what [`register`](Self::register) began.
    fn deregister(&mut self, registry: &Registry);

    /// Datagrams that the system dropped for want of room in the socket; `None` where it does not
    /// tell.
    fn kernel_drops(&self) -> Option<u64>;

    /// As [`SendHalf::refused_call`].
    fn refused_call(&self) -> Option<RefusedCall> {
        None
    }
}

/// A request in a reflector's batch.
pub(crate) struct Request<'a> {
    /// Octets of the datagram, and room behind it for a longer reply.
    pub(crate) slot: &'a mut [u8],
    pub(crate) len: usize,
    /// It is a bundle of requests of so many octets, the last one perhaps shorter.
    pub(crate) segment: Option<usize>,
    pub(crate) truncated: bool,
    /// Some of what follows was cut off by the kernel for want of room.
    pub(crate) facts_cut: bool,
    pub(crate) from: Option<SocketAddr>,
    /// The address it was sent to; `None` where the system does not tell.
    pub(crate) to: Option<IpAddr>,
    /// The datagram was sent to a broadcast or multicast address.
    pub(crate) to_many: bool,
    pub(crate) arrived_ns: Option<i64>,
    pub(crate) ttl: Option<u8>,
    pub(crate) tos: Option<u8>,
}

/// Where an answer goes, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: SocketAddr,
    /// Source address, and the interface it must leave by (0: any); `None`: the socket's own.
    pub(crate) source: Option<(IpAddr, u32)>,
}

/// Receives requests and answers them from the same memory.
pub(crate) trait Mirror {
    /// Requests of a full batch, as the last one would have been: fewer mean that no more waited.
    fn batch(&self) -> usize;

    /// Whether the kernel says when requests arrived, however late they are taken.
    fn kernel_stamps(&self) -> bool {
        false
    }

    /// Takes waiting requests, at most one batch, and forgets the batch before.
    ///
    /// # Errors
    /// `WouldBlock` where none waits; a pending error of the socket.
    fn recv(&mut self) -> io::Result<usize>;

    /// The system call that [`recv`](Self::recv) makes now.
    fn receive_call(&self) -> &'static str {
        "recvfrom"
    }

    /// A request of this batch.
    fn request(&mut self, index: usize) -> Request<'_>;

    /// Has the answer to a request begin so many octets before it, and lends it, with as much room behind;
    /// `None` where there is no room in front. To be called once.
    fn move_ahead(&mut self, _index: usize, _octets: usize) -> Option<&mut [u8]> {
        None
    }

    /// Queues the first `len` octets of the answer to a request, which begins where the request did or
    /// [before](Self::move_ahead), to leave from the address that was asked, with this TOS or Traffic Class
    /// octet.
    ///
    /// With `segment` they are a train of replies of so many octets, the last one perhaps shorter.
    fn queue(&mut self, index: usize, len: usize, tos: u8, segment: Option<usize>);

    /// Replies that wait to be sent.
    fn queued(&self) -> usize;

    /// The slot of the reply `offset` places behind the next one to be sent.
    fn reply_mut(&mut self, offset: usize) -> &mut [u8];

    /// Sends at most `limit` replies; returns how many left.
    ///
    /// # Errors
    /// Of the next reply, which stays queued.
    fn send(&mut self, limit: usize) -> io::Result<usize>;

    /// The system call that [`send`](Self::send) makes now.
    fn send_call(&self) -> &'static str {
        "sendto"
    }

    /// Sends `len` octets of an answer from `at` on by themselves.
    ///
    /// # Errors
    /// The system's.
    fn send_part(
        &mut self,
        index: usize,
        at: usize,
        len: usize,
        route: &Route,
        tos: u8,
    ) -> io::Result<()>;

    /// Gives up the next reply.
    fn skip(&mut self);

    /// The way back for a request of this batch that [`request`](Self::request) has shown; `None`
    /// where it has no source.
    fn route(&self, index: usize) -> Option<Route>;

    /// Sends octets that are kept elsewhere as an answer, at once and before what is queued.
    ///
    /// # Errors
    /// The system's.
    fn send_alone(&mut self, octets: &[u8], route: &Route, tos: u8) -> io::Result<()>;

    /// Wakes `token` when a request arrives.
    ///
    /// # Errors
    /// The system's.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;

    /// Ends what [`register`](Self::register) began.
    fn deregister(&mut self, registry: &Registry);

    /// As [`ReceiveHalf::kernel_drops`].
    fn kernel_drops(&self) -> Option<u64>;

    /// As [`SendHalf::refused_call`], in receiving and in sending.
    fn refused_calls(&self) -> [Option<RefusedCall>; 2] {
        [None; 2]
    }
}

/// A reflector's socket that comes and goes, and shares the memory of one batch with the others of its
/// thread.
pub(crate) trait Port: std::fmt::Debug + Send + Sized + 'static {
    /// The memory.
    type Slots;

    /// Whether datagrams carry control messages: TTL and TOS that arrive, a TOS of each that leaves,
    /// the system's drops.
    const CONTROL_MESSAGES: bool;

    /// Opens a socket; returns it with what the system granted.
    ///
    /// # Errors
    /// The system's: address in use, no permission.
    fn open(plan: &SocketPlan) -> io::Result<(Self, Granted)>;

    /// Allocates the memory; to be called on the thread that reflects.
    fn slots() -> Self::Slots;

    /// The socket together with the memory. What is in there stays from one such moment to the next.
    fn with<'a>(&'a mut self, slots: &'a mut Self::Slots) -> impl Mirror + 'a;

    /// As [`Mirror::register`].
    ///
    /// # Errors
    /// The system's.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;

    /// Ends what [`register`](Self::register) began.
    fn deregister(&mut self, registry: &Registry);

    /// As [`ReceiveHalf::kernel_drops`].
    fn kernel_drops(&self) -> Option<u64>;

    /// As [`SendHalf::refused_call`], in receiving and in sending.
    fn refused_calls(&self) -> [Option<RefusedCall>; 2] {
        [None; 2]
    }
}

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

/// Has the next hop on the way from `local` to `remote` resolved, within a second or so; `stop` ends the
/// wait. `None` where there is nothing to resolve (loopback, links without addresses), or the system does
/// not tell.
pub(crate) fn resolve_next_hop(
    remote: SocketAddr,
    local: IpAddr,
    interface: Option<&str>,
    stop: impl Fn() -> bool,
) -> Option<NextHop> {
    #[cfg(target_os = "linux")]
    return neighbour::resolve(remote, local, interface, stop);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (remote, local, interface, stop());
        None
    }
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
fn local_addresses(v6: bool) -> io::Result<Vec<(IpAddr, u32)>> {
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

fn new_socket(addr: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        let set = socket.set_only_v6(true);
        set.map_err(|error| refused_option("IPV6_V6ONLY", &error))?;
    }
    Ok(socket)
}

fn bind_interface(socket: &socket2::Socket, interface: Option<&str>) -> io::Result<()> {
    let Some(name) = interface else {
        return Ok(());
    };
    #[cfg(target_os = "linux")]
    {
        bind_device(socket, name)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, name);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Binds a socket to an interface; the error says what was refused and what for.
///
/// # Errors
/// The system's: no such interface, no permission.
#[cfg(target_os = "linux")]
pub(crate) fn bind_device(socket: &socket2::Socket, interface: &str) -> io::Result<()> {
    let Err(error) = socket.bind_device(Some(interface.as_bytes())) else {
        return Ok(());
    };
    if error.raw_os_error() == Some(libc::ENODEV) {
        return Err(error);
    }
    let what = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "--interface needs it, and it may need CAP_NET_RAW; leave the interface out, or grant that"
        }
        _ => "--interface needs it; leave the interface out, and name the local address",
    };
    Err(needed("SO_BINDTODEVICE", &error, what))
}

/// The error of an option without which there is nothing to be had, and what it is for.
pub(crate) fn needed(name: &str, error: &io::Error, what: &str) -> io::Error {
    let refused = refused_option(name, error);
    io::Error::new(error.kind(), format!("{refused}: {what}"))
}

/// Notes that a buffer has the system's own size.
fn note_buffer(name: &str, error: &io::Error, remarks: &mut Vec<String>) {
    let error = refused_option(name, error);
    let what = "the buffer has the system's own size, and more may be dropped where packets come in bursts";
    note(remarks, format!("{error}: {what}"));
}

/// Options that every system has; returns whether packets leave with the TTL of the plan.
///
/// # Errors
/// The system's, where it refuses what was asked for and is not what it does anyway.
fn set_plain_options(
    socket: &socket2::Socket,
    plan: &SocketPlan,
    remarks: &mut Vec<String>,
) -> io::Result<bool> {
    let (ttl, tos) = (u32::from(plan.ttl), u32::from(plan.tos));
    let v4 = plan.local.is_ipv4();
    let (name, result) = if v4 {
        ("IP_TTL", socket.set_ttl_v4(ttl))
    } else {
        ("IPV6_UNICAST_HOPS", socket.set_unicast_hops_v6(ttl))
    };
    let has_ttl = match result {
        Ok(()) => true,
        // The usual one is for counting hops; any other was asked for, and packets must not go further.
        Err(error) if plan.ttl == 255 => {
            let error = refused_option(name, &error);
            let what = "packets leave with the system's TTL, and hops on their way are not known";
            note(remarks, format!("{error}: {what}"));
            false
        }
        Err(error) => return Err(refused_option(name, &error)),
    };
    #[cfg(target_os = "linux")]
    let (name, result) = if v4 {
        ("IP_TOS", socket.set_tos_v4(tos))
    } else {
        ("IPV6_TCLASS", socket.set_tclass_v6(tos))
    };
    #[cfg(not(target_os = "linux"))]
    let (name, result) = if v4 {
        ("IP_TOS", socket.set_tos_v4(tos))
    } else {
        ("IPV6_TCLASS", Err(io::ErrorKind::Unsupported.into()))
    };
    match result {
        // Without it packets have 0.
        Err(error) if tos != 0 => Err(refused_option(name, &error)),
        _ => Ok(has_ttl),
    }
}

/// The error of a socket option, with the option's name.
fn refused_option(name: &str, error: &io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    };
    io::Error::new(error.kind(), format!("this system refuses {name} ({why})"))
}

/// Notes a remark, once.
fn note(remarks: &mut Vec<String>, remark: String) {
    if !remarks.contains(&remark) {
        remarks.push(remark);
    }
}
