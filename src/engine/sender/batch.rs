//! What leaves in one call: packets and trains, and the memory that they are written in.

use super::agenda::Due;
use super::writer::PacketWriter;
use crate::io::SendHalf;

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) due: Vec<Due>,
    /// Octets and number of the packets that were written into each place last.
    written: Vec<(usize, usize)>,
    /// What stands in every place to begin with.
    padding: Vec<u8>,
}

impl Batch {
    pub(super) fn new(places: usize, padding: Vec<u8>) -> Self {
        Self {
            due: Vec::with_capacity(places),
            written: vec![(0, 0); places],
            padding,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.due.len() == self.written.len()
    }

    /// Restores the padding in all places, for packets of so many octets and trains of so many packets.
    pub(super) fn wipe<S: SendHalf>(&self, half: &mut S, payload: usize, packets: u32) {
        let packets = usize::try_from(packets).unwrap_or(1);
        for place in 0..self.written.len() {
            let octets = half.set(place, payload, packets, None);
            octets.copy_from_slice(&self.padding[..octets.len()]);
        }
    }

    /// Lends out a place, in which stands all that is not written anew for each packet. `stamp`: the number that a
    /// transmit stamp is to name.
    #[inline]
    pub(super) fn lend<'h, S: SendHalf>(
        &mut self,
        half: &'h mut S,
        writer: &PacketWriter,
        place: usize,
        due: Due,
        stamp: Option<u32>,
    ) -> &'h mut [u8] {
        let payload = writer.payload(due.class);
        let packets = usize::try_from(due.count).unwrap_or(1);
        let (octets, count) = self.written[place];
        if octets != payload || packets > count {
            self.clean(half, writer, place, (payload, packets));
        }
        half.set(place, payload, packets, stamp)
    }

    /// Restores the padding where packets of another size begin in a place, and writes what is fixed
    /// where packets begin that did not before. Timestamps in the padding could read as what a
    /// reflector's guard against loops looks for.
    fn clean<S: SendHalf>(
        &mut self,
        half: &mut S,
        writer: &PacketWriter,
        place: usize,
        (payload, packets): (usize, usize),
    ) {
        let (fixed, fields) = writer.fixed();
        let (octets, count) = std::mem::replace(&mut self.written[place], (payload, packets));
        if octets != payload && octets > 0 {
            let slot = half.set(place, octets, count, None);
            let fixed = fixed.len().min(octets);
            for at in (0..slot.len()).step_by(octets) {
                let head = at..at + fixed;
                slot[head.clone()].copy_from_slice(&self.padding[head]);
            }
        }
        if fixed.len() > fields {
            let blank = fields..fixed.len().min(payload);
            let slot = half.set(place, payload, packets, None);
            for packet in slot.chunks_exact_mut(payload) {
                packet[blank.clone()].copy_from_slice(&fixed[blank.clone()]);
            }
        }
    }
}
