//! The server as a process: real sockets, peers that mean well, and peers that do not.

#![allow(clippy::disallowed_methods, reason = "a test has a limit of time")]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use common::server::{
    ALL_MODES, KEYS, Peer, Scratch, Server, connect, read_octets, read_to_end, socket,
};
use common::{LIMIT, has_ipv6, run, skip};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use twamp_blast::control::client::{End, Event};
use twamp_blast::control::codec::Codec;
use twamp_blast::wire::control::{Command, SetUpResponse, StopSessions};
use twamp_blast::wire::{
    Accept, Ends, Interval, Modes, RequestTwSession, SecurityMode, SessionRequest, Sid,
};
use zerocopy::{FromZeros, IntoBytes};

const ALICE: Option<(&str, &str)> = Some(("alice", "open sesame"));
const GREETING: usize = 64;
const SERVER_START: usize = 48;
const ACCEPT_SESSION: usize = 48;

/// Command octets in unauthenticated mode.
fn command(command: &Command) -> Vec<u8> {
    let mut codec = Codec::new(5000);
    codec.send_command(command);
    codec.output().to_vec()
}

/// A connection in unauthenticated mode with these features, after its set-up.
fn open(server: SocketAddr, features: Modes) -> TcpStream {
    let mut stream = connect(server);
    read_octets(&mut stream, GREETING);
    let response = SetUpResponse::open(Modes::UNAUTHENTICATED | features);
    stream.write_all(response.as_bytes()).unwrap();
    let start = read_octets(&mut stream, SERVER_START);
    assert_eq!(start[15], 0);
    stream
}

