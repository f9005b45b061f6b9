//! Sessions over invented paths between invented clocks: the truth is known.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "invented times are far from the bounds"
)]

use super::*;
use crate::report::Whose;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_pcg::Pcg64;

/// The reflector's clock minus ours, by true time: an offset, a frequency, and what happens to them.
#[derive(Clone, Debug, Default)]
struct TwoClocks {
    offset_ns: i64,
    ppm: f64,
    /// When the reflector's clock is set, and how far forward.
    peer_set: Vec<(i64, i64)>,
    /// When ours is.
    own_set: Vec<(i64, i64)>,
    /// From, until, parts per million.
    slews: Vec<(i64, i64, f64)>,
    /// Height and length of a wave.
    sine: Option<(f64, f64)>,
}

impl TwoClocks {
    fn ours(&self, now: i64) -> i64 {
        let set = self.own_set.iter().filter(|(at, _)| *at <= now);
        EPOCH + now + set.map(|(_, by)| by).sum::<i64>()
    }

    fn theirs(&self, now: i64) -> i64 {
        let set = self.peer_set.iter().filter(|(at, _)| *at <= now);
        let set: i64 = set.map(|(_, by)| by).sum();
        let slewed = self
            .slews
            .iter()
            .map(|&(from, until, ppm)| (now.clamp(from, until) - from) as f64 * ppm / 1e6);
        let drifted = now as f64 * self.ppm / 1e6 + slewed.sum::<f64>();
        let wave = self.sine.map_or(0.0, |(height, length)| {
            height * (now as f64 / length * std::f64::consts::TAU).sin()
        });
        EPOCH + now + self.offset_ns + set + (drifted + wave) as i64
    }
}

/// A path of one direction.
#[derive(Clone, Debug)]
struct Path {
    delay_ns: i64,
    /// When it becomes longer, by how much; and shorter again, where that is negative.
    changes: Vec<(i64, i64)>,
    /// Mean of a queue that is there some of the time.
    queue_ns: f64,
    busy: f64,
}

impl Path {
    /// The delay without a queue.
    fn base_ns(&self, now: i64) -> i64 {
        let changes = self.changes.iter().filter(|(at, _)| *at <= now);
        let longer: i64 = changes.map(|(_, by)| by).sum();
        self.delay_ns + longer.max(0)
    }

    fn delay(&self, now: i64, rng: &mut Pcg64) -> i64 {
        let queue = if rng.random_bool(self.busy) {
            -self.queue_ns * (1.0 - rng.random::<f64>()).ln()
        } else {
            rng.random_range(0.0..1000.0)
        };
        self.base_ns(now) + queue as i64
    }
}

#[derive(Clone, Debug)]
struct Session {
    clocks: TwoClocks,
    out: Path,
    back: Path,
    gap_ns: i64,
    packets: u64,
    loss: f64,
    outage: Option<(i64, i64)>,
    seed: u64,
}

impl Session {
    fn over(length_ns: i64, packets: u64) -> Self {
        let path = Path {
            delay_ns: 50_000,
            changes: Vec::new(),
            queue_ns: 0.0,
            busy: 0.0,
        };
        Self {
            clocks: TwoClocks::default(),
            out: path.clone(),
            back: path,
            gap_ns: length_ns / i64::try_from(packets).unwrap(),
            packets,
            loss: 0.0,
            outage: None,
            seed: 1,
        }
    }

