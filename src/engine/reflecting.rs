//! A reflector on threads of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::admission::SessionEvent;
use super::hint::End;
use super::reflector::{self, Reflected};
use super::run::{Failure, PROGRESS, Stop, join, spawn, start};
use super::sockets::socket_plan;
use super::{cores, impair};
use crate::config::{Dscp, IoKind, ReflectorConfig};
#[cfg(target_os = "linux")]
use crate::io::linux;
use crate::io::{Granted, Port, StampKind, portable};
use crate::os;
use crate::report::Ignored;
use crate::report::note::System;
use crate::report::unsent::Unsent;

/// Sessions that came or went and of which nobody has been told yet.
const SESSION_EVENTS: usize = 1024;

/// What a running reflector has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReflectorUpdate {
    /// A session came or went: told where [`ReflectorConfig::watch`] is set.
    Session(SessionEvent),
    /// Counts so far, a few times a second.
    Counts {
        /// Datagrams that arrived.
        received: u64,
        /// Replies that were sent.
        reflected: u64,
        /// Sessions that were begun.
        sessions: u64,
        /// Datagrams that were not answered.
        ignored: Ignored,
        /// Replies that could not be sent, by the error.
        unsent: Unsent,
    },
}

/// A reflector that runs on threads of its own until it is stopped.
#[derive(Debug)]
pub struct Reflecting {
    threads: Vec<JoinHandle<io::Result<Reflected>>>,
    live: Vec<Arc<reflector::Live>>,
    /// Every thread has one end: when all have ended, this one knows. `None` here once all started.
    events_in: Option<Sender<SessionEvent>>,
    events: Receiver<SessionEvent>,
    stop: Stop,
    local: Vec<SocketAddr>,
    receive: Option<StampKind>,
    remarks: Vec<System>,
    receive_buffer: Option<usize>,
    cpus: Vec<usize>,
}

impl Reflecting {
    /// Opens the sockets and starts the threads.
    ///
    /// # Errors
    /// [`Failure::Open`], such as a port in use.
    pub fn start(config: &ReflectorConfig, stop: &Stop) -> Result<Self, Failure> {
        let (events_in, events) = bounded(SESSION_EVENTS);
        let mut reflecting = Self {
            threads: Vec::new(),
            live: Vec::new(),
            events_in: Some(events_in),
            events,
            stop: stop.clone(),
            local: Vec::new(),
            receive: None,
            remarks: Vec::new(),
            receive_buffer: None,
            cpus: Vec::new(),
        };
        match config.socket.io {
            #[cfg(target_os = "linux")]
            IoKind::Batched => reflecting.open::<linux::MirrorSocket>(config)?,
            _ => reflecting.open::<portable::MirrorSocket>(config)?,
        }
        reflecting.events_in = None;
        Ok(reflecting)
    }

    /// CPUs that its threads are confined to.
    pub(super) fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Addresses and ports that are listened on.
    #[must_use]
    pub fn local(&self) -> &[SocketAddr] {
        &self.local
    }

    /// What was asked for and refused.
    #[must_use]
    pub fn remarks(&self) -> &[System] {
        &self.remarks
    }

    /// Receive buffer that was granted, in octets as the kernel counts them.
    #[must_use]
    pub fn receive_buffer(&self) -> Option<usize> {
        self.receive_buffer
    }

