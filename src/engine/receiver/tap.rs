//! What can be told while a session runs, as the receiver notices it: what happens to a packet, and when an
//! interval ends, with which counts.

use std::collections::VecDeque;

use super::answer::Answer;
use super::door::{Now, Out};
use crate::config::WatchConfig;
use crate::engine::flight::ReceiverEnd;
use crate::engine::intervals::{Begun, Counts};
use crate::engine::live::{Kind, Record};
use crate::sample::Sample;
use crate::stats::sequence::{self, Checkpoint, Tracker};
use crate::wire::{Format, Timestamp};

/// Moments at which loss by direction was looked at, within one timeout.
const CHECKPOINTS: usize = 512;

/// What is noticed for watchers.
#[derive(Debug)]
pub(crate) struct Tap {
    interval_ns: Option<i64>,
    timeout_ns: i64,
    format: Format,
    next_mark_ns: i64,
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
}

impl Tap {
    pub(crate) fn new(config: WatchConfig, timeout_ns: i64, format: Format, begun: Begun) -> Self {
        let interval_ns = config
            .interval_ns
            .map(|ns| i64::try_from(ns).unwrap_or(i64::MAX));
        Self {
            interval_ns,
            timeout_ns,
            format,
            next_mark_ns: interval_ns.map_or(i64::MAX, |ns| begun.at_ns.saturating_add(ns)),
            next_expected: 0,
            swept: 0,
            lost: 0,
            checkpoints: VecDeque::with_capacity(CHECKPOINTS),
            checkpoint_at: i64::MIN,
            decided: None,
            told: (0, 0),
            number: 1,
        }
    }

    /// Replies in time that share their times; `reflector_seq` of the first one.
    pub(super) fn replies(
        &mut self,
        all: &Sample,
        reflector_seq: u32,
        synchronised: bool,
        out: &mut impl Out,
    ) {
        for n in 0..all.count {
            let sample = Sample {
                seq: all.seq + u64::from(n),
                count: 1,
                ..*all
            };
            let kind = Kind::Reply {
                reflector_seq: reflector_seq.wrapping_add(n.into()),
                missing_before: sample.seq.saturating_sub(self.next_expected),
                out_of_order: sample.seq < self.next_expected,
                synchronised,
            };
            self.next_expected = self.next_expected.max(sample.seq + 1);
            out.happened(Record { kind, sample });
        }
    }

    /// Replies in time whose timestamps are of no use.
    pub(super) fn unusable(&mut self, answer: &Answer, out: &mut impl Out) {
        for (seq, reflector_seq) in answer.numbers() {
            self.next_expected = self.next_expected.max(seq + 1);
            out.happened(Record::of(Kind::Unusable { reflector_seq }, seq));
        }
    }

    /// A packet that may have been given up was answered in time: it had left later.
    pub(super) fn came_after_all(&mut self, seq: u64) {
        self.lost -= u64::from(seq < self.swept);
    }

    /// When [`tick`](Self::tick) is due, by the monotonic clock, with `now` in nanoseconds.
    pub(super) fn due(&self, now: i64) -> i64 {
        let sweep = now.saturating_add((self.timeout_ns / 8).clamp(1_000_000, 50_000_000));
        self.next_mark_ns.min(sweep)
    }

    /// Looks at what timed out by `now`, which must be before the last look at the socket that
    /// found it empty. Returns the counts of an interval that ends, for [`ended`](Self::ended).
    pub(super) fn tick(
        &mut self,
        now: Now,
        flight: ReceiverEnd<'_>,
        tracker: &mut Tracker,
        out: &mut impl Out,
    ) -> Option<Counts> {
        let departed = flight.departed();
        // Also where nothing comes back for long: the tracker tells apart no more than the window.
        self.sweep_below(departed.saturating_sub(flight.window()), tracker, out);
        tracker.make_room(departed);
        while self.swept < departed {
            let t1 = Timestamp::from_raw(flight.t1(self.swept));
            let left = t1.unix_ns(self.format, now.wall_ns);
            if left.is_some_and(|t1| now.wall_ns - t1 <= self.timeout_ns) {
                break;
            }
            self.sweep_one(tracker, out);
        }
        let wall_ns = now.wall_ns;
        let now = now.at_ns;
        if now >= self.checkpoint_at {
            self.checkpoint_at = now + self.timeout_ns / i64::try_from(CHECKPOINTS).unwrap_or(1);
            if let Some(point) = tracker.checkpoint() {
                if self.checkpoints.len() == CHECKPOINTS {
                    self.checkpoints.pop_front();
                }
                self.checkpoints.push_back(point);
            }
        }
        if now < self.next_mark_ns {
            return None;
        }
        let passed = (now - self.next_mark_ns) / self.interval_ns.unwrap_or(i64::MAX);
        Some(Counts {
            // Of the last end that has passed: all threads have one number for one time.
            number: self.number + passed.unsigned_abs(),
            ..self.counts(now, wall_ns, departed, tracker)
        })
    }

    /// The interval with these counts has ended. As long as that is not said, it becomes longer.
    pub(super) fn ended(&mut self, counts: &Counts) {
        let passed = counts.number.saturating_sub(self.number);
        let intervals = i64::try_from(passed).unwrap_or(i64::MAX).saturating_add(1);
        let next = self
            .interval_ns
            .unwrap_or(i64::MAX)
            .saturating_mul(intervals);
        self.next_mark_ns = self.next_mark_ns.saturating_add(next);
        self.number = counts.number + 1;
    }

    /// Forgets the packets so far; intervals go on.
    pub(super) fn begin_anew(&mut self) {
        (self.next_expected, self.swept, self.lost) = (0, 0, 0);
        self.checkpoints.clear();
        (self.decided, self.told) = (None, (0, 0));
    }

    /// Decides what leaves the window before its timeout.
    #[inline]
    pub(super) fn sweep_below(&mut self, low: u64, tracker: &Tracker, out: &mut impl Out) {
        while self.swept < low {
            self.sweep_one(tracker, out);
        }
    }

    fn sweep_one(&mut self, tracker: &Tracker, out: &mut impl Out) {
        let seq = self.swept;
        if !tracker.in_time(seq) {
            self.lost += 1;
            out.happened(Record::of(Kind::Timeout, seq));
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
            unrecorded: 0,
            synchronised: false,
            last: false,
        }
    }

    /// The session's counts where intervals are watched, when `sent` packets were sent.
    pub(super) fn finish(self, sent: u64, found: &sequence::Counts, now: Now) -> Option<Counts> {
        self.interval_ns?;
        let told = found.directions.map(|d| (d.lost_outbound, d.lost_inbound));
        Some(Counts {
            number: self.number,
            at_ns: now.at_ns,
            wall_ns: now.wall_ns,
            sent,
            received: found.received,
            lost: sent.saturating_sub(found.received + found.unresolved),
            lost_outbound: told.map(|(outbound, _)| outbound),
            lost_inbound: told.map(|(_, inbound)| inbound),
            duplicates: found.duplicates,
            late: found.late,
            reordered: found.reordered,
            unrecorded: 0,
            synchronised: false,
            last: true,
        })
    }
}
