//! Controller and Server between network namespaces: loss that is known exactly, in every mode and over
//! both families, addresses that are translated, and what a dissector of others makes of it.

mod common;

use std::net::SocketAddr;

use common::namespace::{Namespace, Pair, or_skip};
use common::server::{ALL_MODES, KEYS, Scratch, Server};
use common::{Outcome, assert_no_loss, binary};
use serde_json::Value;

const MODES: [&str; 4] = ["unauthenticated", "authenticated", "encrypted", "mixed"];

struct Site {
    pair: Pair,
    keys: Scratch,
    passphrase: Scratch,
}

impl Site {
    fn new(name: &str) -> Result<Self, String> {
        Ok(Self {
            pair: Pair::new()?,
            keys: Scratch::new(&format!("{name}.keys"), KEYS),
            passphrase: Scratch::new(&format!("{name}.pass"), "open sesame\n"),
        })
    }

    fn server(&self, local: &str) -> Server {
        let line = format!(
            "{local} --keys-file {} --mode {ALL_MODES}",
            self.keys.path()
        );
        Server::start_by(self.pair.far.enter(&binary()), &line)
    }

    /// Links and neighbours take their time.
    fn warm_up(&self, server: SocketAddr) {
        let line = format!("controller {server} -c 1 --packet-timeout 100ms --control-timeout 1s");
        let answered = (0..100).any(|_| self.pair.near.run(&line).code == 0);
        assert!(answered, "{server} never answers");
    }

    fn controller(&self, server: SocketAddr, line: &str) -> Outcome {
        let pass = self.passphrase.path();
        let key = format!("--key-id alice --passphrase-file {pass}");
        let line = format!("controller {server} {key} {line} --json");
        self.pair.near.run(&line)
    }
}

/// Drops packets on their way into one side, and has them counted there by nobody else.
fn drop_by(site: &Site, outbound: bool, rule: &str) -> Result<(), String> {
    let (side, port) = match outbound {
        true => (&site.pair.far, "dport"),
        false => (&site.pair.near, "sport"),
    };
    side.set_up(&format!(
        "nft add table inet loss
         nft add chain inet loss into '{{ type filter hook input priority 0; }}'
         nft add rule inet loss into udp {port} 20001-21000 {rule} drop"
    ))
}

fn drop_nothing(site: &Site, outbound: bool) -> Result<(), String> {
    let side = if outbound {
        &site.pair.far
    } else {
        &site.pair.near
    };
    side.set_up("nft delete table inet loss")
}

#[track_caller]
fn assert_lost(report: &Value, sent: u64, lost: u64, outbound: bool) {
    let packets = &report["packets"];
    let (out, back) = if outbound { (lost, 0) } else { (0, lost) };
    assert_eq!(packets["sent"], sent, "{packets:#}");
    assert_eq!(packets["lost"], lost, "{packets:#}");
    assert_eq!(packets["lost_outbound"], out, "{packets:#}");
    assert_eq!(packets["lost_inbound"], back, "{packets:#}");
    assert_eq!(packets["lost_unattributed"], 0, "{packets:#}");
    assert_eq!(packets["invalid"], 0, "{packets:#}");
}

/// One session that loses every tenth packet, and a hundred that lose the first 250 of 1,000.
fn lose(site: &Site, host: &str) -> Result<(), String> {
    let server = site.server(&format!("{host}:862"));
    site.warm_up(server.address());
    for mode in MODES {
        for outbound in [true, false] {
            drop_by(site, outbound, "numgen inc mod 10 == 9")?;
            let line = format!("--mode {mode} -c 500 -i 1ms --packet-timeout 1s");
            let report = site.controller(server.address(), &line).measured();
            drop_nothing(site, outbound)?;
            assert_lost(&report, 500, 50, outbound);

            let payload = if ["authenticated", "encrypted"].contains(&mode) {
                112
            } else {
                41
            };
            let header = if host.starts_with('[') { 48 } else { 28 };
            let octets = 250 * (payload + header);
            drop_by(site, outbound, &format!("quota until {octets} bytes"))?;
            let line = format!("--mode {mode} --sessions 100 -c 10 -i 30ms --packet-timeout 1s");
            let outcome = site.controller(server.address(), &line);
            drop_nothing(site, outbound)?;
            assert_eq!(outcome.code, 0, "{outcome:?}");
            let lines = outcome.stdout.lines();
            let all: Vec<Value> = lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let (combined, sessions) = all.split_last().unwrap();
            assert_eq!(sessions.len(), 100);
            assert_lost(combined, 1000, 250, outbound);
            for (which, total) in [("lost_outbound", 250), ("lost_inbound", 250)] {
                let of = |session: &Value| session["packets"][which].as_u64().unwrap();
                let expected = if (which == "lost_outbound") == outbound {
                    total
                } else {
                    0
                };
                assert_eq!(sessions.iter().map(of).sum::<u64>(), expected);
            }
        }
    }
    server.stop();
    Ok(())
}

