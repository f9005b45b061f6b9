//! The real binary across a router: what the network says of packets that it does not deliver.

mod common;

use std::process::Command;

use common::namespace::{Namespace, Pair, or_skip};
use common::{Running, assert_no_loss, binary, words};
use serde_json::Value;

/// Two hosts and a router between them: 10.9.1.1 and fd09:1::1 near, 10.9.2.2 and fd09:2::2 far, .9 and
/// ::9 the router on both sides.
struct Routed {
    near: Namespace,
    router: Namespace,
    far: Namespace,
}

impl Routed {
    fn new() -> Result<Self, String> {
        let near = Namespace::new()?;
        let (router, far) = (near.beside()?, near.beside()?);
        near.set_up(&format!(
            "ip link add near mtu 1500 type veth peer name left mtu 1500 netns {0}
             nsenter -t {0} -n ip link add right mtu 1500 type veth peer name far mtu 1500 netns {1}",
            router.pid(),
            far.pid()
        ))?;
        let plug = |side: &Namespace, name: &str, net: u32, host: u32| {
            side.set_up(&format!(
                "ip address add 10.9.{net}.{host}/24 dev {name}
                 ip address add fd09:{net}::{host}/64 dev {name} nodad
                 ip link set {name} up"
            ))
        };
        plug(&near, "near", 1, 1)?;
        plug(&router, "left", 1, 9)?;
        plug(&router, "right", 2, 9)?;
        plug(&far, "far", 2, 2)?;
        for (side, net) in [(&near, 1), (&far, 2)] {
            side.set_up(&format!(
                "ip route add default via 10.9.{net}.9
                 ip -6 route add default via fd09:{net}::9"
            ))?;
        }
        router.set_up(
            "echo 1 >/proc/sys/net/ipv4/ip_forward
             echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
             echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
             echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
             nft add table inet wall
             nft add chain inet wall forward '{ type filter hook forward priority 0; }'",
        )?;
        Ok(Self { near, router, far })
    }

    /// Waits until packets get from one end to the other, both ways.
    fn warm_up(&self, host: &str) {
        let reflector = self.far.reflector(&format!("{host}:0"));
        let line = format!("sender {} -c 1 --packet-timeout 100ms", reflector.address());
        let answered = (0..100).any(|_| self.near.run(&line).code == 0);
        assert!(answered, "{host} never answers");
    }
}

const HOSTS: [(&str, &str); 2] = [("10.9.2.2", "10.9.1.9"), ("[fd09:2::2]", "fd09:1::9")];

/// The one kind of ICMP message that came, and what was said of it.
fn told(near: &Namespace, line: &str) -> (Value, String) {
    let outcome = near.run(&format!("{line} --packet-timeout 300ms --json"));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let report = outcome.report();
    let icmp = report["packets"]["icmp"].as_array().unwrap();
    let [icmp] = icmp.as_slice() else {
        panic!("{report:#}");
    };
    assert_eq!(report["packets"]["icmp_unreachable"], icmp["count"]);
    assert!(icmp["count"].as_u64() > Some(0), "{report:#}");
    assert_eq!(icmp["from_others"], 0, "{report:#}");
    (icmp.clone(), outcome.complaint().to_owned())
}

