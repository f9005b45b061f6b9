//! Known defects of the tools that this one replaces, each as the behaviour that must not come back.
//!
//! That drops of our own socket are not the path's loss is tested where the verdict is made: a real
//! overflow depends on the host's mood.

mod common;

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{FakeReflector, LIMIT, Reflector, assert_no_loss, ntp_now, request, run, short_reply};
use nix::cmsg_space;
use nix::sys::socket::sockopt::IpRecvTos;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};
use serde_json::{Value, json};

/// The TOS octets of the datagrams that `twamp-blast sender LINE` sends.
fn tos_of(line: &str) -> BTreeSet<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    setsockopt(&socket, IpRecvTos, &true).unwrap();
    let remote = socket.local_addr().unwrap();
    let outcome = run(&format!(
        "sender {remote} -i 1ms -c 3 --packet-timeout 50ms {line}"
    ));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    // What was sent over loopback has arrived.
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let mut octets = [0; 64];
        let mut buffers = [IoSliceMut::new(&mut octets)];
        let mut space = cmsg_space!(u8);
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let message = recvmsg::<SockaddrIn>(fd, &mut buffers, Some(&mut space), flags).unwrap();
        seen.extend(message.cmsgs().unwrap().filter_map(|told| match told {
            ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
            _ => None,
        }));
    }
    seen
}

#[test]
fn dscp_is_the_upper_six_bits_of_the_tos_octet() {
    for dscp in ["ef", "EF", "46", "0x2e", "Cp46"] {
        assert_eq!(
            tos_of(&format!("--dscp {dscp}")),
            [0xb8].into(),
            "--dscp {dscp}"
        );
    }
    assert_eq!(tos_of("--tos 0xb9"), [0xb9].into());
    assert_eq!(tos_of(""), [0].into());
}

#[test]
fn our_reflector_answers_in_the_class_of_the_request() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -i 1ms -c 5", reflector.address());
    let path = run(&format!("{line} --dscp ef --json")).measured()["path"].clone();
    assert_eq!(path["dscp_sent"], 46, "{path}");
    assert_eq!(path["dscp_received"], 46, "{path}");
    assert_eq!(path["ecn_received"], 0, "{path}");
}

/// A socket that asks our reflector, with a TTL of its own.
fn asking(reflector: &Reflector) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(reflector.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_ttl(77).unwrap();
    socket
}

fn answer(socket: &UdpSocket) -> Vec<u8> {
    let mut reply = vec![0; 65_536];
    let len = socket.recv(&mut reply).expect("the reflector answers");
    reply.truncate(len);
    reply
}

#[test]
fn our_reflector_writes_two_timestamps_and_the_ttl_that_it_saw() {
    let reflector = Reflector::start("127.0.0.1:0");
    let socket = asking(&reflector);
    let sent = request(5);
    socket.send(&sent).unwrap();
    let reply = answer(&socket);
    assert_eq!(reply.len(), 41);
    let stamp = |at: usize| u64::from_be_bytes(reply[at..at + 8].try_into().unwrap());
    let (t3, t2) = (stamp(4), stamp(16));
    assert!(t2 < t3, "T2 {t2:x}, T3 {t3:x}");
    assert_eq!(reply[24..38], sent, "the sender's fields");
    assert_eq!(reply[40], 77, "Sender TTL");
}

#[test]
fn our_reflector_answers_as_many_octets_as_it_was_sent() {
    let reflector = Reflector::start("127.0.0.1:0");
    let socket = asking(&reflector);
    for len in [228, 41, 1472, 9217] {
        let mut sent = request(0);
        sent.resize(len, 0);
        socket.send(&sent).unwrap();
        assert_eq!(answer(&socket).len(), len);
    }
}

#[test]
fn our_reflector_survives_a_datagram_of_3_octets() {
    let reflector = Reflector::start("127.0.0.1:0");
    let socket = asking(&reflector);
    socket.send(&[1, 2, 3]).unwrap();
    socket.send(&request(9)).unwrap();
    // The first and only answer is that to the request.
    assert_eq!(answer(&socket)[24..28], 9_u32.to_be_bytes());
    let summary = reflector.stop();
    assert_eq!(summary.count("invalid"), 1, "{}", summary.0);
    assert_eq!(summary.count("reflected"), 1, "{}", summary.0);
}