    fn clocks(&self) -> Clocks {
        let mut rng = Pcg64::seed_from_u64(self.seed);
        let mut replies = Vec::new();
        for seq in 0..self.packets {
            let t1 = i64::try_from(seq).unwrap() * self.gap_ns;
            let t2 = t1 + self.out.delay(t1, &mut rng);
            let t3 = t2 + rng.random_range(1_000..20_000);
            let t4 = t3 + self.back.delay(t3, &mut rng);
            let lost = rng.random_bool(self.loss)
                || self
                    .outage
                    .is_some_and(|(from, until)| (from..until).contains(&t1));
            let set = |steps: &[(i64, i64)]| steps.iter().any(|(at, _)| (t1..=t4).contains(at));
            // The engine leaves out what was under way when our clock was set.
            if lost || set(&self.clocks.own_set) {
                continue;
            }
            replies.push((t4, seq, [t1, t2, t3]));
        }
        replies.sort_unstable();
        let mut clocks = Clocks::new(true);
        for (t4, seq, [t1, t2, t3]) in replies {
            let (ours, theirs) = (|at| self.clocks.ours(at), |at| self.clocks.theirs(at));
            let outbound_ns = theirs(t2) - ours(t1);
            let inbound_ns = ours(t4) - theirs(t3);
            if outbound_ns + inbound_ns < 0 || theirs(t3) < theirs(t2) {
                continue; // as `Delays` does
            }
            let at_ns = clocks.at(ours(t4));
            clocks.record(&Seen {
                at_ns,
                packets: Packets::of(seq, 1),
                t3_ns: theirs(t3),
                t4_ns: ours(t4),
                inbound_ns,
                outbound: Some((outbound_ns, Packets::of(seq, 1))),
                more: None,
                took_ns: ours(t4) - ours(t1),
            });
        }
        clocks
    }

    /// Some packets find both ways as short as they ever are: an error is told on that condition.
    fn is_shortest_at_once(&self) -> bool {
        let base = |seq: u64| {
            let t1 = seq.cast_signed() * self.gap_ns;
            let out = self.out.base_ns(t1);
            (out, self.back.base_ns(t1 + out))
        };
        let both = || (0..self.packets).map(base);
        let (out, back) = (
            both().map(|(out, _)| out).min(),
            both().map(|(_, back)| back).min(),
        );
        both().any(|(o, b)| (Some(o), Some(b)) == (out, back))
    }

    fn length(&self) -> i64 {
        self.gap_ns * i64::try_from(self.packets).unwrap()
    }
}

fn sizes(course: &Course) -> Vec<i64> {
    course.steps.iter().map(|step| step.by_ns).collect()
}

#[test]
fn a_clock_that_is_set_is_found_with_size_and_moment() {
    for by in [
        SECOND,
        -SECOND,
        -5 * SECOND,
        5 * MS,
        -MS,
        500_000,
        86_400 * SECOND,
        -20 * 365 * 86_400 * SECOND,
    ] {
        for (length, packets) in [(10 * SECOND, 10_000), (10 * SECOND, 10), (60 * SECOND, 60)] {
            let mut session = Session::over(length, packets);
            let at = length * 6 / 10 + 50_000_000;
            session.clocks.peer_set.push((at, by));
            session.clocks.ppm = 20.0;
            let course = session.clocks().course(&[]);
            let [step] = course.steps[..] else {
                panic!("{by} in {packets}: {course:?}")
            };
            assert!((step.by_ns - by).abs() < 200_000, "{by}: {step:?}");
            assert_eq!(step.whose, Whose::Remote);
            let window = length / 128 * 2 + session.gap_ns * 2;
            let late = step.at_ns - EPOCH - at;
            assert!((0..window).contains(&late), "{late}");
            // The first six tenths are the longest stretch.
            let (from, until) = course.stretch_ns();
            assert_eq!(from, None);
            assert!(until.unwrap() <= EPOCH + at);
            assert!(until.unwrap() >= EPOCH + at - window);
        }
    }
}

#[test]
fn our_own_clock_is_told_from_the_peers() {
    for by in [SECOND, -5 * SECOND, 2 * MS, -2 * MS, 3600 * SECOND] {
        let mut session = Session::over(10 * SECOND, 2_000);
        let at = 3 * SECOND;
        session.clocks.own_set.push((at, by));
        let own = OwnStep {
            after_ns: EPOCH + at - 5 * MS,
            until_ns: EPOCH + at + by + 5 * MS,
            by_ns: by,
        };
        let course = session.clocks().course(&[own]);
        assert_eq!(sizes(&course), [by]);
        assert_eq!(course.steps[0].whose, Whose::Local);
        let (from, until) = course.stretch_ns();
        assert!(from.unwrap() >= EPOCH + at + by);
        assert_eq!(until, None);
        // Nobody has to say so.
        let alone = session.clocks().course(&[]);
        assert!((alone.steps[0].by_ns + by).abs() < 50_000, "{alone:?}");
        assert_eq!(alone.stretch_ns(), course.stretch_ns());
    }
}

