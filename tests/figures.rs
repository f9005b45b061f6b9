//! What a run's figures look like in full, as histograms, and in an HdrHistogram log.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{FakeReflector, Outcome, Reflector, binary, ntp_now, run, short_reply};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

/// A file that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("twamp-blast-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    /// The histograms by tag, and whether the log tells when it began.
    fn histograms(&self) -> (BTreeMap<String, Histogram<u64>>, bool) {
        let log = std::fs::read(&self.0).unwrap();
        let (mut found, mut began) = (BTreeMap::new(), false);
        for entry in IntervalLogIterator::new(&log) {
            match entry.unwrap() {
                LogEntry::Interval(interval) => {
                    let octets = BASE64_STANDARD.decode(interval.encoded_histogram());
                    let octets = octets.unwrap();
                    let histogram = Deserializer::new().deserialize(&mut octets.as_slice());
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    assert!(found.insert(tag, histogram.unwrap()).is_none());
                }
                LogEntry::StartTime(_) => began = true,
                LogEntry::BaseTime(_) => {}
            }
        }
        (found, began)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test that failed early may not have made it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn integer(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn the_histogram_log_says_what_the_report_says_and_logs_add_up() {
    let log = Scratch::new("run.hlog");
    // What was in the file before is replaced, even where it was longer.
    std::fs::write(&log.0, "stale\n".repeat(10_000)).unwrap();
    let reflector = Reflector::start("127.0.0.1:0");
    let remote = reflector.address();
    let mut sum = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
    // Fewer samples than are kept exactly, and more.
    for count in [100_u64, 3000] {
        let line = format!(
            "sender {remote} --rate 2k -c {count} --json --hlog {}",
            log.path()
        );
        let report = run(&line).measured();
        let (histograms, began) = log.histograms();
        assert!(began);
        let tags: Vec<&String> = histograms.keys().collect();
        assert_eq!(tags, ["inbound", "outbound", "roundtrip"]);
        for (tag, histogram) in &histograms {
            let delay = &report["delay_ns"][tag];
            let case = format!("{tag}: {delay:#}");
            assert_eq!(histogram.len(), integer(&delay["samples"]), "{case}");
            for (figure, quantile) in [
                ("min", 0.0),
                ("median", 0.5),
                ("p90", 0.9),
                ("p95", 0.95),
                ("p99", 0.99),
                ("max", 1.0),
            ] {
                if delay[figure].is_null() {
                    continue;
                }
                let (told, logged) = (
                    integer(&delay[figure]),
                    histogram.value_at_quantile(quantile),
                );
                // Two roundings to three digits.
                assert!(
                    told.abs_diff(logged) <= 1 + told / 500,
                    "{figure} {logged}: {case}"
                );
            }
        }
        sum.add(&histograms["roundtrip"]).unwrap();
    }
    assert_eq!(sum.len(), 3100);
}

#[test]
fn a_direction_with_negative_delays_is_left_out_of_the_log_and_said_to_be() {
    let behind = FakeReflector::start(|request| {
        let past = (u64::from_be_bytes(ntp_now()) - (10 << 32)).to_be_bytes();
        let mut reply = short_reply(request, 0);
        reply[..4].copy_from_slice(&request[..4]);
        reply[4..12].copy_from_slice(&past);
        reply[16..24].copy_from_slice(&past);
        vec![reply]
    });
    let log = Scratch::new("behind.hlog");
    let line = format!(
        "sender {} -i 1ms -c 30 --hlog {}",
        behind.address,
        log.path()
    );
    let outcome = run(&line);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let complaint = outcome.complaint();
    assert!(complaint.contains("outbound is left out"), "{complaint}");
    assert!(complaint.contains("negative"), "{complaint}");
    let (histograms, _) = log.histograms();
    let tags: Vec<&String> = histograms.keys().collect();
    assert_eq!(tags, ["inbound", "roundtrip"]);
    assert_eq!(histograms["inbound"].len(), 30);
    let text = std::fs::read_to_string(&log.0).unwrap();
    assert!(text.contains("#[outbound is left out"), "{text}");
}

#[test]
fn a_log_that_cannot_be_opened_is_exit_2_before_a_packet_leaves() {
    let folder = std::env::temp_dir();
    for path in [folder.join("no-such-folder/run.hlog"), folder] {
        let outcome = run(&format!(
            "sender 127.0.0.1:9 -c 1 --hlog {}",
            path.display()
        ));
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.complaint().contains("--hlog"), "{outcome:?}");
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_is_exit_1_after_the_report() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -i 1ms -c 30 --json", reflector.address());
    let outcome = run(&format!("{line} --hlog /dev/full"));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.complaint().contains("/dev/full"), "{outcome:?}");
    assert_eq!(outcome.report()["packets"]["received"], 30);
}

#[track_caller]
fn assert_plain_and_narrow(outcome: &Outcome) {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for line in outcome.stdout.lines() {
        assert!(line.len() <= 79 && line.is_ascii(), "{line}");
        assert!(!line.chars().any(char::is_control), "{line}");
    }
}

#[test]
fn histograms_in_a_pipe_are_plain_and_honest() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -i 1ms --histogram", reflector.address());
    let outcome = run(&format!("{line} -c 200"));
    assert_plain_and_narrow(&outcome);
    for title in ["Roundtrip", "Outbound", "Inbound"] {
        let title = format!("{title} histogram: 200 samples");
        assert!(outcome.stdout.contains(&title), "{outcome:?}");
    }
    let steps = outcome.stdout.matches("93.75000000").count();
    assert_eq!(steps, 3, "{outcome:?}");
    // Fewer than ten samples lie beyond it.
    assert!(!outcome.stdout.contains("96.87500000"), "{outcome:?}");

    let outcome = run(&format!("{line} -c 5"));
    assert_plain_and_narrow(&outcome);
    let few = outcome.stdout.matches("5 are too few samples").count();
    assert_eq!(few, 3, "{outcome:?}");
}

