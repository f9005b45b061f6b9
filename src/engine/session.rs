//! A session: opens its sockets, starts its threads, waits for them, and has the report put together.
//!
//! The load is shared by pairs of a sending and a receiving thread (lanes), each with sockets, a source
//! port, packets under way and statistics of its own. Nothing is shared on the packet path, and what
//! they measured is merged when they are done. A lane may also be a session of its own, on which
//! somebody agrees with a Server between [`open`] and [`Opened::measure`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, tick};
use mio::Waker;

use super::assemble::{Differs, Terms};
use super::cores::{self, Pair};
use super::flight::{Flight, MAX_SINGLES};
use super::intervals::{Begun, Clocks};
use super::live::{self, Intervals, Progress, Recorder, Update};
use super::receiver::{self, Belief, Received};
use super::sender::{self, Sent};
use super::{
    BUFFER_OVERHEAD, End, Failure, Reflecting, Stop, assemble, join, packets, schedule,
    socket_plan, spawn, start,
};
use crate::config::{Burst, Departures, IoKind, SessionConfig};
#[cfg(target_os = "linux")]
use crate::io::linux;
use crate::io::{
    Granted, NextHop, ReceiveHalf, SendHalf, SocketPlan, StampKind, is_local, portable,
    resolve_next_hop,
};
use crate::os;
use crate::report::{Ignored, Report, Scope, Security};
use crate::sample::{BLOCKS, Blocks, pipe_of};
use crate::stats::delay::Delays;
use crate::wire::protected::{Protection, TestKeys};
use crate::wire::{MAX_UDP_PAYLOAD, Sid, TestFormat, fill_padding};

/// Most packets under way that are told apart; more leave the window before their timeout.
const MAX_WINDOW: u64 = 1 << 24;
/// Below this rate a sender that is late was not let run: trains would not help, and what drops or counts
/// packets on the way takes a train for one.
const EASY_RATE: f64 = 50_000.0;
/// The rate above which not even a fast host sends each packet by itself.
const SINGLES_RATE: f64 = 400_000.0;
/// Above that, trains are as long as it takes to have at most so many a second.
const TRAINS_RATE: f64 = 62_500.0;
/// Trains of a batch: they are long, and few are due together.
const TRAINS: usize = 8;
/// Where there are more lanes than these, each one below this rate is given less memory: so many
/// places of a batch, and so many blocks of samples; and their delays take memory as they need it.
pub(super) const MANY: usize = 8;
const SLOW_RATE: f64 = 5_000.0;
/// Most descriptors of a lane: two sockets, and of each thread an event loop and what wakes it; and of
/// everything else.
const LANE_FILES: u64 = 8;
const BESIDE: u64 = 64;
const FEW_PLACES: usize = 8;
const FEW_BLOCKS: usize = 32;
/// From this rate on, replies are let gather before they are taken: they carry kernel timestamps. To take
/// them more often costs the reflector on the same core more than that they wait.
const GATHER_RATE: f64 = 20_000.0;
/// For how long in nanoseconds, at least and at most, and how many octets of them.
const GATHER_NS: (f64, f64) = (400_000.0, 1_000_000.0);
const GATHER_OCTETS: f64 = 524_288.0;
/// As much of the socket's buffer may fill meanwhile, unless that would take no longer than this.
const GATHER_BUFFER: f64 = 0.125;
const LEAST_GATHER_NS: f64 = 100_000.0;
/// Octets of socket buffer that one waiting transmit stamp may take.
const STAMP_OCTETS: usize = 1024;

/// What a session measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Of all threads or sessions together.
    pub report: Report,
    /// Of each thread or session, where there are several.
    pub parts: Vec<Report>,
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
) -> Result<Measured, Failure> {
    let opened = open(config.shares())?;
    let lanes = opened.locals().len();
    let all = SessionConfig {
        threads: lanes,
        ..config.clone()
    };
    let peers = vec![Peer::light(config.remote); lanes];
    opened.run(&all, peers, reflector, stop, watch)
}

/// What a Server granted to a lane.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// The Session-Reflector, with the port that was granted.
    pub remote: SocketAddr,
    /// How the session's test packets look.
    pub format: TestFormat,
    /// Their keys, where `format` has them protected.
    pub keys: Option<TestKeys>,
    /// The session's identifier (RFC 4656 §3.5).
    pub sid: Sid,
    /// Security mode of the control connection.
    pub security: Security,
}

/// Sessions whose sockets are open, for somebody to agree on them with a Server.
///
/// A lane is a session with a sending and a receiving thread of its own.
#[derive(Debug)]
pub struct Opened(Lanes);

/// The lanes of one make of sockets.
#[derive(Debug)]
enum Lanes {
    #[cfg(target_os = "linux")]
    Batched(Vec<OpenLane<linux::OpenSession>>),
    Portable(Vec<OpenLane<portable::OpenSession>>),
}

