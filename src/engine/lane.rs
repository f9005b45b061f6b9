//! A lane: a session with a sending and a receiving thread of its own, from its open sockets to what it did.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

use super::assemble::Terms;
use super::cores::Pair;
use super::flight::{Flight, Grace};
use super::hint::End;
use super::intervals::{Begun, Counts};
use super::live::{self, Intervals, Recorder, Update};
use super::receiver::{self, Attempt, Belief, Buffers, Pipes, Received, Tap};
use super::run::{Failure, Stop, join, spawn, start};
use super::schedule::Schedule;
use super::sender::{self, Sent};
use super::sockets::socket_plan;
use super::tuning::{
    FEW_BLOCKS, GATHER_RATE, STAMP_OCTETS, Trains, USUAL_BUFFER, gather_ns, is_frugal, padding,
    window,
};

use crate::config::{Departures, IoKind, SessionConfig};
use crate::io::{BATCH, Granted, ReceiveHalf, SendHalf, SocketPlan, StampKind};
use crate::os;
use crate::report::Security;
use crate::sample::{BLOCKS, Blocks, Sample, pipe_of};
use crate::stats::delay::Delays;
use crate::wire::protected::{Protection, TestKeys};
use crate::wire::{Sid, TestFormat};

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

/// A lane towards nobody yet.
#[derive(Debug)]
pub(super) struct OpenLane<S> {
    pub(super) share: SessionConfig,
    pub(super) trains: Trains,
    pub(super) sockets: S,
}

impl<S> OpenLane<S> {
    pub(super) fn open(
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
    pub(super) fn connect<T, R>(
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
            setup: Setup {
                padding: padding(&share, self.trains.most),
                share,
                trains: self.trains,
                granted,
                peer,
            },
            send,
            receive,
        })
    }
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
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) format: TestFormat,
    pub(super) protection: Option<Protection>,
    pub(super) terms: Terms,
}

impl Peer {
    pub(super) fn light(remote: SocketAddr) -> Self {
        Self {
            remote,
            format: TestFormat::LIGHT,
            protection: None,
            terms: Terms::Light,
        }
    }

    pub(super) fn agreed(agreed: Agreed) -> Self {
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
pub(super) struct Lane<S, R> {
    pub(super) setup: Setup,
    pub(super) send: S,
    pub(super) receive: R,
}

/// A share of the load, towards its peer.
pub(super) struct Setup {
    pub(super) share: SessionConfig,
    pub(super) trains: Trains,
    pub(super) granted: Granted,
    peer: Peer,
    /// What the batch of the sender is filled with.
    padding: Vec<u8>,
}

impl<S, R> Lane<S, R> {
    /// With what starts its halves, on their threads.
    pub(super) fn starting<T, U>(
        self,
        send: impl FnOnce(S, &[u8]) -> T,
        receive: impl FnOnce(R) -> U,
    ) -> Lane<impl FnOnce() -> T, impl FnOnce() -> U> {
        let (tx, rx) = (self.send, self.receive);
        let pristine = self.setup.padding.clone();
        Lane {
            setup: self.setup,
            send: move || send(tx, &pristine),
            receive: move || receive(rx),
        }
    }
}

/// A lane whose threads run.
pub(super) struct Running<S, R> {
    setup: Setup,
    place: Place,
    pub(super) live: Arc<receiver::Live>,
    delays: JoinHandle<Delays>,
    /// Attempts that ended since the peer was not there yet.
    given_up: u64,
    going: Going<S, R>,
}

/// A lane whose threads run, and the happenings of its session where these are watched.
type Started<S, R> = (Running<S, R>, Option<Blocks<live::Record>>);

/// An attempt: its packet threads, which give back their halves.
struct Going<S, R> {
    flight: Arc<Flight>,
    sender: JoinHandle<(S, Option<live::Copier>, io::Result<Sent>)>,
    receiver: JoinHandle<(R, io::Result<Attempt>)>,
    ready: Receiver<()>,
    begin: Sender<i64>,
}

/// Which of the lanes it is, and where it runs.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    pair: Pair,
}

/// What an attempt has of those before.
#[derive(Clone, Copy)]
struct Before {
    grace: Grace,
    /// When the first one began, since the Unix epoch.
    begun_ns: Option<i64>,
}

/// What a lane did.
pub(super) struct Done {
    pub(super) share: SessionConfig,
    pub(super) granted: Granted,
    pub(super) terms: Terms,
    pub(super) window: u64,
    pub(super) sent: Sent,
    pub(super) received: Received,
    pub(super) delays: Delays,
}

impl Done {
    pub(super) fn port(&self) -> u16 {
        self.granted.local.port()
    }

