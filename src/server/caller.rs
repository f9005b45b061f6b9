//! Whose a control connection is.

use std::net::SocketAddr;
use std::sync::Arc;

use super::clients::ClientAddress;
use crate::config::Rules;

/// A control connection; no two have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) place: usize,
    pub(super) number: u64,
}

/// Whom a request came from, and what he may do.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) whose: Whose,
    /// The Control-Client.
    pub(super) peer: SocketAddr,
    /// This host's end of the control connection.
    pub(super) local: SocketAddr,
    pub(super) client: ClientAddress,
    pub(super) rules: Arc<Rules>,
}
