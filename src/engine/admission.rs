//! Who gets an answer, and with which number: sessions and the loop guard, both in fixed memory.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crossbeam_channel::Sender;

use super::flow::Flow;
use crate::config::Prefix;
use crate::report::reflector::Injected;
use crate::wire::Timestamp;

/// Sessions that the table holds at least; beyond, the ones longest silent make room.
pub const SESSIONS: usize = 100_000;
/// Sessions of which a record is kept: those that began last.
pub const RECORDS: usize = 4096;
/// Entries of a bucket; a session may live in either of two.
const WAYS: usize = 8;
/// Departure timestamps that the loop guard remembers, by sets of four.
const GUARD_SETS: usize = 1 << 16;
/// A sequence number this close to the end of its range is followed by 0 as the next one, not by the
/// 0 of a new session.
const NEAR_WRAP: u32 = u32::MAX - (1 << 20);

/// Whether an address may have an answer: everyone may where there is no list.
#[must_use]
pub fn allowed(list: &[Prefix], from: IpAddr) -> bool {
    list.is_empty() || list.iter().any(|prefix| prefix.contains(from))
}

/// What makes a session of TWAMP Light: source address and port, and the address asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    from: u128,
    to: u128,
    port: u16,
    v6: bool,
    scope: u32,
}

impl Key {
    fn new(from: SocketAddr, to: Option<IpAddr>) -> Self {
        let scope = match from {
            SocketAddr::V6(addr) => addr.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self {
            from: bits(from.ip()),
            to: to.map_or(0, bits),
            port: from.port(),
            v6: from.is_ipv6(),
            scope,
        }
    }
}

impl Key {
    fn address(&self, bits: u128) -> IpAddr {
        if self.v6 {
            return Ipv6Addr::from_bits(bits).into();
        }
        let [.., a, b, c, d] = bits.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
    }

    fn source(&self) -> SocketAddr {
        match self.address(self.from) {
            IpAddr::V4(addr) => SocketAddr::from((addr, self.port)),
            IpAddr::V6(addr) => SocketAddrV6::new(addr, self.port, 0, self.scope).into(),
        }
    }

    fn destination(&self) -> Option<IpAddr> {
        (self.to != 0).then(|| self.address(self.to))
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Session {
    key: Key,
    /// Number of the next reply.
    next: u32,
    /// The newest request: its T1 and its sequence number.
    t1: u64,
    seq: u32,
    /// When it was last heard of, in nanoseconds of the monotonic clock; 0: the entry is free.
    heard_ns: i64,
    /// Which session of the table it is, from 1.
    serial: u64,
}

/// What is known of a session, also after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which session of the table it is, from 1; 0: none.
    pub serial: u64,
    /// Who asked.
    pub from: SocketAddr,
    /// The address that was asked, where known.
    pub to: Option<IpAddr>,
    /// First datagram, in nanoseconds of the monotonic clock.
    pub first_ns: i64,
    /// Last datagram, likewise.
    pub last_ns: i64,
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload that arrived.
    pub octets: u64,
    /// Replies that were sent, copies included.
    pub reflected: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// Datagrams that are no request.
    pub invalid: u64,
    /// Requests that were not answered.
    pub refused: u64,
    /// What test mode did.
    pub injected: Injected,
    /// What test mode needs to know.
    pub flow: Flow,
    /// It was told that the session has ended.
    ended: bool,
}

/// A session as a datagram finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    key: Key,
    /// Where it is; `None`: it has not begun.
    place: Option<usize>,
    /// Which session of the table it is, from 1; 0: none yet.
    pub serial: u64,
    /// The newest packet's sequence number again, with a newer timestamp: no packet of the
    /// measurement, but a question for the reflector's counter.
    pub repeat: bool,
}

/// A session that came or went, for whoever logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEvent {
    /// Who asks.
    pub from: SocketAddr,
    /// The address that is asked, where known.
    pub to: Option<IpAddr>,
    /// What happened.
    pub what: What,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its first packet arrived.
    Began,
    /// It was silent for longer than the timeout.
    Silent {
        /// Replies that were sent.
        replies: u64,
    },
    /// The sender began again at sequence number 0.
    BeganAgain {
        /// Replies that were sent.
        replies: u64,
    },
    /// It made room for another one.
    Evicted {
        /// Replies that were sent.
        replies: u64,
    },
}

