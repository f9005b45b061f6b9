//! The keys of one session at work: many packets in one call.
//!
//! A processor takes hardly longer for several blocks of AES that do not wait for each other than for
//! one, and so it is with SHA-1. Packets are therefore worked on in groups, step by step: all first blocks,
//! then all second ones. The HMAC is the larger part of what a packet costs; its two keyed states are
//! made once, and each packet begins with a copy of them.

use core::array::{from_fn, from_ref};
use core::fmt;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use sha1::block_api::compress;
use subtle::ConstantTimeEq;
use zerocopy::transmute;
use zeroize::{Zeroize, Zeroizing};

use super::packet::{BLOCK_LEN, HMAC_LEN, Mode, Packet, ReflectorPacket, Refused, Sealed};
use crate::wire::packet::TooShort;
use crate::wire::time::Timestamp;

/// The keys of the test packets of one session, in both directions; wiped when dropped.
#[derive(Clone)]
pub struct TestKeys {
    aes: Zeroizing<[u8; 16]>,
    hmac: Zeroizing<[u8; 32]>,
}

impl TestKeys {
    /// From the session's SID and the keys of its control connection (RFC 4656 §4.1.2): the SID is
    /// the key under which these are encrypted, the AES Session-key by ECB and the HMAC Session-key
    /// by CBC with an initialization vector of zero.
    #[must_use]
    pub fn derive(sid: &[u8; 16], control_aes: &[u8; 16], control_hmac: &[u8; 32]) -> Self {
        let cipher = Aes128::new(&(*sid).into());
        let mut keys = Self::new(control_aes, control_hmac);
        let mut chain = Zeroizing::new([0; BLOCK_LEN]);
        // Of a single block ECB is the same as CBC with that vector.
        encrypt_chain(&cipher, &mut chain, keys.aes.as_chunks_mut().0);
        chain.zeroize();
        encrypt_chain(&cipher, &mut chain, keys.hmac.as_chunks_mut().0);
        keys
    }

    /// Keys that are known by themselves.
    #[must_use]
    pub fn new(aes: &[u8; 16], hmac: &[u8; 32]) -> Self {
        Self {
            aes: Zeroizing::new(*aes),
            hmac: Zeroizing::new(*hmac),
        }
    }

    /// The AES key and the HMAC key.
    #[cfg(test)]
    pub(super) fn octets(&self) -> (&[u8; 16], &[u8; 32]) {
        (&self.aes, &self.hmac)
    }
}

/// Without the keys.
impl fmt::Debug for TestKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestKeys").finish_non_exhaustive()
    }
}

/// Protects and reads the test packets of one session: its keys, expanded once; wiped when dropped.
///
/// All calls take packets as octets and the `step` from the beginning of one to that of the next:
/// those of a train or bundle in its slot, or the `as_mut_bytes` of a slice of heads and their size.
/// The last one may be shorter; what is no whole `P` is left alone. Nothing is allocated.
///
/// Packets that leave: fill them in, [`prepare`](Self::prepare), read the clock,
/// [`stamp`](Self::stamp). Packets that came: [`open`](Self::open).
#[derive(Clone)]
pub struct Protection {
    mode: Mode,
    aes: Aes128,
    hmac: Hmac,
}

impl Protection {
    /// For one session, in one of the two modes.
    #[must_use]
    pub fn new(mode: Mode, keys: &TestKeys) -> Self {
        Self {
            mode,
            aes: Aes128::new((&*keys.aes).into()),
            hmac: Hmac::new(&keys.hmac),
        }
    }

    /// As given to [`new`](Self::new).
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Does what can be done before the time of departure is known, to packets in clear.
    ///
    /// In authenticated mode that is all but the timestamp, for which RFC 4656 §4.1.2 leaves it out
    /// of what is covered; in encrypted mode nothing.
    pub fn prepare<P: Packet>(&self, octets: &mut [u8], step: usize) {
        match self.mode {
            Mode::Authenticated => self.seal::<P>(octets, step),
            Mode::Encrypted => {}
        }
    }

    /// Writes the time of departure, T1 or T3, into prepared packets and makes them ready to leave.
    ///
    /// In encrypted mode the time is covered, and all of the work is here: few packets at a time
    /// keep it close to the departure.
    pub fn stamp<P: Packet>(&self, octets: &mut [u8], step: usize, time: Timestamp) {
        for packet in packets::<P>(octets, step) {
            packet.head_mut().timestamp = time;
        }
        match self.mode {
            Mode::Authenticated => {}
            Mode::Encrypted => self.seal::<P>(octets, step),
        }
    }

