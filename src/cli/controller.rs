//! The `controller` and `controlclient` subcommands: their flags, and a run from the control connection
//! to the report.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::address::{
    FamilyArgs, Narrow, not_this, possible, resolve, resolve_all, source_of, to_many, why_this,
};
use super::{
    Again, DEFAULT_PORT, Error, Hangup, LogArgs, Results, Room, SenderArgs, SizeArgs, Watcher,
    catch_signals, check_log, check_sender, complain, doubt_rate, find, open_log, parse_interface,
    print, say, session, sizes, stop_when_unread, usage, verdict, whole,
};
use crate::config::{Dscp, Endpoint, Family, Seconds, SessionConfig, Tos};
use crate::controller::{
    Connection, Dialled, Failed, NotNow, Passphrase, Path as ControlPath, Wish, dial, start_time,
};
use crate::engine::{self, Agreed, Measured, Opened, Progress, Stop, Update, plain};
use crate::output::{heading, text};
use crate::report::find_rate::FindRate;
use crate::report::{Protocol, Report, Security};
use crate::search::Plan;
use crate::wire::control::{Count, KeyId};
use crate::wire::{
    Accept, Ends, Format, Interval, Modes, ReflectOctets, SecurityMode, SessionRequest, TestFormat,
    Timestamp, Unacceptable,
};

/// The control port (RFC 5357 §2.1; RFC 8545 §4).
const CONTROL_PORT: u16 = 862;
/// Where a Session-Sender elsewhere sends from, unless it is said.
const SENDER_PORT: u16 = 20_000;
/// How long a Server is waited for, in nanoseconds.
const DEFAULT_ANSWER_NS: u64 = 10_000_000_000;
/// How long a Session-Reflector goes on after the stop: by then all replies have been waited for.
const TIMEOUT_NS: u64 = 2_000_000_000;
/// The longest time until a session begins, or a Server answers.
const MAX_WAIT_NS: u64 = 86_400_000_000_000;
/// How long a Server's test port may take to open (see [`SessionConfig::grace_ns`]).
const GRACE_NS: u64 = 3_000_000_000;
/// Most sessions of a connection: each has two sockets and three threads.
const MOST_SESSIONS: usize = 1000;

pub(super) const SERVER_HELP: &str = "Server: address or name, with its control port (TCP) unless that is \
862 [examples: 192.0.2.1, [2001:db8::1]:8620]";

pub(super) const EXAMPLES: &str = "\
Examples:
  twamp-blast controller 192.0.2.1
        100 packets, 100 ms apart, to a session that the server at port 862 grants
  twamp-blast controller 192.0.2.1 --key-id ops --passphrase-file ops.key --rate 10k
        in the strongest mode that both sides can
  twamp-blast controller 192.0.2.1 --dscp be,af41,ef --rate 100 --duration 60s
        three sessions side by side: what each class gets
  twamp-blast controller [2001:db8::1]:8620 --mode unauthenticated --sessions 10 --json
        a line of JSON for each session, and one for all
";

pub(super) const CLIENT_EXAMPLES: &str = "\
Examples:
  twamp-blast controlclient 192.0.2.7:20000 192.0.2.1
        has the server at 192.0.2.1 answer what 192.0.2.7 sends from port 20000, until Ctrl-C
  twamp-blast controlclient 192.0.2.7:20000 192.0.2.1 --duration 10m --test-port 4000
        for ten minutes, on port 4000 if it is free
";

#[derive(Debug, Args)]
pub(super) struct ControllerArgs {
    #[command(flatten)]
    sender: SenderArgs,
    #[command(flatten)]
    control: ControlArgs,
    /// Sessions for each --dscp, each with the whole rate, a source port and a report of its own
    /// [example: 10]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_sessions)]
    #[arg(allow_negative_numbers = true, help_heading = "Sessions")]
    sessions: usize,
    /// Ask that so many octets of the padding come back, whatever else is cut (Reflect Octets, RFC
    /// 6038); without a number 8 [example: 16]
    #[arg(long, value_name = "N", value_parser = whole::<u16>, num_args = 0..=1)]
    #[arg(
        default_missing_value = "8",
        allow_negative_numbers = true,
        help_heading = "Sessions"
    )]
    reflect_octets: Option<u16>,
    /// Begin after so long, and tell the server so (Start Time); a bare number is seconds; without it
    /// the server is told 0, at once, whatever its clock says [example: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Sessions")]
    #[arg(allow_negative_numbers = true)]
    start_in: Option<Seconds>,
}

