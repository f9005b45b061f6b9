//! What a session's delays tell of the two clocks: when one was set, and how they drift apart.
//!
//! Of a reply with outbound delay o and inbound delay i the reflector's clock is (o - i) / 2 ahead of
//! ours, and wrong by at most half of what its round trip takes longer than the shortest one, as long
//! as the way there and the way back each have their own shortest delay (RFC 5905 §8). Windows of the
//! session keep the reply with the shortest round trip each. The offset's course is then the fewest
//! straight lines that pass all windows within their errors: a path that gets longer or shorter in
//! one direction, or in both, and queues that come and go widen an error and bend no line. Where two
//! lines do not meet, a clock was set; where they meet at an angle, one began or ceased to be
//! slewed. What would be neither for sure says nothing.
//!
//! Fed by the stats thread in order of arrival; constant memory, and no allocation after construction
//! but for `Clocks::course`.

use super::float;
use super::kept::Kept;
pub(super) use super::kept::Timed;
use super::packets::Packets;
use crate::report::Whose;

/// What is kept of a session for its clocks.
#[derive(Clone, Debug)]
pub(super) struct Clocks {
    windows: Vec<Window>,
    /// Samples of a window.
    per_window: u64,
    /// Samples in the last window.
    in_last: u64,
    /// Arrival of the newest reply, by a clock that is ours, but is never set back.
    latest_ns: i64,
    /// That clock minus ours.
    ahead_ns: i64,
    /// The newest outbound delay.
    last_outbound: Option<Timed>,
    /// A session has begun.
    begun: bool,
    outbound: Kept,
    inbound: Kept,
    ticks: Ticks,
}

/// One reply, or several with the same timestamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) packets: Packets,
    pub(super) t3_ns: i64,
    pub(super) t4_ns: i64,
    /// The same by [`Clocks::at`].
    pub(super) at_ns: i64,
    pub(super) inbound_ns: i64,
    /// The outbound delay, and the packets that it stands for; `None` where T1 is not known.
    pub(super) outbound: Option<(i64, Packets)>,
    /// Further ones that the outbound delay before stands for.
    pub(super) more: Option<Packets>,
    /// T4 - T1 of user space; 0 where that is not known.
    pub(super) took_ns: i64,
}

/// A moment at which our own clock is known to have been set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnStep {
    /// It was not yet set then, by the clock as it was before.
    pub after_ns: i64,
    /// It had been set then, by the clock as it was afterwards.
    pub until_ns: i64,
    /// How far forward.
    pub by_ns: i64,
}

/// The reply with the shortest round trip of a part of the session.
#[derive(Clone, Copy, Debug)]
struct Best {
    at_ns: i64,
    t4_ns: i64,
    outbound_ns: i64,
    inbound_ns: i64,
    took_ns: i64,
}

impl Best {
    fn roundtrip(&self) -> i64 {
        self.outbound_ns.saturating_add(self.inbound_ns)
    }

    /// Twice the reflector's clock minus ours, if the path is symmetric.
    fn twice_offset(&self) -> i128 {
        i128::from(self.outbound_ns) - i128::from(self.inbound_ns)
    }
}

/// A part of the session.
#[derive(Clone, Copy, Debug)]
struct Window {
    best: Best,
    outbound: Extremes,
    inbound: Extremes,
}

/// The smallest and the largest delay, with their times.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    min: Timed,
    max: Timed,
}

impl Extremes {
    fn of(timed: Timed) -> Self {
        Self {
            min: timed,
            max: timed,
        }
    }

    fn both(&self) -> [Timed; 2] {
        [self.min, self.max]
    }

    fn add(&mut self, other: &Self) {
        if other.min.delay_ns < self.min.delay_ns {
            self.min = other.min;
        }
        if other.max.delay_ns > self.max.delay_ns {
            self.max = other.max;
        }
    }
}

impl Window {
    fn add(&mut self, other: &Self) {
        if other.best.roundtrip() < self.best.roundtrip() {
            self.best = other.best;
        }
        self.outbound.add(&other.outbound);
        self.inbound.add(&other.inbound);
    }
}

impl Clocks {
    /// With `at_once` all memory is taken now; else a tenth of it, as replies come.
    pub(super) fn new(at_once: bool) -> Self {
        let kept = || {
            if at_once {
                Kept::new(KEPT, true)
            } else {
                Kept::new(KEPT / 16, false)
            }
        };
        Self {
            windows: Vec::with_capacity(if at_once { WINDOWS } else { 0 }),
            per_window: 1,
            in_last: 0,
            latest_ns: 0,
            ahead_ns: 0,
            last_outbound: None,
            begun: false,
            outbound: kept(),
            inbound: kept(),
            ticks: Ticks::default(),
        }
    }

