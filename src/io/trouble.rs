//! What an error of a call that moves packets says, and how long such a call is tried again.
//!
//! Three kinds of trouble look alike at the call and mean different things. The network may have told
//! something of a former packet; the system may have no memory for a moment; or it refuses the call, as a
//! sandbox does. The first is a count, the second passes, and the third must end the work of the thread,
//! for a call that always fails would else be made for ever.

use std::fmt;
use std::io;

/// So many errors that the network may have told come in a row at most: after each one the call is made
/// again at once.
const MOST_TOLD: u32 = 1000;
/// A call that fails otherwise is made again this often, and for so long.
const AGAIN_NS: i64 = 1_000_000;
const PATIENCE_NS: i64 = 1_000_000_000;

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing waits, or there is no room: no error at all.
    NotNow,
    /// The network may have told it of a former packet, and the call itself was not tried.
    Told,
    /// This system fails, for now or for good.
    Failed,
    /// This system does not have the call at all: see [`RefusedCall`].
    Refused,
}

/// What the error of a call that receives is about.
///
/// The second group is what Linux makes of ICMP errors (`icmp_err_convert`, `icmpv6_err_convert`).
pub(crate) fn trouble(error: &io::Error) -> Trouble {
    if refused_call(error).is_some() {
        return Trouble::Refused;
    }
    if error.kind() == io::ErrorKind::WouldBlock {
        return Trouble::NotNow;
    }
    #[cfg(target_os = "linux")]
    if error.raw_os_error() == Some(libc::ENONET) {
        return Trouble::Told;
    }
    match error.raw_os_error() {
        Some(
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENOPROTOOPT
            | libc::EACCES
            | libc::EPROTO
            | libc::EMSGSIZE
            | libc::EOPNOTSUPP,
        ) => Trouble::Told,
        _ => Trouble::Failed,
    }
}

/// A call that this system refuses whatever it is asked, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusedCall {
    /// Its name, as in its manual page.
    pub(crate) call: &'static str,
    pub(crate) errno: i32,
}

impl fmt::Display for RefusedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = nix::errno::Errno::from_raw(self.errno).desc();
        write!(f, "{}: {why}", self.call)
    }
}

impl std::error::Error for RefusedCall {}

impl From<RefusedCall> for io::Error {
    fn from(refused: RefusedCall) -> Self {
        Self::other(refused)
    }
}

/// What an error says of the call that failed, which is `call` unless the error names another.
pub(crate) fn failed_call(call: &'static str, error: &io::Error) -> RefusedCall {
    refused_call(error).unwrap_or(RefusedCall {
        call,
        errno: error.raw_os_error().unwrap_or(0),
    })
}

/// The call that is refused, where an error says so.
pub(crate) fn refused_call(error: &io::Error) -> Option<RefusedCall> {
    error.get_ref()?.downcast_ref().copied()
}

/// What to do after a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Make it again at once.
    Again,
    /// Make it again at this moment of the monotonic clock.
    At(i64),
    /// It is of no use.
    GiveUp,
}

/// How long a call that receives is made again although it fails.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// Errors in a row that the network may have told.
    told: u32,
    /// When the call began to fail, by the monotonic clock, and its last errno.
    failing: Option<(i64, i32)>,
}

impl Patience {
    /// The call did what it is for, if only to say that nothing waits.
    #[inline]
    pub(crate) fn renew(&mut self) {
        *self = Self::default();
    }

    /// The call failed.
    pub(crate) fn after(&mut self, error: &io::Error, now_ns: i64) -> Advice {
        match trouble(error) {
            Trouble::NotNow => {
                self.renew();
                return Advice::Again;
            }
            Trouble::Told if self.told < MOST_TOLD => {
                self.told += 1;
                return Advice::Again;
            }
            Trouble::Refused => return Advice::GiveUp,
            Trouble::Told | Trouble::Failed => {}
        }
        let since = self.failing.map_or(now_ns, |(since, _)| since);
        self.failing = Some((since, error.raw_os_error().unwrap_or(0)));
        if now_ns.saturating_sub(since) >= PATIENCE_NS {
            Advice::GiveUp
        } else {
            Advice::At(now_ns.saturating_add(AGAIN_NS))
        }
    }

    /// The call, where it failed when it was last made: whoever ends now has not seen what came since.
    pub(crate) fn failing(&self, call: &'static str) -> Option<RefusedCall> {
        self.failing.map(|(_, errno)| RefusedCall { call, errno })
    }
}

/// Calls that send, one after the other, that were refused by one errno.
///
/// A firewall or a route that comes back ends such a row; a row that lasts until the end says that sending
/// had failed for good.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refusals {
    row: Option<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    call: RefusedCall,
    since_ns: i64,
    until_ns: i64,
}

