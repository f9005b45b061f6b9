//! A Control-Client at work: socket, clock and thread around [`control::client`](crate::control::client).
//!
//! [`Connection`] asks, and waits for the answer; none is waited for longer than
//! [`Wish::answer_ns`], and an interrupt ends every wait. While sessions run, [`Held`] looks after the
//! connection on a thread of its own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use mio::net::TcpStream;
use mio::{Interest, Token, Waker};

use crate::control::client::{Client, Event, Expected, Secrets};
pub use crate::control::client::{End, NotNow, Wish};
pub use crate::control::crypto::Passphrase;
use crate::control::crypto::{KeyDerivation, SessionKeys, SharedKey};
use crate::engine::{self, Stop, plain};
use crate::os::{self, EventLoop};
use crate::wire::control::{AcceptSession, Awaited, BadCount};
use crate::wire::{Accept, Modes, SessionRequest, Sid, Timestamp};

/// Why a Control-Client did not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// No connection.
    #[error("cannot connect to {server}: {}{}", plain(source), hint(server.ip(), source))]
    Connect {
        /// Whom to.
        server: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// No connection to any address of a name.
    #[error("cannot connect to {}", each(.0))]
    Nobody(Vec<(SocketAddr, io::Error)>),
    /// The connection broke.
    #[error("the control connection broke: {0}")]
    Broke(io::Error),
    /// The Server ended the connection, or said what cannot be followed.
    #[error("{why}{}{}", so_far(*granted), explanation(why))]
    Ended {
        /// Why.
        why: End,
        /// Of several sessions that were asked for, how many had been granted, and how many they were.
        granted: Option<(usize, usize)>,
    },
    /// The Server refuses what was asked.
    #[error("the server refuses {what}: {accept}")]
    Refused {
        /// What.
        what: String,
        /// Its code.
        accept: Accept,
    },
    /// A feature that was asked for is not offered.
    #[error("the server does not offer {}; it works in {chosen}", feature_names(*.missing))]
    Feature {
        /// What is missing.
        missing: Modes,
        /// What was agreed on.
        chosen: Modes,
    },
    /// A command that cannot be given.
    #[error("{0}")]
    NotNow(#[from] NotNow),
    /// A thread that could not be started.
    #[error("cannot start the {0} thread: {1}")]
    Thread(&'static str, io::Error),
    /// By a signal.
    #[error("interrupted")]
    Interrupted,
}

impl Failed {
    /// The same, when so many of several sessions had been granted.
    #[must_use]
    pub fn after(self, granted: usize, of: usize) -> Self {
        match self {
            Self::Ended { why, .. } if of > 1 => Self::Ended {
                why,
                granted: Some((granted, of)),
            },
            other => other,
        }
    }

    /// Whether it was the peer's decision.
    #[must_use]
    pub const fn refused_by_peer(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Feature { .. }
                | Self::Ended {
                    why: End::Refused(_) | End::NoMode(_),
                    ..
                }
        )
    }
}

impl From<End> for Failed {
    fn from(why: End) -> Self {
        Self::Ended { why, granted: None }
    }
}

/// What the Server says to what was asked of it.
fn granted(what: &str, accept: Accept) -> Result<(), Failed> {
    if accept.is_ok() {
        return Ok(());
    }
    let what = what.to_owned();
    Err(Failed::Refused { what, accept })
}

/// Each address with what went wrong.
fn each(passed: &[(SocketAddr, io::Error)]) -> String {
    let told = passed
        .iter()
        .map(|(server, error)| format!("{server} ({})", plain(error)));
    told.collect::<Vec<_>>().join(", nor to ")
}

fn hint(server: IpAddr, error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "; is a TWAMP server there, and is this its control port?"
        }
        io::ErrorKind::TimedOut => "; is a firewall between?",
        io::ErrorKind::HostUnreachable if leaves(server) => {
            "; a router refuses it (ICMP unreachable or prohibited), or the next hop does not answer \
             (ARP, neighbour discovery)"
        }
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::PermissionDenied if leaves(server) => {
            "; a router refuses it (ICMP unreachable or prohibited), or a firewall of this host"
        }
        _ => return engine::hint::hint(engine::End::There(server), error),
    };
    text.to_owned()
}

