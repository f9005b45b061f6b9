//! What the network said of packets that did not arrive: ICMP messages, by what they say.

use std::io;
use std::net::IpAddr;

use crate::io::{Icmp, IcmpMessage};
use crate::report::{self, IcmpKind};

/// Kinds of messages that are told apart; a path has few.
const KINDS: usize = 16;

/// How often each kind of message came, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IcmpErrors {
    kinds: [Option<Told>; KINDS],
    /// Messages of kinds beyond these.
    more: u64,
}

/// The messages of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    /// The first one; its MTU is the smallest of all.
    first: Icmp,
    count: u64,
    /// Of these, from others than the first.
    from_others: u64,
}

impl IcmpErrors {
    pub(crate) fn note(&mut self, icmp: &Icmp) {
        self.merge(&Told {
            first: *icmp,
            count: 1,
            from_others: 0,
        });
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for told in other.kinds.iter().flatten() {
            self.merge(told);
        }
        self.more += other.more;
    }

    fn merge(&mut self, more: &Told) {
        for place in &mut self.kinds {
            match place {
                None => {
                    *place = Some(*more);
                    return;
                }
                Some(told) if told.first.message == more.first.message => {
                    told.count += more.count;
                    told.from_others += if told.first.from == more.first.from {
                        more.from_others
                    } else {
                        more.count
                    };
                    told.first.mtu = match (told.first.mtu, more.first.mtu) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                    return;
                }
                Some(_) => {}
            }
        }
        self.more += more.count;
    }

    pub(crate) fn total(&self) -> u64 {
        let told = self.kinds.iter().flatten();
        told.map(|told| told.count).sum::<u64>() + self.more
    }

    /// Whether a host said that nobody listens at the port.
    pub(crate) fn port_unreachable(&self) -> bool {
        let mut told = self.kinds.iter().flatten();
        told.any(|told| told.first.message.is_port_unreachable())
    }

    /// Each kind that came, the most frequent first. `is_local`: whether an address is this host's.
    pub(crate) fn report(&self, is_local: impl Fn(IpAddr) -> bool) -> Vec<report::Icmp> {
        let entry = |told: &Told| report::Icmp {
            count: told.count,
            from_others: told.from_others,
            ..one(&told.first, &is_local)
        };
        let mut all: Vec<_> = self.kinds.iter().flatten().map(entry).collect();
        if self.more > 0 {
            all.push(report::Icmp {
                kind: IcmpKind::Other,
                r#type: None,
                code: None,
                count: self.more,
                from: None,
                from_others: 0,
                from_this_host: false,
                mtu: None,
            });
        }
        all.sort_by_key(|icmp| std::cmp::Reverse(icmp.count));
        all
    }
}

/// One message. `is_local`: whether an address is this host's.
pub(crate) fn one(icmp: &Icmp, is_local: impl Fn(IpAddr) -> bool) -> report::Icmp {
    let numbers = numbers(icmp.message);
    report::Icmp {
        kind: kind(icmp.message),
        r#type: numbers.map(|(kind, _)| kind),
        code: numbers.map(|(_, code)| code),
        count: 1,
        from: icmp.from,
        from_others: 0,
        from_this_host: icmp.from.is_some_and(is_local),
        mtu: icmp.mtu,
    }
}

fn numbers(message: IcmpMessage) -> Option<(u8, u8)> {
    match message {
        IcmpMessage::V4 { kind, code } | IcmpMessage::V6 { kind, code } => Some((kind, code)),
        IcmpMessage::Errno(_) => None,
    }
}

/// The kinds of RFC 792 with RFC 1122 §3.2.2.1 and RFC 1812 §5.2.7.1, and of RFC 4443. An errno says what
/// it says of a connected socket, which is not told of messages that may be of a passing trouble.
fn kind(message: IcmpMessage) -> IcmpKind {
    match message {
        IcmpMessage::V4 { kind: 3, code } => match code {
            0 | 6 | 11 => IcmpKind::NetUnreachable,
            1 | 7 | 8 | 12 => IcmpKind::HostUnreachable,
            2 => IcmpKind::ProtocolUnreachable,
            3 => IcmpKind::PortUnreachable,
            4 => IcmpKind::PacketTooBig,
            9 | 10 | 13 => IcmpKind::Prohibited,
            _ => IcmpKind::Other,
        },
        IcmpMessage::V6 { kind: 1, code } => match code {
            0 => IcmpKind::NetUnreachable,
            3 => IcmpKind::HostUnreachable,
            4 => IcmpKind::PortUnreachable,
            1 | 5 | 6 => IcmpKind::Prohibited,
            _ => IcmpKind::Other,
        },
        IcmpMessage::V6 { kind: 2, .. } => IcmpKind::PacketTooBig,
        IcmpMessage::V4 { kind: 11, code: 0 } | IcmpMessage::V6 { kind: 3, code: 0 } => {
            IcmpKind::TimeExceeded
        }
        IcmpMessage::V4 { kind: 11, code: 1 } | IcmpMessage::V6 { kind: 3, code: 1 } => {
            IcmpKind::ReassemblyTimeExceeded
        }
        IcmpMessage::V4 { kind: 12, .. } | IcmpMessage::V6 { kind: 4, .. } => {
            IcmpKind::ParameterProblem
        }
        IcmpMessage::V4 { .. } | IcmpMessage::V6 { .. } => IcmpKind::Other,
        IcmpMessage::Errno(errno) => match errno {
            libc::ECONNREFUSED => IcmpKind::PortUnreachable,
            libc::ENOPROTOOPT => IcmpKind::ProtocolUnreachable,
            libc::EACCES => IcmpKind::Prohibited,
            libc::EMSGSIZE => IcmpKind::PacketTooBig,
            libc::EPROTO => IcmpKind::ParameterProblem,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN => IcmpKind::Unreachable,
            _ => IcmpKind::Other,
        },
    }
}

