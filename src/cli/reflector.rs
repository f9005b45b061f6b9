//! The `reflector` subcommand: its flags, what they mean, and what it shows while it runs.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use clap::Args;
use rand::RngExt;

use super::address::{DEFAULT_PORT, Narrow, every_address, resolve, to_many};
use super::error::{Error, usage};
use super::host::{HostArgs, check_host, format, io_kind};
use super::messages::{LogArgs, check_log, open_log, say};
use super::print::print;
use super::progress::News;
use super::signals::{Again, Hangup, catch_signals};
use super::values::{parse_interface, parse_threads, parse_ttl, whole};
use super::verdict::service_ended;
use crate::config::{
    Direction, Dscp, Endpoint, Fraction, Impairment, IoKind, Prefix, Rate, ReflectorConfig,
    Seconds, SocketOptions,
};
use crate::engine::admission::{SessionEvent, What};
use crate::engine::{Reflected, Reflecting, ReflectorUpdate, Stop};
use crate::os;
use crate::output::heading::{self, Heading};
use crate::output::{reflector as shown, text};
use crate::report::{Protocol, Security};

/// The longest delay that test mode takes.
const MAX_DELAY_NS: u64 = 3_600_000_000_000;
/// What a delay is drawn up to unless something else is said.
const DEFAULT_MAX_DELAY_NS: u64 = 2_000_000_000;
/// How often the status line is written anew.
const STATUS: Duration = Duration::from_secs(1);

pub(super) const EXAMPLES: &str = "\
Examples:
  twamp-blast reflector
        answer on port 20001, IPv4 and IPv6, until Ctrl-C
  twamp-blast reflector 192.0.2.1:862 --allow 198.51.100.0/24
        answer one network only
  twamp-blast reflector --test-mode --drop-rate 5 --delay-rate 10 --max-delay 50ms --json
        lose and delay replies on purpose, and account for it when stopped
";

#[derive(Debug, Args)]
pub(super) struct ReflectorArgs {
    /// Address and port to listen on [default: every address, port 20001]
    #[arg(value_name = "LOCAL[:PORT]")]
    local: Option<Endpoint>,
    /// Answer this network only; may be given several times [default: everyone is answered]
    /// [examples: 192.0.2.0/24, 2001:db8::1]
    #[arg(long, value_name = "PREFIX")]
    allow: Vec<Prefix>,
    /// Copy the sender's sequence number instead of counting the replies of each session
    #[arg(long)]
    stateless: bool,
    /// Forget a session that is silent for so long; a bare number is seconds; 0: never
    /// [example: 15m]
    #[arg(
        long,
        visible_alias = "timer",
        value_name = "TIME",
        default_value = "900s",
        allow_negative_numbers = true
    )]
    session_timeout: Seconds,
    /// DSCP of the replies by name or number [examples: ef, 46; default: that of the request]
    #[arg(long, value_name = "DSCP", allow_negative_numbers = true)]
    dscp: Option<Dscp>,
    /// TTL or Hop Limit of the replies; 255 lets hops be told [example: 64]
    #[arg(long, value_name = "N", default_value_t = 255, value_parser = parse_ttl, allow_negative_numbers = true)]
    ttl: u8,
    /// Never fragment replies
    #[arg(long)]
    do_not_fragment: bool,
    /// Network interface to use [example: eth0]
    #[arg(long, value_name = "NAME", value_parser = parse_interface)]
    interface: Option<String>,
    /// Threads, each with a socket of its own; a session stays on one [example: 4]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_threads, allow_negative_numbers = true)]
    threads: u16,
    /// Print one line of JSON when it stops instead of the summary
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    test: TestArgs,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Test mode (packets are impaired on purpose)")]
struct TestArgs {
    /// Allow the flags below. One draw a packet decides which one thing happens to it, so that each
    /// share is exact; together they are at most 100 percent. --json has what was really done
    #[arg(long)]
    test_mode: bool,
    /// Packets to drop, in percent [examples: 5, 0.1]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    drop_rate: Option<Fraction>,
    /// Packets to send twice, in percent [example: 1]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    duplicate_rate: Option<Fraction>,
    /// Packets to hold until a later one of their session has overtaken them, in percent; the last
    /// one is let go after four intervals, 20ms to 2s [example: 2]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    reorder_rate: Option<Fraction>,
    /// Packets to delay, in percent [example: 3]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    delay_rate: Option<Fraction>,
    /// Packets whose Sender Timestamp is changed, in percent: a sender counts them as invalid, and
    /// as lost inbound, whatever the direction [example: 0.5]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    corrupt_rate: Option<Fraction>,
    /// Draw delays evenly from 0 to this; a bare number is seconds [examples: 2s, 50ms; default: 2s]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["delay", "delay_jitter"], allow_negative_numbers = true)]
    max_delay: Option<Seconds>,
    /// Delay by this time, give or take --delay-jitter; a bare number is seconds [example: 20ms]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    delay: Option<Seconds>,
    /// Draw delays evenly from --delay less this to --delay plus this; a bare number is seconds
    /// [example: 5ms]
    #[arg(
        long,
        value_name = "TIME",
        requires = "delay",
        allow_negative_numbers = true
    )]
    delay_jitter: Option<Seconds>,
    /// Packets let through in each second, bunched by 10 ms at most; more are dropped and counted
    /// apart [example: 1k]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    rate_limit: Option<Rate>,
    /// Seed of all draws; the same seed and packets give the same draws [example: 7; default:
    /// random, and shown]
    #[arg(long, value_name = "N", allow_negative_numbers = true, allow_negative_numbers = true, value_parser = whole::<u64>)]
    seed: Option<u64>,
    /// Where: inbound, after a reply has its number (the sender sees it on the way back), or
    /// outbound, before a request has a number and T2 [example: outbound; default: inbound]
    #[arg(long, value_enum, value_name = "DIRECTION")]
    impair_direction: Option<DirectionArg>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DirectionArg {
    Inbound,
    Outbound,
}