const FREE: Session = Session {
    key: Key {
        from: 0,
        to: 0,
        port: 0,
        v6: false,
        scope: 0,
    },
    next: 0,
    t1: 0,
    seq: 0,
    heard_ns: 0,
    serial: 0,
};

/// The sessions of one reflector thread.
///
/// Two-choice hashing into buckets of eight, filled to less than a half: constant time for every
/// packet, no allocation, and a keyed hash, so that nobody can choose addresses that collide.
#[derive(Debug)]
pub struct Sessions {
    entries: Box<[Session]>,
    buckets: usize,
    hasher: RandomState,
    timeout_ns: i64,
    /// In the place of the remainder of each one's serial.
    records: Box<[Record]>,
    /// Who is told of sessions that come and go. What finds no room is not told.
    events: Option<Sender<SessionEvent>>,
    /// Sessions that were begun.
    pub begun: u64,
    /// Sessions that made room for others before their time.
    pub evicted: u64,
}

impl Record {
    fn new(serial: u64, from: SocketAddr, to: Option<IpAddr>, now_ns: i64) -> Self {
        Self {
            serial,
            from,
            to,
            first_ns: now_ns,
            last_ns: now_ns,
            received: 0,
            octets: 0,
            reflected: 0,
            unsent: 0,
            invalid: 0,
            refused: 0,
            injected: Injected::default(),
            flow: Flow::default(),
            ended: false,
        }
    }
}

impl Sessions {
    /// A table for at least [`SESSIONS`]; one silent for `timeout_ns` (0: no limit) is forgotten.
    #[must_use]
    pub fn new(timeout_ns: u64) -> Self {
        let buckets = (2 * SESSIONS / WAYS).next_power_of_two();
        let none = Record::new(0, SocketAddr::from(([0; 4], 0)), None, 0);
        Self {
            entries: vec![FREE; buckets * WAYS].into_boxed_slice(),
            buckets,
            hasher: RandomState::new(),
            timeout_ns: match timeout_ns {
                0 => i64::MAX,
                ns => i64::try_from(ns).unwrap_or(i64::MAX),
            },
            records: vec![none; RECORDS].into_boxed_slice(),
            events: None,
            begun: 0,
            evicted: 0,
        }
    }

    /// Tells of sessions that come and go from now on.
    pub fn tell(&mut self, events: Sender<SessionEvent>) {
        self.events = Some(events);
    }

