//! A Server's side of one control connection: a state machine without socket, clock or thread.
//!
//! Whoever owns the connection gives it octets and the time, sends what [`output`](Server::output)
//! has, and comes back by [`deadline`](Server::deadline). What only the surroundings can know or do
//! (who may use what, which port is free, sockets of Session-Reflectors) it asks of a [`Host`].
//! Time is nanoseconds of a clock that does not jump; only differences count.
//!
//! Invariant: each session that the host granted is given back to it once, by
//! [`Host::stop`], whatever the peer does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::codec::{Broken, Codec};
use super::crypto::{Passphrase, SessionKeys, TokenCheck};
use crate::wire::control::{
    AcceptSession, Answer, Command, Count, KeyId, Malformed, ServerGreeting, SetUpResponse,
    StopSessions,
};
use crate::wire::{
    Accept, ModeRefused, Modes, RequestTwSession, SecurityMode, SessionRequest, Sid, Timestamp,
    Unacceptable,
};

/// What a Server offers to every client.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Modes of the Server-Greeting; [`Modes::NONE`] turns clients away.
    pub modes: Modes,
    /// Iterations of the key derivation.
    pub count: Count,
    /// When this Server began, in NTP format; told to every client alike (RFC 4656 §3.1).
    pub start_time: Timestamp,
    /// How many sessions one connection may have at a time, and so how long a command may be.
    pub most_sessions: usize,
    /// How long it waits, and for what.
    pub patience: Patience,
}

/// How long a Server waits, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the first octet of the Server-Greeting to the last of the Set-Up-Response.
    pub set_up_ns: i64,
    /// For the rest of a command that has begun; and for a peer to take a last answer.
    pub message_ns: i64,
    /// SERVWAIT: for anything at all while no session runs (RFC 5357 §3.1).
    pub servwait_ns: i64,
    /// REFWAIT: for a packet of a session that runs (RFC 5357 §4.2). Test packets are not seen
    /// here: the Session-Reflector measures it, and tells by [`Server::expired`].
    pub refwait_ns: i64,
}

impl Default for Patience {
    /// 900 s for SERVWAIT and REFWAIT, as the RFC has them; 10 s for what a peer that means well
    /// does at once.
    fn default() -> Self {
        Self {
            set_up_ns: 10 * SECOND,
            message_ns: 10 * SECOND,
            servwait_ns: 900 * SECOND,
            refwait_ns: 900 * SECOND,
        }
    }
}

/// Random octets of one connection.
#[derive(Clone, Debug)]
pub struct Nonces {
    /// For the Token.
    pub challenge: [u8; 16],
    /// For the key derivation.
    pub salt: [u8; 16],
    /// For all that the Server will send.
    pub server_iv: [u8; 16],
}

impl Nonces {
    /// From a cryptographic generator.
    #[must_use]
    pub fn random() -> Self {
        Self {
            challenge: rand::random(),
            salt: rand::random(),
            server_iv: rand::random(),
        }
    }
}

/// What a Server asks of its surroundings; answered at once, except for the Token.
pub trait Host {
    /// The passphrase that a KeyID names.
    fn passphrase(&mut self, key_id: &KeyId) -> Option<Passphrase>;

    /// Wants the check run, on a thread that may take its time, and its result given to
    /// [`Server::token_checked`].
    fn check_token(&mut self, check: TokenCheck);

    /// May this session be, on which port, and by which name?
    ///
    /// # Errors
    /// The Accept value of the refusal.
    fn grant(&mut self, asked: &Asked<'_>) -> Result<Grant, Accept>;

    /// Starts a session that was granted; its Session-Reflector must be ready on return.
    ///
    /// # Errors
    /// The Accept value of the refusal.
    fn start(&mut self, sid: &Sid) -> Result<(), Accept>;

    /// Takes a session back. One that ran goes on for the Timeout that it asked for.
    fn stop(&mut self, sid: &Sid, ending: Ending);

    /// Something for a log.
    fn remark(&mut self, remark: &Remark);
}

/// A session that could be.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the client wants.
    pub request: SessionRequest,
    /// What both sides agreed on.
    pub modes: Modes,
    /// Who the client is, if it has proved to be somebody.
    pub key_id: Option<&'a KeyId>,
    /// To make the keys of the test packets from, in the modes that protect them.
    pub keys: Option<&'a SessionKeys>,
}

