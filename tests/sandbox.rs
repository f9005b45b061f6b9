//! The real binary where the system refuses calls, as the sandboxes of containers and service managers
//! do: what this host did is never taken for the path's.

#![cfg(target_os = "linux")]

mod common;

use std::net::UdpSocket;
use std::process::Command;

use common::sandbox::{Refused, confine, option, refused};
use common::server::Server;
use common::{Outcome, Reflector, Running, Summary, assert_no_loss, binary, request, skip, words};
use libc::{EACCES, EIO, ENOMEM, ENOSYS, EPERM};
use serde_json::Value;

const RECVMMSG: libc::c_long = libc::SYS_recvmmsg;
const RECVMSG: libc::c_long = libc::SYS_recvmsg;
const SENDMMSG: libc::c_long = libc::SYS_sendmmsg;
const SENDMSG: libc::c_long = libc::SYS_sendmsg;

/// The program where these calls are refused.
fn confined(calls: &[Refused]) -> Command {
    confine(Command::new(binary()), calls)
}

/// Runs `twamp-blast LINE` there; `None` where there are no such filters.
fn run(calls: &[Refused], line: &str) -> Option<Outcome> {
    match Running::try_start(&mut words(confined(calls), line)) {
        Ok(running) => Some(running.finish()),
        Err(why) => {
            skip(&why);
            None
        }
    }
}

/// Whether programs can be confined here; says so where not.
fn can_confine() -> bool {
    run(&[], "dscptable").is_some()
}

