//! What a report is made of, and what several parts of it rest on.

use super::super::receiver::Received;
use super::super::reflector::Reflected;
use super::super::sender::Sent;
use crate::config::SessionConfig;
use crate::io::{Granted, StampKind};
use crate::report::{self, finite};
use crate::stats::delay::Delays;
use crate::wire::Sid;

/// Everything a report is made of.
pub(in crate::engine) struct Parts<'a> {
    pub(in crate::engine) scope: report::Scope,
    pub(in crate::engine) config: &'a SessionConfig,
    pub(in crate::engine) granted: &'a Granted,
    /// Who agreed on the session.
    pub(in crate::engine) terms: Terms,
    /// These are all figures of this process: what the system says of it belongs to them.
    pub(in crate::engine) whole: bool,
    /// What differs, where these are the figures of several: none of their values is said to be that
    /// of all.
    pub(in crate::engine) differs: Differs,
    /// The source ports of all threads, where these are the figures of several.
    pub(in crate::engine) ports: &'a [u16],
    /// Those of them to which nothing came back.
    pub(in crate::engine) silent: &'a [u16],
    /// Packets that this system took and that never left it, as far as it tells.
    pub(in crate::engine) never_left: u64,
    pub(in crate::engine) window: u64,
    pub(in crate::engine) sent: &'a Sent,
    pub(in crate::engine) received: &'a Received,
    pub(in crate::engine) delays: &'a Delays,
    /// A reflector of this process, and who stamped T2 there.
    pub(in crate::engine) reflected: Option<&'a (Reflected, Option<StampKind>)>,
}

/// Who agreed on a session, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Terms {
    /// Nobody: TWAMP Light.
    Light,
    /// A Control-Client and a Server. Of several sessions together there is no SID.
    Agreed {
        security: report::Security,
        sid: Option<Sid>,
    },
}

impl Terms {
    pub(super) fn are_agreed(self) -> bool {
        self != Self::Light
    }
}

/// What several sessions do not have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Differs {
    /// Address or port of the Session-Reflector.
    pub(in crate::engine) remote: bool,
    /// Its address.
    pub(in crate::engine) host: bool,
    /// TOS of the packets.
    pub(in crate::engine) tos: bool,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of a rate: 53 bits are more than its precision"
)]
pub(super) fn ratio(a: u64, b: u64) -> Option<f64> {
    finite(a as f64 / b as f64)
}

/// Whether packets left as trains or came in bundles, and have timestamps in common.
pub(super) fn shares_stamps(parts: &Parts<'_>) -> bool {
    parts.sent.times.longest_burst > 1 || parts.received.facts.bundled > 0
}