#[test]
fn our_own_clock_is_believed_where_the_path_hides_it_and_not_where_the_peer_shares_it() {
    let own = OwnStep {
        after_ns: EPOCH + 3 * SECOND - MS,
        until_ns: EPOCH + 3 * SECOND + 3 * MS,
        by_ns: 2 * MS,
    };
    let mut hidden = Session::over(10 * SECOND, 2_000);
    hidden.clocks.own_set.push((3 * SECOND, 2 * MS));
    (hidden.out.queue_ns, hidden.out.busy) = (20e6, 1.0);
    (hidden.back.queue_ns, hidden.back.busy) = (20e6, 1.0);
    assert_eq!(hidden.clocks().course(&[]).steps, []);
    let course = hidden.clocks().course(&[own]);
    assert_eq!(sizes(&course), [2 * MS]);
    assert!(course.stretch_ns().0.unwrap() >= own.until_ns - MS);

    let shared = Session::over(10 * SECOND, 2_000);
    let course = shared.clocks().course(&[own]);
    assert_eq!(course.steps, []);
    assert!(!course.is_part());
}

#[test]
fn drift_is_told_with_its_error_and_taken_out() {
    for ppm in [500.0, -500.0, 50.0, -8.0, 83_333.0] {
        let mut session = Session::over(10 * SECOND, 10_000);
        session.clocks.ppm = ppm;
        let clocks = session.clocks();
        let course = clocks.course(&[]);
        assert_eq!(course.steps, [], "{ppm}");
        let drift = course.drift.unwrap();
        assert!(
            (drift.ppm - ppm).abs() <= drift.error_ppm + 1e-6,
            "{drift:?}"
        );
        assert!(drift.error_ppm < 5.0, "{drift:?}");
        assert!(drift.is_certain() && !drift.bent, "{drift:?}");
        let left = clocks.outbound().delays().iter().map(|(kept, _)| {
            let moved = course.moved_ns(kept.left_ns());
            kept.delay_ns - moved
        });
        let (min, max) = left.fold((i64::MAX, i64::MIN), |(a, b), x| (a.min(x), b.max(x)));
        assert!(max - min < 20_000, "{ppm}: {min} to {max}");
    }
    let still = Session::over(10 * SECOND, 10_000).clocks().course(&[]);
    assert!(!still.drift.unwrap().is_certain(), "{still:?}");
    assert_eq!(still.spread_ns(EPOCH, EPOCH + 10 * SECOND), None);
}

#[test]
fn a_slew_in_mid_run_is_seen_and_followed() {
    for ppm in [83_333.0, -500.0, 100_000.0 / 1.5] {
        let mut session = Session::over(20 * SECOND, 20_000);
        session.clocks.slews.push((6 * SECOND, 11 * SECOND, ppm));
        let clocks = session.clocks();
        let course = clocks.course(&[]);
        assert_eq!(course.steps, [], "{ppm}");
        assert!(course.drift.unwrap().bent);
        let total = course.spread_ns(EPOCH, EPOCH + 20 * SECOND).unwrap();
        let expected = (ppm.abs() * 5e3) as u64;
        assert!(total.abs_diff(expected) < expected / 100, "{total}");
        let left = clocks.inbound().delays().iter().map(|(kept, _)| {
            let moved = course.moved_ns(kept.left_ns());
            kept.delay_ns + moved
        });
        let (min, max) = left.fold((i64::MAX, i64::MIN), |(a, b), x| (a.min(x), b.max(x)));
        assert!(max - min < 60_000, "{ppm}: {min} to {max}");
    }
}

/// The shortest round trip of all was the first, before the path became longer; it met a queue as well.
#[test]
fn one_packet_that_met_a_shorter_path_does_not_make_drift() {
    let path = |changes, busy| Path {
        delay_ns: 10_000,
        changes,
        queue_ns: 20_000.0,
        busy,
    };
    let session = Session {
        clocks: TwoClocks {
            ppm: 63.045_018_491_946_54,
            ..TwoClocks::default()
        },
        out: path(Vec::new(), 0.9),
        back: path(vec![(31_501_294, 32_853)], 0.2),
        gap_ns: 10_000_000,
        packets: 1000,
        loss: 0.013_655_666_433_147_673,
        outage: None,
        seed: 8_792_764_587_196_289_308,
    };
    let drift = session.clocks().course(&[]).drift.unwrap();
    assert!((drift.ppm - 63.045).abs() <= drift.error_ppm, "{drift:?}");
    assert!(drift.error_ppm < 10.0, "{drift:?}");
}

