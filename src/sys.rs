//! All `unsafe` of the crate: message batches, control messages, and the few calls that no library
//! offers safely. Everything here is small and decides nothing; the decisions are in `io` and `os`.
//!
//! The memory that the kernel is pointed at ([`Fixed`]) is reached through pointers only, so that
//! the pointers stored in message headers stay valid for as long as their owner lives. Batches are
//! not `Send`: each thread allocates its own.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{null_mut, slice_from_raw_parts_mut};

use libc::{c_int, c_uint, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_storage};

/// Room for any UDP datagram.
pub(crate) const MAX_DATAGRAM: usize = 65_536;
/// Room in front of a datagram, for an answer that begins before it.
const LEAD: usize = 64;
/// Distance of two slots: three cache lines more than a datagram, so that the headers of a batch do
/// not all fall into one set of the cache.
const STRIDE: usize = MAX_DATAGRAM + 192;
const _: () = assert!(LEAD + MAX_DATAGRAM <= STRIDE);
/// What is received at once stays in a core's own cache, so that whoever reads it, or sends it back, finds
/// it there.
const IN_CACHE: usize = 128 << 10;
/// Room for the fields of any test packet.
const HEAD: usize = 128;
/// Room for every control message that is asked for: stamps 64, packet info 40, TTL, TOS and drops
/// 24 each, an extended error with its address 64. What is sent takes less.
const CONTROL: usize = 320;

/// Socket option and control message of departure times (Linux 4.19).
/// `SCM_TS_OPT_ID` (Linux 6.13): the identity that a transmit stamp of this packet will carry.
const SCM_TS_OPT_ID: c_int = 81;
/// `SK_MEMINFO_DROPS`, the ninth word of `SO_MEMINFO`.
const MEMINFO_DROPS: usize = 8;
#[expect(clippy::cast_possible_truncation, reason = "a few octets")]
const NAME_LEN: libc::socklen_t = size_of::<sockaddr_storage>() as libc::socklen_t;
const SIOCSHWTSTAMP: libc::Ioctl = 0x89b0;

/// Objects at addresses that do not change, reached through pointers only.
struct Fixed<T>(*mut [T]);

impl<T> Fixed<T> {
    fn new(items: Vec<T>) -> Self {
        Self(Box::into_raw(items.into_boxed_slice()))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len(), "slot {index} of {}", self.len());
        // SAFETY: the index was checked against the length of this one allocation.
        unsafe { self.0.cast::<T>().add(index) }
    }

    /// The items from `from` on and how many they are, for a call that is to reach no further.
    fn run(&self, from: usize, count: usize) -> (*mut T, c_uint) {
        let end = from.checked_add(count);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{count} slots from {from} on of {}",
            self.len()
        );
        (self.at(from), length(count))
    }
}

// SAFETY: it owns its items, and nothing else has a pointer to them but other `Fixed` of the same batch, which
// goes from thread to thread as a whole.
unsafe impl<T> Send for Fixed<T> {}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` and is given back once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// A control buffer, aligned as `cmsghdr` is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

const _: () = assert!(align_of::<Control>() >= align_of::<cmsghdr>());

fn blank_head() -> mmsghdr {
    // SAFETY: `mmsghdr` is plain old data, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn blank_name() -> sockaddr_storage {
    // SAFETY: `sockaddr_storage` is plain old data, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn blank_iovs(count: usize) -> Vec<iovec> {
    let blank = iovec {
        iov_base: null_mut(),
        iov_len: 0,
    };
    vec![blank; count]
}

fn length(value: usize) -> c_uint {
    c_uint::try_from(value).expect("a batch has a few hundred slots at most, a datagram 64 KiB")
}

fn retry(mut call: impl FnMut() -> c_int) -> io::Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// What the control messages of one datagram told; `None` where nothing was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Software stamp of the kernel, nanoseconds since the Unix epoch.
    pub(crate) stamp_ns: Option<i64>,
    /// Stamp of the interface's own clock, nanoseconds of that clock.
    pub(crate) hardware_ns: Option<i64>,
    /// TTL or Hop Limit.
    pub(crate) ttl: Option<u8>,
    /// TOS or Traffic Class octet.
    pub(crate) tos: Option<u8>,
    /// The address that the datagram was sent to.
    pub(crate) destination: Option<Destination>,
    /// Datagrams that this socket dropped so far (`SO_RXQ_OVFL`).
    pub(crate) drops: Option<u32>,
    /// What an entry of the error queue says.
    pub(crate) error: Option<QueuedError>,
    /// Octets of each packet of a bundle but the last, which may be shorter.
    pub(crate) segment: Option<usize>,
}

/// The packet information of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Destination address in the IP header.
    pub(crate) addr: IpAddr,
    /// Address of this host that an answer may come from; differs from `addr` for a broadcast.
    pub(crate) local: IpAddr,
    /// Index of the interface it came in by.
    pub(crate) interface: u32,
}

/// `sock_extended_err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuedError {
    pub(crate) origin: u8,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) errno: u32,
    /// The MTU that a packet was too large for, or 0.
    pub(crate) info: u32,
    /// Identity of a stamp.
    pub(crate) data: u32,
    /// Who sent the ICMP message (`SO_EE_OFFENDER`).
    pub(crate) offender: Option<IpAddr>,
}

