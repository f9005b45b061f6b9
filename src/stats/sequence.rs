//! What sequence numbers tell: loss by direction, duplicates, reordering, late replies.
//!
//! The receiver thread owns a [`Tracker`] and shows it every reply, so that the counts are exact
//! whatever happens to samples. It is a fold over pairs (s, r), the Session-Sender's sequence number
//! and the Session-Reflector's, in constant memory: bits for a window of sequence numbers.
//!
//! Sources: RFC 7680 and RFC 6673 (loss), RFC 5560 (duplicates), RFC 4737 §3 (reordering), RFC 3357
//! (loss bursts), RFC 5357 §4.2.1 (the reflector's own counter, which loss by direction rests on).

/// Replies held back to be put in the reflector's order.
const RESEQUENCE: usize = 1024;
/// Replies from whose lead the value is taken at which the reflector's counter began.
const FIRST_REPLIES: u32 = 32;
/// For so many sequence numbers behind the window it is known whether they were answered, and for so many
/// of the reflector's whether they came: 2 MiB each.
const HISTORY: u64 = 1 << 24;
/// So near to the highest number of the reflector that a reply of ours had, others may have been given
/// numbers.
const NEAR: u64 = 1 << 16;
/// A counter that begins anew more often in a session is none.
const MOST_RESTARTS: u64 = 16;
/// Nor is one that begins anew with one reply in so many, or more of them.
const RESTARTS_ONE_IN: u64 = 2;

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
    fn without(self, unresolved: u64) -> Option<Self> {
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

    fn plus(self, other: Self) -> Self {
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
    running: u64,
}

impl Bursts {
    fn note(&mut self, lost: bool) {
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

/// The fold over a session's replies.
#[derive(Debug)]
pub struct Tracker {
    /// The number of packet 0 on the wire.
    first: u32,
    /// Sequence numbers answered in time, and answered late.
    received: Bits,
    late: Bits,
    /// Sequence numbers answered, in time or not, of those that are decided.
    answers: Bits,
    /// The reflector's numbers that were seen, of this epoch, and the lowest of them.
    replied: Bits,
    replied_from: u64,
    others: Others,
    /// Every sequence number below is decided.
    decided: u64,
    counts: Counts,
    directions: Directions,
    answered: u64,
    next_expected: u64,
    own_counter: bool,
    /// The reflector's numbers are no count of its replies to this session.
    senseless: bool,
    epoch: Epoch,
    former: Vec<FormerCounter>,
    probes: Vec<(u64, u32)>,
}

/// A moment of a session, by the numbers of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Highest sequence number that was answered.
    pub highest: u64,
    reply: u64,
    restarts: u64,
}

/// A counter that was followed by one that began anew.
#[derive(Clone, Copy, Debug)]
struct FormerCounter {
    /// Highest sequence number answered, and highest number of the reflector.
    highest: u64,
    highest_reply: u64,
    /// The first sequence number of the next counter: of those between no direction is told.
    next: u64,
}

/// The time from one (re)start of the reflector's counter to the next.
#[derive(Debug)]
struct Epoch {
    started: bool,
    /// The first sequence number whose fate this counter tells.
    first: u64,
    /// Highest sequence number answered.
    highest: u64,
    /// Highest number of the reflector.
    highest_reply: u64,
    /// Replies in time with distinct numbers of the reflector.
    replies: u64,
    /// Replies after the timeout with distinct numbers of the reflector.
    late: u64,
    /// Of `replies`, further ones to a sequence number that has a reply, in time or not.
    repeated: u64,
    /// The first replies, at most [`FIRST_REPLIES`]: how many, the lowest number of the reflector's, without
    /// those that others were given, and the lowest packet that was answered.
    looked_at: u32,
    lowest_reply: u64,
    lowest_answered: u64,
    /// One of them had no higher number than its packet.
    maybe_fresh: bool,
    /// The number of the first reply that came.
    first_reply: u64,
    next_expected: u64,
    order: Resequencer,
}

impl Epoch {
    fn new(first: u64) -> Self {
        Self::with(first, Resequencer::new())
    }

    fn with(first: u64, order: Resequencer) -> Self {
        Self {
            started: false,
            first,
            highest: first,
            highest_reply: 0,
            replies: 0,
            late: 0,
            repeated: 0,
            looked_at: 0,
            lowest_reply: u64::MAX,
            lowest_answered: u64::MAX,
            maybe_fresh: false,
            first_reply: 0,
            next_expected: 0,
            order,
        }
    }

    /// Begins anew, in the same memory.
    fn begin(&mut self, first: u64) {
        let mut order = std::mem::replace(&mut self.order, Resequencer::empty());
        order.clear();
        *self = Self::with(first, order);
    }

    /// The value at which the counter began, as the lowest numbers of the first replies tell: what is lost,
    /// doubled or reordered behind them does not change it.
    fn base(&self) -> u64 {
        match self.looked_at {
            0 => 0,
            _ => self.lowest_reply.saturating_sub(self.before_first()),
        }
    }

    /// Packets before the first one that was answered.
    fn before_first(&self) -> u64 {
        self.lowest_answered.saturating_sub(self.first)
    }

    /// Packets that were lost before the first one that was answered, where the counter had begun before:
    /// whether it counted them nobody knows.
    fn uncounted(&self) -> u64 {
        if self.base() > 0 {
            self.before_first()
        } else {
            0
        }
    }

    /// So much lower the value at which the counter began may be: one that began with the session looks the
    /// same where the first packets overtook one another, and a reply to one of them was lost.
    fn doubt(&self) -> u64 {
        let base = self.base();
        if self.maybe_fresh && base <= FIRST_REPLIES.into() {
            base
        } else {
            0
        }
    }

    /// Looks at so many replies from that to packet `s` with the number `r` on, for the value at which the
    /// counter began.
    fn look_at(&mut self, s: u64, r: u64, count: u64, others: &Others) {
        if self.looked_at >= FIRST_REPLIES {
            return;
        }
        let r = r.saturating_sub(others.below(r, self.highest_reply));
        self.looked_at = self
            .looked_at
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.lowest_reply = self.lowest_reply.min(r);
        self.lowest_answered = self.lowest_answered.min(s);
        self.maybe_fresh |= r <= s.saturating_sub(self.first);
    }

    /// The 64-bit number whose low half is `r`, near the highest so far.
    fn extend(&self, r: u32) -> u64 {
        if self.started {
            extend(r, self.highest_reply)
        } else {
            u64::from(r)
        }
    }

    /// Loss outbound and inbound among the packets up to `last` when the reflector has made
    /// `arrivals` replies to them.
    fn losses(&self, last: u64, arrivals: u64) -> (u64, u64) {
        let sent = last + 1 - self.first;
        // A few more would mean duplicates whose replies were lost: no packet is lost by that.
        let arrivals = arrivals.clamp(self.replies, (sent + self.repeated).max(self.replies));
        let outbound = (sent + self.repeated).saturating_sub(arrivals);
        (outbound, arrivals - self.replies)
    }

    /// Whether so many replies up to packet `last` can have been made to this session alone.
    fn plausible(&self, last: u64, arrivals: u64) -> bool {
        let sent = last + 1 - self.first + self.repeated;
        arrivals <= sent + sent / 50 + 8
    }
}

impl Tracker {
    /// A tracker that can tell apart at least `window` sequence numbers under way.
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self::counting_from(window, 0)
    }

    /// The same where packet 0 has the number `first` on the wire.
    #[must_use]
    pub fn counting_from(window: u64, first: u32) -> Self {
        Self {
            first,
            received: Bits::new(window),
            late: Bits::new(window),
            answers: Bits::new(HISTORY),
            replied: Bits::new(window.max(HISTORY)),
            replied_from: u64::MAX,
            others: Others::new(window.max(HISTORY)),
            decided: 0,
            counts: Counts::default(),
            directions: Directions::default(),
            answered: 0,
            next_expected: 0,
            own_counter: false,
            senseless: false,
            epoch: Epoch::new(0),
            former: Vec::with_capacity(usize::try_from(MOST_RESTARTS).unwrap_or(0) + 1),
            probes: Vec::with_capacity(16),
        }
    }

    /// Distinct sequence numbers that came back in time, so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Whether sequence number `s`, which is still told apart, was answered in time.
    #[must_use]
    pub fn in_time(&self, s: u64) -> bool {
        s >= self.decided && self.received.has(s)
    }

    /// Replies beyond the first of a sequence number, so far.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.counts.duplicates
    }

    /// Replies after the timeout, so far.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.counts.late
    }

    /// Reordered replies, so far.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.counts.reordered
    }

    /// Where the session is: to be asked about once every packet up to here is decided.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        (self.epoch.started && !self.senseless).then_some(Checkpoint {
            highest: self.epoch.highest,
            reply: self.epoch.highest_reply,
            restarts: self.counts.restarts,
        })
    }

    /// Packets lost after the reflector, of those that it had numbered by a checkpoint that is at
    /// least one timeout old. `None` where its counter began anew since, or is none.
    #[must_use]
    pub fn lost_inbound_until(&self, checkpoint: &Checkpoint) -> Option<u64> {
        let epoch = &self.epoch;
        let beyond = epoch.highest_reply.checked_sub(checkpoint.reply)?;
        if self.senseless
            || checkpoint.restarts != self.counts.restarts
            || beyond >= self.replied.len()
        {
            return None;
        }
        let came = self
            .replied
            .count(checkpoint.reply + 1, epoch.highest_reply);
        let came = (epoch.replies + epoch.late).saturating_sub(came);
        let next = checkpoint.reply + 1;
        let others = self.others.below(next, epoch.highest_reply);
        let made = next.saturating_sub(epoch.base() + others);
        Some(self.directions.lost_inbound + made.saturating_sub(came + epoch.uncounted()))
    }

    /// Packets that were answered, in time or late.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Whether any reply proved that the reflector keeps a sequence of its own.
    #[must_use]
    pub fn own_counter_proved(&self) -> bool {
        self.own_counter
    }

    /// Makes room for the sequence numbers below `sent`: what leaves the window is decided.
    pub fn make_room(&mut self, sent: u64) {
        let low = sent.saturating_sub(self.received.len());
        while self.decided < low {
            let answered = self.received.take_run(self.decided, low - self.decided);
            if answered == 0 {
                self.decide();
                continue;
            }
            self.late
                .clear_range(self.decided, self.decided + answered - 1);
            self.answers.set_run(self.decided, answered);
            self.counts.bursts.note(false);
            self.decided += answered;
        }
    }

    /// The number of packet `s` on the wire.
    fn number(&self, s: u64) -> u32 {
        low_half(s).wrapping_add(self.first)
    }

    fn decide(&mut self) {
        let s = self.decided;
        let (received, late) = (self.received.take(s), self.late.take(s));
        self.counts.bursts.note(!received);
        self.answers.put(s, received || late);
        self.decided += 1;
    }

    /// The bits that say whether `s` was answered: late, and once that is decided in time as well. `None`:
    /// it is so far behind that nothing does.
    fn answers_to(&mut self, s: u64) -> Option<&mut Bits> {
        match self.decided.checked_sub(s) {
            None | Some(0) => Some(&mut self.late),
            Some(behind) if behind <= self.answers.len() => Some(&mut self.answers),
            Some(_) => None,
        }
    }

    /// Counts a reply to `s` that carried the reflector's number `r`. One to a number that is decided is
    /// late, or a duplicate; one that is too far behind to tell counts as late.
    pub fn on_reply(&mut self, s: u64, r: u32, late: bool) -> Arrival {
        self.own_counter |= r != self.number(s);
        let decided = s < self.decided;
        let in_time = !decided && self.received.has(s);
        let arrival = if in_time || self.answers_to(s).is_some_and(|bits| bits.has(s)) {
            self.counts.duplicates += 1;
            Arrival::Duplicate
        } else if late || decided {
            if let Some(bits) = self.answers_to(s) {
                bits.set(s);
            }
            self.counts.late += 1;
            self.answered += 1;
            Arrival::Late
        } else {
            self.received.set(s);
            self.counts.received += 1;
            self.answered += 1;
            if s >= self.next_expected {
                self.next_expected = s + 1;
            } else {
                self.counts.reordered += 1;
            }
            Arrival::First
        };
        self.follow_reflector(s, r, arrival);
        arrival
    }

    /// Counts replies in time to the `count` packets from `s` on that carried the reflector's numbers
    /// from `r` on, as [`on_reply`](Self::on_reply) does one by one, where they are the usual: the first
    /// ones to the newest packets so far, with the newest numbers so far. Else does nothing and returns
    /// false.
    pub fn on_run(&mut self, s: u64, r: u32, count: u64) -> bool {
        let epoch = &self.epoch;
        let first_reply = epoch.extend(r);
        let usual = !self.senseless
            && epoch.started
            && s >= self.next_expected.max(self.decided).max(epoch.first)
            && first_reply > epoch.highest_reply
            && count > 0
            && count <= self.received.len()
            && s + count - self.decided <= self.received.len()
            && !self.late.any(s, count);
        if !usual {
            return false;
        }
        self.own_counter |= r != self.number(s);
        self.received.set_run(s, count);
        self.counts.received += count;
        self.answered += count;
        self.next_expected = s + count;
        self.see_run(first_reply, count);
        let epoch = &mut self.epoch;
        epoch.highest = epoch.highest.max(s + count - 1);
        epoch.replies += count;
        epoch.look_at(s, first_reply, count, &self.others);
        epoch.next_expected = first_reply + count;
        self.directions.reordered_outbound += epoch.order.push_run(first_reply, s, count);
        true
    }

    fn follow_reflector(&mut self, s: u64, r: u32, arrival: Arrival) {
        if self.senseless {
            self.epoch.highest = self.epoch.highest.max(s);
            return;
        }
        if s < self.epoch.first {
            return self.follow_former_counter(s, r, arrival);
        }
        let r = self.epoch.extend(r);
        if arrival == Arrival::First && self.restarted(s, r) {
            self.close_epoch();
            let before = self.epoch.highest + 1;
            // As many packets before this one as its number says are known to have arrived.
            let first = s.saturating_sub(r).max(before);
            self.directions.lost_unattributed += first - before;
            self.counts.restarts += 1;
            self.senseless |= self.counts.restarts > MOST_RESTARTS;
            self.former.push(FormerCounter {
                highest: self.epoch.highest,
                highest_reply: self.epoch.highest_reply,
                next: first,
            });
            self.forget_numbers();
            self.others.forget();
            self.epoch.begin(first);
        }
        let known = self.epoch.started && self.see(r);
        if arrival == Arrival::Duplicate {
            if known {
                self.directions.duplicates_inbound += 1;
            } else {
                self.directions.duplicates_outbound += 1;
            }
        }
        let epoch = &mut self.epoch;
        if !epoch.started {
            epoch.started = true;
            epoch.highest_reply = r;
            epoch.first_reply = r;
            epoch.next_expected = r;
            epoch.order.start(r);
            self.replied.set(r);
            self.replied_from = r;
            self.others.begin(r);
        }
        epoch.highest = epoch.highest.max(s);
        match arrival {
            _ if known => {}
            Arrival::Late => epoch.late += 1,
            Arrival::First | Arrival::Duplicate => {
                epoch.replies += 1;
                epoch.repeated += u64::from(arrival == Arrival::Duplicate);
            }
        }
        epoch.look_at(s, r, 1, &self.others);
        if arrival == Arrival::First {
            if r >= epoch.next_expected {
                epoch.next_expected = r + 1;
            } else {
                self.directions.reordered_inbound += 1;
            }
            self.directions.reordered_outbound += epoch.order.push(r, s);
        }
    }

    /// A reply to a packet whose loss was booked when the counter began anew: the reflector was taken to
    /// have received it where the reply's number is one that was known to be given.
    fn follow_former_counter(&mut self, s: u64, r: u32, arrival: Arrival) {
        let Some(former) = self.former.iter().find(|former| s < former.next) else {
            return;
        };
        let known = extend(r, former.highest_reply) <= former.highest_reply;
        let directions = &mut self.directions;
        let booked = match known {
            _ if s > former.highest => &mut directions.lost_unattributed,
            true => &mut directions.lost_inbound,
            false => &mut directions.lost_outbound,
        };
        match arrival {
            Arrival::Duplicate if known => directions.duplicates_inbound += 1,
            Arrival::Duplicate => directions.duplicates_outbound += 1,
            // Then something else was wrong before.
            Arrival::First | Arrival::Late if *booked == 0 => self.senseless = true,
            Arrival::First => *booked -= 1,
            Arrival::Late => {
                *booked -= 1;
                directions.lost_unattributed += 1;
            }
        }
    }

    /// Whether a reply shows that the counter began anew: the newest sequence number so far with a
    /// number that another packet's reply had, or so far back that no reordering explains it, or
    /// with 0 long after the first.
    fn restarted(&self, s: u64, r: u64) -> bool {
        let epoch = &self.epoch;
        let Some(back) = epoch.highest_reply.checked_sub(r) else {
            return false;
        };
        epoch.started
            && s > epoch.highest
            && (back >= self.received.len() || self.replied.has(r) || (r == 0 && back > 16))
    }

    /// Notes a number of the reflector; true if it was seen before.
    fn see(&mut self, r: u64) -> bool {
        let highest = self.epoch.highest_reply;
        if r > highest {
            self.forget_before(r);
            self.epoch.highest_reply = r;
        } else if highest - r >= self.replied.len() {
            // Too old to tell.
            return false;
        }
        let known = self.replied.has(r);
        self.replied.set(r);
        self.replied_from = self.replied_from.min(r);
        self.others.give_back(r, 1);
        known
    }

    /// Notes `count` numbers of the reflector from `r` on, all higher than those so far, and fewer than
    /// the window.
    fn see_run(&mut self, r: u64, count: u64) {
        self.forget_before(r);
        self.replied.set_run(r, count);
        self.epoch.highest_reply = r + count - 1;
        self.others.rise(r + count - 1, r);
        self.others.give_back(r, count);
    }

    /// Makes the places of the reflector's numbers free from the highest one so far to `r`.
    fn forget_before(&mut self, r: u64) {
        let highest = self.epoch.highest_reply;
        self.others.rise(r, highest);
        if r - highest >= self.replied.len() {
            self.forget_numbers();
            self.replied_from = r;
        } else {
            self.replied.clear_range(highest + 1, r);
        }
    }

    /// Forgets the reflector's numbers. Where few were seen that is little work, and memory that was never
    /// touched stays so.
    fn forget_numbers(&mut self) {
        let (from, to) = (self.replied_from, self.epoch.highest_reply);
        if from <= to && to - from < self.replied.len() {
            self.replied.clear_range(from, to);
        } else {
            self.replied.clear();
        }
        self.replied_from = u64::MAX;
    }

    /// Books loss by direction. A packet whose reply came late was lost on neither way, although it
    /// counts as lost.
    fn lose(&mut self, outbound: u64, inbound: u64) {
        let doubt = self.epoch.doubt().min(outbound);
        let unattributed = (self.epoch.late + self.epoch.uncounted()).min(inbound);
        self.directions.lost_outbound += outbound - doubt;
        self.directions.lost_inbound += inbound - unattributed;
        self.directions.lost_unattributed += unattributed + doubt;
    }

    fn close_epoch(&mut self) {
        let arrivals = self.made_until(self.epoch.highest_reply + 1);
        self.senseless |= !self.epoch.plausible(self.epoch.highest, arrivals);
        let (outbound, inbound) = self.epoch.losses(self.epoch.highest, arrivals);
        self.lose(outbound, inbound);
        self.counts.counter_began_at = self.counts.counter_began_at.max(self.epoch.base());
        self.directions.reordered_outbound += self.epoch.order.flush();
    }

    /// Notes that the reflector's number `r` is of its reply to a packet that is not of this session.
    ///
    /// Such a reply comes here where somebody else sends from our address and port: forged requests, or a
    /// sender behind the same address translation. Its number proves no arrival of ours. Whoever can
    /// send such a reply can make any up, so that it is believed only where it is one that the reflector can
    /// have given, and only until a reply of ours has it.
    pub fn on_other(&mut self, r: u32) {
        let epoch = &self.epoch;
        let highest = match (epoch.started, self.others.any()) {
            (true, _) => epoch.highest_reply,
            (false, true) => self.others.first,
            (false, false) => u64::from(r),
        };
        let r = extend(r, highest);
        let ours = epoch.started && r <= highest && self.replied.has(r);
        if r.abs_diff(highest) <= NEAR && !ours && !self.senseless {
            let noted = self.others.note(r, epoch.started && r <= highest);
            if noted && epoch.started && r < epoch.first_reply {
                // It is a part of the lead that the first replies showed.
                self.epoch.lowest_reply = self.epoch.lowest_reply.saturating_sub(1);
            }
        }
    }

    /// Replies to this session that have a number below `next`.
    fn made_until(&self, next: u64) -> u64 {
        let others = self.others.below(next, self.epoch.highest_reply);
        next.saturating_sub(self.epoch.base() + others)
    }

    /// Notes the answer to probe `index`: the last sequence number, sent again after the session,
    /// outside all counts. Its number `r` tells how many replies the reflector has made.
    pub fn on_probe(&mut self, index: u64, r: u32) {
        if self.probes.len() < self.probes.capacity()
            && self.probes.iter().all(|(known, _)| *known != index)
        {
            self.probes.push((index, r));
        }
    }

    /// Whether a (further) probe could tell no direction that is not known, when `sent` packets were
    /// sent.
    #[must_use]
    pub fn settled(&self, sent: u64) -> bool {
        let Some(last) = sent.checked_sub(1) else {
            return true;
        };
        let (duplicates, reordered) = (self.counts.duplicates, self.counts.reordered);
        let missing = self.answered < sent;
        let nothing_to_tell = !missing && (self.own_counter || duplicates + reordered == 0);
        if nothing_to_tell || self.senseless || missing && self.repeats_numbers() {
            return true;
        }
        match self.probes.as_slice() {
            // Its counter is known up to the last packet, unless a missing one came there after it.
            [] => self.own_counter && self.epoch.highest == last && reordered == 0,
            [(_, r)] => self.own_counter || *r != self.number(last),
            _ => true,
        }
    }

    /// The counts, when `sent` packets were sent.
    #[must_use]
    pub fn finish(self, sent: u64) -> Counts {
        self.cut_short(sent, sent)
    }

    /// The same where those from `due` on have not timed out: an unanswered one of these is not lost yet.
    #[must_use]
    pub fn cut_short(mut self, sent: u64, due: u64) -> Counts {
        while self.decided < due.min(sent) {
            self.decide();
        }
        while self.decided < sent {
            let s = self.decided;
            let unresolved = !self.received.has(s) && !self.late.has(s);
            self.counts.unresolved += u64::from(unresolved);
            self.decided += 1;
        }
        let last = sent.saturating_sub(1);
        let last = self.number(last);
        let own = self.own_counter || self.probes.iter().any(|(_, r)| *r != last);
        self.counts.own_counter = match self.probes.len() {
            _ if own => Some(true),
            // One answer alone may repeat the number by chance: the packet before it was lost.
            0 | 1 => None,
            _ if sent <= 1 => None,
            _ => Some(false),
        };
        // Without a reply of ours no number is known to be one.
        if self.epoch.started {
            self.counts.given_to_others = self.others.total;
        }
        self.senseless |= self.repeats_numbers() && self.counts.received < sent;
        if own && self.epoch.started {
            self.attribute(sent);
            let d = &self.directions;
            let told = d.lost_outbound + d.lost_inbound + d.lost_unattributed;
            self.senseless |= told != sent.saturating_sub(self.counts.received);
            self.counts.senseless = self.senseless;
            let told = (!self.senseless).then_some(self.directions);
            self.counts.directions = told.and_then(|d| d.without(self.counts.unresolved));
        }
        if self.epoch.started && self.answered + self.counts.unresolved >= sent {
            // Whatever the reflector's numbers are: every packet came there and back, or came late.
            let followed = self.counts.followed();
            self.counts.directions = Some(Directions {
                lost_outbound: 0,
                lost_inbound: 0,
                lost_unattributed: sent
                    .saturating_sub(self.counts.received + self.counts.unresolved),
                ..if followed {
                    self.directions
                } else {
                    Directions::default()
                }
            });
        }
        self.counts
    }

    /// Whether the reflector gives one number to one reply after the other.
    ///
    /// A quirk of reflectors whose counter is stuck, or begins anew with each packet that they take for
    /// a session of its own (one reflector does with every packet of number 0). Each such reply looks
    /// like a restart, between which a missing packet would be given to a direction by chance; where
    /// nothing is missing there is nothing to be told.
    fn repeats_numbers(&self) -> bool {
        let restarts = self.counts.restarts;
        restarts > 0 && restarts * RESTARTS_ONE_IN >= self.counts.received
    }

    fn attribute(&mut self, sent: u64) {
        let Some(arrivals) = self.arrivals(sent) else {
            self.directions.lost_unattributed += sent.saturating_sub(self.epoch.highest + 1);
            self.close_epoch();
            return;
        };
        self.senseless |= !self.epoch.plausible(sent - 1, arrivals);
        let (outbound, inbound) = self.epoch.losses(sent - 1, arrivals);
        self.lose(outbound, inbound);
        self.counts.counter_began_at = self.counts.counter_began_at.max(self.epoch.base());
        self.directions.reordered_outbound += self.epoch.order.flush();
    }

    /// How many replies the reflector made before the probes, if their answers say so exactly.
    fn arrivals(&mut self, sent: u64) -> Option<u64> {
        let base = self.epoch.base();
        let mut low = self.made_until(self.epoch.highest_reply + 1);
        let mut high = u64::MAX;
        self.probes.sort_unstable();
        for (answered, (index, r)) in (0_u64..).zip(&self.probes) {
            let r = extend(*r, self.epoch.highest_reply);
            let r = r.checked_sub(base + self.others.below(r, self.epoch.highest_reply))?;
            // Of the probes before this one at least the answered ones arrived, at most all.
            low = low.max(r.saturating_sub(*index));
            high = high.min(r.checked_sub(answered)?);
        }
        if high == u64::MAX {
            // No probe: then it is known only where the last packet itself was answered.
            let all = self.epoch.highest + 1 >= sent;
            return all.then_some(low);
        }
        // No more can have arrived than left, but for copies.
        high = high.min((sent - self.epoch.first + self.epoch.repeated).max(low));
        (low == high).then_some(low)
    }
}