#[test]
fn a_clock_that_is_set_many_times_is_set_as_often_as_that() {
    for (by, and_back) in [
        (SECOND, false),
        (SECOND / 5, true),
        (SECOND / 2, true),
        (5 * SECOND, false),
        (10 * MS, false),
    ] {
        for (packets, times) in [(10_000, 4), (150, 4), (150, 5), (3_000, 12)] {
            let mut session = Session::over(15 * SECOND, packets);
            for step in 1..=times {
                let by = if and_back && step % 2 == 0 { -by } else { by };
                let at = 15 * SECOND * step / (times + 1) + 12_345_678;
                session.clocks.peer_set.push((at, by));
            }
            let clocks = session.clocks();
            let course = clocks.course(&[]);
            assert_eq!(
                i64::try_from(course.steps.len()).unwrap(),
                times,
                "{by} {course:?}"
            );
            for (found, (_, by)) in course.steps.iter().zip(&session.clocks.peer_set) {
                assert!((found.by_ns - by).abs() < 100_000, "{found:?} for {by}");
            }
            assert!(!course.drift.unwrap().is_certain(), "{course:?}");
            let stretch = clocks.outbound().delays().iter();
            let stretch = stretch.filter(|(kept, _)| course.covers(kept));
            let stretch: Vec<i64> = stretch.map(|(kept, _)| kept.delay_ns).collect();
            let range = stretch.iter().max().unwrap() - stretch.iter().min().unwrap();
            assert!(range < 100_000, "{by}: {range}");
        }
    }
}

#[test]
fn a_clock_that_is_set_all_the_time_is_not_followed() {
    let mut session = Session::over(10 * SECOND, 1_000);
    let mut rng = Pcg64::seed_from_u64(5);
    session.clocks.peer_set = (1..200_i64)
        .map(|step| (step * 50 * MS, rng.random_range(-SECOND..SECOND)))
        .collect();
    let clocks = session.clocks();
    let course = clocks.course(&[]);
    assert!(course.lost && course.is_part(), "{course:?}");
    assert_eq!((course.drift, course.steps.len()), (None, 0));
    let covered = clocks.outbound().delays().iter();
    assert_eq!(covered.filter(|(kept, _)| course.covers(kept)).count(), 0);
    assert_eq!(clocks.offset_ns(&course), None);
}

#[test]
fn a_clock_that_is_slewed_to_and_fro_is_not_set() {
    for (seed, queue_ns, busy) in (0..40).flat_map(|seed| {
        [
            (0.0, 0.0),
            (20e3, 0.2),
            (200e3, 0.2),
            (20e3, 0.9),
            (2e6, 0.1),
        ]
        .map(|(q, b)| (seed, q, b))
    }) {
        for packets in [100, 1000] {
            let mut session = Session::over(10 * SECOND, packets);
            session.seed = seed;
            (session.out.queue_ns, session.out.busy) = (queue_ns, busy);
            (session.back.queue_ns, session.back.busy) = (queue_ns, busy);
            session.clocks.sine = Some((1e6, 10e9));
            let course = session.clocks().course(&[]);
            assert_eq!(course.steps, [], "{seed} {queue_ns} {busy}");
        }
    }
}

/// The reflector's clock is read in steps of so many nanoseconds, of which one begins at `phase`.
fn coarse(step: i64, phase: i64) -> Course {
    let mut session = Session::over(10 * SECOND, 1_000);
    session.clocks.ppm = 30.0;
    let mut clocks = Clocks::new(true);
    let mut rng = Pcg64::seed_from_u64(3);
    for seq in 0..1000_u64 {
        let t1 = i64::try_from(seq).unwrap() * 10_000_000;
        let t2 = t1 + 40_000 + rng.random_range(0..10_000);
        let t3 = t2 + 2_000;
        let t4 = t3 + 40_000 + rng.random_range(0..10_000);
        let tick = |at| (session.clocks.theirs(at) - phase) / step * step + phase;
        let at_ns = clocks.at(EPOCH + t4);
        clocks.record(&Seen {
            at_ns,
            packets: Packets::of(seq, 1),
            t3_ns: tick(t3),
            t4_ns: EPOCH + t4,
            inbound_ns: EPOCH + t4 - tick(t3),
            outbound: Some((tick(t2) - EPOCH - t1, Packets::of(seq, 1))),
            more: None,
            took_ns: t4 - t1,
        });
    }
    clocks.course(&[])
}

