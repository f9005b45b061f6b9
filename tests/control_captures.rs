//! TWAMP-Control as other programs speak it: conversations of twping (perfSONAR 5.2.3) and twampy
//! (1.3.1) with twampd, read, verified, and written again octet by octet.

mod common;

use std::net::SocketAddrV4;

use common::host::{Fate, MemoryHost};
use common::pcap::{self, Protocol};
use twamp_blast::control::client::{self, Client, Event, Secrets, Wish};
use twamp_blast::control::codec::Codec;
use twamp_blast::control::crypto::{Passphrase, SessionKeys, TokenCheck};
use twamp_blast::control::server::{self, Ending, Nonces, Patience, Server, Terms};
use twamp_blast::wire::control::{
    Answer, Awaited, Command, Count, KeyId, ServerGreeting, ServerStart, SetUpResponse,
    StopSessions,
};
use twamp_blast::wire::{Accept, Modes, SecurityMode, SessionRequest};

const PASSPHRASE: &str = "correct horse battery staple";
const MOST_SIDS: usize = 1;

/// Both directions of the only TCP connection of a capture.
struct Conversation {
    from_client: Vec<u8>,
    from_server: Vec<u8>,
}

impl Conversation {
    fn read(file: &[u8]) -> Self {
        let mut packets = pcap::packets(file);
        packets.retain(|packet| packet.protocol == Protocol::Tcp);
        // The Server speaks first.
        let server = packets[0].from;
        let octets = |is_of: &dyn Fn(SocketAddrV4) -> bool| {
            let chosen = packets.iter().filter(|packet| is_of(packet.from));
            chosen.flat_map(|packet| packet.payload.clone()).collect()
        };
        Self {
            from_client: octets(&|from| from != server),
            from_server: octets(&|from| from == server),
        }
    }

    /// Server-Greeting, Server-Start, Accept-Session, Start-Ack, as far as there are.
    fn server_messages(&self) -> Vec<&[u8]> {
        let mut rest = self.from_server.as_slice();
        let mut messages = Vec::new();
        for len in [64, 48, 48, 32] {
            let (message, left) = rest.split_at(len.min(rest.len()));
            messages.push(message);
            rest = left;
        }
        assert!(rest.is_empty());
        messages
    }
}

/// All that was said.
struct Said {
    greeting: ServerGreeting,
    response: SetUpResponse,
    keys: Option<SessionKeys>,
    start: ServerStart,
    commands: Vec<Command>,
    answers: Vec<Answer>,
}

impl Said {
    /// Takes octets one at a time, so that every message is cut at every place.
    fn read(conversation: &Conversation) -> Self {
        let mut server = Codec::new(MOST_SIDS);
        let mut client = Codec::new(MOST_SIDS);
        let mut from_client = conversation.from_client.as_slice();
        let mut from_server = conversation.from_server.as_slice();

        let greeting = next(&mut from_server, |input| client.greeting(input)).unwrap();
        let response = next(&mut from_client, |input| server.set_up_response(input)).unwrap();
        let security = greeting.modes.admit(response.mode).unwrap();
        let keys = security
            .protects_control()
            .then(|| {
                let check = TokenCheck {
                    passphrase: Some(Passphrase::new(PASSPHRASE.into())),
                    salt: greeting.salt,
                    count: greeting.count(Count::DEFAULT_MOST.value()).unwrap(),
                    challenge: greeting.challenge,
                    token: response.token,
                };
                check.run()
            })
            .flatten();
        let start = next(&mut from_server, |input| {
            client.server_start(input, keys.as_ref())
        });
        let start = start.unwrap();
        server.start(
            keys.as_ref(),
            &response.client_iv,
            start.server_iv,
            start.start_time,
        );

        let mut commands = Vec::new();
        let mut answers = Vec::new();
        while let Some(command) = next(&mut from_client, |input| server.command(input).unwrap()) {
            let awaited = match command {
                Command::RequestTwSession(_) => Some(Awaited::AcceptSession),
                Command::StartSessions => Some(Awaited::StartAck),
                _ => None,
            };
            commands.push(command);
            answers.extend(awaited.map(|awaited| {
                next(&mut from_server, |input| {
                    client.answer(awaited, input).unwrap()
                })
                .unwrap()
            }));
        }
        assert!(from_server.is_empty(), "every octet was understood");
        Self {
            greeting,
            response,
            keys,
            start,
            commands,
            answers,
        }
    }

