//! Counts by kind that other threads may read while they grow.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::report::ignored::{Ignored, Kind};

/// An [`Ignored`] that one thread shows to others.
#[derive(Debug, Default)]
pub(super) struct Tally([AtomicU64; Kind::ALL.len()]);

impl Tally {
    pub(super) fn show(&self, ignored: &Ignored) {
        for (kind, shown) in Kind::ALL.into_iter().zip(&self.0) {
            shown.store(ignored.of(kind), Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Ignored {
        let mut ignored = Ignored::default();
        for (kind, shown) in Kind::ALL.into_iter().zip(&self.0) {
            ignored.note(kind, shown.load(Ordering::Relaxed));
        }
        ignored
    }
}
