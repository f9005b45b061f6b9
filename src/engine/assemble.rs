//! Puts a session's report together from what its threads counted.

use std::time::Duration;

use nix::errno::Errno;

mod notes;
mod parts;
mod reasons;

use super::receiver::Belief;
use super::run::failed;
use super::sender::Sent;
use crate::config::{Departures, IoKind, SessionConfig, SizeProfile};
use crate::io::StampKind;
use crate::os;
use crate::report::moment;
use crate::report::{self, Report};
use crate::stats::sequence::Directions;
use crate::stats::spread::Spread;
use crate::wire::Reading;
pub(super) use parts::{Differs, Parts, Terms};
use parts::{ratio, shares_stamps};

pub(super) fn report(parts: &Parts<'_>) -> Report {
    let Parts {
        config,
        granted,
        sent,
        received,
        ..
    } = *parts;
    let duration_ns =
        (sent.sent > 0).then(|| (sent.times.last_ns - sent.times.first_ns).unsigned_abs());
    let started = (sent.sent > 0).then(|| moment::to_the_nanosecond(sent.times.started_ns));
    let mut load = load(parts);
    let mut delay_ns = parts.delays.report();
    if parts.ports.len() > 1 {
        // Of one flow, even where only one has samples.
        let sizes = load.sizes.iter_mut();
        let sizes = sizes.filter_map(|size| size.roundtrip.as_mut());
        for delay in delay_ns.each_mut().chain(sizes) {
            delay.jitter = None;
        }
    }
    let (packets, path) = (packets(parts), path(parts));
    let notes = notes::notes(parts, &delay_ns, &packets, &path, &load.sizes);
    Report {
        schema: report::Schema::default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: SessionConfig {
            // That of the first of several threads, and the others follow, or each has what it got.
            local: match parts.ports {
                [] => granted.local,
                _ => config.local,
            },
            ..config.clone()
        }
        .command()
        .arguments(),
        scope: parts.scope,
        protocol: match parts.terms {
            Terms::Light => report::Protocol::TwampLight,
            Terms::Agreed { .. } => report::Protocol::Twamp,
        },
        role: match parts.terms {
            Terms::Light => report::Role::Sender,
            Terms::Agreed { .. } => report::Role::Controller,
        },
        security: match parts.terms {
            Terms::Light => report::Security::Unauthenticated,
            Terms::Agreed { security, .. } => security,
        },
        sid: match parts.terms {
            Terms::Agreed { sid: Some(sid), .. } => Some(sid.to_string()),
            _ => None,
        },
        key_id: None,
        ssid: None,
        local: parts.ports.is_empty().then_some(granted.local),
        remote: (!parts.differs.remote).then_some(config.remote),
        started,
        duration_ns,
        interrupted: sent.interrupted || received.cut_short,
        host: host(parts, &load),
        load,
        packets,
        delay_ns,
        timestamps: timestamps(parts),
        path,
        notes,
        histograms: parts.delays.histograms(),
    }
}

fn load(parts: &Parts<'_>) -> report::Load {
    let (config, sent) = (parts.config, parts.sent);
    let achieved_pps = sent.pps();
    let classes = &config.sizes.classes;
    let octets: u64 = classes
        .iter()
        .zip(&sent.by_class)
        .map(|(class, packets)| u64::try_from(class.frame).unwrap_or(0) * packets)
        .sum();
    let mtu = mtu(parts);
    let sizes = classes
        .iter()
        .enumerate()
        .map(|(index, class)| report::SizeEntry {
            payload_bytes: class.payload,
            frame_bytes_l2: class.frame,
            packets: sent.by_class[index],
            received: Some(parts.received.facts.sizes.by_class[index]),
            roundtrip: parts.delays.size_roundtrip(index),
            fragments: fragments(parts, class.payload, mtu),
        });
    let flood = config.departures == Departures::Flood;
    report::Load {
        offered_pps: config
            .departures
            .rate()
            .map(crate::config::Rate::per_second),
        achieved_pps,
        achieved_bps_l2: achieved_pps
            .zip(ratio(octets, sent.sent))
            .map(|(pps, frame)| pps * frame * 8.0),
        profile: match config.sizes.profile {
            SizeProfile::Fixed => report::Profile::Fixed,
            SizeProfile::Imix => report::Profile::Imix,
            SizeProfile::Custom(_) => report::Profile::Custom,
        },
        schedule: match config.departures {
            Departures::Periodic(_) => report::Schedule::Periodic,
            Departures::Poisson(_) => report::Schedule::Poisson,
            Departures::Uniform { .. } => report::Schedule::Uniform,
            Departures::Flood => report::Schedule::Flood,
        },
        seed: Some(config.seed),
        burst: usize::try_from(sent.times.longest_burst.max(1)).unwrap_or(1),
        sizes: sizes.collect(),
        paced_by: (!flood && sent.sent > 0).then_some(report::PacedBy::Sender),
        late_departures: (!flood).then_some(sent.times.late),
        max_slip_ns: (!flood && sent.sent > 0)
            .then(|| sent.times.max_slip_ns.max(0).unsigned_abs()),
    }
}

