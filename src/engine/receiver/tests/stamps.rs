//! Transmit timestamps find their packets.

use zerocopy::IntoBytes;

use super::{BEGIN_NS, Bench, TIMEOUT_NS, packet, plan, reflector, reply, request};
use crate::engine::flight::Flight;
use crate::sample::Sample;
use crate::wire::{Format, Timestamp};

#[test]
fn a_stamp_finds_its_sample_whether_it_comes_before_or_after() {
    let flight = Flight::new(64, 0);
    let mut bench = Bench::new(&plan(true), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    for (seq, stamp_first) in [(0, true), (1, false), (2, true)] {
        let t1 = BEGIN_NS + i64::try_from(seq).unwrap() * 1000;
        let octets = request(&flight, seq, t1, true);
        let octets = reply(&mut mirror, &octets, t1 + 10, Format::Ntp);
        if stamp_first {
            bench.departed(seq, t1 + 3);
        }
        bench.arrive(&octets, t1 + 1000);
        if !stamp_first {
            bench.departed(seq, t1 + 3);
        }
    }
    let (received, heard) = bench.finish(3);
    assert_eq!(received.facts.stamps.back, 3);
    assert_eq!(heard.samples.len(), 3);
    for sample in heard.samples {
        assert_eq!(sample.t1_stamp_ns, Some(sample.t1_ns + 3));
    }
}

/// The timeout is the path's: what waited in this host has it from then on.
#[test]
fn the_timeout_begins_when_a_packet_left() {
    for (stamped, stamp_comes, waited, took, in_time) in [
        (true, true, 0, TIMEOUT_NS - 1, true),
        (true, true, 0, TIMEOUT_NS + 1, false),
        (true, true, 2 * TIMEOUT_NS, TIMEOUT_NS - 1, true),
        (true, true, 2 * TIMEOUT_NS, TIMEOUT_NS + 1, false),
        // Nobody knows.
        (true, false, 2 * TIMEOUT_NS, 1000, false),
        (false, false, 2 * TIMEOUT_NS, 1000, false),
    ] {
        let flight = Flight::new(64, 0);
        let mut bench = Bench::new(&plan(true), &flight);
        let mut mirror = reflector(false, Format::Ntp);
        let octets = request(&flight, 0, BEGIN_NS, stamped);
        let left = BEGIN_NS + waited;
        if stamp_comes {
            bench.departed(0, left);
        }
        let octets = reply(&mut mirror, &octets, left + 10, Format::Ntp);
        bench.arrive(&octets, left + took);
        let (received, heard) = bench.finish(1);
        let counts = (received.counts.received, received.counts.late);
        let late = u64::from(!in_time);
        assert_eq!(counts, (1 - late, late), "{stamped} {waited} {took}");
        let waits = u64::from(stamp_comes && waited > 0);
        assert_eq!(received.facts.stamps.waits.count, waits);
        let roundtrip = heard.delays().roundtrip.map(|delay| delay.max);
        assert_eq!(roundtrip, in_time.then_some(took - 500));
    }
}

#[test]
fn packets_that_were_written_together_have_a_stamp_each() {
    // Two trains of two granules, filled at one moment: they carry one T1.
    let flight = Flight::new(64, 1);
    let t1 = Timestamp::from_unix_ns(BEGIN_NS, Format::Ntp);
    flight.sender().note(0, 4, t1.raw(), 0, true);
    flight.sender().note(4, 4, t1.raw(), 0, true);
    flight.sender().attempt(8);
    let mut bench = Bench::new(&plan(true), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    for seq in 0..8_u32 {
        let octets = packet(seq, t1);
        let octets = reply(&mut mirror, octets.as_bytes(), BEGIN_NS + 9, Format::Ntp);
        bench.arrive(&octets, BEGIN_NS + 1000);
    }
    // Of the second train none comes back.
    let ns = BEGIN_NS + 3;
    bench.departed(0, ns);
    let (_, heard) = bench.finish(8);
    let samples = heard.samples.iter();
    let mut stamps: Vec<_> = samples.map(|one| (one.seq, one.t1_stamp_ns)).collect();
    stamps.sort_unstable();
    let own = |seq| (seq, (seq < 4).then_some(ns));
    assert_eq!(stamps, (0..8).map(own).collect::<Vec<_>>());
}

#[test]
fn packets_of_refused_trains_have_room_for_a_stamp_each() {
    let flight = Flight::new(1024, 3);
    let mut bench = Bench::new(&plan(true), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    flight.sender().note(0, 8, 0, 0, true);
    flight.sender().attempt(8);
    bench.departed(0, 7);
    flight.sender().take_apart(8);
    let mut leave = |seq: u64| {
        let t1 = BEGIN_NS + i64::try_from(seq).unwrap();
        let octets = request(&flight, seq, t1, true);
        bench.departed(seq, t1 + 3);
        (reply(&mut mirror, &octets, t1 + 10, Format::Ntp), t1 + 1000)
    };
    // The stamps of all come before the first reply does.
    let replies: Vec<_> = (8..1000).map(&mut leave).collect();
    for (octets, t4) in &replies {
        bench.arrive(octets, *t4);
    }
    let known = bench.side.stamps.of(0);
    assert_eq!(known, Some(7), "what was known stays known");
    let (_, heard) = bench.finish(1000);
    let own = |sample: &&Sample| sample.t1_stamp_ns == Some(sample.t1_ns + 3);
    assert_eq!(heard.samples.iter().filter(own).count(), 992);
}
