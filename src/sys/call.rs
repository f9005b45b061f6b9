//! The calls that move datagrams, and whether this system refuses them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use libc::{c_int, iovec, mmsghdr};

pub(super) fn blank_head() -> mmsghdr {
    // SAFETY: `mmsghdr` is plain old data, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

pub(super) fn blank_iovs(count: usize) -> Vec<iovec> {
    let blank = iovec {
        iov_base: null_mut(),
        iov_len: 0,
    };
    vec![blank; count]
}

pub(super) fn retry(mut call: impl FnMut() -> c_int) -> io::Result<usize> {
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

/// Sends one datagram or train, without blocking.
///
/// # Safety
/// `head` must point at a head, and that at what outlives the call.
pub(super) unsafe fn send_one(fd: BorrowedFd<'_>, head: *mut mmsghdr) -> io::Result<()> {
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

/// Which queue of a socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Data,
    Error,
}
