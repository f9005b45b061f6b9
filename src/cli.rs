//! The command line: what the user typed, and the plan it means.
//!
//! Subcommands and flags with their help are clap structs; `TryFrom`-like functions below turn them
//! into the structs of [`config`](crate::config), with every default resolved and every name looked
//! up. What is wrong gets one line. Output is joined to the engine here, and nowhere else.

mod address;
mod controller;
mod find;
mod messages;
mod reflector;
mod server;
mod signals;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::{IntErrorKind, ParseIntError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rand::RngExt;

use self::address::{
    FamilyArgs, Narrow, local, not_this, possible, reason, remotes, resolve, to_many, why_this,
};
use self::messages::{check_log, complain, open_log, say};
use self::signals::{Again, Hangup, catch_signals, stop_when_unread};
use crate::config::{
    Bandwidth, Burst, CpuList, Departures, Dscp, End, Endpoint, Family, Fraction, FrameSizes,
    Interval, IoKind, Pacing, Rate, ReflectorConfig, Seconds, SessionConfig, SizeClass, SizeMix,
    SizeProfile, Sizes, SocketOptions, Span, Tos, WatchConfig, dscp_table, dscp_table_json,
    frame_of_payload, payload_of_frame,
};
use crate::engine::{self, Failure, Measured, Progress, Reflecting, Stop, Update};
use crate::output::{heading, histogram, hlog, ignored, live, text};
use crate::report::unsent::Unsent;
use crate::report::{FailedCall, Ignored, Report};
use crate::wire::{Format, MAX_UDP_PAYLOAD, Reply, SENDER_LEN, parse_request};

/// The reflector's port, and the one a sender asks, unless another is given.
const DEFAULT_PORT: u16 = 20_001;
/// Packets of a run with neither rate, nor count, nor duration.
const DEFAULT_COUNT: u64 = 100;
/// Length of a run at a rate, in nanoseconds.
const DEFAULT_DURATION_NS: u64 = 10_000_000_000;
/// The shortest `--stats-interval`.
const LEAST_INTERVAL_NS: u64 = 100_000_000;
/// How far the gaps of `--schedule uniform` differ from their mean.
const DEFAULT_SPREAD: f64 = 0.5;
/// Padding with which request and reply have one size (RFC 5357 §4.2.1).
const DEFAULT_PADDING: usize = 27;
/// How long a reply may take, in nanoseconds.
const DEFAULT_TIMEOUT_NS: u64 = 5_000_000_000;
/// The same in a trial of `--find-rate` (RFC 2544 §23).
const TRIAL_TIMEOUT_NS: u64 = 2_000_000_000;
/// Bits a second from which a rate of packets is doubted where the interface tells no speed.
const SPEED_IN_DOUBT: u64 = 5_000_000_000;
/// The largest value of `--packet-timeout`: the delay statistics reach this far.
const MAX_TIMEOUT_NS: u64 = 3_600_000_000_000;
/// How long an address may answer nothing where its name has others.
const SILENCE: Duration = Duration::from_secs(1);
/// Frames that every path should carry: an IP packet of 1280 octets (RFC 8200 §5).
const SMALL_FRAME: usize = 1294;

const EXIT_CODES: &str = "\
Exit codes:
  0    measured
  1    runtime failure (what was measured is printed)
  2    wrong usage
  4    refused by the peer (its code is shown)
  5    nothing came back
  130  interrupted, after the report";

const REFLECTOR_CODES: &str = "\
Exit codes:
  0    ended by Ctrl-C or SIGTERM, after the summary; a reflector also by SIGHUP, unless it has
       --logfile FILE, which SIGHUP has it open again
  1    runtime failure
  2    wrong usage
  130  ended at once, by a second Ctrl-C";

const SENDER_EXAMPLES: &str = "\
Examples:
  twamp-blast sender --rate 100k --imix
        measure this host itself: a reflector inside the process, over loopback
  twamp-blast sender 192.0.2.1
        100 packets, 100 ms apart, to port 20001
  twamp-blast sender 192.0.2.1:862 --rate 10k --duration 60s --dscp ef
        ten thousand packets a second in the class EF for a minute
  twamp-blast sender [2001:db8::1]:862 -i 20ms -c 500 --json | jq .delay_ns.roundtrip
        figures for a program
  twamp-blast sender 192.0.2.1 --rate 4M --burst 32 --threads 4
        four flows, which a router may spread over its paths and queues
  twamp-blast sender 192.0.2.1 --find-rate --sizes 83,512,1514,imix --loss 0.001%
        the fastest rate that the path carries, for each size
";

/// Measures what a network path really does: TWAMP Light sender and reflector.
#[derive(Debug, Parser)]
#[command(name = "twamp-blast", version, arg_required_else_help = true, after_help = EXIT_CODES)]
#[command(infer_long_args = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send test packets to a Session-Reflector and measure (TWAMP Light, RFC 5357 appendix I)
    #[command(after_help = format!("{SENDER_EXAMPLES}\n{EXIT_CODES}"))]
    Sender(Box<SenderArgs>),
    /// Answer test packets (Session-Reflector)
    #[command(visible_alias = "responder", after_help = format!("{}\n{REFLECTOR_CODES}", reflector::EXAMPLES))]
    Reflector(Box<reflector::ReflectorArgs>),
    /// Agree with a TWAMP server on sessions, and measure (Control-Client and Session-Sender, RFC 5357)
    #[command(after_help = format!("{}\n{EXIT_CODES}", controller::EXAMPLES))]
    Controller(Box<controller::ControllerArgs>),
    /// Hold a session of a TWAMP server for a sender that runs elsewhere (Control-Client, RFC 5357)
    #[command(after_help = format!("{}\n{EXIT_CODES}", controller::CLIENT_EXAMPLES))]
    Controlclient(Box<controller::ClientArgs>),
    /// Serve Control-Clients, and answer the test packets that they ask for (Server and
    /// Session-Reflector, RFC 5357)
    #[command(after_help = format!("{}\n{REFLECTOR_CODES}", server::EXAMPLES))]
    Server(Box<server::ServerArgs>),
    /// List the names of the DSCPs
    Dscptable {
        /// Print one line of JSON instead of the table
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct SenderArgs {
    /// Reflector: address or name, with a port unless it is 20001; without one, a reflector inside
    /// this process is measured over loopback [examples: 192.0.2.1, [2001:db8::1]:862]
    #[arg(value_name = "REMOTE[:PORT]")]
    remote: Option<Endpoint>,
    /// Address and port to send from [examples: 192.0.2.7, :20000; default: the route's address, any
    /// free port]
    #[arg(value_name = "LOCAL[:PORT]")]
    local: Option<Endpoint>,

    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    find: find::FindArgs,
    #[command(flatten)]
    sizes: SizeArgs,
    #[command(flatten)]
    ip: IpArgs,

    /// How long a reply may take; a bare number is seconds; one that takes longer is late, and its
    /// packet counts as lost [example: 500ms; default: 5s, or 2s with --find-rate]
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    #[arg(allow_negative_numbers = true)]
    packet_timeout: Option<Seconds>,
    /// Where packets were lost and nothing tells on which way, do not ask the reflector: else the last
    /// packet is sent again up to three times, to learn how many replies there were (`probes`)
    #[arg(long, help_heading = "Load")]
    no_probe: bool,
    /// How the sender waits for a departure: sleep then spin as the gap asks (auto), spin, or sleep
    #[arg(long, value_enum, default_value_t = PacingArg::Auto, help_heading = "Host")]
    pacing: PacingArg,
    #[command(flatten)]
    host: HostArgs,
    /// Ask for real-time scheduling (SCHED_FIFO) of the packet threads
    #[arg(long, help_heading = "Host")]
    realtime: bool,
    /// Print a line for each reply, gap, duplicate, timeout and ICMP message as it happens; what is too fast to be
    /// read is counted [example: --print-responses -i 1s]
    #[arg(long, help_heading = "Output")]
    print_responses: bool,
    /// Begin each line of --print-responses with the time, UTC
    #[arg(long, help_heading = "Output", requires = "print_responses")]
    timestamps: bool,
    /// Print figures every so often, of that time and of the whole session so far; a bare number is
    /// seconds; 0: never [example: 5s]
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Output",
        allow_negative_numbers = true
    )]
    stats_interval: Option<Seconds>,
    #[command(flatten)]
    results: ResultArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct ResultArgs {
    /// How much to print: table and verdict (brief), also percentiles and conditions (normal), or
    /// every figure of each direction with counts by delay (full); JSON always has all
    #[arg(long, value_enum, default_value_t = StatsArg::Normal)]
    stats: StatsArg,
    /// Print also a percentile ladder and a bar histogram of each direction, in microseconds
    #[arg(long, conflicts_with = "json")]
    histogram: bool,
    /// Write the delays of each direction to a file as an HdrHistogram log (V2, in nanoseconds, tags
    /// roundtrip, outbound, inbound), in place of what it holds; a direction with a delay below zero
    /// or over one hour is left out, and said to be [example: run-1.hlog]
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Print one line of JSON instead of the table, and one for each --stats-interval
    #[arg(long)]
    json: bool,
}

impl ResultArgs {
    fn detail(&self) -> text::Detail {
        match self.stats {
            StatsArg::Brief => text::Detail::Brief,
            StatsArg::Normal => text::Detail::Normal,
            StatsArg::Full => text::Detail::Full,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Packets a second, with k, M or G; for bits see --bandwidth [examples: 100k, 0.5]
    #[arg(
        long,
        value_name = "RATE",
        conflicts_with = "interval",
        allow_negative_numbers = true
    )]
    rate: Option<Rate>,
    /// Bits a second in place of packets, with k, M or G, of Ethernet frames without FCS: sizes and
    /// the bit rate of the report are of the same layer [examples: 10Mbit, 1.5Gbit]
    #[arg(
        long,
        value_name = "BITRATE",
        conflicts_with_all = ["rate", "interval"],
        allow_negative_numbers = true
    )]
    bandwidth: Option<Bandwidth>,
    /// Time between packets; a bare number is milliseconds [examples: 10ms, 250us; default: 100ms]
    #[arg(short, long, value_name = "TIME", allow_negative_numbers = true)]
    interval: Option<Interval>,
    /// Packets to send [examples: 500, 1M; default: 100, or 10 s with --rate or --bandwidth]
    #[arg(short, long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    count: Option<u64>,
    /// Time to send for; a bare number is seconds [examples: 10s, 2m]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    duration: Option<Seconds>,
    /// Gaps: equal (periodic, RFC 3432), exponential (poisson, RFC 2330), uniformly random (uniform),
    /// or none (flood)
    #[arg(long, value_enum, default_value_t = ScheduleArg::Periodic)]
    schedule: ScheduleArg,
    /// With --schedule uniform: gaps differ from their mean by at most so many percent
    /// [example: 20%; default: 50%]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    spread: Option<Fraction>,
    /// Seed of random gaps, order of sizes and padding; the same seed gives the same load
    /// [example: 42; default: random, and reported]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64>)]
    seed: Option<u64>,
    /// Packets that leave as one segmentation train (UDP_SEGMENT) and share their timestamps: 1 to 64,
    /// or auto: 1 below 50k/s and as long as that keeps the rate, then only as many as it takes; not
    /// with --io portable
    /// [example: 32]
    #[arg(long, value_name = "N", default_value = "auto", allow_negative_numbers = true, value_parser = parse_burst)]
    burst: Burst,
    /// Pairs of a sending and a receiving thread that share the load, each from a source port of its own
    /// (a given LOCAL port and those that follow), 1 to 64; figures are of all, and with -v or --json of
    /// each thread too [example: 4]
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = parse_pairs)]
    threads: u16,
    /// Sequence number of the first packet, 0 to 4294967295, to see it wrap [example: 4294967290]
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<u32>)]
    first_seq: u32,
    /// Fill the padding with zeros, in place of pseudo-random octets (RFC 4656)
    #[arg(long)]
    zero_padding: bool,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Packet sizes (one of)")]
