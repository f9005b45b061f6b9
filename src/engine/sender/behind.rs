//! What becomes of a sender that cannot keep its schedule, and when one ends before all has left: tests
//! over a wire in memory.

use crossbeam_channel::bounded;
use nix::errno::Errno;

use super::refusals::{BURST, SMALL, Wire, plan};
use super::*;
use crate::config::{Departures, End, SizeClass};
use crate::engine::flight::Flight;

const SECOND: i64 = 1_000_000_000;
static GO_ON: AtomicBool = AtomicBool::new(false);

/// Shows `look` a sender of `count` packets, due one a microsecond in trains of [`BURST`], over a wire that
/// refuses some of them.
fn with_sender<F, T>(
    (count, stop): (u64, &AtomicBool),
    refuse: F,
    adapt: impl FnOnce(&mut Plan),
    look: impl FnOnce(&mut Sender<'_, Wire<F>>) -> T,
) -> T
where
    F: FnMut(usize, usize) -> Option<Errno>,
{
    let flight = Flight::new(4096, 2);
    let (ready, _started) = bounded(1);
    let (_begin, at) = bounded(1);
    let mut plan = plan(&[SMALL], count, (ready, at));
    adapt(&mut plan);
    let mut wire = Wire::new(8, refuse);
    let events = EventLoop::new().unwrap();
    let mut copier = None;
    let mut sender = Sender::new(&mut wire, plan, flight.sender(), stop, events, &mut copier);
    look(&mut sender)
}

/// The trains that are made when the sender looks at its lag so often, and is so far behind each time.
fn trains(most_burst: u32, behind: &[i64]) -> Vec<u32> {
    let adapt = |plan: &mut Plan| plan.most_burst = most_burst;
    with_sender(
        (u64::MAX, &GO_ON),
        |_, _| None,
        adapt,
        |sender| {
            let mut schedule = sender.plan.schedule.clone();
            let next = schedule.next();
            let mut agenda = Agenda { schedule, next };
            let lengths = behind.iter().enumerate().map(|(look, behind)| {
                let now = (1 + i64::try_from(look).unwrap()) * SECOND;
                sender.batch.clear();
                let at_ns = now - behind;
                sender.batch.push(Due {
                    at_ns,
                    class: 0,
                    count: 1,
                });
                sender.lengthen(&mut agenda, now);
                agenda.schedule.next().unwrap().count
            });
            let lengths: Vec<u32> = lengths.collect();
            let longest = lengths.iter().max().copied().unwrap().max(BURST);
            // So that the receiver takes what comes of them together.
            let told = sender.flight.burst();
            assert!(
                told == longest || told == 1 && longest == BURST,
                "{told} {longest}"
            );
            lengths
        },
    )
}

#[test]
fn trains_grow_only_where_the_sender_falls_further_and_further_behind() {
    const MS: i64 = 1_000_000;
    // On time, ahead of it, a little behind, or behind and catching up.
    for behind in [
        [0; 4],
        [-SECOND, -2 * SECOND, -3 * SECOND, -4 * SECOND],
        [MS, 2 * MS, 3 * MS, 4 * MS],
        [400 * MS, 300 * MS, 200 * MS, 100 * MS],
    ] {
        assert_eq!(trains(64, &behind), [BURST; 4], "{behind:?}");
    }
    let more = |looks: i64| (1..=looks).map(|n| n * 100 * MS).collect::<Vec<_>>();
    // Twice as long each time, as far as permitted, from the second look on.
    assert_eq!(trains(64, &more(6)), [4, 8, 16, 32, 64, 64]);
    assert_eq!(trains(20, &more(5)), [4, 8, 16, 20, 20]);
    // As far as needed.
    let kept = [100, 200, 300, 300, 200, 100].map(|ms| ms * MS);
    assert_eq!(trains(64, &kept), [4, 8, 16, 16, 16, 16]);
    assert_eq!(trains(BURST, &more(3)), [BURST; 3]);
    // The kernel refuses trains: there are none any more.
    assert_eq!(trains(1, &[0; 3]), [1; 3]);
    assert_eq!(trains(1, &more(3)), [1; 3]);
}

#[test]
fn what_is_overdue_when_there_is_room_again_is_not_sent() {
    let adapt = |plan: &mut Plan| plan.timeout_ns = 5 * SECOND;
    with_sender(
        (100, &GO_ON),
        |_, _| None,
        adapt,
        |sender| {
            for (at_ns, count) in [(0, 4), (SECOND, 3), (2 * SECOND, 2), (0, 1)] {
                sender.batch.push(Due {
                    at_ns,
                    class: 0,
                    count,
                });
            }
            assert_eq!(sender.drop_overdue(0, 5 * SECOND), 0);
            assert_eq!(sender.totals.overdue, 0);
            assert_eq!(sender.drop_overdue(0, 6 * SECOND + 1), 2);
            assert_eq!(sender.totals.overdue, 7);
            assert_eq!(sender.drop_overdue(2, 6 * SECOND + 1), 2);
            assert_eq!(sender.drop_overdue(2, 8 * SECOND), 4, "nothing is left");
            assert_eq!(sender.totals.overdue, 10);
        },
    );
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
            assert_eq!((sender.totals.gave_up, sender.totals.sent), (1, 0));
            let refused = sender.totals.refused;
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
            assert_eq!((sender.totals.gave_up, sender.totals.sent), (0, 4));
            assert_eq!(sender.totals.refused, 3996);
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
        assert_eq!((sender.totals.sent, sender.totals.interrupted), (0, false));
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
        assert!(sender.totals.interrupted && sender.totals.sent > 1000);
    });
}
