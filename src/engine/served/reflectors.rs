//! The threads of a Server that reflect, and the ports that its sessions have.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Token, Waker};

use super::granted::{NotServed, Served, ServedEvent, ServedId};
use super::serving::{Session, source};
use super::thread::{Command, NewPort};
use super::worker::{THREAD, Worker};
use crate::config::{IoKind, ServedConfig, SocketOptions};
use crate::engine::run::{Failure, Stop, failed, join};
use crate::engine::sockets::socket_plan;
#[cfg(target_os = "linux")]
use crate::io::linux;
use crate::io::{Port, SocketPlan, portable};
use crate::report::FailedCall;
use crate::report::ignored::Ignored;
use crate::report::note::System;
use crate::report::unsent::Unsent;

/// Threads that reflect.
#[derive(Debug)]
pub struct Reflectors {
    team: Box<dyn Team>,
    events: Receiver<ServedEvent>,
}

impl Reflectors {
    /// Starts the threads, without any session. `waker` is woken when there are
    /// [`events`](Self::events), and when the threads have been stopped.
    ///
    /// # Errors
    /// [`Failure`] of a thread.
    pub fn start(config: &ServedConfig, stop: &Stop, waker: &Arc<Waker>) -> Result<Self, Failure> {
        let (told, events) = unbounded();
        let team: Box<dyn Team> = match config.socket.io {
            #[cfg(target_os = "linux")]
            IoKind::Batched => Box::new(Threads::<linux::MirrorSocket>::start(
                config, stop, waker, told,
            )?),
            _ => Box::new(Threads::<portable::MirrorSocket>::start(
                config, stop, waker, told,
            )?),
        };
        Ok(Self { team, events })
    }

    /// Adds a session, not started yet, on the first of `ports` that is free (0: any that the system
    /// chooses); returns that port. A port is free if nobody else has it, or sessions here have, but
    /// none from the same address and port. (With the portable make of sockets also none with another
    /// DSCP.)
    ///
    /// # Errors
    /// [`NotServed`].
    pub fn add(
        &mut self,
        session: Served,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<(ServedId, u16), NotServed> {
        let (from, to) = (session.sender, session.receiver);
        let added = self.team.add(session, &mut ports.into_iter())?;
        let (ServedId(id), port) = added;
        log::debug!("reflector: session {id} from {from} to {to} port {port}");
        Ok(added)
    }

    /// Starts a session: no packet that is sent after this returned is dropped.
    pub fn run(&mut self, id: ServedId) {
        self.team.run(id);
    }

    /// Has a session that runs end after `after_ns` more, and one that does not at once.
    pub fn end(&mut self, id: ServedId, after_ns: i64) {
        self.team.end(id, after_ns);
        log::debug!("reflector: session {} ends in {after_ns} ns", id.0);
    }

    /// What happened to sessions.
    #[must_use]
    pub fn events(&self) -> &Receiver<ServedEvent> {
        &self.events
    }

    /// Datagrams that were not answered so far, those of no session among them, and datagrams that the
    /// system dropped for want of room, as far as the threads have seen (`None`: the system does not
    /// tell).
    #[must_use]
    pub fn ignored_and_drops(&self) -> (Ignored, Option<u64>) {
        self.team.ignored_and_drops()
    }

    /// Replies that could not be sent so far, by the error.
    #[must_use]
    pub fn unsent(&self) -> Unsent {
        self.team.unsent()
    }

    /// Waits until the threads have been stopped; sessions that are left end.
    ///
    /// # Errors
    /// [`Failure`] of a thread.
    pub fn wait(self) -> Result<Calls, Failure> {
        self.team.wait()
    }
}

/// System calls of the threads that did not do what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls for many packets that this system refuses, so that each took one of its own.
    pub refused: Vec<FailedCall>,
    /// The call that failed for good, which ended all before its time.
    pub failure: Option<FailedCall>,
    /// Replies that could not be sent, by the error.
    pub unsent: Unsent,
}

/// The threads, whatever make of sockets they have.
trait Team: fmt::Debug + Send {
    fn add(
        &mut self,
        session: Served,
        ports: &mut dyn Iterator<Item = u16>,
    ) -> Result<(ServedId, u16), NotServed>;

    fn run(&self, id: ServedId);

    fn end(&self, id: ServedId, after_ns: i64);

    fn ignored_and_drops(&self) -> (Ignored, Option<u64>);

    fn unsent(&self) -> Unsent;

    fn wait(self: Box<Self>) -> Result<Calls, Failure>;
}

