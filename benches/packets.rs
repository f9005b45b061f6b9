//! What one packet costs at each stage that this program adds to the kernel's own path.
//!
//! `cargo bench --bench packets` prints them all; read them as proportions of each other and of the
//! 10 µs that lie between two packets at 100,000 a second.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use twamp_blast::sample::{Blocks, Pipe, Sample, pipe};
use twamp_blast::stats::delay::Delays;
use twamp_blast::stats::sequence::Tracker;
use twamp_blast::wire::{
    ErrorEstimate, Format, REFLECTOR_LEN, ReflectorPacket, Reply, ReplyHead, ReplyTail, SENDER_LEN,
    SenderPacket, Timestamp, parse_request,
};
use zerocopy::IntoBytes;

/// 2026-01-01 00:00:00.123456789 UTC.
const NOW_NS: i64 = 1_767_225_600_123_456_789;
/// Samples handled together, as they come out of the pipe.
const BLOCK: u32 = 256;
/// Between two packets at 100,000 a second.
const GAP_NS: i64 = 10_000;

fn estimate(format: Format) -> ErrorEstimate {
    ErrorEstimate::new(true, format, 1_000)
}

fn request() -> SenderPacket {
    SenderPacket {
        seq: 4_711.into(),
        timestamp: Timestamp::from_unix_ns(NOW_NS, Format::Ntp),
        error_estimate: estimate(Format::Ntp),
    }
}

fn reply() -> ReflectorPacket {
    let request = request();
    let head = ReplyHead {
        seq: request.seq,
        timestamp: Timestamp::from_unix_ns(NOW_NS + 20_000, Format::Ntp),
        error_estimate: request.error_estimate,
        mbz: [0; 2],
        receive_timestamp: Timestamp::from_unix_ns(NOW_NS + 5_000, Format::Ntp),
        sender_seq: request.seq,
        sender_timestamp: request.timestamp,
        sender_error_estimate: request.error_estimate,
    };
    let tail = ReplyTail {
        mbz: [0; 2],
        sender_ttl: 255,
    };
    ReflectorPacket { head, tail }
}

/// Octets on the wire: layouts and timestamps.
fn wire(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(1));

    let packet = request();
    let mut buffer = [0; SENDER_LEN];
    group.bench_function("write a request, T1 included", |b| {
        let mut seq = 0_u32;
        b.iter(|| {
            let packet = SenderPacket {
                seq: seq.into(),
                timestamp: Timestamp::from_unix_ns(black_box(NOW_NS), Format::Ntp),
                error_estimate: packet.error_estimate,
            };
            buffer.copy_from_slice(packet.as_bytes());
            seq = seq.wrapping_add(1);
            black_box(&buffer);
        });
    });

    group.bench_function("read a request", |b| {
        let octets = request();
        let octets = octets.as_bytes();
        b.iter(|| {
            let packet = parse_request(black_box(octets)).expect("a request");
            black_box((packet.seq.get(), packet.timestamp, packet.error_estimate));
        });
    });

    group.bench_function("read a reply, T2 and T3 included", |b| {
        let octets = reply();
        let octets = octets.as_bytes();
        assert_eq!(octets.len(), REFLECTOR_LEN);
        b.iter(|| {
            let reply = Reply::parse(black_box(octets)).expect("a reply");
            let head = reply.head;
            let format = head.error_estimate.format();
            let t2 = head.receive_timestamp.unix_ns(format, NOW_NS);
            let t3 = head.timestamp.unix_ns(format, NOW_NS);
            let numbers = (head.seq.get(), head.sender_seq.get());
            black_box((numbers, t2, t3, head.sender_timestamp, reply.sender_ttl));
        });
    });

    for (name, format) in [("NTP", Format::Ntp), ("PTP", Format::Ptp)] {
        group.bench_function(format!("nanoseconds to {name}"), |b| {
            b.iter(|| Timestamp::from_unix_ns(black_box(NOW_NS), format));
        });
        group.bench_function(format!("{name} to nanoseconds"), |b| {
            let timestamp = Timestamp::from_unix_ns(NOW_NS, format);
            b.iter(|| black_box(timestamp).unix_ns(format, black_box(NOW_NS)));
        });
    }
    group.finish();
}

/// The sample of packet `seq`, with delays that differ a little from packet to packet.
fn sample(seq: u64) -> Sample {
    let step = i64::try_from(seq).expect("few samples");
    let t1_ns = NOW_NS + step * GAP_NS;
    let wobble = step * 7_919 % 3_000;
    Sample {
        seq,
        t1_ns,
        t1_stamp_ns: Some(t1_ns + 1_500),
        t2_ns: t1_ns + 2_500 + wobble,
        t3_ns: t1_ns + 20_000 + wobble,
        t4_ns: t1_ns + 26_000 + 2 * wobble,
        size_class: 0,
    }
}

/// What the receiver and the stats thread do with each reply.
fn statistics(c: &mut Criterion) {
    let mut group = c.benchmark_group("statistics");
    group.throughput(Throughput::Elements(BLOCK.into()));

    group.bench_function("record samples, all four delays", |b| {
        let mut delays = Delays::new(1, false);
        let mut block: Vec<Sample> = (0..BLOCK).map(|seq| sample(seq.into())).collect();
        b.iter(|| {
            delays.record(black_box(&block));
            for sample in &mut block {
                sample.seq += u64::from(BLOCK);
            }
        });
        assert_eq!(delays.rejected(), 0);
    });

    group.bench_function("account for replies by sequence number", |b| {
        let mut tracker = Tracker::new(1 << 16);
        let (mut s, mut r) = (0_u64, 0_u32);
        b.iter(|| {
            tracker.make_room(s + u64::from(BLOCK));
            for _ in 0..BLOCK {
                black_box(tracker.on_reply(s, r, false));
                s += 1;
                r = r.wrapping_add(1);
            }
        });
        assert_eq!(tracker.received(), s);
    });
    group.finish();
}

/// Pushes a sample, and once more where there was no room: a benchmark may wait, a packet may not.
fn push(pipe: &mut Pipe, sample: Sample) {
    loop {
        let before = pipe.unrecorded();
        pipe.push(sample);
        if pipe.unrecorded() == before {
            return;
        }
        thread::yield_now();
    }
}

/// Sends `count` samples to another thread; the time until the last one has been seen there.
fn through_pipe(count: u64) -> Duration {
    fn read(blocks: &Blocks) -> u64 {
        let mut seen = 0;
        while blocks.next(|block| {
            seen += u64::try_from(black_box(block).len()).expect("a block");
        }) {}
        seen
    }
    let (mut pipe, blocks) = pipe();
    let reader = thread::spawn(move || read(&blocks));
    let one = sample(0);
    let start = Instant::now();
    for seq in 0..count {
        push(&mut pipe, Sample { seq, ..one });
    }
    let _ = pipe.finish();
    let seen = reader.join().expect("the reader ends");
    let took = start.elapsed();
    assert_eq!(seen, count);
    took
}

/// From the receiver thread to the stats thread.
fn channel(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipe");
    group.throughput(Throughput::Elements(BLOCK.into()));
    group.bench_function("samples from thread to thread", |b| {
        b.iter_custom(|blocks| through_pipe(blocks * u64::from(BLOCK)));
    });
    group.finish();
}

criterion_group!(benches, wire, statistics, channel);
criterion_main!(benches);
