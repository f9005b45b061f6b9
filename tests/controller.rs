//! `controller` and `controlclient` as processes: with our Server in every mode, and with servers that
//! have the habits of others.

#![allow(clippy::disallowed_methods, reason = "a test has a limit of time")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::Instant;

use common::host::{Fate, MemoryHost};
use common::server::{ALL_MODES, KEYS, Scratch, Server};
use common::{FakeReflector, LIMIT, Outcome, assert_no_loss, has_ipv6, run, short_reply};
use serde_json::Value;
use twamp_blast::control::server::{Ending, Nonces, Patience, Server as Machine, Terms};
use twamp_blast::wire::control::Count;
use twamp_blast::wire::{Accept, Modes, Timestamp};

const MODES: [&str; 4] = ["unauthenticated", "authenticated", "encrypted", "mixed"];

/// A Server with keys, and the file with the passphrase of one of them.
struct Site {
    server: Server,
    _keys: Scratch,
    passphrase: Scratch,
}

impl Site {
    fn new(name: &str, line: &str) -> Self {
        let keys = Scratch::new(&format!("{name}.keys"), KEYS);
        let passphrase = Scratch::new(&format!("{name}.pass"), "open sesame\nnot this\n");
        let mode = match line.contains("--mode") {
            true => String::new(),
            false => format!("--mode {ALL_MODES}"),
        };
        let server = Server::start(&format!("{line} --keys-file {} {mode}", keys.path()));
        Self {
            server,
            _keys: keys,
            passphrase,
        }
    }

    fn key(&self) -> String {
        format!(
            "--key-id alice --passphrase-file {}",
            self.passphrase.path()
        )
    }

    fn controller(&self, line: &str) -> Outcome {
        let (server, key) = (self.server.address(), self.key());
        run(&format!("controller {server} {key} {line}"))
    }
}

/// The reports of each session, and last the combined one.
#[track_caller]
fn reports(outcome: &Outcome) -> (Vec<Value>, Value) {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let one = |line: &str| {
        let line = Outcome {
            code: 0,
            stdout: line.to_owned(),
            stderr: String::new(),
        };
        line.report()
    };
    let mut all: Vec<Value> = outcome.stdout.lines().map(one).collect();
    let last = all.pop().unwrap();
    (all, last)
}

#[test]
fn every_mode_measures_over_both_families() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        if local.starts_with('[') && !has_ipv6() {
            common::skip("no IPv6");
            continue;
        }
        let site = Site::new(&format!("modes{}", local.len()), local);
        for mode in MODES {
            for load in [
                "",
                "--imix --rate 2k",
                "--burst 8 --rate 4k",
                "--io portable",
            ] {
                let line = format!("--mode {mode} -c 64 -i 1ms {load} --json");
                let line = line.replace("-i 1ms --imix", "--imix");
                let line = line.replace("-i 1ms --burst", "--burst");
                let report = site.controller(&line).measured();
                assert_no_loss(&report, 64);
                assert_eq!(report["packets"]["invalid"], 0, "{line}");
                assert_eq!(report["packets"]["lost_outbound"], 0, "{line}");
                assert_eq!(report["role"], "controller");
                assert_eq!(report["protocol"], "twamp");
                assert_eq!(report["security"], mode);
                assert_eq!(report["scope"], "session");
                let sid = report["sid"].as_str().unwrap();
                assert!(sid.len() == 32 && sid.bytes().all(|b| b.is_ascii_hexdigit()));
                let command = report["command"].to_string();
                assert!(!command.contains("sesame"), "{command}");
                let remote: SocketAddr = report["remote"].as_str().unwrap().parse().unwrap();
                assert_eq!(remote.ip(), site.server.address().ip());
                if load.is_empty() {
                    // The padding that makes both directions equal.
                    let payload = if ["authenticated", "encrypted"].contains(&mode) {
                        112
                    } else {
                        41
                    };
                    assert_eq!(report["load"]["sizes"][0]["payload_bytes"], payload);
                    assert_eq!(report["path"]["reply_bytes"], serde_json::json!([payload]));
                }
            }
        }
        let account = site.server.stop();
        assert_eq!(account["totals"]["forged"], 0, "{account:#}");
        let of = |count: &str| account["totals"][count].as_u64().unwrap();
        assert_eq!(of("reflected"), of("received"), "{account:#}");
        // Nothing was lost, so nobody asked for the reflector's counter.
        assert_eq!(of("reflected"), 64 * 16, "{account:#}");
    }
}

