//! How this host is used: flags that senders, reflectors and servers share.

use clap::{Args, ValueEnum};

use super::error::{Error, usage};
use super::values::parse_busy_poll;
use crate::config::{CpuList, IoKind};
use crate::engine;
use crate::wire::Format;

#[derive(Debug, Args)]
#[command(next_help_heading = "Host")]
pub(super) struct HostArgs {
    /// CPUs for the packet threads [examples: 2,3 or 0-3; default: a sensible choice]
    #[arg(long, value_name = "LIST")]
    pub(super) cpu: Option<CpuList>,
    /// System calls: batches with kernel timestamps, or what every system has
    #[arg(long, value_enum, default_value_t = IoArg::Batched)]
    pub(super) io: IoArg,
    /// Timestamps of the network interface's clock, where it has one
    #[arg(long)]
    pub(super) hw_timestamps: bool,
    /// Let the kernel look for packets at the interface for so long before it waits for an interrupt;
    /// a bare number is microseconds; it takes CAP_NET_ADMIN [example: 50us]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = parse_busy_poll)]
    pub(super) busy_poll: Option<u32>,
    /// Format of the timestamps written (Z bit, RFC 8186)
    #[arg(long, value_enum, default_value_t = FormatArg::Ntp)]
    pub(super) timestamp_format: FormatArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum IoArg {
    Batched,
    Portable,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormatArg {
    Ntp,
    Ptp,
}

/// Refuses what this host or the chosen way of I/O does not have.
pub(super) fn check_host(args: &HostArgs) -> Result<(), Error> {
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

pub(super) fn io_kind(arg: IoArg) -> IoKind {
    match arg {
        IoArg::Batched => IoKind::Batched,
        IoArg::Portable => IoKind::Portable,
    }
}

pub(super) fn format(arg: FormatArg) -> Format {
    match arg {
        FormatArg::Ntp => Format::Ntp,
        FormatArg::Ptp => Format::Ptp,
    }
}
