//! The flags of a sender, which a controller has too.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::address::{FamilyArgs, Narrow};
use super::error::{Error, usage};
use super::host::{HostArgs, IoArg, check_host};
use super::messages::{LogArgs, check_log, open_log};
use super::sizes::SizeArgs;
use super::values::{parse_burst, parse_count, parse_interface, parse_pairs, parse_ttl, whole};
use crate::config::{Bandwidth, Burst, Dscp, Endpoint, Fraction, Interval, Rate, Seconds, Tos};
use crate::output::text;

#[derive(Debug, Args)]
pub(super) struct SenderArgs {
    /// Reflector: address or name, with a port unless it is 20001; without one, a reflector inside
    /// this process is measured over loopback [examples: 192.0.2.1, [2001:db8::1]:862]
    #[arg(value_name = "REMOTE[:PORT]")]
    pub(super) remote: Option<Endpoint>,
    /// Address and port to send from [examples: 192.0.2.7, :20000; default: the route's address, any
    /// free port]
    #[arg(value_name = "LOCAL[:PORT]")]
    pub(super) local: Option<Endpoint>,

    #[command(flatten)]
    pub(super) load: LoadArgs,
    #[command(flatten)]
    pub(super) find: FindArgs,
    #[command(flatten)]
    pub(super) sizes: SizeArgs,
    #[command(flatten)]
    pub(super) ip: IpArgs,

    /// How long a reply may take; a bare number is seconds; one that takes longer is late, and its
    /// packet counts as lost [example: 500ms; default: 5s, or 2s with --find-rate]
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    #[arg(allow_negative_numbers = true)]
    pub(super) packet_timeout: Option<Seconds>,
    /// Where packets were lost and nothing tells on which way, do not ask the reflector: else the last
    /// packet is sent again up to three times, to learn how many replies there were (`probes`)
    #[arg(long, help_heading = "Load")]
    pub(super) no_probe: bool,
    /// How the sender waits for a departure: sleep then spin as the gap asks (auto), spin, or sleep
    #[arg(long, value_enum, default_value_t = PacingArg::Auto, help_heading = "Host")]
    pub(super) pacing: PacingArg,
    #[command(flatten)]
    pub(super) host: HostArgs,
    /// Ask for real-time scheduling (SCHED_FIFO) of the packet threads
    #[arg(long, help_heading = "Host")]
    pub(super) realtime: bool,
    /// Print a line for each reply, gap, duplicate, timeout and ICMP message as it happens; what is too fast to be
    /// read is counted [example: --print-responses -i 1s]
    #[arg(long, help_heading = "Output")]
    pub(super) print_responses: bool,
    /// Begin each line of --print-responses with the time, UTC
    #[arg(long, help_heading = "Output", requires = "print_responses")]
    pub(super) timestamps: bool,
    /// Print figures every so often, of that time and of the whole session so far; a bare number is
    /// seconds; 0: never [example: 5s]
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Output",
        allow_negative_numbers = true
    )]
    pub(super) stats_interval: Option<Seconds>,
    #[command(flatten)]
    pub(super) results: ResultArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl SenderArgs {
    /// Which addresses of the remote's name can be used.
    pub(super) fn narrow(&self) -> Result<Narrow<'_>, Error> {
        Narrow::by(
            self.ip.family,
            self.remote.as_ref(),
            self.local.as_ref(),
            self.ip.interface.as_deref(),
        )
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct ResultArgs {
    /// How much to print: table and verdict (brief), also percentiles and conditions (normal), or
    /// every figure of each direction with counts by delay (full); JSON always has all
    #[arg(long, value_enum, default_value_t = StatsArg::Normal)]
    pub(super) stats: StatsArg,
    /// Print also a percentile ladder and a bar histogram of each direction, in microseconds
    #[arg(long, conflicts_with = "json")]
    pub(super) histogram: bool,
    /// Write the delays of each direction to a file as an HdrHistogram log (V2, in nanoseconds, tags
    /// roundtrip, outbound, inbound), in place of what it holds; a direction with a delay below zero
    /// or over one hour is left out, and said to be [example: run-1.hlog]
    #[arg(long, value_name = "FILE")]
    pub(super) hlog: Option<PathBuf>,
    /// Print one line of JSON instead of the table, and one for each --stats-interval
    #[arg(long)]
    pub(super) json: bool,
}

impl ResultArgs {
    pub(super) fn detail(&self) -> text::Detail {
        match self.stats {
            StatsArg::Brief => text::Detail::Brief,
            StatsArg::Normal => text::Detail::Normal,
            StatsArg::Full => text::Detail::Full,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// Packets a second, with k, M or G; for bits see --bandwidth [examples: 100k, 0.5]
    #[arg(
        long,
        value_name = "RATE",
        conflicts_with = "interval",
        allow_negative_numbers = true
    )]
    pub(super) rate: Option<Rate>,
    /// Bits a second in place of packets, with k, M or G, of Ethernet frames without FCS: sizes and
    /// the bit rate of the report are of the same layer [examples: 10Mbit, 1.5Gbit]
    #[arg(
        long,
        value_name = "BITRATE",
        conflicts_with_all = ["rate", "interval"],
        allow_negative_numbers = true
    )]
    pub(super) bandwidth: Option<Bandwidth>,
    /// Time between packets; a bare number is milliseconds [examples: 10ms, 250us; default: 100ms]
    #[arg(short, long, value_name = "TIME", allow_negative_numbers = true)]
    pub(super) interval: Option<Interval>,
    /// Packets to send [examples: 500, 1M; default: 100, or 10 s with --rate or --bandwidth]
    #[arg(short, long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    pub(super) count: Option<u64>,
    /// Time to send for; a bare number is seconds [examples: 10s, 2m]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    pub(super) duration: Option<Seconds>,
    /// Gaps: equal (periodic, RFC 3432), exponential (poisson, RFC 2330), uniformly random (uniform),
    /// or none (flood)
    #[arg(long, value_enum, default_value_t = ScheduleArg::Periodic)]
    pub(super) schedule: ScheduleArg,
    /// With --schedule uniform: gaps differ from their mean by at most so many percent
    /// [example: 20%; default: 50%]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    pub(super) spread: Option<Fraction>,
    /// Seed of random gaps, order of sizes and padding; the same seed gives the same load
    /// [example: 42; default: random, and reported]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64>)]
    pub(super) seed: Option<u64>,
    /// Packets that leave as one segmentation train (UDP_SEGMENT) and share their timestamps: 1 to 64,
    /// or auto: 1 below 50k/s and as long as that keeps the rate, then only as many as it takes; not
    /// with --io portable
    /// [example: 32]
    #[arg(long, value_name = "N", default_value = "auto", allow_negative_numbers = true, value_parser = parse_burst)]
    pub(super) burst: Burst,
    /// Pairs of a sending and a receiving thread that share the load, each from a source port of its own
    /// (a given LOCAL port and those that follow), 1 to 64; figures are of all, and with -v or --json of
    /// each thread too [example: 4]
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = parse_pairs)]
    pub(super) threads: u16,
    /// Sequence number of the first packet, 0 to 4294967295, to see it wrap [example: 4294967290]
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<u32>)]
    pub(super) first_seq: u32,
    /// Fill the padding with zeros, in place of pseudo-random octets (RFC 4656)
    #[arg(long)]
    pub(super) zero_padding: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "IP header")]
