//! What the two clocks did, as far as delays tell.

use crate::report::Whose;
use crate::stats::float;
use crate::stats::kept::Timed;

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
    pub(super) pieces: Vec<Piece>,
    /// The stretch, by the time of [`Clocks`] and by our own clock.
    pub(super) from: Option<Moment>,
    pub(super) until: Option<Moment>,
}

impl Course {
    /// Whether a packet was under way within the stretch alone.
    pub(in crate::stats) fn covers(&self, delay: &Timed) -> bool {
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
    pub(in crate::stats) fn moved_ns(&self, left_ns: i64) -> i64 {
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
    pub(in crate::stats) fn fastest(&self) -> f64 {
        let slopes = self.pieces.iter().map(|piece| piece.slope.abs() / 1e9);
        slopes.fold(0.0, f64::max)
    }

    /// What the drift adds to the spread of one-way delays between two moments; `None` where there is
    /// none for sure.
    pub(in crate::stats) fn spread_ns(&self, first_ns: i64, last_ns: i64) -> Option<u64> {
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
pub(super) struct Moment {
    pub(super) at_ns: i64,
    pub(super) t4_ns: i64,
}

/// A straight part of the offset's course, from `from_ns` until the next one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) from_ns: i64,
    pub(super) offset_ns: f64,
    /// Nanoseconds a second.
    pub(super) slope: f64,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float beyond the bounds becomes the bound"
)]
pub(super) fn nanoseconds(value: f64) -> i64 {
    value.round() as i64
}
