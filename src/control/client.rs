//! A Control-Client's side of one control connection: a state machine without socket, clock or
//! thread.
//!
//! Whoever owns the connection gives it octets and the time, sends what [`output`](Client::output)
//! has, comes back by [`deadline`](Client::deadline), and reads what came of it from
//! [`next_event`](Client::next_event). One command is under way at a time: the next one may be given
//! when [`is_idle`](Client::is_idle). Time is nanoseconds of a clock that does not jump.
//!
//! It trusts the Server in nothing: each octet may be anything, and each wait has an end.

use std::collections::{BTreeSet, VecDeque};

use super::codec::{Broken, Codec};
use super::crypto::{KeyDerivation, Passphrase, SessionKeys, SharedKey};
use crate::wire::control::{
    AcceptSession, Answer, Awaited, BadCount, Command, KeyId, ServerGreeting, SetUpResponse,
    StopSessions,
};
use crate::wire::{
    Accept, Modes, NoMode, RequestTwSession, SecurityMode, SessionRequest, Sid, Timestamp,
    Unacceptable,
};

/// What a user wants of a Server.
#[derive(Clone, Debug)]
pub struct Wish {
    /// This mode, or the strongest that there is a key for.
    pub mode: Option<SecurityMode>,
    /// Features to be used where the Server offers them.
    pub features: Modes,
    /// Needed for the protected modes.
    pub key: Option<(KeyId, Passphrase)>,
    /// The highest Count to work for; see
    /// [`Count::DEFAULT_MOST`](crate::wire::control::Count::DEFAULT_MOST).
    pub most_iterations: u32,
    /// The most sessions to be named in one command, or answer.
    pub most_sessions: usize,
    /// How long to wait for any answer, in nanoseconds.
    pub answer_ns: i64,
}

/// Random keys of one connection.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// For both directions, sent in the Token.
    pub keys: SessionKeys,
    /// For all that the client will send.
    pub client_iv: [u8; 16],
}

impl Secrets {
    /// From a cryptographic generator.
    #[must_use]
    pub fn random() -> Self {
        Self {
            keys: SessionKeys::random(),
            client_iv: rand::random(),
        }
    }
}

/// What came of a command, or of the set-up.
#[derive(Clone, Debug)]
pub enum Event {
    /// To be run, on a thread that may take its time, and its result given to
    /// [`Client::derived`].
    Derive(KeyDerivation),
    /// The set-up is over; commands may be given.
    Ready {
        /// What both sides agreed on.
        modes: Modes,
        /// When the Server began, in NTP format.
        start_time: Timestamp,
    },
    /// To [`Client::request`]: the port and SID of a session, or why there is none. The port need
    /// not be the one that was asked for; it is the one to be used.
    Session(AcceptSession),
    /// To [`Client::start`].
    Started(Accept),
    /// To [`Client::start_some`] or [`Client::stop_some`], for some of the sessions; idle again after the
    /// last.
    Acknowledged(Accept, Vec<Sid>),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The Server-Greeting has no mode for this client.
    #[error(transparent)]
    NoMode(NoMode),
    /// The Server-Greeting asks for too much work, or too little.
    #[error(transparent)]
    Count(BadCount),
    /// Server-Start refuses: with 1 the key id or the passphrase is wrong, as a rule.
    #[error("the server refuses the connection: {0}")]
    Refused(Accept),
    /// Octets that are no message, or nobody with the keys sent.
    #[error("the server sent something else than {expected}: {broken}")]
    Broken {
        /// What was awaited.
        expected: Expected,
        /// What came.
        broken: Broken,
    },
    /// A session without a port.
    #[error("the server granted a session on port 0")]
    NoPort,
    /// Two sessions of one name, where sessions are started and stopped by name (RFC 5938 §3.1).
    #[error("the server granted two sessions as {0}")]
    SameSid(Sid),
    /// An acknowledgement of sessions that were not in the command, or for the second time.
    #[error("the server acknowledged session {0}, which was not asked for")]
    WrongSid(Sid),
    /// Octets where the Server had nothing to say.
    #[error("the server sent something without being asked")]
    Unsolicited,
    /// Nothing came in time.
    #[error("the server did not send {0} in time")]
    TimedOut(Expected),
    /// The Server closed. Some close where they should refuse.
    #[error("the server closed the connection{}", .0.map_or(String::new(), |expected| format!(" in place of {expected}")))]
    Closed(Option<Expected>),
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Server-Greeting.
    Greeting,
    /// Server-Start.
    ServerStart,
    /// An answer to a command.
    Answer(Awaited),
}

