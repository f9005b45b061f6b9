//! Test mode with the real binaries: what the reflector says it did is what the sender reports.

mod common;

use std::net::UdpSocket;

use common::{LIMIT, Reflector, has_ipv6, request, run, skip};
use serde_json::Value;

/// Runs a session of 1,000 packets through a reflector in test mode; what both sides counted.
fn session(load: &str, test: &str) -> (Value, Value) {
    let reflector = Reflector::start(&format!("127.0.0.1:0 --test-mode --seed 7 --json {test}"));
    let remote = reflector.address();
    let line = format!("sender {remote} -c 1000 {load} --packet-timeout 1s --json");
    let report = run(&line).measured();
    (report, reflector.stop().account())
}

/// Checks that the account adds up, and that its one session has all of it.
#[track_caller]
fn check_sums(account: &Value) {
    let sessions = account["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{account:#}");
    assert_eq!(account["sessions_not_listed"], 0);
    for counts in [&account["totals"], &sessions[0]] {
        let injected = &counts["injected"];
        let number = |of: &Value, name: &str| of[name].as_i64().unwrap();
        assert_eq!(
            number(counts, "reflected") + number(counts, "unsent"),
            number(counts, "received")
                - number(counts, "invalid")
                - number(counts, "refused")
                - number(injected, "dropped")
                - number(injected, "rate_limited")
                - number(injected, "unreleased")
                + number(injected, "duplicated"),
            "{account:#}"
        );
        assert_eq!(injected, &account["totals"]["injected"]);
        // A session of a test mode that was given enough room and time.
        assert_eq!(injected["not_held"], 0);
        assert_eq!(injected["unreleased"], 0);
    }
}

/// Checks that number and share of what was drawn fit: five deviations of a binomial distribution.
#[track_caller]
fn check_share(number: &Value, share: f64) {
    let number = number.as_f64().unwrap();
    let (mean, deviation) = (1000.0 * share, (1000.0 * share * (1.0 - share)).sqrt());
    assert!(
        (number - mean).abs() <= 5.0 * deviation,
        "{number} of {share}"
    );
}

/// Compares the two sides: in the direction of the impairment all, in the other nothing.
#[track_caller]
fn check_equal(report: &Value, account: &Value, direction: &str) {
    check_sums(account);
    let packets = &report["packets"];
    let injected = &account["totals"]["injected"];
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap();
    let both = format!("{packets:#}{injected:#}");
    assert_eq!(packets["sent"], 1000, "{both}");
    assert_eq!(packets["late"], 0, "{both}");
    let corrupted = number(injected, "corrupted");
    assert_eq!(packets["invalid"], corrupted, "{both}");
    let vanished = number(injected, "dropped") + number(injected, "rate_limited");
    // A corrupted request too is numbered and answered: its reply is what cannot be used.
    let (here, there, lost_here, lost_there) = match direction {
        "inbound" => ("inbound", "outbound", vanished + corrupted, 0),
        _ => ("outbound", "inbound", vanished, corrupted),
    };
    assert_eq!(packets["lost"], vanished + corrupted, "{both}");
    assert_eq!(packets[format!("lost_{here}")], lost_here, "{both}");
    assert_eq!(packets[format!("lost_{there}")], lost_there, "{both}");
    assert_eq!(packets["lost_unattributed"], 0, "{both}");
    for (found, done) in [("duplicates", "duplicated"), ("reordered", "reordered")] {
        assert_eq!(packets[found], injected[done], "{both}");
        assert_eq!(packets[format!("{found}_{here}")], injected[done], "{both}");
        assert_eq!(packets[format!("{found}_{there}")], 0, "{both}");
    }
}

#[test]
fn each_impairment_alone_is_what_the_sender_finds() {
    for direction in ["inbound", "outbound"] {
        for (flag, done, share) in [
            ("--drop-rate 5", "dropped", 0.05),
            ("--duplicate-rate 5%", "duplicated", 0.05),
            ("--corrupt-rate 2.5", "corrupted", 0.025),
            // Two in a row are both overtaken by the third.
            ("--reorder-rate 3", "reordered", 0.03),
        ] {
            let test = format!("{flag} --impair-direction {direction}");
            let (report, account) = session("-i 1ms", &test);
            check_equal(&report, &account, direction);
            check_share(&account["totals"]["injected"][done], share);
        }
    }
}

#[test]
fn all_impairments_together_are_what_the_sender_finds() {
    for direction in ["inbound", "outbound"] {
        for load in [
            "-i 1ms",
            "--rate 5k --imix",
            "--rate 2k --schedule poisson --seed 3",
        ] {
            let test = format!(
                "--drop-rate 5 --duplicate-rate 3 --corrupt-rate 2 --reorder-rate 2 --delay-rate 10 \
                 --max-delay 30ms --impair-direction {direction}"
            );
            let (report, account) = session(load, &test);
            check_equal(&report, &account, direction);
            let reordered = account["totals"]["injected"]["reordered"].as_u64().unwrap();
            assert!(reordered > 20, "delays of 30 ms reorder, too: {account:#}");
        }
    }
}

