//! The portable make: one datagram a call, timestamps of user space, no control messages.
//!
//! TTL and TOS of what arrives and the kernel's drops are not known here, and are reported as such. Which
//! address was asked is known by the socket alone: a reflector of all addresses has one for each.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use mio::{Interest, Registry, Token};

use super::host::local_addresses;
use super::socket::{
    SocketPlan, bind_interface, new_socket, note_refused, refused_option, set_plain_options,
};
use super::trouble::{Trouble, trouble};
use super::{BATCH, Datagram, Event, Granted, MOST_BEFORE, Request, Route, StampKind};
use crate::os;
use crate::report::note::{System, Without};

const MAX_DATAGRAM: usize = 65_536;
/// Addresses that a reflector of all has a socket for, at most.
const MOST_ADDRESSES: usize = 256;

fn open(plan: &SocketPlan) -> io::Result<(socket2::Socket, Granted)> {
    if plan.do_not_fragment {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "--do-not-fragment is not to be had with --io portable",
        ));
    }
    let socket = new_socket(plan.local)?;
    bind_interface(&socket, plan.interface.as_deref())?;
    socket.bind(&plan.local.into())?;
    let mut remarks = Vec::new();
    let ttl = set_plain_options(&socket, plan, &mut remarks)?;
    // A smaller buffer than asked for is found by reading the size back.
    if let Err(error) = socket.set_recv_buffer_size(plan.buffer / 2) {
        note_refused("SO_RCVBUF", &error, Without::Buffer, &mut remarks);
    }
    if let Err(error) = socket.set_send_buffer_size(plan.buffer / 2) {
        note_refused("SO_SNDBUF", &error, Without::Buffer, &mut remarks);
    }
    let local = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let granted = Granted {
        local,
        receive: StampKind::Userspace,
        transmit: None,
        ttl,
        icmp: true,
        receive_buffer: socket.recv_buffer_size().ok(),
        remarks,
        next_hop: None,
    };
    Ok((socket, granted))
}

/// The socket of a session, bound but towards nobody yet.
#[derive(Debug)]
pub(crate) struct OpenSession {
    socket: socket2::Socket,
    granted: Granted,
}

/// Opens the socket of a session.
///
/// # Errors
/// The system's: address in use, no permission; `Unsupported` for what needs Linux.
pub(crate) fn open_session(plan: &SocketPlan) -> io::Result<OpenSession> {
    let (socket, granted) = open(plan)?;
    Ok(OpenSession { socket, granted })
}

impl OpenSession {
    /// What the system granted.
    pub(crate) fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Makes `remote` the peer, for two threads. What came before, from whomever, is dropped.
    ///
    /// # Errors
    /// The system's, such as no route.
    pub(crate) fn connect(
        self,
        remote: SocketAddr,
    ) -> io::Result<(SendSocket, ReceiveSocket, Granted)> {
        self.socket.connect(&remote.into())?;
        let socket = UdpSocket::from(self.socket);
        let mut buffer = vec![0; MAX_DATAGRAM];
        // Nobody was asked anything yet. Whoever sends without end is not waited for.
        for _ in 0..MOST_BEFORE {
            match socket.recv(&mut buffer) {
                // One that was told of a former packet is taken by the call; any other comes again.
                Err(error) if trouble(&error) != Trouble::Told => break,
                _ => {}
            }
        }
        let send = SendSocket(socket.try_clone()?);
        Ok((send, ReceiveSocket(socket), self.granted))
    }
}

/// Opens a reflector's sockets: one, or one for each address of this host where it listens on all.
///
/// # Errors
/// The system's: address in use, no permission; `Unsupported` for what needs Linux.
fn open_mirrors(plan: &SocketPlan) -> io::Result<(Vec<MirrorSocket>, Granted)> {
    let (socket, mut granted) = open(plan)?;
    granted.remarks.push(System::HeadersUnseen);
    let all = plan.local.ip().is_unspecified();
    let mut sockets = vec![socket];
    if all && let Err(error) = open_each(plan, granted.local.port(), &mut sockets) {
        let error = error.to_string();
        granted.remarks.push(System::OneSocket { error });
    } else if all {
        granted.remarks.push(System::AddressesOfNow);
    }
    let mirror = |socket: socket2::Socket| -> io::Result<MirrorSocket> {
        let local = socket.local_addr()?.as_socket().map(|addr| addr.ip());
        Ok(MirrorSocket {
            socket: mio::net::UdpSocket::from_std(socket.into()),
            address: local.filter(|ip| !ip.is_unspecified()),
        })
    };
    let sockets: io::Result<Vec<_>> = sockets.into_iter().map(mirror).collect();
    Ok((sockets?, granted))
}

fn reuse(error: &io::Error) -> io::Error {
    refused_option("SO_REUSEADDR", error)
}