#[group(multiple = false)]
struct SizeArgs {
    /// Octets of padding after the sender's fields, which are of 14 octets, or 48 in the protected
    /// modes of a controller; -1 is --imix [default: 27, or there 64: both directions have one size]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = whole::<i64>)]
    padding: Option<i64>,
    /// 7 frames of 64, 4 of 590 and 1 of 1514 bytes in every dozen (Ethernet without FCS)
    #[arg(long)]
    imix: bool,
    /// Size of the Ethernet frame without FCS [example: 1514]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = whole::<usize>)]
    frame_size: Option<usize>,
    /// Frame sizes with their weights, Ethernet without FCS [example: 64:7,590:4,1514:1]
    #[arg(long, value_name = "SIZE:WEIGHT,...")]
    size_mix: Option<SizeMix>,
    /// Size of the UDP payload, from what the fields take (see --padding) to 65507 [example: 8972]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = whole::<usize>)]
    payload_size: Option<usize>,
    /// With --find-rate: frame sizes to be searched one after the other, Ethernet without FCS
    /// [default: 83,128,256,512,1024,1280,1514,9014,imix as far as the MTU allows]
    #[arg(long, value_name = "SIZE,...")]
    sizes: Option<FrameSizes>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "IP header")]
struct IpArgs {
    /// DSCP by name or number, see `twamp-blast dscptable`; for a controller also several, with a
    /// session for each [examples: ef, 46; default: 0]
    #[arg(
        long,
        value_name = "DSCP",
        conflicts_with = "tos",
        allow_negative_numbers = true,
        value_delimiter = ','
    )]
    dscp: Vec<Dscp>,
    /// The whole TOS or Traffic Class octet, DSCP and ECN [examples: 184, 0xb8]
    #[arg(long, value_name = "OCTET", allow_negative_numbers = true)]
    tos: Option<Tos>,
    /// TTL or Hop Limit; 255 lets hops be told
    #[arg(long, value_name = "N", default_value_t = 255, value_parser = parse_ttl, allow_negative_numbers = true)]
    ttl: u8,
    /// Never fragment, here or on the way: what does not fit is not sent, or lost at a hop that says so
    #[arg(long)]
    do_not_fragment: bool,
    /// Network interface to use; a link-local address is of its link [example: eth0]
    #[arg(long, value_name = "NAME", value_parser = parse_interface)]
    interface: Option<String>,
    #[command(flatten)]
    family: FamilyArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Host")]
