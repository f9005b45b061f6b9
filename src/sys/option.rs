//! Options of sockets, and what the system tells of itself.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void};

use super::memory::length;

/// `SK_MEMINFO_DROPS`, the ninth word of `SO_MEMINFO`.
pub(super) const MEMINFO_DROPS: usize = 8;
pub(super) const SIOCSHWTSTAMP: libc::Ioctl = 0x89b0;

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
    // SAFETY: the pointer and the length are of one value that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            length(size_of::<c_int>()),
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
