//! What the errors of calls that send are about. The network may have told a socket of a former packet, the
//! system may have no room, or it refuses the packet at hand, a train, or the call itself.

use std::io;

use crate::engine::icmp;
use crate::io::{Refusals, RefusedCall, refused_call};

/// So many errors in a row may be of former packets: then the one at hand is what is refused.
const MOST_FORMER: u32 = 1000;

/// The errors of one socket so far.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// Those in a row that were of former packets.
    former: u32,
    /// An error that the network may have told of a former packet: this one is tried again.
    told: Option<i32>,
    refusals: Refusals,
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The socket has no room.
    NoRoom,
    /// The peer's port was closed to a former packet; the one at hand has not been tried.
    PortClosed,
    /// A former packet, perhaps: the call is to be made again.
    Former,
    /// This system has no call left.
    NoCall(RefusedCall),
    /// The packet or train at hand.
    This,
}

impl Errors {
    /// Other packets are at hand.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.former = 0;
    }

    /// Packets left; returns the error that was of a former one.
    #[inline]
    pub(super) fn sent(&mut self) -> Option<i32> {
        self.former = 0;
        self.refusals.end();
        self.told.take()
    }

    #[cold]
    pub(super) fn judge(&mut self, error: &io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::WouldBlock => Trouble::NoRoom,
            io::ErrorKind::ConnectionRefused if self.former < MOST_FORMER => {
                self.former += 1;
                Trouble::PortClosed
            }
            _ if self.told.is_none() && icmp::may_be_told(error) => {
                self.told = error.raw_os_error();
                Trouble::Former
            }
            _ => refused_call(error).map_or(Trouble::This, Trouble::NoCall),
        }
    }

    /// The packet or train at hand is refused: what came twice was of it.
    #[cold]
    pub(super) fn refused(&mut self, call: &'static str, error: &io::Error, now: i64) {
        self.refusals.note(call, error, now);
        self.told = None;
    }

    /// The call that was refused until the end.
    pub(super) fn for_good(&self) -> Option<RefusedCall> {
        self.refusals.for_good(false)
    }
}
