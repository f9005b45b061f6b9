//! Who gets a session, which sessions there are, and what became of them.
//!
//! Invariant: a session counts for its client from its grant until its Session-Reflector has told
//! that it is over, for so long its port has a user.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::caller::{Caller, Whose};
use super::clients::{ClientAddress, Clients};
use crate::config::{Dscp, Ports};
use crate::control::server::{Asked, Ending as Ended, Grant};
use crate::engine::served::{NotServed, RequestCounts, Served, ServedEvent, ServedId};
use crate::os;
use crate::report::moment;
use crate::report::server::{Ending, Session, Totals};
use crate::wire::{Accept, Format, ModeRefused, Modes, SessionRequest, Sid, TestFormat};

/// What sessions there are, and were.
#[derive(Debug)]
pub(super) struct Sessions {
    by_sid: HashMap<Sid, Record>,
    by_id: HashMap<ServedId, Sid>,
    /// Sessions that only go on for their Timeout, by sender and receiver.
    lingering: HashMap<(SocketAddr, SocketAddr), Sid>,
    over: VecDeque<Session>,
    not_listed: u64,
    refwait_ns: i64,
    most: usize,
}

#[derive(Debug)]
struct Record {
    id: ServedId,
    caller: Caller,
    key_id: Option<String>,
    modes: Modes,
    sender: SocketAddr,
    receiver: SocketAddr,
    dscp: Dscp,
    timeout_ns: i64,
    granted_ns: i64,
    started_ns: Option<i64>,
    ending: Option<Ending>,
}

impl Sessions {
    /// At most `most` at a time, each with this REFWAIT in nanoseconds.
    pub(super) fn new(refwait_ns: i64, most: usize) -> Self {
        Self {
            by_sid: HashMap::new(),
            by_id: HashMap::new(),
            lingering: HashMap::new(),
            over: VecDeque::new(),
            not_listed: 0,
            refwait_ns,
            most,
        }
    }

    /// The two ends of a session that the policy allows, and its DSCP.
    fn allowed(
        &self,
        caller: &Caller,
        asked: &Asked<'_>,
        clients: &Clients,
    ) -> Result<(SocketAddr, SocketAddr, Dscp), Refusal> {
        let (request, rules) = (&asked.request, &*caller.rules);
        let (sender, receiver) = ends(caller, request)?;
        let dscp = Dscp::new(request.dscp).ok_or(Refusal::NoDscp)?;
        if !rules.dscps.contains(dscp) {
            return Err(Refusal::Dscp(dscp));
        }
        if request.padding_len > rules.padding {
            return Err(Refusal::Padding(request.padding_len, rules.padding));
        }
        let held = clients.get(caller.client).map_or(0, |own| own.sessions);
        if held >= rules.sessions {
            return Err(Refusal::Sessions(rules.sessions));
        }
        if self.len() >= self.most {
            return Err(Refusal::AllSessions(self.most));
        }
        if same_host(sender, receiver) && self.is_reflector(sender) {
            return Err(Refusal::Loop(sender));
        }
        Ok((sender, receiver, dscp))
    }

