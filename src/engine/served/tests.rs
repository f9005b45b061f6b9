use std::collections::HashMap;
use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use mio::{Poll, Token, Waker};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use proptest::prelude::*;
use socket2::SockRef;
use zerocopy::{FromBytes, IntoBytes};

use super::reflectors::local;
use super::serving::{Serving, Session, source};
use super::thread::{Command, NewPort, Shared, Thread};
use super::*;
use crate::config::{Dscp, IoKind, Rate, ServedConfig, SocketOptions};
use crate::engine::reflector::{Answer, Desk, OneBundle, Reflector};
use crate::engine::run::Stop;
use crate::io::{Port, Request, SocketPlan, linux};
use crate::os;
use crate::report::ignored::Kind;
use crate::wire::protected::{self, Protection, TestKeys};
use crate::wire::{
    ErrorEstimate, Format, Modes, ReflectorPacket, SecurityMode, SenderPacket, TestFormat,
    Timestamp, parse_request,
};

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// No session is silent for so long.
const FOREVER_NS: i64 = 3_600_000_000_000;
const T1: u64 = 0xec00_0000_1234_5678;

fn keys() -> TestKeys {
    TestKeys::new(&[0x11; 16], &[0x22; 32])
}

fn format(modes: Modes, reflected: u16) -> TestFormat {
    TestFormat::new(modes, reflected, [0; 2]).unwrap()
}

fn protection(format: &TestFormat) -> Option<Protection> {
    let mode = format.protection()?;
    Some(Protection::new(mode, &keys()))
}

fn served(sender: SocketAddr, receiver: IpAddr, format: TestFormat) -> Served {
    Served {
        sender,
        receiver,
        format,
        keys: format.protection().map(|_| keys()),
        dscp: Dscp::new(0).unwrap(),
        timestamps: Format::Ntp,
        refwait_ns: FOREVER_NS,
        replaces: None,
        allowance: Arc::new(Allowance::new(None, None)),
    }
}

/// A request that is right in every respect.
fn request(format: &TestFormat, seq: u32, len: usize) -> Vec<u8> {
    request_of(format, seq, len, Timestamp::from_raw(T1 + u64::from(seq)))
}

fn request_of(format: &TestFormat, seq: u32, len: usize, t1: Timestamp) -> Vec<u8> {
    let mut octets = vec![0; len];
    format.fill(&mut octets, Some(seq.into()));
    let plain = SenderPacket {
        seq: seq.into(),
        timestamp: t1,
        error_estimate: ErrorEstimate::UNKNOWN,
    };
    match protection(format) {
        None => octets[..plain.as_bytes().len()].copy_from_slice(plain.as_bytes()),
        Some(protection) => {
            let packet = protected::SenderPacket::from(plain);
            octets[..protected::SENDER_LEN].copy_from_slice(packet.as_bytes());
            protection.prepare::<protected::SenderPacket>(&mut octets, len);
            protection.stamp::<protected::SenderPacket>(&mut octets, len, plain.timestamp);
        }
    }
    octets
}

/// What a reply says, whose HMAC is checked; its TOS field and its padding.
fn read(format: &TestFormat, octets: &[u8]) -> (ReflectorPacket, Option<u8>, Vec<u8>) {
    let padding = octets[format.reflector_len()..].to_vec();
    match protection(format) {
        None => {
            let (plain, rest) = ReflectorPacket::read_from_prefix(octets).unwrap();
            (plain, format.monitored().then(|| rest[0]), padding)
        }
        Some(protection) => {
            let mut octets = octets.to_vec();
            let len = octets.len();
            let mut read = None;
            protection.open::<protected::ReflectorPacket>(&mut octets, len, |_, packet| {
                read = Some(*packet.unwrap());
            });
            let packet = read.unwrap();
            let tos = packet.sender_tos;
            assert!(format.monitored() || tos == 0);
            (packet.plain(), format.monitored().then_some(tos), padding)
        }
    }
}

/// Reflectors, and where their listener waits.
struct Host {
    reflectors: Reflectors,
    stop: Stop,
    poll: Poll,
}

impl Host {
    fn new(io: IoKind, threads: usize) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let config = ServedConfig {
            socket: SocketOptions {
                tos: 0,
                ttl: 255,
                do_not_fragment: false,
                interface: None,
                hardware: false,
                busy_poll_us: None,
                io,
            },
            threads,
            cpus: None,
        };
        let stop = Stop::default();
        let reflectors = Reflectors::start(&config, &stop, &waker).unwrap();
        Self {
            reflectors,
            stop,
            poll,
        }
    }

    /// Adds a session from a socket, on any port.
    fn add(&mut self, client: &UdpSocket, format: TestFormat) -> (ServedId, u16) {
        self.add_at(client, format, 0).unwrap()
    }

    fn add_at(
        &mut self,
        client: &UdpSocket,
        format: TestFormat,
        port: u16,
    ) -> Result<(ServedId, u16), NotServed> {
        let from = client.local_addr().unwrap();
        self.reflectors.add(served(from, from.ip(), format), [port])
    }

    /// Adds a session that runs, and returns it with the socket that it is from, connected.
    fn session(&mut self, session: impl FnOnce(&mut Served)) -> (ServedId, UdpSocket) {
        self.session_over("127.0.0.1", session)
    }

    fn session_over(
        &mut self,
        address: &str,
        change: impl FnOnce(&mut Served),
    ) -> (ServedId, UdpSocket) {
        let client = client_at(address);
        let from = client.local_addr().unwrap();
        let mut session = served(from, from.ip(), TestFormat::LIGHT);
        change(&mut session);
        session.keys = session.format.protection().map(|_| keys());
        let (id, port) = self.reflectors.add(session, [0]).unwrap();
        client.connect((from.ip(), port)).unwrap();
        self.reflectors.run(id);
        (id, client)
    }

    fn event(&self) -> ServedEvent {
        self.reflectors.events().recv_timeout(PATIENCE).unwrap()
    }

    /// Ends a session at once.
    fn end(&mut self, id: ServedId) -> RequestCounts {
        self.reflectors.end(id, 0);
        match self.event() {
            ServedEvent::Ended(ended, counts) if ended == id => counts,
            other => panic!("{other:?}"),
        }
    }

    /// Stops all; returns what was told since.
    fn finish(self) -> Vec<ServedEvent> {
        self.stop.request();
        let events = self.reflectors.events().clone();
        self.reflectors.wait().unwrap();
        events.try_iter().collect()
    }
}