    /// Adds replies; to be called in order of arrival.
    pub(super) fn record(&mut self, seen: &Seen) {
        let at_ns = seen.at_ns;
        let timed = |delay_ns| Timed {
            at_ns,
            took_ns: seen.took_ns,
            delay_ns,
        };
        self.ticks.read(seen.t3_ns);
        let inbound = timed(seen.inbound_ns);
        self.inbound.record(inbound, seen.packets);
        let Some((outbound_ns, packets)) = seen.outbound else {
            return;
        };
        let outbound = timed(outbound_ns);
        if let Some((before, more)) = self.last_outbound.replace(outbound).zip(seen.more) {
            self.outbound.record(before, more);
        }
        self.outbound.record(outbound, packets);
        let window = Window {
            best: Best {
                at_ns,
                t4_ns: seen.t4_ns,
                outbound_ns,
                inbound_ns: seen.inbound_ns,
                took_ns: seen.took_ns,
            },
            outbound: Extremes::of(outbound),
            inbound: Extremes::of(inbound),
        };
        self.in_last += 1;
        if let Some(last) = self.windows.last_mut()
            && self.in_last <= self.per_window
        {
            last.add(&window);
            return;
        }
        if self.windows.len() == WINDOWS {
            for at in 0..WINDOWS / 2 {
                let mut both = self.windows[2 * at];
                both.add(&self.windows[2 * at + 1]);
                self.windows[at] = both;
            }
            self.windows.truncate(WINDOWS / 2);
            self.per_window *= 2;
        }
        self.windows.push(window);
        self.in_last = 1;
    }

    /// T4 by a clock that is never set back; to be called in order of arrival.
    pub(super) fn at(&mut self, t4_ns: i64) -> i64 {
        let mut at_ns = t4_ns.saturating_add(self.ahead_ns);
        if self.begun && at_ns < self.latest_ns {
            let back_ns = self.latest_ns.saturating_sub(at_ns);
            if back_ns > DISORDER_NS {
                self.ahead_ns = self.ahead_ns.saturating_add(back_ns);
            }
            at_ns = self.latest_ns;
        }
        self.begun = true;
        self.latest_ns = at_ns;
        at_ns
    }

    /// T1 is of another kind from now on: forgets what rests on it.
    pub(super) fn start_over(&mut self) {
        self.windows.clear();
        (self.per_window, self.in_last) = (1, 0);
        self.outbound.clear();
        self.last_outbound = None;
    }

    /// Forgets all; allocates nothing.
    pub(super) fn clear(&mut self) {
        self.start_over();
        self.inbound.clear();
        self.ticks = Ticks::default();
        (self.begun, self.latest_ns, self.ahead_ns) = (false, 0, 0);
    }

    /// Adds another flow between the same clocks. Their course is then told by the one with more
    /// samples: paths of several flows may differ.
    ///
    /// Where the other's T1 is of another kind, only inbound delays are added.
    pub(super) fn merge(&mut self, other: &Self, comparable: bool) {
        self.inbound.merge(&other.inbound);
        if !comparable {
            return;
        }
        self.outbound.merge(&other.outbound);
        let samples = |clocks: &Self| {
            clocks
                .per_window
                .saturating_mul(clocks.windows.len() as u64)
        };
        let mut fewer = other.windows.clone();
        if samples(other) > samples(self) {
            std::mem::swap(&mut self.windows, &mut fewer);
            (self.per_window, self.in_last) = (other.per_window, other.in_last);
            self.ticks = other.ticks;
        }
        // The extremes are of all flows.
        for window in &fewer {
            for timed in window.outbound.both() {
                self.window_at(timed.at_ns)
                    .outbound
                    .add(&Extremes::of(timed));
            }
            for timed in window.inbound.both() {
                self.window_at(timed.at_ns)
                    .inbound
                    .add(&Extremes::of(timed));
            }
        }
    }

    /// The window of that moment; there is one.
    fn window_at(&mut self, at_ns: i64) -> &mut Window {
        let begun = self
            .windows
            .partition_point(|window| window.best.at_ns <= at_ns);
        &mut self.windows[begun.saturating_sub(1)]
    }

    /// Reflector's clock minus ours by the reply with the shortest round trip of the stretch.
    pub(super) fn offset_ns(&self, course: &Course) -> Option<i64> {
        let of_stretch = self
            .windows
            .iter()
            .map(|window| &window.best)
            .filter(|best| {
                course.covers(&Timed {
                    at_ns: best.at_ns,
                    took_ns: best.took_ns,
                    delay_ns: best.inbound_ns,
                })
            });
        let best = of_stretch.min_by_key(|best| best.roundtrip())?;
        i64::try_from(best.twice_offset() / 2).ok()
    }

    pub(super) fn outbound(&self) -> &Kept {
        &self.outbound
    }

    pub(super) fn inbound(&self) -> &Kept {
        &self.inbound
    }

