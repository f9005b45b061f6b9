//! How replies look: what is read of one, which of a bundle are alike, and how protected ones are opened.

use std::mem::offset_of;

use zerocopy::{FromZeros, IntoBytes};

use crate::io::Datagram;
use crate::report::ignored::Kind;
use crate::wire::protected::{self, Protection, Refused};
use crate::wire::{REFLECTOR_LEN, Reply, ReplyHead, TestFormat};

/// Replies that are taken together, at most.
const MOST_RUN: usize = 1024;
/// Where the two numbers stand in a reply.
const SEQ_AT: usize = offset_of!(ReplyHead, seq);
const SENDER_SEQ_AT: usize = offset_of!(ReplyHead, sender_seq);
/// Protected replies that are opened together.
const STAGED: usize = 16;

/// How the replies of a session look.
#[derive(Debug)]
pub(super) struct Looks {
    monitored: bool,
    /// Octets that replies should have, by class of their requests.
    due: Vec<u64>,
}

impl Looks {
    /// `payloads`: octets of the requests of each class.
    pub(super) fn new(test: TestFormat, payloads: &[usize]) -> Self {
        let due = |len: &usize| u64::try_from(test.reply_len(*len)).unwrap_or(0);
        Self {
            monitored: test.monitored(),
            due: payloads.iter().map(due).collect(),
        }
    }

    #[inline]
    pub(super) fn parse<'a>(&self, datagram: &Datagram<'a>) -> Result<Reply<'a>, Kind> {
        let parsed = if self.monitored {
            Reply::parse_monitored(datagram.octets)
        } else {
            Reply::parse(datagram.octets)
        };
        match parsed {
            Ok(reply) if !datagram.truncated => Ok(reply),
            Ok(_) => Err(Kind::Truncated),
            Err(_) => Err(Kind::TooShort),
        }
    }

    #[inline]
    pub(super) fn due_octets(&self, class: u8) -> u64 {
        self.due.get(usize::from(class)).copied().unwrap_or(0)
    }

    /// How many of the first replies of a bundle, of `step` octets each, differ in their numbers alone, and
    /// these go on from one to the next: all that is told of the first one is then true of all. At least 1.
    #[inline]
    pub(super) fn run_of(&self, bundle: &[u8], step: usize) -> usize {
        let told = REFLECTOR_LEN + usize::from(self.monitored);
        let Some(first) = bundle.get(..told.min(step)) else {
            return 1;
        };
        let Some(head) = first.first_chunk::<REFLECTOR_LEN>() else {
            return 1;
        };
        let mut expected = (number_at(head, SEQ_AT), number_at(head, SENDER_SEQ_AT));
        let mut run = 0;
        for octets in bundle.chunks_exact(step) {
            let Some(one) = octets.first_chunk::<REFLECTOR_LEN>() else {
                break;
            };
            let alike = one[SEQ_AT + 4..SENDER_SEQ_AT] == head[SEQ_AT + 4..SENDER_SEQ_AT]
                && one[SENDER_SEQ_AT + 4..] == head[SENDER_SEQ_AT + 4..]
                && octets.get(REFLECTOR_LEN..told) == first.get(REFLECTOR_LEN..told)
                && (number_at(one, SEQ_AT), number_at(one, SENDER_SEQ_AT)) == expected;
            if !alike || run == MOST_RUN {
                break;
            }
            run += 1;
            expected = (expected.0.wrapping_add(1), expected.1.wrapping_add(1));
        }
        run.max(1)
    }
}

#[inline]
fn number_at(reply: &[u8; REFLECTOR_LEN], at: usize) -> u32 {
    let octets = reply[at..].first_chunk();
    octets.map_or(0, |octets| u32::from_be_bytes(*octets))
}

/// A protected reply without its octets, and how many these were.
pub(super) type Closed = (Datagram<'static>, usize);

/// Protected replies that wait to be opened, which costs less where it is done to several at once.
#[derive(Debug)]
pub(super) struct Stage {
    protection: Protection,
    /// Replies without padding.
    replies: Vec<protected::ReflectorPacket>,
    came: Vec<Closed>,
}

impl Stage {
    pub(super) fn new(protection: Protection) -> Self {
        Self {
            protection,
            replies: Vec::with_capacity(STAGED),
            came: Vec::with_capacity(STAGED),
        }
    }

    /// Takes a reply; `Err`: it is none.
    pub(super) fn take(&mut self, datagram: &Datagram<'_>) -> Result<(), Kind> {
        if datagram.truncated {
            return Err(Kind::Truncated);
        }
        self.replies.push(fields(datagram.octets)?);
        let len = datagram.octets.len();
        let came = Datagram {
            octets: &[],
            segment: datagram.segment,
            truncated: false,
            facts_cut: datagram.facts_cut,
            arrived_ns: datagram.arrived_ns,
            ttl: datagram.ttl,
            tos: datagram.tos,
        };
        self.came.push((came, len));
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.replies.len() == STAGED
    }

    /// Opens the replies that wait: what each says in the clear, with the TOS behind it, or why it is none.
    pub(super) fn open(
        &mut self,
        mut opened: impl FnMut(&Closed, Result<[u8; REFLECTOR_LEN + 1], Kind>),
    ) {
        if self.replies.is_empty() {
            return;
        }
        let step = protected::REFLECTOR_LEN;
        let (protection, came) = (&self.protection, &self.came);
        let replies = self.replies.as_mut_bytes();
        protection.open::<protected::ReflectorPacket>(replies, step, |place, packet| {
            let plain = packet.map(|packet| {
                let mut octets = [0; REFLECTOR_LEN + 1];
                octets[..REFLECTOR_LEN].copy_from_slice(packet.plain().as_bytes());
                octets[REFLECTOR_LEN] = packet.sender_tos;
                octets
            });
            let plain = plain.map_err(|refused| match refused {
                Refused::Forged => Kind::Forged,
                Refused::TooShort(_) => Kind::TooShort,
            });
            opened(&came[place], plain);
        });
        self.replies.clear();
        self.came.clear();
    }

    /// The head of a reply that does not wait.
    pub(super) fn open_one(&self, octets: &[u8]) -> Option<ReplyHead> {
        let mut packet = fields(octets).ok()?;
        let octets = packet.as_mut_bytes();
        let step = octets.len();
        let mut head = None;
        let protection = &self.protection;
        protection.open::<protected::ReflectorPacket>(octets, step, |_, opened| {
            head = opened.ok().map(|packet| packet.plain().head);
        });
        head
    }
}

/// The fields of a protected reply, without its padding.
fn fields(octets: &[u8]) -> Result<protected::ReflectorPacket, Kind> {
    let mut packet = protected::ReflectorPacket::new_zeroed();
    let fields = octets.get(..protected::REFLECTOR_LEN);
    let fields = fields.ok_or(Kind::TooShort)?;
    packet.as_mut_bytes().copy_from_slice(fields);
    Ok(packet)
}
