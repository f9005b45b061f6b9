//! A run is one call: [`measure`] for a session, [`Reflecting`] for a reflector,
//! [`Reflectors`](served::Reflectors) for the sessions that a Server grants.
//!
//! Threads of a session: sender and receiver, each pinned and with sockets, batches and an event loop
//! of its own, and the stats thread, which gets the samples; as many of these as the load is shared by.
//! Packet counts come back when a thread ends; no channel that is full can lose them.

mod account;
pub mod admission;
mod assemble;
mod cores;
mod flight;
pub(crate) mod hint;
mod icmp;
mod impair;
mod impaired;
mod intervals;
mod lane;
mod live;
mod pace;
mod receiver;
mod reflector;
pub mod schedule;
mod sender;
pub mod served;
mod session;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod stages;
mod tally;
mod tuning;
mod wheel;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mio::Waker;

use self::admission::SessionEvent;
pub use self::hint::{End, unreachable};
pub use self::impair::Flow;
pub use self::lane::Agreed;
pub use self::live::{PacketCopy, Progress, Update};
pub use self::reflector::Reflected;
pub use self::session::{Measured, Opened, measure, open};
use crate::config::{IoKind, ReflectorConfig};
#[cfg(target_os = "linux")]
pub(crate) use crate::io::bind_device;
#[cfg(target_os = "linux")]
use crate::io::linux;
pub(crate) use crate::io::needed;
use crate::io::{Granted, SocketPlan, StampKind, portable};
use crate::report::Ignored;
use crate::report::unsent::Unsent;
use crate::{io as packets, os};

/// Socket buffers are raised as far as the system allows, up to this.
const SOCKET_BUFFER: usize = 64 << 20;
/// A socket buffer should hold what arrives in this time.
const BUFFER_NS: u64 = 50_000_000;
/// What the kernel takes for a datagram beside its octets.
const BUFFER_OVERHEAD: u64 = 768;
/// Sessions that came or went and of which nobody has been told yet.
const SESSION_EVENTS: usize = 1024;
/// Progress is shown this often.
const PROGRESS: Duration = Duration::from_millis(200);

/// Why a run did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A socket could not be opened.
    #[error("cannot open {what}: {}{}", plain(source), hint::hint(*end, source))]
    Open {
        /// Which address, and towards which.
        what: String,
        /// The one that the error is of.
        end: End,
        /// The system's error.
        source: io::Error,
    },
    /// A thread could not be set up.
    #[error("cannot start the {thread} thread: {}{}", plain(source), limit(source))]
    Start {
        /// Which thread.
        thread: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A thread panicked: a bug of this program.
    #[error("the {thread} thread ended by a bug of this program; please report it")]
    Bug {
        /// Which thread.
        thread: &'static str,
    },
}

/// The system's words for an error, without its number.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// What to do where it is a limit of this process.
fn limit(error: &io::Error) -> &'static str {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => "; raise the limit of open files: ulimit -n",
        Some(Errno::EAGAIN) => "; raise the limit of threads: ulimit -u",
        _ => "",
    }
}

/// Ends runs early. Clones end the same runs.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug, Default)]
struct StopInner {
    requested: AtomicBool,
    /// How often.
    requests: AtomicU32,
    /// Threads to be woken, as long as they are there; never touched on a packet path.
    wakers: Mutex<Vec<Weak<Waker>>>,
    /// What ends with this one.
    parts: Mutex<Vec<Weak<Self>>>,
}

impl StopInner {
    fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.requested.store(true, Ordering::Relaxed);
        if let Ok(wakers) = self.wakers.lock() {
            for waker in wakers.iter().filter_map(Weak::upgrade) {
                // A thread that has gone needs no waking.
                let _ = waker.wake();
            }
        }
        if let Ok(parts) = self.parts.lock() {
            for part in parts.iter().filter_map(Weak::upgrade) {
                part.request();
            }
        }
    }
}

impl Stop {
    /// Asks every run to end: a session stops sending and waits for the replies under way; one that waits
    /// for them already, as after another request, waits no longer.
    pub fn request(&self) {
        self.0.request();
    }

    /// One that ends runs of its own, and them also where this one is [requested](Self::request).
    #[must_use]
    pub fn part(&self) -> Self {
        let part = Self::default();
        if let Ok(mut parts) = self.0.parts.lock() {
            parts.retain(|part| part.strong_count() > 0);
            parts.push(Arc::downgrade(&part.0));
        }
        if self.requested() {
            part.request();
        }
        part
    }

    /// Whether [`request`](Self::request) was called.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// How often [`request`](Self::request) was called.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.0.requests.load(Ordering::Relaxed)
    }

    fn flag(&self) -> &AtomicBool {
        &self.0.requested
    }

    /// Has a thread woken by [`request`](Self::request) for as long as the result is kept.
    #[must_use]
    pub(crate) fn wakes(&self, waker: impl Into<Arc<Waker>>) -> Arc<Waker> {
        let waker = waker.into();
        if let Ok(mut wakers) = self.0.wakers.lock() {
            // Many runs one after the other can have one `Stop`.
            wakers.retain(|waker| waker.strong_count() > 0);
            wakers.push(Arc::downgrade(&waker));
        }
        if self.requested() {
            let _ = waker.wake();
        }
        waker
    }
}

