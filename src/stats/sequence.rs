//! What sequence numbers tell: loss by direction, duplicates, reordering, late replies.
//!
//! The receiver thread owns a [`Tracker`] and shows it every reply, so that the counts are exact
//! whatever happens to samples. It is a fold over pairs (s, r), the Session-Sender's sequence number
//! and the Session-Reflector's, in constant memory: bits for a window of sequence numbers.
//!
//! Sources: RFC 7680 and RFC 6673 (loss), RFC 5560 (duplicates), RFC 4737 §3 (reordering), RFC 3357
//! (loss bursts), RFC 5357 §4.2.1 (the reflector's own counter, which loss by direction rests on).

mod bits;
mod counts;
mod epoch;
mod others;
mod resequencer;

pub use bits::extend;
use bits::{Bits, low_half};
pub use counts::{Arrival, Bursts, Counts, Directions};
use epoch::Epoch;
use others::{NEAR, Others};

/// For so many sequence numbers behind the window it is known whether they were answered, and for so many
/// of the reflector's whether they came: 2 MiB each.
const HISTORY: u64 = 1 << 24;
/// A counter that begins anew more often in a session is none.
const MOST_RESTARTS: u64 = 16;
/// Nor is one that begins anew with one reply in so many, or more of them.
const RESTARTS_ONE_IN: u64 = 2;

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

#[cfg(test)]
mod tests;