/// A lane towards nobody yet.
#[derive(Debug)]
struct OpenLane<S> {
    share: SessionConfig,
    trains: Trains,
    sockets: S,
}

/// Opens the sockets of each lane, bound but towards nobody yet. Each is a session of one thread.
/// Packet sizes and kind of sockets must be the same for all; remote addresses are not looked at. What
/// arrives before [`Opened::measure`] is dropped.
///
/// # Errors
/// [`Failure::Open`].
///
/// # Panics
/// Without any lane.
pub fn open(lanes: Vec<SessionConfig>) -> Result<Opened, Failure> {
    let first = lanes.first().expect("a session at least");
    let io = first.socket.io;
    if lanes.len() > MANY {
        // Where there is no room for all, opening one of them says so.
        let lanes = u64::try_from(lanes.len()).unwrap_or(u64::MAX);
        let _ = os::raise_open_files(lanes.saturating_mul(LANE_FILES).saturating_add(BESIDE));
    }
    match io {
        #[cfg(target_os = "linux")]
        IoKind::Batched => {
            let open = |share| OpenLane::open(share, linux::open_session);
            let lanes: Result<Vec<_>, Failure> = lanes.into_iter().map(open).collect();
            Ok(Opened(Lanes::Batched(lanes?)))
        }
        _ => {
            let open = |share| OpenLane::open(share, portable::open_session);
            let lanes: Result<Vec<_>, Failure> = lanes.into_iter().map(open).collect();
            Ok(Opened(Lanes::Portable(lanes?)))
        }
    }
}

impl<S> OpenLane<S> {
    fn open(
        share: SessionConfig,
        open: impl FnOnce(&SocketPlan) -> io::Result<S>,
    ) -> Result<Self, Failure> {
        let trains = Trains::choose(&share);
        let bundles = trains.burst > 1;
        let plan = socket_plan(share.local, &share.socket, share.socket.tos, bundles);
        let sockets = open(&plan)
            .map_err(|source| cannot_open(&share, End::Here(share.local.ip()), source))?;
        Ok(Self {
            share,
            trains,
            sockets,
        })
    }

    /// The lane towards its peer. `connect` gives the halves of the sockets, and what the system
    /// granted.
    fn connect<T, R>(
        self,
        peer: Peer,
        connect: impl FnOnce(S, SocketAddr) -> io::Result<(T, R, Granted)>,
    ) -> Result<Lane<T, R>, Failure> {
        let share = SessionConfig {
            remote: peer.remote,
            ..self.share
        };
        let connected = connect(self.sockets, share.remote);
        let (send, receive, granted) = connected
            .map_err(|source| cannot_open(&share, End::There(share.remote.ip()), source))?;
        Ok(Lane {
            padding: padding(&share, self.trains.most),
            share,
            trains: self.trains,
            granted,
            peer,
            send,
            receive,
        })
    }
}

impl Opened {
    /// Address and port of each lane, in their order.
    #[must_use]
    pub fn locals(&self) -> Vec<SocketAddr> {
        match &self.0 {
            #[cfg(target_os = "linux")]
            Lanes::Batched(lanes) => lanes.iter().map(|l| l.sockets.granted().local).collect(),
            Lanes::Portable(lanes) => lanes.iter().map(|l| l.sockets.granted().local).collect(),
        }
    }

    /// Runs all to their end: they begin together. `agreed`: one for each lane, in their order. `watch`
    /// as in [`measure`].
    ///
    /// # Errors
    /// [`Failure`] where the sessions did not come about. What goes wrong later is in the reports.
    ///
    /// # Panics
    /// Where there are not as many of `agreed` as lanes, one lacks the keys that its format needs, or a
    /// lane's packets are too short for the fields of its format.
    pub fn measure(
        self,
        agreed: Vec<Agreed>,
        stop: &Stop,
        watch: impl FnMut(Update),
    ) -> Result<Measured, Failure> {
        let all = self.together();
        let peers = agreed.into_iter().map(Peer::agreed).collect();
        self.run(&all, peers, None, stop, watch)
    }

    /// What all lanes send together.
    fn together(&self) -> SessionConfig {
        match &self.0 {
            #[cfg(target_os = "linux")]
            Lanes::Batched(lanes) => together(lanes.iter().map(|lane| &lane.share)),
            Lanes::Portable(lanes) => together(lanes.iter().map(|lane| &lane.share)),
        }
    }

