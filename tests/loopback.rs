//! The real binary over loopback: what it measures, prints and returns.

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc::channel;

use common::{
    FakeReflector, LIMIT, Outcome, Reflector, Running, assert_no_loss, binary, has_ipv6, run,
    short_reply, skip, words,
};
use serde_json::{Value, json};

/// An address at which nothing listens. Sockets of other tests are on 127.0.0.1.
fn nobody() -> String {
    let socket = UdpSocket::bind("127.9.9.9:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

/// Payload and packets of each size sent.
fn sizes(report: &Value) -> Vec<(u64, u64, u64)> {
    let sizes = report["load"]["sizes"].as_array().unwrap().iter();
    let field = |size: &Value, name: &str| size[name].as_u64().unwrap();
    let triple = |s| {
        let frame = field(s, "frame_bytes_l2");
        (frame, field(s, "packets"), field(s, "received"))
    };
    sizes.map(triple).collect()
}

fn has_note(report: &Value, part: &str) -> bool {
    let notes = report["notes"].as_array().unwrap();
    notes
        .iter()
        .any(|note| note.as_str().unwrap().contains(part))
}

#[track_caller]
fn assert_fits_a_terminal(outcome: &Outcome) {
    assert!(!outcome.stdout.is_empty(), "{outcome:?}");
    for line in outcome.stdout.lines() {
        assert!(line.chars().count() <= 79, "{line}");
    }
    let plain = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
    assert!(plain(&outcome.stdout), "{outcome:?}");
    assert!(plain(&outcome.stderr), "{outcome:?}");
}

#[test]
fn a_sender_without_remote_measures_itself() {
    let report = run("sender --rate 2k --count 1200 --imix --json").measured();
    assert_no_loss(&report, 1200);
    let expected = [(64, 700, 700), (590, 400, 400), (1514, 100, 100)];
    assert_eq!(sizes(&report), expected);
    let packets = &report["packets"];
    for field in ["lost_outbound", "lost_inbound", "lost_unattributed"] {
        assert_eq!(packets[field], 0, "{field}");
    }
    assert_eq!(report["timestamps"]["t1"], "kernel");
    assert_eq!(report["timestamps"]["t4"], "kernel");
}

#[test]
fn a_sender_without_remote_measures_the_family_that_is_asked_for() {
    if !has_ipv6() {
        return;
    }
    let report = run("sender -6 --rate 100 --count 3 --json").measured();
    assert_no_loss(&report, 3);
    let remote = report["remote"].as_str().unwrap();
    assert!(remote.starts_with("[::1]:"), "{remote}");
}

#[test]
fn a_reflector_of_another_process_tells_loss_by_direction() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -i 1ms -c 200 --json", reflector.address());
    let report = run(&line).measured();
    assert_no_loss(&report, 200);
    assert_eq!(report["packets"]["lost_outbound"], 0);
    assert_eq!(report["packets"]["lost_inbound"], 0);
    assert_eq!(report["remote"], reflector.address().to_string());
    assert_eq!(report["packets"]["probes"], 0);
    let summary = reflector.stop();
    assert_eq!(summary.count("received"), 200, "{}", summary.0);
    assert_eq!(summary.count("reflected"), summary.count("received"));
    assert_eq!(summary.count("sessions"), 1);
    assert_eq!(summary.count("invalid"), 0);
}

#[test]
fn a_stateless_reflector_tells_no_directions_of_what_was_lost() {
    let reflector = Reflector::start("127.0.0.1:0 --stateless");
    let line = format!("sender {} -i 1ms -c 100 --json", reflector.address());
    let report = run(&line).measured();
    assert_no_loss(&report, 100);
    for field in ["lost_outbound", "lost_inbound", "lost_unattributed"] {
        assert_eq!(report["packets"][field], 0, "{field}");
    }
    assert!(!has_note(&report, "stateless"), "{report:#}");
    let test = "127.0.0.1:0 --stateless --test-mode --drop-rate 50 --seed 3";
    let reflector = Reflector::start(test);
    let remote = reflector.address();
    let line = format!("sender {remote} -i 1ms -c 100 --packet-timeout 500ms --json");
    let report = run(&line).measured();
    for field in ["lost_outbound", "lost_inbound", "lost_unattributed"] {
        assert_eq!(report["packets"][field], Value::Null, "{field}");
    }
    assert!(has_note(&report, "stateless"), "{report:#}");
}

#[test]
fn a_probe_is_told_and_can_be_left_out() {
    // Its replies are lost, so that its counter tells nothing: it goes with ours.
    let lossy = || Reflector::start("127.0.0.1:0 --test-mode --drop-rate 30 --seed 5");
    for (flag, told) in [("", true), ("--no-probe", false)] {
        let reflector = lossy();
        let remote = reflector.address();
        let line = format!("sender {remote} -i 1ms -c 100 --packet-timeout 500ms --json {flag}");
        let report = run(&line).measured();
        let packets = &report["packets"];
        let lost = packets["lost"].as_u64().unwrap();
        assert!(lost > 0, "{packets:#}");
        let probes = packets["probes"].as_u64().unwrap();
        assert_eq!(probes > 0, told, "{packets:#}");
        let inbound = if told { Value::from(lost) } else { Value::Null };
        assert_eq!(packets["lost_inbound"], inbound, "{report:#}");
        assert_eq!(has_note(&report, "--no-probe"), !told, "{report:#}");
        let command = report["command"].as_array().unwrap();
        assert_eq!(command.contains(&"--no-probe".into()), !told);
        let received = reflector.stop().count("received");
        assert_eq!(received, 100 + probes);
    }
}

#[test]
fn imix_over_ipv6_starts_at_76_bytes_and_says_so() {
    if !has_ipv6() {
        return skip("no IPv6 on this host");
    }
    let reflector = Reflector::start("[::1]:0");
    let line = format!("sender {} --imix -i 1ms -c 120 --json", reflector.address());
    let report = run(&line).measured();
    assert_no_loss(&report, 120);
    assert_eq!(
        sizes(&report),
        [(76, 70, 70), (590, 40, 40), (1514, 10, 10)]
    );
    assert!(has_note(&report, "76 bytes"), "{report:#}");
}

#[test]
fn portable_io_stamps_in_user_space_and_knows_no_drops() {
    let reflector = Reflector::start("127.0.0.1:0 --io portable");
    let remote = reflector.address();
    let line = format!("sender {remote} --io portable -i 1ms -c 200 --json");
    let report = run(&line).measured();
    assert_no_loss(&report, 200);
    assert_eq!(report["timestamps"]["t1"], "userspace");
    assert_eq!(report["timestamps"]["t4"], "userspace");
    assert_eq!(report["host"]["io"], "portable");
    assert_eq!(report["host"]["kernel_drops"], Value::Null);
    let summary = reflector.stop();
    assert!(summary.0.contains("sockets not told"), "{}", summary.0);
}

#[test]
fn either_side_may_write_ptp_timestamps() {
    for (sender, reflector) in [("ptp", "ntp"), ("ntp", "ptp"), ("ptp", "ptp")] {
        let reflector = Reflector::start(&format!("127.0.0.1:0 --timestamp-format {reflector}"));
        let report = run(&format!(
            "sender {} -i 1ms -c 100 --timestamp-format {sender} --json",
            reflector.address()
        ))
        .measured();
        assert_no_loss(&report, 100);
        assert_eq!(report["packets"]["rejected_samples"], 0);
        for delay in ["roundtrip", "outbound", "inbound"] {
            let delay = &report["delay_ns"][delay];
            assert_eq!(delay["samples"], 100, "{delay:#}");
            // A format read as the other is off by years; the timeout bounds a true delay.
            for figure in ["min", "max"] {
                let ns = delay[figure].as_i64().unwrap();
                assert!(ns.abs() < 5_000_000_000, "{sender}: {ns}");
            }
        }
    }
}

#[test]
fn nothing_listening_is_exit_5_with_a_report() {
    let line = format!("sender {} -i 1ms -c 20 --packet-timeout 200ms", nobody());
    let text = run(&line);
    assert_eq!(text.code, 5, "{text:?}");
    assert!(text.stdout.contains("100 % loss"), "{text:?}");
    let complaint = text.complaint();
    assert!(
        complaint.contains("port unreachable") || complaint.contains("refused"),
        "{complaint}"
    );
    let json = run(&format!("{line} --json"));
    assert_eq!(json.code, 5, "{json:?}");
    let report = json.report();
    assert_eq!(report["packets"]["received"], 0);
    assert_eq!(report["packets"]["lost"], report["packets"]["sent"]);
    for delay in ["roundtrip", "outbound", "inbound", "reflector"] {
        assert_eq!(report["delay_ns"][delay], Value::Null, "{delay}");
    }
}

#[test]
fn what_came_too_late_or_was_no_reply_is_named_by_exit_5() {
    // Answers each request only when the next one comes.
    let mut before: Option<Vec<u8>> = None;
    let reflector = FakeReflector::start(move |request| {
        let reply = before.replace(short_reply(request, 0));
        reply.into_iter().collect()
    });
    let line = format!(
        "sender {} -i 100ms -c 3 --packet-timeout 50ms",
        reflector.address
    );
    let outcome = run(&line);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert!(
        outcome.complaint().contains("longer --packet-timeout"),
        "{outcome:?}"
    );

    let reflector = FakeReflector::start(|_| vec![b"this is no reply".to_vec()]);
    let line = format!(
        "sender {} -i 1ms -c 20 --packet-timeout 100ms",
        reflector.address
    );
    let outcome = run(&line);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let kind = "20 datagrams had fewer octets than a test packet has";
    assert!(outcome.complaint().ends_with(kind), "{outcome:?}");
}

#[test]
fn contradicting_timestamps_are_left_out_and_said() {
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let mut reply = short_reply(request, number);
        number += 1;
        // T3 five seconds before T2.
        let seconds = u32::from_be_bytes(reply[4..8].try_into().unwrap());
        reply[4..8].copy_from_slice(&(seconds - 5).to_be_bytes());
        vec![reply]
    });
    let line = format!("sender {} -i 1ms -c 20 --json", reflector.address);
    let report = run(&line).measured();
    assert_no_loss(&report, 20);
    assert_eq!(report["packets"]["rejected_samples"], 20);
    assert_eq!(report["delay_ns"]["roundtrip"], Value::Null);
    assert!(has_note(&report, "contradict"), "{report:#}");
}

