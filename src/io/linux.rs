//! The Linux make: `recvmmsg` and `sendmmsg`, kernel timestamps both ways, control messages.
//!
//! A session has two sockets on one port. The one that sends is not connected, the one that
//! receives is, so that the replies of the peer go there. Transmit stamps wait in the error queue of
//! the sending socket; on a single socket they would share the receive buffer with the replies, and
//! stamps that nobody has fetched yet would read as lost packets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::DerefMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libc::{c_int, c_uint};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use super::host::interface_of;
use super::socket::{
    SocketPlan, bind_interface, needed, new_socket, note, note_buffer, refused_option,
    set_plain_options,
};
use super::trouble::{RefusedCall, refused_call};
use super::{
    BATCH, Datagram, Event, Granted, Icmp, IcmpMessage, MOST_BEFORE, Request, Route, StampKind,
};
use crate::os;
use crate::sys::{self, Call, Queue, ReceiveBatch, ReplyFacts, SendBatch, SendFacts};

/// Transmit stamps under way that can be told apart where the kernel does not take an identity.
const STAMP_IDS: usize = 1 << 16;
/// Entries of the error queue taken by one call.
const EVENTS: usize = 64;

/// Socket option (Linux 5.11), which the libc crate does not have for every architecture.
const SO_PREFER_BUSY_POLL: c_int = 69;

const ORIGIN_ICMP: u8 = libc::SO_EE_ORIGIN_ICMP;
const ORIGIN_ICMP6: u8 = libc::SO_EE_ORIGIN_ICMP6;
const EMSGSIZE: u32 = libc::EMSGSIZE.unsigned_abs();
const ORIGIN_TIMESTAMPING: u8 = libc::SO_EE_ORIGIN_TIMESTAMPING;
/// A socket option by its name.
macro_rules! wanted {
    ($level:ident, $name:ident) => {
        Wanted {
            level: libc::$level,
            name: libc::$name,
            text: stringify!($name),
        }
    };
}

/// How packets are moved one way: many a call, or, where this system refuses that, one a call.
#[derive(Debug)]
struct Calls {
    many: Call,
    one: Call,
    /// Why it is one.
    refused: Option<RefusedCall>,
}

impl Calls {
    const RECEIVING: Self = Self {
        many: Call::Recvmmsg,
        one: Call::Recvmsg,
        refused: None,
    };
    const SENDING: Self = Self {
        many: Call::Sendmmsg,
        one: Call::Sendmsg,
        refused: None,
    };

    /// Moves packets of a batch.
    ///
    /// # Errors
    /// The system's; a [`RefusedCall`] where there is no call left to do it by.
    #[inline]
    fn make<B>(
        &mut self,
        batch: &mut B,
        many: impl FnOnce(&mut B) -> io::Result<usize>,
        one: impl FnOnce(&mut B) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.refused.is_none() {
            match many(batch) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock && self.fall_back() => {}
                result => return result,
            }
        }
        one(batch).map_err(|error| named(error, self.one))
    }

    /// Takes what waits in a queue of a socket.
    #[inline]
    fn receive(
        &mut self,
        batch: &mut ReceiveBatch,
        fd: BorrowedFd<'_>,
        queue: Queue,
    ) -> io::Result<usize> {
        self.make(
            batch,
            |batch| batch.receive(fd, queue),
            |batch| batch.receive_singly(fd, queue),
        )
    }

    /// The one that is made now.
    fn name(&self) -> &'static str {
        match self.refused {
            None => self.many.name(),
            Some(_) => self.one.name(),
        }
    }

    /// Whether it was the call that failed, and not what it was to do.
    #[cold]
    fn fall_back(&mut self) -> bool {
        self.refused = refused(self.many);
        self.refused.is_some()
    }
}

fn refused(call: Call) -> Option<RefusedCall> {
    let errno = sys::refuses(call)?;
    let call = call.name();
    Some(RefusedCall { call, errno })
}

/// The error of a call, which says so where it is the call that is refused.
#[cold]
fn named(error: io::Error, call: Call) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return error;
    }
    refused(call).map_or(error, Into::into)
}

/// The two sockets of a session, bound but towards nobody yet.
#[derive(Debug)]
pub(crate) struct OpenSession {
    tx: Socket,
    rx: Socket,
    facts: SendFacts,
    receive: StampKind,
    tells_drops: bool,
    granted: Granted,
}