    /// `config`: what all lanes are together.
    fn run(
        self,
        config: &SessionConfig,
        peers: Vec<Peer>,
        reflector: Option<Reflecting>,
        stop: &Stop,
        watch: impl FnMut(Update),
    ) -> Result<Measured, Failure> {
        assert_eq!(self.locals().len(), peers.len(), "a peer for each lane");
        match self.0 {
            #[cfg(target_os = "linux")]
            Lanes::Batched(lanes) => {
                let all = lanes.len();
                let connect = |(lane, peer): (OpenLane<linux::OpenSession>, _)| {
                    let lane = lane.connect(peer, linux::OpenSession::connect)?;
                    let places = match lane.trains.burst {
                        1 if is_frugal(&lane.share, all) => FEW_PLACES,
                        1 => packets::BATCH,
                        _ => TRAINS,
                    };
                    Ok(lane.starting(
                        move |tx, padding| tx.start(padding, places),
                        linux::ReceiveSocket::start,
                    ))
                };
                let lanes: Result<Vec<_>, Failure> =
                    lanes.into_iter().zip(peers).map(connect).collect();
                run(config, lanes?, reflector, stop, watch)
            }
            Lanes::Portable(lanes) => {
                let connect = |(lane, peer): (OpenLane<portable::OpenSession>, _)| {
                    let lane = lane.connect(peer, portable::OpenSession::connect)?;
                    Ok(lane.starting(
                        |tx: portable::SendSocket, padding| tx.start(padding),
                        portable::ReceiveSocket::start,
                    ))
                };
                let lanes: Result<Vec<_>, Failure> =
                    lanes.into_iter().zip(peers).map(connect).collect();
                run(config, lanes?, reflector, stop, watch)
            }
        }
    }
}

/// What several sessions send together, and otherwise are like the first one.
fn together<'a>(mut lanes: impl Iterator<Item = &'a SessionConfig>) -> SessionConfig {
    let mut all = lanes.next().expect("a session at least").clone();
    for lane in lanes {
        let rates = all.departures.rate().zip(lane.departures.rate());
        all.departures = match rates.and_then(|(a, b)| a.plus(b)) {
            Some(rate) => all.departures.at(rate),
            None => Departures::Flood,
        };
        let counts = all.end.count.zip(lane.end.count);
        all.end.count = counts.map(|(a, b)| a.saturating_add(b));
        all.end.duration_ns = all.end.duration_ns.max(lane.end.duration_ns);
        all.timeout_ns = all.timeout_ns.max(lane.timeout_ns);
    }
    all
}

fn cannot_open(share: &SessionConfig, end: End, source: io::Error) -> Failure {
    Failure::Open {
        what: format!("{} towards {}", share.local, share.remote),
        end,
        source,
    }
}

/// The other end of a lane.
#[derive(Clone, Debug)]
struct Peer {
    remote: SocketAddr,
    format: TestFormat,
    protection: Option<Protection>,
    terms: Terms,
}

impl Peer {
    fn light(remote: SocketAddr) -> Self {
        Self {
            remote,
            format: TestFormat::LIGHT,
            protection: None,
            terms: Terms::Light,
        }
    }

    fn agreed(agreed: Agreed) -> Self {
        let Agreed {
            remote,
            format,
            keys,
            sid,
            security,
        } = agreed;
        let protection = format.protection().map(|mode| {
            let keys = keys.expect("a protected session has keys");
            Protection::new(mode, &keys)
        });
        let sid = Some(sid);
        Self {
            remote,
            format,
            protection,
            terms: Terms::Agreed { security, sid },
        }
    }
}

/// A share of the load, with sockets open and no thread yet; what starts the halves, or the halves.
struct Lane<S, R> {
    share: SessionConfig,
    trains: Trains,
    granted: Granted,
    peer: Peer,
    /// What the batch of the sender is filled with.
    padding: Vec<u8>,
    send: S,
    receive: R,
}

impl<S, R> Lane<S, R> {
    /// With what starts its halves, on their threads.
    fn starting<T, U>(
        self,
        send: impl FnOnce(S, &[u8]) -> T,
        receive: impl FnOnce(R) -> U,
    ) -> Lane<impl FnOnce() -> T, impl FnOnce() -> U> {
        let (tx, rx) = (self.send, self.receive);
        let pristine = self.padding.clone();
        Lane {
            share: self.share,
            trains: self.trains,
            granted: self.granted,
            peer: self.peer,
            padding: self.padding,
            send: move || send(tx, &pristine),
            receive: move || receive(rx),
        }
    }
}

/// A lane whose threads run.
struct Running {
    share: SessionConfig,
    granted: Granted,
    terms: Terms,
    flight: Arc<Flight>,
    live: Arc<receiver::Live>,
    sender: JoinHandle<io::Result<Sent>>,
    receiver: JoinHandle<io::Result<Received>>,
    delays: JoinHandle<Delays>,
    ready: Receiver<()>,
    begin: Sender<i64>,
}

/// What a lane did.
struct Done {
    share: SessionConfig,
    granted: Granted,
    terms: Terms,
    window: u64,
    sent: Sent,
    received: Received,
    delays: Delays,
}

