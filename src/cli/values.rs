//! Values of flags, from what was typed.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;

use crate::config::{Burst, Span};

/// A whole number of type `T`.
pub(super) fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error: ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => "too large a number; use a smaller one".to_owned(),
            IntErrorKind::NegOverflow => "too small a number".to_owned(),
            _ if text.starts_with('-') => "below 0; use a whole number from 0 on".to_owned(),
            _ => "not a number; use a whole one, such as 64".to_owned(),
        })
}

pub(super) fn parse_ttl(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(ttl @ 1..) => Ok(ttl),
        _ => Err("use 1 to 255".to_owned()),
    }
}

/// Microseconds.
pub(super) fn parse_busy_poll(text: &str) -> Result<u32, String> {
    let ns = match text.parse::<u64>() {
        Ok(us) => us.checked_mul(1000),
        Err(_) => text.parse::<Span>().map(|span| span.ns()).ok(),
    };
    match ns.map(|ns| ns / 1000) {
        Some(us @ 1..=10_000) => Ok(u32::try_from(us).unwrap_or(1)),
        _ => Err("use 1us to 10ms".to_owned()),
    }
}

pub(super) fn parse_burst(text: &str) -> Result<Burst, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Burst::Auto),
        Ok(packets @ 1..=64) => Ok(Burst::Fixed(packets)),
        _ => Err("use 1 to 64, or auto".to_owned()),
    }
}

pub(super) fn parse_interface(text: &str) -> Result<String, String> {
    // 15 octets are what the system keeps of a name.
    if text.is_empty() || text.len() > 15 || text.contains(['/', ' ']) {
        return Err("no name of an interface; see `ip link`".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_pairs(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(threads @ 1..=64) => Ok(threads),
        _ => Err("use 1 to 64".to_owned()),
    }
}

pub(super) fn parse_threads(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(threads @ 1..=256) => Ok(threads),
        _ => Err("use 1 to 256".to_owned()),
    }
}

pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a count; use a whole number such as 500, 10k or 1M".to_owned());
    }
    let number: Option<u64> = digits.parse().ok();
    match number.and_then(|n| n.checked_mul(factor)) {
        Some(0) => Err("nothing would be sent; use 1 or more".to_owned()),
        Some(count) => Ok(count),
        None => Err("too large a count; use --duration for an endless run".to_owned()),
    }
}
