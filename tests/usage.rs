//! Wrong input is told in one line that says what, where and what to do; help is help.

mod common;

use std::net::UdpSocket;
use std::process::{Command, Stdio};

use common::{Reflector, run};

/// What is typed, and what the line must name: the culprit, and the way out.
const WRONG: &[(&str, &[&str])] = &[
    ("sender --rate 0", &["--rate", "use 1 or more"]),
    ("sender --rate fast", &["--rate", "use "]),
    ("sender --rate -5", &["--rate", "-5", "use "]),
    ("sender --rate 10Mbit", &["--rate", "--bandwidth"]),
    ("sender --bandwidth 10MB", &["--bandwidth", "bits"]),
    ("sender --bandwidth 10kpps", &["--bandwidth", "--rate"]),
    ("sender --bandwidth 0", &["--bandwidth", "10Mbit"]),
    (
        "sender --bandwidth 1bit --payload-size 65507",
        &["--bandwidth 1bit", "one packet a day"],
    ),
    (
        "sender --bandwidth 1M --rate 5",
        &["--bandwidth", "--rate", "--help"],
    ),
    (
        "sender --bandwidth 1M --schedule flood",
        &["--schedule flood", "leave out"],
    ),
    (
        "sender --bandwidth 1M --find-rate",
        &["--bandwidth", "--find-rate", "--help"],
    ),
    ("sender -i 0", &["--interval", "use "]),
    (
        "sender --padding 70000",
        &["--padding 70000", "use 65493 or less"],
    ),
    ("sender --padding -2", &["--padding -2", "use 0 to 65493"]),
    ("sender --dscp nosuch", &["--dscp", "nosuch", "use be"]),
    ("sender --dscp 64", &["--dscp", "64", "0 to 63"]),
    ("sender --dscp ef --tos 1", &["--dscp", "--tos", "--help"]),
    ("sender --tos 256", &["--tos", "256", "0 to 255"]),
    ("sender --ttl 0", &["--ttl", "use 1 to 255"]),
    ("sender -i -1", &["--interval", "-1", "use "]),
    ("sender -c -1", &["--count", "-1", "use "]),
    ("sender --seed x", &["--seed", "x", "use "]),
    ("sender --padding 1.5", &["--padding", "1.5", "use "]),
    ("sender -c 99999999999G", &["--count", "too large"]),
    ("sender --cpu 1023", &["--cpu 1023", "use "]),
    (
        "sender --io portable --hw-timestamps",
        &["--hw-timestamps", "leave one"],
    ),
    (
        "sender --burst 32 --io portable",
        &["--burst", "--io portable", "leave one"],
    ),
    ("sender --json --logfile -", &["--logfile -", "name a file"]),
    ("sender --busy-poll 0", &["--busy-poll", "use 1us"]),
    ("sender --burst 65", &["--burst", "use 1 to 64"]),
    (
        "sender --busy-poll 50us --io portable",
        &["--busy-poll", "leave one"],
    ),
    ("sender --spread 3%", &["--spread", "uniform"]),
    ("sender --interface= -c 1", &["--interface", "ip link"]),
    ("sender ::ffff:127.0.0.1", &["use 127.0.0.1"]),
    ("sender 255.255.255.255", &["255.255.255.255", "name the"]),
    ("reflector 224.0.0.1:0", &["224.0.0.1", "use one"]),
    (
        "sender --payload-size 13",
        &["--payload-size 13", "14 to 65507"],
    ),
    (
        "sender --payload-size 65508",
        &["--payload-size 65508", "14 to 65507"],
    ),
    (
        "sender --frame-size 55",
        &["--frame-size 55", "56 to 65549"],
    ),
    (
        "sender --frame-size 65550",
        &["--frame-size 65550", "56 to 65549"],
    ),
    ("sender --size-mix 64:", &["--size-mix", "use SIZE:WEIGHT"]),
    ("sender --size-mix 64:0", &["--size-mix", "use 1 or more"]),
    ("sender --size-mix 55:1", &["--size-mix", "use 56 to"]),
    (
        "sender --imix --padding 3",
        &["--imix", "--padding", "--help"],
    ),
    (
        "sender --rate 5 --interval 5",
        &["--rate", "--interval", "--help"],
    ),
    (
        "sender --schedule flood --rate 5",
        &["--schedule flood", "leave out"],
    ),
    ("sender --count 0", &["--count", "use 1 or more"]),
    ("sender --duration 0", &["--duration 0", "use 1s or more"]),
    (
        "sender --packet-timeout 0",
        &["--packet-timeout 0", "use more than 0"],
    ),
    (
        "sender --packet-timeout 2h",
        &["--packet-timeout 2h", "at most 1h"],
    ),
    ("sender 192.0.2.1:99999", &["99999", "1 to 65535"]),
    ("sender 192.0.2.1.1.1:x", &["192.0.2.1.1.1:x", "--help"]),
    ("sender [2001:db8::1", &["[2001:db8::1", "--help"]),
    ("sender 127.0.0.1:0", &["127.0.0.1:0", "1 to 65535"]),
    ("sender 0.0.0.0:862", &["0.0.0.0:862", "name the reflector"]),
    (
        "sender fe80::1",
        &["fe80::1", "use --interface", "[fe80::1%"],
    ),
    ("sender 127.0.0.1:862 ::1", &["::1", "two families", "use "]),
    ("sender --stats much", &["--stats", "brief, normal, full"]),
    ("sender --hlog -", &["--hlog -", "use a file"]),
    ("sender --histogram --json", &["--histogram", "--json"]),
    (
        "sender --hlog /no-such-folder/run.hlog",
        &["--hlog /no-such-folder/run.hlog", "use a file in a folder"],
    ),
    ("sender --loss 1%", &["--loss", "--find-rate"]),
    ("sender --max-rate 5k", &["--max-rate", "--find-rate"]),
    ("sender --sizes 83", &["--sizes", "--find-rate"]),
    (
        "sender --find-rate --rate 5",
        &["--find-rate", "--rate", "--help"],
    ),
    (
        "sender --find-rate -i 5ms",
        &["--find-rate", "--interval", "--help"],
    ),
    (
        "sender --find-rate -c 5",
        &["--find-rate", "--count", "--help"],
    ),
    (
        "sender --find-rate --schedule flood",
        &["--find-rate", "--schedule flood", "leave it out"],
    ),
    (
        "sender --find-rate --print-responses",
        &["--find-rate", "--print-responses"],
    ),
    (
        "sender --find-rate --timestamps",
        &["--find-rate", "--timestamps"],
    ),
    (
        "sender fe80::1 --interface nosuch",
        &["interface nosuch;", "ip link"],
    ),
    ("sender 192.0.2.1 -6", &["192.0.2.1", "-6"]),
    (
        "sender --find-rate --stats-interval 1",
        &["--find-rate", "--stats-interval"],
    ),
    (
        "sender --find-rate --stats full",
        &["--find-rate", "--stats", "leave it out"],
    ),
    ("sender --find-rate --hlog x", &["--find-rate", "--hlog"]),
    (
        "sender --find-rate --histogram",
        &["--find-rate", "--histogram"],
    ),
    (
        "sender --find-rate --duration 1ms",
        &["--duration", "use 100ms or more"],
    ),
    (
        "sender --find-rate --max-rate 0.5",
        &["--max-rate 0.5", "use 1 or more"],
    ),
    (
        "sender --find-rate --max-rate 0",
        &["--max-rate", "use 1 or more"],
    ),
    ("sender --find-rate --loss 101%", &["--loss", "0 to 100"]),
    (
        "sender --find-rate --sizes big",
        &["--sizes", "use such as"],
    ),
    (
        "sender --find-rate --sizes 83,83",
        &["--sizes", "use it once"],
    ),
    (
        "sender --find-rate --sizes 55",
        &["--sizes 55", "use 56 to 65549"],
    ),
    (
        "sender --find-rate --sizes 83 --imix",
        &["--sizes", "--imix", "--help"],
    ),
    ("sender --nosuch", &["--nosuch", "--help"]),
    ("nosuch", &["nosuch", "--help"]),
    ("reflector --threads 0", &["--threads", "use 1 to 256"]),
    (
        "reflector --threads 2 --io portable",
        &["--threads", "leave one"],
    ),
    (
        "reflector --allow nosuch",
        &["--allow", "nosuch", "use such as"],
    ),
    ("reflector --drop-rate 5", &["--drop-rate", "--test-mode"]),
    ("reflector --duplicate-rate 5", &["--test-mode"]),
    ("reflector --reorder-rate 5", &["--test-mode"]),
    ("reflector --delay-rate 5", &["--test-mode"]),
    ("reflector --corrupt-rate 5", &["--test-mode"]),
    ("reflector --max-delay 5", &["--max-delay", "--test-mode"]),
    ("reflector --delay 5", &["--delay", "--test-mode"]),
    ("reflector --rate-limit 5", &["--test-mode"]),
    ("reflector --seed 5", &["--seed", "--test-mode"]),
    (
        "reflector --impair-direction inbound",
        &["--impair-direction", "--test-mode"],
    ),
    (
        "reflector --test-mode --drop-rate -1",
        &["--drop-rate", "0 to 100"],
    ),
    (
        "reflector --test-mode --drop-rate 101",
        &["--drop-rate", "0 to 100"],
    ),
    (
        "reflector --test-mode --drop-rate 60 --delay-rate 60",
        &["120 percent", "100 or less"],
    ),
    (
        "reflector --test-mode --max-delay 1 --delay 1",
        &["--max-delay", "--delay", "--help"],
    ),
    (
        "reflector --test-mode --delay 1s",
        &["--delay", "--delay-rate"],
    ),
    (
        "reflector --test-mode --delay-rate 5 --delay 10ms --delay-jitter 20ms",
        &["--delay-jitter 20ms", "use 10ms or less"],
    ),
    (
        "reflector --test-mode --delay-rate 5 --max-delay 2h",
        &["--max-delay 2h", "1h"],
    ),
    (
        "reflector --test-mode --rate-limit 5 --threads 2",
        &["--rate-limit", "--threads"],
    ),
    ("reflector --ttl 256", &["--ttl", "use 1 to 255"]),
    (
        "reflector --session-timeout x",
        &["--session-timeout", "use "],
    ),
];