#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// Address and port of the Session-Sender, which runs elsewhere [example: 192.0.2.7:20000;
    /// default port: 20000]
    #[arg(value_name = "SENDER[:PORT]")]
    sender: Endpoint,
    /// Server, with its control port unless that is 862 [example: 192.0.2.1]
    #[arg(value_name = "SERVER[:PORT]")]
    server: Endpoint,
    #[command(flatten)]
    control: ControlArgs,
    #[command(flatten)]
    sizes: SizeArgs,
    /// DSCP of the replies by name or number [examples: ef, 46; default: 0]
    #[arg(long, value_name = "DSCP", allow_negative_numbers = true)]
    dscp: Option<Dscp>,
    /// Hold the session for so long; a bare number is seconds [example: 10m; default: until Ctrl-C]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    duration: Option<Seconds>,
    /// Network interface to use; a link-local address is of its link [example: eth0]
    #[arg(long, value_name = "NAME", value_parser = parse_interface)]
    interface: Option<String>,
    #[command(flatten)]
    family: FamilyArgs,
    /// Print one line of JSON when it ends, and what the server granted on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Control connection")]
struct ControlArgs {
    /// Security mode [default: the strongest that the server offers and that there is a key for]
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Name of the key, as the server knows it, with --passphrase-file [example: ops]
    #[arg(long, value_name = "KEYID", requires = "passphrase_file")]
    key_id: Option<String>,
    /// File whose first line is the passphrase of --key-id; keep it from others: chmod 600
    /// [example: ops.key]
    #[arg(long, value_name = "FILE", requires = "key_id")]
    passphrase_file: Option<PathBuf>,
    /// Refuse servers that want more iterations to make a key: 1024 to 2147483648
    #[arg(long, value_name = "N", default_value_t = Count::DEFAULT_MOST.value())]
    #[arg(value_parser = parse_most_count, allow_negative_numbers = true)]
    max_count: u32,
    /// UDP port to ask for; further sessions ask for those that follow; what the server says is used
    /// [default: 20001]
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT, hide_default_value = true)]
    #[arg(value_parser = whole::<u16>, allow_negative_numbers = true)]
    test_port: u16,
    /// Leave out the addresses of the sessions, so that the server takes those of the connection: for
    /// a translation of addresses (NAT) in between
    #[arg(long)]
    zero_addresses: bool,
    /// Start and stop sessions by name (Individual Session Control, RFC 5938)
    #[arg(long)]
    individual_sessions: bool,
    /// Send requests as long as replies are, by octets of zero where the reply has more fields
    /// (Symmetrical Size, RFC 6038)
    #[arg(long)]
    symmetrical_size: bool,
    /// Have replies tell which DSCP and ECN arrived (RFC 7750)
    #[arg(long)]
    dscp_mode: bool,
    /// Wait so long for each answer of the server; a bare number is seconds [default: 10s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    control_timeout: Option<Seconds>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
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

