//! What all control connections have in common.

use std::fmt;

use super::caller::Whose;
use super::clients::Clients;
use super::keys::Keys;
use super::sessions::Sessions;
use super::tokens::Checks;
use crate::engine::served::Reflectors;
use crate::os;
use crate::report::server::Totals;

/// What all connections have in common.
pub(super) struct Shared {
    pub(super) keys: Keys,
    pub(super) checks: Checks,
    /// Whose check will not be done.
    pub(super) unchecked: Vec<Whose>,
    pub(super) clients: Clients,
    pub(super) sessions: Sessions,
    pub(super) reflectors: Reflectors,
    pub(super) totals: Totals,
    pub(super) warnings: Warnings,
}

impl Shared {
    pub(super) fn warn(&mut self, what: fmt::Arguments<'_>) {
        self.warnings.warn(os::monotonic_ns(), what);
    }
}

/// Log lines that strangers can cause: so many a second.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    second: i64,
    shown: u32,
    hidden: u64,
}

impl Warnings {
    fn warn(&mut self, now_ns: i64, what: fmt::Arguments<'_>) {
        if self.allow(now_ns) {
            match std::mem::take(&mut self.hidden) {
                0 => log::warn!("{what}"),
                hidden => log::warn!("{what} ({hidden} lines like this one were not shown)"),
            }
        } else {
            self.hidden += 1;
        }
    }

    fn allow(&mut self, now_ns: i64) -> bool {
        let second = now_ns.div_euclid(SECOND);
        if second != self.second {
            (self.second, self.shown) = (second, 0);
        }
        self.shown = self.shown.saturating_add(1);
        self.shown <= WARNINGS
    }
}

pub(super) const SECOND: i64 = 1_000_000_000;

/// Log lines in one second that strangers can cause.
const WARNINGS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cause_so_many_lines_a_second_and_no_more() {
        let mut warnings = Warnings::default();
        let now_ns = 5 * SECOND + 17;
        let allowed = (0..1000).filter(|_| warnings.allow(now_ns)).count();
        assert_eq!(allowed, 20);
        assert!(!warnings.allow(6 * SECOND - 1));
        assert!(warnings.allow(6 * SECOND));
    }
}
