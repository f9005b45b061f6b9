//! Socket options: what is asked for, and what is said where it is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use libc::{c_int, c_uint};
use socket2::Socket;

use super::calls::Calls;
use crate::io::StampKind;
use crate::io::host::interface_of;
use crate::io::socket::{SocketPlan, new_socket, note, note_refused, refused_option};
use crate::os;
use crate::report::note::{System, Without};
use crate::sys::{self, Queue, ReceiveBatch, SendBatch, SendFacts};

/// Socket option (Linux 5.11), which the libc crate does not have for every architecture.
const SO_PREFER_BUSY_POLL: c_int = 69;

/// A socket option by its name.
macro_rules! wanted {
    ($level:ident, $name:ident) => {
        $crate::io::linux::options::Wanted {
            level: libc::$level,
            name: libc::$name,
            text: stringify!($name),
        }
    };
}
pub(super) use wanted;

pub(super) fn bound(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// How `--do-not-fragment` is asked for, over IPv4 and IPv6. A sender's packets leave whatever the system
/// knows of the path, and come as far as they can: a run finds what the one before it found, and each time
/// the router says which MTU it has. A reflector counts those that it cannot send.
pub(super) const WHOLE_AS_FAR_AS_IT_GOES: (c_int, c_int) =
    (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE);
pub(super) const WHOLE_OR_NOT_AT_ALL: (c_int, c_int) =
    (libc::IP_PMTUDISC_DO, libc::IPV6_PMTUDISC_DO);

pub(super) fn set_fragmentation(
    socket: &Socket,
    plan: &SocketPlan,
    whole: (c_int, c_int),
    remarks: &mut Vec<System>,
) -> io::Result<()> {
    let (option, value) = match (plan.local.is_ipv4(), plan.do_not_fragment) {
        (true, true) => (wanted!(IPPROTO_IP, IP_MTU_DISCOVER), whole.0),
        (true, false) => {
            let option = wanted!(IPPROTO_IP, IP_MTU_DISCOVER);
            option.set_or(socket, libc::IP_PMTUDISC_DONT, Without::Fragments, remarks);
            return Ok(());
        }
        (false, true) => (wanted!(IPPROTO_IPV6, IPV6_MTU_DISCOVER), whole.1),
        (false, false) => return Ok(()),
    };
    option.try_set(socket, value)?;
    if plan.local.is_ipv6() {
        wanted!(IPPROTO_IPV6, IPV6_DONTFRAG).try_set(socket, 1)?;
    }
    Ok(())
}

/// Past the administrator's limit where that is permitted, else up to it.
pub(super) fn raise_buffers(socket: &Socket, octets: usize, remarks: &mut Vec<System>) {
    // The kernel doubles what it is given.
    let half = c_int::try_from(octets / 2).unwrap_or(c_int::MAX);
    for (force, plain, name) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, "SO_RCVBUF"),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, "SO_SNDBUF"),
    ] {
        let fd = socket.as_fd();
        if sys::set_option(fd, libc::SOL_SOCKET, force, half).is_err() {
            // A smaller buffer than asked for is found by reading the size back.
            if let Err(error) = sys::set_option(fd, libc::SOL_SOCKET, plain, half) {
                note_refused(name, &error, Without::Buffer, remarks);
            }
        }
    }
}

/// Who wants to know of the headers of what arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Sender,
    /// `any_address`: it listens on all of this host's.
    Reflector {
        any_address: bool,
    },
}

/// Asks for what the headers of datagrams say. Whether they will also carry the count of drops.
pub(super) fn ask_for_header_fields(
    socket: &Socket,
    v4: bool,
    asker: Asker,
    remarks: &mut Vec<System>,
) -> bool {
    let (ttl, tos, info) = if v4 {
        (
            wanted!(IPPROTO_IP, IP_RECVTTL),
            wanted!(IPPROTO_IP, IP_RECVTOS),
            wanted!(IPPROTO_IP, IP_PKTINFO),
        )
    } else {
        (
            wanted!(IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
            wanted!(IPPROTO_IPV6, IPV6_RECVTCLASS),
            wanted!(IPPROTO_IPV6, IPV6_RECVPKTINFO),
        )
    };
    let (no_ttl, no_tos) = match asker {
        Asker::Sender => (Without::TtlOfReplies, Without::TosOfReplies),
        Asker::Reflector { .. } => (Without::TtlOfRequests, Without::TosOfRequests),
    };
    ttl.set(socket, no_ttl, remarks);
    tos.set(socket, no_tos, remarks);
    // Carried by datagrams once there were drops; newer kernels also tell when asked.
    let tells_drops = sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    if asker == (Asker::Reflector { any_address: true }) {
        info.set(socket, Without::Destination, remarks);
    }
    tells_drops.is_ok()
}

/// A socket option that this program can do without.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) level: c_int,
    pub(super) name: c_int,
    pub(super) text: &'static str,
}

impl Wanted {
    fn set_to(self, socket: &Socket, value: c_int) -> io::Result<()> {
        sys::set_option(socket.as_fd(), self.level, self.name, value)
    }

    pub(super) fn try_set(self, socket: &Socket, value: c_int) -> io::Result<()> {
        let set = self.set_to(socket, value);
        set.map_err(|error| refused_option(self.text, &error))
    }

