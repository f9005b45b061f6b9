//! What leaves where the system refuses packets or whole trains: tests of the sender thread over a
//! wire in memory.

use crossbeam_channel::{Sender as ChannelSender, bounded};
use nix::errno::Errno;

use super::*;
use crate::config::{Departures, End, SizeClass};
use crate::engine::flight::Flight;
use crate::engine::flight::Grace;

/// A place of the batch.
#[derive(Clone, Debug, Default)]
struct Slot {
    octets: Vec<u8>,
    payload: usize,
    count: usize,
    stamped: bool,
}

/// A packet on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    seq: u32,
    t1: u64,
    payload: usize,
    stamped: bool,
}

/// A sending half whose packets end in a list.
pub(super) struct Wire<F> {
    slots: Vec<Slot>,
    /// Why a packet or a train is refused: by its octets and its packets.
    refuse: F,
    left: Vec<Left>,
}

impl<F: FnMut(usize, usize) -> Option<Errno>> Wire<F> {
    pub(super) fn new(places: usize, refuse: F) -> Self {
        Self {
            slots: vec![Slot::default(); places],
            refuse,
            left: Vec::new(),
        }
    }
}

impl<F: FnMut(usize, usize) -> Option<Errno>> SendHalf for Wire<F> {
    fn places(&self) -> usize {
        self.slots.len()
    }

    fn set(&mut self, index: usize, payload: usize, count: usize, stamp: Option<u32>) -> &mut [u8] {
        let slot = &mut self.slots[index];
        let len = payload * count;
        slot.octets.resize(len.max(slot.octets.len()), 0);
        (slot.payload, slot.count, slot.stamped) = (payload, count, stamp.is_some());
        &mut slot.octets[..len]
    }

    fn send(&mut self, from: usize, to: usize) -> io::Result<usize> {
        for (sent, slot) in self.slots[from..to].iter().enumerate() {
            if let Some(errno) = (self.refuse)(slot.payload, slot.count) {
                return match sent {
                    0 => Err(errno.into()),
                    sent => Ok(sent),
                };
            }
            let packets = slot.octets.chunks(slot.payload).take(slot.count);
            self.left.extend(packets.map(|packet| Left {
                seq: u32::from_be_bytes(packet[..4].try_into().unwrap()),
                t1: u64::from_be_bytes(packet[4..12].try_into().unwrap()),
                payload: slot.payload,
                stamped: slot.stamped,
            }));
        }
        Ok(to - from)
    }
}

pub(super) const SMALL: usize = 64;
const LARGE: usize = 3000;
pub(super) const BURST: u32 = 4;

fn class(payload: usize) -> SizeClass {
    SizeClass {
        payload,
        frame: payload + 42,
        weight: 1,
    }
}

pub(super) fn plan(sizes: &[usize], count: u64, start: (ChannelSender<()>, Receiver<i64>)) -> Plan {
    let classes: Vec<SizeClass> = sizes.iter().map(|payload| class(*payload)).collect();
    let end = End {
        count: Some(count),
        duration_ns: None,
    };
    let rate = "1M".parse().unwrap();
    Plan {
        schedule: Schedule::new(Departures::Periodic(rate), end, &classes, 1, BURST),
        payloads: sizes.to_vec(),
        test: TestFormat::LIGHT,
        protection: None,
        padding: vec![0; LARGE * 4],
        timeout_ns: 5_000_000_000,
        most_burst: BURST,
        mean_gap_ns: 1_000,
        first_seq: 0,
        count: Some(count),
        format: Format::Ntp,
        pacing: Pacing::Sleep,
        may_spin: false,
        stamps_kept: 1 << 20,
        cpu: None,
        realtime: false,
        again: false,
        start: Start {
            ready: start.0,
            at: start.1,
            offset_ns: 0,
        },
    }
}

/// Sends `count` packets of these sizes in trains over a wire that refuses some, and checks that what
/// left is what the session says: numbers without gaps, and of each packet its T1 and its size.
fn sent_over<F>(sizes: &[usize], count: u64, refuse: F) -> (Sent, Vec<Left>)
where
    F: FnMut(usize, usize) -> Option<Errno>,
{
    sent_by(Wire::new(8, refuse), sizes, count)
}

fn sent_by<F>(wire: Wire<F>, sizes: &[usize], count: u64) -> (Sent, Vec<Left>)
where
    F: FnMut(usize, usize) -> Option<Errno>,
{
    sent_at("1M", wire, sizes, count)
}