#[derive(Debug)]
struct Threads<P> {
    threads: Vec<Worker<P>>,
    options: SocketOptions,
    /// Ports that sessions have, or had until lately.
    ports: HashMap<SocketAddr, KnownPort>,
    /// With so many of them it is time to look which ones are closed.
    prune_at: usize,
    /// Sessions that were added.
    sessions: u64,
    /// Sockets that were opened.
    sockets: usize,
    /// What was said of them.
    remarks: HashSet<System>,
    told: Sender<ServedEvent>,
}

/// An open port, or one that was.
#[derive(Debug)]
struct KnownPort {
    thread: usize,
    number: usize,
    /// Sessions on it. With none any more the thread closes it.
    users: Arc<AtomicUsize>,
    tos: u8,
    /// From where sessions come, which one, and whether it is over.
    sources: HashMap<SocketAddr, (ServedId, Arc<AtomicBool>)>,
}

impl KnownPort {
    fn is_closed(&self) -> bool {
        self.users.load(Ordering::Acquire) == 0
    }

    /// The session from there, if it is not over.
    fn session_from(&self, source: SocketAddr) -> Option<ServedId> {
        let (id, over) = self.sources.get(&source)?;
        (!over.load(Ordering::Acquire)).then_some(*id)
    }

    /// Keeps the port open for one more session, if it is not closed.
    fn join(&self) -> bool {
        let more = |users: usize| (users > 0).then_some(users + 1);
        let joined = self
            .users
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        joined.is_ok()
    }

    fn note(&mut self, source: SocketAddr, id: ServedId, over: Arc<AtomicBool>) {
        if self.sources.len() > 2 * self.users.load(Ordering::Relaxed) + SLACK {
            self.sources
                .retain(|_, (_, over)| !over.load(Ordering::Acquire));
        }
        self.sources.insert(source, (id, over));
    }
}

impl<P: Port> Threads<P> {
    fn start(
        config: &ServedConfig,
        stop: &Stop,
        waker: &Arc<Waker>,
        told: Sender<ServedEvent>,
    ) -> Result<Self, Failure> {
        let mut threads = Vec::new();
        for index in 0..config.threads.max(1) {
            threads.push(Worker::start(config, index, stop, waker)?);
        }
        Ok(Self {
            threads,
            options: config.socket.clone(),
            ports: HashMap::new(),
            prune_at: SLACK,
            sessions: 0,
            sockets: 0,
            remarks: HashSet::new(),
            told,
        })
    }

    /// A port that is open already: `Some(false)` where it has no room for this session.
    fn join(&mut self, at: SocketAddr, session: &Served, tos: u8) -> Option<bool> {
        let known = self.ports.get(&at)?;
        if known.is_closed() {
            self.ports.remove(&at);
            return None;
        }
        let taken = known.session_from(source(session.sender));
        if taken.is_some() && taken != session.replaces {
            return Some(false);
        }
        if !P::CONTROL_MESSAGES && known.tos != tos {
            return Some(false);
        }
        known.join().then_some(true)
    }

    /// Opens a port on the thread with the fewest sessions; returns its socket and where it is bound.
    fn open(&mut self, at: SocketAddr, tos: u8) -> io::Result<(P, SocketAddr)> {
        let plan = SocketPlan {
            buffer: SOCKET_BUFFER,
            ..socket_plan(at, &self.options, tos, true)
        };
        let (mut socket, granted) = P::open(&plan)?;
        let local = granted.local;
        for remark in granted.remarks {
            // Each port would say the same.
            if self.remarks.insert(remark.clone()) {
                log::warn!("{remark}");
            }
        }
        let load = |worker: &Worker<P>| worker.shared.sessions.load(Ordering::Relaxed);
        let threads = self.threads.iter().enumerate();
        let (thread, worker) = threads
            .min_by_key(|(_, worker)| load(worker))
            .ok_or(io::ErrorKind::NotFound)?;
        self.sockets += 1;
        socket.register(&worker.registry, Token(self.sockets))?;
        let known = KnownPort {
            thread,
            number: self.sockets,
            users: Arc::new(AtomicUsize::new(1)),
            tos,
            sources: HashMap::new(),
        };
        self.ports.insert(local, known);
        Ok((socket, local))
    }

    /// Forgets ports that are closed, from time to time.
    fn prune(&mut self) {
        if self.ports.len() >= self.prune_at {
            self.ports.retain(|_, known| !known.is_closed());
            self.prune_at = 2 * self.ports.len() + SLACK;
        }
    }