    /// Smallest and largest outbound delays of each window, by their times.
    pub(super) fn outbound_extremes(&self) -> impl Iterator<Item = &Timed> + '_ {
        self.windows
            .iter()
            .flat_map(|window| [&window.outbound.min, &window.outbound.max])
    }

    /// The same of inbound delays.
    pub(super) fn inbound_extremes(&self) -> impl Iterator<Item = &Timed> + '_ {
        self.windows
            .iter()
            .flat_map(|window| [&window.inbound.min, &window.inbound.max])
    }

    /// What the clocks did, where `own` are the moments at which ours is known to have been set.
    pub(super) fn course(&self, own: &[OwnStep]) -> Course {
        Course {
            tick_ns: self
                .ticks
                .known()
                .map(|tick| nanoseconds(tick).unsigned_abs()),
            ..course_of(&self.points(), own)
        }
    }

    /// The windows' offsets with their errors.
    fn points(&self) -> Vec<Point> {
        let Some(first) = self.windows.first().map(|window| window.best) else {
            return Vec::new();
        };
        let tick = self.ticks.known().unwrap_or(0.0);
        let left = |best: &Best| best.at_ns.saturating_sub(best.took_ns);
        let first_ns = left(&first);
        let point = |window: &Window| {
            let best = window.best;
            Point {
                at_ns: best.at_ns,
                t4_ns: best.t4_ns,
                took_ns: best.took_ns,
                since_s: float(i128::from(left(&best)) - i128::from(first_ns)) / 1e9,
                offset: float(best.twice_offset() - first.twice_offset()) / 2.0,
                roundtrip: float(best.roundtrip().into()),
                error: 0.0,
                tick,
            }
        };
        let mut points: Vec<Point> = self.windows.iter().map(point).collect();
        points.sort_by(|a, b| a.since_s.total_cmp(&b.since_s));
        let shortest = points
            .iter()
            .map(|point| point.roundtrip)
            .fold(f64::INFINITY, f64::min);
        let known = (points.len() >= ENOUGH).then(|| {
            let bends = points.windows(3).map(|three| {
                let [a, b, c] = three else { return 0.0 };
                let share = (b.since_s - a.since_s) / (c.since_s - a.since_s).max(1e-9);
                (b.offset - a.offset - (c.offset - a.offset) * share).abs()
            });
            let changes = points
                .windows(2)
                .map(|pair| (pair[1].roundtrip - pair[0].roundtrip).abs());
            5.0 * median(bends.collect()) + median(changes.collect())
        });
        let coarse = tick + READING_NS;
        for point in &mut points {
            // No delay is negative: that much is certain.
            let most = point.roundtrip / 2.0;
            let likely = known.map(|noise| (point.roundtrip - shortest) / 2.0 + noise);
            point.error = likely.map_or(most, |likely| likely.min(most)) + coarse;
        }
        points
    }
}

/// Tells a clock that is read in coarse ticks: the times that it shows are apart by whole ticks, of which
/// the greatest common divisor is one.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    /// The time before.
    last_ns: Option<i64>,
    /// All times so far are apart by multiples of this; 0 before there are two.
    tick: f64,
    /// The largest error of that.
    error: f64,
    /// What speaks against that being by chance, in bits.
    evidence: f64,
}

impl Ticks {
    /// Takes the next time that the clock showed.
    fn read(&mut self, now_ns: i64) {
        let Some(last_ns) = self.last_ns.replace(now_ns) else {
            return;
        };
        // A finer tick is none.
        if (1.0..=READING_NS).contains(&self.tick) || now_ns == last_ns {
            return;
        }
        let apart = float(now_ns.abs_diff(last_ns).into());
        if self.tick == 0.0 {
            (self.tick, self.error) = (apart, ROUNDING_NS);
            return;
        }
        let times = (apart / self.tick).round();
        let off = (apart - times * self.tick).abs();
        // Its frequency may change by a millionth.
        let reading = ROUNDING_NS + apart / 1e6;
        let allowed = reading + times * self.error;
        if allowed > self.tick / 8.0 {
            return; // this long after the one before, anything is a multiple
        }
        if off <= allowed {
            self.evidence += (self.tick / (2.0 * allowed)).log2();
            if times > 0.0 && reading / times < self.error {
                (self.tick, self.error) = (apart / times, reading / times);
            }
            return;
        }
        let mut rest = off;
        while rest > allowed {
            (self.tick, rest) = (rest, self.tick % rest);
        }
        (self.error, self.evidence) = (ROUNDING_NS * (times + 1.0), 0.0);
    }

    /// The tick, in nanoseconds, where the clock is certainly read in such.
    fn known(&self) -> Option<f64> {
        (self.tick > READING_NS && self.evidence >= NO_CHANCE_BITS).then_some(self.tick)
    }
}

/// What the clocks did in a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// When one was set, in their order.
    pub steps: Vec<Step>,
    /// Of the longest stretch between them.
    pub drift: Option<Drift>,
    /// The reflector's clock is read in steps of so many nanoseconds, where these are coarse.
    pub tick_ns: Option<u64>,
    /// A clock was set too often to be followed: no stretch is known to be without.
    pub lost: bool,
    /// How the reflector's clock moves against ours in that stretch; empty where that is not known.
    pieces: Vec<Piece>,
    /// The stretch, by the time of [`Clocks`] and by our own clock.
    from: Option<Moment>,
    until: Option<Moment>,
}