/// The RFC's name.
impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Greeting => f.pad("Server-Greeting"),
            Self::ServerStart => f.pad("Server-Start"),
            Self::Answer(awaited) => awaited.fmt(f),
        }
    }
}

/// Why a command cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// An answer is awaited, or the set-up is not over.
    #[error("another command is under way")]
    Busy,
    /// There is no connection.
    #[error("the connection has ended")]
    Ended,
    /// Sessions are started and stopped all together, or one by one (RFC 5938 §3.1).
    #[error("not a command of the mode that was chosen")]
    Mode,
    /// Sessions run, and have to stop first (RFC 4656 §3.4).
    #[error("sessions are running")]
    Running,
    /// Nothing was granted, or nothing runs; or not the sessions that were named.
    #[error("there is no such session")]
    NoSession,
    /// A request that no Server could grant.
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
}

/// One control connection.
#[derive(Debug)]
pub struct Client {
    wish: Wish,
    secrets: Secrets,
    codec: Codec,
    state: State,
    events: VecDeque<Event>,
    /// Since when the current answer is awaited.
    waiting_since_ns: i64,
    /// Granted and not started. Servers that name no session by a SID grant zero several times.
    granted: Vec<Sid>,
    running: Vec<Sid>,
}

#[derive(Debug)]
enum State {
    Greeting,
    Derivation(Modes, ServerGreeting),
    ServerStart(Modes),
    Idle(Modes),
    /// For the answer to a command; of the commands of RFC 5938 with the SIDs not yet named.
    Answer(Modes, Awaited, BTreeSet<Sid>),
    Ended(End),
}

impl Client {
    /// A connection that has just been opened: the Server speaks first.
    #[must_use]
    pub fn new(now_ns: i64, wish: Wish, secrets: Secrets) -> Self {
        Self {
            codec: Codec::new(wish.most_sessions),
            wish,
            secrets,
            state: State::Greeting,
            events: VecDeque::new(),
            waiting_since_ns: now_ns,
            granted: Vec::new(),
            running: Vec::new(),
        }
    }

    /// Takes all octets that came from the Server.
    pub fn receive(&mut self, now_ns: i64, octets: &[u8]) {
        let mut input = octets;
        while !input.is_empty() {
            match &self.state {
                State::Greeting => {
                    if let Some(greeting) = self.codec.greeting(&mut input) {
                        self.choose(now_ns, greeting);
                    }
                }
                State::ServerStart(modes) => {
                    let modes = *modes;
                    let keys = keys(modes, &self.secrets);
                    if let Some(start) = self.codec.server_start(&mut input, keys) {
                        if start.accept().is_ok() {
                            let start_time = start.start_time;
                            self.events.push_back(Event::Ready { modes, start_time });
                            self.state = State::Idle(modes);
                        } else {
                            self.end(End::Refused(start.accept()));
                        }
                    }
                }
                State::Answer(_, awaited, _) => {
                    let awaited = *awaited;
                    match self.codec.answer(awaited, &mut input) {
                        Ok(Some(answer)) => self.take(now_ns, answer),
                        Ok(None) => {}
                        Err(broken) => {
                            let expected = Expected::Answer(awaited);
                            self.end(End::Broken { expected, broken });
                        }
                    }
                }
                State::Derivation(..) | State::Idle(_) => self.end(End::Unsolicited),
                State::Ended(_) => return,
            }
        }
    }

    /// The result of [`Event::Derive`]. Ignored when the connection has ended in the meantime.
    pub fn derived(&mut self, now_ns: i64, key: &SharedKey) {
        let State::Derivation(modes, greeting) = &self.state else {
            return;
        };
        let Some((key_id, _)) = &self.wish.key else {
            return;
        };
        let response = SetUpResponse {
            mode: *modes,
            key_id: *key_id,
            token: key.seal_token(&greeting.challenge, &self.secrets.keys),
            client_iv: self.secrets.client_iv,
        };
        self.set_up(now_ns, &response);
    }

    /// Asks for a session (RFC 5357 §3.5).
    ///
    /// # Errors
    /// [`NotNow`]; nothing was sent.
    pub fn request(&mut self, now_ns: i64, request: &SessionRequest) -> Result<(), NotNow> {
        let modes = self.idle()?;
        self.between_rounds(modes)?;
        request.check_padding(modes)?;
        let command = Command::RequestTwSession(RequestTwSession::from(request));
        self.give(now_ns, modes, &command, Awaited::AcceptSession);
        Ok(())
    }

