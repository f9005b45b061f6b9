//! Messages of TWAMP-Control: their layouts, and how commands and answers are told apart.
//!
//! Three messages set a connection up ([`ServerGreeting`], [`SetUpResponse`], [`ServerStart`]); then
//! a Control-Client sends a [`Command`] and a Server gives an [`Answer`]. An HMAC of [`HMAC_LEN`]
//! octets follows each command and answer; it is no part of the layouts here, nor is encryption:
//! the codec of `control` adds and checks both. All fields that must be zero (MBZ) are written as
//! zero and ignored when read.
//!
//! Reading takes any octets, does not panic, and allocates no more than the caller allows.

use core::fmt;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::accept::Accept;
use super::modes::Modes;
use super::request::{REQUEST_TW_SESSION, RequestTwSession};
pub use super::sid::Sid;
use super::time::Timestamp;

/// Server-Greeting: 64 octets, the first that a Server sends, always in clear (RFC 4656 §3.1).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ServerGreeting {
    /// Zero; ignored when read.
    pub unused: [u8; 12],
    /// All that the Server is willing to do; none if it does not want to talk to this client.
    pub modes: Modes,
    /// Random octets that the Token must bring back.
    pub challenge: [u8; BLOCK_LEN],
    /// Salt of the key derivation: random, and independent of all else.
    pub salt: [u8; BLOCK_LEN],
    /// Iterations of the key derivation, as they came: see [`ServerGreeting::count`].
    pub count: U32,
    /// Must be zero; ignored when read.
    pub mbz: [u8; 12],
}
const _: () = assert!(size_of::<ServerGreeting>() == 64);

impl ServerGreeting {
    /// What a Server says first.
    #[must_use]
    pub fn new(
        modes: Modes,
        challenge: [u8; BLOCK_LEN],
        salt: [u8; BLOCK_LEN],
        count: Count,
    ) -> Self {
        Self {
            unused: [0; 12],
            modes,
            challenge,
            salt,
            count: count.value().into(),
            mbz: [0; 12],
        }
    }

    /// Count, if it is allowed and not above `most`. Only a mode with a key needs it.
    ///
    /// # Errors
    /// [`BadCount`]: the client closes (RFC 5357 §6).
    pub fn count(&self, most: u32) -> Result<Count, BadCount> {
        Count::new(self.count.get(), most)
    }
}

/// How often a key derivation hashes: a power of two, at least 1,024 (RFC 4656 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(u32);

impl Count {
    /// The least that is allowed (RFC 4656 §3.1).
    pub const LEAST: Self = Self(1 << 10);
    /// The highest that is taken unless a user wants more: 7 ms of work on a processor of today,
    /// where 2^31 would take minutes (RFC 5357 §6).
    pub const DEFAULT_MOST: Self = Self(1 << 15);

    /// # Errors
    /// [`BadCount`] when it is not a power of two, below 1,024, or above `most`.
    pub const fn new(value: u32, most: u32) -> Result<Self, BadCount> {
        if !value.is_power_of_two() {
            Err(BadCount::NotAPowerOfTwo(value))
        } else if value < Self::LEAST.0 {
            Err(BadCount::TooLow(value))
        } else if value > most {
            Err(BadCount::TooHigh { count: value, most })
        } else {
            Ok(Self(value))
        }
    }

    /// Iterations.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

/// Why a Count is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCount {
    /// Forbidden by RFC 4656 §3.1.
    #[error("key derivation count {0} is not a power of two")]
    NotAPowerOfTwo(u32),
    /// Forbidden by RFC 4656 §3.1.
    #[error("key derivation count {0} is below 1024")]
    TooLow(u32),
    /// It would take too long (RFC 5357 §6).
    #[error("key derivation count {count} is above the limit of {most}")]
    TooHigh {
        /// As it came.
        count: u32,
        /// What is taken at most.
        most: u32,
    },
}

/// Set-Up-Response: 164 octets, the first that a Control-Client sends, in clear but for the Token,
/// which is encrypted by itself (RFC 4656 §3.1).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct SetUpResponse {
    /// What the client chose of the Server's Modes.
    pub mode: Modes,
    /// Which passphrase; zero and ignored in unauthenticated mode, as are the next two.
    pub key_id: KeyId,
    /// Challenge and session keys, encrypted.
    pub token: Token,
    /// Initialization vector of all that this client will send: random, never used before.
    pub client_iv: [u8; BLOCK_LEN],
}
const _: () = assert!(size_of::<SetUpResponse>() == 164);