    /// Whether somebody is told of sessions.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.events.is_some()
    }

    /// Finds the session of a datagram.
    #[must_use]
    pub fn find(&self, from: SocketAddr, to: Option<IpAddr>) -> Visit {
        let key = Key::new(from, to);
        let mut places = self.bucket_places(&key).into_iter().flatten();
        let place = places.find(|place| {
            let entry = &self.entries[*place];
            entry.heard_ns != 0 && entry.key == key
        });
        Visit {
            key,
            place,
            serial: place.map_or(0, |place| self.entries[place].serial),
            repeat: false,
        }
    }

    /// Counts `count` requests, of so many octets together, in their session, which begins with them
    /// where there is none. Sequence number and T1 are those of the first; the others have the numbers
    /// that follow, none of them 0, and the same T1.
    ///
    /// A session begins anew with sequence number 0 and a timestamp newer than all before.
    pub fn visit(
        &mut self,
        visit: &mut Visit,
        (seq, t1): (u32, Timestamp),
        count: u32,
        octets: usize,
        now_ns: i64,
    ) {
        let known = visit.place.is_some();
        let place = match visit.place {
            Some(place) => place,
            None => self.make_room(&visit.key, now_ns),
        };
        let session = self.entries[place];
        let newer = newer(t1.raw(), session.t1);
        let silent = now_ns.saturating_sub(session.heard_ns) > self.timeout_ns;
        let again = seq == 0 && newer && session.seq < NEAR_WRAP;
        let fresh = !known || silent || again;
        if fresh {
            if known {
                self.ended(&session, if silent { silent_after } else { again_after });
            }
            self.begin(place, visit.key, now_ns);
        }
        let session = &mut self.entries[place];
        let last = seq.wrapping_add(count.saturating_sub(1));
        // Packets of one batch may share a timestamp.
        let further = t1.raw() == session.t1 && last.wrapping_sub(session.seq) < 1 << 31;
        visit.repeat = !fresh && newer && seq == session.seq;
        if fresh || newer || further {
            session.t1 = t1.raw();
            session.seq = last;
        }
        // 0 marks a free entry.
        session.heard_ns = now_ns.max(1);
        (visit.place, visit.serial) = (Some(place), session.serial);
        if let Some(record) = self.record(visit.serial) {
            record.received += u64::from(count);
            record.octets += u64::try_from(octets).unwrap_or(0);
            record.last_ns = now_ns;
        }
    }

    fn begin(&mut self, place: usize, key: Key, now_ns: i64) {
        self.begun += 1;
        let serial = self.begun;
        self.entries[place] = Session {
            key,
            serial,
            ..FREE
        };
        let (from, to) = (key.source(), key.destination());
        self.records[record_place(serial)] = Record::new(serial, from, to, now_ns);
        self.say(from, to, What::Began);
    }

    /// The number of the first of the next `count` replies of a session, which takes them; `None` where
    /// the session has ended since.
    pub fn take_numbers(&mut self, visit: &Visit, count: u32) -> Option<u32> {
        let session = &mut self.entries[visit.place?];
        if session.serial != visit.serial || session.heard_ns == 0 {
            return None;
        }
        let number = session.next;
        session.next = number.wrapping_add(count);
        Some(number)
    }

    /// The record of a session, while it is one of the [`RECORDS`] last ones.
    pub fn record(&mut self, serial: u64) -> Option<&mut Record> {
        let record = &mut self.records[record_place(serial)];
        (serial != 0 && record.serial == serial).then_some(record)
    }

    /// The records that are kept, in order of beginning.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let kept = self.records.iter().filter(|record| record.serial != 0);
        let mut kept: Vec<Record> = kept.copied().collect();
        kept.sort_unstable_by_key(|record| record.serial);
        kept
    }

    /// Tells of sessions that have been silent too long, of those with a record.
    pub fn sweep(&mut self, now_ns: i64) {
        for place in 0..self.records.len() {
            let record = &mut self.records[place];
            let silent = now_ns.saturating_sub(record.last_ns) > self.timeout_ns;
            if record.serial != 0 && !record.ended && silent {
                record.ended = true;
                let replies = record.reflected;
                let (from, to) = (record.from, record.to);
                self.say(from, to, What::Silent { replies });
            }
        }
    }

    /// Tells of a session that leaves the table, unless that was told.
    fn ended(&mut self, session: &Session, why: fn(u64) -> What) {
        let mut replies = u64::from(session.next);
        if let Some(record) = self.record(session.serial) {
            if record.ended {
                return;
            }
            record.ended = true;
            replies = record.reflected;
        }
        if self.events.is_some() {
            self.say(
                session.key.source(),
                session.key.destination(),
                why(replies),
            );
        }
    }

    fn say(&self, from: SocketAddr, to: Option<IpAddr>, what: What) {
        if let Some(events) = &self.events {
            // A log that cannot keep up misses some.
            let _ = events.try_send(SessionEvent { from, to, what });
        }
    }

    fn bucket_places(&self, key: &Key) -> [std::ops::Range<usize>; 2] {
        let hash = self.hasher.hash_one(key);
        let mask = self.buckets - 1;
        let low = usize::try_from(hash & u64::from(u32::MAX)).unwrap_or(0) & mask;
        let high = usize::try_from(hash >> 32).unwrap_or(0) & mask;
        [low, high].map(|bucket| bucket * WAYS..(bucket + 1) * WAYS)
    }

    /// Where a session may begin.
    fn make_room(&mut self, key: &Key, now_ns: i64) -> usize {
        let buckets = self.bucket_places(key);
        let mut choice = None;
        let mut most_free = 0;
        for bucket in buckets.clone() {
            let mut free = 0;
            let mut first_free = None;
            for place in bucket {
                let entry = &self.entries[place];
                let silent = now_ns.saturating_sub(entry.heard_ns);
                if entry.heard_ns == 0 || silent > self.timeout_ns {
                    free += 1;
                    first_free = first_free.or(Some(place));
                }
            }
            if free > most_free {
                most_free = free;
                choice = first_free;
            }
        }
        let place = choice.unwrap_or_else(|| {
            let all = buckets.into_iter().flatten();
            let oldest = all.min_by_key(|place| self.entries[*place].heard_ns);
            oldest.unwrap_or(0)
        });
        let gone = self.entries[place];
        if choice.is_none() {
            self.evicted += 1;
            self.ended(&gone, |replies| What::Evicted { replies });
        } else if gone.heard_ns != 0 {
            self.ended(&gone, silent_after);
        }
        self.entries[place] = FREE;
        place
    }
}