fn strays_and_drops(host: &Host) -> (u64, Option<u64>) {
    let (ignored, drops) = host.reflectors.ignored_and_drops();
    (ignored.of(Kind::NoSession), drops)
}

fn client() -> UdpSocket {
    client_at("127.0.0.1")
}

fn client_at(address: &str) -> UdpSocket {
    let client = UdpSocket::bind((address, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut octets = vec![0; 65_536];
    let len = client.recv(&mut octets).unwrap();
    octets.truncate(len);
    octets
}

/// Number and Sender Sequence Number of the next reply of TWAMP Light.
fn numbers(client: &UdpSocket) -> (u32, u32) {
    let (reply, _, _) = read(&TestFormat::LIGHT, &receive(client));
    (reply.head.seq.get(), reply.head.sender_seq.get())
}

fn send(client: &UdpSocket, seq: u32) {
    client.send(&request(&TestFormat::LIGHT, seq, 41)).unwrap();
}

/// Sends packets of one size, the last one perhaps shorter, as one train.
fn send_train(client: &UdpSocket, packets: &[Vec<u8>]) {
    let segment = i32::try_from(packets[0].len()).unwrap();
    setsockopt(client, sockopt::UdpGsoSegment, &segment).unwrap();
    client.send(&packets.concat()).unwrap();
    setsockopt(client, sockopt::UdpGsoSegment, &0).unwrap();
}

/// Addresses of this host, on each of which one test alone has ports: there it can be sure that one
/// which it found free stays so.
const OWN_ADDRESSES: [&str; 3] = ["127.0.1.1", "127.0.1.2", "127.0.1.3"];

const MAKES: [IoKind; 2] = [IoKind::Batched, IoKind::Portable];

#[test]
fn two_senders_share_a_port_and_each_has_its_numbers() {
    for io in MAKES {
        let mut host = Host::new(io, 2);
        let (one, other) = (client(), client());
        let (first, port) = host.add(&one, TestFormat::LIGHT);
        let (second, same) = host.add_at(&other, TestFormat::LIGHT, port).unwrap();
        assert_eq!(port, same);
        for (id, client) in [(first, &one), (second, &other)] {
            client.connect(("127.0.0.1", port)).unwrap();
            host.reflectors.run(id);
        }
        for n in 0..5 {
            send(&one, 100 + n);
            send(&one, 100 + n);
            send(&other, n);
            // Copies are answered, too (RFC 5357 §4.2).
            assert_eq!(numbers(&one), (2 * n, 100 + n));
            assert_eq!(numbers(&one), (2 * n + 1, 100 + n));
            assert_eq!(numbers(&other), (n, n));
        }
        let counts = host.end(first);
        assert_eq!((counts.received, counts.received_octets), (10, 410));
        assert_eq!((counts.reflected, counts.unsent), (10, 0));
        // The port stays open for the other one.
        send(&other, 5);
        assert_eq!(numbers(&other), (5, 5));
        assert_eq!(host.end(second).reflected, 6);
    }
}

#[test]
fn what_comes_from_elsewhere_is_a_stray() {
    let mut host = Host::new(IoKind::Batched, 1);
    let (id, client) = host.session(|_| ());
    let elsewhere = client_at("127.0.0.1");
    elsewhere.connect(client.peer_addr().unwrap()).unwrap();
    for _ in 0..3 {
        send(&elsewhere, 0);
    }
    send_train(&elsewhere, &[vec![0; 50], vec![0; 50], vec![0; 10]]);
    // The same port of another address.
    let port = client.local_addr().unwrap().port();
    let other = UdpSocket::bind(("127.0.0.2", port)).unwrap();
    other.connect(client.peer_addr().unwrap()).unwrap();
    send(&other, 0);
    send(&client, 7);
    assert_eq!(numbers(&client), (0, 7));
    assert_eq!(host.end(id).received, 1);
    assert_eq!(strays_and_drops(&host), (7, Some(0)));
    elsewhere.set_nonblocking(true).unwrap();
    let error = elsewhere.recv(&mut [0; 64]).unwrap_err();
    // The port was closed after all, but nothing was sent before.
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::ConnectionRefused
    ));
}

#[test]
fn requests_before_the_start_are_early_and_those_after_it_are_answered() {
    let mut host = Host::new(IoKind::Batched, 1);
    let (running, other) = host.session(|_| ());
    let port = other.peer_addr().unwrap().port();
    let client = client();
    let (id, _) = host.add_at(&client, TestFormat::LIGHT, port).unwrap();
    client.connect(other.peer_addr().unwrap()).unwrap();
    for seq in 0..3 {
        send(&client, seq);
    }
    // When this one is answered the others have been seen.
    send(&other, 0);
    assert_eq!(numbers(&other), (0, 0));
    host.reflectors.run(id);
    send(&client, 3);
    assert_eq!(numbers(&client), (0, 3));
    let counts = host.end(id);
    assert_eq!(
        (counts.received, counts.early(), counts.reflected),
        (4, 3, 1)
    );
    assert_eq!(host.end(running).early(), 0);
}

