//! The loop of a Server: accepts connections, and gives each of them its turns.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::caller::{Caller, Whose};
use super::clients::{ClientAddress, Clients};
use super::connection::{Connection, Next};
use super::keys::{Keys, KeysError};
use super::net;
use super::offer::offered;
use super::reload::Reload;
use super::sessions::{Sessions, cannot_accept, names, out_of_room};
use super::shared::{SECOND, Shared, Warnings};
use super::table::Table;
use super::tokens::Checks;
use crate::config::{Limits, Prefix, Rules, Seconds, ServerConfig};
use crate::control::server::{Nonces, Patience, Server, Terms};
use crate::engine::served::{Reflectors, ServedEvent};
use crate::engine::{self, Stop};
use crate::os;
use crate::report::FailedCall;
use crate::report::ignored::{Ignored, Kind};
use crate::report::note::System;
use crate::report::server::{Account, Schema, Totals};
use crate::report::unsent::Unsent;
use crate::wire::{Format, Modes, Timestamp};

/// Why a Server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The file of keys is none: the user's to mend.
    #[error("{}: {why}", path.display())]
    Keys {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: KeysError,
    },
    /// No mode is left to be offered: the user's to mend.
    #[error("{0} take a key: use --keys-file, or add unauthenticated")]
    NoMode(Modes),
    /// A socket or a thread.
    #[error(transparent)]
    Engine(#[from] engine::Failure),
}

/// What a running Server has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Control connections at the moment.
    pub connections: usize,
    /// Sessions at the moment.
    pub sessions: usize,
    /// Sessions that were granted so far.
    pub granted: u64,
    /// Test packets that were not answered so far.
    pub ignored: Ignored,
    /// Replies that could not be sent so far, by the error.
    pub unsent: Unsent,
}

struct Listener {
    socket: TcpListener,
    /// There may be more connections to accept: edges come once.
    ready: bool,
}

/// A Server that listens.
pub struct Serving {
    config: ServerConfig,
    stop: Stop,
    reload: Reload,
    poll: Poll,
    /// Kept for whoever wakes it.
    _waker: Arc<Waker>,
    listeners: Vec<Listener>,
    listen: Vec<SocketAddr>,
    /// No accept before: there were no descriptors.
    accept_again_ns: Option<i64>,
    /// Why no connection can be accepted any more: it ends the Server.
    failure: Option<FailedCall>,
    /// A descriptor in reserve, to turn a connection away with where there are none left.
    spare: Option<File>,
    most_connections: usize,
    start_time: Timestamp,
    table: Table,
    /// Places of connections that have more to do.
    queue: VecDeque<usize>,
    connections_so_far: u64,
    shared: Shared,
    told: Receiver<ServedEvent>,
    remarks: Vec<System>,
}

impl Serving {
    /// Reads the keys, opens the sockets and starts the threads. `stop` ends them, and `reload` has the
    /// keys read again.
    ///
    /// # Errors
    /// [`Failure`], such as a port in use.
    pub fn start(config: &ServerConfig, stop: &Stop, reload: &Reload) -> Result<Self, Failure> {
        let keys = load_keys(config)?;
        let mut rules = config.policy.each();
        if rules.all(|(_, rules)| offered(config, &rules, &keys) == Modes::NONE) {
            let all = config.security.unwrap_or(Modes::SECURITY);
            return Err(Failure::NoMode(all.without(Modes::UNAUTHENTICATED)));
        }
        let limits = config.policy.limits;
        let mut remarks = Vec::new();
        let most_connections = descriptors_for(limits.connections, &mut remarks);
        let control = |source| engine::Failure::Start {
            thread: "control",
            source,
        };
        let poll = Poll::new().map_err(control)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(control)?;
        let waker = stop.wakes(waker);
        reload.wakes(&waker);
        let (listeners, listen) = open_listeners(config, poll.registry())?;
        let checks = Checks::start(key_threads(), limits.token_checks, &waker);
        let checks = checks.map_err(|source| engine::Failure::Start {
            thread: "keys",
            source,
        })?;
        let reflectors = Reflectors::start(&config.served, stop, &waker)?;
        let told = reflectors.events().clone();
        Ok(Self {
            stop: stop.clone(),
            reload: reload.clone(),
            poll,
            _waker: waker,
            listeners,
            listen,
            accept_again_ns: None,
            failure: None,
            spare: spare(),
            most_connections,
            start_time: Timestamp::from_unix_ns(os::realtime_ns(), Format::Ntp),
            table: Table::default(),
            queue: VecDeque::new(),
            connections_so_far: 0,
            shared: Shared {
                keys,
                checks,
                unchecked: Vec::new(),
                clients: Clients::default(),
                sessions: Sessions::new(signed_ns(limits.refwait), limits.sessions),
                reflectors,
                totals: Totals::default(),
                warnings: Warnings::default(),
            },
            told,
            remarks,
            config: config.clone(),
        })
    }

