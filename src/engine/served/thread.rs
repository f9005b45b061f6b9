//! A thread that reflects on ports which come and go.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::Receiver;
use mio::Waker;

use super::granted::ServedId;
use super::serving::{Serving, Session};
use crate::engine::reflector::{Desk, NoBatch, OpenPort};
use crate::engine::tally::{Tally, UnsentTally};
use crate::io::{Mirror, Port, RefusedCall};
use crate::os;
use crate::report::unsent::Unsent;

/// Batches of one port taken without a look at the others: a client that floods its own port must not
/// keep them waiting.
const BUDGET: usize = 2;

/// What a thread is told to do.
#[derive(Debug)]
pub(super) enum Command<P> {
    /// Serves a session; `socket` comes with the first one of a port.
    Add {
        socket: Option<NewPort<P>>,
        session: Box<Session>,
    },
    Run(ServedId),
    End {
        id: ServedId,
        after_ns: i64,
    },
}

/// A port that was opened, and registered by its number.
#[derive(Debug)]
pub(super) struct NewPort<P> {
    pub(super) socket: P,
    pub(super) users: Arc<AtomicUsize>,
}

/// What others see of a thread.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Sessions that it has, or is about to have.
    pub(super) sessions: AtomicUsize,
    /// Datagrams that were not answered.
    pub(super) ignored: Tally,
    /// Replies that could not be sent, by the error.
    pub(super) unsent: UnsentTally,
    /// Datagrams that the system dropped, those of closed sockets among them.
    pub(super) drops: AtomicU64,
}

/// A port of this thread.
struct Opened<P> {
    port: OpenPort<P>,
    /// Sessions on it; none any more are added once there are none.
    users: Arc<AtomicUsize>,
    /// Drops that [`Shared::drops`] has.
    drops: u64,
}

/// What a thread tells when it has ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Calls for many packets that this system refuses, so that each took one of its own.
    pub(super) refused_calls: Vec<RefusedCall>,
    /// The call that failed for good: why the thread ended before its time.
    pub(super) failure: Option<RefusedCall>,
    /// Replies that could not be sent, by the error.
    pub(super) unsent: Unsent,
}

pub(super) struct Thread<P> {
    desk: Desk<Serving>,
    ports: HashMap<usize, Opened<P>>,
    commands: Receiver<Command<P>>,
    shared: Arc<Shared>,
    /// Of whoever hears of the sessions' ends.
    listener: Arc<Waker>,
    /// There is something to hear.
    told: bool,
    /// When a port that failed is to be tried again.
    again_ns: Option<i64>,
    refused_calls: Vec<RefusedCall>,
    /// A port was closed while it failed, and no other one has been read since.
    failing: Option<RefusedCall>,
}

impl<P: Port> Thread<P> {
    pub(super) fn new(
        desk: Desk<Serving>,
        commands: Receiver<Command<P>>,
        shared: Arc<Shared>,
        listener: Arc<Waker>,
    ) -> Self {
        Self {
            desk,
            ports: HashMap::new(),
            commands,
            shared,
            listener,
            told: false,
            again_ns: None,
            refused_calls: Vec::new(),
            failing: None,
        }
    }

