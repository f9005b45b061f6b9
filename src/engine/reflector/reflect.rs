//! From requests to replies, in the memory that the requests came in: whose they are, which are
//! answered, and what the replies say.
//!
//! A datagram is a bundle of one. All of a bundle share one look at where it came from, one T2, and
//! one train of replies.

use super::book::{Book, Looks};
use super::light::Light;
use super::run::Run;
use super::totals::Reflected;
use super::train::{Admitted, Answer, MOST_SEGMENTS, stamp_train, write_train};
use crate::config::ReflectorConfig;
use crate::engine::admission::LoopGuard;
use crate::engine::error_estimate::error_estimate;
use crate::io::Request;
use crate::os;
use crate::report::ignored::Kind;
use crate::wire::protected::{self, Mode, Refused};
use crate::wire::{
    ErrorEstimate, Format, ReflectorPacket, ReplyHead, ReplyTail, SenderPacket, Timestamp,
    echoed_sender_timestamp, parse_request,
};

/// Replies, or trains of them, that share one T3 and one call.
const CHUNK: usize = 4;
/// How often the clock's quality is asked for.
const QUALITY_NS: i64 = 1_000_000_000;

/// A value in both formats of timestamps.
type InBoth<T> = [T; 2];

const FORMATS: InBoth<Format> = [Format::Ntp, Format::Ptp];

const fn place(format: Format) -> usize {
    match format {
        Format::Ntp => 0,
        Format::Ptp => 1,
    }
}

/// What decides about the requests of a thread: its sessions, the loop guard, and this host's clock.
pub(in crate::engine) struct Reflector<B = Light> {
    pub(in crate::engine) book: B,
    pub(in crate::engine) guard: LoopGuard,
    /// What this host thinks of its clock, as replies carry it, and until when.
    estimates: InBoth<ErrorEstimate>,
    estimates_until_ns: i64,
    /// Replies that are not protected are about to leave with a T3 in this format.
    leaving: InBoth<bool>,
    pub(in crate::engine) totals: Reflected,
    /// The requests of the datagram or bundle at hand.
    requests: Vec<Admitted>,
}

impl Reflector<Light> {
    pub(in crate::engine) fn new(config: &ReflectorConfig) -> Self {
        Self::over(Light::new(config))
    }
}

impl<B: Book> Reflector<B> {
    pub(in crate::engine) fn over(book: B) -> Self {
        Self {
            book,
            guard: LoopGuard::default(),
            estimates: [ErrorEstimate::UNKNOWN; 2],
            estimates_until_ns: i64::MIN,
            leaving: [false; 2],
            totals: Reflected::default(),
            requests: Vec::with_capacity(MOST_SEGMENTS),
        }
    }

    pub(in crate::engine) fn refresh_estimates(&mut self, now: i64) {
        if now >= self.estimates_until_ns {
            self.estimates = FORMATS.map(error_estimate);
            self.estimates_until_ns = now + QUALITY_NS;
        }
    }

    /// Counts a datagram or bundle of `segment` octets each, and finds out whose it is; `None`: it is
    /// not answered.
    pub(in crate::engine) fn admit(
        &mut self,
        port: usize,
        request: &Request<'_>,
        segment: usize,
    ) -> Option<B::Visit> {
        let len = request.len;
        // An empty datagram is one, too.
        let packets = count(len.div_ceil(segment).max(1));
        let totals = &mut self.totals;
        totals.counts.arrived(packets, len);
        totals.cut += if request.facts_cut { packets } else { 0 };
        let visit = match self.book.admit(port, request, packets) {
            Ok(visit) => visit,
            Err(kind) => {
                totals.counts.ignored.note(kind, packets);
                return None;
            }
        };
        let unfit = match (request.truncated, request.to_many, len) {
            (true, _, _) => Kind::Truncated,
            (_, true, _) => Kind::ToMany,
            (_, _, 0) => Kind::TooShort,
            _ => return Some(visit),
        };
        self.ignore(&visit, unfit, packets, len);
        None
    }

    /// Counts packets that are not answered.
    pub(in crate::engine) fn ignore(
        &mut self,
        visit: &B::Visit,
        kind: Kind,
        packets: u64,
        octets: usize,
    ) {
        self.totals.counts.ignored.note(kind, packets);
        self.book.ignored(visit, kind, packets, octets);
    }

    #[inline]
    fn take(
        &mut self,
        visit: &mut B::Visit,
        sender: &SenderPacket,
        count: u32,
        octets: usize,
        now: i64,
    ) -> u32 {
        self.totals.counts.note_estimate(sender, count);
        self.book.take(visit, sender, count, octets, now)
    }