#[test]
fn a_clock_of_its_own_is_not_taken_for_ours() {
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let mut reply = short_reply(request, number);
        number += 1;
        for field in [4..8, 16..20] {
            let seconds = u32::from_be_bytes(reply[field.clone()].try_into().unwrap());
            reply[field].copy_from_slice(&(seconds - 5).to_be_bytes());
        }
        vec![reply]
    });
    let line = format!("sender {} -i 1ms -c 20 --json", reflector.address);
    let report = run(&line).measured();
    assert_eq!(report["timestamps"]["clock"]["same_clock"], false);
    let outbound = report["delay_ns"]["outbound"]["min"].as_i64().unwrap();
    assert!(outbound < -4_000_000_000, "{outbound}");
}

#[test]
fn a_session_forgotten_between_its_packets_has_lost_nothing() {
    let reflector = Reflector::start("127.0.0.1:0 --session-timeout 1ms");
    let line = format!("sender {} -i 50ms -c 6 --json", reflector.address());
    let report = run(&line).measured();
    assert_no_loss(&report, 6);
    let packets = &report["packets"];
    for direction in ["lost_outbound", "lost_inbound", "lost_unattributed"] {
        assert_eq!(packets[direction], 0, "{packets:#}");
    }
    // Each reply has number 0: that says nothing of an order.
    for direction in ["reordered_outbound", "reordered_inbound"] {
        assert!(
            [json!(0), Value::Null].contains(&packets[direction]),
            "{packets:#}"
        );
    }
}