/// A session that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// UDP port of the Session-Reflector: the one asked for, or another that is free.
    pub port: u16,
    /// Unique: see [`Sid::new`].
    pub sid: Sid,
    /// What the Session-Sender shall put first into the padding to reflect; zero: nothing
    /// (RFC 6038 §4.3). Only told in that mode.
    pub server_octets: [u8; 2],
}

/// How a session came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By the client's command; if not OK, its results should be considered invalid.
    Stopped(Accept),
    /// It ran, and no stop came: its results may be invalid (RFC 5357 §3.8).
    Lost,
    /// It never ran.
    Withdrawn,
}

/// What happened and left the connection as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Remark {
    /// A request that nobody could grant.
    #[error("session refused: {0}")]
    Unacceptable(Unacceptable),
    /// A request beyond [`Terms::most_sessions`].
    #[error("session refused: there are {0} on this connection already: sessions of the policy")]
    TooManySessions(usize),
    /// A request, or a start, that the host refused.
    #[error("refused by the host: {0}")]
    Host(Accept),
    /// Start-Sessions without a session.
    #[error("nothing to start")]
    NothingToStart,
    /// Start-N-Sessions or Stop-N-Sessions for a session that there is not, or that runs already
    /// or does not.
    #[error("session {0} cannot be started or stopped now")]
    NoSuchSession(Sid),
    /// Stop-Sessions with a count of 0, taken as all: what twampy sends.
    #[error("Stop-Sessions counts no sessions; taken as all {0}")]
    StopCountZero(usize),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The client closed, between messages.
    #[error("closed by the client")]
    Closed,
    /// The Server does not want to talk.
    #[error("no mode was offered")]
    TurnedAway,
    /// The mode that the client chose.
    #[error(transparent)]
    Mode(ModeRefused),
    /// An unknown KeyID, or a passphrase that is not its own.
    #[error("key id {0} or its passphrase is wrong")]
    Token(KeyId),
    /// Nobody had the time to check the Token.
    #[error("too many keys wait to be checked")]
    Busy,
    /// Octets that are no message.
    #[error(transparent)]
    Broken(Broken),
    /// A message at the wrong time.
    #[error("{0} out of turn")]
    OutOfTurn(&'static str),
    /// Stop-Sessions for another number of sessions than run (RFC 5357 §3.8).
    #[error("Stop-Sessions counts {told} sessions, {running} run")]
    StopCount {
        /// Number of Sessions.
        told: u32,
        /// What it should have been.
        running: usize,
    },
    /// Nothing came in time.
    #[error("timed out: {0}")]
    TimedOut(Wait),
}

/// What a Server waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The Set-Up-Response.
    SetUp,
    /// The rest of a command.
    Message,
    /// Anything: SERVWAIT.
    Servwait,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SetUp => "no Set-Up-Response",
            Self::Message => "a command stopped in the middle",
            Self::Servwait => "SERVWAIT",
        })
    }
}

/// One control connection.
#[derive(Debug)]
pub struct Server {
    terms: Terms,
    nonces: Nonces,
    codec: Codec,
    state: State,
    sessions: Sessions,
    /// When the client was last heard, or the last session that ran was.
    last_activity_ns: i64,
    /// Since when the command at hand has not been whole.
    amid_message_since_ns: Option<i64>,
}

#[derive(Debug)]
enum State {
    SetUp {
        since_ns: i64,
    },
    TokenCheck(SetUpResponse),
    /// Set up: between sessions, or with sessions that run.
    Open(Agreed),
    Ended(End),
}

