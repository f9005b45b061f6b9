//! Replies that are none to a packet under way, or come too late.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::{BEGIN_NS, Bench, TIMEOUT_NS, plan, reflector, reply, request, taken};
use crate::engine::flight::Flight;
use crate::report::ignored::Kind;
use crate::wire::{Format, Timestamp};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_octets_are_counted_and_change_no_figure(
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..20),
    ) {
        let flight = Flight::new(64, 0);
        let mut bench = Bench::new(&plan(true), &flight);
        request(&flight, 0, BEGIN_NS, false);
        for octets in &noise {
            bench.arrive(octets, BEGIN_NS + 5);
        }
        let (received, _) = bench.finish(1);
        prop_assert_eq!(received.facts.ignored.total(), noise.len() as u64);
        prop_assert_eq!(received.counts.received, 0);
    }

    #[test]
    fn a_reflector_takes_any_octets(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut slot = octets.clone();
        slot.resize(512, 0);
        let mut request = taken(&mut slot, octets.len(), None);
        let mut mirror = reflector(true, Format::Ntp);
        match mirror.reflect(&mut request, 1) {
            Ok(answer) => {
                prop_assert!(octets.len() >= 14);
                prop_assert_eq!(answer.len, octets.len().max(41));
                prop_assert_eq!(&slot[..4], &octets[..4], "stateless");
                prop_assert_eq!(&slot[24..38], &octets[..14]);
                prop_assert_eq!(&slot[41..answer.len], &octets[14..answer.len - 27]);
            }
            Err(_) => prop_assert!(octets.len() < 14),
        }
    }
}

#[test]
fn a_reply_with_another_t1_or_number_is_not_counted() {
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(false), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    let other = Flight::new(64, 0);
    let sent = request(&flight, 0, BEGIN_NS, false);
    let stale = request(&other, 0, BEGIN_NS - 1, false);
    let ahead = request(&other, 1, BEGIN_NS, false);
    for octets in [&stale, &ahead] {
        let octets = reply(&mut mirror, octets, BEGIN_NS + 5, Format::Ntp);
        bench.arrive(&octets, BEGIN_NS + 10);
    }
    assert_eq!(bench.counts(), (0, 2));
    let octets = reply(&mut mirror, &sent, BEGIN_NS + 5, Format::Ntp);
    bench.arrive(&octets, BEGIN_NS + 10);
    assert_eq!(bench.counts(), (1, 2));
}

#[test]
fn replies_to_others_take_their_numbers_out_of_the_count_and_spoiled_ones_do_not() {
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(false), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    let elsewhere = Flight::new(64, 0);
    for seq in 0..20 {
        let octets = request(&flight, seq, BEGIN_NS, false);
        if seq == 5 {
            // Lost outbound, and another sender has the same number a while later.
            let other = request(&elsewhere, 5, BEGIN_NS + 3_000_000_000, false);
            let octets = reply(&mut mirror, &other, BEGIN_NS + 5, Format::Ntp);
            bench.arrive(&octets, BEGIN_NS + 10);
            continue;
        }
        let mut octets = reply(&mut mirror, &octets, BEGIN_NS + 5, Format::Ntp);
        if seq == 9 {
            // Spoiled on the way back: the packet came there all the same.
            octets[35] ^= 1;
        }
        bench.arrive(&octets, BEGIN_NS + 10);
        if seq == 12 {
            // Of one that was answered, and of none that was sent.
            for seq in [12, 40] {
                let other = request(&elsewhere, seq, BEGIN_NS + 1, false);
                let octets = reply(&mut mirror, &other, BEGIN_NS + 5, Format::Ntp);
                bench.arrive(&octets, BEGIN_NS + 10);
            }
        }
    }
    let (received, _) = bench.finish(20);
    let counts = &received.counts;
    let directions = counts.directions.unwrap();
    assert_eq!((counts.received, received.facts.ignored.total()), (18, 4));
    assert_eq!((directions.lost_outbound, directions.lost_inbound), (1, 1));
    assert_eq!(counts.given_to_others, 3);
}

#[test]
fn a_packet_out_of_the_window_is_not_answered_by_just_anything() {
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(false), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    for seq in 0..1000 {
        let t1 = BEGIN_NS + i64::try_from(seq).unwrap();
        request(&flight, seq, t1, false);
    }
    let forged = request(&Flight::new(64, 0), 5, 12_345, false);
    for _ in 0..10 {
        let octets = reply(&mut mirror, &forged, BEGIN_NS + 5, Format::Ntp);
        bench.arrive(&octets, BEGIN_NS + 10);
    }
    assert_eq!(bench.counts(), (0, 10));
    assert!(!bench.side.tracker.own_counter_proved());
}

#[test]
fn a_reply_after_the_timeout_is_late() {
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(false), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    let octets = request(&flight, 0, BEGIN_NS, false);
    let octets = reply(&mut mirror, &octets, BEGIN_NS + 5, Format::Ntp);
    bench.arrive(&octets, BEGIN_NS + TIMEOUT_NS + 1000);
    let counts = bench.finish(1).0.counts;
    assert_eq!((counts.received, counts.late), (0, 1));
}

#[test]
fn a_reply_whose_packet_left_the_window_is_late_or_a_duplicate() {
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(false), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    let mut behind = Vec::new();
    for seq in 0..500 {
        let t1 = BEGIN_NS + i64::try_from(seq).unwrap();
        let octets = request(&flight, seq, t1, false);
        if seq == 5 {
            continue;
        }
        let octets = reply(&mut mirror, &octets, t1 + 5, Format::Ntp);
        // Of ten packets one is answered late, and one again.
        if seq % 10 != 0 {
            bench.arrive(&octets, t1 + 10);
        }
        if seq % 10 < 2 && seq < 400 {
            behind.push(octets);
        }
    }
    for octets in &behind {
        bench.arrive(octets, BEGIN_NS + TIMEOUT_NS + 1000);
    }
    // No such packet left when this one says.
    for t1 in [BEGIN_NS - 1, BEGIN_NS + 490] {
        let mut forged = behind[0].clone();
        let t1 = Timestamp::from_unix_ns(t1, Format::Ntp);
        forged[28..36].copy_from_slice(t1.as_bytes());
        bench.arrive(&forged, BEGIN_NS + TIMEOUT_NS + 1000);
    }
    let (received, _) = bench.finish(500);
    let counts = &received.counts;
    assert_eq!((counts.received, counts.late), (449, 40));
    assert_eq!((counts.duplicates, received.facts.ignored.total()), (40, 2));
    let directions = counts.directions.unwrap();
    let lost = (directions.lost_outbound, directions.lost_inbound);
    assert_eq!((lost, directions.lost_unattributed), ((1, 10), 40));
    assert_eq!(directions.duplicates_inbound, 40);
}

#[test]
fn a_reply_of_ours_that_comes_back_is_not_answered() {
    let mut mirror = reflector(false, Format::Ntp);
    let octets = request(&Flight::new(64, 0), 0, BEGIN_NS, false);
    let first = reply(&mut mirror, &octets, BEGIN_NS + 5, Format::Ntp);
    mirror
        .guard
        .note(Timestamp::from_unix_ns(BEGIN_NS + 505, Format::Ntp));
    // Another reflector answers our reply as if it were a request.
    let mut other = reflector(false, Format::Ntp);
    let mut back = reply(&mut other, &first, BEGIN_NS + 900, Format::Ntp);
    let len = back.len();
    back.resize(512, 0);
    let mut request = taken(&mut back, len, None);
    let refusal = mirror.reflect(&mut request, 1).unwrap_err();
    assert_eq!(refusal, Kind::Loop);
}