/// A connection from 127.0.0.`last`.
fn connect_from(last: u8, server: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let local = SocketAddr::from(([127, 0, 0, last], 0));
    socket.bind(&local.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn greeted_modes(stream: &mut TcpStream) -> u32 {
    let greeting = read_octets(stream, GREETING);
    u32::from_be_bytes(greeting[12..16].try_into().unwrap())
}

#[test]
fn sessions_in_every_mode_are_reflected_and_accounted_for() {
    let keys = Scratch::new("every-mode", KEYS);
    let server = Server::start(&format!(
        ":0 --keys-file {} --mode {ALL_MODES}",
        keys.path()
    ));
    assert_eq!(server.addresses.len(), if has_ipv6() { 2 } else { 1 });
    let mut sids = Vec::new();
    for address in &server.addresses {
        let local = match address {
            SocketAddr::V4(_) => "127.0.0.1",
            SocketAddr::V6(_) => "::1",
        };
        let address = SocketAddr::new(local.parse().unwrap(), address.port());
        for mode in SecurityMode::STRONGEST_FIRST {
            for features in [Modes::NONE, Modes::PTP_TIMESTAMP] {
                let mut peer = Peer::ready(address, mode.bit() | features, ALICE);
                // A connection can be used again.
                sids.push(peer.whole_session());
                sids.push(peer.whole_session());
                peer.leave();
            }
        }
    }
    let account = server.stop();
    let sessions = account["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), sids.len());
    for sid in &sids {
        let found = |session: &&serde_json::Value| session["sid"] == sid.to_string();
        let session = sessions.iter().find(found).expect("it is listed");
        let modes: Vec<_> = session["modes"].as_array().unwrap().iter().collect();
        let protected = modes[0] != "unauthenticated";
        assert_eq!(session["received"], 3, "{session}");
        assert_eq!(session["reflected"], 3, "{session}");
        assert_eq!(session["ending"], "stopped", "{session}");
        let key_id = if protected {
            "\"alice\"".into()
        } else {
            serde_json::Value::Null
        };
        assert_eq!(session["key_id"], key_id);
    }
    let totals = &account["totals"];
    assert_eq!(totals["sessions"], sids.len());
    assert_eq!(totals["sessions_started"], sids.len());
    assert_eq!(totals["reflected"], 3 * sids.len());
    assert_eq!(totals["set_up"], sids.len() / 2);
    assert_eq!(totals["strays"], 0);
}

#[test]
fn plain_system_calls_serve_too() {
    let keys = Scratch::new("portable", KEYS);
    let line = format!(
        "127.0.0.1:0 --keys-file {} --mode {ALL_MODES} --io portable --threads 2",
        keys.path()
    );
    let server = Server::start(&line);
    for mode in SecurityMode::STRONGEST_FIRST {
        Peer::ready(server.address(), mode.bit(), ALICE).whole_session();
    }
    server.stop_well();
}

#[test]
fn packets_of_others_than_the_agreed_sender_are_not_reflected() {
    let server = Server::start("127.0.0.1:0");
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let mut session = peer.session();
    let to = session.socket.peer_addr().unwrap();
    assert_eq!(peer.start(), Accept::Ok);
    // One socket has them all: what comes of the first is known when the others are answered.
    let stranger = socket(Ipv4Addr::LOCALHOST.into());
    stranger.send_to(&common::request(78), to).unwrap();
    for _ in 0..5 {
        session.exchange();
    }
    peer.stop();
    let account = server.stop();
    assert_eq!(account["totals"]["reflected"], 5, "{account:#}");
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv(&mut [0; 100]).is_err());
}

#[test]
fn octets_one_by_one_are_as_good() {
    let keys = Scratch::new("one-by-one", KEYS);
    let server = Server::start(&format!(
        "127.0.0.1:0 --keys-file {} --mode {ALL_MODES}",
        keys.path()
    ));
    for modes in [Modes::UNAUTHENTICATED, Modes::ENCRYPTED] {
        let mut peer = Peer::new(server.address(), modes, ALICE);
        peer.piece = 1;
        peer.set_up().unwrap();
        peer.whole_session();
    }
    server.stop_well();
}

#[test]
fn who_stops_in_the_middle_is_waited_for_and_not_for_ever() {
    let policy = Scratch::new(
        "patience",
        "server = { set_up_timeout = \"200ms\", message_timeout = \"200ms\" }",
    );
    let server = Server::start(&format!(
        "127.0.0.1:0 --policy {} --servwait 300ms",
        policy.path()
    ));
    // In the set-up, in a command, and between commands.
    let mut set_up = connect(server.address());
    read_octets(&mut set_up, GREETING);
    set_up.write_all(&[0; 100]).unwrap();
    let mut amid = open(server.address(), Modes::NONE);
    amid.write_all(&[5, 4, 0]).unwrap();
    let mut silent = open(server.address(), Modes::NONE);
    for stream in [&mut set_up, &mut amid, &mut silent] {
        assert!(read_to_end(stream).is_empty());
    }
    let account = server.stop_well();
    assert_eq!(account["totals"]["timed_out"], 3, "{account:#}");
}

#[test]
fn a_session_without_packets_ends_by_refwait_and_the_connection_goes_on() {
    let server = Server::start("127.0.0.1:0 --refwait 200ms -v");
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let _first = peer.session();
    assert_eq!(peer.start(), Accept::Ok);
    server.wait_for("silent");
    peer.stop();
    peer.whole_session();
    peer.leave();
    let account = server.stop();
    assert_eq!(account["sessions"][0]["ending"], "silent", "{account:#}");
    assert_eq!(account["sessions"][1]["ending"], "stopped", "{account:#}");
}

#[test]
fn garbage_ends_a_connection_and_nothing_else() {
    let keys = Scratch::new("garbage", KEYS);
    let server = Server::start(&format!(
        "127.0.0.1:0 --keys-file {} --mode {ALL_MODES}",
        keys.path()
    ));
    let mut rng = Pcg64Mcg::seed_from_u64(5);
    let mut octets = [0; 1000];
    for round in 0..50 {
        rng.fill_bytes(&mut octets);
        let mut stream = if round % 2 == 0 {
            let mut stream = connect(server.address());
            read_octets(&mut stream, GREETING);
            stream
        } else {
            let mut stream = open(server.address(), Modes::NONE);
            // No command.
            octets[0] = *[0, 1, 4, 6, 8, 10, 11, 99].get(round / 2 % 8).unwrap();
            stream.write_all(&octets[..16]).unwrap();
            let answer = read_octets(&mut stream, ACCEPT_SESSION);
            assert_eq!(answer[..4], [3, 0, 0, 0]);
            stream
        };
        // It may close before it has all of this.
        let len = rng.random_range(200..octets.len());
        let _ = stream.write_all(&octets[..len]);
        read_to_end(&mut stream);
    }
    // The end of a session that was only asked for.
    let mut stream = open(server.address(), Modes::NONE);
    stream.write_all(&[99; 32]).unwrap();
    assert_eq!(read_to_end(&mut stream)[0], 3);
    server.stop_well();
}

#[test]
fn a_wrong_hmac_ends_the_connection_without_an_answer() {
    let keys = Scratch::new("wrong-hmac", KEYS);
    let server = Server::start(&format!(
        "127.0.0.1:0 --keys-file {} --mode {ALL_MODES}",
        keys.path()
    ));
    let modes = [Modes::AUTHENTICATED, Modes::ENCRYPTED, Modes::MIXED];
    for modes in modes {
        let mut peer = Peer::ready(server.address(), modes, ALICE);
        let sender = peer.socket();
        let request = peer.request(&sender);
        peer.client.request(peer.now_ns(), &request).unwrap();
        let mut octets = peer.client.output().to_vec();
        let last = octets.len() - 1;
        octets[last] ^= 1;
        peer.stream.write_all(&octets).unwrap();
        assert!(read_to_end(&mut peer.stream).is_empty());
    }
    let account = server.stop_well();
    assert_eq!(account["totals"]["broken"], 3);
    assert_eq!(account["totals"]["sessions"], 1);
}

#[test]
fn nobody_learns_which_key_ids_exist() {
    let keys = Scratch::new("who", KEYS);
    let server = Server::start(&format!(
        "127.0.0.1:0 --keys-file {} --mode {ALL_MODES}",
        keys.path()
    ));
    for key in [("alice", "wrong"), ("carol", "open sesame")] {
        let mut peer = Peer::new(server.address(), Modes::ENCRYPTED, Some(key));
        assert_eq!(peer.set_up(), Err(End::Refused(Accept::Failure)), "{key:?}");
    }
    let account = server.stop_well();
    assert_eq!(account["totals"]["wrong_key"], 2);
}

/// Keys to be checked wait in a queue of their client.
#[test]
fn who_guesses_keys_waits_for_himself() {
    const GUESSES: usize = 60;
    const WAITING: usize = 20;
    let keys = Scratch::new("guesses", KEYS);
    let policy = Scratch::new("checks", &format!("server.token_checks = {WAITING}"));
    let line = format!(
        "127.0.0.1:0 --keys-file {} --policy {} --count 8192 --mode {ALL_MODES}",
        keys.path(),
        policy.path()
    );
    let server = Server::start(&line);
    let mut guesses: Vec<TcpStream> = (0..GUESSES)
        .map(|_| {
            let mut stream = connect_from(3, server.address());
            read_octets(&mut stream, GREETING);
            stream
        })
        .collect();
    let response = SetUpResponse {
        mode: Modes::ENCRYPTED,
        ..SetUpResponse::new_zeroed()
    };
    // All at once.
    server.signal("STOP");
    for stream in &mut guesses {
        stream.write_all(response.as_bytes()).unwrap();
    }
    server.signal("CONT");
    let mut peer = Peer::ready(server.address(), Modes::ENCRYPTED, ALICE);
    let answered = guesses.iter_mut().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        let answered = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).unwrap();
        answered
    });
    assert!(answered.count() < GUESSES, "nobody waits for all guesses");
    peer.whole_session();
    let mut answers = Vec::new();
    for stream in &mut guesses {
        answers.push(read_octets(stream, SERVER_START)[15]);
        assert!(read_to_end(stream).is_empty());
    }
    let count = |value| answers.iter().filter(|answer| **answer == value).count();
    let (wrong, too_many) = (count(1), count(5));
    assert_eq!(wrong + too_many, GUESSES, "{answers:?}");
    // Those that wait, and those at hand.
    assert!((WAITING..WAITING + 8).contains(&wrong), "{answers:?}");
    let account = server.stop_well();
    assert_eq!(account["totals"]["wrong_key"], wrong);
    assert_eq!(account["totals"]["unchecked"], too_many);
}

