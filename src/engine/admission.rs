//! Who gets an answer, and with which number: sessions and the loop guard, both in fixed memory.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use crate::config::Prefix;
use crate::wire::Timestamp;

/// Sessions that the table holds at least; beyond, the ones longest silent make room.
pub const SESSIONS: usize = 100_000;
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
    /// Sessions that were begun.
    pub begun: u64,
    /// Sessions that made room for others before their time.
    pub evicted: u64,
}

impl Sessions {
    /// A table for at least [`SESSIONS`]; one silent for `timeout_ns` (0: no limit) is forgotten.
    #[must_use]
    pub fn new(timeout_ns: u64) -> Self {
        let buckets = (2 * SESSIONS / WAYS).next_power_of_two();
        Self {
            entries: vec![FREE; buckets * WAYS].into_boxed_slice(),
            buckets,
            hasher: RandomState::new(),
            timeout_ns: match timeout_ns {
                0 => i64::MAX,
                ns => i64::try_from(ns).unwrap_or(i64::MAX),
            },
            begun: 0,
            evicted: 0,
        }
    }

    /// The number of the next reply of a session, which it takes.
    ///
    /// A session begins anew with sequence number 0 and a timestamp newer than all before.
    pub fn number(
        &mut self,
        from: SocketAddr,
        to: Option<IpAddr>,
        seq: u32,
        t1: Timestamp,
        now_ns: i64,
    ) -> u32 {
        let key = Key::new(from, to);
        let place = self.place(&key, now_ns);
        let session = &mut self.entries[place];
        let newer = newer(t1.raw(), session.t1);
        let fresh = session.heard_ns == 0
            || session.key != key
            || now_ns.saturating_sub(session.heard_ns) > self.timeout_ns
            || (seq == 0 && newer && session.seq < NEAR_WRAP);
        if fresh {
            self.begun += 1;
            *session = Session { key, ..FREE };
        }
        if fresh || newer {
            session.t1 = t1.raw();
            session.seq = seq;
        }
        // 0 marks a free entry.
        session.heard_ns = now_ns.max(1);
        let number = session.next;
        session.next = session.next.wrapping_add(1);
        number
    }

    /// Where a session is, or may begin.
    fn place(&mut self, key: &Key, now_ns: i64) -> usize {
        let hash = self.hasher.hash_one(key);
        let mask = self.buckets - 1;
        let low = usize::try_from(hash & u64::from(u32::MAX)).unwrap_or(0) & mask;
        let high = usize::try_from(hash >> 32).unwrap_or(0) & mask;
        let buckets = [low, high].map(|bucket| bucket * WAYS..(bucket + 1) * WAYS);
        let mut choice = None;
        let mut most_free = 0;
        for bucket in buckets.clone() {
            let mut free = 0;
            let mut first_free = None;
            for place in bucket {
                let entry = &self.entries[place];
                let silent = now_ns.saturating_sub(entry.heard_ns);
                if entry.heard_ns != 0 && entry.key == *key {
                    return place;
                }
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
        if let Some(place) = choice {
            self.entries[place] = FREE;
            return place;
        }
        self.evicted += 1;
        let all = buckets.into_iter().flatten();
        let oldest = all.min_by_key(|place| self.entries[*place].heard_ns);
        let place = oldest.unwrap_or(0);
        self.entries[place] = FREE;
        place
    }
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
}

impl Default for LoopGuard {
    fn default() -> Self {
        Self {
            sent: vec![[0; 4]; GUARD_SETS].into_boxed_slice(),
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
        let set = &mut self.sent[Self::place(t3.raw())];
        set.rotate_right(1);
        set[0] = t3.raw();
    }

    /// Whether this is the departure time of a reply of ours.
    #[must_use]
    pub fn knows(&self, timestamp: Timestamp) -> bool {
        let raw = timestamp.raw();
        raw != 0 && self.sent[Self::place(raw)].contains(&raw)
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
            let number = sessions.number(from, to, seq, at(i64::from(seq)), S);
            assert_eq!(number, expected, "{from} {to:?} {seq}");
        }
        assert_eq!(sessions.begun, 3);
    }

    #[test]
    fn a_session_begins_anew_at_0_with_a_newer_timestamp_only() {
        let mut sessions = Sessions::new(0);
        let mut number = |seq, t1| sessions.number(peer(1), None, seq, at(t1), S);
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
    fn a_silent_session_is_forgotten() {
        let mut sessions = Sessions::new(900 * 1_000_000_000);
        let mut number = |seq, now| sessions.number(peer(1), None, seq, at(now), now);
        assert_eq!(number(7, S), 0);
        assert_eq!(number(8, 900 * S), 1);
        assert_eq!(number(9, 1801 * S), 0);
    }

    #[test]
    fn a_hundred_thousand_sessions_keep_their_numbers() {
        let mut sessions = Sessions::new(0);
        for round in 0..3 {
            for n in 0..100_000 {
                let number = sessions.number(peer(n), None, round + 1, at(1), S);
                assert_eq!(number, round, "session {n}");
            }
        }
        assert_eq!((sessions.begun, sessions.evicted), (100_000, 0));
    }

    #[test]
    fn a_flood_of_sources_stays_in_its_memory_and_counts_evictions() {
        let mut sessions = Sessions::new(0);
        for n in 0..400_000 {
            sessions.number(peer(n), None, 1, at(1), S + i64::from(n));
        }
        assert_eq!(sessions.begun, 400_000);
        assert!(sessions.evicted > 100_000);
        // The newest ones are still known.
        let known =
            (399_000..400_000).filter(|n| sessions.number(peer(*n), None, 2, at(2), 2 * S) == 1);
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
