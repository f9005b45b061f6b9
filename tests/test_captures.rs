//! Test packets between programs that other people wrote, as they were captured: each is read, each
//! HMAC is checked, and each is made again from its fields, octet by octet.

use std::collections::VecDeque;
use std::path::Path;

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, KeyInit};
use hmac::Mac;
use sha1::Sha1;
use twamp_blast::wire::protected::{
    self, Mode, Protection, ReflectorPacket, SenderPacket, TestKeys,
};
use twamp_blast::wire::{self, Modes, Reply, ReplyTail, TestFormat, parse_request};
use zerocopy::IntoBytes;

/// Of user `alice` in all captures.
const PASSPHRASE: &[u8] = b"correct horse battery staple";

struct Segment {
    from: u16,
    to: u16,
    tcp: bool,
    payload: Vec<u8>,
}

fn be16(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn be32(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(octets[at..at + 4].try_into().unwrap())
}

/// Payloads of TCP and UDP over IPv4 in a capture of Ethernet frames, in their order.
fn segments(name: &str) -> Vec<Segment> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let file = std::fs::read(path.join(name).with_extension("pcap")).unwrap();
    let le32 = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(le32(0), 0xa1b2_3c4d, "nanosecond timestamps");
    assert_eq!(le32(20), 1, "Ethernet");
    let mut found = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let len = usize::try_from(le32(at + 8)).unwrap();
        let frame = &file[at + 16..at + 16 + len];
        at += 16 + len;
        assert_eq!(be16(frame, 12), 0x0800, "IPv4");
        let ip = &frame[14..];
        let total = usize::from(be16(ip, 2));
        let transport = &ip[usize::from(ip[0] & 15) * 4..total];
        let (tcp, header) = match ip[9] {
            6 => (true, usize::from(transport[12] >> 4) * 4),
            17 => (false, 8),
            other => panic!("protocol {other}"),
        };
        found.push(Segment {
            from: be16(transport, 0),
            to: be16(transport, 2),
            tcp,
            payload: transport[header..].to_vec(),
        });
    }
    found
}

/// One direction of a control connection.
struct Stream {
    octets: VecDeque<u8>,
    cipher: Option<(Aes128, [u8; 16])>,
}

impl Stream {
    /// On the loopback interface nothing is lost or reordered.
    fn new(segments: &[Segment], chosen: impl Fn(&Segment) -> bool) -> Self {
        let chosen = segments.iter().filter(|s| s.tcp && chosen(s));
        Self {
            octets: chosen.flat_map(|s| s.payload.clone()).collect(),
            cipher: None,
        }
    }

    fn encrypted(&mut self, key: &[u8; 16], iv: &[u8]) {
        self.cipher = Some((Aes128::new(key.into()), iv.try_into().unwrap()));
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut taken: Vec<u8> = self.octets.drain(..len).collect();
        if let Some((cipher, before)) = &mut self.cipher {
            decrypt(cipher, before, &mut taken);
        }
        taken
    }
}

/// CBC (RFC 4656 §3.2); `before` is the last block that was encrypted.
fn decrypt(cipher: &Aes128, before: &mut [u8; 16], octets: &mut [u8]) {
    for block in octets.as_chunks_mut::<16>().0 {
        let encrypted = *block;
        cipher.decrypt_block((&mut *block).into());
        for (octet, before) in block.iter_mut().zip(*before) {
            *octet ^= before;
        }
        *before = encrypted;
    }
}

/// What the control connection of a capture settled for its only session.
struct Session {
    mode: u32,
    receiver_port: u16,
    padding: usize,
    keys: Option<TestKeys>,
}

