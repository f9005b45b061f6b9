//! Once a session runs, no thread of it allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::{Poll, Token, Waker};
use twamp_blast::config::{
    Burst, Departures, Direction, Dscp, End, Impairment, IoKind, Pacing, Rate, ReflectorConfig,
    ServedConfig, SessionConfig, SizeClass, SizeProfile, Sizes, SocketOptions, WatchConfig,
};
use twamp_blast::engine::served::{Allowance, Reflectors, Served};
use twamp_blast::engine::{Reflecting, Stop, Update, measure};
use twamp_blast::wire::protected::{Protection, SenderPacket, TestKeys};
use twamp_blast::wire::{ErrorEstimate, Format, Modes, TestFormat, Timestamp};
use zerocopy::IntoBytes;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's allocations do not count: it shows progress.
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note() {
    if !EXEMPT.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn options(io: IoKind) -> SocketOptions {
    SocketOptions {
        tos: 0,
        ttl: 255,
        do_not_fragment: false,
        interface: None,
        hardware: false,
        busy_poll_us: None,
        io,
    }
}

/// All that test mode can do.
fn impaired(direction: Direction) -> Impairment {
    let percent = |text: &str| text.parse().unwrap();
    Impairment {
        direction,
        drop: percent("1"),
        duplicate: percent("5"),
        reorder: percent("5"),
        delay: percent("50"),
        corrupt: percent("1"),
        delay_ns: (1, 50_000_000),
        rate_limit: Some("1M".parse().unwrap()),
        seed: 1,
    }
}

/// Runs a session against a reflector in this process; returns the allocations of all threads but
/// this one between two points of the run, and the packets sent between them.
fn run(
    io: IoKind,
    impairment: Option<Impairment>,
    threads: usize,
    watch: WatchConfig,
) -> (u64, u64) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let reflector = ReflectorConfig {
        listen: vec![any],
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        stateless: false,
        session_timeout_ns: 0,
        dscp: None,
        format: Format::Ntp,
        socket: options(io),
        threads: 1,
        cpus: None,
        impairment,
        watch: false,
    };
    let reflecting = Reflecting::start(&reflector, &Stop::default()).unwrap();
    let size = |payload, weight| SizeClass {
        payload,
        frame: payload + 42,
        weight,
    };
    let config = SessionConfig {
        remote: reflecting.local()[0],
        local: any,
        departures: Departures::Poisson("20k".parse().unwrap()),
        end: End {
            count: Some(40_000),
            duration_ns: None,
        },
        sizes: Sizes {
            profile: SizeProfile::Imix,
            classes: vec![size(22, 7), size(548, 4), size(1472, 1)],
        },
        seed: 1,
        timeout_ns: 2_000_000_000,
        loss_bound: None,
        format: Format::Ntp,
        socket: options(io),
        pacing: Pacing::Auto,
        txtime: threads > 1,
        realtime: false,
        cpus: None,
        burst: Burst::Auto,
        threads,
        first_seq: 0,
        watch,
    };
    let mut seen: Vec<(u64, u64)> = Vec::new();
    let measured = measure(&config, Some(reflecting), &Stop::default(), |update| {
        let Update::Progress(now) = update else {
            return;
        };
        // A thread that is done with its share waits, and may allocate for that.
        if now.received > 2_000 && now.sent < 36_000 {
            seen.push((now.sent, ALLOCATIONS.load(Ordering::Relaxed)));
        }
    })
    .unwrap();
    assert_eq!(measured.report.packets.sent, Some(40_000));
    let apart = if threads > 1 { threads } else { 0 };
    assert_eq!(measured.threads.len(), apart);
    let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
    (last.1 - first.1, last.0 - first.0)
}

