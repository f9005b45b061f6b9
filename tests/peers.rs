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

/// Few packets, half a second or more apart: no reply may be recorded before it is known how to read it.
#[test]
fn a_mix_of_formats_is_found_at_long_intervals() {
    for ahead in [0, 300_000_000] {
        let mut number = 0;
        let reflector = FakeReflector::start(move |request| {
            let mut reply = [short_reply(request, number), vec![0, 0, 255]].concat();
            let now = u64::from_be_bytes(reply[4..12].try_into().unwrap());
            let now = now + (ahead << 32) / 1_000_000_000;
            let now = mixed(now.to_be_bytes(), "ntp_nanoseconds");
            reply[4..12].copy_from_slice(&now);
            reply[16..24].copy_from_slice(&now);
            number += 1;
            vec![reply]
        });
        let line = format!("sender {} -i 600ms -c 6 --json", reflector.address);
        let report = run(&line).measured();
        assert_eq!(
            report["timestamps"]["reflector_format"], "ntp_nanoseconds",
            "{report:#}"
        );
        let outbound = &report["delay_ns"]["outbound"];
        let (min, max) = (&outbound["min"], &outbound["max"]);
        let range = max.as_i64().unwrap() - min.as_i64().unwrap();
        assert!(range < 150_000_000, "{outbound}");
        assert_eq!(report["packets"]["rejected_samples"], 0, "{report:#}");
        assert!(noted(&report, &["nanoseconds where NTP"]), "{report:#}");
    }
}

/// One reply in four is in another format than those that settled it.
#[test]
fn a_reply_in_another_format_is_left_out_and_counted() {
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let mut reply = [short_reply(request, number), vec![0, 0, 255]].concat();
        if number % 4 == 3 {
            let now = mixed(reply[4..12].try_into().unwrap(), "unix_fraction");
            reply[4..12].copy_from_slice(&now);
            reply[16..24].copy_from_slice(&now);
        }
        number += 1;
        vec![reply]
    });
    let line = format!("sender {} -i 5ms -c 100 --json", reflector.address);
    let report = run(&line).measured();
    assert_no_loss(&report, 100);
    assert_eq!(report["packets"]["rejected_samples"], 25, "{report:#}");
    assert_eq!(report["timestamps"]["reflector_format"], "ntp");
    for direction in ["outbound", "inbound", "roundtrip"] {
        let delay = &report["delay_ns"][direction];
        assert_eq!(delay["samples"], 75, "{direction} {delay}");
        assert!(delay["max"].as_i64().unwrap() < 10_000_000_000, "{delay}");
    }
    assert!(
        noted(&report, &["25 of 100 replies", "another format"]),
        "{report:#}"
    );
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

/// A quirk of one server of TWAMP Light: T3 stands where T1 belongs, and our T1 where T3 does.
#[test]
fn replies_with_t1_and_t3_exchanged_are_read_and_said() {
    let reflector = FakeReflector::start(|request| {
        // It copies the sequence number, too.
        let number = u32::from_be_bytes(request[..4].try_into().unwrap());
        let mut reply = [short_reply(request, number), vec![0, 0, 255]].concat();
        let (t3, t1): ([u8; 8], [u8; 8]) = (
            reply[4..12].try_into().unwrap(),
            reply[28..36].try_into().unwrap(),
        );
        reply[4..12].copy_from_slice(&t1);
        reply[28..36].copy_from_slice(&t3);
        vec![reply]
    });
    for io in ["batched", "portable"] {
        let line = format!(
            "sender {} -i 1ms -c 100 --io {io} --json",
            reflector.address
        );
        let report = run(&line).measured();
        assert_no_loss(&report, 100);
        assert_eq!(report["packets"]["invalid"], 0);
        assert_eq!(report["packets"]["rejected_samples"], 0);
        assert_eq!(report["timestamps"]["exchanged"], 100);
        let inbound = &report["delay_ns"]["inbound"];
        assert!(inbound["min"].as_i64().unwrap() >= 0, "{inbound}");
        assert!(
            noted(
                &report,
                &["100 replies had T1 and T3 in each other's place"]
            ),
            "{report:#}"
        );
    }
}

/// A quirk of one server: each reply is as large as the largest size that was agreed on.
/// Nobody else is to blame for what a reflector, or the path, spoiled of replies to our own packets.
#[test]
fn replies_with_a_spoiled_number_are_no_ones_else() {
    for one_in in [1, 5] {
        let mut number = 0;
        let reflector = FakeReflector::start(move |request| {
            let mut reply = [short_reply(request, number), vec![0, 0, 255]].concat();
            if number % one_in == 0 {
                // The Sender Sequence Number.
                reply[24..28].copy_from_slice(&(number + 100_000).to_be_bytes());
            }
            number += 1;
            vec![reply]
        });
        let line = format!(
            "sender {} -i 5ms -c 50 --packet-timeout 300ms --json",
            reflector.address
        );
        let outcome = run(&line);
        let last = outcome.stdout.lines().last().unwrap();
        let report: Value = serde_json::from_str(last).unwrap();
        let packets = &report["packets"];
        assert_eq!(packets["lost"], 50 / one_in, "{packets}");
        assert!(!noted(&report, &["not of this session"]), "{report:#}");
        if one_in > 1 {
            // Each of them reached the reflector.
            assert_eq!(packets["lost_outbound"], 0, "{packets}");
            assert_eq!(packets["lost_inbound"], 10, "{packets}");
        }
    }
}