pub(super) fn run(args: &ControllerArgs) -> Result<u8, Error> {
    let sender = &args.sender;
    check_sender(sender)?;
    let searching = sender.find.find_rate;
    if searching && (args.sessions > 1 || sender.ip.dscp.len() > 1 || args.start_in.is_some()) {
        return Err(usage(
            "--find-rate searches the rate of one session after the other; leave out --sessions, \
             --start-in and further --dscp",
        ));
    }
    if !searching {
        find::refuse_without_search(sender)?;
    }
    let start_in = bounded("--start-in", args.start_in, 0)?;
    let local = sender.local.as_ref();
    let narrow = sender.narrow()?;
    let paths = ControlArgs::paths(sender.remote.as_ref(), local, narrow)?;
    let reflector = |path: &ControlPath| {
        let server = SocketAddr::new(path.server.ip(), args.control.test_port.max(1));
        with_scope(server, path.server)
    };
    // Whatever the mode turns out to be: what else is wrong is said before anybody is called.
    let (paths, no_way) = possible(paths, |path| {
        let server = reflector(path);
        if searching {
            plan(sender, server, &Room::LIGHT)?;
        } else {
            args.lanes(&session(sender, server, &Room::LIGHT)?)?;
        }
        Ok(path.clone())
    })?;
    let mut features = args.control.features(sender.host.timestamp_format);
    if args.reflect_octets.is_some() {
        features = features | Modes::REFLECT_OCTETS;
    }
    let wish = args.control.wish(features)?;
    let results = Results::open(&sender.results)?;
    let talk = !sender.log.quiet;
    let stop = Stop::default();
    catch_signals(&stop, talk, Again::EndsWait, Hangup::Ends)?;
    stop_when_unread(&stop)?;

    let dialled = dial(&paths, wish.answer_ns, &stop)?;
    let elsewhere = elsewhere(no_way, &dialled);
    let path = dialled.path().clone();
    let server = reflector(&path);
    let configure = |room: &Room| session(sender, server, room);
    if let Some(why) = elsewhere.as_ref().filter(|_| talk) {
        complain(why);
    }
    let connection = Connection::over(dialled, wish, &stop)?;
    let run = Run::new(args, &connection, start_in, &stop)?;
    let chosen = args.control.mode.is_some() || args.control.key_id.is_none();
    if talk && !chosen && run.security == Security::Unauthenticated {
        complain("the server offers no mode with a key: nothing is protected");
    }
    if searching {
        return run.search(connection, server, &path);
    }
    let base = configure(&run.room())?;
    if talk {
        doubt_rate(&sender.load, &base);
    }
    let lanes = args.lanes(&base)?;
    let mut watcher = Watcher::new(sender, talk, path.server.ip(), "session");
    let measured = run.measure(connection, &lanes, |update| watcher.show(&update));
    watcher.finish();
    let (_, mut measured, trouble) = measured?;
    let words = args.words(&path, run.security);
    if measured.parts.is_empty() {
        measured.report.command = command(&measured.report.command, &words);
    } else {
        // What each session sends, and the flags that make several of them.
        measured.report.command = command(&base.command(), &words);
    }
    for (report, lane) in measured.parts.iter_mut().zip(&lanes) {
        let words = args.words_of_one(&path, run.security, lane);
        report.command = command(&report.command, &words);
    }
    let all = std::iter::once(&mut measured.report).chain(&mut measured.parts);
    for report in all {
        report.notes.extend(elsewhere.clone());
        report.notes.extend(trouble.clone());
        report.key_id = args.control.key_in_use(run.security);
    }
    let Measured { report, parts } = measured;
    for reason in &report.host.reasons {
        log::info!("tool-limited: {reason}");
    }
    let shown = sessions_apart(&parts, sender).and_then(|()| results.show(&report, talk));
    let code = verdict(&report);
    shown?;
    if let Some(trouble) = trouble {
        complain(trouble);
        return Ok(if code == 0 { 1 } else { code });
    }
    Ok(code)
}

/// Why a Server's address is not the first one of its name.
fn elsewhere(mut passed: Vec<String>, dialled: &Dialled) -> Option<String> {
    let tried = dialled.passed.iter();
    passed.extend(tried.map(|(server, error)| not_this(server.ip(), plain(error))));
    why_this(dialled.path().server.ip(), &passed)
}

fn plan(sender: &SenderArgs, server: SocketAddr, room: &Room) -> Result<Plan, Error> {
    find::plan(sender, session(sender, server, room)?, room, false)
}

/// What each of several sessions measured, and how they compare.
fn sessions_apart(parts: &[Report], args: &SenderArgs) -> Result<(), Error> {
    if args.results.json {
        return parts
            .iter()
            .try_for_each(|report| print(&(report.to_json_line() + "\n")));
    }
    if parts.is_empty() {
        return Ok(());
    }
    for (number, report) in (1..).zip(parts) {
        let summary = text::summary(report, args.results.detail());
        let heading = text::session_heading(number, parts.len(), report);
        print(&format!("{heading}\n{summary}\n"))?;
    }
    print(&format!(
        "{}\n--- all sessions ---\n",
        text::comparison(parts)
    ))
}

