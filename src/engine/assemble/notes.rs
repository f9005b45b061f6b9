//! What is to be remarked on a session's figures.

use nix::errno::Errno;

use super::super::receiver::{Belief, Facts};
use super::super::run::failed;
use super::super::sockets::{BUFFER_NS, BUFFER_OVERHEAD};
use super::parts::{Parts, ratio, shares_stamps};
use crate::config::SizeProfile;
use crate::report::ignored::Kind;
use crate::report::note::{Counts, DscpChanged, Flow, Note, Replies, Sender, Undirected, Unproved};
use crate::report::{Cause, DelaySet, Icmp, IcmpKind, Packets, PathFacts, SizeEntry, TimeFormat};
use crate::stats::sequence;
use crate::wire::Reading;

/// The largest buffer that the system can be asked for.
const MOST_BUFFER: u64 = 1 << 30;
/// Large packets that are lost by chance.
const FEW_LARGE: u64 = 5;

/// The notes of a report that has these figures, in their order.
pub(super) fn notes(
    parts: &Parts<'_>,
    delays: &DelaySet,
    packets: &Packets,
    path: &PathFacts,
    sizes: &[SizeEntry],
) -> Vec<Note> {
    let facts = &parts.received.facts;
    let mut notes = set_up(parts);
    notes.extend(sending(parts, packets));
    let icmp = packets.icmp.iter().flatten();
    notes.extend(icmp.map(|icmp| Counts::Icmp { icmp: *icmp }.into()));
    notes.extend(directions(parts));
    notes.extend(strangers(facts));
    notes.extend(formats(parts));
    notes.extend(oversize(facts).map(Note::from));
    notes.extend(other_dscp(facts, path).map(Note::from));
    notes.extend(times_there(parts));
    notes.extend(clocks(parts));
    notes.extend(headers(parts));
    notes.extend(shared(parts, delays));
    notes.extend(left_out(parts));
    let icmp = packets.icmp.as_deref().unwrap_or_default();
    notes.extend(lost_for_size(sizes, icmp).map(Note::from));
    notes
}

/// A note where there is something to count.
fn counted<N: Into<Note>>(count: u64, note: impl FnOnce(u64) -> N) -> Option<Note> {
    (count > 0).then(|| note(count).into())
}

/// What the system granted, and how packets left.
fn set_up(parts: &Parts<'_>) -> Vec<Note> {
    let sent = parts.sent;
    let remarks = parts.granted.remarks.iter().cloned();
    let mut notes: Vec<Note> = remarks.map(Note::from).collect();
    if let Some(hop) = parts.granted.next_hop.filter(|hop| !hop.resolved) {
        notes.push(Sender::NextHopSilent { next_hop: hop.addr }.into());
    }
    if parts.reflected.is_some() {
        notes.push(Sender::ReflectorInside.into());
    }
    notes.extend(flows(parts));
    if let SizeProfile::Imix = parts.config.sizes.profile
        && parts.config.remote.is_ipv6()
    {
        notes.push(Sender::ImixOverIpv6.into());
    }
    notes.extend(counted(sent.began_anew, |times| Sender::BegunAnew {
        times,
    }));
    if let Some(error) = sent.thread.realtime_refused.clone() {
        notes.push(Sender::RealTimeRefused { error }.into());
    }
    notes.extend(small_buffer(parts).map(Note::from));
    notes
}

fn flows(parts: &Parts<'_>) -> Vec<Note> {
    if parts.ports.len() < 2 {
        return Vec::new();
    }
    let kind = match parts.terms.are_agreed() {
        true => Flow::Session,
        false => Flow::Thread,
    };
    let ports = parts.ports.to_vec();
    let mut notes = vec![Sender::Flows { kind, ports }.into()];
    if !parts.silent.is_empty() && parts.received.counts.received > 0 {
        let ports = parts.silent.to_vec();
        notes.push(Sender::SilentPorts { ports }.into());
    }
    notes
}