#[test]
fn a_session_that_was_just_started_misses_nothing() {
    let mut host = Host::new(IoKind::Batched, 2);
    for n in 0..200 {
        let (id, client) = host.session(|_| ());
        send(&client, n);
        assert_eq!(numbers(&client), (0, n));
        assert_eq!(host.end(id).reflected, 1);
    }
}

/// All modes with each combination of features that changes a packet.
fn formats() -> Vec<TestFormat> {
    let mut formats = Vec::new();
    for mode in SecurityMode::STRONGEST_FIRST {
        for features in [
            Modes::NONE,
            Modes::SYMMETRICAL_SIZE,
            Modes::DSCP_ECN_MONITORING,
            Modes::REFLECT_OCTETS,
            Modes::SYMMETRICAL_SIZE | Modes::REFLECT_OCTETS | Modes::DSCP_ECN_MONITORING,
        ] {
            formats.push(format(mode.bit() | features, 20));
        }
    }
    formats
}

#[test]
fn requests_and_bundles_of_every_mode_are_answered() {
    let mut host = Host::new(IoKind::Batched, 2);
    for format in formats() {
        let (id, client) = host.session(|session| session.format = format);
        let even = format.padding_at() + format.even_padding();
        let mut replies = 0;
        for len in [format.sender_len(), even, even + 300] {
            let packets: Vec<_> = (0..9).map(|seq| request(&format, seq, len)).collect();
            client.send(&packets[0]).unwrap();
            send_train(&client, &packets[1..]);
            for (seq, packet) in (0..).zip(&packets) {
                let octets = receive(&client);
                assert_eq!(octets.len(), format.reply_len(len), "{format:?} {len}");
                let (reply, _, padding) = read(&format, &octets);
                assert_eq!(reply.head.seq.get(), replies);
                assert_eq!(reply.head.sender_seq.get(), seq);
                let t1 = T1 + u64::from(seq);
                assert_eq!(reply.head.sender_timestamp.raw(), t1);
                assert_eq!(reply.head.sender_error_estimate, ErrorEstimate::UNKNOWN);
                let (t2, t3) = (reply.head.receive_timestamp, reply.head.timestamp);
                let near = os::realtime_ns();
                let [t2, t3] = [t2, t3].map(|t| t.unix_ns(Format::Ntp, near).unwrap());
                assert!((0..1_000_000_000).contains(&(t3 - t2)), "{t2} {t3}");
                let sent = &packet[format.padding_at().min(len)..];
                let back = sent.len().min(padding.len());
                let skip = if format.protection().is_none() { 2 } else { 0 };
                assert_eq!(&padding[skip.min(back)..back], &sent[skip.min(back)..back]);
                replies += 1;
            }
        }
        let counts = host.end(id);
        assert_eq!((counts.received, counts.reflected), (27, 27));
    }
}

#[test]
fn replies_that_find_no_room_behind_each_other_are_not_sent() {
    let mut host = Host::new(IoKind::Batched, 1);
    let format = format(Modes::ENCRYPTED | Modes::REFLECT_OCTETS, 1000);
    let (id, client) = host.session(|session| session.format = format);
    // Replies of 1072 octets, 61 of which a slot holds.
    assert_eq!(format.reply_len(1008), 1072);
    let packets: Vec<_> = (0..62).map(|seq| request(&format, seq, 1008)).collect();
    send_train(&client, &packets);
    for seq in 0..61_u32 {
        let (reply, _, padding) = read(&format, &receive(&client));
        assert_eq!(
            (reply.head.seq.get(), reply.head.sender_seq.get()),
            (seq, seq)
        );
        assert_eq!(padding, packets[usize::try_from(seq).unwrap()][48..]);
    }
    let counts = host.end(id);
    assert_eq!((counts.reflected, counts.unsent), (61, 1));
}

#[test]
fn forged_requests_are_counted_and_not_answered() {
    let mut host = Host::new(IoKind::Batched, 1);
    for mode in [Modes::AUTHENTICATED, Modes::ENCRYPTED] {
        let format = format(mode, 0);
        let (id, client) = host.session(|session| session.format = format);
        let mut packets: Vec<_> = (0..7).map(|seq| request(&format, seq, 120)).collect();
        for forged in [0, 3] {
            packets[forged][0] ^= 1;
        }
        packets[5][47] ^= 0x80;
        send_train(&client, &packets);
        // Without keys, too short, empty.
        client.send(&request(&TestFormat::LIGHT, 0, 200)).unwrap();
        client.send(&packets[1][..47]).unwrap();
        client.send(&[]).unwrap();
        client.send(&request(&format, 9, 120)).unwrap();
        for expected in [(0, 1), (1, 2), (2, 4), (3, 6), (4, 9)] {
            let (reply, _, _) = read(&format, &receive(&client));
            let found = (reply.head.seq.get(), reply.head.sender_seq.get());
            assert_eq!(found, expected);
        }
        let counts = host.end(id);
        assert_eq!((counts.received, counts.reflected), (11, 5));
        assert_eq!((counts.forged(), counts.malformed()), (4, 2));
    }
}

