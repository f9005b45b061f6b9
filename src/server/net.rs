//! TCP sockets of a Server.

use std::io;
use std::net::{SocketAddr, TcpListener};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

#[cfg(target_os = "linux")]
use crate::engine::bind_device;
use crate::engine::needed;

/// Opens a listener for one family.
///
/// # Errors
/// The system's, such as a port in use.
pub(super) fn listen(address: SocketAddr, interface: Option<&str>) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // One socket for each family is simpler than one for both.
        let set = socket.set_only_v6(true);
        let needs = "a Server has a socket for each family; listen on an IPv4 address alone";
        set.map_err(|error| needed("IPV6_V6ONLY", &error, needs))?;
    }
    // Connections of a Server that ended a moment ago do not keep the next one from starting.
    if let Err(error) = socket.set_reuse_address(true) {
        log::warn!(
            "{}",
            needed(
                "SO_REUSEADDR",
                &error,
                "after an end the port may be in use for a minute"
            )
        );
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsFd;
        if let Some(interface) = interface {
            bind_device(&socket, interface)?;
        }
        if let Err(error) = crate::os::keep_syns(socket.as_fd()) {
            log::warn!("the DSCP of clients cannot be told ({error}): answers get 0");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = interface;
    // Messages are short, and who does not read his answers shall not fill the memory. Connections
    // inherit both.
    for (name, set) in [
        ("SO_RCVBUF", socket.set_recv_buffer_size(BUFFER)),
        ("SO_SNDBUF", socket.set_send_buffer_size(BUFFER)),
    ] {
        if let Err(error) = set {
            let what = "each connection takes as much memory as the system has it";
            log::warn!("{}", needed(name, &error, what));
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Prepares a connection that was accepted: what it sends has the DSCP of its SYN (RFC 5357 §3), and
/// leaves at once, as far as the system permits that.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if let Err(error) = socket.set_tcp_nodelay(true) {
        log::debug!(
            "{}",
            needed("TCP_NODELAY", &error, "answers may leave later")
        );
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsFd;
        // Without a SYN, as after a SYN cookie, it is that of the listener.
        if let Some(tos) = crate::os::syn_tos(stream.as_fd()) {
            let v6 = stream.local_addr()?.is_ipv6();
            // ECN is TCP's own affair.
            if let Err(error) = crate::os::set_tos(stream.as_fd(), v6, tos & !ECN) {
                let name = if v6 { "IPV6_TCLASS" } else { "IP_TOS" };
                log::debug!("{}", needed(name, &error, "answers have DSCP 0"));
            }
        }
    }
    Ok(())
}

/// In octets, before the kernel doubles it.
const BUFFER: usize = 16 << 10;
/// Connections that are made and not accepted yet.
const BACKLOG: i32 = 4096;
/// Of a TOS octet (RFC 3168 §5).
#[cfg(target_os = "linux")]
const ECN: u8 = 0b11;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_dscp_of_the_syn() {
        let mut addresses = vec!["127.0.0.1:0", "[::1]:0"];
        if std::net::UdpSocket::bind("[::1]:0").is_err() {
            addresses.pop();
        }
        for address in addresses {
            let address: SocketAddr = address.parse().unwrap();
            let listener = listen(address, None).unwrap();
            listener.set_nonblocking(false).unwrap();
            let to = listener.local_addr().unwrap();
            let client = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            {
                use std::os::fd::AsFd;
                crate::os::set_tos(client.as_fd(), to.is_ipv6(), 0xb8).unwrap();
            }
            client.connect(&to.into()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let stream = TcpStream::from_std(stream);
            prepare(&stream).unwrap();
            let socket = SockRef::from(&stream);
            let tos = if to.is_ipv6() {
                socket.tclass_v6().unwrap()
            } else {
                socket.tos_v4().unwrap()
            };
            assert_eq!(tos, 0xb8, "{to}");
        }
    }
}