impl Server {
    /// A connection that a client has just opened; the Server-Greeting is in
    /// [`output`](Self::output).
    #[must_use]
    pub fn new(now_ns: i64, terms: Terms, nonces: Nonces) -> Self {
        let mut codec = Codec::new(terms.most_sessions);
        let (challenge, salt) = (nonces.challenge, nonces.salt);
        codec.greet(&ServerGreeting::new(
            terms.modes,
            challenge,
            salt,
            terms.count,
        ));
        let state = if terms.modes == Modes::NONE {
            State::Ended(End::TurnedAway)
        } else {
            State::SetUp { since_ns: now_ns }
        };
        Self {
            terms,
            nonces,
            codec,
            state,
            sessions: Sessions::default(),
            last_activity_ns: now_ns,
            amid_message_since_ns: None,
        }
    }

    /// Takes octets from the client, and says how many.
    ///
    /// It takes none while a Token is checked, or while the client does not read its answers: then
    /// the caller keeps them and gives them again, after [`token_checked`](Self::token_checked) or
    /// [`sent`](Self::sent).
    pub fn receive(&mut self, now_ns: i64, octets: &[u8], host: &mut impl Host) -> usize {
        if self.ended().is_some() {
            // What a client says after the end is of no interest.
            return octets.len();
        }
        let mut input = octets;
        while !input.is_empty() {
            match &self.state {
                State::SetUp { .. } => {
                    if let Some(response) = self.codec.set_up_response(&mut input) {
                        self.set_up(&response, host);
                    }
                }
                State::Open(_) if self.codec.output().len() < MOST_OUTPUT => {
                    match self.codec.command(&mut input) {
                        Ok(Some(command)) => {
                            self.amid_message_since_ns = None;
                            self.obey(command, host);
                        }
                        Ok(None) => {}
                        Err(broken) => self.give_up_on(broken, host),
                    }
                }
                State::TokenCheck(_) | State::Open(_) => break,
                State::Ended(_) => input = &[],
            }
        }
        if input.len() < octets.len() {
            self.last_activity_ns = now_ns;
        }
        self.amid_message_since_ns = self
            .codec
            .is_amid_message()
            .then(|| self.amid_message_since_ns.unwrap_or(now_ns));
        octets.len() - input.len()
    }

    /// The result of a [`TokenCheck`]. Ignored when the connection has ended in the meantime.
    pub fn token_checked(&mut self, now_ns: i64, keys: Option<SessionKeys>) {
        let State::TokenCheck(response) = &self.state else {
            return;
        };
        let response = *response;
        self.last_activity_ns = now_ns;
        match (keys, self.terms.modes.admit(response.mode)) {
            (_, Err(refused)) => self.refuse_mode(refused),
            (Some(keys), Ok(security)) => {
                self.open(&response, security, Some((response.key_id, keys)));
            }
            (None, Ok(_)) => {
                self.codec.refuse(Accept::Failure);
                self.state = State::Ended(End::Token(response.key_id));
            }
        }
    }

    /// The [`TokenCheck`] will not be run: too many others wait. The client may try again later.
    pub fn token_not_checked(&mut self, now_ns: i64) {
        if matches!(self.state, State::TokenCheck(_)) {
            self.last_activity_ns = now_ns;
            self.codec.refuse(Accept::TemporaryLimit);
            self.state = State::Ended(End::Busy);
        }
    }

    /// REFWAIT ended a session that was started here. When it has ended all of them, SERVWAIT
    /// begins anew, as after Stop-Sessions (RFC 5357 §3.1).
    pub fn expired(&mut self, now_ns: i64, sid: &Sid) {
        if self.sessions.expire(sid) {
            self.last_activity_ns = now_ns;
        }
    }

    /// The client closed, or the connection broke.
    pub fn disconnected(&mut self, host: &mut impl Host) {
        self.codec.sent(usize::MAX);
        self.end(End::Closed, host);
    }