#[test]
fn a_run_does_not_end_at_the_last_sequence_number() {
    const COUNT: u32 = 50;
    let (mut held, mut number) = (Vec::new(), 0);
    let reflector = FakeReflector::start(move |request| {
        let reply = short_reply(request, number);
        number += 1;
        if number < COUNT {
            held.push(reply);
            return Vec::new();
        }
        // The last one first; then, once, all others.
        let mut replies = vec![reply];
        replies.append(&mut held);
        replies
    });
    let line = format!("sender {} -i 1ms -c {COUNT} --json", reflector.address);
    let report = run(&line).measured();
    assert_no_loss(&report, COUNT.into());
    assert_eq!(report["packets"]["reordered"], COUNT - 1, "{report:#}");
    assert_eq!(report["delay_ns"]["roundtrip"]["samples"], COUNT);
}

/// Processor time of the whole run, in seconds.
fn cpu(report: &Value) -> f64 {
    let cpu = &report["host"]["cpu"];
    cpu["user_seconds"].as_f64().unwrap() + cpu["system_seconds"].as_f64().unwrap()
}

#[test]
fn waiting_takes_no_core() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -i 100ms -c 10 --json", reflector.address());
    let report = run(&line).measured();
    assert!(cpu(&report) < 0.45, "of 0.9 s: {report:#}");

    // Nor does the wait for replies that never come.
    let silent = FakeReflector::start(|_| Vec::new());
    let line = format!("sender {} -c 1 --packet-timeout 1s --json", silent.address);
    let report = run(&line).report();
    assert!(cpu(&report) < 0.5, "of 1 s: {report:#}");
}

#[test]
fn total_loss_is_exit_5_and_said() {
    let silent = FakeReflector::start(|_| Vec::new());
    let line = format!(
        "sender {} -i 1ms -c 10 --packet-timeout 50ms",
        silent.address
    );
    for stats in ["brief", "normal", "full"] {
        let outcome = run(&format!("{line} --stats {stats}"));
        assert_eq!(outcome.code, 5, "{outcome:?}");
        assert!(outcome.stdout.contains("100 % loss"), "{outcome:?}");
        assert!(outcome.complaint().contains("nothing came back"));
    }
}

#[test]
fn duplicates_spoil_neither_delay_nor_loss() {
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let reply = short_reply(request, number);
        number += 1;
        vec![reply.clone(), reply]
    });
    let line = format!("sender {} -i 1ms -c 60 --json", reflector.address);
    let report = run(&line).measured();
    assert_no_loss(&report, 60);
    let packets = &report["packets"];
    for (field, count) in [
        ("duplicates", 60),
        ("duplicates_inbound", 60),
        ("duplicates_outbound", 0),
        ("lost_outbound", 0),
        ("lost_inbound", 0),
        ("reordered", 0),
    ] {
        assert_eq!(packets[field], count, "{field}: {packets:#}");
    }
    let roundtrip = &report["delay_ns"]["roundtrip"];
    assert_eq!(roundtrip["samples"], 60);
    assert!(roundtrip["min"].as_i64().unwrap() > 0, "{roundtrip:#}");
}