/// The reflector's numbers that it gave to packets of others, of this epoch.
#[derive(Debug)]
struct Others {
    numbers: Bits,
    /// The first one that was noted, and the lowest and highest.
    first: u64,
    from: u64,
    to: u64,
    /// How many are not above the highest one that a reply of ours had.
    passed: u64,
    /// Of all epochs.
    total: u64,
}

impl Others {
    fn new(window: u64) -> Self {
        Self {
            numbers: Bits::new(window),
            first: 0,
            from: u64::MAX,
            to: 0,
            passed: 0,
            total: 0,
        }
    }

    fn any(&self) -> bool {
        self.from <= self.to
    }

    /// Notes a number, which is `passed` where replies of ours had higher ones; false where it is known.
    fn note(&mut self, r: u64, passed: bool) -> bool {
        if self.numbers.has(r) {
            return false;
        }
        if !self.any() {
            self.first = r;
        }
        self.numbers.set(r);
        (self.from, self.to) = (self.from.min(r), self.to.max(r));
        self.passed += u64::from(passed);
        self.total += 1;
        true
    }

    /// The first reply of ours has number `r`.
    fn begin(&mut self, r: u64) {
        if !self.any() {
        } else if self.first.abs_diff(r) > NEAR {
            // They are of another time, or never were: no reply of ours bears them out.
            self.forget();
            self.total = 0;
        } else {
            self.passed = self.numbers.count(self.from, r.min(self.to));
            self.give_back(r, 1);
        }
    }

