use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use libc::c_int;

use super::address::{blank_name, raw_addr, socket_addr};
use super::memory::Fixed;
use super::receive::HEAD;
use super::*;

fn pair() -> (UdpSocket, UdpSocket) {
    let a = UdpSocket::bind("127.0.0.1:0").unwrap();
    let b = UdpSocket::bind("127.0.0.1:0").unwrap();
    (a, b)
}

fn receive_some(batch: &mut ReceiveBatch, socket: &UdpSocket) -> usize {
    // Loopback delivers before the send call returns: nothing has to be waited for.
    batch.receive(socket.as_fd(), Queue::Data).unwrap()
}

#[test]
fn datagrams_arrive_whole_with_their_source() {
    let (a, b) = pair();
    let mut batch = ReceiveBatch::new(4);
    for round in 0..3_u8 {
        for i in 0..3_u8 {
            a.send_to(&[round, i, 7], b.local_addr().unwrap()).unwrap();
        }
        assert_eq!(receive_some(&mut batch, &b), 3);
        for i in 0..3_u8 {
            let d = batch.received(usize::from(i));
            assert_eq!(d.slot[..d.len], [round, i, 7]);
            assert_eq!(d.from, Some(a.local_addr().unwrap()));
            assert!(!d.truncated && !d.control_truncated);
        }
    }
}

#[test]
fn control_messages_survive_reuse_of_a_slot() {
    let (a, b) = pair();
    let to = b.local_addr().unwrap();
    let mut batch = ReceiveBatch::new(2);
    a.send_to(&[1; 20], to).unwrap();
    assert_eq!(receive_some(&mut batch, &b), 1);
    assert_eq!(batch.received(0).facts, Facts::default());
    set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, 1).unwrap();
    set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
    set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1).unwrap();
    set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_TTL, 77).unwrap();
    set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_TOS, 0xb8).unwrap();
    a.send_to(&[1; 20], to).unwrap();
    assert_eq!(receive_some(&mut batch, &b), 1);
    let facts = batch.received(0).facts;
    assert_eq!((facts.ttl, facts.tos), (Some(77), Some(0xb8)));
    let destination = facts.destination.unwrap();
    assert_eq!(destination.addr, to.ip());
    assert_eq!(destination.local, to.ip());
}

#[test]
fn one_call_a_datagram_tells_the_same() {
    let (a, b) = pair();
    let to = b.local_addr().unwrap();
    set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, 1).unwrap();
    let mut sending = SendBatch::new(3, to, &[5; 100], SendFacts::default());
    let mut batch = ReceiveBatch::new(8);
    for round in 0..2 {
        for at in 0..3 {
            sending.set(at, 10 + at, 1, None)[0] = round;
            assert_eq!(sending.send_singly(a.as_fd(), at).unwrap(), 1);
        }
        assert_eq!(batch.receive_singly(b.as_fd(), Queue::Data).unwrap(), 3);
        for at in 0..3 {
            let d = batch.received(at);
            assert_eq!((d.len, d.slot[0]), (10 + at, round));
            assert_eq!(d.from, Some(a.local_addr().unwrap()));
            assert_eq!(d.facts.ttl, Some(64));
        }
        let error = batch.receive_singly(b.as_fd(), Queue::Data).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_mirror_answers_by_one_call_a_reply() {
    let (a, b) = pair();
    let mut mirror = Mirror::new(4);
    for i in 0..3_u8 {
        a.send_to(&[i; 10], b.local_addr().unwrap()).unwrap();
    }
    let got = mirror.next_batch().receive_singly(b.as_fd(), Queue::Data);
    assert_eq!(got.unwrap(), 3);
    for i in 0..3 {
        mirror.queue(i, 10, ReplyFacts::default());
    }
    for left in [2, 1, 0] {
        assert_eq!(mirror.send_singly(b.as_fd()).unwrap(), 1);
        assert_eq!(mirror.queued(), left);
    }
    assert_eq!(mirror.send_singly(b.as_fd()).unwrap(), 0);
    let mut buf = [0; 64];
    for i in 0..3 {
        assert_eq!((a.recv(&mut buf).unwrap(), buf[0]), (10, i));
    }
}

#[test]
fn no_call_is_refused_here() {
    for call in [Call::Recvmmsg, Call::Recvmsg, Call::Sendmmsg, Call::Sendmsg] {
        assert_eq!(refuses(call), None, "{}", call.name());
    }
}

#[test]
fn a_datagram_longer_than_its_slot_says_so() {
    let (a, b) = pair();
    a.send_to(&[1; HEAD + 1], b.local_addr().unwrap()).unwrap();
    let mut batch = ReceiveBatch::for_heads(1);
    assert_eq!(receive_some(&mut batch, &b), 1);
    let d = batch.received(0);
    assert!(d.truncated);
    assert_eq!(d.len, HEAD);
}

#[test]
fn a_mirror_answers_from_its_slots() {
    let (a, b) = pair();
    let mut mirror = Mirror::new(8);
    for i in 0..5_u8 {
        a.send_to(&[i; 10], b.local_addr().unwrap()).unwrap();
    }
    assert_eq!(
        mirror.next_batch().receive(b.as_fd(), Queue::Data).unwrap(),
        5
    );
    for i in [0, 2, 4] {
        let facts = ReplyFacts {
            source: Some((b.local_addr().unwrap().ip(), 0)),
            tos: Some(0x20),
            segment: None,
        };
        mirror.queue(i, 10 + i, facts);
    }
    assert_eq!(mirror.queued(), 3);
    mirror.reply_mut(1)[0] = 99;
    assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 2);
    assert_eq!(mirror.queued(), 1, "of three, two have left");
    assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 1);
    assert_eq!(mirror.queued(), 0);
    assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 0);
    mirror.skip();
    assert_eq!(mirror.queued(), 0, "nothing is left to be given up");
    let mut buf = [0; 64];
    for (len, first) in [(10, 0), (12, 99), (14, 4)] {
        let (n, from) = a.recv_from(&mut buf).unwrap();
        assert_eq!((n, buf[0], from), (len, first, b.local_addr().unwrap()));
    }
}