#[test]
fn a_reflector_that_pads_every_reply_is_said_to_multiply_the_load() {
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let mut reply = [short_reply(request, number), vec![0, 0, 255]].concat();
        number += 1;
        reply.resize(1472, 0);
        vec![reply]
    });
    let line = format!("sender {} --imix -i 1ms -c 240 --json", reflector.address);
    let report = run(&line).measured();
    assert_no_loss(&report, 240);
    let ratio = report["path"]["reply_size_ratio"].as_f64().unwrap();
    assert!(ratio > 3.0, "{ratio}");
    assert!(
        noted(&report, &["times as large", "all of 1472 octets"]),
        "{report:#}"
    );

    let line = format!(
        "sender {} --payload-size 1472 -i 1ms -c 20 --json",
        reflector.address
    );
    let report = run(&line).measured();
    assert_eq!(report["path"]["reply_size_ratio"], 1.0);
    assert!(!noted(&report, &["times as large"]), "{report:#}");
}

#[test]
fn a_reflector_that_changes_the_dscp_is_said_to() {
    for (ours, said) in [("ef", true), ("cs1", false)] {
        let reflector = Reflector::start("127.0.0.1:0 --dscp cs1");
        let line = format!(
            "sender {} --dscp {ours} -i 1ms -c 30 --json",
            reflector.address()
        );
        let report = run(&line).measured();
        let note = noted(
            &report,
            &["30 of 30 replies came with DSCP cs1 where packets left with ef"],
        );
        assert_eq!(note, said, "{report:#}");
        let other = if said { 30 } else { 0 };
        assert_eq!(report["path"]["replies_of_other_dscp"], other);
    }
}

/// What came and was not taken is told by its kind: in the report, in the summary, and where nothing
/// else came in the line that says so.
#[test]
fn what_is_no_reply_is_told_by_its_kind() {
    for (what, spoil, sentence) in [
        (
            "other_t1",
            (|reply| reply[28] ^= 0x40) as fn(&mut Vec<u8>),
            "20 replies had another T1 (Sender Timestamp) than was sent",
        ),
        (
            "unknown_number",
            |reply| reply[24] ^= 0x40,
            "20 replies had a Sender Sequence Number that was not sent",
        ),
        (
            "too_short",
            |reply| reply.truncate(37),
            "20 datagrams had fewer octets than a test packet has",
        ),
    ] {
        let reflector = FakeReflector::start(move |request| {
            let mut reply = [short_reply(request, 0), vec![0, 0, 255]].concat();
            spoil(&mut reply);
            // One of another kind does not hide the most frequent one.
            let first = request[..4] == [0; 4];
            let more = if first { vec![vec![0; 5]] } else { Vec::new() };
            [vec![reply], more].concat()
        });
        let line = format!(
            "sender {} -i 1ms -c 20 --packet-timeout 300ms",
            reflector.address
        );
        let outcome = run(&(line.clone() + " --json"));
        assert_eq!(outcome.code, 5, "{outcome:?}");
        let packets = &outcome.report()["packets"];
        let extra = u64::from(what == "too_short");
        assert_eq!(packets["invalid"], 21);
        assert_eq!(packets["ignored"][what], 20 + extra);
        let sentence = if extra == 1 {
            sentence.replacen("20", "21", 1)
        } else {
            sentence.to_owned()
        };
        assert!(outcome.complaint().ends_with(&sentence), "{outcome:?}");

        let outcome = run(&(line + " -v"));
        let text: Vec<&str> = outcome.stdout.split_whitespace().collect();
        assert!(text.join(" ").contains(&sentence), "{outcome:?}");
        assert!(outcome.stderr.contains("not taken: "), "{outcome:?}");
    }
}

#[test]
fn what_a_reflector_does_not_answer_is_told_by_its_kind() {
    let reflector = Reflector::start("127.0.0.1:0 --allow 127.0.0.1/32");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(reflector.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    for _ in 0..3 {
        socket.send(&[0; 13]).unwrap();
    }
    socket.send(&request(0)).unwrap();
    let mut reply = [0; 100];
    let len = socket.recv(&mut reply).unwrap();
    // A second reflector would answer that.
    let mut back = request(1);
    back.resize(28, 0);
    back.extend(&reply[4..12]);
    assert_eq!((len, back.len()), (41, 36));
    socket.send(&back).unwrap();
    let other = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
    other.send_to(&request(0), reflector.address()).unwrap();
    // The last one of all is answered: everything before has come.
    socket.send(&request(2)).unwrap();
    socket.recv(&mut reply).unwrap();
    let summary = reflector.stop().0;
    for part in [
        "invalid 3  not allowed 1  loops 1",
        "not answered: 3 datagrams had fewer octets than a test packet has\n",
        "not answered: 1 request came from addresses that are not allowed\n",
        "not answered: 1 reply came back to the reflector that had sent them\n",
    ] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
}