    /// The highest number of a reply of ours rises to `to`.
    fn rise(&mut self, to: u64, before: u64) {
        if !self.any() || to <= before {
            return;
        }
        self.passed += self.numbers.count(before + 1, to.min(self.to));
        // The places of the numbers that may be noted next have those of long ago.
        if to - before < self.numbers.len() / 2 {
            self.numbers.clear_range(before + NEAR + 1, to + NEAR);
        } else {
            self.clear();
        }
    }

    /// Replies of ours have `count` numbers from `r` on, which are not above the highest one.
    fn give_back(&mut self, r: u64, count: u64) {
        if self.any() {
            let taken = self.numbers.count(r, r + count - 1);
            self.numbers.clear_range(r, r + count - 1);
            self.passed = self.passed.saturating_sub(taken);
            self.total = self.total.saturating_sub(taken);
        }
    }

    /// How many lie below `r`, when the highest number of a reply of ours is `highest`.
    fn below(&self, r: u64, highest: u64) -> u64 {
        if !self.any() {
            self.passed
        } else if r > highest {
            self.passed + self.numbers.count(highest + 1, (r - 1).min(self.to))
        } else if highest - r < self.numbers.len() / 2 {
            let not = self.numbers.count(r, highest);
            self.passed.saturating_sub(not)
        } else {
            self.passed
        }
    }