struct HostArgs {
    /// CPUs for the packet threads [examples: 2,3 or 0-3; default: a sensible choice]
    #[arg(long, value_name = "LIST")]
    cpu: Option<CpuList>,
    /// System calls: batches with kernel timestamps, or what every system has
    #[arg(long, value_enum, default_value_t = IoArg::Batched)]
    io: IoArg,
    /// Timestamps of the network interface's clock, where it has one
    #[arg(long)]
    hw_timestamps: bool,
    /// Let the kernel look for packets at the interface for so long before it waits for an interrupt;
    /// a bare number is microseconds; it takes CAP_NET_ADMIN [example: 50us]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = parse_busy_poll)]
    busy_poll: Option<u32>,
    /// Format of the timestamps written (Z bit, RFC 8186)
    #[arg(long, value_enum, default_value_t = FormatArg::Ntp)]
    timestamp_format: FormatArg,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
struct LogArgs {
    /// No messages, only results
    #[arg(short, long)]
    quiet: bool,
    /// Say what is done: sessions, and the replies that a sender gets; for one module alone set TWAMP_BLAST_LOG, such as
    /// twamp_blast::engine=debug
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Say everything; a sender shows packets field by field
    #[arg(short, long, conflicts_with_all = ["quiet", "verbose"])]
    debug: bool,
    /// Write messages to a file (-: standard output); SIGHUP has a reflector and a server open it
    /// again [default: standard error]
    #[arg(short, long, value_name = "FILE")]
    logfile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleArg {
    Periodic,
    Poisson,
    Uniform,
    Flood,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatsArg {
    Brief,
    Normal,
    Full,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PacingArg {
    Auto,
    Spin,
    Sleep,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IoArg {
    Batched,
    Portable,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Ntp,
    Ptp,
}

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The user's: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The system's: exit code 1.
    #[error("{0}")]
    Runtime(String),
    /// The peer's: exit code 4.
    #[error("{0}")]
    Refused(String),
    /// By a signal, before anything was measured: exit code 130.
    #[error("interrupted before anything was measured")]
    Interrupted,
    #[error(transparent)]
    Failure(#[from] Failure),
}

fn usage(text: impl Display) -> Error {
    Error::Usage(text.to_string())
}

/// The command line. A controller has the sender's arguments, of which the first one is another there.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("controller", |controller| {
        let changed = controller.mut_arg("remote", |remote| {
            remote
                .index(1)
                .value_name("SERVER[:PORT]")
                .required(true)
                .help(controller::SERVER_HELP)
        });
        changed.mut_arg("local", |local| local.index(2))
    })
}

/// Runs a command line and returns its exit code.
#[must_use]
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let code = run_command(args);
    messages::settle();
    ExitCode::from(code)
}

fn run_command(args: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let parsed = command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return show_parse_error(&error),
    };
    let result = match cli.command {
        Command::Sender(args) => sender(&args),
        Command::Reflector(args) => reflector::run(&args),
        Command::Controller(args) => controller::run(&args),
        Command::Controlclient(args) => controller::run_client(&args),
        Command::Server(args) => server::run(&args),
        Command::Dscptable { json } => {
            let table = if json {
                dscp_table_json() + "\n"
            } else {
                dscp_table()
            };
            print(&table).map(|()| 0)
        }
    };
    match result {
        // Who reads no further has what he wanted.
        Ok(130) if signals::ended_by_reader() => 0,
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            exit_code(&error)
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => 2,
        Error::Runtime(_) | Error::Failure(_) => 1,
        Error::Refused(_) => 4,
        Error::Interrupted => 130,
    }
}

/// Shows help as it is and an error as one line; returns the exit code.
fn show_parse_error(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let shown = print(&error.to_string());
            u8::from(shown.is_err())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            say(&error.to_string());
            2
        }
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            // The first paragraph says what is wrong, a `tip:` what to do; usage is for --help.
            let lines = text.lines().map(str::trim);
            let what = lines.clone().take_while(|line| !line.is_empty());
            let tips = lines.filter(|line| line.starts_with("tip: ") && !line.contains("to pass"));
            let mut line: Vec<&str> = what.filter(|line| !line.starts_with("tip: ")).collect();
            line.extend(tips);
            line.dedup();
            complain(format!("{}; see --help", line.join(" ")));
            2
        }
    }
}

/// Opens the log, and refuses what cannot be had.
fn check_sender(args: &SenderArgs) -> Result<(), Error> {
    check_log(&args.log, args.results.json)?;
    open_log(&args.log)?;
    check_host(&args.host)?;
    check_burst(args)?;
    Ok(())
}

fn sender(args: &SenderArgs) -> Result<u8, Error> {
    check_sender(args)?;
    if args.ip.dscp.len() > 1 {
        return Err(usage(
            "--dscp: several are for `controller`, which makes a session for each; use one",
        ));
    }
    if args.find.find_rate {
        return find::run(args);
    }
    find::refuse_without_search(args)?;
    let stop = Stop::default();
    let (remotes, inside) = match &args.remote {
        Some(endpoint) => (remotes(endpoint, args.narrow()?)?, None),
        None => {
            let own = Reflecting::start(&inside_reflector(args)?, &Stop::default())?;
            (vec![own.local()[0]], Some(own))
        }
    };
    let configure = |remote: &SocketAddr| session(args, *remote, &Room::LIGHT);
    let (configs, passed) = possible(remotes, configure)?;
    let results = Results::open(&args.results)?;
    let talk = !args.log.quiet;
    if talk {
        doubt_rate(&args.load, &configs[0]);
    }
    if talk && inside.is_some() {
        say(&format!(
            "twamp-blast: no REMOTE was given: measuring a reflector inside this process, {}\n",
            configs[0].remote
        ));
    }
    catch_signals(&stop, talk, Again::EndsWait, Hangup::Ends)?;
    stop_when_unread(&stop)?;
    let Measured { report, parts } = first_that_answers(args, &configs, passed, inside, &stop)?;
    for reason in &report.host.reasons {
        log::info!("tool-limited: {reason}");
    }
    let shown = threads_apart(&parts, args);
    let shown = shown.and_then(|()| results.show(&report, talk));
    let code = verdict(&report);
    shown.map(|()| code)
}