#[test]
fn a_mirror_answers_one_request_any_number_of_times() {
    let (a, b) = pair();
    let mut mirror = Mirror::new(2);
    a.send_to(&[7; 10], b.local_addr().unwrap()).unwrap();
    assert_eq!(
        mirror.next_batch().receive(b.as_fd(), Queue::Data).unwrap(),
        1
    );
    for _ in 0..3 {
        mirror.queue(0, 10, ReplyFacts::default());
        mirror.queue(0, 10, ReplyFacts::default());
        assert_eq!(mirror.send(b.as_fd(), 2).unwrap(), 2);
    }
    let mut buf = [0; 64];
    for _ in 0..6 {
        assert_eq!(a.recv_from(&mut buf).unwrap().0, 10);
    }
}

#[test]
fn a_reply_from_elsewhere_has_source_and_tos() {
    let (a, b) = pair();
    set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
    let facts = ReplyFacts {
        source: Some((b.local_addr().unwrap().ip(), 0)),
        tos: Some(0xb8),
        segment: None,
    };
    send_reply(b.as_fd(), &[5; 70], a.local_addr().unwrap(), facts).unwrap();
    let mut batch = ReceiveBatch::new(1);
    assert_eq!(receive_some(&mut batch, &a), 1);
    let d = batch.received(0);
    assert_eq!((&d.slot[..d.len], d.facts.tos), (&[5; 70][..], Some(0xb8)));
    assert_eq!(d.from, Some(b.local_addr().unwrap()));
}

#[test]
fn a_send_batch_sends_packets_and_trains() {
    let (a, b) = pair();
    let mut batch = SendBatch::new(4, b.local_addr().unwrap(), &[5; 100], SendFacts::default());
    for i in 0..3 {
        batch.set(i, 3 + i, 1, None)[..3].copy_from_slice(&[1, 2, 3]);
    }
    for (n, packet) in batch.set(3, 10, 4, None).chunks_mut(10).enumerate() {
        packet[0] = u8::try_from(n).unwrap();
    }
    assert_eq!(batch.send(a.as_fd(), 1, 4).unwrap(), 3);
    let mut buf = [0; 64];
    for len in [4, 5] {
        let n = b.recv(&mut buf).unwrap();
        assert_eq!((n, &buf[..4]), (len, &[1, 2, 3, 5][..]));
    }
    for first in 0..4 {
        let n = b.recv(&mut buf).unwrap();
        assert_eq!((n, buf[0], buf[9]), (10, first, 5));
    }
}