#[test]
fn what_a_router_says_is_told_by_kind_and_with_the_router() {
    let routed = or_skip!(Routed::new());
    let v4 = [
        (
            "net-unreachable",
            "net_unreachable",
            0,
            "network unreachable",
        ),
        (
            "host-unreachable",
            "host_unreachable",
            1,
            "host unreachable",
        ),
        (
            "prot-unreachable",
            "protocol_unreachable",
            2,
            "protocol unreachable",
        ),
        (
            "port-unreachable",
            "port_unreachable",
            3,
            "port unreachable",
        ),
        ("net-prohibited", "prohibited", 9, "prohibited (network)"),
        ("host-prohibited", "prohibited", 10, "prohibited (host)"),
        (
            "admin-prohibited",
            "prohibited",
            13,
            "prohibited (by an administrator)",
        ),
    ];
    let v6 = [
        ("no-route", "net_unreachable", 0, "network unreachable"),
        (
            "admin-prohibited",
            "prohibited",
            1,
            "prohibited (by an administrator)",
        ),
        (
            "addr-unreachable",
            "host_unreachable",
            3,
            "host unreachable",
        ),
        (
            "port-unreachable",
            "port_unreachable",
            4,
            "port unreachable",
        ),
        (
            "policy-fail",
            "prohibited",
            5,
            "prohibited (source address)",
        ),
        ("reject-route", "prohibited", 6, "prohibited (route)"),
    ];
    for ((host, router), (kind, cases)) in HOSTS.into_iter().zip([(3, &v4[..]), (1, &v6[..])]) {
        routed.warm_up(host);
        for (reject, name, code, words) in cases {
            let icmp = if kind == 3 { "icmp" } else { "icmpv6" };
            or_skip!(routed.router.set_up(&format!(
                "nft flush chain inet wall forward
                 nft add rule inet wall forward udp dport 862 reject with {icmp} type {reject}"
            )));
            let (told, complaint) = told(&routed.near, &format!("sender {host}:862 -c 5 -i 10ms"));
            assert_eq!(told["kind"], *name, "{told:#}");
            assert_eq!(told["type"], kind, "{told:#}");
            assert_eq!(told["code"], *code, "{told:#}");
            assert_eq!(told["from"], router, "{told:#}");
            assert_eq!(told["from_this_host"], false, "{told:#}");
            assert!(told["mtu"].is_null(), "{told:#}");
            assert!(complaint.contains(words), "{complaint}");
            assert!(complaint.contains(&format!("from {router}")), "{complaint}");
        }
    }
}

#[test]
fn a_ttl_that_ends_on_the_way_is_time_exceeded() {
    let routed = or_skip!(Routed::new());
    for ((host, router), kind) in HOSTS.into_iter().zip([11, 3]) {
        routed.warm_up(host);
        let line = format!("sender {host}:862 -c 5 -i 10ms --ttl 1");
        let (told, complaint) = told(&routed.near, &line);
        assert_eq!(told["kind"], "time_exceeded", "{told:#}");
        assert_eq!((&told["type"], &told["code"]), (&kind.into(), &0.into()));
        assert_eq!(told["from"], router, "{told:#}");
        assert!(complaint.contains("time exceeded (TTL)"), "{complaint}");
        assert!(complaint.contains(&format!("from {router}")), "{complaint}");
    }
}

#[test]
fn a_portable_socket_tells_what_its_errno_allows() {
    let routed = or_skip!(Routed::new());
    for (host, reject, kind) in [
        (HOSTS[0].0, "icmp type port-unreachable", "port_unreachable"),
        (HOSTS[0].0, "icmp type host-prohibited", "unreachable"),
        (HOSTS[1].0, "icmpv6 type admin-prohibited", "prohibited"),
    ] {
        routed.warm_up(host);
        or_skip!(routed.router.set_up(&format!(
            "nft flush chain inet wall forward
             nft add rule inet wall forward udp dport 862 reject with {reject}"
        )));
        let line = format!("sender {host}:862 -c 5 -i 10ms --io portable");
        let (told, _) = told(&routed.near, &line);
        assert_eq!(told["kind"], kind, "{told:#}");
        assert!(told["type"].is_null() && told["from"].is_null(), "{told:#}");
    }
}

/// Has the router's far side carry packets of 1300 octets at most.
fn narrow(routed: &Routed) -> Result<(), String> {
    routed.router.set_up("ip link set right mtu 1300")?;
    routed.far.set_up("ip link set far mtu 1300")
}