    /// Addresses and ports that are listened on.
    #[must_use]
    pub fn local(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// What the system does not have, such as room for as many connections as are wanted.
    #[must_use]
    pub fn remarks(&self) -> &[System] {
        &self.remarks
    }

    /// Modes that are offered at most.
    #[must_use]
    pub fn modes(&self) -> Modes {
        self.offers()
            .into_iter()
            .fold(Modes::NONE, |sum, (_, modes)| sum | modes)
    }

    /// What is offered to everybody, and after that to clients in networks that get something else.
    #[must_use]
    pub fn offers(&self) -> Vec<(Option<Prefix>, Modes)> {
        let offer = |(prefix, rules)| (prefix, offered(&self.config, &rules, &self.shared.keys));
        let mut offers: Vec<_> = self.config.policy.each().map(offer).collect();
        let everybody = offers.first().map(|(_, modes)| *modes);
        offers.retain(|(prefix, modes)| prefix.is_none() || Some(*modes) != everybody);
        offers
    }

    /// Serves until stopped, and shows about once a second how it goes; returns what was done.
    ///
    /// # Errors
    /// [`Failure`] of a thread.
    pub fn run(mut self, mut show: impl FnMut(Progress)) -> Result<Account, Failure> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        let mut next_show_ns = os::monotonic_ns();
        while !self.stop.requested() {
            let now_ns = os::monotonic_ns();
            if next_show_ns <= now_ns {
                show(Progress {
                    connections: self.table.len(),
                    sessions: self.shared.sessions.len(),
                    granted: self.shared.totals.sessions,
                    ignored: self.shared.reflectors.ignored_and_drops().0,
                    unsent: self.shared.reflectors.unsent(),
                });
                next_show_ns = now_ns + SECOND;
            }
            let wait = self.wait(now_ns, next_show_ns);
            if let Err(source) = self.poll.poll(&mut events, Some(wait))
                && source.kind() != io::ErrorKind::Interrupted
            {
                let thread = "control";
                return Err(engine::Failure::Start { thread, source }.into());
            }
            for event in &events {
                let reads = event.is_readable() || event.is_read_closed() || event.is_error();
                self.note(event.token(), reads);
            }
            let now_ns = os::monotonic_ns();
            if self.reload.take() {
                self.reload_keys();
                self.reload_policy();
            }
            self.hear_reflectors(now_ns);
            self.hear_checks(now_ns);
            self.accept(now_ns);
            self.watch_deadlines(now_ns, &mut buffer);
            self.attend_queued(now_ns, &mut buffer);
        }
        self.finish()
    }