/// A connection's sessions, from what is asked to what was measured.
struct Run<'a> {
    args: &'a ControllerArgs,
    modes: Modes,
    security: Security,
    /// Without Server octets, which only the answer tells.
    format: TestFormat,
    reflected: u16,
    start_in: Option<u64>,
    stop: &'a Stop,
}

impl<'a> Run<'a> {
    fn new(
        args: &'a ControllerArgs,
        connection: &Connection,
        start_in: Option<u64>,
        stop: &'a Stop,
    ) -> Result<Self, Error> {
        let modes = connection.modes();
        let reflected = args.reflect_octets.unwrap_or(0);
        Ok(Self {
            args,
            modes,
            security: security(modes),
            format: format_of(modes, reflected, [0; 2])?,
            reflected,
            start_in,
            stop,
        })
    }

    fn room(&self) -> Room {
        room(&self.format, self.modes, self.reflected)
    }

    /// Runs sessions on a connection: also what went wrong with it meanwhile.
    fn measure(
        &self,
        mut connection: Connection,
        lanes: &[SessionConfig],
        watch: impl FnMut(Update),
    ) -> Result<(Connection, Measured, Option<String>), Error> {
        let opened = engine::open(lanes.to_vec())?;
        let agreed = self.agree(&mut connection, lanes, &opened)?;
        connection.start()?;
        if self.start_in.is_some() {
            connection.wait_for(self.start_in)?;
        }
        let held = connection.hold()?;
        let measured = opened.measure(agreed, self.stop, watch);
        let (mut connection, ended) = held.release()?;
        let accept = match measured {
            Ok(_) => Accept::Ok,
            Err(_) => Accept::InternalError,
        };
        let trouble = match ended {
            Some((after_ns, why)) => Some(format!(
                "the control connection ended {} s after the start ({why}): the server may have \
                 stopped answering then",
                seconds(after_ns)
            )),
            None => connection.stop(accept).err().map(|why| {
                format!("the server may not know that the sessions have stopped: {why}")
            }),
        };
        Ok((connection, measured?, trouble))
    }

    fn search(
        &self,
        connection: Connection,
        server: SocketAddr,
        path: &ControlPath,
    ) -> Result<u8, Error> {
        let plan = plan(&self.args.sender, server, &self.room())?;
        let mut connection = Some(connection);
        // The server may grant each trial another port.
        let granted = RefCell::new(Vec::new());
        let words = self.args.words(path, self.security);
        let tell = |found: &mut FindRate| {
            found.command = command(&found.command, &words);
            let ports: Vec<SocketAddr> = granted.take();
            let first = ports.first().copied();
            found.remote = first.filter(|first| ports.iter().all(|port| port == first));
        };
        let mut trial = |session: &SessionConfig, progress: &mut dyn FnMut(Progress)| {
            let Some(before) = connection.take() else {
                return Err(Error::Runtime("the control connection is gone".to_owned()));
            };
            let watch = |update| {
                if let Update::Progress(now) = update {
                    progress(now);
                }
            };
            let lanes = self.args.lanes(session)?;
            let (after, measured, trouble) = self.measure(before, &lanes, watch)?;
            if let Some(trouble) = trouble {
                return Err(Error::Runtime(trouble));
            }
            connection = Some(after);
            granted.borrow_mut().extend(measured.report.remote);
            Ok(measured.report)
        };
        let sender = &self.args.sender;
        let key_id = self.args.control.key_in_use(self.security);
        let mut about = find::heading(sender, &plan, "controller", Protocol::Twamp);
        about.security = heading::security(self.security).to_owned();
        about.key_id = key_id.as_deref();
        find::search(sender, &plan, self.stop, &mut trial, &about, tell)
    }