impl SetUpResponse {
    /// In unauthenticated mode, or to decline ([`Modes::NONE`]): nothing but the Mode.
    #[must_use]
    pub fn open(mode: Modes) -> Self {
        Self {
            mode,
            ..Self::new_zeroed()
        }
    }

    /// Octets of the message that begins with `mode`.
    ///
    /// With keys from IKEv2 the Token is but the challenge and the IV 12 octets: 112 in all
    /// (RFC 7717 §5.3). A Server that waited for more would wait in vain.
    #[must_use]
    pub fn len(mode: Modes) -> usize {
        if mode.contains(Modes::IKEV2_DERIVED) {
            IKEV2_SET_UP_RESPONSE_LEN
        } else {
            size_of::<Self>()
        }
    }
}

/// Challenge (16 octets), AES Session-key (16) and HMAC Session-key (32), encrypted with the key
/// that both sides derive from the passphrase (RFC 4656 §3.1).
pub type Token = [u8; 64];

/// Names a passphrase: UTF-8, at most 80 octets, zeros behind it (RFC 4656 §3.1).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Hash,
)]
#[repr(transparent)]
pub struct KeyId([u8; 80]);

impl KeyId {
    /// # Errors
    /// [`BadKeyId`] when `text` is empty, longer than 80 octets, or contains a zero octet.
    pub fn new(text: &str) -> Result<Self, BadKeyId> {
        let octets = text.as_bytes();
        if octets.is_empty() || octets.contains(&0) {
            return Err(BadKeyId::Empty);
        }
        let mut field = [0; 80];
        let room = field
            .get_mut(..octets.len())
            .ok_or(BadKeyId::TooLong(octets.len()))?;
        room.copy_from_slice(octets);
        Ok(Self(field))
    }

    /// What stands before the zeros, to look a passphrase up by. A peer may send anything here.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        let used = self.0.iter().rposition(|&octet| octet != 0);
        used.and_then(|last| self.0.get(..=last)).unwrap_or(&[])
    }
}

/// In quotes, with everything escaped that could disturb a terminal or a log.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.octets()), f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why text is no [`KeyId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyId {
    /// Empty, or with a zero octet, which ends the field.
    #[error("a key id is not empty and has no zero octet")]
    Empty,
    /// The field has no room for it.
    #[error("a key id has 80 octets at most, not {0}")]
    TooLong(usize),
}

/// Server-Start: 48 octets; octets 32 to 47 are encrypted where the mode has a key and Accept is 0
/// (RFC 4656 §3.1, RFC 5357 §3.1).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ServerStart {
    /// Must be zero; ignored when read.
    pub mbz: [u8; 15],
    /// The octet of [`accept`](Self::accept).
    pub accept: u8,
    /// Initialization vector of all that this Server will send; unused in unauthenticated mode.
    pub server_iv: [u8; BLOCK_LEN],
    /// When this instance of the Server began; the same for every client. Zero on refusal.
    pub start_time: Timestamp,
    /// Must be zero; ignored when read.
    pub mbz_tail: [u8; 8],
}
const _: () = assert!(size_of::<ServerStart>() == 48);
const _: () = assert!(core::mem::offset_of!(ServerStart, start_time) == SERVER_START_CLEAR_LEN);

impl ServerStart {
    /// The connection may be used.
    #[must_use]
    pub fn granted(server_iv: [u8; BLOCK_LEN], start_time: Timestamp) -> Self {
        Self {
            server_iv,
            start_time,
            ..Self::new_zeroed()
        }
    }

    /// The Server will close; all of it is in clear, since no key was agreed.
    #[must_use]
    pub fn refused(accept: Accept) -> Self {
        Self {
            accept: accept.into(),
            ..Self::new_zeroed()
        }
    }

    /// Whether the Server goes on, and if not, why.
    #[must_use]
    pub fn accept(&self) -> Accept {
        self.accept.into()
    }
}

/// What a Control-Client sends once the connection is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// 5: asks for a session; [`RequestTwSession::read`] judges it.
    RequestTwSession(RequestTwSession),
    /// 2: starts all sessions that were accepted (RFC 4656 §3.7).
    StartSessions,
    /// 3: stops all sessions; nothing answers it (RFC 5357 §3.8).
    StopSessions(StopSessions),
    /// 7: starts some of the sessions that were accepted (RFC 5938 §3.2).
    StartNSessions(Vec<Sid>),
    /// 9: stops some of the sessions that run (RFC 5938 §3.4).
    StopNSessions(Vec<Sid>),
}