    /// Has a Session-Reflector opened for a request, if it may be: `add` opens it on the first of the ports
    /// that is free.
    ///
    /// A Start Time that is still to come is no reason to refuse, nor to wait: packets are reflected
    /// from Start-Sessions on. The clocks of both ends differ, and a Server that goes by its own
    /// drops the first packets of a client whose clock is ahead, which then reads as loss.
    pub(super) fn grant(
        &mut self,
        caller: &Caller,
        asked: &Asked<'_>,
        clients: &mut Clients,
        mut add: impl FnMut(Served, &[u16]) -> Result<(ServedId, u16), NotServed>,
    ) -> Result<Grant, Refusal> {
        let (sender, receiver, dscp) = self.allowed(caller, asked, clients)?;
        let (request, rules) = (&asked.request, &*caller.rules);
        let reflected = request.reflect.map_or(0, |reflect| reflect.padding_len);
        let format = TestFormat::new(asked.modes, reflected, SERVER_OCTETS)?;
        let sid = self.new_sid(caller.local.ip());
        let ptp = asked.modes.contains(Modes::PTP_TIMESTAMP);
        let allowance = clients.allowance(caller.client, rules);
        let (client, wanted) = (caller.client, receiver.port());
        let served = |at| Served {
            sender,
            receiver: at,
            format,
            keys: asked.keys.map(|keys| keys.of_session(&sid)),
            dscp,
            timestamps: if ptp { Format::Ptp } else { Format::Ntp },
            refwait_ns: self.refwait_ns,
            allowance: Arc::clone(&allowance),
            replaces: self.replaced(client, sender, SocketAddr::new(at, wanted)),
        };
        let ports = self.candidates(sender, receiver, &rules.test_ports);
        let mut at = receiver.ip();
        let mut added = add(served(at), &ports);
        if behind_address_translation(&added) {
            at = caller.local.ip().to_canonical();
            let (peer, wanted) = (caller.peer, receiver.ip());
            log::info!("{peer}: {wanted} is no address of this host; {at} in its place");
            added = add(served(at), &ports);
        }
        let (id, port) = added?;
        clients.change(caller.client, rules, |own| own.sessions += 1);
        let timeout = i64::try_from(request.timeout.ns().min(rules.timeout.ns()));
        let record = Record {
            id,
            caller: caller.clone(),
            key_id: asked.key_id.map(ToString::to_string),
            modes: asked.modes,
            sender,
            receiver: SocketAddr::new(at, port),
            dscp,
            timeout_ns: timeout.unwrap_or(i64::MAX),
            granted_ns: os::realtime_ns(),
            started_ns: None,
            ending: None,
        };
        if receiver.port() != port && receiver.port() != 0 {
            let (peer, wanted) = (caller.peer, receiver.port());
            log::info!(
                "{peer}: session {sid}: port {port} in place of {wanted}, which is taken or not allowed (test_ports)"
            );
        }
        self.by_id.insert(id, sid);
        self.by_sid.insert(sid, record);
        Ok(Grant {
            port,
            sid,
            server_octets: SERVER_OCTETS,
        })
    }

    /// Packets of the session are reflected from now on, by the Session-Reflector that is returned.
    pub(super) fn start(&mut self, sid: &Sid) -> Result<ServedId, Accept> {
        let Some(record) = self.by_sid.get_mut(sid) else {
            // Its Session-Reflector has ended by itself, with its thread.
            return Err(Accept::InternalError);
        };
        record.started_ns = Some(os::realtime_ns());
        log::info!("session {sid} began: {record}");
        Ok(record.id)
    }

    /// The control connection is done with the session. Its Session-Reflector is to end after so many
    /// nanoseconds, its Timeout; `None` where it ends already.
    pub(super) fn stop(&mut self, sid: &Sid, ended: Ended) -> Option<(ServedId, i64)> {
        let record = self.by_sid.get_mut(sid)?;
        if record.ending.is_some() {
            return None;
        }
        let (ending, after_ns) = match ended {
            Ended::Stopped(accept) if accept.is_ok() => (Ending::Stopped, record.timeout_ns),
            Ended::Stopped(_) => (Ending::Failed, record.timeout_ns),
            Ended::Lost => (Ending::Lost, record.timeout_ns),
            Ended::Withdrawn => (Ending::Withdrawn, 0),
        };
        record.ending = Some(ending);
        let ends = (record.sender, record.receiver);
        self.lingering.insert(ends, *sid);
        Some((record.id, after_ns))
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.by_sid.len()
    }

    /// The Server ends: so do all sessions.
    pub(super) fn shut_down(&mut self) {
        for record in self.by_sid.values_mut() {
            record.ending.get_or_insert(Ending::Shutdown);
        }
    }

    /// Those that ended last, and how many others there were.
    pub(super) fn into_listed(self) -> (Vec<Session>, u64) {
        (self.over.into(), self.not_listed)
    }

    /// A session that is, for a log.
    pub(super) fn named(&self, id: ServedId) -> Option<String> {
        let sid = self.by_id.get(&id)?;
        let record = self.by_sid.get(sid)?;
        Some(format!("session {sid}, {record}"))
    }

    /// What a Session-Reflector told. Of one that was silent, the connection has to know.
    pub(super) fn told(
        &mut self,
        told: ServedEvent,
        clients: &mut Clients,
        totals: &mut Totals,
    ) -> Option<(Whose, Sid)> {
        match told {
            ServedEvent::Silent(id) => {
                let sid = *self.by_id.get(&id)?;
                let record = self.by_sid.get_mut(&sid)?;
                record.ending.get_or_insert(Ending::Silent);
                Some((record.caller.whose, sid))
            }
            ServedEvent::Ended(id, counts) => {
                let sid = self.by_id.remove(&id)?;
                let record = self.by_sid.remove(&sid)?;
                let ends = (record.sender, record.receiver);
                if self.lingering.get(&ends) == Some(&sid) {
                    self.lingering.remove(&ends);
                }
                clients.change_known(record.caller.client, |own| own.sessions -= 1);
                count(&counts, totals);
                let session = record.over(&sid, &counts);
                log::info!(
                    "session {sid} ended: {record}: {}, received {}, reflected {}",
                    session.ending,
                    counts.received,
                    counts.reflected
                );
                if self.over.len() == LISTED {
                    self.over.pop_front();
                    self.not_listed += 1;
                }
                self.over.push_back(session);
                None
            }
        }
    }