    /// Starts all sessions that were granted since the last stop (RFC 4656 §3.7).
    ///
    /// # Errors
    /// [`NotNow`]; nothing was sent.
    pub fn start(&mut self, now_ns: i64) -> Result<(), NotNow> {
        let modes = self.idle_for(false)?;
        self.between_rounds(modes)?;
        if self.granted.is_empty() {
            return Err(NotNow::NoSession);
        }
        self.give(now_ns, modes, &Command::StartSessions, Awaited::StartAck);
        Ok(())
    }

    /// Stops all sessions; with another value than OK their results are void. The Server does not
    /// answer (RFC 5357 §3.8).
    ///
    /// # Errors
    /// [`NotNow`]; nothing was sent.
    pub fn stop(&mut self, accept: Accept) -> Result<(), NotNow> {
        self.idle_for(false)?;
        if self.running.is_empty() {
            return Err(NotNow::NoSession);
        }
        let sessions = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        self.running.clear();
        self.codec
            .send_command(&Command::StopSessions(StopSessions { accept, sessions }));
        Ok(())
    }

    /// Starts some of the sessions that were granted (RFC 5938 §3.2).
    ///
    /// # Errors
    /// [`NotNow`]; nothing was sent.
    pub fn start_some(&mut self, now_ns: i64, sids: Vec<Sid>) -> Result<(), NotNow> {
        let modes = self.idle_for(true)?;
        some_of(&sids, &self.granted, self.wish.most_sessions)?;
        self.give(
            now_ns,
            modes,
            &Command::StartNSessions(sids),
            Awaited::StartNAck,
        );
        Ok(())
    }

    /// Stops some of the sessions that run (RFC 5938 §3.4).
    ///
    /// # Errors
    /// [`NotNow`]; nothing was sent.
    pub fn stop_some(&mut self, now_ns: i64, sids: Vec<Sid>) -> Result<(), NotNow> {
        let modes = self.idle_for(true)?;
        some_of(&sids, &self.running, self.wish.most_sessions)?;
        self.give(
            now_ns,
            modes,
            &Command::StopNSessions(sids),
            Awaited::StopNAck,
        );
        Ok(())
    }

