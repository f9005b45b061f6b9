//! `sender --find-rate` over loopback; rates that a path limits are in `namespaces.rs`.
//!
//! Needs a quiet machine: a rate is found by sending at it, and a machine that does not come to that finds a
//! lower one.

#![allow(clippy::disallowed_methods, reason = "a test has a limit of time")]

mod common;

use std::collections::{HashMap, HashSet};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{FakeReflector, LIMIT, Reflector, Running, binary, run, short_reply, words};

#[test]
fn each_size_has_a_line_of_json() {
    let line = "sender --find-rate --max-rate 500 --loss 10% --duration 200ms --json";
    let outcome = run(&format!("{line} --sizes 128,imix,9014"));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let found = outcome.found_rates();
    let sizes: Vec<&str> = found.iter().map(|f| f["size"].as_str().unwrap()).collect();
    assert_eq!(sizes, ["128", "imix", "9014"]);
    // One says that the reflector is inside this process, and one how long it will take.
    let mut lines = 2;
    for found in &found {
        assert_eq!(found["rate_pps"], 500, "{found:#}");
        assert_eq!(found["limited_by"], "max-rate", "{found:#}");
        assert_eq!(found["stable"], true, "{found:#}");
        assert!(found["remote"].is_null(), "{found:#}");
        let offered = |at: usize| found["loads"][at]["trial"]["offered_pps"].as_u64();
        assert_eq!([0, 1, 2].map(offered), [Some(250), Some(450), Some(500)]);
        let trials = found["trials"].as_array().unwrap().len();
        assert!(trials >= 3, "{found:#}");
        // Lines for the two other loads.
        let loads = found["loads"].as_array().unwrap()[..2].iter();
        let tried =
            |load: &Value| load["held"].as_u64().unwrap() + load["failed"].as_u64().unwrap();
        lines += trials + usize::try_from(loads.map(tried).sum::<u64>()).unwrap();
        assert!(
            found["warm_up"]["received"].as_u64().unwrap() > 0,
            "{found:#}"
        );
        let samples = &found["loads"][2]["roundtrip_ns"]["samples"];
        assert!((90..=100).contains(&samples.as_u64().unwrap()), "{found:#}");
    }
    assert_eq!(outcome.stderr.lines().count(), lines, "{outcome:?}");
    let told = "some 5 trials of 200 ms for each of 3 sizes: about";
    assert!(outcome.stderr.contains(told), "{outcome:?}");
}

/// A path that is gone for the first 0.6 s, as the one behind a link that comes up.
#[test]
fn an_outage_at_the_start_bounds_nothing() {
    let (mut first, mut replies) = (None, 0);
    let reflector = FakeReflector::start(move |request| {
        let since: &mut Instant = first.get_or_insert_with(Instant::now);
        if since.elapsed() < Duration::from_millis(600) {
            return vec![];
        }
        replies += 1;
        vec![short_reply(request, replies)]
    });
    let line = format!("sender {} -q --find-rate --json", reflector.address);
    let outcome = run(&format!(
        "{line} --sizes 83 --max-rate 2k --duration 200ms --packet-timeout 200ms --loss 30%"
    ));
    let found = &outcome.found_rates()[0];
    assert_eq!(found["rate_pps"], 2_000, "{found:#}");
    assert_eq!(found["limited_by"], "max-rate", "{found:#}");
    assert!(found["upper"].is_null(), "{found:#}");
    assert!(found["warm_up"]["runs"].as_u64().unwrap() >= 2, "{found:#}");
}

