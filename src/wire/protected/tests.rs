use hmac::{KeyInit, Mac};
use proptest::prelude::*;
use serde_json::Value;
use sha1::Sha1;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::wire::{
    ErrorEstimate, Format, Modes, ReplyHead, ReplyTail, TestFormat, Timestamp, TooShort,
};

const MODES: [Mode; 2] = [Mode::Authenticated, Mode::Encrypted];

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

/// The vectors of both protected modes, in their order.
fn packet_vectors() -> Vec<Value> {
    let mut rows = rows(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/test_packets.json"
    )));
    rows.retain(|row| mode(row).is_some());
    rows
}

/// By bits 1 and 2 of Modes.
fn mode(row: &Value) -> Option<Mode> {
    match row["mode"].as_u64().unwrap() & 0b110 {
        0b010 => Some(Mode::Authenticated),
        0b100 => Some(Mode::Encrypted),
        _ => None,
    }
}

fn octets(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn array<const N: usize>(hex: &Value) -> [u8; N] {
    octets(hex).try_into().unwrap()
}

fn protection(row: &Value, mode: Mode) -> Protection {
    let keys = TestKeys::new(&array(&row["test_aes_key"]), &array(&row["test_hmac_key"]));
    Protection::new(mode, &keys)
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn estimate(hex: &Value) -> ErrorEstimate {
    ErrorEstimate::from_raw(u16::from_be_bytes(array(hex)))
}

/// The vectors round to nearest, we round up: `found` if it is what we write, or one less.
fn timestamp(unix_ns: &Value, found: Timestamp) -> Timestamp {
    let ours = Timestamp::from_unix_ns(unix_ns.as_i64().unwrap(), Format::Ntp);
    let more = ours.raw().wrapping_sub(found.raw());
    assert!(more <= 1, "{unix_ns} {found} {ours}");
    found
}

/// Protects one packet in clear as a sender or reflector does, without changing its timestamp.
fn seal<P: Packet>(protection: &Protection, octets: &mut [u8]) {
    let (packet, _) = P::read_from_prefix(octets).unwrap();
    let time = packet.head().timestamp;
    let step = octets.len();
    protection.prepare::<P>(octets, step);
    protection.stamp::<P>(octets, step, time);
}

/// Opens one packet where it is.
fn open<P: Packet + Copy>(protection: &Protection, octets: &mut [u8]) -> Result<P, Refused> {
    let mut found = Vec::new();
    let step = octets.len();
    protection.open::<P>(octets, step, |place, result| {
        found.push((place, result.copied()));
    });
    assert_eq!((found.len(), found[0].0), (1, 0));
    found[0].1
}

#[test]
fn keys_match_the_vectors() {
    let rows = rows(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/test_keys.json"
    )));
    assert_eq!(rows.len(), 4);
    for row in rows {
        let keys = TestKeys::derive(
            &array(&row["sid"]),
            &array(&row["control_aes_key"]),
            &array(&row["control_hmac_key"]),
        );
        let (aes, hmac) = keys.octets();
        assert_eq!(aes.as_slice(), octets(&row["test_aes_key"]));
        assert_eq!(hmac.as_slice(), octets(&row["test_hmac_key"]));
    }
}

