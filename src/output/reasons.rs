//! The words of reasons: a sentence each, the same in every output.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::report::Reason;

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReceivingFailed(call) => write!(
                f,
                "receiving failed until the end ({call}): replies that came then were not seen, and loss \
                 is not known"
            ),
            Self::SendingFailed(call) => write!(
                f,
                "sending failed until the end ({call}): what was due then did not leave"
            ),
            Self::ReflectorFailed(call) => write!(
                f,
                "the reflector in this process failed for good ({call}): loss is its doing"
            ),
            Self::SocketDrops { datagrams, bundles } => socket_drops(f, *datagrams, *bundles),
            Self::BehindSchedule { packets } => write!(
                f,
                "{packets} packets were further behind schedule than the timeout and were not sent"
            ),
            Self::Refused { packets } => write!(
                f,
                "this system refused {packets} packets: the load was less than asked for"
            ),
            Self::GaveUp { threads } => write!(
                f,
                "{threads} threads stopped after 2 s: this system refused all of their packets"
            ),
            Self::QueueFull { packets } => write!(
                f,
                "this host's queue in front of the interface dropped {packets} packets; they were not sent"
            ),
            Self::NeverLeft { packets } => write!(
                f,
                "{packets} packets never left this host (they have no transmit timestamp, and those that \
                 were answered do): a link without carrier or a next hop that does not answer dropped \
                 them; they were not sent"
            ),
            Self::WaitedInHost {
                longest_ns,
                waits,
                requested,
            } => waited(f, *longest_ns, *waits, *requested),
            Self::LateForWaiting { replies } => write!(
                f,
                "{replies} replies came after their timeout, which began before their packets left this \
                 host: these count as lost, and may not be the path's loss"
            ),
            Self::RateNotKept {
                offered_pps,
                achieved_pps,
            } => {
                let kept = achieved_pps / offered_pps * 100.0;
                write!(f, "this host could not keep the rate: {kept:.2} % of it")
            }
            Self::LateDepartures { late, sent } => write!(
                f,
                "{late} of {sent} packets left more than one interval late: this host fell behind"
            ),
            Self::MayNotHaveLeft {
                unstamped,
                unanswered,
            } => may_not_have_left(f, *unstamped, *unanswered),
            Self::TransmitStampsMissing { missing, requested } => {
                write!(
                    f,
                    "{missing} of {requested} transmit timestamps did not come back"
                )
            }
            Self::SamplesNotRecorded { replies } => write!(
                f,
                "{replies} replies are missing from the delay figures: the statistics could not keep up \
                 (packet counts are exact)"
            ),
        }
    }
}

fn socket_drops(f: &mut Formatter<'_>, drops: u64, bundles: bool) -> fmt::Result {
    f.write_str("this host's own sockets dropped ")?;
    match bundles {
        true => write!(
            f,
            "at least {drops} datagrams, bundles of several counted as one,"
        )?,
        false => write!(f, "{drops} datagrams")?,
    }
    f.write_str(" for want of room; they count as lost, and are not the path's loss")
}

fn waited(f: &mut Formatter<'_>, longest_ns: u64, waits: u64, requested: u64) -> fmt::Result {
    write!(
        f,
        "packets waited in this host for up to {:.1?} before they left ({waits} of {requested} transmit \
         timestamps tell of more than an interval): for room in the queue in front of the interface, or \
         for the next hop",
        Duration::from_nanos(longest_ns)
    )
}

fn may_not_have_left(f: &mut Formatter<'_>, unstamped: u64, unanswered: u64) -> fmt::Result {
    write!(
        f,
        "{unstamped} packets or trains of those that asked for a transmit timestamp have none and were not \
         answered, while all that were answered have theirs: they may never have left this host, and others \
         that asked for none neither; they are among the {unanswered} that are missing"
    )
}
