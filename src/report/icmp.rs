//! What the network said of packets that did not arrive.

use std::net::IpAddr;

use serde::Serialize;

/// ICMP messages of one kind that came for packets of the session (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Icmp {
    /// What they say.
    pub kind: IcmpKind,
    /// Type, of ICMP or ICMPv6; `None` where the system tells no more than the kind.
    pub r#type: Option<u8>,
    /// Code; `None` likewise.
    pub code: Option<u8>,
    /// How many came. Routers and hosts send few a second: it is not the number of packets.
    pub count: u64,
    /// The router or host that sent the first of them; `None` where the system does not tell.
    pub from: Option<IpAddr>,
    /// How many of them came from others than that.
    pub from_others: u64,
    /// Whether `from` is an address of this host: it could not pass the packets on.
    pub from_this_host: bool,
    /// The smallest MTU that one of them told, in octets.
    pub mtu: Option<u32>,
}

/// What an ICMP message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IcmpKind {
    /// The TTL or Hop Limit came to an end on the way.
    TimeExceeded,
    /// Not all fragments of a packet arrived in time.
    ReassemblyTimeExceeded,
    /// Nobody listens at the port.
    PortUnreachable,
    /// The host does not answer, or does not exist.
    HostUnreachable,
    /// There is no route to the network.
    NetUnreachable,
    /// The host does not know UDP.
    ProtocolUnreachable,
    /// A rule on the way forbids it.
    Prohibited,
    /// The packet is larger than the MTU of a hop and must not be fragmented.
    PacketTooBig,
    /// A field of the IP header is wrong.
    ParameterProblem,
    /// Not delivered, and the system does not tell why.
    Unreachable,
    /// Another type or code.
    Other,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn some() -> Icmp {
        Icmp {
            kind: IcmpKind::TimeExceeded,
            r#type: Some(11),
            code: Some(0),
            count: 12,
            from: "192.0.2.9".parse().ok(),
            from_others: 0,
            from_this_host: false,
            mtu: None,
        }
    }
}
