//! When packets left, and how fast that was.

/// When packets left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DepartureTimes {
    /// First and last departure, by the monotonic clock.
    pub(crate) first_ns: i64,
    pub(crate) last_ns: i64,
    /// First departure, since the Unix epoch.
    pub(crate) started_ns: i64,
    /// Packets that left more than a gap after their time.
    pub(crate) late: u64,
    pub(crate) max_slip_ns: i64,
    /// Packets of the longest and of the last train.
    pub(crate) longest_burst: u32,
    pub(crate) last_burst: u32,
}

impl DepartureTimes {
    /// A train of `count` packets left `slip_ns` after its time; `gap_ns`: its share of the schedule.
    #[inline]
    pub(super) fn note(&mut self, count: u32, left_ns: i64, slip_ns: i64, gap_ns: i64) {
        self.max_slip_ns = self.max_slip_ns.max(slip_ns);
        self.late += if slip_ns > gap_ns { count.into() } else { 0 };
        self.longest_burst = self.longest_burst.max(count);
        self.last_burst = count;
        self.last_ns = left_ns;
    }

    /// Those of another thread, with what each of them sent so far: the first and the last departure are of
    /// threads that sent something. `last_burst` is of one thread alone.
    pub(super) fn add(&mut self, sent: u64, other: &Self, others: u64) {
        if others > 0 && (sent == 0 || other.first_ns < self.first_ns) {
            (self.first_ns, self.started_ns) = (other.first_ns, other.started_ns);
        }
        if others > 0 && (sent == 0 || other.last_ns > self.last_ns) {
            self.last_ns = other.last_ns;
        }
        self.late += other.late;
        self.max_slip_ns = self.max_slip_ns.max(other.max_slip_ns);
        self.longest_burst = self.longest_burst.max(other.longest_burst);
    }

    /// How fast a thread sent so many packets; `None`: none.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and nanoseconds of a rate: 53 bits are more than its precision"
    )]
    pub(super) fn pace(&self, sent: u64) -> Option<ThreadRate> {
        if sent == 0 {
            return None;
        }
        let sent = sent as f64;
        Some(ThreadRate {
            sent,
            longest: self.longest_burst.into(),
            packets: (sent - f64::from(self.last_burst)).max(0.0),
            ns: (self.last_ns - self.first_ns).max(0) as f64,
        })
    }
}

/// How fast a thread sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadRate {
    /// Packets of all, of the longest train, and from the first departure to the last one, which is not
    /// within that time itself.
    sent: f64,
    longest: f64,
    packets: f64,
    ns: f64,
}

impl ThreadRate {
    /// The time that a packet stands for; 0 where all left at once.
    fn each_ns(&self) -> f64 {
        if self.packets > 0.0 {
            self.ns / self.packets
        } else {
            0.0
        }
    }

    /// Packets a second of all threads; `None` where all that each of them sent left at once.
    pub(super) fn together(threads: &[Self]) -> Option<f64> {
        let most = |of: &dyn Fn(&Self) -> f64| threads.iter().map(of).fold(0.0, f64::max);
        let each_ns = most(&Self::each_ns);
        let whole = most(&|pace| pace.each_ns() * pace.sent);
        let (mut packets, mut ns, mut count) = (0.0, 0.0, 0.0);
        for pace in threads {
            let (of, time) = match pace.each_ns() {
                // All left at once, and stands for as much time as it does for others.
                0.0 => (pace.sent, pace.sent * each_ns),
                _ => (pace.packets, pace.ns),
            };
            let train = time / of * pace.longest;
            // One that ended long before the others, and had not just one train fewer, was idle then.
            let idle = time / of * pace.sent + 2.0 * train < whole;
            packets += of;
            ns += if idle { whole - train } else { time };
            count += 1.0;
        }
        (ns > 0.0).then(|| packets / ns * count * 1e9)
    }
}