fn socket_plan(
    local: SocketAddr,
    options: &crate::config::SocketOptions,
    tos: u8,
    bundles: bool,
) -> SocketPlan {
    SocketPlan {
        local,
        tos,
        ttl: options.ttl,
        do_not_fragment: options.do_not_fragment,
        interface: options.interface.clone(),
        buffer: SOCKET_BUFFER,
        hardware: options.hardware,
        busy_poll_us: options.busy_poll_us,
        bundles,
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| start(name, source))
}

fn start(thread: &'static str, source: io::Error) -> Failure {
    Failure::Start { thread, source }
}

fn join<T>(thread: &'static str, handle: JoinHandle<T>) -> Result<T, Failure> {
    handle.join().map_err(|_| Failure::Bug { thread })
}

/// CPUs that this process may run on; empty where the system does not tell.
#[must_use]
pub fn cpus() -> Vec<usize> {
    os::allowed_cpus()
}

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
    remarks: Vec<String>,
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
            IoKind::Batched => {
                let mut by_thread: Vec<Vec<linux::MirrorSocket>> = Vec::new();
                by_thread.resize_with(config.threads.max(1), Vec::new);
                for listen in &config.listen {
                    let listen = &reflecting.with_port(*listen);
                    let bundles = config.impairment.is_none();
                    let plan = socket_plan(*listen, &config.socket, 0, bundles);
                    let (sockets, granted) = linux::open_mirrors(&plan, by_thread.len())
                        .map_err(|source| cannot_listen(*listen, source))?;
                    for (thread, socket) in by_thread.iter_mut().zip(sockets) {
                        thread.push(socket);
                    }
                    reflecting.note(granted);
                }
                for (index, sockets) in by_thread.into_iter().enumerate() {
                    let start = move || sockets.into_iter().map(|s| s.start()).collect();
                    reflecting.spawn(config, index, start)?;
                }
            }
            _ => {
                let mut sockets = Vec::new();
                let tos = config.dscp.map_or(0, crate::config::Dscp::tos);
                for listen in &config.listen {
                    let listen = &reflecting.with_port(*listen);
                    let plan = socket_plan(*listen, &config.socket, tos, false);
                    let (opened, granted) = portable::open_mirrors(&plan)
                        .map_err(|source| cannot_listen(*listen, source))?;
                    sockets.extend(opened);
                    reflecting.note(granted);
                }
                let start = move || sockets.into_iter().map(|s| s.start()).collect();
                reflecting.spawn(config, 0, start)?;
            }
        }
        reflecting.events_in = None;
        Ok(reflecting)
    }

    /// CPUs that its threads are confined to.
    fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Addresses and ports that are listened on.
    #[must_use]
    pub fn local(&self) -> &[SocketAddr] {
        &self.local
    }

    /// Remarks for the user, such as a feature that was asked for and refused.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
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
        let mut next = Instant::now() + PROGRESS;
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
                    next = Instant::now() + PROGRESS;
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
    fn finish(self) -> Result<(Reflected, Option<StampKind>), Failure> {
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

    fn spawn<M: packets::Mirror>(
        &mut self,
        config: &ReflectorConfig,
        index: usize,
        sockets: impl FnOnce() -> Vec<M> + Send + 'static,
    ) -> Result<(), Failure> {
        let mut reflector = reflector::Reflector::new(config);
        if let (Some(sessions), Some(events), true) =
            (&mut reflector.sessions, &self.events_in, config.watch)
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
            let sockets = sockets();
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

fn cannot_listen(listen: SocketAddr, source: io::Error) -> Failure {
    Failure::Open {
        what: listen.to_string(),
        end: End::Here(listen.ip()),
        source,
    }
}

/// The address that packets to `remote` leave from.
///
/// # Errors
/// [`Failure::Open`], such as no route.
pub fn source_address(remote: SocketAddr, interface: Option<&str>) -> Result<IpAddr, Failure> {
    packets::source_address(remote, interface).map_err(|source| Failure::Open {
        what: format!("a socket towards {remote}"),
        end: End::There(remote.ip()),
        source,
    })
}

/// The interface that packets from an address leave by, unless one is given, and its bits a second
/// where the system tells them.
#[must_use]
pub fn link_of(local: IpAddr, interface: Option<&str>) -> (Option<String>, Option<u64>) {
    let name = interface.map(str::to_owned);
    let name = name.or_else(|| packets::interface_of(local));
    let speed = name.as_deref().and_then(packets::speed_of);
    (name, speed)
}

/// Octets of the largest IP packet that goes to `remote` unfragmented, as far as this system knows;
/// `None` where it does not.
#[must_use]
pub fn path_mtu(remote: SocketAddr, interface: Option<&str>) -> Option<usize> {
    packets::path_mtu(remote, interface)
}

/// The wildcard address of the family of `addr`.
#[must_use]
pub fn any_address(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod sums;