/// Octets of the largest IP packet that this system knows to get to the peer whole.
fn mtu(parts: &Parts<'_>) -> Option<usize> {
    let (remote, socket) = (parts.config.remote, &parts.config.socket);
    crate::io::path_mtu(remote, socket.interface.as_deref()).filter(|_| !parts.differs.host)
}

/// IP packets that this system makes of a packet.
fn fragments(parts: &Parts<'_>, payload: usize, mtu: Option<usize>) -> Option<u64> {
    let (v6, whole) = (
        parts.config.remote.is_ipv6(),
        parts.config.socket.do_not_fragment,
    );
    let fragments = if whole {
        1
    } else {
        fragments_of(payload, v6, mtu?)
    };
    u64::try_from(fragments).ok()
}

/// Fragments of a UDP datagram, all but the last of a multiple of 8 octets (RFC 791 §3.2, RFC 8200 §4.5).
fn fragments_of(payload: usize, v6: bool, mtu: usize) -> usize {
    const UDP_HEADER: usize = 8;
    let (header, fragment_header) = if v6 { (40, 8) } else { (20, 0) };
    let octets = UDP_HEADER + payload;
    if header + octets <= mtu {
        return 1;
    }
    let room = mtu.saturating_sub(header + fragment_header) / 8 * 8;
    octets.div_ceil(room.max(8))
}

fn packets(parts: &Parts<'_>) -> report::Packets {
    let (sent, counts) = (parts.sent, &parts.received.counts);
    let never_left = parts.never_left;
    let left = sent.sent - never_left;
    // Replies that nobody took are no lost ones.
    let seen = parts.received.failure.is_none();
    let lost = left.saturating_sub(counts.received + counts.unresolved);
    let directions = counts.directions.filter(|_| seen).map(|directions| {
        // It is missing at the reflector, or nobody can tell where.
        let outbound = directions.lost_outbound.min(never_left);
        Directions {
            lost_outbound: directions.lost_outbound - outbound,
            lost_unattributed: directions
                .lost_unattributed
                .saturating_sub(never_left - outbound),
            ..directions
        }
    });
    // Which socket is told depends on the way of I/O.
    let mut icmp = parts.received.facts.icmp.clone();
    icmp.add(&sent.icmp);
    // What did not happen at all has no direction that would have to be known.
    let told = |of: u64| directions.filter(|_| of == 0 || counts.followed());
    let (copies, order) = (told(counts.duplicates), told(counts.reordered));
    report::Packets {
        sent: Some(left),
        probes: Some(sent.probes),
        not_sent: Some(sent.withheld.overdue + sent.withheld.refused + never_left),
        not_sent_causes: not_sent(sent, parts),
        received: Some(counts.received),
        lost: seen.then_some(lost),
        unresolved: seen.then_some(counts.unresolved),
        lost_outbound: directions.map(|d| d.lost_outbound),
        lost_inbound: directions.map(|d| d.lost_inbound),
        lost_unattributed: directions.map(|d| d.lost_unattributed),
        // Which packets did not leave is not known: they are among the lost ones of these.
        loss_bursts: (never_left == 0 && seen).then(|| report::LossBursts {
            count: counts.bursts.count,
            longest: counts.bursts.longest,
            longest_ns: lasted_ns(parts, counts.bursts.longest),
            mean: ratio(lost, counts.bursts.count),
        }),
        duplicates: Some(counts.duplicates),
        duplicates_outbound: copies.map(|d| d.duplicates_outbound),
        duplicates_inbound: copies.map(|d| d.duplicates_inbound),
        reordered: Some(counts.reordered),
        reordered_outbound: order.map(|d| d.reordered_outbound),
        reordered_inbound: order.map(|d| d.reordered_inbound),
        late: Some(counts.late),
        timeout_ns: Some(parts.config.timeout_ns),
        invalid: Some(parts.received.facts.ignored.total()),
        ignored: Some(parts.received.facts.ignored),
        rejected_samples: Some(rejected(parts)),
        icmp_unreachable: parts.granted.icmp.then(|| icmp.total()),
        // Of some the system tells all the same.
        icmp: Some(icmp.report(crate::io::is_local))
            .filter(|told| parts.granted.icmp || !told.is_empty()),
    }
}