#[test]
fn without_a_mode_it_is_the_strongest_that_both_can() {
    let site = Site::new(
        "strongest",
        "127.0.0.1:0 --mode unauthenticated,authenticated,mixed",
    );
    let report = site.controller("-c 5 -i 1ms --json").measured();
    assert_eq!(report["security"], "authenticated");
    let server = site.server.address();
    let report = run(&format!("controller {server} -c 5 -i 1ms --json")).measured();
    assert_eq!(report["security"], "unauthenticated");
    let refused = site.controller("--mode encrypted -c 5");
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.complaint().contains("encrypted"), "{refused:?}");
    site.server.stop();
}

#[test]
fn a_hundred_sessions_are_a_line_each_and_one_for_all() {
    let site = Site::new("hundred", "127.0.0.1:0");
    for mode in ["unauthenticated", "encrypted"] {
        let line = format!("--mode {mode} --sessions 100 -c 10 -i 20ms --json");
        let (sessions, all) = reports(&site.controller(&line));
        assert_eq!(sessions.len(), 100);
        assert_eq!(all["scope"], "combined");
        assert_no_loss(&all, 1000);
        let mut sids = std::collections::BTreeSet::new();
        for session in &sessions {
            assert_eq!(session["scope"], "session");
            assert_no_loss(session, 10);
            assert!(sids.insert(session["sid"].as_str().unwrap().to_owned()));
        }
        assert!(all["sid"].is_null());
    }
    let account = site.server.stop();
    assert_eq!(account["totals"]["sessions"], 200, "{account:#}");
}

#[test]
fn classes_are_measured_side_by_side() {
    let site = Site::new("classes", "127.0.0.1:0");
    let (sessions, all) = reports(&site.controller("--dscp be,af41,46 -c 20 -i 1ms --json"));
    let sent: Vec<&Value> = sessions.iter().map(|s| &s["path"]["dscp_sent"]).collect();
    assert_eq!(sent, [0, 34, 46]);
    for session in &sessions {
        // What the server was told, in the replies.
        assert_eq!(
            session["path"]["dscp_received"],
            session["path"]["dscp_sent"]
        );
    }
    assert!(all["path"]["dscp_sent"].is_null());
    let shown = site.controller("--dscp be,ef --sessions 2 -c 20 -i 1ms");
    assert_eq!(shown.code, 0, "{shown:?}");
    let rows = shown.stdout.lines().filter(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(
            words.as_slice(),
            [_, "0" | "46", _, "20", "0.0%", "0.0%", ..]
        )
    });
    assert_eq!(rows.count(), 4, "{}", shown.stdout);
    assert_eq!(shown.stdout.matches("--- session ").count(), 4);
    assert!(shown.stdout.contains("--- all sessions ---"));
    assert!(
        shown.stdout.lines().all(|line| line.len() <= 80),
        "{}",
        shown.stdout
    );
    site.server.stop();
}

#[test]
fn threads_share_one_load_over_sessions_of_their_own() {
    let site = Site::new("threads", "127.0.0.1:0");
    let (threads, all) = reports(&site.controller("--threads 3 -c 301 --rate 2k --json"));
    assert_eq!(threads.len(), 3);
    assert_no_loss(&all, 301);
    site.server.stop();
}

fn command(report: &Value) -> String {
    let words = report["command"].as_array().unwrap().iter();
    let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
    words.join(" ")
}