    /// Switches it on; where that is refused, remarks what follows.
    pub(super) fn set(self, socket: &Socket, without: Without, remarks: &mut Vec<System>) -> bool {
        self.set_or(socket, 1, without, remarks)
    }

    pub(super) fn set_or(
        self,
        socket: &Socket,
        value: c_int,
        without: Without,
        remarks: &mut Vec<System>,
    ) -> bool {
        let set = self.set_to(socket, value);
        if let Err(error) = &set {
            note_refused(self.text, error, without, remarks);
        }
        set.is_ok()
    }
}

pub(super) fn timestamping(socket: &Socket, flags: c_uint) -> io::Result<()> {
    let flags = c_int::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    sys::set_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_TIMESTAMPING,
        flags,
    )
}

/// Asks for receive timestamps: those of the interface where these are asked for and had, else the
/// kernel's, where it really gives them.
pub(super) fn receive_stamps(
    socket: &Socket,
    hardware: bool,
    remarks: &mut Vec<System>,
) -> StampKind {
    if hardware {
        let flags = libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE;
        match timestamping(socket, flags) {
            Ok(()) => return StampKind::Hardware,
            Err(error) => note_refused("SO_TIMESTAMPING", &error, Without::HardwareStamps, remarks),
        }
    }
    let error = match timestamping(socket, RECEIVE_STAMPS) {
        Ok(()) if gives_receive_stamps() => return StampKind::Kernel,
        Ok(()) => None,
        Err(error) => Some(error.to_string()),
    };
    note(remarks, System::NoReceiveStamps { error });
    StampKind::Userspace
}

/// What the kernel's timestamps of arrivals are asked for by.
const RECEIVE_STAMPS: c_uint = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;

/// Whether a datagram that arrives has the timestamp that was asked for: a sandbox may take the request
/// and do nothing. Found out once, before anything is measured, so that no figure has timestamps of two
/// kinds. Where it cannot be tried, since there is no loopback, they are believed in.
fn gives_receive_stamps() -> bool {
    /// The kernel begins to stamp a moment after the first socket asked.
    const TRIALS: usize = 20;
    const BETWEEN: Duration = Duration::from_millis(1);

    static GIVES: OnceLock<bool> = OnceLock::new();
    let attempt = || -> io::Result<bool> {
        let socket = new_socket(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        timestamping(&socket, RECEIVE_STAMPS)?;
        let to = bound(&socket)?;
        let mut batch = ReceiveBatch::for_heads(1);
        let mut calls = Calls::RECEIVING;
        for _ in 0..TRIALS {
            socket.send_to(&[0], &to.into())?;
            calls.receive(&mut batch, socket.as_fd(), Queue::Data)?;
            if batch.received(0).facts.stamp_ns.is_some() {
                return Ok(true);
            }
            os::rest(BETWEEN);
        }
        Ok(false)
    };
    *GIVES.get_or_init(|| attempt().unwrap_or(true))
}

/// Lets the kernel look for packets at the interface before it waits for an interrupt.
pub(super) fn busy_poll(socket: &Socket, plan: &SocketPlan, remarks: &mut Vec<System>) {
    let Some(us) = plan.busy_poll_us else {
        return;
    };
    let us = c_int::try_from(us).unwrap_or(c_int::MAX);
    let prefer = Wanted {
        level: libc::SOL_SOCKET,
        name: SO_PREFER_BUSY_POLL,
        text: "SO_PREFER_BUSY_POLL",
    };
    if wanted!(SOL_SOCKET, SO_BUSY_POLL).set_or(socket, us, Without::BusyPolling, remarks) {
        prefer.set(socket, Without::BusyPolling, remarks);
    }
}

/// Lets the kernel hand over packets that came together as one.
pub(super) fn take_bundles(socket: &Socket, remarks: &mut Vec<System>) {
    wanted!(SOL_UDP, UDP_GRO).set(socket, Without::Bundles, remarks);
}

pub(super) fn hardware_stamps(
    socket: &Socket,
    local: IpAddr,
    plan: &SocketPlan,
    remarks: &mut Vec<System>,
) -> bool {
    let interface = plan.interface.clone().or_else(|| interface_of(local));
    let enable = |interface: &String| sys::enable_hardware_stamps(socket.as_fd(), interface);
    let error = match interface.as_ref().map(enable) {
        Some(Ok(())) => return true,
        Some(Err(error)) => Some(error.to_string()),
        None => None,
    };
    remarks.push(System::NoHardwareStamps { interface, error });
    false
}

/// Whether this kernel lets a packet name its stamp (`SCM_TS_OPT_ID`, Linux 6.13 and later).
pub(super) fn takes_stamp_identity() -> bool {
    static TAKES: OnceLock<bool> = OnceLock::new();
    let attempt = || -> io::Result<()> {
        let socket = new_socket(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        timestamping(
            &socket,
            libc::SOF_TIMESTAMPING_SOFTWARE | libc::SOF_TIMESTAMPING_OPT_ID,
        )?;
        let facts = SendFacts {
            stamp_flags: libc::SOF_TIMESTAMPING_TX_SOFTWARE,
            with_id: true,
        };
        let mut batch = SendBatch::new(1, bound(&socket)?, &[0], facts);
        batch.set(0, 1, 1, Some(1));
        batch.send_singly(socket.as_fd(), 0).map(drop)
    };
    *TAKES.get_or_init(|| attempt().is_ok())
}