/// Why packets were not sent.
fn not_sent(sent: &Sent, parts: &Parts<'_>) -> Vec<report::NotSent> {
    use report::Cause;

    let error = sent
        .withheld
        .refusal
        .map(|errno| Errno::from_raw(errno).desc());
    let mut causes: Vec<_> = [
        (Cause::BehindSchedule, sent.withheld.overdue, None),
        (Cause::TooLarge, sent.withheld.too_large, None),
        (Cause::QueueFull, sent.withheld.no_room, None),
        (Cause::Refused, sent.withheld.turned_away(), error),
        (Cause::NeverLeft, parts.never_left, None),
    ]
    .into_iter()
    .filter(|(_, count, _)| *count > 0)
    .map(|(cause, count, error)| report::NotSent {
        cause,
        count,
        error: error.map(str::to_owned),
    })
    .collect();
    causes.sort_by_key(|not_sent| std::cmp::Reverse(not_sent.count));
    causes
}

/// How long consecutive packets of one flow take at the mean rate, in nanoseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts: 53 bits are more than the precision of a rate"
)]
fn lasted_ns(parts: &Parts<'_>, packets: u64) -> Option<u64> {
    let flows = parts.ports.len().max(1) as f64;
    let pps = parts.sent.pps().filter(|pps| *pps > 0.0)?;
    let lasted = Duration::try_from_secs_f64(packets as f64 * flows / pps).ok()?;
    u64::try_from(lasted.as_nanos()).ok()
}

fn rejected(parts: &Parts<'_>) -> u64 {
    parts.delays.rejected() + parts.received.facts.times.without_delay()
}

fn timestamps(parts: &Parts<'_>) -> report::Timestamps {
    let measured = parts.delays.recorded() > 0;
    let delays = parts.delays.report();
    let same_clock = parts.delays.one_clock();
    let t1 = match parts.granted.transmit {
        Some(stamped) if parts.delays.t1_stamped() => stamped,
        _ => StampKind::Userspace,
    };
    let stamped = parts.granted.transmit.filter(|_| parts.delays.t1_stamped());
    let facts = &parts.received.facts;
    let reflector_format = reflector_format(&facts.times.readings);
    report::Timestamps {
        t1: delays.roundtrip.map(|_| t1),
        t2: parts.reflected.and_then(|(_, receive)| *receive),
        t4: measured.then_some(parts.granted.receive),
        reflector_format,
        reflector_format_shown: reflector_format.map(|_| facts.times.belief == Belief::Shown),
        exchanged: Some(facts.times.exchanged).filter(|n| *n > 0),
        granularity: measured.then_some(if shares_stamps(parts) {
            report::Granularity::Train
        } else {
            report::Granularity::Packet
        }),
        tx_stamp_one_in: stamped.map(|_| parts.sent.stamps.one_in.0),
        tx_stamp_one_in_most: stamped.map(|_| parts.sent.stamps.one_in.1),
        t1_spread: measured.then(|| spread(parts.delays.spread())),
        clock: report::Clock {
            same_clock: same_clock && measured,
            ..clocks(parts, same_clock)
        },
    }
}