/// A clock that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// By our clock: of the first reply afterwards that is known to have come afterwards.
    pub at_ns: i64,
    /// How far that clock was set forward.
    pub by_ns: i64,
    /// Which clock.
    pub whose: Whose,
}

/// How fast the reflector's clock moves against ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Parts per million, on the average; positive where it is the faster one.
    pub ppm: f64,
    /// The largest error of that.
    pub error_ppm: f64,
    /// One of the clocks changed its frequency.
    pub bent: bool,
}

impl Drift {
    /// There is one beyond the error.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.bent || self.ppm.abs() > self.error_ppm
    }
}

/// A moment by the time of [`Clocks`] and by our own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    at_ns: i64,
    t4_ns: i64,
}

/// A straight part of the offset's course, from `from_ns` until the next one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    from_ns: i64,
    offset_ns: f64,
    /// Nanoseconds a second.
    slope: f64,
}

impl Course {
    /// Whether a packet was under way within the stretch alone.
    pub(super) fn covers(&self, delay: &Timed) -> bool {
        !self.lost
            && self.from.is_none_or(|from| from.at_ns <= delay.left_ns())
            && self.until.is_none_or(|until| delay.at_ns <= until.at_ns)
    }

    /// The stretch is a part of the session alone, or there is none.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.lost || self.from.is_some() || self.until.is_some()
    }

    /// Begin and end of the stretch by our clock, where they are not those of the session.
    #[must_use]
    pub fn stretch_ns(&self) -> (Option<i64>, Option<i64>) {
        let t4 = |moment: Option<Moment>| moment.map(|moment| moment.t4_ns);
        (t4(self.from), t4(self.until))
    }

    /// How far the reflector's clock had moved against ours when a packet left, in nanoseconds.
    pub(super) fn moved_ns(&self, left_ns: i64) -> i64 {
        let later = self
            .pieces
            .partition_point(|piece| piece.from_ns <= left_ns);
        let Some(piece) = self.pieces.get(later.saturating_sub(1)) else {
            return 0;
        };
        let since_s = float(i128::from(left_ns) - i128::from(piece.from_ns)) / 1e9;
        nanoseconds(piece.offset_ns + piece.slope * since_s)
    }

    /// The fastest drift, as a share of time.
    pub(super) fn fastest(&self) -> f64 {
        let slopes = self.pieces.iter().map(|piece| piece.slope.abs() / 1e9);
        slopes.fold(0.0, f64::max)
    }

    /// What the drift adds to the spread of one-way delays between two moments; `None` where there is
    /// none for sure.
    pub(super) fn spread_ns(&self, first_ns: i64, last_ns: i64) -> Option<u64> {
        if !self.drift.is_some_and(|drift| drift.is_certain()) {
            return None;
        }
        let knees = self.pieces.iter().skip(1).map(|piece| piece.from_ns);
        let knees = knees.filter(|knee| (first_ns..=last_ns).contains(knee));
        let moved = knees.chain([first_ns, last_ns]).map(|at| self.moved_ns(at));
        let (least, most) = moved.fold((i64::MAX, i64::MIN), |(least, most), moved| {
            (least.min(moved), most.max(moved))
        });
        Some(most.abs_diff(least))
    }
}

/// Decides from readings of two clocks whether our own was set in between.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnClock {
    /// The reading before: the monotonic clock, and the system's minus that.
    before: Option<(i64, i64)>,
}

impl OwnClock {
    /// Takes a reading of the system's clock between two of the monotonic one; says whether it was set
    /// since the one before.
    pub fn read(&mut self, before_ns: i64, wall_ns: i64, after_ns: i64) -> Option<OwnStep> {
        if after_ns.saturating_sub(before_ns) > OWN_STEP_NS / 10 {
            // This thread was interrupted: the readings do not belong together.
            return None;
        }
        let offset = wall_ns.saturating_sub(before_ns);
        let (then, was) = self.before.replace((before_ns, offset))?;
        let by_ns = offset.saturating_sub(was);
        // An adjustment may change the rate by 500 parts per million: both clocks have it, but for a
        // kernel that does it otherwise.
        let allowed = OWN_STEP_NS.saturating_add(before_ns.saturating_sub(then).max(0) / 1000);
        (by_ns.saturating_abs() > allowed).then_some(OwnStep {
            after_ns: then.saturating_add(was),
            until_ns: wall_ns,
            by_ns,
        })
    }
}

/// The offset in a window: its line passes within `error` of it.
#[derive(Clone, Copy, Debug)]
struct Point {
    at_ns: i64,
    t4_ns: i64,
    /// From the request's departure.
    took_ns: i64,
    /// When its request left, since that of the first one, in seconds.
    since_s: f64,
    /// Since the first one, in nanoseconds.
    offset: f64,
    roundtrip: f64,
    error: f64,
    /// The clock is read in steps of so many nanoseconds, where these are coarse.
    tick: f64,
}

