//! The figures of each interval of a session, put together from its threads.
//!
//! Every thread ends its intervals at the same moments, by marks among its samples: what is told of an
//! interval and of the session rests on the same samples. An interval is told once all threads have ended
//! it: each thread's delays are kept apart until it has ended one, since variation is of one flow, and
//! are then put together with those of the others, so that many threads take no more memory than they
//! have to.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use crate::report::{DelaySet, Interval, IntervalFigures, IntervalPackets, IntervalSchema};
use crate::stats::delay::Delays;

/// When a session was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// By the monotonic clock.
    pub(crate) at_ns: i64,
    /// By the real-time clock.
    pub(crate) wall_ns: i64,
}

/// A session's counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The interval that ends, from 1 on: the same for all threads.
    pub(crate) number: u64,
    pub(crate) at_ns: i64,
    pub(crate) wall_ns: i64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    /// `None` where the direction cannot be told.
    pub(crate) lost_outbound: Option<u64>,
    pub(crate) lost_inbound: Option<u64>,
    pub(crate) duplicates: u64,
    pub(crate) late: u64,
    pub(crate) reordered: u64,
    /// Replies that found no room in the pipe.
    pub(crate) unrecorded: u64,
    /// Every reply so far said that the reflector's clock is synchronised.
    pub(crate) synchronised: bool,
    pub(crate) last: bool,
}

impl Counts {
    fn begin(begun: Begun) -> Self {
        Self {
            at_ns: begun.at_ns,
            wall_ns: begun.wall_ns,
            lost_outbound: Some(0),
            lost_inbound: Some(0),
            ..Self::default()
        }
    }

    /// With those of another thread; the later moment.
    fn plus(self, other: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        Self {
            number: self.number.max(other.number),
            at_ns: self.at_ns.max(other.at_ns),
            wall_ns: self.wall_ns.max(other.wall_ns),
            sent: self.sent + other.sent,
            received: self.received + other.received,
            lost: self.lost + other.lost,
            lost_outbound: sum(self.lost_outbound, other.lost_outbound),
            lost_inbound: sum(self.lost_inbound, other.lost_inbound),
            duplicates: self.duplicates + other.duplicates,
            late: self.late + other.late,
            reordered: self.reordered + other.reordered,
            unrecorded: self.unrecorded + other.unrecorded,
            synchronised: self.synchronised && other.synchronised,
            last: self.last && other.last,
        }
    }
}

/// How far one thread is.
struct Thread {
    /// Intervals that ended and have not been told.
    ended: VecDeque<Counts>,
    latest: Counts,
    over: bool,
}

/// The intervals of all threads.
pub(crate) struct Figures {
    threads: Vec<Thread>,
    /// Of several threads: of intervals that have not been told, by number, the delays of all threads that
    /// ended them, and those of all that have been told.
    ended: BTreeMap<u64, Delays>,
    told: Option<Delays>,
    clocks: Clocks,
    before: Counts,
    number: u64,
}

/// What is known of the clocks of both ends, beside what the replies say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// Both ends are on this host.
    pub(crate) one: bool,
    /// This one is synchronised.
    pub(crate) ours_synchronised: bool,
}

impl Clocks {
    /// Whether they are known to agree, where the reflector says that its own is synchronised or not.
    pub(crate) fn agree(self, reflector_synchronised: bool) -> bool {
        self.one || self.ours_synchronised && reflector_synchronised
    }
}

impl Figures {
    /// Of so many threads, whose delays are [alike](Delays::alike).
    pub(crate) fn new(threads: usize, delays: &Delays, clocks: Clocks, begun: Begun) -> Self {
        let thread = || Thread {
            ended: VecDeque::new(),
            latest: Counts::begin(begun),
            over: false,
        };
        Self {
            threads: (0..threads).map(|_| thread()).collect(),
            ended: BTreeMap::new(),
            told: (threads > 1).then(|| delays.alike()),
            clocks,
            before: Counts::begin(begun),
            number: 0,
        }
    }

    /// A thread ends an interval, with the delays of the interval, which are emptied, and of its session:
    /// returns those that all threads have ended.
    pub(crate) fn mark(
        &mut self,
        thread: usize,
        counts: Counts,
        interval: &mut Delays,
        session: &Delays,
    ) -> Vec<Interval> {
        let one = &mut self.threads[thread];
        one.over = counts.last;
        if self.told.is_none() {
            one.latest = counts;
            let figures = (told_of(interval, false), told_of(session, false));
            interval.clear();
            return self.tell(figures).into_iter().collect();
        }
        one.ended.push_back(counts);
        match self.ended.entry(counts.number) {
            Entry::Occupied(mut others) => {
                others.get_mut().merge(interval);
                interval.clear();
            }
            Entry::Vacant(first) => {
                let next = interval.emptied();
                first.insert(std::mem::replace(interval, next));
            }
        }
        self.due()
    }

    /// A thread has nothing more to tell.
    pub(crate) fn over(&mut self, thread: usize) -> Vec<Interval> {
        self.threads[thread].over = true;
        self.due()
    }

