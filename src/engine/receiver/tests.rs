//! Tests of a receiver's side as a whole, without sockets and clocks, and what they are made with.

mod attempts;
mod bundles;
mod endings;
mod others;
mod sessions;
mod stamps;
mod taps;
mod threads;

use std::net::{Ipv4Addr, SocketAddr};

use zerocopy::IntoBytes;

use super::door::{Now, Out};
use super::facts::Received;
use super::side::{Buffers, Next, Plan, ReceiverSide};
use super::tap::Tap;
use crate::config::{IoKind, ReflectorConfig, SocketOptions};
use crate::engine::flight::{Flight, Wish};
use crate::engine::intervals::Counts;
use crate::engine::live::Record;
use crate::engine::reflector::train::stamp;
use crate::engine::reflector::{Answer, Reflector};
use crate::io::{Datagram, Event, Request};
use crate::report::DelaySet;
use crate::sample::Sample;
use crate::stats::delay::Delays;
use crate::wire::{ErrorEstimate, Format, SenderPacket, TestFormat, Timestamp};

/// When the pretended session begins; one packet a microsecond.
pub(super) const BEGIN_NS: i64 = 1_790_000_000_500_000_000;
pub(super) const TIMEOUT_NS: i64 = 1_000_000_000;

pub(super) fn at(at_ns: i64, wall_ns: i64) -> Now {
    Now { at_ns, wall_ns }
}

pub(super) fn plan(stamps: bool) -> Plan {
    Plan {
        timeout_ns: TIMEOUT_NS,
        loss_bound: None,
        probes: true,
        first_seq: 0,
        format: Format::Ntp,
        test: TestFormat::LIGHT,
        protection: None,
        payloads: vec![41],
        stamps,
        hardware: false,
        interval_ns: 0,
        errors_queued: true,
        first_begun_ns: None,
        buffers: Buffers::of_window(1024, stamps),
    }
}

/// What a side told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) samples: Vec<Sample>,
    pub(super) marks: Vec<Counts>,
    pub(super) happened: Vec<Record>,
    pub(super) wishes: Vec<Wish>,
}

impl Heard {
    pub(super) fn delays(&self) -> DelaySet {
        let mut delays = Delays::new(1, false);
        delays.record(&self.samples);
        delays.report()
    }
}

impl Out for Heard {
    fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    fn mark(&mut self, counts: Counts) -> bool {
        self.marks.push(counts);
        true
    }

    fn unrecorded(&self) -> u64 {
        0
    }

    fn happened(&mut self, record: Record) {
        self.happened.push(record);
    }

    fn shows_packets(&self) -> bool {
        false
    }

    fn packet(&mut self, _: &[u8], _: usize, _: Now) {}

    fn wish(&mut self, probe: Wish) -> bool {
        self.wishes.push(probe);
        true
    }
}

/// A side that is driven by a test.
pub(super) struct Bench<'a> {
    pub(super) side: ReceiverSide<'a>,
    pub(super) heard: Heard,
    pub(super) now: Now,
    pub(super) asked_to_end: u32,
}

impl<'a> Bench<'a> {
    pub(super) fn new(plan: &Plan, flight: &'a Flight) -> Self {
        Self::watched(plan, flight, None, BEGIN_NS)
    }

    /// One that begins at this moment of both clocks.
    pub(super) fn watched(
        plan: &Plan,
        flight: &'a Flight,
        tap: Option<Tap>,
        begun_ns: i64,
    ) -> Self {
        let now = at(begun_ns, begun_ns);
        Self {
            side: ReceiverSide::new(plan, flight.receiver(), tap, now),
            heard: Heard::default(),
            now,
            asked_to_end: 0,
        }
    }

    pub(super) fn arrive(&mut self, octets: &[u8], t4_ns: i64) {
        self.datagram(&came(octets, None, t4_ns, 64));
    }

    pub(super) fn datagram(&mut self, datagram: &Datagram<'_>) {
        self.side.on_datagram(datagram, self.now, &mut self.heard);
    }

    pub(super) fn event(&mut self, event: Event<'_>) {
        self.side.on_event(event, self.now, &mut self.heard);
    }