/// Opens the two sockets of a session.
///
/// # Errors
/// The system's: address in use, no permission.
pub(crate) fn open_session(plan: &SocketPlan) -> io::Result<OpenSession> {
    let mut remarks = Vec::new();
    let tx = new_socket(plan.local)?;
    bind_interface(&tx, plan.interface.as_deref())?;
    // A plain bind first: with SO_REUSEPORT already set, a port in use would be no error.
    tx.bind(&plan.local.into())?;
    let needs = "a session has two sockets on one port; --io portable has one";
    let share = |socket: &Socket| {
        let set = socket.set_reuse_port(true);
        set.map_err(|error| needed("SO_REUSEPORT", &error, needs))
    };
    share(&tx)?;
    let local = bound(&tx)?;

    let rx = new_socket(plan.local)?;
    bind_interface(&rx, plan.interface.as_deref())?;
    share(&rx)?;
    rx.bind(&local.into())?;
    // No third one: a program of the same user that lets the system choose a port could get this one, and
    // what is sent to that program would come here.
    for socket in [&tx, &rx] {
        let set = socket.set_reuse_port(false);
        set.map_err(|error| needed("SO_REUSEPORT", &error, needs))?;
    }

    let mut ttl = true;
    for socket in [&tx, &rx] {
        ttl = set_plain_options(socket, plan, &mut remarks)?;
        set_fragmentation(socket, plan, WHOLE_AS_FAR_AS_IT_GOES, &mut remarks)?;
        raise_buffers(socket, plan.buffer, &mut remarks);
    }
    let hardware = plan.hardware && hardware_stamps(&tx, local.ip(), plan, &mut remarks);

    // Without it the kernel tells a connected socket of some ICMP errors only, and a sending one
    // takes for sent what this host's own queueing discipline dropped.
    let recverr = if plan.local.is_ipv4() {
        wanted!(IPPROTO_IP, IP_RECVERR)
    } else {
        wanted!(IPPROTO_IPV6, IPV6_RECVERR)
    };
    let what = "ICMP errors are not counted, and what this host's own queue drops counts as lost";
    let icmp = recverr.set(&rx, what, &mut remarks) && recverr.set(&tx, what, &mut remarks);
    let tells_drops = ask_for_header_fields(&rx, plan.local.is_ipv4(), Asker::Sender, &mut remarks);
    let receive = receive_stamps(&rx, hardware, &mut remarks);
    // Departures and arrivals are of one clock.
    let hardware = receive == StampKind::Hardware;
    busy_poll(&rx, plan, &mut remarks);
    if plan.bundles {
        take_bundles(&rx, &mut remarks);
    }

    let (kind, tx_flag, report) = if hardware {
        let flags = libc::SOF_TIMESTAMPING_RAW_HARDWARE;
        (
            StampKind::Hardware,
            libc::SOF_TIMESTAMPING_TX_HARDWARE,
            flags,
        )
    } else {
        let flags = libc::SOF_TIMESTAMPING_SOFTWARE;
        (StampKind::Kernel, libc::SOF_TIMESTAMPING_TX_SOFTWARE, flags)
    };
    let flags = report | libc::SOF_TIMESTAMPING_OPT_ID | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    let transmit = match timestamping(&tx, flags) {
        Ok(()) => Some(kind),
        Err(error) => {
            let error = refused_option("SO_TIMESTAMPING", &error);
            let what = "there are no transmit timestamps of the kernel";
            remarks.push(format!("{error}: {what}"));
            None
        }
    };

    let granted = Granted {
        local,
        receive,
        transmit,
        ttl,
        icmp,
        receive_buffer: rx.recv_buffer_size().ok(),
        remarks,
        next_hop: None,
    };
    Ok(OpenSession {
        tx,
        rx,
        facts: SendFacts {
            stamp_flags: tx_flag,
            with_id: takes_stamp_identity(),
        },
        receive,
        tells_drops,
        granted,
    })
}

impl OpenSession {
    /// What the system granted.
    pub(crate) fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Makes `remote` the peer. What came before, from whomever, is dropped.
    ///
    /// # Errors
    /// The system's, such as no route.
    pub(crate) fn connect(
        self,
        remote: SocketAddr,
    ) -> io::Result<(SendSocket, ReceiveSocket, Granted)> {
        self.rx.connect(&remote.into())?;
        // Nobody was asked anything yet.
        drop_waiting(&self.rx);
        drop_waiting(&self.tx);
        let identity = if self.facts.with_id {
            Identity::Given
        } else {
            let ids = (0..STAMP_IDS).map(|_| AtomicU32::new(0)).collect();
            Identity::Counted(ids)
        };
        let tx = Arc::new(self.tx);
        let send = SendSocket {
            socket: Arc::clone(&tx),
            to: remote,
            facts: self.facts,
            identity: identity.clone(),
        };
        let receive = ReceiveSocket {
            data: self.rx,
            stamps: tx,
            identity,
            receive: self.receive,
            tells_drops: self.tells_drops,
        };
        Ok((send, receive, self.granted))
    }
}

