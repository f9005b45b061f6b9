//! Socket addresses as the kernel has them.

use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{c_int, sockaddr_storage};

#[expect(clippy::cast_possible_truncation, reason = "a few octets")]
pub(super) const NAME_LEN: libc::socklen_t = size_of::<sockaddr_storage>() as libc::socklen_t;

pub(super) fn blank_name() -> sockaddr_storage {
    // SAFETY: `sockaddr_storage` is plain old data, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

pub(super) fn ipv4(addr: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(addr.s_addr.to_ne_bytes())
}

pub(super) fn socket_addr(
    name: *const sockaddr_storage,
    len: libc::socklen_t,
) -> Option<SocketAddr> {
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

pub(super) fn raw_addr(addr: SocketAddr) -> (sockaddr_storage, libc::socklen_t) {
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