    /// As [`stamp`](Self::stamp), of packets that are stamped already but did not leave then.
    pub fn stamp_again<P: Packet>(&self, octets: &mut [u8], step: usize, time: Timestamp) {
        match self.mode {
            Mode::Authenticated => {}
            Mode::Encrypted => self.open::<P>(octets, step, |_, _| {}),
        }
        self.stamp::<P>(octets, step, time);
    }

    /// Decrypts packets where they are and tells of each in turn, by its place in `octets`, what it
    /// says or why it is refused. Refused ones are left as noise.
    pub fn open<P: Packet>(
        &self,
        octets: &mut [u8],
        step: usize,
        mut each: impl FnMut(usize, Result<&P, Refused>),
    ) {
        let step = step.max(1);
        let mut first = 0;
        for octets in octets.chunks_mut(step.saturating_mul(GROUP)) {
            let count = octets.len().div_ceil(step);
            let each = |place, result: Result<&P, Refused>| each(first + place, result);
            match count {
                1 => self.open_group::<P, 1>(octets, step, each),
                2..=FEW => self.open_group::<P, FEW>(octets, step, each),
                _ => self.open_group::<P, GROUP>(octets, step, each),
            }
            first += count;
        }
    }

    fn seal<P: Packet>(&self, octets: &mut [u8], step: usize) {
        let step = step.max(1);
        for octets in octets.chunks_mut(step.saturating_mul(GROUP)) {
            match octets.len().div_ceil(step) {
                1 => self.seal_group::<P, 1>(octets, step),
                2..=FEW => self.seal_group::<P, FEW>(octets, step),
                _ => self.seal_group::<P, GROUP>(octets, step),
            }
        }
    }

    /// Writes the HMACs of at most `G` packets, and encrypts them: CBC with an initialization vector
    /// of zero, each packet a chain of its own.
    fn seal_group<P: Packet, const G: usize>(&self, octets: &mut [u8], step: usize) {
        let mut group = group::<P, G>(octets, step);
        let hmacs = self.hmacs(&group);
        let mut count = 0;
        for (packet, hmac) in group.iter_mut().flatten().zip(hmacs) {
            *packet.hmac_mut() = hmac;
            count += 1;
        }
        let mut chains = [Block::default(); G];
        let (chains, _) = chains.split_at_mut(count);
        for place in 0..self.blocks::<P>() {
            for (chain, packet) in chains.iter_mut().zip(group.iter().flatten()) {
                if let Some(block) = self.covered(*packet).get(place) {
                    *chain = xor(chain.0, *block).into();
                }
            }
            self.aes.encrypt_blocks(chains);
            for (chain, packet) in chains.iter().zip(group.iter_mut().flatten()) {
                if let Some(block) = self.covered_mut(*packet).get_mut(place) {
                    *block = chain.0;
                }
            }
        }
    }

    /// Decrypts at most `G` packets, no block of which has to wait for another one, and judges them.
    fn open_group<P: Packet, const G: usize>(
        &self,
        octets: &mut [u8],
        step: usize,
        mut each: impl FnMut(usize, Result<&P, Refused>),
    ) {
        let mut group = group::<P, G>(octets, step);
        let blocks = self.blocks::<P>();
        let mut lanes = [[Block::default(); MOST_BLOCKS]; G];
        let lanes = lanes.as_flattened_mut();
        let mut used = 0;
        for packet in group.iter().flatten() {
            let free = lanes.iter_mut().skip(used);
            for (lane, block) in free.zip(self.covered(*packet)) {
                *lane = (*block).into();
            }
            used += blocks;
        }
        let (lanes, _) = lanes.split_at_mut(used);
        self.aes.decrypt_blocks(lanes);
        for (lanes, packet) in lanes.chunks(blocks).zip(group.iter_mut().flatten()) {
            let mut before = [0; BLOCK_LEN];
            for (lane, block) in lanes.iter().zip(self.covered_mut(*packet)) {
                before = core::mem::replace(block, xor(lane.0, before));
            }
        }
        let hmacs = self.hmacs(&group);
        let mut place = 0;
        for (packet, hmac) in group.iter().flatten().zip(hmacs) {
            each(place, judge(*packet, hmac));
            place += 1;
        }
        // The last one may be none, and with too short a step all of them.
        for rest in octets.chunks(step).skip(place) {
            let (need, got) = (size_of::<P>(), rest.len());
            each(place, Err(TooShort { need, got }.into()));
            place += 1;
        }
    }

