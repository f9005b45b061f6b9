//! Transmit timestamps of the packets of the window.

use crate::engine::flight::ReceiverEnd;

/// Of zeros, so that a table of them costs nothing before it is used.
const NO_STAMP: (u64, i64) = (0, 0);

/// The transmit timestamps that came.
#[derive(Debug)]
pub(super) struct TransmitStamps<'a> {
    flight: ReceiverEnd<'a>,
    /// For each granule of the window one more than its number, and the time of its stamp; each stands in
    /// the place of the number of its first packet, without so many of its lowest bits. Empty where no packet
    /// asks for one.
    places: Vec<(u64, i64)>,
    shift: u32,
}

impl<'a> TransmitStamps<'a> {
    pub(super) fn new(flight: ReceiverEnd<'a>, asked: bool) -> Self {
        let places = if asked { flight.granules() } else { 0 };
        let places = usize::try_from(places).expect("a window fits the address space");
        Self {
            flight,
            places: vec![NO_STAMP; places],
            shift: flight.granule_len(0).trailing_zeros(),
        }
    }

    /// Whether packets ask for stamps.
    #[inline]
    pub(super) fn are_asked_for(&self) -> bool {
        !self.places.is_empty()
    }

    /// Notes the stamp of packet `first` and those that left in one train with it.
    pub(super) fn note(&mut self, mut first: u64, ns: i64) {
        let flight = self.flight;
        let attempted = flight.attempted();
        let granules = usize::try_from(flight.granules()).unwrap_or(0);
        if self.places.len() < granules {
            self.make_room(granules);
        }
        // A train may have several granules; the stamp is of all of them, and of no other train.
        loop {
            let len = flight.granule_len(first);
            let place = self.place(first, len);
            self.places[place] = (flight.granule(first) + 1, ns);
            first += len;
            if first >= attempted || !flight.continues(first) {
                return;
            }
        }
    }

    /// The stamp of a packet, as far as it is known.
    #[inline]
    pub(super) fn of(&self, seq: u64) -> Option<i64> {
        let (granule, len) = (self.flight.granule(seq), self.flight.granule_len(seq));
        let (of, ns) = *self.places.get(self.place(seq, len))?;
        (of == granule + 1).then_some(ns)
    }

    /// The place of a packet whose granule has `len` packets.
    #[inline]
    fn place(&self, seq: u64, len: u64) -> usize {
        place((seq / len * len) >> self.shift, self.places.len())
    }

    /// Trains were refused: from now on packets have stamps of their own. It allocates, once a session,
    /// when the sender does so for what it notes.
    #[cold]
    fn make_room(&mut self, places: usize) {
        let before = std::mem::replace(&mut self.places, vec![NO_STAMP; places]);
        for (number, ns) in before.into_iter().filter(|stamp| *stamp != NO_STAMP) {
            // By its first packet: what comes next may have the same number as a granule of before.
            self.places[place((number - 1) << self.shift, places)] = (number, ns);
        }
        self.shift = 0;
    }
}

/// Of a power of two places.
#[inline]
fn place(seq: u64, places: usize) -> usize {
    let mask = u64::try_from(places).unwrap_or(0).saturating_sub(1);
    debug_assert_eq!(mask.wrapping_add(1) & mask, 0);
    usize::try_from(seq & mask).unwrap_or(0)
}