/// Measures the first of several addresses that answers, each by a session of its own, so that a report is of
/// one of them: the next is tried where this host has no way to one, or nothing has come back for
/// [`SILENCE`]. The last one is measured whatever comes.
fn first_that_answers(
    args: &SenderArgs,
    configs: &[SessionConfig],
    passed: Vec<String>,
    inside: Option<Reflecting>,
    stop: &Stop,
) -> Result<Measured, Error> {
    let (mut measured, why) = first_of(args, configs, passed, inside, stop)?;
    let all = std::iter::once(&mut measured.report).chain(&mut measured.parts);
    for report in all {
        report.notes.extend(why.clone());
    }
    Ok(measured)
}

/// The same, and why it is that address.
fn first_of(
    args: &SenderArgs,
    configs: &[SessionConfig],
    mut passed: Vec<String>,
    mut inside: Option<Reflecting>,
    stop: &Stop,
) -> Result<(Measured, Option<String>), Error> {
    let talk = !args.log.quiet;
    for (index, config) in configs.iter().enumerate() {
        let addr = config.remote.ip();
        let last = index + 1 == configs.len();
        let mut watcher = Watcher::new(args, talk, addr, "thread");
        let mut trial = Trial::new(stop, last);
        let attempt = trial.attempt.clone();
        let measured = engine::measure(config, inside.take(), &attempt, |update| {
            trial.take(update, &mut |update| watcher.show(update));
        });
        let given_up = |measured: &Measured| {
            attempt.requested() || measured.report.packets.received == Some(0)
        };
        let why = match &measured {
            _ if last || stop.requested() => None,
            Ok(measured) if given_up(measured) => {
                let icmp = measured.report.packets.icmp.iter().flatten().next();
                Some(icmp.map_or("no reply".to_owned(), |icmp| format!("ICMP {icmp}")))
            }
            Ok(_) => None,
            Err(failure) => Some(reason(failure)),
        };
        if why.is_none() {
            trial.tell(&mut |update| watcher.show(update));
        }
        watcher.finish();
        let Some(why) = why else {
            return Ok((measured?, why_this(addr, &passed)));
        };
        passed.push(not_this(addr, why));
        if talk {
            let now = passed.last().map_or("", String::as_str);
            complain(format!("not {now}: trying the next address of this name"));
        }
    }
    Err(usage("there is nobody to measure; name a REMOTE"))
}

/// A session towards an address that may not be the one to measure: until something has come back nothing of
/// it is shown, and it ends where nothing does.
struct Trial {
    attempt: Stop,
    answered: bool,
    begun: Option<Instant>,
    held: Vec<Update>,
}

impl Trial {
    fn new(stop: &Stop, last: bool) -> Self {
        Self {
            attempt: stop.part(),
            answered: last,
            begun: None,
            held: Vec::new(),
        }
    }

    fn take(&mut self, update: Update, show: &mut dyn FnMut(&Update)) {
        if let Update::Progress(now) = &update {
            if now.received > 0 {
                self.answered = true;
            } else if now.sent > 0 && !self.answered {
                let begun = *self.begun.get_or_insert_with(Instant::now);
                if begun.elapsed() > SILENCE {
                    // Once more next time: then it does not wait for replies either.
                    self.attempt.request();
                }
            }
        }
        self.held.push(update);
        if self.answered {
            self.tell(show);
        }
    }

    fn tell(&mut self, show: &mut dyn FnMut(&Update)) {
        for update in self.held.drain(..) {
            show(&update);
        }
    }
}

/// Prints what each of several threads measured: JSON always, for readers only if they want it.
fn threads_apart(threads: &[Report], args: &SenderArgs) -> Result<(), Error> {
    if args.results.json {
        return threads
            .iter()
            .try_for_each(|report| print(&(report.to_json_line() + "\n")));
    }
    if threads.is_empty() || !(args.log.verbose || args.log.debug) {
        return Ok(());
    }
    for (number, report) in (1..).zip(threads) {
        let local = report
            .local
            .map_or(String::new(), |addr| format!(", from {addr}"));
        let heading = format!("--- thread {number} of {}{local} ---", threads.len());
        let summary = text::summary(report, args.results.detail());
        print(&format!("{heading}\n{summary}\n"))?;
    }
    print("--- all threads ---\n")
}

/// Where a run's figures go, ready before it starts.
struct Results<'a> {
    args: &'a ResultArgs,
    hlog: Option<(&'a Path, hlog::Log)>,
}

impl<'a> Results<'a> {
    fn open(args: &'a ResultArgs) -> Result<Self, Error> {
        let open = |path: &'a PathBuf| match hlog::Log::create(path) {
            Ok(log) => Ok((path.as_path(), log)),
            Err(error) => Err(usage(format!(
                "--hlog {}: {error}; use a file in a folder that exists and may be written",
                path.display()
            ))),
        };
        if args
            .hlog
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-")
        {
            return Err(usage(
                "--hlog -: standard output has the report; use a file",
            ));
        }
        let hlog = args.hlog.as_ref().map(open).transpose()?;
        Ok(Self { args, hlog })
    }

    /// Prints the report; what fails after that fails with the report printed.
    fn show(self, report: &Report, talk: bool) -> Result<(), Error> {
        if self.args.json {
            print(&(report.to_json_line() + "\n"))?;
        } else {
            print(&text::summary(report, self.args.detail()))?;
        }
        if self.args.histogram {
            print(&format!("\n{}", histogram::show(report)))?;
        }
        let Some((path, log)) = self.hlog else {
            return Ok(());
        };
        let path = path.display();
        let left_out = log.write(report);
        let left_out =
            left_out.map_err(|error| Error::Runtime(format!("--hlog {path}: {error}")))?;
        if talk {
            for why in left_out {
                complain(format!("--hlog {path}: {why}"));
            }
        }
        Ok(())
    }
}

impl SenderArgs {
    /// Which addresses of the remote's name can be used.
    fn narrow(&self) -> Result<Narrow<'_>, Error> {
        Narrow::by(
            self.ip.family,
            self.remote.as_ref(),
            self.local.as_ref(),
            self.ip.interface.as_deref(),
        )
    }
}