    /// From an address and a time that anybody can know and four octets that nobody can.
    fn new_sid(&self, server: IpAddr) -> Sid {
        loop {
            let sid = Sid::new(server.to_canonical(), os::realtime_ns(), rand::random());
            if !self.by_sid.contains_key(&sid) {
                return sid;
            }
        }
    }

    /// Ports to try: the one that is asked for (0: none) if it may be had, since twampy's controller
    /// sends to it whatever the answer says; then others, at random, as far from the well-known ones
    /// as there are any.
    fn candidates(&self, sender: SocketAddr, receiver: SocketAddr, allowed: &Ports) -> Vec<u16> {
        let wanted = receiver.port();
        let mut ports = Vec::with_capacity(TRIES + 1);
        ports.extend((wanted > 0 && allowed.contains(wanted)).then_some(wanted));
        let mut least = [20_000, FIRST_UNPRIVILEGED, 0].into_iter();
        let counted = least.find_map(|least| match allowed.count_from(least) {
            0 => None,
            count => Some((least, count)),
        });
        if let Some((least, count)) = counted {
            let others = (0..TRIES).filter_map(|_| {
                let index = rand::random_range(0..count);
                allowed.nth_from(least, index)
            });
            ports.extend(others);
        }
        if same_host(sender, receiver) {
            let is_sender = |port: &u16| {
                let mut all = self.by_sid.values().map(|record| record.sender);
                all.any(|other| other.port() == *port && other.ip() == receiver.ip())
            };
            ports.retain(|port| !is_sender(port));
        }
        ports
    }

    /// The session that a new one between the same ends takes the place of: one of the same client,
    /// stopped, and still there for its Timeout only. Who measures again and again from one port to
    /// one other, as twampy's controller does, whatever port it is told, would else be answered by a
    /// session that has been stopped, and which ends amid the new measurement.
    fn replaced(
        &self,
        client: ClientAddress,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<ServedId> {
        let record = self.by_sid.get(self.lingering.get(&(from, to))?)?;
        (record.caller.client == client).then_some(record.id)
    }

    fn is_reflector(&self, address: SocketAddr) -> bool {
        let mut all = self.by_sid.values().map(|record| record.receiver);
        all.any(|receiver| receiver.port() == address.port() && receiver.ip() == address.ip())
    }
}

impl Record {
    fn over(&self, sid: &Sid, counts: &RequestCounts) -> Session {
        Session {
            sid: sid.to_string(),
            client: self.caller.peer,
            key_id: self.key_id.clone(),
            modes: names(self.modes),
            sender: self.sender,
            receiver: self.receiver.ip(),
            receiver_port: self.receiver.port(),
            dscp: self.dscp.value(),
            granted: moment::to_the_millisecond(self.granted_ns),
            started: self.started_ns.map(moment::to_the_millisecond),
            ended: moment::to_the_millisecond(os::realtime_ns()),
            ending: self.ending.unwrap_or(Ending::Shutdown),
            received: counts.received,
            received_octets: counts.received_octets,
            reflected: counts.reflected,
            unsent: counts.unsent,
            invalid: counts.malformed(),
            forged: counts.forged(),
            over_limit: counts.over_allowance(),
            early: counts.early(),
            ignored: counts.ignored,
        }
    }
}

/// For a log.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.caller.peer)?;
        if let Some(key_id) = &self.key_id {
            write!(f, ", key id {key_id}")?;
        }
        write!(
            f,
            ", {}, from {} to {}, DSCP {}",
            self.modes, self.sender, self.receiver, self.dscp
        )
    }
}

/// Names of the bits, one by one.
pub(super) fn names(modes: Modes) -> Vec<String> {
    let bits = (0..u32::BITS).map(|bit| Modes::from_bits(1 << bit));
    let set = bits.filter(|bit| modes.contains(*bit));
    set.map(|bit| bit.to_string()).collect()
}

fn count(counts: &RequestCounts, totals: &mut Totals) {
    totals.received += counts.received;
    totals.received_octets += counts.received_octets;
    totals.reflected += counts.reflected;
    totals.unsent += counts.unsent;
    totals.invalid += counts.malformed();
    totals.forged += counts.forged();
    totals.over_limit += counts.over_allowance();
    totals.early += counts.early();
    totals.ignored.add(&counts.ignored);
    totals.bundled += counts.bundled;
    totals.estimates_unusable += counts.estimates_unusable;
}