#[test]
fn a_report_says_how_to_get_it_again() {
    let site = Site::new("again", "127.0.0.1:0");
    for line in [
        "--dscp ef -c 5 -i 1ms --control-timeout 9s",
        "--sessions 3 -c 10 -i 1ms --max-count 65536",
        "--dscp be,ef --threads 2 -c 11 -i 1ms --mode mixed",
        "--sessions 2 --duration 50ms --rate 200 --reflect-octets 8 --tos 186",
    ] {
        let (sessions, all) = reports(&site.controller(&format!("{line} --json")));
        for flag in ["--control-timeout 9s", "--max-count 65536"] {
            assert_eq!(command(&all).contains(flag), line.contains(flag), "{all:#}");
        }
        let (sessions_again, again) = reports(&run(&format!("{} --json", command(&all))));
        assert_eq!(command(&again), command(&all));
        for (one, again) in [(&all, &again)]
            .into_iter()
            .chain(sessions.iter().zip(&sessions_again))
        {
            assert_eq!(again["packets"]["sent"], one["packets"]["sent"], "{line}");
            assert_eq!(
                again["load"]["offered_pps"], one["load"]["offered_pps"],
                "{line}"
            );
            assert_eq!(again["load"]["seed"], one["load"]["seed"], "{line}");
            assert_eq!(
                again["path"]["dscp_sent"], one["path"]["dscp_sent"],
                "{line}"
            );
        }
        assert_eq!(sessions_again.len(), sessions.len(), "{line}");
        // And of each session, how to get that one alone.
        if let Some(one) = sessions.last() {
            let (others, again) = reports(&run(&format!("{} --json", command(one))));
            assert_eq!((others.len(), command(&again)), (0, command(one)));
            assert_eq!(again["packets"]["sent"], one["packets"]["sent"], "{line}");
            assert_eq!(
                again["path"]["dscp_sent"], one["path"]["dscp_sent"],
                "{line}"
            );
        }
    }
    site.server.stop();
}

#[test]
fn what_happens_is_told_of_each_session() {
    let site = Site::new("happens", "127.0.0.1:0");
    let shown = site.controller("--sessions 2 -c 3 -i 1ms --print-responses");
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.contains("session 2: Reply from"), "{shown:?}");
    assert!(!shown.stdout.contains("thread"), "{shown:?}");
    site.server.stop();
}

#[test]
fn more_sessions_than_the_system_allows_by_itself_files_for() {
    let site = Site::new("files", "127.0.0.1:0");
    let program = env!("CARGO_BIN_EXE_twamp-blast");
    let line = format!(
        "ulimit -Sn 64 && exec {program} controller {} --sessions 40 -c 2 -i 10ms --json",
        site.server.address()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &line])
        .output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert_eq!(output.stdout.split(|octet| *octet == b'\n').count(), 40 + 2);
    site.server.stop();
}

#[test]
fn each_feature_works_by_itself_and_with_the_others() {
    let site = Site::new("features", "127.0.0.1:0");
    let all = "--reflect-octets 8 --symmetrical-size --dscp-mode --individual-sessions \
               --timestamp-format ptp";
    for mode in MODES {
        for flags in [
            "--reflect-octets 8",
            "--reflect-octets",
            "--symmetrical-size",
            "--dscp-mode --dscp ef",
            "--individual-sessions --sessions 3",
            "--timestamp-format ptp",
            "--zero-addresses",
            "--zero-padding --padding 200",
            all,
        ] {
            let line = format!("--mode {mode} {flags} -c 20 -i 1ms --json");
            let (_, report) = reports(&site.controller(&line));
            let sent = if flags.contains("--sessions") { 60 } else { 20 };
            assert_no_loss(&report, sent);
            assert_eq!(report["packets"]["invalid"], 0, "{line}");
            if flags.starts_with("--dscp-mode") {
                assert_eq!(report["path"]["dscp_at_reflector"], 46, "{line}");
                assert_eq!(report["path"]["ecn_at_reflector"], 0, "{line}");
            }
            if !flags.contains("--padding") {
                let payload = &report["load"]["sizes"][0]["payload_bytes"];
                assert_eq!(report["path"]["reply_bytes"][0], *payload, "{line}");
            }
        }
    }
    site.server.stop();
    let site = Site::new("plain", "127.0.0.1:0 --features none");
    for (flag, name) in [
        ("--reflect-octets 8", "Reflect Octets"),
        ("--symmetrical-size", "Symmetrical Size"),
        ("--dscp-mode", "DSCP and ECN"),
        ("--individual-sessions", "Individual Session Control"),
    ] {
        let refused = site.controller(&format!("{flag} -c 5"));
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.complaint().contains(name), "{refused:?}");
    }
    site.server.stop();
}