/// Why a run failed.
fn failed_by(call: &FailedCall) -> String {
    let hint = match (call.call.starts_with("send"), call.errno.as_str()) {
        (true, "EPERM") => "; does a firewall or a sandbox of this host forbid that?",
        (true, "ENETUNREACH" | "EHOSTUNREACH" | "ENETDOWN" | "EINVAL" | "EACCES") => {
            "; is the interface up, and is there a route? See `ip route get`"
        }
        _ => "; does a sandbox forbid that call?",
    };
    format!("this system refuses {call}: the run has failed{hint}")
}

/// The exit code of a reflector or server, with a line on standard error where a call failed.
fn service_ended(failure: Option<&FailedCall>) -> u8 {
    failure.map_or(0, |call| {
        complain(failed_by(call));
        1
    })
}

/// The exit code, with a line on standard error where nothing was measured.
fn verdict(report: &Report) -> u8 {
    let packets = &report.packets;
    if let Some(call) = &report.host.failure {
        complain(failed_by(call));
        return 1;
    }
    if report.interrupted {
        return 130;
    }
    if packets.sent == Some(0) {
        complain(format!("nothing was sent: {}", why_nothing(report)));
        return 1;
    }
    if packets.received == Some(0) {
        let hop = report.path.next_hop.filter(|hop| !hop.resolved);
        let hop = hop.map(|hop| {
            format!(
                "the next hop {} does not answer (ARP, neighbour discovery): is the address right, and is \
                 the link up?",
                hop.address
            )
        });
        // Of all that came the most frequent. ICMP of a next hop that does not answer is this host's own.
        let late = packets.late.filter(|late| *late > 0).map(|late| {
            let came = match late {
                1 => "1 reply came after its timeout".to_owned(),
                late => format!("{late} replies came after their timeout"),
            };
            (late, format!("{came}; use a longer --packet-timeout"))
        });
        let ignored = packets.ignored.and_then(|ignored| ignored.most());
        let ignored = ignored.map(|(kind, most)| (most, ignored::sentence(kind, most)));
        let icmp = packets
            .icmp
            .iter()
            .flatten()
            .next()
            .filter(|_| hop.is_none());
        let icmp = icmp.map(|icmp| (icmp.count, format!("ICMP {icmp}")));
        let came = [late, icmp, ignored].into_iter().flatten();
        // Of as many of two kinds the first one.
        let most = came.reduce(|a, b| if b.0 > a.0 { b } else { a });
        let why = most.map(|(_, why)| why).or(hop);
        let why = why.unwrap_or_else(|| format!("no reply and no ICMP error: {}", silence(report)));
        // Several sessions have several ports.
        let from = report
            .remote
            .map_or(String::new(), |addr| format!(" from {addr}"));
        complain(format!("nothing came back{from}: {why}"));
        return 5;
    }
    0
}

/// Why nothing was sent: never that nothing was due beside a verdict that says otherwise.
fn why_nothing(report: &Report) -> String {
    let cause = report.packets.not_sent_causes.first();
    let cause = cause.map(ToString::to_string);
    let reason = || report.host.reasons.first().cloned();
    cause
        .or_else(reason)
        .unwrap_or("nothing was due".to_owned())
}

/// What may be wrong where nothing came back and nobody said why.
fn silence(report: &Report) -> String {
    if let Some(why) = report
        .remote
        .and_then(|remote| engine::unreachable(remote.ip()))
    {
        return why;
    }
    let sizes = report.load.sizes.iter().filter(|size| size.packets > 0);
    let largest = sizes.max_by_key(|size| size.frame_bytes_l2);
    let size = match largest {
        Some(size) if size.fragments > Some(1) => {
            format!(
                ", or one that drops fragments ({} bytes leave in several: try a smaller size)",
                size.frame_bytes_l2
            )
        }
        Some(size) if size.frame_bytes_l2 > SMALL_FRAME => {
            format!(
                ", or a hop with a smaller MTU (try a smaller size than {} bytes)",
                size.frame_bytes_l2
            )
        }
        _ => String::new(),
    };
    let link = match (
        report.host.tx_stamps_requested,
        report.host.tx_stamps_received,
    ) {
        (Some(1..), Some(0)) => "no packet is known to have left this host: is its link up? Is a",
        _ => "is a",
    };
    format!("{link} reflector there, and is a firewall between{size}?")
}

/// The reflector that a sender without REMOTE measures.
fn inside_reflector(args: &SenderArgs) -> Result<ReflectorConfig, Error> {
    let senders = 2 * usize::from(args.load.threads);
    let cpus = args.host.cpu.as_ref().and_then(|list| {
        let rest = list.cpus().get(senders..).filter(|rest| !rest.is_empty());
        CpuList::new(rest.map_or_else(
            || list.cpus().last().copied().into_iter().collect(),
            <[usize]>::to_vec,
        ))
        .ok()
    });
    let (loopback, allow): (IpAddr, _) = match args.narrow()?.family {
        Some(Family::V6) => (Ipv6Addr::LOCALHOST.into(), "::1/128"),
        _ => (Ipv4Addr::LOCALHOST.into(), "127.0.0.0/8"),
    };
    Ok(ReflectorConfig {
        listen: vec![SocketAddr::new(loopback, 0)],
        allow: allow.parse().into_iter().collect(),
        stateless: false,
        session_timeout_ns: 0,
        dscp: None,
        format: format(args.host.timestamp_format),
        socket: SocketOptions {
            tos: 0,
            ttl: 255,
            do_not_fragment: false,
            interface: None,
            hardware: false,
            busy_poll_us: None,
            io: io_kind(args.host.io),
        },
        threads: usize::from(args.load.threads),
        cpus,
        impairment: None,
        watch: false,
    })
}