fn sent_at<F>(rate: &str, mut wire: Wire<F>, sizes: &[usize], count: u64) -> (Sent, Vec<Left>)
where
    F: FnMut(usize, usize) -> Option<Errno>,
{
    let flight = Flight::new(count, 2);
    let events = EventLoop::new().unwrap();
    let receiver = Waker::new(events.registry(), Token(0)).unwrap();
    let (ready, _started) = bounded(1);
    let (begin, at) = bounded(1);
    begin.send(os::monotonic_ns()).unwrap();
    let (_, wishes) = bounded(0);
    let stop = AtomicBool::new(false);
    let mut plan = plan(sizes, count, (ready, at));
    let end = End {
        count: Some(count),
        duration_ns: None,
    };
    let classes: Vec<SizeClass> = sizes.iter().map(|payload| class(*payload)).collect();
    let departures = Departures::Periodic(rate.parse().unwrap());
    plan.schedule = Schedule::new(departures, end, &classes, 1, BURST);
    let others = (&wishes, &mut None);
    let sent = run(
        &mut wire,
        plan,
        flight.sender(),
        &stop,
        drop,
        &receiver,
        others,
    )
    .unwrap();
    let left = wire.left;
    assert_eq!(u64::try_from(left.len()).unwrap(), sent.sent);
    assert_eq!(sent.sent + sent.refused + sent.overdue, count);
    assert_eq!(flight.departed(), sent.sent);
    for (seq, packet) in (0_u32..).zip(&left) {
        assert_eq!(packet.seq, seq);
        assert_eq!(
            flight.receiver().t1(seq.into()),
            packet.t1,
            "T1 of packet {seq}"
        );
        let (class, _) = flight.class(seq.into());
        assert_eq!(sizes[usize::from(class)], packet.payload, "packet {seq}");
    }
    for (class, payload) in sizes.iter().enumerate() {
        let packets = left.iter().filter(|packet| packet.payload == *payload);
        assert_eq!(
            u64::try_from(packets.count()).unwrap(),
            sent.by_class[class]
        );
    }
    let stamps = left.iter().filter(|packet| packet.stamped).count();
    // Of a train, only its first packet's stamp was asked for.
    assert!(u64::try_from(stamps).unwrap() >= sent.stamps_requested);
    (sent, left)
}

/// Waits until another thread has come so far.
///
/// # Panics
/// Where that takes so long that it never will: the thread may have panicked.
fn come_to(what: &str, so_far: impl Fn() -> bool) {
    let limit = os::monotonic_ns() + 60_000_000_000;
    while !so_far() {
        assert!(os::monotonic_ns() < limit, "not within a minute: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn an_attempt_that_is_refused_asks_and_ends_once_it_is_told() {
    let grace = Grace {
        ns: i64::MAX,
        first_ns: 0,
    };
    let flight = Flight::new(64, 0).with_grace(grace);
    let events = EventLoop::new().unwrap();
    let receiver = Waker::new(events.registry(), Token(0)).unwrap();
    let (ready, _started) = bounded(1);
    let (begin, at) = bounded(1);
    begin.send(os::monotonic_ns()).unwrap();
    let (wishes, wanted) = bounded(8);
    // What the first packets met is told to a later one, again and again.
    let mut wire = Wire::new(8, |_, _| {
        (flight.departed() >= 2 && !flight.is_absent()).then_some(Errno::ECONNREFUSED)
    });
    let stop = AtomicBool::new(false);
    let mut plan = plan(&[SMALL], 20, (ready, at));
    plan.schedule = Schedule::new(
        Departures::Periodic("1k".parse().unwrap()),
        End {
            count: Some(20),
            duration_ns: None,
        },
        &[SizeClass {
            payload: SMALL,
            frame: SMALL + 42,
            weight: 1,
        }],
        1,
        1,
    );
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let others = (&wanted, &mut None);
            run(
                &mut wire,
                plan,
                flight.sender(),
                &stop,
                drop,
                &receiver,
                others,
            )
            .unwrap()
        });
        come_to("it asks", || flight.receiver().is_asked());
        flight.receiver().set_absent();
        come_to("it has ended", || flight.finished().is_some());
        drop(wishes);
        sender.join().unwrap()
    });
    assert!((2..20).contains(&sent.sent), "{sent:?}");
    assert_eq!(sent.icmp.total(), 0);
}

