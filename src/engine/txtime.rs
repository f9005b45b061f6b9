//! Departure times that the queueing discipline keeps (SO_TXTIME), and the proof that it does.
//!
//! The system takes departure times whatever the queueing discipline, and only fq and etf look at
//! them. So one packet is handed over ahead of its time, and its transmit stamp tells whether it
//! waited. Until that is known the sender paces packets itself, and where it did not wait, to the end.
//! Then packets are handed over in good time and leave while the sender sleeps; the stamps go on
//! telling when they did, and a queueing discipline that was taken away is noticed.
//!
//! [`Handover`] is the sender thread's part of it: pure, with the time as an argument. Times are of
//! the monotonic clock unless they are said to be of the wall's.

use std::collections::VecDeque;

use super::receiver::Punctuality;
use super::sender::Sent;
use crate::config::SessionConfig;
use crate::io::{DepartureClock, Granted, Txtime, interface_of, is_local};
use crate::os::Moment;
use crate::report::PacedBy;

/// So much longer it takes from the start of the session to its first departure.
pub(super) const LEAD_NS: i64 = 10_000_000;
/// A packet that shows whether departure times are kept is handed over at most so long before its own:
/// the first of a session at once.
const TRIAL_NS: i64 = 20_000_000;
/// One that was handed over later than that shows nothing.
const SHORTEST_TRIAL_NS: i64 = 1_000_000;
/// Trials that were too short, until no further one is made.
const TRIALS: u32 = 3;
/// A stamp that takes longer does not come: the receiver looks for stamps every 50 ms at least.
const STAMP_NS: i64 = 200_000_000;
/// A sender that waits for the stamp looks for it this often.
const LOOK_NS: i64 = 5_000_000;
/// Packets are handed over at most and at least so long before their time. A sleeping thread may wake
/// up 2 ms late.
const AHEAD_NS: i64 = 4_000_000;
const LEAST_AHEAD_NS: i64 = 2_000_000;
/// Packets or trains that the queueing discipline holds at once: fq drops those above 100 of a flow.
const MOST_HELD: usize = 80;
/// More are handed over when no more than these are left.
const FEW_HELD: usize = MOST_HELD / 2;
/// A packet that leaves less than this before its time may have waited.
const LEAST_EARLY_NS: i64 = 50_000;
/// etf drops packets whose time has passed when it sees them: one that is late leaves after this.
const ETF_LEAST_NS: i64 = 500_000;

/// Whether the queueing discipline keeps departure times, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// Nobody asked for it.
    #[default]
    NotAsked,
    /// The system takes no departure times.
    Refused,
    /// There are no transmit stamps to verify it by.
    Unstamped,
    /// No packet was handed over in time to show it.
    Untried,
    /// The stamp that shows it has not come yet.
    Open,
    /// The stamp that shows it did not come.
    NoStamp,
    /// A packet with a departure time left at once.
    AtOnce,
    /// Packets with a departure time were dropped, whatever the clock.
    Dropped,
    /// It does.
    Kept,
    /// It did, and does so no more.
    KeptNoMore,
}

impl Verdict {
    const ALL: [Self; 10] = [
        Self::NotAsked,
        Self::Refused,
        Self::Unstamped,
        Self::Untried,
        Self::Open,
        Self::NoStamp,
        Self::AtOnce,
        Self::Dropped,
        Self::Kept,
        Self::KeptNoMore,
    ];

    /// What is known before anything was sent.
    pub(super) fn at_start(granted: &Granted) -> Self {
        match &granted.txtime {
            Txtime::NotAsked => Self::NotAsked,
            Txtime::Refused(_) => Self::Refused,
            Txtime::Taken if granted.transmit.is_none() => Self::Unstamped,
            Txtime::Taken => Self::Untried,
        }
    }

    pub(super) fn from_u8(value: u8) -> Self {
        let known = Self::ALL.get(usize::from(value));
        known.copied().unwrap_or_default()
    }

    /// Whether nothing more is to be learnt.
    pub(super) fn is_final(self) -> bool {
        !matches!(self, Self::Untried | Self::Open | Self::Kept)
    }

