//! A run is one call: [`measure`] for a session, [`Reflecting`] for a reflector.
//!
//! Threads of a session: the sender and the receiver, each pinned and with sockets, batches and an
//! event loop of its own, and the stats thread, which gets the samples. Packet counts come back when
//! a thread ends; no channel that is full can lose them.

mod account;
pub mod admission;
mod assemble;
mod flight;
mod impair;
mod impaired;
mod live;
mod receiver;
mod reflector;
pub mod schedule;
mod sender;
mod wheel;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, tick};
use mio::Waker;

use self::admission::SessionEvent;
pub use self::impair::Flow;
pub use self::live::{PacketCopy, Progress, Update};
pub use self::reflector::{Reflected, Refusal};
use crate::config::{Burst, CpuList, IoKind, ReflectorConfig, SessionConfig};
#[cfg(target_os = "linux")]
use crate::io::linux;
use crate::io::{Granted, ReceiveHalf, SendHalf, SocketPlan, StampKind, is_local, portable};
use crate::report::Report;
use crate::sample::pipe;
use crate::stats::delay::Delays;
use crate::wire::{MAX_UDP_PAYLOAD, fill_padding};
use crate::{io as packets, os};

use flight::Flight;

/// Socket buffers are raised as far as the system allows, up to this.
const SOCKET_BUFFER: usize = 64 << 20;
/// A socket buffer should hold what arrives in this time.
const BUFFER_NS: u64 = 50_000_000;
/// What the kernel takes for a datagram beside its octets.
const BUFFER_OVERHEAD: u64 = 768;
/// Most packets under way that are told apart; more leave the window before their timeout.
const MAX_WINDOW: u64 = 1 << 24;
/// Of those, where each packet is kept on its own.
const MAX_SINGLES: u64 = 1 << 22;
/// The rate above which not even a fast host sends each packet by itself.
const SINGLES_RATE: f64 = 400_000.0;
/// Above that, trains are as long as it takes to have at most so many a second.
const TRAINS_RATE: f64 = 62_500.0;
/// Trains of a batch: they are long, and few are due together.
const TRAINS: usize = 8;
/// From this rate on, replies are let gather before they are taken: they carry kernel timestamps.
const GATHER_RATE: f64 = 20_000.0;
const GATHER_NS: i64 = 100_000;
/// Octets of socket buffer that one waiting transmit stamp may take.
const STAMP_OCTETS: usize = 1024;
/// Sessions that came or went and of which nobody has been told yet.
const SESSION_EVENTS: usize = 1024;
/// Progress is shown this often.
const PROGRESS: Duration = Duration::from_millis(200);

/// Why a run did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A socket could not be opened.
    #[error("cannot open {what}: {}{}", plain(source), hint(what, source))]
    Open {
        /// Which address, and towards which.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A thread could not be set up.
    #[error("cannot start the {thread} thread: {}", plain(source))]
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
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

fn hint(what: &str, error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) {
        return "; there is no interface of that name: see `ip link`";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port: use another one, or end it",
        io::ErrorKind::PermissionDenied if what.contains("towards") => {
            "; is this a broadcast address, or does a firewall of this host forbid it?"
        }
        io::ErrorKind::PermissionDenied => {
            "; use a port above 1023, or grant CAP_NET_BIND_SERVICE (CAP_NET_RAW for an interface)"
        }
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "; there is no route: check the address and `ip route get`"
        }
        io::ErrorKind::AddrNotAvailable => "; this host has no such address: see `ip address`",
        _ => "",
    }
}

/// Ends runs early. Clones end the same runs.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug, Default)]
struct StopInner {
    requested: AtomicBool,
    /// Threads to be woken, as long as they are there; never touched on a packet path.
    wakers: Mutex<Vec<Weak<Waker>>>,
}