fn session(segments: &[Segment]) -> Session {
    let mut client = Stream::new(segments, |s| s.to == 8862);
    let mut server = Stream::new(segments, |s| s.from == 8862);
    let greeting = server.take(64);
    let response = client.take(164);
    let mode = be32(&response, 0);
    let start = server.take(32);
    assert_eq!(start[15], 0, "Accept");
    let mut control_keys = None;
    if mode != 1 {
        let mut shared = [0; 16];
        let count = be32(&greeting, 48);
        pbkdf2::pbkdf2_hmac::<Sha1>(PASSPHRASE, &greeting[32..48], count, &mut shared);
        let mut token = response[84..148].to_vec();
        decrypt(&Aes128::new(&shared.into()), &mut [0; 16], &mut token);
        assert_eq!(token[..16], greeting[16..32], "Challenge");
        let aes: [u8; 16] = token[16..32].try_into().unwrap();
        let hmac: [u8; 32] = token[32..].try_into().unwrap();
        client.encrypted(&aes, &response[148..164]);
        server.encrypted(&aes, &start[16..32]);
        control_keys = Some((aes, hmac));
    }
    let rest_of_start = server.take(16);
    let request = client.take(112);
    let accept = server.take(48);
    assert_eq!((request[0], accept[0]), (5, 0), "Request-TW-Session");
    if let Some((_, key)) = &control_keys {
        for covered in [
            &[&request[..]].concat(),
            &[&rest_of_start[..], &accept[..]].concat(),
        ] {
            let (text, hmac) = covered.split_at(covered.len() - 16);
            let mut expected = hmac::Hmac::<Sha1>::new_from_slice(key).unwrap();
            expected.update(text);
            expected.verify_truncated_left(hmac).unwrap();
        }
    }
    let sid: [u8; 16] = accept[4..20].try_into().unwrap();
    Session {
        mode,
        receiver_port: be16(&accept, 2),
        padding: usize::try_from(be32(&request, 64)).unwrap(),
        keys: control_keys.map(|(aes, hmac)| TestKeys::derive(&sid, &aes, &hmac)),
    }
}

/// Checks a session in authenticated or encrypted mode; returns its requests and replies.
fn protected_session(segments: &[Segment], session: &Session, mode: Mode) -> (usize, usize) {
    let protection = Protection::new(mode, session.keys.as_ref().unwrap());
    let format = TestFormat::new(Modes::from_bits(session.mode), 0, [0; 2]).unwrap();
    assert_eq!(format.protection(), Some(mode));
    let mut requests = Vec::new();
    let mut replies = 0;
    for datagram in segments.iter().filter(|s| !s.tcp) {
        let wire = &datagram.payload;
        let mut clear = wire.clone();
        let len = clear.len();
        if datagram.to == session.receiver_port {
            assert_eq!(len, protected::SENDER_LEN + session.padding);
            let mut read = None;
            protection.open::<SenderPacket>(&mut clear, len, |_, packet| {
                read = Some(packet.unwrap().plain());
            });
            let plain = read.unwrap();
            assert_eq!(number(plain.seq.get()), requests.len());
            let mut again = wire.clone();
            again[..protected::SENDER_LEN].copy_from_slice(SenderPacket::from(plain).as_bytes());
            protection.prepare::<SenderPacket>(&mut again, len);
            protection.stamp::<SenderPacket>(&mut again, len, plain.timestamp);
            assert_eq!(&again, wire);
            requests.push((plain, wire));
        } else {
            assert_eq!(datagram.from, session.receiver_port);
            let mut read = None;
            protection.open::<ReflectorPacket>(&mut clear, len, |_, packet| {
                read = Some(packet.unwrap().plain());
            });
            let plain = read.unwrap();
            assert_eq!(number(plain.head.seq.get()), replies);
            let (sender, request) = requests[number(plain.head.sender_seq.get())];
            assert_eq!(len, format.reply_len(request.len()));
            assert_eq!(plain.head.sender_timestamp, sender.timestamp);
            assert_eq!(plain.head.sender_error_estimate, sender.error_estimate);
            assert_eq!(plain.tail.sender_ttl, 255);

            let mut slot = request.clone();
            slot.resize(2048, 0xa5);
            let mut unstamped = ReflectorPacket::from(plain);
            unstamped.head.timestamp = wire::Timestamp::from_raw(0);
            let ours = format
                .write_reply(&mut slot, 0, request.len(), 0, unstamped.as_bytes())
                .unwrap();
            let slot = &mut slot[..ours];
            protection.prepare::<ReflectorPacket>(slot, ours);
            protection.stamp::<ReflectorPacket>(slot, ours, plain.head.timestamp);
            let (header, padding) = slot.split_at(protected::REFLECTOR_LEN);
            assert_eq!(header, &wire[..protected::REFLECTOR_LEN]);
            assert_eq!(padding.len(), len - protected::REFLECTOR_LEN);
            replies += 1;
        }
    }
    (requests.len(), replies)
}

