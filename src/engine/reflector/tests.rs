use std::net::{Ipv4Addr, SocketAddr};

use nix::errno::Errno;
use proptest::prelude::*;

use zerocopy::IntoBytes;

use super::{Desk, OneBundle, Reflector, RequestCounts};
use crate::engine::admission::Record;
use crate::io::{Mirror, Request};
use crate::wire::{
    ErrorEstimate, REFLECTOR_LEN, Reply, SENDER_LEN, SenderPacket, TestFormat, Timestamp,
};

const AHEAD: usize = REFLECTOR_LEN - SENDER_LEN;

/// A T3 of the reflector: what has it where a reply has T1 is a reply that came back.
const OURS: Timestamp = Timestamp::from_raw(7);

/// Requests, of which `broken` is a reply that came back.
fn bundle(sizes: &[usize], broken: Option<usize>) -> Vec<u8> {
    let mut octets = Vec::new();
    for (seq, size) in (0_u32..).zip(sizes) {
        let sender = SenderPacket {
            seq: seq.into(),
            timestamp: Timestamp::from_raw(0x1234_0000_0000 + u64::from(seq)),
            error_estimate: ErrorEstimate::UNKNOWN,
        };
        let mut packet = sender.as_bytes().to_vec();
        packet.resize(*size, u8::try_from(seq % 100).unwrap() + 100);
        if broken == usize::try_from(seq).ok() {
            packet[28..36].copy_from_slice(OURS.as_bytes());
        }
        octets.extend(packet);
    }
    octets
}

/// A desk and a socket on which a bundle has arrived.
fn arrived(sizes: &[usize], broken: Option<usize>) -> (Desk, OneBundle) {
    let config = crate::engine::reflector::test_link::tests_config();
    let mut desk = Desk::new(Reflector::new(&config)).unwrap();
    desk.reflector.guard.note(OURS);
    let octets = bundle(sizes, broken);
    let mut slot = octets.clone();
    slot.resize(65_536, 0);
    slot.splice(..0, [0xa5; AHEAD]);
    let socket = OneBundle {
        slot,
        begin: AHEAD,
        len: octets.len(),
        segment: sizes[0],
        from: SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)),
        queued: Vec::new(),
        refusal: Errno::ENOBUFS,
        parts: 0,
    };
    (desk, socket)
}

/// What becomes of a bundle, packet by packet.
fn reflected(sizes: &[usize], broken: Option<usize>) -> Vec<Vec<u8>> {
    let (mut desk, mut socket) = arrived(sizes, broken);
    desk.reflect(0, &mut socket, 0, 1);
    let Some((len, Some(step))) = socket.queued.first().copied() else {
        return Vec::new();
    };
    socket.slot[socket.begin..][..len]
        .chunks(step)
        .map(<[u8]>::to_vec)
        .collect()
}

