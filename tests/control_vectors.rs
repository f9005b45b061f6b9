//! TWAMP-Control against the vectors: messages made of values are the octets of the files, and
//! these octets, however they are cut, are those values again.

mod common;

use std::net::SocketAddr;

use common::octets;
use serde_json::Value;
use twamp_blast::control::codec::{Broken, Codec};
use twamp_blast::control::crypto::{
    KeyDerivation, Passphrase, SessionKeys, SharedKey, TokenCheck, WrongHmac,
};
use twamp_blast::wire::control::{
    AcceptSession, Answer, Awaited, BadCount, Command, Count, KeyId, ServerGreeting, ServerStart,
    SetUpResponse, StopSessions,
};
use twamp_blast::wire::{
    Accept, Ends, Interval, ModeRefused, Modes, NoMode, ReflectOctets, RequestTwSession,
    SecurityMode, SessionRequest, Sid, Timestamp, Unacceptable,
};
use zerocopy::FromBytes;

const MOST_SIDS: usize = 3;

/// A file of vectors.
struct Vector(Value);

impl Vector {
    fn read(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    fn field<const N: usize>(&self, name: &str) -> [u8; N] {
        octets(&self.0[name]).try_into().unwrap()
    }

    fn number(&self, name: &str) -> u32 {
        self.0[name].as_u64().unwrap().try_into().unwrap()
    }

    fn mode(&self) -> Modes {
        Modes::from_bits(self.number("mode_selected"))
    }

    fn is_protected(&self) -> bool {
        self.mode().security().unwrap().protects_control()
    }

    fn greeting(&self) -> ServerGreeting {
        ServerGreeting::new(
            Modes::from_bits(self.number("modes_offered")),
            self.field("challenge"),
            self.field("salt"),
            self.count(),
        )
    }

    fn count(&self) -> Count {
        Count::new(self.number("count"), Count::DEFAULT_MOST.value()).unwrap()
    }

    fn passphrase(&self) -> Passphrase {
        Passphrase::new(self.0["passphrase_utf8"].as_str().unwrap().into())
    }

    fn shared_key(&self) -> SharedKey {
        let job = KeyDerivation {
            passphrase: self.passphrase(),
            salt: self.field("salt"),
            count: self.count(),
        };
        job.run()
    }

    fn keys(&self) -> Option<SessionKeys> {
        self.is_protected().then(|| {
            SessionKeys::new(
                self.field("aes_session_key"),
                self.field("hmac_session_key"),
            )
        })
    }

    fn response(&self) -> SetUpResponse {
        let Some(keys) = self.keys() else {
            return SetUpResponse::open(self.mode());
        };
        SetUpResponse {
            mode: self.mode(),
            key_id: KeyId::new(self.0["key_id_utf8"].as_str().unwrap()).unwrap(),
            token: self
                .shared_key()
                .seal_token(&self.field("challenge"), &keys),
            client_iv: self.field("client_iv"),
        }
    }

    fn messages(&self) -> &[Value] {
        self.0["messages"].as_array().unwrap()
    }

    fn sids(&self) -> Vec<Sid> {
        let sids = self.0["sids"].as_array().cloned();
        let sids = sids.unwrap_or_else(|| vec![self.0["sid"].clone()]);
        let sid = |hex| Sid(octets(hex).try_into().unwrap());
        sids.iter().map(sid).collect()
    }
}

/// What follows Server-Start, with the answers a client then waits for.
enum Step {
    Ask(Command),
    Answer(Answer),
}

fn ask(request: SessionRequest) -> Step {
    Step::Ask(Command::RequestTwSession(RequestTwSession::from(&request)))
}

fn grant(port: u16, sid: Sid) -> Step {
    Step::Answer(Answer::AcceptSession(AcceptSession::granted(port, sid)))
}

fn stop(sessions: u32) -> Step {
    Step::Ask(Command::StopSessions(StopSessions {
        accept: Accept::Ok,
        sessions,
    }))
}

fn request(sender: &str, receiver: &str, padding_len: u32, dscp: u8) -> SessionRequest {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    SessionRequest {
        ends: Ends::new(end(sender), end(receiver)).unwrap(),
        padding_len,
        start_time: Timestamp::from_raw(0),
        timeout: Interval::from_ns(2_000_000_000),
        dscp,
        reflect: None,
    }
}

/// One session.
fn plain_flow(vector: &Vector) -> Vec<Step> {
    let request = SessionRequest {
        start_time: Timestamp::from_raw(0xebf9_6001_1f9a_dd37),
        ..request("192.0.2.1:20000", "192.0.2.2:20001", 64, 0)
    };
    vec![
        ask(request),
        grant(20001, vector.sids()[0]),
        Step::Ask(Command::StartSessions),
        Step::Answer(Answer::StartAck(Accept::Ok)),
        stop(1),
    ]
}

/// Two sessions and a refusal over IPv6, and then a third on the same connection.
fn two_rounds(vector: &Vector) -> Vec<Step> {
    let sids = vector.sids();
    let session = |from: u16, to: u16, padding| {
        let (from, to) = (
            format!("[2001:db8::1]:{from}"),
            format!("[2001:db8::2]:{to}"),
        );
        request(&from, &to, padding, 46)
    };
    let refused = AcceptSession::refused(Accept::NotSupported);
    vec![
        ask(session(30000, 30001, 64)),
        grant(30001, sids[0]),
        ask(session(30002, 30001, 64)),
        grant(30009, sids[1]),
        ask(session(30004, 30005, 70_000)),
        Step::Answer(Answer::AcceptSession(refused)),
        Step::Ask(Command::StartSessions),
        Step::Answer(Answer::StartAck(Accept::Ok)),
        stop(2),
        ask(SessionRequest {
            timeout: Interval::default(),
            ..request("[::]:32768", "[::]:30001", 0, 0)
        }),
        grant(30001, sids[2]),
        Step::Ask(Command::StartSessions),
        Step::Answer(Answer::StartAck(Accept::Ok)),
        stop(1),
    ]
}

/// Three sessions that start and stop by their SIDs, with octets to reflect.
fn individual(vector: &Vector) -> Vec<Step> {
    let sids = vector.sids();
    let mut steps = Vec::new();
    for (at, &sid) in (0_u8..).zip(&sids) {
        let (from, to) = (21_000 + u16::from(at), 22_000 + u16::from(at));
        let octets = [0xa5, at];
        steps.push(ask(SessionRequest {
            reflect: Some(ReflectOctets {
                octets,
                padding_len: 8,
            }),
            ..request(
                &format!("192.0.2.1:{from}"),
                &format!("192.0.2.2:{to}"),
                96,
                0,
            )
        }));
        steps.push(Step::Answer(Answer::AcceptSession(AcceptSession {
            reflected_octets: octets,
            server_octets: [0x5a, at + 1],
            ..AcceptSession::granted(to, sid)
        })));
    }
    let (first_two, last) = (sids[..2].to_vec(), sids[2..].to_vec());
    steps.extend([
        Step::Ask(Command::StartNSessions(sids.clone())),
        Step::Answer(Answer::StartNAck(Accept::Ok, first_two)),
        Step::Answer(Answer::StartNAck(Accept::TemporaryLimit, last)),
    ]);
    for &sid in &sids[..2] {
        steps.push(Step::Ask(Command::StopNSessions(vec![sid])));
        steps.push(Step::Answer(Answer::StopNAck(Accept::Ok, vec![sid])));
    }
    steps
}

/// Gives `octets` to `take` in pieces of `size` until it has a message, which needs all of them.
fn in_pieces<Message>(
    octets: &[u8],
    size: usize,
    mut take: impl FnMut(&mut &[u8]) -> Option<Message>,
) -> Message {
    let mut pieces = octets.chunks(size).peekable();
    while let Some(mut piece) = pieces.next() {
        let message = take(&mut piece);
        assert!(piece.is_empty(), "all of it belongs to this message");
        if let Some(message) = message {
            assert!(pieces.next().is_none(), "octets after the message");
            return message;
        }
    }
    panic!("{} octets are no message", octets.len());
}

/// Checks that `output` is what the file has, and takes it off.
fn assert_wire(output: &[u8], message: &Value) -> usize {
    assert_eq!(output, octets(&message["wire"]), "{message}");
    output.len()
}

fn replay(vector: &Vector, steps: &[Step], size: usize) {
    let keys = vector.keys();
    let keys = keys.as_ref();
    let mut server = Codec::new(MOST_SIDS);
    let mut client = Codec::new(MOST_SIDS);
    let (head, rest) = vector.messages().split_at(3);

    server.greet(&vector.greeting());
    server.sent(assert_wire(server.output(), &head[0]));
    let greeting = in_pieces(&octets(&head[0]["wire"]), size, |input| {
        client.greeting(input)
    });
    assert_eq!(greeting, vector.greeting());

    client.set_up(&vector.response(), keys);
    client.sent(assert_wire(client.output(), &head[1]));
    let response = in_pieces(&octets(&head[1]["wire"]), size, |i| {
        server.set_up_response(i)
    });
    assert_eq!(response, vector.response());

    let start = ServerStart::read_from_bytes(&octets(&head[2]["plaintext"])).unwrap();
    server.start(keys, &response.client_iv, start.server_iv, start.start_time);
    server.sent(assert_wire(server.output(), &head[2]));
    let found = in_pieces(&octets(&head[2]["wire"]), size, |input| {
        client.server_start(input, keys)
    });
    assert_eq!(found, start);

    assert_eq!(steps.len(), rest.len());
    for (step, message) in steps.iter().zip(rest) {
        let wire = octets(&message["wire"]);
        match step {
            Step::Ask(command) => {
                assert_eq!(message["direction"], "C>S");
                assert_eq!(message["message"], command.name());
                client.send_command(command);
                client.sent(assert_wire(client.output(), message));
                let found = in_pieces(&wire, size, |input| server.command(input).unwrap());
                assert_eq!(&found, command);
            }
            Step::Answer(answer) => {
                let awaited = match answer {
                    Answer::AcceptSession(_) => Awaited::AcceptSession,
                    Answer::StartAck(_) => Awaited::StartAck,
                    Answer::StartNAck(..) => Awaited::StartNAck,
                    Answer::StopNAck(..) => Awaited::StopNAck,
                };
                assert_eq!(message["direction"], "S>C");
                assert_eq!(message["message"], awaited.to_string());
                server.send_answer(answer);
                server.sent(assert_wire(server.output(), message));
                let found = in_pieces(&wire, size, |input| client.answer(awaited, input).unwrap());
                assert_eq!(&found, answer);
            }
        }
    }
}

#[test]
fn conversations_match_the_vectors_both_ways_in_pieces_of_any_size() {
    type Script = fn(&Vector) -> Vec<Step>;
    let files: [(&str, Script); 6] = [
        (
            include_str!("vectors/control_unauthenticated.json"),
            plain_flow,
        ),
        (
            include_str!("vectors/control_authenticated.json"),
            plain_flow,
        ),
        (include_str!("vectors/control_encrypted.json"), plain_flow),
        (include_str!("vectors/control_mixed.json"), plain_flow),
        (include_str!("vectors/control_two_rounds.json"), two_rounds),
        (include_str!("vectors/control_individual.json"), individual),
    ];
    for (text, script) in files {
        let vector = Vector::read(text);
        for size in [1, 7, 16, usize::MAX] {
            replay(&vector, &script(&vector), size);
        }
        let offered = vector.greeting().modes;
        let features = vector.mode() & Modes::FEATURES;
        let security = vector.mode().security().unwrap();
        assert_eq!(offered.admit(vector.mode()), Ok(security));
        assert_eq!(
            offered.choose(Some(security), true, features),
            Ok(vector.mode())
        );
    }
}

#[test]
fn a_refused_token_matches_the_vector() {
    let vector = Vector::read(include_str!("vectors/control_denied.json"));
    let [greeting, response, start] = vector.messages() else {
        panic!("a refusal ends the conversation");
    };
    let mut server = Codec::new(MOST_SIDS);
    let mut client = Codec::new(MOST_SIDS);
    server.greet(&vector.greeting());
    server.sent(assert_wire(server.output(), greeting));
    client.set_up(&vector.response(), vector.keys().as_ref());
    assert_wire(client.output(), response);

    let check = TokenCheck {
        passphrase: Some(Passphrase::new(b"correct horse battery staple".into())),
        salt: vector.field("salt"),
        count: vector.count(),
        challenge: vector.field("challenge"),
        token: vector.response().token,
    };
    assert!(check.run().is_none());
    server.refuse(Accept::Failure);
    let wire = octets(&start["wire"]);
    assert_wire(server.output(), start);
    let found = in_pieces(&wire, 5, |input| {
        client.server_start(input, vector.keys().as_ref())
    });
    assert_eq!(found, ServerStart::refused(Accept::Failure));
}

/// The rows of negative.json that are about control; those about test packets are tested in `wire`.
#[test]
fn corrupt_messages_of_the_vectors_are_refused() {
    let rows: Value = serde_json::from_str(include_str!("vectors/negative.json")).unwrap();
    let mut seen = 0;
    for row in rows.as_array().unwrap() {
        let what = row["what"].as_str().unwrap();
        let expect = row["expect"].as_str().unwrap();
        let wire = octets(&row["wire"]);
        let (kind, case) = what.split_once(' ').unwrap();
        match kind {
            "Server-Greeting" => {
                let greeting = in_pieces(&wire, 64, |i| Codec::new(1).greeting(i));
                let count = greeting.count(Count::DEFAULT_MOST.value());
                match case {
                    "with Modes 0" => {
                        let chosen = greeting.modes.choose(None, true, Modes::NONE);
                        assert_eq!(chosen, Err(NoMode::ServerRefuses));
                    }
                    "with Count 2^31" => {
                        let (count_, most) = (1 << 31, 32_768);
                        assert_eq!(
                            count,
                            Err(BadCount::TooHigh {
                                count: count_,
                                most
                            })
                        );
                    }
                    "with Count 512" => assert_eq!(count, Err(BadCount::TooLow(512))),
                    "with Count 1500" => assert_eq!(count, Err(BadCount::NotAPowerOfTwo(1500))),
                    other => panic!("{other}"),
                }
            }
            "Set-Up-Response" => {
                let response = in_pieces(&wire, 164, |i| Codec::new(1).set_up_response(i));
                let refused = Modes::from_bits(15).admit(response.mode);
                assert_eq!(
                    refused,
                    Err(ModeRefused::SeveralSecurityModes(response.mode))
                );
            }
            "Request-TW-Session" if expect.starts_with("HMAC mismatch") => {
                let vector = Vector::read(include_str!("vectors/control_encrypted.json"));
                let keys = vector.keys();
                let mut server = Codec::new(MOST_SIDS);
                let client_iv = vector.field("client_iv");
                server.start(keys.as_ref(), &client_iv, [0; 16], Timestamp::from_raw(0));
                let broken = Err(Broken::WrongHmac(WrongHmac));
                assert_eq!(server.command(&mut wire.as_slice()), broken);
                // And nothing good can follow.
                let good = octets(&vector.messages()[3]["wire"]);
                assert_eq!(server.command(&mut good.as_slice()), broken);
            }
            "Request-TW-Session," => {
                assert!(expect.starts_with("Accept-Session with Accept 3"));
                let command = Codec::new(1).command(&mut wire.as_slice());
                let Ok(Some(Command::RequestTwSession(request))) = command else {
                    panic!("{command:?}");
                };
                let refused = request
                    .read(SecurityMode::Unauthenticated.bit())
                    .unwrap_err();
                let why = match case.split(',').next() {
                    Some("Conf-Sender 1") => Unacceptable::ConfSender(1),
                    Some("IPVN 5") => Unacceptable::IpVersion(5),
                    other => panic!("{other:?}"),
                };
                assert_eq!((refused, refused.accept()), (why, Accept::NotSupported));
            }
            "Stop-Sessions" => {
                // Whether 5 can be right is for the Server to say, which knows its sessions.
                let accept = Accept::Ok;
                let stop = Command::StopSessions(StopSessions {
                    accept,
                    sessions: 5,
                });
                assert_eq!(Codec::new(1).command(&mut wire.as_slice()), Ok(Some(stop)));
            }
            _ => {
                assert!(expect.contains("discard"), "{row}");
                continue;
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}
