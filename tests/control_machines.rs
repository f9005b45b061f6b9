//! A Control-Client and a Server of this program with each other, in memory: all modes, many
//! sessions, timeouts, and peers that do what they must not.

mod common;

use std::net::SocketAddr;

use common::host::{Fate, MemoryHost};
use proptest::prelude::*;
use twamp_blast::control::client::{self, Client, Event, Expected, NotNow, Secrets, Wish};
use twamp_blast::control::codec::{Broken, Codec};
use twamp_blast::control::crypto::{Passphrase, WrongHmac};
use twamp_blast::control::server::{self, Ending, Nonces, Patience, Remark, Server, Terms, Wait};
use twamp_blast::wire::control::{
    AcceptSession, Answer, Awaited, BadCount, Command, Count, KeyId, Malformed, ServerGreeting,
    SetUpResponse, StopSessions,
};
use twamp_blast::wire::{
    Accept, Ends, Interval, ModeRefused, Modes, NoMode, ReflectOctets, RequestTwSession,
    SecurityMode, SessionRequest, Sid, Timestamp, Unacceptable,
};
use zerocopy::IntoBytes;

const SECOND: i64 = 1_000_000_000;
const START_TIME: Timestamp = Timestamp::from_raw(0xebf8_0e80_1f9a_dd37);

fn terms(modes: Modes) -> Terms {
    Terms {
        modes,
        count: Count::LEAST,
        start_time: START_TIME,
        most_sessions: 10,
        patience: Patience::default(),
    }
}

fn wish(mode: Option<SecurityMode>) -> Wish {
    Wish {
        mode,
        features: Modes::NONE,
        key: Some((
            KeyId::new("alice").unwrap(),
            Passphrase::new(b"open sesame".into()),
        )),
        most_iterations: Count::DEFAULT_MOST.value(),
        most_sessions: 10,
        answer_ns: 5 * SECOND,
    }
}

fn request(port: u16) -> SessionRequest {
    let end = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
    SessionRequest {
        ends: Ends::new(end("192.0.2.1", port), end("192.0.2.2", port)).unwrap(),
        padding_len: 64,
        start_time: Timestamp::from_raw(0),
        timeout: Interval::from_ns(2_000_000_000),
        dscp: 34,
        reflect: None,
    }
}

/// Both machines, the octets between them, and a clock.
struct Stage {
    client: Client,
    server: Server,
    host: MemoryHost,
    now_ns: i64,
    /// How many octets arrive at a time.
    piece: usize,
    events: Vec<Event>,
}

impl Stage {
    fn new(wish: Wish, terms: Terms) -> Self {
        Self {
            client: Client::new(0, wish, Secrets::random()),
            server: Server::new(0, terms, Nonces::random()),
            host: MemoryHost {
                keys: vec![("bob", "something else"), ("alice", "open sesame")],
                ..MemoryHost::default()
            },
            now_ns: 0,
            piece: usize::MAX,
            events: Vec::new(),
        }
    }

    /// After the set-up, in `mode` and with `features`.
    fn ready(mode: SecurityMode, features: Modes) -> Self {
        let wish = Wish {
            features,
            ..wish(Some(mode))
        };
        let mut stage = Self::new(wish, terms(Modes::SECURITY | Modes::FEATURES));
        stage.run();
        assert_eq!(stage.client.modes(), Some(mode.bit() | features));
        assert_eq!(stage.server.modes(), Some(mode.bit() | features));
        let Some(Event::Ready { start_time, .. }) = stage.events.pop() else {
            panic!("{:?}", stage.client.ended());
        };
        assert_eq!(start_time, START_TIME);
        stage
    }

    /// Until neither side has anything to do.
    ///
    /// # Panics
    /// Where they go on and on.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            let octets = self.server.output().to_vec();
            self.server.sent(octets.len());
            for piece in octets.chunks(self.piece) {
                self.now_ns += 1;
                self.client.receive(self.now_ns, piece);
                idle = false;
            }
            while let Some(event) = self.client.next_event() {
                idle = false;
                match event {
                    Event::Derive(job) => self.client.derived(self.now_ns, &job.run()),
                    other => self.events.push(other),
                }
            }
            if let Some(check) = self.host.check.take() {
                idle = false;
                self.server.token_checked(self.now_ns, check.run());
            }
            let octets = self.client.output().to_vec();
            for piece in octets.chunks(self.piece) {
                self.now_ns += 1;
                let taken = self.server.receive(self.now_ns, piece, &mut self.host);
                self.client.sent(taken);
                idle = idle && taken == 0;
                if taken < piece.len() {
                    break;
                }
            }
            if idle {
                return;
            }
        }
        panic!("the two come to no end");
    }

    fn event(&mut self) -> Event {
        self.run();
        assert_eq!(self.events.len(), 1, "{:?}", self.client.ended());
        self.events.remove(0)
    }

    /// The answer to a request.
    fn ask(&mut self, request: &SessionRequest) -> AcceptSession {
        self.client.request(self.now_ns, request).unwrap();
        match self.event() {
            Event::Session(session) => session,
            other => panic!("{other:?}"),
        }
    }

    fn start(&mut self) -> Accept {
        self.client.start(self.now_ns).unwrap();
        match self.event() {
            Event::Started(accept) => accept,
            other => panic!("{other:?}"),
        }
    }

    fn stop(&mut self) {
        self.client.stop(Accept::Ok).unwrap();
        self.run();
        assert_eq!(self.server.ended(), None);
    }

    /// Octets of a client that obeys no machine.
    fn say(&mut self, commands: &[Command]) {
        let mut codec = Codec::new(10);
        for command in commands {
            codec.send_command(command);
        }
        self.say_octets(codec.output());
    }

    fn say_octets(&mut self, octets: &[u8]) {
        let taken = self.server.receive(self.now_ns, octets, &mut self.host);
        assert_eq!(taken, octets.len());
    }

    /// What the Server says to a client that obeys no machine, in unauthenticated mode.
    fn hear(&mut self, awaited: &[Awaited]) -> Vec<Answer> {
        let mut codec = Codec::new(10);
        let octets = self.server.output().to_vec();
        self.server.sent(octets.len());
        let mut input = octets.as_slice();
        let answers = awaited
            .iter()
            .map(|&awaited| codec.answer(awaited, &mut input).unwrap().unwrap())
            .collect();
        assert!(input.is_empty());
        answers
    }
}