    fn agree(
        &self,
        connection: &mut Connection,
        lanes: &[SessionConfig],
        opened: &Opened,
    ) -> Result<Vec<Agreed>, Error> {
        let count = lanes.len();
        let start_time = start_time(self.start_in);
        let mut agreed = Vec::with_capacity(count);
        for (number, (lane, local)) in (1..).zip(lanes.iter().zip(opened.locals())) {
            let largest = lane.sizes.classes.iter().map(|class| class.payload).max();
            let padding = largest
                .unwrap_or(0)
                .saturating_sub(self.format.padding_at());
            let reflect = ReflectOctets {
                octets: octets_of(number),
                padding_len: self.reflected,
            };
            let request = SessionRequest {
                ends: ends(local, lane.remote, self.args.control.zero_addresses)?,
                padding_len: u32::try_from(padding).unwrap_or(u32::MAX),
                start_time,
                timeout: Interval::from_ns(TIMEOUT_NS),
                dscp: lane.socket.tos >> 2,
                reflect: self
                    .modes
                    .contains(Modes::REFLECT_OCTETS)
                    .then_some(reflect),
            };
            let what = match count {
                1 => "the session".to_owned(),
                _ => format!("session {number} of {count}"),
            };
            let answer = connection
                .request(&request, &what)
                .map_err(|failed| failed.after(agreed.len(), count))?;
            // What the padding begins with is the server's wish, which takes two octets of it.
            let server_octets = match self.reflected {
                0 | 1 => [0; 2],
                _ => answer.server_octets,
            };
            let remote = SocketAddr::new(lane.remote.ip(), answer.port.get());
            agreed.push(Agreed {
                remote: with_scope(remote, lane.remote),
                format: format_of(self.modes, self.reflected, server_octets)?,
                keys: connection.keys().map(|keys| keys.of_session(&answer.sid)),
                sid: answer.sid,
                security: self.security,
            });
        }
        Ok(agreed)
    }
}

/// The layout of test packets in a mode that both sides have agreed on.
fn format_of(modes: Modes, reflected: u16, server_octets: [u8; 2]) -> Result<TestFormat, Error> {
    let format = TestFormat::new(modes, reflected, server_octets);
    format.map_err(|why| Error::Runtime(why.to_string()))
}

/// Two octets by which the server's answer shows that it is for this request.
fn octets_of(number: u16) -> [u8; 2] {
    number.to_be_bytes()
}

/// The address with the scope of another one: a link-local address needs it.
fn with_scope(mut addr: SocketAddr, of: SocketAddr) -> SocketAddr {
    if let (SocketAddr::V6(addr), SocketAddr::V6(of)) = (&mut addr, of) {
        addr.set_scope_id(of.scope_id());
    }
    addr
}

/// Both ends of a session; without addresses those of the control connection are meant
/// (RFC 5357 §3.5), which are right on both sides of a translation.
fn ends(sender: SocketAddr, receiver: SocketAddr, zero_addresses: bool) -> Result<Ends, Error> {
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
fn room(format: &TestFormat, modes: Modes, reflected: u16) -> Room {
    let probe = SessionRequest {
        ends: Ends::V4 {
            sender: std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 1),
            receiver: std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 1),
        },
        padding_len: 0,
        start_time: Timestamp::from_raw(0),
        timeout: Interval::default(),
        dscp: 0,
        reflect: modes
            .contains(Modes::REFLECT_OCTETS)
            .then_some(ReflectOctets {
                octets: [0; 2],
                padding_len: reflected,
            }),
    };
    let least = match probe.check_padding(modes) {
        Err(Unacceptable::PaddingTooShort { least, .. }) => least,
        _ => 0,
    };
    Room {
        header: format.padding_at(),
        least: format.padding_at() + least,
        even: format.even_padding(),
    }
}

fn security(modes: Modes) -> Security {
    match modes.security() {
        Ok(SecurityMode::Authenticated) => Security::Authenticated,
        Ok(SecurityMode::Encrypted) => Security::Encrypted,
        Ok(SecurityMode::Mixed) => Security::Mixed,
        Ok(SecurityMode::Unauthenticated) | Err(_) => Security::Unauthenticated,
    }
}