#[test]
fn a_search_asks_for_a_session_for_each_trial() {
    let site = Site::new("search", "127.0.0.1:0");
    let found = site.controller(
        "--mode encrypted --find-rate --max-rate 2k --duration 100ms --padding 64 --json",
    );
    assert_eq!(found.code, 0, "{found:?}");
    let results = found.found_rates();
    assert_eq!(results.len(), 1);
    assert!(
        results[0]["rate_pps"].as_u64().is_some(),
        "{:#}",
        results[0]
    );
    let trials = results[0]["trials"].as_array().unwrap().len() as u64;
    let again = run(&format!("{} --json", command(&results[0])));
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(command(&again.found_rates()[0]), command(&results[0]));
    let account = site.server.stop();
    let sessions = account["totals"]["sessions"].as_u64().unwrap();
    assert!(sessions >= trials, "{account:#}");
}

#[test]
fn wrong_keys_are_refused_and_wrong_usage_is_one_line() {
    let site = Site::new("wrong", "127.0.0.1:0");
    let server = site.server.address();
    let other = Scratch::new("other.pass", "wrong\n");
    for line in [
        format!("--key-id alice --passphrase-file {}", other.path()),
        format!(
            "--key-id nobody --passphrase-file {}",
            site.passphrase.path()
        ),
    ] {
        let refused = run(&format!("controller {server} {line} -c 1"));
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.complaint().contains("key id or the passphrase"));
    }
    let empty = Scratch::new("empty.pass", "\nsecond\n");
    for (line, part) in [
        (format!("{server} --mode encrypted"), "--key-id"),
        (format!("{server} --key-id alice"), "--passphrase-file"),
        (
            format!("{server} --key-id alice --passphrase-file /nowhere/at/all"),
            "/nowhere/at/all",
        ),
        (
            format!("{server} --key-id alice --passphrase-file {}", empty.path()),
            "first line is empty",
        ),
        (format!("{server} --sessions 0"), "--sessions"),
        (format!("{server} --sessions 1001"), "--sessions"),
        (format!("{server} --max-count 1000"), "--max-count"),
        (format!("{server} --control-timeout 0"), "--control-timeout"),
        (format!("{server} --padding 70000"), "--padding"),
        (format!("{server} --mode secret"), "--mode"),
        (format!("{server} --find-rate --sessions 2"), "--find-rate"),
        (format!("{server} --loss 1%"), "--find-rate"),
        (":862".to_owned(), "SERVER"),
        ("224.0.0.1".to_owned(), "one host"),
        (String::new(), "SERVER"),
    ] {
        let wrong = run(&format!("controller {line} -c 1"));
        assert_eq!(wrong.code, 2, "{line}: {wrong:?}");
        assert!(wrong.complaint().contains(part), "{line}: {wrong:?}");
        assert_eq!(wrong.stdout, "");
    }
    // Only in the protected modes.
    let wrong = site.controller("--mode encrypted --payload-size 40 -c 1");
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.complaint().contains("48"), "{wrong:?}");
    let sender = run("sender 127.0.0.1:9 --dscp ef,be -c 1");
    assert_eq!(sender.code, 2);
    assert!(sender.complaint().contains("controller"), "{sender:?}");
    site.server.stop();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let refused = run(&format!("controller {} -c 1", nobody.unwrap()));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.complaint().contains("Connection refused"));
}

#[test]
fn a_count_that_costs_too_much_is_not_worked_for() {
    let site = Site::new("count", "127.0.0.1:0 --count 65536 --max-count 65536");
    let refused = site.controller("-c 1");
    assert_eq!(refused.code, 1, "{refused:?}");
    let complaint = refused.complaint();
    for part in ["65536", "--max-count"] {
        assert!(complaint.contains(part), "{refused:?}");
    }
    let report = site
        .controller("--max-count 65536 -c 3 -i 1ms --json")
        .measured();
    assert_no_loss(&report, 3);
    site.server.stop();
}

