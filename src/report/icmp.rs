//! What the network said of packets that did not arrive.

use std::fmt;
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

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if self.kind == IcmpKind::Other {
            match self.r#type.zip(self.code) {
                Some((kind, code)) => write!(f, "type {kind} code {code}")?,
                None => f.write_str("messages of other kinds")?,
            }
        }
        match self.count {
            1 => f.write_str(" came once")?,
            count => write!(f, " came {count} times")?,
        }
        if let Some(from) = self.from {
            let own = if self.from_this_host {
                " (this host)"
            } else {
                ""
            };
            write!(f, ", from {from}{own}")?;
        }
        if self.from_others > 0 {
            write!(f, " and {} times from others", self.from_others)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, ": the next hop has an MTU of {mtu}")?;
        }
        Ok(())
    }
}

impl Icmp {
    fn name(&self) -> &'static str {
        match self.kind {
            IcmpKind::TimeExceeded => "time exceeded (TTL)",
            IcmpKind::ReassemblyTimeExceeded => "time exceeded (fragments are missing)",
            IcmpKind::PortUnreachable => "port unreachable",
            IcmpKind::HostUnreachable => "host unreachable",
            IcmpKind::NetUnreachable => "network unreachable",
            IcmpKind::ProtocolUnreachable => "protocol unreachable",
            // No code means one thing in IPv4 and another in IPv6.
            IcmpKind::Prohibited => match self.code {
                Some(9) => "prohibited (network)",
                Some(10) => "prohibited (host)",
                Some(1 | 13) => "prohibited (by an administrator)",
                Some(5) => "prohibited (source address)",
                Some(6) => "prohibited (route)",
                _ => "prohibited",
            },
            IcmpKind::PacketTooBig if self.r#type == Some(2) => "packet too big",
            IcmpKind::PacketTooBig => "fragmentation needed (packet too big)",
            IcmpKind::ParameterProblem => "parameter problem",
            IcmpKind::Unreachable => "destination unreachable (network, host or prohibited)",
            IcmpKind::Other => "",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::report) fn some() -> Icmp {
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

    #[test]
    fn messages_are_told_in_a_sentence() {
        let told = |icmp: Icmp| icmp.to_string();
        assert_eq!(
            told(some()),
            "time exceeded (TTL) came 12 times, from 192.0.2.9"
        );
        assert_eq!(
            told(Icmp {
                kind: IcmpKind::PacketTooBig,
                r#type: Some(3),
                code: Some(4),
                count: 1,
                from_others: 2,
                mtu: Some(1400),
                ..some()
            }),
            "fragmentation needed (packet too big) came once, from 192.0.2.9 and 2 times from others: \
             the next hop has an MTU of 1400"
        );
        assert_eq!(
            told(Icmp {
                kind: IcmpKind::Other,
                r#type: Some(3),
                code: Some(14),
                ..some()
            }),
            "type 3 code 14 came 12 times, from 192.0.2.9"
        );
        assert_eq!(
            told(Icmp {
                kind: IcmpKind::Prohibited,
                r#type: None,
                code: None,
                from: None,
                ..some()
            }),
            "prohibited came 12 times"
        );
        assert_eq!(
            told(Icmp {
                kind: IcmpKind::HostUnreachable,
                code: Some(1),
                from_this_host: true,
                ..some()
            }),
            "host unreachable came 12 times, from 192.0.2.9 (this host)"
        );
    }
}