impl Command {
    /// Octets of the command that begins with `first`, its HMAC included.
    ///
    /// `most_sids` is how many sessions there are at most: a longer list cannot be true.
    ///
    /// # Errors
    /// [`Malformed`]: what follows cannot be read, since its length is unknown.
    pub fn len(first: &[u8; BLOCK_LEN], most_sids: usize) -> Result<usize, Malformed> {
        let [number, ..] = *first;
        let body = match number {
            REQUEST_TW_SESSION => size_of::<RequestTwSession>(),
            START_SESSIONS => size_of::<StartLayout>(),
            STOP_SESSIONS => size_of::<StopSessionsLayout>(),
            START_N_SESSIONS | STOP_N_SESSIONS => SidListHead::read(first)?.body_len(most_sids)?,
            other => return Err(Malformed::UnknownCommand(other)),
        };
        Ok(body + HMAC_LEN)
    }

    /// Reads the octets before the HMAC, of the length that [`len`](Self::len) told.
    ///
    /// # Errors
    /// [`Malformed`] for an unknown command or any other length.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let number = *body.first().ok_or(Malformed::Length(0))?;
        Ok(match number {
            REQUEST_TW_SESSION => Self::RequestTwSession(whole(body)?),
            START_SESSIONS => {
                whole::<StartLayout>(body)?;
                Self::StartSessions
            }
            STOP_SESSIONS => {
                let stop: StopSessionsLayout = whole(body)?;
                Self::StopSessions(StopSessions {
                    accept: stop.accept.into(),
                    sessions: stop.sessions.get(),
                })
            }
            START_N_SESSIONS => Self::StartNSessions(SidListHead::read_list(body)?.1),
            STOP_N_SESSIONS => Self::StopNSessions(SidListHead::read_list(body)?.1),
            other => return Err(Malformed::UnknownCommand(other)),
        })
    }

    /// Appends what stands before the HMAC: a multiple of 16 octets.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::RequestTwSession(request) => out.extend(request.as_bytes()),
            Self::StartSessions => StartLayout::write(START_SESSIONS, out),
            Self::StopSessions(stop) => {
                let stop = StopSessionsLayout {
                    command: STOP_SESSIONS,
                    accept: stop.accept.into(),
                    sessions: stop.sessions.into(),
                    ..StopSessionsLayout::new_zeroed()
                };
                out.extend(stop.as_bytes());
            }
            Self::StartNSessions(sids) => SidListHead::write(START_N_SESSIONS, 0, sids, out),
            Self::StopNSessions(sids) => SidListHead::write(STOP_N_SESSIONS, 0, sids, out),
        }
    }

    /// The first octet (IANA "TWAMP-Control Command Numbers").
    #[must_use]
    pub const fn number(&self) -> u8 {
        match self {
            Self::RequestTwSession(_) => REQUEST_TW_SESSION,
            Self::StartSessions => START_SESSIONS,
            Self::StopSessions(_) => STOP_SESSIONS,
            Self::StartNSessions(_) => START_N_SESSIONS,
            Self::StopNSessions(_) => STOP_N_SESSIONS,
        }
    }

    /// The RFC's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RequestTwSession(_) => "Request-TW-Session",
            Self::StartSessions => "Start-Sessions",
            Self::StopSessions(_) => "Stop-Sessions",
            Self::StartNSessions(_) => "Start-N-Sessions",
            Self::StopNSessions(_) => "Stop-N-Sessions",
        }
    }
}

/// What Stop-Sessions says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSessions {
    /// Not OK: the results of all sessions should be considered invalid (RFC 4656 §3.8).
    pub accept: Accept,
    /// How many sessions were in progress (RFC 5357 §3.8).
    pub sessions: u32,
}

/// Which answer a Control-Client waits for; octets alone do not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Of a Request-TW-Session.
    AcceptSession,
    /// Of a Start-Sessions.
    StartAck,
    /// Of a Start-N-Sessions: one, or several that together name each session once.
    StartNAck,
    /// Of a Stop-N-Sessions, likewise.
    StopNAck,
}

/// The RFC's name.
impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AcceptSession => "Accept-Session",
            Self::StartAck => "Start-Ack",
            Self::StartNAck => "Start-N-Ack",
            Self::StopNAck => "Stop-N-Ack",
        })
    }
}

