//! What leaves where the system refuses packets or whole trains, and when a sender ends before all has left:
//! over a wire in memory.

use crossbeam_channel::bounded;
use nix::errno::Errno;

use super::super::side::GIVE_UP_NS;
use super::super::side::tests::{BURST, LARGE, SMALL, plan, schedule};
use super::*;
use crate::config::{Departures, End, SizeClass};
use crate::engine::flight::{Flight, Grace};
use crate::engine::icmp::IcmpErrors;
use crate::engine::schedule::Schedule;
use crate::io::{Icmp, RefusedCall};

const SECOND: i64 = 1_000_000_000;
static GO_ON: AtomicBool = AtomicBool::new(false);

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
struct Wire<F> {
    slots: Vec<Slot>,
    /// Why a packet or a train is refused: by its octets and its packets.
    refuse: F,
    left: Vec<Left>,
}

impl<F: FnMut(usize, usize) -> Option<Errno>> Wire<F> {
    fn new(places: usize, refuse: F) -> Self {
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

/// How a sender runs that sends so.
fn on_thread(session: Plan) -> ThreadPlan {
    ThreadPlan {
        session,
        padding: vec![0; LARGE * 4],
        again: false,
        pacing: Pacing::Sleep,
        may_spin: false,
        cpu: None,
        realtime: false,
    }
}

/// Runs a sender over a wire, from now on.
fn run_over<S: SendHalf>(
    half: &mut S,
    session: Plan,
    flight: &Flight,
    wishes: &Receiver<Wish>,
) -> Sent {
    let events = EventLoop::new().unwrap();
    let receiver = Waker::new(events.registry(), Token(0)).unwrap();
    let (ready, _started) = bounded(1);
    let (begin, at) = bounded(1);
    begin.send(os::monotonic_ns()).unwrap();
    let links = Links {
        start: Start {
            ready,
            at,
            offset_ns: 0,
        },
        stop: &AtomicBool::new(false),
        receiver: &receiver,
        wishes,
        copier: &mut None,
    };
    run(half, on_thread(session), flight.sender(), links, drop).unwrap()
}

/// Nobody wants probes.
fn no_wishes() -> Receiver<Wish> {
    bounded(0).1
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
    let mut session = plan(sizes, count);
    session.schedule = schedule(rate, sizes, count, BURST);
    let sent = run_over(&mut wire, session, &flight, &no_wishes());
    let left = wire.left;
    assert_eq!(u64::try_from(left.len()).unwrap(), sent.sent);
    assert_eq!(
        sent.sent + sent.withheld.refused + sent.withheld.overdue,
        count
    );
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
    assert!(u64::try_from(stamps).unwrap() >= sent.stamps.count);
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
    let (wishes, wanted) = bounded(8);
    // What the first packets met is told to a later one, again and again.
    let mut wire = Wire::new(8, |_, _| {
        (flight.departed() >= 2 && !flight.is_absent()).then_some(Errno::ECONNREFUSED)
    });
    let mut session = plan(&[SMALL], 20);
    session.schedule = schedule("1k", &[SMALL], 20, 1);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| run_over(&mut wire, session, &flight, &wanted));
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
    let plan = ThreadPlan {
        again: true,
        ..on_thread(plan(&[LARGE, SMALL], 4))
    };
    let padding = plan.padding.clone();
    let (flight, stop) = (Flight::new(64, 0), AtomicBool::new(false));
    let (events, mut copier) = (EventLoop::new().unwrap(), None);
    let sender = flight.sender();
    drop(SenderThread::new(
        &mut wire,
        plan,
        sender,
        events,
        &stop,
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
    assert_eq!(
        sent.times.longest_burst, BURST,
        "the small ones leave as trains"
    );
    assert_eq!(sent.unfolded, Some(Errno::EMSGSIZE as i32));
    let stamped = |packet: &&Left| packet.payload == LARGE && packet.stamped;
    assert!(left.iter().filter(stamped).count() > 0);
}

#[test]
fn where_no_trains_are_possible_none_are_reported() {
    let (sent, _) = sent_over(&[LARGE], 4000, too_large);
    assert_eq!((sent.sent, sent.times.longest_burst), (4000, 1));
}

#[test]
fn a_refused_packet_of_a_train_that_was_taken_apart_costs_that_packet_alone() {
    let mut tries = 0;
    let (sent, _) = sent_over(&[SMALL, LARGE], 4000, |payload, count| {
        tries += 1;
        // Twice in a row: the first time it may only end a call that has sent something.
        too_large(payload, count).or((tries % 7 < 2).then_some(Errno::ENOBUFS))
    });
    assert!(sent.withheld.refused > 0 && sent.sent > 2000, "{sent:?}");
    assert_eq!(sent.withheld.no_room, sent.withheld.refused);
}

#[test]
fn a_size_that_is_refused_altogether_leaves_the_others_alone() {
    let refuse = |payload: usize, _| (payload == LARGE).then_some(Errno::EMSGSIZE);
    let (sent, _) = sent_over(&[SMALL, LARGE], 4000, refuse);
    assert_eq!((sent.sent, sent.withheld.refused), (2000, 2000));
}

#[test]
fn a_refused_train_takes_no_numbers() {
    let mut tries = 0;
    let (sent, _) = sent_over(&[SMALL, LARGE], 4000, |_, _| {
        tries += 1;
        (tries % 5 == 0).then_some(Errno::ENOBUFS)
    });
    assert!(sent.withheld.refused > 0 && sent.withheld.refused.is_multiple_of(4));
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
    assert_eq!((sent.sent, sent.withheld.refused), (60, 20));
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
    assert_eq!((sent.sent, sent.withheld.refused), (8, 8));
    assert_eq!(sent.withheld.refusal, Some(libc::ECONNREFUSED));
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
        assert!(sent.withheld.refused >= 1000 && sent.sent > 0, "{sent:?}");
        assert_eq!(sent.withheld.refusal, Some(libc::EPERM));
        sent.thread.failure.map(|call| (call.call, call.errno))
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
    let sent = run_over(&mut half, plan(&[SMALL], 4000), &flight, &no_wishes());
    assert_eq!(
        (sent.sent, sent.withheld.refused, sent.interrupted),
        (12, 0, false)
    );
    let failure = sent.thread.failure.map(|call| (call.call, call.errno));
    assert_eq!(failure, Some(("sendmsg", libc::EPERM)));
    assert_eq!(flight.finished().map(|(sent, _)| sent), Some(12));
}

#[test]
fn nothing_leaves_once_nobody_takes_replies() {
    let flight = Flight::new(4000, 2);
    flight.receiver().abandon();
    let mut wire = Wire::new(1, |_, _| None);
    let sent = run_over(&mut wire, plan(&[SMALL], 4000), &flight, &no_wishes());
    assert_eq!((sent.sent, sent.interrupted), (0, false));
}

#[test]
fn packets_that_the_path_does_not_carry_are_told_from_others_that_are_refused() {
    let mut next = [Errno::EPERM, Errno::EMSGSIZE].into_iter().cycle();
    let wire = Wire::new(1, |payload, _| {
        (payload == LARGE).then(|| next.next().unwrap())
    });
    let (sent, _) = sent_by(wire, &[SMALL, LARGE], 80);
    assert!(sent.withheld.too_large > 0);
    assert!(
        sent.withheld.refused > sent.withheld.too_large,
        "{} refused",
        sent.withheld.refused
    );
    assert_eq!(sent.withheld.no_room, 0);
}

/// Shows `look` a sender of `count` packets, due one a microsecond in trains of [`BURST`], over a wire that
/// refuses some of them.
fn with_sender<F, T>(
    (count, stop): (u64, &AtomicBool),
    refuse: F,
    adapt: impl FnOnce(&mut Plan),
    look: impl FnOnce(&mut SenderThread<'_, Wire<F>>) -> T,
) -> T
where
    F: FnMut(usize, usize) -> Option<Errno>,
{
    let flight = Flight::new(4096, 2);
    let mut session = plan(&[SMALL], count);
    adapt(&mut session);
    let mut wire = Wire::new(8, refuse);
    let (events, mut copier) = (EventLoop::new().unwrap(), None);
    let (plan, flight) = (on_thread(session), flight.sender());
    let mut sender = SenderThread::new(&mut wire, plan, flight, events, stop, &mut copier);
    look(&mut sender)
}

#[test]
fn a_sender_of_which_every_packet_is_refused_gives_up() {
    let all = |_: usize, _: usize| Some(Errno::EPERM);
    with_sender(
        (4000, &GO_ON),
        all,
        |_| {},
        |sender| {
            // It has tried for longer than it does.
            sender.depart(os::monotonic_ns() - GIVE_UP_NS - 1);
            assert_eq!(
                (sender.side.totals.gave_up, sender.side.totals.sent),
                (1, 0)
            );
            let refused = sender.side.totals.withheld.refused;
            assert!(refused > 0 && refused < 4000, "{refused}");
        },
    );
    // Something left: the path carries packets of it.
    let mut calls = 0;
    let all_but_one = |_: usize, _: usize| {
        calls += 1;
        (calls > 1).then_some(Errno::EPERM)
    };
    with_sender(
        (4000, &GO_ON),
        all_but_one,
        |_| {},
        |sender| {
            sender.depart(os::monotonic_ns() - GIVE_UP_NS - 1);
            assert_eq!(
                (sender.side.totals.gave_up, sender.side.totals.sent),
                (0, 4)
            );
            assert_eq!(sender.side.totals.withheld.refused, 3996);
        },
    );
}

#[test]
fn a_flood_ends_by_the_clock() {
    let flood = |plan: &mut Plan, duration_ns| {
        let end = End {
            count: None,
            duration_ns: Some(duration_ns),
        };
        let size = SizeClass {
            payload: SMALL,
            frame: SMALL + 42,
            weight: 1,
        };
        plan.schedule = Schedule::new(Departures::Flood, end, &[size], 1, BURST);
    };
    // Its time is over before it comes to its first packet.
    let over = |plan: &mut Plan| flood(plan, 500_000_000);
    let never = |_: usize, _: usize| -> Option<Errno> { panic!("something leaves") };
    with_sender((0, &GO_ON), never, over, |sender| {
        sender.depart(os::monotonic_ns() - SECOND);
        assert_eq!(
            (sender.side.totals.sent, sender.side.totals.interrupted),
            (0, false)
        );
    });
    // Its time is not over for long: it takes somebody to end it.
    let long = |plan: &mut Plan| flood(plan, 3_600_000_000_000);
    let stop = AtomicBool::new(false);
    let mut calls = 0_u32;
    let until_stopped = |_: usize, _: usize| {
        calls += 1;
        stop.store(calls > 1000, Ordering::Relaxed);
        None
    };
    with_sender((0, &stop), until_stopped, long, |sender| {
        sender.depart(os::monotonic_ns() - SECOND);
        assert!(sender.side.totals.interrupted && sender.side.totals.sent > 1000);
    });
}