    /// What both sides would have sent, had they been this program.
    fn write(&self) -> Conversation {
        let keys = self.keys.as_ref();
        let mut server = Codec::new(MOST_SIDS);
        let mut client = Codec::new(MOST_SIDS);
        server.greet(&self.greeting);
        client.set_up(&self.response, keys);
        if self.start.accept().is_ok() {
            let (iv, time) = (self.start.server_iv, self.start.start_time);
            server.start(keys, &self.response.client_iv, iv, time);
        } else {
            server.refuse(self.start.accept());
        }
        for command in &self.commands {
            client.send_command(command);
        }
        for answer in &self.answers {
            server.send_answer(answer);
        }
        Conversation {
            from_client: client.output().to_vec(),
            from_server: server.output().to_vec(),
        }
    }

    /// What a Control-Client of this program says to the recorded Server's octets, given the same
    /// task and the same random numbers.
    fn replay_to_client(&self, conversation: &Conversation) -> (Vec<u8>, Client) {
        let key_id = KeyId::new("alice").unwrap();
        let wish = Wish {
            mode: Some(self.response.mode.security().unwrap()),
            features: Modes::NONE,
            key: Some((key_id, Passphrase::new(PASSPHRASE.into()))),
            most_iterations: Count::DEFAULT_MOST.value(),
            most_sessions: MOST_SIDS,
            answer_ns: 1,
        };
        let secrets = Secrets {
            keys: self.keys.clone().unwrap_or_else(SessionKeys::random),
            client_iv: self.response.client_iv,
        };
        let stops = self.commands.len() == 3;
        let mut client = Client::new(0, wish, secrets);
        // As much as the Server could know to send: each of its messages answers one of ours.
        for message in conversation.server_messages() {
            client.receive(0, message);
            while let Some(event) = client.next_event() {
                match event {
                    Event::Derive(job) => client.derived(0, &job.run()),
                    Event::Ready { modes, start_time } => {
                        assert_eq!(modes, self.response.mode);
                        assert_eq!(start_time, self.start.start_time);
                        client.request(0, &self.request()).unwrap();
                    }
                    Event::Session(session) => {
                        assert_eq!(Answer::AcceptSession(session), self.answers[0]);
                        client.start(0).unwrap();
                    }
                    Event::Started(accept) => {
                        assert!(accept.is_ok());
                        if stops {
                            client.stop(Accept::Ok).unwrap();
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        (client.output().to_vec(), client)
    }

    /// What a Server of this program says to the recorded client's octets, given the same random
    /// numbers and the same host.
    fn replay_to_server(&self, conversation: &Conversation) -> (Vec<u8>, Server, MemoryHost) {
        let terms = Terms {
            modes: self.greeting.modes,
            count: self.greeting.count(Count::DEFAULT_MOST.value()).unwrap(),
            start_time: self.start.start_time,
            most_sessions: MOST_SIDS,
            patience: Patience::default(),
        };
        let nonces = Nonces {
            challenge: self.greeting.challenge,
            salt: self.greeting.salt,
            server_iv: self.start.server_iv,
        };
        let session = self.answers.first().map(|answer| match answer {
            Answer::AcceptSession(session) => session,
            other => panic!("{other:?}"),
        });
        let mut host = MemoryHost {
            keys: vec![("alice", PASSPHRASE)],
            port: session.map(|session| session.port.get()),
            sid: session.map(|session| session.sid),
            ..MemoryHost::default()
        };
        let mut server = Server::new(0, terms, nonces);
        let mut input = conversation.from_client.as_slice();
        while !input.is_empty() {
            let taken = server.receive(0, &input[..1], &mut host);
            input = &input[taken..];
            if let Some(check) = host.check.take() {
                server.token_checked(0, check.run());
            }
        }
        (server.output().to_vec(), server, host)
    }

    fn request(&self) -> SessionRequest {
        let Command::RequestTwSession(request) = self.commands[0] else {
            panic!("{:?}", self.commands);
        };
        request.read(self.response.mode).unwrap()
    }
}

/// The next message, one octet at a time; `None` at the end.
fn next<Message>(
    octets: &mut &[u8],
    mut take: impl FnMut(&mut &[u8]) -> Option<Message>,
) -> Option<Message> {
    while let Some((mut first, rest)) = octets.split_at_checked(1) {
        *octets = rest;
        let message = take(&mut first);
        assert!(first.is_empty());
        if message.is_some() {
            return message;
        }
    }
    None
}

/// A capture, its mode, and what the client asked for: padding, DSCP.
const TWPING: &[(&[u8], SecurityMode, u32, u8)] = &[
    (
        include_bytes!("captures/twping-twampd-open.pcap"),
        SecurityMode::Unauthenticated,
        27,
        0,
    ),
    (
        include_bytes!("captures/twping-twampd-open-dscp-af41.pcap"),
        SecurityMode::Unauthenticated,
        100,
        34,
    ),
    (
        include_bytes!("captures/twping-twampd-authenticated.pcap"),
        SecurityMode::Authenticated,
        27,
        0,
    ),
    (
        include_bytes!("captures/twping-twampd-authenticated-padding1000.pcap"),
        SecurityMode::Authenticated,
        1000,
        0,
    ),
    (
        include_bytes!("captures/twping-twampd-encrypted.pcap"),
        SecurityMode::Encrypted,
        27,
        0,
    ),
    (
        include_bytes!("captures/twping-twampd-encrypted-padding0.pcap"),
        SecurityMode::Encrypted,
        0,
        0,
    ),
    (
        include_bytes!("captures/twping-twampd-mixed.pcap"),
        SecurityMode::Mixed,
        27,
        0,
    ),
];

#[test]
fn twping_and_twampd_are_understood_and_imitated_to_the_octet() {
    for &(file, security, padding, dscp) in TWPING {
        let conversation = Conversation::read(file);
        let said = Said::read(&conversation);

        assert_eq!(said.greeting.modes, Modes::SECURITY);
        assert_eq!(said.greeting.count.get(), 2048);
        assert_eq!(said.response.mode, security.bit());
        assert_eq!(said.keys.is_some(), security.protects_control());
        if security.protects_control() {
            assert_eq!(said.response.key_id.octets(), b"alice");
        }
        let request = said.request();
        assert_eq!((request.padding_len, request.dscp), (padding, dscp));
        // twping asks for the port that it sends from; twampd answers with one of its own.
        assert_eq!(request.ends.sender(), request.ends.receiver());
        let [Answer::AcceptSession(session), Answer::StartAck(Accept::Ok)] = *said.answers else {
            panic!("{:?}", said.answers);
        };
        assert!(session.accept().is_ok());
        assert_ne!(session.port.get(), request.ends.receiver().port());
        let stop = StopSessions {
            accept: Accept::Ok,
            sessions: 1,
        };
        assert_eq!(
            said.commands[1..],
            [Command::StartSessions, Command::StopSessions(stop)]
        );

        let written = said.write();
        assert_eq!(written.from_client, conversation.from_client);
        assert_eq!(written.from_server, conversation.from_server);

        let (output, client) = said.replay_to_client(&conversation);
        assert_eq!(output, conversation.from_client);
        assert!(client.is_idle());
        let (output, server, host) = said.replay_to_server(&conversation);
        assert_eq!(output, conversation.from_server);
        assert_eq!(server.ended(), None);
        assert_eq!(host.requests, [request]);
        assert_eq!(host.fates(), [Fate::Over(Ending::Stopped(Accept::Ok))]);
        assert!(host.remarks.is_empty());
    }
}

#[test]
fn a_refusal_of_twampd_is_understood() {
    let file = include_bytes!("captures/twping-twampd-wrong-passphrase.pcap");
    let conversation = Conversation::read(file);
    let said = Said::read(&conversation);
    assert!(said.keys.is_none());
    assert_eq!(said.start, ServerStart::refused(Accept::Failure));
    assert!(said.commands.is_empty() && said.answers.is_empty());
    assert_eq!(said.write().from_server, conversation.from_server);

    let (_, client) = said.replay_to_client(&conversation);
    assert_eq!(client.ended(), Some(&client::End::Refused(Accept::Failure)));
    let (output, server, _) = said.replay_to_server(&conversation);
    assert_eq!(output, conversation.from_server);
    assert_eq!(
        server.ended(),
        Some(&server::End::Token(said.response.key_id))
    );
}

#[test]
fn twampy_is_understood_and_leaves_out_what_it_can() {
    let file = include_bytes!("captures/twampy-controller-twampd.pcap");
    let conversation = Conversation::read(file);
    let said = Said::read(&conversation);
    assert_eq!(said.response, SetUpResponse::open(Modes::UNAUTHENTICATED));
    let request = said.request();
    assert_eq!(request.ends.sender(), "0.0.0.0:20000".parse().unwrap());
    assert_eq!(request.ends.receiver(), "0.0.0.0:18800".parse().unwrap());
    assert_eq!(request.start_time.raw(), 0);
    assert_eq!(request.timeout.ns(), 3_000_000_000);
    // The recording ends before a Stop-Sessions.
    assert_eq!(said.commands[1..], [Command::StartSessions]);
    let written = said.write();
    assert_eq!(written.from_client, conversation.from_client);
    assert_eq!(written.from_server, conversation.from_server);

    let (output, client) = said.replay_to_client(&conversation);
    assert_eq!(output, conversation.from_client);
    assert!(client.is_idle());
    let (output, server, host) = said.replay_to_server(&conversation);
    assert_eq!(output, conversation.from_server);
    assert_eq!(server.ended(), None);
    assert_eq!(host.fates(), [Fate::Running]);
}
