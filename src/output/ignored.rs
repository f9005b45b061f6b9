//! Words for datagrams that were not taken.

use std::fmt::{self, Display, Formatter};

use super::figures::count;
use crate::report::ignored::{Ignored, Kind};

/// `200 replies had another T1 (Sender Timestamp) than was sent`.
#[must_use]
pub fn sentence(kind: Kind, number: u64) -> String {
    let (of, what) = match kind {
        Kind::TooShort => ("datagrams", "had fewer octets than a test packet has"),
        Kind::Truncated => (
            "datagrams",
            "were longer than any test packet that is expected",
        ),
        Kind::UnknownNumber => ("replies", "had a Sender Sequence Number that was not sent"),
        Kind::OtherT1 => ("replies", "had another T1 (Sender Timestamp) than was sent"),
        Kind::Elsewhere => (
            "replies",
            "came from another address than the Session-Reflector's",
        ),
        Kind::Stranger => (
            "datagrams",
            "came from another address, and were no replies",
        ),
        Kind::Forged => (
            "datagrams",
            "had a wrong HMAC (another key, or changed on the way)",
        ),
        Kind::NotAllowed => ("requests", "came from addresses that are not allowed"),
        Kind::Loop => ("replies", "came back to the reflector that had sent them"),
        Kind::NoSource => ("requests", "came from port 0, where nobody can be answered"),
        Kind::ToMany => ("requests", "went to a broadcast or multicast address"),
        Kind::OverLimit => ("requests", "were over the limit of their client"),
        Kind::Early => ("requests", "came before their session was started"),
        Kind::NoSession => ("datagrams", "were of no session"),
    };
    match number {
        1 => {
            let what = what.replacen("were ", "was ", 1);
            format!("1 {} {what}", singular(of))
        }
        _ => format!("{} {of} {what}", count(number)),
    }
}

fn singular(of: &str) -> &str {
    match of {
        "replies" => "reply",
        other => other.trim_end_matches('s'),
    }
}

/// A line for each kind that there was, for a summary.
#[must_use]
pub fn by_kind(ignored: &Ignored) -> String {
    let line = |(kind, n)| format!("not answered: {}\n", sentence(kind, n));
    ignored.each().map(line).collect()
}

/// What came since `before`, a sentence for each kind: for whoever logs it as it comes.
pub fn news(before: &Ignored, now: &Ignored) -> Vec<String> {
    let since = now.since(before);
    since.each().map(|(kind, n)| sentence(kind, n)).collect()
}

/// A word or two, for a list.
impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TooShort => "too short",
            Self::Truncated => "too long",
            Self::UnknownNumber => "unknown number",
            Self::OtherT1 => "other T1",
            Self::Elsewhere => "from another address",
            Self::Stranger => "from strangers",
            Self::Forged => "wrong HMAC",
            Self::NotAllowed => "not allowed",
            Self::Loop => "loops",
            Self::NoSource => "without a source",
            Self::ToMany => "to broadcast or multicast",
            Self::OverLimit => "over the limit",
            Self::Early => "early",
            Self::NoSession => "of no session",
        })
    }
}

/// `8 too short, 4 other T1`; nothing where there were none.
impl Display for Ignored {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (place, (kind, count)) in self.each().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_many_are_sentences() {
        for kind in Kind::ALL {
            let (one, many) = (sentence(kind, 1), sentence(kind, 2000));
            assert!(one.starts_with("1 ") && !one.contains(" were "), "{one}");
            assert!(many.starts_with("2,000 "), "{many}");
        }
        assert_eq!(
            sentence(Kind::OtherT1, 200),
            "200 replies had another T1 (Sender Timestamp) than was sent"
        );
        assert_eq!(
            sentence(Kind::NotAllowed, 1),
            "1 request came from addresses that are not allowed"
        );
    }
}
