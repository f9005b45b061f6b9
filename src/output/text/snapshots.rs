//! Whole summaries, as files; `RENEW_SNAPSHOTS=1 cargo test --lib snapshots` writes them anew.

use super::*;
use crate::output::figures::{DAY_NS, MINUTE_NS};
use crate::report::note::Sender;
use crate::report::{
    Bin, Clock, Cpu, DelaySet, Histograms, Host, Ipdv, LossBursts, OutOfRange, PathFacts, Pdv,
    Protocol, Reason, Role, SamplesNeeded, Schema, Scope, Security,
};
use proptest::prelude::*;

fn figures(samples: u64, min: i64, median: i64, max: i64) -> Delay {
    let above = |ns: i64| ns.saturating_sub(min).unsigned_abs();
    Delay {
        samples,
        packets: samples,
        min,
        mean: ns(median) + 900.5,
        median,
        p90: Some(median),
        p95: Some(median.saturating_add(20_000)),
        p99: Some(median.saturating_add(31_000)),
        p99_9: Some(median.saturating_add(37_000)),
        p99_99: None,
        p99_999: None,
        samples_needed: Some(SamplesNeeded {
            p99_99: Some(100_000),
            p99_999: Some(1_000_000),
            ..SamplesNeeded::default()
        }),
        max,
        stddev: Some(11_250.25),
        jitter: Some(23_456.7),
        ipdv: Some(Ipdv {
            min: -40_000,
            mean_abs: 12_345.6,
            p99_abs: Some(41_000),
            max: 52_000,
        }),
        pdv: Pdv {
            median: above(median),
            p99: Some(above(median.saturating_add(31_000))),
            max: above(max),
        },
        out_of_range: OutOfRange::default(),
        bins: vec![
            Bin {
                from: None,
                to: Some(-10_000_000_000),
                count: samples,
            },
            Bin {
                from: Some(-1_000_000),
                to: Some(-500_000),
                count: 3,
            },
            Bin {
                from: Some(0),
                to: Some(1000),
                count: u64::MAX,
            },
            Bin {
                from: Some(10_000_000_000),
                to: None,
                count: 1,
            },
        ],
    }
}

fn size(frame: usize, packets: u64, received: u64, median: i64) -> SizeEntry {
    SizeEntry {
        payload_bytes: frame - 42,
        frame_bytes_l2: frame,
        packets,
        received: Some(received),
        roundtrip: Some(figures(received, median - 9_000, median, median + 99_000)),
        fragments: Some(1),
    }
}