#[test]
fn packets_and_trains_ask_for_stamps() {
    let (a, b) = pair();
    let flags = libc::SOF_TIMESTAMPING_SOFTWARE | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    let flags = c_int::try_from(flags).unwrap();
    set_option(a.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPING, flags).unwrap();
    let facts = SendFacts {
        stamp_flags: libc::SOF_TIMESTAMPING_TX_SOFTWARE,
        with_id: false,
    };
    let mut batch = SendBatch::new(4, b.local_addr().unwrap(), &[5; 100], facts);
    batch.set(0, 10, 1, None);
    batch.set(1, 10, 1, Some(0));
    batch.set(2, 10, 3, Some(0));
    batch.set(3, 10, 3, None);
    assert_eq!(batch.send(a.as_fd(), 0, 4).unwrap(), 4);
    let mut buf = [0; 64];
    for _ in 0..8 {
        assert_eq!(b.recv(&mut buf).unwrap(), 10);
    }
    let mut stamps = ReceiveBatch::for_heads(8);
    assert_eq!(stamps.receive(a.as_fd(), Queue::Error).unwrap(), 2);
    assert!(stamps.received(0).facts.stamp_ns.is_some());
}

#[test]
fn a_bundle_tells_the_size_of_its_packets() {
    let (a, b) = pair();
    set_option(b.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
    let mut sender = SendBatch::new(1, b.local_addr().unwrap(), &[5; 100], SendFacts::default());
    sender.set(0, 10, 4, None);
    sender.send(a.as_fd(), 0, 1).unwrap();
    let mut batch = ReceiveBatch::new(4);
    assert_eq!(batch.receive(b.as_fd(), Queue::Data).unwrap(), 1);
    let bundle = batch.received(0);
    assert_eq!((bundle.len, bundle.facts.segment), (40, Some(10)));
    a.send_to(&[0; 10], b.local_addr().unwrap()).unwrap();
    assert_eq!(batch.receive(b.as_fd(), Queue::Data).unwrap(), 1);
    let single = batch.received(0);
    assert_eq!((single.len, single.facts.segment), (10, None));
}

#[test]
fn a_full_socket_counts_its_drops() {
    let (a, b) = pair();
    set_option(b.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
    assert_eq!(socket_drops(b.as_fd()), Some(0));
    for _ in 0..100 {
        a.send_to(&[0; 100], b.local_addr().unwrap()).unwrap();
    }
    let drops = socket_drops(b.as_fd()).unwrap();
    let mut batch = ReceiveBatch::new(128);
    let kept = receive_some(&mut batch, &b);
    assert_eq!(kept + usize::try_from(drops).unwrap(), 100);
    assert!(drops > 0);
}

#[test]
fn addresses_survive_the_way_through_sockaddr() {
    for text in ["192.0.2.1:862", "[2001:db8::1]:20001", "[fe80::1%3]:5"] {
        let addr: SocketAddr = text.parse().unwrap();
        let (name, len) = raw_addr(addr);
        assert_eq!(socket_addr(&raw const name, len), Some(addr));
    }
    let blank = blank_name();
    assert_eq!(socket_addr(&raw const blank, 0), None);
    assert_eq!(socket_addr(&raw const blank, 16), None);
}

#[test]
#[should_panic(expected = "3 slots from 2 on of 4")]
fn no_call_is_told_of_more_slots_than_there_are() {
    Fixed::new(vec![0_u8; 4]).run(2, 3);
}

#[test]
fn the_kernel_tells_its_clock_quality() {
    let asked = || {
        // SAFETY: `timex` is plain old data; with `modes` zero the call only reads.
        let (state, time) = unsafe {
            let mut time: libc::timex = MaybeUninit::zeroed().assume_init();
            (libc::adjtimex(&raw mut time), time)
        };
        let unknown = state == libc::TIME_ERROR || time.status & libc::STA_UNSYNC != 0;
        (!unknown, u64::try_from(time.maxerror).unwrap())
    };
    // It changes once a second, or where somebody sets it.
    let quality = (0..100).find_map(|_| {
        let (before, told, after) = (asked(), clock_quality(), asked());
        (before == after).then_some((told, before))
    });
    let (told, is) = quality.expect("no two looks in a row are alike");
    assert_eq!(told, Some(is));
}

#[test]
fn headers_of_a_connection_are_told_where_they_are_kept_and_fit() {
    use std::net::{TcpListener, TcpStream};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (taken, _) = listener.accept().unwrap();
    assert_eq!(saved_syn(taken.as_fd(), &mut [0; 8]), None, "no room");
    let mut headers = [0; 256];
    let len = saved_syn(taken.as_fd(), &mut headers).unwrap();
    // IPv4 and TCP, 20 octets each and options.
    assert!((40..=120).contains(&len) && headers[0] >> 4 == 4, "{len}");
    let (datagrams, _) = pair();
    assert_eq!(saved_syn(datagrams.as_fd(), &mut headers), None);
}