#[test]
fn packets_that_somebody_else_sends_from_our_port_turn_no_direction_of_loss_round() {
    // It cannot tell them from ours: their replies come here, and have numbers of the same counter.
    let (mut number, mut lost, mut forged) = (0, 0, 0);
    let reflector = FakeReflector::start(move |request| {
        let seq = u32::from_be_bytes(request[..4].try_into().unwrap());
        let mut replies = Vec::new();
        if seq % 15 == 4 && forged < 20 {
            let mut other = common::request(seq.wrapping_mul(7));
            // Its clock is not ours.
            other[4] ^= 1;
            replies.push(short_reply(&other, number));
            (number, forged) = (number + 1, forged + 1);
        }
        if seq % 9 == 5 && lost < 31 {
            lost += 1;
        } else {
            replies.push(short_reply(request, number));
            number += 1;
        }
        replies
    });
    let timeout = "--packet-timeout 500ms";
    let line = format!(
        "sender {} -i 1ms -c 300 {timeout} --json",
        reflector.address
    );
    let report = run(&line).measured();
    let packets = &report["packets"];
    for (field, count) in [
        ("received", 269),
        ("lost_outbound", 31),
        ("lost_inbound", 0),
        ("lost_unattributed", 0),
        ("invalid", 20),
        ("probes", 0),
    ] {
        assert_eq!(packets[field], count, "{field}: {packets:#}");
    }
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("answered 20 packets that are not of this session"),
        "{notes}"
    );
}

#[test]
fn a_reflector_that_tells_neither_ttl_nor_its_own_time_is_measured() {
    let shapes: [fn(Vec<u8>) -> Vec<u8>; 2] = [
        // twampy's 38 octets, and with padding of its own: zeros where the Sender TTL would be.
        |reply| reply,
        |reply| [reply, vec![0; 27]].concat(),
    ];
    for shape in shapes {
        let mut number = 0;
        let reflector = FakeReflector::start(move |request| {
            let reply = short_reply(request, number);
            number += 1;
            vec![shape(reply)]
        });
        let line = format!("sender {} -i 1ms -c 40", reflector.address);
        let report = run(&format!("{line} --json")).measured();
        assert_no_loss(&report, 40);
        assert_eq!(report["packets"]["lost_outbound"], 0);
        assert_eq!(report["path"]["hops_outbound"], Value::Null);
        assert_eq!(report["delay_ns"]["reflector"], Value::Null);
        for direction in ["roundtrip", "outbound", "inbound"] {
            assert_eq!(report["delay_ns"][direction]["samples"], 40);
        }
        let len = if shape(Vec::new()).is_empty() { 38 } else { 65 };
        assert_eq!(report["path"]["reply_bytes"], json!([len]));
    }

    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        number += 1;
        vec![short_reply(request, number - 1)]
    });
    for stats in ["normal", "full"] {
        let line = format!("sender {} -i 1ms -c 40 --stats {stats}", reflector.address);
        let outcome = run(&line);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let mut lines = outcome.stdout.lines();
        let path = lines.clone().find(|line| line.starts_with("Path")).unwrap();
        assert!(path.contains("hops not told outbound"), "{path}");
        let own = if stats == "full" {
            "  Max "
        } else {
            "  Reflector:"
        };
        let own = lines.find(|line| line.starts_with(own)).unwrap();
        assert!(own.ends_with("not told"), "{own}");
        let note = "the reflector does not tell its own time";
        assert!(outcome.stdout.replace("\n      ", " ").contains(note));
    }
}

#[test]
fn a_probe_is_waited_for_as_long_as_its_answer_takes() {
    const DELAY: Duration = Duration::from_millis(30);

    // The last packet is lost before the reflector, and nothing but a probe can tell.
    let (mut number, mut lost) = (0, false);
    let reflector = FakeReflector::start(move |request| {
        if request[..4] == 9_u32.to_be_bytes() && !lost {
            lost = true;
            return Vec::new();
        }
        // The length of the path.
        std::thread::sleep(DELAY);
        number += 1;
        vec![short_reply(request, number - 1)]
    });
    let line = format!("sender {} -i 50ms -c 10 --json", reflector.address);
    let report = run(&line).measured();
    let packets = &report["packets"];
    assert_eq!(
        (&packets["sent"], &packets["received"]),
        (&json!(10), &json!(9))
    );
    assert_eq!(packets["lost_outbound"], 1, "{packets:#}");
    assert_eq!(
        (&packets["lost_inbound"], &packets["lost_unattributed"]),
        (&json!(0), &json!(0))
    );
    let least = report["delay_ns"]["roundtrip"]["min"].as_u64().unwrap();
    assert!(Duration::from_nanos(least) >= DELAY, "{least}");
}

