//! A port of a thread that reflects, and how its calls went.

use std::io;

use crate::io::{Advice, Mirror, Patience, Port, RefusedCall, failed_call};
use crate::os;

pub(in crate::engine) struct OpenPort<P> {
    pub(in crate::engine) socket: P,
    patience: Patience,
    /// The call that failed last.
    failed_call: &'static str,
}

/// Why a port gave no datagram.
pub(in crate::engine) enum NoBatch {
    /// None waits.
    Empty,
    /// A call met an error that it has taken with it.
    Error,
    /// The call fails, and is to be tried again then.
    Until(i64),
    /// The call fails for good.
    Failed(RefusedCall),
}

impl<P: Port> OpenPort<P> {
    pub(in crate::engine) fn new(socket: P) -> Self {
        Self {
            socket,
            patience: Patience::default(),
            failed_call: "",
        }
    }

    /// Takes a batch of datagrams.
    #[inline]
    pub(in crate::engine) fn recv(&mut self, slots: &mut P::Slots) -> Result<usize, NoBatch> {
        let error = match self.socket.with(slots).recv() {
            Ok(count) => {
                self.patience.renew();
                return Ok(count);
            }
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            self.patience.renew();
            return Err(NoBatch::Empty);
        }
        self.failed_call = self.socket.with(slots).receive_call();
        Err(match self.patience.after(&error, os::monotonic_ns()) {
            // An ICMP error that a former reply met.
            Advice::Again => NoBatch::Error,
            Advice::At(moment) => NoBatch::Until(moment),
            Advice::GiveUp => NoBatch::Failed(failed_call(self.failed_call, &error)),
        })
    }

    /// The call that fails, where it still does: requests may wait there.
    pub(in crate::engine) fn failing(&self) -> Option<RefusedCall> {
        self.patience.failing(self.failed_call)
    }
}