/// What a Server says to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To Request-TW-Session; also to a command that is not known (RFC 5357 §3.5).
    AcceptSession(AcceptSession),
    /// To Start-Sessions (RFC 4656 §3.7).
    StartAck(Accept),
    /// To Start-N-Sessions, for the sessions that share an Accept value (RFC 5938 §3.3).
    StartNAck(Accept, Vec<Sid>),
    /// To Stop-N-Sessions, likewise (RFC 5938 §3.5).
    StopNAck(Accept, Vec<Sid>),
}

impl Answer {
    /// Octets of the awaited answer that begins with `first`, its HMAC included.
    ///
    /// `most_sids` is how many sessions were named at most.
    ///
    /// # Errors
    /// [`Malformed`]: the client closes.
    pub fn len(
        awaited: Awaited,
        first: &[u8; BLOCK_LEN],
        most_sids: usize,
    ) -> Result<usize, Malformed> {
        let [number, ..] = *first;
        let body = match awaited {
            Awaited::AcceptSession => size_of::<AcceptSession>(),
            Awaited::StartAck => size_of::<StartLayout>(),
            Awaited::StartNAck if number != START_N_ACK => {
                return Err(Malformed::NotAwaited { awaited, number });
            }
            Awaited::StopNAck if number != STOP_N_ACK => {
                return Err(Malformed::NotAwaited { awaited, number });
            }
            Awaited::StartNAck | Awaited::StopNAck => {
                SidListHead::read(first)?.body_len(most_sids)?
            }
        };
        Ok(body + HMAC_LEN)
    }

    /// Reads the octets before the HMAC, of the length that [`len`](Self::len) told.
    ///
    /// # Errors
    /// [`Malformed`] for any other length or another N-Ack.
    pub fn read(awaited: Awaited, body: &[u8]) -> Result<Self, Malformed> {
        let list = |expected| {
            let (head, sids) = SidListHead::read_list(body)?;
            if head.command != expected {
                return Err(Malformed::NotAwaited {
                    awaited,
                    number: head.command,
                });
            }
            Ok((Accept::from(head.accept), sids))
        };
        Ok(match awaited {
            Awaited::AcceptSession => Self::AcceptSession(whole(body)?),
            Awaited::StartAck => {
                Self::StartAck(whole::<StartLayout>(body)?.command_or_accept.into())
            }
            Awaited::StartNAck => {
                let (accept, sids) = list(START_N_ACK)?;
                Self::StartNAck(accept, sids)
            }
            Awaited::StopNAck => {
                let (accept, sids) = list(STOP_N_ACK)?;
                Self::StopNAck(accept, sids)
            }
        })
    }

    /// Appends what stands before the HMAC: a multiple of 16 octets.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::AcceptSession(accept) => out.extend(accept.as_bytes()),
            Self::StartAck(accept) => StartLayout::write((*accept).into(), out),
            Self::StartNAck(accept, sids) => {
                SidListHead::write(START_N_ACK, (*accept).into(), sids, out);
            }
            Self::StopNAck(accept, sids) => {
                SidListHead::write(STOP_N_ACK, (*accept).into(), sids, out);
            }
        }
    }
}

/// Accept-Session before its HMAC: 32 octets (RFC 4656 §3.5, RFC 6038 §4.3).
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct AcceptSession {
    /// The octet of [`accept`](Self::accept).
    pub accept: u8,
    /// Must be zero; ignored when read.
    pub mbz: u8,
    /// UDP port of the Session-Reflector, which need not be the one that was asked for; zero on
    /// refusal.
    pub port: U16,
    /// Zero on refusal.
    pub sid: Sid,
    /// Copy of Octets to be reflected, in mode [`Modes::REFLECT_OCTETS`]; else zero.
    pub reflected_octets: [u8; 2],
    /// In the same mode, what the Session-Sender must put first into the padding to reflect; zero
    /// if the Server wants nothing.
    pub server_octets: [u8; 2],
    /// Must be zero; ignored when read.
    pub mbz_tail: [u8; 8],
}
const _: () = assert!(size_of::<AcceptSession>() == 32);

impl AcceptSession {
    /// The session exists; without octets of RFC 6038.
    #[must_use]
    pub fn granted(port: u16, sid: Sid) -> Self {
        Self {
            port: port.into(),
            sid,
            ..Self::new_zeroed()
        }
    }

