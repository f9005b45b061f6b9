//! A bundle is taken as its packets are, one by one.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use zerocopy::IntoBytes;

use super::super::side::Plan;
use super::super::tap::Tap;
use super::{BEGIN_NS, Bench, Heard, TIMEOUT_NS, at, came, packet, plan, reflector, reply};
use crate::config::WatchConfig;
use crate::engine::flight::Flight;
use crate::engine::intervals::{Begun, Counts};
use crate::engine::live;
use crate::engine::reflector::Reflector;
use crate::engine::reflector::train::stamp;
use crate::sample::Sample;
use crate::stats::clock::OwnStep;
use crate::wire::{Format, Timestamp};

const TRAINS: i64 = 60;
/// From one train to the next.
const GAP_NS: i64 = 100_000;

/// What is out of the ordinary in a session.
#[derive(Debug)]
struct Session {
    seed: u64,
    /// Packets of a granule, as a power of two, and of a train.
    shift: u32,
    burst: u64,
    replies_come_too_late: bool,
    numbers_begin_anew: bool,
    is_watched: bool,
    reflector_counts_nothing: bool,
    /// Before this train leaves.
    clock_is_set: Option<i64>,
    /// From this train on, those of one class: their packets leave one by one.
    trains_are_refused: i64,
}

impl Session {
    fn drawn(seed: u64, shift: u32, burst: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        Self {
            seed,
            shift,
            burst,
            replies_come_too_late: rng.random_bool(0.5),
            numbers_begin_anew: rng.random_bool(0.5),
            is_watched: rng.random_bool(0.5),
            reflector_counts_nothing: rng.random_bool(0.2),
            clock_is_set: rng.random_bool(0.2).then(|| rng.random_range(0..TRAINS)),
            trains_are_refused: rng.random_range(0..2 * TRAINS),
        }
    }

    fn plan(&self) -> Plan {
        Plan {
            payloads: vec![41; 2],
            timeout_ns: if self.replies_come_too_late {
                150_000
            } else {
                TIMEOUT_NS
            },
            first_seq: if self.numbers_begin_anew {
                u32::MAX - 300
            } else {
                0
            },
            ..plan(true)
        }
    }

    /// Happenings, and intervals of ten trains.
    fn tap(&self, plan: &Plan) -> Option<Tap> {
        let watch = WatchConfig {
            happenings: true,
            interval_ns: Some(10 * GAP_NS.unsigned_abs()),
            ..WatchConfig::default()
        };
        let begun = Begun {
            at_ns: 0,
            wall_ns: BEGIN_NS,
        };
        let tap = || Tap::new(watch, plan.timeout_ns, plan.format, begun);
        self.is_watched.then(tap)
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    ComesBack,
    IsLost,
    ComesTwice,
    ComesBackSpoiled,
}

impl Fate {
    fn drawn(rng: &mut Pcg64Mcg) -> Self {
        match rng.random_range(0..100) {
            0..5 => Self::IsLost,
            5..10 => Self::ComesTwice,
            10..12 => Self::ComesBackSpoiled,
            _ => Self::ComesBack,
        }
    }

    fn copies(self) -> usize {
        match self {
            Self::IsLost => 0,
            Self::ComesBack | Self::ComesBackSpoiled => 1,
            Self::ComesTwice => 2,
        }
    }
}

/// What is out of the ordinary with a train.
struct Train {
    t1_ns: i64,
    class: u8,
    asks_for_stamp: bool,
    tells_no_time: bool,
    last_reply_is_cut: bool,
    /// Replies wait until the next train has left as well.
    comes_later: bool,
    comes_before_those_that_wait: bool,
}

impl Train {
    fn drawn(rng: &mut Pcg64Mcg, number: i64) -> Self {
        Self {
            t1_ns: BEGIN_NS + number * GAP_NS,
            class: u8::from(rng.random_bool(0.1)),
            asks_for_stamp: rng.random_bool(0.5),
            tells_no_time: rng.random_bool(0.05),
            last_reply_is_cut: rng.random_bool(0.1),
            comes_later: rng.random_bool(0.3),
            comes_before_those_that_wait: rng.random_bool(0.2),
        }
    }

    fn payload(&self) -> usize {
        if self.class == 0 { 64 } else { 48 }
    }
}

/// A bundle under way: its octets, those of a packet of it, and when it comes.
type Bundle = (Vec<u8>, usize, i64);

/// A session that goes on.
struct Run<'a> {
    session: &'a Session,
    rng: Pcg64Mcg,
    flight: &'a Flight,
    bench: Bench<'a>,
    first_seq: u32,
    mirror: Reflector,
    seq: u64,
    /// The first packet of all that left together.
    firsts: Vec<u64>,
    waiting: Vec<Bundle>,
    /// Packets that came since all that waited was recorded.
    came: usize,
}

impl<'a> Run<'a> {
    fn new(session: &'a Session, flight: &'a Flight) -> Self {
        let plan = session.plan();
        let tap = session.tap(&plan);
        let stateless = session.reflector_counts_nothing;
        Self {
            session,
            rng: Pcg64Mcg::seed_from_u64(!session.seed),
            flight,
            bench: Bench::watched(&plan, flight, tap, BEGIN_NS),
            first_seq: plan.first_seq,
            mirror: reflector(stateless, Format::Ntp),
            seq: 0,
            firsts: Vec::new(),
            waiting: Vec::new(),
            came: 0,
        }
    }

