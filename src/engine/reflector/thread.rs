//! A thread that reflects, and its sockets.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Token, Waker};

use super::book::Book as _;
use super::desk::Desk;
use super::light::Light;
use super::reflect::Reflector;
use super::totals::{Live, Reflected};
use super::train::Answer;
use crate::engine::impair::Stage;
use crate::engine::impaired::Testing;
use crate::engine::pace::Pace;
use crate::engine::run::failed;
use crate::io::{Advice, Mirror, Patience, Route, failed_call};
use crate::os;

/// While very many requests come they are looked for this often.
const LOOK_NS: i64 = 20_000;
/// Batches of one socket taken without a look at the other.
const BUDGET: usize = 16;
/// How often sessions that have been silent too long are looked for, while somebody is told of them.
const SWEEP_NS: i64 = 1_000_000_000;

/// Answers requests on the sockets of one thread until it is told to stop, or no call serves any more.
///
/// # Errors
/// The system's, from setting up the event loop.
pub(crate) fn run<M: Mirror>(
    mut sockets: Vec<M>,
    reflector: Reflector,
    stage: Option<Stage>,
    cpu: Option<usize>,
    stop: &AtomicBool,
    live: &Live,
    ready: impl FnOnce(Waker),
) -> io::Result<Reflected> {
    let mut desk = Desk::new(reflector)?;
    for (index, socket) in sockets.iter_mut().enumerate() {
        socket.register(desk.events.registry(), Token(index))?;
    }
    ready(Waker::new(desk.events.registry(), Token(sockets.len()))?);
    desk.reflector.totals.cpus = cpu.and_then(os::pin);
    let mut testing = stage.map(Testing::new);
    os::sharpen_timers();
    let mut sweep_at = os::monotonic_ns();
    let mut pace = Pace::default();
    let may_look = sockets.iter().all(M::kernel_stamps);
    let mut patience = vec![Patience::default(); sockets.len()];
    while !stop.load(Ordering::Relaxed) {
        let (mut busy, mut taken) = (false, 0);
        // When a socket that failed is to be tried again.
        let mut again = i64::MAX;
        for index in 0..sockets.len() {
            for _ in 0..BUDGET {
                match sockets[index].recv() {
                    Ok(count) => {
                        patience[index].renew();
                        taken += count;
                        match &mut testing {
                            None => {
                                let now = os::monotonic_ns();
                                desk.answer(index, &mut sockets[index], count, now);
                            }
                            Some(testing) => testing.answer(&mut desk, &mut sockets, index, count),
                        }
                        if count < sockets[index].batch() {
                            // Empty; what came meanwhile wakes the next wait at once.
                            break;
                        }
                        busy = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        patience[index].renew();
                        break;
                    }
                    Err(error) => match patience[index].after(&error, os::monotonic_ns()) {
                        // An ICMP error that a former reply met: taken by this call.
                        Advice::Again => busy = true,
                        Advice::At(moment) => {
                            again = again.min(moment);
                            break;
                        }
                        Advice::GiveUp => {
                            desk.failure = Some(failed_call(sockets[index].receive_call(), &error));
                            break;
                        }
                    },
                }
            }
        }
        desk.show(live);
        if desk.failure.is_some() {
            break;
        }
        let mut until = again;
        if let Some(testing) = &mut testing {
            until = until.min(testing.release_due(&mut desk, &mut sockets));
        }
        if let Some(sessions) = desk.reflector.book.sessions.as_mut().filter(|s| s.tells()) {
            let now = os::monotonic_ns();
            if now >= sweep_at {
                sessions.sweep(now);
                sweep_at = now + SWEEP_NS;
            }
            until = until.min(sweep_at);
        }
        let now = os::monotonic_ns();
        if may_look && pace.note(taken, now) {
            for (index, socket) in sockets.iter_mut().enumerate() {
                let registry = desk.events.registry();
                socket.deregister(registry);
                if !pace.looks() && socket.register(registry, Token(index)).is_err() {
                    pace.go_on_looking();
                }
            }
        }
        if !busy && !std::mem::take(&mut desk.woken) {
            if pace.looks() {
                os::sleep_until(until.min(now + LOOK_NS));
            } else {
                desk.events.wait_until(until);
            }
        }
    }
    if let Some(testing) = &mut testing {
        testing.give_up(&mut desk);
    }
    // Requests that came since a call began to fail wait there still.
    let mut failing = sockets.iter().zip(&patience);
    let failing = failing.find_map(|(socket, patience)| patience.failing(socket.receive_call()));
    let failure = desk.cannot_send().or(failing);
    let mut totals = desk.finish();
    totals.failure = failure.map(failed);
    let refused = sockets.iter().flat_map(M::refused_calls).flatten();
    for call in refused.map(failed) {
        if !totals.refused_calls.contains(&call) {
            totals.refused_calls.push(call);
        }
    }
    totals.injected = testing.map(|testing| testing.stage.injected);
    for socket in &sockets {
        if let Some(drops) = socket.kernel_drops() {
            totals.kernel_drops = Some(totals.kernel_drops.unwrap_or(0) + drops);
        }
    }
    Ok(totals)
}

impl Desk {
    /// Sends a reply that is kept elsewhere, after what is queued. One that would have left before
    /// has its T3.
    pub(in crate::engine) fn send_alone<M: Mirror>(
        &mut self,
        socket: &mut M,
        slot: &mut [u8],
        route: &Route,
        answer: Answer,
        has_t3: bool,
    ) {
        self.flush(socket);
        self.reflector.book.queued(answer.session, 1);
        loop {
            let t3 = Reflector::<Light>::now();
            if !has_t3 {
                self.reflector
                    .stamp(&answer, &mut slot[..answer.len], t3, false);
            }
            let result = socket.send_alone(&slot[..answer.len], route, answer.tos);
            self.reflector.tried(t3);
            match result {
                Ok(()) => self.left(1),
                Err(error) if self.wait_for_room(&error) => continue,
                Err(error) => self.refused(socket.send_call(), &error, answer.session, 1),
            }
            break;
        }
    }