    /// For a person: what was asked for, what was found, and what to do; `None` where there is nothing
    /// to be said. `interface` is where the packets leave.
    pub(super) fn words(self, granted: &Granted, interface: Option<&str>) -> Option<String> {
        let own = "the sender paces packets by itself";
        let interface = interface.unwrap_or("INTERFACE");
        let what = match self {
            Self::NotAsked | Self::Kept => return None,
            Self::Refused => {
                let why = match &granted.txtime {
                    Txtime::Refused(why) => why,
                    Txtime::NotAsked | Txtime::Taken => "",
                };
                format!("this system takes no departure times (SO_TXTIME): {why}; {own}")
            }
            Self::Unstamped => format!(
                "whether departure times are kept cannot be verified without transmit timestamps; \
                 {own}"
            ),
            Self::Untried => format!(
                "whether departure times are kept was not found out: no packet could be handed over \
                 far enough ahead of its time (is this host busy?); {own}"
            ),
            Self::Open => format!(
                "the session was over before it was known whether departure times are kept; {own}"
            ),
            Self::NoStamp => format!(
                "whether departure times are kept is not known: the transmit timestamp of the packet \
                 that was to show it did not come; {own}"
            ),
            Self::AtOnce => format!(
                "departure times are not kept: a packet that was to wait for its time left at once; \
                 {own}; a queueing discipline that keeps them: tc qdisc replace dev {interface} root \
                 fq"
            ),
            Self::Dropped => format!(
                "the queueing discipline drops packets with a departure time (etf takes times of \
                 CLOCK_TAI alone, and that takes CAP_NET_ADMIN); {own}; one that keeps them: tc \
                 qdisc replace dev {interface} root fq"
            ),
            Self::KeptNoMore => format!(
                "the queueing discipline kept departure times and then no more: packets left before \
                 theirs; {own} since; is fq still there? tc qdisc show dev {interface}"
            ),
        };
        Some(format!("--txtime: {what}"))
    }
}

/// What a report says of departure times.
pub(super) fn note(config: &SessionConfig, granted: &Granted, sent: &Sent) -> Option<String> {
    let outcome = &sent.txtime;
    let clock = match outcome.clock {
        DepartureClock::Monotonic => "CLOCK_MONOTONIC",
        DepartureClock::Tai => "CLOCK_TAI",
    };
    match outcome.verdict {
        Verdict::Kept => Some(format!(
            "--txtime: {} of {} packets were given departure times (SO_TXTIME, {clock}), which the \
             queueing discipline keeps: the transmit timestamp of one showed that it waited{}",
            outcome.packets,
            sent.sent,
            if outcome.packets < sent.sent {
                "; until then the sender paced packets by itself"
            } else {
                ""
            }
        )),
        Verdict::NotAsked => None,
        verdict => verdict.words(granted, interface(config, granted).as_deref()),
    }
}

/// Says once, as soon as it is known, that departure times are not kept.
pub(super) fn tell(config: &SessionConfig, granted: &Granted, verdict: Verdict, told: &mut bool) {
    if *told || verdict == Verdict::NotAsked || !verdict.is_final() {
        return;
    }
    if let Some(words) = verdict.words(granted, interface(config, granted).as_deref()) {
        log::warn!("{words}");
        *told = true;
    }
}

/// The same of what is known at the end.
pub(super) fn tell_at_end(config: &SessionConfig, granted: &Granted, sent: &Sent, told: &mut bool) {
    match note(config, granted, sent) {
        Some(words) if sent.txtime.verdict == Verdict::Kept => log::info!("{words}"),
        Some(words) if !*told => {
            log::warn!("{words}");
            *told = true;
        }
        _ => {}
    }
}

/// The interface that packets leave by, as far as it is known.
fn interface(config: &SessionConfig, granted: &Granted) -> Option<String> {
    if let Some(name) = &config.socket.interface {
        return Some(name.clone());
    }
    if is_local(config.remote.ip()) {
        // Also those to an address of another interface of this host.
        return Some("lo".to_owned());
    }
    interface_of(granted.local.ip())
}

