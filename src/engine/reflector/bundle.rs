//! Requests that came as one bundle: one look at source and session, one T2, and one train of
//! replies in the memory of the requests.

use zerocopy::IntoBytes;

use super::desk::{Answer, Desk};
use super::light::Reflector;
use super::train::{Admitted, write_train};
use crate::engine::admission::Visit;
use crate::io::{Mirror, Request};
use crate::report::ignored::Kind;
use crate::wire::{
    REFLECTOR_LEN, ReflectorPacket, SENDER_LEN, SenderPacket, TestFormat, TooShort,
    echoed_sender_timestamp, parse_request, reply_len,
};

/// So much longer than those of a request the fields of a reply are. A reply that begins so many octets
/// before its request has the padding where it stands already, and takes the place of the last octets of
/// the request before, which are those that its reply leaves out.
const AHEAD: usize = REFLECTOR_LEN - SENDER_LEN;

/// Replies that are one but for their numbers.
struct Run {
    first: ReflectorPacket,
    answer: Answer,
}

impl Run {
    /// Writes the fields of the replies, all but T3, which have `segment` octets each.
    fn write(&self, octets: &mut [u8], segment: usize) {
        let mut reply = self.first;
        let (mut number, mut seq) = (reply.head.seq.get(), reply.head.sender_seq.get());
        for octets in octets.chunks_exact_mut(segment) {
            (reply.head.seq, reply.head.sender_seq) = (number.into(), seq.into());
            octets[..REFLECTOR_LEN].copy_from_slice(reply.as_bytes());
            (number, seq) = (number.wrapping_add(1), seq.wrapping_add(1));
        }
    }
}

impl Desk<Reflector> {
    /// Answers a bundle whose requests have `segment` octets, the last one perhaps fewer.
    pub(super) fn answer_bundle<M: Mirror>(
        &mut self,
        socket: &mut M,
        index: usize,
        segment: usize,
        now: i64,
    ) {
        let request = socket.request(index);
        let packets = request.len.div_ceil(segment);
        // The batch counted the bundle as one.
        let further = u64::try_from(packets - 1).unwrap_or(0);
        self.reflector.totals.received += further;
        self.reflector.totals.bundled += further + 1;
        self.count(&request);
        self.reflector.totals.cut += if request.facts_cut { further } else { 0 };
        if let Some((sender, count)) = self.reflector.run_in(&request, segment) {
            let request = Request {
                slot: &mut [],
                ..request
            };
            if let Some(octets) = socket.move_ahead(index, AHEAD) {
                let run = self
                    .reflector
                    .begin_run(&request, segment, &sender, count, now);
                run.write(&mut octets[..request.len], segment);
                return self.queue_train(socket, index, run.answer, segment);
            }
        }
        let mut request = socket.request(index);
        let (whole, slot) = (request.len, std::mem::take(&mut request.slot));
        // Replies may be longer than requests. No sender makes trains so long that theirs do not fit.
        let room = slot.len() / reply_len(segment);
        let mut visit: Option<Visit> = None;
        self.reflector.admitted.clear();
        for at in (0..whole).step_by(segment) {
            if self.reflector.admitted.len() == room {
                self.reflector.totals.unsent += 1;
                continue;
            }
            let len = segment.min(whole - at);
            let one = Request {
                slot: &mut slot[at..at + len],
                len,
                ..request
            };
            let reflector = &mut self.reflector;
            let sender = match visit {
                // Where the bundle came from was looked at.
                Some(_) => reflector.admit_further(&one),
                None => reflector.admit(&one),
            };
            match sender {
                Ok(sender) => {
                    let next = match visit {
                        Some(visit) => reflector.visit_again(&one, &sender, visit, now),
                        None => reflector.visit(&one, &sender, now),
                    };
                    let number = reflector.number(&sender, next).unwrap_or(0);
                    visit = Some(next);
                    reflector.admitted.push(Admitted {
                        at,
                        len,
                        sender,
                        number,
                    });
                }
                Err(kind) => self.refuse(kind, &one),
            }
        }
        request.slot = slot;
        if let Some(visit) = visit {
            let (answer, step) = self.reflector.write_train(&mut request, segment, visit);
            self.queue_train(socket, index, answer, step);
        }
    }
}

impl Reflector {
    /// The first request of a bundle, and how many there are, where all may be answered, differ in their
    /// numbers alone, and have replies as long as they are.
    fn run_in(&self, request: &Request<'_>, segment: usize) -> Option<(SenderPacket, u32)> {
        if reply_len(segment) != segment {
            return None;
        }
        let bundle = &request.slot[..request.len];
        let count = run_of_requests(bundle, segment)?;
        let ours = |octets| echoed_sender_timestamp(octets).is_some_and(|t| self.guard.knows(t));
        if bundle.chunks_exact(segment).any(ours) {
            return None;
        }
        Some((self.admit(request).ok()?, count))
    }

    /// Counts `count` requests of which `sender` is the first one, and gives their replies numbers.
    fn begin_run(
        &mut self,
        request: &Request<'_>,
        segment: usize,
        sender: &SenderPacket,
        count: u32,
        now: i64,
    ) -> Run {
        let whole = request.len;
        let first = Request {
            slot: &mut [],
            len: segment,
            ..*request
        };
        let visit = self.visit(&first, sender, now);
        self.note_estimate(sender, u64::from(count) - 1);
        let number = self.number(sender, visit).unwrap_or(0);
        if let Some(sessions) = &mut self.sessions {
            let newest = (sender.seq.get(), sender.timestamp);
            let next = sessions.visit_run(visit, whole - segment, newest, count - 1, now);
            // Where replies have no numbers of their own nobody looks at those of the session.
            debug_assert!(self.stateless || next == number.wrapping_add(1));
        }
        Run {
            first: self.blank(request).answering(sender, number),
            answer: Answer {
                len: whole,
                tos: self.reply_tos(request.tos),
                session: visit.serial,
            },
        }
    }

