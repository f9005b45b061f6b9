//! Sending, and how a transmit stamp finds its packet.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::Socket;

use super::calls::Calls;
use crate::io::BATCH;
use crate::io::trouble::RefusedCall;
use crate::sys::{SendBatch, SendFacts};

/// Transmit stamps under way that can be told apart where the kernel does not take an identity.
pub(super) const STAMP_IDS: usize = 1 << 16;

/// How a transmit stamp finds its packet.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    /// The packet carries it.
    Given,
    /// The kernel counts the packets that asked: sequence numbers by that count.
    Counted(Arc<[AtomicU32]>),
}

pub(super) fn place(ids: &[AtomicU32], id: u32) -> &AtomicU32 {
    &ids[usize::try_from(id).unwrap_or(0) % STAMP_IDS]
}

/// The sending socket, before its thread has started.
#[derive(Debug)]
pub(crate) struct SendSocket {
    pub(super) socket: Arc<Socket>,
    pub(super) to: SocketAddr,
    pub(super) facts: SendFacts,
    pub(super) identity: Identity,
}

impl SendSocket {
    /// Allocates the batch, each place with these octets; to be called on the thread that sends.
    pub(crate) fn start(self, octets: &[u8], places: usize) -> SendHalf {
        let places = places.min(BATCH);
        SendHalf {
            batch: SendBatch::new(places, self.to, octets, self.facts),
            places,
            socket: self.socket,
            calls: Calls::SENDING,
            identity: self.identity,
            stamped: [false; BATCH],
            next_id: 0,
        }
    }
}

/// See [`crate::io::SendHalf`].
pub(crate) struct SendHalf {
    batch: SendBatch,
    places: usize,
    socket: Arc<Socket>,
    calls: Calls,
    identity: Identity,
    /// Which places of the batch ask for a stamp.
    stamped: [bool; BATCH],
    /// The identity that the kernel gives to the next packet that asks, where it counts.
    next_id: u32,
}

impl crate::io::SendHalf for SendHalf {
    fn places(&self) -> usize {
        self.places
    }

    fn set(&mut self, index: usize, payload: usize, count: usize, stamp: Option<u32>) -> &mut [u8] {
        self.stamped[index] = stamp.is_some();
        if let (Identity::Counted(ids), Some(seq)) = (&self.identity, stamp) {
            let ahead = self.stamped[..index].iter().filter(|s| **s).count();
            let id = self.next_id.wrapping_add(u32::try_from(ahead).unwrap_or(0));
            place(ids, id).store(seq, Ordering::Release);
        }
        self.batch.set(index, payload, count, stamp)
    }

    fn send(&mut self, from: usize, to: usize) -> io::Result<usize> {
        let fd = self.socket.as_fd();
        let result = self.calls.make(
            &mut self.batch,
            |batch| batch.send(fd, from, to),
            |batch| batch.send_singly(fd, from),
        );
        // A packet that is refused takes an identity only if it got as far as the interface's queue.
        let (given, gone) = match &result {
            Ok(sent) => (*sent, *sent),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => (1, 1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, 0),
            Err(_) => (0, 1),
        };
        for (place, stamped) in self.stamped[from..from + gone].iter_mut().enumerate() {
            self.next_id = self
                .next_id
                .wrapping_add(u32::from(*stamped && place < given));
            *stamped = false;
        }
        result
    }

    fn send_call(&self) -> &'static str {
        self.calls.name()
    }

    fn refused_call(&self) -> Option<RefusedCall> {
        self.calls.refused
    }
}