    /// Packets that this system took and that never left it, as those that wait for a neighbour, or for a link
    /// that is down: they were not answered and have no transmit stamp of the kernel, while all that were
    /// answered have theirs. 0 where not each packet or train of one length asked for one, and where none was
    /// answered: then nothing shows that stamps come.
    pub(super) fn never_left(&self) -> u64 {
        let (sent, received) = (&self.sent, &self.received);
        let facts = &received.facts;
        // As many packets with each stamp.
        let train = u64::from(sent.times.longest_burst.max(1));
        let known = sent.stamps.count == sent.sent.div_ceil(train)
            && self.granted.transmit == Some(StampKind::Kernel)
            && received.counts.received > 0
            && facts.stamps.lost == 0
            && !received.cut_short
            && received.failure.is_none();
        let without = sent.stamps.count.saturating_sub(facts.stamps.back);
        let without = without.saturating_mul(train);
        let unanswered = sent.sent.saturating_sub(received.counts.received);
        if known { without.min(unanswered) } else { 0 }
    }
}

impl<S: SendHalf + Send + 'static, R: ReceiveHalf + Send + 'static> Running<S, R> {
    pub(super) fn departed(&self) -> u64 {
        self.going.flight.departed()
    }

    /// Whether the attempt is set up; waits for that.
    pub(super) fn is_ready(&self) -> bool {
        self.going.ready.recv().is_ok()
    }

    /// Gives the word to begin, at this moment of the monotonic clock.
    pub(super) fn begin(&self, at_ns: i64) {
        // One that has gone tells why when it is waited for.
        let _ = self.going.begin.send(at_ns);
    }

    /// Nothing is to be sent: another lane failed.
    pub(super) fn call_off(&mut self) {
        let going = &mut self.going;
        going.begin = bounded(0).0;
        if going.flight.finished().is_none() && going.sender.is_finished() {
            // It is too late for its receiver to hear of it otherwise.
            going.flight.sender().finish(0, os::monotonic_ns());
        }
    }

    /// Whether the attempt ended since the peer was not there yet.
    pub(super) fn is_absent(&self) -> bool {
        self.going.flight.is_absent()
    }

    /// Begins another attempt, on the same sockets.
    pub(super) fn again(self, run: &Run<'_>) -> Result<Self, Failure> {
        let (receive, attempt) = join("receiver", self.going.receiver)?;
        let (send, copier, sent) = join("sender", self.going.sender)?;
        sent.map_err(|source| start("sender", source))?;
        let attempt = attempt.map_err(|source| start("receiver", source))?;
        let Attempt::Absent(absent) = attempt else {
            return Err(Failure::Bug { thread: "receiver" });
        };
        let grace = self.going.flight.grace();
        let before = Before {
            grace: if absent.last { Grace::default() } else { grace },
            begun_ns: Some(absent.begun_ns),
        };
        let halves = (move || send, move || receive);
        let ends = (absent.pipes, Arc::clone(&self.live), copier);
        let going = self.setup.go(run, self.place, before, halves, ends)?;
        let again = Self {
            given_up: self.given_up + 1,
            going,
            ..self
        };
        if again.is_ready() {
            again.begin(os::monotonic_ns() + AGAIN_NS);
        }
        Ok(again)
    }

    pub(super) fn finish(self) -> Result<Done, Failure> {
        let (_, received) = join("receiver", self.going.receiver)?;
        let (_, _, sent) = join("sender", self.going.sender)?;
        let mut sent = sent.map_err(|source| start("sender", source))?;
        let received = received.map_err(|source| start("receiver", source))?;
        let Attempt::Over(mut received) = received else {
            return Err(Failure::Bug { thread: "receiver" });
        };
        let mut delays = join("stats", self.delays)?;
        if received.facts.times.belief == Belief::Denied {
            // T2 and T3 are in all of them, and were read wrongly.
            received.facts.times.misread += delays.recorded();
            delays = delays.alike();
        }
        delays.know_own_steps(&received.facts.own_steps);
        sent.left_later(&received.facts.stamps.waits);
        sent.began_anew = self.given_up;
        Ok(Done {
            share: self.setup.share,
            granted: self.setup.granted,
            terms: self.setup.peer.terms,
            window: self.going.flight.window(),
            sent,
            received: *received,
            delays,
        })
    }
}

/// What the attempts of all lanes have in common.
pub(super) struct Run<'a> {
    pub(super) config: &'a SessionConfig,
    pub(super) lanes: usize,
    pub(super) stop: &'a Stop,
    /// Told the index of a lane whose receiver has ended.
    pub(super) done: Sender<usize>,
}

