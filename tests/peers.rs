//! Peers that are odd, as real ones are: measured all the same, and said.

mod common;

use common::{FakeReflector, LIMIT, Reflector, assert_no_loss, request, run, short_reply};
use serde_json::Value;

/// Whether one of the report's notes has all these parts.
fn noted(report: &Value, parts: &[&str]) -> bool {
    let notes = report["notes"].as_array().unwrap();
    let all = |note: &str| parts.iter().all(|part| note.contains(part));
    notes.iter().any(|note| all(note.as_str().unwrap()))
}

/// A quirk of several programs: they never fill their Error Estimate in, or not on hosts whose clock is
/// not synchronised. Their replies are replies.
#[test]
fn replies_without_an_error_estimate_are_measured() {
    // S says nothing where the Multiplier is 0.
    for estimate in [[0, 0], [0x80, 0]] {
        let mut number = 0;
        let reflector = FakeReflector::start(move |request| {
            let mut reply = [short_reply(request, number), vec![0, 0, 255]].concat();
            reply[12..14].copy_from_slice(&estimate);
            number += 1;
            vec![reply]
        });
        let line = format!("sender {} -i 1ms -c 50 --json", reflector.address);
        let report = run(&line).measured();
        assert_no_loss(&report, 50);
        assert_eq!(report["packets"]["invalid"], 0);
        assert_eq!(report["delay_ns"]["roundtrip"]["samples"], 50);
        let clock = &report["timestamps"]["clock"];
        assert!(clock["remote_synchronised"].is_null(), "{clock}");
        assert!(clock["remote_error_ns"].is_null(), "{clock}");
        assert_eq!(clock["remote_estimates_unusable"], 50);
        assert!(
            noted(&report, &["50 replies", "Multiplier 0"]),
            "{report:#}"
        );
    }
}

const SECONDS_TO_1970: u64 = 2_208_988_800;
const LOW: u64 = 0xffff_ffff;

/// A time as NTP writes it, as a peer that mixes its formats up does.
fn mixed(ntp: [u8; 8], format: &str) -> [u8; 8] {
    let ntp = u64::from_be_bytes(ntp);
    let (seconds, fraction) = (ntp >> 32, ntp & LOW);
    let ns = (fraction * 1_000_000_000) >> 32;
    let mixed = match format {
        "unix_fraction" => (seconds - SECONDS_TO_1970) << 32 | fraction,
        "ntp_nanoseconds" => seconds << 32 | ns,
        "ptp" => (seconds - SECONDS_TO_1970) << 32 | ns,
        _ => ntp,
    };
    mixed.to_be_bytes()
}

/// Whatever it is, all replies are read in one format, and the right one: the other host is this one.
#[test]
fn timestamps_in_a_mix_of_formats_are_read_as_they_are_meant() {
    for format in ["ntp", "ptp", "unix_fraction", "ntp_nanoseconds"] {
        let mut number = 0;
        let reflector = FakeReflector::start(move |request| {
            let mut reply = [short_reply(request, number), vec![0, 0, 255]].concat();
            let now = mixed(reply[4..12].try_into().unwrap(), format);
            reply[4..12].copy_from_slice(&now);
            reply[16..24].copy_from_slice(&now);
            number += 1;
            vec![reply]
        });
        let line = format!("sender {} -i 20ms -c 50 --json", reflector.address);
        let report = run(&line).measured();
        assert_no_loss(&report, 50);
        assert_eq!(report["timestamps"]["reflector_format"], format);
        assert_eq!(report["packets"]["rejected_samples"], 0, "{report:#}");
        let outbound = &report["delay_ns"]["outbound"];
        assert!(outbound["min"].as_i64().unwrap() >= 0, "{outbound}");
        // Read wrongly, some would be up to 0.7 s or 66 years off.
        assert!(
            outbound["median"].as_i64().unwrap() < 100_000_000,
            "{outbound}"
        );
        let mix = noted(&report, &["T2 and T3 in a mix of formats"]);
        assert_eq!(mix, format.contains('_'), "{report:#}");
    }
}

#[test]
fn requests_without_an_error_estimate_are_answered() {
    let reflector = Reflector::start("127.0.0.1:0");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(reflector.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reply = [0; 100];
    for seq in 0..3 {
        let mut asked = request(seq);
        asked[13] = 0;
        socket.send(&asked).unwrap();
        let len = socket.recv(&mut reply).expect("it is answered");
        assert_eq!((len, &reply[24..38]), (41, &asked[..]));
    }
    let summary = reflector.stop();
    assert_eq!(summary.count("invalid"), 0, "{}", summary.0);
    let said = "3 requests had an Error Estimate with Multiplier 0";
    assert!(summary.0.contains(said), "{}", summary.0);
}