    /// Which ones they were is no longer known.
    fn clear(&mut self) {
        if self.any() && self.to - self.from < self.numbers.len() {
            self.numbers.clear_range(self.from, self.to);
        } else if self.any() {
            self.numbers.clear();
        }
        (self.from, self.to) = (u64::MAX, 0);
    }

    fn forget(&mut self) {
        self.clear();
        self.passed = 0;
    }
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// The 64-bit number nearest to `near` whose low half is `low` (RFC 1982 arithmetic); never below 0.
#[must_use]
pub fn extend(low: u32, near: u64) -> u64 {
    let ahead = low.wrapping_sub(low_half(near));
    let behind = low_half(near).wrapping_sub(low);
    if ahead <= behind || near < u64::from(behind) {
        near + u64::from(ahead)
    } else {
        near - u64::from(behind)
    }
}

/// Bits for a window of consecutive numbers, each in the place of its remainder.
#[derive(Debug)]
struct Bits {
    words: Box<[u64]>,
    mask: u64,
    /// Times that all of them were cleared, which takes long.
    #[cfg(test)]
    clears: u32,
}

impl Bits {
    fn new(window: u64) -> Self {
        let bits = window.max(64).next_power_of_two();
        let words = usize::try_from(bits / 64).expect("a window of bits fits the address space");
        Self {
            words: vec![0; words].into_boxed_slice(),
            mask: bits - 1,
            #[cfg(test)]
            clears: 0,
        }
    }

    fn len(&self) -> u64 {
        self.mask + 1
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let bit = number & self.mask;
        let word = usize::try_from(bit / 64).expect("within the window");
        (word, 1 << (bit % 64))
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        self.words[word] & bit != 0
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = self.place(number);
        self.words[word] |= bit;
    }

    /// Shows `f` the words of the bits from `from` on, `count` of them, which are no more than the window,
    /// and in each the bits that are meant.
    fn in_words(&mut self, from: u64, count: u64, mut f: impl FnMut(&mut u64, u64)) {
        let (mut next, mut left) = (from, count);
        while left > 0 {
            let (word, bit) = self.place(next);
            let here = left.min(64 - u64::from(bit.trailing_zeros()));
            // All ones from the bit on, as many as are meant.
            let meant = (u64::MAX >> (64 - here)) << bit.trailing_zeros();
            f(&mut self.words[word], meant);
            next += here;
            left -= here;
        }
    }

    fn put(&mut self, number: u64, value: bool) {
        let (word, bit) = self.place(number);
        self.words[word] = self.words[word] & !bit | if value { bit } else { 0 };
    }

    /// Sets the bits from `from` on, no more than the window.
    fn set_run(&mut self, from: u64, count: u64) {
        self.in_words(from, count, |word, meant| *word |= meant);
    }

    /// Whether any of the bits from `from` on is set.
    fn any(&mut self, from: u64, count: u64) -> bool {
        let mut any = false;
        self.in_words(from, count, |word, meant| any |= *word & meant != 0);
        any
    }

    /// Clears the bits from `from` on that are set, up to the first one that is not and to the end of
    /// the word, at most `most` of them; returns how many.
    fn take_run(&mut self, from: u64, most: u64) -> u64 {
        let (word, bit) = self.place(from);
        let ones = (self.words[word] >> bit.trailing_zeros()).trailing_ones();
        let count = u64::from(ones).min(most);
        self.in_words(from, count, |word, meant| *word &= !meant);
        count
    }

    /// Clears a bit and returns what it was.
    fn take(&mut self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        let was = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        was
    }

    fn clear(&mut self) {
        self.words.fill(0);
        #[cfg(test)]
        {
            self.clears += 1;
        }
    }

    /// How many of the bits `from..=to`, fewer than the window, are set.
    fn count(&self, from: u64, to: u64) -> u64 {
        let mut next = from;
        let mut found = 0;
        while next <= to {
            let (word, bit) = self.place(next);
            if bit == 1 && to - next >= 63 {
                found += u64::from(self.words[word].count_ones());
                next += 64;
            } else {
                found += u64::from(self.words[word] & bit != 0);
                next += 1;
            }
        }
        found
    }

    /// Clears the bits `from..=to`, which are fewer than the window.
    fn clear_range(&mut self, from: u64, to: u64) {
        self.in_words(from, to + 1 - from, |word, meant| *word &= !meant);
    }
}

/// Puts replies in the order of the reflector's numbers, and counts those whose `s` is reordered in
/// it: they overtook one another before the reflector. What is further apart than the buffer is not
/// put in order.
#[derive(Debug)]
struct Resequencer {
    held: Box<[Option<u64>]>,
    holding: usize,
    /// Next number of the reflector to be let go.
    next: u64,
    next_expected: u64,
}

impl Resequencer {
    fn new() -> Self {
        Self {
            held: vec![None; RESEQUENCE].into_boxed_slice(),
            holding: 0,
            next: 0,
            next_expected: 0,
        }
    }

    /// One that holds nothing and may hold nothing.
    fn empty() -> Self {
        Self {
            held: Box::default(),
            holding: 0,
            next: 0,
            next_expected: 0,
        }
    }

    fn clear(&mut self) {
        self.held.fill(None);
        (self.holding, self.next, self.next_expected) = (0, 0, 0);
    }

    /// Numbers before the first may still come: they were overtaken on the way back.
    fn start(&mut self, r: u64) {
        self.next = r.saturating_sub(RESEQUENCE as u64 / 2);
    }

    fn slot(r: u64) -> usize {
        usize::try_from(r % RESEQUENCE as u64).expect("within the buffer")
    }

    /// Takes a reply; returns how many of those let go by it were reordered.
    fn push(&mut self, r: u64, s: u64) -> u64 {
        if r < self.next {
            // It comes too late to be put in its place.
            return 0;
        }
        let mut reordered = 0;
        let room_for = r.saturating_sub(RESEQUENCE as u64 - 1);
        while self.next < room_for {
            if self.holding == 0 {
                self.next = room_for;
                break;
            }
            reordered += self.let_go();
        }
        let held = &mut self.held[Self::slot(r)];
        self.holding += usize::from(held.is_none());
        *held = Some(s);
        while self.holding > 0 && self.held[Self::slot(self.next)].is_some() {
            reordered += self.let_go();
        }
        reordered
    }

    /// As [`push`](Self::push) of `count` replies with consecutive numbers; of these replies too as many
    /// as were reordered.
    fn push_run(&mut self, r: u64, s: u64, count: u64) -> u64 {
        if self.holding > 0 || self.next != r {
            return (0..count).map(|n| self.push(r + n, s + n)).sum();
        }
        // Nothing is held, and this is what is waited for.
        self.next = r + count;
        let reordered = self.next_expected.saturating_sub(s).min(count);
        self.next_expected = self.next_expected.max(s + count);
        reordered
    }

    fn let_go(&mut self) -> u64 {
        let held = self.held[Self::slot(self.next)].take();
        self.next += 1;
        let Some(s) = held else {
            return 0;
        };
        self.holding -= 1;
        if s >= self.next_expected {
            self.next_expected = s + 1;
            0
        } else {
            1
        }
    }

    fn flush(&mut self) -> u64 {
        let mut reordered = 0;
        while self.holding > 0 {
            reordered += self.let_go();
        }
        reordered
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    fn vectors() -> serde_json::Value {
        let text = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/vectors/metrics.json"
        ));
        serde_json::from_str(text).unwrap()
    }

    fn track(replies: &[(u64, u32)], sent: u64) -> Counts {
        let mut tracker = Tracker::new(1 << 12);
        tracker.make_room(sent);
        for (s, r) in replies {
            tracker.on_reply(*s, *r, false);
        }
        tracker.finish(sent)
    }

    fn losses(counts: &Counts) -> (u64, u64, u64) {
        let d = counts.directions.unwrap();
        (d.lost_outbound, d.lost_inbound, d.lost_unattributed)
    }

    #[test]
    fn vectors_of_reordering() {
        for case in vectors()["reordering"].as_array().unwrap() {
            let arrivals = case["arrivals"].as_array().unwrap();
            let replies: Vec<_> = arrivals
                .iter()
                .map(|s| {
                    (
                        s.as_u64().unwrap(),
                        u32::try_from(s.as_u64().unwrap()).unwrap(),
                    )
                })
                .collect();
            let counts = track(&replies, 12);
            assert_eq!(
                counts.reordered,
                case["reordered"].as_u64().unwrap(),
                "{}",
                case["name"]
            );
        }
    }

    #[test]
    fn vectors_of_directional_loss() {
        for case in vectors()["directional_loss"].as_array().unwrap() {
            let pairs = case["replies_sender_seq_reflector_seq"].as_array().unwrap();
            let replies: Vec<_> = pairs
                .iter()
                .map(|p| {
                    (
                        p[0].as_u64().unwrap(),
                        u32::try_from(p[1].as_u64().unwrap()).unwrap(),
                    )
                })
                .collect();
            let counts = track(&replies, case["sent"].as_u64().unwrap());
            let expected = ["forward_lost", "backward_lost", "unattributed_lost"]
                .map(|key| case[key].as_u64().unwrap());
            assert_eq!(losses(&counts), expected.into(), "{}", case["name"]);
        }
    }