/// Which queue of a socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Data,
    Error,
}

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
    octets: Fixed<u8>,
    /// Octets in front of the first slot, and so of each.
    lead: usize,
    slot_len: usize,
    stride: usize,
    /// Where datagrams come from; none where that is known.
    names: Fixed<sockaddr_storage>,
    controls: Fixed<Control>,
    iovs: Fixed<iovec>,
    heads: Fixed<mmsghdr>,
    filled: usize,
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

/// What a reply needs beside its octets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplyFacts {
    /// Source address, and the interface it must leave by (0: any); `None`: the socket's own.
    pub(crate) source: Option<(IpAddr, u32)>,
    /// TOS or Traffic Class octet; `None`: the socket's own.
    pub(crate) tos: Option<u8>,
    /// A train of replies of so many octets, the last one perhaps shorter.
    pub(crate) segment: Option<u16>,
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

/// Sends one datagram or train, without blocking.
///
/// # Safety
/// `head` must point at a head, and that at what outlives the call.
unsafe fn send_one(fd: BorrowedFd<'_>, head: *mut mmsghdr) -> io::Result<()> {
    retry(|| {
        // SAFETY: the caller vouches for the head, which the kernel reads only.
        let sent = unsafe {
            let head = &raw const (*head).msg_hdr;
            libc::sendmsg(fd.as_raw_fd(), head, libc::MSG_DONTWAIT)
        };
        c_int::from(sent >= 0) - 1
    })
    .map(drop)
}

/// A call that moves packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Recvmmsg,
    Recvmsg,
    Sendmmsg,
    Sendmsg,
}

impl Call {
    /// As its manual page has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Recvmmsg => "recvmmsg",
            Self::Recvmsg => "recvmsg",
            Self::Sendmmsg => "sendmmsg",
            Self::Sendmsg => "sendmsg",
        }
    }
}

/// Whether this system refuses a call whatever it is asked, as a sandbox does or a kernel without it, and
/// by which errno. Asked without a socket, every other system says just that (EBADF): so an error of one
/// packet, or of one socket, is told from this.
pub(crate) fn refuses(call: Call) -> Option<c_int> {
    const NONE: c_int = -1;
    let mut head = blank_head();
    let flags = libc::MSG_DONTWAIT;
    let result = retry(|| {
        // SAFETY: the head is blank, and there is no socket that anything could be read from or sent by.
        unsafe {
            match call {
                Call::Recvmmsg => libc::recvmmsg(NONE, &raw mut head, 1, flags as _, null_mut()),
                Call::Sendmmsg => libc::sendmmsg(NONE, &raw mut head, 1, flags as _),
                Call::Recvmsg => {
                    c_int::from(libc::recvmsg(NONE, &raw mut head.msg_hdr, flags) >= 0) - 1
                }
                Call::Sendmsg => {
                    c_int::from(libc::sendmsg(NONE, &raw const head.msg_hdr, flags) >= 0) - 1
                }
            }
        }
    });
    let errno = result.err()?.raw_os_error()?;
    (errno != libc::EBADF).then_some(errno)
}

