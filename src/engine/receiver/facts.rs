//! What the receiver found: counts of packets, and what replies told beside their timestamps.

use std::net::SocketAddr;

use super::estimates::Estimates;
use super::time_format::Belief;
use crate::engine::cores::merged;
use crate::engine::icmp::IcmpErrors;
use crate::engine::waits::Waits;
use crate::io::{Datagram, RefusedCall};
use crate::report::ignored::Ignored;
use crate::stats::clock::OwnStep;
use crate::stats::sequence::Counts;
use crate::wire::{Reading, Reply};

/// Times that our clock was set that are kept.
const OWN_STEPS: usize = 16;
/// Distinct reply sizes that are listed.
const REPLY_SIZES: usize = 16;

/// What the receiver thread found.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) counts: Counts,
    pub(crate) facts: Facts,
    pub(crate) kernel_drops: Option<u64>,
    /// Samples that found no room on their way to the stats thread.
    pub(crate) unrecorded: u64,
    /// The wait for the last replies was ended before its time.
    pub(crate) cut_short: bool,
    pub(crate) cpus: Option<Vec<usize>>,
    /// The call for many packets that this system refuses, so that each took one of its own.
    pub(crate) refused_call: Option<RefusedCall>,
    /// The call that failed until the end: what came then was not seen.
    pub(crate) failure: Option<RefusedCall>,
}

impl Received {
    /// What several receiver threads found, each with the number of packets sent.
    pub(crate) fn together<'a>(
        classes: usize,
        threads: impl Iterator<Item = (u64, &'a Self)> + Clone,
    ) -> Self {
        let mut all = Self {
            counts: Counts::together(threads.clone().map(|(sent, one)| (sent, &one.counts))),
            facts: Facts::new(classes),
            kernel_drops: Some(0),
            unrecorded: 0,
            cut_short: false,
            cpus: Some(Vec::new()),
            refused_call: None,
            failure: None,
        };
        for (_, one) in threads {
            all.facts.add(&one.facts);
            all.kernel_drops = all.kernel_drops.zip(one.kernel_drops).map(|(a, b)| a + b);
            all.unrecorded += one.unrecorded;
            all.refused_call = all.refused_call.or(one.refused_call);
            all.failure = all.failure.or(one.failure);
            all.cut_short |= one.cut_short;
            all.cpus = all
                .cpus
                .zip(one.cpus.as_ref())
                .map(|(cpus, more)| merged(cpus, more));
        }
        all
    }
}

/// What replies told beside their timestamps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Datagrams that are no replies to packets of the session.
    pub(crate) ignored: Ignored,
    /// Where the first reply of another address came from.
    pub(crate) elsewhere_from: Option<SocketAddr>,
    /// ICMP errors, by what they say.
    pub(crate) icmp: IcmpErrors,
    /// When our own clock was set: the first few times.
    pub(crate) own_steps: Vec<OwnStep>,
    pub(crate) times: Times,
    pub(crate) stamps: Stamps,
    pub(crate) path: Path,
    pub(crate) sizes: Sizes,
    /// Of the reflector's clock.
    pub(crate) estimates: Estimates,
    /// Replies of which the kernel cut control messages off.
    pub(crate) cut: u64,
    /// Replies that came in bundles and share their T4 with others.
    pub(crate) bundled: u64,
}

impl Facts {
    pub(in crate::engine) fn new(classes: usize) -> Self {
        Self {
            own_steps: Vec::with_capacity(OWN_STEPS),
            sizes: Sizes {
                by_class: vec![0; classes],
                of_replies: Vec::with_capacity(REPLY_SIZES),
                ..Sizes::default()
            },
            ..Self::default()
        }
    }

    fn add(&mut self, other: &Self) {
        self.ignored.add(&other.ignored);
        self.elsewhere_from = self.elsewhere_from.or(other.elsewhere_from);
        self.icmp.add(&other.icmp);
        self.own_steps.extend_from_slice(&other.own_steps);
        self.times.add(&other.times);
        self.stamps.add(&other.stamps);
        self.path.add(&other.path);
        self.sizes.add(&other.sizes);
        self.estimates.add(&other.estimates);
        self.cut += other.cut;
        self.bundled += other.bundled;
    }

    /// Notes what `count` replies told that are like this one.
    #[inline]
    pub(super) fn note(&mut self, datagram: &Datagram<'_>, reply: &Reply<'_>, count: u64) {
        self.path.note(datagram, reply, count);
        self.cut += if datagram.facts_cut { count } else { 0 };
        self.bundled += if datagram.segment.is_some() { count } else { 0 };
        self.estimates.note(reply.head.error_estimate, count);
    }

    pub(super) fn note_own_step(&mut self, step: OwnStep) {
        if self.own_steps.len() < OWN_STEPS {
            self.own_steps.push(step);
        }
    }
}