/// What the two clocks say of themselves, and what the delays tell of them.
fn clocks(parts: &Parts<'_>, same_clock: bool) -> report::Clock {
    let local = os::clock_quality();
    let facts = &parts.received.facts;
    let course = parts.delays.course();
    let steps = course.steps.iter().map(|step| report::ClockStep {
        at: moment::to_the_nanosecond(step.at_ns),
        at_ns: step.at_ns,
        by_ns: step.by_ns,
        whose: step.whose,
    });
    let (from_ns, until_ns) = course.stretch_ns();
    // Of several reflectors there is no clock.
    let drift = course.drift.filter(|_| !same_clock && !parts.differs.host);
    report::Clock {
        same_clock,

        local_synchronised: local.map(|(synchronised, _)| synchronised),
        remote_synchronised: facts.estimates.synchronised(),
        local_error_ns: local.map(|(_, error_ns)| error_ns),
        remote_error_ns: facts.estimates.error_ns(),
        remote_estimates_unusable: facts.estimates.unusable(),
        // On one clock there is nothing to estimate.
        offset_estimate_ns: parts
            .delays
            .offset_estimate_ns()
            .filter(|_| !same_clock && !parts.differs.host),
        steps: steps.collect(),
        set_too_often: course.lost,
        remote_tick_ns: course.tick_ns.filter(|_| !parts.differs.host),
        one_way_from: from_ns.map(moment::to_the_nanosecond),
        one_way_until: until_ns.map(moment::to_the_nanosecond),
        drift_ppm: drift.map(|drift| drift.ppm),
        drift_error_ppm: drift.map(|drift| drift.error_ppm),
        drift_changed: drift.map(|drift| drift.bent),
        drift_taken_out: drift.map(|_| parts.delays.drift_taken_out()),
    }
}

fn spread(spread: &Spread) -> report::Spread {
    let (stretch_ns, stretches) = spread.stretches();
    report::Spread {
        stretch_ns,
        replies: stretches.iter().map(|stretch| stretch.replies).collect(),
        samples: stretches.iter().map(|stretch| stretch.samples).collect(),
    }
}

/// The one way in which all threads read T2 and T3.
fn reflector_format(readings: &[Reading]) -> Option<report::TimeFormat> {
    match readings {
        [Reading::Ntp] => Some(report::TimeFormat::Ntp),
        [Reading::Ptp] => Some(report::TimeFormat::Ptp),
        [Reading::UnixFraction] => Some(report::TimeFormat::UnixFraction),
        [Reading::NtpNanoseconds] => Some(report::TimeFormat::NtpNanoseconds),
        _ => None,
    }
}

/// Replies that did not come with the DSCP with which packets left.
fn of_other_dscp(tos: &[u64; 256], sent: u8) -> u64 {
    let other = (0..=u8::MAX).zip(tos).filter(|(tos, _)| tos >> 2 != sent);
    other.map(|(_, count)| count).sum()
}

/// The value seen most often; `None` where none was.
fn most_often(counts: &[u64; 256]) -> Option<u8> {
    let values = (0..=u8::MAX).zip(counts).filter(|(_, count)| **count > 0);
    values
        .max_by_key(|(_, count)| **count)
        .map(|(value, _)| value)
}

/// The Sender TTL that replies told most often, and whether it changed, without those that tell none.
///
/// A quirk of reflectors that do not fill the field in: with 0 (twampy's reflector, where it pads its
/// 38 octets), which is no TTL that can arrive, or with 255, as RFC 5357 §4.2.1 has it where the TTL
/// cannot be read. The latter means no hops only where there are none on the way back either.
fn ttl_at_reflector(told: &[u64; 256], hops_inbound: Option<u8>) -> (Option<u8>, bool) {
    let mut told = *told;
    told[0] = 0;
    let known = |ttl: &u8| *ttl < 255 || hops_inbound == Some(0);
    (most_often(&told).filter(known), changed(&told))
}

fn changed(counts: &[u64; 256]) -> bool {
    counts.iter().filter(|count| **count > 0).count() > 1
}