    /// Whether a command may be given.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle(_))
    }

    /// What the set-up agreed on, once it is over.
    #[must_use]
    pub const fn modes(&self) -> Option<Modes> {
        match &self.state {
            State::Idle(modes) | State::Answer(modes, ..) => Some(*modes),
            _ => None,
        }
    }

    /// To make the keys of test packets from, in the modes that protect them.
    #[must_use]
    pub fn keys(&self) -> Option<&SessionKeys> {
        let security = self.modes()?.security().ok()?;
        security.protects_test().then_some(&self.secrets.keys)
    }

    /// The next thing that happened.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The Server closed, or the connection broke.
    pub fn disconnected(&mut self) {
        let expected = self.expected();
        self.end(End::Closed(expected));
    }

    /// By when to call [`handle_deadline`](Self::handle_deadline), unless something happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        self.expected()
            .map(|_| self.waiting_since_ns.saturating_add(self.wish.answer_ns))
    }

    /// Ends the connection if its time has come. Early calls do nothing.
    pub fn handle_deadline(&mut self, now_ns: i64) {
        if let Some(expected) = self.expected()
            && self.deadline().is_some_and(|by_ns| by_ns <= now_ns)
        {
            self.end(End::TimedOut(expected));
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

    fn expected(&self) -> Option<Expected> {
        match &self.state {
            State::Greeting => Some(Expected::Greeting),
            State::ServerStart(_) => Some(Expected::ServerStart),
            State::Answer(_, awaited, _) => Some(Expected::Answer(*awaited)),
            State::Derivation(..) | State::Idle(_) | State::Ended(_) => None,
        }
    }

    fn idle(&self) -> Result<Modes, NotNow> {
        match &self.state {
            State::Idle(modes) => Ok(*modes),
            State::Ended(_) => Err(NotNow::Ended),
            _ => Err(NotNow::Busy),
        }
    }

    fn idle_for(&self, individual: bool) -> Result<Modes, NotNow> {
        let modes = self.idle()?;
        if modes.contains(Modes::INDIVIDUAL_SESSION_CONTROL) == individual {
            Ok(modes)
        } else {
            Err(NotNow::Mode)
        }
    }

    /// With individual session control there are no rounds.
    fn between_rounds(&self, modes: Modes) -> Result<(), NotNow> {
        if self.running.is_empty() || modes.contains(Modes::INDIVIDUAL_SESSION_CONTROL) {
            Ok(())
        } else {
            Err(NotNow::Running)
        }
    }

    fn choose(&mut self, now_ns: i64, greeting: ServerGreeting) {
        let wish = &self.wish;
        let chosen = greeting
            .modes
            .choose(wish.mode, wish.key.is_some(), wish.features);
        let modes = match chosen {
            Ok(modes) => modes,
            Err(why) => {
                if why != NoMode::ServerRefuses {
                    // To say so is all that is left (RFC 4656 §3.1).
                    self.codec.set_up(&SetUpResponse::open(Modes::NONE), None);
                }
                return self.end(End::NoMode(why));
            }
        };
        let protected = keys(modes, &self.secrets).is_some();
        match (&wish.key, greeting.count(wish.most_iterations)) {
            (Some((_, passphrase)), Ok(count)) if protected => {
                self.events.push_back(Event::Derive(KeyDerivation {
                    passphrase: passphrase.clone(),
                    salt: greeting.salt,
                    count,
                }));
                self.state = State::Derivation(modes, greeting);
            }
            (_, Err(bad)) if protected => self.end(End::Count(bad)),
            _ => self.set_up(now_ns, &SetUpResponse::open(modes)),
        }
    }

    fn set_up(&mut self, now_ns: i64, response: &SetUpResponse) {
        let modes = response.mode;
        self.codec.set_up(response, keys(modes, &self.secrets));
        self.waiting_since_ns = now_ns;
        self.state = State::ServerStart(modes);
    }

    fn give(&mut self, now_ns: i64, modes: Modes, command: &Command, awaited: Awaited) {
        let sids = match command {
            Command::StartNSessions(sids) | Command::StopNSessions(sids) => {
                sids.iter().copied().collect()
            }
            _ => BTreeSet::new(),
        };
        self.codec.send_command(command);
        self.waiting_since_ns = now_ns;
        self.state = State::Answer(modes, awaited, sids);
    }

    fn take(&mut self, now_ns: i64, answer: Answer) {
        let State::Answer(modes, awaited, left) = &mut self.state else {
            return;
        };
        let (modes, starts) = (*modes, *awaited == Awaited::StartNAck);
        let event = match answer {
            Answer::AcceptSession(session) => {
                if session.accept().is_ok() {
                    if session.port.get() == 0 {
                        return self.end(End::NoPort);
                    }
                    let sid = session.sid;
                    let named = modes.contains(Modes::INDIVIDUAL_SESSION_CONTROL);
                    if named && (self.granted.contains(&sid) || self.running.contains(&sid)) {
                        return self.end(End::SameSid(sid));
                    }
                    self.granted.push(sid);
                }
                Event::Session(session)
            }
            Answer::StartAck(accept) => {
                let granted = std::mem::take(&mut self.granted);
                // What was refused is not asked for again, here.
                if accept.is_ok() {
                    self.running = granted;
                }
                Event::Started(accept)
            }
            Answer::StartNAck(accept, sids) | Answer::StopNAck(accept, sids) => {
                if let Some(wrong) = sids.iter().find(|&sid| !left.remove(sid)) {
                    return self.end(End::WrongSid(*wrong));
                }
                if accept.is_ok() && starts {
                    self.granted.retain(|sid| !sids.contains(sid));
                    self.running.extend(&sids);
                } else if accept.is_ok() {
                    self.running.retain(|sid| !sids.contains(sid));
                }
                Event::Acknowledged(accept, sids)
            }
        };
        self.events.push_back(event);
        if left.is_empty() {
            self.state = State::Idle(modes);
        } else {
            // More acknowledgements will come, each in its time.
            self.waiting_since_ns = now_ns;
        }
    }

    fn end(&mut self, end: End) {
        if self.ended().is_none() {
            self.state = State::Ended(end);
        }
    }
}

/// The keys of the stream, in a mode that protects it.
fn keys(modes: Modes, secrets: &Secrets) -> Option<&SessionKeys> {
    let security = modes.security().ok()?;
    security.protects_control().then_some(&secrets.keys)
}

/// A list for a command of RFC 5938: at least one, each once, and all there.
fn some_of(sids: &[Sid], there: &[Sid], most: usize) -> Result<(), NotNow> {
    let mut named = BTreeSet::new();
    let fine = |sid| there.contains(sid) && named.insert(sid);
    if !sids.is_empty() && sids.len() <= most && sids.iter().all(fine) {
        Ok(())
    } else {
        Err(NotNow::NoSession)
    }
}