fn number(seq: u32) -> usize {
    usize::try_from(seq).unwrap()
}

/// Checks test packets without protection; returns how many requests and replies there are, and the
/// sizes of the replies.
fn open_session(segments: &[Segment], receiver_port: u16) -> (usize, usize, Vec<usize>) {
    let mut requests = Vec::new();
    let mut sizes = Vec::new();
    let mut replies = 0;
    for datagram in segments.iter().filter(|s| !s.tcp) {
        let octets = &datagram.payload;
        if datagram.to == receiver_port {
            let packet = *parse_request(octets).unwrap();
            assert_eq!(packet.as_bytes(), &octets[..wire::SENDER_LEN]);
            assert_eq!(number(packet.seq.get()), requests.len());
            requests.push(packet);
        } else {
            assert_eq!(datagram.from, receiver_port);
            let reply = Reply::parse(octets).unwrap();
            let request = requests[number(reply.head.sender_seq.get())];
            assert_eq!(reply.head.sender_timestamp, request.timestamp);
            assert_eq!(reply.head.sender_error_estimate, request.error_estimate);
            let mut again = reply.head.as_bytes().to_vec();
            if let Some(sender_ttl) = reply.sender_ttl {
                let mbz = [0; 2];
                again.extend(ReplyTail { mbz, sender_ttl }.as_bytes());
            }
            assert!(octets.starts_with(&again));
            sizes.push(octets.len());
            replies += 1;
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    (requests.len(), replies, sizes)
}

#[test]
fn protected_sessions_of_another_program() {
    for (name, mode, number) in [
        ("twping-twampd-authenticated", Mode::Authenticated, 8),
        (
            "twping-twampd-authenticated-padding1000",
            Mode::Authenticated,
            4,
        ),
        ("twping-twampd-encrypted", Mode::Encrypted, 8),
        ("twping-twampd-encrypted-padding0", Mode::Encrypted, 4),
    ] {
        let segments = segments(name);
        let session = session(&segments);
        assert_eq!(
            session.mode,
            if mode == Mode::Authenticated { 2 } else { 4 }
        );
        let found = protected_session(&segments, &session, mode);
        assert_eq!(found, (number, number), "{name}");
    }
}

#[test]
fn open_sessions_of_another_program() {
    for (name, mode, packets, size) in [
        ("twping-twampd-open", 1, 8, 41),
        ("twping-twampd-open-dscp-af41", 1, 4, 114),
        ("twping-twampd-mixed", 8, 8, 41),
    ] {
        let segments = segments(name);
        let session = session(&segments);
        assert_eq!(session.mode, mode);
        let port = session.receiver_port;
        let found = open_session(&segments, port);
        assert_eq!(found, (packets, packets, vec![size]), "{name}");
        let request_len = wire::SENDER_LEN + session.padding;
        assert_eq!(TestFormat::LIGHT.reply_len(request_len), size);
    }
}

#[test]
fn sessions_of_a_program_that_ends_its_replies_early() {
    for (name, port, packets, size) in [
        ("twampy-light", 20001, 10, 38),
        ("twampy-light-imix", 20001, 36, 38),
        ("twampy-controller-twampd", 18800, 10, 41),
    ] {
        let found = open_session(&segments(name), port);
        assert_eq!(found, (packets, packets, vec![size]), "{name}");
    }
}

/// The server could not read the client's Token, and ended the connection.
#[test]
fn a_refused_session_has_no_test_packets() {
    let segments = segments("twping-twampd-wrong-passphrase");
    assert!(segments.iter().all(|segment| segment.tcp));
}
