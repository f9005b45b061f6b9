//! Sessions on which somebody agreed with a Server: what leaves, what comes back, what is reported.
//! The Session-Reflector is one of the test's own, over loopback.

#![allow(clippy::disallowed_methods, reason = "a test has a limit of time")]

mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

use common::FakeReflector;
use twamp_blast::config::{
    Burst, Departures, End, IoKind, SessionConfig, SizeClass, SizeProfile, Sizes,
};
use twamp_blast::engine::{Agreed, Measured, Stop, Update, open};
use twamp_blast::report::note::{self, Counts, Note, Replies};
use twamp_blast::report::{Protocol, Role, Scope, Security};
use twamp_blast::wire::protected::{self, Mode, Protection, TestKeys};
use twamp_blast::wire::{
    ErrorEstimate, Format, Modes, REFLECTOR_LEN, ReflectorPacket, ReplyHead, ReplyTail,
    SenderPacket, Sid, TestFormat, Timestamp,
};
use zerocopy::{FromBytes, IntoBytes};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SID: Sid = Sid(*b"a session's name");
const EF: u8 = 46 << 2;

fn lane(sizes: &[usize], packets: u64) -> SessionConfig {
    let class = |payload: &usize| SizeClass {
        payload: *payload,
        frame: payload + 42,
        weight: 2,
    };
    SessionConfig {
        departures: Departures::Periodic("2k".parse().unwrap()),
        end: End {
            count: Some(packets),
            duration_ns: None,
        },
        sizes: Sizes {
            profile: SizeProfile::Fixed,
            classes: sizes.iter().map(class).collect(),
        },
        timeout_ns: 2_000_000_000,
        // Nobody is asked there: the Server's answer names another port.
        ..SessionConfig::new(ANY, "127.0.0.1:9".parse().unwrap())
    }
}

fn format(modes: Modes, reflected: u16, server_octets: [u8; 2]) -> TestFormat {
    TestFormat::new(modes, reflected, server_octets).unwrap()
}

fn keys() -> TestKeys {
    TestKeys::new(&[7; 16], &[9; 32])
}

fn agreed(remote: SocketAddr, format: TestFormat) -> Agreed {
    let (keys, security) = match format.protection() {
        None => (None, Security::Unauthenticated),
        Some(Mode::Authenticated) => (Some(keys()), Security::Authenticated),
        Some(Mode::Encrypted) => (Some(keys()), Security::Encrypted),
    };
    Agreed {
        remote,
        format,
        keys,
        sid: SID,
        security,
    }
}

fn measured(lane: SessionConfig, agreed: Agreed) -> Measured {
    let opened = open(vec![lane]).unwrap();
    opened
        .measure(vec![agreed], &Stop::default(), |_| {})
        .unwrap()
}

fn now(format: Format) -> Timestamp {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_unix_ns(unix.unwrap().as_nanos().try_into().unwrap(), format)
}

/// The fields of a reply, with the reflector's own number and T2 = T3.
fn reply_to(sender: &SenderPacket, seq: u32) -> ReflectorPacket {
    let now = now(Format::Ntp);
    ReflectorPacket {
        head: ReplyHead {
            seq: seq.into(),
            timestamp: now,
            error_estimate: ErrorEstimate::new(true, Format::Ntp, 1000),
            mbz: [0; 2],
            receive_timestamp: now,
            sender_seq: sender.seq,
            sender_timestamp: sender.timestamp,
            sender_error_estimate: sender.error_estimate,
        },
        tail: ReplyTail {
            mbz: [0; 2],
            sender_ttl: 250,
        },
    }
}

/// Protects a reply, T3 being now.
fn seal(protection: &Protection, reply: &mut protected::ReflectorPacket) {
    let octets = reply.as_mut_bytes();
    let step = octets.len();
    protection.prepare::<protected::ReflectorPacket>(octets, step);
    protection.stamp::<protected::ReflectorPacket>(octets, step, now(Format::Ntp));
}

/// A Session-Reflector that keeps to the RFCs, and to nothing of ours but layouts and keys.
struct Mirror {
    format: TestFormat,
    protection: Option<Protection>,
    replies: u32,
}

