//! How a session ends.

use super::super::ending::{LINGER_NS, PROBE_NS, QUIET_NS};
use super::super::side::Plan;
use super::{BEGIN_NS, Bench, TIMEOUT_NS, at, plan, reflector, reply, request};
use crate::config::Fraction;
use crate::engine::flight::{Flight, PROBES};
use crate::stats::clock::OwnStep;
use crate::wire::Format;

/// An ending after 10 packets of which some were answered, each after the same time; with what it
/// says at 5,000 ns, and when a probe is asked for and after one was answered.
fn ends(bound: Option<&str>, answered: u64, took_ns: i64) -> (Vec<Option<i64>>, usize) {
    let flight = Flight::new(64, 0);
    let plan = Plan {
        loss_bound: bound.map(|text| text.parse().unwrap()),
        ..plan(false)
    };
    let mut bench = Bench::new(&plan, &flight);
    let mut mirror = reflector(false, Format::Ntp);
    for seq in 0..10 {
        let octets = request(&flight, seq, BEGIN_NS, false);
        if seq < answered {
            let octets = reply(&mut mirror, &octets, BEGIN_NS + 10, Format::Ntp);
            bench.arrive(&octets, BEGIN_NS + took_ns);
        }
    }
    flight.sender().finish(10, 1000);
    let mut said = vec![bench.next(5000)];
    said.push(bench.next(5000 + QUIET_NS));
    let asked = bench.heard.wishes.len();
    if asked > 0 {
        bench.side.ending.note_probe(0);
    }
    said.push(bench.next(6000 + QUIET_NS));
    (said, asked)
}

#[test]
fn where_a_bound_of_loss_is_passed_an_answered_probe_ends_the_session() {
    let timeout = Some(TIMEOUT_NS + 1000);
    let quiet = |times| Some(5000 + times * QUIET_NS);
    let lingering = Some(6000 + QUIET_NS + LINGER_NS.0);
    for (bound, answered, said, asked) in [
        (None, 8, [timeout, timeout, timeout], 0),
        (Some("20%"), 8, [timeout, timeout, timeout], 0),
        // The first one is still to come.
        (Some("0"), 0, [timeout, timeout, timeout], 0),
        (Some("19%"), 8, [quiet(1), quiet(2), lingering], 1),
    ] {
        let expected = (said.to_vec(), asked);
        assert_eq!(
            ends(bound, answered, 1000),
            expected,
            "{bound:?} {answered}"
        );
    }
    // Where replies take long, silence means little.
    let long = QUIET_NS / 4 + 1000;
    assert_eq!(ends(Some("0"), 8, long).0[0], Some(5000 + 4 * long));
    assert_eq!(ends(Some("0"), 8, TIMEOUT_NS / 2).0[0], timeout);
}

/// How many probes are asked for after 10 packets, when none of them is answered. What happens to
/// each packet: `o` lost outbound, `i` lost inbound, `c` its reply comes twice, `x` it is overtaken on
/// the way back.
fn probes_after(happens: &[(u64, char)], stateless: bool, allowed: bool) -> usize {
    let flight = Flight::new(64, 0);
    let plan = Plan {
        probes: allowed,
        ..plan(false)
    };
    let mut bench = Bench::new(&plan, &flight);
    let mut mirror = reflector(stateless, Format::Ntp);
    let mut overtaken = None;
    for seq in 0..10 {
        let octets = request(&flight, seq, BEGIN_NS, false);
        let what = happens.iter().find(|(at, _)| *at == seq).map(|(_, c)| *c);
        if what == Some('o') {
            continue;
        }
        let octets = reply(&mut mirror, &octets, BEGIN_NS + 10, Format::Ntp);
        match what {
            Some('i') => continue,
            Some('x') => {
                overtaken = Some(octets);
                continue;
            }
            Some(_) => bench.arrive(&octets, BEGIN_NS + 1000),
            None => {}
        }
        bench.arrive(&octets, BEGIN_NS + 1000);
        if let Some(octets) = overtaken.take() {
            bench.arrive(&octets, BEGIN_NS + 1000);
        }
    }
    flight.sender().finish(10, 1000);
    let mut now = 5000;
    for _ in 0..10 {
        match bench.next(now) {
            Some(until) => now = until,
            None => return bench.heard.wishes.len(),
        }
    }
    panic!("it does not end");
}

#[test]
fn probes_are_sent_only_where_a_direction_is_not_known_otherwise() {
    for (happens, stateless, probes) in [
        // Nothing is missing, whatever the reflector does.
        (&[][..], false, 0),
        (&[], true, 0),
        // Its counter told all: it lags behind ours, and the last packet was answered.
        (&[(3, 'o')], false, 0),
        (&[(3, 'o'), (5, 'i')], false, 0),
        // It has counted what is missing, or copies our numbers.
        (&[(3, 'i')], false, PROBES),
        (&[(3, 'o')], true, PROBES),
        // The last ones are missing.
        (&[(9, 'o')], false, PROBES),
        (&[(2, 'o'), (9, 'i')], false, PROBES),
        // One that is missing may have come there last.
        (&[(3, 'o'), (5, 'i'), (7, 'x')], false, PROBES),
        // Nothing is missing, and which way the copy was made is not known.
        (&[(3, 'c')], false, PROBES),
        (&[(3, 'x')], true, PROBES),
    ] {
        let asked = probes_after(happens, stateless, true);
        assert_eq!(asked, probes, "{happens:?} {stateless}");
        assert_eq!(probes_after(happens, stateless, false), 0, "{happens:?}");
    }
}