fn open() -> Stage {
    Stage::ready(SecurityMode::Unauthenticated, Modes::NONE)
}

const OVER: Fate = Fate::Over(Ending::Stopped(Accept::Ok));

#[test]
fn sessions_in_rounds_in_all_modes_and_pieces_of_any_size() {
    for mode in SecurityMode::STRONGEST_FIRST {
        for piece in [1, 5, usize::MAX] {
            let mut stage = Stage::ready(mode, Modes::NONE);
            stage.piece = piece;
            for round in 1..=3 {
                for port in 0..round {
                    let session = stage.ask(&request(20_000 + port));
                    assert!(session.accept().is_ok());
                    assert_eq!(session.port.get(), 20_000 + port);
                }
                assert_eq!(stage.start(), Accept::Ok);
                let running = [Fate::Running].repeat(usize::from(round));
                assert!(stage.host.fates().ends_with(&running));
                stage.stop();
                assert!(stage.host.fates().iter().all(|fate| *fate == OVER));
            }
            assert_eq!(stage.host.fates().len(), 6);
            assert!(stage.host.remarks.is_empty());
            assert_eq!(stage.host.requests[0], request(20_000));
            let key_id = mode
                .protects_control()
                .then(|| KeyId::new("alice").unwrap());
            let asked = (mode.bit(), key_id, mode.protects_test());
            assert_eq!(stage.host.asked[0], asked);
            assert_eq!(stage.client.keys().is_some(), mode.protects_test());
        }
    }
}

#[test]
fn sessions_one_by_one_in_all_modes() {
    let accept = |event: Event| match event {
        Event::Acknowledged(accept, sids) => (accept, sids),
        other => panic!("{other:?}"),
    };
    for mode in SecurityMode::STRONGEST_FIRST {
        let mut stage = Stage::ready(mode, Modes::INDIVIDUAL_SESSION_CONTROL);
        let sids: Vec<Sid> = (0..3)
            .map(|port| stage.ask(&request(port + 1)).sid)
            .collect();

        // The example of RFC 5938 §3.3: one of them cannot start now.
        stage.host.refuse_start = Some((1, Accept::TemporaryLimit));
        stage.client.start_some(stage.now_ns, sids.clone()).unwrap();
        stage.run();
        let acks: Vec<_> = stage.events.drain(..).map(accept).collect();
        let refused = (Accept::TemporaryLimit, vec![sids[1]]);
        assert_eq!(acks, [(Accept::Ok, vec![sids[0], sids[2]]), refused]);
        assert!(stage.client.is_idle());

        // While others run, one stops, one is asked for, and the late one starts.
        stage.host.refuse_start = None;
        stage.client.stop_some(stage.now_ns, vec![sids[0]]).unwrap();
        assert_eq!(accept(stage.event()), (Accept::Ok, vec![sids[0]]));
        let fourth = stage.ask(&request(4)).sid;
        stage
            .client
            .start_some(stage.now_ns, vec![sids[1], fourth])
            .unwrap();
        assert_eq!(accept(stage.event()), (Accept::Ok, vec![sids[1], fourth]));
        let running = [OVER, Fate::Running, Fate::Running, Fate::Running];
        assert_eq!(stage.host.fates(), running);

        assert_eq!(stage.client.start(stage.now_ns), Err(NotNow::Mode));
        assert_eq!(stage.client.stop(Accept::Ok), Err(NotNow::Mode));
        let again = stage.client.start_some(stage.now_ns, vec![fourth]);
        assert_eq!(again, Err(NotNow::NoSession));
        stage.server.disconnected(&mut stage.host);
        let lost = Fate::Over(Ending::Lost);
        assert_eq!(stage.host.fates(), [OVER, lost, lost, lost]);
    }
}