    /// How long to wait for something to happen.
    fn wait(&self, now_ns: i64, next_show_ns: i64) -> Duration {
        let accepts = self.listeners.iter().any(|listener| listener.ready);
        let at_once = !self.queue.is_empty()
            || !self.told.is_empty()
            || accepts && self.accept_again_ns.is_none();
        if at_once {
            return Duration::ZERO;
        }
        let moments = [self.table.next_due_ns(), self.accept_again_ns];
        let first_ns = moments.into_iter().flatten().fold(next_show_ns, i64::min);
        Duration::from_nanos(u64::try_from(first_ns - now_ns).unwrap_or(0))
    }

    fn note(&mut self, token: Token, reads: bool) {
        if token == WAKER {
            return;
        }
        let Some(place) = token.0.checked_sub(FIRST_CONNECTION) else {
            if let Some(listener) = self.listeners.get_mut(token.0 - FIRST_LISTENER) {
                listener.ready = true;
            }
            return;
        };
        if let Some(connection) = self.table.at(place) {
            if reads {
                // Octets, an end or an error: reading tells.
                connection.became_readable();
            }
            self.enqueue(place);
        }
    }

    fn enqueue(&mut self, place: usize) {
        if let Some(connection) = self.table.at(place)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.queue.push_back(place);
        }
    }

    fn hear_reflectors(&mut self, now_ns: i64) {
        let told = self.told.clone();
        for event in told.try_iter().take(TOLD_AT_A_TIME) {
            self.heard(now_ns, event);
        }
    }

    fn heard(&mut self, now_ns: i64, told: ServedEvent) {
        if let ServedEvent::Ended(id, counts) = &told
            && counts.over_allowance() > 0
            && let Some(session) = self.shared.sessions.named(*id)
        {
            // A Session-Sender sees them as lost on the way here.
            self.shared.warn(format_args!(
                "{session}: {} of {} test packets were beyond packet_rate or bit_rate of the policy, \
                 and not answered",
                counts.over_allowance(),
                counts.received
            ));
        }
        let Shared {
            sessions,
            clients,
            totals,
            ..
        } = &mut self.shared;
        if let Some((whose, sid)) = sessions.told(told, clients, totals)
            && let Some(connection) = self.table.get(whose)
        {
            connection.expired(now_ns, &sid);
            self.table.reschedule(whose.place);
        }
    }

    fn hear_checks(&mut self, now_ns: i64) {
        while let Some((whose, keys)) = self.shared.checks.next() {
            self.checked(now_ns, whose, Some(keys));
        }
    }

    fn checked(
        &mut self,
        now_ns: i64,
        whose: Whose,
        checked: Option<Option<crate::control::crypto::SessionKeys>>,
    ) {
        if let Some(connection) = self.table.get(whose) {
            connection.token_checked(now_ns, checked);
            self.enqueue(whose.place);
        }
    }

    fn watch_deadlines(&mut self, now_ns: i64, buffer: &mut [u8]) {
        for _ in 0..DUE_AT_A_TIME {
            let due = self.table.due(now_ns);
            let Some((place, connection)) =
                due.and_then(|place| Some((place, self.table.at(place)?)))
            else {
                return;
            };
            match connection.due(now_ns, &mut self.shared) {
                Next::Close => self.close(place),
                Next::Again | Next::Wait => self.attend(now_ns, place, buffer),
            }
        }
    }

    /// Each that has more to do, once.
    fn attend_queued(&mut self, now_ns: i64, buffer: &mut [u8]) {
        for _ in 0..self.queue.len() {
            let Some(place) = self.queue.pop_front() else {
                return;
            };
            if let Some(connection) = self.table.at(place) {
                connection.queued = false;
                self.attend(now_ns, place, buffer);
            }
        }
    }

    fn attend(&mut self, now_ns: i64, place: usize, buffer: &mut [u8]) {
        let Some(connection) = self.table.at(place) else {
            return;
        };
        let registry = self.poll.registry();
        let next = connection.attend(now_ns, buffer, &mut self.shared, registry);
        if connection.was_set_up() {
            let Caller {
                whose,
                client,
                peer,
                ..
            } = connection.caller;
            log::info!("{peer}: set up: {}", connection.modes());
            self.table.set_up(whose);
            let clients = &mut self.shared.clients;
            clients.change_known(client, |own| own.half_open -= 1);
            self.shared.totals.set_up += 1;
        }
        match next {
            Next::Close => self.close(place),
            Next::Again => {
                self.enqueue(place);
                self.table.reschedule(place);
            }
            Next::Wait => self.table.reschedule(place),
        }
        for whose in std::mem::take(&mut self.shared.unchecked) {
            self.checked(now_ns, whose, None);
        }
    }

    /// Forgets a connection; its machine has given its sessions back.
    fn close(&mut self, place: usize) {
        let Some(mut connection) = self.table.remove(place) else {
            return;
        };
        let caller = &connection.caller;
        self.shared.checks.forget(caller.client, caller.whose);
        let half_open = usize::from(connection.is_half_open());
        let clients = &mut self.shared.clients;
        clients.change_known(caller.client, |own| {
            own.connections -= 1;
            own.half_open -= half_open;
        });
        connection.deregister(self.poll.registry());
    }

    fn accept(&mut self, now_ns: i64) {
        if self.accept_again_ns.is_some_and(|again| again > now_ns) {
            return;
        }
        self.accept_again_ns = None;
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_AT_A_TIME {
                let Some(listener) = self.listeners.get_mut(index).filter(|l| l.ready) else {
                    break;
                };
                match listener.socket.accept() {
                    Ok((stream, peer)) => self.admit(now_ns, stream, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.ready = false;
                    }
                    Err(error) if out_of_room(&error) => {
                        self.turn_away_with_the_spare(index);
                        // Whoever else waits stays in the backlog until somebody has gone.
                        self.accept_again_ns = Some(now_ns + ACCEPT_AGAIN_NS);
                        self.shared
                            .warn(format_args!("cannot accept a connection: {error}"));
                        return;
                    }
                    Err(error) if cannot_accept(&error) => {
                        let errno = error.raw_os_error().unwrap_or(0);
                        self.failure = Some(FailedCall::new("accept", errno));
                        return self.stop.request();
                    }
                    // One that was broken before it was accepted (accept(2)); the next one is at
                    // the next turn, should all be so.
                    Err(error) => {
                        log::debug!("cannot accept a connection: {error}");
                        self.accept_again_ns = Some(now_ns + ACCEPT_AGAIN_NS);
                        break;
                    }
                }
            }
        }
    }

    fn turn_away_with_the_spare(&mut self, index: usize) {
        self.spare = None;
        if let Some(listener) = self.listeners.get_mut(index)
            && let Ok((stream, _)) = listener.socket.accept()
        {
            self.turn_away(stream);
        }
        self.spare = spare();
    }

    /// A connection that has just been made.
    fn admit(&mut self, now_ns: i64, stream: TcpStream, peer: SocketAddr) {
        self.shared.totals.connections += 1;
        let client = ClientAddress::of(peer.ip());
        let limits = self.config.policy.limits;
        let own = self.shared.clients.get(client);
        let (own, own_half_open) = own.map_or((0, 0), |own| (own.connections, own.half_open));
        if self.table.len() >= self.most_connections {
            let most = self.most_connections;
            self.shared.warn(format_args!(
                "{peer}: turned away: {most} connections (connections of the policy, or open files)"
            ));
            return self.turn_away(stream);
        }
        if own >= limits.connections_per_address {
            self.shared.warn(format_args!(
                "{peer}: turned away: {own} connections from {client} (connections_per_address of the policy)"
            ));
            return self.turn_away(stream);
        }
        if let Some(place) = self
            .table
            .makes_room(limits.half_open, client, own_half_open)
        {
            self.shared.totals.made_room += 1;
            if let Some(connection) = self.table.at(place) {
                connection.abandon(&mut self.shared);
            }
            self.close(place);
        }
        // One that has gone already is no loss.
        let (Ok(()), Ok(local)) = (net::prepare(&stream), stream.local_addr()) else {
            return;
        };
        let rules = self.config.policy.rules(peer.ip());
        let place = self.table.next_place();
        let caller = Caller {
            whose: Whose {
                place,
                number: self.connections_so_far,
            },
            peer,
            local,
            client,
            rules: Arc::new(rules),
        };
        self.connections_so_far += 1;
        let terms = self.terms(&caller.rules, &limits);
        let machine = Server::new(now_ns, terms, Nonces::random());
        let token = Token(FIRST_CONNECTION + place);
        let rules = Arc::clone(&caller.rules);
        let mut connection = Connection::new(caller, stream, machine, token);
        if let Err(error) = connection.register(self.poll.registry()) {
            log::warn!("{peer}: cannot watch the connection: {error}");
            return;
        }
        self.shared.clients.change(client, &rules, |own| {
            own.connections += 1;
            own.half_open += 1;
        });
        self.table.insert(connection);
        let most = &mut self.shared.totals.most_connections;
        *most = (*most).max(u64::try_from(self.table.len()).unwrap_or(u64::MAX));
        self.table.reschedule(place);
        self.enqueue(place);
    }

    fn terms(&self, rules: &Rules, limits: &Limits) -> Terms {
        Terms {
            modes: offered(&self.config, rules, &self.shared.keys),
            count: self.config.count,
            start_time: self.start_time,
            // None at all is for the policy to refuse, as what it is.
            most_sessions: rules.sessions.clamp(1, MOST_SESSIONS),
            patience: Patience {
                set_up_ns: signed_ns(limits.set_up_timeout),
                message_ns: signed_ns(limits.message_timeout),
                servwait_ns: signed_ns(limits.servwait),
                refwait_ns: signed_ns(limits.refwait),
            },
        }
    }

    /// A greeting without any mode, and no more (RFC 4656 §3.1).
    fn turn_away(&mut self, mut stream: TcpStream) {
        self.shared.totals.turned_away += 1;
        let terms = Terms {
            modes: Modes::NONE,
            count: self.config.count,
            start_time: self.start_time,
            most_sessions: 1,
            patience: Patience::default(),
        };
        let machine = Server::new(0, terms, Nonces::random());
        // A new connection has room for that; where it has not, closing says the same.
        let _ = stream.write_all(machine.output());
    }

    fn reload_keys(&mut self) {
        if self.config.keys.is_none() {
            return;
        }
        match load_keys(&self.config) {
            Ok(keys) => {
                // Whoever sent the signal wants to know.
                log::warn!("the keys were read again: {}", keys.len());
                self.shared.keys = keys;
            }
            Err(failure) => log::error!("the keys stay as they were: {failure}"),
        }
    }

    /// Who is connected keeps the rules that he has.
    fn reload_policy(&mut self) {
        match self.reload.take_policy() {
            None => {}
            Some(Ok(mut policy)) => {
                let limits = self.config.policy.limits;
                if policy.limits == limits {
                    log::warn!("the policy was read again: it counts for new connections");
                } else {
                    log::warn!(
                        "the policy was read again: it counts for new connections, but what it says \
                         in [server] takes a restart"
                    );
                }
                policy.limits = limits;
                self.config.policy = policy;
            }
            Some(Err(why)) => log::error!("the policy stays as it was: {why}"),
        }
    }

    /// Ends everything, and sums up.
    fn finish(mut self) -> Result<Account, Failure> {
        // Connections close; their sessions end with the threads, and by no fault of theirs.
        self.shared.sessions.shut_down();
        self.table = Table::default();
        self.listeners.clear();
        let (ignored, drops) = self.shared.reflectors.ignored_and_drops();
        let strays = ignored.of(Kind::NoSession);
        let modes = names(self.modes());
        let Shared {
            checks,
            mut clients,
            mut sessions,
            reflectors,
            mut totals,
            ..
        } = self.shared;
        checks.finish();
        let calls = reflectors.wait()?;
        for event in self.told.try_iter() {
            sessions.told(event, &mut clients, &mut totals);
        }
        let (sessions, sessions_not_listed) = sessions.into_listed();
        totals.strays = strays;
        totals.ignored.note(Kind::NoSession, strays);
        totals.kernel_drops = drops;
        totals.unsent_by = calls.unsent;
        Ok(Account {
            schema: Schema::Version1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: self.listen,
            modes,
            totals,
            sessions,
            sessions_not_listed,
            refused_calls: calls.refused,
            failure: self.failure.or(calls.failure),
        })
    }
}

