//! Octets that are no packet are counted and dropped, on both sides, and disturb nothing.

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{FakeReflector, LIMIT, Reflector, assert_no_loss, request, run, short_reply};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const DATAGRAMS: u32 = 4_000;

fn random_octets(rng: &mut Pcg64Mcg, most: usize) -> Vec<u8> {
    let mut octets = vec![0; rng.random_range(0..=most)];
    rng.fill_bytes(&mut octets);
    octets
}

/// A request with one thing wrong, or perhaps not quite.
fn mutated(rng: &mut Pcg64Mcg, seq: u32) -> Vec<u8> {
    let mut datagram = [request(seq), random_octets(rng, 60)].concat();
    match rng.random_range(0..4) {
        0 => datagram.truncate(rng.random_range(0..20)),
        1 => datagram[13] = 0,
        2 => {
            let at = rng.random_range(0..datagram.len());
            datagram[at] ^= 1 << rng.random_range(0..8);
        }
        _ => {}
    }
    datagram
}

/// 14 octets. A Multiplier of 0 is no reason to discard it, whatever RFC 4656 §4.1.2 says: real
/// Session-Senders write that.
fn is_request(datagram: &[u8]) -> bool {
    datagram.len() >= 14
}

#[test]
fn a_reflector_answers_requests_and_nothing_else() {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let reflector = Reflector::start("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(reflector.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reply = [0; 4096];
    let mut ask = |datagram: &[u8]| {
        socket.send(datagram).unwrap();
        if !is_request(datagram) {
            // A reply would be taken for the next one's, and is not.
            return 1;
        }
        let len = socket.recv(&mut reply).expect("a request is answered");
        assert_eq!(len, datagram.len().max(41), "{datagram:?}");
        assert_eq!(reply[24..38], datagram[..14]);
        0
    };
    let mut invalid = 0;
    for seq in 0..DATAGRAMS {
        invalid += match seq % 3 {
            0 => ask(&random_octets(&mut rng, 2000)),
            1 => ask(&random_octets(&mut rng, 50)),
            _ => ask(&mutated(&mut rng, seq)),
        };
    }
    ask(&request(DATAGRAMS));
    assert!(invalid > 400, "{invalid}: the mix has invalid ones");

    let line = format!("sender {} -i 1ms -c 100 --json", reflector.address());
    assert_no_loss(&run(&line).measured(), 100);
    let summary = reflector.stop();
    assert_eq!(summary.count("invalid"), invalid, "{}", summary.0);
    let requests = u64::from(DATAGRAMS) + 1 - invalid + 100;
    let reflected = summary.count("reflected");
    assert_eq!(reflected, requests, "{}", summary.0);
    assert_eq!(summary.count("received"), reflected + invalid);
}

/// A datagram that is no reply to `request`, in one of many ways.
fn garbage(rng: &mut Pcg64Mcg, request: &[u8], true_reply: &[u8]) -> Vec<u8> {
    let mut octets = true_reply.to_vec();
    match rng.random_range(0..6) {
        0 => return random_octets(rng, 37),
        1 => return random_octets(rng, 2000),
        2 => return request.to_vec(),
        3 => octets.truncate(rng.random_range(0..38)),
        // A sequence number far from any that was sent.
        4 => octets[24] ^= 0x40,
        // Another T1 than was sent.
        _ => octets[rng.random_range(28..36)] ^= 1 << rng.random_range(0..8),
    }
    octets
}

#[test]
fn a_sender_counts_garbage_and_measures_all_the_same() {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let mut number = 0;
    let mut expected = 0;
    let reflector = FakeReflector::start(move |request| {
        let reply = [short_reply(request, number), vec![0, 0, 255]].concat();
        number += 1;
        let seq = u32::from_be_bytes(request[..4].try_into().unwrap());
        let mut replies = Vec::new();
        // Nothing beside the answers to what the sender asks when the session is over.
        if seq == expected {
            expected += 1;
            for _ in 0..rng.random_range(0..4) {
                replies.push(garbage(&mut rng, request, &reply));
            }
        }
        count.fetch_add(replies.len() as u64, Ordering::Relaxed);
        // The true one last: then the others have arrived when the sender is content.
        replies.push(reply);
        replies
    });
    for io in ["batched", "portable"] {
        let before = sent.load(Ordering::Relaxed);
        let line = format!(
            "sender {} -i 1ms -c 500 --io {io} --json",
            reflector.address
        );
        let report = run(&line).measured();
        assert_no_loss(&report, 500);
        assert_eq!(report["packets"]["duplicates"], 0);
        assert_eq!(report["delay_ns"]["roundtrip"]["samples"], 500);
        let garbage = sent.load(Ordering::Relaxed) - before;
        assert_eq!(report["packets"]["invalid"], garbage, "{io}");
    }
}