#[test]
fn one_mode_of_those_that_are_offered_can_be_chosen() {
    let keys = Scratch::new("modes", KEYS);
    let line = format!(
        "127.0.0.1:0 --keys-file {} --mode unauthenticated,encrypted --features reflect-octets",
        keys.path()
    );
    let server = Server::start(&line);
    let wrong = [0b11, 0b101, 0b10, 0b1000, 0b1_0001, 1 | 1 << 31, 1 << 5];
    for bits in wrong {
        let mut stream = connect(server.address());
        assert_eq!(greeted_modes(&mut stream), 0b10_0101);
        let response = SetUpResponse {
            mode: Modes::from_bits(bits),
            ..SetUpResponse::new_zeroed()
        };
        stream.write_all(response.as_bytes()).unwrap();
        let start = read_octets(&mut stream, SERVER_START);
        assert_eq!(start[15], 3, "{bits:#x}");
        assert!(read_to_end(&mut stream).is_empty());
    }
    // A client that declines is not answered.
    let mut stream = connect(server.address());
    read_octets(&mut stream, GREETING);
    let declined = SetUpResponse::open(Modes::NONE);
    stream.write_all(declined.as_bytes()).unwrap();
    assert!(read_to_end(&mut stream).is_empty());
    let account = server.stop_well();
    assert_eq!(account["totals"]["wrong_mode"], wrong.len() + 1);
}

#[test]
fn without_keys_nothing_protected_is_offered() {
    let server = Server::start("127.0.0.1:0");
    let mut stream = connect(server.address());
    let modes = Modes::UNAUTHENTICATED | Modes::FEATURES;
    assert_eq!(greeted_modes(&mut stream), modes.bits());
    server.stop_well();
}

#[test]
fn more_sessions_than_there_can_be_are_not_waited_for() {
    let server = Server::start("127.0.0.1:0");
    for number in [7, 9] {
        let mut stream = open(server.address(), Modes::INDIVIDUAL_SESSION_CONTROL);
        let mut head = [0; 16];
        head[0] = number;
        head[12..].fill(0xff);
        stream.write_all(&head).unwrap();
        read_to_end(&mut stream);
    }
    let account = server.stop_well();
    assert_eq!(account["totals"]["broken"], 2);
}

