//! Control messages: what a datagram told, and what a reply asks for.

use std::mem::size_of;
use std::net::{IpAddr, Ipv6Addr};

use libc::{c_int, cmsghdr, msghdr, sockaddr_storage};

use super::address::{blank_name, ipv4, socket_addr};
use super::memory::length;

/// Room for every control message that is asked for: stamps 64, packet info 40, TTL, TOS and drops
/// 24 each, an extended error with its address 64. What is sent takes less.
pub(super) const CONTROL: usize = 320;

/// A control buffer, aligned as `cmsghdr` is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; CONTROL]);

const _: () = assert!(align_of::<Control>() >= align_of::<cmsghdr>());

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

/// Writes the control messages of a reply.
///
/// # Safety
/// `head` must point at a control buffer of the length it says.
pub(super) unsafe fn reply_control(head: &mut msghdr, reply: ReplyFacts, v6: bool) {
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

/// Writes control messages one behind the other.
pub(super) struct ControlWriter<'a> {
    head: &'a mut msghdr,
    next: *mut cmsghdr,
    pub(super) used: usize,
}

impl<'a> ControlWriter<'a> {
    /// # Safety
    /// `head` must point at a control buffer of the length it says.
    pub(super) unsafe fn new(head: &'a mut msghdr) -> Self {
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
    pub(super) unsafe fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
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

    pub(super) fn finish(self) -> usize {
        self.head.msg_controllen = self.used as _;
        self.used
    }
}

/// Decodes the control messages of a received datagram.
pub(super) fn facts(head: &msghdr) -> Facts {
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
