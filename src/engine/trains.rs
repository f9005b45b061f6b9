//! Trains: packets that the system is handed as one, and that it or the interface cuts.

use std::io;

use nix::errno::Errno;

/// Most packets of a train (`UDP_MAX_SEGMENTS` of older kernels).
pub(super) const MOST_BURST: u32 = 64;

/// Whether a train may be refused by this error for being one: no such option, a device that cannot,
/// packets larger than the path takes whole.
pub(super) fn refuses_trains(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(|errno| {
        [
            Errno::EINVAL,
            Errno::EIO,
            Errno::EMSGSIZE,
            Errno::EOPNOTSUPP,
        ]
        .contains(&errno)
    })
}