/// Whether this host has a way there: what is wrong is elsewhere then.
fn leaves(server: IpAddr) -> bool {
    engine::source_address((server, 9).into(), None).is_ok()
}

/// What may be behind it.
///
/// twampd (perfSONAR 5.2.3) drops the connection for a mode that it does not like, where a Server-Start
/// with an Accept value belongs (RFC 5357 §3.3); others do so for a session.
fn explanation(end: &End) -> &'static str {
    match end {
        End::Count(BadCount::TooHigh { .. }) => "; --max-count allows it",
        End::Refused(Accept::Failure) => "; as a rule the key id or the passphrase is wrong",
        // No key has been looked at before that is awaited, and after it each has been found right.
        End::Closed(Some(Expected::ServerStart)) => {
            "; some servers close where they should refuse: look at the mode, and at key id and \
             passphrase where there is a key"
        }
        End::Closed(Some(Expected::Answer(Awaited::AcceptSession))) => {
            "; some servers close where they should refuse a session"
        }
        _ => "",
    }
}

fn so_far(granted: Option<(usize, usize)>) -> String {
    granted.map_or(String::new(), |(granted, of)| {
        format!("; it had granted {granted} of {of} sessions")
    })
}

fn feature_names(missing: Modes) -> String {
    [
        (Modes::REFLECT_OCTETS, "Reflect Octets (--reflect-octets)"),
        (
            Modes::SYMMETRICAL_SIZE,
            "Symmetrical Size (--symmetrical-size)",
        ),
        (
            Modes::DSCP_ECN_MONITORING,
            "DSCP and ECN monitoring (--dscp-mode)",
        ),
        (
            Modes::INDIVIDUAL_SESSION_CONTROL,
            "Individual Session Control (--individual-sessions)",
        ),
        (
            Modes::PTP_TIMESTAMP,
            "PTP timestamps (--timestamp-format ptp)",
        ),
    ]
    .into_iter()
    .filter(|(mode, _)| missing.contains(*mode))
    .map(|(_, name)| name)
    .collect::<Vec<_>>()
    .join(" and ")
}

/// How long one address of a Server is waited for before the next is tried beside it (RFC 8305 §5).
const ATTEMPT_DELAY_NS: i64 = 250_000_000;
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Where a control connection goes.
#[derive(Clone, Debug)]
pub struct Path {
    /// Address and control port of the Server.
    pub server: SocketAddr,
    /// Address to connect from; `None`: the route's.
    pub local: Option<IpAddr>,
    /// Interface to bind to.
    pub interface: Option<String>,
}

/// One control connection, set up.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    events: EventLoop,
    waker: Arc<Waker>,
    stop: Stop,
    client: Client,
    modes: Modes,
    local: SocketAddr,
    running: Vec<Sid>,
    most_sessions: usize,
    answer_ns: i64,
}

