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
use super::reflector::open_port::OpenPort;
use super::reflector::reflect::{Reflector, read_one};
use super::reflector::train::Answer;
use crate::config::Direction;
use crate::io::{BATCH, Mirror, Port, Request};
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

/// A request that is kept elsewhere than where it came in.
fn request<'a>(slot: &'a mut [u8], len: usize, parcel: &Parcel, arrived_ns: i64) -> Request<'a> {
    Request {
        slot,
        len,
        segment: None,
        truncated: false,
        facts_cut: false,
        from: Some(parcel.route.to),
        to: parcel.to,
        to_many: false,
        arrived_ns: Some(arrived_ns),
        ttl: parcel.ttl,
        tos: parcel.tos,
    }
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
        socket: &mut M,
        socket_index: usize,
        count: usize,
        now: i64,
    ) {
        desk.begin_batch(now);
        for index in 0..count {
            let request = socket.request(index);
            let len = request.len;
            let Some(visit) = desk.reflector.admit(0, &request, len.max(1)) else {
                continue;
            };
            match read_one(&request.slot[..len], &desk.reflector.guard) {
                Ok(sender) => self.pass(desk, (socket, socket_index), index, sender, visit, now),
                Err(kind) => desk.reflector.ignore(&visit, kind, 1, len),
            }
        }
        desk.flush(socket);
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
        desk.reflector.totals.counts.note_estimate(&sender, 1);
        let book = &mut desk.reflector.book;
        book.visit(&mut visit, &sender, 1, request.len, now);
        let Some(visit) = visit else {
            return;
        };
        let record = book.record(visit.serial);
        let (mut fate, ordinal) = stage.fate(record, visit.repeat, now);
        let mut parcel = Parcel {
            socket: socket_index,
            route,
            to: request.to,
            tos: request.tos,
            ttl: request.ttl,
            arrived_ns: request.arrived_ns.unwrap_or_else(os::realtime_ns),
            visit,
            ordinal,
            number: 0,
            offered_ns: now,
        };
        // A reply has its number before anything happens to it, a request after.
        let mut answer = None;
        let mut low = sender.seq.get();
        if stage.direction == Direction::Inbound {
            low = number(desk, &sender, visit).unwrap_or(0);
            answer = write(desk, &mut request, sender, low, visit);
        }
        let record = desk.reflector.book.record(visit.serial);
        parcel.number = record.map_or(0, |record| record.flow.number(low));
        match fate {
            Fate::Vanish => return,
            Fate::Delay(_) | Fate::Reorder(_) => {
                if self.hold(desk, fate, parcel, &mut request, answer) {
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
            Fate::Duplicate => {
                self.scratch[..request.len].copy_from_slice(&request.slot[..request.len])
            }
            Fate::Pass => {}
        }
        let len = request.len;
        let answer = answer.or_else(|| {
            let low = number(desk, &sender, visit).unwrap_or(0);
            write(desk, &mut request, sender, low, visit)
        });
        let Some(answer) = answer else { return };
        desk.queue(socket, index, answer);
        if fate == Fate::Duplicate {
            self.copy(desk, (socket, index), answer, &parcel, (sender, len));
        }
        if socket.queued() >= BATCH {
            desk.flush(socket);
        }
        if !matches!(fate, Fate::Corrupt(_)) && !visit.repeat {
            self.goes_on(desk, socket, &parcel, now);
        }
    }

    /// Holds a request, or the reply to it; false where there is no room.
    fn hold(
        &mut self,
        desk: &mut Desk,
        fate: Fate,
        mut parcel: Parcel,
        request: &mut Request<'_>,
        answer: Option<Answer>,
    ) -> bool {
        let mut len = request.len;
        if let Some(answer) = &answer {
            (len, parcel.tos) = (answer.len, Some(answer.tos));
            // Now it would leave: what comes after is the network's.
            let t3 = Reflector::<Light>::now();
            let octets = &mut request.slot[..len];
            desk.reflector.stamp(answer, octets, t3, false);
            desk.reflector.tried(t3);
        }
        let record = desk.reflector.book.record(parcel.visit.serial);
        self.stage.hold(fate, parcel, &request.slot[..len], record)
    }

    /// Sends a copy of what was queued, or the reply to a copy of the request.
    fn copy<M: Mirror>(
        &mut self,
        desk: &mut Desk,
        (socket, index): (&mut M, usize),
        answer: Answer,
        parcel: &Parcel,
        (sender, len): (SenderPacket, usize),
    ) {
        if self.stage.direction == Direction::Inbound {
            // An exact copy, T3 too: the network makes them so.
            desk.flush(socket);
            let original = socket.request(index).slot;
            self.scratch[..answer.len].copy_from_slice(&original[..answer.len]);
            desk.send_alone(socket, &mut self.scratch, &parcel.route, answer, true);
            return;
        }
        let low = number(desk, &sender, parcel.visit).unwrap_or(0);
        let mut request = request(&mut self.scratch, len, parcel, parcel.arrived_ns);
        if let Some(answer) = write(desk, &mut request, sender, low, parcel.visit) {
            desk.send_alone(socket, &mut self.scratch, &parcel.route, answer, false);
        }
    }

    /// A packet goes on, and what waited for that is sent.
    fn goes_on<M: Mirror>(&mut self, desk: &mut Desk, socket: &mut M, parcel: &Parcel, now: i64) {
        let serial = parcel.visit.serial;
        let record = desk.reflector.book.record(serial);
        self.stage.goes_on(parcel.number, record);
        loop {
            let record = desk.reflector.book.record(serial);
            let Some(at) = self.stage.overtaken(parcel.ordinal, record) else {
                return;
            };
            self.release(desk, socket, at, now);
        }
    }

    /// Sends what is due; returns the moment of what is due next.
    pub(super) fn release_due<P: Port>(
        &mut self,
        desk: &mut Desk,
        ports: &mut [OpenPort<P>],
        slots: &mut P::Slots,
    ) -> i64 {
        let due = self.stage.due_ns();
        if due == i64::MAX {
            return due;
        }
        let now = os::monotonic_ns();
        desk.waited = false;
        while let Some(at) = self.stage.due(now) {
            let socket = self.stage.socket_of(at);
            self.release(desk, &mut ports[socket].socket.with(slots), at, now);
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
                // It arrives when it is let go.
                let arrived_ns = parcel.arrived_ns + (now - parcel.offered_ns);
                let mut request = request(&mut self.scratch, len, &parcel, arrived_ns);
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
        self.goes_on(desk, socket, &parcel, now);
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
