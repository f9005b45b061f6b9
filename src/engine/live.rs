//! What can be watched while a session runs: replies, gaps, timeouts, and figures by interval.
//!
//! The receiver thread has a [`Tap`]: it notices what happens and writes fixed-size records into a pipe of
//! their own, so that whoever watches can never cost the measurement a sample. A live thread reads them,
//! thins out what nobody could read, and hands [`Update`]s to the caller. The tap also says when an
//! interval ends, and with which counts: these go through the pipe of the samples, and the stats threads
//! put the figures together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::icmp;
use super::intervals::{Begun, Clocks, Counts, Figures};
use crate::io::Icmp;
use crate::os;
use crate::report::{Happening, Ignored, Interval};
use crate::sample::{Blocks, Joined, Sample};
use crate::stats::delay::Delays;
use crate::wire::REFLECTOR_LEN;

/// Updates on their way to whoever watches.
const UPDATES: usize = 4096;
/// Happenings that are told in [`TICK`], of which replies take at most a half.
const TOLD: u32 = 40;
const TICK: Duration = Duration::from_millis(100);

/// Something that a watcher is told while the session runs.
#[derive(Clone, Debug)]
pub enum Update {
    /// How far the session is; a few times a second.
    Progress(Progress),
    /// Something happened to a packet.
    Happened {
        /// Of which thread, from 1 on; `None` where there is one alone.
        thread: Option<usize>,
        /// When, in nanoseconds since the Unix epoch: of a reply by its T4, of all else when it was
        /// noticed.
        at_ns: i64,
        /// What happened.
        what: Happening,
    },
    /// So many happenings were too fast to be told.
    NotShown(u64),
    /// An interval is over.
    Interval(Box<Interval>),
    /// A test packet left or came.
    Packet(PacketCopy),
}

/// The head of a test packet, as long as a reply's fixed part.
#[derive(Clone, Copy, Debug)]
pub struct PacketCopy {
    /// It came; otherwise it left.
    pub came: bool,
    /// UDP payload, in octets.
    pub len: usize,
    /// Packets in this direction that were too fast to be shown before this one.
    pub not_shown: u64,
    octets: [u8; REFLECTOR_LEN],
}

impl PacketCopy {
    /// The first octets, at most as many as a reply's fixed part has.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.len.min(REFLECTOR_LEN)]
    }
}

/// Copies packets of one direction for a watcher, as many as one can read.
#[derive(Debug)]
pub(crate) struct Copier {
    updates: Sender<Update>,
    came: bool,
    budget: u32,
    refill_ns: i64,
    not_shown: u64,
}

impl Copier {
    pub(crate) fn new(updates: Sender<Update>, came: bool) -> Self {
        Self {
            updates,
            came,
            budget: TOLD,
            refill_ns: 0,
            not_shown: 0,
        }
    }

    /// `now` is of any one clock, in nanoseconds.
    pub(crate) fn copy(&mut self, head: &[u8], len: usize, now: i64) {
        if now >= self.refill_ns {
            self.budget = TOLD;
            self.refill_ns = now.saturating_add(i64::try_from(TICK.as_nanos()).unwrap_or(0));
        }
        let mut octets = [0; REFLECTOR_LEN];
        let kept = head.len().min(REFLECTOR_LEN);
        octets[..kept].copy_from_slice(&head[..kept]);
        let copy = PacketCopy {
            came: self.came,
            len,
            not_shown: self.not_shown,
            octets,
        };
        if self.budget == 0 || self.updates.try_send(Update::Packet(copy)).is_err() {
            self.not_shown += 1;
        } else {
            self.budget -= 1;
            self.not_shown = 0;
        }
    }
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Packets that left.
    pub sent: u64,
    /// Distinct replies in time.
    pub received: u64,
    /// Datagrams that are no replies to these packets.
    pub ignored: Ignored,
}