#[test]
fn sessions_start_and_stop_one_by_one() {
    let server = Server::start("127.0.0.1:0");
    let modes = Modes::UNAUTHENTICATED | Modes::INDIVIDUAL_SESSION_CONTROL;
    let mut peer = Peer::ready(server.address(), modes, None);
    let mut sessions = [peer.session(), peer.session(), peer.session()];
    let some = |sessions: &[&common::server::Session]| -> Vec<Sid> {
        sessions.iter().map(|session| session.sid).collect()
    };
    let [first, second, third] = &mut sessions;
    let both = some(&[first, third]);
    peer.client.start_some(peer.now_ns(), both.clone()).unwrap();
    let Ok(Event::Acknowledged(Accept::Ok, started)) = peer.event() else {
        panic!("{:?}", peer.client.ended());
    };
    assert_eq!(started, both);
    first.exchange();
    peer.client
        .stop_some(peer.now_ns(), some(&[first]))
        .unwrap();
    assert!(matches!(
        peer.event(),
        Ok(Event::Acknowledged(Accept::Ok, _))
    ));
    third.exchange();
    peer.client
        .start_some(peer.now_ns(), some(&[second]))
        .unwrap();
    assert!(matches!(
        peer.event(),
        Ok(Event::Acknowledged(Accept::Ok, _))
    ));
    second.exchange();
    let account = server.stop();
    assert_eq!(account["totals"]["reflected"], 3);
}

#[test]
fn who_connects_and_leaves_is_forgotten() {
    let policy = Scratch::new("leaves", "[server]\nconnections_per_address = 1");
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    for round in 0..200 {
        let mut stream = connect(server.address());
        assert_ne!(greeted_modes(&mut stream), 0, "{round}");
        if round % 2 == 0 {
            stream.write_all(&[1; 20]).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        read_to_end(&mut stream);
    }
    let account = server.stop_well();
    assert_eq!(account["totals"]["connections"], 201);
    assert_eq!(account["totals"]["most_connections"], 1);
}

#[test]
fn a_session_ends_with_its_connection() {
    let server = Server::start("127.0.0.1:0 -v");
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let mut session = peer.session();
    let waits = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None).session();
    assert_eq!(peer.start(), Accept::Ok);
    session.exchange();
    drop(peer);
    server.wait_for("its connection ended");
    let account = server.stop_well();
    let ending = |sid: Sid| {
        let mut all = account["sessions"].as_array().unwrap().iter();
        let found = all.find(|session| session["sid"] == sid.to_string());
        found.unwrap()["ending"].clone()
    };
    assert_eq!(ending(session.sid), "lost");
    assert_eq!(ending(waits.sid), "withdrawn");
}

#[test]
fn who_does_not_read_delays_nobody_and_loses_nothing() {
    const REQUESTS: usize = 20_000;
    let server = Server::start("127.0.0.1:0");
    // What comes back does not fit anywhere.
    let small = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    small.set_recv_buffer_size(4096).unwrap();
    small.connect(&server.address().into()).unwrap();
    let mut stream = TcpStream::from(small);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    read_octets(&mut stream, GREETING);
    let response = SetUpResponse::open(Modes::UNAUTHENTICATED);
    stream.write_all(response.as_bytes()).unwrap();
    read_octets(&mut stream, SERVER_START);
    let impossible = RequestTwSession {
        command: 5,
        ipvn: 4,
        conf_sender: 1,
        ..RequestTwSession::new_zeroed()
    };
    let octets = command(&Command::RequestTwSession(impossible));
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        for _ in 0..REQUESTS {
            writer.write_all(&octets).unwrap();
        }
    });
    // Until nothing is taken any more, and after.
    for _ in 0..20 {
        Peer::ready(server.address(), Modes::UNAUTHENTICATED, None).whole_session();
    }
    for _ in 0..REQUESTS {
        assert_eq!(read_octets(&mut stream, ACCEPT_SESSION)[0], 3);
    }
    writing.join().unwrap();
    let account = server.stop_well();
    assert_eq!(account["totals"]["sessions_refused"], REQUESTS);
}

/// twampy's controller asks for the same ports each time, with a Timeout of 3 s, and sends to the one
/// that it asked for whatever the answer says.
#[test]
fn who_measures_again_within_the_timeout_gets_the_same_port_and_a_new_count() {
    let server = Server::start("127.0.0.1:0");
    let mut socket = socket(Ipv4Addr::LOCALHOST.into());
    let mut port = 0;
    for round in 0..3 {
        let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
        let sender = socket.local_addr().unwrap();
        let receiver = SocketAddr::new(server.address().ip(), port);
        let request = SessionRequest {
            ends: Ends::new(sender, receiver).unwrap(),
            timeout: Interval::from_ns(60_000_000_000),
            ..peer.request(&socket)
        };
        let answer = peer.ask(&request).unwrap();
        assert_eq!(answer.accept(), Accept::Ok);
        if round > 0 {
            assert_eq!(answer.port.get(), port, "round {round}");
        }
        port = answer.port.get();
        let mut session = peer.granted(socket, &answer);
        assert_eq!(peer.start(), Accept::Ok);
        for _ in 0..3 {
            session.exchange();
        }
        peer.stop();
        if round == 1 {
            peer.leave();
        }
        socket = session.socket;
    }
    let account = server.stop();
    for session in account["sessions"].as_array().unwrap() {
        assert_eq!(session["ending"], "stopped", "{session}");
        assert_eq!(session["reflected"], 3, "{session}");
    }
    assert_eq!(account["totals"]["sessions"], 3);
}