/// A buffer that does not hold what may come while the receiver does not run. Each thread has one.
fn small_buffer(parts: &Parts<'_>) -> Option<Sender> {
    let config = parts.config;
    let rate = config.departures.rate()?.shared_by(parts.ports.len());
    let buffer = parts.granted.receive_buffer?;
    let largest = config.sizes.classes.iter().map(|class| class.payload).max();
    let each = BUFFER_OVERHEAD + u64::try_from(largest.unwrap_or(0)).unwrap_or(0);
    let packets = rate
        .count_in(BUFFER_NS)
        .min(config.end.count.unwrap_or(u64::MAX));
    let need = packets.saturating_mul(each);
    let buffer_bytes = u64::try_from(buffer).unwrap_or(u64::MAX);
    (buffer_bytes < need).then(|| Sender::ReceiveBufferSmall {
        buffer_bytes,
        allow_bytes: (need <= MOST_BUFFER).then(|| need.next_power_of_two()),
    })
}

/// What did not leave, or not as it should.
fn sending(parts: &Parts<'_>, packets: &Packets) -> Vec<Note> {
    let (sent, received) = (parts.sent, parts.received);
    // The others are among the reasons of the verdict.
    let told = |not_sent: &&crate::report::NotSent| {
        matches!(not_sent.cause, Cause::TooLarge | Cause::Refused)
    };
    let told = packets.not_sent_causes.iter().filter(told).cloned();
    let mut notes: Vec<Note> = told.map(|told| Sender::NotSent(told).into()).collect();
    let refused = [received.refused_call, sent.thread.refused_call];
    let refused = refused.into_iter().flatten().map(failed);
    notes.extend(refused.map(|call| Sender::CallRefused(call).into()));
    if let Some(errno) = sent.unfolded.map(Errno::from_raw) {
        let refused = Sender::TrainsRefused {
            errno: format!("{errno:?}"),
            error: errno.desc().to_owned(),
        };
        notes.push(refused.into());
    }
    notes
}

/// How far loss, copies and order have a direction.
fn directions(parts: &Parts<'_>) -> Vec<Note> {
    let counts = &parts.received.counts;
    let mut notes = Vec::new();
    if let Some(directions) = &counts.directions
        && directions.duplicates_outbound > 0
        && directions.lost_outbound + directions.lost_inbound > 0
    {
        let packets = directions.duplicates_outbound;
        notes.push(Counts::DuplicatedOutbound { packets }.into());
    }
    notes.extend(no_direction(counts, parts.config.probes).map(Note::from));
    if counts.counter_began_at > 0 && counts.directions.is_some() && counts.followed() {
        // As it was on the wire.
        let at = counts.counter_began_at & u64::from(u32::MAX);
        notes.push(Counts::CounterBegan { at }.into());
    }
    notes.extend(counted(counts.given_to_others, |packets| {
        let left_out = counts.directions.is_some();
        Counts::OthersAnswered { packets, left_out }
    }));
    notes
}

/// Why something that happened has no direction.
fn no_direction(counts: &sequence::Counts, probes: bool) -> Option<Counts> {
    let what = match counts.directions {
        // Not one reply came: there is nothing to explain.
        None if counts.received == 0 => return None,
        None => Undirected::Loss,
        Some(_) if counts.duplicates + counts.reordered > 0 => Undirected::Order,
        Some(_) => return None,
    };
    let why = match counts.own_counter {
        _ if counts.senseless => Unproved::NoCount,
        Some(true) if counts.unresolved > 0 => Unproved::Interrupted,
        Some(true) => return None,
        Some(false) => Unproved::Stateless,
        None if !probes => Unproved::NoProbes,
        None => Unproved::Unknown,
    };
    Some(Counts::NoDirection { what, why })
}

/// What came, and was nobody's reply.
fn strangers(facts: &Facts) -> Vec<Note> {
    let forged = counted(facts.ignored.of(Kind::Forged), |datagrams| Counts::Forged {
        datagrams,
    });
    let elsewhere = facts.elsewhere_from.map(|from| {
        let replies = facts.ignored.of(Kind::Elsewhere);
        Counts::Elsewhere { replies, from }.into()
    });
    forged.into_iter().chain(elsewhere).collect()
}

