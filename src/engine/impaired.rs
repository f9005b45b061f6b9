//! A reflector's thread in test mode: takes requests, or replies, through the impairment stage.
//!
//! Inbound a reply is numbered and gets its T3 before the stage decides; what is held leaves as it
//! is. Outbound the stage decides first: a request that is held is numbered and gets its T2 when it
//! is let go, one that vanishes never, and a copy is a request of its own.

use zerocopy::FromBytes as _;

use super::admission::Visit;
use super::impair::{Fate, Parcel, Stage};
use super::reflector::desk::Desk;
use super::reflector::light::Light;
use super::reflector::reflect::{Reflector, read_one};
use super::reflector::train::Answer;
use crate::config::Direction;
use crate::io::{BATCH, Mirror, Request};
use crate::os;
use crate::wire::{MAX_UDP_PAYLOAD, ReplyHead, SenderPacket, Timestamp, parse_request};

fn number(desk: &mut Desk, sender: &SenderPacket, visit: Visit) -> Option<u32> {
    desk.reflector.book.number(Some(visit), sender, 1)
}

fn write(
    desk: &mut Desk,
    request: &mut Request<'_>,
    sender: SenderPacket,
    number: u32,
    visit: Visit,
) -> Option<Answer> {
    desk.reflector
        .write_one(request, sender, number, visit.serial)
}

/// The work of a thread in test mode.
pub(super) struct Testing {
    pub(super) stage: Stage,
    /// Room for one datagram.
    scratch: Box<[u8]>,
}

impl Testing {
    pub(super) fn new(stage: Stage) -> Self {
        Self {
            stage,
            scratch: vec![0; MAX_UDP_PAYLOAD + 1].into_boxed_slice(),
        }
    }

    pub(super) fn answer<M: Mirror>(
        &mut self,
        desk: &mut Desk,
        sockets: &mut [M],
        socket: usize,
        count: usize,
    ) {
        // First what is due: then all that comes into the wheel is due later.
        self.release_due(desk, sockets);
        let now = os::monotonic_ns();
        desk.begin_batch(now);
        let sockets = &mut sockets[socket];
        for index in 0..count {
            let request = sockets.request(index);
            let len = request.len;
            let Some(visit) = desk.reflector.admit(0, &request, len.max(1)) else {
                continue;
            };
            match read_one(&request.slot[..len], &desk.reflector.guard) {
                Ok(sender) => self.pass(desk, (sockets, socket), index, sender, visit, now),
                Err(kind) => desk.reflector.ignore(&visit, kind, 1, len),
            }
        }
        desk.flush(sockets);
    }

    /// Takes one request of a batch through the stage.
    fn pass<M: Mirror>(
        &mut self,
        desk: &mut Desk,
        (socket, socket_index): (&mut M, usize),
        index: usize,
        mut sender: SenderPacket,
        mut visit: Option<Visit>,
        now: i64,
    ) {
        let stage = &mut self.stage;
        let Some(route) = socket.route(index) else {
            return;
        };
        let mut request = socket.request(index);
        desk.reflector.note_estimate(&sender, 1);
        let book = &mut desk.reflector.book;
        book.visit(&mut visit, &sender, 1, request.len, now);
        let Some(visit) = visit else {
            return;
        };
        let record = book.record(visit.serial);
        let (mut fate, ordinal) = stage.fate(record, visit.repeat, now);
        let (arrived, to, ttl) = (request.arrived_ns, request.to, request.ttl);
        // A reply has its number before anything happens to it, a request after.
        let mut answer = None;
        let mut low = sender.seq.get();
        if stage.direction == Direction::Inbound {
            low = number(desk, &sender, visit).unwrap_or(0);
            answer = write(desk, &mut request, sender, low, visit);
        }
        let record = desk.reflector.book.record(visit.serial);
        let ordered = record.map_or(0, |record| record.flow.number(low));
        match fate {
            Fate::Vanish => return,
            Fate::Delay(_) | Fate::Reorder(_) => {
                let parcel = Parcel {
                    socket: socket_index,
                    route,
                    to,
                    tos: answer.map(|answer| answer.tos).or(request.tos),
                    ttl,
                    arrived_ns: arrived.unwrap_or_else(os::realtime_ns),
                    visit,
                    ordinal,
                    number: ordered,
                    offered_ns: now,
                };
                let len = answer.map_or(request.len, |answer| answer.len);
                if let Some(answer) = &answer {
                    // Now it would leave: what comes after is the network's.
                    let t3 = Reflector::<Light>::now();
                    desk.reflector
                        .stamp(answer, &mut request.slot[..len], t3, false);
                    desk.reflector.tried(t3);
                }
                let octets = &request.slot[..len];
                let record = desk.reflector.book.record(visit.serial);
                if stage.hold(fate, parcel, octets, record) {
                    return;
                }
                fate = Fate::Pass;
            }
            Fate::Corrupt(bits) => {
                let changed = Timestamp::from_raw(sender.timestamp.raw() ^ bits);
                match ReplyHead::mut_from_prefix(request.slot) {
                    Ok((head, _)) if answer.is_some() => head.sender_timestamp = changed,
                    _ => sender.timestamp = changed,
                }
            }
            Fate::Pass | Fate::Duplicate => {}
        }
        let len = request.len;
        if fate == Fate::Duplicate && answer.is_none() {
            self.scratch[..len].copy_from_slice(&request.slot[..len]);
        }
        let answer = answer.or_else(|| {
            let low = number(desk, &sender, visit).unwrap_or(0);
            write(desk, &mut request, sender, low, visit)
        });
        let Some(answer) = answer else {
            return;
        };
        let mut copy = Request {
            slot: &mut self.scratch,
            len,
            segment: None,
            truncated: false,
            facts_cut: false,
            from: Some(route.to),
            to,
            to_many: false,
            arrived_ns: arrived,
            ttl,
            tos: request.tos,
        };
        desk.queue(socket, index, answer);
        if fate == Fate::Duplicate {
            if stage.direction == Direction::Inbound {
                // An exact copy, T3 too: the network makes them so.
                desk.flush(socket);
                let original = socket.request(index).slot;
                self.scratch[..answer.len].copy_from_slice(&original[..answer.len]);
                desk.send_alone(socket, &mut self.scratch, &route, answer, true);
            } else {
                let low = number(desk, &sender, visit).unwrap_or(0);
                if let Some(answer) = write(desk, &mut copy, sender, low, visit) {
                    desk.send_alone(socket, &mut self.scratch, &route, answer, false);
                }
            }
        }
        if socket.queued() >= BATCH {
            desk.flush(socket);
        }
        if !matches!(fate, Fate::Corrupt(_)) && !visit.repeat {
            stage.goes_on(ordered, desk.reflector.book.record(visit.serial));
            self.overtake(desk, socket, visit.serial, ordinal, now);
        }
    }

