//! A session: opens its sockets, starts its threads, waits for them, and has the report put together.
//!
//! The load is shared by pairs of a sending and a receiving thread (lanes), each with sockets, a source
//! port, packets under way and statistics of its own. Nothing is shared on the packet path, and what
//! they measured is merged when they are done. A lane may also be a session of its own, on which
//! somebody agrees with a Server between [`open`] and [`Opened::measure`].

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, bounded, never, select, tick};

use super::assemble::{self, Differs, Parts, Terms};
use super::cores::{self, Pair};
use super::intervals::{Begun, Clocks};
use super::lane::{Agreed, Common, Done, Lane, OpenLane, Peer, Run, Running};
use super::live::{self, Intervals, Progress, Update};
use super::receiver::Received;
use super::reflecting::Reflecting;
use super::reflector::Reflected;
use super::run::{Failure, PROGRESS, Stop, join, spawn};
use super::sender::{self, Sent};
use super::tuning::{FEW_PLACES, MANY, TRAINS, is_frugal};

use crate::config::{Departures, IoKind, SessionConfig};
#[cfg(target_os = "linux")]
use crate::io::linux;
use crate::io::{
    BATCH, NextHop, ReceiveHalf, SendHalf, StampKind, is_local, portable, resolve_next_hop,
};
use crate::os;
use crate::report::{Ignored, Report, Scope};
use crate::stats::delay::Delays;