    #[test]
    fn sessions_together_have_the_sums_and_no_more_than_is_known() {
        let known = Counts {
            received: 90,
            duplicates: 1,
            reordered: 2,
            directions: Some(Directions {
                lost_outbound: 7,
                lost_inbound: 3,
                duplicates_inbound: 1,
                reordered_outbound: 2,
                ..Directions::default()
            }),
            own_counter: Some(true),
            bursts: Bursts {
                count: 4,
                longest: 5,
                running: 0,
            },
            ..Counts::default()
        };
        let silent = Counts::default();
        let unknown = Counts {
            received: 10,
            ..Counts::default()
        };
        let of = |all: &[(u64, &Counts)]| Counts::together(all.iter().copied());
        let two = of(&[(100, &known), (100, &known)]);
        assert_eq!(
            (two.received, two.bursts.count, two.bursts.longest),
            (180, 8, 5)
        );
        let directions = two.directions.unwrap();
        assert_eq!((directions.lost_outbound, directions.lost_inbound), (14, 6));
        assert_eq!(two.own_counter, Some(true));
        // A flow that gets nothing through says nothing of the others.
        let one = of(&[(100, &known), (50, &silent)]);
        let directions = one.directions.unwrap();
        assert_eq!(
            (directions.lost_outbound, directions.lost_unattributed),
            (7, 50)
        );
        assert_eq!(one.own_counter, Some(true));
        assert_eq!(of(&[(100, &known), (10, &unknown)]).directions, None);
        assert_eq!(of(&[(50, &silent), (50, &silent)]), Counts::default());
    }

    /// Counts of which each is another one, from `from` on.
    fn counts_from(from: u64) -> Counts {
        let mut next = from..;
        let mut count = || next.next().unwrap();
        Counts {
            received: count(),
            late: count(),
            duplicates: count(),
            reordered: count(),
            directions: Some(Directions {
                lost_outbound: count(),
                lost_inbound: count(),
                lost_unattributed: count(),
                duplicates_outbound: count(),
                duplicates_inbound: count(),
                reordered_outbound: count(),
                reordered_inbound: count(),
            }),
            own_counter: Some(true),
            unresolved: count(),
            bursts: Bursts {
                count: count(),
                longest: count(),
                running: 0,
            },
            senseless: false,
            restarts: count(),
            counter_began_at: count(),
            given_to_others: count(),
        }
    }