/// A clean run of a mix at 100,000 packets a second between synchronised clocks.
fn full() -> Report {
    Report {
        schema: Schema::Version1,
        version: "0.1.0".into(),
        command: vec!["sender".into()],
        scope: Scope::Session,
        protocol: Protocol::TwampLight,
        role: Role::Sender,
        security: Security::Unauthenticated,
        sid: None,
        key_id: None,
        ssid: None,
        local: Some("192.0.2.1:40000".parse().unwrap()),
        remote: Some("192.0.2.2:862".parse().unwrap()),
        started: Some("2026-01-02T03:04:05.678901Z".into()),
        duration_ns: Some(9_999_990_000),
        interrupted: false,
        load: Load {
            offered_pps: Some(100_000.0),
            achieved_pps: Some(99_999.8),
            achieved_bps_l2: Some(288_131_000.0),
            profile: Profile::Imix,
            schedule: Schedule::Poisson,
            seed: Some(42),
            burst: 1,
            sizes: vec![
                size(64, 583_338, 583_316, 431_000),
                size(590, 333_328, 333_316, 440_000),
                size(1514, 83_334, 83_331, 458_000),
            ],
            paced_by: Some(crate::report::PacedBy::Sender),
            late_departures: Some(3),
            max_slip_ns: Some(12_700),
        },
        packets: Packets {
            sent: Some(1_000_000),
            probes: Some(0),
            not_sent: Some(0),
            not_sent_causes: Vec::new(),
            received: Some(999_963),
            lost: Some(37),
            unresolved: Some(0),
            lost_outbound: Some(12),
            lost_inbound: Some(20),
            lost_unattributed: Some(5),
            loss_bursts: Some(LossBursts {
                count: 9,
                longest: 12,
                longest_ns: Some(12_000_000),
                mean: Some(37.0 / 9.0),
            }),
            duplicates: Some(3),
            duplicates_outbound: Some(1),
            duplicates_inbound: Some(2),
            reordered: Some(0),
            reordered_outbound: Some(0),
            reordered_inbound: Some(0),
            late: Some(1),
            timeout_ns: Some(5_000_000_000),
            invalid: Some(0),
            ignored: None,
            rejected_samples: Some(0),
            icmp_unreachable: Some(0),
            icmp: Some(Vec::new()),
        },
        delay_ns: DelaySet {
            roundtrip: Some(figures(124_998, 374_100, 440_900, 1_050_000)),
            outbound: Some(figures(124_998, 147_900, 184_200, 804_000)),
            inbound: Some(figures(999_963, 211_000, 254_800, 472_000)),
            reflector: Some(figures(999_963, 430, 2_600, 90_000)),
        },
        timestamps: Timestamps {
            t1: Some(StampKind::Kernel),
            t2: Some(StampKind::Kernel),
            t4: Some(StampKind::Kernel),
            reflector_format: None,
            reflector_format_shown: None,
            exchanged: None,
            granularity: Some(Granularity::Packet),
            tx_stamp_one_in: Some(16),
            tx_stamp_one_in_most: Some(16),
            t1_spread: None,
            clock: Clock {
                same_clock: false,
                local_synchronised: Some(true),
                remote_synchronised: Some(true),
                local_error_ns: Some(1_000),
                remote_error_ns: Some(2_000),
                remote_estimates_unusable: Some(0),
                offset_estimate_ns: Some(-31_500),
                drift_ppm: Some(0.125),
                drift_error_ppm: Some(0.5),
                drift_changed: Some(false),
                drift_taken_out: Some(false),
                ..Clock::default()
            },
        },
        path: PathFacts {
            hops_outbound: Some(3),
            hops_inbound: Some(4),
            hops_changed: Some(false),
            dscp_sent: Some(46),
            dscp_at_reflector: None,
            dscp_received: Some(46),
            ecn_at_reflector: None,
            ecn_received: Some(0),
            reply_bytes: Some(vec![41, 548, 1472]),
            reply_size_ratio: None,
            replies_of_other_dscp: None,
            mtu: Some(1500),
            next_hop: None,
        },
        host: Host {
            verdict: Verdict::Ok,
            reasons: Vec::new(),
            kernel_drops: Some(0),
            tx_stamps_requested: Some(125_000),
            tx_stamps_received: Some(125_000),
            samples_not_recorded: Some(0),
            io: Io::Batched,
            refused_calls: Vec::new(),
            failure: None,
            receive_buffer_bytes: Some(8 << 20),
            cpu: Cpu {
                sender: Some(vec![2]),
                receiver: Some(vec![3]),
                user_seconds: Some(4.25),
                system_seconds: Some(11.5),
            },
            peak_memory_bytes: Some(12 << 20),
        },
        notes: vec![
            Sender::ReceiveBufferSmall {
                buffer_bytes: 212_992,
                allow_bytes: Some(4_194_304),
            }
            .into(),
        ],
        histograms: Histograms::default(),
    }
}

/// Nothing was measured, not even how many packets left.
fn nothing() -> Report {
    let full = full();
    Report {
        duration_ns: None,
        load: Load {
            offered_pps: None,
            achieved_pps: None,
            achieved_bps_l2: None,
            profile: Profile::Fixed,
            schedule: Schedule::Periodic,
            seed: None,
            sizes: Vec::new(),
            paced_by: None,
            late_departures: None,
            max_slip_ns: None,
            ..full.load
        },
        packets: Packets::default(),
        delay_ns: DelaySet::default(),
        timestamps: Timestamps {
            t1: None,
            t2: None,
            t4: None,
            reflector_format: None,
            reflector_format_shown: None,
            exchanged: None,
            granularity: None,
            tx_stamp_one_in: None,
            tx_stamp_one_in_most: None,
            t1_spread: None,
            clock: Clock::default(),
        },
        path: PathFacts::default(),
        host: Host {
            kernel_drops: None,
            tx_stamps_requested: None,
            tx_stamps_received: None,
            samples_not_recorded: None,
            io: Io::Portable,
            receive_buffer_bytes: None,
            cpu: Cpu::default(),
            peak_memory_bytes: None,
            ..full.host
        },
        notes: Vec::new(),
        ..full
    }
}