    /// By when to call [`handle_deadline`](Self::handle_deadline), unless something happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        self.waits_for().map(|(_, by_ns)| by_ns)
    }

    /// Ends the connection if its time has come. Early calls do nothing.
    pub fn handle_deadline(&mut self, now_ns: i64, host: &mut impl Host) {
        match self.waits_for() {
            Some((wait, by_ns)) if by_ns <= now_ns => {
                // Who does not read in time gets no more.
                self.codec.sent(usize::MAX);
                self.end(End::TimedOut(wait), host);
            }
            _ => {}
        }
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.codec.output()
    }

    /// The first `count` octets of [`output`](Self::output) are on their way.
    pub fn sent(&mut self, count: usize) {
        self.codec.sent(count);
    }

    /// Why the connection is over; to be closed as soon as [`output`](Self::output) is empty.
    #[must_use]
    pub const fn ended(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// What the set-up agreed on, once it is over.
    #[must_use]
    pub const fn modes(&self) -> Option<Modes> {
        match &self.state {
            State::Open(agreed) => Some(agreed.modes),
            _ => None,
        }
    }

    fn waits_for(&self) -> Option<(Wait, i64)> {
        let patience = self.terms.patience;
        let (wait, since_ns, patience_ns) = match &self.state {
            // Octets of a Set-Up-Response buy no time.
            State::SetUp { since_ns } => (Wait::SetUp, *since_ns, patience.set_up_ns),
            // The work is our own.
            State::TokenCheck(_) => return None,
            State::Ended(_) if self.codec.output().is_empty() => return None,
            State::Ended(_) => (Wait::Message, self.last_activity_ns, patience.message_ns),
            State::Open(_) => match self.amid_message_since_ns {
                Some(since_ns) => (Wait::Message, since_ns, patience.message_ns),
                None if self.sessions.any_runs() => return None,
                None => (Wait::Servwait, self.last_activity_ns, patience.servwait_ns),
            },
        };
        Some((wait, since_ns.saturating_add(patience_ns)))
    }

    fn set_up(&mut self, response: &SetUpResponse, host: &mut impl Host) {
        match self.terms.modes.admit(response.mode) {
            Err(refused) => self.refuse_mode(refused),
            Ok(security) if security.protects_control() => {
                self.state = State::TokenCheck(*response);
                let passphrase = host.passphrase(&response.key_id);
                host.check_token(TokenCheck {
                    passphrase,
                    salt: self.nonces.salt,
                    count: self.terms.count,
                    challenge: self.nonces.challenge,
                    token: response.token,
                });
            }
            Ok(security) => self.open(response, security, None),
        }
    }

    fn refuse_mode(&mut self, refused: ModeRefused) {
        if let Some(accept) = refused.accept() {
            self.codec.refuse(accept);
        }
        self.state = State::Ended(End::Mode(refused));
    }

    fn open(
        &mut self,
        response: &SetUpResponse,
        security: SecurityMode,
        identity: Option<(KeyId, SessionKeys)>,
    ) {
        self.codec.start(
            identity.as_ref().map(|(_, keys)| keys),
            &response.client_iv,
            self.nonces.server_iv,
            self.terms.start_time,
        );
        self.state = State::Open(Agreed {
            modes: response.mode,
            security,
            identity,
        });
    }

    fn obey(&mut self, command: Command, host: &mut impl Host) {
        let State::Open(agreed) = &self.state else {
            return;
        };
        let individual = agreed.modes.contains(Modes::INDIVIDUAL_SESSION_CONTROL);
        let under_way = !individual && self.sessions.in_progress() > 0;
        match command {
            Command::RequestTwSession(_) if under_way && self.sessions.any_runs() => {
                self.out_of_turn(&command, host);
            }
            Command::RequestTwSession(request) => {
                if under_way {
                    // REFWAIT ended them all, which stands for a Stop-Sessions.
                    self.sessions.stop_all(Ending::Lost, host);
                }
                let held = (self.sessions.len(), self.terms.most_sessions);
                let answer = match agreed.judge(&request, held, host) {
                    Ok(session) => {
                        self.sessions.add(session.sid);
                        session
                    }
                    Err((accept, remark)) => {
                        host.remark(&remark);
                        AcceptSession::refused(accept)
                    }
                };
                self.codec.send_answer(&Answer::AcceptSession(answer));
            }
            Command::StartSessions if !individual && !under_way => {
                let accept = self.sessions.start_all(host);
                self.codec.send_answer(&Answer::StartAck(accept));
            }
            Command::StopSessions(stop) if under_way => self.stop_counted(stop, host),
            // Forbidden where sessions start and stop one by one (RFC 5938 §3.1).
            Command::StartSessions | Command::StopSessions(_) => self.out_of_turn(&command, host),
            Command::StartNSessions(sids) if individual => {
                for (accept, sids) in by_accept(sids, |sid| self.sessions.start(sid, host)) {
                    self.codec.send_answer(&Answer::StartNAck(accept, sids));
                }
            }
            Command::StopNSessions(sids) if individual => {
                for (accept, sids) in by_accept(sids, |sid| self.sessions.stop(sid, host)) {
                    self.codec.send_answer(&Answer::StopNAck(accept, sids));
                }
            }
            // Commands of a mode that was not chosen are unknown.
            Command::StartNSessions(_) | Command::StopNSessions(_) => {
                let unknown = Malformed::UnknownCommand(command.number());
                self.give_up_on(Broken::Malformed(unknown), host);
            }
        }
    }

    fn stop_counted(&mut self, stop: StopSessions, host: &mut impl Host) {
        let running = self.sessions.in_progress();
        if counts_none_but_means_all(stop) {
            host.remark(&Remark::StopCountZero(running));
        } else if usize::try_from(stop.sessions) != Ok(running) {
            let told = stop.sessions;
            return self.end(End::StopCount { told, running }, host);
        }
        self.sessions.stop_all(Ending::Stopped(stop.accept), host);
    }

    /// Octets that cannot be followed any further.
    fn give_up_on(&mut self, broken: Broken, host: &mut impl Host) {
        if let Broken::Malformed(malformed) = broken
            && let Some(accept) = malformed.accept()
        {
            self.last_words(accept);
        }
        self.end(End::Broken(broken), host);
    }

    /// A client that has lost its place, or never had one.
    fn out_of_turn(&mut self, command: &Command, host: &mut impl Host) {
        self.last_words(Accept::NotSupported);
        self.end(End::OutOfTurn(command.name()), host);
    }

    /// What an unexpected command is answered with, whatever its own answer would be
    /// (RFC 5357 §3.5).
    fn last_words(&mut self, accept: Accept) {
        let answer = AcceptSession::refused(accept);
        self.codec.send_answer(&Answer::AcceptSession(answer));
    }

    fn end(&mut self, end: End, host: &mut impl Host) {
        self.sessions.stop_all(Ending::Lost, host);
        if self.ended().is_none() {
            self.state = State::Ended(end);
        }
    }
}