#[test]
fn what_is_too_large_for_a_hop_is_told_with_its_mtu_in_each_run_alike() {
    let routed = or_skip!(Routed::new());
    or_skip!(narrow(&routed));
    for (host, router) in HOSTS {
        routed.warm_up(host);
        // The second run finds the MTU in the system's memory, and with trains refuses them for it.
        for burst in ["1", "1", "4"] {
            let line = format!(
                "sender {host}:862 -c 8 -i 10ms --payload-size 1400 --do-not-fragment --burst {burst}"
            );
            let outcome = routed
                .near
                .run(&format!("{line} --packet-timeout 300ms --json"));
            assert_eq!(outcome.code, 5, "{outcome:?}");
            let report = outcome.report();
            let packets = &report["packets"];
            assert_eq!(packets["sent"], 8, "{report:#}");
            assert_eq!(packets["not_sent"], 0, "{report:#}");
            let icmp = &packets["icmp"][0];
            assert_eq!(icmp["kind"], "packet_too_big", "{report:#}");
            assert_eq!(icmp["mtu"], 1300, "{report:#}");
            assert_eq!(icmp["from"], router, "{report:#}");
            assert_eq!(report["path"]["mtu"], 1300, "{report:#}");
            assert_eq!(report["load"]["sizes"][0]["fragments"], 1, "{report:#}");
            let complaint = outcome.complaint();
            assert!(complaint.contains("MTU of 1300"), "{complaint}");
            assert!(complaint.contains(router), "{complaint}");
        }
    }
}

#[test]
fn fragments_are_told() {
    let routed = or_skip!(Routed::new());
    for (host, fragments) in [(HOSTS[0].0, 7), (HOSTS[1].0, 7)] {
        routed.warm_up(host);
        let reflector = routed.far.reflector(&format!("{host}:0"));
        let line = format!(
            "sender {} -c 20 -i 10ms --frame-size 9014",
            reflector.address()
        );
        let report = routed.near.run(&format!("{line} --json")).measured();
        assert_eq!(report["packets"]["lost"], 0, "{report:#}");
        assert_eq!(report["load"]["sizes"][0]["fragments"], fragments);
        assert_eq!(report["path"]["mtu"], 1500, "{report:#}");
        let text = routed.near.run(&line).stdout;
        let told =
            format!("9014 bytes leave in {fragments} fragments: the MTU of the path is 1500");
        assert!(text.contains(&told), "{text}");
    }
}

#[test]
fn a_size_that_is_lost_without_a_word_is_suspected() {
    let routed = or_skip!(Routed::new());
    or_skip!(narrow(&routed));
    for (host, _) in HOSTS {
        routed.warm_up(host);
        // Nobody says that packets are too large.
        or_skip!(routed.router.set_up(
            "nft add table inet mute
             nft add chain inet mute out '{ type filter hook output priority 0; }'
             nft add rule inet mute out icmp type destination-unreachable drop
             nft add rule inet mute out icmpv6 type packet-too-big drop"
        ));
        let reflector = routed.far.reflector(&format!("{host}:0"));
        let line = format!(
            "sender {} -c 60 -i 5ms --do-not-fragment --packet-timeout 300ms --json",
            reflector.address()
        );
        let report = routed
            .near
            .run(&format!("{line} --size-mix 200:1,1514:1 --seed 1"))
            .measured();
        let notes = report["notes"].to_string();
        assert!(
            notes.contains("packets of 1514 bytes or more came back"),
            "{notes}"
        );
        let outcome = routed.near.run(&format!("{line} --frame-size 1514"));
        assert_eq!(outcome.code, 5, "{outcome:?}");
        let complaint = outcome.complaint();
        assert!(complaint.contains("smaller size than 1514"), "{complaint}");
        or_skip!(routed.router.set_up("nft delete table inet mute"));
    }
}