impl Point {
    fn left_ns(&self) -> i64 {
        self.at_ns.saturating_sub(self.took_ns)
    }
}

/// Points that a straight line passes within their errors.
#[derive(Clone, Debug)]
struct Line {
    /// Those that it passes, by index.
    points: Vec<usize>,
    /// Its slope is between these, in nanoseconds a second.
    slopes: (f64, f64),
    /// The best one: where it is at `middle_s`.
    slope: f64,
    middle_s: f64,
    offset: f64,
}

impl Line {
    fn new(point: usize) -> Self {
        Self {
            points: vec![point],
            slopes: (-MOST_SLOPE, MOST_SLOPE),
            slope: 0.0,
            middle_s: 0.0,
            offset: 0.0,
        }
    }

    /// The slopes that remain with a further point; `None` where there is none.
    fn with(&self, next: usize, points: &[Point]) -> Option<(f64, f64)> {
        let (mut least, mut most) = self.slopes;
        let to = &points[next];
        for from in self.points.iter().map(|index| &points[*index]) {
            let (low, high) = slopes_between(from, to);
            (least, most) = (least.max(low), most.min(high));
        }
        (least <= most).then_some((least, most))
    }

    /// The slopes that remain where any one of the points may be off by more than its error: an error is what
    /// the others make likely, and a packet that met the only short queue knows nothing of its own.
    fn slopes_without_any(&self, points: &[Point]) -> (f64, f64) {
        let without = |left_out: Option<usize>| {
            let kept = self.points.iter().filter(|at| Some(**at) != left_out);
            let kept: Vec<usize> = kept.copied().collect();
            let mut least = (-MOST_SLOPE, [0; 2]);
            let mut most = (MOST_SLOPE, [0; 2]);
            for (at, from) in kept.iter().enumerate() {
                for to in &kept[at + 1..] {
                    let (low, high) = slopes_between(&points[*from], &points[*to]);
                    if low > least.0 {
                        least = (low, [*from, *to]);
                    }
                    if high < most.0 {
                        most = (high, [*from, *to]);
                    }
                }
            }
            (least, most)
        };
        let (mut least, mut most) = without(None);
        for left_out in [least.1, most.1].concat() {
            let (lower, upper) = without(Some(left_out));
            (least.0, most.0) = (least.0.min(lower.0), most.0.max(upper.0));
        }
        (least.0, most.0)
    }

    /// Goes on to a further point where it can pass it.
    fn take(&mut self, next: usize, points: &[Point]) -> bool {
        let slopes = self.with(next, points);
        if let Some(slopes) = slopes {
            self.slopes = slopes;
            self.points.push(next);
        }
        slopes.is_some()
    }

    /// Least squares, with the slope that the errors allow.
    fn fit(&mut self, points: &[Point]) {
        let each = || self.points.iter().map(|index| &points[*index]);
        let weight = |point: &Point| 1.0 / (point.error * point.error);
        let sum = |f: &dyn Fn(&Point) -> f64| each().map(|point| f(point) * weight(point)).sum();
        let weights: f64 = sum(&|_| 1.0);
        let middle: f64 = sum(&|point| point.since_s) / weights;
        let mean: f64 = sum(&|point| point.offset) / weights;
        let squares: f64 = sum(&|point| (point.since_s - middle).powi(2));
        let products: f64 = sum(&|point| (point.since_s - middle) * (point.offset - mean));
        let slope = if squares > 0.0 {
            products / squares
        } else {
            0.0
        };
        // Two points have a line through them whatever became of the clocks in between.
        let few = self.points.len() < CONFIRMED;
        self.slope = if few {
            0.0
        } else {
            slope.clamp(self.slopes.0, self.slopes.1)
        };
        (self.middle_s, self.offset) = (middle, mean);
    }

    fn at(&self, since_s: f64) -> f64 {
        self.offset + self.slope * (since_s - self.middle_s)
    }

    /// The slope of its first or its last points.
    fn slope_at(&self, points: &[Point], last: bool) -> f64 {
        let count = self.points.len().min(CONFIRMED);
        let near = if last {
            &self.points[self.points.len() - count..]
        } else {
            &self.points[..count]
        };
        let (from, to) = (&points[near[0]], &points[near[count - 1]]);
        let time = to.since_s - from.since_s;
        if time > 0.0 {
            (to.offset - from.offset) / time
        } else {
            self.slope
        }
    }

    /// When the first of its replies came: whatever left later is of the same stretch or a later one.
    fn came(&self, points: &[Point]) -> Option<Moment> {
        let came = self.points.iter().map(|index| Moment {
            at_ns: points[*index].at_ns,
            t4_ns: points[*index].t4_ns,
        });
        came.min_by_key(|moment| moment.at_ns)
    }