#[test]
fn a_train_answers_a_bundle() {
    for sizes in [
        [14; 5],
        [22; 5],
        [41; 5],
        [64; 5],
        [64, 64, 64, 64, 50],
        [22, 22, 22, 22, 15],
    ] {
        let replies = reflected(&sizes, None);
        assert_eq!(replies.len(), 5, "{sizes:?}");
        for (n, (reply, size)) in (0_u32..).zip(replies.iter().zip(sizes)) {
            assert_eq!(reply.len(), TestFormat::LIGHT.reply_len(size));
            let parsed = Reply::parse(reply).unwrap();
            assert_eq!(
                (parsed.head.seq.get(), parsed.head.sender_seq.get()),
                (n, n)
            );
            let t1 = parsed.head.sender_timestamp.raw();
            assert_eq!(t1, 0x1234_0000_0000 + u64::from(n));
            let padding = u8::try_from(n).unwrap() + 100;
            assert!(
                reply[41..].iter().all(|octet| *octet == padding),
                "{sizes:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_bundle_has_the_replies_that_its_requests_have(
        size in 14..200_usize,
        first in prop_oneof![Just(0_u32), Just(u32::MAX - 3), any::<u32>()],
        count in 2..20_u32,
        odd in prop::option::of((0..20_u32, 0..8_u8)),
        shorter in 0..10_usize,
        stateless: bool,
    ) {
        let config = crate::config::ReflectorConfig {
            stateless,
            ..crate::engine::reflector::test_link::tests_config()
        };
        let desk = || {
            let mut desk = Desk::new(Reflector::new(&config)).unwrap();
            desk.reflector.guard.note(OURS);
            desk
        };
        // The second bundle is of the same session.
        let bundle = |from: u32, t1: u64| {
            let mut octets = Vec::new();
            for n in 0..count {
                let mut seq = from.wrapping_add(n);
                let mut sender = SenderPacket {
                    seq: seq.into(),
                    timestamp: Timestamp::from_raw(t1),
                    error_estimate: ErrorEstimate::UNKNOWN,
                };
                let mut padding = vec![u8::try_from(n).unwrap(); size - 14];
                match odd {
                    Some((at, kind)) if at == n => match kind {
                        0 => seq = seq.wrapping_add(9),
                        1 => seq = 0,
                        2 => sender.timestamp = Timestamp::from_raw(t1 + 1),
                        3 => sender.error_estimate = ErrorEstimate::from_raw(0),
                        // The one before again, and the first one of a new session.
                        4 => seq = seq.wrapping_sub(1),
                        5 => (seq, sender.timestamp) = (0, Timestamp::from_raw(t1 + 1)),
                        _ if size >= 36 => padding[14..22].copy_from_slice(OURS.as_bytes()),
                        _ => {}
                    },
                    _ => {}
                }
                sender.seq = seq.into();
                octets.extend(sender.as_bytes());
                octets.extend(padding);
            }
            octets.truncate(octets.len() - shorter.min(size - 14));
            octets
        };
        let (mut together, mut each) = (desk(), desk());
        for (from, t1) in [(first, 1000), (first.wrapping_add(count), 2000)] {
            let octets = bundle(from, t1);
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
            let mut slot = octets.clone();
            slot.resize(65_536, 0);
            slot.splice(..0, [0xa5; AHEAD]);
            let mut socket = OneBundle {
                slot,
                begin: AHEAD,
                len: octets.len(),
                segment: size,
                from,
                queued: Vec::new(),
                refusal: Errno::ENOBUFS,
                parts: 0,
            };
            together.reflect(0, &mut socket, 0, 1);
            let got: Vec<Vec<u8>> = match socket.queued.first() {
                Some((len, step)) => socket.slot[socket.begin..][..*len]
                    .chunks(step.unwrap_or(*len))
                    .map(<[u8]>::to_vec)
                    .collect(),
                None => Vec::new(),
            };
            let arrived_ns = socket.request(0).arrived_ns;
            let mut expected = Vec::new();
            for octets in octets.chunks(size) {
                let mut slot = octets.to_vec();
                slot.resize(512, 0);
                let mut request = Request {
                    slot: &mut slot,
                    len: octets.len(),
                    segment: None,
                    arrived_ns,
                    ..socket.request(0)
                };
                if let Some(answer) = each.reflector.reflect_each(0, &mut request, 1) {
                    expected.push(slot[..answer.len].to_vec());
                }
            }
            // T2 is the time of day where the kernel tells none.
            prop_assert!(arrived_ns.is_some());
            prop_assert_eq!(got, expected);
        }
        let counts = |mut desk: Desk| {
            // Whether the last number again, later, is known to be that.
            let repeat = desk.reflector.book.sessions.as_mut().map(|sessions| {
                let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
                let last = first.wrapping_add(2 * count - 1);
                let mut visit = sessions.find(from, None);
                sessions.visit(&mut visit, (last, Timestamp::from_raw(3000)), 1, 0, 1);
                visit.repeat
            });
            let records = desk.reflector.book.sessions.as_ref().map(|sessions| {
                let of = |record: &Record| (record.received, record.octets, record.refused);
                sessions.records().iter().map(of).collect::<Vec<_>>()
            });
            let totals = &desk.reflector.totals;
            let counts = RequestCounts { bundled: 0, reflected: 0, ..totals.counts };
            (records, counts, totals.cut, repeat)
        };
        prop_assert_eq!(counts(together), counts(each));
    }
}

#[test]
fn what_is_no_request_has_no_reply_and_no_number() {
    for (sizes, broken, seqs) in [
        ([64; 4], Some(1), vec![0, 2, 3]),
        ([40; 4], Some(0), vec![1, 2, 3]),
        ([64, 64, 64, 10], None, vec![0, 1, 2]),
    ] {
        let replies = reflected(&sizes, broken);
        let found: Vec<(u32, u32)> = replies
            .iter()
            .map(|reply| Reply::parse(reply).unwrap().head)
            .map(|head| (head.seq.get(), head.sender_seq.get()))
            .collect();
        let expected: Vec<(u32, u32)> = (0..).zip(seqs).collect();
        assert_eq!(found, expected, "{sizes:?}");
    }
}

#[test]
fn a_train_goes_reply_by_reply_only_where_it_is_refused_for_being_one() {
    for (refusal, parts, unsent) in [
        (Errno::EMSGSIZE, 5, 0),
        (Errno::EIO, 5, 0),
        // A firewall's drop is no reason to try again.
        (Errno::EPERM, 0, 5),
        (Errno::ENOBUFS, 0, 5),
    ] {
        let (mut desk, mut socket) = arrived(&[64; 5], None);
        socket.refusal = refusal;
        desk.reflect(0, &mut socket, 0, 1);
        desk.flush(&mut socket);
        let totals = desk.finish();
        assert_eq!(socket.parts, parts, "{refusal}");
        assert_eq!(
            (totals.counts.reflected, totals.counts.unsent),
            (5 - unsent, unsent)
        );
    }
}

#[test]
fn replies_that_find_no_room_behind_each_other_are_not_sent() {
    // More than any sender puts into a train: 65,506 octets, whose replies have 191,839.
    let sizes = [14; 4679];
    let (mut desk, mut socket) = arrived(&sizes, None);
    desk.reflect(0, &mut socket, 0, 1);
    let (len, step) = socket.queued[0];
    assert_eq!((len, step), (65_536 / 41 * 41, Some(41)));
    desk.flush(&mut socket);
    let totals = desk.finish();
    assert_eq!((totals.counts.received, totals.counts.unsent), (4679, 4679));
}
