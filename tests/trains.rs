//! Packets that leave as segmentation trains and come as bundles: counts stay exact.

mod common;

use common::{FakeReflector, Reflector, assert_no_loss, run, short_reply};
use serde_json::{Value, json};

fn measured(line: &str) -> Value {
    run(&format!("{line} --json")).measured()
}

#[test]
fn a_train_is_counted_packet_by_packet() {
    for reflector in [
        "127.0.0.1:0",
        "[::1]:0",
        "127.0.0.1:0 --stateless",
        "127.0.0.1:0 --io portable",
        "127.0.0.1:0 --timestamp-format ptp --threads 2",
    ] {
        let bundles = !reflector.contains("portable");
        let reflector = Reflector::start(reflector);
        let remote = reflector.address();
        // The last train has 8 packets.
        for sizes in ["--payload-size 64", "--padding 0", "--payload-size 1400"] {
            let line = format!("sender {remote} --rate 20k -c 1000 --burst 32 {sizes}");
            let report = measured(&line);
            assert_no_loss(&report, 1000);
            assert_eq!(report["load"]["burst"], 32, "{line}");
            assert_eq!(report["timestamps"]["granularity"], "train", "{line}");
            assert_eq!(report["host"]["io"], "offload", "{line}");
            let notes = report["notes"].to_string();
            assert!(notes.contains("share their timestamps"), "{notes}");
            assert_eq!(report["packets"]["reordered"], 0, "{line}");
            assert_eq!(report["packets"]["invalid"], 0, "{line}");
            assert_eq!(report["delay_ns"]["inbound"]["samples"], 1000, "{line}");
            let offered = report["load"]["offered_pps"].as_f64().unwrap();
            assert!((offered - 20_000.0).abs() < 1e-6);
        }
        let account = reflector.stop();
        assert_eq!(account.count("invalid"), 0, "{}", account.0);
        assert!(account.count("received") >= 3000, "{}", account.0);
        assert_eq!(account.count("received"), account.count("reflected"));
        let told = account.0.contains("\n3,000 requests came in bundles");
        assert_eq!(told, bundles, "{}", account.0);
    }
}

#[test]
fn trains_of_a_mix_have_the_exact_ratio() {
    let reflector = Reflector::start("127.0.0.1:0");
    let remote = reflector.address();
    let report = measured(&format!(
        "sender {remote} --rate 50k -c 3840 --burst 16 --imix"
    ));
    assert_no_loss(&report, 3840);
    let sizes = report["load"]["sizes"].as_array().unwrap();
    let packets: Vec<&Value> = sizes.iter().map(|size| &size["packets"]).collect();
    assert_eq!(packets, [&json!(2240), &json!(1280), &json!(320)]);
    assert_eq!(report["path"]["reply_bytes"], json!([41, 548, 1472]));
}

#[test]
fn one_packet_each_is_the_precise_mode() {
    let reflector = Reflector::start("127.0.0.1:0");
    for burst in ["1", "auto"] {
        let line = format!(
            "sender {} --rate 2k -c 400 --burst {burst}",
            reflector.address()
        );
        let report = measured(&line);
        assert_no_loss(&report, 400);
        assert_eq!(report["load"]["burst"], 1);
        assert_eq!(report["timestamps"]["granularity"], "packet");
        assert_eq!(report["host"]["io"], "batched");
        assert_eq!(report["notes"], json!([]));
        assert_eq!(report["delay_ns"]["roundtrip"]["samples"], 400);
    }
}

#[test]
fn sizes_that_fit_no_long_train_have_shorter_ones() {
    let reflector = Reflector::start("127.0.0.1:0");
    for (size, burst) in [(8972, 7), (65_507, 1)] {
        let line = format!(
            "sender {} --rate 2k -c 100 --burst 64 --payload-size {size}",
            reflector.address()
        );
        let report = measured(&line);
        assert_no_loss(&report, 100);
        assert_eq!(report["load"]["burst"], burst);
    }
}

#[test]
fn a_reflector_that_knows_no_bundles_is_measured_alike() {
    let mut number = 0;
    let reflector = FakeReflector::start(move |request| {
        let seq = u32::from_be_bytes(request[..4].try_into().unwrap());
        if seq % 10 == 4 {
            return vec![];
        }
        let reply = short_reply(request, number);
        number += 1;
        vec![reply]
    });
    let line = format!(
        "sender {} --rate 2k -c 640 --burst 16 --first-seq 4294967000 --packet-timeout 1s",
        reflector.address
    );
    let report = measured(&line);
    let lost = (0..640_u32).filter(|n| 4_294_967_000_u32.wrapping_add(*n) % 10 == 4);
    let lost = u64::try_from(lost.count()).unwrap();
    assert_eq!(report["packets"]["sent"], 640);
    assert_eq!(report["packets"]["lost_outbound"], lost);
    assert_eq!(report["packets"]["lost_inbound"], 0);
}