/// What lanes need to begin.
pub(super) struct Common<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) begun: Begun,
    pub(super) updates: Sender<Update>,
    /// Where they are watched.
    pub(super) intervals: Option<Arc<Mutex<Intervals>>>,
    /// No samples yet.
    pub(super) delays: Delays,
    /// CPUs of the senders: where other threads ran, packets would leave late.
    pub(super) punctual: Vec<usize>,
}

impl<S, R, T, U> Lane<T, U>
where
    S: SendHalf + Send + 'static,
    R: ReceiveHalf + Send + 'static,
    T: FnOnce() -> S + Send + 'static,
    U: FnOnce() -> R + Send + 'static,
{
    /// Starts the threads; the sender waits for the word to begin. With the happenings of the session, where
    /// these are watched.
    pub(super) fn start(
        self,
        common: &Common<'_>,
        index: usize,
        pair: Pair,
    ) -> Result<Started<S, R>, Failure> {
        let Self {
            setup,
            send,
            receive,
        } = self;
        let smallest = setup.payloads().into_iter().min();
        assert!(
            smallest.is_none_or(|payload| payload >= setup.peer.format.padding_at()),
            "packets have room for the fields of their format"
        );
        setup.tell(pair);
        let run = common.run;
        let room = if is_frugal(&setup.share, run.lanes) {
            FEW_BLOCKS
        } else {
            BLOCKS
        };
        let (samples, blocks) = pipe_of(room);
        let delays = common.start_stats(index, blocks)?;
        let (records, watched) = setup.share.watch.happenings.then(|| pipe_of(room)).unzip();
        let pipes = Pipes {
            samples,
            happenings: records.map(|pipe| (pipe, setup.tells_little())),
            copier: setup.copier(common, true),
            tap: setup.tap(common.begun),
        };
        let live = Arc::new(receiver::Live::default());
        let ends = (pipes, Arc::clone(&live), setup.copier(common, false));
        let place = Place { index, pair };
        let grace_ns = setup.share.grace_ns.unwrap_or(0);
        let before = Before {
            grace: Grace {
                ns: i64::try_from(grace_ns).unwrap_or(i64::MAX),
                first_ns: 0,
            },
            begun_ns: None,
        };
        let running = Running {
            going: setup.go(run, place, before, (send, receive), ends)?,
            setup,
            place,
            live,
            delays,
            given_up: 0,
        };
        Ok((running, watched))
    }
}

/// Between the end of an attempt and the next one: a server that has just said that it is ready opens its port
/// within that time, and what is still under way comes back.
const AGAIN_NS: i64 = 50_000_000;