#[test]
fn a_port_in_use_is_not_granted_and_another_is() {
    let server = Server::start("127.0.0.1:0");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|addr| (taken, addr.port())).unwrap();
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let sender = peer.socket();
    let asks = |peer: &Peer, sender: &UdpSocket, port| {
        let mut receiver = server.address();
        receiver.set_port(port);
        SessionRequest {
            ends: Ends::new(sender.local_addr().unwrap(), receiver).unwrap(),
            ..peer.request(sender)
        }
    };
    let answer = peer.ask(&asks(&peer, &sender, taken.1)).unwrap();
    assert_eq!(answer.accept(), Accept::Ok);
    assert_ne!(answer.port.get(), taken.1);
    let mut session = peer.granted(sender, &answer);
    // One that is free is the one that is granted.
    let (port, free) = (taken.1, taken.0);
    drop(free);
    let sender = peer.socket();
    let answer = peer.ask(&asks(&peer, &sender, port)).unwrap();
    assert_eq!((answer.accept(), answer.port.get()), (Accept::Ok, port));
    let mut other = peer.granted(sender, &answer);
    assert_eq!(peer.start(), Accept::Ok);
    session.exchange();
    other.exchange();
    server.stop_well();
}

/// As twampy's controller (version 1.3.1): no addresses, IPVN 4 also over IPv6, a Stop-Sessions
/// for 0 sessions.
#[test]
fn habits_of_twampy_are_understood() {
    let server = Server::start(":0 -v");
    for address in &server.addresses {
        let local = match address {
            SocketAddr::V4(_) => "127.0.0.1",
            SocketAddr::V6(_) => "::1",
        };
        let address = SocketAddr::new(local.parse().unwrap(), address.port());
        let mut stream = open(address, Modes::NONE);
        let sender = socket(address.ip());
        let request = RequestTwSession {
            command: 5,
            ipvn: 4,
            sender_port: sender.local_addr().unwrap().port().into(),
            padding_len: 27.into(),
            ..RequestTwSession::new_zeroed()
        };
        let octets = command(&Command::RequestTwSession(request));
        stream.write_all(&octets).unwrap();
        let answer = read_octets(&mut stream, ACCEPT_SESSION);
        assert_eq!(answer[0], 0);
        let port = u16::from_be_bytes([answer[2], answer[3]]);
        let octets = command(&Command::StartSessions);
        stream.write_all(&octets).unwrap();
        assert_eq!(read_octets(&mut stream, 32)[0], 0);
        let packet = [common::request(0), vec![0; 27]].concat();
        sender.send_to(&packet, (address.ip(), port)).unwrap();
        let mut reply = [0; 100];
        assert_eq!(sender.recv(&mut reply).unwrap(), 41);
        let stop = StopSessions {
            accept: Accept::Ok,
            sessions: 0,
        };
        let octets = command(&Command::StopSessions(stop));
        stream.write_all(&octets).unwrap();
        server.wait_for("Stop-Sessions counts no sessions");
    }
    let account = server.stop_well();
    for session in account["sessions"].as_array().unwrap() {
        assert_eq!(session["ending"], "stopped", "{session}");
    }
}

#[test]
fn stop_sessions_must_count_right() {
    let server = Server::start("127.0.0.1:0");
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let _session = peer.session();
    assert_eq!(peer.start(), Accept::Ok);
    let stop = StopSessions {
        accept: Accept::Ok,
        sessions: 2,
    };
    let octets = command(&Command::StopSessions(stop));
    peer.stream.write_all(&octets).unwrap();
    read_to_end(&mut peer.stream);
    let account = server.stop_well();
    assert_eq!(account["totals"]["stop_miscounted"], 1);
    assert_eq!(account["totals"]["broken"], 0);
    assert_eq!(account["sessions"][0]["ending"], "lost");
}

#[test]
fn a_third_party_is_refused_and_the_log_names_the_key() {
    let other = SocketAddr::from(([127, 9, 9, 9], 5000));
    let from_other = |peer: &mut Peer| {
        let receiver = peer.stream.peer_addr().unwrap();
        let request = SessionRequest {
            ends: Ends::new(other, receiver).unwrap(),
            ..peer.request(&peer.socket())
        };
        peer.ask(&request).unwrap().accept()
    };
    let server = Server::start("127.0.0.1:0");
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    assert_eq!(from_other(&mut peer), Accept::Failure);
    let line = server.wait_for("third_party_senders");
    assert!(line.contains("127.9.9.9"), "{line}");
    // The connection may be used all the same.
    peer.whole_session();
    server.stop_well();

    let text = "[default]\nthird_party_senders = [\"127.9.9.0/24\"]";
    let policy = Scratch::new("third-party", text);
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    assert_eq!(from_other(&mut peer), Accept::Ok);
    server.stop_well();
}