#[test]
fn wrong_usage_is_exit_2_and_one_line_with_the_remedy() {
    let mut wrong = Vec::new();
    for (line, parts) in WRONG {
        let outcome = run(line);
        let told = outcome.stderr.lines().count() == 1
            && outcome.stderr.starts_with("twamp-blast: ")
            && parts.iter().all(|part| outcome.stderr.contains(part));
        if outcome.code != 2 || !outcome.stdout.is_empty() || !told {
            wrong.push(format!("{line}: {parts:?} in {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_rate_that_no_interface_carries_is_asked_about_and_sent_all_the_same() {
    let reflector = Reflector::start("127.0.0.1:0");
    let ask = |flags: &str| run(&format!("sender {} -c 5 {flags}", reflector.address()));
    let doubted = ask("--rate 10M");
    assert_eq!(doubted.code, 0, "{doubted:?}");
    for reading in ["10,000,000 packets a second", "--bandwidth 10Mbit?"] {
        assert!(doubted.stderr.contains(reading), "{doubted:?}");
    }
    for plain in ["--rate 10M -q", "--rate 100k", "--bandwidth 10Mbit"] {
        let outcome = ask(plain);
        assert!(!outcome.stderr.contains("did you mean"), "{outcome:?}");
    }
}

/// A bit rate is of frames as their sizes are told, and as the report's bit rate is.
#[test]
fn a_bandwidth_is_of_ethernet_frames_without_fcs() {
    for (flags, pps) in [
        ("--bandwidth 6640kbit", 10_000.0),
        ("--bandwidth 6.64Mbps --schedule poisson", 10_000.0),
        // 4,322 octets in every dozen.
        ("--bandwidth 3457600 --imix", 1200.0),
        ("--bandwidth 12.112Mbit --frame-size 1514", 1000.0),
    ] {
        let report = run(&format!("sender {flags} -c 24 --json -q")).measured();
        assert_eq!(report["load"]["offered_pps"], pps, "{flags}");
    }
}

#[test]
fn percentages_have_one_meaning_with_and_without_the_sign() {
    let spread = |text: &str| {
        let line = format!("sender -i 1ms -c 2 --schedule uniform --spread {text} --json -q");
        run(&line).measured()["command"].clone()
    };
    let words = spread("20");
    let at = words
        .as_array()
        .unwrap()
        .iter()
        .position(|w| w == "--spread");
    assert_eq!(words[at.unwrap() + 1], "20%");
    let words = spread("20%");
    assert_eq!(words[at.unwrap() + 1], "20%");
}

#[test]
fn a_local_address_of_somebody_else_is_exit_1_and_one_line() {
    let outcome = run("sender 127.0.0.1:862 192.0.2.77 -c 1");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let complaint = outcome.complaint();
    assert!(complaint.contains("192.0.2.77"), "{complaint}");
    assert!(complaint.contains("ip address"), "{complaint}");
    assert!(outcome.stdout.is_empty(), "{outcome:?}");
}

#[test]
fn an_unknown_interface_is_exit_1_and_one_line() {
    for line in [
        "sender 127.0.0.1:862 -c 1 --interface nosuch",
        "reflector 127.0.0.1:0 --interface nosuch",
    ] {
        let outcome = run(line);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.complaint().contains("ip link"), "{outcome:?}");
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_exit_1() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else {
        return common::skip("there is no /dev/full");
    };
    let mut sender = Command::new(common::binary());
    let sender = sender.args(["sender", "-i", "1ms", "-c", "5", "-q", "--json"]);
    let ended = sender.stdout(full).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot write the report"), "{told}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut sender = Command::new(common::binary());
    let sender = sender.args(["sender", "-i", "1ms", "-c", "5", "-q"]);
    let mut sender = sender.stdout(Stdio::piped()).spawn().unwrap();
    drop(sender.stdout.take());
    assert_eq!(sender.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_in_use_is_exit_1_and_one_line() {
    let check = |line: String| {
        let outcome = run(&line);
        assert_eq!(outcome.code, 1, "{line}: {outcome:?}");
        let complaint = outcome.complaint();
        assert!(complaint.contains("use another one"), "{complaint}");
    };
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = other.local_addr().map(|addr| (other, addr)).unwrap();
    for threads in [1, 2] {
        check(format!("reflector {} --threads {threads}", other.1));
        // A reflector must not share another one's packets.
        let first = Reflector::start(&format!("127.0.0.1:0 --threads {threads}"));
        for more in [1, 2] {
            check(format!("reflector {} --threads {more}", first.address()));
        }
    }
}

#[test]
fn dscptable_lists_every_dscp() {
    let outcome = run("dscptable");
    assert_eq!(outcome.code, 0);
    assert!(outcome.stderr.is_empty());
    let digit = |line: &&str| line.contains(|c: char| c.is_ascii_digit());
    assert_eq!(outcome.stdout.lines().filter(digit).count(), 64);
}

#[test]
fn help_is_exit_0_and_tells_the_exit_codes() {
    for (line, code) in [
        ("--help", "nothing came back"),
        ("sender --help", "nothing came back"),
        ("reflector --help", "ended by Ctrl-C"),
        ("responder --help", "ended by Ctrl-C"),
        ("server --help", "ended by Ctrl-C"),
    ] {
        let outcome = run(line);
        assert_eq!(outcome.code, 0, "{line}");
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
        assert!(outcome.stdout.contains("Usage: twamp-blast"), "{line}");
        assert!(outcome.stdout.contains("Exit codes:"), "{line}");
        assert!(outcome.stdout.contains(code), "{line}");
    }
    assert_eq!(run("dscptable --help").code, 0);
    assert_eq!(run("--version").code, 0);
}