#[test]
fn octets_are_reflected_where_both_sides_can() {
    let reflect = Some(ReflectOctets {
        octets: [0xca, 0xfe],
        padding_len: 8,
    });
    let asked = SessionRequest {
        reflect,
        ..request(20_000)
    };
    let mut stage = Stage::ready(SecurityMode::Encrypted, Modes::REFLECT_OCTETS);
    stage.host.server_octets = [0xbe, 0xef];
    let session = stage.ask(&asked);
    assert_eq!(session.reflected_octets, [0xca, 0xfe]);
    assert_eq!(session.server_octets, [0xbe, 0xef]);
    assert_eq!(stage.host.requests, [asked]);

    let mut stage = open();
    stage.host.server_octets = [0xbe, 0xef];
    let session = stage.ask(&asked);
    assert_eq!(
        (session.reflected_octets, session.server_octets),
        ([0; 2], [0; 2])
    );
    assert_eq!(stage.host.requests, [request(20_000)]);
}

#[test]
fn another_port_and_refusals_reach_the_client_and_the_connection_stays() {
    let mut stage = open();
    stage.host.port = Some(30_009);
    assert_eq!(stage.ask(&request(20_000)).port.get(), 30_009);
    stage.host.refuse_grant = Some(Accept::PermanentLimit);
    let refused = AcceptSession::refused(Accept::PermanentLimit);
    assert_eq!(stage.ask(&request(20_001)), refused);
    stage.host.refuse_grant = None;
    for port in 1..10 {
        assert!(stage.ask(&request(port)).accept().is_ok());
    }
    // Terms::most_sessions is 10.
    assert_eq!(
        stage.ask(&request(11)),
        AcceptSession::refused(Accept::TemporaryLimit)
    );
    let remarks = [
        Remark::Host(Accept::PermanentLimit),
        Remark::TooManySessions(10),
    ];
    assert_eq!(stage.host.remarks, remarks);
    assert_eq!(stage.start(), Accept::Ok);
    stage.stop();
}

/// A promise that the host did not mean.
#[test]
fn a_refusal_that_says_ok_is_an_internal_error() {
    let mut stage = open();
    stage.host.refuse_grant = Some(Accept::Ok);
    assert_eq!(
        stage.ask(&request(1)),
        AcceptSession::refused(Accept::InternalError)
    );
}

#[test]
fn a_start_is_all_or_none() {
    let mut stage = open();
    for port in 1..4 {
        stage.ask(&request(port));
    }
    stage.host.refuse_start = Some((1, Accept::InternalError));
    assert_eq!(stage.start(), Accept::InternalError);
    let withdrawn = Fate::Over(Ending::Withdrawn);
    assert_eq!(
        stage.host.fates(),
        [Fate::Over(Ending::Lost), withdrawn, withdrawn]
    );
    assert_eq!(stage.client.start(stage.now_ns), Err(NotNow::NoSession));
    stage.host.refuse_start = None;
    stage.ask(&request(1));
    assert_eq!(stage.start(), Accept::Ok);
}

#[test]
fn requests_that_nobody_could_grant_are_answered_and_forgotten() {
    let mut stage = open();
    let good = RequestTwSession::from(&request(20_000));
    let odd = [
        (
            RequestTwSession {
                conf_sender: 1,
                ..good
            },
            Unacceptable::ConfSender(1),
        ),
        (
            RequestTwSession { ipvn: 5, ..good },
            Unacceptable::IpVersion(5),
        ),
        (
            RequestTwSession {
                padding_len: u32::MAX.into(),
                ..good
            },
            Unacceptable::PaddingTooLong {
                got: u32::MAX,
                most: 65_493,
            },
        ),
    ];
    for (request, why) in odd {
        stage.say(&[Command::RequestTwSession(request)]);
        let refused = AcceptSession::refused(Accept::NotSupported);
        assert_eq!(
            stage.hear(&[Awaited::AcceptSession]),
            [Answer::AcceptSession(refused)]
        );
        assert_eq!(stage.host.remarks.pop(), Some(Remark::Unacceptable(why)));
    }
    // Before it is sent, where the client is this program.
    let too_long = SessionRequest {
        padding_len: 70_000,
        ..request(1)
    };
    assert!(matches!(
        stage.client.request(stage.now_ns, &too_long),
        Err(NotNow::Unacceptable(Unacceptable::PaddingTooLong { .. }))
    ));
    assert!(stage.ask(&request(20_000)).accept().is_ok());
}

#[test]
fn commands_in_one_piece_are_answered_in_order() {
    let mut stage = open();
    let asked = Command::RequestTwSession(RequestTwSession::from(&request(20_000)));
    let stop = Command::StopSessions(StopSessions {
        accept: Accept::Failure,
        sessions: 2,
    });
    stage.say(&[
        asked.clone(),
        asked.clone(),
        Command::StartSessions,
        stop,
        asked,
    ]);
    let answers = stage.hear(&[
        Awaited::AcceptSession,
        Awaited::AcceptSession,
        Awaited::StartAck,
        Awaited::AcceptSession,
    ]);
    assert_eq!(answers[2], Answer::StartAck(Accept::Ok));
    let invalid = Fate::Over(Ending::Stopped(Accept::Failure));
    assert_eq!(stage.host.fates(), [invalid, invalid, Fate::Granted]);
}