#[test]
fn a_negative_delay_is_shown_and_not_clamped() {
    let reflector = FakeReflector::start(|request| {
        let mut now = u64::from_be_bytes(ntp_now());
        // A clock that is ten seconds behind.
        now -= 10 << 32;
        let mut reply = short_reply(request, 0);
        reply[..4].copy_from_slice(&request[..4]);
        reply[4..12].copy_from_slice(&now.to_be_bytes());
        reply[16..24].copy_from_slice(&now.to_be_bytes());
        vec![reply]
    });
    let line = format!("sender {} -i 1ms -c 20", reflector.address);
    let report = run(&format!("{line} --json")).measured();
    let outbound = &report["delay_ns"]["outbound"];
    assert!(
        outbound["max"].as_i64().unwrap() < -5_000_000_000,
        "{outbound:#}"
    );
    let clock = &report["timestamps"]["clock"];
    let offset = &clock["offset_estimate_ns"];
    assert!(offset.as_i64().unwrap() < -9_000_000_000, "{offset}");
    // Its Error Estimates do not say that it is synchronised.
    assert_eq!(clock["remote_synchronised"], false, "{clock}");
    let text = run(&line).stdout;
    let row = text.lines().find(|line| line.contains("Outbound")).unwrap();
    assert!(row.contains(" -"), "{row}");
}

/// What the notes of a report say.
fn notes_of(report: &Value) -> String {
    report["notes"].to_string()
}

#[test]
fn no_note_tells_of_a_direction_that_is_not_told() {
    // Numbers that jump about, with every fourth reply missing.
    let mut made = 0_u32;
    let reflector = FakeReflector::start(move |request| {
        made += 1;
        let number = 1000 + made.wrapping_mul(0x9e37_79b9);
        let answered = !made.is_multiple_of(4);
        answered
            .then(|| short_reply(request, number))
            .into_iter()
            .collect()
    });
    let line = format!("sender {} -i 1ms -c 100 --json", reflector.address);
    let report = run(&format!("{line} --packet-timeout 200ms")).measured();
    assert_eq!(report["packets"]["lost"], 25, "{report}");
    assert_eq!(report["packets"]["lost_outbound"], Value::Null, "{report}");
    let notes = notes_of(&report);
    assert!(notes.contains("is not told"), "{notes}");
    assert!(!notes.contains("is told from"), "{notes}");
}

#[test]
fn a_reply_from_elsewhere_does_not_make_its_packet_lost() {
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut number = 0;
    let reflector = FakeReflector::start_with_peer(move |request, from| {
        let reply = short_reply(request, number);
        number += 1;
        elsewhere.send_to(&reply, from).unwrap();
        vec![reply]
    });
    let line = format!("sender {} -i 1ms -c 10 --json", reflector.address);
    let report = run(&line).measured();
    assert_no_loss(&report, 10);
    let notes = notes_of(&report);
    assert!(notes.contains("not from the Session-Reflector"), "{notes}");
    assert!(!notes.contains("lost"), "{notes}");
}

/// NTP's 0 is no time: read as one, it would be a delay of years.
#[test]
fn replies_without_a_time_have_no_delay() {
    for blank in [4..12, 16..24] {
        let mut number = 0;
        let at = blank.clone();
        let reflector = FakeReflector::start(move |request| {
            let mut reply = short_reply(request, number);
            number += 1;
            reply[at.clone()].fill(0);
            vec![reply]
        });
        let line = format!("sender {} -i 1ms -c 20 --json", reflector.address);
        let report = run(&line).measured();
        assert_no_loss(&report, 20);
        for way in ["roundtrip", "outbound", "inbound", "reflector"] {
            assert!(report["delay_ns"][way].is_null(), "{blank:?} {way}");
        }
        assert_eq!(report["packets"]["rejected_samples"], 20, "{blank:?}");
        assert!(report["notes"].to_string().contains("tell no time"));
    }
}
