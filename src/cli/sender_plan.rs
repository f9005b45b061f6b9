//! What a sender's flags mean: a session, and the reflector inside this process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::RngExt;

use super::address::local;
use super::error::{Error, usage};
use super::host::{format, io_kind};
use super::sender_args::{LoadArgs, PacingArg, ScheduleArg, SenderArgs};
use super::sizes::{Room, sizes};
use crate::config::{
    Bandwidth, CpuList, Departures, End, Family, Fraction, Pacing, Rate, ReflectorConfig, Seconds,
    SessionConfig, Sizes, SocketOptions, Tos, WatchConfig,
};

/// Packets of a run with neither rate, nor count, nor duration.
const DEFAULT_COUNT: u64 = 100;
/// Length of a run at a rate, in nanoseconds.
const DEFAULT_DURATION_NS: u64 = 10_000_000_000;
/// The shortest `--stats-interval`.
const LEAST_INTERVAL_NS: u64 = 100_000_000;
/// How far the gaps of `--schedule uniform` differ from their mean.
const DEFAULT_SPREAD: f64 = 0.5;
/// How long a reply may take, in nanoseconds.
const DEFAULT_TIMEOUT_NS: u64 = 5_000_000_000;
/// The same in a trial of `--find-rate` (RFC 2544 §23).
const TRIAL_TIMEOUT_NS: u64 = 2_000_000_000;

/// The largest value of `--packet-timeout`: the delay statistics reach this far.
const MAX_TIMEOUT_NS: u64 = 3_600_000_000_000;

/// The reflector that a sender without REMOTE measures.
pub(super) fn inside_reflector(args: &SenderArgs) -> Result<ReflectorConfig, Error> {
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
        allow: allow.parse().into_iter().collect(),
        session_timeout_ns: 0,
        format: format(args.host.timestamp_format),
        socket: SocketOptions {
            io: io_kind(args.host.io),
            ..SocketOptions::default()
        },
        threads: usize::from(args.load.threads),
        cpus,
        ..ReflectorConfig::new(SocketAddr::new(loopback, 0))
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
            interval.map_or(Rate::TEN_A_SECOND, Rate::from)
        }
    };
    let departures = match args.schedule {
        ScheduleArg::Poisson => Departures::Poisson(rate),
        ScheduleArg::Uniform => Departures::Uniform { rate, spread },
        ScheduleArg::Periodic | ScheduleArg::Flood => Departures::Periodic(rate),
    };
    Ok((departures, end))
}

pub(super) fn session(
    args: &SenderArgs,
    remote: SocketAddr,
    room: &Room,
) -> Result<SessionConfig, Error> {
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
        first_seq: args.load.first_seq,
        zero_padding: args.load.zero_padding,
        probes: !args.no_probe,
        watch: WatchConfig {
            happenings: args.print_responses || args.log.verbose || args.log.debug,
            interval_ns,
            packets: args.log.debug,
        },
        ..SessionConfig::new(local, remote)
    })
}
