//! A reflector's socket: it answers from the memory in which requests came.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use super::calls::{Calls, named};
use super::options::{
    Asker, WHOLE_OR_NOT_AT_ALL, ask_for_header_fields, bound, busy_poll, raise_buffers,
    receive_stamps, set_fragmentation, take_bundles,
};
use super::receive::drops;
use crate::io::socket::{SocketPlan, bind_interface, needed, new_socket, set_plain_options};
use crate::io::trouble::RefusedCall;
use crate::io::{BATCH, Granted, Request, Route, StampKind};
use crate::report::note::System;
use crate::sys::{self, Call, Queue, ReplyFacts};

/// A reflector's socket, before its thread has started, or without the memory of a batch.
#[derive(Debug)]
pub(crate) struct MirrorSocket {
    socket: Socket,
    /// The one address that is asked; `None`: the packet information tells.
    address: Option<IpAddr>,
    tos: u8,
    /// The kernel stamps arrivals.
    stamped: bool,
    receiving: Calls,
    sending: Calls,
    /// The highest count of drops that a datagram carried; `None` where none would.
    drops: Option<u32>,
}

impl MirrorSocket {
    /// Sends one reply from memory of the caller's.
    fn reply(&self, octets: &[u8], to: SocketAddr, facts: ReplyFacts) -> io::Result<()> {
        let sent = sys::send_reply(self.socket.as_fd(), octets, to, facts);
        sent.map_err(|error| named(error, Call::Sendmsg))
    }
}

/// Opens the sockets of a reflector on one address, one for each thread.
///
/// # Errors
/// The system's: address in use, no permission.
fn open_mirrors(plan: &SocketPlan, threads: usize) -> io::Result<(Vec<MirrorSocket>, Granted)> {
    let mut remarks = Vec::new();
    let mut sockets = Vec::with_capacity(threads);
    let mut local = plan.local;
    let mut receive = StampKind::Userspace;
    let mut receive_buffer = None;
    let share = |socket: &Socket| {
        let needs = "threads of a reflector share its port; --threads 1 does without";
        let set = socket.set_reuse_port(true);
        set.map_err(|error| needed("SO_REUSEPORT", &error, needs))
    };
    for index in 0..threads.max(1) {
        let socket = new_socket(plan.local)?;
        bind_interface(&socket, plan.interface.as_deref())?;
        if index == 0 {
            // A plain bind first: with SO_REUSEPORT already set, a port in use would be no error.
            socket.bind(&plan.local.into())?;
            local = bound(&socket)?;
            if threads > 1 {
                // Not otherwise: any program of this user could then share the port, and traffic.
                share(&socket)?;
            }
        } else {
            share(&socket)?;
            socket.bind(&local.into())?;
        }
        set_plain_options(&socket, plan, &mut remarks)?;
        set_fragmentation(&socket, plan, WHOLE_OR_NOT_AT_ALL, &mut remarks)?;
        raise_buffers(&socket, plan.buffer, &mut remarks);
        let any_address = plan.local.ip().is_unspecified();
        let asker = Asker::Reflector { any_address };
        let tells_drops = ask_for_header_fields(&socket, plan.local.is_ipv4(), asker, &mut remarks);
        receive = receive_stamps(&socket, false, &mut remarks);
        busy_poll(&socket, plan, &mut remarks);
        if plan.bundles {
            take_bundles(&socket, &mut remarks);
        }
        receive_buffer = socket.recv_buffer_size().ok();
        sockets.push(MirrorSocket {
            socket,
            address: (!any_address).then_some(local.ip()),
            tos: plan.tos,
            stamped: receive != StampKind::Userspace,
            receiving: Calls::RECEIVING,
            sending: Calls::SENDING,
            drops: tells_drops.then_some(0),
        });
    }
    if plan.hardware {
        remarks.push(System::NoReflectorHardwareStamps);
    }
    let granted = Granted {
        local,
        receive,
        transmit: None,
        ttl: true,
        icmp: true,
        receive_buffer,
        remarks,
        next_hop: None,
    };
    Ok((sockets, granted))
}

/// The memory of one batch.
pub(crate) struct Slots {
    batch: sys::Mirror,
    /// For each slot, where the request was sent to.
    to: Vec<Option<sys::Destination>>,
    /// For each slot, where it came from.
    from: Vec<Option<SocketAddr>>,
}

impl Slots {
    fn new() -> Self {
        Self {
            batch: sys::Mirror::new(BATCH),
            to: vec![None; BATCH],
            from: vec![None; BATCH],
        }
    }

    /// Source address of the answer, and the interface it must leave by.
    fn source(&self, index: usize) -> Option<(IpAddr, u32)> {
        self.to[index].map(|to| {
            let link_local = matches!(to.addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
            (to.local, if link_local { to.interface } else { 0 })
        })
    }
}

impl crate::io::Port for MirrorSocket {
    type Slots = Slots;

    const CONTROL_MESSAGES: bool = true;

