//! Roundtrip and Outbound rest on transmit timestamps, which may be fewer than the replies: in trouble, too,
//! they are of the same stretches of the session as Inbound.
//!
//! Needs a quiet machine: where threads wait for a processor, stamps are lost, and fewer packets ask for them.

mod common;

use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Command};

use common::namespace::{Namespace, Pair, or_skip};
use common::{Reflector, Running, binary, run, words};
use serde_json::Value;

/// A sender that tells how far it is.
struct Watched {
    // Ended when the test ends.
    _running: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watched {
    fn start(program: Command, line: &str) -> Self {
        let line = format!("sender {line} --json --stats-interval 100ms");
        let mut running = Running::start(&mut words(program, &line));
        let stdout = running.0.stdout.take().unwrap();
        Self {
            _running: running,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Waits until so many packets were sent; false where the session ended before.
    fn sent(&mut self, packets: u64) -> bool {
        self.lines.by_ref().map_while(Result::ok).any(|line| {
            let told: Value = serde_json::from_str(&line).unwrap();
            let sent = &told["session"]["packets"]["sent"];
            sent.as_u64().is_some_and(|sent| sent >= packets)
        })
    }

    fn report(self) -> Value {
        let last = self.lines.map_while(Result::ok).last().unwrap();
        serde_json::from_str(&last).unwrap()
    }
}

fn number(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("{pointer}: {report:#}"))
}

/// A roundtrip is its outbound and its inbound part: so are the means, where all are of the same packets.
fn assert_of_the_same_packets(report: &Value, tolerance_ns: f64) {
    let mean = |name: &str| number(report, &format!("/delay_ns/{name}/mean"));
    let parts = mean("outbound") + mean("inbound");
    assert!(
        (mean("roundtrip") - parts).abs() < tolerance_ns,
        "{} of {parts}: {report:#}",
        mean("roundtrip")
    );
    assert_of_all_replies(report);
}

fn assert_of_all_replies(report: &Value) {
    let replies = number(report, "/delay_ns/inbound/samples");
    let stood_for = number(report, "/delay_ns/roundtrip/packets");
    assert!(
        (replies - stood_for).abs() < 0.02 * replies + 200.0,
        "{report:#}"
    );
}

/// Stretches of the session in which fewer than `share` of the replies have a known T1.
fn thin(report: &Value, share: f64) -> usize {
    let list = |name: &str| -> Vec<f64> {
        let list = report["timestamps"]["t1_spread"][name].as_array().unwrap();
        list.iter().map(|n| n.as_f64().unwrap()).collect()
    };
    let replies = list("replies");
    let most = replies.iter().copied().fold(0.0, f64::max);
    let of_each = replies.iter().zip(list("samples"));
    let thin =
        of_each.filter(|(replies, samples)| **replies * 8.0 > most && *samples < share * **replies);
    thin.count()
}

/// The far link is down for a while, and from then on every reply is delayed.
fn outage(pair: &Pair, rate: u32) -> Result<(), String> {
    let calm = pair.far.reflector("10.9.0.2:0");
    let remote = calm.address();
    pair.warm_up(remote);
    let packets = u64::from(rate) * 4;
    let line = format!("{remote} --rate {rate} -c {packets}");
    let mut sender = Watched::start(pair.near.enter(&binary()), &line);
    assert!(sender.sent(packets / 3));
    pair.far.set_up("ip link set far down")?;
    let _ = calm.stop();
    let delayed = format!("{remote} --test-mode --delay-rate 100% --delay 20ms");
    let delayed = pair.far.reflector(&delayed);
    assert!(sender.sent(packets / 2));
    pair.far.set_up("ip link set far up")?;
    let report = sender.report();
    drop(delayed);

    let sent = number(&report, "/packets/sent");
    assert!(
        number(&report, "/packets/received") > 0.5 * sent,
        "{report:#}"
    );
    assert!(
        number(&report, "/delay_ns/inbound/max") > 20e6,
        "{report:#}"
    );
    // Delays are tens of milliseconds in one part of the session and microseconds in the other.
    assert_of_the_same_packets(&report, 0.5e6);
    assert_eq!(
        thin(&report, 0.9 * f64::from(12_500.min(rate)) / f64::from(rate)),
        0,
        "{report:#}"
    );
    Ok(())
}

#[test]
fn an_outage_leaves_the_samples_as_they_were() {
    let pair = or_skip!(Pair::new());
    for rate in [1000, 5000] {
        or_skip!(outage(&pair, rate));
    }
}

/// A queue of this host that other traffic fills for a while.
fn shaped(pair: &Pair) -> Result<(), String> {
    let reflector = pair.far.reflector("10.9.0.2:0");
    let bulk = pair.far.reflector("10.9.0.3:0");
    pair.warm_up(reflector.address());
    pair.warm_up(bulk.address());
    pair.near
        .set_up("tc qdisc add dev near root tbf rate 20mbit burst 64kb latency 50ms")?;
    let line = format!(
        "{} --rate 2k -c 10000 --packet-timeout 1s",
        reflector.address()
    );
    let mut sender = Watched::start(pair.near.enter(&binary()), &line);
    assert!(sender.sent(2000));
    let line = format!(
        "sender {} --rate 4k --duration 1s --payload-size 1400 --packet-timeout 100ms",
        bulk.address()
    );
    let _ = pair.near.run(&line);
    let report = sender.report();
    pair.near.set_up("tc qdisc del dev near root")?;
    assert_of_the_same_packets(&report, 1e6);
    assert_eq!(thin(&report, 0.9), 0, "{report:#}");
    assert_eq!(
        report["timestamps"]["tx_stamp_one_in_most"], 1,
        "{report:#}"
    );
    Ok(())
}

#[test]
fn a_queue_that_is_full_for_a_while_leaves_the_samples_as_they_were() {
    let pair = or_skip!(Pair::new());
    or_skip!(shaped(&pair));
}

/// Faster than this host can, perhaps: the samples are fewer, but all over the session.
#[test]
fn on_a_busy_host_samples_lie_over_the_whole_session() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!(
        "sender {} --rate 100k --schedule poisson --duration 2s --json",
        reflector.address()
    );
    let report = run(&line).report();
    assert_of_all_replies(&report);
    // Two of 16 are stamped, or fewer where the system has no room for their stamps.
    let most = number(&report, "/timestamps/tx_stamp_one_in_most");
    assert_eq!(thin(&report, 0.5 * 2.0 / most), 0, "{report:#}");
}

#[test]
fn interim_and_final_figures_rest_on_the_same_samples() {
    let alone = or_skip!(Namespace::new());
    let line = "--rate 20k -c 20000";
    let line = format!("sender {line} --json --stats-interval 100ms");
    let outcome = Running::start(&mut words(alone.enter(&binary()), &line)).finish();
    let told: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (report, intervals) = told.split_last().unwrap();
    for name in ["roundtrip", "outbound", "inbound"] {
        let samples = |of: &Value| of["delay_ns"][name]["samples"].as_u64().unwrap_or(0);
        let sum: u64 = intervals.iter().map(|i| samples(&i["interval"])).sum();
        assert_eq!(sum, samples(report), "{name}");
        let last = &intervals.last().unwrap()["session"];
        assert_eq!(samples(last), samples(report), "{name}");
        assert_eq!(
            last["delay_ns"][name]["mean"],
            report["delay_ns"][name]["mean"]
        );
    }
}