/// Packets of an attempt before stand in the places of the batch, and their fields are in nobody's padding.
#[test]
fn another_attempt_begins_with_pristine_places() {
    let mut wire = Wire::new(4, |_, _| None);
    for place in 0..4 {
        wire.set(place, LARGE, 1, None).fill(0xaa);
    }
    let (ready, _started) = bounded(1);
    let (_begin, at) = bounded(1);
    let plan = Plan {
        again: true,
        ..plan(&[LARGE, SMALL], 4, (ready, at))
    };
    let padding = plan.padding.clone();
    let (flight, stop) = (Flight::new(64, 0), AtomicBool::new(false));
    let (events, mut copier) = (EventLoop::new().unwrap(), None);
    drop(Sender::new(
        &mut wire,
        plan,
        flight.sender(),
        &stop,
        events,
        &mut copier,
    ));
    for place in 0..4 {
        assert_eq!(wire.set(place, LARGE, 1, None), &padding[..LARGE]);
    }
}

fn too_large(payload: usize, count: usize) -> Option<Errno> {
    (payload == LARGE && count > 1).then_some(Errno::EMSGSIZE)
}

#[test]
fn packets_whose_trains_are_refused_leave_one_by_one() {
    let (sent, left) = sent_over(&[SMALL, LARGE], 4000, too_large);
    assert_eq!((sent.sent, sent.by_class), (4000, vec![2000, 2000]));
    assert_eq!(sent.longest_burst, BURST, "the small ones leave as trains");
    assert_eq!(sent.unfolded, Some(Errno::EMSGSIZE as i32));
    let stamped = |packet: &&Left| packet.payload == LARGE && packet.stamped;
    assert!(left.iter().filter(stamped).count() > 0);
}

#[test]
fn where_no_trains_are_possible_none_are_reported() {
    let (sent, _) = sent_over(&[LARGE], 4000, too_large);
    assert_eq!((sent.sent, sent.longest_burst), (4000, 1));
}

#[test]
fn a_refused_packet_of_a_train_that_was_taken_apart_costs_that_packet_alone() {
    let mut tries = 0;
    let (sent, _) = sent_over(&[SMALL, LARGE], 4000, |payload, count| {
        tries += 1;
        // Twice in a row: the first time it may only end a call that has sent something.
        too_large(payload, count).or((tries % 7 < 2).then_some(Errno::ENOBUFS))
    });
    assert!(sent.refused > 0 && sent.sent > 2000, "{sent:?}");
    assert_eq!(sent.no_room, sent.refused);
}

#[test]
fn a_size_that_is_refused_altogether_leaves_the_others_alone() {
    let refuse = |payload: usize, _| (payload == LARGE).then_some(Errno::EMSGSIZE);
    let (sent, _) = sent_over(&[SMALL, LARGE], 4000, refuse);
    assert_eq!((sent.sent, sent.refused), (2000, 2000));
}

#[test]
fn a_refused_train_takes_no_numbers() {
    let mut tries = 0;
    let (sent, _) = sent_over(&[SMALL, LARGE], 4000, |_, _| {
        tries += 1;
        (tries % 5 == 0).then_some(Errno::ENOBUFS)
    });
    assert!(sent.refused > 0 && sent.refused.is_multiple_of(4));
}

#[test]
fn an_error_that_is_gone_at_once_was_of_a_former_packet() {
    // What the calls meet, over and over: the error of the last two is of the packet itself.
    let calls = [
        None,
        Some(Errno::EHOSTUNREACH),
        None,
        Some(Errno::EACCES),
        None,
        Some(Errno::ENETUNREACH),
        Some(Errno::ENETUNREACH),
    ];
    let mut next = calls.iter().cycle();
    let wire = Wire::new(1, |_, _| *next.next().unwrap());
    let (sent, _) = sent_by(wire, &[SMALL], 80);
    // Trains of four.
    assert_eq!((sent.sent, sent.refused), (60, 20));
    let mut expected = IcmpErrors::default();
    for _ in 0..5 {
        expected.note(&Icmp::of_errno(libc::EHOSTUNREACH));
        expected.note(&Icmp::of_errno(libc::EACCES));
    }
    assert_eq!(sent.icmp, expected);
}