/// Waits until the near side asks who has an address.
fn asked(near: &Namespace, addr: &str) -> bool {
    let asks = format!("ip neigh show {addr} | grep -q INCOMPLETE");
    (0..1000).any(|_| near.set_up(&asks).is_ok())
}

#[test]
fn the_next_hop_is_known_before_the_first_packet_leaves() {
    let pair = or_skip!(Pair::new());
    for (host, addr, family) in [
        ("10.9.0.2", "10.9.0.2", "ipv4"),
        ("[fd09::2]", "fd09::2", "ipv6"),
    ] {
        let reflector = pair.far.reflector(&format!("{host}:0"));
        let remote = reflector.address();
        pair.warm_up(remote);
        // The kernel asks every 20 ms, and nobody answers to begin with.
        or_skip!(pair.near.set_up(&format!(
            "echo 20 >/proc/sys/net/{family}/neigh/near/retrans_time_ms
             echo 1000 >/proc/sys/net/{family}/neigh/near/mcast_solicit
             ip neigh flush dev near"
        )));
        or_skip!(pair.far.set_up(&format!(
            "nft add table inet count
             nft add chain inet count into '{{ type filter hook input priority 0; }}'
             nft add rule inet count into udp dport {} counter
             nft add rule inet count into udp dport 9 counter
             nft add table netdev mute
             nft add chain netdev mute into '{{ type filter hook ingress device far priority 0; }}'
             nft add rule netdev mute into ether type arp drop
             nft add rule netdev mute into icmpv6 type nd-neighbor-solicit drop",
            remote.port()
        )));
        let line = format!("sender {remote} -c 600 --rate 6k --no-probe --json");
        let first = Running::start(&mut words(pair.near.enter(&binary()), &line));
        assert!(asked(&pair.near, addr), "{addr}");
        or_skip!(pair.far.set_up("nft delete table netdev mute"));
        let first = first.finish().measured();
        let second = pair.near.run(&line).measured();
        for report in [&first, &second] {
            assert_no_loss(report, 600);
            let hop = &report["path"]["next_hop"];
            assert_eq!(hop["address"], addr, "{report:#}");
            assert_eq!(hop["resolved"], true, "{report:#}");
        }
        let waited = |report: &Value| report["path"]["next_hop"]["waited_ns"].as_u64();
        assert!(waited(&first) > Some(0), "{first:#}");
        assert_eq!(waited(&second), Some(0), "{second:#}");
        // All packets, and the one that had the next hop resolved.
        assert_eq!(counted(&pair.far, remote.port()), 1200);
        assert_eq!(counted(&pair.far, 9), 1);
        or_skip!(pair.far.set_up("nft delete table inet count"));
    }
}

