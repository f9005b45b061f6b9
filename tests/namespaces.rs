//! The real binary between network namespaces, made by an ordinary user: loss that is known exactly,
//! routes, MTUs and addresses that loopback does not have.

mod common;

use common::assert_no_loss;
use common::namespace::{Namespace, Pair, or_skip};
use serde_json::Value;

/// Drops one of every ten packets on their way into one side, the first (0) or the last (9), and
/// checks what the sender says of it.
fn lose(pair: &Pair, host: &str, outbound: bool, which: u32) -> Result<(), String> {
    let reflector = pair.far.reflector(&format!("{host}:0"));
    let remote = reflector.address();
    pair.warm_up(remote);
    let (side, port) = match outbound {
        true => (&pair.far, "dport"),
        false => (&pair.near, "sport"),
    };
    side.set_up(&format!(
        "nft add table inet loss
         nft add chain inet loss into '{{ type filter hook input priority 0; }}'
         nft add rule inet loss into udp {port} {} numgen inc mod 10 == {which} drop",
        remote.port()
    ))?;
    let line = format!("sender {remote} -c 1000 -i 1ms --json");
    let report = pair.near.run(&line).measured();
    side.set_up("nft delete table inet loss")?;

    let packets = &report["packets"];
    let case = format!("{host}, outbound {outbound}, {which}: {packets:#}");
    assert_eq!(packets["sent"], 1000, "{case}");
    assert_eq!(packets["received"], 900, "{case}");
    assert_eq!(packets["lost"], 100, "{case}");
    let (out, back) = if outbound { (100, 0) } else { (0, 100) };
    assert_eq!(packets["lost_outbound"], out, "{case}");
    assert_eq!(packets["lost_inbound"], back, "{case}");
    assert_eq!(packets["lost_unattributed"], 0, "{case}");
    assert_eq!(packets["loss_bursts"]["longest"], 1, "{case}");
    assert_eq!(packets["icmp_unreachable"], 0, "{case}");
    Ok(())
}

fn lose_over(host: &str) {
    let pair = or_skip!(Pair::new());
    for outbound in [true, false] {
        for which in [0, 9] {
            or_skip!(lose(&pair, host, outbound, which));
        }
    }
}

#[test]
fn loss_is_told_by_direction_to_the_packet_over_ipv4() {
    lose_over("10.9.0.2");
}

#[test]
fn loss_is_told_by_direction_to_the_packet_over_ipv6() {
    lose_over("[fd09::2]");
}

/// Every second packet is turned away on its way, and says so. That is the path's doing, and none of the
/// others stays behind for it.
fn prohibit(pair: &Pair, host: &str, icmp: &str, io: &str) -> Result<(), String> {
    let reflector = pair.far.reflector(&format!("{host}:0"));
    let remote = reflector.address();
    pair.warm_up(remote);
    pair.far.set_up(&format!(
        "echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
         echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
         nft add table inet wall
         nft add chain inet wall into '{{ type filter hook input priority 0; }}'
         nft add rule inet wall into udp dport {} numgen inc mod 2 == 0 reject with {icmp}",
        remote.port()
    ))?;
    let line =
        format!("sender {remote} -c 1000 --rate 20k --packet-timeout 500ms --io {io} --json");
    let report = pair.near.run(&line).measured();
    pair.far.set_up("nft delete table inet wall")?;
    let case = format!("{host} {io}: {report:#}");
    let packets = &report["packets"];
    assert_eq!(
        (&packets["sent"], &packets["not_sent"]),
        (&1000.into(), &0.into()),
        "{case}"
    );
    assert_eq!(packets["received"], 500, "{case}");
    // A socket without a queue of errors remembers one of them, and systems send so many a second.
    let told = packets["icmp_unreachable"].as_u64().unwrap();
    assert!((1..=500).contains(&told), "{case}: {told}");
    assert!(
        !report["host"]["reasons"].to_string().contains("refused"),
        "{case}"
    );
    Ok(())
}

