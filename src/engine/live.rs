//! What can be watched while a session runs: replies, gaps, timeouts, and figures by interval.
//!
//! The receiver thread has a [`Tap`]: it writes fixed-size records into a pipe of their own, so that
//! whoever watches can never cost the measurement a sample. A live thread reads them, keeps the
//! interval's figures, thins out what nobody could read, and hands [`Update`]s to the caller.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::flight::Flight;
use super::icmp;
use super::intervals::{Begun, Counts, Figures};
use crate::config::WatchConfig;
use crate::io::Icmp;
use crate::os;
use crate::report::{Happening, Interval};
use crate::sample::{Blocks, Joined, Pipe, Sample};
use crate::stats::sequence::{self, Checkpoint, Tracker};
use crate::wire::{Format, REFLECTOR_LEN};

/// Updates on their way to whoever watches.
const UPDATES: usize = 4096;
/// Happenings that are told in [`TICK`], of which replies take at most a half.
const TOLD: u32 = 40;
const TICK: Duration = Duration::from_millis(100);
/// Intervals whose counts wait for the live thread.
const MARKS: usize = 64;
/// Moments at which loss by direction was looked at, within one timeout.
const CHECKPOINTS: usize = 512;

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
}

/// What the receiver thread tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The reply to `sample.seq`, and how many packets before it have no reply yet.
    Reply {
        reflector_seq: u32,
        missing_before: u64,
        out_of_order: bool,
    },
    /// A reply without usable timestamps.
    Unusable {
        reflector_seq: u32,
    },
    Timeout,
    Late,
    Duplicate,
    Icmp(Icmp),
    /// An interval ends here: its counts wait in the other channel, under this number.
    Mark(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    kind: Kind,
    sample: Sample,
}

impl crate::sample::Record for Record {}

/// The receiver thread's end.
pub(crate) struct Tap {
    pipe: Pipe<Record>,
    marks: Sender<Counts>,
    interval_ns: Option<i64>,
    timeout_ns: i64,
    format: Format,
    next_mark_ns: i64,
    /// Hand records over at once: there are few.
    prompt: bool,
    next_expected: u64,
    /// Every sequence number below was answered in time or has timed out.
    swept: u64,
    lost: u64,
    /// Moments whose packets are not all decided yet, oldest first.
    checkpoints: VecDeque<Checkpoint>,
    checkpoint_at: i64,
    /// The newest moment whose packets are all decided, and how many of them were lost.
    decided: Option<(Checkpoint, u64)>,
    /// What was told of loss outbound and inbound.
    told: (u64, u64),
    /// The interval under way, from 1 on.
    number: u64,
    /// Counts that were sent.
    marked: u64,
}

/// The live thread's end.
pub(crate) struct Watched {
    blocks: Blocks<Record>,
    marks: Receiver<Counts>,
}

pub(crate) fn tap(
    config: WatchConfig,
    timeout_ns: i64,
    format: Format,
    prompt: bool,
    begun: Begun,
    (records, blocks): (Pipe<Record>, Blocks<Record>),
) -> (Tap, Watched) {
    let (marks_in, marks_out) = bounded(MARKS);
    let interval_ns = config
        .interval_ns
        .map(|ns| i64::try_from(ns).unwrap_or(i64::MAX));
    let tap = Tap {
        pipe: records,
        marks: marks_in,
        interval_ns,
        timeout_ns,
        format,
        next_mark_ns: interval_ns.map_or(i64::MAX, |ns| begun.at_ns.saturating_add(ns)),
        prompt,
        next_expected: 0,
        swept: 0,
        lost: 0,
        checkpoints: VecDeque::with_capacity(CHECKPOINTS),
        checkpoint_at: i64::MIN,
        decided: None,
        told: (0, 0),
        number: 1,
        marked: 0,
    };
    let watched = Watched {
        blocks,
        marks: marks_out,
    };
    (tap, watched)
}

/// All that a receiver thread told.
#[cfg(test)]
pub(super) type Told = (Vec<Record>, Vec<Counts>);