/// Packets left, none came back.
fn total_loss() -> Report {
    let (full, nothing) = (full(), nothing());
    Report {
        load: Load {
            offered_pps: Some(100.0),
            achieved_pps: Some(100.0),
            achieved_bps_l2: Some(51_200.0),
            sizes: vec![SizeEntry {
                roundtrip: None,
                ..size(64, 1000, 0, 0)
            }],
            profile: Profile::Fixed,
            schedule: Schedule::Periodic,
            paced_by: Some(crate::report::PacedBy::Sender),
            late_departures: Some(0),
            ..full.load
        },
        packets: Packets {
            sent: Some(1000),
            received: Some(0),
            lost: Some(1000),
            lost_outbound: Some(0),
            lost_inbound: Some(0),
            lost_unattributed: Some(1000),
            duplicates: Some(0),
            reordered: Some(0),
            late: Some(0),
            icmp_unreachable: Some(998),
            icmp: Some(Vec::new()),
            loss_bursts: Some(LossBursts {
                count: 1,
                longest: 1000,
                longest_ns: Some(1_000_000_000),
                mean: Some(1000.0),
            }),
            ..full.packets
        },
        host: Host {
            verdict: Verdict::NothingMeasured,
            tx_stamps_requested: Some(1000),
            tx_stamps_received: Some(1000),
            ..full.host
        },
        duration_ns: Some(9_990_000_000),
        ..nothing
    }
}

/// A reflector without a counter, whose clock is 600 s behind ours.
fn unsynchronised_stateless() -> Report {
    let mut report = full();
    report.packets.lost_outbound = None;
    report.packets.lost_inbound = None;
    report.packets.lost_unattributed = None;
    report.packets.duplicates_outbound = None;
    report.packets.duplicates_inbound = None;
    report.delay_ns.outbound = Some(figures(
        124_998,
        -599_999_853_000,
        -599_999_816_000,
        -599_999_196_000,
    ));
    report.delay_ns.inbound = Some(figures(
        999_963,
        600_000_211_000,
        600_000_254_000,
        600_000_472_000,
    ));
    report.timestamps.t2 = None;
    report.timestamps.clock = Clock {
        local_synchronised: Some(true),
        remote_synchronised: Some(false),
        offset_estimate_ns: Some(-600_000_100_000),
        ..report.timestamps.clock
    };
    report
}

/// This host was the limit.
fn tool_limited() -> Report {
    let mut report = full();
    report.timestamps.clock.same_clock = true;
    report.interrupted = true;
    report.host.verdict = Verdict::ToolLimited;
    report.host.kernel_drops = Some(1234);
    report.host.tx_stamps_received = Some(124_500);
    report.host.samples_not_recorded = Some(17);
    report.packets.rejected_samples = Some(2);
    report.packets.icmp_unreachable = Some(1);
    report
        .delay_ns
        .reflector
        .as_mut()
        .unwrap()
        .out_of_range
        .above = 4;
    report.delay_ns.reflector.as_mut().unwrap().p99_9 = None;
    report.delay_ns.reflector.as_mut().unwrap().samples_needed = Some(SamplesNeeded {
        p99_9: Some(10_000),
        ..SamplesNeeded::default()
    });
    report.host.reasons = vec![
        Reason::SocketDrops {
            datagrams: 1234,
            bundles: false,
        },
        Reason::TransmitStampsMissing {
            missing: 500,
            requested: 125_000,
        },
    ];
    report
}

#[test]
fn summaries_are_these() {
    let cases = [
        (full(), "full"),
        (nothing(), "nothing"),
        (total_loss(), "total-loss"),
        (unsynchronised_stateless(), "unsynchronised-stateless"),
        (tool_limited(), "tool-limited"),
    ];
    for (report, expected) in cases {
        is(&report, Detail::Normal, expected);
    }
}