#[test]
fn packets_that_are_prohibited_on_the_way_are_not_refused_by_this_host() {
    let pair = or_skip!(Pair::new());
    for io in ["batched", "portable"] {
        or_skip!(prohibit(&pair, "10.9.0.2", "icmp type host-prohibited", io));
        or_skip!(prohibit(
            &pair,
            "[fd09::2]",
            "icmpv6 type admin-prohibited",
            io
        ));
    }
}

#[test]
fn what_this_host_forbids_is_named() {
    let pair = or_skip!(Pair::new());
    let complains = |line: &str, cause: &str| {
        let outcome = pair.near.run(line);
        assert_eq!(outcome.code, 1, "{line}: {outcome:?}");
        assert!(outcome.complaint().contains(cause), "{line}: {outcome:?}");
    };
    for kind in ["blackhole", "unreachable", "prohibit"] {
        or_skip!(pair.near.set_up(&format!(
            "ip route add {kind} 10.20.0.1
             ip -6 route add {kind} fd20::1"
        )));
        for host in ["10.20.0.1", "[fd20::1]"] {
            for command in ["sender", "controller"] {
                complains(
                    &format!("{command} {host}:862 -c 1"),
                    &format!("`{kind}` route"),
                );
            }
        }
        or_skip!(pair.near.set_up(&format!(
            "ip route del {kind} 10.20.0.1
             ip -6 route del {kind} fd20::1"
        )));
    }
    or_skip!(pair.near.set_up("ip link set near down"));
    complains("sender 10.9.0.2:862 -c 1", "the interface near is down");
    or_skip!(
        pair.near
            .set_up("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")
    );
    for line in [
        "sender [fd09::2]:862 -c 1",
        "sender [::1]:862 -c 1",
        "reflector [::1]:862",
    ] {
        complains(line, "IPv6 is switched off");
    }
    or_skip!(pair.near.set_up("ip link set lo down"));
    let silent = pair
        .near
        .run("sender 127.0.0.1:862 -c 1 --packet-timeout 100ms");
    assert_ne!(silent.code, 0, "{silent:?}");
    assert!(silent.complaint().contains("lo is down"), "{silent:?}");
}

#[test]
fn no_route_is_exit_1_and_one_line() {
    let alone = or_skip!(Namespace::new());
    for remote in ["10.9.9.9:862", "[fd09::9]:862"] {
        let outcome = alone.run(&format!("sender {remote} -c 1"));
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.complaint().contains("no route"), "{outcome:?}");
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[test]
fn what_must_not_be_fragmented_and_does_not_fit_is_not_sent() {
    let pair = or_skip!(Pair::new());
    for host in ["10.9.0.2", "[fd09::2]"] {
        let reflector = pair.far.reflector(&format!("{host}:0"));
        let remote = reflector.address();
        pair.warm_up(remote);
        let line = format!("sender {remote} --payload-size 3000 -i 1ms -c 20 --json");
        assert_no_loss(&pair.near.run(&line).measured(), 20);

        let outcome = pair.near.run(&format!("{line} --do-not-fragment"));
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(
            outcome.complaint().contains("nothing was sent"),
            "{outcome:?}"
        );
        let packets = &outcome.report()["packets"];
        assert_eq!(packets["sent"], 0, "{packets:#}");
        assert_eq!(packets["not_sent"], 20, "{packets:#}");
        assert_eq!(packets["lost"], 0, "{packets:#}");
    }
}

#[test]
fn a_wildcard_reflector_answers_from_the_address_that_was_asked() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("");
    for host in ["10.9.0.2", "10.9.0.3", "[fd09::2]", "[fd09::3]"] {
        // The sender takes nothing from another address than it asked.
        pair.warm_up(format!("{host}:20001").parse().unwrap());
        let report = pair
            .near
            .run(&format!("sender {host} -i 1ms -c 100 --json"));
        assert_no_loss(&report.measured(), 100);
    }
    assert_eq!(reflector.addresses.len(), 2);
}

