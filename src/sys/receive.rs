//! Slots for `recvmmsg`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{null_mut, slice_from_raw_parts_mut};

use libc::{c_int, iovec, mmsghdr, sockaddr_storage};

use super::address::{NAME_LEN, blank_name, socket_addr};
use super::call::{Queue, blank_head, blank_iovs, retry};
use super::cmsg::{CONTROL, Control, Facts, facts};
use super::memory::{Fixed, length};

/// Room for any UDP datagram.
pub(crate) const MAX_DATAGRAM: usize = 65_536;
/// Room in front of a datagram, for an answer that begins before it.
pub(super) const LEAD: usize = 64;
/// Distance of two slots: three cache lines more than a datagram, so that the headers of a batch do
/// not all fall into one set of the cache.
pub(super) const STRIDE: usize = MAX_DATAGRAM + 192;
const _: () = assert!(LEAD + MAX_DATAGRAM <= STRIDE);
/// What is received at once stays in a core's own cache, so that whoever reads it, or sends it back, finds
/// it there.
pub(super) const IN_CACHE: usize = 128 << 10;
/// Room for the fields of any test packet.
pub(super) const HEAD: usize = 128;

/// One received datagram, in place.
pub(crate) struct Received<'a> {
    /// The whole slot; the datagram is its first `len` octets.
    pub(crate) slot: &'a mut [u8],
    /// Octets received.
    pub(crate) len: usize,
    /// The datagram was longer than the slot (`MSG_TRUNC`).
    pub(crate) truncated: bool,
    /// Control messages were lost (`MSG_CTRUNC`).
    pub(crate) control_truncated: bool,
    /// Source address; `None` for a family that is not IP, or for none at all.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) facts: Facts,
}

/// Slots for one `recvmmsg`, used over and over.
pub(crate) struct ReceiveBatch {
    pub(super) octets: Fixed<u8>,
    /// Octets in front of the first slot, and so of each.
    pub(super) lead: usize,
    pub(super) slot_len: usize,
    pub(super) stride: usize,
    /// Where datagrams come from; none where that is known.
    pub(super) names: Fixed<sockaddr_storage>,
    pub(super) controls: Fixed<Control>,
    pub(super) iovs: Fixed<iovec>,
    pub(super) heads: Fixed<mmsghdr>,
    pub(super) filled: usize,
    /// Slots that the next call may fill.
    offered: usize,
}

impl ReceiveBatch {
    /// Slots for whole UDP datagrams. Pages that no datagram reaches stay uncommitted.
    pub(crate) fn new(slots: usize) -> Self {
        Self::with_slots_of(slots, LEAD, MAX_DATAGRAM, STRIDE, slots)
    }

    /// The same for a connected socket: nobody is told where datagrams come from.
    pub(crate) fn of_peer(slots: usize) -> Self {
        Self::with_slots_of(slots, LEAD, MAX_DATAGRAM, STRIDE, 0)
    }

    /// Slots for the error queue, whose entries carry no payload, and for the first octets of
    /// datagrams that are not expected.
    pub(crate) fn for_heads(slots: usize) -> Self {
        Self::with_slots_of(slots, 0, HEAD, HEAD, slots)
    }

    fn with_slots_of(
        slots: usize,
        lead: usize,
        slot_len: usize,
        stride: usize,
        names: usize,
    ) -> Self {
        let mut batch = Self {
            octets: Fixed::new(vec![0; slots * stride]),
            lead,
            slot_len,
            stride,
            names: Fixed::new(vec![blank_name(); names]),
            controls: Fixed::new(vec![Control([0; CONTROL]); slots]),
            iovs: Fixed::new(blank_iovs(slots)),
            heads: Fixed::new(vec![blank_head(); slots]),
            filled: 0,
            offered: slots,
        };
        for index in 0..slots {
            batch.arm(index);
        }
        batch
    }