impl TestArgs {
    /// The flag that makes no sense without test mode.
    fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.drop_rate.is_some(), "--drop-rate"),
            (self.duplicate_rate.is_some(), "--duplicate-rate"),
            (self.reorder_rate.is_some(), "--reorder-rate"),
            (self.delay_rate.is_some(), "--delay-rate"),
            (self.corrupt_rate.is_some(), "--corrupt-rate"),
            (self.max_delay.is_some(), "--max-delay"),
            (self.delay.is_some(), "--delay"),
            (self.delay_jitter.is_some(), "--delay-jitter"),
            (self.rate_limit.is_some(), "--rate-limit"),
            (self.seed.is_some(), "--seed"),
            (self.impair_direction.is_some(), "--impair-direction"),
        ];
        let first = given.into_iter().find(|(given, _)| *given);
        first.map(|(_, flag)| flag)
    }

    fn plan(&self) -> Result<Option<Impairment>, Error> {
        if !self.test_mode {
            return match self.first_given() {
                Some(flag) => Err(usage(format!(
                    "{flag} impairs packets on purpose; use it with --test-mode"
                ))),
                None => Ok(None),
            };
        }
        let delay_rate = self.delay_rate.unwrap_or_default();
        for (given, flag) in [
            (self.max_delay.is_some(), "--max-delay"),
            (self.delay.is_some(), "--delay"),
        ] {
            if given && delay_rate.ppm() == 0 {
                return Err(usage(format!(
                    "{flag} delays nothing by itself; use it with --delay-rate, such as \
                     --delay-rate 100"
                )));
            }
        }
        let plan = Impairment {
            direction: match self.impair_direction {
                Some(DirectionArg::Outbound) => Direction::Outbound,
                Some(DirectionArg::Inbound) | None => Direction::Inbound,
            },
            drop: self.drop_rate.unwrap_or_default(),
            duplicate: self.duplicate_rate.unwrap_or_default(),
            reorder: self.reorder_rate.unwrap_or_default(),
            delay: delay_rate,
            corrupt: self.corrupt_rate.unwrap_or_default(),
            delay_ns: self.delays()?,
            rate_limit: self.rate_limit,
            // Small enough for every JSON reader.
            seed: self
                .seed
                .unwrap_or_else(|| u64::from(rand::rng().random::<u32>())),
        };
        if plan.total_ppm() > 1_000_000 {
            return Err(usage(format!(
                "the rates of test mode sum to {} percent, and each packet gets one thing at most; \
                 use 100 or less together",
                f64::from(plan.total_ppm()) / 1e4
            )));
        }
        Ok(Some(plan))
    }

    /// The shortest and the longest delay.
    fn delays(&self) -> Result<(u64, u64), Error> {
        let bounded = |flag: &str, time: Seconds, least: u64| match time.ns() {
            ns if (least..=MAX_DELAY_NS).contains(&ns) => Ok(ns),
            _ => {
                let from = if least > 0 { "more than 0" } else { "0" };
                Err(usage(format!("{flag} {time}: use {from} to 1h")))
            }
        };
        let Some(delay) = self.delay else {
            let most = self.max_delay.map(|time| bounded("--max-delay", time, 1));
            return Ok((1, most.unwrap_or(Ok(DEFAULT_MAX_DELAY_NS))?));
        };
        let jitter = self.delay_jitter.map_or(0, Seconds::ns);
        let centre = bounded("--delay", delay, 0)?;
        match centre.checked_sub(jitter) {
            Some(least) => Ok((least, centre + jitter)),
            None => Err(usage(format!(
                "--delay-jitter {}: a delay would be below 0; use {delay} or less",
                self.delay_jitter.unwrap_or(delay)
            ))),
        }
    }
}