impl Mirror {
    fn new(format: TestFormat) -> Self {
        let protection = format.protection();
        Self {
            format,
            protection: protection.map(|mode| Protection::new(mode, &keys())),
            replies: 0,
        }
    }

    /// The fields of a request.
    fn read(&self, request: &[u8]) -> SenderPacket {
        let Some(protection) = &self.protection else {
            return SenderPacket::read_from_prefix(request).unwrap().0;
        };
        let mut octets = request.to_vec();
        let (mut read, step) = (None, request.len());
        protection.open::<protected::SenderPacket>(&mut octets, step, |_, packet| {
            read = Some(packet.expect("our keys").plain());
        });
        read.unwrap()
    }

    /// The reply to a request that had this TOS, as long as the request at least.
    fn answer(&mut self, request: &[u8], tos: u8) -> Vec<u8> {
        let sender = self.read(request);
        let reply = reply_to(&sender, self.replies);
        self.replies += 1;
        let mut octets = match &self.protection {
            None => {
                let mut octets = reply.as_bytes().to_vec();
                octets.extend(self.format.monitored().then_some(tos));
                octets
            }
            Some(protection) => {
                let mut packet = protected::ReflectorPacket::from(reply);
                packet.sender_tos = if self.format.monitored() { tos } else { 0 };
                seal(protection, &mut packet);
                packet.as_bytes().to_vec()
            }
        };
        octets.resize(request.len().max(octets.len()), 0x5a);
        octets
    }

    /// Answers every request, and hands it on.
    fn start(mut self) -> (FakeReflector, Receiver<Vec<u8>>) {
        let (came, requests) = channel();
        let reflector = FakeReflector::start(move |request| {
            came.send(request.to_vec()).unwrap();
            vec![self.answer(request, EF | 1)]
        });
        (reflector, requests)
    }
}

#[track_caller]
fn assert_whole(measured: &Measured, packets: u64) {
    let report = &measured.report;
    let found = &report.packets;
    let counts = (found.sent, found.received, found.lost, found.invalid);
    let whole = (Some(packets), Some(packets), Some(0), Some(0));
    assert_eq!(counts, whole, "{:?}", report.notes);
    assert_eq!(found.lost_outbound, Some(0), "{:?}", report.notes);
    assert_eq!(found.rejected_samples, Some(0));
    // Of those whose transmit stamp came back.
    let roundtrip = report.delay_ns.roundtrip.as_ref().unwrap();
    assert!(roundtrip.samples > 0);
}

#[test]
fn protected_packets_go_there_and_come_back() {
    for mode in [Modes::AUTHENTICATED, Modes::ENCRYPTED] {
        for (sizes, burst, io) in [
            (&[112][..], Burst::Auto, IoKind::Batched),
            (&[48], Burst::Auto, IoKind::Batched),
            (&[112, 300, 1000], Burst::Auto, IoKind::Batched),
            (&[112, 300], Burst::Fixed(16), IoKind::Batched),
            (&[112, 300], Burst::Auto, IoKind::Portable),
        ] {
            let format = format(mode, 0, [0; 2]);
            let (reflector, requests) = Mirror::new(format).start();
            let mut lane = lane(sizes, 200);
            (lane.burst, lane.socket.io) = (burst, io);
            let measured = measured(lane, agreed(reflector.address, format));
            assert_whole(&measured, 200);
            let report = &measured.report;
            assert_eq!(report.protocol, Protocol::Twamp);
            assert_eq!(
                (report.scope, report.role),
                (Scope::Session, Role::Controller)
            );
            let security = match format.protection() {
                Some(Mode::Authenticated) => Security::Authenticated,
                _ => Security::Encrypted,
            };
            assert_eq!(report.security, security);
            assert_eq!(report.sid, Some(SID.to_string()));
            assert_eq!(report.remote, Some(reflector.address));
            assert_eq!(report.path.dscp_at_reflector, None);
            drop(reflector);
            let mirror = Mirror::new(format);
            let mut numbers = Vec::new();
            let mut seen: Vec<usize> = Vec::new();
            for request in requests {
                numbers.push(mirror.read(&request).seq.get());
                seen.push(request.len());
                let padding = &request[protected::SENDER_LEN..];
                assert!(padding.is_empty() || padding != vec![0; padding.len()]);
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, sizes);
            // The probes that follow repeat the last number.
            assert!(numbers[..200].iter().copied().eq(0..200), "{numbers:?}");
            assert!(numbers[200..].iter().all(|number| *number == 199));
        }
    }
}

