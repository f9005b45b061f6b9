//! A load that several pairs of threads share: one report, exactly the sum of theirs.

mod common;

use std::collections::BTreeSet;
use std::net::UdpSocket;

use common::{FakeReflector, Reflector, assert_no_loss, run, short_reply};
use serde_json::{Value, json};

/// The reports of each thread, and last the combined one.
fn reports(line: &str) -> (Vec<Value>, Value) {
    let outcome = run(&format!("{line} --json"));
    assert_eq!(outcome.code, 0, "{line}: {outcome:?}");
    let lines = outcome.stdout.lines();
    let mut all: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["schema"] == "twamp-blast/report/1")
        .collect();
    let combined = all.pop().unwrap();
    (all, combined)
}

fn sum(threads: &[Value], pointer: &str) -> u64 {
    let of = |thread: &Value| thread.pointer(pointer).unwrap().as_u64().unwrap();
    threads.iter().map(of).sum()
}

#[test]
fn the_combined_report_is_the_sum_of_the_threads() {
    let reflector = Reflector::start("127.0.0.1:0 --threads 2");
    let remote = reflector.address();
    for (line, packets) in [
        ("-c 1000 --rate 5k", 1000),
        ("-c 1001 --rate 5k --imix", 1001),
        ("--duration 300ms --rate 10k --burst 16", 3000),
        ("-c 900 --rate 5k --schedule poisson", 900),
        ("-c 900 --rate 5k --io portable", 900),
        ("-c 2000 --schedule flood", 2000),
    ] {
        let (threads, combined) = reports(&format!("sender {remote} --threads 3 {line}"));
        assert_eq!(threads.len(), 3, "{line}");
        assert_eq!(combined["scope"], "combined");
        assert!(combined["local"].is_null(), "{line}");
        assert_no_loss(&combined, packets);
        for thread in &threads {
            assert_eq!(thread["scope"], "thread");
            assert!(thread["host"]["cpu"]["user_seconds"].is_null());
        }
        for pointer in [
            "/packets/sent",
            "/packets/received",
            "/packets/lost_outbound",
            "/packets/duplicates",
            "/load/sizes/0/packets",
            "/delay_ns/inbound/samples",
            "/delay_ns/roundtrip/samples",
        ] {
            let all = combined.pointer(pointer).unwrap().as_u64().unwrap();
            assert_eq!(all, sum(&threads, pointer), "{line} {pointer}");
        }
        let extreme = |name: &str, of: fn(i64, i64) -> i64| {
            let values = threads
                .iter()
                .map(|t| t["delay_ns"]["roundtrip"][name].as_i64().unwrap());
            values.reduce(of).unwrap()
        };
        let roundtrip = &combined["delay_ns"]["roundtrip"];
        assert_eq!(roundtrip["min"], json!(extreme("min", i64::min)), "{line}");
        assert_eq!(roundtrip["max"], json!(extreme("max", i64::max)), "{line}");
        assert!(roundtrip["jitter"].is_null(), "{line}");
        let jitter = &threads[0]["delay_ns"]["roundtrip"]["jitter"];
        // Packets that share their timestamps have none.
        assert!(
            jitter.is_number() || line.contains("burst") || line.contains("flood"),
            "{line}"
        );
        let bins = |report: &Value| -> u64 {
            let bins = report["delay_ns"]["roundtrip"]["bins"].as_array().unwrap();
            bins.iter().map(|bin| bin["count"].as_u64().unwrap()).sum()
        };
        assert_eq!(bins(&combined), threads.iter().map(bins).sum::<u64>());
        let local = |thread: &Value| thread["local"].as_str().unwrap().to_owned();
        let ports: BTreeSet<String> = threads.iter().map(local).collect();
        assert_eq!(ports.len(), 3, "{line}: {ports:?}");
    }
    // Each flow is one session of the reflector's.
    let account = reflector.stop();
    assert_eq!(account.count("sessions"), 6 * 3, "{}", account.0);
}

#[test]
fn a_given_port_is_the_first_one() {
    let reflector = Reflector::start("127.0.0.1:0");
    // Three ports in a row that are free at this moment.
    let free = (30_000..60_000_u16).step_by(7).find(|port| {
        let three: Result<Vec<UdpSocket>, _> = (*port..port + 3)
            .map(|port| UdpSocket::bind(("127.0.0.1", port)))
            .collect();
        three.is_ok()
    });
    let port = free.unwrap();
    let line = format!(
        "sender {} :{port} --threads 3 -c 30 -i 1ms",
        reflector.address()
    );
    let (threads, combined) = reports(&line);
    for (thread, port) in threads.iter().zip(port..) {
        assert_eq!(thread["local"], json!(format!("127.0.0.1:{port}")));
    }
    let command: Vec<&str> = combined["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert!(
        command.windows(2).any(|pair| pair == ["--threads", "3"]),
        "{command:?}"
    );
    assert!(
        command.contains(&format!("127.0.0.1:{port}").as_str()),
        "{command:?}"
    );
}