#[test]
fn a_session_begins_at_its_start_time() {
    let site = Site::new("start", "127.0.0.1:0");
    let before = Instant::now();
    let report = site
        .controller("--start-in 300ms -c 3 -i 1ms --json")
        .measured();
    assert_no_loss(&report, 3);
    assert!(before.elapsed().as_millis() >= 300);
    site.server.stop();
}

/// What a policy keeps from being answered is loss to the sender, and told by the server.
#[test]
fn packets_beyond_the_policy_are_told_by_the_server() {
    let policy = Scratch::new(
        "slow.toml",
        "[[network]]\nprefix = \"127.0.0.0/8\"\npacket_rate = \"100\"\n",
    );
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    let line = format!(
        "controller {} --rate 4k -c 1000 --packet-timeout 200ms --json",
        server.address()
    );
    let report = run(&line).measured();
    let lost = report["packets"]["lost_outbound"].as_u64().unwrap();
    assert!(lost > 100, "{report:#}");
    assert_eq!(report["packets"]["lost"], lost);
    let told = server.wait_for("packet_rate");
    let account = server.stop();
    let over = account["totals"]["over_limit"].as_u64().unwrap();
    // And what asked for the reflector's counter.
    assert!((lost..=lost + 3).contains(&over), "{account:#}");
    assert!(told.contains(&format!(": {over} of ")), "{told}");
}

#[test]
fn controlclient_holds_a_session_for_a_sender_elsewhere() {
    let server = Server::start("127.0.0.1:0 -v");
    // Free a moment ago.
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let line = format!(
        "controlclient 127.0.0.1:{port} {} --padding 27 --dscp ef",
        server.address()
    );
    let mut client = common::Running::start(&mut common::words(
        std::process::Command::new(common::binary()),
        &line,
    ));
    let mut granted = String::new();
    let mut octet = [0];
    let stdout = client.0.stdout.as_mut().unwrap();
    while !(granted.contains("may send to ") && granted.ends_with('\n')) {
        stdout.read_exact(&mut octet).unwrap();
        granted.push(char::from(octet[0]));
    }
    let (_, rest) = granted.split_once("may send to ").unwrap();
    let remote = rest.split(',').next().unwrap();
    server.wait_for("began");
    let report = run(&format!("sender {remote} :{port} -c 20 -i 1ms --json")).measured();
    assert_no_loss(&report, 20);
    assert_eq!(report["path"]["dscp_received"], 46);
    // Of somebody else nothing is answered.
    let other = run(&format!(
        "sender {remote} -c 3 -i 1ms --packet-timeout 100ms"
    ));
    assert_eq!(other.code, 5, "{other:?}");
    client.interrupt();
    assert_eq!(client.finish().code, 0);
    let account = server.stop();
    let totals = &account["totals"];
    assert_eq!(totals["reflected"], totals["received"], "{account:#}");
    assert_eq!(totals["strays"], 3, "{account:#}");
    assert_eq!(account["sessions"][0]["ending"], "stopped", "{account:#}");
}

#[test]
fn controlclient_ends_after_its_duration_and_reports_that_it_measured_nothing() {
    let server = Server::start("127.0.0.1:0");
    let line = format!(
        "controlclient 127.0.0.1:9 {} --duration 50ms --json",
        server.address()
    );
    let report = run(&line).measured();
    assert_eq!(report["role"], "controlclient");
    let command = report["command"].as_array().unwrap();
    let flag = |name: &str| {
        let at = command.iter().position(|word| word == name);
        at.map(|at| command[at + 1].clone())
    };
    assert_eq!(flag("--duration"), Some("50ms".into()), "{command:?}");
    assert_eq!(flag("--payload-size"), Some("41".into()), "{command:?}");
    assert_eq!(flag("--dscp"), Some("0".into()), "{command:?}");
    assert!(report["packets"]["sent"].is_null());
    assert!(report["sid"].is_string());
    let refused = run(&format!(
        "controlclient 192.0.2.7 {} --duration 1s",
        server.address()
    ));
    assert_eq!(refused.code, 4, "{refused:?}");
    for line in [
        "127.0.0.1",
        "127.0.0.1:9 127.0.0.1 --mode encrypted",
        "[::1]:9 127.0.0.1",
    ] {
        let wrong = run(&format!("controlclient {line} --duration 1s"));
        assert_eq!(wrong.code, 2, "{line}: {wrong:?}");
        wrong.complaint();
    }
    server.stop();
}