fn path(parts: &Parts<'_>) -> report::PathFacts {
    let facts = &parts.received.facts;
    // Hops cannot be told from a reply unless it left with 255, and no path is so long that less than
    // half of that is left.
    let hops_inbound = most_often(&facts.path.ttl_in)
        .filter(|ttl| *ttl > 128)
        .map(|ttl| 255 - ttl);
    let (ttl_out, changed_out) = ttl_at_reflector(&facts.path.ttl_out, hops_inbound);
    let hops_outbound = ttl_out
        .filter(|_| parts.config.socket.ttl == 255 && parts.granted.ttl)
        .map(|ttl| 255 - ttl);
    let known = hops_outbound.is_some() || hops_inbound.is_some();
    let differs = parts.differs;
    let one_path = |value: Option<u8>| value.filter(|_| !differs.host);
    let one_class = |value: Option<u8>| value.filter(|_| !differs.tos);
    let tos = one_class(most_often(&facts.path.tos_in));
    let tos_there = one_class(most_often(&facts.path.tos_there));
    report::PathFacts {
        hops_outbound: one_path(hops_outbound),
        hops_inbound: one_path(hops_inbound),
        hops_changed: (known && !differs.host).then(|| changed_out || changed(&facts.path.ttl_in)),
        dscp_sent: one_class(Some(parts.config.socket.tos >> 2)),
        dscp_at_reflector: tos_there.map(|tos| tos >> 2),
        dscp_received: tos.map(|tos| tos >> 2),
        ecn_at_reflector: tos_there.map(|tos| tos & 0b11),
        ecn_received: tos.map(|tos| tos & 0b11),
        reply_bytes: (!facts.sizes.of_replies.is_empty()).then(|| facts.sizes.of_replies.clone()),
        reply_size_ratio: ratio(facts.sizes.octets, facts.sizes.due_octets),
        replies_of_other_dscp: one_class(Some(parts.config.socket.tos >> 2))
            .filter(|_| tos.is_some())
            .map(|sent| of_other_dscp(&facts.path.tos_in, sent)),
        mtu: mtu(parts),
        next_hop: (parts.granted.next_hop)
            .filter(|_| !differs.host)
            .map(|hop| report::NextHop {
                address: hop.addr,
                resolved: hop.resolved,
                waited_ns: hop.waited_ns.unsigned_abs(),
            }),
    }
}

fn host(parts: &Parts<'_>, load: &report::Load) -> report::Host {
    let (sent, received) = (parts.sent, parts.received);
    let own = received.kernel_drops;
    // One of several reports is of its own sockets.
    let whole = parts.whole;
    let reflector = parts.reflected.filter(|_| whole);
    let reflector = reflector.and_then(|(totals, _)| totals.kernel_drops);
    let kernel_drops = match (own, reflector) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    let asked = parts.granted.transmit.is_some();
    let reasons = reasons::reasons(parts, kernel_drops, load);
    let usage = os::usage().filter(|_| whole);
    report::Host {
        verdict: match (reasons.is_empty(), received.counts.received) {
            (true, 0) => report::Verdict::NothingMeasured,
            (true, _) => report::Verdict::Ok,
            (false, _) => report::Verdict::ToolLimited,
        },
        reasons,
        kernel_drops,
        tx_stamps_requested: asked.then_some(sent.stamps.count),
        tx_stamps_received: asked.then_some(received.facts.stamps.back),
        samples_not_recorded: Some(received.unrecorded),
        refused_calls: [received.refused_call, sent.thread.refused_call]
            .into_iter()
            .flatten()
            .map(failed)
            .collect(),
        failure: failure(parts),
        io: match parts.config.socket.io {
            IoKind::Portable => report::Io::Portable,
            IoKind::Batched if cfg!(not(target_os = "linux")) => report::Io::Portable,
            IoKind::Batched if shares_stamps(parts) => report::Io::Offload,
            IoKind::Batched if received.refused_call.or(sent.thread.refused_call).is_some() => {
                report::Io::Single
            }
            IoKind::Batched => report::Io::Batched,
        },
        receive_buffer_bytes: parts.granted.receive_buffer,
        cpu: report::Cpu {
            sender: sent.thread.cpus.clone(),
            receiver: received.cpus.clone(),
            user_seconds: usage.map(|(user, _, _)| user),
            system_seconds: usage.map(|(_, system, _)| system),
        },
        peak_memory_bytes: usage.map(|(_, _, peak)| peak),
    }
}

/// The call that failed for good, of whichever thread.
fn failure(parts: &Parts<'_>) -> Option<report::FailedCall> {
    let own = parts
        .received
        .failure
        .or(parts.sent.thread.failure)
        .map(failed);
    let reflector = || {
        parts
            .reflected
            .and_then(|(totals, _)| totals.failure.clone())
    };
    own.or_else(reflector)
}

#[cfg(test)]
mod tests {
    use super::super::sender::DepartureTimes;
    use super::*;
    use crate::config::{End, Rate};
    use crate::engine::receiver::{Facts, Received};
    use crate::io::Granted;
    use crate::report::Reason;
    use crate::stats::delay::Delays;
    use crate::stats::sequence::Counts;

