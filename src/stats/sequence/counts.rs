//! What became of the packets of a session: counts.

/// What a reply was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first reply to its sequence number, in time: it has delays worth recording.
    First,
    /// A reply after the timeout: its packet counts as lost.
    Late,
    /// A further reply to a sequence number that has one.
    Duplicate,
}

/// Counts of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Distinct sequence numbers that came back in time.
    pub received: u64,
    /// Replies after the timeout.
    pub late: u64,
    /// Replies beyond the first of a sequence number.
    pub duplicates: u64,
    /// Replies reordered on the whole way (RFC 4737 §3.3).
    pub reordered: u64,
    /// Figures by direction; `None` where packets were lost and the reflector keeps no sequence of its
    /// own, or that could not be proved. Those of duplicates and reordering only where that was
    /// [`followed`](Self::followed).
    pub directions: Option<Directions>,
    /// Whether the reflector keeps a sequence of its own; `None`: not proved either way.
    pub own_counter: Option<bool>,
    /// Packets that were neither answered nor had timed out in the end.
    pub unresolved: u64,
    /// Runs of consecutive lost sequence numbers: how many, and the longest.
    pub bursts: Bursts,
    /// The reflector's numbers do not fit a count of its replies to this session: it may count
    /// other packets too, or write something else there. Then there are no `directions`.
    pub senseless: bool,
    /// Times the reflector's counter began anew during the session.
    pub restarts: u64,
    /// The value at which the reflector's counter was taken to have begun, where not 0.
    pub counter_began_at: u64,
    /// Numbers that the reflector is known to have given to packets that are not of this session.
    pub given_to_others: u64,
}

impl Counts {
    /// Whether the reflector keeps a sequence of its own that makes sense: then duplicates and
    /// reordering have directions, too.
    #[must_use]
    pub fn followed(&self) -> bool {
        self.own_counter == Some(true) && !self.senseless
    }

    /// The counts of several sessions together, each with the number of packets sent. What is not
    /// known of one is not known of all; one without any reply lost all where nothing tells the
    /// direction.
    #[must_use]
    pub fn together<'a>(sessions: impl Iterator<Item = (u64, &'a Self)> + Clone) -> Self {
        let mut all = Self {
            directions: Some(Directions::default()),
            ..Self::default()
        };
        let silent = |counts: &Self| counts.received + counts.late + counts.duplicates == 0;
        // What did not happen needs no counter to tell its direction.
        let told_without = |counts: &Self| {
            counts.own_counter.is_none()
                && counts.directions.is_some()
                && counts.duplicates + counts.reordered == 0
        };
        let mut own_counter: Option<Option<bool>> = None;
        let mut anything = false;
        for (sent, counts) in sessions {
            all.received += counts.received;
            all.late += counts.late;
            all.duplicates += counts.duplicates;
            all.unresolved += counts.unresolved;
            all.reordered += counts.reordered;
            all.bursts.count += counts.bursts.count;
            all.bursts.longest = all.bursts.longest.max(counts.bursts.longest);
            all.senseless |= counts.senseless;
            all.restarts += counts.restarts;
            all.counter_began_at = all.counter_began_at.max(counts.counter_began_at);
            all.given_to_others += counts.given_to_others;
            let unattributed = Directions {
                lost_unattributed: sent,
                ..Directions::default()
            };
            let silent = silent(counts);
            let told = counts.directions.or(silent.then_some(unattributed));
            all.directions = all.directions.zip(told).map(|(a, b)| a.plus(b));
            if !silent {
                anything = true;
            }
            if !silent && !told_without(counts) {
                // One that copies our numbers is proof enough that something does.
                own_counter = Some(
                    match (own_counter.unwrap_or(Some(true)), counts.own_counter) {
                        (Some(a), Some(b)) => Some(a && b),
                        (Some(false), None) | (None, Some(false)) => Some(false),
                        _ => None,
                    },
                );
            }
        }
        all.own_counter = own_counter.flatten();
        if !anything {
            (all.directions, all.own_counter) = (None, None);
        }
        all
    }
}

/// Counts by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directions {
    /// Lost before the reflector.
    pub lost_outbound: u64,
    /// Lost after the reflector.
    pub lost_inbound: u64,
    /// Lost where nothing tells the direction.
    pub lost_unattributed: u64,
    /// Duplicated before the reflector.
    pub duplicates_outbound: u64,
    /// Duplicated after the reflector.
    pub duplicates_inbound: u64,
    /// Reordered before the reflector.
    pub reordered_outbound: u64,
    /// Reordered after the reflector.
    pub reordered_inbound: u64,
}

impl Directions {
    /// The same without so many that are not lost yet: first those of which nothing tells the direction.
    /// `None` where it is not known which the others were.
    pub(super) fn without(self, unresolved: u64) -> Option<Self> {
        let mut rest = self;
        let tail = unresolved.min(rest.lost_unattributed);
        rest.lost_unattributed -= tail;
        match unresolved - tail {
            0 => {}
            others if rest.lost_inbound == 0 => {
                rest.lost_outbound = rest.lost_outbound.saturating_sub(others)
            }
            others if rest.lost_outbound == 0 => {
                rest.lost_inbound = rest.lost_inbound.saturating_sub(others)
            }
            _ => return None,
        }
        Some(rest)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            lost_outbound: self.lost_outbound + other.lost_outbound,
            lost_inbound: self.lost_inbound + other.lost_inbound,
            lost_unattributed: self.lost_unattributed + other.lost_unattributed,
            duplicates_outbound: self.duplicates_outbound + other.duplicates_outbound,
            duplicates_inbound: self.duplicates_inbound + other.duplicates_inbound,
            reordered_outbound: self.reordered_outbound + other.reordered_outbound,
            reordered_inbound: self.reordered_inbound + other.reordered_inbound,
        }
    }
}

/// Loss periods (RFC 3357).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bursts {
    /// How many.
    pub count: u64,
    /// Packets of the longest.
    pub longest: u64,
    /// Packets of the one that has not ended.
    pub(super) running: u64,
}

impl Bursts {
    pub(super) fn note(&mut self, lost: bool) {
        if !lost {
            self.running = 0;
            return;
        }
        self.running += 1;
        if self.running == 1 {
            self.count += 1;
        }
        self.longest = self.longest.max(self.running);
    }
}