    /// Whether no thread has anything more to tell.
    pub(crate) fn is_over(&self) -> bool {
        self.threads.iter().all(|thread| thread.over)
    }

    fn due(&mut self) -> Vec<Interval> {
        let mut due = Vec::new();
        loop {
            // A thread that was late ended several at once: the others' are told with them.
            let fronts = self
                .threads
                .iter()
                .filter_map(|thread| thread.ended.front());
            let Some(number) = fronts.map(|counts| counts.number).max() else {
                break;
            };
            let ready = |thread: &Thread| {
                let newest = thread.ended.back();
                thread.over || newest.is_some_and(|counts| counts.number >= number)
            };
            if !self.threads.iter().all(ready) {
                break;
            }
            due.extend(self.end(number));
        }
        due
    }

    /// Ends the intervals of several threads up to `number` as one; `None` for a last one in which nothing
    /// happened.
    fn end(&mut self, number: u64) -> Option<Interval> {
        for thread in &mut self.threads {
            while let Some(front) = thread.ended.front()
                && front.number <= number
                && let Some(counts) = thread.ended.pop_front()
            {
                thread.latest = counts;
            }
        }
        let (_, mut ended) = self.ended.pop_first()?;
        while let Some(next) = self.ended.first_entry()
            && *next.key() <= number
        {
            ended.merge(&next.remove());
        }
        let interval = told_of(&ended, true);
        let all = self.told.as_mut()?;
        all.merge(&ended);
        let session = told_of(all, true);
        self.tell((interval, session))
    }

    /// What happened since the interval before, with the delays of the interval and of the session.
    fn tell(&mut self, (interval, session): (DelaySet, DelaySet)) -> Option<Interval> {
        let latest = self.threads.iter().map(|thread| thread.latest);
        let now = latest.reduce(|a, b| a.plus(&b))?;
        let before = std::mem::replace(&mut self.before, now);
        let told = told(before, now, interval, session)?;
        self.number += 1;
        Some(Interval {
            number: self.number,
            clocks_agree: self.clocks.agree(now.synchronised),
            ..told
        })
    }
}

/// Figures of one flow, or of several.
fn told_of(delays: &Delays, several: bool) -> DelaySet {
    let mut told = delays.report();
    if several {
        // It is of one flow, even where only one has samples.
        told.each_mut().for_each(|delay| delay.jitter = None);
    }
    told
}