/// Whether an error of a connected socket's next call may be what the network told of a former packet,
/// other than that its port is closed, which is never anything else. The system itself has the same
/// errors, and then has them again when the call is made again.
pub(crate) fn may_be_told(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENOPROTOOPT
                | libc::EACCES
                | libc::EPROTO
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn icmp(kind: u8, code: u8, from: u8, mtu: Option<u32>) -> Icmp {
        Icmp {
            message: IcmpMessage::V4 { kind, code },
            from: Some(IpAddr::from([192, 0, 2, from])),
            mtu,
        }
    }

    #[test]
    fn messages_are_counted_by_what_they_say_and_by_who_said_it() {
        let (mut some, mut all) = (IcmpErrors::default(), IcmpErrors::default());
        for (from, mtu) in [(1, 1400), (2, 1300), (1, 1350)] {
            some.note(&icmp(3, 4, from, Some(mtu)));
        }
        some.note(&icmp(11, 0, 9, None));
        all.note(&icmp(3, 4, 2, Some(1380)));
        all.note(&Icmp::of_errno(libc::ECONNREFUSED));
        all.add(&some);
        assert_eq!(all.total(), 6);
        let report = all.report(|from| from == IpAddr::from([192, 0, 2, 9]));
        let told: Vec<_> = report
            .iter()
            .map(|icmp| (icmp.kind, icmp.r#type.zip(icmp.code), icmp.count, icmp.mtu))
            .collect();
        assert_eq!(
            told,
            [
                (IcmpKind::PacketTooBig, Some((3, 4)), 4, Some(1300)),
                (IcmpKind::PortUnreachable, None, 1, None),
                (IcmpKind::TimeExceeded, Some((11, 0)), 1, None),
            ]
        );
        let from: Vec<_> = report
            .iter()
            .map(|icmp| (icmp.from, icmp.from_others, icmp.from_this_host))
            .collect();
        let of = |host| Some(IpAddr::from([192, 0, 2, host]));
        assert_eq!(
            from,
            // Those of one who is not the first are not looked through again.
            [(of(2), 3, false), (None, 0, false), (of(9), 0, true)]
        );
    }

    #[test]
    fn more_kinds_than_there_is_room_for_are_counted_together() {
        let mut errors = IcmpErrors::default();
        for code in 0..20 {
            for _ in 0..=code {
                errors.note(&icmp(40, code, 1, None));
            }
        }
        assert_eq!(errors.total(), 210);
        let report = errors.report(|_| false);
        assert_eq!(report.len(), KINDS + 1);
        assert_eq!(report[0].count, 17 + 18 + 19 + 20);
        assert_eq!((report[0].kind, report[0].r#type), (IcmpKind::Other, None));
    }

    #[test]
    fn kinds_are_those_of_the_rfcs() {
        use IcmpKind::*;
        for (v6, kind, code, expected) in [
            (false, 3, 0, NetUnreachable),
            (false, 3, 1, HostUnreachable),
            (false, 3, 2, ProtocolUnreachable),
            (false, 3, 3, PortUnreachable),
            (false, 3, 4, PacketTooBig),
            (false, 3, 9, Prohibited),
            (false, 3, 10, Prohibited),
            (false, 3, 13, Prohibited),
            (false, 3, 14, Other),
            (false, 11, 0, TimeExceeded),
            (false, 11, 1, ReassemblyTimeExceeded),
            (false, 12, 0, ParameterProblem),
            (false, 2, 0, Other),
            (true, 1, 0, NetUnreachable),
            (true, 1, 1, Prohibited),
            (true, 1, 3, HostUnreachable),
            (true, 1, 4, PortUnreachable),
            (true, 1, 5, Prohibited),
            (true, 2, 0, PacketTooBig),
            (true, 3, 0, TimeExceeded),
            (true, 3, 1, ReassemblyTimeExceeded),
            (true, 4, 1, ParameterProblem),
            (true, 11, 0, Other),
        ] {
            let message = if v6 {
                IcmpMessage::V6 { kind, code }
            } else {
                IcmpMessage::V4 { kind, code }
            };
            assert_eq!(super::kind(message), expected, "{message:?}");
            assert_eq!(message.is_port_unreachable(), expected == PortUnreachable);
        }
    }
}