    /// When the last of its requests left: whatever came before is of the same stretch or an earlier one.
    fn left(&self, points: &[Point]) -> Option<Moment> {
        let left = self.points.iter().map(|index| {
            let point = &points[*index];
            Moment {
                at_ns: point.left_ns(),
                t4_ns: point.t4_ns.saturating_sub(point.took_ns),
            }
        });
        left.max_by_key(|moment| moment.at_ns)
    }

    fn first<'a>(&self, points: &'a [Point]) -> &'a Point {
        &points[self.points[0]]
    }

    fn last<'a>(&self, points: &'a [Point]) -> &'a Point {
        &points[self.points[self.points.len() - 1]]
    }
}

/// The slopes of lines that pass two points within their errors.
fn slopes_between(one: &Point, other: &Point) -> (f64, f64) {
    let (from, to) = if other.since_s < one.since_s {
        (other, one)
    } else {
        (one, other)
    };
    let time = (to.since_s - from.since_s).max(1e-9);
    let (change, error) = (to.offset - from.offset, to.error + from.error);
    ((change - error) / time, (change + error) / time)
}

/// The fewest lines through all points, but for points that stand alone beside theirs.
fn lines(points: &[Point], forced: &[bool]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut taken = vec![false; points.len()];
    for next in 0..points.len() {
        if taken[next] {
            continue;
        }
        let Some(line) = lines.last_mut().filter(|_| !forced[next]) else {
            lines.push(Line::new(next));
            continue;
        };
        if line.take(next, points) {
            continue;
        }
        // Packets that were under way at the same time may have come back in another order than that
        // in which the reflector read its clock.
        let last = &points[next];
        let others = (next + 1..points.len()).filter(|other| {
            let other = &points[*other];
            other.left_ns() <= last.at_ns
        });
        for other in others {
            if forced[other] {
                break;
            }
            taken[other] = taken[other] || line.take(other, points);
        }
        // One point that is wrong is no clock: those that follow are as before.
        let alone = line.points.len() >= CONFIRMED
            && (1..CONFIRMED).all(|more| {
                let after = next + more;
                after < points.len()
                    && !forced[after]
                    && (taken[after] || line.with(after, points).is_some())
            });
        if !alone {
            lines.push(Line::new(next));
        }
    }
    lines
}

/// Joins two lines that are one, where the line between them may as well have come before both: the
/// packets of the first were under way when those of the other left.
fn untangle(lines: &mut Vec<Line>, points: &[Point], forced: &[bool]) {
    let mut at = 0;
    while at + 2 < lines.len() {
        let (first, between) = (&lines[at], &lines[at + 1]);
        let mut joined = first.clone();
        let after = &lines[at + 2].points;
        let is_one = after.iter().all(|point| joined.take(*point, points));
        let came = first.came(points).map(|moment| moment.at_ns);
        let left = between.left(points).map(|moment| moment.at_ns);
        let apart = is_forced(first, between, forced) || is_forced(between, &lines[at + 2], forced);
        if is_one && left <= came && !apart {
            lines[at] = between.clone();
            lines[at + 1] = joined;
            lines.remove(at + 2);
            at = at.saturating_sub(1);
        } else {
            at += 1;
        }
    }
}

/// Leaves out lines of too few points to say anything, unless it is certain that a clock was set.
fn drop_short(lines: &mut Vec<Line>, points: &[Point], forced: &[bool]) {
    let mut at = 0;
    while at < lines.len() {
        let apart = |a: &Line, b: &Line| {
            let (from, to) = (a.last(points), b.first(points));
            is_forced(a, b, forced) || is_proved(from, to)
        };
        let line = &lines[at];
        let before = at.checked_sub(1).map(|before| &lines[before]);
        let after = lines.get(at + 1);
        let short = line.points.len() < CONFIRMED && lines.len() > 1;
        let certain = before.is_some_and(|before| apart(before, line))
            || after.is_some_and(|after| apart(line, after));
        if short && !certain {
            lines.remove(at);
        } else {
            at += 1;
        }
    }
}

/// Whether clocks were set so often that what is between is too short to be known.
fn is_lost(lines: &[Line]) -> bool {
    let points = |long: bool| -> usize {
        let lines = lines.iter().map(|line| line.points.len());
        lines.filter(|count| (*count >= CONFIRMED) == long).sum()
    };
    lines.len() > FEW_STEPS && points(false) > points(true)
}

/// What the clocks did by these offsets, where `own` are the moments at which ours is known to have been set.
fn course_of(points: &[Point], own: &[OwnStep]) -> Course {
    let forced = own_gaps(points, own);
    let mut lines = lines(points, &forced);
    untangle(&mut lines, points, &forced);
    lines.iter_mut().for_each(|line| line.fit(points));
    drop_short(&mut lines, points, &forced);
    if is_lost(&lines) {
        return Course {
            lost: true,
            ..Course::default()
        };
    }
    let breaks: Vec<Break> = lines
        .windows(2)
        .map(|pair| between(&pair[0], &pair[1], points, &forced))
        .collect();
    let steps = steps(&lines, &breaks, points, own);
    let mut course = longest(&lines, &breaks, points);
    course.steps = steps;
    course
}

