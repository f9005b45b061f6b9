//! Straight lines through the lowest delays of a session.

use super::course::Moment;
use super::own::OwnStep;
use crate::stats::float;

/// So many windows in a row are no chance.
pub(super) const CONFIRMED: usize = 3;
/// So many steps may be of lines that are too short to be sure of.
pub(super) const FEW_STEPS: usize = 3;
/// What reading a clock may take.
pub(super) const READING_NS: f64 = 1_000.0;
/// The fastest slew, in nanoseconds a second: chrony's is 83,333 parts per million.
pub(super) const MOST_SLOPE: f64 = 100e6;
/// Clocks that nobody slews differ by less, in nanoseconds a second: 500 parts per million.
pub(super) const COMMON_SLOPE: f64 = 500e3;

/// The offset in a window: its line passes within `error` of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) at_ns: i64,
    pub(super) t4_ns: i64,
    /// From the request's departure.
    pub(super) took_ns: i64,
    /// When its request left, since that of the first one, in seconds.
    pub(super) since_s: f64,
    /// Since the first one, in nanoseconds.
    pub(super) offset: f64,
    pub(super) roundtrip: f64,
    pub(super) error: f64,
    /// The clock is read in steps of so many nanoseconds, where these are coarse.
    pub(super) tick: f64,
}

impl Point {
    pub(super) fn left_ns(&self) -> i64 {
        self.at_ns.saturating_sub(self.took_ns)
    }
}

/// Points that a straight line passes within their errors.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Those that it passes, by index.
    pub(super) points: Vec<usize>,
    /// Its slope is between these, in nanoseconds a second.
    pub(super) slopes: (f64, f64),
    /// The best one: where it is at `middle_s`.
    pub(super) slope: f64,
    pub(super) middle_s: f64,
    pub(super) offset: f64,
}

impl Line {
    pub(super) fn new(point: usize) -> Self {
        Self {
            points: vec![point],
            slopes: (-MOST_SLOPE, MOST_SLOPE),
            slope: 0.0,
            middle_s: 0.0,
            offset: 0.0,
        }
    }

    /// The slopes that remain with a further point; `None` where there is none.
    pub(super) fn with(&self, next: usize, points: &[Point]) -> Option<(f64, f64)> {
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
    pub(super) fn slopes_without_any(&self, points: &[Point]) -> (f64, f64) {
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
    pub(super) fn take(&mut self, next: usize, points: &[Point]) -> bool {
        let slopes = self.with(next, points);
        if let Some(slopes) = slopes {
            self.slopes = slopes;
            self.points.push(next);
        }
        slopes.is_some()
    }

    /// Least squares, with the slope that the errors allow.
    pub(super) fn fit(&mut self, points: &[Point]) {
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

    pub(super) fn at(&self, since_s: f64) -> f64 {
        self.offset + self.slope * (since_s - self.middle_s)
    }

    /// The slope of its first or its last points.
    pub(super) fn slope_at(&self, points: &[Point], last: bool) -> f64 {
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
    pub(super) fn came(&self, points: &[Point]) -> Option<Moment> {
        let came = self.points.iter().map(|index| Moment {
            at_ns: points[*index].at_ns,
            t4_ns: points[*index].t4_ns,
        });
        came.min_by_key(|moment| moment.at_ns)
    }

    /// When the last of its requests left: whatever came before is of the same stretch or an earlier one.
    pub(super) fn left(&self, points: &[Point]) -> Option<Moment> {
        let left = self.points.iter().map(|index| {
            let point = &points[*index];
            Moment {
                at_ns: point.left_ns(),
                t4_ns: point.t4_ns.saturating_sub(point.took_ns),
            }
        });
        left.max_by_key(|moment| moment.at_ns)
    }

    pub(super) fn first<'a>(&self, points: &'a [Point]) -> &'a Point {
        &points[self.points[0]]
    }

    pub(super) fn last<'a>(&self, points: &'a [Point]) -> &'a Point {
        &points[self.points[self.points.len() - 1]]
    }
}

/// The slopes of lines that pass two points within their errors.
pub(super) fn slopes_between(one: &Point, other: &Point) -> (f64, f64) {
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
pub(super) fn lines(points: &[Point], forced: &[bool]) -> Vec<Line> {
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
pub(super) fn untangle(lines: &mut Vec<Line>, points: &[Point], forced: &[bool]) {
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
pub(super) fn drop_short(lines: &mut Vec<Line>, points: &[Point], forced: &[bool]) {
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
pub(super) fn is_lost(lines: &[Line]) -> bool {
    let points = |long: bool| -> usize {
        let lines = lines.iter().map(|line| line.points.len());
        lines.filter(|count| (*count >= CONFIRMED) == long).sum()
    };
    lines.len() > FEW_STEPS && points(false) > points(true)
}

pub(super) fn is_forced(before: &Line, after: &Line, forced: &[bool]) -> bool {
    let last = before.points[before.points.len() - 1];
    (last + 1..=after.points[0]).any(|point| forced[point])
}

pub(super) fn falls_between(step: &OwnStep, from: &Point, to: &Point) -> bool {
    from.t4_ns <= step.until_ns.saturating_sub(step.by_ns)
        && step.after_ns.saturating_add(step.by_ns) <= to.t4_ns
}

/// For each point, whether our own clock was set between it and the one before.
pub(super) fn own_gaps(points: &[Point], own: &[OwnStep]) -> Vec<bool> {
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

/// No delay is negative: then no offset is that of both.
pub(super) fn is_proved(from: &Point, to: &Point) -> bool {
    let change = (to.offset - from.offset).abs();
    let gap_s = (to.since_s - from.since_s).max(0.0);
    let certain =
        f64::midpoint(from.roundtrip, to.roundtrip) + 2.0 * READING_NS + from.tick + to.tick;
    change > certain + COMMON_SLOPE * gap_s
}