/// A server of one connection inside the test, around our state machine.
struct FakeServer {
    address: SocketAddr,
    thread: Option<JoinHandle<MemoryHost>>,
}

/// What is odd about it.
#[derive(Clone, Copy, Default)]
struct Habits {
    /// Modes of its greeting; 0: unauthenticated alone, as before there were others.
    modes: Option<Modes>,
    /// Grants this port whatever is asked for.
    port: Option<u16>,
    refuse: Option<Accept>,
    /// Closes as soon as this many octets have come.
    closes_after: Option<usize>,
    /// Says nothing to what comes after so many octets.
    silent_after: Option<usize>,
    /// Says more than it was asked for to what comes after so many octets.
    talks_after: Option<usize>,
    /// Closes when the sessions have started.
    leaves: bool,
    /// Sends its answers octet by octet.
    slowly: bool,
}

impl FakeServer {
    fn start(habits: Habits, mut on_start: impl FnMut() + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut host = MemoryHost {
                port: habits.port,
                refuse_grant: habits.refuse,
                ..MemoryHost::default()
            };
            let terms = Terms {
                modes: habits.modes.unwrap_or(Modes::UNAUTHENTICATED),
                count: Count::LEAST,
                start_time: Timestamp::from_raw(0),
                most_sessions: 10,
                patience: Patience::default(),
            };
            let mut machine = Machine::new(0, terms, Nonces::random());
            let (mut received, mut started) = (0, false);
            let mut buffer = [0; 4096];
            loop {
                send(&mut stream, &mut machine, habits.slowly);
                if machine.ended().is_some() {
                    break;
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        received += count;
                        if habits.closes_after.is_some_and(|after| received >= after) {
                            break;
                        }
                        if habits.silent_after.is_some_and(|after| received >= after) {
                            continue;
                        }
                        machine.receive(0, &buffer[..count], &mut host);
                        if habits.talks_after.is_some_and(|after| received >= after) {
                            // In one segment, so that both come at once.
                            let answer = [machine.output(), &[0; 16]].concat();
                            machine.sent(usize::MAX);
                            let _ = stream.write_all(&answer);
                        }
                    }
                }
                let runs = host.fates().contains(&Fate::Running);
                if runs && !std::mem::replace(&mut started, true) {
                    send(&mut stream, &mut machine, habits.slowly);
                    on_start();
                    if habits.leaves {
                        break;
                    }
                }
            }
            machine.disconnected(&mut host);
            host
        };
        Self {
            address,
            thread: Some(std::thread::spawn(serve)),
        }
    }

    /// What it was asked for.
    fn end(mut self) -> MemoryHost {
        self.thread.take().unwrap().join().unwrap()
    }
}

fn send(stream: &mut TcpStream, machine: &mut Machine, slowly: bool) {
    let output = machine.output().to_vec();
    let pieces = output.chunks(if slowly { 1 } else { output.len().max(1) });
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    machine.sent(output.len());
}

fn echo() -> FakeReflector {
    let mut seq = 0;
    FakeReflector::start(move |request| {
        seq += 1;
        vec![short_reply(request, seq - 1)]
    })
}