/// Writes the control messages of a reply.
///
/// # Safety
/// `head` must point at a control buffer of the length it says.
unsafe fn reply_control(head: &mut msghdr, reply: ReplyFacts, v6: bool) {
    // SAFETY: the caller vouches for the buffer; levels and types go with the values.
    unsafe {
        let mut control = ControlWriter::new(head);
        match reply.source {
            Some((IpAddr::V4(addr), interface)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: c_int::try_from(interface).unwrap_or(0),
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(addr.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some((IpAddr::V6(addr), interface)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: addr.octets(),
                    },
                    ipi6_ifindex: interface as _,
                };
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if let Some(octets) = reply.segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, octets);
        }
        if let Some(tos) = reply.tos {
            let (level, name) = if v6 {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TOS)
            };
            control.push(level, name, c_int::from(tos));
        }
        control.finish();
    }
}

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

/// Writes control messages one behind the other.
struct ControlWriter<'a> {
    head: &'a mut msghdr,
    next: *mut cmsghdr,
    used: usize,
}

impl<'a> ControlWriter<'a> {
    /// # Safety
    /// `head` must point at a control buffer of the length it says.
    unsafe fn new(head: &'a mut msghdr) -> Self {
        // SAFETY: the caller vouches for the buffer.
        let next = unsafe { libc::CMSG_FIRSTHDR(head) };
        Self {
            head,
            next,
            used: 0,
        }
    }

    /// # Safety
    /// The kernel must expect a `T` under this level and type.
    unsafe fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        let size = length(size_of::<T>());
        // SAFETY: the assertion keeps the message inside the buffer; the header is aligned since
        // the buffer is and CMSG_SPACE keeps it so; the data is written unaligned.
        unsafe {
            let space = libc::CMSG_SPACE(size) as usize;
            assert!(!self.next.is_null() && self.used + space <= CONTROL);
            (*self.next).cmsg_len = libc::CMSG_LEN(size) as _;
            (*self.next).cmsg_level = level;
            (*self.next).cmsg_type = kind;
            libc::CMSG_DATA(self.next)
                .cast::<T>()
                .write_unaligned(value);
            self.used += space;
            self.next = self.next.cast::<u8>().add(space).cast();
        }
    }

    fn finish(self) -> usize {
        self.head.msg_controllen = self.used as _;
        self.used
    }
}

/// Decodes the control messages of a received datagram.
fn facts(head: &msghdr) -> Facts {
    let mut facts = Facts::default();
    // SAFETY: `recvmmsg` filled the head, whose control buffer is ours and aligned; the macros keep
    // inside `msg_controllen`, and `value` checks each message's own length.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(head);
        while !next.is_null() {
            let message = next.cast_const();
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => {
                    if let Some([software, _, hardware]) = value::<[libc::timespec; 3]>(message) {
                        facts.stamp_ns = nanoseconds(software);
                        facts.hardware_ns = nanoseconds(hardware);
                    }
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    facts.segment = value::<c_int>(message).and_then(|v| usize::try_from(v).ok());
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => facts.drops = value::<u32>(message),
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    facts.ttl = value::<c_int>(message).and_then(|v| u8::try_from(v).ok());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => facts.tos = value::<u8>(message),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    facts.tos = value::<c_int>(message).and_then(|v| u8::try_from(v).ok());
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    facts.destination =
                        value::<libc::in_pktinfo>(message).map(|info| Destination {
                            addr: IpAddr::V4(ipv4(info.ipi_addr)),
                            local: IpAddr::V4(ipv4(info.ipi_spec_dst)),
                            interface: u32::try_from(info.ipi_ifindex).unwrap_or(0),
                        });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    facts.destination = value::<libc::in6_pktinfo>(message).map(|info| {
                        let addr = IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                        Destination {
                            addr,
                            local: addr,
                            interface: info.ipi6_ifindex as _,
                        }
                    });
                }
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                    facts.error = value::<libc::sock_extended_err>(message).map(|e| QueuedError {
                        origin: e.ee_origin,
                        kind: e.ee_type,
                        code: e.ee_code,
                        errno: e.ee_errno,
                        info: e.ee_info,
                        data: e.ee_data,
                        // A transmit stamp, of which there may be very many, has none.
                        offender: match e.ee_origin {
                            libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => offender(message),
                            _ => None,
                        },
                    });
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(head, message);
        }
    }
    facts
}