/// How T2 and T3 were read, and the replies that have no delay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Replies whose timestamps make no sense: a clock was set, or they are not in the format that
    /// they claim.
    pub(crate) rejected: u64,
    /// Replies that tell no time: T2 or T3 is 0.
    pub(crate) untold: u64,
    /// Replies without a receive timestamp.
    pub(crate) unstamped: u64,
    /// Replies whose delays are not known since other replies deny it.
    pub(crate) misread: u64,
    /// Replies whose T2 and T3 are not in the format that they claim, and were read in the other one.
    pub(crate) other_format: u64,
    /// Replies that had T1 and T3 in each other's place.
    pub(crate) exchanged: u64,
    /// How T2 and T3 were read, once that was settled; of several threads: of each.
    pub(crate) readings: Vec<Reading>,
    /// How far that can be believed; of several threads the least.
    pub(crate) belief: Belief,
}

impl Times {
    /// Replies that have no delay.
    pub(in crate::engine) fn without_delay(&self) -> u64 {
        self.rejected + self.misread + self.untold + self.unstamped
    }

    fn add(&mut self, other: &Self) {
        self.rejected += other.rejected;
        self.untold += other.untold;
        self.unstamped += other.unstamped;
        self.misread += other.misread;
        self.other_format += other.other_format;
        self.exchanged += other.exchanged;
        for reading in &other.readings {
            if !self.readings.contains(reading) {
                self.readings.push(*reading);
            }
        }
        self.belief = self.belief.max(other.belief);
    }
}

/// Transmit timestamps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamps {
    /// Those that came.
    pub(crate) back: u64,
    /// Of packets that were answered, those that never came.
    pub(crate) lost: u64,
    pub(crate) waits: Waits,
}

impl Stamps {
    fn add(&mut self, other: &Self) {
        self.back += other.back;
        self.lost += other.lost;
        self.waits.add(&other.waits);
    }
}

/// How often each TTL and TOS was seen.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) ttl_out: Box<[u64; 256]>,
    pub(crate) ttl_in: Box<[u64; 256]>,
    pub(crate) tos_in: Box<[u64; 256]>,
    /// TOS of the requests where they arrived (RFC 7750).
    pub(crate) tos_there: Box<[u64; 256]>,
    /// Replies of fewer than 41 octets, which carry no TTL.
    pub(crate) short_replies: u64,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            ttl_out: Box::new([0; 256]),
            ttl_in: Box::new([0; 256]),
            tos_in: Box::new([0; 256]),
            tos_there: Box::new([0; 256]),
            short_replies: 0,
        }
    }
}

impl Path {
    #[inline]
    fn note(&mut self, datagram: &Datagram<'_>, reply: &Reply<'_>, count: u64) {
        match reply.sender_ttl {
            Some(ttl) => self.ttl_out[usize::from(ttl)] += count,
            None => self.short_replies += count,
        }
        if let Some(tos) = reply.sender_tos {
            self.tos_there[usize::from(tos)] += count;
        }
        if let Some(ttl) = datagram.ttl {
            self.ttl_in[usize::from(ttl)] += count;
        }
        if let Some(tos) = datagram.tos {
            self.tos_in[usize::from(tos)] += count;
        }
    }

    fn add(&mut self, other: &Self) {
        sum(&mut *self.ttl_out, &*other.ttl_out);
        sum(&mut *self.ttl_in, &*other.ttl_in);
        sum(&mut *self.tos_in, &*other.tos_in);
        sum(&mut *self.tos_there, &*other.tos_there);
        self.short_replies += other.short_replies;
    }
}

/// How long replies were, and to which packets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    /// Replies to packets of each size class.
    pub(crate) by_class: Vec<u64>,
    pub(crate) of_replies: Vec<usize>,
    /// There were more sizes than are listed.
    pub(crate) more: bool,
    /// Octets of all replies, and how many they should have.
    pub(crate) octets: u64,
    pub(crate) due_octets: u64,
}

impl Sizes {
    /// Notes `count` replies to packets of a size class, of `len` octets each where `due` are right.
    #[inline]
    pub(super) fn note(&mut self, class: u8, (len, due): (usize, u64), count: u64) {
        self.by_class[usize::from(class)] += count;
        self.octets += u64::try_from(len).unwrap_or(0) * count;
        self.due_octets += due * count;
        if !self.of_replies.contains(&len) {
            if self.of_replies.len() < REPLY_SIZES {
                self.of_replies.push(len);
            } else {
                self.more = true;
            }
        }
    }

    fn add(&mut self, other: &Self) {
        sum(&mut self.by_class, &other.by_class);
        self.of_replies = merged(std::mem::take(&mut self.of_replies), &other.of_replies);
        self.more |= other.more;
        self.octets += other.octets;
        self.due_octets += other.due_octets;
    }
}

fn sum(counts: &mut [u64], more: &[u64]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}