#[test]
fn t1_is_in_clear_in_authenticated_mode_alone() {
    for (mode, in_clear) in [(Modes::AUTHENTICATED, true), (Modes::ENCRYPTED, false)] {
        let format = format(mode, 0, [0; 2]);
        let mirror = Mirror::new(format);
        let (reflector, requests) = Mirror::new(format).start();
        measured(lane(&[112], 20), agreed(reflector.address, format));
        drop(reflector);
        for request in requests {
            let t1 = mirror.read(&request).timestamp;
            assert_eq!(request[16..24] == *t1.as_bytes(), in_clear);
        }
    }
}

/// A quirk of several programs, see `tests/peers.rs`.
#[test]
fn protected_replies_without_an_error_estimate_are_measured() {
    for mode in [Modes::AUTHENTICATED, Modes::ENCRYPTED] {
        let format = format(mode, 0, [0; 2]);
        let mirror = Mirror::new(format);
        let mut replies = 0;
        let reflector = FakeReflector::start(move |request| {
            let mut reply = reply_to(&mirror.read(request), replies);
            reply.head.error_estimate = ErrorEstimate::from_raw(0);
            replies += 1;
            let mut packet = protected::ReflectorPacket::from(reply);
            seal(mirror.protection.as_ref().unwrap(), &mut packet);
            vec![packet.as_bytes().to_vec()]
        });
        let measured = measured(lane(&[112], 50), agreed(reflector.address, format));
        assert_whole(&measured, 50);
        let clock = &measured.report.timestamps.clock;
        assert_eq!(clock.remote_synchronised, None);
        assert_eq!(clock.remote_estimates_unusable, Some(50));
    }
}

#[test]
fn replies_of_another_key_or_changed_on_the_way_count_as_invalid() {
    for mode in [Modes::AUTHENTICATED, Modes::ENCRYPTED] {
        let format = format(mode, 0, [0; 2]);
        let mut mirror = Mirror::new(format);
        let stranger = TestKeys::new(&[1; 16], &[2; 32]);
        let stranger = Protection::new(format.protection().unwrap(), &stranger);
        let reflector = FakeReflector::start(move |request| {
            let good = mirror.answer(request, 0);
            let mut changed = good.clone();
            changed[3] ^= 1;
            let short = good[..protected::REFLECTOR_LEN - 1].to_vec();
            let reply = reply_to(&mirror.read(request), 0);
            let mut forged = protected::ReflectorPacket::from(reply);
            seal(&stranger, &mut forged);
            let forged = forged.as_bytes().to_vec();
            vec![changed, forged, short, good]
        });
        let lane = lane(&[112], 50);
        let report = measured(lane, agreed(reflector.address, format)).report;
        assert_eq!(report.packets.received, Some(50));
        assert_eq!(report.packets.duplicates, Some(0));
        assert_eq!(report.packets.invalid, Some(150));
        let note = Counts::Forged { datagrams: 100 }.into();
        assert!(report.notes.contains(&note), "{:?}", report.notes);
    }
}

#[test]
fn symmetrical_packets_have_zeros_and_then_the_server_s_octets_whatever_their_size() {
    let octets = Modes::REFLECT_OCTETS | Modes::SYMMETRICAL_SIZE;
    for (modes, zeros) in [
        (Modes::UNAUTHENTICATED | Modes::REFLECT_OCTETS, 14..14),
        (Modes::UNAUTHENTICATED | octets, 14..41),
        (
            Modes::UNAUTHENTICATED | octets | Modes::DSCP_ECN_MONITORING,
            14..42,
        ),
        (Modes::AUTHENTICATED | octets, 48..104),
        (Modes::ENCRYPTED | octets, 48..104),
    ] {
        for burst in [Burst::Auto, Burst::Fixed(4)] {
            let format = format(modes, 4, [0xab, 0xcd]);
            let (reflector, requests) = Mirror::new(format).start();
            // One place of the batch has all of them in turn.
            let mut lane = lane(&[120, 131, 500], 300);
            lane.burst = burst;
            let measured = measured(lane, agreed(reflector.address, format));
            assert_whole(&measured, 300);
            drop(reflector);
            let mut seen = 0;
            for request in requests {
                assert!(request[zeros.clone()].iter().all(|octet| *octet == 0));
                assert_eq!(request[zeros.end..zeros.end + 2], [0xab, 0xcd], "{modes}");
                let padding = &request[zeros.end + 2..];
                assert!(padding.iter().any(|octet| *octet != 0));
                seen += 1;
            }
            assert!(seen >= 300);
        }
    }
}