#[test]
fn an_interrupted_sender_waits_for_its_replies_and_reports() {
    let (tx, replies) = channel();
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let reply = short_reply(request, number);
        number += 1;
        let _ = tx.send(());
        vec![reply]
    });
    let line = format!("sender {} -i 10ms -c 100000 --json", reflector.address);
    let sender = Running::start(&mut words(Command::new(binary()), &line));
    for _ in 0..5 {
        replies.recv_timeout(LIMIT).expect("the sender sends");
    }
    sender.interrupt();
    let outcome = sender.finish();
    assert_eq!(outcome.code, 130, "{outcome:?}");
    let report = outcome.report();
    assert_eq!(report["interrupted"], true);
    let sent = report["packets"]["sent"].as_u64().unwrap();
    assert!((5..100_000).contains(&sent), "{sent}");
    assert_no_loss(&report, sent);
}

#[test]
fn ctrl_c_ends_the_wait_for_the_last_replies() {
    // Of ten packets the last four are answered by nobody, and may be for a long time.
    for (count, signals) in [(10, 1), (1_000_000, 2)] {
        let (tx, came) = channel();
        let reflector = FakeReflector::start(move |request| {
            let seq = u32::from_be_bytes(request[..4].try_into().unwrap());
            let _ = tx.send(seq);
            if seq < 6 {
                vec![short_reply(request, seq)]
            } else {
                Vec::new()
            }
        });
        let load = format!("-i 20ms -c {count} --packet-timeout 1h");
        let line = format!("sender {} {load} --json", reflector.address);
        let mut sender = Running::start(&mut words(Command::new(binary()), &line));
        while came.recv_timeout(LIMIT).expect("the sender sends") < 9 {}
        if signals == 2 {
            sender.interrupt();
            // It has stopped sending when it says so.
            let mut told = String::new();
            let stderr = sender.0.stderr.as_mut().unwrap();
            BufReader::new(stderr).read_line(&mut told).unwrap();
            assert!(told.contains("again ends any wait"), "{told}");
        }
        sender.interrupt();
        let outcome = sender.finish();
        assert_eq!(outcome.code, 130, "{outcome:?}");
        let report = outcome.report();
        assert_eq!(report["interrupted"], true);
        let packets = &report["packets"];
        let sent = packets["sent"].as_u64().unwrap();
        assert!(sent >= 10 && (signals == 2 || sent == 10), "{packets:#}");
        assert_eq!(packets["received"], 6);
        assert_eq!(packets["unresolved"], sent - 6, "{packets:#}");
        for field in ["lost", "lost_outbound", "lost_inbound", "lost_unattributed"] {
            assert_eq!(packets[field], 0, "{field}: {packets:#}");
        }
    }
}

