//! How the test packets of one session look: what its Modes and its Request-TW-Session agreed on.

use super::modes::{ModeRefused, Modes, SecurityMode};
use super::packet::{REFLECTOR_LEN, SENDER_LEN, fill_padding};
use super::protected::{self, Mode, SYMMETRICAL_MBZ_LEN};

/// The layout of a session's test packets, in both directions.
///
/// What is agreed on settles where things stand; how long a packet is, it tells itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestFormat {
    protection: Option<Mode>,
    symmetrical: bool,
    monitored: bool,
    reflected: usize,
    server_octets: [u8; 2],
}

impl TestFormat {
    /// Unauthenticated and without any feature: TWAMP Light (RFC 5357 appendix I).
    pub const LIGHT: Self = Self {
        protection: None,
        symmetrical: false,
        monitored: false,
        reflected: 0,
        server_octets: [0; 2],
    };

    /// Of a session in a connection that works in `modes`, of whose padding `reflected` octets are to
    /// come back, the first two of them being `server_octets` unless these are zero (RFC 6038 §4).
    ///
    /// # Errors
    /// Where `modes` is no choice of a mode.
    pub fn new(modes: Modes, reflected: u16, server_octets: [u8; 2]) -> Result<Self, ModeRefused> {
        let protection = match modes.security()? {
            SecurityMode::Unauthenticated | SecurityMode::Mixed => None,
            SecurityMode::Authenticated => Some(Mode::Authenticated),
            SecurityMode::Encrypted => Some(Mode::Encrypted),
        };
        let reflects = modes.contains(Modes::REFLECT_OCTETS);
        Ok(Self {
            protection,
            symmetrical: modes.contains(Modes::SYMMETRICAL_SIZE),
            monitored: modes.contains(Modes::DSCP_ECN_MONITORING),
            reflected: if reflects { usize::from(reflected) } else { 0 },
            server_octets: if reflects { server_octets } else { [0; 2] },
        })
    }

    /// How test packets are protected; `None`: not at all.
    #[inline]
    #[must_use]
    pub const fn protection(&self) -> Option<Mode> {
        self.protection
    }

    /// Whether replies carry DSCP and ECN of their request (RFC 7750).
    #[inline]
    #[must_use]
    pub const fn monitored(&self) -> bool {
        self.monitored
    }

    /// Octets of a request that differ from one to the next: its fields.
    #[inline]
    #[must_use]
    pub const fn sender_len(&self) -> usize {
        match self.protection {
            None => SENDER_LEN,
            Some(_) => protected::SENDER_LEN,
        }
    }

    /// Octets of a request in front of its Packet Padding: the fields, and with Symmetrical Size the
    /// octets that must be zero (RFC 6038 §5.1.3, §5.1.4; one more with RFC 7750).
    #[inline]
    #[must_use]
    pub const fn padding_at(&self) -> usize {
        match (self.symmetrical, self.protection) {
            (false, _) => self.sender_len(),
            (true, None) => self.reflector_len(),
            (true, Some(_)) => protected::SENDER_LEN + SYMMETRICAL_MBZ_LEN,
        }
    }

    /// Octets of a reply in front of its Packet Padding.
    #[inline]
    #[must_use]
    pub const fn reflector_len(&self) -> usize {
        match (self.protection, self.monitored) {
            (None, false) => REFLECTOR_LEN,
            (None, true) => REFLECTOR_LEN + 1,
            (Some(_), _) => protected::REFLECTOR_LEN,
        }
    }

    /// Octets of padding that a request has at least, so that what is to come back fits.
    #[must_use]
    pub const fn least_padding(&self) -> usize {
        match (self.symmetrical, self.protection) {
            // 48 + 56 octets of a request are 8 short of a reply's 112 (erratum 5045).
            (true, Some(_)) => self.reflected + self.reflector_len() - self.padding_at(),
            _ if self.reflected == 0 => 0,
            // RFC 6038 §4.2: longer than what is reflected of it.
            (true, None) => self.reflected + 1,
            // RFC 6038 §4.2 has protected replies without these 8 octets.
            (false, Some(_)) => self.reflected + SYMMETRICAL_MBZ_LEN,
            (false, None) => self.reflected + self.reflector_len() - self.padding_at(),
        }
    }

    /// Octets of padding with which request and reply have one size, and which hold what is to come
    /// back.
    #[must_use]
    pub const fn even_padding(&self) -> usize {
        let reflected = if self.reflected > 0 && self.symmetrical {
            // More than what is reflected of it (RFC 6038 §4.2).
            self.reflected + 1
        } else {
            self.reflected
        };
        self.reflector_len() - self.padding_at() + reflected
    }

    /// Octets of the reply to a request of `request_len` octets: as many, but no fewer than it takes
    /// for the fields (RFC 5357 §4.2.1) and for what is to come back of the padding (RFC 6038 §5.2.1).
    #[inline]
    #[must_use]
    pub fn reply_len(&self, request_len: usize) -> usize {
        let padding = request_len.saturating_sub(self.padding_at());
        request_len.max(self.reflector_len() + padding.min(self.reflected))
    }