/// How punctual packets with departure times are to be; `None` where their stamps do not tell.
pub(super) fn punctuality(config: &SessionConfig, granted: &Granted) -> Option<Punctuality> {
    if Verdict::at_start(granted) != Verdict::Untried {
        return None;
    }
    let rate = config.departures.rate()?;
    let gap_ns = |packets| i64::try_from(rate.due_ns(packets)).unwrap_or(i64::MAX);
    // Packets are handed over when there are no more than so many in the queue.
    let ahead_ns = gap_ns(FEW_HELD as u64).min(LEAST_AHEAD_NS);
    Some(Punctuality {
        early_ns: (ahead_ns / 2).max(LEAST_EARLY_NS),
        late_ns: gap_ns(1),
    })
}

/// How the packets of a session were paced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) clock: DepartureClock,
    /// Packets that it paced.
    pub(crate) packets: u64,
    /// Packets or trains that carried a departure time, without the one that showed that it is kept.
    pub(crate) units: u64,
    /// Of their packets, handed over more than one interval after their time.
    pub(crate) handed_late: u64,
    /// How long before its time the first packet of the session left.
    pub(crate) lead_ns: i64,
}

impl Outcome {
    /// Who paced the packets.
    pub(super) fn paced_by(&self) -> PacedBy {
        match (self.packets, self.verdict) {
            (0, _) => PacedBy::Sender,
            (_, Verdict::Kept) => PacedBy::Qdisc,
            _ => PacedBy::Mixed,
        }
    }

    /// That of several threads together: of the one that fared worst, and all packets.
    pub(super) fn and(self, other: &Self) -> Self {
        let worst = |a: Verdict, b: Verdict| match (a, b) {
            (Verdict::Kept | Verdict::NotAsked, b) => b,
            (a, _) => a,
        };
        Self {
            verdict: worst(self.verdict, other.verdict),
            clock: if self.packets > 0 {
                self.clock
            } else {
                other.clock
            },
            packets: self.packets + other.packets,
            units: self.units + other.units,
            handed_late: self.handed_late + other.handed_late,
            lead_ns: self.lead_ns.max(other.lead_ns),
        }
    }
}

/// A packet whose stamp will show whether it waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    seq: u64,
    count: u64,
    /// When the system had it, and when it is to leave, by the wall's clock.
    handed_ns: i64,
    leave_ns: i64,
    /// The stamp is waited for until then.
    until: i64,
}

impl Trial {
    /// Whether the packet waited for half of the time at least: etf lets packets go a little early.
    fn waited(&self, left_ns: i64) -> bool {
        left_ns - self.handed_ns >= (self.leave_ns - self.handed_ns) / 2
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The sender paces.
    Own,
    /// The sender paces until a packet shows whether it has to.
    Untried,
    /// The batch is the packet or train that shows it.
    Trying,
    /// It was handed over. What follows carries departure times only where it is dropped without.
    Judging(Trial),
    /// The queueing discipline paces.
    Kept,
}

/// That a packet waited for its departure time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(super) seq: u64,
    /// How long after that time it left.
    pub(super) slip_ns: i64,
}

/// What became of a packet or train that the queueing discipline was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// By the wrong clock: to be tried again by this one.
    Try(DepartureClock),
    /// For another reason: departure times are given up, and the clock is this one again.
    GiveUp(DepartureClock),
}

/// When packets are handed over, and with what departure time.
#[derive(Debug)]
pub(crate) struct Handover {
    stage: Stage,
    clock: DepartureClock,
    trials: u32,
    /// Departure times of what the queueing discipline holds.
    held: VecDeque<i64>,
    /// The last departure time that was given.
    last_leave: i64,
    outcome: Outcome,
}