#[test]
fn a_start_without_a_session_is_refused() {
    let mut stage = open();
    assert_eq!(stage.client.start(stage.now_ns), Err(NotNow::NoSession));
    stage.say(&[Command::StartSessions]);
    assert_eq!(
        stage.hear(&[Awaited::StartAck]),
        [Answer::StartAck(Accept::Failure)]
    );
    assert_eq!(stage.host.remarks, [Remark::NothingToStart]);
    assert_eq!(stage.server.ended(), None);
}

#[test]
fn a_stop_counts_the_sessions_or_nothing() {
    for (sessions, ended) in [
        (2, None),
        // twampy.
        (0, None),
        (
            1,
            Some(server::End::StopCount {
                told: 1,
                running: 2,
            }),
        ),
        (
            u32::MAX,
            Some(server::End::StopCount {
                told: u32::MAX,
                running: 2,
            }),
        ),
    ] {
        let mut stage = open();
        stage.ask(&request(1));
        stage.ask(&request(2));
        assert_eq!(stage.start(), Accept::Ok);
        let accept = Accept::Ok;
        stage.say(&[Command::StopSessions(StopSessions { accept, sessions })]);
        assert_eq!(stage.server.ended(), ended.as_ref());
        let fate = if ended.is_none() {
            OVER
        } else {
            Fate::Over(Ending::Lost)
        };
        assert_eq!(stage.host.fates(), [fate, fate]);
        let remarks: &[_] = if sessions == 0 {
            &[Remark::StopCountZero(2)]
        } else {
            &[]
        };
        assert_eq!(stage.host.remarks, remarks);
        // Nothing answers a Stop-Sessions.
        assert!(stage.server.output().is_empty());
    }
}

/// RFC 5357 §3.5: Accept-Session with 3, whatever came.
#[test]
fn unexpected_commands_get_their_answer_and_the_connection_ends() {
    let stop = Command::StopSessions(StopSessions {
        accept: Accept::Ok,
        sessions: 1,
    });
    let asked = Command::RequestTwSession(RequestTwSession::from(&request(9)));
    let some = Command::StartNSessions(vec![Sid([7; 16])]);
    let unknown =
        |number| server::End::Broken(Broken::Malformed(Malformed::UnknownCommand(number)));
    let cases: &[(Modes, bool, &Command, server::End)] = &[
        (
            Modes::NONE,
            false,
            &stop,
            server::End::OutOfTurn("Stop-Sessions"),
        ),
        (
            Modes::NONE,
            true,
            &asked,
            server::End::OutOfTurn("Request-TW-Session"),
        ),
        (
            Modes::NONE,
            true,
            &Command::StartSessions,
            server::End::OutOfTurn("Start-Sessions"),
        ),
        (Modes::NONE, false, &some, unknown(7)),
        (
            Modes::INDIVIDUAL_SESSION_CONTROL,
            false,
            &Command::StartSessions,
            server::End::OutOfTurn("Start-Sessions"),
        ),
        (
            Modes::INDIVIDUAL_SESSION_CONTROL,
            false,
            &stop,
            server::End::OutOfTurn("Stop-Sessions"),
        ),
    ];
    let expected = [Answer::AcceptSession(AcceptSession::refused(
        Accept::NotSupported,
    ))];
    for (features, running, command, end) in cases {
        let mut stage = Stage::ready(SecurityMode::Unauthenticated, *features);
        stage.ask(&request(1));
        if *running {
            stage.start();
        }
        stage.say(&[(*command).clone()]);
        assert_eq!(stage.hear(&[Awaited::AcceptSession]), expected);
        assert_eq!(stage.server.ended(), Some(end));
        let ending = if *running {
            Ending::Lost
        } else {
            Ending::Withdrawn
        };
        assert_eq!(stage.host.fates(), [Fate::Over(ending)]);
    }
    for number in [0, 1, 4, 6, 8, 10, 11, 12, 255] {
        let mut stage = open();
        stage.say_octets(&[number; 40]);
        assert_eq!(stage.hear(&[Awaited::AcceptSession]), expected);
        assert_eq!(stage.server.ended(), Some(&unknown(number)));
    }
}

