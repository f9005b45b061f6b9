//! The line that every text report begins with: what made the figures, of whom, and when.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::figures::flow;
use crate::report::{Protocol, Report, Role, Scope, Security};

/// What the line tells.
#[derive(Clone, Debug)]
pub struct Heading<'a> {
    /// Version of the program.
    pub version: &'a str,
    /// The subcommand.
    pub command: &'a str,
    /// Whom the figures are of, and from where they were taken.
    pub ends: String,
    /// First departure, or the beginning, UTC, as RFC 3339 writes it; `None`: there was none.
    pub started: Option<String>,
    /// Protocol of the test packets.
    pub protocol: Protocol,
    /// Security mode, or those that a server offers.
    pub security: String,
    /// Name of the key, never the key.
    pub key_id: Option<&'a str>,
    /// TWAMP session identifier.
    pub sid: Option<&'a str>,
}

/// A report's line, with its line break.
#[must_use]
pub fn of(report: &Report) -> String {
    let several = match report.scope {
        Scope::Combined => "several",
        Scope::Session | Scope::Thread => "-",
    };
    let end = |addr: Option<SocketAddr>| addr.map_or(several.to_owned(), |addr| addr.to_string());
    let heading = Heading {
        version: &report.version,
        command: match report.role {
            Role::Sender => "sender",
            Role::Controller => "controller",
            Role::ControlClient => "controlclient",
        },
        ends: format!("{} from {}", end(report.remote), end(report.local)),
        started: report.started.clone(),
        protocol: report.protocol,
        security: security(report.security).to_owned(),
        key_id: report.key_id.as_deref(),
        sid: report.sid.as_deref(),
    };
    heading.show()
}

impl Heading<'_> {
    /// The line, broken where it is too long for 79 columns, with its line break.
    #[must_use]
    pub fn show(&self) -> String {
        let started = self.started.as_deref().map(seconds);
        let mut parts = vec![
            format!(
                "twamp-blast {} {}: {}",
                self.version, self.command, self.ends
            ),
            started.unwrap_or_else(|| "not started".to_owned()),
            match self.protocol {
                Protocol::TwampLight => "TWAMP Light",
                Protocol::Twamp => "TWAMP",
                Protocol::Stamp => "STAMP",
            }
            .to_owned(),
        ];
        parts.push(self.security.clone());
        parts.extend(self.key_id.map(|key| format!("key id {key}")));
        parts.extend(self.sid.map(|sid| format!("SID {sid}")));
        let last = parts.len() - 1;
        for part in &mut parts[..last] {
            part.push(',');
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        flow("", 2, &parts, " ") + "\n"
    }
}

/// The name of a mode.
#[must_use]
pub fn security(mode: Security) -> &'static str {
    match mode {
        Security::Unauthenticated => "unauthenticated",
        Security::Authenticated => "authenticated",
        Security::Encrypted => "encrypted",
        Security::Mixed => "mixed",
    }
}

/// This moment, or another one, as [`Heading::started`] has it.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// A moment in nanoseconds since the Unix epoch, to the microsecond, with its zone: as the lines of the
/// log have it.
#[must_use]
pub fn moment(unix_ns: i64) -> String {
    let since = Duration::from_nanos(u64::try_from(unix_ns).unwrap_or(0));
    rfc3339(SystemTime::UNIX_EPOCH + since)
}

/// A moment as RFC 3339 writes it, UTC, to the second, for a person: `2026-01-02 03:04:05 UTC`.
#[must_use]
pub fn seconds(rfc3339: &str) -> String {
    let second = rfc3339.get(..19).unwrap_or(rfc3339);
    second.replacen('T', " ", 1) + " UTC"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    #[test]
    fn the_line_names_program_ends_time_and_protection() {
        let mut report = full();
        report.role = Role::Controller;
        report.protocol = Protocol::Twamp;
        report.security = Security::Encrypted;
        let expected = "\
twamp-blast 0.1.0 controller: [2001:db8::1]:862 from 127.0.0.1:40000,
  2026-01-02 03:04:05 UTC, TWAMP, encrypted, key id ops,
  SID 00112233445566778899aabbccddeeff
";
        assert_eq!(of(&report), expected);
        report.scope = Scope::Combined;
        report.security = Security::Unauthenticated;
        (report.local, report.remote, report.started) = (None, None, None);
        (report.key_id, report.sid) = (None, None);
        let expected = "\
twamp-blast 0.1.0 controller: several from several, not started, TWAMP,
  unauthenticated
";
        assert_eq!(of(&report), expected);
    }

    #[test]
    fn moments_have_their_zone() {
        let ns = 1_767_323_045_678_901_234;
        assert_eq!(moment(ns), "2026-01-02T03:04:05.678901Z");
        assert_eq!(seconds(&moment(ns)), "2026-01-02 03:04:05 UTC");
    }
}