    fn config() -> SessionConfig {
        SessionConfig {
            departures: Departures::Periodic(Rate::from_interval(1_000_000).unwrap()),
            end: End {
                count: Some(1000),
                duration_ns: None,
            },
            ..SessionConfig::new(
                "192.0.2.1:0".parse().unwrap(),
                "192.0.2.2:862".parse().unwrap(),
            )
        }
    }

    /// The report of 1,000 packets of which `lost` did not come back and our socket dropped `drops`.
    fn of(lost: u64, drops: Option<u64>) -> Report {
        with(lost, drops, Facts::new(1))
    }

    fn with(lost: u64, drops: Option<u64>, facts: Facts) -> Report {
        made(lost, drops, facts, 0, Differs::default())
    }

    fn made(
        lost: u64,
        drops: Option<u64>,
        facts: Facts,
        never_left: u64,
        differs: Differs,
    ) -> Report {
        let sent = Sent {
            sent: 1000,
            by_class: vec![1000],
            times: DepartureTimes {
                last_ns: 999_000_000,
                last_burst: 1,
                longest_burst: 1,
                ..DepartureTimes::default()
            },
            ..Sent::default()
        };
        let received = Received {
            counts: Counts {
                received: 1000 - lost,
                directions: Some(Directions {
                    lost_outbound: lost,
                    ..Directions::default()
                }),
                ..Counts::default()
            },
            facts,
            kernel_drops: drops,
            unrecorded: 0,
            cut_short: false,
            cpus: None,
            refused_call: None,
            failure: None,
        };
        put_together(&config(), &sent, &received, differs, |parts| {
            report(&Parts {
                never_left,
                ..*parts
            })
        })
    }

