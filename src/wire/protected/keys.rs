//! The keys of one session at work: many packets in one call.
//!
//! AES takes as long for one block as for several that do not depend on each other, so blocks of
//! different packets go through it together. The HMAC is the larger part of what a packet costs; its
//! two keyed states are made once, and each packet begins with a copy of them.

use core::fmt;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use sha1::block_api::compress;
use subtle::ConstantTimeEq;
use zerocopy::transmute;
use zeroize::{Zeroize, Zeroizing};

use super::{BLOCK_LEN, HMAC_LEN, Mode, Packet, Refused};
use crate::wire::{Malformed, Timestamp};

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
            Mode::Encrypted => self.decrypt::<P>(octets, step),
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
        self.decrypt::<P>(octets, step);
        for (place, octets) in octets.chunks(step.max(1)).enumerate() {
            each(place, self.judge(octets));
        }
    }

    /// What a decrypted packet says.
    #[inline]
    fn judge<'a, P: Packet>(&self, octets: &'a [u8]) -> Result<&'a P, Refused> {
        let Ok((packet, _padding)) = P::ref_from_prefix(octets) else {
            return Err(Refused::Malformed(Malformed::TooShort {
                need: size_of::<P>(),
                got: octets.len(),
            }));
        };
        let hmac = self.hmac.of(self.covered(packet));
        if !bool::from(hmac.ct_eq(packet.hmac())) {
            return Err(Refused::Forged);
        }
        if !packet.head().error_estimate.is_valid() {
            return Err(Refused::Malformed(Malformed::ZeroMultiplier));
        }
        Ok(packet)
    }

    /// Writes the HMACs and encrypts.
    fn seal<P: Packet>(&self, octets: &mut [u8], step: usize) {
        for packet in packets::<P>(octets, step) {
            *packet.hmac_mut() = self.hmac.of(self.covered(packet));
        }
        self.encrypt::<P>(octets, step);
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
        blocks.get(..self.blocks::<P>()).unwrap_or(blocks)
    }

    #[inline]
    fn covered_mut<'a, P: Packet>(&self, packet: &'a mut P) -> &'a mut [[u8; BLOCK_LEN]] {
        let (blocks, _) = packet.as_mut_bytes().as_chunks_mut();
        blocks.get_mut(..self.blocks::<P>()).unwrap_or_default()
    }

    /// CBC with an initialization vector of zero, each packet a chain of its own: the first blocks of
    /// all packets together, then the second ones.
    fn encrypt<P: Packet>(&self, octets: &mut [u8], step: usize) {
        for octets in octets.chunks_mut(step.max(1).saturating_mul(LANES)) {
            // One chain per packet.
            let mut lanes = [Block::default(); LANES];
            for place in 0..self.blocks::<P>() {
                let mut used = 0;
                for (lane, packet) in lanes.iter_mut().zip(packets::<P>(octets, step)) {
                    if let Some(block) = self.covered_mut(packet).get(place) {
                        *lane = xor(lane.0, *block).into();
                    }
                    used += 1;
                }
                let (lanes, _) = lanes.split_at_mut(used);
                self.aes.encrypt_blocks(lanes);
                for (lane, packet) in lanes.iter().zip(packets::<P>(octets, step)) {
                    if let Some(block) = self.covered_mut(packet).get_mut(place) {
                        *block = lane.0;
                    }
                }
            }
        }
    }

    /// The way back: no block waits for another one, so all of several packets go together.
    fn decrypt<P: Packet>(&self, octets: &mut [u8], step: usize) {
        let blocks = self.blocks::<P>();
        for octets in octets.chunks_mut(step.max(1).saturating_mul(LANES / blocks)) {
            let mut lanes = [Block::default(); LANES];
            let mut used = 0;
            for (lanes, packet) in lanes.chunks_mut(blocks).zip(packets::<P>(octets, step)) {
                for (lane, block) in lanes.iter_mut().zip(self.covered_mut(packet)) {
                    *lane = (*block).into();
                    used += 1;
                }
            }
            let (lanes, _) = lanes.split_at_mut(used);
            self.aes.decrypt_blocks(lanes);
            for (lanes, packet) in lanes.chunks(blocks).zip(packets::<P>(octets, step)) {
                let mut before = [0; BLOCK_LEN];
                for (lane, block) in lanes.iter().zip(self.covered_mut(packet)) {
                    let encrypted = core::mem::replace(block, xor(lane.0, before));
                    before = encrypted;
                }
            }
        }
    }
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
/// lengths beforehand, which takes a quarter off the cost of a packet.
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

    /// Of at most [`MOST_BLOCKS`] blocks.
    #[inline]
    fn of(&self, text: &[[u8; BLOCK_LEN]]) -> [u8; HMAC_LEN] {
        // Two blocks of SHA-1, of which the second one may stay unused.
        let mut message = [[0; BLOCK_LEN]; 2 * SHA1_BLOCK_LEN / BLOCK_LEN];
        let ended = text.iter().chain([&END_OF_TEXT]);
        for (to, from) in message.iter_mut().zip(ended) {
            *to = *from;
        }
        let octets = SHA1_BLOCK_LEN + text.as_flattened().len();
        let (first, second) = message.split_at_mut(SHA1_BLOCK_LEN / BLOCK_LEN);
        let long = text.len() >= first.len();
        let end = if long { second } else { first };
        if let Some(last) = end.last_mut() {
            // The mark of the end may stand in the same block.
            *last = xor(*last, length(octets));
        }
        let message: [[u8; SHA1_BLOCK_LEN]; 2] = transmute!(message);
        let (used, _) = message.split_at(if long { 2 } else { 1 });
        let mut inner = self.inner;
        compress(&mut inner, used);

        let [a, b, c, d, e] = inner;
        let bits = OUTER_BITS;
        let message =
            [a, b, c, d, e, 1 << 31, 0, 0, 0, 0, 0, 0, 0, 0, 0, bits].map(u32::to_be_bytes);
        let mut outer = self.outer;
        compress(&mut outer, &[transmute!(message)]);
        let [a, b, c, d, _cut] = outer.map(u32::to_be_bytes);
        transmute!([a, b, c, d])
    }
}

#[cfg(test)]
pub(super) fn hmac(key: &[u8; 32], text: &[[u8; BLOCK_LEN]]) -> [u8; HMAC_LEN] {
    Hmac::new(key).of(text)
}

impl Drop for Hmac {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

/// The last octets of a message of SHA-1: its length in bits (RFC 3174 §4).
#[inline]
fn length(octets: usize) -> [u8; BLOCK_LEN] {
    let bits = u128::try_from(octets * 8).unwrap_or(0);
    bits.to_be_bytes()
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

#[inline]
fn xor(a: [u8; BLOCK_LEN], b: [u8; BLOCK_LEN]) -> [u8; BLOCK_LEN] {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

/// Blocks that go through AES in one call at most: 8 replies in encrypted mode.
const LANES: usize = 48;
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