    /// Sends what waited for the packet `ordinal` of a session to go on.
    fn overtake<M: Mirror>(
        &mut self,
        desk: &mut Desk,
        socket: &mut M,
        serial: u64,
        ordinal: u64,
        now: i64,
    ) {
        while let Some(at) = self
            .stage
            .overtaken(ordinal, desk.reflector.book.record(serial))
        {
            self.release(desk, socket, at, now);
        }
    }

    /// Sends what is due; returns the moment of what is due next.
    pub(super) fn release_due<M: Mirror>(&mut self, desk: &mut Desk, sockets: &mut [M]) -> i64 {
        let due = self.stage.due_ns();
        if due == i64::MAX {
            return due;
        }
        let now = os::monotonic_ns();
        desk.waited = false;
        while let Some(at) = self.stage.due(now) {
            let socket = self.stage.socket_of(at);
            self.release(desk, &mut sockets[socket], at, now);
        }
        self.stage.due_ns()
    }

    /// Sends one held packet, and what waited for it.
    fn release<M: Mirror>(&mut self, desk: &mut Desk, socket: &mut M, at: u32, now: i64) {
        let serial = self.stage.serial_of(at);
        let record = desk.reflector.book.record(serial);
        let (parcel, len) = self.stage.release(at, &mut self.scratch, record);
        let answer = match self.stage.direction {
            Direction::Inbound => Answer {
                len,
                step: len,
                tos: parcel.tos.unwrap_or(0),
                session: serial,
            },
            Direction::Outbound => {
                let mut request = Request {
                    slot: &mut self.scratch,
                    len,
                    segment: None,
                    truncated: false,
                    facts_cut: false,
                    from: Some(parcel.route.to),
                    to: parcel.to,
                    to_many: false,
                    // It arrives when it is let go.
                    arrived_ns: Some(parcel.arrived_ns + (now - parcel.offered_ns)),
                    ttl: parcel.ttl,
                    tos: parcel.tos,
                };
                let Ok(sender) = parse_request(&request.slot[..len]).copied() else {
                    return;
                };
                let visit = parcel.visit;
                let Some(number) = number(desk, &sender, visit) else {
                    // Another session began at this address and port: it is none of its packets.
                    self.stage.never_sent(desk.reflector.book.record(serial));
                    return;
                };
                let Some(answer) = write(desk, &mut request, sender, number, visit) else {
                    return;
                };
                answer
            }
        };
        let has_t3 = self.stage.direction == Direction::Inbound;
        desk.send_alone(socket, &mut self.scratch, &parcel.route, answer, has_t3);
        let record = desk.reflector.book.record(serial);
        self.stage.goes_on(parcel.number, record);
        self.overtake(desk, socket, serial, parcel.ordinal, now);
    }

    /// Counts what is still held at the end.
    pub(super) fn give_up(&mut self, desk: &mut Desk) {
        while let Some(at) = self.stage.due(i64::MAX) {
            let serial = self.stage.serial_of(at);
            let record = desk.reflector.book.record(serial);
            self.stage.release(at, &mut self.scratch, record);
            self.stage.never_sent(desk.reflector.book.record(serial));
        }
    }
}
