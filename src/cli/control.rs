//! The control connection of a Control-Client: its flags, and what they ask of a Server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::address::{DEFAULT_PORT, Narrow, not_this, resolve, resolve_all, to_many, why_this};
use super::error::{Error, usage};
use super::host::{FormatArg, format};
use super::sizes::Room;
use super::values::whole;
use crate::config::{CommandLine, Endpoint, Seconds};
use crate::controller::{Dialled, Failed, NotNow, Passphrase, Path as ControlPath, Wish};
use crate::engine::{self, plain};
use crate::output::heading;
use crate::report::Security;
use crate::report::note::{Passed, Peer};
use crate::wire::control::{Count, KeyId};
use crate::wire::{Ends, Format, Modes, SecurityMode, TestFormat};

/// The control port (RFC 5357 §2.1; RFC 8545 §4).
const CONTROL_PORT: u16 = 862;
/// How long a Server is waited for, in nanoseconds.
const DEFAULT_ANSWER_NS: u64 = 10_000_000_000;
/// How long a Session-Reflector goes on after the stop: by then all replies have been waited for.
pub(super) const TIMEOUT_NS: u64 = 2_000_000_000;
/// The longest time until a session begins, or a Server answers.
const MAX_WAIT_NS: u64 = 86_400_000_000_000;

/// Most sessions of a connection: each has two sockets and three threads.
pub(super) const MOST_SESSIONS: usize = 1000;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Control connection")]
pub(super) struct ControlArgs {
    /// Security mode [default: the strongest that the server offers and that there is a key for]
    #[arg(long, value_enum)]
    pub(super) mode: Option<ModeArg>,
    /// Name of the key, as the server knows it, with --passphrase-file [example: ops]
    #[arg(long, value_name = "KEYID", requires = "passphrase_file")]
    pub(super) key_id: Option<String>,
    /// File whose first line is the passphrase of --key-id; keep it from others: chmod 600
    /// [example: ops.key]
    #[arg(long, value_name = "FILE", requires = "key_id")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Refuse servers that want more iterations to make a key: 1024 to 2147483648
    #[arg(long, value_name = "N", default_value_t = Count::DEFAULT_MOST.value())]
    #[arg(value_parser = parse_most_count, allow_negative_numbers = true)]
    pub(super) max_count: u32,
    /// UDP port to ask for; further sessions ask for those that follow; what the server says is used
    /// [default: 20001]
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT, hide_default_value = true)]
    #[arg(value_parser = whole::<u16>, allow_negative_numbers = true)]
    pub(super) test_port: u16,
    /// Leave out the addresses of the sessions, so that the server takes those of the connection: for
    /// a translation of addresses (NAT) in between
    #[arg(long)]
    pub(super) zero_addresses: bool,
    /// Start and stop sessions by name (Individual Session Control, RFC 5938)
    #[arg(long)]
    pub(super) individual_sessions: bool,
    /// Send requests as long as replies are, by octets of zero where the reply has more fields
    /// (Symmetrical Size, RFC 6038)
    #[arg(long)]
    pub(super) symmetrical_size: bool,
    /// Have replies tell which DSCP and ECN arrived (RFC 7750)
    #[arg(long)]
    pub(super) dscp_mode: bool,
    /// Wait so long for each answer of the server; a bare number is seconds [default: 10s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    pub(super) control_timeout: Option<Seconds>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeArg {
    /// Nothing is protected
    Unauthenticated,
    /// Control is encrypted, test packets carry an encrypted number and an HMAC
    Authenticated,
    /// Control and test packets are encrypted
    Encrypted,
    /// Control is encrypted, test packets are plain (RFC 5618)
    Mixed,
}

impl From<ModeArg> for SecurityMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Unauthenticated => Self::Unauthenticated,
            ModeArg::Authenticated => Self::Authenticated,
            ModeArg::Encrypted => Self::Encrypted,
            ModeArg::Mixed => Self::Mixed,
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            // The sizes of the command line, which only the mode settles.
            Failed::NotNow(NotNow::Unacceptable(why)) => Self::Usage(why.to_string()),
            Failed::Interrupted => Self::Interrupted,
            refused if refused.refused_by_peer() => Self::Refused(refused.to_string()),
            other => Self::Runtime(other.to_string()),
        }
    }
}