    /// How many of `wanted` replies may leave; the others are counted.
    fn limit(&mut self, visit: &B::Visit, wanted: usize, octets: usize, now: i64) -> usize {
        let granted = self.book.limit(visit, wanted, octets, now);
        if granted < wanted {
            self.ignore(visit, Kind::OverLimit, count(wanted - granted), 0);
        }
        granted
    }

    /// Writes the replies to a run in place; the first octet is that of the first reply.
    pub(super) fn answer_run(
        &mut self,
        octets: &mut [u8],
        request: &Request<'_>,
        mut visit: B::Visit,
        run: &Run,
        now: i64,
    ) -> Option<Answer> {
        let number = self.take(&mut visit, &run.first, run.count, request.len, now);
        let step = run.step;
        let len = step * self.limit(&visit, request.len / step, step, now);
        let session = B::session(&visit);
        let looks = self.book.looks(session).filter(|_| len > 0)?;
        let first = self.blank(request, looks).answering(&run.first, number);
        run.write(first, &mut octets[..len]);
        Some(Answer {
            len,
            step,
            tos: looks.reply_tos(request.tos),
            session,
        })
    }

    /// Reads requests of `segment` octets one by one and writes their replies over them, one behind the
    /// other, all but T3 (RFC 5357 §4.2.1).
    pub(super) fn answer_each(
        &mut self,
        request: &mut Request<'_>,
        mut visit: B::Visit,
        segment: usize,
        now: i64,
    ) -> Option<Answer> {
        let looks = self.book.looks(B::session(&visit))?;
        let step = looks.format.reply_len(segment);
        // Replies may be longer than requests. No sender makes trains so long that theirs do not fit.
        let mut room = request.slot.len() / step;
        let octets = &mut request.slot[..request.len];
        read(octets, segment, looks, &self.guard, &mut self.requests);
        let mut without = 0;
        let mut requests = std::mem::take(&mut self.requests);
        requests.retain_mut(|one| {
            match one.read {
                Ok(_) if room == 0 => without += 1,
                Ok(sender) => {
                    room -= 1;
                    one.number = self.take(&mut visit, &sender, 1, one.len, now);
                    return true;
                }
                Err(kind) => self.ignore(&visit, kind, 1, one.len),
            }
            false
        });
        requests.truncate(self.limit(&visit, requests.len(), step, now));
        self.requests = requests;
        let session = B::session(&visit);
        self.book.queued(session, without);
        self.unsent(session, without);
        self.write_each(request, session, segment)
    }

    /// Writes the replies to the requests at hand.
    fn write_each(
        &mut self,
        request: &mut Request<'_>,
        session: u64,
        segment: usize,
    ) -> Option<Answer> {
        if self.requests.is_empty() {
            return None;
        }
        let looks = self.book.looks(session)?;
        let step = looks.format.reply_len(segment);
        let (blank, tos) = (self.blank(request, looks), request.tos);
        let write = |slot: &mut [u8], one: &Admitted, to| {
            let reply = blank.answering(one.read.as_ref().ok()?, one.number);
            looks.write(slot, one, to, reply, tos)
        };
        let len = write_train(request.slot, &mut self.requests, segment, step, write);
        if let Some(protection) = &looks.protection {
            protection.prepare::<protected::ReflectorPacket>(&mut request.slot[..len], step);
        }
        Some(Answer {
            len,
            step,
            tos: looks.reply_tos(tos),
            session,
        })
    }

    /// Writes the reply to a request that was taken, with this number.
    pub(in crate::engine) fn write_one(
        &mut self,
        request: &mut Request<'_>,
        sender: SenderPacket,
        number: u32,
        session: u64,
    ) -> Option<Answer> {
        self.requests.clear();
        self.requests.push(Admitted {
            at: 0,
            len: request.len,
            read: Ok(sender),
            number,
        });
        self.write_each(request, session, request.len)
    }

    fn blank(&self, request: &Request<'_>, looks: &Looks) -> Blank {
        let format = looks.timestamps;
        Blank::new(request, self.estimates[place(format)], format)
    }

    /// How many of the queued replies or trains leave with one T3. Encrypted replies are worked on after
    /// it was read: few of them leave together.
    pub(in crate::engine) fn chunk(&self, queued: &[Answer]) -> usize {
        let mut encrypted = 0;
        let together = queued.iter().take(CHUNK).enumerate();
        let together = together.take_while(|(place, answer)| {
            let looks = self.book.looks(answer.session);
            if looks.is_some_and(|looks| looks.format.protection() == Some(Mode::Encrypted)) {
                encrypted += answer.replies();
            }
            *place == 0 || encrypted <= count(CHUNK)
        });
        together.count()
    }

