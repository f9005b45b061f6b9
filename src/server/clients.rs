//! Who the clients are, and how much of the Server each of them has.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::config::Rules;
use crate::engine::served::Allowance;

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, since whoever has one
/// address of such a network has all of them (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClientAddress(IpAddr);

impl ClientAddress {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into(),
        })
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// Clients that have something here. Who has nothing any more is forgotten.
#[derive(Debug, Default)]
pub(super) struct Clients(HashMap<ClientAddress, Client>);

/// What one client has.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connections: usize,
    /// Of these, those whose set-up is not over.
    pub(super) half_open: usize,
    pub(super) sessions: usize,
    /// Of all its sessions, present and future.
    allowance: Arc<Allowance>,
}

impl Clients {
    pub(super) fn get(&self, address: ClientAddress) -> Option<&Client> {
        self.0.get(&address)
    }

    /// Counts something in or out. `rules` are for a client that is new.
    pub(super) fn change(
        &mut self,
        address: ClientAddress,
        rules: &Rules,
        change: impl FnOnce(&mut Client),
    ) {
        change(self.0.entry(address).or_insert_with(|| Client::new(rules)));
        self.forget(address);
    }

    /// The same of a client that is known; of another there is nothing to count out.
    pub(super) fn change_known(
        &mut self,
        address: ClientAddress,
        change: impl FnOnce(&mut Client),
    ) {
        if let Some(client) = self.0.get_mut(&address) {
            change(client);
            self.forget(address);
        }
    }

    /// What its sessions may have answered.
    pub(super) fn allowance(&mut self, address: ClientAddress, rules: &Rules) -> Arc<Allowance> {
        let client = self.0.entry(address).or_insert_with(|| Client::new(rules));
        Arc::clone(&client.allowance)
    }

    fn forget(&mut self, address: ClientAddress) {
        let gone = |client: &Client| client.connections == 0 && client.sessions == 0;
        if self.0.get(&address).is_some_and(gone) {
            self.0.remove(&address);
        }
    }
}

impl Client {
    fn new(rules: &Rules) -> Self {
        Self {
            connections: 0,
            half_open: 0,
            sessions: 0,
            allowance: Arc::new(Allowance::new(rules.packet_rate, rules.bit_rate)),
        }
    }
}

/// The upper 64 bits.
const NETWORK: u128 = !0 << 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| ClientAddress::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::7").to_string(), "2001:db8::/64");
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn who_has_nothing_any_more_is_forgotten() {
        let rules = Policy::default().rules("192.0.2.1".parse().unwrap());
        let address = ClientAddress::of("192.0.2.1".parse().unwrap());
        let mut clients = Clients::default();
        clients.change(address, &rules, |client| client.connections += 1);
        let allowance = clients.allowance(address, &rules);
        clients.change(address, &rules, |client| client.sessions += 1);
        clients.change_known(address, |client| client.connections -= 1);
        assert!(Arc::ptr_eq(&allowance, &clients.allowance(address, &rules)));
        clients.change_known(address, |client| client.sessions -= 1);
        assert!(clients.get(address).is_none());
        clients.change_known(address, |client| client.sessions -= 1);
    }
}
