//! What a Server will do.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::plan::ServedConfig;
use super::policy::Policy;
use crate::wire::Modes;
use crate::wire::control::Count;

/// A Server with its Session-Reflectors.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// TCP addresses and ports to listen on; port 0 takes any free one, the same for all.
    pub listen: Vec<SocketAddr>,
    /// Security modes that are offered at most, as far as policy and keys allow; `None`: those that the
    /// policy has.
    pub security: Option<Modes>,
    /// Features that are offered at most, as far as the policy allows.
    pub features: Modes,
    /// Iterations of the key derivation that is asked of clients.
    pub count: Count,
    /// The file of KeyIDs and passphrases; without one, no mode that protects anything is offered, and with
    /// one the unauthenticated mode only where `security` or the policy names it.
    pub keys: Option<PathBuf>,
    /// Who may do what.
    pub policy: Policy,
    /// What the Session-Reflectors have in common.
    pub served: ServedConfig,
}
