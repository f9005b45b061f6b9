//! What is shown while a command runs, on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::messages::say;
use crate::engine::Progress;
use crate::os;
use crate::output::{ignored, text};
use crate::report::Ignored;
use crate::report::unsent::Unsent;

/// One line on a terminal that shows how far a long run is; nothing of it anywhere else.
pub(super) struct ProgressLine {
    shown: bool,
    on: bool,
    begun: Instant,
}

impl ProgressLine {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            shown: false,
            on: wanted && std::io::stderr().is_terminal(),
            begun: os::now(),
        }
    }

    pub(super) fn show(&mut self, now: Progress) {
        let elapsed = self.begun.elapsed();
        if !self.on || elapsed < Duration::from_secs(1) {
            return;
        }
        self.shown = true;
        say(&format!(
            "\r{:6.1} s  sent {}  received {}\x1b[K",
            elapsed.as_secs_f64(),
            text::count(now.sent),
            text::count(now.received)
        ));
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            say("\r\x1b[K");
        }
    }
}

/// Logs datagrams that are not taken, by kind, as they come, and why replies could not be sent, once for
/// each error.
#[derive(Default)]
pub(super) struct News {
    ignored: Ignored,
    unsent: Unsent,
}

impl News {
    pub(super) fn tell(&mut self, now: &Ignored) {
        for sentence in ignored::news(&self.ignored, now) {
            log::info!("not taken: {sentence}");
        }
        self.ignored = *now;
    }

    pub(super) fn tell_unsent(&mut self, now: &Unsent) {
        for by in now.new_since(&self.unsent) {
            log::info!("replies cannot be sent: {by}");
        }
        self.unsent = *now;
    }
}