#[test]
fn what_cannot_be_or_may_not_be_has_its_own_answer() {
    let text = "[default]\nsessions = 2\npadding = 200\ndscps = [\"be\"]";
    let policy = Scratch::new("answers", text);
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let sender = peer.socket();
    let good = peer.request(&sender);
    for (request, accept) in [
        (SessionRequest { dscp: 46, ..good }, Accept::Failure),
        (
            SessionRequest {
                padding_len: 201,
                ..good
            },
            Accept::PermanentLimit,
        ),
        (good, Accept::Ok),
        (good, Accept::Ok),
        (good, Accept::TemporaryLimit),
    ] {
        let answer = peer.ask(&request).unwrap();
        assert_eq!(answer.accept(), accept, "{request:?}");
    }
    // The log has the reason of each, and its key.
    for key in ["dscps", "padding", "sessions"] {
        server.wait_for(&format!("{key} of the policy"));
    }
    let account = server.stop();
    assert_eq!(account["totals"]["sessions_refused"], 3);
}

#[test]
fn one_connection_too_many_is_greeted_without_a_mode() {
    for (key, said) in [
        ("connections", "connections of the policy"),
        ("connections_per_address", "connections_per_address of the"),
    ] {
        let policy = Scratch::new(key, &format!("[server]\n{key} = 3"));
        let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
        let mut held: Vec<Peer> = (0..3)
            .map(|_| Peer::ready(server.address(), Modes::UNAUTHENTICATED, None))
            .collect();
        let mut one_more = connect(server.address());
        assert_eq!(greeted_modes(&mut one_more), 0);
        assert!(read_to_end(&mut one_more).is_empty());
        server.wait_for(said);
        for peer in &mut held {
            peer.whole_session();
        }
        let account = server.stop();
        assert_eq!(account["totals"]["turned_away"], 1);
        assert_eq!(account["totals"]["most_connections"], 3);
    }
}

#[test]
fn the_oldest_half_open_connection_makes_room() {
    let policy = Scratch::new("half-open", "[server]\nhalf_open = 2");
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    let mut set_up = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let mut half_open: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = connect(server.address());
            assert_ne!(greeted_modes(&mut stream), 0);
            stream
        })
        .collect();
    for stream in &mut half_open[..2] {
        assert!(read_to_end(stream).is_empty());
    }
    let response = SetUpResponse::open(Modes::UNAUTHENTICATED);
    for stream in &mut half_open[2..] {
        stream.write_all(response.as_bytes()).unwrap();
        assert_eq!(read_octets(stream, SERVER_START)[15], 0);
    }
    set_up.whole_session();
    let account = server.stop_well();
    assert_eq!(account["totals"]["made_room"], 2);
}

#[test]
fn who_has_most_half_open_connections_makes_room_himself() {
    let policy = Scratch::new("half-open-share", "[server]\nhalf_open = 4");
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    let from = |last| {
        let mut stream = connect_from(last, server.address());
        assert_ne!(greeted_modes(&mut stream), 0);
        stream
    };
    let mut oldest = from(2);
    let mut others: Vec<TcpStream> = (0..6).map(|_| from(3)).collect();
    for stream in &mut others[..3] {
        assert!(read_to_end(stream).is_empty());
    }
    let response = SetUpResponse::open(Modes::UNAUTHENTICATED);
    for stream in others[3..].iter_mut().chain([&mut oldest]) {
        stream.write_all(response.as_bytes()).unwrap();
        assert_eq!(read_octets(stream, SERVER_START)[15], 0);
    }
    server.stop_well();
}

#[test]
fn keys_are_read_again_on_sighup() {
    let keys = Scratch::new("reload", KEYS);
    let server = Server::start(&format!(
        "127.0.0.1:0 --keys-file {} --mode {ALL_MODES}",
        keys.path()
    ));
    let mut before = Peer::ready(server.address(), Modes::ENCRYPTED, ALICE);
    keys.write("no-passphrase\n");
    server.signal("HUP");
    server.wait_for("line 1: no passphrase");
    Peer::ready(server.address(), Modes::ENCRYPTED, ALICE);
    keys.write("dave new\n");
    server.signal("HUP");
    server.wait_for("read again");
    let dave = Some(("dave", "new"));
    Peer::ready(server.address(), Modes::ENCRYPTED, dave).whole_session();
    let mut alice = Peer::new(server.address(), Modes::ENCRYPTED, ALICE);
    assert_eq!(alice.set_up(), Err(End::Refused(Accept::Failure)));
    // Who is in stays in.
    before.whole_session();
    server.stop_well();
}

