//! Receiving: datagrams, transmit stamps, ICMP errors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use super::calls::Calls;
use super::options::take_bundles;
use super::send::{Identity, place};
use crate::io::trouble::RefusedCall;
use crate::io::{BATCH, Datagram, Event, Icmp, IcmpMessage, StampKind};
use crate::os;
use crate::sys::{self, Queue, ReceiveBatch};

/// Entries of the error queue taken by one call.
const EVENTS: usize = 64;

const ORIGIN_ICMP: u8 = libc::SO_EE_ORIGIN_ICMP;
const ORIGIN_ICMP6: u8 = libc::SO_EE_ORIGIN_ICMP6;
const ORIGIN_TIMESTAMPING: u8 = libc::SO_EE_ORIGIN_TIMESTAMPING;
const EMSGSIZE: u32 = libc::EMSGSIZE.unsigned_abs();

/// The receiving socket, before its thread has started.
#[derive(Debug)]
pub(crate) struct ReceiveSocket {
    pub(super) data: Socket,
    pub(super) stamps: Arc<Socket>,
    pub(super) identity: Identity,
    pub(super) receive: StampKind,
    /// Datagrams carry the count of drops.
    pub(super) tells_drops: bool,
}

impl ReceiveSocket {
    /// Allocates the batches; to be called on the thread that receives.
    pub(crate) fn start(self) -> ReceiveHalf {
        ReceiveHalf {
            batch: ReceiveBatch::of_peer(BATCH),
            errors: ReceiveBatch::for_heads(EVENTS),
            calls: Calls::RECEIVING,
            drops: self.tells_drops.then_some(0),
            sockets: self,
        }
    }
}

/// See [`crate::io::ReceiveHalf`].
pub(crate) struct ReceiveHalf {
    batch: ReceiveBatch,
    errors: ReceiveBatch,
    calls: Calls,
    /// The highest count of drops that a datagram carried; `None` where none would.
    drops: Option<u32>,
    sockets: ReceiveSocket,
}

impl ReceiveHalf {
    /// Shows what is in the first `count` slots of the batch.
    pub(crate) fn show(&mut self, count: usize, mut f: impl FnMut(Datagram<'_>)) {
        let receive = self.sockets.receive;
        let own = (receive == StampKind::Userspace).then(os::realtime_ns);
        for index in 0..count {
            let received = self.batch.received(index);
            if let Some(drops) = received.facts.drops {
                self.drops = Some(drops);
            }
            let facts = &received.facts;
            f(Datagram {
                octets: &received.slot[..received.len],
                segment: facts
                    .segment
                    .filter(|octets| *octets > 0 && *octets < received.len),
                truncated: received.truncated,
                facts_cut: received.control_truncated,
                arrived_ns: own.or_else(|| stamp(receive, facts)),
                ttl: facts.ttl,
                tos: facts.tos,
            });
        }
    }

    /// Fills slots of the batch with what waits, and returns how many.
    ///
    /// # Errors
    /// Those of [`crate::io::ReceiveHalf::recv`].
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        self.batch.fit_cache();
        let fd = self.sockets.data.as_fd();
        self.calls.receive(&mut self.batch, fd, Queue::Data)
    }

    /// As [`fill`](Self::fill), of what comes beside the replies.
    fn fill_errors(&mut self, socket: Beside, queue: Queue) -> usize {
        let fd = match socket {
            Beside::Data => self.sockets.data.as_fd(),
            Beside::Stamps => self.sockets.stamps.as_fd(),
        };
        // An error is of the replies' socket, too, and found there.
        let filled = self.calls.receive(&mut self.errors, fd, queue);
        filled.unwrap_or(0)
    }
}

/// A socket of which more is read than replies.
#[derive(Clone, Copy)]
enum Beside {
    Data,
    Stamps,
}

impl crate::io::ReceiveHalf for ReceiveHalf {
    fn recv(&mut self, f: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        let count = self.fill()?;
        self.show(count, f);
        Ok(count)
    }

    fn receive_call(&self) -> &'static str {
        self.calls.name()
    }

    fn events(&mut self, mut f: impl FnMut(Event<'_>)) -> usize {
        let mut total = 0;
        // Errors of the replies' socket: ICMP.
        let count = self.fill_errors(Beside::Data, Queue::Error);
        for index in 0..count {
            let error = self.errors.received(index).facts.error;
            if let Some(icmp) = error.and_then(|error| icmp(&error)) {
                f(Event::Icmp(icmp));
            }
        }
        total += count;
        // Errors of the sending socket: transmit stamps.
        let count = self.fill_errors(Beside::Stamps, Queue::Error);
        for index in 0..count {
            let facts = self.errors.received(index).facts;
            let ns = stamp(self.sockets.receive, &facts);
            if let (Some(error), Some(ns)) = (facts.error, ns)
                && error.origin == ORIGIN_TIMESTAMPING
            {
                let seq = match &self.sockets.identity {
                    Identity::Given => error.data,
                    Identity::Counted(ids) => place(ids, error.data).load(Ordering::Acquire),
                };
                f(Event::Departed { seq, ns });
            }
        }
        total += count;
        // Data on the sending socket: not of the peer, or it would have gone to the other one. Left
        // there it would fill the buffer that the stamps need.
        let count = self.fill_errors(Beside::Stamps, Queue::Data);
        for index in 0..count {
            let stray = self.errors.received(index);
            f(Event::Stray {
                octets: &stray.slot[..stray.len],
                from: stray.from,
            });
        }
        total + count
    }

    fn take_bundles(&mut self) {
        // Without them packets come one by one, which is slower and no less true.
        take_bundles(&self.sockets.data, &mut Vec::new());
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Replies, and the ICMP errors of this socket's error queue. Not the other socket: its
        // stamps are fetched when a reply comes, or at the next tick. Waking for each of them would
        // happen inside the very call that sends, between T1 and the packet's departure: measured, it
        // made the delay of a packet twice as long.
        let fd = self.sockets.data.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    fn deregister(&mut self, registry: &Registry) {
        let fd = self.sockets.data.as_raw_fd();
        // The system does the same when the socket is closed.
        let _ = registry.deregister(&mut SourceFd(&fd));
    }

    fn kernel_drops(&self) -> Option<u64> {
        drops(self.sockets.data.as_fd(), self.drops)
    }

    fn refused_call(&self) -> Option<RefusedCall> {
        self.calls.refused
    }
}

/// The ICMP message of an entry of the error queue.
fn icmp(error: &sys::QueuedError) -> Option<Icmp> {
    let (kind, code) = (error.kind, error.code);
    let message = match error.origin {
        ORIGIN_ICMP => IcmpMessage::V4 { kind, code },
        ORIGIN_ICMP6 => IcmpMessage::V6 { kind, code },
        _ => return None,
    };
    Some(Icmp {
        message,
        from: error.offender,
        // Of other errors it is something else, such as the place of a wrong parameter.
        mtu: Some(error.info).filter(|mtu| error.errno == EMSGSIZE && *mtu > 0),
    })
}

/// What the socket says now, or, on an older kernel, what the last datagram carried.
pub(super) fn drops(fd: BorrowedFd<'_>, carried: Option<u32>) -> Option<u64> {
    sys::socket_drops(fd).or(carried).map(u64::from)
}

/// A timestamp by the interface's clock where arrivals are stamped by that, else by the system's.
pub(super) fn stamp(receive: StampKind, facts: &sys::Facts) -> Option<i64> {
    match receive {
        StampKind::Hardware => facts.hardware_ns,
        StampKind::Kernel | StampKind::Userspace => facts.stamp_ns,
    }
}
