//! How a thread waits for packets: it is woken for them, or, while very many come, looks for them from
//! time to time.
//!
//! A socket that somebody is to be woken for costs the kernel a look at the sleepers for every packet
//! that comes in and for every one that has left. At full load that is a tenth of what a reflector can
//! do, so meanwhile its sockets are taken off the event loop. Only for where the kernel says when a packet
//! came: a packet waits until the thread looks.

/// A thread begins to look where so many datagrams or bundles came within [`WINDOW_NS`], and is woken
/// again where fewer than half of that did.
const MANY: usize = 32;
const WINDOW_NS: i64 = 1_000_000;

/// How the packets of a thread come, and what follows for its waiting.
#[derive(Debug, Default)]
pub(super) struct Pace {
    looks: bool,
    /// When the window began, and what came in it.
    began_ns: i64,
    came: usize,
}

impl Pace {
    /// Whether the thread looks for packets, and is not woken for them.
    pub(super) fn looks(&self) -> bool {
        self.looks
    }

    /// It could not be arranged that the thread is woken.
    pub(super) fn go_on_looking(&mut self) {
        self.looks = true;
    }

    /// So many datagrams or bundles were taken by now; true where that changes how the thread waits.
    pub(super) fn note(&mut self, taken: usize, now_ns: i64) -> bool {
        self.came += taken;
        let lasted_ns = now_ns - self.began_ns;
        if lasted_ns < WINDOW_NS {
            return false;
        }
        // A window that lasted longer, since the thread slept or was busy, has a share of what came in it.
        let windows = usize::try_from(lasted_ns / WINDOW_NS).unwrap_or(1).max(1);
        let least = if self.looks { MANY / 2 } else { MANY };
        let many = self.came / windows >= least;
        (self.began_ns, self.came) = (now_ns, 0);
        std::mem::replace(&mut self.looks, many) != many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_looks_for_packets_while_very_many_come() {
        let mut pace = Pace::default();
        let mut now = 1_000_000_000_000;
        // What came, until when: whether that changes anything, and whether the thread then looks.
        for (taken, after_us, changes, looks) in [
            (1, 1000, false, false),
            (20, 500, false, false),
            (20, 500, true, true),
            (17, 1100, false, true),
            (0, 900, false, true),
            (15, 100, true, false),
            // As many, over a longer time.
            (40, 100_000, false, false),
            (5000, 100_000, true, true),
            (31_000, 2_000_000, true, false),
        ] {
            now += after_us * 1000;
            let found = (pace.note(taken, now), pace.looks());
            assert_eq!(found, (changes, looks), "{taken} in {after_us} us");
        }
    }
}