pub(super) struct IpArgs {
    /// DSCP by name or number, see `twamp-blast dscptable`; for a controller also several, with a
    /// session for each [examples: ef, 46; default: 0]
    #[arg(
        long,
        value_name = "DSCP",
        conflicts_with = "tos",
        allow_negative_numbers = true,
        value_delimiter = ','
    )]
    pub(super) dscp: Vec<Dscp>,
    /// The whole TOS or Traffic Class octet, DSCP and ECN [examples: 184, 0xb8]
    #[arg(long, value_name = "OCTET", allow_negative_numbers = true)]
    pub(super) tos: Option<Tos>,
    /// TTL or Hop Limit; 255 lets hops be told
    #[arg(long, value_name = "N", default_value_t = 255, value_parser = parse_ttl, allow_negative_numbers = true)]
    pub(super) ttl: u8,
    /// Never fragment, here or on the way: what does not fit is not sent, or lost at a hop that says so
    #[arg(long)]
    pub(super) do_not_fragment: bool,
    /// Network interface to use; a link-local address is of its link [example: eth0]
    #[arg(long, value_name = "NAME", value_parser = parse_interface)]
    pub(super) interface: Option<String>,
    #[command(flatten)]
    pub(super) family: FamilyArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Search for the fastest rate")]
pub(super) struct FindArgs {
    /// Search the fastest rate without loss (RFC 2544 section 26.1), for each of --sizes or for the
    /// size given; --duration is the length of one trial, 2 s by default, where RFC 2544 section 24
    /// wants 60 s at least
    #[arg(
        long,
        conflicts_with_all = [
            "rate", "bandwidth", "interval", "count", "print_responses", "timestamps", "stats_interval", "hlog", "histogram",
        ]
    )]
    pub(super) find_rate: bool,
    /// With --find-rate: packets that may be lost, in percent, less than 100 [example: 0.001%;
    /// default: 0]
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true)]
    pub(super) loss: Option<Fraction>,
    /// With --find-rate: try no faster rate, in packets a second with k, M or G [example: 100k;
    /// default: no bound]
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    pub(super) max_rate: Option<Rate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ScheduleArg {
    Periodic,
    Poisson,
    Uniform,
    Flood,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum StatsArg {
    Brief,
    Normal,
    Full,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PacingArg {
    Auto,
    Spin,
    Sleep,
}

/// Opens the log, and refuses what cannot be had.
pub(super) fn check_sender(args: &SenderArgs) -> Result<(), Error> {
    check_log(&args.log, args.results.json)?;
    open_log(&args.log)?;
    check_host(&args.host)?;
    check_burst(args)?;
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

/// Refuses flags that only a search has.
pub(super) fn refuse_without_search(args: &SenderArgs) -> Result<(), Error> {
    let flags = [
        ("--loss", args.find.loss.is_some()),
        ("--max-rate", args.find.max_rate.is_some()),
        ("--sizes", args.sizes.sizes.is_some()),
    ];
    match flags.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(usage(format!(
            "{flag} is for --find-rate; add that, or leave it out"
        ))),
        None => Ok(()),
    }
}
