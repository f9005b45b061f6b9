//! A lane: a session with a sending and a receiving thread of its own, from its open sockets to what it did.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

use super::assemble::Terms;
use super::cores::Pair;
use super::flight::Flight;
use super::hint::End;
use super::intervals::{Begun, Counts};
use super::live::{self, Intervals, Recorder, Update};
use super::receiver::{self, Belief, Received};
use super::run::{Failure, Stop, join, spawn, start};
use super::schedule::Schedule;
use super::sender::{self, Sent};
use super::sockets::socket_plan;
use super::tuning::{
    FEW_BLOCKS, GATHER_RATE, STAMP_OCTETS, Trains, gather_ns, is_frugal, padding, window,
};

use crate::config::{Departures, IoKind, SessionConfig};
use crate::io::{BATCH, Granted, ReceiveHalf, SendHalf, SocketPlan, StampKind};
use crate::os;
use crate::report::Security;
use crate::sample::{BLOCKS, Blocks, Pipe, Sample, pipe_of};
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
    pub(super) share: SessionConfig,
    pub(super) trains: Trains,
    pub(super) granted: Granted,
    pub(super) peer: Peer,
    /// What the batch of the sender is filled with.
    pub(super) padding: Vec<u8>,
    pub(super) send: S,
    pub(super) receive: R,
}

