//! The sessions of one thread: whose a datagram is, whether it is answered, and with what.

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::allowance::Allowance;
use super::granted::{Served, ServedEvent, ServedId};
use crate::config::Dscp;
use crate::engine::reflector::{Book, Looks, RequestCounts};
use crate::io::Request;
use crate::report::ignored::Kind;
use crate::wire::SenderPacket;
use crate::wire::protected::Protection;

/// A session on its thread. When it is dropped its end is told.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ServedId,
    /// The port it is on, by the number that it has for this program.
    pub(super) port: usize,
    source: SocketAddr,
    looks: Looks,
    allowance: Arc<Allowance>,
    /// Sequence Number of the next reply.
    next: u32,
    life: Life,
    counts: RequestCounts,
    /// Set before its end is told: then another session may have its source and port.
    over: Arc<AtomicBool>,
    /// `None`: nobody knows of it yet.
    events: Option<Sender<ServedEvent>>,
}

/// When a session runs and ends.
#[derive(Debug)]
struct Life {
    refwait_ns: i64,
    running: bool,
    /// When it is to end; `None`: nobody has said so.
    ends_ns: Option<i64>,
    /// When its last request came.
    heard_ns: i64,
    /// When its time may be over, as it is noted in [`Serving::may_end`].
    look_ns: Option<i64>,
}

impl Life {
    /// When it is over if nothing happens until then.
    fn over_ns(&self) -> Option<i64> {
        let silent = || self.heard_ns.saturating_add(self.refwait_ns);
        self.ends_ns.or_else(|| self.running.then(silent))
    }
}

impl Session {
    pub(super) fn new(
        id: ServedId,
        port: usize,
        served: Served,
        over: Arc<AtomicBool>,
        events: Sender<ServedEvent>,
    ) -> Self {
        let protection = served.format.protection().zip(served.keys.as_ref());
        Self {
            id,
            port,
            source: source(served.sender),
            looks: Looks {
                format: served.format,
                timestamps: served.timestamps,
                tos: Some(Dscp::tos(served.dscp)),
                protection: protection.map(|(mode, keys)| Protection::new(mode, keys)),
            },
            allowance: served.allowance,
            next: 0,
            life: Life {
                refwait_ns: served.refwait_ns,
                running: false,
                ends_ns: None,
                heard_ns: 0,
                look_ns: None,
            },
            counts: RequestCounts::default(),
            over,
            events: Some(events),
        }
    }

    /// Has it end without a word.
    pub(super) fn forget(&mut self) {
        self.events = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(events) = &self.events {
            // Whoever no longer listens needs not know.
            let _ = events.send(ServedEvent::Ended(self.id, self.counts));
        }
    }
}

/// A source address as the system tells it: with an interface only where it needs one.
pub(super) fn source(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(addr) => {
            let link_local = addr.ip().is_unicast_link_local();
            let scope = if link_local { addr.scope_id() } else { 0 };
            SocketAddrV6::new(*addr.ip(), addr.port(), 0, scope).into()
        }
    }
}

/// The sessions of one thread.
pub(super) struct Serving {
    sessions: Vec<Option<Box<Session>>>,
    /// Places of `sessions` that are free.
    free: Vec<usize>,
    by_id: HashMap<ServedId, usize>,
    /// By port and source. The hash is keyed, so that nobody can choose addresses that collide.
    by_source: HashMap<(usize, SocketAddr), usize>,
    /// When a session may be over.
    may_end: BTreeSet<(i64, usize)>,
}

