//! Single stages of a packet's way, for `benches/packets.rs`: what the packet threads call for each
//! packet, without the kernel in between. The program itself does not use this.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::bounded;
use nix::sys::socket::{setsockopt, sockopt};
use zerocopy::IntoBytes;

use super::flight::Flight;
use super::intervals::Counts;
use super::receiver::{self, Buffers, Now, Outlet, Pipes, ReceiverSide};
use super::schedule::Schedule;
use super::sender::{self, Due, SenderThread};
use super::sockets::socket_plan;
use crate::config::{Departures, End, Pacing, SizeClass, SocketOptions};
use crate::io::{BATCH, Datagram, Event, SocketPlan, linux};
use crate::os::{self, EventLoop};
use crate::sample::{Blocks, Record as _, Sample, pipe};
use crate::wire::{
    ErrorEstimate, Format, REFLECTOR_LEN, ReflectorPacket, ReplyHead, ReplyTail, TestFormat,
    Timestamp, fill_padding,
};

/// Packets that are prepared and then matched together.
const MATCHED: u64 = 1024;
/// Packets under way that are kept.
const WINDOW: u64 = 1 << 16;
/// Datagrams on loopback are there within this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Packets of one bench.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// UDP payload in octets, at least a reply's 41.
    pub payload: usize,
    /// Packets of a train, a power of two up to 64; 1: packets leave one by one.
    pub burst: u32,
    /// Between two packets.
    pub gap_ns: i64,
    /// Two packets or trains in so many ask for a transmit stamp.
    pub stamp_one_in: u64,
}

impl Load {
    fn packets(self) -> u64 {
        self.burst.into()
    }

    /// Octets of a train.
    fn octets(self) -> usize {
        self.payload * usize::try_from(self.burst).unwrap_or(1)
    }

    fn stamped(self, seq: u64) -> bool {
        seq / self.packets() % self.stamp_one_in < 2
    }

    fn flight(self) -> Flight {
        let flight = Flight::new(WINDOW, self.burst.trailing_zeros());
        flight.sender().set_burst(self.burst);
        flight
    }

    fn sockets(self) -> SocketPlan {
        let options = SocketOptions::default();
        socket_plan(ANY_PORT, &options, 0, self.burst > 1)
    }
}

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A sender thread's work for one packet or train.
pub struct Sending<'a> {
    sender: SenderThread<'a, linux::SendHalf>,
    load: Load,
    /// Sequence number of the next packet that is built.
    built: u64,
    /// When the packet or train before had left.
    left_ns: i64,
}

/// Lends a sender whose socket sends nothing.
///
/// # Errors
/// The system's, from opening a socket on loopback.
pub fn sending(load: Load, run: impl FnOnce(&mut Sending<'_>)) -> io::Result<()> {
    // Any address will do.
    let (socket, _, _) = linux::open_session(&load.sockets())?.connect(ANY_PORT)?;
    let mut padding = vec![0; load.octets()];
    fill_padding(&mut padding, 1);
    let mut half = socket.start(&padding, 1);
    let flight = load.flight();
    let stop = AtomicBool::new(false);
    let size = SizeClass {
        payload: load.payload,
        frame: load.payload,
        weight: 1,
    };
    let end = End {
        count: None,
        duration_ns: None,
    };
    let session = sender::Plan {
        schedule: Schedule::new(Departures::Flood, end, &[size], 1, load.burst),
        looks: sender::Looks {
            payloads: vec![load.payload],
            test: TestFormat::LIGHT,
            protection: None,
            first_seq: 0,
            format: Format::Ntp,
        },
        timeout_ns: i64::MAX,
        most_burst: load.burst,
        mean_gap_ns: load.gap_ns,
        count: None,
        stamps_kept: WINDOW,
    };
    let plan = sender::ThreadPlan {
        session,
        padding,
        again: false,
        pacing: Pacing::Auto,
        may_spin: true,
        cpu: None,
        realtime: false,
    };
    let events = EventLoop::new()?;
    let mut copier = None;
    run(&mut Sending {
        sender: SenderThread::new(&mut half, plan, flight.sender(), events, &stop, &mut copier),
        load,
        built: 0,
        left_ns: os::monotonic_ns(),
    });
    Ok(())
}

impl Sending<'_> {
    /// Patches the next packet or train in its place, with T1 of this moment; returns T1.
    pub fn build(&mut self) -> u64 {
        let stamp = self.load.stamped(self.built);
        let t1 = self.sender.write(0, self.due(), self.built, stamp, None);
        self.built += self.load.packets();
        t1.raw()
    }

    /// Notes the next packet or train as under way, and counts it as sent.
    pub fn keep_books(&mut self) {
        let (due, side) = (self.due(), &mut self.sender.side);
        let numbers = side.numbers();
        let asks = side.asks(numbers);
        let end = side.note(numbers, due, Timestamp::from_raw(numbers.seq), asks);
        side.announce(end);
        let now = os::monotonic_ns();
        side.departed(&[due], self.left_ns, now);
        self.left_ns = now;
    }

    fn due(&self) -> Due {
        Due {
            at_ns: self.left_ns,
            class: 0,
            count: self.load.burst,
        }
    }
}

