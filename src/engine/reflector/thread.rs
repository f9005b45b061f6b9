//! A thread that reflects, and its sockets.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Token, Waker};

use super::book::Book as _;
use super::desk::Desk;
use super::light::Light;
use super::open_port::{NoBatch, OpenPort};
use super::reflect::Reflector;
use super::totals::{Live, Reflected};
use super::train::Answer;
use crate::engine::impair::Stage;
use crate::engine::impaired::Testing;
use crate::engine::pace::Pace;
use crate::engine::run::failed;
use crate::io::{Mirror, Port, Route};
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
pub(crate) fn run<P: Port>(
    sockets: Vec<P>,
    reflector: Reflector,
    stage: Option<Stage>,
    cpu: Option<usize>,
    stop: &AtomicBool,
    live: &Live,
    ready: impl FnOnce(Waker),
) -> io::Result<Reflected> {
    let mut desk = Desk::new(reflector)?;
    let mut ports: Vec<_> = sockets.into_iter().map(OpenPort::new).collect();
    for (index, port) in ports.iter_mut().enumerate() {
        let registry = desk.events.registry();
        port.socket.register(registry, Token(index))?;
    }
    ready(Waker::new(desk.events.registry(), Token(ports.len()))?);
    desk.reflector.totals.cpus = cpu.and_then(os::pin);
    let mut testing = stage.map(Testing::new);
    let mut slots = P::slots();
    os::sharpen_timers();
    let mut sweep_at = os::monotonic_ns();
    let mut pace = Pace::default();
    let may_look = ports.iter().all(|port| port.socket.kernel_stamps());
    while !stop.load(Ordering::Relaxed) {
        let Round {
            busy,
            taken,
            mut until,
        } = take(&mut desk, &mut ports, &mut slots, testing.as_mut());
        desk.show(live);
        if desk.failure.is_some() {
            break;
        }
        if let Some(testing) = &mut testing {
            until = until.min(testing.release_due(&mut desk, &mut ports, &mut slots));
        }
        let now = os::monotonic_ns();
        if let Some(sessions) = desk.reflector.book.sessions.as_mut().filter(|s| s.tells()) {
            if now >= sweep_at {
                sessions.sweep(now);
                sweep_at = now + SWEEP_NS;
            }
            until = until.min(sweep_at);
        }
        if may_look && pace.note(taken, now) {
            for (index, port) in ports.iter_mut().enumerate() {
                let registry = desk.events.registry();
                port.socket.deregister(registry);
                if !pace.looks() && port.socket.register(registry, Token(index)).is_err() {
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
    let mut totals = finish(desk, &ports);
    totals.injected = testing.map(|testing| testing.stage.injected);
    Ok(totals)
}

/// What came of a look at all ports.
struct Round {
    /// There may be more.
    busy: bool,
    /// Datagrams, a bundle being one.
    taken: usize,
    /// When a port that failed is to be tried again.
    until: i64,
}

/// Answers what waits at the ports, within bounds.
fn take<P: Port>(
    desk: &mut Desk,
    ports: &mut [OpenPort<P>],
    slots: &mut P::Slots,
    mut testing: Option<&mut Testing>,
) -> Round {
    let (mut busy, mut taken, mut until) = (false, 0, i64::MAX);
    for (index, port) in ports.iter_mut().enumerate() {
        for _ in 0..BUDGET {
            match port.recv(slots) {
                Ok(count) => {
                    taken += count;
                    let (mut socket, now) = (port.socket.with(slots), os::monotonic_ns());
                    match &mut testing {
                        None => desk.answer(index, &mut socket, count, now),
                        Some(testing) => testing.answer(desk, &mut socket, index, count, now),
                    }
                    if count < socket.batch() {
                        // Empty; what came meanwhile wakes the next wait at once.
                        break;
                    }
                    busy = true;
                }
                Err(NoBatch::Error) => busy = true,
                Err(NoBatch::Empty) => break,
                Err(NoBatch::Until(moment)) => {
                    until = until.min(moment);
                    break;
                }
                Err(NoBatch::Failed(call)) => {
                    desk.failure = Some(call);
                    break;
                }
            }
        }
    }
    Round { busy, taken, until }
}

/// What a thread did, and how its calls went.
fn finish<P: Port>(desk: Desk, ports: &[OpenPort<P>]) -> Reflected {
    // Requests that came since a call began to fail wait there still.
    let failing = ports.iter().find_map(OpenPort::failing);
    let failure = desk.cannot_send().or(failing);
    let mut totals = desk.finish();
    totals.failure = failure.map(failed);
    for port in ports {
        for call in port.socket.refused_calls().into_iter().flatten() {
            totals.note_refused(failed(call));
        }
        if let Some(drops) = port.socket.kernel_drops() {
            totals.kernel_drops = Some(totals.kernel_drops.unwrap_or(0) + drops);
        }
    }
    totals
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
            (&live.received, self.reflector.totals.counts.received),
            (&live.reflected, self.reflector.totals.counts.reflected),
            (&live.sessions, sessions),
        ] {
            place.store(value, Ordering::Relaxed);
        }
        live.ignored.show(&self.reflector.totals.counts.ignored);
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
    use std::sync::Arc;

    use nix::errno::Errno;

    use super::super::test_link::{Alone, Failing, tests_config};
    use super::*;
    use crate::io::{RefusedCall, Request};

    /// What a thread with this socket alone did, until it stopped.
    fn reflect<M>(socket: M, stop: &AtomicBool) -> Reflected
    where
        Alone<M>: Port,
    {
        let reflector = Reflector::new(&tests_config());
        let (sockets, live) = (vec![Alone(socket)], Live::default());
        run(sockets, reflector, None, None, stop, &live, drop).unwrap()
    }

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
            let did = reflect(socket, &AtomicBool::new(false));
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

    impl Mirror for &mut Mute {
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
        let did = reflect(socket, &AtomicBool::new(false));
        let failure = did.failure.expect("it cannot send");
        assert_eq!(
            (failure.call.as_str(), failure.errno.as_str()),
            ("sendmsg", "EPERM")
        );
    }

    #[test]
    fn a_reflector_that_is_stopped_while_its_call_fails_has_failed() {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut calls, ask) = (0, Arc::clone(&stop));
        let socket = Failing::new(move || {
            calls += 1;
            ask.store(calls == 20, Ordering::Relaxed);
            Err(Errno::EIO.into())
        });
        let did = reflect(socket, &stop);
        assert_eq!(
            did.failure.map(|failure| failure.errno).as_deref(),
            Some("EIO")
        );
    }
}