/// Between whom, with the addresses of the control connection where there are none. The sender is
/// the client, unless the policy lets it name others.
fn ends(caller: &Caller, request: &SessionRequest) -> Result<(SocketAddr, SocketAddr), Refusal> {
    let client = caller.peer.ip().to_canonical();
    let ends = request
        .ends
        .at_control_addresses(client, caller.local.ip())
        .ok_or(Refusal::Families)?;
    let (mut sender, mut receiver) = (ends.sender(), ends.receiver());
    if sender.port() == 0 {
        return Err(Refusal::SenderPort);
    }
    let third_parties = &caller.rules.third_party_senders;
    if sender.ip() != client && !third_parties.iter().any(|net| net.contains(sender.ip())) {
        return Err(Refusal::ThirdParty(sender.ip()));
    }
    let broadcast = |ip: IpAddr| ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    for end in [sender.ip(), receiver.ip()] {
        if end.is_multicast() || broadcast(end) {
            return Err(Refusal::ToMany(end));
        }
    }
    // The wire has no scope: a link-local address is one of the link that the client is on.
    if let SocketAddr::V6(control) = caller.peer {
        for end in [&mut sender, &mut receiver] {
            if let SocketAddr::V6(end) = end
                && end.ip().is_unicast_link_local()
            {
                end.set_scope_id(control.scope_id());
            }
        }
    }
    Ok((sender, receiver))
}

/// Only there can a Session-Sender be a Session-Reflector too: see [`Refusal::Loop`].
fn same_host(sender: SocketAddr, receiver: SocketAddr) -> bool {
    sender.ip() == receiver.ip() || sender.ip().is_loopback()
}

/// The client knows this host by an address that something in between translates: one that this host
/// does not have. Then it is the address of the control connection that packets will arrive at.
fn behind_address_translation(added: &Result<(ServedId, u16), NotServed>) -> bool {
    matches!(added, Err(NotServed::Open { source, .. }) if source.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Why a session was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("addresses of two families: the control connection has not the one that is asked for")]
    Families,
    #[error("sender port 0")]
    SenderPort,
    #[error("{0} is not the address of one host")]
    ToMany(IpAddr),
    #[error(
        "sender {0} is not the client itself; third_party_senders of the policy would allow it"
    )]
    ThirdParty(IpAddr),
    /// Two Session-Reflectors that answer each other would never stop.
    #[error("sender {0} is a Session-Reflector of this server")]
    Loop(SocketAddr),
    #[error("no DSCP")]
    NoDscp,
    #[error("DSCP {0} is not in dscps of the policy")]
    Dscp(Dscp),
    #[error("{0} octets of padding, above {1}: padding of the policy")]
    Padding(u32, u32),
    #[error("the client has as many sessions as it may, {0}: sessions of the policy")]
    Sessions(usize),
    #[error("the server has as many sessions as it may, {0}: [server] sessions of the policy")]
    AllSessions(usize),
    #[error(transparent)]
    Mode(#[from] ModeRefused),
    #[error("{}", not_served(.0))]
    NotServed(#[from] NotServed),
}

impl Refusal {
    /// What Accept-Session says.
    pub(super) fn accept(&self) -> Accept {
        match self {
            Self::ThirdParty(_) | Self::Dscp(_) | Self::ToMany(_) | Self::Loop(_) => {
                Accept::Failure
            }
            Self::Families | Self::SenderPort | Self::NoDscp | Self::Mode(_) => {
                Accept::NotSupported
            }
            Self::Padding(..) | Self::Sessions(0) => Accept::PermanentLimit,
            Self::Sessions(_) | Self::AllSessions(_) | Self::NotServed(NotServed::NoPort) => {
                Accept::TemporaryLimit
            }
            Self::NotServed(NotServed::Open { source, .. }) if out_of_room(source) => {
                Accept::TemporaryLimit
            }
            Self::NotServed(NotServed::Open { .. }) => Accept::InternalError,
        }
    }
}

fn not_served(why: &NotServed) -> String {
    match why {
        NotServed::NoPort => "no free port among test_ports of the policy".to_owned(),
        NotServed::Open { .. } => why.to_string(),
    }
}

/// Too many open files, or no memory for a socket: it may be otherwise in a moment.
pub(super) fn out_of_room(error: &io::Error) -> bool {
    let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|code| scarce.contains(&code))
}