#[test]
fn a_clock_of_coarse_ticks_is_not_set_at_each_of_them() {
    for (step, phase) in [
        (MS, 0),
        (4 * MS, 123_457),
        (15_625_000, 7_654_321),
        (10 * MS, 3_333_333),
        (100_000, 0),
        (SECOND, 0),
        (SECOND, 123_456_789),
    ] {
        let course = coarse(step, phase);
        // Packets that leave every 10 ms may show each tenth tick alone.
        let tick = course.tick_ns.unwrap().cast_signed();
        let off = (tick + 50).rem_euclid(step);
        assert!(tick <= 10 * step && off < 100, "{step} {phase}: {tick}");
        assert_eq!(course.steps, [], "{step} {phase}");
        assert!(!course.is_part(), "{step} {phase}");
        // 30 ppm are less than a step in the session's ten seconds.
        assert!(
            course.drift.is_none_or(|drift| !drift.is_certain()) || step <= MS,
            "{step} {phase}"
        );
    }
}

#[test]
fn one_reply_of_nonsense_is_no_clock() {
    let session = Session::over(10 * SECOND, 100);
    let mut clocks = session.clocks();
    for window in [20, 50, 51] {
        // Read in another format than it was written.
        let best = &mut clocks.windows[window].best;
        best.outbound_ns += 86_400 * SECOND;
        best.inbound_ns -= 86_400 * SECOND;
    }
    // One alone is passed over; two in a row are what a clock that was set and set back looks like.
    assert_eq!(clocks.course(&[]).steps.len(), 2);
}

#[test]
fn no_sample_no_course() {
    let empty = Clocks::new(false).course(&[]);
    assert_eq!(empty, Course::default());
    let one = Session::over(SECOND, 1).clocks().course(&[]);
    assert_eq!((one.drift, one.is_part()), (None, false));
}

#[test]
fn our_own_clock_is_set_where_its_distance_from_the_monotonic_one_changes() {
    let mut clock = OwnClock::default();
    let wall = EPOCH;
    assert_eq!(clock.read(1_000, wall, 1_100), None);
    // Both go on; an adjustment of 500 parts per million is none.
    assert_eq!(
        clock.read(1_000 + SECOND, wall + SECOND + 500_000, 1_100 + SECOND),
        None
    );
    // A day later the tolerance is no larger for a day before.
    let day = 86_400 * SECOND;
    assert_eq!(
        clock.read(1_000 + day, wall + day + 500_000, 1_000 + day),
        None
    );
    let (now, was) = (1_000 + day + MS, wall + day + 500_000 + MS);
    for by in [SECOND, -5 * SECOND, 2 * MS, -2 * MS] {
        let mut clock = clock;
        let step = clock.read(now, was + by, now).unwrap();
        assert_eq!(step.by_ns, by);
        assert_eq!(step.until_ns, was + by);
        assert_eq!(step.after_ns, was - MS);
        // And that was it.
        assert_eq!(clock.read(now + MS, was + by + MS, now + MS), None);
    }
    // Readings that an interruption tore apart say nothing, and spoil nothing.
    assert_eq!(clock.read(now, was + 5 * MS, now + 5 * MS), None);
    assert_eq!(clock.read(now + MS, was + MS, now + MS), None);
}

#[test]
fn the_tolerance_of_our_own_clock_grows_with_the_time_between_readings() {
    let mut clock = OwnClock::default();
    clock.read(0, EPOCH, 0);
    // 900 ppm over ten seconds, and a millisecond.
    assert_eq!(
        clock.read(10 * SECOND, EPOCH + 10 * SECOND + 9 * MS, 10 * SECOND),
        None
    );
    let mut clock = OwnClock::default();
    clock.read(0, EPOCH, 0);
    let step = clock.read(10 * SECOND, EPOCH + 10 * SECOND + 12 * MS, 10 * SECOND);
    assert_eq!(step.unwrap().by_ns, 12 * MS);
}