#[cfg(test)]
impl Watched {
    /// All that was told; the counts without the moments at which their intervals ended.
    pub(super) fn told(self) -> Told {
        let mut records = Vec::new();
        while self.blocks.next(|block| records.extend(block)) {}
        let counts = self.marks.try_iter().map(|counts| Counts {
            at_ns: 0,
            wall_ns: 0,
            ..counts
        });
        (records, counts.collect())
    }
}

impl Tap {
    /// A reply in time.
    pub(crate) fn reply(&mut self, sample: Sample, reflector_seq: u32) {
        let missing_before = sample.seq.saturating_sub(self.next_expected);
        let out_of_order = sample.seq < self.next_expected;
        self.next_expected = self.next_expected.max(sample.seq + 1);
        self.push(
            Kind::Reply {
                reflector_seq,
                missing_before,
                out_of_order,
            },
            sample,
        );
    }

    /// A reply in time whose timestamps are of no use.
    pub(crate) fn unusable(&mut self, seq: u64, reflector_seq: u32) {
        self.next_expected = self.next_expected.max(seq + 1);
        self.push(Kind::Unusable { reflector_seq }, only(seq));
    }

    pub(crate) fn late(&mut self, seq: u64) {
        self.push(Kind::Late, only(seq));
    }

    pub(crate) fn duplicate(&mut self, seq: u64) {
        self.push(Kind::Duplicate, only(seq));
    }

    pub(crate) fn icmp(&mut self, icmp: &Icmp) {
        self.push(Kind::Icmp(*icmp), only(0));
    }

    fn push(&mut self, kind: Kind, sample: Sample) {
        self.pipe.push(Record { kind, sample });
    }

    /// When [`tick`](Self::tick) is due, by the monotonic clock, with `now` in nanoseconds.
    pub(crate) fn due(&self, now: i64) -> i64 {
        let sweep = now.saturating_add((self.timeout_ns / 8).clamp(1_000_000, 50_000_000));
        self.next_mark_ns.min(sweep)
    }

    /// Looks at what timed out by `wall_ns`, which must be before the last look at the socket that
    /// found it empty, and ends the interval where that is due.
    pub(crate) fn tick(&mut self, now: i64, wall_ns: i64, flight: &Flight, tracker: &Tracker) {
        let departed = flight.departed();
        while self.swept < departed {
            let t1 = crate::wire::Timestamp::from_raw(flight.t1(self.swept));
            let left = t1.unix_ns(self.format, wall_ns);
            if left.is_some_and(|t1| wall_ns - t1 <= self.timeout_ns) {
                break;
            }
            self.sweep_one(tracker);
        }
        if now >= self.checkpoint_at {
            self.checkpoint_at = now + self.timeout_ns / i64::try_from(CHECKPOINTS).unwrap_or(1);
            if let Some(point) = tracker.checkpoint() {
                if self.checkpoints.len() == CHECKPOINTS {
                    self.checkpoints.pop_front();
                }
                self.checkpoints.push_back(point);
            }
        }
        if now >= self.next_mark_ns {
            let interval_ns = self.interval_ns.unwrap_or(i64::MAX);
            let passed = (now - self.next_mark_ns) / interval_ns;
            let counts = Counts {
                // Of the last end that has passed: all threads have one number for one time.
                number: self.number + passed.unsigned_abs(),
                ..self.counts(now, wall_ns, departed, tracker)
            };
            // Without room the interval just becomes longer.
            if self.mark(counts) {
                let next = interval_ns.saturating_mul(passed + 1);
                self.next_mark_ns = self.next_mark_ns.saturating_add(next);
                self.number = counts.number + 1;
            }
        }
        if self.prompt {
            self.pipe.flush();
        }
    }

    pub(crate) fn flush(&mut self) {
        self.pipe.flush();
    }

    /// Forgets the packets so far; intervals go on.
    pub(crate) fn begin_anew(&mut self) {
        (self.next_expected, self.swept, self.lost) = (0, 0, 0);
        self.checkpoints.clear();
        (self.decided, self.told) = (None, (0, 0));
    }