#[test]
fn the_long_form_has_every_figure_and_the_short_one_the_verdict() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -i 1ms -c 200 --stats", reflector.address());
    let outcome = run(&format!("{line} full"));
    assert_plain_and_narrow(&outcome);
    let figures = [
        "P50 (median)",
        "P90",
        "P95",
        "P99",
        "P99.9",
        "P99.99",
        "P99.999",
        "StdDev",
        "Jitter",
        "IPDV mean, abs.",
        "PDV P99",
        "Timeout",
        " late ",
        "us to ",
    ];
    for figure in figures {
        assert!(outcome.stdout.contains(figure), "{figure}: {outcome:?}");
    }
    let outcome = run(&format!("{line} brief"));
    assert_plain_and_narrow(&outcome);
    assert!(outcome.stdout.contains("verdict: "), "{outcome:?}");
    assert!(!outcome.stdout.contains("Percentiles"), "{outcome:?}");
}

#[test]
fn the_report_counts_delays_by_bin() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -i 1ms -c 300 --json", reflector.address());
    let report = run(&line).measured();
    assert_eq!(report["packets"]["timeout_ns"], 5_000_000_000_u64);
    for direction in ["roundtrip", "outbound", "inbound", "reflector"] {
        let delay = &report["delay_ns"][direction];
        let bins = delay["bins"].as_array().unwrap();
        let counted: u64 = bins.iter().map(|bin| integer(&bin["count"])).sum();
        assert_eq!(counted, 300, "{direction}: {delay:#}");
        let (first, last) = (&bins[0], &bins[bins.len() - 1]);
        assert!(first["from"].as_i64() <= delay["min"].as_i64(), "{delay:#}");
        assert!(last["to"].as_i64() > delay["max"].as_i64(), "{delay:#}");
    }
}

#[test]
fn help_shows_how_to_write_every_value() {
    // Which flags there are is for the unit tests; here, that the program shows it.
    let help = run("sender --help").stdout;
    for text in [
        "--hlog <FILE>",
        "[example: run-1.hlog]",
        "--stats <STATS>",
        "--histogram",
    ] {
        assert!(help.contains(text), "{text} in the help of {}", binary());
    }
}

#[test]
fn the_dscp_table_is_also_json() {
    let outcome = run("dscptable --json");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 1);
    let table: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let rows = table.as_array().unwrap();
    assert_eq!(rows.len(), 64);
    for (value, row) in (0_u64..).zip(rows) {
        assert_eq!(
            (integer(&row["dscp"]), integer(&row["tos"])),
            (value, value * 4)
        );
    }
    assert_eq!(rows[46]["name"], "ef");
}