#[test]
fn lists_name_sessions_that_are_there_each_once() {
    let mut stage = Stage::ready(
        SecurityMode::Unauthenticated,
        Modes::INDIVIDUAL_SESSION_CONTROL,
    );
    let sid = stage.ask(&request(1)).sid;
    let stranger = Sid([7; 16]);
    stage.say(&[
        Command::StopNSessions(vec![sid]),
        Command::StartNSessions(vec![sid, stranger, sid]),
        Command::StartNSessions(vec![sid]),
    ]);
    let answers = stage.hear(&[
        Awaited::StopNAck,
        Awaited::StartNAck,
        Awaited::StartNAck,
        Awaited::StartNAck,
    ]);
    let expected = [
        Answer::StopNAck(Accept::Failure, vec![sid]),
        Answer::StartNAck(Accept::Ok, vec![sid]),
        Answer::StartNAck(Accept::Failure, vec![stranger]),
        Answer::StartNAck(Accept::Failure, vec![sid]),
    ];
    assert_eq!(answers, expected);
    assert_eq!(stage.host.fates(), [Fate::Running]);

    // A list of 2^32-1 is not waited for.
    let mut list = [0xff; 16];
    list[0] = 9;
    stage.say_octets(&list);
    let got = u32::MAX;
    let broken = Broken::Malformed(Malformed::TooManySids { got, most: 10 });
    assert_eq!(stage.server.ended(), Some(&server::End::Broken(broken)));
    assert_eq!(stage.host.fates(), [Fate::Over(Ending::Lost)]);
}