impl Done {
    fn port(&self) -> u16 {
        self.granted.local.port()
    }

    /// Packets that this system took and that never left it, as those that wait for a neighbour, or for a link
    /// that is down: they were not answered and have no transmit stamp of the kernel, while all that were
    /// answered have theirs. 0 where not each packet or train of one length asked for one, and where none was
    /// answered: then nothing shows that stamps come.
    fn never_left(&self) -> u64 {
        let (sent, received) = (&self.sent, &self.received);
        let facts = &received.facts;
        // As many packets with each stamp.
        let train = u64::from(sent.longest_burst.max(1));
        let known = sent.stamps_requested == sent.sent.div_ceil(train)
            && self.granted.transmit == Some(StampKind::Kernel)
            && received.counts.received > 0
            && facts.stamps_lost == 0
            && !received.cut_short
            && received.failure.is_none();
        let without = sent.stamps_requested.saturating_sub(facts.stamps_back);
        let without = without.saturating_mul(train);
        let unanswered = sent.sent.saturating_sub(received.counts.received);
        if known { without.min(unanswered) } else { 0 }
    }
}

impl Running {
    fn finish(self) -> Result<Done, Failure> {
        let received = join("receiver", self.receiver)?;
        let mut sent = join("sender", self.sender)?.map_err(|source| start("sender", source))?;
        let mut received = received.map_err(|source| start("receiver", source))?;
        let mut delays = join("stats", self.delays)?;
        if received.facts.belief == Belief::Denied {
            // T2 and T3 are in all of them, and were read wrongly.
            received.facts.misread += delays.recorded();
            delays = delays.alike();
        }
        delays.know_own_steps(&received.facts.own_steps);
        sent.left_later(&received.facts.waits);
        Ok(Done {
            share: self.share,
            granted: self.granted,
            terms: self.terms,
            window: self.flight.window(),
            sent,
            received,
            delays,
        })
    }
}

/// What the lanes of a session have in common while they run.
struct Common<'a> {
    config: &'a SessionConfig,
    lanes: usize,
    begun: Begun,
    stop: &'a Stop,
    updates: Sender<Update>,
    /// Where they are watched.
    intervals: Option<Arc<Mutex<Intervals>>>,
    /// Hung up when all receivers have ended.
    done: Sender<()>,
    /// No samples yet.
    delays: Delays,
    /// CPUs of the senders: where other threads ran, packets would leave late.
    punctual: Vec<usize>,
}

