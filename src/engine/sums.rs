//! Tests: what several threads of a session did and found is what they did and found together. Every
//! count of a thread is another one, and not 0; a field that is added without a line here does not
//! compile.

use std::net::SocketAddr;

use super::icmp::IcmpErrors;
use super::receiver::facts::{Path, Sizes, Stamps, Times};
use super::receiver::{Belief, Estimates, Facts, Received};
use super::reflector::{Reflected, RequestCounts};
use super::sender::{Asked, DepartureTimes, Sent, ThreadFacts, Withheld};
use crate::io::{Icmp, RefusedCall};
use crate::report::ignored::{Ignored, Kind};
use crate::report::reflector::Injected;
use crate::report::unsent::Unsent;
use crate::stats::clock::OwnStep;
use crate::stats::sequence::Counts;
use crate::wire::{ErrorEstimate, Format, Reading};

const FIRST: RefusedCall = RefusedCall {
    call: "recvmmsg",
    errno: 1,
};
const SECOND: RefusedCall = RefusedCall {
    call: "recvmsg",
    errno: 2,
};

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn own_step(by_ns: i64) -> OwnStep {
    OwnStep {
        after_ns: 1,
        until_ns: 2,
        by_ns,
    }
}

/// Counts at a value each, of every kind of datagram.
fn ignored(mut count: impl FnMut() -> u64) -> Ignored {
    let mut ignored = Ignored::default();
    for kind in Kind::ALL {
        ignored.note(kind, count());
    }
    ignored
}

fn icmp(errnos: &[i32]) -> IcmpErrors {
    let mut errors = IcmpErrors::default();
    for errno in errnos {
        errors.note(&Icmp::of_errno(*errno));
    }
    errors
}

/// Of `good` replies of a synchronised clock and `bad` ones of another, and some that do not tell.
fn estimates(good: u64, bad: u64, unusable: u64) -> Estimates {
    let mut estimates = Estimates::default();
    let worse = 1000 * bad;
    estimates.note(ErrorEstimate::new(true, Format::Ntp, 1000), good);
    estimates.note(ErrorEstimate::new(false, Format::Ntp, worse), bad);
    estimates.note(ErrorEstimate::UNKNOWN, good + bad);
    estimates.note(ErrorEstimate::from_raw(0x8000), unusable);
    estimates
}

/// Facts with every count another one, from `from` on, and each of the tables with an entry of its own.
fn facts_from(from: u64) -> Facts {
    let mut next = from..;
    let mut count = || next.next().unwrap();
    let mut facts = Facts::new(0);
    facts.sizes.by_class = vec![count(), count()];
    facts.ignored = ignored(&mut count);
    for field in [
        &mut facts.times.rejected,
        &mut facts.times.untold,
        &mut facts.times.unstamped,
        &mut facts.cut,
        &mut facts.stamps.back,
        &mut facts.stamps.lost,
        &mut facts.times.other_format,
        &mut facts.times.misread,
        &mut facts.path.ttl_out[255],
        &mut facts.path.ttl_in[0],
        &mut facts.path.tos_in[7],
        &mut facts.path.tos_there[184],
        &mut facts.sizes.octets,
        &mut facts.sizes.due_octets,
        &mut facts.times.exchanged,
        &mut facts.path.short_replies,
        &mut facts.bundled,
        &mut facts.stamps.waits.count,
    ] {
        *field = count();
    }
    facts
}

fn received(facts: Facts) -> Received {
    Received {
        counts: Counts::default(),
        facts,
        kernel_drops: None,
        unrecorded: 0,
        cut_short: false,
        cpus: None,
        refused_call: None,
        failure: None,
    }
}

fn together(threads: &[Received; 2]) -> Received {
    Received::together(2, threads.iter().map(|one| (0, one)))
}