#[test]
fn wrong_keys_are_refused_alike() {
    let other = |key_id: &str, passphrase: &str| Wish {
        key: Some((
            KeyId::new(key_id).unwrap(),
            Passphrase::new(passphrase.as_bytes().to_vec()),
        )),
        ..wish(None)
    };
    let mut outputs = Vec::new();
    for (key_id, passphrase) in [("alice", "open barley"), ("nobody", "open sesame")] {
        let mut stage = Stage::new(other(key_id, passphrase), terms(Modes::SECURITY));
        stage.piece = 1;
        stage.run();
        let end = server::End::Token(KeyId::new(key_id).unwrap());
        assert_eq!(stage.server.ended(), Some(&end));
        assert_eq!(
            stage.client.ended(),
            Some(&client::End::Refused(Accept::Failure))
        );
        let mut codec_side = Stage::new(other(key_id, passphrase), terms(Modes::SECURITY));
        codec_side.server.sent(usize::MAX);
        let response = SetUpResponse {
            key_id: KeyId::new(key_id).unwrap(),
            ..SetUpResponse::open(Modes::ENCRYPTED)
        };
        codec_side.say_octets(response.as_bytes());
        assert!(codec_side.host.check.is_some(), "the work is the same");
        codec_side.server.token_checked(0, None);
        outputs.push(codec_side.server.output().to_vec());
    }
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn a_key_that_nobody_has_time_to_check_is_refused_for_now() {
    let mut stage = Stage::new(wish(None), terms(Modes::SECURITY));
    // Nothing is checked: nothing happens.
    stage.server.token_not_checked(0);
    assert_eq!(stage.server.ended(), None);
    stage.server.sent(usize::MAX);
    stage.say_octets(SetUpResponse::open(Modes::ENCRYPTED).as_bytes());
    stage.server.token_not_checked(5);
    assert_eq!(stage.server.ended(), Some(&server::End::Busy));
    assert_eq!(stage.server.output()[..16], [vec![0; 15], vec![5]].concat());
    // The result of a check that was done after all comes too late.
    stage.server.token_checked(6, None);
    assert_eq!(stage.server.ended(), Some(&server::End::Busy));
}

#[test]
fn octets_behind_a_set_up_response_wait_for_the_token() {
    let mut stage = Stage::ready(SecurityMode::Encrypted, Modes::NONE);
    let response = SetUpResponse::open(Modes::ENCRYPTED);
    stage.server = Server::new(0, terms(Modes::SECURITY), Nonces::random());
    let octets = [response.as_bytes(), &[0; 48]].concat();
    let taken = stage.server.receive(0, &octets, &mut stage.host);
    assert_eq!(taken, response.as_bytes().len());
    assert_eq!(
        stage.server.receive(0, &octets[taken..], &mut stage.host),
        0
    );
    assert_eq!(
        stage.server.deadline(),
        None,
        "the Server's own work has no deadline"
    );
    // Whoever left in the meantime is not waited for.
    stage.server.disconnected(&mut stage.host);
    stage.server.token_checked(0, None);
    assert_eq!(stage.server.ended(), Some(&server::End::Closed));
    assert!(stage.server.output().is_empty());
}

#[test]
fn modes_that_were_not_offered_or_several_at_once_are_refused() {
    let offered = Modes::UNAUTHENTICATED | Modes::ENCRYPTED;
    for (bits, refused) in [
        (
            2,
            ModeRefused::NotOffered {
                chosen: Modes::AUTHENTICATED,
                offered,
            },
        ),
        (5, ModeRefused::SeveralSecurityModes(Modes::from_bits(5))),
        (16, ModeRefused::NoSecurityMode(Modes::from_bits(16))),
        (
            4 + 128,
            ModeRefused::NotOffered {
                chosen: Modes::from_bits(4 + 128),
                offered,
            },
        ),
        (0, ModeRefused::Declined),
    ] {
        let mut stage = Stage::new(wish(None), terms(offered));
        stage.server.sent(usize::MAX);
        let chosen = Modes::from_bits(bits);
        let response = SetUpResponse::open(chosen);
        let len = SetUpResponse::len(chosen);
        stage.say_octets(&response.as_bytes()[..len]);
        assert_eq!(stage.server.ended(), Some(&server::End::Mode(refused)));
        let output = stage.server.output();
        match refused.accept() {
            None => assert!(output.is_empty()),
            Some(accept) => {
                let mut expected = [0; 48];
                expected[15] = accept.into();
                assert_eq!(output, expected);
            }
        }
    }
}

#[test]
fn a_server_without_modes_turns_clients_away() {
    let mut stage = Stage::new(wish(None), terms(Modes::NONE));
    stage.run();
    assert_eq!(stage.server.ended(), Some(&server::End::TurnedAway));
    let end = client::End::NoMode(NoMode::ServerRefuses);
    assert_eq!(stage.client.ended(), Some(&end));
    assert!(stage.client.output().is_empty());
}

#[test]
fn a_client_that_finds_no_mode_says_so() {
    let mut stage = Stage::new(
        wish(Some(SecurityMode::Mixed)),
        terms(Modes::UNAUTHENTICATED),
    );
    stage.run();
    assert_eq!(
        stage.server.ended(),
        Some(&server::End::Mode(ModeRefused::Declined))
    );
    let end = NoMode::NotOffered {
        wanted: SecurityMode::Mixed,
        offered: Modes::UNAUTHENTICATED,
    };
    assert_eq!(stage.client.ended(), Some(&client::End::NoMode(end)));
}

#[test]
fn a_client_works_for_no_count_above_its_limit() {
    let greeting = |count: u32| ServerGreeting {
        count: count.into(),
        ..ServerGreeting::new(Modes::SECURITY, [1; 16], [2; 16], Count::LEAST)
    };
    let hears = |mode, count| {
        let mut client = Client::new(0, wish(Some(mode)), Secrets::random());
        client.receive(0, greeting(count).as_bytes());
        client
    };
    for (count, bad) in [
        (
            1 << 31,
            BadCount::TooHigh {
                count: 1 << 31,
                most: 32_768,
            },
        ),
        (512, BadCount::TooLow(512)),
        (1500, BadCount::NotAPowerOfTwo(1500)),
    ] {
        let mut client = hears(SecurityMode::Mixed, count);
        assert_eq!(client.ended(), Some(&client::End::Count(bad)));
        assert!(client.next_event().is_none());
        // Without a key there is nothing to derive.
        let client = hears(SecurityMode::Unauthenticated, count);
        assert_eq!(client.ended(), None);
        assert_eq!(client.output().len(), 164);
    }
}

#[test]
fn a_server_waits_as_long_as_it_must() {
    let patience = Patience::default();
    let mut stage = Stage::new(wish(None), terms(Modes::SECURITY));

    // Octets of a Set-Up-Response buy no time.
    assert_eq!(stage.server.deadline(), Some(patience.set_up_ns));
    stage.now_ns = 9 * SECOND;
    stage.say_octets(&[0; 100]);
    assert_eq!(stage.server.deadline(), Some(patience.set_up_ns));
    stage
        .server
        .handle_deadline(patience.set_up_ns - 1, &mut stage.host);
    assert_eq!(stage.server.ended(), None);
    stage
        .server
        .handle_deadline(patience.set_up_ns, &mut stage.host);
    assert_eq!(
        stage.server.ended(),
        Some(&server::End::TimedOut(Wait::SetUp))
    );

    // SERVWAIT, which anything puts off.
    let mut stage = open();
    // The last octet that was sent is that of the Server-Start.
    let since = stage.now_ns - 1;
    assert_eq!(stage.server.deadline(), Some(since + patience.servwait_ns));
    stage.now_ns += 100 * SECOND;
    stage.ask(&request(1));
    stage.ask(&request(2));
    assert_eq!(
        stage.server.deadline(),
        Some(stage.now_ns - 1 + patience.servwait_ns)
    );

    // None while a session runs, but for a command that stops in the middle.
    stage.start();
    assert_eq!(stage.server.deadline(), None);
    stage.say_octets(&[3; 31]);
    let half = stage.now_ns;
    assert_eq!(stage.server.deadline(), Some(half + patience.message_ns));
    stage.now_ns += SECOND;
    stage.server.receive(stage.now_ns, &[], &mut stage.host);
    assert_eq!(stage.server.deadline(), Some(half + patience.message_ns));
    stage
        .server
        .handle_deadline(half + patience.message_ns, &mut stage.host);
    assert_eq!(
        stage.server.ended(),
        Some(&server::End::TimedOut(Wait::Message))
    );
    assert_eq!(stage.host.fates(), [Fate::Over(Ending::Lost); 2]);
    assert_eq!(stage.server.deadline(), None);
}

#[test]
fn servwait_begins_anew_when_refwait_has_ended_all_sessions() {
    let started = || {
        let mut stage = open();
        let sids = [1, 2].map(|port| stage.ask(&request(port)).sid);
        stage.start();
        stage.server.expired(50 * SECOND, &sids[0]);
        assert_eq!(stage.server.deadline(), None);
        stage.server.expired(60 * SECOND, &Sid([7; 16]));
        stage.server.expired(60 * SECOND, &sids[1]);
        stage.server.expired(70 * SECOND, &sids[1]);
        assert_eq!(stage.server.deadline(), Some(960 * SECOND));
        stage.now_ns = 70 * SECOND;
        stage
    };
    // Then a stop still counts them, or a request stands for it, or nothing comes.
    let mut stage = started();
    stage.stop();
    assert_eq!(stage.host.fates(), [OVER; 2]);
    let mut stage = started();
    stage.say(&[Command::RequestTwSession(RequestTwSession::from(&request(
        3,
    )))]);
    let lost = Fate::Over(Ending::Lost);
    assert_eq!(stage.host.fates(), [lost, lost, Fate::Granted]);
    let mut stage = started();
    stage.server.handle_deadline(960 * SECOND, &mut stage.host);
    assert_eq!(
        stage.server.ended(),
        Some(&server::End::TimedOut(Wait::Servwait))
    );
    assert_eq!(stage.host.fates(), [lost; 2]);
}

#[test]
fn a_client_that_does_not_read_is_not_listened_to() {
    let mut stage = open();
    let command = Command::RequestTwSession(RequestTwSession {
        ipvn: 5,
        ..RequestTwSession::from(&request(1))
    });
    let mut codec = Codec::new(10);
    for _ in 0..1000 {
        codec.send_command(&command);
    }
    let mut taken = stage.server.receive(0, codec.output(), &mut stage.host);
    assert!(taken < 20_000 && stage.server.output().len() < 5_000);
    assert_eq!(
        stage
            .server
            .receive(0, &codec.output()[taken..], &mut stage.host),
        0
    );
    let mut heard = 0;
    while taken < codec.output().len() {
        heard += stage.server.output().len();
        stage.server.sent(usize::MAX);
        taken += stage
            .server
            .receive(0, &codec.output()[taken..], &mut stage.host);
    }
    assert_eq!(heard + stage.server.output().len(), 1000 * 48);

    // Nor waited for, when the end has come.
    stage.server.sent(usize::MAX);
    stage.say_octets(&[255; 16]);
    assert!(stage.server.ended().is_some() && !stage.server.output().is_empty());
    let by = stage.server.deadline().unwrap();
    stage.say_octets(&[255; 16]);
    assert_eq!(stage.server.deadline(), Some(by));
    stage.server.handle_deadline(by, &mut stage.host);
    assert!(stage.server.output().is_empty());
}

#[test]
fn a_client_waits_for_each_answer_for_a_time() {
    let silent = |wait: Expected, client: &mut Client, since| {
        let by = since + 5 * SECOND;
        assert_eq!(client.deadline(), Some(by));
        client.handle_deadline(by - 1);
        assert_eq!(client.ended(), None);
        client.handle_deadline(by);
        assert_eq!(client.ended(), Some(&client::End::TimedOut(wait)));
        assert_eq!(client.deadline(), None);
    };
    let mut client = Client::new(7, wish(None), Secrets::random());
    silent(Expected::Greeting, &mut client, 7);

    let greeting = ServerGreeting::new(Modes::SECURITY, [1; 16], [2; 16], Count::LEAST);
    let mut client = Client::new(0, wish(None), Secrets::random());
    client.receive(SECOND, greeting.as_bytes());
    assert_eq!(client.deadline(), None, "its own work has no deadline");
    let Some(Event::Derive(job)) = client.next_event() else {
        panic!();
    };
    client.derived(2 * SECOND, &job.run());
    silent(Expected::ServerStart, &mut client, 2 * SECOND);

    let mut stage = open();
    assert_eq!(stage.client.deadline(), None);
    stage.client.request(SECOND, &request(1)).unwrap();
    assert_eq!(stage.client.request(SECOND, &request(1)), Err(NotNow::Busy));
    silent(
        Expected::Answer(Awaited::AcceptSession),
        &mut stage.client,
        SECOND,
    );
    assert_eq!(stage.client.start(SECOND), Err(NotNow::Ended));
}

#[test]
fn a_client_says_what_was_awaited_when_the_server_closes() {
    let mut stage = open();
    stage.ask(&request(1));
    stage.client.start(stage.now_ns).unwrap();
    stage.client.disconnected();
    let end = stage.client.ended().unwrap();
    assert_eq!(
        end.to_string(),
        "the server closed the connection in place of Start-Ack"
    );
    let mut stage = open();
    stage.client.disconnected();
    assert_eq!(stage.client.ended(), Some(&client::End::Closed(None)));
}

#[test]
fn a_client_believes_a_server_nothing_that_cannot_be() {
    let mut stage = open();
    stage.client.receive(0, &[0]);
    assert_eq!(stage.client.ended(), Some(&client::End::Unsolicited));

    let mut stage = open();
    stage.host.port = Some(0);
    stage.client.request(stage.now_ns, &request(1)).unwrap();
    stage.run();
    assert_eq!(stage.client.ended(), Some(&client::End::NoPort));

    // Two sessions that no command could tell apart.
    let mut stage = Stage::ready(
        SecurityMode::Unauthenticated,
        Modes::INDIVIDUAL_SESSION_CONTROL,
    );
    let sid = stage.ask(&request(1)).sid;
    stage.client.request(stage.now_ns, &request(2)).unwrap();
    let again = AcceptSession::granted(9000, sid);
    stage.client.receive(0, again.as_bytes());
    stage.client.receive(0, &[0; 16]);
    assert_eq!(stage.client.ended(), Some(&client::End::SameSid(sid)));
    assert!(stage.client.next_event().is_none());

    let mut stage = Stage::ready(
        SecurityMode::Unauthenticated,
        Modes::INDIVIDUAL_SESSION_CONTROL,
    );
    let sid = stage.ask(&request(1)).sid;
    let mut ack = vec![8, 0];
    ack.extend([0; 13]);
    ack.push(1);
    ack.extend(sid.0);
    ack.extend([0; 16]);
    stage.client.start_some(0, vec![sid]).unwrap();
    ack[31] ^= 1;
    stage.client.receive(0, &ack);
    assert!(matches!(
        stage.client.ended(),
        Some(client::End::WrongSid(_))
    ));
    assert!(stage.client.next_event().is_none());

    let mut stage = Stage::ready(SecurityMode::Mixed, Modes::NONE);
    stage.client.request(stage.now_ns, &request(1)).unwrap();
    stage.client.receive(0, &[0; 48]);
    let expected = Expected::Answer(Awaited::AcceptSession);
    let broken = Broken::WrongHmac(WrongHmac);
    assert_eq!(
        stage.client.ended(),
        Some(&client::End::Broken { expected, broken })
    );
}

#[test]
fn while_sessions_run_a_client_can_only_stop_them() {
    let mut stage = open();
    stage.ask(&request(1));
    assert_eq!(stage.client.stop(Accept::Ok), Err(NotNow::NoSession));
    stage.start();
    assert_eq!(stage.client.request(0, &request(2)), Err(NotNow::Running));
    assert_eq!(stage.client.start(0), Err(NotNow::Running));
    stage.stop();
    assert_eq!(stage.client.stop(Accept::Ok), Err(NotNow::NoSession));
}

#[test]
fn a_forged_command_starts_nothing() {
    let mut stage = Stage::ready(SecurityMode::Authenticated, Modes::NONE);
    stage.ask(&request(1));
    stage.client.start(stage.now_ns).unwrap();
    let mut octets = stage.client.output().to_vec();
    octets[20] ^= 1;
    stage.say_octets(&octets);
    let broken = Broken::WrongHmac(WrongHmac);
    assert_eq!(stage.server.ended(), Some(&server::End::Broken(broken)));
    assert_eq!(stage.host.fates(), [Fate::Over(Ending::Withdrawn)]);
    assert!(stage.server.output().is_empty());
}

proptest! {
    /// Whatever a client says, every session comes back, and the Server holds little.
    #[test]
    fn any_octets_leave_no_session_behind(
        individual in any::<bool>(),
        parts in proptest::collection::vec(
            prop_oneof![
                Just(RequestTwSession::from(&request(1)).as_bytes().iter().copied().chain([0; 16]).collect::<Vec<u8>>()),
                (0..12_u8).prop_map(|number| {
                    let mut octets = vec![0; 32];
                    octets[0] = number;
                    octets
                }),
                (0..4_u8).prop_map(|sessions| {
                    let mut octets = vec![0; 32];
                    (octets[0], octets[7]) = (3, sessions);
                    octets
                }),
                proptest::collection::vec(any::<u8>(), 0..40),
            ],
            0..30,
        ),
        size in 1..100_usize,
    ) {
        let features = if individual { Modes::INDIVIDUAL_SESSION_CONTROL } else { Modes::NONE };
        let mut stage = Stage::ready(SecurityMode::Unauthenticated, features);
        for piece in parts.concat().chunks(size) {
            stage.now_ns += SECOND;
            stage.server.receive(stage.now_ns, piece, &mut stage.host);
            prop_assert!(stage.server.output().len() <= 4096 + 512);
        }
        stage.server.disconnected(&mut stage.host);
        prop_assert!(stage.server.ended().is_some());
        prop_assert!(stage.host.fates().iter().all(|fate| matches!(fate, Fate::Over(_))));
    }

    /// Whatever a Server says, a client ends in an event, an end or a wait with a deadline.
    #[test]
    fn any_octets_end_a_client_or_keep_its_deadline(
        octets in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0)], 0..300),
        step in 0..4_usize,
    ) {
        let mut stage = open();
        match step {
            0 => stage.client = Client::new(0, wish(None), Secrets::random()),
            1 => stage.client.request(0, &request(1)).unwrap(),
            2 => {
                stage.ask(&request(1));
                stage.client.start(0).unwrap();
            }
            _ => {}
        }
        stage.client.receive(0, &octets);
        let waits = stage.client.deadline().is_some() || stage.client.is_idle();
        let works = matches!(stage.client.next_event(), Some(Event::Derive(_)));
        prop_assert!(waits || works || stage.client.ended().is_some());
    }
}