fn names(calls: &Value) -> Vec<(&str, &str)> {
    let calls = calls.as_array().unwrap().iter();
    calls
        .map(|call| {
            (
                call["call"].as_str().unwrap(),
                call["errno"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn where_calls_for_many_packets_are_refused_each_packet_takes_one() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!("sender {} -c 300 -i 1ms --json", reflector.address());
    for (calls, expected) in [
        (
            vec![refused(RECVMMSG, ENOSYS)],
            vec![("recvmmsg", "ENOSYS")],
        ),
        (vec![refused(SENDMMSG, EPERM)], vec![("sendmmsg", "EPERM")]),
        (
            vec![refused(RECVMMSG, EIO), refused(SENDMMSG, EACCES)],
            vec![("recvmmsg", "EIO"), ("sendmmsg", "EACCES")],
        ),
        (
            vec![refused(RECVMMSG, ENOMEM)],
            vec![("recvmmsg", "ENOMEM")],
        ),
    ] {
        let Some(outcome) = run(&calls, &line) else {
            return;
        };
        let report = outcome.measured();
        let case = format!("{calls:?}: {report:#}");
        assert_no_loss(&report, 300);
        assert_eq!(report["host"]["io"], "single", "{case}");
        assert_eq!(names(&report["host"]["refused_calls"]), expected, "{case}");
        assert!(report["host"]["failure"].is_null(), "{case}");
        assert_eq!(report["timestamps"]["t4"], "kernel", "{case}");
        assert_eq!(report["timestamps"]["t1"], "kernel", "{case}");
        assert_eq!(report["packets"]["rejected_samples"], 0, "{case}");
        assert_eq!(report["delay_ns"]["inbound"]["samples"], 300, "{case}");
        let note = format!("({}: ", expected[0].0);
        assert!(report["notes"].to_string().contains(&note), "{case}");
    }
    let line = format!("sender {} -c 10 -i 1ms --json", reflector.address());
    let calm = common::run(&line).measured();
    assert_eq!(calm["host"]["io"], "batched");
    assert_eq!(calm["host"]["refused_calls"], serde_json::json!([]));
}

/// Where nobody can wait for an event, threads look once in a while, and do not spin.
#[test]
fn a_wait_that_is_refused_is_no_reason_to_spin() {
    let reflector = Reflector::start("127.0.0.1:0");
    let calls = [
        refused(libc::SYS_epoll_pwait, EPERM),
        #[cfg(target_arch = "x86_64")]
        refused(libc::SYS_epoll_wait, EPERM),
    ];
    let line = format!("sender {} -c 20 -i 100ms --json", reflector.address());
    let Some(outcome) = run(&calls, &line) else {
        return;
    };
    let report = outcome.measured();
    assert_no_loss(&report, 20);
    let cpu = &report["host"]["cpu"];
    let used = ["user_seconds", "system_seconds"].map(|part| cpu[part].as_f64().unwrap());
    // Each of two threads that spin takes two seconds.
    assert!(used.iter().sum::<f64>() < 1.0, "{report:#}");
}

#[test]
fn a_sleep_that_is_refused_ends_nothing() {
    let calls = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].map(|call| refused(call, EPERM));
    let Some(outcome) = run(&calls, "sender -c 100 -i 1ms --json") else {
        return;
    };
    assert_no_loss(&outcome.measured(), 100);
}

#[test]
fn trains_and_bundles_need_no_calls_for_many_packets() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!(
        "sender {} -c 4000 --rate 20k --burst 8 --json",
        reflector.address()
    );
    let calls = [refused(RECVMMSG, ENOSYS), refused(SENDMMSG, ENOSYS)];
    let Some(outcome) = run(&calls, &line) else {
        return;
    };
    let report = outcome.measured();
    assert_no_loss(&report, 4000);
    assert_eq!(report["host"]["io"], "offload", "{report:#}");
    assert_eq!(names(&report["host"]["refused_calls"]).len(), 2);
}

#[test]
fn a_session_that_cannot_receive_ends_with_exit_1_and_the_error() {
    let reflector = Reflector::start("127.0.0.1:0");
    // The last one is an error that the network may tell, but not without end.
    for (errno, name) in [(EPERM, "EPERM"), (EIO, "EIO"), (EACCES, "EACCES")] {
        let calls = [refused(RECVMMSG, ENOSYS), refused(RECVMSG, errno)];
        let remote = reflector.address();
        let line = format!("sender {remote} --rate 1k --duration 1h");
        let Some(outcome) = run(&calls, &format!("{line} --json")) else {
            return;
        };
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.complaint().contains("refuses recvmsg: "));
        assert!(outcome.complaint().contains(name), "{outcome:?}");
        let report = outcome.report();
        let (packets, host) = (&report["packets"], &report["host"]);
        for unknown in ["lost", "lost_outbound", "lost_inbound", "loss_bursts"] {
            assert!(packets[unknown].is_null(), "{unknown}: {report:#}");
        }
        assert_eq!(host["verdict"], "tool-limited", "{report:#}");
        assert_eq!(host["failure"]["call"], "recvmsg", "{report:#}");
        assert_eq!(host["failure"]["errno"], name, "{report:#}");

        let outcome = run(&calls, &line).unwrap();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(!outcome.stdout.contains("NOTHING CAME BACK"), "{outcome:?}");
        assert!(!outcome.stdout.contains("verdict: ok"), "{outcome:?}");
    }
}

#[test]
fn a_session_that_cannot_send_ends_with_exit_1_and_the_error() {
    let reflector = Reflector::start("127.0.0.1:0");
    let calls = [refused(SENDMMSG, EPERM), refused(SENDMSG, ENOSYS)];
    let remote = reflector.address();
    let line = format!("sender {remote} --rate 1k --duration 1h --json");
    let Some(outcome) = run(&calls, &line) else {
        return;
    };
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.complaint().contains("sendmsg: "), "{outcome:?}");
    assert!(outcome.complaint().contains("ENOSYS"), "{outcome:?}");
    let report = outcome.report();
    assert_eq!(report["packets"]["sent"], 0, "{report:#}");
    assert_eq!(report["host"]["verdict"], "tool-limited", "{report:#}");
}