    fn show(&self, live: &Live) {
        let sessions = self.reflector.book.sessions.as_ref().map_or(0, |s| s.begun);
        for (place, value) in [
            (&live.received, self.reflector.totals.received),
            (&live.reflected, self.reflector.totals.reflected),
            (&live.sessions, sessions),
        ] {
            place.store(value, Ordering::Relaxed);
        }
        live.ignored.show(&self.reflector.totals.ignored);
        live.unsent.show(&self.unsent);
    }

    pub(super) fn finish(mut self) -> Reflected {
        if let Some(sessions) = &self.reflector.book.sessions {
            self.reflector.totals.sessions = sessions.begun;
            self.reflector.totals.evicted = sessions.evicted;
            let offset = os::realtime_ns() - os::monotonic_ns();
            let mut records = sessions.records();
            for record in &mut records {
                record.first_ns += offset;
                record.last_ns += offset;
            }
            self.reflector.totals.records = Some(records);
        }
        self.reflector.totals.unsent_by = self.unsent;
        self.reflector.totals
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nix::errno::Errno;

    use super::super::test_link::{Failing, tests_config};
    use super::*;
    use crate::io::{RefusedCall, Request};

    #[test]
    fn a_call_that_fails_for_good_ends_the_reflector_and_not_a_core() {
        let refused = RefusedCall {
            call: "recvmsg",
            errno: libc::EPERM,
        };
        for (error, call) in [(None, "recvmsg"), (Some(Errno::EIO), "recvfrom")] {
            let socket = Failing::new(move || match error {
                Some(errno) => Err(errno.into()),
                None => Err(refused.into()),
            });
            let calls = socket.calls();
            let reflector = Reflector::new(&tests_config());
            let (stop, live) = (AtomicBool::new(false), Live::default());
            let did = run(vec![socket], reflector, None, None, &stop, &live, drop).unwrap();
            assert_eq!(
                did.failure.map(|failure| failure.call).as_deref(),
                Some(call)
            );
            let calls = calls.load(Ordering::Relaxed);
            assert!(calls < 3000, "{calls}");
        }
    }

    /// A socket on which a request waits at any time, and whose calls that send fail from one on.
    struct Mute {
        slot: [u8; 128],
        queued: usize,
        sends: u32,
    }

    impl Mirror for Mute {
        fn batch(&self) -> usize {
            1
        }

        fn recv(&mut self) -> io::Result<usize> {
            Ok(1)
        }

        fn request(&mut self, _: usize) -> Request<'_> {
            self.slot.fill(0);
            Request {
                slot: &mut self.slot,
                len: 41,
                segment: None,
                truncated: false,
                facts_cut: false,
                from: Some(([127, 0, 0, 1], 5000).into()),
                to: None,
                to_many: false,
                arrived_ns: Some(1_790_000_000_000_000_000),
                ttl: Some(64),
                tos: Some(0),
            }
        }

        fn queue(&mut self, _: usize, _: usize, _: u8, _: Option<usize>) {
            self.queued += 1;
        }

        fn queued(&self) -> usize {
            self.queued
        }

        fn reply_mut(&mut self, _: usize) -> &mut [u8] {
            &mut self.slot
        }

        fn send(&mut self, limit: usize) -> io::Result<usize> {
            self.sends += 1;
            if self.sends >= 50 {
                return Err(NO_SEND.into());
            }
            self.queued -= limit;
            Ok(limit)
        }

        fn skip(&mut self) {
            self.queued -= 1;
        }

        fn route(&self, _: usize) -> Option<Route> {
            None
        }

        fn send_alone(&mut self, _: &[u8], _: &Route, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn send_part(&mut self, _: usize, _: usize, _: usize, _: &Route, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn register(&mut self, _: &mio::Registry, _: Token) -> io::Result<()> {
            Ok(())
        }

        fn deregister(&mut self, _: &mio::Registry) {}

        fn kernel_drops(&self) -> Option<u64> {
            None
        }
    }

    const NO_SEND: RefusedCall = RefusedCall {
        call: "sendmsg",
        errno: libc::EPERM,
    };

    #[test]
    fn a_call_that_sends_and_fails_from_one_on_ends_the_reflector() {
        let socket = Mute {
            slot: [0; 128],
            queued: 0,
            sends: 0,
        };
        let reflector = Reflector::new(&tests_config());
        let (stop, live) = (AtomicBool::new(false), Live::default());
        let did = run(vec![socket], reflector, None, None, &stop, &live, drop).unwrap();
        let failure = did.failure.expect("it cannot send");
        assert_eq!(
            (failure.call.as_str(), failure.errno.as_str()),
            ("sendmsg", "EPERM")
        );
    }

    #[test]
    fn a_reflector_that_is_stopped_while_its_call_fails_has_failed() {
        let stop = AtomicBool::new(false);
        let calls = Cell::new(0);
        let socket = Failing::new(|| {
            calls.set(calls.get() + 1);
            stop.store(calls.get() == 20, Ordering::Relaxed);
            Err(Errno::EIO.into())
        });
        let live = Live::default();
        let reflector = Reflector::new(&tests_config());
        let did = run(vec![socket], reflector, None, None, &stop, &live, drop).unwrap();
        assert_eq!(
            did.failure.map(|failure| failure.errno).as_deref(),
            Some("EIO")
        );
    }
}