    /// As [`admit`](Self::admit), of a request from where another one was admitted from.
    fn admit_further(&self, request: &Request<'_>) -> Result<SenderPacket, Kind> {
        let datagram = &request.slot[..request.len];
        let sender = match parse_request(datagram) {
            Ok(_) if request.truncated => return Err(Kind::Truncated),
            Ok(sender) => *sender,
            Err(TooShort { .. }) => return Err(Kind::TooShort),
        };
        if echoed_sender_timestamp(datagram).is_some_and(|t| self.guard.knows(t)) {
            return Err(Kind::Loop);
        }
        Ok(sender)
    }

    /// As [`visit`](Self::visit), of a request that follows another one of its session.
    fn visit_again(
        &mut self,
        request: &Request<'_>,
        sender: &SenderPacket,
        before: Visit,
        now: i64,
    ) -> Visit {
        let seq = sender.seq.get();
        let known = self.sessions.as_mut().and_then(|sessions| {
            sessions.visit_again(before, request.len, seq, sender.timestamp, now)
        });
        match known {
            Some(visit) => {
                self.note_estimate(sender, 1);
                visit
            }
            None => self.visit(request, sender, now),
        }
    }

    /// Writes the replies of all admitted requests one behind the other, all but T3; returns the
    /// octets of all and of each but the last.
    fn write_train(
        &mut self,
        request: &mut Request<'_>,
        segment: usize,
        visit: Visit,
    ) -> (Answer, usize) {
        let step = reply_len(segment);
        let blank = self.blank(request);
        let write = |slot: &mut [u8], one: &Admitted, to| {
            let reply = blank.answering(&one.sender, one.number);
            TestFormat::LIGHT.write_reply(slot, one.at, one.len, to, reply.as_bytes())
        };
        let answer = Answer {
            len: write_train(request.slot, &mut self.admitted, segment, step, write),
            tos: self.reply_tos(request.tos),
            session: visit.serial,
        };
        (answer, step)
    }
}

/// How many requests a bundle has, of `segment` octets each, where they are one but for their numbers:
/// the same T1 and Error Estimate, and numbers that go on from one to the next without beginning anew.
fn run_of_requests(bundle: &[u8], segment: usize) -> Option<u32> {
    let fields = |octets: &[u8]| -> Option<(u32, [u8; SENDER_LEN - 4])> {
        let (seq, rest) = octets.get(..SENDER_LEN)?.split_first_chunk()?;
        Some((u32::from_be_bytes(*seq), *rest.first_chunk()?))
    };
    let (first, rest) = fields(bundle)?;
    let mut count = 0;
    for octets in bundle.chunks(segment) {
        if octets.len() != segment || fields(octets)? != (first.checked_add(count)?, rest) {
            return None;
        }
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use nix::errno::Errno;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::admission::Record;
    use crate::engine::reflector::OneBundle;
    use crate::wire::Timestamp;
    use crate::wire::{ErrorEstimate, Reply};

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
    fn arrived(sizes: &[usize], broken: Option<usize>) -> (Desk<Reflector>, OneBundle) {
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
        desk.answer_bundle(&mut socket, 0, sizes[0], 1);
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
                assert_eq!(reply.len(), reply_len(size));
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
                together.answer_bundle(&mut socket, 0, size, 1);
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
                    each.count(&request);
                    match each.reflector.reflect(&mut request, 1) {
                        Ok(answer) => expected.push(slot[..answer.len].to_vec()),
                        Err(refusal) => each.refuse(refusal, &request),
                    }
                }
                // T2 is the time of day where the kernel tells none.
                prop_assert!(arrived_ns.is_some());
                prop_assert_eq!(got, expected);
            }
            let counts = |mut desk: Desk<Reflector>| {
                // Whether the last number again, later, is known to be that.
                let repeat = desk.reflector.sessions.as_mut().map(|sessions| {
                    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
                    let last = first.wrapping_add(2 * count - 1);
                    sessions.visit(from, None, 0, last, Timestamp::from_raw(3000), 1).repeat
                });
                let records = desk.reflector.sessions.as_ref().map(|sessions| {
                    let of = |record: &Record| (record.received, record.octets, record.refused);
                    sessions.records().iter().map(of).collect::<Vec<_>>()
                });
                let next = desk.reflector.totals.clone();
                let octets = next.received_octets;
                (records, next.ignored, octets, next.cut, next.estimates_unusable, repeat)
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
            desk.answer_bundle(&mut socket, 0, 64, 1);
            desk.flush(&mut socket);
            let totals = desk.finish();
            assert_eq!(socket.parts, parts, "{refusal}");
            assert_eq!((totals.reflected, totals.unsent), (5 - unsent, unsent));
        }
    }

    #[test]
    fn replies_that_find_no_room_behind_each_other_are_not_sent() {
        // More than any sender puts into a train: 65,506 octets, whose replies have 191,839.
        let sizes = [14; 4679];
        let (mut desk, mut socket) = arrived(&sizes, None);
        desk.answer_bundle(&mut socket, 0, 14, 1);
        let (len, step) = socket.queued[0];
        assert_eq!((len, step), (65_536 / 41 * 41, Some(41)));
        desk.flush(&mut socket);
        let totals = desk.finish();
        assert_eq!((totals.received, totals.unsent), (4678, 4679));
    }
}