#[test]
fn loss_of_one_flow_is_that_flow_s() {
    // Answers no packet whose sequence number is 3: each flow loses one.
    let reflector = FakeReflector::start(|request| {
        let number = u32::from_be_bytes(request[..4].try_into().unwrap());
        let mut replies = Vec::new();
        if number != 3 {
            replies.push(short_reply(request, number));
        }
        replies
    });
    let (threads, combined) = reports(&format!(
        "sender {} --threads 2 -c 40 -i 1ms --packet-timeout 300ms",
        reflector.address
    ));
    assert_eq!(sum(&threads, "/packets/lost"), 2);
    assert_eq!(combined["packets"]["lost"], 2);
    assert_eq!(combined["packets"]["loss_bursts"]["count"], 2);
    assert_eq!(combined["packets"]["loss_bursts"]["longest"], 1);
}

#[test]
fn a_flow_that_gets_nothing_back_is_named() {
    let mut first = None;
    let reflector = FakeReflector::start_with_peer(move |request, peer| {
        let number = u32::from_be_bytes(request[..4].try_into().unwrap());
        if peer == *first.get_or_insert(peer) {
            return Vec::new();
        }
        vec![short_reply(request, number)]
    });
    let (threads, combined) = reports(&format!(
        "sender {} --threads 2 -c 20 -i 1ms --packet-timeout 300ms",
        reflector.address
    ));
    let silent: Vec<&Value> = threads
        .iter()
        .filter(|thread| thread["packets"]["received"] == 0)
        .collect();
    assert_eq!(silent.len(), 1);
    let port = silent[0]["local"].as_str().unwrap().rsplit(':').next();
    let note = format!("nothing came back to the ports {}", port.unwrap());
    let notes = combined["notes"].as_array().unwrap();
    assert!(notes.iter().any(|found| *found == json!(note)), "{notes:?}");
    assert_eq!(combined["packets"]["lost"], 10);
    assert!(combined["delay_ns"]["roundtrip"]["jitter"].is_null());
}

#[test]
fn no_more_threads_than_packets() {
    let (threads, report) = reports("sender --threads 8 -c 1");
    assert_eq!((threads.len(), &report["scope"]), (0, &json!("session")));
    let (threads, combined) = reports("sender --threads 8 -c 3 -i 1ms");
    assert_eq!(threads.len(), 3);
    assert_no_loss(&combined, 3);
}

#[test]
fn intervals_are_of_all_threads() {
    let reflector = Reflector::start("127.0.0.1:0");
    let outcome = run(&format!(
        "sender {} --threads 2 --rate 2k --duration 1s --stats-interval 200ms --json",
        reflector.address()
    ));
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_intervals: Vec<&Value> = lines
        .iter()
        .filter(|line| line["schema"] == "twamp-blast/interval/1")
        .collect();
    assert!(of_intervals.len() >= 4);
    let total = |name: &str| -> u64 {
        let of = |line: &&Value| line["interval"]["packets"][name].as_u64().unwrap();
        of_intervals.iter().map(of).sum()
    };
    assert_eq!((total("sent"), total("received")), (2000, 2000));
    let numbers: Vec<u64> = of_intervals
        .iter()
        .map(|line| line["number"].as_u64().unwrap())
        .collect();
    let expected: Vec<u64> = (1..=u64::try_from(numbers.len()).unwrap()).collect();
    assert_eq!(numbers, expected);
    let last = of_intervals.last().unwrap();
    assert_eq!(last["session"]["packets"]["received"], 2000);
    assert_eq!(last["session"]["delay_ns"]["inbound"]["samples"], 2000);
    let samples: u64 = of_intervals
        .iter()
        .filter_map(|line| line["interval"]["delay_ns"]["inbound"]["samples"].as_u64())
        .sum();
    assert_eq!(samples, 2000);
}

#[test]
fn threads_are_shown_apart_where_that_is_asked_for() {
    let quiet = run("sender --threads 2 -c 4 -i 1ms");
    assert!(!quiet.stdout.contains("--- thread"), "{quiet:?}");
    let verbose = run("sender --threads 2 -c 4 -i 1ms -v");
    for part in ["--- thread 1 of 2, from 127.0.0.1:", "--- all threads ---"] {
        assert!(verbose.stdout.contains(part), "{part}: {verbose:?}");
    }
    assert!(
        verbose.stderr.contains("thread 2: Reply from"),
        "{verbose:?}"
    );
}

#[test]
fn wrong_numbers_are_one_line_and_exit_code_2() {
    for line in [
        "sender 127.0.0.1 --threads 0",
        "sender 127.0.0.1 --threads 65",
        "sender 127.0.0.1 --threads x",
        "sender 127.0.0.1 :65530 --threads 7",
    ] {
        let outcome = run(line);
        assert_eq!(outcome.code, 2, "{line}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{line}: {outcome:?}");
        assert!(outcome.stderr.contains("--threads"), "{outcome:?}");
    }
}