/// Packets to a port that the table `count` saw.
fn counted(side: &Namespace, port: u16) -> u64 {
    let mut nft = words(side.enter("nft"), "list table inet count");
    let table = Running::start(&mut nft).finish().stdout;
    let rule = format!("dport {port} counter packets ");
    let (_, count) = table.split_once(&rule).expect("a rule");
    count.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_next_hop_that_does_not_answer_is_named() {
    let pair = or_skip!(Pair::new());
    or_skip!(pair.near.set_up(
        "ip route add default via 10.9.0.99
         ip -6 route add default via fd09::99
         ip link add silent type veth peer name other
         ip link set silent arp off
         ip address add 10.8.0.1/24 dev silent
         ip link set silent up
         ip link set other up"
    ));
    for (remote, hop) in [
        ("10.9.0.77:862", "10.9.0.77"),
        ("192.0.2.1:862", "10.9.0.99"),
        ("[fd09::77]:862", "fd09::77"),
        ("[2001:db8::1]:862", "fd09::99"),
    ] {
        let outcome = pair.near.run(&format!(
            "sender {remote} -c 2 --packet-timeout 100ms --json"
        ));
        assert_eq!(outcome.code, 5, "{outcome:?}");
        let report = outcome.report();
        let told = &report["path"]["next_hop"];
        assert_eq!(told["address"], hop, "{report:#}");
        assert_eq!(told["resolved"], false, "{report:#}");
        let complaint = outcome.complaint();
        assert!(
            complaint.contains(&format!("next hop {hop} does not answer")),
            "{complaint}"
        );
    }
    // There are no addresses on this link.
    let outcome = pair
        .near
        .run("sender 10.8.0.2:862 -c 1 --packet-timeout 100ms --json");
    let report = outcome.report();
    assert!(report["path"]["next_hop"].is_null(), "{report:#}");
}

/// A command that finds these addresses under the name `both`.
fn with_hosts(side: &Namespace, addrs: &[&str], line: &str) -> Command {
    let lines: Vec<String> = addrs.iter().map(|addr| format!("{addr} both")).collect();
    let script = format!(
        "printf '%s\\n' '{}' >/tmp/hosts.$$ && mount --bind /tmp/hosts.$$ /etc/hosts \
         && rm /tmp/hosts.$$ && exec {} {line}",
        lines.join("' '"),
        binary()
    );
    let mut command = side.enter("unshare");
    command.args(["-m", "sh", "-ec", &script]);
    command
}

const BOTH: [&str; 2] = ["fd09::2", "10.9.0.2"];

#[test]
fn the_next_address_of_a_name_is_measured_where_the_first_does_not_answer() {
    let pair = or_skip!(Pair::new());
    let check = with_hosts(&pair.near, &BOTH, "dscptable");
    let mut check = check;
    if Running::start(&mut check).finish().code != 0 {
        return common::skip("no mount namespace with names of its own");
    }
    let reflector = pair.far.reflector("10.9.0.2:0");
    let port = reflector.address().port();
    pair.warm_up(reflector.address());
    let run = |addrs: &[&str], flags: &str| {
        let line = format!("sender both:{port} -c 20 --rate 10 {flags} --json");
        Running::start(&mut with_hosts(&pair.near, addrs, &line)).finish()
    };
    let remote = format!("10.9.0.2:{port}");
    // A closed port, and one that says nothing.
    for wall in [
        "",
        "nft add rule inet wall into icmpv6 type destination-unreachable drop",
    ] {
        or_skip!(pair.near.set_up(&format!(
            "nft add table inet wall
             nft add chain inet wall into '{{ type filter hook input priority 0; }}'
             {wall}"
        )));
        let outcome = run(&BOTH, "");
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_no_loss(&report, 20);
        assert_eq!(report["remote"], remote, "{report:#}");
        assert_eq!(report["interrupted"], false, "{report:#}");
        let notes = report["notes"].to_string();
        let why = if wall.is_empty() {
            "port unreachable"
        } else {
            "no reply"
        };
        assert!(
            notes.contains("10.9.0.2 is measured, not fd09::2 ("),
            "{notes}"
        );
        assert!(notes.contains(why), "{notes}");
        or_skip!(pair.near.set_up("nft delete table inet wall"));
    }
    // A search asks with a few packets.
    let line = format!("sender both:{port} --find-rate --max-rate 20 --loss 50% --sizes 83 -q");
    let line = format!("{line} --duration 100ms --json");
    let outcome = Running::start(&mut with_hosts(&pair.near, &BOTH, &line)).finish();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let found = &outcome.found_rates()[0];
    assert_eq!(found["remote"], remote, "{found:#}");
    assert_eq!(found["rate_pps"], 20, "{found:#}");
    let notes = found["notes"].to_string();
    assert!(notes.contains("10.9.0.2 is measured, not fd09::2 ("));
    // No way there.
    let report = run(&["2001:db8::1", "10.9.0.2"], "").measured();
    assert_eq!(report["remote"], remote, "{report:#}");
    // One family alone.
    let report = run(&BOTH, "-4").measured();
    assert_eq!(report["remote"], remote, "{report:#}");
    assert!(
        !report["notes"].to_string().contains("is measured"),
        "{report:#}"
    );
    let outcome = run(&BOTH, "-6 --packet-timeout 300ms");
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert_eq!(outcome.report()["remote"], format!("[fd09::2]:{port}"));
}

#[test]
fn a_control_connection_goes_to_the_next_address_of_a_name() {
    let pair = or_skip!(Pair::new());
    let mut check = with_hosts(&pair.near, &BOTH, "dscptable");
    if Running::start(&mut check).finish().code != 0 {
        return common::skip("no mount namespace with names of its own");
    }
    let _server = Running::start(&mut words(
        pair.far.enter(&binary()),
        "server 10.9.0.2:862 -q",
    ));
    let run = |line: &str| Running::start(&mut with_hosts(&pair.near, &BOTH, line)).finish();
    let session = "controller both -c 5 -i 10ms --packet-timeout 300ms --json";
    let up = (0..100).any(|_| run(&format!("{session} -4")).code == 0);
    assert!(up, "the server never answers");
    // Refused, and unanswered.
    for wall in [
        "",
        "nft add rule inet wall into ip6 daddr fd09::2 tcp dport 862 drop",
    ] {
        or_skip!(pair.far.set_up(&format!(
            "nft add table inet wall
             nft add chain inet wall into '{{ type filter hook input priority 0; }}'
             {wall}"
        )));
        let outcome = run(session);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_no_loss(&report, 5);
        let remote = report["remote"].as_str().unwrap();
        assert!(remote.starts_with("10.9.0.2:"), "{report:#}");
        let notes = report["notes"].to_string();
        assert!(notes.contains("not fd09::2"), "{notes}");
        let outcome = run("controlclient 10.9.0.1 both --duration 100ms");
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(
            outcome.stdout.contains("may send to 10.9.0.2:"),
            "{outcome:?}"
        );
        or_skip!(pair.far.set_up("nft delete table inet wall"));
    }
    let outcome = run(&format!("{session} -6"));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.complaint().contains("[fd09::2]:862"), "{outcome:?}");
}