/// Takes what waits in a socket. Whoever sends without end is not waited for.
fn drop_waiting(socket: &Socket) {
    let mut batch = ReceiveBatch::for_heads(BATCH);
    let mut calls = Calls::RECEIVING;
    for _ in 0..MOST_BEFORE / BATCH {
        match calls.receive(&mut batch, socket.as_fd(), Queue::Data) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if refused_call(&error).is_some() => return,
            // An error of the socket that was pending is taken by the call.
            _ => {}
        }
    }
}

/// Opens the sockets of a reflector on one address, one for each thread.
///
/// # Errors
/// The system's: address in use, no permission.
pub(crate) fn open_mirrors(
    plan: &SocketPlan,
    threads: usize,
) -> io::Result<(Vec<MirrorSocket>, Granted)> {
    let mut remarks = Vec::new();
    let mut sockets = Vec::with_capacity(threads);
    let mut local = plan.local;
    let mut receive = StampKind::Userspace;
    let mut receive_buffer = None;
    let share = |socket: &Socket| {
        let needs = "threads of a reflector share its port; --threads 1 does without";
        let set = socket.set_reuse_port(true);
        set.map_err(|error| needed("SO_REUSEPORT", &error, needs))
    };
    for index in 0..threads.max(1) {
        let socket = new_socket(plan.local)?;
        bind_interface(&socket, plan.interface.as_deref())?;
        if index == 0 {
            // A plain bind first: with SO_REUSEPORT already set, a port in use would be no error.
            socket.bind(&plan.local.into())?;
            local = bound(&socket)?;
            if threads > 1 {
                // Not otherwise: any program of this user could then share the port, and traffic.
                share(&socket)?;
            }
        } else {
            share(&socket)?;
            socket.bind(&local.into())?;
        }
        set_plain_options(&socket, plan, &mut remarks)?;
        set_fragmentation(&socket, plan, WHOLE_OR_NOT_AT_ALL, &mut remarks)?;
        raise_buffers(&socket, plan.buffer, &mut remarks);
        let any_address = plan.local.ip().is_unspecified();
        let asker = Asker::Reflector { any_address };
        let tells_drops = ask_for_header_fields(&socket, plan.local.is_ipv4(), asker, &mut remarks);
        receive = receive_stamps(&socket, false, &mut remarks);
        busy_poll(&socket, plan, &mut remarks);
        if plan.bundles {
            take_bundles(&socket, &mut remarks);
        }
        receive_buffer = socket.recv_buffer_size().ok();
        sockets.push(MirrorSocket {
            socket,
            address: (!any_address).then_some(local.ip()),
            tos: plan.tos,
            stamped: receive != StampKind::Userspace,
            receiving: Calls::RECEIVING,
            sending: Calls::SENDING,
            drops: tells_drops.then_some(0),
        });
    }
    if plan.hardware {
        remarks.push(
            "no hardware timestamps of a reflector: T3 is of the system's clock, and T2 must be of \
             the same"
                .to_owned(),
        );
    }
    let granted = Granted {
        local,
        receive,
        transmit: None,
        ttl: true,
        icmp: true,
        receive_buffer,
        remarks,
        next_hop: None,
    };
    Ok((sockets, granted))
}

fn bound(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// How `--do-not-fragment` is asked for, over IPv4 and IPv6. A sender's packets leave whatever the system
/// knows of the path, and come as far as they can: a run finds what the one before it found, and each time
/// the router says which MTU it has. A reflector counts those that it cannot send.
const WHOLE_AS_FAR_AS_IT_GOES: (c_int, c_int) =
    (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE);
const WHOLE_OR_NOT_AT_ALL: (c_int, c_int) = (libc::IP_PMTUDISC_DO, libc::IPV6_PMTUDISC_DO);

fn set_fragmentation(
    socket: &Socket,
    plan: &SocketPlan,
    whole: (c_int, c_int),
    remarks: &mut Vec<String>,
) -> io::Result<()> {
    let (option, value) = match (plan.local.is_ipv4(), plan.do_not_fragment) {
        (true, true) => (wanted!(IPPROTO_IP, IP_MTU_DISCOVER), whole.0),
        (true, false) => {
            let option = wanted!(IPPROTO_IP, IP_MTU_DISCOVER);
            if let Err(error) = option.try_set(socket, libc::IP_PMTUDISC_DONT) {
                let what = "packets may leave with Don't Fragment, as this system has it";
                note(remarks, format!("{error}: {what}"));
            }
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
fn raise_buffers(socket: &Socket, octets: usize, remarks: &mut Vec<String>) {
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
                note_buffer(name, &error, remarks);
            }
        }
    }
}

/// Who wants to know of the headers of what arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Sender,
    /// `any_address`: it listens on all of this host's.
    Reflector {
        any_address: bool,
    },
}

