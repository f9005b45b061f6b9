//! Loss, duplicates and order: tests.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::epoch::FIRST_REPLIES;
use super::*;

fn vectors() -> serde_json::Value {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/metrics.json"
    ));
    serde_json::from_str(text).unwrap()
}

fn track(replies: &[(u64, u32)], sent: u64) -> Counts {
    let mut tracker = Tracker::new(1 << 12);
    tracker.make_room(sent);
    for (s, r) in replies {
        tracker.on_reply(*s, *r, false);
    }
    tracker.finish(sent)
}

fn losses(counts: &Counts) -> (u64, u64, u64) {
    let d = counts.directions.unwrap();
    (d.lost_outbound, d.lost_inbound, d.lost_unattributed)
}

#[test]
fn vectors_of_reordering() {
    for case in vectors()["reordering"].as_array().unwrap() {
        let arrivals = case["arrivals"].as_array().unwrap();
        let replies: Vec<_> = arrivals
            .iter()
            .map(|s| {
                (
                    s.as_u64().unwrap(),
                    u32::try_from(s.as_u64().unwrap()).unwrap(),
                )
            })
            .collect();
        let counts = track(&replies, 12);
        assert_eq!(
            counts.reordered,
            case["reordered"].as_u64().unwrap(),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn vectors_of_directional_loss() {
    for case in vectors()["directional_loss"].as_array().unwrap() {
        let pairs = case["replies_sender_seq_reflector_seq"].as_array().unwrap();
        let replies: Vec<_> = pairs
            .iter()
            .map(|p| {
                (
                    p[0].as_u64().unwrap(),
                    u32::try_from(p[1].as_u64().unwrap()).unwrap(),
                )
            })
            .collect();
        let counts = track(&replies, case["sent"].as_u64().unwrap());
        let expected = ["forward_lost", "backward_lost", "unattributed_lost"]
            .map(|key| case[key].as_u64().unwrap());
        assert_eq!(losses(&counts), expected.into(), "{}", case["name"]);
    }
}

#[test]
fn sessions_together_have_the_sums_and_no_more_than_is_known() {
    let known = Counts {
        received: 90,
        duplicates: 1,
        reordered: 2,
        directions: Some(Directions {
            lost_outbound: 7,
            lost_inbound: 3,
            duplicates_inbound: 1,
            reordered_outbound: 2,
            ..Directions::default()
        }),
        own_counter: Some(true),
        bursts: Bursts {
            count: 4,
            longest: 5,
            running: 0,
        },
        ..Counts::default()
    };
    let silent = Counts::default();
    let unknown = Counts {
        received: 10,
        ..Counts::default()
    };
    let of = |all: &[(u64, &Counts)]| Counts::together(all.iter().copied());
    let two = of(&[(100, &known), (100, &known)]);
    assert_eq!(
        (two.received, two.bursts.count, two.bursts.longest),
        (180, 8, 5)
    );
    let directions = two.directions.unwrap();
    assert_eq!((directions.lost_outbound, directions.lost_inbound), (14, 6));
    assert_eq!(two.own_counter, Some(true));
    // A flow that gets nothing through says nothing of the others.
    let one = of(&[(100, &known), (50, &silent)]);
    let directions = one.directions.unwrap();
    assert_eq!(
        (directions.lost_outbound, directions.lost_unattributed),
        (7, 50)
    );
    assert_eq!(one.own_counter, Some(true));
    assert_eq!(of(&[(100, &known), (10, &unknown)]).directions, None);
    assert_eq!(of(&[(50, &silent), (50, &silent)]), Counts::default());
}

/// Counts of which each is another one, from `from` on.
fn counts_from(from: u64) -> Counts {
    let mut next = from..;
    let mut count = || next.next().unwrap();
    Counts {
        received: count(),
        late: count(),
        duplicates: count(),
        reordered: count(),
        directions: Some(Directions {
            lost_outbound: count(),
            lost_inbound: count(),
            lost_unattributed: count(),
            duplicates_outbound: count(),
            duplicates_inbound: count(),
            reordered_outbound: count(),
            reordered_inbound: count(),
        }),
        own_counter: Some(true),
        unresolved: count(),
        bursts: Bursts {
            count: count(),
            longest: count(),
            running: 0,
        },
        senseless: false,
        restarts: count(),
        counter_began_at: count(),
        given_to_others: count(),
    }
}

#[test]
fn every_count_of_two_sessions_adds_up() {
    let (first, second) = (counts_from(100), counts_from(1000));
    // No sums, and as large as the larger one.
    let (longest, began_at) = (second.bursts.longest, second.counter_began_at);
    for (first, second) in [(&first, &second), (&second, &first)] {
        let got = Counts::together([(5, first), (5, second)].into_iter());
        let mut next = (1100..).step_by(2);
        let mut sum = || next.next().unwrap();
        let expected = Counts {
            received: sum(),
            late: sum(),
            duplicates: sum(),
            reordered: sum(),
            directions: Some(Directions {
                lost_outbound: sum(),
                lost_inbound: sum(),
                lost_unattributed: sum(),
                duplicates_outbound: sum(),
                duplicates_inbound: sum(),
                reordered_outbound: sum(),
                reordered_inbound: sum(),
            }),
            own_counter: Some(true),
            unresolved: sum(),
            bursts: Bursts {
                count: sum(),
                longest: (sum(), longest).1,
                running: 0,
            },
            senseless: false,
            restarts: sum(),
            counter_began_at: (sum(), began_at).1,
            given_to_others: sum(),
        };
        assert_eq!(got, expected);
    }
}

#[test]
fn of_two_sessions_the_reflector_counts_only_as_far_as_each_tells() {
    let of = |own_counter, senseless| Counts {
        own_counter,
        senseless,
        directions: None,
        ..counts_from(100)
    };
    let (yes, no) = (Some(true), Some(false));
    for (first, second, both) in [
        (yes, yes, yes),
        (yes, no, no),
        // That one copies our numbers is proof enough.
        (no, None, no),
        (no, no, no),
        (yes, None, None),
        (None, None, None),
    ] {
        for [a, b] in [[first, second], [second, first]] {
            let (a, b) = (of(a, false), of(b, false));
            let all = Counts::together([(5, &a), (5, &b)].into_iter());
            assert_eq!(all.own_counter, both, "{a:?} {b:?}");
        }
    }
    for (first, second) in [(true, false), (false, true), (true, true)] {
        let (a, b) = (of(yes, first), of(yes, second));
        let all = Counts::together([(5, &a), (5, &b)].into_iter());
        assert!(all.senseless && !all.followed(), "{first} {second}");
    }
}

#[test]
fn a_late_reply_is_an_answer() {
    let mut tracker = Tracker::new(64);
    tracker.make_room(3);
    assert_eq!(tracker.on_reply(0, 0, true), Arrival::Late);
    assert_eq!((tracker.answered(), tracker.received()), (1, 0));
    assert_eq!(tracker.on_reply(1, 1, false), Arrival::First);
    assert_eq!(tracker.on_reply(2, 2, true), Arrival::Late);
    assert_eq!((tracker.answered(), tracker.received()), (3, 1));
    // Nothing is waited for, and a probe would tell nothing.
    assert!(tracker.settled(3));
    assert_eq!(tracker.on_reply(2, 2, true), Arrival::Duplicate);
    assert_eq!((tracker.answered(), tracker.late()), (3, 2));
    assert_eq!((tracker.received(), tracker.duplicates()), (1, 1));
}

#[test]
fn what_was_answered_within_the_window_is_known_behind_it() {
    let mut tracker = Tracker::new(64);
    tracker.make_room(10);
    assert_eq!(tracker.on_reply(4, 4, true), Arrival::Late);
    assert_eq!(tracker.on_reply(6, 6, false), Arrival::First);
    tracker.make_room(1000);
    assert_eq!(tracker.on_reply(4, 4, true), Arrival::Duplicate);
    assert_eq!(tracker.on_reply(6, 6, true), Arrival::Duplicate);
    assert_eq!(tracker.on_reply(5, 5, true), Arrival::Late);
    assert_eq!(tracker.on_reply(5, 5, true), Arrival::Duplicate);
    let counts = tracker.finish(1000);
    assert_eq!((counts.received, counts.late, counts.duplicates), (1, 2, 3));
}

#[test]
fn bits_say_of_the_newest_number_of_each_place() {
    let mut bits = Bits::new(128);
    bits.put(3, true);
    bits.put(4, true);
    bits.put(3 + 128, false);
    assert!(!bits.has(3 + 128) && bits.has(4));
    bits.clear();
    assert!(!bits.has(4));
}

#[test]
fn after_a_jump_of_the_reflectors_number_fresh_ones_are_not_known() {
    let mut tracker = Tracker::new(64);
    let jump = 4 * HISTORY;
    // More than the history lies between the first and the last one, but not between two of them.
    for r in [0, HISTORY / 2, HISTORY - 3, HISTORY + 5, jump] {
        assert!(!tracker.see(r), "{r}");
    }
    assert!(!tracker.see(jump - 3), "it has the place of one of before");
    assert!(tracker.see(jump - 3));
}

#[test]
fn reordering_of_the_very_first_packet_is_told_by_direction() {
    let outbound = track(&[(1, 0), (0, 1), (2, 2)], 3).directions.unwrap();
    assert_eq!(
        (outbound.reordered_outbound, outbound.reordered_inbound),
        (1, 0)
    );
    let inbound = track(&[(1, 1), (0, 0), (2, 3)], 4).directions.unwrap();
    assert_eq!(
        (inbound.reordered_outbound, inbound.reordered_inbound),
        (0, 1)
    );
}

#[test]
fn packets_that_overtook_one_another_both_ways_are_told_apart_in_runs_too() {
    // 8 overtook 4 to 7 on the way out, and its reply was overtaken by theirs.
    let mut tracker = Tracker::new(64);
    tracker.on_reply(0, 0, false);
    assert!(tracker.on_run(1, 1, 3));
    assert!(tracker.on_run(4, 5, 4));
    tracker.on_reply(8, 4, false);
    let counts = tracker.finish(9);
    let directions = counts.directions.unwrap();
    assert_eq!(counts.reordered, 0);
    assert_eq!(
        (directions.reordered_outbound, directions.reordered_inbound),
        (4, 1)
    );
}

#[test]
fn where_every_packet_was_answered_none_was_lost_on_either_way() {
    let replies: Vec<(u64, u32)> = (0..20).map(|s| (s, u32::try_from(s).unwrap())).collect();
    let counts = track(&replies, 20);
    // It may count its replies or copy our numbers: nobody need know.
    assert_eq!((counts.own_counter, losses(&counts)), (None, (0, 0, 0)));
    let mut tracker = Tracker::new(64);
    for (s, r) in &replies {
        tracker.on_reply(*s, *r, *s == 7);
    }
    assert!(tracker.settled(20));
    let late = tracker.finish(20);
    assert_eq!((late.late, losses(&late)), (1, (0, 0, 1)));
    // Beside one that lost packets and whose reflector counts.
    let proved = track(&[(0, 0), (2, 1), (3, 2)], 4);
    let both = Counts::together([(20, &counts), (4, &proved)].into_iter());
    assert_eq!((both.own_counter, losses(&both)), (Some(true), (1, 0, 0)));
    let neither = Counts::together([(20, &counts), (20, &late)].into_iter());
    assert_eq!((neither.own_counter, losses(&neither)), (None, (0, 0, 1)));
    // A copy that nothing tells the direction of takes that from all.
    let copied = track(&[(0, 0), (1, 1), (1, 1)], 2);
    assert_eq!(losses(&copied), (0, 0, 0));
    let all = Counts::together([(4, &proved), (2, &copied)].into_iter());
    assert!(!all.followed() && !copied.followed());
    assert_eq!(losses(&all), (1, 0, 0));
}

#[test]
fn what_is_still_awaited_when_the_wait_is_cut_short_is_not_lost() {
    let cut = |replies: &[(u64, u32)], sent: u64, due: u64| {
        let mut tracker = Tracker::new(1 << 12);
        for (s, r) in replies {
            tracker.on_reply(*s, *r, false);
        }
        let counts = tracker.cut_short(sent, due);
        (
            counts.unresolved,
            counts.directions.map(|_| losses(&counts)),
            counts.bursts.count,
        )
    };
    // 1 was lost outbound; 5 and those from 7 on are still under way, as far as anybody knows.
    let replies = [(0, 0), (2, 1), (3, 2), (4, 3), (6, 4)];
    assert_eq!(cut(&replies, 10, 3), (4, Some((1, 0, 0)), 1));
    assert_eq!(cut(&replies, 10, 6), (3, Some((2, 0, 0)), 2));
    assert_eq!(cut(&replies, 10, 10), (0, Some((2, 0, 3)), 3));
    // Where some were lost on each way nobody knows on which the one was that may come.
    let both = [(0, 0), (2, 1), (4, 3), (6, 4)];
    assert_eq!(cut(&both, 8, 5), (2, None, 2));
    assert_eq!(cut(&both, 8, 7), (1, Some((2, 1, 0)), 3));
    // Nothing is lost that nobody waited for.
    assert_eq!(cut(&[(0, 0), (1, 1)], 9, 0), (7, Some((0, 0, 0)), 0));
    assert_eq!(cut(&[], 9, 0), (9, None, 0));
}

#[test]
fn a_copying_reflector_has_no_directions() {
    let mut tracker = Tracker::new(64);
    for s in [0, 1, 3] {
        tracker.on_reply(s, u32::try_from(s).unwrap(), false);
    }
    tracker.on_probe(0, 3);
    assert!(!tracker.settled(4));
    tracker.on_probe(1, 3);
    assert!(tracker.settled(4));
    let counts = tracker.finish(4);
    assert_eq!((counts.own_counter, counts.directions), (Some(false), None));
    assert_eq!(counts.received, 3);
}

#[test]
fn inbound_loss_alone_is_told_by_a_probe() {
    let mut tracker = Tracker::new(64);
    for s in [0, 1, 3] {
        tracker.on_reply(s, u32::try_from(s).unwrap(), false);
    }
    // Packets 2 and 4 were answered, and the answers were lost.
    tracker.on_probe(0, 5);
    assert!(tracker.settled(5));
    assert_eq!(losses(&tracker.finish(5)), (0, 2, 0));
}

#[test]
fn the_tail_is_told_by_a_probe() {
    for (r, expected) in [(3, (2, 0, 0)), (4, (1, 1, 0)), (5, (0, 2, 0))] {
        let mut tracker = Tracker::new(64);
        for s in [0, 1, 2] {
            tracker.on_reply(s, u32::try_from(s).unwrap(), false);
        }
        tracker.on_probe(0, r);
        tracker.on_probe(1, r + 1);
        assert_eq!(losses(&tracker.finish(5)), expected);
    }
}

#[test]
fn a_probe_lost_itself_leaves_the_tail_open_unless_bounds_close_it() {
    let replies = |tracker: &mut Tracker| {
        for (s, r) in [(0, 0), (2, 1)] {
            tracker.on_reply(s, r, false);
        }
    };
    // Probe 0 unanswered: it may or may not have been counted.
    let mut tracker = Tracker::new(64);
    replies(&mut tracker);
    tracker.on_probe(1, 3);
    assert_eq!(losses(&tracker.finish(5)), (1, 0, 2));
    // It cannot have been: then five packets would have been answered of which one was lost.
    let mut tracker = Tracker::new(64);
    replies(&mut tracker);
    tracker.on_probe(1, 2);
    assert_eq!(losses(&tracker.finish(5)), (3, 0, 0));
}

#[test]
fn duplicates_are_told_by_direction() {
    // 1 was doubled on the way back, 2 on the way out.
    let counts = track(&[(0, 0), (1, 1), (1, 1), (2, 2), (2, 3), (3, 4)], 4);
    let d = counts.directions.unwrap();
    assert_eq!((counts.duplicates, counts.received), (2, 4));
    assert_eq!((d.duplicates_outbound, d.duplicates_inbound), (1, 1));
    assert_eq!(losses(&counts), (0, 0, 0));
}

#[test]
fn reordering_is_told_by_direction() {
    // 2 and 1 changed places on the way out, 4 and 5 on the way back.
    let counts = track(&[(0, 0), (2, 1), (1, 2), (3, 3), (5, 5), (4, 4), (6, 6)], 7);
    let d = counts.directions.unwrap();
    assert_eq!(counts.reordered, 2);
    assert_eq!((d.reordered_outbound, d.reordered_inbound), (1, 1));
}

#[test]
fn a_reflector_that_begins_anew_splits_the_session() {
    let mut replies: Vec<(u64, u32)> = (0..50).map(|s| (s, u32::try_from(s).unwrap())).collect();
    // 50..=59 were lost with the reflector; then it counts from 0 again, and loses 65.
    replies.extend((60..65).map(|s| (s, u32::try_from(s - 60).unwrap())));
    replies.extend((66..80).map(|s| (s, u32::try_from(s - 61).unwrap())));
    let counts = track(&replies, 80);
    assert_eq!(counts.restarts, 1);
    assert_eq!(losses(&counts), (1, 0, 10));
    assert_eq!(counts.reordered, 0);
    assert_eq!(counts.directions.unwrap().reordered_inbound, 0);
}

#[test]
fn a_counter_that_goes_on_from_before_is_no_loss() {
    let replies: Vec<(u64, u32)> = (0..100)
        .filter(|s| *s != 50)
        .map(|s| (s, 1000 + u32::try_from(s).unwrap() - u32::from(s > 50)))
        .collect();
    let counts = track(&replies, 100);
    assert_eq!(losses(&counts), (1, 0, 0));
    assert_eq!(counts.counter_began_at, 1000);
}

/// Whether the reflector counted what was lost before its first reply cannot be known.
#[test]
fn loss_before_the_first_reply_of_a_counter_that_goes_on_has_no_direction() {
    // The lower one may as well be one that began with the session, whose first packets overtook one another.
    for (began, told) in [(3, (0, 1, 3)), (99, (1, 1, 2)), (u32::MAX - 9, (1, 1, 2))] {
        // The first two packets and packet 7 were lost on their way out, the reply to packet 9 on its way back.
        let number = |s: u64| began.wrapping_add(u32::try_from(s).unwrap() - u32::from(s > 7));
        let came = (0..60).filter(|s| ![0, 1, 7, 9].contains(s));
        let mut replies: Vec<_> = came.map(|s| (s, number(s - 2))).collect();
        assert_eq!(losses(&track(&replies, 60)), told, "{began}");
        // They came in another order, and left in another one.
        replies.swap(0, 2);
        assert_eq!(losses(&track(&replies, 60)), told, "{began}");
        (replies[0].1, replies[1].1) = (replies[1].1, replies[0].1);
        assert_eq!(losses(&track(&replies, 60)), told, "{began}");
    }
    // A counter that began with the session counted none of them.
    let fresh = (2..60).map(|s| (s, u32::try_from(s - 2).unwrap()));
    assert_eq!(losses(&track(&fresh.collect::<Vec<_>>(), 60)), (2, 0, 0));
}

#[test]
fn a_session_that_begins_anew_with_every_packet_lost_nothing() {
    let counts = track(&[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)], 5);
    assert_eq!(losses(&counts), (0, 0, 0));
    let d = counts.directions.unwrap();
    assert_eq!((counts.restarts, d.reordered_inbound), (4, 0));
    // Two restarts at the same number.
    let counts = track(&[(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (6, 1)], 7);
    let d = counts.directions.unwrap();
    assert_eq!(d.lost_outbound + d.lost_unattributed, 1);
}

#[test]
fn a_number_that_is_repeated_tells_no_direction_of_a_loss() {
    for stuck in [0, 5, u32::MAX] {
        for lost in 0..6 {
            let replies: Vec<_> = (0..6).filter(|s| *s != lost).map(|s| (s, stuck)).collect();
            let counts = track(&replies, 6);
            assert!(counts.senseless, "{stuck}, {lost} was lost");
            assert_eq!((counts.received, counts.directions), (5, None));
        }
    }
}

#[test]
fn numbers_that_count_something_else_tell_no_direction() {
    let constant: Vec<_> = (0..100).map(|s| (s, 7)).collect();
    let counts = track(&constant, 100);
    assert!(counts.senseless && !counts.followed());
    assert_eq!(losses(&counts), (0, 0, 0), "nothing was lost");
    let counts = track(&constant, 101);
    assert!(counts.senseless && counts.directions.is_none());
    // It counts the packets of two sessions.
    let shared = (0..100_u64).filter(|s| s % 10 != 5);
    let shared: Vec<_> = shared.map(|s| (s, u32::try_from(2 * s).unwrap())).collect();
    let counts = track(&shared, 100);
    assert!(counts.senseless && counts.directions.is_none());
    assert_eq!(counts.received, 90);
}

#[test]
fn both_counters_wrap() {
    let mut tracker = Tracker::new(1 << 10);
    let start = u64::from(u32::MAX) - 100;
    // As if everything before had been answered.
    tracker.decided = start;
    tracker.epoch = Epoch::new(start);
    tracker.next_expected = start;
    tracker.counts.received = start;
    let mut lost = 0;
    for i in 0..300 {
        let s = start + i;
        tracker.make_room(s + 1);
        if i % 7 == 3 {
            lost += 1;
            continue;
        }
        assert_eq!(extend(low_half(s), s + 5), s);
        tracker.on_reply(s, low_half(s - lost), false);
    }
    let counts = tracker.finish(start + 300);
    assert_eq!((counts.reordered, counts.restarts), (0, 0));
    assert_eq!(losses(&counts), (lost, 0, 0));
}

#[test]
fn late_replies_are_lost_and_counted_apart() {
    let mut tracker = Tracker::new(64);
    assert_eq!(tracker.on_reply(0, 0, false), Arrival::First);
    assert_eq!(tracker.on_reply(1, 1, true), Arrival::Late);
    assert_eq!(tracker.on_reply(1, 1, true), Arrival::Duplicate);
    assert_eq!(tracker.on_reply(3, 2, false), Arrival::First);
    let counts = tracker.finish(4);
    assert_eq!((counts.received, counts.late, counts.duplicates), (2, 1, 1));
    // 1 did reach the reflector, and its reply came; 2 did not.
    assert_eq!(losses(&counts), (1, 0, 1));
    assert_eq!(counts.bursts.count, 1);
    assert_eq!(counts.bursts.longest, 2);
}

#[test]
fn replies_to_numbers_that_left_the_window_are_what_they_would_be_in_it() {
    for window in [1 << 14, 64] {
        let mut tracker = Tracker::new(window);
        let (mut late, mut r) = (Vec::new(), 0);
        for s in 0..5000 {
            tracker.make_room(s + 1);
            if s % 11 == 0 {
                // Lost outbound.
                continue;
            }
            match s % 7 {
                // Lost inbound.
                0 => {}
                1 => late.push((s, r)),
                _ => assert_eq!(tracker.on_reply(s, r, false), Arrival::First),
            }
            if s % 7 == 2 {
                // A copy that comes later still.
                late.push((s, r));
            }
            r += 1;
        }
        for (s, r) in &late {
            let first = s % 7 == 1;
            let expected = [Arrival::Duplicate, Arrival::Late][usize::from(first)];
            assert_eq!(tracker.on_reply(*s, *r, true), expected, "{window} {s}");
            if first {
                let again = tracker.on_reply(*s, *r, true);
                assert_eq!(again, Arrival::Duplicate, "{window} {s}");
            }
        }
        tracker.on_probe(0, r);
        let counts = tracker.finish(5000);
        let of = |rest| (0..5000).filter(|s| s % 11 != 0 && s % 7 == rest).count() as u64;
        assert_eq!(
            (counts.late, counts.duplicates),
            (of(1), of(1) + of(2)),
            "{window}"
        );
        assert_eq!(losses(&counts), (455, of(0), of(1)), "{window}");
        let directions = counts.directions.unwrap();
        assert_eq!(directions.duplicates_inbound, counts.duplicates, "{window}");
    }
}

#[test]
fn a_copy_of_a_request_whose_first_reply_was_late_spoils_no_direction() {
    let mut tracker = Tracker::new(64);
    tracker.on_reply(0, 0, false);
    tracker.on_reply(1, 1, true);
    // The reflector answered the request twice.
    tracker.on_reply(1, 2, false);
    tracker.on_reply(2, 3, false);
    let counts = tracker.finish(3);
    assert_eq!((counts.received, counts.late, counts.duplicates), (2, 1, 1));
    assert_eq!(losses(&counts), (0, 0, 1));
    assert_eq!(counts.directions.unwrap().duplicates_outbound, 1);
}

#[test]
fn replies_of_former_counters_are_booked_where_their_loss_was() {
    // What comes after the second restart as (s, r, late), and what is lost then: outbound, inbound and
    // where nothing tells. Lost before: 5, then 2 and 3, and the five around the restarts.
    let lost = (1, 2, 5);
    for (reply, told) in [
        // Of the first counter, whose last number was 8.
        ((3, 3, true), Some((1, 1, 6))),
        ((3, 3, false), Some((1, 1, 5))),
        // It arrived behind those that were answered.
        ((5, 9, true), Some((0, 2, 6))),
        ((5, 9, false), Some((0, 2, 5))),
        // Between the counters.
        ((11, 10, true), Some(lost)),
        ((11, 10, false), Some((1, 2, 4))),
        ((21, 8, true), Some(lost)),
        // Copies.
        ((4, 4, true), Some(lost)),
        ((15, 2, false), Some(lost)),
        // Of the second counter none was lost inbound.
        ((16, 0, false), Some(lost)),
    ] {
        let mut tracker = Tracker::new(64);
        let numbers = (0..10).chain(13..20).chain(22..30).filter(|s| *s != 5);
        let numbers = numbers.map(|s| {
            let r = match s {
                0..5 => s,
                5..10 => s - 1,
                10..20 => s - 13,
                _ => s - 22,
            };
            (u64::from(s), r)
        });
        for (s, r) in numbers.filter(|(s, _)| ![2, 3].contains(s)) {
            tracker.on_reply(s, r, false);
        }
        let (s, r, late) = reply;
        tracker.on_reply(s, r, late);
        let counts = tracker.finish(30);
        assert_eq!(counts.restarts, 2);
        let found = counts.directions.is_some().then(|| losses(&counts));
        assert_eq!(found, told, "{reply:?}");
    }
}

#[test]
fn numbers_that_jump_cost_little() {
    // A counter of the wrong byte order: each jump is a whole history.
    let mut tracker = Tracker::new(64);
    for s in 0..100_000_u32 {
        tracker.make_room(u64::from(s) + 1);
        tracker.on_reply(s.into(), s.swap_bytes(), false);
    }
    assert_eq!(tracker.replied.clears, 0, "each jump touches what was seen");
    let counts = tracker.finish(100_000);
    assert_eq!(counts.received, 100_000);
    assert!(counts.senseless);
}

#[test]
fn bursts_are_counted_past_the_window() {
    let mut tracker = Tracker::new(64);
    let lost = |s: u64| (100..130).contains(&s) || s == 500 || s >= 998;
    for s in (0..1000).filter(|s| !lost(*s)) {
        tracker.make_room(s + 1);
        tracker.on_reply(s, 0, false);
    }
    let counts = tracker.finish(1000);
    assert_eq!((counts.bursts.count, counts.bursts.longest), (3, 30));
    assert_eq!(counts.received, 967);
}

#[test]
fn numbers_extend_to_the_nearest() {
    for (low, near, whole) in [
        (5, 3, 5),
        (3, 5, 3),
        (u32::MAX, 0, u64::from(u32::MAX)),
        (2, (1 << 32) - 3, (1 << 32) + 2),
        (u32::MAX, 1 << 32, (1 << 32) - 1),
        (0, (7 << 32) + 9, 7 << 32),
    ] {
        assert_eq!(extend(low, near), whole, "{low} near {near}");
    }
}

/// How many numbers come after a higher one (RFC 4737 §3.3).
fn after_a_higher_one(numbers: impl Iterator<Item = u64>) -> u64 {
    let mut highest = 0;
    let after = |number: &u64| {
        let lower = *number < highest;
        highest = highest.max(*number);
        lower
    };
    numbers.filter(after).count() as u64
}

/// Sends `sent` packets through a path that loses, doubles and reorders, with a reflector that
/// counts, and compares with what the path did.
fn simulate(seed: u64, sent: u64, out_loss: f64, in_loss: f64, doubled: f64, swapped: f64) {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut truth = Directions::default();
    let mut path = |packets: Vec<(u64, u32)>, loss: f64, lost: &mut u64, copies: &mut u64| {
        let mut arrived: Vec<(u64, u32)> = Vec::new();
        for packet in packets {
            if rng.random_bool(loss) {
                *lost += 1;
                continue;
            }
            arrived.push(packet);
            if rng.random_bool(doubled) {
                *copies += 1;
                arrived.push(packet);
            }
        }
        for i in 1..arrived.len() {
            if rng.random_bool(swapped) {
                arrived.swap(i - 1, i);
            }
        }
        arrived
    };
    let requests = (0..sent).map(|s| (s, 0)).collect();
    let mut out_lost = 0;
    let mut out_copies = 0;
    let arrived = path(requests, out_loss, &mut out_lost, &mut out_copies);
    let replies = arrived.iter().zip(0..).map(|((s, _), r)| (*s, r)).collect();
    let replies = path(
        replies,
        in_loss,
        &mut truth.lost_inbound,
        &mut truth.duplicates_inbound,
    );
    let mut tracker = Tracker::new(1 << 14);
    for (s, r) in &replies {
        tracker.on_reply(*s, *r, false);
    }
    // As the receiver asks: again where one answer proves nothing. Where packets overtake one another a
    // missing one may have been the last one there, and no reply tell of it: such a path is asked.
    for (index, number) in (0..2).zip(u32::try_from(arrived.len()).unwrap()..) {
        if index == 0 && swapped > 0.0 || !tracker.settled(sent) {
            tracker.on_probe(index, number);
        }
    }
    let counts = tracker.finish(sent);
    if replies.is_empty() {
        // Without one reply, nothing tells a direction.
        assert_eq!((counts.directions, counts.received), (None, 0));
        return;
    }
    let found = counts.directions.unwrap();
    let doubt = found.lost_unattributed;
    if doubled == 0.0 {
        let outbound = found.lost_outbound..=found.lost_outbound + doubt;
        assert!(outbound.contains(&out_lost), "{found:?} {out_lost}");
        let inbound = found.lost_inbound..=found.lost_inbound + doubt;
        assert!(inbound.contains(&truth.lost_inbound), "{found:?} {truth:?}");
    }
    // The first packets may have overtaken one another.
    assert!(
        doubt == 0 || swapped > 0.0 && doubt <= FIRST_REPLIES.into(),
        "{found:?}"
    );
    let lost = found.lost_outbound + found.lost_inbound + doubt;
    assert_eq!(lost, sent - counts.received, "the directions add up");
    if in_loss == 0.0 {
        assert_eq!(found.duplicates_inbound, truth.duplicates_inbound);
        assert_eq!(found.duplicates_outbound, out_copies);
    }
    if doubled == 0.0 {
        // In the order in which they came back, and in which they came to the reflector.
        let back = |of: fn(&(u64, u32)) -> u64| after_a_higher_one(replies.iter().map(of));
        assert_eq!(counts.reordered, back(|(s, _)| *s));
        assert_eq!(found.reordered_inbound, back(|(_, r)| (*r).into()));
        let mut there = replies.clone();
        there.sort_unstable_by_key(|(_, r)| *r);
        let outbound = after_a_higher_one(there.iter().map(|(s, _)| *s));
        assert_eq!(found.reordered_outbound, outbound);
    } else if swapped == 0.0 {
        assert_eq!((counts.reordered, found.reordered_inbound), (0, 0));
        assert_eq!(found.reordered_outbound, 0);
    }
}

/// A session of `sent` packets through a reflector that also answers packets that somebody else sends
/// from the same address: what was lost outbound and inbound, what was found, and how many replies to
/// the others were lost.
fn beside_others(
    seed: u64,
    (sent, begin): (u64, u32),
    [out_loss, in_loss, forged, swapped]: [f64; 4],
    others_lost: bool,
) -> Option<([u64; 2], Counts, u64)> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let (mut lost, mut silent, mut r) = ([0, 0], 0, begin);
    let mut replies: Vec<(Option<u64>, u32)> = Vec::new();
    for s in 0..sent {
        while rng.random_bool(forged) {
            if others_lost && rng.random_bool(in_loss) {
                silent += 1;
            } else {
                replies.push((None, r));
            }
            r = r.wrapping_add(1);
        }
        if rng.random_bool(out_loss) {
            lost[0] += 1;
            continue;
        }
        if rng.random_bool(in_loss) {
            lost[1] += 1;
        } else {
            replies.push((Some(s), r));
            // Forged answers of numbers that are ours, and of any.
            if rng.random_bool(forged / 4.0) {
                replies.push((None, r));
                let far = rng.random_range(100_000..1 << 31);
                replies.push((None, r.wrapping_add(far)));
                replies.push((None, r.wrapping_sub(far)));
            }
        }
        r = r.wrapping_add(1);
    }
    for i in 1..replies.len() {
        if rng.random_bool(swapped) {
            replies.swap(i - 1, i);
        }
    }
    let mut tracker = Tracker::new(1 << 14);
    for (s, r) in replies {
        match s {
            Some(s) => drop(tracker.on_reply(s, r, false)),
            None => tracker.on_other(r),
        }
    }
    if tracker.answered() == 0 {
        return None;
    }
    for index in 0..2 {
        if !tracker.settled(sent) {
            tracker.on_probe(index, r);
            r = r.wrapping_add(1);
        }
    }
    Some((lost, tracker.finish(sent), silent))
}

#[test]
fn numbers_that_were_given_to_others_are_neither_loss_nor_arrivals() {
    // 31 of 300 packets are lost outbound, and somebody forges 20.
    let mut tracker = Tracker::new(1 << 10);
    let mut r = 0;
    for s in 0..300 {
        if s % 15 == 7 {
            tracker.on_other(r);
            // Once more, and one that cannot be.
            tracker.on_other(r);
            tracker.on_other(r.wrapping_sub(1_000_000));
            r += 1;
        }
        if s % 10 != 5 && s != 299 {
            tracker.on_reply(s, r, false);
            r += 1;
        }
    }
    tracker.on_probe(0, r);
    assert!(tracker.settled(300));
    let counts = tracker.finish(300);
    assert_eq!((losses(&counts), counts.given_to_others), ((31, 0, 0), 20));
}

#[test]
fn numbers_that_no_reply_of_ours_bears_out_were_given_to_nobody() {
    let mut alone = Tracker::new(1 << 10);
    let mut later = Tracker::new(1 << 10);
    for r in 0..30 {
        alone.on_other(r);
    }
    later.on_other(3_000_000_000);
    for s in 0..30 {
        later.on_reply(s, u32::try_from(s).unwrap(), false);
    }
    assert_eq!(alone.finish(30).given_to_others, 0);
    let counts = later.finish(30);
    assert_eq!((losses(&counts), counts.given_to_others), ((0, 0, 0), 0));
}

/// One reply of four came, to a packet that another one had overtaken, whose reply was lost: or the counter
/// had begun before.
#[test]
fn few_replies_do_not_tell_where_the_counter_began() {
    simulate(5_634_800_279_106_872_650, 4, 0.333, 0.426, 0.0, 0.228);
    let mut tracker = Tracker::new(64);
    tracker.on_reply(0, 1, false);
    tracker.on_probe(0, 2);
    let found = tracker.finish(4).directions.unwrap();
    assert_eq!(
        (
            found.lost_outbound,
            found.lost_inbound,
            found.lost_unattributed
        ),
        (2, 0, 1)
    );
}

proptest! {
    #[test]
    fn directions_are_right_whatever_others_send_from_our_address(
        seed: u64, sent in 100_u64..1500, begin in prop_oneof![Just(0), any::<u32>()],
        out_loss in 0.0..0.3, in_loss in 0.0..0.3, forged in 0.0..0.3,
        swapped in prop_oneof![Just(0.0), 0.0..0.2],
    ) {
        let rates = [out_loss, in_loss, forged, swapped];
        for others_lost in [false, true] {
            let found = beside_others(seed, (sent, begin), rates, others_lost);
            let Some((lost, counts, silent)) = found else { continue };
            // Of replies that never came nobody knows; many of them make no sense of the numbers.
            prop_assert!(!counts.senseless || silent > sent / 50, "{counts:?} {silent}");
            let Some(d) = counts.directions else { continue };
            let unknown = d.lost_unattributed;
            prop_assert_eq!(d.lost_outbound + d.lost_inbound + unknown, lost[0] + lost[1]);
            prop_assert!(begin > 0 || forged > 0.0 || unknown == 0);
            let off = d.lost_inbound.abs_diff(lost[1]);
            prop_assert!(off <= silent + unknown, "{:?} {:?} {}", d, lost, silent);
        }
    }

    #[test]
    fn counts_are_what_the_path_did(
        seed: u64, sent in 2_u64..2000,
        out_loss in 0.0..0.5, in_loss in 0.0..0.5, swapped in 0.0..0.3,
    ) {
        simulate(seed, sent, out_loss, in_loss, 0.0, swapped);
    }

    #[test]
    fn copies_are_told_from_losses(seed: u64, sent in 40_u64..2000, loss in 0.0..0.3, doubled in 0.0..0.3) {
        simulate(seed, sent, loss, 0.0, doubled, 0.0);
    }

    #[test]
    fn any_replies_are_counted_without_a_panic(
        replies in proptest::collection::vec((0_u64..300, any::<u32>(), any::<bool>()), 0..300),
        probes in proptest::collection::vec((0_u64..4, any::<u32>()), 0..4),
        others in proptest::collection::vec(prop_oneof![any::<u32>(), 0..400_u32], 300),
    ) {
        let mut tracker = Tracker::new(64);
        tracker.make_room(300);
        for ((s, r, late), other) in replies.iter().zip(&others) {
            tracker.on_reply(*s, *r, *late);
            tracker.on_other(*other);
        }
        for (index, r) in &probes {
            tracker.on_probe(*index, *r);
        }
        let counts = tracker.finish(300);
        let seen = counts.received + counts.late + counts.duplicates;
        prop_assert_eq!(seen, replies.len() as u64);
    }

    /// Whatever came before, replies in a row come to the same together as one by one.
    #[test]
    fn runs_are_counted_as_their_replies_are(
        seed: u64, window in 64_u64..3000, first: u32, begin: u32, loss in 0.0..0.4,
        odd in prop_oneof![Just(0.0), 0.0..0.3], forgotten: bool,
    ) {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut together = Tracker::counting_from(window, first);
        let mut each = Tracker::counting_from(window, first);
        let (mut s, mut r, mut runs) = (0_u64, begin, 0);
        for _ in 0..200 {
            let count = rng.random_range(1..64_u64);
            let (mut from, mut number) = (s, r);
            let mut late = false;
            if rng.random_bool(odd) {
                let other = r.wrapping_add(rng.random_range(0..200)).wrapping_sub(100);
                together.on_other(other);
                each.on_other(other);
            }
            if rng.random_bool(odd) {
                // Again, out of order, late, or of a counter that begins anew.
                match rng.random_range(0..5) {
                    0 => from = s.saturating_sub(rng.random_range(0..200)),
                    1 => number = r.wrapping_sub(rng.random_range(0..200)),
                    2 => late = true,
                    3 => (r, number) = (0, 0),
                    _ => {
                        from = s.saturating_sub(rng.random_range(0..200));
                        number = r.wrapping_sub(rng.random_range(0..200));
                    }
                }
            } else {
                let lost = |rng: &mut Pcg64Mcg| {
                    let most = if rng.random_bool(0.1) { 2000 } else { 40 };
                    if rng.random_bool(loss) { rng.random_range(0..most) } else { 0_u32 }
                };
                s += u64::from(lost(&mut rng));
                r = r.wrapping_add(lost(&mut rng));
                (from, number) = (s, r);
            }
            let sent = s.max(from) + count + rng.random_range(0..10);
            for tracker in [&mut together, &mut each] {
                tracker.make_room(if forgotten { sent } else { from + count });
            }
            let run = !late && together.on_run(from, number, count);
            runs += u64::from(run);
            for n in 0..count {
                let number = number.wrapping_add(u32::try_from(n).unwrap());
                each.on_reply(from + n, number, late);
                if !run {
                    together.on_reply(from + n, number, late);
                }
            }
            s = s.max(from + count);
            r = r.max(number.wrapping_add(u32::try_from(count).unwrap()));
            let seen = |tracker: &Tracker| {
                let inbound = tracker
                    .checkpoint()
                    .and_then(|now| tracker.lost_inbound_until(&now));
                (tracker.received(), tracker.answered(), tracker.checkpoint(), inbound)
            };
            prop_assert_eq!(seen(&together), seen(&each));
        }
        let sent = s + 10;
        for tracker in [&mut together, &mut each] {
            tracker.make_room(sent);
            tracker.on_probe(0, r);
        }
        prop_assert!(odd > 0.0 || runs > 20, "{runs} runs");
        prop_assert_eq!(together.finish(sent), each.finish(sent));
    }

    #[test]
    fn extension_keeps_the_low_half(low: u32, near in 0_u64..1 << 62) {
        prop_assert_eq!(low_half(extend(low, near)), low);
    }
}
