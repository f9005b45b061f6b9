//! The thread that drives one fast session: it has the socket, the clocks and a CPU, waits for what comes, and
//! passes on what is found.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use mio::{Token, Waker};

use super::door::{Now, Out};
use super::facts::Received;
use super::side::{Next, Plan, ReceiverSide};
use super::tap::Tap;
use crate::engine::flight::{ReceiverEnd, Wish};
use crate::engine::intervals::Counts;
use crate::engine::live::{Copier, Record};
use crate::engine::pace::Pace;
use crate::engine::run::Stop;
use crate::engine::tally::Tally;
use crate::io::{Advice, Event, Patience, ReceiveHalf, RefusedCall, failed_call};
use crate::os::{self, EventLoop};
use crate::sample::{Pipe, Sample};
use crate::stats::clock::OwnClock;

/// Started blocks are handed over this often.
const FLUSH_NS: i64 = 50_000_000;
/// Batches taken without a look at anything else.
pub(super) const BUDGET: usize = 16;
/// Batches taken between two looks at what else there is: each look is three calls.
pub(super) const EVENTS_EVERY: usize = 8;
/// After a look that found so much the next one is not put off.
const MANY_EVENTS: usize = 32;

/// What the thread needs to know.
#[derive(Debug)]
pub(crate) struct ThreadPlan {
    pub(crate) session: Plan,
    /// Ends the wait for the last replies.
    pub(crate) stop: Stop,
    /// Let packets gather between two looks: they carry the kernel's timestamps.
    pub(crate) gather_ns: i64,
    pub(crate) cpu: Option<usize>,
    pub(crate) realtime: bool,
}

/// Where what is found goes, and what watches.
pub(crate) struct Pipes {
    pub(crate) samples: Pipe<Sample, Counts>,
    /// Where happenings are wanted; they are handed over at once where there are few.
    pub(crate) happenings: Option<(Pipe<Record>, bool)>,
    pub(crate) copier: Option<Copier>,
    /// Where the session is watched.
    pub(crate) tap: Option<Tap>,
}

/// Whom the thread tells.
pub(crate) struct Links<'a> {
    pub(crate) live: &'a Live,
    pub(crate) pipes: Pipes,
    pub(crate) wishes: &'a Sender<Wish>,
}

/// How an attempt ended.
pub(crate) enum Attempt {
    Over(Box<Received>),
    /// The peer was not there yet, and nothing was answered.
    Absent(Box<Absent>),
}

/// What is left of an attempt that was given up.
pub(crate) struct Absent {
    /// When the first one began, since the Unix epoch.
    pub(crate) begun_ns: i64,
    /// An answer came: the peer is there now.
    pub(crate) last: bool,
    pub(crate) pipes: Pipes,
}

/// Live figures for whoever shows progress.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    pub(crate) received: AtomicU64,
    pub(crate) ignored: Tally,
}

/// The way out of the thread.
pub(crate) struct Outlet<'a> {
    pub(crate) pipes: Pipes,
    pub(crate) wishes: &'a Sender<Wish>,
}

impl Outlet<'_> {
    /// Hands started blocks over.
    pub(crate) fn flush(&mut self) {
        self.pipes.samples.flush();
        if let Some((pipe, _)) = &mut self.pipes.happenings {
            pipe.flush();
        }
    }

    fn flush_prompt(&mut self) {
        if let Some((pipe, true)) = &mut self.pipes.happenings {
            pipe.flush();
        }
    }

    /// Tells the rest, and returns how many samples found no room.
    fn finish(self, last: Option<Counts>) -> u64 {
        if let Some((pipe, _)) = self.pipes.happenings {
            let _ = pipe.finish(None);
        }
        self.pipes.samples.finish(last)
    }
}

impl Out for Outlet<'_> {
    #[inline]
    fn sample(&mut self, sample: Sample) {
        self.pipes.samples.push(sample);
    }

    fn mark(&mut self, counts: Counts) -> bool {
        self.pipes.samples.try_mark(counts)
    }

    fn unrecorded(&self) -> u64 {
        self.pipes.samples.unrecorded()
    }

    fn happened(&mut self, record: Record) {
        if let Some((pipe, _)) = &mut self.pipes.happenings {
            pipe.push(record);
        }
    }

    #[inline]
    fn shows_packets(&self) -> bool {
        self.pipes.copier.is_some()
    }

    fn packet(&mut self, octets: &[u8], len: usize, now: Now) {
        if let Some(copier) = &mut self.pipes.copier {
            copier.copy(octets, len, now.at_ns);
        }
    }

    fn wish(&mut self, probe: Wish) -> bool {
        self.wishes.send(probe).is_ok()
    }
}

