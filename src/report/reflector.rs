//! What a reflector did, as plain data: the twin of `reflector.schema.json`, field for field.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::call::FailedCall;
use super::ignored::Ignored;
use super::unsent::Unsent;

/// One reflector's account: one line of JSON, printed when it stops.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Name and version of this layout.
    pub schema: Schema,
    /// Version of the program.
    pub version: String,
    /// Addresses and ports that were listened on.
    pub listen: Vec<SocketAddr>,
    /// Sender sequence numbers were copied instead of replies counted.
    pub stateless: bool,
    /// What was done to packets on purpose; `None` without test mode.
    pub test_mode: Option<TestMode>,
    /// Counts of all sessions, and of what belongs to none.
    pub totals: Totals,
    /// The sessions begun last, in order of their beginning; `None` where no sessions are told
    /// apart (`--stateless` without test mode).
    pub sessions: Option<Vec<Session>>,
    /// Sessions that are not listed, since only so many are; `None` as `sessions`.
    pub sessions_not_listed: Option<u64>,
    /// System calls for many packets that this system refused, so that each took one of its own.
    pub refused_calls: Vec<FailedCall>,
    /// The system call that failed for good, which ended the reflector before its time.
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
    #[serde(rename = "twamp-blast/reflector/1")]
    Version1,
}

/// What was asked of the test mode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestMode {
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Seed of all draws.
    pub seed: u64,
    /// Share of packets to drop, 0 to 1; so all shares.
    pub drop_rate: f64,
    /// Share to duplicate.
    pub duplicate_rate: f64,
    /// Share to hold until a later packet has overtaken it.
    pub reorder_rate: f64,
    /// Share to delay.
    pub delay_rate: f64,
    /// Share to corrupt.
    pub corrupt_rate: f64,
    /// The shortest delay drawn, in nanoseconds.
    pub delay_min_ns: u64,
    /// The longest delay drawn, in nanoseconds.
    pub delay_max_ns: u64,
    /// Packets let through in each second; `None`: all.
    pub rate_limit_pps: Option<f64>,
}

/// Counts of a whole reflector, in packets where not said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload that arrived.
    pub received_octets: u64,
    /// Replies that were sent, copies included.
    pub reflected: u64,
    /// Datagrams that are no request.
    pub invalid: u64,
    /// Requests that were not answered: `not_allowed` + `loops` + `to_many`.
    pub refused: u64,
    /// Requests from addresses that are not on the list.
    pub not_allowed: u64,
    /// Replies of this reflector that came back as requests, and requests that tell no port to answer.
    pub loops: u64,
    /// Requests to a broadcast or multicast address.
    pub to_many: u64,
    /// All that was not answered, `invalid` + `refused`, by kind.
    pub ignored: Ignored,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// The same by the error that the system gave, of the first few errors.
    pub unsent_by: Unsent,
    /// Sessions that were begun; 0 where none are told apart.
    pub sessions: u64,
    /// Sessions that made room for others before their time.
    pub evicted: u64,
    /// Requests of which the kernel cut control messages off.
    pub control_cut: u64,
    /// Requests that came in bundles.
    pub bundled: u64,
    /// Requests whose Error Estimate has Multiplier 0, which RFC 4656 §4.1.2 forbids: answered all the
    /// same.
    pub estimates_unusable: u64,
    /// Datagrams that this host's sockets dropped, a bundle being one: where requests came in bundles, at
    /// least so many. `None` where the system does not tell.
    pub kernel_drops: Option<u64>,
    /// What was done on purpose; `None` without test mode.
    pub injected: Option<Injected>,
}

/// One session: an address and port that asked, and the address that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Who asked.
    pub address: IpAddr,
    /// From which port.
    pub port: u16,
    /// The address that was asked; `None` where the system does not tell.
    pub local_address: Option<IpAddr>,
    /// Arrival of the first packet, UTC, as RFC 3339 writes it, to the millisecond.
    pub first_packet: String,
    /// Arrival of the last packet, likewise.
    pub last_packet: String,
    /// Datagrams that arrived.
    pub received: u64,
    /// Octets of UDP payload that arrived.
    pub received_octets: u64,
    /// Replies that were sent, copies included.
    pub reflected: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
    /// Datagrams that are no request.
    pub invalid: u64,
    /// Requests that were not answered.
    pub refused: u64,
    /// What was done on purpose; `None` without test mode.
    pub injected: Option<Injected>,
}

/// What a reflector in test mode did to packets, counted in packets.
///
/// In totals and in each session: `reflected` + `unsent` = `received` - `invalid` - `refused`
/// - `dropped` - `rate_limited` - `unreleased` + `duplicated`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Injected {
    /// Vanished.
    pub dropped: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Reordered by the rule of RFC 4737 §3.3 in the order in which packets really went on,
    /// whether they were held for that or delayed. Corrupted packets and copies do not take part.
    pub reordered: u64,
    /// Held for a drawn time.
    pub delayed: u64,
    /// Sent with a changed Sender Timestamp.
    pub corrupted: u64,
    /// Vanished since they were above the rate limit.
    pub rate_limited: u64,
    /// To be held, but sent at once: there was no room.
    pub not_held: u64,
    /// Still held when the reflector stopped, and never sent.
    pub unreleased: u64,
}

impl Injected {
    /// Adds the counts of another thread.
    pub fn add(&mut self, other: &Self) {
        self.dropped += other.dropped;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.delayed += other.delayed;
        self.corrupted += other.corrupted;
        self.rate_limited += other.rate_limited;
        self.not_held += other.not_held;
        self.unreleased += other.unreleased;
    }
}