/// Listens on every address that is to be listened on; returns also which they came to be.
fn open_listeners(
    config: &ServerConfig,
    registry: &Registry,
) -> Result<(Vec<Listener>, Vec<SocketAddr>), Failure> {
    let mut listeners = Vec::new();
    let mut listen: Vec<SocketAddr> = Vec::new();
    for wanted in &config.listen {
        let mut address = *wanted;
        if let (0, Some(first)) = (address.port(), listen.first()) {
            // The same one for every address.
            address.set_port(first.port());
        }
        let open = || {
            let socket = net::listen(address, config.served.socket.interface.as_deref())?;
            let local = socket.local_addr()?;
            let mut socket = TcpListener::from_std(socket);
            let token = Token(FIRST_LISTENER + listeners.len());
            registry.register(&mut socket, token, Interest::READABLE)?;
            Ok((socket, local))
        };
        let (socket, local) = open().map_err(|source| engine::Failure::Open {
            what: address.to_string(),
            end: engine::End::Here(address.ip()),
            source,
        })?;
        listen.push(local);
        listeners.push(Listener {
            socket,
            ready: true,
        });
    }
    Ok((listeners, listen))
}

fn load_keys(config: &ServerConfig) -> Result<Keys, Failure> {
    let Some(path) = &config.keys else {
        return Ok(Keys::default());
    };
    Keys::load(path).map_err(|why| Failure::Keys {
        path: path.clone(),
        why,
    })
}

