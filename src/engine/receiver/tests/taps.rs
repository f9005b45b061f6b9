//! What is noticed for watchers.

use super::super::answer::Answer;
use super::super::tap::Tap;
use super::{Heard, at};
use crate::config::WatchConfig;
use crate::engine::flight::Flight;
use crate::engine::intervals::Begun;
use crate::engine::live::{Kind, Record};
use crate::stats::sequence::{self, Tracker};
use crate::wire::{Format, Timestamp};

const BEGUN: Begun = Begun {
    at_ns: 0,
    wall_ns: 0,
};

fn watching(interval_ns: u64, timeout_ns: i64) -> Tap {
    let config = WatchConfig {
        interval_ns: Some(interval_ns),
        ..WatchConfig::default()
    };
    Tap::new(config, timeout_ns, Format::Ntp, BEGUN)
}

#[test]
fn an_interval_that_found_no_room_becomes_longer() {
    let mut tap = watching(1_000_000, 5_000_000_000);
    let (flight, mut tracker) = (Flight::new(64, 0), Tracker::new(64));
    let mut tick = |tap: &mut Tap, now| {
        tap.tick(
            at(now, 0),
            flight.receiver(),
            &mut tracker,
            &mut Heard::default(),
        )
    };
    assert_eq!(tick(&mut tap, 999_999), None);
    assert_eq!(tick(&mut tap, 1_000_000).unwrap().number, 1);
    let counts = tick(&mut tap, 2_500_000).unwrap();
    assert_eq!((counts.number, counts.at_ns), (2, 2_500_000));
    tap.ended(&counts);
    assert_eq!(tick(&mut tap, 2_999_999), None);
    assert_eq!(tick(&mut tap, 3_000_000).unwrap().number, 3);
    assert!(
        tap.finish(0, &sequence::Counts::default(), at(0, 0))
            .unwrap()
            .last
    );
}

/// Packets leave at a steady rate; from some moment on nothing comes back. Each is lost when its
/// timeout ends, at any rate, however often the window has gone round.
#[test]
fn loss_is_booked_when_the_timeout_ends_at_any_rate() {
    const SECOND: i64 = 1_000_000_000;
    let begin = 1_790_000_000 * SECOND;
    for (gap_ns, timeout_ns) in [
        (100_000, SECOND / 2),
        (1_000_000, 5 * SECOND),
        (10_000_000, SECOND),
        (200_000_000, SECOND),
    ] {
        let per_second = SECOND / gap_ns;
        let window = u64::try_from((timeout_ns + SECOND / 2) / gap_ns).unwrap() + 1024;
        let flight = Flight::new(window, 0);
        let (mut tap, mut tracker) = (watching(1_000_000_000, timeout_ns), Tracker::new(window));
        let answered = u64::try_from(20 * per_second).unwrap();
        let mut booked = Vec::new();
        for second in 0..40 {
            for n in 0..per_second {
                let seq = u64::try_from(second * per_second + n).unwrap();
                let now = second * SECOND + n * gap_ns;
                let t1 = Timestamp::from_unix_ns(begin + now, Format::Ntp);
                flight.sender().note(seq, 1, t1.raw(), 0, false);
                flight.sender().attempt(seq + 1);
                flight.sender().depart(seq + 1);
                if seq < answered {
                    tracker.make_room(seq + 1);
                    tracker.on_reply(seq, u32::try_from(seq).unwrap(), false);
                }
                if now % 10_000_000 == 0
                    && let Some(counts) = tap.tick(
                        at(now, begin + now),
                        flight.receiver(),
                        &mut tracker,
                        &mut Heard::default(),
                    )
                {
                    booked.push(counts.lost);
                    tap.ended(&counts);
                }
            }
        }
        for (second, lost) in (1..).zip(booked) {
            let since = (second * SECOND - 20 * SECOND - timeout_ns).max(0);
            let expected = u64::try_from(since / gap_ns).unwrap();
            assert!(
                lost.abs_diff(expected) <= u64::try_from(20_000_000 / gap_ns).unwrap() + 1,
                "after {second} s at {per_second}/s: {lost}, not {expected}"
            );
        }
    }
}

#[test]
fn happenings_alone_end_no_interval() {
    let config = WatchConfig {
        happenings: true,
        ..WatchConfig::default()
    };
    let mut tap = Tap::new(config, 5_000_000_000, Format::Ntp, BEGUN);
    let mut heard = Heard::default();
    let answer = Answer {
        seq: 7,
        reflector_seq: 7,
        count: 1,
        t1_ns: None,
        near: 0,
        stepped: false,
    };
    tap.unusable(&answer, &mut heard);
    let (flight, mut tracker) = (Flight::new(64, 0), Tracker::new(64));
    let late = at(1 << 60, 0);
    assert_eq!(
        tap.tick(late, flight.receiver(), &mut tracker, &mut heard),
        None
    );
    assert_eq!(tap.finish(0, &sequence::Counts::default(), late), None);
    let kind = Kind::Unusable { reflector_seq: 7 };
    assert_eq!(heard.happened, [Record::of(kind, 7)]);
}