impl ControlArgs {
    /// The name of the key, where the mode has one.
    pub(super) fn key_in_use(&self, security: Security) -> Option<String> {
        let key_id = self.key_id.clone();
        key_id.filter(|_| security != Security::Unauthenticated)
    }

    /// What the subcommand has of the control connection; never a key.
    pub(super) fn flags(&self, line: &mut CommandLine, security: Security) {
        line.set("mode", heading::security(security));
        line.set("test-port", self.test_port);
        line.set_if("key-id", self.key_id.as_ref());
        let file = self.passphrase_file.as_ref();
        line.set_if("passphrase-file", file.map(|file| file.display()));
        let most = Some(self.max_count);
        line.set_if(
            "max-count",
            most.filter(|n| *n != Count::DEFAULT_MOST.value()),
        );
        line.set_if("control-timeout", self.control_timeout);
        line.switch("zero-addresses", self.zero_addresses);
        line.switch("individual-sessions", self.individual_sessions);
        line.switch("symmetrical-size", self.symmetrical_size);
        line.switch("dscp-mode", self.dscp_mode);
    }

    /// The ways to the Server's addresses, in the order in which they are tried; one at least.
    pub(super) fn paths(
        server: Option<&Endpoint>,
        local: Option<&Endpoint>,
        narrow: Narrow<'_>,
    ) -> Result<Vec<ControlPath>, Error> {
        let Some(endpoint) = server.filter(|server| server.host.is_some()) else {
            return Err(usage(
                "SERVER has no address; name it, such as 192.0.2.1 or [2001:db8::1]:862",
            ));
        };
        let interface = narrow.interface;
        let servers = resolve_all(endpoint, CONTROL_PORT, narrow)?;
        let own = local.filter(|local| local.host.is_some());
        let path = |server: SocketAddr| {
            if server.port() == 0 || server.ip().is_unspecified() || to_many(server.ip()) {
                return Err(usage(format!(
                    "{endpoint}: not the address and control port of one host; name the server's own"
                )));
            }
            let own = own.map(|own| resolve(own, 0, Narrow::like(server, interface)));
            Ok(ControlPath {
                server,
                local: own
                    .transpose()?
                    .map(|own| own.ip())
                    .filter(|ip| !ip.is_unspecified()),
                interface: interface.map(str::to_owned),
            })
        };
        servers.into_iter().map(path).collect()
    }

    pub(super) fn features(&self, timestamps: FormatArg) -> Modes {
        let mut features = Modes::NONE;
        for (feature, wanted) in [
            (Modes::SYMMETRICAL_SIZE, self.symmetrical_size),
            (Modes::DSCP_ECN_MONITORING, self.dscp_mode),
            (Modes::INDIVIDUAL_SESSION_CONTROL, self.individual_sessions),
            (Modes::PTP_TIMESTAMP, format(timestamps) == Format::Ptp),
        ] {
            if wanted {
                features = features | feature;
            }
        }
        features
    }

    pub(super) fn wish(&self, features: Modes) -> Result<Wish, Error> {
        let mode = self.mode.map(SecurityMode::from);
        let key = match (&self.key_id, &self.passphrase_file) {
            (Some(key_id), Some(file)) => {
                let id = KeyId::new(key_id)
                    .map_err(|why| usage(format!("--key-id {key_id:?}: {why}")))?;
                Some((id, passphrase(file)?))
            }
            _ => None,
        };
        if let (Some(mode), None) = (mode, &key)
            && mode.protects_control()
        {
            return Err(usage(format!(
                "--mode {mode} needs a key; add --key-id and --passphrase-file"
            )));
        }
        let answer = bounded("--control-timeout", self.control_timeout, 1)?;
        Ok(Wish {
            mode,
            features,
            key,
            most_iterations: self.max_count,
            most_sessions: MOST_SESSIONS,
            answer_ns: i64::try_from(answer.unwrap_or(DEFAULT_ANSWER_NS)).unwrap_or(i64::MAX),
        })
    }
}