fn silent_after(replies: u64) -> What {
    What::Silent { replies }
}

fn again_after(replies: u64) -> What {
    What::BeganAgain { replies }
}

fn record_place(serial: u64) -> usize {
    usize::try_from(serial % RECORDS as u64).expect("within the records")
}

/// Whether timestamp `a` is after `b`, across the end of an era.
fn newer(a: u64, b: u64) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 63
}

/// Remembers the departure timestamps last sent, and knows a reply of ours that comes back as a
/// request.
///
/// A reply parses as a request, so that one packet with a forged source could keep two reflectors
/// answering each other for ever. But what comes back to us as a 'request' carries, as its Sender
/// Timestamp, the timestamp that we wrote. The time alone is remembered, not the peer: then a peer
/// that answers from another of its addresses is recognised as well.
#[derive(Debug)]
pub struct LoopGuard {
    sent: Box<[[u64; 4]]>,
    /// All that were remembered are from the first to the second, upwards and past the end of the range.
    /// What else a datagram has there, which is most often padding, needs no look at the table.
    span: Option<(u64, u64)>,
}

impl Default for LoopGuard {
    fn default() -> Self {
        Self {
            sent: vec![[0; 4]; GUARD_SETS].into_boxed_slice(),
            span: None,
        }
    }
}

impl LoopGuard {
    fn place(raw: u64) -> usize {
        // Fibonacci hashing: neighbouring times go to places far apart.
        let spread = raw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(spread >> 48).unwrap_or(0) % GUARD_SETS
    }

    /// Remembers a departure.
    pub fn note(&mut self, t3: Timestamp) {
        let raw = t3.raw();
        let set = &mut self.sent[Self::place(raw)];
        set.rotate_right(1);
        set[0] = raw;
        self.span = match self.span {
            None => Some((raw, raw)),
            Some((first, last)) if raw.wrapping_sub(first) <= last.wrapping_sub(first) => {
                Some((first, last))
            }
            Some((first, last)) if newer(raw, last) => Some((first, raw)),
            // The clock was set back.
            Some((_, last)) => Some((raw, last)),
        };
    }