/// The command of a report as a `controller` that does the same.
fn command(of_sender: &[String], words: &[String]) -> Vec<String> {
    // The first three are the subcommand and both addresses, of which the second one stays.
    let (ours, flags) = words.split_at(words.len().min(2));
    let mut rest = of_sender.iter().skip(2).cloned().collect::<Vec<_>>();
    let tos = rest.iter().position(|word| word == "--tos");
    if let Some(at) = tos.filter(|_| flags.iter().any(|word| word == "--dscp")) {
        rest.drain(at..rest.len().min(at + 2));
    }
    [ours, &rest, flags].concat()
}

impl ControllerArgs {
    /// The sessions of each class, each shared by its threads.
    fn lanes(&self, base: &SessionConfig) -> Result<Vec<SessionConfig>, Error> {
        let dscps = &self.sender.ip.dscp;
        let classes: Vec<u8> = match dscps.as_slice() {
            [] => vec![base.socket.tos],
            dscps => dscps.iter().map(|dscp| Tos::from(*dscp).octet()).collect(),
        };
        let mut lanes: Vec<SessionConfig> = Vec::new();
        for tos in classes {
            for _ in 0..self.sessions {
                let index = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
                let mut one = base.clone();
                one.socket.tos = tos;
                one.grace_ns = Some(GRACE_NS);
                one.seed = base.seed.wrapping_add(u64::from(index));
                if base.local.port() > 0 {
                    let port = base.local.port().checked_add(index);
                    one.local.set_port(port.ok_or_else(|| {
                        usage(format!(
                            "{}: there are not so many ports from there on for all sessions; use a \
                             lower LOCAL port, or none",
                            base.local.port()
                        ))
                    })?);
                }
                lanes.extend(one.shares());
                if lanes.len() > MOST_SESSIONS {
                    return Err(usage(format!(
                        "--sessions, --dscp and --threads make more than {MOST_SESSIONS} sessions \
                         together; use fewer"
                    )));
                }
            }
        }
        for (index, lane) in (0..).zip(&mut lanes) {
            // Beyond the last port, or without a wish, any: the server chooses.
            let wish = self.control.test_port;
            let port = wish.checked_add(index).filter(|_| wish > 0);
            lane.remote.set_port(port.unwrap_or(0));
        }
        Ok(lanes)
    }

    /// What only this subcommand has; never a key.
    fn words(&self, path: &ControlPath, security: Security) -> Vec<String> {
        let mut words = vec!["controller".to_owned()];
        words.extend(self.control.words(path, security));
        if self.sessions > 1 {
            words.extend(["--sessions".to_owned(), self.sessions.to_string()]);
        }
        if !self.sender.ip.dscp.is_empty() {
            let dscps = self.sender.ip.dscp.iter().map(|dscp| dscp.value());
            let dscps: Vec<String> = dscps.map(|value| value.to_string()).collect();
            words.extend(["--dscp".to_owned(), dscps.join(",")]);
        }
        words.extend(self.own_words());
        words
    }

    /// The same of one session of several, alone.
    fn words_of_one(
        &self,
        path: &ControlPath,
        security: Security,
        lane: &SessionConfig,
    ) -> Vec<String> {
        let mut words = vec!["controller".to_owned()];
        let control = ControlArgs {
            test_port: lane.remote.port(),
            ..self.control.clone()
        };
        words.extend(control.words(path, security));
        words.extend(self.own_words());
        words
    }

    /// Of these, what each session has.
    fn own_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(octets) = self.reflect_octets {
            words.extend(["--reflect-octets".to_owned(), octets.to_string()]);
        }
        if let Some(start_in) = self.start_in {
            words.extend(["--start-in".to_owned(), start_in.to_string()]);
        }
        words
    }
}

impl ControlArgs {
    /// The name of the key, where the mode has one.
    fn key_in_use(&self, security: Security) -> Option<String> {
        let key_id = self.key_id.clone();
        key_id.filter(|_| security != Security::Unauthenticated)
    }

