//! What is told while a session runs.

mod common;

use std::process::Command;

use common::{FakeReflector, Outcome, Reflector, assert_no_loss, binary, run, short_reply, words};
use serde_json::Value;

/// Answers in order, but: 2 is lost, 3 comes after 4, 5 comes twice.
fn mischief() -> FakeReflector {
    let mut number = 0;
    let mut held = None;
    FakeReflector::start(move |request| {
        let seq = u32::from_be_bytes(request[..4].try_into().unwrap());
        let mut next = |request: &[u8]| {
            let reply = short_reply(request, number);
            number += 1;
            reply
        };
        match seq {
            // The sequence number that is sent again at the end comes through.
            2 => vec![],
            3 => {
                held = Some(next(request));
                vec![]
            }
            4 => [Some(next(request)), held.take()]
                .into_iter()
                .flatten()
                .collect(),
            5 => {
                let reply = next(request);
                vec![reply.clone(), reply]
            }
            _ => vec![next(request)],
        }
    })
}

fn position(outcome: &Outcome, part: &str) -> usize {
    let mut lines = outcome.stdout.lines();
    let found = lines.position(|line| line.starts_with(part));
    found.unwrap_or_else(|| panic!("no line {part}: {}", outcome.stdout))
}

#[test]
fn a_line_for_everything_that_happens_in_its_order() {
    let reflector = mischief();
    let line = format!(
        "sender {} -i 20ms -c 8 --packet-timeout 100ms --print-responses",
        reflector.address
    );
    let outcome = run(&line);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let order = [
        "Reply from 127.0.0.1 [seq=1] RTT=",
        "Gap detected: packets [2-3] missing in ",
        "Reply from 127.0.0.1 [seq=4] RTT=",
        "Out-of-order: packet [seq=3] arrived late",
        "Reply from 127.0.0.1 [seq=3] RTT=",
        "Reply from 127.0.0.1 [seq=5] RTT=",
        "Duplicate: packet [seq=5] already received",
        "Reply from 127.0.0.1 [seq=6] RTT=",
        "Reply from 127.0.0.1 [seq=7] RTT=",
        "twamp-blast ",
        "====",
    ];
    let places: Vec<usize> = order.iter().map(|part| position(&outcome, part)).collect();
    assert!(places.is_sorted(), "{places:?}: {}", outcome.stdout);
    position(&outcome, "Timeout: packet [2]");
    assert_eq!(outcome.stdout.matches("Timeout:").count(), 1);
    assert_eq!(outcome.stdout.matches("Reply from").count(), 7);
    let reply = outcome.stdout.lines().next().unwrap();
    assert!(
        reply.contains(" Outbound=") && reply.contains(" Inbound="),
        "{reply}"
    );
}

/// A gap says how long it was: from the departure of packet 1 to that of packet 4.
#[test]
fn lines_can_have_times_and_gaps_have_a_length() {
    let reflector = mischief();
    let line = format!(
        "sender {} -i 20ms -c 8 --packet-timeout 100ms --print-responses --timestamps",
        reflector.address
    );
    let outcome = run(&line);
    let (live, report) = outcome.stdout.split_once("\ntwamp-blast ").unwrap();
    for line in live.lines() {
        let (time, what) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
        assert_eq!(time.len(), "2026-01-02T03:04:05.678901Z".len(), "{line}");
        assert!(what.contains("acket") || what.contains("[seq="), "{line}");
    }
    let gap = live.lines().find(|line| line.contains("[2-3]")).unwrap();
    let (_, lasted) = gap.split_once("missing in ").unwrap();
    let ms: f64 = lasted.split_once("ms ").unwrap().0.parse().unwrap();
    assert!(ms >= 40.0, "{gap}");
    let heading: String = report.lines().take(2).collect();
    let parts = [
        reflector.address.to_string(),
        " UTC,".to_owned(),
        "TWAMP Light, unauthenticated".to_owned(),
    ];
    for part in parts {
        assert!(heading.contains(&part), "{heading}");
    }
    assert!(report.contains("(longest 1, about 0.0"), "{report}");
}

#[test]
fn icmp_is_told_as_it_comes() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let line =
        format!("sender 127.0.0.1:{port} -i 10ms -c 3 --packet-timeout 100ms --print-responses");
    let outcome = run(&line);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let told = "ICMP: port unreachable came once, from 127.0.0.1";
    assert!(outcome.stdout.contains(told), "{outcome:?}");
}