#[test]
fn text_fits_79_columns_and_has_no_escape_codes() {
    let reflector = Reflector::start("127.0.0.1:0");
    let remote = reflector.address();
    for load in [
        "-i 1ms -c 50",
        "-i 1ms -c 120 --imix",
        "-c 500 --schedule flood --seed 18446744073709551615",
        "-i 1ms -c 50 --size-mix 64:1,100:1,200:1,300:1,400:1,500:1,65549:1 --dscp ef",
        "-i 1ms -c 50 --io portable --timestamp-format ptp",
        "-i 1ms -c 5 --cpu 0",
    ] {
        let outcome = run(&format!("sender {remote} {load}"));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert_fits_a_terminal(&outcome);
    }
    let text = run(&format!(
        "sender {} -i 1ms -c 5 --packet-timeout 200ms",
        nobody()
    ));
    assert_fits_a_terminal(&text);
}

#[test]
fn replies_are_of_the_request_s_size_but_never_below_41_octets() {
    let reflector = Reflector::start("127.0.0.1:0");
    let remote = reflector.address();
    for (size, payload, reply) in [
        ("--payload-size 8972", 8972, 8972),
        ("--payload-size 65507", 65_507, 65_507),
        ("--padding 65493", 65_507, 65_507),
        ("--padding 0", 14, 41),
        ("--padding 27", 41, 41),
        ("--padding 28", 42, 42),
    ] {
        let report = run(&format!("sender {remote} {size} -i 2ms -c 50 --json")).measured();
        assert_no_loss(&report, 50);
        let sizes = &report["load"]["sizes"];
        assert_eq!(sizes[0]["payload_bytes"], payload, "{size}");
        assert_eq!(report["path"]["reply_bytes"], json!([reply]), "{size}");
    }
}

#[test]
fn every_schedule_runs_from_a_seed() {
    let reflector = Reflector::start("127.0.0.1:0");
    let remote = reflector.address();
    for (schedule, load) in [
        ("periodic", "--rate 2k -c 300"),
        ("poisson", "--rate 2k -c 300"),
        ("uniform", "--rate 2k -c 300 --spread 20%"),
        ("flood", "-c 300"),
    ] {
        let line = format!("sender {remote} --schedule {schedule} {load} --seed 7 --imix --json");
        let report = run(&line).measured();
        assert_no_loss(&report, 300);
        let again = run(&line).measured();
        assert_eq!(
            sizes(&again),
            sizes(&report),
            "the same seed, the same load"
        );
        assert_eq!(report["load"]["schedule"], schedule);
        assert_eq!(report["load"]["seed"], 7);
        let offered = &report["load"]["offered_pps"];
        assert_eq!(offered.is_null(), schedule == "flood", "{offered}");
    }
}

#[test]
fn two_senders_share_a_reflector_of_two_threads() {
    let reflector = Reflector::start("127.0.0.1:0 --threads 2");
    let line = format!("sender {} -i 1ms -c 300 --json", reflector.address());
    let senders = [(); 2].map(|()| Running::start(&mut words(Command::new(binary()), &line)));
    for sender in senders {
        let report = sender.finish().measured();
        assert_no_loss(&report, 300);
        assert_eq!(report["packets"]["lost_outbound"], 0);
    }
    let summary = reflector.stop();
    assert_eq!(summary.count("sessions"), 2, "{}", summary.0);
    assert!(summary.count("reflected") >= 600, "{}", summary.0);
}
