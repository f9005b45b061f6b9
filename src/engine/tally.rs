//! Counts by kind that other threads may read while they grow.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::report::ignored::{Ignored, Kind};
use crate::report::unsent::Unsent;

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

/// An [`Unsent`] that one thread shows to others.
#[derive(Debug, Default)]
pub(super) struct UnsentTally([AtomicU64; 8]);

impl UnsentTally {
    pub(super) fn show(&self, unsent: &Unsent) {
        for (packed, shown) in unsent.packed().into_iter().zip(&self.0) {
            shown.store(packed, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Unsent {
        Unsent::unpacked(self.0.each_ref().map(|shown| shown.load(Ordering::Relaxed)))
    }
}
