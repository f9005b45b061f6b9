//! The `controlclient` subcommand: holds a session for a sender that runs elsewhere.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::address::{FamilyArgs, Narrow, possible, resolve, source_of, to_many};
use super::control::{
    ControlArgs, ModeArg, TIMEOUT_NS, bounded, elsewhere, ends, format_of, room, security,
    with_scope,
};
use super::error::{Error, usage};
use super::host::FormatArg;
use super::messages::{LogArgs, check_log, complain, open_log, say};
use super::print::print;
use super::signals::{Again, Hangup, catch_signals};
use super::sizes::{Room, SizeArgs, sizes};
use super::values::parse_interface;
use crate::config::{CommandLine, Dscp, Endpoint, Family, Seconds};
use crate::controller::{Connection, Path as ControlPath, Wish, dial, start_time};
use crate::engine::{self, Stop};
use crate::os;
use crate::output::{heading, text};
use crate::report::Report;
use crate::wire::{Accept, Ends, Interval, SecurityMode, SessionRequest};

/// Where a Session-Sender elsewhere sends from, unless it is said.
const SENDER_PORT: u16 = 20_000;

pub(super) const EXAMPLES: &str = "\
Examples:
  twamp-blast controlclient 192.0.2.7:20000 192.0.2.1
        has the server at 192.0.2.1 answer what 192.0.2.7 sends from port 20000, until Ctrl-C
  twamp-blast controlclient 192.0.2.7:20000 192.0.2.1 --duration 10m --test-port 4000
        for ten minutes, on port 4000 if it is free
";

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

pub(super) fn run(args: &ClientArgs) -> Result<u8, Error> {
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
    let wish = wish(control)?;
    for path in &paths {
        payload(args, path.server.ip(), &Room::LIGHT)?;
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
    let (report, told) = ask(args, &mut connection, &path, sender)?;
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

/// How the connection is to be: in a mode in which whoever sends needs no keys.
fn wish(control: &ControlArgs) -> Result<Wish, Error> {
    if matches!(
        control.mode,
        Some(ModeArg::Authenticated | ModeArg::Encrypted)
    ) {
        return Err(usage(
            "--mode: the sender has no keys for protected test packets, which only this connection \
             knows; use unauthenticated or mixed",
        ));
    }
    let mut wish = control.wish(control.features(FormatArg::Ntp))?;
    if wish.mode.is_none() {
        // The strongest of those.
        wish.mode = Some(match wish.key {
            Some(_) => SecurityMode::Mixed,
            None => SecurityMode::Unauthenticated,
        });
    }
    Ok(wish)
}

/// The largest UDP payload that the sender will send, in octets.
fn payload(args: &ClientArgs, server: IpAddr, room: &Room) -> Result<usize, Error> {
    let sizes = sizes(&args.sizes, Family::of(server), room)?;
    let all = sizes.classes.iter().map(|class| class.payload);
    Ok(all.max().unwrap_or(0))
}

/// Has the server begin the session; returns what is reported of it, and a line for whoever sends.
fn ask(
    args: &ClientArgs,
    connection: &mut Connection,
    path: &ControlPath,
    sender: SocketAddr,
) -> Result<(Report, String), Error> {
    let control = &args.control;
    let modes = connection.modes();
    let format = format_of(modes, 0, [0; 2])?;
    let payload = payload(args, path.server.ip(), &room(&format))?;
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
    let mut line = CommandLine::new("controlclient", [sender, path.server]);
    control.flags(&mut line, security);
    line.set("payload-size", payload);
    line.set("dscp", dscp.value());
    line.set_if("duration", args.duration);
    line.set_if("interface", args.interface.as_ref());
    let report = Report {
        command: line.arguments(),
        security,
        sid: Some(answer.sid.to_string()),
        key_id: control.key_in_use(security),
        local: Some(sender),
        remote: Some(remote),
        ..Report::of_control_client(os::wall_clock())
    };
    Ok((report, told))
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
