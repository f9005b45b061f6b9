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