impl Handover {
    pub(super) fn new(verdict: Verdict) -> Self {
        let tries = verdict == Verdict::Untried;
        Self {
            stage: if tries { Stage::Untried } else { Stage::Own },
            clock: DepartureClock::Monotonic,
            trials: 0,
            held: VecDeque::with_capacity(if tries { MOST_HELD } else { 0 }),
            last_leave: i64::MIN,
            outcome: Outcome {
                verdict,
                ..Outcome::default()
            },
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.outcome.verdict
    }

    /// Whether packets carry, or may soon carry, departure times.
    pub(super) fn concerned(&self) -> bool {
        self.stage != Stage::Own
    }

    /// Whether the batch is the trial.
    pub(super) fn is_trial(&self) -> bool {
        self.stage == Stage::Trying
    }

    /// Whether packets wait in the queueing discipline, and the sender need not be punctual.
    pub(super) fn ahead(&self) -> bool {
        match self.stage {
            Stage::Kept => true,
            // etf drops packets without a departure time: only there the clock is this one.
            Stage::Judging(_) => self.clock == DepartureClock::Tai,
            Stage::Own | Stage::Untried | Stage::Trying => false,
        }
    }

    /// When to look again at a departure that is due at `due`; not after `now`: hand it over.
    pub(super) fn look_at(&mut self, due: i64, now: i64) -> i64 {
        match self.stage {
            Stage::Untried if due - now >= SHORTEST_TRIAL_NS => due - TRIAL_NS,
            Stage::Judging(_) if !self.ahead() => due.min(now + LOOK_NS),
            _ if self.ahead() => {
                self.forget_departed(now);
                let room = match self.held.len().checked_sub(FEW_HELD + 1) {
                    Some(last) => self.held[last],
                    None => i64::MIN,
                };
                (due - LEAST_AHEAD_NS).max(room)
            }
            _ => due,
        }
    }

    /// What is to be handed over at `now`, where the next departure is due at `due`: departures due
    /// until when, and at most how many.
    pub(super) fn gather(&mut self, due: i64, now: i64) -> (i64, usize) {
        if self.stage == Stage::Trying {
            // It was not sent.
            self.no_trial();
        }
        match self.stage {
            Stage::Untried if due - now >= SHORTEST_TRIAL_NS => {
                self.stage = Stage::Trying;
                (due, 1)
            }
            _ if self.ahead() => {
                self.forget_departed(now);
                // At least one: it may be late, and then it does not wait.
                (now + AHEAD_NS, (MOST_HELD - self.held.len()).max(1))
            }
            _ => (now, usize::MAX),
        }
    }

    /// The departure time of a packet that is due at `due`; `None`: it leaves at once.
    pub(super) fn leave(&self, due: i64, now: i64) -> Option<i64> {
        match self.stage {
            Stage::Trying => Some(due),
            _ if self.ahead() => Some(match self.clock {
                DepartureClock::Monotonic => due.max(now),
                DepartureClock::Tai => due.max(now + ETF_LEAST_NS),
            }),
            _ => None,
        }
    }

    /// A departure time as the queueing discipline takes it.
    pub(super) fn by_its_clock(&self, leave: i64, moment: &Moment) -> u64 {
        let of_clock = match self.clock {
            DepartureClock::Monotonic => leave,
            DepartureClock::Tai => moment.tai_at(leave),
        };
        u64::try_from(of_clock).unwrap_or(0)
    }

    /// The trial, `count` packets from `seq` on, was handed over; the system had it by `moment`.
    pub(super) fn tried(&mut self, seq: u64, count: u64, leave: i64, moment: &Moment) {
        self.last_leave = leave;
        if leave - moment.mono_ns < SHORTEST_TRIAL_NS / 2 {
            return self.no_trial();
        }
        self.outcome.verdict = Verdict::Open;
        self.stage = Stage::Judging(Trial {
            seq,
            count,
            handed_ns: moment.wall_ns,
            leave_ns: moment.wall_at(leave),
            until: moment.mono_ns + STAMP_NS,
        });
    }

    /// What was to be the trial was none.
    pub(super) fn no_trial(&mut self) {
        self.trials += 1;
        self.stage = if self.trials < TRIALS {
            Stage::Untried
        } else {
            Stage::Own
        };
    }

    /// A packet or train of `count` packets was handed over with a departure time; `late`: more than
    /// one interval after it was due.
    pub(super) fn handed(&mut self, count: u64, leave: i64, late: bool) {
        self.outcome.packets += count;
        self.outcome.units += 1;
        self.outcome.handed_late += if late { count } else { 0 };
        self.last_leave = self.last_leave.max(leave);
        if self.held.len() < MOST_HELD {
            self.held.push_back(leave);
        }
    }

    /// The queueing discipline dropped a packet or train when it was handed over, which was to leave at
    /// `leave`; `None`: for reasons that departure times have nothing to do with.
    pub(super) fn turned_away(&mut self, leave: i64, now: i64) -> Option<TurnedAway> {
        if self.stage != Stage::Trying {
            return None;
        }
        Some(match self.clock {
            _ if leave - now < SHORTEST_TRIAL_NS / 2 => {
                // etf drops what is late.
                self.no_trial();
                TurnedAway::Try(self.clock)
            }
            DepartureClock::Monotonic => {
                self.clock = DepartureClock::Tai;
                TurnedAway::Try(self.clock)
            }
            DepartureClock::Tai => {
                self.give_up(Verdict::Dropped);
                TurnedAway::GiveUp(self.clock)
            }
        })
    }

    pub(super) fn give_up(&mut self, verdict: Verdict) {
        self.stage = Stage::Own;
        self.clock = DepartureClock::Monotonic;
        self.outcome.verdict = verdict;
    }

    /// Looks at the stamp of the trial, of the wall's clock, and at whether packets were found to have
    /// left before their time.
    pub(super) fn look(&mut self, now: i64, stamp: Option<i64>, early: bool) -> Option<Proof> {
        match (self.stage, stamp) {
            (Stage::Judging(trial), Some(left)) if trial.waited(left) => {
                self.stage = Stage::Kept;
                self.outcome.verdict = Verdict::Kept;
                self.outcome.clock = self.clock;
                self.outcome.packets += trial.count;
                return Some(Proof {
                    seq: trial.seq,
                    slip_ns: left - trial.leave_ns,
                });
            }
            (Stage::Judging(_), Some(_)) => self.give_up(Verdict::AtOnce),
            (Stage::Judging(trial), None) if now >= trial.until => {
                // etf may have dropped it, and whatever follows without a departure time.
                if self.clock == DepartureClock::Tai {
                    self.no_trial();
                }
                if self.stage != Stage::Untried {
                    self.give_up(Verdict::NoStamp);
                }
            }
            // etf drops what it does not keep, and lets packets go a little early.
            (Stage::Kept, _) if early && self.clock == DepartureClock::Monotonic => {
                self.give_up(Verdict::KeptNoMore);
            }
            _ => {}
        }
        None
    }

    /// How packets were paced so far.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The last departure time that was given.
    pub(super) fn last_leave(&self) -> i64 {
        self.last_leave
    }

    fn forget_departed(&mut self, now: i64) {
        while self.held.front().is_some_and(|leave| *leave <= now) {
            self.held.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    /// The wall's clock is this far ahead of the monotonic one, and TAI another 37 s.
    const WALL: i64 = 1_790_000_000_000_000_000;
    const TAI: i64 = WALL + 37_000_000_000;

    fn moment(mono_ns: i64) -> Moment {
        Moment {
            mono_ns,
            wall_ns: WALL + mono_ns,
            tai_ns: TAI + mono_ns,
        }
    }

    /// A sender whose first packet, due at 10 ms, was handed over at 0.
    fn tried() -> Handover {
        let mut handover = Handover::new(Verdict::Untried);
        assert!(handover.look_at(10 * MS, 0) <= 0);
        assert_eq!(handover.gather(10 * MS, 0), (10 * MS, 1));
        assert!(handover.is_trial());
        assert_eq!(handover.leave(10 * MS, 0), Some(10 * MS));
        handover.tried(0, 1, 10 * MS, &moment(MS / 10));
        handover
    }

    fn kept() -> Handover {
        let mut handover = tried();
        let proof = handover.look(11 * MS, Some(WALL + 10 * MS + 7), false);
        let slip_ns = 7;
        assert_eq!(proof, Some(Proof { seq: 0, slip_ns }));
        assert_eq!(handover.verdict(), Verdict::Kept);
        handover
    }

    /// Every packet leaves at once, and when it is due.
    fn paces_by_itself(handover: &mut Handover) {
        assert!(!handover.concerned() && !handover.ahead() && !handover.is_trial());
        for (due, now) in [(5 * MS, 0), (0, 5 * MS), (50 * MS, 0)] {
            assert_eq!(handover.look_at(due, now), due);
            assert_eq!(handover.gather(due, now), (now, usize::MAX));
            assert_eq!(handover.leave(due, now), None);
        }
    }

    #[test]
    fn without_departure_times_the_sender_paces() {
        for verdict in [Verdict::NotAsked, Verdict::Refused, Verdict::Unstamped] {
            let mut handover = Handover::new(verdict);
            paces_by_itself(&mut handover);
            assert_eq!(handover.verdict(), verdict);
        }
    }

    #[test]
    fn until_the_stamp_comes_packets_leave_at_once_and_when_they_are_due() {
        let mut handover = tried();
        assert_eq!(handover.verdict(), Verdict::Open);
        assert_eq!(handover.look(12 * MS, None, false), None);
        assert_eq!(handover.look_at(13 * MS, 12 * MS), 13 * MS);
        // The sender looks for the stamp before a departure that is far away.
        assert!(handover.look_at(500 * MS, 12 * MS) < 20 * MS);
        assert_eq!(handover.gather(13 * MS, 13 * MS), (13 * MS, usize::MAX));
        assert_eq!(handover.leave(13 * MS, 13 * MS), None);
    }

    #[test]
    fn a_packet_that_left_at_once_shows_that_departure_times_are_not_kept() {
        for left in [0, MS / 10, MS / 10 + 4 * MS] {
            let mut handover = tried();
            assert_eq!(handover.look(11 * MS, Some(WALL + left), false), None);
            assert_eq!(handover.verdict(), Verdict::AtOnce);
            assert_eq!(handover.outcome().packets, 0);
            paces_by_itself(&mut handover);
        }
    }

    #[test]
    fn a_stamp_that_does_not_come_shows_nothing() {
        let mut handover = tried();
        assert_eq!(handover.look(MS / 10 + STAMP_NS - 1, None, false), None);
        assert_eq!(handover.verdict(), Verdict::Open);
        handover.look(MS / 10 + STAMP_NS, None, false);
        assert_eq!(handover.verdict(), Verdict::NoStamp);
        paces_by_itself(&mut handover);
    }

    #[test]
    fn a_packet_handed_over_too_late_is_no_trial_and_there_are_not_many() {
        let mut handover = Handover::new(Verdict::Untried);
        for trial in 1..=TRIALS {
            let due = i64::from(trial) * 100 * MS;
            assert_eq!(handover.gather(due, due - 10 * MS), (due, 1));
            handover.tried(0, 1, due, &moment(due - SHORTEST_TRIAL_NS / 2 + 1));
        }
        paces_by_itself(&mut handover);
        assert_eq!(handover.verdict(), Verdict::Untried);
    }

    #[test]
    fn a_trial_that_was_not_sent_is_none() {
        let mut handover = Handover::new(Verdict::Untried);
        handover.gather(10 * MS, 0);
        // Something else became of it; the next one is due already.
        assert_eq!(handover.gather(11 * MS, 11 * MS), (11 * MS, usize::MAX));
        assert_eq!(handover.leave(11 * MS, 11 * MS), None);
        // The one after that can be tried.
        assert_eq!(handover.gather(30 * MS, 12 * MS), (30 * MS, 1));
    }

    /// Hands over `count` departures, `gap` apart, and returns the least time ahead, the most that
    /// waited in the queue, and how often the sender woke up.
    fn pace(handover: &mut Handover, count: i64, gap: i64) -> (i64, usize, u32) {
        let begin = 20 * MS;
        let (mut now, mut next) = (begin, 0);
        let (mut least, mut most, mut wakes) = (i64::MAX, 0, 0);
        while next < count {
            let due = begin + next * gap;
            let look_at = handover.look_at(due, now);
            if look_at > now {
                now = look_at;
                wakes += 1;
                continue;
            }
            let (until, room) = handover.gather(due, now);
            for _ in 0..room {
                let due = begin + next * gap;
                if due > until || next == count {
                    break;
                }
                let leave = handover.leave(due, now).unwrap();
                assert_eq!(leave, due.max(now), "as it is scheduled, or at once");
                handover.handed(1, leave, false);
                // What was due before the sender woke up for the first time was late.
                least = if due > begin + 5 * MS {
                    least.min(due - now)
                } else {
                    least
                };
                next += 1;
            }
            handover.forget_departed(now);
            most = most.max(handover.held.len());
        }
        (least, most, wakes)
    }

    #[test]
    fn packets_are_handed_over_ahead_of_their_time_and_not_more_than_fq_holds() {
        let (least, most, wakes) = pace(&mut kept(), 500, MS);
        assert_eq!((least, most), (LEAST_AHEAD_NS, 4));
        assert!(wakes <= 500);
        let (least, most, wakes) = pace(&mut kept(), 100_000, 10_000);
        assert_eq!((least, most), (41 * 10_000, MOST_HELD));
        assert!(wakes <= 100_000 / 40, "{wakes}");
        let (least, most, _) = pace(&mut kept(), 10, 1000 * MS);
        assert_eq!((least, most), (LEAST_AHEAD_NS, 1));
    }

    #[test]
    fn a_late_packet_leaves_at_once() {
        let mut handover = kept();
        assert_eq!(handover.gather(20 * MS, 25 * MS).0, 25 * MS + AHEAD_NS);
        assert_eq!(handover.leave(20 * MS, 25 * MS), Some(25 * MS));
        handover.handed(2, 25 * MS, true);
        handover.handed(2, 26 * MS, false);
        let outcome = handover.outcome();
        let counts = (outcome.packets, outcome.units, outcome.handed_late);
        assert_eq!(counts, (5, 2, 2), "with the one that was tried");
        assert_eq!(handover.last_leave(), 26 * MS);
    }

    #[test]
    fn packets_that_leave_before_their_time_end_it() {
        let mut handover = kept();
        handover.handed(1, 20 * MS, false);
        assert_eq!(handover.look(30 * MS, Some(WALL + 10 * MS), true), None);
        assert_eq!(handover.verdict(), Verdict::KeptNoMore);
        assert_eq!(handover.outcome().paced_by(), PacedBy::Mixed);
        paces_by_itself(&mut handover);
    }

    #[test]
    fn a_queueing_discipline_that_drops_packets_by_one_clock_gets_them_by_the_other() {
        let mut handover = Handover::new(Verdict::Untried);
        handover.gather(10 * MS, 0);
        let moment = moment(0);
        assert_eq!(handover.by_its_clock(10 * MS, &moment), 10_000_000);
        let tai = DepartureClock::Tai;
        assert_eq!(handover.turned_away(10 * MS, 0), Some(TurnedAway::Try(tai)));
        assert!(handover.is_trial());
        let by_tai = handover.by_its_clock(10 * MS, &moment);
        assert_eq!(by_tai, u64::try_from(TAI + 10 * MS).unwrap());
        handover.tried(0, 1, 10 * MS, &moment);
        // etf drops what has no departure time, and what is late: nothing leaves without.
        assert!(handover.ahead());
        assert_eq!(handover.leave(10 * MS, 0), Some(10 * MS));
        assert_eq!(handover.leave(0, 10 * MS), Some(10 * MS + ETF_LEAST_NS));
        // It lets packets go a little early.
        assert!(handover.look(11 * MS, Some(WALL + 9 * MS), false).is_some());
        assert_eq!(handover.outcome().clock, tai);
        assert_eq!(handover.look(12 * MS, None, true), None);
        assert_eq!(handover.verdict(), Verdict::Kept);
        assert_eq!(handover.turned_away(20 * MS, 0), None, "a full queue");
    }

    #[test]
    fn a_trial_that_etf_dropped_is_made_again_and_not_for_ever() {
        let mut handover = Handover::new(Verdict::Untried);
        for trial in 1..=TRIALS {
            let due = i64::from(trial) * 1000 * MS;
            assert_eq!(handover.gather(due, due - 10 * MS), (due, 1));
            if trial == 1 {
                handover.turned_away(due, due - 10 * MS);
            }
            handover.tried(0, 1, due, &moment(due - 10 * MS));
            assert!(handover.ahead());
            handover.look(due + STAMP_NS, None, false);
            assert_eq!(handover.concerned(), trial < TRIALS);
        }
        assert_eq!(handover.verdict(), Verdict::NoStamp);
        paces_by_itself(&mut handover);
    }

    #[test]
    fn a_trial_that_was_dropped_since_it_was_late_is_none() {
        let mut handover = Handover::new(Verdict::Untried);
        handover.gather(10 * MS, 0);
        handover.turned_away(10 * MS, 0);
        let again = TurnedAway::Try(DepartureClock::Tai);
        assert_eq!(handover.turned_away(10 * MS, 10 * MS), Some(again));
        assert!(!handover.is_trial());
        assert_eq!(handover.gather(90 * MS, 80 * MS), (90 * MS, 1));
        assert_eq!(handover.verdict(), Verdict::Untried);
    }

    #[test]
    fn a_queueing_discipline_that_drops_packets_by_either_clock_gets_them_without() {
        let mut handover = Handover::new(Verdict::Untried);
        assert_eq!(handover.turned_away(10 * MS, 0), None);
        handover.gather(10 * MS, 0);
        handover.turned_away(10 * MS, 0);
        let back = TurnedAway::GiveUp(DepartureClock::Monotonic);
        assert_eq!(handover.turned_away(10 * MS, 0), Some(back));
        assert_eq!(handover.verdict(), Verdict::Dropped);
        paces_by_itself(&mut handover);
    }

    #[test]
    fn threads_that_were_paced_in_different_ways_are_paced_in_a_mixed_way() {
        let of = |verdict, packets| Outcome {
            verdict,
            packets,
            ..Outcome::default()
        };
        let kept = of(Verdict::Kept, 10);
        let not = of(Verdict::AtOnce, 0);
        let together = |a: &Outcome, b: &Outcome| Outcome::default().and(a).and(b);
        assert_eq!(together(&kept, &kept).paced_by(), PacedBy::Qdisc);
        let by_tai = Outcome {
            clock: DepartureClock::Tai,
            ..kept
        };
        assert_eq!(together(&not, &by_tai).clock, DepartureClock::Tai);
        assert_eq!(together(&not, &not).paced_by(), PacedBy::Sender);
        for both in [together(&kept, &not), together(&not, &kept)] {
            assert_eq!((both.verdict, both.packets), (Verdict::AtOnce, 10));
            assert_eq!(both.paced_by(), PacedBy::Mixed);
        }
    }

    #[test]
    fn every_verdict_but_success_says_who_paces_and_survives_its_number() {
        let granted = Granted {
            ttl: true,
            icmp: true,
            local: "192.0.2.1:40000".parse().unwrap(),
            receive: crate::io::StampKind::Kernel,
            transmit: None,
            receive_buffer: None,
            txtime: Txtime::Refused("not today".to_owned()),
            remarks: Vec::new(),
            next_hop: None,
        };
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::from_u8(verdict as u8), verdict);
            let words = verdict.words(&granted, Some("eth7"));
            if matches!(verdict, Verdict::NotAsked | Verdict::Kept) {
                assert_eq!(words, None);
                continue;
            }
            let words = words.unwrap();
            assert!(words.starts_with("--txtime: "), "{words}");
            assert!(
                words.contains("the sender paces packets by itself"),
                "{words}"
            );
            assert_eq!(words.lines().count(), 1, "{words}");
        }
        let words = Verdict::AtOnce.words(&granted, Some("eth7")).unwrap();
        assert!(
            words.ends_with("tc qdisc replace dev eth7 root fq"),
            "{words}"
        );
        let words = Verdict::Refused.words(&granted, None).unwrap();
        assert!(words.contains("not today"), "{words}");
    }
}