/// Every vector is opened to its plaintext, and that is sealed to its octets on the wire.
#[test]
fn packets_match_the_vectors_both_ways() {
    fn check<P: Packet + Copy>(row: &Value) {
        let protection = protection(row, mode(row).unwrap());
        let (wire, plaintext) = (octets(&row["wire"]), octets(&row["plaintext"]));
        assert_eq!(wire.len(), row["length"]);
        let mut buffer = wire.clone();
        let opened: P = open(&protection, &mut buffer).unwrap();
        assert_eq!(buffer, plaintext, "{row}");
        assert_eq!(opened.as_bytes(), &plaintext[..size_of::<P>()]);
        assert_eq!(opened.hmac().as_slice(), octets(&row["hmac"]));

        let hmac = usize::try_from(row["hmac_offset"].as_u64().unwrap()).unwrap();
        assert_eq!(hmac + HMAC_LEN, size_of::<P>());
        buffer[hmac..hmac + HMAC_LEN].fill(0xa5);
        seal::<P>(&protection, &mut buffer);
        assert_eq!(buffer, wire, "{row}");
    }
    let mut seen = 0;
    for row in packet_vectors() {
        match row["direction"].as_str().unwrap() {
            "sender" => check::<SenderPacket>(&row),
            "reflector" => check::<ReflectorPacket>(&row),
            other => panic!("{other}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 18);
}

/// From the fields to the wire, and a reply from the request that it answers.
#[test]
fn requests_and_replies_are_built_as_in_the_vectors() {
    let mut seen = 0;
    for pair in packet_vectors().windows(2) {
        let (row, answer) = (&pair[0], &pair[1]);
        if row["fields"].is_null() || row["direction"] == "reflector" {
            continue;
        }
        let protection = protection(row, mode(row).unwrap());
        let (fields, wire) = (&row["fields"], octets(&row["wire"]));
        let mut slot = wire.clone();
        let opened: SenderPacket = open(&protection, &mut slot).unwrap();
        let plain = crate::wire::SenderPacket {
            seq: number(&fields["sequence"]).into(),
            timestamp: timestamp(&fields["timestamp_unix_ns"], opened.head.timestamp),
            error_estimate: estimate(&fields["error_estimate"]),
        };
        assert_eq!(opened.plain(), plain);
        let mut built = vec![0xa5; wire.len()];
        built[SENDER_LEN..].copy_from_slice(&octets(&fields["padding"]));
        built[..SENDER_LEN].copy_from_slice(SenderPacket::from(plain).as_bytes());
        seal::<SenderPacket>(&protection, &mut built);
        assert_eq!(built, wire, "{row}");

        let fields = &answer["fields"];
        let expected = octets(&answer["wire"]);
        let read: ReflectorPacket = open(&protection, &mut expected.clone()).unwrap();
        let reply = crate::wire::ReflectorPacket {
            head: ReplyHead {
                seq: number(&fields["sequence"]).into(),
                // Not known before the end.
                timestamp: Timestamp::from_raw(0),
                error_estimate: estimate(&fields["error_estimate"]),
                mbz: [0; 2],
                receive_timestamp: timestamp(
                    &fields["receive_timestamp_unix_ns"],
                    read.receive_timestamp,
                ),
                sender_seq: plain.seq,
                sender_timestamp: plain.timestamp,
                sender_error_estimate: plain.error_estimate,
            },
            tail: ReplyTail {
                mbz: [0; 2],
                sender_ttl: number(&fields["sender_ttl"]).try_into().unwrap(),
            },
        };
        let t3 = timestamp(&fields["timestamp_unix_ns"], read.head.timestamp);
        slot.resize(512, 0xa5);
        let format = TestFormat::new(Modes::ENCRYPTED, 0, [0; 2]).unwrap();
        let blank = ReflectorPacket::from(reply);
        let len = format
            .write_reply(&mut slot, 0, wire.len(), 0, blank.as_bytes())
            .unwrap();
        assert_eq!(len, format.reply_len(wire.len()));
        protection.prepare::<ReflectorPacket>(&mut slot[..len], len);
        protection.stamp::<ReflectorPacket>(&mut slot[..len], len, t3);
        assert_eq!(slot[..len], expected, "{answer}");
        assert!(slot[len.max(wire.len())..].iter().all(|&o| o == 0xa5));
        let mut plain = reply;
        plain.head.timestamp = t3;
        assert_eq!(read.plain(), plain);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn the_tos_of_the_request_is_where_rfc_7750_has_it() {
    let rows = packet_vectors();
    let monitoring = |row: &&Value| row["mode"] == 256 + 4;
    let row = rows.iter().find(monitoring).unwrap();
    let mut wire = octets(&row["wire"]);
    let opened: ReflectorPacket = open(&protection(row, Mode::Encrypted), &mut wire).unwrap();
    assert_eq!((opened.sender_tos, opened.sender_ttl), (46 << 2 | 1, 254));
    assert_eq!(wire[81], 46 << 2 | 1);
}

#[test]
fn a_forged_packet_of_the_vectors_is_refused() {
    let rows = rows(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/negative.json"
    )));
    let what = "encrypted sender packet with one HMAC bit flipped";
    let row = rows.iter().find(|row| row["what"] == what).unwrap();
    let protection = protection(row, Mode::Encrypted);
    let refusal = open::<SenderPacket>(&protection, &mut octets(&row["wire"]));
    assert_eq!(refusal, Err(Refused::Forged));
}

#[test]
fn a_multiplier_of_zero_is_opened_and_a_packet_cut_short_is_refused() {
    for mode in MODES {
        let protection = Protection::new(mode, &TestKeys::new(&[1; 16], &[2; 32]));
        let mut packet = SenderPacket::from(crate::wire::SenderPacket {
            seq: 7.into(),
            timestamp: Timestamp::from_raw(8),
            error_estimate: ErrorEstimate::from_raw(0xff00),
        });
        seal::<SenderPacket>(&protection, packet.as_mut_bytes());
        let opened = open::<SenderPacket>(&protection, packet.as_mut_bytes());
        assert_eq!(opened.unwrap().head.error_estimate.multiplier(), 0);
        for (got, octets) in [(47, [0; 112]), (1, [0; 112])].map(|(n, o)| (n, o[..n].to_vec())) {
            let mut octets = octets;
            assert_eq!(
                open::<SenderPacket>(&protection, &mut octets),
                Err(Refused::TooShort(TooShort { need: 48, got }))
            );
        }
        assert_eq!(
            open::<ReflectorPacket>(&protection, &mut [0; 111]),
            Err(Refused::TooShort(TooShort {
                need: 112,
                got: 111
            }))
        );
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let short = Refused::from(TooShort { need: 48, got: 47 });
    assert_eq!(short.to_string(), "47 octets, at least 48 are needed");
    let forged = Refused::Forged.to_string();
    assert_eq!(forged, "the HMAC is not that of the packet");
}

#[test]
fn keys_are_not_printed() {
    let keys = TestKeys::new(&[0xab; 16], &[0xcd; 32]);
    assert_eq!(format!("{keys:?}"), "TestKeys { .. }");
    let protection = Protection::new(Mode::Encrypted, &keys);
    let text = "Protection { mode: Encrypted, .. }";
    assert_eq!(format!("{protection:?}"), text);
}

/// Octets that tell where they stood.
fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn the_hmac_is_that_of_the_library() {
    for (key, blocks) in (0..=7_u8).map(|n| ([n * 31; 32], usize::from(n))) {
        let text = numbered(blocks * 16);
        let mut theirs = hmac::Hmac::<Sha1>::new_from_slice(&key).unwrap();
        theirs.update(&text);
        let theirs = theirs.finalize().into_bytes();
        assert_eq!(keys::hmac(&key, text.as_chunks().0), theirs[..16]);
    }
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Authenticated), Just(Mode::Encrypted)]
}

fn any_protection() -> impl Strategy<Value = Protection> {
    (any_mode(), any::<[u8; 16]>(), any::<[u8; 32]>())
        .prop_map(|(mode, aes, hmac)| Protection::new(mode, &TestKeys::new(&aes, &hmac)))
}

/// Several packets in clear, the last one perhaps shorter, and their step. A train of any octets,
/// but with Error Estimates that are allowed.
fn any_train<P: Packet>() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let len = size_of::<P>();
    (len..len + 40, 0..60_usize, 0..len + 40)
        .prop_flat_map(|(step, whole, last)| {
            let len = whole * step + last.min(step);
            (prop::collection::vec(any::<u8>(), len), Just(step))
        })
        .prop_map(|(mut octets, step)| {
            for packet in octets.chunks_mut(step).filter(|p| p.len() >= 32) {
                packet[25] |= 1;
            }
            (octets, step)
        })
}

fn places_opened<P: Packet + Copy>(
    protection: &Protection,
    octets: &mut [u8],
    step: usize,
) -> Vec<(usize, Result<P, Refused>)> {
    let mut found = Vec::new();
    protection.open::<P>(octets, step, |place, result| {
        found.push((place, result.copied()));
    });
    found
}

/// A train that is sealed and opened in one call is the same as packet by packet, comes back as it
/// was, and a second stamp is as good as the first one.
fn round_trip<P: Packet + Copy + PartialEq + core::fmt::Debug>(
    protection: &Protection,
    (octets, step): (Vec<u8>, usize),
    time: Timestamp,
) -> Result<(), TestCaseError> {
    let mut train = octets.clone();
    protection.prepare::<P>(&mut train, step);
    protection.stamp::<P>(&mut train, step, time);

    let mut alone = octets.clone();
    for packet in alone.chunks_mut(step) {
        let len = packet.len();
        protection.prepare::<P>(packet, len);
        protection.stamp::<P>(packet, len, time);
    }
    prop_assert_eq!(&train, &alone);

    let mut again = octets.clone();
    protection.prepare::<P>(&mut again, step);
    protection.stamp::<P>(&mut again, step, Timestamp::from_raw(!time.raw()));
    protection.stamp_again::<P>(&mut again, step, time);
    prop_assert_eq!(&train, &again);

    let found = places_opened::<P>(protection, &mut train, step);
    prop_assert_eq!(found.len(), octets.len().div_ceil(step));
    for (number, ((place, result), packet)) in
        found.into_iter().zip(octets.chunks(step)).enumerate()
    {
        prop_assert_eq!(place, number);
        let Ok((mut expected, padding)) = P::read_from_prefix(packet) else {
            let short = TooShort {
                need: size_of::<P>(),
                got: packet.len(),
            };
            prop_assert_eq!(result, Err(short.into()));
            continue;
        };
        expected.head_mut().timestamp = time;
        let opened = result.unwrap();
        *expected.hmac_mut() = *opened.hmac();
        prop_assert_eq!(opened, expected);
        let at = place * step + size_of::<P>();
        prop_assert_eq!(&train[at..at + padding.len()], padding);
    }
    Ok(())
}

/// A change of one bit is noticed where it is covered, and changes nothing that is covered where
/// it is not.
fn flipped_bit<P: Packet + Copy>(
    protection: &Protection,
    octets: &[u8],
    bit: usize,
) -> Result<(), TestCaseError> {
    let mut sealed = octets.to_vec();
    seal::<P>(protection, &mut sealed);
    let genuine: P = open(protection, &mut sealed.clone()).unwrap();
    sealed[bit / 8] ^= 1 << (bit % 8);
    let found = open::<P>(protection, &mut sealed.clone());
    let end = size_of::<P>();
    let covered = match protection.mode() {
        Mode::Authenticated => 16,
        Mode::Encrypted => end - HMAC_LEN,
    };
    let at = bit / 8;
    if at < covered || (end - HMAC_LEN..end).contains(&at) {
        prop_assert_eq!(found.err(), Some(Refused::Forged));
    } else {
        let found = found.unwrap();
        prop_assert_eq!(&found.as_bytes()[..covered], &genuine.as_bytes()[..covered]);
    }
    Ok(())
}

fn no_panic<P: Packet + Copy>(
    protection: &Protection,
    octets: &[u8],
    step: usize,
) -> Result<(), TestCaseError> {
    let mut opened = octets.to_vec();
    let found = places_opened::<P>(protection, &mut opened, step);
    prop_assert_eq!(found.len(), octets.len().div_ceil(step.max(1)));
    for (number, (place, result)) in found.into_iter().enumerate() {
        prop_assert_eq!(place, number);
        let rest = octets.len() - place * step.max(1);
        let refused = result.err().unwrap();
        let short = TooShort {
            need: size_of::<P>(),
            got: rest.min(step.max(1)),
        };
        if rest.min(step) < size_of::<P>() {
            prop_assert_eq!(refused, Refused::from(short));
        } else {
            prop_assert_eq!(refused, Refused::Forged);
        }
    }
    let mut sealed = octets.to_vec();
    let time = Timestamp::from_raw(1);
    protection.prepare::<P>(&mut sealed, step);
    protection.stamp::<P>(&mut sealed, step, time);
    protection.stamp_again::<P>(&mut sealed, step, time);
    prop_assert_eq!(sealed.len(), octets.len());
    Ok(())
}

proptest! {
    #[test]
    fn requests_come_back_and_a_batch_is_as_one_by_one(
        protection in any_protection(), train in any_train::<SenderPacket>(), time: u64,
    ) {
        round_trip::<SenderPacket>(&protection, train, Timestamp::from_raw(time))?;
    }

    #[test]
    fn replies_come_back_and_a_batch_is_as_one_by_one(
        protection in any_protection(), train in any_train::<ReflectorPacket>(), time: u64,
    ) {
        round_trip::<ReflectorPacket>(&protection, train, Timestamp::from_raw(time))?;
    }

    #[test]
    fn a_flipped_bit_of_a_request_is_refused(
        protection in any_protection(), octets: [u8; 64], bit in 0..64 * 8_usize,
    ) {
        let mut octets = octets;
        octets[25] |= 1;
        flipped_bit::<SenderPacket>(&protection, &octets, bit)?;
    }

    #[test]
    fn a_flipped_bit_of_a_reply_is_refused(
        protection in any_protection(),
        octets in prop::collection::vec(any::<u8>(), 128),
        bit in 0..128 * 8_usize,
    ) {
        let mut octets = octets;
        octets[25] |= 1;
        flipped_bit::<ReflectorPacket>(&protection, &octets, bit)?;
    }

    #[test]
    fn any_octets_are_refused_without_a_panic(
        protection in any_protection(),
        octets in prop::collection::vec(any::<u8>(), 0..700),
        step in prop_oneof![0..260_usize, Just(usize::MAX)],
    ) {
        no_panic::<SenderPacket>(&protection, &octets, step)?;
        no_panic::<ReflectorPacket>(&protection, &octets, step)?;
    }

    #[test]
    fn packets_of_one_direction_are_none_of_the_other_nor_of_other_keys(
        protection in any_protection(), other in any_protection(),
        octets in prop::collection::vec(any::<u8>(), 112..200),
    ) {
        let mut octets = octets;
        octets[25] |= 1;
        let mut request = octets.clone();
        seal::<SenderPacket>(&protection, &mut request);
        prop_assert!(open::<ReflectorPacket>(&protection, &mut request.clone()).is_err());
        prop_assert!(open::<SenderPacket>(&other, &mut request).is_err());
        seal::<ReflectorPacket>(&protection, &mut octets);
        prop_assert!(open::<SenderPacket>(&protection, &mut octets).is_err());
    }

    #[test]
    fn fields_survive_the_way_through_the_protected_layout(octets: [u8; 41]) {
        let (mut plain, _) = crate::wire::ReflectorPacket::read_from_prefix(&octets).unwrap();
        plain.head.mbz = [0; 2];
        plain.tail.mbz = [0; 2];
        prop_assert_eq!(ReflectorPacket::from(plain).plain(), plain);
        let (sender, _) = crate::wire::SenderPacket::read_from_prefix(&octets).unwrap();
        prop_assert_eq!(SenderPacket::from(sender).plain(), sender);
    }
}