/// # Safety
/// `message` must be a whole control message; `T` must be plain old data.
unsafe fn value<T: Copy>(message: *const cmsghdr) -> Option<T> {
    // SAFETY: the message says that it holds at least a `T`; it is read unaligned.
    unsafe {
        let need = libc::CMSG_LEN(length(size_of::<T>())) as usize;
        if (*message).cmsg_len < need as _ {
            return None;
        }
        Some(libc::CMSG_DATA(message).cast::<T>().read_unaligned())
    }
}

/// The address behind an extended error.
///
/// # Safety
/// `message` must be a whole control message that begins with a `sock_extended_err`.
#[expect(
    clippy::useless_conversion,
    reason = "the length is narrower in some C libraries"
)]
unsafe fn offender(message: *const cmsghdr) -> Option<IpAddr> {
    let begin = length(size_of::<libc::sock_extended_err>());
    let mut name = blank_name();
    // SAFETY: what is copied lies inside the message, by its own length, and is no longer than the name.
    let octets = unsafe {
        let begin = libc::CMSG_LEN(begin) as usize;
        let octets = usize::try_from((*message).cmsg_len).ok()?;
        let octets = octets.checked_sub(begin)?;
        let octets = octets.min(size_of::<sockaddr_storage>());
        message
            .cast::<u8>()
            .add(begin)
            .copy_to_nonoverlapping((&raw mut name).cast(), octets);
        octets
    };
    let len = libc::socklen_t::try_from(octets).ok()?;
    socket_addr(&raw const name, len).map(|addr| addr.ip())
}

#[expect(
    clippy::useless_conversion,
    reason = "these types are narrower on some systems"
)]
fn nanoseconds(time: libc::timespec) -> Option<i64> {
    if time.tv_sec == 0 && time.tv_nsec == 0 {
        return None;
    }
    i64::from(time.tv_sec)
        .checked_mul(1_000_000_000)?
        .checked_add(i64::from(time.tv_nsec))
}

fn ipv4(addr: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(addr.s_addr.to_ne_bytes())
}

fn socket_addr(name: *const sockaddr_storage, len: libc::socklen_t) -> Option<SocketAddr> {
    let len = usize::try_from(len).ok()?;
    if len < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: the name is one of ours, of full size; its family and length say which address it is.
    unsafe {
        match c_int::from((*name).ss_family) {
            libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
                let addr = name.cast::<libc::sockaddr_in>().read();
                let port = u16::from_be(addr.sin_port);
                Some(SocketAddrV4::new(ipv4(addr.sin_addr), port).into())
            }
            libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
                let addr = name.cast::<libc::sockaddr_in6>().read();
                let port = u16::from_be(addr.sin6_port);
                let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, port, 0, addr.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn raw_addr(addr: SocketAddr) -> (sockaddr_storage, libc::socklen_t) {
    let mut name = blank_name();
    let raw = socket2::SockAddr::from(addr);
    let len = usize::try_from(raw.len()).unwrap_or(0);
    assert!(len <= size_of::<sockaddr_storage>());
    // SAFETY: both are at least `len` octets of plain old data, and apart.
    unsafe {
        raw.as_ptr()
            .cast::<u8>()
            .copy_to_nonoverlapping((&raw mut name).cast(), len);
    }
    (name, raw.len())
}

/// Sets a socket option whose value is a C int.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: a C int is plain old data without padding.
    unsafe { set_plain_option(fd, level, name, value) }
}

/// # Safety
/// `T` must be plain old data without padding, for the kernel reads all of its octets.
unsafe fn set_plain_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: the pointer and the length are of one value that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            length(size_of::<T>()),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Datagrams that a socket dropped so far, for want of room or for a bad checksum (`SO_MEMINFO`).
pub(crate) fn socket_drops(fd: BorrowedFd<'_>) -> Option<u32> {
    let mut words = [0_u32; MEMINFO_DROPS + 1];
    let mut len = libc::socklen_t::try_from(size_of_val(&words)).ok()?;
    // SAFETY: the kernel writes at most `len` octets, which is what `words` has.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    let whole = usize::try_from(len).ok()? >= size_of_val(&words);
    (result == 0 && whole).then(|| words[MEMINFO_DROPS])
}

/// The path MTU of a connected socket, in octets (IP_MTU of ip(7), IPV6_MTU of ipv6(7)).
pub(crate) fn path_mtu(fd: &impl AsRawFd, v6: bool) -> Option<usize> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU)
    };
    let mut mtu: i32 = 0;
    let mut len = libc::socklen_t::try_from(size_of_val(&mtu)).ok()?;
    // SAFETY: the kernel writes at most `len` octets, which is what `mtu` has.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut mtu).cast::<c_void>(),
            &raw mut len,
        )
    };
    usize::try_from(mtu)
        .ok()
        .filter(|mtu| result == 0 && *mtu > 0)
}

