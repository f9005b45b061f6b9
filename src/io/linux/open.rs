//! The sockets of a session and of a reflector, from nothing to ready.
//!
//! A session has two sockets on one port. The one that sends is not connected, the one that
//! receives is, so that the replies of the peer go there. Transmit stamps wait in the error queue of
//! the sending socket; on a single socket they would share the receive buffer with the replies, and
//! stamps that nobody has fetched yet would read as lost packets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use socket2::Socket;

use super::calls::Calls;
use super::options::{
    Asker, WHOLE_AS_FAR_AS_IT_GOES, ask_for_header_fields, bound, busy_poll, hardware_stamps,
    raise_buffers, receive_stamps, set_fragmentation, take_bundles, takes_stamp_identity,
    timestamping, wanted,
};
use super::receive::ReceiveSocket;
use super::send::{Identity, STAMP_IDS, SendSocket};
use crate::io::socket::{
    SocketPlan, bind_interface, needed, new_socket, note_refused, set_plain_options,
};
use crate::io::trouble::refused_call;
use crate::io::{BATCH, Granted, MOST_BEFORE, StampKind};
use crate::report::note::Without;
use crate::sys::{Queue, ReceiveBatch, SendFacts};

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

/// Two sockets on one port.
fn pair(plan: &SocketPlan) -> io::Result<(Socket, Socket, SocketAddr)> {
    let tx = new_socket(plan.local)?;
    bind_interface(&tx, plan.interface.as_deref())?;
    // A plain bind first: with SO_REUSEPORT already set, a port in use would be no error.
    tx.bind(&plan.local.into())?;
    let share = |socket: &Socket, yes| {
        let needs = "a session has two sockets on one port; --io portable has one";
        let set = socket.set_reuse_port(yes);
        set.map_err(|error| needed("SO_REUSEPORT", &error, needs))
    };
    share(&tx, true)?;
    let local = bound(&tx)?;

    let rx = new_socket(plan.local)?;
    bind_interface(&rx, plan.interface.as_deref())?;
    share(&rx, true)?;
    rx.bind(&local.into())?;
    // No third one: a program of the same user that lets the system choose a port could get this one, and
    // what is sent to that program would come here.
    share(&tx, false)?;
    share(&rx, false)?;
    Ok((tx, rx, local))
}

/// Opens the two sockets of a session.
///
/// # Errors
/// The system's: address in use, no permission.
pub(crate) fn open_session(plan: &SocketPlan) -> io::Result<OpenSession> {
    let mut remarks = Vec::new();
    let (tx, rx, local) = pair(plan)?;
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
    let icmp = recverr.set(&rx, Without::Icmp, &mut remarks)
        && recverr.set(&tx, Without::Icmp, &mut remarks);
    let tells_drops = ask_for_header_fields(&rx, plan.local.is_ipv4(), Asker::Sender, &mut remarks);
    let receive = receive_stamps(&rx, hardware, &mut remarks);
    // Departures and arrivals are of one clock.
    let hardware = receive == StampKind::Hardware;
    busy_poll(&rx, plan, &mut remarks);
    if plan.bundles {
        take_bundles(&rx, &mut remarks);
    }

    let (kind, tx_flag, report) = if hardware {
        let (flag, report) = (
            libc::SOF_TIMESTAMPING_TX_HARDWARE,
            libc::SOF_TIMESTAMPING_RAW_HARDWARE,
        );
        (StampKind::Hardware, flag, report)
    } else {
        let (flag, report) = (
            libc::SOF_TIMESTAMPING_TX_SOFTWARE,
            libc::SOF_TIMESTAMPING_SOFTWARE,
        );
        (StampKind::Kernel, flag, report)
    };
    let flags = report | libc::SOF_TIMESTAMPING_OPT_ID | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    let transmit = match timestamping(&tx, flags) {
        Ok(()) => Some(kind),
        Err(error) => {
            let without = Without::TransmitStamps;
            note_refused("SO_TIMESTAMPING", &error, without, &mut remarks);
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
