//! What one packet costs at each stage that this program adds to the kernel's own path.
//!
//! `cargo bench --bench packets` prints nanoseconds a packet and packets a second, also where a stage
//! works on many packets at once. Read them as proportions of each other and of the time between two
//! packets: 10 µs at 100,000 a second, 1 µs at a million. Singles are packets as they are sent at the
//! first of these rates, trains as at the second.

#![allow(clippy::disallowed_methods, reason = "a benchmark takes times")]

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use twamp_blast::sample::{Blocks, Pipe, Sample, pipe};
use twamp_blast::stats::delay::{Delays, Distribution};
use twamp_blast::stats::sequence::Tracker;
use twamp_blast::wire::protected::{self, Mode, Protection, TestKeys};
use twamp_blast::wire::{
    ErrorEstimate, Format, Modes, REFLECTOR_LEN, ReflectorPacket, Reply, ReplyHead, ReplyTail,
    SENDER_LEN, SenderPacket, TestFormat, Timestamp, parse_request,
};
use zerocopy::IntoBytes;

/// 2026-01-01 00:00:00.123456789 UTC.
const NOW_NS: i64 = 1_767_225_600_123_456_789;
/// Samples handled together, as they come out of the pipe.
const BLOCK: u32 = 256;
/// Packets of a train.
const TRAIN: u32 = 32;
/// Between two packets at 100,000 a second, and at a million.
const GAP_NS: i64 = 10_000;
const TRAIN_GAP_NS: i64 = 1_000;

/// Measures a stage that works on `packets` packets at a time; `run` runs it so many times and says
/// how long it took. For Criterion one packet is one iteration, so that it prints time a packet.
fn a_packet(b: &mut Bencher<'_>, packets: u64, mut run: impl FnMut(u64) -> Duration) {
    b.iter_custom(|wanted| {
        let times = wanted.div_ceil(packets);
        run(times).mul_f64(wanted as f64 / (times * packets) as f64)
    });
}

/// How long a stage takes so many times.
fn took(times: u64, mut stage: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        stage();
    }
    start.elapsed()
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group
}

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