/// Raises the limit of open files; returns how many connections fit, up to `wanted`.
fn descriptors_for(wanted: usize, remarks: &mut Vec<System>) -> usize {
    let ask = u64::try_from(wanted).unwrap_or(u64::MAX) + DESCRIPTORS_BESIDE;
    let Some(limit) = os::raise_open_files(ask) else {
        return wanted;
    };
    // Sessions need some too.
    let beside = DESCRIPTORS_BESIDE.min(limit / 4);
    let room = usize::try_from(limit - beside).unwrap_or(usize::MAX);
    if room < wanted {
        remarks.push(System::FewFiles {
            room,
            wanted,
            limit,
        });
    }
    room.min(wanted)
}

/// One for each two CPUs, up to two: test packets come first.
fn key_threads() -> usize {
    (engine::cpus().len() / 2).clamp(1, 2)
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn signed_ns(time: Seconds) -> i64 {
    time.span().signed_ns()
}

const WAKER: Token = Token(0);
const FIRST_LISTENER: usize = 1;
const FIRST_CONNECTION: usize = 1024;
/// What is read of one connection before others have their turn: some 18 commands.
const BUFFER: usize = 2048;
/// Connections that are accepted before others have their turn.
const ACCEPTS_AT_A_TIME: usize = 64;
/// Ends of sessions that are noted before others have their turn.
const TOLD_AT_A_TIME: usize = 1024;
/// Deadlines that are seen to before others have their turn.
const DUE_AT_A_TIME: usize = 256;
/// How long to leave connections unaccepted where there are no descriptors.
const ACCEPT_AGAIN_NS: i64 = 100_000_000;
/// Descriptors for sessions, listeners and threads.
const DESCRIPTORS_BESIDE: u64 = 1088;
/// Sessions of one connection at most; a command names no more.
const MOST_SESSIONS: usize = 4096;