impl Serving {
    pub(super) fn new() -> Self {
        Self {
            sessions: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_source: HashMap::new(),
            may_end: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, session: Box<Session>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.by_id.insert(session.id, place);
        self.by_source.insert((session.port, session.source), place);
        self.sessions[place] = Some(session);
    }

    pub(super) fn run(&mut self, id: ServedId, now: i64) {
        let Some((place, session)) = self.find(id) else {
            return;
        };
        if !session.life.running {
            session.life.running = true;
            session.life.heard_ns = now;
            self.look(place);
        }
    }

    pub(super) fn end(&mut self, id: ServedId, at_ns: i64, now: i64) {
        let Some((place, session)) = self.find(id) else {
            return;
        };
        let life = &mut session.life;
        let at = if life.running { at_ns } else { now };
        life.ends_ns = Some(life.ends_ns.map_or(at, |before| before.min(at)));
        self.look(place);
    }

    fn find(&mut self, id: ServedId) -> Option<(usize, &mut Session)> {
        let place = *self.by_id.get(&id)?;
        Some((place, self.sessions.get_mut(place)?.as_mut()?))
    }

    /// Notes when a session may be over.
    fn look(&mut self, place: usize) {
        let Some(session) = self.sessions.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let at = session.life.over_ns();
        if let Some(before) = std::mem::replace(&mut session.life.look_ns, at) {
            self.may_end.remove(&(before, place));
        }
        if let Some(at) = at {
            self.may_end.insert((at, place));
        }
    }

    /// When a session may be over next; `i64::MAX`: none is expected to be.
    pub(super) fn next_look(&self) -> i64 {
        self.may_end.first().map_or(i64::MAX, |(at, _)| *at)
    }

    /// Takes out a session that is over.
    pub(super) fn take_over(&mut self, now: i64) -> Option<Box<Session>> {
        loop {
            let (_, place) = *self.may_end.first().filter(|(at, _)| *at <= now)?;
            // Requests may have come since that was noted.
            self.look(place);
            let session = self.sessions.get(place)?.as_ref()?;
            if session.life.over_ns().is_some_and(|at| at <= now) {
                if let (None, Some(events)) = (session.life.ends_ns, &session.events) {
                    let _ = events.send(ServedEvent::Silent(session.id));
                }
                return self.take(place);
            }
        }
    }

    /// Takes out any session.
    pub(super) fn take_any(&mut self) -> Option<Box<Session>> {
        let place = *self.by_id.values().next()?;
        self.take(place)
    }

    fn take(&mut self, place: usize) -> Option<Box<Session>> {
        let session = self.sessions.get_mut(place)?.take()?;
        self.free.push(place);
        self.by_id.remove(&session.id);
        let source = (session.port, session.source);
        if self.by_source.get(&source) == Some(&place) {
            // Otherwise another session has replaced this one.
            self.by_source.remove(&source);
        }
        if let Some(at) = session.life.look_ns {
            self.may_end.remove(&(at, place));
        }
        Some(session)
    }

    /// The session at a place.
    fn session(&mut self, place: u64) -> Option<&mut Session> {
        let place = usize::try_from(place).ok()?;
        self.sessions.get_mut(place)?.as_deref_mut()
    }
}

/// A session is known by its place.
impl Book for Serving {
    type Visit = u64;

    fn admit(&mut self, port: usize, request: &Request<'_>, packets: u64) -> Result<u64, Kind> {
        let place = request
            .from
            .and_then(|from| self.by_source.get(&(port, from)));
        let place = place.ok_or(Kind::NoSession)?;
        let place = u64::try_from(*place).unwrap_or(u64::MAX);
        let session = self.session(place).ok_or(Kind::NoSession)?;
        session.counts.arrived(packets, request.len);
        if session.life.running {
            return Ok(place);
        }
        session.counts.ignored.note(Kind::Early, packets);
        Err(Kind::Early)
    }

    fn session(visit: &u64) -> u64 {
        *visit
    }

    fn looks(&self, session: u64) -> Option<&Looks> {
        let place = usize::try_from(session).ok()?;
        Some(&self.sessions.get(place)?.as_ref()?.looks)
    }

    fn take(
        &mut self,
        visit: &mut u64,
        sender: &SenderPacket,
        count: u32,
        _octets: usize,
        now: i64,
    ) -> u32 {
        let Some(session) = self.session(*visit) else {
            return 0;
        };
        session.counts.note_estimate(sender, count);
        session.life.heard_ns = now;
        let number = session.next;
        session.next = number.wrapping_add(count);
        number
    }

    fn limit(&mut self, visit: &u64, wanted: usize, octets: usize, now: i64) -> usize {
        let Some(session) = self.session(*visit) else {
            return 0;
        };
        let granted = session.allowance.take(now, wanted, octets);
        let over = u32::try_from(wanted - granted).unwrap_or(0);
        session.next = session.next.wrapping_sub(over);
        granted
    }

    fn ignored(&mut self, visit: &u64, kind: Kind, count: u64, _octets: usize) {
        if let Some(session) = self.session(*visit) {
            session.counts.ignored.note(kind, count);
        }
    }

    fn queued(&mut self, session: u64, replies: u64) {
        if let Some(session) = self.session(session) {
            session.counts.reflected += replies;
        }
    }

    fn unsent(&mut self, session: u64, replies: u64) {
        if let Some(session) = self.session(session) {
            session.counts.reflected -= replies;
            session.counts.unsent += replies;
        }
    }
}