/// What the receiver thread tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The reply to `sample.seq`, and how many packets before it have no reply yet.
    Reply {
        reflector_seq: u32,
        missing_before: u64,
        out_of_order: bool,
        /// Each reply so far said that the reflector's clock is synchronised.
        synchronised: bool,
    },
    /// A reply without usable timestamps.
    Unusable {
        reflector_seq: u32,
    },
    Timeout,
    Late,
    Duplicate,
    Icmp(Icmp),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(super) kind: Kind,
    pub(super) sample: Sample,
}

impl Record {
    /// What happened to a packet, and has no times.
    pub(super) fn of(kind: Kind, seq: u64) -> Self {
        let sample = Sample {
            seq,
            t1_ns: 0,
            t1_stamp_ns: None,
            t2_ns: 0,
            t3_ns: 0,
            t4_ns: 0,
            size_class: 0,
            count: 1,
        };
        Self { kind, sample }
    }
}

impl crate::sample::Record for Record {}

/// What the stats thread of one packet thread records into.
pub(crate) struct Recorder {
    session: Delays,
    watched: Option<Watched>,
}

/// The interval under way of one packet thread.
struct Watched {
    thread: usize,
    interval: Delays,
    all: Arc<Mutex<Intervals>>,
}

impl Recorder {
    /// Of a session whose intervals nobody watches, or of thread `thread` of those that share `all`.
    pub(crate) fn new(delays: Delays, watched: Option<(usize, Arc<Mutex<Intervals>>)>) -> Self {
        let watched = watched.map(|(thread, all)| {
            let mut interval = delays.alike();
            if all.lock().is_ok_and(|all| all.alone) {
                interval.count_from_anew();
            }
            Watched {
                thread,
                interval,
                all,
            }
        });
        Self {
            session: delays,
            watched,
        }
    }

    /// Records samples, behind which an interval may end.
    pub(crate) fn record(&mut self, block: &[Sample], mark: Option<&Counts>) {
        self.session.record(block);
        let Some(watched) = &mut self.watched else {
            return;
        };
        watched.interval.record(block);
        if let Some(counts) = mark
            && let Ok(mut all) = watched.all.lock()
        {
            let (thread, interval) = (watched.thread, &mut watched.interval);
            let due = all.figures.mark(thread, *counts, interval, &self.session);
            all.tell(due);
        }
    }

    /// The delays of the session; the last intervals are told.
    pub(crate) fn finish(self) -> Delays {
        let unsent = self.watched.and_then(|watched| {
            let mut all = watched.all.lock().ok()?;
            let due = all.figures.over(watched.thread);
            all.tell(due);
            let over = all.figures.is_over();
            over.then(|| (std::mem::take(&mut all.unsent), all.updates.clone()))
        });
        if let Some((unsent, updates)) = unsent {
            // The packets are over: to wait for whoever watches costs nothing.
            for interval in unsent {
                let _ = updates.send(Update::Interval(Box::new(interval)));
            }
        }
        self.session
    }
}

/// The intervals of all threads of a session, on their way to whoever watches.
pub(crate) struct Intervals {
    figures: Figures,
    updates: Sender<Update>,
    /// There is one thread.
    alone: bool,
    /// Those for which there was no room: whoever reads slowly gets them late.
    unsent: VecDeque<Interval>,
}

impl Intervals {
    /// Of so many threads, whose delays are [alike](Delays::alike).
    pub(crate) fn new(
        threads: usize,
        delays: &Delays,
        clocks: Clocks,
        begun: Begun,
        updates: Sender<Update>,
    ) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            figures: Figures::new(threads, delays, clocks, begun),
            updates,
            alone: threads == 1,
            unsent: VecDeque::new(),
        }))
    }

    fn tell(&mut self, due: Vec<Interval>) {
        self.unsent.extend(due);
        while let Some(next) = self.unsent.pop_front() {
            let update = Update::Interval(Box::new(next));
            if let Err(TrySendError::Full(Update::Interval(next))) = self.updates.try_send(update) {
                self.unsent.push_front(*next);
                return;
            }
        }
    }
}