    /// Fills in what no packet of the Session-Sender changes: zeros, then padding, pseudo-random or
    /// zero (RFC 4656 §4.1.2), with the Server octets in front where the Server wants them back
    /// (RFC 6038 §5.1.2).
    ///
    /// For the start of a run, not per packet. A request that ends early is filled as far as it goes.
    pub fn fill(&self, request: &mut [u8], seed: Option<u64>) {
        let (zeros, padding) = request.split_at_mut(self.padding_at().min(request.len()));
        zeros.fill(0);
        match seed {
            Some(seed) => fill_padding(padding, seed),
            None => padding.fill(0),
        }
        if self.server_octets != [0; 2] {
            for (octet, server) in padding.iter_mut().zip(self.server_octets) {
                *octet = server;
            }
        }
    }

    /// Octets of a request from its start on that must stand in every packet whatever its size, the
    /// fields among them.
    #[inline]
    #[must_use]
    pub const fn fixed_len(&self) -> usize {
        match self.server_octets {
            [0, 0] => self.padding_at(),
            _ => self.padding_at() + 2,
        }
    }

    /// Writes a reply at `to` over the request of `len` octets at `from`; returns its octets.
    ///
    /// `fields` are its first octets, [`reflector_len`](Self::reflector_len) of them. Behind them come
    /// the first octets of the request's padding, among them those to be reflected; nothing else that
    /// stood in `slot` does. `None`, and nothing is written, where either is not in `slot`. In a train,
    /// whoever calls takes care of the order: replies that are longer than requests are written from
    /// the last one on.
    #[inline]
    pub fn write_reply(
        &self,
        slot: &mut [u8],
        from: usize,
        len: usize,
        to: usize,
        fields: &[u8],
    ) -> Option<usize> {
        let reply_len = self.reply_len(len);
        let header = fields.len();
        let request_end = from.checked_add(len)?;
        let reply_end = to.checked_add(reply_len)?;
        if request_end > slot.len() || reply_end > slot.len() || header > reply_len {
            return None;
        }
        let padding = (from + self.padding_at()).min(request_end);
        let kept = (reply_len - header).min(request_end - padding);
        let head_end = to + header;
        slot.copy_within(padding..padding + kept, head_end);
        if head_end + kept < reply_end {
            // Only a reply that is longer than its request has anything behind that.
            slot.get_mut(head_end + kept..reply_end)?.fill(0);
        }
        slot.get_mut(to..head_end)?.copy_from_slice(fields);
        if self.monitored && self.protection.is_none() && self.reflected == 0 {
            // RFC 7750 §2.2.1 draws two octets more that must be zero; peers begin the padding there.
            let end = reply_end.min(head_end + 2);
            slot.get_mut(head_end..end)?.fill(0);
        }
        Some(reply_len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(modes: Modes, reflected: u16) -> TestFormat {
        TestFormat::new(modes, reflected, [0xab, 0xcd]).unwrap()
    }

    #[test]
    fn reply_lengths_match_the_vectors() {
        let rows: Vec<serde_json::Value> = serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/vectors/test_packets.json"
        )))
        .unwrap();
        let reply_len = |request_len| TestFormat::LIGHT.reply_len(request_len);
        let mut seen = 0;
        for pair in rows.windows(2) {
            let answer = pair[1]["name"].as_str().unwrap();
            if answer.starts_with("unauthenticated reflector, answer to") {
                let request_len = pair[0]["wire"].as_str().unwrap().len() / 2;
                assert_eq!(reply_len(request_len), pair[1]["length"], "{answer}");
                seen += 1;
            }
        }
        assert_eq!(seen, 4);
        for (request, reply) in [(14, 41), (40, 41), (41, 41), (42, 42), (65_507, 65_507)] {
            assert_eq!(reply_len(request), reply);
        }
    }

    #[test]
    fn sizes_are_those_of_the_rfcs() {
        let (open, protected) = (Modes::UNAUTHENTICATED, Modes::ENCRYPTED);
        let (same, tos) = (Modes::SYMMETRICAL_SIZE, Modes::DSCP_ECN_MONITORING);
        let octets = Modes::REFLECT_OCTETS;
        for (modes, reflected, sender, padding_at, reflector, even) in [
            (open, 0, 14, 14, 41, 27),
            (Modes::MIXED, 0, 14, 14, 41, 27),
            (open | tos, 0, 14, 14, 42, 28),
            (open | same, 0, 14, 41, 41, 0),
            (open | same | tos, 0, 14, 42, 42, 0),
            (open | octets, 8, 14, 14, 41, 35),
            (open | octets | same, 8, 14, 41, 41, 9),
            (protected, 0, 48, 48, 112, 64),
            (Modes::AUTHENTICATED | tos, 0, 48, 48, 112, 64),
            (protected | same, 0, 48, 104, 112, 8),
            (protected | octets, 8, 48, 48, 112, 72),
        ] {
            let format = format(modes, reflected);
            let found = (
                format.sender_len(),
                format.padding_at(),
                format.reflector_len(),
                format.even_padding(),
            );
            assert_eq!(found, (sender, padding_at, reflector, even), "{modes}");
            let request = padding_at + even;
            assert_eq!(format.reply_len(request), request, "{modes}");
        }
        // Padding as RFC 6038 counts it for the reply of 104 octets (erratum 5045): longer, and whole.
        assert_eq!(
            format(protected | octets, 8).reply_len(48 + 56 + 8),
            112 + 8
        );
        for (request, reply) in [(48, 112), (111, 112), (112, 112), (113, 113), (1472, 1472)] {
            assert_eq!(format(protected, 0).reply_len(request), reply);
        }
        assert_eq!(TestFormat::LIGHT, format(open, 8));
    }

    #[test]
    fn a_request_is_zeros_and_padding_with_the_server_octets_in_front() {
        let format = format(
            Modes::UNAUTHENTICATED | Modes::SYMMETRICAL_SIZE | Modes::REFLECT_OCTETS,
            4,
        );
        let mut request = [0xff; 60];
        format.fill(&mut request, Some(7));
        assert_eq!(request[..41], [0; 41]);
        assert_eq!(request[41..43], [0xab, 0xcd]);
        assert_ne!(request[43..], [0; 17]);
        assert_eq!(format.fixed_len(), 43);
        format.fill(&mut request, None);
        assert_eq!(request[43..], [0; 17]);
        let mut short = [0xff; 20];
        format.fill(&mut short, Some(7));
        assert_eq!(short, [0; 20]);
    }

    #[test]
    fn a_reply_without_room_is_not_written() {
        let format = format(Modes::ENCRYPTED | Modes::SYMMETRICAL_SIZE, 0);
        for (from, len, to) in [
            (0, 48, 1),
            (0, 112, 1),
            (65, 48, 0),
            (usize::MAX, 48, 0),
            (0, usize::MAX, 0),
            (0, 48, usize::MAX),
        ] {
            let mut slot = [0xa5; 112];
            let written = format.write_reply(&mut slot, from, len, to, &[0xee; 112]);
            assert_eq!((written, slot), (None, [0xa5; 112]), "{from} {len} {to}");
        }
    }

    proptest! {
        #[test]
        fn a_reply_comes_from_anywhere_in_the_slot(
            modes in 0..1024_u32, len in 48..300_usize, from in 0..600_usize, to in 0..600_usize,
        ) {
            let Ok(format) = TestFormat::new(Modes::from_bits(modes), 9, [0; 2]) else {
                return Ok(());
            };
            let request: Vec<u8> = (1..=251).cycle().take(len).collect();
            let fields = vec![0xee; format.reflector_len()];
            let mut alone = request.clone();
            alone.resize(1024, 0xa5);
            let reply_len = format.write_reply(&mut alone, 0, len, 0, &fields).unwrap();
            let mut slot = vec![0xa5; 1024];
            slot[from..from + len].copy_from_slice(&request);
            prop_assert_eq!(format.write_reply(&mut slot, from, len, to, &fields), Some(reply_len));
            prop_assert_eq!(&slot[to..to + reply_len], &alone[..reply_len]);
        }

        #[test]
        fn a_reply_returns_the_first_octets_of_the_padding(
            modes in 0..1024_u32,
            reflected in 0..80_u16,
            len in 14..300_usize,
            slack in 0..200_usize,
        ) {
            let modes = Modes::from_bits(modes);
            let Ok(format) = TestFormat::new(modes, reflected, [0; 2]) else {
                return Ok(());
            };
            prop_assume!(len >= format.sender_len());
            let mut slot: Vec<u8> = (1..=251).cycle().take(len + slack).collect();
            let request = slot[..len].to_vec();
            let fields = vec![0xee; format.reflector_len()];
            let reply_len = format.reply_len(len);
            let before = slot.clone();
            match format.write_reply(&mut slot, 0, len, 0, &fields) {
                None => {
                    prop_assert!(reply_len > slot.len());
                    prop_assert_eq!(slot, before);
                }
                Some(written) => {
                    prop_assert_eq!(written, reply_len);
                    prop_assert!(reply_len >= len);
                    let (head, padding) = slot[..reply_len].split_at(fields.len());
                    prop_assert_eq!(head, &fields[..]);
                    let mut sent = request[format.padding_at().min(len)..].to_vec();
                    let returned = sent.len().min(reflected.into());
                    if modes.contains(Modes::REFLECT_OCTETS) && reflected > 0 {
                        prop_assert!(padding.len() >= returned);
                    } else if format.monitored() && format.protection().is_none() {
                        sent.iter_mut().take(2).for_each(|octet| *octet = 0);
                    }
                    for (place, octet) in padding.iter().enumerate() {
                        prop_assert_eq!(*octet, sent.get(place).copied().unwrap_or(0));
                    }
                    prop_assert_eq!(&slot[reply_len..], &before[reply_len..]);
                }
            }
        }
    }
}