/// Real Session-Senders never fill their Error Estimate in, or not always.
#[test]
fn requests_without_an_error_estimate_are_answered() {
    for mode in [
        Modes::UNAUTHENTICATED,
        Modes::AUTHENTICATED,
        Modes::ENCRYPTED,
    ] {
        let format = format(mode, 0);
        let mut octets = vec![0; 120];
        let plain = SenderPacket {
            seq: 0.into(),
            timestamp: Timestamp::from_raw(T1),
            error_estimate: ErrorEstimate::from_raw(0x8000),
        };
        match protection(&format) {
            None => octets[..14].copy_from_slice(plain.as_bytes()),
            Some(protection) => {
                let packet = protected::SenderPacket::from(plain);
                octets[..protected::SENDER_LEN].copy_from_slice(packet.as_bytes());
                protection.prepare::<protected::SenderPacket>(&mut octets, 120);
                protection.stamp::<protected::SenderPacket>(&mut octets, 120, plain.timestamp);
            }
        }
        let (replies, counts) = reflected(format, &octets, 120);
        assert_eq!(replies.len(), 1);
        assert_eq!((counts.estimates_unusable, counts.malformed()), (1, 0));
    }
}

#[test]
fn a_reply_that_comes_back_is_not_answered() {
    let mut host = Host::new(IoKind::Batched, 1);
    for timestamps in [Format::Ntp, Format::Ptp] {
        let (id, client) = host.session(|session| session.timestamps = timestamps);
        send(&client, 0);
        let reply = receive(&client);
        // As another reflector would answer it.
        let mut request = vec![0; 41];
        request[..14].copy_from_slice(&request_head());
        request[28..36].copy_from_slice(&reply[4..12]);
        client.send(&request).unwrap();
        send(&client, 1);
        assert_eq!(numbers(&client), (1, 1));
        let counts = host.end(id);
        assert_eq!((counts.malformed(), counts.reflected), (1, 2));
    }
}

fn request_head() -> Vec<u8> {
    request(&TestFormat::LIGHT, 0, 14)
}

/// Asks for the TOS or Traffic Class of what arrives.
fn tell_tos(client: &UdpSocket) {
    let socket = SockRef::from(client);
    if client.local_addr().unwrap().is_ipv4() {
        socket.set_recv_tos_v4(true).unwrap();
    } else {
        socket.set_recv_tclass_v6(true).unwrap();
    }
}

/// The next reply, and its TOS or Traffic Class.
fn receive_with_tos(client: &UdpSocket) -> (Vec<u8>, u8) {
    let mut octets = vec![0; 65_536];
    let mut buffers = [IoSliceMut::new(&mut octets)];
    let mut space = nix::cmsg_space!(i32);
    let fd = client.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut buffers, Some(&mut space), MsgFlags::empty()).unwrap();
    let mut tos = message.cmsgs().unwrap().map(|message| match message {
        ControlMessageOwned::Ipv4Tos(tos) => tos,
        ControlMessageOwned::Ipv6TClass(class) => u8::try_from(class).unwrap(),
        other => panic!("{other:?}"),
    });
    let found = tos.next().unwrap();
    let len = message.bytes;
    octets.truncate(len);
    (octets, found)
}

#[test]
fn replies_have_the_dscp_of_the_session_and_tell_ttl_and_tos_of_the_request() {
    let mut host = Host::new(IoKind::Batched, 1);
    for format in formats() {
        for address in ["127.0.0.1", "::1"] {
            let (id, client) = host.session_over(address, |session| {
                session.format = format;
                session.dscp = Dscp::new(46).unwrap();
                session.timestamps = Format::Ptp;
            });
            let socket = SockRef::from(&client);
            if address == "::1" {
                socket.set_unicast_hops_v6(17).unwrap();
                socket.set_tclass_v6(0x2a).unwrap();
            } else {
                socket.set_ttl_v4(17).unwrap();
                socket.set_tos_v4(0x2a).unwrap();
            }
            tell_tos(&client);
            client.send(&request(&format, 0, 150)).unwrap();
            let (octets, tos) = receive_with_tos(&client);
            let (reply, sender_tos, _) = read(&format, &octets);
            assert_eq!(tos, 46 << 2, "{format:?} {address}");
            assert_eq!(reply.tail.sender_ttl, 17);
            assert_eq!(sender_tos, format.monitored().then_some(0x2a));
            assert_eq!(reply.head.error_estimate.format(), Format::Ptp);
            let near = os::realtime_ns();
            let t3 = reply.head.timestamp.unix_ns(Format::Ptp, near).unwrap();
            assert!((near - t3).abs() < 10_000_000_000);
            host.end(id);
        }
    }
}

#[test]
fn sessions_of_a_port_keep_their_dscps_apart() {
    let mut host = Host::new(IoKind::Batched, 1);
    let mut port = 0;
    for dscp in [10, 0, 46] {
        let client = client();
        tell_tos(&client);
        let from = client.local_addr().unwrap();
        let mut session = served(from, from.ip(), TestFormat::LIGHT);
        session.dscp = Dscp::new(dscp).unwrap();
        let (id, granted) = host.reflectors.add(session, [port]).unwrap();
        assert!(port == 0 || granted == port);
        port = granted;
        host.reflectors.run(id);
        client.connect(("127.0.0.1", port)).unwrap();
        send(&client, 0);
        assert_eq!(receive_with_tos(&client).1, dscp << 2);
    }
}