    /// Gives a session to the thread of its port.
    fn hand_over(
        &mut self,
        session: Served,
        socket: Option<P>,
        local: SocketAddr,
    ) -> Result<(ServedId, u16), NotServed> {
        let stopped = || NotServed::Open {
            at: local,
            source: io::Error::other("the reflector has been stopped"),
        };
        let known = self.ports.get_mut(&local).ok_or_else(stopped)?;
        let worker = self.threads.get(known.thread).ok_or_else(stopped)?;
        let threads = self.threads.len() as u64;
        let id = ServedId(self.sessions * threads + known.thread as u64);
        self.sessions += 1;
        let over = Arc::new(AtomicBool::new(false));
        let from = source(session.sender);
        let replaced = known.session_from(from);
        known.note(from, id, Arc::clone(&over));
        let socket = socket.map(|socket| NewPort {
            socket,
            users: Arc::clone(&known.users),
        });
        let session = Session::new(id, known.number, session, over, self.told.clone());
        worker.shared.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Box::new(session);
        if let Err(command) = worker.order(Command::Add { socket, session }) {
            if let Command::Add { mut session, .. } = command {
                session.forget();
            }
            return Err(stopped());
        }
        if let Some(id) = replaced {
            // Only now: while it was there its port could not be closed.
            self.order(id, Command::End { id, after_ns: 0 });
        }
        Ok((id, local.port()))
    }

    fn order(&self, id: ServedId, command: Command<P>) {
        let thread = usize::try_from(id.0 % self.threads.len() as u64).unwrap_or(0);
        if let Some(worker) = self.threads.get(thread) {
            // With a thread that was stopped the session has ended.
            let _ = worker.order(command);
        }
    }
}

impl<P: Port> Team for Threads<P> {
    fn add(
        &mut self,
        session: Served,
        ports: &mut dyn Iterator<Item = u16>,
    ) -> Result<(ServedId, u16), NotServed> {
        self.prune();
        if session.format.protection().is_some() && session.keys.is_none() {
            return Err(NotServed::Open {
                at: local(&session, 0),
                source: io::Error::new(io::ErrorKind::InvalidInput, "there are no keys"),
            });
        }
        let tos = session.dscp.tos();
        let (mut in_use, mut forbidden) = (false, None);
        for port in ports {
            let at = local(&session, port);
            match self.join(at, &session, tos) {
                Some(true) => return self.hand_over(session, None, at),
                Some(false) => {
                    in_use = true;
                    continue;
                }
                None => {}
            }
            match self.open(at, tos) {
                Ok((socket, local)) => return self.hand_over(session, Some(socket), local),
                Err(source) => match source.kind() {
                    // Another port may be free, and one that no right is needed for.
                    io::ErrorKind::AddrInUse => in_use = true,
                    io::ErrorKind::PermissionDenied => {
                        forbidden = Some(NotServed::Open { at, source });
                    }
                    _ => return Err(NotServed::Open { at, source }),
                },
            }
        }
        Err(forbidden.filter(|_| !in_use).unwrap_or(NotServed::NoPort))
    }

    fn run(&self, id: ServedId) {
        self.order(id, Command::Run(id));
    }

    fn end(&self, id: ServedId, after_ns: i64) {
        self.order(id, Command::End { id, after_ns });
    }

    fn ignored_and_drops(&self) -> (Ignored, Option<u64>) {
        let (mut ignored, mut drops) = (Ignored::default(), 0);
        for Worker { shared, .. } in &self.threads {
            ignored.add(&shared.ignored.read());
            drops += shared.drops.load(Ordering::Relaxed);
        }
        (ignored, P::CONTROL_MESSAGES.then_some(drops))
    }

    fn unsent(&self) -> Unsent {
        let mut unsent = Unsent::default();
        for Worker { shared, .. } in &self.threads {
            unsent.add(&shared.unsent.read());
        }
        unsent
    }

    fn wait(self: Box<Self>) -> Result<Calls, Failure> {
        let mut calls = Calls::default();
        for worker in self.threads {
            let ended = join(THREAD, worker.handle)?;
            for call in ended.refused_calls.into_iter().map(failed) {
                if !calls.refused.contains(&call) {
                    calls.refused.push(call);
                }
            }
            calls.unsent.add(&ended.unsent);
            calls.failure = calls.failure.or(ended.failure.map(failed));
        }
        Ok(calls)
    }
}

/// Where a session's packets arrive.
pub(super) fn local(session: &Served, port: u16) -> SocketAddr {
    match (session.receiver, session.sender) {
        (IpAddr::V6(ip), SocketAddr::V6(sender)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, port, 0, sender.scope_id()).into()
        }
        (ip, _) => SocketAddr::new(ip, port),
    }
}

/// Each port has a socket buffer; hundreds of them together must not take the host's memory.
const SOCKET_BUFFER: usize = 16 << 20;
/// So many that are over may be remembered beside those that are not.
const SLACK: usize = 64;