#[test]
fn the_share_of_delayed_samples_is_the_injected_one() {
    for (direction, other) in [("inbound", "outbound"), ("outbound", "inbound")] {
        let test = format!(
            "--delay-rate 7.5 --delay 200ms --delay-jitter 50ms --impair-direction {direction}"
        );
        let (report, account) = session("-i 1ms", &test);
        check_equal(&report, &account, direction);
        let delayed = &account["totals"]["injected"]["delayed"];
        check_share(delayed, 0.075);
        // Delayed by 150 to 250 ms; a busy host may add its own. Between the 90th and the 95th of a
        // hundred: 5 % to 10 % of the samples, three deviations to either side.
        let delays = |way: &str, figure: &str| report["delay_ns"][way][figure].as_i64().unwrap();
        assert!(delays(direction, "p95") >= 150_000_000, "{report:#}");
        assert!(delays(direction, "p90") < 150_000_000, "{report:#}");
        // The other way has none of it, nor the reflector: a held packet is on its way.
        assert!(delays(other, "p95") < 150_000_000, "{report:#}");
        assert!(delays("reflector", "p95") < 150_000_000, "{report:#}");
    }
}

#[test]
fn what_a_rate_limit_drops_is_counted_apart() {
    for direction in ["inbound", "outbound"] {
        let test = format!("--rate-limit 500 --impair-direction {direction}");
        let (report, account) = session("-i 1ms", &test);
        check_equal(&report, &account, direction);
        let injected = &account["totals"]["injected"];
        assert_eq!(injected["dropped"], 0);
        assert!(
            injected["rate_limited"].as_u64().unwrap() > 0,
            "{account:#}"
        );
    }
}

#[test]
fn other_ways_to_reflect_account_alike() {
    let test = "--drop-rate 5 --corrupt-rate 2 --reorder-rate 3 --delay-rate 10 --max-delay 20ms";
    for more in ["--io portable", "--threads 2", "--timestamp-format ptp"] {
        let (report, account) = session("-i 1ms", &format!("{test} --duplicate-rate 2 {more}"));
        check_equal(&report, &account, "inbound");
    }
    // Without numbers of its own there are no directions, and sessions are told apart all the same.
    let (report, account) = session("-i 1ms", &format!("{test} --stateless"));
    check_sums(&account);
    let (packets, injected) = (&report["packets"], &account["totals"]["injected"]);
    assert_eq!(packets["reordered"], injected["reordered"], "{account:#}");
    assert_eq!(packets["invalid"], injected["corrupted"], "{account:#}");
    // The largest datagrams are held, too.
    let (report, account) = session(
        "-i 1ms --payload-size 65507",
        "--reorder-rate 20 --delay-rate 20 --max-delay 10ms",
    );
    check_equal(&report, &account, "inbound");
    assert_eq!(report["path"]["reply_bytes"], serde_json::json!([65_507]));
}

#[test]
fn held_packets_go_back_the_way_they_came() {
    // The wildcard addresses: each reply must come from the address that was asked.
    let reflector = Reflector::start(":0 --test-mode --delay-rate 100 --max-delay 5ms --json");
    let targets = ["127.0.0.1", "127.0.0.3"];
    for address in targets {
        let port = reflector.address().port();
        let line = format!("sender {address}:{port} -i 1ms -c 100 --dscp ef --json");
        let report = run(&line).measured();
        common::assert_no_loss(&report, 100);
        assert_eq!(report["packets"]["invalid"], 0);
        assert_eq!(report["path"]["dscp_received"], 46, "{report:#}");
    }
    let account = reflector.stop().account();
    let sessions = account["sessions"].as_array().unwrap();
    let asked: Vec<&str> = sessions
        .iter()
        .map(|s| s["local_address"].as_str().unwrap())
        .collect();
    assert_eq!(asked, targets);
    if !has_ipv6() {
        return skip("no IPv6 on this host");
    }
    let reflector = Reflector::start("[::1]:0 --test-mode --delay-rate 100 --max-delay 5ms --json");
    let line = format!("sender {} -i 1ms -c 100 --json", reflector.address());
    common::assert_no_loss(&run(&line).measured(), 100);
    assert_eq!(
        reflector.stop().account()["totals"]["injected"]["delayed"],
        100
    );
}