#[test]
fn padding_of_zeros_is_all_zeros() {
    for (mode, fields) in [(Modes::UNAUTHENTICATED, 14), (Modes::ENCRYPTED, 48)] {
        let format = format(mode, 0, [0; 2]);
        let (reflector, requests) = Mirror::new(format).start();
        let lane = SessionConfig {
            zero_padding: true,
            ..lane(&[112, 300], 100)
        };
        let words = lane.command().arguments();
        assert!(words.contains(&"--zero-padding".to_owned()), "{words:?}");
        assert_whole(&measured(lane, agreed(reflector.address, format)), 100);
        drop(reflector);
        for request in requests {
            assert_eq!(request[fields..], vec![0; request.len() - fields]);
        }
    }
}

#[test]
fn the_tos_where_packets_arrived_is_told() {
    for mode in [
        Modes::UNAUTHENTICATED,
        Modes::AUTHENTICATED,
        Modes::ENCRYPTED,
    ] {
        for (modes, told) in [
            (mode, None),
            (mode | Modes::DSCP_ECN_MONITORING, Some((46, 1))),
        ] {
            let format = format(modes, 0, [0; 2]);
            let (reflector, _requests) = Mirror::new(format).start();
            let report = measured(lane(&[112], 20), agreed(reflector.address, format)).report;
            let path = &report.path;
            assert_eq!(path.dscp_at_reflector.zip(path.ecn_at_reflector), told);
        }
    }
}

#[test]
fn lanes_differ_and_their_combined_report_says_so() {
    let format = format(Modes::UNAUTHENTICATED, 0, [0; 2]);
    let (first, _requests) = Mirror::new(format).start();
    let (second, _more_requests) = Mirror::new(format).start();
    let mut lanes = [lane(&[64], 100), lane(&[64], 50)];
    lanes[0].socket.tos = EF;
    lanes[1].departures = Departures::Periodic("1k".parse().unwrap());
    let opened = open(lanes.to_vec()).unwrap();
    let locals = opened.locals();
    let other = Sid([0xee; 16]);
    let terms = vec![
        agreed(first.address, format),
        Agreed {
            sid: other,
            ..agreed(second.address, format)
        },
    ];
    let measured = opened.measure(terms, &Stop::default(), |_| {}).unwrap();
    let [ef, best_effort] = measured.parts.as_slice() else {
        panic!("{}", measured.parts.len());
    };
    for (report, local, remote, sid, dscp) in [
        (ef, locals[0], first.address, SID, 46),
        (best_effort, locals[1], second.address, other, 0),
    ] {
        assert_eq!(report.scope, Scope::Session);
        assert_eq!((report.local, report.remote), (Some(local), Some(remote)));
        assert_eq!(report.sid, Some(sid.to_string()));
        assert_eq!(report.path.dscp_sent, Some(dscp));
        assert_eq!(report.packets.lost, Some(0));
        assert_eq!(report.host.cpu.user_seconds, None);
    }
    let all = &measured.report;
    assert_eq!((all.scope, all.role), (Scope::Combined, Role::Controller));
    assert_eq!((all.local, all.remote, &all.sid), (None, None, &None));
    assert_eq!(all.packets.received, Some(150));
    assert_eq!(all.load.offered_pps, Some(3000.0));
    let path = &all.path;
    assert_eq!((path.dscp_sent, path.dscp_received), (None, None));
    assert!(path.hops_outbound.is_some(), "both go to one host");
}