/// Opens a socket for each address of this host, beside the one of all of them, which then has what is
/// sent to none of these: where several match, the system takes the most exact one.
fn open_each(plan: &SocketPlan, port: u16, sockets: &mut Vec<socket2::Socket>) -> io::Result<()> {
    let open = |address: IpAddr, scope| -> io::Result<socket2::Socket> {
        let mut local = SocketAddr::new(address, port);
        if let SocketAddr::V6(local) = &mut local {
            local.set_scope_id(scope);
        }
        let socket = new_socket(local)?;
        bind_interface(&socket, plan.interface.as_deref())?;
        socket
            .set_reuse_address(true)
            .map_err(|error| reuse(&error))?;
        socket.bind(&local.into())?;
        set_plain_options(&socket, plan, &mut Vec::new())?;
        // A smaller buffer than asked for is no error.
        let _ = socket.set_recv_buffer_size(plan.buffer / 2);
        let _ = socket.set_send_buffer_size(plan.buffer / 2);
        Ok(socket)
    };
    let addresses = local_addresses(plan.local.is_ipv6())?;
    if addresses.len() > MOST_ADDRESSES {
        return Err(io::Error::other(format!(
            "it has {}, more than {MOST_ADDRESSES}",
            addresses.len()
        )));
    }
    sockets[0]
        .set_reuse_address(true)
        .map_err(|error| reuse(&error))?;
    // One that still has to be proved to be nobody else's (RFC 4862 §5.4) is of no use yet.
    let usable = |opened: &io::Result<_>| {
        let error = opened.as_ref().err();
        error.is_none_or(|error| error.kind() != io::ErrorKind::AddrNotAvailable)
    };
    let opened: io::Result<Vec<_>> = addresses
        .iter()
        .map(|(ip, scope)| open(*ip, *scope))
        .filter(usable)
        .collect();
    let result = opened.map(|opened| sockets.extend(opened));
    for socket in sockets {
        // No further one: another program could get what is sent here.
        socket
            .set_reuse_address(false)
            .map_err(|error| reuse(&error))?;
    }
    result
}

/// The sending end, before its thread has started.
#[derive(Debug)]
pub(crate) struct SendSocket(UdpSocket);

impl SendSocket {
    /// Allocates the packets, each with these octets.
    pub(crate) fn start(self, octets: &[u8]) -> SendHalf {
        SendHalf {
            socket: mio::net::UdpSocket::from_std(self.0),
            packets: vec![(octets.to_vec(), 0); BATCH],
        }
    }
}

/// See [`super::SendHalf`].
pub(crate) struct SendHalf {
    socket: mio::net::UdpSocket,
    packets: Vec<(Vec<u8>, usize)>,
}

impl super::SendHalf for SendHalf {
    fn places(&self) -> usize {
        BATCH
    }

    fn set(&mut self, index: usize, payload: usize, count: usize, _: Option<u32>) -> &mut [u8] {
        assert_eq!(count, 1, "there are no trains here");
        let (octets, len) = &mut self.packets[index];
        *len = payload;
        &mut octets[..payload]
    }

    fn send(&mut self, from: usize, to: usize) -> io::Result<usize> {
        // One at a time: T1 is of user space, and is written anew for what is left of the batch.
        let Some((octets, len)) = self.packets[from..to].first() else {
            return Ok(0);
        };
        self.socket.send(&octets[..*len]).map(|_| 1)
    }
}

/// The receiving end, before its thread has started.
#[derive(Debug)]
pub(crate) struct ReceiveSocket(UdpSocket);

impl ReceiveSocket {
    /// Allocates the buffer.
    pub(crate) fn start(self) -> ReceiveHalf {
        ReceiveHalf {
            socket: mio::net::UdpSocket::from_std(self.0),
            buffer: vec![0; MAX_DATAGRAM],
        }
    }
}

/// See [`super::ReceiveHalf`].
pub(crate) struct ReceiveHalf {
    socket: mio::net::UdpSocket,
    buffer: Vec<u8>,
}

impl super::ReceiveHalf for ReceiveHalf {
    fn recv(&mut self, mut f: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        for count in 0..BATCH {
            let len = match self.socket.recv(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if count == 0 => return Err(error),
                Err(_) => return Ok(count),
            };
            f(Datagram {
                octets: &self.buffer[..len],
                segment: None,
                truncated: false,
                facts_cut: false,
                arrived_ns: Some(os::realtime_ns()),
                ttl: None,
                tos: None,
            });
        }
        Ok(BATCH)
    }

    fn events(&mut self, _f: impl FnMut(Event<'_>)) -> usize {
        0
    }

    fn take_bundles(&mut self) {}

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    fn deregister(&mut self, registry: &Registry) {
        // The system does the same when the socket is closed.
        let _ = registry.deregister(&mut self.socket);
    }

    fn kernel_drops(&self) -> Option<u64> {
        None
    }
}

/// A reflector's socket, before its thread has started, or without the memory of a batch.
#[derive(Debug)]
pub(crate) struct MirrorSocket {
    socket: mio::net::UdpSocket,
    /// The one address that is asked; `None`: any.
    address: Option<IpAddr>,
}

/// The memory of one batch.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    queued: Vec<(usize, usize)>,
    sent: usize,
}

