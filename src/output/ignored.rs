//! Sentences about datagrams that were not taken.

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
