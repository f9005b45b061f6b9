//! Words for what the network and the system said.

use std::fmt::{self, Display, Formatter};

use crate::report::unsent::UnsentBy;
use crate::report::{Cause, FailedCall, Icmp, IcmpKind, NotSent, StampKind};

impl Display for Icmp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(name(self))?;
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

fn name(icmp: &Icmp) -> &'static str {
    match icmp.kind {
        IcmpKind::TimeExceeded => "time exceeded (TTL)",
        IcmpKind::ReassemblyTimeExceeded => "time exceeded (fragments are missing)",
        IcmpKind::PortUnreachable => "port unreachable",
        IcmpKind::HostUnreachable => "host unreachable",
        IcmpKind::NetUnreachable => "network unreachable",
        IcmpKind::ProtocolUnreachable => "protocol unreachable",
        // No code means one thing in IPv4 and another in IPv6.
        IcmpKind::Prohibited => match icmp.code {
            Some(9) => "prohibited (network)",
            Some(10) => "prohibited (host)",
            Some(1 | 13) => "prohibited (by an administrator)",
            Some(5) => "prohibited (source address)",
            Some(6) => "prohibited (route)",
            _ => "prohibited",
        },
        IcmpKind::PacketTooBig if icmp.r#type == Some(2) => "packet too big",
        IcmpKind::PacketTooBig => "fragmentation needed (packet too big)",
        IcmpKind::ParameterProblem => "parameter problem",
        IcmpKind::Unreachable => "destination unreachable (network, host or prohibited)",
        IcmpKind::Other => "",
    }
}

impl Display for NotSent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = self.count;
        match self.cause {
            Cause::BehindSchedule => write!(
                f,
                "{count} packets were further behind schedule than the timeout"
            ),
            Cause::TooLarge => write!(
                f,
                "{count} packets were larger than the MTU and must not be fragmented"
            ),
            Cause::QueueFull => write!(
                f,
                "this host's queue in front of the interface dropped {count} packets"
            ),
            Cause::Refused => {
                let error = self.error.as_deref().unwrap_or("no reason was given");
                write!(f, "this system refused {count} packets: {error}")
            }
            Cause::NeverLeft => write!(
                f,
                "{count} packets never left this host: a link without carrier or a next hop that does not \
                 answer dropped them"
            ),
        }
    }
}

impl Display for UnsentBy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.error, self.errno)
    }
}

impl Display for FailedCall {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.call, self.error, self.errno)
    }
}

impl Display for StampKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hardware => "the interface",
            Self::Kernel => "the kernel",
            Self::Userspace => "this program",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::icmp::tests::some;

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
