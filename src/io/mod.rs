//! Moves datagrams and their timestamps; knows no protocol.
//!
//! A Session-Sender uses a [`SendHalf`] and a [`ReceiveHalf`] on two threads, a Session-Reflector a
//! [`Mirror`]. Each has two makes: `linux` (batches, kernel timestamps, control messages) and
//! `portable` (one datagram a call, timestamps of user space). What the system grants is found out
//! when a socket is opened and kept in [`Granted`]; a missing feature never ends a run.
//!
//! The engine is written against the traits, so that both makes run the same code.

mod host;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(target_os = "linux")]
mod neighbour;
pub(crate) mod portable;
mod socket;
mod trouble;

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::{Registry, Token};

pub(crate) use self::host::{NextHop, interface_of, is_local, path_mtu, source_address, speed_of};
#[cfg(target_os = "linux")]
pub(crate) use self::socket::bind_device;
pub(crate) use self::socket::{SocketPlan, needed};
pub(crate) use self::trouble::{
    Advice, Patience, Refusals, RefusedCall, failed_call, is_of_destination, refused_call,
};
pub(crate) use crate::report::StampKind;
use crate::report::note::System;

/// Largest number of datagrams that one call moves.
pub(crate) const BATCH: usize = 32;
/// Datagrams from before a session that are dropped at most: as many as a large socket buffer holds.
const MOST_BEFORE: usize = 1 << 17;

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
    /// What was asked for and refused.
    pub(crate) remarks: Vec<System>,
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
}

/// A reflector's socket, which shares the memory of one batch with the others of its thread.
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

    /// Opens the sockets on one address of a reflector with so many threads; returns them by thread.
    ///
    /// # Errors
    /// The system's: address in use, no permission; `Unsupported` for what needs Linux.
    fn open_each(plan: &SocketPlan, threads: usize) -> io::Result<(Vec<Vec<Self>>, Granted)>;

    /// Allocates the memory; to be called on the thread that reflects.
    fn slots() -> Self::Slots;

    /// The socket together with the memory. What is in there stays from one such moment to the next.
    fn with<'a>(&'a mut self, slots: &'a mut Self::Slots) -> impl Mirror + 'a;

    /// Whether the kernel says when requests arrived, however late they are taken.
    fn kernel_stamps(&self) -> bool {
        false
    }

    /// Wakes `token` when a request arrives.
    ///
    /// # Errors
    /// The system's.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;

    /// Ends what [`register`](Self::register) began.
    fn deregister(&mut self, registry: &Registry);

    /// As [`ReceiveHalf::kernel_drops`].
    fn kernel_drops(&self) -> Option<u64> {
        None
    }

    /// As [`SendHalf::refused_call`], in receiving and in sending.
    fn refused_calls(&self) -> [Option<RefusedCall>; 2] {
        [None; 2]
    }
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