#[test]
fn what_came_before_a_peer_was_known_is_dropped() {
    for io in [IoKind::Batched, IoKind::Portable] {
        let format = format(Modes::UNAUTHENTICATED, 0, [0; 2]);
        let (reflector, _requests) = Mirror::new(format).start();
        let mut lane = lane(&[64], 20);
        lane.socket.io = io;
        let opened = open(vec![lane]).unwrap();
        let stranger = UdpSocket::bind(ANY).unwrap();
        for _ in 0..100 {
            stranger.send_to(&[0; 64], opened.locals()[0]).unwrap();
        }
        let agreed = agreed(reflector.address, format);
        let measured = opened.measure(vec![agreed], &Stop::default(), |_| {});
        assert_whole(&measured.unwrap(), 20);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_port_of_a_session_is_shared_with_nobody() {
    let opened = open(vec![lane(&[64], 1)]).unwrap();
    let socket = udp_socket();
    socket.set_reuse_port(true).unwrap();
    let refusal = socket.bind(&opened.locals()[0].into()).unwrap_err();
    assert_eq!(refusal.kind(), std::io::ErrorKind::AddrInUse);
}

/// A port at which nobody listens, and which nobody else gets.
fn closed_port() -> socket2::Socket {
    let socket = udp_socket();
    // Not to be shared yet: it could be one that other sockets share already, and take packets from.
    socket.bind(&ANY.into()).unwrap();
    // What is connected to one peer takes nothing from others.
    socket
        .connect(&"127.0.0.1:9".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket
}

/// A socket for a port that is closed so far.
fn open_port(closed: &socket2::Socket, at: SocketAddr) -> UdpSocket {
    let socket = udp_socket();
    closed.set_reuse_port(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.into()
}

fn udp_socket() -> socket2::Socket {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap()
}

#[test]
fn a_port_that_opens_late_costs_no_packet() {
    for (mode, io) in [
        (Modes::UNAUTHENTICATED, IoKind::Batched),
        (Modes::ENCRYPTED, IoKind::Batched),
        (Modes::UNAUTHENTICATED, IoKind::Portable),
    ] {
        // Of the shorter one all packets have left when the first refusal comes.
        for (packets, dropped) in [(3, 0), (3, 2), (2000, 0), (2000, 100)] {
            let format = format(mode, 0, [0; 2]);
            let closed = closed_port();
            let remote = closed.local_addr().unwrap().as_socket().unwrap();
            let mut lane = lane(&[112], packets);
            lane.socket.io = io;
            lane.grace_ns = Some(30_000_000_000);
            lane.timeout_ns = 30_000_000_000;
            lane.watch.interval_ns = Some(100_000_000);
            let opened = open(vec![lane]).unwrap();
            let mut reflector = None;
            let watch = |update: Update| {
                // Told of several times a second: until then packets were refused.
                if let Update::Progress(_) = update
                    && reflector.is_none()
                {
                    let mut mirror = Mirror::new(format);
                    // The first packets after that are lost without a word.
                    let mut dropped = 0..dropped;
                    let answer = move |request: &[u8], _| match dropped.next() {
                        Some(_) => Vec::new(),
                        None => vec![mirror.answer(request, 0)],
                    };
                    let socket = open_port(&closed, remote);
                    reflector = Some(FakeReflector::start_on(socket, answer));
                }
            };
            let agreed = vec![agreed(remote, format)];
            let measured = opened.measure(agreed, &Stop::default(), watch).unwrap();
            let report = &measured.report;
            assert_eq!(report.packets.sent, Some(packets), "{:?}", report.notes);
            assert_eq!(report.packets.received, Some(packets), "{:?}", report.notes);
            assert_eq!(report.packets.icmp_unreachable, Some(0));
            let anew = report
                .notes
                .iter()
                .find(|note| matches!(note, Note::Sender(note::Sender::BegunAnew { .. })));
            assert!(anew.is_some(), "{io:?}: {:?}", report.notes);
        }
    }
}

#[test]
fn a_port_that_never_opens_counts_in_the_end() {
    for io in [IoKind::Batched, IoKind::Portable] {
        let closed = closed_port();
        let remote = closed.local_addr().unwrap().as_socket().unwrap();
        let mut lane = lane(&[64], 50);
        lane.socket.io = io;
        (lane.grace_ns, lane.timeout_ns) = (Some(200_000_000), 1_000_000_000);
        let format = format(Modes::UNAUTHENTICATED, 0, [0; 2]);
        let report = measured(lane, agreed(remote, format)).report;
        let packets = &report.packets;
        assert_eq!((packets.sent, packets.received), (Some(50), Some(0)));
        assert_eq!(packets.lost, Some(50));
        let notes = &report.notes;
        assert!(packets.icmp_unreachable > Some(0), "{io:?}: {notes:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn replies_from_another_address_of_the_server_are_told_apart() {
    for mode in [
        Modes::UNAUTHENTICATED,
        Modes::AUTHENTICATED,
        Modes::ENCRYPTED,
    ] {
        let format = format(mode, 0, [0; 2]);
        let elsewhere = UdpSocket::bind("127.0.0.2:0").unwrap();
        let from = elsewhere.local_addr().unwrap();
        let mut mirror = Mirror::new(format);
        let reflector = FakeReflector::start_with_peer(move |request, peer| {
            let answer = mirror.answer(request, 0);
            elsewhere.send_to(&answer, peer).unwrap();
            // Not all that comes from there is an answer.
            elsewhere.send_to(&[0; 120], peer).unwrap();
            Vec::new()
        });
        let mut lane = lane(&[112], 20);
        lane.timeout_ns = 300_000_000;
        let report = measured(lane, agreed(reflector.address, format)).report;
        assert_eq!(report.packets.received, Some(0));
        assert_eq!(report.packets.invalid, Some(40), "{mode}");
        let note = Counts::Elsewhere { replies: 20, from }.into();
        assert!(report.notes.contains(&note), "{:?}", report.notes);
    }
}

#[test]
fn a_reflector_that_repeats_our_z_bit_is_read_in_the_format_that_it_means() {
    let reflector = FakeReflector::start({
        let mut mirror = Mirror::new(TestFormat::LIGHT);
        move |request| {
            let mut reply = mirror.answer(request, 0);
            // The Error Estimate of the request, and NTP timestamps as ever.
            reply[12..14].copy_from_slice(&request[12..14]);
            vec![reply]
        }
    });
    for format in [Format::Ntp, Format::Ptp] {
        let lane = SessionConfig {
            format,
            ..lane(&[64], 100)
        };
        let measured = measured(lane, agreed(reflector.address, TestFormat::LIGHT));
        assert_whole(&measured, 100);
        let report = &measured.report;
        let outbound = report.delay_ns.outbound.as_ref().unwrap();
        assert!(outbound.max < 60_000_000_000, "{}", outbound.max);
        let note = Replies::OtherFormatClaimed { replies: 100 }.into();
        assert_eq!(report.notes.contains(&note), format == Format::Ptp);
    }
}

#[test]
fn a_hundred_sessions_at_once_lose_nothing() {
    let format = format(Modes::UNAUTHENTICATED, 0, [0; 2]);
    // A counter for each session, as a Server has it.
    let mut mirrors = std::collections::HashMap::new();
    let reflector = FakeReflector::start_with_peer(move |request, peer| {
        let mirror = mirrors.entry(peer).or_insert_with(|| Mirror::new(format));
        vec![mirror.answer(request, 0)]
    });
    let mut lanes = vec![lane(&[REFLECTOR_LEN], 10); 100];
    for lane in &mut lanes {
        lane.departures = Departures::Periodic("20".parse().unwrap());
    }
    let opened = open(lanes).unwrap();
    let terms = vec![agreed(reflector.address, format); 100];
    let measured = opened.measure(terms, &Stop::default(), |_| {}).unwrap();
    assert_eq!(measured.parts.len(), 100);
    for report in measured.parts.iter().chain([&measured.report]) {
        assert_eq!(report.packets.lost, Some(0), "{:?}", report.notes);
    }
    let all = &measured.report;
    assert_eq!(all.packets.received, Some(1000));
    assert_eq!(all.load.offered_pps, Some(2000.0));
    assert_eq!(all.remote, Some(reflector.address), "one for all");
}