/// When packets of these sizes leave, and until when.
fn load(args: &LoadArgs, sizes: &Sizes) -> Result<(Departures, End), Error> {
    if args.spread.is_some() && args.schedule != ScheduleArg::Uniform {
        return Err(usage(
            "--spread is for --schedule uniform; add that, or leave it out",
        ));
    }
    let spread = args.spread.map_or(DEFAULT_SPREAD, Fraction::value);
    let mut end = End {
        count: args.count,
        duration_ns: args.duration.map(Seconds::ns),
    };
    if end.duration_ns == Some(0) {
        return Err(usage("--duration 0: nothing would be sent; use 1s or more"));
    }
    let open = end.count.is_none() && end.duration_ns.is_none();
    if args.schedule == ScheduleArg::Flood {
        if args.rate.is_some() || args.interval.is_some() || args.bandwidth.is_some() {
            return Err(usage(
                "--schedule flood sends as fast as it can; leave out --rate, --bandwidth and --interval",
            ));
        }
        if open {
            end.duration_ns = Some(DEFAULT_DURATION_NS);
        }
        return Ok((Departures::Flood, end));
    }
    let of_bits = |bandwidth: Bandwidth| {
        let rate = sizes.rate_of(bandwidth);
        rate.map_err(|why| {
            usage(format!(
                "--bandwidth {bandwidth}: in frames of these sizes, {why}"
            ))
        })
    };
    let of_bits = args.bandwidth.map(of_bits).transpose()?;
    let rate = match (args.rate.or(of_bits), args.interval) {
        (Some(rate), _) => {
            if open {
                end.duration_ns = Some(DEFAULT_DURATION_NS);
            }
            rate
        }
        (None, interval) => {
            if open {
                end.count = Some(DEFAULT_COUNT);
            }
            let default = Rate::from_interval(100_000_000).expect("100 ms is an interval");
            interval.map_or(default, Rate::from)
        }
    };
    let departures = match args.schedule {
        ScheduleArg::Poisson => Departures::Poisson(rate),
        ScheduleArg::Uniform => Departures::Uniform { rate, spread },
        ScheduleArg::Periodic | ScheduleArg::Flood => Departures::Periodic(rate),
    };
    Ok((departures, end))
}

/// Says what `--rate` asks for where that is more than the interface can carry: bits may be meant.
fn doubt_rate(args: &LoadArgs, config: &SessionConfig) {
    let Some(rate) = args.rate else { return };
    let interface = config.socket.interface.as_deref();
    let (name, speed) = engine::link_of(config.local.ip(), interface);
    let on_the_wire = rate.per_second() * mean_bits_on_the_wire(&config.sizes);
    #[expect(clippy::cast_precision_loss, reason = "a speed in whole megabits")]
    if on_the_wire <= speed.unwrap_or(SPEED_IN_DOUBT) as f64 {
        return;
    }
    let link = match (name, speed) {
        (Some(name), Some(_)) => format!("more than {name} carries"),
        (Some(name), None) => format!("and {name} tells no speed"),
        (None, _) => "and the interface is not known".to_owned(),
    };
    complain(format!(
        "--rate {rate} means {} packets a second, {} on the wire, {link}; did you mean \
         --bandwidth {rate}bit?",
        text::count(rate.count_in(1_000_000_000)),
        text::megabits(on_the_wire),
    ));
}

/// What a packet takes on an Ethernet, with FCS, padding to 64 octets, preamble and gap.
fn mean_bits_on_the_wire(sizes: &Sizes) -> f64 {
    let octets = |class: &SizeClass| (class.frame + 4).max(64) + 20;
    let bits = |class: &SizeClass| octets(class) as f64 * 8.0 * f64::from(class.weight);
    let packets: f64 = sizes
        .classes
        .iter()
        .map(|class| f64::from(class.weight))
        .sum();
    sizes.classes.iter().map(bits).sum::<f64>() / packets
}

fn session(args: &SenderArgs, remote: SocketAddr, room: &Room) -> Result<SessionConfig, Error> {
    let sizes = sizes(&args.sizes, Family::of(remote.ip()), room)?;
    let (departures, end) = load(&args.load, &sizes)?;
    let timeout_ns = match args.packet_timeout {
        Some(timeout) if (1..=MAX_TIMEOUT_NS).contains(&timeout.ns()) => timeout.ns(),
        Some(timeout) => {
            return Err(usage(format!(
                "--packet-timeout {timeout}: use more than 0 and at most 1h"
            )));
        }
        None if args.find.find_rate => TRIAL_TIMEOUT_NS,
        None => DEFAULT_TIMEOUT_NS,
    };
    let interval_ns = args.stats_interval.map(Seconds::ns).filter(|ns| *ns > 0);
    if interval_ns.is_some_and(|ns| ns < LEAST_INTERVAL_NS) {
        return Err(usage("--stats-interval: use 100ms or more, or 0 for none"));
    }
    let seed = args.load.seed;
    let local = local(args.local.as_ref(), remote, args.ip.interface.as_deref())?;
    let last = local.port().checked_add(args.load.threads - 1);
    if last.is_none() {
        return Err(usage(format!(
            "--threads {}: there are not so many ports from {} on; use a lower LOCAL port, or none",
            args.load.threads,
            local.port()
        )));
    }
    let tos = args.ip.tos.or(args.ip.dscp.first().copied().map(Tos::from));
    Ok(SessionConfig {
        remote,
        local,
        departures,
        end,
        sizes,
        // Small enough for every JSON reader.
        seed: seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>())),
        timeout_ns,
        format: format(args.host.timestamp_format),
        socket: SocketOptions {
            tos: tos.unwrap_or_default().octet(),
            ttl: args.ip.ttl,
            do_not_fragment: args.ip.do_not_fragment,
            interface: args.ip.interface.clone(),
            hardware: args.host.hw_timestamps,
            busy_poll_us: args.host.busy_poll,
            io: io_kind(args.host.io),
        },
        pacing: match args.pacing {
            PacingArg::Auto => Pacing::Auto,
            PacingArg::Spin => Pacing::Spin,
            PacingArg::Sleep => Pacing::Sleep,
        },
        realtime: args.realtime,
        cpus: args.host.cpu.clone(),
        threads: usize::from(args.load.threads),
        burst: args.load.burst,
        loss_bound: None,
        first_seq: args.load.first_seq,
        zero_padding: args.load.zero_padding,
        grace_ns: None,
        probes: !args.no_probe,
        watch: WatchConfig {
            happenings: args.print_responses || args.log.verbose || args.log.debug,
            interval_ns,
            packets: args.log.debug,
        },
    })
}

/// How large the requests of a session can be, in octets.
struct Room {
    /// UDP payload in front of the padding.
    header: usize,
    /// The smallest UDP payload.
    least: usize,
    /// Padding with which request and reply have one size.
    even: usize,
}

impl Room {
    /// Without TWAMP-Control (RFC 5357 §4.2.1).
    const LIGHT: Self = Self {
        header: SENDER_LEN,
        least: SENDER_LEN,
        even: DEFAULT_PADDING,
    };
}