    /// Server, then flags; never a key.
    fn words(&self, path: &ControlPath, security: Security) -> Vec<String> {
        let mut words = vec![
            path.server.to_string(),
            "--mode".to_owned(),
            heading::security(security).to_owned(),
            "--test-port".to_owned(),
            self.test_port.to_string(),
        ];
        if let Some(key_id) = &self.key_id {
            words.extend(["--key-id".to_owned(), key_id.clone()]);
        }
        if let Some(file) = &self.passphrase_file {
            words.extend(["--passphrase-file".to_owned(), file.display().to_string()]);
        }
        if self.max_count != Count::DEFAULT_MOST.value() {
            words.extend(["--max-count".to_owned(), self.max_count.to_string()]);
        }
        if let Some(time) = self.control_timeout {
            words.extend(["--control-timeout".to_owned(), time.to_string()]);
        }
        for (flag, given) in [
            ("--zero-addresses", self.zero_addresses),
            ("--individual-sessions", self.individual_sessions),
            ("--symmetrical-size", self.symmetrical_size),
            ("--dscp-mode", self.dscp_mode),
        ] {
            words.extend(given.then(|| flag.to_owned()));
        }
        words
    }

    /// The ways to the Server's addresses, in the order in which they are tried; one at least.
    fn paths(
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

    fn features(&self, timestamps: super::FormatArg) -> Modes {
        let mut features = Modes::NONE;
        for (feature, wanted) in [
            (Modes::SYMMETRICAL_SIZE, self.symmetrical_size),
            (Modes::DSCP_ECN_MONITORING, self.dscp_mode),
            (Modes::INDIVIDUAL_SESSION_CONTROL, self.individual_sessions),
            (
                Modes::PTP_TIMESTAMP,
                super::format(timestamps) == Format::Ptp,
            ),
        ] {
            if wanted {
                features = features | feature;
            }
        }
        features
    }

    fn wish(&self, features: Modes) -> Result<Wish, Error> {
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

/// Nanoseconds of a flag that can be given.
fn bounded(flag: &str, value: Option<Seconds>, least_ns: u64) -> Result<Option<u64>, Error> {
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

fn seconds(ns: i64) -> String {
    let ns = u64::try_from(ns).unwrap_or(0);
    format!("{:.1}", Duration::from_nanos(ns).as_secs_f64())
}

fn parse_sessions(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(sessions @ 1..=MOST_SESSIONS) => Ok(sessions),
        _ => Err(format!("use 1 to {MOST_SESSIONS}")),
    }
}

fn parse_most_count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1024..=0x8000_0000) => Ok(count),
        _ => Err("use 1024 to 2147483648".to_owned()),
    }
}