fn validator(schema: &str) -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
}

/// The intervals and the report of `--json --stats-interval`.
fn intervals(outcome: &Outcome) -> (Vec<Value>, Value) {
    let parse = |line: &str| serde_json::from_str(line).unwrap();
    let mut lines: Vec<Value> = outcome.stdout.lines().map(parse).collect();
    let report = lines.pop().unwrap();
    let interval = validator(include_str!("interval.schema.json"));
    for line in &lines {
        interval
            .validate(line)
            .unwrap_or_else(|e| panic!("{e}: {line:#}"));
    }
    let whole = validator(include_str!("report.schema.json"));
    whole.validate(&report).unwrap_or_else(|e| panic!("{e}"));
    (lines, report)
}

fn sum(lines: &[Value], field: &str) -> u64 {
    let values = lines
        .iter()
        .map(|line| line["interval"]["packets"][field].as_u64().unwrap());
    values.sum()
}

#[test]
fn intervals_add_up_to_the_session() {
    let reflector = mischief();
    let line = format!(
        "sender {} -i 20ms -c 30 --packet-timeout 150ms --stats-interval 100ms --json",
        reflector.address
    );
    let (lines, report) = intervals(&run(&line));
    assert!(lines.len() >= 3, "{lines:?}");
    for field in [
        "sent",
        "received",
        "lost",
        "duplicates",
        "reordered",
        "late",
    ] {
        assert_eq!(report["packets"][field], sum(&lines, field), "{field}");
        let last = &lines.last().unwrap()["session"]["packets"][field];
        assert_eq!(*last, report["packets"][field], "{field}");
    }
    assert_eq!(sum(&lines, "lost"), 1);
    for line in &lines {
        let packets = &line["session"]["packets"];
        let count = |field: &str| packets[field].as_u64().unwrap();
        let in_flight = line["in_flight"].as_u64().unwrap();
        assert_eq!(
            count("sent"),
            count("received") + count("lost") + in_flight,
            "{line:#}"
        );
    }
    assert_eq!(lines.last().unwrap()["in_flight"], 0);
    let samples = |line: &Value| line["interval"]["delay_ns"]["roundtrip"]["samples"].as_u64();
    let samples: u64 = lines.iter().filter_map(samples).sum();
    assert_eq!(samples, 29);
}

#[test]
fn loss_in_an_interval_has_a_direction() {
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let seq = u32::from_be_bytes(request[..4].try_into().unwrap());
        // Every tenth is lost outbound, and the one after it inbound.
        if seq % 10 == 4 {
            return vec![];
        }
        let reply = short_reply(request, number);
        number += 1;
        if seq % 10 == 5 { vec![] } else { vec![reply] }
    });
    let line = format!(
        "sender {} -i 2ms -c 300 --packet-timeout 100ms --stats-interval 200ms --json",
        reflector.address
    );
    let (lines, report) = intervals(&run(&line));
    assert_eq!(report["packets"]["lost_outbound"], 30);
    assert_eq!(report["packets"]["lost_inbound"], 30);
    let last = &lines.last().unwrap()["session"]["packets"];
    assert_eq!(last["lost"], 60);
    for direction in ["lost_outbound", "lost_inbound"] {
        assert!(last[direction].as_u64().unwrap() >= 28, "{last:#}");
    }
}

#[test]
fn blocks_of_text_fit_a_terminal() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!(
        "sender {} -i 2ms -c 300 --stats-interval 200ms",
        reflector.address()
    );
    let outcome = run(&line);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(
        outcome
            .stdout
            .lines()
            .all(|line| line.chars().count() <= 79),
        "{}",
        outcome.stdout
    );
    let head = outcome.stdout.lines().next().unwrap();
    assert!(head.starts_with("--- Current Statistics at 20"), "{head}");
    assert!(
        head.contains(" (received: ") && head.ends_with(") ---"),
        "{head}"
    );
    assert!(outcome.stdout.contains("in flight"), "{}", outcome.stdout);
}