/// Asks for what the headers of datagrams say. Whether they will also carry the count of drops.
fn ask_for_header_fields(
    socket: &Socket,
    v4: bool,
    asker: Asker,
    remarks: &mut Vec<String>,
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
        Asker::Sender => (
            "the TTL of replies, and so hops inbound, are not known",
            "the DSCP and ECN of replies are not known",
        ),
        Asker::Reflector { .. } => (
            "replies tell no TTL (255)",
            "replies do not have the DSCP of their requests",
        ),
    };
    ttl.set(socket, no_ttl, remarks);
    tos.set(socket, no_tos, remarks);
    // Carried by datagrams once there were drops; newer kernels also tell when asked.
    let tells_drops = sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    if asker == (Asker::Reflector { any_address: true }) {
        let what = "replies leave from the address that routes choose, which need not be the one asked, \
                    and requests to a broadcast or multicast address are answered like all others; name \
                    an address to listen on";
        info.set(socket, what, remarks);
    }
    tells_drops.is_ok()
}

/// A socket option that this program can do without.
#[derive(Clone, Copy)]
struct Wanted {
    level: c_int,
    name: c_int,
    text: &'static str,
}

impl Wanted {
    fn try_set(self, socket: &Socket, value: c_int) -> io::Result<()> {
        let set = sys::set_option(socket.as_fd(), self.level, self.name, value);
        set.map_err(|error| refused_option(self.text, &error))
    }

    /// Switches it on; where that is refused, remarks what follows.
    fn set(self, socket: &Socket, what: &str, remarks: &mut Vec<String>) -> bool {
        let set = self.try_set(socket, 1);
        if let Err(error) = &set {
            note(remarks, format!("{error}: {what}"));
        }
        set.is_ok()
    }
}

fn timestamping(socket: &Socket, flags: c_uint) -> io::Result<()> {
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
fn receive_stamps(socket: &Socket, hardware: bool, remarks: &mut Vec<String>) -> StampKind {
    if hardware {
        let flags = libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE;
        match timestamping(socket, flags) {
            Ok(()) => return StampKind::Hardware,
            Err(error) => note(
                remarks,
                format!(
                    "{}: there are no receive timestamps of the interface",
                    refused_option("SO_TIMESTAMPING", &error)
                ),
            ),
        }
    }
    let why = match timestamping(socket, RECEIVE_STAMPS) {
        Ok(()) if gives_receive_stamps() => return StampKind::Kernel,
        Ok(()) => "it was asked for them (SO_TIMESTAMPING) and gives none".to_owned(),
        Err(error) => format!("SO_TIMESTAMPING: {error}"),
    };
    note(
        remarks,
        format!(
            "no receive timestamps of the kernel ({why}): they are read by this program, after the call \
             that receives"
        ),
    );
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
            std::thread::sleep(BETWEEN);
        }
        Ok(false)
    };
    *GIVES.get_or_init(|| attempt().unwrap_or(true))
}

/// Lets the kernel look for packets at the interface before it waits for an interrupt.
fn busy_poll(socket: &Socket, plan: &SocketPlan, remarks: &mut Vec<String>) {
    let Some(us) = plan.busy_poll_us else {
        return;
    };
    let us = c_int::try_from(us).unwrap_or(c_int::MAX);
    let set = |name, text, value| {
        let set = sys::set_option(socket.as_fd(), libc::SOL_SOCKET, name, value);
        set.map_err(|error| refused_option(text, &error))
    };
    let done = set(libc::SO_BUSY_POLL, "SO_BUSY_POLL", us)
        .and_then(|()| set(SO_PREFER_BUSY_POLL, "SO_PREFER_BUSY_POLL", 1));
    if let Err(error) = done {
        let what = "there is no busy polling, which takes CAP_NET_ADMIN and Linux 5.11";
        note(remarks, format!("{error}: {what}"));
    }
}

/// Lets the kernel hand over packets that came together as one.
fn take_bundles(socket: &Socket, remarks: &mut Vec<String>) {
    if let Err(error) = sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1) {
        let error = refused_option("UDP_GRO", &error);
        note(remarks, format!("{error}: packets are taken one by one"));
    }
}