impl Refusals {
    /// A packet left.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.row = None;
    }

    /// A packet was refused.
    #[cold]
    pub(crate) fn note(&mut self, call: &'static str, error: &io::Error, now_ns: i64) {
        let call = failed_call(call, error);
        self.row = match (call.errno, &self.row) {
            // No errno, no room, or what the call tells of other packets: it does what it is for.
            (0 | libc::EAGAIN | libc::ENOBUFS | libc::EMSGSIZE | libc::ECONNREFUSED, _) => None,
            (errno, Some(row)) if row.call.errno == errno => Some(Row {
                until_ns: now_ns,
                ..*row
            }),
            _ => Some(Row {
                call,
                since_ns: now_ns,
                until_ns: now_ns,
            }),
        };
    }

    /// The call and its error, where it was refused for a second on end, or, with `always`, each time, and
    /// the last time too.
    pub(crate) fn for_good(&self, always: bool) -> Option<RefusedCall> {
        let row = self.row.as_ref()?;
        let lasted = row.until_ns.saturating_sub(row.since_ns) >= PATIENCE_NS;
        (always || lasted).then_some(row.call)
    }
}

/// Whether an error of a call that sends may be of the packet's destination alone: a reflector has many.
pub(crate) fn is_of_destination(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::EHOSTDOWN
            | libc::EACCES
            | libc::EINVAL
            | libc::EADDRNOTAVAIL
            | libc::EAFNOSUPPORT
    )
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn what_the_network_told_is_told_from_what_this_system_refuses() {
        use Trouble::{Failed, NotNow, Refused, Told};

        for (errno, expected) in [
            (Errno::EAGAIN, NotNow),
            (Errno::ECONNREFUSED, Told),
            (Errno::EHOSTUNREACH, Told),
            (Errno::ENETUNREACH, Told),
            (Errno::EACCES, Told),
            (Errno::EPROTO, Told),
            (Errno::EMSGSIZE, Told),
            (Errno::ENOSYS, Failed),
            (Errno::EPERM, Failed),
            (Errno::EIO, Failed),
            (Errno::ENOMEM, Failed),
            (Errno::EBADF, Failed),
            (Errno::EINVAL, Failed),
        ] {
            assert_eq!(trouble(&errno.into()), expected, "{errno}");
        }
        let call = RefusedCall {
            call: "recvmsg",
            errno: libc::EPERM,
        };
        let error = io::Error::from(call);
        assert_eq!(trouble(&error), Refused);
        assert_eq!(refused_call(&error), Some(call));
        assert_eq!(error.to_string(), "recvmsg: Operation not permitted");
    }

    #[test]
    fn a_call_that_fails_is_made_again_for_a_while() {
        let mut patience = Patience::default();
        let eio = Errno::EIO.into();
        let mut now = 5_000_000_000;
        let begun = now;
        let mut tries = 0;
        while let Advice::At(again) = patience.after(&eio, now) {
            assert_eq!(again, now + AGAIN_NS);
            now = again;
            tries += 1;
        }
        assert_eq!(patience.after(&eio, now), Advice::GiveUp);
        assert_eq!((now - begun, tries), (PATIENCE_NS, 1000));
        let failing = patience.failing("recv").map(|call| call.errno);
        assert_eq!(failing, Some(libc::EIO));
        // One that passes is forgotten.
        patience.renew();
        assert_eq!(patience.failing("recv"), None);
        assert_eq!(patience.after(&eio, now), Advice::At(now + AGAIN_NS));
    }

    #[test]
    fn what_the_network_tells_without_end_is_not_the_networks() {
        let mut patience = Patience::default();
        let told = Errno::EACCES.into();
        for _ in 0..MOST_TOLD {
            assert_eq!(patience.after(&told, 0), Advice::Again);
        }
        assert_eq!(patience.after(&told, 0), Advice::At(AGAIN_NS));
        assert_eq!(patience.after(&told, PATIENCE_NS), Advice::GiveUp);
        // Whatever does come in between says that the call is to be had.
        patience.renew();
        assert_eq!(patience.after(&told, 0), Advice::Again);
    }

    #[test]
    fn a_call_that_is_not_there_is_not_made_again() {
        let refused = RefusedCall {
            call: "recvmsg",
            errno: libc::ENOSYS,
        };
        let mut patience = Patience::default();
        assert_eq!(patience.after(&refused.into(), 0), Advice::GiveUp);
    }

    #[test]
    fn a_row_of_refusals_is_for_good_where_it_lasts() {
        let mut refusals = Refusals::default();
        let (eperm, other) = (Errno::EPERM.into(), Errno::ENETUNREACH.into());
        refusals.note("sendto", &eperm, 0);
        assert_eq!(refusals.for_good(false), None);
        let call = RefusedCall {
            call: "sendto",
            errno: libc::EPERM,
        };
        assert_eq!(refusals.for_good(true), Some(call));
        refusals.note("sendto", &eperm, PATIENCE_NS);
        assert_eq!(refusals.for_good(false), Some(call));
        // Another error begins another row, and what leaves ends it.
        refusals.note("sendto", &other, PATIENCE_NS + 1);
        assert_eq!(refusals.for_good(false), None);
        refusals.note("sendto", &other, 2 * PATIENCE_NS + 1);
        assert!(refusals.for_good(false).is_some());
        refusals.end();
        assert_eq!(refusals.for_good(true), None);
        for errno in [
            Errno::ENOBUFS,
            Errno::EMSGSIZE,
            Errno::ECONNREFUSED,
            Errno::EAGAIN,
        ] {
            refusals.note("sendto", &errno.into(), 0);
            refusals.note("sendto", &errno.into(), 2 * PATIENCE_NS);
            assert_eq!(refusals.for_good(true), None, "{errno}");
        }
    }
}