/// How T2 and T3 are written.
fn formats(parts: &Parts<'_>) -> Vec<Note> {
    let (facts, received) = (&parts.received.facts, parts.received.counts.received);
    let claimed = counted(facts.times.other_format, |replies| {
        Replies::OtherFormatClaimed { replies }
    });
    let mut notes: Vec<Note> = claimed.into_iter().collect();
    for reading in &facts.times.readings {
        let format = match reading {
            Reading::Ntp | Reading::Ptp => continue,
            Reading::UnixFraction => TimeFormat::UnixFraction,
            Reading::NtpNanoseconds => TimeFormat::NtpNanoseconds,
        };
        let read_so = facts.times.belief != Belief::Denied;
        notes.push(Replies::MixedFormats { format, read_so }.into());
    }
    notes.extend(counted(facts.times.misread, |replies| {
        match facts.times.belief {
            Belief::Denied => Replies::FormatDenied { replies },
            Belief::Shown | Belief::Assumed => Replies::FormatChanged { replies, received },
        }
    }));
    notes.extend(counted(facts.times.exchanged, |replies| {
        Replies::Exchanged { replies }
    }));
    notes
}

/// A quirk of reflectors that pad every reply to one size, such as the largest that was agreed on: the way
/// back carries a multiple of the load.
fn oversize(facts: &Facts) -> Option<Replies> {
    let (octets, due) = (facts.sizes.octets, facts.sizes.due_octets);
    if octets.saturating_mul(2) < due.saturating_mul(3) {
        return None;
    }
    Some(Replies::Oversize {
        size_ratio: ratio(octets, due)?,
        reply_bytes: match facts.sizes.of_replies.as_slice() {
            [size] => Some(*size),
            _ => None,
        },
    })
}

/// Who changed the DSCP, as far as replies tell.
fn other_dscp(facts: &Facts, path: &PathFacts) -> Option<Replies> {
    let replies = path.replies_of_other_dscp.filter(|n| *n > 0)?;
    let sent = path.dscp_sent?;
    Some(Replies::OtherDscp {
        replies,
        of_replies: facts.path.tos_in.iter().sum(),
        sent,
        received: path.dscp_received?,
        changed_by: match path.dscp_at_reflector {
            Some(there) if there != sent => DscpChanged::Outbound,
            Some(_) => DscpChanged::ReflectorOrInbound,
            None => DscpChanged::ReflectorOrPath,
        },
    })
}

/// What the Session-Reflector tells of its time and its count.
fn times_there(parts: &Parts<'_>) -> Vec<Note> {
    let (facts, counts) = (&parts.received.facts, &parts.received.counts);
    let restarts = if counts.senseless { 0 } else { counts.restarts };
    let notes = [
        counted(facts.estimates.unusable, |replies| {
            Replies::EstimatesUnusable { replies }
        }),
        counted(facts.times.untold, |replies| Replies::NoTime { replies }),
        counted(restarts, |times| Counts::CounterBeganAnew { times }),
    ];
    notes.into_iter().flatten().collect()
}

/// Clocks that were set, and timestamps that contradict each other or are not there.
fn clocks(parts: &Parts<'_>) -> Vec<Note> {
    let (facts, received) = (&parts.received.facts, parts.received.counts.received);
    let set = parts.delays.course().lost;
    let set = set.then(|| Replies::ClockSetTooOften.into());
    let rejected = facts.times.rejected + parts.delays.rejected();
    let notes = [
        set,
        counted(rejected, |replies| Replies::Contradictory {
            replies,
            received,
        }),
        counted(facts.times.unstamped, |replies| Replies::Unstamped {
            replies,
            received,
            stamps: parts.granted.receive,
        }),
    ];
    notes.into_iter().flatten().collect()
}

