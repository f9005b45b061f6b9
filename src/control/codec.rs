//! Octets of a control connection to messages, and back; for both sides and all modes.
//!
//! Input is taken from the front of a slice, as much as the message at hand needs and no more, so a
//! codec never holds more than one message. In the protected modes a message is handed out only
//! after its HMAC was found right. Which message may come when is for the caller, which asks for
//! the one that it awaits. After an error the stream is lost: every later call gives the same error.

use crate::wire::control::{
    Answer, Awaited, BLOCK_LEN, Command, HMAC_LEN, Malformed, SERVER_START_CLEAR_LEN,
    ServerGreeting, ServerStart, SetUpResponse,
};
use crate::wire::{Accept, Modes, Timestamp};
use zerocopy::{FromBytes, IntoBytes};

use super::crypto::{Opener, Sealer, SessionKeys, WrongHmac};

/// Why a control connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Protected octets that nobody with the keys sent.
    #[error(transparent)]
    WrongHmac(#[from] WrongHmac),
    /// Octets that are no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// One end of a control connection.
#[derive(Debug)]
pub struct Codec {
    inbound: Inbound,
    outbound: Outbound,
    most_sids: usize,
}

impl Codec {
    /// `most_sids` bounds the sessions that one message can name, and so the longest message.
    #[must_use]
    pub fn new(most_sids: usize) -> Self {
        Self {
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            most_sids,
        }
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.outbound.octets
    }

    /// The first `count` octets of [`output`](Self::output) are on their way.
    pub fn sent(&mut self, count: usize) {
        self.outbound.sent(count);
    }

    /// Whether the message at hand has begun and is not whole.
    #[must_use]
    pub fn is_amid_message(&self) -> bool {
        !self.inbound.octets.is_empty()
    }
}

/// A Server's end.
impl Codec {
    /// Sends the first message.
    pub fn greet(&mut self, greeting: &ServerGreeting) {
        self.outbound.plain(greeting.as_bytes());
    }

    /// Receives the first message; `None` until it is whole.
    ///
    /// With a Mode from RFC 7717 it is shorter, and all but Mode and KeyID is zero here.
    pub fn set_up_response(&mut self, input: &mut &[u8]) -> Option<SetUpResponse> {
        let head = self.inbound.plain(input, size_of::<Modes>())?;
        let (mode, _) = Modes::read_from_prefix(head).ok()?;
        let len = SetUpResponse::len(mode);
        let message = self.inbound.plain(input, len)?;
        let response = match SetUpResponse::read_from_bytes(message) {
            Ok(whole) => whole,
            Err(_) => {
                let (key_id, _) =
                    FromBytes::read_from_prefix(message.get(size_of::<Modes>()..)?).ok()?;
                SetUpResponse {
                    key_id,
                    ..SetUpResponse::open(mode)
                }
            }
        };
        self.inbound.done();
        Some(response)
    }

    /// Ends the set-up well: sends Server-Start, and protects everything from its octet 32 on if
    /// there are keys. `client_iv` is that of the Set-Up-Response.
    pub fn start(
        &mut self,
        keys: Option<&SessionKeys>,
        client_iv: &[u8; BLOCK_LEN],
        server_iv: [u8; BLOCK_LEN],
        start_time: Timestamp,
    ) {
        let iv = keys.map_or([0; BLOCK_LEN], |_| server_iv);
        let start = ServerStart::granted(iv, start_time);
        let (clear, tail) = start.as_bytes().split_at(SERVER_START_CLEAR_LEN);
        self.outbound.plain(clear);
        if let Some(keys) = keys {
            self.inbound.opener = Some(Opener::new(keys, client_iv));
            self.outbound.sealer = Some(Sealer::new(keys, &server_iv));
        }
        self.outbound.without_hmac(tail);
    }

    /// Ends the set-up with a refusal.
    pub fn refuse(&mut self, accept: Accept) {
        self.outbound.plain(ServerStart::refused(accept).as_bytes());
    }

    /// Receives the next command; `None` until it is whole.
    ///
    /// # Errors
    /// [`Broken`]: the connection ends, with the answer that [`Malformed::accept`] names, if any.
    pub fn command(&mut self, input: &mut &[u8]) -> Result<Option<Command>, Broken> {
        let most = self.most_sids;
        self.inbound
            .message(input, |first| Command::len(first, most), Command::read)
    }

    /// Sends an answer.
    pub fn send_answer(&mut self, answer: &Answer) {
        self.outbound.message(|out| answer.write(out));
    }
}

/// A Control-Client's end.
impl Codec {
    /// Receives the first message; `None` until it is whole.
    pub fn greeting(&mut self, input: &mut &[u8]) -> Option<ServerGreeting> {
        let message = self.inbound.plain(input, size_of::<ServerGreeting>())?;
        let greeting = ServerGreeting::read_from_bytes(message).ok()?;
        self.inbound.done();
        Some(greeting)
    }

    /// Sends the first message, and protects everything after it if there are keys.
    pub fn set_up(&mut self, response: &SetUpResponse, keys: Option<&SessionKeys>) {
        self.outbound.plain(response.as_bytes());
        self.outbound.sealer = keys.map(|keys| Sealer::new(keys, &response.client_iv));
    }

    /// Receives the second message; `None` until it is whole. `keys` as for
    /// [`set_up`](Self::set_up).
    pub fn server_start(
        &mut self,
        input: &mut &[u8],
        keys: Option<&SessionKeys>,
    ) -> Option<ServerStart> {
        let message = self.inbound.plain(input, size_of::<ServerStart>())?;
        let mut start = ServerStart::read_from_bytes(message).ok()?;
        self.inbound.done();
        // A refusal is in clear: the Server has no key (RFC 4656 §3.1).
        if let Some(keys) = keys.filter(|_| start.accept().is_ok()) {
            let mut opener = Opener::new(keys, &start.server_iv);
            let (_, tail) = start.as_mut_bytes().split_at_mut(SERVER_START_CLEAR_LEN);
            opener.decrypt(tail);
            opener.cover(tail);
            self.inbound.opener = Some(opener);
        }
        Some(start)
    }

    /// Sends a command.
    pub fn send_command(&mut self, command: &Command) {
        self.outbound.message(|out| command.write(out));
    }

    /// Receives the answer that is awaited; `None` until it is whole.
    ///
    /// # Errors
    /// [`Broken`]: the connection ends.
    pub fn answer(
        &mut self,
        awaited: Awaited,
        input: &mut &[u8],
    ) -> Result<Option<Answer>, Broken> {
        let most = self.most_sids;
        self.inbound.message(
            input,
            |first| Answer::len(awaited, first, most),
            |body| Answer::read(awaited, body),
        )
    }
}

/// The message that is being received: decrypted where it has to be, a block at a time.
#[derive(Debug, Default)]
struct Inbound {
    octets: Vec<u8>,
    /// How many of `octets` are decrypted.
    opened: usize,
    opener: Option<Opener>,
    broken: Option<Broken>,
}

impl Inbound {
    /// The first `len` octets of the message, as they came; `None` as long as there are fewer.
    fn plain(&mut self, input: &mut &[u8], len: usize) -> Option<&[u8]> {
        let missing = len.saturating_sub(self.octets.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.octets.extend_from_slice(taken);
        *input = rest;
        self.octets.get(..len)
    }

    /// The same, decrypted.
    fn opened(&mut self, input: &mut &[u8], len: usize) -> Option<&[u8]> {
        self.plain(input, len)?;
        if let Some(opener) = &mut self.opener
            && let Some(new) = self.octets.get_mut(self.opened..len)
        {
            opener.decrypt(new);
            self.opened = len;
        }
        self.octets.get(..len)
    }

    /// A message after the set-up: `len` tells its length by its first block, `read` reads what
    /// stands before the HMAC.
    fn message<Message>(
        &mut self,
        input: &mut &[u8],
        len: impl FnOnce(&[u8; BLOCK_LEN]) -> Result<usize, Malformed>,
        read: impl FnOnce(&[u8]) -> Result<Message, Malformed>,
    ) -> Result<Option<Message>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let message = self.verified(input, len).and_then(|found| match found {
            Some(body) => Ok(Some(read(body)?)),
            None => Ok(None),
        });
        match message {
            Ok(None) => {}
            Ok(Some(_)) => self.done(),
            Err(broken) => self.broken = Some(broken),
        }
        message
    }

    fn verified(
        &mut self,
        input: &mut &[u8],
        len: impl FnOnce(&[u8; BLOCK_LEN]) -> Result<usize, Malformed>,
    ) -> Result<Option<&[u8]>, Broken> {
        let Some(first) = self
            .opened(input, BLOCK_LEN)
            .and_then(|block| block.first_chunk())
        else {
            return Ok(None);
        };
        let len = len(first)?;
        if self.opened(input, len).is_none() {
            return Ok(None);
        }
        if let Some(opener) = &mut self.opener {
            opener.verify(&self.octets)?;
        }
        // In unauthenticated mode the field must be zero, and is ignored.
        Ok(self.octets.get(..len.saturating_sub(HMAC_LEN)))
    }

    /// The message was handed out.
    fn done(&mut self) {
        self.octets.clear();
        self.opened = 0;
    }
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Outbound {
    octets: Vec<u8>,
    sealer: Option<Sealer>,
}

impl Outbound {
    fn plain(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    fn without_hmac(&mut self, octets: &[u8]) {
        let from = self.octets.len();
        self.octets.extend_from_slice(octets);
        if let (Some(sealer), Some(new)) = (&mut self.sealer, self.octets.get_mut(from..)) {
            sealer.encrypt_without_hmac(new);
        }
    }

    fn message(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.octets.len();
        write(&mut self.octets);
        self.octets.extend_from_slice(&[0; HMAC_LEN]);
        if let (Some(sealer), Some(new)) = (&mut self.sealer, self.octets.get_mut(from..)) {
            sealer.seal(new);
        }
    }

    fn sent(&mut self, count: usize) {
        self.octets.drain(..count.min(self.octets.len()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::control::{AcceptSession, StopSessions};
    use crate::wire::{RequestTwSession, Sid};

    const MOST_SIDS: usize = 4;
    const CLIENT_IV: [u8; 16] = [1; 16];
    const SERVER_IV: [u8; 16] = [2; 16];

    /// Both ends after the set-up, all that was sent taken off.
    fn set_up(keys: Option<&SessionKeys>) -> (Codec, Codec) {
        let mut client = Codec::new(MOST_SIDS);
        let mut server = Codec::new(MOST_SIDS);
        let response = SetUpResponse {
            client_iv: CLIENT_IV,
            ..SetUpResponse::open(Modes::ENCRYPTED)
        };
        client.set_up(&response, keys);
        let mut octets = client.output();
        assert_eq!(server.set_up_response(&mut octets), Some(response));
        server.start(keys, &CLIENT_IV, SERVER_IV, Timestamp::from_raw(9));
        let mut octets = server.output();
        let start = client.server_start(&mut octets, keys).unwrap();
        assert_eq!(start.start_time, Timestamp::from_raw(9));
        client.sent(usize::MAX);
        server.sent(usize::MAX);
        (client, server)
    }

    fn any_keys() -> impl Strategy<Value = Option<SessionKeys>> {
        any::<Option<([u8; 16], [u8; 32])>>()
            .prop_map(|keys| keys.map(|(aes, hmac)| SessionKeys::new(aes, hmac)))
    }

    fn any_accept() -> impl Strategy<Value = Accept> {
        any::<u8>().prop_map(Accept::from)
    }

    fn any_sids() -> impl Strategy<Value = Vec<Sid>> {
        vec(any::<[u8; 16]>().prop_map(Sid), 1..=MOST_SIDS)
    }

    fn any_command() -> impl Strategy<Value = Command> {
        prop_oneof![
            vec(any::<u8>(), 95).prop_map(|rest| {
                let octets = [&[5], rest.as_slice()].concat();
                Command::RequestTwSession(RequestTwSession::read_from_bytes(&octets).unwrap())
            }),
            Just(Command::StartSessions),
            (any_accept(), any::<u32>()).prop_map(|(accept, sessions)| Command::StopSessions(
                StopSessions { accept, sessions }
            )),
            any_sids().prop_map(Command::StartNSessions),
            any_sids().prop_map(Command::StopNSessions),
        ]
    }

    fn any_answer() -> impl Strategy<Value = (Awaited, Answer)> {
        prop_oneof![
            any::<[u8; 32]>().prop_map(|octets| {
                let session = AcceptSession::read_from_bytes(&octets).unwrap();
                (Awaited::AcceptSession, Answer::AcceptSession(session))
            }),
            any_accept().prop_map(|accept| (Awaited::StartAck, Answer::StartAck(accept))),
            (any_accept(), any_sids())
                .prop_map(|(accept, sids)| (Awaited::StartNAck, Answer::StartNAck(accept, sids))),
            (any_accept(), any_sids())
                .prop_map(|(accept, sids)| (Awaited::StopNAck, Answer::StopNAck(accept, sids))),
        ]
    }

    /// The octets cut at any places; several messages, or none, may be in a piece.
    fn pieces<'a>(mut octets: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for &size in sizes.iter().cycle() {
            if octets.is_empty() {
                break;
            }
            let (piece, rest) = octets.split_at(size.min(octets.len()));
            pieces.push(piece);
            octets = rest;
        }
        pieces
    }

    #[test]
    fn a_set_up_response_with_keys_from_ikev2_is_understood_as_far_as_it_goes() {
        let mode = Modes::ENCRYPTED | Modes::IKEV2_DERIVED;
        let mut octets = [7; 112];
        octets[..4].copy_from_slice(mode.as_bytes());
        let mut server = Codec::new(MOST_SIDS);
        let response = server.set_up_response(&mut octets.as_slice()).unwrap();
        assert_eq!(response.mode, mode);
        assert_eq!(response.key_id.octets(), [7; 80]);
        assert_eq!(response.token, [0; 64]);
    }

    #[test]
    fn a_message_that_is_not_whole_is_told_from_none() {
        let (_, mut server) = set_up(None);
        assert!(!server.is_amid_message());
        let octets = [2; 32];
        assert_eq!(server.command(&mut &octets[..31]), Ok(None));
        assert!(server.is_amid_message());
        let start = server.command(&mut &octets[..1]);
        assert_eq!(start, Ok(Some(Command::StartSessions)));
        assert!(!server.is_amid_message());
    }

    /// Two refusals, each as long as it must be, then a message: the octets of none are lost.
    #[test]
    fn messages_behind_one_another_are_left_in_the_input() {
        let keys = SessionKeys::random();
        let (mut client, mut server) = set_up(Some(&keys));
        for _ in 0..3 {
            client.send_command(&Command::StartSessions);
        }
        let mut input = client.output();
        for left in [64, 32, 0] {
            let command = server.command(&mut input);
            assert_eq!(command, Ok(Some(Command::StartSessions)));
            assert_eq!(input.len(), left);
        }
    }

    proptest! {
        #[test]
        fn commands_arrive_whatever_the_pieces(
            keys in any_keys(),
            commands in vec(any_command(), 1..6),
            sizes in vec(1..200_usize, 1..5),
        ) {
            let (mut client, mut server) = set_up(keys.as_ref());
            for command in &commands {
                client.send_command(command);
            }
            let mut found = Vec::new();
            for mut piece in pieces(client.output(), &sizes) {
                while let Some(command) = server.command(&mut piece).unwrap() {
                    found.push(command);
                }
                prop_assert!(piece.is_empty());
            }
            // A request is compared by its fields: MBZ came as it was sent.
            prop_assert_eq!(found, commands);
            prop_assert!(!server.is_amid_message());
        }

        #[test]
        fn answers_arrive_whatever_the_pieces(
            keys in any_keys(),
            answers in vec(any_answer(), 1..6),
            sizes in vec(1..200_usize, 1..5),
        ) {
            let (mut client, mut server) = set_up(keys.as_ref());
            for (_, answer) in &answers {
                server.send_answer(answer);
            }
            let mut found = Vec::new();
            for mut piece in pieces(server.output(), &sizes) {
                while let Some((awaited, _)) = answers.get(found.len()) {
                    let Some(answer) = client.answer(*awaited, &mut piece).unwrap() else {
                        break;
                    };
                    found.push((*awaited, answer));
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(found, answers);
        }

        #[test]
        fn a_protected_stream_with_a_changed_bit_yields_no_message_from_there(
            commands in vec(any_command(), 1..4),
            (octet, bit) in (any::<usize>(), 0..8_u8),
        ) {
            let keys = SessionKeys::new([3; 16], [4; 32]);
            let (mut client, mut server) = set_up(Some(&keys));
            let mut ends = Vec::new();
            for command in &commands {
                client.send_command(command);
                ends.push(client.output().len());
            }
            let mut octets = client.output().to_vec();
            let octet = octet % octets.len();
            octets[octet] ^= 1 << bit;
            let good = ends.iter().filter(|&&end| end <= octet).count();
            let mut input = octets.as_slice();
            let mut found = Vec::new();
            let end = loop {
                match server.command(&mut input) {
                    Ok(Some(command)) => found.push(command),
                    end => break end,
                }
            };
            prop_assert_eq!(&found, &commands[..good]);
            // A list that seems longer than it is may wait for octets that do not come.
            prop_assert!(end.is_err() || input.is_empty());
            if let Err(broken) = end {
                prop_assert_eq!(server.command(&mut input), Err(broken));
            }
        }

        #[test]
        fn any_octets_end_in_messages_waiting_or_an_error_within_bounds(
            keys in any_keys(),
            octets in vec(prop_oneof![any::<u8>(), 0..12_u8, Just(0)], 0..800),
            awaited in vec(any_answer().prop_map(|(awaited, _)| awaited), 1..20),
        ) {
            let most_len = 112.max(32 + MOST_SIDS * 16);
            let mut server = Codec::new(MOST_SIDS);
            let mut client = Codec::new(MOST_SIDS);
            let (mut to_server, mut to_client) = (octets.as_slice(), octets.as_slice());
            let _ = client.greeting(&mut to_client);
            let _ = client.server_start(&mut to_client, keys.as_ref());
            if let Some(response) = server.set_up_response(&mut to_server) {
                server.start(keys.as_ref(), &response.client_iv, SERVER_IV, Timestamp::from_raw(0));
            }
            while let Ok(Some(_)) = server.command(&mut to_server) {}
            prop_assert!(server.inbound.octets.capacity() <= 2 * most_len.max(164));
            for awaited in awaited {
                let _ = client.answer(awaited, &mut to_client);
            }
            prop_assert!(client.inbound.octets.capacity() <= 2 * most_len.max(164));
        }
    }
}
