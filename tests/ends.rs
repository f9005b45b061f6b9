//! What ends a run from outside, and who cannot stop one: signals, readers who go away or stall, logs
//! that cannot be written.

#![allow(clippy::disallowed_methods, reason = "a test has a limit of time")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::server::{KEYS, Peer, Scratch, Server};
use common::{FakeReflector, LIMIT, Outcome, Reflector, Running, binary, short_reply, words};
use serde_json::Value;
use twamp_blast::control::client::End;
use twamp_blast::wire::{Accept, Modes};

fn signal(child: &Running, name: &str) {
    let kill = format!("kill -{name} {}", child.0.id());
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// A reflector that tells of each request.
fn telling() -> (FakeReflector, Receiver<()>) {
    let (tx, requests) = channel();
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        // The test may have seen enough.
        let _ = tx.send(());
        number += 1;
        vec![short_reply(request, number - 1)]
    });
    (reflector, requests)
}

fn some(requests: &Receiver<()>) {
    for _ in 0..5 {
        requests.recv_timeout(LIMIT).expect("requests come");
    }
}

fn report_of(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, 130, "{outcome:?}");
    let report = outcome.report();
    assert_eq!(report["interrupted"], true, "{report:#}");
    assert!(
        report["packets"]["received"].as_u64().unwrap() >= 4,
        "{report:#}"
    );
    report
}

#[test]
fn a_hangup_ends_a_sender_and_a_controller_with_their_reports() {
    let (reflector, requests) = telling();
    let line = format!(
        "sender {} -i 20ms --duration 600s --json",
        reflector.address
    );
    let sender = Running::start(&mut words(Command::new(binary()), &line));
    some(&requests);
    signal(&sender, "HUP");
    report_of(&sender.finish());

    let server = Server::start("127.0.0.1:0 -v");
    let line = format!("controller {} -i 20ms --duration 600s", server.address());
    let line = format!("{line} --print-responses --json");
    let mut controller = Running::start(&mut words(Command::new(binary()), &line));
    // Its replies are told on standard error.
    let mut stderr = BufReader::new(controller.0.stderr.take().unwrap());
    let mut told = String::new();
    while told.matches("Reply from").count() < 5 {
        assert!(stderr.read_line(&mut told).unwrap() > 0, "{told}");
    }
    signal(&controller, "HUP");
    let stdout = Running::finish_with(controller, stderr);
    report_of(&stdout);
    server.stop();
}

#[test]
fn a_hangup_that_was_ignored_from_the_start_ends_nothing() {
    let (reflector, requests) = telling();
    let line = format!(
        "trap '' HUP; exec {} sender {} -i 20ms --duration 600s --json",
        binary(),
        reflector.address
    );
    let sender = Running::start(Command::new("sh").args(["-c", &line]));
    some(&requests);
    signal(&sender, "HUP");
    let before: usize = requests.try_iter().count();
    for _ in 0..20 {
        requests.recv_timeout(LIMIT).expect("requests still come");
    }
    sender.interrupt();
    let report = report_of(&sender.finish());
    let sent = report["packets"]["sent"].as_u64().unwrap();
    assert!(sent >= u64::try_from(before).unwrap() + 20, "{report:#}");
}