#[test]
fn a_client_gets_no_more_than_its_allowance() {
    let mut host = Host::new(IoKind::Batched, 2);
    let a_day = Rate::from_interval(86_400_000_000_000);
    let allowance = Arc::new(Allowance::new(a_day, None));
    let mut answered = 0;
    for (sent, singles) in [(40, false), (40, true)] {
        let (id, client) = host.session(|session| session.allowance = Arc::clone(&allowance));
        let packets: Vec<_> = (0..sent)
            .map(|seq| request(&TestFormat::LIGHT, seq, 41))
            .collect();
        if singles {
            for packet in &packets {
                client.send(packet).unwrap();
            }
        } else {
            send_train(&client, &packets);
        }
        let expected = if singles { 24 } else { 40 };
        for n in 0..expected {
            assert_eq!(numbers(&client), (n, n));
        }
        let counts = host.end(id);
        assert_eq!(counts.reflected, u64::from(expected));
        assert_eq!(counts.over_allowance(), u64::from(sent - expected));
        answered += counts.reflected;
    }
    assert_eq!(answered, BURST_PACKETS);
}

#[test]
fn a_session_ends_when_it_is_silent() {
    let mut host = Host::new(IoKind::Batched, 1);
    let (lasting, other) = host.session(|_| ());
    let (id, client) = host.session(|session| session.refwait_ns = 30_000_000);
    assert_eq!(host.event(), ServedEvent::Silent(id));
    let ServedEvent::Ended(ended, counts) = host.event() else {
        panic!("it was told to be silent before");
    };
    assert_eq!((ended, counts.received), (id, 0));
    drop(client);
    send(&other, 0);
    assert_eq!(numbers(&other), (0, 0));
    assert_eq!(host.end(lasting).reflected, 1);
}

#[test]
fn a_session_that_does_not_run_is_not_silent() {
    let mut serving = Serving::new();
    let (events, told) = unbounded();
    let from = "127.0.0.1:5000".parse().unwrap();
    let mut session = served(from, from.ip(), TestFormat::LIGHT);
    session.refwait_ns = 100;
    let session = Session::new(ServedId(7), 1, session, Arc::default(), events);
    serving.add(Box::new(session));
    assert_eq!(serving.next_look(), i64::MAX);
    assert!(serving.take_over(i64::MAX - 1).is_none());
    serving.run(ServedId(7), 1000);
    assert_eq!(serving.next_look(), 1100);
    assert!(serving.take_over(1099).is_none());
    // A request puts it off.
    let mut octets = vec![0; 100];
    let request = request(&TestFormat::LIGHT, 0, 41);
    octets[..41].copy_from_slice(&request);
    let mut reflector = Reflector::over(serving);
    let answer = reflector.reflect_each(1, &mut arrived(&mut octets, 41, 41, from), 1050);
    assert!(answer.is_some());
    let mut serving = reflector.book;
    assert!(serving.take_over(1149).is_none());
    assert_eq!(serving.next_look(), 1150);
    // Told to end it need not speak any more.
    serving.end(ServedId(7), 5000, 1149);
    serving.end(ServedId(7), 6000, 1149);
    assert!(serving.take_over(4999).is_none());
    assert_eq!(told.len(), 0);
    drop(serving.take_over(5000).unwrap());
    assert!(matches!(told.try_recv(), Ok(ServedEvent::Ended(..))));
    assert_eq!(serving.next_look(), i64::MAX);
}

#[test]
fn a_session_goes_on_for_its_timeout_and_then_its_port_is_free() {
    for io in MAKES {
        let mut host = Host::new(io, 1);
        let (id, client) = host.session_over(OWN_ADDRESSES[0], |_| ());
        let to = client.peer_addr().unwrap();
        host.reflectors.end(id, FOREVER_NS);
        send(&client, 0);
        assert_eq!(numbers(&client), (0, 0));
        // The listener is woken.
        let mut events = mio::Events::with_capacity(4);
        host.reflectors.end(id, 1_000_000);
        host.poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert_eq!(events.iter().count(), 1);
        assert!(matches!(host.event(), ServedEvent::Ended(ended, counts)
            if ended == id && counts.reflected == 1));
        let again = UdpSocket::bind(to).unwrap();
        assert!(matches!(
            host.add_at(&client, TestFormat::LIGHT, to.port()),
            Err(NotServed::NoPort)
        ));
        drop(again);
        let (next, port) = host.add_at(&client, TestFormat::LIGHT, to.port()).unwrap();
        assert_eq!(port, to.port());
        assert_ne!(next, id);
        // One that was not started ends at once, and each only once.
        host.reflectors.end(next, FOREVER_NS);
        let none = RequestCounts::default();
        assert_eq!(host.event(), ServedEvent::Ended(next, none));
        host.reflectors.end(next, 0);
        assert_eq!(host.finish(), []);
    }
}

#[test]
fn a_session_takes_the_place_of_one_that_only_goes_on_for_its_timeout() {
    let mut host = Host::new(IoKind::Batched, 2);
    let client = client();
    let from = client.local_addr().unwrap();
    let (mut before, port) = host.add(&client, TestFormat::LIGHT);
    client.connect((from.ip(), port)).unwrap();
    host.reflectors.run(before);
    for _ in 0..20 {
        for number in 0..3 {
            send(&client, number);
            assert_eq!(numbers(&client), (number, number));
        }
        host.reflectors.end(before, FOREVER_NS);
        let again = host.add_at(&client, TestFormat::LIGHT, port);
        assert!(matches!(again, Err(NotServed::NoPort)));
        let session = Served {
            replaces: Some(before),
            ..served(from, from.ip(), TestFormat::LIGHT)
        };
        let (next, same) = host.reflectors.add(session, [port]).unwrap();
        assert_eq!(same, port);
        match host.event() {
            ServedEvent::Ended(id, counts) => {
                assert_eq!((id, counts.received, counts.reflected), (before, 3, 3));
            }
            other @ ServedEvent::Silent(_) => panic!("{other:?}"),
        }
        host.reflectors.run(next);
        before = next;
    }
    send(&client, 0);
    assert_eq!(numbers(&client), (0, 0));
    assert_eq!(host.end(before).reflected, 1);
    assert_eq!(host.finish(), []);
}