/// Reads records until the session is over, of all its threads.
pub(crate) fn run(
    watched: Vec<Blocks<Record>>,
    first_seq: u32,
    stamps_only: bool,
    clocks: Clocks,
    updates: Sender<Update>,
) {
    let mut teller = Teller {
        updates,
        clocks,
        first_seq,
        several: watched.len() > 1,
        thread: 1,
        answered: vec![None; watched.len()],
        budget: TOLD,
        refilled: os::now(),
        skipped: 0,
    };
    let mut blocks = Joined::new(watched);
    while blocks.next(|thread, block| {
        teller.thread = thread + 1;
        for record in block.unwrap_or_default() {
            teller.happened(record, stamps_only);
        }
    }) {}
    teller.refill(true);
}

/// Tells what a reader can follow, and how much there was beside.
struct Teller {
    updates: Sender<Update>,
    clocks: Clocks,
    first_seq: u32,
    /// More than one thread has replies; the one that they are of now, from 1 on.
    several: bool,
    thread: usize,
    /// The newest packet that was answered, and its T1, of each thread.
    answered: Vec<Option<(u64, i64)>>,
    budget: u32,
    refilled: Instant,
    skipped: u64,
}

impl Teller {
    fn happened(&mut self, record: &Record, stamps_only: bool) {
        let seq = self.on_the_wire(record.sample.seq);
        let at_ns = happened_at(&record.sample);
        match record.kind {
            Kind::Reply {
                reflector_seq,
                missing_before,
                out_of_order,
                synchronised,
            } => {
                if missing_before > 0 {
                    let gap = Happening::Gap {
                        first: self.on_the_wire(record.sample.seq - missing_before),
                        last: self.on_the_wire(record.sample.seq - 1),
                        received: seq,
                        outage_ns: self.outage(&record.sample, missing_before),
                    };
                    self.happening(at_ns, gap, true);
                }
                if out_of_order {
                    self.happening(at_ns, Happening::OutOfOrder { seq }, true);
                } else {
                    self.note_answered(Some(&record.sample));
                }
                let agree = self.clocks.agree(synchronised);
                let reply = reply(&record.sample, (seq, reflector_seq), stamps_only, agree);
                self.happening(at_ns, reply, false);
            }
            Kind::Unusable { reflector_seq } => {
                self.note_answered(None);
                let reply = Happening::Reply {
                    seq,
                    reflector_seq,
                    roundtrip_ns: None,
                    outbound_ns: None,
                    inbound_ns: None,
                    clocks_agree: false,
                };
                self.happening(at_ns, reply, false);
            }
            Kind::Timeout => self.happening(at_ns, Happening::Timeout { seq }, true),
            Kind::Late => self.happening(at_ns, Happening::Late { seq }, true),
            Kind::Duplicate => self.happening(at_ns, Happening::Duplicate { seq }, true),
            Kind::Icmp(icmp) => {
                let icmp = icmp::one(&icmp, crate::io::is_local);
                self.happening(at_ns, Happening::Icmp(icmp), true);
            }
        }
    }

    /// The newest packet that was answered is this one; `None`: its T1 is not known.
    fn note_answered(&mut self, sample: Option<&Sample>) {
        if let Some(newest) = self.answered.get_mut(self.thread - 1) {
            *newest = sample.map(|sample| (sample.seq, sample.t1_ns));
        }
    }

    /// From the departure of the last answered packet to that of this one, between which so many are
    /// missing.
    fn outage(&self, sample: &Sample, missing: u64) -> Option<i64> {
        let (seq, t1_ns) = self.answered.get(self.thread - 1).copied().flatten()?;
        let outage = sample.t1_ns.checked_sub(t1_ns);
        outage.filter(|ns| *ns >= 0 && seq + missing + 1 == sample.seq)
    }