/// What `spoof` is told, by the test that runs it in a namespace: pretended source, destination.
#[test]
fn what_this_host_s_own_queue_drops_was_not_sent() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    // 1,000 frames a second are 664 kbit/s.
    or_skip!(
        pair.near
            .set_up("tc qdisc add dev near root tbf rate 300kbit burst 3000 limit 3000")
    );
    let line = format!("sender {remote} -c 1000 -i 1ms --json");
    let report = pair.near.run(&line).measured();
    let packets = &report["packets"];
    assert!(packets["not_sent"].as_u64().unwrap() > 100, "{packets:#}");
    assert_eq!(packets["lost"], 0, "{packets:#}");
    assert_eq!(report["host"]["verdict"], "tool-limited");
    let reasons = report["host"]["reasons"].to_string();
    assert!(reasons.contains("in front of the interface"), "{reasons}");
}

#[test]
fn the_rate_that_a_policer_lets_through_is_found() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    or_skip!(pair.far.set_up(&format!(
        "nft add table inet police
         nft add chain inet police into '{{ type filter hook input priority 0; }}'
         nft add rule inet police into udp dport {} limit rate over 2000/second burst 50 packets drop",
        remote.port()
    )));
    let line =
        format!("sender {remote} --find-rate --sizes 83 --duration 500ms --loss 1% -q --json");
    let found = pair.near.run(&format!("{line} --packet-timeout 200ms"));
    assert_eq!(found.code, 0, "{found:?}");
    let found = &found.found_rates()[0];
    let pps = found["rate_pps"].as_u64().expect("a rate");
    // The bucket lets 1,050 packets through in a trial, and 1 % may be lost; a busy host finds less.
    assert!((1_000..=2_150).contains(&pps), "{found:#}");
    // A host that is too busy to send evenly says so.
    let upper = &found["upper"]["rate_pps"];
    let mut trials = found["trials"].as_array().unwrap().iter();
    let by_path = trials.any(|t| t["offered_pps"] == *upper && t["outcome"] == "path");
    let by = if by_path { "path" } else { "host" };
    assert_eq!(found["limited_by"], by, "{found:#}");
    let bears = |bound: &str, how: &str| found[bound][how].as_u64().unwrap();
    assert!(bears("lower", "held") >= 3, "{found:#}");
    assert!(bears("upper", "failed") >= 2, "{found:#}");
    assert_eq!(found["bps_l1"].as_f64(), Some((pps * 107 * 8) as f64));
    assert_eq!(found["bps_l2"].as_f64(), Some((pps * 87 * 8) as f64));
    assert_eq!(
        found["bps_l2_without_fcs"].as_f64(),
        Some((pps * 83 * 8) as f64)
    );
    assert_eq!(found["bps_l3"].as_f64(), Some((pps * 69 * 8) as f64));
}

#[test]
fn a_rate_that_this_host_s_own_queue_limits_is_the_host_s() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    // 1,506 frames of 83 bytes a second.
    or_skip!(
        pair.near
            .set_up("tc qdisc add dev near root tbf rate 1mbit burst 3000 limit 3000")
    );
    let line =
        format!("sender {remote} --find-rate --sizes 83 --duration 500ms --loss 1% -q --json");
    let found = pair.near.run(&format!("{line} --packet-timeout 200ms"));
    assert_eq!(found.code, 0, "{found:?}");
    let found = &found.found_rates()[0];
    assert_eq!(found["limited_by"], "host", "{found:#}");
    let pps = found["rate_pps"].as_u64().expect("a rate");
    assert!(pps < 1_900, "{found:#}");
    // A busy machine may fall behind before its queue is full.
    let notes = found["notes"].to_string();
    let causes = ["in front of the interface", "could not keep the rate"];
    assert!(causes.iter().any(|cause| notes.contains(cause)), "{notes}");
}