    fn put_together<T>(
        config: &SessionConfig,
        sent: &Sent,
        received: &Received,
        differs: Differs,
        make: impl FnOnce(&Parts<'_>) -> T,
    ) -> T {
        make(&Parts {
            scope: report::Scope::Session,
            terms: Terms::Light,
            whole: true,
            differs,
            ports: &[],
            silent: &[],
            never_left: 0,
            config,
            granted: &Granted {
                local: "192.0.2.1:40000".parse().unwrap(),
                receive: StampKind::Kernel,
                transmit: None,
                ttl: true,
                icmp: true,
                receive_buffer: None,
                remarks: Vec::new(),
                next_hop: None,
            },
            window: 1000,
            sent,
            received,
            delays: &Delays::new(1, false),
            reflected: None,
        })
    }

    #[test]
    fn a_datagram_has_as_many_fragments_as_it_takes() {
        for (payload, v6, mtu, fragments) in [
            (1472, false, 1500, 1),
            (1473, false, 1500, 2),
            (8972, false, 1500, 7),
            (1452, true, 1500, 1),
            (1453, true, 1500, 2),
            (2 * 1448 - 8, true, 1500, 2),
            (2 * 1448 - 7, true, 1500, 3),
            (65_507, false, 68, 1365),
        ] {
            assert_eq!(fragments_of(payload, v6, mtu), fragments, "{payload} {mtu}");
        }
    }

    #[test]
    fn random_gaps_are_not_called_a_rate_that_was_not_kept() {
        let kept = |departures: Departures| {
            let config = SessionConfig {
                departures,
                ..config()
            };
            let sent = Sent {
                sent: 1000,
                times: DepartureTimes {
                    late: 3,
                    last_ns: 999_000_000,
                    ..DepartureTimes::default()
                },
                ..Sent::default()
            };
            let load = report::Load {
                offered_pps: Some(1000.0),
                achieved_pps: Some(900.0),
                ..of(0, None).load
            };
            let received = Received::together(1, std::iter::empty());
            let reasons = put_together(&config, &sent, &received, Differs::default(), |parts| {
                reasons::reasons(parts, None, &load)
            });
            !reasons
                .iter()
                .any(|reason| matches!(reason, Reason::RateNotKept { .. }))
        };
        let rate: Rate = "1k".parse().unwrap();
        assert!(!kept(Departures::Periodic(rate)));
        assert!(kept(Departures::Poisson(rate)));
    }

    /// Of a run of 1,000 packets a second for so many seconds, with 400 late departures and the latest so
    /// many milliseconds late.
    fn reasons_of(departures: Departures, achieved: f64, took: i64, slip_ms: i64) -> Vec<Reason> {
        let config = SessionConfig {
            departures,
            ..config()
        };
        let sent = Sent {
            sent: 1000,
            times: DepartureTimes {
                late: 400,
                max_slip_ns: slip_ms * 1_000_000,
                last_ns: took * 1_000_000_000,
                ..DepartureTimes::default()
            },
            ..Sent::default()
        };
        let load = report::Load {
            offered_pps: Some(1000.0),
            achieved_pps: Some(achieved),
            ..of(0, None).load
        };
        let received = Received::together(1, std::iter::empty());
        put_together(&config, &sent, &received, Differs::default(), |parts| {
            reasons::reasons(parts, None, &load)
        })
    }

    /// Packets that left late and made up for it were burstier than asked for: that spoils neither loss nor
    /// delays, and the load had its rate.
    #[test]
    fn late_departures_alone_limit_nothing() {
        let rate: Rate = "1k".parse().unwrap();
        let (even, random) = (Departures::Periodic(rate), Departures::Poisson(rate));
        let nothing: &[Reason] = &[];
        assert_eq!(reasons_of(even, 1000.0, 1, 300), nothing);
        assert_eq!(reasons_of(even, 999.0, 1000, 300), nothing);
        assert_eq!(reasons_of(random, 900.0, 1, 19), nothing);
        // The last departure was late, as it is now and then where others want the core.
        assert_eq!(reasons_of(even, 991.0, 10, 300), nothing);
        assert_eq!(reasons_of(even, 997.1, 1, 300), nothing);

        for (achieved_pps, took) in [(998.0, 100), (980.0, 1)] {
            let slow = Reason::RateNotKept {
                offered_pps: 1000.0,
                achieved_pps,
            };
            assert_eq!(reasons_of(even, achieved_pps, took, 300), [slow]);
        }
        let late = Reason::LateDepartures {
            late: 400,
            sent: 1000,
        };
        assert_eq!(reasons_of(random, 900.0, 1, 300), [late]);
    }

    #[test]
    fn drops_of_our_own_socket_are_not_called_the_paths_loss() {
        let report = of(970, Some(970));
        assert_eq!(report.packets.lost, Some(970));
        assert_eq!(report.host.kernel_drops, Some(970));
        assert_eq!(report.host.verdict, report::Verdict::ToolLimited);
        let drops = Reason::SocketDrops {
            datagrams: 970,
            bundles: false,
        };
        assert_eq!(report.host.reasons, [drops]);
    }

    /// The report of 1,000 packets with these counts, and of so many probes.
    fn counted(counts: Counts, probes: u64) -> Report {
        let sent = Sent {
            sent: 1000,
            probes,
            by_class: vec![1000],
            ..Sent::default()
        };
        let received = Received {
            counts,
            facts: Facts::new(1),
            kernel_drops: None,
            unrecorded: 0,
            cut_short: false,
            cpus: None,
            refused_call: None,
            failure: None,
        };
        put_together(&config(), &sent, &received, Differs::default(), report)
    }

    fn words(report: &Report) -> String {
        let notes: Vec<String> = report.notes.iter().map(ToString::to_string).collect();
        notes.join(" ")
    }

    #[test]
    fn a_counter_that_nobody_needs_is_not_said_to_be_unproved() {
        let clean = Counts {
            received: 1000,
            directions: Some(Directions::default()),
            ..Counts::default()
        };
        for own_counter in [None, Some(false), Some(true)] {
            let counts = Counts {
                own_counter,
                ..clean.clone()
            };
            let report = counted(counts.clone(), 0);
            let packets = &report.packets;
            assert_eq!(
                (packets.lost_outbound, packets.lost_inbound),
                (Some(0), Some(0))
            );
            assert_eq!(
                (packets.duplicates_inbound, packets.probes),
                (Some(0), Some(0))
            );
            assert!(!words(&report).contains("direction"), "{:?}", report.notes);
            // Copies have a direction where the reflector's numbers tell it.
            let copied = Counts {
                duplicates: 2,
                ..counts
            };
            let report = counted(copied, 3);
            let told = own_counter == Some(true);
            assert_eq!(report.packets.duplicates_inbound, told.then_some(0));
            assert_eq!(report.packets.reordered_inbound, Some(0));
            assert_eq!(report.packets.probes, Some(3));
            let said = words(&report).contains("duplicates and reordering by direction");
            assert_eq!(said, !told, "{:?}", report.notes);
        }
        let lost = Counts {
            received: 990,
            ..Counts::default()
        };
        let report = counted(lost, 3);
        assert_eq!(report.packets.lost_outbound, None);
        assert!(words(&report).contains("could not be proved: loss by direction"));
    }

    #[test]
    fn notes_on_directions_fit_what_is_told_of_them() {
        let said = |counts: Counts| words(&counted(counts, 0));
        let doubled = |lost_inbound: u64| Counts {
            received: 1000 - lost_inbound,
            duplicates: 3,
            own_counter: Some(true),
            directions: Some(Directions {
                lost_inbound,
                duplicates_outbound: 3,
                ..Directions::default()
            }),
            ..Counts::default()
        };
        // Of nothing there is no estimate.
        assert!(!said(doubled(0)).contains("an estimate"));
        assert!(said(doubled(2)).contains("an estimate"));
        let others = |directions: Option<Directions>| Counts {
            received: 990,
            given_to_others: 5,
            directions,
            ..Counts::default()
        };
        let told = others(Some(Directions::default()));
        assert!(said(told).contains("leaves out"));
        let unknown = said(others(None));
        assert!(unknown.contains("answered 5 packets") && !unknown.contains("leaves out"));
        let cut = Counts {
            received: 900,
            unresolved: 50,
            own_counter: Some(true),
            ..Counts::default()
        };
        let why = "still awaited when interrupted may be lost on either way: loss by direction";
        assert!(said(cut).contains(why));
    }

    #[test]
    fn hops_are_not_told_by_a_ttl_that_is_none() {
        let told = |ttls: &[(u8, u64)], hops_inbound| {
            let mut counts = [0; 256];
            for (ttl, count) in ttls {
                counts[usize::from(*ttl)] = *count;
            }
            ttl_at_reflector(&counts, hops_inbound)
        };
        assert_eq!(told(&[(0, 100)], Some(3)), (None, false));
        assert_eq!(told(&[(255, 100)], Some(3)), (None, false));
        assert_eq!(told(&[(255, 100)], Some(0)), (Some(255), false));
        assert_eq!(told(&[(252, 100)], Some(3)), (Some(252), false));
        assert_eq!(told(&[(0, 100), (252, 7)], None), (Some(252), false));
        assert_eq!(told(&[(251, 1), (252, 7)], None), (Some(252), true));
    }

    #[test]
    fn what_several_sessions_do_not_share_is_not_told() {
        let mut facts = Facts::new(1);
        facts.path.ttl_in[255] = 1000;
        facts.path.ttl_out[254] = 1000;
        facts.path.tos_in[0xb9] = 1000;
        facts.path.tos_there[0xba] = 1000;
        let of = |differs: Differs| {
            let facts = facts.clone();
            let report = made(0, None, facts, 0, differs);
            let path = report.path;
            (
                report.remote.is_some(),
                path.hops_outbound.zip(path.hops_inbound),
                path.dscp_sent,
                path.dscp_at_reflector.zip(path.ecn_at_reflector),
                path.dscp_received.zip(path.ecn_received),
            )
        };
        let (hops, there, back) = (Some((1, 0)), Some((46, 2)), Some((46, 1)));
        let same = of(Differs::default());
        assert_eq!(same, (true, hops, Some(0), there, back));
        let tos = of(Differs {
            tos: true,
            ..Differs::default()
        });
        assert_eq!(tos, (true, hops, None, None, None));
        let port = of(Differs {
            remote: true,
            ..Differs::default()
        });
        assert_eq!(port, (false, hops, Some(0), there, back));
        let host = of(Differs {
            remote: true,
            host: true,
            tos: false,
        });
        assert_eq!(host, (false, None, Some(0), there, back));
    }

    #[test]
    fn what_never_left_was_not_sent() {
        let report = made(100, None, Facts::new(1), 30, Differs::default());
        let packets = &report.packets;
        assert_eq!((packets.sent, packets.not_sent), (Some(970), Some(30)));
        assert_eq!((packets.lost, packets.lost_outbound), (Some(70), Some(70)));
        assert_eq!(packets.loss_bursts, None);
        assert_eq!(report.host.reasons, [Reason::NeverLeft { packets: 30 }]);
    }

    #[test]
    fn loss_without_such_drops_is_the_paths() {
        for drops in [Some(0), None] {
            let report = of(970, drops);
            assert_eq!(report.packets.lost, Some(970));
            assert_eq!(report.host.verdict, report::Verdict::Ok);
            assert_eq!(report.host.kernel_drops, drops);
        }
    }
}