#[test]
fn the_first_free_port_is_taken() {
    let mut host = Host::new(IoKind::Batched, 2);
    let foreign = client();
    let taken = foreign.local_addr().unwrap().port();
    let (one, other) = (client(), client());
    let (_, port) = host.add(&one, TestFormat::LIGHT);
    let from = |client: &UdpSocket| {
        let from = client.local_addr().unwrap();
        served(from, from.ip(), TestFormat::LIGHT)
    };
    // From the same address and port it is not free, from another one it is.
    let again = host.reflectors.add(from(&one), [taken, port]);
    assert!(matches!(again, Err(NotServed::NoPort)));
    let (_, second) = host.reflectors.add(from(&one), [taken, port, 0]).unwrap();
    assert!(second != port && second != taken);
    let (_, joined) = host.reflectors.add(from(&other), [taken, port, 0]).unwrap();
    assert_eq!(joined, port);
    assert!(matches!(
        host.reflectors.add(from(&other), []),
        Err(NotServed::NoPort)
    ));
    let mut nowhere = from(&other);
    nowhere.receiver = "192.0.2.1".parse().unwrap();
    let error = host.reflectors.add(nowhere, [0]).unwrap_err();
    assert!(matches!(error, NotServed::Open { at, .. } if at.ip().to_string() == "192.0.2.1"));
    let mut keyless = from(&other);
    keyless.format = format(Modes::ENCRYPTED, 0);
    assert!(host.reflectors.add(keyless, [0]).is_err());
    assert_eq!(host.finish().len(), 3);
}

#[test]
fn the_portable_make_has_one_dscp_a_port() {
    let mut host = Host::new(IoKind::Portable, 1);
    let (one, other) = (client(), client());
    let (_, port) = host.add(&one, TestFormat::LIGHT);
    let from = other.local_addr().unwrap();
    let mut session = served(from, from.ip(), TestFormat::LIGHT);
    session.dscp = Dscp::new(46).unwrap();
    let (_, granted) = host.reflectors.add(session, [port, 0]).unwrap();
    assert_ne!(granted, port);
    assert_eq!(strays_and_drops(&host), (0, None));
}

#[test]
fn the_portable_make_answers_every_mode() {
    let mut host = Host::new(IoKind::Portable, 1);
    for format in formats() {
        let (id, client) = host.session(|session| session.format = format);
        for seq in 0..5 {
            client.send(&request(&format, seq, 200)).unwrap();
            let (reply, tos, _) = read(&format, &receive(&client));
            assert_eq!(
                (reply.head.seq.get(), reply.head.sender_seq.get()),
                (seq, seq)
            );
            assert_eq!((reply.tail.sender_ttl, tos.unwrap_or(0)), (255, 0));
        }
        assert_eq!(host.end(id).reflected, 5);
    }
}

#[test]
fn a_stop_ends_all_sessions() {
    let mut host = Host::new(IoKind::Batched, 2);
    let mut ids = Vec::new();
    let mut clients = Vec::new();
    for n in 0..6 {
        if n % 2 == 0 {
            let (id, client) = host.session_over(OWN_ADDRESSES[1], |_| ());
            send(&client, 0);
            assert_eq!(numbers(&client), (0, 0));
            clients.push(client);
            ids.push(id);
        } else {
            ids.push(host.add(&client(), TestFormat::LIGHT).0);
        }
    }
    let ports: Vec<_> = clients.iter().map(|c| c.peer_addr().unwrap()).collect();
    let ended: HashMap<_, _> = host
        .finish()
        .into_iter()
        .map(|event| match event {
            ServedEvent::Ended(id, counts) => (id, counts.reflected),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ended.len(), 6);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(ended[id], u64::from(n % 2 == 0));
    }
    for port in ports {
        UdpSocket::bind(port).unwrap();
    }
}

