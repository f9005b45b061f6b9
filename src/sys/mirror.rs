//! Replies from the slots that requests came in.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::slice_from_raw_parts_mut;

use libc::{c_int, iovec, mmsghdr};

use super::address::raw_addr;
use super::call::{blank_head, blank_iovs, retry, send_one};
use super::cmsg::{CONTROL, Control, ReplyFacts, reply_control};
use super::memory::Fixed;
use super::receive::{ReceiveBatch, Received};

/// A receive batch whose datagrams can be answered from the very slots they came in.
pub(crate) struct Mirror {
    requests: ReceiveBatch,
    controls: Fixed<Control>,
    iovs: Fixed<iovec>,
    heads: Fixed<mmsghdr>,
    /// The slot of each queued reply.
    slots: Vec<usize>,
    sent: usize,
    /// How many octets before its request the answer in each slot begins.
    ahead: Vec<usize>,
}

impl Mirror {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            requests: ReceiveBatch::new(slots),
            controls: Fixed::new(vec![Control([0; CONTROL]); slots]),
            iovs: Fixed::new(blank_iovs(slots)),
            heads: Fixed::new(vec![blank_head(); slots]),
            slots: Vec::with_capacity(slots),
            sent: 0,
            ahead: vec![0; slots],
        }
    }

    /// Forgets the replies of the batch before; lends what takes the requests of the next one.
    pub(crate) fn next_batch(&mut self) -> &mut ReceiveBatch {
        self.slots.clear();
        self.sent = 0;
        self.ahead.fill(0);
        self.requests.fit_cache();
        &mut self.requests
    }

    /// As [`ReceiveBatch::offered`].
    pub(crate) fn offered(&self) -> usize {
        self.requests.offered()
    }

    pub(crate) fn received(&mut self, index: usize) -> Received<'_> {
        self.requests.received(index)
    }

    /// Has the answer to the datagram in a slot begin so many octets before it; `None` where there is no
    /// room.
    pub(crate) fn move_ahead(&mut self, index: usize, octets: usize) -> Option<&mut [u8]> {
        if octets > self.requests.lead {
            return None;
        }
        self.ahead[index] = octets;
        Some(self.reply(index))
    }

    /// The answer to the datagram in a slot, and the room behind it.
    pub(crate) fn reply(&mut self, index: usize) -> &mut [u8] {
        // SAFETY: the kernel has finished with this slot; `self` is borrowed for as long as the slice lives,
        // so that nothing else reaches it.
        unsafe { &mut *self.place(index) }
    }

    /// From where the answer to the datagram in a slot begins to the end of the slot, which is before what
    /// lies in front of the next one.
    fn place(&self, index: usize) -> *mut [u8] {
        let requests = &self.requests;
        assert!(index < requests.filled, "slot {index} was not filled");
        let ahead = self.ahead[index];
        let begin = index * requests.stride + requests.lead - ahead;
        slice_from_raw_parts_mut(requests.octets.at(begin), requests.slot_len + ahead)
    }

    /// Queues the first `len` octets of the answer to the datagram in a slot.
    pub(crate) fn queue(&mut self, index: usize, len: usize, reply: ReplyFacts) {
        let place = self.place(index);
        assert!(len <= place.len());
        let base = place.cast::<u8>();
        let at = self.slots.len();
        // SAFETY: every pointer is of a slot that lives as long as `self`; the name is the one that
        // the kernel wrote beside this very request.
        unsafe {
            *self.iovs.at(at) = iovec {
                iov_base: base.cast(),
                iov_len: len,
            };
            let request = &(*self.requests.heads.at(index)).msg_hdr;
            let head = &mut (*self.heads.at(at)).msg_hdr;
            head.msg_name = request.msg_name;
            head.msg_namelen = request.msg_namelen;
            head.msg_iov = self.iovs.at(at);
            head.msg_iovlen = 1;
            head.msg_control = self.controls.at(at).cast();
            head.msg_controllen = CONTROL as _;
            let v6 = c_int::from((*self.requests.names.at(index)).ss_family) == libc::AF_INET6;
            reply_control(head, reply, v6);
        }
        self.slots.push(index);
    }

    /// Replies that wait to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.slots.len() - self.sent
    }

    /// The octets of the reply `offset` places behind the next one to be sent.
    pub(crate) fn reply_mut(&mut self, offset: usize) -> &mut [u8] {
        let index = self.slots[self.sent + offset];
        self.reply(index)
    }

    /// Sends at most `limit` of the queued replies; returns how many left.
    ///
    /// # Errors
    /// Of the next reply, which stays queued: see [`skip`](Self::skip).
    pub(crate) fn send(&mut self, fd: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        let count = self.queued().min(limit);
        if count == 0 {
            return Ok(0);
        }
        let (heads, count) = self.heads.run(self.sent, count);
        let sent = retry(|| {
            // SAFETY: `queue` filled these heads; what they point at outlives the call.
            unsafe { libc::sendmmsg(fd.as_raw_fd(), heads, count, libc::MSG_DONTWAIT as _) }
        })?;
        self.sent += sent;
        self.forget_sent();
        Ok(sent)
    }

    /// Sends the next queued reply by a call of its own; returns 1.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn send_singly(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        if self.queued() == 0 {
            return Ok(0);
        }
        // SAFETY: `queue` filled this head; what it points at outlives the call.
        unsafe { send_one(fd, self.heads.at(self.sent)) }?;
        self.sent += 1;
        self.forget_sent();
        Ok(1)
    }

    /// Gives up the next queued reply.
    pub(crate) fn skip(&mut self) {
        if self.queued() > 0 {
            self.sent += 1;
        }
        self.forget_sent();
    }

    /// When nothing waits any more, the next reply takes the first place.
    fn forget_sent(&mut self) {
        if self.sent == self.slots.len() {
            self.slots.clear();
            self.sent = 0;
        }
    }
}

/// Sends one reply from memory of the caller's, without blocking.
///
/// # Errors
/// The kernel's.
pub(crate) fn send_reply(
    fd: BorrowedFd<'_>,
    octets: &[u8],
    to: SocketAddr,
    reply: ReplyFacts,
) -> io::Result<()> {
    let (mut name, name_len) = raw_addr(to);
    let mut control = Control([0; CONTROL]);
    let mut iov = iovec {
        iov_base: octets.as_ptr().cast_mut().cast(),
        iov_len: octets.len(),
    };
    let mut head = blank_head().msg_hdr;
    head.msg_name = (&raw mut name).cast();
    head.msg_namelen = name_len;
    head.msg_iov = &raw mut iov;
    head.msg_iovlen = 1;
    head.msg_control = (&raw mut control).cast();
    head.msg_controllen = CONTROL as _;
    // SAFETY: the control buffer is of the length that the head says.
    unsafe { reply_control(&mut head, reply, to.is_ipv6()) };
    let mut head = mmsghdr {
        msg_hdr: head,
        ..blank_head()
    };
    // SAFETY: all that the head points at outlives the call.
    unsafe { send_one(fd, &raw mut head) }
}