    /// A train leaves; returns the number of the packet after it.
    fn leave(&mut self, train: &Train, refused: bool) -> u64 {
        let (sender, burst) = (self.flight.sender(), self.session.burst);
        let t1 = Timestamp::from_unix_ns(train.t1_ns, Format::Ntp).raw();
        let together = if refused && train.class == 0 {
            1
        } else {
            burst
        };
        let end = self.seq + burst;
        for first in (self.seq..end).step_by(usize::try_from(together).unwrap()) {
            sender.note(first, together, t1, train.class, train.asks_for_stamp);
            self.firsts.push(first);
        }
        sender.attempt(end);
        sender.depart(end);
        end
    }

    /// The replies to the packets from `self.seq` to `end`.
    fn replies(&mut self, train: &Train, end: u64) -> Vec<u8> {
        let t1 = Timestamp::from_unix_ns(train.t1_ns, Format::Ntp);
        let mut bundle = Vec::new();
        for number in self.seq..end {
            let number = u32::try_from(number).unwrap();
            let request = packet(self.first_seq.wrapping_add(number), t1);
            let mut octets = request.as_bytes().to_vec();
            octets.resize(train.payload(), self.rng.random());
            let fate = Fate::drawn(&mut self.rng);
            for _ in 0..fate.copies() {
                let t2_ns = train.t1_ns + 5000;
                let mut octets = reply(&mut self.mirror, &octets, t2_ns, Format::Ntp);
                if train.tells_no_time {
                    stamp(&mut octets, Timestamp::from_raw(0));
                }
                if fate == Fate::ComesBackSpoiled {
                    let at = self.rng.random_range(0..octets.len());
                    octets[at] ^= 1 << self.rng.random_range(0..8);
                }
                bundle.extend(octets);
            }
        }
        if train.last_reply_is_cut && !bundle.is_empty() {
            bundle.truncate(bundle.len() - train.payload() / 2);
        }
        bundle
    }

    /// Some stamps of what is still under way come.
    fn stamp(&mut self, ns: i64) {
        let seq = self.seq;
        for first in self.firsts.iter().filter(|first| seq - **first <= 512) {
            if self.rng.random_bool(0.2) {
                self.bench.departed(*first, ns);
            }
        }
    }

    /// All bundles that are under way come; `split`: as their packets, one by one.
    fn arrive(&mut self, split: bool) {
        for (bundle, payload, t4_ns) in self.waiting.drain(..) {
            let step = payload.min(bundle.len());
            self.came += bundle.len() / step;
            let ttl = self.rng.random_range(63..65);
            let parts = if split { step } else { bundle.len() };
            for octets in bundle.chunks(parts) {
                self.bench.datagram(&came(octets, Some(step), t4_ns, ttl));
            }
        }
    }

    fn pass(&mut self, number: i64, split: bool) {
        let train = Train::drawn(&mut self.rng, number);
        if self.session.clock_is_set == Some(number) {
            self.bench.side.on_clock_set(OwnStep {
                after_ns: 1,
                until_ns: 2,
                by_ns: 3,
            });
        }
        let refused = number >= self.session.trains_are_refused;
        if number == self.session.trains_are_refused {
            self.flight.sender().take_apart(self.seq);
        }
        let end = self.leave(&train, refused);
        let bundle = self.replies(&train, end);
        if !bundle.is_empty() {
            let t4_ns = train.t1_ns + self.rng.random_range(20_000..200_000);
            self.waiting.push((bundle, train.payload(), t4_ns));
        }
        let granule = if refused { 1 } else { 1 << self.session.shift };
        self.seq += (end - self.seq).next_multiple_of(granule);
        if train.comes_later {
            return;
        }
        if train.comes_before_those_that_wait {
            self.waiting.reverse();
        }
        self.stamp(train.t1_ns + 300);
        self.arrive(split);
        let now = (number + 1) * GAP_NS;
        // Before there is no room for more of them, which are more where they come one by one.
        let give_up = self.came > 300;
        self.came = if give_up { 0 } else { self.came };
        let Bench { side, heard, .. } = &mut self.bench;
        side.release(if give_up { i64::MAX } else { now }, heard);
        side.tick(at(now, BEGIN_NS + now), true, 0, heard);
        self.bench.now = at(now, BEGIN_NS + now);
    }
}

/// What was found, the samples of each packet, what happened, and the counts of intervals without their ends.
type Found = (String, Vec<Sample>, Vec<live::Record>, Vec<Counts>);

fn found(session: &Session, split: bool) -> Found {
    let flight = Flight::new(1024, session.shift);
    let burst = u32::try_from(session.burst).unwrap();
    flight.sender().set_burst(burst);
    let mut run = Run::new(session, &flight);
    for number in 0..TRAINS {
        run.pass(number, split);
    }
    let (received, heard) = run.bench.finish(run.seq);
    let Heard {
        samples,
        marks,
        happened,
        ..
    } = heard;
    assert!(!split || samples.iter().all(|sample| sample.count == 1));
    let mut each: Vec<_> = samples.iter().flat_map(one_by_one).collect();
    each.sort_by_key(|sample| sample.seq);
    let marks = marks.iter().map(|counts| Counts {
        at_ns: 0,
        wall_ns: 0,
        ..*counts
    });
    (format!("{received:?}"), each, happened, marks.collect())
}

fn one_by_one(all: &Sample) -> impl Iterator<Item = Sample> {
    let all = *all;
    (0..all.count).map(move |n| Sample {
        seq: all.seq + u64::from(n),
        count: 1,
        ..all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_bundle_is_taken_as_its_packets_are(seed: u64, shift in 0_u32..4, burst in 1_u64..40) {
        let session = Session::drawn(seed, shift, burst);
        let (together, each) = (found(&session, false), found(&session, true));
        prop_assert_eq!(together.0, each.0);
        prop_assert_eq!(together.1, each.1);
        prop_assert_eq!(together.2, each.2);
        prop_assert_eq!(together.3, each.3);
    }
}