#[test]
fn facts_of_two_receivers_add_up() {
    let mut first = facts_from(100);
    first.elsewhere_from = None;
    first.icmp = icmp(&[libc::EHOSTUNREACH, libc::ECONNREFUSED]);
    first.own_steps.push(own_step(3));
    first.times.readings.push(Reading::Ntp);
    first.times.belief = Belief::Shown;
    first.sizes.of_replies.extend([41, 1472]);
    first.estimates = estimates(11, 3, 5);
    let mut second = facts_from(1000);
    second.elsewhere_from = Some(address(7));
    second.icmp = icmp(&[libc::EHOSTUNREACH]);
    second.own_steps.push(own_step(-4));
    second.times.readings.extend([Reading::Ptp, Reading::Ntp]);
    second.times.belief = Belief::Denied;
    second.sizes.of_replies.extend([41, 9]);
    second.sizes.more = true;
    second.estimates = estimates(23, 2, 29);
    for swapped in [false, true] {
        let (a, b) = (received(first.clone()), received(second.clone()));
        let all = together(&if swapped { [b, a] } else { [a, b] });
        // What counts from 100 and from 1,000 together.
        let mut next = (1100..).step_by(2);
        let mut sum = || next.next().unwrap();
        // None may be left out.
        let Facts {
            ignored: of_kinds,
            elsewhere_from,
            icmp: errors,
            mut own_steps,
            times,
            stamps,
            path,
            sizes,
            estimates: quality,
            cut,
            bundled,
        } = all.facts;
        let Times {
            rejected,
            untold,
            unstamped,
            misread,
            other_format,
            exchanged,
            mut readings,
            belief,
        } = times;
        let Stamps { back, lost, waits } = stamps;
        let Path {
            ttl_out,
            ttl_in,
            tos_in,
            tos_there,
            short_replies,
        } = path;
        let Sizes {
            by_class,
            of_replies,
            more,
            octets,
            due_octets,
        } = sizes;
        assert_eq!(by_class, [sum(), sum()]);
        assert_eq!(of_kinds, ignored(&mut sum));
        let counts = [
            rejected,
            untold,
            unstamped,
            cut,
            back,
            lost,
            other_format,
            misread,
            ttl_out[255],
            ttl_in[0],
            tos_in[7],
            tos_there[184],
            octets,
            due_octets,
            exchanged,
            short_replies,
            bundled,
            waits.count,
        ];
        assert_eq!(counts, counts.map(|_| sum()));
        for (table, entries) in [(&ttl_out, 1), (&ttl_in, 1), (&tos_in, 1), (&tos_there, 1)] {
            assert_eq!(table.iter().filter(|count| **count > 0).count(), entries);
        }
        let icmp_of_both = [libc::EHOSTUNREACH, libc::ECONNREFUSED, libc::EHOSTUNREACH];
        assert_eq!(
            errors.report(|_| false),
            icmp(&icmp_of_both).report(|_| false)
        );
        let mut both = estimates(11, 3, 5);
        let other = estimates(23, 2, 29);
        assert_eq!(
            (quality.synchronised(), quality.unusable()),
            (Some(false), Some(34))
        );
        both.add(&other);
        assert_eq!(quality, both);
        own_steps.sort_by_key(|step| step.by_ns);
        assert_eq!(own_steps, [own_step(-4), own_step(3)]);
        readings.sort_by_key(|reading| *reading == Reading::Ptp);
        assert_eq!(readings, [Reading::Ntp, Reading::Ptp]);
        assert_eq!(belief, Belief::Denied);
        assert_eq!(elsewhere_from, Some(address(7)));
        assert_eq!((of_replies, more), (vec![9, 41, 1472], true));
    }
}

#[test]
fn what_two_receivers_had_happen_happened_to_the_session() {
    let first = || Received {
        kernel_drops: Some(3),
        unrecorded: 5,
        cpus: Some(vec![2, 0]),
        refused_call: Some(FIRST),
        ..received(Facts::new(2))
    };
    let second = || Received {
        kernel_drops: Some(4),
        unrecorded: 7,
        cut_short: true,
        cpus: Some(vec![1, 2]),
        refused_call: Some(SECOND),
        failure: Some(SECOND),
        ..received(Facts::new(2))
    };
    for (threads, refused) in [([first(), second()], FIRST), ([second(), first()], SECOND)] {
        let all = together(&threads);
        assert_eq!((all.kernel_drops, all.unrecorded), (Some(7), 12));
        assert!(all.cut_short);
        assert_eq!(all.cpus, Some(vec![0, 1, 2]));
        assert_eq!(all.refused_call, Some(refused));
        assert_eq!(all.failure, Some(SECOND));
    }
    // What is not known of one is not known of all.
    let all = together(&[first(), received(Facts::new(2))]);
    assert_eq!(
        (all.kernel_drops, all.cpus, all.cut_short),
        (None, None, false)
    );
}

/// A sender with every count another one, from `from` on.
fn sent_from(from: u64) -> Sent {
    let mut next = from..;
    let mut count = || next.next().unwrap();
    Sent {
        sent: count(),
        withheld: Withheld {
            overdue: count(),
            refused: count(),
            refusal: None,
            no_room: count(),
            too_large: count(),
        },
        gave_up: count(),
        probes: count(),
        by_class: vec![count(), count()],
        times: DepartureTimes {
            late: count(),
            ..DepartureTimes::default()
        },
        stamps: Asked {
            count: count(),
            one_in: (0, 0),
        },
        began_anew: count(),
        ..Sent::default()
    }
}