#[test]
fn a_search_that_cannot_receive_ends_with_exit_1() {
    let reflector = Reflector::start("127.0.0.1:0");
    let calls = [refused(RECVMMSG, EPERM), refused(RECVMSG, EPERM)];
    let remote = reflector.address();
    let line = format!("sender {remote} --find-rate --duration 100ms --frame-size 128 -q");
    let Some(outcome) = run(&calls, &line) else {
        return;
    };
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.complaint().contains("recvmsg: "), "{outcome:?}");
}

#[test]
fn a_reflector_where_calls_for_many_packets_are_refused_answers_all() {
    if !can_confine() {
        return;
    }
    for calls in [
        vec![refused(RECVMMSG, ENOSYS)],
        vec![refused(RECVMMSG, EPERM), refused(SENDMMSG, EPERM)],
    ] {
        let reflector = Reflector::start_by(confined(&calls), "127.0.0.1:0 --json");
        let line = format!("sender {} -c 300 -i 1ms --json", reflector.address());
        assert_no_loss(&common::run(&line).measured(), 300);
        let account = reflector.stop().account();
        let told = names(&account["refused_calls"]);
        assert_eq!(told.len(), calls.len(), "{account:#}");
        assert_eq!(told[0].0, "recvmmsg");
        assert!(account["failure"].is_null());
    }
}

#[test]
fn a_reflector_that_cannot_receive_or_send_ends_with_exit_1_and_the_error() {
    if !can_confine() {
        return;
    }
    for (many, one, call) in [
        (RECVMMSG, RECVMSG, "recvmsg"),
        (SENDMMSG, SENDMSG, "sendmsg"),
    ] {
        let calls = [refused(many, ENOSYS), refused(one, EPERM)];
        let reflector = Reflector::start_by(confined(&calls), "127.0.0.1:0 --json");
        let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
        // It may have ended before.
        let _ = asking.send_to(&request(0), reflector.address());
        let outcome = reflector.end();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let why = format!("refuses {call}: ");
        assert!(outcome.stderr.contains(&why), "{outcome:?}");
        let account = Summary(outcome.stdout).account();
        assert_eq!(account["failure"]["call"], call, "{account:#}");
    }
}

#[test]
fn a_server_where_calls_for_many_packets_are_refused_serves() {
    if !can_confine() {
        return;
    }
    let calls = [refused(RECVMMSG, EPERM), refused(SENDMMSG, ENOSYS)];
    let server = Server::start_by(confined(&calls), "127.0.0.1:0");
    let line = format!("controller {} -c 300 -i 1ms --json", server.address());
    assert_no_loss(&common::run(&line).measured(), 300);
    let account = server.stop();
    let told = [("recvmmsg", "EPERM"), ("sendmmsg", "ENOSYS")];
    assert_eq!(names(&account["refused_calls"]), told, "{account:#}");
    assert!(account["failure"].is_null());
}

#[test]
fn a_server_that_cannot_receive_or_send_ends_with_exit_1_and_the_error() {
    if !can_confine() {
        return;
    }
    for (many, one, call) in [
        (RECVMMSG, RECVMSG, "recvmsg"),
        (SENDMMSG, SENDMSG, "sendmsg"),
    ] {
        let calls = [refused(many, ENOSYS), refused(one, EPERM)];
        let server = Server::start_by(confined(&calls), "127.0.0.1:0");
        let remote = server.address();
        let line = format!("controller {remote} -c 10 -i 1ms --packet-timeout 100ms");
        let session = common::run(&line);
        assert_ne!(session.code, 0, "{session:?}");
        let outcome = server.end();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let why = format!("refuses {call}: ");
        assert!(outcome.stderr.contains(&why), "{outcome:?}");
        let account: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(account["failure"]["call"], call, "{account:#}");
    }
}

/// Receive timestamps that are refused, and those that are granted and never come.
const NO_STAMPS: [i32; 2] = [EPERM, 0];

fn without_stamps(errno: i32) -> [Refused; 1] {
    [option(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, errno)]
}