#[test]
fn after_a_stop_nothing_is_added() {
    let mut host = Host::new(IoKind::Batched, 1);
    let (id, _client) = host.session(|_| ());
    host.stop.request();
    assert!(matches!(host.event(), ServedEvent::Ended(ended, _) if ended == id));
    // Each one that was added before the thread had gone is told to have ended.
    let mut added = Vec::new();
    while let Ok((id, _)) = host.add_at(&client(), TestFormat::LIGHT, 0) {
        added.push(id);
    }
    host.reflectors.run(id);
    host.reflectors.end(id, 0);
    let told = host.finish();
    let mut ended: Vec<_> = told
        .iter()
        .map(|event| match event {
            ServedEvent::Ended(id, _) => *id,
            ServedEvent::Silent(_) => panic!("{told:?}"),
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, added);
}

#[test]
fn many_sessions_on_many_ports() {
    const PORTS: usize = 100;
    const CLIENTS: usize = 20;
    let mut host = Host::new(IoKind::Batched, 2);
    let address = OWN_ADDRESSES[2];
    let clients: Vec<_> = (0..CLIENTS).map(|_| client_at(address)).collect();
    let mut sessions = Vec::new();
    let mut ports = vec![0; PORTS];
    for client in &clients {
        for port in &mut ports {
            let (id, granted) = host.add_at(client, TestFormat::LIGHT, *port).unwrap();
            assert!(*port == 0 || *port == granted);
            *port = granted;
            host.reflectors.run(id);
            sessions.push(id);
        }
    }
    for round in 0..3 {
        for client in &clients {
            for port in &ports {
                let octets = request(&TestFormat::LIGHT, round, 41);
                client.send_to(&octets, (address, *port)).unwrap();
            }
        }
        for client in &clients {
            for _ in &ports {
                assert_eq!(numbers(client), (round, round));
            }
        }
    }
    for id in &sessions {
        host.reflectors.end(*id, 0);
    }
    let mut ended = Vec::new();
    for _ in &sessions {
        match host.event() {
            ServedEvent::Ended(id, counts) => {
                assert_eq!((counts.received, counts.reflected), (3, 3));
                ended.push(id);
            }
            other => panic!("{other:?}"),
        }
    }
    ended.sort_unstable();
    sessions.sort_unstable();
    assert_eq!(ended, sessions);
    for port in ports {
        UdpSocket::bind((address, port)).unwrap();
    }
    assert_eq!(host.finish(), []);
}

/// Also those of a port that was closed.
#[test]
fn what_the_system_dropped_is_counted() {
    const SENT: u64 = 500;
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let (commands, orders) = bounded(4);
    let (events, told) = unbounded();
    let shared = Arc::new(Shared::default());
    let desk = Desk::new(Reflector::over(Serving::new())).unwrap();
    let mut thread = Thread::new(desk, orders, Arc::clone(&shared), waker);
    let plan = SocketPlan {
        local: "127.0.0.1:0".parse().unwrap(),
        tos: 0,
        ttl: 255,
        do_not_fragment: false,
        interface: None,
        buffer: 1 << 16,
        hardware: false,
        busy_poll_us: None,
        bundles: true,
    };
    let (socket, granted) = linux::MirrorSocket::open(&plan).unwrap();
    let local = granted.local;
    let client = client();
    client.connect(local).unwrap();
    let from = client.local_addr().unwrap();
    let session = served(from, from.ip(), TestFormat::LIGHT);
    let session = Session::new(ServedId(1), PORT, session, Arc::default(), events);
    let socket = Some(NewPort {
        socket,
        users: Arc::new(AtomicUsize::new(1)),
    });
    let session = Box::new(session);
    commands.send(Command::Add { socket, session }).unwrap();
    commands.send(Command::Run(ServedId(1))).unwrap();
    let flood = || (0..SENT).for_each(|_| send(&client, 0));
    flood();
    let mut slots = linux::MirrorSocket::slots();
    thread.obey();
    while thread.serve(PORT, &mut slots) {}
    let first = shared.drops.load(Ordering::Relaxed);
    assert!(first > 0 && first < SENT, "{first}");
    flood();
    let end = Command::End {
        id: ServedId(1),
        after_ns: 0,
    };
    commands.send(end).unwrap();
    thread.obey();
    thread.end_sessions(i64::MAX - 1);
    let both = shared.drops.load(Ordering::Relaxed);
    assert!(both > first && both < first + SENT, "{both}");
    assert!(matches!(told.try_recv(), Ok(ServedEvent::Ended(_, counts))
        if counts.received + first == SENT));
}

#[test]
fn a_link_local_source_has_its_interface_and_others_have_none() {
    for (from, expected) in [
        ("127.0.0.1:5", "127.0.0.1:5"),
        ("[fe80::1%3]:5", "[fe80::1%3]:5"),
        ("[2001:db8::1%3]:5", "[2001:db8::1]:5"),
    ] {
        let from: SocketAddr = from.parse().unwrap();
        assert_eq!(source(from), expected.parse().unwrap());
    }
    let from = "[fe80::1%3]:5".parse().unwrap();
    for (receiver, expected) in [
        ("fe80::2", "[fe80::2%3]:9"),
        ("2001:db8::2", "[2001:db8::2]:9"),
    ] {
        let session = served(from, receiver.parse().unwrap(), TestFormat::LIGHT);
        assert_eq!(local(&session, 9), expected.parse().unwrap());
    }
}

const FROM: &str = "192.0.2.1:5000";
const PORT: usize = 3;

/// Datagrams that have arrived in a slot.
fn arrived(slot: &mut [u8], len: usize, segment: usize, from: SocketAddr) -> Request<'_> {
    Request {
        slot,
        len,
        segment: (segment < len).then_some(segment),
        truncated: false,
        facts_cut: false,
        from: Some(from),
        to: None,
        to_many: false,
        arrived_ns: Some(1_790_000_000_000_000_000),
        ttl: Some(64),
        tos: Some(0xb9),
    }
}

/// A session that runs, alone.
fn serving(format: TestFormat) -> (Reflector<Serving>, Receiver<ServedEvent>) {
    let from: SocketAddr = FROM.parse().unwrap();
    let (events, told) = unbounded();
    let session = served(from, from.ip(), format);
    let session = Session::new(ServedId(1), PORT, session, Arc::default(), events);
    let mut serving = Serving::new();
    serving.add(Box::new(session));
    serving.run(ServedId(1), 0);
    (Reflector::over(serving), told)
}