#[test]
fn the_answer_to_a_probe_is_waited_for() {
    let flight = Flight::new(64, 0);
    let plan = plan(false);
    let mut bench = Bench::new(&plan, &flight);
    let mut mirror = reflector(false, Format::Ntp);
    for seq in 0..10 {
        let octets = request(&flight, seq, BEGIN_NS, false);
        // Of the last one nothing comes back.
        if seq < 9 {
            let octets = reply(&mut mirror, &octets, BEGIN_NS + 10, Format::Ntp);
            bench.arrive(&octets, BEGIN_NS + 30_000_000);
        }
    }
    flight.sender().finish(10, 1000);
    let timeout = 1000 + TIMEOUT_NS;
    assert_eq!(bench.next(5000), Some(timeout));
    let lingered = bench.next(timeout).unwrap();
    assert_eq!((lingered > timeout, bench.heard.wishes.len()), (true, 0));
    // Twice as long as a reply took, but no less than this.
    let until = lingered + PROBE_NS;
    assert_eq!(bench.next(lingered), Some(until));
    for now in [lingered, lingered + 30_000_000, until - 1] {
        assert_eq!(bench.next(now), Some(until));
        assert_eq!(bench.heard.wishes.len(), 1, "its answer is under way");
    }
    // It was lost; the next one is answered, which leaves a direction open.
    assert_eq!(bench.next(until), Some(until + PROBE_NS));
    assert_eq!(bench.heard.wishes.len(), 2);
    bench.side.ending.note_probe(1);
    bench.side.tracker.on_probe(1, 9);
    let now = until + 1000;
    assert_eq!(bench.next(now), Some(now + PROBE_NS));
    assert_eq!(bench.heard.wishes.len(), 3);
    // Another answer tells all.
    bench.side.tracker.on_probe(2, 10);
    assert_eq!(bench.next(now + 1), None);
    assert_eq!(bench.heard.wishes, [0, 1, 2]);
}

#[test]
fn a_wait_ends_when_that_is_asked_for_once_more_than_what_ended_the_departures() {
    for (interrupted, bound, enough) in [
        (false, None, 1),
        (true, None, 2),
        // Whatever comes, it says nothing of a rate.
        (true, Some(Fraction::default()), 1),
    ] {
        let flight = Flight::new(64, 0);
        let plan = Plan {
            loss_bound: bound,
            ..plan(false)
        };
        let mut bench = Bench::new(&plan, &flight);
        let mut mirror = reflector(false, Format::Ntp);
        let now = BEGIN_NS;
        for seq in 0..10 {
            // Two of them have had their time.
            let t1 = if seq < 4 { now - 2 * TIMEOUT_NS } else { now };
            let octets = request(&flight, seq, t1, false);
            if seq != 3 && seq < 6 {
                let octets = reply(&mut mirror, &octets, t1 + 10, Format::Ntp);
                bench.arrive(&octets, t1 + 1000);
            }
        }
        if interrupted {
            flight.sender().set_interrupted();
        }
        flight.sender().finish(10, 1000);
        for asked in 0..enough {
            if asked > 0 || !interrupted {
                assert!(bench.next(5000).is_some(), "{interrupted} {asked}");
            }
            bench.asked_to_end += 1;
        }
        assert_eq!(bench.next(5000), None);
        let (received, _) = bench.finish(10);
        assert!(received.cut_short);
        let counts = &received.counts;
        assert_eq!((counts.received, counts.unresolved), (5, 4));
    }
}

#[test]
fn replies_are_waited_for_from_when_their_packets_left() {
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(true), &flight);
    let last = 5000;
    for seq in 0..2 {
        request(&flight, seq, BEGIN_NS, true);
    }
    flight.sender().finish(2, last);
    assert_eq!(bench.next(last), Some(last + TIMEOUT_NS));
    let mut leaves = |left, waited| {
        bench.now = at(left, BEGIN_NS + waited);
        bench.departed(0, BEGIN_NS + waited);
        bench.next(last)
    };
    let left = last + 1_000_000;
    assert_eq!(leaves(left, TIMEOUT_NS / 2), Some(left + TIMEOUT_NS));
    // It does not go on for ever.
    let left = last + 7 * TIMEOUT_NS;
    assert_eq!(leaves(left, TIMEOUT_NS), Some(last + 2 * TIMEOUT_NS));
}

/// T1 is of the clock as it was, the stamp of the clock as it is.
#[test]
fn a_clock_that_is_set_makes_no_packet_wait() {
    const SECOND: i64 = 1_000_000_000;
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(true), &flight);
    let waits = |bench: &Bench<'_>| bench.side.facts().stamps.waits;
    request(&flight, 0, BEGIN_NS, true);
    bench.now = at(100, BEGIN_NS + 100);
    bench.departed(0, BEGIN_NS + SECOND);
    let (before, left_ns) = (waits(&bench), bench.side.own_time.left_ns());
    assert_eq!((before.count, left_ns), (1, 100));
    // It is set by an hour, and that is noticed after two stamps have come.
    bench.now = at(200, BEGIN_NS + 200);
    for seq in 1..3 {
        request(&flight, seq, BEGIN_NS, true);
        bench.departed(seq, BEGIN_NS + 3600 * SECOND);
    }
    assert_eq!(waits(&bench).count, 3);
    bench.side.on_clock_set(OwnStep {
        after_ns: BEGIN_NS + 200,
        until_ns: BEGIN_NS + 3600 * SECOND,
        by_ns: 3600 * SECOND,
    });
    assert_eq!(waits(&bench), before);
    assert_eq!(bench.side.own_time.left_ns(), left_ns);
    // Those that were under way say nothing either.
    bench.departed(0, BEGIN_NS + 3600 * SECOND);
    assert_eq!(waits(&bench), before);
}
