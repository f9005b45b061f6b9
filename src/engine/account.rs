//! From a reflector's counts to its account: plain data, for whoever shows it.

use std::net::SocketAddr;

use super::admission::Record;
use super::reflector::{Reflected, no_request};
use crate::config::ReflectorConfig;
use crate::report::ignored::Kind;
use crate::report::moment;
use crate::report::reflector::{Account, Schema, Session, TestMode, Totals};

/// Sessions that are listed at most.
const LISTED: usize = super::admission::RECORDS;

impl Reflected {
    /// The account of a reflector of this configuration that listened on these addresses.
    #[must_use]
    pub fn account(&self, config: &ReflectorConfig, listen: &[SocketAddr]) -> Account {
        let injected = config.impairment.is_some();
        let listed = self.records.as_ref().map(|records| {
            let mut records: Vec<&Record> = records.iter().collect();
            records.sort_by_key(|record| record.first_ns);
            let older = records.len().saturating_sub(LISTED);
            let newest = records.into_iter().skip(older);
            let sessions = newest.map(|record| session(record, injected));
            sessions.collect::<Vec<_>>()
        });
        let not_listed = listed.as_ref().map(|listed| {
            let listed = u64::try_from(listed.len()).unwrap_or(0);
            self.sessions.saturating_sub(listed)
        });
        let of = |kind| self.counts.ignored.of(kind);
        let none = Kind::ALL.into_iter().filter(|kind| no_request(*kind));
        let invalid = none.map(of).sum();
        Account {
            schema: Schema::Version1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: listen.to_vec(),
            stateless: config.stateless,
            test_mode: config.impairment.as_ref().map(|plan| TestMode {
                direction: plan.direction.to_string(),
                seed: plan.seed,
                drop_rate: plan.drop.value(),
                duplicate_rate: plan.duplicate.value(),
                reorder_rate: plan.reorder.value(),
                delay_rate: plan.delay.value(),
                corrupt_rate: plan.corrupt.value(),
                delay_min_ns: plan.delay_ns.0,
                delay_max_ns: plan.delay_ns.1,
                rate_limit_pps: plan.rate_limit.map(crate::config::Rate::per_second),
            }),
            totals: Totals {
                received: self.counts.received,
                received_octets: self.counts.received_octets,
                reflected: self.counts.reflected,
                invalid,
                refused: self.counts.ignored.total() - invalid,
                not_allowed: of(Kind::NotAllowed),
                loops: of(Kind::Loop) + of(Kind::NoSource),
                to_many: of(Kind::ToMany),
                ignored: self.counts.ignored,
                unsent: self.counts.unsent,
                unsent_by: self.unsent_by,
                sessions: self.sessions,
                evicted: self.evicted,
                control_cut: self.cut,
                bundled: self.counts.bundled,
                estimates_unusable: self.counts.estimates_unusable,
                kernel_drops: self.kernel_drops,
                injected: self.injected,
            },
            sessions: listed,
            sessions_not_listed: not_listed,
            refused_calls: self.refused_calls.clone(),
            failure: self.failure.clone(),
        }
    }
}

fn session(record: &Record, injected: bool) -> Session {
    Session {
        address: record.from.ip(),
        port: record.from.port(),
        local_address: record.to,
        first_packet: moment::to_the_millisecond(record.first_ns),
        last_packet: moment::to_the_millisecond(record.last_ns),
        received: record.received,
        received_octets: record.octets,
        reflected: record.reflected,
        unsent: record.unsent,
        invalid: record.invalid,
        refused: record.refused,
        injected: injected.then_some(record.injected),
    }
}