#[test]
fn without_receive_timestamps_of_the_kernel_t4_is_the_programs() {
    let reflector = Reflector::start("127.0.0.1:0");
    for errno in NO_STAMPS {
        let line = format!("sender {} -c 300 -i 1ms --json", reflector.address());
        let Some(outcome) = run(&without_stamps(errno), &line) else {
            return;
        };
        let report = outcome.measured();
        let case = format!("{errno}: {report:#}");
        assert_no_loss(&report, 300);
        assert_eq!(report["timestamps"]["t4"], "userspace", "{case}");
        assert_eq!(report["timestamps"]["t1"], "userspace", "{case}");
        assert_eq!(report["packets"]["rejected_samples"], 0, "{case}");
        for delay in ["roundtrip", "outbound", "inbound"] {
            assert_eq!(report["delay_ns"][delay]["samples"], 300, "{case}");
        }
        let notes = report["notes"].to_string();
        assert!(
            notes.contains("no receive timestamps of the kernel ("),
            "{case}"
        );
    }
}

#[test]
fn without_receive_timestamps_of_the_kernel_t2_is_the_programs() {
    for errno in NO_STAMPS {
        let Some(outcome) = run(&without_stamps(errno), "sender -c 100 -i 1ms --json") else {
            return;
        };
        let report = outcome.measured();
        let case = format!("{errno}: {report:#}");
        assert_no_loss(&report, 100);
        assert_eq!(report["timestamps"]["t2"], "userspace", "{case}");

        let program = confined(&without_stamps(errno));
        let mut reflector = Reflector::start_by(program, "127.0.0.1:0");
        let line = format!("sender {} -c 100 -i 1ms --json", reflector.address());
        let report = common::run(&line).measured();
        assert_no_loss(&report, 100);
        assert_eq!(report["delay_ns"]["outbound"]["samples"], 100, "{report:#}");
        let said = (0..2).map(|_| reflector.next_line());
        assert!(
            said.into_iter()
                .any(|line| line.contains("no receive timestamps of the kernel ("))
        );
    }
}

/// Whether a line is about this option being refused.
fn names_option(line: &str, name: &str) -> bool {
    line.contains(&format!("this system refuses {name} ("))
}

#[test]
fn a_session_goes_on_without_an_option_and_leaves_out_what_depends_on_it() {
    use libc::{IPPROTO_IP, IPPROTO_IPV6};

    // Address, option, its name, and the figure that depends on it.
    let options = [
        (
            4,
            IPPROTO_IP,
            libc::IP_RECVERR,
            "IP_RECVERR",
            "/packets/icmp_unreachable",
        ),
        (4, IPPROTO_IP, libc::IP_MTU_DISCOVER, "IP_MTU_DISCOVER", ""),
        (4, IPPROTO_IP, libc::IP_TTL, "IP_TTL", "/path/hops_outbound"),
        (
            4,
            IPPROTO_IP,
            libc::IP_RECVTTL,
            "IP_RECVTTL",
            "/path/hops_inbound",
        ),
        (
            4,
            IPPROTO_IP,
            libc::IP_RECVTOS,
            "IP_RECVTOS",
            "/path/dscp_received",
        ),
        (
            6,
            IPPROTO_IPV6,
            libc::IPV6_RECVERR,
            "IPV6_RECVERR",
            "/packets/icmp_unreachable",
        ),
        (
            6,
            IPPROTO_IPV6,
            libc::IPV6_UNICAST_HOPS,
            "IPV6_UNICAST_HOPS",
            "/path/hops_outbound",
        ),
        (
            6,
            IPPROTO_IPV6,
            libc::IPV6_RECVHOPLIMIT,
            "IPV6_RECVHOPLIMIT",
            "/path/hops_inbound",
        ),
        (
            6,
            IPPROTO_IPV6,
            libc::IPV6_RECVTCLASS,
            "IPV6_RECVTCLASS",
            "/path/dscp_received",
        ),
    ];
    for (version, level, option_name, name, figure) in options {
        if version == 6 && !common::has_ipv6() {
            continue;
        }
        let reflector = Reflector::start(if version == 4 {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        });
        let calls = [option(level, option_name, libc::ENOPROTOOPT)];
        let line = format!("sender {} -c 50 -i 1ms --json", reflector.address());
        let Some(outcome) = run(&calls, &line) else {
            return;
        };
        let report = outcome.measured();
        assert_no_loss(&report, 50);
        let packets = &report["packets"];
        assert_eq!(
            packets["icmp"].is_null(),
            packets["icmp_unreachable"].is_null()
        );
        let notes = report["notes"].as_array().unwrap();
        let named = notes
            .iter()
            .filter(|note| names_option(note.as_str().unwrap(), name));
        assert_eq!(named.count(), 1, "{name}: {report:#}");
        let dependent = [
            "/packets/icmp_unreachable",
            "/path/hops_outbound",
            "/path/hops_inbound",
            "/path/dscp_received",
        ];
        for known in dependent {
            if known == "/path/hops_outbound" && figure == "/path/hops_inbound" {
                // A reflector's TTL of 255 is believed only where there are no hops on the way back.
                continue;
            }
            let value = report.pointer(known).unwrap();
            assert_eq!(
                value.is_null(),
                known == figure,
                "{name}, {known}: {report:#}"
            );
        }
    }
}