/// Why a Server's address is not the first one of its name.
pub(super) fn elsewhere(mut passed: Vec<Passed>, dialled: &Dialled) -> Option<Peer> {
    let tried = dialled.passed.iter();
    passed.extend(tried.map(|(server, error)| not_this(server.ip(), plain(error))));
    why_this(dialled.path().server.ip(), passed)
}

/// The layout of test packets in a mode that both sides have agreed on.
pub(super) fn format_of(
    modes: Modes,
    reflected: u16,
    server_octets: [u8; 2],
) -> Result<TestFormat, Error> {
    let format = TestFormat::new(modes, reflected, server_octets);
    format.map_err(|why| Error::Runtime(why.to_string()))
}

/// The address with the scope of another one: a link-local address needs it.
pub(super) fn with_scope(mut addr: SocketAddr, of: SocketAddr) -> SocketAddr {
    if let (SocketAddr::V6(addr), SocketAddr::V6(of)) = (&mut addr, of) {
        addr.set_scope_id(of.scope_id());
    }
    addr
}

/// Both ends of a session; without addresses those of the control connection are meant
/// (RFC 5357 §3.5), which are right on both sides of a translation.
pub(super) fn ends(
    sender: SocketAddr,
    receiver: SocketAddr,
    zero_addresses: bool,
) -> Result<Ends, Error> {
    let end = |addr: SocketAddr| {
        let ip = match zero_addresses {
            true => engine::any_address(addr.ip()),
            false => addr.ip(),
        };
        SocketAddr::new(ip, addr.port())
    };
    Ends::new(end(sender), end(receiver)).ok_or_else(|| {
        usage(format!(
            "{} and {} are of two families; use two IPv4 or two IPv6 addresses",
            sender.ip(),
            receiver.ip()
        ))
    })
}

/// Which sizes requests may have.
pub(super) fn room(format: &TestFormat) -> Room {
    Room {
        header: format.padding_at(),
        least: format.padding_at() + format.least_padding(),
        even: format.even_padding(),
    }
}

pub(super) fn security(modes: Modes) -> Security {
    match modes.security() {
        Ok(SecurityMode::Authenticated) => Security::Authenticated,
        Ok(SecurityMode::Encrypted) => Security::Encrypted,
        Ok(SecurityMode::Mixed) => Security::Mixed,
        Ok(SecurityMode::Unauthenticated) | Err(_) => Security::Unauthenticated,
    }
}

/// Nanoseconds of a flag that can be given.
pub(super) fn bounded(
    flag: &str,
    value: Option<Seconds>,
    least_ns: u64,
) -> Result<Option<u64>, Error> {
    match value {
        Some(time) if !(least_ns..=MAX_WAIT_NS).contains(&time.ns()) => Err(usage(format!(
            "{flag} {time}: use more than 0 and at most 24h"
        ))),
        time => Ok(time.map(Seconds::ns)),
    }
}

/// The first line of a file, without its end.
fn passphrase(path: &Path) -> Result<Passphrase, Error> {
    let cannot = |why: &dyn std::fmt::Display| {
        usage(format!(
            "--passphrase-file {}: {why}; use a file whose first line is the passphrase",
            path.display()
        ))
    };
    let text = zeroize::Zeroizing::new(std::fs::read(path).map_err(|error| cannot(&error))?);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let open = std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
        if open {
            log::warn!(
                "--passphrase-file {}: others can read it; chmod 600 keeps it from them",
                path.display()
            );
        }
    }
    let line = text.split(|octet| *octet == b'\n').next().unwrap_or(&[]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(cannot(&"its first line is empty"));
    }
    Ok(Passphrase::new(line.to_vec()))
}

fn parse_most_count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1024..=0x8000_0000) => Ok(count),
        _ => Err("use 1024 to 2147483648".to_owned()),
    }
}