#[test]
fn what_is_still_held_at_the_end_is_counted() {
    let reflector = Reflector::start("127.0.0.1:0 --test-mode --delay-rate 100 --delay 1h --json");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    for seq in 0..20 {
        socket.send_to(&request(seq), reflector.address()).unwrap();
    }
    // The same number with a newer timestamp asks for the counter, and is answered at once, after
    // all that came before it.
    socket.send_to(&request(19), reflector.address()).unwrap();
    let (len, _) = socket.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(len, 41);
    let totals = reflector.stop().account()["totals"].clone();
    assert_eq!(
        (&totals["received"], &totals["reflected"]),
        (&21.into(), &1.into())
    );
    assert_eq!(totals["injected"]["unreleased"], 20);
    assert_eq!(totals["injected"]["delayed"], 20);
}

#[test]
fn test_mode_is_loud() {
    let mut reflector = Reflector::start("127.0.0.1:0 --test-mode --drop-rate 5 --seed 9");
    let line = reflector.next_line();
    let line = if line.contains("everyone is answered") {
        reflector.next_line()
    } else {
        line
    };
    for part in ["TEST MODE", "on purpose", "inbound", "seed 9"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(reflector.next_line().contains("drop 5 %"));
    let summary = reflector.stop();
    assert!(summary.0.contains("TEST MODE"), "{}", summary.0);
    assert!(summary.0.contains("injected:"), "{}", summary.0);
}

#[test]
fn an_account_without_test_mode_tells_sessions_and_no_impairment() {
    let reflector = Reflector::start("127.0.0.1:0 --json --timer 0");
    for count in [50, 60] {
        let line = format!("sender {} -i 1ms -c {count} --json", reflector.address());
        common::assert_no_loss(&run(&line).measured(), count);
    }
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(LIMIT)).unwrap();
    stranger.send_to(&request(0), reflector.address()).unwrap();
    stranger.recv_from(&mut [0; 64]).unwrap();
    for datagram in [&[1, 2, 3][..], &request(1)] {
        stranger.send_to(datagram, reflector.address()).unwrap();
    }
    stranger.recv_from(&mut [0; 64]).unwrap();
    let account = reflector.stop().account();
    assert_eq!(account["test_mode"], Value::Null);
    assert_eq!(account["totals"]["injected"], Value::Null);
    assert_eq!(account["totals"]["invalid"], 1);
    let sessions = account["sessions"].as_array().unwrap();
    let received: Vec<u64> = sessions
        .iter()
        .map(|s| s["received"].as_u64().unwrap())
        .collect();
    assert_eq!(received, [50, 60, 3], "{account:#}");
    assert_eq!(
        (&sessions[2]["invalid"], &sessions[2]["reflected"]),
        (&1.into(), &2.into())
    );
    assert_eq!(sessions[2]["port"], stranger.local_addr().unwrap().port());
    let sum: u64 = received.iter().sum();
    assert_eq!(account["totals"]["received"], sum);
}

#[test]
fn a_stateless_reflector_lists_no_sessions() {
    let reflector = Reflector::start("127.0.0.1:0 --json --stateless");
    let line = format!("sender {} -i 1ms -c 50 --json", reflector.address());
    common::assert_no_loss(&run(&line).measured(), 50);
    let account = reflector.stop().account();
    assert_eq!(account["sessions"], Value::Null);
    assert_eq!(account["stateless"], true);
}

#[test]
fn sessions_that_come_and_go_are_logged() {
    // Long enough that no packet of the sender's is the one that finds it silent.
    let mut reflector = Reflector::start("127.0.0.1:0 -v --session-timeout 2s");
    let line = format!("sender {} -i 100us -c 20 --json", reflector.address());
    run(&line).measured();
    let mut wait_for = |part: &str| while !reflector.next_line().contains(part) {};
    wait_for("began");
    wait_for("ended: silent");
}

#[test]
fn a_packet_that_outlives_its_session_belongs_to_no_other() {
    let reflector = Reflector::start(
        "127.0.0.1:0 --test-mode --seed 3 --impair-direction outbound --delay-rate 50 --delay 700ms \
         --json",
    );
    let remote = reflector.address();
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = near.local_addr().unwrap().port();
    drop(near);
    let first = format!("sender {remote} 127.0.0.1:{port} -i 1ms -c 200 --packet-timeout 50ms");
    assert_eq!(run(&first).code, 0);
    let second = format!("sender {remote} 127.0.0.1:{port} -i 5ms -c 200 --json");
    let report = run(&second).measured();
    assert_eq!(report["packets"]["received"], 200, "{report:#}");
    assert_eq!(report["packets"]["lost_outbound"], 0, "{report:#}");
    let account = reflector.stop().account();
    let sessions = account["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2, "{account:#}");
    for name in ["received", "reflected"] {
        let sum: u64 = sessions.iter().map(|s| s[name].as_u64().unwrap()).sum();
        assert_eq!(account["totals"][name], sum, "{name}: {account:#}");
    }
    let left = &account["totals"]["injected"]["unreleased"];
    assert!(left.as_u64().unwrap() > 0, "{account:#}");
}