/// What happened between two moments; `None` for a last interval in which nothing did.
fn told(before: Counts, now: Counts, interval: DelaySet, session: DelaySet) -> Option<Interval> {
    if now.last
        && now.sent == before.sent
        && now.received == before.received
        && now.lost == before.lost
    {
        return None;
    }
    let lost = now.lost.saturating_sub(before.lost);
    // What is known of a direction later than of the loss itself is told with the session.
    let more = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_sub(b?));
    let outbound = more(now.lost_outbound, before.lost_outbound).map(|n| n.min(lost));
    let inbound =
        more(now.lost_inbound, before.lost_inbound).map(|n| n.min(lost - outbound.unwrap_or(0)));
    let packets = |sent, received, lost, outbound, inbound, duplicates, reordered, late| {
        let told: Option<u64> = Option::zip(outbound, inbound).map(|(a, b): (u64, u64)| a + b);
        IntervalPackets {
            sent,
            received,
            lost,
            lost_outbound: outbound,
            lost_inbound: inbound,
            lost_unattributed: told.map(|told| u64::saturating_sub(lost, told)),
            duplicates,
            reordered,
            late,
        }
    };
    let of_interval = packets(
        now.sent.saturating_sub(before.sent),
        now.received.saturating_sub(before.received),
        lost,
        outbound,
        inbound,
        now.duplicates.saturating_sub(before.duplicates),
        now.reordered.saturating_sub(before.reordered),
        now.late.saturating_sub(before.late),
    );
    let of_session = packets(
        now.sent,
        now.received,
        now.lost,
        now.lost_outbound,
        now.lost_inbound,
        now.duplicates,
        now.reordered,
        now.late,
    );
    Some(Interval {
        schema: IntervalSchema::default(),
        number: now.number,
        at: crate::report::moment::to_the_nanosecond(now.wall_ns),
        at_ns: now.wall_ns,
        length_ns: u64::try_from(now.at_ns - before.at_ns).unwrap_or(0),
        samples_not_recorded: now.unrecorded,
        clocks_agree: false,
        in_flight: now.sent.saturating_sub(now.received + now.lost),
        interval: IntervalFigures {
            packets: of_interval,
            delay_ns: interval,
        },
        session: IntervalFigures {
            packets: of_session,
            delay_ns: session,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn counts(number: u64, sent: u64) -> Counts {
        let at_ns = i64::try_from(number).unwrap() * 1000;
        Counts {
            number,
            at_ns,
            wall_ns: at_ns,
            sent,
            received: sent,
            lost_outbound: Some(0),
            lost_inbound: Some(0),
            ..Counts::default()
        }
    }

    fn told(intervals: &[Interval]) -> Vec<(u64, u64, u64)> {
        let of = |one: &Interval| (one.number, one.length_ns, one.interval.packets.sent);
        intervals.iter().map(of).collect()
    }

    fn sample(seq: u64) -> Sample {
        let at_ns = i64::try_from(seq * seq).unwrap() * 1000;
        Sample {
            seq,
            t1_ns: 0,
            t1_stamp_ns: None,
            t2_ns: at_ns,
            t3_ns: at_ns + 1,
            t4_ns: 2 * at_ns + 1,
            size_class: 0,
            count: 1,
        }
    }

    const BEGUN: Begun = Begun {
        at_ns: 0,
        wall_ns: 0,
    };

    const CLOCKS: Clocks = Clocks {
        one: false,
        ours_synchronised: true,
    };

    #[test]
    fn clocks_agree_where_each_reply_says_so_and_ours_is_synchronised_too() {
        for (one, ours, theirs, agree) in [
            (true, false, false, true),
            (false, true, true, true),
            (false, true, false, false),
            (false, false, true, false),
        ] {
            let clocks = Clocks {
                one,
                ours_synchronised: ours,
            };
            assert_eq!(clocks.agree(theirs), agree);
        }
        let mut threads = Threads::new(1);
        for (number, synchronised) in [(1, true), (2, false)] {
            let counts = Counts {
                synchronised,
                ..counts(number, number)
            };
            assert_eq!(threads.mark(0, counts)[0].clocks_agree, synchronised);
        }
    }

    /// Figures with the delays of each thread.
    struct Threads {
        figures: Figures,
        delays: Vec<(Delays, Delays)>,
    }

    impl Threads {
        fn new(threads: usize) -> Self {
            let delays = Delays::new(1, false);
            Self {
                figures: Figures::new(threads, &delays, CLOCKS, BEGUN),
                delays: vec![(delays.alike(), delays.alike()); threads],
            }
        }

        fn record(&mut self, thread: usize, sample: Sample) {
            let (interval, session) = &mut self.delays[thread];
            interval.record(&[sample]);
            session.record(&[sample]);
        }

        fn mark(&mut self, thread: usize, counts: Counts) -> Vec<Interval> {
            let (interval, session) = &mut self.delays[thread];
            self.figures.mark(thread, counts, interval, session)
        }
    }

    #[test]
    fn many_threads_wait_for_each_other_with_the_delays_of_one() {
        let mut threads = Threads::new(20);
        for number in 1..4 {
            let mut told = Vec::new();
            for thread in 0..20 {
                assert!(told.is_empty());
                threads.record(thread, sample(number));
                told = threads.mark(thread, counts(number, number));
                assert_eq!(threads.figures.ended.len(), usize::from(thread < 19));
            }
            let samples =
                |part: &IntervalFigures| part.delay_ns.roundtrip.as_ref().unwrap().samples;
            assert_eq!(samples(&told[0].interval), 20);
            assert_eq!(samples(&told[0].session), 20 * number);
        }
    }

    #[test]
    fn jitter_of_one_flow_is_not_told_as_that_of_all() {
        for flows in [1, 2] {
            let mut threads = Threads::new(flows);
            for seq in 0..10 {
                threads.record(0, sample(seq));
            }
            let told: Vec<Interval> = (0..flows)
                .flat_map(|flow| threads.mark(flow, counts(1, 10)))
                .collect();
            for part in [&told[0].interval, &told[0].session] {
                let roundtrip = part.delay_ns.roundtrip.as_ref().unwrap();
                assert_eq!(roundtrip.samples, 10);
                assert_eq!(roundtrip.jitter.is_some(), flows == 1);
            }
        }
    }

    #[test]
    fn a_thread_that_is_late_makes_one_longer_interval() {
        let mut threads = Threads::new(2);
        assert_eq!(told(&threads.mark(0, counts(1, 10))), []);
        assert_eq!(told(&threads.mark(1, counts(1, 5))), [(1, 1000, 15)]);
        // The second thread passes two ends without a look at them.
        assert_eq!(told(&threads.mark(0, counts(2, 20))), []);
        assert_eq!(told(&threads.mark(0, counts(3, 30))), []);
        assert_eq!(told(&threads.mark(1, counts(3, 15))), [(2, 2000, 30)]);
        // The first one is over; the other goes on alone.
        let last = Counts {
            last: true,
            ..counts(4, 35)
        };
        assert_eq!(told(&threads.mark(0, last)), []);
        assert_eq!(told(&threads.mark(1, counts(4, 20))), [(3, 1000, 10)]);
        assert_eq!(told(&threads.mark(1, counts(5, 25))), [(4, 1000, 5)]);
        // And so does the first of a pair of which the other one has failed.
        let mut threads = Threads::new(2);
        assert_eq!(told(&threads.mark(0, counts(1, 10))), []);
        assert_eq!(told(&threads.figures.over(1)), [(1, 1000, 10)]);
        assert!(!threads.figures.is_over());
    }
}