#[test]
fn an_outage_of_one_trial_bounds_nothing() {
    let mut requests = 0;
    let reflector = FakeReflector::start(move |request| {
        requests += 1;
        // Those after ten slow packets: the first trial.
        match requests {
            11..=110 => vec![],
            _ => vec![short_reply(request, requests)],
        }
    });
    let line = format!("sender {} -q --find-rate --json", reflector.address);
    let outcome = run(&format!(
        "{line} --sizes 83 --max-rate 2k --duration 100ms --packet-timeout 200ms --loss 30%"
    ));
    let found = &outcome.found_rates()[0];
    assert_eq!(found["trials"][0]["outcome"], "nothing", "{found:#}");
    assert_eq!(found["trials"][1]["offered_pps"], 1_000, "{found:#}");
    assert_eq!(found["rate_pps"], 2_000, "{found:#}");
    assert_eq!(found["limited_by"], "max-rate", "{found:#}");
    // Two trials at the slower rate disagree.
    assert_eq!(found["standing"], "not-repeatable", "{found:#}");
    assert_eq!(found["stable"], false, "{found:#}");
    let notes = found["notes"].to_string();
    assert!(notes.contains("1000/s, which is slower, did not hold in 1 of 3 trials"));
}

#[test]
fn trials_at_one_rate_that_disagree_are_not_repeatable() {
    let mut requests = 0;
    let reflector = FakeReflector::start(move |request| {
        requests += 1;
        // Of the second trial, the first of those that confirm.
        match requests {
            121..=180 => vec![],
            _ => vec![short_reply(request, requests)],
        }
    });
    let line = format!("sender {} --find-rate", reflector.address);
    let line = format!("{line} --sizes 83 --max-rate 1k --duration 100ms --packet-timeout 200ms");
    let outcome = run(&format!("{line} --loss 30% -q --json"));
    let found = &outcome.found_rates()[0];
    assert_eq!(found["rate_pps"], 1_000, "{found:#}");
    assert_eq!(found["standing"], "not-repeatable", "{found:#}");
    assert_eq!(found["stable"], false, "{found:#}");
    assert!(found["lower"]["failed"].as_u64().unwrap() >= 1, "{found:#}");
    assert!(found["lower"]["held"].as_u64().unwrap() >= 3, "{found:#}");
}

#[test]
fn a_rate_above_a_slower_one_that_fails_is_not_stable() {
    let (mut sessions, mut ports) = (0, HashSet::new());
    let mut replies = 0;
    let reflector = FakeReflector::start_with_peer(move |request, from| {
        if ports.insert(from.port()) {
            sessions += 1;
        }
        replies += 1;
        // Slow packets and three trials; then the two at 50 %, with slow packets between.
        match sessions {
            5 | 7 if replies % 10 > 3 => vec![],
            _ => vec![short_reply(request, replies)],
        }
    });
    let line = format!("sender {} -q --find-rate", reflector.address);
    let outcome = run(&format!(
        "{line} --sizes 83 --max-rate 1k --duration 100ms --packet-timeout 200ms --loss 30%"
    ));
    let mut rows = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("83 "));
    let row = rows.find(|row| row.contains(" of ")).unwrap_or_default();
    assert!(row.ends_with("not stable"), "{outcome:?}");
    assert!(outcome.stdout.contains("1,000*"), "{outcome:?}");
}

#[test]
fn a_limit_that_lets_so_much_through_is_named() {
    let mut let_through = HashMap::new();
    let reflector = FakeReflector::start_with_peer(move |request, from| {
        let number: &mut u32 = let_through.entry(from.port()).or_insert(0);
        *number += 1;
        match *number {
            ..=60 => vec![short_reply(request, *number)],
            _ => vec![],
        }
    });
    let line = format!("sender {} -q --find-rate --json", reflector.address);
    let outcome = run(&format!(
        "{line} --sizes 83 --max-rate 2k --duration 100ms --packet-timeout 200ms"
    ));
    let found = &outcome.found_rates()[0];
    let pps = found["rate_pps"].as_u64().unwrap();
    // A busy host finds less.
    assert!((1..=600).contains(&pps), "{found:#}");
    assert_eq!(found["limited_by"], "path", "{found:#}");
    if pps < 560 {
        return;
    }
    let ceiling = &found["ceiling"];
    let received = ceiling["received_pps"].as_f64().unwrap();
    assert!((560.0..=640.0).contains(&received), "{found:#}");
    assert!(ceiling["trials"].as_u64().unwrap() >= 2, "{found:#}");
}