    /// The HMACs that the packets of a group in clear should have.
    fn hmacs<P: Packet, const G: usize>(&self, group: &[Option<&mut P>; G]) -> [[u8; HMAC_LEN]; G] {
        let texts = group.each_ref().map(|packet| {
            let packet = packet.as_deref()?;
            Some(self.covered(packet))
        });
        self.hmac.of_each(&texts)
    }

    /// How many blocks at the beginning of a packet are encrypted and covered by the HMAC.
    #[inline]
    const fn blocks<P: Packet>(&self) -> usize {
        match self.mode {
            Mode::Authenticated => 1,
            Mode::Encrypted => P::BLOCKS,
        }
    }

    /// These blocks.
    #[inline]
    fn covered<'a, P: Packet>(&self, packet: &'a P) -> &'a [[u8; BLOCK_LEN]] {
        let (blocks, _) = packet.as_bytes().as_chunks();
        blocks.get(..self.blocks::<P>()).unwrap_or_default()
    }

    #[inline]
    fn covered_mut<'a, P: Packet>(&self, packet: &'a mut P) -> &'a mut [[u8; BLOCK_LEN]] {
        let (blocks, _) = packet.as_mut_bytes().as_chunks_mut();
        blocks.get_mut(..self.blocks::<P>()).unwrap_or_default()
    }
}

/// What a decrypted packet says; `hmac` is the one that it should have.
#[inline]
fn judge<P: Packet>(packet: &P, hmac: [u8; HMAC_LEN]) -> Result<&P, Refused> {
    if !same(hmac, *packet.hmac()) {
        return Err(Refused::Forged);
    }
    Ok(packet)
}

/// The first packets of a train, at most `G`, one behind the other.
#[inline]
fn group<P: Packet, const G: usize>(octets: &mut [u8], step: usize) -> [Option<&mut P>; G] {
    let mut packets = packets(octets, step);
    from_fn(|_| packets.next())
}

/// Without the keys.
impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// All whole packets of a train.
#[inline]
fn packets<'a, P: Packet + 'a>(
    octets: &'a mut [u8],
    step: usize,
) -> impl Iterator<Item = &'a mut P> {
    octets.chunks_mut(step.max(1)).filter_map(|octets| {
        let (packet, _padding) = P::mut_from_prefix(octets).ok()?;
        Some(packet)
    })
}

/// HMAC-SHA1 (RFC 2104 §2) cut to 16 octets as every HMAC of TWAMP is (RFC 4656 §3.2), for a few
/// whole blocks of AES.
///
/// The compression function is the library's; the frame around it is ours because it knows the
/// lengths beforehand and works on several packets at once, which halves what a packet costs.
#[derive(Clone)]
struct Hmac {
    /// The states after the key's own blocks.
    inner: [u32; 5],
    outer: [u32; 5],
}

impl Hmac {
    fn new(key: &[u8; 32]) -> Self {
        let keyed = |pad: u8| {
            let mut block = Zeroizing::new([pad; SHA1_BLOCK_LEN]);
            for (octet, key) in block.iter_mut().zip(key) {
                *octet ^= key;
            }
            let mut state = SHA1_START;
            compress(&mut state, &[*block]);
            state
        };
        Self {
            inner: keyed(0x36),
            outer: keyed(0x5c),
        }
    }