#[test]
fn sizes_that_the_mtu_does_not_let_through_are_not_searched_unasked() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("[fd09::2]:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    let line = format!("sender {remote} --find-rate --duration 100ms --max-rate 100 -q --json");
    let found = pair.near.run(&line).found_rates();
    let sizes: Vec<&str> = found.iter().map(|f| f["size"].as_str().unwrap()).collect();
    let fitting = ["83", "128", "256", "512", "1024", "1280", "1514", "imix"];
    assert_eq!(sizes, fitting);

    let line = format!("{line} --sizes 9014 --do-not-fragment");
    let asked = pair.near.run(&line);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.complaint().contains("nothing was sent"), "{asked:?}");
    assert!(asked.found_rates()[0]["rate_pps"].is_null());
}

#[test]
fn intervals_know_nothing_of_what_was_not_sent() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    let line = format!(
        "sender {remote} --size-mix 200:1,2000:3 --do-not-fragment -i 10ms -c 60 --seed 1 \
         --packet-timeout 300ms --stats-interval 100ms --json"
    );
    let outcome = pair.near.run(&line);
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (report, intervals) = lines.split_last().unwrap();
    assert_eq!(report["packets"]["not_sent"], 45, "{report:#}");
    let sent = |of: &Value| of["packets"]["sent"].as_u64().unwrap();
    let sum: u64 = intervals.iter().map(|line| sent(&line["interval"])).sum();
    assert_eq!(sum, sent(report));
    assert_eq!(sent(&intervals.last().unwrap()["session"]), sent(report));
}

#[test]
fn trains_are_cut_by_the_kernel_where_the_interface_cannot() {
    let pair = or_skip!(Pair::new());
    for (side, name) in [(&pair.near, "near"), (&pair.far, "far")] {
        or_skip!(side.set_up(&format!("ethtool -K {name} tx-udp-segmentation off")));
    }
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    or_skip!(pair.far.set_up(&format!(
        "nft add table inet loss
         nft add chain inet loss into '{{ type filter hook input priority 0; }}'
         nft add rule inet loss into udp dport {} numgen inc mod 10 == 4 drop",
        remote.port()
    )));
    let line = format!("sender {remote} --rate 5k -c 3200 --burst 32 --imix --json");
    let report = pair.near.run(&line).measured();
    let packets = &report["packets"];
    assert_eq!(report["load"]["burst"], 32);
    assert_eq!(packets["sent"], 3200, "{packets:#}");
    assert_eq!(packets["lost_outbound"], 320, "{packets:#}");
    assert_eq!(packets["lost_inbound"], 0, "{packets:#}");
}

#[test]
fn loss_of_several_threads_is_told_to_the_packet() {
    let pair = or_skip!(Pair::new());
    for host in ["10.9.0.2", "[fd09::2]"] {
        let reflector = pair.far.reflector(&format!("{host}:0 --threads 2"));
        let remote = reflector.address();
        pair.warm_up(remote);
        or_skip!(pair.far.set_up(&format!(
            "nft add table inet loss
             nft add chain inet loss into '{{ type filter hook input priority 0; }}'
             nft add rule inet loss into udp dport {} numgen inc mod 10 == 4 drop",
            remote.port()
        )));
        let line = format!("sender {remote} --threads 3 -c 3000 --rate 3k --json");
        let outcome = pair.near.run(&line);
        or_skip!(pair.far.set_up("nft delete table inet loss"));
        let reports: Vec<Value> = outcome
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let [threads @ .., combined] = reports.as_slice() else {
            panic!("{outcome:?}");
        };
        assert_eq!(threads.len(), 3);
        let packets = &combined["packets"];
        assert_eq!(packets["lost_outbound"], 300, "{packets:#}");
        assert_eq!(packets["lost_inbound"], 0, "{packets:#}");
        let of_threads = threads.iter().map(|one| &one["packets"]["lost_outbound"]);
        let sum: u64 = of_threads.map(|lost| lost.as_u64().unwrap()).sum();
        assert_eq!(sum, 300, "{packets:#}");
    }
}