/// A request with the octets of its padding.
fn request(format: &TestFormat, keys: &TestKeys) -> Vec<u8> {
    let plain = twamp_blast::wire::SenderPacket {
        seq: 7.into(),
        timestamp: Timestamp::from_raw(1 << 40),
        error_estimate: ErrorEstimate::UNKNOWN,
    };
    let mut octets = vec![0; 200];
    match format.protection() {
        None => octets[..14].copy_from_slice(plain.as_bytes()),
        Some(mode) => {
            octets[..48].copy_from_slice(SenderPacket::from(plain).as_bytes());
            let protection = Protection::new(mode, keys);
            protection.prepare::<SenderPacket>(&mut octets, 200);
            protection.stamp::<SenderPacket>(&mut octets, 200, plain.timestamp);
        }
    }
    octets
}

/// Has sessions of a Server answered, of each mode one; returns the allocations of all threads but
/// this one meanwhile.
fn serve(io: IoKind) -> u64 {
    const ROUNDS: usize = 2_000;
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let config = ServedConfig {
        socket: options(io),
        threads: 2,
        cpus: None,
    };
    let stop = Stop::default();
    let mut reflectors = Reflectors::start(&config, &stop, &waker).unwrap();
    let keys = TestKeys::new(&[1; 16], &[2; 32]);
    let allowance = Arc::new(Allowance::new(
        Rate::from_per_second(1_000),
        Some(1_000_000),
    ));
    let mut sessions = Vec::new();
    for mode in [
        Modes::UNAUTHENTICATED,
        Modes::AUTHENTICATED,
        Modes::ENCRYPTED,
    ] {
        let format = TestFormat::new(mode, 0, [0; 2]).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let session = Served {
            sender: client.local_addr().unwrap(),
            receiver: Ipv4Addr::LOCALHOST.into(),
            format,
            keys: Some(keys.clone()),
            dscp: Dscp::new(46).unwrap(),
            timestamps: Format::Ptp,
            refwait_ns: 60_000_000_000,
            allowance: match mode {
                Modes::AUTHENTICATED => Arc::clone(&allowance),
                _ => Arc::new(Allowance::new(None, None)),
            },
        };
        let (id, port) = reflectors.add(session, [0]).unwrap();
        reflectors.run(id);
        client.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let patience = Duration::from_secs(20);
        client.set_read_timeout(Some(patience)).unwrap();
        sessions.push((client, request(&format, &keys), mode));
    }
    let mut before = 0;
    for round in 0..ROUNDS {
        if round == 100 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        for (client, request, mode) in &sessions {
            client.send(request).unwrap();
            // Not all of this one's are answered.
            if *mode != Modes::AUTHENTICATED {
                client.recv(&mut [0; 256]).unwrap();
            }
        }
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    stop.request();
    reflectors.wait().unwrap();
    allocations
}

#[test]
fn no_thread_allocates_while_packets_flow() {
    EXEMPT.set(true);
    for io in [IoKind::Batched, IoKind::Portable] {
        for impairment in [
            None,
            Some(impaired(Direction::Inbound)),
            Some(impaired(Direction::Outbound)),
        ] {
            let what = format!("{io:?} {impairment:?}");
            let (allocations, packets) = run(io, impairment, 1, WatchConfig::default());
            assert!(packets > 0, "{what}: two looks at the run are needed");
            assert_eq!(allocations, 0, "{what}, over {packets} packets");
        }
    }
    let (allocations, packets) = run(IoKind::Batched, None, 2, WatchConfig::default());
    assert!(packets > 0, "two looks at the run of two pairs are needed");
    assert_eq!(allocations, 0, "two pairs, over {packets} packets");
    // Who watches allocates nothing on the packet threads either.
    let watch = WatchConfig {
        happenings: true,
        interval_ns: None,
        packets: true,
    };
    let (allocations, packets) = run(IoKind::Batched, None, 1, watch);
    assert!(packets > 0, "two looks at the watched run are needed");
    assert_eq!(allocations, 0, "watched, over {packets} packets");
    for io in [IoKind::Batched, IoKind::Portable] {
        assert_eq!(serve(io), 0, "sessions of a Server, {io:?}");
    }
}
