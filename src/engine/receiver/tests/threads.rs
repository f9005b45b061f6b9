//! The thread that drives a session, with sockets of which nothing is known but what their calls say.

use std::io;

use mio::Token;

use super::super::facts::Received;
use super::super::side::Plan;
use super::super::thread::{
    Attempt, BUDGET, EVENTS_EVERY, Links, Live, Pipes, Thread, ThreadPlan, run,
};
use super::{TIMEOUT_NS, plan};
use crate::engine::flight::Flight;
use crate::engine::run::Stop;
use crate::io::{Datagram, Event, ReceiveHalf, RefusedCall};
use crate::os;
use crate::sample::pipe;

fn short(timeout_ns: i64) -> ThreadPlan {
    ThreadPlan {
        session: Plan {
            timeout_ns,
            ..plan(false)
        },
        stop: Stop::default(),
        gather_ns: 0,
        cpu: None,
        realtime: false,
    }
}

fn pipes() -> Pipes {
    let (samples, _) = pipe();
    Pipes {
        samples,
        happenings: None,
        copier: None,
        tap: None,
    }
}

/// A receiving half of which nothing is known but what its calls say.
struct Faulty<F> {
    calls: u32,
    say: F,
}

impl<F: FnMut(u32) -> io::Result<usize>> ReceiveHalf for Faulty<F> {
    fn recv(&mut self, _: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        self.calls += 1;
        (self.say)(self.calls)
    }

    fn events(&mut self, _: impl FnMut(Event<'_>)) -> usize {
        0
    }

    fn take_bundles(&mut self) {}

    fn register(&mut self, _: &mio::Registry, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &mio::Registry) {}

    fn kernel_drops(&self) -> Option<u64> {
        None
    }
}

/// A receiving half of which every call takes as much, that counts the looks at the error queue.
struct Steady {
    datagrams: usize,
    looks: usize,
}

impl ReceiveHalf for Steady {
    fn recv(&mut self, _: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        match self.datagrams {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn events(&mut self, _: impl FnMut(Event<'_>)) -> usize {
        self.looks += 1;
        0
    }

    fn take_bundles(&mut self) {}

    fn register(&mut self, _: &mio::Registry, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &mio::Registry) {}

    fn kernel_drops(&self) -> Option<u64> {
        None
    }
}

/// Runs a receiver whose calls say this, for a session of one packet; also says how many calls it
/// made, and whether it then told the sender to stop.
fn run_with(say: impl FnMut(u32) -> io::Result<usize>) -> (Received, u32, bool) {
    run_for(3_000_000_000, say)
}

fn run_for(timeout_ns: i64, say: impl FnMut(u32) -> io::Result<usize>) -> (Received, u32, bool) {
    let flight = Flight::new(64, 0);
    flight.sender().attempt(1);
    let mut half = Faulty { calls: 0, say };
    let (wishes, _wanted) = crossbeam_channel::bounded(8);
    let live = Live::default();
    flight.sender().finish(1, os::monotonic_ns());
    let links = Links {
        live: &live,
        pipes: pipes(),
        wishes: &wishes,
    };
    let attempt = run(
        &mut half,
        &short(timeout_ns),
        flight.receiver(),
        links,
        drop,
    );
    let Attempt::Over(received) = attempt.unwrap() else {
        panic!("there is no grace");
    };
    (*received, half.calls, flight.sender().is_abandoned())
}

#[test]
fn a_call_that_fails_for_good_ends_the_receiver_and_not_a_core() {
    use nix::errno::Errno;

    let at_once = RefusedCall {
        call: "recvmsg",
        errno: libc::ENOSYS,
    };
    for (from_call, error, told_by) in [
        (1, None, at_once),
        (
            50,
            Some(Errno::EIO),
            RefusedCall {
                call: "recv",
                errno: libc::EIO,
            },
        ),
        (
            50,
            Some(Errno::EHOSTUNREACH),
            RefusedCall {
                call: "recv",
                errno: libc::EHOSTUNREACH,
            },
        ),
    ] {
        let (received, calls, abandoned) = run_with(|call| match error {
            _ if call < from_call => Ok(1),
            Some(errno) => Err(errno.into()),
            None => Err(at_once.into()),
        });
        assert_eq!(received.failure, Some(told_by));
        assert!(abandoned);
        // One a millisecond for a second, and some at once.
        assert!(calls < 3000, "{calls} calls for {told_by}");
    }
}

#[test]
fn a_session_that_ends_while_its_call_fails_has_failed() {
    use nix::errno::Errno;

    // Between two calls that find nothing it waits.
    for from_call in [1, 2] {
        let (received, _, abandoned) = run_for(100_000_000, |call| match call {
            _ if call < from_call => Err(Errno::EAGAIN.into()),
            _ => Err(Errno::EIO.into()),
        });
        let failure = received.failure.map(|call| call.errno);
        assert_eq!((failure, abandoned), (Some(libc::EIO), false));
    }
}

#[test]
fn a_call_that_fails_for_a_moment_ends_nothing() {
    use nix::errno::Errno;

    let (received, calls, abandoned) = run_with(|call| match call {
        1..20 => Ok(1),
        20..25 => Err(Errno::ENOMEM.into()),
        _ => Err(Errno::EAGAIN.into()),
    });
    assert_eq!((received.failure, abandoned), (None, false));
    assert!((25..3000).contains(&calls), "{calls}");
    assert_eq!(received.facts.icmp.total(), 0);
}

#[test]
fn stamps_and_errors_are_looked_for_whether_replies_come_or_not() {
    for (datagrams, looks) in [(0, 1), (1, BUDGET / EVENTS_EVERY), (64, 2)] {
        let flight = Flight::new(64, 0);
        let mut half = Steady {
            datagrams,
            looks: 0,
        };
        let (wishes, _wanted) = crossbeam_channel::bounded(8);
        let plan = short(TIMEOUT_NS);
        let mut thread = Thread::new(&mut half, &plan, flight.receiver(), pipes(), &wishes);
        let (_, taken) = thread.drain();
        assert_eq!(half.looks, looks, "{datagrams} a call");
        assert_eq!(taken, datagrams * BUDGET);
    }
}
