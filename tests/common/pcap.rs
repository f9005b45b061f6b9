//! Captures: what was on the wire, read back; classic pcap of Ethernet frames with IPv4.
//!
//! A capture that is not of this kind, or whose TCP segments are not all there in order, ends the
//! test: it is a file of this repository.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Octets of one TCP segment or one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) unix_ns: i64,
    pub(crate) protocol: Protocol,
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// All TCP and UDP packets with a payload, in order.
pub(crate) fn packets(file: &[u8]) -> Vec<Packet> {
    let (header, mut records) = file.split_at(24);
    assert_eq!(le32(header, 0), 0xa1b2_3c4d, "nanoseconds, little-endian");
    assert_eq!(le32(header, 20), 1, "Ethernet");
    let mut packets = Vec::new();
    // Of each direction, the sequence number that comes next.
    let mut next: Vec<((SocketAddrV4, SocketAddrV4), u32)> = Vec::new();
    while !records.is_empty() {
        let (record, rest) = records.split_at(16);
        let (frame, rest) = rest.split_at(le32(record, 8).try_into().unwrap());
        records = rest;
        let unix_ns = i64::from(le32(record, 0)) * 1_000_000_000 + i64::from(le32(record, 4));
        let ip = &frame[14..];
        if be16(frame, 12) != 0x0800 {
            continue;
        }
        assert_eq!(ip[0], 0x45, "IPv4 without options");
        let ip = &ip[..usize::from(be16(ip, 2))];
        let (tos, ttl, transport) = (ip[1], ip[8], &ip[20..]);
        let end = |address: usize, port: usize| {
            let octets: [u8; 4] = ip[address..address + 4].try_into().unwrap();
            SocketAddrV4::new(Ipv4Addr::from(octets), be16(transport, port))
        };
        let (from, to) = (end(12, 0), end(16, 2));
        let (protocol, payload) = match ip[9] {
            6 => {
                let payload = &transport[usize::from(transport[12] >> 4) * 4..];
                let seq = u32::from_be_bytes(transport[4..8].try_into().unwrap());
                let syn_or_fin = u32::from(transport[13] & 3 != 0);
                let after = seq.wrapping_add(u32::try_from(payload.len()).unwrap() + syn_or_fin);
                match next.iter_mut().find(|(ends, _)| *ends == (from, to)) {
                    None => next.push(((from, to), after)),
                    Some((_, expected)) => {
                        assert_eq!(seq, *expected, "nothing lost, nothing twice");
                        *expected = after;
                    }
                }
                (Protocol::Tcp, payload)
            }
            17 => (Protocol::Udp, &transport[8..]),
            _ => continue,
        };
        if !payload.is_empty() {
            packets.push(Packet {
                unix_ns,
                protocol,
                from,
                to,
                tos,
                ttl,
                payload: payload.to_vec(),
            });
        }
    }
    packets
}

fn le32(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(octets[at..at + 4].try_into().unwrap())
}

fn be16(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(octets[at..at + 2].try_into().unwrap())
}