    fn arm(&mut self, index: usize) {
        let base = self.octets.at(index * self.stride + self.lead);
        // SAFETY: all four pointers are of slots that live as long as `self`, and nothing else
        // refers to them while `self` is borrowed mutably.
        unsafe {
            *self.iovs.at(index) = iovec {
                iov_base: base.cast(),
                iov_len: self.slot_len,
            };
            let head = &mut (*self.heads.at(index)).msg_hdr;
            if self.names.len() > 0 {
                head.msg_name = self.names.at(index).cast();
                head.msg_namelen = NAME_LEN;
            }
            head.msg_iov = self.iovs.at(index);
            head.msg_iovlen = 1;
            head.msg_control = self.controls.at(index).cast();
            head.msg_controllen = CONTROL as _;
            head.msg_flags = 0;
        }
    }

    /// Takes what waits in a queue, at most one batch, without blocking.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits; whatever error the socket has pending.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, queue: Queue) -> io::Result<usize> {
        let flags = self.arm_again(queue);
        let (heads, slots) = self.heads.run(0, self.offered);
        self.filled = retry(|| {
            // SAFETY: `arm` pointed every head at its own slot; heads and slots outlive the call.
            unsafe { libc::recvmmsg(fd.as_raw_fd(), heads, slots, flags as _, null_mut()) }
        })?;
        Ok(self.filled)
    }

    /// The same by a call for each datagram.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), of the first call.
    pub(crate) fn receive_singly(&mut self, fd: BorrowedFd<'_>, queue: Queue) -> io::Result<usize> {
        let flags = self.arm_again(queue);
        for index in 0..self.offered {
            let head = self.heads.at(index);
            let received = retry(|| {
                // SAFETY: `arm` pointed the head at its own slot; both outlive the call.
                let received =
                    unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut (*head).msg_hdr, flags) };
                c_int::try_from(received).unwrap_or(c_int::MAX)
            });
            match received {
                // SAFETY: the kernel has finished with this head.
                Ok(octets) => unsafe { (*head).msg_len = length(octets) },
                Err(error) if index == 0 => return Err(error),
                Err(_) => break,
            }
            self.filled += 1;
        }
        Ok(self.filled)
    }

    /// Makes the slots ready for a call; returns its flags.
    fn arm_again(&mut self, queue: Queue) -> c_int {
        for index in 0..self.filled {
            self.arm(index);
        }
        self.filled = 0;
        match queue {
            Queue::Data => libc::MSG_DONTWAIT,
            Queue::Error => libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE,
        }
    }

    /// Slots that the next [`receive`](Self::receive) fills at most.
    pub(crate) fn offered(&self) -> usize {
        self.offered
    }

    /// Has the next [`receive`](Self::receive) fill no more slots than a core's cache has room for, where
    /// datagrams are as long as in this batch.
    pub(crate) fn fit_cache(&mut self) {
        let longest = (0..self.filled)
            // SAFETY: the kernel has finished with these heads.
            .map(|index| unsafe { (*self.heads.at(index)).msg_len })
            .max();
        let longest = longest.and_then(|octets| usize::try_from(octets).ok());
        if let Some(octets) = longest {
            let fitting = IN_CACHE / octets.max(1);
            self.offered = fitting.clamp(1, self.heads.len());
        }
    }

    /// The datagram in a slot that the last [`receive`](Self::receive) filled.
    pub(crate) fn received(&mut self, index: usize) -> Received<'_> {
        assert!(index < self.filled, "slot {index} was not filled");
        let base = self.octets.at(index * self.stride + self.lead);
        // SAFETY: the kernel has finished with this slot; `self` is borrowed for as long as the
        // slice lives, so that nothing else reaches it.
        let (slot, head) = unsafe {
            let slot = &mut *slice_from_raw_parts_mut(base, self.slot_len);
            (slot, &*self.heads.at(index))
        };
        let flags = head.msg_hdr.msg_flags;
        Received {
            len: usize::try_from(head.msg_len).map_or(self.slot_len, |n| n.min(self.slot_len)),
            slot,
            truncated: flags & libc::MSG_TRUNC != 0,
            control_truncated: flags & libc::MSG_CTRUNC != 0,
            from: match self.names.len() {
                0 => None,
                _ => socket_addr(self.names.at(index), head.msg_hdr.msg_namelen),
            },
            facts: facts(&head.msg_hdr),
        }
    }
}