fn sizes(args: &SizeArgs, family: Family, room: &Room) -> Result<Sizes, Error> {
    let fixed = |payload: usize| Sizes {
        profile: SizeProfile::Fixed,
        classes: vec![SizeClass {
            payload,
            frame: frame_of_payload(payload, family),
            weight: 1,
        }],
    };
    let least = room.least;
    let smallest = frame_of_payload(least, family);
    if args.imix || args.padding == Some(-1) {
        let mix = SizeMix::imix();
        let classes = mix.sizes().iter().map(|size| {
            let frame = size.frame.max(smallest);
            SizeClass {
                payload: payload_of_frame(frame, family).unwrap_or(least),
                frame,
                weight: size.weight,
            }
        });
        return Ok(Sizes {
            profile: SizeProfile::Imix,
            classes: classes.collect(),
        });
    }
    let of_frame = |flag: &str, frame: usize| {
        let payload = payload_of_frame(frame, family).filter(|payload| *payload >= least);
        payload.ok_or_else(|| {
            let largest = frame_of_payload(MAX_UDP_PAYLOAD, family);
            usage(format!(
                "{flag} {frame}: use {smallest} to {largest} bytes, the Ethernet frame (without FCS) \
                 of a test packet over {family}"
            ))
        })
    };
    if let Some(mix) = &args.size_mix {
        let mut classes = Vec::new();
        for size in mix.sizes() {
            classes.push(SizeClass {
                payload: of_frame("--size-mix", size.frame)?,
                frame: size.frame,
                weight: size.weight,
            });
        }
        return Ok(Sizes {
            profile: SizeProfile::Custom(mix.clone()),
            classes,
        });
    }
    if let Some(frame) = args.frame_size {
        return Ok(fixed(of_frame("--frame-size", frame)?));
    }
    if let Some(payload) = args.payload_size {
        if !(least..=MAX_UDP_PAYLOAD).contains(&payload) {
            return Err(usage(format!(
                "--payload-size {payload}: use {least} to {MAX_UDP_PAYLOAD} bytes of UDP payload"
            )));
        }
        return Ok(fixed(payload));
    }
    let (fewest, most) = (least - room.header, MAX_UDP_PAYLOAD - room.header);
    let padding = match args.padding {
        None => room.even,
        Some(bytes) => match usize::try_from(bytes) {
            Ok(bytes) if (fewest..=most).contains(&bytes) => bytes,
            Ok(bytes) if bytes < fewest => {
                return Err(usage(format!(
                    "--padding {bytes}: these test packets need {fewest} bytes; use {fewest} to {most}"
                )));
            }
            Ok(bytes) => {
                return Err(usage(format!(
                    "--padding {bytes}: a UDP payload holds at most {MAX_UDP_PAYLOAD} bytes; use \
                     {most} or less"
                )));
            }
            Err(_) => {
                return Err(usage(format!(
                    "--padding {bytes}: use {fewest} to {most}, or -1 for IMIX"
                )));
            }
        },
    };
    Ok(fixed(room.header + padding))
}

/// Refuses what this host or the chosen way of I/O does not have.
fn check_host(args: &HostArgs) -> Result<(), Error> {
    if matches!(args.io, IoArg::Portable) && args.hw_timestamps {
        return Err(usage(
            "--hw-timestamps is not to be had with --io portable; leave one of them out",
        ));
    }
    if matches!(args.io, IoArg::Portable) && args.busy_poll.is_some() {
        return Err(usage(
            "--busy-poll is not to be had with --io portable; leave one of them out",
        ));
    }
    let allowed = engine::cpus();
    let wished = args.cpu.iter().flat_map(|list| list.cpus());
    for cpu in wished {
        if !allowed.is_empty() && !allowed.contains(cpu) {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            return Err(usage(format!(
                "--cpu {cpu}: this process may not run there; use {}",
                allowed.join(",")
            )));
        }
    }
    Ok(())
}

/// Refuses trains where there can be none.
fn check_burst(args: &SenderArgs) -> Result<(), Error> {
    match args.load.burst {
        Burst::Fixed(burst) if burst > 1 && !cfg!(target_os = "linux") => {
            Err(usage("--burst: trains take Linux; leave it out"))
        }
        Burst::Fixed(burst) if burst > 1 && matches!(args.host.io, IoArg::Portable) => Err(usage(
            "--burst: trains are not to be had with --io portable; leave one of them out",
        )),
        Burst::Fixed(_) | Burst::Auto => Ok(()),
    }
}

fn io_kind(arg: IoArg) -> IoKind {
    match arg {
        IoArg::Batched => IoKind::Batched,
        IoArg::Portable => IoKind::Portable,
    }
}

fn format(arg: FormatArg) -> Format {
    match arg {
        FormatArg::Ntp => Format::Ntp,
        FormatArg::Ptp => Format::Ptp,
    }
}

/// A whole number of type `T`.
fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error: ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => "too large a number; use a smaller one".to_owned(),
            IntErrorKind::NegOverflow => "too small a number".to_owned(),
            _ if text.starts_with('-') => "below 0; use a whole number from 0 on".to_owned(),
            _ => "not a number; use a whole one, such as 64".to_owned(),
        })
}

fn parse_ttl(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(ttl @ 1..) => Ok(ttl),
        _ => Err("use 1 to 255".to_owned()),
    }
}

/// Microseconds.
fn parse_busy_poll(text: &str) -> Result<u32, String> {
    let ns = match text.parse::<u64>() {
        Ok(us) => us.checked_mul(1000),
        Err(_) => text.parse::<Span>().map(|span| span.ns()).ok(),
    };
    match ns.map(|ns| ns / 1000) {
        Some(us @ 1..=10_000) => Ok(u32::try_from(us).unwrap_or(1)),
        _ => Err("use 1us to 10ms".to_owned()),
    }
}

fn parse_burst(text: &str) -> Result<Burst, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Burst::Auto),
        Ok(packets @ 1..=64) => Ok(Burst::Fixed(packets)),
        _ => Err("use 1 to 64, or auto".to_owned()),
    }
}

fn parse_interface(text: &str) -> Result<String, String> {
    // 15 octets are what the system keeps of a name.
    if text.is_empty() || text.len() > 15 || text.contains(['/', ' ']) {
        return Err("no name of an interface; see `ip link`".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_pairs(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(threads @ 1..=64) => Ok(threads),
        _ => Err("use 1 to 64".to_owned()),
    }
}

fn parse_threads(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(threads @ 1..=256) => Ok(threads),
        _ => Err("use 1 to 256".to_owned()),
    }
}

fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a count; use a whole number such as 500, 10k or 1M".to_owned());
    }
    let number: Option<u64> = digits.parse().ok();
    match number.and_then(|n| n.checked_mul(factor)) {
        Some(0) => Err("nothing would be sent; use 1 or more".to_owned()),
        Some(count) => Ok(count),
        None => Err("too large a count; use --duration for an endless run".to_owned()),
    }
}

/// The wildcard of each family that this host has.
fn every_address(port: u16) -> Vec<SocketAddr> {
    let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let usable = families.iter().filter(|addr| {
        // A family that is switched off is no error.
        UdpSocket::bind((**addr, 0)).is_ok()
    });
    usable.map(|addr| SocketAddr::new(*addr, port)).collect()
}

