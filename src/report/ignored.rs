//! Datagrams that were not taken, by kind: one list for replies and requests, for all roles.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// Why a datagram was not taken as a test packet of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Fewer octets than a request or a reply has.
    TooShort,
    /// Cut short on arrival: it was longer than any packet that is expected.
    Truncated,
    /// A reply to a sequence number that was not sent.
    UnknownNumber,
    /// A reply whose Sender Timestamp is not the T1 that was sent: forged, stale or changed on the way.
    OtherT1,
    /// A reply to a packet, from another address than the Session-Reflector's.
    Elsewhere,
    /// From another address, and no reply to a packet.
    Stranger,
    /// Its HMAC is not that of the packet: another key, or changed on the way.
    Forged,
    /// A request from an address that is not on the list.
    NotAllowed,
    /// A reply of this reflector that came back as a request.
    Loop,
    /// A request from port 0, where nobody can be answered, or from no address.
    NoSource,
    /// A request to a broadcast or multicast address.
    ToMany,
    /// A request beyond what its client may have answered.
    OverLimit,
    /// A request before its session was started.
    Early,
    /// Of no session.
    NoSession,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::TooShort,
        Self::Truncated,
        Self::UnknownNumber,
        Self::OtherT1,
        Self::Elsewhere,
        Self::Stranger,
        Self::Forged,
        Self::NotAllowed,
        Self::Loop,
        Self::NoSource,
        Self::ToMany,
        Self::OverLimit,
        Self::Early,
        Self::NoSession,
    ];

    /// As JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::Truncated => "truncated",
            Self::UnknownNumber => "unknown_number",
            Self::OtherT1 => "other_t1",
            Self::Elsewhere => "elsewhere",
            Self::Stranger => "stranger",
            Self::Forged => "forged",
            Self::NotAllowed => "not_allowed",
            Self::Loop => "loop",
            Self::NoSource => "no_source",
            Self::ToMany => "to_many",
            Self::OverLimit => "over_limit",
            Self::Early => "early",
            Self::NoSession => "no_session",
        }
    }
}

/// How many datagrams were not taken, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored([u64; Kind::ALL.len()]);

impl Ignored {
    /// Counts `count` datagrams.
    #[inline]
    pub fn note(&mut self, kind: Kind, count: u64) {
        self.0[kind as usize] += count;
    }

    /// Adds the counts of another thread or session.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a += b;
        }
    }

    /// How many there were of a kind.
    #[inline]
    #[must_use]
    pub const fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The kinds that there were, with their counts.
    pub fn each(&self) -> impl Iterator<Item = (Kind, u64)> {
        let all = Kind::ALL.into_iter().zip(self.0);
        all.filter(|(_, count)| *count > 0)
    }

    /// The kind that there was most of; of several the first one.
    #[must_use]
    pub fn most(&self) -> Option<(Kind, u64)> {
        self.each().min_by_key(|(_, count)| u64::MAX - count)
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (now, before) in since.0.iter_mut().zip(before.0) {
            *now = now.saturating_sub(before);
        }
        since
    }
}

/// The kinds that there were, by their names.
impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (kind, count) in self.each() {
            map.serialize_entry(kind.name(), &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_and_told_apart() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        let mut ignored = Ignored::default();
        assert_eq!((ignored.most(), ignored.to_string()), (None, String::new()));
        ignored.note(Kind::OtherT1, 4);
        ignored.note(Kind::TooShort, 8);
        let before = ignored;
        ignored.add(&before);
        ignored.note(Kind::TooShort, 1);
        assert_eq!(ignored.most(), Some((Kind::TooShort, 17)));
        assert_eq!((ignored.total(), ignored.of(Kind::OtherT1)), (25, 8));
        assert_eq!(ignored.to_string(), "17 too short, 8 other T1");
        let json = serde_json::to_string(&ignored).unwrap();
        assert_eq!(json, r#"{"too_short":17,"other_t1":8}"#);
        assert_eq!(
            ignored.since(&before).to_string(),
            "9 too short, 4 other T1"
        );
    }
}