    fn open(plan: &SocketPlan) -> io::Result<(Self, Granted)> {
        let (mut sockets, granted) = open_mirrors(plan, 1)?;
        let socket = sockets.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((socket, granted))
    }

    fn open_each(plan: &SocketPlan, threads: usize) -> io::Result<(Vec<Vec<Self>>, Granted)> {
        let (sockets, granted) = open_mirrors(plan, threads)?;
        let by_thread = sockets.into_iter().map(|socket| vec![socket]);
        Ok((by_thread.collect(), granted))
    }

    fn slots() -> Slots {
        Slots::new()
    }

    fn kernel_stamps(&self) -> bool {
        self.stamped
    }

    fn with<'a>(&'a mut self, slots: &'a mut Slots) -> impl crate::io::Mirror + 'a {
        Mirror {
            slots,
            socket: self,
        }
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Not for writing: every reply that leaves would be a wake-up.
        let fd = self.socket.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    fn deregister(&mut self, registry: &Registry) {
        let fd = self.socket.as_raw_fd();
        // The system does the same when the socket is closed.
        let _ = registry.deregister(&mut SourceFd(&fd));
    }

    fn kernel_drops(&self) -> Option<u64> {
        drops(self.socket.as_fd(), self.drops)
    }

    fn refused_calls(&self) -> [Option<RefusedCall>; 2] {
        [self.receiving.refused, self.sending.refused]
    }
}

/// See [`crate::io::Mirror`].
struct Mirror<'a> {
    slots: &'a mut Slots,
    socket: &'a mut MirrorSocket,
}

impl crate::io::Mirror for Mirror<'_> {
    fn batch(&self) -> usize {
        self.slots.batch.offered()
    }

    fn recv(&mut self) -> io::Result<usize> {
        let MirrorSocket {
            socket, receiving, ..
        } = self.socket;
        let batch = self.slots.batch.next_batch();
        receiving.receive(batch, socket.as_fd(), Queue::Data)
    }

    fn send_call(&self) -> &'static str {
        self.socket.sending.name()
    }

    fn receive_call(&self) -> &'static str {
        self.socket.receiving.name()
    }

    fn request(&mut self, index: usize) -> Request<'_> {
        let slots = &mut self.slots;
        let received = slots.batch.received(index);
        let facts = received.facts;
        if let Some(drops) = facts.drops {
            self.socket.drops = Some(drops);
        }
        slots.to[index] = facts.destination;
        slots.from[index] = received.from;
        Request {
            len: received.len,
            segment: facts
                .segment
                .filter(|octets| *octets > 0 && *octets < received.len),
            truncated: received.truncated,
            facts_cut: received.control_truncated,
            slot: received.slot,
            from: received.from,
            to: facts.destination.map(|d| d.addr).or(self.socket.address),
            to_many: facts
                .destination
                .is_some_and(|d| d.addr.is_multicast() || d.addr != d.local),
            arrived_ns: facts.stamp_ns,
            ttl: facts.ttl,
            tos: facts.tos,
        }
    }

    fn move_ahead(&mut self, index: usize, octets: usize) -> Option<&mut [u8]> {
        self.slots.batch.move_ahead(index, octets)
    }

    fn queue(&mut self, index: usize, len: usize, tos: u8, segment: Option<usize>) {
        let facts = ReplyFacts {
            source: self.slots.source(index),
            tos: (tos != self.socket.tos).then_some(tos),
            segment: segment.and_then(|octets| u16::try_from(octets).ok()),
        };
        self.slots.batch.queue(index, len, facts);
    }

    fn queued(&self) -> usize {
        self.slots.batch.queued()
    }

    fn reply_mut(&mut self, offset: usize) -> &mut [u8] {
        self.slots.batch.reply_mut(offset)
    }

    fn send(&mut self, limit: usize) -> io::Result<usize> {
        let MirrorSocket {
            socket, sending, ..
        } = self.socket;
        let fd = socket.as_fd();
        sending.make(
            &mut self.slots.batch,
            |batch| batch.send(fd, limit),
            |batch| batch.send_singly(fd),
        )
    }

    fn skip(&mut self) {
        self.slots.batch.skip();
    }

    fn route(&self, index: usize) -> Option<Route> {
        Some(Route {
            to: self.slots.from[index]?,
            source: self.slots.source(index),
        })
    }

    fn send_alone(&mut self, octets: &[u8], route: &Route, tos: u8) -> io::Result<()> {
        let facts = ReplyFacts {
            source: route.source,
            tos: (tos != self.socket.tos).then_some(tos),
            segment: None,
        };
        self.socket.reply(octets, route.to, facts)
    }

    fn send_part(
        &mut self,
        index: usize,
        at: usize,
        len: usize,
        route: &Route,
        tos: u8,
    ) -> io::Result<()> {
        let facts = ReplyFacts {
            source: route.source,
            tos: (tos != self.socket.tos).then_some(tos),
            segment: None,
        };
        let octets = self.slots.batch.reply(index);
        self.socket.reply(&octets[at..at + len], route.to, facts)
    }
}