#[derive(Clone, Debug)]
struct Slot {
    octets: Vec<u8>,
    len: usize,
    from: Option<SocketAddr>,
    arrived_ns: i64,
}

impl Slots {
    fn new() -> Self {
        let slot = Slot {
            octets: vec![0; MAX_DATAGRAM],
            len: 0,
            from: None,
            arrived_ns: 0,
        };
        Self {
            slots: vec![slot],
            queued: Vec::with_capacity(BATCH),
            sent: 0,
        }
    }

    /// When nothing waits any more, the next reply takes the first place.
    fn forget_sent(&mut self) {
        if self.queued.len() == self.sent {
            self.queued.clear();
            self.sent = 0;
        }
    }
}

impl super::Port for MirrorSocket {
    type Slots = Slots;

    const CONTROL_MESSAGES: bool = false;

    fn open(plan: &SocketPlan) -> io::Result<(Self, Granted)> {
        let (socket, granted) = open(plan)?;
        let local = granted.local.ip();
        let mirror = Self {
            socket: mio::net::UdpSocket::from_std(socket.into()),
            address: (!local.is_unspecified()).then_some(local),
        };
        Ok((mirror, granted))
    }

    fn open_each(plan: &SocketPlan, _: usize) -> io::Result<(Vec<Vec<Self>>, Granted)> {
        let (sockets, granted) = open_mirrors(plan)?;
        Ok((vec![sockets], granted))
    }

    fn slots() -> Slots {
        Slots::new()
    }

    fn with<'a>(&'a mut self, slots: &'a mut Slots) -> impl super::Mirror + 'a {
        Mirror {
            slots,
            socket: self,
        }
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    fn deregister(&mut self, registry: &Registry) {
        // The system does the same when the socket is closed.
        let _ = registry.deregister(&mut self.socket);
    }
}

/// See [`super::Mirror`].
struct Mirror<'a> {
    slots: &'a mut Slots,
    socket: &'a mut MirrorSocket,
}

impl super::Mirror for Mirror<'_> {
    fn batch(&self) -> usize {
        0
    }

    fn recv(&mut self) -> io::Result<usize> {
        let slots = &mut *self.slots;
        slots.queued.clear();
        slots.sent = 0;
        // One at a time: with a timestamp of user space, a batch would make the first ones wait.
        let slot = &mut slots.slots[0];
        let (len, from) = self.socket.socket.recv_from(&mut slot.octets)?;
        slot.arrived_ns = os::realtime_ns();
        slot.len = len;
        slot.from = Some(from);
        Ok(1)
    }

    fn request(&mut self, index: usize) -> Request<'_> {
        let slot = &mut self.slots.slots[index];
        Request {
            slot: &mut slot.octets,
            len: slot.len,
            segment: None,
            truncated: false,
            facts_cut: false,
            from: slot.from,
            to: self.socket.address,
            to_many: false,
            arrived_ns: Some(slot.arrived_ns),
            ttl: None,
            tos: None,
        }
    }

    fn queue(&mut self, index: usize, len: usize, _tos: u8, _segment: Option<usize>) {
        self.slots.queued.push((index, len));
    }

    fn queued(&self) -> usize {
        self.slots.queued.len() - self.slots.sent
    }

    fn reply_mut(&mut self, offset: usize) -> &mut [u8] {
        let slots = &mut *self.slots;
        let (index, _) = slots.queued[slots.sent + offset];
        &mut slots.slots[index].octets
    }

    fn send(&mut self, limit: usize) -> io::Result<usize> {
        let slots = &mut *self.slots;
        let mut count = 0;
        while let Some((index, len)) = slots.queued.get(slots.sent).copied() {
            let slot = &slots.slots[index];
            let Some(to) = slot.from.filter(|_| count < limit) else {
                break;
            };
            match self.socket.socket.send_to(&slot.octets[..len], to) {
                Ok(_) => {}
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
            slots.sent += 1;
            count += 1;
        }
        slots.forget_sent();
        Ok(count)
    }

    fn skip(&mut self) {
        if self.queued() > 0 {
            self.slots.sent += 1;
        }
        self.slots.forget_sent();
    }

    fn route(&self, index: usize) -> Option<Route> {
        let to = self.slots.slots[index].from?;
        Some(Route { to, source: None })
    }

    fn send_part(
        &mut self,
        index: usize,
        at: usize,
        len: usize,
        route: &Route,
        _tos: u8,
    ) -> io::Result<()> {
        let octets = &self.slots.slots[index].octets[at..at + len];
        self.socket.socket.send_to(octets, route.to).map(drop)
    }

    fn send_alone(&mut self, octets: &[u8], route: &Route, _tos: u8) -> io::Result<()> {
        self.socket.socket.send_to(octets, route.to).map(drop)
    }
}