/// A system that does not tell what a socket has: transmit timestamps come all the same, and drops that nobody
/// counts are not 0.
#[test]
fn where_a_socket_tells_nothing_of_itself_no_figure_is_made_up() {
    let reflector = Reflector::start("127.0.0.1:0");
    let silent = || refused(libc::SYS_getsockopt, EPERM);
    let uncounted = option(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, EPERM);
    for (calls, drops) in [
        (vec![silent()], Value::from(0)),
        (vec![silent(), uncounted], Value::Null),
    ] {
        let line = format!("sender {} -c 50 -i 2ms --json", reflector.address());
        let Some(outcome) = run(&calls, &line) else {
            return;
        };
        let report = outcome.measured();
        assert_eq!(report["timestamps"]["t1"], "kernel", "{report:#}");
        assert_eq!(report["host"]["kernel_drops"], drops, "{report:#}");
    }
}

#[test]
fn an_option_that_was_asked_for_and_is_refused_is_named() {
    let reflector = Reflector::start("127.0.0.1:0");
    for (asked, refused, name) in [
        ("--dscp EF", libc::IP_TOS, "IP_TOS"),
        ("--ttl 3", libc::IP_TTL, "IP_TTL"),
        (
            "--do-not-fragment",
            libc::IP_MTU_DISCOVER,
            "IP_MTU_DISCOVER",
        ),
    ] {
        let calls = [option(libc::IPPROTO_IP, refused, libc::ENOPROTOOPT)];
        let line = format!("sender {} -c 1 {asked}", reflector.address());
        let Some(outcome) = run(&calls, &line) else {
            return;
        };
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(names_option(outcome.complaint(), name), "{outcome:?}");
    }
}

#[test]
fn a_reflector_answers_without_options() {
    if !can_confine() {
        return;
    }
    for (refused, name) in [
        (libc::IP_TTL, "IP_TTL"),
        (libc::IP_RECVTTL, "IP_RECVTTL"),
        (libc::IP_RECVTOS, "IP_RECVTOS"),
        (libc::IP_PKTINFO, "IP_PKTINFO"),
    ] {
        let calls = [option(libc::IPPROTO_IP, refused, libc::ENOPROTOOPT)];
        let mut reflector = Reflector::start_by(confined(&calls), "0.0.0.0:0 --threads 2");
        let port = reflector.address().port();
        let line = format!("sender 127.0.0.1:{port} -c 50 -i 1ms --json");
        assert_no_loss(&common::run(&line).measured(), 50);
        let said = [reflector.next_line(), reflector.next_line()];
        let mut named = said.iter().filter(|line| names_option(line, name));
        let line = named.next().expect("it is named");
        assert_eq!(named.count(), 0, "{said:?}");
        let asked = refused == libc::IP_PKTINFO;
        assert_eq!(line.contains("to a broadcast or multicast address"), asked);
        reflector.stop();
    }
    let calls = [option(
        libc::IPPROTO_IP,
        libc::IP_RECVTTL,
        libc::ENOPROTOOPT,
    )];
    let server = Server::start_by(confined(&calls), "127.0.0.1:0");
    let line = format!("controller {} -c 50 -i 1ms --json", server.address());
    assert_no_loss(&common::run(&line).measured(), 50);
    assert!(names_option(&server.wait_for("IP_RECVTTL"), "IP_RECVTTL"));
    server.stop();
}