pub(super) fn run(args: &ReflectorArgs) -> Result<u8, Error> {
    check_log(&args.log, args.json)?;
    open_log(&args.log)?;
    check_host(&args.host)?;
    let config = plan(args)?;
    let stop = Stop::default();
    catch_signals(&stop, !args.log.quiet, Again::EndsAll, Hangup::Reopens)?;
    let reflecting = Reflecting::start(&config, &stop)?;
    let listen = reflecting.local().to_vec();
    let started = os::wall_clock();
    let before = Reflected::default().account(&config, &listen);
    if !args.log.quiet {
        let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
        let mut hello = format!("twamp-blast: reflecting on {}\n", addresses.join(" and "));
        if config.allow.is_empty() {
            hello += "twamp-blast: everyone is answered; --allow PREFIX limits that\n";
        }
        if let [only] = listen.as_slice()
            && only.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        {
            let port = only.port();
            hello += &format!("twamp-blast: over IPv6 alone; :{port} answers IPv4 too\n");
        }
        for remark in reflecting.remarks() {
            hello += &format!("twamp-blast: {remark}\n");
        }
        say(&hello);
    }
    if let Some(mode) = &before.test_mode {
        // Also where nothing else is said: nobody should take these packets for the network's.
        say(&format!("twamp-blast: {}", shown::test_mode(mode)));
    }
    if let Some(bytes) = reflecting.receive_buffer() {
        log::info!("receive buffer {bytes} bytes");
    }
    log::debug!("{config:?}");
    let mut status = StatusLine::new(&args.log);
    let mut news = News::default();
    let totals = reflecting.watch(|update| match update {
        ReflectorUpdate::Session(event) => tell(&event),
        ReflectorUpdate::Counts {
            received,
            reflected,
            sessions,
            ignored,
            unsent,
        } => {
            news.tell(&ignored);
            news.tell_unsent(&unsent);
            status.show(received, reflected, sessions);
        }
    });
    status.clear();
    let totals = totals?;
    news.tell(&totals.counts.ignored);
    news.tell_unsent(&totals.unsent_by);
    let account = totals.account(&config, &listen);
    let result = if args.json {
        account.to_json_line() + "\n"
    } else {
        let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
        let about = Heading {
            version: &account.version,
            command: "reflector",
            ends: addresses.join(" and "),
            started: Some(heading::rfc3339(started)),
            protocol: Protocol::TwampLight,
            security: heading::security(Security::Unauthenticated).to_owned(),
            key_id: None,
            sid: None,
        };
        about.show() + &shown::summary(&account)
    };
    print(&result)?;
    Ok(service_ended(account.failure.as_ref()))
}