/// Starts the threads, waits for them, and reports.
fn run<S: SendHalf, R: ReceiveHalf>(
    config: &SessionConfig,
    mut lanes: Vec<Lane<impl FnOnce() -> S + Send + 'static, impl FnOnce() -> R + Send + 'static>>,
    reflector: Option<Reflecting>,
    stop: &Stop,
    mut watch: impl FnMut(Update),
) -> Result<Measured, Failure> {
    log::debug!("{}", config.command().join(" "));
    let interface = config.socket.interface.as_deref();
    resolve_next_hops(&mut lanes, stop);
    let mut pairs = cores::pairs(
        config.cpus.as_ref(),
        lanes.len(),
        config.local.ip(),
        interface,
    );
    for pair in &mut pairs {
        let reflecting = reflector.as_ref().map_or(&[] as &[usize], Reflecting::cpus);
        pair.apart &= pair.sender.is_none_or(|cpu| !reflecting.contains(&cpu));
    }
    let receive = lanes.first().map(|lane| lane.granted.receive);
    // The interface's clock and this system's are no one clock.
    let stamps_only = receive == Some(StampKind::Hardware);
    let (updates_in, updates) = live::updates();
    let (done_in, done_out) = bounded::<()>(1);
    let begun = Begun {
        at_ns: os::monotonic_ns(),
        wall_ns: os::realtime_ns(),
    };
    let delays = if lanes.iter().all(|l| is_frugal(&l.share, lanes.len())) {
        Delays::frugal(config.sizes.classes.len(), stamps_only)
    } else {
        Delays::new(config.sizes.classes.len(), stamps_only)
    };
    let watched = config.watch.interval_ns.is_some();
    let here = |lane: &Lane<_, _>| is_local(lane.share.remote.ip());
    let clocks = Clocks {
        one: !stamps_only && lanes.iter().all(here),
        ours_synchronised: os::clock_quality().is_some_and(|(synchronised, _)| synchronised),
    };
    let common = Common {
        config,
        lanes: lanes.len(),
        begun,
        stop,
        intervals: watched
            .then(|| Intervals::new(lanes.len(), &delays, clocks, begun, updates_in.clone())),
        updates: updates_in,
        done: done_in,
        delays,
        punctual: pairs.iter().filter_map(|pair| pair.sender).collect(),
    };
    let mut running: Vec<Running> = Vec::new();
    let mut watched: Vec<Blocks<live::Record>> = Vec::new();
    for (index, (lane, pair)) in (0..).zip(lanes.into_iter().zip(pairs)) {
        let (lane, tapped) = start_lane(&common, index, lane, pair)?;
        running.push(lane);
        watched.extend(tapped);
    }
    let Common {
        updates: updates_in,
        done,
        delays,
        punctual,
        intervals,
        ..
    } = common;
    drop((done, delays, intervals));
    let live_thread = if watched.is_empty() {
        drop(updates_in);
        None
    } else {
        let first_seq = config.first_seq;
        let live = move || {
            os::keep_off(&punctual);
            live::run(watched, first_seq, stamps_only, clocks, updates_in);
        };
        Some(spawn("live", live)?)
    };

    if running.iter().all(|lane| lane.ready.recv().is_ok()) {
        let begin = os::monotonic_ns() + sender::LEAD_NS;
        for lane in &running {
            // One that has gone tells why when it is waited for.
            let _ = lane.begin.send(begin);
        }
    } else {
        // Hung up on, the others send nothing; why one failed is found below.
        for lane in &mut running {
            lane.begin = bounded(0).0;
            if lane.flight.finished().is_none() && lane.sender.is_finished() {
                // It is too late for its receiver to hear of it otherwise.
                lane.flight.finish(0, os::monotonic_ns());
            }
        }
    }
    let progress = || {
        let received = running
            .iter()
            .map(|lane| lane.live.received.load(Ordering::Relaxed));
        let mut ignored = Ignored::default();
        for lane in &running {
            ignored.add(&lane.live.ignored.read());
        }
        Update::Progress(Progress {
            sent: running.iter().map(|lane| lane.flight.departed()).sum(),
            received: received.sum(),
            ignored,
        })
    };
    let again = tick(super::PROGRESS);
    loop {
        select! {
            recv(updates) -> update => match update {
                Ok(update) => watch(update),
                // Nothing more to tell, or nothing was to be told at all.
                Err(_) => match done_out.recv_timeout(super::PROGRESS) {
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
    let done: Result<Vec<Done>, Failure> = running.into_iter().map(Running::finish).collect();
    let mut done = done?;
    for lane in &mut done {
        if is_local(lane.share.remote.ip()) && receive != Some(StampKind::Hardware) {
            lane.delays.know_one_host();
        }
    }
    let reflected = reflector.map(Reflecting::finish).transpose()?;
    let report = |lane: &Done, scope, whole| {
        assemble::report(&assemble::Parts {
            scope,
            config: &lane.share,
            granted: &lane.granted,
            terms: lane.terms,
            whole,
            differs: Differs::default(),
            ports: &[],
            silent: &[],
            never_left: lane.never_left(),
            window: lane.window,
            sent: &lane.sent,
            received: &lane.received,
            delays: &lane.delays,
            reflected: reflected.as_ref(),
        })
    };
    if let [one] = done.as_slice() {
        return Ok(Measured {
            report: report(one, Scope::Session, true),
            parts: Vec::new(),
        });
    }
    let silent = |lane: &&Done| lane.sent.sent > 0 && lane.received.counts.received == 0;
    let silent: Vec<u16> = done.iter().filter(silent).map(Done::port).collect();
    let part = match done[0].terms {
        Terms::Light => Scope::Thread,
        Terms::Agreed { .. } => Scope::Session,
    };
    Ok(Measured {
        report: combined(config, &done, |together, ports| {
            assemble::report(&assemble::Parts {
                scope: Scope::Combined,
                config: &together.share,
                granted: &together.granted,
                terms: together.terms,
                whole: true,
                differs: differs(&done),
                ports,
                silent: &silent,
                never_left: done.iter().map(Done::never_left).sum(),
                window: together.window,
                sent: &together.sent,
                received: &together.received,
                delays: &together.delays,
                reflected: reflected.as_ref(),
            })
        }),
        parts: done.iter().map(|lane| report(lane, part, false)).collect(),
    })
}

/// Has the next hop of each lane resolved: until it is, this host keeps some packets for it and drops the
/// others.
fn resolve_next_hops<S, R>(lanes: &mut [Lane<S, R>], stop: &Stop) {
    let mut known: Vec<(IpAddr, Option<NextHop>)> = Vec::new();
    for lane in lanes {
        let host = lane.share.remote.ip();
        let before = known.iter().find(|(known, _)| *known == host);
        lane.granted.next_hop = before.map_or_else(
            || {
                let interface = lane.share.socket.interface.as_deref();
                let local = lane.granted.local.ip();
                resolve_next_hop(lane.share.remote, local, interface, || stop.requested())
            },
            |(_, hop)| *hop,
        );
        known.push((host, lane.granted.next_hop));
    }
}

/// What the lanes do not have in common.
fn differs(lanes: &[Done]) -> Differs {
    let first = &lanes[0].share;
    let any = |differs: fn(&SessionConfig, &SessionConfig) -> bool| {
        lanes.iter().any(|lane| differs(&lane.share, first))
    };
    Differs {
        remote: any(|a, b| a.remote != b.remote),
        host: any(|a, b| a.remote.ip() != b.remote.ip()),
        tos: any(|a, b| a.socket.tos != b.socket.tos),
    }
}

/// What all lanes did, and their source ports.
fn combined(
    config: &SessionConfig,
    lanes: &[Done],
    report: impl FnOnce(&Done, &[u16]) -> Report,
) -> Report {
    let mut granted = lanes[0].granted.clone();
    let mut delays = lanes[0].delays.alike();
    for lane in lanes {
        delays.merge(&lane.delays);
        let more = lane.granted.remarks.iter();
        let more: Vec<String> = more
            .filter(|r| !granted.remarks.contains(r))
            .cloned()
            .collect();
        granted.remarks.extend(more);
    }
    let each = lanes.iter().map(|lane| (lane.sent.sent, &lane.received));
    let together = Done {
        share: SessionConfig {
            // Said where all have it, with the port that was granted.
            remote: lanes[0].share.remote,
            ..config.clone()
        },
        granted,
        terms: match lanes[0].terms {
            Terms::Agreed { security, .. } => Terms::Agreed {
                security,
                sid: None,
            },
            Terms::Light => Terms::Light,
        },
        window: lanes.iter().map(|lane| lane.window).sum(),
        sent: Sent::together(lanes.iter().map(|lane| &lane.sent)),
        received: Received::together(config.sizes.classes.len(), each),
        delays,
    };
    let ports: Vec<u16> = lanes.iter().map(Done::port).collect();
    report(&together, &ports)
}

/// Starts the threads of a lane; its sender waits for the word to begin.
fn start_lane<S: SendHalf, R: ReceiveHalf>(
    common: &Common<'_>,
    index: u64,
    lane: Lane<impl FnOnce() -> S + Send + 'static, impl FnOnce() -> R + Send + 'static>,
    pair: Pair,
) -> Result<(Running, Option<Blocks<live::Record>>), Failure> {
    let Lane {
        share,
        trains,
        granted,
        peer,
        padding,
        send: start_sending,
        receive: start_receiving,
    } = lane;
    let smallest = share.sizes.classes.iter().map(|c| c.payload).min();
    assert!(
        smallest.is_none_or(|payload| payload >= peer.format.padding_at()),
        "packets have room for the fields of their format"
    );
    let rate = share.departures.rate();
    let per_second = rate.map_or(f64::MAX, crate::config::Rate::per_second);
    let grace_ns = share.grace_ns.unwrap_or(0);
    let flight = Flight::new(window(&share, trains, common.lanes), trains.shift)
        .with_grace(i64::try_from(grace_ns).unwrap_or(i64::MAX));
    let flight = Arc::new(flight);
    flight.set_burst(trains.burst);
    let live = Arc::new(receiver::Live::default());
    let timeout_ns = i64::try_from(share.timeout_ns).unwrap_or(i64::MAX);
    log::info!("measuring from {} to {}", granted.local, share.remote);
    log::info!(
        "receive buffer {}, T4 by {}, T1 by {}, sender on {}, receiver on {}",
        known(granted.receive_buffer, "bytes"),
        granted.receive,
        granted.transmit.unwrap_or(StampKind::Userspace),
        on_cpu(pair.sender),
        on_cpu(pair.receiver),
    );
    let room = if is_frugal(&share, common.lanes) {
        FEW_BLOCKS
    } else {
        BLOCKS
    };
    let (samples, blocks) = pipe_of(room);
    let (wish_in, wish_out) = bounded(packets::BATCH);

    let thread = usize::try_from(index).unwrap_or(0);
    let intervals = common
        .intervals
        .as_ref()
        .map(|all| (thread, Arc::clone(all)));
    let mut recorder = Recorder::new(common.delays.alike(), intervals);
    let off = common.punctual.clone();
    let delays = spawn("stats", move || {
        os::keep_off(&off);
        blocks.each(|block, mark| recorder.record(block, mark));
        recorder.finish()
    })?;

    let copier = |came| {
        let watched = share.watch.packets;
        watched.then(|| live::Copier::new(common.updates.clone(), came))
    };
    let (left, came) = (copier(false), copier(true));
    let (records, watched) = share.watch.happenings.then(|| pipe_of(room)).unzip();
    let tap = share.watch.any().then(|| {
        let prompt = per_second < GATHER_RATE;
        let (watch, format) = (share.watch, share.format);
        live::tap(watch, timeout_ns, format, prompt, common.begun, records)
    });

    let gap_ns = rate.map_or(0, |rate| i64::try_from(rate.due_ns(1)).unwrap_or(i64::MAX));
    let plan = receiver::Plan {
        timeout_ns,
        loss_bound: share.loss_bound,
        probes: share.probes,
        stop: common.stop.clone(),
        first_seq: share.first_seq,
        format: share.format,
        test: peer.format,
        protection: peer.protection.clone(),
        payloads: share.sizes.classes.iter().map(|c| c.payload).collect(),
        stamps: granted.transmit.is_some(),
        hardware: granted.receive == StampKind::Hardware,
        interval_ns: gap_ns.saturating_mul(i64::from(trains.burst)),
        errors_queued: granted.icmp
            && share.socket.io == IoKind::Batched
            && cfg!(target_os = "linux"),
        gather_ns: match granted.receive {
            StampKind::Userspace => 0,
            _ => gather_ns(per_second, &share.sizes, granted.receive_buffer),
        },
        cpu: pair.receiver,
        realtime: share.realtime,
    };
    let (waker_in, waker_out) = bounded(1);
    let receiver = {
        let (flight, live, done) = (Arc::clone(&flight), Arc::clone(&live), common.done.clone());
        let stop = common.stop.clone();
        spawn("receiver", move || {
            let mut half = start_receiving();
            // There is room for the one waker, and whoever waits for it is still there.
            let ready = |waker: Arc<Waker>| drop(waker_in.send(stop.wakes(waker)));
            let pipes = (samples, tap, came);
            let result = receiver::run(&mut half, &plan, &flight, &live, pipes, ready, &wish_in);
            drop(done);
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

    let (ready_in, ready) = bounded(1);
    let (begin, begin_out) = bounded(1);
    let departures = schedule::Schedule::new(
        share.departures,
        share.end,
        &share.sizes.classes,
        share.seed,
        trains.burst,
    );
    let plan = sender::Plan {
        schedule: match index {
            0 => departures,
            _ => departures.beside_another(),
        },
        payloads: share.sizes.classes.iter().map(|c| c.payload).collect(),
        test: peer.format,
        protection: peer.protection,
        padding,
        timeout_ns,
        most_burst: trains.most,
        first_seq: share.first_seq,
        count: share.end.count,
        mean_gap_ns: gap_ns,
        format: share.format,
        pacing: share.pacing,
        may_spin: pair.apart,
        stamps_kept: match (granted.transmit, granted.receive_buffer) {
            (Some(_), Some(octets)) => u64::try_from(octets / STAMP_OCTETS).unwrap_or(u64::MAX),
            _ => 0,
        },
        cpu: pair.sender,
        realtime: share.realtime,
        start: sender::Start {
            ready: ready_in,
            at: begin_out,
            // The threads' packets or trains leave in turn.
            offset_ns: match common.config.departures {
                Departures::Periodic(all) => {
                    let train = u64::from(trains.burst).min(share.end.count.unwrap_or(u64::MAX));
                    i64::try_from(all.due_ns(index * train)).unwrap_or(0)
                }
                // Random gaps keep them apart.
                _ => 0,
            },
        },
    };
    let sender = {
        let (flight, stop) = (Arc::clone(&flight), common.stop.clone());
        spawn("sender", move || {
            let mut half = start_sending();
            let mut woken = None;
            let ready = |waker| woken = Some(stop.wakes(waker));
            let flag = stop.flag();
            let wishes = (&wish_out, left);
            sender::run(
                &mut half,
                plan,
                &flight,
                flag,
                ready,
                &receiver_waker,
                wishes,
            )
        })?
    };
    let running = Running {
        share,
        granted,
        terms: peer.terms,
        flight,
        live,
        sender,
        receiver,
        delays,
        ready,
        begin,
    };
    Ok((running, watched))
}

/// Octets of a packet, or of the longest train.
fn padding(config: &SessionConfig, most_burst: u32) -> Vec<u8> {
    let longest = config.sizes.classes.iter().map(|c| c.payload).max();
    let packets = usize::try_from(most_burst).unwrap_or(1);
    let mut padding = vec![0; (longest.unwrap_or(0) * packets).min(MAX_UDP_PAYLOAD)];
    if !config.zero_padding {
        fill_padding(&mut padding, config.seed);
    }
    padding
}

/// Whether one of several lanes makes do with less memory.
fn is_frugal(config: &SessionConfig, lanes: usize) -> bool {
    let rate = config.departures.rate();
    lanes > MANY && rate.is_some_and(|rate| rate.per_second() < SLOW_RATE)
}

/// Packets of one of several lanes that may be under way within the timeout, with some room to spare.
fn window(config: &SessionConfig, trains: Trains, lanes: usize) -> u64 {
    let most = (MAX_SINGLES << trains.shift).min(MAX_WINDOW);
    let within = match config.departures.rate() {
        Some(rate) => rate.count_in(config.timeout_ns.saturating_add(500_000_000)),
        // As much as the lanes can send together.
        None => most / u64::try_from(lanes.max(1)).unwrap_or(1),
    };
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

    fn choose(config: &SessionConfig) -> Self {
        let rate = config.departures.rate();
        let per_second = rate.map_or(f64::MAX, crate::config::Rate::per_second);
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
            Burst::Auto if rate.is_none() || per_second < EASY_RATE => Self::NONE,
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

/// How long replies may gather at such a rate, in nanoseconds, in a buffer of so many octets.
fn gather_ns(per_second: f64, sizes: &crate::config::Sizes, buffer: Option<usize>) -> i64 {
    if per_second < GATHER_RATE {
        return 0;
    }
    let largest = sizes.classes.iter().map(|c| c.payload).max().unwrap_or(1);
    let octets = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let (payload, buffer) = (octets(largest), octets(buffer.unwrap_or(0)));
    let overhead = f64::from(u32::try_from(BUFFER_OVERHEAD).unwrap_or(u32::MAX));
    let per_ns = per_second / 1e9;
    let (least, most) = GATHER_NS;
    let gather_ns = (GATHER_OCTETS / (per_ns * payload)).clamp(least, most);
    let room_ns = buffer * GATHER_BUFFER / (per_ns * (payload + overhead));
    #[expect(clippy::cast_possible_truncation, reason = "a millisecond at most")]
    let gather_ns = gather_ns.min(room_ns.max(LEAST_GATHER_NS)) as i64;
    gather_ns
}

fn known(value: Option<usize>, unit: &str) -> String {
    value.map_or("not known".to_owned(), |value| format!("{value} {unit}"))
}

fn on_cpu(cpu: Option<usize>) -> String {
    cpu.map_or("any CPU".to_owned(), |cpu| format!("CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{End, Pacing, SizeClass, SizeProfile, Sizes, SocketOptions, WatchConfig};
    use crate::wire::Format;

    fn config(departures: Departures, burst: Burst) -> SessionConfig {
        SessionConfig {
            remote: "192.0.2.2:862".parse().unwrap(),
            local: "192.0.2.1:0".parse().unwrap(),
            departures,
            end: End {
                count: Some(1_000_000),
                duration_ns: None,
            },
            sizes: Sizes {
                profile: SizeProfile::Fixed,
                classes: vec![SizeClass {
                    payload: 64,
                    frame: 106,
                    weight: 1,
                }],
            },
            seed: 1,
            timeout_ns: 5_000_000_000,
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
            pacing: Pacing::Auto,
            realtime: false,
            cpus: None,
            threads: 1,
            burst,
            first_seq: 0,
            zero_padding: false,
            grace_ns: None,
            probes: true,
            loss_bound: None,
            watch: WatchConfig::default(),
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn trains_are_made_where_they_can_help() {
        let auto = |rate: &str| {
            let departures = Departures::Periodic(rate.parse().unwrap());
            let trains = Trains::choose(&config(departures, Burst::Auto));
            (trains.burst, trains.most)
        };
        assert_eq!(auto("49k"), (1, 1));
        assert_eq!(auto("100k"), (1, 64));
        assert_eq!(auto("2M"), (32, 64));
        let flood = Trains::choose(&config(Departures::Flood, Burst::Auto));
        assert_eq!(flood, Trains::NONE);
        let fixed = config(
            Departures::Periodic("1k".parse().unwrap()),
            Burst::Fixed(16),
        );
        assert_eq!(Trains::choose(&fixed).burst, 16);
    }

    #[test]
    fn replies_gather_for_as_long_as_the_buffer_has_room() {
        let gather = |per_second, payload, buffer| {
            let sizes = Sizes {
                profile: SizeProfile::Fixed,
                classes: vec![SizeClass {
                    payload,
                    frame: payload + 42,
                    weight: 1,
                }],
            };
            gather_ns(per_second, &sizes, Some(buffer)) / 1000
        };
        let large = 64 << 20;
        assert_eq!(gather(19_999.0, 64, large), 0);
        assert_eq!(gather(100_000.0, 64, large), 1000);
        assert_eq!(gather(6e6, 64, large), 1000);
        assert_eq!(gather(500_000.0, 8972, large), 400);
        // The buffers of somebody who may not raise them.
        let small = 425_984;
        assert_eq!(gather(100_000.0, 64, small), 639);
        assert_eq!(gather(6e6, 64, small), 100);
        assert_eq!(gather(f64::MAX, 64, small), 100);
    }

    #[test]
    fn a_window_is_no_wider_than_the_session() {
        let config = config(Departures::Flood, Burst::Auto);
        assert_eq!(window(&config, Trains::NONE, 1), 1_001_024);
        assert_eq!(window(&config, Trains::NONE, 8), MAX_SINGLES / 8 + 1024);
    }
}