    #[test]
    fn every_count_of_two_sessions_adds_up() {
        let (first, second) = (counts_from(100), counts_from(1000));
        // No sums, and as large as the larger one.
        let (longest, began_at) = (second.bursts.longest, second.counter_began_at);
        for (first, second) in [(&first, &second), (&second, &first)] {
            let got = Counts::together([(5, first), (5, second)].into_iter());
            let mut next = (1100..).step_by(2);
            let mut sum = || next.next().unwrap();
            let expected = Counts {
                received: sum(),
                late: sum(),
                duplicates: sum(),
                reordered: sum(),
                directions: Some(Directions {
                    lost_outbound: sum(),
                    lost_inbound: sum(),
                    lost_unattributed: sum(),
                    duplicates_outbound: sum(),
                    duplicates_inbound: sum(),
                    reordered_outbound: sum(),
                    reordered_inbound: sum(),
                }),
                own_counter: Some(true),
                unresolved: sum(),
                bursts: Bursts {
                    count: sum(),
                    longest: (sum(), longest).1,
                    running: 0,
                },
                senseless: false,
                restarts: sum(),
                counter_began_at: (sum(), began_at).1,
                given_to_others: sum(),
            };
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn of_two_sessions_the_reflector_counts_only_as_far_as_each_tells() {
        let of = |own_counter, senseless| Counts {
            own_counter,
            senseless,
            directions: None,
            ..counts_from(100)
        };
        let (yes, no) = (Some(true), Some(false));
        for (first, second, both) in [
            (yes, yes, yes),
            (yes, no, no),
            // That one copies our numbers is proof enough.
            (no, None, no),
            (no, no, no),
            (yes, None, None),
            (None, None, None),
        ] {
            for [a, b] in [[first, second], [second, first]] {
                let (a, b) = (of(a, false), of(b, false));
                let all = Counts::together([(5, &a), (5, &b)].into_iter());
                assert_eq!(all.own_counter, both, "{a:?} {b:?}");
            }
        }
        for (first, second) in [(true, false), (false, true), (true, true)] {
            let (a, b) = (of(yes, first), of(yes, second));
            let all = Counts::together([(5, &a), (5, &b)].into_iter());
            assert!(all.senseless && !all.followed(), "{first} {second}");
        }
    }

    #[test]
    fn a_late_reply_is_an_answer() {
        let mut tracker = Tracker::new(64);
        tracker.make_room(3);
        assert_eq!(tracker.on_reply(0, 0, true), Arrival::Late);
        assert_eq!((tracker.answered(), tracker.received()), (1, 0));
        assert_eq!(tracker.on_reply(1, 1, false), Arrival::First);
        assert_eq!(tracker.on_reply(2, 2, true), Arrival::Late);
        assert_eq!((tracker.answered(), tracker.received()), (3, 1));
        // Nothing is waited for, and a probe would tell nothing.
        assert!(tracker.settled(3));
        assert_eq!(tracker.on_reply(2, 2, true), Arrival::Duplicate);
        assert_eq!((tracker.answered(), tracker.late()), (3, 2));
        assert_eq!((tracker.received(), tracker.duplicates()), (1, 1));
    }

    #[test]
    fn what_was_answered_within_the_window_is_known_behind_it() {
        let mut tracker = Tracker::new(64);
        tracker.make_room(10);
        assert_eq!(tracker.on_reply(4, 4, true), Arrival::Late);
        assert_eq!(tracker.on_reply(6, 6, false), Arrival::First);
        tracker.make_room(1000);
        assert_eq!(tracker.on_reply(4, 4, true), Arrival::Duplicate);
        assert_eq!(tracker.on_reply(6, 6, true), Arrival::Duplicate);
        assert_eq!(tracker.on_reply(5, 5, true), Arrival::Late);
        assert_eq!(tracker.on_reply(5, 5, true), Arrival::Duplicate);
        let counts = tracker.finish(1000);
        assert_eq!((counts.received, counts.late, counts.duplicates), (1, 2, 3));
    }

    #[test]
    fn bits_say_of_the_newest_number_of_each_place() {
        let mut bits = Bits::new(128);
        bits.put(3, true);
        bits.put(4, true);
        bits.put(3 + 128, false);
        assert!(!bits.has(3 + 128) && bits.has(4));
        bits.clear();
        assert!(!bits.has(4));
    }

    #[test]
    fn after_a_jump_of_the_reflectors_number_fresh_ones_are_not_known() {
        let mut tracker = Tracker::new(64);
        let jump = 4 * HISTORY;
        // More than the history lies between the first and the last one, but not between two of them.
        for r in [0, HISTORY / 2, HISTORY - 3, HISTORY + 5, jump] {
            assert!(!tracker.see(r), "{r}");
        }
        assert!(!tracker.see(jump - 3), "it has the place of one of before");
        assert!(tracker.see(jump - 3));
    }

    #[test]
    fn reordering_of_the_very_first_packet_is_told_by_direction() {
        let outbound = track(&[(1, 0), (0, 1), (2, 2)], 3).directions.unwrap();
        assert_eq!(
            (outbound.reordered_outbound, outbound.reordered_inbound),
            (1, 0)
        );
        let inbound = track(&[(1, 1), (0, 0), (2, 3)], 4).directions.unwrap();
        assert_eq!(
            (inbound.reordered_outbound, inbound.reordered_inbound),
            (0, 1)
        );
    }

    #[test]
    fn packets_that_overtook_one_another_both_ways_are_told_apart_in_runs_too() {
        // 8 overtook 4 to 7 on the way out, and its reply was overtaken by theirs.
        let mut tracker = Tracker::new(64);
        tracker.on_reply(0, 0, false);
        assert!(tracker.on_run(1, 1, 3));
        assert!(tracker.on_run(4, 5, 4));
        tracker.on_reply(8, 4, false);
        let counts = tracker.finish(9);
        let directions = counts.directions.unwrap();
        assert_eq!(counts.reordered, 0);
        assert_eq!(
            (directions.reordered_outbound, directions.reordered_inbound),
            (4, 1)
        );
    }

    #[test]
    fn where_every_packet_was_answered_none_was_lost_on_either_way() {
        let replies: Vec<(u64, u32)> = (0..20).map(|s| (s, u32::try_from(s).unwrap())).collect();
        let counts = track(&replies, 20);
        // It may count its replies or copy our numbers: nobody need know.
        assert_eq!((counts.own_counter, losses(&counts)), (None, (0, 0, 0)));
        let mut tracker = Tracker::new(64);
        for (s, r) in &replies {
            tracker.on_reply(*s, *r, *s == 7);
        }
        assert!(tracker.settled(20));
        let late = tracker.finish(20);
        assert_eq!((late.late, losses(&late)), (1, (0, 0, 1)));
        // Beside one that lost packets and whose reflector counts.
        let proved = track(&[(0, 0), (2, 1), (3, 2)], 4);
        let both = Counts::together([(20, &counts), (4, &proved)].into_iter());
        assert_eq!((both.own_counter, losses(&both)), (Some(true), (1, 0, 0)));
        let neither = Counts::together([(20, &counts), (20, &late)].into_iter());
        assert_eq!((neither.own_counter, losses(&neither)), (None, (0, 0, 1)));
        // A copy that nothing tells the direction of takes that from all.
        let copied = track(&[(0, 0), (1, 1), (1, 1)], 2);
        assert_eq!(losses(&copied), (0, 0, 0));
        let all = Counts::together([(4, &proved), (2, &copied)].into_iter());
        assert!(!all.followed() && !copied.followed());
        assert_eq!(losses(&all), (1, 0, 0));
    }

    #[test]
    fn what_is_still_awaited_when_the_wait_is_cut_short_is_not_lost() {
        let cut = |replies: &[(u64, u32)], sent: u64, due: u64| {
            let mut tracker = Tracker::new(1 << 12);
            for (s, r) in replies {
                tracker.on_reply(*s, *r, false);
            }
            let counts = tracker.cut_short(sent, due);
            (
                counts.unresolved,
                counts.directions.map(|_| losses(&counts)),
                counts.bursts.count,
            )
        };
        // 1 was lost outbound; 5 and those from 7 on are still under way, as far as anybody knows.
        let replies = [(0, 0), (2, 1), (3, 2), (4, 3), (6, 4)];
        assert_eq!(cut(&replies, 10, 3), (4, Some((1, 0, 0)), 1));
        assert_eq!(cut(&replies, 10, 6), (3, Some((2, 0, 0)), 2));
        assert_eq!(cut(&replies, 10, 10), (0, Some((2, 0, 3)), 3));
        // Where some were lost on each way nobody knows on which the one was that may come.
        let both = [(0, 0), (2, 1), (4, 3), (6, 4)];
        assert_eq!(cut(&both, 8, 5), (2, None, 2));
        assert_eq!(cut(&both, 8, 7), (1, Some((2, 1, 0)), 3));
        // Nothing is lost that nobody waited for.
        assert_eq!(cut(&[(0, 0), (1, 1)], 9, 0), (7, Some((0, 0, 0)), 0));
        assert_eq!(cut(&[], 9, 0), (9, None, 0));
    }

    #[test]
    fn a_copying_reflector_has_no_directions() {
        let mut tracker = Tracker::new(64);
        for s in [0, 1, 3] {
            tracker.on_reply(s, u32::try_from(s).unwrap(), false);
        }
        tracker.on_probe(0, 3);
        assert!(!tracker.settled(4));
        tracker.on_probe(1, 3);
        assert!(tracker.settled(4));
        let counts = tracker.finish(4);
        assert_eq!((counts.own_counter, counts.directions), (Some(false), None));
        assert_eq!(counts.received, 3);
    }

    #[test]
    fn inbound_loss_alone_is_told_by_a_probe() {
        let mut tracker = Tracker::new(64);
        for s in [0, 1, 3] {
            tracker.on_reply(s, u32::try_from(s).unwrap(), false);
        }
        // Packets 2 and 4 were answered, and the answers were lost.
        tracker.on_probe(0, 5);
        assert!(tracker.settled(5));
        assert_eq!(losses(&tracker.finish(5)), (0, 2, 0));
    }

    #[test]
    fn the_tail_is_told_by_a_probe() {
        for (r, expected) in [(3, (2, 0, 0)), (4, (1, 1, 0)), (5, (0, 2, 0))] {
            let mut tracker = Tracker::new(64);
            for s in [0, 1, 2] {
                tracker.on_reply(s, u32::try_from(s).unwrap(), false);
            }
            tracker.on_probe(0, r);
            tracker.on_probe(1, r + 1);
            assert_eq!(losses(&tracker.finish(5)), expected);
        }
    }

    #[test]
    fn a_probe_lost_itself_leaves_the_tail_open_unless_bounds_close_it() {
        let replies = |tracker: &mut Tracker| {
            for (s, r) in [(0, 0), (2, 1)] {
                tracker.on_reply(s, r, false);
            }
        };
        // Probe 0 unanswered: it may or may not have been counted.
        let mut tracker = Tracker::new(64);
        replies(&mut tracker);
        tracker.on_probe(1, 3);
        assert_eq!(losses(&tracker.finish(5)), (1, 0, 2));
        // It cannot have been: then five packets would have been answered of which one was lost.
        let mut tracker = Tracker::new(64);
        replies(&mut tracker);
        tracker.on_probe(1, 2);
        assert_eq!(losses(&tracker.finish(5)), (3, 0, 0));
    }

    #[test]
    fn duplicates_are_told_by_direction() {
        // 1 was doubled on the way back, 2 on the way out.
        let counts = track(&[(0, 0), (1, 1), (1, 1), (2, 2), (2, 3), (3, 4)], 4);
        let d = counts.directions.unwrap();
        assert_eq!((counts.duplicates, counts.received), (2, 4));
        assert_eq!((d.duplicates_outbound, d.duplicates_inbound), (1, 1));
        assert_eq!(losses(&counts), (0, 0, 0));
    }

    #[test]
    fn reordering_is_told_by_direction() {
        // 2 and 1 changed places on the way out, 4 and 5 on the way back.
        let counts = track(&[(0, 0), (2, 1), (1, 2), (3, 3), (5, 5), (4, 4), (6, 6)], 7);
        let d = counts.directions.unwrap();
        assert_eq!(counts.reordered, 2);
        assert_eq!((d.reordered_outbound, d.reordered_inbound), (1, 1));
    }

    #[test]
    fn a_reflector_that_begins_anew_splits_the_session() {
        let mut replies: Vec<(u64, u32)> =
            (0..50).map(|s| (s, u32::try_from(s).unwrap())).collect();
        // 50..=59 were lost with the reflector; then it counts from 0 again, and loses 65.
        replies.extend((60..65).map(|s| (s, u32::try_from(s - 60).unwrap())));
        replies.extend((66..80).map(|s| (s, u32::try_from(s - 61).unwrap())));
        let counts = track(&replies, 80);
        assert_eq!(counts.restarts, 1);
        assert_eq!(losses(&counts), (1, 0, 10));
        assert_eq!(counts.reordered, 0);
        assert_eq!(counts.directions.unwrap().reordered_inbound, 0);
    }

    #[test]
    fn a_counter_that_goes_on_from_before_is_no_loss() {
        let replies: Vec<(u64, u32)> = (0..100)
            .filter(|s| *s != 50)
            .map(|s| (s, 1000 + u32::try_from(s).unwrap() - u32::from(s > 50)))
            .collect();
        let counts = track(&replies, 100);
        assert_eq!(losses(&counts), (1, 0, 0));
        assert_eq!(counts.counter_began_at, 1000);
    }

    /// Whether the reflector counted what was lost before its first reply cannot be known.
    #[test]
    fn loss_before_the_first_reply_of_a_counter_that_goes_on_has_no_direction() {
        // The lower one may as well be one that began with the session, whose first packets overtook one another.
        for (began, told) in [(3, (0, 1, 3)), (99, (1, 1, 2)), (u32::MAX - 9, (1, 1, 2))] {
            // The first two packets and packet 7 were lost on their way out, the reply to packet 9 on its way back.
            let number = |s: u64| began.wrapping_add(u32::try_from(s).unwrap() - u32::from(s > 7));
            let came = (0..60).filter(|s| ![0, 1, 7, 9].contains(s));
            let mut replies: Vec<_> = came.map(|s| (s, number(s - 2))).collect();
            assert_eq!(losses(&track(&replies, 60)), told, "{began}");
            // They came in another order, and left in another one.
            replies.swap(0, 2);
            assert_eq!(losses(&track(&replies, 60)), told, "{began}");
            (replies[0].1, replies[1].1) = (replies[1].1, replies[0].1);
            assert_eq!(losses(&track(&replies, 60)), told, "{began}");
        }
        // A counter that began with the session counted none of them.
        let fresh = (2..60).map(|s| (s, u32::try_from(s - 2).unwrap()));
        assert_eq!(losses(&track(&fresh.collect::<Vec<_>>(), 60)), (2, 0, 0));
    }

    #[test]
    fn a_session_that_begins_anew_with_every_packet_lost_nothing() {
        let counts = track(&[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)], 5);
        assert_eq!(losses(&counts), (0, 0, 0));
        let d = counts.directions.unwrap();
        assert_eq!((counts.restarts, d.reordered_inbound), (4, 0));
        // Two restarts at the same number.
        let counts = track(&[(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (6, 1)], 7);
        let d = counts.directions.unwrap();
        assert_eq!(d.lost_outbound + d.lost_unattributed, 1);
    }

    #[test]
    fn a_number_that_is_repeated_tells_no_direction_of_a_loss() {
        for stuck in [0, 5, u32::MAX] {
            for lost in 0..6 {
                let replies: Vec<_> = (0..6).filter(|s| *s != lost).map(|s| (s, stuck)).collect();
                let counts = track(&replies, 6);
                assert!(counts.senseless, "{stuck}, {lost} was lost");
                assert_eq!((counts.received, counts.directions), (5, None));
            }
        }
    }

    #[test]
    fn numbers_that_count_something_else_tell_no_direction() {
        let constant: Vec<_> = (0..100).map(|s| (s, 7)).collect();
        let counts = track(&constant, 100);
        assert!(counts.senseless && !counts.followed());
        assert_eq!(losses(&counts), (0, 0, 0), "nothing was lost");
        let counts = track(&constant, 101);
        assert!(counts.senseless && counts.directions.is_none());
        // It counts the packets of two sessions.
        let shared = (0..100_u64).filter(|s| s % 10 != 5);
        let shared: Vec<_> = shared.map(|s| (s, u32::try_from(2 * s).unwrap())).collect();
        let counts = track(&shared, 100);
        assert!(counts.senseless && counts.directions.is_none());
        assert_eq!(counts.received, 90);
    }

    #[test]
    fn both_counters_wrap() {
        let mut tracker = Tracker::new(1 << 10);
        let start = u64::from(u32::MAX) - 100;
        // As if everything before had been answered.
        tracker.decided = start;
        tracker.epoch = Epoch::new(start);
        tracker.next_expected = start;
        tracker.counts.received = start;
        let mut lost = 0;
        for i in 0..300 {
            let s = start + i;
            tracker.make_room(s + 1);
            if i % 7 == 3 {
                lost += 1;
                continue;
            }
            assert_eq!(extend(low_half(s), s + 5), s);
            tracker.on_reply(s, low_half(s - lost), false);
        }
        let counts = tracker.finish(start + 300);
        assert_eq!((counts.reordered, counts.restarts), (0, 0));
        assert_eq!(losses(&counts), (lost, 0, 0));
    }

    #[test]
    fn late_replies_are_lost_and_counted_apart() {
        let mut tracker = Tracker::new(64);
        assert_eq!(tracker.on_reply(0, 0, false), Arrival::First);
        assert_eq!(tracker.on_reply(1, 1, true), Arrival::Late);
        assert_eq!(tracker.on_reply(1, 1, true), Arrival::Duplicate);
        assert_eq!(tracker.on_reply(3, 2, false), Arrival::First);
        let counts = tracker.finish(4);
        assert_eq!((counts.received, counts.late, counts.duplicates), (2, 1, 1));
        // 1 did reach the reflector, and its reply came; 2 did not.
        assert_eq!(losses(&counts), (1, 0, 1));
        assert_eq!(counts.bursts.count, 1);
        assert_eq!(counts.bursts.longest, 2);
    }

    #[test]
    fn replies_to_numbers_that_left_the_window_are_what_they_would_be_in_it() {
        for window in [1 << 14, 64] {
            let mut tracker = Tracker::new(window);
            let (mut late, mut r) = (Vec::new(), 0);
            for s in 0..5000 {
                tracker.make_room(s + 1);
                if s % 11 == 0 {
                    // Lost outbound.
                    continue;
                }
                match s % 7 {
                    // Lost inbound.
                    0 => {}
                    1 => late.push((s, r)),
                    _ => assert_eq!(tracker.on_reply(s, r, false), Arrival::First),
                }
                if s % 7 == 2 {
                    // A copy that comes later still.
                    late.push((s, r));
                }
                r += 1;
            }
            for (s, r) in &late {
                let first = s % 7 == 1;
                let expected = [Arrival::Duplicate, Arrival::Late][usize::from(first)];
                assert_eq!(tracker.on_reply(*s, *r, true), expected, "{window} {s}");
                if first {
                    let again = tracker.on_reply(*s, *r, true);
                    assert_eq!(again, Arrival::Duplicate, "{window} {s}");
                }
            }
            tracker.on_probe(0, r);
            let counts = tracker.finish(5000);
            let of = |rest| (0..5000).filter(|s| s % 11 != 0 && s % 7 == rest).count() as u64;
            assert_eq!(
                (counts.late, counts.duplicates),
                (of(1), of(1) + of(2)),
                "{window}"
            );
            assert_eq!(losses(&counts), (455, of(0), of(1)), "{window}");
            let directions = counts.directions.unwrap();
            assert_eq!(directions.duplicates_inbound, counts.duplicates, "{window}");
        }
    }

    #[test]
    fn a_copy_of_a_request_whose_first_reply_was_late_spoils_no_direction() {
        let mut tracker = Tracker::new(64);
        tracker.on_reply(0, 0, false);
        tracker.on_reply(1, 1, true);
        // The reflector answered the request twice.
        tracker.on_reply(1, 2, false);
        tracker.on_reply(2, 3, false);
        let counts = tracker.finish(3);
        assert_eq!((counts.received, counts.late, counts.duplicates), (2, 1, 1));
        assert_eq!(losses(&counts), (0, 0, 1));
        assert_eq!(counts.directions.unwrap().duplicates_outbound, 1);
    }

    #[test]
    fn replies_of_former_counters_are_booked_where_their_loss_was() {
        // What comes after the second restart as (s, r, late), and what is lost then: outbound, inbound and
        // where nothing tells. Lost before: 5, then 2 and 3, and the five around the restarts.
        let lost = (1, 2, 5);
        for (reply, told) in [
            // Of the first counter, whose last number was 8.
            ((3, 3, true), Some((1, 1, 6))),
            ((3, 3, false), Some((1, 1, 5))),
            // It arrived behind those that were answered.
            ((5, 9, true), Some((0, 2, 6))),
            ((5, 9, false), Some((0, 2, 5))),
            // Between the counters.
            ((11, 10, true), Some(lost)),
            ((11, 10, false), Some((1, 2, 4))),
            ((21, 8, true), Some(lost)),
            // Copies.
            ((4, 4, true), Some(lost)),
            ((15, 2, false), Some(lost)),
            // Of the second counter none was lost inbound.
            ((16, 0, false), Some(lost)),
        ] {
            let mut tracker = Tracker::new(64);
            let numbers = (0..10).chain(13..20).chain(22..30).filter(|s| *s != 5);
            let numbers = numbers.map(|s| {
                let r = match s {
                    0..5 => s,
                    5..10 => s - 1,
                    10..20 => s - 13,
                    _ => s - 22,
                };
                (u64::from(s), r)
            });
            for (s, r) in numbers.filter(|(s, _)| ![2, 3].contains(s)) {
                tracker.on_reply(s, r, false);
            }
            let (s, r, late) = reply;
            tracker.on_reply(s, r, late);
            let counts = tracker.finish(30);
            assert_eq!(counts.restarts, 2);
            let found = counts.directions.is_some().then(|| losses(&counts));
            assert_eq!(found, told, "{reply:?}");
        }
    }

    #[test]
    fn numbers_that_jump_cost_little() {
        // A counter of the wrong byte order: each jump is a whole history.
        let mut tracker = Tracker::new(64);
        for s in 0..100_000_u32 {
            tracker.make_room(u64::from(s) + 1);
            tracker.on_reply(s.into(), s.swap_bytes(), false);
        }
        assert_eq!(tracker.replied.clears, 0, "each jump touches what was seen");
        let counts = tracker.finish(100_000);
        assert_eq!(counts.received, 100_000);
        assert!(counts.senseless);
    }

    #[test]
    fn bursts_are_counted_past_the_window() {
        let mut tracker = Tracker::new(64);
        let lost = |s: u64| (100..130).contains(&s) || s == 500 || s >= 998;
        for s in (0..1000).filter(|s| !lost(*s)) {
            tracker.make_room(s + 1);
            tracker.on_reply(s, 0, false);
        }
        let counts = tracker.finish(1000);
        assert_eq!((counts.bursts.count, counts.bursts.longest), (3, 30));
        assert_eq!(counts.received, 967);
    }

    #[test]
    fn numbers_extend_to_the_nearest() {
        for (low, near, whole) in [
            (5, 3, 5),
            (3, 5, 3),
            (u32::MAX, 0, u64::from(u32::MAX)),
            (2, (1 << 32) - 3, (1 << 32) + 2),
            (u32::MAX, 1 << 32, (1 << 32) - 1),
            (0, (7 << 32) + 9, 7 << 32),
        ] {
            assert_eq!(extend(low, near), whole, "{low} near {near}");
        }
    }

    /// How many numbers come after a higher one (RFC 4737 §3.3).
    fn after_a_higher_one(numbers: impl Iterator<Item = u64>) -> u64 {
        let mut highest = 0;
        let after = |number: &u64| {
            let lower = *number < highest;
            highest = highest.max(*number);
            lower
        };
        numbers.filter(after).count() as u64
    }

    /// Sends `sent` packets through a path that loses, doubles and reorders, with a reflector that
    /// counts, and compares with what the path did.
    fn simulate(seed: u64, sent: u64, out_loss: f64, in_loss: f64, doubled: f64, swapped: f64) {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut truth = Directions::default();
        let mut path = |packets: Vec<(u64, u32)>, loss: f64, lost: &mut u64, copies: &mut u64| {
            let mut arrived: Vec<(u64, u32)> = Vec::new();
            for packet in packets {
                if rng.random_bool(loss) {
                    *lost += 1;
                    continue;
                }
                arrived.push(packet);
                if rng.random_bool(doubled) {
                    *copies += 1;
                    arrived.push(packet);
                }
            }
            for i in 1..arrived.len() {
                if rng.random_bool(swapped) {
                    arrived.swap(i - 1, i);
                }
            }
            arrived
        };
        let requests = (0..sent).map(|s| (s, 0)).collect();
        let mut out_lost = 0;
        let mut out_copies = 0;
        let arrived = path(requests, out_loss, &mut out_lost, &mut out_copies);
        let replies = arrived.iter().zip(0..).map(|((s, _), r)| (*s, r)).collect();
        let replies = path(
            replies,
            in_loss,
            &mut truth.lost_inbound,
            &mut truth.duplicates_inbound,
        );
        let mut tracker = Tracker::new(1 << 14);
        for (s, r) in &replies {
            tracker.on_reply(*s, *r, false);
        }
        // As the receiver asks: again where one answer proves nothing. Where packets overtake one another a
        // missing one may have been the last one there, and no reply tell of it: such a path is asked.
        for (index, number) in (0..2).zip(u32::try_from(arrived.len()).unwrap()..) {
            if index == 0 && swapped > 0.0 || !tracker.settled(sent) {
                tracker.on_probe(index, number);
            }
        }
        let counts = tracker.finish(sent);
        if replies.is_empty() {
            // Without one reply, nothing tells a direction.
            assert_eq!((counts.directions, counts.received), (None, 0));
            return;
        }
        let found = counts.directions.unwrap();
        let doubt = found.lost_unattributed;
        if doubled == 0.0 {
            let outbound = found.lost_outbound..=found.lost_outbound + doubt;
            assert!(outbound.contains(&out_lost), "{found:?} {out_lost}");
            let inbound = found.lost_inbound..=found.lost_inbound + doubt;
            assert!(inbound.contains(&truth.lost_inbound), "{found:?} {truth:?}");
        }
        // The first packets may have overtaken one another.
        assert!(
            doubt == 0 || swapped > 0.0 && doubt <= FIRST_REPLIES.into(),
            "{found:?}"
        );
        let lost = found.lost_outbound + found.lost_inbound + doubt;
        assert_eq!(lost, sent - counts.received, "the directions add up");
        if in_loss == 0.0 {
            assert_eq!(found.duplicates_inbound, truth.duplicates_inbound);
            assert_eq!(found.duplicates_outbound, out_copies);
        }
        if doubled == 0.0 {
            // In the order in which they came back, and in which they came to the reflector.
            let back = |of: fn(&(u64, u32)) -> u64| after_a_higher_one(replies.iter().map(of));
            assert_eq!(counts.reordered, back(|(s, _)| *s));
            assert_eq!(found.reordered_inbound, back(|(_, r)| (*r).into()));
            let mut there = replies.clone();
            there.sort_unstable_by_key(|(_, r)| *r);
            let outbound = after_a_higher_one(there.iter().map(|(s, _)| *s));
            assert_eq!(found.reordered_outbound, outbound);
        } else if swapped == 0.0 {
            assert_eq!((counts.reordered, found.reordered_inbound), (0, 0));
            assert_eq!(found.reordered_outbound, 0);
        }
    }

    /// A session of `sent` packets through a reflector that also answers packets that somebody else sends
    /// from the same address: what was lost outbound and inbound, what was found, and how many replies to
    /// the others were lost.
    fn beside_others(
        seed: u64,
        (sent, begin): (u64, u32),
        [out_loss, in_loss, forged, swapped]: [f64; 4],
        others_lost: bool,
    ) -> Option<([u64; 2], Counts, u64)> {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let (mut lost, mut silent, mut r) = ([0, 0], 0, begin);
        let mut replies: Vec<(Option<u64>, u32)> = Vec::new();
        for s in 0..sent {
            while rng.random_bool(forged) {
                if others_lost && rng.random_bool(in_loss) {
                    silent += 1;
                } else {
                    replies.push((None, r));
                }
                r = r.wrapping_add(1);
            }
            if rng.random_bool(out_loss) {
                lost[0] += 1;
                continue;
            }
            if rng.random_bool(in_loss) {
                lost[1] += 1;
            } else {
                replies.push((Some(s), r));
                // Forged answers of numbers that are ours, and of any.
                if rng.random_bool(forged / 4.0) {
                    replies.push((None, r));
                    let far = rng.random_range(100_000..1 << 31);
                    replies.push((None, r.wrapping_add(far)));
                    replies.push((None, r.wrapping_sub(far)));
                }
            }
            r = r.wrapping_add(1);
        }
        for i in 1..replies.len() {
            if rng.random_bool(swapped) {
                replies.swap(i - 1, i);
            }
        }
        let mut tracker = Tracker::new(1 << 14);
        for (s, r) in replies {
            match s {
                Some(s) => drop(tracker.on_reply(s, r, false)),
                None => tracker.on_other(r),
            }
        }
        if tracker.answered() == 0 {
            return None;
        }
        for index in 0..2 {
            if !tracker.settled(sent) {
                tracker.on_probe(index, r);
                r = r.wrapping_add(1);
            }
        }
        Some((lost, tracker.finish(sent), silent))
    }

    #[test]
    fn numbers_that_were_given_to_others_are_neither_loss_nor_arrivals() {
        // 31 of 300 packets are lost outbound, and somebody forges 20.
        let mut tracker = Tracker::new(1 << 10);
        let mut r = 0;
        for s in 0..300 {
            if s % 15 == 7 {
                tracker.on_other(r);
                // Once more, and one that cannot be.
                tracker.on_other(r);
                tracker.on_other(r.wrapping_sub(1_000_000));
                r += 1;
            }
            if s % 10 != 5 && s != 299 {
                tracker.on_reply(s, r, false);
                r += 1;
            }
        }
        tracker.on_probe(0, r);
        assert!(tracker.settled(300));
        let counts = tracker.finish(300);
        assert_eq!((losses(&counts), counts.given_to_others), ((31, 0, 0), 20));
    }

    #[test]
    fn numbers_that_no_reply_of_ours_bears_out_were_given_to_nobody() {
        let mut alone = Tracker::new(1 << 10);
        let mut later = Tracker::new(1 << 10);
        for r in 0..30 {
            alone.on_other(r);
        }
        later.on_other(3_000_000_000);
        for s in 0..30 {
            later.on_reply(s, u32::try_from(s).unwrap(), false);
        }
        assert_eq!(alone.finish(30).given_to_others, 0);
        let counts = later.finish(30);
        assert_eq!((losses(&counts), counts.given_to_others), ((0, 0, 0), 0));
    }

    proptest! {
        #[test]
        fn directions_are_right_whatever_others_send_from_our_address(
            seed: u64, sent in 100_u64..1500, begin in prop_oneof![Just(0), any::<u32>()],
            out_loss in 0.0..0.3, in_loss in 0.0..0.3, forged in 0.0..0.3,
            swapped in prop_oneof![Just(0.0), 0.0..0.2],
        ) {
            let rates = [out_loss, in_loss, forged, swapped];
            for others_lost in [false, true] {
                let found = beside_others(seed, (sent, begin), rates, others_lost);
                let Some((lost, counts, silent)) = found else { continue };
                // Of replies that never came nobody knows; many of them make no sense of the numbers.
                prop_assert!(!counts.senseless || silent > sent / 50, "{counts:?} {silent}");
                let Some(d) = counts.directions else { continue };
                let unknown = d.lost_unattributed;
                prop_assert_eq!(d.lost_outbound + d.lost_inbound + unknown, lost[0] + lost[1]);
                prop_assert!(begin > 0 || forged > 0.0 || unknown == 0);
                let off = d.lost_inbound.abs_diff(lost[1]);
                prop_assert!(off <= silent + unknown, "{:?} {:?} {}", d, lost, silent);
            }
        }

        #[test]
        fn counts_are_what_the_path_did(
            seed: u64, sent in 2_u64..2000,
            out_loss in 0.0..0.5, in_loss in 0.0..0.5, swapped in 0.0..0.3,
        ) {
            simulate(seed, sent, out_loss, in_loss, 0.0, swapped);
        }

        #[test]
        fn copies_are_told_from_losses(seed: u64, sent in 40_u64..2000, loss in 0.0..0.3, doubled in 0.0..0.3) {
            simulate(seed, sent, loss, 0.0, doubled, 0.0);
        }

        #[test]
        fn any_replies_are_counted_without_a_panic(
            replies in proptest::collection::vec((0_u64..300, any::<u32>(), any::<bool>()), 0..300),
            probes in proptest::collection::vec((0_u64..4, any::<u32>()), 0..4),
            others in proptest::collection::vec(prop_oneof![any::<u32>(), 0..400_u32], 300),
        ) {
            let mut tracker = Tracker::new(64);
            tracker.make_room(300);
            for ((s, r, late), other) in replies.iter().zip(&others) {
                tracker.on_reply(*s, *r, *late);
                tracker.on_other(*other);
            }
            for (index, r) in &probes {
                tracker.on_probe(*index, *r);
            }
            let counts = tracker.finish(300);
            let seen = counts.received + counts.late + counts.duplicates;
            prop_assert_eq!(seen, replies.len() as u64);
        }

        /// Whatever came before, replies in a row come to the same together as one by one.
        #[test]
        fn runs_are_counted_as_their_replies_are(
            seed: u64, window in 64_u64..3000, first: u32, begin: u32, loss in 0.0..0.4,
            odd in prop_oneof![Just(0.0), 0.0..0.3], forgotten: bool,
        ) {
            let mut rng = Pcg64Mcg::seed_from_u64(seed);
            let mut together = Tracker::counting_from(window, first);
            let mut each = Tracker::counting_from(window, first);
            let (mut s, mut r, mut runs) = (0_u64, begin, 0);
            for _ in 0..200 {
                let count = rng.random_range(1..64_u64);
                let (mut from, mut number) = (s, r);
                let mut late = false;
                if rng.random_bool(odd) {
                    let other = r.wrapping_add(rng.random_range(0..200)).wrapping_sub(100);
                    together.on_other(other);
                    each.on_other(other);
                }
                if rng.random_bool(odd) {
                    // Again, out of order, late, or of a counter that begins anew.
                    match rng.random_range(0..5) {
                        0 => from = s.saturating_sub(rng.random_range(0..200)),
                        1 => number = r.wrapping_sub(rng.random_range(0..200)),
                        2 => late = true,
                        3 => (r, number) = (0, 0),
                        _ => {
                            from = s.saturating_sub(rng.random_range(0..200));
                            number = r.wrapping_sub(rng.random_range(0..200));
                        }
                    }
                } else {
                    let lost = |rng: &mut Pcg64Mcg| {
                        let most = if rng.random_bool(0.1) { 2000 } else { 40 };
                        if rng.random_bool(loss) { rng.random_range(0..most) } else { 0_u32 }
                    };
                    s += u64::from(lost(&mut rng));
                    r = r.wrapping_add(lost(&mut rng));
                    (from, number) = (s, r);
                }
                let sent = s.max(from) + count + rng.random_range(0..10);
                for tracker in [&mut together, &mut each] {
                    tracker.make_room(if forgotten { sent } else { from + count });
                }
                let run = !late && together.on_run(from, number, count);
                runs += u64::from(run);
                for n in 0..count {
                    let number = number.wrapping_add(u32::try_from(n).unwrap());
                    each.on_reply(from + n, number, late);
                    if !run {
                        together.on_reply(from + n, number, late);
                    }
                }
                s = s.max(from + count);
                r = r.max(number.wrapping_add(u32::try_from(count).unwrap()));
                let seen = |tracker: &Tracker| {
                    let inbound = tracker
                        .checkpoint()
                        .and_then(|now| tracker.lost_inbound_until(&now));
                    (tracker.received(), tracker.answered(), tracker.checkpoint(), inbound)
                };
                prop_assert_eq!(seen(&together), seen(&each));
            }
            let sent = s + 10;
            for tracker in [&mut together, &mut each] {
                tracker.make_room(sent);
                tracker.on_probe(0, r);
            }
            prop_assert!(odd > 0.0 || runs > 20, "{runs} runs");
            prop_assert_eq!(together.finish(sent), each.finish(sent));
        }

        #[test]
        fn extension_keeps_the_low_half(low: u32, near in 0_u64..1 << 62) {
            prop_assert_eq!(low_half(extend(low, near)), low);
        }
    }
}