/// Hops that cannot be told.
fn headers(parts: &Parts<'_>) -> Vec<Note> {
    let ttl = parts.config.socket.ttl;
    let came = parts.received.counts.received > 0;
    let notes = [
        counted(parts.received.facts.path.short_replies, |replies| {
            Replies::NoTtlField { replies }
        }),
        (ttl != 255 && came).then(|| Sender::OtherTtl { ttl }.into()),
    ];
    notes.into_iter().flatten().collect()
}

/// Delays that have something in them.
fn shared(parts: &Parts<'_>, delays: &DelaySet) -> Vec<Note> {
    let inbound = delays.inbound.is_some();
    let notes = [
        (inbound && delays.reflector.is_none()).then(|| Replies::NoOwnTime.into()),
        (inbound && shares_stamps(parts)).then(|| Replies::SharedStamps.into()),
    ];
    notes.into_iter().flatten().collect()
}

/// What there was no room for.
fn left_out(parts: &Parts<'_>) -> Vec<Note> {
    let (config, facts) = (parts.config, &parts.received.facts);
    let rate = config.departures.rate();
    let within = rate.map_or(0, |rate| rate.count_in(config.timeout_ns));
    let small = parts.window < within.min(parts.sent.sent);
    let notes = [
        counted(facts.cut, |replies| Replies::Cut { replies }),
        facts.sizes.more.then(|| Replies::MoreSizes.into()),
        small.then(|| {
            Sender::WindowSmall {
                packets: parts.window,
            }
            .into()
        }),
    ];
    notes.into_iter().flatten().collect()
}

/// What to think where large packets are lost and small ones are not, and nobody said why.
fn lost_for_size(sizes: &[SizeEntry], icmp: &[Icmp]) -> Option<Counts> {
    let mut sizes: Vec<_> = sizes.iter().filter(|size| size.packets > 0).collect();
    sizes.sort_by_key(|size| size.payload_bytes);
    let none = |size: &&SizeEntry| size.received == Some(0);
    let small = sizes.iter().rposition(|size| !none(size))? + 1;
    let (small, large) = sizes.split_at(small);
    let count = |sizes: &[&SizeEntry]| sizes.iter().map(|size| size.packets).sum::<u64>();
    let came = small.iter().filter_map(|size| size.received).sum::<u64>();
    let told = (icmp.iter()).any(|icmp| icmp.kind == IcmpKind::PacketTooBig);
    if told || count(large) < FEW_LARGE || came * 2 <= count(small) {
        return None;
    }
    Some(Counts::LostForSize {
        packets: count(large),
        frame_bytes_l2: large.first()?.frame_bytes_l2,
        smaller_packets: count(small),
        smaller_received: came,
        fragments: large.iter().any(|size| size.fragments > Some(1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_are_lost_as_a_whole_are_suspected() {
        let size = |frame, packets, received, fragments| SizeEntry {
            payload_bytes: frame - 42,
            frame_bytes_l2: frame,
            packets,
            received: Some(received),
            roundtrip: None,
            fragments: Some(fragments),
        };
        let suspected = |sizes: &[SizeEntry]| lost_for_size(sizes, &[]);
        let lost = suspected(&[size(1514, 40, 0, 1), size(83, 60, 59, 1)]).unwrap();
        let large = |frame_bytes_l2, fragments| Counts::LostForSize {
            packets: 40,
            frame_bytes_l2,
            smaller_packets: 60,
            smaller_received: 59,
            fragments,
        };
        assert_eq!(lost, large(1514, false));
        let lost = suspected(&[size(83, 60, 59, 1), size(9014, 40, 0, 7)]).unwrap();
        assert_eq!(lost, large(9014, true));
        for none in [
            [size(83, 60, 0, 1), size(1514, 40, 0, 1)],
            [size(83, 60, 0, 1), size(1514, 40, 40, 1)],
            [size(83, 60, 20, 1), size(1514, 40, 0, 1)],
            [size(83, 60, 60, 1), size(1514, 40, 1, 1)],
            [size(83, 60, 60, 1), size(1514, 4, 0, 1)],
            [size(83, 60, 60, 1), size(1514, 0, 0, 1)],
        ] {
            assert_eq!(suspected(&none), None, "{none:?}");
        }
    }
}