#[test]
fn a_policy_is_read_again_on_sighup() {
    let some = "default = { features = [\"reflect-octets\"] }";
    let policy = Scratch::new("policy-again", some);
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    let offered = || greeted_modes(&mut connect(server.address()));
    let before = offered();
    policy.write("default = { features = [] }");
    server.signal("HUP");
    server.wait_for("the policy was read again: it counts for new connections");
    let after = offered();
    assert_ne!(before, after);
    policy.write("default = { features = \"x\" }");
    server.signal("HUP");
    server.wait_for("the policy stays as it was: --policy");
    assert_eq!(offered(), after);
    // What is there for the server as a whole stays.
    policy.write(&format!("{some}\nserver = {{ sessions = 5 }}"));
    server.signal("HUP");
    server.wait_for("[server] takes a restart");
    assert_eq!(offered(), before);
    server.stop_well();
}

#[test]
fn a_session_that_runs_ends_with_the_server() {
    let server = Server::start("127.0.0.1:0 --threads 2");
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let sender = peer.socket();
    let request = SessionRequest {
        timeout: Interval::from_ns(60_000_000_000),
        ..peer.request(&sender)
    };
    let answer = peer.ask(&request).unwrap();
    let mut session = peer.granted(sender, &answer);
    assert_eq!(peer.start(), Accept::Ok);
    session.exchange();
    let account = server.stop();
    assert_eq!(account["sessions"][0]["ending"], "shutdown", "{account:#}");
    assert_eq!(account["sessions"][0]["reflected"], 1, "{account:#}");
    assert!(read_to_end(&mut peer.stream).is_empty());
}