    /// Whether this is the departure time of a reply of ours.
    #[must_use]
    pub fn knows(&self, timestamp: Timestamp) -> bool {
        let raw = timestamp.raw();
        let within =
            |(first, last): (u64, u64)| raw.wrapping_sub(first) <= last.wrapping_sub(first);
        raw != 0 && self.span.is_some_and(within) && self.sent[Self::place(raw)].contains(&raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn peer(n: u32) -> SocketAddr {
        let [a, b, c, d] = (n / 50_000 + 0x0a00_0001).to_be_bytes();
        let port = u16::try_from(n % 50_000 + 1024).unwrap();
        SocketAddr::from(([a, b, c, d], port))
    }

    fn at(ns: i64) -> Timestamp {
        Timestamp::from_unix_ns(1_700_000_000 * S + ns, crate::wire::Format::Ntp)
    }

    fn visit(sessions: &mut Sessions, from: SocketAddr, seq: u32, t1: Timestamp) -> Visit {
        let mut visit = sessions.find(from, None);
        sessions.visit(&mut visit, (seq, t1), 1, 41, S);
        visit
    }

    /// The number of the reply to a request.
    fn number(
        sessions: &mut Sessions,
        (from, to): (SocketAddr, Option<IpAddr>),
        seq: u32,
        t1: Timestamp,
        now_ns: i64,
    ) -> u32 {
        let mut visit = sessions.find(from, to);
        sessions.visit(&mut visit, (seq, t1), 1, 41, now_ns);
        sessions.take_numbers(&visit, 1).unwrap()
    }

    #[test]
    fn each_session_has_its_own_numbers() {
        let mut sessions = Sessions::new(0);
        let to = Some(IpAddr::from([10, 9, 9, 9]));
        let other = Some(IpAddr::from([10, 9, 9, 8]));
        for (from, to, seq, expected) in [
            (peer(1), to, 0, 0),
            (peer(1), to, 1, 1),
            (peer(2), to, 0, 0),
            (peer(1), other, 5, 0),
            (peer(1), to, 1, 2),
        ] {
            let number = number(&mut sessions, (from, to), seq, at(i64::from(seq)), S);
            assert_eq!(number, expected, "{from} {to:?} {seq}");
        }
        assert_eq!(sessions.begun, 3);
    }

    #[test]
    fn a_session_begins_anew_at_0_with_a_newer_timestamp_only() {
        let mut sessions = Sessions::new(0);
        let mut number = |seq, t1| number(&mut sessions, (peer(1), None), seq, at(t1), S);
        assert_eq!(number(0, 100), 0);
        // A copy of it, and then one that was overtaken.
        assert_eq!(number(0, 100), 1);
        assert_eq!(number(1, 200), 2);
        assert_eq!(number(0, 100), 3);
        assert_eq!(number(0, 300), 0);
        assert_eq!(number(1, 400), 1);
        // The sender's number wraps: no new session.
        assert_eq!(number(u32::MAX, 500), 2);
        assert_eq!(number(0, 600), 3);
        assert_eq!(number(1, 700), 4);
        assert_eq!(number(0, 800), 0);
    }

    #[test]
    fn the_last_number_again_with_a_newer_timestamp_is_a_question() {
        let mut sessions = Sessions::new(0);
        let mut repeat = |seq, t1| visit(&mut sessions, peer(1), seq, at(t1)).repeat;
        // Two of one batch, with one timestamp; a copy; one that was overtaken.
        for (seq, t1) in [(0, 100), (1, 200), (2, 200), (2, 200), (1, 200)] {
            assert!(!repeat(seq, t1), "{seq}");
        }
        assert!(repeat(2, 300));
        assert!(repeat(2, 400));
        assert!(!repeat(3, 500));
        // Behind another packet of one batch it is one as well, and none where it is a copy.
        let before = visit(&mut sessions, peer(1), 4, at(600));
        for (seq, t1, repeat) in [
            (4, 600, false),
            (4, 700, true),
            (5, 700, false),
            (5, 800, true),
            (4, 750, false),
        ] {
            let mut again = before;
            sessions.visit(&mut again, (seq, at(t1)), 1, 41, S);
            assert_eq!(again, Visit { repeat, ..before }, "{seq} at {t1}");
        }
    }

    #[test]
    fn records_are_of_the_sessions_begun_last() {
        let mut sessions = Sessions::new(0);
        let all = u32::try_from(RECORDS).unwrap() + 10;
        let first = visit(&mut sessions, peer(0), 1, at(1));
        assert_eq!(sessions.record(first.serial).unwrap().octets, 41);
        for n in 1..all {
            visit(&mut sessions, peer(n), 1, at(1));
        }
        assert_eq!(sessions.record(first.serial), None);
        assert_eq!(sessions.find(peer(0), None).serial, first.serial);
        let records = sessions.records();
        assert_eq!(records.len(), RECORDS);
        assert_eq!((records[0].serial, records[0].from), (11, peer(10)));
        assert_eq!(sessions.record(0), None);
    }

    #[test]
    fn sessions_that_come_and_go_are_told() {
        let (tx, events) = crossbeam_channel::bounded(8);
        let mut sessions = Sessions::new(900 * 1_000_000_000);
        assert!(!sessions.tells());
        sessions.tell(tx);
        assert!(sessions.tells());
        let to = Some(IpAddr::from([10, 9, 9, 9]));
        let v6: SocketAddr = "[fe80::1%3]:5".parse().unwrap();
        let to_v6 = Some("2001:db8::1".parse().unwrap());
        number(&mut sessions, (peer(1), to), 0, at(1), S);
        number(&mut sessions, (peer(1), to), 0, at(2), 2 * S);
        number(&mut sessions, (v6, to_v6), 0, at(2), 2 * S);
        sessions.sweep(3 * S);
        number(&mut sessions, (peer(1), to), 1, at(2), 500 * S);
        sessions.sweep(1000 * S);
        let told: Vec<_> = events.try_iter().map(|e| (e.from, e.to, e.what)).collect();
        assert_eq!(
            told,
            [
                (peer(1), to, What::Began),
                (peer(1), to, What::BeganAgain { replies: 0 }),
                (peer(1), to, What::Began),
                (v6, to_v6, What::Began),
                (v6, to_v6, What::Silent { replies: 0 }),
            ]
        );
    }

    #[test]
    fn a_silent_session_is_forgotten() {
        let mut sessions = Sessions::new(900 * 1_000_000_000);
        let mut number = |seq, now| number(&mut sessions, (peer(1), None), seq, at(now), now);
        assert_eq!(number(7, S), 0);
        assert_eq!(number(8, 900 * S), 1);
        assert_eq!(number(9, 1801 * S), 0);
    }

    #[test]
    fn a_hundred_thousand_sessions_keep_their_numbers() {
        let mut sessions = Sessions::new(0);
        for round in 0..3 {
            for n in 0..100_000 {
                let number = number(&mut sessions, (peer(n), None), round + 1, at(1), S);
                assert_eq!(number, round, "session {n}");
            }
        }
        assert_eq!((sessions.begun, sessions.evicted), (100_000, 0));
    }

    #[test]
    fn a_flood_of_sources_stays_in_its_memory_and_counts_evictions() {
        let mut sessions = Sessions::new(0);
        for n in 0..400_000 {
            number(&mut sessions, (peer(n), None), 1, at(1), S + i64::from(n));
        }
        assert_eq!(sessions.begun, 400_000);
        assert!(sessions.evicted > 100_000);
        // The newest ones are still known.
        let known = (399_000..400_000)
            .filter(|n| number(&mut sessions, (peer(*n), None), 2, at(2), 2 * S) == 1);
        assert_eq!(known.count(), 1000);
    }

    #[test]
    fn the_guard_knows_what_was_sent_lately() {
        let mut guard = LoopGuard::default();
        for i in 0..10_000 {
            guard.note(at(i * 777));
        }
        let known = (0..10_000).filter(|i| guard.knows(at(i * 777))).count();
        assert!(known > 9_900, "{known}");
        assert!(!guard.knows(at(5)));
        assert!(!guard.knows(Timestamp::from_raw(0)));
    }

    #[test]
    fn the_guard_forgets_nothing_when_the_clock_is_set_or_an_era_ends() {
        let mut guard = LoopGuard::default();
        let times =
            [5, 9, 3, 1 << 40, 4, u64::MAX - 2, 1, u64::MAX - 9, 1 << 41].map(Timestamp::from_raw);
        for n in 0..times.len() {
            assert!(!guard.knows(times[n]));
            guard.note(times[n]);
            assert!(times[..=n].iter().all(|time| guard.knows(*time)), "{n}");
        }
        assert!(!guard.knows(Timestamp::from_raw(6)), "between them");
    }

    #[test]
    fn a_list_of_prefixes_shuts_out_everyone_else() {
        let list: Vec<Prefix> = vec![
            "192.0.2.0/24".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ];
        for (text, expected) in [
            ("192.0.2.7", true),
            ("192.0.3.7", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            assert_eq!(allowed(&list, text.parse().unwrap()), expected);
        }
        assert!(allowed(&[], "203.0.113.1".parse().unwrap()));
    }
}