impl<S, R> Lane<S, R> {
    /// With what starts its halves, on their threads.
    pub(super) fn starting<T, U>(
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
pub(super) struct Running {
    pub(super) share: SessionConfig,
    pub(super) granted: Granted,
    pub(super) terms: Terms,
    pub(super) flight: Arc<Flight>,
    pub(super) live: Arc<receiver::Live>,
    pub(super) sender: JoinHandle<io::Result<Sent>>,
    pub(super) receiver: JoinHandle<io::Result<Received>>,
    pub(super) delays: JoinHandle<Delays>,
    pub(super) ready: Receiver<()>,
    pub(super) begin: Sender<i64>,
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
    pub(super) fn finish(self) -> Result<Done, Failure> {
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
pub(super) struct Common<'a> {
    pub(super) config: &'a SessionConfig,
    pub(super) lanes: usize,
    pub(super) begun: Begun,
    pub(super) stop: &'a Stop,
    pub(super) updates: Sender<Update>,
    /// Where they are watched.
    pub(super) intervals: Option<Arc<Mutex<Intervals>>>,
    /// Hung up when all receivers have ended.
    pub(super) done: Sender<()>,
    /// No samples yet.
    pub(super) delays: Delays,
    /// CPUs of the senders: where other threads ran, packets would leave late.
    pub(super) punctual: Vec<usize>,
}

impl<S, R, T, U> Lane<T, U>
where
    S: SendHalf,
    R: ReceiveHalf,
    T: FnOnce() -> S + Send + 'static,
    U: FnOnce() -> R + Send + 'static,
{
    /// Starts the threads; the sender waits for the word to begin. With the happenings of the session, where
    /// these are watched.
    pub(super) fn start(
        self,
        common: &Common<'_>,
        index: u64,
        pair: Pair,
    ) -> Result<(Running, Option<Blocks<live::Record>>), Failure> {
        let smallest = self.payloads().into_iter().min();
        assert!(
            smallest.is_none_or(|payload| payload >= self.peer.format.padding_at()),
            "packets have room for the fields of their format"
        );
        self.tell(pair);
        let flight = Arc::new(self.flight(common.lanes));
        let live = Arc::new(receiver::Live::default());
        let room = if is_frugal(&self.share, common.lanes) {
            FEW_BLOCKS
        } else {
            BLOCKS
        };
        let (samples, blocks) = pipe_of(room);
        let delays = common.start_stats(index, blocks)?;
        let (records, watched) = self.share.watch.happenings.then(|| pipe_of(room)).unzip();
        let pipes = (
            samples,
            self.tap(common, records),
            self.copier(common, true),
        );
        let copier = self.copier(common, false);
        let (ready_in, ready) = bounded(1);
        let (begin, begin_out) = bounded(1);
        let told = sender::Start {
            ready: ready_in,
            at: begin_out,
            offset_ns: self.offset_ns(common.config.departures, index),
        };
        let receiver_plan = self.receiver_plan(common.stop, pair);
        let sender_plan = self.sender_plan(index, pair, told);
        let (wish_in, wish_out) = bounded(BATCH);

        let (receiver, waker) = {
            let (flight, live) = (Arc::clone(&flight), Arc::clone(&live));
            let start_receiving = self.receive;
            common.start_receiver(move |ready| {
                let mut half = start_receiving();
                let plan = &receiver_plan;
                let ready = |waker| ready(waker);
                receiver::run(&mut half, plan, &flight, &live, pipes, ready, &wish_in)
            })?
        };
        let sender = {
            let (flight, stop) = (Arc::clone(&flight), common.stop.clone());
            let start_sending = self.send;
            spawn("sender", move || {
                let mut half = start_sending();
                let mut woken = None;
                let ready = |waker| woken = Some(stop.wakes(waker));
                let wishes = (&wish_out, copier);
                let plan = sender_plan;
                sender::run(&mut half, plan, &flight, stop.flag(), ready, &waker, wishes)
            })?
        };
        let running = Running {
            share: self.share,
            granted: self.granted,
            terms: self.peer.terms,
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
}

impl<S, R> Lane<S, R> {
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
        let grace_ns = self.share.grace_ns.unwrap_or(0);
        let flight = Flight::new(window(&self.share, self.trains, lanes), shift)
            .with_grace(i64::try_from(grace_ns).unwrap_or(i64::MAX));
        flight.set_burst(self.trains.burst);
        flight
    }

    fn tap(&self, common: &Common<'_>, records: Option<Pipe<live::Record>>) -> Option<live::Tap> {
        let (watch, format) = (self.share.watch, self.share.format);
        watch.any().then(|| {
            let prompt = per_second(&self.share) < GATHER_RATE;
            live::tap(
                watch,
                self.timeout_ns(),
                format,
                prompt,
                common.begun,
                records,
            )
        })
    }

    /// Of packets that come, or of those that leave.
    fn copier(&self, common: &Common<'_>, came: bool) -> Option<live::Copier> {
        let watched = self.share.watch.packets;
        watched.then(|| live::Copier::new(common.updates.clone(), came))
    }

    /// How long after the first lane this one begins: the packets or trains of all leave in turn.
    fn offset_ns(&self, all: Departures, index: u64) -> i64 {
        match all {
            Departures::Periodic(all) => {
                let count = self.share.end.count.unwrap_or(u64::MAX);
                let train = u64::from(self.trains.burst).min(count);
                i64::try_from(all.due_ns(index * train)).unwrap_or(0)
            }
            // Random gaps keep them apart.
            _ => 0,
        }
    }

    fn receiver_plan(&self, stop: &Stop, pair: Pair) -> receiver::Plan {
        let (share, granted) = (&self.share, &self.granted);
        receiver::Plan {
            timeout_ns: self.timeout_ns(),
            loss_bound: share.loss_bound,
            probes: share.probes,
            stop: stop.clone(),
            first_seq: share.first_seq,
            format: share.format,
            test: self.peer.format,
            protection: self.peer.protection.clone(),
            payloads: self.payloads(),
            stamps: granted.transmit.is_some(),
            hardware: granted.receive == StampKind::Hardware,
            interval_ns: self.gap_ns().saturating_mul(i64::from(self.trains.burst)),
            errors_queued: granted.icmp
                && share.socket.io == IoKind::Batched
                && cfg!(target_os = "linux"),
            gather_ns: match granted.receive {
                StampKind::Userspace => 0,
                _ => gather_ns(per_second(share), &share.sizes, granted.receive_buffer),
            },
            cpu: pair.receiver,
            realtime: share.realtime,
        }
    }

    fn sender_plan(&self, index: u64, pair: Pair, start: sender::Start) -> sender::Plan {
        let (share, granted) = (&self.share, &self.granted);
        let classes = &share.sizes.classes;
        let burst = self.trains.burst;
        let departures = Schedule::new(share.departures, share.end, classes, share.seed, burst);
        sender::Plan {
            schedule: match index {
                0 => departures,
                _ => departures.beside_another(),
            },
            payloads: self.payloads(),
            test: self.peer.format,
            protection: self.peer.protection.clone(),
            padding: self.padding.clone(),
            timeout_ns: self.timeout_ns(),
            most_burst: self.trains.most,
            first_seq: share.first_seq,
            count: share.end.count,
            mean_gap_ns: self.gap_ns(),
            format: share.format,
            pacing: share.pacing,
            may_spin: pair.apart,
            stamps_kept: match (granted.transmit, granted.receive_buffer) {
                (Some(_), Some(octets)) => u64::try_from(octets / STAMP_OCTETS).unwrap_or(u64::MAX),
                _ => 0,
            },
            cpu: pair.sender,
            realtime: share.realtime,
            start,
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
        index: u64,
        blocks: Blocks<Sample, Counts>,
    ) -> Result<JoinHandle<Delays>, Failure> {
        let thread = usize::try_from(index).unwrap_or(0);
        let intervals = self.intervals.as_ref();
        let intervals = intervals.map(|all| (thread, Arc::clone(all)));
        let mut recorder = Recorder::new(self.delays.alike(), intervals);
        let off = self.punctual.clone();
        spawn("stats", move || {
            os::keep_off(&off);
            blocks.each(|block, mark| recorder.record(block, mark));
            recorder.finish()
        })
    }

    /// Starts a receiver, which `run` is to tell a waker of; returns it with that.
    fn start_receiver(
        &self,
        run: impl FnOnce(&mut dyn FnMut(Arc<Waker>)) -> io::Result<Received> + Send + 'static,
    ) -> Result<(JoinHandle<io::Result<Received>>, Arc<Waker>), Failure> {
        let (waker_in, waker_out) = bounded(1);
        let (done, stop) = (self.done.clone(), self.stop.clone());
        let receiver = spawn("receiver", move || {
            // There is room for the one waker, and whoever waits for it is still there.
            let mut ready = |waker: Arc<Waker>| drop(waker_in.send(stop.wakes(waker)));
            let result = run(&mut ready);
            drop(done);
            result
        })?;
        if let Ok(waker) = waker_out.recv() {
            return Ok((receiver, waker));
        }
        let result = join("receiver", receiver)?;
        Err(result.map_or_else(
            |source| start("receiver", source),
            |_| Failure::Bug { thread: "receiver" },
        ))
    }
}
