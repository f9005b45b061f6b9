//! Once a session runs, no thread of it allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mio::{Poll, Token, Waker};
use twamp_blast::config::{
    Departures, Direction, Dscp, End, Impairment, IoKind, Rate, ReflectorConfig, ServedConfig,
    SessionConfig, SizeClass, SizeProfile, Sizes, SocketOptions, WatchConfig,
};
use twamp_blast::engine::served::{Allowance, Reflectors, Served};
use twamp_blast::engine::{Agreed, Reflecting, Stop, Update, measure, open};
use twamp_blast::report::Security;
use twamp_blast::wire::protected::{self, Protection, SenderPacket, TestKeys};
use twamp_blast::wire::{ErrorEstimate, Format, Modes, Sid, TestFormat, Timestamp};
use zerocopy::{FromZeros, IntoBytes};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's allocations do not count: it shows progress.
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The thread that allocates first: that of the test harness, which writes a line where a test takes a
/// minute.
static HARNESS: AtomicUsize = AtomicUsize::new(0);

fn note() {
    // Each thread has its own at an address of its own.
    let thread = EXEMPT.try_with(|exempt| (exempt.get(), std::ptr::from_ref(exempt).addr()));
    let Ok((false, thread)) = thread else {
        return;
    };
    let (none, relaxed) = (0, Ordering::Relaxed);
    let first = HARNESS.compare_exchange(none, thread, relaxed, relaxed);
    if first.is_err_and(|harness| harness != thread) {
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
        io,
        ..SocketOptions::default()
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
    let config = session(reflecting.local()[0], io, threads, watch);
    let mut seen = Seen::default();
    let measured = measure(&config, Some(reflecting), &Stop::default(), |update| {
        seen.note(&update);
    })
    .unwrap();
    // A busy machine falls behind, and then some are not sent.
    let sent = measured.report.packets.sent;
    assert!(
        sent.is_some_and(|sent| (20_000..=40_000).contains(&sent)),
        "{sent:?}"
    );
    let apart = if threads > 1 { threads } else { 0 };
    assert_eq!(measured.parts.len(), apart);
    seen.between()
}

/// The same of protected packets, and a reflector on a thread that does not count.
fn run_protected(mode: Modes) -> (u64, u64) {
    let keys = TestKeys::new(&[1; 16], &[2; 32]);
    let format = TestFormat::new(mode, 0, [0; 2]).unwrap();
    let protection = Protection::new(format.protection().unwrap(), &keys);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let remote = socket.local_addr().unwrap();
    let reflector = thread::spawn(move || {
        EXEMPT.set(true);
        reflect(&socket, &protection);
    });
    let opened = open(vec![session(
        remote,
        IoKind::Batched,
        1,
        WatchConfig::default(),
    )]);
    let agreed = Agreed {
        remote,
        format,
        keys: Some(keys),
        sid: Sid([7; 16]),
        security: Security::Encrypted,
    };
    let mut seen = Seen::default();
    let watch = |update: Update| seen.note(&update);
    let measured = opened
        .unwrap()
        .measure(vec![agreed], &Stop::default(), watch);
    let report = measured.unwrap().report;
    assert_eq!(report.packets.sent, Some(40_000));
    assert!(report.packets.received > Some(2_000), "{:?}", report.notes);
    assert_eq!(report.packets.invalid, Some(0));
    let end = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    end.send_to(&[], remote).unwrap();
    reflector.join().unwrap();
    seen.between()
}

/// Answers until an empty datagram comes.
fn reflect(socket: &UdpSocket, protection: &Protection) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if len == 0 {
            return;
        }
        let mut reply = protected::ReflectorPacket::new_zeroed();
        let octets = &mut buffer[..len];
        protection.open::<SenderPacket>(octets, len, |_, request| {
            let request = request.expect("our keys");
            (reply.head, reply.sender) = (request.head, request.head);
            reply.receive_timestamp = request.head.timestamp;
        });
        let (step, t3) = (size_of_val(&reply), reply.head.timestamp);
        protection.prepare::<protected::ReflectorPacket>(reply.as_mut_bytes(), step);
        protection.stamp::<protected::ReflectorPacket>(reply.as_mut_bytes(), step, t3);
        // Whoever asked may have gone.
        let _ = socket.send_to(reply.as_bytes(), from);
    }
}

/// Progress of a run with the allocations so far.
#[derive(Default)]
struct Seen(Vec<(u64, u64)>);

impl Seen {
    fn note(&mut self, update: &Update) {
        let Update::Progress(now) = update else {
            return;
        };
        // A thread that is done with its share waits, and may allocate for that.
        if now.received > 2_000 && now.sent < 36_000 {
            self.0.push((now.sent, ALLOCATIONS.load(Ordering::Relaxed)));
        }
    }

    /// Allocations between two points of the run, and the packets sent between them.
    fn between(&self) -> (u64, u64) {
        let (first, last) = (self.0.first().unwrap(), self.0.last().unwrap());
        (last.1 - first.1, last.0 - first.0)
    }
}

fn session(remote: SocketAddr, io: IoKind, threads: usize, watch: WatchConfig) -> SessionConfig {
    let size = |payload, weight| SizeClass {
        payload,
        frame: payload + 42,
        weight,
    };
    SessionConfig {
        departures: Departures::Poisson("20k".parse().unwrap()),
        end: End {
            count: Some(40_000),
            duration_ns: None,
        },
        sizes: Sizes {
            profile: SizeProfile::Imix,
            classes: vec![size(112, 7), size(548, 4), size(1472, 1)],
        },
        timeout_ns: 2_000_000_000,
        socket: options(io),
        threads,
        watch,
        ..SessionConfig::new((Ipv4Addr::LOCALHOST, 0).into(), remote)
    }
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
    /// Rounds in which each request is answered, the limited ones by their first burst: after them each
    /// thread has begun, and knows its sessions, however late it was.
    const FIRST: usize = 50;
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
            replaces: None,
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
        if round == 2 * FIRST {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        for (client, request, mode) in &sessions {
            client.send(request).unwrap();
            // Not all of this one's are answered.
            if *mode != Modes::AUTHENTICATED || round < FIRST {
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
    for mode in [Modes::AUTHENTICATED, Modes::ENCRYPTED] {
        let (allocations, packets) = run_protected(mode);
        assert!(packets > 0, "two looks at the run of {mode} are needed");
        assert_eq!(allocations, 0, "{mode}, over {packets} packets");
    }
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