fn is(report: &Report, detail: Detail, name: &str) {
    let text = summary(report, detail);
    let root = env!("CARGO_MANIFEST_DIR");
    let file = format!("{root}/src/output/text/snapshots/{name}.txt");
    if std::env::var_os("RENEW_SNAPSHOTS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    assert!(text == expected, "{file} is not what is shown:\n{text}");
    assert!(text.is_ascii() && text.ends_with('\n'));
    for line in text.lines() {
        assert!(line.len() <= WIDTH && line == line.trim_end(), "{line:?}");
    }
}

#[test]
fn the_brief_form_is_this() {
    let brief = "tool-limited-brief";
    is(&tool_limited(), Detail::Brief, brief);
}

#[test]
fn the_long_form_is_this() {
    let mut report = unsynchronised_stateless();
    report.delay_ns.reflector = None;
    report.path.hops_outbound = None;
    let full = "unsynchronised-full";
    is(&report, Detail::Full, full);
    let nothing = summary(&nothing(), Detail::Full);
    assert!(!nothing.contains("not told by") && !nothing.contains("Delays"));
}

#[test]
fn the_table_is_twampys_to_the_column() {
    let mut report = full();
    let direction = |min, max, mean, jitter| {
        let mut delay = figures(1, min, 0, max);
        (delay.mean, delay.jitter) = (mean, Some(jitter));
        Some(delay)
    };
    report.packets = Packets {
        sent: Some(100),
        received: Some(100),
        lost: Some(0),
        lost_outbound: Some(0),
        lost_inbound: Some(0),
        lost_unattributed: Some(0),
        ..report.packets
    };
    report.delay_ns = DelaySet {
        outbound: direction(147_000, 229_000, 185_400.0, 23_000.0),
        inbound: direction(211_000, 472_900, 255_000.0, 71_000.0),
        roundtrip: direction(374_000, 619_000, 441_000.0, 83_000.0),
        reflector: None,
    };
    // Octets that twampy printed; only the RFC is another.
    let twampy = "\
===============================================================================
Direction         Min         Max         Avg          Jitter     Loss
-------------------------------------------------------------------------------
  Outbound:         147us       229us       185us        23us      0.0%
  Inbound:          211us       472us       255us        71us      0.0%
  Roundtrip:        374us       619us       441us        83us      0.0%
-------------------------------------------------------------------------------
                                                    Jitter Algorithm [RFC3550]
===============================================================================";
    assert_eq!(table(&report).join("\n"), twampy);
}

#[test]
fn delays_have_twampys_units() {
    for (ns, text) in [
        (0.0, "       0us"),
        (-0.0, "       0us"),
        (0.04, "    <0.1ns"),
        (-0.04, "   >-0.1ns"),
        (0.4, "     0.4ns"),
        (430.0, "     430ns"),
        (-250.0, "    -250ns"),
        (999.9, "     999ns"),
        (1e3, "       1us"),
        (147_999.0, "     147us"),
        (-147_999.0, "    -147us"),
        (1e6, "    1000us"),
        (1_000_001.0, "    1.00ms"),
        (1_050_000.0, "    1.05ms"),
        (-1_050_000.0, "   -1.05ms"),
        (1e9, " 1000.00ms"),
        (1_001e6, "   1.00sec"),
        (9.5e9, "   9.50sec"),
        (10_001e6, "   10.0sec"),
        (60e9, "   60.0sec"),
        (60_001e6, "    1.0min"),
        (-1.8e12, "  -30.0min"),
        (99_999.0 * MINUTE_NS, "99999.0min"),
        (-99_999.0 * MINUTE_NS, "  -69.4day"),
        (ns(i64::MAX), " 106752day"),
        (ns(i64::MIN), "-106752day"),
        (f64::NAN, "         -"),
    ] {
        assert_eq!(dp(ns), text, "{ns}");
    }
}

#[test]
fn nothing_lost_reads_as_nothing() {
    for (lost, sent, text) in [
        (0, 100, "  0.0%"),
        (1, 1_000_000, " <0.1%"),
        (u64::MAX, u64::MAX, "100.0%"),
        (999_999, 1_000_000, ">99.9%"),
        (1, 3, " 33.3%"),
        (0, 0, "     -"),
    ] {
        assert_eq!(loss(Some(lost), Some(sent)), text);
    }
    assert_eq!(loss(None, Some(1)), "     -");
    assert_eq!(percent(1, 1_000_000, 3).unwrap(), "<0.001");
    assert_eq!(percent(999_999, 1_000_000, 3).unwrap(), ">99.999");
}

#[test]
fn numbers_have_separators() {
    let counts = [0, 999, 1000, 999_999, 1_000_000].map(count);
    assert_eq!(counts, ["0", "999", "1,000", "999,999", "1,000,000"]);
    assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    let rates = [100_000.0, 999.9996, 0.5, 20.0, 0.0, 1e-9, 33.3333].map(rate);
    let expected = [
        "100,000/s",
        "1,000/s",
        "0.5/s",
        "20/s",
        "0/s",
        "<0.001/s",
        "33.333/s",
    ];
    assert_eq!(rates, expected);
    let bits = [512.0, 7_680_000.0, 53_100_000.0, 9_876_543_210.0].map(megabits);
    let expected = [
        "0.000512 Mbit/s",
        "7.680 Mbit/s",
        "53.10 Mbit/s",
        "9,876.54 Mbit/s",
    ];
    assert_eq!(bits, expected);
    assert_eq!(
        [0.0, 1e-6, 1234.5].map(seconds),
        ["0.000 s", "<0.001 s", "1,234.500 s"]
    );
}

#[test]
fn long_text_hangs_below_its_beginning() {
    let text = wrap(&format!("note: {}", "four ".repeat(30)), 6);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("note: four") && lines[1].starts_with("      four"));
    assert!(lines.iter().all(|line| line.len() <= WIDTH));
    let long = "x".repeat(100);
    assert_eq!(wrap(&format!("a {long} b"), 2), format!("a\n  {long}\n  b"));
    assert_eq!(wrap(" \n", 2), "");
}