#[test]
fn a_control_connection_that_a_router_refuses_is_not_put_down_to_this_hosts_routes() {
    let routed = or_skip!(Routed::new());
    for (host, icmp, reject) in [
        ("10.9.2.2", "icmp", "admin-prohibited"),
        ("10.9.2.2", "icmp", "net-unreachable"),
        ("[fd09:2::2]", "icmpv6", "admin-prohibited"),
        ("[fd09:2::2]", "icmpv6", "no-route"),
    ] {
        routed.warm_up(host);
        or_skip!(routed.router.set_up(&format!(
            "nft flush chain inet wall forward
             nft add rule inet wall forward tcp dport 862 reject with {icmp} type {reject}"
        )));
        let outcome = routed.near.run(&format!("controller {host} -c 1"));
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let complaint = outcome.complaint();
        assert!(complaint.contains("a router refuses it"), "{complaint}");
        assert!(!complaint.contains("ip route"), "{complaint}");
    }
    // No route of this host's is its own.
    or_skip!(routed.near.set_up("ip route add unreachable 10.9.2.2"));
    let outcome = routed.near.run("controller 10.9.2.2 -c 1");
    assert!(
        outcome.complaint().contains("`unreachable` route"),
        "{outcome:?}"
    );
}

#[test]
fn a_link_local_address_is_of_the_link_of_interface() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("");
    let port = reflector.address().port();
    let mut show = words(pair.far.enter("ip"), "-6 -o addr show dev far scope link");
    let found = (0..1000).find_map(|_| {
        let shown = Running::start(&mut show).finish().stdout;
        let addr = shown
            .split_whitespace()
            .find(|word| word.starts_with("fe80:"))?;
        let ready = !shown.contains("tentative");
        ready.then(|| addr.split('/').next().unwrap().to_owned())
    });
    let addr = found.expect("a link-local address");
    for line in [
        format!("[{addr}]:{port} --interface near"),
        format!("[{addr}%near]:{port}"),
        format!("[{addr}%near]:{port} --interface near"),
    ] {
        let line = format!("sender {line} -c 5 -i 10ms --packet-timeout 500ms --json");
        let answered = (0..20).find_map(|_| {
            let outcome = pair.near.run(&line);
            (outcome.code == 0).then(|| outcome.report())
        });
        assert!(answered.is_some(), "{line}");
    }
    // Its next hop is resolved as that of any address.
    or_skip!(pair.near.set_up("ip -6 neigh flush dev near"));
    let line = format!("sender [{addr}%near]:{port} -c 5 -i 10ms --json");
    let report = pair.near.run(&line).measured();
    assert_eq!(report["path"]["next_hop"]["resolved"], true, "{report:#}");
    assert_no_loss(&report, 5);
    let outcome = pair.near.run(&format!("sender [{addr}]:{port} -c 1"));
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.complaint().contains("--interface"), "{outcome:?}");
}