#[test]
fn a_result_says_how_to_get_it_again() {
    let reflector = Reflector::start("127.0.0.1:0");
    let remote = reflector.address().to_string();
    let line = "--max-rate 200 --loss 0.5% --duration 100ms --packet-timeout 1s --sizes";
    for (remote, sizes) in [(remote.as_str(), "128,imix"), ("", "1514")] {
        let outcome = run(&format!(
            "sender {remote} -q --find-rate {line} {sizes} --json"
        ));
        let found = outcome.found_rates();
        assert_eq!(found.len(), sizes.split(',').count(), "{outcome:?}");
        for found in found {
            let words = found["command"].as_array().unwrap().iter();
            let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
            let again = run(&format!("{} -q --json", words.join(" ")));
            let again = &again.found_rates()[0];
            for field in [
                "command",
                "frames",
                "trial_ns",
                "loss_bound",
                "max_rate_pps",
            ] {
                assert_eq!(again[field], found[field], "{field}");
            }
            assert_eq!(again["remote"], found["remote"]);
            assert_eq!(again["timeout_ns"], 1_000_000_000, "{words:?}");
        }
    }
}

#[test]
fn without_json_there_are_tables_and_with_q_nothing_else() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -q --find-rate", reflector.address());
    let outcome = run(&format!(
        "{line} --max-rate 200 --loss 10% --duration 100ms --imix --schedule poisson"
    ));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.is_empty(), "{outcome:?}");
    let rows = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("imix"));
    assert_eq!(rows.count(), 3, "{outcome:?}");
}

#[test]
fn a_search_that_a_host_refuses_is_not_put_down_to_a_firewall() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    let remote = closed.local_addr().unwrap();
    drop(closed);
    // Waiting once would take longer than any program may run here.
    let line = format!("sender {remote} -q --find-rate --packet-timeout 70s --json");
    let outcome = run(&format!("{line} --sizes 83,128,imix"));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let complaint = outcome.complaint();
    assert!(complaint.contains("ICMP port unreachable"), "{outcome:?}");
    let found = outcome.found_rates();
    assert_eq!(found.len(), 3, "{outcome:?}");
    assert_eq!(found[0]["refused"]["kind"], "port_unreachable");
    assert_eq!(found[0]["warm_up"]["runs"], 1, "{outcome:?}");
    for found in &found[1..] {
        assert_eq!(found["warm_up"]["sent"], 0, "{found:#}");
        assert!(found["notes"].to_string().contains("no packet was sent"));
    }
}

/// The first size is waited for; all others are asked in one session.
#[test]
fn a_reflector_that_answers_no_size_is_not_waited_for_with_each() {
    let mut asked = HashMap::new();
    let (tx, rx) = channel();
    let silent = FakeReflector::start_with_peer(move |request, from| {
        let lengths: &mut HashSet<usize> = asked.entry(from.port()).or_default();
        if lengths.insert(request.len()) {
            tx.send((from.port(), request.len())).unwrap();
        }
        vec![]
    });
    let line = format!("sender {} -q --find-rate --json", silent.address);
    let outcome = run(&format!(
        "{line} --sizes 83,128,256,512,1024 --packet-timeout 6s"
    ));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert_eq!(outcome.found_rates().len(), 5, "{outcome:?}");
    let asked: Vec<(u16, usize)> = rx.try_iter().collect();
    let sessions: HashSet<u16> = asked.iter().map(|(port, _)| *port).collect();
    assert_eq!(sessions.len(), 2, "{asked:?}");
    assert_eq!(asked.len(), 5, "{asked:?}");
}

#[test]
fn a_size_that_alone_is_answered_is_searched() {
    let mut replies = 0;
    let reflector = FakeReflector::start(move |request| {
        if request.len() > 200 {
            return vec![];
        }
        replies += 1;
        vec![short_reply(request, replies)]
    });
    let line = format!("sender {} -q --find-rate --json", reflector.address);
    let outcome = run(&format!(
        "{line} --sizes 512,256,83 --max-rate 200 --loss 50% --duration 100ms --packet-timeout 3s"
    ));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let found = outcome.found_rates();
    assert!(found[0]["rate_pps"].is_null(), "{outcome:?}");
    assert!(found[1]["rate_pps"].is_null(), "{outcome:?}");
    assert_eq!(found[2]["rate_pps"], 200, "{outcome:?}");
}