/// What the kernel thinks of its clock: whether something synchronises it, and the largest error in
/// microseconds.
pub(crate) fn clock_quality() -> Option<(bool, u64)> {
    // SAFETY: `timex` is plain old data; with `modes` zero the call only reads.
    let (state, time) = unsafe {
        let mut time: libc::timex = MaybeUninit::zeroed().assume_init();
        (libc::adjtimex(&raw mut time), time)
    };
    let max_error = u64::try_from(time.maxerror).ok()?;
    if state < 0 {
        return None;
    }
    let synchronised = state != libc::TIME_ERROR && time.status & libc::STA_UNSYNC == 0;
    Some((synchronised, max_error))
}

/// IP and TCP headers of the SYN of a connection whose listener keeps them (`TCP_SAVED_SYN` of
/// tcp(7)); returns how many octets they have. `None` where there are none, or no room for them.
pub(crate) fn saved_syn(fd: BorrowedFd<'_>, headers: &mut [u8]) -> Option<usize> {
    let mut len = libc::socklen_t::try_from(headers.len()).ok()?;
    // SAFETY: the kernel writes at most `len` octets, which is what `headers` has.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            headers.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    let len = usize::try_from(len).ok()?;
    (result == 0 && len <= headers.len()).then_some(len)
}

/// Sets the nice value of the calling thread: on Linux each has its own (setpriority(2)).
///
/// # Errors
/// The kernel's.
pub(crate) fn set_nice(value: c_int) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts the calling thread under SCHED_FIFO.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_NICE.
pub(crate) fn set_realtime(priority: c_int) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: 0 is the calling thread; the parameters outlive the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks an interface's driver to stamp every packet, in and out, with the interface's clock.
///
/// # Errors
/// The driver's: `Unsupported` where it has no such clock, `PermissionDenied` without CAP_NET_ADMIN.
pub(crate) fn enable_hardware_stamps(fd: BorrowedFd<'_>, interface: &str) -> io::Result<()> {
    /// `hwtstamp_config` of linux/net_tstamp.h.
    #[repr(C)]
    struct Config {
        flags: c_int,
        tx_type: c_int,
        rx_filter: c_int,
    }
    const HWTSTAMP_TX_ON: c_int = 1;
    const HWTSTAMP_FILTER_ALL: c_int = 1;

    let name = interface.as_bytes();
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut config = Config {
        flags: 0,
        tx_type: HWTSTAMP_TX_ON,
        rx_filter: HWTSTAMP_FILTER_ALL,
    };
    // SAFETY: `ifreq` is plain old data; its name is shorter than the field and ends with a zero;
    // the data pointer is of a `Config` that outlives the call.
    let result = unsafe {
        let mut request: libc::ifreq = MaybeUninit::zeroed().assume_init();
        name.as_ptr()
            .copy_to_nonoverlapping(request.ifr_name.as_mut_ptr().cast(), name.len());
        request.ifr_ifru.ifru_data = (&raw mut config).cast();
        libc::ioctl(fd.as_raw_fd(), SIOCSHWTSTAMP, &raw mut request)
    };
    match result {
        0 if config.tx_type == HWTSTAMP_TX_ON && config.rx_filter != 0 => Ok(()),
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        (a, b)
    }

    fn receive_some(batch: &mut ReceiveBatch, socket: &UdpSocket) -> usize {
        // Loopback delivers before the send call returns: nothing has to be waited for.
        batch.receive(socket.as_fd(), Queue::Data).unwrap()
    }

    #[test]
    fn datagrams_arrive_whole_with_their_source() {
        let (a, b) = pair();
        let mut batch = ReceiveBatch::new(4);
        for round in 0..3_u8 {
            for i in 0..3_u8 {
                a.send_to(&[round, i, 7], b.local_addr().unwrap()).unwrap();
            }
            assert_eq!(receive_some(&mut batch, &b), 3);
            for i in 0..3_u8 {
                let d = batch.received(usize::from(i));
                assert_eq!(d.slot[..d.len], [round, i, 7]);
                assert_eq!(d.from, Some(a.local_addr().unwrap()));
                assert!(!d.truncated && !d.control_truncated);
            }
        }
    }

    #[test]
    fn control_messages_survive_reuse_of_a_slot() {
        let (a, b) = pair();
        let to = b.local_addr().unwrap();
        let mut batch = ReceiveBatch::new(2);
        a.send_to(&[1; 20], to).unwrap();
        assert_eq!(receive_some(&mut batch, &b), 1);
        assert_eq!(batch.received(0).facts, Facts::default());
        set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, 1).unwrap();
        set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
        set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1).unwrap();
        set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_TTL, 77).unwrap();
        set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_TOS, 0xb8).unwrap();
        a.send_to(&[1; 20], to).unwrap();
        assert_eq!(receive_some(&mut batch, &b), 1);
        let facts = batch.received(0).facts;
        assert_eq!((facts.ttl, facts.tos), (Some(77), Some(0xb8)));
        let destination = facts.destination.unwrap();
        assert_eq!(destination.addr, to.ip());
        assert_eq!(destination.local, to.ip());
    }

    #[test]
    fn one_call_a_datagram_tells_the_same() {
        let (a, b) = pair();
        let to = b.local_addr().unwrap();
        set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, 1).unwrap();
        let mut sending = SendBatch::new(3, to, &[5; 100], SendFacts::default());
        let mut batch = ReceiveBatch::new(8);
        for round in 0..2 {
            for at in 0..3 {
                sending.set(at, 10 + at, 1, None)[0] = round;
                assert_eq!(sending.send_singly(a.as_fd(), at).unwrap(), 1);
            }
            assert_eq!(batch.receive_singly(b.as_fd(), Queue::Data).unwrap(), 3);
            for at in 0..3 {
                let d = batch.received(at);
                assert_eq!((d.len, d.slot[0]), (10 + at, round));
                assert_eq!(d.from, Some(a.local_addr().unwrap()));
                assert_eq!(d.facts.ttl, Some(64));
            }
            let error = batch.receive_singly(b.as_fd(), Queue::Data).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_mirror_answers_by_one_call_a_reply() {
        let (a, b) = pair();
        let mut mirror = Mirror::new(4);
        for i in 0..3_u8 {
            a.send_to(&[i; 10], b.local_addr().unwrap()).unwrap();
        }
        let got = mirror.next_batch().receive_singly(b.as_fd(), Queue::Data);
        assert_eq!(got.unwrap(), 3);
        for i in 0..3 {
            mirror.queue(i, 10, ReplyFacts::default());
        }
        for left in [2, 1, 0] {
            assert_eq!(mirror.send_singly(b.as_fd()).unwrap(), 1);
            assert_eq!(mirror.queued(), left);
        }
        assert_eq!(mirror.send_singly(b.as_fd()).unwrap(), 0);
        let mut buf = [0; 64];
        for i in 0..3 {
            assert_eq!((a.recv(&mut buf).unwrap(), buf[0]), (10, i));
        }
    }

    #[test]
    fn no_call_is_refused_here() {
        for call in [Call::Recvmmsg, Call::Recvmsg, Call::Sendmmsg, Call::Sendmsg] {
            assert_eq!(refuses(call), None, "{}", call.name());
        }
    }

    #[test]
    fn a_datagram_longer_than_its_slot_says_so() {
        let (a, b) = pair();
        a.send_to(&[1; HEAD + 1], b.local_addr().unwrap()).unwrap();
        let mut batch = ReceiveBatch::for_heads(1);
        assert_eq!(receive_some(&mut batch, &b), 1);
        let d = batch.received(0);
        assert!(d.truncated);
        assert_eq!(d.len, HEAD);
    }

    #[test]
    fn a_mirror_answers_from_its_slots() {
        let (a, b) = pair();
        let mut mirror = Mirror::new(8);
        for i in 0..5_u8 {
            a.send_to(&[i; 10], b.local_addr().unwrap()).unwrap();
        }
        assert_eq!(
            mirror.next_batch().receive(b.as_fd(), Queue::Data).unwrap(),
            5
        );
        for i in [0, 2, 4] {
            let facts = ReplyFacts {
                source: Some((b.local_addr().unwrap().ip(), 0)),
                tos: Some(0x20),
                segment: None,
            };
            mirror.queue(i, 10 + i, facts);
        }
        assert_eq!(mirror.queued(), 3);
        mirror.reply_mut(1)[0] = 99;
        assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 2);
        assert_eq!(mirror.queued(), 1, "of three, two have left");
        assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 1);
        assert_eq!(mirror.queued(), 0);
        assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 0);
        mirror.skip();
        assert_eq!(mirror.queued(), 0, "nothing is left to be given up");
        let mut buf = [0; 64];
        for (len, first) in [(10, 0), (12, 99), (14, 4)] {
            let (n, from) = a.recv_from(&mut buf).unwrap();
            assert_eq!((n, buf[0], from), (len, first, b.local_addr().unwrap()));
        }
    }

    #[test]
    fn a_mirror_answers_one_request_any_number_of_times() {
        let (a, b) = pair();
        let mut mirror = Mirror::new(2);
        a.send_to(&[7; 10], b.local_addr().unwrap()).unwrap();
        assert_eq!(
            mirror.next_batch().receive(b.as_fd(), Queue::Data).unwrap(),
            1
        );
        for _ in 0..3 {
            mirror.queue(0, 10, ReplyFacts::default());
            mirror.queue(0, 10, ReplyFacts::default());
            assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 2);
        }
        let mut buf = [0; 64];
        for _ in 0..6 {
            assert_eq!(a.recv_from(&mut buf).unwrap().0, 10);
        }
    }

    #[test]
    fn a_reply_from_elsewhere_has_source_and_tos() {
        let (a, b) = pair();
        set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
        let facts = ReplyFacts {
            source: Some((b.local_addr().unwrap().ip(), 0)),
            tos: Some(0xb8),
            segment: None,
        };
        send_reply(b.as_fd(), &[5; 70], a.local_addr().unwrap(), facts).unwrap();
        let mut batch = ReceiveBatch::new(1);
        assert_eq!(receive_some(&mut batch, &a), 1);
        let d = batch.received(0);
        assert_eq!((&d.slot[..d.len], d.facts.tos), (&[5; 70][..], Some(0xb8)));
        assert_eq!(d.from, Some(b.local_addr().unwrap()));
    }

    #[test]
    fn a_send_batch_sends_packets_and_trains() {
        let (a, b) = pair();
        let mut batch = SendBatch::new(4, b.local_addr().unwrap(), &[5; 100], SendFacts::default());
        for i in 0..3 {
            batch.set(i, 3 + i, 1, None)[..3].copy_from_slice(&[1, 2, 3]);
        }
        for (n, packet) in batch.set(3, 10, 4, None).chunks_mut(10).enumerate() {
            packet[0] = u8::try_from(n).unwrap();
        }
        assert_eq!(batch.send(a.as_fd(), 1, 4).unwrap(), 3);
        let mut buf = [0; 64];
        for len in [4, 5] {
            let n = b.recv(&mut buf).unwrap();
            assert_eq!((n, &buf[..4]), (len, &[1, 2, 3, 5][..]));
        }
        for first in 0..4 {
            let n = b.recv(&mut buf).unwrap();
            assert_eq!((n, buf[0], buf[9]), (10, first, 5));
        }
    }

    #[test]
    fn packets_and_trains_ask_for_stamps() {
        let (a, b) = pair();
        let flags = libc::SOF_TIMESTAMPING_SOFTWARE | libc::SOF_TIMESTAMPING_OPT_TSONLY;
        let flags = c_int::try_from(flags).unwrap();
        set_option(a.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPING, flags).unwrap();
        let facts = SendFacts {
            stamp_flags: libc::SOF_TIMESTAMPING_TX_SOFTWARE,
            with_id: false,
        };
        let mut batch = SendBatch::new(4, b.local_addr().unwrap(), &[5; 100], facts);
        batch.set(0, 10, 1, None);
        batch.set(1, 10, 1, Some(0));
        batch.set(2, 10, 3, Some(0));
        batch.set(3, 10, 3, None);
        assert_eq!(batch.send(a.as_fd(), 0, 4).unwrap(), 4);
        let mut buf = [0; 64];
        for _ in 0..8 {
            assert_eq!(b.recv(&mut buf).unwrap(), 10);
        }
        let mut stamps = ReceiveBatch::for_heads(8);
        assert_eq!(stamps.receive(a.as_fd(), Queue::Error).unwrap(), 2);
        assert!(stamps.received(0).facts.stamp_ns.is_some());
    }

    #[test]
    fn a_bundle_tells_the_size_of_its_packets() {
        let (a, b) = pair();
        set_option(b.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        let mut sender =
            SendBatch::new(1, b.local_addr().unwrap(), &[5; 100], SendFacts::default());
        sender.set(0, 10, 4, None);
        sender.send(a.as_fd(), 0, 1).unwrap();
        let mut batch = ReceiveBatch::new(4);
        assert_eq!(batch.receive(b.as_fd(), Queue::Data).unwrap(), 1);
        let bundle = batch.received(0);
        assert_eq!((bundle.len, bundle.facts.segment), (40, Some(10)));
        a.send_to(&[0; 10], b.local_addr().unwrap()).unwrap();
        assert_eq!(batch.receive(b.as_fd(), Queue::Data).unwrap(), 1);
        let single = batch.received(0);
        assert_eq!((single.len, single.facts.segment), (10, None));
    }

    #[test]
    fn a_full_socket_counts_its_drops() {
        let (a, b) = pair();
        set_option(b.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
        assert_eq!(socket_drops(b.as_fd()), Some(0));
        for _ in 0..100 {
            a.send_to(&[0; 100], b.local_addr().unwrap()).unwrap();
        }
        let drops = socket_drops(b.as_fd()).unwrap();
        let mut batch = ReceiveBatch::new(128);
        let kept = receive_some(&mut batch, &b);
        assert_eq!(kept + usize::try_from(drops).unwrap(), 100);
        assert!(drops > 0);
    }

    #[test]
    fn addresses_survive_the_way_through_sockaddr() {
        for text in ["192.0.2.1:862", "[2001:db8::1]:20001", "[fe80::1%3]:5"] {
            let addr: SocketAddr = text.parse().unwrap();
            let (name, len) = raw_addr(addr);
            assert_eq!(socket_addr(&raw const name, len), Some(addr));
        }
        let blank = blank_name();
        assert_eq!(socket_addr(&raw const blank, 0), None);
        assert_eq!(socket_addr(&raw const blank, 16), None);
    }

    #[test]
    #[should_panic(expected = "3 slots from 2 on of 4")]
    fn no_call_is_told_of_more_slots_than_there_are() {
        Fixed::new(vec![0_u8; 4]).run(2, 3);
    }

    #[test]
    fn the_kernel_tells_its_clock_quality() {
        let asked = || {
            // SAFETY: `timex` is plain old data; with `modes` zero the call only reads.
            let (state, time) = unsafe {
                let mut time: libc::timex = MaybeUninit::zeroed().assume_init();
                (libc::adjtimex(&raw mut time), time)
            };
            let unknown = state == libc::TIME_ERROR || time.status & libc::STA_UNSYNC != 0;
            (!unknown, u64::try_from(time.maxerror).unwrap())
        };
        // It changes once a second, or where somebody sets it.
        let quality = (0..100).find_map(|_| {
            let (before, told, after) = (asked(), clock_quality(), asked());
            (before == after).then_some((told, before))
        });
        let (told, is) = quality.expect("no two looks in a row are alike");
        assert_eq!(told, Some(is));
    }

    #[test]
    fn headers_of_a_connection_are_told_where_they_are_kept_and_fit() {
        use std::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (taken, _) = listener.accept().unwrap();
        assert_eq!(saved_syn(taken.as_fd(), &mut [0; 8]), None, "no room");
        let mut headers = [0; 256];
        let len = saved_syn(taken.as_fd(), &mut headers).unwrap();
        // IPv4 and TCP, 20 octets each and options.
        assert!((40..=120).contains(&len) && headers[0] >> 4 == 4, "{len}");
        let (datagrams, _) = pair();
        assert_eq!(saved_syn(datagrams.as_fd(), &mut headers), None);
    }
}
