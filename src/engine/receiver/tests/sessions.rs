//! Whole sessions over a path in memory.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use zerocopy::IntoBytes;

use super::super::side::Plan;
use super::{BEGIN_NS, Bench, plan, reflector, reply, request};
use crate::engine::flight::Flight;
use crate::engine::reflector::train::stamp;
use crate::wire::{ErrorEstimate, Format, Reading, ReplyHead, Timestamp};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn counts_and_delays_are_what_the_path_did(
        seed: u64, packets in 100_u64..2000, out_loss in 0.0..0.2, in_loss in 0.0..0.2, ptp: bool,
    ) {
        session(seed, packets, out_loss, in_loss, if ptp { Format::Ptp } else { Format::Ntp });
    }
}

/// A session over a path in memory: seeded loss, copies and reordering, and a clock of its own.
fn session(seed: u64, packets: u64, out_loss: f64, in_loss: f64, format: Format) {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let flight = Flight::new(packets, 0);
    let mut bench = Bench::new(&plan(false), &flight);
    let mut mirror = reflector(false, format);
    let mut replies = Vec::new();
    let (mut lost_out, mut lost_in, mut copies) = (0, 0, 0);
    for seq in 0..packets {
        let t1 = BEGIN_NS + i64::try_from(seq).unwrap() * 1000;
        let octets = request(&flight, seq, t1, false);
        if rng.random_bool(out_loss) {
            lost_out += 1;
            continue;
        }
        let octets = reply(&mut mirror, &octets, t1 + 10_000, format);
        if rng.random_bool(in_loss) {
            lost_in += 1;
            continue;
        }
        let t4 = t1 + 30_000 + rng.random_range(0..3000);
        if rng.random_bool(0.05) {
            copies += 1;
            replies.push((t4 + 100, octets.clone()));
        }
        replies.push((t4, octets));
    }
    replies.sort();
    for (t4, octets) in &replies {
        bench.arrive(octets, *t4);
    }
    flight.sender().finish(packets, 0);
    // The probes that follow a session: one answer alone may repeat the last number by chance, where
    // that packet was the only one lost outbound.
    for index in 0..2_usize {
        let t1 = BEGIN_NS + 2_000_000_000 + i64::try_from(index).unwrap() * 1000;
        let raw = Timestamp::from_unix_ns(t1, Format::Ntp).raw();
        let last = request(&Flight::new(packets, 0), packets - 1, t1, false);
        flight.sender().note_probe(index, raw);
        let last = reply(&mut mirror, &last, t1 + 10, format);
        bench.arrive(&last, t1 + 20);
    }

    let (received, heard) = bench.finish(packets);
    let recorded: u64 = heard
        .samples
        .iter()
        .map(|sample| u64::from(sample.count))
        .sum();
    let counts = &received.counts;
    let found = counts.directions.unwrap();
    assert_eq!(counts.received, packets - lost_out - lost_in);
    assert_eq!(
        (found.lost_outbound, found.lost_inbound),
        (lost_out, lost_in)
    );
    assert_eq!(
        (counts.duplicates, found.duplicates_inbound),
        (copies, copies)
    );
    assert_eq!(found.reordered_outbound, 0);
    assert_eq!(received.facts.ignored.total(), 0);
    let report = heard.delays();
    assert_eq!(recorded, counts.received);
    let outbound = report.outbound.unwrap();
    assert_eq!((outbound.min, outbound.max), (10_000, 10_000));
    let roundtrip = report.roundtrip.unwrap();
    assert!(
        (29_500..33_500).contains(&roundtrip.min),
        "{}",
        roundtrip.min
    );
}

/// Of 200 replies 46 have fractions that could be nanoseconds as well, the first ones among them: read
/// one by one, they were in another format than the rest, and the outbound delay was 29 ms in some
/// and 24,143 days in others.
#[test]
fn a_session_has_one_format_of_t2_and_t3() {
    const OUTBOUND_NS: i64 = 29_000_000;
    // Some 10 packets a second, not in step with the seconds; the first fractions are low.
    let t1_of = |seq: i64| BEGIN_NS - 500_000_000 + seq * 99_000_000;
    let flight = Flight::new(1024, 0);
    let mut bench = Bench::new(&plan(false), &flight);
    let mut mirror = reflector(false, Format::Ntp);
    let mut could_be_ns = 0;
    for seq in 0..200 {
        let t1 = t1_of(i64::try_from(seq).unwrap());
        let t2 = unix_seconds(t1 + OUTBOUND_NS);
        let octets = request(&flight, seq, t1, false);
        let mut octets = reply(&mut mirror, &octets, 0, Format::Ntp);
        octets[16..24].copy_from_slice(t2.as_bytes());
        stamp(&mut octets, t2);
        could_be_ns += u32::from(t2.raw() & 0xffff_ffff < 1_000_000_000);
        bench.arrive(&octets, t1 + 2 * OUTBOUND_NS);
    }
    assert_eq!(could_be_ns, 46);
    let (received, heard) = bench.finish(200);
    assert_eq!(
        received.facts.times.rejected + received.facts.times.untold,
        0
    );
    assert_eq!(received.facts.times.readings, [Reading::UnixFraction]);
    let outbound = heard.delays().outbound.unwrap();
    assert_eq!(outbound.samples, 200);
    assert_eq!((outbound.min, outbound.max), (OUTBOUND_NS, OUTBOUND_NS));
}

/// T2 and T3 as a quirk of some peers has them: the seconds of a Unix clock, the fraction of NTP.
fn unix_seconds(ns: i64) -> Timestamp {
    let ntp = Timestamp::from_unix_ns(ns, Format::Ntp).raw();
    Timestamp::from_raw(ntp.wrapping_sub(2_208_988_800 << 32))
}

#[test]
fn t1_is_ours_whatever_the_echoed_error_estimate_says() {
    let flight = Flight::new(64, 0);
    let plan = Plan {
        format: Format::Ptp,
        ..plan(false)
    };
    let mut bench = Bench::new(&plan, &flight);
    for seq in 0..20_u32 {
        let t1_ns = BEGIN_NS + i64::from(seq) * 50_000_000;
        let t1 = Timestamp::from_unix_ns(t1_ns, Format::Ptp);
        flight.sender().note(seq.into(), 1, t1.raw(), 0, false);
        flight.sender().attempt(u64::from(seq) + 1);
        // Older reflectors clear the Z bit, which was once reserved.
        let head = ReplyHead {
            seq: seq.into(),
            timestamp: Timestamp::from_unix_ns(t1_ns + 600, Format::Ntp),
            error_estimate: ErrorEstimate::UNKNOWN,
            mbz: [0; 2],
            receive_timestamp: Timestamp::from_unix_ns(t1_ns + 500, Format::Ntp),
            sender_seq: seq.into(),
            sender_timestamp: t1,
            sender_error_estimate: ErrorEstimate::from_raw(1),
        };
        let octets = [head.as_bytes(), &[0, 0, 255]].concat();
        bench.arrive(&octets, t1_ns + 1000);
    }
    let (received, heard) = bench.finish(20);
    assert_eq!(
        (received.counts.received, received.facts.times.rejected),
        (20, 0)
    );
    assert_eq!(heard.delays().roundtrip.unwrap().max, 900);
}
