//! How packets are moved: many a call, or one a call where the system refuses many.

use std::io;
use std::os::fd::BorrowedFd;

use crate::io::trouble::RefusedCall;
use crate::sys::{self, Call, Queue, ReceiveBatch};

/// How packets are moved one way: many a call, or, where this system refuses that, one a call.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) many: Call,
    pub(super) one: Call,
    /// Why it is one.
    pub(super) refused: Option<RefusedCall>,
}

impl Calls {
    pub(super) const RECEIVING: Self = Self {
        many: Call::Recvmmsg,
        one: Call::Recvmsg,
        refused: None,
    };
    pub(super) const SENDING: Self = Self {
        many: Call::Sendmmsg,
        one: Call::Sendmsg,
        refused: None,
    };

    /// Moves packets of a batch.
    ///
    /// # Errors
    /// The system's; a [`RefusedCall`] where there is no call left to do it by.
    #[inline]
    pub(super) fn make<B>(
        &mut self,
        batch: &mut B,
        many: impl FnOnce(&mut B) -> io::Result<usize>,
        one: impl FnOnce(&mut B) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.refused.is_none() {
            match many(batch) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock && self.fall_back() => {}
                result => return result,
            }
        }
        one(batch).map_err(|error| named(error, self.one))
    }

    /// Takes what waits in a queue of a socket.
    #[inline]
    pub(super) fn receive(
        &mut self,
        batch: &mut ReceiveBatch,
        fd: BorrowedFd<'_>,
        queue: Queue,
    ) -> io::Result<usize> {
        self.make(
            batch,
            |batch| batch.receive(fd, queue),
            |batch| batch.receive_singly(fd, queue),
        )
    }

    /// The one that is made now.
    pub(super) fn name(&self) -> &'static str {
        match self.refused {
            None => self.many.name(),
            Some(_) => self.one.name(),
        }
    }

    /// Whether it was the call that failed, and not what it was to do.
    #[cold]
    pub(super) fn fall_back(&mut self) -> bool {
        self.refused = refused(self.many);
        self.refused.is_some()
    }
}

pub(super) fn refused(call: Call) -> Option<RefusedCall> {
    let errno = sys::refuses(call)?;
    let call = call.name();
    Some(RefusedCall { call, errno })
}

/// The error of a call, which says so where it is the call that is refused.
#[cold]
pub(super) fn named(error: io::Error, call: Call) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return error;
    }
    refused(call).map_or(error, Into::into)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::io::failed_call;

    #[test]
    fn an_error_that_is_of_no_refused_call_names_the_call_that_was_made() {
        // No socket, and so an error of each call that this system does not refuse.
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut batch = ReceiveBatch::for_heads(1);
        let mut calls = Calls::RECEIVING;
        for call in ["recvmmsg", "recvmsg"] {
            let result = calls.receive(&mut batch, file.as_fd(), Queue::Data);
            let expected = RefusedCall {
                call,
                errno: libc::ENOTSOCK,
            };
            assert_eq!(failed_call(calls.name(), &result.unwrap_err()), expected);
            calls.refused = Some(RefusedCall {
                call: "recvmmsg",
                errno: libc::ENOSYS,
            });
        }
    }
}