    /// Of texts, of which only the last ones may be missing. None waits for another one, and no hash
    /// for memory that the step before has just written.
    fn of_each<const G: usize>(
        &self,
        texts: &[Option<&[[u8; BLOCK_LEN]]>; G],
    ) -> [[u8; HMAC_LEN]; G] {
        // No copy of a keyed state outlives the call: each is hashed on where it is.
        let mut states = [[0; 5]; G];
        let mut ends = [[0; SHA1_BLOCK_LEN]; G];
        let mut count = 0;
        let texts = texts.iter().flatten();
        for ((state, end), text) in states.iter_mut().zip(&mut ends).zip(texts) {
            *state = self.inner;
            let (whole, rest) = text.as_chunks::<{ SHA1_BLOCK_LEN / BLOCK_LEN }>();
            for block in whole {
                compress(state, &[transmute!(*block)]);
            }
            *end = inner_end(text.as_flattened().len(), rest);
            count += 1;
        }
        for (state, end) in states.iter_mut().zip(&ends).take(count) {
            compress(state, from_ref(end));
        }
        let inner = states.map(outer_message);
        for (state, inner) in states.iter_mut().zip(&inner).take(count) {
            *state = self.outer;
            compress(state, from_ref(inner));
        }
        states.map(|state| {
            let [a, b, c, d, _cut] = state.map(u32::to_be_bytes);
            transmute!([a, b, c, d])
        })
    }
}

/// The last block of the inner SHA-1 of an HMAC: the end of a text of `len` octets, at most 48 of
/// them, and what follows it (RFC 3174 §4).
#[inline]
fn inner_end(len: usize, rest: &[[u8; BLOCK_LEN]]) -> [u8; SHA1_BLOCK_LEN] {
    let mut block = [[0; BLOCK_LEN]; SHA1_BLOCK_LEN / BLOCK_LEN];
    for (to, from) in block.iter_mut().zip(rest.iter().chain([&END_OF_TEXT])) {
        *to = *from;
    }
    let [_, _, _, last] = &mut block;
    let bits = u128::try_from((SHA1_BLOCK_LEN + len) * 8).unwrap_or(0);
    // Behind three blocks of text, their end is in there too.
    *last = xor(*last, bits.to_be_bytes());
    transmute!(block)
}

/// What follows the key's block in the outer SHA-1 of an HMAC: the inner one.
#[inline]
fn outer_message(inner: [u32; 5]) -> [u8; SHA1_BLOCK_LEN] {
    let [a, b, c, d, e] = inner;
    let bits = OUTER_BITS;
    let words = [a, b, c, d, e, 1 << 31, 0, 0, 0, 0, 0, 0, 0, 0, 0, bits];
    transmute!(words.map(u32::to_be_bytes))
}

#[cfg(test)]
pub(super) fn hmac(key: &[u8; 32], text: &[[u8; BLOCK_LEN]]) -> [u8; HMAC_LEN] {
    let [hmac] = Hmac::new(key).of_each(&[Some(text)]);
    hmac
}

impl Drop for Hmac {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

/// One chain of CBC.
fn encrypt_chain(cipher: &Aes128, chain: &mut [u8; BLOCK_LEN], blocks: &mut [[u8; BLOCK_LEN]]) {
    for block in blocks {
        let mut next = xor(*chain, *block).into();
        cipher.encrypt_block(&mut next);
        *block = next.0;
        *chain = next.0;
    }
}

/// In a time that does not depend on what differs. By words: octet by octet adds a fifth to the cost
/// of a packet.
#[inline]
fn same(a: [u8; HMAC_LEN], b: [u8; HMAC_LEN]) -> bool {
    let [a, more_of_a]: [u64; 2] = transmute!(a);
    let [b, more_of_b]: [u64; 2] = transmute!(b);
    (a.ct_eq(&b) & more_of_a.ct_eq(&more_of_b)).into()
}

#[inline]
fn xor(a: [u8; BLOCK_LEN], b: [u8; BLOCK_LEN]) -> [u8; BLOCK_LEN] {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

/// Packets that are worked on together at most.
const GROUP: usize = 16;
/// A smaller group, with less room to lay out: as many replies as a reflector sends in one call.
const FEW: usize = 4;
/// Covered blocks of a packet at most.
const MOST_BLOCKS: usize = 6;
const _: () = assert!(ReflectorPacket::BLOCKS == MOST_BLOCKS);
/// Octets of a block of SHA-1.
const SHA1_BLOCK_LEN: usize = 64;
/// The length in bits of what the outer SHA-1 of an HMAC covers: the key's block and a SHA-1.
const OUTER_BITS: u32 = (64 + 20) * 8;
/// Before the first block (RFC 3174 §6.1).
const SHA1_START: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];
/// What follows the text of a SHA-1: a one, then zeros (RFC 3174 §4).
const END_OF_TEXT: [u8; BLOCK_LEN] = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