/// Datagrams that wait in a batch to be told apart.
pub struct Splitting(linux::ReceiveHalf, usize);

/// A batch with one train in it as a bundle, or, of singles, full of datagrams.
///
/// # Errors
/// The system's, from sending to itself over loopback.
pub fn splitting(load: Load) -> io::Result<Splitting> {
    let from = UdpSocket::bind(ANY_PORT)?;
    let opened = linux::open_session(&load.sockets())?;
    let (_, socket, granted) = opened.connect(from.local_addr()?)?;
    let octets = vec![0; load.octets()];
    let slots = if load.burst > 1 {
        let segment = i32::try_from(load.payload).unwrap_or(i32::MAX);
        setsockopt(&from, sockopt::UdpGsoSegment, &segment)?;
        1
    } else {
        BATCH
    };
    for _ in 0..slots {
        from.send_to(&octets, granted.local)?;
    }
    let mut half = socket.start();
    let begin = os::now();
    loop {
        match half.fill() {
            Ok(filled) if filled == slots => return Ok(Splitting(half, slots)),
            // Only a part of them was there.
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if begin.elapsed() > PATIENCE => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => std::thread::yield_now(),
        }
    }
}

impl Splitting {
    /// Shows the octets of each packet of the batch to `f`, with when it arrived; returns how many
    /// there were.
    pub fn split(&mut self, mut f: impl FnMut(&[u8], Option<i64>)) -> usize {
        let mut packets = 0;
        self.0.show(self.1, |datagram| {
            let step = datagram.segment.unwrap_or(datagram.octets.len());
            for octets in datagram.octets.chunks(step.max(1)) {
                f(octets, datagram.arrived_ns);
                packets += 1;
            }
        });
        packets
    }
}

/// A receiver thread's work with replies and transmit stamps.
pub struct Matching<'a> {
    side: ReceiverSide<'a>,
    out: Outlet<'a>,
    now: Now,
    flight: &'a Flight,
    load: Load,
    blocks: Blocks<Sample, Counts>,
    /// Samples that have gone through the pipe.
    seen: u64,
    /// Sequence number of the next packet that is sent.
    next: u64,
    begin_ns: i64,
    events: Vec<Event<'static>>,
    /// Replies, or bundles of them, and when each came.
    came: Vec<(Vec<u8>, i64)>,
}