/// The replies to a bundle, all but T3, and what was counted.
fn reflected(format: TestFormat, bundle: &[u8], segment: usize) -> (Vec<Vec<u8>>, RequestCounts) {
    let (serving, told) = serving(format);
    let mut desk = Desk::new(serving).unwrap();
    let mut replies = Vec::new();
    let mut slot = vec![0xa5; 64];
    slot.extend(bundle);
    slot.resize(65_600, 0xa5);
    let mut socket = OneBundle {
        slot,
        begin: 64,
        len: bundle.len(),
        segment,
        from: FROM.parse().unwrap(),
        queued: Vec::new(),
        refusal: Errno::EAGAIN,
        parts: 0,
    };
    desk.reflect(PORT, &mut socket, 0, 1);
    if let Some((len, step)) = socket.queued.first() {
        let octets = &socket.slot[socket.begin..][..*len];
        replies.extend(octets.chunks(step.unwrap_or(*len)).map(<[u8]>::to_vec));
    }
    drop(desk);
    match told.try_recv() {
        Ok(ServedEvent::Ended(_, counts)) => (replies, counts),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_that_found_no_room_is_sealed_anew() {
    for mode in [
        Modes::UNAUTHENTICATED,
        Modes::AUTHENTICATED,
        Modes::ENCRYPTED,
    ] {
        let format = format(mode, 0);
        let (serving, told) = serving(format);
        let mut desk = Desk::new(serving).unwrap();
        let packets: Vec<_> = (0..3).map(|seq| request(&format, seq, 130)).collect();
        let mut slot = packets.concat();
        slot.resize(65_536, 0);
        let mut socket = OneBundle {
            begin: 0,
            slot,
            len: 390,
            segment: 130,
            from: FROM.parse().unwrap(),
            queued: Vec::new(),
            // At first there is no room, and then there still is none.
            refusal: Errno::EAGAIN,
            parts: 0,
        };
        desk.answer(PORT, &mut socket, 1, 1);
        for (seq, reply) in (0..).zip(socket.slot[..390].chunks(130)) {
            let (reply, _, _) = read(&format, reply);
            assert_eq!(reply.head.sender_seq.get(), seq);
            assert_ne!(reply.head.timestamp.raw(), 0);
        }
        drop(desk);
        assert!(matches!(told.try_recv(), Ok(ServedEvent::Ended(_, counts))
            if (counts.reflected, counts.unsent) == (0, 3)));
    }
}

#[test]
fn few_encrypted_replies_share_a_t3() {
    for (mode, singles, trains) in [
        (Modes::UNAUTHENTICATED, 4, 4),
        (Modes::AUTHENTICATED, 4, 4),
        (Modes::ENCRYPTED, 4, 1),
    ] {
        let (serving, _told) = serving(format(mode, 0));
        let queued = |len| Answer {
            len,
            step: 112,
            tos: 0,
            session: 0,
        };
        assert_eq!(serving.chunk(&[queued(112); 9]), singles);
        assert_eq!(serving.chunk(&[queued(112); 3]), 3);
        assert_eq!(serving.chunk(&[queued(11_200); 9]), trains);
        assert_eq!(serving.chunk(&[]), 0);
    }
}

fn any_format() -> impl Strategy<Value = TestFormat> {
    (0..4_usize, 0..1024_u32, 0..80_u16).prop_map(|(mode, features, reflected)| {
        let mode = SecurityMode::STRONGEST_FIRST[mode].bit();
        let features = Modes::from_bits(features & Modes::FEATURES.bits());
        format(mode | features, reflected)
    })
}

proptest! {
    /// Where some are refused, too.
    #[test]
    fn a_bundle_is_answered_as_its_requests_one_by_one(
        format in any_format(),
        segment in 14..300_usize,
        good in prop::collection::vec(prop_oneof![9 => Just(true), 1 => Just(false)], 1..20),
        last in 1..300_usize,
        one_t1: bool,
    ) {
        let segment = segment.max(format.sender_len());
        let mut packets: Vec<Vec<u8>> = (0..)
            .zip(&good)
            .map(|(seq, good)| {
                let t1 = T1 + if one_t1 { 0 } else { u64::from(seq) };
                let mut octets = request_of(&format, seq, segment, Timestamp::from_raw(t1));
                if !good {
                    // No multiplier, which is answered, or no longer the octets of the HMAC.
                    octets[13] = 0;
                    octets[3] ^= 1;
                }
                octets
            })
            .collect();
        packets.last_mut().unwrap().truncate(last);
        let (replies, counts) = reflected(format, &packets.concat(), segment);
        let mut alone = Vec::new();
        let mut refused = 0;
        let (mut serving, _told) = serving(format);
        for packet in &packets {
            let mut slot = packet.clone();
            slot.resize(2048, 0x5a);
            let mut request = arrived(&mut slot, packet.len(), packet.len(), FROM.parse().unwrap());
            match serving.reflect_each(PORT, &mut request, 1) {
                Some(answer) => alone.push(slot[..answer.len].to_vec()),
                None => refused += 1,
            }
        }
        prop_assert_eq!(&replies, &alone);
        prop_assert_eq!(counts.received, packets.len() as u64);
        prop_assert_eq!(counts.forged() + counts.malformed(), refused);
        for reply in &replies {
            prop_assert!(reply.len() <= format.reply_len(segment));
        }
    }

    #[test]
    fn any_octets_are_answered_within_bounds_or_not_at_all(
        format in any_format(),
        octets in prop::collection::vec(any::<u8>(), 0..2000),
        segment in 1..2100_usize,
    ) {
        let (replies, counts) = reflected(format, &octets, segment);
        let packets = octets.len().div_ceil(segment).max(1);
        prop_assert_eq!(counts.received, packets as u64);
        prop_assert!(replies.len() <= packets);
        let refused = counts.malformed() + counts.forged();
        prop_assert_eq!(refused + replies.len() as u64, packets as u64);
        if format.protection().is_some() {
            prop_assert!(replies.is_empty());
        }
        for (reply, request) in replies.iter().zip(octets.chunks(segment)) {
            let most = request.len().max(segment).max(format.reflector_len() + 80);
            prop_assert!(reply.len() <= most);
            prop_assert!(parse_request(reply).is_ok());
        }
    }
}