    /// This moment, as replies carry it.
    pub(in crate::engine) fn now() -> InBoth<Timestamp> {
        let ns = os::realtime_ns();
        FORMATS.map(|format| Timestamp::from_unix_ns(ns, format))
    }

    /// Writes T3 into replies; `again` into those that have one but did not leave then.
    pub(in crate::engine) fn stamp(
        &mut self,
        answer: &Answer,
        octets: &mut [u8],
        t3: InBoth<Timestamp>,
        again: bool,
    ) {
        let Some(looks) = self.book.looks(answer.session) else {
            return;
        };
        let place = place(looks.timestamps);
        let (step, t3) = (answer.step, t3[place]);
        match &looks.protection {
            Some(protection) if again => {
                protection.stamp_again::<protected::ReflectorPacket>(octets, step, t3);
            }
            Some(protection) => protection.stamp::<protected::ReflectorPacket>(octets, step, t3),
            None => {
                stamp_train(octets, step, t3);
                self.leaving[place] = true;
            }
        }
    }

    /// The call that sends is over, whatever became of the replies.
    pub(in crate::engine) fn tried(&mut self, t3: InBoth<Timestamp>) {
        // Nobody makes a request of a protected reply.
        for (left, t3) in self.leaving.iter_mut().zip(t3) {
            if std::mem::take(left) {
                self.guard.note(t3);
            }
        }
    }

    /// So many replies of a session could not be sent.
    pub(in crate::engine) fn unsent(&mut self, session: u64, replies: u64) {
        self.totals.counts.unsent += replies;
        self.book.unsent(session, replies);
    }
}

/// Reads the requests of a datagram or bundle.
fn read(
    octets: &mut [u8],
    segment: usize,
    looks: &Looks,
    guard: &LoopGuard,
    requests: &mut Vec<Admitted>,
) {
    requests.clear();
    let len = octets.len();
    let mut note = |place: usize, read| {
        let at = place * segment;
        requests.push(Admitted {
            at,
            len: segment.min(len - at),
            read,
            number: 0,
        });
    };
    if let Some(protection) = &looks.protection {
        protection.open(octets, segment, |place, packet| {
            let packet = packet.map(protected::SenderPacket::plain);
            note(
                place,
                packet.map_err(|refused| match refused {
                    Refused::TooShort(_) => Kind::TooShort,
                    Refused::Forged => Kind::Forged,
                }),
            );
        });
        return;
    }
    for (place, octets) in octets.chunks(segment).enumerate() {
        note(place, read_one(octets, guard));
    }
}

/// Reads a request that is not protected.
pub(in crate::engine) fn read_one(octets: &[u8], guard: &LoopGuard) -> Result<SenderPacket, Kind> {
    let sender = parse_request(octets).map_err(|_| Kind::TooShort)?;
    // A reply of ours that came back reads as a request, and is none.
    match echoed_sender_timestamp(octets) {
        Some(t3) if guard.knows(t3) => Err(Kind::Loop),
        _ => Ok(*sender),
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// A reply in which nothing is missing but whose it is, and T3.
struct Blank(ReflectorPacket);

impl Blank {
    fn new(request: &Request<'_>, estimate: ErrorEstimate, format: Format) -> Self {
        let arrived = request.arrived_ns.unwrap_or_else(os::realtime_ns);
        Self(ReflectorPacket {
            head: ReplyHead {
                seq: 0.into(),
                timestamp: Timestamp::from_raw(0),
                error_estimate: estimate,
                mbz: [0; 2],
                receive_timestamp: Timestamp::from_unix_ns(arrived, format),
                sender_seq: 0.into(),
                sender_timestamp: Timestamp::from_raw(0),
                sender_error_estimate: ErrorEstimate::UNKNOWN,
            },
            tail: ReplyTail {
                mbz: [0; 2],
                sender_ttl: request.ttl.unwrap_or(255),
            },
        })
    }

    /// The reply to a request, with this Sequence Number.
    #[inline]
    fn answering(&self, sender: &SenderPacket, number: u32) -> ReflectorPacket {
        ReflectorPacket {
            head: ReplyHead {
                seq: number.into(),
                sender_seq: sender.seq,
                sender_timestamp: sender.timestamp,
                sender_error_estimate: sender.error_estimate,
                ..self.0.head
            },
            tail: self.0.tail,
        }
    }
}