#[test]
fn what_is_too_fast_to_be_read_is_counted() {
    let outcome = run("sender --rate 20k -c 10000 --print-responses");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let shown = outcome.stdout.matches("Reply from").count();
    let hidden = outcome.stdout.lines().filter_map(|line| {
        let count = line.strip_prefix('(')?.strip_suffix(" more not shown)")?;
        count.replace(',', "").parse::<usize>().ok()
    });
    assert!(shown < 5000, "{shown}");
    assert_eq!(shown + hidden.sum::<usize>(), 10_000);
}

#[test]
fn json_stays_json_with_responses() {
    let outcome = run("sender -i 5ms -c 10 --print-responses --json");
    assert_no_loss(&outcome.measured(), 10);
    assert!(
        outcome.stderr.contains("Reply from 127.0.0.1 [seq=9]"),
        "{outcome:?}"
    );
}

#[test]
fn sequence_numbers_wrap() {
    for reflector in ["127.0.0.1:0", "127.0.0.1:0 --stateless"] {
        let reflector = Reflector::start(reflector);
        let line = format!(
            "sender {} --rate 5k -c 1000 --first-seq 4294967000 --json",
            reflector.address()
        );
        let report = run(&line).measured();
        assert_no_loss(&report, 1000);
        assert_eq!(report["packets"]["reordered"], 0);
        assert_eq!(report["delay_ns"]["inbound"]["samples"], 1000);
    }
}

#[test]
fn verbose_logs_replies_and_debug_decodes_packets() {
    let run = |flags: &str| {
        let line = format!("sender -i 5ms -c 3 {flags}");
        let ended = words(Command::new(binary()), &line).output().unwrap();
        String::from_utf8(ended.stderr).unwrap()
    };
    let verbose = run("-v");
    assert!(
        verbose.contains("Reply from 127.0.0.1 [rseq=2 sseq=2 rtt="),
        "{verbose}"
    );
    assert!(!verbose.contains("receive_timestamp="), "{verbose}");
    let debug = run("-d");
    assert!(
        debug.contains("sent 41 octets: seq=2 timestamp="),
        "{debug}"
    );
    assert!(debug.contains("sender_ttl=255"), "{debug}");
    assert!(!run("").contains("Reply"), "nothing without -v");
}

#[test]
fn a_readable_rate_hides_nothing() {
    let outcome = run("sender -i 20ms -c 100 --print-responses");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(!outcome.stdout.contains("not shown"), "{}", outcome.stdout);
    assert_eq!(outcome.stdout.matches("Reply from").count(), 100);
}

#[test]
fn numbers_are_those_on_the_wire_across_a_wrap() {
    let outcome = run("sender -i 5ms -c 5 --first-seq 4294967294 --print-responses");
    for seq in [4_294_967_294_u32, 4_294_967_295, 0, 1, 2] {
        let reply = format!("Reply from 127.0.0.1 [seq={seq}]");
        assert!(outcome.stdout.contains(&reply), "{}", outcome.stdout);
    }
}

#[test]
fn loss_has_its_direction_in_intervals_under_delay_and_reordering() {
    let reflector = Reflector::start(
        "127.0.0.1:0 --test-mode --impair-direction outbound --seed 3 --delay-rate 20 \
         --max-delay 200ms --corrupt-rate 5",
    );
    let line = format!(
        "sender {} --rate 1k -c 2000 --packet-timeout 600ms --stats-interval 200ms --json",
        reflector.address()
    );
    let (lines, report) = intervals(&run(&line));
    // Corrupt replies reach the sender, and count as lost on the way back.
    let lost = report["packets"]["lost"].as_u64().unwrap();
    assert_eq!(report["packets"]["lost_inbound"], lost, "{report:#}");
    for line in &lines {
        let packets = &line["interval"]["packets"];
        let count = |name: &str| packets[name].as_u64().unwrap();
        let told = count("lost_outbound") + count("lost_inbound") + count("lost_unattributed");
        assert_eq!(told, count("lost"), "{line:#}");
        let packets = &line["session"]["packets"];
        // At the edge of what is decided a few packets may be taken for the other direction.
        assert!(packets["lost_outbound"].as_u64().unwrap() <= 3, "{line:#}");
    }
    let last = &lines.last().unwrap()["session"]["packets"];
    assert_eq!(
        (&last["lost_outbound"], &last["lost_inbound"]),
        (&0.into(), &lost.into())
    );
}