/// Takes replies until the session is over, or the peer is found not to be there yet.
///
/// # Errors
/// The system's, from setting up the event loop; `flight` is then left to the sender.
pub(crate) fn run<R: ReceiveHalf>(
    half: &mut R,
    plan: &ThreadPlan,
    flight: ReceiverEnd<'_>,
    links: Links<'_>,
    ready: impl FnOnce(Arc<Waker>),
) -> io::Result<Attempt> {
    let mut events = EventLoop::new()?;
    half.register(events.registry(), Token(0))?;
    let waker = Arc::new(Waker::new(events.registry(), Token(1))?);
    let cpus = plan.cpu.and_then(os::pin);
    os::sharpen_timers();
    if plan.realtime {
        // The sender thread asks for the same and reports a refusal.
        let _ = os::set_realtime();
    }
    // Its memory takes milliseconds to come by: nothing is sent before.
    let mut thread = Thread::new(half, plan, flight, links.pipes, links.wishes);
    ready(waker);
    let mut bundles = false;
    let mut flush_at = thread.now.at_ns + FLUSH_NS;
    let mut pace = Pace::default();
    let mut failure = None;
    loop {
        let (drained, taken) = thread.drain();
        if let Drained::Failed(call) = drained {
            failure = Some(call);
            flight.abandon();
            break;
        }
        let now = thread.now.at_ns;
        if plan.gather_ns > 0 && pace.note(taken, now) {
            thread.half.deregister(events.registry());
            if !pace.looks() && thread.half.register(events.registry(), Token(0)).is_err() {
                pace.go_on_looking();
            }
        }
        if now >= flush_at {
            thread.out.flush();
            flush_at = now + FLUSH_NS;
            if !bundles && flight.burst() > 1 {
                thread.half.take_bundles();
                bundles = true;
            }
        }
        let next = thread.tick(&drained, plan.stop.requests());
        let (side, live) = (&thread.side, links.live);
        live.received.store(side.received(), Ordering::Relaxed);
        live.ignored.show(&side.facts().ignored);
        let until = match next {
            Next::At(until) => until,
            Next::Over => break,
            Next::Absent => {
                flight.set_absent();
                thread.half.deregister(events.registry());
                return Ok(thread.give_up());
            }
        };
        match drained {
            Drained::Idle if !pace.looks() => events.wait_until(until.min(flush_at)),
            Drained::Idle | Drained::Some if plan.gather_ns > 0 => {
                os::sleep_until(now + plan.gather_ns);
            }
            Drained::Again(at) => os::sleep_until(at),
            Drained::Idle | Drained::Some | Drained::More | Drained::Failed(_) => {}
        }
    }
    let sent = flight.finished().map_or(0, |(sent, _)| sent);
    let received = thread.finish(sent, failure);
    Ok(Attempt::Over(Box::new(Received { cpus, ..received })))
}

pub(super) enum Drained {
    Idle,
    Some,
    More,
    /// The call that takes replies failed; it is to be made again at this moment.
    Again(i64),
    /// It fails for good.
    Failed(RefusedCall),
}

impl Drained {
    /// Nothing waits any more.
    fn after(taken: usize) -> Self {
        if taken == 0 { Self::Idle } else { Self::Some }
    }
}

/// A session and what its thread has for it.
pub(super) struct Thread<'a, R> {
    half: &'a mut R,
    side: ReceiverSide<'a>,
    out: Outlet<'a>,
    own_clock: OwnClock,
    /// As of the last look at the clocks.
    now: Now,
    patience: Patience,
}

