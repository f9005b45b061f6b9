//! Where one line ends and the next begins: steps of a clock, and what it drifts.

use super::course::{Course, Drift, Piece, Step, nanoseconds};
use super::lines::{
    CONFIRMED, Line, Point, drop_short, falls_between, is_forced, is_lost, is_proved, lines,
    own_gaps, untangle,
};
use super::own::OwnStep;
use crate::report::Whose;
use crate::stats::float;

/// What the clocks did by these offsets, where `own` are the moments at which ours is known to have been set.
pub(super) fn course_of(points: &[Point], own: &[OwnStep]) -> Course {
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

/// What is between two lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Break {
    /// A clock was set, and the offset changed by so many nanoseconds.
    Step(f64),
    /// They meet.
    Knee,
    /// Perhaps the one or the other, perhaps the path.
    Unknown,
}

pub(super) fn between(before: &Line, after: &Line, points: &[Point], forced: &[bool]) -> Break {
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

pub(super) fn steps(
    lines: &[Line],
    breaks: &[Break],
    points: &[Point],
    own: &[OwnStep],
) -> Vec<Step> {
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
pub(super) fn longest(lines: &[Line], breaks: &[Break], points: &[Point]) -> Course {
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
pub(super) fn drift(lines: &[Line], points: &[Point]) -> (Option<Drift>, Vec<Piece>) {
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