fn plan(args: &ReflectorArgs) -> Result<ReflectorConfig, Error> {
    let listen = match args.local.as_ref().filter(|local| local.host.is_some()) {
        Some(local) => vec![resolve(
            local,
            DEFAULT_PORT,
            Narrow::of(args.interface.as_deref()),
        )?],
        None => {
            let port = args.local.as_ref().and_then(|local| local.port);
            every_address(port.unwrap_or(DEFAULT_PORT))
        }
    };
    if let Some(many) = listen.iter().find(|addr| to_many(addr.ip())) {
        return Err(usage(format!(
            "{}: a multicast or broadcast address has no reflector; use one of this host's own",
            many.ip()
        )));
    }
    let config = ReflectorConfig {
        listen,
        allow: args.allow.clone(),
        stateless: args.stateless,
        session_timeout_ns: args.session_timeout.ns(),
        dscp: args.dscp,
        format: format(args.host.timestamp_format),
        socket: SocketOptions {
            tos: 0,
            ttl: args.ttl,
            do_not_fragment: args.do_not_fragment,
            interface: args.interface.clone(),
            hardware: args.host.hw_timestamps,
            busy_poll_us: args.host.busy_poll,
            io: io_kind(args.host.io),
        },
        threads: usize::from(args.threads),
        cpus: args.host.cpu.clone(),
        impairment: args.test.plan()?,
        watch: args.log.verbose || args.log.debug,
    };
    if config.socket.io == IoKind::Portable && config.threads > 1 {
        return Err(usage(
            "--threads: --io portable has one thread; leave one of them out",
        ));
    }
    let limit = config.impairment.as_ref().and_then(|plan| plan.rate_limit);
    if limit.is_some() && config.threads > 1 {
        return Err(usage(
            "--rate-limit is one limit for one thread; leave out --threads",
        ));
    }
    Ok(config)
}

fn tell(event: &SessionEvent) {
    let SessionEvent { from, to, what } = event;
    let to = to.map_or_else(|| "this host".to_owned(), |to| to.to_string());
    match what {
        What::Began => log::info!("session of {from} with {to} began"),
        What::Silent { replies } => {
            log::info!("session of {from} with {to} ended: silent, after {replies} replies");
        }
        What::BeganAgain { replies } => {
            log::info!(
                "session of {from} with {to} ended: it begins again, after {replies} replies"
            );
        }
        What::Evicted { replies } => {
            log::info!(
                "session of {from} with {to} forgotten: others need the room, after {replies} replies"
            );
        }
    }
}

/// One line on a terminal that shows what a reflector is doing; nothing of it anywhere else.
struct StatusLine {
    on: bool,
    shown: Option<(Instant, u64)>,
}

impl StatusLine {
    fn new(log: &LogArgs) -> Self {
        // Log lines would break into it.
        let wanted = !(log.quiet || log.verbose || log.debug);
        Self {
            on: wanted && std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    fn show(&mut self, received: u64, reflected: u64, sessions: u64) {
        let now = os::now();
        if !self.on {
            return;
        }
        let (since, before) = self.shown.map_or((STATUS, 0), |(then, before)| {
            (now.duration_since(then), before)
        });
        if since < STATUS {
            return;
        }
        self.shown = Some((now, received));
        let rate = u128::from(received - before) * 1_000_000_000 / since.as_nanos().max(1);
        say(&format!(
            "\rreceived {} ({}/s)  reflected {}  sessions {}\x1b[K",
            text::count(received),
            text::count(u64::try_from(rate).unwrap_or(u64::MAX)),
            text::count(reflected),
            text::count(sessions),
        ));
    }

    fn clear(&mut self) {
        if self.shown.is_some() {
            say("\r\x1b[K");
        }
    }
}