pub(super) fn run_client(args: &ClientArgs) -> Result<u8, Error> {
    check_log(&args.log, args.json)?;
    open_log(&args.log)?;
    let control = &args.control;
    // The sender is of the server's family.
    let narrow = Narrow::by(
        args.family,
        Some(&args.server),
        Some(&args.sender),
        args.interface.as_deref(),
    )?;
    let paths = ControlArgs::paths(Some(&args.server), None, narrow)?;
    // What is wrong with the sender's address is said before anybody is called.
    let (paths, no_way) = possible(paths, |path| {
        third_party(&args.sender, path.server)?;
        Ok(path.clone())
    })?;
    let duration = bounded("--duration", args.duration, 1)?;
    if matches!(
        control.mode,
        Some(ModeArg::Authenticated | ModeArg::Encrypted)
    ) {
        return Err(usage(
            "--mode: the sender has no keys for protected test packets, which only this connection \
             knows; use unauthenticated or mixed",
        ));
    }
    let mut wish = control.wish(control.features(super::FormatArg::Ntp))?;
    if wish.mode.is_none() {
        // The strongest in which whoever sends needs no keys.
        wish.mode = Some(match wish.key {
            Some(_) => SecurityMode::Mixed,
            None => SecurityMode::Unauthenticated,
        });
    }
    let largest = |server: IpAddr, room: &Room| {
        let sizes = sizes(&args.sizes, Family::of(server), room)?;
        Ok::<_, Error>(sizes.classes.iter().map(|class| class.payload).max())
    };
    for path in &paths {
        largest(path.server.ip(), &Room::LIGHT)?;
    }
    let talk = !args.log.quiet;
    let stop = Stop::default();
    catch_signals(&stop, talk, Again::EndsAll, Hangup::Ends)?;

    let dialled = dial(&paths, wish.answer_ns, &stop)?;
    let path = dialled.path().clone();
    if let Some(why) = elsewhere(no_way, &dialled).filter(|_| talk) {
        complain(why);
    }
    let sender = third_party(&args.sender, path.server)?;
    let mut connection = Connection::over(dialled, wish, &stop)?;
    let modes = connection.modes();
    let format = format_of(modes, 0, [0; 2])?;
    let payload = largest(path.server.ip(), &room(&format, modes, 0))?.unwrap_or(0);
    let padding = payload.saturating_sub(format.padding_at());
    let receiver = SocketAddr::new(path.server.ip(), control.test_port);
    let dscp = args.dscp.unwrap_or_default();
    let request = SessionRequest {
        ends: third_party_ends(sender, receiver, control.zero_addresses)?,
        padding_len: u32::try_from(padding).unwrap_or(u32::MAX),
        start_time: start_time(None),
        timeout: Interval::from_ns(TIMEOUT_NS),
        dscp: dscp.value(),
        reflect: None,
    };
    let answer = connection.request(&request, "the session")?;
    connection.start()?;
    let remote = with_scope(
        SocketAddr::new(path.server.ip(), answer.port.get()),
        path.server,
    );
    let told = format!(
        "{sender} may send to {remote}, {payload} bytes of UDP payload, DSCP {}; SID {}\n",
        text::dscp(dscp.value()),
        answer.sid
    );
    let security = security(modes);
    let mut words = vec!["controlclient".to_owned(), sender.to_string()];
    words.extend(control.words(&path, security));
    words.extend(["--payload-size".to_owned(), payload.to_string()]);
    words.extend(["--dscp".to_owned(), dscp.value().to_string()]);
    if let Some(time) = args.duration {
        words.extend(["--duration".to_owned(), time.to_string()]);
    }
    if let Some(interface) = &args.interface {
        words.extend(["--interface".to_owned(), interface.clone()]);
    }
    let report = Report {
        command: words,
        security,
        sid: Some(answer.sid.to_string()),
        key_id: control.key_in_use(security),
        local: Some(sender),
        remote: Some(remote),
        ..Report::of_control_client(std::time::SystemTime::now())
    };
    if args.json {
        if talk {
            say(&format!("twamp-blast: {told}"));
        }
    } else {
        print(&(heading::of(&report) + &told))?;
    }
    let held = connection.wait_for(duration);
    let interrupted = stop.requested();
    let stopped = match held {
        Ok(()) => connection.stop(Accept::Ok),
        Err(why) => Err(why),
    };
    if args.json {
        let report = Report {
            interrupted,
            ..report
        };
        print(&(report.to_json_line() + "\n"))?;
    }
    stopped?;
    // It is held until Ctrl-C: that is its usual end.
    Ok(if interrupted && duration.is_some() {
        130
    } else {
        0
    })
}

/// Where the Session-Sender sends from.
fn third_party(endpoint: &Endpoint, server: SocketAddr) -> Result<SocketAddr, Error> {
    if endpoint.host.is_none() {
        let own = source_of(server)?;
        return Ok(SocketAddr::new(own, endpoint.port.unwrap_or(SENDER_PORT)));
    }
    let sender = resolve(endpoint, SENDER_PORT, Narrow::like(server, None))?;
    if sender.is_ipv4() != server.is_ipv4() {
        return Err(usage(format!(
            "{endpoint} and {server} are of two families; use two IPv4 or two IPv6 addresses"
        )));
    }
    if sender.port() == 0 || sender.ip().is_unspecified() || to_many(sender.ip()) {
        return Err(usage(format!(
            "{endpoint}: not the address and port of one host; name the sender's own"
        )));
    }
    Ok(sender)
}

/// The sender's address is what the session is about: only the server's may be left out.
fn third_party_ends(
    sender: SocketAddr,
    receiver: SocketAddr,
    zero_addresses: bool,
) -> Result<Ends, Error> {
    let receiver = match zero_addresses {
        true => SocketAddr::new(engine::any_address(receiver.ip()), receiver.port()),
        false => receiver,
    };
    ends(sender, receiver, false)
}
