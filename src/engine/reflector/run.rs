//! Requests that are one but for their numbers: their replies are written without a look at each.

use zerocopy::IntoBytes;

use crate::engine::admission::LoopGuard;
use crate::wire::{
    REFLECTOR_LEN, ReflectorPacket, SENDER_LEN, SenderPacket, TestFormat, echoed_sender_timestamp,
    parse_request,
};

/// Requests of one size with the same T1 and Error Estimate, and numbers that go on from one to the
/// next without beginning anew. Their replies are as long as they are.
pub(super) struct Run {
    pub(super) first: SenderPacket,
    pub(super) count: u32,
    /// Octets of each.
    pub(super) step: usize,
    /// So much longer than what stands in front of a request's padding the fields of a reply are. A reply
    /// that begins so many octets before its request has the padding where it stands already, and takes
    /// the place of the last octets of the request before, which are those that its reply leaves out.
    pub(super) ahead: usize,
}

impl Run {
    /// Writes the fields of the replies, all but T3: `reply` is the first one.
    pub(super) fn write(&self, mut reply: ReflectorPacket, octets: &mut [u8]) {
        let (mut number, mut seq) = (reply.head.seq.get(), reply.head.sender_seq.get());
        for octets in octets.chunks_exact_mut(self.step) {
            (reply.head.seq, reply.head.sender_seq) = (number.into(), seq.into());
            octets[..REFLECTOR_LEN].copy_from_slice(reply.as_bytes());
            (number, seq) = (number.wrapping_add(1), seq.wrapping_add(1));
        }
    }
}

/// The run that a datagram or bundle of `segment` octets each is, where all of it may be answered.
pub(super) fn run_in(
    bundle: &[u8],
    segment: usize,
    format: TestFormat,
    guard: &LoopGuard,
) -> Option<Run> {
    let plain = format.protection().is_none() && !format.monitored();
    if !plain || format.reply_len(segment) != segment {
        return None;
    }
    let count = run_of_requests(bundle, segment)?;
    let ours = |octets| echoed_sender_timestamp(octets).is_some_and(|t| guard.knows(t));
    if bundle.chunks_exact(segment).any(ours) {
        return None;
    }
    Some(Run {
        first: *parse_request(bundle).ok()?,
        count,
        step: segment,
        ahead: format.reflector_len() - format.padding_at(),
    })
}

/// How many requests a bundle has, where they are one but for their numbers.
fn run_of_requests(bundle: &[u8], segment: usize) -> Option<u32> {
    let fields = |octets: &[u8]| -> Option<(u32, [u8; SENDER_LEN - 4])> {
        let (seq, rest) = octets.get(..SENDER_LEN)?.split_first_chunk()?;
        Some((u32::from_be_bytes(*seq), *rest.first_chunk()?))
    };
    let (first, rest) = fields(bundle)?;
    let mut count = 0;
    for octets in bundle.chunks(segment) {
        if octets.len() != segment || fields(octets)? != (first.checked_add(count)?, rest) {
            return None;
        }
        count += 1;
    }
    Some(count)
}