    /// It does not.
    #[must_use]
    pub fn refused(accept: Accept) -> Self {
        Self {
            accept: accept.into(),
            ..Self::new_zeroed()
        }
    }

    /// Whether the session was granted, and if not, why.
    #[must_use]
    pub fn accept(&self) -> Accept {
        self.accept.into()
    }
}

/// Start-Sessions, by its number, or Start-Ack, by its Accept value, before its HMAC (RFC 4656 §3.7).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct StartLayout {
    command_or_accept: u8,
    mbz: [u8; 15],
}
const _: () = assert!(size_of::<StartLayout>() == BLOCK_LEN);

impl StartLayout {
    fn write(command_or_accept: u8, out: &mut Vec<u8>) {
        let start = Self {
            command_or_accept,
            mbz: [0; 15],
        };
        out.extend(start.as_bytes());
    }
}

/// Stop-Sessions before its HMAC (RFC 5357 §3.8).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct StopSessionsLayout {
    command: u8,
    accept: u8,
    mbz: [u8; 2],
    sessions: U32,
    mbz_tail: [u8; 8],
}
const _: () = assert!(size_of::<StopSessionsLayout>() == BLOCK_LEN);

/// What precedes the SIDs in the four messages of RFC 5938 §3.2 to §3.5; Accept is MBZ in commands.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct SidListHead {
    command: u8,
    accept: u8,
    mbz: [u8; 10],
    sessions: U32,
}
const _: () = assert!(size_of::<SidListHead>() == BLOCK_LEN);

impl SidListHead {
    fn read(first: &[u8; BLOCK_LEN]) -> Result<Self, Malformed> {
        whole(first)
    }

    /// Head and SIDs, if there are as many as the head can be believed to have.
    fn body_len(self, most: usize) -> Result<usize, Malformed> {
        let got = self.sessions.get();
        let sids = usize::try_from(got).unwrap_or(usize::MAX);
        match sids {
            0 => Err(Malformed::NoSids),
            _ if sids > most => Err(Malformed::TooManySids { got, most }),
            // No more than `most`, which are in memory somewhere.
            _ => Ok(size_of::<Self>() + sids * size_of::<Sid>()),
        }
    }

    fn read_list(body: &[u8]) -> Result<(Self, Vec<Sid>), Malformed> {
        let length = || Malformed::Length(body.len());
        let (head, rest) = Self::read_from_prefix(body).map_err(|_| length())?;
        let sids = <[Sid]>::ref_from_bytes(rest).map_err(|_| length())?;
        if head.body_len(sids.len())? != body.len() {
            return Err(length());
        }
        Ok((head, sids.to_vec()))
    }

    /// # Panics
    /// Never: lists are bounded by the sessions of one connection, far below 2^32.
    fn write(command: u8, accept: u8, sids: &[Sid], out: &mut Vec<u8>) {
        let head = Self {
            command,
            accept,
            mbz: [0; 10],
            sessions: u32::try_from(sids.len()).unwrap_or(u32::MAX).into(),
        };
        out.extend(head.as_bytes());
        out.extend(sids.as_bytes());
    }
}

/// Why octets from the other end of a control connection are no message. After any of these the
/// octets that follow cannot be understood: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not the length that the message has.
    #[error("a control message of {0} octets")]
    Length(usize),
    /// A command number that has no meaning here, or none from a Control-Client.
    #[error("unknown command {0}")]
    UnknownCommand(u8),
    /// A list of sessions without one (RFC 5938 §3.2).
    #[error("a list of no sessions")]
    NoSids,
    /// A list of more sessions than there can be.
    #[error("a list of {got} sessions where at most {most} can be")]
    TooManySids {
        /// Number of Sessions.
        got: u32,
        /// What it can be.
        most: usize,
    },
    /// Another message than the client waits for.
    #[error("message {number} in place of {awaited}")]
    NotAwaited {
        /// What should have come.
        awaited: Awaited,
        /// The first octet of what came.
        number: u8,
    },
}

impl Malformed {
    /// What a Server says before it closes: an Accept-Session with this value, or nothing.
    #[must_use]
    pub const fn accept(self) -> Option<Accept> {
        match self {
            // Whatever the command would have been (RFC 5357 §3.5).
            Self::UnknownCommand(_) => Some(Accept::NotSupported),
            _ => None,
        }
    }
}