#[test]
fn a_hangup_ends_a_reflector_or_has_it_open_its_log_again() {
    let line = "reflector 127.0.0.1:0 --json";
    let mut reflector = Running::start(&mut words(Command::new(binary()), line));
    let mut stderr = BufReader::new(reflector.0.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("reflecting on") {
        assert!(stderr.read_line(&mut told).unwrap() > 0, "{told}");
    }
    signal(&reflector, "HUP");
    let outcome = Running::finish_with(reflector, stderr);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(
        outcome.stdout.contains("twamp-blast/reflector/1"),
        "{outcome:?}"
    );

    let log = Scratch::new("rotated.log", "");
    let old = Scratch::new("rotated.log.1", "");
    let reflector = Reflector::start(&format!("127.0.0.1:0 -v -l {} --json", log.path()));
    let one = format!("sender {} -c 1 -q", reflector.address());
    assert_eq!(common::run(&one).code, 0);
    wait_for(|| fs::read_to_string(log.path()).unwrap().contains("began"));
    fs::rename(log.path(), old.path()).unwrap();
    reflector.signal("HUP");
    wait_for(|| fs::exists(log.path()).unwrap());
    // It goes on, and into the new file.
    assert_eq!(common::run(&one).code, 0);
    wait_for(|| fs::read_to_string(log.path()).unwrap().contains("began"));
    assert_eq!(reflector.stop().account()["totals"]["sessions"], 2);
}

/// Waits until something holds.
fn wait_for(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < until, "in vain");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_log_that_cannot_be_written_is_said() {
    let mut reflector = Reflector::start("127.0.0.1:0 -v -l /dev/full --json");
    let one = format!("sender {} -c 1 -q", reflector.address());
    assert_eq!(common::run(&one).code, 0);
    let mut line = reflector.next_line();
    while !line.contains("--logfile") {
        line = reflector.next_line();
    }
    assert!(line.contains("/dev/full: lines are lost: "), "{line}");
    assert_eq!(reflector.stop().account()["totals"]["reflected"], 1);
}

#[test]
fn a_reader_who_goes_away_ends_the_run() {
    let (reflector, requests) = telling();
    // The second one writes nothing before its end.
    for how in ["--stats-interval 100ms", "--json"] {
        let line = format!(
            "sender {} -q -i 20ms --duration 600s {how}",
            reflector.address
        );
        let mut sender = Running::start(&mut words(Command::new(binary()), &line));
        let mut stdout = BufReader::new(sender.0.stdout.take().unwrap());
        if how != "--json" {
            stdout.read_line(&mut String::new()).unwrap();
        }
        some(&requests);
        drop(stdout);
        let stderr = BufReader::new(sender.0.stderr.take().unwrap());
        let outcome = Running::finish_with(sender, stderr);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{how}");
    }
}

/// A stream that nobody reads, full.
fn fill(stream: &UnixStream) {
    let mut end = stream;
    end.set_nonblocking(true).unwrap();
    loop {
        match end.write(&[b'x'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    end.set_nonblocking(false).unwrap();
}

#[test]
fn a_stalled_reader_of_messages_stops_no_server() {
    let keys = Scratch::new("stalled", KEYS);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let line = format!("server 127.0.0.1:0 --keys-file {} -v --json", keys.path());
    let mut command = words(Command::new(binary()), &line);
    let stderr = std::os::fd::OwnedFd::from(theirs.try_clone().unwrap());
    command.stdout(Stdio::piped()).stderr(Stdio::from(stderr));
    let mut server = Running(command.spawn().unwrap());
    // Its address, and then nothing any more.
    let mut hello = String::new();
    let mut ours = BufReader::new(ours);
    ours.get_ref().set_read_timeout(Some(LIMIT)).unwrap();
    while !hello.contains("offering") {
        assert!(ours.read_line(&mut hello).unwrap() > 0, "{hello}");
    }
    fill(&theirs);
    let first = hello
        .lines()
        .find_map(|line| line.split_once("serving on "));
    let address = first.unwrap().1.parse().unwrap();

    for _ in 0..5 {
        let mut guess = Peer::new(address, Modes::ENCRYPTED, Some(("alice", "wrong")));
        assert_eq!(guess.set_up(), Err(End::Refused(Accept::Failure)));
    }
    let alice = Some(("alice", "open sesame"));
    let mut peer = Peer::ready(address, Modes::ENCRYPTED, alice);
    peer.whole_session();
    peer.leave();
    // One Ctrl-C ends it, with its account.
    server.interrupt();
    let stdout = server.0.stdout.take().unwrap();
    let account = read_in_time(stdout);
    let account: Value = serde_json::from_str(&account).unwrap();
    assert_eq!(account["totals"]["wrong_key"], 5, "{account:#}");
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stalled_reader_of_messages_stops_no_sender() {
    let (reflector, requests) = telling();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    fill(&theirs);
    let line = format!(
        "sender {} -d -i 1ms --duration 600s --json",
        reflector.address
    );
    let mut command = words(Command::new(binary()), &line);
    let stderr = std::os::fd::OwnedFd::from(theirs.try_clone().unwrap());
    command.stdout(Stdio::piped()).stderr(Stdio::from(stderr));
    let mut sender = Running(command.spawn().unwrap());
    // Enough for the lines of all packets to find no room.
    for _ in 0..3_000 {
        requests.recv_timeout(LIMIT).expect("requests come");
    }
    sender.interrupt();
    let report = read_in_time(sender.0.stdout.take().unwrap());
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["interrupted"], true, "{report:#}");
    assert_eq!(sender.0.wait().unwrap().code(), Some(130));
}

/// What a pipe has until its end, which must come.
fn read_in_time(mut pipe: impl Read + Send + 'static) -> String {
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        // The test may have given up.
        let _ = tx.send(text);
    });
    rx.recv_timeout(LIMIT + Duration::from_secs(1))
        .expect("it ends")
}