    /// Decides what leaves the window before its timeout.
    pub(crate) fn sweep_below(&mut self, low: u64, tracker: &Tracker) {
        while self.swept < low {
            self.sweep_one(tracker);
        }
    }

    fn sweep_one(&mut self, tracker: &Tracker) {
        let seq = self.swept;
        if !tracker.in_time(seq) {
            self.lost += 1;
            self.push(Kind::Timeout, only(seq));
        }
        self.swept += 1;
        while let Some(point) = self.checkpoints.front().copied()
            && point.highest < self.swept
        {
            self.decided = Some((point, self.lost));
            self.checkpoints.pop_front();
        }
    }

    /// Loss by direction, as far as it is decided; neither figure ever shrinks.
    fn directions(&mut self, tracker: &Tracker) -> (u64, u64) {
        if let Some((point, lost)) = &self.decided
            && let Some(inbound) = tracker.lost_inbound_until(point)
        {
            let (outbound_before, inbound_before) = self.told;
            let most = lost.saturating_sub(outbound_before).max(inbound_before);
            let inbound = inbound.clamp(inbound_before, most);
            self.told = (lost.saturating_sub(inbound).max(outbound_before), inbound);
        }
        self.told
    }

    fn counts(&mut self, now: i64, wall_ns: i64, sent: u64, tracker: &Tracker) -> Counts {
        let known = self.lost == 0 || tracker.own_counter_proved();
        let (outbound, inbound) = self.directions(tracker);
        Counts {
            mark: self.marked,
            number: self.number,
            at_ns: now,
            wall_ns,
            sent,
            received: tracker.received(),
            lost: self.lost,
            lost_outbound: known.then_some(outbound),
            lost_inbound: known.then_some(inbound),
            duplicates: tracker.duplicates(),
            late: tracker.late(),
            reordered: tracker.reordered(),
            unrecorded: self.pipe.unrecorded(),
            last: false,
        }
    }

    /// Ends an interval; false where there is no room to say so.
    fn mark(&mut self, counts: Counts) -> bool {
        // Counts without a record would take up room that nobody makes again.
        if self.marks.is_full() || !self.pipe.has_room() {
            return false;
        }
        self.marked += 1;
        let record = Record {
            kind: Kind::Mark(counts.mark),
            sample: only(0),
        };
        self.marks.try_send(counts).is_ok() && self.pipe.try_push(record)
    }

    /// Tells the rest, with the session's counts, when `sent` packets were sent.
    pub(crate) fn finish(mut self, sent: u64, found: &sequence::Counts) {
        if self.interval_ns.is_some() {
            let told = found.directions.map(|d| (d.lost_outbound, d.lost_inbound));
            let counts = Counts {
                mark: self.marked,
                number: self.number,
                at_ns: os::monotonic_ns(),
                wall_ns: os::realtime_ns(),
                sent,
                received: found.received,
                lost: sent.saturating_sub(found.received),
                lost_outbound: told.map(|(outbound, _)| outbound),
                lost_inbound: told.map(|(_, inbound)| inbound),
                duplicates: found.duplicates,
                late: found.late,
                reordered: found.reordered,
                unrecorded: self.pipe.unrecorded(),
                last: true,
            };
            // The packets are over: waiting for room delays nothing that is measured.
            if self.marks.send(counts).is_ok() {
                self.pipe.push_waiting(Record {
                    kind: Kind::Mark(counts.mark),
                    sample: only(0),
                });
            }
        }
        let _ = self.pipe.finish();
    }
}

fn only(seq: u64) -> Sample {
    Sample {
        seq,
        t1_ns: 0,
        t1_stamp_ns: None,
        t2_ns: 0,
        t3_ns: 0,
        t4_ns: 0,
        size_class: 0,
        count: 1,
    }
}