/// Waits until a command succeeds.
fn until(side: &Namespace, check: &str) {
    assert!((0..2000).any(|_| side.set_up(check).is_ok()), "{check}");
}

/// A run during which the link has no carrier for a while, and how many of its packets came to the far end.
fn without_carrier(pair: &Pair) -> (Value, u64) {
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    let count = format!(
        "nft add table inet seen
         nft add chain inet seen into '{{ type filter hook input priority 0; }}'
         nft add rule inet seen into udp dport {} counter",
        remote.port()
    );
    pair.far.set_up(&count).unwrap();
    let line = format!("sender {remote} -c 2000 --rate 500 --packet-timeout 300ms --json");
    let running = Running::start(&mut words(pair.near.enter(&binary()), &line));
    until(
        &pair.far,
        "ip -s -o link show far | grep -qE 'RX:.* [1-9][0-9]{2,} '",
    );
    pair.far.set_up("ip link set far down").unwrap();
    until(
        &pair.near,
        "ip link show near | grep -q 'state \\(DOWN\\|LOWERLAYERDOWN\\)'",
    );
    for _ in 0..10 {
        pair.near.set_up("ip link show near >/dev/null").unwrap();
    }
    pair.far.set_up("ip link set far up").unwrap();
    let report = running.finish().report();
    let list = Running::start(&mut words(pair.far.enter("nft"), "list table inet seen")).finish();
    pair.far.set_up("nft delete table inet seen").unwrap();
    let mut words = list.stdout.split_whitespace();
    let counted = words.find(|word| *word == "packets").and(words.next());
    let counted = counted.and_then(|count| count.parse().ok());
    (report, counted.expect("a counter"))
}