/// No delay is negative: then no offset is that of both.
fn is_proved(from: &Point, to: &Point) -> bool {
    let change = (to.offset - from.offset).abs();
    let gap_s = (to.since_s - from.since_s).max(0.0);
    let certain =
        f64::midpoint(from.roundtrip, to.roundtrip) + 2.0 * READING_NS + from.tick + to.tick;
    change > certain + COMMON_SLOPE * gap_s
}

fn is_forced(before: &Line, after: &Line, forced: &[bool]) -> bool {
    let last = before.points[before.points.len() - 1];
    (last + 1..=after.points[0]).any(|point| forced[point])
}

/// What is between two lines.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Break {
    /// A clock was set, and the offset changed by so many nanoseconds.
    Step(f64),
    /// They meet.
    Knee,
    /// Perhaps the one or the other, perhaps the path.
    Unknown,
}

fn between(before: &Line, after: &Line, points: &[Point], forced: &[bool]) -> Break {
    let (from, to) = (before.last(points), after.first(points));
    let gap_s = (to.since_s - from.since_s).max(0.0);
    let change = after.at(to.since_s) - before.at(from.since_s);
    let (slow, fast) = (
        before.slope.min(after.slope) * gap_s,
        before.slope.max(after.slope) * gap_s,
    );
    let jump = change - f64::midpoint(slow, fast);
    if is_forced(before, after, forced) {
        return Break::Step(jump);
    }
    let error = from.error + to.error;
    if (slow - error..=fast + error).contains(&change) {
        return Break::Knee;
    }
    if is_proved(from, to) {
        return Break::Step(jump);
    }
    // A clock that is slewed unevenly moves as it does just before and after.
    let (last, first) = (before.slope_at(points, true), after.slope_at(points, false));
    let moved = to.offset - from.offset;
    let slow = slow.min(last * gap_s).min(first * gap_s);
    let fast = fast.max(last * gap_s).max(first * gap_s);
    if [change, moved]
        .iter()
        .any(|change| (slow - error..=fast + error).contains(change))
    {
        return Break::Knee;
    }
    let shortest = |line: &Line, near: &dyn Fn(&[usize]) -> Vec<usize>| {
        let near = near(&line.points).into_iter();
        near.map(|index| points[index].roundtrip)
            .fold(f64::INFINITY, f64::min)
    };
    let last = shortest(before, &|all| {
        all.iter().rev().take(CONFIRMED).copied().collect()
    });
    let first = shortest(after, &|all| all.iter().take(CONFIRMED).copied().collect());
    let confirmed = before.points.len() >= CONFIRMED
        && after.points.len() >= CONFIRMED
        // A path that changes in both directions changes its round trip.
        && (first - last).abs() <= jump.abs() / 8.0;
    if confirmed {
        Break::Step(jump)
    } else {
        Break::Unknown
    }
}

/// For each point, whether our own clock was set between it and the one before.
fn own_gaps(points: &[Point], own: &[OwnStep]) -> Vec<bool> {
    let mut forced = vec![false; points.len()];
    for (at, pair) in points.windows(2).enumerate() {
        for step in own
            .iter()
            .filter(|step| falls_between(step, &pair[0], &pair[1]))
        {
            let (by, error) = (float(step.by_ns.into()), pair[0].error + pair[1].error);
            let moved = pair[1].offset - pair[0].offset;
            // A peer on the same clock was set with ours.
            let shared = moved.abs() <= error && error < by.abs() / 4.0;
            forced[at + 1] |= !shared;
        }
    }
    forced
}

fn falls_between(step: &OwnStep, from: &Point, to: &Point) -> bool {
    from.t4_ns <= step.until_ns.saturating_sub(step.by_ns)
        && step.after_ns.saturating_add(step.by_ns) <= to.t4_ns
}

fn steps(lines: &[Line], breaks: &[Break], points: &[Point], own: &[OwnStep]) -> Vec<Step> {
    let pairs = lines.windows(2).zip(breaks);
    let steps = pairs.filter_map(|(pair, change)| {
        let Break::Step(jump) = *change else {
            return None;
        };
        let (from, to) = (pair[0].last(points), pair[1].first(points));
        let ours = own.iter().find(|step| {
            let by = float(step.by_ns.into());
            let near = (jump + by).abs() <= from.error + to.error + by.abs() / 8.0;
            falls_between(step, from, to) && near
        });
        Some(Step {
            at_ns: to.t4_ns,
            by_ns: ours.map_or_else(|| nanoseconds(jump), |step| step.by_ns),
            whose: ours.map_or(Whose::Remote, |_| Whose::Local),
        })
    });
    steps.collect()
}