#[test]
fn ten_thousand_idle_connections_disturb_no_test_packet() {
    const IDLE: usize = 10_000;
    let wanted = u64::try_from(IDLE).unwrap() + 100;
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .expect("the system tells");
    // The server takes some for itself; see what it says.
    if hard < wanted + 1088 {
        return skip(&format!(
            "{hard} open files are too few for {IDLE} connections"
        ));
    }
    if soft < wanted {
        let resource = nix::sys::resource::Resource::RLIMIT_NOFILE;
        nix::sys::resource::setrlimit(resource, hard, hard).unwrap();
    }
    let server = Server::start("127.0.0.1:0");
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let mut session = peer.session();
    assert_eq!(peer.start(), Accept::Ok);
    let mut idle = Vec::new();
    for number in 0..IDLE {
        idle.push(open(server.address(), Modes::NONE));
        if number % 10 == 0 {
            session.exchange();
        }
    }
    let mut octet = [0];
    for stream in &mut idle {
        // Open, and with nothing to say.
        stream.set_nonblocking(true).unwrap();
        let error = stream.read(&mut octet).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    session.exchange();
    peer.stop();
    let account = server.stop_well();
    let totals = &account["totals"];
    assert_eq!(totals["most_connections"], IDLE + 2);
    assert_eq!(totals["turned_away"], 0);
    assert_eq!(totals["reflected"], IDLE / 10 + 1 + 3);
    assert_eq!(totals["unsent"], 0);
}

#[test]
fn without_descriptors_connections_are_turned_away_and_come_back() {
    let mut program = std::process::Command::new("sh");
    program.args([
        "-c",
        "ulimit -n 64 && exec \"$0\" \"$@\"",
        &common::binary(),
    ]);
    let policy = Scratch::new("descriptors", "[default]\ndscps = [\"be\"]");
    let line = format!("127.0.0.1:0 --policy {}", policy.path());
    let server = Server::start_by(program, &line);
    let mut peer = Peer::ready(server.address(), Modes::UNAUTHENTICATED, None);
    let other = SessionRequest {
        dscp: 46,
        ..peer.request(&peer.socket())
    };
    // A line that comes after all that it says at its start.
    peer.client.request(peer.now_ns(), &other).unwrap();
    peer.event().unwrap();
    let said = server.lines_until("DSCP ef");
    drop(peer);
    if !said.iter().any(|line| line.contains("room for 48 control")) {
        return skip(&format!("the limit of open files was raised: {said:?}"));
    }
    let mut held: Vec<Peer> = (0..40)
        .map(|_| Peer::ready(server.address(), Modes::UNAUTHENTICATED, None))
        .collect();
    // Sockets of sessions take what is left.
    let peer = &mut held[0];
    let refused = (0..64).find_map(|_| {
        let request = peer.request(&peer.socket());
        let answer = peer.ask(&request).unwrap().accept();
        (answer != Accept::Ok).then_some(answer)
    });
    assert_eq!(refused, Some(Accept::TemporaryLimit));
    let mut one_more = connect(server.address());
    assert_eq!(greeted_modes(&mut one_more), 0);
    drop(held);
    server.wait_for("cannot accept a connection");
    // As soon as the others have gone.
    let until = Instant::now() + LIMIT;
    while greeted_modes(&mut connect(server.address())) == 0 {
        assert!(Instant::now() < until, "nobody is served again");
    }
    server.stop_well();
}

/// Whoever gives a server keys does not expect it to serve those who have none.
#[test]
fn with_keys_nobody_is_served_without_one_unless_that_is_named() {
    let keys = Scratch::new("keyed", KEYS);
    let policy = Scratch::new(
        "open-network",
        "[[network]]\nprefix = \"127.0.0.3/32\"\nmodes = [\"unauthenticated\", \"mixed\"]\n",
    );
    let modes = |server: &Server, host| {
        let mut stream = connect_from(host, server.address());
        let greeting = read_octets(&mut stream, GREETING);
        u32::from_be_bytes(greeting[12..16].try_into().unwrap()) & 0xf
    };
    for (flags, said, offered, offered_to_3) in [
        ("", &["mixed", "to everybody"][..], 14, 14),
        ("", &["nobody is served without a key"], 14, 14),
        (
            " --mode mixed,unauthenticated",
            &["unauthenticated takes no key"],
            9,
            9,
        ),
        (" --policy", &["to everybody else"], 14, 9),
        (" --policy", &["to clients in 127.0.0.3/32"], 14, 9),
    ] {
        let flags = match flags {
            " --policy" => format!(" --policy {}", policy.path()),
            flags => flags.to_owned(),
        };
        let line = format!("127.0.0.1:0 --keys-file {}{flags}", keys.path());
        let server = Server::start(&line);
        let heard = server.wait_for(said.last().unwrap());
        assert!(said.iter().all(|part| heard.contains(part)), "{heard}");
        let found = (modes(&server, 2), modes(&server, 3));
        assert_eq!(found, (offered, offered_to_3), "{line}");
        server.stop();
    }
}

#[test]
fn the_printed_policy_is_the_one_in_force() {
    let printed = run("server --print-policy");
    assert_eq!((printed.code, printed.stderr.as_str()), (0, ""));
    let policy = Scratch::new("printed", &printed.stdout);
    let server = Server::start(&format!("127.0.0.1:0 --policy {}", policy.path()));
    server.stop_well();
}

#[test]
fn wrong_usage_is_exit_2_and_one_line() {
    let keys = Scratch::new("usage-keys", KEYS);
    let twice = Scratch::new("usage-twice", "a secret\na secret\n");
    let policy = Scratch::new(
        "usage-policy",
        "[default]\nsessions = 1\nbit_rate = \"no\"\n",
    );
    let exposed = Scratch::new("usage-exposed", KEYS);
    exposed.permit(0o640);
    let folder = std::env::temp_dir();
    let folder = folder.to_str().unwrap();
    let mut wrong = Vec::new();
    for (line, parts) in [
        (
            format!("--keys-file {}", exposed.path()),
            &["0640", "chmod 600"][..],
        ),
        (
            format!("--keys-file {}", twice.path()),
            &["line 2", "\"a\" is there"],
        ),
        (format!("--keys-file {folder}"), &["no regular file"]),
        (
            "--keys-file /no/such".to_owned(),
            &["/no/such", "use a file"],
        ),
        (
            format!("--policy {}", policy.path()),
            &["line 3", "bit_rate", "unlimited"],
        ),
        ("--policy /no/such".to_owned(), &["--policy /no/such"]),
        ("--mode open".to_owned(), &["--mode", "use unauthenticated"]),
        ("--mode encrypted".to_owned(), &["--mode", "--keys-file"]),
        ("--features x".to_owned(), &["--features", "reflect-octets"]),
        (
            format!("--keys-file {} --count 1000", keys.path()),
            &["--count 1000", "power of two"],
        ),
        (
            "--count 65536".to_owned(),
            &["--count 65536", "--max-count"],
        ),
        ("--servwait 0".to_owned(), &["--servwait 0", "use 1s"]),
        ("--threads 0".to_owned(), &["--threads", "use 1 to 256"]),
        (
            "--json --logfile -".to_owned(),
            &["--logfile -", "name a file"],
        ),
    ] {
        let outcome = run(&format!("server 127.0.0.1:0 {line}"));
        let told = outcome.stderr.lines().count() == 1
            && outcome.stderr.starts_with("twamp-blast: ")
            && !outcome.stderr.contains("secret")
            && parts.iter().all(|part| outcome.stderr.contains(part));
        if outcome.code != 2 || !outcome.stdout.is_empty() || !told {
            wrong.push(format!("{line}: {parts:?} in {outcome:?}"));
        }
    }
    let many = run("server 224.0.0.1:0");
    assert!(many.complaint().contains("use one"), "{many:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_port_in_use_is_exit_1_and_one_line() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let outcome = run(&format!("server {}", other.local_addr().unwrap()));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.complaint().contains("use another one"),
        "{outcome:?}"
    );
}

#[test]
fn the_summary_fits_a_terminal() {
    let mut line = std::process::Command::new(common::binary());
    line.args(["server", "127.0.0.1:0"]);
    let mut running = common::Running::start(&mut line);
    let mut first = [0; 40];
    let stderr = running.0.stderr.as_mut().unwrap();
    stderr.read_exact(&mut first).unwrap();
    running.interrupt();
    let outcome = running.finish();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(
        outcome.stdout.contains("sessions 0  started 0"),
        "{outcome:?}"
    );
    for line in outcome.stdout.lines() {
        assert!(line.chars().count() <= 79, "{line}");
    }
}