#[test]
fn the_port_of_the_answer_is_used_and_stop_counts_the_sessions() {
    let reflector = echo();
    let habits = Habits {
        port: Some(reflector.address.port()),
        slowly: true,
        ..Habits::default()
    };
    let server = FakeServer::start(habits, || {});
    let line = format!(
        "controller {} --test-port 4242 -c 10 -i 1ms --json",
        server.address
    );
    let report = run(&line).measured();
    assert_no_loss(&report, 10);
    assert_eq!(report["remote"], reflector.address.to_string());
    let host = server.end();
    assert_eq!(host.fates(), [Fate::Over(Ending::Stopped(Accept::Ok))]);
    let asked = host.requests[0];
    assert_eq!(asked.ends.receiver().port(), 4242);
    assert_eq!(
        asked.ends.sender().to_string(),
        report["local"].as_str().unwrap()
    );
    assert_eq!(asked.padding_len, 27);
    assert_eq!(asked.start_time.raw(), 0);
    assert!(host.remarks.is_empty(), "{:?}", host.remarks);
}

#[test]
fn where_nothing_comes_back_to_any_session_none_is_named() {
    let bind = |port: u16| UdpSocket::bind(("127.0.0.1", port));
    let silent = (30_000..60_000_u16)
        .step_by(7)
        .find_map(|port| Some((port, bind(port).ok()?, bind(port + 1).ok()?)));
    let (port, ..) = silent.as_ref().unwrap();
    let server = FakeServer::start(Habits::default(), || {});
    let outcome = run(&format!(
        "controller {} --test-port {port} --sessions 2 -c 2 -i 1ms --packet-timeout 50ms",
        server.address
    ));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let told = outcome.complaint();
    assert!(told.contains("nothing came back: no reply"), "{told}");
    server.end();
}

#[test]
fn addresses_are_left_out_where_that_is_asked_for() {
    let reflector = echo();
    let habits = Habits {
        port: Some(reflector.address.port()),
        ..Habits::default()
    };
    let server = FakeServer::start(habits, || {});
    let line = format!(
        "controller {} --zero-addresses --dscp ef -c 3 -i 1ms --json",
        server.address
    );
    assert_no_loss(&run(&line).measured(), 3);
    let asked = server.end().requests[0];
    assert!(asked.ends.sender().ip().is_unspecified() && asked.ends.sender().port() > 0);
    assert!(asked.ends.receiver().ip().is_unspecified());
    assert_eq!(asked.dscp, 46);
}

/// Servers are known to open their test port a little after Start-Ack.
#[test]
fn a_test_port_that_opens_late_is_waited_for() {
    // In which the port was not opened too early: another test's packet may have met a closed one.
    let anew = (0..20).find_map(|_| {
        let report = of_a_late_port();
        assert_no_loss(&report, 30);
        assert_eq!(report["packets"]["icmp_unreachable"], 0, "{report:#}");
        assert_eq!(report["packets"]["lost_outbound"], 0, "{report:#}");
        let notes = report["notes"].to_string();
        notes.contains("begun anew").then_some(notes)
    });
    let notes = anew.expect("a session that met a closed port");
    assert!(notes.contains("begun anew once"), "{notes}");
}

/// The report of a session whose test port opens once a packet has met it closed.
fn of_a_late_port() -> Value {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let habits = Habits {
        port: Some(port),
        ..Habits::default()
    };
    let (started, starts) = std::sync::mpsc::channel();
    let server = FakeServer::start(habits, move || {
        let _ = started.send(());
    });
    let opened = std::thread::spawn(move || {
        starts.recv_timeout(LIMIT).unwrap();
        closed_for_a_while();
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let mut seq = 0;
        FakeReflector::start_on(socket, move |request, _| {
            seq += 1;
            vec![short_reply(request, seq - 1)]
        })
    });
    let line = format!("controller {} -c 30 -i 5ms --json", server.address);
    let report = run(&line).measured();
    drop(opened.join().unwrap());
    server.end();
    report
}

/// Waits until this host's count of datagrams to closed ports has gone up: it is of the whole host, so
/// that it may be another one's.
fn closed_for_a_while() {
    let no_ports = || -> u64 {
        let text = std::fs::read_to_string("/proc/net/snmp").unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
        let names = lines.next().unwrap().split_whitespace();
        let values: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        let at = names
            .into_iter()
            .position(|name| name == "NoPorts")
            .unwrap();
        values[at].parse().unwrap()
    };
    let (before, until) = (no_ports(), Instant::now() + LIMIT);
    while no_ports() == before {
        assert!(Instant::now() < until, "no packet meets a closed port");
        std::thread::yield_now();
    }
}