#[test]
fn a_bound_of_loss_that_bounds_nothing_is_refused() {
    for (loss, word) in [
        ("100%", "every rate would hold"),
        ("100", "every rate would hold"),
        ("101%", "above 100"),
        ("-1%", "no percentage"),
        ("NaN", "no percentage"),
    ] {
        for command in ["sender 192.0.2.1", "controller 192.0.2.1"] {
            let outcome = run(&format!("{command} --find-rate --loss {loss}"));
            assert_eq!(outcome.code, 2, "{outcome:?}");
            assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
            assert!(outcome.complaint().contains(word), "{outcome:?}");
        }
    }
}

#[test]
fn a_search_that_nobody_answers_is_exit_5() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let line = format!(
        "sender {} -q --find-rate --json",
        silent.local_addr().unwrap()
    );
    let outcome = run(&format!(
        "{line} --sizes 83,128 --duration 100ms --packet-timeout 100ms"
    ));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert!(
        outcome.complaint().contains("nothing came back"),
        "{outcome:?}"
    );
    for found in outcome.found_rates() {
        assert!(found["rate_pps"].is_null(), "{found:#}");
        assert!(found["limited_by"].is_null(), "{found:#}");
        assert_eq!(found["trials"].as_array().unwrap().len(), 0, "{found:#}");
        assert_eq!(found["warm_up"]["received"], 0, "{found:#}");
    }
}

#[test]
fn an_interrupted_search_shows_what_held_until_then() {
    let (tx, rx) = channel();
    let mut requests = 0;
    let reflector = FakeReflector::start(move |request| {
        requests += 1;
        if requests == 320 {
            tx.send(()).unwrap();
        }
        vec![short_reply(request, requests - 1)]
    });
    // 10 slow requests, 100 in the first trial, 200 in the second.
    let line = format!("sender {} -q --find-rate --json", reflector.address);
    let line = format!("{line} --sizes 83,128 --duration 100ms --packet-timeout 200ms --loss 90%");
    let sender = Running::start(&mut words(Command::new(binary()), &line));
    rx.recv_timeout(LIMIT).expect("three trials begin");
    sender.interrupt();
    let outcome = sender.finish();
    assert_eq!(outcome.code, 130, "{outcome:?}");
    let found = outcome.found_rates();
    let [found] = found.as_slice() else {
        panic!("{outcome:?}");
    };
    assert_eq!(found["interrupted"], true, "{found:#}");
    assert_eq!(found["stable"], false, "{found:#}");
    assert!(found["rate_pps"].as_u64().unwrap() >= 1_000, "{found:#}");
    assert!(!found["trials"].as_array().unwrap().is_empty(), "{found:#}");
}

#[test]
fn a_trial_that_lost_too_much_does_not_wait_for_its_timeout() {
    let (mut replies, mut before) = (0, 0);
    let reflector = FakeReflector::start(move |request| {
        // Every other packet of a session is lost; a probe has the number of the last one.
        let number = request[3];
        let probe = std::mem::replace(&mut before, number) == number;
        if number % 2 == 1 && !probe {
            return vec![];
        }
        replies += 1;
        vec![short_reply(request, replies)]
    });
    let line = format!("sender {} -q --find-rate --json", reflector.address);
    // Waiting once would take longer than any program may run here.
    let outcome = run(&format!(
        "{line} --sizes 83 --max-rate 40 --duration 100ms --packet-timeout 70s"
    ));
    let found = &outcome.found_rates()[0];
    // One packet, the first, is sent in a trial at this rate.
    assert_eq!(found["rate_pps"], 10, "{found:#}");
    assert_eq!(found["limited_by"], "path", "{found:#}");
    let lost = found["trials"][0]["lost"].as_u64();
    assert_eq!(lost, Some(2), "{found:#}");
}
