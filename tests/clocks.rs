//! Clocks that are set or drift while a session runs: the reflector's, which the test is.

#![allow(clippy::disallowed_methods, reason = "the test is a peer with a clock")]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{FakeReflector, Outcome, run};
use serde_json::Value;

/// A reflector whose clock is ahead by what `ahead` makes of the number of the request and of the
/// nanoseconds since the first one.
fn reflector(ahead: impl Fn(u32, i64) -> i64 + Send + 'static) -> FakeReflector {
    let mut first = None;
    FakeReflector::start(move |request| {
        let now = SystemTime::now();
        let since = now.duration_since(*first.get_or_insert(now));
        let since = i64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap();
        let number = u32::from_be_bytes(request[..4].try_into().unwrap());
        let stamp = ntp(now, ahead(number, since));
        let head = [&request[..4], &stamp, &[0, 1, 0, 0], &stamp];
        vec![[&head.concat(), &request[..14], &[0, 0, 255]].concat()]
    })
}

fn ntp(now: SystemTime, ahead_ns: i64) -> [u8; 8] {
    let unix = i128::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let ntp = unix + i128::from(ahead_ns) + 2_208_988_800 * i128::from(SECOND);
    let whole = ntp / i128::from(SECOND);
    let fraction = ((ntp % i128::from(SECOND)) << 32) / i128::from(SECOND);
    u64::try_from((whole << 32) | fraction)
        .unwrap()
        .to_be_bytes()
}

fn report(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let line = outcome.stdout.lines().last().unwrap();
    serde_json::from_str(line).unwrap()
}

fn range(delay: &Value) -> i64 {
    delay["max"].as_i64().unwrap() - delay["min"].as_i64().unwrap()
}

#[test]
fn a_reflectors_clock_that_is_set_is_told_and_parts_the_one_way_delays() {
    for by in [SECOND, -SECOND, -5 * SECOND] {
        let peer = reflector(move |number, _| if number < 120 { 0 } else { by });
        let outcome = run(&format!("sender {} -i 4ms -c 400 --json", peer.address));
        let report = report(&outcome);
        let clock = &report["timestamps"]["clock"];
        let steps = clock["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 1, "{clock}");
        assert_eq!(steps[0]["whose"], "remote");
        let told = steps[0]["by_ns"].as_i64().unwrap();
        assert!((told - by).abs() < SECOND / 4, "{told} for {by}");
        // The later part is the longer one.
        assert!(clock["one_way_from"].is_string(), "{clock}");
        assert!(clock["one_way_until"].is_null(), "{clock}");
        for direction in ["outbound", "inbound"] {
            let delay = &report["delay_ns"][direction];
            assert!(range(delay) < SECOND / 2, "{direction} {delay}");
            let samples = delay["samples"].as_u64().unwrap();
            assert!((200..=280).contains(&samples), "{direction} {delay}");
        }
        let offset = clock["offset_estimate_ns"].as_i64().unwrap();
        assert!((offset - by).abs() < SECOND / 4, "{offset} for {by}");
        // What rests on one clock is as ever.
        let packets = &report["packets"];
        assert_eq!(packets["lost"], 0, "{packets}");
        assert_eq!(packets["late"], 0, "{packets}");
        assert_eq!(packets["rejected_samples"], 0, "{packets}");
        let roundtrip = &report["delay_ns"]["roundtrip"];
        assert_eq!(roundtrip["packets"], 400, "{roundtrip}");
        assert!(range(roundtrip) < SECOND / 2, "{roundtrip}");
    }
}

#[test]
fn a_clock_that_was_set_is_said_where_the_one_way_delays_are_shown() {
    let peer = reflector(|number, _| if number < 120 { 0 } else { -5 * SECOND });
    let outcome = run(&format!("sender {} -i 2ms -c 200", peer.address));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let text = outcome
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        text.contains("The reflector's clock was set back by 5"),
        "{text}"
    );
    assert!(
        text.contains("these delays are of the time until"),
        "{text}"
    );
    assert!(!text.contains("-5.0 s"), "{text}");
}

#[test]
fn drift_is_told_and_taken_out_of_one_way_delays() {
    for ppm in [50_000, -50_000] {
        let peer = reflector(move |_, since| since * ppm / 1_000_000);
        let outcome = run(&format!("sender {} -i 5ms -c 600 --json", peer.address));
        let report = report(&outcome);
        let clock = &report["timestamps"]["clock"];
        assert_eq!(clock["steps"].as_array().unwrap().len(), 0, "{clock}");
        let (drift, error) = (
            clock["drift_ppm"].as_f64(),
            clock["drift_error_ppm"].as_f64(),
        );
        let (drift, error) = (drift.unwrap(), error.unwrap());
        assert!((drift - ppm as f64).abs() <= error + 100.0, "{clock}");
        assert_eq!(clock["drift_taken_out"], true, "{clock}");
        // The clocks moved 150 ms apart.
        for direction in ["outbound", "inbound"] {
            let delay = &report["delay_ns"][direction];
            assert!(
                delay["pdv"]["p99"].is_null() || delay["pdv"]["p99"].as_i64().unwrap() < 60_000_000,
                "{delay}"
            );
            assert!(delay["stddev"].as_f64().unwrap() < 20e6, "{delay}");
            assert_eq!(delay["samples"], report["packets"]["received"]);
        }
    }
}

#[test]
fn a_clock_that_keeps_its_rate_has_no_drift_taken_out() {
    let peer = reflector(|_, _| 40 * SECOND);
    let outcome = run(&format!("sender {} -i 2ms -c 300 --json", peer.address));
    let report = report(&outcome);
    let clock = &report["timestamps"]["clock"];
    assert_eq!(clock["steps"].as_array().unwrap().len(), 0, "{clock}");
    assert!(clock["one_way_from"].is_null() && clock["one_way_until"].is_null());
    assert_eq!(report["delay_ns"]["inbound"]["samples"], 300);
}

const SECOND: i64 = 1_000_000_000;