#[test]
fn what_is_told_of_former_packets_without_end_is_of_the_packet_at_hand() {
    let mut calls = 0;
    let wire = Wire::new(1, |_, _| {
        calls += 1;
        // The first two trains leave.
        (calls > 2).then_some(Errno::ECONNREFUSED)
    });
    let (sent, _) = sent_by(wire, &[SMALL], 16);
    assert_eq!((sent.sent, sent.refused), (8, 8));
    assert_eq!(sent.refusal, Some(libc::ECONNREFUSED));
}

#[test]
fn what_is_refused_for_a_second_until_the_end_has_failed_and_what_passes_has_not() {
    // Trains of four, at 1,000 packets a second.
    let refused_in = |from: u64, to: u64| {
        let mut trains = 0;
        let wire = Wire::new(1, move |_, _| {
            trains += 1;
            let refused = (from..to).contains(&trains);
            refused.then_some(Errno::EPERM)
        });
        let (sent, _) = sent_at("1k", wire, &[SMALL], 1600);
        assert!(sent.refused >= 1000 && sent.sent > 0, "{sent:?}");
        assert_eq!(sent.refusal, Some(libc::EPERM));
        sent.failure.map(|call| (call.call, call.errno))
    };
    assert_eq!(refused_in(100, u64::MAX), Some(("send", libc::EPERM)));
    assert_eq!(refused_in(10, 390), None);
}

/// A sending half that has no call left after some packets.
struct Ending(Wire<fn(usize, usize) -> Option<Errno>>, usize);

impl SendHalf for Ending {
    fn places(&self) -> usize {
        self.0.places()
    }

    fn set(&mut self, index: usize, payload: usize, count: usize, stamp: Option<u32>) -> &mut [u8] {
        self.0.set(index, payload, count, stamp)
    }

    fn send(&mut self, from: usize, to: usize) -> io::Result<usize> {
        if self.0.left.len() >= self.1 {
            let call = "sendmsg";
            return Err(RefusedCall {
                call,
                errno: libc::EPERM,
            }
            .into());
        }
        self.0.send(from, to)
    }
}

#[test]
fn where_no_call_is_left_the_session_ends() {
    let mut half = Ending(Wire::new(1, |_, _| None), 12);
    let flight = Flight::new(4000, 2);
    let events = EventLoop::new().unwrap();
    let receiver = Waker::new(events.registry(), Token(0)).unwrap();
    let (ready, _started) = bounded(1);
    let (begin, at) = bounded(1);
    begin.send(os::monotonic_ns()).unwrap();
    let (_, wishes) = bounded(0);
    let stop = AtomicBool::new(false);
    let plan = plan(&[SMALL], 4000, (ready, at));
    let others = (&wishes, &mut None);
    let sent = run(
        &mut half,
        plan,
        flight.sender(),
        &stop,
        drop,
        &receiver,
        others,
    )
    .unwrap();
    assert_eq!((sent.sent, sent.refused, sent.interrupted), (12, 0, false));
    let failure = sent.failure.map(|call| (call.call, call.errno));
    assert_eq!(failure, Some(("sendmsg", libc::EPERM)));
    assert_eq!(flight.finished().map(|(sent, _)| sent), Some(12));
}

#[test]
fn nothing_leaves_once_nobody_takes_replies() {
    let flight = Flight::new(4000, 2);
    flight.receiver().abandon();
    let mut wire = Wire::new(1, |_, _| None);
    let events = EventLoop::new().unwrap();
    let receiver = Waker::new(events.registry(), Token(0)).unwrap();
    let (ready, _started) = bounded(1);
    let (begin, at) = bounded(1);
    begin.send(os::monotonic_ns()).unwrap();
    let (_, wishes) = bounded(0);
    let stop = AtomicBool::new(false);
    let plan = plan(&[SMALL], 4000, (ready, at));
    let others = (&wishes, &mut None);
    let sent = run(
        &mut wire,
        plan,
        flight.sender(),
        &stop,
        drop,
        &receiver,
        others,
    )
    .unwrap();
    assert_eq!((sent.sent, sent.interrupted), (0, false));
}

#[test]
fn packets_that_the_path_does_not_carry_are_told_from_others_that_are_refused() {
    let mut next = [Errno::EPERM, Errno::EMSGSIZE].into_iter().cycle();
    let wire = Wire::new(1, |payload, _| {
        (payload == LARGE).then(|| next.next().unwrap())
    });
    let (sent, _) = sent_by(wire, &[SMALL, LARGE], 80);
    assert!(sent.too_large > 0);
    assert!(sent.refused > sent.too_large, "{} refused", sent.refused);
    assert_eq!(sent.no_room, 0);
}