#[test]
fn refusals_are_told_as_text_and_end_with_4() {
    for (accept, text) in [
        (Accept::Failure, "failure"),
        (Accept::NotSupported, "not supported"),
        (Accept::TemporaryLimit, "temporary resource"),
        (Accept::Reserved(17), "reserved (17)"),
    ] {
        let habits = Habits {
            refuse: Some(accept),
            ..Habits::default()
        };
        let server = FakeServer::start(habits, || {});
        let refused = run(&format!("controller {} -c 1", server.address));
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.complaint().contains(text), "{refused:?}");
        server.end();
    }
}

#[test]
fn servers_that_close_or_say_nothing_are_not_waited_for() {
    // In place of Server-Start, of Accept-Session, and of Start-Ack.
    for (after, part) in [
        (164, "Server-Start"),
        (164 + 112, "Accept-Session"),
        (164 + 112 + 32, "Start-Ack"),
    ] {
        for closes in [true, false] {
            let habits = Habits {
                closes_after: Some(after).filter(|_| closes),
                silent_after: Some(after).filter(|_| !closes),
                port: Some(9),
                ..Habits::default()
            };
            let server = FakeServer::start(habits, || {});
            let line = format!("controller {} -c 1 --control-timeout 200ms", server.address);
            let failed = run(&line);
            assert_eq!(failed.code, 1, "{failed:?}");
            assert!(failed.complaint().contains(part), "{failed:?}");
            server.end();
        }
    }
}

#[test]
fn a_server_that_goes_in_between_is_told_with_what_it_had_granted() {
    let habits = Habits {
        closes_after: Some(164 + 2 * 112),
        port: Some(9),
        ..Habits::default()
    };
    let server = FakeServer::start(habits, || {});
    let failed = run(&format!("controller {} --sessions 3 -c 3", server.address));
    assert_eq!(failed.code, 1, "{failed:?}");
    let told = failed.complaint();
    assert!(told.contains("it had granted 1 of 3 sessions"), "{told}");
    // There is no key, and the mode was agreed on.
    assert!(!told.contains("passphrase"), "{told}");
    server.end();
}

#[test]
fn a_server_that_says_more_than_it_was_asked_for_is_at_fault_and_not_the_user() {
    for after in [164, 164 + 112] {
        let habits = Habits {
            talks_after: Some(after),
            port: Some(9),
            ..Habits::default()
        };
        let server = FakeServer::start(habits, || {});
        let failed = run(&format!("controller {} -c 1", server.address));
        assert_eq!(failed.code, 1, "{failed:?}");
        let complaint = failed.complaint();
        assert!(complaint.contains("without being asked"), "{failed:?}");
        server.end();
    }
}

#[test]
fn a_server_that_turns_clients_away_or_has_only_unknown_modes_is_left() {
    for modes in [Modes::NONE, Modes::from_bits(1 << 20)] {
        let habits = Habits {
            modes: Some(modes),
            ..Habits::default()
        };
        let server = FakeServer::start(habits, || {});
        let refused = run(&format!("controller {} -c 1", server.address));
        assert_eq!(refused.code, 4, "{refused:?}");
        refused.complaint();
        server.end();
    }
}

/// What was measured is shown, and marked.
#[test]
fn a_connection_that_ends_in_the_middle_is_told_with_the_figures() {
    let reflector = echo();
    let habits = Habits {
        port: Some(reflector.address.port()),
        leaves: true,
        ..Habits::default()
    };
    let server = FakeServer::start(habits, || {});
    let outcome = run(&format!(
        "controller {} -c 100 -i 5ms --json",
        server.address
    ));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let report = outcome.report();
    assert_no_loss(&report, 100);
    assert!(
        report["notes"]
            .to_string()
            .contains("control connection ended")
    );
    assert!(outcome.complaint().contains("control connection ended"));
    assert_eq!(server.end().fates(), [Fate::Over(Ending::Lost)]);
}