#[test]
fn loss_is_told_by_direction_in_every_mode_over_ipv4() {
    let site = or_skip!(Site::new("loss4"));
    or_skip!(lose(&site, "10.9.0.2"));
}

#[test]
fn loss_is_told_by_direction_in_every_mode_over_ipv6() {
    let site = or_skip!(Site::new("loss6"));
    or_skip!(lose(&site, "[fd09::2]"));
}

/// Behind a translation of addresses only a request without addresses can be granted.
#[test]
fn a_client_behind_nat_leaves_its_address_out() {
    let site = or_skip!(Site::new("nat"));
    let server = site.server("10.9.0.2:862");
    site.warm_up(server.address());
    or_skip!(site.pair.near.set_up(
        "ip address add 192.168.7.7/32 dev lo
         nft add table ip nat
         nft add chain ip nat out '{ type nat hook postrouting priority 100; }'
         nft add rule ip nat out ip saddr 192.168.7.7 masquerade"
    ));
    for mode in MODES {
        let pass = site.passphrase.path();
        let line = format!(
            "controller 10.9.0.2 192.168.7.7 --key-id alice --passphrase-file {pass} --mode {mode} \
             -c 50 -i 1ms --json"
        );
        let refused = site.pair.near.run(&line);
        assert_eq!(refused.code, 4, "{refused:?}");
        let report = site.pair.near.run(&format!("{line} --zero-addresses"));
        assert_no_loss(&report.measured(), 50);
    }
    server.stop();
}

/// A server that listens on every address answers from the one that was asked.
#[test]
fn a_multihomed_server_reflects_from_the_address_that_was_asked() {
    let site = or_skip!(Site::new("multihomed"));
    let server = site.server("");
    site.warm_up("10.9.0.2:862".parse().unwrap());
    site.warm_up("[fd09::2]:862".parse().unwrap());
    for host in ["10.9.0.2", "10.9.0.3", "[fd09::2]", "[fd09::3]"] {
        let address = format!("{host}:862").parse().unwrap();
        let report = site.controller(address, "-c 50 -i 1ms").measured();
        assert_no_loss(&report, 50);
    }
    assert_eq!(server.addresses.len(), 2);
    server.stop();
}

/// What tshark, which others wrote, makes of an unprotected conversation. Of a protected one it takes
/// the ciphertext for messages.
#[test]
fn a_dissector_finds_nothing_malformed() {
    let alone = or_skip!(Namespace::new());
    or_skip!(alone.set_up("command -v tshark && command -v dumpcap"));
    let file = Scratch::new("dissected.pcap", "");
    file.permit(0o666);
    let server = Server::start_by(alone.enter(&binary()), "127.0.0.1:862");
    let script = format!(
        "dumpcap -q -P -i lo -w {0} 2>{0}.log & pid=$!
         until grep -q File: {0}.log; do kill -0 $pid; done
         for more in '--dscp be,ef' '--padding 200' '--individual-sessions --sessions 2' \
             '--reflect-octets 8 --symmetrical-size' '--dscp-mode --timestamp-format ptp'; do
             {1} controller 127.0.0.1 --mode unauthenticated -c 5 -i 1ms $more --json >/dev/null
         done
         while [ $(tshark -r {0} -Y tcp.flags.fin==1 2>/dev/null | wc -l) -lt 10 ]; do :; done
         kill -INT $pid; wait $pid || true; rm {0}.log",
        file.path(),
        binary()
    );
    or_skip!(alone.set_up(&script));
    server.stop();
    let tshark = |filter: &str| {
        let mut command = alone.enter("tshark");
        command.args(["-r", file.path(), "-Y", filter]);
        let outcome = common::Running::start(&mut command).finish();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome.stdout
    };
    let malformed = tshark("_ws.malformed");
    assert_eq!(malformed, "");
    for (filter, least) in [
        ("twamp.control", 40),
        ("twamp.test", 50),
        // As it was told: two in the first run, and all of the third.
        ("twamp.control.numsessions == 2", 1),
    ] {
        let found = tshark(filter).lines().count();
        assert!(found >= least, "{filter}: {found}");
    }
}