fn hardware_stamps(
    socket: &Socket,
    local: IpAddr,
    plan: &SocketPlan,
    remarks: &mut Vec<String>,
) -> bool {
    let interface = plan.interface.clone().or_else(|| interface_of(local));
    let Some(interface) = interface else {
        remarks.push(
            "no hardware timestamps: name the interface with --interface; \
             timestamps of the kernel are used"
                .to_owned(),
        );
        return false;
    };
    match sys::enable_hardware_stamps(socket.as_fd(), &interface) {
        Ok(()) => true,
        Err(error) => {
            remarks.push(format!(
                "no hardware timestamps on {interface}: {error}; timestamps of the kernel are used"
            ));
            false
        }
    }
}

/// Whether this kernel lets a packet name its stamp (`SCM_TS_OPT_ID`, Linux 6.13 and later).
fn takes_stamp_identity() -> bool {
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

/// How a transmit stamp finds its packet.
#[derive(Clone, Debug)]
enum Identity {
    /// The packet carries it.
    Given,
    /// The kernel counts the packets that asked: sequence numbers by that count.
    Counted(Arc<[AtomicU32]>),
}

fn place(ids: &[AtomicU32], id: u32) -> &AtomicU32 {
    &ids[usize::try_from(id).unwrap_or(0) % STAMP_IDS]
}

/// The sending socket, before its thread has started.
#[derive(Debug)]
pub(crate) struct SendSocket {
    socket: Arc<Socket>,
    to: SocketAddr,
    facts: SendFacts,
    identity: Identity,
}

impl SendSocket {
    /// Allocates the batch, each place with these octets; to be called on the thread that sends.
    pub(crate) fn start(self, octets: &[u8], places: usize) -> SendHalf {
        let places = places.min(BATCH);
        SendHalf {
            batch: SendBatch::new(places, self.to, octets, self.facts),
            places,
            socket: self.socket,
            calls: Calls::SENDING,
            identity: self.identity,
            stamped: [false; BATCH],
            next_id: 0,
        }
    }
}

/// See [`super::SendHalf`].
pub(crate) struct SendHalf {
    batch: SendBatch,
    places: usize,
    socket: Arc<Socket>,
    calls: Calls,
    identity: Identity,
    /// Which places of the batch ask for a stamp.
    stamped: [bool; BATCH],
    /// The identity that the kernel gives to the next packet that asks, where it counts.
    next_id: u32,
}

impl super::SendHalf for SendHalf {
    fn places(&self) -> usize {
        self.places
    }

    fn set(&mut self, index: usize, payload: usize, count: usize, stamp: Option<u32>) -> &mut [u8] {
        self.stamped[index] = stamp.is_some();
        if let (Identity::Counted(ids), Some(seq)) = (&self.identity, stamp) {
            let ahead = self.stamped[..index].iter().filter(|s| **s).count();
            let id = self.next_id.wrapping_add(u32::try_from(ahead).unwrap_or(0));
            place(ids, id).store(seq, Ordering::Release);
        }
        self.batch.set(index, payload, count, stamp)
    }

    fn send(&mut self, from: usize, to: usize) -> io::Result<usize> {
        let fd = self.socket.as_fd();
        let result = self.calls.make(
            &mut self.batch,
            |batch| batch.send(fd, from, to),
            |batch| batch.send_singly(fd, from),
        );
        // A packet that is refused takes an identity only if it got as far as the interface's queue.
        let (given, gone) = match &result {
            Ok(sent) => (*sent, *sent),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => (1, 1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, 0),
            Err(_) => (0, 1),
        };
        for (place, stamped) in self.stamped[from..from + gone].iter_mut().enumerate() {
            self.next_id = self
                .next_id
                .wrapping_add(u32::from(*stamped && place < given));
            *stamped = false;
        }
        result
    }

    fn send_call(&self) -> &'static str {
        self.calls.name()
    }

    fn refused_call(&self) -> Option<RefusedCall> {
        self.calls.refused
    }
}

/// The receiving socket, before its thread has started.
#[derive(Debug)]
pub(crate) struct ReceiveSocket {
    data: Socket,
    stamps: Arc<Socket>,
    identity: Identity,
    receive: StampKind,
    /// Datagrams carry the count of drops.
    tells_drops: bool,
}

impl ReceiveSocket {
    /// Allocates the batches; to be called on the thread that receives.
    pub(crate) fn start(self) -> ReceiveHalf {
        ReceiveHalf {
            batch: ReceiveBatch::of_peer(BATCH),
            errors: ReceiveBatch::for_heads(EVENTS),
            calls: Calls::RECEIVING,
            drops: self.tells_drops.then_some(0),
            sockets: self,
        }
    }
}

