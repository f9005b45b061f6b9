//! An attempt that finds that the peer is not there yet is given up.

use super::super::side::{Next, Plan};
use super::{BEGIN_NS, Bench, plan, reflector, reply, request};
use crate::engine::flight::{Flight, Grace};
use crate::io::{Event, Icmp};
use crate::wire::Format;

#[test]
fn an_attempt_ends_where_a_packet_is_refused_before_any_answer() {
    let grace = Grace {
        ns: i64::MAX,
        first_ns: 1,
    };
    let attempt = |first_begun_ns| {
        let flight = Flight::new(64, 0).with_grace(grace);
        let plan = Plan {
            first_begun_ns,
            ..plan(false)
        };
        (flight, plan)
    };
    let mut mirror = reflector(false, Format::Ntp);
    let (flight, plan) = attempt(None);
    let mut bench = Bench::new(&plan, &flight);
    let t1_ns = BEGIN_NS + 1;
    let former = request(&flight, 0, t1_ns, false);
    bench.event(Event::Icmp(Icmp::of_errno(libc::EHOSTUNREACH)));
    assert!(!is_absent(&mut bench), "only a closed port may open");
    refusal(&mut bench);
    assert!(is_absent(&mut bench));
    assert_eq!(bench.side.facts.icmp.total(), 1);
    let (begun_ns, answered, _) = bench.side.give_up();
    assert!(!answered);

    let again_ns = t1_ns + 1;
    let (flight, plan) = attempt(Some(begun_ns));
    let mut bench = Bench::watched(&plan, &flight, None, again_ns);
    refusal(&mut bench);
    assert!(
        !is_absent(&mut bench),
        "nothing has left: it is of the attempt before"
    );
    assert_eq!(bench.side.facts.icmp.total(), 0);
    // An answer to a packet of that one is none, before the first packet leaves and after it.
    let stale = reply(&mut mirror, &former, t1_ns + 5, Format::Ntp);
    bench.arrive(&stale, t1_ns + 10);
    let t1_ns = again_ns + 1;
    let packets = [0, 1].map(|seq| request(&flight, seq, t1_ns, false));
    bench.arrive(&stale, t1_ns + 10);
    assert_eq!(bench.counts(), (0, 0));
    // One to another packet than the first says that the port has just been opened.
    let second = reply(&mut mirror, &packets[1], t1_ns + 5, Format::Ntp);
    bench.arrive(&second, t1_ns + 10);
    bench.arrive(&second, t1_ns + 10);
    assert_eq!(bench.counts().0, 0);
    assert!(is_absent(&mut bench));
    let (begun_ns, answered, _) = bench.side.give_up();
    assert!(answered);

    // Then there is no grace any more.
    let (_, plan) = attempt(Some(begun_ns));
    let flight = Flight::new(64, 0);
    let again_ns = t1_ns + 100;
    let mut bench = Bench::watched(&plan, &flight, None, again_ns);
    let t1_ns = again_ns + 1;
    let packets = [0, 1].map(|seq| request(&flight, seq, t1_ns, false));
    let second = reply(&mut mirror, &packets[1], t1_ns + 5, Format::Ntp);
    bench.arrive(&second, t1_ns + 10);
    assert_eq!(bench.counts().0, 1, "the first packet is lost");
    refusal(&mut bench);
    assert!(!is_absent(&mut bench));
    assert_eq!(bench.side.facts.icmp.total(), 1);
}

/// The sender may be told of a refusal while an answer is under way.
#[test]
fn a_refusal_that_the_sender_met_ends_no_attempt_that_has_an_answer() {
    for answered in [false, true] {
        let grace = Grace {
            ns: i64::MAX,
            first_ns: 1,
        };
        let flight = Flight::new(64, 0).with_grace(grace);
        let plan = plan(false);
        let mut bench = Bench::new(&plan, &flight);
        let mut mirror = reflector(false, Format::Ntp);
        let t1_ns = BEGIN_NS + 1;
        let octets = request(&flight, 0, t1_ns, false);
        if answered {
            let octets = reply(&mut mirror, &octets, t1_ns + 5, Format::Ntp);
            bench.arrive(&octets, t1_ns + 10);
        }
        flight.sender().ask_whether_absent();
        assert_eq!(is_absent(&mut bench), !answered);
        assert!(!flight.receiver().is_asked());
    }
}

fn is_absent(bench: &mut Bench<'_>) -> bool {
    bench.tick(1) == Next::Absent
}

fn refusal(bench: &mut Bench<'_>) {
    bench.event(Event::Icmp(Icmp::of_errno(libc::ECONNREFUSED)));
}