    /// Reflects until it is told to stop, or no call serves any more.
    pub(super) fn run(mut self, cpu: Option<usize>, stop: &AtomicBool) -> Ended {
        let _ = cpu.and_then(os::pin);
        os::sharpen_timers();
        let mut slots = P::slots();
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..self.desk.ready.len() {
                let Some(port) = self.desk.ready.pop() else {
                    break;
                };
                if self.serve(port, &mut slots) {
                    self.desk.ready.push(port);
                }
            }
            if self.desk.failure.is_some() {
                break;
            }
            self.obey();
            self.show();
            self.end_sessions(os::monotonic_ns());
            if std::mem::take(&mut self.told) {
                // A listener that has gone needs no waking.
                let _ = self.listener.wake();
            }
            let woken = std::mem::take(&mut self.desk.woken);
            if let Some(again) = self.again_ns.take() {
                self.desk.events.wait_until(again);
            } else if woken || self.desk.ready.len() > 0 {
                self.desk.events.look();
            } else {
                let next = self.desk.reflector.book.next_look();
                self.desk.events.wait_until(next);
            }
            for token in self.desk.events.ready() {
                self.desk.ready.push(token.0);
            }
        }
        self.obey();
        self.show();
        while let Some(session) = self.desk.reflector.book.take_any() {
            self.release(session);
        }
        // What was ordered since then ends with the channel.
        drop(self.commands);
        let _ = self.listener.wake();
        Ended {
            refused_calls: self.refused_calls,
            failure: self.desk.cannot_send().or(self.failing),
            unsent: self.desk.unsent,
        }
    }

    /// Answers what waits at a port, within bounds; returns whether there may be more.
    pub(super) fn serve(&mut self, number: usize, slots: &mut P::Slots) -> bool {
        let (mut full, mut more) = (false, true);
        for _ in 0..BUDGET {
            let Some(opened) = self.ports.get_mut(&number) else {
                // Closed since, or no port: what wakes this thread and its timer have numbers, too.
                return false;
            };
            match opened.port.recv(slots) {
                Ok(batch) => {
                    self.failing = None;
                    // What was ordered before these packets left their sender is in force for them.
                    self.obey();
                    let Some(opened) = self.ports.get_mut(&number) else {
                        return false;
                    };
                    let mut socket = opened.port.socket.with(slots);
                    let now = os::monotonic_ns();
                    self.desk.answer(number, &mut socket, batch, now);
                    if batch < socket.batch() {
                        // Empty; what came meanwhile wakes the next wait at once.
                        more = false;
                        break;
                    }
                    full = true;
                }
                Err(NoBatch::Empty) => {
                    self.failing = None;
                    more = false;
                    break;
                }
                Err(NoBatch::Error) => {}
                // Tried again then.
                Err(NoBatch::Until(moment)) => {
                    let before = self.again_ns.unwrap_or(i64::MAX);
                    self.again_ns = Some(moment.min(before));
                    break;
                }
                Err(NoBatch::Failed(call)) => {
                    self.desk.failure = Some(call);
                    return false;
                }
            }
        }
        if full {
            // Before there are drops much must wait.
            self.note_drops(number);
        }
        more
    }

    /// Does what this thread was told until now. No port is closed and no session ended meanwhile.
    pub(super) fn obey(&mut self) {
        for _ in 0..self.commands.len() {
            let Ok(command) = self.commands.try_recv() else {
                return;
            };
            match command {
                Command::Add { socket, session } => {
                    if let Some(NewPort { socket, users }) = socket {
                        // It was registered before it was known here.
                        self.desk.ready.push(session.port);
                        let opened = Opened {
                            port: OpenPort::new(socket),
                            users,
                            drops: 0,
                        };
                        self.ports.insert(session.port, opened);
                    }
                    self.desk.reflector.book.add(session);
                }
                Command::Run(id) => self.desk.reflector.book.run(id, os::monotonic_ns()),
                Command::End { id, after_ns } => {
                    let now = os::monotonic_ns();
                    let at = now.saturating_add(after_ns.max(0));
                    self.desk.reflector.book.end(id, at, now);
                }
            }
        }
    }

    /// Ends sessions whose time is over.
    pub(super) fn end_sessions(&mut self, now: i64) {
        while let Some(session) = self.desk.reflector.book.take_over(now) {
            self.release(session);
        }
    }

    /// Lets go of a session that is over, and of its port where it was the last one there.
    fn release(&mut self, session: Box<Session>) {
        let number = session.port;
        let users = self.ports.get(&number).map(|port| &port.users);
        let last = users.is_none_or(|users| users.fetch_sub(1, Ordering::AcqRel) == 1);
        if last {
            self.note_drops(number);
            if let Some(Opened { mut port, .. }) = self.ports.remove(&number) {
                self.failing = port.failing().or(self.failing);
                for call in port.socket.refused_calls().into_iter().flatten() {
                    if !self.refused_calls.contains(&call) {
                        self.refused_calls.push(call);
                    }
                }
                port.socket.deregister(self.desk.events.registry());
            }
        }
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
        // Now the end is told, when its port is free.
        drop(session);
        self.told = true;
    }

    fn note_drops(&mut self, number: usize) {
        let Some(opened) = self.ports.get_mut(&number) else {
            return;
        };
        if let Some(drops) = opened.port.socket.kernel_drops() {
            let more = drops.saturating_sub(opened.drops);
            self.shared.drops.fetch_add(more, Ordering::Relaxed);
            opened.drops = drops;
        }
    }

    fn show(&self) {
        self.shared
            .ignored
            .show(&self.desk.reflector.totals.counts.ignored);
        self.shared.unsent.show(&self.desk.unsent);
    }
}