/// Lends a receiver without sockets.
pub fn matching(load: Load, run: impl FnOnce(&mut Matching<'_>)) {
    let flight = load.flight();
    let (samples, blocks) = pipe();
    let plan = receiver::Plan {
        loss_bound: None,
        probes: true,
        timeout_ns: i64::MAX,
        first_seq: 0,
        format: Format::Ntp,
        payloads: vec![load.octets()],
        stamps: true,
        hardware: false,
        interval_ns: 0,
        test: TestFormat::LIGHT,
        protection: None,
        errors_queued: true,
        first_begun_ns: None,
        buffers: Buffers::of_window(flight.window(), true),
    };
    let mut octets = vec![0; load.octets()];
    fill_padding(&mut octets, 1);
    let came = usize::try_from(MATCHED / load.packets()).unwrap_or(0);
    let (wishes, _wanted) = bounded(1);
    let pipes = Pipes {
        samples,
        happenings: None,
        copier: None,
        tap: None,
    };
    let now = Now {
        at_ns: os::monotonic_ns(),
        wall_ns: os::realtime_ns(),
    };
    run(&mut Matching {
        side: ReceiverSide::new(&plan, flight.receiver(), None, now),
        out: Outlet {
            pipes,
            wishes: &wishes,
        },
        now,
        flight: &flight,
        load,
        blocks,
        seen: 0,
        next: 0,
        begin_ns: os::realtime_ns(),
        events: Vec::with_capacity(came),
        came: vec![(octets, 0); came],
    });
}

impl Matching<'_> {
    /// Has the next packets sent, stamped and answered; returns how many.
    pub fn prepare(&mut self) -> u64 {
        self.events.clear();
        let burst = self.load.packets();
        let number = |seq: u64| u32::try_from(seq & u64::from(u32::MAX)).unwrap_or(0);
        for (octets, arrived_ns) in &mut self.came {
            let seq = self.next;
            let t1_ns = self.begin_ns + i64::try_from(seq).unwrap_or(0) * self.load.gap_ns;
            let (t1, stamped) = (timestamp(t1_ns).raw(), self.load.stamped(seq));
            self.flight.sender().note(seq, burst, t1, 0, stamped);
            self.flight.sender().attempt(seq + burst);
            if stamped {
                let (seq, ns) = (number(seq), t1_ns + 1_500);
                self.events.push(Event::Departed { seq, ns });
            }
            for octets in octets.chunks_mut(self.load.payload) {
                let reply = reply(number(self.next), t1_ns);
                octets[..REFLECTOR_LEN].copy_from_slice(reply.as_bytes());
                self.next += 1;
            }
            *arrived_ns = t1_ns + 26_000;
        }
        MATCHED
    }

    /// Takes the stamps, then the replies, as they come from the sockets.
    pub fn take(&mut self) {
        for event in &self.events {
            self.side.on_event(*event, self.now, &mut self.out);
        }
        for (octets, arrived_ns) in &self.came {
            let datagram = Datagram {
                octets,
                segment: (self.load.burst > 1).then_some(self.load.payload),
                truncated: false,
                facts_cut: false,
                arrived_ns: Some(*arrived_ns),
                ttl: Some(255),
                tos: Some(0),
            };
            self.side.on_datagram(&datagram, self.now, &mut self.out);
        }
    }

    /// Empties the pipe to the stats thread.
    ///
    /// # Panics
    /// Where a reply was not matched.
    pub fn drain(&mut self) {
        assert_eq!(self.side.received(), self.next, "each reply is matched");
        self.out.flush();
        while self.seen < self.next {
            let seen = &mut self.seen;
            self.blocks
                .next(|block, _| *seen += block.iter().map(Sample::packets).sum::<u64>());
        }
    }
}

fn timestamp(ns: i64) -> Timestamp {
    Timestamp::from_unix_ns(ns, Format::Ntp)
}

fn reply(number: u32, t1_ns: i64) -> ReflectorPacket {
    let estimate = ErrorEstimate::new(true, Format::Ntp, 1_000);
    ReflectorPacket {
        head: ReplyHead {
            seq: number.into(),
            timestamp: timestamp(t1_ns + 20_000),
            error_estimate: estimate,
            mbz: [0; 2],
            receive_timestamp: timestamp(t1_ns + 5_000),
            sender_seq: number.into(),
            sender_timestamp: timestamp(t1_ns),
            sender_error_estimate: estimate,
        },
        tail: ReplyTail {
            mbz: [0; 2],
            sender_ttl: 255,
        },
    }
}