impl Connection {
    /// Connects and agrees on a mode (RFC 5357 §3.1). All features that are wished for must be there.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn open(path: &Path, wish: Wish, stop: &Stop) -> Result<Self, Failed> {
        let dialled = dial(std::slice::from_ref(path), wish.answer_ns, stop)?;
        Self::over(dialled, wish, stop)
    }

    /// The same on a connection that is there.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn over(dialled: Dialled, wish: Wish, stop: &Stop) -> Result<Self, Failed> {
        let Dialled {
            stream,
            events,
            waker,
            path,
            ..
        } = dialled;
        let server = path.server;
        let (features, most_sessions) = (wish.features, wish.most_sessions);
        let answer_ns = wish.answer_ns;
        let mut connection = Self {
            client: Client::new(os::monotonic_ns(), wish, Secrets::random()),
            stream,
            events,
            waker,
            stop: stop.clone(),
            modes: Modes::NONE,
            local: server,
            running: Vec::new(),
            most_sessions: most_sessions.max(1),
            answer_ns,
        };
        let address = connection.stream.local_addr();
        connection.local = address.map_err(Failed::Broke)?;
        log::info!("control connection from {} to {server}", connection.local);
        // The time of the connect is not that of the greeting.
        connection.modes = connection.wait(|event| match event {
            Event::Ready { modes, start_time } => {
                let now = os::realtime_ns();
                let since = start_time.unix_ns(crate::wire::Format::Ntp, now);
                log::info!(
                    "set up in mode {modes}; the server has run for {}",
                    since.map_or("a time that it does not tell".to_owned(), |ns| {
                        let up = u64::try_from(now.saturating_sub(ns)).unwrap_or(0);
                        humantime::format_duration(Duration::from_secs(up / 1_000_000_000))
                            .to_string()
                    })
                );
                Some(modes)
            }
            _ => None,
        })?;
        let missing = features.without(connection.modes);
        if missing == Modes::NONE {
            Ok(connection)
        } else {
            Err(Failed::Feature {
                missing,
                chosen: connection.modes,
            })
        }
    }

    /// What was agreed on.
    #[must_use]
    pub fn modes(&self) -> Modes {
        self.modes
    }

    /// This end of the connection.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// To make the keys of test packets from, in the modes that protect them.
    #[must_use]
    pub fn keys(&self) -> Option<&SessionKeys> {
        self.client.keys()
    }

    /// Asks for a session, which `what` names in an error.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn request(
        &mut self,
        request: &SessionRequest,
        what: &str,
    ) -> Result<AcceptSession, Failed> {
        let given = self.client.request(os::monotonic_ns(), request);
        self.is_given(given)?;
        let answer = self.wait(|event| match event {
            Event::Session(answer) => Some(answer),
            _ => None,
        })?;
        granted(what, answer.accept())?;
        log::info!("{what}: port {}, SID {}", answer.port, answer.sid);
        self.running.push(answer.sid);
        Ok(answer)
    }

    /// Starts all sessions that were granted.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn start(&mut self) -> Result<(), Failed> {
        if !self.modes.contains(Modes::INDIVIDUAL_SESSION_CONTROL) {
            let given = self.client.start(os::monotonic_ns());
            self.is_given(given)?;
            let accept = self.wait(|event| match event {
                Event::Started(accept) => Some(accept),
                _ => None,
            })?;
            return granted("to start", accept);
        }
        self.some_by_some(Client::start_some, "to start")
    }

    /// A command finds the connection ended where the Server closed it, or broke it, behind its
    /// last answer: then that is why.
    fn is_given(&self, given: Result<(), NotNow>) -> Result<(), Failed> {
        match (given, self.client.ended()) {
            (Err(NotNow::Ended), Some(why)) => Err((*why).into()),
            (given, _) => Ok(given?),
        }
    }

    /// Gives a command for all sessions, for as many at a time as one may name, and waits until each is
    /// acknowledged.
    fn some_by_some(
        &mut self,
        give: fn(&mut Client, i64, Vec<Sid>) -> Result<(), NotNow>,
        what: &str,
    ) -> Result<(), Failed> {
        for some in self.running.clone().chunks(self.most_sessions) {
            let given = give(&mut self.client, os::monotonic_ns(), some.to_vec());
            self.is_given(given)?;
            let (mut left, mut refusal) = (some.len(), None);
            self.wait(|event| {
                let Event::Acknowledged(accept, sids) = event else {
                    return None;
                };
                left = left.saturating_sub(sids.len());
                if !accept.is_ok() {
                    refusal.get_or_insert(accept);
                }
                (left == 0).then_some(())
            })?;
            granted(what, refusal.unwrap_or(Accept::Ok))?;
        }
        Ok(())
    }

    /// Looks after the connection until [`Held::release`], so that a Server that closes is noticed.
    ///
    /// # Errors
    /// [`Failed::Thread`].
    pub fn hold(mut self) -> Result<Held, Failed> {
        let waker = Arc::clone(&self.waker);
        let released = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&released);
        let begun = os::monotonic_ns();
        let run = move || {
            let mut ended_after_ns = None;
            while !seen.load(Ordering::Acquire) {
                let moved = self.exchange();
                if self.client.ended().is_some() {
                    ended_after_ns = Some(os::monotonic_ns() - begun);
                    break;
                }
                if !moved {
                    self.events.wait_until(i64::MAX);
                }
            }
            (self, ended_after_ns)
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(run)
            .map_err(|error| Failed::Thread("control", error))?;
        Ok(Held {
            thread,
            released,
            waker,
        })
    }

    /// Waits for so many nanoseconds (`None`: for ever), or for an interrupt.
    ///
    /// # Errors
    /// [`Failed`], where the connection ends before.
    pub fn wait_for(&mut self, ns: Option<u64>) -> Result<(), Failed> {
        let moment_ns = ns.map_or(i64::MAX, |ns| {
            os::monotonic_ns().saturating_add_unsigned(ns)
        });
        while os::monotonic_ns() < moment_ns && !self.stop.requested() {
            let moved = self.exchange();
            if let Some(why) = self.client.ended() {
                return Err((*why).into());
            }
            if !moved {
                self.events.wait_until(moment_ns);
            }
        }
        Ok(())
    }

    /// Stops all sessions; others can be asked for. An interrupt does not keep it from that.
    ///
    /// # Errors
    /// [`Failed`]: the Server may not know that they have stopped.
    pub fn stop(&mut self, accept: Accept) -> Result<(), Failed> {
        let stop = std::mem::take(&mut self.stop);
        let stopped = self.stop_all(accept);
        self.stop = stop;
        self.running.clear();
        stopped
    }

    fn stop_all(&mut self, accept: Accept) -> Result<(), Failed> {
        if self.modes.contains(Modes::INDIVIDUAL_SESSION_CONTROL) {
            return self.some_by_some(Client::stop_some, "to stop");
        }
        let given = self.client.stop(accept);
        self.is_given(given)?;
        let deadline = os::monotonic_ns().saturating_add(self.answer_ns);
        while !self.client.output().is_empty() && os::monotonic_ns() < deadline {
            if !self.exchange() {
                self.events.wait_until(deadline);
            }
            if let Some(why) = self.client.ended() {
                return Err((*why).into());
            }
        }
        Ok(())
    }

    /// Waits for an event that `take` takes.
    fn wait<T>(&mut self, mut take: impl FnMut(Event) -> Option<T>) -> Result<T, Failed> {
        loop {
            while let Some(event) = self.client.next_event() {
                if let Event::Derive(job) = event {
                    let key = self.derive(job)?;
                    self.client.derived(os::monotonic_ns(), &key);
                } else if let Some(taken) = take(event) {
                    return Ok(taken);
                }
            }
            if let Some(why) = self.client.ended().copied() {
                // What is left to say, such as that no mode was found.
                let _ = self.send();
                return Err(why.into());
            }
            if self.stop.requested() {
                return Err(Failed::Interrupted);
            }
            if !self.exchange() {
                let deadline = self.client.deadline().unwrap_or(i64::MAX);
                self.events.wait_until(deadline);
                self.client.handle_deadline(os::monotonic_ns());
            }
        }
    }

    /// Runs a derivation on a thread of its own: it takes milliseconds, or seconds where the user
    /// allows such a Count, and an interrupt does not wait for it.
    fn derive(&mut self, job: KeyDerivation) -> Result<SharedKey, Failed> {
        let (done, key) = bounded(1);
        std::thread::Builder::new()
            .name("derivation".to_owned())
            .spawn(move || drop(done.send(job.run())))
            .map_err(|error| Failed::Thread("derivation", error))?;
        loop {
            match key.recv_timeout(INTERRUPT) {
                Ok(key) => return Ok(key),
                Err(RecvTimeoutError::Timeout) if !self.stop.requested() => {}
                Err(_) => return Err(Failed::Interrupted),
            }
        }
    }

    /// Sends what waits and takes what came; whether anything moved.
    fn exchange(&mut self) -> bool {
        let sent = self.send();
        let received = self.receive();
        match (sent, received) {
            (Ok(sent), Ok(received)) => sent || received,
            (Err(error), _) | (_, Err(error)) => {
                log::info!("the control connection broke: {error}");
                self.client.disconnected();
                true
            }
        }
    }

    fn send(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while !self.client.output().is_empty() {
            match self.stream.write(self.client.output()) {
                Ok(count) => {
                    self.client.sent(count);
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    fn receive(&mut self) -> io::Result<bool> {
        let mut moved = false;
        let mut octets = [0; 4096];
        loop {
            match self.stream.read(&mut octets) {
                Ok(0) => {
                    let known = self.client.ended().is_some();
                    self.client.disconnected();
                    return Ok(moved || !known);
                }
                Ok(count) => {
                    self.client.receive(os::monotonic_ns(), &octets[..count]);
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A connection whose sessions run.
#[derive(Debug)]
pub struct Held {
    thread: JoinHandle<(Connection, Option<i64>)>,
    released: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Held {
    /// The connection again, and, where it has ended meanwhile, after how many nanoseconds and why.
    ///
    /// # Errors
    /// [`Failed::Thread`], by a bug.
    pub fn release(self) -> Result<(Connection, Option<(i64, End)>), Failed> {
        self.released.store(true, Ordering::Release);
        // One that has ended by itself needs no waking.
        let _ = self.waker.wake();
        let joined = self.thread.join();
        let (connection, after_ns) =
            joined.map_err(|_| Failed::Thread("control", io::Error::other("a bug")))?;
        let ended = after_ns.zip(connection.client.ended().copied());
        Ok((connection, ended))
    }
}

fn event_loop(stop: &Stop) -> io::Result<(EventLoop, Arc<Waker>)> {
    let events = EventLoop::new()?;
    let waker = Waker::new(events.registry(), Token(1))?;
    let waker = stop.wakes(waker);
    Ok((events, waker))
}

/// A connection to the first of several Servers that took it.
#[derive(Debug)]
pub struct Dialled {
    stream: TcpStream,
    events: EventLoop,
    waker: Arc<Waker>,
    path: Path,
    /// Those that were tried before or beside it, and why it is none of them.
    pub passed: Vec<(SocketAddr, io::Error)>,
}

impl Dialled {
    /// Where the connection goes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An attempt to connect that is under way.
struct Attempt<'a> {
    path: &'a Path,
    stream: TcpStream,
    until_ns: i64,
}

/// Connects to the first of these that takes the connection: one is tried after the other, the next where
/// one fails or has not answered after 250 ms (RFC 8305 §5), and each has `answer_ns`.
///
/// # Errors
/// [`Failed`]: interrupted, or none could be connected to.
pub fn dial(paths: &[Path], answer_ns: i64, stop: &Stop) -> Result<Dialled, Failed> {
    let first = |source| Failed::Connect {
        server: paths.first().map_or(NOBODY, |path| path.server),
        source,
    };
    let (mut events, waker) = event_loop(stop).map_err(first)?;
    let mut under_way: Vec<Attempt<'_>> = Vec::new();
    let mut passed: Vec<(SocketAddr, io::Error)> = Vec::new();
    let mut rest = paths.iter();
    let mut next_ns = i64::MIN;
    loop {
        if stop.requested() {
            return Err(Failed::Interrupted);
        }
        let now = os::monotonic_ns();
        let mut still = Vec::new();
        for mut attempt in under_way {
            match state(&attempt, now) {
                None => still.push(attempt),
                Some(Err(error)) => passed.push((attempt.path.server, error)),
                Some(Ok(())) => {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let registry = events.registry();
                    registry
                        .reregister(&mut attempt.stream, Token(0), both)
                        .map_err(first)?;
                    let slower = still.iter().map(|other| other.path.server);
                    passed.extend(slower.map(|server| (server, io::ErrorKind::TimedOut.into())));
                    return Ok(Dialled {
                        stream: attempt.stream,
                        path: attempt.path.clone(),
                        events,
                        waker,
                        passed,
                    });
                }
            }
        }
        under_way = still;
        if under_way.is_empty() || now >= next_ns {
            let Some(path) = rest.next() else {
                if under_way.is_empty() {
                    return Err(nobody(passed));
                }
                next_ns = i64::MAX;
                continue;
            };
            match begin(path, &events) {
                Ok(stream) => under_way.push(Attempt {
                    path,
                    stream,
                    until_ns: now.saturating_add(answer_ns),
                }),
                Err(error) => passed.push((path.server, error)),
            }
            next_ns = now + ATTEMPT_DELAY_NS;
            continue;
        }
        let ends = under_way.iter().map(|attempt| attempt.until_ns);
        events.wait_until(ends.min().unwrap_or(now).min(next_ns));
    }
}

fn begin(path: &Path, events: &EventLoop) -> io::Result<TcpStream> {
    let mut stream = connect(path)?;
    let both = Interest::READABLE | Interest::WRITABLE;
    events.registry().register(&mut stream, Token(0), both)?;
    Ok(stream)
}

/// What has become of an attempt; `None`: nothing yet.
fn state(attempt: &Attempt<'_>, now: i64) -> Option<io::Result<()>> {
    match attempt.stream.take_error() {
        Ok(Some(error)) | Err(error) => return Some(Err(error)),
        Ok(None) => {}
    }
    if attempt.stream.peer_addr().is_ok() {
        return Some(Ok(()));
    }
    (now >= attempt.until_ns).then(|| Err(io::ErrorKind::TimedOut.into()))
}

/// Nobody could be connected to.
fn nobody(mut passed: Vec<(SocketAddr, io::Error)>) -> Failed {
    if passed.len() > 1 {
        return Failed::Nobody(passed);
    }
    let (server, source) = passed
        .pop()
        .unwrap_or((NOBODY, io::ErrorKind::InvalidInput.into()));
    Failed::Connect { server, source }
}

fn connect(path: &Path) -> io::Result<TcpStream> {
    let server = path.server;
    let domain = socket2::Domain::for_address(server);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.set_tcp_nodelay(true) {
        log::debug!("TCP_NODELAY: {error}: commands may leave later");
    }
    #[cfg(target_os = "linux")]
    if let Some(name) = &path.interface {
        engine::bind_device(&socket, name)?;
    }
    if let Some(local) = path.local {
        let mut local = SocketAddr::new(local, 0);
        if let (SocketAddr::V6(local), SocketAddr::V6(server)) = (&mut local, server) {
            local.set_scope_id(server.scope_id());
        }
        socket.bind(&local.into())?;
    }
    match socket.connect(&server.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// `Start Time` of a session that is to begin in so many nanoseconds; zero: at once
/// (RFC 4656 §3.5).
///
/// Zero wherever the user did not ask for a time: servers whose clock is behind ours discard packets
/// until their idea of it.
#[must_use]
pub fn start_time(in_ns: Option<u64>) -> Timestamp {
    match in_ns {
        None => Timestamp::from_raw(0),
        Some(ns) => {
            let at = os::realtime_ns().saturating_add_unsigned(ns);
            Timestamp::from_unix_ns(at, crate::wire::Format::Ntp)
        }
    }
}

/// How often an interrupt is looked for where nothing wakes the thread.
const INTERRUPT: Duration = Duration::from_millis(50);
