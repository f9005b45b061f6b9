//! What a Server did, as plain data: the twin of `server.schema.json`, field for field.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::call::FailedCall;
use super::ignored::Ignored;
use super::unsent::Unsent;

/// One Server's account: one line of JSON, printed when it stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Name and version of this layout.
    pub schema: Schema,
    /// Version of the program.
    pub version: String,
    /// TCP addresses and ports that were listened on.
    pub listen: Vec<SocketAddr>,
    /// Modes that were offered at most, by their names.
    pub modes: Vec<String>,
    /// Counts of all connections and sessions.
    pub totals: Totals,
    /// The sessions that ended last, in the order of their ends.
    pub sessions: Vec<Session>,
    /// Sessions that are not listed, since only so many are.
    pub sessions_not_listed: u64,
    /// System calls for many packets that this system refused, so that each took one of its own.
    pub refused_calls: Vec<FailedCall>,
    /// The system call that failed for good, which ended the Server before its time.
    pub failure: Option<FailedCall>,
}

impl Account {
    /// The account as one line of JSON, without the line break.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        // Only a map with keys that are not strings, or a failing `Serialize`, is an error: none here.
        serde_json::to_string(self).expect("plain data always serialises")
    }
}

/// Name and version of the layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Schema {
    /// Version 1: fields may be added; none is renamed, removed or given another meaning.
    #[default]
    #[serde(rename = "twamp-blast/server/1")]
    Version1,
}

/// Counts of a whole Server: control connections, then sessions, then test packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Control connections that were made.
    pub connections: u64,
    /// The most of them at a time.
    pub most_connections: u64,
    /// Of them, those that were set up: Server-Start said OK.
    pub set_up: u64,
    /// Those that got a greeting without any mode: too many, or no mode for them.
    pub turned_away: u64,
    /// Those that made room for others before their set-up was over.
    pub made_room: u64,
    /// Those whose choice of a mode was refused, or who chose none.
    pub wrong_mode: u64,
    /// Those with an unknown KeyID, or another passphrase.
    pub wrong_key: u64,
    /// Those whose key was not checked, since too many waited for that.
    pub unchecked: u64,
    /// Those that ended with octets that are no message, or with one at the wrong time.
    pub broken: u64,
    /// Those that ended with a Stop-Sessions for another number of sessions than ran, as RFC 5357 §3.8 has it.
    pub stop_miscounted: u64,
    /// Those that ended since nothing came in time.
    pub timed_out: u64,
    /// Sessions that were granted.
    pub sessions: u64,
    /// Requests for sessions that were refused.
    pub sessions_refused: u64,
    /// Sessions that were started.
    pub sessions_started: u64,
    /// Datagrams that arrived for sessions.
    pub received: u64,
    /// Octets of UDP payload in them.
    pub received_octets: u64,
    /// Replies that were sent.
    pub reflected: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// The same by the error that the system gave, of the first few errors.
    pub unsent_by: Unsent,
    /// Datagrams that are no request.
    pub invalid: u64,
    /// Requests whose HMAC is not theirs.
    pub forged: u64,
    /// Requests beyond what the client may have answered.
    pub over_limit: u64,
    /// Requests before their session was started.
    pub early: u64,
    /// Datagrams of no session.
    pub strays: u64,
    /// The sum of the five before, by kind.
    pub ignored: Ignored,
    /// Requests that came in bundles.
    pub bundled: u64,
    /// Requests whose Error Estimate has Multiplier 0, which RFC 4656 §4.1.2 forbids: answered all the
    /// same.
    pub estimates_unusable: u64,
    /// Datagrams that this host's sockets dropped, a bundle being one: where requests came in bundles, at
    /// least so many. `None` where the system does not tell.
    pub kernel_drops: Option<u64>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Session identifier, 32 hexadecimal digits.
    pub sid: String,
    /// The Control-Client.
    pub client: SocketAddr,
    /// Who it proved to be, with everything odd escaped; `None` in unauthenticated mode.
    pub key_id: Option<String>,
    /// The modes that were agreed on, by their names.
    pub modes: Vec<String>,
    /// Session-Sender.
    pub sender: SocketAddr,
    /// Address of the Session-Reflector.
    pub receiver: IpAddr,
    /// Its port.
    pub receiver_port: u16,
    /// DSCP of the replies, 0 to 63.
    pub dscp: u8,
    /// When it was granted, UTC, as RFC 3339 writes it, to the millisecond.
    pub granted: String,
    /// When it was started, likewise; `None`: never.
    pub started: Option<String>,
    /// When it was over, likewise.
    pub ended: String,
    /// How it ended.
    pub ending: Ending,
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload in them.
    pub received_octets: u64,
    /// Replies that were sent.
    pub reflected: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// Datagrams that are no request.
    pub invalid: u64,
    /// Requests whose HMAC is not theirs.
    pub forged: u64,
    /// Requests beyond what the client may have answered.
    pub over_limit: u64,
    /// Requests before the session was started.
    pub early: u64,
    /// The sum of the four before, by kind.
    pub ignored: Ignored,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The client stopped it.
    Stopped,
    /// The client stopped it, and said that its results are void.
    Failed,
    /// The connection ended while it ran.
    Lost,
    /// It was never started.
    Withdrawn,
    /// REFWAIT: no packet came any more.
    Silent,
    /// The Server ended.
    Shutdown,
}

/// A word or two for a log.
impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Failed => "stopped as failed",
            Self::Lost => "its connection ended",
            Self::Withdrawn => "never started",
            Self::Silent => "silent",
            Self::Shutdown => "the server ended",
        })
    }
}