impl Stop {
    /// Asks every run to end: a session stops sending and waits for the replies under way.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::Relaxed);
        if let Ok(wakers) = self.0.wakers.lock() {
            for waker in wakers.iter().filter_map(Weak::upgrade) {
                // A thread that has gone needs no waking.
                let _ = waker.wake();
            }
        }
    }

    /// Whether [`request`](Self::request) was called.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Relaxed)
    }

    fn flag(&self) -> &AtomicBool {
        &self.0.requested
    }

    /// Has a thread woken by [`request`](Self::request) for as long as the result is kept.
    #[must_use]
    fn wakes(&self, waker: Waker) -> Arc<Waker> {
        let waker = Arc::new(waker);
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

/// Runs a session to its end and reports.
///
/// `reflector`, where given, runs in this process: it is stopped when the session is over, and its
/// socket's drops are this host's. `watch` is called a few times a second with the progress, and with
/// what [`SessionConfig::watch`] asks for; however slow it is, the measurement does not wait for it.
///
/// # Errors
/// [`Failure`] where the session did not come about. What goes wrong later is in the report.
pub fn measure(
    config: &SessionConfig,
    reflector: Option<Reflecting>,
    stop: &Stop,
    watch: impl FnMut(Update),
) -> Result<Report, Failure> {
    let rate = config.departures.rate();
    let per_second = rate.map_or(f64::MAX, crate::config::Rate::per_second);
    let trains = Trains::choose(config, per_second);
    let plan = socket_plan(
        config.local,
        &config.socket,
        config.socket.tos,
        trains.burst > 1,
    );
    let open = |source| Failure::Open {
        what: format!("{} towards {}", config.local, config.remote),
        source,
    };
    let padding = padding(config, trains.most);
    let pristine = padding.clone();
    match config.socket.io {
        #[cfg(target_os = "linux")]
        IoKind::Batched => {
            let (tx, rx, granted) = linux::open_session(&plan, config.remote).map_err(open)?;
            let places = if trains.burst > 1 {
                TRAINS
            } else {
                packets::BATCH
            };
            let halves = (move || tx.start(&padding, places), move || rx.start());
            run_session(config, reflector, stop, watch, (&granted, pristine), halves)
        }
        _ => {
            let (tx, rx, granted) = portable::open_session(&plan, config.remote).map_err(open)?;
            let halves = (move || tx.start(&padding), move || rx.start());
            run_session(config, reflector, stop, watch, (&granted, pristine), halves)
        }
    }
}

/// Octets of a packet, or of the longest train.
fn padding(config: &SessionConfig, most_burst: u32) -> Vec<u8> {
    let longest = config.sizes.classes.iter().map(|c| c.payload).max();
    let packets = usize::try_from(most_burst).unwrap_or(1);
    let mut padding = vec![0; (longest.unwrap_or(0) * packets).min(MAX_UDP_PAYLOAD)];
    fill_padding(&mut padding, config.seed);
    padding
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

/// Starts the threads of a session, waits for them, and puts the report together.
fn run_session<S: SendHalf, R: ReceiveHalf>(
    config: &SessionConfig,
    reflector: Option<Reflecting>,
    stop: &Stop,
    mut watch: impl FnMut(Update),
    (granted, padding): (&Granted, Vec<u8>),
    (start_sending, start_receiving): (
        impl FnOnce() -> S + Send + 'static,
        impl FnOnce() -> R + Send + 'static,
    ),
) -> Result<Report, Failure> {
    let rate = config.departures.rate();
    let per_second = rate.map_or(f64::MAX, crate::config::Rate::per_second);
    let trains = Trains::choose(config, per_second);
    let flight = Arc::new(Flight::new(window(config, trains), trains.shift));
    flight.set_burst(trains.burst);
    let live = Arc::new(receiver::Live::default());
    let cpus = Cpus::choose(config.cpus.as_ref());
    let classes = config.sizes.classes.len();
    let timeout_ns = i64::try_from(config.timeout_ns).unwrap_or(i64::MAX);
    log::info!("measuring from {} to {}", granted.local, config.remote);
    log::info!(
        "receive buffer {}, T4 by {}, T1 by {}, sender on {}, receiver on {}",
        known(granted.receive_buffer, "bytes"),
        granted.receive,
        granted.transmit.unwrap_or(StampKind::Userspace),
        on_cpu(cpus.sender),
        on_cpu(cpus.receiver),
    );
    log::debug!("{}", config.command().join(" "));
    let (samples, blocks) = pipe();
    let (probe_in, probe_out) = bounded(packets::BATCH);

    // The interface's clock and this system's are no one clock.
    let stamps_only = granted.receive == StampKind::Hardware;
    let delays = spawn("stats", move || {
        let mut delays = Delays::new(classes, stamps_only);
        while blocks.next(|block| delays.record(block)) {}
        delays
    })?;

    let (updates_in, updates) = live::updates();
    let copier = |came| {
        let watched = config.watch.packets;
        watched.then(|| live::Copier::new(updates_in.clone(), came))
    };
    let (left, came) = (copier(false), copier(true));
    let tap = if config.watch.any() {
        let prompt = per_second < GATHER_RATE;
        let (tap, watched) = live::tap(config.watch, timeout_ns, config.format, prompt);
        let (watch, first_seq) = (config.watch, config.first_seq);
        let live = move || live::run(&watched, watch, first_seq, stamps_only, updates_in);
        Some((tap, spawn("live", live)?))
    } else {
        drop(updates_in);
        None
    };
    let (tap, live_thread) = tap.unzip();

    let plan = receiver::Plan {
        timeout_ns,
        first_seq: config.first_seq,
        format: config.format,
        classes,
        stamps: granted.transmit.is_some(),
        hardware: granted.receive == StampKind::Hardware,
        errors_queued: config.socket.io == IoKind::Batched && cfg!(target_os = "linux"),
        gather_ns: if granted.receive != StampKind::Userspace && per_second >= GATHER_RATE {
            GATHER_NS
        } else {
            0
        },
        cpu: cpus.receiver,
        realtime: config.realtime,
    };
    let (waker_in, waker_out) = bounded(1);
    let (done_in, done_out) = bounded::<()>(1);
    let receiver = {
        let (flight, live) = (Arc::clone(&flight), Arc::clone(&live));
        spawn("receiver", move || {
            let mut half = start_receiving();
            // There is room for the one waker, and whoever waits for it is still there.
            let ready = |waker| drop(waker_in.send(waker));
            let pipes = (samples, tap, came);
            let result = receiver::run(&mut half, &plan, &flight, &live, pipes, ready, probe_in);
            drop(done_in);
            result
        })?
    };
    let Ok(receiver_waker) = waker_out.recv() else {
        let result = join("receiver", receiver)?;
        return Err(result.map_or_else(
            |source| start("receiver", source),
            |_| Failure::Bug { thread: "receiver" },
        ));
    };

    let plan = sender::Plan {
        schedule: schedule::Schedule::new(
            config.departures,
            config.end,
            &config.sizes.classes,
            config.seed,
            trains.burst,
        ),
        payloads: config.sizes.classes.iter().map(|c| c.payload).collect(),
        padding,
        timeout_ns,
        most_burst: trains.most,
        first_seq: config.first_seq,
        count: config.end.count,
        mean_gap_ns: rate.map_or(0, |rate| i64::try_from(rate.due_ns(1)).unwrap_or(i64::MAX)),
        format: config.format,
        pacing: config.pacing,
        may_spin: cpus.apart,
        stamps_under_way: match (granted.transmit, granted.receive_buffer) {
            (Some(_), Some(octets)) => u64::try_from(octets / STAMP_OCTETS).unwrap_or(u64::MAX),
            _ => 0,
        },
        cpu: cpus.sender,
        realtime: config.realtime,
    };
    let sender = {
        let (flight, stop) = (Arc::clone(&flight), stop.clone());
        spawn("sender", move || {
            let mut half = start_sending();
            let mut woken = None;
            let ready = |waker| woken = Some(stop.wakes(waker));
            let flag = stop.flag();
            sender::run(
                &mut half,
                plan,
                &flight,
                flag,
                ready,
                &receiver_waker,
                (&probe_out, left),
            )
        })?
    };

    let progress = || {
        Update::Progress(Progress {
            sent: flight.departed(),
            received: live.received.load(Ordering::Relaxed),
        })
    };
    let again = tick(PROGRESS);
    loop {
        select! {
            recv(updates) -> update => match update {
                Ok(update) => watch(update),
                // Nothing more to tell, or nothing was to be told at all.
                Err(_) => match done_out.recv_timeout(PROGRESS) {
                    Err(RecvTimeoutError::Timeout) => watch(progress()),
                    _ => break,
                }
            },
            recv(again) -> _ => watch(progress()),
        }
    }
    if let Some(thread) = live_thread {
        join("live", thread)?;
    }
    let received = join("receiver", receiver)?;
    let sent = join("sender", sender)?.map_err(|source| start("sender", source))?;
    let received = received.map_err(|source| start("receiver", source))?;
    let delays = join("stats", delays)?;
    let reflected = reflector.map(Reflecting::finish).transpose()?;
    Ok(assemble::report(&assemble::Parts {
        config,
        granted,
        window: flight.window(),
        sent: &sent,
        received: &received,
        delays: &delays,
        reflected: reflected.as_ref(),
        same_clock: is_local(config.remote.ip()) && granted.receive != StampKind::Hardware,
    }))
}

/// Packets that may be under way within the timeout, with some room to spare.
fn window(config: &SessionConfig, trains: Trains) -> u64 {
    let most = (MAX_SINGLES << trains.shift).min(MAX_WINDOW);
    let Some(rate) = config.departures.rate() else {
        return most;
    };
    let within = rate.count_in(config.timeout_ns.saturating_add(500_000_000));
    let all = config.end.count.unwrap_or(u64::MAX);
    within.min(all).saturating_add(1024).min(most)
}

/// How packets are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trains {
    /// Packets of a train to begin with, and at most.
    burst: u32,
    most: u32,
    /// All trains have a multiple of `1 << shift` packets.
    shift: u32,
}

impl Trains {
    const NONE: Self = Self {
        burst: 1,
        most: 1,
        shift: 0,
    };

    fn choose(config: &SessionConfig, per_second: f64) -> Self {
        if config.socket.io == IoKind::Portable || !cfg!(target_os = "linux") {
            return Self::NONE;
        }
        let largest = config.sizes.classes.iter().map(|c| c.payload).max();
        let fitting = MAX_UDP_PAYLOAD / largest.unwrap_or(MAX_UDP_PAYLOAD).max(1);
        let most = u32::try_from(fitting)
            .unwrap_or(1)
            .clamp(1, sender::MOST_BURST);
        match config.burst {
            Burst::Fixed(burst) => {
                let burst = burst.clamp(1, most);
                Self {
                    burst,
                    most: burst,
                    shift: burst.trailing_zeros(),
                }
            }
            Burst::Auto if config.departures.rate().is_none() => Self::NONE,
            Burst::Auto => {
                let most = 1 << most.ilog2();
                let mut burst = 1;
                if per_second > SINGLES_RATE {
                    while burst < most && f64::from(burst) * TRAINS_RATE < per_second {
                        burst *= 2;
                    }
                }
                Self {
                    burst,
                    most,
                    shift: burst.trailing_zeros(),
                }
            }
        }
    }
}

fn known(value: Option<usize>, unit: &str) -> String {
    value.map_or("not known".to_owned(), |value| format!("{value} {unit}"))
}

fn on_cpu(cpu: Option<usize>) -> String {
    cpu.map_or("any CPU".to_owned(), |cpu| format!("CPU {cpu}"))
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

/// Which thread runs where; `None`: anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cpus {
    sender: Option<usize>,
    receiver: Option<usize>,
    /// Sender and receiver have a CPU each.
    apart: bool,
}

impl Cpus {
    fn choose(wish: Option<&CpuList>) -> Self {
        let allowed = os::allowed_cpus();
        let (sender, receiver) = match (wish.map(CpuList::cpus), allowed.as_slice()) {
            (Some([one]), _) => (Some(*one), Some(*one)),
            (Some([first, second, ..]), _) => (Some(*first), Some(*second)),
            // Interrupts, statistics and everything else keep the first one.
            (_, [_, second, third, _, ..]) => (Some(*second), Some(*third)),
            (_, [first, second, ..]) => (Some(*first), Some(*second)),
            _ => (None, None),
        };
        Self {
            sender,
            receiver,
            apart: sender != receiver,
        }
    }

    /// The CPU of reflector thread `index`: the last ones, since sessions take the first.
    fn reflector(wish: Option<&CpuList>, index: usize) -> Option<usize> {
        if let Some(list) = wish {
            return list.cpus().get(index % list.cpus().len()).copied();
        }
        let allowed = os::allowed_cpus();
        if allowed.len() < 2 {
            return None;
        }
        allowed.iter().rev().cycle().nth(index).copied()
    }
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
                    let (socket, granted) = portable::open_mirror(&plan)
                        .map_err(|source| cannot_listen(*listen, source))?;
                    sockets.push(socket);
                    reflecting.note(granted);
                }
                let start = move || sockets.into_iter().map(|s| s.start()).collect();
                reflecting.spawn(config, 0, start)?;
            }
        }
        reflecting.events_in = None;
        Ok(reflecting)
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
                    show(ReflectorUpdate::Counts {
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
        let cpu = Cpus::reflector(config.cpus.as_ref(), index);
        let stop = self.stop.clone();
        self.threads.push(spawn("reflector", move || {
            let mut woken = None;
            let ready = |waker| woken = Some(stop.wakes(waker));
            let sockets = sockets();
            let result = reflector::run(sockets, reflector, stage, cpu, stop.flag(), &live, ready);
            drop(running);
            result
        })?);
        Ok(())
    }
}

fn cannot_listen(listen: SocketAddr, source: io::Error) -> Failure {
    Failure::Open {
        what: listen.to_string(),
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
        source,
    })
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