impl<'a, R: ReceiveHalf> Thread<'a, R> {
    pub(super) fn new(
        half: &'a mut R,
        plan: &ThreadPlan,
        flight: ReceiverEnd<'a>,
        mut pipes: Pipes,
        wishes: &'a Sender<Wish>,
    ) -> Self {
        let now = Now {
            at_ns: os::monotonic_ns(),
            wall_ns: os::realtime_ns(),
        };
        let tap = pipes.tap.take();
        Self {
            half,
            side: ReceiverSide::new(&plan.session, flight, tap, now),
            out: Outlet { pipes, wishes },
            own_clock: OwnClock::default(),
            now,
            patience: Patience::default(),
        }
    }

    /// Looks at the clocks, and notices that the system's was set.
    fn look_at_clocks(&mut self) {
        let (at_ns, wall_ns) = (os::monotonic_ns(), os::realtime_ns());
        self.now = Now { at_ns, wall_ns };
        if let Some(step) = self.own_clock.read(at_ns, wall_ns, os::monotonic_ns()) {
            self.side.on_clock_set(step);
        }
    }

    /// Takes what waits: stamps first, since they are of packets sent before the replies came. Those that
    /// come meanwhile are fetched once it has taken a while. Also says how much it took.
    pub(super) fn drain(&mut self) -> (Drained, usize) {
        let mut total = 0;
        // There is more than one look takes, or a packet was refused.
        let mut look = false;
        for round in 0..BUDGET {
            self.look_at_clocks();
            let now = self.now;
            let mut taken = 0;
            if look || round % EVENTS_EVERY == 0 {
                taken += self.take_events();
                look = taken >= MANY_EVENTS;
                // While more stamps are to be fetched nobody waits in vain.
                let at_ns = if look { i64::MIN } else { now.at_ns };
                self.side.release(at_ns, &mut self.out);
            }
            if self.side.is_absent() {
                return (Drained::after(taken), 0);
            }
            let (side, out) = (&mut self.side, &mut self.out);
            let came = self
                .half
                .recv(|datagram| side.on_datagram(&datagram, now, out));
            side.open_staged(now, out);
            match came {
                Ok(count) => {
                    self.patience.renew();
                    taken += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.patience.renew(),
                Err(error) => match self.patience.after(&error, now.at_ns) {
                    // A pending error of the socket: taken by this call, and told of by an event where
                    // the system has a queue for it.
                    Advice::Again => {
                        side.on_error(error.raw_os_error().unwrap_or(0), now, out);
                        taken += 1;
                        look = true;
                    }
                    Advice::At(at) => return (Drained::Again(at), total + taken),
                    Advice::GiveUp => {
                        let call = failed_call(self.half.receive_call(), &error);
                        return (Drained::Failed(call), total + taken);
                    }
                },
            }
            total += taken;
            if taken == 0 {
                return (Drained::after(total), total);
            }
        }
        (Drained::More, total)
    }

    fn take_events(&mut self) -> usize {
        let (side, out, now) = (&mut self.side, &mut self.out, self.now);
        let mut told = false;
        let taken = self.half.events(|event| {
            told |= matches!(event, Event::Icmp(_));
            side.on_event(event, now, out);
        });
        if told {
            // So the errors of the socket are the network's.
            self.patience.renew();
        }
        taken
    }

    fn tick(&mut self, drained: &Drained, asked_to_end: u32) -> Next {
        // Else what waits may still be in time.
        let emptied = matches!(drained, Drained::Some | Drained::Idle);
        let next = self
            .side
            .tick(self.now, emptied, asked_to_end, &mut self.out);
        self.out.flush_prompt();
        next
    }

    fn give_up(self) -> Attempt {
        let (begun_ns, last, tap) = self.side.give_up();
        let pipes = Pipes {
            tap,
            ..self.out.pipes
        };
        Attempt::Absent(Box::new(Absent {
            begun_ns,
            last,
            pipes,
        }))
    }

    fn finish(mut self, sent: u64, failure: Option<RefusedCall>) -> Received {
        let (received, last) = self.side.finish(sent, self.now, &mut self.out);
        Received {
            kernel_drops: self.half.kernel_drops(),
            refused_call: self.half.refused_call(),
            // What came since the call began to fail waits there still.
            failure: failure.or(self.patience.failing(self.half.receive_call())),
            unrecorded: self.out.finish(last),
            ..received
        }
    }
}