/// Reads records until the session is over, of all its threads.
pub(crate) fn run(
    watched: Vec<Watched>,
    begun: Begun,
    config: WatchConfig,
    first_seq: u32,
    stamps_only: bool,
    updates: Sender<Update>,
) {
    let mut teller = Teller {
        updates,
        replies: config.happenings,
        first_seq,
        several: watched.len() > 1,
        thread: 1,
        answered: vec![None; watched.len()],
        budget: TOLD,
        refilled: Instant::now(),
        skipped: 0,
    };
    let mut figures = config
        .interval_ns
        .map(|_| Figures::new(watched.len(), stamps_only, begun));
    let (blocks, marks): (Vec<_>, Vec<_>) =
        watched.into_iter().map(|w| (w.blocks, w.marks)).unzip();
    let mut blocks = Joined::new(blocks);
    while blocks.next(|thread, block| {
        teller.thread = thread + 1;
        let Some(block) = block else {
            let last = figures
                .as_mut()
                .map_or_else(Vec::new, |figures| figures.over(thread));
            last.into_iter()
                .for_each(|interval| teller.interval(interval));
            return;
        };
        for record in block {
            match (&mut figures, record.kind) {
                (Some(figures), Kind::Mark(mark)) => {
                    let counts = marks[thread].try_iter().find(|c| c.mark == mark);
                    let over = counts.map_or_else(Vec::new, |counts| figures.mark(thread, counts));
                    over.into_iter()
                        .for_each(|interval| teller.interval(interval));
                }
                (Some(figures), Kind::Reply { .. }) => figures.record(thread, &record.sample),
                _ => {}
            }
            teller.happened(record, stamps_only);
        }
    }) {}
    teller.refill(true);
}

/// Tells what a reader can follow, and how much there was beside.
struct Teller {
    updates: Sender<Update>,
    replies: bool,
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
        if !self.replies {
            return;
        }
        let seq = self.on_the_wire(record.sample.seq);
        let at_ns = happened_at(&record.sample);
        match record.kind {
            Kind::Reply {
                reflector_seq,
                missing_before,
                out_of_order,
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
                let reply = reply(&record.sample, seq, reflector_seq, stamps_only);
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
            Kind::Mark(_) => {}
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
        self.refilled = Instant::now();
        self.budget = TOLD;
        if self.skipped > 0 {
            let skipped = std::mem::take(&mut self.skipped);
            if let Err(TrySendError::Full(_)) = self.updates.try_send(Update::NotShown(skipped)) {
                self.skipped = skipped;
            }
        }
    }

    fn interval(&mut self, interval: Interval) {
        // Few and wanted: whoever reads them slowly gets them late.
        let _ = self.updates.send(Update::Interval(Box::new(interval)));
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

fn reply(sample: &Sample, seq: u32, reflector_seq: u32, stamps_only: bool) -> Happening {
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
    }
}

/// A channel for updates.
pub(crate) fn updates() -> (Sender<Update>, Receiver<Update>) {
    bounded(UPDATES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::pipe;

    #[test]
    fn an_interval_that_found_no_room_is_told_when_there_is_some() {
        let config = WatchConfig {
            interval_ns: Some(1_000_000),
            ..WatchConfig::default()
        };
        let begun = Begun {
            at_ns: 0,
            wall_ns: 0,
        };
        let (mut tap, watched) = tap(config, 5_000_000_000, Format::Ntp, true, begun, pipe());
        let (flight, tracker) = (Flight::new(64, 0), Tracker::new(64));
        while tap.pipe.has_room() {
            tap.late(0);
        }
        for now in 0..2 * i64::try_from(MARKS).unwrap() {
            tap.tick(2_500_000 + now, 0, &flight, &tracker);
        }
        assert_eq!(watched.marks.len(), 0);
        let reader = std::thread::spawn(move || {
            let mut marks = 0;
            while watched.blocks.next(|block| {
                for record in block {
                    if let Kind::Mark(mark) = record.kind {
                        let counts = watched.marks.try_iter().find(|c| c.mark == mark);
                        marks += u64::from(counts.is_some());
                    }
                }
            }) {}
            marks
        });
        // The end is told, however full it was before.
        tap.finish(0, &sequence::Counts::default());
        assert_eq!(reader.join().unwrap(), 1);
    }
}
