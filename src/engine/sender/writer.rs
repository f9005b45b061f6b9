//! How a packet is written: its fields, and what protects them.

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::agenda::Due;
use crate::wire::protected::{self, Protection};
use crate::wire::{ErrorEstimate, Format, SenderPacket, TestFormat, Timestamp};

/// How the packets of a session look.
#[derive(Debug)]
pub(crate) struct Looks {
    /// UDP payload of each size class, in octets.
    pub(crate) payloads: Vec<usize>,
    pub(crate) test: TestFormat,
    /// What protects them, where `test` has them protected.
    pub(crate) protection: Option<Protection>,
    /// The number of the first packet on the wire.
    pub(crate) first_seq: u32,
    /// Of T1.
    pub(crate) format: Format,
}

/// Writes the packets of a session.
///
/// What can be done without T1 is done first ([`prepare`](Self::prepare)). Then T1 is read, or is that of the
/// batch, and is put in ([`stamp`](Self::stamp)).
#[derive(Debug)]
pub(crate) struct PacketWriter {
    looks: Looks,
    /// The octets that each packet begins with, its fields blank.
    fixed: Vec<u8>,
    error_estimate: ErrorEstimate,
}

/// When T1 is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadT1 {
    /// Once for all that leave together: writing them takes next to no time.
    AtBatch,
    /// For each packet or train, once the rest of it is done, since that takes longer than all else.
    AtPacket,
}

/// The packets of a place, and the number of the first one on the wire.
#[derive(Debug)]
pub(crate) struct Packets<'a> {
    octets: &'a mut [u8],
    payload: usize,
    first: u32,
}

impl Packets<'_> {
    #[inline]
    fn numbered(&mut self) -> impl Iterator<Item = (u32, &mut [u8])> {
        let mut number = self.first;
        self.octets
            .chunks_exact_mut(self.payload)
            .map(move |octets| {
                let this = number;
                number = number.wrapping_add(1);
                (this, octets)
            })
    }
}

impl PacketWriter {
    pub(super) fn new(looks: Looks) -> Self {
        let mut fixed = vec![0; looks.test.fixed_len()];
        looks.test.fill(&mut fixed, None);
        Self {
            looks,
            fixed,
            error_estimate: ErrorEstimate::UNKNOWN,
        }
    }

    pub(super) fn format(&self) -> Format {
        self.looks.format
    }

    pub(super) fn set_error_estimate(&mut self, error_estimate: ErrorEstimate) {
        self.error_estimate = error_estimate;
    }

    /// Octets of a packet.
    #[inline]
    pub(super) fn payload(&self, class: u8) -> usize {
        self.looks.payloads[usize::from(class)]
    }

    pub(super) fn largest(&self) -> usize {
        self.looks.payloads.iter().copied().max().unwrap_or(0)
    }

    /// The octets that each packet begins with, and how many of them are fields.
    pub(super) fn fixed(&self) -> (&[u8], usize) {
        (&self.fixed, self.looks.test.sender_len())
    }

    #[inline]
    pub(super) fn reads_t1(&self) -> ReadT1 {
        match self.looks.protection {
            None => ReadT1::AtBatch,
            Some(_) => ReadT1::AtPacket,
        }
    }

    #[inline]
    pub(super) fn t1(&self, unix_ns: i64) -> Timestamp {
        Timestamp::from_unix_ns(unix_ns, self.looks.format)
    }

    /// The packets from number `seq` on, in the octets of their place.
    #[inline]
    pub(super) fn packets<'a>(&self, due: Due, seq: u64, octets: &'a mut [u8]) -> Packets<'a> {
        Packets {
            octets,
            payload: self.payload(due.class),
            first: low_half(seq).wrapping_add(self.looks.first_seq),
        }
    }

    /// Does what can be done before T1 is known. For plain packets that is too little for a step of its own.
    #[inline]
    pub(super) fn prepare(&self, packets: &mut Packets<'_>) {
        let Some(protection) = &self.looks.protection else {
            return;
        };
        let mut packet = protected::SenderPacket::from(self.head(0, Timestamp::from_raw(0)));
        for (number, octets) in packets.numbered() {
            packet.head.seq = number.into();
            octets[..protected::SENDER_LEN].copy_from_slice(packet.as_bytes());
        }
        protection.prepare::<protected::SenderPacket>(packets.octets, packets.payload);
    }

    /// Puts T1 into prepared packets, and makes them ready to leave.
    #[inline]
    pub(super) fn stamp(&self, packets: &mut Packets<'_>, t1: Timestamp) {
        if let Some(protection) = &self.looks.protection {
            return protection.stamp::<protected::SenderPacket>(
                packets.octets,
                packets.payload,
                t1,
            );
        }
        for (number, octets) in packets.numbered() {
            if let Ok((packet, _)) = SenderPacket::mut_from_prefix(octets) {
                *packet = self.head(number, t1);
            }
        }
    }

    #[inline]
    fn head(&self, number: u32, t1: Timestamp) -> SenderPacket {
        SenderPacket {
            seq: number.into(),
            timestamp: t1,
            error_estimate: self.error_estimate,
        }
    }

    /// Shows the fields of each packet in clear, and its length: whoever watches can read them.
    #[cold]
    pub(super) fn show(
        &self,
        packets: &Packets<'_>,
        t1: Timestamp,
        mut each: impl FnMut(&[u8], usize),
    ) {
        let count = packets.octets.len() / packets.payload;
        for number in (0..).take(count) {
            let head = self.head(packets.first.wrapping_add(number), t1);
            each(head.as_bytes(), packets.payload);
        }
    }
}

/// A sequence number as a packet has it.
#[inline]
pub(super) fn low_half(seq: u64) -> u32 {
    u32::try_from(seq & u64::from(u32::MAX)).expect("masked to 32 bits")
}