/// See [`super::ReceiveHalf`].
pub(crate) struct ReceiveHalf {
    batch: ReceiveBatch,
    errors: ReceiveBatch,
    calls: Calls,
    /// The highest count of drops that a datagram carried; `None` where none would.
    drops: Option<u32>,
    sockets: ReceiveSocket,
}

impl ReceiveHalf {
    /// Shows what is in the first `count` slots of the batch.
    pub(crate) fn show(&mut self, count: usize, mut f: impl FnMut(Datagram<'_>)) {
        let receive = self.sockets.receive;
        let own = (receive == StampKind::Userspace).then(os::realtime_ns);
        for index in 0..count {
            let received = self.batch.received(index);
            if let Some(drops) = received.facts.drops {
                self.drops = Some(drops);
            }
            let facts = &received.facts;
            f(Datagram {
                octets: &received.slot[..received.len],
                segment: facts
                    .segment
                    .filter(|octets| *octets > 0 && *octets < received.len),
                truncated: received.truncated,
                facts_cut: received.control_truncated,
                arrived_ns: own.or_else(|| stamp(receive, facts)),
                ttl: facts.ttl,
                tos: facts.tos,
            });
        }
    }

    /// Fills slots of the batch with what waits, and returns how many.
    ///
    /// # Errors
    /// Those of [`super::ReceiveHalf::recv`].
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        self.batch.fit_cache();
        let fd = self.sockets.data.as_fd();
        self.calls.receive(&mut self.batch, fd, Queue::Data)
    }

    /// As [`fill`](Self::fill), of what comes beside the replies.
    fn fill_errors(&mut self, socket: Beside, queue: Queue) -> usize {
        let fd = match socket {
            Beside::Data => self.sockets.data.as_fd(),
            Beside::Stamps => self.sockets.stamps.as_fd(),
        };
        // An error is of the replies' socket, too, and found there.
        let filled = self.calls.receive(&mut self.errors, fd, queue);
        filled.unwrap_or(0)
    }
}

/// A socket of which more is read than replies.
#[derive(Clone, Copy)]
enum Beside {
    Data,
    Stamps,
}

impl super::ReceiveHalf for ReceiveHalf {
    fn recv(&mut self, f: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        let count = self.fill()?;
        self.show(count, f);
        Ok(count)
    }

