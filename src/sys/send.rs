//! Packets for `sendmmsg`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::slice_from_raw_parts_mut;

use libc::{c_int, iovec, mmsghdr, sockaddr_storage};

use super::address::raw_addr;
use super::call::{blank_head, blank_iovs, retry, send_one};
use super::cmsg::{CONTROL, Control, ControlWriter};
use super::memory::Fixed;

/// `SCM_TS_OPT_ID` (Linux 6.13): the identity that a transmit stamp of this packet will carry.
pub(super) const SCM_TS_OPT_ID: c_int = 81;

/// What the packets of a [`SendBatch`] can carry beside their octets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendFacts {
    /// `SOF_TIMESTAMPING_TX_*` bits of packets that ask for a stamp.
    pub(crate) stamp_flags: u32,
    /// The kernel takes the identity of a stamp.
    pub(crate) with_id: bool,
}

/// Packets for one `sendmmsg`, all to the same destination: each slot a single one, or a train of
/// equal ones that the kernel or the interface cuts (`UDP_SEGMENT`).
pub(crate) struct SendBatch {
    octets: Fixed<u8>,
    stride: usize,
    /// Pointed at by every head.
    _name: Fixed<sockaddr_storage>,
    controls: Fixed<Control>,
    iovs: Fixed<iovec>,
    heads: Fixed<mmsghdr>,
    /// Length of the control message that asks for a train, which stands first; what asks for a
    /// stamp follows.
    train_len: usize,
    /// Length of the control data that asks for a stamp, and where its identity stands.
    stamp_len: usize,
    id_at: Option<usize>,
}

impl SendBatch {
    /// `slots` slots that hold `octets` each to begin with.
    pub(crate) fn new(slots: usize, to: SocketAddr, octets: &[u8], facts: SendFacts) -> Self {
        let (name, name_len) = raw_addr(to);
        let stride = octets.len();
        let mut batch = Self {
            octets: Fixed::new(octets.repeat(slots)),
            stride,
            _name: Fixed::new(vec![name]),
            controls: Fixed::new(vec![Control([0; CONTROL]); slots]),
            iovs: Fixed::new(blank_iovs(slots)),
            heads: Fixed::new(vec![blank_head(); slots]),
            train_len: 0,
            stamp_len: 0,
            id_at: None,
        };
        for index in 0..slots {
            let base = batch.slot(index);
            // SAFETY: every pointer is of memory that `batch` owns at a fixed address.
            unsafe {
                *batch.iovs.at(index) = iovec {
                    iov_base: base.cast(),
                    iov_len: 0,
                };
                let head = &mut (*batch.heads.at(index)).msg_hdr;
                head.msg_name = batch._name.at(0).cast();
                head.msg_namelen = name_len;
                head.msg_iov = batch.iovs.at(index);
                head.msg_iovlen = 1;
                head.msg_control = batch.controls.at(index).cast();
                head.msg_controllen = CONTROL as _;
                let mut control = ControlWriter::new(head);
                control.push(libc::SOL_UDP, libc::UDP_SEGMENT, 0_u16);
                batch.train_len = control.used;
                let before = control.used;
                control.push(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, facts.stamp_flags);
                if facts.with_id {
                    batch.id_at = Some(control.used + libc::CMSG_LEN(0) as usize);
                    control.push(libc::SOL_SOCKET, SCM_TS_OPT_ID, 0_u32);
                }
                batch.stamp_len = control.finish() - before;
            }
        }
        batch
    }

    fn slot(&self, index: usize) -> *mut u8 {
        if self.stride == 0 {
            return std::ptr::NonNull::<u8>::dangling().as_ptr();
        }
        self.octets.at(index * self.stride)
    }

    /// Makes a slot a train of `count` packets of `payload` octets each, or one packet, and says
    /// whether it asks for a stamp. Lends its octets out, which are what they were before.
    pub(crate) fn set(
        &mut self,
        index: usize,
        payload: usize,
        count: usize,
        stamp: Option<u32>,
    ) -> &mut [u8] {
        let len = payload * count;
        assert!(index < self.heads.len() && len <= self.stride);
        let base = self.slot(index);
        // SAFETY: the lengths were checked above, the pointers are of memory that `self` owns, and
        // the places in the control buffer are inside what `new` wrote. Nothing else reaches the
        // slot while `self` is borrowed.
        unsafe {
            (*self.iovs.at(index)).iov_len = len;
            let control = self.controls.at(index).cast::<u8>();
            let message = &mut (*self.heads.at(index)).msg_hdr;
            let (begin, mut used) = if count > 1 {
                let place = control.add(libc::CMSG_LEN(0) as usize);
                let segment = u16::try_from(payload).unwrap_or(u16::MAX);
                place.cast::<u16>().write_unaligned(segment);
                (0, self.train_len)
            } else {
                (self.train_len, 0)
            };
            if let Some(id) = stamp {
                used += self.stamp_len;
                if let Some(at) = self.id_at {
                    control.add(at).cast::<u32>().write_unaligned(id);
                }
            }
            message.msg_control = control.add(begin).cast();
            message.msg_controllen = used as _;
            &mut *slice_from_raw_parts_mut(base, len)
        }
    }

    /// Sends the slots `from..to`, without blocking; returns how many left.
    ///
    /// # Errors
    /// Of the packet or train in slot `from`.
    pub(crate) fn send(&mut self, fd: BorrowedFd<'_>, from: usize, to: usize) -> io::Result<usize> {
        assert!(from < to);
        let (heads, count) = self.heads.run(from, to - from);
        retry(|| {
            // SAFETY: `new` and `set` filled these heads; what they point at outlives the call.
            unsafe { libc::sendmmsg(fd.as_raw_fd(), heads, count, libc::MSG_DONTWAIT as _) }
        })
    }

    /// Sends the slot `at` by a call of its own; returns 1.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn send_singly(&mut self, fd: BorrowedFd<'_>, at: usize) -> io::Result<usize> {
        // SAFETY: `new` and `set` filled this head; what it points at outlives the call.
        unsafe { send_one(fd, self.heads.at(at)) }?;
        Ok(1)
    }
}