    /// The number that stands in the packet.
    fn on_the_wire(&self, seq: u64) -> u32 {
        let low = u32::try_from(seq & u64::from(u32::MAX)).unwrap_or(0);
        low.wrapping_add(self.first_seq)
    }

    fn refill(&mut self, at_once: bool) {
        if !at_once && self.refilled.elapsed() < TICK {
            return;
        }
        self.refilled = os::now();
        self.budget = TOLD;
        if self.skipped > 0 {
            let skipped = std::mem::take(&mut self.skipped);
            if let Err(TrySendError::Full(_)) = self.updates.try_send(Update::NotShown(skipped)) {
                self.skipped = skipped;
            }
        }
    }

    fn happening(&mut self, at_ns: i64, what: Happening, matters: bool) {
        let thread = self.several.then_some(self.thread);
        let happened = Update::Happened {
            thread,
            at_ns,
            what,
        };
        self.tell(happened, matters);
    }

    fn tell(&mut self, update: Update, matters: bool) {
        let least = if matters { 0 } else { TOLD / 2 };
        if self.budget <= least || self.skipped > 0 {
            self.refill(false);
        }
        if self.budget <= least {
            self.skipped += 1;
            return;
        }
        self.budget -= 1;
        if self.updates.try_send(update).is_err() {
            self.skipped += 1;
        }
    }
}

/// When a reply came, or else now.
fn happened_at(sample: &Sample) -> i64 {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let now = os::realtime_ns();
    // The clock of an interface may be any, and what is no reply has no T4.
    match sample.t4_ns.abs_diff(now) {
        0..HOUR_NS => sample.t4_ns,
        _ => now,
    }
}

fn reply(
    sample: &Sample,
    (seq, reflector_seq): (u32, u32),
    stamps_only: bool,
    clocks_agree: bool,
) -> Happening {
    let t1 = match sample.t1_stamp_ns {
        None if stamps_only => None,
        stamp => Some(stamp.unwrap_or(sample.t1_ns)),
    };
    let inbound = sample.t4_ns.checked_sub(sample.t3_ns);
    let outbound = t1.and_then(|t1| sample.t2_ns.checked_sub(t1));
    let roundtrip = inbound.zip(outbound).and_then(|(a, b)| a.checked_add(b));
    // As the statistics do: timestamps that contradict each other tell nothing.
    let sound = sample.t3_ns >= sample.t2_ns && roundtrip.is_none_or(|ns| ns >= 0);
    Happening::Reply {
        seq,
        reflector_seq,
        roundtrip_ns: roundtrip.filter(|_| sound),
        outbound_ns: outbound.filter(|_| sound),
        inbound_ns: inbound.filter(|_| sound),
        clocks_agree,
    }
}

/// A channel for updates.
pub(crate) fn updates() -> (Sender<Update>, Receiver<Update>) {
    bounded(UPDATES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Begun = Begun {
        at_ns: 0,
        wall_ns: 0,
    };

    const CLOCKS: Clocks = Clocks {
        one: true,
        ours_synchronised: false,
    };

    #[test]
    fn intervals_that_nobody_reads_are_told_in_the_end() {
        let (updates_in, updates) = bounded(1);
        let delays = Delays::new(1, false);
        let all = Intervals::new(1, &delays, CLOCKS, BEGUN, updates_in);
        let mut recorder = Recorder::new(delays, Some((0, all)));
        for number in 1..=3 {
            let counts = Counts {
                number,
                sent: number,
                ..Counts::default()
            };
            recorder.record(&[Record::of(Kind::Late, number).sample], Some(&counts));
        }
        let reader = std::thread::spawn(move || {
            updates
                .iter()
                .map(|update| match update {
                    Update::Interval(interval) => {
                        interval.interval.delay_ns.inbound.unwrap().samples
                    }
                    _ => 0,
                })
                .collect::<Vec<u64>>()
        });
        assert_eq!(recorder.finish().recorded(), 3);
        assert_eq!(reader.join().unwrap(), [1, 1, 1]);
    }
}