    /// Waits until the reflector has been stopped and shows what it has to tell until then; returns
    /// the totals.
    ///
    /// # Errors
    /// [`Failure`] of a thread.
    pub fn watch(self, mut show: impl FnMut(ReflectorUpdate)) -> Result<Reflected, Failure> {
        let mut next = os::now() + PROGRESS;
        loop {
            match self.events.recv_deadline(next) {
                Ok(event) => show(ReflectorUpdate::Session(event)),
                Err(RecvTimeoutError::Timeout) => {
                    let sum = |of: fn(&reflector::Live) -> &AtomicU64| {
                        let values = self
                            .live
                            .iter()
                            .map(|live| of(live).load(Ordering::Relaxed));
                        values.sum()
                    };
                    let (mut ignored, mut unsent) = (Ignored::default(), Unsent::default());
                    for live in &self.live {
                        ignored.add(&live.ignored.read());
                        unsent.add(&live.unsent.read());
                    }
                    show(ReflectorUpdate::Counts {
                        ignored,
                        unsent,
                        received: sum(|live| &live.received),
                        reflected: sum(|live| &live.reflected),
                        sessions: sum(|live| &live.sessions),
                    });
                    next = os::now() + PROGRESS;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.wait()
    }

    /// Waits until the reflector has been stopped; returns the totals.
    ///
    /// # Errors
    /// [`Failure`] of a thread.
    pub fn wait(self) -> Result<Reflected, Failure> {
        let mut totals = Reflected::default();
        for thread in self.threads {
            let result = join("reflector", thread)?;
            totals.add(&result.map_err(|source| start("reflector", source))?);
        }
        Ok(totals)
    }

    /// Stops the reflector and returns its totals and who stamped T2.
    pub(super) fn finish(self) -> Result<(Reflected, Option<StampKind>), Failure> {
        self.stop.request();
        let receive = self.receive;
        Ok((self.wait()?, receive))
    }

    /// Port 0 means any port, and the same one for every address.
    fn with_port(&self, mut listen: SocketAddr) -> SocketAddr {
        if let (0, Some(first)) = (listen.port(), self.local.first()) {
            listen.set_port(first.port());
        }
        listen
    }

    fn note(&mut self, granted: Granted) {
        self.local.push(granted.local);
        self.receive = Some(granted.receive);
        self.receive_buffer = granted.receive_buffer;
        self.remarks.extend(granted.remarks);
    }

    fn open<P: Port>(&mut self, config: &ReflectorConfig) -> Result<(), Failure> {
        let (threads, tos) = if P::CONTROL_MESSAGES {
            (config.threads.max(1), 0)
        } else {
            // A socket that cannot give each reply its TOS.
            (1, config.dscp.map_or(0, Dscp::tos))
        };
        let bundles = P::CONTROL_MESSAGES && config.impairment.is_none();
        let mut by_thread: Vec<Vec<P>> = Vec::new();
        by_thread.resize_with(threads, Vec::new);
        for listen in &config.listen {
            let listen = self.with_port(*listen);
            let plan = socket_plan(listen, &config.socket, tos, bundles);
            let opened = P::open_each(&plan, threads);
            let (sockets, granted) = opened.map_err(|source| Failure::Open {
                what: listen.to_string(),
                end: End::Here(listen.ip()),
                source,
            })?;
            for (thread, sockets) in by_thread.iter_mut().zip(sockets) {
                thread.extend(sockets);
            }
            self.note(granted);
        }
        let mut by_thread = by_thread.into_iter().enumerate();
        by_thread.try_for_each(|(index, sockets)| self.spawn(config, index, sockets))
    }

    fn spawn<P: Port>(
        &mut self,
        config: &ReflectorConfig,
        index: usize,
        sockets: Vec<P>,
    ) -> Result<(), Failure> {
        let mut reflector = reflector::Reflector::new(config);
        if let (Some(sessions), Some(events), true) =
            (&mut reflector.book.sessions, &self.events_in, config.watch)
        {
            sessions.tell(events.clone());
        }
        let stage = config.impairment.as_ref();
        let stage = stage.map(|plan| impair::Stage::new(plan, index));
        let live = Arc::new(reflector::Live::default());
        self.live.push(Arc::clone(&live));
        // Held by the thread for as long as it runs, also where there is nothing to tell.
        let running = self.events_in.clone();
        let cpu = cores::reflector(config.cpus.as_ref(), index);
        self.cpus.extend(cpu);
        let stop = self.stop.clone();
        self.threads.push(spawn("reflector", move || {
            let mut woken = None;
            let ready = |waker| woken = Some(stop.wakes(waker));
            let result = reflector::run(sockets, reflector, stage, cpu, stop.flag(), &live, ready);
            if result.as_ref().is_ok_and(|did| did.failure.is_some()) {
                // The others would get the requests that came to this one, and fail as it did.
                stop.request();
            }
            drop(running);
            result
        })?);
        Ok(())
    }
}
