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

mod breaks;
mod course;
mod lines;
mod own;

use super::float;
use super::kept::Kept;
pub(super) use super::kept::Timed;
use super::packets::Packets;
use breaks::course_of;
use course::nanoseconds;
pub use course::{Course, Drift, Step};
use lines::{Point, READING_NS};
pub use own::{OwnClock, OwnStep};

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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Windows of a session.
const WINDOWS: usize = 128;
/// One-way delays that are kept of each direction.
const KEPT: usize = 4096;
/// Fewer windows than these do not tell their noise.
const ENOUGH: usize = 8;
/// Replies may be read this much out of their order.
const DISORDER_NS: i64 = 10_000_000;
/// What writing a time may take from it: NTP's fraction is off by one.
const ROUNDING_NS: f64 = 2.0;
/// Evidence of which less than one in a million is by chance.
const NO_CHANCE_BITS: f64 = 20.0;

#[cfg(test)]
mod tests;