fn path() -> impl Strategy<Value = Path> {
    (
        prop_oneof![Just(10_000_i64), Just(1_000_000), Just(30_000_000)],
        prop_oneof![Just(0.0), Just(0.2), Just(0.9)],
        prop_oneof![Just(20e3), Just(2e6), Just(20e6)],
    )
        .prop_map(|(delay_ns, busy, queue_ns)| Path {
            delay_ns,
            changes: Vec::new(),
            queue_ns,
            busy,
        })
}

fn session() -> impl Strategy<Value = Session> {
    (
        (path(), path()),
        prop::collection::vec((0.0..1.0_f64, 0..3_u8, -20_000_000..20_000_000_i64), 0..4),
        prop_oneof![Just(12_u64), Just(100), Just(1000), Just(6000)],
        prop_oneof![Just(1_000_000_i64), Just(10_000_000), Just(1_000_000_000)],
        (0.0..0.2_f64, prop::option::of(0.0..1.0_f64), any::<u64>()),
        (-10_000_000_000_i64..10_000_000_000, -100.0..100.0_f64),
    )
        .prop_map(|(paths, changes, packets, gap_ns, trouble, clocks)| {
            let (mut out, mut back) = paths;
            let (loss, outage, seed) = trouble;
            let length = gap_ns * i64::try_from(packets).unwrap();
            let at = |part: f64| (length as f64 * part) as i64;
            for (part, where_, by) in changes {
                // In one direction, or both in the same sense.
                if where_ != 1 {
                    out.changes.push((at(part), by));
                }
                if where_ != 0 {
                    back.changes.push((at(part), by / 2));
                }
            }
            Session {
                clocks: TwoClocks {
                    offset_ns: clocks.0,
                    ppm: clocks.1,
                    ..TwoClocks::default()
                },
                out,
                back,
                gap_ns,
                packets,
                loss,
                outage: outage.map(|part| (at(part), at(part + 0.2))),
                seed,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 65_536, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_path_is_a_clock_that_was_set(session in session()) {
        let course = session.clocks().course(&[]);
        prop_assert!(course.steps.is_empty(), "{course:?}");
        prop_assert!(!course.is_part());
        prop_assert_eq!(course.tick_ns, None);
    }

    #[test]
    fn drift_is_within_its_error(session in session()) {
        prop_assume!(session.is_shortest_at_once());
        let course = session.clocks().course(&[]);
        if let Some(drift) = course.drift.filter(|drift| !drift.bent) {
            let off = (drift.ppm - session.clocks.ppm).abs();
            prop_assert!(off <= drift.error_ppm + 0.01, "{drift:?}");
        }
    }

    #[test]
    fn a_step_beyond_the_round_trip_is_found_on_any_path(
        session in session(),
        part in 0.2..0.8_f64,
        by in prop_oneof![2_000_000_000..90_000_000_000_i64, -90_000_000_000..-2_000_000_000_i64],
    ) {
        let mut session = session;
        let at = (session.length() as f64 * part) as i64;
        session.clocks.peer_set.push((at, by));
        let clocks = session.clocks();
        let course = clocks.course(&[]);
        let spread = |delays: &[i64]| {
            let ends = delays.iter().max().zip(delays.iter().min());
            ends.map_or(0, |(max, min)| max - min)
        };
        let all: Vec<i64> = clocks.outbound().delays().iter().map(|(kept, _)| kept.delay_ns).collect();
        // On one side of it are too few to be more than nonsense, or than a window of the session.
        let low = all.iter().min().map_or(0, |min| min + 1_000_000_000);
        let few = all.iter().filter(|delay| **delay < low).count();
        prop_assume!(few.min(all.len() - few) >= 12.max(all.len() * 2 / WINDOWS));
        prop_assert_eq!(course.steps.len(), 1, "{:?}", course);
        prop_assert!((course.steps[0].by_ns - by).abs() < 200_000_000, "{:?}", course);
        // No sample of one side is in the stretch with one of the other.
        let (from, until) = course.stretch_ns();
        prop_assert!(from.is_some() != until.is_some());
        let kept = clocks.outbound().delays().iter().filter(|(kept, _)| course.covers(kept));
        let delays: Vec<i64> = kept.map(|(kept, _)| kept.delay_ns).collect();
        prop_assert!(spread(&delays) < 1_500_000_000, "{delays:?}");
    }
}

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const EPOCH: i64 = 1_700_000_000 * SECOND;