#[test]
fn a_train_too_large_for_the_path_goes_packet_by_packet() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    let line = format!("sender {remote} --rate 2k -c 200 --burst 8 --json");
    for (sizes, burst) in [("--payload-size 3000", 1), ("--size-mix 83:3,3042:2", 8)] {
        let report = pair.near.run(&format!("{line} {sizes}")).measured();
        assert_no_loss(&report, 200);
        for count in ["duplicates", "invalid", "not_sent"] {
            assert_eq!(report["packets"][count], 0, "{sizes}: {report:#}");
        }
        assert_eq!(report["load"]["burst"], burst, "{sizes}");
        let notes = report["notes"].to_string();
        assert!(notes.contains("refuses trains"), "{sizes}: {notes}");
    }
}

#[test]
fn a_reflector_of_all_addresses_answers_from_the_one_that_was_asked() {
    let pair = or_skip!(Pair::new());
    or_skip!(pair.far.set_up("ip address add 10.9.1.5/32 dev lo"));
    or_skip!(pair.near.set_up("ip route add 10.9.1.5 via 10.9.0.2"));
    for io in ["portable", "batched"] {
        for (listen, hosts) in [
            ("0.0.0.0:0", ["10.9.0.3", "10.9.0.2", "10.9.1.5"]),
            ("[::]:0", ["[fd09::3]", "[fd09::2]", "[fd09::3]"]),
        ] {
            let reflector = pair.far.reflector(&format!("{listen} --io {io} --json"));
            let port = reflector.address().port();
            for host in hosts {
                let remote = format!("{host}:{port}").parse().unwrap();
                pair.warm_up(remote);
                let line = format!("sender {remote} -c 20 -i 1ms --json");
                let report = pair.near.run(&line).measured();
                assert_no_loss(&report, 20);
                assert_eq!(report["packets"]["invalid"], 0, "{io} {host}: {report:#}");
            }
            let account = reflector.stop().account();
            let sessions = account["sessions"].as_array().unwrap();
            for session in sessions {
                let asked = session["local_address"].as_str().unwrap();
                assert!(
                    hosts.iter().any(|host| host.contains(asked)),
                    "{io}: {asked}"
                );
            }
        }
    }
}

#[test]
fn two_reflectors_do_not_answer_each_other_for_ever() {
    let pair = or_skip!(Pair::new());
    let far = pair.far.reflector("10.9.0.2:0");
    let near = pair.near.reflector("10.9.0.1:0");
    pair.warm_up(far.address());
    // One request to the far reflector leaves as if the near reflector had sent it.
    or_skip!(pair.near.set_up(&format!(
        "nft add table ip spoof
         nft add chain ip spoof out '{{ type filter hook output priority 0; }}'
         nft add rule ip spoof out udp sport 5555 udp sport set {}",
        near.address().port()
    )));
    let spoofed = format!("sender {} 10.9.0.1:5555 -c 1", far.address());
    let spoofed = pair.near.run(&format!("{spoofed} --packet-timeout 100ms"));
    assert_eq!(spoofed.code, 5, "{spoofed:?}");

    // Meanwhile a loop would have gone round thousands of times.
    for remote in [far.address(), near.address()] {
        let report = pair
            .near
            .run(&format!("sender {remote} -i 1ms -c 50 --json"));
        assert_no_loss(&report.measured(), 50);
    }
    let (near, far) = (near.stop(), far.stop());
    let told = format!("{}{}", near.0, far.0);
    assert!(near.count("loops") + far.count("loops") >= 1, "{told}");
    let received = near.count("received") + far.count("received");
    // Sessions of 50, warm-up, what senders ask at their end, and the one that was spoofed.
    assert!((102..300).contains(&received), "{told}");
}