/// What the set-up came to.
#[derive(Debug)]
struct Agreed {
    modes: Modes,
    security: SecurityMode,
    identity: Option<(KeyId, SessionKeys)>,
}

impl Agreed {
    /// What to answer; `held` is how many sessions there are, and may be.
    fn judge(
        &self,
        request: &RequestTwSession,
        held: (usize, usize),
        host: &mut impl Host,
    ) -> Result<AcceptSession, (Accept, Remark)> {
        let request = request
            .read(self.modes)
            .map_err(|why| (why.accept(), Remark::Unacceptable(why)))?;
        let (sessions, most) = held;
        if sessions >= most {
            return Err((Accept::TemporaryLimit, Remark::TooManySessions(sessions)));
        }
        let identity = self.identity.as_ref();
        let asked = Asked {
            request,
            modes: self.modes,
            key_id: identity.map(|(key_id, _)| key_id),
            keys: identity
                .filter(|_| self.security.protects_test())
                .map(|(_, keys)| keys),
        };
        let grant = host.grant(&asked).map_err(refusal)?;
        let granted = AcceptSession::granted(grant.port, grant.sid);
        Ok(match request.reflect {
            Some(reflect) => AcceptSession {
                reflected_octets: reflect.octets,
                server_octets: grant.server_octets,
                ..granted
            },
            None => granted,
        })
    }
}

/// The sessions of one connection.
#[derive(Debug, Default)]
struct Sessions(BTreeMap<Sid, Phase>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Granted,
    Running,
    /// It ran until REFWAIT ended it; a stop still counts it.
    Expired,
}