/// All of `octets` as a `T`.
fn whole<T: FromBytes + KnownLayout + Immutable>(octets: &[u8]) -> Result<T, Malformed> {
    T::read_from_bytes(octets).map_err(|_| Malformed::Length(octets.len()))
}

/// Octets of the HMAC that ends each command and answer: HMAC-SHA1 cut short (RFC 4656 §3.2).
pub const HMAC_LEN: usize = 16;
/// All messages after Server-Start are multiples of this, an AES block; the first of a message
/// tells what it is.
pub const BLOCK_LEN: usize = 16;
/// Octets of Server-Start that are never encrypted.
pub const SERVER_START_CLEAR_LEN: usize = 32;

const IKEV2_SET_UP_RESPONSE_LEN: usize = 112;

const START_SESSIONS: u8 = 2;
const STOP_SESSIONS: u8 = 3;
const START_N_SESSIONS: u8 = 7;
const START_N_ACK: u8 = 8;
const STOP_N_SESSIONS: u8 = 9;
const STOP_N_ACK: u8 = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOME_SIDS: usize = 5;

    /// The first block of a message with a list of `sessions` sessions.
    fn list_head(number: u8, sessions: u32) -> [u8; BLOCK_LEN] {
        let mut first = [0xa5; BLOCK_LEN];
        first[0] = number;
        first[12..].copy_from_slice(&sessions.to_be_bytes());
        first
    }

    #[test]
    fn counts_are_powers_of_two_within_limits() {
        for (value, found) in [
            (0, Err(BadCount::NotAPowerOfTwo(0))),
            (1, Err(BadCount::TooLow(1))),
            (512, Err(BadCount::TooLow(512))),
            (1024, Ok(1024)),
            (1500, Err(BadCount::NotAPowerOfTwo(1500))),
            (32_768, Ok(32_768)),
            (
                65_536,
                Err(BadCount::TooHigh {
                    count: 65_536,
                    most: 32_768,
                }),
            ),
            (u32::MAX, Err(BadCount::NotAPowerOfTwo(u32::MAX))),
        ] {
            let count = Count::new(value, Count::DEFAULT_MOST.value());
            assert_eq!(count.map(Count::value), found);
        }
        assert!(Count::new(1 << 31, u32::MAX).is_ok());
    }

    #[test]
    fn key_ids_fill_their_field_and_print_escaped() {
        let key_id = KeyId::new("böb").unwrap();
        assert_eq!(key_id.as_bytes()[..5], [0x62, 0xc3, 0xb6, 0x62, 0]);
        assert_eq!(key_id.octets(), "böb".as_bytes());
        assert_eq!(key_id.to_string(), "\"böb\"");
        assert_eq!(KeyId::new(""), Err(BadKeyId::Empty));
        assert_eq!(KeyId::new("a\0b"), Err(BadKeyId::Empty));
        let full = "x".repeat(80);
        assert_eq!(KeyId::new(&full).unwrap().octets(), full.as_bytes());
        assert_eq!(KeyId::new(&"x".repeat(81)), Err(BadKeyId::TooLong(81)));

        let (hostile, _) =
            KeyId::read_from_prefix(&[b"\x1b[2J\nroot\xff".as_slice(), &[0; 80]].concat()).unwrap();
        assert_eq!(hostile.to_string(), "\"\\u{1b}[2J\\nroot\u{fffd}\"");
        assert!(KeyId::new_zeroed().octets().is_empty());
    }

    #[test]
    fn a_refusal_is_all_zero_but_for_its_reason() {
        let start = ServerStart::refused(Accept::Failure);
        let mut expected = [0; 48];
        expected[15] = 1;
        assert_eq!(start.as_bytes(), expected);
        assert_eq!(start.accept(), Accept::Failure);
        let session = AcceptSession::refused(Accept::TemporaryLimit);
        let mut expected = [0; 32];
        expected[0] = 5;
        assert_eq!(session.as_bytes(), expected);
        assert_eq!(session.accept(), Accept::TemporaryLimit);
    }

    #[test]
    fn lists_are_believed_up_to_what_there_can_be() {
        for number in [START_N_SESSIONS, STOP_N_SESSIONS] {
            for (sessions, found) in [
                (0, Err(Malformed::NoSids)),
                (1, Ok(48)),
                (5, Ok(112)),
                (
                    6,
                    Err(Malformed::TooManySids {
                        got: 6,
                        most: SOME_SIDS,
                    }),
                ),
                (
                    u32::MAX,
                    Err(Malformed::TooManySids {
                        got: u32::MAX,
                        most: SOME_SIDS,
                    }),
                ),
            ] {
                assert_eq!(Command::len(&list_head(number, sessions), SOME_SIDS), found);
            }
        }
        let answer = |awaited, number| Answer::len(awaited, &list_head(number, 1), SOME_SIDS);
        assert_eq!(answer(Awaited::StartNAck, START_N_ACK), Ok(48));
        assert_eq!(answer(Awaited::StopNAck, STOP_N_ACK), Ok(48));
        for (awaited, number) in [
            (Awaited::StartNAck, STOP_N_ACK),
            (Awaited::StopNAck, START_N_ACK),
            (Awaited::StartNAck, 0),
        ] {
            assert_eq!(
                answer(awaited, number),
                Err(Malformed::NotAwaited { awaited, number })
            );
        }
    }

    #[test]
    fn only_commands_of_a_client_are_known() {
        for number in 0..=u8::MAX {
            let len = Command::len(&list_head(number, 1), SOME_SIDS);
            if [2, 3, 5, 7, 9].contains(&number) {
                assert!(len.is_ok_and(|len| len.is_multiple_of(BLOCK_LEN)));
            } else {
                assert_eq!(len, Err(Malformed::UnknownCommand(number)));
                assert_eq!(len.unwrap_err().accept(), Some(Accept::NotSupported));
            }
        }
    }

    /// RFC 7717 §5.3, figure 3.
    #[test]
    fn a_set_up_response_with_keys_from_ikev2_is_shorter() {
        assert_eq!(SetUpResponse::len(Modes::ENCRYPTED), 164);
        assert_eq!(
            SetUpResponse::len(Modes::ENCRYPTED | Modes::IKEV2_DERIVED),
            112
        );
    }

    fn any_awaited() -> impl Strategy<Value = Awaited> {
        prop_oneof![
            Just(Awaited::AcceptSession),
            Just(Awaited::StartAck),
            Just(Awaited::StartNAck),
            Just(Awaited::StopNAck),
        ]
    }

    /// Often the start of a message, sometimes anything.
    fn any_octets() -> impl Strategy<Value = Vec<u8>> {
        let list = (
            0..12_u8,
            0..8_u32,
            proptest::collection::vec(any::<u8>(), 0..120),
        );
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..130),
            list.prop_map(|(number, sessions, rest)| [
                &list_head(number, sessions),
                rest.as_slice()
            ]
            .concat()),
        ]
    }

    proptest! {
        #[test]
        fn any_octets_are_a_command_that_writes_back_or_are_refused(octets in any_octets()) {
            let len = octets.first_chunk().map(|first| Command::len(first, SOME_SIDS));
            let cut = match len {
                Some(Ok(len)) => octets.len().min(len - HMAC_LEN),
                _ => octets.len(),
            };
            let body = &octets[..cut];
            let Ok(command) = Command::read(body) else {
                prop_assert!(!matches!(len, Some(Ok(len)) if cut == len - HMAC_LEN));
                return Ok(());
            };
            let mut written = Vec::new();
            command.write(&mut written);
            prop_assert_eq!(written.len(), body.len());
            prop_assert_eq!(Command::read(&written), Ok(command));
        }

        #[test]
        fn any_octets_are_an_answer_that_writes_back_or_are_refused(
            awaited in any_awaited(),
            octets in any_octets(),
        ) {
            let len = octets.first_chunk().map(|first| Answer::len(awaited, first, SOME_SIDS));
            let cut = match len {
                Some(Ok(len)) => octets.len().min(len - HMAC_LEN),
                _ => octets.len(),
            };
            let body = &octets[..cut];
            let Ok(answer) = Answer::read(awaited, body) else {
                prop_assert!(!matches!(len, Some(Ok(len)) if cut == len - HMAC_LEN));
                return Ok(());
            };
            let mut written = Vec::new();
            answer.write(&mut written);
            prop_assert_eq!(written.len(), body.len());
            prop_assert_eq!(Answer::read(awaited, &written), Ok(answer));
        }

        #[test]
        fn any_key_id_prints_on_one_line(octets in any::<[u8; 32]>()) {
            let (key_id, _) = KeyId::read_from_prefix(&[octets.as_slice(), &[0; 48]].concat()).unwrap();
            prop_assert!(!key_id.to_string().contains(char::is_control));
        }
    }
}
