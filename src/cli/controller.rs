//! The `controller` subcommand: its flags, and a run from the control connection to the report.

use std::cell::RefCell;
use std::net::SocketAddr;

use clap::Args;

use super::address::possible;
use super::control::{
    ControlArgs, MOST_SESSIONS, TIMEOUT_NS, bounded, elsewhere, ends, format_of, room, security,
    with_scope,
};
use super::error::{Error, usage};
use super::find;
use super::messages::complain;
use super::print::print;
use super::results::Results;
use super::sender::doubt_rate;
use super::sender_args::{SenderArgs, check_sender, refuse_without_search};
use super::sender_plan::session;
use super::signals::{Again, Hangup, catch_signals, stop_when_unread};
use super::sizes::Room;
use super::values::whole;
use super::verdict::verdict;
use super::watcher::Watcher;
use crate::config::{CommandLine, Seconds, SessionConfig, Tos};
use crate::controller::{Connection, Path as ControlPath, dial, start_time};
use crate::engine::{self, Agreed, Measured, Opened, Progress, Stop, Update};
use crate::output::{heading, text};
use crate::report::find_rate::FindRate;
use crate::report::note::Peer;
use crate::report::{Note, Protocol, Report, Security};
use crate::search::Plan;
use crate::wire::{Accept, Interval, Modes, ReflectOctets, SessionRequest, TestFormat};

/// How long a Server's test port may take to open (see [`SessionConfig::grace_ns`]).
const GRACE_NS: u64 = 3_000_000_000;

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
        refuse_without_search(sender)?;
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
    let wish = args.control.wish(args.features())?;
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
    let remarks = [elsewhere.map(Note::from), trouble.clone().map(Note::from)];
    let remarks: Vec<Note> = remarks.into_iter().flatten().collect();
    run.complete(&mut measured, &base, &lanes, &path, &remarks);
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
        room(&self.format)
    }

    /// Runs sessions on a connection: also what went wrong with it meanwhile.
    fn measure(
        &self,
        mut connection: Connection,
        lanes: &[SessionConfig],
        watch: impl FnMut(Update),
    ) -> Result<(Connection, Measured, Option<Peer>), Error> {
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
            Some((after_ns, why)) => Some(Peer::ControlEnded {
                after_ns: u64::try_from(after_ns).unwrap_or(0),
                why: why.to_string(),
            }),
            None => connection.stop(accept).err().map(|why| Peer::StopNotTold {
                why: why.to_string(),
            }),
        };
        Ok((connection, measured?, trouble))
    }

    /// Adds to the reports what only this subcommand knows.
    fn complete(
        &self,
        measured: &mut Measured,
        base: &SessionConfig,
        lanes: &[SessionConfig],
        path: &ControlPath,
        remarks: &[Note],
    ) {
        let (args, security) = (self.args, self.security);
        // With the port that was granted.
        let command = |config: &SessionConfig, report: &Report, own: &CommandLine| {
            let mut line = SessionConfig {
                local: report.local.unwrap_or(config.local),
                ..config.clone()
            }
            .command();
            line.become_like(own);
            line.arguments()
        };
        // Of several: what each session sends, and the flags that make several of them.
        let whole = match lanes {
            [only] => only,
            _ => base,
        };
        measured.report.command = command(whole, &measured.report, &args.own(path, security));
        for (report, lane) in measured.parts.iter_mut().zip(lanes) {
            report.command = command(lane, report, &args.own_of_one(path, security, lane));
        }
        let all = std::iter::once(&mut measured.report).chain(&mut measured.parts);
        for report in all {
            report.notes.extend(remarks.iter().cloned());
            report.key_id = args.control.key_in_use(security);
        }
    }

    fn search(
        &self,
        connection: Connection,
        server: SocketAddr,
        path: &ControlPath,
    ) -> Result<u8, Error> {
        let plan = Plan {
            own: Some(self.args.own(path, self.security)),
            ..plan(&self.args.sender, server, &self.room())?
        };
        let mut connection = Some(connection);
        // The server may grant each trial another port.
        let granted = RefCell::new(Vec::new());
        let tell = |found: &mut FindRate| {
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
                return Err(Error::Runtime(trouble.to_string()));
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

/// Two octets by which the server's answer shows that it is for this request.
fn octets_of(number: u16) -> [u8; 2] {
    number.to_be_bytes()
}

impl ControllerArgs {
    fn features(&self) -> Modes {
        let features = self.control.features(self.sender.host.timestamp_format);
        match self.reflect_octets {
            Some(_) => features | Modes::REFLECT_OCTETS,
            None => features,
        }
    }

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
    fn own(&self, path: &ControlPath, security: Security) -> CommandLine {
        let mut line = CommandLine::new("controller", [path.server]);
        self.control.flags(&mut line, security);
        line.set_if("sessions", Some(self.sessions).filter(|n| *n > 1));
        let dscps = self.sender.ip.dscp.iter().map(|dscp| dscp.value());
        let dscps: Vec<String> = dscps.map(|value| value.to_string()).collect();
        line.set_if(
            "dscp",
            Some(dscps.join(",")).filter(|list| !list.is_empty()),
        );
        self.flags_of_each(&mut line);
        line
    }

    /// The same of one session of several, alone.
    fn own_of_one(
        &self,
        path: &ControlPath,
        security: Security,
        lane: &SessionConfig,
    ) -> CommandLine {
        let mut line = CommandLine::new("controller", [path.server]);
        let control = ControlArgs {
            test_port: lane.remote.port(),
            ..self.control.clone()
        };
        control.flags(&mut line, security);
        self.flags_of_each(&mut line);
        line
    }

    /// Of these, what each session has.
    fn flags_of_each(&self, line: &mut CommandLine) {
        line.set_if("reflect-octets", self.reflect_octets);
        line.set_if("start-in", self.start_in);
    }
}

fn parse_sessions(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(sessions @ 1..=MOST_SESSIONS) => Ok(sessions),
        _ => Err(format!("use 1 to {MOST_SESSIONS}")),
    }
}