impl Sessions {
    fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that were started and not stopped.
    fn in_progress(&self) -> usize {
        let started = |phase: &&Phase| **phase != Phase::Granted;
        self.0.values().filter(started).count()
    }

    fn any_runs(&self) -> bool {
        self.0.values().any(|phase| *phase == Phase::Running)
    }

    fn add(&mut self, sid: Sid) {
        self.0.insert(sid, Phase::Granted);
    }

    /// Whether it ran.
    fn expire(&mut self, sid: &Sid) -> bool {
        match self.0.get_mut(sid) {
            Some(phase @ Phase::Running) => {
                *phase = Phase::Expired;
                true
            }
            _ => false,
        }
    }

    /// All or none: one Accept value stands for all.
    fn start_all(&mut self, host: &mut impl Host) -> Accept {
        if self.0.is_empty() {
            host.remark(&Remark::NothingToStart);
            return Accept::Failure;
        }
        for (sid, phase) in &mut self.0 {
            match host.start(sid).map_err(refusal) {
                Ok(()) => *phase = Phase::Running,
                Err((accept, remark)) => {
                    host.remark(&remark);
                    self.stop_all(Ending::Lost, host);
                    return accept;
                }
            }
        }
        Accept::Ok
    }

    fn start(&mut self, sid: &Sid, host: &mut impl Host) -> Accept {
        let Some(phase @ Phase::Granted) = self.0.get_mut(sid) else {
            host.remark(&Remark::NoSuchSession(*sid));
            return Accept::Failure;
        };
        match host.start(sid).map_err(refusal) {
            Ok(()) => {
                *phase = Phase::Running;
                Accept::Ok
            }
            Err((accept, remark)) => {
                host.remark(&remark);
                accept
            }
        }
    }

    fn stop(&mut self, sid: &Sid, host: &mut impl Host) -> Accept {
        if !matches!(self.0.get(sid), Some(Phase::Running | Phase::Expired)) {
            host.remark(&Remark::NoSuchSession(*sid));
            return Accept::Failure;
        }
        self.0.remove(sid);
        host.stop(sid, Ending::Stopped(Accept::Ok));
        Accept::Ok
    }

    /// Gives all back to the host; those that never ran as such.
    fn stop_all(&mut self, ending: Ending, host: &mut impl Host) {
        for (sid, phase) in std::mem::take(&mut self.0) {
            let ending = match phase {
                Phase::Granted => Ending::Withdrawn,
                Phase::Running | Phase::Expired => ending,
            };
            host.stop(&sid, ending);
        }
    }
}

/// Does `one` to each session that a command of RFC 5938 names, and groups them by what came of
/// it: each is acknowledged once, even one that was named twice.
fn by_accept(sids: Vec<Sid>, mut one: impl FnMut(&Sid) -> Accept) -> Vec<(Accept, Vec<Sid>)> {
    let mut groups: Vec<(Accept, Vec<Sid>)> = Vec::new();
    let mut done = BTreeSet::new();
    for sid in sids {
        if !done.insert(sid) {
            continue;
        }
        let accept = one(&sid);
        match groups.iter_mut().find(|(value, _)| *value == accept) {
            Some((_, group)) => group.push(sid),
            None => groups.push((accept, vec![sid])),
        }
    }
    groups
}

/// twampy's controller ends with a Stop-Sessions for 0 sessions (version 1.3.1; twampd's log says
/// "Message does not account for all two-way sessions: 0 vs. 1 actual").
fn counts_none_but_means_all(stop: StopSessions) -> bool {
    stop.sessions == 0
}

/// A host's refusal. One that says OK is a mistake of the host, and no promise to the peer.
fn refusal(accept: Accept) -> (Accept, Remark) {
    let accept = if accept.is_ok() {
        Accept::InternalError
    } else {
        accept
    };
    (accept, Remark::Host(accept))
}

const SECOND: i64 = 1_000_000_000;
/// Answers that a client has not read before the Server stops listening to it: some 80.
const MOST_OUTPUT: usize = 4096;