/// Most descriptors of a lane: two sockets, and of each thread an event loop and what wakes it; and of
/// everything else.
const LANE_FILES: u64 = 8;
const BESIDE: u64 = 64;

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
                    let places = match lane.setup.trains.burst {
                        1 if is_frugal(&lane.setup.share, all) => FEW_PLACES,
                        1 => BATCH,
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

/// Starts the threads, waits for them, and reports.
fn run<S: SendHalf + Send + 'static, R: ReceiveHalf + Send + 'static>(
    config: &SessionConfig,
    mut lanes: Vec<Lane<impl FnOnce() -> S + Send + 'static, impl FnOnce() -> R + Send + 'static>>,
    reflector: Option<Reflecting>,
    stop: &Stop,
    watch: impl FnMut(Update),
) -> Result<Measured, Failure> {
    log::debug!("{}", config.command().arguments().join(" "));
    resolve_next_hops(&mut lanes, stop);
    let pairs = pairs(config, lanes.len(), reflector.as_ref());
    let receive = lanes.first().map(|lane| lane.setup.granted.receive);
    // The interface's clock and this system's are no one clock.
    let stamps_only = receive == Some(StampKind::Hardware);
    let (updates_in, updates) = live::updates();
    let (done_in, done) = bounded(lanes.len());
    let run = Run {
        config,
        lanes: lanes.len(),
        stop,
        done: done_in,
    };
    let begun = Begun {
        at_ns: os::monotonic_ns(),
        wall_ns: os::realtime_ns(),
    };
    let frugal = lanes.iter().all(|l| is_frugal(&l.setup.share, lanes.len()));
    let tables = if frugal { Delays::frugal } else { Delays::new };
    let delays = tables(config.sizes.classes.len(), stamps_only);
    let here = |lane: &Lane<_, _>| is_local(lane.setup.share.remote.ip());
    let clocks = Clocks {
        one: !stamps_only && lanes.iter().all(here),
        ours_synchronised: os::clock_quality().is_some_and(|(synchronised, _)| synchronised),
    };
    let intervals = (config.watch.interval_ns)
        .map(|_| Intervals::new(lanes.len(), &delays, clocks, begun, updates_in.clone()));
    let common = Common {
        run: &run,
        begun,
        updates: updates_in,
        intervals,
        delays,
        punctual: pairs.iter().filter_map(|pair| pair.sender).collect(),
    };

    let mut running = Vec::new();
    let mut watched = Vec::new();
    for (index, (lane, pair)) in (0..).zip(lanes.into_iter().zip(pairs)) {
        let (lane, tapped) = lane.start(&common, index, pair)?;
        running.push(lane);
        watched.extend(tapped);
    }
    let live_thread = if watched.is_empty() {
        None
    } else {
        let (first_seq, updates) = (config.first_seq, common.updates.clone());
        let punctual = common.punctual.clone();
        let live = move || {
            os::keep_off(&punctual);
            live::run(watched, first_seq, stamps_only, clocks, updates);
        };
        Some(spawn("live", live)?)
    };
    // The threads have what they need of it; who waits for them must have nothing of it.
    drop(common);

    begin(&mut running);
    let running = wait(&run, running, &updates, &done, watch)?;
    if let Some(thread) = live_thread {
        join("live", thread)?;
    }
    let done: Result<Vec<Done>, Failure> = running.into_iter().map(Running::finish).collect();
    let mut done = done?;
    for lane in &mut done {
        if is_local(lane.share.remote.ip()) && !stamps_only {
            lane.delays.know_one_host();
        }
    }
    let reflected = reflector.map(Reflecting::finish).transpose()?;
    Ok(measured(config, &done, reflected.as_ref()))
}

/// CPUs for each lane.
fn pairs(config: &SessionConfig, lanes: usize, reflector: Option<&Reflecting>) -> Vec<Pair> {
    let interface = config.socket.interface.as_deref();
    let mut pairs = cores::pairs(config.cpus.as_ref(), lanes, config.local.ip(), interface);
    let reflecting = reflector.map_or(&[] as &[usize], Reflecting::cpus);
    for pair in &mut pairs {
        pair.apart &= pair.sender.is_none_or(|cpu| !reflecting.contains(&cpu));
    }
    pairs
}

/// Gives the word to begin, once all are ready; where one failed, to none.
fn begin<S, R>(running: &mut [Running<S, R>])
where
    S: SendHalf + Send + 'static,
    R: ReceiveHalf + Send + 'static,
{
    if running.iter().all(Running::is_ready) {
        let begin = os::monotonic_ns() + sender::LEAD_NS;
        running.iter().for_each(|lane| lane.begin(begin));
    } else {
        // Hung up on, the others send nothing; why one failed is found when they are waited for.
        running.iter_mut().for_each(Running::call_off);
    }
}

/// Hands updates on until all receivers have ended. Where a peer was not there yet its lane begins again.
fn wait<S, R>(
    run: &Run<'_>,
    mut running: Vec<Running<S, R>>,
    updates: &Receiver<Update>,
    done: &Receiver<usize>,
    mut watch: impl FnMut(Update),
) -> Result<Vec<Running<S, R>>, Failure>
where
    S: SendHalf + Send + 'static,
    R: ReceiveHalf + Send + 'static,
{
    let again = tick(PROGRESS);
    let nothing = never();
    let mut updates = updates;
    let mut over = 0;
    while over < running.len() {
        select! {
            recv(updates) -> update => match update {
                Ok(update) => watch(update),
                // Nothing more to tell, or nothing was to be told at all.
                Err(_) => updates = &nothing,
            },
            recv(done) -> index => match index {
                Ok(index) if running[index].is_absent() => {
                    let lane = running.remove(index).again(run)?;
                    running.insert(index, lane);
                }
                _ => over += 1,
            },
            recv(again) -> _ => watch(progress(&running)),
        }
    }
    // What the last ones have to tell is under way still; then they hang up, or have done so.
    if !std::ptr::eq(updates, &raw const nothing) {
        updates.iter().for_each(watch);
    }
    Ok(running)
}

fn progress<S, R>(running: &[Running<S, R>]) -> Update
where
    S: SendHalf + Send + 'static,
    R: ReceiveHalf + Send + 'static,
{
    let received = running
        .iter()
        .map(|lane| lane.live.received.load(Ordering::Relaxed));
    let mut ignored = Ignored::default();
    for lane in running {
        ignored.add(&lane.live.ignored.read());
    }
    Update::Progress(Progress {
        sent: running.iter().map(Running::departed).sum(),
        received: received.sum(),
        ignored,
    })
}

/// What a reflector in this process did, and who stamped its arrivals.
type InProcess = (Reflected, Option<StampKind>);

/// The reports of all lanes, and of each where there are several.
fn measured(config: &SessionConfig, done: &[Done], reflected: Option<&InProcess>) -> Measured {
    let parts = |lane: &Done, scope, whole| -> Report {
        assemble::report(&Parts {
            scope,
            whole,
            ..parts(lane, reflected)
        })
    };
    if let [one] = done {
        return Measured {
            report: parts(one, Scope::Session, true),
            parts: Vec::new(),
        };
    }
    let silent = |lane: &&Done| lane.sent.sent > 0 && lane.received.counts.received == 0;
    let silent: Vec<u16> = done.iter().filter(silent).map(Done::port).collect();
    let ports: Vec<u16> = done.iter().map(Done::port).collect();
    let part = match done[0].terms {
        Terms::Light => Scope::Thread,
        Terms::Agreed { .. } => Scope::Session,
    };
    let together = combined(config, done);
    Measured {
        report: assemble::report(&Parts {
            scope: Scope::Combined,
            differs: differs(done),
            ports: &ports,
            silent: &silent,
            never_left: done.iter().map(Done::never_left).sum(),
            ..self::parts(&together, reflected)
        }),
        parts: done.iter().map(|lane| parts(lane, part, false)).collect(),
    }
}

/// What the report of a lane, or of all together, is put together of.
fn parts<'a>(lane: &'a Done, reflected: Option<&'a InProcess>) -> Parts<'a> {
    Parts {
        scope: Scope::Session,
        config: &lane.share,
        granted: &lane.granted,
        terms: lane.terms,
        whole: true,
        differs: Differs::default(),
        ports: &[],
        silent: &[],
        never_left: lane.never_left(),
        window: lane.window,
        sent: &lane.sent,
        received: &lane.received,
        delays: &lane.delays,
        reflected,
    }
}

/// Has the next hop of each lane resolved: until it is, this host keeps some packets for it and drops the
/// others.
fn resolve_next_hops<S, R>(lanes: &mut [Lane<S, R>], stop: &Stop) {
    let mut known: Vec<(IpAddr, Option<NextHop>)> = Vec::new();
    for lane in lanes {
        let host = lane.setup.share.remote.ip();
        let before = known.iter().find(|(known, _)| *known == host);
        lane.setup.granted.next_hop = before.map_or_else(
            || {
                let interface = lane.setup.share.socket.interface.as_deref();
                let local = lane.setup.granted.local.ip();
                resolve_next_hop(lane.setup.share.remote, local, interface, || {
                    stop.requested()
                })
            },
            |(_, hop)| *hop,
        );
        known.push((host, lane.setup.granted.next_hop));
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

/// What all lanes did.
fn combined(config: &SessionConfig, lanes: &[Done]) -> Done {
    let mut granted = lanes[0].granted.clone();
    let mut delays = lanes[0].delays.alike();
    for lane in lanes {
        delays.merge(&lane.delays);
        let more = lane.granted.remarks.iter();
        let more: Vec<_> = more
            .filter(|r| !granted.remarks.contains(r))
            .cloned()
            .collect();
        granted.remarks.extend(more);
    }
    let each = lanes.iter().map(|lane| (lane.sent.sent, &lane.received));
    Done {
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
    }
}
