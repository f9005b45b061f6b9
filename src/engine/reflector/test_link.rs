//! What tests of reflectors share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use mio::{Registry, Token};
use nix::errno::Errno;

use super::book::Book;
use super::reflect::Reflector;
use super::train::Answer;
use crate::config::{IoKind, ReflectorConfig, SocketOptions};
use crate::io::{Granted, Mirror, Port, Request, Route, SocketPlan};
use crate::report::ignored::Kind;
use crate::wire::Format;

pub(super) fn tests_config() -> ReflectorConfig {
    ReflectorConfig {
        listen: Vec::new(),
        allow: Vec::new(),
        stateless: false,
        session_timeout_ns: 0,
        dscp: None,
        format: Format::Ntp,
        socket: SocketOptions {
            tos: 0,
            ttl: 255,
            do_not_fragment: false,
            interface: None,
            hardware: false,
            busy_poll_us: None,
            io: IoKind::Batched,
        },
        threads: 1,
        cpus: None,
        impairment: None,
        watch: false,
    }
}

impl<B: Book> Reflector<B> {
    /// Answers a datagram or bundle without looking for a run.
    pub(in crate::engine) fn reflect_each(
        &mut self,
        port: usize,
        request: &mut Request<'_>,
        now: i64,
    ) -> Option<Answer> {
        let segment = request.segment.unwrap_or(request.len).max(1);
        let visit = self.admit(port, request, segment)?;
        self.answer_each(request, visit, segment, now)
    }
}

impl Reflector {
    /// Answers a request, or says why not.
    pub(in crate::engine) fn reflect(
        &mut self,
        request: &mut Request<'_>,
        now: i64,
    ) -> Result<Answer, Kind> {
        let before = self.totals.counts.ignored;
        let answer = self.reflect_each(0, request, now);
        answer.ok_or_else(|| self.totals.counts.ignored.since(&before).most().unwrap().0)
    }
}

/// A port that is nothing but a mirror.
pub(super) struct Alone<M>(pub(super) M);

impl<M> fmt::Debug for Alone<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alone")
    }
}

impl<M: Send + 'static> Port for Alone<M>
where
    for<'a> &'a mut M: Mirror,
{
    type Slots = ();

    const CONTROL_MESSAGES: bool = false;

    fn open(_: &SocketPlan) -> io::Result<(Self, Granted)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_each(_: &SocketPlan, _: usize) -> io::Result<(Vec<Vec<Self>>, Granted)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn slots() {}

    fn with<'a>(&'a mut self, (): &'a mut ()) -> impl Mirror + 'a {
        &mut self.0
    }

    fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) {}
}

/// A socket whose calls that receive fail.
pub(super) struct Failing<F> {
    fail: F,
    calls: Arc<AtomicU64>,
}

impl<F: FnMut() -> io::Result<usize>> Failing<F> {
    pub(super) fn new(fail: F) -> Self {
        let calls = Arc::default();
        Self { fail, calls }
    }

    pub(super) fn calls(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.calls)
    }
}

impl<F: FnMut() -> io::Result<usize>> Mirror for &mut Failing<F> {
    fn batch(&self) -> usize {
        1
    }

    fn recv(&mut self) -> io::Result<usize> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        (self.fail)()
    }

    fn request(&mut self, _: usize) -> Request<'_> {
        unreachable!("there is none")
    }

    fn queue(&mut self, _: usize, _: usize, _: u8, _: Option<usize>) {}

    fn queued(&self) -> usize {
        0
    }

    fn reply_mut(&mut self, _: usize) -> &mut [u8] {
        &mut []
    }

    fn send(&mut self, _: usize) -> io::Result<usize> {
        Ok(0)
    }

    fn skip(&mut self) {}

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

/// A socket on which one bundle has arrived.
pub(in crate::engine) struct OneBundle {
    pub(in crate::engine) slot: Vec<u8>,
    /// Where the bundle, and then its answer, begins in there.
    pub(in crate::engine) begin: usize,
    pub(in crate::engine) len: usize,
    pub(in crate::engine) segment: usize,
    pub(in crate::engine) from: SocketAddr,
    pub(in crate::engine) queued: Vec<(usize, Option<usize>)>,
    /// Why a train is not taken.
    pub(in crate::engine) refusal: Errno,
    /// Replies that left by themselves.
    pub(in crate::engine) parts: usize,
}

impl Mirror for OneBundle {
    fn batch(&self) -> usize {
        1
    }

    fn recv(&mut self) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn request(&mut self, _: usize) -> Request<'_> {
        Request {
            slot: &mut self.slot[self.begin..],
            len: self.len,
            segment: Some(self.segment).filter(|segment| *segment < self.len),
            truncated: false,
            facts_cut: true,
            from: Some(self.from),
            to: None,
            to_many: false,
            arrived_ns: Some(1_790_000_000_000_000_000),
            ttl: Some(64),
            tos: Some(0xb9),
        }
    }

    fn move_ahead(&mut self, _: usize, octets: usize) -> Option<&mut [u8]> {
        self.begin = self.begin.checked_sub(octets)?;
        Some(&mut self.slot[self.begin..])
    }

    fn queue(&mut self, _: usize, len: usize, _: u8, segment: Option<usize>) {
        self.queued.push((len, segment));
    }

    fn queued(&self) -> usize {
        self.queued.len()
    }

    fn reply_mut(&mut self, _: usize) -> &mut [u8] {
        &mut self.slot[self.begin..]
    }

    fn send(&mut self, _: usize) -> io::Result<usize> {
        Err(self.refusal.into())
    }

    fn skip(&mut self) {
        self.queued.clear();
    }

    fn route(&self, _: usize) -> Option<Route> {
        Some(Route {
            to: self.from,
            source: None,
        })
    }

    fn send_alone(&mut self, _: &[u8], _: &Route, _: u8) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn send_part(&mut self, _: usize, _: usize, _: usize, _: &Route, _: u8) -> io::Result<()> {
        self.parts += 1;
        Ok(())
    }
}
