//! The `server` subcommand: its flags, what they mean, and what it shows while it runs.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;

use super::address::{Narrow, every_address, resolve, to_many};
use super::error::{Error, usage};
use super::host::{FormatArg, HostArgs, IoArg, check_host, io_kind};
use super::messages::{LogArgs, check_log, open_log, say};
use super::print::print;
use super::progress::News;
use super::signals::{Again, Hangup, catch_signals};
use super::values::{parse_interface, parse_threads, parse_ttl, whole};
use super::verdict::service_ended;
use crate::config::{
    CpuList, DEFAULT_POLICY, Endpoint, Feature, Policy, Seconds, ServedConfig, ServerConfig,
    SocketOptions,
};
use crate::engine::Stop;
use crate::os;
use crate::output::heading::{self, Heading};
use crate::output::{server as shown, text};
use crate::report::{Protocol, Security};
use crate::server::{Failure, Progress, Reload, Serving};
use crate::wire::control::Count;
use crate::wire::{Modes, SecurityMode};

/// TWAMP-Control's own (RFC 5357 §3).
const CONTROL_PORT: u16 = 862;
/// Iterations that a client is asked for: 0.8 ms of work, for it and for whoever guesses.
const DEFAULT_COUNT: u32 = 4096;
/// A policy is small; what is larger is no policy.
const MOST_POLICY: u64 = 1 << 20;

pub(super) const EXAMPLES: &str = "\
Examples:
  twamp-blast server
        serve on TCP port 862, IPv4 and IPv6, until Ctrl-C; nothing is protected
  twamp-blast server --keys-file /etc/twamp-blast/keys --mode encrypted,mixed
        only who has a key, which the file has as lines of KeyID and passphrase
  twamp-blast server 192.0.2.1:8620 --policy policy.toml -v
        networks, rates and ports as the file has them, and a line for each session
  twamp-blast server --print-policy > policy.toml
        the policy that is in force without a file, with a comment at every key