impl Setup {
    /// Starts the threads of an attempt; the sender waits for the word to begin.
    fn go<S: SendHalf + Send + 'static, R: ReceiveHalf + Send + 'static>(
        &self,
        run: &Run<'_>,
        place: Place,
        before: Before,
        (send, receive): (
            impl FnOnce() -> S + Send + 'static,
            impl FnOnce() -> R + Send + 'static,
        ),
        (pipes, live, mut copier): (Pipes, Arc<receiver::Live>, Option<live::Copier>),
    ) -> Result<Going<S, R>, Failure> {
        let flight = Arc::new(self.flight(run.lanes).with_grace(before.grace));
        let (ready_in, ready) = bounded(1);
        let (begin, begin_out) = bounded(1);
        let start = sender::Start {
            ready: ready_in,
            at: begin_out,
            offset_ns: match before.begun_ns {
                None => self.offset_ns(run.config.departures, place.index),
                Some(_) => 0,
            },
        };
        let receiver_plan = self.receiver_plan(run.stop, place.pair, (&flight, before.begun_ns));
        let sender_plan = self.sender_plan(place, before.begun_ns.is_some());
        let (wish_in, wish_out) = bounded(BATCH);

        let (receiver, waker) = {
            let flight = Arc::clone(&flight);
            run.start_receiver(place.index, move |ready| {
                let mut half = receive();
                let links = receiver::Links {
                    live: &live,
                    pipes,
                    wishes: &wish_in,
                };
                let (plan, flight) = (&receiver_plan, flight.receiver());
                let result = receiver::run(&mut half, plan, flight, links, ready);
                (half, result)
            })?
        };
        let sender = {
            let (flight, stop) = (Arc::clone(&flight), run.stop.clone());
            spawn("sender", move || {
                let mut half = send();
                let mut woken = None;
                let ready = |waker| woken = Some(stop.wakes(waker));
                let links = sender::Links {
                    start,
                    stop: stop.flag(),
                    receiver: &waker,
                    wishes: &wish_out,
                    copier: &mut copier,
                };
                let flight_end = flight.sender();
                let result = sender::run(&mut half, sender_plan, flight_end, links, ready);
                // Else it has told all, and whoever watches is to know.
                (half, copier.filter(|_| flight.is_absent()), result)
            })?
        };
        Ok(Going {
            flight,
            sender,
            receiver,
            ready,
            begin,
        })
    }

    fn tell(&self, pair: Pair) {
        let granted = &self.granted;
        let buffer = granted.receive_buffer;
        let on = |cpu: Option<usize>| cpu.map_or("any CPU".to_owned(), |cpu| format!("CPU {cpu}"));
        log::info!("measuring from {} to {}", granted.local, self.share.remote);
        log::info!(
            "receive buffer {}, T4 by {}, T1 by {}, sender on {}, receiver on {}",
            buffer.map_or("not known".to_owned(), |octets| format!("{octets} bytes")),
            granted.receive,
            granted.transmit.unwrap_or(StampKind::Userspace),
            on(pair.sender),
            on(pair.receiver),
        );
    }

    fn payloads(&self) -> Vec<usize> {
        self.share.sizes.classes.iter().map(|c| c.payload).collect()
    }

    fn timeout_ns(&self) -> i64 {
        i64::try_from(self.share.timeout_ns).unwrap_or(i64::MAX)
    }

    /// From one packet to the next, on the average; 0: as fast as can be.
    fn gap_ns(&self) -> i64 {
        let rate = self.share.departures.rate();
        rate.map_or(0, |rate| i64::try_from(rate.due_ns(1)).unwrap_or(i64::MAX))
    }

    fn flight(&self, lanes: usize) -> Flight {
        let shift = self.trains.shift;
        let flight = Flight::new(window(&self.share, self.trains, lanes), shift);
        flight.sender().set_burst(self.trains.burst);
        flight
    }

    fn tap(&self, begun: Begun) -> Option<Tap> {
        let (watch, format) = (self.share.watch, self.share.format);
        let tap = || Tap::new(watch, self.timeout_ns(), format, begun);
        watch.any().then(tap)
    }

    /// Whether there are so few happenings that each is told at once.
    fn tells_little(&self) -> bool {
        per_second(&self.share) < GATHER_RATE
    }

    /// Of packets that come, or of those that leave.
    fn copier(&self, common: &Common<'_>, came: bool) -> Option<live::Copier> {
        let watched = self.share.watch.packets;
        watched.then(|| live::Copier::new(common.updates.clone(), came))
    }

    /// How long after the first lane this one begins: the packets or trains of all leave in turn.
    fn offset_ns(&self, all: Departures, index: usize) -> i64 {
        match all {
            Departures::Periodic(all) => {
                let count = self.share.end.count.unwrap_or(u64::MAX);
                let train = u64::from(self.trains.burst).min(count);
                let index = u64::try_from(index).unwrap_or(0);
                i64::try_from(all.due_ns(index * train)).unwrap_or(0)
            }
            // Random gaps keep them apart.
            _ => 0,
        }
    }

