//! Moments as RFC 3339 writes them, in UTC.

use std::time::{Duration, SystemTime};

fn since_1970(unix_ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(unix_ns).unwrap_or(0))
}

/// Nanoseconds since the Unix epoch, to the millisecond.
pub(crate) fn to_the_millisecond(unix_ns: i64) -> String {
    humantime::format_rfc3339_millis(since_1970(unix_ns)).to_string()
}

/// The same to the nanosecond.
pub(crate) fn to_the_nanosecond(unix_ns: i64) -> String {
    humantime::format_rfc3339_nanos(since_1970(unix_ns)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_of_utc() {
        let at = 1_767_323_045_123_456_789;
        assert_eq!(to_the_millisecond(at), "2026-01-02T03:04:05.123Z");
        assert_eq!(to_the_nanosecond(at), "2026-01-02T03:04:05.123456789Z");
        assert_eq!(to_the_millisecond(-1), "1970-01-01T00:00:00.000Z");
    }
}