/// A packet field by field.
fn decoded(packet: &engine::PacketCopy) -> String {
    let octets = packet.octets();
    let (way, fields) = if packet.came {
        let reply = Reply::parse(octets);
        ("received", reply.map(|reply| reply.to_string()))
    } else {
        let request = parse_request(octets);
        ("sent", request.map(|request| request.to_string()))
    };
    let fields = fields.unwrap_or_else(|malformed| {
        let hex: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("no test packet: {malformed}: {}", hex.join(" "))
    });
    let before = match packet.not_shown {
        0 => String::new(),
        n => format!(" ({} more not shown)", text::count(n)),
    };
    format!("{way} {} octets: {fields}{before}", packet.len)
}

/// Shows what happens while a session runs.
struct Watcher {
    progress: ProgressLine,
    news: News,
    responses: bool,
    timestamps: bool,
    json: bool,
    peer: IpAddr,
    /// What each flow is, where there are several.
    flow: &'static str,
}

impl Watcher {
    fn new(args: &SenderArgs, talk: bool, peer: IpAddr, flow: &'static str) -> Self {
        let quiet = args.print_responses || args.log.verbose || args.log.debug;
        Self {
            progress: ProgressLine::new(talk && !quiet),
            news: News::default(),
            responses: args.print_responses,
            timestamps: args.timestamps,
            json: args.results.json,
            peer,
            flow,
        }
    }

    /// Nothing more will happen.
    fn finish(&mut self) {
        self.progress.clear();
    }

    fn show(&mut self, update: &Update) {
        match update {
            Update::Progress(now) => {
                self.news.tell(&now.ignored);
                self.progress.show(*now);
            }
            Update::Happened {
                thread,
                at_ns,
                what,
            } => {
                let flow = self.flow;
                let of = thread.map_or(String::new(), |number| format!("{flow} {number}: "));
                log::info!("{of}{}", live::logged(what, self.peer));
                if self.responses {
                    let at = match self.timestamps {
                        true => heading::moment(*at_ns) + " ",
                        false => String::new(),
                    };
                    self.line(&format!("{at}{of}{}", live::line(what, self.peer)));
                }
            }
            Update::NotShown(count) => {
                log::info!("({} more not shown)", text::count(*count));
                if self.responses {
                    self.line(&format!("({} more not shown)", text::count(*count)));
                }
            }
            Update::Packet(packet) => log::debug!("{}", decoded(packet)),
            Update::Interval(interval) if self.json => self.out(&(interval.to_json_line() + "\n")),
            Update::Interval(interval) => self.out(&live::block(interval)),
        }
    }

    /// With `--json`, standard output is for JSON alone.
    fn line(&mut self, line: &str) {
        if self.json {
            self.progress.clear();
            say(&format!("{line}\n"));
        } else {
            self.out(&format!("{line}\n"));
        }
    }

    fn out(&mut self, text: &str) {
        self.progress.clear();
        // Where the disk is full the measurement goes on, and the report at the end says what it can. A
        // reader that has gone away ends it: see `stop_when_unread`.
        let _ = print(text);
    }
}

/// One line on a terminal that shows how far a long run is; nothing of it anywhere else.
struct ProgressLine {
    shown: bool,
    on: bool,
    begun: Instant,
}

impl ProgressLine {
    fn new(wanted: bool) -> Self {
        Self {
            shown: false,
            on: wanted && std::io::stderr().is_terminal(),
            begun: Instant::now(),
        }
    }

    fn show(&mut self, now: Progress) {
        let elapsed = self.begun.elapsed();
        if !self.on || elapsed < Duration::from_secs(1) {
            return;
        }
        self.shown = true;
        say(&format!(
            "\r{:6.1} s  sent {}  received {}\x1b[K",
            elapsed.as_secs_f64(),
            text::count(now.sent),
            text::count(now.received)
        ));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            say("\r\x1b[K");
        }
    }
}

/// Logs datagrams that are not taken, by kind, as they come, and why replies could not be sent, once for
/// each error.
#[derive(Default)]
struct News {
    ignored: Ignored,
    unsent: Unsent,
}

impl News {
    fn tell(&mut self, now: &Ignored) {
        for sentence in ignored::news(&self.ignored, now) {
            log::info!("not taken: {sentence}");
        }
        self.ignored = *now;
    }

    fn tell_unsent(&mut self, now: &Unsent) {
        for by in now.new_since(&self.unsent) {
            log::info!("replies cannot be sent: {by}");
        }
        self.unsent = *now;
    }
}

/// Prints a result. A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Error> {
    // What was said before comes before.
    messages::settle();
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            signals::note_unread();
            Ok(())
        }
        Err(error) => Err(Error::Runtime(format!(
            "cannot write the report to standard output: {error}"
        ))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags whose value has no help, or help without an example and without a default that is one.
    fn unclear(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set());
        for argument in arguments.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        {
            let help = argument
                .get_help()
                .map_or(String::new(), ToString::to_string);
            let takes_value = argument.get_action().takes_values();
            let example = ["[example", "default: ", "examples: "]
                .iter()
                .any(|e| help.contains(e))
                || !argument.get_default_values().is_empty();
            if help.is_empty() || takes_value && !example {
                found.push(format!("{path} {argument}: {help}"));
            }
        }
        for inner in command.get_subcommands() {
            unclear(inner, &path, found);
        }
    }

    #[test]
    fn nothing_is_not_said_to_have_been_due_where_this_host_was_behind() {
        let mut report = crate::report::tests::full();
        report.packets.not_sent_causes = Vec::new();
        report.host.reasons = Vec::new();
        assert_eq!(why_nothing(&report), "nothing was due");
        report.host.reasons = vec!["this host was behind".to_owned()];
        assert_eq!(why_nothing(&report), "this host was behind");
        report.packets.not_sent_causes = vec![crate::report::NotSent {
            cause: crate::report::Cause::BehindSchedule,
            count: 7,
            error: None,
        }];
        assert!(why_nothing(&report).starts_with("7 packets were further behind"));
    }

    #[test]
    fn a_dscp_has_one_name_in_what_is_typed_and_what_is_shown() {
        for value in 0..64_u8 {
            let name = Dscp::new(value).unwrap().to_string();
            let told = text::dscp(value);
            // What has no name of its own, and the usual one, is a number alone.
            let plain = value == 0 || name.starts_with("cp");
            let expected = if plain {
                value.to_string()
            } else {
                format!("{value} ({name})")
            };
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn every_value_has_help_with_an_example_or_a_default() {
        let mut found = Vec::new();
        unclear(&command(), "", &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