    fn receiver_plan(
        &self,
        stop: &Stop,
        pair: Pair,
        (flight, first_begun_ns): (&Flight, Option<i64>),
    ) -> receiver::ThreadPlan {
        let (share, granted) = (&self.share, &self.granted);
        let stamps = granted.transmit.is_some();
        let session = receiver::Plan {
            timeout_ns: self.timeout_ns(),
            loss_bound: share.loss_bound,
            probes: share.probes,
            first_seq: share.first_seq,
            format: share.format,
            test: self.peer.format,
            protection: self.peer.protection.clone(),
            payloads: self.payloads(),
            stamps,
            hardware: granted.receive == StampKind::Hardware,
            interval_ns: self.gap_ns().saturating_mul(i64::from(self.trains.burst)),
            errors_queued: granted.icmp
                && share.socket.io == IoKind::Batched
                && cfg!(target_os = "linux"),
            first_begun_ns,
            buffers: Buffers::of_window(flight.window(), stamps),
        };
        receiver::ThreadPlan {
            session,
            stop: stop.clone(),
            gather_ns: match granted.receive {
                StampKind::Userspace => 0,
                _ => gather_ns(per_second(share), &share.sizes, granted.receive_buffer),
            },
            cpu: pair.receiver,
            realtime: share.realtime,
        }
    }

    fn sender_plan(&self, place: Place, again: bool) -> sender::ThreadPlan {
        let (share, granted) = (&self.share, &self.granted);
        let classes = &share.sizes.classes;
        let burst = self.trains.burst;
        let departures = Schedule::new(share.departures, share.end, classes, share.seed, burst);
        let session = sender::Plan {
            schedule: match place.index {
                0 => departures,
                _ => departures.beside_another(),
            },
            looks: sender::Looks {
                payloads: self.payloads(),
                test: self.peer.format,
                protection: self.peer.protection.clone(),
                first_seq: share.first_seq,
                format: share.format,
            },
            timeout_ns: self.timeout_ns(),
            most_burst: self.trains.most,
            mean_gap_ns: self.gap_ns(),
            count: share.end.count,
            stamps_kept: granted.transmit.map_or(0, |_| {
                let octets = granted.receive_buffer.unwrap_or(USUAL_BUFFER);
                u64::try_from(octets / STAMP_OCTETS).unwrap_or(u64::MAX)
            }),
        };
        sender::ThreadPlan {
            session,
            padding: self.padding.clone(),
            again,
            pacing: share.pacing,
            may_spin: place.pair.apart,
            cpu: place.pair.sender,
            realtime: share.realtime,
        }
    }
}

fn per_second(share: &SessionConfig) -> f64 {
    let rate = share.departures.rate();
    rate.map_or(f64::MAX, crate::config::Rate::per_second)
}

impl Common<'_> {
    fn start_stats(
        &self,
        index: usize,
        blocks: Blocks<Sample, Counts>,
    ) -> Result<JoinHandle<Delays>, Failure> {
        let intervals = self.intervals.as_ref();
        let intervals = intervals.map(|all| (index, Arc::clone(all)));
        let mut recorder = Recorder::new(self.delays.alike(), intervals);
        let off = self.punctual.clone();
        spawn("stats", move || {
            os::keep_off(&off);
            blocks.each(|block, mark| recorder.record(block, mark));
            recorder.finish()
        })
    }
}

/// A receiver thread, with its half and what it found.
type Receiving<R> = JoinHandle<(R, io::Result<Attempt>)>;

impl Run<'_> {
    /// Starts a receiver, which `run` is to tell a waker of; returns it with that.
    fn start_receiver<R: Send + 'static>(
        &self,
        index: usize,
        run: impl FnOnce(&mut dyn FnMut(Arc<Waker>)) -> (R, io::Result<Attempt>) + Send + 'static,
    ) -> Result<(Receiving<R>, Arc<Waker>), Failure> {
        let (waker_in, waker_out) = bounded(1);
        let stop = self.stop.clone();
        let ended = Ended {
            index,
            done: self.done.clone(),
        };
        let receiver = spawn("receiver", move || {
            let _ended = ended;
            // There is room for the one waker, and whoever waits for it is still there.
            let mut ready = |waker: Arc<Waker>| drop(waker_in.send(stop.wakes(waker)));
            run(&mut ready)
        })?;
        if let Ok(waker) = waker_out.recv() {
            return Ok((receiver, waker));
        }
        let (_, result) = join("receiver", receiver)?;
        Err(result
            .err()
            .map_or(Failure::Bug { thread: "receiver" }, |source| {
                start("receiver", source)
            }))
    }
}

/// Tells that a receiver has ended, also by a bug.
struct Ended {
    index: usize,
    done: Sender<usize>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody waits for it where the session did not come about.
        let _ = self.done.try_send(self.index);
    }
}