/// A next hop that is not known for a while, in the middle of a session, and a slow queue: packets wait for
/// longer than their timeout in this host, and are lost on no path.
#[test]
fn what_waited_in_this_host_is_not_lost_on_the_path() {
    let pair = or_skip!(Pair::new());
    let reflector = pair.far.reflector("10.9.0.2:0");
    let remote = reflector.address();
    pair.warm_up(remote);
    let assert_waited = |report: &Value| {
        let packets = &report["packets"];
        assert_eq!(packets["received"], packets["sent"], "{report:#}");
        for none in ["lost", "late", "not_sent"] {
            assert_eq!(packets[none], 0, "{none}: {report:#}");
        }
        let reasons = report["host"]["reasons_detail"].to_string();
        assert!(reasons.contains("waited_in_host"), "{report:#}");
        assert!(!reasons.contains("loss"), "{report:#}");
        let load = &report["load"];
        assert!(load["late_departures"].as_u64().unwrap() > 20, "{load:#}");
        assert!(
            load["max_slip_ns"].as_u64().unwrap() > 300_000_000,
            "{load:#}"
        );
        // T1 is when they left.
        let roundtrip = &report["delay_ns"]["roundtrip"];
        assert!(
            roundtrip["median"].as_u64().unwrap() < 100_000_000,
            "{report:#}"
        );
        assert_eq!(report["timestamps"]["t1"], "kernel", "{report:#}");
    };

    let line = format!("sender {remote} -c 600 --rate 100 --packet-timeout 250ms --json");
    let running = Running::start(&mut words(pair.near.enter(&binary()), &line));
    until(
        &pair.far,
        "ip -s -o link show far | grep -qE 'RX:.* [1-9][0-9]{2,} '",
    );
    // It answers nobody who asks for it.
    let silent = "sysctl -qw net.ipv4.conf.far.arp_ignore=8";
    pair.far.set_up(silent).unwrap();
    pair.near.set_up("ip neigh flush dev near").unwrap();
    until(
        &pair.near,
        "ip neigh show dev near | grep -qE '10.9.0.2 +INCOMPLETE'",
    );
    pair.far
        .set_up("sysctl -qw net.ipv4.conf.far.arp_ignore=0")
        .unwrap();
    assert_waited(&running.finish().report());

    or_skip!(
        pair.near
            .set_up("tc qdisc add dev near root tbf rate 100kbit burst 1600 limit 100000")
    );
    let line = format!("sender {remote} --duration 2s --rate 250 --packet-timeout 1s --json");
    let report = pair.near.run(&line).report();
    assert_waited(&report);
    // Some 150 packets a second leave.
    let achieved = report["load"]["achieved_pps"].as_f64().unwrap();
    assert!((100.0..200.0).contains(&achieved), "{report:#}");
}

#[test]
fn a_link_without_carrier_is_asked_about() {
    let pair = or_skip!(Pair::new());
    // The next hop is known, so that only the link is in the way.
    pair.near
        .set_up("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:00:09 dev near nud permanent")
        .unwrap();
    pair.far.set_up("ip link set far down").unwrap();
    let line = "sender 10.9.0.2:862 -c 5 --rate 100 --packet-timeout 200ms --json";
    let done = Running::start(&mut words(pair.near.enter(&binary()), line)).finish();
    assert_eq!(done.code, 5, "{}", done.stderr);
    assert!(
        done.stderr
            .contains("no packet is known to have left this host: is its link up?"),
        "{}",
        done.stderr
    );
    assert_eq!(done.report()["host"]["verdict"], "none");
}

#[test]
fn what_never_left_this_host_is_not_lost_on_the_path() {
    let pair = or_skip!(Pair::new());
    // A busy host may lose a stamp: then nothing is known.
    let found = (0..5).map(|_| without_carrier(&pair)).find(|(report, _)| {
        let causes = report["packets"]["not_sent_causes"].as_array().unwrap();
        causes.iter().any(|one| one["cause"] == "never_left")
    });
    let (report, counted) = found.expect("packets that never left");
    let packets = &report["packets"];
    let count = |name: &str| packets[name].as_u64().unwrap();
    assert_eq!(count("sent") + count("not_sent"), 2000, "{report:#}");
    assert_eq!(
        count("received") + count("lost"),
        count("sent"),
        "{report:#}"
    );
    assert_eq!(
        report["host"]["tx_stamps_received"],
        count("sent"),
        "{report:#}"
    );
    // What left came to the other end, and was lost on no way, however late it was answered: but for what met
    // an end that had just gone down.
    let met_nobody = count("sent") + count("probes") - counted;
    assert!(met_nobody < 50, "{counted} {report:#}");
    assert_eq!(count("lost_outbound"), met_nobody, "{report:#}");
    assert_eq!(count("lost"), count("late") + met_nobody, "{report:#}");
    assert!(
        report["host"]["reasons"].to_string().contains("never left"),
        "{report:#}"
    );
}