/// What a reflector reads of a request, and a receiver of a reply.
fn parse(c: &mut Criterion) {
    let mut group = group(c, "parse");

    group.bench_function("request", |b| {
        let octets = request();
        let octets = octets.as_bytes();
        b.iter(|| {
            let packet = parse_request(black_box(octets)).expect("a request");
            black_box((packet.seq.get(), packet.timestamp, packet.error_estimate));
        });
    });

    group.bench_function("reply, T2 and T3 converted", |b| {
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
    group.finish();
}

/// The formats on the wire and nanoseconds.
fn timestamps(c: &mut Criterion) {
    let mut group = group(c, "timestamps");
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

/// The packets of a train, written and read in place.
trait Train {
    /// Requests with their T1.
    fn build_requests(&self, train: &mut [u8]);
    fn open_requests(&self, train: &mut [u8]);
    /// Replies over requests, with their T3.
    fn build_replies(&self, train: &mut [u8]);
    fn open_replies(&self, train: &mut [u8]);
}

/// From one packet to the next: as long as a protected request with 64 octets of padding, and its
/// reply.
const STEP: usize = protected::REFLECTOR_LEN;

fn numbered(train: &mut [u8]) -> impl Iterator<Item = (u32, &mut [u8])> {
    (0..).zip(train.chunks_exact_mut(STEP))
}

struct Unauthenticated;

impl Train for Unauthenticated {
    fn build_requests(&self, train: &mut [u8]) {
        let head = request();
        for (seq, packet) in numbered(train) {
            let seq = seq.into();
            packet[..SENDER_LEN].copy_from_slice(SenderPacket { seq, ..head }.as_bytes());
        }
    }

    fn open_requests(&self, train: &mut [u8]) {
        for packet in train.chunks_exact(STEP) {
            black_box(*parse_request(packet).expect("a request"));
        }
    }

    fn build_replies(&self, train: &mut [u8]) {
        let mut reply = reply();
        for (seq, packet) in numbered(train) {
            reply.head.seq = seq.into();
            let len = TestFormat::LIGHT.write_reply(packet, 0, STEP, 0, reply.as_bytes());
            assert_eq!(len, Some(STEP));
        }
    }

    fn open_replies(&self, train: &mut [u8]) {
        for packet in train.chunks_exact(STEP) {
            let reply = Reply::parse(packet).expect("a reply");
            black_box((*reply.head, reply.sender_ttl));
        }
    }
}

impl Train for Protection {
    fn build_requests(&self, train: &mut [u8]) {
        let head = request();
        for (seq, packet) in numbered(train) {
            let seq = seq.into();
            let request = protected::SenderPacket::from(SenderPacket { seq, ..head });
            packet[..protected::SENDER_LEN].copy_from_slice(request.as_bytes());
        }
        self.prepare::<protected::SenderPacket>(train, STEP);
        self.stamp::<protected::SenderPacket>(train, STEP, head.timestamp);
    }

    fn open_requests(&self, train: &mut [u8]) {
        self.open::<protected::SenderPacket>(train, STEP, |_, packet| {
            black_box(packet.expect("a request").plain());
        });
    }

    fn build_replies(&self, train: &mut [u8]) {
        let mut reply = reply();
        // Modes that protect have one layout.
        let format = TestFormat::new(Modes::ENCRYPTED, 0, [0; 2]).expect("a mode");
        for (seq, packet) in numbered(train) {
            reply.head.seq = seq.into();
            let protected = protected::ReflectorPacket::from(reply);
            let len = format.write_reply(packet, 0, STEP, 0, protected.as_bytes());
            assert_eq!(len, Some(STEP));
        }
        self.prepare::<protected::ReflectorPacket>(train, STEP);
        self.stamp::<protected::ReflectorPacket>(train, STEP, reply.head.timestamp);
    }

    fn open_replies(&self, train: &mut [u8]) {
        self.open::<protected::ReflectorPacket>(train, STEP, |_, packet| {
            black_box(packet.expect("a reply").plain());
        });
    }
}

/// Test packets of each mode, alone, as many as a reflector sends in one call, and many.
fn modes(c: &mut Criterion) {
    let keys = TestKeys::new(&[7; 16], &[8; 32]);
    let authenticated = Protection::new(Mode::Authenticated, &keys);
    let encrypted = Protection::new(Mode::Encrypted, &keys);
    let modes: [(&str, &dyn Train); 3] = [
        ("unauthenticated", &Unauthenticated),
        ("authenticated", &authenticated),
        ("encrypted", &encrypted),
    ];
    for (name, mode) in modes {
        let mut group = group(c, name);
        for count in [1, 4, 64] {
            let packets = u64::try_from(count).expect("few packets");
            let mut train = vec![0; count * STEP];
            group.bench_function(format!("build requests, {count} together"), |b| {
                a_packet(b, packets, |times| {
                    took(times, || mode.build_requests(black_box(&mut train)))
                });
            });
            mode.build_requests(&mut train);
            let came = train.clone();
            group.bench_function(format!("open requests, {count} together"), |b| {
                a_packet(b, packets, |times| {
                    took(times, || {
                        // What is opened is changed. The copy is a small part of the time.
                        train.copy_from_slice(black_box(&came));
                        mode.open_requests(black_box(&mut train));
                    })
                });
            });
            group.bench_function(format!("build replies, {count} together"), |b| {
                a_packet(b, packets, |times| {
                    took(times, || mode.build_replies(black_box(&mut train)))
                });
            });
            mode.build_replies(&mut train);
            let came = train.clone();
            group.bench_function(format!("open replies, {count} together"), |b| {
                a_packet(b, packets, |times| {
                    took(times, || {
                        train.copy_from_slice(black_box(&came));
                        mode.open_replies(black_box(&mut train));
                    })
                });
            });
        }
        group.finish();
    }
}

/// What the packet threads do between their system calls.
#[cfg(target_os = "linux")]
fn packet_threads(c: &mut Criterion) {
    use twamp_blast::engine::stages::{self, Load};

    let singles = Load {
        payload: 41,
        burst: 1,
        gap_ns: GAP_NS,
        stamp_one_in: 16,
    };
    let trains = Load {
        burst: TRAIN,
        gap_ns: TRAIN_GAP_NS,
        stamp_one_in: 256,
        ..singles
    };
    let loads = [("singles", singles), ("trains of 32", trains)];

    // T1 from the clock, into the prebuilt packet or train.
    let mut build = group(c, "build");
    for (name, load) in loads {
        build.bench_function(name, |b| {
            let run = |sending: &mut stages::Sending<'_>| {
                a_packet(b, load.burst.into(), |times| {
                    took(times, || {
                        black_box(sending.build());
                    })
                });
            };
            stages::sending(load, run).expect("a socket on loopback");
        });
    }
    build.finish();

    // Under way before the call that sends, counted after it.
    let mut books = group(c, "send bookkeeping");
    for (name, load) in loads {
        books.bench_function(name, |b| {
            let run = |sending: &mut stages::Sending<'_>| {
                a_packet(b, load.burst.into(), |times| {
                    took(times, || sending.keep_books())
                });
            };
            stages::sending(load, run).expect("a socket on loopback");
        });
    }
    books.finish();

    // Control messages of a batch that was received, and where each packet of a bundle stands.
    let mut split = group(c, "split");
    for (name, load) in loads {
        split.bench_function(name, |b| {
            let mut splitting = stages::splitting(load).expect("datagrams over loopback");
            let packets = splitting.split(|octets, _| assert_eq!(octets.len(), load.payload));
            assert_eq!(packets, 32);
            a_packet(b, 32, |times| {
                took(times, || {
                    splitting.split(|octets, arrived_ns| {
                        black_box((octets, arrived_ns));
                    });
                })
            });
        });
    }
    split.finish();

    // A reply with what was sent and with its transmit stamp, to a sample; parsing is part of it.
    let mut matched = group(c, "match");
    for (name, load) in loads {
        matched.bench_function(name, |b| {
            stages::matching(load, |matching| {
                let packets = matching.prepare();
                matching.take();
                a_packet(b, packets, |times| {
                    let mut all = Duration::ZERO;
                    for _ in 0..times {
                        matching.drain();
                        matching.prepare();
                        all += took(1, || matching.take());
                    }
                    all
                });
                matching.drain();
            });
        });
    }
    matched.finish();
}

#[cfg(not(target_os = "linux"))]
fn packet_threads(_: &mut Criterion) {}

/// The part of matching that counts.
fn sequence(c: &mut Criterion) {
    let mut group = group(c, "match by sequence number alone");
    group.bench_function("singles", |b| {
        let mut tracker = Tracker::new(1 << 16);
        let (mut s, mut r) = (0_u64, 0_u32);
        a_packet(b, BLOCK.into(), |times| {
            took(times, || {
                tracker.make_room(s + u64::from(BLOCK));
                for _ in 0..BLOCK {
                    black_box(tracker.on_reply(s, r, false));
                    s += 1;
                    r = r.wrapping_add(1);
                }
            })
        });
        assert_eq!(tracker.received(), s);
    });
    group.finish();
}

/// The sample of packet `seq`, with delays that differ a little from packet to packet or, in a train,
/// from train to train: its packets share their timestamps.
fn sample(seq: u64, gap_ns: i64, burst: u32) -> Sample {
    let seq = i64::try_from(seq).expect("few samples");
    let step = seq / i64::from(burst);
    let t1_ns = NOW_NS + step * gap_ns * i64::from(burst);
    let wobble = step * 7_919 % 3_000;
    Sample {
        seq: seq.unsigned_abs(),
        t1_ns,
        t1_stamp_ns: Some(t1_ns + 1_500),
        t2_ns: t1_ns + 2_500 + wobble,
        t3_ns: t1_ns + 20_000 + wobble,
        t4_ns: t1_ns + 26_000 + 2 * wobble,
        size_class: 0,
        count: 1,
    }
}

fn block(gap_ns: i64, burst: u32) -> Vec<Sample> {
    (0..BLOCK)
        .map(|seq| sample(seq.into(), gap_ns, burst))
        .collect()
}

/// Its name, a distribution of its kind, and the delay of a sample.
type Direction = (&'static str, fn() -> Distribution, fn(&Sample) -> i64);

/// What the stats thread does with each sample: moments, histogram, bins, jitter, IPDV.
fn record(c: &mut Criterion) {
    let mut group = group(c, "record");
    let loads = [
        ("singles", GAP_NS, 1),
        ("trains of 32", TRAIN_GAP_NS, TRAIN),
    ];

    let directions: [Direction; 4] = [
        ("roundtrip", Distribution::from_zero, |s| {
            s.t4_ns - s.t1_ns - (s.t3_ns - s.t2_ns)
        }),
        ("outbound", Distribution::with_unknown_offset, |s| {
            s.t2_ns - s.t1_ns
        }),
        ("inbound", Distribution::with_unknown_offset, |s| {
            s.t4_ns - s.t3_ns
        }),
        ("reflector", Distribution::from_zero, |s| s.t3_ns - s.t2_ns),
    ];
    for (name, new, delay) in directions {
        for (load, gap_ns, burst) in loads {
            group.bench_function(format!("{name}, {load}"), |b| {
                let values: Vec<i64> = block(gap_ns, burst).iter().map(delay).collect();
                let mut distribution = new();
                let mut seq = 0;
                a_packet(b, BLOCK.into(), |times| {
                    took(times, || {
                        for value in black_box(&values) {
                            distribution.record(seq, *value);
                            seq += 1;
                        }
                    })
                });
                assert!(distribution.report().is_some());
            });
        }
    }

    for (load, gap_ns, burst) in loads {
        group.bench_function(format!("all four, {load}"), |b| {
            let mut delays = Delays::new(1, false);
            let mut block = block(gap_ns, burst);
            a_packet(b, BLOCK.into(), |times| {
                took(times, || {
                    delays.record(black_box(&block));
                    for sample in &mut block {
                        sample.seq += u64::from(BLOCK);
                    }
                })
            });
            assert_eq!(delays.rejected(), 0);
        });
    }
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
        while blocks.next(|block, _| {
            seen += u64::try_from(black_box(block).len()).expect("a block");
        }) {}
        seen
    }
    let (mut pipe, blocks) = pipe();
    let reader = thread::spawn(move || read(&blocks));
    let one = sample(0, GAP_NS, 1);
    let start = Instant::now();
    for seq in 0..count {
        push(&mut pipe, Sample { seq, ..one });
    }
    let _ = pipe.finish(None);
    let seen = reader.join().expect("the reader ends");
    let took = start.elapsed();
    assert_eq!(seen, count);
    took
}

/// From the receiver thread to the stats thread.
fn channel(c: &mut Criterion) {
    let mut group = group(c, "pipe");
    group.bench_function("samples from thread to thread", |b| {
        a_packet(b, BLOCK.into(), |times| {
            through_pipe(times * u64::from(BLOCK))
        });
    });
    group.finish();
}

criterion_group!(
    benches,
    packet_threads,
    parse,
    timestamps,
    modes,
    sequence,
    record,
    channel
);
criterion_main!(benches);