#[test]
fn a_buffer_that_keeps_the_systems_size_is_told() {
    use libc::SOL_SOCKET;

    let reflector = Reflector::start("127.0.0.1:0");
    for (force, plain, name) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, "SO_RCVBUF"),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, "SO_SNDBUF"),
    ] {
        let calls = [force, plain].map(|one| option(SOL_SOCKET, one, EPERM));
        for io in ["batched", "portable"] {
            let remote = reflector.address();
            let line = format!("sender {remote} -c 20 -i 1ms --io {io} --json");
            let Some(outcome) = run(&calls, &line) else {
                return;
            };
            let report = outcome.measured();
            assert_no_loss(&report, 20);
            let notes = report["notes"].as_array().unwrap();
            let named = |note: &&Value| names_option(note.as_str().unwrap(), name);
            assert_eq!(notes.iter().filter(named).count(), 1, "{report:#}");
        }
    }
}

#[test]
fn an_option_that_is_needed_is_named_with_what_it_is_for() {
    use libc::{SO_BINDTODEVICE, SO_REUSEPORT, SOL_SOCKET};

    let refused = |one| [option(SOL_SOCKET, one, EPERM)];
    for (line, calls, name, what) in [
        (
            "sender 127.0.0.1:9 -c 1",
            refused(SO_REUSEPORT),
            "SO_REUSEPORT",
            "--io portable",
        ),
        (
            "sender 127.0.0.1:9 -c 1 --interface lo",
            refused(SO_BINDTODEVICE),
            "SO_BINDTODEVICE",
            "--interface",
        ),
        (
            "reflector 127.0.0.1:0 --threads 2",
            refused(SO_REUSEPORT),
            "SO_REUSEPORT",
            "--threads 1",
        ),
        (
            "server 127.0.0.1:0 --interface lo",
            refused(SO_BINDTODEVICE),
            "SO_BINDTODEVICE",
            "--interface",
        ),
        (
            "controller 127.0.0.1:9 -c 1 --interface lo",
            refused(SO_BINDTODEVICE),
            "SO_BINDTODEVICE",
            "--interface",
        ),
    ] {
        let Some(outcome) = run(&calls, line) else {
            return;
        };
        assert_ne!(outcome.code, 0, "{line}: {outcome:?}");
        let complaint = outcome.complaint();
        assert!(names_option(complaint, name), "{line}: {outcome:?}");
        assert!(complaint.contains(what), "{line}: {outcome:?}");
    }
}

/// What a control connection can do without.
#[test]
fn a_server_and_its_client_go_on_without_options_of_their_connection() {
    if !can_confine() {
        return;
    }
    let calls = [
        option(libc::IPPROTO_TCP, libc::TCP_NODELAY, EPERM),
        option(libc::IPPROTO_IP, libc::IP_TOS, EPERM),
        option(libc::SOL_SOCKET, libc::SO_REUSEADDR, EPERM),
        option(libc::SOL_SOCKET, libc::SO_RCVBUF, EPERM),
        option(libc::SOL_SOCKET, libc::SO_SNDBUF, EPERM),
    ];
    let server = Server::start_by(confined(&calls), "127.0.0.1:0");
    let line = format!("controller {} -c 20 -i 1ms --json", server.address());
    let session = run(&calls, &line).expect("programs can be confined");
    assert_no_loss(&session.measured(), 20);
    server.stop();
}