    fn receive_call(&self) -> &'static str {
        self.calls.name()
    }

    fn events(&mut self, mut f: impl FnMut(Event<'_>)) -> usize {
        let mut total = 0;
        // Errors of the replies' socket: ICMP.
        let count = self.fill_errors(Beside::Data, Queue::Error);
        for index in 0..count {
            let error = self.errors.received(index).facts.error;
            if let Some(icmp) = error.and_then(|error| icmp(&error)) {
                f(Event::Icmp(icmp));
            }
        }
        total += count;
        // Errors of the sending socket: transmit stamps.
        let count = self.fill_errors(Beside::Stamps, Queue::Error);
        for index in 0..count {
            let facts = self.errors.received(index).facts;
            let ns = stamp(self.sockets.receive, &facts);
            if let (Some(error), Some(ns)) = (facts.error, ns)
                && error.origin == ORIGIN_TIMESTAMPING
            {
                let seq = match &self.sockets.identity {
                    Identity::Given => error.data,
                    Identity::Counted(ids) => place(ids, error.data).load(Ordering::Acquire),
                };
                f(Event::Departed { seq, ns });
            }
        }
        total += count;
        // Data on the sending socket: not of the peer, or it would have gone to the other one. Left
        // there it would fill the buffer that the stamps need.
        let count = self.fill_errors(Beside::Stamps, Queue::Data);
        for index in 0..count {
            let stray = self.errors.received(index);
            f(Event::Stray {
                octets: &stray.slot[..stray.len],
                from: stray.from,
            });
        }
        total + count
    }

    fn take_bundles(&mut self) {
        // Without them packets come one by one, which is slower and no less true.
        take_bundles(&self.sockets.data, &mut Vec::new());
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Replies, and the ICMP errors of this socket's error queue. Not the other socket: its
        // stamps are fetched when a reply comes, or at the next tick. Waking for each of them would
        // happen inside the very call that sends, between T1 and the packet's departure: measured, it
        // made the delay of a packet twice as long.
        let fd = self.sockets.data.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    fn deregister(&mut self, registry: &Registry) {
        let fd = self.sockets.data.as_raw_fd();
        // The system does the same when the socket is closed.
        let _ = registry.deregister(&mut SourceFd(&fd));
    }

    fn kernel_drops(&self) -> Option<u64> {
        drops(self.sockets.data.as_fd(), self.drops)
    }

    fn refused_call(&self) -> Option<RefusedCall> {
        self.calls.refused
    }
}

/// The ICMP message of an entry of the error queue.
fn icmp(error: &sys::QueuedError) -> Option<Icmp> {
    let (kind, code) = (error.kind, error.code);
    let message = match error.origin {
        ORIGIN_ICMP => IcmpMessage::V4 { kind, code },
        ORIGIN_ICMP6 => IcmpMessage::V6 { kind, code },
        _ => return None,
    };
    Some(Icmp {
        message,
        from: error.offender,
        // Of other errors it is something else, such as the place of a wrong parameter.
        mtu: Some(error.info).filter(|mtu| error.errno == EMSGSIZE && *mtu > 0),
    })
}

/// What the socket says now, or, on an older kernel, what the last datagram carried.
fn drops(fd: BorrowedFd<'_>, carried: Option<u32>) -> Option<u64> {
    sys::socket_drops(fd).or(carried).map(u64::from)
}

/// A timestamp by the interface's clock where arrivals are stamped by that, else by the system's.
fn stamp(receive: StampKind, facts: &sys::Facts) -> Option<i64> {
    match receive {
        StampKind::Hardware => facts.hardware_ns,
        StampKind::Kernel | StampKind::Userspace => facts.stamp_ns,
    }
}

/// A reflector's socket, before its thread has started, or without the memory of a batch.
#[derive(Debug)]
pub(crate) struct MirrorSocket {
    socket: Socket,
    /// The one address that is asked; `None`: the packet information tells.
    address: Option<IpAddr>,
    tos: u8,
    /// The kernel stamps arrivals.
    stamped: bool,
    receiving: Calls,
    sending: Calls,
    /// The highest count of drops that a datagram carried; `None` where none would.
    drops: Option<u32>,
}

impl MirrorSocket {
    /// Sends one reply from memory of the caller's.
    fn reply(&self, octets: &[u8], to: SocketAddr, facts: ReplyFacts) -> io::Result<()> {
        let sent = sys::send_reply(self.socket.as_fd(), octets, to, facts);
        sent.map_err(|error| named(error, Call::Sendmsg))
    }

    /// Allocates the batch; to be called on the thread that reflects.
    pub(crate) fn start(self) -> Mirror {
        Mirror {
            slots: Box::new(Slots::new()),
            socket: Box::new(self),
        }
    }
}

/// The memory of one batch.
pub(crate) struct Slots {
    batch: sys::Mirror,
    /// For each slot, where the request was sent to.
    to: Vec<Option<sys::Destination>>,
    /// For each slot, where it came from.
    from: Vec<Option<SocketAddr>>,
}

impl Slots {
    fn new() -> Self {
        Self {
            batch: sys::Mirror::new(BATCH),
            to: vec![None; BATCH],
            from: vec![None; BATCH],
        }
    }

    /// Source address of the answer, and the interface it must leave by.
    fn source(&self, index: usize) -> Option<(IpAddr, u32)> {
        self.to[index].map(|to| {
            let link_local = matches!(to.addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
            (to.local, if link_local { to.interface } else { 0 })
        })
    }
}

impl super::Port for MirrorSocket {
    type Slots = Slots;

    const CONTROL_MESSAGES: bool = true;

    fn open(plan: &SocketPlan) -> io::Result<(Self, Granted)> {
        let (mut sockets, granted) = open_mirrors(plan, 1)?;
        let socket = sockets.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((socket, granted))
    }

    fn slots() -> Slots {
        Slots::new()
    }

    fn with<'a>(&'a mut self, slots: &'a mut Slots) -> impl super::Mirror + 'a {
        Mirror {
            slots,
            socket: self,
        }
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Not for writing: every reply that leaves would be a wake-up.
        let fd = self.socket.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    fn deregister(&mut self, registry: &Registry) {
        let fd = self.socket.as_raw_fd();
        // The system does the same when the socket is closed.
        let _ = registry.deregister(&mut SourceFd(&fd));
    }

    fn kernel_drops(&self) -> Option<u64> {
        drops(self.socket.as_fd(), self.drops)
    }

    fn refused_calls(&self) -> [Option<RefusedCall>; 2] {
        [self.receiving.refused, self.sending.refused]
    }
}

/// See [`super::Mirror`]: a socket with memory of its own, or with borrowed one.
pub(crate) struct Mirror<S = Box<Slots>, K = Box<MirrorSocket>> {
    slots: S,
    socket: K,
}

impl<S, K> super::Mirror for Mirror<S, K>
where
    S: DerefMut<Target = Slots>,
    K: DerefMut<Target = MirrorSocket>,
{
    fn batch(&self) -> usize {
        self.slots.batch.offered()
    }

    fn kernel_stamps(&self) -> bool {
        self.socket.stamped
    }

    fn recv(&mut self) -> io::Result<usize> {
        let MirrorSocket {
            socket, receiving, ..
        } = &mut *self.socket;
        let batch = self.slots.batch.next_batch();
        receiving.receive(batch, socket.as_fd(), Queue::Data)
    }

    fn send_call(&self) -> &'static str {
        self.socket.sending.name()
    }

    fn receive_call(&self) -> &'static str {
        self.socket.receiving.name()
    }

    fn request(&mut self, index: usize) -> Request<'_> {
        let slots = &mut *self.slots;
        let received = slots.batch.received(index);
        let facts = received.facts;
        if let Some(drops) = facts.drops {
            self.socket.drops = Some(drops);
        }
        slots.to[index] = facts.destination;
        slots.from[index] = received.from;
        Request {
            len: received.len,
            segment: facts
                .segment
                .filter(|octets| *octets > 0 && *octets < received.len),
            truncated: received.truncated,
            facts_cut: received.control_truncated,
            slot: received.slot,
            from: received.from,
            to: facts.destination.map(|d| d.addr).or(self.socket.address),
            to_many: facts
                .destination
                .is_some_and(|d| d.addr.is_multicast() || d.addr != d.local),
            arrived_ns: facts.stamp_ns,
            ttl: facts.ttl,
            tos: facts.tos,
        }
    }

    fn move_ahead(&mut self, index: usize, octets: usize) -> Option<&mut [u8]> {
        self.slots.batch.move_ahead(index, octets)
    }

    fn queue(&mut self, index: usize, len: usize, tos: u8, segment: Option<usize>) {
        let facts = ReplyFacts {
            source: self.slots.source(index),
            tos: (tos != self.socket.tos).then_some(tos),
            segment: segment.and_then(|octets| u16::try_from(octets).ok()),
        };
        self.slots.batch.queue(index, len, facts);
    }

    fn queued(&self) -> usize {
        self.slots.batch.queued()
    }

    fn reply_mut(&mut self, offset: usize) -> &mut [u8] {
        self.slots.batch.reply_mut(offset)
    }

    fn send(&mut self, limit: usize) -> io::Result<usize> {
        let MirrorSocket {
            socket, sending, ..
        } = &mut *self.socket;
        let fd = socket.as_fd();
        sending.make(
            &mut self.slots.batch,
            |batch| batch.send(fd, limit),
            |batch| batch.send_singly(fd),
        )
    }

    fn skip(&mut self) {
        self.slots.batch.skip();
    }

    fn route(&self, index: usize) -> Option<Route> {
        Some(Route {
            to: self.slots.from[index]?,
            source: self.slots.source(index),
        })
    }

    fn send_alone(&mut self, octets: &[u8], route: &Route, tos: u8) -> io::Result<()> {
        let facts = ReplyFacts {
            source: route.source,
            tos: (tos != self.socket.tos).then_some(tos),
            segment: None,
        };
        self.socket.reply(octets, route.to, facts)
    }

    fn send_part(
        &mut self,
        index: usize,
        at: usize,
        len: usize,
        route: &Route,
        tos: u8,
    ) -> io::Result<()> {
        let facts = ReplyFacts {
            source: route.source,
            tos: (tos != self.socket.tos).then_some(tos),
            segment: None,
        };
        let octets = self.slots.batch.reply(index);
        self.socket.reply(&octets[at..at + len], route.to, facts)
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        super::Port::register(&mut *self.socket, registry, token)
    }

    fn deregister(&mut self, registry: &Registry) {
        super::Port::deregister(&mut *self.socket, registry);
    }

    fn kernel_drops(&self) -> Option<u64> {
        super::Port::kernel_drops(&*self.socket)
    }

    fn refused_calls(&self) -> [Option<RefusedCall>; 2] {
        super::Port::refused_calls(&*self.socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::failed_call;

    #[test]
    fn an_error_that_is_of_no_refused_call_names_the_call_that_was_made() {
        // No socket, and so an error of each call that this system does not refuse.
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut batch = ReceiveBatch::for_heads(1);
        let mut calls = Calls::RECEIVING;
        for call in ["recvmmsg", "recvmsg"] {
            let result = calls.receive(&mut batch, file.as_fd(), Queue::Data);
            let expected = RefusedCall {
                call,
                errno: libc::ENOTSOCK,
            };
            assert_eq!(failed_call(calls.name(), &result.unwrap_err()), expected);
            calls.refused = Some(RefusedCall {
                call: "recvmmsg",
                errno: libc::ENOSYS,
            });
        }
    }
}