/// The longest stretch between two steps.
fn longest(lines: &[Line], breaks: &[Break], points: &[Point]) -> Course {
    let mut stretches = Vec::new();
    let mut first = 0;
    for (at, change) in breaks.iter().enumerate() {
        if matches!(change, Break::Step(_)) {
            stretches.push((first, at));
            first = at + 1;
        }
    }
    if let Some(last) = lines.len().checked_sub(1) {
        stretches.push((first, last));
    }
    let length = |&(first, last): &(usize, usize)| {
        let (from, until) = (lines[first].first(points), lines[last].last(points));
        (until.at_ns.saturating_sub(from.at_ns), until.since_s)
    };
    let most = stretches
        .into_iter()
        .max_by(|a, b| length(a).0.cmp(&length(b).0));
    let Some((first, last)) = most else {
        return Course::default();
    };
    let of_stretch = &lines[first..=last];
    let known = !breaks[first..last].contains(&Break::Unknown);
    let (drift, pieces) = if known {
        drift(of_stretch, points)
    } else {
        (None, Vec::new())
    };
    Course {
        drift,
        pieces,
        from: lines[first].came(points).filter(|_| first > 0),
        until: lines[last].left(points).filter(|_| last + 1 < lines.len()),
        ..Course::default()
    }
}

/// The drift of a stretch, and the offset's course.
fn drift(lines: &[Line], points: &[Point]) -> (Option<Drift>, Vec<Piece>) {
    let (Some(first_line), Some(last_line)) = (lines.first(), lines.last()) else {
        return (None, Vec::new());
    };
    let count: usize = lines.iter().map(|line| line.points.len()).sum();
    let (first, last) = (first_line.first(points), last_line.last(points));
    let length_s = last.since_s - first.since_s;
    if count < CONFIRMED || length_s <= 0.0 {
        return (None, Vec::new());
    }
    let mut pieces = Vec::new();
    let mut from_s = first.since_s;
    for (at, line) in lines.iter().enumerate() {
        if let Some(before) = at.checked_sub(1).map(|before| &lines[before]) {
            let (a, b) = (before.last(points).since_s, line.first(points).since_s);
            let turn = before.slope - line.slope;
            let meet = (line.at(0.0) - before.at(0.0)) / turn;
            from_s = if meet.is_finite() {
                meet.clamp(a.min(b), a.max(b))
            } else {
                f64::midpoint(a, b)
            };
        }
        pieces.push(Piece {
            from_ns: first
                .left_ns()
                .saturating_add(nanoseconds((from_s - first.since_s) * 1e9)),
            offset_ns: line.at(from_s),
            slope: line.slope,
        });
    }
    let bent = lines.len() > 1;
    let moved = last_line.at(last.since_s) - first_line.at(first.since_s);
    let error = if bent {
        (first.error + last.error) / length_s
    } else {
        let (least, most) = first_line.slopes_without_any(points);
        (most - first_line.slope).max(first_line.slope - least)
    };
    // From nothing in the middle: then a mean delay is of the mean offset.
    let mut course = Course {
        pieces,
        ..Course::default()
    };
    let middle = first
        .left_ns()
        .saturating_add(nanoseconds(length_s / 2.0 * 1e9));
    let middle = float(course.moved_ns(middle).into());
    for piece in &mut course.pieces {
        piece.offset_ns -= middle;
    }
    let drift = Drift {
        // A nanosecond a second is a thousandth of a part per million.
        ppm: moved / length_s / 1e3,
        error_ppm: error / 1e3,
        bent,
    };
    (Some(drift), course.pieces)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float beyond the bounds becomes the bound"
)]
fn nanoseconds(value: f64) -> i64 {
    value.round() as i64
}

/// Windows of a session.
const WINDOWS: usize = 128;
/// One-way delays that are kept of each direction.
const KEPT: usize = 4096;
/// Fewer windows than these do not tell their noise.
const ENOUGH: usize = 8;
/// So many windows in a row are no chance.
const CONFIRMED: usize = 3;
/// Replies may be read this much out of their order.
const DISORDER_NS: i64 = 10_000_000;
/// A further change of our own clock is no adjustment: it was set.
const OWN_STEP_NS: i64 = 1_000_000;
/// So many steps may be of lines that are too short to be sure of.
const FEW_STEPS: usize = 3;
/// What writing a time may take from it: NTP's fraction is off by one.
const ROUNDING_NS: f64 = 2.0;
/// Evidence of which less than one in a million is by chance.
const NO_CHANCE_BITS: f64 = 20.0;
/// What reading a clock may take.
const READING_NS: f64 = 1_000.0;
/// The fastest slew, in nanoseconds a second: chrony's is 83,333 parts per million.
const MOST_SLOPE: f64 = 100e6;
/// Clocks that nobody slews differ by less, in nanoseconds a second: 500 parts per million.
const COMMON_SLOPE: f64 = 500e3;

#[cfg(test)]
mod tests;