/// Whether accepting failed for what the call is, and not for the connection or for want of room: it will fail
/// each time.
pub(super) fn cannot_accept(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOSYS
                | libc::EPERM
                | libc::EACCES
                | libc::EINVAL
                | libc::EBADF
                | libc::ENOTSOCK
                | libc::EOPNOTSUPP
        )
    )
}

/// None are asked for: sessions are told apart by their addresses and ports.
const SERVER_OCTETS: [u8; 2] = [0; 2];
/// Ports below this one are known for something else, and need a right.
const FIRST_UNPRIVILEGED: u16 = 1024;
/// Ports that are tried beside the one that is asked for.
const TRIES: usize = 64;
/// Sessions that are listed in the account.
const LISTED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;
    use crate::control::crypto::SessionKeys;
    use crate::wire::{Ends, Interval, ReflectOctets, Timestamp};

    /// Remembers what it is asked for, and has some ports in use and some addresses not.
    #[derive(Default)]
    struct Fake {
        taken: Vec<u16>,
        foreign: Vec<IpAddr>,
        privileged: bool,
        added: Vec<(Served, u16)>,
        replaced: Vec<ServedId>,
    }

    impl Fake {
        fn add(&mut self, session: Served, ports: &[u16]) -> Result<(ServedId, u16), NotServed> {
            self.replaced.extend(session.replaces);
            let refuse = |kind: io::ErrorKind| NotServed::Open {
                at: SocketAddr::new(session.receiver, 0),
                source: kind.into(),
            };
            if self.foreign.contains(&session.receiver) {
                return Err(refuse(io::ErrorKind::AddrNotAvailable));
            }
            let may = |port: &u16| !self.taken.contains(port) && (self.privileged || *port >= 1024);
            let port = ports.iter().copied().find(may).ok_or(NotServed::NoPort)?;
            self.added.push((session, port));
            Ok((id(self.added.len() - 1), port))
        }
    }

    fn id(index: usize) -> ServedId {
        ServedId(index.try_into().unwrap())
    }

    #[test]
    fn counts_of_sessions_add_up() {
        use crate::report::ignored::{Ignored, Kind};

        // Every count is another one.
        let from = |first: u64, step| {
            let mut next = (first..).step_by(step);
            let mut count = move || next.next().unwrap();
            let mut ignored = Ignored::default();
            for kind in Kind::ALL {
                ignored.note(kind, count());
            }
            RequestCounts {
                received: count(),
                received_octets: count(),
                reflected: count(),
                unsent: count(),
                ignored,
                bundled: count(),
                estimates_unusable: count(),
            }
        };
        let mut totals = Totals::default();
        for counts in [from(100, 1), from(1000, 1)] {
            count(&counts, &mut totals);
        }
        let sum = from(1100, 2);
        let of = |kind| sum.ignored.of(kind);
        let (forged, over_limit, early) = (of(Kind::Forged), of(Kind::OverLimit), of(Kind::Early));
        let expected = Totals {
            received: sum.received,
            received_octets: sum.received_octets,
            reflected: sum.reflected,
            unsent: sum.unsent,
            invalid: sum.ignored.total() - forged - over_limit - early,
            forged,
            over_limit,
            early,
            ignored: sum.ignored,
            bundled: sum.bundled,
            estimates_unusable: sum.estimates_unusable,
            ..Totals::default()
        };
        assert_eq!(totals, expected);
    }

    struct Stage {
        reflectors: Fake,
        sessions: Sessions,
        clients: Clients,
        totals: Totals,
        caller: Caller,
    }

    impl Stage {
        fn new(policy: &str) -> Self {
            Self::between("192.0.2.1:5000", "192.0.2.2:862", policy)
        }

        fn between(peer: &str, local: &str, policy: &str) -> Self {
            let policy: Policy = policy.parse().unwrap();
            let peer: SocketAddr = peer.parse().unwrap();
            Self {
                reflectors: Fake::default(),
                sessions: Sessions::new(7, policy.limits.sessions),
                clients: Clients::default(),
                totals: Totals::default(),
                caller: Caller {
                    whose: Whose {
                        place: 3,
                        number: 4,
                    },
                    peer,
                    local: local.parse().unwrap(),
                    client: ClientAddress::of(peer.ip()),
                    rules: Arc::new(policy.rules(peer.ip())),
                },
            }
        }

        fn grant(&mut self, request: SessionRequest) -> Result<Grant, Refusal> {
            self.grant_in(request, Modes::UNAUTHENTICATED, None)
        }

        fn grant_in(
            &mut self,
            request: SessionRequest,
            modes: Modes,
            keys: Option<&SessionKeys>,
        ) -> Result<Grant, Refusal> {
            let asked = Asked {
                request,
                modes,
                key_id: None,
                keys,
            };
            let add = |session, ports: &[u16]| self.reflectors.add(session, ports);
            self.sessions
                .grant(&self.caller, &asked, &mut self.clients, add)
        }

        #[track_caller]
        fn refused(&mut self, request: SessionRequest) -> (Accept, String) {
            let refusal = self.grant(request).unwrap_err();
            (refusal.accept(), refusal.to_string())
        }

        fn last(&self) -> &(Served, u16) {
            self.reflectors.added.last().unwrap()
        }

        fn told(&mut self, told: ServedEvent) -> Option<(Whose, Sid)> {
            let Self {
                sessions,
                clients,
                totals,
                ..
            } = self;
            sessions.told(told, clients, totals)
        }
    }

    fn between(sender: &str, receiver: &str) -> SessionRequest {
        SessionRequest {
            ends: Ends::new(sender.parse().unwrap(), receiver.parse().unwrap()).unwrap(),
            padding_len: 64,
            start_time: Timestamp::from_raw(0),
            timeout: Interval::from_ns(2_000_000_000),
            dscp: 46,
            reflect: None,
        }
    }

    fn request() -> SessionRequest {
        between("192.0.2.1:6000", "192.0.2.2:7000")
    }

    #[test]
    fn the_port_that_is_asked_for_is_granted_or_another() {
        let mut stage = Stage::new("");
        let first = stage.grant(request()).unwrap();
        assert_eq!(first.port, 7000);
        let (served, _) = stage.last();
        assert_eq!(served.sender, "192.0.2.1:6000".parse().unwrap());
        assert_eq!(served.receiver, "192.0.2.2".parse::<IpAddr>().unwrap());
        assert_eq!((served.dscp.value(), served.refwait_ns), (46, 7));
        assert_eq!(served.timestamps, Format::Ntp);
        stage.reflectors.taken = vec![7000];
        for request in [
            request(),
            between("192.0.2.1:6001", "192.0.2.2:0"),
            // Not allowed, and not permitted.
            between("192.0.2.1:6002", "192.0.2.2:80"),
            between("192.0.2.1:6003", "192.0.2.2:862"),
        ] {
            let other = stage.grant(request).unwrap();
            assert!(other.port >= 20_000, "{}", other.port);
            assert_ne!(other.sid, first.sid);
        }
        stage.reflectors.privileged = true;
        let privileged = stage.grant(between("192.0.2.1:6004", "192.0.2.2:862"));
        assert_eq!(privileged.unwrap().port, 862);
        assert_eq!(stage.clients.get(stage.caller.client).unwrap().sessions, 6);
    }

    #[test]
    fn a_session_that_was_stopped_makes_way_for_the_next_of_its_client() {
        let mut stage = Stage::new("");
        let first = stage.grant(request()).unwrap();
        stage.sessions.start(&first.sid).unwrap();
        let replaced = |stage: &mut Stage, request: SessionRequest| {
            stage.grant(request).unwrap();
            std::mem::take(&mut stage.reflectors.replaced).pop()
        };
        // It runs.
        assert_eq!(replaced(&mut stage, request()), None);
        stage.sessions.stop(&first.sid, Ended::Stopped(Accept::Ok));
        let elsewhere = between("192.0.2.1:6001", "192.0.2.2:7000");
        assert_eq!(replaced(&mut stage, elsewhere), None);
        assert_eq!(replaced(&mut stage, request()), Some(id(0)));
        // Another client that may name this sender.
        let client = stage.caller.client;
        stage.caller.client = ClientAddress::of("198.51.100.7".parse().unwrap());
        assert_eq!(replaced(&mut stage, request()), None);
        stage.caller.client = client;
        stage.told(ServedEvent::Ended(id(0), RequestCounts::default()));
        assert_eq!(replaced(&mut stage, request()), None);
        assert!(stage.sessions.lingering.is_empty());
    }

    #[test]
    fn ports_are_those_of_the_policy() {
        let mut stage = Stage::new("default.test_ports = [\"3000-3001\", \"900\"]");
        let asked = |port: u16| between("192.0.2.1:6000", &format!("192.0.2.2:{port}"));
        assert_eq!(stage.grant(asked(3001)).unwrap().port, 3001);
        stage.reflectors.taken = vec![3001];
        assert_eq!(stage.grant(asked(3001)).unwrap().port, 3000);
        stage.reflectors.taken = vec![3000, 3001];
        let (accept, why) = stage.refused(asked(3001));
        assert_eq!(accept, Accept::TemporaryLimit);
        assert!(why.contains("test_ports"), "{why}");
    }

    #[test]
    fn missing_addresses_are_those_of_the_connection() {
        let mut stage = Stage::new("");
        stage
            .grant(between("0.0.0.0:6000", "0.0.0.0:7000"))
            .unwrap();
        let (served, _) = stage.last();
        assert_eq!(served.sender, "192.0.2.1:6000".parse().unwrap());
        assert_eq!(served.receiver, "192.0.2.2".parse::<IpAddr>().unwrap());
        // twampy says IPv4 over IPv6 too.
        let mut stage = Stage::between("[2001:db8::1]:5000", "[2001:db8::2]:862", "");
        stage
            .grant(between("0.0.0.0:6000", "0.0.0.0:7000"))
            .unwrap();
        let (served, _) = stage.last();
        assert_eq!(served.sender, "[2001:db8::1]:6000".parse().unwrap());
        let (accept, _) = stage.refused(between("192.0.2.1:6000", "0.0.0.0:7000"));
        assert_eq!(accept, Accept::NotSupported);
    }

    #[test]
    fn link_local_addresses_are_on_the_link_of_the_connection() {
        let mut stage = Stage::between("[fe80::1%9]:5000", "[fe80::2%9]:862", "");
        stage
            .grant(between("[fe80::1]:6000", "[fe80::2]:7000"))
            .unwrap();
        let (served, _) = stage.last();
        assert_eq!(served.sender, "[fe80::1%9]:6000".parse().unwrap());
    }

    #[test]
    fn an_address_that_is_not_here_stands_for_that_of_the_connection() {
        let mut stage = Stage::new("");
        let public: IpAddr = "203.0.113.9".parse().unwrap();
        stage.reflectors.foreign = vec![public];
        let grant = stage.grant(between("192.0.2.1:6000", "203.0.113.9:7000"));
        assert_eq!(grant.unwrap().port, 7000);
        assert_eq!(stage.last().0.receiver, stage.caller.local.ip());
        stage.reflectors.foreign = vec![public, stage.caller.local.ip()];
        let (accept, _) = stage.refused(between("192.0.2.1:6000", "203.0.113.9:7000"));
        assert_eq!(accept, Accept::InternalError);
    }

    #[test]
    fn third_parties_take_the_policy() {
        let other = || between("198.51.100.7:6000", "192.0.2.2:7000");
        let (accept, why) = Stage::new("").refused(other());
        assert_eq!(accept, Accept::Failure);
        assert!(why.contains("third_party_senders"), "{why}");
        let list = "default.third_party_senders = [\"198.51.100.0/24\"]";
        let mut stage = Stage::new(list);
        stage.grant(other()).unwrap();
        assert_eq!(stage.last().0.sender.to_string(), "198.51.100.7:6000");
        let (accept, _) = stage.refused(between("198.51.101.7:6000", "192.0.2.2:7000"));
        assert_eq!(accept, Accept::Failure);
        let everybody = "default.third_party_senders = [\"0.0.0.0/0\"]";
        for many in ["224.0.0.1:6000", "255.255.255.255:6000"] {
            let (accept, why) = Stage::new(everybody).refused(between(many, "192.0.2.2:7000"));
            assert_eq!(accept, Accept::Failure, "{why}");
        }
    }

    #[test]
    fn reflectors_do_not_answer_each_other() {
        let mut stage = Stage::between("127.0.0.1:5000", "127.0.0.1:862", "");
        stage
            .grant(between("127.0.0.1:6000", "127.0.0.1:7000"))
            .unwrap();
        let (accept, _) = stage.refused(between("127.0.0.1:7000", "127.0.0.1:8000"));
        assert_eq!(accept, Accept::Failure);
        let grant = stage.grant(between("127.0.0.1:6001", "127.0.0.1:6000"));
        assert_ne!(grant.unwrap().port, 6000);
    }

    #[test]
    fn limits_of_the_policy_are_told_apart() {
        let policy = "default = { sessions = 2, padding = 100, dscps = [\"be\", \"ef\"] }";
        let mut stage = Stage::new(policy);
        let padded = |padding_len| SessionRequest {
            padding_len,
            ..request()
        };
        stage.grant(padded(100)).unwrap();
        let (accept, why) = stage.refused(padded(101));
        assert_eq!(accept, Accept::PermanentLimit);
        assert!(why.contains("padding of the policy"), "{why}");
        let (accept, why) = stage.refused(SessionRequest {
            dscp: 10,
            ..request()
        });
        assert_eq!(accept, Accept::Failure);
        assert!(why.contains("dscps"), "{why}");
        let second = stage.grant(request()).unwrap();
        let (accept, why) = stage.refused(request());
        assert_eq!(accept, Accept::TemporaryLimit);
        assert!(why.contains("sessions of the policy"), "{why}");
        // Its port is in use until it is told to be over.
        stage.sessions.start(&second.sid).unwrap();
        let stopped = Ended::Stopped(Accept::Ok);
        stage.sessions.stop(&second.sid, stopped);
        assert_eq!(stage.refused(request()).0, Accept::TemporaryLimit);
        assert_eq!(
            stage.told(ServedEvent::Ended(id(1), RequestCounts::default())),
            None
        );
        stage.grant(request()).unwrap();
        let none = Stage::new("default.sessions = 0").refused(request());
        assert_eq!(none.0, Accept::PermanentLimit);
        let (accept, _) = stage.refused(between("192.0.2.1:0", "192.0.2.2:7000"));
        assert_eq!(accept, Accept::NotSupported);
        let mut stage = Stage::new("server.sessions = 1");
        stage.grant(request()).unwrap();
        let (accept, why) = stage.refused(request());
        assert_eq!(accept, Accept::TemporaryLimit);
        assert!(why.contains("[server] sessions"), "{why}");
    }

    #[test]
    fn the_format_is_that_of_the_modes() {
        let mut stage = Stage::new("");
        let keys = SessionKeys::random();
        let modes = Modes::ENCRYPTED | Modes::PTP_TIMESTAMP | Modes::REFLECT_OCTETS;
        let request = SessionRequest {
            padding_len: 100,
            reflect: Some(ReflectOctets {
                octets: [1, 2],
                padding_len: 8,
            }),
            ..request()
        };
        stage.grant_in(request, modes, Some(&keys)).unwrap();
        let (served, _) = stage.last();
        assert_eq!(served.timestamps, Format::Ptp);
        assert!(served.keys.is_some());
        assert_eq!(served.format, TestFormat::new(modes, 8, [0; 2]).unwrap());
    }

    #[test]
    fn sessions_end_once_and_after_their_timeout() {
        let mut stage = Stage::new("default.timeout = \"5s\"");
        let grant = |stage: &mut Stage, timeout_ns| {
            let request = SessionRequest {
                timeout: Interval::from_ns(timeout_ns),
                ..request()
            };
            let sid = stage.grant(request).unwrap().sid;
            stage.sessions.start(&sid).unwrap();
            sid
        };
        let short = grant(&mut stage, 2_000_000_000);
        let long = grant(&mut stage, u64::MAX);
        let silent = grant(&mut stage, 0);
        let withdrawn = stage.grant(request()).unwrap().sid;
        let mut stop = |sid, ended| stage.sessions.stop(sid, ended);
        let stopped = [
            stop(&short, Ended::Stopped(Accept::Ok)),
            stop(&long, Ended::Stopped(Accept::InternalError)),
            stop(&withdrawn, Ended::Withdrawn),
        ];
        assert_eq!(
            stopped.map(Option::unwrap),
            [(id(0), 2_000_000_000), (id(1), 5_000_000_000), (id(3), 0)]
        );
        let owner = stage.told(ServedEvent::Silent(id(2)));
        assert_eq!(owner, Some((stage.caller.whose, silent)));
        // A stop that comes too late changes nothing.
        assert_eq!(stage.sessions.stop(&silent, Ended::Lost), None);
        let lost = grant(&mut stage, 0);
        stage.sessions.stop(&lost, Ended::Lost);
        grant(&mut stage, 0);
        stage.sessions.shut_down();
        let counts = RequestCounts {
            received: 3,
            reflected: 2,
            ..RequestCounts::default()
        };
        for index in 0..6 {
            assert_eq!(stage.told(ServedEvent::Ended(id(index), counts)), None);
            // Nothing is left of it.
            assert_eq!(stage.told(ServedEvent::Ended(id(index), counts)), None);
        }
        assert_eq!(stage.sessions.len(), 0);
        assert!(stage.clients.get(stage.caller.client).is_none());
        assert_eq!((stage.totals.received, stage.totals.reflected), (18, 12));
        assert_eq!(stage.sessions.start(&short), Err(Accept::InternalError));
        let (listed, more) = stage.sessions.into_listed();
        let endings: Vec<Ending> = listed.iter().map(|session| session.ending).collect();
        assert_eq!(
            endings,
            [
                Ending::Stopped,
                Ending::Failed,
                Ending::Silent,
                Ending::Withdrawn,
                Ending::Lost,
                Ending::Shutdown
            ]
        );
        assert_eq!(more, 0);
    }
}
