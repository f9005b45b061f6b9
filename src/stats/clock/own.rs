//! Our own clock, which may be set while a session runs.

/// A further change of our own clock is no adjustment: it was set.
pub(super) const OWN_STEP_NS: i64 = 1_000_000;

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

/// Decides from readings of two clocks whether our own was set in between.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnClock {
    /// The reading before: the monotonic clock, and the system's minus that.
    pub(super) before: Option<(i64, i64)>,
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
