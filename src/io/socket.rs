//! What sockets of both makes are opened with: the plan, an interface, options that every system has.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::report::note::{System, Without};

/// What a socket should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPlan {
    /// Address and port to bind; port 0 takes any.
    pub(crate) local: SocketAddr,
    /// TOS or Traffic Class octet of what is sent.
    pub(crate) tos: u8,
    /// TTL or Hop Limit of what is sent.
    pub(crate) ttl: u8,
    /// Never fragment, here or on the way.
    pub(crate) do_not_fragment: bool,
    /// Interface to bind to.
    pub(crate) interface: Option<String>,
    /// Socket buffer to ask for, in octets as the kernel counts them.
    pub(crate) buffer: usize,
    /// Ask for timestamps of the interface's own clock.
    pub(crate) hardware: bool,
    pub(crate) busy_poll_us: Option<u32>,
    /// Packets may leave as trains and be taken as bundles, which share their timestamps.
    pub(crate) bundles: bool,
}

pub(super) fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(addr);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        let set = socket.set_only_v6(true);
        set.map_err(|error| refused_option("IPV6_V6ONLY", &error))?;
    }
    Ok(socket)
}

pub(super) fn bind_interface(socket: &Socket, interface: Option<&str>) -> io::Result<()> {
    let Some(name) = interface else {
        return Ok(());
    };
    #[cfg(target_os = "linux")]
    {
        bind_device(socket, name)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, name);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Binds a socket to an interface; the error says what was refused and what for.
///
/// # Errors
/// The system's: no such interface, no permission.
#[cfg(target_os = "linux")]
pub(crate) fn bind_device(socket: &Socket, interface: &str) -> io::Result<()> {
    let Err(error) = socket.bind_device(Some(interface.as_bytes())) else {
        return Ok(());
    };
    if error.raw_os_error() == Some(libc::ENODEV) {
        return Err(error);
    }
    let what = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "--interface needs it, and it may need CAP_NET_RAW; leave the interface out, or grant that"
        }
        _ => "--interface needs it; leave the interface out, and name the local address",
    };
    Err(needed("SO_BINDTODEVICE", &error, what))
}

/// The error of an option without which there is nothing to be had, and what it is for.
pub(crate) fn needed(name: &str, error: &io::Error, what: &str) -> io::Error {
    let refused = refused_option(name, error);
    io::Error::new(error.kind(), format!("{refused}: {what}"))
}

/// Notes what there is not where an option was refused.
pub(super) fn note_refused(
    option: &'static str,
    refused: &io::Error,
    without: Without,
    remarks: &mut Vec<System>,
) {
    let error = reason(refused);
    note(
        remarks,
        System::OptionRefused {
            option,
            error,
            without,
        },
    );
}

/// Options that every system has; returns whether packets leave with the TTL of the plan.
///
/// # Errors
/// The system's, where it refuses what was asked for and is not what it does anyway.
pub(super) fn set_plain_options(
    socket: &Socket,
    plan: &SocketPlan,
    remarks: &mut Vec<System>,
) -> io::Result<bool> {
    let (ttl, tos) = (u32::from(plan.ttl), u32::from(plan.tos));
    let v4 = plan.local.is_ipv4();
    let (name, result) = if v4 {
        ("IP_TTL", socket.set_ttl_v4(ttl))
    } else {
        ("IPV6_UNICAST_HOPS", socket.set_unicast_hops_v6(ttl))
    };
    let has_ttl = match result {
        Ok(()) => true,
        // The usual one is for counting hops; any other was asked for, and packets must not go further.
        Err(error) if plan.ttl == 255 => {
            note_refused(name, &error, Without::Ttl, remarks);
            false
        }
        Err(error) => return Err(refused_option(name, &error)),
    };
    #[cfg(target_os = "linux")]
    let (name, result) = if v4 {
        ("IP_TOS", socket.set_tos_v4(tos))
    } else {
        ("IPV6_TCLASS", socket.set_tclass_v6(tos))
    };
    #[cfg(not(target_os = "linux"))]
    let (name, result) = if v4 {
        ("IP_TOS", socket.set_tos_v4(tos))
    } else {
        ("IPV6_TCLASS", Err(io::ErrorKind::Unsupported.into()))
    };
    match result {
        // Without it packets have 0.
        Err(error) if tos != 0 => Err(refused_option(name, &error)),
        _ => Ok(has_ttl),
    }
}

/// The error of a socket option, with the option's name.
pub(super) fn refused_option(name: &str, error: &io::Error) -> io::Error {
    let why = reason(error);
    io::Error::new(error.kind(), format!("this system refuses {name} ({why})"))
}

/// An error in words.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Notes a remark, once.
pub(super) fn note(remarks: &mut Vec<System>, remark: System) {
    if !remarks.contains(&remark) {
        remarks.push(remark);
    }
}