#[test]
fn totals_of_two_senders_add_up() {
    let (mut first, mut second) = (sent_from(100), sent_from(1000));
    (first.withheld.refusal, second.withheld.refusal) = (Some(11), Some(12));
    second.unfolded = Some(13);
    first.icmp = icmp(&[libc::EHOSTUNREACH]);
    second.icmp = icmp(&[libc::EHOSTUNREACH, libc::ECONNREFUSED]);
    first.times = DepartureTimes {
        longest_burst: 64,
        last_burst: 3,
        max_slip_ns: 70,
        first_ns: 1000,
        last_ns: 9000,
        started_ns: 5000,
        ..first.times
    };
    second.times = DepartureTimes {
        longest_burst: 32,
        last_burst: 5,
        max_slip_ns: 60,
        first_ns: 1500,
        last_ns: 8000,
        started_ns: 5500,
        ..second.times
    };
    (first.stamps.one_in, second.stamps.one_in) = ((4, 8), (2, 4));
    second.interrupted = true;
    first.thread = ThreadFacts {
        cpus: Some(vec![3]),
        refused_call: Some(FIRST),
        ..ThreadFacts::default()
    };
    second.thread = ThreadFacts {
        cpus: Some(vec![1]),
        realtime_refused: Some("no".to_owned()),
        refused_call: None,
        failure: Some(SECOND),
    };
    for threads in [[&first, &second], [&second, &first]] {
        let mut next = (1100..).step_by(2);
        let mut sum = || next.next().unwrap();
        let Sent {
            sent,
            by_class,
            probes,
            times,
            withheld,
            stamps,
            unfolded,
            icmp: errors,
            interrupted,
            gave_up,
            began_anew,
            thread,
            rates,
        } = Sent::together(threads.into_iter());
        let counts = [
            sent,
            withheld.overdue,
            withheld.refused,
            withheld.no_room,
            withheld.too_large,
            gave_up,
            probes,
            by_class[0],
            by_class[1],
            times.late,
            stamps.count,
            began_anew,
        ];
        assert_eq!(counts, counts.map(|_| sum()));
        assert_eq!(withheld.refusal, threads[0].withheld.refusal);
        assert_eq!(
            (unfolded, thread.refused_call, thread.failure),
            (Some(13), Some(FIRST), Some(SECOND))
        );
        let icmp_of_both = [libc::EHOSTUNREACH, libc::EHOSTUNREACH, libc::ECONNREFUSED];
        assert_eq!(errors, icmp(&icmp_of_both));
        let DepartureTimes {
            first_ns,
            last_ns,
            started_ns,
            late: _,
            max_slip_ns,
            longest_burst,
            // Each thread has its own: see `rates`.
            last_burst: _,
        } = times;
        assert_eq!((longest_burst, max_slip_ns), (64, 70));
        assert_eq!((first_ns, last_ns, started_ns), (1000, 9000, 5000));
        assert_eq!(stamps.one_in, (2, 8));
        assert!(interrupted);
        assert_eq!(thread.cpus, Some(vec![1, 3]));
        assert_eq!(thread.realtime_refused.as_deref(), Some("no"));
        assert_eq!(rates.len(), 2);
    }
}

/// What a reflector counted, of each kind a count of its own.
fn reflected(mut count: impl FnMut() -> u64) -> Reflected {
    Reflected {
        counts: RequestCounts {
            received: count(),
            received_octets: count(),
            reflected: count(),
            unsent: count(),
            ignored: ignored(&mut count),
            bundled: count(),
            estimates_unusable: count(),
        },
        cut: count(),
        unsent_by: {
            let mut unsent = Unsent::default();
            for errno in [libc::EPERM, libc::ENOBUFS] {
                unsent.note(errno, count());
            }
            unsent
        },
        sessions: count(),
        evicted: count(),
        kernel_drops: Some(count()),
        cpus: None,
        refused_calls: Vec::new(),
        failure: None,
        injected: Some(Injected {
            dropped: count(),
            duplicated: count(),
            reordered: count(),
            delayed: count(),
            corrupted: count(),
            rate_limited: count(),
            not_held: count(),
            unreleased: count(),
        }),
        records: None,
    }
}

#[test]
fn counts_of_two_reflectors_add_up() {
    let from = |first: u64, step| {
        let mut next = (first..).step_by(step);
        reflected(move || next.next().unwrap())
    };
    let (first, second) = (from(100, 1), from(1000, 1));
    for (first, second) in [(&first, &second), (&second, &first)] {
        let mut all = first.clone();
        all.add(second);
        assert_eq!(all, from(1100, 2));
        // One that does not know of drops takes nothing from what is known.
        let mut all = first.clone();
        all.add(&Reflected::default());
        assert_eq!(&all, first);
        let mut all = Reflected::default();
        all.add(first);
        assert_eq!(&all, first);
    }
}