";

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// TCP address and port to listen on [examples: 192.0.2.1, [2001:db8::1]:862, :8620; default:
    /// every address, port 862]
    #[arg(value_name = "LOCAL[:PORT]")]
    local: Option<Endpoint>,
    /// KeyIDs and passphrases, a line each: the KeyID, a blank, and the passphrase up to the end of the
    /// line; # begins a comment. Nobody else may be able to read the file. SIGHUP has it read again
    /// [example: /etc/twamp-blast/keys; default: none, and nothing is protected]
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Who may do what, as TOML; see --print-policy. SIGHUP has it read again, for new connections [example: policy.toml; default: everybody may
    /// measure towards itself, within limits]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print the policy that is in force without --policy, as such a file, and end
    #[arg(long)]
    print_policy: bool,
    /// Security modes to offer: unauthenticated, authenticated, encrypted, mixed; as far as policy and
    /// keys allow [example: encrypted,mixed; default: all, but unauthenticated where there are keys]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    mode: Vec<SecurityMode>,
    /// Features to offer: individual-session-control, reflect-octets, symmetrical-size,
    /// dscp-ecn-monitoring, ptp-timestamp, or none [example: reflect-octets,symmetrical-size; default:
    /// all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_feature)]
    features: Vec<FeatureArg>,
    /// Iterations of the key derivation that clients are asked for: a power of two, 1024 to 32768
    /// [example: 32768]
    #[arg(long, value_name = "N", default_value_t = DEFAULT_COUNT, allow_negative_numbers = true, value_parser = whole::<u32>)]
    count: u32,
    /// The most that --count may be; above 32768 clients refuse unless they were told otherwise
    /// [example: 65536]
    #[arg(long, value_name = "N", default_value_t = Count::DEFAULT_MOST.value(), allow_negative_numbers = true, value_parser = whole::<u32>)]
    max_count: u32,
    /// How long a connection without a running session may be silent (SERVWAIT); a bare number is
    /// seconds [example: 5m; default: the policy's, 15m]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    servwait: Option<Seconds>,
    /// How long a running session may be without a packet (REFWAIT); a bare number is seconds
    /// [example: 5m; default: the policy's, 15m]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    refwait: Option<Seconds>,
    /// TTL or Hop Limit of the replies; 255 lets hops be told [example: 64]
    #[arg(long, value_name = "N", default_value_t = 255, value_parser = parse_ttl, allow_negative_numbers = true)]
    ttl: u8,
    /// Network interface to use [example: eth0]
    #[arg(long, value_name = "NAME", value_parser = parse_interface)]
    interface: Option<String>,
    /// Threads that reflect test packets; a session stays on one [example: 4]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_threads, allow_negative_numbers = true)]
    threads: u16,
    /// CPUs for these threads [examples: 2,3 or 0-3; default: a sensible choice]
    #[arg(long, value_name = "LIST", help_heading = "Host")]
    cpu: Option<CpuList>,
    /// System calls: batches with kernel timestamps, or what every system has
    #[arg(long, value_enum, default_value_t = IoArg::Batched, help_heading = "Host")]
    io: IoArg,
    /// Print one line of JSON when it stops instead of the summary
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// A feature, or `none`.
#[derive(Clone, Copy, Debug)]
struct FeatureArg(Modes);

fn parse_feature(text: &str) -> Result<FeatureArg, String> {
    if text == "none" {
        return Ok(FeatureArg(Modes::NONE));
    }
    text.parse()
        .map(|feature: Feature| FeatureArg(feature.bit()))
}

pub(super) fn run(args: &ServerArgs) -> Result<u8, Error> {
    if args.print_policy {
        return print(DEFAULT_POLICY).map(|()| 0);
    }
    check_log(&args.log, args.json)?;
    open_log(&args.log)?;
    check_host(&HostArgs {
        cpu: args.cpu.clone(),
        io: args.io,
        hw_timestamps: false,
        busy_poll: None,
        timestamp_format: FormatArg::Ntp,
    })?;
    let config = plan(args)?;
    let stop = Stop::default();
    let reload = Reload::default();
    catch_signals(
        &stop,
        !args.log.quiet,
        Again::EndsAll,
        reloads(args, &reload),
    )?;
    let serving = Serving::start(&config, &stop, &reload).map_err(startup)?;
    let started = os::wall_clock();
    if !args.log.quiet {
        say(&hello(&config, &serving));
    }
    log::debug!("{config:?}");
    let mut status = StatusLine::new(&args.log);
    let mut news = News::default();
    let account = serving.run(|progress| {
        news.tell(&progress.ignored);
        news.tell_unsent(&progress.unsent);
        status.show(progress);
    });
    status.clear();
    let account = account.map_err(startup)?;
    news.tell(&account.totals.ignored);
    news.tell_unsent(&account.totals.unsent_by);
    let result = if args.json {
        account.to_json_line() + "\n"
    } else {
        let listen: Vec<String> = account.listen.iter().map(ToString::to_string).collect();
        let bits = [
            Security::Unauthenticated,
            Security::Authenticated,
            Security::Encrypted,
            Security::Mixed,
        ];
        // The others are features.
        let modes = bits.map(heading::security).into_iter();
        let modes: Vec<&str> = modes
            .filter(|mode| account.modes.iter().any(|offered| offered == mode))
            .collect();
        let about = Heading {
            version: &account.version,
            command: "server",
            ends: listen.join(" and "),
            started: Some(heading::rfc3339(started)),
            protocol: Protocol::Twamp,
            security: modes.join(", "),
            key_id: None,
            sid: None,
        };
        about.show() + &shown::summary(&account)
    };
    print(&result)?;
    Ok(service_ended(account.failure.as_ref()))
}

fn startup(failure: Failure) -> Error {
    match failure {
        Failure::Keys { path, why } => usage(format!("--keys-file {}: {why}", path.display())),
        Failure::NoMode(_) => usage(format!("--mode: {failure}")),
        Failure::Engine(failure) => failure.into(),
    }
}

fn hello(config: &ServerConfig, serving: &Serving) -> String {
    let listen = serving.local();
    let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let mut hello = format!("twamp-blast: serving on {}\n", addresses.join(" and "));
    let offers = serving.offers();
    for (network, modes) in &offers {
        let to = match network {
            Some(prefix) => format!("clients in {prefix}"),
            None if offers.len() > 1 => "everybody else".to_owned(),
            None => "everybody".to_owned(),
        };
        let what = match *modes {
            Modes::NONE => "nothing".to_owned(),
            modes => modes.to_string(),
        };
        hello += &format!("twamp-blast: offering {what} to {to}\n");
    }
    let open = offers
        .iter()
        .any(|(_, modes)| modes.contains(Modes::UNAUTHENTICATED));
    match (&config.keys, config.security) {
        (None, Some(Modes::UNAUTHENTICATED)) => {}
        (None, _) => hello += "twamp-blast: nothing is protected; --keys-file FILE changes that\n",
        (Some(_), _) if open => hello += "twamp-blast: unauthenticated takes no key\n",
        (Some(_), _) => {
            hello += "twamp-blast: nobody is served without a key; --mode, or modes in the policy, can \
                      name unauthenticated\n";
        }
    }
    if let [only] = listen
        && only.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    {
        let port = only.port();
        hello += &format!("twamp-blast: over IPv6 alone; :{port} serves IPv4 too\n");
    }
    for remark in serving.remarks() {
        hello += &format!("twamp-blast: {remark}\n");
    }
    hello
}

fn plan(args: &ServerArgs) -> Result<ServerConfig, Error> {
    let listen = match args.local.as_ref().filter(|local| local.host.is_some()) {
        Some(local) => vec![resolve(
            local,
            CONTROL_PORT,
            Narrow::of(args.interface.as_deref()),
        )?],
        None => {
            let port = args.local.as_ref().and_then(|local| local.port);
            every_address(port.unwrap_or(CONTROL_PORT))
        }
    };
    if let Some(many) = listen.iter().find(|addr| to_many(addr.ip())) {
        return Err(usage(format!(
            "{}: nobody connects to a multicast or broadcast address; use one of this host's own",
            many.ip()
        )));
    }
    let count = Count::new(args.count, args.max_count);
    let count = count.map_err(|error| {
        usage(format!(
            "--count {}: {error}; use a power of two from 1024 to --max-count, {}",
            args.count, args.max_count
        ))
    })?;
    let security = match args.mode.as_slice() {
        [] => None,
        modes => Some(modes.iter().fold(Modes::NONE, |sum, mode| sum | mode.bit())),
    };
    let features = match args.features.as_slice() {
        [] => Modes::FEATURES,
        features => features.iter().fold(Modes::NONE, |sum, one| sum | one.0),
    };
    let policy = PolicyArgs::of(args).read()?;
    Ok(ServerConfig {
        listen,
        security,
        features,
        count,
        keys: args.keys_file.clone(),
        policy,
        served: ServedConfig {
            socket: SocketOptions {
                tos: 0,
                ttl: args.ttl,
                do_not_fragment: false,
                interface: args.interface.clone(),
                hardware: false,
                busy_poll_us: None,
                io: io_kind(args.io),
            },
            threads: usize::from(args.threads),
            cpus: args.cpu.clone(),
        },
    })
}

/// SIGHUP has keys and policy read again.
fn reloads(args: &ServerArgs, reload: &Reload) -> Hangup {
    let (policy, reload) = (PolicyArgs::of(args), reload.clone());
    Hangup::Reloads(Box::new(move || {
        let anew = policy.file.as_ref().map(|_| policy.read());
        reload.request(anew.map(|read| read.map_err(|error| error.to_string())));
    }))
}

/// Where the policy comes from.
struct PolicyArgs {
    file: Option<PathBuf>,
    servwait: Option<Seconds>,
    refwait: Option<Seconds>,
}

impl PolicyArgs {
    fn of(args: &ServerArgs) -> Self {
        Self {
            file: args.policy.clone(),
            servwait: args.servwait,
            refwait: args.refwait,
        }
    }

    /// What the file says, and what flags say instead.
    fn read(&self) -> Result<Policy, Error> {
        let mut policy = match &self.file {
            Some(path) => {
                let read = read_policy(path);
                read.map_err(|why| usage(format!("--policy {}: {why}", path.display())))?
            }
            None => Policy::default(),
        };
        for (flag, given, value) in [
            ("--servwait", self.servwait, &mut policy.limits.servwait),
            ("--refwait", self.refwait, &mut policy.limits.refwait),
        ] {
            match given {
                Some(time) if time.ns() == 0 => {
                    return Err(usage(format!(
                        "{flag} 0 leaves nobody any time; use 1s or more"
                    )));
                }
                Some(time) => *value = time,
                None => {}
            }
        }
        Ok(policy)
    }
}

fn read_policy(path: &std::path::Path) -> Result<Policy, String> {
    use std::io::Read;

    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(MOST_POLICY + 1).read_to_string(&mut text);
    let len = read.map_err(|error| error.to_string())?;
    if len as u64 > MOST_POLICY {
        return Err(format!("over {MOST_POLICY} octets; use a smaller file"));
    }
    text.parse()
        .map_err(|error: crate::config::PolicyError| error.to_string())
}

/// One line on a terminal that shows what a Server is doing; nothing of it anywhere else.
struct StatusLine {
    on: bool,
    shown: bool,
}

impl StatusLine {
    fn new(log: &LogArgs) -> Self {
        // Log lines would break into it.
        let wanted = !(log.quiet || log.verbose || log.debug);
        Self {
            on: wanted && std::io::stderr().is_terminal(),
            shown: false,
        }
    }

    fn show(&mut self, progress: Progress) {
        if !self.on {
            return;
        }
        self.shown = true;
        let number = |n: usize| text::count(u64::try_from(n).unwrap_or(u64::MAX));
        say(&format!(
            "\rconnections {}  sessions {}  granted so far {}\x1b[K",
            number(progress.connections),
            number(progress.sessions),
            text::count(progress.granted),
        ));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            say("\r\x1b[K");
        }
    }
}