/// The call that most programs learn of signals by: it is refused to threads that receive, and ends nobody.
#[test]
fn signals_end_a_program_that_may_not_receive() {
    if !can_confine() {
        return;
    }
    for errno in [EPERM, ENOSYS] {
        let calls = [refused(libc::SYS_recvfrom, errno)];
        let reflector = Reflector::start_by(confined(&calls), "127.0.0.1:0 --json");
        let line = format!("sender {} -c 10 -i 1ms --json", reflector.address());
        assert_no_loss(&common::run(&line).measured(), 10);
        let account = reflector.stop().account();
        assert!(account["failure"].is_null(), "{account:#}");
    }
    // Nor where there is no pipe to tell them by.
    let calls = [
        refused(libc::SYS_pipe2, EPERM),
        refused(libc::SYS_recvfrom, EPERM),
    ];
    Reflector::start_by(confined(&calls), "127.0.0.1:0").stop();
}

/// However short it is: less than the time that such a call is tried again for.
#[test]
fn a_session_that_ends_while_it_cannot_receive_has_lost_nothing() {
    let reflector = Reflector::start("127.0.0.1:0");
    let line = format!(
        "sender {} --io portable -c 50 -i 1ms --packet-timeout 200ms --json",
        reflector.address()
    );
    let Some(outcome) = run(&[refused(libc::SYS_recvfrom, EPERM)], &line) else {
        return;
    };
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.complaint().contains("EPERM"), "{outcome:?}");
    let report = outcome.report();
    assert!(report["packets"]["lost"].is_null(), "{report:#}");
    assert_eq!(report["host"]["failure"]["errno"], "EPERM", "{report:#}");
    assert_eq!(report["host"]["verdict"], "tool-limited", "{report:#}");
}

/// Not one reply left, and each by a call of which nothing else says that it is refused.
#[test]
fn a_reflector_that_sent_nothing_ends_with_exit_1_and_names_the_error() {
    if !can_confine() {
        return;
    }
    for (calls, line) in [
        (vec![refused(libc::SYS_sendto, EPERM)], "--io portable -v"),
        (
            vec![refused(libc::SYS_sendto, EPERM)],
            "--io portable -v --json",
        ),
    ] {
        let mut reflector = Reflector::start_by(confined(&calls), &format!("127.0.0.1:0 {line}"));
        let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
        asking.send_to(&request(0), reflector.address()).unwrap();
        let why = "replies cannot be sent: Operation not permitted (EPERM)";
        while !reflector.next_line().contains(why) {}
        reflector.signal("INT");
        let outcome = reflector.end();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("refuses sendto: "), "{outcome:?}");
        if line.ends_with("--json") {
            let account = Summary(outcome.stdout).account();
            assert_eq!(account["failure"]["errno"], "EPERM", "{account:#}");
            let by = &account["totals"]["unsent_by"][0];
            assert_eq!((&by["errno"], &by["count"]), (&"EPERM".into(), &1.into()));
        } else {
            let said = "not sent: 1 reply: Operation not permitted (EPERM)";
            assert!(outcome.stdout.contains(said), "{outcome:?}");
        }
    }
}

#[test]
fn a_server_that_cannot_accept_ends_with_exit_1_and_the_error() {
    if !can_confine() {
        return;
    }
    for (errno, name) in [(EPERM, "EPERM"), (ENOSYS, "ENOSYS")] {
        let calls = [
            refused(libc::SYS_accept4, errno),
            refused(libc::SYS_accept, errno),
        ];
        let server = Server::start_by(confined(&calls), "127.0.0.1:0");
        // It finds out when it looks for connections first, and may have ended before.
        let _client = std::net::TcpStream::connect(server.address());
        let outcome = server.end();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("refuses accept: "), "{outcome:?}");
        let account: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(account["failure"]["errno"], name, "{account:#}");
    }
}