    pub(super) fn departed(&mut self, seq: u64, ns: i64) {
        let seq = u32::try_from(seq).unwrap();
        self.event(Event::Departed { seq, ns });
    }

    /// What is next at this moment of the monotonic clock; `None`: the session is over.
    pub(super) fn next(&mut self, at_ns: i64) -> Option<i64> {
        match self.tick(at_ns) {
            Next::At(next) => Some(next),
            Next::Over => None,
            Next::Absent => panic!("there is no grace"),
        }
    }

    pub(super) fn tick(&mut self, at_ns: i64) -> Next {
        let now = at(at_ns, self.now.wall_ns);
        self.side
            .tick(now, false, self.asked_to_end, &mut self.heard)
    }

    /// Packets that need not be waited for, and datagrams that were ignored.
    pub(super) fn counts(&self) -> (u64, u64) {
        let ignored = self.side.facts().ignored.total();
        (self.side.tracker.answered(), ignored)
    }

    pub(super) fn finish(mut self, sent: u64) -> (Received, Heard) {
        let (received, last) = self.side.finish(sent, self.now, &mut self.heard);
        self.heard.marks.extend(last);
        (received, self.heard)
    }
}

pub(super) fn came(octets: &[u8], segment: Option<usize>, t4_ns: i64, ttl: u8) -> Datagram<'_> {
    Datagram {
        octets,
        segment,
        truncated: false,
        facts_cut: false,
        arrived_ns: Some(t4_ns),
        ttl: Some(ttl),
        tos: Some(0),
    }
}

pub(super) fn reflector(stateless: bool, format: Format) -> Reflector {
    Reflector::new(&ReflectorConfig {
        listen: Vec::new(),
        allow: Vec::new(),
        stateless,
        session_timeout_ns: 0,
        dscp: None,
        format,
        socket: SocketOptions {
            tos: 0,
            ttl: 255,
            do_not_fragment: false,
            interface: None,
            hardware: false,
            busy_poll_us: None,
            io: IoKind::Batched,
        },
        threads: 1,
        cpus: None,
        impairment: None,
        watch: false,
    })
}

/// A packet as it leaves.
pub(super) fn packet(seq: u32, t1: Timestamp) -> SenderPacket {
    SenderPacket {
        seq: seq.into(),
        timestamp: t1,
        error_estimate: ErrorEstimate::UNKNOWN,
    }
}

pub(super) fn request(flight: &Flight, seq: u64, t1_ns: i64, stamped: bool) -> Vec<u8> {
    let t1 = Timestamp::from_unix_ns(t1_ns, Format::Ntp);
    flight.sender().note(seq, 1, t1.raw(), 0, stamped);
    flight.sender().attempt(seq + 1);
    let number = u32::try_from(seq & u64::from(u32::MAX)).unwrap();
    let mut octets = packet(number, t1).as_bytes().to_vec();
    octets.resize(41, 0x5a);
    octets
}

/// A request as a socket of a reflector takes it.
pub(super) fn taken(slot: &mut [u8], len: usize, arrived_ns: Option<i64>) -> Request<'_> {
    Request {
        slot,
        len,
        segment: None,
        truncated: false,
        facts_cut: false,
        from: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 5000))),
        to: Some(Ipv4Addr::LOCALHOST.into()),
        to_many: false,
        arrived_ns,
        ttl: Some(250),
        tos: Some(0xb9),
    }
}

/// What a reflector makes of a request that arrives at `t2_ns`, and answers 500 ns later.
pub(super) fn reply(
    reflector: &mut Reflector,
    octets: &[u8],
    t2_ns: i64,
    format: Format,
) -> Vec<u8> {
    let mut slot = octets.to_vec();
    slot.resize(2048, 0xa5);
    let mut request = taken(&mut slot, octets.len(), Some(t2_ns));
    let Answer { len, tos, .. } = reflector.reflect(&mut request, 1).unwrap();
    assert_eq!(tos, 0xb8, "DSCP comes back, ECN does not");
    stamp(&mut slot, Timestamp::from_unix_ns(t2_ns + 500, format));
    slot.truncate(len);
    slot
}