#[test]
fn clocks_that_contradict_themselves_are_marked() {
    let mut report = full();
    assert_eq!(one_way_doubt(&report), None);
    report.timestamps.clock.remote_error_ns = Some(147_000);
    assert!(
        one_way_doubt(&report)
            .unwrap()
            .contains("may be 148us apart")
    );
    report.delay_ns.outbound.as_mut().unwrap().min = -430;
    assert!(one_way_doubt(&report).unwrap().contains("at least 430ns"));
    report.timestamps.clock.remote_synchronised = None;
    assert!(
        one_way_doubt(&report)
            .unwrap()
            .contains("not known to agree")
    );
    assert!(summary(&report, Detail::Normal).contains("  Outbound*:       -430ns"));
    report.timestamps.clock.same_clock = true;
    assert_eq!(one_way_doubt(&report), None);
}

proptest! {
    #[test]
    fn no_delay_reads_as_zero_or_leaves_its_column(value: i64, shift in 0_u32..63) {
        for value in [value, value >> shift] {
            let text = dp(ns(value));
            prop_assert_eq!(text.len(), 10, "{}", text);
            let zero = text.chars().all(|c| !('1'..='9').contains(&c));
            prop_assert_eq!(zero, value == 0, "{}", text);
            prop_assert_eq!(text.contains('-'), value < 0);
        }
    }

    #[test]
    fn larger_delays_never_read_as_smaller(value in 0..i64::MAX, shift in 0_u32..63) {
        let value = ns(value >> shift);
        let read = |text: String| {
            let (number, unit) = text.trim().split_at(text.trim().find(char::is_alphabetic).unwrap());
            let unit = ["ns", "us", "ms", "sec", "min", "day"].iter().position(|u| *u == unit);
            let unit = [1.0, 1e3, 1e6, SECOND_NS, MINUTE_NS, DAY_NS][unit.unwrap()];
            number.parse::<f64>().unwrap() * unit
        };
        prop_assert!(read(dp(value)) <= read(dp(value * 1.5)) * 1.0001);
    }

    #[test]
    fn any_figures_fit(min: i64, median: i64, max: i64, clock: bool) {
        let mut report = full();
        let any = Some(figures(1, min, median, max));
        report.delay_ns = DelaySet {
            roundtrip: any.clone(),
            outbound: any.clone(),
            inbound: any.clone(),
            reflector: any,
        };
        report.timestamps.clock.offset_estimate_ns = Some(min);
        report.timestamps.clock.remote_synchronised = Some(clock);
        for detail in [Detail::Brief, Detail::Normal, Detail::Full] {
            for line in summary(&report, detail).lines() {
                prop_assert!(line.len() <= WIDTH, "{}", line);
            }
        }
    }
}
